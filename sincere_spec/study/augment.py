"""Random views of images, in NumPy alone, so that every framework trains on the same numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from sincere_spec.study.data import Images

WEAK, STRONG = (0.8, 1.1, 2.0), (0.5, 1.0, 5.0)
"""Least and largest zoom, and shift in pixels of an image of side 28; strong ones for training without labels."""


def view(
    images: np.ndarray[Any, Any], random: np.random.Generator, strong: bool, black: float, flip: bool
) -> np.ndarray[Any, Any]:
    """A random zoom, shift and flip by a pair of hat-function matrices, then brightness and contrast: `[b, c, s, s]`."""
    low, high, shift = STRONG if strong else WEAK
    count, side = len(images), images.shape[-1]
    shift = shift * side / 28.0
    base = np.arange(side, dtype=np.float32) - 0.5 * (side - 1)

    def matrix(mirrored: bool) -> np.ndarray[Any, Any]:
        """`[b, 1, s, s]`: which pixels each new pixel is a mean of."""
        zoom = random.uniform(low, high, (count, 1)).astype(np.float32)
        offset = random.uniform(-shift, shift, (count, 1)).astype(np.float32)
        places = base * zoom + offset
        if mirrored:
            places = places * np.where(random.random((count, 1)) < 0.5, -1.0, 1.0).astype(np.float32)
        distance = places[:, :, None] + np.float32(0.5 * (side - 1)) - np.arange(side, dtype=np.float32)
        weight: np.ndarray[Any, Any] = np.maximum(np.float32(0.0), np.float32(1.0) - np.abs(distance))
        return weight[:, None]

    rows = matrix(False)
    columns = matrix(flip).swapaxes(2, 3)
    dark = np.float32(black)
    moved = rows @ (images - dark) @ columns + dark
    contrast = random.uniform(0.7, 1.3, (count, 1, 1, 1))
    brightness = random.uniform(-0.3, 0.3, (count, 1, 1, 1))
    result: np.ndarray[Any, Any] = (moved * contrast + brightness).astype(np.float32)
    return result


def batches(
    images: Images, seed: int, steps: int, size: int, strong: bool
) -> Iterator[tuple[list[np.ndarray[Any, Any]], np.ndarray[Any, Any]]]:
    """So many batches of two views `[size, pixels]` and labels, epoch after epoch."""
    random = np.random.default_rng([seed, 2])
    made = 0
    size = min(size, len(images.train))
    while made < steps:
        order = random.permutation(len(images.train))
        for start in range(0, len(order) - size + 1, size):
            if made == steps:
                return
            chosen = order[start : start + size]
            pair = [view(images.train[chosen], random, strong, images.black, images.flip) for _ in range(2)]
            yield [x.reshape(size, -1) for x in pair], images.train_labels[chosen]
            made += 1
