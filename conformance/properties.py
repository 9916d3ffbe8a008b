"""What holds of a loss at any size, and needs no oracle: properties of an implementation, each judged by itself.

An error is quoted as a ratio, of which 4 is allowed, as everywhere. Its unit is 2 u (1 + sqrt(d) rate) of the whole value, or
of the whole gradient's norm, where the rate is what a similarity is multiplied by in a logit: so much is promised of
ordinary rows that are normalised.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import inf, sqrt

import numpy as np
from numpy.typing import NDArray

from sincere_spec.conformance.judge import Answer, Implementation, Result, Unsupported, compared, nothing
from sincere_spec.conformance.questions import Array, Question, Wanted
from sincere_spec.conformance.text import of_error
from sincere_spec.conformance.tolerance import PRECISIONS, K, compute_dtype, value_dtype

__all__ = ["PROPERTIES", "Outcome", "Property", "hold"]

SLOPE = 1e-6  # how far a derivative by five values may be from the gradient, relatively, in double precision
ARCS = 16  # classes of three in the batch that shows whether positives repel


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came: a value, the gradients of cotangent times value (none where no gradient was asked), and the unit of errors."""

    value: float
    gradients: Mapping[str, Array]
    unit: float


Ask = Callable[[Question], Outcome]


@dataclass(frozen=True)
class Property:
    """A property: what is said of an implementation that lacks it, and the ratio of its error.

    `ratio` gets the way to ask, the question and its outcome; None says that the property cannot be seen there. `engine` is
    the only one that it is asked of.
    """

    says: str
    ratio: Callable[[Ask, Question, Outcome], float | None]
    engine: str = ""


def _apart(got: Outcome, want: Outcome, unit: float) -> float:
    """How far two outcomes are from each other."""
    error = sqrt(sum(float(np.sum((got.gradients[name] - x) ** 2)) for name, x in want.gradients.items()))
    size = sqrt(sum(float(np.sum(x**2)) for x in want.gradients.values()))
    return max(_relative(abs(got.value - want.value), abs(want.value)), _relative(error, size)) / unit


def _relative(error: float, size: float) -> float:
    return 0.0 if error == 0.0 else error / size if size else inf


def _with(question: Question, change: Mapping[str, NDArray[np.generic]]) -> Question:
    return replace(question, arguments={**question.arguments, **change})


def _orthogonality(ask: Ask, question: Question, here: Outcome) -> float | None:
    """Euler's identity: a loss that does not depend on a row's norm has a gradient at right angles to the row."""
    if not here.gradients or not question.normalize:
        return None
    pairs = [(question.arrays[name], g) for name, g in here.gradients.items()]
    along = sum(float(np.sum(np.sum(x * g, axis=-1) ** 2)) for x, g in pairs)
    size = sum(float(np.sum(np.sum(x**2, axis=-1) * np.sum(g**2, axis=-1))) for x, g in pairs)
    return _relative(sqrt(along), sqrt(size)) / here.unit


