"""Value and gradient of a loss from sweeps over its pairs: the algorithm, once, for every engine that works in tiles.

    forward    counts -> for each level of stages: a sweep of row sums, then the stages -> row losses -> value
    backward   row cotangents -> the weight of each part -> a sweep that recomputes the logits -> gradients

As in FlashAttention (Dao et al., arXiv 2205.14135) only vectors by row are kept between the two: the residuals. An engine
supplies a `Sweep`: how rows lie in memory, and how tiles of pairs are visited. All arithmetic on vectors by row is here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol, TypeAlias

from sincere_spec.arrays import Array, Namespace
from sincere_spec.engines import rows
from sincere_spec.engines.comparison import Comparison, Gradients, Samples, nothing, zeros
from sincere_spec.engines.parts import Residuals, levels_of, parts_of, residuals_of, stage_result, stage_slope
from sincere_spec.engines.prune import prune_terms
from sincere_spec.interface import Part
from sincere_spec.spec import elementwise
from sincere_spec.spec.words import Fold, PairLoss, Pairs


class RowSums(NamedTuple):
    """By part, `[rows]`: Σ ψ(t), for LOGSUMEXP relative to the maximum; this; Σ scale ψ′(t) if the part subtracts a stage."""

    sums: dict[Part, Array]
    maxima: dict[Part, Array]
    slope_sums: dict[Part, Array]


class StageResults(NamedTuple):
    """By earlier stage, `[rows]`: its result, and which rows have no pairs in it; None if all have."""

    values: dict[str, Array]
    empty: dict[str, Array | None]


class RowCotangents(NamedTuple):
    """By part, `[rows]`: a pair's logit has the derivative C = Σ weight ψ′(t), with ψ′ = exp(t - maximum) for LOGSUMEXP."""

    weights: Mapping[Part, Array]
    maxima: Mapping[Part, Array]
    stages: StageResults

    def over(self, pairs: Pairs) -> RowCotangents:
        """Those of the parts over a set of pairs."""
        return self._replace(weights={part: weight for part, weight in self.weights.items() if part.over is pairs})


class PairGradients(NamedTuple):
    """Gradients in the order in which rows came, and Σ C and Σ C value(s) over the pairs of a sweep."""

    anchors: Array | None  # [n, d]
    keys: Array | None  # [m, d]
    partners: Array | None  # [n, d]
    sum_dlogits: Array
    sum_dlogits_value: Array


class PartnerGradient(NamedTuple):
    """The derivative by each row's similarity to its partner, `[rows]`, and Σ C and Σ C value(s) over these pairs."""

    dpartner: Array
    sum_dlogits: Array
    sum_dlogits_value: Array


class RowResults(NamedTuple):
    """Of some rows: their losses `[rows]`, the cotangents of their pairs, and what their partners give."""

    losses: Array
    cotangents: RowCotangents
    partners: PartnerGradient | None


class Ordered(Protocol):
    """One side of a comparison: its labels ascend for `length` rows, and those that follow take no part."""

    @property
    def labels(self) -> Array:
        """The labels, `[rows]`."""

    @property
    def length(self) -> Any:
        """How many rows take part."""


class Sweep(Protocol):
    """A comparison laid out for one engine. A vector by row is in the order of its layout, padding included.

    Its rows are the anchors; where keys are compared with anchors, too, the keys follow.
    """

    @property
    def comparison(self) -> Comparison:
        """What is laid out."""

    @property
    def loss(self) -> PairLoss:
        """The loss, specialised."""

    @property
    def partnered(self) -> bool:
        """Whether each row has its one positive beside the columns."""

    @property
    def inside(self) -> Array | None:
        """Which rows take part, `[rows]`: neither padding nor rows outside; None if all do."""

    @property
    def sides(self) -> Sequence[tuple[Ordered, Ordered]]:
        """The rows that have a loss, and what they are compared with."""

    @property
    def laid(self) -> tuple[Any, ...]:
        """What the layout of the backward pass takes over, so that it reads no labels and sorts no rows again."""

    def partner_similarities(self) -> Array:
        """The similarity of each row to its partner, `[rows]`."""

    def row_sums(self, parts: Sequence[Part], stages: StageResults) -> RowSums:
        """One sweep over all pairs: the sums of some parts over the columns."""

    def gradients(self, cotangents: RowCotangents, dpartner: Array | None, needed: frozenset[str]) -> PairGradients:
        """One sweep over all pairs. `dpartner` is the derivative by each row's similarity to its partner, `[rows]`."""

    def in_strips(self, loss: PairLoss, visit: Visit, needed: frozenset[str]) -> tuple[Array, PairGradients] | None:
        """The losses `[rows]` and the gradient from one sweep by strips of rows, of which `visit` completes each.

        A strip has all columns of its rows, and keeps what its sums are made of until its gradient is made. None where columns
        have losses, too, which no strip completes, and where the layout has no strips.
        """

    def sorted(self, vector: Array) -> Array:
        """A vector by row from the order in which rows came."""

    def unsorted(self, vector: Array) -> Array:
        """The inverse of `sorted`."""


