"""Rows sorted by label and padded to whole tiles: the layout of a traced program, which has one shape and cannot read labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sincere_spec.arrays import Array, Namespace
from sincere_spec.interface import TracingBackend

PIECE = 32
"""The rows of the small tiles: as few as a product is still efficient with."""


@dataclass(frozen=True)
class Grid:
    """Where the tiles of a side are: the lowest and the highest label of each, and whether all of its rows are real."""

    size: int
    count: Any
    lowest: Array
    highest: Array
    whole: Array


@dataclass(frozen=True)
class PaddedRows:
    """Embeddings sorted by label and padded to whole tiles; `real` marks the `length` rows that are no padding.

    `order` is the permutation, without padding; it is None if the rows came sorted.
    """

    embeddings: Array  # [tiles * tile, d]
    labels: Array  # [tiles * tile]
    ids: Array  # [tiles * tile]
    real: Array  # [tiles * tile]
    length: Any
    order: Array | None  # [length]
    tiles: Grid
    pieces: Grid

    @property
    def laid(self) -> tuple[Array, ...]:
        """The arrays that took a permutation to make."""
        return (self.embeddings, self.labels, self.ids, *(() if self.order is None else (self.order,)))

    def sorted(self, xp: Namespace, x: Array) -> Array:
        """Rows, or a vector by row, in this order."""
        return x if self.order is None else xp.take(x, self.order, axis=0)

    def restored(self, xp: Namespace, x: Array) -> Array:
        """The inverse of `laid_out`: the rows that are no padding, as they came."""
        return x[: self.length, ...] if self.order is None else xp.take(x, xp.argsort(self.order), axis=0)


def fitted(tile: int, length: int) -> int:
    """The tile size near `tile` that minimises padding.

    Odd multiples of 32 come first: rows of a tile that lie a power of two apart contend for the same cache lines, and those
    of other lengths are multiplied less fast.
    """
    if length <= tile:
        return max(8, -(-length // 8) * 8)
    sizes = [size for size in range(tile, 3 * tile // 4, -1) if size % 64 == 32] or [tile]
    return min(sizes, key=lambda size: -(-length // size) * size)


def sort_and_pad(
    backend: TracingBackend, embeddings: Array, labels: Array, ids: Array, tile: int, ascending: bool
) -> PaddedRows:
    """A side of a comparison laid out for tiles of so many rows; its labels may be known to ascend."""
    xp, length = backend.namespace(embeddings), backend.length(embeddings)
    order = None if ascending else xp.argsort(labels, stable=True)
    if order is not None:
        embeddings, labels, ids = (xp.take(x, order, axis=0) for x in (embeddings, labels, ids))
    count = tile_count(xp, length, tile)
    labels = backend.padded(labels, length + 1)
    number = xp.arange(count * tile)
    last = xp.where(number < length, number, length - 1)
    labels = xp.take(labels, xp.where(last < 0, 0, last), axis=0)  # padding has the highest label, and stays last
    embeddings, ids = (backend.padded(x, count * tile) for x in (embeddings, ids))
    return padded_rows(xp, (embeddings, labels, ids, *(() if order is None else (order,))), length, tile)


def padded_rows(xp: Namespace, laid: tuple[Array, ...], length: Any, tile: int) -> PaddedRows:
    """A side from what it had as `laid`."""
    embeddings, labels, ids, *order = laid
    count = tile_count(xp, length, tile)
    real = xp.arange(count * tile) < length
    piece = next(size for size in range(min(PIECE, tile), 0, -1) if tile % size == 0)
    tiles = _grid(xp, labels, real, tile, count)
    pieces = _grid(xp, labels, real, piece, count * (tile // piece))
    return PaddedRows(embeddings, labels, ids, real, length, order[0] if order else None, tiles, pieces)


def tile_count(xp: Namespace, length: Any, tile: int) -> Any:
    """How many tiles there are; without any row there is one of padding."""
    count = -(-length // tile)
    return max(count, 1) if isinstance(length, int) else xp.where(count > 0, count, 1)


def _grid(xp: Namespace, labels: Array, real: Array, size: int, count: Any) -> Grid:
    table = xp.reshape(labels, (count, size))
    whole = xp.reshape(real, (count, size))[:, size - 1]  # padding is at the end of a tile
    return Grid(size, count, table[:, 0], table[:, size - 1], whole)


def laid_out(backend: TracingBackend, x: Array, side: PaddedRows) -> Array:
    """Rows, or a vector by row, sorted and padded as a side is."""
    xp = backend.namespace(x)
    return backend.padded(side.sorted(xp, x), side.tiles.count * side.tiles.size)
