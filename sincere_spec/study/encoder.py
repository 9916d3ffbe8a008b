"""The encoder, written once for every framework: pixels - 256 - 128 = h, and the head 128 - 128 - 64 = z.

`forward` is made of the functions of a namespace, for frameworks that differentiate it. `backward` is its gradient by hand, for
NumPy. With `norm` there is a batch normalisation before each nonlinearity and after the head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = Any
Weights = dict[str, Any]

WIDTHS = (256, 128, 128, 64)
EPSILON = 1e-5
LAST = len(WIDTHS)
BACKBONE = 2
"""The layer whose output is h."""


@dataclass(frozen=True)
class Encoder:
    """What is not learnt: "relu" or "tanh", whether there is batch normalisation, and of how many classes a classifier."""

    activation: str = "relu"
    norm: bool = False
    classes: int = 0

    def weights(self, pixels: int, seed: int) -> Weights:
        """He's initialisation, from a seed of NumPy."""
        random, made, width = np.random.default_rng([seed, 1]), {}, pixels
        for i, out in enumerate(WIDTHS, 1):
            made[f"w{i}"] = (random.normal(size=(width, out)) * np.sqrt(2.0 / width)).astype(np.float32)
            if not self.norm:
                made[f"b{i}"] = np.zeros(out, np.float32)
            width = out
        if self.classes:
            inner = WIDTHS[BACKBONE - 1]
            made["w"] = (random.normal(size=(inner, self.classes)) * np.sqrt(2.0 / inner)).astype(np.float32)
            made["b"] = np.zeros(self.classes, np.float32)
        return made

    def forward(
        self, xp: Any, weights: Weights, x: Array, moments: dict[int, Any] | None = None
    ) -> tuple[Array, Array]:
        """The arrays h and z. `moments` are the means and variances to normalise by, instead of the batch's own."""
        h = x
        for i in range(1, LAST + 1):
            x = xp.matmul(x, weights[f"w{i}"])
            if self.norm:
                mean, variance = _moments(xp, x) if moments is None else moments[i]
                x = (x - mean) / xp.sqrt(variance + EPSILON)
            else:
                x = x + weights[f"b{i}"]
            if i < LAST:
                x = xp.tanh(x) if self.activation == "tanh" else xp.where(x > 0.0, x, xp.zeros_like(x))
            if i == BACKBONE:
                h = x
        return h, x

    def classify(self, xp: Any, weights: Weights, h: Array, hot: Array) -> Array:
        """The cross-entropy of the classifier on h, the mean over rows; `hot` are one-hot labels."""
        logits = xp.matmul(h, weights["w"]) + weights["b"]
        peak = xp.max(logits, axis=1, keepdims=True)
        total = xp.log(xp.sum(xp.exp(logits - peak), axis=1)) + peak[:, 0]
        return xp.mean(total - xp.sum(hot * logits, axis=1), axis=0)

    # --- by hand, in NumPy ---

    def trace(self, weights: Weights, x: Array) -> list[tuple[Array, ...]]:
        """By layer what `backward` needs: the input, the normalised product, its deviation, and the output."""
        layers = []
        for i in range(1, LAST + 1):
            product = x @ weights[f"w{i}"]
            deviation = np.ones((), x.dtype)
            if self.norm:
                mean, variance = _moments(np, product)
                deviation = np.sqrt(variance + x.dtype.type(EPSILON))
                product = (product - mean) / deviation
            else:
                product = product + weights[f"b{i}"]
            out = product
            if i < LAST:
                out = np.tanh(product) if self.activation == "tanh" else np.maximum(product, 0.0)
            layers.append((x, product, deviation, out))
            x = out
        return layers

    def backward(
        self, weights: Weights, layers: list[tuple[Array, ...]], by_h: Array | None, by_z: Array | None
    ) -> Weights:
        """The gradient by the weights, from that by h or by z."""
        found: Weights = {}
        top = LAST if by_z is not None else BACKBONE
        gradient: Any = by_z if by_z is not None else by_h
        for i in range(top, 0, -1):
            x, product, deviation, out = layers[i - 1]
            if i < LAST:
                gradient = gradient * ((1.0 - out * out) if self.activation == "tanh" else (product > 0.0))
            if self.norm:
                mean = gradient.mean(0)
                along = (gradient * product).mean(0)
                gradient = (gradient - mean - product * along) / deviation
            else:
                found[f"b{i}"] = gradient.sum(0)
            found[f"w{i}"] = x.T @ gradient
            if i > 1:
                gradient = gradient @ weights[f"w{i}"].T
        return found

    def population(self, weights: Weights, x: Array) -> dict[int, Any] | None:
        """Means and variances by layer over all training images, for the images that are embedded later."""
        if not self.norm:
            return None
        found: dict[int, Any] = {}
        for i in range(1, LAST + 1):
            x = x @ weights[f"w{i}"]
            found[i] = _moments(np, x)
            x = (x - found[i][0]) / np.sqrt(found[i][1] + EPSILON)
            x = np.tanh(x) if self.activation == "tanh" else np.maximum(x, 0.0)
        return found


def _moments(xp: Any, x: Array) -> tuple[Array, Array]:
    mean = xp.mean(x, axis=0)
    apart = x - mean
    return mean, xp.mean(apart * apart, axis=0)
