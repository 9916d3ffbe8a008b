"""Strips of rows against all columns: one sweep makes value and gradient, the same as tiles that make logits twice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from catalogue import Call, distance, rule
from frameworks import load

import sincere_spec as ss
from sincere_spec import losses
from sincere_spec.backends import by_root
from sincere_spec.engines import tiled, traced

N, M, D = 23, 37, 6
OFF, LOW, ONE = (
    (0, 1),
    (3 * M, 1),
    (1 << 23, 64),
)  # no strips, strips of one to three rows, and one for each row of tiles

eager = pytest.mark.parametrize("framework", ["numpy", "array_api_strict", "torch"], indirect=True)
compiled = pytest.mark.parametrize("framework", ["jax", "tensorflow"], indirect=True)


def calls() -> dict[str, Call]:
    rng = np.random.default_rng(5)
    z, q, k = (rng.normal(size=(rows, D)) for rows in (N, N, M))
    labels, key_labels = rng.integers(0, 5, N), rng.integers(0, 6, M)
    kept, kept_keys, groups = rng.random(N) < 0.7, rng.random(M) < 0.7, rng.integers(0, 9, N)
    keyed = {"key_labels": key_labels}
    ids = {"ids": rng.integers(0, 15, N), "key_ids": rng.integers(0, 15, M)}
    own = {"queries": z, "positives": q}
    found = {
        "info_nce": Call(losses.info_nce(0.1), own),
        "info_nce cold": Call(losses.info_nce(0.002), own),
        "info_nce unbounded": Call(losses.info_nce(0.5), own, options={"normalize": False}),
        "info_nce queue": Call(losses.info_nce(0.1), own | {"negatives": k}),
        "info_nce empty queue": Call(losses.info_nce(0.1), own | {"negatives": k[:0]}),
        "info_nce where": Call(losses.info_nce(0.1), own, options={"where": kept}),
        "info_nce ignore": Call(losses.info_nce(0.1), own, options={"ignore": ss.same(groups)}),
        "dystress": Call(losses.dystress_info_nce(detach=False), own | {"negatives": k}, exact=False),
        "siglip": Call(losses.siglip(0.2, -2.0), {"a": z, "b": q}),
        "f_micl": Call(losses.f_micl(divergence="jeffreys"), {"view_a": z, "view_b": q, "negatives": k}),
    }
    for name, record in {
        "sincere": losses.sincere(0.2),
        "large margin": losses.sincere(0.2, 20.0),
        "supcon": losses.supcon(0.2),
        "supcon in": losses.supcon(0.2, "in"),
        "decoupled": losses.decoupled(0.2),
        "supcon cold": losses.supcon(0.002),
    }.items():
        arrays = {"embeddings": z, "keys": k}
        found[f"{name} keys"] = Call(record, arrays, labels, keyed)
        found[f"{name} ids"] = Call(record, arrays, labels, keyed | ids)
        found[f"{name} where"] = Call(record, arrays, labels, keyed | {"where": (kept, kept_keys)})
    return {name: call.with_parameters() for name, call in found.items()}


ONE_SIDED = calls()


@eager
@pytest.mark.parametrize("setting", [OFF, LOW, ONE], ids=["off", "low", "one"])
@pytest.mark.parametrize("name", ONE_SIDED)
def test_strips_give_the_dense_answer(
    framework: str, name: str, setting: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiled, "STRIP", setting[0])
    monkeypatch.setattr(tiled, "LOWEST_STRIP", setting[1])
    here, call = load(framework), ONE_SIDED[name]
    arrays, bound = here.arrays(call.arrays), rule("float64", call.temperature)
    for reduction in ("mean", "pairs", "batch", "sum"):
        want, want_gradient = call.value_and_gradient(arrays, engine="dense", reduction=reduction)
        value, gradient = call.value_and_gradient(arrays, engine="tiled", tile=8, reduction=reduction)
        assert distance(here.numbers(value), here.numbers(want)) <= bound
        for argument, known in want_gradient.items():
            assert distance(here.numbers(gradient[argument]), here.numbers(known)) <= bound, (reduction, argument)


@eager
@pytest.mark.parametrize("name", ["info_nce", "info_nce queue", "siglip", "info_nce ignore"])
def test_strips_make_logits_once(framework: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    here, call = load(framework), ONE_SIDED[name]
    arrays, backend = here.arrays(call.arrays), by_root(framework)
    given, entries = type(backend).product_into, []

    def counted(self: Any, scratch: Any, a: Any, b: Any, scale: float) -> Any:
        entries.append(a.shape[0] * b.shape[1])
        return given(self, scratch, a, b, scale)

    monkeypatch.setattr(type(backend), "product_into", counted)
    made = []
    for strip in (0, 1 << 23):
        monkeypatch.setattr(tiled, "STRIP", strip)
        entries.clear()
        call.value_and_gradient(arrays, engine="tiled", tile=8)
        made.append(sum(entries))
    pairs = N * (M if "negatives" in call.arrays else N)
    assert made[0] - made[1] == pairs


@eager
def test_a_strip_is_no_larger_than_its_bound(framework: str, monkeypatch: pytest.MonkeyPatch) -> None:
    here, call = load(framework), ONE_SIDED["info_nce queue"]
    backend, sizes = by_root(framework), []
    given = type(backend).scratch

    def seen(self: Any, like: Any, size: int) -> Any:
        sizes.append(size)
        return given(self, like, size)

    monkeypatch.setattr(type(backend), "scratch", seen)
    monkeypatch.setattr(tiled, "STRIP", 5 * M + 3)
    monkeypatch.setattr(tiled, "LOWEST_STRIP", 1)
    call.value_and_gradient(here.arrays(call.arrays), engine="tiled", tile=2)
    assert sizes == [4, 2 * M]
    sizes.clear()
    call.value_and_gradient(here.arrays(call.arrays), engine="tiled", tile=16)
    assert sizes == [256, 5 * M]


@pytest.fixture
def traced_strips(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What sweeps of the programs that are traced made in strips; None for nothing."""
    made, given = [], traced.TracedSweep.in_strips

    def seen(self: Any, *arguments: Any) -> Any:
        made.append(given(self, *arguments))
        return made[-1]

    monkeypatch.setattr(traced.TracedSweep, "in_strips", seen)
    return made


