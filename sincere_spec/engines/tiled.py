"""The tiled engine: the dense engine's numbers from square tiles, with vectors of length N kept between them.

Rows and columns are sorted by label once, so that a tile far from the diagonal holds negatives only and needs no mask.
Elsewhere masks are laid over the few pieces of it where labels meet, and stages over positives touch these alone. Where the
anchors are their own keys, or the keys are anchors too, a tile serves its rows and its columns at once, and of the first
only one triangle is computed. A log-sum-exp is summed relative to the largest logit there can be, or, where logits are not
bounded or so cold that this would underflow, to the largest so far.

`forward` makes a sweep for each level of stages and keeps their row results; `backward` makes one sweep and recomputes the
logits. Tiles are updated in place where the framework can, so this file is for arrays that are not traced.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from sincere_spec.arrays import Array, Namespace
from sincere_spec.engines import rows
from sincere_spec.engines.comparison import Comparison, Gradients, nothing, zeros
from sincere_spec.engines.layout import Piece, Side, Tile, lay_out, tiles_of
from sincere_spec.engines.parts import levels_of, part_weights, parts_of, shift_of, stage_result, stage_slope
from sincere_spec.engines.prune import prune_terms, specialise
from sincere_spec.interface import EagerBackend, Part
from sincere_spec.spec import elementwise, relations
from sincere_spec.spec.words import Fold, PairLoss, Pairs, Similarity


@dataclass(frozen=True)
class Statistics:
    """What a forward pass keeps: the stages, their row results, and what the gradient needs besides; no N x N array."""

    loss: PairLoss
    results: Mapping[str, Array]
    slopes: Mapping[str, Array]
    peaks: Mapping[Part, Array]
    shifts: Mapping[Part, float]
    counts: rows.Counts


@dataclass(frozen=True)
class Tally:
    """The running sums of a forward pass, by row; a peak is what a log-sum-exp is relative to."""

    counts: rows.Counts
    results: dict[str, Array]
    sums: dict[Part, Array]
    peaks: dict[Part, Array]
    shifts: dict[Part, float]
    slope_sums: dict[Part, Array]


@dataclass(frozen=True)
class Block:
    """Logits of some rows under masks, and which rows these are of all."""

    span: slice
    logits: Array
    positive: Array
    negative: Array


Masks: TypeAlias = Sequence[tuple[Piece, Array]]
"""Which pairs of some pieces of a tile are seen."""


@dataclass(frozen=True)
class Sweep:
    """A comparison laid out for tiles."""

    backend: EagerBackend
    xp: Namespace
    loss: PairLoss
    anchors: Side
    columns: Side
    partners: Array | None
    both_ways: bool
    alike: int | None
    distinct: bool
    masked: bool
    unit_rows: bool
    temperature: float | Array
    bias: float | Array
    scratch: Array

    @property
    def symmetric(self) -> bool:
        """Whether the anchors are their own keys."""
        return self.columns is self.anchors

    @property
    def total(self) -> int:
        """How many rows have a loss."""
        return self.anchors.rows + (self.columns.rows if self.both_ways else 0)

    def tiles(self) -> Iterator[Tile]:
        """Every pair once, in tiles; those on the diagonal of a symmetric comparison have every pair from either end."""
        return tiles_of(self.anchors, self.columns, self.masked)

    def roles(self, tile: Tile) -> tuple[tuple[slice, int], ...]:
        """The rows of a tile, and its columns if these are other rows with a loss; and the axis to sum over for each."""
        own = (tile.rows, 1)
        if not (self.symmetric or self.both_ways) or (self.symmetric and tile.rows == tile.columns):
            return (own,)
        return own, (self._shifted(tile.columns), 0)

    def _shifted(self, columns: slice) -> slice:
        offset = 0 if self.symmetric else self.anchors.rows
        return slice(columns.start + offset, columns.stop + offset)

    def shift(self, part: Part) -> float | None:
        """What all arguments of a part's exponential are relative to; None if that must be found."""
        if not self.unit_rows:
            return None
        kind = self.backend.dtype_name(self.scratch)
        return shift_of(part, self.loss.logit, float(self.temperature), float(self.bias), kind)

    def similarities(self, piece: Piece) -> Array:
        """The similarities of a piece, in an array that the next one overwrites."""
        return self._product(piece, 1.0)

    def logits(self, piece: Piece) -> Array:
        """The logits of a piece, in an array that the next one may overwrite."""
        return self.biased(self.unbiased(piece))

    def unbiased(self, piece: Piece) -> Array:
        """The same before the bias is added."""
        if isinstance(self.loss.logit, Similarity):  # no pass over the piece to scale it
            return self._product(piece, 1.0 / float(self.temperature))
        return self.loss.logit.value(self.xp, self.similarities(piece)) / self.temperature

    def biased(self, logits: Array) -> Array:
        """Logits with the bias, added in place."""
        if not isinstance(self.bias, float) or self.bias:
            logits += self.bias
        return logits

    def _product(self, piece: Piece, scale: float) -> Array:
        across = self.xp.matrix_transpose(self.columns.embeddings[piece.columns, :])
        return self.backend.product_into(self.scratch, self.anchors.embeddings[piece.rows, :], across, scale)

    def blocks(self, tile: Tile, piece: Piece, logits: Array) -> list[Block]:
        """The logits of a piece under masks, as seen from its rows, and from its columns where the tile has two roles."""
        xp = self.xp
        labels, key_labels = self._labels(piece)
        if self.partners is not None:
            negative = relations.beside_partners(labels, key_labels)
            positive = negative & ~negative
        elif self.distinct and not (self.symmetric and tile.rows == tile.columns):
            positive, negative = relations.apart(labels, key_labels)
        else:
            ids, key_ids = self.anchors.ids[piece.rows][:, None], self.columns.ids[piece.columns][None, :]
            positive, negative = relations.by_label(labels, key_labels, ids, key_ids)
        found = [Block(piece.rows, logits, positive, negative)]
        if len(self.roles(tile)) == 2:
            turned = (xp.matrix_transpose(x) for x in (logits, positive, negative))
            found.append(Block(self._shifted(piece.columns), *turned))
        return found

    def banded(self, tile: Tile, logits: Array) -> list[tuple[Piece, list[Block]]]:
        """The pieces of a tile in which there may be more than negatives, as blocks."""
        return [(piece, self.blocks(tile, piece, piece.of(tile, logits))) for piece in tile.bands]

    def masks(self, tile: Tile, banded: Sequence[tuple[Piece, list[Block]]]) -> Masks:
        """The negatives of these pieces, of blocks that were made already, or else by label: samples are distinct."""
        if banded:
            return [(piece, blocks[0].negative) for piece, blocks in banded]
        return [(piece, relations.beside_partners(*self._labels(piece))) for piece in tile.bands]

    def _labels(self, piece: Piece) -> tuple[Array, Array]:
        return self.anchors.labels[piece.rows][:, None], self.columns.labels[piece.columns][None, :]

    def partner_block(self) -> tuple[Array, Block]:
        """The similarity of every row to its partner, as a column, and the block of it."""
        similarity = self.xp.sum(self.anchors.embeddings * self.partners, axis=1, keepdims=True)
        if self.both_ways:
            similarity = self.xp.concat([similarity, similarity], axis=0)
        everyone = similarity == similarity
        logits = self.biased(self.loss.logit.value(self.xp, similarity) / self.temperature)
        return similarity, Block(slice(0, self.total), logits, everyone, ~everyone)


