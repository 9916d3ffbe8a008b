"""Rows on the unit sphere, at any scale, and the way back for gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from sincere_spec.arrays import Array
from sincere_spec.interface import Backend, TracingBackend

ORDINARY = (1e-20, 1e20)
"""Sums of squares between which no square that matters overflows or vanishes, in float32 either."""

BLOCK = 512
"""The rows that are normalised at a time beside tiles: so much stays in a processor's cache."""


@dataclass(frozen=True)
class Normalised:
    """Rows divided by their norm, and by what: first by the largest entry `size`, then by the `norm` of the rest.

    The size is the number 1 where the norms were seen to be ordinary, and so finite.
    """

    rows: Array
    size: Array | float
    norm: Array


def normalise(backend: Backend, x: Array) -> Normalised:
    """Each row divided by its norm, without an epsilon: a zero row stays zero, and no other depends on its scale.

    The largest entry is divided out first, so that squares neither overflow nor vanish, unless a look at the norms says that
    they do not. It is held constant: the result does not depend on it. That of a zero row is set to infinity, which makes its
    gradient exactly zero.
    """
    xp = backend.namespace(x)
    if x.shape[1] == 0:  # there is no largest entry, and nothing to divide
        ones = xp.sum(x, axis=1, keepdims=True) + 1.0
        return Normalised(x, ones, ones)
    if backend.on_host(x) and x.shape[0]:
        squares = xp.sum(x * x, axis=1, keepdims=True)
        least, most = backend.extremes(squares)
        if ORDINARY[0] <= least and most <= ORDINARY[1]:
            norm = xp.sqrt(squares)
            return Normalised(x / norm, 1.0, norm)
    size = backend.hold(xp.max(xp.abs(x), axis=1, keepdims=True))
    empty = size == 0.0
    size = xp.where(empty, float("inf"), size)
    scaled = x / size
    norm = xp.sqrt(xp.where(empty, 1.0, xp.sum(scaled * scaled, axis=1, keepdims=True)))
    return Normalised(scaled / norm, size, norm)


def halved(backend: Backend, x: Array, embedded: Normalised, dtype: Any) -> tuple[Array, Array]:
    """Rows that came in a half type, times powers of two that keep products in range, and what makes them normalised."""
    xp, size = backend.namespace(x), embedded.size
    if isinstance(size, float):  # norms are ordinary
        return xp.astype(x, dtype), (1.0 / embedded.norm)[:, 0]
    power = xp.where(size > 2.0**48, 2.0**-88, xp.where(size < 2.0**-48, 2.0**88, xp.ones_like(size)))
    power = xp.where(size == float("inf"), 1.0, power)
    return xp.astype(x * power, dtype), (1.0 / (power * size) / embedded.norm)[:, 0]


def in_blocks(backend: Backend, function: Callable[..., tuple[Array, ...]], *arrays: Array) -> tuple[Array, ...]:
    """`function` of a block of rows at a time; for arrays that are not differentiated."""
    count = arrays[0].shape[0]
    if not isinstance(count, int) or count <= BLOCK:
        return function(*arrays)
    xp = backend.namespace(arrays[0])
    if backend.traces:
        return _in_traced_blocks(cast(TracingBackend, backend), function, count, arrays)
    results: list[Array] = []
    for start in range(0, count, BLOCK):
        rows = slice(start, min(start + BLOCK, count))
        parts = function(*(x[rows, :] for x in arrays))
        if not results:
            results = [xp.zeros((count, x.shape[1]), dtype=x.dtype, device=backend.device(x)) for x in parts]
        for whole, part in zip(results, parts, strict=True):
            whole[rows, :] = part
    return tuple(results)


def _in_traced_blocks(
    backend: TracingBackend, function: Callable[..., tuple[Array, ...]], count: int, arrays: tuple[Array, ...]
) -> tuple[Array, ...]:
    """The same as a loop, without which a compiler may keep a whole matrix of each row's norm."""
    xp = backend.namespace(arrays[0])

    def block(start: Any) -> tuple[Array, ...]:
        return function(*(backend.rows_of(x, start, BLOCK) for x in arrays))

    def body(i: Any, results: tuple[Array, ...]) -> tuple[Array, ...]:
        start = xp.where(i * BLOCK < count - BLOCK, i * BLOCK, count - BLOCK)  # the last block overlaps the one before
        return tuple(backend.with_rows(x, part, start) for x, part in zip(results, block(start), strict=True))

    results: tuple[Array, ...] = backend.loop(
        1, -(-count // BLOCK), body, tuple(backend.padded(x, count) for x in block(0))
    )
    return results


def pull_back(backend: Backend, embedded: Normalised, gradient: Array) -> Array:
    """The gradient with respect to the rows as they came, from that with respect to the normalised ones."""
    xp = backend.namespace(gradient)
    along = xp.sum(embedded.rows * gradient, axis=1, keepdims=True)
    length = embedded.norm if isinstance(embedded.size, float) else embedded.norm * embedded.size
    return (gradient - along * embedded.rows) / length
