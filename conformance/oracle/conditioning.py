"""Values and gradients in closed form, in float64, with the rounding that any correct evaluation of them must be allowed.

Beside every array stands a bound of its rounding error in units of the unit round-off u, carried once through the same
formulas with absolute values: a dot product may be wrong by ``u sum|q_d k_d|``, an exponential by u times its argument's
error, and a difference by the sum of both sides' errors. So cancellation is forgiven exactly as much as arithmetic forces
it, and nothing else is. The losses follow their accurate forms: where a row has one positive by construction, and in
SINCERE, ``softplus(lse_negatives - l_p)``, whose error is relative to a loss however small.

The gradients are the published ones with respect to each similarity. They share nothing with the differences of
``differences.py`` and are checked against them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sincere_spec.conformance.oracle.pairs import Side, sides
from sincere_spec.conformance.oracle.problem import Array, Problem

__all__ = ["Conditioned", "conditioned", "value"]

Mask = NDArray[np.bool_]

_NORMALIZING = 1.0  # how many u the entries of a normalised row are wrong by
_USUAL = 0.5  # of the sum of all bounds: roundings do not conspire
_BLOCK = 128  # rows at a time: the arrays of a block then stay near the processor


@dataclass(frozen=True, eq=False)
class Conditioned:
    """What a problem's value and gradients are in float64, and the scale of their rounding (the error allowed, over u)."""

    value: Array
    scale: Array
    gradients: dict[str, Array]
    scales: dict[str, Array]


def _summed(terms: int) -> float:
    """How many u a sum is wrong by, over the sum of its absolute terms.

    Added one by one, as some libraries' matrix products do, terms of one sign reach sqrt(terms) u.
    """
    return max(1.0, math.sqrt(terms) / 2)


@dataclass(frozen=True, eq=False)
class _Rounded:
    at: Array
    error: Array


@dataclass(frozen=True, eq=False)
class _Comparison:
    """Anchors against keys: the arguments whose rows they are, and who is positive and who negative for some anchors.

    ``weights`` are those of positives, where they are not 1; ``inside`` says which anchors take part, where not all do.
    """

    anchors: tuple[str, ...]
    keys: tuple[str, ...]
    relate: Callable[[slice], tuple[Mask, Mask]]
    weights: Array | None = None
    inside: Mask | None = None

    def weight(self, rows: slice, positive: Mask) -> Array:
        """The weights of the positives of some anchors, and 0 for all other pairs."""
        return positive.astype(np.float64) if self.weights is None else np.where(positive, self.weights[rows], 0.0)


@dataclass(frozen=True, eq=False)
class _Logits:
    """Logits and their derivative by the similarity; ``tempered`` is the part that the temperature divides."""

    logit: _Rounded
    slope: _Rounded
    tempered: Array


@dataclass(frozen=True, eq=False)
class _Rows:
    """Row losses, and their derivatives by each logit of the row."""

    loss: _Rounded
    pull: _Rounded


# who is compared with whom


def _by_label(problem: Problem, anchors: int, keys: int) -> _Comparison:
    labels = np.asarray(problem.integers("labels"), dtype=np.int64)
    other_labels, ids, key_ids = problem.integers("key_labels"), problem.integers("ids"), problem.integers("key_ids")
    towers = ("embeddings",) if other_labels is None else ("keys",)
    key_labels = labels if other_labels is None else np.asarray(other_labels, dtype=np.int64)
    if other_labels is None:
        mine = np.arange(anchors) if ids is None else np.asarray(ids)
        theirs = mine
    elif ids is None or key_ids is None:
        mine, theirs = np.arange(anchors), -1 - np.arange(keys)
    else:
        mine, theirs = np.asarray(ids), np.asarray(key_ids)

    def relate(rows: slice) -> tuple[Mask, Mask]:
        same = labels[rows, None] == key_labels[None, :]
        apart = mine[rows, None] != theirs[None, :]
        return same & apart, ~same & apart

    return _Comparison(("embeddings",), towers, relate)


