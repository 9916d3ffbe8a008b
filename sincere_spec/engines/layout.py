"""Rows sorted by label, and cut into tiles that need a mask only near the diagonal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from sincere_spec.types import Array, Backend, Namespace

BAND = 128
"""The rows of a piece: where a tile needs a mask, it is laid over these, and most of them need none."""


@dataclass(frozen=True)
class Side:
    """Embeddings sorted by label; the sorted labels on the host, and where pieces and tiles of them begin.

    `order` says which row is where; it is None if the rows came sorted.
    """

    embeddings: Array
    labels: Array
    ids: Array
    order: Array | None
    classes: list[int]
    pieces: tuple[int, ...]
    tiles: tuple[int, ...]

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.classes)

    def sorted(self, xp: Namespace, x: Array) -> Array:
        """Rows, or a vector by row, in the order of this side."""
        return x if self.order is None else xp.take(x, self.order, axis=0)

    def restored(self, xp: Namespace, x: Array) -> Array:
        """The inverse of `sorted`."""
        return x if self.order is None else xp.take(x, xp.argsort(self.order), axis=0)


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


def sort_by_label(backend: Backend, embeddings: Array, labels: Array, ids: Array, tile: int) -> Side:
    """A side of a comparison laid out for tiles of at most so many rows."""
    xp = backend.namespace(embeddings)
    classes = backend.to_host(labels).tolist()
    order = None
    if any(here > following for here, following in pairwise(classes)):
        order = xp.argsort(labels)
        classes.sort()
    pieces = _cut(classes, min(tile, BAND))
    return Side(
        embeddings=embeddings if order is None else xp.take(embeddings, order, axis=0),
        labels=labels if order is None else xp.take(labels, order, axis=0),
        ids=ids if order is None else xp.take(ids, order, axis=0),
        order=order,
        classes=classes,
        pieces=pieces,
        tiles=_grouped(pieces, tile),
    )


def tiles_of(anchors: Side, columns: Side, anywhere: bool) -> Iterator[Tile]:
    """Every pair of rows once, in tiles; where the columns are the anchors, one triangle of tiles.

    With `anywhere` labels do not say where there are only negatives, and every tile is a band.
    """
    for i, rows in enumerate(spans(anchors.tiles)):
        for across in spans(columns.tiles)[i if columns is anchors else 0 :]:
            if anywhere:
                bands: tuple[Piece, ...] = (Piece(rows, across),)
            elif _overlap(anchors, rows, columns, across):
                bands = tuple(_bands(anchors, rows, columns, across))
            else:
                bands = ()
            yield Tile(rows, across, bands)


def _bands(anchors: Side, rows: slice, columns: Side, across: slice) -> Iterator[Piece]:
    for piece in _within(anchors.pieces, rows):
        for other in _within(columns.pieces, across):
            if _overlap(anchors, piece, columns, other):
                yield Piece(piece, other)


def _overlap(anchors: Side, rows: slice, columns: Side, across: slice) -> bool:
    """Whether some label of sorted rows may be one of sorted columns."""
    lowest, highest = columns.classes[across.start], columns.classes[across.stop - 1]
    return bool(anchors.classes[rows.start] <= highest and lowest <= anchors.classes[rows.stop - 1])


def _within(starts: tuple[int, ...], span: slice) -> list[slice]:
    return [piece for piece in spans(starts) if span.start <= piece.start and piece.stop <= span.stop]


def spans(starts: tuple[int, ...]) -> list[slice]:
    """The rows between one beginning and the next."""
    return [slice(start, stop) for start, stop in pairwise(starts)]


def _cut(classes: list[int], size: int) -> tuple[int, ...]:
    """Where pieces begin: every `size` rows, or up to half of that before, where a class ends."""
    if not classes:
        return (0,)
    starts = [0]
    while len(classes) - starts[-1] > size:
        stop = starts[-1] + size
        end = next((e for e in range(stop, stop - size // 2, -1) if classes[e - 1] != classes[e]), stop)
        starts.append(end)
    return (*starts, len(classes))


def _grouped(pieces: tuple[int, ...], size: int) -> tuple[int, ...]:
    """As many pieces as fit, to a tile."""
    starts = [0]
    for here, following in pairwise(pieces[1:]):
        if following - starts[-1] > size:
            starts.append(here)
    return (*starts, pieces[-1]) if pieces[-1] else pieces
