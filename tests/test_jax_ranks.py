"""Losses over the devices along an axis, inside `jax.shard_map` and `jax.pmap`: those of the whole batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import sincere_spec as ss
from sincere_spec.conformance import distributed

pytestmark = pytest.mark.framework("jax")

COUNT, DEVICES, LIMIT = 10, 2, 1e-12
CASES = {case.name: case for case in distributed.cases(COUNT, short=True)}


def mesh() -> Any:
    import jax

    return jax.make_mesh((DEVICES,), ("rows",), (jax.sharding.AxisType.Auto,), devices=jax.devices()[:DEVICES])


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
    [("sincere, where", True, "tiled"), ("clip", False, "dense"), ("info_nce, shared queue", True, "dense")],
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


def test_keys_are_gathered_once_and_nothing_is_scattered() -> None:
    import re

    import jax

    arrays, parameters, rows = given(CASES["sincere"])
    function = over_devices(CASES["sincere"], True, engine="tiled", tile=8)
    program = jax.jit(jax.grad(lambda *x: function(*x, rows))).lower(arrays, parameters).as_text()
    width = arrays["embeddings"].shape[1]
    assert len(re.findall(rf'all_gather"?\(.*tensor<{COUNT}x{width}xf64>', program)) == 1
    assert "reduce_scatter" not in program


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
