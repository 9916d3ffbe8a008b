"""The dense engine: the definition, on whole matrices. Read this one first.

It makes the N x M matrix of logits, runs the stages over it, and so costs O(N M) memory. It works in every
namespace, and its `value` can be differentiated by the framework to any order. `gradient` is the same derivative
written out, once for all losses:

    g_k  = ∂L/∂r_k       = weight * coefficient_k + Σ_{later stages m that subtract k} -scale_m Σ_j g_m ψ′_m
    C_ij = ∂L/∂a_ij      = Σ_k g_k scale_k ψ′_k(t_ij)      over the pairs of each stage; ψ′ = exp(t - r) for LOGSUMEXP
    dQ   = (C slope / τ) K          dK    = (C slope / τ)ᵀ Q
    dτ   = -Σ_ij C_ij value(s_ij) / τ²          dbias = Σ_ij C_ij
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sincere_spec import elementwise, relations
from sincere_spec.engines import rows
from sincere_spec.engines.comparison import Comparison, Gradients, nothing, present, specialise, zeros
from sincere_spec.protocol import Fold, PairLoss, Pairs, Reduce
from sincere_spec.types import Array, Backend, Namespace


@dataclass(frozen=True)
class Panel:
    """Similarities of all rows, and which of them are of positives and of negatives; None for a kind that is not there.

    There is one for the keys, and where positives are partners another, of one column, for these.
    """

    similarity: Array
    positive: Array | None
    negative: Array | None

    def mask(self, pairs: Pairs) -> Array | None:
        """Where rows have pairs of a kind."""
        if pairs is Pairs.POSITIVE:
            return self.positive
        if pairs is Pairs.NEGATIVE:
            return self.negative
        if self.positive is None or self.negative is None:
            return self.negative if self.positive is None else self.positive
        return self.positive | self.negative


@dataclass(frozen=True)
class Folded:
    """The pairs of a stage in one panel: where they are, their arguments, and the folded entries."""

    mask: Array
    argument: Array
    shares: Array


@dataclass(frozen=True)
class FoldedStage:
    """A stage's row results, and what its gradient is made of, by panel."""

    result: Array
    panels: Mapping[int, Folded]
    total: Array | None


def value(
    backend: Backend, loss: PairLoss, comparison: Comparison, temperature: Array, bias: Array, reduction: str
) -> Array:
    """The value of a loss, a scalar; or with the reduction "none" the loss of each row."""
    xp = backend.namespace(comparison.anchors)
    empty = nothing(xp, comparison, temperature, bias)
    if empty is not None:
        return empty if reduction == "none" else xp.sum(empty)
    loss = specialise(loss, comparison)
    panels = _panels(backend, comparison)
    counts = _counts(xp, panels)
    loss = present(backend, loss, counts)
    folded = _folded(backend, loss, panels, _logits(backend, loss, panels, temperature, bias), counts)
    row_losses = rows.losses(xp, loss, {name: stage.result for name, stage in folded.items()}, counts)
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
    loss = specialise(loss, comparison)
    panels = _panels(backend, comparison)
    counts = _counts(xp, panels)
    loss = present(backend, loss, counts)
    logits = _logits(backend, loss, panels, temperature, bias)
    folded = _folded(backend, loss, panels, logits, counts)
    results = {name: stage.result for name, stage in folded.items()}
    weights = rows.weights(xp, loss, reduction, counts)
    coefficients = _coefficients(xp, loss, panels, folded, counts, weights)
    value = xp.sum(weights * rows.losses(xp, loss, results, counts))

    by_temperature = by_bias = None
    if "temperature" in needed:
        # Not logits - bias: a large bias has rounded them.
        values = (loss.logit.value(xp, panel.similarity) / temperature for panel in panels)
        by_temperature = -sum(xp.sum(c * a) for c, a in zip(coefficients, values, strict=True)) / temperature
    if "bias" in needed:
        by_bias = sum(xp.sum(c) for c in coefficients)
    if not loss.logit.unit_slope:
        slopes = (loss.logit.slope(xp, panel.similarity) for panel in panels)
        coefficients = tuple(c * slope for c, slope in zip(coefficients, slopes, strict=True))
    return value, _gradients(backend, comparison, coefficients, temperature, by_temperature, by_bias, needed)


