"""What the losses are: each against loops over its published formula, and against the others where they meet.

The loops below share nothing with the package. They take one similarity at a time, and no step of theirs is clever.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import cos, exp, fsum, log, pi, sqrt
from pathlib import Path
from typing import Any, get_args

import mpmath
import numpy as np
import pytest
from catalogue import CALLS, DIVERGENCES, LABELLED, Call, distance, draw, rule
from frameworks import load
from hypothesis import given, settings
from hypothesis import strategies as st

import sincere_spec as ss
from sincere_spec import arrays, functions, losses
from sincere_spec.call import plan
from sincere_spec.engines import rows
from sincere_spec.losses.f_micl import Divergence
from sincere_spec.spec import elementwise
from sincere_spec.spec.words import PairLoss

REDUCTIONS = ("mean", "pairs", "batch", "sum", "none")
Matrix = np.ndarray
Row = tuple[float, int]  # the loss of a row that counts, and how many positives it has


# --- loops -------------------------------------------------------------------------------------------------------------


def unit(z: Matrix) -> Matrix:
    return np.asarray([[x / sqrt(fsum(y * y for y in row)) for x in row] for row in z])


def similarity(x: Sequence[float], y: Sequence[float]) -> float:
    return fsum(a * b for a, b in zip(x, y, strict=True))


def log_sum_exp(logits: Sequence[float]) -> float:
    top = max(logits)
    return top + log(fsum(exp(a - top) for a in logits))


def mean(values: Sequence[float]) -> float:
    return fsum(values) / len(values)


def softplus(t: float) -> float:
    return float(mpmath.log1p(mpmath.exp(t)))


def sincere_row(positives: list[float], negatives: list[float], epsilon: float = 0.0) -> float:
    return mean([log_sum_exp([p - epsilon, *negatives]) - p for p in positives])


def supcon_out_row(positives: list[float], negatives: list[float]) -> float:
    return mean([log_sum_exp([*positives, *negatives]) - p for p in positives])


def supcon_in_row(positives: list[float], negatives: list[float]) -> float:
    total = log_sum_exp([*positives, *negatives])
    return -log(mean([exp(p - total) for p in positives]))


def decoupled_row(positives: list[float], negatives: list[float]) -> float | None:
    return log_sum_exp(negatives) - mean(positives) if negatives else None


def labelled_rows(
    row: Callable[..., float | None], anchors: Matrix, keys: Matrix, same: Matrix, itself: Matrix, logit: Any
) -> list[Row | None]:
    result: list[Row | None] = []
    for i, z in enumerate(anchors):
        positives = [logit(similarity(z, k)) for j, k in enumerate(keys) if same[i, j] and not itself[i, j]]
        negatives = [logit(similarity(z, k)) for j, k in enumerate(keys) if not same[i, j]]
        loss = row(positives, negatives) if positives else None
        result.append(None if loss is None else (loss, len(positives)))
    return result


def reduced(rows: list[Row | None], reduction: str) -> Any:
    counting = [row for row in rows if row is not None]
    if reduction == "none":
        return np.asarray([0.0 if row is None else row[0] for row in rows])
    total = fsum(loss for loss, _ in counting)
    if reduction == "sum" or not counting:
        return total
    if reduction == "pairs":
        return fsum(loss * positives for loss, positives in counting) / sum(positives for _, positives in counting)
    return total / (len(counting) if reduction == "mean" else len(rows))


def assert_close(got: Any, want: Any, temperature: float, width: int, size: float = 0.0) -> None:
    """Within the rule, relative to the value or to what was added up for it: logits of size 1 / temperature, and `size`."""
    scale = np.max(np.abs(want), initial=1.0 / temperature + size + 1.0)
    np.testing.assert_allclose(got, want, rtol=0.0, atol=float(rule("float64", temperature, width) * scale))


# --- every loss is its formula -----------------------------------------------------------------------------------------

ROWS: dict[str, tuple[Callable[[float], PairLoss], Callable[..., float | None]]] = {
    "sincere": (losses.sincere, sincere_row),
    "sincere_epsilon": (lambda t: losses.sincere(t, 0.7), lambda p, n: sincere_row(p, n, 0.7)),
    "supcon_out": (losses.supcon, supcon_out_row),
    "supcon_in": (lambda t: losses.supcon(t, "in"), supcon_in_row),
    "decoupled": (losses.decoupled, decoupled_row),
}

temperatures = st.floats(0.05, 5.0)
seeds = st.integers(0, 2**32 - 1)


@st.composite
def batches(draw: Any, least: int = 1, most: int = 8) -> tuple[Matrix, list[int]]:
    n, width = draw(st.integers(least, most)), draw(st.integers(1, 5))
    labels = draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    return np.random.default_rng(draw(seeds)).normal(size=(n, width)), labels


def in_batch(
    row: Callable[..., float | None], z: Matrix, labels: Sequence[int], temperature: float
) -> list[Row | None]:
    same = np.asarray(labels)[:, None] == np.asarray(labels)
    return labelled_rows(row, z, z, same, np.eye(len(z), dtype=bool), lambda s: s / temperature)


@pytest.mark.parametrize("name", ROWS)
@given(batch=batches(), temperature=temperatures, reduction=st.sampled_from(REDUCTIONS))
def test_a_labelled_loss_is_its_formula(name: str, batch: Any, temperature: float, reduction: str) -> None:
    z, labels = batch
    record, row = ROWS[name]
    want = reduced(in_batch(row, unit(z), labels, temperature), reduction)
    got = ss.evaluate(record(temperature), z, labels, reduction=reduction)
    assert_close(got, want, temperature, z.shape[1], size=len(z) / temperature if reduction == "sum" else 0.0)


@pytest.mark.parametrize("name", ROWS)
@given(data=st.data(), batch=batches(), temperature=temperatures, reduction=st.sampled_from(REDUCTIONS))
def test_with_keys_anchors_are_compared_with_the_keys_alone(
    name: str, data: Any, batch: Any, temperature: float, reduction: str
) -> None:
    """Keys of an equal id are the anchor itself, wherever they stand; a key may be no anchor's, and an anchor no key."""
    z, labels = batch
    record, row = ROWS[name]
    m = data.draw(st.integers(1, 6))
    keys = np.random.default_rng(m).normal(size=(m, z.shape[1]))
    key_labels = data.draw(st.lists(st.integers(0, 3), min_size=m, max_size=m))
    same = np.asarray(labels)[:, None] == np.asarray(key_labels)
    options: dict[str, Any] = {"keys": keys, "key_labels": key_labels}
    itself = np.zeros((len(z), m), dtype=bool)
    if data.draw(st.booleans()):
        ids = data.draw(st.lists(st.integers(0, 9), min_size=len(z), max_size=len(z)))
        key_ids = data.draw(st.lists(st.integers(0, 9), min_size=m, max_size=m))
        itself = np.asarray(ids)[:, None] == np.asarray(key_ids)
        options |= {"ids": ids, "key_ids": key_ids}
    rows = labelled_rows(row, unit(z), unit(keys), same & ~itself | itself, itself, lambda s: s / temperature)
    got = ss.evaluate(record(temperature), z, labels, reduction=reduction, **options)
    size = len(z) / temperature if reduction == "sum" else 0.0
    assert_close(got, reduced(rows, reduction), temperature, z.shape[1], size)


