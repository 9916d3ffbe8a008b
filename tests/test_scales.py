"""The table of published scales in docs/switch.md: what published code returns, and the call here that returns the same.

The published values are written from what that code computes, term by term, on rows of unit length in float64. They share
nothing with the package, and their names are those of the table.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import sincere_spec as ss

T = 0.2
rng = np.random.default_rng(7)


def unit(*shape: int) -> np.ndarray:
    z = rng.normal(size=shape)
    return z / np.linalg.norm(z, axis=-1, keepdims=True)


A, B, QUEUE = unit(5, 4), unit(5, 4), unit(7, 4)
Z = np.concatenate([A, B])
UNEVEN = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 3])  # classes of four, three, two and one
NO_LONER = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 2])


def lse(logits: np.ndarray) -> float:
    return float(np.logaddexp.reduce(logits))


def cross_entropy(logits: np.ndarray, target: np.ndarray | list[int]) -> float:
    return float(np.mean([lse(row) - row[j] for row, j in zip(logits, target, strict=True)]))


def rows(y: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """The logits of each row's positives and negatives."""
    logits, others = Z @ Z.T / T, ~np.eye(len(Z), dtype=bool)
    same = y[:, None] == y[None, :]
    return [(logits[i][same[i] & others[i]], logits[i][~same[i]]) for i in range(len(Z))]


def tufts_sincere() -> float:
    return float(np.mean([np.mean([lse(np.append(n, p)) - p for p in ps]) for ps, n in rows(NO_LONER)]))


def pair_mean() -> float:
    return float(np.mean([lse(np.append(n, p)) - p for ps, n in rows(UNEVEN) for p in ps]))


def supcontrast(base: float = 0.07) -> float:
    per_row = [np.mean(lse(np.append(ps, n)) - ps) if len(ps) else 0.0 for ps, n in rows(UNEVEN)]
    return T / base * float(np.mean(per_row))


def google(row: Callable[[np.ndarray, np.ndarray], float]) -> Callable[[], float]:
    return lambda: T * float(np.mean([row(ps, n) for ps, n in rows(NO_LONER)]))


def keras_io() -> float:
    """`npairs_loss` of the cosines: softmax cross-entropy with a share for each row of the class, the row itself too."""
    logits, same = Z @ Z.T / T, UNEVEN[:, None] == UNEVEN
    return float(np.mean([lse(logits[i]) - np.mean(logits[i][same[i]]) for i in range(len(Z))]))


def solo_learn() -> float:
    return float(np.mean([lse(np.append(ps, n)) - lse(ps) for ps, n in rows(NO_LONER)]))


def simclr() -> float:
    hidden = np.where(np.eye(5, dtype=bool), -np.inf, 0.0)
    from_a = np.concatenate([A @ B.T / T, A @ A.T / T + hidden], axis=1)
    from_b = np.concatenate([B @ A.T / T, B @ B.T / T + hidden], axis=1)
    return cross_entropy(from_a, range(5)) + cross_entropy(from_b, range(5))


def decoupled_views() -> float:
    logits = Z @ Z.T / T
    return float(np.mean([lse(np.delete(logits[i], [i, (i + 5) % 10])) - logits[i, (i + 5) % 10] for i in range(10)]))


def moco() -> float:
    return cross_entropy(np.concatenate([np.sum(A * B, axis=1, keepdims=True), A @ QUEUE.T], axis=1) / T, [0] * 5)


def moco_v3_term() -> float:
    return 2 * T * cross_entropy(A @ B.T / T, range(5))


def open_clip(logit_scale: float = 14.0) -> float:
    logits = logit_scale * A @ B.T
    return (cross_entropy(logits, range(5)) + cross_entropy(logits.T, range(5))) / 2


def cloob(inv_tau: float = 14.0) -> float:
    """CLOOB's `infoLOOB_loss` of both directions, on embeddings that are not retrieved."""
    total = 0.0
    for x, y in ((A, B), (B, A)):
        k = inv_tau * x @ y.T
        negatives = [lse(np.delete(k[i], i)) for i in range(5)]
        total += float(np.mean(negatives) - np.mean(np.diag(k))) / inv_tau
    return total


def big_vision_siglip(scale: float = 10.0, bias: float = -10.0) -> float:
    sign = 2 * np.eye(5) - 1
    return float(np.sum(np.log1p(np.exp(-sign * (scale * A @ B.T + bias)))) / 5)


def dystress(minimum: float = 0.1, maximum: float = 0.2) -> float:
    s = Z @ Z.T
    tau = minimum + 0.5 * (maximum - minimum) * (1 + np.cos(np.pi * (1 + s)))
    logits = np.where(np.eye(10, dtype=bool), -np.inf, s / tau)
    return cross_entropy(logits, [*range(5, 10), *range(5)])


def dystress_moco(minimum: float = 0.1, maximum: float = 0.2) -> float:
    s = np.concatenate([np.sum(A * B, axis=1, keepdims=True), A @ QUEUE.T], axis=1)
    tau = minimum + 0.5 * (maximum - minimum) * (1 + np.cos(np.pi * (1 + s)))
    return cross_entropy(s / tau, [0] * 5)


def dystress_simcse(minimum: float = 0.04, maximum: float = 0.05) -> float:
    s, offset, k = A @ B.T, -0.4, 0.7
    wave = minimum + 0.5 * (maximum - minimum) * (1 + np.cos(np.pi * (s + offset) / k))
    return cross_entropy(s / np.where(s <= -offset, wave, maximum), range(5))