def forward(
    backend: EagerBackend,
    loss: PairLoss,
    comparison: Comparison,
    temperature: float | Array,
    bias: float | Array,
    reduction: str,
    tile: int,
) -> tuple[Array, Statistics | None]:
    """The value of a loss, or with the reduction "none" the loss of each row, and what `backward` needs."""
    xp = backend.namespace(comparison.anchors)
    empty = nothing(xp, comparison, temperature, bias)
    if empty is not None:
        return (empty if reduction == "none" else xp.sum(empty)), None
    sweep = _sweep(backend, loss, comparison, temperature, bias, tile)
    counts = _counts(sweep)
    loss, counts = prune_terms(backend, sweep.loss, counts)
    sweep = replace(sweep, loss=loss)
    statistics = _statistics(sweep, counts)
    row_losses = rows.losses(xp, sweep.loss, statistics.results, statistics.counts)
    if reduction == "none":
        return _unsorted(sweep, row_losses), statistics
    weights = rows.weights(xp, sweep.loss, reduction, statistics.counts)
    return xp.sum(weights * row_losses), statistics


def backward(
    backend: EagerBackend,
    loss: PairLoss,
    comparison: Comparison,
    temperature: float | Array,
    bias: float | Array,
    reduction: str,
    tile: int,
    statistics: Statistics | None,
    cotangent: float | Array,
    needed: frozenset[str],
) -> Gradients:
    """The gradient of what `forward` returned, under its cotangent; parts that are not needed are not computed.

    `needed` has any of "anchors", "keys", "partners", "temperature" and "bias".
    """
    xp = backend.namespace(comparison.anchors)
    if statistics is None:
        return zeros(xp, comparison)
    sweep = _sweep(backend, loss, comparison, temperature, bias, tile)
    sweep = replace(sweep, loss=statistics.loss)
    if reduction == "none":
        row_cotangents = rows.without_uncounted(xp, sweep.loss, statistics.counts, _sorted(sweep, cotangent))
    else:
        row_cotangents = cotangent * rows.weights(xp, sweep.loss, reduction, statistics.counts)
    weights = part_weights(
        xp, sweep.loss, statistics.results, statistics.slopes, statistics.peaks, statistics.counts, row_cotangents
    )
    weights = {part: weight / temperature for part, weight in weights.items()}  # by similarity, where the slope is 1
    return _gradients(sweep, statistics, weights, needed)


