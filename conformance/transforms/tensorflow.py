"""The transforms of TensorFlow."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import tensorflow as tf

from sincere_spec.conformance.transforms.checks import Asked, Check, by_name

Found = Mapping[str, Any]


def prepare() -> None:
    """Two logical CPUs; TensorFlow takes no such word once it runs."""
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)


def eager(asked: Asked) -> Found:
    """A tape."""
    return by_name(*_taped(asked)(asked.arrays, asked.integers))


def graph(asked: Asked, compiler: bool = False) -> Found:
    """A graph for the shapes of the case."""
    return by_name(*tf.function(_taped(asked), jit_compile=compiler)(asked.arrays, asked.integers))


def any_rows(asked: Asked) -> Found:
    """One graph for any number of rows."""
    traced = tf.function(_taped(asked), input_signature=_signature(asked))
    if asked.engine != "tiled":  # where each size is a program inside of the graph, of seconds
        traced(*asked.another)
    return by_name(*traced(asked.arrays, asked.integers))


def rows_of_any_number(asked: Asked) -> Found:
    """Row losses in such a graph, under a cotangent that makes them their mean: all rows of these cases count."""

    def step(arrays: Any, integers: Any) -> Any:
        return _tape(lambda x, y: tf.reduce_mean(asked.loss(x, y, "none")), arrays, integers)

    return by_name(*tf.function(step, input_signature=_signature(asked))(asked.arrays, asked.integers))


def saved_model(asked: Asked) -> Found:
    """Saved for any number of rows, and differentiated after it was loaded again."""
    module = tf.Module()
    module.loss = tf.function(asked.loss, input_signature=_signature(asked))
    with tempfile.TemporaryDirectory() as folder:
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=True)
        tf.saved_model.save(module, folder, options=options)
        again = tf.saved_model.load(folder)
        return by_name(*_tape(again.loss, asked.arrays, asked.integers))


def vectorized_map(asked: Asked) -> Found:
    """Values and gradients of two batches at once."""
    values, gradients = tf.vectorized_map(lambda arrays: _taped(asked)(arrays, asked.integers), asked.batch)
    return by_name(values, gradients, "batch.")


def second_order(asked: Asked) -> Found:
    """A tape in a tape: the gradient of the gradient's product with a direction."""
    arrays, along = asked.arrays, asked.direction
    with tf.GradientTape() as tape:
        tape.watch(arrays)
        _, first = _taped(asked)(arrays, asked.integers)
        product = tf.add_n([tf.reduce_sum(first[name] * along[name]) for name in first])
    return {f"second.{name}": x for name, x in tape.gradient(product, arrays).items()}


def forward_mode(asked: Asked) -> Found:
    """An accumulator."""
    arrays, along = asked.arrays, asked.direction
    names = list(arrays)
    primals, tangents = [arrays[name] for name in names], [along[name] for name in names]
    with tf.autodiff.ForwardAccumulator(primals, tangents) as accumulator:
        value = asked.loss(arrays, asked.integers)
    return {"value": value, "tangent": accumulator.jvp(value)}


def mirrored(asked: Asked) -> Found:
    """Each replica has the loss of its own batch; here of the two of `Asked.batch`."""
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    batch, integers = asked.batch, asked.integers
    if strategy.num_replicas_in_sync != 2:
        raise AssertionError("expected two logical CPUs")
    given = strategy.experimental_distribute_values_from_function(
        lambda context: {name: x[context.replica_id_in_sync_group] for name, x in batch.items()}
    )
    step = tf.function(lambda arrays: strategy.run(_taped(asked), (arrays, integers)))
    values, gradients = tf.nest.map_structure(lambda x: tf.stack(strategy.experimental_local_results(x)), step(given))
    return by_name(values, gradients, "batch.")


def _tape(loss: Callable[..., Any], arrays: dict[str, Any], integers: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    with tf.GradientTape() as tape:
        tape.watch(arrays)
        value = loss(arrays, integers)
    return value, tape.gradient(value, arrays)


def _taped(asked: Asked) -> Callable[..., tuple[Any, dict[str, Any]]]:
    return lambda arrays, integers: _tape(asked.loss, arrays, integers)


def _signature(asked: Asked) -> Any:
    def of(x: Any) -> Any:
        return tf.TensorSpec([None, *x.shape[1:]] if x.shape.rank else [], x.dtype)

    return tf.nest.map_structure(of, (asked.arrays, asked.integers))


CHECKS: dict[str, Check] = {
    "eager": eager,
    "function": graph,
    "function-any-rows": any_rows,
    "function-rows": rows_of_any_number,
    "jit-compile": partial(graph, compiler=True),
    "saved-model": saved_model,
    "vectorized-map": vectorized_map,
    "second-order": second_order,
    "forward-mode": forward_mode,
    "mirrored-strategy": mirrored,
}