def _by_image(names: tuple[str, ...], images: int) -> _Comparison:
    image = np.tile(np.arange(images), len(names))
    place = np.arange(image.size)

    def relate(rows: slice) -> tuple[Mask, Mask]:
        same = image[rows, None] == image[None, :]
        return same & (place[rows, None] != place[None, :]), ~same

    return _Comparison(names, names, relate)


def _diagonal(anchors: str, keys: str, n: int) -> _Comparison:
    place = np.arange(n)

    def relate(rows: slice) -> tuple[Mask, Mask]:
        same = place[rows, None] == place[None, :]
        return same, ~same

    return _Comparison((anchors,), (keys,), relate)


def _diagonal_and(anchors: str, keys: str, n: int, rest: str, others: Callable[[Mask], Mask]) -> _Comparison:
    """Positives on the diagonal of ``keys``; all negatives in ``rest``, where ``others`` picks them."""
    place = np.arange(n)

    def relate(rows: slice) -> tuple[Mask, Mask]:
        same = place[rows, None] == place[None, :]
        picked = others(same)
        none_here, none_there = np.zeros_like(same), np.zeros_like(picked)
        return np.concatenate([same, none_there], axis=1), np.concatenate([none_here, picked], axis=1)

    return _Comparison((anchors,), (keys, rest), relate)


def _listed(side: Side) -> _Comparison:
    """Of a problem that says pair by pair who is compared with whom."""
    weights = side.rounded()

    def relate(rows: slice) -> tuple[Mask, Mask]:
        return weights[rows] > 0, weights[rows] == 0

    return _Comparison(side.anchors, side.keys, relate, weights, np.asarray(side.inside, dtype=np.bool_))


def _comparisons(problem: Problem, arrays: dict[str, Array]) -> list[_Comparison]:
    if problem.related:
        return [_listed(side) for side in sides(problem)]
    sizes = {name: len(x) for name, x in arrays.items()}
    if problem.loss in ("sincere", "supcon", "decoupled"):
        return [_by_label(problem, sizes["embeddings"], sizes.get("keys", 0))]
    if problem.loss in ("nt_xent", "dystress", "hcl"):
        names = tuple(f"view_{k}" for k in range(len(arrays)))
        return [_by_image(names, sizes["view_0"])]
    if "negatives" in arrays:
        anchors, keys, queue = *tuple(arrays)[:2], sizes["negatives"]

        def whole(same: Mask) -> Mask:
            return np.ones((len(same), queue), dtype=np.bool_)

        return [_diagonal_and(anchors, keys, sizes[anchors], "negatives", whole)]
    if problem.loss in ("info_nce", "dystress_info_nce"):
        return [_diagonal("queries", "positives", sizes["queries"])]
    if problem.loss in ("clip", "infoloob"):
        return [_diagonal("a", "b", sizes["a"]), _diagonal("b", "a", sizes["a"])]
    if problem.loss == "siglip":
        return [_diagonal("a", "b", sizes["a"])]
    if problem.loss == "f_micl":
        return [_diagonal_and("view_a", "view_b", sizes["view_a"], "view_a", np.logical_not)]
    raise ValueError(f"loss: no formula for {problem.loss!r}")


# logits


@dataclass(frozen=True, eq=False)
class _Schedule:
    """DySTreSS's temperature at a similarity, its derivative, both with their own rounding, and its second derivative."""

    tau: _Rounded
    slope: _Rounded
    bend: Array


def _schedule(problem: Problem, s: Array) -> _Schedule:
    low, high = problem.number("temperature_min"), problem.number("temperature_max")
    half, rate = (high - low) / 2, np.pi
    if problem.options.get("schedule", "cosine") == "cosine":
        angle, live = np.pi * (1 + s), np.ones_like(s)
    else:
        offset, rate = problem.number("offset"), np.pi / problem.number("scale")
        live = np.where(s > -offset, 0.0, 1.0)
        angle = rate * (s + offset) * live
    sine, cosine, off = np.abs(np.sin(angle)), np.abs(np.cos(angle)), 2 * (np.abs(angle) + np.pi)
    tau = low + half * (1 + np.cos(angle))
    slope, bend = -half * rate * np.sin(angle) * live, np.abs(half) * rate**2 * cosine * live
    return _Schedule(
        _Rounded(tau, tau + np.abs(half) * (2 + sine * off) * live),
        _Rounded(slope, 2 * np.abs(slope) + np.abs(half) * rate * cosine * off * live),
        bend,
    )


