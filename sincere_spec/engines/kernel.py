"""The kernel engine: the tiled engine's sums, each swept by one launch of device code that the backend has.

A program owns a block of rows and goes over all columns, so nothing is added up in an order that depends on timing. For the
gradient it needs of the columns only vectors: where these have losses of their own, `C_ij + C_ji` is made from the statistics
of row i and of row j, and the gradient by the keys is the same sweep with the sides exchanged. Rows are sorted by label, and
a program visits positives only where its labels are. What lies between sweeps is arithmetic on vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sincere_spec.arrays import Array, Namespace
from sincere_spec.engines import rows
from sincere_spec.engines.comparison import Comparison, Gradients, Halves, nothing, ones_by_row, zeros
from sincere_spec.engines.parts import Statistics, kept, levels_of, parts_of, stage_result, stage_slope
from sincere_spec.engines.prune import specialise
from sincere_spec.interface import Backend, Kernels, KernelSpec, LogitCotangents, Panel, Part
from sincere_spec.spec import elementwise
from sincere_spec.spec.words import Fold, PairLoss, Pairs

COUNTS = {pairs: Part(Fold.LINEAR, pairs, 0.0, 1.0, None) for pairs in (Pairs.POSITIVE, Pairs.NEGATIVE)}
"""How many pairs a row has: Σ 0 a + 1."""


@dataclass(frozen=True)
class Side:
    """Rows sorted by label, as kernels multiply them, and their factors; `order` says which is where, unless they came so."""

    rows: Array
    factors: Array
    labels: Array
    ids: Array
    order: Array | None

    def sorted(self, xp: Namespace, x: Array) -> Array:
        """Rows, or a vector by row, in the order of this side."""
        return x if self.order is None else xp.take(x, self.order, axis=0)

    def restored(self, xp: Namespace, x: Array) -> Array:
        """The inverse of `sorted`."""
        return x if self.order is None else xp.take(x, xp.argsort(self.order), axis=0)


@dataclass(frozen=True)
class Sweep:
    """A comparison laid out for kernels."""

    kernels: Kernels
    tile: int
    xp: Namespace
    loss: PairLoss
    comparison: Comparison
    anchors: Side
    columns: Side
    temperature: Array
    bias: Array

    @property
    def symmetric(self) -> bool:
        """Whether the anchors are their own keys."""
        return self.columns is self.anchors

    @property
    def partnered(self) -> bool:
        """Whether each row has its one positive beside the columns."""
        return self.comparison.partners is not None

    @property
    def distinct(self) -> bool:
        """Whether a row's columns of other labels are all its negatives."""
        return self.partnered or self.comparison.distinct

    def alike(self, side: Side, other: Side) -> tuple[Array, Array]:
        """From which to before which column the label is a row's own."""
        first, last = (self.xp.searchsorted(other.labels, side.labels, side=end) for end in ("left", "right"))
        return first, last

    def panel(self, side: Side, other: Side) -> Panel:
        """The rows of one side, to be compared with those of another."""
        first, last = self.alike(side, other)
        return Panel(
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
            self.temperature,
            self.bias,
        )

    def with_losses(self) -> list[tuple[Side, Side, slice]]:
        """The sides whose rows have losses, what they are compared with, and where in a vector by row they are."""
        n = self.anchors.rows.shape[0]
        found = [(self.anchors, self.columns, slice(0, n))]
        return [*found, (self.columns, self.anchors, slice(n, None))] if self.comparison.both_ways else found

    def words(self, parts: Sequence[Part]) -> KernelSpec:
        """The words of a sweep for some parts."""
        return KernelSpec(tuple(parts), self.loss.logit, self.partnered, self.distinct)

    def inside(self, parts: Sequence[Part]) -> list[Part]:
        """The parts that are summed over columns: not those over partners, which are one a row."""
        return [part for part in parts if not self.partnered or part.over is Pairs.NEGATIVE]

    def aligned(self) -> Array:
        """The similarity of every row with a loss to its partner."""
        aligned = self.xp.sum(self.comparison.anchors * self.comparison.partners, axis=1)
        aligned = self.anchors.sorted(self.xp, aligned)
        return self.xp.concat([aligned, aligned], axis=0) if self.comparison.both_ways else aligned

    def unsorted(self, vector: Array) -> Array:
        """A vector by row with a loss, in the order in which the rows came."""
        return self._joined([side.restored(self.xp, vector[span]) for side, _, span in self.with_losses()])

    def laid_out(self, vector: Array) -> Array:
        """The inverse of `unsorted`."""
        return self._joined([side.sorted(self.xp, vector[span]) for side, _, span in self.with_losses()])

    def _joined(self, parts: list[Array]) -> Array:
        return parts[0] if len(parts) == 1 else self.xp.concat(parts, axis=0)


