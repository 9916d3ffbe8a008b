"""The functions of the Array API standard that losses and engines use, as jax has them.

`softplus` and `sigmoid` are here besides: exact, smooth to any order, and several times faster than by `logaddexp`.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
from jax import lax
from jax import numpy as jnp

from sincere_spec.arrays import Array

abs = jnp.abs
arange = jnp.arange
argsort = jnp.argsort
astype = jnp.astype
cos = jnp.cos
cumulative_sum = jnp.cumulative_sum
exp = jnp.exp
log = jnp.log
log1p = jnp.log1p
logaddexp = jnp.logaddexp
matrix_transpose = jnp.matrix_transpose
max = jnp.max
minimum = jnp.minimum
ones_like = jnp.ones_like
reshape = jnp.reshape
sigmoid = jax.nn.sigmoid
sin = jnp.sin
sqrt = jnp.sqrt
sum = jnp.sum
take = jnp.take
where = jnp.where
zeros_like = jnp.zeros_like


def concat(arrays: Sequence[Array], axis: int = 0) -> Array:
    """Arrays joined along an axis; one alone is itself, as no array can be written to."""
    return arrays[0] if len(arrays) == 1 else jnp.concat(arrays, axis=axis)


def searchsorted(x: Array, values: Array, side: str) -> Array:
    """Where sorted values belong in a sorted vector; by the ranks of both where JAX's own search needs a number of rows."""
    if isinstance(x.shape[0], int):
        return jnp.searchsorted(x, values, side=side)
    count, others = values.shape[0], x.shape[0]
    start, joined = (0, [values, x]) if side == "left" else (others, [x, values])
    rank = jnp.argsort(jnp.argsort(jnp.concat(joined), stable=True))
    return lax.dynamic_slice_in_dim(rank, start, count) - jnp.arange(count)


@jax.custom_jvp
def softplus(x: Array) -> Array:
    """`log(1 + exp(x))`."""
    return jnp.maximum(x, 0.0) + jnp.log1p(jnp.exp(-jnp.abs(x)))


@softplus.defjvp
def _softplus_along(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    """The slope is written out: a maximum's is not defined at 0."""
    (x,), (tangent,) = primals, tangents
    return softplus(x), sigmoid(x) * tangent
