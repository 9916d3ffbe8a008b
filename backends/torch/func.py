"""The operators under transforms of torch.func, which do not enter operators by themselves.

vmap is a loop over the batch. The first derivative is the engine's; those of it, to any order, are the dense composite's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._C._functorch import TransformType

from sincere_spec.arrays import Array
from sincere_spec.backends.torch import operators
from sincere_spec.backends.torch.autograd import full_precision
from sincere_spec.interface import Differentiable
from sincere_spec.tracing import constant_when_traced


@constant_when_traced  # not every version can trace it, and each guards the transforms by itself
def is_transformed() -> bool:
    """Whether transforms are around the call."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def forward_levels() -> int:
    """How many transforms by forward mode are around it: PyTorch takes a Function's own derivative under one alone."""
    return [interpreter.key() for interpreter in _transforms()].count(TransformType.Jvp)


def _transforms() -> list[Any]:
    return torch._C._functorch.get_interpreter_stack() or []


def run_function(steps: Differentiable, arrays: Sequence[Array], wanted: bool) -> list[Array]:
    """The value, then the gradients of a scalar one if they are wanted, or sure to be asked for."""
    transforms = {interpreter.key() for interpreter in _transforms()}
    moving = steps.static.scalar and (wanted or bool(transforms & {TransformType.Grad, TransformType.Jvp}))
    text, given = operators.text_of(steps.static), (*steps.constants, *arrays)
    return list(Value.apply(text, (moving,) * len(arrays), len(steps.constants), *given))  # type: ignore[no-untyped-call]


class Value(torch.autograd.Function):
    """`operators.value_and_gradient` of a text, of what is wanted, of the number of constants, these and the arrays."""

    @staticmethod
    def forward(text: str, wanted: tuple[bool, ...], count: int, *tensors: Array) -> tuple[Array, ...]:
        constants, arrays = list(tensors[:count]), list(tensors[count:])
        return tuple(operators.value_and_gradient(text, constants, arrays, list(wanted)))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Array, ...]) -> None:
        ctx.text, _, ctx.count, *tensors = inputs
        ctx.total = len(tensors)
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*tensors, *output[1:])
        ctx.save_for_forward(*tensors, *output[1:])

    @staticmethod
    def backward(ctx: Any, cotangent: Array, *_: Array) -> tuple[Array | None, ...]:
        found = Gradient.apply(ctx.text, ctx.count, ctx.total, *ctx.saved_tensors, cotangent)  # type: ignore[no-untyped-call]
        return (*(None for _ in range(3 + ctx.count)), *found)

    @staticmethod
    def jvp(ctx: Any, *tangents: Array | None) -> tuple[Array | None, ...]:
        saved, static = ctx.saved_tensors, operators.static_of(ctx.text)
        constants, arrays, made = operators.split(saved, ctx.count, ctx.total)
        along = _filled(tangents[3 + ctx.count :], arrays)
        if static.scalar:
            one = torch.ones((), dtype=operators.compute_dtype(arrays), device=arrays[0].device)
            gradients = Gradient.apply(ctx.text, ctx.count, ctx.total, *saved, one)  # type: ignore[no-untyped-call]
            tangent = sum((g.to(one.dtype) * t).sum() for g, t in zip(gradients, along, strict=True))
        else:
            with full_precision():
                tangent = torch.func.jvp(static.steps(tuple(constants)).exact, tuple(arrays), along)[1]
        return (tangent, *(None for _ in made))

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], text: str, wanted: Any, count: int, *tensors: Array) -> Any:
        return _each(info, in_dims[3:], lambda *given: Value.apply(text, wanted, count, *given), tensors)  # type: ignore[no-untyped-call]


class Gradient(torch.autograd.Function):
    """`operators.gradient` by all arrays.

    Its arguments are a text, the number of constants, that of these and the arrays, all of them, the gradients that were made
    with the value, if they were, and the value's cotangent.
    """

    @staticmethod
    def forward(text: str, count: int, total: int, *tensors: Array) -> tuple[Array, ...]:
        constants, arrays, (*made, cotangent) = operators.split(tensors, count, total)
        wanted = [True] * len(arrays)
        return tuple(operators.gradient(text, list(constants), list(arrays), wanted, made, cotangent))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Array, ...]) -> None:
        ctx.text, ctx.count, ctx.total, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, *along: Array) -> tuple[Array | None, ...]:
        gradients, (cotangent, *arrays), made = _composite(ctx)
        with full_precision():
            by_cotangent, *found = torch.func.vjp(gradients, cotangent, *arrays)[1](along)
        return (*(None for _ in range(3 + ctx.count)), *found, *(None for _ in made), by_cotangent)

    @staticmethod
    def jvp(ctx: Any, *tangents: Array | None) -> tuple[Array, ...]:
        gradients, inputs, _ = _composite(ctx)  # what was made depends on the arrays alone, whose tangents come, too
        along = _filled((tangents[-1], *tangents[3 + ctx.count : 3 + ctx.total]), inputs)
        with full_precision():
            found: tuple[Array, ...] = torch.func.jvp(gradients, tuple(inputs), along)[1]
        return found

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], text: str, count: int, total: int, *tensors: Array) -> Any:
        return _each(info, in_dims[3:], lambda *given: Gradient.apply(text, count, total, *given), tensors)  # type: ignore[no-untyped-call]


def _composite(ctx: Any) -> tuple[Callable[..., tuple[Array, ...]], list[Array], Sequence[Array]]:
    """The gradients by the dense composite as a function of the cotangent and the arrays; these; and what was made."""
    constants, arrays, (*made, cotangent) = operators.split(ctx.saved_tensors, ctx.count, ctx.total)
    steps = operators.static_of(ctx.text).steps(tuple(constants))

    def gradients(cotangent: Array, *arrays: Array) -> tuple[Array, ...]:
        found: tuple[Array, ...] = torch.func.vjp(steps.exact, *arrays)[1](cotangent)
        return found

    return gradients, [cotangent, *arrays], made


def _filled(tangents: Sequence[Array | None], arrays: Sequence[Array]) -> tuple[Array, ...]:
    return tuple(torch.zeros_like(x) if t is None else t for t, x in zip(tangents, arrays, strict=True))


def _each(info: Any, in_dims: tuple[Any, ...], function: Callable[..., Any], tensors: Sequence[Array]) -> Any:
    """A function of each member of a batch, and the places of the batch in what it gives."""
    found = [
        function(*(x if dim is None else x.select(dim, k) for x, dim in zip(tensors, in_dims, strict=True)))
        for k in range(info.batch_size)
    ]
    results = tuple(torch.stack(parts) for parts in zip(*found, strict=True))
    return results, (0,) * len(results)
