"""Losses over the devices along an axis, inside `jax.shard_map` and `jax.pmap`: those of the whole batch."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

import sincere_spec as ss
from sincere_spec.conformance import distributed, distributed_programs
from sincere_spec.engines import ranks as engine_over_ranks

pytestmark = pytest.mark.framework("jax")

COUNT, DEVICES, LIMIT = 10, 2, 1e-12
COLLECTIVES = ("all_gather", "psum", "reduce_scatter", "all_to_all", "ppermute")
CASES = {case.name: case for case in distributed.cases(COUNT, short=True)}


def mesh(kind: str = "Auto") -> Any:
    import jax

    kinds = (getattr(jax.sharding.AxisType, kind),)
    return jax.make_mesh((DEVICES,), ("rows",), axis_types=kinds, devices=jax.devices()[:DEVICES])


def given(case: distributed.Case) -> tuple[Any, Any, Any]:
    """The arrays of a case, its parameters, and what names its rows."""
    import jax.numpy as jnp

    parameters = {"temperature": case.loss.temperature, "bias": case.loss.bias}
    made = (case.arrays, parameters, case.rows)
    return tuple({name: jnp.asarray(x) for name, x in one.items()} for one in made)  # type: ignore[return-value]


def value(case: distributed.Case, arrays: Any, parameters: Any, rows: Mapping[str, Any], **options: Any) -> Any:
    where = {"where": rows["where"]} if "where" in rows else {}
    arrays = {name: arrays[name] for name in case.arrays}  # trees of JAX are sorted by name
    return distributed.call(replace(case, rows=rows), arrays, parameters, **where, **options)


def over_devices(case: distributed.Case, checked: bool, **options: Any) -> Any:
    """The value of a case over two devices, as a function of the whole batch."""
    import jax
    from jax.sharding import PartitionSpec as P

    def spread(names: Any) -> dict[str, Any]:
        shared = {*case.shared, *(("key_labels",) if "keys" in case.shared else ())}
        return {name: P() if name in shared else P("rows") for name in names}

    def local(arrays: Any, parameters: Any, rows: Any) -> Any:
        return value(case, arrays, parameters, rows, across=ss.across("rows", shared=case.shared), **options)

    specs = (spread(case.arrays), P(), spread(case.rows))
    return jax.shard_map(local, mesh=mesh(), in_specs=specs, out_specs=P(), check_vma=checked)


def one_device(case: distributed.Case) -> tuple[Any, dict[str, Any]]:
    """The value and the gradient by argument, of NumPy."""
    parameters = {"temperature": np.asarray(case.loss.temperature), "bias": np.asarray(case.loss.bias)}
    where = {"where": case.rows["where"]} if "where" in case.rows else {}
    got, gradient = distributed.call(case, case.arrays, parameters, function=ss.value_and_gradient, **where)
    return got, gradient._asdict()


@pytest.mark.parametrize(
    ("name", "checked", "engine"),
    [
        ("sincere, where", True, "tiled"),
        ("sincere", False, "tiled"),
        ("clip", False, "dense"),
        ("siglip", True, "auto"),
        ("info_nce, shared queue", True, "dense"),
        ("a logit of positives", True, "tiled"),
        ("a logit of positives, towers", False, "dense"),
    ],
)
def test_value_and_gradient_are_those_of_one_device(name: str, checked: bool, engine: str) -> None:
    import jax

    case, options = CASES[name], {"engine": engine, "tile": 8 if engine == "tiled" else None}
    arrays, parameters, rows = given(case)
    want, exact = one_device(case)
    function = over_devices(case, checked, **options)
    got, found = jax.jit(jax.value_and_grad(lambda *x: function(*x, rows), argnums=(0, 1)))(arrays, parameters)
    assert float(got) == pytest.approx(float(want), rel=LIMIT)
    gradient = found[0] | found[1]
    for number, name in enumerate((*case.arrays, *parameters)):
        one = list(exact.values())[number]
        assert np.abs(gradient[name] - one).max() <= LIMIT * max(1e-3, float(np.abs(one).max()))


def test_the_mean_over_devices_of_pmap_is_the_gradient() -> None:
    import jax

    case = CASES["sincere"]
    arrays, parameters, rows = given(case)
    _, exact = one_device(case)
    arrays, rows = jax.tree.map(lambda x: x.reshape(DEVICES, -1, *x.shape[1:]), (arrays, rows))

    def local(arrays: Any, parameters: Any, rows: Any) -> Any:
        function = jax.grad(lambda *x: value(case, *x, rows, across="rows"), argnums=(0, 1))
        by_rows, by_parameters = function(arrays, parameters)
        return by_rows, jax.lax.pmean(by_parameters, "rows")

    devices = jax.devices()[:DEVICES]
    found = jax.pmap(local, axis_name="rows", in_axes=(0, None, 0), devices=devices)(arrays, parameters, rows)
    got = np.asarray(found[0]["embeddings"]).reshape(COUNT, -1) / DEVICES
    np.testing.assert_allclose(got, exact["embeddings"], rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(found[1]["temperature"], [exact["temperature"]] * DEVICES, rtol=1e-12)


def test_the_formula_needs_no_transposition() -> None:
    import jax
    from jax.sharding import PartitionSpec as P

    case = CASES["sincere"]
    arrays, _, rows = given(case)

    def local(z: Any, labels: Any) -> Any:
        return ss.value_and_gradient(case.loss, z, labels, across="rows")

    function = jax.shard_map(local, mesh=mesh(), in_specs=P("rows"), out_specs=(P(), P("rows")))
    got, gradient = jax.jit(function)(arrays["embeddings"], rows["labels"])
    want, exact = ss.value_and_gradient(case.loss, case.arrays["embeddings"], case.rows["labels"])
    np.testing.assert_allclose(got, want, rtol=1e-12)
    np.testing.assert_allclose(gradient, exact, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("kind", ["Auto", "Explicit"])
def test_arrays_sharded_over_a_mesh_keep_their_sharding_and_have_the_gradient_of_one_device(kind: str) -> None:
    import jax
    from jax.sharding import PartitionSpec as P

    case, devices = CASES["sincere"], mesh(kind)
    rows = jax.NamedSharding(devices, P("rows"))
    z, labels = (jax.device_put(x, rows) for x in (case.arrays["embeddings"], case.rows["labels"]))

    def local(z: Any, labels: Any, temperature: Any) -> Any:
        return ss.sincere_loss(z, labels, temperature=temperature, across="rows", engine="tiled", tile=8)

    function = jax.shard_map(local, mesh=devices, in_specs=(P("rows"), P("rows"), P()), out_specs=P())
    made = jax.jit(jax.value_and_grad(function, argnums=(0, 2)))
    got, (by_rows, by_temperature) = made(z, labels, jax.numpy.asarray(case.loss.temperature))
    want, exact = one_device(case)
    assert by_rows.sharding.is_equivalent_to(rows, 2)
    assert float(got) == pytest.approx(float(want), rel=LIMIT)
    np.testing.assert_allclose(by_rows, exact["embeddings"], rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(by_temperature, exact["temperature"], rtol=1e-12)
    if kind == "Explicit":
        with pytest.raises(ss.EngineUnavailable, match=r"inside jax\.shard_map with across="):
            ss.sincere_loss(z, labels)


def spread_over_all(rows: int) -> tuple[Any, Any, Any]:
    """Arrays that are sharded over the rows of a mesh of all devices, and the sharding."""
    import jax
    from jax.sharding import PartitionSpec as P

    rng = np.random.default_rng(0)
    z, labels = rng.normal(size=(rows, 6)), rng.integers(0, 4, rows)
    devices = jax.make_mesh((jax.device_count(),), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
    own = jax.NamedSharding(devices, P("rows"))
    return jax.device_put(z, own), jax.device_put(labels, own), own


@pytest.fixture(name="rows_swept")
def _rows_swept(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each device has of a program that was divided."""
    swept: list[int] = []
    value_and_gradient = engine_over_ranks.value_and_gradient

    def seen(shard: Any, *others: Any) -> Any:
        swept.append(shard.comparison.anchors.shape[0])
        return value_and_gradient(shard, *others)

    monkeypatch.setattr(engine_over_ranks, "value_and_gradient", seen)
    return swept


