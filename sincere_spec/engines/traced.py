"""The tiled engine for frameworks that trace programs: the same sums in loops of the framework's own.

A traced program has one shape and cannot read labels, so rows are sorted by label and padded to whole tiles, a mark says
which rows are real, and a tile asks at run time whether it needs a mask. Negatives are swept in large tiles, of which most
need none; positives in small ones, along the band where labels of rows and of columns meet, and nowhere else. Where the
anchors are their own keys one triangle is visited, each tile for its rows and for its columns. Where columns have no losses
of their own a strip of rows is compared with all of them at once, and its gradient made from the logits that are there.
Nothing here is updated in place: the compiler does that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

from sincere_spec.arrays import Array, Namespace, T
from sincere_spec.engines.comparison import Comparison, Kinds
from sincere_spec.engines.family import PairGradients, RowCotangents, RowSums, StageResults, Visit
from sincere_spec.engines.padded import Grid, PaddedRows, laid_out, padded_rows, sort_and_pad
from sincere_spec.engines.parts import SPREAD, exponential, reach_of
from sincere_spec.engines.prune import specialise
from sincere_spec.engines.rows import weighed_slopes
from sincere_spec.interface import Part, TracingBackend
from sincere_spec.spec import elementwise
from sincere_spec.spec.relations import Attributes
from sincere_spec.spec.words import Fold, PairLoss, Pairs, Similarity

STRIP = 1 << 22
"""How many logits a strip has at most, 16 MB of float32: XLA keeps three or four arrays of as many."""


class TileSums(NamedTuple):
    """The running sums of some rows over the pairs of a kind, in the order of parts: tuples, which every loop can carry.

    `maxima` are of the parts with a running maximum (online softmax), `slope_sums` of those that subtract a stage.
    """

    sums: tuple[Array, ...]
    maxima: tuple[Array, ...]
    slope_sums: tuple[Array, ...]


class Seen(NamedTuple):
    """Which pairs of a tile a sweep sees (None: all), and what they weigh in parts with weights."""

    mask: Array | None = None
    weight: Array | None = None


ALL = Seen()


def _of_kind(kinds: Kinds, over: Pairs, real: Array) -> Seen:
    """The pairs of a kind of which neither end is padding."""
    if over is Pairs.POSITIVE:
        return Seen(kinds.positive & real, kinds.weight)
    return Seen(kinds.negative & real)


class Flow(NamedTuple):
    """The running gradient by sorted rows of both sides, Σ C and Σ C value(s); C is the derivative by a logit."""

    anchors: Array  # [n, d]
    columns: Array  # [m, d]
    sum_dlogits: Array
    sum_dlogits_value: Array


@dataclass(frozen=True)
class TracedSweep:
    """A comparison laid out for tiles, and how its logits are made."""

    comparison: Comparison
    xp: Namespace
    loss: PairLoss
    anchors: PaddedRows
    columns: PaddedRows
    partners: Array | None  # [tiles * tile, d], in the order of the anchors
    matrices: Attributes  # [tiles * tile, tiles * tile] each, in the order of rows and of columns
    fixed_shift: bool | None  # whether `fixed_shift_is_safe`; None asks at run time
    own_programs: bool  # whether each sweep is a compiled program, because the call is none

    @property
    def backend(self) -> TracingBackend:
        """The operations of the framework."""
        return cast(TracingBackend, self.comparison.backend)

    @property
    def partnered(self) -> bool:
        """Whether each row has its one positive beside the columns."""
        return self.partners is not None

    @property
    def both_ways(self) -> bool:
        """Whether keys are rows with a loss, too."""
        return self.comparison.both_ways

    @property
    def symmetric(self) -> bool:
        """Whether the anchors are their own keys."""
        return self.columns is self.anchors

    @property
    def aligned_with_columns(self) -> bool:
        """Whether each row's partner is the column at its place."""
        return self.partners is self.columns.embeddings

    @property
    def laid(self) -> tuple[Any, ...]:
        """The different arrays of rows, as they lie in tiles."""
        columns = () if self.symmetric else self.columns.laid
        partners = () if self.partners is None or self.aligned_with_columns else (self.partners,)
        return self.anchors.laid, columns, partners, dict(self.matrices)

    @property
    def both_roles(self) -> bool:
        """Whether the columns of a tile are rows with a loss, too."""
        return self.symmetric or self.both_ways

    @property
    def offset(self) -> Any:
        """Where the statistics of the columns begin."""
        return 0 if self.symmetric else self.anchors.tiles.count * self.anchors.tiles.size

    @property
    def inside(self) -> Array:
        """Which rows with a loss take part: neither padding nor rows outside, `[rows]`."""
        return self.xp.concat([side.real for side, _ in self.sides], axis=0)

    @property
    def sides(self) -> list[tuple[PaddedRows, PaddedRows]]:
        """The rows that have a loss, and what they are compared with."""
        found = [(self.anchors, self.columns)]
        return [*found, (self.columns, self.anchors)] if self.both_ways else found

    @property
    def nil(self) -> Array:
        """A zero for each row with a loss, `[rows]`; made of embeddings, so that it is on the devices where these are."""
        return self.xp.concat([self.xp.sum(side.embeddings[:, :0], axis=1) for side, _ in self.sides], axis=0)

    def unsorted(self, vector: Array) -> Array:
        """A vector by row in the order in which the rows came, without padding."""
        own = self.anchors.restored(self.xp, vector)
        if not self.both_ways:
            return own
        return self.xp.concat([own, self.columns.restored(self.xp, vector[self.offset :])], axis=0)

    def sorted(self, vector: Array) -> Array:
        """The inverse of `unsorted`; padding gets 0."""
        if not self.both_ways:
            return laid_out(self.backend, vector, self.anchors)
        count = self.anchors.rows
        sides = ((vector[:count], self.anchors), (vector[count:], self.columns))
        return self.xp.concat([laid_out(self.backend, own, side) for own, side in sides], axis=0)

    def partner_similarities(self) -> Array:
        """The similarity of each row to its partner, `[rows]`."""
        similarity = self.xp.sum(self.anchors.embeddings * self.partners, axis=1)
        if not self.both_ways:
            return similarity
        return self.xp.concat([similarity, self.beside_partners(similarity, self.anchors, self.columns)], axis=0)

    def beside_partners(self, vector: Array, side: PaddedRows, other: PaddedRows) -> Array:
        """A vector by row of one side in the order of the other, whose row i is the partner of its row i."""
        return vector if self.aligned_with_columns else laid_out(self.backend, side.restored(self.xp, vector), other)

    def row_sums(self, parts: Sequence[Part], stages: StageResults) -> RowSums:
        """One loop over tiles for positives, one for negatives."""
        keys = _keys_of(parts)
        made = _run(self, _sums_by_part, tuple(parts), stages)
        return RowSums(*(dict(zip(own, x, strict=True)) for own, x in zip(keys, made, strict=True)))

    def in_strips(self, loss: PairLoss, visit: Visit, needed: frozenset[str]) -> tuple[Array, PairGradients] | None:
        """One loop over strips as high as a tile.

        None for too many columns, if their number is known at run time only, and where each sweep is a program.
        """
        columns = self.columns.tiles
        if self.both_roles or self.own_programs or not isinstance(columns.used, int):
            return None
        if self.anchors.tiles.size * columns.count * columns.size > STRIP:
            return None
        return _either(self, lambda sweep: _in_strips(sweep, visit, needed))

    def gradients(self, cotangents: RowCotangents, dpartner: Array | None, needed: frozenset[str]) -> PairGradients:
        """The same loops again, which recompute the logits."""
        parts, bounded = tuple(cotangents.weights), tuple(cotangents.maxima)
        vectors = tuple(cotangents.weights.values()), tuple(cotangents.maxima.values())
        return _run(self, _gradients_by_part, (parts, bounded, needed), *vectors, cotangents.stages, dpartner)

    def shift(self, part: Part) -> Array | None:
        """The largest argument of a part's exponential, if it is a safe shift; None if there is a running maximum."""
        reach = reach_of(self.loss)
        if not self.fixed_shift or reach is None or part.minus is not None:
            return None
        first, second = (
            self.argument(part, value / self.comparison.temperature + self.comparison.bias) for value in reach
        )
        return self.xp.where(first > second, first, second)

    def running(self, part: Part) -> bool:
        """Whether a part has a running maximum."""
        return _is_exponential(part) and (not self.fixed_shift or part.minus is not None)

    def logits(self, similarity: Array, over: Pairs) -> Array:
        """The logits of similarities of a kind of pairs."""
        value = self.loss.logit_of(over).value(self.xp, similarity)
        return value / self.comparison.temperature + self.comparison.bias

    def argument(self, part: Part, logits: Array) -> Array:
        """The argument of a part's fold."""
        t = part.scale * logits if part.scale != 1.0 else logits
        return t + part.offset if part.offset else t

    def swept(self, over: Pairs, parts: tuple[Part, ...], stages: StageResults) -> TileSums:
        """The sums of every row over its pairs of a kind."""
        return _swept(self, over, parts, stages)

    def grid(self, side: PaddedRows, over: Pairs) -> Grid:
        """The tiles of a side in which pairs of a kind are swept: small ones where these are in a band."""
        return side.pieces if over is Pairs.POSITIVE and self.comparison.relation.sorted_by is not None else side.tiles

    def seen(self, over: Pairs, i: Any, j: Any, size: int, from_columns: bool = False) -> Seen:
        """The pairs of a kind in a tile, `[size, size]`, as its columns see them if the relation is not symmetric."""
        a, b, at, across = self.anchors, self.columns, self.backend.rows_of, self.xp.matrix_transpose
        row = {name: at(x, i * size, size) for name, x in a.attributes.items()}
        column = {name: at(x, j * size, size) for name, x in b.attributes.items()}
        real = at(a.real, i * size, size)[:, None] & at(b.real, j * size, size)[None, :]
        here, there = (j, i) if from_columns and self.symmetric else (i, j)  # where in a matrix of pairs
        blocks = {
            name: across(at(across(at(x, here * size, size)), there * size, size)) for name, x in self.matrices.items()
        }
        if from_columns:
            if not self.symmetric:  # of two towers a matrix has the pairs of either direction
                blocks = {name: across(x) for name, x in blocks.items()}
            kinds = Kinds(*(None if x is None else across(x) for x in self.comparison.pairs(column, row, blocks)))
        else:
            kinds = self.comparison.pairs(row, column, blocks)
        return _of_kind(kinds, over, real)


