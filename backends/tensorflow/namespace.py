"""The functions of the Array API standard that losses and engines use, for TensorFlow, which has no such namespace.

Plain functions over `tf`: nothing is switched on for the caller's program. NaN propagates through every one of them,
except `max` under XLA, on which no engine relies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from sincere_spec.arrays import Array

abs = tf.abs
arange = tf.range
cos = tf.cos
exp = tf.exp
log = tf.math.log
log1p = tf.math.log1p
minimum = tf.minimum
ones_like = tf.ones_like
sigmoid = tf.math.sigmoid
sin = tf.sin
softplus = tf.math.softplus
sqrt = tf.sqrt
zeros_like = tf.zeros_like


def argsort(x: Array, stable: bool = True) -> Array:
    """The indices that sort a vector."""
    return tf.argsort(x, stable=stable)


def astype(x: Array, dtype: Any) -> Array:
    """The array in another dtype."""
    return tf.cast(x, dtype)


def concat(arrays: Sequence[Array], axis: int = 0) -> Array:
    """Arrays joined along an axis."""
    return tf.concat(arrays, axis)


def cumulative_sum(x: Array, axis: int) -> Array:
    """The sums of the entries up to each one along an axis."""
    return tf.cumsum(x, axis)


def logaddexp(x: Array, y: Array) -> Array:
    """`log(exp(x) + exp(y))` for finite `y`; its slope at x = y is one half, which a maximum would not give."""
    return y + tf.nn.softplus(x - y)


def matrix_transpose(x: Array) -> Array:
    """The transpose of a matrix."""
    return tf.transpose(x)


def max(x: Array, axis: int, keepdims: bool = False) -> Array:
    """The largest entry along an axis."""
    return tf.reduce_max(x, axis, keepdims)


def reshape(x: Array, shape: Sequence[Any]) -> Array:
    """The same entries in another shape."""
    return tf.reshape(x, shape)


def searchsorted(x: Array, values: Array, side: str) -> Array:
    """Where sorted values belong in a sorted vector, before or after what is equal to them.

    By the ranks of both in one sort: TensorFlow's own search compares all pairs where XLA compiles it.
    """
    count, others = tf.shape(values)[0], tf.shape(x)[0]
    start, joined = (0, [values, x]) if side == "left" else (others, [x, values])
    rank = tf.argsort(tf.argsort(tf.concat(joined, 0), stable=True))
    return rank[start : start + count] - tf.range(count)


def sum(x: Array, axis: int | None = None, keepdims: bool = False) -> Array:
    """The sum along an axis, or of everything."""
    return tf.reduce_sum(x, axis, keepdims)


def take(x: Array, indices: Array, axis: int) -> Array:
    """The entries at some indices along an axis."""
    return tf.gather(x, indices, axis=axis)


def where(condition: Array, x: Any, y: Any) -> Array:
    """Entries of `x` where the condition holds, of `y` elsewhere; one of them may be a Python number."""
    if not tf.is_tensor(x):
        x = tf.convert_to_tensor(x, y.dtype)
    if not tf.is_tensor(y):
        y = tf.convert_to_tensor(y, x.dtype)
    return tf.where(condition, x, y)
