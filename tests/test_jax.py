"""What is JAX's alone: arrays over the devices of a mesh, programs for any number of rows, few of them for many sizes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from catalogue import distance, rule

import sincere_spec as ss
from sincere_spec import losses

pytestmark = pytest.mark.framework("jax")

ROWS, WIDTH, TEMPERATURE = 20, 5, 0.3


def batch(rows: int = ROWS, dtype: str = "float64") -> tuple[Any, Any, Any]:
    """Embeddings, labels, and the temperature as an array."""
    import jax.numpy as jnp

    z = np.random.default_rng(0).normal(size=(rows, WIDTH)).astype(dtype)
    return jnp.asarray(z), jnp.arange(rows) % 4, jnp.asarray(TEMPERATURE, dtype)


def mesh(count: int, explicit: bool = False) -> Any:
    import jax

    kind = jax.sharding.AxisType.Explicit if explicit else jax.sharding.AxisType.Auto
    return jax.make_mesh((count,), ("rows",), axis_types=(kind,), devices=jax.devices()[:count])


def against_all_keys(z: Any, labels: Any, temperature: Any, **options: Any) -> Any:
    """The recipe of several devices: own anchors against the keys of all, ids that name a row and its copy."""
    import jax

    def every(x: Any) -> Any:
        return jax.lax.all_gather(x, "rows", tiled=True)

    ids = jax.lax.axis_index("rows") * len(z) + jax.numpy.arange(len(z))
    keys = {"keys": every(z), "key_labels": every(labels), "ids": ids, "key_ids": every(ids)}
    loss = ss.sincere_loss(z, labels, temperature, reduction="batch", **keys, **options)
    return jax.lax.pmean(loss, "rows")


def rows_of_each(z: Any, labels: Any, temperature: Any, **options: Any) -> Any:
    """A vector of row losses by device, labels apart: one triangle of tiles."""
    import jax

    loss = ss.supcon_loss(z, labels, temperature, reduction="none", **options)
    return jax.lax.pmean(jax.numpy.mean(loss), "rows")


def towers(z: Any, labels: Any, temperature: Any, **options: Any) -> Any:
    """Own anchors against a queue that is the same on all devices, and so does not vary."""
    import jax

    options |= {"temperature": temperature}
    return jax.lax.pmean(ss.info_nce_loss(z, z[::-1], jax.numpy.ones((3, WIDTH)), **options), "rows")


def over_devices(function: Callable[..., Any], checked: bool, **options: Any) -> Callable[..., Any]:
    """The value of a function of one device's rows, and its gradient by all rows and by the replicated temperature."""
    import jax
    from jax.sharding import PartitionSpec as P

    def local(z: Any, labels: Any, temperature: Any) -> Any:
        return function(z, labels, temperature, **options)

    specs = {"in_specs": (P("rows"), P("rows"), P()), "out_specs": P(), "check_vma": checked}
    return jax.jit(jax.value_and_grad(jax.shard_map(local, mesh=mesh(2), **specs), argnums=(0, 2)))


@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize("function", [against_all_keys, rows_of_each, towers])
def test_tiles_inside_shard_map_give_the_dense_answer(function: Callable[..., Any], checked: bool) -> None:
    """Where JAX checks over which axes values vary, a loop's carry may not begin as the same on all devices."""
    want = over_devices(function, checked, engine="dense")(*batch())
    found = over_devices(function, checked, engine="tiled", tile=4)(*batch())
    for x, exact in zip((found[0], *found[1]), (want[0], *want[1])):
        assert distance(np.asarray(x), np.asarray(exact)) <= rule("float64", TEMPERATURE)


def test_auto_inside_shard_map_where_it_takes_tiles() -> None:
    rows = 4096
    z, labels, temperature = batch(rows)
    assert ss.explain(losses.sincere(), z, labels).engine == "tiled"
    found = over_devices(against_all_keys, True)(z, labels, temperature)
    value, gradient = ss.value_and_gradient(losses.sincere(), z, labels, temperature=temperature, engine="dense")
    assert distance(np.asarray(found[0]), np.asarray(value)) <= 1e-12
    for x, exact in zip(found[1], gradient):
        assert distance(np.asarray(x), np.asarray(exact)) <= 1e-12


