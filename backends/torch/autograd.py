"""A hand-written forward and backward as one node of torch's graph, right to any order.

The first derivative is the engine's. Derivatives of it, and forward mode where the value is a vector, go through the exact
composite, which autograd differentiates: slower and larger, never detached.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch.autograd import forward_ad

from sincere_spec.arrays import Array
from sincere_spec.interface import Differentiable


def autocast() -> bool:
    """Whether an autocast is around the call."""
    return torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda")


def full_precision() -> ExitStack:
    """Inside autocast, in which a backward may be called, too, products of float32 would be taken in half precision."""
    stack = ExitStack()
    for device in ("cuda", "cpu"):
        if torch.is_autocast_enabled(device):
            stack.enter_context(torch.autocast(device, enabled=False))
    return stack


class Product(torch.autograd.Function):
    """`a @ b` for torch.compile, which traces the gradient, too, in the autocast that is around the call."""

    @staticmethod
    def forward(ctx: Any, a: Array, b: Array) -> Array:
        ctx.save_for_backward(a, b)
        with torch.autocast(a.device.type, enabled=False):
            return a @ b

    @staticmethod
    def backward(ctx: Any, cotangent: Array) -> tuple[Array, Array]:
        a, b = ctx.saved_tensors
        with torch.autocast(a.device.type, enabled=False):
            return cotangent @ b.mT, a.mT @ cotangent


class Value(torch.autograd.Function):
    """The value of a differentiable step; its backward is `Gradient`."""

    @staticmethod
    def forward(ctx: Any, steps: Differentiable, *arrays: Array) -> Array:
        value, saved = steps.forward(arrays, tuple(ctx.needs_input_grad[1:]))
        ctx.steps, ctx.saved, ctx.scalar = steps, saved, value.ndim == 0
        ctx.save_for_backward(*arrays)
        ctx.save_for_forward(*arrays)
        return value

    @staticmethod
    def backward(ctx: Any, cotangent: Array) -> tuple[Array | None, ...]:
        wanted, arrays = ctx.needs_input_grad[1:], ctx.saved_tensors
        if has_tangent(cotangent, *arrays):  # forward mode over this: autograd's own operations carry the tangents
            return (None, *_exact_gradient(ctx.steps, wanted, cotangent, arrays))
        if not torch.is_grad_enabled():  # nobody will differentiate the gradient
            if not autocast():
                return (None, *ctx.steps.backward(arrays, ctx.saved, cotangent, wanted))
            with full_precision():
                return (None, *ctx.steps.backward(arrays, ctx.saved, cotangent, wanted))
        gradients = Gradient.apply(ctx.steps, ctx.saved, wanted, cotangent, *arrays)  # type: ignore[no-untyped-call]
        return (None, *gradients)

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Array | None) -> Array:
        steps, arrays = ctx.steps, ctx.saved_tensors
        moving = tuple(tangent is not None for tangent in tangents)
        given = [tangent for tangent in tangents if tangent is not None]
        if ctx.scalar:
            with torch.no_grad():
                value, saved = steps.forward(arrays, moving)
            gradients = Gradient.apply(steps, saved, moving, torch.ones_like(value), *arrays)  # type: ignore[no-untyped-call]
            return sum((g * t).sum() for g, t in zip((g for g in gradients if g is not None), given, strict=True))
        # A vector moves along J t: the derivative, by its cotangent, of the gradient's product with t.
        again = torch.is_grad_enabled()
        with torch.enable_grad():
            arrays = tuple(_start(x, again) for x in arrays)
            value = steps.exact(*arrays)
            cotangent = torch.zeros_like(value, requires_grad=True)
            along = [x for x, moves in zip(arrays, moving, strict=True) if moves]
            gradients = torch.autograd.grad(value, along, cotangent, create_graph=True)
            (tangent,) = torch.autograd.grad(gradients, cotangent, given, create_graph=again)
        return tangent


class Gradient(torch.autograd.Function):
    """The gradient of a differentiable step, under a cotangent; its own backward is autograd's, of the exact composite."""

    @staticmethod
    def forward(
        ctx: Any, steps: Differentiable, saved: Any, wanted: tuple[bool, ...], cotangent: Array, *arrays: Array
    ) -> tuple[Array | None, ...]:
        ctx.steps, ctx.wanted = steps, wanted
        ctx.save_for_backward(cotangent, *arrays)
        with full_precision():
            return steps.backward(arrays, saved, cotangent, wanted)

    @staticmethod
    def backward(ctx: Any, *cotangents: Array | None) -> tuple[Array | None, ...]:
        cotangent, *arrays = ctx.saved_tensors
        return (None, None, None, *second_order(ctx.steps, ctx.wanted, cotangent, arrays, cotangents))


def second_order(
    steps: Differentiable,
    wanted: Sequence[bool],
    cotangent: Array,
    arrays: Sequence[Array],
    cotangents: Sequence[Array | None],
) -> tuple[Array | None, ...]:
    """From the cotangents of the gradients that were wanted, those of the value's cotangent and of the arrays."""
    again = torch.is_grad_enabled()  # then this will be differentiated, too
    with full_precision(), torch.enable_grad():
        cotangent, *arrays = (_start(x, again) for x in (cotangent, *arrays))
        moving = [x for x, want in zip(arrays, wanted, strict=True) if want]
        first = torch.autograd.grad(steps.exact(*arrays), moving, cotangent, create_graph=True)
        given = [x for x, want in zip(cotangents, wanted, strict=True) if want]
        used = [(x, c) for x, c in zip(first, given, strict=True) if c is not None]
        return torch.autograd.grad(
            [x for x, _ in used],
            [cotangent, *arrays],
            [c for _, c in used],
            allow_unused=True,
            create_graph=again,
        )


def _exact_gradient(
    steps: Differentiable, wanted: tuple[bool, ...], cotangent: Array, arrays: tuple[Array, ...]
) -> tuple[Array | None, ...]:
    """The gradient of the exact composite, which any mode of autograd differentiates."""
    again = torch.is_grad_enabled()
    with full_precision(), torch.enable_grad():
        starts = [x.view_as(x) for x in arrays]
        value = steps.exact(*starts)
        along = [x for x, want in zip(starts, wanted, strict=True) if want]
        found = iter(torch.autograd.grad(value, along, cotangent, create_graph=again))
    return tuple(next(found) if want else None for want in wanted)


def has_tangent(*arrays: Array) -> bool:
    """Whether any of them has a tangent."""
    return forward_ad._current_level >= 0 and any(forward_ad.unpack_dual(x).tangent is not None for x in arrays)  # type: ignore[no-untyped-call]


def _start(x: Array, connected: bool) -> Array:
    """A tensor to differentiate by, and what that gives is still a function of `x` if it is to be `connected`."""
    return x.view_as(x) if connected and x.requires_grad else x.detach().requires_grad_()
