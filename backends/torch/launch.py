"""Triton's kernels, launched on the device of the rows; with TRITON_INTERPRET=1 its interpreter runs them on a CPU."""

from __future__ import annotations

import json
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import triton

from sincere_spec.arrays import Array
from sincere_spec.backends.torch import kernels
from sincere_spec.backends.torch.kernels import LOGITS, pull_kernel, tally_kernel
from sincere_spec.interface import KernelOperands, KernelSpec, LogitCotangents
from sincere_spec.spec.words import Logit

if tuple(map(int, triton.__version__.split(".")[:2])) < (3, 6):
    raise ImportError(f"3.6 or later is needed, and {triton.__version__} is installed", name="triton")

INTERPRETED = bool(kernels.INTERPRETED)
"""Whether the kernels of this process were made for Triton's interpreter."""


@dataclass(frozen=True)
class Shape:
    """The rows and columns of a program's tiles, the entries that are multiplied at a time, and how it is compiled.

    A program accumulates `slices` times `width` entries of a gradient; where rows have more, further programs do, and each
    recomputes the similarities.
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


def read_shapes(text: str) -> dict[int, Shapes]:
    """The shapes of `shapes.json`, by the bytes of an entry."""
    table = json.loads(text)
    return {
        size: Shapes(*(Shape(**table[str(size)][sweep]) for sweep in ("tally", "band", "pull"))) for size in (2, 4, 8)
    }


# Chosen for an H100 by what the compiler makes of them until a device run measures them: `measured_on` in the file says.
# Half types, 128 rows and 8 warps: each warp group has rows of its own, so that no accumulator changes its layout.
SHAPES = read_shapes(Path(__file__).with_name("shapes.json").read_text(encoding="utf-8"))
if INTERPRETED:  # which takes as long for a small tile as for a large one
    _large = Shape(64, 64, 64, warps=4, stages=1, width=256, slices=1)
    SHAPES = dict.fromkeys(SHAPES, Shapes(_large, _large, _large))


class TritonKernels:
    """The sweeps of `sincere_spec.interface.Kernels`, launched on the device of the rows."""

    tile = 128  # the most rows of any shape

    def tally(self, spec: KernelSpec, panel: KernelOperands, shifts: Array, tile: int) -> tuple[Array, Array, Array]:
        n, d = panel.rows.shape
        sums, peaks, slope_sums = (torch.empty_like(shifts) for _ in range(3))
        shapes, chosen = SHAPES[panel.rows.element_size()], constants(spec)
        shape = shapes.band if chosen["BAND"] else shapes.tally
        subtracting = tuple(part.minus is not None for part in spec.parts)
        with torch.cuda.device_of(shifts):  # type: ignore[no-untyped-call]
            tally_kernel[(triton.cdiv(n, min(tile, shape.rows)),)](
                *_contiguous(*panel, shifts),
                sums,
                peaks,
                slope_sums,
                n,
                d,
                **chosen,
                **_sized(shape, tile),
                WITH_SLOPES=subtracting,
            )
        return sums, peaks, slope_sums

    def pull(
        self,
        spec: KernelSpec,
        panel: KernelOperands,
        own: LogitCotangents | None,
        others: LogitCotangents | None,
        tile: int,
    ) -> tuple[Array, Array, Array]:
        (n, d), m = panel.rows.shape, panel.columns.shape[0]
        gradient = panel.row_factors.new_empty((n, d))
        sums, moments = (panel.row_factors.new_empty(n) for _ in range(2))
        shape = _pull_shape(spec, panel.rows.element_size())
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
                **constants(spec),
                **_sized(shape, tile),
                OWN=own is not None,
                OTHERS=others is not None,
                WIDTH=width,
                SLICES=triton.cdiv(slices, programs),
            )
        return gradient, sums, moments


def obstacle(logit: Logit) -> str | None:
    """Why no kernel can be made for a logit, as a clause for an error message; None if one can."""
    name = type(logit).__name__
    return None if name in LOGITS else f"no Triton function exists for the logit {name}"


def _pull_shape(spec: KernelSpec, size: int) -> Shape:
    """The shape of a gradient: with half types, half the columns where a pair keeps more numbers in registers."""
    shape = SHAPES[size].pull
    crowded = len(spec.parts) > 2 or type(spec.logit).__name__ in ("CosineSchedule", "ShiftedSchedule")
    return replace(shape, columns=max(16, shape.columns // 2)) if size == 2 and crowded else shape


def _contiguous(*arrays: Array) -> tuple[Array, ...]:
    return tuple(x.contiguous() for x in arrays)


def _sized(shape: Shape, tile: int) -> dict[str, int]:
    """The constants of a shape, with tiles of no more rows and columns than these."""
    return {
        "BLOCK_Q": min(tile, shape.rows),
        "BLOCK_K": min(tile, shape.columns),
        "BLOCK_D": shape.entries,
        "num_warps": shape.warps,
        "num_stages": shape.stages,
    }


def constants(spec: KernelSpec) -> dict[str, Any]:
    """The constants that a program is compiled for."""
    numbers: tuple[Any, ...] = astuple(spec.logit)  # type: ignore[call-overload]
    return {
        "FOLDS": tuple(part.fold.value for part in spec.parts),
        "OVERS": tuple(part.over.value for part in spec.parts),
        "SCALES": tuple(part.scale for part in spec.parts),
        "OFFSETS": tuple(part.offset for part in spec.parts),
        "LOGIT": type(spec.logit).__name__,
        "NUMBERS": numbers,
        "PARTNERS": spec.partners,
        "DISTINCT": spec.distinct,
        "BAND": all(part.over.value == "positive" for part in spec.parts),
    }