def forward(
    backend: Backend,
    loss: PairLoss,
    comparison: Comparison,
    temperature: float | Array,
    bias: float | Array,
    reduction: str,
    kernels: Kernels,
    tile: int,
) -> tuple[Array, Statistics | None]:
    """The value of a loss, or with the reduction "none" the loss of each row, and what `backward` needs."""
    xp = backend.namespace(comparison.anchors)
    empty = nothing(xp, comparison, temperature, bias)
    if empty is not None:
        return (empty if reduction == "none" else xp.sum(empty)), None
    sweep = _sweep(backend, loss, comparison, temperature, bias, kernels, tile)
    statistics = _statistics(sweep)
    results, counts = statistics.results_of(sweep.loss), statistics.counts
    row_losses = rows.losses(xp, sweep.loss, results, counts)
    if reduction == "none":
        return sweep.unsorted(row_losses), statistics
    return xp.sum(rows.weights(xp, sweep.loss, reduction, counts) * row_losses), statistics


def backward(
    backend: Backend,
    loss: PairLoss,
    comparison: Comparison,
    temperature: float | Array,
    bias: float | Array,
    reduction: str,
    kernels: Kernels,
    tile: int,
    statistics: Statistics | None,
    cotangent: float | Array,
    needed: frozenset[str],
) -> Gradients:
    """The gradient of what `forward` returned, under its cotangent; sweeps that are not needed are not made.

    `needed` has any of "anchors", "keys", "partners", "temperature" and "bias".
    """
    xp = backend.namespace(comparison.anchors)
    if statistics is None:
        return zeros(xp, comparison)
    sweep = _sweep(backend, loss, comparison, temperature, bias, kernels, tile)
    loss, counts = sweep.loss, statistics.counts
    results = statistics.results_of(loss)
    if reduction == "none":
        row_cotangents = rows.without_uncounted(xp, loss, counts, sweep.laid_out(cotangent))
    else:
        row_cotangents = cotangent * rows.weights(xp, loss, reduction, counts)
    weights, peaks = statistics.weights_of(xp, loss, row_cotangents), statistics.peaks_of(loss)
    for part in weights:
        if part.minus is not None:  # against an empty reference a row has no pairs
            weights[part] = xp.where(rows.present(loss, counts)[part.minus], weights[part], 0.0)
    shifts = {part: _shift(xp, part, results, counts.positive) + peaks.get(part, 0.0) for part in weights}
    return _gradients(sweep, weights, shifts, needed)


def _sweep(
    backend: Backend,
    loss: PairLoss,
    comparison: Comparison,
    temperature: float | Array,
    bias: float | Array,
    kernels: Kernels,
    tile: int,
) -> Sweep:
    xp = backend.namespace(comparison.anchors)
    ascending = comparison.partners is not None and comparison.keys is not None

    def side(rows: Array, factors: Array, labels: Array, ids: Array) -> Side:
        if ascending:
            return Side(rows, factors, labels, ids, None)
        order = xp.argsort(labels, stable=True)
        rows, factors, labels, ids = (xp.take(x, order, axis=0) for x in (rows, factors, labels, ids))
        return Side(rows, factors, labels, ids, order)

    anchors, keys = comparison.anchors, comparison.keys
    given = comparison.halves or Halves(
        anchors, keys, ones_by_row(xp, anchors), None if keys is None else ones_by_row(xp, keys)
    )
    anchors = columns = side(given.anchors, given.anchor_factors, comparison.labels, comparison.ids)
    if keys is not None:
        columns = side(given.keys, given.key_factors, comparison.key_labels, comparison.key_ids)
    nil = xp.sum(comparison.anchors[:0, :])
    return Sweep(
        kernels=kernels,
        tile=tile,
        xp=xp,
        loss=specialise(loss, comparison),
        comparison=comparison,
        anchors=anchors,
        columns=columns,
        temperature=nil + temperature,
        bias=nil + bias,
    )


