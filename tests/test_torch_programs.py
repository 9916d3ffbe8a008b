"""Losses inside PyTorch's compilers and exported programs: one graph for all sizes, in O(N d) memory, and nothing in silence."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from catalogue import CALLS, Call

import sincere_spec as ss
from sincere_spec.spec import Combine, Fold, Labelled, PairLoss, Pairs, Similarity, Stage, Term

pytestmark = [
    pytest.mark.framework("torch"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning"),
]

LOSSES: dict[str, Any] = {
    "sincere": lambda z, y, t: ss.sincere_loss(z, y, t),
    "supcon": lambda z, y, t: ss.supcon_loss(z, y, t),
    "nt_xent": lambda z, y, t: ss.nt_xent_loss(z, z.flip(1), temperature=t),
    "clip": lambda z, y, t: ss.clip_loss(z, z.flip(1), temperature=t),
}
SIZES = (60, 300, 513, 200, 60)


def batch(rows: int, seed: int = 0, dtype: str = "float32") -> tuple[Any, Any]:
    """Embeddings that want a gradient, and labels."""
    import torch

    rng = np.random.default_rng(seed)
    z = torch.tensor(rng.normal(size=(rows, 8)), dtype=getattr(torch, dtype), requires_grad=True)
    return z, torch.tensor(rng.integers(0, 5, rows))


def value_and_gradient(loss: Any, z: Any, *arguments: Any) -> tuple[Any, Any]:
    import torch

    value = loss(z, *arguments)
    (gradient,) = torch.autograd.grad(value, z)
    return value.detach(), gradient


class Graphs:
    """A backend of torch.compile that keeps its graphs."""

    def __init__(self) -> None:
        self.graphs: dict[str, Any] = {}

    def __call__(self, graph: Any, examples: Any) -> Any:
        from torch._dynamo.backends.debugging import aot_eager

        self.graphs[graph.print_readable(print_output=False)] = graph  # a restarted trace has the same graph again
        return aot_eager(graph, examples)


def compiled(loss: Any, dynamic: bool | None = True) -> tuple[Any, Graphs]:
    import torch

    torch.compiler.reset()
    graphs = Graphs()
    return torch.compile(loss, fullgraph=True, dynamic=dynamic, backend=graphs), graphs


# --- one graph ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOSSES)
def test_one_program_serves_all_sizes_and_temperatures_and_gives_the_eager_bits(name: str) -> None:
    import torch

    loss = LOSSES[name]
    program, _ = compiled(loss)
    program(*batch(40), 0.3)
    with torch.compiler.set_stance("fail_on_recompile"):
        for rows, temperature in zip(SIZES, (0.1, 0.2, 0.5, 0.07, 0.3), strict=True):
            z, y = batch(rows, rows)
            got = value_and_gradient(program, z, y, temperature)
            want = value_and_gradient(loss, z, y, temperature)
            assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True)), rows


@pytest.mark.parametrize("name", ["where", "ignore"])
def test_one_program_serves_all_masks(name: str) -> None:
    import torch

    def loss(z: Any, y: Any, mask: Any) -> Any:
        ignore = ss.same(y + mask) if name == "ignore" else None
        return ss.sincere_loss(z, y, where=mask if name == "where" else None, ignore=ignore)

    def given(rows: int) -> tuple[Any, Any, Any]:
        return *batch(rows, rows), torch.rand(rows, generator=torch.Generator().manual_seed(rows)) < 0.7

    program, _ = compiled(loss)
    program(*given(40))
    with torch.compiler.set_stance("fail_on_recompile"):
        for rows in (40, 300):
            got, want = (value_and_gradient(f, *given(rows)) for f in (program, loss))
            assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True)), rows


def test_records_that_differ_in_one_choice_have_programs_of_their_own() -> None:
    import torch

    from sincere_spec.torch import SupConLoss

    z, y = batch(12)[0].detach(), torch.arange(12) % 4
    modules = [SupConLoss(temperature=0.5, summation=kind) for kind in ("out", "in")]
    for module in modules:
        assert torch.equal(torch.compile(module, backend="eager")(z, y), module(z, y))

    program = torch.compile(lambda loss, z, y: ss.evaluate(loss, z, y), backend="eager")
    for fold, over in ((Fold.SQUARE, Pairs.OTHERS), (Fold.SOFTPLUS, Pairs.OTHERS), (Fold.SOFTPLUS, Pairs.NEGATIVE)):
        assert torch.equal(program(combined(fold, over), z, y), ss.evaluate(combined(fold, over), z, y))


def test_without_dynamic_there_are_two_graphs_for_five_sizes() -> None:
    program, graphs = compiled(LOSSES["sincere"], dynamic=None)
    for rows in SIZES:
        value_and_gradient(program, *batch(rows), 0.1)
    assert len(graphs.graphs) <= 2


def test_the_second_call_of_a_process_compiles_nothing(tmp_path: Path) -> None:
    """The first one loads the adapter, on which no guard may depend."""
    code = """
