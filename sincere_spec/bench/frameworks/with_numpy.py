"""NumPy: the plain formula has its gradient written out, over whole matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import sincere_spec as ss
from sincere_spec.bench import cases
from sincere_spec.bench.cases import Program
from sincere_spec.bench.frameworks import Place, Step
from sincere_spec.bench.inputs import Inputs
from sincere_spec.bench.settings import Function

Array = np.ndarray[Any, Any]
Logits = tuple[Array, Array]  # the losses of the rows, and the gradient of their mean by the logits


def make(place: Place) -> Numpy:
    """NumPy in this process."""
    if place.device != "cpu" or place.dtype == "bfloat16":
        raise ValueError(f"NumPy has no {place.device if place.device != 'cpu' else place.dtype}.")
    return Numpy(place)


class Numpy:
    """Functions here return the value and the gradients."""

    compiles = False

    def __init__(self, place: Place) -> None:
        self.dtype = np.dtype(place.dtype)

    def arrays(self, inputs: Inputs) -> tuple[Any, ...]:
        labels = () if inputs.labels is None else (inputs.labels,)
        beside = (x.astype(self.dtype) if x.dtype.kind == "f" else x for x in inputs.beside)
        return (*(x.astype(self.dtype) for x in inputs.embeddings), *labels, *beside)

    def plain(self, loss: str) -> Function:
        return PLAIN[loss]

    def ours(self, loss: str, program: Program) -> Function:
        return cases.ours(loss, program, ss.value_and_gradient)

    def step(self, function: Function, program: Program, arrays: tuple[Any, ...], embeddings: int) -> Step:
        return lambda: function(*arrays)

    def products(self, tile: int, dim: int, rows: int) -> Callable[[int], None]:
        z = np.ones((rows, dim), self.dtype)
        tiles = [z[start : start + tile] for start in range(0, rows - tile + 1, tile)]
        buffer = np.empty((tile, tile), self.dtype)

        def run(count: int) -> None:
            for k in range(count):
                np.matmul(tiles[k // len(tiles) % len(tiles)], tiles[k % len(tiles)].T, out=buffer)

        return run

    def device_memory(self) -> None:
        return None

    def reset_device_memory(self) -> None:
        pass

    def memory_limit(self) -> None:
        return None

    def device_name(self) -> None:
        return None


# --- plain formulas ---


def _unit(z: Array) -> tuple[Array, Array]:
    norms = np.linalg.norm(z, axis=1, keepdims=True)
    return z / norms, norms


def _through_norm(gradient: Array, u: Array, norms: Array) -> Array:
    result: Array = (gradient - u * (gradient * u).sum(axis=1, keepdims=True)) / norms
    return result


def _softmax(logits: Array, mask: Array | None = None) -> tuple[Array, Array]:
    """The log-sum-exp of each row, and the softmax."""
    if mask is not None:
        logits = np.where(mask, logits, -np.inf)
    top = logits.max(axis=1, keepdims=True)
    exps = np.exp(logits - top)
    sums = exps.sum(axis=1, keepdims=True)
    return top + np.log(sums), exps / sums


def _positives(labels: Array, dtype: Any) -> tuple[Array, Array, Array, Array]:
    """Pairs of one label, positives, their number, and the weight of each row in the mean."""
    same = labels[:, None] == labels[None, :]
    positive = same & ~np.eye(len(labels), dtype=bool)
    number = positive.sum(axis=1, keepdims=True)
    weight = (number > 0) / max(np.count_nonzero(number), 1)
    return same, positive, np.maximum(number, 1).astype(dtype), weight.astype(dtype)


def _labelled(logits_of: Callable[[Array, Array], Logits], temperature: float = 0.1) -> Function:
    def value_and_gradient(z: Array, labels: Array) -> tuple[Any, Array]:
        u, norms = _unit(z)
        value, gradient = logits_of(u @ u.T / temperature, labels)
        return value, _through_norm((gradient + gradient.T) @ u / temperature, u, norms).astype(z.dtype)

    return value_and_gradient


def _sincere(logits: Array, labels: Array) -> Logits:
    same, positive, number, weight = _positives(labels, logits.dtype)
    below, share = _softmax(logits, ~same)
    loss = np.where(positive, np.logaddexp(logits, below) - logits, 0.0).sum(axis=1, keepdims=True) / number
    pull = np.where(positive, 1.0 / (1.0 + np.exp(logits - below)), 0.0) / number
    return (loss * weight).sum(), weight * (pull.sum(axis=1, keepdims=True) * share - pull)


def _supcon(logits: Array, labels: Array) -> Logits:
    _, positive, number, weight = _positives(labels, logits.dtype)
    below, share = _softmax(logits, ~np.eye(len(labels), dtype=bool))
    loss = below - np.where(positive, logits, 0.0).sum(axis=1, keepdims=True) / number
    return (loss * weight).sum(), weight * (share - positive / number)


def _decoupled(logits: Array, labels: Array) -> Logits:
    same, positive, number, weight = _positives(labels, logits.dtype)
    below, share = _softmax(logits, ~same)
    loss = below - np.where(positive, logits, 0.0).sum(axis=1, keepdims=True) / number
    return (loss * weight).sum(), weight * (share - positive / number)


def _nt_xent(a: Array, b: Array) -> tuple[Any, tuple[Array, Array]]:
    u, norms = _unit(np.concatenate((a, b)))
    rows, partner, others = _partners(len(a))
    logits = u @ u.T / 0.1
    below, share = _softmax(logits, others)
    value = (below[:, 0] - logits[rows, partner]).mean()
    share[rows, partner] -= 1.0
    gradient = _through_norm((share + share.T) @ u / (0.1 * len(u)), u, norms).astype(a.dtype)
    return value, (gradient[: len(a)], gradient[len(a) :])


def _dystress(a: Array, b: Array) -> tuple[Any, tuple[Array, Array]]:
    u, norms = _unit(np.concatenate((a, b)))
    rows, partner, others = _partners(len(a))
    s = u @ u.T
    temperature = 0.1 + 0.1 * (1.0 + np.cos(np.pi * (1.0 + s))) / 2.0
    logits = s / temperature
    below, share = _softmax(logits, others)
    value = (below[:, 0] - logits[rows, partner]).mean()
    share[rows, partner] -= 1.0
    share /= temperature
    gradient = _through_norm((share + share.T) @ u / len(u), u, norms).astype(a.dtype)
    return value, (gradient[: len(a)], gradient[len(a) :])


def _partners(half: int) -> tuple[Array, Array, Array]:
    rows = np.arange(2 * half)
    return rows, np.roll(rows, half), ~np.eye(2 * half, dtype=bool)


def _towers(logits_of: Callable[[Array], Logits], temperature: float) -> Function:
    def value_and_gradient(a: Array, b: Array) -> tuple[Any, tuple[Array, Array]]:
        (u, norms), (v, other_norms) = _unit(a), _unit(b)
        value, gradient = logits_of(u @ v.T / temperature)
        return value, (
            _through_norm(gradient @ v / temperature, u, norms).astype(a.dtype),
            _through_norm(gradient.T @ u / temperature, v, other_norms).astype(b.dtype),
        )

    return value_and_gradient


def _info_nce(logits: Array) -> Logits:
    below, share = _softmax(logits)
    return (below[:, 0] - np.diagonal(logits)).mean(), (share - np.eye(len(share), dtype=share.dtype)) / len(logits)


def _clip(logits: Array) -> Logits:
    there, gradient = _info_nce(logits)
    back, transposed = _info_nce(logits.T)
    return (there + back) / 2.0, (gradient + transposed.T) / 2.0


def _siglip(logits: Array) -> Logits:
    sign = 2.0 * np.eye(len(logits), dtype=logits.dtype) - 1.0
    margin = sign * (logits - 10.0)
    return np.logaddexp(0.0, -margin).sum() / len(logits), -sign / (1.0 + np.exp(margin)) / len(logits)


def _f_micl(a: Array, b: Array) -> tuple[Any, tuple[Array, Array]]:
    (u, norms), (v, other_norms) = _unit(a), _unit(b)
    count = len(u)
    kernel = np.exp(2.0 * (u @ u.T) - 2.0)
    np.fill_diagonal(kernel, 0.0)
    factor = 40.0 / (count * (count - 1))
    value = factor * kernel.sum() - (1.0 + 2.0 * (u * v).sum(axis=1) - 2.0).mean()
    pull = -2.0 / count
    gradients = pull * v + 4.0 * factor * (kernel @ u), pull * u
    return value, (
        _through_norm(gradients[0], u, norms).astype(a.dtype),
        _through_norm(gradients[1], v, other_norms).astype(b.dtype),
    )


PLAIN: dict[str, Function] = {
    "sincere": _labelled(_sincere),
    "supcon": _labelled(_supcon),
    "decoupled": _labelled(_decoupled),
    "nt_xent": _nt_xent,
    "dystress": _dystress,
    "info_nce": _towers(_info_nce, 0.07),
    "clip": _towers(_clip, 0.07),
    "siglip": _towers(_siglip, 0.1),
    "f_micl": _f_micl,
}