@given(n=st.integers(1, 4), views=st.integers(2, 4), width=st.integers(1, 4), temperature=temperatures, seed=seeds)
def test_nt_xent_is_its_formula(n: int, views: int, width: int, temperature: float, seed: int) -> None:
    arrays = list(np.random.default_rng(seed).normal(size=(views, n, width)))
    rows = in_batch(supcon_out_row, unit(np.concatenate(arrays)), list(range(n)) * views, temperature)
    for reduction in ("mean", "none"):
        got = ss.nt_xent_loss(*arrays, temperature=temperature, reduction=reduction)
        assert_close(got, reduced(rows, reduction), temperature, width)


def cosine(s: float) -> float:
    return 0.1 + 0.5 * (0.3 - 0.1) * (1.0 + cos(pi * (1.0 + s)))


def shifted(s: float) -> float:
    return 0.1 + 0.5 * (0.3 - 0.1) * (1.0 + cos(pi * (s - 0.4) / 0.7)) if s <= 0.4 else 0.3


@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("tau", [cosine, shifted])
@given(n=st.integers(1, 4), views=st.integers(2, 3), seed=seeds)
def test_dystress_is_nt_xent_with_a_temperature_for_each_pair(
    detach: bool, tau: Callable[[float], float], n: int, views: int, seed: int
) -> None:
    arrays = list(np.random.default_rng(seed).normal(size=(views, n, 4)))
    labels = np.asarray(list(range(n)) * views)
    z = unit(np.concatenate(arrays))
    same, itself = labels[:, None] == labels, np.eye(len(z), dtype=bool)
    rows = labelled_rows(supcon_out_row, z, z, same, itself, lambda s: s / tau(s))
    got = ss.dystress_loss(
        *arrays, temperature_min=0.1, temperature_max=0.3, detach=detach, schedule=tau.__name__, reduction="none"
    )
    # The logit's slope is at most (1 + |s τ'| / τ) / τ, and |s τ'| / τ <= π/2 * 0.2 / 0.7 / 0.1: less than 4.5 more than 1 / τ.
    assert_close(got, reduced(rows, "none"), 0.1 / 5.5, 4)