import torch, sincere_spec as ss
z, y = torch.randn(300, 8, requires_grad=True), torch.arange(300) % 7
program = torch.compile(lambda z, y: ss.sincere_loss(z, y, 0.1), fullgraph=True, backend="aot_eager")
program(z, y).backward()
with torch.compiler.set_stance("fail_on_recompile"):
    program(z, y).backward()
    ss.sincere_loss(z, y)  # nor after an eager call
    program(z, y).backward()
print("done")
"""
    assert python(code, tmp_path) == "done"


def python(code: str, cache: Path) -> str:
    """What a new interpreter prints, with compiled programs kept in a folder."""
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(cache), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_small_batch_of_known_size_is_the_composite_that_the_compiler_fuses() -> None:
    for rows, inside in ((128, False), (129, True)):
        program, graphs = compiled(LOSSES["sincere"], dynamic=False)
        program(*batch(rows), 0.1)
        (graph,) = graphs.graphs.values()
        assert ("value_and_gradient" in str(graph.graph)) is inside, rows


def test_the_plan_says_when_the_engine_is_chosen() -> None:
    import torch

    plans = []

    def loss(z: Any, y: Any) -> Any:
        plans.append(ss.explain(ss.losses.sincere(), z, y))
        return ss.sincere_loss(z, y)

    torch.export.export(Module(loss), batch(300), strict=False)
    assert plans[0].when_run
    assert str(plans[0]).startswith("torch, engine chosen when it runs: one program of torch.compile or torch.export")


@pytest.mark.parametrize("engine", ["tiled", "kernel", "dense"])
def test_an_engine_asked_for_by_name_is_the_one_that_runs(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from sincere_spec.backends.torch import TorchBackend

    monkeypatch.setattr(TorchBackend, "kernels", lambda self, like, logit: "this is a test")
    program, graphs = compiled(lambda z, y: ss.sincere_loss(z, y, engine=engine))
    if engine == "kernel":
        with pytest.raises(ss.EngineUnavailable, match='"kernel" was asked for, but this is a test'):
            program(*batch(300))
        return
    got = value_and_gradient(program, *batch(300))
    want = value_and_gradient(lambda z, y: ss.sincere_loss(z, y, engine=engine), *batch(300))
    torch.testing.assert_close(got, want)
    assert (str(engine) == "tiled") is any("value_and_gradient" in graph for graph in graphs.graphs)


# --- the operators --------------------------------------------------------------------------------------------------------


def combined(fold: Fold = Fold.SQUARE, over: Pairs = Pairs.OTHERS) -> PairLoss:
    """A record that folds a sum of stages."""
    stages = (Stage("far", Fold.LOGSUMEXP, over), Stage("own", Fold.LINEAR, Pairs.POSITIVE, mean=True))
    gap = Combine("gap", fold, (Term("far"), Term("own", -1.0)))
    return PairLoss("mine", Labelled(), stages, (Term("gap"),), Similarity(), 0.5, combined=(gap,))


RECORDS = CALLS | {
    f"combined_{fold.name}".lower(): replace(CALLS["sincere"], loss=combined(fold))
    for fold in (Fold.SQUARE, Fold.SOFTPLUS)
}


def operands(name: str, dtype: str, relation: str = "", **options: Any) -> list[Any]:
    """What a call of the catalogue gives its operator, with who is compared with whom changed by a relation."""
    import torch

    from sincere_spec.backends.torch import operators
    from sincere_spec.call.check import call_of, check
    from sincere_spec.call.plan import Plan
    from sincere_spec.call.steps import steps_of

    call = RECORDS[name]
    arrays = {a: torch.tensor(x, dtype=getattr(torch, dtype), requires_grad=True) for a, x in call.arrays.items()}
    positional, keywords = call.arguments(arrays)
    if call.labels is not None:
        positional[1] = torch.tensor(call.labels)
    if relation:
        related, labels = RELATIONS[relation](call)
        keywords |= related
        positional[1:2] = positional[1:2] if labels is None else [labels]
        if labels is not None:
            keywords.pop("key_labels", None)
    problem = check(call_of("evaluate", call.loss, tuple(positional), keywords | options))
    steps = steps_of(problem, Plan("torch", "auto", None, "", when_run=True))
    moving = [x.detach().requires_grad_() for x in problem.arguments.values()]
    return [operators.text_of(steps.static), list(steps.constants), moving, [True] * len(moving)]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", RECORDS)
def test_opcheck(name: str, dtype: str) -> None:
    import torch
    from torch.library import opcheck

    from sincere_spec.backends.torch import operators

    given = operands(name, dtype)
    opcheck(operators.value_and_gradient, given)
    if dtype == "float32":
        text, constants, arrays, wanted = given
        _, *made = operators.value_and_gradient(*given)
        cotangent = torch.tensor(2.0, requires_grad=True)
        checks = ("test_schema", "test_faketensor")
        opcheck(operators.gradient, (text, constants, arrays, wanted, made, cotangent), test_utils=checks)
        opcheck(operators.gradient, (text, constants, arrays, wanted, [], cotangent), test_utils=checks)


def rows_of(call: Call) -> list[int]:
    """The rows of each array, in the order of `where` and `ignore`: that of the arguments, keys last."""
    return [len(x) for x in call.arrays.values()]


def some(*shape: int) -> Any:
    """Booleans, about half of them true."""
    import torch

    return torch.tensor(np.random.default_rng(sum(shape)).random(shape) < 0.5)


def a_group_each(call: Call) -> tuple[Any, None]:
    import torch

    rows = rows_of(call)
    own = torch.arange(rows[0]) // 2
    views = call.labels is None and "negatives" not in call.arrays
    apart = "keys" in call.arrays or "negatives" in call.arrays
    groups = (
        (own,) * (len(rows) - 1) + (torch.arange(rows[-1]) // 3,) if apart else (own,) * len(rows) if views else own
    )
    return {"ignore": ss.same(groups)}, None


def pairs_of(call: Call) -> tuple[int, int]:
    """The shape of a matrix of pairs."""
    rows = rows_of(call)
    return rows[0], rows[-1]


def classes_of(call: Call) -> Any:
    hot = [some(rows, 3) for rows in rows_of(call)]
    return tuple(hot) if len(hot) > 1 else hot[0]


def float32(x: Any) -> Any:
    import torch

    return x.to(torch.float32)


def ids_of(call: Call) -> tuple[Any, None]:
    import torch

    rows = rows_of(call)
    ids = {"ids": torch.arange(rows[0]) // 2}
    return ids | ({"key_ids": torch.arange(rows[1]) // 2} if len(rows) > 1 else {}), None


RELATIONS: dict[str, Callable[[Call], tuple[dict[str, Any], Any]]] = {
    "same": a_group_each,
    "where": lambda call: ({"where": tuple(some(rows) for rows in rows_of(call))}, None),
    "matrix": lambda call: ({"ignore": some(*pairs_of(call))}, None),
    "several": lambda call: ({"ignore": (some(*pairs_of(call)), a_group_each(call)[0]["ignore"])}, None),
    "guide": lambda call: ({"ignore": ss.guide(*(float32(some(rows, 3)) for rows in rows_of(call)))}, None),
    "ids": ids_of,
    "positives": lambda call: ({}, ss.positives(some(*pairs_of(call)))),
    "weights": lambda call: ({}, ss.positives(float32(some(*pairs_of(call))) * 0.5)),
    "any": lambda call: ({}, ss.overlap(classes_of(call), "any")),
    "jaccard": lambda call: ({}, ss.overlap(classes_of(call), "jaccard")),
}
"""By relation the keywords of a call of the catalogue, and what stands in the place of its labels, if anything does."""


def related(name: str) -> list[str]:
    """The relations that a record takes: weights are for SupCon, and a guide wants a row's own pair."""
    call = RECORDS[name]
    if call.name == "f_micl" and name not in ("f_micl_kl", "f_micl_queue"):  # its divergences differ in the fold alone
        return []
    if call.labels is None:
        guide = ["guide"] if len(call.arrays) == 2 or "negatives" in call.arrays else []
        return ["same", "where", "matrix", "several", *guide]
    weights = ["weights", "jaccard"] if call.loss.name == "supcon" else []
    return ["same", "where", "matrix", "several", "ids", "positives", "any", *weights]


