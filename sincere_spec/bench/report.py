"""Results as Markdown: the tables of a folder of results, and the part of the page that holds them."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TypeVar

from sincere_spec.bench.relations import relations as table_of_relations
from sincere_spec.bench.results import Memory, Overhead, Result, Time

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
SIZE = 4096
SMALL_SIZES = (128, 256, 512, 1024)
MEMORY_SIZES = (8192, 65536)
GROWTH = (4096, 32768)
KEPT = 16 * 10**6  # bytes that are worth a word
BUSY = 0.9  # less of a processor than this, and other processes had the rest
NOTHING = "No results yet: `make bench` measures, and writes this part."

Row = Sequence[str]
Measured = TypeVar("Measured", Time, Memory)


def render(results: Sequence[Result], figures: str) -> str:
    """The tables of some results; `figures` is the folder of the figures, as a link says it."""
    if not results:
        return NOTHING
    parts = []
    for device in sorted({result.device for result in results}):
        here = [result for result in results if result.device == device]
        parts.append("\n\n".join(filter(None, (_heading(here), _times(here), _small(here), _memory(here)))))
    links = ", ".join(f"[{result.framework} on {result.device}]({figures}/{result.file}.svg)" for result in results)
    parts.append(
        f"Time and memory over N, all engines and peers: {links}. Every raw time is in the JSON files beside them."
    )
    return "\n\n".join(parts)


def rewrite(page: str, table: str) -> str:
    """The page with the tables between its markers."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"expected the markers {BEGIN} and {END}: put them where the tables belong.")
    return f"{before}{begin}\n{table}\n{end}{after}"


def block(page: str) -> str:
    """What is between the markers."""
    return page.partition(BEGIN)[2].partition(END)[0].strip("\n")


def link(folder: Path, page: Path) -> str:
    """The folder of the results as a link in the page says it."""
    return Path(os.path.relpath(folder.resolve(), page.resolve().parent)).as_posix()


# --- what was measured where ---


def _heading(results: Sequence[Result]) -> str:
    machines = {_machine(result) for result in results}
    runs = max(result.settings["runs"] for result in results)
    versions = {_version(result) for result in results}
    busy = [share for result in results if (share := _share(result)) is not None and share < BUSY]
    lines = [
        f"Measured on {'; '.join(sorted(machines))}. {'; '.join(sorted(versions))}.",
        f"Forward and backward together, median of {runs} after a warm-up, the programs in turn (one run at N = 65536, and fewer",
        "of what takes longer than 12 s). A *unit* is one N x N similarity matrix, 2 N² D floating-point operations as",
        "products of 512-row tiles into one reused buffer, in the same process, framework and dtype.",
    ]
    if busy:
        lines.append(
            f"**The machine was busy**: one thread had as little as {min(busy):.0%} of a processor; trust units, not ms."
        )
    return "\n".join(lines)


def _version(result: Result) -> str:
    changed = "+" if result.commit.endswith("+") else ""
    version = result.versions.get(result.framework, "?")
    return f"{result.framework} {version} at commit {result.commit[:10]}{changed}, {result.date[:10]}"


def _machine(result: Result) -> str:
    facts, settings = result.machine, result.settings
    where = facts.get("accelerator") or f"{facts['cpu']} ({facts['cores']} cores)"
    threads = (
        "" if "accelerator" in facts else f", {settings['threads']} thread{'s' if settings['threads'] > 1 else ''}"
    )
    return f"{where}{threads}, {settings['dtype']}, D = {settings['dim']}, {settings['classes']} classes"


def _share(result: Result) -> float | None:
    """The processor's part of the time, at one thread on a CPU: the middle of all runs."""
    if result.device != "cpu" or result.settings["threads"] != 1:
        return None
    shares = [cpu / wall for row in result.times for cpu, wall in zip(row.cpu, row.seconds, strict=True) if wall > 0.01]
    return median(shares) if shares else None


# --- relations ---


