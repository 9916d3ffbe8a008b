"""JAX: everything under jit, labels as an argument of it."""

from __future__ import annotations

from collections.abc import Callable
from math import pi
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from sincere_spec.bench import cases
from sincere_spec.bench.cases import Program
from sincere_spec.bench.frameworks import Place, Step
from sincere_spec.bench.inputs import Inputs
from sincere_spec.bench.settings import Function

Array = jax.Array


def make(place: Place) -> Jax:
    """JAX in this process."""
    found = jax.devices()[0].platform
    if (place.device == "cuda") != (found == "gpu"):
        raise ValueError(f"jax runs on {found}, not on {place.device}.")
    return Jax(place)


class Jax:
    """Arrays on the first device."""

    compiles = True

    def __init__(self, place: Place) -> None:
        self.place = place

    def arrays(self, inputs: Inputs) -> tuple[Any, ...]:
        labels = () if inputs.labels is None else (jnp.asarray(inputs.labels, dtype=jnp.int32),)
        beside = (jnp.asarray(x, dtype=self.place.dtype if x.dtype.kind == "f" else None) for x in inputs.beside)
        return (*(jnp.asarray(x, dtype=self.place.dtype) for x in inputs.embeddings), *labels, *beside)

    def plain(self, loss: str) -> Function:
        return PLAIN[loss]

    def ours(self, loss: str, program: Program) -> Function:
        return cases.ours(loss, program)

    def step(self, function: Function, program: Program, arrays: tuple[Any, ...], embeddings: int) -> Step:
        compiled = jax.jit(jax.value_and_grad(function, argnums=tuple(range(embeddings))))
        # Compiled now, called as users call it: the executable is then found in the cache of jit.
        compiled.lower(*arrays).compile()
        return lambda: _finished(compiled(*arrays))

    def products(self, tile: int, dim: int, rows: int) -> Callable[[int], None]:
        number = max(rows // tile, 2)  # of a single tile the compiler would make one product, and no loop
        z = jnp.ones((number * tile, dim), self.place.dtype)

        @jax.jit
        def multiply(z: Array, count: int) -> Array:
            def one(k: Any, _: Array) -> Array:
                a = lax.dynamic_slice_in_dim(z, (k // number % number) * tile, tile)
                b = lax.dynamic_slice_in_dim(z, (k % number) * tile, tile)
                return jnp.matmul(a, b.T, precision=lax.Precision.HIGHEST)

            last: Array = lax.fori_loop(0, count, one, jnp.zeros((tile, tile), z.dtype))
            return last

        def run(count: int) -> None:
            _finished(multiply(z, count))

        return run

    def device_memory(self) -> tuple[int, int] | None:
        if self.place.device == "cpu":
            return None
        found = jax.devices()[0].memory_stats()
        return found["bytes_in_use"], found["peak_bytes_in_use"]

    def reset_device_memory(self) -> None:
        pass  # jax keeps one peak a process: that of a first call

    def memory_limit(self) -> int | None:
        if self.place.device == "cpu":
            return None
        statistics = jax.devices()[0].memory_stats() or {}
        return statistics.get("bytes_limit")

    def device_name(self) -> str | None:
        return None if self.place.device == "cpu" else jax.devices()[0].device_kind


def _finished(result: Any) -> Any:
    return jax.block_until_ready(result)  # type: ignore[no-untyped-call]


# --- plain formulas ---


def _unit(z: Array) -> Array:
    unit: Array = z / jnp.linalg.norm(z, axis=1, keepdims=True)
    return unit


def _logits(z: Array, temperature: float = 0.1) -> Array:
    u = _unit(z)
    return u @ u.T / temperature


def _eye(logits: Array) -> Array:
    return jnp.eye(logits.shape[0], dtype=bool)


def _mean_over_positives(pairs: Array, positive: Array) -> Array:
    number = positive.sum(axis=1)
    rows = jnp.where(positive, pairs, 0.0).sum(axis=1) / jnp.maximum(number, 1)
    return rows.sum() / jnp.maximum((number > 0).sum(), 1)


def _sincere(z: Array, labels: Array) -> Array:
    logits = _logits(z)
    same = labels[:, None] == labels[None, :]
    below = jax.nn.logsumexp(jnp.where(same, -jnp.inf, logits), axis=1, keepdims=True)
    return _mean_over_positives(jnp.logaddexp(logits, below) - logits, same & ~_eye(logits))


def _supcon(z: Array, labels: Array) -> Array:
    logits = _logits(z)
    eye = _eye(logits)
    log_share = jax.nn.log_softmax(jnp.where(eye, -jnp.inf, logits), axis=1)
    return _mean_over_positives(-log_share, (labels[:, None] == labels[None, :]) & ~eye)


def _decoupled(z: Array, labels: Array) -> Array:
    logits = _logits(z)
    same = labels[:, None] == labels[None, :]
    below = jax.nn.logsumexp(jnp.where(same, -jnp.inf, logits), axis=1, keepdims=True)
    return _mean_over_positives(below - logits, same & ~_eye(logits))


def _cross_entropy(logits: Array, target: Array) -> Array:
    log_share = jax.nn.log_softmax(logits, axis=1)
    return -jnp.take_along_axis(log_share, target[:, None], axis=1).mean()


def _partner_entropy(logits: Array) -> Array:
    partner = jnp.roll(jnp.arange(logits.shape[0]), logits.shape[0] // 2)
    return _cross_entropy(jnp.where(_eye(logits), -jnp.inf, logits), partner)


def _nt_xent(a: Array, b: Array) -> Array:
    return _partner_entropy(_logits(jnp.concatenate((a, b))))


def _dystress(a: Array, b: Array) -> Array:
    s = _logits(jnp.concatenate((a, b)), 1.0)
    temperature = lax.stop_gradient(0.1 + 0.1 * (1.0 + jnp.cos(pi * (1.0 + s))) / 2.0)
    return _partner_entropy(s / temperature)


def _towers(a: Array, b: Array, temperature: float) -> Array:
    return _unit(a) @ _unit(b).T / temperature


def _info_nce(a: Array, b: Array) -> Array:
    return _cross_entropy(_towers(a, b, 0.07), jnp.arange(a.shape[0]))


def _clip(a: Array, b: Array) -> Array:
    logits, target = _towers(a, b, 0.07), jnp.arange(a.shape[0])
    return (_cross_entropy(logits, target) + _cross_entropy(logits.T, target)) / 2.0


def _siglip(a: Array, b: Array) -> Array:
    logits = _towers(a, b, 0.1) - 10.0
    sign = 2.0 * jnp.eye(a.shape[0], dtype=a.dtype) - 1.0
    return -jax.nn.log_sigmoid(sign * logits).sum() / a.shape[0]


def _f_micl(a: Array, b: Array) -> Array:
    u, v = _unit(a), _unit(b)
    kernel = jnp.exp(2.0 * (u @ u.T) - 2.0)
    repel = jnp.where(_eye(kernel), 0.0, kernel).sum(axis=1) / (a.shape[0] - 1)
    return (40.0 * repel - (2.0 * (u * v).sum(axis=1) - 1.0)).mean()


PLAIN: dict[str, Function] = {
    "sincere": _sincere,
    "supcon": _supcon,
    "decoupled": _decoupled,
    "nt_xent": _nt_xent,
    "dystress": _dystress,
    "info_nce": _info_nce,
    "clip": _clip,
    "siglip": _siglip,
    "f_micl": _f_micl,
}
