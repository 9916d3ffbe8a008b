"""A hand-written forward and backward on TensorFlow's tapes, right to any order in reverse mode.

Nothing inside is recorded, so a tape keeps the arrays and vectors alone. The first derivative is the engine's; derivatives of
it are those of the exact composite. There is no forward mode: TensorFlow has no way to give it a rule.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import record

from sincere_spec.arrays import Array
from sincere_spec.interface import Differentiable


def value(steps: Differentiable, arrays: tuple[Array, ...]) -> Array:
    """The value of the steps; its gradient is `gradient`."""
    if tf.executing_eagerly() and not record.should_record_backprop(arrays):  # a graph may be differentiated later
        return steps.value(*arrays)
    wanted = (True,) * len(arrays)

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def node(*arrays: Array) -> tuple[Array, Callable[[Array], Any]]:
        result, saved = steps.forward(_held(arrays), wanted)
        return result, lambda cotangent: gradient(steps, saved, cotangent, arrays)

    return node(*arrays)


def gradient(steps: Differentiable, saved: Any, cotangent: Array, arrays: tuple[Array, ...]) -> Any:
    """The gradient of the steps under a cotangent; its own is TensorFlow's, of the exact composite."""
    wanted = (True,) * len(arrays)

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def node(cotangent: Array, *arrays: Array) -> tuple[Any, Callable[..., Any]]:
        (held,) = _held((cotangent,))
        found = steps.backward(_held(arrays), saved, held, wanted)

        def pull_back(*cotangents: Array) -> Any:
            inputs = (cotangent, *arrays)
            with tf.GradientTape() as outer:
                outer.watch(inputs)
                with tf.GradientTape() as inner:
                    inner.watch(arrays)
                    result = steps.exact(*arrays)
                first = inner.gradient(result, arrays, output_gradients=cotangent)
            return outer.gradient(first, inputs, list(cotangents), tf.UnconnectedGradients.ZERO)

        return found, pull_back

    return node(cotangent, *arrays)


def _held(arrays: tuple[Array, ...]) -> tuple[Array, ...]:
    return tuple(tf.stop_gradient(x) for x in arrays)