Visit: TypeAlias = Callable[["Sweep", Callable[[Array], Array]], RowResults]
"""What makes of a strip, and of what takes its part of a vector by row, the results of its rows."""

ONES = {pairs: Part(Fold.LINEAR, pairs, 0.0, 1.0, None) for pairs in (Pairs.POSITIVE, Pairs.NEGATIVE)}
"""Parts whose sums are the numbers of a row's pairs: Σ 0 a + 1."""

WEIGHTS = ONES[Pairs.POSITIVE]._replace(weighted=True)
"""The part whose sum is the weight of a row's positives."""

LayOut: TypeAlias = Callable[[Comparison, tuple[Any, ...]], Sweep]
"""Lays a comparison out, taking over what an earlier layout of it had as `laid`."""


def forward(
    comparison: Comparison, reduction: str, lay_out: LayOut, needed: frozenset[str] = frozenset()
) -> tuple[Array, Residuals | Gradients | None]:
    """The value of a loss, or with the reduction "none" the loss of each row, and what `backward` needs.

    Where rows are complete strip by strip it is the gradient by what is `needed` of a scalar value: that is linear in the
    cotangent, so it is made here, from logits that are there, and scaled later.
    """
    xp, empty = comparison.xp, nothing(comparison)
    if empty is not None:
        return (empty if reduction == "none" else xp.sum(empty)), None
    sweep = lay_out(comparison, ())
    loss, counts = prune_terms(comparison.backend, sweep.loss, count_pairs(sweep))
    if needed and reduction != "none":
        weights = rows.weights(xp, loss, reduction, counts, sweep.inside)
        made = in_strips(sweep, loss, counts, weights, needed)
        if made is not None:
            return xp.sum(weights * made[0]), made[1]
    residuals = reduce_stages(sweep, loss, counts)
    row_losses = rows.losses(xp, loss, residuals.results_of(loss), counts)
    if reduction == "none":
        return sweep.unsorted(row_losses), residuals
    return xp.sum(rows.weights(xp, loss, reduction, counts, sweep.inside) * row_losses), residuals


def backward(
    comparison: Comparison,
    reduction: str,
    lay_out: LayOut,
    residuals: Residuals | None,
    cotangent: float | Array,
    needed: frozenset[str],
) -> Gradients:
    """The gradient of what `forward` returned, under its cotangent; parts that are not needed are not computed.

    `needed` has any of "anchors", "keys", "partners", "temperature" and "bias".
    """
    if residuals is None:
        return zeros(comparison)
    sweep = lay_out(comparison, residuals.laid)
    loss, counts = prune_terms(comparison.backend, sweep.loss, residuals.counts)
    if reduction == "none":
        row_cotangents = rows.without_uncounted(sweep.comparison.xp, loss, counts, sweep.sorted(cotangent))
    else:
        row_cotangents = cotangent * rows.weights(sweep.comparison.xp, loss, reduction, counts, sweep.inside)
    return gradients(sweep, weigh_parts(sweep, loss, counts, residuals, row_cotangents), counts, needed)


def count_pairs(sweep: Sweep) -> rows.Counts:
    """How many positives and negatives each row has: from sorted labels, or by a sweep where pairs must be looked at."""
    comparison, xp = sweep.comparison, sweep.comparison.xp
    weight = None
    plain = comparison.relation.plain and comparison.relation.sorted_by == "label"
    by_label = plain and comparison.samples is not Samples.ANYWHERE and comparison.keys_of_each is None
    if not by_label or (comparison.samples is Samples.WITHIN_LABELS and comparison.inside is not None):
        parts = [part for part in ONES.values() if not _over_partner(sweep, part)]
        parts += [WEIGHTS] if comparison.relation.weighted else []
        sums = sweep.row_sums(parts, StageResults({}, {})).sums
        negative = sums[ONES[Pairs.NEGATIVE]]
        positive = _partners(sweep, negative) if sweep.partnered else sums[ONES[Pairs.POSITIVE]]
        weight = sums.get(WEIGHTS)
    else:
        dtype, found = comparison.anchors.dtype, []
        for side, other in sweep.sides:
            if comparison.alike is not None:  # the arrangement says so, and its rows may be in its own order
                same = xp.astype(xp.zeros_like(side.labels) + comparison.alike, dtype)
            else:
                same = xp.astype(_same_label(xp, side, other, sweep.inside is not None), dtype)
            found.append((same, xp.zeros_like(same) + _as(xp, other.length, dtype) - same))
        same, negative = (x[0] if len(x) == 1 else xp.concat(x, axis=0) for x in zip(*found, strict=True))
        if sweep.partnered:
            positive = _partners(sweep, negative)
        elif comparison.samples is Samples.WITHIN_LABELS:
            positive = same - sweep.sorted(_same_sample(comparison, dtype))
        else:
            positive = same if comparison.keys is not None else same - 1.0
    if sweep.inside is not None:
        positive, negative = (xp.where(sweep.inside, x, 0.0) for x in (positive, negative))
        weight = None if weight is None else xp.where(sweep.inside, weight, 0.0)
    return rows.Counts(positive, negative, weight)


