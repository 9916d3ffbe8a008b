"""The tiled engine: the dense engine's numbers from square tiles, with vectors of length N kept between them.

Rows and columns are sorted by label once, so that a tile far from the diagonal holds negatives only and needs no mask.
Elsewhere masks are laid over the few pieces of it where labels meet, and stages over positives touch these alone. Where the
anchors are their own keys, or the keys are anchors too, a tile serves its rows and its columns at once, and of the first
only one triangle is computed. A log-sum-exp is relative to the largest logit there can be, or, where logits are not bounded
or that would underflow, to the running maximum (online softmax).

Tiles are updated in place where the framework can, so this file is for arrays that are not traced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import TypeAlias, cast

from sincere_spec.arrays import Array, Namespace
from sincere_spec.engines.comparison import Comparison, Samples
from sincere_spec.engines.family import PairGradients, RowCotangents, RowSums, StageResults, Visit
from sincere_spec.engines.layout import Piece, RowOrder, Strip, Tile, sort_rows, tiles_of
from sincere_spec.engines.parts import SPREAD, levels_of, shift_of
from sincere_spec.engines.prune import specialise
from sincere_spec.engines.rows import weighed_slopes
from sincere_spec.interface import EagerBackend, Part
from sincere_spec.spec import elementwise
from sincere_spec.spec.relations import Attributes
from sincere_spec.spec.words import Fold, PairLoss, Pairs, Similarity

STRIP, LOWEST_STRIP = 1 << 23, 64
"""How many numbers a strip of rows keeps, 32 MB of float32, and its fewest rows: where fewer fit, logits are made twice.