def test_a_jax_that_differentiates_tiles_wrongly_in_shard_map_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """JAX 0.6.2 gave another value and gradient where the temperature was traced."""
    import jax

    z, labels, temperature = batch()
    monkeypatch.setattr(jax, "__version_info__", (0, 6, 2))
    monkeypatch.setattr(jax, "__version__", "0.6.2")
    with pytest.raises(ss.EngineUnavailable, match=r"its tiles need JAX 0\.7 or later .* 0\.6\.2 is installed"):
        over_devices(against_all_keys, True, engine="tiled")(z, labels, temperature)
    plan = []

    def planned(z: Any) -> Any:
        plan.append(ss.explain(losses.sincere(), z, jax.numpy.arange(4096) % 7))
        return z.sum()

    jax.jit(planned).lower(jax.ShapeDtypeStruct((4096, WIDTH), "float64"))
    assert plan[0].engine == "dense"


@pytest.mark.parametrize("engine", ["dense", "tiled"])
def test_explicit_axes_are_refused_with_what_to_do_and_that_works(engine: str) -> None:
    import jax
    from jax.sharding import NamedSharding
    from jax.sharding import PartitionSpec as P

    def loss(z: Any, labels: Any) -> Any:
        return ss.sincere_loss(z, labels, engine=engine, tile=4 if engine == "tiled" else None)

    z, labels, _ = batch()
    want = jax.value_and_grad(loss)(z, labels)
    here = mesh(2, explicit=True)
    z, labels = (jax.device_put(x, NamedSharding(here, P("rows"))) for x in (z, labels))
    with jax.set_mesh(here):
        with pytest.raises(
            ss.EngineUnavailable, match=r"embeddings is sharded over 'rows' .* jax.sharding.reshard\(x, jax.P"
        ):
            loss(z, labels)
        with pytest.raises(ss.EngineUnavailable, match=r"auto_axes"):
            jax.jit(loss)(z, labels)
        with pytest.raises(ss.EngineUnavailable, match=r"labels is sharded"):
            loss(jax.sharding.reshard(z, P()), labels)
        whole = jax.jit(
            jax.value_and_grad(lambda z, y: loss(jax.sharding.reshard(z, P()), jax.sharding.reshard(y, P())))
        )(z, labels)
        parted = jax.jit(jax.value_and_grad(jax.sharding.auto_axes(loss, out_sharding=P())))(z, labels)
    for found in (whole, parted):
        for x, exact in zip(found, want):
            assert distance(np.asarray(x), np.asarray(exact)) <= rule("float64", 0.1)


def test_tiles_are_exported_for_any_number_of_rows() -> None:
    """Rows are padded to whole tiles, and loops go as far as there are rows: also with masks, where a sum says how far."""
    import jax
    from jax import export

    def loss(z: Any, labels: Any, inside: Any, **options: Any) -> Any:
        towers = ss.clip_loss(z, z[::-1], where=inside, **options)
        return ss.sincere_loss(z, labels, where=inside, **options) + towers + ss.supcon_loss(z, labels, **options)

    (rows,) = export.symbolic_shape("rows")
    arrays = [jax.numpy.asarray(x) for x in (np.zeros((1, WIDTH)), np.zeros(1, "int32"), np.zeros(1, "bool"))]
    shapes = [jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype) for x in arrays]
    options = {"engine": "tiled", "tile": 8}
    made = export.export(jax.jit(jax.value_and_grad(lambda *given: loss(*given, **options))))(*shapes)
    again = export.deserialize(made.serialize())
    for count in (1, 8, 19):
        z, labels, _ = batch(count)
        given = (z, labels.astype("int32"), jax.numpy.arange(count) % 5 != 3)
        want = jax.jit(jax.value_and_grad(lambda *given: loss(*given, engine="dense")))(*given)
        for x, exact in zip(again.call(*given), want):
            assert distance(np.asarray(x), np.asarray(exact)) <= rule("float64", 0.07), count


def test_auto_exports_tiles_which_make_no_matrix_of_pairs() -> None:
    import jax
    from jax import export

    plans = []

    def step(z: Any, labels: Any) -> Any:
        plans.append(ss.explain(losses.sincere(), z, labels))
        return jax.value_and_grad(ss.sincere_loss)(z, labels)

    (rows,) = export.symbolic_shape("rows")
    shapes = [jax.ShapeDtypeStruct(shape, kind) for shape, kind in (((rows, WIDTH), "float64"), ((rows,), "int32"))]
    exported = export.export(jax.jit(step))(*shapes)
    assert plans[0].engine == "tiled"
    assert "no matrix of pairs" in str(plans[0])
    count = 4096
    z, labels, _ = batch(count)
    program = jax.jit(exported.call).lower(z, labels.astype("int32")).compile()
    assert f"{count},{count}" not in program.as_text()
    assert program.memory_analysis().temp_size_in_bytes < count * count  # a byte for each pair
    value, gradient = ss.value_and_gradient(losses.sincere(), z, labels, engine="dense")
    found = program(z, labels.astype("int32"))
    assert distance(np.asarray(found[0]), np.asarray(value)) <= 1e-12
    assert distance(np.asarray(found[1]), np.asarray(gradient)) <= 1e-12