def hcl(beta: float = 0.5) -> float:
    """HCL's code with tau_plus = 0, by its names."""
    out = np.concatenate([A, B])
    similarities, n = np.exp(out @ out.T / T), len(A)
    neg = np.stack([np.delete(similarities[i], [i, (i + n) % (2 * n)]) for i in range(2 * n)])
    pos = np.tile(np.exp(np.sum(A * B, axis=1) / T), 2)
    imp = np.exp(beta * np.log(neg))
    reweight_neg = np.sum(imp * neg, axis=-1) / np.mean(imp, axis=-1)
    ng = np.maximum(reweight_neg, (2 * n - 2) * np.exp(-1 / T))
    return float(np.mean(-np.log(pos / (pos + ng))))


def f_micl_objective(alpha: float = 3.0, c: float = 0.7) -> float:
    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.exp(-c * np.sum((x - y) ** 2, axis=-1))

    positives = np.log(kernel(A, B)) + 1
    negatives = kernel(A[:, None], A[None])[~np.eye(5, dtype=bool)]
    return float(np.mean(positives) - alpha * np.mean(negatives))


Value = Callable[[], float]
SCALES: dict[str, tuple[Value, Value]] = {
    "tufts": (tufts_sincere, lambda: ss.sincere_loss(Z, NO_LONER, T)),
    "optax and pytorch-metric-learning": (pair_mean, lambda: ss.sincere_loss(Z, UNEVEN, T, reduction="pairs")),
    "SupContrast": (supcontrast, lambda: T / 0.07 * ss.supcon_loss(Z, UNEVEN, T, reduction="batch")),
    "google OUTSIDE ALL": (
        google(lambda ps, n: float(np.mean(lse(np.append(ps, n)) - ps))),
        lambda: T * ss.supcon_loss(Z, NO_LONER, T),
    ),
    "google INSIDE ALL": (
        google(lambda ps, n: lse(np.append(ps, n)) - lse(ps) + np.log(len(ps))),
        lambda: T * ss.supcon_loss(Z, NO_LONER, T, summation="in"),
    ),
    "google ONE_POSITIVE": (
        google(lambda ps, n: float(np.mean([lse(np.append(n, p)) - p for p in ps]))),
        lambda: T * ss.sincere_loss(Z, NO_LONER, T),
    ),
    "google ONLY_NEGATIVES": (
        google(lambda ps, n: float(np.mean(lse(n) - ps))),
        lambda: T * ss.decoupled_loss(Z, NO_LONER, T),
    ),
    "keras-io": (keras_io, lambda: ss.supcon_loss(Z, UNEVEN, T, keys=Z, key_labels=UNEVEN)),
    "solo-learn": (
        solo_learn,
        lambda: ss.supcon_loss(Z, NO_LONER, T, summation="in") - np.mean(np.log([len(ps) for ps, _ in rows(NO_LONER)])),
    ),
    "SimCLR": (simclr, lambda: 2 * ss.nt_xent_loss(A, B, temperature=T)),
    "DCL": (decoupled_views, lambda: ss.decoupled_loss(Z, [0, 1, 2, 3, 4] * 2, T)),
    "MoCo": (moco, lambda: ss.info_nce_loss(A, B, QUEUE, temperature=T)),
    "MoCo v3": (moco_v3_term, lambda: 2 * T * ss.info_nce_loss(A, B, temperature=T)),
    "open_clip": (open_clip, lambda: ss.clip_loss(A, B, temperature=1 / 14.0)),
    "CLOOB": (cloob, lambda: 2 / 14.0 * ss.infoloob_loss(A, B, temperature=1 / 14.0)),
    "SigLIP": (big_vision_siglip, lambda: ss.siglip_loss(A, B, temperature=1 / 10.0, bias=-10.0)),
    "HCL": (hcl, lambda: ss.hcl_loss(A, B, temperature=T, beta=0.5)),
    "DySTreSS": (dystress, lambda: ss.dystress_loss(A, B)),
    "DySTreSS with a queue": (dystress_moco, lambda: ss.dystress_info_nce_loss(A, B, QUEUE)),
    "DySTreSS, SimCSE": (
        dystress_simcse,
        lambda: ss.dystress_info_nce_loss(A, B, temperature_min=0.04, temperature_max=0.05, schedule="shifted"),
    ),
    "f-MICL": (f_micl_objective, lambda: -ss.f_micl_loss(A, B, alpha=3.0, inverse_bandwidth=0.7)),
}


@pytest.mark.parametrize("name", SCALES)
def test_published_code_and_the_call_here_agree(name: str) -> None:
    published, here = SCALES[name]
    assert float(here()) == pytest.approx(published(), rel=1e-12)


@pytest.mark.framework("jax")
def test_one_line_replaces_that_of_optax(need) -> None:
    """Its own `ntxent`, compiled, with its gradient; it takes rows without a positive for no rows, as is done here."""
    need("optax")
    import jax
    import optax

    z, labels = jax.numpy.asarray(3.0 * Z), jax.numpy.asarray(UNEVEN)
    want = jax.jit(jax.value_and_grad(lambda z: optax.losses.ntxent(z, labels, T)))(z)
    got = jax.jit(jax.value_and_grad(lambda z: ss.sincere_loss(z, labels, T, reduction="pairs")))(z)
    for x, y in zip(got, want):
        np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-14)
