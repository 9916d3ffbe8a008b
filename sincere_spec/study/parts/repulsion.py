"""Does a loss push rows of one class apart? The analysis of SINCERE, in training batches and against the class's size."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

import sincere_spec as ss
from sincere_spec.study.data import Images
from sincere_spec.study.parts import runs
from sincere_spec.study.settings import SUPERVISED, TEMPERATURE, Settings
from sincere_spec.study.train import Job
from sincere_spec.study.verdicts import REPRODUCES, UNSEEN, Claim, claim, where

SOURCE = "SINCERE (2309.14277)"
EVERY = 8
LATE = 64
SIZES = (4, 16, 64, 256)
FIXED_SIZES = (4, 16, 64, 256, 700)
FIXED_NEGATIVES = 200
TEMPERATURES = (0.05, 0.1, 0.2)


def records() -> dict[str, Any]:
    """The supervised losses by name; None is cross-entropy."""
    return {
        "sincere": ss.losses.sincere(TEMPERATURE).to_dict(),
        "supcon_out": ss.losses.supcon(TEMPERATURE).to_dict(),
        "supcon_in": ss.losses.supcon(TEMPERATURE, summation="in").to_dict(),
        "cross_entropy": None,
    }


def jobs(settings: Settings, steps: int, classes: int) -> list[Job]:
    """The supervised trainings, which the part `separation` shares."""
    losses = records()
    return [
        Job(name, seed, losses[name], steps, settings.size, classes=classes, every=0 if losses[name] is None else EVERY)
        for seed in range(settings.seeds)
        for name in SUPERVISED
        if name in settings.losses
    ]


def against_size(arrays: dict[str, Any], images: Images) -> list[dict[str, Any]]:
    """SupCon-out's repulsion on training images as the class grows: in balanced batches, and against fixed negatives."""
    z, labels = arrays["train_z"], images.train_labels
    classes, found = int(labels.max()) + 1, []
    least = int(np.bincount(labels).min())
    for temperature in TEMPERATURES:
        record = ss.losses.supcon(temperature)
        for size in SIZES:
            if size > least:
                break
            chosen = [np.flatnonzero(labels == c)[:size] for c in range(classes)]
            rows = np.concatenate(chosen)
            pushed = ss.metrics.repulsion(record, z[rows], labels[rows])
            found.append(_row("balanced", temperature, size, [pushed]))
        for size in FIXED_SIZES:
            if size > least:
                break
            found.append(
                _row(
                    "fixed negatives",
                    temperature,
                    size,
                    [_one_class(record, z, labels, c, size) for c in range(classes)],
                )
            )
    return found


def _one_class(record: Any, z: Any, labels: Any, c: int, size: int) -> Any:
    """The repulsion of a class of so many rows against a fixed number of negatives."""
    own, others = np.flatnonzero(labels == c)[:size], np.flatnonzero(labels != c)[:FIXED_NEGATIVES]
    rows = np.concatenate([own, others])
    given = {"keys": z[rows], "key_labels": labels[rows], "ids": own, "key_ids": rows}
    return ss.metrics.repulsion(record, z[own], labels[own], **given)


def _row(kind: str, temperature: float, size: int, found: list[Any]) -> dict[str, Any]:
    means = {name: float(np.mean([getattr(x, name) for x in found])) for name in ("share", "anchors", "worst")}
    return {"kind": kind, "temperature": temperature, "size": size, **means}


def claims(study: runs.Study) -> list[Claim]:
    """What is said of repulsion."""
    found = []
    for name, shown in (("sincere", "SINCERE"), ("supcon_in", "SupCon-in")):
        largest = [max((row[1] for row in rows), default=0.0) for rows in runs.repulsion(study, name)]
        if largest:
            found.append(
                claim(
                    f"{name} never repels",
                    f"{shown} never pushes two rows of a class apart",
                    SOURCE if name == "sincere" else "derived from SupCon (2004.11362)",
                    "largest share of same-class pairs repelled in a training batch",
                    "exactly 0 in every batch looked at, in every seed",
                    largest,
                    where(all(x == 0.0 for x in largest)),
                )
            )
    late = [float(np.mean([row[1] for row in rows])) for rows in runs.repulsion(study, "supcon_out", LATE) if rows]
    if late:
        found.append(
            claim(
                "supcon_out repels",
                "SupCon pushes rows of a class apart",
                SOURCE,
                f"share of same-class pairs repelled, mean of the batches from step {LATE} on",
                "more than 5 % in every seed",
                late,
                REPRODUCES
                if min(late) > 0.05
                else where(max(late) == 0.0, UNSEEN)
                if max(late) > 0.0
                else "contradicts",
            )
        )
    found += _grown(
        study,
        "fixed negatives",
        "share",
        "SupCon pushes more pairs apart as the class grows, against a fixed set of negatives",
    )
    found += _grown(
        study, "balanced", "anchors", "under SupCon more rows have such a pair as the class grows, in balanced batches"
    )
    return found


def _grown(study: runs.Study, kind: str, measure: str, text: str) -> list[Claim]:
    """Whether a measure grows with the size of the class, at the temperature of the training."""
    steps = []
    for table in study.get("repulsion by size", []):
        rows = [row for row in table["rows"] if row["kind"] == kind and row["temperature"] == TEMPERATURE]
        values = [row[measure] for row in sorted(rows, key=lambda row: row["size"])]
        steps.append(min((b - a for a, b in pairwise(values)), default=0.0))
    if not steps:
        return []
    return [
        claim(
            f"grows {kind}",
            text,
            SOURCE,
            f"smallest increase of the {measure} from one class size to the next",
            "above 0 in every seed",
            steps,
            where(min(steps) > 0.0, UNSEEN),
            "larger classes in a batch",
        )
    ]
