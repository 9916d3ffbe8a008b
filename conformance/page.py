"""The report as one HTML page that needs nothing else: the matrix, filters, plots of the errors, and every failure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from sincere_spec.conformance.report import Cell, Column, Report, facts, in_short
from sincere_spec.conformance.tolerance import K
from sincere_spec.conformance.transforms.verdicts import verdicts

__all__ = ["html"]

LEAST, MOST = 0.01, 1000.0  # the ends of the axis of ratios; what is beyond one stands at it
BINS = 25


@dataclass(frozen=True)
class Dot:
    """The worst ratio of a cell of the matrix, where it stands from left to right in percent, and in which lane."""

    place: float
    lane: int
    column: Column
    text: str


@dataclass(frozen=True)
class Bar:
    """So many verdicts in a bin, by its left side and height in percent."""

    place: float
    height: float
    text: str
    wrong: bool


def html(made: Report) -> str:
    """The report as a page; the script in it only filters what is there."""
    folder = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    lanes = list(dict.fromkeys(column.framework for column in made.columns))
    page: str = folder.get_template("report.html.j2").render(
        made=made,
        k=K,
        facts=facts(made),
        matrices=[matrix for matrix in (_matrix(made, False), _matrix(made, True)) if matrix["columns"]],
        transforms=verdicts(made.results),
        lanes=lanes,
        dots=_dots(made, lanes),
        histograms={lane: _histogram(made, lane) for lane in lanes},
        width=100 / BINS,
        ticks=[(_place(ratio), f"{ratio:g}") for ratio in (0.01, 0.1, 1, K, 10, 100, MOST)],
        limit=_place(K),
        short=in_short,
        choices={
            "row": made.rows,
            "framework": lanes,
            "dtype": _each(column.dtype for column in made.columns),
            "engine": _each(column.engine for column in made.columns),
            "profile": _each(result.profile for result in made.results),
        },
    )
    return page


def _each(words: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(words))


def _matrix(made: Report, digits: bool) -> dict[str, Any]:
    found = made.cells(digits)
    columns = [column for column in made.columns if any(place[1] == column for place in found)]
    rows = [(row, [(column, found.get((row, column), Cell(None))) for column in columns]) for row in made.rows]
    groups = [(name, len(list(group))) for name, group in groupby(columns, key=lambda column: column.framework)]
    title = "Real data: handwritten digits" if digits else "The suite"
    return {"title": title, "columns": columns, "groups": groups, "rows": rows}


def _dots(made: Report, lanes: Sequence[str]) -> list[tuple[str, list[Dot]]]:
    """For every row of the matrix the worst ratio of each of its cells, suite and digits alike."""
    dots: dict[str, list[Dot]] = {row: [] for row in made.rows}
    for digits in (False, True):
        for (row, column), cell in made.cells(digits).items():
            if cell.ratio is not None:
                text = f"{row}, {column.framework} {column.title}{', digits' if digits else ''}: {in_short(cell.ratio)}"
                dots[row].append(Dot(_place(cell.ratio), lanes.index(column.framework), column, text))
    return [(row, found) for row, found in dots.items() if found]


def _histogram(made: Report, framework: str) -> list[Bar]:
    """How many verdicts of a framework have a ratio in each bin of the axis."""
    ratios = [result.ratio for result in made.results if result.framework == framework and result.ratio is not None]
    counts = Counter(min(int(_place(ratio) * BINS / 100), BINS - 1) for ratio in ratios)
    most = max(counts.values(), default=1)
    bars = []
    for k, count in sorted(counts.items()):
        low, high = (LEAST * (MOST / LEAST) ** (end / BINS) for end in (k, k + 1))
        text = f"{count} verdicts, ratio {low:.2g} to {high:.2g}"
        bars.append(Bar(100 * k / BINS, 100 * count / most, text, low >= K))
    return bars


def _place(ratio: float) -> float:
    """Where a ratio stands on the axis, in percent of it; the axis is logarithmic."""
    inside = min(max(ratio, LEAST), MOST)
    return round(100 * math.log(inside / LEAST) / math.log(MOST / LEAST), 2)
