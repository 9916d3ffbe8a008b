"""Rows in the order of their labels, and cut into tiles that need a mask only where labels meet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from sincere_spec.arrays import Array, Namespace
from sincere_spec.interface import Backend
from sincere_spec.spec.relations import Attributes

BAND_ROWS = 128
"""The rows of a piece: where a tile needs a mask, it is laid over these, and most of them need none."""

ALIGNED, UNALIGNED = 16, 128
"""Tiles have a multiple of 16 rows, but for the last: a product is written a sixth slower to rows of any other length.

And not a multiple of 128: power-of-two strides alias in cache, and a product is as much slower.
"""


@dataclass(frozen=True)
class Strip:
    """Rows of which tiles are made, their labels ascending, and the pieces of them: cut where a class ends, if one is near."""

    rows: slice
    pieces: tuple[slice, ...]


@dataclass(frozen=True)
class RowOrder:
    """An order of rows in which the labels of each strip ascend; and the labels on the host.

    `order` is the permutation; None if rows came so.
    """

    attributes: Attributes  # [n] each
    order: Array | None  # [n]
    classes: list[int]
    strips: tuple[Strip, ...]
    inverse: Array | None = None  # [n], of `order`

    @property
    def labels(self) -> Array:
        """The labels, ascending unless rows are views of the same samples."""
        return self.attributes["label"]

    @property
    def length(self) -> int:
        """How many rows there are."""
        return len(self.classes)

    def of(self, rows: slice) -> Attributes:
        """The attributes of some rows."""
        return {name: x[rows, ...] for name, x in self.attributes.items()}

    def beside(self, xp: Namespace, attributes: Attributes) -> RowOrder:
        """The same order of other rows, whose labels are these."""
        return replace(self, attributes={name: self.sorted(xp, x) for name, x in attributes.items()})

    def cut(self, size: int) -> RowOrder:
        """The same order in strips of at most so many rows, where all labels ascend."""
        return replace(self, strips=tuple(_strips(self.classes, 0, self.length, size)))

    def alone(self, strip: Strip) -> RowOrder:
        """One strip of it, whose rows are sorted already."""
        start, stop = strip.rows.start, strip.rows.stop
        pieces = tuple(slice(piece.start - start, piece.stop - start) for piece in strip.pieces)
        return RowOrder(
            attributes=self.of(strip.rows),
            order=None,
            classes=self.classes[start:stop],
            strips=(Strip(slice(0, stop - start), pieces),),
        )

    def sorted(self, xp: Namespace, x: Array) -> Array:
        """Rows, or a vector by row, in this order."""
        return x if self.order is None else xp.take(x, self.order, axis=0)

    def restored(self, xp: Namespace, x: Array) -> Array:
        """The inverse of `sorted`."""
        return x if self.inverse is None else xp.take(x, self.inverse, axis=0)


@dataclass(frozen=True)
class Piece:
    """Some rows and some columns."""

    rows: slice
    columns: slice

    def of(self, tile: Tile, x: Array) -> Array:
        """Its part of an array that belongs to a tile."""
        i, j = tile.rows.start, tile.columns.start
        return x[self.rows.start - i : self.rows.stop - i, self.columns.start - j : self.columns.stop - j]


@dataclass(frozen=True)
class Tile(Piece):
    """Some rows and some columns, and the pieces of it in which there may be more than negatives."""

    bands: tuple[Piece, ...]


def sort_rows(backend: Backend, attributes: Attributes, tile: int, views: int | None) -> RowOrder:
    """The order for tiles of at most so many rows: by label, unless rows are so many views of the same samples."""
    labels = attributes["label"]
    xp = backend.namespace(labels)
    classes = backend.to_host(labels).tolist()
    order = None
    if views is None and any(here > following for here, following in pairwise(classes)):
        order = xp.argsort(labels)
        classes.sort()
    count, whole = views or 1, len(classes)
    ends = [whole * view // count for view in range(count + 1)]
    return RowOrder(
        attributes={name: x if order is None else xp.take(x, order, axis=0) for name, x in attributes.items()},
        order=order,
        classes=classes,
        inverse=None if order is None else xp.argsort(order),
        strips=tuple(strip for start, stop in pairwise(ends) for strip in _strips(classes, start, stop, tile)),
    )


def tiles_of(anchors: RowOrder, columns: RowOrder, anywhere: bool) -> Iterator[Tile]:
    """Every pair of rows once, in tiles; where the columns are the anchors, one triangle of tiles.

    With `anywhere` labels do not say where there are only negatives, and every tile is a band.
    """
    for i, strip in enumerate(anchors.strips):
        for across in columns.strips[i if columns is anchors else 0 :]:
            if anywhere:
                bands: tuple[Piece, ...] = (Piece(strip.rows, across.rows),)
            elif _overlap(anchors, strip.rows, columns, across.rows):
                pairs = (Piece(piece, other) for piece in strip.pieces for other in across.pieces)
                bands = tuple(pair for pair in pairs if _overlap(anchors, pair.rows, columns, pair.columns))
            else:
                bands = ()
            yield Tile(strip.rows, across.rows, bands)


def _overlap(anchors: RowOrder, rows: slice, columns: RowOrder, across: slice) -> bool:
    """Whether some label of ascending rows may be one of ascending columns."""
    lowest, highest = columns.classes[across.start], columns.classes[across.stop - 1]
    return bool(anchors.classes[rows.start] <= highest and lowest <= anchors.classes[rows.stop - 1])


def _strips(classes: list[int], start: int, stop: int, tile: int) -> Iterator[Strip]:
    """As few strips of at most so many rows as there can be, and of about the same length."""
    count = -(-(stop - start) // tile)
    if not count:
        return
    size = -(-(stop - start) // count)
    size = -(-size // ALIGNED) * ALIGNED
    size = min(tile, size if size % UNALIGNED else size + ALIGNED)
    for first in range(start, stop, size):
        last = min(first + size, stop)
        yield Strip(slice(first, last), tuple(_pieces(classes, first, last, min(tile, BAND_ROWS))))


def _pieces(classes: list[int], start: int, stop: int, size: int) -> Iterator[slice]:
    """Every `size` rows, or up to half of that before, where a class ends."""
    while stop - start > size:
        last = start + size
        end = next((e for e in range(last, last - size // 2, -1) if classes[e - 1] != classes[e]), last)
        yield slice(start, end)
        start = end
    yield slice(start, stop)