def _panels(backend: Backend, comparison: Comparison) -> tuple[Panel, ...]:
    xp = backend.namespace(comparison.anchors)
    similarity = backend.product(comparison.anchors, xp.matrix_transpose(comparison.columns))
    labels, key_labels = comparison.labels[:, None], comparison.key_labels[None, :]
    if comparison.partners is None:
        ids, key_ids = comparison.ids[:, None], comparison.key_ids[None, :]
        return (Panel(similarity, *relations.by_label(labels, key_labels, ids, key_ids)),)

    negative = relations.beside_partners(labels, key_labels)
    aligned = xp.sum(comparison.anchors * comparison.partners, axis=1, keepdims=True)
    if comparison.both_ways:
        similarity = xp.concat([similarity, xp.matrix_transpose(similarity)], axis=0)
        negative = xp.concat([negative, xp.matrix_transpose(negative)], axis=0)
        aligned = xp.concat([aligned, aligned], axis=0)
        labels = xp.concat([labels, labels], axis=0)
    return Panel(similarity, None, negative), Panel(aligned, labels == labels, None)


def _counts(xp: Namespace, panels: Sequence[Panel]) -> rows.Counts:
    dtype = panels[0].similarity.dtype

    def counted(pairs: Pairs) -> Array:
        masks = (panel.mask(pairs) for panel in panels)
        return sum(xp.sum(xp.astype(mask, dtype), axis=1) for mask in masks if mask is not None)

    return rows.Counts(positive=counted(Pairs.POSITIVE), negative=counted(Pairs.NEGATIVE))


def _logits(
    backend: Backend, loss: PairLoss, panels: Sequence[Panel], temperature: Array, bias: Array
) -> tuple[Array, ...]:
    return tuple(_logit(backend, loss, panel.similarity, temperature, bias) for panel in panels)


def _logit(backend: Backend, loss: PairLoss, s: Array, temperature: Array, bias: Array) -> Array:
    xp = backend.namespace(s)
    if loss.logit.held:  # the framework must differentiate the declared slope, not the value
        held = backend.hold(s)
        logits = loss.logit.value(xp, held) + loss.logit.slope(xp, held) * (s - held)
    else:
        logits = loss.logit.value(xp, s)
    logits = logits / temperature
    return logits if isinstance(bias, float) and not bias else logits + bias


def _folded(
    backend: Backend, loss: PairLoss, panels: Sequence[Panel], logits: Sequence[Array], counts: rows.Counts
) -> dict[str, FoldedStage]:
    """Every stage, in order."""
    xp = backend.namespace(logits[0])
    stages: dict[str, FoldedStage] = {}
    for stage in loss.stages:
        seen: dict[int, tuple[Array, Array]] = {}
        bare: list[Array] = []
        for number, (panel, t) in enumerate(zip(panels, logits, strict=True)):
            mask = panel.mask(stage.over)
            if mask is None:
                continue
            if panel.similarity.shape[1] == 0:  # nothing is folded, and the result is still a function of the keys
                bare.append(xp.sum(panel.similarity, axis=1))
                continue
            if stage.minus is not None:  # against an empty reference a row has no pairs
                reference = next(earlier for earlier in loss.stages if earlier.name == stage.minus)
                mask = mask & (counts.over(reference.over) > 0.0)[:, None]
                t = t - stages[stage.minus].result[:, None]
            if stage.scale != 1.0:
                t = stage.scale * t
            if stage.offset:
                t = t + stage.offset
            seen[number] = mask, t
        if seen:
            stages[stage.name] = _fold(backend, xp, stage, seen, counts)
        else:
            zero: Array = sum(bare)
            stages[stage.name] = FoldedStage(zero, {}, zero + 1.0)
    return stages


