"""The modules of `sincere_spec.torch`, and what PyTorch does with a loss: compile, export, transform, cast, distribute."""

from __future__ import annotations

import copy
import inspect
import pickle
import shutil
from math import log
from typing import Any

import numpy as np
import pytest
from catalogue import CALLS, distance, rule
from frameworks import load

import sincere_spec as ss
from sincere_spec import losses

pytestmark = pytest.mark.framework("torch")

KINDS = {loss.name: loss.class_name for loss in losses.table.TABLE}
LEARNABLE = [loss.name for loss in losses.table.TABLE if "temperature" in inspect.signature(loss.record).parameters]


def kind(name: str) -> Any:
    """A class of `sincere_spec.torch`."""
    import sincere_spec.torch

    return getattr(sincere_spec.torch, name)


def module(name: str, **options: Any) -> Any:
    """The module of a call of the catalogue."""
    call = CALLS[name]
    return kind(KINDS[call.name])(**call.own, **options)


def given(name: str, dtype: str = "float64", repeats: int = 1) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of the call, as leaves that want gradients; repeated, for another number of rows."""
    import torch

    call, here = CALLS[name], load("torch")
    arrays = {a: np.concatenate([x * (1.0 + 0.25 * i) for i in range(repeats)]) for a, x in call.arrays.items()}
    leaves = {argument: x.requires_grad_() for argument, x in here.arrays(arrays, dtype).items()}
    positional, keywords = call.arguments(leaves)
    if call.labels is not None:
        positional[1] = torch.tensor(call.labels * repeats)
    return positional, keywords


def run(f: Any, positional: list[Any], keywords: dict[str, Any]) -> list[Any]:
    """The value, and the gradient by every array of the call and by every parameter of the module."""
    import torch

    value = f(*positional, **keywords)
    wanted = [x for x in (*positional, *keywords.values()) if isinstance(x, torch.Tensor) and x.requires_grad]
    wanted += f.parameters() if isinstance(f, torch.nn.Module) else []
    return [value.detach(), *torch.autograd.grad(value, wanted)]


def assert_near(got: list[Any], want: list[Any], dtype: str = "float64") -> None:
    here = load("torch")
    assert len(got) == len(want)
    for x, y in zip(got, want):
        assert distance(here.numbers(x), here.numbers(y)) <= rule(dtype, 0.2)


# --- the modules ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CALLS)
def test_a_module_is_its_function(name: str) -> None:
    """The same record; value and gradient then are bitwise those of `evaluate`, under any reduction."""
    import torch

    loss, (positional, keywords) = module(name, reduction="sum"), given(name)
    assert loss.record == CALLS[name].loss
    got = run(loss, positional, keywords)
    want = run(lambda *p, **k: ss.evaluate(CALLS[name].loss, *p, reduction="sum", **k), positional, keywords)
    assert all(torch.equal(x, y) for x, y in zip(got, want, strict=True))


@pytest.mark.parametrize("name", KINDS)
def test_a_constructor_has_the_keywords_and_the_defaults_of_the_function(name: str) -> None:
    function = inspect.signature(getattr(ss, f"{name}_loss")).parameters
    arrays = [p for p in function if function[p].default is inspect.Parameter.empty]
    arrays += [p for p in ("negatives", "keys", "key_labels", "ids", "key_ids", "where", "ignore") if p in function]
    defaults = {p: function[p].default for p in function if p not in arrays}

    loss = kind(KINDS[name])()
    assert {
        **loss.own,
        **{p: getattr(loss, p) for p in ("normalize", "reduction", "engine", "tile", "across")},
    } == defaults
    assert kind(KINDS[name])(**defaults).record == getattr(losses, name)()
    assert list(inspect.signature(loss.forward).parameters) == arrays


def test_every_module_is_public_and_documented() -> None:
    import sincere_spec.torch

    assert set(sincere_spec.torch.__all__) == set(KINDS.values())
    for name in sincere_spec.torch.__all__:
        doc, loss = inspect.getdoc(kind(name)), kind(name)()
        assert ">>>" in doc
        described = {line.strip().partition(":")[0] for line in doc.splitlines() if line.startswith("    ")}
        assert {*loss.own, "normalize", "reduction", "engine", "tile"} <= described


def test_options_and_keywords_reach_the_function(monkeypatch: pytest.MonkeyPatch) -> None:
    import sincere_spec.torch

    monkeypatch.setattr(sincere_spec.torch, "evaluate", lambda *arguments, **keywords: (arguments, keywords))
    options = {"normalize": False, "reduction": "none", "engine": "tiled", "tile": 4, "across": "g"}
    keywords = {"keys": "k", "key_labels": "m", "ids": "i", "key_ids": "j", "where": "w", "ignore": "g"}
    loss = module("sincere", **options)
    assert loss("z", "y", **keywords) == ((loss.record, "z", "y"), {"temperature": 0.2, **keywords, **options})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"temperature": "cold"}, "temperature must be a Python number"),
        ({"temperature": 1e-3, "learnable_temperature": True}, "at least 0.01"),
        ({"learnable_temperature": 0.07}, "learnable_temperature must be True or False"),
        ({"epsilon": float("nan")}, "epsilon must be a finite number"),
        ({"normalize": 1}, "normalize must be True or False"),
        ({"reduction": "avg"}, "reduction must be one of"),
        ({"engine": "dens"}, 'did you mean "dense"'),
        ({"tile": 0}, "tile must be a positive integer"),
    ],
    ids=lambda case: "-".join(case) if isinstance(case, dict) else "",
)
def test_bad_options_are_refused_at_construction(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ss.OptionError, match=words):
        kind("SincereLoss")(**options)


def test_keywords_that_a_module_does_not_have_are_refused_at_construction() -> None:
    import torch

    for name, options in {
        "CLIPLoss": {"temprature": 0.1},
        "DySTreSSLoss": {"learnable_temperature": True},
        "FMICLLoss": {"learnable_temperature": True},
    }.items():
        with pytest.raises(ss.SignatureError, match=rf"^{name}\(\) got an unexpected keyword.*{next(iter(options))}"):
            kind(name)(**options)
    with pytest.raises(ss.SignatureError, match=r"^SincereLoss.*'temprature': did you mean 'temperature'"):
        kind("SincereLoss")(temprature=0.1)
    with pytest.raises(ss.DtypeError, match=r'SincereLoss\(reduction="pairs"\)'):
        kind("NTXentLoss")()(torch.eye(4), torch.tensor([0, 0, 1, 1]))
    with pytest.raises(ss.OptionError, match="learnable_temperature=True"):
        kind("CLIPLoss")(torch.tensor(0.1))
    with pytest.raises(ss.OptionError, match="learnable_bias=True"):
        kind("SigLIPLoss")(bias=torch.tensor(-10.0))


def test_an_engine_that_cannot_serve_is_refused_by_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the module will be called, and on what device, its constructor cannot know."""
    from sincere_spec.backends.torch import TorchBackend

    loss = module("clip", engine="kernel")
    monkeypatch.setattr(TorchBackend, "kernels", lambda self, like, logit: "this is a test")
    with pytest.raises(ss.EngineUnavailable, match=r'"kernel" was asked for, but this is a test; engine="tiled"'):
        loss(*given("clip")[0])


