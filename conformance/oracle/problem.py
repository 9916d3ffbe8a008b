"""A problem: one loss, its options and its exact arguments, for every part of the oracle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "Option", "Problem"]

Array = NDArray[np.float64]
Option = float | str | bool

_INTEGERS = ("labels", "key_labels", "ids", "key_ids")


@dataclass(frozen=True, eq=False)
class Problem:
    """One evaluation of one loss: everything that its value and its gradient depend on.

    Attributes:
        loss: The loss's name, such as ``"sincere"``.
        options: The loss's own keywords.
        arguments: Float arrays by argument name, and integer arrays for labels and ids. Several views are ``view_0``, ``view_1``.
        normalize: Whether rows are divided by their norms first.
        reduction: ``"mean"``, ``"pairs"``, ``"batch"``, ``"sum"`` or ``"none"``.
        cotangent: What the gradient is multiplied by: one number, or one per row for ``"none"``.
    """

    loss: str
    options: Mapping[str, Option]
    arguments: Mapping[str, NDArray[np.generic]]
    normalize: bool = True
    reduction: str = "mean"
    cotangent: Array = field(default_factory=lambda: np.asarray(1.0))

    def arrays(self) -> dict[str, Array]:
        """The arguments that receive a gradient, each flattened to rows: ``[n, views, d]`` goes sample by sample."""
        floats = {name: x for name, x in self.arguments.items() if name not in _INTEGERS}
        return {name: np.asarray(x, dtype=np.float64).reshape(-1, x.shape[-1]) for name, x in floats.items()}

    def integers(self, name: str) -> list[int] | None:
        """Labels or ids, one for each flattened row, or None where the problem has none."""
        if name not in self.arguments:
            return None
        entries: list[int] = self.arguments[name].astype(np.int64).tolist()
        if name == "labels" and self.arguments["embeddings"].ndim == 3:
            views = self.arguments["embeddings"].shape[1]
            return [entry for entry in entries for _ in range(views)]
        return entries

    def number(self, name: str) -> float:
        """A numeric option."""
        return float(self.options[name])

    def with_cotangent(self, cotangent: Array) -> Problem:
        """The same problem under another cotangent."""
        return replace(self, cotangent=cotangent)