def _fold(
    backend: Backend, xp: Namespace, stage: Reduce, seen: Mapping[int, tuple[Array, Array]], counts: rows.Counts
) -> FoldedStage:
    if stage.fold in (Fold.LOGSUMEXP, Fold.EXP):  # masked before, since what a mask hides could overflow
        seen = {number: (mask, xp.where(mask, t, -float("inf"))) for number, (mask, t) in seen.items()}
    if stage.fold is Fold.LOGSUMEXP:
        peak: Array = None
        for _, t in seen.values():
            highest = xp.max(t, axis=1, keepdims=True)
            peak = highest if peak is None else xp.where(highest > peak, highest, peak)
        peak = backend.hold(peak)
        peak = xp.where(peak > -float("inf"), peak, 0.0)  # false for NaN, which stays in t
        panels = {number: Folded(mask, t, xp.exp(t - peak)) for number, (mask, t) in seen.items()}
        total = sum(xp.sum(panel.shares, axis=1) for panel in panels.values())
        total = xp.where(counts.over(stage.over) == 0.0, 1.0, total)
        result = xp.log(total) + peak[:, 0]
        if stage.mean:
            result = result - xp.log(counts.divisor(xp, stage.over))
        return FoldedStage(result, panels, total)
    panels = {}
    for number, (mask, t) in seen.items():
        folded = xp.exp(t) if stage.fold is Fold.EXP else xp.where(mask, elementwise.value(xp, stage.fold, t), 0.0)
        panels[number] = Folded(mask, t, folded)
    result = sum(xp.sum(panel.shares, axis=1) for panel in panels.values())
    if stage.mean:
        result = result / counts.divisor(xp, stage.over)
    return FoldedStage(result, panels, None)


def _coefficients(
    xp: Namespace,
    loss: PairLoss,
    panels: Sequence[Panel],
    folded: Mapping[str, FoldedStage],
    counts: rows.Counts,
    row_cotangents: Array,
) -> tuple[Array, ...]:
    """The derivative of the value by each logit, by panel."""
    cotangents = rows.term_cotangents(xp, loss, counts, row_cotangents)
    coefficients: dict[int, Array] = {}
    for stage in reversed(loss.stages):
        own, share = folded[stage.name], stage.scale * cotangents[stage.name]
        if stage.fold is Fold.LOGSUMEXP:
            share = share / own.total
        elif stage.mean:
            share = share / counts.divisor(xp, stage.over)
        for number, panel in own.panels.items():
            if stage.fold in (Fold.LOGSUMEXP, Fold.EXP):
                pull = panel.shares * share[:, None]
            else:
                slope = elementwise.slope(xp, stage.fold, panel.argument)
                pull = xp.where(panel.mask, slope * share[:, None], 0.0)
            coefficients[number] = coefficients[number] + pull if number in coefficients else pull
            if stage.minus is not None:
                cotangents[stage.minus] = cotangents[stage.minus] - xp.sum(pull, axis=1)
    return tuple(
        coefficients[number] if number in coefficients else xp.zeros_like(panel.similarity)
        for number, panel in enumerate(panels)
    )


def _gradients(
    backend: Backend,
    comparison: Comparison,
    coefficients: tuple[Array, ...],
    temperature: Array,
    by_temperature: Array | None,
    by_bias: Array | None,
    needed: frozenset[str],
) -> Gradients:
    pull, *others = coefficients
    xp = backend.namespace(pull)
    anchors, columns = comparison.anchors, comparison.columns
    aligned = None
    if comparison.partners is not None:
        n = backend.length(anchors)
        aligned = others[0] / temperature
        if comparison.both_ways:
            aligned = aligned[:n, :] + aligned[n:, :]
            pull = pull[:n, :] + xp.matrix_transpose(pull[n:, :])
    by_anchors = by_keys = by_partners = None
    if "anchors" in needed:
        if comparison.keys is None:
            pull = pull + xp.matrix_transpose(pull)
        by_anchors = backend.product(pull, columns) / temperature
        if aligned is not None:
            by_anchors = by_anchors + aligned * comparison.partners
    if "keys" in needed:
        by_keys = backend.product(xp.matrix_transpose(pull), anchors) / temperature
    if "partners" in needed:
        by_partners = aligned * anchors
    return Gradients(by_anchors, by_keys, by_partners, by_temperature, by_bias)