@dataclass(frozen=True)
class TracedStrip(TracedSweep):
    """Some rows against all columns, whose logits stay until the gradient of the rows is made."""

    similarity: Array  # [rows, m]
    logits_of_strip: dict[Pairs, Array]  # [rows, m] each, one array where positives have no logit of their own

    def swept(self, over: Pairs, parts: tuple[Part, ...], stages: StageResults) -> TileSums:
        """The sums of every row over its pairs of a kind."""
        return _summed(self, parts, self.logits_of_strip[over], self.pairs(over), WHOLE, stages)

    def pairs(self, over: Pairs) -> Seen:
        """The pairs of a kind, `[rows, m]`."""
        kinds = self.comparison.pairs(self.anchors.attributes, self.columns.attributes, self.matrices)
        return _of_kind(kinds, over, self.anchors.real[:, None] & self.columns.real[None, :])

    def dsimilarity(self, cotangents: RowCotangents, wanted: Wanted, flow: Flow) -> tuple[Array, Flow]:
        """The derivative by each similarity, `[rows, m]`."""
        made: dict[Pairs, Array] = {}
        for over, logits in self.logits_of_strip.items():
            own = cotangents.over(over)
            if not own.weights:
                continue
            dlogits = _dlogits(self, logits, [self.pairs(over)], [WHOLE], own)
            kind = over if self.loss.positive_logit is not None else Pairs.NEGATIVE
            made[kind] = made[kind] + dlogits if kind in made else dlogits
        total: Array = None
        for kind, dlogits in made.items():
            dlogits, flow = _by_similarity(self, kind, wanted, flow, dlogits, self.similarity)
            total = dlogits if total is None else total + dlogits
        return (self.xp.zeros_like(self.similarity) if total is None else total), flow


