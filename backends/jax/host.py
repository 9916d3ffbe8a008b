"""What NumPy does with arrays of the CPU: JAX compiles a program for each new shape, even to cut or to scale an array.

Reverse mode in eager JAX transposes `sum(gradient * tangent)` operation by operation, and compiles each for each shape.
`inner_product` is one primitive, whose transpose rule is a multiplication of NumPy.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from sincere_spec.arrays import Array


def concrete(x: Array) -> bool:
    """Whether it is an array of JAX that has values."""
    return isinstance(x, jax.Array) and not isinstance(x, jax.core.Tracer)


def on_host(x: Array) -> bool:
    """Whether it is one whose values are in the memory of the processor."""
    return concrete(x) and all(device.platform == "cpu" for device in x.devices())


def beside(x: Array, rows: Any) -> Array:
    """Rows of NumPy as an array on the devices of another."""
    return jax.device_put(rows, x.sharding if x.committed else None)


def inner_product(gradient: Array, tangent: Array) -> Array:
    """The sum of a gradient times a tangent, of one shape."""
    here = on_host(gradient) and len(gradient.devices()) == 1
    result: Array = (INNER_PRODUCT.bind if here else _product)(gradient, tangent)
    return result


def _product(gradient: Array, tangent: Array) -> Array:
    return lax.reduce_sum(lax.mul(gradient, tangent), tuple(range(gradient.ndim)))


def _scaled(cotangent: Array, x: Array) -> Array:
    """The transpose: an array times a scalar."""
    if concrete(x) and concrete(cotangent):
        return beside(x, np.asarray(x) * np.asarray(cotangent))
    return lax.mul(x, lax.broadcast(cotangent, x.shape))


def _along_axis(arrays: Any, axes: Any) -> Any:
    return jax.vmap(_product, in_axes=axes)(*arrays), 0


INNER_PRODUCT = Primitive("inner_product")
INNER_PRODUCT.def_impl(_product)  # type: ignore[no-untyped-call]
INNER_PRODUCT.def_abstract_eval(lambda gradient, tangent: gradient.update(shape=()))  # type: ignore[no-untyped-call]
ad.defbilinear(  # type: ignore[no-untyped-call]
    INNER_PRODUCT, lambda cotangent, x, y: _scaled(cotangent, y), lambda cotangent, x, y: _scaled(cotangent, x)
)
batching.primitive_batchers[INNER_PRODUCT] = _along_axis
mlir.register_lowering(INNER_PRODUCT, mlir.lower_fun(_product, multiple_results=False))
