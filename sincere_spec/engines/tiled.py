"""The tiled engine: the dense engine's numbers from square tiles, with vectors of length N kept between them.

Rows and columns are sorted by label once, so that a tile far from the diagonal band holds negatives only and needs no mask,
and stages over positives touch the band alone. Where the anchors are their own keys, or the keys are anchors too, a tile
serves its rows and its columns at once, and of the first only one triangle is computed. A log-sum-exp is summed relative to
the largest logit there can be, or, where logits are not bounded or so cold that this would underflow, to the largest so far.

`forward` makes a sweep for each level of stages and keeps their row results; `backward` makes one sweep and recomputes the
logits. Tiles are updated in place where the framework can, so this file is for arrays that are not traced.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sincere_spec import elementwise, relations
from sincere_spec.engines import rows
from sincere_spec.engines.comparison import Comparison, Gradients, nothing, specialise, zeros
from sincere_spec.engines.layout import Side, Tile, sort_by_label, tiles_of
from sincere_spec.engines.parts import Part, levels_of, part_weights, parts_of, stage_result
from sincere_spec.protocol import Fold, PairLoss, Pairs, Similarity
from sincere_spec.types import Array, Backend, Namespace

# How far logits may lie below the largest possible one before their exponentials, or the weights that undo them, leave
# the range of the dtype: about two thirds of it.
SPREAD = {"float32": 60.0, "float64": 480.0}


@dataclass(frozen=True)
class Statistics:
    """What a forward pass keeps: row results of the stages, and what the gradient needs besides; no N x N array."""

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
    falls: dict[Part, Array]


@dataclass(frozen=True)
class Block:
    """Logits of some rows under masks, and which rows these are of all."""

    span: slice
    logits: Array
    positive: Array
    negative: Array


@dataclass(frozen=True)
class Sweep:
    """A comparison laid out for tiles."""

    backend: Backend
    xp: Namespace
    loss: PairLoss
    anchors: Side
    columns: Side
    partners: Array | None
    both_ways: bool
    distinct: bool
    masked: bool
    temperature: float | Array
    bias: float | Array
    scaled: Array
    scratch: tuple[Array, Array]

    @property
    def symmetric(self) -> bool:
        """Whether the anchors are their own keys."""
        return self.columns is self.anchors

    @property
    def total(self) -> int:
        """How many rows have a loss."""
        return self.anchors.rows + (self.columns.rows if self.both_ways else 0)

    @property
    def halves(self) -> tuple[Pairs, ...]:
        """What the tiles hold: negatives only where positives are partners."""
        return (Pairs.NEGATIVE,) if self.partners is not None else (Pairs.POSITIVE, Pairs.NEGATIVE)

    def tiles(self) -> Iterator[Tile]:
        """Every pair once, in tiles."""
        return tiles_of(self.anchors, self.columns, self.masked)

    def column_rows(self, tile: Tile) -> slice | None:
        """The columns of a tile as rows with a loss of their own; None if they have none."""
        if not (self.symmetric or self.both_ways):
            return None
        offset = 0 if self.symmetric else self.anchors.rows
        return slice(tile.columns.start + offset, tile.columns.stop + offset)

    def similarities(self, tile: Tile) -> Array:
        """The similarities of a tile, in an array that the next tile overwrites."""
        return self._product(self.anchors.embeddings, tile)

    def logits(self, tile: Tile) -> Array:
        """The logits of a tile, in an array that the next tile may overwrite."""
        return self.biased(self.unbiased(tile))

    def unbiased(self, tile: Tile) -> Array:
        """The same before the bias is added."""
        if isinstance(self.loss.logit, Similarity):  # no pass over the tile to scale it
            return self._product(self.scaled, tile)
        return self.loss.logit.value(self.xp, self.similarities(tile)) / self.temperature

    def biased(self, logits: Array) -> Array:
        """Logits with the bias, added in place."""
        if not isinstance(self.bias, float) or self.bias:
            logits += self.bias
        return logits

    def _product(self, anchors: Array, tile: Tile) -> Array:
        across = self.xp.matrix_transpose(self.columns.embeddings[tile.columns, :])
        return self.backend.product_into(self.scratch[0], anchors[tile.rows, :], across)

    def blocks(self, tile: Tile, logits: Array) -> Iterator[Block]:
        """A masked tile as seen from its rows, and from its columns where these are other rows."""
        xp = self.xp
        labels, key_labels = self.anchors.labels[tile.rows][:, None], self.columns.labels[tile.columns][None, :]
        if self.partners is not None:
            negative = relations.beside_partners(labels, key_labels)
            positive = negative & ~negative
        else:
            ids, key_ids = self.anchors.ids[tile.rows][:, None], self.columns.ids[tile.columns][None, :]
            positive, negative = relations.by_label(labels, key_labels, ids, key_ids)
        yield Block(tile.rows, logits, positive, negative)
        columns = self.column_rows(tile)
        if columns is not None and columns != tile.rows:
            turned = (xp.matrix_transpose(x) for x in (logits, positive, negative))
            yield Block(columns, *turned)

    def partner_block(self) -> tuple[Array, Block]:
        """The similarity of every row to its partner, as a column, and the block of it."""
        similarity = self.xp.sum(self.anchors.embeddings * self.partners, axis=1, keepdims=True)
        if self.both_ways:
            similarity = self.xp.concat([similarity, similarity], axis=0)
        everyone = similarity == similarity
        logits = self.biased(self.loss.logit.value(self.xp, similarity) / self.temperature)
        return similarity, Block(slice(0, self.total), logits, everyone, ~everyone)


def forward(
    backend: Backend,
    loss: PairLoss,
    comparison: Comparison,
    temperature: float | Array,
    bias: float | Array,
    reduction: str,
    tile: int,
    unit_rows: bool,
) -> tuple[Array, Statistics | None]:
    """The value of a loss, or with the reduction "none" the loss of each row, and what `backward` needs."""
    xp = backend.namespace(comparison.anchors)
    empty = nothing(xp, comparison, temperature, bias)
    if empty is not None:
        return (empty if reduction == "none" else xp.sum(empty)), None
    sweep = _sweep(backend, loss, comparison, temperature, bias, tile)
    statistics = _statistics(sweep, unit_rows)
    row_losses = rows.losses(xp, sweep.loss, statistics.results, statistics.counts)
    if reduction == "none":
        return _unsorted(sweep, row_losses), statistics
    weights = rows.weights(xp, sweep.loss, reduction, statistics.counts)
    return xp.sum(weights * row_losses), statistics


def backward(
    backend: Backend,
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
    if reduction == "none":
        row_cotangents = xp.where(rows.counted(sweep.loss, statistics.counts), _sorted(sweep, cotangent), 0.0)
    else:
        row_cotangents = cotangent * rows.weights(xp, sweep.loss, reduction, statistics.counts)
    weights = _weights(sweep, statistics, row_cotangents)
    return _gradients(sweep, statistics, weights, needed)


def _sweep(
    backend: Backend, loss: PairLoss, comparison: Comparison, temperature: float | Array, bias: float | Array, tile: int
) -> Sweep:
    xp = backend.namespace(comparison.anchors)
    loss = specialise(loss, comparison)
    anchors = sort_by_label(backend, comparison.anchors, comparison.labels, comparison.ids, tile)
    columns = anchors
    if comparison.keys is not None:
        columns = sort_by_label(backend, comparison.keys, comparison.key_labels, comparison.key_ids, tile)
    return Sweep(
        backend=backend,
        xp=xp,
        loss=loss,
        anchors=anchors,
        columns=columns,
        partners=None if comparison.partners is None else xp.take(comparison.partners, anchors.order, axis=0),
        both_ways=comparison.both_ways,
        distinct=comparison.distinct,
        # Equal ids may stand anywhere; a stage over negatives that subtracts another is not the same both ways.
        masked=not comparison.distinct
        or any(part.minus and part.over is Pairs.NEGATIVE for level in levels_of(loss) for part in level),
        temperature=temperature,
        bias=bias,
        scaled=anchors.embeddings / temperature,
        scratch=(backend.scratch(comparison.anchors, tile * tile), backend.scratch(comparison.anchors, tile * tile)),
    )


def _statistics(sweep: Sweep, unit_rows: bool) -> Statistics:
    xp, loss = sweep.xp, sweep.loss
    nil = xp.zeros((sweep.total,), dtype=sweep.scratch[0].dtype, device=sweep.backend.device(sweep.scratch[0]))
    tally = Tally(_counts(sweep, nil), {}, {}, {}, {}, {})
    slopes: dict[str, Array] = {}
    for level in levels_of(loss):
        for part in level:
            tally.sums[part] = nil + 0.0
            tally.falls[part] = nil + 0.0
            if part.fold is Fold.LOGSUMEXP:
                shift = _shift(sweep, part, unit_rows)
                if shift is not None:
                    tally.shifts[part] = shift
                tally.peaks[part] = nil + (-float("inf") if shift is None else shift)
        inside = tuple(part for part in level if part.over in sweep.halves)
        negative = tuple(part for part in inside if part.over is Pairs.NEGATIVE)
        for tile in sweep.tiles():
            if not tile.masked:
                if negative:
                    _add_negatives(sweep, tally, tile, negative)
            elif inside:
                for block in sweep.blocks(tile, sweep.logits(tile)):
                    _add(sweep, tally, block, inside)
        if sweep.partners is not None:
            _, block = sweep.partner_block()
            _add(sweep, tally, block, tuple(part for part in level if part.over is Pairs.POSITIVE))
        for stage in loss.stages:
            if parts_of(stage)[0] in level:
                tally.results[stage.name] = stage_result(xp, stage, tally.sums, tally.peaks, tally.counts)
                if stage.minus is not None:
                    slopes[stage.name] = _fall(xp, loss, stage.name, tally.falls, tally.counts)
    return Statistics(tally.results, slopes, tally.peaks, tally.shifts, tally.counts)


def _counts(sweep: Sweep, nil: Array) -> rows.Counts:
    """How many positives and negatives each row has: from the sorted labels, or from masks if equal ids may be anywhere."""
    xp = sweep.xp
    counts = rows.Counts(positive=nil + 0.0, negative=nil + 0.0)
    if not sweep.distinct:
        for tile in sweep.tiles():
            for block in sweep.blocks(tile, sweep.similarities(tile)):
                counts.positive[block.span] += xp.sum(xp.astype(block.positive, nil.dtype), axis=1)
                counts.negative[block.span] += xp.sum(xp.astype(block.negative, nil.dtype), axis=1)
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


def _shift(sweep: Sweep, part: Part, unit_rows: bool) -> float | None:
    """What to subtract from all arguments of a part's exponential, if these are bounded enough; else None.

    It is 0 where no exponential can leave the range of the dtype, and then costs nothing.
    """
    reach = sweep.loss.logit.reach
    if not unit_rows or reach is None or part.minus is not None:
        return None
    low, high = (part.scale * (value / float(sweep.temperature) + float(sweep.bias)) for value in reach)
    spread = SPREAD[sweep.backend.dtype_name(sweep.scratch[0])]
    if abs(high - low) > spread:
        return None
    highest = max(low, high) + part.offset
    return 0.0 if abs(highest) <= spread and abs(min(low, high) + part.offset) <= spread else highest


def _argument(part: Part, logits: Array) -> Array:
    """The argument of a part's fold, from logits that are given up for it."""
    if part.scale != 1.0:
        logits *= part.scale
    if part.offset:
        logits += part.offset
    return logits


