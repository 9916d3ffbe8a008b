"""Means over pairs: closed forms from class sums in O(N d), and records that the engines of the losses evaluate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from sincere_spec.arrays import COMPUTE_DTYPE, Array, Labels, Namespace
from sincere_spec.call.dispatch import find_backend, unwrap
from sincere_spec.call.evaluate import evaluate
from sincere_spec.errors import OptionError, unknown_choice
from sincere_spec.metrics.sample import (
    Sample,
    labelled,
    like_zeros,
    require_unit_rows,
    result_of,
    unlabelled,
    without_zero_rows,
)
from sincere_spec.spec.arrangements import Labelled
from sincere_spec.spec.logits import LogKernel
from sincere_spec.spec.words import Fold, Logit, PairLoss, Pairs, Stage, Term

KINDS = ("within", "wang_liu", "dystress")


@dataclass(frozen=True)
class DistancePower(Logit):
    """`(2 - 2 s)^(alpha / 2)`: a power of the distance of two unit vectors, as a logit for records."""

    alpha: float = 2.0

    def value(self, xp: Namespace, s: Array) -> Array:
        """The distance to the power of alpha."""
        return _squared_distance(xp, s) ** (0.5 * self.alpha)

    def slope(self, xp: Namespace, s: Array) -> Array:
        """Its derivative by the similarity; 0 for equal vectors, where that of the distance is not defined."""
        squared = _squared_distance(xp, s)
        apart = squared > 0.0
        return xp.where(apart, -self.alpha * xp.where(apart, squared, 1.0) ** (0.5 * self.alpha - 1.0), 0.0)


def _squared_distance(xp: Namespace, s: Array) -> Array:
    squared = 2.0 - 2.0 * s
    return xp.where(squared < 0.0, 0.0, squared)  # s may be a rounding above 1


def _alignment(alpha: float) -> PairLoss:
    stages = (Stage("distance", Fold.LINEAR, over=Pairs.POSITIVE, mean=True),)
    return PairLoss("alignment", Labelled(), stages, (Term("distance"),), DistancePower(alpha))


def _uniformity(t: float) -> PairLoss:
    stages = (Stage("spread", Fold.LOGSUMEXP, over=Pairs.OTHERS, mean=True),)
    return PairLoss("uniformity", Labelled(), stages, (Term("spread"),), LogKernel(), temperature=0.5 / t)


class PairSums(NamedTuple):
    """Sums of similarities over ordered pairs of the same class and of different ones, how many there are, and of classes.

    `itself` is the sum of the squared norms of the rows.
    """

    same: Array
    same_count: Array
    other: Array
    other_count: Array
    classes: Array
    itself: Array
    rows: Array


def pair_sums(sample: Sample) -> PairSums:
    """Both sums from the sums of each class, `Σ_c S_c · T_c`, without a matrix of pairs. The same sample is in neither."""
    backend, xp = sample.backend, sample.xp
    rows = _augmented(xp, sample.rows, sample.filled)
    columns = rows if sample.own else _augmented(xp, sample.columns, sample.columns_filled)
    d = sample.rows.shape[1]

    def products(a: Array, b: Array) -> tuple[Array, Array]:
        """By segment, the sum of similarities and the number of pairs."""
        return xp.sum(a[:, :d] * b[:, :d], axis=1), a[:, d] * b[:, d]

    def by(segments: tuple[Array, Array], count: int) -> tuple[Array, Array, Array, Array]:
        """By segment, the sums of rows and of columns, and their products."""
        first = backend.segment_sums(rows, segments[0], count)
        second = first if sample.own else backend.segment_sums(columns, segments[1], count)
        return (first, second, *products(first, second))

    count = sample.rows.shape[0] + (0 if sample.own else sample.columns.shape[0])
    labels = (sample.labels, sample.column_labels)
    classes = _segments(sample, labels)
    first, second, similarity, number = by(classes, count)
    all_rows, all_columns = xp.sum(first, axis=0)[None, :], xp.sum(second, axis=0)[None, :]
    rest, rest_number = products(first, all_columns - second)
    if sample.ids is not None:
        ids = (sample.ids, sample.column_ids)
        *_, twins, twin_number = by(_segments(sample, ids), count)
        *_, alike, alike_number = by(_segments(sample, labels, ids), count)
        same, same_count = xp.sum(similarity) - xp.sum(alike), xp.sum(number) - xp.sum(alike_number)
        other = xp.sum(rest) - (xp.sum(twins) - xp.sum(alike))
        other_count = xp.sum(rest_number) - (xp.sum(twin_number) - xp.sum(alike_number))
    elif sample.own:  # by class, so that what is subtracted has the size of what is left
        same = xp.sum(similarity - first[:, d + 1])
        same_count = xp.sum(number - first[:, d])
        other, other_count = xp.sum(rest), xp.sum(rest_number)
    else:
        same, same_count, other, other_count = (xp.sum(x) for x in (similarity, number, rest, rest_number))
    present = xp.sum(xp.astype(first[:, d] + second[:, d] > 0.0, rows.dtype))
    itself, number_of_rows = all_rows[0, d + 1], all_rows[0, d]
    return PairSums(same, same_count, other, other_count, present, itself, number_of_rows)


def _augmented(xp: Namespace, rows: Array, filled: Array | None) -> Array:
    """Rows with two more columns: 1, and the squared norm; all 0 for a row of zeros, which is in no pair."""
    squares = xp.sum(rows * rows, axis=1)
    ones = xp.ones_like(squares) if filled is None else filled
    return xp.concat([rows, ones[:, None], squares[:, None]], axis=1)


def _segments(sample: Sample, *vectors: tuple[Array, Array]) -> tuple[Array, Array]:
    """Numbers from 0 of the rows, and of the columns, that share all of some labels, in lexicographic order of these."""
    xp, n = sample.xp, sample.labels.shape[0]
    joined = [one if sample.own else xp.concat([one, other], axis=0) for one, other in vectors]
    if 0 in joined[0].shape:
        return vectors[0]
    order = xp.argsort(joined[-1], stable=True)
    for labels in reversed(joined[:-1]):
        order = xp.take(order, xp.argsort(xp.take(labels, order, axis=0), stable=True), axis=0)
    new = None
    for labels in joined:
        ordered = xp.take(labels, order, axis=0)
        other = ordered[1:] != ordered[:-1]
        new = other if new is None else new | other
    steps = xp.astype(new, order.dtype)
    numbers = xp.concat([order[:1] * 0, xp.cumulative_sum(steps, axis=0)], axis=0)
    numbers = xp.take(numbers, xp.argsort(order, stable=True), axis=0)
    return numbers[:n], numbers[:n] if sample.own else numbers[n:]


def ratio(xp: Namespace, total: Array, count: Array) -> Array:
    """A mean, or NaN of nothing."""
    return xp.where(count > 0.0, total / xp.where(count > 0.0, count, 1.0), float("nan"))


def alignment(
    embeddings: Array,
    other: Array | Labels,
    *,
    alpha: float = 2.0,
    ids: Labels | None = None,
    normalize: bool = True,
    tile: int | None = None,
) -> Array:
    """How near positive pairs are: the mean of `‖x - y‖^alpha`, where 0 is perfect (Wang & Isola 2020, 2005.10242).

        alignment = mean over positive pairs of (2 - 2 s)^(alpha / 2)

    Args:
        embeddings: float array `[n, d]`.
        other: a float array `[n, d]`, whose row i is the positive of row i; or labels `[n]` as in the losses, and then all
            pairs of different rows of one class are positive.
        alpha: the power of the distance; positive.
        ids: with labels, the sample of each row: equal ids are never compared.
        normalize: divide each row by its norm. Rows given with False must have norm 1.
        tile: rows and columns of a block, for powers other than 2 of labelled rows; None chooses.

    Returns:
        A 0-d array, differentiable; NaN if there is no positive pair. Rows of zeros are left out; under tracing they are
        compared, at the distance √2.

    Raises:
        SincereSpecError: as in the losses; OptionError for a power that is not positive.

    Example:
        >>> import numpy as np, sincere_spec as ss
        >>> z = np.asarray([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]])
        >>> float(round(ss.metrics.alignment(z, [0, 0, 1, 1]), 6))
        0.4
    """
    _positive("alpha", alpha)
    if _is_view(embeddings, other):
        if ids is not None:
            raise OptionError("ids are for rows with labels; row i of two views is one pair.")
        none = like_zeros(embeddings)
        sample = labelled(embeddings, none, keys=other, key_labels=like_zeros(other), normalize=normalize)
        _require_norm(sample, normalize, "alignment")
        return result_of(sample, _between_views, alpha)
    sample = labelled(embeddings, other, ids=ids, normalize=normalize)
    _require_norm(sample, normalize, "alignment")
    if alpha == 2.0:
        return result_of(sample, lambda sample: 2.0 - 2.0 * within(sample))
    kept = without_zero_rows(sample)
    value = evaluate(
        _alignment(alpha), kept.rows, kept.labels, ids=kept.ids, normalize=False, reduction="pairs", tile=tile
    )
    return value + result_of(sample, lambda sample: 0.0 * within(sample))  # NaN if there is no pair


def _require_norm(sample: Sample, normalize: bool, measure: str) -> None:
    if not normalize:
        require_unit_rows(sample, measure)


def _is_view(embeddings: Array, other: Array | Labels) -> bool:
    """Whether the second argument is another view: a float array of the first's shape, and no labels."""
    other, backend = unwrap(other), find_backend(other)
    shape = getattr(unwrap(embeddings), "shape", None)
    if backend is None or shape is None or len(other.shape) != 2 or tuple(shape) != tuple(other.shape):
        return False
    return backend.dtype_name(other) in COMPUTE_DTYPE