def _logits(problem: Problem, s: _Rounded, held: Array) -> _Logits:
    """The logits of similarities; a temperature that a loss holds constant is that of the similarities ``held``."""
    if problem.loss in ("dystress", "dystress_info_nce"):
        return _scheduled(problem, s, _schedule(problem, held))
    if problem.loss == "f_micl":
        rate, shifted = 2 * problem.number("inverse_bandwidth"), s.at - 1
        a = rate * shifted
        logit = _Rounded(a, rate * s.error + 2 * np.abs(a))
        return _Logits(logit, _Rounded(np.full_like(a, rate), np.full_like(a, rate)), np.zeros_like(a))
    rate = 1 / problem.number("temperature")
    tempered = rate * s.at
    logit = _Rounded(tempered, rate * s.error + 2 * np.abs(tempered))
    if "bias" in problem.options:
        a = tempered + problem.number("bias")
        logit = _Rounded(a, logit.error + np.abs(a))
    return _Logits(logit, _Rounded(np.full_like(tempered, rate), np.full_like(tempered, rate)), tempered)


def _scheduled(problem: Problem, s: _Rounded, schedule: _Schedule) -> _Logits:
    tau, slope = schedule.tau.at, schedule.slope.at
    a = s.at / tau
    tau_error = schedule.tau.error + np.abs(slope) * s.error
    logit = _Rounded(a, s.error / tau + np.abs(a) * (1 + tau_error / tau))
    rate = _Rounded(1 / tau, (tau_error / tau + 1) / tau)
    if not problem.options["detach"]:
        full = (tau - s.at * slope) / tau**2
        slope_error = schedule.slope.error + schedule.bend * s.error
        error = tau_error + np.abs(s.at) * slope_error + np.abs(slope) * (s.error + np.abs(s.at))
        rate = _Rounded(full, error / tau**2 + 2 * np.abs(full) * (tau_error / tau + 1))
    return _Logits(logit, rate, np.zeros_like(a))


# one function for each form of row loss


def _sigmoid(x: Array) -> Array:
    return np.exp(-np.logaddexp(0.0, -x))


def _log_sum_exp(a: _Rounded, over: Mask) -> tuple[_Rounded, _Rounded]:
    """The log-sum-exp of each row (as a column) and its softmax; of an empty row, minus infinity and zeros."""
    masked = np.where(over, a.at, -np.inf)
    top = np.max(masked, axis=1, keepdims=True, initial=-np.inf)
    top = np.where(np.isfinite(top), top, 0.0)
    weights = np.exp(masked - top)
    total = np.sum(weights, axis=1, keepdims=True)
    some = total > 0
    softmax = weights / np.where(some, total, 1.0)
    level = np.where(some, top + np.log(np.where(some, total, 1.0)), -np.inf)
    spread = np.where(over, np.abs(a.at - top), 0.0)
    error = np.sum(softmax * (a.error + _summed(over.shape[1]) + spread), axis=1, keepdims=True) + np.where(
        some, np.abs(level), 0.0
    )
    drop = np.where(over & some, np.abs(a.at - np.where(some, level, 0.0)), 0.0)
    return _Rounded(level, error), _Rounded(softmax, softmax * (a.error + error + drop + 2))


