"""The derivative of each row's own loss by the logits of its positives: what pulls a positive, or pushes it away.

    G_ij = ∂L_i/∂a_ij = Σ_k g_k scale_k ψ′_k(t_ij)      over the stages k that see the positive j, with a row cotangent of 1

A row's loss depends on that row of logits alone, so a block of rows is enough. The terms of the loss are summed last: where two
cancel to a rounding, as the two log-sum-exps of SupCon-in do, the sign would be that of the rounding, and G is 0.
"""

from __future__ import annotations

from dataclasses import replace

from sincere_spec.arrays import Array
from sincere_spec.engines import rows
from sincere_spec.engines.parts import EMPTY_MAXIMUM, levels_of, part_weights, parts_of, stage_result, stage_slope
from sincere_spec.interface import Backend, Part
from sincere_spec.spec import elementwise
from sincere_spec.spec.words import Fold, PairLoss, Pairs

ROUNDINGS = {"float32": 16.0 * 2.0**-24, "float64": 16.0 * 2.0**-53}
"""Up to this share of what is added, times 1 + the largest exponent, a sum of terms is a rounding."""


def of_positives(
    backend: Backend,
    loss: PairLoss,
    logits: Array,
    positive: Array,
    negative: Array,
) -> tuple[Array, Array]:
    """G `[n, m]`, which is 0 except at positives, and by row 1.0 where the row counts, else 0.0.

    `logits` `[n, m]` are those of a block of rows against all columns; `positive` and `negative` are its masks.
    """
    xp = backend.namespace(logits)
    masks = {Pairs.POSITIVE: positive, Pairs.NEGATIVE: negative}
    sizes = (xp.sum(xp.astype(mask, logits.dtype), axis=1) for mask in (positive, negative))
    counts = rows.Counts(*sizes)
    results: dict[str, Array] = {}
    slopes: dict[str, Array] = {}
    sums: dict[Part, Array] = {}
    peaks: dict[Part, Array] = {}
    arguments: dict[Part, tuple[Array, Array]] = {}
    slope_sums: dict[Part, Array] = {}
    for level in levels_of(loss):
        for part in level:
            mask, t = masks[part.over], logits
            if part.minus is not None:
                empty = rows.rows_with_empty_reference(loss, counts, part.minus)
                mask = mask if empty is None else mask & ~empty[:, None]
                t = t - results[part.minus][:, None]
            t = xp.where(mask, part.scale * t + part.offset, 0.0)
            arguments[part] = (mask, t)
            if part.fold is Fold.LOGSUMEXP:
                peak = xp.max(xp.where(mask, t, -float("inf")), axis=1)
                peaks[part] = peak = xp.where(peak < EMPTY_MAXIMUM, EMPTY_MAXIMUM, peak)
                sums[part] = xp.sum(xp.where(mask, xp.exp(xp.where(mask, t - peak[:, None], 0.0)), 0.0), axis=1)
            else:
                sums[part] = xp.sum(xp.where(mask, elementwise.value(xp, part.fold, t), 0.0), axis=1)
                if part.minus is not None:
                    slope = part.scale * elementwise.slope(xp, part.fold, t)
                    slope_sums[part] = xp.sum(xp.where(mask, slope, 0.0), axis=1)
        for stage in loss.stages:
            if parts_of(stage)[0] in level:
                results[stage.name] = stage_result(xp, loss, stage, sums, peaks, counts)
                if stage.minus is not None:
                    slopes[stage.name] = stage_slope(xp, loss, stage, slope_sums, counts)
    counted = rows.without_uncounted(xp, loss, counts, xp.ones_like(counts.positive))
    total = xp.zeros_like(logits)
    size = xp.zeros_like(logits)
    for term in loss.terms:
        alone = replace(loss, terms=(term,))
        weights = part_weights(xp, alone, results, slopes, peaks, counts, counted)
        for part, weight in weights.items():
            if part.over is not Pairs.POSITIVE:
                continue
            mask, t = arguments[part]
            if part.fold is Fold.LOGSUMEXP:
                pull = xp.exp(xp.where(mask, t - peaks[part][:, None], 0.0))
            else:
                pull = elementwise.slope(xp, part.fold, t)
            pull = xp.where(mask, rows.weighed_slopes(xp, part.fold, pull, weight[:, None]), 0.0)
            total, size = total + pull, size + xp.abs(pull)
    largest = xp.max(xp.abs(logits), axis=1, keepdims=True)  # of which an exponential has the absolute rounding
    rounding = ROUNDINGS[backend.dtype_name(logits)] * size * (1.0 + largest)
    return xp.where(xp.abs(total) <= rounding, 0.0, total), counted