def _between_views(sample: Sample, alpha: float) -> Array:
    """The mean over rows of the distance to the row of the other view, to a power."""
    xp = sample.xp
    apart = sample.rows - sample.columns
    squared = xp.sum(apart * apart, axis=1)
    value = squared
    if alpha != 2.0:  # the slope of a power is not defined at 0
        zero = squared == 0.0
        value = xp.where(zero, 0.0, xp.where(zero, 1.0, squared) ** (0.5 * alpha))
    ones = xp.ones_like(squared)
    for filled in (sample.filled, sample.columns_filled):
        ones = ones if filled is None else ones * filled
    return ratio(xp, xp.sum(ones * value), xp.sum(ones)) + sample.poison


def uniformity(
    embeddings: Array, *, t: float = 2.0, pairs: str = "others", normalize: bool = True, tile: int | None = None
) -> Array:
    """How evenly rows cover the sphere: the log of the mean Gaussian potential; lower is more even (Wang & Isola 2020).

        uniformity = log mean over pairs i < j of exp(-t ‖z_i - z_j‖²)

    Args:
        embeddings: float array `[n, d]`.
        t: the inverse width of the Gaussian; positive.
        pairs: "others", or "all" for the mean over all ordered pairs with a row and itself among them, as DySTreSS has it.
        normalize: divide each row by its norm. Rows given with False must have norm 1.
        tile: rows and columns of a block of the engine; None chooses.

    Returns:
        A 0-d array, differentiable; NaN for fewer than two rows. Rows of zeros are left out; under tracing they are
        compared, at the distance √2.

    Raises:
        SincereSpecError: as in the losses; OptionError for a `t` that is not positive, or other `pairs`.

    Example:
        >>> import numpy as np, sincere_spec as ss
        >>> z = np.asarray([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]])
        >>> float(round(ss.metrics.uniformity(z), 6))
        -1.661743
    """
    _positive("t", t)
    if pairs not in ("others", "all"):
        raise unknown_choice("pairs", pairs, ("others", "all"))
    sample = unlabelled(embeddings, normalize)
    _require_norm(sample, normalize, "uniformity")
    kept = without_zero_rows(sample)
    row_values = evaluate(_uniformity(t), kept.rows, kept.labels, normalize=False, reduction="none", tile=tile)
    return result_of(kept, _log_mean, row_values, pairs)


