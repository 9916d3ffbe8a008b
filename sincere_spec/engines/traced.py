"""The tiled engine for frameworks that trace programs: the same sums in loops of the framework's own.

A traced program has one shape and cannot read labels, so rows are sorted by label and padded to whole tiles, a mark says
which rows are real, and a tile asks at run time whether it needs a mask. Negatives are swept in large tiles, of which most
need none; positives in small ones, along the band where labels of rows and of columns meet, and nowhere else. Where the
anchors are their own keys one triangle is visited, each tile for its rows and for its columns. Nothing here is updated in
place: the compiler does that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from sincere_spec.arrays import Array, Namespace, T
from sincere_spec.engines import rows
from sincere_spec.engines.comparison import Comparison, Gradients, nothing, zeros
from sincere_spec.engines.padded import Side, laid_out, sort_and_pad
from sincere_spec.engines.parts import (
    SPREAD,
    Statistics,
    exponential,
    kept,
    levels_of,
    parts_of,
    stage_result,
    stage_slope,
)
from sincere_spec.engines.prune import specialise
from sincere_spec.interface import Part, TracingBackend
from sincere_spec.spec import elementwise, relations
from sincere_spec.spec.words import Fold, PairLoss, Pairs, Similarity


class Tally(NamedTuple):
    """The running sums of some rows over the pairs of a kind: one for each part, and what belongs to it.

    `peaks` are of the parts whose peak is found on the way, `slope_sums` of those that subtract a stage.
    """

    sums: tuple[Array, ...]
    peaks: tuple[Array, ...]
    slope_sums: tuple[Array, ...]


class Flow(NamedTuple):
    """The running gradient by sorted rows of both sides, Σ C and Σ C value(s); C is the derivative by a logit."""

    anchors: Array
    columns: Array
    pulled: Array
    moved: Array


@dataclass(frozen=True)
class Sweep:
    """A comparison laid out for tiles, and how its logits are made."""

    backend: TracingBackend
    xp: Namespace
    loss: PairLoss
    anchors: Side
    columns: Side
    partners: Array | None
    both_ways: bool
    distinct: bool
    masked: bool
    temperature: Array
    bias: Array
    near: bool

    @property
    def symmetric(self) -> bool:
        """Whether the anchors are their own keys."""
        return self.columns is self.anchors

    @property
    def aligned_with_columns(self) -> bool:
        """Whether each row's partner is the column at its place."""
        return self.partners is self.columns.embeddings

    @property
    def laid(self) -> tuple[Array, ...]:
        """The different arrays of rows, as they lie in tiles."""
        columns = () if self.symmetric else (self.columns.embeddings,)
        partners = () if self.partners is None or self.aligned_with_columns else (self.partners,)
        return (self.anchors.embeddings, *columns, *partners)

    def over(self, laid: tuple[Array, ...]) -> Sweep:
        """The same over rows that are laid out already."""
        first, *others = laid
        anchors = columns = replace(self.anchors, embeddings=first)
        if not self.symmetric:
            columns = replace(self.columns, embeddings=others.pop(0))
        partners = columns.embeddings if self.aligned_with_columns else others.pop(0) if others else None
        return replace(self, anchors=anchors, columns=columns, partners=partners)

    @property
    def both_roles(self) -> bool:
        """Whether the columns of a tile are rows with a loss, too."""
        return self.symmetric or self.both_ways

    @property
    def offset(self) -> Any:
        """Where the statistics of the columns begin."""
        return 0 if self.symmetric else self.anchors.tiles.count * self.anchors.tiles.size

    @property
    def real(self) -> Array:
        """Which of the rows with a loss are no padding."""
        return self.xp.concat([self.anchors.real, self.columns.real], axis=0) if self.both_ways else self.anchors.real

    def shift(self, part: Part) -> Array | None:
        """The largest argument of a part's exponential, if the others are near it; None if its peak must be found."""
        reach = self.loss.logit.reach
        if not self.near or reach is None or part.minus is not None:
            return None
        first, second = (self.argument(part, value / self.temperature + self.bias) for value in reach)
        return self.xp.where(first > second, first, second)

    def seeking(self, part: Part) -> bool:
        """Whether the peak of a part is found on the way."""
        return part.fold is Fold.LOGSUMEXP and (not self.near or part.minus is not None)

    def logits(self, similarity: Array) -> Array:
        """The logits of similarities."""
        return self.loss.logit.value(self.xp, similarity) / self.temperature + self.bias

    def argument(self, part: Part, logits: Array) -> Array:
        """The argument of a part's fold."""
        t = part.scale * logits if part.scale != 1.0 else logits
        return t + part.offset if part.offset else t

    def mask(self, over: Pairs, i: Any, j: Any, size: int) -> Array:
        """The pairs of a kind in a tile; none with padding."""
        at, a, b = self.backend.rows_of, self.anchors, self.columns
        labels, key_labels = at(a.labels, i * size, size)[:, None], at(b.labels, j * size, size)[None, :]
        if self.partners is not None:
            found = relations.beside_partners(labels, key_labels)
        else:
            ids, key_ids = at(a.ids, i * size, size)[:, None], at(b.ids, j * size, size)[None, :]
            positive, negative = relations.by_label(labels, key_labels, ids, key_ids)
            found = positive if over is Pairs.POSITIVE else negative
        return found & (at(a.real, i * size, size)[:, None] & at(b.real, j * size, size)[None, :])


