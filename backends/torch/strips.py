"""Tiles on a device: the vendor's matrix products of strips of rows, and one pass of a Triton kernel over each product.

The same sweeps as `launch.TritonKernels`, by other means: a strip of similarities is written to memory by a library that
multiplies near the device's peak, and read once to be summed, or once to become cotangents in place. Rows of half types are
multiplied as they came, with sums in float32, as fused kernels do; so results keep the same accuracy. Their statistics are
left to the fused kernels, which write no matrix and were faster from D = 64 to 1024.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import triton

from sincere_spec.arrays import Array
from sincere_spec.backends.torch.kernels import strip_cotangent_kernel, strip_tally_kernel
from sincere_spec.backends.torch.launch import TritonKernels, constants
from sincere_spec.interface import KernelOperands, KernelSpec, LogitCotangents
from sincere_spec.spec.words import Fold

ENTRIES = 1 << 26
"""Products that are held at a time, unless a tile of as many rows and columns has more: 256 MB of float32."""

BLOCK_Q, BLOCK_K, CHUNK = 32, 128, 4096
"""The rows and columns of a program's tiles, and the columns that a program sums up; of six, best for cotangents on an H200."""

HALF = (torch.bfloat16, torch.float16)

AVAILABLE = "dtype_out" in torch.ops.aten.mm.overloads()  # type: ignore[no-untyped-call]
"""Whether torch can multiply a half type with results in float32: from 2.8 on."""


class StripKernels:
    """The sweeps of `sincere_spec.interface.TwoSidedKernels`, by products of whole strips."""

    tile = 2048

    def tally(self, spec: KernelSpec, panel: KernelOperands, shifts: Array, tile: int) -> tuple[Array, Array, Array]:
        chosen, m = constants(spec), panel.columns.shape[0]
        if chosen.pop("BAND") or m == 0 or panel.rows.dtype in HALF:
            return TritonKernels().tally(spec, panel, shifts, TritonKernels.tile)
        with_slopes = tuple(part.minus is not None for part in spec.parts)
        tables: list[tuple[Array, Array, Array]] = []
        for rows in _spans(0, panel.rows.shape[0], tile):
            count, own = rows.stop - rows.start, shifts[:, rows].contiguous()
            made: list[list[Array]] = [[], [], []]
            for columns in _spans(0, m, _width(tile)):
                chunks = triton.cdiv(columns.stop - columns.start, CHUNK)
                found = [own.new_empty((chunks, len(spec.parts), count)) for _ in range(3)]
                with torch.cuda.device_of(own):  # type: ignore[no-untyped-call]
                    strip_tally_kernel[(triton.cdiv(count, BLOCK_Q), chunks)](
                        torch.mm(panel.rows[rows], panel.columns[columns].T),
                        *_vectors(panel, rows, columns),
                        own,
                        *found,
                        count,
                        columns.stop - columns.start,
                        WITH_SLOPES=with_slopes,
                        CHUNK=CHUNK,
                        BLOCK_Q=BLOCK_Q,
                        BLOCK_K=BLOCK_K,
                        **chosen,
                    )
                for whole, table in zip(made, found, strict=True):
                    whole.append(table)
            tables.append(_joined(spec, *(torch.cat(whole) for whole in made)))
        sums, maxima, slope_sums = (torch.cat(table, dim=1) for table in zip(*tables, strict=True))
        return sums, maxima, slope_sums

    def pull(
        self,
        spec: KernelSpec,
        panel: KernelOperands,
        own: LogitCotangents | None,
        others: LogitCotangents | None,
        tile: int,
    ) -> tuple[Array, Array, Array]:
        if constants(spec)["BAND"]:
            return TritonKernels().pull(spec, panel, own, others, TritonKernels.tile)
        n, m = panel.rows.shape[0], panel.columns.shape[0]
        mirrored = panel.columns is panel.rows and own is not None and others is own
        row_length = panel.length if mirrored else torch.full_like(panel.length, n)
        by_rows, _, sums, moments = _pull(spec, panel, row_length, own, others, _blocks(n, m, tile, mirrored, False))
        return by_rows, sums, moments

    def pull_both(
        self,
        spec: KernelSpec,
        panel: KernelOperands,
        row_length: Array,
        own: LogitCotangents | None,
        others: LogitCotangents | None,
        tile: int,
    ) -> tuple[Array, Array, Array, Array] | None:
        if constants(spec)["BAND"]:  # fused kernels have each side's gradient in a sweep of its own
            return None
        blocks = _blocks(panel.rows.shape[0], panel.columns.shape[0], tile, False, True)
        return _pull(spec, panel, row_length, own, others, blocks)