def _statistics(sweep: Sweep) -> Statistics:
    xp, loss = sweep.xp, sweep.loss
    sums: dict[Part, Array] = {}
    peaks: dict[Part, Array] = {}
    slope_sums: dict[Part, Array] = {}
    results: dict[str, Array] = {}
    slopes: dict[str, Array] = {}
    first, *later = levels_of(loss)
    counted = () if sweep.distinct else tuple(COUNTS.values())
    _add_swept(sweep, (*first, *counted), results, sums, peaks, slope_sums)
    counts = _sizes(sweep) if sweep.distinct else rows.Counts(*(sums[part] for part in counted))
    for level in (first, *later):
        if level is not first:
            _add_swept(sweep, level, results, sums, peaks, slope_sums)
        if sweep.partnered:
            for part in level:
                if part.over is Pairs.POSITIVE:
                    sums[part], peaks[part], slope_sums[part] = _of_partners(sweep, part, results, counts)
        for part in level:
            if part.minus is not None:  # against an empty reference a row has no pairs
                present = rows.present(loss, counts)[part.minus]
                sums[part], slope_sums[part] = (xp.where(present, x[part], 0.0) for x in (sums, slope_sums))
                peaks[part] = xp.where(present, peaks[part], -float("inf"))
        for stage in loss.stages:
            if parts_of(stage)[0] in level:
                results[stage.name] = stage_result(xp, loss, stage, sums, peaks, counts)
                if stage.minus is not None:
                    slopes[stage.name] = stage_slope(xp, loss, stage, slope_sums, counts)
    return kept(loss, results, slopes, peaks, counts)


def _sizes(sweep: Sweep) -> rows.Counts:
    """How many positives and negatives each row has, from the sorted labels."""
    xp, found = sweep.xp, []
    for side, other, _ in sweep.with_losses():
        first, last = sweep.alike(side, other)
        found.append(xp.astype(last - first, side.factors.dtype))
    same = found[0] if len(found) == 1 else xp.concat(found, axis=0)
    every = [xp.zeros_like(side.factors) + float(other.rows.shape[0]) for side, other, _ in sweep.with_losses()]
    negative = (every[0] if len(every) == 1 else xp.concat(every, axis=0)) - same
    if sweep.partnered:
        return rows.Counts(xp.ones_like(same), negative)
    return rows.Counts(same - 1.0 if sweep.symmetric else same, negative)


def _add_swept(
    sweep: Sweep,
    level: Sequence[Part],
    results: Mapping[str, Array],
    sums: dict[Part, Array],
    peaks: dict[Part, Array],
    slope_sums: dict[Part, Array],
) -> None:
    """Sweep the columns for the parts of a level."""
    xp, parts = sweep.xp, sweep.inside(level)
    if not parts:
        return
    tallies = []
    for side, other, span in sweep.with_losses():
        own = {name: result[span] for name, result in results.items()}
        shifts = _stacked(xp, [_shift(xp, part, own, side.factors) for part in parts])
        tallies.append(sweep.kernels.tally(sweep.words(parts), sweep.panel(side, other), shifts, sweep.tile))
    for found, made in zip((sums, peaks, slope_sums), zip(*tallies, strict=True), strict=True):
        table = made[0] if len(made) == 1 else xp.concat(made, axis=1)
        found.update({part: table[number, :] for number, part in enumerate(parts)})


def _of_partners(
    sweep: Sweep, part: Part, results: Mapping[str, Array], counts: rows.Counts
) -> tuple[Array, Array, Array]:
    """The tally of a part whose one pair a row is its partner."""
    xp = sweep.xp
    t = _argument(sweep, part, sweep.aligned(), _shift(xp, part, results, counts.positive))
    if part.fold is Fold.LOGSUMEXP:
        return xp.ones_like(t), t, xp.zeros_like(t)
    return elementwise.value(xp, part.fold, t), xp.zeros_like(t), part.scale * elementwise.slope(xp, part.fold, t)


