"""The kernel engine: the tiled engine's sums, each swept by one launch of device code that the backend has.

A program owns a block of rows and goes over all columns, so nothing is added up in an order that depends on timing. For the
gradient it needs of the columns only vectors: where these have losses of their own, `C_ij + C_ji` is made from the statistics
of row i and of row j, and the gradient by the keys is the same sweep with the sides exchanged. Rows are sorted by label, and
a program visits positives only where its labels are. What lies between sweeps is arithmetic on vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from sincere_spec.arrays import Array, Namespace
from sincere_spec.engines.comparison import Comparison, Halves, Samples, ones_by_row
from sincere_spec.engines.family import PairGradients, RowCotangents, RowSums, StageResults, Visit
from sincere_spec.engines.prune import specialise
from sincere_spec.interface import KernelOperands, Kernels, KernelSpec, LogitCotangents, Part, TwoSidedKernels
from sincere_spec.spec.relations import Attributes, OtherLabel, Relation, SameLabel
from sincere_spec.spec.words import PairLoss


class KernelRows(NamedTuple):
    """Rows sorted by label, as kernels multiply them, and their factors; `order` is the permutation, None if they came so."""

    rows: Array  # [n, d]
    factors: Array  # [n]
    labels: Array  # [n]
    ids: Array  # [n]
    order: Array | None  # [n]
    length: Any  # how many take part; the others are last

    def sorted(self, xp: Namespace, x: Array) -> Array:
        """Rows, or a vector by row, in the order of this side."""
        return x if self.order is None else xp.take(x, self.order, axis=0)

    def restored(self, xp: Namespace, x: Array) -> Array:
        """The inverse of `sorted`."""
        return x if self.order is None else xp.take(x, xp.argsort(self.order), axis=0)


@dataclass(frozen=True)
class KernelSweep:
    """A comparison laid out for kernels."""

    comparison: Comparison
    xp: Namespace
    loss: PairLoss
    kernels: Kernels
    tile: int
    anchors: KernelRows
    columns: KernelRows

    @property
    def laid(self) -> tuple[KernelRows, ...]:
        """The rows of either side."""
        return (self.anchors,) if self.symmetric else (self.anchors, self.columns)

    @property
    def symmetric(self) -> bool:
        """Whether the anchors are their own keys."""
        return self.columns is self.anchors

    @property
    def partnered(self) -> bool:
        """Whether each row has its one positive beside the columns."""
        return self.comparison.partners is not None

    @property
    def inside(self) -> Array | None:
        """Which rows take part, `[rows]`; None if all do."""
        if self.comparison.inside is None:
            return None
        return self._joined([self.comparison.backend.indices(side.labels) < side.length for side, _ in self.sides])

    @property
    def sides(self) -> list[tuple[KernelRows, KernelRows]]:
        """The rows that have a loss, and what they are compared with."""
        return [(side, other) for side, other, _ in self.with_losses()]

    def panel(self, side: KernelRows, other: KernelRows) -> KernelOperands:
        """The rows of one side, to be compared with those of another."""
        first, last = (self.xp.searchsorted(other.labels, side.labels, side=end) for end in ("left", "right"))
        return KernelOperands(
            side.rows,
            other.rows,
            side.factors,
            other.factors,
            side.labels,
            other.labels,
            side.ids,
            other.ids,
            first,
            last,
            self.comparison.temperature,
            self.comparison.bias,
            self.xp.sum(self.xp.zeros_like(other.labels[:0])) + other.length,
        )

    def with_losses(self) -> list[tuple[KernelRows, KernelRows, slice]]:
        """The sides whose rows have losses, what they are compared with, and where in a vector by row they are."""
        n = self.anchors.rows.shape[0]
        found = [(self.anchors, self.columns, slice(0, n))]
        return [*found, (self.columns, self.anchors, slice(n, None))] if self.comparison.both_ways else found

    def words(self, parts: Sequence[Part]) -> KernelSpec:
        """The words of a sweep for some parts."""
        return KernelSpec(
            tuple(parts),
            self.loss.logit,
            self.partnered,
            self.partnered or self.comparison.samples is not Samples.ANYWHERE,
        )

    def partner_similarities(self) -> Array:
        """The similarity of every row with a loss to its partner, `[rows]`."""
        similarity = self.xp.sum(self.comparison.anchors * self.comparison.partners, axis=1)
        return self.sorted(
            self.xp.concat([similarity, similarity], axis=0) if self.comparison.both_ways else similarity
        )

    def unsorted(self, vector: Array) -> Array:
        """A vector by row with a loss, in the order in which the rows came."""
        return self._joined([side.restored(self.xp, vector[span]) for side, _, span in self.with_losses()])

    def sorted(self, vector: Array) -> Array:
        """The inverse of `unsorted`."""
        return self._joined([side.sorted(self.xp, vector[span]) for side, _, span in self.with_losses()])

    def _joined(self, parts: list[Array]) -> Array:
        return parts[0] if len(parts) == 1 else self.xp.concat(parts, axis=0)

    def row_sums(self, parts: Sequence[Part], stages: StageResults) -> RowSums:
        """One launch for each set of rows with losses."""
        xp, tables = self.xp, []
        for side, other, span in self.with_losses():
            own = {name: result[span] for name, result in stages.values.items()}
            shifts = _stacked(xp, [_shift(xp, part, own, side.factors) for part in parts])  # [parts, rows]
            tables.append(self.kernels.tally(self.words(parts), self.panel(side, other), shifts, self.tile))
        found = RowSums({}, {}, {})
        for whole, made, rest in zip(found, zip(*tables, strict=True), (0.0, -float("inf"), 0.0), strict=True):
            table = made[0] if len(made) == 1 else xp.concat(made, axis=1)
            for number, part in enumerate(parts):  # a row with an empty reference has no pairs
                empty = None if part.minus is None else stages.empty[part.minus]
                whole[part] = table[number, :] if empty is None else xp.where(empty, rest, table[number, :])
        return found

    def in_strips(self, loss: PairLoss, visit: Visit, needed: frozenset[str]) -> None:
        """It has no strips."""

    def gradients(self, cotangents: RowCotangents, dpartner: Array | None, needed: frozenset[str]) -> PairGradients:
        """One launch for each side that a gradient is asked of."""
        xp, both, parts = self.xp, self.comparison.both_ways, tuple(cotangents.weights)
        weights, shifts = [], []
        for part, weight in cotangents.weights.items():  # a row with an empty reference has no pairs
            empty = None if part.minus is None else cotangents.stages.empty[part.minus]
            weights.append(weight if empty is None else xp.where(empty, 0.0, weight))
            shifts.append(_shift(xp, part, cotangents.stages.values, weight) + cotangents.maxima.get(part, 0.0))
        tables = [_stacked(xp, table) for table in (weights, shifts)] if parts else []  # [parts, rows]
        by_side = {
            id(side): LogitCotangents(*(x[:, span] for x in tables)) for side, _, span in self.with_losses() if parts
        }
        parameters = bool(needed & {"temperature", "bias"})
        wanted = {"anchors": "anchors" in needed or parameters, "keys": "keys" in needed or (parameters and both)}
        sum_dlogits = sum_dlogits_value = xp.sum(self.anchors.factors[:0])
        found: dict[str, Array] = {}
        if parts and all(wanted.values()) and not self.symmetric and isinstance(self.kernels, TwoSidedKernels):
            row_length = xp.sum(xp.zeros_like(self.anchors.labels[:0])) + self.anchors.length
            own, others = by_side.get(id(self.anchors)), by_side.get(id(self.columns))
            panel = self.panel(self.anchors, self.columns)
            made = self.kernels.pull_both(self.words(parts), panel, row_length, own, others, self.tile)
            if made is not None:
                anchors, keys, total, moment = made  # [n, d], [m, d], [n], [n]
                found = {"anchors": self.anchors.restored(xp, anchors), "keys": self.columns.restored(xp, keys)}
                sum_dlogits, sum_dlogits_value = xp.sum(total), xp.sum(moment)
        for name, side, other in (("anchors", self.anchors, self.columns), ("keys", self.columns, self.anchors)):
            if not wanted[name] or name in found or (name == "keys" and self.symmetric):
                continue
            if not parts:
                found[name] = xp.zeros_like(getattr(self.comparison, name))
                continue
            own, others = by_side.get(id(side)), by_side.get(id(other))
            gradient, total, moment = self.kernels.pull(
                self.words(parts), self.panel(side, other), own, others, self.tile
            )
            found[name] = side.restored(xp, gradient)
            if own is not None:
                sum_dlogits, sum_dlogits_value = sum_dlogits + xp.sum(total), sum_dlogits_value + xp.sum(moment)
        if dpartner is not None:
            n, along = self.anchors.rows.shape[0], self.unsorted(dpartner)
            along = (along[:n] + along[n:] if both else along)[:, None]  # [n, 1]
            if wanted["anchors"]:
                found["anchors"] = found["anchors"] + along * self.comparison.partners
            if "partners" in needed:
                found["partners"] = along * self.comparison.anchors
        return PairGradients(
            found.get("anchors"), found.get("keys"), found.get("partners"), sum_dlogits, sum_dlogits_value
        )


def obstacle(loss: PairLoss, relation: Relation) -> str | None:
    """Why kernels cannot serve a record or a relation, as half a sentence; None if they can.

    A `KernelSpec` says which of two relations it is, and has one logit for all pairs.
    """
    if loss.positive_logit is not None:
        return f"the kernels have one logit for all pairs, and {loss.name} another for positives"
    if isinstance(relation, (SameLabel, OtherLabel)):
        return None
    return f"the kernels know pairs by label, and not the relation {type(relation).__name__}"


def lay_out(comparison: Comparison, laid: tuple[KernelRows, ...], kernels: Kernels, tile: int) -> KernelSweep:
    """A comparison laid out for the kernels of a backend."""
    xp, anchors, keys = comparison.xp, comparison.anchors, comparison.keys
    nil = xp.sum(anchors[:0, :])  # temperature and bias are arrays in device memory
    comparison = replace(comparison, temperature=nil + comparison.temperature, bias=nil + comparison.bias)
    given = comparison.halves or Halves(
        anchors, keys, ones_by_row(xp, anchors), None if keys is None else ones_by_row(xp, keys)
    )

    def sort(rows: Array, factors: Array, attributes: Attributes, inside: Array | None) -> KernelRows:
        labels, length, order = attributes["label"], rows.shape[0], None
        arrays = (rows, factors, labels, attributes.get("sample", labels))
        if not comparison.ascending:
            order = xp.argsort(labels, stable=True)
        if inside is not None:  # those outside last, by a second stable sort, and with the highest label
            outside = xp.astype(~inside, labels.dtype)
            length = length - xp.sum(outside)
            last = xp.argsort(outside if order is None else xp.take(outside, order, axis=0), stable=True)
            order = last if order is None else xp.take(order, last, axis=0)
        if order is None:
            return KernelRows(*arrays, None, length)
        rows, factors, labels, samples = (xp.take(x, order, axis=0) for x in arrays)
        if inside is not None:
            place = comparison.backend.indices(labels)
            last = xp.where(place < length, place, length - 1)
            labels = xp.take(labels, xp.where(last < 0, 0, last), axis=0)
        return KernelRows(rows, factors, labels, samples, order, length)

    own, *other = laid or (
        sort(given.anchors, given.anchor_factors, comparison.rows, comparison.inside),
        *(
            ()
            if keys is None
            else (sort(given.keys, given.key_factors, comparison.columns, comparison.columns_inside),)
        ),
    )
    columns = other[0] if other else own
    return KernelSweep(comparison, xp, specialise(comparison), kernels, tile, anchors=own, columns=columns)


def _shift(xp: Namespace, part: Part, results: Mapping[str, Array], like: Array) -> Array:
    """What a part subtracts from `scale * a + offset` in each row."""
    return xp.zeros_like(like) if part.minus is None else part.scale * results[part.minus]


def _stacked(xp: Namespace, vectors: Sequence[Array]) -> Array:
    return xp.concat([vector[None, :] for vector in vectors], axis=0)
