"""The columns of each row's label as a narrow matrix, where few columns share a row's label.

Then nothing about positives needs a pass over the whole matrix, and what is no negative is hidden by writing there alone. How
narrow it is depends on the labels, so this is for arrays whose values can be read and whose shapes may differ from call to call.
"""

from __future__ import annotations

from dataclasses import dataclass

from sincere_spec.engines.comparison import Comparison
from sincere_spec.types import Array, Backend

FEW = 0.25
"""Up to this share of all columns a gather is cheaper than passes under a mask."""


@dataclass(frozen=True)
class Neighbours:
    """The columns of each row's label, its own included; a row with fewer than others names its first one again.

    `own` says which entries are positives. There are none of either if no column has a row's label. `number` of them a row
    has, from `fewest` to `most`; it is None where these are the same.
    """

    columns: Array | None
    own: Array | None
    number: Array | None
    fewest: int
    most: int


def neighbours(backend: Backend, comparison: Comparison) -> Neighbours | None:
    """The neighbours of each row; None where the framework cannot scatter, some row has none, or there are too many."""
    labels, key_labels = comparison.labels, comparison.key_labels
    xp = backend.namespace(comparison.anchors)
    if not (hasattr(xp, "fill_along_axis") and comparison.distinct and backend.on_host(labels)):
        return None
    if comparison.alike is not None:
        return _alike(backend, comparison, comparison.alike)
    order = xp.argsort(key_labels)
    ordered = xp.take(key_labels, order, axis=0)
    first = xp.searchsorted(ordered, labels, side="left")
    last = xp.searchsorted(ordered, labels, side="right")
    number = last - first
    fewest, most = -int(xp.max(-number, axis=0)), int(xp.max(number, axis=0))
    if fewest == 0 or most > FEW * key_labels.shape[0]:
        return None
    places = first[:, None] + backend.indices(order)[None, :most]
    own = places < last[:, None]
    columns = xp.take(order, xp.reshape(xp.where(own, places, first[:, None]), (-1,)), axis=0)
    columns = xp.reshape(columns, (labels.shape[0], most))
    return Neighbours(columns, _others(backend, comparison, columns, own), number, fewest, most)


def _alike(backend: Backend, comparison: Comparison, views: int) -> Neighbours:
    """The same where the arrangement says it: the rows are so many views of the same samples, one view after the other."""
    if not views:
        return Neighbours(None, None, None, 0, 0)
    xp, own = backend.namespace(comparison.anchors), backend.indices(comparison.labels)
    columns = own[:, None]
    if views > 1:
        columns = xp.concat([xp.matrix_transpose(xp.reshape(own, (views, -1)))] * views, axis=0)
    return Neighbours(columns, _others(backend, comparison, columns, None), None, views, views)


def _others(backend: Backend, comparison: Comparison, columns: Array, own: Array | None) -> Array | None:
    """Which of a row's neighbours are its positives: not the row itself; None for all."""
    if comparison.keys is not None or comparison.partners is not None:
        return own
    others = columns != backend.indices(comparison.labels)[:, None]
    return others if own is None else own & others