@pytest.mark.parametrize("name", KINDS)
def test_the_repr_is_the_constructor_s_call(name: str) -> None:
    import sincere_spec.torch

    options = {"learnable_temperature": True} if name in LEARNABLE else {}
    loss = kind(KINDS[name])(reduction="sum", tile=128, **options)
    again = eval(repr(loss), vars(sincere_spec.torch))
    assert repr(again) == repr(loss)
    assert again.record == loss.record
    assert again.state_dict() == loss.state_dict()
    assert "reduction='sum'" in repr(loss)


@pytest.mark.parametrize("learnable", [False, True])
@pytest.mark.parametrize("way", ["pickle", "deepcopy", "state dict"])
def test_a_module_is_kept(way: str, learnable: bool) -> None:
    import torch

    options = {"learnable_temperature": learnable, "learnable_bias": learnable}
    loss = module("siglip", **options)
    with torch.no_grad():
        for parameter in loss.parameters():
            parameter += 0.5
    if way == "pickle":
        again = pickle.loads(pickle.dumps(loss))
    elif way == "deepcopy":
        again = copy.deepcopy(loss)
    else:
        again = module("siglip", **options)
        again.load_state_dict(loss.state_dict())
    assert list(again.state_dict()) == (["logit_scale", "logit_bias"] if learnable else [])
    positional, _ = given("siglip")
    assert torch.equal(again(*positional), loss(*positional))


