"""The dense engine: the definition, on whole matrices. Read this one first.

It makes the N x M matrix of logits, folds it stage by stage, and so costs O(N M) memory. Positives and negatives are each
a panel: of the whole matrix under a mask, or, where positives are few, of these alone. It works in every namespace, and its
`value` can be differentiated by the framework to any order. `value_and_gradient` has the same derivative written out, once
for all losses:

    g_k  = ∂L/∂r_k       = weight * coefficient_k + Σ_{later stages m that subtract k} -scale_m Σ_j g_m ψ′_m
    C_ij = ∂L/∂a_ij      = Σ_k g_k scale_k ψ′_k(t_ij)      over the pairs of each stage; ψ′ = exp(t - r) for LOGSUMEXP
    dQ   = (C slope / τ) K          dK    = (C slope / τ)ᵀ Q
    dτ   = -Σ_ij C_ij value(s_ij) / τ²          dbias = Σ_ij C_ij
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from sincere_spec import elementwise, relations
from sincere_spec.engines import rows
from sincere_spec.engines.comparison import Comparison, Gradients, nothing, seen, specialise, zeros
from sincere_spec.engines.neighbours import neighbours
from sincere_spec.engines.parts import Part, part_weights, parts_of, stage_result, stage_slope
from sincere_spec.protocol import Fold, PairLoss, Pairs
from sincere_spec.types import Array, Backend, Namespace

# A log-sum-exp over nothing is relative to minus this: far below every logit, and no infinity to subtract from another.
EMPTY = 1e30

Way: TypeAlias = tuple[int, slice]
"""An axis along which a matrix is folded, and which of all rows the results are of."""

ROWS: tuple[Way, ...] = ((1, slice(None)),)


@dataclass(frozen=True)
class Panel:
    """The pairs of one kind: a matrix, and which of its entries are such pairs; None for all.

    `ceiling` says the same for `minimum`: inf where there is a pair, -inf elsewhere. There are two ways to fold a matrix
    whose columns are anchors, too. `columns` are those of the whole matrix from which the entries of another were taken.
    """

    similarity: Array
    mask: Array | None = None
    ceiling: Array | None = None
    ways: tuple[Way, ...] = ROWS
    columns: Array | None = None

    def by_row(self, xp: Namespace, fold: Callable[..., Array], entries: Sequence[Array]) -> Array:
        """A fold of the entries each way: a vector with a number for each row."""
        parts = [fold(x, axis=axis) for x, (axis, _) in zip(entries, self.ways, strict=True)]
        return parts[0] if len(parts) == 1 else xp.concat(parts, axis=0)

    def beside(self, vector: Array) -> list[Array]:
        """A vector by row, as it broadcasts against the entries each way."""
        return [vector[rows][:, None] if axis == 1 else vector[rows][None, :] for axis, rows in self.ways]


@dataclass(frozen=True)
class Folds:
    """The results of the stages, and by part the arguments and folded entries each way, and what these are relative to."""

    results: dict[str, Array]
    arguments: dict[Part, list[Array]]
    entries: dict[Part, list[Array]]
    peaks: dict[Part, Array]


def value(
    backend: Backend, loss: PairLoss, comparison: Comparison, temperature: Array, bias: Array, reduction: str
) -> Array:
    """The value of a loss, a scalar; or with the reduction "none" the loss of each row."""
    xp = backend.namespace(comparison.anchors)
    empty = nothing(xp, comparison, temperature, bias)
    if empty is not None:
        return empty if reduction == "none" else xp.sum(empty)
    panels, counts = _panels(backend, comparison)
    loss, counts = seen(backend, specialise(loss, comparison), counts)
    logits = _logits(backend, loss, panels, temperature, bias)
    row_losses = rows.losses(xp, loss, _folds(backend, loss, panels, logits, counts).results, counts)
    if reduction == "none":
        return row_losses
    return xp.sum(rows.weights(xp, loss, reduction, counts) * row_losses)


def value_and_gradient(
    backend: Backend,
    loss: PairLoss,
    comparison: Comparison,
    temperature: Array,
    bias: Array,
    reduction: str,
    needed: frozenset[str],
) -> tuple[Array, Gradients]:
    """The scalar value of a loss and its gradient, by the family's formula: no automatic differentiation is needed.

    `needed` has any of "anchors", "keys", "partners", "temperature" and "bias"; other gradients are left None.
    """
    xp = backend.namespace(comparison.anchors)
    empty = nothing(xp, comparison, temperature, bias)
    if empty is not None:
        return xp.sum(empty), zeros(xp, comparison)
    panels, counts = _panels(backend, comparison)
    loss, counts = seen(backend, specialise(loss, comparison), counts)
    logits = _logits(backend, loss, panels, temperature, bias)
    folds = _folds(backend, loss, panels, logits, counts)
    weights = rows.weights(xp, loss, reduction, counts)
    coefficients = _coefficients(xp, loss, panels, folds, counts, weights)
    value = xp.sum(weights * rows.losses(xp, loss, folds.results, counts))

    by_temperature = by_bias = None
    if "temperature" in needed:
        # Not logits - bias: a large bias has rounded them.
        values = (loss.logit.value(xp, panels[kind].similarity) for kind in coefficients)
        moved = sum(xp.sum(c * a) for c, a in zip(coefficients.values(), values, strict=True))
        by_temperature = -moved / temperature / temperature
    if "bias" in needed:
        by_bias = sum(xp.sum(c) for c in coefficients.values())
    if not loss.logit.unit_slope:
        coefficients = {kind: c * loss.logit.slope(xp, panels[kind].similarity) for kind, c in coefficients.items()}
    return value, _gradients(backend, comparison, panels, coefficients, temperature, by_temperature, by_bias, needed)


def _panels(backend: Backend, comparison: Comparison) -> tuple[dict[Pairs, Panel], rows.Counts]:
    """The pairs of either kind, and how many of them each row has."""
    xp = backend.namespace(comparison.anchors)
    similarity = backend.product(comparison.anchors, xp.matrix_transpose(comparison.columns))
    labels, key_labels = comparison.labels[:, None], comparison.key_labels[None, :]
    if comparison.partners is None:
        found = neighbours(backend, comparison)
        if found is not None:
            own = xp.take_along_axis(similarity, found.columns, axis=1)
            positive, _ = _panel(xp, own, found.mask, columns=found.columns)
            negative, number = _panel(xp, similarity, labels != key_labels)
            counts = rows.Counts(xp.astype(found.number, similarity.dtype), number)
            return {Pairs.POSITIVE: positive, Pairs.NEGATIVE: negative}, counts
        masks = relations.by_label(labels, key_labels, comparison.ids[:, None], comparison.key_ids[None, :])
        (positive, positives), (negative, number) = (_panel(xp, similarity, mask) for mask in masks)
        return {Pairs.POSITIVE: positive, Pairs.NEGATIVE: negative}, rows.Counts(positives, number)

    aligned = xp.sum(comparison.anchors * comparison.partners, axis=1, keepdims=True)
    ways = ROWS
    if comparison.both_ways:
        n = backend.length(comparison.anchors)
        ways = ((1, slice(None, n)), (0, slice(n, None)))
        aligned = xp.concat([aligned, aligned], axis=0)
    negative, number = _panel(xp, similarity, relations.beside_partners(labels, key_labels), ways)
    counts = rows.Counts(xp.ones_like(number), number, full=rows.FULL_OF_POSITIVES)
    return {Pairs.POSITIVE: Panel(aligned), Pairs.NEGATIVE: negative}, counts


def _panel(
    xp: Namespace, similarity: Array, mask: Array, ways: tuple[Way, ...] = ROWS, columns: Array | None = None
) -> tuple[Panel, Array]:
    """A panel of the pairs under a mask, and how many each row has of them."""
    seen = xp.astype(mask, similarity.dtype)  # numbers: a selection by booleans costs ten times as much in torch
    panel = Panel(similarity, mask, (seen - 0.5) * float("inf"), ways, columns)
    return panel, panel.by_row(xp, xp.sum, [seen] * len(ways))


def _logits(
    backend: Backend, loss: PairLoss, panels: Mapping[Pairs, Panel], temperature: Array, bias: Array
) -> dict[Pairs, Array]:
    one, other = (panels[kind].similarity for kind in (Pairs.POSITIVE, Pairs.NEGATIVE))
    negative = _logit(backend, loss, other, temperature, bias)
    positive = negative if one is other else _logit(backend, loss, one, temperature, bias)
    return {Pairs.POSITIVE: positive, Pairs.NEGATIVE: negative}


def _logit(backend: Backend, loss: PairLoss, s: Array, temperature: Array, bias: Array) -> Array:
    xp = backend.namespace(s)
    if loss.logit.held:  # the framework must differentiate the declared slope, not the value
        held = backend.hold(s)
        logits = loss.logit.value(xp, held) + loss.logit.slope(xp, held) * (s - held)
    else:
        logits = loss.logit.value(xp, s)
    logits = logits / temperature
    return logits if isinstance(bias, float) and not bias else logits + bias


def _folds(
    backend: Backend, loss: PairLoss, panels: Mapping[Pairs, Panel], logits: Mapping[Pairs, Array], counts: rows.Counts
) -> Folds:
    """Every stage, in order."""
    xp = backend.namespace(counts.positive)
    folds = Folds({}, {}, {}, {})
    sums: dict[Part, Array] = {}
    for stage in loss.stages:
        for part in parts_of(stage):
            if part in sums:
                continue
            panel = panels[part.over]
            if 0 in panel.similarity.shape:  # nothing is folded, and the result is still a function of the keys
                sums[part] = panel.by_row(xp, xp.sum, [panel.similarity] * len(panel.ways))
                folds.peaks[part] = sums[part] - EMPTY
                continue
            arguments = _arguments(xp, part, panel, logits[part.over], folds.results)
            if part.fold is Fold.LOGSUMEXP:
                peak = backend.hold(panel.by_row(xp, xp.max, arguments))
                folds.peaks[part] = peak = xp.where(peak < -EMPTY, -EMPTY, peak)  # false for NaN, which stays in it
                entries = [backend.exp_of(t - at) for t, at in zip(arguments, panel.beside(peak), strict=True)]
            else:
                entries = [elementwise.value(xp, part.fold, t) for t in arguments]
                folds.arguments[part] = arguments
            folds.entries[part] = entries
            sums[part] = _compared(xp, loss, part, panel.by_row(xp, xp.sum, entries), counts)
        folds.results[stage.name] = stage_result(xp, stage, sums, folds.peaks, counts)
    return folds


def _arguments(xp: Namespace, part: Part, panel: Panel, logits: Array, results: Mapping[str, Array]) -> list[Array]:
    """What a part folds, each way. Where there is no such pair it is what folds to 0: masked before, since it could overflow."""
    found: list[Array] = []
    for reference in [None] if part.minus is None else panel.beside(results[part.minus]):
        t = logits if reference is None else logits - reference
        if part.scale != 1.0:
            t = part.scale * t
        if part.offset:
            t = t + part.offset
        if panel.mask is not None:
            t = xp.where(panel.mask, t, 0.0) if part.fold is Fold.LINEAR else xp.minimum(t, panel.ceiling)
        found.append(t)
    return found if part.minus is not None else found * len(panel.ways)


def _compared(xp: Namespace, loss: PairLoss, part: Part, vector: Array, counts: rows.Counts) -> Array:
    """A part's numbers by row; 0 where what it subtracts is over nothing: against an empty reference a row has no pairs."""
    if part.minus is None:
        return vector
    reference = next(stage for stage in loss.stages if stage.name == part.minus)
    empty = counts.lacking(reference.over)
    return vector if empty is None else xp.where(empty, 0.0, vector)


