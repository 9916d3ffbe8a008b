"""The collectives of the devices along an axis of a mesh, inside `jax.shard_map` and `jax.pmap`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jax import lax

from sincere_spec.arrays import Array


@dataclass(frozen=True)
class AxisCollectives:
    """What the devices along some axes exchange; each has as many rows."""

    names: tuple[str, ...]
    size: int
    on_host = False
    compiled = True

    @property
    def rank(self) -> Any:
        """The device's place along the axes."""
        return lax.axis_index(self.names)

    def gather(self, x: Array, sizes: Sequence[int]) -> Array:
        return lax.all_gather(x, self.names, axis=0, tiled=True)

    def total(self, x: Array) -> Array:
        return lax.psum(x, self.names)  # type: ignore[no-untyped-call]

    def scatter(self, x: Array, own: Array, sizes: Sequence[int]) -> Array:
        return lax.psum_scatter(x, self.names, scatter_dimension=0, tiled=True)  # type: ignore[no-untyped-call]

    def before(self, x: Array) -> Any:
        return self.rank * x.shape[0]


def collectives(group: object) -> AxisCollectives | str:
    """Those along axes that a program has here; or why there are none, as half a sentence."""
    names = (group,) if isinstance(group, str) else group
    if not isinstance(names, tuple) or not names or not all(isinstance(name, str) for name in names):
        return f"JAX wants the name of an axis, or a tuple of names; got {group!r}"
    try:
        size = lax.psum(1, names)  # type: ignore[no-untyped-call]
    except NameError:
        return f"there is no axis {', '.join(map(repr, names))} here: call it inside jax.shard_map or jax.pmap over it"
    return AxisCollectives(names, size)
