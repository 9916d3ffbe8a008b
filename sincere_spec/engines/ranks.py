"""The loss of rows that several ranks own: each sweeps its rows against those of all, and only vectors by row are exchanged.

    gather  the columns, once                     each rank: the stages of its own rows, by a sweep over all columns
    total   shares, rows, losses                  the value, and the cotangent of every row's loss
    gather  the cotangents, a few numbers a row   each rank: the gradient of its own rows, C_ij + C_ji, by one more sweep
    total   two numbers                           the gradients of temperature and bias

Keys without losses of their own need no cotangents: in place of the second gather their gradient, of which each rank has made
what its rows give, is added up over ranks, by a reduce-scatter, or by a total of keys that all ranks share. A row's log-sum-exp
is made by one rank and never merged, so that it does not depend on the number of ranks. Everything is done in the forward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

from sincere_spec.arrays import Array, Namespace
from sincere_spec.engines import family, rows
from sincere_spec.engines.comparison import Comparison, Gradients, Halves, Samples
from sincere_spec.engines.family import LayOut, RowCotangents, StageResults, Sweep
from sincere_spec.engines.parts import Residuals
from sincere_spec.interface import Collectives
from sincere_spec.spec.relations import Attributes
from sincere_spec.spec.words import PairLoss


@dataclass(frozen=True)
class Shard:
    """What a rank owns of a comparison: its rows, and its keys if it has any, with the numbers of rows of every rank.

    `shared` says that the keys are the same on every rank, and `totals` that gradients of what all ranks have are added up over
    them, which JAX does itself. Attributes are those of the whole batch: equal over ranks exactly
    where labels, or samples, are.
    """

    comparison: Comparison
    collectives: Collectives
    anchors: Sequence[Any]  # rows of each rank
    keys: Sequence[Any]
    shared: bool
    totals: bool = True

    @property
    def xp(self) -> Namespace:
        """The namespace of its arrays."""
        return self.comparison.xp

    def all_anchors(self) -> Side:
        """The anchors of all ranks."""
        c, halves = self.comparison, self.comparison.halves
        own = (None, None) if halves is None else (halves.anchors, halves.anchor_factors)
        return self._all(Side(c.anchors, c.rows, c.inside, *own), self.anchors)

    def all_keys(self) -> Side:
        """The keys of all ranks."""
        c, halves = self.comparison, self.comparison.halves
        own = (None, None) if halves is None else (halves.keys, halves.key_factors)
        side = Side(c.keys, c.columns, c.columns_inside, *own)
        return side if self.shared else self._all(side, self.keys)

    def _all(self, side: Side, sizes: Sequence[Any]) -> Side:
        xp, marks, inside = self.xp, dict(side.attributes), None
        if side.inside is not None:
            marks["inside"] = xp.astype(side.inside, next(iter(marks.values())).dtype)
        attributes = attributes_of_all(self.collectives, xp, marks, sizes)
        if side.inside is not None:
            inside = attributes.pop("inside") != 0
        if side.halves is None:
            return Side(self.collectives.gather(side.rows, sizes), attributes, inside, None, None)
        halves, factors = (self.collectives.gather(x, sizes) for x in (side.halves, side.factors))  # half as much
        made = xp.astype(halves, factors.dtype) * factors[:, None]
        return Side(made, attributes, inside, halves, factors)


def attributes_of_all(
    collectives: Collectives, xp: Namespace, attributes: Attributes, sizes: Sequence[Any]
) -> dict[str, Array]:
    """The attributes of all ranks' rows, `[N]` each, or `[N, k]`: by one gather for each dtype."""
    found: dict[str, Array] = {}
    for dtype in dict.fromkeys(x.dtype for x in attributes.values()):
        some = {name: x if len(x.shape) == 2 else x[:, None] for name, x in attributes.items() if x.dtype == dtype}
        table, start = collectives.gather(xp.concat(list(some.values()), axis=1), sizes), 0
        for name, x in some.items():
            part = table[:, start : start + x.shape[1]]
            found[name] = part if len(attributes[name].shape) == 2 else part[:, 0]
            start += x.shape[1]
    return found