@dataclass(frozen=True)
class Role:
    """Some rows as one of the two roles of a tile, and their part of any vector by row."""

    axis: int
    at: Callable[[Array], Array]

    def along(self, vector: Array) -> Array:
        """Its part of a vector, to be set against a tile."""
        part = self.at(vector)
        return part[:, None] if self.axis else part[None, :]


WHOLE = Role(1, lambda vector: vector)
"""All rows of a strip."""


def fixed_shift_is_safe(loss: PairLoss, temperature: Any, kind: str, unit_rows: bool) -> Any:
    """Whether exponentials relative to the largest possible logit stay in range, for all logits."""
    widest = max((abs(part.scale) for part in exponential(loss) if part.minus is None), default=0.0)
    if not widest:
        return True
    reach = reach_of(loss)
    if not unit_rows or reach is None:
        return False
    return widest * (reach[1] - reach[0]) <= SPREAD[kind] * temperature


def _either(sweep: TracedSweep, run: Callable[[TracedSweep], T]) -> T:
    """What is run on the sweep, told whether a fixed shift is safe; both ways if only the temperature can tell."""
    safe = sweep.fixed_shift
    if safe is None:
        kind = sweep.backend.dtype_name(sweep.anchors.embeddings)
        safe = fixed_shift_is_safe(sweep.loss, sweep.comparison.temperature, kind, sweep.comparison.unit_rows)
    if isinstance(safe, bool):
        return run(replace(sweep, fixed_shift=safe))
    first, second = (replace(sweep, fixed_shift=answer) for answer in (True, False))
    return sweep.backend.when(safe, lambda: run(first), lambda: run(second))


def _run(sweep: TracedSweep, function: Callable[..., T], static: Any, *arrays: Any) -> T:
    """A function of a sweep, of what is no array, and of arrays; as a compiled program where each sweep is one."""
    if not sweep.own_programs:
        return _either(sweep, lambda sweep: function(sweep, static, *arrays))
    bare, given = sweep.comparison.static_and_arrays
    key = (function, static, bare, sweep.anchors.tiles.size, sweep.fixed_shift)
    found: T = sweep.backend.run(_of_laid, key, given, sweep.laid, arrays)
    return found


def _of_laid(key: tuple[Any, ...], given: tuple[Any, ...], laid: tuple[Any, ...], arrays: tuple[Any, ...]) -> Any:
    """What a function makes of a sweep that is made again, of arrays that lie in tiles already."""
    function, static, bare, tile, fixed_shift = key
    sweep = lay_out(bare.with_arrays(given), laid, tile, fixed_shift)
    return _either(sweep, lambda sweep: function(sweep, static, *arrays))


def _keys_of(parts: Sequence[Part]) -> tuple[tuple[Part, ...], ...]:
    """The parts of each of a sweep's results."""
    return tuple(parts), tuple(filter(_is_exponential, parts)), tuple(filter(_needs_slope_sum, parts))