def _margin(a: _Rounded, positive: Mask, negative: Mask, epsilon: float) -> _Rows:
    """Mean over positives of ``softplus(lse_negatives - l_p + epsilon)``, minus epsilon: SINCERE, NT-Xent, InfoNCE."""
    noise, softmax = _log_sum_exp(a, negative)
    empty = ~np.isfinite(noise.at)
    gap = np.where(empty, 0.0, noise.at) - a.at
    x = np.where(positive & ~empty, gap + epsilon, -np.inf)
    x_error = np.where(positive & ~empty, noise.error + a.error + np.abs(gap) + np.abs(gap + epsilon), 0.0)
    share = 1 / np.maximum(np.sum(positive, axis=1, keepdims=True), 1)
    softplus, sigmoid = np.logaddexp(0.0, x), _sigmoid(x)
    loss = share * np.sum(softplus, axis=1, keepdims=True)
    error = share * np.sum(sigmoid * x_error + 2 * softplus, axis=1, keepdims=True) + loss
    loss = np.where(np.any(positive, axis=1, keepdims=True), loss - epsilon, 0.0)
    error = error + (np.abs(loss) if epsilon else 0.0)
    closing = 1 - sigmoid
    wrong = share * sigmoid * (closing * x_error + 3)
    push = share * np.sum(sigmoid, axis=1, keepdims=True)
    push_error = share * np.sum(sigmoid * (closing * x_error + 2), axis=1, keepdims=True) + push
    away = softmax.at * push
    pull = away - share * sigmoid
    return _Rows(_Rounded(loss, error), _Rounded(pull, wrong + softmax.error * push + softmax.at * push_error + away))


def _times(factor: float, a: _Rounded) -> _Rounded:
    at = factor * a.at
    return _Rounded(at, abs(factor) * a.error + np.abs(at))


def _reweighted(a: _Rounded, positive: Mask, negative: Mask, beta: float) -> _Rows:
    """``softplus(lse (1 + beta) l_n - lse beta l_n + log m - l_p)``: HCL, of one positive a row."""
    up, softmax = _log_sum_exp(_times(1 + beta, a), negative)
    down, share = _log_sum_exp(_times(beta, a), negative)
    own, mine = _mean_over(a, positive.astype(np.float64))
    number = np.sum(negative, axis=1, keepdims=True)
    some = (number > 0) & np.any(positive, axis=1, keepdims=True)
    log_number = np.log(np.maximum(number, 1))
    noise = _finite(up.at) - (_finite(down.at) - log_number)
    x = np.where(some, noise - own.at, -np.inf)
    rough = up.error + down.error + log_number + np.abs(_finite(down.at) - log_number) + np.abs(noise) + own.error
    x_error = np.where(some, rough + np.abs(noise - own.at), 0.0)
    softplus, sigmoid = np.logaddexp(0.0, x), _sigmoid(x)
    pull = sigmoid * ((1 + beta) * softmax.at - beta * share.at - mine)
    parts = (1 + beta) * softmax.at + beta * share.at + mine
    wrong = (1 + beta) * (softmax.error + softmax.at) + beta * (share.error + share.at) + mine
    return _Rows(
        _Rounded(softplus, sigmoid * x_error + 2 * softplus),
        _Rounded(pull, sigmoid * (wrong + parts * ((1 - sigmoid) * x_error + 3))),
    )


def _mean_over(a: _Rounded, weight: Array) -> tuple[_Rounded, Array]:
    total = np.sum(weight, axis=1, keepdims=True)
    share = weight / np.where(total > 0, total, 1.0)
    mean = np.sum(share * a.at, axis=1, keepdims=True)
    error = np.sum(share * (a.error + np.abs(a.at)), axis=1, keepdims=True)
    return _Rounded(mean, error + np.abs(mean)), share


def _finite(x: Array) -> Array:
    return np.where(np.isfinite(x), x, 0.0)


def _outside(a: _Rounded, weight: Array, negative: Mask) -> _Rows:
    """``lse_others - mean l_p``, a mean by weight: SupCon with the sum outside."""
    others, softmax = _log_sum_exp(a, (weight > 0) | negative)
    mean, share = _mean_over(a, weight)
    loss = _finite(others.at) - mean.at
    pull = softmax.at - share
    return _Rows(
        _Rounded(loss, others.error + mean.error + np.abs(loss)),
        _Rounded(pull, softmax.error + 2 * share + np.abs(pull)),
    )