@dataclass(frozen=True)
class Role:
    """Some rows as one of the two roles of a tile, and their part of any vector by row."""

    axis: int
    at: Callable[[Array], Array]

    def along(self, vector: Array) -> Array:
        """Its part of a vector, to be set against a tile."""
        part = self.at(vector)
        return part[:, None] if self.axis else part[None, :]


def fixed_shift_is_safe(loss: PairLoss, temperature: Any, kind: str, unit_rows: bool) -> Any:
    """Whether all logits are so near the largest possible one that exponentials relative to it stay in range."""
    widest = max((abs(part.scale) for part in exponential(loss) if part.minus is None), default=0.0)
    if not widest:
        return True
    reach = loss.logit.reach
    if not unit_rows or reach is None:
        return False
    return widest * (reach[1] - reach[0]) <= SPREAD[kind] * temperature


def forward(
    backend: TracingBackend,
    loss: PairLoss,
    comparison: Comparison,
    temperature: Array,
    bias: Array,
    reduction: str,
    tile: int,
    unit_rows: bool,
    is_near: bool | None,
) -> tuple[Array, Statistics | None]:
    """The value of a loss, or with the reduction "none" the loss of each row, and what `backward` needs.

    `is_near` is the answer of `fixed_shift_is_safe` where it is known; otherwise the temperature is asked at run time.
    """
    xp = backend.namespace(comparison.anchors)
    empty = nothing(xp, comparison, temperature, bias)
    if empty is not None:
        return (empty if reduction == "none" else xp.sum(empty)), None
    sweep = _sweep(backend, loss, comparison, temperature, bias, tile)
    statistics = _either(sweep, unit_rows, is_near, _statistics)._replace(laid=sweep.laid)
    results, counts = statistics.results_of(sweep.loss), statistics.counts
    row_losses = rows.losses(xp, sweep.loss, results, counts)
    if reduction == "none":
        return _unsorted(sweep, row_losses), statistics
    return xp.sum(_row_weights(sweep, reduction, counts) * row_losses), statistics