def _sweep(
    backend: EagerBackend,
    loss: PairLoss,
    comparison: Comparison,
    temperature: float | Array,
    bias: float | Array,
    tile: int,
) -> Sweep:
    xp = backend.namespace(comparison.anchors)
    loss = specialise(loss, comparison)
    alike = comparison.alike
    views = None if alike is None else 1 if comparison.keys is not None else alike
    anchors = lay_out(backend, comparison.anchors, comparison.labels, comparison.ids, tile, views)
    columns = anchors
    if comparison.keys is not None:
        columns = lay_out(backend, comparison.keys, comparison.key_labels, comparison.key_ids, tile, views)
    return Sweep(
        backend=backend,
        xp=xp,
        loss=loss,
        anchors=anchors,
        columns=columns,
        partners=None if comparison.partners is None else anchors.sorted(xp, comparison.partners),
        both_ways=comparison.both_ways,
        alike=alike,
        distinct=comparison.distinct,
        # Equal ids may stand anywhere; a stage over negatives that subtracts another is not the same both ways.
        masked=not comparison.distinct
        or any(part.minus and part.over is Pairs.NEGATIVE for level in levels_of(loss) for part in level),
        unit_rows=comparison.unit_rows,
        temperature=temperature,
        bias=bias,
        scratch=backend.scratch(comparison.anchors, min(tile, anchors.rows) * min(tile, columns.rows)),
    )


def _statistics(sweep: Sweep, counts: rows.Counts) -> Statistics:
    xp, loss = sweep.xp, sweep.loss
    nil = xp.zeros_like(counts.positive)
    tally = Tally(counts, {}, {}, {}, {}, {})
    slopes: dict[str, Array] = {}
    for level in levels_of(loss):
        for part in level:
            tally.sums[part] = nil + 0.0
            tally.slope_sums[part] = nil + 0.0
            if part.fold is Fold.LOGSUMEXP:
                shift = sweep.shift(part)
                if shift is not None:
                    tally.shifts[part] = shift
                tally.peaks[part] = nil - float("inf") if shift is None else shift
        positive = tuple(part for part in level if part.over is Pairs.POSITIVE)
        negative = tuple(part for part in level if part.over is Pairs.NEGATIVE)
        inside = () if sweep.partners is not None else positive
        for tile in sweep.tiles():
            if sweep.masked:
                for block in sweep.blocks(tile, tile, sweep.logits(tile)):
                    _add(sweep, tally, block, inside + negative)
            elif negative:
                logits = sweep.logits(tile)
                banded = sweep.banded(tile, logits) if inside else []
                for _, blocks in banded:
                    for block in blocks:
                        _add(sweep, tally, block, inside)
                _add_negatives(sweep, tally, tile, logits, sweep.masks(tile, banded), negative)
            elif inside:
                for piece in tile.bands:
                    for block in sweep.blocks(tile, piece, sweep.logits(piece)):
                        _add(sweep, tally, block, inside)
        if sweep.partners is not None:
            _, block = sweep.partner_block()
            _add(sweep, tally, block, positive)
        for stage in loss.stages:
            if parts_of(stage)[0] in level:
                tally.results[stage.name] = stage_result(xp, loss, stage, tally.sums, tally.peaks, tally.counts)
                if stage.minus is not None:
                    slopes[stage.name] = stage_slope(xp, loss, stage, tally.slope_sums, tally.counts)
    return Statistics(loss, tally.results, slopes, tally.peaks, tally.shifts, tally.counts)


