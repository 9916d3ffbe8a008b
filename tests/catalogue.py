"""Every loss, called: records with arrays of small, shared shapes, for the tests that hold for all of them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import sqrt
from typing import Any

import numpy as np
from frameworks import COMPUTED_IN, UNIT, Framework

import sincere_spec as ss
from sincere_spec import losses
from sincere_spec.spec.words import PairLoss, Similarity

WIDTH = 4
KEYWORDS = ("keys", "temperature", "bias")
DIVERGENCES = ("kl", "js", "pearson", "hellinger", "tsallis", "vincze_le_cam", "reverse_kl", "neyman", "jeffreys")


@dataclass(frozen=True)
class Call:
    """A loss and what it is called with: arrays by argument, the labels, and other keywords.

    `dot` says that its logits are similarity / temperature, `exact` that its gradient is the derivative of its value. `name`
    is that of the built-in loss, and `own` has the keywords of its record.
    """

    loss: PairLoss
    arrays: Mapping[str, np.ndarray]
    labels: Any = None
    options: Mapping[str, Any] = field(default_factory=dict)
    dot: bool = True
    exact: bool = True
    name: str = ""
    own: Mapping[str, Any] = field(default_factory=dict)

    @property
    def temperature(self) -> float:
        """The smallest number that divides a similarity: what conditions the loss."""
        return min(float(self.loss.temperature), getattr(self.loss.logit, "minimum", np.inf))

    def with_parameters(self) -> Call:
        """The same call with its temperature, and SigLIP's bias, as arrays, which so receive gradients."""
        numbers = {"temperature": self.loss.temperature} | ({"bias": self.loss.bias} if self.loss.bias else {})
        return replace(self, arrays={**self.arrays, **{name: np.asarray(x) for name, x in numbers.items()}})

    def arguments(self, arrays: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """The positional and keyword arguments of the call, with these arrays, in whatever order they come."""
        positional = [arrays[name] for name in self.arrays if name not in KEYWORDS]
        if self.labels is not None:
            positional.insert(1, self.labels)
        return positional, {name: x for name, x in arrays.items() if name in KEYWORDS} | dict(self.options)

    def value(self, arrays: Mapping[str, Any], **options: Any) -> Any:
        """The loss of these arrays."""
        positional, keywords = self.arguments(arrays)
        return ss.evaluate(self.loss, *positional, **(keywords | options))

    def value_and_gradient(self, arrays: Mapping[str, Any], **options: Any) -> tuple[Any, dict[str, Any]]:
        """The value and the gradient by argument."""
        positional, keywords = self.arguments(arrays)
        value, gradient = ss.value_and_gradient(self.loss, *positional, **(keywords | options))
        return value, dict(zip(arrays, (gradient,))) if len(arrays) == 1 else gradient._asdict()


def draw(seed: int, **rows: int) -> dict[str, np.ndarray]:
    """Embeddings of a few directions and lengths, by argument. Multiples of 1/16, exact in every dtype."""
    rng = np.random.default_rng(seed)
    return {name: np.round(rng.normal(size=(n, WIDTH)) * 16.0) / 16.0 for name, n in rows.items()}


LABELS = [0, 0, 0, 1, 1, 2]  # a class of three, one of two, and a row without a positive
KEYS = {"key_labels": [0, 1, 1, 2, 3, 0, 1]}


ROWS = {"queries": 3, "positives": 3, "a": 3, "b": 3, "view_a": 3, "view_b": 3}
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "sincere": {"": {}, "epsilon": {"epsilon": 0.5}, "keys": {}},
    "supcon": {"out": {}, "in": {"summation": "in"}, "in_keys": {"summation": "in"}},
    "info_nce": {"": {}, "queue": {}},
    "nt_xent": {"": {}, "three_views": {}},
    "dystress": {"": {}, "cosine": {"detach": False}, "shifted": {"detach": False, "schedule": "shifted"}},
    "dystress_info_nce": {"": {"detach": False}, "queue": {}},
    "siglip": {"": {"bias": -2.0}},
    "f_micl": {name: {"divergence": name, "alpha": 4.0, "order": 1.5} for name in DIVERGENCES}
    | {"queue": {"divergence": "jeffreys", "alpha": 4.0}},
}
"""The forms of a loss, by what follows its name, with the keywords of each: one form with its defaults where none is named."""


def _call(loss: losses.table.BuiltIn, form: str, own: dict[str, Any], seed: int) -> Call:
    if "temperature" in inspect.signature(loss.record).parameters:
        own = {"temperature": 0.2} | own
    record, labelled = loss.record(**own), loss.record().arrangement.labelled
    keys = labelled and form.endswith("keys")
    if labelled:
        arrays = draw(seed, embeddings=6, **({"keys": 7} if keys else {}))
    elif record.arrangement.signature == "*views":
        count = 3 if form == "three_views" else 2
        arrays = draw(seed, **{f"view_{v}": 6 // count for v in range(count)})
    else:
        names = record.arrangement.names(2)
        arrays = draw(seed, **{name: ROWS[name] for name in names}, **({"negatives": 5} if form == "queue" else {}))
    return Call(
        record,
        arrays,
        LABELS if labelled else None,
        KEYS if keys else {},
        dot=isinstance(record.logit, Similarity),
        exact=not record.logit.held,
        name=loss.name,
        own=own,
    )


_FORMS = [(loss, form, own) for loss in losses.table.TABLE for form, own in VARIANTS.get(loss.name, {"": {}}).items()]
CALLS: dict[str, Call] = {
    f"{loss.name}_{form}".rstrip("_"): _call(loss, form, own, seed) for seed, (loss, form, own) in enumerate(_FORMS, 1)
}
REDUCTIONS = ("mean", "pairs", "batch", "sum")


def reduction_of(name: str) -> str:
    """Each loss is asked under one reduction, and all of them are taken."""
    return REDUCTIONS[list(CALLS).index(name) % len(REDUCTIONS)]


EXACT = [name for name, call in CALLS.items() if call.exact]
LABELLED = [name for name, call in CALLS.items() if call.labels is not None and not call.options]


def rule(dtype: str, temperature: float, width: int = WIDTH) -> float:
    """The relative error that a value, or a gradient as a whole, may have.

    A similarity of unit rows is wrong by about sqrt(width) u, a logit by that over the temperature, and both the loss and the
    weights of its gradient by as much relatively; u is that of the dtype in which the loss is computed.
    """
    return 8.0 * UNIT[COMPUTED_IN[dtype]] * (1.0 + sqrt(width) / temperature)


def distance(got: np.ndarray, want: np.ndarray) -> float:
    """The relative error as a whole: Frobenius norms, taken without overflow."""
    got, want = np.asarray(got, dtype=np.float64), np.asarray(want, dtype=np.float64)
    assert got.shape == want.shape
    size = float(np.max(np.abs(want), initial=0.0))
    if size == 0.0:
        return 0.0 if not np.any(got) else np.inf
    return float(np.linalg.norm((got - want) / size) / np.linalg.norm(want / size))


def assert_gradients(
    framework: Framework, got: Mapping[str, Any], want: Mapping[str, np.ndarray], dtype: str, temperature: float
) -> None:
    """Gradients within the rule, and one rounding to the dtype of the arrays."""
    assert set(got) == set(want)
    for name in want:
        assert framework.dtype(got[name]) == dtype, name
        bound = rule(dtype, temperature) + (UNIT[dtype] if COMPUTED_IN[dtype] != dtype else 0.0)
        assert distance(framework.numbers(got[name]), want[name]) <= bound, name