def _sums_by_part(sweep: TracedSweep, parts: tuple[Part, ...], stages: StageResults) -> tuple[tuple[Array, ...], ...]:
    found = _row_sums(sweep, parts, stages)  # tuples: a framework may not sort parts
    return tuple(tuple(x[part] for part in own) for x, own in zip(found, _keys_of(parts), strict=True))


def _gradients_by_part(
    sweep: TracedSweep,
    static: tuple[tuple[Part, ...], tuple[Part, ...], frozenset[str]],
    weights: tuple[Array, ...],
    maxima: tuple[Array, ...],
    stages: StageResults,
    dpartner: Array | None,
) -> PairGradients:
    parts, bounded, needed = static
    weighed, relative = (dict(zip(own, x, strict=True)) for own, x in ((parts, weights), (bounded, maxima)))
    return _gradients(sweep, RowCotangents(weighed, relative, stages), dpartner, needed)


def lay_out(
    comparison: Comparison, laid: tuple[Any, ...], tile: int, fixed_shift: bool | None, own_programs: bool = False
) -> TracedSweep:
    """A comparison laid out for tiles of so many rows."""
    backend, xp, loss, partners = comparison.backend, comparison.xp, specialise(comparison), comparison.partners
    inside, across = comparison.inside, comparison.columns_inside
    if laid:
        own, other, given, matrices = laid
        anchors = columns = padded_rows(xp, own, backend.length(comparison.anchors), tile)
        if other:
            columns = padded_rows(xp, other, backend.length(comparison.keys), tile)
        if partners is not None:
            partners = given[0] if given else columns.embeddings
    else:
        ascending = comparison.ascending
        anchors = columns = sort_and_pad(backend, comparison.anchors, comparison.rows, inside, tile, ascending)
        if comparison.keys is not None:
            columns = sort_and_pad(backend, comparison.keys, comparison.columns, across, tile, ascending)
        matrices = {name: _laid_out_matrix(backend, x, anchors, columns) for name, x in comparison.blocks.items()}
        if partners is not None:  # where each row's partner is the key at its place, one array serves as both
            beside = partners is comparison.keys and inside is across
            partners = columns.embeddings if beside else laid_out(backend, partners, anchors)
    return TracedSweep(
        comparison=comparison,
        xp=xp,
        loss=loss,
        anchors=anchors,
        columns=columns,
        partners=partners,
        matrices=matrices,
        fixed_shift=fixed_shift,
        own_programs=own_programs,
    )


def _laid_out_matrix(backend: TracingBackend, x: Array, anchors: PaddedRows, columns: PaddedRows) -> Array:
    """A matrix of pairs with rows and columns sorted and padded as the sides are."""
    across = backend.namespace(x).matrix_transpose
    return across(laid_out(backend, across(laid_out(backend, x, anchors)), columns))


def _row_sums(sweep: TracedSweep, parts: Sequence[Part], stages: StageResults) -> RowSums:
    found = RowSums({}, {}, {})
    for over in (Pairs.POSITIVE, Pairs.NEGATIVE):
        own = tuple(part for part in parts if part.over is over)
        if own:
            keys = (own, filter(sweep.running, own), filter(_needs_slope_sum, own))
            for whole, by_part, made in zip(found, keys, sweep.swept(over, own, stages), strict=True):
                whole.update(zip(by_part, made, strict=True))
    bounded = [part for part in parts if _is_exponential(part) and part not in found.maxima]
    found.maxima.update({part: sweep.nil + sweep.shift(part) for part in bounded})
    return found


def _is_exponential(part: Part) -> bool:
    return part.fold is Fold.LOGSUMEXP


def _needs_slope_sum(part: Part) -> bool:
    """Whether the sum of a part's slopes is needed besides."""
    return part.minus is not None and part.fold is not Fold.LOGSUMEXP


def _swept(sweep: TracedSweep, over: Pairs, parts: tuple[Part, ...], stages: StageResults) -> TileSums:
    """The sums of every row over its pairs of a kind."""
    whole = _no_pairs(sweep, parts)
    size, offset = sweep.grid(sweep.anchors, over).size, sweep.offset

    def at(whole: TileSums, start: Any) -> TileSums:
        return _each(lambda x: sweep.backend.rows_of(x, start, size), whole)

    def put(whole: TileSums, part: TileSums, start: Any) -> TileSums:
        return _each(lambda x, y: sweep.backend.with_rows(x, y, start), whole, part)

    def visit(i: Any, j: Any, diagonal: bool, clear: Array | None, state: Any) -> tuple[TileSums, TileSums]:
        row, whole = state
        roles = _roles(sweep, i, j, size)[: 1 if diagonal or not sweep.both_roles else 2]

        def summed(masked: bool) -> tuple[TileSums, ...]:
            masks = _masks(sweep, over, i, j, size, roles) if masked else [ALL] * len(roles)
            logits = _logits(sweep, over, i, j, size)
            given = zip(masks, roles, strict=True)
            return tuple(_summed(sweep, parts, logits, mask, role, stages) for mask, role in given)

        fresh = (
            summed(True) if clear is None else sweep.backend.when(clear, lambda: summed(False), lambda: summed(True))
        )
        row = _merged(sweep, parts, row, fresh[0])
        if len(roles) == 2:
            start = offset + j * size
            whole = put(whole, _merged(sweep, parts, at(whole, start), fresh[1]), start)
        return row, whole

    def begin(i: Any, whole: TileSums) -> tuple[TileSums, TileSums]:
        return at(whole, i * size), whole

    def end(i: Any, state: tuple[TileSums, TileSums]) -> TileSums:
        return put(state[1], state[0], i * size)

    found: TileSums = _over_tiles(sweep, over, whole, begin, visit, end)
    return found


