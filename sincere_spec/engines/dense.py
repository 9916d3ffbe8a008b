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

from collections.abc import Mapping
from dataclasses import dataclass

from sincere_spec import elementwise, relations
from sincere_spec.engines import rows
from sincere_spec.engines.comparison import Comparison, Gradients, nothing, specialise, zeros
from sincere_spec.protocol import Fold, PairLoss, Pairs, Reduce
from sincere_spec.types import Array, Backend, Namespace


@dataclass(frozen=True)
class Block:
    """All rows of a comparison: their similarities, and which columns are positives and negatives."""

    similarity: Array
    positive: Array
    negative: Array

    def mask(self, pairs: Pairs) -> Array:
        """Where rows have pairs of a kind."""
        if pairs is Pairs.POSITIVE:
            return self.positive
        if pairs is Pairs.NEGATIVE:
            return self.negative
        return self.positive | self.negative


@dataclass(frozen=True)
class FoldedStage:
    """A stage's row results, and what its gradient is made of: its pairs, arguments and folded entries."""

    result: Array
    mask: Array
    argument: Array
    shares: Array
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
    block = _block(backend, comparison)
    counts = _counts(xp, block)
    folded = _folded(backend, loss, block, _logits(backend, loss, block, temperature, bias), counts)
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
    block = _block(backend, comparison)
    counts = _counts(xp, block)
    logits = _logits(backend, loss, block, temperature, bias)
    folded = _folded(backend, loss, block, logits, counts)
    results = {name: stage.result for name, stage in folded.items()}
    weights = rows.weights(xp, loss, reduction, counts)
    coefficients = _coefficients(xp, loss, folded, counts, weights)
    value = xp.sum(weights * rows.losses(xp, loss, results, counts))

    by_temperature = by_bias = None
    if "temperature" in needed:
        # Not logits - bias: a large bias has rounded them.
        scaled = loss.logit.value(xp, block.similarity) / temperature
        by_temperature = -xp.sum(coefficients * scaled) / temperature
    if "bias" in needed:
        by_bias = xp.sum(coefficients)
    if not loss.logit.unit_slope:
        coefficients = coefficients * loss.logit.slope(xp, block.similarity)
    return value, _gradients(backend, comparison, coefficients, temperature, by_temperature, by_bias, needed)


def _block(backend: Backend, comparison: Comparison) -> Block:
    xp = backend.namespace(comparison.anchors)
    similarity = backend.product(comparison.anchors, xp.matrix_transpose(comparison.columns))
    labels, key_labels = comparison.labels[:, None], comparison.key_labels[None, :]
    if comparison.partners is None:
        ids, key_ids = comparison.ids[:, None], comparison.key_ids[None, :]
        return Block(similarity, *relations.by_label(labels, key_labels, ids, key_ids))

    negative = relations.beside_partners(labels, key_labels)
    aligned = xp.sum(comparison.anchors * comparison.partners, axis=1, keepdims=True)
    if comparison.both_ways:
        similarity = xp.concat([similarity, xp.matrix_transpose(similarity)], axis=0)
        negative = xp.concat([negative, xp.matrix_transpose(negative)], axis=0)
        aligned = xp.concat([aligned, aligned], axis=0)
        labels = xp.concat([labels, labels], axis=0)
    here, nowhere = labels == labels, labels != labels
    return Block(
        xp.concat([similarity, aligned], axis=1),
        positive=xp.concat([negative & nowhere, here], axis=1),
        negative=xp.concat([negative, nowhere], axis=1),
    )


def _counts(xp: Namespace, block: Block) -> rows.Counts:
    dtype = block.similarity.dtype
    return rows.Counts(
        positive=xp.sum(xp.astype(block.positive, dtype), axis=1),
        negative=xp.sum(xp.astype(block.negative, dtype), axis=1),
    )


