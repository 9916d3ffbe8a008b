"""Kernels, in the interpreters of Triton and Pallas: no device runs here."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from catalogue import CALLS, Call, distance, reduction_of, rule
from edges import EDGES, MADE_DIFFERENTLY, assert_near
from frameworks import COMPUTED_IN, UNIT, load

import sincere_spec as ss
from sincere_spec import losses
from sincere_spec.conformance import frameworks, judge, questions
from sincere_spec.conformance.implementations import Package
from sincere_spec.conformance.judge import Result
from sincere_spec.conformance.questions import Question
from sincere_spec.spec import elementwise
from sincere_spec.spec.relations import OtherLabel, SameLabel
from sincere_spec.spec.words import Fold, Logit, Similarity

# Triton's interpreter takes a few milliseconds for an operation of a tile, and that of Pallas compiles every shape.
interpreted = pytest.mark.parametrize("framework", ["torch"], indirect=True)


@pytest.fixture(autouse=True)
def _triton(request: pytest.FixtureRequest, need: Any) -> None:
    if "torch" in request.node.nodeid.partition("[")[2]:
        need("triton")


@pytest.fixture(autouse=True)
def _in_bounds(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has Triton's interpreter refuse a load or store outside of the launch's arrays: a device may stop there, a CPU rarely."""
    if "torch" not in request.node.nodeid.partition("[")[2]:
        return
    from triton.runtime import interpreter

    bounds: list[list[Any]] = [[], []]  # where each array of this launch begins, and ends
    start, load_, store = (
        interpreter.GridExecutor._init_args_hst,
        interpreter.InterpreterBuilder.create_masked_load,
        interpreter.InterpreterBuilder.create_masked_store,
    )

    def started(self: Any, arguments: Any, keywords: Any) -> Any:
        found = start(self, arguments, keywords)
        arrays = sorted((x for x in found[0] if hasattr(x, "data_ptr") and x.numel()), key=lambda x: x.data_ptr())
        assert all(x.is_contiguous() for x in arrays)
        bounds[0] = [x.data_ptr() for x in arrays]
        bounds[1] = [x.data_ptr() + x.numel() * x.itemsize for x in arrays]
        return found

    def check(pointers: Any, mask: Any) -> None:
        # a load without a mask has none of its own: the interpreter makes one of True
        touched = pointers.data[np.broadcast_to(mask.data, pointers.data.shape).astype(bool)].astype(np.int64)
        array = np.searchsorted(np.array(bounds[0]), touched, side="right") - 1
        inside = (array >= 0) & (touched < np.array(bounds[1])[array])
        assert inside.all(), f"{np.sum(~inside)} of {touched.size} addresses are outside of the kernel's arrays"

    def loaded(self: Any, pointers: Any, mask: Any, *rest: Any) -> Any:
        check(pointers, mask)
        return load_(self, pointers, mask, *rest)

    def stored(self: Any, pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
        check(pointers, mask)
        return store(self, pointers, value, mask, *rest)

    monkeypatch.setattr(interpreter.GridExecutor, "_init_args_hst", started)
    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_masked_load", loaded)
    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_masked_store", stored)


@pytest.fixture(autouse=True)
def _patched_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has Triton's interpreter patch its language once a launch: it does again at each function's call, to no effect."""
    if "torch" not in request.node.nodeid.partition("[")[2]:
        return
    from triton import language
    from triton.runtime import interpreter

    patch, scope = interpreter._patch_lang, getattr(interpreter, "_LangPatchScope", None)
    if scope is None:
        return

    def patched(function: Any) -> Any:
        modules = [x for x in function.__globals__.values() if x is language or x is language.core]
        return scope() if all(module.static_print is print for module in modules) else patch(function)

    monkeypatch.setattr(interpreter, "_patch_lang", patched)


@interpreted
@pytest.mark.parametrize("name", CALLS)
def test_kernels_give_the_dense_answer(framework: str, name: str) -> None:
    here, call = load(framework), CALLS[name].with_parameters()
    arrays = here.arrays(call.arrays)
    reduction = reduction_of(name)
    want, want_gradient = call.value_and_gradient(arrays, engine="dense", reduction=reduction)
    value, gradient = call.value_and_gradient(arrays, engine="kernel", reduction=reduction)
    bound = rule("float64", call.temperature)
    assert distance(here.numbers(value), here.numbers(want)) <= bound
    own = here.gradient(lambda x: -1.25 * call.value(x, engine="kernel", reduction=reduction), arrays)
    for argument in want_gradient:
        exact = here.numbers(want_gradient[argument])
        assert distance(here.numbers(gradient[argument]), exact) <= bound, argument
        assert distance(here.numbers(own[argument]) / -1.25, exact) <= bound, argument
    rows = [here.numbers(call.value(arrays, engine=engine, reduction="none")) for engine in ("dense", "kernel")]
    np.testing.assert_allclose(rows[1], rows[0], rtol=bound, atol=bound * np.max(np.abs(rows[0])))


RAGGED = ("sincere", "supcon_in", "sincere_keys", "clip", "nt_xent", "f_micl_js")


def ragged(name: str, n: int, m: int, width: int) -> Call:
    """A call of the catalogue with other rows: classes in any order."""
    rng, call = np.random.default_rng(n), CALLS[name]
    rows = {argument: m if argument == "keys" else n for argument in call.arrays}
    arrays = {argument: rng.normal(size=(count, width)) for argument, count in rows.items()}
    labels = None if call.labels is None else rng.integers(0, 6, size=n).tolist()
    options = {"key_labels": rng.integers(0, 7, size=m).tolist()} if call.options else {}
    return replace(call, arrays=arrays, labels=labels, options=options)


@interpreted
@pytest.mark.parametrize(("n", "m", "width"), [(1, 33, 1), (16, 16, 16), (17, 5, 37), (31, 50, 33)])
@pytest.mark.parametrize("name", RAGGED)
def test_ragged_rows_and_entries(
    framework: str, name: str, n: int, m: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several tiles of rows, of columns, of entries and of the gradient's entries, none of them full."""
    if framework == "torch":
        from sincere_spec.backends.torch import launch

        small = launch.Shape(32, 16, 16, warps=4, stages=2, width=16, slices=2)
        monkeypatch.setitem(launch.SHAPES, 8, launch.Shapes(small, small, small))
    here, call = load(framework), ragged(name, n, m, width).with_parameters()
    arrays = here.arrays(call.arrays)
    want, want_gradient = call.value_and_gradient(arrays, engine="dense", reduction="sum")
    value, gradient = call.value_and_gradient(arrays, engine="kernel", reduction="sum", tile=32)
    bound = rule("float64", call.temperature, width)
    assert distance(here.numbers(value), here.numbers(want)) <= bound
    for argument in want_gradient:
        exact = here.numbers(want_gradient[argument])
        assert distance(here.numbers(gradient[argument]), exact) <= bound, argument


@interpreted
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("name", RAGGED)
def test_every_dtype_is_summed_in_float32(framework: str, name: str, dtype: str) -> None:
    here, call = load(framework), ragged(name, 20, 20, 8)
    arrays = here.arrays(call.arrays, dtype)
    want, want_gradient = call.value_and_gradient(here.rounded(call.arrays, dtype), engine="dense")
    value, gradient = call.value_and_gradient(arrays, engine="kernel", tile=16)
    bound = rule(dtype, call.temperature, 8)
    assert here.dtype(value) == COMPUTED_IN[dtype]
    assert distance(here.numbers(value), want) <= bound
    for argument, exact in want_gradient.items():
        assert here.dtype(gradient[argument]) == dtype
        rounding = UNIT[dtype] if COMPUTED_IN[dtype] != dtype else 0.0
        assert distance(here.numbers(gradient[argument]), exact) <= bound + rounding, argument


@interpreted
@pytest.mark.parametrize("name", ["sincere", "supcon_in", "decoupled", "clip", "siglip", "f_micl_vincze_le_cam"])
def test_kernels_at_every_edge(framework: str, name: str) -> None:
    here = load(framework)
    for edge, change in EDGES.items():
        call = change(CALLS[name]).with_parameters()
        exact = here.rounded(call.arrays, "float32")
        want = call.value_and_gradient(exact, engine="dense")
        found = call.value_and_gradient(here.arrays(call.arrays, "float32"), engine="kernel")
        assert_near(here, call, edge, "float32", exact, found, want)


@interpreted
def test_rows_that_are_known_to_be_the_same_are_never_compared(framework: str) -> None:
    here, call = load(framework), ragged("sincere_keys", 20, 30, 4)
    rng = np.random.default_rng(0)
    options = call.options | {"ids": rng.integers(0, 9, size=20), "key_ids": rng.integers(0, 9, size=30)}
    call = replace(call, options=options)
    want, want_gradient = call.value_and_gradient(call.arrays)
    value, gradient = call.value_and_gradient(here.arrays(call.arrays), engine="kernel", tile=16)
    assert distance(here.numbers(value), want) <= rule("float64", call.temperature)
    for argument, exact in want_gradient.items():
        assert distance(here.numbers(gradient[argument]), exact) <= rule("float64", call.temperature), argument


@pytest.mark.parametrize("framework", ["torch", "jax"], indirect=True)
def test_an_empty_queue(framework: str) -> None:
    here, call = load(framework), CALLS["info_nce_queue"]
    arrays = here.arrays(call.arrays | {"negatives": np.zeros((0, 4))})
    value, gradient = call.value_and_gradient(arrays, engine="kernel")
    assert not here.numbers(value)
    assert {name: tuple(x.shape) for name, x in gradient.items()} == {
        name: tuple(x.shape) for name, x in arrays.items()
    }
    assert not any(np.any(here.numbers(x)) for x in gradient.values())


@interpreted
def test_nothing_to_compare_and_nothing_to_compare_by(framework: str) -> None:
    here = load(framework)
    value, gradient = ss.value_and_gradient(losses.clip(), *[here.array(np.zeros((0, 3)))] * 2, engine="kernel")
    assert not here.numbers(value)
    assert tuple(gradient.a.shape) == (0, 3)
    flat = here.array(np.zeros((6, 0)))
    value, gradient = ss.value_and_gradient(losses.sincere(), flat, [0, 0, 1, 1, 2, 2], engine="kernel")
    assert np.isclose(here.numbers(value), np.log(5.0))
    assert tuple(gradient.shape) == (6, 0)


@interpreted
@pytest.mark.filterwarnings(
    "ignore:invalid value encountered:RuntimeWarning"
)  # of Triton's interpreter, which is NumPy
@pytest.mark.parametrize("name", MADE_DIFFERENTLY)
def test_kernels_hide_no_nan(framework: str, name: str) -> None:
    here, call = load(framework), CALLS[name]
    for argument in call.arrays:
        arrays = {other: x.copy() for other, x in call.arrays.items()}
        arrays[argument][-1, 1] = np.nan
        assert np.isnan(here.numbers(call.value(here.arrays(arrays), engine="kernel"))), argument


@pytest.mark.framework("torch")
def test_second_derivatives_through_a_kernel_are_the_dense_engine_s() -> None:
    import torch

    here, call = load("torch"), CALLS["sincere"]
    found = []
    for engine in ("dense", "kernel"):
        arrays = {name: x.requires_grad_() for name, x in here.arrays(call.arrays).items()}
        first = here.gradient(lambda x, engine=engine: call.value(x, engine=engine), arrays)["embeddings"]
        found.append(torch.autograd.grad((first**2).sum(), arrays["embeddings"])[0])
    assert distance(here.numbers(found[1]), here.numbers(found[0])) <= 100.0 * rule("float64", call.temperature)


# --- the conformance suite, in the interpreters --------------------------------------------------------------------------------


ORDINARY = questions.ordinary(questions.of_suite())


@pytest.fixture(scope="module")
def suite() -> tuple[Question, ...]:
    return questions.of_suite()


def has_kernel(question: Question) -> bool:
    """Kernels know rows that take no part, and groups where a row's one positive is named by its place."""
    relations = question.relations - {"where", "key_where"}
    by_place = not {"labels", "view_2"} & set(question.arguments)
    return not relations or (by_place and relations <= {"groups", "key_groups"})


def assert_conforming(framework: str, dtype: str, asked: Iterable[Question]) -> None:
    implementation = Package(frameworks.start(framework))
    passed: list[Result] = []
    for question in (question for question in asked if dtype in question.dtypes):
        results = judge.ask(implementation, question, dtype, "kernel")
        if has_kernel(question):
            assert [result for result in results if result.status != "pass"] == []
            passed += results
            continue
        for result in results:
            assert result.status == "unsupported"
            assert re.search(r"not the relation \w+|kernels have no keys of each row's own", result.reason)
    assert len(passed) >= 2


# Of a half type's own are the range and the digits in which rows and gradients are stored. All between is float32's.
STORED = re.compile("norms|unnormalised|zero-row|hot-logits|cold|temperature-small|one-dimension")


@interpreted
@pytest.mark.parametrize("dtype", COMPUTED_IN)
@pytest.mark.parametrize("row", sorted(ORDINARY))
def test_triton_passes_the_suite(framework: str, row: str, dtype: str, suite: tuple[Question, ...]) -> None:
    """All of it in the two types in which losses are computed; in the half types, what these may do to it."""
    asked = [question for question in suite if question.row == row]
    if COMPUTED_IN[dtype] != dtype:
        asked = [question for question in asked if question.id == ORDINARY[row].id or STORED.search(question.id)]
    assert_conforming(framework, dtype, asked)


@pytest.mark.framework("jax")
@pytest.mark.parametrize("row", sorted(ORDINARY))
def test_pallas_passes_an_ordinary_case(row: str) -> None:
    assert_conforming("jax", "float32", [ORDINARY[row]])


# --- Pallas, which compiles every shape: some losses of different kinds --------------------------------------------------------


@pytest.mark.framework("jax")
@pytest.mark.parametrize(
    ("name", "n", "m", "width", "dtype"),
    [
        ("sincere", 37, 0, 5, "float64"),
        ("clip", 20, 0, 20, "float32"),
        ("supcon_in_keys", 17, 21, 3, "bfloat16"),
        ("dystress_shifted", 9, 0, 3, "float32"),
    ],
)
def test_pallas_gives_the_dense_answer(
    name: str, n: int, m: int, width: int, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under jit, with several tiles of rows, of columns and of entries, none of them full."""
    import jax

    from sincere_spec.backends.jax import kernels

    small = kernels.Shape(tile=16, entries=16, width=16, slices=1, warps=4, stages=2)
    monkeypatch.setattr(kernels, "SHAPES", dict.fromkeys((2, 4, 8), small))
    here, call = load("jax"), ragged(name, n, m, width).with_parameters()
    arrays = here.arrays(call.arrays, dtype)
    want, want_gradient = call.value_and_gradient(here.rounded(call.arrays, dtype))

    @jax.jit
    def run(arrays: Any) -> Any:
        return jax.value_and_grad(lambda x: call.value(x, engine="kernel", tile=16))(arrays)

    value, gradient = run(arrays)
    bound = rule(dtype, call.temperature, width)
    assert distance(here.numbers(value), want) <= bound
    rounding = UNIT[dtype] if COMPUTED_IN[dtype] != dtype else 0.0
    for argument, exact in want_gradient.items():
        assert here.dtype(gradient[argument]) == dtype
        assert distance(here.numbers(gradient[argument]), exact) <= bound + rounding, argument


@pytest.mark.framework("jax")
def test_pallas_under_vmap_and_for_row_losses() -> None:
    import jax

    here, call = load("jax"), CALLS["sincere"]
    z = np.stack([call.arrays["embeddings"], call.arrays["embeddings"][::-1] * 2.0])

    def rows(z: Any, engine: str) -> Any:
        return call.value({"embeddings": z}, engine=engine, reduction="none")

    @jax.jit
    def run(batch: Any, weights: Any) -> Any:
        return [
            (
                jax.vmap(lambda z, engine=engine: rows(z, engine))(batch),
                jax.grad(lambda z, engine=engine: jax.numpy.sum(weights * rows(z, engine)))(batch[0]),
            )
            for engine in ("kernel", "dense")
        ]

    for got, want in zip(*run(here.array(z), here.array(np.linspace(-1.0, 1.0, 6))), strict=True):
        assert distance(here.numbers(got), here.numbers(want)) <= rule("float64", call.temperature)


SHARDED = """
import jax, numpy as np, sincere_spec as ss
from jax.sharding import PartitionSpec as P

rng = np.random.default_rng(0)
z, keys = (jax.numpy.asarray(rng.normal(size=(n, 4)), dtype="float32") for n in (8, 10))
labels, key_labels = jax.numpy.arange(8) % 3, jax.numpy.arange(10) % 4
mesh = jax.make_mesh((2,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))

def loss(z, labels, engine):
    return ss.sincere_loss(z, labels, keys=keys, key_labels=key_labels, engine=engine, reduction="sum")

def own(z, labels):
    value, gradient = jax.value_and_grad(loss)(z, labels, "kernel")
    return jax.lax.psum(value, "rows"), gradient

rows = (P("rows"), P("rows"))
got = jax.jit(jax.shard_map(own, mesh=mesh, in_specs=rows, out_specs=(P(), P("rows")), check_vma=False))(z, labels)
for x, y in zip(got, jax.value_and_grad(loss)(z, labels, "dense"), strict=True):
    np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4)
"""


@pytest.mark.framework("jax")
def test_pallas_on_rows_that_are_sharded_over_devices() -> None:
    """Each device compares its anchors with all keys; `check_vma=False`, since a kernel does not say what varies."""
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_ENABLE_X64": "0"}
    done = subprocess.run(
        [sys.executable, "-c", SHARDED], capture_output=True, text=True, env=environment, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr


# --- tiles on a device: strips, here of a CPU's products and Triton's interpreter ---------------------------------------------


@pytest.fixture
def strips(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Has `engine="tiled"` take strips on a CPU, small ones."""
    from sincere_spec.backends.torch import TorchBackend
    from sincere_spec.backends.torch import strips as module

    calls = []

    class Counted(module.StripKernels):
        def tally(self, *arguments: Any) -> Any:
            calls.append("tally")
            return super().tally(*arguments)

        def pull(self, *arguments: Any) -> Any:
            calls.append("pull")
            return super().pull(*arguments)

        def pull_both(self, *arguments: Any) -> Any:
            calls.append("pull")
            return super().pull_both(*arguments)

    monkeypatch.setattr(module, "ENTRIES", 1)
    monkeypatch.setattr(module, "CHUNK", 32)
    monkeypatch.setattr(module, "BLOCK_K", 16)
    monkeypatch.setattr(TorchBackend, "strips", lambda self, like, logit: Counted())
    return calls


@interpreted
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
@pytest.mark.parametrize("name", [*RAGGED, "siglip", "dystress_shifted", "supcon_out"])
def test_strips_give_the_dense_answer(framework: str, name: str, dtype: str, strips: list[str]) -> None:
    """With several strips, spans of columns, chunks and tiles, none of them full."""
    here, call = load(framework), ragged(name, 37, 50, 19).with_parameters()
    arrays = here.arrays(call.arrays, dtype)
    want, want_gradient = call.value_and_gradient(here.rounded(call.arrays, dtype), engine="dense", reduction="sum")
    value, gradient = call.value_and_gradient(arrays, engine="tiled", reduction="sum", tile=20)
    assert set(strips) == {"tally", "pull"}
    bound = rule(dtype, call.temperature, 19)
    assert distance(here.numbers(value), want) <= bound
    rounding = UNIT[dtype] if COMPUTED_IN[dtype] != dtype else 0.0
    for argument, exact in want_gradient.items():
        assert distance(here.numbers(gradient[argument]), exact) <= bound + rounding, argument


@interpreted
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("row", sorted(ORDINARY))
def test_strips_pass_the_suite(framework: str, row: str, dtype: str, strips: list[str]) -> None:
    results = judge.ask(Package(frameworks.start(framework)), ORDINARY[row], dtype, "tiled")
    assert [result for result in results if result.status != "pass"] == []
    assert strips


@interpreted
@pytest.mark.parametrize(
    "case", ["clip/zero-row", "sincere/zero-row", "info_nce/empty-queue", "clip/where", "sincere/where", "clip/groups"]
)
def test_strips_keep_rows_apart_that_are_zero_or_take_no_part(
    framework: str, case: str, suite: tuple[Question, ...], strips: list[str]
) -> None:
    (question,) = (question for question in suite if question.id == case)
    results = judge.ask(Package(frameworks.start(framework)), question, "bfloat16", "tiled")
    assert [result for result in results if result.status != "pass"] == []
    assert strips


@pytest.mark.framework("torch")
def test_strips_are_for_devices() -> None:
    import torch

    from sincere_spec.backends.torch import TorchBackend, strips

    assert strips.AVAILABLE
    assert TorchBackend().strips(torch.eye(3), Similarity()) is None
    meta = torch.empty(8, 4, dtype=torch.bfloat16, device="meta")
    product = torch.mm(meta, meta.T, out_dtype=torch.float32)  # what a device is asked for
    assert (product.dtype, tuple(product.shape)) == (torch.float32, (8, 8))


# --- each of Triton's words against its original ------------------------------------------------------------------------------


ARGUMENTS = np.concatenate([np.linspace(-40.0, 40.0, 256), np.linspace(-2.0, 2.0, 256)])
LOGITS = [
    Similarity(),
    losses.f_micl().logit,
    losses.dystress(0.05, 0.3).logit,
    losses.dystress(0.05, 0.3, detach=False).logit,
    losses.dystress(0.05, 0.3, schedule="shifted", offset=-0.3, scale=0.6).logit,
    losses.dystress(0.05, 0.3, detach=False, schedule="shifted", offset=-0.3, scale=0.6).logit,
]


@pytest.mark.framework("torch")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("fold", [fold for fold in Fold if fold is not Fold.LOGSUMEXP])
def test_a_fold_of_triton_is_the_fold(fold: Fold, dtype: str) -> None:
    import torch
    from device_words import folded

    from sincere_spec.backends.torch import namespace

    t = load("torch").array(ARGUMENTS, dtype)
    value, slope = torch.empty_like(t), torch.empty_like(t)
    folded[(1,)](t, value, slope, fold.value, t.shape[0])
    for got, original in ((value, elementwise.value), (slope, elementwise.slope)):
        want = original(namespace, fold, t.double()).numpy()
        bound = (
            UNIT[dtype] * (8.0 + 4.0 * np.abs(ARGUMENTS)) * np.abs(want)
        )  # exponentials lose what arguments have lost
        assert np.all(np.abs(got.double().numpy() - want) <= bound)


@pytest.mark.framework("torch")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("logit", LOGITS, ids=lambda logit: type(logit).__name__ + str(getattr(logit, "held", "")))
def test_a_logit_of_triton_is_the_logit(logit: Logit, dtype: str) -> None:
    import torch
    from device_words import logits

    from sincere_spec.backends.torch import namespace

    s = load("torch").array(np.linspace(-1.0, 1.0, 512), dtype)
    value, slope = torch.empty_like(s), torch.empty_like(s)
    logits[(1,)](s, value, slope, type(logit).__name__, astuple(logit), s.shape[0])
    for got, original in ((value, logit.value), (slope, logit.slope)):
        want = original(namespace, s.double()).numpy()
        bound = 16.0 * UNIT[dtype] * np.max(np.abs(want))
        assert np.all(np.abs(got.double().numpy() - want) <= bound)


@pytest.mark.framework("torch")
@pytest.mark.parametrize(("over", "partners"), [("positive", False), ("negative", False), ("negative", True)])
def test_a_relation_of_triton_is_the_relation(over: str, partners: bool) -> None:
    import torch
    from device_words import relation

    numbers = torch.tensor([[i >> bit & 1 for i in range(16)] for bit in range(4)])
    label, key_label, sample, key_sample = numbers
    row, column = {"label": label, "sample": sample}, {"label": key_label, "sample": key_sample}
    positive, negative = (OtherLabel() if partners else SameLabel()).pair(row, column, {})
    want = positive if over == "positive" else negative
    got = torch.empty(16, dtype=torch.int32)
    relation[(1,)](numbers, got, over, partners, 16)
    assert torch.equal(got.bool(), want)


@pytest.mark.framework("torch")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_triton_takes_every_digit_of_a_coefficient_to_half_rows(dtype: str) -> None:
    import torch
    from device_words import weighing

    rng, out = np.random.default_rng(0), torch.empty(16, 16)
    c, rows = torch.tensor(rng.normal(size=(2, 16, 16))).float()
    rows = rows.to(getattr(torch, dtype))
    weighing[(1,)](c, rows, out, 16)
    scale = (c.double().abs() @ rows.double().abs()).numpy()
    error = (out.double() - c.double() @ rows.double()).abs().numpy()
    assert np.all(error <= 4.0 * UNIT["float32"] * scale)


@pytest.mark.framework("jax")
def test_pallas_takes_every_digit_of_a_coefficient_to_half_rows() -> None:
    import jax

    from sincere_spec.backends.jax import kernels

    x = load("jax").array(np.random.default_rng(0).normal(size=99), "float32")
    pieces = jax.jit(lambda x: kernels._pieces(x, 3))(x)
    assert {piece.dtype.name for piece in pieces} == {"bfloat16"}
    np.testing.assert_array_equal(sum(np.asarray(piece, dtype=np.float64) for piece in pieces), np.asarray(x))


@interpreted
@pytest.mark.parametrize("name", ["sincere", "clip"])
def test_half_rows_of_every_norm(framework: str, name: str) -> None:
    """Products of rows as they came neither overflow nor vanish."""
    here, call = load(framework), ragged(name, 12, 12, 8)
    scales = 2.0 ** np.linspace(-100, 100, 12).round()[:, None]
    plain, scaled = (
        call.value_and_gradient(
            here.arrays({argument: x * by for argument, x in call.arrays.items()}, "bfloat16"), engine="kernel"
        )
        for by in (1.0, scales)
    )
    bound = rule("bfloat16", call.temperature, 8)
    assert distance(here.numbers(scaled[0]), here.numbers(plain[0])) <= bound
    for argument, want in plain[1].items():
        got = here.numbers(scaled[1][argument]) * scales
        assert distance(got, here.numbers(want)) <= bound + 2.0 * UNIT["bfloat16"], argument


# --- the compiler -------------------------------------------------------------------------------------------------------------


COMPILED = """
import json, sys
sys.path.insert(0, {tests!r})
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction
from frameworks import load
from test_kernels import ragged

class Device:  # all that the compiler asks of one
    get_current_device = staticmethod(lambda: 0)
    get_current_stream = staticmethod(lambda device=None: 0)
    get_current_target = staticmethod(lambda: GPUTarget("cuda", 90, 32))

driver.set_active(Device())
run, made = JITFunction.run, []
JITFunction.run = lambda self, *given, warmup, **words: made.append(run(self, *given, warmup=True, **words))
from sincere_spec.backends.torch import TorchBackend, launch
assert not launch.INTERPRETED
TorchBackend.kernels = lambda self, like, logit: launch.TritonKernels()
for name, dtype in {cases!r}:
    call = ragged(name, 64, 64, 512)
    call.value_and_gradient(load("torch").arrays(call.arrays, dtype), engine="kernel")
    programs = [
        [program.name, bool(program.asm["cubin"]), program.metadata.shared, "wgmma" in program.asm["ptx"], program.asm["ttgir"]]
        for program in {{id(program): program for program in made}}.values()
    ]
    print(json.dumps([name, dtype, programs]))
    made.clear()
"""

COMPILED_CASES = [
    ("sincere", "bfloat16"),
    ("clip", "bfloat16"),
    ("clip", "float16"),
    ("dystress_shifted", "bfloat16"),
    ("supcon_out", "bfloat16"),
    ("sincere", "float32"),
    ("dystress_shifted", "float32"),
    ("f_micl_vincze_le_cam", "float64"),
    ("dystress_shifted", "float64"),
]
SPILLED = {("supcon_out", "bfloat16"): 80, ("sincere", "float32"): 8, ("dystress_shifted", "float32"): 12}
"""Bytes of registers that may be spilled: SupCon has three parts, two of them log-sum-exps. Gradients in float32 have one
register too few for `length`, the number of columns that take part."""


@pytest.mark.framework("torch")
@pytest.mark.parametrize(("name", "dtype"), COMPILED_CASES)
def test_every_kernel_compiles_for_a_gpu(name: str, dtype: str, tmp_path: Path) -> None:
    """To the machine code of an H100 or H200; none is here to run it. Registers suffice, and half types go to tensor cores.

    No accumulator of a gradient changes its layout between the products of a tile, which would take it through shared memory.
    """
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path), "TRITON_DUMP_PTXAS_LOG": "1"}
    del environment["TRITON_INTERPRET"]
    done = subprocess.run(
        [sys.executable, "-c", COMPILED.format(tests=str(Path(__file__).parent), cases=[(name, dtype)])],
        capture_output=True,
        text=True,
        env=environment,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (found,) = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))
    spilled = [int(count) for count in re.findall(r"(\d+) bytes spill stores", done.stdout)]
    assert len(spilled) >= len(found[2]) >= 2  # float64 sines are functions of their own
    assert sum(spilled) <= SPILLED.get((name, dtype), 0), spilled
    for kernel, cubin, shared, tensor_cores, text in found[2]:
        assert cubin
        assert shared <= 227 * 1024, kernel
        assert tensor_cores == (dtype in ("float16", "bfloat16")), kernel
        assert not re.findall(r"convert_layout .*xf32, #mma\d*> -> tensor<\w+xf32, #mma", text), kernel
        assert [number for number in constants(text) if is_rounded(number)] == [], kernel


