"""Triton's kernels, launched on the device of the rows; with TRITON_INTERPRET=1 its interpreter runs them on a CPU."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Any

import torch
import triton

from sincere_spec.arrays import Array
from sincere_spec.backends.torch import kernels
from sincere_spec.backends.torch.kernels import LOGITS, pull_kernel, tally_kernel
from sincere_spec.interface import KernelSpec, LogitCotangents, Panel
from sincere_spec.spec.words import Logit

if tuple(map(int, triton.__version__.split(".")[:2])) < (3, 7):
    raise ImportError(f"3.7 or later is needed, and {triton.__version__} is installed", name="triton")

INTERPRETED = bool(kernels.INTERPRETED)
"""Whether the kernels of this process were made for Triton's interpreter."""


@dataclass(frozen=True)
class Shape:
    """The rows and columns of a program's tiles, the entries that are multiplied at a time, and how it is compiled.

    A program keeps `slices` times `width` entries of a gradient; for those of more it makes the similarities again.
    """

    rows: int
    columns: int
    entries: int
    warps: int
    stages: int
    width: int = 0
    slices: int = 0


@dataclass(frozen=True)
class Shapes:
    """The shapes of a sweep for sums, of one where labels meet, and of one for the gradient."""

    tally: Shape
    band: Shape
    pull: Shape


# By the bytes of an entry. Chosen for an H100 by what the compiler makes of them, registers above all; not measured.
# Half types: rows of 64 are what tensor cores take at a time, and with slices a row of 512 entries is kept whole.
SHAPES = {
    2: Shapes(
        tally=Shape(128, 128, 64, warps=8, stages=3),
        band=Shape(64, 64, 64, warps=4, stages=3),
        pull=Shape(64, 32, 64, warps=8, stages=2, width=64, slices=8),
    ),
    4: Shapes(
        tally=Shape(128, 64, 16, warps=8, stages=2),
        band=Shape(64, 64, 16, warps=8, stages=2),
        pull=Shape(32, 32, 16, warps=8, stages=2, width=256, slices=1),
    ),
    8: Shapes(
        tally=Shape(64, 32, 16, warps=8, stages=2),
        band=Shape(32, 32, 16, warps=4, stages=2),
        pull=Shape(32, 32, 16, warps=8, stages=2, width=64, slices=1),
    ),
}
if INTERPRETED:  # which takes as long for a small tile as for a large one
    _large = Shape(64, 64, 64, warps=4, stages=1, width=256, slices=1)
    SHAPES = dict.fromkeys(SHAPES, Shapes(_large, _large, _large))


class TritonKernels:
    """The sweeps of `sincere_spec.interface.Kernels`, launched on the device of the rows."""

    tile = 128  # the most rows of any shape

    def tally(self, words: KernelSpec, panel: Panel, shifts: Array, tile: int) -> tuple[Array, Array, Array]:
        (n, d), m = panel.rows.shape, panel.columns.shape[0]
        sums, peaks, slope_sums = (torch.empty_like(shifts) for _ in range(3))
        shapes, chosen = SHAPES[panel.rows.element_size()], _chosen(words)
        shape = shapes.band if chosen["BAND"] else shapes.tally
        subtracting = tuple(part.minus is not None for part in words.parts)
        with torch.cuda.device_of(shifts):  # type: ignore[no-untyped-call]
            tally_kernel[(triton.cdiv(n, min(tile, shape.rows)),)](
                *_contiguous(*panel, shifts),
                sums,
                peaks,
                slope_sums,
                n,
                m,
                d,
                **chosen,
                **_sized(shape, tile),
                WITH_SLOPES=subtracting,
            )
        return sums, peaks, slope_sums

    def pull(
        self, words: KernelSpec, panel: Panel, own: LogitCotangents | None, others: LogitCotangents | None, tile: int
    ) -> tuple[Array, Array, Array]:
        (n, d), m = panel.rows.shape, panel.columns.shape[0]
        gradient = panel.row_factors.new_empty((n, d))
        sums, moments = (panel.row_factors.new_empty(n) for _ in range(2))
        shape = SHAPES[panel.rows.element_size()].pull
        width = min(shape.width, max(16, triton.next_power_of_2(d)))
        slices = max(1, triton.cdiv(d, width))
        programs = triton.cdiv(slices, shape.slices)
        none = LogitCotangents(sums, sums)  # never read
        with torch.cuda.device_of(gradient):  # type: ignore[no-untyped-call]
            pull_kernel[(triton.cdiv(n, min(tile, shape.rows)), programs)](
                *_contiguous(*panel, *(own or none), *(others or none)),
                gradient,
                sums,
                moments,
                n,
                m,
                d,
                **_chosen(words),
                **_sized(shape, tile),
                OWN=own is not None,
                OTHERS=others is not None,
                WIDTH=width,
                SLICES=triton.cdiv(slices, programs),
            )
        return gradient, sums, moments


def obstacle(logit: Logit) -> str | None:
    """Why no kernel can be made for a logit, as half a sentence; None if one can."""
    name = type(logit).__name__
    return None if name in LOGITS else f"no Triton function exists for the logit {name}"


def _contiguous(*arrays: Array) -> tuple[Array, ...]:
    return tuple(x.contiguous() for x in arrays)


def _sized(shape: Shape, tile: int) -> dict[str, int]:
    """A shape as what a program is compiled for, with tiles of no more rows and columns than these."""
    return {
        "ROWS": min(tile, shape.rows),
        "COLUMNS": min(tile, shape.columns),
        "ENTRIES": shape.entries,
        "num_warps": shape.warps,
        "num_stages": shape.stages,
    }


def _chosen(words: KernelSpec) -> dict[str, Any]:
    """The words as what a program is compiled for."""
    numbers: tuple[Any, ...] = astuple(words.logit)  # type: ignore[call-overload]
    return {
        "FOLDS": tuple(part.fold.value for part in words.parts),
        "OVERS": tuple(part.over.value for part in words.parts),
        "SCALES": tuple(part.scale for part in words.parts),
        "OFFSETS": tuple(part.offset for part in words.parts),
        "LOGIT": type(words.logit).__name__,
        "NUMBERS": numbers,
        "PARTNERS": words.partners,
        "DISTINCT": words.distinct,
        "BAND": all(part.over.value == "positive" for part in words.parts),
    }
