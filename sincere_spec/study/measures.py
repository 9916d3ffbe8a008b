"""What is measured of a trained encoder: on images that it was not trained on, against those that it was."""

from __future__ import annotations

from typing import Any

import numpy as np

import sincere_spec as ss
from sincere_spec.study.data import Images
from sincere_spec.study.settings import QUERIES, TEMPERATURE

BOUND_SIZES = (256, 1024, 4096, 10_000)
BINS = 60
TRANSFER_SPLIT = 4000


def measure(arrays: dict[str, Any], images: Images, moved: Any, *, supervised: bool, head: bool) -> dict[str, Any]:
    """The measures of one run, as numbers; `head` says that z is what was trained, and not h."""
    z, queries = ("z", QUERIES) if head else ("h", QUERIES)
    train, test = arrays[f"train_{z}"], arrays[f"test_{z}"]
    labels, own = images.train_labels, images.test_labels[:queries]
    found = ss.metrics.report(test[:queries], own, train, labels, k=(1, 10))
    made: dict[str, Any] = {
        "target": found.target,
        "noise": found.noise,
        "margin": found.margin,
        "1-NN": found.recall[1],
        "10-NN": found.knn[10],
        "MAP@R": found.map_at_r,
        "uniformity": found.uniformity,
        "tolerance": found.tolerance,
        "separation": found.separation,
        "effective rank": found.effective_rank,
    }
    h = arrays["test_h"][:queries]
    made["uniformity h"] = float(ss.metrics.uniformity(h))
    made["tolerance h"] = float(ss.metrics.tolerance(h, own))
    if not supervised:
        made["1-NN h"] = float(ss.metrics.recall_at(h, own, arrays["train_h"], labels))
    made["probe"] = probe(arrays["train_h"], labels, arrays["test_h"], images.test_labels)
    if supervised:
        if moved is not None:
            made["transfer probe"] = transfer_probe(arrays["transfer_h"], moved[1])
        made["bound"] = bounds(test, images.test_labels)
        nearest = ss.metrics.nearest_similarities(test[:queries], own, train, labels)
        made["histograms"] = {name: histogram(x) for name, x in (("target", nearest.target), ("noise", nearest.noise))}
    return made


def probe(rows: Any, labels: Any, others: Any, other_labels: Any) -> float:
    """The accuracy of a linear classifier on standardised rows, of which nothing is chosen by the test images."""
    import warnings

    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scale = StandardScaler().fit(rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that 40 steps are few, which is meant
        model = LogisticRegression(C=0.1, max_iter=40, tol=1e-2).fit(scale.transform(rows), labels)
    return float(model.score(scale.transform(others), other_labels))


def transfer_probe(rows: Any, labels: Any) -> float:
    """The same on the images of another set."""
    cut = TRANSFER_SPLIT
    return probe(rows[:cut], labels[:cut], rows[cut:], labels[cut:])


def raw_probes(images: Images, moved: Any) -> dict[str, float]:
    """What a linear classifier gets from the pixels alone."""
    cut = TRANSFER_SPLIT
    flat, other = (x.reshape(len(x), -1) for x in (images.train[:cut], images.test))
    found = {"probe": probe(flat, images.train_labels[:cut], other, images.test_labels)}
    if moved is not None:
        found["transfer probe"] = transfer_probe(moved[0].reshape(len(moved[0]), -1), moved[1])
    return found


def bounds(rows: Any, labels: Any) -> list[dict[str, float]]:
    """The KL bound of SINCERE as a critic on held-out rows, by the number of rows, and its ceiling."""
    found: list[dict[str, float]] = []
    for size in BOUND_SIZES:
        if size > len(rows) and found:
            break
        z, y = rows[:size], labels[:size]
        losses = ss.sincere_loss(z, y, temperature=TEMPERATURE, reduction="none")
        alike = np.bincount(y)[y]
        noise = (len(y) - alike)[alike > 1]
        bound = ss.metrics.kl_bound(losses[alike > 1], noise)
        found.append({"rows": len(y), "bound": float(bound.mean()), "ceiling": float(np.log1p(noise).mean())})
    return found


def histogram(values: Any) -> list[int]:
    """Counts of similarities in equal bins of [-1, 1]."""
    counts, _ = np.histogram(values[~np.isnan(values)], bins=BINS, range=(-1.0, 1.0))
    return [int(x) for x in counts]
