"""Real data: the 1797 handwritten digits of scikit-learn, every loss on them, and the float64 answers.

Each image of 8 by 8 is an embedding of 64 grey levels from 0 to 16, exact in every floating-point type, and its digit is
its label. A second view is the image moved one pixel to the right, its last column coming back as the first: exact, and
of the same norm. A third view is moved one pixel down. The queue is the last 256 images, and a memory the last 512.

The answers come from the published gradients in plain NumPy (``conditioning.py``); ``check`` holds them against
differences of the values on the whole data, and against the loops of 80 digits on a part of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from mpmath import mp  # type: ignore[import-untyped,unused-ignore]
from numpy.typing import NDArray

from sincere_spec.conformance.oracle import differences, loops
from sincere_spec.conformance.oracle.conditioning import conditioned, value
from sincere_spec.conformance.oracle.problem import Array, Option, Problem
from sincere_spec.conformance.oracle.recipes import recipes

__all__ = ["DigitsProblem", "Reference", "check", "moved", "problems", "reference"]

QUEUE, MEMORY, VIEWED = 256, 512, 900

_DIVERGENCES = (
    "kl",
    "js",
    "pearson",
    "hellinger",
    "tsallis",
    "vincze_le_cam",
    "reverse_kl",
    "neyman",
    "jeffreys",
)
_PART = (0, 1, 2, 3, 10, 11, 12, 13)  # the data begins 0, 1, 2, ... 9, 0, 1, 2, ...: four digits, twice each


@dataclass(frozen=True, eq=False)
class DigitsProblem:
    """A loss on the digits, under a name of its own."""

    name: str
    problem: Problem

    @property
    def loss(self) -> str:
        """The loss's name: ``sincere`` is the function ``sincere_loss``."""
        return self.problem.loss

    @property
    def options(self) -> Mapping[str, Option]:
        """The function's own keywords."""
        return self.problem.options

    @property
    def arguments(self) -> Mapping[str, NDArray[np.generic]]:
        """Float64 arrays and int64 labels, in the order of the function's arguments."""
        return self.problem.arguments


@dataclass(frozen=True, eq=False)
class Reference:
    """The float64 answer: value, gradients by argument (and by temperature and bias), and the scale beside each."""

    value: Array
    scale: Array
    gradients: dict[str, Array]
    scales: dict[str, Array]


@cache
def _images() -> tuple[Array, NDArray[np.int64]]:
    from sklearn.datasets import load_digits  # type: ignore[import-untyped,unused-ignore]

    images, labels = load_digits(return_X_y=True)
    return np.asarray(images, dtype=np.float64), np.asarray(labels, dtype=np.int64)


def moved(images: Array, axis: int) -> Array:
    """The images moved by one pixel, round the edge: down for axis 1, to the right for axis 2."""
    return np.roll(images.reshape(-1, 8, 8), 1, axis=axis).reshape(images.shape)


