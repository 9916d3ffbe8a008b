"""TensorFlow: its tapes get the gradient of every engine by `derivatives`; XLA compiles the loops of the tiled one."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache, partial
from typing import Any

import tensorflow as tf
from tensorflow.compiler.tf2xla.ops import gen_xla_ops
from tensorflow.python.eager import forwardprop_util

from sincere_spec.arrays import Array, Namespace, T
from sincere_spec.backends.tensorflow import derivatives, namespace, replicas
from sincere_spec.errors import EngineUnavailable, ShapeError, UnknownArrayError
from sincere_spec.interface import Collectives, Differentiable, Divisible, Kernels
from sincere_spec.spec.words import Logit


class TensorFlowBackend:
    """Eager and symbolic tensors, and variables."""

    name = "tensorflow"
    traces = True

    def namespace(self, x: Array) -> Namespace:
        return namespace

    def prepare(self, x: Array, argument: str) -> Array:
        if isinstance(x, tf.Variable):
            return tf.convert_to_tensor(x)
        if not isinstance(x, tf.Tensor):
            raise UnknownArrayError(f"{argument}: expected a dense tensor; got a {type(x).__name__}: convert it.")
        if x.shape.rank is None:
            raise ShapeError(
                f"{argument}: expected a tensor of known rank; got one of unknown: give it a shape by set_shape."
            )
        return x

    def dtype_name(self, x: Array) -> str:
        name: str = x.dtype.name
        return name

    def dtype(self, name: str, like: Array) -> Any:
        return tf.as_dtype(name)

    def device(self, x: Array) -> object:
        return None  # TensorFlow copies between devices by itself

    def platform(self, x: Array) -> str:
        # A symbolic tensor is on no device yet, and goes to an accelerator if there is one.
        device: str = x.device or tf.config.list_logical_devices()[-1].name
        kind = device.rpartition("device:")[2].partition(":")[0].lower()
        return "cuda" if kind == "gpu" else kind

    def concrete(self, x: Array) -> bool:
        return hasattr(x, "numpy") and tf.executing_eagerly()

    def on_host(self, x: Array) -> bool:
        return self.concrete(x) and "GPU" not in x.device

    def extremes(self, x: Array) -> tuple[float, float]:
        values = x.numpy()
        return float(values.min()), float(values.max())

    def to_host(self, x: Array) -> Any:
        return x.numpy()

    def integers(self, values: Sequence[int], like: Array) -> Array:
        return tf.constant(values, dtype=tf.int64)

    def length(self, x: Array) -> Any:
        return tf.shape(x)[0] if x.shape[0] is None else x.shape[0]

    def indices(self, x: Array) -> Array:
        return tf.range(self.length(x), dtype=tf.int64)

    def hold(self, x: Array) -> Array:
        return tf.stop_gradient(x)

    def product(self, a: Array, b: Array) -> Array:
        return tf.matmul(a, b)

    def has_columns(self, like: Array) -> bool:
        return False

    def tiles_obstacle(self, like: Array) -> str | None:
        if forwardprop_util.pack_tangents([like]).tangents:
            return "TensorFlow has no rule for forward mode through it"
        return None

    def when_run(self, like: Array) -> str | None:
        return None

    def kernels(self, like: Array, logit: Logit) -> Kernels | str:
        return "TensorFlow has no kernel language: its fast path is the tiled engine, which XLA compiles"

    def collectives(self, group: object) -> Collectives | str:
        return replicas.collectives(group)

    def wants_gradient(self, x: Array) -> bool:
        return True

    def largest(self, x: Array, k: int) -> tuple[Array, Array]:
        values, columns = tf.math.top_k(x, k)
        return values, columns

    def segment_sums(self, x: Array, segments: Array, count: int) -> Array:
        return tf.math.unsorted_segment_sum(x, segments, count)

    def differentiable(self, steps: Differentiable, *arrays: Array) -> Array:
        if forwardprop_util.pack_tangents(arrays).tangents:
            raise EngineUnavailable(
                'TensorFlow has no rule for forward mode through tiles; ask for engine="dense", which has.'
            )
        return derivatives.value(steps, arrays)

    def exp_of(self, x: Array) -> Array:
        return self.namespace(x).exp(x)

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        result: T = tf.autograph.experimental.do_not_convert(function)(*arguments)
        return result

    def loop(self, start: Any, stop: Any, body: Callable[[Any, Any], Any], state: Any) -> Any:
        first = tf.convert_to_tensor(start, tf.int32)
        _, state = tf.while_loop(
            lambda i, _: i < stop, lambda i, state: (i + 1, body(i, state)), (first, state), parallel_iterations=1
        )
        return state

    def when(self, condition: Array, yes: Callable[[], T], no: Callable[[], T]) -> T:
        result: T = tf.cond(condition, yes, no)
        return result

    def rows_of(self, x: Array, start: Any, count: int) -> Array:
        # -1 takes all of an unknown width; XLA pads x to twice its size for it, so a known one is said.
        others = [-1 if width is None else width for width in x.shape[1:].as_list()]
        return tf.slice(x, [start, *(0 for _ in others)], [count, *others])

    def with_rows(self, x: Array, rows: Array, start: Any) -> Array:
        where = [start, *(0 for _ in rows.shape[1:])]
        updated = gen_xla_ops.xla_dynamic_update_slice(input=x, update=rows, indices=where)
        updated.set_shape(x.shape)
        return updated

    def padded(self, x: Array, count: Any) -> Array:
        return tf.pad(x, [[0, count - self.length(x)], *([0, 0] for _ in x.shape[1:])])

    def first_rows(self, count: int, size: int) -> Array:
        return tf.range(size) < count

    def runs_by_size(self, arrays: Sequence[Array], dense: bool) -> bool:
        return not dense and all(map(self.concrete, arrays))

    def copies(self, x: Array) -> int:
        return 1

    def may_divide(self, arrays: Sequence[Array]) -> bool:
        return False

    def divided(self, program: Divisible, operands: tuple[Array, ...]) -> tuple[Array, ...]:
        return program.whole(*operands)

    def number(self, value: float, dtype: str) -> Array:
        return tf.constant(value, dtype=dtype)

    def gradient_follows(self) -> bool:
        return bool(tf.executing_eagerly())  # a graph may or may not be differentiated later

    def run(self, function: Callable[..., T], static: Hashable, *arrays: Any) -> T:
        widths = tuple(tuple(x.shape[1:]) for x in tf.nest.flatten(arrays) if tf.is_tensor(x))
        result: T = _compiled(function, static, widths)(*arrays)
        return result


@lru_cache(maxsize=256)
def _compiled(function: Callable[..., Any], static: Hashable, widths: Hashable) -> Callable[..., Any]:
    """One program for all sizes of a batch, until XLA makes one for each; another width of rows has its own."""
    program: Callable[..., Any] = tf.function(
        partial(function, static), jit_compile=True, autograph=False, reduce_retracing=True
    )
    return program
