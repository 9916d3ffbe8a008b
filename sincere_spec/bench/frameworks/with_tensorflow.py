"""TensorFlow: everything in a tf.function; the mode "xla" compiles it."""

from __future__ import annotations

from collections.abc import Callable
from math import pi
from typing import Any

import tensorflow as tf

from sincere_spec.bench import cases
from sincere_spec.bench.cases import Program
from sincere_spec.bench.frameworks import Place, Step
from sincere_spec.bench.inputs import Inputs
from sincere_spec.bench.settings import Function


def make(place: Place) -> TensorFlow:
    """TensorFlow in this process."""
    if (place.device == "cuda") != bool(tf.config.list_physical_devices("GPU")):
        raise ValueError(f"tensorflow does not run on {place.device} here.")
    return TensorFlow(place)


class TensorFlow:
    """Tensors on the default device."""

    compiles = True

    def __init__(self, place: Place) -> None:
        self.place = place

    def arrays(self, inputs: Inputs) -> tuple[Any, ...]:
        labels = () if inputs.labels is None else (tf.constant(inputs.labels, dtype=tf.int32),)
        beside = (tf.cast(x, self.place.dtype) if x.dtype.kind == "f" else tf.constant(x) for x in inputs.beside)
        return (*(tf.cast(tf.constant(x), self.place.dtype) for x in inputs.embeddings), *labels, *beside)

    def plain(self, loss: str) -> Function:
        return PLAIN[loss]

    def ours(self, loss: str, program: Program) -> Function:
        return cases.ours(loss, program)

    def step(self, function: Function, program: Program, arrays: tuple[Any, ...], embeddings: int) -> Step:
        def value_and_gradient(*arrays: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(arrays[:embeddings])
                value = function(*arrays)
            return value, tape.gradient(value, arrays[:embeddings])

        xla = True if program.mode == "xla" else None
        compiled = tf.function(value_and_gradient, jit_compile=xla, autograph=False)
        compiled.get_concrete_function(*arrays)

        def run() -> Any:
            result = compiled(*arrays)
            self._wait()
            return result

        return run

    def products(self, tile: int, dim: int, rows: int) -> Callable[[int], None]:
        z = tf.ones((rows, dim), self.place.dtype)
        number = rows // tile

        def multiply(z: Any, count: Any) -> Any:
            def one(k: Any, _: Any) -> Any:
                a = tf.slice(z, [(k // number % number) * tile, 0], [tile, dim])
                b = tf.slice(z, [(k % number) * tile, 0], [tile, dim])
                return k + 1, tf.matmul(a, b, transpose_b=True)

            start = (0, tf.zeros((tile, tile), z.dtype))
            return tf.while_loop(lambda k, _: k < count, one, start, parallel_iterations=1)[1]

        compiled = tf.function(multiply, autograph=False)

        def run(count: int) -> None:
            compiled(z, tf.constant(count))
            self._wait()

        return run

    def _wait(self) -> None:
        if self.place.device == "cuda":
            tf.test.experimental.sync_devices()

    def device_memory(self) -> tuple[int, int] | None:
        if self.place.device == "cpu":
            return None
        found = tf.config.experimental.get_memory_info("GPU:0")
        return found["current"], found["peak"]

    def reset_device_memory(self) -> None:
        if self.place.device == "cuda":
            tf.config.experimental.reset_memory_stats("GPU:0")

    def memory_limit(self) -> None:
        return None  # TensorFlow does not say

    def device_name(self) -> str | None:
        if self.place.device == "cpu":
            return None
        name: str = tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[0])["device_name"]
        return name


# --- plain formulas ---


def _unit(z: Any) -> Any:
    return tf.math.l2_normalize(z, axis=1)


def _logits(z: Any, temperature: float = 0.1) -> Any:
    u = _unit(z)
    return tf.matmul(u, u, transpose_b=True) / temperature


def _eye(logits: Any) -> Any:
    return tf.eye(logits.shape[0], dtype=tf.bool)


def _without(mask: Any, logits: Any) -> Any:
    return tf.where(mask, logits.dtype.min, logits)


def _mean_over_positives(pairs: Any, positive: Any) -> Any:
    number = tf.reduce_sum(tf.cast(positive, pairs.dtype), axis=1)
    rows = tf.reduce_sum(tf.where(positive, pairs, 0.0), axis=1) / tf.maximum(number, 1.0)
    return tf.reduce_sum(rows) / tf.maximum(tf.math.count_nonzero(number, dtype=pairs.dtype), 1.0)


def _log_add_exp(a: Any, b: Any) -> Any:
    return tf.maximum(a, b) + tf.math.softplus(-tf.abs(a - b))


def _sincere(z: Any, labels: Any) -> Any:
    logits = _logits(z)
    same = labels[:, None] == labels[None, :]
    below = tf.reduce_logsumexp(_without(same, logits), axis=1, keepdims=True)
    return _mean_over_positives(_log_add_exp(logits, below) - logits, same & ~_eye(logits))


def _supcon(z: Any, labels: Any) -> Any:
    logits = _logits(z)
    eye = _eye(logits)
    log_share = tf.nn.log_softmax(_without(eye, logits), axis=1)
    return _mean_over_positives(-log_share, (labels[:, None] == labels[None, :]) & ~eye)


def _decoupled(z: Any, labels: Any) -> Any:
    logits = _logits(z)
    same = labels[:, None] == labels[None, :]
    below = tf.reduce_logsumexp(_without(same, logits), axis=1, keepdims=True)
    return _mean_over_positives(below - logits, same & ~_eye(logits))


def _cross_entropy(logits: Any, target: Any) -> Any:
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(target, logits))


def _partner_entropy(logits: Any) -> Any:
    partner = tf.roll(tf.range(logits.shape[0]), logits.shape[0] // 2, axis=0)
    return _cross_entropy(_without(_eye(logits), logits), partner)


def _nt_xent(a: Any, b: Any) -> Any:
    return _partner_entropy(_logits(tf.concat((a, b), axis=0)))


def _dystress(a: Any, b: Any) -> Any:
    s = _logits(tf.concat((a, b), axis=0), 1.0)
    temperature = tf.stop_gradient(0.1 + 0.1 * (1.0 + tf.cos(pi * (1.0 + s))) / 2.0)
    return _partner_entropy(s / temperature)


def _towers(a: Any, b: Any, temperature: float) -> Any:
    return tf.matmul(_unit(a), _unit(b), transpose_b=True) / temperature


def _info_nce(a: Any, b: Any) -> Any:
    return _cross_entropy(_towers(a, b, 0.07), tf.range(a.shape[0]))


def _clip(a: Any, b: Any) -> Any:
    logits, target = _towers(a, b, 0.07), tf.range(a.shape[0])
    return (_cross_entropy(logits, target) + _cross_entropy(tf.transpose(logits), target)) / 2.0


def _siglip(a: Any, b: Any) -> Any:
    logits = _towers(a, b, 0.1) - 10.0
    sign = 2.0 * tf.eye(a.shape[0], dtype=a.dtype) - 1.0
    return tf.reduce_sum(tf.math.softplus(-sign * logits)) / a.shape[0]


def _f_micl(a: Any, b: Any) -> Any:
    u, v = _unit(a), _unit(b)
    kernel = tf.exp(2.0 * tf.matmul(u, u, transpose_b=True) - 2.0)
    others = tf.linalg.set_diag(kernel, tf.zeros(a.shape[0], kernel.dtype))
    repel = tf.reduce_sum(others, axis=1) / (a.shape[0] - 1)
    return tf.reduce_mean(40.0 * repel - (2.0 * tf.reduce_sum(u * v, axis=1) - 1.0))


PLAIN: dict[str, Function] = {
    "sincere": _sincere,
    "supcon": _supcon,
    "decoupled": _decoupled,
    "nt_xent": _nt_xent,
    "dystress": _dystress,
    "info_nce": _info_nce,
    "clip": _clip,
    "siglip": _siglip,
    "f_micl": _f_micl,
}
