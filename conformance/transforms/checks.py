"""The checks of the table: three losses under a transform, held to what the suite says of them."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any
from unittest import mock

import numpy as np

import sincere_spec as ss
from sincere_spec.call import plan
from sincere_spec.conformance import questions
from sincere_spec.conformance.frameworks import FRAMEWORKS, Framework
from sincere_spec.conformance.implementations import called
from sincere_spec.conformance.judge import Result, compare
from sincere_spec.conformance.questions import Array, Question, Wanted
from sincere_spec.conformance.text import of_error
from sincere_spec.conformance.tolerance import PRECISIONS, K
from sincere_spec.conformance.transforms import TRANSFORMS, Transform, transforms_of

__all__ = [
    "CASES",
    "ENGINES",
    "Asked",
    "Check",
    "Unit",
    "cases",
    "check",
    "prepare",
    "result",
    "says",
    "units",
    "wanted",
]

# Of different kinds: labels, two towers with a sum in each direction, and no log-sum-exp.
CASES = ("sincere/ordinary", "clip/ordinary", "f_micl/kl")
ENGINES = ("auto", "tiled")
PASSES = ("passes", "dense")
TILE = 4  # does not divide the rows of the cases

Check = Callable[["Asked"], Mapping[str, Any]]
"""From a loss to what came of it under a transform: arrays of the framework, by the names that `wanted` has."""

Unit = tuple[str, str, str]
"""The id of a transform, that of a case, and an engine."""


@dataclass(frozen=True)
class Asked:
    """A loss, as a transform meets it.

    `loss` is a function of the dictionaries `arrays` and `integers`; the parameters are among the arrays. `another` has the
    same arrays with a row less, for transforms that are to serve any number of rows.
    """

    question: Question
    framework: Framework
    dtype: str
    engine: str

    def loss(self, arrays: Mapping[str, Any], integers: Mapping[str, Any], reduction: str = "mean") -> Any:
        """The loss of these arrays."""
        tile = {"tile": TILE} if self.engine == "tiled" else {}
        return called(self.question, arrays, integers, engine=self.engine, reduction=reduction, **tile)

    @property
    def arrays(self) -> dict[str, Any]:
        """Embeddings and parameters."""
        return {name: self.array(x) for name, x in numbers(self.question).items()}

    @property
    def integers(self) -> dict[str, Any]:
        """Labels."""
        return {name: self.framework.integers(x) for name, x in self.question.integers.items()}

    @property
    def another(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Arrays and integers of another batch: that of the case without its last row."""
        arrays = {name: self.array(x[:-1] if x.ndim else x) for name, x in numbers(self.question).items()}
        return arrays, {name: self.framework.integers(x[:-1]) for name, x in self.question.integers.items()}

    @property
    def batch(self) -> dict[str, Any]:
        """Two batches stacked: that of the case, and its embeddings times -2, where the loss is the same."""
        stacked = {name: np.stack([x, factor * x]) for name, x, factor in _factors(self.question)}
        return {name: self.array(x) for name, x in stacked.items()}

    @property
    def direction(self) -> dict[str, Any]:
        """A tangent for every array."""
        return {name: self.array(x) for name, x in direction(self.question).items()}

    def array(self, x: Array) -> Any:
        """An array of the framework, in the dtype of the check."""
        return self.framework.array(x, self.dtype)


def numbers(question: Question) -> dict[str, Array]:
    """Embeddings and parameters, as NumPy has them."""
    return question.arrays | {name: np.asarray(x) for name, x in question.parameters.items()}


def direction(question: Question) -> dict[str, Array]:
    """A tangent for every array: numbers of any sign, of a size like theirs."""
    return {name: np.cos(np.arange(x.size) + 1.0).reshape(x.shape) for name, x in numbers(question).items()}


def _factors(question: Question) -> Iterator[tuple[str, Array, float]]:
    for name, x in numbers(question).items():
        yield name, x, -2.0 if x.ndim else 1.0


