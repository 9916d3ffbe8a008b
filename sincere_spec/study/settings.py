"""What a study does."""

from __future__ import annotations

from dataclasses import dataclass

PARTS = ("repulsion", "separation", "temperature", "divergences", "equivalence")
QUICK_PARTS = ("repulsion", "separation")
SUPERVISED = ("sincere", "supcon_out", "supcon_in", "cross_entropy")
TEMPERATURE = 0.1
QUERIES = 3000
"""The test images whose neighbours are searched among the training images."""


@dataclass(frozen=True)
class Settings:
    """A study: its parts, the framework that trains, those that are compared, and how long it trains."""

    parts: tuple[str, ...] = PARTS
    framework: str = "numpy"
    compared: tuple[str, ...] = ("numpy",)
    losses: tuple[str, ...] = SUPERVISED
    seeds: int = 3
    images: int = 8192
    epochs: int = 8
    size: int = 256
    equivalence_steps: int = 192

    def steps(self, available: int) -> int:
        """The steps of a training on so many images."""
        images = min(self.images, available)
        return max(1, self.epochs * (images // min(self.size, images)))