class Side(NamedTuple):
    """Rows, what is known of them, and as they came in a half type."""

    rows: Array  # [m, d]
    attributes: Attributes  # [m] each
    inside: Array | None  # [m]
    halves: Array | None  # [m, d]
    factors: Array | None  # [m]


@dataclass(frozen=True)
class Own:
    """The rows with a loss that this rank owns, laid out against all columns, and what was found of them."""

    sweep: Sweep
    loss: PairLoss
    counts: rows.Counts
    residuals: Residuals | None  # None where the gradient is there
    share: Array  # [rows], see `rows.shares`
    every: Array  # [rows], 1 for each that takes part
    losses: Array  # [rows]
    gradients: Gradients | None  # of the sum of shares of losses, where strips made it with these


def value_and_gradient(
    shard: Shard, reduction: str, lay_out: LayOut, spoilt: Array, needed: frozenset[str]
) -> tuple[Array, Array | None, Gradients | None]:
    """The value of the whole batch and the sum of its rows' shares, the same on every rank, and the gradient by what it owns.

    All ranks call it together, with the same `needed`: without any there is no gradient. `spoilt` is 0, or NaN where
    something that a mask could hide is not finite. With the reduction "none" the value is that of each row, without a sum.
    """
    xp, collectives = shard.xp, shard.collectives
    one_sided = shard.comparison.keys is not None and not shard.comparison.both_ways  # the columns have no losses
    asked = needed if one_sided and reduction != "none" else frozenset()
    owned = [_statistics(lay_out, comparison, reduction, asked) for comparison in against_all(shard)]
    if reduction == "none":
        losses = [own.sweep.unsorted(own.losses) for own in owned]
        whole = losses[0] if len(losses) == 1 else xp.concat(losses, axis=0)
        return whole + xp.sum(collectives.total(_stacked(xp, [spoilt]))), None, None
    made = [(xp.sum(o.share), xp.sum(o.every), xp.sum(o.share * o.losses)) for o in owned]
    sums = [sum(each) for each in zip(*made, strict=True)]
    totals = collectives.total(_stacked(xp, [*sums, spoilt]))  # [4]
    divisor = rows.divisor(xp, reduction, totals[0:1], totals[1:2])
    value = (totals[2] if divisor is None else totals[2] / divisor) + totals[3]
    if not needed:
        return value, totals[0], None
    make = _of_one_side if one_sided else _of_both_sides
    return value, totals[0], make(shard, owned, divisor, needed)


def against_all(shard: Shard) -> list[Comparison]:
    """What this rank sweeps: its own rows against the columns of all ranks; both ways two of these."""
    c = shard.comparison
    if c.keys is None:  # each row is among its keys
        samples = c.samples
        if samples is Samples.DISTINCT and c.partners is None:
            samples = Samples.WITHIN_LABELS
        return [_with_keys(replace(c, samples=samples, alike=None), shard.all_anchors())]
    one_way = replace(c, both_ways=False)
    if not c.both_ways:
        return [_with_keys(one_way, shard.all_keys())]
    n, halves = c.backend.length(c.anchors), c.halves
    has_partner = (None, None) if c.has_partner is None else (c.has_partner[:n], c.has_partner[n:])
    back = replace(
        one_way,
        anchors=c.keys,
        partners=c.anchors,
        rows=c.columns,
        inside=c.columns_inside,
        has_partner=has_partner[1],
        halves=None if halves is None else Halves(halves.keys, None, cast(Array, halves.key_factors), None),
    )
    return [
        _with_keys(replace(one_way, has_partner=has_partner[0]), shard.all_keys()),
        _with_keys(back, shard.all_anchors()),
    ]


