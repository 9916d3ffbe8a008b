"""Who is compared with whom, as values: what a call's `ignore`, and the labels of a labelled loss, may be.

Each is a named tuple of arrays, so it is a pytree in JAX, a structure in TensorFlow and in torch, and crosses their compilers.
What it holds is looked at by the call, which knows the embeddings.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from sincere_spec.arrays import Array, Labels
from sincere_spec.errors import DtypeError, OptionError, ShapeError
from sincere_spec.spec.checks import NUMBER, choice, shown

__all__ = ["guide", "overlap", "positives", "same"]

Kind: TypeAlias = Literal["any", "jaccard"]
"""How classes that two rows have in common make them positives."""


class Same(NamedTuple):
    """Groups, by row; made by `same`."""

    groups: Any

    def __repr__(self) -> str:
        return f"same({_shown(self.groups)})"


class Positives(NamedTuple):
    """A matrix of positives; made by `positives`."""

    matrix: Any

    def __repr__(self) -> str:
        return f"positives({_shown(self.matrix)})"


class AnyOverlap(NamedTuple):
    """Several classes by row, of which one in common makes positives; made by `overlap`."""

    hot: Any

    def __repr__(self) -> str:
        return f"overlap({_shown(self.hot)}, 'any')"


class JaccardOverlap(NamedTuple):
    """Several classes by row, whose common share weighs positives; made by `overlap`."""

    hot: Any

    def __repr__(self) -> str:
        return f"overlap({_shown(self.hot)}, 'jaccard')"


class Guide(NamedTuple):
    """The rows of another model, and a margin; made by `guide`."""

    rows: tuple[Any, ...]
    margin: Any

    def __repr__(self) -> str:
        return f"guide({', '.join(map(_shown, self.rows))}, margin={self.margin!r})"


InPlaceOfLabels: TypeAlias = Positives | AnyOverlap | JaccardOverlap
VALUES = {
    Same: "same(...)",
    Positives: "positives(...)",
    AnyOverlap: 'overlap(..., "any")',
    JaccardOverlap: 'overlap(..., "jaccard")',
    Guide: "guide(...)",
}
"""By kind of value what made it, for messages: under torch.compile a value has no repr of its own."""

Ignore: TypeAlias = Any
"""Pairs to leave out: `same(groups)`, `guide(...)`, booleans `[n, m]`, or a tuple of several such, which is their union."""


def same(groups: Labels | tuple[Labels | None, ...]) -> Same:
    """Leave out pairs of one group, but for a row's own positive: repeated captions are no negatives of each other.

    Args:
        groups: the group of each row, of the kinds of labels: integers, strings and so on. One array for arrays that are
            aligned by row, or a tuple with one for each positional array, keys last.

    Raises:
        OptionError: nothing, or a single number, instead of a vector.

    Example:
        >>> import numpy as np, sincere_spec as ss
        >>> a = np.asarray([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
        >>> b = np.asarray([[0.8, 0.6], [-0.6, 0.8], [0.0, 1.0]])
        >>> captions = ss.same([7, 9, 7])
        >>> captions
        same(3 entries)
        >>> float(round(ss.clip_loss(a, b, temperature=0.5, ignore=captions), 4))
        0.5476
    """
    if groups is None or isinstance(groups, (bool, int, float, str, *VALUES)):
        raise OptionError(
            f"same: expected the group of each row, as an array or a list; got {shown(groups)}: give one for each row."
        )
    return Same(groups)


def guide(*rows: Array, margin: float = 0.0) -> Guide:
    """Leave out negatives that another model finds as similar as the row's own pair: false ones, most likely.

    A negative j of row i is left out if g_ij >= g_i,own - margin, where g is the cosine of the guide's rows, in float32, to 1e-5
    (GISTEmbed, Solatorio, arXiv 2402.16829). The own pair stays. Nothing flows back to the guide.

    Args:
        rows: one array `[n, e]` for each positional array of the loss, whose rows they describe; e is of the guide's own.
        margin: how much less similar a negative may be and is left out still; a number.

    Raises:
        ShapeError: fewer than two arrays, or one that is no matrix.
        OptionError: a margin that is no finite number.

    Example:
        >>> import numpy as np, sincere_spec as ss
        >>> a = np.asarray([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
        >>> b = np.asarray([[0.8, 0.6], [-0.6, 0.8], [0.0, 1.0]])
        >>> other = np.asarray([[1.0, 0.1], [0.0, 1.0], [1.0, 0.0]])
        >>> false = ss.guide(other, other, margin=0.05)
        >>> false
        guide([3, 2] float64, [3, 2] float64, margin=0.05)
        >>> float(round(ss.info_nce_loss(a, b, temperature=0.5, ignore=false), 4))
        0.5043
    """
    margin = NUMBER(margin, "margin")
    if len(rows) < 2:
        raise ShapeError(f"guide: expected one array for each positional array of the loss; got {len(rows)} of them.")
    for one in rows:
        if not hasattr(one, "shape") or len(one.shape) != 2:
            came = f"shape {tuple(one.shape)}" if hasattr(one, "shape") else shown(one)
            raise ShapeError(f"guide: expected arrays [n, e], one row for each row that is compared; got {came}.")
    return Guide(rows, margin)


def positives(matrix: Array | list[list[bool]]) -> Positives:
    """Say pair by pair which are positives, or how much they weigh, in place of labels; all others are negatives.

    Weights, of label smoothing or a teacher, are for `supcon_loss`: with W_i = Σ_j w_ij

        out:  loss_i = Σ_p (w_ip / W_i) (-log q_ip)          in:  loss_i = -log Σ_p (w_ip / W_i) q_ip

    A pair of weight 0 is a negative, and a denominator counts each positive once. Weights receive no gradient.

    Args:
        matrix: booleans, or weights as floats, `[n, m]` over rows and columns as they stand; `[n, n]` over samples where the
            embeddings are `[n, views, d]`, and then entry (i, i) relates the views of sample i. A row is never compared with
            itself.

    Raises:
        ShapeError: no matrix.
        DtypeError: integers: compare them, or make them floats.

    Example:
        >>> import numpy as np, sincere_spec as ss
        >>> z = np.asarray([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]])
        >>> pairs = np.asarray([[0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1], [0, 0, 1, 0]]) > 0
        >>> ss.positives(pairs)
        positives([4, 4] bool)
        >>> float(round(ss.supcon_loss(z, ss.positives(pairs), temperature=0.5), 4))
        0.4802
    """
    check_matrix("positives", matrix)
    return Positives(matrix)


def overlap(hot: Array | tuple[Array, Array], kind: Kind) -> AnyOverlap | JaccardOverlap:
    """Positives of rows that have several labels each: those with a class in common, in place of labels.

    With `"jaccard"`, for `supcon_loss`, a positive weighs |A ∩ B| / |A ∪ B|, as in `positives`. A row without a class has no
    positives. Classes are multiplied a tile at a time: no matrix of pairs is made.

    Args:
        hot: `[n, classes]`, a 1 or True for each class of a row and else 0; by sample for `[n, views, d]`. With keys a tuple,
            `(hot, key_hot)`.
        kind: "any" or "jaccard".

    Raises:
        OptionError: another kind.
        ShapeError: no matrix.

    Example:
        >>> import numpy as np, sincere_spec as ss
        >>> z = np.asarray([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]])
        >>> classes = np.asarray([[1, 0, 1], [0, 1, 1], [1, 1, 0], [0, 1, 0]])
        >>> ss.overlap(classes, "any")
        overlap([4, 3] int64, 'any')
        >>> float(round(ss.supcon_loss(z, ss.overlap(classes, "any"), temperature=0.5), 4))
        1.1635
    """
    choice(kind, "kind", get_args(Kind))
    for one in hot if type(hot) is tuple else (hot,):
        if not hasattr(one, "shape") or len(one.shape) != 2:
            came = f"shape {tuple(one.shape)}" if hasattr(one, "shape") else shown(one)
            raise ShapeError(f"overlap: expected an array [n, classes], a 1 for each class of a row; got {came}.")
    return AnyOverlap(hot) if kind == "any" else JaccardOverlap(hot)


def check_matrix(argument: str, matrix: Any) -> None:
    """Refuse what cannot be a matrix of pairs, before a call knows its framework."""
    if isinstance(matrix, tuple(VALUES)) or not (isinstance(matrix, list) or hasattr(matrix, "shape")):
        raise OptionError(f"{argument}: expected booleans [n, m], as an array or lists; got {shown(matrix)}.")
    if hasattr(matrix, "shape") and len(matrix.shape) != 2:
        raise ShapeError(f"{argument}: expected a matrix [n, m]; got shape {tuple(matrix.shape)}.")
    kind = _dtype(matrix)
    if "int" in kind:
        raise DtypeError(f"{argument}: expected booleans; got {kind}: compare it, as in `matrix > 0`.")


def _shown(x: Any) -> str:
    """An array by its shape and dtype, and a list by its length."""
    if isinstance(x, tuple):
        return f"({', '.join(map(_shown, x))})"
    if hasattr(x, "shape"):
        return f"{list(x.shape)} {_dtype(x)}".rstrip()
    return f"{len(x)} entries" if hasattr(x, "__len__") else type(x).__name__


def _dtype(x: Any) -> str:
    """The name of an array's dtype in any framework, as `int64`."""
    dtype = getattr(x, "dtype", "")
    return str(getattr(dtype, "name", dtype)).rpartition(".")[2]  # PyTorch's have no name of their own
