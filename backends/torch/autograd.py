"""A hand-written forward and backward as one node of torch's graph, right to any order.

The first derivative is the engine's. Derivatives of it, and forward mode where the value is a vector, go through the exact
composite, which autograd differentiates: slower and larger, never detached.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch

from sincere_spec.types import Array, Differentiable


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
        wanted = ctx.needs_input_grad[1:]
        if not torch.is_grad_enabled():  # nobody will differentiate the gradient
            with full_precision():
                return (None, *ctx.steps.backward(ctx.saved_tensors, ctx.saved, cotangent, wanted))
        gradients = Gradient.apply(ctx.steps, ctx.saved, wanted, cotangent, *ctx.saved_tensors)  # type: ignore[no-untyped-call]
        return (None, *gradients)

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Array | None) -> Array:
        arrays = ctx.saved_tensors
        moving = tuple(tangent is not None for tangent in tangents)
        given = [tangent for tangent in tangents if tangent is not None]
        if ctx.scalar:
            _, saved = ctx.steps.forward(arrays, moving)
            gradients = ctx.steps.backward(arrays, saved, None, moving)
            return sum((g * t).sum() for g, t in zip((g for g in gradients if g is not None), given, strict=True))
        # A vector moves along J t: the derivative, by its cotangent, of the gradient's product with t.
        with torch.enable_grad():
            arrays = tuple(x.detach().requires_grad_() for x in arrays)
            value = ctx.steps.exact(*arrays)
            cotangent = torch.zeros_like(value, requires_grad=True)
            along = [x for x, moves in zip(arrays, moving, strict=True) if moves]
            gradients = torch.autograd.grad(value, along, cotangent, create_graph=True)
            (tangent,) = torch.autograd.grad(gradients, cotangent, given)
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
        cotangent, *arrays = (x.detach().requires_grad_() for x in ctx.saved_tensors)
        with full_precision(), torch.enable_grad():
            wanted = [x for x, want in zip(arrays, ctx.wanted, strict=True) if want]
            value = ctx.steps.exact(*arrays)
            first = torch.autograd.grad(value, wanted, cotangent, create_graph=True)
            given = [x for x, want in zip(cotangents, ctx.wanted, strict=True) if want]
            used = [(x, c) for x, c in zip(first, given, strict=True) if c is not None]
            second = torch.autograd.grad(
                [x for x, _ in used], [cotangent, *arrays], [c for _, c in used], allow_unused=True
            )
        return (None, None, None, *second)
