"""Verdicts on claims, each computed by a stated rule; none is written by hand.

reproduces           what the claim says is seen
not at this scale    it is neither seen nor contradicted
contradicts          the opposite is seen, by the same rule
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from typing import Any

REPRODUCES, UNSEEN, CONTRADICTS = "reproduces", "not at this scale", "contradicts"

PAIRED = "the same sign in all seeds, and |mean| > 2 sd of the paired differences"
NO_WORSE = "no difference in the other direction by the rule of paired differences"


@dataclass(frozen=True)
class Claim:
    """A claim of a paper, what was measured for it by seed, and the verdict of its rule.

    `needs` says what it would take to see it, for claims that are not.
    """

    key: str
    claim: str
    source: str
    measured: str
    rule: str
    values: tuple[float, ...]
    mean: float | None
    sd: float | None
    verdict: str
    needs: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For study.json."""
        return asdict(self)


def summary(values: Sequence[float]) -> tuple[float | None, float | None]:
    """The mean, and the standard deviation of a sample; None where there are too few."""
    if not values:
        return None, None
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, None
    return mean, sqrt(sum((x - mean) ** 2 for x in values) / (len(values) - 1))


def paired(differences: Sequence[float], sign: float) -> str:
    """Whether paired differences have a sign: the same in all seeds, and a mean of more than two deviations."""
    mean, sd = summary(differences)
    if mean is None or sd is None:
        return UNSEEN
    alike = all(x > 0.0 for x in differences) or all(x < 0.0 for x in differences)
    if not alike or abs(mean) <= 2.0 * sd:
        return UNSEEN
    return REPRODUCES if mean * sign > 0.0 else CONTRADICTS


def no_worse(differences: Sequence[float], sign: float = 1.0) -> str:
    """Whether paired differences do not have the other sign; with one seed nothing is seen."""
    if len(differences) < 2:
        return UNSEEN
    return CONTRADICTS if paired(differences, sign) == CONTRADICTS else REPRODUCES


def where(condition: bool, otherwise: str = CONTRADICTS) -> str:
    """The verdict of a rule that is a condition."""
    return REPRODUCES if condition else otherwise


def claim(
    key: str, text: str, source: str, measured: str, rule: str, values: Sequence[float], verdict: str, needs: str = ""
) -> Claim:
    """A claim with the mean and deviation of its values."""
    return Claim(key, text, source, measured, rule, tuple(values), *summary(values), verdict, needs)