The fewest rows are a guess, and not measured.
"""

FACTORS = 8
"""How many factors 1 + exp(t) are multiplied before a logarithm is taken, which costs several times as much."""


@dataclass(frozen=True)
class Block:
    """Logits of some rows under masks, and which rows these are of all."""

    span: slice
    logits: Array
    logits_of_positives: Array  # `logits` themselves, unless the loss has others for these
    positive: Array | None  # None: no pair is one
    negative: Array
    weight: Array | None  # of positives; None: 1


Masks: TypeAlias = Sequence[tuple[Piece, Array]]
"""The pieces of a tile that need a mask, and the masks."""


@dataclass(frozen=True)
class TiledSweep:
    """A comparison laid out for tiles."""

    inside = None
    keeps = False

    comparison: Comparison
    xp: Namespace
    loss: PairLoss
    anchors: RowOrder
    columns: RowOrder
    rows: Array  # [n, d], sorted
    keys: Array  # [m, d], sorted; `rows` where the anchors are their own keys
    matrices: Attributes  # [n, m] each, sorted
    aligned: Array | None  # [n], the similarity of each of `rows` to its partner
    scratch: Array  # [tile * tile]
    masked: bool  # whether every tile needs a mask
    shifts: Mapping[Part, float | None]  # what arguments of exponentials can be relative to; None: they are not bounded
    multiplied: frozenset[Part]  # sums of softplus whose exponentials stay in range as products of `FACTORS`

    @property
    def backend(self) -> EagerBackend:
        """The operations of the framework."""
        return cast(EagerBackend, self.comparison.backend)

    @property
    def laid(self) -> tuple[RowOrder, RowOrder]:
        """The order of either side."""
        return self.anchors, self.columns

    @property
    def both_ways(self) -> bool:
        """Whether keys are rows with a loss, too."""
        return self.comparison.both_ways

    @property
    def symmetric(self) -> bool:
        """Whether the anchors are their own keys."""
        return self.columns is self.anchors

    @property
    def total(self) -> int:
        """How many rows have a loss."""
        return self.anchors.length + (self.columns.length if self.both_ways else 0)

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
        offset = 0 if self.symmetric else self.anchors.length
        return slice(columns.start + offset, columns.stop + offset)

    def shift(self, part: Part) -> float | None:
        """What all arguments of a part's exponential are relative to; None for a running maximum."""
        shift: float | None = self.shifts.get(part)
        return shift

    def may_overflow(self, part: Part) -> bool:
        """Whether an exponential that is summed as it is may be infinite."""
        return part.fold is Fold.EXP and self.shift(part) != 0.0

    def similarities(self, piece: Piece) -> Array:
        """The similarities of a piece, in an array that the next one overwrites."""
        return self._product(piece, 1.0)

    def logits(self, piece: Piece) -> Array:
        """The logits of a piece, in an array that the next one may overwrite."""
        return self.biased(self.unbiased(piece))

    def unbiased(self, piece: Piece) -> Array:
        """The same before the bias is added."""
        if isinstance(self.loss.logit, Similarity):  # no pass over the piece to scale it
            return self._product(piece, 1.0 / float(self.comparison.temperature))
        return self.loss.logit.value(self.xp, self.similarities(piece)) / self.comparison.temperature

    def biased(self, logits: Array) -> Array:
        """Logits with the bias, added in place."""
        if not isinstance(self.comparison.bias, float) or self.comparison.bias:
            logits += self.comparison.bias
        return logits

    def _product(self, piece: Piece, scale: float) -> Array:
        across = self.xp.matrix_transpose(self.keys[piece.columns, :])
        return self.backend.product_into(self.room(piece), self.rows[piece.rows, :], across, scale)

    def positive_similarities(self, piece: Piece) -> Array:
        """The similarities of a piece beside its logits, for a logit that positives alone have."""
        return self.backend.product(self.rows[piece.rows, :], self.xp.matrix_transpose(self.keys[piece.columns, :]))

    def room(self, piece: Piece) -> Array:
        """Where the products of a piece are written."""
        return self.scratch

    def keep(self, tile: Tile, part: Part, x: Array) -> None:
        """What a tile's sums of a part over negatives are made of, in arrays that the sweep may leave to the gradient."""

    def blocks(self, tile: Tile, piece: Piece, logits: Array) -> list[Block]:
        """The logits of a piece under masks, as seen from its rows, and from its columns where the tile has two roles."""
        xp, relation = self.xp, self.comparison.relation
        if self.comparison.samples is Samples.DISTINCT and not (self.symmetric and tile.rows == tile.columns):
            relation = relation.apart
        row, column = self.anchors.of(piece.rows), self.columns.of(piece.columns)
        own = {name: x[piece.rows, piece.columns] for name, x in self.matrices.items()}
        positive, of_positives = logits, self.loss.positive_logit
        if of_positives is not None:
            value = of_positives.value(xp, self.positive_similarities(piece))
            positive = value / self.comparison.temperature + self.comparison.bias
        found = [Block(piece.rows, logits, positive, *self.comparison.pairs(row, column, own, relation))]
        if len(self.roles(tile)) == 2:
            if relation.symmetric:
                own_kinds = (found[0].positive, found[0].negative, found[0].weight)
                masks = [None if x is None else xp.matrix_transpose(x) for x in own_kinds]
            else:  # of two towers a matrix has the pairs of either direction
                turned = {
                    name: x[piece.columns, piece.rows] if self.symmetric else xp.matrix_transpose(own[name])
                    for name, x in self.matrices.items()
                }
                masks = [*self.comparison.pairs(column, row, turned, relation)]
            turned_logits = xp.matrix_transpose(logits)
            positive = turned_logits if of_positives is None else xp.matrix_transpose(positive)
            found.append(Block(self._shifted(piece.columns), turned_logits, positive, *masks))
        return found

    def banded(self, tile: Tile, logits: Array) -> list[tuple[Piece, list[Block]]]:
        """The pieces of a tile in which there may be more than negatives, as blocks."""
        return [(piece, self.blocks(tile, piece, piece.of(tile, logits))) for piece in tile.bands]

    def masks(self, tile: Tile, banded: Sequence[tuple[Piece, list[Block]]]) -> Masks:
        """The negatives of these pieces: of blocks that were made already, or by label alone."""
        if banded:
            return [(piece, blocks[0].negative) for piece, blocks in banded]
        rows, columns = self.anchors.labels, self.columns.labels
        return [(piece, rows[piece.rows][:, None] != columns[piece.columns][None, :]) for piece in tile.bands]

    @property
    def partnered(self) -> bool:
        """Whether each row has its one positive beside the columns."""
        return self.aligned is not None

    def partner_similarities(self) -> Array:
        """The similarity of each row to its partner, `[rows]`."""
        aligned = cast(Array, self.aligned)
        if not self.both_ways:
            return aligned
        across = self.of_partners(self.anchors.restored(self.xp, aligned), self.columns.length, 1)
        return self.xp.concat([aligned, self.columns.sorted(self.xp, across)], axis=0)

    def of_partners(self, vector: Array, length: int, number: int) -> Array:
        """A vector by row of one side for the partners of these rows on the other, `[length]`, as both came."""
        places = self.comparison.partner_places
        if places is None:
            return vector
        if 0 in (vector.shape[0], length):
            return self._zeros()[:length]
        return self.xp.take(vector, places[number], axis=0)

    def unsorted(self, vector: Array) -> Array:
        """Row results of both sides in the order in which the rows came."""
        return self._joined((self.anchors.restored, self.columns.restored), vector)

    def sorted(self, vector: Array) -> Array:
        """The inverse of `unsorted`."""
        return self._joined((self.anchors.sorted, self.columns.sorted), vector)

    def _joined(self, moves: Sequence[Callable[..., Array]], vector: Array) -> Array:
        n = self.anchors.length
        own = moves[0](self.xp, vector[:n])
        return self.xp.concat([own, moves[1](self.xp, vector[n:])], axis=0) if self.both_ways else own

    @property
    def sides(self) -> list[tuple[RowOrder, RowOrder]]:
        """The rows that have a loss, and what they are compared with."""
        found = [(self.anchors, self.columns)]
        return [*found, (self.columns, self.anchors)] if self.both_ways else found

    def _zeros(self) -> Array:
        """A zero for each row with a loss."""
        return self.xp.zeros((self.total,), dtype=self.scratch.dtype, device=self.backend.device(self.scratch))

    def row_sums(self, parts: Sequence[Part], stages: StageResults) -> RowSums:
        """One sweep over tiles, for positives and negatives at once."""
        found = RowSums({part: self._zeros() for part in parts}, {}, {part: self._zeros() for part in parts})
        for part in parts:
            if part.fold is Fold.LOGSUMEXP:
                shift = self.shift(part)
                found.maxima[part] = self._zeros() + (-float("inf") if shift is None else shift)
        positive = tuple(part for part in parts if part.over is Pairs.POSITIVE)
        negative = tuple(part for part in parts if part.over is Pairs.NEGATIVE)
        for tile in self.tiles():
            if self.masked:
                for block in self.blocks(tile, tile, self.logits(tile)):
                    _add(self, found, block, positive + negative, stages)
            elif negative:
                logits = self.logits(tile)
                banded = self.banded(tile, logits) if positive else []
                for _, blocks in banded:
                    for block in blocks:
                        _add(self, found, block, positive, stages)
                _add_negatives(self, found, tile, logits, self.masks(tile, banded), negative)
            else:
                for piece in tile.bands:
                    for block in self.blocks(tile, piece, self.logits(piece)):
                        _add(self, found, block, positive, stages)
        return found

    def gradients(self, cotangents: RowCotangents, dpartner: Array | None, needed: frozenset[str]) -> PairGradients:
        """One sweep over tiles, which recomputes their logits."""
        totals = _totals(self, needed)
        _add_gradients(self, cotangents, needed, totals)
        return _finished(self, totals, dpartner, needed)

    def in_strips(self, loss: PairLoss, visit: Visit, needed: frozenset[str]) -> tuple[Array, PairGradients] | None:
        """One sweep by strips, whose logits are made once."""
        strips = self._strips(loss)
        if not strips:
            return None
        xp, totals = self.xp, _totals(self, needed)
        losses, along, sums = [], [], (0.0, 0.0)
        for strip in strips:
            found = visit(strip, itemgetter(strip.span))
            own = replace(totals, anchors=totals.anchors[strip.span, :])
            strip.add_gradients(found.cotangents, needed, own)
            totals.sum_dlogits, totals.sum_dlogits_value = own.sum_dlogits, own.sum_dlogits_value
            losses.append(found.losses)
            if found.partners is not None:
                along.append(found.partners.dpartner)
                sums = (sums[0] + found.partners.sum_dlogits, sums[1] + found.partners.sum_dlogits_value)
        made = _finished(self, totals, xp.concat(along, axis=0) if along else None, needed)
        made = made._replace(sum_dlogits=made.sum_dlogits + sums[0], sum_dlogits_value=made.sum_dlogits_value + sums[1])
        return xp.concat(losses, axis=0), made

    def _strips(self, loss: PairLoss) -> list[StripSweep]:
        if self.symmetric or self.both_ways or 0 in (self.anchors.length, self.columns.length):
            return []
        negatives = sum(part.over is Pairs.NEGATIVE for level in levels_of(loss) for part in level)
        arrays = 1 if self.masked else max(1, negatives)
        size, order = STRIP // (self.columns.length * arrays), self.anchors
        if size < LOWEST_STRIP:
            return []
        if any(strip.rows.stop - strip.rows.start > size for strip in order.strips):
            order = order.cut(size)
        tallest = max(strip.rows.stop - strip.rows.start for strip in order.strips)
        kept = self.backend.scratch(self.rows, tallest * self.columns.length)

        def alone(strip: Strip) -> StripSweep:
            of = strip.rows
            own = {
                "anchors": order.alone(strip),
                "rows": self.rows[of, :],
                "matrices": {name: x[of, :] for name, x in self.matrices.items()},
                "aligned": None if self.aligned is None else self.aligned[of],
            }
            return StripSweep(**vars(self) | own, span=of, logits_of_strip=kept)

        return [alone(strip) for strip in order.strips]


