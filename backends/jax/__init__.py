"""JAX: its transforms get the gradient of every engine by rules of `transforms`, and differentiate the dense one further."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sincere_spec.arrays import Array, Namespace, T
from sincere_spec.backends.jax import divided, host, namespace, ranks
from sincere_spec.backends.jax.sharded import refuse_explicit, varying_alike
from sincere_spec.backends.jax.transforms import row_values, scalar_value
from sincere_spec.errors import EngineUnavailable, UnknownArrayError
from sincere_spec.interface import Collectives, Differentiable, Divisible, Kernels
from sincere_spec.spec.words import Logit

OLDEST_TILES = (0, 7)
"""The first JAX that differentiates tiles inside `shard_map` right where a temperature is traced: 0.6.2 gives other numbers."""

OLDEST_PALLAS = (0, 6, 2)
"""The first JAX whose Pallas has the compiler parameters of `kernels`."""


class JaxBackend:
    """Arrays and tracers."""

    name = "jax"
    traces = True

    def namespace(self, x: Array) -> Namespace:
        return namespace

    def prepare(self, x: Array, argument: str) -> Array:
        if not isinstance(x, jax.Array):
            raise UnknownArrayError(
                f"{argument}: expected a dense jax.Array; got jax's {type(x).__name__}: convert it."
            )
        refuse_explicit(x, argument)
        return x

    def dtype_name(self, x: Array) -> str:
        return str(x.dtype)

    def dtype(self, name: str, like: Array) -> Any:
        return jnp.dtype(name)

    def device(self, x: Array) -> object:
        return None  # jax moves and shards arrays itself, and refuses what it cannot place

    def platform(self, x: Array) -> str:
        kind = next(iter(x.devices())).platform if self.concrete(x) else jax.default_backend()
        return "cuda" if kind == "gpu" else kind

    def concrete(self, x: Array) -> bool:
        return host.concrete(x)

    def on_host(self, x: Array) -> bool:
        return host.on_host(x)

    def extremes(self, x: Array) -> tuple[float, float]:
        values = np.asarray(x)
        return float(values.min()), float(values.max())

    def to_host(self, x: Array) -> Any:
        return jax.device_get(x)

    def integers(self, values: Sequence[int], like: Array) -> Array:
        return jnp.asarray(values, dtype=jnp.int32)

    def length(self, x: Array) -> Any:
        return x.shape[0]

    def indices(self, x: Array) -> Array:
        if not self.concrete(x):
            return jnp.arange(x.shape[0])
        return jax.device_put(np.arange(x.shape[0], dtype=jax.dtypes.canonicalize_dtype(int)))  # compiles nothing

    def hold(self, x: Array) -> Array:
        return lax.stop_gradient(x) if isinstance(x, jax.core.Tracer) else x

    def product(self, a: Array, b: Array) -> Array:
        return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)

    def exp_of(self, x: Array) -> Array:
        return self.namespace(x).exp(x)

    def has_columns(self, like: Array) -> bool:
        return False

    def tiles_obstacle(self, like: Array) -> str | None:
        if self.concrete(like) or jax.__version_info__ >= OLDEST_TILES:
            return None
        return f"its tiles need JAX 0.7 or later inside a transform, and {jax.__version__} is installed"

    def when_run(self, like: Array) -> str | None:
        return None

    def kernels(self, like: Array, logit: Logit) -> Kernels | str:
        platform = self.platform(like)
        if platform not in ("cpu", "cuda"):
            return f"the kernels are for GPUs that Triton knows, and the arrays are on {platform}"
        if jax.__version_info__ < OLDEST_PALLAS:
            oldest = ".".join(map(str, OLDEST_PALLAS))
            return f"its Pallas kernels need JAX {oldest} or later, and {jax.__version__} is installed"
        try:
            from sincere_spec.backends.jax.kernels import PallasKernels
        except ImportError as error:
            return f"JAX {jax.__version__} has no Pallas by Triton ({error})"
        return PallasKernels()

    def collectives(self, group: object) -> Collectives | str:
        return ranks.collectives(group)

    def wants_gradient(self, x: Array) -> bool:
        return True

    def largest(self, x: Array, k: int) -> tuple[Array, Array]:
        values, columns = lax.top_k(x, k)
        return values, columns

    def segment_sums(self, x: Array, segments: Array, count: int) -> Array:
        return jax.ops.segment_sum(x, segments, count)

    def differentiable(self, steps: Differentiable, *arrays: Array) -> Array:
        # A rule's gradient is rounded before it meets the cotangent: in half precision it could vanish.
        full = (jnp.promote_types(x.dtype, jnp.float32) for x in arrays)
        arrays = tuple(x if x.dtype == kind else x.astype(kind) for x, kind in zip(arrays, full, strict=True))
        if steps.static.scalar:
            return scalar_value(steps.static, steps.constants, arrays)
        try:
            return row_values(steps.static, *varying_alike((steps.constants, arrays)))
        except TypeError as error:
            if "forward-mode" not in str(error):
                raise
            raise EngineUnavailable(
                'jax has no rule for forward mode through tiles of a vector of row losses; ask for engine="dense".'
            ) from error

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        return function(*arguments)

    def loop(self, start: Any, stop: Any, body: Callable[[Any, Any], Any], state: Any) -> Any:
        return lax.fori_loop(start, stop, body, varying_alike(state))

    def when(self, condition: Array, yes: Callable[[], T], no: Callable[[], T]) -> T:
        result: T = lax.cond(condition, yes, no)
        return result

    def rows_of(self, x: Array, start: Any, count: int) -> Array:
        if self.on_host(x) and isinstance(start, int):
            return host.beside(x, np.asarray(x)[start : start + count])
        return lax.dynamic_slice_in_dim(x, start, count)

    def with_rows(self, x: Array, rows: Array, start: Any) -> Array:
        return lax.dynamic_update_slice_in_dim(x, rows, start, 0)

    def padded(self, x: Array, count: Any) -> Array:
        if self.on_host(x):
            rows = np.zeros((count, *x.shape[1:]), x.dtype)
            rows[: len(x)] = np.asarray(x)
            return host.beside(x, rows)
        return jnp.pad(x, [(0, count - x.shape[0])] + [(0, 0)] * (x.ndim - 1))

    def first_rows(self, count: int, size: int) -> Array:
        return jax.device_put(np.arange(size) < count)

    def runs_by_size(self, arrays: Sequence[Array], dense: bool) -> bool:
        return all(self.concrete(x) and len(x.devices()) == 1 for x in arrays)

    def copies(self, x: Array) -> int:
        # Under jit JAX does not show over which Auto axes an array is sharded.
        shape = x.sharding.shard_shape(x.shape) if self.concrete(x) else x.shape
        return next((many // one for many, one in zip(x.shape, shape, strict=True) if one < many), 1)

    def may_divide(self, arrays: Sequence[Array]) -> bool:
        return divided.may_divide(arrays)

    def divided(self, program: Divisible, operands: tuple[Array, ...]) -> tuple[Array, ...]:
        return divided.divided(program, operands)

    def number(self, value: float, dtype: str) -> Array:
        return jnp.asarray(value, dtype=dtype)

    def gradient_follows(self) -> bool:
        return True

    def run(self, function: Callable[..., T], static: Hashable, *arrays: Any) -> T:
        result: T = _compiled(function, static, varying_alike(arrays))
        return result


@partial(jax.jit, static_argnums=(0, 1))
def _compiled(function: Callable[..., Any], static: Hashable, arrays: tuple[Any, ...]) -> Any:
    return function(static, *arrays)