@given(n=st.integers(1, 5), queue=st.integers(0, 5), width=st.integers(1, 4), temperature=temperatures, seed=seeds)
def test_info_nce_is_its_formula(n: int, queue: int, width: int, temperature: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    q, p, negatives = rng.normal(size=(n, width)), rng.normal(size=(n, width)), rng.normal(size=(queue, width))
    logits = unit(q) @ unit(p).T / temperature
    rows = [log_sum_exp(list(logits[i])) - logits[i, i] for i in range(n)]
    got = ss.info_nce_loss(q, p, temperature=temperature, reduction="none")
    assert_close(got, rows, temperature, width)

    bank = unit(q) @ unit(negatives).T / temperature if queue else np.zeros((n, 0))
    rows = [log_sum_exp([logits[i, i], *bank[i]]) - logits[i, i] for i in range(n)]
    got = ss.info_nce_loss(q, p, negatives, temperature=temperature, reduction="none")
    assert_close(got, rows, temperature, width)


@given(n=st.integers(1, 5), width=st.integers(1, 4), temperature=temperatures, seed=seeds)
def test_clip_and_siglip_are_their_formulas(n: int, width: int, temperature: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(n, width)), rng.normal(size=(n, width))
    logits = unit(a) @ unit(b).T / temperature
    directions = [[log_sum_exp(list(m[i])) - m[i, i] for i in range(n)] for m in (logits, logits.T)]
    assert_close(ss.clip_loss(a, b, temperature=temperature), mean(list(map(mean, directions))), temperature, width)
    rows = ss.clip_loss(a, b, temperature=temperature, reduction="none")
    assert_close(rows, directions[0] + directions[1], temperature, width)

    signs = 2.0 * np.eye(n) - 1.0
    pairs = [[softplus(-signs[i, j] * (logits[i, j] - 3.0)) for j in range(n)] for i in range(n)]
    want = fsum(fsum(row) for row in pairs) / n
    assert_close(ss.siglip_loss(a, b, temperature=temperature, bias=-3.0), want, temperature, width, size=3.0 * n)


def f_of(divergence: str, u: Any, order: float) -> Any:
    """The generator f, from which the loss needs f′ and f* ∘ f′ = u f′ - f."""
    m = mpmath
    return {
        "kl": lambda: u * m.log(u),
        "js": lambda: u * m.log(u) - (u + 1) * m.log((u + 1) / 2),
        "pearson": lambda: (u - 1) ** 2,
        "hellinger": lambda: (m.sqrt(u) - 1) ** 2,
        "tsallis": lambda: u**order / (order - 1),
        "vincze_le_cam": lambda: (u - 1) ** 2 / (u + 1),
        "reverse_kl": lambda: -m.log(u),
        "neyman": lambda: (1 - u) ** 2 / u,
        "jeffreys": lambda: (u - 1) * m.log(u),
    }[divergence]()


@pytest.mark.parametrize("divergence", DIVERGENCES)
@settings(max_examples=10)
@given(n=st.integers(1, 4), seed=seeds, order=st.sampled_from([0.5, 1.5, 2.0, 3.0]))
def test_f_micl_follows_from_the_generator_of_its_divergence(divergence: str, n: int, seed: int, order: float) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(n, 3)), rng.normal(size=(n, 3))
    alpha, c = 3.0, 0.8

    def kernel(x: Matrix, y: Matrix) -> Any:
        return mpmath.exp(-c * mpmath.fsum((mpmath.mpf(p) - q) ** 2 for p, q in zip(x, y)))

    def slope(u: Any) -> Any:
        return mpmath.diff(lambda v: f_of(divergence, v, order), u)

    def conjugate(u: Any) -> Any:
        return u * slope(u) - f_of(divergence, u, order)

    with mpmath.workdps(40):
        x, y = unit(a), unit(b)
        rows = []
        for i in range(n):
            attract = slope(kernel(x[i], y[i]))
            repel = [conjugate(kernel(x[i], x[j])) for j in range(n) if j != i]
            rows.append(float(-attract + alpha * mpmath.fsum(repel) / max(len(repel), 1)))
    got = ss.f_micl_loss(a, b, divergence=divergence, alpha=alpha, inverse_bandwidth=c, order=order, reduction="none")
    # d(loss)/d(logit) is largest for Neyman's on a distant positive: 2 exp(2 * 4 c), and order 3 has slopes of 4.5.
    steepest = (
        2.0 * exp(8.0 * c) if divergence == "neyman" else exp(4.0 * c) if divergence != "tsallis" else 3.0 * exp(2 * c)
    )
    assert_close(got, rows, 0.5 / c, 3, size=steepest * alpha)


# --- where losses meet -------------------------------------------------------------------------------------------------


@given(n=st.integers(2, 5), temperature=temperatures, seed=seeds)
def test_with_one_positive_a_row_the_supervised_losses_are_nt_xent(n: int, temperature: float, seed: int) -> None:
    a, b = np.random.default_rng(seed).normal(size=(2, n, 4))
    z, labels = np.concatenate([a, b]), list(range(n)) * 2
    want, gradient = ss.value_and_gradient(losses.nt_xent(temperature), a, b)
    for loss in (losses.sincere(temperature), losses.supcon(temperature), losses.supcon(temperature, "in")):
        value, got = ss.value_and_gradient(loss, z, labels)
        assert distance(value, want) <= rule("float64", temperature)
        assert distance(got, np.concatenate(gradient)) <= rule("float64", temperature)


@given(batch=batches(), temperature=temperatures)
def test_sincere_is_at_most_supcon_and_supcon_in_at_most_out(batch: Any, temperature: float) -> None:
    z, labels = batch
    outside, inside, sincere = (
        ss.evaluate(loss, z, labels, reduction="none")
        for loss in (losses.supcon(temperature), losses.supcon(temperature, "in"), losses.sincere(temperature))
    )
    slack = rule("float64", temperature, z.shape[1]) * (1.0 + 1.0 / temperature)
    assert np.all(sincere <= outside + slack)
    assert np.all(inside <= outside + slack)
    # log |P| is the least that SupCon can reach, and 0 the least of SINCERE.
    positives = np.sum(np.asarray(labels)[:, None] == np.asarray(labels), axis=1) - 1
    assert np.all(inside >= np.log(np.maximum(positives, 1)) - slack)
    assert np.all(sincere >= 0.0)


