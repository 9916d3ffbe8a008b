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

from sincere_spec.arrays import Array
from sincere_spec.backends.jax import namespace
from sincere_spec.interface import KernelSpec, LogitCotangents, Panel, Part
from sincere_spec.spec import elementwise
from sincere_spec.spec.relations import OtherLabel, SameLabel
from sincere_spec.spec.words import Fold, Pairs

Ref: TypeAlias = Any
"""An array in a device's memory, of which a program reads and writes parts."""


@dataclass(frozen=True)
class Shape:
    """The rows and columns of a program's tiles, the entries that are multiplied at a time, and how it is compiled.

    A program keeps `slices` times `width` entries of a gradient; for those of more it makes the similarities again.
    """

    tile: int
    entries: int
    width: int
    slices: int
    warps: int
    stages: int


# By the bytes of an entry: what Triton makes of the same programs without spilling registers; not measured.
SHAPES = {
    2: Shape(tile=64, entries=64, width=64, slices=8, warps=8, stages=2),
    4: Shape(tile=32, entries=16, width=256, slices=1, warps=8, stages=2),
    8: Shape(tile=32, entries=16, width=64, slices=1, warps=8, stages=2),
}


@dataclass(frozen=True)
class Layout:
    """The rows and columns of a tile, how many columns are no padding, and the entries of rows, with padding.

    Entries are multiplied `step` at a time, and a program has `slices` times `width` of the gradient.
    """

    size: int
    columns: int
    entries: int
    step: int
    width: int
    slices: int
    shape: Shape

    @property
    def programs(self) -> int:
        """How many programs share the entries of a row of the gradient."""
        return self.entries // (self.width * self.slices)