@compiled
@pytest.mark.parametrize("name", ["info_nce ignore", "dystress", "f_micl", "large margin ids"])
def test_a_traced_strip_gives_the_dense_answer(framework: str, name: str, traced_strips: list[Any]) -> None:
    here, call = load(framework), ONE_SIDED[name]
    arrays = here.arrays(call.arrays)
    value, gradient = call.value_and_gradient(arrays, engine="tiled", tile=8)
    assert traced_strips
    assert traced_strips[0] is not None
    want, want_gradient = call.value_and_gradient(arrays, engine="dense")
    bound = rule("float64", call.temperature)
    assert distance(here.numbers(value), here.numbers(want)) <= bound
    for argument, known in want_gradient.items():
        assert distance(here.numbers(gradient[argument]), here.numbers(known)) <= bound, argument


@compiled
@pytest.mark.parametrize("name", ["info_nce where", "info_nce unbounded"])
def test_a_traced_program_has_strips_where_all_columns_take_part_and_are_few(
    framework: str, name: str, traced_strips: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traced, "STRIP", 8 * (N + 1) - 1)
    call = ONE_SIDED[name]
    call.value_and_gradient(load(framework).arrays(call.arrays), engine="tiled", tile=8)
    assert traced_strips == [None]


@pytest.mark.framework("jax")
def test_a_traced_strip_is_mapped_and_sharded(traced_strips: list[Any]) -> None:
    import jax
    import jax.numpy as jnp

    rng = np.random.default_rng(7)
    q, p, queue = (jnp.asarray(rng.normal(size=shape)) for shape in ((2, 12, 5), (2, 12, 5), (11, 5)))
    mesh = jax.make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.PartitionSpec("x")

    def gradients(**options: Any) -> list[Any]:
        def loss(q: Any, p: Any) -> Any:
            return ss.info_nce_loss(q, p, queue, temperature=0.3, **options)

        def mean(q: Any, p: Any) -> Any:
            return jax.lax.pmean(loss(q[0], p[0]), "x")

        sharded = jax.shard_map(mean, mesh=mesh, in_specs=(rows, rows), out_specs=jax.sharding.PartitionSpec())
        return [jax.vmap(jax.grad(loss, (0, 1)))(q, p), jax.grad(sharded, (0, 1))(q, p)]

    got = gradients(engine="tiled", tile=8)
    assert traced_strips
    assert None not in traced_strips
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(gradients(engine="dense")), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14)


@pytest.mark.framework("torch")
def test_a_gradient_made_forward_is_scaled_again_and_again() -> None:
    import torch

    here, call = load("torch"), ONE_SIDED["supcon keys"]
    arrays = {name: x.requires_grad_() for name, x in here.arrays(call.arrays).items()}
    value = call.value(arrays, engine="tiled", tile=8)
    leaves = list(arrays.values())
    first = torch.autograd.grad(value, leaves, retain_graph=True)
    again = torch.autograd.grad(-2.0 * value, leaves, retain_graph=True)
    for one, other in zip(first, again, strict=True):
        assert torch.equal(-2.0 * one, other)
    (second,) = torch.autograd.grad(torch.autograd.grad(value, leaves[0], create_graph=True)[0].sum(), leaves[1])
    dense = call.value(arrays, engine="dense")
    (known,) = torch.autograd.grad(torch.autograd.grad(dense, leaves[0], create_graph=True)[0].sum(), leaves[1])
    torch.testing.assert_close(second, known, rtol=1e-10, atol=1e-12)
