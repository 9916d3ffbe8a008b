"""What the replicas of a tf.distribute strategy exchange, inside of `strategy.run`: rows, gathered in order of replica."""

from __future__ import annotations

from functools import partial
from typing import Any

import tensorflow as tf

from sincere_spec.arrays import Array
from sincere_spec.interface import Replicas


def replicas(group: object) -> Replicas | str:
    """Those of the strategy whose replica calls; or why there are none, as half a sentence."""
    if group is not True:
        return f"TensorFlow wants across=True, inside strategy.run; got {group!r}"
    context = tf.distribute.get_replica_context()
    if context is None and tf.executing_eagerly():
        return "a strategy has replicas inside of strategy.run, where each has its own rows: call the loss there"
    # Outside of the replicas a graph has the whole batch, as where Keras builds a model.
    size = 1 if context is None else context.num_replicas_in_sync
    return Replicas(size, partial(_gather, context), partial(_own, context), _scaled)


def _gather(context: Any, x: Array, scale: float | None) -> Array:
    whole = context.all_gather(tf.stop_gradient(x), axis=0)
    if scale is None:
        return whole
    before, rows = _place(context, x)

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def node(x: Array, whole: Array) -> Any:
        return tf.identity(whole), lambda cotangent: (cotangent[before : before + rows] * scale, None)

    return node(x, whole)


def _own(context: Any, x: Array, whole: Array) -> Array:
    before, rows = _place(context, x)
    return whole[before : before + rows]


def _place(context: Any, x: Array) -> tuple[Array, Array]:
    """How many rows lower replicas have of an array, and how many this one has."""
    rows = tf.shape(x, out_type=tf.int64)[0]
    sizes = context.all_gather(rows[None], axis=0)  # [replicas]
    return tf.reduce_sum(sizes[: tf.cast(context.replica_id_in_sync_group, tf.int64)]), rows


def _scaled(x: Array, scale: float) -> Array:
    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def node(x: Array) -> Any:
        return tf.identity(x), lambda cotangent: cotangent * scale

    return node(x)
