"""What a failure is: its kind, how much harm it does in training, and what usually causes it."""

from __future__ import annotations

from dataclasses import dataclass

from sincere_spec.conformance.judge import NO_ARRAY, Result
from sincere_spec.conformance.questions import LEVELS
from sincere_spec.conformance.tolerance import PRECISIONS, compute_dtype

__all__ = ["HARM", "cause", "harm", "kind"]

FEW = 1e-3  # an error of less than this part of its scale is one of digits, and not of the loss

HARM = {
    "NaN or infinity": 0,
    "zero": 1,
    "another number": 1,
    "no gradient": 1,
    "shape or type": 2,
    "raises": 2,
    "fewer digits": 3,
    "convention": 4,
    "no array": 5,
}
"""The kinds of failure and their rank, the most harmful first: NaN ends a training, and an error that is raised is seen."""


def kind(result: Result) -> str:
    """What is wrong with an answer, in the words of `HARM`.

    "convention" is a finite number where the definition is a choice of this suite: the gradient of a zero row, and SupCon
    without negatives. "no array" is None for the gradient of an array without entries, which is no failure.
    """
    if result.status == "error":
        return "raises"
    if result.reason == NO_ARRAY:
        return "no array"
    if result.ratio is None:
        return "no gradient" if result.reason == "no gradient came" else "shape or type"
    if result.reason.startswith("not finite"):
        return "NaN or infinity"
    if _convention(result):
        return "convention"
    unit = PRECISIONS[compute_dtype(result.dtype)].unit
    if result.ratio * unit < FEW or (result.expected == 0 and abs(result.got or 0.0) <= unit):
        return "fewer digits"
    return "zero" if result.got == 0 else "another number"


def _convention(result: Result) -> bool:
    name = result.case.partition("/")[2]
    if name == "zero-row" or name.endswith("-zero-row"):
        return result.quantity.startswith("gradient")
    return result.row.startswith("supcon") and name.endswith("all-one-class")


def harm(result: Result) -> tuple[int, int, float]:
    """A key that sorts verdicts by harm: the kind, then how ordinary the input is, then the size of the error."""
    level = next((k for k, profiles in enumerate(LEVELS.values()) if result.profile in profiles), len(LEVELS))
    return HARM[kind(result)], level, -(result.ratio or 0.0)


@dataclass(frozen=True)
class _Cause:
    """What usually causes some kinds of failure of the cases with one of some words in their names, or of any case."""

    text: str
    kinds: tuple[str, ...]
    words: tuple[str, ...] = ("",)

    def fits(self, name: str, what: str) -> bool:
        return what in self.kinds and any(word in name for word in self.words)


_NAN, _NUMBERS = ("NaN or infinity",), ("zero", "another number", "fewer digits", "convention")
_NO_POSITIVES = ("singleton", "one-row", "two-rows-apart", "odd-labels", "large-labels")
_NO_NEGATIVES = ("all-one-class", "two-rows", "one-pair", "one-image", "empty-queue")
_LATE = ("well-separated", "settled", "mixed-pull", "temperature-small")

_CAUSES = (
    _Cause("0 / 0 in the normalisation of a zero row: divide only where the norm is not 0", _NAN, ("zero-row",)),
    _Cause(
        "eps of F.normalize: the gradient of a zero row is divided by it, and here it is 0", _NUMBERS, ("zero-row",)
    ),
    _Cause(
        "the sum of squares over- or underflows, or eps of F.normalize: divide by the largest entry before",
        (*_NAN, *_NUMBERS),
        ("norms",),
    ),
    _Cause("a row without positives is divided by 0: clamp the count, and leave the row out", _NAN, _NO_POSITIVES),
    _Cause("a mean over no rows: clamp the count", _NAN, ("empty-batch", "empty-memory")),
    _Cause("the logarithm of an empty sum: a row without negatives has no noise", _NAN, _NO_NEGATIVES),
    _Cause("SupCon without negatives is the logarithm of the positives here, and not 0", ("convention",)),
    _Cause("rows without positives count in the mean, or positives do not", ("another number",), _NO_POSITIVES),
    _Cause(
        "the maximum includes the row itself: mask it before the maximum is taken", (*_NAN, *_NUMBERS), ("opposite",)
    ),
    _Cause("exp overflows: subtract the row's maximum, without the row itself", _NAN, ("hot", "cold", "temperature")),
    _Cause(
        "a constant inside the logarithm, which ends at -log(constant)", ("zero", "another number"), ("hot", "cold")
    ),
    _Cause(
        "log-sum-exp less a logit, a difference of large numbers: use softplus(logsumexp(negatives) - logit)",
        _NUMBERS,
        _LATE,
    ),
    _Cause("another average: --reduction pairs and batch judge the other two", ("another number",), ("unequal",)),
    _Cause("the graph is cut: a detach, or numbers that left the framework", ("no gradient",)),
    _Cause("another reduction, or arithmetic in another dtype", ("shape or type",)),
    _Cause("a difference of numbers that are nearly equal", ("fewer digits",)),
)


def cause(result: Result) -> str:
    """What usually causes such a failure, or nothing where no cause is usual."""
    name, what = result.case.partition("/")[2], kind(result)
    return next((known.text for known in _CAUSES if known.fits(name, what)), "")
