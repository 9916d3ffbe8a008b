"""Measures of retrieval, from the ranks of one sweep; and the rank of a spectrum."""

from __future__ import annotations

from typing import Any, NamedTuple

from sincere_spec.arrays import Array, Labels
from sincere_spec.errors import OptionError, unknown_choice
from sincere_spec.metrics.neighbours import sweep
from sincere_spec.metrics.pairs import ratio
from sincere_spec.metrics.sample import Sample, labelled, require_values, result_of, unlabelled, without_zero_rows

RANKS = ("rankme", "variance")


class Margin(NamedTuple):
    """`median(target) - median(noise)`, its bootstrap interval, and the rows that it is of. `float` gives the value."""

    value: float
    low: float
    high: float
    rows: int
    left_out: int

    def __float__(self) -> float:
        return self.value


def _checked(measure: str, embeddings: Array, labels: Labels, given: dict[str, Any], normalize: bool) -> Sample:
    sample = labelled(embeddings, labels, **given, normalize=normalize)
    require_values(sample, measure)
    return sample


def check_count(name: str, value: object, least: int = 1) -> int:
    """A keyword that is a number of things; raises OptionError for anything else."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise OptionError(f"{name} must be an integer from {least} on; got {value!r}.")
    return value


def _mean(sample: Sample, vector: Array) -> Array:
    """The mean of the entries that are defined, or NaN of none; NaN too where an entry of the rows was not finite."""
    xp = sample.xp
    there = vector == vector
    total = xp.sum(xp.where(there, vector, 0.0))
    return ratio(xp, total, xp.sum(xp.astype(there, vector.dtype))) + sample.poison


def margin(
    embeddings: Array,
    labels: Labels,
    keys: Array | None = None,
    key_labels: Labels | None = None,
    *,
    ids: Labels | None = None,
    key_ids: Labels | None = None,
    normalize: bool = True,
    tile: int | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Margin:
    """By how much the nearest of a row's class is nearer than the nearest of the others, with its sign.

        margin = median(target) - median(noise)        of `nearest_similarities`

    The authors of SINCERE report its absolute value, with the lower of two middle values as the median.

    Args:
        embeddings, labels, keys, key_labels, ids, key_ids, normalize, tile: as in `nearest_similarities`.
        bootstrap: how often rows are resampled for the interval of 95 %; 0 for none.
        seed: of the resampling.

    Returns:
        A named tuple of Python numbers `value, low, high, rows, left_out`. Rows without a target or a noise are left out.

    Raises:
        SincereSpecError: as in `nearest_similarities`.

    Example:
        >>> import numpy as np, sincere_spec as ss
        >>> z = np.asarray([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]])
        >>> found = ss.metrics.margin(z, [0, 0, 1, 1])
        >>> round(found.value, 6), found.rows
        (0.5, 4)
    """
    from sincere_spec.metrics import host

    check_count("bootstrap", bootstrap, 0)
    given = {"keys": keys, "key_labels": key_labels, "ids": ids, "key_ids": key_ids}
    sample = _checked("margin", embeddings, labels, given, normalize)
    nearest = sweep(sample, tile).nearest
    target, noise = (host.on_host(sample.backend, x) for x in nearest[:2])
    defined = ~((target != target) | (noise != noise))
    target, noise = target[defined], noise[defined]
    statistic = host.median_difference
    bounds = host.intervals({"margin": (target, noise)}, {"margin": statistic}, bootstrap, seed)
    low, high = bounds.get("margin", (float("nan"), float("nan")))
    return Margin(statistic(target, noise), low, high, len(target), int((~defined).sum()))


def recall_at(
    embeddings: Array,
    labels: Labels,
    keys: Array | None = None,
    key_labels: Labels | None = None,
    *,
    k: int = 1,
    ids: Labels | None = None,
    key_ids: Labels | None = None,
    normalize: bool = True,
    tile: int | None = None,
) -> Array:
    """The share of rows with a row of their class among the k nearest; k = 1 is the accuracy of the nearest neighbour.

        recall@k = mean over rows of [rank_i < k]        of `nearest_similarities`

    Args:
        k: how many neighbours are looked at.
        embeddings, labels, keys, key_labels, ids, key_ids, normalize, tile: as in `nearest_similarities`.

    Returns:
        A 0-d array; NaN if no row counts. Rows with no key of their class, and rows of zeros, are left out.

    Raises:
        SincereSpecError: as in `nearest_similarities`; OptionError if k is no positive integer.

    Example:
        >>> import numpy as np, sincere_spec as ss
        >>> z = np.asarray([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]])
        >>> float(ss.metrics.recall_at(z, [0, 0, 1, 1], k=1))
        1.0
    """
    check_count("k", k)
    given = {"keys": keys, "key_labels": key_labels, "ids": ids, "key_ids": key_ids}
    sample = _checked("recall_at", embeddings, labels, given, normalize)
    rank = sweep(sample, tile).nearest.rank

    def share(sample: Sample) -> Array:
        xp = sample.xp
        return _mean(sample, xp.where(rank == rank, xp.astype(rank < k, rank.dtype), float("nan")))

    return result_of(sample, share)


def knn(
    embeddings: Array,
    labels: Labels,
    keys: Array | None = None,
    key_labels: Labels | None = None,
    *,
    k: int = 5,
    ids: Labels | None = None,
    key_ids: Labels | None = None,
    normalize: bool = True,
    tile: int | None = None,
) -> Array:
    """The accuracy of a vote of the k nearest, each with its similarity as its weight, as SINCERE's authors have it.

    Args:
        k: how many vote; no more than there are.
        embeddings, labels, keys, key_labels, ids, key_ids, normalize, tile: as in `nearest_similarities`.

    Returns:
        A 0-d array; NaN if no row counts. Rows with no key of their class, and rows of zeros, are left out. Of classes with
        equal votes the smaller label wins.

    Raises:
        SincereSpecError: as in `nearest_similarities`; OptionError for a k that is larger than the number of others.

    Example:
        >>> import numpy as np, sincere_spec as ss
        >>> z = np.asarray([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]])
        >>> float(ss.metrics.knn(z, [0, 0, 1, 1], k=1))
        1.0
    """
    check_count("k", k)
    given = {"keys": keys, "key_labels": key_labels, "ids": ids, "key_ids": key_ids}
    sample = _checked("knn", embeddings, labels, given, normalize)
    return result_of(sample, _mean, sweep(sample, tile, votes=(k,)).correct[0])


def r_precision(
    embeddings: Array,
    labels: Labels,
    keys: Array | None = None,
    key_labels: Labels | None = None,
    *,
    ids: Labels | None = None,
    key_ids: Labels | None = None,
    normalize: bool = True,
    tile: int | None = None,
) -> Array:
    """The share of a row's class among its R nearest, where R is the size of that class (Musgrave et al., 2003.08505).

        R-precision = mean over rows of #{positives among the R_i nearest} / R_i

    Args:
        embeddings, labels, keys, key_labels, ids, key_ids, normalize, tile: as in `nearest_similarities`.

    Returns:
        A 0-d array; NaN if no row counts. Rows with no key of their class, and rows of zeros, are left out.

    Raises:
        SincereSpecError: as in `nearest_similarities`.

    Example:
        >>> import numpy as np, sincere_spec as ss
        >>> z = np.asarray([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]])
        >>> float(ss.metrics.r_precision(z, [0, 0, 1, 1]))
        1.0
    """
    given = {"keys": keys, "key_labels": key_labels, "ids": ids, "key_ids": key_ids}
    sample = _checked("r_precision", embeddings, labels, given, normalize)
    return result_of(sample, _mean, sweep(sample, tile, retrieval=True).r_precision)


def map_at_r(
    embeddings: Array,
    labels: Labels,
    keys: Array | None = None,
    key_labels: Labels | None = None,
    *,
    ids: Labels | None = None,
    key_ids: Labels | None = None,
    normalize: bool = True,
    tile: int | None = None,
) -> Array:
    """Mean average precision of the R nearest, where R is the size of a row's class (Musgrave et al., 2003.08505).

        MAP@R = mean over rows of (1 / R_i) Σ_{k <= R_i} precision_i(k) [the k-th nearest is a positive]

    Args:
        embeddings, labels, keys, key_labels, ids, key_ids, normalize, tile: as in `nearest_similarities`.

    Returns:
        A 0-d array; NaN if no row counts. Rows with no key of their class, and rows of zeros, are left out.

    Raises:
        SincereSpecError: as in `nearest_similarities`.

    Example:
        >>> import numpy as np, sincere_spec as ss
        >>> z = np.asarray([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]])
        >>> float(ss.metrics.map_at_r(z, [0, 0, 1, 1]))
        1.0
    """
    given = {"keys": keys, "key_labels": key_labels, "ids": ids, "key_ids": key_ids}
    sample = _checked("map_at_r", embeddings, labels, given, normalize)
    return result_of(sample, _mean, sweep(sample, tile, retrieval=True).average_precision)


def effective_rank(embeddings: Array, *, kind: str = "rankme", normalize: bool = True) -> Array:
    """How many dimensions rows fill: the exponential of the entropy of their spectrum.

        rankme     of σ_k / Σ σ + 1e-7, not centred (Garrido et al., 2210.02885)
        variance   of σ_k² / Σ σ², centred: the entropy of the explained variance (Roy & Vetterli 2007)

    Args:
        embeddings: float array `[n, d]`.
        kind: "rankme" or "variance".
        normalize: divide each row by its norm.

    Returns:
        A 0-d array, at most the smaller of n and d; NaN if all rows are zero, or equal and centred. Computed on the host in
        float64, without a gradient. Rows of zeros are left out.

    Raises:
        SincereSpecError: as in the losses; EngineUnavailable under tracing; OptionError for another kind.

    Example:
        >>> import numpy as np, sincere_spec as ss
        >>> round(float(ss.metrics.effective_rank(np.eye(4))), 4)
        4.0
    """
    from sincere_spec.metrics import host

    if kind not in RANKS:
        raise unknown_choice("kind", kind, RANKS)
    sample = unlabelled(embeddings, normalize)
    require_values(sample, "effective_rank")
    kept = without_zero_rows(sample)
    value = host.effective_rank(host.singular_values(kept.backend, kept.rows, kind == "variance"), kind)
    return sample.poison + value
