"""Stages taken apart for tiles: the sums over positives and over negatives that they share, and the order to make them in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import reduce
from operator import add
from typing import Any, NamedTuple

from sincere_spec.arrays import Array, Namespace
from sincere_spec.engines.rows import Counts, WeightedStage, term_cotangents, weighed_slopes, without_pairs
from sincere_spec.interface import Part
from sincere_spec.spec.words import Fold, PairLoss, Pairs, Stage, Word

EMPTY_MAXIMUM = -1e30
"""Finite stand-in for -inf as the row maximum of an empty log-sum-exp."""

# How far below a fixed shift logits may lie: about two thirds of the range of exponentials in the dtype.
SPREAD = {"float32": 60.0, "float64": 480.0}


class Total(NamedTuple):
    """The sum of a log-sum-exp's exponentials, `[rows]`, 1 where there is none, and what these are relative to."""

    sum: Array
    maximum: Array | float


class Residuals(NamedTuple):
    """What the forward pass keeps for the backward: vectors by row, in tuples that every framework can pass on.

    `laid` is the layout, which the backward pass takes over. In a compiled program it has the rows as they lie in tiles: laid
    out a second time, they would be in memory twice.
    """

    results: tuple[Array, ...]  # of each stage [rows]
    slopes: tuple[Array, ...]  # of each stage that subtracts one, the derivative by that one [rows]
    maxima: tuple[Array, ...]  # of each part of a log-sum-exp [rows]
    positive: Array  # [rows]
    negative: Array  # [rows]
    weight: tuple[Array, ...]  # of positives [rows], if they are weighted
    laid: tuple[Any, ...] = ()

    @property
    def counts(self) -> Counts:
        """How many positives and negatives each row has."""
        return Counts(self.positive, self.negative, *self.weight)

    def results_of(self, loss: PairLoss) -> dict[str, Array]:
        """The results by stage."""
        return dict(zip((stage.name for stage in loss.stages), self.results, strict=True))

    def maxima_of(self, loss: PairLoss) -> dict[Part, Array]:
        """The maxima by part."""
        return dict(zip(exponential(loss), self.maxima, strict=True))

    def weights_of(self, xp: Namespace, loss: PairLoss, row_cotangents: Array) -> dict[Part, Array]:
        """What `part_weights` makes of them."""
        slopes = dict(zip((stage.name for stage in loss.stages if stage.minus), self.slopes, strict=True))
        results, maxima = self.results_of(loss), self.maxima_of(loss)
        return part_weights(xp, loss, results, slopes, maxima, self.counts, row_cotangents)


def residuals_of(
    loss: PairLoss,
    results: Mapping[str, Array],
    slopes: Mapping[str, Array],
    maxima: Mapping[Part, Array],
    counts: Counts,
) -> Residuals:
    """What was found by stage and by part, as residuals."""
    return Residuals(
        tuple(results[stage.name] for stage in loss.stages),
        tuple(slopes[stage.name] for stage in loss.stages if stage.minus),
        tuple(maxima[part] for part in exponential(loss)),
        counts.positive,
        counts.negative,
        () if counts.weight_of_positives is None else (counts.weight_of_positives,),
    )


def exponential(loss: PairLoss) -> list[Part]:
    """The parts of log-sum-exps."""
    return [part for level in levels_of(loss) for part in level if part.fold is Fold.LOGSUMEXP]


@dataclass(frozen=True)
class TakenApart(Stage):
    """A stage with its sums, which are asked for often."""

    parts: tuple[Part, ...] = field(kw_only=True)


STAGE = tuple(one.name for one in fields(Stage))
"""The fields of a stage."""

del Word.known["TakenApart"]  # no dictionary has it


def taken_apart(stage: Stage) -> Stage:
    """The same stage with its sums."""
    if isinstance(stage, TakenApart):
        return stage
    return TakenApart(*(getattr(stage, name) for name in STAGE), parts=parts_of(stage))


def parts_of(stage: Stage) -> tuple[Part, ...]:
    """The sums that a stage is made of."""
    if isinstance(stage, TakenApart):
        return stage.parts
    halves = (Pairs.POSITIVE, Pairs.NEGATIVE) if stage.over is Pairs.OTHERS else (stage.over,)
    weighted = isinstance(stage, WeightedStage)
    return tuple(Part(stage.fold, over, stage.scale, stage.offset, stage.minus, weighted) for over in halves)


def levels_of(loss: PairLoss) -> tuple[tuple[Part, ...], ...]:
    """The parts of a loss, by sweep: a part that subtracts a stage comes after the sweep that made it."""
    depth: dict[str, int] = {}
    for stage in loss.stages:
        depth[stage.name] = 0 if stage.minus is None else depth[stage.minus] + 1
    levels: list[dict[Part, None]] = [{} for _ in range(max(depth.values()) + 1)]
    for stage in loss.stages:
        for part in parts_of(stage):
            levels[depth[stage.name]][part] = None
    return tuple(tuple(level) for level in levels)


def negatives_subtract(loss: PairLoss) -> bool:
    """Whether a stage over negatives subtracts another: then a tile of negatives is not the same from its columns."""
    return any(part.minus and part.over is Pairs.NEGATIVE for level in levels_of(loss) for part in level)