def test_sincere_is_less_than_supcon_where_a_row_has_several_positives() -> None:
    z, labels = CALLS["sincere"].arrays["embeddings"], [0, 0, 0, 1, 1, 1]
    assert np.all(ss.sincere_loss(z, labels, reduction="none") < ss.supcon_loss(z, labels, reduction="none") - 1e-3)


@given(n=st.integers(1, 4), views=st.integers(2, 3), temperature=temperatures, seed=seeds)
@pytest.mark.parametrize("schedule", ["cosine", "shifted"])
@pytest.mark.parametrize("detach", [True, False])
def test_with_equal_temperatures_dystress_is_nt_xent(
    schedule: str, detach: bool, n: int, views: int, temperature: float, seed: int
) -> None:
    arrays = list(np.random.default_rng(seed).normal(size=(views, n, 4)))
    loss = losses.dystress(temperature, temperature, detach, schedule)
    value, gradient = ss.value_and_gradient(loss, *arrays)
    want, want_gradient = ss.value_and_gradient(losses.nt_xent(temperature), *arrays)
    assert_close(value, want, temperature, 4)
    np.testing.assert_allclose(
        np.stack(gradient),
        np.stack(want_gradient),
        rtol=0.0,
        atol=rule("float64", temperature) * gradient_size(arrays, temperature),
    )


def gradient_size(arrays: Sequence[Matrix], temperature: float) -> float:
    """No row of a gradient is longer than this: twice the sum of its coefficients, over the row's norm."""
    return 4.0 / temperature / float(np.min(np.linalg.norm(np.concatenate(arrays), axis=1)))


def test_dystress_holds_its_temperature_constant_unless_asked() -> None:
    """The gradient is that of the loss in which each pair keeps the temperature that it has now."""
    a, b = (unit(x) for x in CALLS["dystress"].arrays.values())
    z, n = np.concatenate([a, b]), len(a) * 2
    s = z @ z.T
    tau = np.vectorize(cosine)(s)
    q = np.exp(s / tau) * ~np.eye(n, dtype=bool)
    partner = np.roll(np.eye(n), len(a), axis=1)
    pull = (q / np.sum(q, axis=1, keepdims=True) - partner) / tau / n
    loss = losses.dystress(0.1, 0.3)
    value, gradient = ss.value_and_gradient(loss, a, b, normalize=False)
    assert distance(np.concatenate(gradient), (pull + pull.T) @ z) <= rule("float64", 0.1)
    full_value, full = ss.value_and_gradient(losses.dystress(0.1, 0.3, detach=False), a, b, normalize=False)
    assert full_value == value
    assert distance(np.concatenate(full), np.concatenate(gradient)) > 0.01


@given(n=st.integers(2, 6), seed=seeds, c=st.floats(0.2, 3.0))
def test_kl_f_micl_is_a_donsker_varadhan_bound_at_its_best_alpha(n: int, seed: int, c: float) -> None:
    """max over alpha of J(alpha) + log(alpha) is mean T_ii - log mean exp(T_ij), at alpha = 1 / mean G_ij."""
    a, b = (unit(x) for x in np.random.default_rng(seed).normal(size=(2, n, 3)))
    aligned = -c * np.sum((a - b) ** 2, axis=1)
    distances = -c * np.sum((a[:, None] - a[None]) ** 2, axis=2)[~np.eye(n, dtype=bool)]
    best = 1.0 / np.mean(np.exp(distances))

    def objective(alpha: float) -> float:
        return float(log(alpha) - ss.f_micl_loss(a, b, divergence="kl", alpha=alpha, inverse_bandwidth=c))

    want = np.mean(aligned) - log(np.mean(np.exp(distances)))
    assert_close(objective(best), want, 0.5 / c, 3, size=float(best))
    assert objective(best * 1.1) < objective(best)
    assert objective(best / 1.1) < objective(best)


@given(batch=batches(least=2), temperature=temperatures)
def test_a_large_epsilon_decouples(batch: Any, temperature: float) -> None:
    """log(exp(a_p - epsilon) + Σ exp(a_n)) - a_p loses its first summand; at 100 it is below the last digit."""
    z, labels = batch
    labels[0], labels[1] = 7, 8  # every row has a negative
    got = ss.sincere_loss(z, labels, temperature, epsilon=100.0, reduction="none")
    want = ss.decoupled_loss(z, labels, temperature, reduction="none")
    assert_close(got, want, temperature, z.shape[1], size=100.0)


@given(batch=batches(), temperature=temperatures, epsilon=st.floats(0.0, 5.0))
def test_epsilon_lowers_the_positives_and_the_loss(batch: Any, temperature: float, epsilon: float) -> None:
    z, labels = batch
    s = unit(z) @ unit(z).T
    lowered = s - temperature * epsilon * (np.asarray(labels)[:, None] == np.asarray(labels))
    rows = np.asarray(ss.evaluate(losses.sincere(temperature), lowered, labels, **of_similarities(labels)))
    has_positive = np.sum(np.asarray(labels)[:, None] == np.asarray(labels), axis=1) > 1
    got = ss.sincere_loss(z, labels, temperature, epsilon=epsilon, reduction="none")
    assert_close(got, rows - epsilon * has_positive, temperature, z.shape[1], size=epsilon)
    assert np.all(got <= ss.sincere_loss(z, labels, temperature, reduction="none") + 1e-12 * (1.0 + 1.0 / temperature))


