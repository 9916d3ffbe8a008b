"""Results as a figure: time and memory over N, a column for each loss."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sincere_spec.bench.results import Memory, Result, Time

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which the colour-blind can tell apart; markers and dashes say the same again.
STYLES = {
    "tiled": ("#0072B2", "o", "-"),
    "dense": ("#E69F00", "s", "-"),
    "kernel": ("#F0E442", "h", "-"),
    "auto": ("#56B4E9", "x", ":"),
    "auto-compiled": ("#56B4E9", "+", "-"),
    "plain": ("#D55E00", "^", "-"),
    "plain-compiled": ("#D55E00", "v", "--"),
    "tiled-xla": ("#0072B2", "o", "--"),
    "dense-xla": ("#E69F00", "s", "--"),
    "auto-xla": ("#56B4E9", "x", "-."),
    "plain-xla": ("#D55E00", "^", "--"),
}
PEERS = (("#009E73", "D", "-"), ("#CC79A7", "P", "-"), ("#000000", "*", "-"))
LABELS = {"plain": "plain formula", "plain-xla": "plain formula, XLA", "plain-compiled": "plain formula, compiled"}
UNIT = ("#999999", "", "--")


def figure(result: Result) -> Figure:
    """The figure of one framework on one device."""
    from matplotlib.figure import Figure

    losses = list(dict.fromkeys(row.loss for row in result.times))
    rows = 2 if any(row.status == "ok" for row in result.memory) else 1
    width = max(3.6 * len(losses) + 0.6, 6.0)
    drawn = Figure(figsize=(width, 3.2 * rows + 1.0), layout="constrained")
    grid = drawn.subplots(rows, len(losses), squeeze=False, sharex=True, sharey="row")
    styles = _styles(result)
    for column, loss in enumerate(losses):
        _times(grid[0][column], [row for row in result.times if row.loss == loss], styles)
        grid[0][column].set_title(loss)
        if rows == 2:
            _memory(grid[1][column], [row for row in result.memory if row.loss == loss], styles)
    for axes in grid[-1]:
        axes.set_xlabel("N")
    grid[0][0].set_ylabel("forward + backward, ms")
    if rows == 2:
        grid[1][0].set_ylabel("peak beside inputs and gradients, MB")
    for axes in grid.flat:
        _axes(axes)
    found: dict[str, Artist] = {}
    for axes in grid.flat:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    drawn.legend(list(found.values()), list(found), loc="outside lower center", ncols=int(width / 2.8), frameon=False)
    where = result.machine.get("accelerator") or f"{result.machine['cpu']}, threads: {result.settings['threads']}"
    version = result.versions.get(result.framework, "")
    settings = f"{result.settings['dtype']}, D = {result.settings['dim']}"
    drawn.suptitle(f"{result.framework} {version} · {where} · {settings}", fontsize=11)
    return drawn


def write(result: Result, folder: Path) -> Path:
    """Write the figure, the same bytes for the same result."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    path = folder / f"{result.file}.svg"
    with mpl.rc_context({"svg.hashsalt": "sincere-spec", "svg.fonttype": "none"}):
        drawn = figure(result)
        FigureCanvasSVG(drawn)
        drawn.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
    return path


def _styles(result: Result) -> dict[str, tuple[str, str, str]]:
    peers = sorted({row.program for row in result.times if row.kind == "peer"})
    return STYLES | {name: PEERS[k % len(PEERS)] for k, name in enumerate(peers)}


def _times(axes: Axes, rows: Sequence[Time], styles: dict[str, tuple[str, str, str]]) -> None:
    for program in dict.fromkeys(row.program for row in rows):
        points = [(row.size, row.median * 1e3) for row in rows if row.program == program and row.status == "ok"]
        stops = [row for row in rows if row.program == program and row.status == "stopped"]
        _curve(axes, program, points, styles[program])
        _stop(axes, stops, " s", styles[program], None if points else program)
    units = {row.size: row.median / row.units * 1e3 for row in rows if row.status == "ok"}
    _curve(axes, "one unit: the similarity matrix", sorted(units.items()), UNIT)


def _memory(axes: Axes, rows: Sequence[Memory], styles: dict[str, tuple[str, str, str]]) -> None:
    for program in dict.fromkeys(row.program for row in rows):
        points = [(row.size, row.beside / 1e6) for row in rows if row.program == program and row.status == "ok"]
        stops = [row for row in rows if row.program == program and row.status == "stopped"]
        _curve(axes, program, [point for point in points if point[1] > 0], styles[program])
        _stop(axes, stops, " GB", styles[program], None if points else program)


def _curve(axes: Axes, program: str, points: Sequence[tuple[int, float]], style: tuple[str, str, str]) -> None:
    if points:
        colour, marker, line = style
        label = LABELS.get(program, program)
        axes.plot(*zip(*points, strict=True), color=colour, marker=marker, linestyle=line, label=label, markersize=5)


def _stop(
    axes: Axes, stops: Sequence[Time | Memory], unit: str, style: tuple[str, str, str], program: str | None
) -> None:
    """Where a program was stopped: at the limit if it is this axis's, else at the top edge, where no height is meant.

    `program` is one that has no curve to name it in the legend.
    """
    for row in stops:
        limit = row.reason.removeprefix("stopped at ")
        here = limit.endswith(unit)
        height = float(limit.split()[0]) * 1e3 if here else 0.94  # s as ms, GB as MB
        transform = axes.transData if here else axes.get_xaxis_transform()
        axes.plot(
            row.size,
            height,
            transform=transform,
            color=style[0],
            marker=style[1],
            markersize=7,
            fillstyle="none",
            linestyle="",
            label=program and LABELS.get(program, program),
        )
        axes.annotate(
            limit,
            (row.size, height),
            xycoords=transform,
            textcoords="offset points",
            xytext=(0, 6),
            ha="center",
            fontsize=7,
            color=style[0],
        )


def _axes(axes: Axes) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    low, high = axes.get_xlim()
    ticks = [2**k for k in range(3, 24) if low <= 2**k <= high]
    axes.xaxis.set_major_locator(FixedLocator(ticks if len(ticks) <= 6 else ticks[:: 1 + len(ticks) // 6]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(visible=True, which="major", color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
