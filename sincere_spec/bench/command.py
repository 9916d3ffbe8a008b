"""What `sincere-spec bench` does: choose, measure with a progress bar, write and render."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sincere_spec.bench import crossover as crossovers
from sincere_spec.bench import device, measure, report, results
from sincere_spec.bench.process import Died, Stopped
from sincere_spec.bench.settings import (
    DEFAULT_LOSSES,
    DEFAULT_SIZES,
    DEVICES,
    DTYPES,
    ENGINES,
    FRAMEWORKS,
    HOST_ENGINES,
    LARGE_LOSSES,
    LOSSES,
    QUICK_LOSSES,
    QUICK_MEMORY_SIZE,
    QUICK_SIZES,
    RELATION_MEMORY_SIZE,
    RELATION_RUNS,
    RELATION_SIZES,
    SMALLEST_MEMORY_SIZE,
    Settings,
)
from sincere_spec.errors import unknown_choice

if TYPE_CHECKING:
    from rich.console import Console

DONE, FAILED, CANNOT = 0, 1, 2
RESULTS = Path("benchmarks/results")
QUICK_RESULTS = Path("report/bench")  # a quick run never replaces committed results
PAGE = Path("docs/speed.md")
RELATION_RESULTS, RELATION_PAGE = Path("benchmarks/relations"), Path("docs/relations.md")


class CannotRun(Exception):
    """The command cannot do what it was asked; the message says why."""


def settings(
    *,
    frameworks: Sequence[str] = (),
    losses: Sequence[str] = (),
    sizes: Sequence[int] = (),
    engines: Sequence[str] = (),
    dim: int = 128,
    classes: int = 100,
    dtype: str = "float32",
    device: str = "cpu",
    threads: int = 1,
    quick: bool = False,
    peers: bool = True,
    memory: bool = True,
    relations: bool = False,
) -> Settings:
    """The settings of a run; raises `CannotRun` for what cannot be run here."""
    for keyword, values, choices in (
        ("framework", frameworks, FRAMEWORKS),
        ("loss", losses, LOSSES),
        ("engine", engines, ENGINES),
        ("dtype", [dtype], DTYPES),
        ("device", [device], DEVICES),
    ):
        for value in values:
            if value not in choices:
                raise CannotRun(str(unknown_choice(keyword, value, choices)))
    for keyword, least, numbers in (
        ("size", 8, sizes),
        ("dim", 1, [dim]),
        ("classes", 1, [classes]),
        ("threads", 1, [threads]),
    ):
        if any(number < least for number in numbers):
            raise CannotRun(f"{keyword} must be at least {least}; got {min(numbers)}.")
    missing = [name for name in frameworks if find_spec(name) is None]
    if missing:
        raise CannotRun(f"{', '.join(missing)} is not installed; pip install 'sincere-spec[{missing[0]}]'.")
    found = tuple(name for name in FRAMEWORKS if name in frameworks or (not frameworks and find_spec(name) is not None))
    if device == "cuda":
        found = tuple(name for name in found if name != "numpy")
    if not found:
        raise CannotRun("no framework is installed that runs there; pip install 'sincere-spec[torch]', for one.")
    if relations:
        return Settings(
            frameworks=found,
            losses=tuple(dict.fromkeys(losses)) or LOSSES,
            sizes=tuple(sorted(set(sizes))) or RELATION_SIZES,
            engines=tuple(dict.fromkeys(engines)) or ("auto",),
            dim=dim,
            classes=classes,
            dtype=dtype,
            device=device,
            threads=threads,
            runs=3 if quick else RELATION_RUNS,
            peers=False,
            memory=memory,
            memory_sizes=(RELATION_MEMORY_SIZE,),
            relations=True,
        )
    chosen = tuple(sorted(set(sizes))) or (QUICK_SIZES if quick else DEFAULT_SIZES)
    wanted = tuple(dict.fromkeys(losses)) or (QUICK_LOSSES if quick else DEFAULT_LOSSES)
    # A size that was named is measured for memory too, however small.
    least = QUICK_MEMORY_SIZE if quick else 0 if sizes else SMALLEST_MEMORY_SIZE
    return Settings(
        frameworks=found,
        losses=wanted,
        large=wanted if losses or sizes else LARGE_LOSSES,
        sizes=chosen,
        engines=tuple(dict.fromkeys(engines)) or (HOST_ENGINES if device == "cpu" else ENGINES),
        dim=dim,
        classes=classes,
        dtype=dtype,
        device=device,
        threads=threads,
        runs=3 if quick else 5,
        peers=peers,
        memory=memory,
        memory_sizes=tuple(size for size in chosen if size >= least),
        seconds=20.0 if quick else 60.0,
    )


def run(chosen: Settings, *, output: Path, as_json: bool) -> int:
    """Measure, and write JSON and figures; the exit status."""
    from rich.console import Console

    console = Console(stderr=True)
    measured, status = [], DONE
    with _progress(console, measure.count(chosen)) as tell:
        for framework in chosen.frameworks:
            try:
                result = measure.measure(framework, chosen, tell)
            except (Died, Stopped) as reason:
                console.print(f"{framework} cannot be measured: {reason}", style="red", markup=False)
                status = CANNOT
                continue
            measured.append(result)
            results.write(result, output)
    rows: list[results.Time | results.Memory] = []
    for result in measured:
        rows += result.times
        rows += result.memory
    for row in rows:
        if row.status == "failed":
            console.print(f"{row.loss} N={row.size} {row.program} failed: {row.reason}", style="red", markup=False)
            status = status or FAILED
    if as_json:
        sys.stdout.write(json.dumps([json.loads(results.to_json(result)) for result in measured], indent=2) + "\n")
    else:
        for result in measured:
            said = report.relations([result]) if chosen.relations else report.render([result], str(output))
            Console().print(said, markup=False, soft_wrap=True)
    console.print(f"Written to {output}: {', '.join(f'{result.file}.json' for result in measured)}", markup=False)
    if not chosen.relations:
        _figures(measured, output, console)
    return status


def render(output: Path, *, relations: bool = False) -> int:
    """Figures of the results in a folder, and the tables of the page; the exit status."""
    from rich.console import Console

    console = Console(stderr=True)
    if not output.is_dir():
        raise CannotRun(f"{output} is no folder with results; run sincere-spec bench first.")
    found = results.read(output)
    if relations:
        return _rewrite(RELATION_PAGE, report.relations(found), f"{len(found)} results", console)
    if find_spec("matplotlib") is None and found:
        raise CannotRun("figures need matplotlib; pip install 'sincere-spec[bench]'.")
    _figures(found, output, console)
    for folder in device.folders(output):
        _figures(device.results(device.read(folder)), folder, console)
    return _rewrite(PAGE, tables(output, PAGE), f"{len(found)} results", console)


def tables(output: Path, page: Path) -> str:
    """The tables of the results in a folder, and of the device runs in its folders, with links from a page."""
    found, runs = results.read(output), device.folders(output)
    parts = [] if not found and runs else [report.render(found, report.link(output, page))]
    parts += [device.render(device.read(folder), report.link(folder, page)) for folder in runs]
    return "\n\n".join(parts)


def _rewrite(page: Path, tables: str, of: str, console: Console) -> int:
    """Write tables into a page; the exit status."""
    if not page.exists():
        console.print(f"There is no {page} here; the tables are in no file.")
        return DONE
    try:
        new = report.rewrite(page.read_text(encoding="utf-8"), tables)
    except ValueError as error:
        raise CannotRun(f"{page}: {error}") from error
    page.write_text(new, encoding="utf-8")
    console.print(f"{page} has the tables of {of}.")
    return DONE


def adopt(folder: Path) -> int:
    """Make the tables of crossovers and shapes from the results of a device run; the exit status."""
    import sincere_spec
    from sincere_spec import backends

    said = device.adopt(
        folder,
        Path(sincere_spec.__file__).parent / "call" / "crossovers.json",
        Path(backends.__file__).parent / "torch" / "shapes.json",
    )
    sys.stdout.write("".join(f"{line}\n" for line in said) or "Nothing was complete; the tables are as they were.\n")
    return DONE


def crossover(chosen: Settings, *, quick: bool) -> int:
    """Measure the crossovers and print their table, as the plan reads it; the exit status."""
    from rich.console import Console

    console = Console(stderr=True)
    table: dict[str, Any] = {}
    status = DONE
    with _progress(console, crossovers.count(chosen, quick)) as tell:
        for framework in chosen.frameworks:
            try:
                found = crossovers.crossover(framework, chosen, quick, tell)
            except (Died, Stopped) as reason:
                found = str(reason)
            if isinstance(found, str):
                console.print(f"{framework}: no crossover: {found}", markup=False)
                status = FAILED
                continue
            each = ", ".join(f"{loss} {pairs or 'none'}" for loss, pairs in found.by_loss.items())
            console.print(f"{framework}: best tile {found.tile}; tiles are faster from so many pairs on: {each}")
            table[found.backend] = {chosen.device: {"pairs": found.pairs, "tile": found.tile}}
    rows = ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in table.items())
    sys.stdout.write(f"{{\n{rows}\n}}\n" if rows else "{}\n")
    return status


def _figures(found: Sequence[results.Result], output: Path, console: Console) -> None:
    if not found:
        return
    if find_spec("matplotlib") is None:
        console.print("No figures: they need matplotlib (pip install 'sincere-spec[bench]').")
        return
    from sincere_spec.bench import plots

    for result in found:
        plots.write(result, output)


@contextmanager
def _progress(console: Console, total: int) -> Iterator[measure.Tell]:
    """A bar on a terminal, a line for each job anywhere else."""
    if not console.is_terminal:
        done = 0

        def say(text: str) -> None:
            nonlocal done
            done += 1
            console.print(f"{done}/{total} {text}", markup=False, highlight=False)

        yield say
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("starting", total=total)

        def show(text: str) -> None:
            bar.update(task, advance=1, description=text)

        yield show
