"""Batches of many sizes in a few programs: rows are padded to a bucket, and take no part there, as those outside of `where`.

A compiled program has one shape. The first sizes of a call are not padded, as most trainings have one size, and a last batch,
and each of them has a program. What comes after them is padded. Where a process makes many different calls, later ones of whole
matrices are made by single operations, which calls share. Inside a caller's own program shapes are fixed, and nothing is padded;
but for a number of rows that it does not know: tiles are a program of their own there, for each number that comes.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from itertools import pairwise
from typing import Any, NamedTuple

from sincere_spec.arrays import Array, Namespace
from sincere_spec.interface import TracingBackend
from sincere_spec.spec.words import Roles

OWN_SIZES = 2
"""How many sizes of a call are not padded. A size stays what it was, so that a call that is repeated gives the same bits."""

BUCKETS = (512, 1024, 1536, 2048, 4096, 8192)
"""The first buckets: a matrix of 512 rows costs next to nothing, and loops over tiles end with the real rows."""

OWN_CALLS = 64
"""How many calls of a process have programs for whole matrices, the first ones: a program is about a megabyte and ten mappings of
memory, of which Linux allows 65530. A training makes few different calls, a comparison of numbers thousands."""


class _Sizes(NamedTuple):
    """The sizes of a call that are not padded, and whether whole matrices of these sizes have programs."""

    own: set[tuple[int, ...]]
    compiled: bool


_calls: dict[Any, _Sizes] = {}


class Program(Enum):
    """What runs a call: single operations, a program for its sizes, or one for the buckets of these."""

    NONE = "none"
    OWN = "own"
    SHARED = "shared"


def bucket(rows: int) -> int:
    """The size that so many rows are padded to; beyond the first buckets a power of two, or one and a half of one."""
    size = next((size for size in BUCKETS if size >= rows), BUCKETS[-1])
    while size < rows:
        size = size // 2 * 3 if size & (size - 1) == 0 else size // 3 * 4
    return size


def bucket_of_unknown(backend: TracingBackend, rows: Array) -> Array:
    """The same for a number that is known when the program runs, and no larger than 2^30.

    Few operations on vectors: XLA evaluates the size while it compiles, in a time that grows fast with their number.
    """
    sizes = [bucket(1)]
    while sizes[-1] < 2**30:
        sizes.append(bucket(sizes[-1] + 1))
    xp = backend.namespace(rows)
    below = xp.astype(backend.integers(sizes[:-1], rows), rows.dtype)  # [sizes - 1]
    steps = xp.astype(backend.integers([size - less for less, size in pairwise(sizes)], rows), rows.dtype)
    return sizes[0] + xp.sum(xp.where(rows > below, steps, 0))


def program_of(call: Any, sizes: tuple[int, ...], dense: bool) -> Program:
    """What runs a call with arrays of these sizes, which is remembered."""
    known = _calls.setdefault(call, _Sizes(set(), compiled=not dense or len(_calls) < OWN_CALLS))
    if len(known.own) < OWN_SIZES:
        known.own.add(sizes)
    if sizes not in known.own:
        return Program.SHARED
    return Program.OWN if known.compiled else Program.NONE


class Padding(NamedTuple):
    """By array its rows and its mask, which has as many rows as it is padded to; arrays of one size share a mask."""

    backend: TracingBackend
    roles: Roles
    rows: Mapping[str, Any]
    masks: Mapping[str, Array]

    def array(self, name: str, x: Array) -> Array:
        """One array, or what is beside its rows, padded; a parameter as it is."""
        return self.backend.padded(x, self.backend.length(self.masks[name])) if name in self.masks else x

    def restored(self, name: str, x: Array | None) -> Array | None:
        """The inverse of `array`."""
        return x if x is None or name not in self.masks else self.backend.rows_of(x, 0, self.rows[name])

    def vector(self, xp: Namespace, names: tuple[str, ...], x: Array) -> Array:
        """A vector by the rows of several arrays, padded as they are."""
        parts, start = [], 0
        for name in names:
            own = x if len(names) == 1 else self.backend.rows_of(x, start, self.rows[name])
            parts.append(self.array(name, own))
            start += self.rows[name]
        return parts[0] if len(parts) == 1 else xp.concat(parts, axis=0)

    def restored_vector(self, xp: Namespace, names: tuple[str, ...], x: Array) -> Array:
        """The inverse of `vector`."""
        parts, start = [], 0
        for name in names:
            parts.append(self.backend.rows_of(x, start, self.rows[name]))
            start += self.backend.length(self.masks[name])
        return parts[0] if len(parts) == 1 else xp.concat(parts, axis=0)

    @property
    def with_loss(self) -> tuple[str, ...]:
        """The arrays whose rows have a loss, in their order."""
        return (*self.roles.anchors, *(self.roles.keys if self.roles.both_ways else ()))