def _add_negatives(sweep: Sweep, tally: Tally, tile: Tile, parts: tuple[Part, ...]) -> None:
    """Add a tile of negatives to the sums of its rows, and to those of its columns if these are rows, too."""
    xp = sweep.xp
    columns = sweep.column_rows(tile)
    roles = [(tile.rows, 1)] if columns is None else [(tile.rows, 1), (columns, 0)]
    logits = sweep.logits(tile)
    for part in parts:
        t = _argument(part, logits if part is parts[-1] else logits + 0.0)
        if part.fold is not Fold.LOGSUMEXP:
            folded = elementwise.value(xp, part.fold, t)
        elif part in tally.shifts:
            if tally.shifts[part]:
                t -= tally.shifts[part]
            folded = sweep.backend.exp_of(t)
        else:
            for span, axis in roles:
                before = tally.peaks[part][span]
                peak = xp.max(t, axis=axis)
                peak = xp.where(peak > before, peak, before)
                fresh = xp.sum(xp.exp(t - (peak[:, None] if axis else peak[None, :])), axis=axis)
                tally.sums[part][span] = tally.sums[part][span] * xp.exp(before - peak) + fresh
                tally.peaks[part][span] = peak
            continue
        for span, axis in roles:
            tally.sums[part][span] += xp.sum(folded, axis=axis)


