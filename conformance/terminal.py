"""The report on a terminal: a matrix that fills while it runs, the verdict, and what failed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from sincere_spec.conformance import runner
from sincere_spec.conformance.judge import Result
from sincere_spec.conformance.questions import DIGITS
from sincere_spec.conformance.report import Cell, Column, Report, described, worsen
from sincere_spec.conformance.runner import Event, Plan, asked
from sincere_spec.conformance.text import printable
from sincere_spec.conformance.tolerance import K
from sincere_spec.conformance.transforms import TRANSFORMS
from sincere_spec.conformance.transforms.verdicts import Verdicts, verdicts
from sincere_spec.conformance.verdicts import Field, Verdict

__all__ = ["Board", "show", "show_field", "show_verdict", "tally", "written"]

STYLE = {
    None: "dim",
    "pass": "green",
    "fail": "bold red",
    "error": "bold red",
    "unsupported": "yellow",
    "skipped": "dim",
}
SHOWN, WIDEST = 8, 160  # failures shown in full, and the width where there is no terminal


class Matrix:
    """Losses by framework and dtype, in as many bands as the width asks for."""

    def __init__(
        self, title: str, rows: Sequence[str], columns: Sequence[Column], found: Mapping[tuple[str, Column], Cell]
    ) -> None:
        self._title, self._rows, self._columns, self._found = title, rows, columns, found

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        names = Table(box=None, padding=(0, 1, 0, 0), title=" ", show_edge=False)
        tall = any(column.engine != "dense" for column in self._columns)
        names.add_column(" \n " if tall else " ")
        for row in self._rows:
            names.add_row(row)
        room = first = options.max_width - console.measure(names).maximum
        bands: list[list[Table]] = [[]]
        for table in self._tables(console, first):
            width = console.measure(table).maximum + 2
            if width > room and bands[-1]:
                bands.append([])
                room = first
            bands[-1].append(table)
            room -= width
        yield Text(self._title, style="bold")
        for band in bands:
            grid = Table.grid(padding=(0, 2, 0, 0))
            grid.add_row(names, *band)
            yield grid

    def _tables(self, console: Console, room: int) -> Iterator[Table]:
        """A table for each framework, or several where it is wider than there is room for."""
        for framework in dict.fromkeys(column.framework for column in self._columns):
            fitting: list[Column] = []
            for column in (column for column in self._columns if column.framework == framework):
                if fitting and console.measure(self._table(framework, [*fitting, column])).maximum + 2 > room:
                    yield self._table(framework, fitting)
                    fitting = []
                fitting.append(column)
            yield self._table(framework, fitting)

    def _table(self, framework: str, columns: Sequence[Column]) -> Table:
        table = Table(
            box=None,
            padding=(0, 1, 0, 0),
            title=framework,
            title_style="bold",
            show_edge=False,
            min_width=len(framework) + 1,
        )
        for column in columns:
            title = column.title.replace(" ", "\n")
            table.add_column(title, justify="right", min_width=4, header_style="dim", vertical="bottom", no_wrap=True)
        for row in self._rows:
            found = [self._found.get((row, column), Cell(None)) for column in columns]
            table.add_row(*(Text(cell.text or "·", style=STYLE[cell.status]) for cell in found))
        return table


class Board:
    """What is seen while it runs: one bar for the whole; where there is no terminal, a line for each framework at its end."""

    def __init__(self, console: Console, todo: Plan, jobs: int) -> None:
        self._console, self._todo = console, todo
        self._results: dict[str, list[Result]] = defaultdict(list)
        self._suite: dict[tuple[str, Column], Cell] = {}
        self._digits: dict[tuple[str, Column], Cell] = {}
        self._running: dict[str, None] = {}
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(compact=True),
            console=console,
        )
        self._task = self._progress.add_task("starting", total=asked(todo))
        self._before = expected(todo, jobs)
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=2, transient=True)

    @contextmanager
    def live(self) -> Iterator[Board]:
        """While it is seen."""
        self._console.print(Text(self._before, style="dim"))
        if not self._console.is_terminal:
            yield self
            return
        with self._live:
            yield self

    def __call__(self, event: Event) -> None:
        """Take notice of an event."""
        self._results[event.framework] += event.results
        if not self._console.is_terminal:
            if event.kind == "end":
                self._console.print(_line(event, self._results[event.framework]))
            return
        for result in event.results:
            if result.profile != TRANSFORMS:
                worsen(self._digits if result.profile == DIGITS else self._suite, result)
        if event.kind == "start":
            self._running[event.framework] = None
        elif event.kind == "more":
            self._progress.update(self._task, total=(self._progress.tasks[0].total or 0) + event.units)
        elif event.kind == "results":
            self._progress.advance(self._task, len({(x.case, x.dtype, x.engine) for x in event.results}))
        elif event.kind == "end":
            self._running.pop(event.framework, None)
        self._progress.update(self._task, description=", ".join(self._running))

    def _render(self) -> RenderableType:
        rows, columns = self._todo.rows, self._todo.columns
        parts: list[RenderableType] = [self._progress, Matrix("The suite", rows, columns, dict(self._suite))]
        if self._digits:
            parts.append(Matrix("Handwritten digits", rows, _full(columns), dict(self._digits)))
        return Group(*parts)


def expected(todo: Plan, jobs: int) -> str:
    """What is about to run, and about how long it takes."""
    seconds = runner.estimate(todo, jobs)
    long = f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{max(5, round(seconds / 5) * 5)} seconds"
    number = len(todo.units)
    return f"{asked(todo)} questions to {number} framework{'s' * (number != 1)}: about {long}, with a core for each."


def _line(event: Event, results: Sequence[Result]) -> str:
    judged = sum(result.status in ("pass", "fail", "error") for result in results)
    wrong = sum(result.status in ("fail", "error") for result in results)
    worst = max((result.ratio for result in results if result.ratio is not None), default=0.0)
    verdict = f"{wrong} wrong" if wrong else f"worst ratio {worst:.2f}"
    return f"{event.framework}: {judged} verdicts, {verdict}, {event.facts.get('seconds', 0):.0f} s"


def _full(columns: Iterable[Column]) -> list[Column]:
    return [column for column in columns if column.dtype in ("float32", "float64")]


def console(errors: bool = False) -> Console:
    """Standard output, or standard error; wide where it is no terminal."""
    made = Console(stderr=errors, highlight=False, emoji=False)
    return made if made.is_terminal else Console(stderr=errors, highlight=False, emoji=False, width=WIDEST)


def written(files: Iterable[Path], console: Console) -> None:
    """Say where the files of a report are."""
    console.print(Text(", ".join(printable(path) for path in files), style="dim"), soft_wrap=True)


def show(made: Report, console: Console) -> None:
    """The matrices, what was not asked and why, and what failed."""
    if made.columns:
        console.print(Matrix("The suite", made.rows, made.columns, made.cells(digits=False)))
    if any(result.profile == DIGITS for result in made.results):
        console.print(Matrix("Handwritten digits", made.rows, _full(made.columns), made.cells(digits=True)))
    for found in verdicts(made.results):
        console.print(_transforms(found))
    console.print(
        f"[dim]Each cell: the worst error in units of u times the case's scale; at most {K:g} is right.[/dim]"
    )
    if made.reasons:
        console.print("[bold]Not asked[/bold]")
    for reason in made.reasons:
        console.print(f"[dim]  {escape(reason)}[/dim]", soft_wrap=True)
    if made.failures:
        _explain(made, console)


def show_verdict(made: Report, console: Console) -> None:
    """The verdict in one line."""
    style = {0: "bold green", 1: "bold red", 2: "bold yellow"}[made.exit_status]
    console.print(Text(made.sentence, style=style), soft_wrap=True)


def _transforms(found: Verdicts) -> Table:
    table = Table(
        box=None,
        padding=(0, 1, 0, 0),
        title=f"Transforms, {found.framework}",
        title_style="bold",
        title_justify="left",
        show_edge=False,
    )
    table.add_column()
    for head in found.heads:
        table.add_column(head.replace(", ", "\n"), justify="right", header_style="dim", vertical="bottom")
    for title, cells in found.lines.items():
        words = [cells.get(column) for column in found.columns]
        table.add_row(
            title.replace("`", ""), *(Text(x.text, style=STYLE[x.status]) if x else Text("·", "dim") for x in words)
        )
    return table


def _explain(made: Report, console: Console) -> None:
    for failure in made.failures[:SHOWN]:
        console.print(f"[bold red]{escape(failure.case)}[/bold red]  {escape(failure.says)}", soft_wrap=True)
        more = f" [dim](and {len(failure.results) - 1} more)[/dim]" if len(failure.results) > 1 else ""
        console.print(f"  {escape(failure.kind)}", soft_wrap=True)
        console.print(f"  {escape(described(failure.worst))}{more}", soft_wrap=True)
    if len(made.failures) > SHOWN:
        console.print(f"[dim]... and {len(made.failures) - SHOWN} more cases, in the report[/dim]")
    console.print("[bold]The culprits[/bold]")
    for culprit in made.culprits:
        console.print(f"  {escape(culprit)}", style="red", soft_wrap=True)


@contextmanager
def tally(console: Console, number: int) -> Iterator[Callable[[Verdict], None]]:
    """What is told of so many peers while they are judged: a line for each, and on a terminal a bar below."""
    bar = Progress(console=console, transient=True, disable=not console.is_terminal)
    task = bar.add_task("other packages", total=number)

    def tell(verdict: Verdict) -> None:
        console.print(told(verdict), markup=False, soft_wrap=True)
        bar.advance(task)

    with bar:
        yield tell


def told(verdict: Verdict) -> str:
    """A peer in one line, as it is said when it has been judged."""
    if verdict.absent:
        return f"{verdict.title}: not judged: {verdict.absent}"
    few = f" ({verdict.few} only in their last digits)" if verdict.few else ""
    return f"{verdict.title} {verdict.version}: {verdict.passed} passed, {len(verdict.failed)} failed{few}"


def show_field(field: Field, console: Console) -> None:
    """The verdicts on other packages: a table, and of each the smallest input that it fails."""
    table = Table(box=None, padding=(0, 2, 0, 0), title_justify="left")
    for name in ("package", "its loss", "here"):
        table.add_column(name, overflow="fold")
    for name in ("passed", "failed", "digits", "ordinary", "not asked"):
        table.add_column(name, justify="right")
    for verdict in field.verdicts:
        peer, unsupported = verdict.peer, sum(verdict.unsupported.values())
        ordinary = "{} of {}".format(*verdict.ordinary)
        counts = [str(verdict.passed), str(len(verdict.failed)), str(verdict.few), ordinary, str(unsupported)]
        cells = [f"{peer.distribution} {verdict.version}", peer.name, peer.same_as]
        style = "dim" if verdict.absent else "red" if verdict.failed else "green"
        table.add_row(*map(escape, cells), *([] if verdict.absent else counts), style=style)
    console.print(table)
    for verdict in field.verdicts:
        if verdict.absent:
            console.print(f"[dim]{escape(verdict.title)}: not judged: {escape(verdict.absent)}[/dim]", soft_wrap=True)
        elif failed := verdict.smallest:
            console.print(
                f"[bold]{escape(verdict.title)}[/bold]: {failed.kind} at {escape(failed.shapes)}, "
                f"{escape(failed.question.id)}: {escape(failed.question.says)}",
                soft_wrap=True,
            )
            console.print(f"  {escape(described(failed.worst))}", soft_wrap=True)
    here = [verdict for verdict in field.verdicts if not verdict.absent]
    wrong = sum(bool(verdict.failed) for verdict in here)
    words = {0: "PASS: all of", 1: f"FAIL: {wrong} of", 2: "NOT JUDGED: none of"}
    rest = (
        f"{len(here) if field.exit_status < 2 else len(field.verdicts)} losses of other packages, suite {field.suite}"
    )
    style = {0: "bold green", 1: "bold red", 2: "bold yellow"}[field.exit_status]
    console.print(Text(f"{words[field.exit_status]} {rest}", style=style), soft_wrap=True)
