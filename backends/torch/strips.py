"""Tiles on a device: the vendor's matrix products of strips of rows, and one pass of a Triton kernel over each product.

The same sweeps as `launch.TritonKernels`, by other means: a strip of similarities is written to memory by a library that
multiplies near the device's peak, and read once to be summed, or once to become cotangents in place. Rows of half types are
multiplied as they came, with sums in float32, as fused kernels do; so results keep the same accuracy.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

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
"""The rows and columns of a program's tiles, and how many columns a program sums up: not measured."""

AVAILABLE = "dtype_out" in torch.ops.aten.mm.overloads()  # type: ignore[no-untyped-call]
"""Whether torch can multiply a half type with results in float32: from 2.8 on."""


class StripKernels:
    """The sweeps of `sincere_spec.interface.Kernels`, by products of whole strips."""

    tile = 2048

    def tally(self, spec: KernelSpec, panel: KernelOperands, shifts: Array, tile: int) -> tuple[Array, Array, Array]:
        chosen = constants(spec)
        if chosen.pop("BAND"):  # pairs of equal labels alone: few, and kernels know where
            return TritonKernels().tally(spec, panel, shifts, TritonKernels.tile)
        with_slopes = tuple(part.minus is not None for part in spec.parts)
        tables: list[tuple[Array, Array, Array]] = []
        for rows, parts in _strips(panel, tile):
            count, own = rows.stop - rows.start, shifts[:, rows].contiguous()
            made: list[list[Array]] = [[], [], []]
            for columns, given in parts:
                chunks = triton.cdiv(columns.stop - columns.start, CHUNK)
                found = [own.new_empty((chunks, len(spec.parts), count)) for _ in range(3)]
                with torch.cuda.device_of(own):  # type: ignore[no-untyped-call]
                    strip_tally_kernel[(triton.cdiv(count, BLOCK_Q), chunks)](
                        *given,
                        own,
                        *found,
                        count,
                        columns.stop - columns.start,
                        WITH_SLOPES=with_slopes,
                        HALF=_half(panel),
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
        chosen = constants(spec)
        if chosen.pop("BAND"):
            return TritonKernels().pull(spec, panel, own, others, TritonKernels.tile)
        (n, d), half, like = panel.rows.shape, _half(panel), panel.row_factors
        gradient, sums, moments = like.new_zeros((n, d)), like.new_zeros(n), like.new_zeros(n)
        pieces = _pieces(panel.columns) if half else [panel.columns]
        for rows, parts in _strips(panel, tile):
            count = rows.stop - rows.start
            for columns, given in parts:
                width = columns.stop - columns.start
                products, tiles = given[0], triton.cdiv(width, BLOCK_K)
                found = [like.new_zeros((tiles, count)) for _ in range(2)]
                coefficients = [products] * 3
                if half:
                    coefficients = [products.new_empty(products.shape, dtype=torch.bfloat16) for _ in range(3)]
                none = LogitCotangents(found[0], found[0])  # never read
                with torch.cuda.device_of(like):  # type: ignore[no-untyped-call]
                    strip_cotangent_kernel[(triton.cdiv(count, BLOCK_Q), tiles)](
                        *given,
                        *(x[:, rows].contiguous() for x in own or ()),
                        *(() if own else none),
                        *(x[:, columns].contiguous() for x in others or ()),
                        *(() if others else none),
                        *coefficients,
                        *found,
                        count,
                        width,
                        OWN=own is not None,
                        OTHERS=others is not None,
                        HALF=half,
                        BLOCK_Q=BLOCK_Q,
                        BLOCK_K=BLOCK_K,
                        **chosen,
                    )
                for k, coefficient in enumerate(coefficients if half else coefficients[:1]):
                    for piece in pieces[: 3 - k]:  # the product of the two rests is less than the last digit
                        gradient[rows] += _product(coefficient, piece[columns], like.dtype)
                for whole, table in zip((sums, moments), found, strict=True):
                    whole[rows] += torch.sum(table, dim=0)
        return gradient, sums, moments


def _half(panel: KernelOperands) -> bool:
    """Whether rows are of a half type."""
    half: bool = panel.rows.dtype != panel.row_factors.dtype
    return half


def _strips(panel: KernelOperands, tile: int) -> Iterator[tuple[slice, Iterator[tuple[slice, tuple[Any, ...]]]]]:
    """Strips of rows; of each, spans of columns with their products and what a kernel reads beside these."""
    n, m = panel.rows.shape[0], panel.columns.shape[0]
    width = max(1, min(m, max(tile, ENTRIES // tile)))

    def spans(rows: slice) -> Iterator[tuple[slice, tuple[Any, ...]]]:
        for begin in range(0, m, width):
            columns = slice(begin, min(begin + width, m))
            products = _product(panel.rows[rows], panel.columns[columns].T, panel.row_factors.dtype)
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
            )
            yield columns, (products, *(x.contiguous() for x in vectors))

    for begin in range(0, n, tile):
        rows = slice(begin, min(begin + tile, n))
        yield rows, spans(rows)


def _product(a: Array, b: Array, dtype: Any) -> Array:
    """`a @ b` in a dtype: of half types exact products, with sums in it."""
    if a.dtype == dtype:
        return torch.mm(a, b)
    if a.device.type == "cuda":
        return torch.mm(a, b, out_dtype=dtype)
    return torch.mm(a.to(dtype), b.to(dtype))  # a CPU has no such product


def _pieces(columns: Array) -> list[Array]:
    """Half rows as a sum of bfloat16."""
    if columns.dtype == torch.bfloat16:
        return [columns]
    head = columns.to(torch.bfloat16)
    return [head, (columns.float() - head.float()).to(torch.bfloat16)]


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