def _inside(a: _Rounded, weight: Array, negative: Mask) -> _Rows:
    """``lse_others - lse_positives + log W``, of positives by weight: SupCon with the sum inside."""
    positive, total = weight > 0, np.sum(weight, axis=1, keepdims=True)
    others, softmax = _log_sum_exp(a, positive | negative)
    extra, log_total = np.log(np.where(positive, weight, 1.0)), np.log(np.where(total > 0, total, 1.0))
    shifted = _Rounded(a.at + extra, a.error + 2 * np.abs(extra) + np.abs(a.at + extra) * (extra != 0))
    same, ratio = _log_sum_exp(shifted, positive)
    gap = _finite(others.at) - _finite(same.at)
    loss, pull = gap + log_total, softmax.at - ratio.at
    return _Rows(
        _Rounded(loss, others.error + same.error + np.abs(gap) + np.abs(log_total) + np.abs(loss)),
        _Rounded(pull, softmax.error + ratio.error + np.abs(pull)),
    )


def _only_negatives(a: _Rounded, positive: Mask, negative: Mask) -> _Rows:
    """``lse_negatives - mean l_p``: the decoupled loss, and InfoLOOB."""
    noise, softmax = _log_sum_exp(a, negative)
    mean, share = _mean_over(a, positive.astype(np.float64))
    loss = _finite(noise.at) - mean.at
    return _Rows(
        _Rounded(loss, noise.error + mean.error + np.abs(loss)), _Rounded(softmax.at - share, softmax.error + 2 * share)
    )


def _pairwise(a: _Rounded, positive: Mask, negative: Mask) -> _Rows:
    """``sum_p softplus(-l_p) + sum_n softplus(l_n)``: SigLIP."""
    sign = np.where(positive, -1.0, 1.0)
    among = positive | negative
    softplus, sigmoid = np.logaddexp(0.0, sign * a.at) * among, _sigmoid(sign * a.at) * among
    loss = np.sum(softplus, axis=1, keepdims=True)
    error = np.sum(sigmoid * a.error + 2 * softplus, axis=1, keepdims=True) + loss
    return _Rows(_Rounded(loss, error), _Rounded(sign * sigmoid, sigmoid * ((1 - sigmoid) * a.error + 3)))


@dataclass(frozen=True, eq=False)
class _Term:
    """A function of a = log u: its value, derivative and second derivative by a, and the sizes of the terms they sum."""

    at: Array
    size: Array
    slope: Array
    slope_size: Array
    bend: Array


def _attraction(name: str, a: Array, order: float) -> _Term:
    """f'(u) at u = e^a."""
    one = np.ones_like(a)
    if name == "kl":
        return _Term(a + 1, np.abs(a) + 1, one, one, 0 * one)
    if name == "js":
        soft, s = np.logaddexp(0.0, -a), _sigmoid(-a)
        return _Term(np.log(2) - soft, np.log(2) + soft, s, s, s * (1 - s))
    if name == "pearson":
        u = np.exp(a)
        return _Term(2 * u - 2, 2 * u + 2, 2 * u, 2 * u, 2 * u)
    if name == "hellinger":
        v = np.exp(-a / 2)
        return _Term(1 - v, 1 + v, v / 2, v / 2, v / 4)
    if name == "tsallis":
        v = np.exp((order - 1) * a) * order
        return _Term(v / (order - 1), v / abs(order - 1), v, v, v * abs(order - 1))
    if name == "vincze_le_cam":
        v = _sigmoid(-a)
        slope = 8 * v**2 * (1 - v)
        return _Term(1 - 4 * v**2, 1 + 4 * v**2, slope, slope, 16 * v**2 * (1 - v) ** 2 + 8 * v**3 * (1 - v))
    v = np.exp(-a)
    if name == "reverse_kl":
        return _Term(-v, v, v, v, v)
    if name == "neyman":
        return _Term(1 - v**2, 1 + v**2, 2 * v**2, 2 * v**2, 4 * v**2)
    return _Term(1 - v + a, 1 + v + np.abs(a), v + 1, v + 1, v)  # Jeffreys


