"""Runs as the parts read them: measures by seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Study = dict[str, Any]


def of(study: Study, name: str) -> dict[int, dict[str, Any]]:
    """The measures of all runs of a name, by seed."""
    return {run["seed"]: run["measures"] for run in study["runs"] if run["name"] == name}


def differences(study: Study, one: str, other: str, measure: str | Callable[[dict[str, Any]], float]) -> list[float]:
    """By seed, the measure of one run minus that of the other."""
    ours, theirs = of(study, one), of(study, other)
    read = (lambda found: found.get(measure)) if isinstance(measure, str) else measure
    pairs = [(read(ours[seed]), read(theirs[seed])) for seed in sorted(ours.keys() & theirs.keys())]
    return [a - b for a, b in pairs if a is not None and b is not None]


def largest_bound(found: dict[str, Any]) -> float:
    """The KL bound at the largest number of rows."""
    return float(found["bound"][-1]["bound"])


def repulsion(study: Study, name: str, start: int = 0) -> list[list[list[float]]]:
    """By seed, what repulsion was from a step on: step, share, anchors, force, worst."""
    return [[row for row in run["repulsion"] if row[0] >= start] for run in study["runs"] if run["name"] == name]