@dataclass(frozen=True)
class StripSweep(TiledSweep):
    """Some rows against all columns: what their sums are made of is kept, and their gradient is made from that.

    Of negatives without masks of their own these are slopes, or arguments of exponentials where a maximum rises to the end;
    where every tile has masks, the logits.
    """

    keeps = True

    span: slice  # which rows these are of all
    logits_of_strip: Array  # [rows * m], one tile after another
    kept: dict[tuple[int, Part], Array] = field(default_factory=dict)
    made: dict[int, Array] = field(default_factory=dict)

    def room(self, piece: Piece) -> Array:
        """The tile's own part of the strip; a piece of a tile is written elsewhere."""
        if not isinstance(piece, Tile):
            return self.scratch
        height = self.anchors.length
        return self.logits_of_strip[height * piece.columns.start : height * piece.columns.stop]

    def _product(self, piece: Piece, scale: float) -> Array:
        if not (self.masked and isinstance(piece, Tile)):
            return super()._product(piece, scale)
        if piece.columns.start not in self.made:
            self.made[piece.columns.start] = super()._product(piece, scale)
        return self.made[piece.columns.start]

    def biased(self, logits: Array) -> Array:
        """Logits with the bias, beside those that are kept."""
        return super().biased(logits + 0.0 if self.masked else logits)

    def keep(self, tile: Tile, part: Part, x: Array) -> None:
        """Keep what a part's sums are made of."""
        self.kept[tile.columns.start, part] = x

    def add_gradients(self, cotangents: RowCotangents, needed: frozenset[str], totals: Totals) -> None:
        """Add the gradient of these rows, and what they add to that of the columns; what is kept is used up."""
        if self.masked:
            _add_gradients(self, cotangents, needed, totals)
        else:
            _add_kept(self, cotangents, needed, totals)