def _argument(sweep: Sweep, part: Part, similarity: Array, shift: Array) -> Array:
    logits = sweep.loss.logit.value(sweep.xp, similarity) / sweep.temperature + sweep.bias
    return part.scale * logits + part.offset - shift


def _shift(xp: Namespace, part: Part, results: Mapping[str, Array], like: Array) -> Array:
    """What a part subtracts from `scale * a + offset` in each row."""
    return xp.zeros_like(like) if part.minus is None else part.scale * results[part.minus]


def _stacked(xp: Namespace, vectors: Sequence[Array]) -> Array:
    return xp.concat([vector[None, :] for vector in vectors], axis=0)


def _gradients(
    sweep: Sweep, weights: Mapping[Part, Array], shifts: Mapping[Part, Array], needed: frozenset[str]
) -> Gradients:
    xp = sweep.xp
    parts = sweep.inside(tuple(weights))
    pulls = {id(side): _pulls(xp, parts, weights, shifts, span) for side, _, span in sweep.with_losses()}
    parameters = bool(needed & {"temperature", "bias"})
    wanted = {
        "anchors": "anchors" in needed or parameters,
        "keys": "keys" in needed or (parameters and sweep.comparison.both_ways),
    }
    pulled = moved = xp.sum(sweep.anchors.factors[:0])
    found: dict[str, Array] = {}
    for name, side, other in (("anchors", sweep.anchors, sweep.columns), ("keys", sweep.columns, sweep.anchors)):
        if not wanted[name] or (name == "keys" and sweep.symmetric):
            continue
        if not parts:
            found[name] = xp.zeros_like(getattr(sweep.comparison, name))
            continue
        own, others = pulls.get(id(side)), pulls.get(id(other))
        gradient, c, c_value = sweep.kernels.pull(sweep.words(parts), sweep.panel(side, other), own, others, sweep.tile)
        found[name] = side.restored(xp, gradient) / sweep.temperature
        if own is not None:
            pulled, moved = pulled + xp.sum(c), moved + xp.sum(c_value)
    if sweep.partnered:
        aligned, logit = sweep.aligned(), sweep.loss.logit
        pull = _pull_of_partners(sweep, aligned, weights, shifts)
        pulled, moved = pulled + xp.sum(pull), moved + xp.sum(pull * logit.value(xp, aligned))
        pull = pull * logit.slope(xp, aligned)
        n = sweep.anchors.rows.shape[0]
        pull = pull[:n] + pull[n:] if sweep.comparison.both_ways else pull
        pull = sweep.anchors.restored(xp, pull)[:, None] / sweep.temperature
        if wanted["anchors"]:
            found["anchors"] = found["anchors"] + pull * sweep.comparison.partners
        if "partners" in needed:
            found["partners"] = pull * sweep.comparison.anchors
    return Gradients(
        anchors=found.get("anchors"),
        keys=found.get("keys"),
        partners=found.get("partners"),
        temperature=-moved / sweep.temperature / sweep.temperature,
        bias=pulled,
    )


def _pull_of_partners(
    sweep: Sweep, aligned: Array, weights: Mapping[Part, Array], shifts: Mapping[Part, Array]
) -> Array:
    """The derivative of the value by the logit of each row and its partner."""
    xp = sweep.xp
    pull = xp.zeros_like(aligned)
    for part, weight in weights.items():
        if part.over is Pairs.POSITIVE:
            t = _argument(sweep, part, aligned, shifts[part])
            slope = xp.exp(t) if part.fold is Fold.LOGSUMEXP else elementwise.slope(xp, part.fold, t)
            pull = pull + xp.where(weight == 0.0, 0.0, slope * weight)
    return pull


def _pulls(
    xp: Namespace,
    parts: Sequence[Part],
    weights: Mapping[Part, Array],
    shifts: Mapping[Part, Array],
    span: slice,
) -> LogitCotangents | None:
    """What the gradient needs of some rows with losses."""
    if not parts:
        return None
    return LogitCotangents(*(_stacked(xp, [x[part][span] for part in parts]) for x in (weights, shifts)))
