"""Pallas kernels for sweeps over all pairs: a program owns a block of rows, and the words are the package's own functions.

Pallas compiles them for GPUs by Triton; on a CPU its interpreter runs them. No device has run them yet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as pallas_triton

from sincere_spec import elementwise, relations
from sincere_spec.backends.jax import namespace
from sincere_spec.protocol import Fold, Pairs
from sincere_spec.sweeps import Panel, Part, Pulls, Words
from sincere_spec.types import Array

# Rows and columns of a tile, entries of rows that are multiplied at a time, and entries of gradients that a program keeps.
# No device has run the kernels yet: these are guesses.
TILE, ENTRIES, WIDEST = 64, 32, 256

Ref: TypeAlias = Any
"""An array in a device's memory, of which a program reads and writes parts."""


@dataclass(frozen=True)
class Shape:
    """The rows and columns of a tile, how many columns are no padding, and the entries of a row with padding."""

    size: int
    columns: int
    entries: int

    @property
    def width(self) -> int:
        """How many entries of the gradient a program keeps."""
        return min(self.entries, WIDEST)


class PallasKernels:
    """The sweeps of `sincere_spec.sweeps.Kernels`."""

    tile = TILE

    def tally(self, words: Words, panel: Panel, shifts: Array, tile: int) -> tuple[Array, Array, Array]:
        n = panel.rows.shape[0]
        shape, arrays = _laid_out(panel, tile)
        shifts = _padded(shifts, tile, axis=1)
        out = [_like(shifts.shape, panel.rows)] * 3
        found = _launch(partial(_tally, words, shape), (shifts.shape[1] // tile,), out, *arrays, shifts)
        sums, peaks, falls = (x[:, :n] for x in found)
        return sums, peaks, falls

    def pull(
        self, words: Words, panel: Panel, own: Pulls | None, others: Pulls | None, tile: int
    ) -> tuple[Array, Array, Array]:
        n, d = panel.rows.shape
        shape, arrays = _laid_out(panel, tile)
        padded = arrays[0]
        rows = padded.shape[0]
        given = [_padded(x, tile, axis=1) for pulls in (own, others) if pulls is not None for x in pulls]
        out = [_like(size, padded) for size in (padded.shape, (rows,), (rows,))]
        program = partial(_pull, words, shape, own is not None, others is not None)
        gradient, sums, moments = _launch(program, (rows // tile, shape.entries // shape.width), out, *arrays, *given)
        return gradient[:n, :d], sums[:n], moments[:n]


def _like(shape: tuple[int, ...], x: Array) -> Any:
    return jax.ShapeDtypeStruct(shape, x.dtype)  # type: ignore[no-untyped-call]


def _launch(program: Callable[..., None], grid: tuple[int, ...], out: list[Any], *arrays: Array) -> list[Array]:
    def run(interpret: bool, *arrays: Array) -> list[Array]:
        made: list[Array] = pl.pallas_call(
            program,
            out,
            grid=grid,
            interpret=interpret,
            compiler_params=pallas_triton.CompilerParams(num_warps=4, num_stages=2),
        )(*arrays)
        return made

    result: list[Array] = lax.platform_dependent(*arrays, cpu=partial(run, True), default=partial(run, False))
    return result


def _laid_out(panel: Panel, tile: int) -> tuple[Shape, tuple[Array, ...]]:
    """A panel padded to whole tiles, with the columns of each block's labels in the place of those of each row's."""
    d = panel.rows.shape[1]
    entries = pl.next_power_of_2(max(d, 16)) if d <= WIDEST else -(-d // WIDEST) * WIDEST
    rows, columns = (jnp.pad(_padded(x, tile, axis=0), ((0, 0), (0, entries - d))) for x in (panel.rows, panel.columns))
    vectors = (_padded(x, tile, axis=0) for x in (panel.labels, panel.key_labels, panel.ids, panel.key_ids))
    first = _padded(panel.first, tile, axis=0)[::tile]
    last = jnp.max(jnp.reshape(_padded(panel.last, tile, axis=0), (-1, tile)), axis=1)
    shape = Shape(tile, panel.columns.shape[0], entries)
    parameters = (jnp.reshape(x, (1,)) for x in (panel.temperature, panel.bias))
    return shape, (rows, columns, *vectors, first, last, *parameters)


def _padded(x: Array, tile: int, axis: int) -> Array:
    """To whole tiles along an axis, and at least one."""
    count = x.shape[axis]
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, -count % tile if count else tile)
    return jnp.pad(x, widths)


@dataclass(frozen=True)
class Block:
    """The i-th rows, and what a program needs to visit tiles of columns for them.

    A program asks for its number once, and outside of loops: in them Pallas's interpreter does not know it.
    """

    words: Words
    shape: Shape
    i: Any
    refs: tuple[Ref, ...]

    @property
    def own(self) -> Any:
        """Where its rows are."""
        return pl.ds(self.i * self.shape.size, self.shape.size)

    def columns(self, j: Any) -> Any:
        """Where the columns of a tile are."""
        return pl.ds(j * self.shape.size, self.shape.size)

    def sweep(self, visit: Callable[[Any, Any], Any], state: Any) -> Any:
        """`state = visit(j, state)` for the tiles in which there are pairs of any part."""
        size, i = self.shape.size, self.i
        first, last = self.refs[6][i], self.refs[7][i]
        band = all(part.over is Pairs.POSITIVE for part in self.words.parts)
        whole = -(-self.shape.columns // size)
        return lax.fori_loop(first // size if band else 0, (last + size - 1) // size if band else whole, visit, state)

    def similarities(self, j: Any) -> Array:
        """The similarities of a tile."""
        rows, columns, size = self.refs[0], self.refs[1], self.shape.size
        step = min(ENTRIES, self.shape.entries)

        def add(k: Any, s: Array) -> Array:
            entries = pl.ds(k * step, step)
            return s + _product(rows[self.own, entries], columns[self.columns(j), entries].T)

        return lax.fori_loop(0, self.shape.entries // step, add, jnp.zeros((size, size), rows.dtype))

    def logits(self, similarity: Array) -> Array:
        """The logits of similarities."""
        temperature, bias = self.refs[8][0], self.refs[9][0]
        return self.words.logit.value(namespace, similarity) / temperature + bias

    def seen(self, part: Part, j: Any) -> Array:
        """The pairs of a tile that a part is over."""
        labels, key_labels, ids, key_ids = self.refs[2:6]
        here, there = self.own, self.columns(j)
        label, key_label = labels[here][:, None], key_labels[there][None, :]
        if self.words.partners:
            found = relations.beside_partners(label, key_label)
        else:
            positive, negative = relations.by_label(label, key_label, ids[here][:, None], key_ids[there][None, :])
            found = positive if part.over is Pairs.POSITIVE else negative
        real = j * self.shape.size + jnp.arange(self.shape.size) < self.shape.columns
        return found & real[None, :]

    def where_labels_meet(self, part: Part, j: Any, visit: Callable[[Any], Any], state: Any) -> Any:
        """`visit(state)`, or for a part over positives in a tile that has none of them the state as it is."""
        if part.over is not Pairs.POSITIVE:
            return visit(state)
        size, i = self.shape.size, self.i
        first, last = self.refs[6][i], self.refs[7][i]
        return lax.cond((j * size < last) & (j * size + size > first), visit, lambda state: state, state)


def _product(a: Array, b: Array) -> Array:
    return lax.dot(a, b, precision=lax.Precision.HIGHEST, preferred_element_type=a.dtype)


def _tally(words: Words, shape: Shape, *refs: Ref) -> None:
    *given, shifts, sums, peaks, falls = refs
    block = Block(words, shape, pl.program_id(0), tuple(given))
    nil = jnp.zeros((shape.size,), sums.dtype)

    def visit(j: Any, state: Any) -> Any:
        a = block.logits(block.similarities(j))

        def added(number: int, part: Part, tally: Any) -> Any:
            total, peak, fall = tally
            seen = block.seen(part, j)
            t = part.scale * a + part.offset - shifts[number, block.own][:, None]
            if part.fold is Fold.LOGSUMEXP:
                t = jnp.where(seen, t, -jnp.inf)
                highest = jnp.maximum(peak, jnp.max(t, axis=1))
                finite = jnp.where(highest > -jnp.inf, highest, 0.0)
                fresh = jnp.sum(jnp.exp(t - finite[:, None]), axis=1)
                return total * jnp.exp(peak - finite) + fresh, highest, fall
            t = jnp.where(seen, t, 0.0)
            total = total + jnp.sum(jnp.where(seen, elementwise.value(namespace, part.fold, t), 0.0), axis=1)
            if part.minus is not None:
                slope = jnp.where(seen, elementwise.slope(namespace, part.fold, t), 0.0)
                fall = fall + part.scale * jnp.sum(slope, axis=1)
            return total, peak, fall

        return tuple(
            block.where_labels_meet(part, j, partial(added, number, part), tally)
            for number, (part, tally) in enumerate(zip(words.parts, state, strict=True))
        )

    state = block.sweep(visit, tuple((nil, nil - jnp.inf, nil) for _ in words.parts))
    for number, tally in enumerate(state):
        for out, vector in zip((sums, peaks, falls), tally, strict=True):
            out[number, block.own] = vector


def _pull(words: Words, shape: Shape, with_own: bool, with_others: bool, *refs: Ref) -> None:
    *given, gradient, sums, moments = refs
    block = Block(words, shape, pl.program_id(0), tuple(given))
    pulls = iter(given[10:])
    own = (next(pulls), next(pulls)) if with_own else None
    others = (next(pulls), next(pulls)) if with_others else None
    columns, entries = given[1], pl.ds(pl.program_id(1) * shape.width, shape.width)
    nil = jnp.zeros((shape.size,), gradient.dtype)

    def visit(j: Any, state: Any) -> Any:
        result, total, moment = state
        similarity = block.similarities(j)
        a = block.logits(similarity)

        def shared(number: int, part: Part, pull: tuple[Array, Array]) -> tuple[Array, Array]:
            seen = block.seen(part, j)

            def share(weight: Array, shift: Array) -> Array:
                there = seen & (weight != 0.0)  # where a weight is 0 the rest may be infinite
                t = jnp.where(there, part.scale * a + part.offset - shift, 0.0)
                slope = jnp.exp(t) if part.fold is Fold.LOGSUMEXP else elementwise.slope(namespace, part.fold, t)
                return jnp.where(there, slope * weight, 0.0)

            mine, theirs = pull
            if own is not None:
                mine = mine + share(*(ref[number, block.own][:, None] for ref in own))
            if others is not None:
                theirs = theirs + share(*(ref[number, block.columns(j)][None, :] for ref in others))
            return mine, theirs

        pull = jnp.zeros_like(similarity), jnp.zeros_like(similarity)
        for number, part in enumerate(words.parts):
            pull = block.where_labels_meet(part, j, partial(shared, number, part), pull)
        mine, theirs = pull
        total = total + jnp.sum(mine, axis=1)
        moment = moment + jnp.sum(mine * words.logit.value(namespace, similarity), axis=1)
        c = (mine + theirs) * words.logit.slope(namespace, similarity)
        return result + _product(c, columns[block.columns(j), entries]), total, moment

    result, total, moment = block.sweep(visit, (jnp.zeros((shape.size, shape.width), gradient.dtype), nil, nil))
    gradient[block.own, entries] = result

    @pl.when(pl.program_id(1) == 0)
    def _() -> None:
        sums[block.own] = total
        moments[block.own] = moment