RAGGED = (9, 14, 11, 20, 17, 13, 9, 14)


@pytest.mark.parametrize(
    ("options", "programs"),
    [({"engine": "dense"}, 3), ({"engine": "tiled", "tile": 8}, 6), ({"engine": "tiled", "reduction": "none"}, 6)],
)
def test_batches_of_many_sizes_share_a_few_programs(
    options: dict[str, Any], programs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two sizes are not padded, all others share that of a bucket, in which padding takes no part."""
    import jax

    from sincere_spec.backends import jax as backend
    from sincere_spec.call import buckets

    monkeypatch.setattr(buckets, "BUCKETS", (24, 48))
    monkeypatch.setattr(buckets, "_calls", {})
    backend._compiled.clear_cache()
    here, none = options | {"where": None}, options.get("reduction") == "none"

    def loss(z: Any, labels: Any, temperature: Any, **options: Any) -> Any:
        row_losses = ss.sincere_loss(z, labels, temperature, **options)
        return jax.numpy.vdot(row_losses, jax.numpy.arange(len(z))) if none else row_losses

    for count in RAGGED:
        z, labels, temperature = batch(count)
        here["where"] = np.arange(count) % 7 != 2 if count > 10 else np.ones(count, bool)
        found = jax.value_and_grad(loss, argnums=(0, 2))(z, labels, temperature, **here)
        exact = {"engine": "dense", "where": here["where"]} | ({"reduction": "none"} if none else {})
        plain = jax.jit(jax.value_and_grad(partial(loss, **exact), argnums=(0, 2)))
        want = plain(z, labels, temperature)
        for x, y in zip((found[0], *found[1]), (want[0], *want[1])):
            assert distance(np.asarray(x), np.asarray(y)) <= rule("float64", TEMPERATURE), count
    assert backend._compiled._cache_size() == programs


@pytest.mark.parametrize("engine", ["dense", "tiled"])
def test_arrays_of_several_sizes_are_padded_each_to_its_bucket(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from sincere_spec.call import buckets

    monkeypatch.setattr(buckets, "BUCKETS", (8, 16))
    monkeypatch.setattr(buckets, "OWN_SIZES", 0)
    z, labels, _ = batch()
    calls: dict[Any, tuple[tuple[Any, ...], dict[str, Any]]] = {
        losses.sincere(): ((z[:7], labels[:7]), {"keys": z[7:], "key_labels": labels[7:]}),
        losses.info_nce(): ((z[:9], z[9:18], z[16:]), {}),
        losses.clip(): ((z[:9], z[9:18]), {}),
        losses.nt_xent(): ((z[:6], z[6:12], z[12:18]), {}),
    }
    for record, (arguments, keywords) in calls.items():
        found = ss.value_and_gradient(record, *arguments, engine=engine, **keywords)
        host = {name: np.asarray(x) for name, x in keywords.items()}
        want = ss.value_and_gradient(record, *map(np.asarray, arguments), engine="dense", **host)
        for x, exact in zip((found[0], *found[1]), (want[0], *want[1])):
            assert distance(np.asarray(x), exact) <= rule("float64", 0.07), record.name


def test_the_programs_of_two_hundred_sizes_are_at_most_sixteen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted, not compiled: sizes up to 5000, with one program for whole matrices and two for tiles."""
    from sincere_spec.call import buckets

    monkeypatch.setattr(buckets, "_calls", {})
    sizes = np.random.default_rng(0).permutation(np.arange(8, 5000))[:200].tolist()
    crossover, programs = 1722, set()
    for size in (*sizes, *sizes):
        engine = "dense" if size < crossover else "tiled"
        program = buckets.program_of(("a call of the test", engine), (size,), engine == "dense")
        rows = buckets.bucket(size) if program is buckets.Program.SHARED else size
        steps = ("both",) if engine == "dense" else ("forward", "backward")
        programs |= {(engine, rows, step) for step in steps}
        assert size <= rows <= max(512, 2 * size)
    assert len(programs) <= 16


def test_a_process_of_many_calls_does_not_compile_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux ends a process whose programs have too many mappings of memory, some five thousand programs."""
    import jax

    from sincere_spec.backends import jax as backend
    from sincere_spec.call import buckets

    monkeypatch.setattr(buckets, "OWN_CALLS", 1)
    monkeypatch.setattr(buckets, "_calls", {})
    backend._compiled.clear_cache()
    z, labels, _ = batch()
    records = (losses.sincere(), losses.supcon(), losses.supcon(summation="in"), losses.sincere())
    found = [jax.grad(lambda z: ss.evaluate(record, z, labels, engine="dense"))(z) for record in records]  # noqa: B023
    assert backend._compiled._cache_size() == 1
    assert (found[0] == found[3]).all()


@pytest.mark.parametrize("engine", ["dense", "tiled"])
def test_a_new_size_and_a_new_temperature_compile_nothing(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a bucket is known, in either way to ask for a gradient: nor does JAX for its transposition."""
    import jax

    from sincere_spec.call import buckets

    monkeypatch.setattr(buckets, "BUCKETS", (48,))
    monkeypatch.setattr(buckets, "_calls", {})
    z, labels = np.random.default_rng(0).normal(size=(48, WIDTH)), np.arange(48) % 4

    def asked(count: int, temperature: float) -> Any:
        options = {"temperature": temperature, "engine": engine}
        given = jax.device_put(z[:count]), jax.device_put(labels[:count])
        both = jax.value_and_grad(lambda *arrays: ss.sincere_loss(*arrays, **options))(*given)
        options.pop("temperature")
        return both, ss.value_and_gradient(losses.sincere(temperature), *given, **options)

    for count in (9, 14, 20, 33):
        asked(count, TEMPERATURE)
    compiled: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(lambda event, *_, **__: compiled.append(event))
    for count, temperature in ((21, TEMPERATURE), (40, 0.2), (37, 0.25)):
        compiled.clear()
        both = asked(count, temperature)
        assert not [event for event in compiled if event.endswith("backend_compile_duration")], count
        want = ss.value_and_gradient(losses.sincere(temperature), z[:count], labels[:count], engine="dense")
        for found in both:
            assert distance(np.asarray(found[0]), want[0]) <= rule("float64", temperature)
            assert distance(np.asarray(found[1]), want[1]) <= rule("float64", temperature)


def test_the_product_with_a_tangent_is_right_under_every_transform() -> None:
    """An eager call has a primitive for it, whose rules JAX calls where it likes to."""
    import jax

    z, labels, temperature = batch()
    tangents = jax.numpy.stack([z[::-1], z * 2.0 + 1.0])

    def loss(z: Any) -> Any:
        return ss.sincere_loss(z, labels, temperature, engine="tiled")

    gradient = np.asarray(ss.value_and_gradient(losses.sincere(), z, labels, temperature=TEMPERATURE)[1])
    want = np.sum(gradient * np.asarray(tangents), axis=(1, 2))
    _, along = jax.linearize(loss, z)
    _, back = jax.vjp(loss, z)
    cotangents = jax.numpy.asarray(want)
    for found in (
        jax.numpy.stack([jax.jvp(loss, (z,), (x,))[1] for x in tangents]),
        jax.numpy.stack([along(x) for x in tangents]),
        jax.vmap(along)(tangents),
        jax.jit(jax.vmap(along))(tangents),
        jax.vmap(lambda x: jax.jvp(loss, (z,), (x,))[1])(tangents),
    ):
        assert distance(np.asarray(found), want) <= rule("float64", TEMPERATURE)
    for found in (
        jax.vmap(back)(cotangents)[0],
        jax.numpy.stack([back(x)[0] for x in cotangents]),
        jax.jit(jax.vmap(back))(cotangents)[0],
        jax.numpy.stack([jax.linear_transpose(along, z)(x)[0] for x in cotangents]),
        jax.vmap(jax.grad(lambda x: along(x) ** 2 / 2))(tangents),
    ):
        assert distance(np.asarray(found), np.asarray(cotangents)[:, None, None] * gradient) <= rule(
            "float64", TEMPERATURE
        )


def test_ids_that_a_compiled_function_has_from_outside_are_read() -> None:
    import jax

    rng = np.random.default_rng(0)
    z, labels, ids = rng.normal(size=(12, 4)), np.arange(12) % 3, np.arange(12) // 2
    named = jax.numpy.asarray(labels), jax.numpy.asarray(ids)
    want = ss.sincere_loss(z, labels, ids=ids)
    assert want != pytest.approx(ss.sincere_loss(z, labels), rel=1e-3)
    for engine in ("dense", "tiled"):
        got = jax.jit(lambda z, engine=engine: ss.sincere_loss(z, named[0], ids=named[1], engine=engine))(z)
        assert float(got) == pytest.approx(want, rel=1e-12)
