"""What is TensorFlow's alone: shapes that a graph does not know, and replicas."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from catalogue import distance, rule

import sincere_spec as ss

ROWS, WIDTH = 13, 5


@pytest.mark.framework("tensorflow")
@pytest.mark.parametrize("engine", ["auto", "dense", "tiled"])
@pytest.mark.parametrize("shape", [(None, None), (ROWS, None), (None, WIDTH)])
def test_a_graph_that_does_not_know_a_shape(shape: tuple[int | None, ...], engine: str) -> None:
    """Unknown is not unequal: a gather over replicas, a generator and a py_function know neither rows nor width."""
    import tensorflow as tf

    options = {"engine": engine, "tile": 4 if engine == "tiled" else None}
    z, other = (tf.constant(np.random.default_rng(seed).normal(size=(ROWS, WIDTH))) for seed in (1, 2))
    labels = tf.range(ROWS) % 4

    def losses(z: Any, labels: Any, **options: Any) -> Any:
        towers = ss.clip_loss(z, other, **options) + ss.info_nce_loss(other, z, other[:3], **options)
        return ss.sincere_loss(z, labels, **options) + towers

    def step(z: Any, labels: Any, **options: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(z)
            value = losses(z, labels, **options)
        return value, tape.gradient(value, z)

    signature = [tf.TensorSpec(shape, tf.float64), tf.TensorSpec(shape[:1], tf.int32)]
    found = tf.function(lambda z, labels: step(z, labels, **options), input_signature=signature)(z, labels)
    want = step(z, labels, engine="dense")
    for x, exact in zip(found, want):
        assert distance(x.numpy(), exact.numpy()) <= rule("float64", 0.07)


@pytest.mark.framework("tensorflow")
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_graph_of_unknown_rows_takes_tiles_where_there_are_many(
    reduction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorflow as tf

    from sincere_spec.call import plan

    table = plan.crossovers()
    monkeypatch.setattr(plan, "crossovers", lambda: table | {"tensorflow": {"cpu": {"pairs": 101, "tile": 8}}})
    made = tf.constant(np.random.default_rng(3).normal(size=(37, WIDTH)))
    where = tf.constant(np.random.default_rng(4).random(37) < 0.8)

    def loss(z: Any, labels: Any, where: Any, temperature: Any, weights: Any, engine: str) -> Any:
        options = {"temperature": temperature, "reduction": reduction, "engine": engine}
        if reduction == "none":
            return weights * ss.info_nce_loss(z, z[:, ::-1], made, **options)
        return weights[0] * ss.supcon_loss(z, labels, where=where, **options)

    def step(z: Any, *rest: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch((z, rest[2]))
            value = loss(z, *rest)
        return value, *tape.gradient(value, (z, rest[2]))

    seen: list[str] = []

    def traced(z: Any, *rest: Any) -> Any:
        seen.append(str(ss.explain(ss.losses.supcon(), z, rest[0])))
        return step(z, *rest, "auto")

    vectors = [tf.TensorSpec((None,), kind) for kind in (tf.int64, tf.bool, tf.float64)]
    vectors.insert(2, tf.TensorSpec((), tf.float64))
    signature = [tf.TensorSpec((None, WIDTH), tf.float64), *vectors]
    programs = [tf.function(traced, input_signature=signature, jit_compile=jit) for jit in (False, True)]
    for program, n in ((0, 0), (0, 1), (0, 10), (0, 37), (1, 37)):  # 100 pairs are few, and 1369 many
        weights = tf.range(1, n + 2, dtype=tf.float64) / 7.0
        given = [made[:n], tf.range(n, dtype=tf.int64) % 4, where[:n], tf.constant(0.3, tf.float64), weights]
        if reduction == "none":
            given[-1] = weights[:n]
        for x, exact in zip(programs[program](*given), step(*given, "dense")):
            assert distance(x.numpy(), exact.numpy()) <= rule("float64", 0.1)
    assert seen == [
        "tensorflow, engine chosen when it runs: the number of rows is not known before the call; "
        "matrices below 101 pairs, and tiles of 8 rows from there on"
    ] * len(programs)


@pytest.mark.framework("tensorflow")
@pytest.mark.parametrize("width", [8, None], ids=["known", "unknown"])
def test_4096_rows_of_an_unknown_number_are_the_dense_engine_s_to_1e_6(width: int | None) -> None:
    """In float32, against the dense engine in float64: that in float32 is as far from it as tiles are."""
    import tensorflow as tf

    z, other = (np.random.default_rng(seed).normal(size=(4096, 8)).astype("float32") for seed in (0, 1))
    labels = np.random.default_rng(2).integers(0, 50, 4096)

    def step(z: Any, other: Any, labels: Any) -> Any:
        with tf.GradientTape(persistent=True) as tape:
            tape.watch((z, other))
            values = ss.sincere_loss(z, labels, 0.2), ss.clip_loss(z, other, temperature=0.2)
        return *values, tape.gradient(values[0], z), *tape.gradient(values[1], (z, other))

    rows = tf.TensorSpec((None, width), tf.float32)
    found = tf.function(step, input_signature=[rows, rows, tf.TensorSpec((None,), tf.int64)])(z, other, labels)
    given = z.astype("float64"), other.astype("float64")
    value, gradient = ss.value_and_gradient(ss.losses.sincere(0.2), given[0], labels, engine="dense")
    another, gradients = ss.value_and_gradient(ss.losses.clip(0.2), *given, engine="dense")
    for x, exact in zip(found, (value, another, gradient, *gradients), strict=True):
        assert distance(x.numpy(), np.asarray(exact)) <= 1e-6


@pytest.mark.framework("tensorflow")
@pytest.mark.parametrize("engine", ["auto", "tiled"])
def test_a_function_that_relaxes_its_shapes_is_traced_for_unknown_rows_and_width(engine: str) -> None:
    import tensorflow as tf

    rng = np.random.default_rng(5)
    program = tf.function(lambda z, y: ss.sincere_loss(z, y, 0.2, engine=engine), reduce_retracing=True)
    for rows, width in ((10, 4), (11, 5), (12, 6), (300, 7), (301, 8)):
        z, y = tf.constant(rng.normal(size=(rows, width))), tf.range(rows) % 3
        exact = ss.sincere_loss(z.numpy(), y.numpy(), 0.2, engine="dense")
        assert distance(program(z, y).numpy(), np.asarray(exact)) <= rule("float64", 0.2)
    assert program.experimental_get_tracing_count() == 2


@pytest.mark.framework("tensorflow")
def test_an_unknown_number_of_rows_is_padded_to_the_bucket_of_a_known_one() -> None:
    import tensorflow as tf

    from sincere_spec.backends.tensorflow import TensorFlowBackend
    from sincere_spec.call.buckets import bucket, bucket_of_unknown

    rows = np.unique(
        np.concatenate([np.arange(1, 600), np.geomspace(600, 2**29, 500).astype(int), [1024, 1025, 2**20]])
    )
    found = [int(bucket_of_unknown(TensorFlowBackend(), tf.constant(n, tf.int32))) for n in rows]
    assert found == [bucket(int(n)) for n in rows]


@pytest.mark.framework("tensorflow")
def test_xla_compiles_tiles_of_an_unknown_number_of_rows_that_a_variable_made() -> None:
    """As in Keras: XLA looks for the size of the bucket while it compiles, which must not take it for ever."""
    import tensorflow as tf

    shift, z, y = (
        tf.Variable(tf.ones(16)),
        tf.constant(np.random.default_rng(0).normal(size=(40, 16))),
        tf.range(40) % 5,
    )
    signature = [tf.TensorSpec([None, 16]), tf.TensorSpec([None], tf.int32)]
    program = tf.function(lambda x, y: ss.sincere_loss(x + shift, y, engine="tiled"), signature, jit_compile=True)
    exact = ss.sincere_loss(z.numpy() + 1.0, y.numpy(), engine="dense")
    assert abs(float(program(tf.cast(z, tf.float32), y)) - float(exact)) <= 1e-5


FIT = """
import numpy as np, tensorflow as tf
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras, sincere_spec as ss
from sincere_spec.keras import {name}

