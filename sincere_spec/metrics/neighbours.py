"""Nearest neighbours: one sweep over blocks of rows against all columns, from products, maxima and sums alone."""

from __future__ import annotations

from typing import NamedTuple

from sincere_spec.arrays import Array, Labels
from sincere_spec.errors import OptionError
from sincere_spec.metrics.sample import Sample, labelled, require_values, result_of

PAIRS = 2**20
"""The pairs of a block: with what is made of them, about 30 MB in float32."""

ROUNDINGS = 4.0
"""Similarities of unit rows that are nearer than so many units in the last place are equal: a product rounds that much."""

EPSILON = {"float32": 2.0**-23, "float64": 2.0**-52}

GRID = {"float32": 2.0**-3, "float64": 2.0**-10}
"""Neighbours are sorted by similarities on a grid, whose unit is epsilon over this: 1e-6 in float32, 2e-13 in float64."""


class Nearest(NamedTuple):
    """By row: the largest similarity to a column of its class and to one of another, the rank, and the nearest column.

    `rank` counts the columns of other classes that are at least as near as the nearest of the row's own. `index` is the
    nearest column of any class, or -1.
    """

    target: Array
    noise: Array
    rank: Array
    index: Array


class Sweep(NamedTuple):
    """What a sweep has found by row. What was not asked for is None, and what is not defined NaN."""

    nearest: Nearest
    correct: tuple[Array, ...]
    r_precision: Array | None
    average_precision: Array | None


