"""The kernel engine: the tiled engine's sums, each swept by one launch of device code that the backend has.

A program owns a block of rows and goes over all columns, so nothing is added up in an order that depends on timing. For the
gradient it needs of the columns only vectors: where these have losses of their own, `C_ij + C_ji` is made from the statistics
of row i and of row j, and the gradient by the keys is the same sweep with the sides exchanged. Rows are sorted by label, and
a program visits positives only where its labels are. What lies between sweeps is arithmetic on vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sincere_spec import elementwise
from sincere_spec.engines import rows
from sincere_spec.engines.comparison import Comparison, Gradients, nothing, specialise, zeros
from sincere_spec.engines.parts import levels_of, part_weights, parts_of, stage_result, stage_slope
from sincere_spec.protocol import Fold, PairLoss, Pairs
from sincere_spec.sweeps import Kernels, Panel, Part, Pulls, Words
from sincere_spec.types import Array, Backend, Namespace

COUNTS = {pairs: Part(Fold.LINEAR, pairs, 0.0, 1.0, None) for pairs in (Pairs.POSITIVE, Pairs.NEGATIVE)}
"""How many pairs a row has: Σ 0 a + 1."""


class Statistics(NamedTuple):
    """What a forward pass keeps: vectors by row, in tuples that every framework can pass on."""

    results: tuple[Array, ...]
    slopes: tuple[Array, ...]
    peaks: tuple[Array, ...]
    positive: Array
    negative: Array


@dataclass(frozen=True)
class Side:
    """Rows, sorted by label unless nobody asks where a label is; `order` says which row is where."""

    embeddings: Array
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
    anchors: Side
    columns: Side
    partners: Array | None
    both_ways: bool
    temperature: Array
    bias: Array

    @property
    def symmetric(self) -> bool:
        """Whether the anchors are their own keys."""
        return self.columns is self.anchors

    def panel(self, side: Side, other: Side) -> Panel:
        """The rows of one side, to be compared with those of another."""
        first = last = side.labels  # with partners nobody asks
        if self.partners is None:
            first, last = (self.xp.searchsorted(other.labels, side.labels, side=end) for end in ("left", "right"))
        return Panel(
            side.embeddings,
            other.embeddings,
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
        n = self.anchors.embeddings.shape[0]
        found = [(self.anchors, self.columns, slice(0, n))]
        return [*found, (self.columns, self.anchors, slice(n, None))] if self.both_ways else found

    def words(self, parts: Sequence[Part]) -> Words:
        """The words of a sweep for some parts."""
        return Words(tuple(parts), self.loss.logit, self.partners is not None)

    def inside(self, parts: Sequence[Part]) -> list[Part]:
        """The parts that are summed over columns: not those over partners, which are one a row."""
        return [part for part in parts if self.partners is None or part.over is Pairs.NEGATIVE]

    def aligned(self) -> Array:
        """The similarity of every row with a loss to its partner."""
        aligned = self.xp.sum(self.anchors.embeddings * self.partners, axis=1)
        return self.xp.concat([aligned, aligned], axis=0) if self.both_ways else aligned

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
    results, counts = _results(sweep.loss, statistics), _counts(statistics)
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
    loss, counts = sweep.loss, _counts(statistics)
    results = _results(loss, statistics)
    if reduction == "none":
        row_cotangents = rows.without_uncounted(xp, loss, counts, sweep.laid_out(cotangent))
    else:
        row_cotangents = cotangent * rows.weights(xp, loss, reduction, counts)
    slopes = dict(zip((stage.name for stage in loss.stages if stage.minus), statistics.slopes, strict=True))
    peaks = dict(zip(_exponential(loss), statistics.peaks, strict=True))
    weights = part_weights(xp, loss, results, slopes, peaks, counts, row_cotangents)
    for part in weights:
        if part.minus is not None:  # against an empty reference a row has no pairs
            weights[part] = xp.where(_present(loss, counts, part), weights[part], 0.0)
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

    def side(embeddings: Array, labels: Array, ids: Array) -> Side:
        if comparison.partners is not None:
            return Side(embeddings, labels, ids, None)
        order = xp.argsort(labels, stable=True)
        embeddings, labels, ids = (xp.take(x, order, axis=0) for x in (embeddings, labels, ids))
        return Side(embeddings, labels, ids, order)

    anchors = side(comparison.anchors, comparison.labels, comparison.ids)
    columns = anchors
    if comparison.keys is not None:
        columns = side(comparison.keys, comparison.key_labels, comparison.key_ids)
    nil = xp.sum(comparison.anchors[:0, :])
    return Sweep(
        kernels=kernels,
        tile=tile,
        xp=xp,
        loss=specialise(loss, comparison),
        anchors=anchors,
        columns=columns,
        partners=comparison.partners,
        both_ways=comparison.both_ways,
        temperature=nil + temperature,
        bias=nil + bias,
    )


def _statistics(sweep: Sweep) -> Statistics:
    xp, loss = sweep.xp, sweep.loss
    sums: dict[Part, Array] = {}
    peaks: dict[Part, Array] = {}
    falls: dict[Part, Array] = {}
    results: dict[str, Array] = {}
    slopes: dict[str, Array] = {}
    first, *later = levels_of(loss)
    _add_swept(sweep, (*first, *COUNTS.values()), results, sums, peaks, falls)
    negative = sums[COUNTS[Pairs.NEGATIVE]]
    counts = rows.Counts(
        xp.ones_like(negative) if sweep.partners is not None else sums[COUNTS[Pairs.POSITIVE]], negative
    )
    for level in (first, *later):
        if level is not first:
            _add_swept(sweep, level, results, sums, peaks, falls)
        if sweep.partners is not None:
            for part in level:
                if part.over is Pairs.POSITIVE:
                    sums[part], peaks[part], falls[part] = _of_partners(sweep, part, results, counts)
        for part in level:
            if part.minus is not None:  # against an empty reference a row has no pairs
                present = _present(loss, counts, part)
                sums[part], falls[part] = (xp.where(present, x[part], 0.0) for x in (sums, falls))
                peaks[part] = xp.where(present, peaks[part], -float("inf"))
        for stage in loss.stages:
            if parts_of(stage)[0] in level:
                results[stage.name] = stage_result(xp, stage, sums, peaks, counts)
                if stage.minus is not None:
                    slopes[stage.name] = stage_slope(xp, stage, falls, counts)
    return Statistics(
        tuple(results[stage.name] for stage in loss.stages),
        tuple(slopes[stage.name] for stage in loss.stages if stage.minus),
        tuple(peaks[part] for part in _exponential(loss)),
        counts.positive,
        counts.negative,
    )


def _add_swept(
    sweep: Sweep,
    level: Sequence[Part],
    results: Mapping[str, Array],
    sums: dict[Part, Array],
    peaks: dict[Part, Array],
    falls: dict[Part, Array],
) -> None:
    """Sweep the columns for the parts of a level."""
    xp, parts = sweep.xp, sweep.inside(level)
    if not parts:
        return
    tallies = []
    for side, other, span in sweep.with_losses():
        like = xp.sum(side.embeddings[:, :0], axis=1)
        own = {name: result[span] for name, result in results.items()}
        shifts = _stacked(xp, [_shift(xp, part, own, like) for part in parts])
        tallies.append(sweep.kernels.tally(sweep.words(parts), sweep.panel(side, other), shifts, sweep.tile))
    for found, made in zip((sums, peaks, falls), zip(*tallies, strict=True), strict=True):
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


def _present(loss: PairLoss, counts: rows.Counts, part: Part) -> Array:
    """Which rows have pairs in the stage that a part subtracts."""
    reference = next(stage for stage in loss.stages if stage.name == part.minus)
    return counts.over(reference.over) > 0.0


def _stacked(xp: Namespace, vectors: Sequence[Array]) -> Array:
    return xp.concat([vector[None, :] for vector in vectors], axis=0)


def _exponential(loss: PairLoss) -> list[Part]:
    return [part for level in levels_of(loss) for part in level if part.fold is Fold.LOGSUMEXP]


def _results(loss: PairLoss, statistics: Statistics) -> dict[str, Array]:
    return dict(zip((stage.name for stage in loss.stages), statistics.results, strict=True))


def _counts(statistics: Statistics) -> rows.Counts:
    return rows.Counts(statistics.positive, statistics.negative)


def _gradients(
    sweep: Sweep, weights: Mapping[Part, Array], shifts: Mapping[Part, Array], needed: frozenset[str]
) -> Gradients:
    xp = sweep.xp
    parts = sweep.inside(tuple(weights))
    pulls = {id(side): _pulls(xp, parts, weights, shifts, span) for side, _, span in sweep.with_losses()}
    parameters = bool(needed & {"temperature", "bias"})
    wanted = {
        "anchors": "anchors" in needed or parameters,
        "keys": "keys" in needed or (parameters and sweep.both_ways),
    }
    pulled = moved = xp.sum(sweep.anchors.embeddings[:0, :])
    found: dict[str, Array] = {}
    for name, side, other in (("anchors", sweep.anchors, sweep.columns), ("keys", sweep.columns, sweep.anchors)):
        if not wanted[name] or (name == "keys" and sweep.symmetric):
            continue
        if not parts:
            found[name] = xp.zeros_like(side.embeddings)
            continue
        own, others = pulls.get(id(side)), pulls.get(id(other))
        gradient, c, c_value = sweep.kernels.pull(sweep.words(parts), sweep.panel(side, other), own, others, sweep.tile)
        found[name] = gradient / sweep.temperature
        if own is not None:
            pulled, moved = pulled + xp.sum(c), moved + xp.sum(c_value)
    if sweep.partners is not None:
        aligned, logit = sweep.aligned(), sweep.loss.logit
        pull = _pull_of_partners(sweep, aligned, weights, shifts)
        pulled, moved = pulled + xp.sum(pull), moved + xp.sum(pull * logit.value(xp, aligned))
        pull = pull * logit.slope(xp, aligned)
        n = sweep.anchors.embeddings.shape[0]
        pull = (pull[:n] + pull[n:] if sweep.both_ways else pull)[:, None] / sweep.temperature
        if wanted["anchors"]:
            found["anchors"] = found["anchors"] + pull * sweep.partners
        if "partners" in needed:
            found["partners"] = pull * sweep.anchors.embeddings
    return Gradients(
        anchors=sweep.anchors.restored(xp, found["anchors"]) if "anchors" in found else None,
        keys=sweep.columns.restored(xp, found["keys"]) if "keys" in found else None,
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
) -> Pulls | None:
    """What the gradient needs of some rows with losses."""
    if not parts:
        return None
    return Pulls(*(_stacked(xp, [x[part][span] for part in parts]) for x in (weights, shifts)))