def _coefficients(
    xp: Namespace,
    loss: PairLoss,
    panels: Mapping[Pairs, Panel],
    folds: Folds,
    counts: rows.Counts,
    row_cotangents: Array,
) -> dict[Pairs, Array]:
    """The derivative of the value by each logit, by kind of pair."""
    slopes: dict[Part, list[Array]] = {}
    for part, entries in folds.entries.items():
        mask = panels[part.over].mask
        if part.fold in (Fold.LOGSUMEXP, Fold.EXP):
            slopes[part] = entries
        else:
            slopes[part] = [elementwise.slope(xp, part.fold, t) for t in folds.arguments[part]]
        if part.fold is Fold.LINEAR and mask is not None:
            slopes[part] = [xp.where(mask, slope, 0.0) for slope in slopes[part]]
    comparing = [stage for stage in loss.stages if stage.minus is not None]
    falls = {part: xp.zeros_like(row_cotangents) for stage in comparing for part in parts_of(stage)}
    for part in falls.keys() & slopes.keys():
        fall = panels[part.over].by_row(xp, xp.sum, slopes[part])
        falls[part] = part.scale * _compared(xp, loss, part, fall, counts)
    by_reference = {stage.name: stage_slope(xp, stage, falls, counts) for stage in comparing}
    weights = part_weights(xp, loss, folds.results, by_reference, folds.peaks, counts, row_cotangents)
    coefficients: dict[Pairs, Array] = {}
    for part, both in slopes.items():
        kind = part.over
        for pull, weight in zip(
            both, panels[kind].beside(_compared(xp, loss, part, weights[part], counts)), strict=True
        ):
            pull *= weight
            coefficients[kind] = coefficients[kind] + pull if kind in coefficients else pull
    return {
        kind: coefficients[kind] if kind in coefficients else xp.zeros_like(panel.similarity)
        for kind, panel in panels.items()
    }