def _repulsion(name: str, a: Array, order: float) -> _Term:
    """f*(f'(u)) at u = e^a."""
    one = np.ones_like(a)
    if name == "js":
        soft, s = np.logaddexp(0.0, a), _sigmoid(a)
        return _Term(soft - np.log(2), soft + np.log(2), s, s, s * (1 - s))
    if name == "vincze_le_cam":
        v = _sigmoid(-a)
        w = v * (1 - v)
        bend = 8 * w * (1 - v) ** 2 + 16 * w * v * (1 - v)
        return _Term(3 - 8 * v + 4 * v**2, 3 + 8 * v + 4 * v**2, 8 * w * (1 - v), 8 * w * (1 + v), bend)
    if name == "reverse_kl":
        return _Term(a - 1, np.abs(a) + 1, one, one, 0 * one)
    if name == "neyman":
        v = 2 * np.exp(-a)
        return _Term(2 - v, 2 + v, v, v, v)
    if name == "jeffreys":
        u = np.exp(a)
        return _Term(u - 1 + a, u + 1 + np.abs(a), u + 1, u + 1, u)
    power, constant = {"kl": (1.0, 0.0), "pearson": (2.0, 1.0), "hellinger": (0.5, 1.0), "tsallis": (order, 0.0)}[name]
    u = np.exp(power * a)
    return _Term(u - constant, u + constant, power * u, power * u, power**2 * u)


def _divergence(a: _Rounded, positive: Mask, negative: Mask, name: str, alpha: float, order: float) -> _Rows:
    """``-f'(G)`` of the positive, plus alpha times the mean of ``f*(f'(G))`` over the negatives."""
    weight = alpha / np.maximum(np.sum(negative, axis=1, keepdims=True), 1) * np.ones_like(a.at)
    loss, size = np.zeros((len(a.at), 1)), np.zeros((len(a.at), 1))
    pull, pull_error = np.zeros_like(a.at), np.zeros_like(a.at)
    for function, among, sign in ((_attraction, positive, -1.0), (_repulsion, negative, 1.0)):
        term, error = function(name, a.at[among], order), a.error[among]
        w = weight[among] if sign > 0 else np.ones(len(error))
        at, bound = np.zeros_like(a.at), np.zeros_like(a.at)
        at[among] = sign * w * term.at
        bound[among] = w * (term.slope_size * error + 3 * term.size)
        loss, size = loss + np.sum(at, axis=1, keepdims=True), size + np.sum(bound, axis=1, keepdims=True)
        pull[among] = sign * w * term.slope
        pull_error[among] = w * (term.bend * error + 3 * term.slope_size)
    return _Rows(_Rounded(loss, size + np.abs(loss)), _Rounded(pull, pull_error))


def _rows(problem: Problem, a: _Rounded, weight: Array, negative: Mask) -> _Rows:
    loss, positive = problem.loss, weight > 0
    if loss == "sincere":
        return _margin(a, positive, negative, problem.number("epsilon"))
    if loss in ("decoupled", "infoloob"):
        return _only_negatives(a, positive, negative)
    if loss == "hcl":
        return _reweighted(a, positive, negative, problem.number("beta"))
    if loss == "siglip":
        return _pairwise(a, positive, negative)
    if loss == "f_micl":
        order = float(problem.options.get("order", 2.0))
        return _divergence(a, positive, negative, str(problem.options["divergence"]), problem.number("alpha"), order)
    if loss == "supcon":
        form = _outside if problem.options["summation"] == "out" else _inside
        return form(a, weight, negative)
    if loss in ("nt_xent", "dystress") and len(problem.arrays()) > 2:
        return _outside(a, weight, negative)
    return _margin(a, positive, negative, 0.0)


# the whole


def _normalised(x: Array) -> tuple[Array, Array]:
    """Unit rows, and the norms; a zero row stays zero, and has the norm infinity: nothing comes back through it."""
    largest = np.max(np.abs(x), axis=1, keepdims=True, initial=0.0)
    zero = largest == 0
    y = x / np.where(zero, 1.0, largest)
    norm = np.sqrt(np.sum(y * y, axis=1, keepdims=True))
    return y / np.where(zero, 1.0, norm), np.where(zero, np.inf, norm * largest)


def _blocks(n: int) -> Iterator[slice]:
    for first in range(0, n, _BLOCK):
        yield slice(first, min(first + _BLOCK, n))


