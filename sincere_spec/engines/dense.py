"""The dense engine: the definition, on whole matrices. Read this one first.

It makes the N x M matrix of logits, folds it stage by stage, and so costs O(N M) memory. Positives and negatives are each
a panel: of the whole matrix under a mask, or, where positives are few, of these alone. It works in every namespace, and its
`value` can be differentiated by the framework to any order. `value_and_gradient` has the same derivative written out, once
for all losses, and divides by the temperature where there are vectors only:

    g_k  = ∂L/∂r_k       = weight * coefficient_k + Σ_{later stages m that subtract k} -scale_m Σ_j g_m ψ′_m
    C_ij = ∂L/∂a_ij      = Σ_k g_k scale_k ψ′_k(t_ij)      over the pairs of each stage; ψ′ = exp(t - r) for LOGSUMEXP
    dQ   = (C slope / τ) K          dK    = (C slope / τ)ᵀ Q
    dτ   = -Σ_ij C_ij value(s_ij) / τ²          dbias = Σ_ij C_ij
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sincere_spec.arrays import Array, Namespace
from sincere_spec.engines import per_anchor, rows
from sincere_spec.engines.comparison import Comparison, Gradients, nothing, zeros
from sincere_spec.engines.panels import INFINITY, Panel, panels_of
from sincere_spec.engines.parts import EMPTY_MAXIMUM, Total, part_weights, parts_of, shift_of, stage_result, stage_slope
from sincere_spec.engines.prune import prune_terms, specialise
from sincere_spec.interface import Backend, Part
from sincere_spec.spec import elementwise
from sincere_spec.spec.words import Fold, Logit, PairLoss, Pairs


@dataclass(frozen=True)
class Folds:
    """The results of the stages, and by part the arguments and folded entries, and what these are relative to.

    There is one array of them for each way, or one for both. `totals` are those of log-sum-exps.
    """

    results: dict[str, Array]
    arguments: dict[Part, list[Array]]
    entries: dict[Part, list[Array]]
    maxima: dict[Part, Array | float]
    totals: dict[str, Total]


def value(comparison: Comparison, reduction: str) -> Array:
    """The value of a loss, a scalar; or with the reduction "none" the loss of each row."""
    xp, empty = comparison.xp, nothing(comparison)
    if empty is not None:
        return empty if reduction == "none" else xp.sum(empty)
    panels, counts = panels_of(comparison)
    loss, counts = prune_terms(comparison.backend, specialise(comparison), counts)
    row_losses = rows.losses(xp, loss, _folds(comparison, loss, panels, counts).results, counts)
    if reduction == "none":
        return row_losses
    return xp.sum(rows.weights(xp, loss, reduction, counts, comparison.rows_inside) * row_losses)


def value_and_gradient(
    comparison: Comparison, reduction: str, needed: frozenset[str], cotangent: Array | None = None
) -> tuple[Array, Gradients]:
    """The scalar value of a loss and its gradient, by the family's formula: no automatic differentiation is needed.

    `needed` has any of "anchors", "keys", "partners", "temperature" and "bias"; other gradients are left None. With the
    reduction "none" the value is the sum of the losses of all rows, each times its `cotangent`, `[rows]`.
    """
    xp, empty = comparison.xp, nothing(comparison)
    if empty is not None:
        return xp.sum(empty), zeros(comparison)
    panels, counts = panels_of(comparison)
    loss, counts = prune_terms(comparison.backend, specialise(comparison), counts)
    folds = _folds(comparison, loss, panels, counts)
    if reduction == "none":
        weights = rows.without_uncounted(xp, loss, counts, cotangent)
    else:
        weights = rows.weights(xp, loss, reduction, counts, comparison.rows_inside)
    value = xp.sum(weights * rows.losses(xp, loss, folds.results, counts))
    dlogits = _dlogits(comparison.backend, loss, panels, folds, counts, weights / comparison.temperature)

    by_temperature = by_bias = None
    if "temperature" in needed:
        # Not logits - bias: a large bias has rounded them.
        total = sum(xp.sum(c * loss.logit_of(kind).value(xp, panels[kind].similarity)) for kind, c in dlogits.items())
        by_temperature = -total / comparison.temperature
    if "bias" in needed:
        by_bias = comparison.temperature * sum(xp.sum(c) for c in dlogits.values())
    for kind, logit in [(kind, loss.logit_of(kind)) for kind in dlogits]:
        if not logit.unit_slope:
            dlogits[kind] = dlogits[kind] * logit.slope(xp, panels[kind].similarity)
    return value, _gradients(comparison, panels, dlogits, by_temperature, by_bias, needed)


def _logits(comparison: Comparison, logit: Logit, s: Array) -> Array:
    backend, xp = comparison.backend, comparison.xp
    if logit.held:  # the framework must differentiate the declared slope, not the value
        held = backend.hold(s)
        logits = logit.value(xp, held) + logit.slope(xp, held) * (s - held)
    else:
        logits = logit.value(xp, s)
    logits = logits / comparison.temperature
    return logits if isinstance(comparison.bias, float) and not comparison.bias else logits + comparison.bias


def _folds(comparison: Comparison, loss: PairLoss, panels: Mapping[Pairs, Panel], counts: rows.Counts) -> Folds:
    """Every stage, in order."""
    backend, xp = comparison.backend, comparison.xp
    parts = dict.fromkeys(part for stage in loss.stages for part in parts_of(stage))
    near, far = panels[Pairs.POSITIVE].similarity, panels[Pairs.NEGATIVE].similarity
    logits = dict.fromkeys(panels, _logits(comparison, loss.logit, far))
    if near is not far or loss.positive_logit is not None:
        logits[Pairs.POSITIVE] = _logits(comparison, loss.logit_of(Pairs.POSITIVE), near)
    last = {part.over: part for part in parts}
    known = _known_bounds(comparison)
    folds = Folds({}, {}, {}, {}, {})
    sums: dict[Part, Array] = {}
    for stage in loss.stages:
        for part in parts_of(stage):
            if part in sums:
                continue
            panel = panels[part.over]
            if 0 in panel.similarity.shape:  # nothing is folded, and the result is still a function of the keys
                sums[part] = panel.by_row(xp, xp.sum, [panel.similarity])
                folds.maxima[part] = sums[part] + EMPTY_MAXIMUM
                continue
            shift = None if known is None else shift_of(part, loss, *known)
            ends, idle = part == last[part.over], None
            if part.fold is Fold.EXP and shift != 0.0:  # it may overflow, also where it is for nothing
                idle = rows.without_effect(loss, counts, [one.name for one in loss.stages if part in parts_of(one)])
            arguments = _arguments(backend, part, panel, logits[part.over], folds.results, ends, idle)
            if part.fold is Fold.LOGSUMEXP:
                entries, folds.maxima[part] = _exponentials(backend, panel, arguments, shift)
            else:
                entries = [elementwise.value(xp, part.fold, t) for t in arguments]
                folds.arguments[part] = arguments
            entries = panel.weighed(part, entries)
            folds.entries[part] = entries
            sums[part] = _compared(xp, loss, part, panel.by_row(xp, xp.sum, entries), counts)
        folds.results[stage.name] = stage_result(xp, loss, stage, sums, folds.maxima, counts, folds.totals)
    return folds


def _exponentials(
    backend: Backend, panel: Panel, arguments: list[Array], shift: float | None
) -> tuple[list[Array], Array | float]:
    """Exponentials of arguments, which it may overwrite, and what they are relative to: a shift, or each row's maximum."""
    if shift is not None:
        return [backend.exp_of(t - shift if shift else t) for t in arguments], shift
    xp = backend.namespace(arguments[0])
    maximum = backend.hold(panel.by_row(xp, xp.max, arguments))
    maximum = xp.where(maximum < EMPTY_MAXIMUM, EMPTY_MAXIMUM, maximum)  # false for NaN, which stays in it
    both = arguments if len(arguments) == len(panel.ways) else arguments * len(panel.ways)
    return [backend.exp_of(t - at) for t, at in zip(both, panel.beside(maximum), strict=True)], maximum