def _gradients(
    backend: Backend,
    comparison: Comparison,
    panels: Mapping[Pairs, Panel],
    coefficients: Mapping[Pairs, Array],
    temperature: Array,
    by_temperature: Array | None,
    by_bias: Array | None,
    needed: frozenset[str],
) -> Gradients:
    anchors, columns = comparison.anchors, comparison.columns
    xp = backend.namespace(anchors)
    pull, aligned = coefficients[Pairs.NEGATIVE], coefficients[Pairs.POSITIVE]
    columns_of_positives = panels[Pairs.POSITIVE].columns
    if comparison.partners is not None:
        aligned = aligned / temperature
    elif columns_of_positives is None:
        pull += aligned
    else:
        pull = xp.add_along_axis(pull, columns_of_positives, aligned, axis=1)
    if comparison.both_ways:
        n = backend.length(anchors)
        aligned = aligned[:n, :] + aligned[n:, :]
    by_anchors = by_keys = by_partners = None
    if "anchors" in needed:
        if comparison.keys is None:
            pull = pull + xp.matrix_transpose(pull)
        by_anchors = backend.product(pull, columns) / temperature
        if comparison.partners is not None:
            by_anchors = by_anchors + aligned * comparison.partners
    if "keys" in needed:
        by_keys = backend.product(xp.matrix_transpose(pull), anchors) / temperature
    if "partners" in needed:
        by_partners = aligned * anchors
    return Gradients(by_anchors, by_keys, by_partners, by_temperature, by_bias)