def _add(sweep: Sweep, tally: Tally, block: Block, parts: tuple[Part, ...]) -> None:
    """Add some columns of some rows to their sums, under masks."""
    xp, span = sweep.xp, block.span
    for part in parts:
        mask, t = _masked_argument(sweep.loss, block, part, tally.counts, tally.results)
        if part.fold is Fold.LOGSUMEXP:
            before = peak = tally.peaks[part][span]
            if part not in tally.shifts:
                highest = xp.max(xp.where(mask, t, -float("inf")), axis=1)
                peak = xp.where(highest > peak, highest, peak)
            finite = xp.where(peak > -float("inf"), peak, 0.0)
            fresh = xp.sum(xp.where(mask, xp.exp(t - finite[:, None]), 0.0), axis=1)
            tally.sums[part][span] = tally.sums[part][span] * xp.exp(before - finite) + fresh
            tally.peaks[part][span] = peak
            continue
        tally.sums[part][span] += xp.sum(xp.where(mask, elementwise.value(xp, part.fold, t), 0.0), axis=1)
        if part.minus is not None:
            slope = xp.where(mask, elementwise.slope(xp, part.fold, t), 0.0)
            tally.falls[part][span] += part.scale * xp.sum(slope, axis=1)


def _masked_argument(
    loss: PairLoss, block: Block, part: Part, counts: rows.Counts, results: Mapping[str, Array]
) -> tuple[Array, Array]:
    """The pairs of a block that a part sees, and the argument of its fold."""
    mask, t = block.positive if part.over is Pairs.POSITIVE else block.negative, block.logits
    if part.minus is not None:
        reference = next(stage for stage in loss.stages if stage.name == part.minus)
        mask = mask & (counts.over(reference.over)[block.span] > 0.0)[:, None]
        t = t - results[part.minus][block.span][:, None]
    if part.scale != 1.0:
        t = part.scale * t
    return mask, t + part.offset if part.offset else t


