"""Arrays spread over the devices of a mesh, as their types say: inside `jax.shard_map`, and where axes are Explicit."""

from __future__ import annotations

from typing import Any

import jax
from jax import lax

from sincere_spec.arrays import Array, T
from sincere_spec.errors import EngineUnavailable


def refuse_explicit(x: Array, argument: str) -> None:
    """Raise for an array that is sharded over Explicit axes: JAX asks each operation on it for the sharding of its result."""
    axes = [axis for axis in jax.typeof(x).sharding.spec if axis is not None] if hasattr(jax, "typeof") else []
    if axes:
        raise EngineUnavailable(
            f"{argument} is sharded over {', '.join(map(repr, axes))} of a mesh with Explicit axes, and an engine compares all "
            "rows with all. Call the loss inside jax.shard_map with across= and the name of the axis, where each device has "
            "its own rows; or inside jax.sharding.auto_axes(..., out_sharding=jax.P()); or give it whole arrays, "
            "jax.sharding.reshard(x, jax.P())."
        )


def varying_alike(tree: T) -> T:
    """The same arrays, each varying over all axes of a mesh that any of them varies over: a loop's carry must not change.

    JAX transposes it to a sum over these axes, so what came replicated gets the gradient of all devices.
    """
    leaves = jax.tree.leaves(tree)
    if not any(isinstance(x, jax.core.Tracer) for x in leaves):
        return tree
    axes = frozenset().union(*map(_axes, leaves))
    result: T = jax.tree.map(lambda x: _varying(x, axes - _axes(x)), tree) if axes else tree
    return result


def _axes(x: Any) -> frozenset[str]:
    """The axes over which an array varies; none without `jax.shard_map`, or where it does not check them."""
    if not isinstance(x, jax.core.Tracer) or not hasattr(jax, "typeof"):  # which came with such types
        return frozenset()
    kind = jax.typeof(x)
    kind = getattr(kind, "mat", kind)  # since JAX 0.10
    found: frozenset[str] = frozenset(getattr(kind, "vma", getattr(kind, "varying", ())))
    return found


def _varying(x: Array, axes: frozenset[str]) -> Array:
    if not axes:
        return x
    names = tuple(sorted(axes))
    older: Any = lax
    return lax.pcast(x, names, to="varying") if hasattr(lax, "pcast") else older.pvary(x, names)