class PallasKernels:
    """The sweeps of `sincere_spec.interface.Kernels`."""

    tile = 64  # the most rows of any shape

    def tally(self, words: KernelSpec, panel: Panel, shifts: Array, tile: int) -> tuple[Array, Array, Array]:
        n = panel.rows.shape[0]
        layout, arrays = _laid_out(panel, tile)
        shifts = _padded(shifts, layout.size, axis=1)
        out = [_like(shifts.shape, shifts)] * 3
        grid = (shifts.shape[1] // layout.size,)
        found = _launch(partial(_tally, words, layout), layout.shape, grid, out, *arrays, shifts)
        sums, peaks, slope_sums = (x[:, :n] for x in found)
        return sums, peaks, slope_sums

    def pull(
        self, words: KernelSpec, panel: Panel, own: LogitCotangents | None, others: LogitCotangents | None, tile: int
    ) -> tuple[Array, Array, Array]:
        n, d = panel.rows.shape
        layout, arrays = _laid_out(panel, tile)
        rows = arrays.rows.shape[0]
        given = [_padded(x, layout.size, axis=1) for pulls in (own, others) if pulls is not None for x in pulls]
        out = [_like(size, panel.row_factors) for size in ((rows, layout.entries), (rows,), (rows,))]
        program = partial(_pull, words, layout, own is not None, others is not None)
        grid = (rows // layout.size, layout.programs)
        gradient, sums, moments = _launch(program, layout.shape, grid, out, *arrays, *given)
        return gradient[:n, :d], sums[:n], moments[:n]


def _like(shape: tuple[int, ...], x: Array) -> Any:
    return jax.ShapeDtypeStruct(shape, x.dtype)  # type: ignore[no-untyped-call]


def _launch(
    program: Callable[..., None], shape: Shape, grid: tuple[int, ...], out: list[Any], *arrays: Array
) -> list[Array]:
    def run(interpret: bool, *arrays: Array) -> list[Array]:
        made: list[Array] = pl.pallas_call(
            partial(program, interpret),
            out,
            grid=grid,
            interpret=interpret,
            compiler_params=pallas_triton.CompilerParams(num_warps=shape.warps, num_stages=shape.stages),
        )(*arrays)
        return made

    result: list[Array] = lax.platform_dependent(*arrays, cpu=partial(run, True), default=partial(run, False))
    return result


def _laid_out(panel: Panel, tile: int) -> tuple[Layout, Panel]:
    """A panel padded to whole tiles, with the columns of each block's labels in the place of those of each row's."""
    shape, d = SHAPES[panel.rows.dtype.itemsize], panel.rows.shape[1]
    size = min(tile, shape.tile)
    width = min(shape.width, pl.next_power_of_2(max(d, 16)))
    slices = max(1, -(-d // width))
    programs = -(-slices // shape.slices)
    slices = -(-slices // programs)
    entries = programs * slices * width
    layout = Layout(size, panel.columns.shape[0], entries, min(shape.entries, width), width, slices, shape)

    def whole(x: Array) -> Array:
        return _padded(x, size, axis=0)

    rows, columns = (jnp.pad(whole(x), ((0, 0), (0, entries - d))) for x in (panel.rows, panel.columns))
    return layout, Panel(
        rows,
        columns,
        whole(panel.row_factors),
        whole(panel.column_factors),
        whole(panel.labels),
        whole(panel.key_labels),
        whole(panel.ids),
        whole(panel.key_ids),
        first=whole(panel.first)[::size],
        last=jnp.max(jnp.reshape(whole(panel.last), (-1, size)), axis=1),
        temperature=jnp.reshape(panel.temperature, (1,)),
        bias=jnp.reshape(panel.bias, (1,)),
    )


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

    words: KernelSpec
    layout: Layout
    interpreted: bool
    i: Any
    refs: Panel

    @property
    def own(self) -> Any:
        """Where its rows are."""
        return pl.ds(self.i * self.layout.size, self.layout.size)

    def columns(self, j: Any) -> Any:
        """Where the columns of a tile are."""
        return pl.ds(j * self.layout.size, self.layout.size)

    @property
    def halves(self) -> bool:
        """Whether rows are of a half type."""
        return bool(self.refs.rows.dtype != self.refs.row_factors.dtype)

    def sweep(self, visit: Callable[[Any, Any], Any], state: Any) -> Any:
        """`state = visit(j, state)` for the tiles in which there are pairs of any part."""
        size, i = self.layout.size, self.i
        first, last = self.refs.first[i], self.refs.last[i]
        band = all(part.over is Pairs.POSITIVE for part in self.words.parts)
        whole = -(-self.layout.columns // size)
        return lax.fori_loop(first // size if band else 0, (last + size - 1) // size if band else whole, visit, state)

    def similarities(self, j: Any) -> Array:
        """The similarities of a tile."""
        refs, size, step = self.refs, self.layout.size, self.layout.step
        kind = refs.row_factors.dtype

        def add(k: Any, s: Array) -> Array:
            entries = pl.ds(k * step, step)
            return s + self.product(refs.rows[self.own, entries], refs.columns[self.columns(j), entries].T, kind)

        s = lax.fori_loop(0, self.layout.entries // step, add, jnp.zeros((size, size), kind))
        if self.halves:
            s = s * refs.row_factors[self.own][:, None] * refs.column_factors[self.columns(j)][None, :]
        return s

    def product(self, a: Array, b: Array, kind: Any) -> Array:
        """`a @ b`: of a half type as tensor cores multiply it, exactly and with sums of another kind."""
        if self.interpreted:  # a compiler for CPUs takes long over the same with half types
            a, b = a.astype(kind), b.astype(kind)
        return lax.dot(a, b, precision=lax.Precision.HIGHEST, preferred_element_type=kind)

    def weighed(self, c: Array, rows: Array) -> Array:
        """`c @ rows`; of half rows in pieces that tensor cores multiply exactly."""
        if not self.halves:
            return self.product(c, rows, c.dtype)
        parts = [rows] if rows.dtype == jnp.bfloat16 else _pieces(rows.astype(c.dtype), 2)
        total = jnp.zeros((c.shape[0], rows.shape[1]), c.dtype)
        for k, piece in enumerate(_pieces(c, 3)):
            for part in parts[: 3 - k]:  # what is left out is less than the last digit
                total = total + self.product(piece, part, c.dtype)
        return total

    def logits(self, similarity: Array) -> Array:
        """The logits of similarities."""
        inverse, bias = 1.0 / self.refs.temperature[0], self.refs.bias[0]
        return self.words.logit.value(namespace, similarity) * inverse + bias

    def seen(self, part: Part, j: Any) -> Array:
        """The pairs of a tile that a part is over."""
        refs, here, there = self.refs, self.own, self.columns(j)
        label, key_label = refs.labels[here][:, None], refs.key_labels[there][None, :]
        relation = OtherLabel() if self.words.partners else SameLabel()
        row = {"label": label, "sample": refs.ids[here][:, None]}
        positive, negative = relation.pair(row, {"label": key_label, "sample": refs.key_ids[there][None, :]})
        found = negative if positive is None or part.over is Pairs.NEGATIVE else positive
        real = j * self.layout.size + jnp.arange(self.layout.size) < self.layout.columns
        return found & real[None, :]

    def where_labels_meet(self, part: Part, j: Any, visit: Callable[[Any], Any], state: Any) -> Any:
        """`visit(state)`, or for a part over positives in a tile that has none of them the state as it is."""
        if part.over is not Pairs.POSITIVE:
            return visit(state)
        size, i = self.layout.size, self.i
        first, last = self.refs.first[i], self.refs.last[i]
        return lax.cond((j * size < last) & (j * size + size > first), visit, lambda state: state, state)


def _pieces(x: Array, count: int) -> list[Array]:
    """float32 as a sum of bfloat16 of 8 digits each; three are all of it."""
    found = []
    for _ in range(count):
        # A cast there and back would do, had XLA no licence to leave both out.
        upper = lax.bitcast_convert_type(x, jnp.uint32) & jnp.uint32(0xFFFF0000)
        piece = lax.bitcast_convert_type(upper, jnp.float32)
        found.append(piece.astype(jnp.bfloat16))
        x = x - piece
    return found


def _tally(words: KernelSpec, layout: Layout, interpreted: bool, *refs: Ref) -> None:
    *given, shifts, sums, peaks, slope_sums = refs
    block = Block(words, layout, interpreted, pl.program_id(0), Panel(*given))
    nil = jnp.zeros((layout.size,), sums.dtype)

    def visit(j: Any, state: Any) -> Any:
        a = block.logits(block.similarities(j))

        def added(number: int, part: Part, tally: Any) -> Any:
            total, peak, slope_sum = tally
            seen = block.seen(part, j)
            t = part.scale * a + part.offset - shifts[number, block.own][:, None]
            if part.fold is Fold.LOGSUMEXP:
                t = jnp.where(seen, t, -jnp.inf)
                highest = jnp.maximum(peak, jnp.max(t, axis=1))
                finite = jnp.where(highest > -jnp.inf, highest, 0.0)
                fresh = jnp.sum(jnp.exp(t - finite[:, None]), axis=1)
                return total * jnp.exp(peak - finite) + fresh, highest, slope_sum
            t = jnp.where(seen, t, 0.0)
            total = total + jnp.sum(jnp.where(seen, elementwise.value(namespace, part.fold, t), 0.0), axis=1)
            if part.minus is not None:
                slope = jnp.where(seen, elementwise.slope(namespace, part.fold, t), 0.0)
                slope_sum = slope_sum + part.scale * jnp.sum(slope, axis=1)
            return total, peak, slope_sum

        return tuple(
            block.where_labels_meet(part, j, partial(added, number, part), tally)
            for number, (part, tally) in enumerate(zip(words.parts, state, strict=True))
        )

    state = block.sweep(visit, tuple((nil, nil - jnp.inf, nil) for _ in words.parts))
    for number, tally in enumerate(state):
        for out, vector in zip((sums, peaks, slope_sums), tally, strict=True):
            out[number, block.own] = vector


def _pull(words: KernelSpec, layout: Layout, with_own: bool, with_others: bool, interpreted: bool, *refs: Ref) -> None:
    *given, gradient, sums, moments = refs
    panel, pulls = Panel(*given[: len(Panel._fields)]), iter(given[len(Panel._fields) :])
    block = Block(words, layout, interpreted, pl.program_id(0), panel)
    own = (next(pulls), next(pulls)) if with_own else None
    others = (next(pulls), next(pulls)) if with_others else None
    begin = pl.program_id(1) * (layout.slices * layout.width)
    slices = [pl.ds(begin + k * layout.width, layout.width) for k in range(layout.slices)]
    nil = jnp.zeros((layout.size,), gradient.dtype)

    def visit(j: Any, state: Any) -> Any:
        results, total, moment = state
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
        if block.halves:
            c = c * panel.column_factors[block.columns(j)][None, :]
        results = tuple(
            result + block.weighed(c, panel.columns[block.columns(j), entries])
            for result, entries in zip(results, slices, strict=True)
        )
        return results, total, moment

    nothing = jnp.zeros((layout.size, layout.width), gradient.dtype)
    results, total, moment = block.sweep(visit, (tuple(nothing for _ in slices), nil, nil))
    for entries, result in zip(slices, results, strict=True):
        gradient[block.own, entries] = result

    @pl.when(pl.program_id(1) == 0)
    def _() -> None:
        sums[block.own] = total
        moments[block.own] = moment