def _log_mean(sample: Sample, row_values: Array, pairs: str) -> Array:
    """The log of the mean of exponentials; NaN of fewer than two rows."""
    xp, n = sample.xp, sample.rows.shape[0]
    if isinstance(n, int) and n < 2:
        return xp.sum(row_values) + float("nan")
    peak = sample.backend.hold(xp.max(row_values, axis=0))
    ones = xp.ones_like(row_values)
    value = xp.log(xp.sum(xp.exp(row_values - peak)) / xp.sum(ones)) + peak
    if pairs == "all":
        share = 1.0 / xp.sum(ones)
        value = xp.log(share + (1.0 - share) * xp.exp(value))
    return value + sample.poison


def tolerance(
    embeddings: Array,
    labels: Labels,
    *,
    kind: str = "within",
    keys: Array | None = None,
    key_labels: Labels | None = None,
    ids: Labels | None = None,
    key_ids: Labels | None = None,
    normalize: bool = True,
) -> Array:
    """How similar rows of one class are: their mean cosine, in O(N d) (Wang & Liu 2021, 2012.09740).

        within     the mean over ordered pairs i != j of one class; comparable whatever the number of classes
        wang_liu   their sum over the number of all ordered pairs, N (N - 1): within times the share of such pairs
        dystress   their sum, with each row and itself, over N² / C: as DySTreSS's code has it, for C balanced classes

    Args:
        embeddings: float array `[n, d]`.
        labels: one class a row, as in the losses.
        kind: "within", "wang_liu" or "dystress"; they differ by about a factor C, so name the one that you report.
        keys, key_labels: rows to compare with instead of with each other.
        ids, key_ids: samples; equal ids are never compared.
        normalize: divide each row by its norm.

    Returns:
        A 0-d array, differentiable; NaN if there is no pair. Rows of zeros are left out.

    Raises:
        SincereSpecError: as in the losses; OptionError for another kind.

    Example:
        >>> import numpy as np, sincere_spec as ss
        >>> z = np.asarray([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]])
        >>> float(round(ss.metrics.tolerance(z, [0, 0, 1, 1]), 6))
        0.8
    """
    if kind not in KINDS:
        raise unknown_choice("kind", kind, KINDS)
    given = {"keys": keys, "key_labels": key_labels, "ids": ids, "key_ids": key_ids}
    sample = labelled(embeddings, labels, **given, normalize=normalize)
    return result_of(sample, _tolerance, kind)


