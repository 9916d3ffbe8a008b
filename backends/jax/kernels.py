"""Pallas kernels for sweeps over all pairs, FlashAttention-style: a program owns a block of rows and loops over tiles.

Folds, relations and logits are the package's own functions. Pallas compiles them for GPUs by Triton; on a CPU its interpreter
runs them. No device has run them yet.
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
from sincere_spec.interface import KernelOperands, KernelSpec, LogitCotangents, Part
from sincere_spec.spec import elementwise
from sincere_spec.spec.relations import OtherLabel, SameLabel
from sincere_spec.spec.words import Fold, Pairs

Ref: TypeAlias = Any
"""An array in a device's memory, of which a program reads and writes parts."""


@dataclass(frozen=True)
class Shape:
    """The rows and columns of a program's tiles, the entries that are multiplied at a time, and how it is compiled.

    A program accumulates `slices` times `width` entries of a gradient; where rows have more, further programs do, and each
    recomputes the similarities.
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
    """The rows (and columns) of a tile, the columns without padding, and the entries of a row with padding.

    Entries are multiplied `step` at a time, and a program accumulates `slices` times `width` of the gradient.
    """

    size: int
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

    def tally(self, spec: KernelSpec, panel: KernelOperands, shifts: Array, tile: int) -> tuple[Array, Array, Array]:
        n = panel.rows.shape[0]
        layout, arrays = _laid_out(panel, tile)
        shifts = _padded(shifts, layout.size, axis=1)
        out = [_like(shifts.shape, shifts)] * 3
        grid = (shifts.shape[1] // layout.size,)
        found = _launch(partial(_tally, spec, layout), layout.shape, grid, out, *arrays, shifts)
        sums, peaks, slope_sums = (x[:, :n] for x in found)
        return sums, peaks, slope_sums

    def pull(
        self,
        spec: KernelSpec,
        panel: KernelOperands,
        own: LogitCotangents | None,
        others: LogitCotangents | None,
        tile: int,
    ) -> tuple[Array, Array, Array]:
        n, d = panel.rows.shape
        layout, arrays = _laid_out(panel, tile)
        rows = arrays.rows.shape[0]
        given = [_padded(x, layout.size, axis=1) for pulls in (own, others) if pulls is not None for x in pulls]
        out = [_like(size, panel.row_factors) for size in ((rows, layout.entries), (rows,), (rows,))]
        program = partial(_pull, spec, layout, own is not None, others is not None)
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


def _laid_out(panel: KernelOperands, tile: int) -> tuple[Layout, KernelOperands]:
    """A panel padded to whole tiles; `first` and `last` are by block of rows, no longer by row."""
    shape, d = SHAPES[panel.rows.dtype.itemsize], panel.rows.shape[1]
    size = min(tile, shape.tile)
    width = min(shape.width, pl.next_power_of_2(max(d, 16)))
    slices = max(1, -(-d // width))
    programs = -(-slices // shape.slices)
    slices = -(-slices // programs)
    entries = programs * slices * width
    layout = Layout(size, entries, min(shape.entries, width), width, slices, shape)

    def whole(x: Array) -> Array:
        return _padded(x, size, axis=0)

    rows, columns = (jnp.pad(whole(x), ((0, 0), (0, entries - d))) for x in (panel.rows, panel.columns))
    return layout, KernelOperands(
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
        length=jnp.reshape(panel.length, (1,)),
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

    spec: KernelSpec
    layout: Layout
    interpreted: bool
    i: Any
    refs: KernelOperands

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
        band = all(part.over is Pairs.POSITIVE for part in self.spec.parts)
        whole = (self.refs.length[0] + size - 1) // size
        return lax.fori_loop(first // size if band else 0, (last + size - 1) // size if band else whole, visit, state)

    def similarities(self, j: Any) -> Array:
        """The similarities of a tile."""
        refs, size, step = self.refs, self.layout.size, self.layout.step
        kind = refs.row_factors.dtype

        def add(k: Any, s: Array) -> Array:
            entries = pl.ds(k * step, step)
            return s + self.product(refs.rows[self.own, entries], refs.columns[self.columns(j), entries].T, kind)

        s = lax.fori_loop(0, self.layout.entries // step, add, jnp.zeros((size, size), kind))  # [block_q, block_k]
        if self.halves:
            s = s * refs.row_factors[self.own][:, None] * refs.column_factors[self.columns(j)][None, :]
        return s

    def product(self, a: Array, b: Array, kind: Any) -> Array:
        """`a @ b`: of a half type as tensor cores multiply it, exactly and with sums of another kind."""
        if self.interpreted:  # a compiler for CPUs takes long over the same with half types
            a, b = a.astype(kind), b.astype(kind)
        return lax.dot(a, b, precision=lax.Precision.HIGHEST, preferred_element_type=kind)

    def coefficient_dot(self, c: Array, rows: Array) -> Array:
        """`c @ rows`; with rows of a half type, c is split into bfloat16 that tensor cores multiply exactly."""
        if not self.halves:
            return self.product(c, rows, c.dtype)
        parts = [rows] if rows.dtype == jnp.bfloat16 else _pieces(rows.astype(c.dtype), 2)
        total = jnp.zeros((c.shape[0], rows.shape[1]), c.dtype)
        for k, piece in enumerate(_pieces(c, 3)):
            for part in parts[: 3 - k]:  # the product of the two rests is less than the last digit
                total = total + self.product(piece, part, c.dtype)
        return total

    def logits(self, similarity: Array) -> Array:
        """The logits of similarities."""
        inverse, bias = 1.0 / self.refs.temperature[0], self.refs.bias[0]
        return self.spec.logit.value(namespace, similarity) * inverse + bias

    def mask(self, part: Part, j: Any) -> Array:
        """The pairs of a tile that a part is over, `[block_q, block_k]`."""
        refs, here, there = self.refs, self.own, self.columns(j)
        label, key_label = refs.labels[here][:, None], refs.key_labels[there][None, :]
        relation = OtherLabel() if self.spec.partners else SameLabel()
        row = {"label": label, "sample": refs.ids[here][:, None]}
        positive, negative = relation.pair(row, {"label": key_label, "sample": refs.key_ids[there][None, :]}, {})
        found = negative if positive is None or part.over is Pairs.NEGATIVE else positive
        real = j * self.layout.size + jnp.arange(self.layout.size) < self.refs.length[0]
        return found & real[None, :]

    def where_labels_meet(self, part: Part, j: Any, visit: Callable[[Any], Any], state: Any) -> Any:
        """`visit(state)`, or for a part over positives in a tile that has none of them the state as it is."""
        if part.over is not Pairs.POSITIVE:
            return visit(state)
        size, i = self.layout.size, self.i
        first, last = self.refs.first[i], self.refs.last[i]
        return lax.cond((j * size < last) & (j * size + size > first), visit, lambda state: state, state)


def _pieces(x: Array, count: int) -> list[Array]:
    """float32 as a sum of bfloat16, of 8 digits each; three hold every digit."""
    found = []
    for _ in range(count):
        # A cast there and back would do, had XLA no licence to leave both out.
        upper = lax.bitcast_convert_type(x, jnp.uint32) & jnp.uint32(0xFFFF0000)
        piece = lax.bitcast_convert_type(upper, jnp.float32)
        found.append(piece.astype(jnp.bfloat16))
        x = x - piece
    return found


def _tally(spec: KernelSpec, layout: Layout, interpreted: bool, *refs: Ref) -> None:
    *given, shifts, sums, peaks, slope_sums = refs
    block = Block(spec, layout, interpreted, pl.program_id(0), KernelOperands(*given))
    nil = jnp.zeros((layout.size,), sums.dtype)

    def visit(j: Any, state: Any) -> Any:
        a = block.logits(block.similarities(j))  # [block_q, block_k]

        def added(number: int, part: Part, tally: Any) -> Any:
            total, peak, slope_sum = tally
            mask = block.mask(part, j)
            t = part.scale * a + part.offset - shifts[number, block.own][:, None]  # [block_q, block_k]
            if part.fold is Fold.LOGSUMEXP:
                t = jnp.where(mask, t, -jnp.inf)
                new_peak = jnp.maximum(peak, jnp.max(t, axis=1))  # online softmax
                finite = jnp.where(new_peak > -jnp.inf, new_peak, 0.0)
                added = jnp.sum(jnp.exp(t - finite[:, None]), axis=1)
                return total * jnp.exp(peak - finite) + added, new_peak, slope_sum
            t = jnp.where(mask, t, 0.0)
            total = total + jnp.sum(jnp.where(mask, elementwise.value(namespace, part.fold, t), 0.0), axis=1)
            if part.minus is not None:
                slope = jnp.where(mask, elementwise.slope(namespace, part.fold, t), 0.0)
                slope_sum = slope_sum + part.scale * jnp.sum(slope, axis=1)
            return total, peak, slope_sum

        return tuple(
            block.where_labels_meet(part, j, partial(added, number, part), tally)
            for number, (part, tally) in enumerate(zip(spec.parts, state, strict=True))
        )

    state = block.sweep(visit, tuple((nil, nil - jnp.inf, nil) for _ in spec.parts))
    for number, tally in enumerate(state):
        for out, vector in zip((sums, peaks, slope_sums), tally, strict=True):
            out[number, block.own] = vector


def _pull(spec: KernelSpec, layout: Layout, with_own: bool, with_others: bool, interpreted: bool, *refs: Ref) -> None:
    *given, gradient, sums, moments = refs
    panel, pulls = KernelOperands(*given[: len(KernelOperands._fields)]), iter(given[len(KernelOperands._fields) :])
    block = Block(spec, layout, interpreted, pl.program_id(0), panel)
    own = (next(pulls), next(pulls)) if with_own else None
    others = (next(pulls), next(pulls)) if with_others else None
    begin = pl.program_id(1) * (layout.slices * layout.width)
    slices = [pl.ds(begin + k * layout.width, layout.width) for k in range(layout.slices)]
    nil = jnp.zeros((layout.size,), gradient.dtype)

    def visit(j: Any, state: Any) -> Any:
        accumulators, sum_dlogits, sum_dlogits_value = state
        similarity = block.similarities(j)  # [block_q, block_k]
        a = block.logits(similarity)

        def shared(number: int, part: Part, pull: tuple[Array, Array]) -> tuple[Array, Array]:
            mask = block.mask(part, j)

            def cotangent(weight: Array, shift: Array) -> Array:
                there = mask & (weight != 0.0)  # where a weight is 0 the shift may be infinite
                t = jnp.where(there, part.scale * a + part.offset - shift, 0.0)
                slope = jnp.exp(t) if part.fold is Fold.LOGSUMEXP else elementwise.slope(namespace, part.fold, t)
                return jnp.where(there, slope * weight, 0.0)

            mine, theirs = pull
            if own is not None:
                mine = mine + cotangent(*(ref[number, block.own][:, None] for ref in own))
            if others is not None:
                theirs = theirs + cotangent(*(ref[number, block.columns(j)][None, :] for ref in others))
            return mine, theirs

        pull = jnp.zeros_like(similarity), jnp.zeros_like(similarity)
        for number, part in enumerate(spec.parts):
            pull = block.where_labels_meet(part, j, partial(shared, number, part), pull)
        mine, theirs = pull
        sum_dlogits = sum_dlogits + jnp.sum(mine, axis=1)
        sum_dlogits_value = sum_dlogits_value + jnp.sum(mine * spec.logit.value(namespace, similarity), axis=1)
        c = (mine + theirs) * spec.logit.slope(namespace, similarity)  # [block_q, block_k]
        if block.halves:
            c = c * panel.column_factors[block.columns(j)][None, :]
        accumulators = tuple(
            accumulator + block.coefficient_dot(c, panel.columns[block.columns(j), entries])
            for accumulator, entries in zip(accumulators, slices, strict=True)
        )
        return accumulators, sum_dlogits, sum_dlogits_value

    nothing = jnp.zeros((layout.size, layout.width), gradient.dtype)  # [block_q, width]
    accumulators, sum_dlogits, sum_dlogits_value = block.sweep(visit, (tuple(nothing for _ in slices), nil, nil))
    for entries, accumulator in zip(slices, accumulators, strict=True):
        gradient[block.own, entries] = accumulator

    @pl.when(pl.program_id(1) == 0)
    def _() -> None:
        sums[block.own] = sum_dlogits
        moments[block.own] = sum_dlogits_value
