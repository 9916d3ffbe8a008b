"""Judging: what an implementation answered, held against what is right. No process, no framework, no file."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np

from sincere_spec.conformance.questions import LEVELS, Array, Question, Wanted
from sincere_spec.conformance.text import of_error, shortened
from sincere_spec.conformance.tolerance import PRECISIONS, K, compute_dtype, ratios, value_dtype

__all__ = [
    "NO_ARRAY",
    "Answer",
    "Implementation",
    "Result",
    "Returned",
    "Status",
    "Unsupported",
    "ask",
    "compared",
    "judge",
    "nothing",
]

NO_ARRAY = "no array: None is the gradient of an array without entries"
"""Why such a gradient is not judged."""

Status = Literal["pass", "fail", "error", "unsupported", "skipped"]


@dataclass(frozen=True, eq=False)
class Returned:
    """An array that came back: its numbers, which float64 holds exactly, and the dtype that they had."""

    numbers: Array
    dtype: str


@dataclass(frozen=True, eq=False)
class Answer:
    """The value, and the gradients by argument; None where no gradient was asked.

    `under_cotangent` says whether the gradients are of cotangent times value, or of the value alone.
    """

    value: Returned
    gradients: Mapping[str, Returned | None] | None = None
    under_cotangent: bool = True


class Unsupported(Exception):
    """Raised by an implementation that declares that it cannot be asked something; the message says why."""


class Implementation(Protocol):
    """Anything that can be judged."""

    framework: str

    def routes(self, question: Question) -> tuple[str, ...]:
        """The ways in which a question is put to it; each is judged by itself."""

    def answer(self, question: Question, dtype: str, engine: str, route: str) -> Answer:
        """The value and gradients in one dtype, by one engine, in one way; may raise Unsupported, or fail in any way."""


@dataclass(frozen=True)
class Result:
    """One verdict: on the value, or on one gradient, of one question in one column of the matrix.

    Attributes:
        case: The id of the question.
        row: The loss and its form.
        profile: The profile of the question.
        framework, dtype, engine: The column.
        route: How it was asked: "plain" with numbers as parameters, "autograd" the framework's own way, "formula"
            `value_and_gradient`, "compiled" and "graph" the framework's own way inside its compiler.
        quantity: "value", "gradient.embeddings", "property.rotation" and so on, or "all" where nothing came.
        status: One of the five.
        ratio: The worst error in units of u times the scale; right is at most 4. None where nothing was compared.
        by_norm: Of a case of level core that fails by its entries the error by norm, in units of 2 u (1 + sqrt(d) / t); right
            is at most 4, too.
        reason: Why it is not a pass.
        at, expected, got: The worst entry of a failure.
        seconds: How long the answer took, all quantities of it together.
    """

    case: str
    row: str
    profile: str
    framework: str
    dtype: str
    engine: str
    route: str
    quantity: str
    status: Status
    ratio: float | None = None
    by_norm: float | None = None
    reason: str = ""
    at: tuple[int, ...] = ()
    expected: float | None = None
    got: float | None = None
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """The fields that say something, ready for JSON: a number that is not finite is a string."""
        kept = {name: x for name, x in asdict(self).items() if x not in (None, "", ())}
        return {name: repr(x) if isinstance(x, float) and not np.isfinite(x) else x for name, x in kept.items()}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Result:
        """The result that `to_dict` wrote."""
        numbers = {name: float(fields[name]) for name in ("ratio", "by_norm", "expected", "got") if name in fields}
        return cls(**{**fields, **numbers, "at": tuple(fields.get("at", ()))})


def ask(
    implementation: Implementation,
    question: Question,
    dtype: str,
    engine: str,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Result]:
    """Put one question to an implementation in every way that it has, and judge what comes; never raises."""
    results = []
    for route in implementation.routes(question):
        began, framework = clock(), implementation.framework
        try:
            answer = implementation.answer(question, dtype, engine, route)
        except Unsupported as declared:
            results.append(nothing(question, "unsupported", str(declared), framework, dtype, engine, route))
        except Exception as error:
            results.append(nothing(question, "error", of_error(error), framework, dtype, engine, route))
        else:
            seconds = round(clock() - began, 4)
            results += judge(
                question, answer, framework=framework, dtype=dtype, engine=engine, route=route, seconds=seconds
            )
    return results


def nothing(
    question: Question, status: Status, reason: str, framework: str, dtype: str, engine: str, route: str
) -> Result:
    """The result of a question that was not answered."""
    return Result(
        case=question.id,
        row=question.row,
        profile=question.profile,
        framework=framework,
        dtype=dtype,
        engine=engine,
        route=route,
        quantity="all",
        status=status,
        reason=shortened(reason),
    )


def compared(
    question: Question,
    quantity: str,
    ratio: float,
    reason: str,
    framework: str,
    dtype: str,
    engine: str,
    route: str,
    seconds: float,
) -> Result:
    """The result of a ratio that was found; the reason is that of one that is too large."""
    right = ratio <= K
    return Result(
        case=question.id,
        row=question.row,
        profile=question.profile,
        framework=framework,
        dtype=dtype,
        engine=engine,
        route=route,
        quantity=quantity,
        status="pass" if right else "fail",
        ratio=ratio,
        reason="" if right else reason,
        seconds=seconds,
    )


def judge(
    question: Question, answer: Answer, *, framework: str, dtype: str, engine: str, route: str, seconds: float = 0.0
) -> list[Result]:
    """A verdict on the value, and on every gradient that was asked."""

    def verdict(quantity: str, got: Returned | None, wanted: Wanted, output: str) -> Result:
        status, ratio, found = compare(got, wanted, dtype, output, question.floor)
        return Result(
            case=question.id,
            row=question.row,
            profile=question.profile,
            framework=framework,
            dtype=dtype,
            engine=engine,
            route=route,
            quantity=quantity,
            status=status,
            ratio=ratio,
            seconds=seconds,
            **found,
        )

    results = [verdict("value", answer.value, question.value, value_dtype(dtype))]
    wanted: dict[str, Wanted] = {}
    if answer.gradients is not None:
        for name, numbers in (question.gradient or {}).items():
            c = 1.0 if answer.under_cotangent else float(question.cotangent)
            wanted[name] = Wanted(numbers.numbers / c, numbers.scale / abs(c))
            results.append(verdict(f"gradient.{name}", answer.gradients.get(name), wanted[name], dtype))
    if question.profile not in LEVELS["core"]:
        return results
    arrays = {name: (answer.gradients or {}).get(name) for name in wanted if name in question.arrays}
    together = [(got.numbers, wanted[name].numbers) for name, got in arrays.items() if got is not None]
    norms = {f"gradient.{name}": _by_norm(together, question, dtype, dtype) for name in arrays}
    norms["value"] = _by_norm([(answer.value.numbers, question.value.numbers)], question, dtype, value_dtype(dtype))
    return [
        replace(result, by_norm=norms.get(result.quantity))
        if result.status == "fail" and result.ratio is not None
        else result
        for result in results
    ]


def _by_norm(pairs: Sequence[tuple[Array, Array]], question: Question, dtype: str, output: str) -> float:
    """The error of arrays together by their norm, in units of 2 u (1 + sqrt(d) / temperature) of it."""
    if any(got.shape != want.shape or not np.all(np.isfinite(got)) for got, want in pairs):
        return float("inf")
    compute = PRECISIONS[compute_dtype(dtype)]
    size = float(np.sqrt(sum(np.sum(want * want) for _, want in pairs)))
    error = float(np.sqrt(sum(np.sum((got - want) ** 2) for got, want in pairs)))
    excess = error - PRECISIONS[output].unit * size - question.floor * compute.tiny
    unit = 2 * compute.unit * question.sensitivity * size
    return 0.0 if excess <= 0 else excess / unit if unit else float("inf")


def compare(
    got: Returned | None, wanted: Wanted, dtype: str, output: str, floor: float
) -> tuple[Status, float | None, dict[str, Any]]:
    if got is None:
        return (
            ("fail", None, {"reason": "no gradient came"})
            if wanted.numbers.size
            else ("unsupported", None, {"reason": NO_ARRAY})
        )
    if got.numbers.shape != wanted.numbers.shape:
        return "fail", None, {"reason": f"shape {wanted.numbers.shape} was expected, and {got.numbers.shape} came"}
    if got.dtype != output:
        return "fail", None, {"reason": f"{output} was expected, and {got.dtype} came"}
    if not wanted.numbers.size:
        return "pass", 0.0, {}
    errors = ratios(got.numbers, wanted.numbers, wanted.scale, dtype=dtype, output=output, floor=floor)
    at = tuple(int(k) for k in np.unravel_index(int(np.argmax(errors)), errors.shape))
    worst = float(errors[at])
    if worst <= K:
        return "pass", worst, {}
    expected, came = float(wanted.numbers[at]), float(got.numbers[at])
    return "fail", worst, {"reason": _why(errors, came), "at": at, "expected": expected, "got": came}


def _why(errors: Array, came: float) -> str:
    wrong = int(np.sum(errors > K))
    several = f", as are {wrong - 1} of {errors.size - 1} other entries" if wrong > 1 else ""
    return f"{'not finite' if not np.isfinite(came) else 'wrong'}{several}"