def _counting(problem: Problem, positives: Array, negatives: Array) -> Mask:
    counting: Mask = positives > 0
    return counting & (negatives > 0) if problem.loss in ("decoupled", "infoloob") else counting


def _weights(reduction: str, counting: Mask, positives: Array, inside: Mask) -> Array:
    """What every row's loss is multiplied by."""
    weights = counting.astype(np.float64)
    if reduction == "pairs":
        weights = weights * positives
        return weights / (float(np.sum(weights)) or 1.0)
    number = {"mean": int(np.sum(counting)), "batch": int(np.sum(inside))}.get(reduction, 1)
    return weights / max(number, 1)


def _numbers(comparison: _Comparison, rows: slice) -> tuple[Mask, Array, Array]:
    """Negatives and weights of positives of some anchors, and by anchor: the weight, the negatives, whether it takes part."""
    positive, negative = comparison.relate(rows)
    weight = comparison.weight(rows, positive)
    inside = np.ones(len(weight)) if comparison.inside is None else comparison.inside[rows]
    return negative, weight, np.stack([np.sum(weight, axis=1), np.sum(negative, axis=1), inside])


def _stack(parts: dict[str, Array], names: tuple[str, ...]) -> Array:
    return np.concatenate([parts[name] for name in names], axis=0)


def _add(parts: dict[str, Array], names: tuple[str, ...], rows: Array) -> None:
    first = 0
    for name in names:
        last = first + len(parts[name])
        parts[name] += rows[first:last]
        first = last


def _projected(g: Array, wrong: Array, z: Array, norm: Array) -> tuple[Array, Array]:
    """The gradient by the embeddings from that by their unit rows, and its scale."""
    along = np.sum(z * g, axis=1, keepdims=True)
    along_wrong = np.sum(np.abs(z) * (wrong + (1 + _NORMALIZING) * np.abs(g)), axis=1, keepdims=True)
    left = g - z * along
    scale = wrong + np.abs(g) + np.abs(z) * (along_wrong + (1 + _NORMALIZING) * np.abs(along)) + 2 * np.abs(left)
    dead = ~np.isfinite(norm)
    return np.where(dead, 0.0, left / norm), np.where(dead, 0.0, scale / norm)


