"""A problem: one loss, its options and its exact arguments, for every part of the oracle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "Option", "Problem"]

Array = NDArray[np.float64]
Option = float | str | bool

_INTEGERS = ("labels", "key_labels", "ids", "key_ids", "groups", "key_groups")
_BOOLEANS = ("where", "key_where", "ignore", "positive_pairs", "classes", "key_classes")
_GUIDE = "guide_"


@dataclass(frozen=True, eq=False)
class Problem:
    """One evaluation of one loss: everything that its value and its gradient depend on.

    Attributes:
        loss: The loss's name, such as ``"sincere"``.
        options: The loss's own keywords.
        arguments: Float arrays by argument name, and integer arrays for labels and ids. Several views are ``view_0``, ``view_1``.
            Who is compared with whom is said by ``where``, ``groups``, ``ignore``, ``positive_pairs``, ``positive_weights``,
            ``classes`` and ``guide_<array>``, those of keys or of a queue by ``key_where``, ``key_groups`` and ``key_classes``.
            ``own_negatives``, ``[n, k, d]``, are those of each row alone.
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
        floats = {name: x for name, x in self.arguments.items() if name not in (*_INTEGERS, *_BOOLEANS, *self.held())}
        return {name: np.asarray(x, dtype=np.float64).reshape(-1, x.shape[-1]) for name, x in floats.items()}

    def held(self) -> dict[str, Array]:
        """Floats that receive no gradient: weights of positives, and the rows of a guide."""
        names = (name for name in self.arguments if name == "positive_weights" or name.startswith(_GUIDE))
        return {name: np.asarray(self.arguments[name], dtype=np.float64) for name in names}

    @property
    def related(self) -> bool:
        """Whether more than labels, ids and places says who is compared with whom."""
        said = set(self.arguments) - set(self.arrays()) - {"labels", "key_labels", "ids", "key_ids"}
        return bool(said) or "own_negatives" in self.arguments

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