def lay_out(comparison: Comparison, laid: tuple[RowOrder, RowOrder] | tuple[()], tile: int) -> TiledSweep:
    """A comparison laid out for tiles of at most so many rows."""
    backend, xp, loss, alike = comparison.backend, comparison.xp, specialise(comparison), comparison.alike
    views = None if alike is None else 1 if comparison.keys is not None else alike
    if laid:
        anchors, columns = laid
    else:
        anchors = columns = sort_rows(backend, comparison.rows, tile, views)
        if comparison.keys is not None and comparison.columns["label"] is comparison.rows["label"]:
            columns = anchors.beside(xp, comparison.columns)
        elif comparison.keys is not None:
            columns = sort_rows(backend, comparison.columns, tile, views)
    rows = keys = anchors.sorted(xp, comparison.anchors)
    if comparison.keys is not None:
        keys = columns.sorted(xp, comparison.keys)
    aligned: Array = None
    if comparison.partners is not None:
        aligned = anchors.sorted(xp, xp.sum(comparison.anchors * comparison.partners, axis=1))
    return TiledSweep(
        comparison=comparison,
        xp=xp,
        loss=loss,
        anchors=anchors,
        columns=columns,
        rows=rows,
        keys=keys,
        matrices={name: _sorted_matrix(xp, x, anchors, columns) for name, x in comparison.blocks.items()},
        aligned=aligned,
        scratch=backend.scratch(comparison.anchors, min(tile, anchors.length) * min(tile, columns.length)),
        masked=comparison.masked,
        shifts=_shifts(comparison, loss),
        multiplied=_multiplied(comparison, loss),
    )


def _sorted_matrix(xp: Namespace, x: Array, anchors: RowOrder, columns: RowOrder) -> Array:
    """A matrix of pairs in the order of rows and of columns."""
    return xp.matrix_transpose(columns.sorted(xp, xp.matrix_transpose(anchors.sorted(xp, x))))


def _shifts(comparison: Comparison, loss: PairLoss) -> dict[Part, float | None]:
    """What the arguments of each part's exponential can be relative to, on unit rows; None where they are not bounded."""
    if not comparison.unit_rows:
        return {}
    kind = comparison.backend.dtype_name(comparison.anchors)
    temperature, bias = float(comparison.temperature), float(comparison.bias)
    parts = (part for level in levels_of(loss) for part in level if part.fold in (Fold.LOGSUMEXP, Fold.EXP))
    return {part: shift_of(part, loss, temperature, bias, kind) for part in parts}


