"""A call as operators of torch.library: what compilers, export and shapes without values get instead of the code.

What of a call is no tensor is a text. The operator makes the static part again from it, chooses the engine by the sizes that it
sees when it runs, and so one graph serves any number of rows in O(N d) memory. The gradient of a scalar loss is linear in its
cotangent, so it is made with the value and scaled later. Nothing here knows a field of the static part.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from hashlib import sha256
from importlib.resources import files
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import guard_scalar

from sincere_spec.arrays import COMPUTE_DTYPE, Array
from sincere_spec.backends.torch.autograd import autocast, full_precision, has_tangent, second_order
from sincere_spec.errors import EngineUnavailable
from sincere_spec.interface import Differentiable, Static, readers
from sincere_spec.tracing import constant_when_traced

NAMESPACE = __name__.removesuffix(".backends.torch.operators").replace(
    ".", "_"
)  # a renamed copy has operators of its own

VERSION = sha256((files(__package__) / "operators.py").read_bytes()).hexdigest()[:16]
"""Part of every text: AOTAutograd keeps traced backwards on disk, and does not see that the Python of an operator changed."""

LIBRARY = torch.library.Library(NAMESPACE, "FRAGMENT")  # type: ignore[no-untyped-call]

NOTHING = nullcontext()

Body: TypeAlias = Callable[..., Any]

ADAPTERS: list[Any] = []
"""The adapter, which puts itself here."""


def run_operator(steps: Differentiable, arrays: Sequence[Array], wanted: Sequence[bool]) -> list[Array]:
    """The value, then the gradients that are wanted, as results of one operator."""
    text = text_of(steps.static)
    results: list[Array] = value_and_gradient(text, list(steps.constants), list(arrays), list(wanted))
    return results


def text_of(static: Static) -> str:
    """The static part as a text."""
    text: str = _text(_constant(static.described()))
    return text


def _constant(described: Any) -> Any:
    """Plain values, with the numbers among them held constant: torch.compile may have made symbols of some."""
    if isinstance(described, dict):
        return {name: _constant(value) for name, value in described.items()}
    if isinstance(described, list):
        return [_constant(value) for value in described]
    return guard_scalar(described) if isinstance(described, (int, float)) else described


@constant_when_traced
def _text(described: dict[str, Any]) -> str:
    return json.dumps({"version": VERSION, "static": described})


@lru_cache(maxsize=1024)
def static_of(text: str) -> Static:
    """The static part of a text."""
    (read,) = readers
    return read(json.loads(text)["static"], *ADAPTERS)


def _value_and_gradient(
    text: str, constants: Sequence[Tensor], arrays: Sequence[Tensor], wanted: Sequence[bool]
) -> list[Tensor]:
    """The value of a call, and gradients of a scalar one in the dtype in which it is computed."""
    _refuse_tangents(arrays)
    with _plain():
        given = tuple(x.detach() for x in arrays)
        steps = static_of(text).settled(tuple(constants), given)
        value, gradients = steps.value_and_gradient(given, tuple(wanted))
        return _apart([value, *(x for x in gradients if x is not None)], given)


def _value_and_gradient_shapes(
    text: str, constants: Sequence[Tensor], arrays: Sequence[Tensor], wanted: Sequence[bool]
) -> list[Tensor]:
    static, dtype = static_of(text), compute_dtype(arrays)
    value = arrays[0].new_empty(() if static.scalar else (static.rows_with_loss(arrays),), dtype=dtype)
    return [value, *(x.new_empty(x.shape, dtype=dtype) for x, want in zip(arrays, wanted, strict=True) if want)]


def _gradient(
    text: str,
    constants: Sequence[Tensor],
    arrays: Sequence[Tensor],
    wanted: Sequence[bool],
    made: Sequence[Tensor],
    cotangent: Tensor,
) -> list[Tensor]:
    """The gradients that are wanted under a cotangent, in the dtypes of their arrays: from those already made, or anew.

    It takes the arrays in either case. A compiled backward that does not depend on them would drop second derivatives.
    """
    moving = [x for x, want in zip(arrays, wanted, strict=True) if want]
    _refuse_tangents([*arrays, cotangent])
    if made:
        return [(g * cotangent).to(x.dtype) for g, x in zip(made, moving, strict=True)]
    with _plain():
        given = tuple(x.detach() for x in arrays)
        steps = static_of(text).settled(tuple(constants), given)
        _, saved = steps.forward(given, tuple(wanted))
        found = steps.backward(given, saved, cotangent, tuple(wanted))
        return _apart([x for x in found if x is not None], [*given, cotangent])


def _gradient_shapes(
    text: str,
    constants: Sequence[Tensor],
    arrays: Sequence[Tensor],
    wanted: Sequence[bool],
    made: Sequence[Tensor],
    cotangent: Tensor,
) -> list[Tensor]:
    return [x.new_empty(x.shape) for x, want in zip(arrays, wanted, strict=True) if want]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    text, constants, arrays, wanted = inputs
    ctx.set_materialize_grads(False)  # zeros for gradients that nobody gave would be the cotangents of a Hessian
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*constants, *arrays, *output[1:])
    ctx.text, ctx.wanted, ctx.places = text, wanted, (len(constants), len(constants) + len(arrays))


def _differentiate(ctx: Any, cotangents: list[Tensor | None]) -> tuple[Any, ...]:
    first, last = ctx.places
    constants, arrays, made = (list(x) for x in split(ctx.saved_tensors, first, last))
    wanted, needed, cotangent = ctx.wanted, ctx.needs_input_grad[2], cotangents[0]
    found: list[Tensor | None] = [None] * len(arrays)
    if cotangent is not None:
        if not made or any(need and not want for need, want in zip(needed, wanted, strict=True)):
            wanted, made = list(needed), []  # an exported program may be asked for what its example did not ask for
        elif not torch.is_grad_enabled():
            constants = []  # of use to second derivatives alone, and a compiled program would keep them for its backward
        results = iter(gradient(ctx.text, constants, arrays, wanted, made, cotangent))
        found = [next(results) if want else None for want in wanted]
    return None, [None] * first, found, None


def _keep_cotangent(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    text, constants, arrays, wanted, made, cotangent = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*constants, *arrays, cotangent)
    ctx.text, ctx.wanted, ctx.places, ctx.made = text, wanted, (len(constants), len(constants) + len(arrays)), len(made)


def _differentiate_again(ctx: Any, given: list[Tensor | None]) -> tuple[Any, ...]:
    constants, arrays, (cotangent,) = split(ctx.saved_tensors, *ctx.places)
    along = iter(given)
    by_array = [next(along) if want else None for want in ctx.wanted]
    steps = static_of(ctx.text).steps(tuple(constants))
    by_cotangent, *found = second_order(steps, ctx.wanted, cotangent, arrays, by_array)
    return None, [None] * len(constants), found, None, [None] * ctx.made, by_cotangent


def _refuse_transforms(*_: Any) -> list[Tensor]:
    raise EngineUnavailable(
        "transforms of torch.func do not enter an exported program: transform the loss itself, which passes."
    )


def _defined(schema: str, body: Body, shapes: Body, derivative: Body, keep: Body) -> Any:
    """An operator. What `torch.library.custom_op` has around each call costs as much as a small product of matrices."""
    library: Any = LIBRARY
    library.define(schema, tags=torch.Tag.pt2_compliant_tag)
    name = schema.partition("(")[0]
    library.impl(name, body, "CompositeExplicitAutograd")
    torch.library.register_fake(f"{NAMESPACE}::{name}", shapes, lib=LIBRARY)
    torch.library.register_autograd(f"{NAMESPACE}::{name}", derivative, setup_context=keep, lib=LIBRARY)
    # Before any transform sees it: torch.func.jvp would answer a derivative of 0.
    library.impl(name, _refuse_transforms, "FuncTorchDynamicLayerFrontMode")
    return getattr(getattr(torch.ops, NAMESPACE), name).default


value_and_gradient = _defined(
    "value_and_gradient(str text, Tensor[] constants, Tensor[] arrays, bool[] wanted) -> Tensor[]",
    _value_and_gradient,
    _value_and_gradient_shapes,
    _differentiate,
    _keep,
)
gradient = _defined(
    "gradient(str text, Tensor[] constants, Tensor[] arrays, bool[] wanted, Tensor[] made, Tensor cotangent) -> Tensor[]",
    _gradient,
    _gradient_shapes,
    _differentiate_again,
    _keep_cotangent,
)


def _plain() -> AbstractContextManager[Any]:
    """Without autograd and autocast; nothing is entered in a compiled program, which has neither."""
    if not (torch.is_grad_enabled() or autocast()):
        return NOTHING
    stack = full_precision()
    stack.enter_context(torch.no_grad())
    return stack


def split(tensors: Sequence[Tensor], first: int, last: int) -> tuple[Sequence[Tensor], ...]:
    """What is before two places, between and after them."""
    return tensors[:first], tensors[first:last], tensors[last:]


def compute_dtype(arrays: Sequence[Tensor]) -> torch.dtype:
    """In which dtype the loss of some embeddings is computed."""
    dtype: torch.dtype = getattr(torch, COMPUTE_DTYPE[str(arrays[0].dtype).removeprefix("torch.")])
    return dtype


def _apart(results: list[Tensor], inputs: Sequence[Tensor]) -> list[Tensor]:
    """Contiguous results that share no memory with each other or with the inputs, as PyTorch asks of an operator."""
    seen, found = {x.untyped_storage().data_ptr() for x in inputs}, []
    for x in results:
        place = x.untyped_storage().data_ptr()
        x = x.clone(memory_format=torch.contiguous_format) if place in seen and place else x.contiguous()
        seen.add(x.untyped_storage().data_ptr())
        found.append(x)
    return found


def _refuse_tangents(arrays: Sequence[Tensor]) -> None:
    """PyTorch would answer a derivative of 0: forward mode does not see into an operator."""
    if has_tangent(*arrays):
        raise EngineUnavailable(
            "forward mode does not enter a compiled or exported program: call the loss itself under it, which passes."
        )