def _fall(xp: Namespace, loss: PairLoss, name: str, falls: Mapping[Part, Array], counts: rows.Counts) -> Array:
    """The derivative of a stage with respect to the one that it subtracts."""
    stage = next(stage for stage in loss.stages if stage.name == name)
    size = counts.over(stage.over)
    if stage.fold is Fold.LOGSUMEXP:
        return xp.where(size > 0.0, xp.zeros_like(size) - stage.scale, xp.zeros_like(size))
    total = sum(falls[part] for part in parts_of(stage))
    return -total / xp.where(size == 0.0, xp.ones_like(size), size) if stage.mean else -total


def _weights(sweep: Sweep, statistics: Statistics, row_cotangents: Array) -> dict[Part, Array]:
    loss = sweep.loss
    cotangents = rows.term_cotangents(sweep.xp, loss, statistics.counts, row_cotangents)
    for stage in reversed(loss.stages):
        if stage.minus is not None:
            cotangents[stage.minus] = cotangents[stage.minus] + cotangents[stage.name] * statistics.slopes[stage.name]
    return part_weights(sweep.xp, loss, statistics.results, statistics.peaks, statistics.counts, cotangents)


def _gradients(
    sweep: Sweep, statistics: Statistics, weights: Mapping[Part, Array], needed: frozenset[str]
) -> Gradients:
    xp, backend, logit = sweep.xp, sweep.backend, sweep.loss.logit
    anchors, columns = sweep.anchors.embeddings, sweep.columns.embeddings
    d_anchors = xp.zeros_like(anchors)
    d_columns = d_anchors if sweep.symmetric else xp.zeros_like(columns)
    pulled = moved = xp.sum(anchors[:0, :])  # Σ C and Σ C value(s) / τ, from a 0 of the right dtype
    inside = {part: weight for part, weight in weights.items() if part.over in sweep.halves}
    ends = _ends(sweep, inside)
    for tile in sweep.tiles() if inside else ():
        logits = sweep.unbiased(tile)
        kept = logits + 0.0 if "temperature" in needed else logits  # without the bias, which would round it
        logits = sweep.biased(logits)
        if tile.masked:
            pull = _masked_pull(sweep, tile, logits, statistics, inside)
        elif ends:
            pull = _negative_pull(sweep, tile, logits, statistics, inside, ends)
        else:
            continue
        if "bias" in needed:
            pulled = pulled + xp.sum(pull)
        if "temperature" in needed:
            moved = moved + xp.sum(pull * kept)
        if not logit.unit_slope:
            pull *= logit.slope(xp, sweep.similarities(tile))
        a, b = tile.rows, tile.columns
        if sweep.symmetric and a == b:
            d_anchors[a, :] += backend.product(pull + xp.matrix_transpose(pull), anchors[a, :])
            continue
        if "anchors" in needed:
            d_anchors[a, :] += backend.product(pull, columns[b, :])
        if "keys" in needed or (sweep.symmetric and "anchors" in needed):
            d_columns[b, :] += backend.product(xp.matrix_transpose(pull), anchors[a, :])

    d_partners = None
    if sweep.partners is not None:
        similarity, block = sweep.partner_block()
        own = {part: weight for part, weight in weights.items() if part.over is Pairs.POSITIVE}
        pull = _block_pull(sweep, block, statistics, own)
        pulled = pulled + xp.sum(pull)
        moved = moved + xp.sum(pull * logit.value(xp, similarity)) / sweep.temperature
        pull = pull * logit.slope(xp, similarity)
        if sweep.both_ways:
            pull = pull[: sweep.anchors.rows, :] + pull[sweep.anchors.rows :, :]
        d_anchors += pull * sweep.partners
        if "partners" in needed:
            d_partners = _restored(xp, pull * anchors, sweep.anchors) / sweep.temperature
    return Gradients(
        anchors=_restored(xp, d_anchors, sweep.anchors) / sweep.temperature,
        keys=None if sweep.symmetric else _restored(xp, d_columns, sweep.columns) / sweep.temperature,
        partners=d_partners,
        temperature=-moved / sweep.temperature,
        bias=pulled,
    )