def _multiplied(comparison: Comparison, loss: PairLoss) -> frozenset[Part]:
    """The sums of softplus over negatives of bounded logits, whose exponentials may be multiplied."""
    found: set[Part] = set()
    if not comparison.unit_rows or loss.logit.reach is None:
        return frozenset(found)
    spread = SPREAD[comparison.backend.dtype_name(comparison.anchors)]
    temperature, bias = float(comparison.temperature), float(comparison.bias)
    for part in (part for level in levels_of(loss) for part in level if part.fold is Fold.SOFTPLUS):
        highest = max(part.scale * (value / temperature + bias) for value in loss.logit.reach) + part.offset
        if part.over is Pairs.NEGATIVE and part.minus is None and highest * FACTORS <= spread:
            found.add(part)
    return frozenset(found)


def _argument(part: Part, logits: Array) -> Array:
    """The argument of a part's fold; may overwrite the logits."""
    if part.scale != 1.0:
        logits *= part.scale
    if part.offset:
        logits += part.offset
    return logits


def _exponential(sweep: TiledSweep, t: Array, shift: float | None) -> Array:
    """`exp(t - shift)`; may overwrite `t`."""
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
    sweep: TiledSweep, found: RowSums, tile: Tile, logits: Array, masks: Masks, parts: tuple[Part, ...]
) -> None:
    """Add a tile to the sums over negatives of its rows, and of its columns if these are rows, too."""
    xp = sweep.xp
    for part in parts:
        t = _argument(part, logits if part is parts[-1] else logits + 0.0)
        if part.fold is Fold.LOGSUMEXP and sweep.shift(part) is None:
            t = _masked(xp, tile, t, masks, -float("inf"))
            for span, axis in sweep.roles(tile):
                _add_exponentials(xp, found, part, span, t, axis)
            sweep.keep(tile, part, t)
            continue
        if part in sweep.multiplied:
            t = _masked(xp, tile, sweep.backend.exp_of(t), masks, 0.0)
            for span, axis in sweep.roles(tile):
                _add_to(found.sums[part], span, _log_of_products(xp, t, axis))
            if sweep.keeps:
                t /= 1.0 + t
                sweep.keep(tile, part, t)
            continue
        exponential = part.fold is Fold.LOGSUMEXP
        folded = _exponential(sweep, t, sweep.shift(part)) if exponential else elementwise.value(xp, part.fold, t)
        folded = _masked(xp, tile, folded, masks, 0.0)
        for span, axis in sweep.roles(tile):
            _add_to(found.sums[part], span, xp.sum(folded, axis=axis))
        if sweep.keeps:
            if not exponential:
                t[...] = _masked(xp, tile, elementwise.slope(xp, part.fold, t), masks, 0.0)
            sweep.keep(tile, part, folded if exponential else t)


def _log_of_products(xp: Namespace, x: Array, axis: int) -> Array:
    """Σ log(1 + x) of positive numbers along an axis, from logarithms of products of `FACTORS` terms.

    1 + (x + y + x y) is (1 + x)(1 + y), and nothing is subtracted: no digit of a small x is lost.
    """
    for _ in range(FACTORS.bit_length() - 1):
        half = x.shape[axis] // 2
        one, other, rest = (
            x[:, span] if axis else x[span, :] for span in (slice(half), slice(half, 2 * half), slice(2 * half, None))
        )
        made = one * other
        made += one
        made += other
        x = made if x.shape[axis] == 2 * half else xp.concat([made, rest], axis=axis)
    return xp.sum(xp.log1p(x), axis=axis)


def _add(sweep: TiledSweep, found: RowSums, block: Block, parts: tuple[Part, ...], stages: StageResults) -> None:
    """Add some columns of some rows to their sums, under masks."""
    xp, span = sweep.xp, block.span
    for part in parts:
        mask, t = _masked_argument(block, part, stages)
        if part.fold is Fold.LOGSUMEXP and sweep.shift(part) is None:
            _add_exponentials(xp, found, part, span, xp.where(mask, t, -float("inf")), 1, block)
            continue
        shift = sweep.shift(part) if part.fold is Fold.LOGSUMEXP else None
        folded = elementwise.value(xp, part.fold, t) if shift is None else xp.exp(t - shift if shift else t)
        _add_to(found.sums[part], span, xp.sum(xp.where(mask, _weighed(part, block, folded), 0.0), axis=1))
        if part.minus is not None and part.fold is not Fold.LOGSUMEXP:
            slope = xp.where(mask, _weighed(part, block, elementwise.slope(xp, part.fold, t)), 0.0)
            _add_to(found.slope_sums[part], span, part.scale * xp.sum(slope, axis=1))


def _weighed(part: Part, block: Block, x: Array) -> Array:
    """An array of a block times the weights of its pairs, where a part sums them so."""
    return block.weight * x if part.weighted else x


