"""A hand-written forward and backward under the transforms of jax.

The derivative of a scalar along a tangent is the product of the tangent with the written gradient: that serves forward and
reverse mode, and nothing is computed for an array that does not move. For a vector of row losses the product with a
cotangent is written instead, and jax refuses forward mode by itself. Higher derivatives are those of the exact composite.

Every array is an argument: a rule may not close over a tracer.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero, zero_from_primal

from sincere_spec.arrays import Array
from sincere_spec.backends.jax.host import inner_product
from sincere_spec.interface import Static

Arrays = tuple[Array, ...]


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def scalar_value(static: Static, constants: Arrays, arrays: Arrays) -> Array:
    """The value of the steps, where it is a scalar."""
    return static.steps(constants).value(*arrays)


@partial(scalar_value.defjvp, symbolic_zeros=True)
def _scalar_value_along(static: Static, primals: Any, tangents: Any) -> tuple[Array, Array]:
    (constants, arrays), (_, along) = primals, tangents
    moving = tuple(not isinstance(tangent, SymbolicZero) for tangent in along)
    value, saved = _forward(static, moving, constants, arrays)
    gradients = _backward(static, moving, constants, arrays, saved, jnp.ones_like(value))
    products = (
        inner_product(gradient.astype(value.dtype), tangent.astype(value.dtype))
        for gradient, tangent in zip(gradients, along, strict=True)
        if gradient is not None
    )
    return value, static.total(sum(products, jnp.zeros_like(value)))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def row_values(static: Static, constants: Arrays, arrays: Arrays) -> Array:
    """The value of the steps, where it is a vector."""
    return static.steps(constants).value(*arrays)


def _row_values_forward(static: Static, constants: Arrays, arrays: Arrays) -> tuple[Array, Any]:
    value, saved = _forward(static, (True,) * len(arrays), constants, arrays)
    return value, (constants, arrays, saved)


def _row_values_backward(static: Static, kept: Any, cotangent: Array) -> tuple[None, Arrays]:
    constants, arrays, saved = kept
    return None, _backward(static, (True,) * len(arrays), constants, arrays, saved, cotangent)


row_values.defvjp(_row_values_forward, _row_values_backward)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _forward(static: Static, moving: tuple[bool, ...], constants: Arrays, arrays: Arrays) -> tuple[Array, Any]:
    return static.steps(constants).forward(arrays, moving)


@_forward.defjvp
def _forward_along(static: Static, moving: tuple[bool, ...], primals: Any, tangents: Any) -> Any:
    constants, arrays = primals
    value, tangent = jax.jvp(static.steps(constants).exact, arrays, tangents[1])
    _, saved = _forward(static, moving, constants, arrays)  # used by `_backward` alone, which has its own rule
    return (value, saved), (tangent, jax.tree.map(zero_from_primal, saved))


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _backward(
    static: Static,
    moving: tuple[bool, ...],
    constants: Arrays,
    arrays: Arrays,
    saved: Any,
    cotangent: Array,
) -> tuple[Array | None, ...]:
    return static.steps(constants).backward(arrays, saved, cotangent, moving)


@_backward.defjvp
def _backward_along(static: Static, moving: tuple[bool, ...], primals: Any, tangents: Any) -> Any:
    constants, arrays, _, cotangent = primals

    def gradient(arrays: Arrays, cotangent: Array) -> tuple[Array | None, ...]:
        _, pull_back = jax.vjp(static.steps(constants).exact, *arrays)
        found = zip(pull_back(cotangent), moving, strict=True)
        return tuple(gradient if moves else None for gradient, moves in found)

    return jax.jvp(gradient, (arrays, cotangent), (tangents[1], tangents[3]))