def _ends(sweep: Sweep, weights: Mapping[Part, Array]) -> dict[Part, tuple[Array, Array]]:
    """For each part over negatives `[w, 1]` and `[1, w]`: a product of theirs is the sum of a row's and a column's weight."""
    xp = sweep.xp
    result = {}
    for part, weight in weights.items():
        if part.over is Pairs.NEGATIVE:
            column, ones = weight[:, None], xp.ones_like(weight)[:, None]
            result[part] = (
                xp.concat([column, ones], axis=1),
                xp.matrix_transpose(xp.concat([ones, column], axis=1)),
            )
    return result


def _negative_pull(
    sweep: Sweep,
    tile: Tile,
    logits: Array,
    statistics: Statistics,
    weights: Mapping[Part, Array],
    ends: dict[Part, tuple[Array, Array]],
) -> Array:
    """The derivative of the value by each logit of a tile of negatives, as seen from its rows and from its columns."""
    xp, columns = sweep.xp, sweep.column_rows(tile)
    total: Array = None
    last = next(reversed(ends))
    for part, (left, right) in ends.items():
        t = _argument(part, logits if part is last else logits + 0.0)
        if part.fold is Fold.LOGSUMEXP and part not in statistics.shifts:
            peaks, weight = statistics.peaks[part], weights[part]
            pull = xp.exp(t - peaks[tile.rows][:, None]) * weight[tile.rows][:, None]
            if columns is not None:
                pull += xp.exp(t - peaks[columns][None, :]) * weight[columns][None, :]
        else:
            if part.fold is Fold.LOGSUMEXP:
                if statistics.shifts[part]:
                    t -= statistics.shifts[part]
                pull = sweep.backend.exp_of(t)
            else:
                pull = elementwise.slope(xp, part.fold, t)
            if columns is None:
                pull *= weights[part][tile.rows][:, None]
            else:
                pull *= sweep.backend.product_into(sweep.scratch[1], left[tile.rows, :], right[:, columns])
        total = pull if total is None else total + pull
    return total


def _masked_pull(
    sweep: Sweep, tile: Tile, logits: Array, statistics: Statistics, weights: Mapping[Part, Array]
) -> Array:
    """The same for a tile that has more than negatives."""
    first, *turned = (_block_pull(sweep, block, statistics, weights) for block in sweep.blocks(tile, logits))
    return first + sweep.xp.matrix_transpose(turned[0]) if turned else first


def _block_pull(sweep: Sweep, block: Block, statistics: Statistics, weights: Mapping[Part, Array]) -> Array:
    """The derivative of the value by the logits of a block, as seen from its rows."""
    xp = sweep.xp
    total: Array = None
    for part, weight in weights.items():
        mask, t = _masked_argument(sweep.loss, block, part, statistics.counts, statistics.results)
        if part.fold is Fold.LOGSUMEXP:
            slope = xp.exp(t - statistics.peaks[part][block.span][:, None])
        else:
            slope = elementwise.slope(xp, part.fold, t)
        pull = xp.where(mask, slope * weight[block.span][:, None], 0.0)
        total = pull if total is None else total + pull
    return total


def _restored(xp: Namespace, sorted_rows: Array, side: Side) -> Array:
    """Rows of a side in the order in which they came."""
    return xp.take(sorted_rows, xp.argsort(side.order), axis=0)


def _unsorted(sweep: Sweep, vector: Array) -> Array:
    """Row results of both sides in the order in which the rows came."""
    xp, n = sweep.xp, sweep.anchors.rows
    own = _restored(xp, vector[:n], sweep.anchors)
    return xp.concat([own, _restored(xp, vector[n:], sweep.columns)]) if sweep.both_ways else own


def _sorted(sweep: Sweep, vector: Array) -> Array:
    """The inverse of `_unsorted`."""
    xp, n = sweep.xp, sweep.anchors.rows
    own = xp.take(vector[:n], sweep.anchors.order, axis=0)
    if not sweep.both_ways:
        return own
    return xp.concat([own, xp.take(vector[n:], sweep.columns.order, axis=0)])