def _add_exponentials(
    xp: Namespace, found: RowSums, part: Part, span: slice, t: Array, axis: int, block: Block | None = None
) -> None:
    """Online softmax: the running maximum of some rows, and their sum of exponentials rescaled to it."""
    before = found.maxima[part][span]
    maximum = xp.max(t, axis=axis)
    maximum = xp.where(maximum > before, maximum, before)
    finite = xp.where(maximum > -float("inf"), maximum, 0.0)
    fresh = xp.exp(t - (finite[:, None] if axis else finite[None, :]))
    fresh = xp.sum(fresh if block is None else _weighed(part, block, fresh), axis=axis)
    found.sums[part][span] = found.sums[part][span] * xp.exp(before - finite) + fresh
    found.maxima[part][span] = maximum


def _add_to(vector: Array, span: slice, x: Array) -> None:
    """`vector[span] += x`, which Python would write to the vector a second time."""
    part = vector[span]
    part += x


def _masked_argument(block: Block, part: Part, stages: StageResults) -> tuple[Array, Array]:
    """The pairs of a block that a part sees, and the argument of its fold."""
    positive = part.over is Pairs.POSITIVE
    mask, t = (block.positive, block.logits_of_positives) if positive else (block.negative, block.logits)
    if part.minus is not None:
        empty = stages.empty[part.minus]
        mask = mask if empty is None else mask & ~empty[block.span][:, None]
        t = t - stages.values[part.minus][block.span][:, None]
    if part.scale != 1.0:
        t = part.scale * t
    return mask, t + part.offset if part.offset else t


@dataclass
class Totals:
    """Gradients by sorted rows, and Σ C and Σ C value(s) / temperature, as they grow; C is the derivative by a logit."""

    anchors: Array  # [n, d]
    columns: Array  # [m, d]; `anchors` of a symmetric comparison, None if not needed
    sum_dlogits: Array
    sum_dlogits_value: Array


def _own_partners(sweep: TiledSweep) -> bool:
    """Whether each row's partner is the key at its place: then one sum is for both."""
    return sweep.partnered and sweep.comparison.partners is sweep.comparison.keys


def _totals(sweep: TiledSweep, needed: frozenset[str]) -> Totals:
    """The gradient of nothing."""
    xp, nil = sweep.xp, sweep.xp.sum(sweep.rows[:0, :])
    anchors = xp.zeros_like(sweep.rows)
    columns: Array = anchors if sweep.symmetric else None
    if not sweep.symmetric and ("keys" in needed or (_own_partners(sweep) and "partners" in needed)):
        columns = xp.zeros_like(sweep.keys)
    return Totals(anchors, columns, nil, nil)


def _add_gradients(sweep: TiledSweep, cotangents: RowCotangents, needed: frozenset[str], totals: Totals) -> None:
    """Add the gradient by all tiles, whose logits are made again."""
    xp, backend, logit = sweep.xp, sweep.backend, sweep.loss.logit
    anchors, columns = sweep.rows, sweep.keys  # [n, d], [m, d]
    positive, negative = cotangents.over(Pairs.POSITIVE), cotangents.over(Pairs.NEGATIVE)
    own_logit = sweep.loss.positive_logit is not None
    for tile in sweep.tiles():
        if not (negative.weights or tile.bands):
            continue
        made: list[tuple[Piece, Array]] = []
        logits = sweep.unbiased(tile)
        kept = logits + 0.0 if "temperature" in needed else logits  # without the bias, which would round it
        logits = sweep.biased(logits)
        if sweep.masked:
            blocks = sweep.blocks(tile, tile, logits)
            dlogits = _blocks_dlogits(sweep, blocks, negative if own_logit else cotangents)  # [tile, tile]
            made = [(tile, _blocks_dlogits(sweep, blocks, positive))] if own_logit and positive.weights else []
        else:
            banded = sweep.banded(tile, logits) if positive.weights else []
            made = [(piece, _blocks_dlogits(sweep, blocks, positive)) for piece, blocks in banded]
            dlogits = _negative_dlogits(sweep, tile, logits, sweep.masks(tile, banded), negative)
            if not own_logit:
                _add_pieces(tile, dlogits, made)
        if "bias" in needed:
            totals.sum_dlogits = totals.sum_dlogits + xp.sum(dlogits)
        if "temperature" in needed:
            totals.sum_dlogits_value = totals.sum_dlogits_value + xp.sum(dlogits * kept)
        if not logit.unit_slope:
            dlogits *= logit.slope(xp, sweep.similarities(tile))
        if own_logit:
            _add_pieces(tile, dlogits, [(piece, _of_positives(sweep, piece, x, needed, totals)) for piece, x in made])
        a, b = tile.rows, tile.columns
        if sweep.symmetric and a == b:
            backend.add_product(totals.anchors[a, :], dlogits + xp.matrix_transpose(dlogits), anchors[a, :])
            continue
        if "anchors" in needed:
            backend.add_product(totals.anchors[a, :], dlogits, columns[b, :])
        if "keys" in needed or (sweep.symmetric and "anchors" in needed):
            backend.add_product(totals.columns[b, :], xp.matrix_transpose(dlogits), anchors[a, :])


