"""All measures of one set of embeddings at once, from one sweep, as a record that prints as a table."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from sincere_spec.arrays import Array, Labels
from sincere_spec.call.evaluate import evaluate
from sincere_spec.errors import OptionError
from sincere_spec.losses.sincere import sincere
from sincere_spec.metrics.neighbours import sweep
from sincere_spec.metrics.pairs import PairSums, pair_sums, ratio, uniformity
from sincere_spec.metrics.rank import check_count
from sincere_spec.metrics.repulsion import repulsion
from sincere_spec.metrics.sample import Sample, labelled, require_values, result_of, without_zero_rows
from sincere_spec.spec.words import PairLoss

COLLAPSED_SIMILARITY = 0.99
COLLAPSED_RANK = 2.0
COLLAPSED_SPREAD = 0.05
"""A coordinate of rows spread evenly over the sphere has a standard deviation of 1/√d; this is a twentieth of it."""


@dataclass(frozen=True)
class Report:
    """What `report` found. Numbers are Python floats; NaN is what is not defined.

    Geometry (alignment to spread) is of the rows among themselves, and neighbours (target to map_at_r) are among the keys, or
    the other rows. `tolerance` is of the kind "within". `intervals` has the 95 % bootstrap interval of a measure by its name.
    """

    rows: int
    keys: int | None
    classes: int
    zero_rows: int
    zero_keys: int
    without_positive: int
    without_negative: int
    alignment: float
    uniformity: float
    tolerance: float
    separation: float
    effective_rank: float
    effective_rank_variance: float
    mean_similarity: float
    spread: float
    collapsed: tuple[str, ...]
    target: float
    noise: float
    margin: float
    recall: dict[int, float]
    knn: dict[int, float]
    r_precision: float
    map_at_r: float
    loss: str | None = None
    loss_value: float | None = None
    loss_rows: int | None = None
    repelled_share: float | None = None
    repelled_anchors: float | None = None
    repelling_force: float | None = None
    kl_bound: float | None = None
    kl_ceiling: float | None = None
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain numbers, strings, lists and dictionaries, ready for JSON; None for NaN."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain

    def lines(self) -> list[tuple[str, float, tuple[float, float] | None, str]]:
        """Name, value, interval and what a good value is, for a table."""
        among = "rows" if self.keys is None else "keys"
        found = [
            ("alignment", self.alignment, "mean squared distance within a class; 0 is perfect"),
            ("uniformity (t = 2)", self.uniformity, "lower is more even"),
            ("tolerance (within)", self.tolerance, "mean cosine within a class"),
            ("separation", self.separation, "mean cosine between classes; lower is further apart"),
            ("effective rank (RankMe)", self.effective_rank, "dimensions filled"),
            ("effective rank (variance)", self.effective_rank_variance, "the same of the centred variance"),
            ("mean cosine", self.mean_similarity, "of all pairs; 1 is collapse"),
            ("spread", self.spread, "std of coordinates times √d; 0 is collapse, 1 even"),
            ("target", self.target, f"median cosine to the nearest of the class among {among}"),
            ("noise", self.noise, f"median cosine to the nearest of another class among {among}"),
            ("margin", self.margin, "target - noise"),
            *((f"recall@{k}", value, "a row of the class is among the k nearest") for k, value in self.recall.items()),
            *(
                (f"k-NN, k = {k}", value, "accuracy of the vote, weighted by similarity")
                for k, value in self.knn.items()
            ),
            ("R-precision", self.r_precision, "of the R nearest, R the size of the class"),
            ("MAP@R", self.map_at_r, "mean average precision of these"),
        ]
        if self.loss is not None:
            of = (self.loss_value, self.repelled_share, self.repelled_anchors, self.repelling_force, self.kl_bound)
            value, share, anchors, force, bound = (float("nan") if x is None else x for x in of)
            found += [
                (self.loss, value, f"the loss, over {self.loss_rows} rows that count"),
                ("repelled pairs", share, "share of pairs of a class that the loss pushes apart"),
                ("repelled anchors", anchors, "share of rows with such a pair"),
                ("repelling force", force, "share of pushing in all force on such pairs"),
                ("KL bound", bound, f"nats, at most {self.kl_ceiling:.3f} here; of rows not trained on"),
            ]
        names = {"R-precision": "r_precision", "MAP@R": "map_at_r"}
        return [(name, value, self.intervals.get(names.get(name, name)), meaning) for name, value, meaning in found]

    def __str__(self) -> str:
        head = f"{self.rows} rows of {self.classes} classes"
        head += "" if self.keys is None else f", against {self.keys} keys"
        lines = [head]
        left = {
            "rows of zeros": self.zero_rows,
            "keys of zeros": self.zero_keys,
            "rows without a positive": self.without_positive,
            "rows without a negative": self.without_negative,
        }
        if any(left.values()):
            lines.append("left out: " + ", ".join(f"{number} {name}" for name, number in left.items() if number))
        for name, value, interval, meaning in self.lines():
            bounds = "" if interval is None else f"[{interval[0]:.4f}, {interval[1]:.4f}]"
            lines.append(f"  {name:<26}{value:>10.4f}  {bounds:<20}  {meaning}")
        if self.collapsed:
            lines.append("collapsed: " + "; ".join(self.collapsed))
        return "\n".join(lines)


def report(
    embeddings: Array,
    labels: Labels,
    keys: Array | None = None,
    key_labels: Labels | None = None,
    loss: PairLoss | None = None,
    *,
    k: tuple[int, ...] = (1, 5, 10),
    ids: Labels | None = None,
    key_ids: Labels | None = None,
    normalize: bool = True,
    tile: int | None = None,
    bootstrap: int = 0,
    seed: int = 0,
) -> Report:
    """All measures at once: how rows lie, what their neighbours are, and what a loss does to them.

    Args:
        embeddings, labels, keys, key_labels, ids, key_ids, normalize, tile: as in `nearest_similarities`.
        loss: a record of labelled rows, whose value and repulsion are reported, and at whose temperature SINCERE bounds the
            KL divergence of a class and the others.
        k: of recall@k and of the k-NN vote; those that are larger than the number of others are left out.
        bootstrap: how often rows are resampled for the 95 % intervals of what is a mean or median over rows; 0 for none.
        seed: of the resampling.

    Returns:
        A frozen record that prints as a table and has `to_dict()`. Rows that are left out are counted in it.

    Raises:
        SincereSpecError: as in `nearest_similarities`.

    Example:
        >>> import numpy as np, sincere_spec as ss
        >>> z = np.asarray([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]])
        >>> found = ss.metrics.report(z, [0, 0, 1, 1])
        >>> found.rows, found.recall
        (4, {1: 1.0})
    """
    check_count("bootstrap", bootstrap, 0)
    numbers = [check_count("k", number) for number in ((k,) if isinstance(k, int) else k)]
    given = {"keys": keys, "key_labels": key_labels, "ids": ids, "key_ids": key_ids}
    sample = labelled(embeddings, labels, **given, normalize=normalize)
    require_values(sample, "report")
    own = sample if sample.own else labelled(embeddings, labels, ids=ids, normalize=normalize)
    if loss is not None and not loss.arrangement.labelled:
        raise OptionError(f"report takes a loss of labelled rows; {loss.name} takes {loss.arrangement.signature}.")
    geometry = _geometry(own, uniformity(embeddings, normalize=normalize, tile=tile))
    neighbours = _neighbours(sample, sorted(set(numbers)), tile, bootstrap, seed)
    of_loss: dict[str, Any] = {}
    if loss is not None:
        of_loss = _of_loss(loss, embeddings, labels, given, normalize, tile)
    return Report(
        rows=sample.rows.shape[0],
        keys=None if sample.own else sample.columns.shape[0],
        zero_rows=_zeros(sample.filled, sample),
        zero_keys=0 if sample.own else _zeros(sample.columns_filled, sample),
        **geometry,
        **neighbours,
        **of_loss,
    )


def _zeros(filled: Array | None, sample: Sample) -> int:
    return 0 if filled is None else round(float(sample.xp.sum(1.0 - filled)))


def _geometry(sample: Sample, even: Array) -> dict[str, Any]:
    """How rows lie among themselves."""
    from sincere_spec.metrics import host

    def means(sample: Sample) -> tuple[PairSums, tuple[float, ...]]:
        xp, sums = sample.xp, pair_sums(sample)
        same, other = ratio(xp, sums.same, sums.same_count), ratio(xp, sums.other, sums.other_count)
        both = ratio(xp, sums.same + sums.other, sums.same_count + sums.other_count)
        return sums, tuple(float(x + sample.poison) for x in (same, other, both))

    sums, (same, other, both) = result_of(sample, means)
    kept = without_zero_rows(sample)
    ranks = [
        host.effective_rank(host.singular_values(kept.backend, kept.rows, kind == "variance"), kind)
        for kind in ("rankme", "variance")
    ]
    spread = host.spread(kept.backend, kept.rows)
    collapsed = []
    if both > COLLAPSED_SIMILARITY:
        collapsed.append(f"the mean cosine of all pairs is {both:.4f}")
    if ranks[0] < COLLAPSED_RANK:
        collapsed.append(f"the effective rank is {ranks[0]:.2f}")
    if spread < COLLAPSED_SPREAD:
        collapsed.append(f"coordinates spread by {spread:.4f} of what even rows do")
    return {
        "classes": round(float(sums.classes)),
        "alignment": 2.0 - 2.0 * same,
        "uniformity": float(even),
        "tolerance": same,
        "separation": other,
        "effective_rank": ranks[0],
        "effective_rank_variance": ranks[1],
        "mean_similarity": both,
        "spread": spread,
        "collapsed": tuple(collapsed),
    }


def _neighbours(sample: Sample, numbers: list[int], tile: int | None, bootstrap: int, seed: int) -> dict[str, Any]:
    """What the neighbours of rows are, with intervals."""
    from sincere_spec.metrics import host

    available = sample.columns.shape[0] - (1 if sample.own else 0)
    numbers = [number for number in numbers if number <= available]
    found = sweep(sample, tile, votes=tuple(numbers), retrieval=True)
    target, noise, rank = (host.on_host(sample.backend, x) for x in found.nearest[:3])
    vectors = {"target": (target,), "noise": (noise,), "margin": (target, noise)}
    statistics: dict[str, Any] = {
        "target": host.median,
        "noise": host.median,
        "margin": host.median_difference,
    }
    for number in numbers:
        vectors[f"recall@{number}"] = (host.below(rank, number),)
    for number, correct in zip(numbers, found.correct, strict=True):
        vectors[f"k-NN, k = {number}"] = (host.on_host(sample.backend, correct),)
    vectors["r_precision"] = (host.on_host(sample.backend, found.r_precision),)
    vectors["map_at_r"] = (host.on_host(sample.backend, found.average_precision),)
    statistics |= {name: host.mean for name in vectors if name not in statistics}
    values = {name: statistics[name](*given) for name, given in vectors.items()}
    return {
        "without_positive": int((target != target).sum()),
        "without_negative": int((noise != noise).sum()),
        "recall": {number: values[f"recall@{number}"] for number in numbers},
        "knn": {number: values[f"k-NN, k = {number}"] for number in numbers},
        "intervals": host.intervals(vectors, statistics, bootstrap, seed),
        **{name: values[name] for name in ("target", "noise", "margin", "r_precision", "map_at_r")},
    }


def _of_loss(
    loss: PairLoss, embeddings: Array, labels: Labels, given: dict[str, Any], normalize: bool, tile: int | None
) -> dict[str, Any]:
    """A loss's value and repulsion, and the KL bound at its temperature."""
    value = evaluate(loss, embeddings, labels, **given, normalize=normalize, tile=tile)
    pushed = repulsion(loss, embeddings, labels, **given, normalize=normalize)
    bound, ceiling = bound_of(embeddings, labels, loss.temperature, given, normalize)
    return {
        "loss": loss.name,
        "loss_value": float(value),
        "loss_rows": round(float(pushed.rows)),
        "repelled_share": float(pushed.share),
        "repelled_anchors": float(pushed.anchors),
        "repelling_force": float(pushed.force),
        "kl_bound": bound,
        "kl_ceiling": ceiling,
    }


def bound_of(
    embeddings: Array, labels: Labels, temperature: Any, given: dict[str, Any], normalize: bool
) -> tuple[float, float]:
    """The mean over rows of the KL bound by SINCERE and of its ceiling `log(n_noise + 1)`; NaN if no row has both."""
    from sincere_spec.metrics import host

    sample = labelled(embeddings, labels, **given, normalize=normalize)
    record = sincere(float(temperature))
    losses = evaluate(record, embeddings, labels, **given, normalize=normalize, reduction="none")
    return host.mean_bound(host.on_host(sample.backend, losses), *host.class_counts(sample))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value != value:
        return None
    return value