def _known_bounds(comparison: Comparison) -> tuple[float, float, str] | None:
    """Temperature, bias and dtype of logits of unit rows, which bound them; None if they cannot be read here."""
    backend, parameters = comparison.backend, (comparison.temperature, comparison.bias)
    if not (comparison.unit_rows and all(isinstance(x, float) or backend.on_host(x) for x in parameters)):
        return None
    one, other = (x if isinstance(x, float) else float(backend.hold(x)) for x in parameters)
    return one, other, backend.dtype_name(comparison.anchors)


def _arguments(
    backend: Backend, part: Part, panel: Panel, logits: Array, results: Mapping[str, Array], last: bool, idle: Array
) -> list[Array]:
    """What a part folds, each way, or once for both. Where there is no such pair it is what folds to 0.

    It is hidden before the fold, since it could overflow, as is an exponential in rows where it is `idle`. The last part takes
    the logits themselves, to be overwritten.
    """
    found: list[Array] = []
    if part.minus is None and panel.mask is None and not last:
        logits = logits + 0.0
    one = panel.turned is None and part.minus is None and idle is None
    alike = [None] * (1 if one else len(panel.ways))
    references = alike if part.minus is None else panel.beside(results[part.minus])
    without = alike if idle is None else panel.beside(idle)
    for way, (reference, hidden) in enumerate(zip(references, without, strict=True)):
        t = logits if reference is None else logits - reference
        if part.scale != 1.0:
            t = part.scale * t
        if part.offset:
            t = t + part.offset
        t = t if hidden is None else backend.namespace(t).where(hidden, -INFINITY, t)
        at_zero = part.fold in (Fold.LINEAR, Fold.SQUARE)
        found.append(panel.fill_masked(backend, t, 0.0 if at_zero else -INFINITY, way))
    return found