def _add_pieces(tile: Tile, x: Array, pieces: Sequence[tuple[Piece, Array]]) -> None:
    """Add arrays of pieces of a tile to one of the tile, in place."""
    for piece, part in pieces:
        whole = piece.of(tile, x)
        whole += part


def _of_positives(sweep: TiledSweep, piece: Piece, dlogits: Array, needed: frozenset[str], totals: Totals) -> Array:
    """From the derivative by logits that positives alone have to that by their similarities; sums of the former are added."""
    xp, logit, similarities = sweep.xp, sweep.loss.logit_of(Pairs.POSITIVE), sweep.positive_similarities(piece)
    if "bias" in needed:
        totals.sum_dlogits = totals.sum_dlogits + xp.sum(dlogits)
    if "temperature" in needed:
        value = xp.sum(dlogits * logit.value(xp, similarities)) / sweep.comparison.temperature
        totals.sum_dlogits_value = totals.sum_dlogits_value + value
    return dlogits if logit.unit_slope else dlogits * logit.slope(xp, similarities)


def _add_kept(sweep: StripSweep, cotangents: RowCotangents, needed: frozenset[str], totals: Totals) -> None:
    """Add the gradient of a strip, from what its sums were made of; positives are in bands, which are made again."""
    xp, backend, logit = sweep.xp, sweep.backend, sweep.loss.logit
    anchors, columns, d_anchors = sweep.rows, sweep.keys, totals.anchors  # [t, d], [m, d], [t, d]
    positive, negative = cotangents.over(Pairs.POSITIVE), cotangents.over(Pairs.NEGATIVE)
    own_logit = sweep.loss.positive_logit is not None and bool(positive.weights)
    by_value = "temperature" in needed and (own_logit or not isinstance(logit, Similarity))
    # One part of negatives alone: a row's coefficients have its weight in common, which goes to vectors.
    share: Array = None
    if len(negative.weights) == 1 and not positive.weights and logit.unit_slope and not by_value:
        (share,) = negative.weights.values()
    shared = anchors if share is None else anchors * share[:, None]
    own = d_anchors if share is None else xp.zeros_like(d_anchors)
    for tile in sweep.tiles():
        if not (negative.weights or tile.bands):
            continue
        b, dlogits = tile.columns, _kept_dlogits(sweep, tile, negative, share is None)  # [t, tile]
        made = [
            (piece, _blocks_dlogits(sweep, sweep.blocks(tile, piece, sweep.logits(piece)), positive))
            for piece in (tile.bands if positive.weights else ())
        ]
        if not own_logit:
            _add_pieces(tile, dlogits, made)
        if "bias" in needed:
            by_row = xp.sum(dlogits, axis=1)
            totals.sum_dlogits = totals.sum_dlogits + xp.sum(by_row if share is None else by_row * share)
        if by_value or not logit.unit_slope:
            similarities = sweep.similarities(Piece(tile.rows, b))
            if by_value:
                value = xp.sum(dlogits * logit.value(xp, similarities)) / sweep.comparison.temperature
                totals.sum_dlogits_value = totals.sum_dlogits_value + value
            if not logit.unit_slope:
                dlogits *= logit.slope(xp, similarities)
        if own_logit:
            _add_pieces(tile, dlogits, [(piece, _of_positives(sweep, piece, x, needed, totals)) for piece, x in made])
        backend.add_product(own, dlogits, columns[b, :])
        if "keys" in needed:
            backend.add_product(totals.columns[b, :], xp.matrix_transpose(dlogits), shared)
    if share is not None:
        d_anchors += own * share[:, None]
    if "temperature" in needed and not by_value:  # Σ C s is Σ anchors * danchors
        value = xp.sum(anchors * d_anchors) / sweep.comparison.temperature
        totals.sum_dlogits_value = totals.sum_dlogits_value + value


