"""Who is compared with whom, as values: what a call's `ignore`, and the labels of a labelled loss, may be.

Each is a named tuple of arrays, so it is a pytree in JAX, a structure in TensorFlow and in torch, and crosses their compilers.
What it holds is looked at by the call, which knows the embeddings.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

from sincere_spec.arrays import Array, Labels
from sincere_spec.errors import DtypeError, OptionError, ShapeError
from sincere_spec.spec.checks import shown

__all__ = ["positives", "same"]


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


Ignore: TypeAlias = Any
"""Pairs to leave out: `same(groups)`, booleans `[n, m]`, or a tuple of several such, which is their union."""


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
        0.3989
    """
    if groups is None or isinstance(groups, (bool, int, float, str, Same, Positives)):
        raise OptionError(
            f"same: expected the group of each row, as an array or a list; got {shown(groups)}: give one for each row."
        )
    return Same(groups)


def positives(matrix: Array | list[list[bool]]) -> Positives:
    """Say pair by pair which are positives, in place of labels; all others are negatives.

    Args:
        matrix: booleans `[n, m]` over rows and columns as they stand; `[n, n]` over samples where the embeddings are
            `[n, views, d]`, and then entry (i, i) relates the views of sample i. A row is never compared with itself.

    Raises:
        ShapeError: no matrix.
        DtypeError: integers: compare them.

    Example:
        >>> import numpy as np, sincere_spec as ss
        >>> z = np.asarray([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]])
        >>> pairs = np.asarray([[0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1], [0, 0, 1, 0]]) > 0
        >>> ss.positives(pairs)
        positives([4, 4] bool)
        >>> float(round(ss.supcon_loss(z, ss.positives(pairs), temperature=0.5), 4))
        0.5644
    """
    check_matrix("positives", matrix)
    return Positives(matrix)


def check_matrix(argument: str, matrix: Any) -> None:
    """Refuse what cannot be a matrix of pairs, before a call knows its framework."""
    if isinstance(matrix, (Same, Positives)) or not (isinstance(matrix, list) or hasattr(matrix, "shape")):
        raise OptionError(f"{argument}: expected booleans [n, m], as an array or lists; got {shown(matrix)}.")
    if hasattr(matrix, "shape") and len(matrix.shape) != 2:
        raise ShapeError(f"{argument}: expected a matrix [n, m]; got shape {tuple(matrix.shape)}.")
    kind = str(getattr(matrix, "dtype", "")).rpartition(".")[2]
    if "int" in kind:
        raise DtypeError(f"{argument}: expected booleans; got {kind}: compare it, as in `matrix > 0`.")


def _shown(x: Any) -> str:
    """An array by its shape and dtype, and a list by its length."""
    if isinstance(x, tuple):
        return f"({', '.join(map(_shown, x))})"
    if hasattr(x, "shape"):
        return f"{list(x.shape)} {str(getattr(x, 'dtype', '')).rpartition('.')[2]}".rstrip()
    return f"{len(x)} entries" if hasattr(x, "__len__") else type(x).__name__
