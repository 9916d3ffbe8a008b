"""What the checks of the table found: a matrix of transforms by engine and loss for each framework."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sincere_spec.conformance.judge import Result, Status
from sincere_spec.conformance.transforms import TRANSFORMS, transforms_of

__all__ = ["Found", "Verdicts", "verdicts"]

RANK: tuple[Status, ...] = ("skipped", "unsupported", "pass", "error", "fail")


@dataclass(frozen=True)
class Found:
    """The worst verdict on one loss under one transform, and a word for it: the ratio, "refused" as expected, or a status."""

    status: Status
    text: str


@dataclass(frozen=True)
class Verdicts:
    """What was found in one framework's process: by the title of a transform, and by engine and loss."""

    framework: str
    columns: tuple[tuple[str, str], ...]
    lines: Mapping[str, Mapping[tuple[str, str], Found]]

    @property
    def heads(self) -> tuple[str, ...]:
        """The columns in words."""
        return tuple(row if engine == "auto" else f"{row}, {engine}" for engine, row in self.columns)


def verdicts(results: Iterable[Result]) -> list[Verdicts]:
    """The matrices, in the order of the table; none where no transform was asked."""
    places: dict[str, dict[tuple[str, str, str], list[Result]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        if result.profile == TRANSFORMS:
            places[result.framework][result.route, result.engine, result.row].append(result)
    return [_matrix(framework, found) for framework, found in places.items()]


def _matrix(framework: str, found: Mapping[tuple[str, str, str], Sequence[Result]]) -> Verdicts:
    rows = dict.fromkeys(row for _, _, row in found)
    engines = sorted({engine for _, engine, _ in found})  # "auto", then "tiled"
    lines = {
        transform.title: {
            (engine, row): _worst(found[name, engine, row])
            for engine in engines
            for row in rows
            if (name, engine, row) in found
        }
        for name, transform in transforms_of(framework).items()
    }
    columns = tuple(
        (engine, row) for engine in engines for row in rows if any((engine, row) in x for x in lines.values())
    )
    return Verdicts(framework, columns, {title: cells for title, cells in lines.items() if cells})


def _worst(results: Sequence[Result]) -> Found:
    status = max((result.status for result in results), key=RANK.index)
    if status == "pass" and all(result.quantity == "refusal" for result in results):
        return Found(status, "refused")
    ratios = [result.ratio for result in results if result.ratio is not None]
    return Found(status, f"{max(ratios):.2f}" if ratios and status in ("pass", "fail") else status)
