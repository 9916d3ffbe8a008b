"""A sweep for keys that each anchor has for itself: products row by row, O(n k d), and nothing larger than the keys.

The keys of row i are `[k, d]` of the `[n, k, d]`; they are negatives of it alone. Rows are swept a block at a time where their
number is known, so that no product of all rows is there at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sincere_spec.arrays import Array, Namespace
from sincere_spec.engines.comparison import Comparison
from sincere_spec.engines.family import Ordered, PairGradients, RowCotangents, RowSums, StageResults, Visit
from sincere_spec.engines.parts import EMPTY_MAXIMUM
from sincere_spec.engines.prune import specialise
from sincere_spec.engines.rows import weighed_slopes
from sincere_spec.interface import Part
from sincere_spec.spec import elementwise
from sincere_spec.spec.words import Fold, PairLoss


@dataclass(frozen=True)
class PerAnchorSweep:
    """A comparison of each anchor with keys of its own."""

    comparison: Comparison
    xp: Namespace
    loss: PairLoss
    keys: Array  # [n, k, d]
    seen: Array | None  # [n, k]; None: all
    tile: int

    laid = ()
    partnered = True
    sides: Sequence[tuple[Ordered, Ordered]] = ()

    @property
    def inside(self) -> Array | None:
        """Which rows take part."""
        return self.comparison.inside

    def sorted(self, vector: Array) -> Array:
        """Rows stay as they came."""
        return vector

    def unsorted(self, vector: Array) -> Array:
        """Rows stay as they came."""
        return vector

    def partner_similarities(self) -> Array:
        """The similarity of each row to its partner, `[n]`."""
        return self.xp.sum(self.comparison.anchors * self.comparison.partners, axis=1)

    def blocks(self) -> Iterator[slice]:
        """Some rows at a time; all of them where their number is not known."""
        count = self.comparison.backend.length(self.comparison.anchors)
        if not isinstance(count, int) or self.comparison.backend.traces:
            yield slice(None)
            return
        for start in range(0, count, self.tile):
            yield slice(start, min(start + self.tile, count))

    def similarities(self, rows: slice) -> Array:
        """Of some rows with their keys, `[r, k]`."""
        return similarities(self.comparison, self.comparison.anchors[rows, ...], self.keys[rows, ...])

    def argument(self, part: Part, logits: Array, rows: slice, stages: StageResults) -> tuple[Array | None, Array]:
        """Which keys a part sees, and the argument of its fold."""
        mask, t = None if self.seen is None else self.seen[rows, ...], logits
        if part.minus is not None:  # a row with an empty reference has no pairs
            empty, t = stages.empty[part.minus], t - stages.values[part.minus][rows][:, None]
            if empty is not None:
                there = ~empty[rows][:, None]
                mask = there & (t == t) if mask is None else mask & there
        return mask, part.scale * t + part.offset

    def logits(self, similarity: Array) -> Array:
        """The logits of similarities."""
        return self.loss.logit.value(self.xp, similarity) / self.comparison.temperature + self.comparison.bias

    def row_sums(self, parts: Sequence[Part], stages: StageResults) -> RowSums:
        """One sweep over all keys."""
        xp = self.xp
        found: list[RowSums] = []
        for rows in self.blocks():
            block, logits = RowSums({}, {}, {}), self.logits(self.similarities(rows))
            for part in parts:
                mask, t = self.argument(part, logits, rows, stages)
                if part.fold is Fold.LOGSUMEXP:
                    hidden = t if mask is None else xp.where(mask, t, -float("inf"))
                    peak = xp.max(xp.concat([hidden, xp.zeros_like(hidden[:, :1]) + EMPTY_MAXIMUM], axis=1), axis=1)
                    block.maxima[part], values = peak, xp.exp(t - peak[:, None])
                else:
                    values = elementwise.value(xp, part.fold, t)
                    slope = part.scale * elementwise.slope(xp, part.fold, t)
                    block.slope_sums[part] = xp.sum(slope if mask is None else xp.where(mask, slope, 0.0), axis=1)
                block.sums[part] = xp.sum(values if mask is None else xp.where(mask, values, 0.0), axis=1)
            found.append(block)
        joined = ({part: _joined(xp, [by[part] for by in one]) for part in one[0]} for one in zip(*found, strict=True))
        return RowSums(*joined)

    def in_strips(self, loss: PairLoss, visit: Visit, needed: frozenset[str]) -> None:
        """It has no strips."""

    def gradients(self, cotangents: RowCotangents, dpartner: Array | None, needed: frozenset[str]) -> PairGradients:
        """The same sweep, which recomputes the logits."""
        xp, comparison, logit = self.xp, self.comparison, self.loss.logit
        by_anchors, by_keys, total, moment = [], [], 0.0, 0.0
        for rows in self.blocks():
            similarity = self.similarities(rows)
            logits, pull = self.logits(similarity), xp.zeros_like(similarity)
            for part, weight in cotangents.weights.items():
                mask, t = self.argument(part, logits, rows, cotangents.stages)
                if part.fold is Fold.LOGSUMEXP:
                    slope = xp.exp(t - cotangents.maxima[part][rows][:, None])
                else:
                    slope = elementwise.slope(xp, part.fold, t)
                slope = weighed_slopes(xp, part.fold, slope, weight[rows][:, None])
                pull = pull + (slope if mask is None else xp.where(mask, slope, 0.0))
            total, moment = total + xp.sum(pull), moment + xp.sum(pull * logit.value(xp, similarity))
            pull = pull if logit.unit_slope else pull * logit.slope(xp, similarity)
            by_anchors.append(sums(comparison, pull, self.keys[rows, ...]))
            if "keys" in needed:
                by_keys.append(pull[:, :, None] * comparison.anchors[rows, ...][:, None, :])
        anchors, partners = _joined(xp, by_anchors), None
        if dpartner is not None:
            anchors = anchors + dpartner[:, None] * comparison.partners
            partners = dpartner[:, None] * comparison.anchors
        keys = None
        if "keys" in needed:
            keys = xp.reshape(_joined(xp, by_keys), (-1, comparison.anchors.shape[1]))
        return PairGradients(anchors, keys, partners, total, moment)


def similarities(comparison: Comparison, anchors: Array, keys: Array) -> Array:
    """The similarity of each anchor `[n, d]` to keys of its own `[n, k, d]`: `[n, k]`."""
    return comparison.backend.product(keys, anchors[:, :, None])[:, :, 0]


def sums(comparison: Comparison, weights: Array, keys: Array) -> Array:
    """The sums of each row's keys under weights `[n, k]`: `[n, d]`."""
    return comparison.backend.product(weights[:, None, :], keys)[:, 0, :]


def keys_of(comparison: Comparison) -> tuple[Array, Array | None]:
    """The keys of each anchor, `[n, k, d]`, and which of them it sees, `[n, k]`."""
    xp, each = comparison.xp, comparison.keys_of_each
    keys = xp.reshape(comparison.keys, (-1, each, comparison.anchors.shape[1]))
    seen = comparison.columns_inside
    return keys, None if seen is None else xp.reshape(seen, (-1, each))


def lay_out(comparison: Comparison, laid: tuple[Any, ...], tile: int) -> PerAnchorSweep:
    """A comparison with keys of each anchor's own, a block of so many rows at a time."""
    keys, seen = keys_of(comparison)
    return PerAnchorSweep(comparison, comparison.xp, specialise(comparison), keys, seen, tile)


def _joined(xp: Namespace, blocks: Sequence[Array]) -> Array:
    return blocks[0] if len(blocks) == 1 else xp.concat(blocks, axis=0)