# --- learnt temperatures --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LEARNABLE)
def test_a_learnable_temperature_starts_as_clip_s(name: str) -> None:
    import torch

    loss = kind(KINDS[name])(temperature=0.07, learnable_temperature=True)
    assert isinstance(loss.logit_scale, torch.nn.Parameter)
    assert loss.logit_scale.shape == (1,)
    assert loss.temperature.shape == ()
    assert loss.logit_scale.item() == pytest.approx(log(1.0 / 0.07))
    assert loss.temperature.item() == pytest.approx(0.07)
    assert loss.double().temperature.dtype is torch.float64
    assert kind(KINDS[name])(temperature=0.07).temperature == 0.07


@pytest.mark.parametrize("name", ["sincere", "info_nce_queue", "nt_xent", "siglip"])
def test_the_gradient_of_the_logarithm_of_the_scale(name: str) -> None:
    """With s = log(1 / t), dL/ds = -t dL/dt; and SigLIP's bias has its own."""
    call = CALLS[name]
    options = {"learnable_bias": True} if name == "siglip" else {}
    loss = module(name, learnable_temperature=True, **options).double()
    _, *got = run(loss, *given(name))
    _, want = call.with_parameters().value_and_gradient(call.with_parameters().arrays)
    wanted = [want[argument] for argument in call.arrays] + [-0.2 * want["temperature"]]
    wanted += [want["bias"]] if name == "siglip" else []
    here = load("torch")
    for x, y in zip(got, wanted, strict=True):
        assert (
            distance(here.numbers(x.reshape(y.shape)), y) <= 1e-6
        )  # the parameter was rounded to float32 when it was made


def test_a_learnable_temperature_trains() -> None:
    import torch

    loss = module("siglip", learnable_temperature=True, learnable_bias=True)
    start = copy.deepcopy(loss.state_dict())
    positional, _ = given("siglip", "float32")
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.05)
    values = []
    for _ in range(20):
        optimizer.zero_grad()
        value = loss(*positional)
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < values[0]
    assert all(loss.state_dict()[name] != start[name] for name in ("logit_scale", "logit_bias"))


def test_the_scale_is_clamped_to_one_hundred_and_comes_back() -> None:
    """Beyond the limit the value is that of the limit, and of the gradients only those that lead back are passed."""
    import torch

    loss = kind("CLIPLoss")(temperature=0.011, learnable_temperature=True)
    close = torch.ones(4, 4) + 0.1 * torch.eye(4)
    matching = close, close  # asks for a larger scale
    others = close, close.roll(1, 0)  # and these for a smaller

    def slope(pair: tuple[Any, Any]) -> float:
        (found,) = torch.autograd.grad(loss(*pair), loss.logit_scale)
        return found.item()

    def set_scale(logarithm: float) -> None:
        with torch.no_grad():
            loss.logit_scale.fill_(logarithm)

    assert slope(matching) < -0.01
    set_scale(log(100.0))
    limit, back = loss(*others), slope(others)
    assert back > 0.01
    set_scale(log(100.0) + 0.5)
    assert loss.temperature.item() == pytest.approx(0.01)
    assert torch.equal(loss(*others), limit)
    assert slope(matching) == 0.0
    assert slope(others) == back
    loss(*others).backward()
    torch.optim.SGD(loss.parameters(), lr=1.0 / back).step()
    assert loss.logit_scale.item() == pytest.approx(log(100.0) - 0.5)


# --- what PyTorch does with them: here with a parameter, and with arrays in tests/test_transforms.py ------------------------