@given(n=st.integers(1, 5), temperature=temperatures, seed=seeds)
def test_clip_is_the_mean_of_info_nce_both_ways(n: int, temperature: float, seed: int) -> None:
    a, b = np.random.default_rng(seed).normal(size=(2, n, 4))
    there, back = (ss.info_nce_loss(x, y, temperature=temperature) for x, y in ((a, b), (b, a)))
    assert_close(ss.clip_loss(a, b, temperature=temperature), (there + back) / 2.0, temperature, 4)


@given(n=st.integers(1, 5), temperature=temperatures, seed=seeds)
def test_info_nce_without_a_queue_has_the_other_positives_as_each_row_s_queue(
    n: int, temperature: float, seed: int
) -> None:
    q, p = np.random.default_rng(seed).normal(size=(2, n, 4))
    rows = [
        ss.info_nce_loss(q[i : i + 1], p[i : i + 1], np.delete(p, i, axis=0), temperature=temperature) for i in range(n)
    ]
    assert_close(ss.info_nce_loss(q, p, temperature=temperature, reduction="none"), rows, temperature, 4)


def test_moco_is_the_cross_entropy_of_the_positive_before_the_queue() -> None:
    q, p, queue = CALLS["info_nce_queue"].arrays.values()
    logits = np.concatenate([np.sum(q * p, axis=1, keepdims=True), q @ queue.T], axis=1) / 0.5
    want = mean([log_sum_exp(list(row)) - row[0] for row in logits])
    got = ss.info_nce_loss(q, p, queue, temperature=0.5, normalize=False)
    assert distance(got, want) <= rule("float64", 0.5)


@pytest.mark.parametrize("name", LABELLED)
@given(n=st.integers(0, 4), views=st.integers(1, 3), seed=seeds, reduction=st.sampled_from(REDUCTIONS))
def test_views_of_a_sample_are_rows_with_its_label(name: str, n: int, views: int, seed: int, reduction: str) -> None:
    rng = np.random.default_rng(seed)
    z, labels = rng.normal(size=(n, views, 3)), rng.integers(0, 2, size=n)
    loss = CALLS[name].loss
    flat, repeated = z.reshape(n * views, 3), np.repeat(labels, views)
    np.testing.assert_array_equal(
        ss.evaluate(loss, z, labels, reduction=reduction), ss.evaluate(loss, flat, repeated, reduction=reduction)
    )
    if reduction != "none":
        _, gradient = ss.value_and_gradient(loss, z, labels, reduction=reduction)
        _, flat_gradient = ss.value_and_gradient(loss, flat, repeated, reduction=reduction)
        np.testing.assert_array_equal(gradient, flat_gradient.reshape(z.shape))


@pytest.mark.parametrize("name", LABELLED)
@given(batch=batches(), reduction=st.sampled_from(REDUCTIONS), order=seeds)
def test_the_batch_as_its_own_keys_is_the_batch(name: str, batch: Any, reduction: str, order: int) -> None:
    """With ids, self is known wherever it stands: the keys are the batch, shuffled."""
    z, labels = batch
    loss, shuffled = CALLS[name].loss, np.random.default_rng(order).permutation(len(z))
    ids = [f"image {i}" for i in range(len(z))]
    options: dict[str, Any] = {
        "keys": z[shuffled],
        "key_labels": [labels[i] for i in shuffled],
        "ids": ids,
        "key_ids": [ids[i] for i in shuffled],
        "reduction": reduction,
    }
    want = ss.evaluate(loss, z, labels, reduction=reduction)
    assert_close(ss.evaluate(loss, z, labels, **options), want, 0.2, z.shape[1], size=5.0 * len(z))
    if reduction != "none":
        _, got = ss.value_and_gradient(loss, z, labels, **options)
        _, gradient = ss.value_and_gradient(loss, z, labels, reduction=reduction)
        both = got.embeddings + got.keys[np.argsort(shuffled)]
        bound = rule("float64", 0.2, z.shape[1]) * gradient_size([z], 0.2) * len(z)
        np.testing.assert_allclose(both, gradient, rtol=0.0, atol=bound)


def test_equal_ids_within_a_batch_are_one_sample() -> None:
    """Two copies of a row with one id are never compared, not even as negatives of each other."""
    z = draw(5, z=4)["z"]
    twice, labels = np.concatenate([z, z[:1]]), [0, 0, 1, 1, 0]
    got = ss.sincere_loss(twice, labels, ids=[0, 1, 2, 3, 0], reduction="none")
    others = ss.sincere_loss(z, labels[:4], reduction="none")
    assert got[0] == pytest.approx(others[0], rel=rule("float64", 0.1))
    assert got[4] == pytest.approx(others[0], rel=rule("float64", 0.1))
    assert abs(got[0] - ss.sincere_loss(twice, labels, reduction="none")[0]) > 1e-3