def relations(results: Sequence[Result]) -> str:
    """What relations cost: their time over that of the plain loss, and the peaks of those that multiply classes."""
    if not results:
        return NOTHING
    sizes = {result.framework: sorted({row.size for row in result.times}) for result in results}
    columns = [(result, size) for result in results for size in sizes[result.framework]]
    rows = []
    for name, relation in table_of_relations().items():
        for loss in relation.losses:
            cells = [_ratio(result, loss, size, name, relation.against) for result, size in columns]
            if any(cells):
                rows.append([f"`{name}`", f"`{loss}`", *cells])
    head = ["", "time / plain loss", *(f"{result.framework}, N = {size}" for result, size in columns)]
    peaks = [
        [result.framework, f"`{row.loss}`", f"`{row.program}`", str(row.size), _bytes(row)]
        for result in results
        for row in result.memory
    ]
    named = ["", "peak beside inputs and gradients", "program", "N", ""]
    machines = "; ".join(sorted({_machine(result) for result in results}))
    busy = [share for result in results if (share := _share(result)) is not None]
    runs = max(result.settings["runs"] for result in results)
    said = f"Processor time, forward and backward: the median ratio of {runs} calls in turn."
    if busy:
        said += f" One thread had as little as {min(busy):.0%} of a processor."
    said = f"{machines}. {'; '.join(map(_version, results))}.\n{said}"
    return "\n\n".join(filter(None, (said, table(head, rows), table(named, peaks))))


def _ratio(result: Result, loss: str, size: int, relation: str, against: str) -> str:
    """The processor time of a relation over that of what it is measured against, call by call: either's own may be bimodal."""
    (engine,) = result.settings["engines"]
    said = _find(result.times, loss, size, f"{engine}+{relation}")
    plain = _find(result.times, loss, size, f"{engine}+{against}" if against else engine)
    if said is None or plain is None:
        return ""
    if not said.cpu or not plain.cpu:
        return _why(said if not said.cpu else plain)
    return f"{statistics.median(a / b for a, b in zip(said.cpu, plain.cpu, strict=True)):.2f}"


# --- tables ---


@dataclass(frozen=True)
class _Line:
    """A line of a table: a loss in a mode of a framework, and its programs by name."""

    result: Result
    loss: str
    mode: str

    def name(self) -> str:
        """The framework as the table says it."""
        return self.result.framework + (", XLA" if self.mode == "-xla" else "")

    def time(self, program: str, size: int) -> Time | None:
        """A measurement of time."""
        return _find(self.result.times, self.loss, size, program + self.mode)

    def memory(self, program: str, size: int) -> Memory | None:
        """A measurement of memory."""
        return _find(self.result.memory, self.loss, size, program + self.mode)

    def peers(self) -> list[str]:
        """The peers that were tried, in the first line of a loss only."""
        if self.mode:
            return []
        return sorted({row.program for row in self.result.times if row.kind == "peer" and row.loss == self.loss})


def _find(rows: Iterable[Measured], loss: str, size: int, program: str) -> Measured | None:
    return next((row for row in rows if (row.loss, row.size, row.program) == (loss, size, program)), None)


def _lines(results: Sequence[Result]) -> list[_Line]:
    return [
        _Line(result, loss, mode)
        for result in results
        for loss in dict.fromkeys(row.loss for row in result.times)
        for mode in (("", "-xla") if any(row.program.endswith("-xla") for row in result.times) else ("",))
    ]


def table(head: Row, rows: Iterable[Row]) -> str:
    """Rows as a Markdown table; nothing without rows."""
    rows = [" | ".join(row) for row in rows]
    return "\n".join(f"| {row} |" for row in (" | ".join(head), " | ".join("---" for _ in head), *rows)) if rows else ""