def _with_keys(comparison: Comparison, side: Side) -> Comparison:
    halves = comparison.halves
    if halves is not None:
        halves = halves._replace(keys=side.halves, key_factors=side.factors)
    return replace(comparison, keys=side.rows, columns=side.attributes, columns_inside=side.inside, halves=halves)


def _statistics(lay_out: LayOut, comparison: Comparison, reduction: str, needed: frozenset[str]) -> Own:
    """The stages of own rows, and where a strip can make what is `needed` of a gradient, this.

    The loss is not pruned: all ranks need the same parts.
    """
    sweep, xp = lay_out(comparison, ()), comparison.xp
    loss, counts = sweep.loss, family.count_pairs(sweep)
    every = xp.ones_like(counts.positive)
    if sweep.inside is not None:
        every = xp.where(sweep.inside, every, 0.0)
    share = rows.shares(xp, loss, reduction, counts, every)
    made = family.in_strips(sweep, loss, counts, share, needed) if needed else None
    if made is not None:
        return Own(sweep, loss, counts, None, share, every, *made)
    residuals = family.reduce_stages(sweep, loss, counts)
    losses = rows.losses(xp, loss, residuals.results_of(loss), counts)
    return Own(sweep, loss, counts, residuals, share, every, losses, None)


def _weighed(own: Own, divisor: Array | None) -> RowCotangents:
    """What a sweep needs of own rows to make the gradient."""
    weights = own.share if divisor is None else own.share / divisor
    return family.weigh_parts(own.sweep, own.loss, own.counts, cast(Residuals, own.residuals), weights)


def _of_one_side(shard: Shard, owned: Sequence[Own], divisor: Array | None, needed: frozenset[str]) -> Gradients:
    """The gradient where columns have no losses: a rank makes all that its rows give, and divides what it gets."""
    (own,) = owned
    made = own.gradients or family.gradients(own.sweep, _weighed(own, None), own.counts, needed)
    keys, temperature, bias = made.keys, None, None
    if keys is not None and shard.shared:
        keys = _total(shard, keys)
    elif keys is not None:
        keys = shard.collectives.scatter(keys, shard.comparison.keys, shard.keys)
    if needed & {"temperature", "bias"}:
        temperature, bias = _parameters(shard, made.temperature, made.bias)
    found = (made.anchors, keys, made.partners, temperature, bias)
    return Gradients(*(x if x is None or divisor is None else x / divisor for x in found))


def _of_both_sides(shard: Shard, owned: Sequence[Own], divisor: Array | None, needed: frozenset[str]) -> Gradients:
    """The gradient where columns are rows with a loss, too, of some rank: from the cotangents of all."""
    xp, c = shard.xp, shard.comparison
    parameters = needed & {"temperature", "bias"}
    cotangents = [_weighed(own, divisor) for own in owned]
    inside = [family.without_partners(o.sweep, x) for o, x in zip(owned, cotangents, strict=True)]
    sizes = [shard.anchors, shard.keys]
    everyone = [of_all_ranks(shard, o, x, size) for o, x, size in zip(owned, inside, sizes, strict=False)]

    sums, found, beside = [xp.sum(c.anchors[:0, :])] * 2, [], []
    for number, (own, mine) in enumerate(zip(owned, inside, strict=True)):
        sweep = _with_losses_of_columns(own.sweep)
        whole = _joined(sweep, own.sweep, mine, everyone[number - 1 if c.both_ways else number])
        made = sweep.gradients(whole, None, parameters | {"anchors"})
        # sums over pairs have C_ij and C_ji: over all ranks each pair is there twice
        sums = [x + 0.5 * y for x, y in zip(sums, (made.sum_dlogits, made.sum_dlogits_value), strict=True)]
        found.append(made)
        if own.sweep.partnered:
            partner = family.partner_gradient(own.sweep, cotangents[number], own.counts)
            sums = [x + y for x, y in zip(sums, (partner.sum_dlogits, partner.sum_dlogits_value), strict=True)]
            along = own.sweep.unsorted(partner.dpartner)[:, None]  # [n, 1]
            beside.append((along * own.sweep.comparison.partners, along * own.sweep.comparison.anchors))

    anchors, keys, partners = found[0].anchors, None, None
    if beside:
        anchors, partners = anchors + beside[0][0], beside[0][1]
    if c.both_ways:
        anchors, keys = anchors + beside[1][1], found[1].anchors + beside[1][0]
    by_temperature = by_bias = None
    if parameters:
        temperature = owned[0].sweep.comparison.temperature
        by_temperature, by_bias = _parameters(shard, -sums[1] / temperature, sums[0] * temperature)
    return Gradients(anchors, keys, partners, by_temperature, by_bias)