@pytest.mark.parametrize(("name", "relation"), [(name, relation) for name in RECORDS for relation in related(name)])
def test_opcheck_by_relation(name: str, relation: str) -> None:
    import torch
    from torch.library import opcheck

    from sincere_spec.backends.torch import operators

    given = operands(name, "float32", relation)
    opcheck(operators.value_and_gradient, given)
    checks = ("test_schema", "test_faketensor")
    opcheck(operators.gradient, (*given, [], torch.tensor(2.0, requires_grad=True)), test_utils=checks)


def test_opcheck_of_the_gradient_s_derivative() -> None:
    import torch
    from torch.library import opcheck

    from sincere_spec.backends.torch import operators

    text, constants, arrays, wanted = operands("clip", "float64")
    _, *made = operators.value_and_gradient(text, constants, arrays, wanted)
    opcheck(
        operators.gradient,
        (text, constants, arrays, wanted, made, torch.tensor(2.0, dtype=torch.float64, requires_grad=True)),
    )


def test_gradients_that_nobody_gives_a_cotangent_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """With zeros for them, a compiled backward computes the Hessian's product with 0."""
    from sincere_spec.call.steps import Steps

    def exact(self: Steps, *arrays: Any) -> Any:
        raise AssertionError("the composite is for second derivatives")

    monkeypatch.setattr(Steps, "exact", exact)
    program, _ = compiled(LOSSES["sincere"])
    value_and_gradient(program, *batch(300), 0.1)