# --- what positives and negatives do ------------------------------------------------------------------------------------


def of_similarities(labels: Sequence[int], **options: Any) -> dict[str, Any]:
    """Keywords with which the embeddings of a call are its similarities: against the unit vectors s_ij is z_ij itself."""
    n = len(labels)
    return {
        "keys": np.eye(n),
        "key_labels": labels,
        "ids": range_of(n),
        "key_ids": range_of(n),
        "normalize": False,
        "reduction": "none",
    } | options


def range_of(n: int) -> list[int]:
    return list(range(n))


def pulls(loss: PairLoss, s: Matrix, labels: Sequence[int]) -> Matrix:
    """∂L/∂s_ij of the sum over rows, entry by entry: positive where a pair is pushed apart."""
    _, gradient = ss.value_and_gradient(loss, s, labels, **of_similarities(labels, reduction="sum"))
    return gradient.embeddings


def pairs_of(labels: Sequence[int]) -> tuple[Matrix, Matrix]:
    same = np.asarray(labels)[:, None] == np.asarray(labels)
    return same & ~np.eye(len(labels), dtype=bool), ~same


@given(batch=batches(), temperature=temperatures, epsilon=st.sampled_from([0.0, 0.5, 4.0]))
def test_sincere_never_repels_a_positive(batch: Any, temperature: float, epsilon: float) -> None:
    z, labels = batch
    positive, negative = pairs_of(labels)
    found = pulls(losses.sincere(temperature, epsilon), unit(z) @ unit(z).T, labels)
    assert np.all(found[positive] <= 0.0)
    assert np.all(found[negative] >= 0.0)
    assert np.all(found[~(positive | negative)] == 0.0)


@given(batch=batches(), temperature=temperatures)
def test_supcon_in_never_repels_a_positive(batch: Any, temperature: float) -> None:
    z, labels = batch
    positive, negative = pairs_of(labels)
    found = pulls(losses.supcon(temperature, "in"), unit(z) @ unit(z).T, labels)
    # q_ip - r_ip: a difference of two weights of at most 1, each right to the rule.
    assert np.all(found[positive] <= rule("float64", temperature) / temperature)
    assert np.all(found[negative] >= 0.0)


@given(batch=batches(), temperature=temperatures)
def test_decoupled_attracts_every_positive_alike(batch: Any, temperature: float) -> None:
    z, labels = batch
    positive, negative = pairs_of(labels)
    found = pulls(losses.decoupled(temperature), unit(z) @ unit(z).T, labels)
    share = positive / np.maximum(np.sum(positive, axis=1, keepdims=True), 1) * np.any(negative, axis=1, keepdims=True)
    np.testing.assert_allclose(found * positive, -share / temperature, rtol=8 * 2.0**-53)


def test_supcon_repels_the_positives_that_are_near_enough_and_sincere_does_not() -> None:
    """Row 0 has a positive beside it and two far away: it takes more than a third of the weight."""
    s = np.full((5, 5), -0.2)
    s[0, 1], labels = 0.9, [0, 0, 0, 0, 1]
    supcon, sincere = (pulls(loss, s, labels)[0] for loss in (losses.supcon(0.1), losses.sincere(0.1)))
    q = exp(0.9 / 0.1) / (exp(0.9 / 0.1) + 3.0 * exp(-0.2 / 0.1))
    assert supcon[1] == pytest.approx((q - 1.0 / 3.0) / 0.1, rel=rule("float64", 0.1))
    assert supcon[1] > 6.0
    assert sincere[1] < 0.0
    assert np.sum(supcon[1:4]) < 0.0  # and yet the positives as a whole are attracted


@given(batch=batches(least=3), temperature=temperatures)
def test_supcon_repels_a_positive_just_where_its_share_exceeds_that_of_the_class(
    batch: Any, temperature: float
) -> None:
    z, labels = batch
    s = unit(z) @ unit(z).T
    positive, negative = pairs_of(labels)
    weights = np.exp(s / temperature) * (positive | negative)
    q = weights / np.maximum(np.sum(weights, axis=1, keepdims=True), 1e-300)
    excess = q - 1.0 / np.maximum(np.sum(positive, axis=1, keepdims=True), 1)
    clear = positive & (np.abs(excess) > rule("float64", temperature))
    found = pulls(losses.supcon(temperature), s, labels)
    assert np.array_equal(np.sign(found[clear]), np.sign(excess[clear]))


@pytest.mark.parametrize("name", ["sincere", "sincere_epsilon", "supcon_out", "supcon_in", "decoupled"])
@given(batch=batches(), temperature=temperatures)
def test_the_pulls_of_a_row_cancel(name: str, batch: Any, temperature: float) -> None:
    """Adding a number to all logits of a row changes no softmax loss."""
    z, labels = batch
    found = pulls(ROWS[name][0](temperature), unit(z) @ unit(z).T, labels)
    np.testing.assert_allclose(np.sum(found, axis=1), 0.0, atol=rule("float64", temperature) * 2.0 / temperature)


