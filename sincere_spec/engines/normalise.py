"""Rows on the unit sphere, at any scale, and the way back for gradients."""

from __future__ import annotations

from dataclasses import dataclass

from sincere_spec.types import Array, Backend


@dataclass(frozen=True)
class Normalised:
    """Rows divided by their norm, and by what: first by the largest entry `size`, then by the `norm` of the rest."""

    rows: Array
    size: Array
    norm: Array


def normalise(backend: Backend, x: Array) -> Normalised:
    """Each row divided by its norm, without an epsilon: a zero row stays zero, and no other depends on its scale.

    The largest entry is divided out first, so that squares neither overflow nor vanish. It is held constant: the result
    does not depend on it. That of a zero row is set to infinity, which makes its gradient exactly zero.
    """
    xp = backend.namespace(x)
    if x.shape[1] == 0:  # there is no largest entry, and nothing to divide
        ones = xp.sum(x, axis=1, keepdims=True) + 1.0
        return Normalised(x, ones, ones)
    size = backend.hold(xp.max(xp.abs(x), axis=1, keepdims=True))
    empty = size == 0.0
    size = xp.where(empty, float("inf"), size)
    scaled = x / size
    norm = xp.sqrt(xp.where(empty, 1.0, xp.sum(scaled * scaled, axis=1, keepdims=True)))
    return Normalised(scaled / norm, size, norm)


def pull_back(backend: Backend, embedded: Normalised, gradient: Array) -> Array:
    """The gradient with respect to the rows as they came, from that with respect to the normalised ones."""
    xp = backend.namespace(gradient)
    along = xp.sum(embedded.rows * gradient, axis=1, keepdims=True)
    return (gradient - along * embedded.rows) / embedded.norm / embedded.size