def _total(shard: Shard, x: Array) -> Array:
    return shard.collectives.total(x) if shard.totals else x


def _parameters(shard: Shard, temperature: Array, bias: Array) -> tuple[Array, Array]:
    """The gradient by temperature and bias, from what each rank's rows give."""
    both = _total(shard, _stacked(shard.xp, [temperature, bias]))  # [2]
    return both[0], both[1]


def _with_losses_of_columns(sweep: Sweep) -> Sweep:
    """The same sweep, in which the columns are rows with a loss, too."""
    made: Sweep = replace(cast(Any, sweep), comparison=replace(sweep.comparison, both_ways=True))
    return made


def of_all_ranks(shard: Shard, own: Own, cotangents: RowCotangents, sizes: Sequence[Any]) -> RowCotangents:
    """The cotangents of all ranks' rows, in the order in which these were gathered."""
    xp, dtype = shard.xp, own.share.dtype
    vectors = _unpacked(cotangents)
    if not vectors:
        return cotangents
    table = xp.concat([own.sweep.unsorted(xp.astype(x, dtype))[:, None] for x in vectors], axis=1)
    table = shard.collectives.gather(table, sizes)  # [N, vectors]
    return _packed(cotangents, [table[:, number] for number in range(len(vectors))])


def _joined(sweep: Sweep, alone: Sweep, own: RowCotangents, others: RowCotangents) -> RowCotangents:
    """The cotangents of own rows and of all columns, in the order of a sweep of both."""
    xp, like = sweep.comparison.xp, sweep.comparison.anchors
    mine = [alone.unsorted(xp.astype(x, like.dtype)) for x in _unpacked(own)]
    theirs = [xp.astype(x, like.dtype) for x in _unpacked(others)]
    whole = [xp.concat(both, axis=0) for both in zip(mine, theirs, strict=True)]
    return _packed(own, [sweep.sorted(x) for x in whole])


def _minuses(cotangents: RowCotangents) -> list[str]:
    """The stages that some part subtracts."""
    return list(dict.fromkeys(part.minus for part in cotangents.weights if part.minus is not None))


def _unpacked(cotangents: RowCotangents) -> list[Array]:
    """Every vector that a sweep needs of a row, `[rows]` each: weights, maxima, stages that are subtracted, which are empty."""
    weights, maxima, stages = cotangents
    found = [*weights.values(), *(maxima[part] for part in weights if part in maxima)]
    for name in _minuses(cotangents):
        empty = stages.empty[name]
        found += [stages.values[name], stages.values[name] * 0.0 if empty is None else empty]
    return found


def _packed(like: RowCotangents, vectors: Sequence[Array]) -> RowCotangents:
    """The inverse of `_unpacked`, of vectors of one float dtype."""
    given = iter(vectors)
    weights = {part: next(given) for part in like.weights}
    maxima = {part: next(given) for part in weights if part in like.maxima}
    stages = StageResults({}, {})
    for name in _minuses(like):
        stages.values[name], stages.empty[name] = next(given), next(given) > 0.0
    return RowCotangents(weights, maxima, stages)


def _stacked(xp: Namespace, numbers: Sequence[Array]) -> Array:
    return xp.concat([xp.reshape(number, (1,)) for number in numbers], axis=0)