def _over_tiles(
    sweep: TracedSweep,
    over: Pairs,
    whole: Any,
    begin: Callable[[Any, Any], Any],
    visit: Callable[[Any, Any, bool, Array | None, Any], Any],
    end: Callable[[Any, Any], Any],
) -> Any:
    """Visit every tile that may hold pairs of a kind, row by row of tiles; of a symmetric comparison one triangle.

    `visit(i, j, diagonal, clear, state)` is told whether the tile is on the diagonal of a symmetric comparison, and
    whether it is known to hold negatives only: a truth value of the framework, or None if it needs a mask anyhow.
    """
    xp, backend, loop = sweep.xp, sweep.backend, sweep.backend.loop
    sorted_ = sweep.comparison.relation.sorted_by is not None
    band = over is Pairs.POSITIVE and sorted_
    a, b = sweep.grid(sweep.anchors, over), sweep.grid(sweep.columns, over)
    integer = backend.dtype("int32", a.lowest)

    def outer(i: Any, whole: Any) -> Any:
        first, last = 0, b.used
        if sorted_:
            first = xp.sum(xp.astype(b.highest < backend.rows_of(a.lowest, i, 1), integer))
            last = b.count - xp.sum(xp.astype(b.lowest > backend.rows_of(a.highest, i, 1), integer))
            if b.used is not b.count:
                last = xp.where(last < b.used, last, b.used)
        state = begin(i, whole)
        if sweep.symmetric:
            # This is i, which XLA must not see: a mask of a vector against itself it makes ten times more slowly.
            again = xp.where(i < a.count, i, 0)
            state = visit(i, again, True, None, state)

        def inner(j: Any, state: Any) -> Any:
            clear = None
            if not (band or sweep.comparison.masked):
                whole_tile = backend.rows_of(a.whole, i, 1)[0] & backend.rows_of(b.whole, j, 1)[0]
                clear = whole_tile & ((j < first) | (j >= last))
            return visit(i, j, False, clear, state)

        start = i + 1 if sweep.symmetric else first if band else 0
        return end(i, loop(start, last if band else b.used, inner, state))

    return loop(0, a.used, outer, whole)


def _roles(sweep: TracedSweep, i: Any, j: Any, size: int) -> tuple[Role, Role]:
    """The rows of a tile, and its columns as rows."""
    at, column = sweep.backend.rows_of, sweep.offset + j * size
    return Role(1, lambda vector: at(vector, i * size, size)), Role(0, lambda vector: at(vector, column, size))


def _masks(sweep: TracedSweep, over: Pairs, i: Any, j: Any, size: int, roles: Sequence[Role]) -> list[Seen]:
    """The pairs of a tile, `[size, size]`, as each of its roles sees them."""
    own = sweep.seen(over, i, j, size)
    symmetric = sweep.comparison.relation.symmetric
    return [own if symmetric or role.axis else sweep.seen(over, i, j, size, from_columns=True) for role in roles]


def _similarity(sweep: TracedSweep, i: Any, j: Any, size: int, scale: Any = 1.0) -> Array:
    a = sweep.backend.rows_of(sweep.anchors.embeddings, i * size, size)
    b = sweep.backend.rows_of(sweep.columns.embeddings, j * size, size)
    return sweep.backend.product(a / scale, sweep.xp.matrix_transpose(b))


def _logits(sweep: TracedSweep, over: Pairs, i: Any, j: Any, size: int) -> Array:
    if isinstance(sweep.loss.logit_of(over), Similarity):  # no pass over the tile to scale it
        return _similarity(sweep, i, j, size, sweep.comparison.temperature) + sweep.comparison.bias
    return sweep.logits(_similarity(sweep, i, j, size), over)


def _each(function: Callable[..., Array], *given: TileSums) -> TileSums:
    return TileSums(*(tuple(map(function, *fields)) for fields in zip(*given, strict=True)))


def _no_pairs(sweep: TracedSweep, parts: Sequence[Part]) -> TileSums:
    """The sums over no pairs."""
    nil = sweep.nil
    return TileSums(
        tuple(nil for _ in parts),
        tuple(nil - float("inf") for part in parts if sweep.running(part)),
        tuple(nil for part in parts if _needs_slope_sum(part)),
    )