def constants(text: str) -> list[float]:
    """The float64 constants of a program."""
    return [
        float(number) for number in re.findall(r"arith.constant (?:dense<)?([-+.\de]+)>? : (?:tensor<[^>]*)?f64", text)
    ]


def is_rounded(number: float) -> bool:
    """Whether a constant of float64 looks like one of float32: exact there, with many of its digits used."""
    single = float(np.float32(number))
    return single == number and float(np.float32(np.float16(number))) != number and number != round(number)


@pytest.mark.framework("jax")
@pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated:DeprecationWarning")  # from JAX 0.11 on
@pytest.mark.parametrize(("name", "dtype"), [("sincere", "float32"), ("f_micl_vincze_le_cam", "float64")])
def test_every_pallas_kernel_is_lowered_for_a_gpu(name: str, dtype: str) -> None:
    """To the programs that XLA has Triton compile; none is here to run them."""
    import jax

    call = CALLS[name]
    arrays = load("jax").arrays(call.arrays, dtype)
    step = jax.jit(jax.value_and_grad(lambda x: call.value(x, engine="kernel")))
    text = step.trace(arrays).lower(lowering_platforms=("cuda",)).as_text()
    sweeps = {"sincere": 3, "f_micl_vincze_le_cam": 2}[name]
    assert text.count("custom_call @__gpu$xla.gpu.triton") == sweeps


