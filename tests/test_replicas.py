"""Losses over the replicas of a tf.distribute strategy, and Keras on several devices: those of the whole batch.

Each in processes of their own: logical devices and workers belong to a process.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_readme import blocks

REPLICAS = """
from unittest import mock
import numpy as np, tensorflow as tf
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import sincere_spec as ss
from sincere_spec.backends.tensorflow import TensorFlowBackend

strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
of_each = strategy.experimental_local_results
rng = np.random.default_rng(0)
a, b, y = rng.normal(size=(10, 6)), rng.normal(size=(10, 6)), rng.integers(0, 3, 10)
where, groups, queue = rng.random(10) < 0.7, rng.integers(0, 4, 10), rng.normal(size=(7, 6))
bounds = {"even": (5, 5), "uneven": (7, 3), "one has none": (10, 0)}

calls = {
    "sincere": lambda a, b, y, w, g, **options: ss.sincere_loss(a, y, ids=g, where=w, **options),
    "nt_xent": lambda a, b, y, w, g, **options: ss.nt_xent_loss(a, b, ignore=ss.same(g), **options),
    "clip": lambda a, b, y, w, g, **options: ss.clip_loss(a, b, **options),
    "shared queue": lambda a, b, y, w, g, **options: ss.info_nce_loss(a, b, negatives=tf.constant(queue), **options),
}

def spread(x, sizes):
    start = [0, sizes[0]]
    def own(context):
        i = context.replica_id_in_sync_group
        return tf.constant(x[start[i] : start[i] + sizes[i]])
    return strategy.experimental_distribute_values_from_function(own)

def taped(loss, **options):
    def step(a, b, y, w, g, t):
        with tf.GradientTape() as tape:
            tape.watch((a, b, t))
            value = loss(a, b, y, w, g, temperature=t, **options)
        return value, *tape.gradient(value, (a, b, t), unconnected_gradients="zero")
    return step

temperature, arrays = tf.constant(0.2, tf.float64), (a, b, y, where, groups)
cases = [("sincere", "uneven", "tiled", "mean"), ("clip", "one has none", "auto", "sum")]
cases += [("nt_xent", "even", "auto", "mean"), ("shared queue", "even", "auto", "mean")]
for name, cut, engine, trainer in cases:
    shared = ("negatives",) if name == "shared queue" else ()
    across = ss.across(True, shared=shared, gradients=trainer)
    step = taped(calls[name], across=across, engine=engine)
    want = taped(calls[name])(*map(tf.constant, arrays), temperature)
    given = [spread(x, bounds[cut]) for x in arrays]
    found = tf.function(lambda *x: strategy.run(step, (*x, temperature)), autograph=False)(*given)
    value, *by_rows, by_temperature = map(of_each, found)
    assert float(value[0]) == float(value[1])
    np.testing.assert_allclose(value[0], want[0], rtol=1e-12)
    scale = 2.0 if trainer == "mean" else 1.0
    for parts, whole in zip(by_rows, want[1:3]):
        got = np.concatenate([part.numpy() for part in parts])
        np.testing.assert_allclose(got / scale, whole, rtol=1e-9, atol=1e-13, err_msg=name)
    for one in by_temperature:
        np.testing.assert_allclose(one * 2.0 / scale, want[3], rtol=1e-12)

def formula(z, y):
    return ss.value_and_gradient(ss.losses.sincere(0.2), z, y, across=True)
swept, run = [], TensorFlowBackend.run
def spied(backend, function, key, given, laid, rest):
    swept.append(laid[0][0].shape[0])
    return run(backend, function, key, given, laid, rest)
with mock.patch.object(TensorFlowBackend, "run", spied):
    step = tf.function(lambda *x: strategy.run(formula, x), autograph=False)
    value, gradient = step(spread(a, (7, 3)), spread(y, (7, 3)))
assert len(swept) >= 4 and set(swept) == {8}, swept  # each has its own rows in a tile, not the 10 of both
want, exact = ss.value_and_gradient(ss.losses.sincere(0.2), a, y)
np.testing.assert_allclose(np.concatenate([x.numpy() for x in of_each(gradient)]) / 2.0, exact, rtol=1e-9, atol=1e-13)

def plan(z, y):
    said.append(str(ss.explain(ss.losses.sincere(0.2), z, y, across=True)))
    return tf.constant(0)
said = []
tf.function(lambda *x: strategy.run(plan, x), autograph=False)(spread(a, (5, 5)), spread(y, (5, 5)))
assert all("on 2 replicas, of which each sweeps its own rows" in text for text in said), said