def within(sample: Sample) -> Array:
    """The mean similarity of pairs of one class."""
    return _tolerance(sample, "within")


def _tolerance(sample: Sample, kind: str) -> Array:
    xp, sums = sample.xp, pair_sums(sample)
    if kind == "within":
        return ratio(xp, sums.same, sums.same_count) + sample.poison
    pairs = sums.same_count + sums.other_count
    value = ratio(xp, sums.same, pairs)
    if kind == "dystress":
        itself = sums.itself if sample.own else 0.0
        number = sums.rows if sample.own else 0.0
        value = ratio(xp, sums.classes * (sums.same + itself), pairs + number)
    return xp.where(sums.same_count > 0.0, value, float("nan")) + sample.poison


def separation(
    embeddings: Array,
    labels: Labels,
    *,
    keys: Array | None = None,
    key_labels: Labels | None = None,
    ids: Labels | None = None,
    key_ids: Labels | None = None,
    normalize: bool = True,
) -> Array:
    """How similar rows of different classes are: their mean cosine, in O(N d); lower is further apart.

        separation = mean over pairs of different classes of s_ij

    Args:
        embeddings, labels, keys, key_labels, ids, key_ids, normalize: as in `tolerance`.

    Returns:
        A 0-d array, differentiable; NaN if there is one class only. Rows of zeros are left out.

    Raises:
        SincereSpecError: as in the losses.

    Example:
        >>> import numpy as np, sincere_spec as ss
        >>> z = np.asarray([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]])
        >>> float(round(ss.metrics.separation(z, [0, 1, 0, 1]), 6))
        0.4
    """
    given = {"keys": keys, "key_labels": key_labels, "ids": ids, "key_ids": key_ids}
    sample = labelled(embeddings, labels, **given, normalize=normalize)

    def mean(sample: Sample) -> Array:
        sums = pair_sums(sample)
        return ratio(sample.xp, sums.other, sums.other_count) + sample.poison

    return result_of(sample, mean)


def _positive(name: str, value: object) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0.0 < value < float("inf"):
        raise OptionError(f"{name} must be a positive, finite number; got {value!r}.")
