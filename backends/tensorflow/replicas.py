"""What the replicas of a tf.distribute strategy exchange, inside of `strategy.run`: rows, and sums."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from sincere_spec.arrays import Array


class ReplicaCollectives:
    """What the replicas of a strategy exchange; each may have another number of rows, or none."""

    on_host = False
    compiled = False

    def __init__(self, context: Any) -> None:
        self.context = context
        # Outside of the replicas a graph has the whole batch, as where Keras builds a model.
        self.size: int = 1 if context is None else context.num_replicas_in_sync

    @property
    def rank(self) -> Any:
        """The replica's place among them."""
        return tf.cast(self.context.replica_id_in_sync_group, tf.int64)

    def gather(self, x: Array, sizes: Sequence[Any]) -> Array:
        return self.context.all_gather(x, axis=0)

    def total(self, x: Array) -> Array:
        return self.context.all_reduce(tf.distribute.ReduceOp.SUM, x)

    def scatter(self, x: Array, own: Array, sizes: Sequence[Any]) -> Array:
        """From the whole sum: tf.distribute has no reduce-scatter."""
        first, total = self.before(own), self.total(x)
        return total[first : first + tf.shape(own, out_type=tf.int64)[0]]

    def before(self, x: Array) -> Array:
        rows = tf.shape(x, out_type=tf.int64)[:1]
        return tf.reduce_sum(self.gather(rows, ())[: self.rank])


def collectives(group: object) -> ReplicaCollectives | str:
    """Those of the strategy whose replica calls; or why there are none, as half a sentence."""
    if group is not True:
        return f"TensorFlow wants across=True, inside strategy.run; got {group!r}"
    context = tf.distribute.get_replica_context()
    if context is None and tf.executing_eagerly():
        return "a strategy has replicas inside of strategy.run, where each has its own rows: call the loss there"
    return ReplicaCollectives(context)
