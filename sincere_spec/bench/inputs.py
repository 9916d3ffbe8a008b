"""What a loss is timed on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy


@dataclass(frozen=True)
class Inputs:
    """NumPy values: the embeddings that receive a gradient, the labels if the loss has any, and what a relation holds."""

    embeddings: tuple[numpy.ndarray, ...]
    labels: numpy.ndarray | None
    beside: tuple[numpy.ndarray, ...] = ()