def reach_of(loss: PairLoss) -> tuple[float, float] | None:
    """Between which bounds the values of all logits lie for similarities from -1 to 1; None where that is not known.

    Those of positives and of negatives have one shift: beside another, a sum over no pairs would hide that over the others.
    """
    reach, other = loss.logit.reach, loss.positive_logit
    if other is None or reach is None:
        return reach
    return None if other.reach is None else (min(reach[0], other.reach[0]), max(reach[1], other.reach[1]))


def shift_of(part: Part, loss: PairLoss, temperature: float, bias: float, kind: str) -> float | None:
    """What to subtract from all arguments of a part's exponential on unit rows, if these are bounded enough; else None.

    It is 0 where no exponential can leave the range of the dtype `kind`, and then costs nothing.
    """
    reach = reach_of(loss)
    if reach is None or part.minus is not None:
        return None
    low, high = (part.scale * (value / temperature + bias) for value in reach)
    spread = SPREAD[kind]
    if abs(high - low) > spread:
        return None
    highest = max(low, high) + part.offset
    return 0.0 if abs(highest) <= spread and abs(min(low, high) + part.offset) <= spread else highest


def stage_result(
    xp: Namespace,
    loss: PairLoss,
    stage: Stage,
    sums: Mapping[Part, Array],
    maxima: Mapping[Part, Array | float],
    counts: Counts,
    totals: dict[str, Total] | None = None,
) -> Array:
    """A stage from its sums; those of a log-sum-exp are relative to a maximum each, which may be the same number for all rows.

    Their total is added to `totals`.
    """
    first, *others = parts_of(stage)
    total = sums[first]
    if stage.fold is not Fold.LOGSUMEXP:
        for part in others:
            total = total + sums[part]
        return total / counts.divisor(xp, stage.over) if stage.mean else total
    maximum = maxima[first]
    for part in others:
        if isinstance(maximum, float) and isinstance(maxima[part], float) and maximum == maxima[part]:
            total = total + sums[part]
            continue
        other = total * 0.0 + maxima[part]
        higher = xp.where(other > maximum, other, maximum)
        total = total * xp.exp(maximum - higher) + sums[part] * xp.exp(other - higher)
        maximum = higher
    empty = without_pairs(loss, counts, stage)
    total = total if empty is None else xp.where(empty, 1.0, total)
    if totals is not None:
        totals[stage.name] = Total(total, maximum)
    result = xp.log(total)
    if not isinstance(maximum, float) or maximum:
        result = result + maximum
    if empty is not None:
        result = xp.where(empty, 0.0, result)
    return result - xp.log(counts.divisor(xp, stage.over)) if stage.mean else result


def stage_slope(xp: Namespace, loss: PairLoss, stage: Stage, slope_sums: Mapping[Part, Array], counts: Counts) -> Array:
    """The derivative of a stage by the one that it subtracts; `slope_sums` are the sums of the slopes of its parts."""
    if stage.fold is Fold.LOGSUMEXP:
        slope, empty = xp.zeros_like(counts.positive) - stage.scale, without_pairs(loss, counts, stage)
        return slope if empty is None else xp.where(empty, 0.0, slope)
    total = reduce(add, (slope_sums[part] for part in parts_of(stage)))
    return -total / counts.divisor(xp, stage.over) if stage.mean else -total


def part_weights(
    xp: Namespace,
    loss: PairLoss,
    results: Mapping[str, Array],
    slopes: Mapping[str, Array],
    maxima: Mapping[Part, Array | float],
    counts: Counts,
    row_cotangents: Array,
    totals: Mapping[str, Total] | None = None,
) -> dict[Part, Array]:
    """What multiplies `ψ′(t)`, or `exp(t - maximum)` for a log-sum-exp, of each pair of a part in the gradient by the logit.

    A log-sum-exp whose total was kept needs no exponential here.
    """
    cotangents = term_cotangents(xp, loss, results, counts, row_cotangents)
    for stage in reversed(loss.stages):
        if stage.minus is not None and stage.name in cotangents:
            through = weighed_slopes(xp, stage.fold, slopes[stage.name], cotangents[stage.name])
            cotangents[stage.minus] = cotangents[stage.minus] + through if stage.minus in cotangents else through
    weights: dict[Part, Array] = {}
    for stage in loss.stages:
        share = cotangents[stage.name] if stage.name in cotangents else xp.zeros_like(row_cotangents)
        share = share if stage.scale == 1.0 else stage.scale * share
        parts, divisor = parts_of(stage), counts.divisor(xp, stage.over) if stage.mean else None
        if stage.fold is not Fold.LOGSUMEXP:
            made = [share if divisor is None else share / divisor] * len(parts)
        else:
            total = None if totals is None else totals.get(stage.name)
            if total is not None and all(_same(maxima[part], total.maximum) for part in parts):
                made = [share / total.sum] * len(parts)
            else:
                empty = without_pairs(loss, counts, stage)
                log_total = results[stage.name] if divisor is None else results[stage.name] + xp.log(divisor)
                below = [maxima[part] - log_total for part in parts]
                made = [share * xp.exp(x if empty is None else xp.where(empty, 0.0, x)) for x in below]
        for part, weight in zip(parts, made, strict=True):
            weights[part] = weights[part] + weight if part in weights else weight
    return weights


def _same(one: Array | float, other: Array | float) -> bool:
    """Whether two maxima are one array, or one number."""
    return one is other or (isinstance(one, float) and isinstance(other, float) and one == other)