def test_a_backward_of_another_version_is_not_taken_from_the_disk(tmp_path: Path) -> None:
    """AOTAutograd keeps traced backwards on disk; the version in the operator's text is what tells them apart."""
    code = """
import torch, sincere_spec as ss
from sincere_spec.backends.torch import operators
{change}
z, y = torch.randn(300, 8, generator=torch.Generator().manual_seed(0)).requires_grad_(), torch.arange(300) % 7
program = torch.compile(lambda z, y: ss.sincere_loss(z, y, 0.1), fullgraph=True, backend="aot_eager_decomp_partition")
program(z, y).backward()
g = z.grad.clone(); z.grad = None
ss.sincere_loss(z, y, 0.1).backward()
print(round(float((g * z.grad).sum() / (z.grad * z.grad).sum()), 3))
"""
    wrong = """
operators.VERSION = "older"
right = operators.gradient
operators.gradient = lambda *given: [2.0 * x for x in right(*given)]
"""
    assert python(code.format(change=wrong), tmp_path) == "2.0"
    assert python(code.format(change=""), tmp_path) == "1.0"


# --- nothing in silence ---------------------------------------------------------------------------------------------------


def test_a_gradient_penalty_through_a_compiled_program_is_refused_by_pytorch() -> None:
    import torch

    program, _ = compiled(LOSSES["sincere"])
    z, y = batch(300)
    with torch._functorch.config.patch(donated_buffer=False):
        (gradient,) = torch.autograd.grad(program(z, y, 0.1), z, create_graph=True)
    assert gradient.requires_grad
    with pytest.raises(RuntimeError, match="does not currently support double backward"):
        torch.autograd.grad((gradient**2).sum(), z)


def test_forward_mode_through_a_compiled_program_is_refused() -> None:
    import torch
    from torch.autograd import forward_ad

    program, _ = compiled(LOSSES["sincere"])
    z, y = batch(300)
    program(z.detach(), y, 0.1)
    with forward_ad.dual_level(), pytest.raises(ss.EngineUnavailable, match="call the loss itself"):
        program(forward_ad.make_dual(z.detach(), torch.ones_like(z)), y, 0.1)


@pytest.mark.parametrize("transform", ["jvp", "grad", "vmap"])
def test_torch_func_does_not_enter_an_exported_program(transform: str) -> None:
    import torch

    z, y = batch(300)
    z = z.detach()
    program = torch.export.export(Module(lambda z, y: ss.sincere_loss(z, y)), (z, y), strict=False).module()
    runs = {
        "jvp": lambda: torch.func.jvp(lambda z: program(z, y), (z,), (torch.ones_like(z),)),
        "grad": lambda: torch.func.grad(lambda z: program(z, y))(z),
        "vmap": lambda: torch.func.vmap(lambda z: program(z, y))(torch.stack([z, -z])),
    }
    with pytest.raises(ss.EngineUnavailable, match="transform the loss itself"):
        runs[transform]()