def _logits(backend: Backend, loss: PairLoss, block: Block, temperature: Array, bias: Array) -> Array:
    xp = backend.namespace(block.similarity)
    s = block.similarity
    if loss.logit.held:  # the framework must differentiate the declared slope, not the value
        held = backend.hold(s)
        logits = loss.logit.value(xp, held) + loss.logit.slope(xp, held) * (s - held)
    else:
        logits = loss.logit.value(xp, s)
    logits = logits / temperature
    return logits if isinstance(bias, float) and not bias else logits + bias


def _folded(
    backend: Backend, loss: PairLoss, block: Block, logits: Array, counts: rows.Counts
) -> dict[str, FoldedStage]:
    """Every stage, in order."""
    xp = backend.namespace(logits)
    stages: dict[str, FoldedStage] = {}
    for stage in loss.stages:
        mask, t = block.mask(stage.over), logits
        if stage.minus is not None:  # against an empty reference a row has no pairs
            reference = next(earlier for earlier in loss.stages if earlier.name == stage.minus)
            mask = mask & (counts.over(reference.over) > 0.0)[:, None]
            t = t - stages[stage.minus].result[:, None]
        if stage.scale != 1.0:
            t = stage.scale * t
        if stage.offset:
            t = t + stage.offset
        stages[stage.name] = _fold(backend, xp, stage, mask, t, counts)
    return stages


def _fold(backend: Backend, xp: Namespace, stage: Reduce, mask: Array, t: Array, counts: rows.Counts) -> FoldedStage:
    if stage.fold is Fold.LOGSUMEXP:
        t = xp.where(mask, t, -float("inf"))
        peak = backend.hold(xp.max(t, axis=1, keepdims=True))
        peak = xp.where(peak > -float("inf"), peak, 0.0)  # false for NaN, which stays in t
        shares = xp.exp(t - peak)
        empty = counts.over(stage.over) == 0.0
        total = xp.sum(shares, axis=1)
        total = xp.where(empty, 1.0, total)
        result = xp.log(total) + peak[:, 0]
        if stage.mean:
            result = result - xp.log(counts.divisor(xp, stage.over))
        return FoldedStage(result, mask, t, shares, total)
    if stage.fold is Fold.EXP:  # masked before, since what a mask hides could overflow
        t = xp.where(mask, t, -float("inf"))
        folded = xp.exp(t)
    else:
        folded = xp.where(mask, elementwise.value(xp, stage.fold, t), 0.0)
    result = xp.sum(folded, axis=1)
    if stage.mean:
        result = result / counts.divisor(xp, stage.over)
    return FoldedStage(result, mask, t, folded, None)


def _coefficients(
    xp: Namespace, loss: PairLoss, folded: Mapping[str, FoldedStage], counts: rows.Counts, row_cotangents: Array
) -> Array:
    """The derivative of the value by each logit."""
    cotangents = rows.term_cotangents(xp, loss, counts, row_cotangents)
    coefficients: Array = None
    for stage in reversed(loss.stages):
        own, share = folded[stage.name], stage.scale * cotangents[stage.name]
        if stage.fold is Fold.LOGSUMEXP:
            pull = own.shares * (share / own.total)[:, None]
        else:
            if stage.mean:
                share = share / counts.divisor(xp, stage.over)
            if stage.fold is Fold.EXP:
                pull = own.shares * share[:, None]
            else:
                pull = xp.where(own.mask, elementwise.slope(xp, stage.fold, own.argument) * share[:, None], 0.0)
        coefficients = pull if coefficients is None else coefficients + pull
        if stage.minus is not None:
            cotangents[stage.minus] = cotangents[stage.minus] - xp.sum(pull, axis=1)
    return coefficients


def _gradients(
    backend: Backend,
    comparison: Comparison,
    pull: Array,
    temperature: Array,
    by_temperature: Array | None,
    by_bias: Array | None,
    needed: frozenset[str],
) -> Gradients:
    xp = backend.namespace(pull)
    anchors, columns = comparison.anchors, comparison.columns
    aligned = None
    if comparison.partners is not None:
        n, m = backend.length(anchors), backend.length(columns)
        aligned = pull[:, m:] / temperature
        pull = pull[:, :m]
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
