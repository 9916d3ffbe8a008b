"""Calls at the edges of what losses take, and how near to the exact answer an implementation must be there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from catalogue import CALLS, Call, draw, rule
from frameworks import Framework

Outcome = tuple[Any, dict[str, Any]]
"""A value, and the gradient by argument."""

# One of each way in which a loss can be made, not each divergence.
MADE_DIFFERENTLY = [name for name in CALLS if not name.startswith("f_micl")] + [
    "f_micl_pearson",
    "f_micl_vincze_le_cam",
]


def change(
    call: Call,
    arrays: Callable[[np.ndarray], np.ndarray] = lambda x: x,
    labels: Any = None,
    temperature: float | None = None,
) -> Call:
    loss = call.loss if temperature is None or not call.dot else replace(call.loss, temperature=temperature)
    labels = call.labels if labels is None or call.labels is None else labels
    return replace(call, loss=loss, arrays={name: arrays(x) for name, x in call.arrays.items()}, labels=labels)


def with_zero_row(x: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros_like(x[:1]), x[1:]])


def at_all_scales(x: np.ndarray) -> np.ndarray:
    return x * 2.0 ** np.linspace(-100, 100, len(x)).round()[:, None]


EDGES: dict[str, Callable[[Call], Call]] = {
    "ordinary": lambda call: call,
    "one class": lambda call: change(call, labels=[0] * 6),
    "all singletons": lambda call: change(call, labels=list(range(10, 16))),
    "one singleton": lambda call: change(call, labels=[0, 0, 0, 0, 0, 1]),
    "temperature 1e-3": lambda call: change(call, temperature=1e-3),
    "temperature 1e3": lambda call: change(call, temperature=1e3),
    "norms of 1e-30": lambda call: change(call, lambda x: x * 2.0**-100),
    "norms of 1e30": lambda call: change(call, lambda x: x * 2.0**100),
    "norms from 1e-30 to 1e30": lambda call: change(call, at_all_scales),
    "a zero row": lambda call: change(call, with_zero_row),
    "identical rows": lambda call: change(call, lambda x: np.broadcast_to(draw(99, z=1)["z"], x.shape)),
}


def lengths(x: np.ndarray) -> np.ndarray:
    norms = (
        np.linalg.norm(x / np.maximum(np.max(np.abs(x)), 2.0**-1000), axis=-1, keepdims=True) if x.ndim else np.ones(())
    )
    return np.where(norms == 0.0, 1.0, norms * np.max(np.abs(x))) if x.ndim else norms


def assert_near(
    here: Framework, call: Call, edge: str, dtype: str, exact: Mapping[str, np.ndarray], found: Outcome, want: Outcome
) -> None:
    """A value and its gradients as exact as the rule says, with every gradient taken at the scale of its row."""
    what, bound = f"{call.loss.name}, {edge}", rule(dtype, call.temperature)
    # f-MICL adds a mean and 4 times another that can cancel it. Identical rows cancel each other in every gradient,
    # and in one class the two sums of SupCon's inner form do.
    size = 1.0 if call.dot else 5.0
    cancel = edge in ("identical rows", "one class")
    floors = dict.fromkeys(exact, 2.0 * size / call.temperature if cancel else 0.0)
    # The temperature's gradient adds up logits, at most 1 / temperature, over the number they were divided by.
    floors["temperature"] = size / call.temperature / float(exact["temperature"])
    assert np.isfinite(here.numbers(found[0])), what
    assert abs(here.numbers(found[0]) - want[0]) <= bound * max(abs(want[0]), size), what
    for argument, expected in want[1].items():
        got, scale = here.numbers(found[1][argument]), lengths(exact[argument])
        assert np.all(np.isfinite(got)), (what, argument)
        error = np.linalg.norm((got - expected) * scale)
        assert error <= bound * max(float(np.linalg.norm(expected * scale)), floors[argument]), (what, argument)
        if edge == "a zero row" and got.ndim:
            assert not np.any(got[0]), (what, argument)
