"""What stands for arrays and options in signatures, and the functions of the Array API standard that the package uses."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, TypeVar

Array: TypeAlias = Any
"""An array of the caller's framework. The frameworks share operators and `shape`, but no static type."""

Namespace: TypeAlias = Any
"""The functions of the Array API standard for one framework; `NAMESPACE` and `TILES_NAMESPACE` list those that are used."""

Labels: TypeAlias = Any
"""What names a class a row, as array or list: integers of any width, strings, integer-valued floats, one-hot rows."""

Reduction: TypeAlias = Literal["mean", "pairs", "batch", "sum", "none"]
"""What becomes of the row losses."""

Engine: TypeAlias = Literal["auto", "dense", "tiled", "kernel"]
"""The algorithm that evaluates a loss."""

Where: TypeAlias = Any
"""Which rows take part: booleans `[n]` or `[n, views]`, or a tuple with one such, or None, for each array."""

ArrayT = TypeVar("ArrayT")
T = TypeVar("T")

NAMESPACE = frozenset(
    [
        "abs",
        "astype",
        "concat",
        "cos",
        "exp",
        "log",
        "logaddexp",
        "matrix_transpose",
        "max",
        "minimum",
        "ones_like",
        "reshape",
        "sin",
        "sqrt",
        "sum",
        "where",
        "zeros_like",
    ]
)
"""Every function of the standard that losses and the dense engine use: the list to port, and a test holds them to it."""

TILES_NAMESPACE = (NAMESPACE - {"minimum"}) | {"argsort", "log1p", "searchsorted", "take", "zeros"}
"""What the tiled engine may use: it sorts by label, too."""

METRICS_NAMESPACE = (NAMESPACE - {"cos", "minimum", "sin"}) | {
    "argsort",
    "cumulative_sum",
    "take",
}
"""What the measures use, besides an adapter's `largest` and `segment_sums`."""

COMPUTE_DTYPE = {"float16": "float32", "bfloat16": "float32", "float32": "float32", "float64": "float64"}
"""The dtype in which a loss of embeddings of a dtype is computed."""
