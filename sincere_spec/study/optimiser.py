"""Adam (Kingma & Ba 2015) with a cosine schedule, written once for every framework."""

from __future__ import annotations

from math import cos, pi, sqrt
from typing import Any

RATE, FIRST, SECOND, EPSILON = 1e-3, 0.9, 0.999, 1e-8

Weights = dict[str, Any]


def rate(step: int, steps: int, decay: bool) -> float:
    """The step size, with the correction of the two means for their start at 0."""
    shape = 0.5 * (1.0 + cos(pi * step / steps)) if decay else 1.0
    return RATE * shape * sqrt(1.0 - SECOND ** (step + 1)) / (1.0 - FIRST ** (step + 1))


def adam(
    xp: Any, weights: Weights, gradient: Weights, first: Weights, second: Weights, size: Any
) -> tuple[Weights, Weights, Weights]:
    """The weights and the two running means after a step."""
    missing = {name: xp.zeros_like(x) for name, x in weights.items() if name not in gradient}
    gradient = {**gradient, **missing}
    first = {name: FIRST * first[name] + (1.0 - FIRST) * gradient[name] for name in weights}
    second = {name: SECOND * second[name] + (1.0 - SECOND) * gradient[name] * gradient[name] for name in weights}
    moved = {name: x - size * first[name] / (xp.sqrt(second[name]) + EPSILON) for name, x in weights.items()}
    return moved, first, second