x, y = np.random.default_rng(0).normal(size=(16, 6)).astype("float32"), np.arange(16) // 2 % 3
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    layer = keras.layers.Dense(6, use_bias=False, kernel_initializer="identity")
    model = keras.Sequential([keras.Input((6,)), layer])
    model.compile(keras.optimizers.SGD(1.0), loss={name}(temperature=0.5))
history = model.fit(x, y, batch_size=16, shuffle=False, verbose=0)
value, gradient = 0.0, np.zeros((6, 6))
for own in (slice(0, 8), slice(8, 16)):
    loss, by_rows = ss.value_and_gradient(ss.losses.{record}(0.5), x[own].astype("float64"), y[own])
    value, gradient = value + float(loss) / 2, gradient + x[own].T @ by_rows / 2
moved = np.eye(6) - layer.get_weights()[0]
print(abs(history.history["loss"][0] / value - 1), np.linalg.norm(moved - gradient) / np.linalg.norm(gradient))
"""


@pytest.mark.parametrize(("name", "record"), [("SincereLoss", "sincere"), ("SupConLoss", "supcon")])
def test_keras_fits_labelled_losses_on_replicas(name: str, record: str, need: Any) -> None:
    """In a process with two logical CPUs: each replica has the loss of its rows, and the step is the mean of the gradients."""
    need("tensorflow")
    need("keras")
    done = subprocess.run(
        [sys.executable, "-c", FIT.format(name=name, record=record)],
        cwd=Path(__file__).parents[1],
        env=os.environ | {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert max(map(float, done.stdout.split()[-2:])) <= 2e-6