def conditioned(problem: Problem) -> Conditioned:
    """Value, gradients and their scales in float64."""
    arrays = problem.arrays()
    unit = {name: _normalised(x) for name, x in arrays.items()}
    towers = {name: z for name, (z, _) in unit.items()} if problem.normalize else arrays
    coarse = _NORMALIZING if problem.normalize else 0.0
    comparisons = _comparisons(problem, arrays)
    sides = [(c, _stack(towers, c.anchors), _stack(towers, c.keys)) for c in comparisons]

    counts = []
    for comparison, anchors, _ in sides:
        for rows in _blocks(len(anchors)):
            counts.append(_numbers(comparison, rows)[2])
    number = np.concatenate(counts, axis=1) if counts else np.zeros((3, 0))
    weights = _weights(problem.reduction, _counting(problem, number[0], number[1]), number[0], number[2] > 0)
    upstream = weights * problem.cotangent

    losses, errors = np.zeros_like(weights), np.zeros_like(weights)
    g = {name: np.zeros_like(x) for name, x in arrays.items()}
    wrong = {name: np.zeros_like(x) for name, x in arrays.items()}
    scalars = {name: np.zeros(2) for name in ("temperature", "bias") if name in problem.options}
    first = 0
    for comparison, anchors, keys in sides:
        key_g, key_wrong = np.zeros_like(keys), np.zeros_like(keys)
        anchor_g, anchor_wrong = np.zeros_like(anchors), np.zeros_like(anchors)
        adding = _summed(len(anchors)) + _summed(len(keys))
        for rows in _blocks(len(anchors)):
            q, here = anchors[rows], slice(first + rows.start, first + rows.stop)
            negative, weight, _ = _numbers(comparison, rows)
            s = _Rounded(q @ keys.T, (_summed(keys.shape[1]) + 2 * coarse) * (np.abs(q) @ np.abs(keys).T))
            logits = _logits(problem, s, s.at)
            result = _rows(problem, logits.logit, weight, negative)
            losses[here], errors[here] = result.loss.at[:, 0], result.loss.error[:, 0]

            w = upstream[here, None]
            pull, pull_error = w * result.pull.at, np.abs(w) * (result.pull.error + np.abs(result.pull.at))
            pull_error = np.where((weight > 0) | negative, pull_error, 0.0)
            b = pull * logits.slope.at
            b_error = pull_error * np.abs(logits.slope.at) + np.abs(pull) * logits.slope.error
            anchor_touched = b_error + (_summed(len(keys)) + coarse) * np.abs(b)
            key_touched = b_error + (_summed(len(anchors)) + coarse) * np.abs(b)
            anchor_g[rows], anchor_wrong[rows] = b @ keys, anchor_touched @ np.abs(keys)
            key_g, key_wrong = key_g + b.T @ q, key_wrong + key_touched.T @ np.abs(q)

            if "temperature" in scalars:
                tau, t = problem.number("temperature"), logits.tempered
                rough = pull_error * np.abs(t) + np.abs(pull) * (s.error / tau + (3 + adding) * np.abs(t))
                scalars["temperature"] += [-np.sum(pull * t) / tau, np.sum(rough) / tau]
            if "bias" in scalars:
                scalars["bias"] += [np.sum(pull), np.sum(pull_error + adding * np.abs(pull))]
        _add(g, comparison.anchors, anchor_g)
        _add(wrong, comparison.anchors, anchor_wrong)
        _add(g, comparison.keys, key_g)
        _add(wrong, comparison.keys, key_wrong)
        first += len(anchors)

    if problem.normalize:
        both = {name: _projected(g[name], wrong[name], *unit[name]) for name in arrays}
    else:
        both = {name: (g[name], wrong[name] + np.abs(g[name])) for name in arrays}
    gradients = {name: at.reshape(problem.arguments[name].shape) for name, (at, _) in both.items()}
    scales = {name: scale.reshape(problem.arguments[name].shape) for name, (_, scale) in both.items()}
    for name, (slope, bound) in scalars.items():
        gradients[name], scales[name] = np.asarray(slope), np.asarray(bound + abs(slope))

    at: Array = weights * losses
    scale: Array = weights * errors + 2 * np.abs(at)
    if problem.reduction != "none":
        scale = np.asarray(np.sum(scale + _summed(at.size) * np.abs(at)) + np.abs(np.sum(at)))
        at = np.asarray(np.sum(at))
    return Conditioned(
        at, np.asarray(_USUAL * scale), gradients, {name: _USUAL * wide for name, wide in scales.items()}
    )


def value(problem: Problem, start: Problem | None = None) -> Array:
    """The value alone; what a loss holds constant is taken from ``start`` where that is given."""
    arrays, held = problem.arrays(), (start or problem).arrays()
    if problem.normalize:
        arrays = {name: _normalised(x)[0] for name, x in arrays.items()}
        held = {name: _normalised(x)[0] for name, x in held.items()}
    losses, counts = [np.zeros(0)], [np.zeros((3, 0))]
    for comparison in _comparisons(problem, arrays):
        anchors, keys = _stack(arrays, comparison.anchors), _stack(arrays, comparison.keys)
        held_anchors, held_keys = _stack(held, comparison.anchors), _stack(held, comparison.keys)
        for rows in _blocks(len(anchors)):
            negative, weight, numbers = _numbers(comparison, rows)
            s = _Rounded(anchors[rows] @ keys.T, np.zeros((rows.stop - rows.start, len(keys))))
            constant = held_anchors[rows] @ held_keys.T if start and problem.options.get("detach") else s.at
            result = _rows(problem, _logits(problem, s, constant).logit, weight, negative)
            losses.append(result.loss.at[:, 0])
            counts.append(numbers)
    number, loss = np.concatenate(counts, axis=1), np.concatenate(losses)
    counting = _counting(problem, number[0], number[1])
    rows_at = _weights(problem.reduction, counting, number[0], number[2] > 0) * loss
    return rows_at if problem.reduction == "none" else np.asarray(np.sum(rows_at))
