"""What is read on the host, by NumPy in float64: medians, bootstrap intervals and spectra."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sincere_spec.arrays import Array
from sincere_spec.engines import rows
from sincere_spec.interface import Backend
from sincere_spec.metrics.sample import Sample
from sincere_spec.spec.words import PairLoss

BLOCK = 4096
"""The rows that are read at a time for a covariance."""

ROUNDING = 1e-13
"""Up to this share of the sum of squares, what is left by centring is rounding."""


def on_host(backend: Backend, x: Array) -> np.ndarray[Any, Any]:
    """A vector or matrix as a float64 array of NumPy."""
    return np.asarray(backend.to_host(backend.hold(x)), dtype=np.float64)


def median(values: np.ndarray[Any, Any]) -> float:
    """The median of the entries that are not NaN; NaN of none."""
    kept = values[~np.isnan(values)]
    return float(np.median(kept)) if kept.size else float("nan")


def mean(values: np.ndarray[Any, Any]) -> float:
    """The mean of the entries that are not NaN; NaN of none."""
    kept = values[~np.isnan(values)]
    return float(np.mean(kept)) if kept.size else float("nan")


def median_difference(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    """The difference of the medians of two vectors, over the rows where both are defined."""
    defined = ~(np.isnan(one) | np.isnan(other))
    return median(one[defined]) - median(other[defined])


def below(values: np.ndarray[Any, Any], bound: float) -> np.ndarray[Any, Any]:
    """1.0 where a value is below a bound, 0.0 where it is not, NaN where it is NaN."""
    found: np.ndarray[Any, Any] = np.where(np.isnan(values), np.nan, (values < bound).astype(np.float64))
    return found


def spread(backend: Backend, matrix: Array) -> float:
    """The standard deviation of the coordinates, root mean square over them, times √d: 1 for rows spread evenly."""
    n, d = matrix.shape
    if not n or not d:
        return float("nan")
    total, squares = np.zeros(d), np.zeros(d)
    for start in range(0, n, BLOCK):
        part = on_host(backend, matrix[start : min(start + BLOCK, n), :])
        total += part.sum(axis=0)
        squares += (part * part).sum(axis=0)
    return float(np.sqrt(np.maximum((squares / n - (total / n) ** 2).sum(), 0.0)))


def class_counts(sample: Sample) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """By row, how many columns are negatives and how many positives; the same sample is neither."""
    backend = sample.backend
    labels, others = (np.asarray(backend.to_host(x)) for x in (sample.labels, sample.column_labels))
    _, joined = np.unique(np.concatenate([labels, others]), return_inverse=True)
    places, column_places = joined[: len(labels)], joined[len(labels) :]
    alike = np.bincount(column_places, minlength=joined.max(initial=0) + 1)[places]
    negatives, positives = len(others) - alike, alike
    if sample.ids is None:
        return negatives, positives - 1 if sample.own else positives
    ids, column_ids = (np.asarray(backend.to_host(x)) for x in (sample.ids, sample.column_ids))
    for i in range(len(labels)):  # the columns of a row's sample, by label
        itself = others[column_ids == ids[i]] == labels[i]
        positives[i] -= itself.sum()
        negatives[i] -= (~itself).sum()
    return negatives, positives


def joined(vectors: Sequence[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """Vectors one after the other."""
    return np.concatenate(list(vectors))


def partner_ranks(backend: Backend, target: Array, noise: Array) -> np.ndarray[Any, Any]:
    """0 where a row's partner is nearer than its nearest noise by more than a rounding, else 1; NaN where it is NaN."""
    own, other = on_host(backend, target), on_host(backend, noise)
    slack = 4.0 * (2.0**-23 if backend.dtype_name(target) == "float32" else 2.0**-52)
    ranks = np.where(np.isnan(other), 0.0, (other >= own - slack).astype(np.float64))
    found: np.ndarray[Any, Any] = np.where(np.isnan(own), np.nan, ranks)
    return found


def counted(loss: PairLoss, positives: np.ndarray[Any, Any], negatives: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """1.0 for each row that counts, else 0.0."""
    import array_api_compat.numpy as xp

    counts = rows.Counts(positives.astype(np.float64), negatives.astype(np.float64))
    found: np.ndarray[Any, Any] = rows.without_uncounted(xp, loss, counts, np.ones(len(positives)))
    return found


def mean_bound(
    losses: np.ndarray[Any, Any], negatives: np.ndarray[Any, Any], positives: np.ndarray[Any, Any]
) -> tuple[float, float]:
    """The mean of `log(negatives + 1) - loss` over the rows with both, and of the first summand alone."""
    rows = (negatives > 0) & (positives > 0)
    if not rows.any():
        return float("nan"), float("nan")
    ceiling = np.log1p(negatives[rows])
    return float((ceiling - losses[rows]).mean()), float(ceiling.mean())


def intervals(
    vectors: Mapping[str, Sequence[np.ndarray[Any, Any]]],
    statistics: Mapping[str, Callable[..., float]],
    resamples: int,
    seed: int,
) -> dict[str, tuple[float, float]]:
    """The 95 % percentile intervals of statistics over resampled rows: the same rows for all of them, seeded."""
    if not resamples:
        return {}
    length = max((len(vector) for given in vectors.values() for vector in given), default=0)
    if not length:
        return {name: (float("nan"), float("nan")) for name in vectors}
    random = np.random.default_rng(seed)
    found: dict[str, list[float]] = {name: [] for name in vectors}
    for _ in range(resamples):
        rows = random.integers(0, length, length)
        for name, given in vectors.items():
            found[name].append(statistics[name](*(vector[rows] for vector in given)))
    bounds = {}
    for name, values in found.items():
        kept = np.asarray([value for value in values if value == value])
        low, high = np.quantile(kept, (0.025, 0.975)) if kept.size else (np.nan, np.nan)
        bounds[name] = (float(low), float(high))
    return bounds


def singular_values(backend: Backend, rows: Array, centred: bool) -> np.ndarray[Any, Any]:
    """The singular values of a matrix: those of the triangle of its QR decomposition, made by blocks of rows.

    A Gram matrix costs half as much, but squares the condition number: a singular value of 0 comes out as the square root of
    a rounding error.
    """
    n, d = rows.shape
    starts = range(0, n, BLOCK)

    def block(start: int) -> np.ndarray[Any, Any]:
        return on_host(backend, rows[start : min(start + BLOCK, n), :])

    centre = sum((block(start).sum(axis=0) for start in starts), np.zeros(d)) / n if centred and n else np.zeros(d)
    triangle, size = np.zeros((0, d)), 0.0
    for start in starts:
        part = block(start)
        size += (part * part).sum()
        triangle = np.asarray(np.linalg.qr(np.concatenate([triangle, part - centre]), mode="r"))  # [at most d, d]
    if not (np.isfinite(size) and np.isfinite(triangle).all()):
        return np.full(min(n, d), np.nan)
    if centred and (triangle * triangle).sum() <= ROUNDING * size:  # all rows are equal: what is left is rounding
        triangle = np.zeros_like(triangle)
    found: np.ndarray[Any, Any] = np.linalg.svd(triangle, compute_uv=False)
    return found


def effective_rank(values: np.ndarray[Any, Any], kind: str) -> float:
    """The exponential of the entropy of singular values, or of their squares; NaN where all are 0."""
    shares = values if kind == "rankme" else values * values
    if not shares.sum() > 0.0:
        return float("nan")
    shares = shares / shares.sum()
    if kind == "rankme":
        shares = shares + 1e-7
    shares = shares[shares > 0.0]
    return float(min(np.exp(-(shares * np.log(shares)).sum()), len(values)))
