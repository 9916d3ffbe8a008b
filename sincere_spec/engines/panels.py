"""The pairs of the dense engine: which entries of the matrix of similarities are positives, which negatives, and how many.

Each kind is a panel: the whole matrix under a mask, or all but a few columns of each row, or, where positives are few, these
alone. Where each row has keys of its own the matrix is theirs, `[n, k]`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, cast

from sincere_spec.arrays import Array, Namespace
from sincere_spec.engines import per_anchor, rows
from sincere_spec.engines.comparison import Comparison, Kinds
from sincere_spec.engines.neighbours import Neighbours, neighbours
from sincere_spec.interface import Backend, EagerBackend, Part
from sincere_spec.spec.words import Pairs

Way: TypeAlias = tuple[int, Any, Any]
"""An axis along which a matrix is folded, and from which to which of all rows the results are of."""

INFINITY = float("inf")
ROWS: tuple[Way, ...] = ((1, 0, None),)


@dataclass(frozen=True)
class Panel:
    """The pairs of one kind: a matrix, and which of its entries are such pairs.

    They are those under a mask, or all but the `hidden` columns of each row, or all. For large matrices `ceiling` says the
    same as a mask for `minimum`: inf where there is a pair, -inf elsewhere. There are two ways to fold a matrix whose columns
    are anchors, too. Where the columns see other pairs than the rows do, `turned` has their mask and ceiling. `columns` are
    those of the whole matrix from which the entries of another were taken.
    """

    similarity: Array
    mask: Array | None = None
    ceiling: Array | None = None
    hidden: Array | None = None
    columns: Array | None = None
    ways: tuple[Way, ...] = ROWS
    weight: Array | None = None
    turned: tuple[Array, Array] | None = None

    def weighed(self, part: Part, entries: list[Array]) -> list[Array]:
        """Entries times the weights of their pairs, where a part sums them so."""
        return [x * self.weight for x in entries] if part.weighted else entries

    def by_row(self, xp: Namespace, fold: Callable[..., Array], entries: Sequence[Array]) -> Array:
        """A fold of the entries each way, or of those that are the same both ways: a vector with a number for each row."""
        both = entries if len(entries) == len(self.ways) else [entries[0]] * len(self.ways)
        parts = [fold(x, axis=axis) for x, (axis, _, _) in zip(both, self.ways, strict=True)]
        return parts[0] if len(parts) == 1 else xp.concat(parts, axis=0)

    def beside(self, vector: Array) -> list[Array]:
        """A vector by row, as it broadcasts against the entries each way."""
        if len(self.ways) == 1:
            return [vector[:, None]]
        return [vector[a:b][:, None] if axis == 1 else vector[a:b][None, :] for axis, a, b in self.ways]

    def fill_masked(self, backend: Backend, t: Array, value: float, way: int = 0) -> Array:
        """Entries with a value where there is no such pair, seen one way; may overwrite `t`."""
        if self.hidden is not None:
            return cast(EagerBackend, backend).with_columns(t, self.hidden, value)
        if self.mask is None:
            return t
        xp = backend.namespace(t)
        mask, ceiling = self.turned if way and self.turned is not None else (self.mask, self.ceiling)
        if ceiling is not None and value == -INFINITY:
            return xp.minimum(t, ceiling)
        return xp.where(mask, t, value)


def panels_of(comparison: Comparison) -> tuple[dict[Pairs, Panel], rows.Counts]:
    """The pairs of either kind, and how many of them each row has."""
    backend, xp = comparison.backend, comparison.xp
    if comparison.keys_of_each is not None:
        return _own_panels(comparison)
    similarity = backend.product(comparison.anchors, xp.matrix_transpose(comparison.compared))  # [n, m]
    found = neighbours(comparison)
    if comparison.partners is None:
        if found is not None:
            near = backend.columns_of(similarity, found.others)
            positive = Panel(near, found.mask, columns=found.others)
            counts = _counts(comparison, found, similarity)
            return {Pairs.POSITIVE: positive, Pairs.NEGATIVE: Panel(similarity, hidden=found.columns)}, counts
        kinds = _kinds(comparison)
        (positive, positives), (negative, number) = (_panel(xp, similarity, mask) for mask in kinds[:2])
        counts = rows.Counts(positives, number)
        if kinds.weight is not None:
            weight = xp.where(kinds.positive, kinds.weight, 0.0)
            positive, counts = (
                replace(positive, weight=weight),
                replace(counts, weight_of_positives=xp.sum(weight, axis=1)),
            )
        return {Pairs.POSITIVE: positive, Pairs.NEGATIVE: negative}, counts

    columns = None if found is None else found.others
    if columns is None:
        aligned = xp.sum(comparison.anchors * comparison.partners, axis=1, keepdims=True)  # [n, 1]
    else:
        aligned = backend.columns_of(similarity, columns)
    ways = ROWS
    if comparison.both_ways:
        n = backend.length(comparison.anchors)
        ways = ((1, 0, n), (0, n, None))
        aligned = xp.concat([aligned, aligned], axis=0)  # [n + m, 1]
    if found is not None:
        negative = Panel(similarity, hidden=found.columns, ways=ways)
        return {Pairs.POSITIVE: Panel(aligned, columns=columns), Pairs.NEGATIVE: negative}, _counts(
            comparison, found, aligned
        )
    negative, number = _panel(xp, similarity, _kinds(comparison).negative, ways)
    if comparison.both_ways and not comparison.relation.symmetric:
        blocks = {name: xp.matrix_transpose(x) for name, x in comparison.blocks.items()}
        turned = replace(
            comparison,
            rows=comparison.columns,
            columns=comparison.rows,
            blocks=blocks,
            inside=comparison.columns_inside,
            columns_inside=comparison.inside,
        )
        seen = xp.matrix_transpose(_kinds(turned).negative)
        n, (other, others) = backend.length(comparison.anchors), _panel(xp, similarity, seen, ways)
        negative = replace(negative, turned=(other.mask, other.ceiling))
        number = xp.concat([number[:n], others[n:]], axis=0)
    there = _rows_with_partner(comparison)
    if there is None:
        counts = rows.Counts(xp.ones_like(number), number, full=rows.FULL_OF_POSITIVES)
        return {Pairs.POSITIVE: Panel(aligned), Pairs.NEGATIVE: negative}, counts
    positive, positives = _panel(xp, aligned, there[:, None])
    return {Pairs.POSITIVE: positive, Pairs.NEGATIVE: negative}, rows.Counts(positives, number)


def _rows_with_partner(comparison: Comparison) -> Array | None:
    """Which rows take part, and their partners with them, `[rows]`; None if all do."""
    there, inside = comparison.has_partner, comparison.rows_inside
    return inside if there is None else there if inside is None else there & inside


def _own_panels(comparison: Comparison) -> tuple[dict[Pairs, Panel], rows.Counts]:
    """The same where each row has keys of its own: they are its negatives, and its partner is its positive."""
    xp, (keys, seen) = comparison.xp, per_anchor.keys_of(comparison)
    similarity = per_anchor.similarities(comparison, comparison.anchors, keys)  # [n, k]
    aligned = xp.sum(comparison.anchors * comparison.partners, axis=1, keepdims=True)  # [n, 1]
    if seen is None:
        negative, number = Panel(similarity), xp.zeros_like(aligned[:, 0]) + float(similarity.shape[1])
    else:
        negative, number = _panel(xp, similarity, seen)
    positive, positives, there = Panel(aligned), xp.ones_like(number), _rows_with_partner(comparison)
    if there is not None:
        positive, positives = _panel(xp, aligned, there[:, None])
    return {Pairs.POSITIVE: positive, Pairs.NEGATIVE: negative}, rows.Counts(positives, number)


def _kinds(comparison: Comparison) -> Kinds:
    """The positive and the negative pairs, `[n, m]`; no pair has a row or a column outside."""
    found = comparison.pairs(comparison.rows, comparison.columns, comparison.blocks)
    if comparison.inside is None:
        return found
    inside = comparison.inside[:, None] & cast(Array, comparison.columns_inside)[None, :]
    positive = None if found.positive is None else found.positive & inside
    return found._replace(positive=positive, negative=found.negative & inside)


def _panel(xp: Namespace, similarity: Array, mask: Array, ways: tuple[Way, ...] = ROWS) -> tuple[Panel, Array]:
    """A panel of the pairs under a mask, and how many each row has of them."""
    number = xp.astype(mask, similarity.dtype)  # a selection by booleans costs ten times as much in torch
    panel = Panel(similarity, mask, (number - 0.5) * INFINITY, ways=ways)
    return panel, panel.by_row(xp, xp.sum, [number])


def _counts(comparison: Comparison, found: Neighbours, like: Array) -> rows.Counts:
    """How many positives and negatives each row has, from its neighbours; `like` is a matrix with these rows."""
    xp, columns = comparison.xp, comparison.compared.shape[0]
    ones: Array = xp.ones_like(like[:, 0]) if found.number is None or found.positives is None else None
    positive = ones * found.between[0] if found.positives is None else xp.astype(found.positives, like.dtype)
    negative = columns - (ones * found.most if found.number is None else xp.astype(found.number, like.dtype))
    full = rows.FULL_OF_POSITIVES if found.between[0] else frozenset()
    if found.most < columns:
        full |= {Pairs.NEGATIVE, Pairs.OTHERS}
    return rows.Counts(positive, negative, full=full, between=found.between)