def learning(name: str, dtype: str = "float64", **options: Any) -> Any:
    """The module of a call, with a learnt temperature if it has one."""
    import torch

    if CALLS[name].name != "f_micl":
        options["learnable_temperature"] = True
    return module(name, **options).to(getattr(torch, dtype))


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # torch's own, on tracing a Function
def test_compiled_whole_it_is_what_it_is_eager() -> None:
    """Once for any number of rows; the temperature is an argument of the graph."""
    import torch

    torch.compiler.reset()
    loss = learning("clip")
    compiled = torch.compile(loss, fullgraph=True, dynamic=True, backend="aot_eager")
    assert_near(run(compiled, *given("clip")), run(loss, *given("clip")))
    with torch.no_grad():
        for parameter in loss.parameters():
            parameter += 0.25
    with torch.compiler.set_stance("fail_on_recompile"):
        assert_near(run(compiled, *given("clip", repeats=2)), run(loss, *given("clip", repeats=2)))


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile's own backend needs a C++ compiler")
def test_compiled_to_machine_code() -> None:
    import torch

    torch.compiler.reset()
    loss = learning("sincere")
    compiled = torch.compile(loss, fullgraph=True)
    assert_near(run(compiled, *given("sincere")), run(loss, *given("sincere")))


def test_exported_with_any_number_of_rows() -> None:
    import torch

    loss, (positional, _) = learning("clip"), given("clip")
    rows = torch.export.Dim("rows", min=2)
    program = torch.export.export(loss, tuple(positional), dynamic_shapes=({0: rows}, {0: rows}))
    again, _ = given("clip", repeats=2)
    assert_near(run(program.module(), again, {}), run(loss, again, {}))


def loss_of(loss: Any, positional: list[Any], keywords: dict[str, Any]) -> tuple[Any, tuple[Any, ...]]:
    """The value as a function of the arrays and of the parameters, and these."""
    import torch

    slots = [i for i, x in enumerate(positional) if isinstance(x, torch.Tensor) and x.requires_grad]
    names = [name for name, _ in loss.named_parameters()]

    def f(*arrays: Any) -> Any:
        inputs = list(positional)
        for slot, x in zip(slots, arrays):
            inputs[slot] = x
        parameters = dict(zip(names, arrays[len(slots) :]))
        return torch.func.functional_call(loss, parameters, tuple(inputs), keywords)

    return f, tuple(x.detach() for x in (*(positional[i] for i in slots), *loss.parameters()))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_forward_mode_and_hessians_of_torch_func() -> None:
    """By the embeddings; of a learnt temperature forward mode has no rule, and says so."""
    import torch

    loss, (positional, keywords) = learning("clip"), given("clip")
    f, inputs = loss_of(loss, positional, keywords)
    parameters = inputs[len(inputs) - len(list(loss.parameters())) :]
    arrays = inputs[: len(inputs) - len(parameters)]

    def of_arrays(*x: Any) -> Any:
        return f(*x, *parameters)

    along = tuple(torch.cos(torch.arange(x.numel(), dtype=x.dtype)).reshape(x.shape) for x in arrays)
    gradients = torch.func.grad(of_arrays, argnums=tuple(range(len(arrays))))
    value, tangent = torch.func.jvp(of_arrays, arrays, along)
    want = sum((g * t).sum() for g, t in zip(gradients(*arrays), along))
    assert_near([value, tangent], [f(*inputs), want])

    hessian = torch.func.hessian(of_arrays)(*arrays)
    size, h = arrays[0].numel(), 1e-5
    moved = [gradients(arrays[0] + s * h * along[0], *arrays[1:])[0] for s in (1.0, -1.0)]
    product = hessian.reshape(size, size) @ along[0].reshape(size)
    assert distance(product.numpy(), ((moved[0] - moved[1]) / (2.0 * h)).reshape(size).numpy()) <= 1e-7

    with pytest.raises(NotImplementedError, match="jvp"):
        torch.func.jvp(f, inputs, inputs)


ENGINES: dict[str, dict[str, Any]] = {"dense": {"engine": "dense"}, "tiled": {"engine": "tiled", "tile": 4}}


def composite(x: Any, temperature: Any, labels: Any) -> Any:
    """SINCERE from torch's own operations."""
    import torch

    z = torch.nn.functional.normalize(x, dim=1)
    logits, same = z @ z.T / temperature, labels[:, None] == labels[None, :]
    noise = torch.logsumexp(logits.masked_fill(same, -torch.inf), dim=1, keepdim=True)
    positive = same & ~torch.eye(len(labels), dtype=torch.bool)
    margins = torch.nn.functional.softplus(noise - logits, threshold=40.0).masked_fill(~positive, 0.0)
    return (margins.sum(dim=1) / positive.sum(dim=1)).mean()