# --- TensorFlow, whose fast path is the tiled engine under XLA ------------------------------------------------------------------


def largest_buffer(engine: str, n: int) -> int:
    """The entries of the largest array in the program that XLA makes of a value and its gradient, for n rows."""
    import tensorflow as tf

    def step(z: Any, labels: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(z)
            value = ss.sincere_loss(z, labels, engine=engine, tile=64)
        return value, tape.gradient(value, z)

    z, labels = tf.random.stateless_normal((n, 4), seed=(0, 1)), tf.range(n, dtype=tf.int64) % 16
    program = tf.function(step, jit_compile=True).experimental_get_compiler_ir(z, labels)(stage="optimized_hlo")
    shapes = re.findall(r"\b[a-z]\w*\[([\d,]+)\]", program)
    return max(int(np.prod([int(size) for size in shape.split(",")])) for shape in shapes)


@pytest.mark.framework("tensorflow")
def test_the_program_that_xla_makes_of_tiles_holds_no_matrix_of_all_pairs() -> None:
    n = 1024
    assert largest_buffer("dense", n) == n * n
    assert largest_buffer("tiled", n) <= 4 * n  # the embeddings; a tile is as large


# --- which calls have a kernel --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cubed(Logit):
    """A logit that no device function is known for."""

    def value(self, xp: Any, s: Any) -> Any:
        return s * s * s

    def slope(self, xp: Any, s: Any) -> Any:
        return 3.0 * s * s


@pytest.mark.parametrize("framework", ["numpy", "array_api_strict", "tensorflow"], indirect=True)
def test_a_framework_without_kernels_says_so(framework: str) -> None:
    with pytest.raises(ss.EngineUnavailable, match=r'"kernel" was asked for, but .* kernel.*engine="tiled"'):
        ss.sincere_loss(load(framework).array(np.eye(4)), [0, 0, 1, 1], engine="kernel")


@pytest.mark.framework("torch")
def test_what_triton_cannot_serve_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from sincere_spec.backends.torch import launch

    z, labels = torch.eye(4), [0, 0, 1, 1]
    with pytest.raises(ss.EngineUnavailable, match=r"no Triton function exists for the logit Cubed"):
        ss.evaluate(replace(losses.sincere(), logit=Cubed()), z, labels, engine="kernel")
    with monkeypatch.context() as m:
        m.setattr("triton.__version__", "3.5.1")
        m.delitem(sys.modules, "sincere_spec.backends.torch.launch")
        m.delattr("sincere_spec.backends.torch.launch")
        with pytest.raises(
            ss.EngineUnavailable, match=r"triton cannot be imported \(3\.6 or later is needed, and 3\.5\.1"
        ):
            ss.sincere_loss(z, labels, engine="kernel")
    for tile in (8, 48):
        with pytest.raises(ss.OptionError, match=rf"tile must be a power of two from 16 on.*got {tile}"):
            ss.sincere_loss(z, labels, engine="kernel", tile=tile)
    with monkeypatch.context() as m:
        m.setattr(launch, "INTERPRETED", False)
        with pytest.raises(ss.EngineUnavailable, match=r"the arrays are on cpu: set TRITON_INTERPRET=1"):
            ss.sincere_loss(z, labels, engine="kernel")
    with monkeypatch.context() as m:
        m.delitem(sys.modules, "sincere_spec.backends.torch.launch")
        m.delattr("sincere_spec.backends.torch.launch")
        m.setitem(sys.modules, "triton", None)
        with pytest.raises(ss.EngineUnavailable, match=r"triton cannot be imported.*sincere-spec\[kernels\]"):
            ss.sincere_loss(z, labels, engine="kernel")
    with monkeypatch.context() as m:
        m.delitem(sys.modules, "triton")
        m.setitem(sys.modules, "tensorflow", None)
        with pytest.raises(ss.EngineUnavailable, match=r"TensorFlow is in this process"):
            ss.sincere_loss(z, labels, engine="kernel")


@interpreted
def test_torch_func_takes_kernels(framework: str) -> None:
    import torch

    z, labels = torch.randn(9, 4, dtype=torch.float64), torch.arange(9) % 3

    def gradient(engine: str) -> Any:
        return torch.func.grad(lambda z: ss.sincere_loss(z, labels, engine=engine))(z)

    assert distance(gradient("kernel").numpy(), gradient("dense").numpy()) <= rule("float64", 0.1)


@pytest.mark.framework("jax")
def test_pallas_is_refused_where_its_kernels_were_not_meant_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    from sincere_spec.backends.jax import JaxBackend

    monkeypatch.setattr(JaxBackend, "platform", lambda self, x: "tpu")
    with pytest.raises(ss.EngineUnavailable, match=r"the kernels are for GPUs .*, and the arrays are on tpu"):
        ss.sincere_loss(load("jax").array(np.eye(4)), [0, 0, 1, 1], engine="kernel")


@pytest.mark.framework("jax")
def test_pallas_is_refused_under_an_older_jax(monkeypatch: pytest.MonkeyPatch) -> None:
    import jax

    z, labels = load("jax").array(np.eye(4)), [0, 0, 1, 1]
    monkeypatch.setattr(jax, "__version_info__", (0, 6, 1))
    monkeypatch.setattr(jax, "__version__", "0.6.1")
    with pytest.raises(
        ss.EngineUnavailable, match=r"Pallas kernels need JAX 0\.6\.2 or later, and 0\.6\.1 is installed"
    ):
        ss.sincere_loss(z, labels, engine="kernel")
    assert ss.explain(losses.sincere(), z, labels).engine == "dense"
    monkeypatch.setattr(jax, "__version_info__", (0, 6, 2))
    assert ss.explain(losses.sincere(), z, labels, engine="kernel").engine == "kernel"
    monkeypatch.delitem(sys.modules, "sincere_spec.backends.jax.kernels")
    monkeypatch.delattr("sincere_spec.backends.jax.kernels")
    monkeypatch.setitem(sys.modules, "jax.experimental.pallas.triton", None)
    monkeypatch.delattr("jax.experimental.pallas.triton")
    with pytest.raises(ss.EngineUnavailable, match=r"JAX .* has no Pallas by Triton"):
        ss.sincere_loss(z, labels, engine="kernel")


@pytest.mark.framework("jax")
def test_pallas_is_refused_where_the_number_of_rows_is_open() -> None:
    import jax

    def step(z: Any) -> Any:
        return ss.clip_loss(z, z, engine="kernel")

    (n,) = jax.export.symbolic_shape("n")
    with pytest.raises(ss.EngineUnavailable, match=r"the number of rows is not known before the call"):
        jax.export.export(jax.jit(step))(jax.ShapeDtypeStruct((n, 4), "float32"))


@interpreted
def test_auto_takes_a_kernel_only_where_one_was_measured_to_be_faster(
    framework: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sincere_spec.call import plan

    z, labels = load(framework).array(np.eye(4)), [0, 0, 1, 1]
    measured = [row for rows in plan.crossovers().values() for row in rows.values() if isinstance(row, dict)]
    assert measured
    assert all(row.get("kernel") is None for row in measured)
    assert "no kernel was measured on cpu" in ss.explain(losses.sincere(), z, labels).reason
    row = {"pairs": 9, "tile": 64, "kernel": 16}
    monkeypatch.setattr(plan, "crossovers", lambda: {"array_api": {}, framework: {"cpu": row}})
    assert ss.explain(losses.sincere(), z, labels).engine == "kernel"
    assert ss.explain(losses.sincere(), z, labels, tile=48).engine == "tiled"
    assert ss.explain(losses.sincere(), z[:3], labels[:3]).engine == "tiled"