def _counts(sweep: Sweep) -> rows.Counts:
    """How many positives and negatives each row has: from the sorted labels, or from masks if equal ids may be anywhere."""
    xp = sweep.xp
    nil = xp.zeros((sweep.total,), dtype=sweep.scratch.dtype, device=sweep.backend.device(sweep.scratch))
    counts = rows.Counts(positive=nil + 0.0, negative=nil + 0.0)
    if not sweep.distinct:
        for tile in sweep.tiles():
            for block in sweep.blocks(tile, tile, sweep.similarities(tile)):
                counts.positive[block.span] += xp.sum(xp.astype(block.positive, nil.dtype), axis=1)
                counts.negative[block.span] += xp.sum(xp.astype(block.negative, nil.dtype), axis=1)
        return counts
    if sweep.alike is not None:
        counts.positive[:] += 1.0 if sweep.partners is not None else float(sweep.alike - 1)
        counts.negative[:] += float(sweep.columns.rows - sweep.alike)
        return counts
    sides = [(sweep.anchors, sweep.columns)] + ([(sweep.columns, sweep.anchors)] if sweep.both_ways else [])
    start = 0
    for side, others in sides:
        first = xp.searchsorted(others.labels, side.labels, side="left")
        same = xp.astype(xp.searchsorted(others.labels, side.labels, side="right") - first, nil.dtype)
        span = slice(start, start + side.rows)
        counts.negative[span] += float(others.rows) - same
        counts.positive[span] += 1.0 if sweep.partners is not None else same - (1.0 if sweep.symmetric else 0.0)
        start += side.rows
    return counts


def _argument(part: Part, logits: Array) -> Array:
    """The argument of a part's fold, from logits that are given up for it."""
    if part.scale != 1.0:
        logits *= part.scale
    if part.offset:
        logits += part.offset
    return logits


def _exponential(sweep: Sweep, t: Array, shift: float) -> Array:
    """`exp(t - shift)`, from arguments that are given up for it."""
    if shift:
        t -= shift
    return sweep.backend.exp_of(t)


def _masked(xp: Namespace, tile: Tile, x: Array, masks: Masks, value: float) -> Array:
    """An array of a tile in which what is hidden has a value, in place."""
    for piece, mask in masks:
        part = piece.of(tile, x)
        part[...] = xp.where(mask, part, value)
    return x


def _add_negatives(
    sweep: Sweep, tally: Tally, tile: Tile, logits: Array, masks: Masks, parts: tuple[Part, ...]
) -> None:
    """Add a tile to the sums over negatives of its rows, and of its columns if these are rows, too."""
    xp = sweep.xp
    for part in parts:
        t = _argument(part, logits if part is parts[-1] else logits + 0.0)
        if part.fold is Fold.LOGSUMEXP and part not in tally.shifts:
            t = _masked(xp, tile, t, masks, -float("inf"))
            for span, axis in sweep.roles(tile):
                before = tally.peaks[part][span]
                peak = xp.max(t, axis=axis)
                peak = xp.where(peak > before, peak, before)
                finite = xp.where(peak > -float("inf"), peak, 0.0)
                fresh = xp.sum(xp.exp(t - (finite[:, None] if axis else finite[None, :])), axis=axis)
                tally.sums[part][span] = tally.sums[part][span] * xp.exp(before - finite) + fresh
                tally.peaks[part][span] = peak
            continue
        if part.fold is Fold.LOGSUMEXP:
            folded = _exponential(sweep, t, tally.shifts[part])
        else:
            folded = elementwise.value(xp, part.fold, t)
        folded = _masked(xp, tile, folded, masks, 0.0)
        for span, axis in sweep.roles(tile):
            _add_to(tally.sums[part], span, xp.sum(folded, axis=axis))