def _merged(sweep: TracedSweep, parts: Sequence[Part], one: TileSums, other: TileSums) -> TileSums:
    """The sums over the pairs of both; exponentials are rescaled to the larger maximum."""
    xp = sweep.xp
    sums, maxima = [], []
    found = iter(zip(one.maxima, other.maxima, strict=True))
    for part, x, y in zip(parts, one.sums, other.sums, strict=True):
        if not sweep.running(part):
            sums.append(x + y)
            continue
        p, q = next(found)
        maximum = xp.where(q > p, q, p)
        finite = xp.where(maximum > -float("inf"), maximum, 0.0)
        sums.append(x * xp.exp(p - finite) + y * xp.exp(q - finite))
        maxima.append(maximum)
    slope_sums = (x + y for x, y in zip(one.slope_sums, other.slope_sums, strict=True))
    return TileSums(tuple(sums), tuple(maxima), tuple(slope_sums))


def _summed(
    sweep: TracedSweep, parts: Sequence[Part], logits: Array, pairs: Seen, role: Role, stages: StageResults
) -> TileSums:
    """The sums of a tile for the rows of one of its roles; without a mask over all of its pairs."""
    xp, axis = sweep.xp, role.axis
    sums, maxima, slope_sums = [], [], []
    for part in parts:
        seen, t = _argument(sweep, part, logits, pairs.mask, role, stages)
        weight = _weight(part, pairs)

        def total(x: Array, seen: Array | None = seen, weight: Array | None = weight) -> Array:
            x = x if weight is None else weight * x
            return xp.sum(x if seen is None else xp.where(seen, x, 0.0), axis=axis)

        if sweep.running(part):
            maximum = xp.max(t if seen is None else xp.where(seen, t, -float("inf")), axis=axis)
            finite = xp.where(maximum > -float("inf"), maximum, 0.0)
            sums.append(total(xp.exp(t - (finite[:, None] if axis else finite[None, :]))))
            maxima.append(maximum)
        elif part.fold is Fold.LOGSUMEXP:
            sums.append(total(xp.exp(t - sweep.shift(part))))
        else:
            sums.append(total(elementwise.value(xp, part.fold, t)))
            if _needs_slope_sum(part):
                slope_sums.append(part.scale * total(elementwise.slope(xp, part.fold, t)))
    return TileSums(tuple(sums), tuple(maxima), tuple(slope_sums))


def _weight(part: Part, pairs: Seen) -> Array | None:
    """What a part multiplies each pair by; None for 1."""
    return pairs.weight if part.weighted else None


def _argument(
    sweep: TracedSweep, part: Part, logits: Array, mask: Array | None, role: Role, stages: StageResults
) -> tuple[Array | None, Array]:
    """The pairs of a tile that a part sees from one of its roles, and the argument of its fold."""
    if part.minus is None:
        return mask, sweep.argument(part, logits)
    empty = stages.empty[part.minus]
    if empty is not None:
        there = ~role.along(empty)
        mask = there if mask is None else mask & there
    return mask, sweep.argument(part, logits - role.along(stages.values[part.minus]))


def _dlogits(
    sweep: TracedSweep, logits: Array, masks: Sequence[Seen], roles: Sequence[Role], cotangents: RowCotangents
) -> Array:
    """The derivative by each logit of a tile, as seen from its roles, `[tile, tile]`."""
    xp = sweep.xp
    total: Array = None
    for part, weight in cotangents.weights.items():
        shared = part.minus is None and not sweep.running(part) and sweep.comparison.relation.symmetric
        for pairs, role in zip(masks[:1], roles[:1], strict=True) if shared else zip(masks, roles, strict=True):
            seen, t = _argument(sweep, part, logits, pairs.mask, role, cotangents.stages)
            if _is_exponential(part):
                bounded = not sweep.running(part)
                slope = xp.exp(t - (sweep.shift(part) if bounded else role.along(cotangents.maxima[part])))
            else:
                slope = elementwise.slope(xp, part.fold, t)
            share = _weight(part, pairs)
            slope = slope if share is None else share * slope
            along = sum(each.along(weight) for each in roles) if shared else role.along(weight)
            dlogits = weighed_slopes(xp, part.fold, slope, along)
            dlogits = dlogits if seen is None else xp.where(seen, dlogits, 0.0)
            total = dlogits if total is None else total + dlogits
    return xp.zeros_like(logits) if total is None else total


class Wanted(NamedTuple):
    """What of a running gradient is needed. With a slope of 1 Σ C s is Σ anchors * danchors: `_by_euler`."""

    anchors: bool
    columns: bool
    sum_dlogits: bool
    sum_dlogits_value: bool


def _by_euler(loss: PairLoss) -> bool:
    """Whether Σ C s follows from the gradient by the anchors, as Euler's relation has it: one logit, of slope 1."""
    return loss.logit.unit_slope and loss.positive_logit is None


def _wanted(sweep: TracedSweep, needed: frozenset[str]) -> Wanted:
    by_temperature, logit, euler = "temperature" in needed, sweep.loss.logit, _by_euler(sweep.loss)
    return Wanted(
        anchors=sweep.symmetric or "anchors" in needed or (by_temperature and euler),
        columns="keys" in needed and not sweep.symmetric,
        sum_dlogits="bias" in needed or (by_temperature and euler and not isinstance(logit, Similarity)),
        sum_dlogits_value=by_temperature and not euler,
    )