# --- what is right -----------------------------------------------------------------------------------------------------------


def wanted(question: Question, quantity: str) -> Wanted:
    """What is right of a quantity: from the oracle's answer, but for second derivatives.

    "value" and "gradient.x" are the suite's; "batch.value" and "batch.gradient.x" those of `Asked.batch`; "tangent" is the
    derivative along `Asked.direction`, and "second.x" that of the gradient; "matrix" is the gradient by a matrix, the identity,
    that the embeddings are multiplied by.
    """
    first, _, rest = quantity.partition(".")
    if quantity == "value":
        return question.value
    if first == "gradient":
        return _gradient(question, rest)
    if quantity == "batch.value":
        return Wanted(np.stack([question.value.numbers] * 2), np.stack([question.value.scale] * 2))
    if first == "batch":
        name = rest.partition(".")[2]
        one = _gradient(question, name)
        (factor,) = (factor for other, _, factor in _factors(question) if other == name)
        return Wanted(np.stack([one.numbers, one.numbers / factor]), np.stack([one.scale, one.scale / abs(factor)]))
    if quantity == "tangent":
        slopes = [(_gradient(question, name), t) for name, t in direction(question).items()]
        return Wanted(
            np.asarray(sum(np.sum(g.numbers * t) for g, t in slopes)),
            np.asarray(sum(np.sum(g.scale * abs(t)) for g, t in slopes)),
        )
    if quantity == "matrix":
        parts = [(x.reshape(-1, x.shape[-1]), _gradient(question, name)) for name, x in question.arrays.items()]
        return Wanted(
            np.asarray(sum(x.T @ g.numbers for x, g in parts)), np.asarray(sum(abs(x).T @ g.scale for x, g in parts))
        )
    if first == "second":
        return _second(question)[rest]
    raise KeyError(quantity)


def _gradient(question: Question, name: str) -> Wanted:
    """That of the value alone: the suite's is under its cotangent."""
    assert question.gradient is not None
    under, c = question.gradient[name], float(question.cotangent)
    return Wanted(under.numbers / c, under.scale / abs(c))


@cache
def _second(question: Question) -> dict[str, Wanted]:
    """The gradient's derivative along the direction: differences, over points, of what NumPy gets by the formula."""
    here, along, h = numbers(question), direction(question), 2e-4
    record = getattr(ss.losses, question.loss)
    total = {name: np.zeros_like(x) for name, x in here.items()}
    for step, weight in {-2: 1 / 12, -1: -2 / 3, 1: 2 / 3, 2: -1 / 12}.items():
        moved = {name: np.asarray(x + step * h * along[name]) for name, x in here.items()}
        options = dict(question.options) | {name: moved.pop(name) for name in question.parameters}
        arguments = (*moved.values(), *question.integers.values())
        _, gradient = ss.value_and_gradient(record(**options), *arguments, engine="dense")
        for name, part in zip(here, gradient if isinstance(gradient, tuple) else (gradient,), strict=True):
            total[name] += weight / h * part
    # Differences are wrong by h⁴/30 of a fifth derivative, of a size of (2 / temperature)⁵: 1e-9 of the whole, and here 1e-7.
    allowed = {name: 1e-7 * float(np.max(abs(x))) for name, x in total.items()}
    unit = PRECISIONS["float64"].unit
    return {name: Wanted(x, np.full_like(x, allowed[name] / (K * unit))) for name, x in total.items()}


# --- asking ------------------------------------------------------------------------------------------------------------------


@cache
def cases() -> dict[str, Question]:
    """The cases that every transform is asked."""
    known = {question.id: question for question in questions.of_suite() if question.id in CASES}
    return {case: known[case] for case in CASES}


def units(framework: str, sampled: bool = True) -> tuple[Unit, ...]:
    """What there is to ask in the process of a framework; where each tile is a program to compile, of one loss if sampled."""
    few = sampled and bool(FRAMEWORKS[framework].compilers)
    return tuple(
        (row.id, case, engine)
        for row in transforms_of(framework).values()
        for case in CASES
        for engine in ENGINES
        if getattr(row, engine) and not (few and engine == "tiled" and row.tiled == "passes" and case != CASES[-1])
    )