def _add(sweep: Sweep, tally: Tally, block: Block, parts: tuple[Part, ...]) -> None:
    """Add some columns of some rows to their sums, under masks."""
    xp, span = sweep.xp, block.span
    for part in parts:
        mask, t = _masked_argument(sweep.loss, block, part, tally.counts, tally.results)
        if part.fold is Fold.LOGSUMEXP and part not in tally.shifts:
            before = tally.peaks[part][span]
            highest = xp.max(xp.where(mask, t, -float("inf")), axis=1)
            peak = xp.where(highest > before, highest, before)
            finite = xp.where(peak > -float("inf"), peak, 0.0)
            fresh = xp.sum(xp.where(mask, xp.exp(t - finite[:, None]), 0.0), axis=1)
            tally.sums[part][span] = tally.sums[part][span] * xp.exp(before - finite) + fresh
            tally.peaks[part][span] = peak
            continue
        shift = tally.shifts.get(part)
        folded = elementwise.value(xp, part.fold, t) if shift is None else xp.exp(t - shift if shift else t)
        _add_to(tally.sums[part], span, xp.sum(xp.where(mask, folded, 0.0), axis=1))
        if part.minus is not None and part.fold is not Fold.LOGSUMEXP:
            slope = xp.where(mask, elementwise.slope(xp, part.fold, t), 0.0)
            _add_to(tally.slope_sums[part], span, part.scale * xp.sum(slope, axis=1))


def _add_to(vector: Array, span: slice, x: Array) -> None:
    """`vector[span] += x`, which Python would write to the vector a second time."""
    part = vector[span]
    part += x


def _masked_argument(
    loss: PairLoss, block: Block, part: Part, counts: rows.Counts, results: Mapping[str, Array]
) -> tuple[Array, Array]:
    """The pairs of a block that a part sees, and the argument of its fold."""
    mask, t = block.positive if part.over is Pairs.POSITIVE else block.negative, block.logits
    if part.minus is not None:
        empty = rows.rows_with_empty_reference(loss, counts, part.minus)
        mask = mask if empty is None else mask & ~empty[block.span][:, None]
        t = t - results[part.minus][block.span][:, None]
    if part.scale != 1.0:
        t = part.scale * t
    return mask, t + part.offset if part.offset else t


def _gradients(
    sweep: Sweep, statistics: Statistics, weights: Mapping[Part, Array], needed: frozenset[str]
) -> Gradients:
    xp, backend, logit = sweep.xp, sweep.backend, sweep.loss.logit
    anchors, columns = sweep.anchors.embeddings, sweep.columns.embeddings
    d_anchors = xp.zeros_like(anchors)
    d_columns = d_anchors if sweep.symmetric else xp.zeros_like(columns)
    pulled = moved = xp.sum(anchors[:0, :])  # Σ C and Σ C a, without the bias, from a 0 of the right dtype
    positive = {part: weight for part, weight in weights.items() if part.over is Pairs.POSITIVE}
    negative = {part: weight for part, weight in weights.items() if part.over is Pairs.NEGATIVE}
    inside = {} if sweep.partners is not None else positive
    for tile in sweep.tiles():
        if not (negative or tile.bands):
            continue
        logits = sweep.unbiased(tile)
        kept = logits + 0.0 if "temperature" in needed else logits  # without the bias, which would round it
        logits = sweep.biased(logits)
        if sweep.masked:
            pull = _blocks_pull(sweep, sweep.blocks(tile, tile, logits), statistics, inside | negative)
        else:
            banded = sweep.banded(tile, logits) if inside else []
            drawn = [(piece, _blocks_pull(sweep, blocks, statistics, inside)) for piece, blocks in banded]
            pull = _negative_pull(sweep, tile, logits, sweep.masks(tile, banded), statistics, negative)
            for piece, part in drawn:
                whole = piece.of(tile, pull)
                whole += part
        if "bias" in needed:
            pulled = pulled + xp.sum(pull)
        if "temperature" in needed:
            moved = moved + xp.sum(pull * kept)
        if not logit.unit_slope:
            pull *= logit.slope(xp, sweep.similarities(tile))
        a, b = tile.rows, tile.columns
        if sweep.symmetric and a == b:
            backend.add_product(d_anchors[a, :], pull + xp.matrix_transpose(pull), anchors[a, :])
            continue
        if "anchors" in needed:
            backend.add_product(d_anchors[a, :], pull, columns[b, :])
        if "keys" in needed or (sweep.symmetric and "anchors" in needed):
            backend.add_product(d_columns[b, :], xp.matrix_transpose(pull), anchors[a, :])

    d_partners = None
    if sweep.partners is not None:
        similarity, block = sweep.partner_block()
        pull = _blocks_pull(sweep, [block], statistics, positive)
        pulled = pulled + xp.sum(pull)
        moved = moved + xp.sum(pull * logit.value(xp, similarity)) / sweep.temperature
        pull = pull * logit.slope(xp, similarity)
        if sweep.both_ways:
            pull = pull[: sweep.anchors.rows, :] + pull[sweep.anchors.rows :, :]
        own = sweep.partners is sweep.columns.embeddings  # each row's partner is the key at its place: one sum for both
        for here in (strip.rows for strip in sweep.anchors.strips):
            d_anchors[here, :] += pull[here, :] * sweep.partners[here, :]
            if own and "partners" in needed:
                d_columns[here, :] += pull[here, :] * anchors[here, :]
        if "partners" in needed and not own:
            d_partners = sweep.anchors.restored(xp, pull * anchors)
    return Gradients(
        anchors=sweep.anchors.restored(xp, d_anchors),
        keys=None if sweep.symmetric else sweep.columns.restored(xp, d_columns),
        partners=d_partners,
        temperature=-moved,
        bias=pulled * sweep.temperature,
    )


