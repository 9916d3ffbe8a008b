"""The positives of each row as a narrow matrix, where few columns share a row's label.

Then nothing about positives needs a pass over the whole matrix. How narrow it is depends on the labels, so this is for
arrays whose values can be read and whose shapes may differ from call to call.
"""

from __future__ import annotations

from dataclasses import dataclass

from sincere_spec.engines.comparison import Comparison
from sincere_spec.types import Array, Backend

FEW = 0.25
"""Up to this share of all columns a gather is cheaper than passes under a mask."""


@dataclass(frozen=True)
class Neighbours:
    """The columns of each row's label, which of these entries are positives, and how many each row has."""

    columns: Array
    mask: Array
    number: Array


def neighbours(backend: Backend, comparison: Comparison) -> Neighbours | None:
    """The neighbours of each row; None where the framework cannot scatter, or there are too many."""
    labels, key_labels = comparison.labels, comparison.key_labels
    xp = backend.namespace(comparison.anchors)
    if not (hasattr(xp, "add_along_axis") and comparison.distinct and backend.on_host(labels)):
        return None
    order = xp.argsort(key_labels)
    ordered = xp.take(key_labels, order, axis=0)
    first = xp.searchsorted(ordered, labels, side="left")
    last = xp.searchsorted(ordered, labels, side="right")
    most = int(xp.max(last - first, axis=0))
    if most > FEW * key_labels.shape[0]:
        return None
    places = first[:, None] + backend.indices(order)[None, :most]
    mask = places < last[:, None]
    columns = xp.take(order, xp.reshape(xp.where(mask, places, 0), (-1,)), axis=0)
    columns = xp.reshape(columns, (labels.shape[0], most))
    number = last - first
    if comparison.keys is None:
        mask = mask & (columns != backend.indices(labels)[:, None])
        number = number - 1
    return Neighbours(columns, mask, number)
