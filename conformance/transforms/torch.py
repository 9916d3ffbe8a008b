"""The transforms of PyTorch."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import distributed
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from sincere_spec.conformance.transforms.checks import Asked, Check, by_name

Found = Mapping[str, Any]


def eager(asked: Asked) -> Found:
    """Value and gradient."""
    return _backward(asked.loss, _leaves(asked.arrays), asked.integers)


def double_backward(asked: Asked) -> Found:
    """The gradient of the gradient's product with a direction."""
    return _second(asked.loss, asked)


def forward_mode(asked: Asked) -> Found:
    """A dual number through the loss."""
    with forward_ad.dual_level():
        along = asked.direction
        dual = {
            name: forward_ad.make_dual(x, along[name])  # type: ignore[no-untyped-call]
            for name, x in asked.arrays.items()
        }
        value, tangent = forward_ad.unpack_dual(asked.loss(dual, asked.integers))  # type: ignore[no-untyped-call]
    return {"value": value, "tangent": tangent}


def compiled(asked: Asked, dynamic: bool) -> Found:
    """One graph; with a dynamic number of rows compiled once for all. Its machine code is Inductor's own business."""
    program = _program(asked, dynamic)
    if dynamic:
        arrays, integers = asked.another
        _backward(program, _leaves(arrays), integers)
        with torch.compiler.set_stance("fail_on_recompile"):
            return _backward(program, _leaves(asked.arrays), asked.integers)
    return _backward(program, _leaves(asked.arrays), asked.integers)


def compiled_rows(asked: Asked) -> Found:
    """The row losses of any number of rows, under a cotangent that makes them their mean."""
    return _mean_of_rows(_program(asked, dynamic=True, reduction="none"), asked)


def compiled_twice(asked: Asked) -> Found:
    """A second derivative through a compiled graph."""
    program = _program(asked, dynamic=False)
    _backward(program, _leaves(asked.arrays), asked.integers)
    return _second(program, asked)


@cache
def _program(asked: Asked, dynamic: bool, reduction: str = "mean") -> Any:
    """A compiled loss, kept for the next transform of it: a compilation takes seconds."""
    torch.compiler.reset()  # the programs of other losses count towards the limit of this one's
    loss = partial(asked.loss, reduction=reduction)
    return torch.compile(loss, fullgraph=True, dynamic=dynamic, backend="aot_eager")


def exported(asked: Asked, strict: bool) -> Found:
    """A program for any number of rows, made from another batch, saved and loaded."""
    return _backward(_saved_and_loaded(asked, strict), _leaves(asked.arrays), asked.integers)


def exported_rows(asked: Asked) -> Found:
    """The same of row losses."""
    return _mean_of_rows(_saved_and_loaded(asked, strict=False, reduction="none"), asked)


def _saved_and_loaded(asked: Asked, strict: bool, reduction: str = "mean") -> Any:
    class Module(torch.nn.Module):
        def forward(self, arrays: dict[str, Any], integers: dict[str, Any]) -> Any:
            return asked.loss(arrays, integers, reduction)

    rows = torch.export.Dim("rows", min=2)
    arrays, integers = asked.another
    shapes = tuple({name: {0: rows} if x.ndim else None for name, x in part.items()} for part in (arrays, integers))
    program = torch.export.export(Module(), (_leaves(arrays), integers), dynamic_shapes=shapes, strict=strict)
    with tempfile.TemporaryDirectory() as folder:
        torch.export.save(program, Path(folder, "loss.pt2"))
        return torch.export.load(Path(folder, "loss.pt2")).module()


def traced(asked: Asked) -> Found:
    """A TorchScript program, made from another batch."""
    names = tuple(asked.arrays)

    def loss(*given: Any) -> Any:
        arrays = dict(zip(names, given, strict=False))
        return asked.loss(arrays, dict(zip(asked.integers, given[len(names) :], strict=True)))

    arrays, integers = asked.another
    program = torch.jit.trace(loss, (*arrays.values(), *integers.values()))  # type: ignore[no-untyped-call]
    return _backward(
        lambda arrays, integers: program(*arrays.values(), *integers.values()), _leaves(asked.arrays), asked.integers
    )


def made_fx(asked: Asked, mode: Literal["real", "symbolic"]) -> Found:
    """A graph of ATen's operations, made from another batch."""

    def loss(arrays: list[Any], integers: list[Any]) -> Any:
        return asked.loss(
            dict(zip(asked.arrays, arrays, strict=True)), dict(zip(asked.integers, integers, strict=True))
        )

    arrays, integers = asked.another
    program = make_fx(loss, tracing_mode=mode)(list(arrays.values()), list(integers.values()))
    return _backward(
        lambda arrays, integers: program(list(arrays.values()), list(integers.values())),
        _leaves(asked.arrays),
        asked.integers,
    )


def func_grad(asked: Asked) -> Found:
    """The gradient as a function."""
    gradients, value = torch.func.grad_and_value(asked.loss)(asked.arrays, asked.integers)
    return by_name(value, gradients)


def func_vmap(asked: Asked) -> Found:
    """Values and gradients of two batches at once."""
    gradients, values = torch.func.vmap(torch.func.grad_and_value(_of_arrays(asked)))(asked.batch)
    return by_name(values, gradients, "batch.")


