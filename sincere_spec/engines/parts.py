"""Stages taken apart for tiles: the sums over positives and over negatives that they share, and the order to make them in."""

from __future__ import annotations

from collections.abc import Mapping

from sincere_spec.engines.rows import Counts, term_cotangents
from sincere_spec.protocol import Fold, PairLoss, Pairs, Reduce
from sincere_spec.sweeps import Part as Part
from sincere_spec.types import Array, Namespace


def parts_of(stage: Reduce) -> tuple[Part, ...]:
    """The sums that a stage is made of."""
    halves = (Pairs.POSITIVE, Pairs.NEGATIVE) if stage.over is Pairs.OTHERS else (stage.over,)
    return tuple(Part(stage.fold, over, stage.scale, stage.offset, stage.minus) for over in halves)


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


def stage_result(
    xp: Namespace, stage: Reduce, sums: Mapping[Part, Array], peaks: Mapping[Part, Array], counts: Counts
) -> Array:
    """A stage from its sums; those of a log-sum-exp are relative to a peak each."""
    first, *others = parts_of(stage)
    total = sums[first]
    if stage.fold is not Fold.LOGSUMEXP:
        for part in others:
            total = total + sums[part]
        return total / counts.divisor(xp, stage.over) if stage.mean else total
    peak = peaks[first]
    for part in others:
        higher = xp.where(peaks[part] > peak, peaks[part], peak)
        total = total * xp.exp(peak - higher) + sums[part] * xp.exp(peaks[part] - higher)
        peak = higher
    empty = counts.lacking(stage.over)
    result = xp.log(total) + peak if empty is None else xp.where(empty, 0.0, xp.log(xp.where(empty, 1.0, total)) + peak)
    return result - xp.log(counts.divisor(xp, stage.over)) if stage.mean else result


def stage_slope(xp: Namespace, stage: Reduce, falls: Mapping[Part, Array], counts: Counts) -> Array:
    """The derivative of a stage by the one that it subtracts; `falls` are the sums of the slopes of its parts."""
    if stage.fold is Fold.LOGSUMEXP:
        slope, empty = xp.zeros_like(counts.positive) - stage.scale, counts.lacking(stage.over)
        return slope if empty is None else xp.where(empty, 0.0, slope)
    total = sum(falls[part] for part in parts_of(stage))
    return -total / counts.divisor(xp, stage.over) if stage.mean else -total


def part_weights(
    xp: Namespace,
    loss: PairLoss,
    results: Mapping[str, Array],
    slopes: Mapping[str, Array],
    peaks: Mapping[Part, Array],
    counts: Counts,
    row_cotangents: Array,
) -> dict[Part, Array]:
    """What multiplies `ψ′(t)`, or `exp(t - peak)` for a log-sum-exp, of each pair of a part in the gradient by the logit."""
    cotangents = term_cotangents(xp, loss, results, counts, row_cotangents)
    for stage in reversed(loss.stages):
        if stage.minus is not None:
            cotangents[stage.minus] = cotangents[stage.minus] + cotangents[stage.name] * slopes[stage.name]
    weights: dict[Part, Array] = {}
    for stage in loss.stages:
        share = cotangents[stage.name] if stage.scale == 1.0 else stage.scale * cotangents[stage.name]
        empty = counts.lacking(stage.over)
        divisor = counts.divisor(xp, stage.over) if stage.mean else None
        for part in parts_of(stage):
            if stage.fold is Fold.LOGSUMEXP:
                total = results[stage.name] if divisor is None else results[stage.name] + xp.log(divisor)
                below = peaks[part] - total
                weight = share * xp.exp(below if empty is None else xp.where(empty, 0.0, below))
            else:
                weight = share if divisor is None else share / divisor
            weights[part] = weights[part] + weight if part in weights else weight
    return weights