def _kept_dlogits(sweep: StripSweep, tile: Tile, cotangents: RowCotangents, weighed: bool) -> Array:
    """The derivative by the logits of a tile through its negatives, `[t, tile]`, in place of what was kept."""
    xp = sweep.xp
    total: Array = None
    for part, weight in cotangents.weights.items():
        slope = sweep.kept[tile.columns.start, part]
        if part.fold is Fold.LOGSUMEXP and sweep.shift(part) is None:
            maximum = cotangents.maxima[part]
            slope -= xp.where(maximum > -float("inf"), maximum, 0.0)[:, None]  # what is masked is -inf, and 0 below
            slope = sweep.backend.exp_of(slope)
        if sweep.may_overflow(part):
            slope = xp.where((weight == 0.0)[:, None], 0.0, slope)
        if weighed:
            slope *= weight[:, None]
        total = slope if total is None else total + slope
    return xp.zeros_like(sweep.logits(tile)) if total is None else total


def _finished(sweep: TiledSweep, totals: Totals, dpartner: Array | None, needed: frozenset[str]) -> PairGradients:
    """The gradient in the order in which rows came, with what partners give."""
    xp, comparison, d_partners = sweep.xp, sweep.comparison, None
    anchors = sweep.anchors.restored(xp, totals.anchors)
    keys: Array = None
    if not sweep.symmetric and totals.columns is not None:
        keys = sweep.columns.restored(xp, totals.columns)
    if dpartner is not None:
        n, partners = sweep.anchors.length, cast(Array, comparison.partners)
        own = _own_partners(sweep) and "partners" in needed
        along = sweep.anchors.restored(xp, dpartner[:n])
        if sweep.both_ways:
            along = along + sweep.of_partners(sweep.columns.restored(xp, dpartner[n:]), n, 0)
        along = along[:, None]  # [n, 1]
        for here in (strip.rows for strip in sweep.anchors.strips):
            anchors[here, :] += along[here, :] * partners[here, :]
            if own:
                keys[here, :] += along[here, :] * comparison.anchors[here, :]
        if "partners" in needed and not own:
            d_partners = along * comparison.anchors
    return PairGradients(
        anchors=anchors,
        keys=keys,
        partners=d_partners,
        sum_dlogits=totals.sum_dlogits,
        sum_dlogits_value=totals.sum_dlogits_value * comparison.temperature,  # tiles have value(s) / temperature
    )


def _negative_dlogits(sweep: TiledSweep, tile: Tile, logits: Array, masks: Masks, cotangents: RowCotangents) -> Array:
    """The derivative by the logits of a tile through its negatives, from its rows and its columns, `[tile, tile]`."""
    xp = sweep.xp
    (rows_, _), *others = sweep.roles(tile)
    total: Array = None
    for number, (part, weight) in enumerate(cotangents.weights.items(), 1):
        t = _argument(part, logits if number == len(cotangents.weights) else logits + 0.0)
        if part.fold is Fold.LOGSUMEXP and sweep.shift(part) is None:
            maximum = cotangents.maxima[part]
            dlogits = xp.exp(t - maximum[rows_][:, None]) * weight[rows_][:, None]
            for columns, _ in others:
                dlogits += xp.exp(t - maximum[columns][None, :]) * weight[columns][None, :]
        else:
            exponential = part.fold is Fold.LOGSUMEXP
            dlogits = _exponential(sweep, t, sweep.shift(part)) if exponential else elementwise.slope(xp, part.fold, t)
            both = weight[rows_][:, None]
            for columns, _ in others:
                both = both + weight[columns][None, :]
            if sweep.may_overflow(part):
                dlogits = weighed_slopes(xp, part.fold, dlogits, both)
            else:
                dlogits *= both
        total = dlogits if total is None else total + dlogits
    return xp.zeros_like(logits) if total is None else _masked(xp, tile, total, masks, 0.0)


def _blocks_dlogits(sweep: TiledSweep, blocks: Sequence[Block], cotangents: RowCotangents) -> Array:
    """The same of some logits under masks, as seen from their rows, and from their columns turned."""
    first, *turned = (_block_dlogits(sweep, block, cotangents) for block in blocks)
    return first + sweep.xp.matrix_transpose(turned[0]) if turned else first


def _block_dlogits(sweep: TiledSweep, block: Block, cotangents: RowCotangents) -> Array:
    xp = sweep.xp
    total: Array = None
    for part, weight in cotangents.weights.items():
        mask, t = _masked_argument(block, part, cotangents.stages)
        if part.fold is Fold.LOGSUMEXP:
            slope = xp.exp(t - cotangents.maxima[part][block.span][:, None])
        else:
            slope = elementwise.slope(xp, part.fold, t)
        dlogits = weighed_slopes(xp, part.fold, _weighed(part, block, slope), weight[block.span][:, None])
        dlogits = xp.where(mask, dlogits, 0.0)
        total = dlogits if total is None else total + dlogits
    return xp.zeros_like(block.logits) if total is None else total