def _partners(sweep: Sweep, like: Array) -> Array:
    """How many partners each row has that take part: 1 or 0, `[rows]`."""
    xp, there = sweep.comparison.xp, sweep.comparison.has_partner
    return xp.ones_like(like) if there is None else sweep.sorted(xp.astype(there, like.dtype))


def _same_label(xp: Namespace, side: Ordered, other: Ordered, some_outside: bool) -> Array:
    """How many columns share a row's label, `[rows]`."""
    first, last = (xp.searchsorted(other.labels, side.labels, side=end) for end in ("left", "right"))
    if some_outside:  # what takes no part is last
        length = _as(xp, other.length, first.dtype)
        first, last = (xp.where(x > length, length, x) for x in (first, last))
    return last - first


def _as(xp: Namespace, number: Any, dtype: Any) -> Any:
    return xp.astype(number, dtype) if hasattr(number, "dtype") else number


def _same_sample(comparison: Comparison, dtype: Any) -> Array:
    """How many columns are a row's sample, its own included, `[n]` in the order in which rows came."""
    xp, own, others = comparison.xp, comparison.rows["sample"], comparison.columns["sample"]
    others = xp.take(others, xp.argsort(others), axis=0)
    first, last = (xp.searchsorted(others, own, side=end) for end in ("left", "right"))
    return xp.astype(last - first, dtype)


def reduce_stages(sweep: Sweep, loss: PairLoss, counts: rows.Counts) -> Residuals:
    """The stages of every row: a sweep for each level of them."""
    xp, stages, slopes = sweep.comparison.xp, StageResults({}, rows.empty_stages(loss, counts)), {}
    found = RowSums({}, {}, {})
    for level in levels_of(loss):
        inside = [part for part in level if not _over_partner(sweep, part)]
        made = [sweep.row_sums(inside, stages)] if inside else []
        made += [_partner_sums(sweep, part, stages, counts) for part in level if _over_partner(sweep, part)]
        for sums in made:
            for whole, part in zip(found, sums, strict=True):
                whole.update(part)
        for stage in loss.stages:
            if parts_of(stage)[0] in level:
                stages.values[stage.name] = stage_result(xp, loss, stage, found.sums, found.maxima, counts)
                if stage.minus is not None:
                    slopes[stage.name] = stage_slope(xp, loss, stage, found.slope_sums, counts)
    return residuals_of(loss, stages.values, slopes, found.maxima, counts)._replace(laid=sweep.laid)


def in_strips(
    sweep: Sweep, loss: PairLoss, counts: rows.Counts, weights: Array, needed: frozenset[str]
) -> tuple[Array, Gradients] | None:
    """The losses of rows, `[rows]`, and the gradient of their sum under weights, from one sweep; None where it takes two."""
    xp = sweep.comparison.xp

    def visit(strip: Sweep, at: Callable[[Array], Array]) -> RowResults:
        weight = counts.weight_of_positives
        own = replace(
            counts,
            positive=at(counts.positive),
            negative=at(counts.negative),
            weight_of_positives=None if weight is None else at(weight),
        )
        residuals = reduce_stages(strip, loss, own)
        cotangents = weigh_parts(strip, loss, own, residuals, at(weights))
        partners = partner_gradient(strip, cotangents, own) if strip.partnered else None
        losses = rows.losses(xp, loss, residuals.results_of(loss), own)
        return RowResults(losses, without_partners(strip, cotangents), partners)

    made = sweep.in_strips(loss, visit, needed)
    return None if made is None else (made[0], _gradients(sweep, made[1]))


def weigh_parts(
    sweep: Sweep, loss: PairLoss, counts: rows.Counts, residuals: Residuals, row_cotangents: Array
) -> RowCotangents:
    """What a sweep needs of every row to make the gradient by its similarities, from that by its loss, `[rows]`."""
    weights = residuals.weights_of(sweep.comparison.xp, loss, row_cotangents / sweep.comparison.temperature)
    stages = StageResults(residuals.results_of(loss), rows.empty_stages(loss, counts))
    return RowCotangents(weights, residuals.maxima_of(loss), stages)