def _compared(xp: Namespace, loss: PairLoss, part: Part, vector: Array, counts: rows.Counts) -> Array:
    """A part's numbers by row; 0 in rows with an empty reference, which have no pairs."""
    if part.minus is None:
        return vector
    empty = rows.rows_with_empty_reference(loss, counts, part.minus)
    return vector if empty is None else xp.where(empty, 0.0, vector)


def _dlogits(
    backend: Backend,
    loss: PairLoss,
    panels: Mapping[Pairs, Panel],
    folds: Folds,
    counts: rows.Counts,
    row_cotangents: Array,
) -> dict[Pairs, Array]:
    """The derivative of the value by each logit, by kind of pair."""
    xp = backend.namespace(row_cotangents)
    slopes: dict[Part, list[Array]] = {}
    for part, entries in folds.entries.items():
        panel = panels[part.over]
        if part.fold in (Fold.LOGSUMEXP, Fold.EXP):
            slopes[part] = entries
        elif not _constant(panel, part):
            found = panel.weighed(part, [elementwise.slope(xp, part.fold, t) for t in folds.arguments[part]])
            if part.fold is Fold.LINEAR:
                found = [panel.fill_masked(backend, slope, 0.0, way) for way, slope in enumerate(found)]
            slopes[part] = found
    comparing = [stage for stage in loss.stages if stage.minus is not None]
    slope_sums: dict[Part, Array] = {}
    for part in (part for stage in comparing for part in parts_of(stage)):
        if part in slopes:
            slope_sum = panels[part.over].by_row(xp, xp.sum, slopes[part])
            slope_sums[part] = part.scale * _compared(xp, loss, part, slope_sum, counts)
        else:
            slope_sums[part] = xp.zeros_like(row_cotangents)
    by_reference = {stage.name: stage_slope(xp, loss, stage, slope_sums, counts) for stage in comparing}
    weights = part_weights(xp, loss, folds.results, by_reference, folds.maxima, counts, row_cotangents, folds.totals)
    dlogits: dict[Pairs, Array] = {}
    for part in folds.entries:
        kind, panel = part.over, panels[part.over]
        shares = panel.beside(_compared(xp, loss, part, weights[part], counts))
        if part not in slopes:
            (share,) = shares
            share = share if panel.mask is None else xp.where(panel.mask, share, 0.0)
            made = [share if kind in dlogits or panel.mask is not None else xp.zeros_like(panel.similarity) + share]
        else:
            entries = slopes[part]
            if len(entries) < len(shares):
                shares = [shares[0] + shares[1]]
            made = []
            for slope, share in zip(entries, shares, strict=True):
                slope *= share
                made.append(slope)
        for one in made:
            dlogits[kind] = dlogits[kind] + one if kind in dlogits else one
    return {
        kind: dlogits[kind] if kind in dlogits else xp.zeros_like(panel.similarity) for kind, panel in panels.items()
    }


def _constant(panel: Panel, part: Part) -> bool:
    """Whether a part has the slope 1 at all pairs of a row, which are under a mask, or all."""
    linear = part.fold is Fold.LINEAR and not part.weighted and part.minus is None
    return linear and panel.hidden is None and len(panel.ways) == 1


def _gradients(
    comparison: Comparison,
    panels: Mapping[Pairs, Panel],
    dlogits: Mapping[Pairs, Array],
    by_temperature: Array | None,
    by_bias: Array | None,
    needed: frozenset[str],
) -> Gradients:
    backend, xp, anchors, columns = comparison.backend, comparison.xp, comparison.anchors, comparison.compared
    if comparison.keys_of_each is not None:
        keys, _ = per_anchor.keys_of(comparison)
        pull, aligned = dlogits[Pairs.NEGATIVE], dlogits[Pairs.POSITIVE]
        return Gradients(
            per_anchor.sums(comparison, pull, keys) + aligned * comparison.partners,
            xp.reshape(pull[:, :, None] * anchors[:, None, :], (-1, anchors.shape[1])) if "keys" in needed else None,
            aligned * anchors,
            by_temperature,
            by_bias,
        )
    pull, aligned = dlogits[Pairs.NEGATIVE], dlogits[Pairs.POSITIVE]
    if comparison.both_ways:
        n = backend.length(anchors)
        aligned = aligned[:n, :] + aligned[n:, :]
    partners, among = comparison.partners, panels[Pairs.POSITIVE].columns
    if among is not None:
        pull, partners = backend.added_to_columns(pull, among, aligned), None
    elif partners is None:
        pull = pull + aligned
    by_anchors = by_keys = by_partners = None
    if "anchors" in needed:
        if comparison.keys is None:
            pull = pull + xp.matrix_transpose(pull)
        by_anchors = backend.product(pull, columns)
        if partners is not None:
            by_anchors = by_anchors + aligned * partners
    if "keys" in needed:
        by_keys = backend.product(xp.matrix_transpose(pull), anchors)
    if "partners" in needed and partners is not None:
        by_partners = aligned * anchors
    return Gradients(by_anchors, by_keys, by_partners, by_temperature, by_bias)