def sweep(sample: Sample, tile: int | None, votes: tuple[int, ...] = (), retrieval: bool = False) -> Sweep:
    """Nearest neighbours of each row; for each of `votes` whether so many name its class; with `retrieval` R-precision and AP."""
    check_tile(tile)
    n, m = sample.rows.shape[0], sample.columns.shape[0]
    available = m - 1 if sample.own else m
    if votes and max(votes) > available:
        raise OptionError(f"k is {max(votes)}, and a row has {available} others; give a smaller k.")
    rows = tile or max(1, PAIRS // max(m, 1))
    found = [
        result_of(sample, _block, slice(start, min(start + rows, n)), votes, retrieval)
        for start in range(0, max(n, 1), rows)
    ]
    vectors = zip(*found, strict=True)
    xp = sample.xp
    joined = [None if x[0] is None else x[0] if len(x) == 1 else xp.concat(list(x), axis=0) for x in vectors]
    return Sweep(Nearest(*joined[:4]), tuple(joined[6:]), joined[4], joined[5])


def check_tile(tile: object) -> None:
    """Raise OptionError unless a block's number of rows is one, or None."""
    if tile is not None and (not isinstance(tile, int) or isinstance(tile, bool) or tile < 1):
        raise OptionError(f"tile must be a positive integer or None; got {tile!r}.")


def _block(sample: Sample, block: slice, votes: tuple[int, ...], retrieval: bool) -> tuple[Array | None, ...]:
    """The vectors of a block of rows: those of `Nearest`, R-precision and average precision, and one for each of `votes`."""
    backend, xp = sample.backend, sample.xp
    rows, labels = sample.rows[block, :], sample.labels[block]
    n, m = rows.shape[0], sample.columns.shape[0]
    poison = xp.sum(rows * 0.0, axis=1) + sample.poison  # [n]
    nothing = poison + float("nan")
    if n == 0 or m == 0:
        nowhere = backend.indices(rows) * 0 - 1
        return (nothing, nothing, nothing, nowhere, *_pair(nothing, retrieval), *(nothing for _ in votes))
    s = backend.product(rows, xp.matrix_transpose(sample.columns))  # [n, m]
    same = labels[:, None] == sample.column_labels[None, :]
    others = _filled_others(sample, block)
    positive, negative = (same, ~same) if others is None else (same & others, ~same & others)
    positives = xp.sum(xp.astype(positive, s.dtype), axis=1)
    negatives = xp.sum(xp.astype(negative, s.dtype), axis=1)
    target = xp.max(xp.where(positive, s, -float("inf")), axis=1)
    noise = xp.max(xp.where(negative, s, -float("inf")), axis=1)
    slack = ROUNDINGS * EPSILON[backend.dtype_name(s)] * _norms(sample, rows)
    rank = xp.sum(xp.astype(negative & (s >= (target - slack)[:, None]), s.dtype), axis=1)
    has_target, has_noise = positives > 0.0, negatives > 0.0
    s = _rounded(sample, s)
    s = xp.where(s == s if others is None else others & (s == s), s, -float("inf"))
    if sample.filled is not None:
        filled = sample.filled[block] > 0.0
        has_target, has_noise = has_target & filled, has_noise & filled
    number = xp.where(has_target, positives, 0.0)
    most = int(xp.max(number, axis=0)) if retrieval else 0
    similarity, columns = backend.largest(s, max(1, most, *votes))  # [n, k]
    somewhere = (similarity[:, 0] > -float("inf")) & (has_target | has_noise)
    index = xp.where(somewhere, columns[:, 0], columns[:, 0] * 0 - 1)
    found: list[Array | None] = [
        xp.where(has_target, target, float("nan")) + poison,
        xp.where(has_noise, noise, float("nan")) + poison,
        xp.where(has_target, rank, float("nan")) + poison,
        index,
    ]
    named = xp.reshape(xp.take(sample.column_labels, xp.reshape(columns, (-1,)), axis=0), tuple(columns.shape))
    right = (named == labels[:, None]) & (similarity > -float("inf"))
    if retrieval and most:
        places = backend.indices(similarity[0, :])[:most]  # [k]
        places = xp.astype(places, s.dtype)[None, :] + 1.0
        relevant = xp.where(right[:, :most] & (places <= number[:, None]), 1.0, xp.zeros_like(similarity[:, :most]))
        divisor = xp.where(has_target, number, 1.0)
        precision = xp.cumulative_sum(relevant, axis=1) / places
        for total in (xp.sum(relevant, axis=1), xp.sum(precision * relevant, axis=1)):
            found.append(xp.where(has_target, total / divisor, float("nan")) + poison)
    else:
        found.extend(_pair(nothing, retrieval))
    for k in votes:
        correct = _voted(sample, similarity[:, :k], named[:, :k], slack) == labels
        found.append(xp.where(has_target, xp.astype(correct, s.dtype), float("nan")) + poison)
    return tuple(found)


def _pair(vector: Array, wanted: bool) -> tuple[Array | None, Array | None]:
    return (vector, vector) if wanted else (None, None)


def others_of(sample: Sample, block: slice) -> Array | None:
    """Which columns are other samples than a row `[n, m]`; None if all are."""
    if sample.ids is not None:
        mask: Array = sample.ids[block][:, None] != sample.column_ids[None, :]  # type: ignore[index]
        return mask
    if not sample.own:
        return None
    places = sample.backend.indices(sample.rows)
    return places[block][:, None] != places[None, :]


def _filled_others(sample: Sample, block: slice) -> Array | None:
    """The same without the columns of zeros."""
    others = others_of(sample, block)
    if sample.columns_filled is None:
        return others
    filled = (sample.columns_filled > 0.0)[None, :]
    if others is None:
        labels = sample.labels[block]
        return (labels == labels)[:, None] & filled
    return others & filled


def _rounded(sample: Sample, s: Array) -> Array:
    """Similarities on a grid: those that differ by the rounding of a product are equal, and come in the order of columns."""
    largest = sample.xp.max(_norms(sample, sample.rows), axis=0)
    shift = 1.5 / GRID[sample.backend.dtype_name(s)] * largest  # a sum with it has the grid's unit in the last place
    return (s + shift) - shift


def _norms(sample: Sample, rows: Array) -> Array:
    """By row, what a similarity is at most: its norm times the largest norm of a column."""
    xp = sample.xp
    largest = xp.sqrt(xp.max(xp.sum(sample.columns * sample.columns, axis=1), axis=0))
    return xp.sqrt(xp.sum(rows * rows, axis=1)) * largest


def _voted(sample: Sample, similarity: Array, named: Array, slack: Array) -> Array:
    """The label for which the similarities of a row's neighbours add up to the most; of equal ones the smaller."""
    xp = sample.xp
    weights = xp.where(similarity > -float("inf"), similarity, 0.0)
    alike = named[:, :, None] == named[:, None, :]  # [n, k, k]
    votes = xp.sum(xp.where(alike, weights[:, None, :], 0.0), axis=2)
    votes = xp.where(similarity > -float("inf"), votes, -float("inf"))
    best = xp.max(votes, axis=1, keepdims=True)
    first = votes >= best - similarity.shape[1] * slack[:, None]
    none = xp.max(named, axis=1, keepdims=True)
    return -xp.max(-xp.where(first, named, none + named * 0), axis=1)


def nearest_similarities(
    embeddings: Array,
    labels: Labels,
    keys: Array | None = None,
    key_labels: Labels | None = None,
    *,
    ids: Labels | None = None,
    key_ids: Labels | None = None,
    normalize: bool = True,
    tile: int | None = None,
) -> Nearest:
    """The similarity of each row to the nearest of its class and to the nearest of the others (SINCERE, figures 2 and 3).

        target_i = max over P(i) of s_ij      noise_i = max over N(i) of s_ij      rank_i = #{n in N(i): s_in >= target_i}

    Args:
        embeddings: float array `[n, d]`, such as test images.
        labels: one class a row, as in the losses.
        keys, key_labels: the rows to search, such as training images; without them a row's others.
        ids, key_ids: samples; equal ids are never compared.
        normalize: divide each row by its norm.
        tile: rows of a block; None chooses so that a block needs about 30 MB.

    Returns:
        A named tuple of vectors `target`, `noise`, `rank`, `index`. Target and rank are NaN where a row has no key of its
        class, noise where there is no other class, and all for a row of zeros, whose index is -1. Similarities that differ
        by a rounding are equal, and equality counts against: such a row's rank is not 0.

    Raises:
        SincereSpecError: as in the losses; EngineUnavailable under tracing.

    Example:
        >>> import numpy as np, sincere_spec as ss
        >>> z = np.asarray([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]])
        >>> found = ss.metrics.nearest_similarities(z, [0, 0, 1, 1])
        >>> found.target.round(6).tolist(), found.rank.tolist()
        ([0.8, 0.8, 0.8, 0.8], [0.0, 0.0, 0.0, 0.0])
    """
    sample = labelled(
        embeddings, labels, keys=keys, key_labels=key_labels, ids=ids, key_ids=key_ids, normalize=normalize
    )
    require_values(sample, "nearest_similarities")
    return sweep(sample, tile).nearest