def func_jvp(asked: Asked) -> Found:
    """The derivative along a direction."""
    value, tangent = torch.func.jvp(_of_arrays(asked), (asked.arrays,), (asked.direction,))[:2]
    return {"value": value, "tangent": tangent}


def func_hessian(asked: Asked) -> Found:
    """The whole second derivative, times a direction."""
    hessian, along = torch.func.hessian(_of_arrays(asked))(asked.arrays), asked.direction
    return {
        f"second.{name}": sum(torch.tensordot(row[other], t, dims=t.ndim) for other, t in along.items())
        for name, row in hessian.items()
    }


def checkpointed(asked: Asked, reentrant: bool) -> Found:
    """Computed again in the backward."""

    def loss(arrays: dict[str, Any], integers: dict[str, Any]) -> Any:
        return checkpoint(
            lambda *given: asked.loss(dict(zip(arrays, given, strict=True)), integers),
            *arrays.values(),
            use_reentrant=reentrant,
        )

    return _backward(loss, _leaves(asked.arrays), asked.integers)


def inference(asked: Asked) -> Found:
    """The value alone."""
    with torch.inference_mode():
        value = asked.loss(asked.arrays, asked.integers)
    assert value.is_inference(), "expected an inference tensor"
    return {"value": value}


def autocast(asked: Asked, kind: torch.dtype) -> Found:
    """In full precision all the same."""
    with torch.autocast("cpu", dtype=kind):
        return _backward(asked.loss, _leaves(asked.arrays), asked.integers)


def grad_scaler(asked: Asked) -> Found:
    """A scaled loss, and gradients that are scaled back."""
    leaves = _leaves(asked.arrays)
    optimizer = torch.optim.SGD(leaves.values(), lr=1.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    value = asked.loss(leaves, asked.integers)
    scaler.scale(value).backward()
    scaler.unscale_(optimizer)
    return by_name(value, {name: x.grad for name, x in leaves.items()})


def data_parallel(asked: Asked) -> Found:
    """The single-process loss of a wrapped model, in a group of one."""

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.given = torch.nn.ParameterDict(asked.arrays)

        def forward(self) -> Any:
            return asked.loss(dict(self.given.items()), asked.integers)

    model = Model()
    with tempfile.TemporaryDirectory() as folder:
        store = distributed.FileStore(str(Path(folder, "store")), 1)  # type: ignore[attr-defined]
        distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
        try:
            value = DistributedDataParallel(model)()
            value.backward()
        finally:
            distributed.destroy_process_group()
    return by_name(value, {name: x.grad for name, x in model.given.items()})


def _leaves(arrays: dict[str, Any]) -> dict[str, Any]:
    return {name: x.requires_grad_() for name, x in arrays.items()}


def _of_arrays(asked: Asked) -> Callable[[dict[str, Any]], Any]:
    return lambda arrays: asked.loss(arrays, asked.integers)


def _backward(loss: Callable[..., Any], leaves: dict[str, Any], integers: dict[str, Any]) -> Found:
    value = loss(leaves, integers)
    value.backward()
    return by_name(value, {name: x.grad for name, x in leaves.items()})


def _mean_of_rows(loss: Callable[..., Any], asked: Asked) -> Found:
    """The gradient of row losses under a cotangent of 1 / n each: all rows of these cases count, so it is that of the mean."""
    return _backward(lambda arrays, integers: loss(arrays, integers).mean(), _leaves(asked.arrays), asked.integers)


def _second(loss: Callable[..., Any], asked: Asked) -> Found:
    leaves, along = _leaves(asked.arrays), asked.direction
    first = torch.autograd.grad(loss(leaves, asked.integers), tuple(leaves.values()), create_graph=True)
    product = torch.stack([torch.sum(g * t) for g, t in zip(first, along.values(), strict=True)]).sum()
    second = torch.autograd.grad(product, tuple(leaves.values()))
    return {f"second.{name}": x for name, x in zip(leaves, second, strict=True)}


CHECKS: dict[str, Check] = {
    "eager": eager,
    "double-backward": double_backward,
    "forward-mode": forward_mode,
    "compile": partial(compiled, dynamic=False),
    "compile-dynamic": partial(compiled, dynamic=True),
    "compile-rows": compiled_rows,
    "compile-double-backward": compiled_twice,
    "export": partial(exported, strict=False),
    "export-strict": partial(exported, strict=True),
    "export-rows": exported_rows,
    "jit-trace": traced,
    "make-fx": partial(made_fx, mode="symbolic"),
    "make-fx-real": partial(made_fx, mode="real"),
    "func-grad": func_grad,
    "func-vmap": func_vmap,
    "func-jvp": func_jvp,
    "func-hessian": func_hessian,
    "checkpoint": partial(checkpointed, reentrant=False),
    "checkpoint-reentrant": partial(checkpointed, reentrant=True),
    "inference-mode": inference,
    "autocast-float16": partial(autocast, kind=torch.float16),
    "autocast-bfloat16": partial(autocast, kind=torch.bfloat16),
    "grad-scaler": grad_scaler,
    "ddp": data_parallel,
}