def backward(
    backend: TracingBackend,
    loss: PairLoss,
    comparison: Comparison,
    temperature: Array,
    bias: Array,
    reduction: str,
    tile: int,
    unit_rows: bool,
    is_near: bool | None,
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
    sweep = _sweep(backend, loss, comparison, temperature, bias, tile).over(statistics.laid)
    loss, counts = sweep.loss, statistics.counts
    if reduction == "none":
        row_cotangents = rows.without_uncounted(xp, loss, counts, _sorted(sweep, cotangent))
    else:
        row_cotangents = cotangent * _row_weights(sweep, reduction, counts)
    weights = statistics.weights_of(xp, loss, row_cotangents)
    found = _either(sweep, unit_rows, is_near, lambda sweep: _gradients(sweep, statistics, weights, needed))
    return Gradients(**{name: found.get(name) for name in ("anchors", "keys", "partners", "temperature", "bias")})


def _either(sweep: Sweep, unit_rows: bool, is_near: bool | None, run: Callable[[Sweep], T]) -> T:
    """What is run on the sweep, told whether logits are near; both ways are there if only the temperature can tell."""
    answer = is_near
    if answer is None:
        kind = sweep.backend.dtype_name(sweep.anchors.embeddings)
        answer = fixed_shift_is_safe(sweep.loss, sweep.temperature, kind, unit_rows)
    if isinstance(answer, bool):
        return run(replace(sweep, near=answer))
    return sweep.backend.when(answer, lambda: run(replace(sweep, near=True)), lambda: run(replace(sweep, near=False)))


def _row_weights(sweep: Sweep, reduction: str, counts: rows.Counts) -> Array:
    """The weight of each sorted row in a scalar reduction; padding is no row."""
    real = rows.Counts(_unsorted(sweep, counts.positive), _unsorted(sweep, counts.negative))
    return _sorted(sweep, rows.weights(sweep.xp, sweep.loss, reduction, real))


def _unsorted(sweep: Sweep, vector: Array) -> Array:
    """A vector by row in the order in which the rows came, without padding."""
    xp = sweep.xp
    own = sweep.anchors.restored(xp, vector)
    if not sweep.both_ways:
        return own
    return xp.concat([own, sweep.columns.restored(xp, vector[sweep.offset :])], axis=0)


def _sorted(sweep: Sweep, vector: Array) -> Array:
    """The inverse of `_unsorted`; padding gets 0."""
    backend = sweep.backend
    if not sweep.both_ways:
        return laid_out(backend, vector, sweep.anchors)
    count = sweep.anchors.length
    own, other = laid_out(backend, vector[:count], sweep.anchors), laid_out(backend, vector[count:], sweep.columns)
    return sweep.xp.concat([own, other], axis=0)


def _sweep(
    backend: TracingBackend, loss: PairLoss, comparison: Comparison, temperature: Array, bias: Array, tile: int
) -> Sweep:
    loss = specialise(loss, comparison)
    partners = comparison.partners
    ascending = partners is not None and comparison.keys is not None  # two views of one batch are one after the other
    anchors = sort_and_pad(backend, comparison.anchors, comparison.labels, comparison.ids, tile, ascending)
    columns = anchors
    if comparison.keys is not None:
        columns = sort_and_pad(backend, comparison.keys, comparison.key_labels, comparison.key_ids, tile, ascending)
    if partners is not None:  # where each row's partner is the key at its place, one array serves as both
        partners = columns.embeddings if partners is comparison.keys else laid_out(backend, partners, anchors)
    return Sweep(
        backend=backend,
        xp=backend.namespace(comparison.anchors),
        loss=loss,
        anchors=anchors,
        columns=columns,
        partners=partners,
        both_ways=comparison.both_ways,
        distinct=comparison.distinct,
        # Equal ids may stand anywhere; a stage over negatives that subtracts another is not the same both ways.
        masked=not comparison.distinct
        or any(part.minus and part.over is Pairs.NEGATIVE for level in levels_of(loss) for part in level),
        temperature=temperature,
        bias=bias,
        near=False,
    )


def _statistics(sweep: Sweep) -> Statistics:
    xp, loss = sweep.xp, sweep.loss
    nil = xp.astype(sweep.real, sweep.anchors.embeddings.dtype) * 0.0
    counts = _sizes(sweep, nil)
    sums: dict[Part, Array] = {}
    peaks: dict[Part, Array] = {}
    slope_sums: dict[Part, Array] = {}
    results: dict[str, Array] = {}
    slopes: dict[str, Array] = {}
    for level in levels_of(loss):
        for over in (Pairs.POSITIVE, Pairs.NEGATIVE):
            parts = tuple(part for part in level if part.over is over)
            if not parts:
                continue
            tally = _tallied(sweep, over, parts, rows.present(loss, counts), results, nil)
            sums |= dict(zip(parts, tally.sums, strict=True))
            peaks |= dict(zip((part for part in parts if sweep.seeking(part)), tally.peaks, strict=True))
            slope_sums |= dict(zip((part for part in parts if _needs_slope_sum(part)), tally.slope_sums, strict=True))
        peaks |= {part: nil + sweep.shift(part) for part in exponential(loss) if part in level and part not in peaks}
        for stage in loss.stages:
            if parts_of(stage)[0] in level:
                results[stage.name] = stage_result(xp, loss, stage, sums, peaks, counts)
                if stage.minus is not None:
                    slopes[stage.name] = stage_slope(xp, loss, stage, slope_sums, counts)
    return kept(loss, results, slopes, peaks, counts)


def _sizes(sweep: Sweep, nil: Array) -> rows.Counts:
    """How many positives and negatives each row has: from the sorted labels, or from masks if equal ids may be anywhere."""
    xp = sweep.xp
    if not sweep.distinct:
        one = {over: Part(Fold.EXP, over, 0.0, 0.0, None) for over in (Pairs.POSITIVE, Pairs.NEGATIVE)}  # exp(0 a)
        return rows.Counts(*(_tallied(sweep, over, (one[over],), {}, {}, nil).sums[0] for over in one))

    def alike(side: Side, other: Side) -> tuple[Array, Array]:
        """How many columns share a row's label, and how many there are; padding is behind them all."""
        length = other.length
        first, last = (xp.searchsorted(other.labels, side.labels, side=end) for end in ("left", "right"))
        same = xp.where(last > length, length, last) - xp.where(first > length, length, first)
        return xp.astype(same, nil.dtype), xp.zeros_like(side.embeddings[:, 0]) + xp.astype(length, nil.dtype)

    sides = [(sweep.anchors, sweep.columns)] + ([(sweep.columns, sweep.anchors)] if sweep.both_ways else [])
    found = [alike(*pair) for pair in sides]
    same, every = (xp.concat(parts, axis=0) for parts in zip(*found, strict=True))
    positive = nil + 1.0 if sweep.partners is not None else same - 1.0 if sweep.symmetric else same
    return rows.Counts(xp.where(sweep.real, positive, 0.0), xp.where(sweep.real, every - same, 0.0))


def _needs_slope_sum(part: Part) -> bool:
    """Whether the sum of a part's slopes is needed besides."""
    return part.minus is not None and part.fold is not Fold.LOGSUMEXP


def _tallied(
    sweep: Sweep,
    over: Pairs,
    parts: tuple[Part, ...],
    present: Mapping[str, Array],
    results: Mapping[str, Array],
    nil: Array,
) -> Tally:
    """The sums of every row over its pairs of a kind."""
    if over is Pairs.POSITIVE and sweep.partners is not None:
        mask = sweep.real[:, None]
        own = Role(1, lambda vector: vector)
        return _summed(sweep, parts, sweep.logits(_aligned(sweep)), mask, own, present, results)

    whole = _blank(sweep, parts, nil)
    grid = sweep.anchors.pieces if over is Pairs.POSITIVE else sweep.anchors.tiles
    size, offset = grid.size, sweep.offset

    def at(tally: Tally, start: Any) -> Tally:
        return _each(lambda x: sweep.backend.rows_of(x, start, size), tally)

    def put(tally: Tally, part: Tally, start: Any) -> Tally:
        return _each(lambda x, y: sweep.backend.with_rows(x, y, start), tally, part)

    def visit(i: Any, j: Any, diagonal: bool, clear: Array | None, state: tuple[Tally, Tally]) -> tuple[Tally, Tally]:
        row, whole = state
        roles = _roles(sweep, i, j, size)[: 1 if diagonal or not sweep.both_roles else 2]

        def summed(masked: bool) -> tuple[Tally, ...]:
            mask = sweep.mask(over, i, j, size) if masked else None
            logits = _logits(sweep, i, j, size)
            return tuple(_summed(sweep, parts, logits, mask, role, present, results) for role in roles)

        fresh = (
            summed(True) if clear is None else sweep.backend.when(clear, lambda: summed(False), lambda: summed(True))
        )
        row = _merged(sweep, parts, row, fresh[0])
        if len(roles) == 2:
            start = offset + j * size
            whole = put(whole, _merged(sweep, parts, at(whole, start), fresh[1]), start)
        return row, whole

    def begin(i: Any, whole: Tally) -> tuple[Tally, Tally]:
        return at(whole, i * size), whole

    def end(i: Any, state: tuple[Tally, Tally]) -> Tally:
        return put(state[1], state[0], i * size)

    tally: Tally = _over_tiles(sweep, over, whole, begin, visit, end)
    return tally


def _over_tiles(
    sweep: Sweep,
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
    band = over is Pairs.POSITIVE
    a = sweep.anchors.pieces if band else sweep.anchors.tiles
    b = sweep.columns.pieces if band else sweep.columns.tiles
    integer = backend.dtype("int32", a.lowest)

    def outer(i: Any, whole: Any) -> Any:
        first = xp.sum(xp.astype(b.highest < backend.rows_of(a.lowest, i, 1), integer))
        last = b.count - xp.sum(xp.astype(b.lowest > backend.rows_of(a.highest, i, 1), integer))
        state = begin(i, whole)
        if sweep.symmetric:
            # This is i, which XLA must not see: a mask of a vector against itself it makes ten times more slowly.
            again = xp.where(i < a.count, i, 0)
            state = visit(i, again, True, None, state)

        def inner(j: Any, state: Any) -> Any:
            clear = None
            if not (band or sweep.masked):
                whole_tile = backend.rows_of(a.whole, i, 1)[0] & backend.rows_of(b.whole, j, 1)[0]
                clear = whole_tile & ((j < first) | (j >= last))
            return visit(i, j, False, clear, state)

        start = i + 1 if sweep.symmetric else first if band else 0
        return end(i, loop(start, last if band else b.count, inner, state))

    return loop(0, a.count, outer, whole)


def _roles(sweep: Sweep, i: Any, j: Any, size: int) -> tuple[Role, Role]:
    """The rows of a tile, and its columns as rows."""
    at, column = sweep.backend.rows_of, sweep.offset + j * size
    return Role(1, lambda vector: at(vector, i * size, size)), Role(0, lambda vector: at(vector, column, size))


def _similarity(sweep: Sweep, i: Any, j: Any, size: int, scale: Any = 1.0) -> Array:
    a = sweep.backend.rows_of(sweep.anchors.embeddings, i * size, size)
    b = sweep.backend.rows_of(sweep.columns.embeddings, j * size, size)
    return sweep.backend.product(a / scale, sweep.xp.matrix_transpose(b))


def _logits(sweep: Sweep, i: Any, j: Any, size: int) -> Array:
    if isinstance(sweep.loss.logit, Similarity):  # no pass over the tile to scale it
        return _similarity(sweep, i, j, size, sweep.temperature) + sweep.bias
    return sweep.logits(_similarity(sweep, i, j, size))


def _aligned(sweep: Sweep) -> Array:
    """The similarity of each row to its partner, as a column."""
    aligned = sweep.xp.sum(sweep.anchors.embeddings * sweep.partners, axis=1, keepdims=True)
    return sweep.xp.concat([aligned, aligned], axis=0) if sweep.both_ways else aligned


def _each(function: Callable[..., Array], *tallies: Tally) -> Tally:
    return Tally(*(tuple(map(function, *fields)) for fields in zip(*tallies, strict=True)))


def _blank(sweep: Sweep, parts: Sequence[Part], nil: Array) -> Tally:
    """The tally of no pairs."""
    return Tally(
        tuple(nil for _ in parts),
        tuple(nil - float("inf") for part in parts if sweep.seeking(part)),
        tuple(nil for part in parts if _needs_slope_sum(part)),
    )


def _merged(sweep: Sweep, parts: Sequence[Part], one: Tally, other: Tally) -> Tally:
    """The tally of the pairs of both."""
    xp = sweep.xp
    sums, peaks = [], []
    found = iter(zip(one.peaks, other.peaks, strict=True))
    for part, x, y in zip(parts, one.sums, other.sums, strict=True):
        if not sweep.seeking(part):
            sums.append(x + y)
            continue
        p, q = next(found)
        peak = xp.where(q > p, q, p)
        finite = xp.where(peak > -float("inf"), peak, 0.0)
        sums.append(x * xp.exp(p - finite) + y * xp.exp(q - finite))
        peaks.append(peak)
    return Tally(tuple(sums), tuple(peaks), tuple(x + y for x, y in zip(one.slope_sums, other.slope_sums, strict=True)))


def _summed(
    sweep: Sweep,
    parts: Sequence[Part],
    logits: Array,
    mask: Array | None,
    role: Role,
    present: Mapping[str, Array],
    results: Mapping[str, Array],
) -> Tally:
    """The tally of a tile, for the rows of one of its roles; without a mask all of its pairs are counted."""
    xp, axis = sweep.xp, role.axis
    sums, peaks, slope_sums = [], [], []
    for part in parts:
        seen, t = _argument(sweep, part, logits, mask, role, present, results)

        def total(x: Array, seen: Array | None = seen) -> Array:
            return xp.sum(x if seen is None else xp.where(seen, x, 0.0), axis=axis)

        if sweep.seeking(part):
            peak = xp.max(t if seen is None else xp.where(seen, t, -float("inf")), axis=axis)
            finite = xp.where(peak > -float("inf"), peak, 0.0)
            sums.append(total(xp.exp(t - (finite[:, None] if axis else finite[None, :]))))
            peaks.append(peak)
        elif part.fold is Fold.LOGSUMEXP:
            sums.append(total(xp.exp(t - sweep.shift(part))))
        else:
            sums.append(total(elementwise.value(xp, part.fold, t)))
            if _needs_slope_sum(part):
                slope_sums.append(part.scale * total(elementwise.slope(xp, part.fold, t)))
    return Tally(tuple(sums), tuple(peaks), tuple(slope_sums))


def _argument(
    sweep: Sweep,
    part: Part,
    logits: Array,
    mask: Array | None,
    role: Role,
    present: Mapping[str, Array],
    results: Mapping[str, Array],
) -> tuple[Array | None, Array]:
    """The pairs of a tile that a part sees from one of its roles, and the argument of its fold."""
    if part.minus is None:
        return mask, sweep.argument(part, logits)
    there = role.along(present[part.minus])
    mask = there if mask is None else mask & there
    return mask, sweep.argument(part, logits - role.along(results[part.minus]))


def _pull(
    sweep: Sweep,
    logits: Array,
    mask: Array | None,
    roles: Sequence[Role],
    statistics: Statistics,
    weights: Mapping[Part, Array],
) -> Array:
    """The derivative of the value by each logit of a tile, as seen from its roles."""
    xp = sweep.xp
    present, results = rows.present(sweep.loss, statistics.counts), statistics.results_of(sweep.loss)
    peaks = statistics.peaks_of(sweep.loss)
    total: Array = None
    for part, weight in weights.items():
        shared = part.minus is None and not sweep.seeking(part)
        for role in roles[:1] if shared else roles:
            seen, t = _argument(sweep, part, logits, mask, role, present, results)
            if part.fold is Fold.LOGSUMEXP:
                slope = xp.exp(t - (sweep.shift(part) if shared else role.along(peaks[part])))
            else:
                slope = elementwise.slope(xp, part.fold, t)
            pull = slope * (sum(each.along(weight) for each in roles) if shared else role.along(weight))
            pull = pull if seen is None else xp.where(seen, pull, 0.0)
            total = pull if total is None else total + pull
    return xp.zeros_like(logits) if total is None else total


def _gradients(
    sweep: Sweep, statistics: Statistics, weights: Mapping[Part, Array], needed: frozenset[str]
) -> dict[str, Array]:
    xp, backend, logit = sweep.xp, sweep.backend, sweep.loss.logit
    anchors, columns = sweep.anchors.embeddings, sweep.columns.embeddings
    linear = logit.unit_slope  # then Euler's relation makes Σ C s of the gradient
    wants_moved = "temperature" in needed and not linear
    wants_pulled = "bias" in needed or ("temperature" in needed and linear and not isinstance(logit, Similarity))
    wants_columns = "keys" in needed and not sweep.symmetric
    wants_anchors = sweep.symmetric or "anchors" in needed or ("temperature" in needed and linear)
    nil = xp.sum(anchors[:0, :])
    flow = Flow(
        xp.zeros_like(anchors) if wants_anchors else anchors[:0, :],
        xp.zeros_like(columns) if wants_columns else columns[:0, :],
        nil,
        nil,
    )

    def swept(flow: Flow, over: Pairs) -> Flow:
        own = {part: weight for part, weight in weights.items() if part.over is over}
        grid = sweep.anchors.pieces if over is Pairs.POSITIVE else sweep.anchors.tiles
        size = grid.size

        def begin(i: Any, flow: Flow) -> tuple[Array, Flow]:
            return (backend.rows_of(flow.anchors, i * size, size) if wants_anchors else nil), flow

        def end(i: Any, state: tuple[Array, Flow]) -> Flow:
            row, flow = state
            return flow._replace(anchors=backend.with_rows(flow.anchors, row, i * size)) if wants_anchors else flow

        def visit(i: Any, j: Any, diagonal: bool, clear: Array | None, state: tuple[Array, Flow]) -> tuple[Array, Flow]:
            row, flow = state
            roles = _roles(sweep, i, j, size)[: 2 if sweep.both_roles else 1]
            similarity = None if isinstance(logit, Similarity) else _similarity(sweep, i, j, size)

            def pulled(masked: bool) -> Array:
                mask = sweep.mask(over, i, j, size) if masked else None
                logits = _logits(sweep, i, j, size) if similarity is None else sweep.logits(similarity)
                return _pull(sweep, logits, mask, roles, statistics, own)

            pull = pulled(True) if clear is None else backend.when(clear, lambda: pulled(False), lambda: pulled(True))
            share = 0.5 if diagonal else 1.0  # the diagonal's pairs are seen twice, from either end
            if wants_pulled:
                flow = flow._replace(pulled=flow.pulled + share * xp.sum(pull))
            if wants_moved:
                flow = flow._replace(moved=flow.moved + share * xp.sum(pull * logit.value(xp, similarity)))
            if not linear:
                pull = pull * logit.slope(xp, similarity)
            a = backend.rows_of(anchors, i * size, size)
            b = backend.rows_of(columns, j * size, size)
            if wants_anchors:
                row = row + backend.product(pull, b)
            if diagonal or not (sweep.symmetric or wants_columns):
                return row, flow
            back = backend.product(xp.matrix_transpose(pull), a)
            whole = flow.anchors if sweep.symmetric else flow.columns
            whole = backend.with_rows(whole, backend.rows_of(whole, j * size, size) + back, j * size)
            return row, flow._replace(**{"anchors" if sweep.symmetric else "columns": whole})

        return _over_tiles(sweep, over, flow, begin, visit, end) if own else flow

    flow = swept(flow, Pairs.NEGATIVE)
    if sweep.partners is None:
        flow = swept(flow, Pairs.POSITIVE)
    if "temperature" in needed and linear:
        along = xp.sum(anchors * flow.anchors)
        moved = 0.5 * along if sweep.symmetric else along
        if not isinstance(logit, Similarity):
            moved = moved + logit.value(xp, nil) * flow.pulled
        flow = flow._replace(moved=moved)
    back: dict[str, Array] = {}
    if sweep.partners is not None:
        aligned = _aligned(sweep)
        own = {part: weight for part, weight in weights.items() if part.over is Pairs.POSITIVE}
        everyone = Role(1, lambda vector: vector)
        pull = _pull(sweep, sweep.logits(aligned), sweep.real[:, None], (everyone,), statistics, own)
        flow = flow._replace(
            pulled=flow.pulled + xp.sum(pull), moved=flow.moved + xp.sum(pull * logit.value(xp, aligned))
        )
        pull = pull * logit.slope(xp, aligned)
        if sweep.both_ways:
            pull = pull[: sweep.offset, :] + pull[sweep.offset :, :]
        if wants_anchors:
            flow = flow._replace(anchors=flow.anchors + pull * sweep.partners)
        if "partners" in needed and sweep.aligned_with_columns:
            flow = flow._replace(columns=flow.columns + pull * anchors)
        elif "partners" in needed:
            back["partners"] = sweep.anchors.restored(xp, pull * anchors) / sweep.temperature
    if wants_anchors:
        back["anchors"] = sweep.anchors.restored(xp, flow.anchors) / sweep.temperature
    if wants_columns:
        back["keys"] = sweep.columns.restored(xp, flow.columns) / sweep.temperature
    return back | {"temperature": -flow.moved / sweep.temperature / sweep.temperature, "bias": flow.pulled}