def _no_gradient(sweep: TracedSweep, wanted: Wanted) -> Flow:
    xp, anchors, columns = sweep.xp, sweep.anchors.embeddings, sweep.columns.embeddings  # [n, d], [m, d]
    nil = xp.sum(anchors[:0, :])
    return Flow(
        xp.zeros_like(anchors) if wanted.anchors else anchors[:0, :],
        xp.zeros_like(columns) if wanted.columns else columns[:0, :],
        nil,
        nil,
    )


def _by_similarity(
    sweep: TracedSweep,
    over: Pairs,
    wanted: Wanted,
    flow: Flow,
    dlogits: Array,
    similarity: Array | None,
    share: float = 1.0,
) -> tuple[Array, Flow]:
    """From the derivative by some logits to that by their similarities; the sums of the former are added."""
    xp, logit = sweep.xp, sweep.loss.logit_of(over)
    if wanted.sum_dlogits:
        flow = flow._replace(sum_dlogits=flow.sum_dlogits + share * xp.sum(dlogits))
    if wanted.sum_dlogits_value:
        value = xp.sum(dlogits * logit.value(xp, similarity))
        flow = flow._replace(sum_dlogits_value=flow.sum_dlogits_value + share * value)
    return dlogits if logit.unit_slope else dlogits * logit.slope(xp, similarity), flow


def _gradients(
    sweep: TracedSweep, cotangents: RowCotangents, dpartner: Array | None, needed: frozenset[str]
) -> PairGradients:
    xp, backend, wanted = sweep.xp, sweep.backend, _wanted(sweep, needed)
    anchors, columns = sweep.anchors.embeddings, sweep.columns.embeddings  # [n, d], [m, d]
    nil = xp.sum(anchors[:0, :])

    def swept(flow: Flow, over: Pairs) -> Flow:
        own = cotangents.over(over)
        size = sweep.grid(sweep.anchors, over).size

        def begin(i: Any, flow: Flow) -> tuple[Array, Flow]:
            return (backend.rows_of(flow.anchors, i * size, size) if wanted.anchors else nil), flow

        def end(i: Any, state: tuple[Array, Flow]) -> Flow:
            row, flow = state
            return flow._replace(anchors=backend.with_rows(flow.anchors, row, i * size)) if wanted.anchors else flow

        def visit(i: Any, j: Any, diagonal: bool, clear: Array | None, state: Any) -> tuple[Array, Flow]:
            row, flow = state
            roles = _roles(sweep, i, j, size)[: 2 if sweep.both_roles else 1]
            plain = isinstance(sweep.loss.logit_of(over), Similarity) and not wanted.sum_dlogits_value
            similarity = None if plain else _similarity(sweep, i, j, size)

            def derivative(masked: bool) -> Array:
                masks = _masks(sweep, over, i, j, size, roles) if masked else [ALL] * len(roles)
                logits = _logits(sweep, over, i, j, size) if similarity is None else sweep.logits(similarity, over)
                return _dlogits(sweep, logits, masks, roles, own)

            dlogits = (
                derivative(True)
                if clear is None
                else backend.when(clear, lambda: derivative(False), lambda: derivative(True))
            )
            share = 0.5 if diagonal else 1.0  # the diagonal's pairs are seen twice, from either end
            dlogits, flow = _by_similarity(sweep, over, wanted, flow, dlogits, similarity, share)
            a = backend.rows_of(anchors, i * size, size)
            b = backend.rows_of(columns, j * size, size)
            if wanted.anchors:
                row = row + backend.product(dlogits, b)
            if diagonal or not (sweep.symmetric or wanted.columns):
                return row, flow
            back = backend.product(xp.matrix_transpose(dlogits), a)
            whole = flow.anchors if sweep.symmetric else flow.columns
            whole = backend.with_rows(whole, backend.rows_of(whole, j * size, size) + back, j * size)
            return row, flow._replace(**{"anchors" if sweep.symmetric else "columns": whole})

        return _over_tiles(sweep, over, flow, begin, visit, end) if own.weights else flow

    flow = swept(_no_gradient(sweep, wanted), Pairs.NEGATIVE)
    if sweep.partners is None:
        flow = swept(flow, Pairs.POSITIVE)
    return _finished(sweep, wanted, flow, dpartner, needed)