def _negative_pull(
    sweep: Sweep,
    tile: Tile,
    logits: Array,
    masks: Masks,
    statistics: Statistics,
    weights: Mapping[Part, Array],
) -> Array:
    """The derivative of the value by the logits of a tile through its negatives, from its rows and from its columns."""
    xp = sweep.xp
    (rows_, _), *others = sweep.roles(tile)
    total: Array = None
    for number, (part, weight) in enumerate(weights.items(), 1):
        t = _argument(part, logits if number == len(weights) else logits + 0.0)
        if part.fold is Fold.LOGSUMEXP and part not in statistics.shifts:
            peaks = statistics.peaks[part]
            pull = xp.exp(t - peaks[rows_][:, None]) * weight[rows_][:, None]
            for columns, _ in others:
                pull += xp.exp(t - peaks[columns][None, :]) * weight[columns][None, :]
        else:
            if part.fold is Fold.LOGSUMEXP:
                pull = _exponential(sweep, t, statistics.shifts[part])
            else:
                pull = elementwise.slope(xp, part.fold, t)
            seen = weight[rows_][:, None]
            for columns, _ in others:
                seen = seen + weight[columns][None, :]
            pull *= seen
        total = pull if total is None else total + pull
    return xp.zeros_like(logits) if total is None else _masked(xp, tile, total, masks, 0.0)


def _blocks_pull(sweep: Sweep, blocks: Sequence[Block], statistics: Statistics, weights: Mapping[Part, Array]) -> Array:
    """The same of some logits under masks, through the parts of these weights."""
    first, *turned = (_block_pull(sweep, block, statistics, weights) for block in blocks)
    return first + sweep.xp.matrix_transpose(turned[0]) if turned else first


def _block_pull(sweep: Sweep, block: Block, statistics: Statistics, weights: Mapping[Part, Array]) -> Array:
    xp = sweep.xp
    total: Array = None
    for part, weight in weights.items():
        mask, t = _masked_argument(sweep.loss, block, part, statistics.counts, statistics.results)
        if part.fold is Fold.LOGSUMEXP:
            shift = statistics.shifts.get(part)
            slope = xp.exp(t - (statistics.peaks[part][block.span][:, None] if shift is None else shift))
        else:
            slope = elementwise.slope(xp, part.fold, t)
        pull = xp.where(mask, slope * weight[block.span][:, None], 0.0)
        total = pull if total is None else total + pull
    return xp.zeros_like(block.logits) if total is None else total


def _unsorted(sweep: Sweep, vector: Array) -> Array:
    """Row results of both sides in the order in which the rows came."""
    xp, n = sweep.xp, sweep.anchors.rows
    own = sweep.anchors.restored(xp, vector[:n])
    return xp.concat([own, sweep.columns.restored(xp, vector[n:])]) if sweep.both_ways else own


def _sorted(sweep: Sweep, vector: Array) -> Array:
    """The inverse of `_unsorted`."""
    xp, n = sweep.xp, sweep.anchors.rows
    own = sweep.anchors.sorted(xp, vector[:n])
    return xp.concat([own, sweep.columns.sorted(xp, vector[n:])]) if sweep.both_ways else own