def ones(*shape: int) -> Any:
    import torch

    return torch.ones(shape)


REFUSALS: dict[str, Any] = {
    "labels of another length": lambda z, y: ss.sincere_loss(z, y[:-1]),
    "labels as a NumPy array": lambda z, y: ss.sincere_loss(z, y.numpy()),
    "embeddings as a NumPy array": lambda z, y: ss.sincere_loss(z.detach().numpy(), y),
    "labels that are no integers": lambda z, y: ss.sincere_loss(z, y + 0.5),
    "groups in place of labels": lambda z, y: ss.sincere_loss(z, ss.same(y)),
    "an engine that there is not": lambda z, y: ss.sincere_loss(z, y, engine="tile"),
    "a keyword that there is not": lambda z, y: ss.evaluate(ss.losses.sincere(), z, y, temperatur=1.0),
    "a reduction that there is not": lambda z, y: ss.sincere_loss(z, y, reduction="total"),
    "a tile of nothing": lambda z, y: ss.sincere_loss(z, y, tile=len(z) - 300),
    "a negative temperature": lambda z, y: ss.sincere_loss(z, y, -1.0),
    "a temperature that float32 does not hold": lambda z, y: ss.sincere_loss(z, y, 1e-300),
    "a mask of another length": lambda z, y: ss.sincere_loss(z, y, where=ones(20) > 0.0),
    "a mask of numbers": lambda z, y: ss.sincere_loss(z, y, where=y),
    "positives of another shape": lambda z, y: ss.sincere_loss(z, ss.positives(ones(300, 200) > 0.0)),
    "weights where there may be none": lambda z, y: ss.sincere_loss(z, ss.positives(ones(300, 300))),
    "positives to leave out": lambda z, y: ss.clip_loss(z, z, ignore=ss.positives(ones(300, 300) > 0.0)),
    "key labels beside positives": lambda z, y: ss.sincere_loss(
        z, ss.positives(ones(300, 300) > 0.0), keys=z, key_labels=y
    ),
    "another kind of overlap": lambda z, y: ss.supcon_loss(z, ss.overlap(ones(300, 3), "all")),
    "a guide without an own pair": lambda z, y: ss.sincere_loss(z, y, ignore=ss.guide(z, z)),
    "rows of two widths": lambda z, y: ss.clip_loss(z, z[:, 1:]),
}


