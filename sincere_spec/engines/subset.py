"""The rows that take part, taken out of a comparison, and the way back: for arrays whose masks can be read."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sincere_spec.arrays import Array, Namespace
from sincere_spec.engines.comparison import Comparison, Gradients, Halves


@dataclass(frozen=True)
class Taken:
    """Rows of one side that were taken out: their places among all rows, and the permutation that has them first."""

    order: Array  # [n]
    count: int

    def of(self, xp: Namespace, x: Array) -> Array:
        """The rows that were taken, `[count, ...]`."""
        return xp.take(x, self.order[: self.count], axis=0)

    def places_of(self, xp: Namespace, other: Taken) -> Array:
        """Where among these rows those are that the other side took, `[other.count]`; 0 for those that were not taken here."""
        place = xp.take(xp.argsort(self.order), other.order[: other.count], axis=0)
        return xp.where(place < self.count, place, 0)

    def back(self, xp: Namespace, x: Array) -> Array:
        """All rows again, `[n, ...]`: 0 where they were not taken."""
        place, zero = xp.argsort(self.order), xp.zeros_like(xp.sum(x, axis=0, keepdims=True))
        return xp.take(xp.concat([x, zero], axis=0), xp.where(place < self.count, place, self.count), axis=0)


@dataclass(frozen=True)
class Subset:
    """What was taken of the anchors, and of the keys if there are any."""

    anchors: Taken
    keys: Taken | None
    both_ways: bool

    def rows_with_loss(self, xp: Namespace, vector: Array) -> Array:
        """A vector by row with a loss, for all rows."""
        if not self.both_ways or self.keys is None:
            return self.anchors.back(xp, vector)
        n = self.anchors.count
        return xp.concat([self.anchors.back(xp, vector[:n]), self.keys.back(xp, vector[n:])], axis=0)

    def inside_of(self, xp: Namespace, vector: Array) -> Array:
        """The inverse of `rows_with_loss`."""
        if not self.both_ways or self.keys is None:
            return self.anchors.of(xp, vector)
        n = self.anchors.order.shape[0]
        return xp.concat([self.anchors.of(xp, vector[:n]), self.keys.of(xp, vector[n:])], axis=0)


def take_inside(comparison: Comparison) -> tuple[Comparison, Subset]:
    """The comparison of the rows inside alone."""
    xp, same = comparison.xp, comparison.columns_inside is comparison.inside
    anchors = _taken(comparison, comparison.inside)
    keys = None
    if comparison.keys is not None:
        keys = anchors if same else _taken(comparison, comparison.columns_inside)
    subset = Subset(anchors, keys, comparison.both_ways)
    rows = {name: anchors.of(xp, x) for name, x in comparison.rows.items()}
    columns = rows
    if keys is not None:  # what either side has in common stays one array
        common = comparison.rows if same else {}
        columns = {
            name: rows[name] if common.get(name) is x else keys.of(xp, x) for name, x in comparison.columns.items()
        }
    has_partner, partners = comparison.has_partner, comparison.partners
    places = None
    if comparison.both_ways and keys is not None and keys is not anchors:  # rows without a partner have any place
        places = keys.places_of(xp, anchors), anchors.places_of(xp, keys)
    made = anchors.of(xp, comparison.anchors)
    compared = None if keys is None else keys.of(xp, comparison.keys)
    if partners is not None:
        beside = partners is comparison.keys and same  # each row's partner is the key at its place
        partners = compared if beside else anchors.of(xp, partners)
    return replace(
        comparison,
        anchors=made,
        keys=compared,
        partners=partners,
        rows=rows,
        columns=columns,
        inside=None,
        columns_inside=None,
        partner_places=places,
        halves=None if comparison.halves is None else _halves_of(xp, comparison.halves, anchors, keys),
        has_partner=None if has_partner is None else subset.inside_of(xp, has_partner),
        blocks={
            name: xp.matrix_transpose((keys or anchors).of(xp, xp.matrix_transpose(anchors.of(xp, x))))
            for name, x in comparison.blocks.items()
        },
    ), subset


def _halves_of(xp: Namespace, halves: Halves, anchors: Taken, keys: Taken | None) -> Halves:
    own = anchors.of(xp, halves.anchors), anchors.of(xp, halves.anchor_factors)
    beside = (None, None) if keys is None else (keys.of(xp, halves.keys), keys.of(xp, halves.key_factors))
    return Halves(own[0], beside[0], own[1], beside[1])


def _taken(comparison: Comparison, inside: Array) -> Taken:
    xp = comparison.xp
    label = comparison.rows["label"]
    outside = xp.astype(~inside, label.dtype)
    return Taken(xp.argsort(outside, stable=True), int(inside.shape[0]) - int(xp.sum(outside)))


def put_back(xp: Namespace, gradients: Gradients, subset: Subset) -> Gradients:
    """The gradients for all rows that came, 0 for those outside."""
    return replace(
        gradients,
        anchors=None if gradients.anchors is None else subset.anchors.back(xp, gradients.anchors),
        keys=None if gradients.keys is None or subset.keys is None else subset.keys.back(xp, gradients.keys),
        partners=None if gradients.partners is None else subset.anchors.back(xp, gradients.partners),
    )