def _pull(
    spec: KernelSpec,
    panel: KernelOperands,
    row_length: Array,
    own: LogitCotangents | None,
    others: LogitCotangents | None,
    blocks: Iterator[tuple[slice, slice, bool]],
) -> tuple[Array, Array, Array, Array]:
    """The gradients by rows and by columns, one array where these are the same, and by row Σ C and Σ C value(s).

    Each block of cotangents is made once, and multiplied by its columns, and by its rows where the block says so. Rows of half
    types are multiplied with norms from 1 to 2, times powers of two, and cotangents have the rest of both sides' factors.
    """
    n, m, like = panel.rows.shape[0], panel.columns.shape[0], panel.row_factors
    symmetric = panel.columns is panel.rows
    rows_of = _scaled(panel.rows, panel.row_factors)
    columns_of = rows_of if symmetric else _scaled(panel.columns, panel.column_factors)
    by_rows = like.new_zeros((n, panel.rows.shape[1]))
    by_columns = by_rows if symmetric else like.new_zeros((m, panel.rows.shape[1]))
    sums, moments = like.new_zeros(n), like.new_zeros(n)
    chosen, half = constants(spec), panel.rows.dtype in HALF
    del chosen["BAND"]
    for rows, columns, both in blocks:
        count, width = rows.stop - rows.start, columns.stop - columns.start
        products = _product(panel.rows[rows], panel.columns[columns].T, like.dtype)  # [count, width]
        coefficients = [products]
        if half:
            coefficients = [products.new_empty(products.shape, dtype=torch.bfloat16) for _ in range(3)]  # each alike
        tiles = triton.cdiv(width, BLOCK_K)
        found = [like.new_zeros((tiles, count)) for _ in range(2)]  # parts of the sums and of the moments
        none = LogitCotangents(found[0], found[0])  # never read
        with torch.cuda.device_of(like):  # type: ignore[no-untyped-call]
            strip_cotangent_kernel[(triton.cdiv(count, BLOCK_Q), tiles)](
                products,
                *_vectors(panel, rows, columns),
                (row_length - rows.start).clamp(0, count),
                rows_of.scales[rows],
                columns_of.scales[columns],
                *(x[:, rows].contiguous() for x in own or none),
                *(x[:, columns].contiguous() for x in others or none),
                *(coefficients if half else coefficients * 3),
                *found,
                count,
                width,
                OWN=own is not None,
                OTHERS=others is not None,
                BOTH=both,
                HALF=half,
                BLOCK_Q=BLOCK_Q,
                BLOCK_K=BLOCK_K,
                **chosen,
            )
        for k, coefficient in enumerate(coefficients):
            for piece in columns_of.pieces[: 3 - k]:  # the product of the two rests is less than the last digit
                by_rows[rows] += _product(coefficient, piece[columns], like.dtype)
            for piece in rows_of.pieces[: 3 - k] if both else ():
                by_columns[columns] += _product(coefficient.T, piece[rows], like.dtype)
        for whole, table in zip((sums, moments), found, strict=True):
            whole[rows] += torch.sum(table, dim=0)
    if half:
        by_rows /= rows_of.scales[:, None]
        if not symmetric:
            by_columns /= columns_of.scales[:, None]
    return by_rows, by_columns, sums, moments


def _blocks(n: int, m: int, tile: int, mirrored: bool, both: bool) -> Iterator[tuple[slice, slice, bool]]:
    """Blocks of rows and columns, and whether they are multiplied by their rows, too.

    Where C is symmetric it is made on and above the diagonal: a square, and what lies to its right for both sides.
    """
    for rows in _spans(0, n, tile):
        if mirrored:
            yield rows, rows, False
        for columns in _spans(rows.stop if mirrored else 0, m, _width(tile)):
            yield rows, columns, mirrored or both


def _spans(start: int, stop: int, step: int) -> Iterator[slice]:
    for begin in range(start, stop, step):
        yield slice(begin, min(begin + step, stop))


def _width(tile: int) -> int:
    """How many columns a strip of a tile's rows has at a time."""
    return max(tile, ENTRIES // tile)


def _vectors(panel: KernelOperands, rows: slice, columns: slice) -> list[Array]:
    """What kernels read beside products."""
    begin = columns.start
    vectors = (
        panel.row_factors[rows],
        panel.column_factors[columns],
        panel.labels[rows],
        panel.key_labels[columns],
        panel.ids[rows],
        panel.key_ids[columns],
        panel.first[rows] - begin,
        panel.last[rows] - begin,
        panel.temperature,
        panel.bias,
        (panel.length - begin).clamp(0, columns.stop - begin),
    )
    return [x.contiguous() for x in vectors]


class _Scaled(NamedTuple):
    """Rows as bfloat16 pieces times a scale by row, or in a full type as they are."""

    pieces: list[Array]  # of each [n, d]
    scales: Array  # [n]


def _scaled(rows: Array, factors: Array) -> _Scaled:
    if rows.dtype not in HALF:
        return _Scaled([rows], factors)
    scales, exponent = torch.frexp(torch.where(factors == 0.0, 1.0, factors))  # scales from 1/2 to 1; 0 is a zero row's
    powers = torch.ldexp(torch.ones_like(factors), exponent)[:, None]  # [n, 1]
    if rows.dtype == torch.bfloat16:
        return _Scaled([rows * powers.to(torch.bfloat16)], scales)
    full = rows.float() * powers
    head = full.to(torch.bfloat16)
    return _Scaled([head, (full - head.float()).to(torch.bfloat16)], scales)


def _product(a: Array, b: Array, dtype: Any) -> Array:
    """`a @ b` in a dtype: of half types exact products, with sums in it."""
    if a.dtype == dtype:
        return torch.mm(a, b)
    if a.device.type == "cuda":
        return torch.mm(a, b, out_dtype=dtype)
    return torch.mm(a.to(dtype), b.to(dtype))  # a CPU has no such product


def _joined(spec: KernelSpec, sums: Array, maxima: Array, slope_sums: Array) -> tuple[Array, Array, Array]:
    """From tables by chunk of columns, `[chunks, parts, rows]`, those of all: online softmax for a log-sum-exp."""
    top = torch.amax(maxima, dim=0)
    finite = torch.where(top > -float("inf"), top, 0.0)
    rescaled = torch.sum(sums * torch.exp(maxima - finite), dim=0)
    total = torch.sum(sums, dim=0)
    for number, part in enumerate(spec.parts):
        if part.fold is Fold.LOGSUMEXP:
            total[number] = rescaled[number]
    return total, top, torch.sum(slope_sums, dim=0)
