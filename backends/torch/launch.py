"""Triton's kernels, launched on the device of the rows; with TRITON_INTERPRET=1 its interpreter runs them on a CPU."""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

import torch
import triton

from sincere_spec.backends.torch.kernels import LOGITS, pull_kernel, tally_kernel
from sincere_spec.protocol import Logit
from sincere_spec.sweeps import Panel, Pulls, Words
from sincere_spec.types import Array

if tuple(map(int, triton.__version__.split(".")[:2])) < (3, 7):
    raise ImportError(f"3.7 or later is needed, and {triton.__version__} is installed", name="triton")

INTERPRETED = bool(triton.knobs.runtime.interpret)
"""Whether the kernels of this process were made for Triton's interpreter."""

# Rows and columns of a tile, entries of rows that are multiplied at a time, and entries of gradients that a program keeps.
# No device has run the kernels yet: these are guesses.
TILE, ENTRIES, WIDEST = 64, 32, 256


class TritonKernels:
    """The sweeps of `sincere_spec.sweeps.Kernels`, launched on the device of the rows."""

    tile = TILE

    def tally(self, words: Words, panel: Panel, shifts: Array, tile: int) -> tuple[Array, Array, Array]:
        (n, d), m = panel.rows.shape, panel.columns.shape[0]
        sums, peaks, falls = (torch.empty_like(shifts) for _ in range(3))
        subtracting = tuple(part.minus is not None for part in words.parts)
        with torch.cuda.device_of(shifts):  # type: ignore[no-untyped-call]
            tally_kernel[(triton.cdiv(n, tile),)](
                *_contiguous(*panel, shifts),
                sums,
                peaks,
                falls,
                n,
                m,
                d,
                **_chosen(words),
                FALLS=subtracting,
                TILE=tile,
                ENTRIES=ENTRIES,
            )
        return sums, peaks, falls

    def pull(
        self, words: Words, panel: Panel, own: Pulls | None, others: Pulls | None, tile: int
    ) -> tuple[Array, Array, Array]:
        (n, d), m = panel.rows.shape, panel.columns.shape[0]
        gradient = torch.empty_like(panel.rows, memory_format=torch.contiguous_format)
        sums, moments = (panel.rows.new_empty(n) for _ in range(2))
        width = min(WIDEST, max(16, triton.next_power_of_2(d)))
        none = Pulls(sums, sums)  # never read
        with torch.cuda.device_of(gradient):  # type: ignore[no-untyped-call]
            pull_kernel[(triton.cdiv(n, tile), max(1, triton.cdiv(d, width)))](
                *_contiguous(*panel, *(own or none), *(others or none)),
                gradient,
                sums,
                moments,
                n,
                m,
                d,
                **_chosen(words),
                OWN=own is not None,
                OTHERS=others is not None,
                TILE=tile,
                ENTRIES=ENTRIES,
                WIDTH=width,
            )
        return gradient, sums, moments


def obstacle(logit: Logit) -> str | None:
    """Why no kernel can be made for a logit, as half a sentence; None if one can."""
    name = type(logit).__name__
    return None if name in LOGITS else f"no Triton function exists for the logit {name}"


def _contiguous(*arrays: Array) -> tuple[Array, ...]:
    return tuple(x.contiguous() for x in arrays)


def _chosen(words: Words) -> dict[str, Any]:
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
        "BAND": all(part.over.value == "positive" for part in words.parts),
    }