def _finished(
    sweep: TracedSweep, wanted: Wanted, flow: Flow, dpartner: Array | None, needed: frozenset[str]
) -> PairGradients:
    """The gradient in the order in which rows came, with what partners give."""
    xp, anchors, logit, nil = sweep.xp, sweep.anchors.embeddings, sweep.loss.logit, flow.sum_dlogits * 0.0
    if "temperature" in needed and _by_euler(sweep.loss):
        along = xp.sum(anchors * flow.anchors)
        along = 0.5 * along if sweep.symmetric else along
        if not isinstance(logit, Similarity):
            along = along + logit.value(xp, nil) * flow.sum_dlogits
        flow = flow._replace(sum_dlogits_value=along)
    partners = None
    if dpartner is not None:
        whole = dpartner
        if sweep.both_ways:
            across = sweep.beside_partners(dpartner[sweep.offset :], sweep.columns, sweep.anchors)
            whole = dpartner[: sweep.offset] + across
        if wanted.anchors:
            flow = flow._replace(anchors=flow.anchors + whole[:, None] * sweep.partners)
        if "partners" in needed and sweep.aligned_with_columns:
            flow = flow._replace(columns=flow.columns + whole[:, None] * anchors)
        elif "partners" in needed:
            partners = sweep.anchors.restored(xp, whole[:, None] * anchors)
    return PairGradients(
        anchors=sweep.anchors.restored(xp, flow.anchors) if wanted.anchors else None,
        keys=sweep.columns.restored(xp, flow.columns) if wanted.columns else None,
        partners=partners,
        sum_dlogits=flow.sum_dlogits,
        sum_dlogits_value=flow.sum_dlogits_value,
    )


class StripFlow(NamedTuple):
    """What strips have made so far: by row the losses and the derivative by partners, `[n]`, and the gradient.

    `sum_dlogits` and `sum_dlogits_value` are of rows and their partners.
    """

    losses: Array
    dpartner: Array
    flow: Flow
    sum_dlogits: Array
    sum_dlogits_value: Array


def _in_strips(sweep: TracedSweep, visit: Visit, needed: frozenset[str]) -> tuple[Array, PairGradients]:
    backend, wanted, size = sweep.backend, _wanted(sweep, needed), sweep.anchors.tiles.size
    nil = sweep.xp.sum(sweep.anchors.embeddings[:0, :])

    def add(i: Any, total: StripFlow) -> StripFlow:
        start = i * size
        strip = _strip(sweep, start, size)
        found = visit(strip, lambda vector: backend.rows_of(vector, start, size))
        total = total._replace(losses=backend.with_rows(total.losses, found.losses, start))
        if found.partners is not None:
            total = total._replace(
                dpartner=backend.with_rows(total.dpartner, found.partners.dpartner, start),
                sum_dlogits=total.sum_dlogits + found.partners.sum_dlogits,
                sum_dlogits_value=total.sum_dlogits_value + found.partners.sum_dlogits_value,
            )
        return total._replace(flow=_add_strip(sweep, strip, wanted, total.flow, found.cotangents, start))

    first = StripFlow(sweep.nil, sweep.nil, _no_gradient(sweep, wanted), nil, nil)
    total: StripFlow = backend.loop(0, sweep.anchors.tiles.used, add, first)
    made = _finished(sweep, wanted, total.flow, total.dpartner if sweep.partnered else None, needed)
    return total.losses, made._replace(
        sum_dlogits=made.sum_dlogits + total.sum_dlogits,
        sum_dlogits_value=made.sum_dlogits_value + total.sum_dlogits_value,
    )


def _strip(sweep: TracedSweep, start: Any, size: int) -> TracedStrip:
    """So many rows from `start` on, and their logits."""
    backend, xp, side, logit = sweep.backend, sweep.xp, sweep.anchors, sweep.loss.logit
    rows = replace(
        side,
        embeddings=backend.rows_of(side.embeddings, start, size),
        attributes={name: backend.rows_of(x, start, size) for name, x in side.attributes.items()},
        real=backend.rows_of(side.real, start, size),
    )
    of_positives, across = sweep.loss.positive_logit, xp.matrix_transpose(sweep.columns.embeddings)
    plain = isinstance(logit, Similarity) and of_positives is None
    similarity = backend.product(rows.embeddings / sweep.comparison.temperature if plain else rows.embeddings, across)
    given = {
        "anchors": rows,
        "partners": None if sweep.partners is None else backend.rows_of(sweep.partners, start, size),
        "matrices": {name: backend.rows_of(x, start, size) for name, x in sweep.matrices.items()},
    }
    logits = similarity + sweep.comparison.bias if plain else sweep.logits(similarity, Pairs.NEGATIVE)
    positive = logits if of_positives is None else sweep.logits(similarity, Pairs.POSITIVE)
    by_kind = {Pairs.POSITIVE: positive, Pairs.NEGATIVE: logits}
    return TracedStrip(**vars(sweep) | given, similarity=similarity, logits_of_strip=by_kind)


def _add_strip(
    sweep: TracedSweep, strip: TracedStrip, wanted: Wanted, flow: Flow, cotangents: RowCotangents, start: Any
) -> Flow:
    """Add the gradient of a strip's rows, and what they add to that of the columns."""
    xp, backend = sweep.xp, sweep.backend
    dsimilarity, flow = strip.dsimilarity(cotangents, wanted, flow)
    if wanted.anchors:
        row = backend.product(dsimilarity, sweep.columns.embeddings)  # [rows, d]
        flow = flow._replace(anchors=backend.with_rows(flow.anchors, row, start))
    if wanted.columns:
        back = backend.product(xp.matrix_transpose(dsimilarity), strip.anchors.embeddings)  # [m, d]
        flow = flow._replace(columns=flow.columns + back)
    return flow
