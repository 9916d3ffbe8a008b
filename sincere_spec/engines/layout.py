"""Rows sorted by label, and cut into tiles that need a mask only near the diagonal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from sincere_spec.types import Array, Backend

BAND = 128
"""Where a tile needs a mask it is cut again, into pieces of so many rows: most of these need none."""


@dataclass(frozen=True)
class Side:
    """Embeddings sorted by label; the sorted labels on the host, and where pieces and tiles of them begin."""

    embeddings: Array
    labels: Array
    ids: Array
    order: Array
    classes: list[int]
    pieces: tuple[int, ...]
    tiles: tuple[int, ...]

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.classes)


@dataclass(frozen=True)
class Tile:
    """Some rows and some columns, and whether all of their pairs are negatives or a mask must say which."""

    rows: slice
    columns: slice
    masked: bool


def sort_by_label(backend: Backend, embeddings: Array, labels: Array, ids: Array, tile: int) -> Side:
    """A side of a comparison laid out for tiles of at most so many rows."""
    xp = backend.namespace(embeddings)
    order = xp.argsort(labels)
    labels = xp.take(labels, order, axis=0)
    classes = backend.to_host(labels).tolist()
    pieces = _cut(classes, min(tile, BAND))
    return Side(
        embeddings=xp.take(embeddings, order, axis=0),
        labels=labels,
        ids=xp.take(ids, order, axis=0),
        order=order,
        classes=classes,
        pieces=pieces,
        tiles=_grouped(pieces, tile),
    )


def tiles_of(anchors: Side, columns: Side, masked: bool) -> Iterator[Tile]:
    """Every pair of rows once, in tiles; one triangle of them if the columns are the anchors.

    With `masked` every tile is under a mask: then labels alone do not say which pairs are negatives.
    """
    symmetric = columns is anchors
    for i, start in enumerate(anchors.tiles[:-1]):
        rows = slice(start, anchors.tiles[i + 1])
        for j in range(i if symmetric else 0, len(columns.tiles) - 1):
            across = slice(columns.tiles[j], columns.tiles[j + 1])
            if masked or not _overlap(anchors, rows, columns, across):
                yield Tile(rows, across, masked)
            else:
                yield from _pieces(anchors, rows, columns, across, symmetric and i == j)


def _pieces(anchors: Side, rows: slice, columns: Side, across: slice, triangle: bool) -> Iterator[Tile]:
    """A tile cut into pieces under masks, and strips of negatives between them."""
    for piece in _within(anchors.pieces, rows):
        clear: list[slice] = []
        for other in _within(columns.pieces, across):
            if triangle and other.start < piece.start:
                continue
            if not _overlap(anchors, piece, columns, other):
                if clear and clear[-1].stop == other.start:
                    clear[-1] = slice(clear[-1].start, other.stop)
                else:
                    clear.append(other)
            else:
                yield Tile(piece, other, True)
        for strip in clear:
            yield Tile(piece, strip, False)


def _overlap(anchors: Side, rows: slice, columns: Side, across: slice) -> bool:
    """Whether some label of sorted rows may be one of sorted columns."""
    lowest, highest = columns.classes[across.start], columns.classes[across.stop - 1]
    return bool(anchors.classes[rows.start] <= highest and lowest <= anchors.classes[rows.stop - 1])


def _within(starts: tuple[int, ...], span: slice) -> list[slice]:
    return [slice(start, stop) for start, stop in pairwise(starts) if span.start <= start and stop <= span.stop]


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