def batch() -> tuple[Any, Any, Any]:
    """Embeddings, a direction to move them in, and labels."""
    import torch

    x, direction = torch.tensor(np.random.default_rng(0).normal(size=(2, 8, 3)))
    return x, direction, torch.tensor([0, 0, 1, 1, 2, 2, 0, 1])


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("engine", ENGINES)
def test_derivatives_of_any_order(engine: str, reduction: str) -> None:
    """By the temperature, up to the fourth, and by embeddings that depend on it, too."""
    import torch

    x, direction, labels = batch()

    def derivatives(loss: Any) -> list[float]:
        temperature = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
        found, value = [], loss(x + temperature * direction, temperature, labels)
        for _ in range(4):
            (value,) = torch.autograd.grad(value, temperature, create_graph=True)
            found.append(value.item())
        return found

    def ours(x: Any, temperature: Any, labels: Any) -> Any:
        return ss.sincere_loss(x, labels, temperature, reduction=reduction, **ENGINES[engine]).mean()

    np.testing.assert_allclose(derivatives(ours), derivatives(composite), rtol=1e-9)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("engine", ENGINES)
def test_forward_mode_over_reverse_and_reverse_over_forward_mode(engine: str, reduction: str) -> None:
    import torch
    from torch.autograd import forward_ad

    x, direction, labels = batch()

    def loss(x: Any) -> Any:
        return ss.sincere_loss(x, labels, 0.5, reduction=reduction, **ENGINES[engine]).mean()

    start = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(composite(start, 0.5, labels), start, create_graph=True)
    (want,) = torch.autograd.grad((gradient * direction).sum(), start)
    for keep in (False, True):
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(x.clone().requires_grad_(), direction)
            (found,) = torch.autograd.grad(loss(dual), dual, create_graph=keep)
            torch.testing.assert_close(forward_ad.unpack_dual(found).tangent.detach(), want)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x.clone().requires_grad_(), direction)
        tangent = forward_ad.unpack_dual(loss(dual)).tangent
        torch.testing.assert_close(tangent.detach(), (gradient * direction).sum().detach())
        torch.testing.assert_close(torch.autograd.grad(tangent, dual)[0], want)


@pytest.mark.parametrize("engine", ENGINES)
def test_labels_and_ids_may_be_overwritten_before_the_gradient_is_asked_for(engine: str) -> None:
    import torch

    x, direction, labels = batch()
    ids = torch.arange(8) // 2 * 2
    found = []
    for spoil in (False, True):
        start, given, samples = x.clone().requires_grad_(), labels.clone(), ids.clone()
        value = ss.sincere_loss(start, given, 0.5, ids=samples, **ENGINES[engine])
        if spoil:
            given.zero_()
            samples.zero_()
        (gradient,) = torch.autograd.grad(value, start, create_graph=True)
        (second,) = torch.autograd.grad((gradient * direction).sum(), start)
        found.append((gradient.detach(), second))
    torch.testing.assert_close(found[1], found[0], rtol=0.0, atol=0.0)


