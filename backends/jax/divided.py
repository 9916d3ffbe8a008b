"""A program whose arrays the compiler has divided over a mesh: each device runs it for its own rows.

Under `jax.jit` nothing shows how arrays are sharded over Auto axes before XLA has propagated it. `custom_partitioning` is asked
then, and puts a program with collectives in the place of one that all devices would run alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, cast

import jax
from jax.custom_batching import custom_vmap
from jax.sharding import NamedSharding, PartitionSpec

from sincere_spec.arrays import Array
from sincere_spec.backends.jax.ranks import AxisCollectives
from sincere_spec.interface import Divisible

OLDEST = (0, 7, 2)
"""The first JAX whose rules for Shardy, which are given here, can say along which axes an array is replicated."""

OLDEST_UNDER_MESH = (0, 10)
"""The first JAX that lowers `custom_partitioning` under `jax.set_mesh`: in 0.9.0 XLA had no implementation of what it made."""


def may_divide(arrays: Sequence[Array]) -> bool:
    """Whether a compiler may find these arrays divided over devices; inside `jax.shard_map` the caller has divided them."""
    if jax.__version_info__ < OLDEST or not getattr(jax.config, "jax_use_shardy_partitioner", False):
        return False
    mesh = jax.sharding.get_abstract_mesh()
    if getattr(mesh, "manual_axes", ()) or (mesh.axis_names and jax.__version_info__ < OLDEST_UNDER_MESH):
        return False
    if any(isinstance(x, jax.core.Tracer) for x in arrays):
        return jax.device_count() > 1
    return any(isinstance(x, jax.Array) and not x.is_fully_replicated for x in arrays)


def divided(program: Divisible, operands: tuple[Array, ...]) -> tuple[Array, ...]:
    """What a program makes of its operands; of those that are divided each device has its rows."""
    from jax.experimental.custom_partitioning import SdyShardingRule, custom_partitioning

    def partition(mesh: Any, given: Any, _: Any) -> Any:
        axes = _axes(program, mesh, given)

        def own(*operands: Array) -> tuple[Array, ...]:
            names = axes["rows"]
            shared = "keys" in program.rows_of and "keys" not in axes
            return program.own(AxisCollectives(names, prod(mesh.shape[name] for name in names)), shared, operands)

        everywhere = NamedSharding(mesh, PartitionSpec())  # type: ignore[no-untyped-call]
        placed = [
            NamedSharding(mesh, PartitionSpec(axes[rows])) if rows in axes else everywhere  # type: ignore[no-untyped-call]
            for rows in program.rows_of
        ]
        results = tuple(everywhere if number is None else placed[number] for number in program.like)
        return mesh, own if axes else program.whole, results, tuple(placed)

    factors: list[Any] = [
        tuple(rows if rows and axis == 0 else f"x{number}_{axis}" for axis in range(x.ndim))
        for number, (rows, x) in enumerate(zip(program.rows_of, operands, strict=True))
    ]
    rule = SdyShardingRule(
        tuple(factors),
        tuple(factors[number] if number is not None else cast(Any, ()) for number in program.like),
        need_replication_factors=tuple(name for names in factors for name in names if name[0] == "x"),
    )
    split: Any = custom_partitioning(lambda *operands: program.whole(*operands))  # type: ignore[no-untyped-call]
    split.def_partition(partition, sharding_rule=rule)
    batched = custom_vmap(lambda *operands: split(*operands))

    @batched.def_vmap
    def _(size: int, mapped: Sequence[bool], *operands: Array) -> tuple[Any, Any]:
        axes = tuple(0 if one else None for one in mapped)
        made = jax.vmap(program.whole, in_axes=axes, axis_size=size)(*operands)
        return made, (True,) * len(made)

    found: tuple[Array, ...] = batched(*operands)
    return found


def _axes(program: Divisible, mesh: Any, given: Sequence[Any]) -> dict[str | None, tuple[str, ...]]:
    """The axes of the mesh that rows, and keys, are divided over; none where not every device gets as many.

    Rows that are cut into columns alone, as by a layer of which each device has some units, are divided over the same axes.
    """
    found: dict[str | None, tuple[str, ...]] = {}
    sharded = [(rows, x.sharding) for rows, x in zip(program.rows_of, given, strict=True) if rows]
    for axis in (0, 1):
        for rows, sharding in sharded:
            names = sharding.spec[axis : axis + 1] if isinstance(sharding, NamedSharding) else ()
            if rows not in found and names and names[0] and (axis == 0 or rows == "rows"):
                found[rows] = names[0] if isinstance(names[0], tuple) else (names[0],)
    if "rows" not in found or any(rows and not x.shape[0] for rows, x in zip(program.rows_of, given, strict=True)):
        return {}
    size = prod(mesh.shape[name] for name in found["rows"])
    uneven = {rows for rows, x in zip(program.rows_of, given, strict=True) if rows and x.shape[0] % size}
    return {} if "rows" in uneven else {rows: found["rows"] for rows in found if rows not in uneven}
