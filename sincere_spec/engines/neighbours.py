"""The columns of each row's label as a narrow matrix, where few columns share a row's label.

Then nothing about positives needs a pass over the whole matrix, and what is no negative is hidden by writing there alone. How
narrow it is depends on the labels, so this is for arrays whose values can be read and whose shapes may differ from call to call.
"""

from __future__ import annotations

from dataclasses import dataclass

from sincere_spec.arrays import Array
from sincere_spec.engines.comparison import Comparison, Samples
from sincere_spec.spec.relations import OtherLabel, SameLabel

FEW = 0.25
"""Up to this share of all columns a gather is cheaper than passes under a mask."""


@dataclass(frozen=True)
class Neighbours:
    """The `columns` of each row's label, its own included; a row with fewer of them than others names its first one again.

    A row's positives are in its `others`: those under the mask, or all if there is none. No column is a positive where there
    are no `others`. A row has `number` columns of its label, at most `most`; None where all have these. `positives` of them are
    positives, from the first to the last of `between`; None where these are the same.
    """

    columns: Array | None  # [n, most]
    others: Array | None  # [n, positives at most], or as `columns`
    mask: Array | None  # as `others`
    number: Array | None  # [n], of towers that are both compared [n + m]
    most: int
    positives: Array | None  # [n]
    between: tuple[int, int]


def neighbours(comparison: Comparison) -> Neighbours | None:
    """The neighbours of each row; None where the framework cannot scatter, some row has none, or there are too many."""
    labels, key_labels = comparison.rows["label"], comparison.columns["label"]
    backend, xp = comparison.backend, comparison.xp
    if not (backend.has_columns(labels) and _negatives_by_label(comparison)):
        return None
    if comparison.alike is not None:
        return _alike(comparison, comparison.alike)
    partnered = comparison.partners is not None  # by the arrangement, never found by its label
    if partnered and (comparison.has_partner is not None or (comparison.both_ways and labels is not key_labels)):
        return None
    order = xp.argsort(key_labels)  # [m]
    ordered = xp.take(key_labels, order, axis=0)  # [m]
    first = xp.searchsorted(ordered, labels, side="left")  # [n]
    last = xp.searchsorted(ordered, labels, side="right")  # [n]
    number = last - first
    fewest, most = map(int, backend.extremes(number))
    if fewest == 0 or most > FEW * key_labels.shape[0]:
        return None
    own = backend.indices(order)  # [m]
    places = first[:, None] + own[None, :most]  # [n, most]
    mask = places < last[:, None]  # [n, most]
    columns = xp.take(order, xp.reshape(xp.where(mask, places, first[:, None]), (-1,)), axis=0)
    columns = xp.reshape(columns, (labels.shape[0], most))  # [n, most]
    if partnered:
        number = xp.concat([number, number], axis=0) if comparison.both_ways else number
        partner = own[:, None] if comparison.partners is comparison.keys else None  # the column of the row's own number
        return Neighbours(columns, partner, None, number, most, None, (1, 1))
    if comparison.samples is Samples.WITHIN_LABELS:
        ids = xp.take(comparison.columns["sample"], xp.reshape(columns, (-1,)), axis=0)
        mask = mask & (xp.reshape(ids, columns.shape) != comparison.rows["sample"][:, None])
        positives = xp.sum(xp.astype(mask, number.dtype), axis=1)  # [n]
        fewest_positives, most_positives = map(int, backend.extremes(positives))
        return Neighbours(columns, columns, mask, number, most, positives, (fewest_positives, most_positives))
    if comparison.keys is None:
        mask = mask & (columns != own[:, None])
        return Neighbours(columns, columns, mask, number, most, number - 1, (fewest - 1, most - 1))
    return Neighbours(columns, columns, mask, number, most, number, (fewest, most))


def _negatives_by_label(comparison: Comparison) -> bool:
    """Whether a pair of two labels is a negative, whatever else is known of it, and all rows take part."""
    by_label = isinstance(comparison.relation, (SameLabel, OtherLabel))
    return by_label and comparison.samples is not Samples.ANYWHERE and comparison.inside is None


def _alike(comparison: Comparison, views: int) -> Neighbours:
    """The same where the arrangement says it: the rows are so many views of the same samples, one view after the other."""
    positives = 1 if comparison.partners is not None else views if comparison.keys is not None else views - 1
    if not views:
        return Neighbours(None, None, None, None, 0, None, (positives, positives))
    xp, own = comparison.xp, comparison.backend.indices(comparison.rows["label"])
    starts = [own.shape[0] * view // views for view in range(1, views)]
    others = [xp.concat([own[start:], own[:start]], axis=0)[:, None] for start in starts]
    columns = xp.concat([own[:, None], *others], axis=1) if others else own[:, None]
    found = columns if comparison.keys is not None else columns[:, 1:] if others else None
    return Neighbours(columns, found, None, None, views, None, (positives, positives))
