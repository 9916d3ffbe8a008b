"""How wrong a number may be: as much as arithmetic forces, by a scale that stands beside it in the case.

An error is allowed where

    |got - want|  <=  k u(compute) scale  +  u(output) |want|  +  floor tiny(compute)  +  half the output's last step

with k = 4. ``scale`` carries absolute values once through the loss's own formulas, so a gradient of 1e-20 that is the
difference of ones may be wrong by 1e-16 in float64, and a loss of 1e-20 that is a sum of such numbers may not. The rest is
not about the loss: one rounding to the output's type, and what is lost where small numbers are flushed to zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["PRECISIONS", "K", "Precision", "compute_dtype", "ratio", "ratios", "value_dtype"]

K = 4.0


@dataclass(frozen=True, slots=True)
class Precision:
    """A floating-point type: its unit round-off, smallest normal and subnormal numbers, and largest number."""

    unit: float
    tiny: float
    step: float
    largest: float


PRECISIONS = {
    "float16": Precision(2.0**-11, 2.0**-14, 2.0**-24, 65504.0),
    "bfloat16": Precision(2.0**-8, 2.0**-126, 2.0**-133, (2 - 2.0**-7) * 2.0**127),
    "float32": Precision(2.0**-24, 2.0**-126, 2.0**-149, (2 - 2.0**-23) * 2.0**127),
    "float64": Precision(2.0**-53, 2.0**-1022, 2.0**-1074, (2 - 2.0**-52) * 2.0**1023),
}


def compute_dtype(dtype: str) -> str:
    """The type in which similarities, statistics and sums are computed for embeddings of a type."""
    return "float64" if _known(dtype) == "float64" else "float32"


def value_dtype(dtype: str) -> str:
    """The type of the value for embeddings of a type; gradients have the embeddings' own."""
    return compute_dtype(dtype)


def _known(dtype: str) -> str:
    if dtype not in PRECISIONS:
        raise ValueError(f"dtype: {dtype!r} is none of {', '.join(PRECISIONS)}")
    return dtype


def ratios(got: Any, want: Any, scale: Any, *, dtype: str, output: str, floor: float = 1.0) -> NDArray[np.float64]:
    """The error of every entry in units of ``u scale``, after what no computation can avoid: right is at most ``K``.

    A NaN or an infinity where a number is wanted is infinitely wrong, and so is a number where NaN is wanted. A number
    beyond the output type's range is wanted as that type's infinity.

    Args:
        got: What the implementation gives; anything that NumPy converts to float64.
        want: What is right, of the same shape.
        scale: Beside ``want``, of the same shape.
        dtype: The type of the embeddings, which decides the type of the computation.
        output: The type of ``got``: ``value_dtype(dtype)`` for a value, ``dtype`` for a gradient of an array.
        floor: How many of the smallest normal numbers the error may be; ``Case.floor``.

    Raises:
        ValueError: The shapes differ, or a type is unknown.
    """
    a, b, s = (np.asarray(x, dtype=np.float64) for x in (got, want, scale))
    if a.shape != b.shape or b.shape != s.shape:
        raise ValueError(f"shape {b.shape} was expected, and {a.shape} came")
    compute, out = PRECISIONS[compute_dtype(dtype)], PRECISIONS[_known(output)]
    beyond = np.abs(b) > out.largest * (1 + out.unit)
    b = np.where(beyond, np.copysign(np.inf, b), b)
    both = (a == b) | (np.isnan(a) & np.isnan(b))  # infinities of one sign, NaN for NaN
    finite = np.isfinite(a) & np.isfinite(b)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        forced = out.unit * np.abs(b) + floor * compute.tiny + out.step / 2
        excess = np.abs(a - b) - forced
        answer = np.where(excess > 0, excess / (compute.unit * s), 0.0)
    return np.where(both, 0.0, np.where(finite, answer, np.inf))


def ratio(got: Any, want: Any, scale: Any, *, dtype: str, output: str, floor: float = 1.0) -> float:
    """The worst of ``ratios``; 0 where there are no entries, and infinity where the shape is not the one wanted."""
    if np.shape(got) != np.shape(want):
        return float("inf")
    return float(np.max(ratios(got, want, scale, dtype=dtype, output=output, floor=floor), initial=0.0))