def problems() -> list[DigitsProblem]:
    """Every loss, form, schedule and divergence on the digits."""
    x, labels = _images()
    right, down = moved(x, 2), moved(x, 1)
    batch = {"embeddings": x, "labels": labels}
    memory = {
        "embeddings": x[:-MEMORY],
        "labels": labels[:-MEMORY],
        "keys": x[-MEMORY:],
        "key_labels": labels[-MEMORY:],
    }
    two = {"view_0": x[:VIEWED], "view_1": right[:VIEWED]}
    three = {**{name: view[: VIEWED * 2 // 3] for name, view in two.items()}, "view_2": down[: VIEWED * 2 // 3]}
    towers = {"a": x, "b": right}
    queue = {"queries": x[:-QUEUE], "positives": right[:-QUEUE], "negatives": x[-QUEUE:]}
    dystress: dict[str, Option] = {"temperature_min": 0.125, "temperature_max": 0.25}
    shifted: dict[str, Option] = {**dystress, "schedule": "shifted", "offset": -0.40625, "scale": 0.6875}
    found: list[tuple[str, str, dict[str, Option], Mapping[str, NDArray[np.generic]]]] = [
        ("sincere", "sincere", {"temperature": 0.125, "epsilon": 0.0}, batch),
        ("sincere with epsilon", "sincere", {"temperature": 0.125, "epsilon": 0.25}, batch),
        ("sincere with a memory", "sincere", {"temperature": 0.0625, "epsilon": 0.0}, memory),
        ("supcon out", "supcon", {"temperature": 0.125, "summation": "out"}, batch),
        ("supcon in", "supcon", {"temperature": 0.125, "summation": "in"}, batch),
        ("supcon with a memory", "supcon", {"temperature": 0.125, "summation": "out"}, memory),
        ("decoupled", "decoupled", {"temperature": 0.125}, batch),
        ("info_nce", "info_nce", {"temperature": 0.0703125}, {"queries": x, "positives": right}),
        ("info_nce with a queue", "info_nce", {"temperature": 0.0703125}, queue),
        ("nt_xent", "nt_xent", {"temperature": 0.125}, two),
        ("nt_xent of three views", "nt_xent", {"temperature": 0.125}, three),
        ("dystress", "dystress", {**dystress, "detach": True, "schedule": "cosine"}, two),
        ("dystress, full derivative", "dystress", {**dystress, "detach": False, "schedule": "cosine"}, two),
        ("dystress shifted", "dystress", {**shifted, "detach": True}, two),
        (
            "dystress_info_nce with a queue",
            "dystress_info_nce",
            {**dystress, "detach": True, "schedule": "cosine"},
            queue,
        ),
        ("siglip", "siglip", {"temperature": 0.125, "bias": -10.0}, towers),
    ]
    listed = {loss for _, loss, _, _ in found}
    for recipe in recipes():  # two towers and a temperature: as in the ordinary case of the suite
        loss, options_ = recipe.problem.loss, dict(recipe.problem.options)
        if loss not in listed and tuple(recipe.problem.arguments) == ("a", "b") and recipe.id == f"{loss}/ordinary":
            found.append((loss, loss, options_, towers))
    for divergence in _DIVERGENCES:
        options: dict[str, Option] = {"divergence": divergence, "alpha": 40.0, "inverse_bandwidth": 1.0}
        if divergence == "tsallis":
            options["order"] = 1.5
        found.append((f"f_micl {divergence}", "f_micl", options, {"view_a": x, "view_b": right}))
    return [DigitsProblem(name, Problem(loss, options, arguments)) for name, loss, options, arguments in found]


def reference(problem: DigitsProblem) -> Reference:
    """The float64 answer to a problem, about a second of work."""
    answer = conditioned(problem.problem)
    return Reference(answer.value, answer.scale, answer.gradients, answer.scales)


# what holds the answers


def _direction(problem: Problem) -> dict[str, Array]:
    """For every array a move that depends on nothing but its shape."""
    moves = {}
    for name, x in problem.arrays().items():
        place = np.arange(x.size, dtype=np.float64).reshape(x.shape)
        moves[name] = np.sin(1.7 * place + len(name))
    return moves


def _along(problem: Problem, direction: dict[str, Array], by: float) -> Problem:
    arrays = {name: x + by * direction[name] for name, x in problem.arrays().items()}
    whole = {name: arrays.get(name, x) for name, x in problem.arguments.items()}
    return replace(problem, arguments=whole)


def _slope(problem: Problem, step: float) -> float:
    """The derivative along a direction from five values; constants of the loss are held where the move begins."""
    direction = _direction(problem)

    def at(by: float) -> float:
        return float(value(_along(problem, direction, by), start=problem))

    return (8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (12 * step)


def _with(problem: Problem, option: str, x: float) -> Problem:
    return replace(problem, options={**problem.options, option: x})


def _chosen(problem: Problem, rows: Sequence[int]) -> Problem:
    return replace(problem, arguments={name: x[list(rows)] for name, x in problem.arguments.items()})


def check(problem: DigitsProblem, rows: int | None = None) -> float:
    """The worst departure of the closed-form answer from what it must be; ValueError where it is more than rounding.

    On the first ``rows`` rows of every argument (all of them where that is None), the gradient along a direction is that
    of a few values; on eight rows, the value and the gradient along a direction are those of the loops, temperature and
    bias included. Returns the largest of the errors over what is allowed.
    """
    whole, worst = problem.problem if rows is None else _chosen(problem.problem, range(rows)), 0.0
    answer, step = conditioned(whole), 0.02
    expected = sum(float(np.sum(answer.gradients[name] * d)) for name, d in _direction(whole).items())
    allowed = 1e-7 * abs(expected) + 64 * 2.0**-53 * float(answer.scale) / step
    worst = max(worst, abs(_slope(whole, step) - expected) / allowed)
    for option in ("temperature", "bias"):
        if option in whole.options:
            here = whole.number(option)
            h = 2.0**-8 * abs(here)
            ends = [float(value(_with(whole, option, here + k * h))) for k in (-2, -1, 1, 2)]
            slope = (8 * (ends[2] - ends[1]) - (ends[3] - ends[0])) / (12 * h)
            allowed = 1e-6 * abs(slope) + 64 * 2.0**-53 * float(answer.scale) / h
            worst = max(worst, abs(slope - float(answer.gradients[option])) / allowed)
    worst = max(worst, _against_loops(_chosen(problem.problem, _PART)))
    if worst > 1:
        raise ValueError(f"{problem.name}: {worst:.3g} times what rounding allows")
    return worst


def _against_loops(problem: Problem) -> float:
    answer, (exact,) = conditioned(problem), differences.value(problem)
    u = 2.0**-53
    worst = abs(float(answer.value) - float(exact)) / (u * (4 * float(answer.scale) + abs(float(exact))))
    direction, size, total = _direction(problem), 0.0, 0.0
    moves = {name: [[mp.mpf(entry) for entry in row] for row in d.tolist()] for name, d in direction.items()}
    for name, d in direction.items():
        total += float(np.sum(answer.gradients[name] * d))
        size += float(np.sum(answer.scales[name] * np.abs(d)))
    for name in answer.gradients:
        if name not in direction:
            moves[name] = [[mp.mpf(problem.number(name)) / 8]]
            total += float(answer.gradients[name]) * problem.number(name) / 8
            size += float(answer.scales[name]) * abs(problem.number(name)) / 8
    with mp.workdps(loops.DIGITS):
        slope = float(differences.directional(problem, moves, digits=20))
    return max(worst, abs(slope - total) / (4 * u * size))