def test_second_order_through_a_learnt_temperature() -> None:
    import torch

    f, inputs = loss_of(learning("clip"), *given("clip"))
    leaves = tuple(x.clone().requires_grad_() for x in inputs)
    assert torch.autograd.gradcheck(f, leaves, eps=1e-6, atol=1e-7, rtol=1e-6)
    assert torch.autograd.gradgradcheck(f, leaves, eps=1e-6, atol=1e-6, rtol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # torch's own, on tracing a Function
def test_compiled_autocast_changes_nothing() -> None:
    import torch

    torch.compiler.reset()
    loss, (positional, keywords) = learning("clip", "float32"), given("clip", "float32")
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    wanted = [*positional, *loss.parameters()]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = compiled(*positional)
    want, *gradients = run(loss, positional, keywords)
    assert_near([value], [want], "float32")
    assert_near(list(torch.autograd.grad(value, wanted)), gradients, "float32")


def test_a_backward_inside_autocast_is_that_outside() -> None:
    import torch

    loss, (positional, keywords) = learning("clip", "float32", engine="tiled", tile=2), given("clip", "float32")
    want = run(loss, positional, keywords)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = run(loss, positional, keywords)
    assert all(torch.equal(x, y) for x, y in zip(got, want, strict=True))


def test_a_scaled_loss_trains_in_half_precision() -> None:
    """A model under autocast gives half-precision embeddings; the scaled gradients are those of float32, rounded."""
    import torch

    torch.manual_seed(0)
    model = torch.nn.Linear(4, 4)
    loss = module("clip", learnable_temperature=True)
    optimizer = torch.optim.SGD([*model.parameters(), *loss.parameters()], lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    a, b = (x.detach() for x in given("clip", "float32")[0])
    values = []
    for _ in range(10):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.float16):
            value = loss(model(a), b.half())
        assert value.dtype is torch.float32
        scaler.scale(value).backward()
        scaler.step(optimizer)
        scaler.update()
        values.append(value.item())
    assert scaler.get_scale() == 2.0**10  # no gradient overflowed
    assert values[-1] < 0.9 * values[0]


def test_a_gradient_cache_is_the_whole_batch() -> None:
    """GradCache: embed in chunks without a graph, take the gradient of the batch, embed again and feed it back in chunks."""
    import torch

    torch.manual_seed(0)
    model = torch.nn.Linear(4, 4).double()
    loss = learning("clip")
    a, b = (x.detach() for x in given("clip", repeats=2)[0])
    wanted = [*model.parameters(), *loss.parameters()]
    want = torch.autograd.grad(loss(model(a), model(b)), wanted)

    chunks = [*a.split(2), *b.split(2)]
    with torch.no_grad():
        embedded = torch.cat([model(chunk) for chunk in chunks])
    temperature = loss.temperature
    _, gradient = ss.value_and_gradient(loss.record, *embedded.chunk(2), temperature=temperature)
    for chunk, part in zip(chunks, [*gradient.a.split(2), *gradient.b.split(2)], strict=True):
        model(chunk).backward(part)
    temperature.backward(gradient.temperature)
    assert_near([x.grad for x in wanted], list(want))


def test_a_parameter_without_dimensions_is_loaded() -> None:
    """CLIP's own checkpoints have one."""
    import torch

    loss = module("siglip", learnable_temperature=True, learnable_bias=True)
    loss.load_state_dict({"logit_scale": torch.tensor(2.5), "logit_bias": torch.tensor(-9.0)})
    assert [x.item() for x in loss.parameters()] == [2.5, -9.0]


def test_fully_sharded_with_a_learnt_temperature(tmp_path: Any) -> None:
    """FSDP2 refuses a parameter without dimensions."""
    import torch
    from torch import distributed
    from torch.distributed.fsdp import fully_shard

    torch.manual_seed(0)

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Linear(4, 4)
            self.loss = module("siglip", learnable_temperature=True, learnable_bias=True)

        def forward(self, a: Any, b: Any) -> Any:
            return self.loss(self.net(a), self.net(b))

    model, a, b = Model(), *(x.detach() for x in given("siglip", "float32")[0])
    sharded = copy.deepcopy(model)
    store = distributed.FileStore(str(tmp_path / "store"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        mesh = distributed.device_mesh.init_device_mesh("cpu", (1,))
        fully_shard(sharded, mesh=mesh)
        for step in (model, sharded):
            step(a, b).backward()
        found = [x.grad.full_tensor() for x in sharded.parameters()]
    finally:
        distributed.destroy_process_group()
    torch.testing.assert_close(found, [x.grad for x in model.parameters()])


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_distributed_data_parallel(tmp_path: Any) -> None:
    """One process: a loss with parameters of its own, wrapped as a model is."""
    import torch
    from torch import distributed
    from torch.nn.parallel import DistributedDataParallel

    loss, (positional, keywords) = learning("clip"), given("clip")
    want = run(loss, positional, keywords)
    store = distributed.FileStore(str(tmp_path / "store"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        value = DistributedDataParallel(loss)(*positional)
        value.backward()
    finally:
        distributed.destroy_process_group()
    got = [value.detach(), *(x.grad for x in (*positional, *loss.parameters()))]
    assert all(torch.equal(x, y) for x, y in zip(got, want, strict=True))