def gradients(sweep: Sweep, cotangents: RowCotangents, counts: rows.Counts, needed: frozenset[str]) -> Gradients:
    """The gradient under the cotangents of all rows of a sweep.

    Where columns are rows with a loss, theirs may have been made elsewhere: by another process, from its own residuals.
    """
    dpartner, sum_dlogits, sum_dlogits_value = None, 0.0, 0.0
    if sweep.partnered:
        dpartner, sum_dlogits, sum_dlogits_value = partner_gradient(sweep, cotangents, counts)
    found = sweep.gradients(without_partners(sweep, cotangents), dpartner, needed)
    return _gradients(
        sweep,
        found._replace(
            sum_dlogits=found.sum_dlogits + sum_dlogits, sum_dlogits_value=found.sum_dlogits_value + sum_dlogits_value
        ),
    )


def _gradients(sweep: Sweep, found: PairGradients) -> Gradients:
    temperature = sweep.comparison.temperature
    return Gradients(
        found.anchors,
        found.keys,
        found.partners,
        temperature=-found.sum_dlogits_value / temperature,
        bias=found.sum_dlogits * temperature,
    )


def without_partners(sweep: Sweep, cotangents: RowCotangents) -> RowCotangents:
    """The cotangents of the parts that a sweep visits."""
    inside = {part: weight for part, weight in cotangents.weights.items() if not _over_partner(sweep, part)}
    return cotangents._replace(weights=inside)


def partner_gradient(sweep: Sweep, cotangents: RowCotangents, counts: rows.Counts) -> PartnerGradient:
    """What the pairs of rows and their partners give."""
    xp, similarity, logit = sweep.comparison.xp, sweep.partner_similarities(), sweep.loss.logit_of(Pairs.POSITIVE)
    dlogits = _partner_dlogits(sweep, similarity, cotangents, counts)
    dpartner = dlogits * logit.slope(xp, similarity)
    return PartnerGradient(dpartner, xp.sum(dlogits), xp.sum(dlogits * logit.value(xp, similarity)))


def _over_partner(sweep: Sweep, part: Part) -> bool:
    """Whether a part is over each row's partner, and so no matter of columns."""
    return sweep.partnered and part.over is Pairs.POSITIVE


def _partner_argument(
    sweep: Sweep, part: Part, similarity: Array, stages: StageResults, counts: rows.Counts
) -> tuple[Array, Array]:
    """Which rows have their partner in a part, and the argument of its fold there, `[rows]` each."""
    values = sweep.loss.logit_of(Pairs.POSITIVE).value(sweep.comparison.xp, similarity)
    logits = values / sweep.comparison.temperature + sweep.comparison.bias
    there = counts.positive > 0.0
    if part.minus is not None:  # a row with an empty reference has no pairs
        empty, logits = stages.empty[part.minus], logits - stages.values[part.minus]
        there = there if empty is None else there & ~empty
    return there, sweep.comparison.xp.where(there, part.scale * logits + part.offset, 0.0)


def _partner_sums(sweep: Sweep, part: Part, stages: StageResults, counts: rows.Counts) -> RowSums:
    """The sums of a part whose one pair a row is its partner."""
    xp = sweep.comparison.xp
    there, t = _partner_argument(sweep, part, sweep.partner_similarities(), stages, counts)
    if part.fold is Fold.LOGSUMEXP:
        return RowSums({part: xp.where(there, 1.0, xp.zeros_like(t))}, {part: t}, {part: xp.zeros_like(t)})
    value, slope = (xp.where(there, f(xp, part.fold, t), 0.0) for f in (elementwise.value, elementwise.slope))
    return RowSums({part: value}, {}, {part: part.scale * slope})


def _partner_dlogits(sweep: Sweep, similarity: Array, cotangents: RowCotangents, counts: rows.Counts) -> Array:
    """The derivative by the logit of each row and its partner, `[rows]`."""
    xp, total = sweep.comparison.xp, sweep.comparison.xp.zeros_like(similarity)
    for part, weight in cotangents.over(Pairs.POSITIVE).weights.items():
        there, t = _partner_argument(sweep, part, similarity, cotangents.stages, counts)
        exponential = part.fold is Fold.LOGSUMEXP
        slope = xp.exp(t - cotangents.maxima[part]) if exponential else elementwise.slope(xp, part.fold, t)
        total = total + xp.where(there, rows.weighed_slopes(xp, part.fold, slope, weight), 0.0)
    return total