def says(framework: str) -> dict[str, str]:
    """What the table says, by the case of each check."""
    rows = transforms_of(framework)
    return {
        f"{TRANSFORMS}/{framework}/{row.id}/{case}": f"{row.title} of {case}: "
        + "; ".join(f'engine="{engine}" {_outcome(getattr(row, engine))}' for engine in ENGINES if getattr(row, engine))
        for row in rows.values()
        for case in CASES
    }


def _outcome(outcome: str) -> str:
    words = {"passes": "passes", "dense": "passes, by the dense engine at any size"}
    return words.get(outcome, f"is refused with “{outcome}”")


def prepare(framework: str) -> None:
    """What must be said before a framework runs: the backend of Keras, and two processors to distribute over."""
    os.environ["KERAS_BACKEND"] = framework
    if framework in ("jax", "tensorflow"):
        import_module(f"{__package__}.{framework}").prepare()


def check(framework: Framework, unit: Unit) -> list[Result]:
    """Run a transform on a loss; verdicts on what came, or on how it was refused. Never raises."""
    name, case, engine = unit
    row, question = transforms_of(framework.listing.name)[name], cases()[case]
    expected, began = getattr(row, engine), time.perf_counter()

    def found(quantity: str, **fields: Any) -> Result:
        seconds = round(time.perf_counter() - began, 4)
        return result(framework.listing.name, unit, quantity, seconds=seconds, **fields)

    if importlib.util.find_spec(row.framework) is None:
        return [found("all", status="skipped", reason=f"{row.framework} is not installed")]
    try:
        module = import_module(f"{__package__}.{row.framework}")
        with _every_batch_is_large() if expected == "dense" else nullcontext():
            came = module.CHECKS[row.id](Asked(question, framework, row.dtype, engine))
    except Exception as error:
        reason = of_error(error)
        if expected in PASSES:
            return [found("all", status="error", reason=reason)]
        if expected in str(error):
            return [found("refusal", status="pass")]
        return [found("refusal", status="fail", reason=f"a refusal with “{expected}” was expected; {reason}")]
    if expected not in PASSES:
        return [found("refusal", status="fail", reason=f"a refusal with “{expected}” was expected, and numbers came")]
    return [found(quantity, **_verdict(framework, row, question, quantity, x)) for quantity, x in came.items()]


def _every_batch_is_large() -> AbstractContextManager[Any]:
    """`engine="auto"` takes tiles wherever they can run."""

    def crossovers() -> dict[str, Any]:
        return {"array_api": {}, "unmeasured": {"pairs": 0, "tile": TILE}}

    return mock.patch.object(plan, "crossovers", crossovers)


def result(framework: str, unit: Unit, quantity: str, **fields: Any) -> Result:
    """A verdict on one quantity of a check."""
    name, case, engine = unit
    return Result(
        case=f"{TRANSFORMS}/{framework}/{name}/{case}",
        row=cases()[case].row,
        profile=TRANSFORMS,
        framework=framework,
        dtype=transforms_of(framework)[name].dtype,
        engine=engine,
        route=name,
        quantity=quantity,
        **fields,
    )


def _verdict(framework: Framework, row: Transform, question: Question, quantity: str, x: Any) -> dict[str, Any]:
    want = wanted(question, quantity)
    try:
        got = None if x is None else framework.read(x)
    except TypeError as error:
        return {"status": "fail", "reason": str(error)}
    status, ratio, found = compare(got, want, row.dtype, row.dtype, question.floor)
    return {"status": status, "ratio": ratio, **found}


def by_name(value: Any, gradients: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A value and gradients as the quantities that they are."""
    return {f"{prefix}value": value} | {f"{prefix}gradient.{name}": x for name, x in gradients.items()}