@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`:UserWarning")
@pytest.mark.parametrize("what", REFUSALS)
def test_what_is_refused_inside_a_program_is_refused_in_our_words(what: str) -> None:
    """torch.compile raises an error of its own in their place, which says them; without fullgraph they come as they are."""
    import torch

    torch.compiler.reset()
    program = torch.compile(REFUSALS[what], fullgraph=True, dynamic=True, backend="eager")
    with pytest.raises(torch._dynamo.exc.Unsupported) as caught:
        program(*batch(300))
    said, kinds = str(caught.value), "|".join(kind.__name__ for kind in ss.SincereSpecError.__subclasses__())
    if torch.__version__ >= (2, 12):
        pieces = re.findall(rf"raised exception (?:{kinds})\((['\"])(.*)\1\)", said)
    elif re.search(rf"raised exception (?:{kinds})\(", said):
        pieces = re.findall(r"ConstantVariable\(str: (['\"])(.*?)\1\)", said)  # all of the message but what tuples say
    else:
        pytest.skip("this version of PyTorch cannot trace how the message is made")
    words = [re.sub(r"s\d+", "300", piece.replace("\\'", "'")) for _, piece in pieces]  # a size has a symbol there
    if "NumPy" in what or "no integers" in what:  # which an eager call takes, or can say more of
        assert "convert" in words[-1]
        return
    with pytest.raises(ss.SincereSpecError) as eager:
        REFUSALS[what](*batch(300))
    assert words
    assert re.fullmatch(".*".join(map(re.escape, words)), str(eager.value))


@pytest.mark.parametrize("what", ["a learnt temperature", "a list of labels"])
def test_the_first_call_of_a_process_may_be_compiled_with_what_is_no_plain_tensor(what: str, tmp_path: Path) -> None:
    """Another type of argument is looked up while the call is traced, after the first one was."""
    code = f"""
import torch, sincere_spec as ss
z, y, t = torch.randn(300, 8), torch.arange(300) % 7, torch.nn.Parameter(torch.tensor(0.2))
def loss(z, y, t):
    return ss.sincere_loss(z, [0, 1, 2] * 100, 0.2) if {what == "a list of labels"} else ss.sincere_loss(z, y, t)
value = torch.compile(loss, fullgraph=True, backend="eager")(z, y, t)
print(bool(torch.isclose(value, loss(z, y, t))))
"""
    assert python(code, tmp_path) == "True"


# --- export ---------------------------------------------------------------------------------------------------------------


def Module(loss: Any) -> Any:
    """A function as a module."""
    import torch

    class Made(torch.nn.Module):
        def forward(self, *arguments: Any) -> Any:
            return loss(*arguments)

    return Made()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("strict", [True, False], ids=["strict", "non-strict"])
def test_an_exported_program_is_saved_loaded_and_run_at_any_size(strict: bool, name: str, tmp_path: Path) -> None:
    """It was exported without gradients, and has them all the same; derivatives of these are the composite's."""
    import torch

    def loss(z: Any, y: Any) -> Any:
        return LOSSES[name](z, y, 0.2)

    z, y = batch(40)
    rows = torch.export.Dim("rows", min=2)
    program = torch.export.export(
        Module(loss), (z.detach(), y), dynamic_shapes=(({0: rows}, {0: rows}),), strict=strict
    )
    torch.export.save(program, tmp_path / "loss.pt2")
    again = torch.export.load(tmp_path / "loss.pt2").module()
    for size in (10, 500, 2000):
        given = batch(size, size)
        got, want = value_and_gradient(again, *given), value_and_gradient(loss, *given)
        assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True)), size
    penalties = []
    for f in (again, loss):
        (gradient,) = torch.autograd.grad(f(z, y), z, create_graph=True)
        penalties.append(torch.autograd.grad((gradient**2).sum(), z)[0])
    torch.testing.assert_close(*penalties)


# --- shapes alone ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [8, 4096, 40000])
@pytest.mark.parametrize("kind", ["meta", "fake"])
def test_shapes_without_values(kind: str, rows: int) -> None:
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    device = "meta" if kind == "meta" else "cpu"
    with FakeTensorMode() if kind == "fake" else torch.no_grad(), torch.enable_grad():
        z = torch.empty(rows, 16, device=device, requires_grad=True)
        y = torch.empty(rows, dtype=torch.int64, device=device)
        for loss in LOSSES.values():
            z.grad = None
            value = loss(z, y, 0.1)
            value.backward()
            assert value.shape == ()
            assert z.grad.shape == z.shape
        assert ss.sincere_loss(z, y, engine="tiled").shape == ()
        assert "when it runs" in str(ss.explain(ss.losses.sincere(), z, y))


# --- promises inside a program --------------------------------------------------------------------------------------------


def test_half_precision_is_scaled_before_it_is_rounded() -> None:
    """A gradient of 1e-7 is nothing in float16, and 1e-3 after the scale of mixed precision."""
    import torch

    program, _ = compiled(lambda z, y: ss.sincere_loss(z, y))
    z, y = batch(300, dtype="float16")
    got, want = (torch.autograd.grad(2.0**14 * f(z, y), z)[0] for f in (program, ss.sincere_loss))
    assert torch.equal(got, want)
    assert float(got.abs().max()) > 1e-3


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_inside_a_program(reentrant: bool) -> None:
    import torch
    from torch.utils.checkpoint import checkpoint

    def loss(z: Any, y: Any) -> Any:
        return checkpoint(lambda z: ss.sincere_loss(z * 2.0, y), z, use_reentrant=reentrant)

    program = torch.compile(loss, backend="aot_eager", dynamic=True, fullgraph=not reentrant)
    torch.testing.assert_close(
        value_and_gradient(program, *batch(300)), value_and_gradient(ss.sincere_loss, *batch(300))
    )


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_autocast_around_a_program_changes_nothing(kind: str) -> None:
    import torch

    program, _ = compiled(lambda z, y: ss.sincere_loss(z, y))
    with torch.autocast("cpu", dtype=getattr(torch, kind)):
        got = value_and_gradient(program, *batch(300))
    want = value_and_gradient(ss.sincere_loss, *batch(300))
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def test_value_and_gradient_inside_a_program() -> None:
    import torch

    def both(z: Any, y: Any) -> Any:
        return ss.value_and_gradient(ss.losses.sincere(), z, y)

    program, _ = compiled(both)
    z, y = batch(300)
    for got, want in zip(program(z, y), both(z, y), strict=True):
        assert torch.equal(got, want)
        assert not got.requires_grad


MEMORY = """
import sys, torch, resource
import sincere_spec as ss
from sincere_spec.spec import Combine, Fold, Labelled, PairLoss, Pairs, Similarity, Stage, Term
torch.set_num_threads(1)
n, d = 16384, 128
losses = {{
    "sincere": lambda z, y: ss.sincere_loss(z, y),
    "supcon": lambda z, y: ss.supcon_loss(z, y),
    "nt_xent": lambda z, y: ss.nt_xent_loss(z[: len(z) // 2], z[len(z) // 2 :]),
    "clip": lambda z, y: ss.clip_loss(z, z.flip(0)),
}}
loss = losses["{name}"]
program = torch.compile(loss, fullgraph=True, dynamic=True, backend="aot_eager")
def step(n):
    z, y = torch.randn(n, d, requires_grad=True), torch.arange(n) % 100
    open("/proc/self/clear_refs", "w").write("5")
    before = int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
    program(z, y).backward()
    (peak,) = [int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM")]
    return peak - before
step(512)
print(step(n))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of a step is read from Linux' /proc")
@pytest.mark.parametrize("name", LOSSES)
def test_a_compiled_step_of_16384_rows_holds_no_matrix(name: str, tmp_path: Path) -> None:
    """Beside its inputs 4 N D numbers and 64 MB; the matrix alone would be 1 GB."""
    assert int(python(MEMORY.format(name=name), tmp_path)) < 64e6 + 4 * 16384 * 128 * 4


# --- losses by row --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["auto", "tiled"])
@pytest.mark.parametrize("way", ["compile", "export", "func"])
@pytest.mark.parametrize("name", ["sincere", "clip"])
def test_losses_by_row(name: str, way: str, engine: str) -> None:
    """Under a cotangent, which the operator of the gradient takes; the statistics of the rows are made again there."""
    import torch

    def loss(z: Any) -> Any:
        return of_embeddings(name, reduction="none", engine=engine)(z)

    z = batch(300, dtype="float64")[0]
    cotangent = torch.cos(torch.arange(600 if name == "clip" else 300, dtype=torch.float64))
    want = loss(z)
    (gradient,) = torch.autograd.grad(want, z, cotangent)
    if way == "func":
        got, pull = torch.func.vjp(loss, z.detach())
        (found,) = pull(cotangent)
        tangent = torch.func.jvp(loss, (z.detach(),), (gradient,))[1]
        torch.testing.assert_close((tangent * cotangent).sum(), (gradient * gradient).sum())
    else:
        if way == "compile":
            program, _ = compiled(loss)
            program(batch(40)[0])
        else:
            rows = torch.export.Dim("rows", min=2)
            example = batch(100, dtype="float64")[0].detach()
            program = torch.export.export(Module(loss), (example,), dynamic_shapes=(({0: rows},),)).module()
        got = program(z)
        (found,) = torch.autograd.grad(got, z, cotangent)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=0.0)
    torch.testing.assert_close(found, gradient, rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("name", ["sincere", "clip", "nt_xent"])
def test_opcheck_of_losses_by_row(name: str) -> None:
    import torch
    from torch.library import opcheck

    from sincere_spec.backends.torch import operators

    text, constants, arrays, wanted = operands(name, "float64", reduction="none")
    opcheck(operators.value_and_gradient, (text, constants, arrays, [False] * len(arrays)))
    (rows,) = operators.value_and_gradient(text, constants, arrays, [False] * len(arrays))
    opcheck(operators.gradient, (text, constants, arrays, wanted, [], torch.rand_like(rows).requires_grad_()))


# --- torch.func -----------------------------------------------------------------------------------------------------------


def of_embeddings(name: str, **options: Any) -> Any:
    """A loss as a function of embeddings alone, and of other labels for another number of rows."""
    import torch

    call = {
        "sincere": lambda z, y: ss.sincere_loss(z, y, 0.5, **options),
        "supcon": lambda z, y: ss.supcon_loss(z, y, 0.5, **options),
        "nt_xent": lambda z, y: ss.nt_xent_loss(z, z.flip(1), temperature=0.5, **options),
        "clip": lambda z, y: ss.clip_loss(z, z.flip(1), temperature=0.5, **options),
        "dystress": lambda z, y: ss.dystress_loss(z, z.flip(1), **options),
    }[name]
    return lambda z: call(z, torch.arange(z.shape[0]) % 3)


@pytest.mark.parametrize("name", ["sincere", "supcon", "nt_xent", "clip", "dystress"])
def test_transforms_of_torch_func_with_tiles(name: str) -> None:
    """DySTreSS holds a part of its logit constant, so that its second derivative is not symmetric."""
    import torch
    from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

    z, t = (batch(12, seed, "float64")[0].detach()[:, :3] for seed in (1, 2))
    transforms: dict[str, Any] = {
        "grad": lambda f: grad(f)(z),
        "vjp": lambda f: vjp(f, z)[1](torch.tensor(2.0, dtype=z.dtype))[0],
        "jvp": lambda f: jvp(f, (z,), (t,))[1],
        "vmap": lambda f: vmap(f, in_dims=1)(torch.stack([z, t], dim=1)),
        "vmap of grad": lambda f: vmap(grad(f))(torch.stack([z, t])),
        "grad of vmap": lambda f: grad(lambda b: (vmap(f)(b) ** 2).sum())(torch.stack([z, t])),
        "jacrev of grad": lambda f: jacrev(grad(f))(z),
        "jacfwd of grad": lambda f: jacfwd(grad(f))(z),
        "hessian": lambda f: hessian(f)(z),
        "grad of jvp": lambda f: grad(lambda z: jvp(f, (z,), (t,))[1])(z),
        "third": lambda f: grad(lambda z: (grad(lambda z: (grad(f)(z) * t).sum())(z) * t).sum())(z),
    }
    want, found = (of_embeddings(name, **options) for options in ({"engine": "dense"}, {"engine": "tiled", "tile": 5}))
    for transform, run in transforms.items():
        torch.testing.assert_close(run(found), run(want), msg=lambda m, transform=transform: f"{transform}: {m}")


def test_forward_mode_inside_forward_mode_is_dense_and_refuses_tiles_by_name() -> None:
    """PyTorch would answer a derivative of 0."""
    from torch.func import hessian, jvp

    z, t = (batch(12, seed, "float64")[0].detach() for seed in (1, 2))

    def twice(**options: Any) -> Any:
        f = of_embeddings("sincere", **options)
        return jvp(lambda z: jvp(f, (z,), (t,))[1], (z,), (t,))[1]

    found = hessian(of_embeddings("sincere"))(z)
    np.testing.assert_allclose(twice(), (t.ravel() @ found.reshape(96, 96) @ t.ravel()))
    with pytest.raises(ss.EngineUnavailable, match=r'"tiled" was asked for, but torch.func.jvp inside torch.func.jvp'):
        twice(engine="tiled")


def test_torch_func_holds_no_matrix_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from sincere_spec.engines import dense

    def whole(*_: Any) -> Any:
        raise AssertionError("a matrix")

    z, plans = batch(1800)[0].detach(), []

    def loss(z: Any) -> Any:
        plans.append(ss.explain(ss.losses.sincere(), z, torch.arange(1800) % 7))
        return ss.sincere_loss(z, torch.arange(1800) % 7)

    want = value_and_gradient(loss, z.clone().requires_grad_())
    monkeypatch.setattr(dense, "value", whole)
    monkeypatch.setattr(dense, "value_and_gradient", whole)
    gradient, value = torch.func.grad_and_value(loss)(z)
    torch.testing.assert_close((value, gradient), want)
    assert str(plans[-1]).startswith("torch, engine chosen when it runs: transforms of torch.func")


def test_a_compiled_transform_is_dense_and_refuses_tiles_by_name() -> None:
    import torch

    z = batch(300)[0].detach()
    program, _ = compiled(torch.func.grad(of_embeddings("sincere")))
    torch.testing.assert_close(program(z), torch.func.grad(of_embeddings("sincere"))(z))
    program, _ = compiled(torch.func.grad(of_embeddings("sincere", engine="tiled")))
    with pytest.raises(Exception, match=r'"tiled" was asked for, but torch.compile cannot trace it inside transforms'):
        program(z)