def test_a_planted_fault_in_sincere_is_seen_as_repulsion(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check above can fail: with the slope of the softplus negated every positive is repelled."""
    slope = elementwise.slope
    monkeypatch.setattr(elementwise, "slope", lambda xp, fold, t: -slope(xp, fold, t))
    s, labels = np.zeros((4, 4)), [0, 0, 1, 1]
    assert np.all(pulls(losses.sincere(0.1), s, labels)[pairs_of(labels)[0]] > 0.0)


# --- symmetries, in every framework ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, call in CALLS.items() if call.dot])
def test_the_gradient_along_the_embeddings_is_that_of_the_temperature(framework: str, name: str) -> None:
    """Euler: scaling all rows of all arrays by r scales every similarity as dividing the temperature by r² does."""
    here, call = load(framework), CALLS[name].with_parameters()
    _, gradient = call.value_and_gradient(here.arrays(call.arrays), normalize=False)
    found = here.numbers(gradient)
    products = [
        call.arrays[argument] * found[argument] for argument in found if argument not in ("temperature", "bias")
    ]
    along = fsum(np.sum(product) for product in products)
    # Logits of these rows are up to 4 * max |z|² = 30 over 0.2, and each product is a term of the sum.
    size = sum(np.sum(np.abs(product)) for product in products)
    assert abs(along + 2.0 * 0.2 * float(found["temperature"])) <= 8.0 * 2.0**-53 * 30.0 / 0.2 * size
    assert size > 0.0


@pytest.mark.parametrize("name", CALLS)
def test_rows_of_the_gradient_are_orthogonal_to_normalised_rows(framework: str, name: str) -> None:
    here, call = load(framework), CALLS[name]
    _, gradient = call.value_and_gradient(here.arrays(call.arrays))
    for argument, found in here.numbers(gradient).items():
        products = call.arrays[argument] * found
        size = np.sum(np.abs(products), axis=1)
        assert np.all(
            np.abs(np.sum(products, axis=1)) <= rule("float64", call.temperature) * np.maximum(size, np.max(size))
        )
        assert np.any(found != 0.0)


def rotation(seed: int, width: int) -> Matrix:
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(width, width)))
    return np.asarray(q)


@pytest.mark.parametrize("name", CALLS)
def test_a_rotation_of_all_rows_changes_nothing_but_the_gradient_s_direction(framework: str, name: str) -> None:
    here, call = load(framework), CALLS[name]
    turn = rotation(3, 4)
    turned = {argument: x @ turn for argument, x in call.arrays.items()}
    value, gradient = call.value_and_gradient(here.arrays(call.arrays))
    again, turned_gradient = call.value_and_gradient(here.arrays(turned))
    # Both similarities are rounded, those of the rotated rows twice; f-MICL's folds are as steep as exp(8) and weigh 4.
    bound = 3.0 * rule("float64", call.temperature) * (1.0 if "f_micl" not in name else 4.0)
    assert distance(here.numbers(again), here.numbers(value)) <= bound
    for argument in gradient:
        assert distance(here.numbers(turned_gradient[argument]), here.numbers(gradient[argument]) @ turn) <= bound


@pytest.mark.parametrize("name", CALLS)
def test_the_order_of_the_rows_is_of_no_account(framework: str, name: str) -> None:
    here, call = load(framework), CALLS[name]
    rng = np.random.default_rng(9)
    orders = {argument: rng.permutation(len(x)) for argument, x in call.arrays.items()}
    options = dict(call.options)
    labels = call.labels
    if labels is None:  # rows of the arrays belong together, but for a queue's
        orders = {argument: orders[argument if argument == "negatives" else next(iter(orders))] for argument in orders}
    else:
        labels = [labels[i] for i in orders["embeddings"]]
    if "key_labels" in options:
        options["key_labels"] = [options["key_labels"][i] for i in orders["keys"]]
    shuffled = Call(call.loss, {argument: x[orders[argument]] for argument, x in call.arrays.items()}, labels, options)
    value, gradient = call.value_and_gradient(here.arrays(call.arrays))
    again, found = shuffled.value_and_gradient(here.arrays(shuffled.arrays))
    bound = rule("float64", call.temperature)
    assert distance(here.numbers(again), here.numbers(value)) <= bound
    for argument in gradient:
        assert distance(here.numbers(found[argument]), here.numbers(gradient[argument])[orders[argument]]) <= bound


@pytest.mark.parametrize("name", LABELLED)
def test_the_names_of_the_classes_are_of_no_account(framework: str, name: str) -> None:
    here, call = load(framework), CALLS[name]
    z = here.arrays(call.arrays)
    renamed = Call(call.loss, call.arrays, [{0: 17, 1: -4, 2: 2**40}[label] for label in call.labels])
    for reduction in REDUCTIONS:
        want, got = call.value(z, reduction=reduction), renamed.value(z, reduction=reduction)
        np.testing.assert_array_equal(here.numbers(got), here.numbers(want))


# --- reductions ---------------------------------------------------------------------------------------------------------


def test_the_reductions_on_unequal_classes(framework: str) -> None:
    here, call = load(framework), CALLS["sincere"]  # rows with 2, 2, 2, 1, 1 and 0 positives
    z = here.arrays(call.arrays)
    rows, mean_, pairs, batch, total = (
        here.numbers(call.value(z, reduction=reduction)) for reduction in ("none", "mean", "pairs", "batch", "sum")
    )
    close = {"rtol": 16 * 2.0**-53}
    assert rows.shape == (6,)
    assert rows[5] == 0.0
    assert np.all(rows[:5] > 0.0)
    np.testing.assert_allclose(total, np.sum(rows), **close)
    np.testing.assert_allclose(mean_, np.sum(rows) / 5, **close)
    np.testing.assert_allclose(batch, np.sum(rows) / 6, **close)
    np.testing.assert_allclose(pairs, (2 * rows[0] + 2 * rows[1] + 2 * rows[2] + rows[3] + rows[4]) / 8, **close)
    assert mean_ != pairs


@pytest.mark.parametrize(("name", "order"), [("nt_xent", "views"), ("clip", "directions"), ("dystress", "views")])
def test_the_rows_come_view_by_view_and_direction_by_direction(framework: str, name: str, order: str) -> None:
    here, call = load(framework), CALLS[name]
    first, second = here.arrays(call.arrays).values()
    rows = here.numbers(ss.evaluate(call.loss, first, second, reduction="none"))
    swapped = here.numbers(ss.evaluate(call.loss, second, first, reduction="none"))
    np.testing.assert_allclose(rows, np.concatenate([swapped[3:], swapped[:3]]), rtol=rule("float64", call.temperature))
    if order == "directions":
        one_way = here.numbers(ss.info_nce_loss(first, second, temperature=call.temperature, reduction="none"))
        np.testing.assert_allclose(rows[:3], one_way, rtol=rule("float64", call.temperature))


def test_the_rows_of_views_come_sample_by_sample() -> None:
    z = draw(7, z=6)["z"].reshape(3, 2, 4)
    rows = ss.sincere_loss(z, [0, 1, 1], reduction="none")
    for i in range(3):
        for v in range(2):
            order = [i, *(j for j in range(3) if j != i)]
            alone = ss.sincere_loss(np.roll(z, -v, axis=1)[order], [[0, 1, 1][j] for j in order], reduction="none")
            assert rows[2 * i + v] == pytest.approx(alone[0], rel=rule("float64", 0.1))


@pytest.mark.parametrize("name", CALLS)
def test_the_functions_are_their_records(name: str) -> None:
    """`sincere_loss(z, y)` and `evaluate(losses.sincere(), z, y)` are the same call, with every default."""
    (loss,) = [loss for loss in losses.table.TABLE if loss.name == CALLS[name].name]
    call = replace(CALLS[name], loss=loss.record())
    positional, keywords = call.arguments(call.arrays)
    for normalize in (True, False):
        for reduction in REDUCTIONS:
            got = getattr(ss, loss.function)(*positional, **keywords, normalize=normalize, reduction=reduction)
            np.testing.assert_array_equal(got, call.value(call.arrays, normalize=normalize, reduction=reduction))


def test_the_table_names_every_loss_and_its_function_and_its_class() -> None:
    assert sorted(loss.name for loss in losses.table.TABLE) == sorted(losses.__all__)
    assert all(getattr(losses, loss.name) is loss.record for loss in losses.table.TABLE)
    assert {loss.function for loss in losses.table.TABLE} == set(functions.__all__) <= set(ss.__all__)
    for front_end in ("torch.py", "keras.py"):
        tree = ast.parse((Path(ss.__file__).parent / front_end).read_text(encoding="utf-8"))
        classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
        assert {loss.class_name for loss in losses.table.TABLE} == {
            name for name in classes if re.fullmatch("[A-Z].+Loss", name)
        }


@pytest.mark.parametrize("loss", losses.table.TABLE, ids=lambda loss: loss.name)
def test_a_function_has_the_keywords_of_its_record_and_describes_each_argument(loss: losses.table.BuiltIn) -> None:
    own, function = (inspect.signature(f).parameters for f in (loss.record, getattr(ss, loss.function)))
    assert {name: p.default for name, p in own.items()}.items() <= {
        name: p.default for name, p in function.items()
    }.items()
    text = inspect.getdoc(getattr(ss, loss.function)) or ""
    for name in function:
        assert re.search(rf"^    \*?{name}: \S.*\S", text, re.MULTILINE), name
    sections = [text.index(f"\n{section}:\n") for section in ("Args", "Returns", "Raises", "Example")]
    assert sections == sorted(sections)


def test_the_words_of_options_are_those_that_are_checked() -> None:
    assert get_args(arrays.Reduction) == rows.REDUCTIONS
    assert get_args(arrays.Engine) == plan.ENGINES
    assert set(get_args(Divergence)) == set(DIVERGENCES)


def test_temperature_by_position_is_temperature_by_name() -> None:
    z, labels = CALLS["sincere"].arrays["embeddings"], CALLS["sincere"].labels
    for function in (ss.sincere_loss, ss.supcon_loss, ss.decoupled_loss):
        assert function(z, labels, 0.3) == function(z, labels, temperature=0.3) != function(z, labels)
    record = losses.sincere()
    assert ss.evaluate(record, z, labels, 0.3) == ss.evaluate(record, z, labels, temperature=0.3)
    assert ss.evaluate(record, z, labels, 0.3) == ss.sincere_loss(z, labels, 0.3)
