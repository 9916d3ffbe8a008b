"""Rows sorted by label and padded to whole tiles: the layout of a traced program, which has one shape and cannot read labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sincere_spec.arrays import Array, Namespace
from sincere_spec.interface import TracingBackend
from sincere_spec.spec.relations import Attributes

PIECE = 32
"""The rows of the small tiles: as few as a product is still efficient with."""


@dataclass(frozen=True)
class Grid:
    """Where the tiles of a side are: the lowest and the highest label of each, and whether all of its rows are real.

    The first `used` of `count` tiles have real rows: it is a number of the program where masks say which rows take part.
    """

    size: int
    count: Any
    used: Any
    lowest: Array
    highest: Array
    whole: Array


@dataclass(frozen=True)
class PaddedRows:
    """Embeddings sorted by label and padded to whole tiles; rows outside come last, with the padding.

    `real` marks the `length` rows that take part. `order` is the permutation of all `rows`, without padding; it is None if
    they came sorted.
    """

    embeddings: Array  # [tiles * tile, d]
    attributes: Attributes  # [tiles * tile] each
    real: Array  # [tiles * tile]
    rows: Any
    length: Any
    order: Array | None  # [rows]
    tiles: Grid
    pieces: Grid

    @property
    def labels(self) -> Array:
        """The labels, ascending; those of rows that take no part are the highest."""
        return self.attributes["label"]

    @property
    def laid(self) -> tuple[Any, ...]:
        """The arrays that took a permutation to make."""
        length = () if self.length is self.rows else (self.length,)
        return self.embeddings, dict(self.attributes), length, () if self.order is None else (self.order,)

    def sorted(self, xp: Namespace, x: Array) -> Array:
        """Rows, or a vector by row, in this order."""
        return x if self.order is None else xp.take(x, self.order, axis=0)

    def restored(self, xp: Namespace, x: Array) -> Array:
        """The inverse of `laid_out`: the rows that are no padding, as they came."""
        return x[: self.rows, ...] if self.order is None else xp.take(x, xp.argsort(self.order), axis=0)


def fitted(tile: int, *lengths: Any) -> int:
    """The tile size near `tile`, and no larger, that minimises the padding of one of these lengths, of which some are known.

    Odd multiples of 32 come first: rows of a tile that lie a power of two apart contend for the same cache lines, and those
    of other lengths are multiplied less fast.
    """
    return min([tile, *(_fitted(tile, length) for length in lengths if isinstance(length, int))])


def _fitted(tile: int, length: int) -> int:
    if length <= tile:
        return max(8, -(-length // 8) * 8)
    sizes = [size for size in range(tile, tile // 2, -1) if size % 64 == 32] or [tile]
    return min(sizes, key=lambda size: -(-length // size) * size)


def sort_and_pad(
    backend: TracingBackend, embeddings: Array, attributes: Attributes, inside: Array | None, tile: int, ascending: bool
) -> PaddedRows:
    """A side of a comparison laid out for tiles of so many rows; its labels may be known to ascend."""
    xp, rows = backend.namespace(embeddings), backend.length(embeddings)
    length, order = rows, None
    count = tile_count(xp, rows, tile)
    number = xp.arange(count * tile)
    if not ascending:
        order = xp.argsort(attributes["label"], stable=True)
    if inside is not None:  # those outside last, by a second stable sort
        outside = xp.astype(~inside, number.dtype)
        length = rows - xp.sum(outside)
        last = xp.argsort(outside if order is None else xp.take(outside, order, axis=0), stable=True)
        order = last if order is None else xp.take(order, last, axis=0)
    if order is not None:
        embeddings = xp.take(embeddings, order, axis=0)
        attributes = {name: xp.take(x, order, axis=0) for name, x in attributes.items()}
    last = xp.where(number < length, number, length - 1)
    labels = backend.padded(attributes["label"], rows + 1)
    labels = xp.take(
        labels, xp.where(last < 0, 0, last), axis=0
    )  # what takes no part has the highest label, and stays last
    attributes = {name: backend.padded(x, count * tile) for name, x in attributes.items()} | {"label": labels}
    numbers = (() if inside is None else (length,), () if order is None else (order,))
    return padded_rows(xp, (backend.padded(embeddings, count * tile), attributes, *numbers), rows, tile)


def padded_rows(xp: Namespace, laid: tuple[Any, ...], rows: Any, tile: int) -> PaddedRows:
    """A side from what it had as `laid`."""
    embeddings, attributes, (length,), order = (*laid[:2], laid[2] or (rows,), laid[3])
    count, labels = tile_count(xp, rows, tile), attributes["label"]
    real = xp.arange(count * tile) < length
    piece = next(size for size in range(min(PIECE, tile), 0, -1) if tile % size == 0)
    known = length is rows
    tiles, pieces = (
        _grid(xp, labels, real, size, number, number if known else -(-length // size))
        for size, number in ((tile, count), (piece, count * (tile // piece)))
    )
    return PaddedRows(embeddings, attributes, real, rows, length, order[0] if order else None, tiles, pieces)


def tile_count(xp: Namespace, length: Any, tile: int) -> Any:
    """How many tiles there are; without any row there is one of padding. A symbol stands for one row at least."""
    count = (length + tile - 1) // tile
    if isinstance(length, int):
        return max(count, 1)
    return xp.where(count > 0, count, 1) if hasattr(length, "dtype") else count


def _grid(xp: Namespace, labels: Array, real: Array, size: int, count: Any, used: Any) -> Grid:
    table = xp.reshape(labels, (count, size))
    whole = xp.reshape(real, (count, size))[:, size - 1]  # padding is at the end of a tile
    return Grid(size, count, used, table[:, 0], table[:, size - 1], whole)


def laid_out(backend: TracingBackend, x: Array, side: PaddedRows) -> Array:
    """Rows, or a vector by row, sorted and padded as a side is."""
    xp = backend.namespace(x)
    return backend.padded(side.sorted(xp, x), side.tiles.count * side.tiles.size)
