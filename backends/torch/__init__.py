"""PyTorch: its autograd differentiates the dense engine."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.fx.experimental.symbolic_shapes import statically_known_true

from sincere_spec.arrays import Array, Namespace, T
from sincere_spec.backends.torch import namespace
from sincere_spec.backends.torch.autograd import Product, Value, autocast, full_precision
from sincere_spec.backends.torch.func import forward_levels, is_transformed, run_function
from sincere_spec.backends.torch.operators import ADAPTERS, run_operator
from sincere_spec.errors import EngineUnavailable, UnknownArrayError
from sincere_spec.interface import Collectives, Differentiable, Kernels
from sincere_spec.spec.words import Logit

FUSED = 128 * 128
"""Up to so many pairs, known to the compiler, it fuses the dense composite to a program that is faster than tiles."""

TRANSFORMED = 512 * 512
"""Up to so many pairs one composite serves a whole batch of torch.func.vmap faster than a loop over it."""

LOG2_E = 1.4426950408889634

DTYPE_NAMES = {x: str(x).removeprefix("torch.") for x in vars(torch).values() if isinstance(x, torch.dtype)}


class TorchBackend:
    """Tensors on any device, eager and traced."""

    __slots__ = ()  # a compiler need not guard that no method is in the adapter's own dictionary

    name = "torch"
    traces = False

    def namespace(self, x: Array) -> Namespace:
        return namespace

    def prepare(self, x: Array, argument: str) -> Array:
        if not isinstance(x, torch.Tensor):
            raise UnknownArrayError(f"{argument}: expected a torch.Tensor; got torch's {type(x).__name__}.")
        if x.layout is not torch.strided or x.is_quantized or x.is_nested:
            kind = "nested" if x.is_nested else "quantized" if x.is_quantized else str(x.layout).removeprefix("torch.")
            raise UnknownArrayError(
                f"{argument}: expected a dense tensor; got a {kind} one: convert it, for example by to_dense()."
            )
        if torch.compiler.is_compiling():  # then it is neither of the tracers below
            return x
        if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]  # it would keep this batch's labels and counts for all others
            raise EngineUnavailable("torch.jit.trace cannot trace it; torch.export and torch.compile do.")
        if _recorded() and self.concrete(x):
            raise EngineUnavailable(
                'make_fx(tracing_mode="real") cannot trace it: it would keep the sizes of this batch for all others; '
                'tracing_mode="symbolic" does.'
            )
        return x

    def dtype_name(self, x: Array) -> str:
        return DTYPE_NAMES[x.dtype]

    def dtype(self, name: str, like: Array) -> Any:
        return getattr(torch, name)

    def device(self, x: Array) -> object:
        return x.device

    def platform(self, x: Array) -> str:
        kind: str = x.device.type
        return kind

    def concrete(self, x: Array) -> bool:
        if torch.compiler.is_compiling() or isinstance(x, (FakeTensor, FunctionalTensor)) or x.is_meta:
            return False
        return not torch._C._functorch.is_functorch_wrapped_tensor(x)

    def on_host(self, x: Array) -> bool:
        return self.concrete(x) and x.device.type == "cpu"

    def extremes(self, x: Array) -> tuple[float, float]:
        least, most = torch.aminmax(x.detach())
        return least.item(), most.item()

    def to_host(self, x: Array) -> Any:
        x = x.detach().cpu()
        return (x.float() if x.dtype is torch.bfloat16 else x).numpy()  # NumPy has no bfloat16

    def integers(self, values: Sequence[int], like: Array) -> Array:
        return torch.tensor(values, dtype=torch.int64, device=like.device)

    def length(self, x: Array) -> Any:
        return x.shape[0]

    def indices(self, x: Array) -> Array:
        return torch.arange(x.shape[0], device=x.device)

    def hold(self, x: Array) -> Array:
        return x.detach()

    def product(self, a: Array, b: Array) -> Array:
        if torch.compiler.is_compiling() and torch.is_autocast_enabled(a.device.type):
            result: Array = Product.apply(a, b)  # type: ignore[no-untyped-call]
            return result
        return a @ b

    def scratch(self, like: Array, size: int) -> Array:
        return torch.empty(size, dtype=like.dtype, device=like.device)

    def product_into(self, scratch: Array, a: Array, b: Array, scale: float) -> Array:
        out = scratch[: a.shape[0] * b.shape[1]].view(a.shape[0], b.shape[1])
        return torch.addmm(out, a, b, beta=0.0, alpha=scale, out=out)

    def add_product(self, total: Array, a: Array, b: Array) -> None:
        total.addmm_(a, b)

    def exp_of(self, x: Array) -> Array:
        return x.mul_(LOG2_E).exp2_()  # twice as fast as exp_

    def has_columns(self, like: Array) -> bool:
        return self.on_host(like) and not is_transformed()  # vmap has no rule for writing to some columns

    def columns_of(self, x: Array, columns: Array) -> Array:
        return x.gather(1, columns)

    def with_columns(self, x: Array, columns: Array, value: float) -> Array:
        return x.scatter_(1, columns, value)

    def added_to_columns(self, x: Array, columns: Array, values: Array) -> Array:
        return x.scatter_add_(1, columns, values)

    def tiles_obstacle(self, like: Array) -> str | None:
        if torch.compiler.is_compiling():
            return "torch.compile cannot trace it inside transforms of torch.func" if is_transformed() else None
        if forward_levels() > 1:
            return "torch.func.jvp inside torch.func.jvp cannot enter it"
        return None

    def when_run(self, like: Array) -> str | None:
        if is_transformed():
            return "transforms of torch.func are around it"
        if torch.compiler.is_compiling():
            return "one program of torch.compile or torch.export serves any number of rows"
        if like.is_meta or isinstance(like, (FakeTensor, FunctionalTensor)):
            return "the arrays have no values yet"
        return None

    def fuses(self, sizes: tuple[Any, Any]) -> bool:
        rows, columns = sizes
        most = TRANSFORMED if is_transformed() else FUSED if torch.compiler.is_compiling() else 0
        return statically_known_true(rows * columns <= most)

    def held_number(self, value: float, like: Array) -> Array:
        one = torch.ones((), dtype=torch.float64, device=like.device)
        return one * value  # a product: torch.full would hold the number constant, and compile again for another

    def run_later(self, steps: Differentiable, *arrays: Array) -> tuple[Array, tuple[Array | None, ...]]:
        value, *gradients = self._program(steps, arrays, (True,) * len(arrays))
        return value, tuple(g.to(x.dtype) for g, x in zip(gradients, arrays, strict=True))

    def kernels(self, like: Array, logit: Logit) -> Kernels | str:
        if "tensorflow" in sys.modules and "triton" not in sys.modules:
            return "TensorFlow is in this process, and to import triton after it would end both"
        try:
            from sincere_spec.backends.torch import launch
        except ImportError as error:
            return f"triton cannot be imported ({error}): pip install 'sincere-spec[kernels]'"
        if like.device.type != "cuda" and not launch.INTERPRETED:
            return (
                f"Triton compiles for GPUs, and the arrays are on {like.device.type}: set TRITON_INTERPRET=1 before the "
                "process starts to have its interpreter run them"
            )
        return launch.obstacle(logit) or launch.TritonKernels()

    def strips(self, like: Array, logit: Logit) -> Kernels | None:
        if like.device.type != "cuda" or isinstance(self.kernels(like, logit), str):
            return None
        from sincere_spec.backends.torch import strips

        return strips.StripKernels() if strips.AVAILABLE else None

    def collectives(self, group: object) -> Collectives | str:
        if torch.compiler.is_compiling():
            return "torch.compile and torch.export cannot trace it; call it outside"
        if is_transformed():
            return "transforms of torch.func cannot enter it"
        if forward_ad._current_level >= 0:
            return "it has no forward mode"
        from sincere_spec.backends.torch import ranks

        return ranks.obstacle(group) or ranks.GroupCollectives(group)

    def wants_gradient(self, x: Array) -> bool:
        return torch.is_grad_enabled() and bool(x.requires_grad)

    def largest(self, x: Array, k: int) -> tuple[Array, Array]:
        least = torch.topk(x, k, dim=1).values[:, -1:]
        above, level = x > least, x == least
        kept = above | (level & (level.cumsum(1) <= k - above.sum(1, keepdim=True)))
        columns = kept.nonzero()[:, 1].reshape(-1, k)
        values, order = torch.sort(x.gather(1, columns), dim=1, descending=True, stable=True)
        return values, columns.gather(1, order)

    def segment_sums(self, x: Array, segments: Array, count: int) -> Array:
        return torch.zeros(count, x.shape[1], dtype=x.dtype, device=x.device).index_add(0, segments, x)

    def differentiable(self, steps: Differentiable, *arrays: Array) -> Array:
        if steps.static.when_run:
            grad = torch.is_grad_enabled() and steps.static.scalar
            return self._program(steps, arrays, [grad and x.requires_grad for x in arrays])[0]
        moving = torch.is_grad_enabled() and any(x.requires_grad for x in arrays)
        if not moving and forward_ad._current_level < 0:
            return steps.value(*arrays)
        value: Array = Value.apply(steps, *arrays)  # type: ignore[no-untyped-call]
        return value

    def _program(self, steps: Differentiable, arrays: Sequence[Array], wanted: Sequence[bool]) -> list[Array]:
        return run_function(steps, arrays, any(wanted)) if is_transformed() else run_operator(steps, arrays, wanted)

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        if torch.compiler.is_compiling() or not autocast():  # in a program `product` sees to it, for its gradient too
            return function(*arguments)
        with full_precision():
            return function(*arguments)


def _recorded() -> bool:
    """Whether make_fx records what is done."""
    return torch._C._len_torch_dispatch_stack() > 0 and get_proxy_mode() is not None


ADAPTERS.append(TorchBackend())