@pytest.mark.parametrize("engine", ["dense", "tiled", "auto"])
def test_plain_jit_of_sharded_arrays_is_exact_and_each_device_has_its_own_rows(
    engine: str, rows_swept: list[int]
) -> None:
    import jax

    z, labels, own = spread_over_all(64)
    tile = 16 if engine == "tiled" else None

    def loss(z: Any, labels: Any) -> Any:
        return ss.sincere_loss(z, labels, temperature=0.1, engine=engine, tile=tile)  # type: ignore[arg-type]

    program = jax.jit(jax.value_and_grad(loss))
    got, gradient = program(z, labels)
    one = jax.device_put((np.asarray(z), np.asarray(labels)), jax.devices()[0])
    want, exact = ss.value_and_gradient(ss.losses.sincere(0.1), *map(np.asarray, (z, labels)))
    np.testing.assert_allclose(got, want, rtol=LIMIT)
    np.testing.assert_allclose(gradient, exact, rtol=1e-10, atol=1e-14)
    assert gradient.sharding.is_equivalent_to(own, 2)
    many, single = (program.lower(*x).compile() for x in ((z, labels), one))
    assert "f64[64,64]" not in many.as_text()
    if engine == "tiled":
        assert set(rows_swept) == {64 // jax.device_count()}
        assert many.as_text().count(" all-gather(") == 3  # of rows, of what names them, and of their cotangents
        assert "reduce-scatter" not in many.as_text()
    else:
        assert many.cost_analysis()["flops"] <= 1.2 / jax.device_count() * single.cost_analysis()["flops"]
        assert "f64[64,64]" in single.as_text()


@pytest.mark.parametrize(
    "name",
    [
        "sincere, where",
        "sincere, ids",
        "sincere, shared keys",
        "nt_xent, three views in groups",
        "clip, where",
        "info_nce, queue of each rank",
    ],
)
def test_every_kind_of_call_is_divided_by_plain_jit(name: str, rows_swept: list[int]) -> None:
    """Over one axis of two: the other has copies, as where it divides a model."""
    import jax
    from jax.sharding import PartitionSpec as P

    case = next(case for case in distributed.cases(16, short=True) if case.name == name)
    arrays, parameters, rows = given(case)
    shape = (2, jax.device_count() // 2)
    devices = jax.make_mesh(shape, ("rows", "model"), axis_types=(jax.sharding.AxisType.Auto,) * 2)

    def spread(named: dict[str, Any]) -> dict[str, Any]:
        return {
            name: jax.device_put(x, jax.NamedSharding(devices, P("rows" if x.shape[0] == 16 else None)))
            for name, x in named.items()
        }

    def loss(arrays: Any, parameters: Any, rows: Any) -> Any:
        return value(case, arrays, parameters, rows, engine="tiled", tile=8)

    got, found = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(spread(arrays), parameters, spread(rows))
    want, exact = one_device(case)
    assert float(got) == pytest.approx(float(want), rel=LIMIT)
    gradient = found[0] | found[1]
    for number, name in enumerate((*case.arrays, *parameters)):
        one = list(exact.values())[number]
        assert np.abs(gradient[name] - one).max() <= LIMIT * max(1e-3, float(np.abs(one).max()))
    assert rows_swept == [8 * (3 if "three views" in case.name else 1)]


def test_rows_that_are_cut_into_columns_are_divided_and_uneven_ones_are_not(rows_swept: list[int]) -> None:
    import jax
    from jax.sharding import PartitionSpec as P

    rng = np.random.default_rng(0)
    program = jax.jit(jax.value_and_grad(lambda z, y: ss.sincere_loss(z, y, temperature=0.1, engine="tiled", tile=8)))
    for count, rows in ((16, [16 // jax.device_count()]), (15, [])):
        z, labels = rng.normal(size=(count, 8)), rng.integers(0, 4, count)
        mesh_of_all = jax.make_mesh((jax.device_count(),), ("model",), axis_types=(jax.sharding.AxisType.Auto,))
        got, gradient = program(jax.device_put(z, jax.NamedSharding(mesh_of_all, P(None, "model"))), labels)
        want, exact = ss.value_and_gradient(ss.losses.sincere(0.1), z, labels)
        np.testing.assert_allclose(got, want, rtol=LIMIT)
        np.testing.assert_allclose(gradient, exact, rtol=1e-10, atol=1e-14)
        assert rows_swept == rows
        rows_swept.clear()


def test_transforms_of_arrays_that_may_be_divided() -> None:
    import jax

    z, labels, _ = spread_over_all(16)
    whole = np.asarray(z)

    def loss(z: Any, labels: Any = labels, engine: str = "tiled") -> Any:
        return ss.sincere_loss(z, labels, temperature=0.1, engine=engine, tile=8 if engine == "tiled" else None)  # type: ignore[arg-type]

    several = np.stack([whole, whole[::-1]])
    for transformed in (jax.vmap(jax.value_and_grad(loss)), jax.jit(jax.vmap(jax.value_and_grad(loss)))):
        got, gradients = transformed(several)
        for one, x, gradient in zip(got, several, gradients, strict=True):
            want, exact = ss.value_and_gradient(ss.losses.sincere(0.1), x, np.asarray(labels))
            np.testing.assert_allclose(one, want, rtol=LIMIT)
            np.testing.assert_allclose(gradient, exact, rtol=1e-10, atol=1e-14)
    along = np.cos(whole)

    def curvature(engine: str) -> Any:
        gradient = jax.grad(lambda z: loss(z, engine=engine))
        return jax.jit(lambda z: jax.jvp(gradient, (z,), (along,))[1])(z)

    np.testing.assert_allclose(curvature("tiled"), curvature("dense"), rtol=1e-9, atol=1e-13)


def test_explain_says_over_how_many_devices_rows_are_swept() -> None:
    import jax

    loss, devices = ss.losses.sincere(0.1), jax.device_count()
    z, labels, _ = spread_over_all(4096)
    plan = ss.explain(loss, z, labels)
    assert plan.engine == "tiled"
    assert f"each of {devices} devices sweeps its own rows" in plan.reason
    assert f"each of {devices} devices sweeps" in ss.explain(loss, z, labels, engine="tiled").reason
    plan = ss.explain(loss, z, labels, reduction="none")
    assert plan.engine == "dense"
    assert f"{devices} devices divide whole matrices" in plan.reason
    assert (
        'compute all tiles each: reduction "none"'
        in ss.explain(loss, z, labels, engine="tiled", reduction="none").reason
    )
    whole = jax.device_put(z, jax.devices()[0]), jax.device_put(labels, jax.devices()[0])
    assert "devices" not in ss.explain(loss, *whole).reason
    got, gradient = ss.value_and_gradient(loss, z[:64], labels[:64], engine="tiled")
    want, exact = ss.value_and_gradient(loss, np.asarray(z[:64]), np.asarray(labels[:64]))
    np.testing.assert_allclose(got, want, rtol=LIMIT)
    np.testing.assert_allclose(gradient, exact, rtol=1e-10, atol=1e-14)


def test_the_recipe_of_sharded_arrays_has_the_gradient_of_one_device() -> None:
    import jax
    from jax.sharding import PartitionSpec as P
    from test_readme import blocks

    page = Path(__file__).parents[1] / "docs" / "distributed.md"
    (block,) = (code for code in blocks(page) if "jax.shard_map" in code)
    made: dict[str, Any] = {}
    exec(block, made)
    count, rng = 4 * jax.device_count(), np.random.default_rng(0)
    x, weights, labels = rng.normal(size=(count, 6)), rng.normal(size=(6, 5)), np.arange(count) % 3
    spread = (jax.device_put(one, jax.NamedSharding(made["mesh"], P("rows"))) for one in (x, labels))
    got, gradient = made["step"](jax.device_put(weights, jax.NamedSharding(made["mesh"], P())), *spread)
    want, by_rows = ss.value_and_gradient(ss.losses.sincere(0.1), x @ weights, labels)
    np.testing.assert_allclose(got, want, rtol=LIMIT)
    np.testing.assert_allclose(gradient, x.T @ by_rows, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(
    ("fault", "form"),
    [
        ("nobody else's cotangents", "both"),
        ("sums of the first device", "both"),
        ("places of each device alone", "in shard_map"),
    ],
)
def test_the_command_finds_what_is_planted(fault: str, form: str) -> None:
    """And not where nothing is: each form of a call is judged by itself."""
    import jax

    from sincere_spec.backends.jax.ranks import AxisCollectives

    if form == "in shard_map" and jax.__version_info__ < (0, 8):
        pytest.skip("JAX itself refuses what is planted, before 0.8")
    real, total = engine_over_ranks.of_all_ranks, AxisCollectives.total
    planted = {
        "nobody else's cotangents": mock.patch(
            "sincere_spec.engines.ranks.of_all_ranks",
            lambda shard, own, cotangents, sizes: _alone(real(shard, own, cotangents, sizes)),
        ),
        "sums of the first device": mock.patch(
            "sincere_spec.backends.jax.ranks.AxisCollectives.total", lambda self, x: total(self, x * (self.rank == 0))
        ),
        "places of each device alone": mock.patch("sincere_spec.call.ranks._placed", lambda problem, *_: problem),
    }
    sizes = (4, 4)
    chosen = [case for case in distributed.cases(8, short=True) if case.name == "sincere"]
    with planted[fault]:
        verdicts = distributed_programs.verdicts("jax", sizes, "float64", "tiled", chosen)
    assert [verdict.name for verdict in verdicts] == ["sincere in shard_map", "sincere in jit"]
    failed = [verdict.name for verdict in verdicts if not verdict.passes(1e-3)]
    assert failed == [verdict.name for verdict in verdicts if form == "both" or form in verdict.name]
    assert all(verdict.passes(LIMIT) for verdict in verdicts if verdict.name not in failed)


def _alone(cotangents: Any) -> Any:
    """The cotangents of nobody."""
    return cotangents._replace(weights={part: x * 0.0 for part, x in cotangents.weights.items()})


ONE_OF_TWO = """
import sys
import jax, numpy as np
from jax.sharding import PartitionSpec as P
import sincere_spec as ss
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(sys.argv[2], 2, int(sys.argv[1]))
assert (jax.device_count(), jax.local_device_count()) == (4, 2)
mesh = jax.make_mesh((4,), ("rows",))
z, labels = np.random.default_rng(0).normal(size=(12, 6)), np.arange(12) % 3
rows = jax.NamedSharding(mesh, P("rows"))
spread = [jax.make_array_from_callback(x.shape, rows, x.__getitem__) for x in (z, labels)]
def local(z, labels):
    return ss.sincere_loss(z, labels, temperature=0.1, across="rows")
function = jax.shard_map(local, mesh=mesh, in_specs=P("rows"), out_specs=P())
got, gradient = jax.jit(jax.value_and_grad(function))(*spread)
want, exact = ss.value_and_gradient(ss.losses.sincere(0.1), z, labels)
assert abs(float(got) - want) < 1e-12
own = [(np.asarray(shard.data), exact[shard.index]) for shard in gradient.addressable_shards]
assert len(own) == 2
for found, one in own:
    np.testing.assert_allclose(found, one, rtol=1e-10, atol=1e-14)
"""


def test_two_processes_have_the_loss_of_one() -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    settings = {**os.environ, "JAX_NUM_CPU_DEVICES": "2", "PYTHONPATH": str(Path(__file__).parents[1])}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "env": settings}
    ranks = [subprocess.Popen([sys.executable, "-c", ONE_OF_TWO, str(rank), address], **pipes) for rank in range(2)]
    said = [rank.communicate(timeout=240)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], said


CACHED = """
import jax, numpy as np
from jax.sharding import PartitionSpec as P
import sincere_spec as ss
found = []
jax.monitoring.register_event_listener(lambda event, **_: found.append(event))
mesh = jax.make_mesh((jax.device_count(),), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
a, b = (np.random.default_rng(seed).normal(size=(16, 6)) for seed in range(2))
spread = jax.device_put((a, b), jax.NamedSharding(mesh, P("rows")))
program = jax.jit(jax.value_and_grad(lambda a, b: ss.info_nce_loss(a, b, temperature=0.1, engine="tiled", tile=8)))
before = len(found)
got, gradient = program(*spread)
print(found[before:].count("/jax/compilation_cache/cache_hits"))
want, exact = ss.value_and_gradient(ss.losses.info_nce(0.1), a, b)
print(abs(float(got) - want), abs(np.asarray(gradient) - exact.queries).max())
"""


def test_a_program_that_was_divided_is_right_out_of_the_cache_of_compilations(tmp_path: Path) -> None:
    """JAX has the address of a function in the key of a program that may be divided, unless it is told to leave it out."""
    root = str(Path(__file__).parents[1])
    settings = {**os.environ, "PYTHONPATH": root, "JAX_COMPILATION_CACHE_DIR": str(tmp_path)}
    settings |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
    hits = []
    for without_address in ("0", "1", "1"):
        settings["JAX_REMOVE_CUSTOM_PARTITIONING_PTR_FROM_CACHE_KEY"] = without_address
        run = subprocess.run([sys.executable, "-c", CACHED], env=settings, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr[-3000:]
        number, *errors = map(float, run.stdout.split())
        hits.append(number)
        assert max(errors) <= LIMIT
    assert hits == [0, 0, 1]


def test_keys_are_gathered_once_and_nothing_is_scattered() -> None:
    import re

    import jax

    arrays, parameters, rows = given(CASES["sincere"])
    function = over_devices(CASES["sincere"], True, engine="tiled", tile=8)
    program = jax.jit(jax.grad(lambda *x: function(*x, rows))).lower(arrays, parameters).as_text()
    width = arrays["embeddings"].shape[1]
    assert len(re.findall(rf'all_gather"?\(.*tensor<{COUNT}x{width}xf64>', program)) == 1
    assert "reduce_scatter" not in program
    _, transposed = jax.vjp(lambda arrays: function(arrays, parameters, rows), arrays)
    text = str(jax.make_jaxpr(transposed)(1.0))
    assert "mul" in text
    assert [name for name in COLLECTIVES if name in text] == []


def test_the_gradient_of_keys_without_losses_is_made_in_one_sweep_and_scattered_once() -> None:
    """A sweep has three products of tiles: of logits, and for either side's gradient."""
    import re

    import jax

    case = CASES["info_nce"]
    arrays, parameters, rows = given(case)
    function = over_devices(case, True, engine="tiled", tile=8)
    program = jax.jit(jax.grad(lambda *x: function(*x, rows))).lower(arrays, parameters).as_text()
    assert len(re.findall(rf'all_gather"?\(.*tensor<{COUNT}x{arrays["queries"].shape[1]}xf64>', program)) == 1
    assert len(re.findall(r'reduce_scatter"?\(', program)) == 1
    ways = 2  # with a fixed shift and with a running maximum: the temperature is no number here
    assert len(re.findall("stablehlo.dot_general", program)) == 3 * ways


@pytest.mark.parametrize("checked", [True, False])
def test_forward_mode_inside_shard_map(checked: bool) -> None:
    import jax

    case = CASES["sincere"]
    arrays, parameters, rows = given(case)
    _, exact = one_device(case)
    along = {name: jax.numpy.cos(x) for name, x in arrays.items()}, {"temperature": 0.3, "bias": 0.0}
    function = over_devices(case, checked, engine="tiled", tile=8)
    _, tangent = jax.jvp(lambda *x: function(*x, rows), (arrays, parameters), along)
    want = np.sum(np.asarray(along[0]["embeddings"]) * exact["embeddings"]) + 0.3 * exact["temperature"]
    assert float(tangent) == pytest.approx(float(want), rel=LIMIT)


def test_what_is_not_served_is_refused() -> None:
    import jax
    from jax.sharding import PartitionSpec as P

    arrays, _, rows = given(CASES["sincere"])
    z, labels = arrays["embeddings"], rows["labels"]
    with pytest.raises(ss.OptionError, match="no axis 'rows' here"):
        ss.sincere_loss(z, labels, across="rows")
    with pytest.raises(ss.OptionError, match="the name of an axis"):
        ss.sincere_loss(z, labels, across=3)

    def refused(words: str, **options: Any) -> None:
        def local(z: Any, labels: Any) -> Any:
            return ss.sincere_loss(z, labels, **options)

        with pytest.raises(ss.SincereSpecError, match=words):
            jax.shard_map(local, mesh=mesh(), in_specs=P("rows"), out_specs=P())(z, labels)

    refused("is for processes", across=ss.across("rows", gradients="sum"))
    refused('reduction "none"', across="rows", reduction="none")