def refused(words, function, *x):
    try:
        tf.function(lambda *x: strategy.run(function, x), autograph=False)(*(spread(one, (5, 5)) for one in x))
    except ss.SincereSpecError as error:
        assert words in str(error), error
    else:
        raise AssertionError(words)
refused('reduction "none"', lambda z, y: ss.sincere_loss(z, y, reduction="none", across=True), a, y)
refused("different numbers of rows", lambda z, y: ss.sincere_loss(z, y, engine="dense", across=True), a, y)
refused("across=True", lambda z, y: ss.sincere_loss(z, y, across="batch"), a, y)
refused("vectors of integers", lambda z: ss.sincere_loss(z, ["a", "b", "c", "d", "e"], across=True), a)
step = tf.function(lambda *x: strategy.run(formula, x), autograph=False)  # what was refused leaves no collective behind
value, _ = step(spread(a, (5, 5)), spread(y, (5, 5)))
np.testing.assert_allclose(of_each(value)[1], want, rtol=1e-12)
with strategy.scope():
    try:
        ss.sincere_loss(tf.constant(a), tf.constant(y), across=True)
    except ss.OptionError as error:
        assert "inside of strategy.run" in str(error)
    else:
        raise AssertionError
whole = tf.constant(a), tf.constant(y)
assert float(ss.sincere_loss(*whole, across=True)) == float(ss.sincere_loss(*whole))
"""

FIT = """
import contextlib
import numpy as np, tensorflow as tf
import keras
from sincere_spec.errors import LabelError, OptionError
from sincere_spec.keras import CLIPLoss, SincereLoss

rng = np.random.default_rng(0)
x, y = rng.normal(size=(27, 6)).astype("float32"), np.arange(27) // 2 % 3  # the last batch is of 6 rows and 5
others = rng.normal(size=(27, 6)).astype("float32")

def fit(scope, loss, target):
    with scope:
        layer = keras.layers.Dense(6, use_bias=False, kernel_initializer="identity")
        model = keras.Sequential([keras.Input((6,)), layer])
        model.compile(keras.optimizers.SGD(1.0), loss=loss)
    data = tf.data.Dataset.from_tensor_slices((x, target)).batch(16)
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    history = model.fit(data.with_options(options), verbose=0, epochs=1)
    return history.history["loss"][0], layer.get_weights()[0]

for kind, target in ((SincereLoss, y), (CLIPLoss, others)):
    value, weights = fit(strategy.scope(), kind(temperature=0.5, across=True), target)
    want, exact = fit(contextlib.nullcontext(), kind(temperature=0.5), target)
    moved = np.linalg.norm(exact - np.eye(6))
    print(abs(value / want - 1.0), np.linalg.norm(weights - exact) / moved, flush=True)
"""

MIRRORED = """
import tensorflow as tf
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
"""

STEP = """
import numpy as np
assert strategy.num_replicas_in_sync == 2
rng = np.random.default_rng(0)
x, labels = rng.normal(size=(10, 6)).astype("float32"), rng.integers(0, 3, 10)
for first in (5, 7, 10):
    start = weights[0].numpy()
    with tf.GradientTape() as tape:
        want = ss.sincere_loss(model(x), tf.constant(labels), temperature=0.5)
    exact = start - tape.gradient(want, weights)[0]
    def spread(whole):
        def own(context):
            return tf.constant(whole[first:] if context.replica_id_in_sync_group else whole[:first])
        return strategy.experimental_distribute_values_from_function(own)
    values = strategy.experimental_local_results(step(spread(x), spread(labels)))
    moved = np.linalg.norm(exact - start)
    assert moved > 0.1
    print(*(abs(float(value) / float(want) - 1.0) for value in values), np.linalg.norm(weights[0] - exact) / moved)
"""

WORKERS = """
import numpy as np, tensorflow as tf
strategy = tf.distribute.MultiWorkerMirroredStrategy()
import sincere_spec as ss
assert strategy.num_replicas_in_sync == 2
rng = np.random.default_rng(0)
z, y, bounds = rng.normal(size=(10, 6)), rng.integers(0, 3, 10), (slice(0, 7), slice(7, 10))

def spread(x):
    return strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(x[bounds[context.replica_id_in_sync_group]])
    )

def step(z, y):
    with tf.GradientTape() as tape:
        tape.watch(z)
        value = ss.sincere_loss(z, y, temperature=0.2, across=True)
    return value, tape.gradient(value, z)