def _times(results: Sequence[Result]) -> str:
    sizes = {row.size for result in results for row in result.times if row.status == "ok"}
    if not sizes:
        return ""
    size = SIZE if SIZE in sizes else max(sizes)
    rows = []
    for line in _lines(results):
        peers = [f"{name}: {_time(line.time(name, size))}" for name in line.peers()]
        ours = [_time(line.time(program, size)) for program in ("tiled", "dense", "plain")]
        rows.append([line.name(), f"`{line.loss}`", *ours, "<br>".join(peers) or "", _growth(line)])
    head = ["", f"N = {size}", "tiled", "dense", "plain formula", "peers", "tiled, from N to 2 N"]
    return table(head, rows)


def _time(row: Time | None) -> str:
    if row is None:
        return ""
    return f"{row.units:.1f} units, {_number(row.median * 1e3)} ms" if row.status == "ok" else _why(row)


def _why(row: Time | Memory) -> str:
    if row.status == "unsupported":
        return f"not run, {row.reason.partition(' (')[0]}" if row.kind == "peer" else "unsupported"
    return row.reason if row.status in ("stopped", "skipped") else row.status


def _number(value: float) -> str:
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"


def _growth(line: _Line) -> str:
    """The largest factor by which doubling N multiplied the time."""
    first, last = GROWTH
    found = {
        row.size: row.median
        for row in line.result.times
        if row.loss == line.loss
        and row.program == "tiled" + line.mode
        and row.status == "ok"
        and first <= row.size <= last
    }
    factors = [found[2 * size] / seconds for size, seconds in found.items() if 2 * size in found]
    return f"at most {max(factors):.1f} x" if factors else ""


def _small(results: Sequence[Result]) -> str:
    """`engine="auto"` against the plain formula where batches are small, and the cost of a call."""
    rows = []
    present = {row.size for result in results for row in result.times}
    sizes = [size for size in SMALL_SIZES if size in present]
    for line in _lines(results):
        ratios = []
        for size in sizes:
            auto, plain = line.time("auto", size), line.time("plain", size)
            both = auto is not None and plain is not None and auto.status == plain.status == "ok"
            ratios.append(f"{auto.median / plain.median:.2f}" if both and auto and plain else "")
        cost = _overhead(line.result.overhead, line.loss) if not line.mode else ""
        if any(ratios) or cost:
            rows.append([line.name(), f"`{line.loss}`", *ratios, cost])
    head = ["", '`engine="auto"`: time / plain formula', *(f"N = {size}" for size in sizes)]
    return table([*head, "checks and plan, a call (jit: a trace)"], rows)


def _overhead(rows: Iterable[Overhead], loss: str) -> str:
    found = next((row for row in rows if row.loss == loss), None)
    return "" if found is None else f"{median(found.checks) * 1e6:.0f} µs"


def _memory(results: Sequence[Result]) -> str:
    rows = []
    present = sorted({row.size for result in results for row in result.memory})
    sizes = [size for size in MEMORY_SIZES if size in present] or present[-1:]
    for line in _lines(results):
        for size in sizes:
            cells = [_bytes(line.memory(program, size)) for program in ("tiled", "dense", "plain")]
            peers = [f"{name}: {_bytes(line.memory(name, size))}" for name in line.peers()]
            if any(cells):
                limit = 4 * size * line.result.settings["dim"] * _itemsize(line.result) + 64 * 10**6
                rows.append([line.name(), f"`{line.loss}`", str(size), *cells, "<br>".join(peers), _megabytes(limit)])
    head = [
        "",
        "peak beside inputs and gradients; *kept*: compiled code, and what the first call did not give back",
        "N",
        "tiled",
        "dense",
        "plain formula",
        "peers",
    ]
    return table([*head, "4 N D numbers + 64 MB"], rows)


def _itemsize(result: Result) -> int:
    return {"float64": 8, "float32": 4}.get(result.settings["dtype"], 2)


def _bytes(row: Memory | None) -> str:
    if row is None:
        return ""
    if row.status != "ok":
        return _why(row)
    kept = f", {_megabytes(row.kept)} kept" if row.kept > KEPT else ""
    return f"{_megabytes(row.beside)}{kept}"


def _megabytes(count: int) -> str:
    return f"{_number(count / 1e6)} MB"