def _turned(x: Array) -> Array:
    """Rows turned in every four dimensions: sums of four entries, halved, and so exact."""
    whole = x.shape[-1] // 4 * 4
    turn = np.asarray([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2.0
    head = (x[..., :whole].reshape(*x.shape[:-1], -1, 4) @ turn).reshape(*x.shape[:-1], whole)
    return np.concatenate([head, x[..., whole:]], axis=-1)


def _rotation(ask: Ask, question: Question, here: Outcome) -> float | None:
    turned = ask(_with(question, {name: _turned(x) for name, x in question.arrays.items()}))
    wanted = replace(here, gradients={name: _turned(x) for name, x in here.gradients.items()})
    return _apart(turned, wanted, here.unit)


_TOGETHER = {
    **dict.fromkeys(("embeddings", "labels", "ids"), "anchors"),
    **dict.fromkeys(("keys", "key_labels", "key_ids"), "keys"),
    "negatives": "queue",
}
"""Arguments whose rows go together; those of all others do."""


def _permutation(ask: Ask, question: Question, here: Outcome) -> float | None:
    orders: dict[str, NDArray[np.int64]] = {}
    for name, x in question.arguments.items():
        orders.setdefault(_TOGETHER.get(name, "pairs"), np.random.default_rng(len(orders)).permutation(len(x)))

    def order(name: str) -> NDArray[np.int64]:
        return orders[_TOGETHER.get(name, "pairs")]

    there = ask(_with(question, {name: x[order(name)] for name, x in question.arguments.items()}))
    wanted = replace(here, gradients={name: x[order(name)] for name, x in here.gradients.items()})
    return _apart(there, wanted, here.unit)


def _renaming(ask: Ask, question: Question, here: Outcome) -> float | None:
    """Labels by other names, in another order, negative ones too."""
    labels = {name: question.arguments[name] for name in ("labels", "key_labels") if name in question.arguments}
    if not labels:
        return None
    old = np.unique(np.concatenate(list(labels.values())))
    new = 3 * np.random.default_rng(0).permutation(old.size) - old.size
    renamed = {name: new[np.searchsorted(old, x)] for name, x in labels.items()}
    return _apart(ask(_with(question, renamed)), here, here.unit)


def _slope(ask: Ask, question: Question, here: Outcome) -> float | None:
    """The gradient along a direction is the derivative of the value, by five values."""
    if not here.gradients or here.unit > 1e-12:  # in single precision the values are too rough
        return None
    ways = {name: np.sin(1.7 * np.arange(x.size) + len(name)).reshape(x.shape) for name, x in question.arrays.items()}
    step, c = 2.0**-9, float(question.cotangent)

    def at(k: int) -> float:
        return ask(_with(question, {name: x + k * step * ways[name] for name, x in question.arrays.items()})).value

    slope = c * (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * step)
    told = sum(float(np.sum(g * ways[name])) for name, g in here.gradients.items())
    return K * _relative(abs(told - slope), abs(slope)) / SLOPE


def _tiles(ask: Ask, question: Question, here: Outcome) -> float | None:
    """Tiles that do not divide the batch."""
    rows = max(len(x) for x in question.arrays.values())
    return _apart(ask(replace(question, tile=rows // 3 + 1)), here, here.unit)


def _pushes(ask: Ask, question: Question) -> tuple[Array, float]:
    """How much the first row of each class is moved away from its positives, over the largest such move; and the unit.

    Every class has a plane of its own, with rows at 0, 60 and 179 degrees. For the first of them all positives lie on one
    side, and negatives at right angles to the plane: what pulls it to the other side is a positive that repels.
    """
    rows = np.zeros((3 * ARCS, 2 * ARCS))
    for k in range(ARCS):
        rows[3 * k : 3 * k + 3, 2 * k : 2 * k + 2] = [[1.0, 0.0], [0.5, 0.875], [-1.0, 1 / 64]]
    labels = np.repeat(np.arange(ARCS), 3)
    shape = Wanted(np.full_like(rows, np.nan), np.full_like(rows, np.nan))
    there = ask(replace(question, arguments={"embeddings": rows, "labels": labels}, gradient={"embeddings": shape}))
    if not there.gradients:
        return np.zeros(0), there.unit
    first = there.gradients["embeddings"][3 * np.arange(ARCS), 2 * np.arange(ARCS) + 1]
    first = first * np.sign(float(question.cotangent))
    return first / (np.max(np.abs(first)) or 1.0), there.unit


def _attraction(ask: Ask, question: Question, here: Outcome) -> float | None:
    pushes, unit = _pushes(ask, question)
    return max(0.0, float(np.max(pushes))) / unit if pushes.size else None


def _repulsion(ask: Ask, question: Question, here: Outcome) -> float | None:
    pushes, unit = _pushes(ask, question)
    return max(0.0, -float(np.min(pushes))) / unit if pushes.size else None


PROPERTIES = {
    "orthogonality": Property(
        "the gradient of a row has a part along the row, whose norm is of no account", _orthogonality
    ),
    "rotation": Property("something changes when all rows are turned alike", _rotation),
    "permutation": Property("something changes with the order of the rows", _permutation),
    "renaming": Property("something changes when classes get other names", _renaming),
    "slope": Property("the gradient is not the derivative of the value", _slope),
    "attraction": Property("a positive is pushed away from its anchor", _attraction),
    "repulsion": Property("a close positive is not pushed away, as this loss does where another is far", _repulsion),
    "tiles": Property("something changes with the size of the tiles", _tiles, engine="tiled"),
}


def hold(
    implementation: Implementation,
    question: Question,
    dtype: str,
    engine: str,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Result]:
    """A verdict on every property that a question names; never raises. One way of asking is enough."""
    route, results = implementation.routes(question)[0], []
    place = (implementation.framework, dtype, engine, route)

    def ask(asked: Question) -> Outcome:
        return _outcome(implementation.answer(asked, dtype, engine, route), asked, dtype)

    try:
        here = ask(question)
        for name in question.properties:
            lawful, began = PROPERTIES[name], clock()
            ratio = lawful.ratio(ask, question, here) if lawful.engine in ("", engine) else None
            if ratio is not None:
                seconds = round(clock() - began, 4)
                results.append(compared(question, f"property.{name}", ratio, lawful.says, *place, seconds))
    except Unsupported as declared:
        results.append(nothing(question, "unsupported", str(declared), *place))
    except Exception as error:
        results.append(nothing(question, "error", of_error(error), *place))
    return results


def _outcome(answer: Answer, question: Question, dtype: str) -> Outcome:
    """An answer as numbers; raises TypeError for one of another shape or type, ValueError for one that is not finite."""
    if answer.value.numbers.shape != () or answer.value.dtype != value_dtype(dtype):
        raise TypeError(f"a value of shape () in {value_dtype(dtype)} was expected")
    gradients = {}
    if answer.gradients is not None:
        for name, x in question.arrays.items():
            got = answer.gradients.get(name)
            if got is None or got.numbers.shape != x.shape or got.dtype != dtype:
                raise TypeError(f"a gradient of {name} of shape {x.shape} in {dtype} was expected")
            gradients[name] = got.numbers * (1.0 if answer.under_cotangent else float(question.cotangent))
    if not all(np.all(np.isfinite(x)) for x in (answer.value.numbers, *gradients.values())):
        raise ValueError("a number was expected, and NaN or an infinity came")
    unit = 2 * PRECISIONS[compute_dtype(dtype)].unit * question.sensitivity
    return Outcome(float(answer.value.numbers), gradients, unit)