value, gradient = tf.function(lambda *x: strategy.run(step, x), autograph=False)(spread(z), spread(y))
want, exact = ss.value_and_gradient(ss.losses.sincere(0.2), z, y)
(gradient,) = strategy.experimental_local_results(gradient)
(value,) = strategy.experimental_local_results(value)
own = exact[bounds[strategy.cluster_resolver.task_id]]
print(abs(float(value) / want - 1.0), np.abs(gradient.numpy() / 2.0 - own).max())
"""

SHARDED = """
import os
import jax, numpy as np
import keras
from sincere_spec.keras import SincereLoss
assert len(jax.devices()) == 4
rng = np.random.default_rng(0)
x, y = rng.normal(size=(32, 6)).astype("float32"), np.arange(32) // 2 % 3

def fit():
    layer = keras.layers.Dense(6, use_bias=False, kernel_initializer="identity")
    model = keras.Sequential([keras.Input((6,)), layer])
    model.compile(keras.optimizers.SGD(1.0), loss=SincereLoss(temperature=0.5))
    history = model.fit(x, y, batch_size=16, shuffle=False, verbose=0)
    return history.history["loss"][0], layer.get_weights()[0]

want, exact = fit()
keras.distribution.set_distribution(keras.distribution.DataParallel(devices=keras.distribution.list_devices()))
value, weights = fit()
print(abs(value / want - 1.0), np.linalg.norm(weights - exact) / np.linalg.norm(exact - np.eye(6)))
"""


def started(code: str, **settings: str) -> subprocess.Popen[str]:
    root = Path(__file__).parents[1]
    made = {
        **os.environ,
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONPATH": str(root),
        **settings,
    }
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", code], env=made, **pipes)


def said(process: subprocess.Popen[str]) -> list[float]:
    out, error = process.communicate(timeout=500)
    assert process.returncode == 0, error[-3000:]
    return [float(x) for x in out.split()]


@pytest.mark.framework("tensorflow")
def test_replicas_have_the_loss_of_all_their_rows() -> None:
    said(started(REPLICAS))


PLANTED = """
from unittest import mock
from sincere_spec.conformance import distributed, distributed_programs

sizes = (3, 2)
distributed_programs.prepare("tensorflow", len(sizes), "float64")
def error(name="sincere"):
    chosen = [case for case in distributed.cases(sum(sizes), short=True) if case.name == name]
    (verdict,) = distributed_programs.verdicts("tensorflow", sizes, "float64", "tiled", chosen)
    assert verdict.name == f"{name} in replicas" and verdict.one_value
    return verdict.error
print(error("siglip"))  # whose collectives are others
print(error())
with mock.patch("sincere_spec.call.ranks.Membership.scale", return_value=1.0):
    print(error())
with mock.patch("sincere_spec.call.ranks._placed", lambda problem, *_: problem):
    print(error())
"""


@pytest.mark.framework("tensorflow")
def test_the_command_holds_replicas_to_one_process_and_finds_what_is_planted() -> None:
    *exact, first, second = said(started(PLANTED))
    assert len(exact) == 2
    assert max(exact) <= 1e-12
    assert min(first, second) > 1e-2


@pytest.mark.framework("tensorflow")
def test_keras_fits_on_replicas_as_on_one_device(need: Any) -> None:
    need("keras")
    found = said(started(MIRRORED + FIT))
    assert len(found) == 4
    assert max(found) <= 1e-6


@pytest.mark.framework("tensorflow")
def test_the_recipe_of_replicas_takes_the_step_of_one_process(need: Any) -> None:
    need("keras")
    page = Path(__file__).parents[1] / "docs" / "distributed.md"
    (block,) = (code for code in blocks(page) if "def of_replica" in code)
    devices, _ = MIRRORED.split("strategy = ")
    recipe = block.replace("MirroredStrategy()", 'MirroredStrategy(["CPU:0", "CPU:1"])')
    found = said(started(devices + recipe + STEP))
    assert len(found) == 9
    assert max(found) <= 1e-6


@pytest.mark.framework("tensorflow")
def test_two_workers_have_the_loss_of_all_their_rows() -> None:
    with socket.socket() as one, socket.socket() as two:
        for free in (one, two):
            free.bind(("localhost", 0))
        workers = [f"localhost:{free.getsockname()[1]}" for free in (one, two)]
    ranks = []
    for index in range(2):
        config = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        ranks.append(started(WORKERS, TF_CONFIG=json.dumps(config)))
    for found in map(said, ranks):
        assert len(found) == 2
        assert max(found) <= 1e-12


@pytest.mark.framework("jax")
def test_keras_distributes_data_over_the_devices_of_jax(need: Any) -> None:
    need("keras")
    found = said(started(SHARDED, KERAS_BACKEND="jax", JAX_NUM_CPU_DEVICES="4"))
    assert max(found) <= 1e-6
