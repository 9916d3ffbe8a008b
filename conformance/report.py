"""The report: every verdict with what it was reached on. JSON is the truth; Markdown, JUnit and HTML are views of it."""

from __future__ import annotations

import json
import os
import platform
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

import sincere_spec
from sincere_spec.conformance.failures import cause, harm, kind
from sincere_spec.conformance.judge import Result, Status
from sincere_spec.conformance.questions import DIGITS, LEVELS
from sincere_spec.conformance.text import in_code, in_markdown, printable, shortened
from sincere_spec.conformance.tolerance import K
from sincere_spec.conformance.transforms import TRANSFORMS
from sincere_spec.conformance.transforms.verdicts import verdicts
from sincere_spec.errors import OptionError

__all__ = [
    "Cell",
    "Column",
    "Failure",
    "Report",
    "at_level",
    "badge",
    "earlier",
    "facts",
    "junit",
    "markdown",
    "moved",
    "report",
    "to_json",
]

Place = tuple[str, ...]
"""Which verdict: the case, the column, the route and the quantity."""

SHORT = {"float16": "f16", "bfloat16": "bf16", "float32": "f32", "float64": "f64"}


@dataclass(frozen=True)
class Column:
    """A column of the matrix."""

    framework: str
    dtype: str
    engine: str

    @property
    def title(self) -> str:
        """The dtype in short, and the engine unless it is the dense one."""
        return SHORT[self.dtype] if self.engine == "dense" else f"{SHORT[self.dtype]} {self.engine}"


@dataclass(frozen=True)
class Cell:
    """The worst of many verdicts. `status` is None where nothing has been asked."""

    status: Status | None
    ratio: float | None = None

    @property
    def text(self) -> str:
        """The worst ratio, or a word for why there is none."""
        if self.status is None:
            return ""
        if self.status in ("error", "unsupported", "skipped"):
            return {"error": "error", "unsupported": "none", "skipped": "skip"}[self.status]
        if self.ratio is None:
            return self.status
        return in_short(self.ratio)


def in_short(ratio: float) -> str:
    """A ratio in few characters."""
    return f"{ratio:.2f}" if ratio < 100 else f"{ratio:.0e}".replace("e+0", "e").replace("e+", "e")


@dataclass(frozen=True)
class Failure:
    """All that went wrong with one case: the most harmful of it, and where else."""

    case: str
    row: str
    says: str
    worst: Result
    results: tuple[Result, ...]

    @property
    def kind(self) -> str:
        """What is wrong, with its usual cause where there is one."""
        usual = cause(self.worst)
        return f"{kind(self.worst)}; the usual cause: {usual}" if usual else kind(self.worst)


@dataclass(frozen=True)
class Report:
    """What was judged, on what, with which verdicts. `frameworks` has versions, device, status, reason and seconds of each."""

    implementation: str
    suite: str
    package: str
    machine: Mapping[str, str]
    rows: tuple[str, ...]
    columns: tuple[Column, ...]
    frameworks: Mapping[str, Mapping[str, Any]]
    says: Mapping[str, str]
    results: tuple[Result, ...]
    seconds: float

    @cached_property
    def counts(self) -> Counter[str]:
        """How many verdicts there are of each status."""
        return Counter(result.status for result in self.results)

    @property
    def exit_status(self) -> int:
        """0 if all that was asked passed, 1 if something did not, 2 if something could not be judged at all."""
        if self.counts["fail"] or self.counts["error"]:
            return 1
        judged = {
            Column(result.framework, result.dtype, result.engine) for result in self.results if result.status == "pass"
        }
        return 0 if judged and judged >= set(self.columns) else 2

    @property
    def verdict(self) -> str:
        """The word for the exit status."""
        return {0: "pass", 1: "fail", 2: "not judged"}[self.exit_status]

    @property
    def sentence(self) -> str:
        """The verdict in one line."""
        here = [name for name, facts in self.frameworks.items() if facts.get("status") != "skipped"]
        whose = (
            ""
            if self.implementation == "sincere_spec"
            else f"{self.implementation} as {', '.join(self.rows[:3])}{' ...' * (len(self.rows) > 3)}, "
        )
        where = f"{whose}{len(here)} framework{'s' if len(here) != 1 else ''} ({', '.join(here)}), suite {self.suite}"
        if self.exit_status == 2:
            reasons = sorted({result.reason for result in self.results if result.reason})
            return f"NOT JUDGED: {'; '.join(reasons) or 'nothing was asked'} ({where})"
        if self.exit_status == 1:
            wrong = self.counts["fail"] + self.counts["error"]
            return (
                f"FAIL: {wrong} of {wrong + self.counts['pass']} verdicts, in {len(self.failures)} cases; {where}, "
                f"{self.seconds:.0f} s{self._conforms}"
            )
        worst = max(
            (result for result in self.results if result.ratio is not None), key=lambda result: result.ratio or 0.0
        )
        at = f"{worst.case} {worst.quantity}, {worst.framework} {worst.dtype}"
        return (
            f"PASS: {self.counts['pass']} verdicts in {where}; the worst error is {worst.ratio:.2f} of the {K:g} allowed "
            f"({at}), {self.seconds:.0f} s{self._conforms}"
        )

    @property
    def _conforms(self) -> str:
        whole = any(passed == asked for passed, asked in self.levels.values())
        return (
            f"; conforms: {self.conforms}" if whole else f"; conforms to no level: {self.conforms}" * bool(self.levels)
        )

    @cached_property
    def failures(self) -> tuple[Failure, ...]:
        """What failed, by case, the most harmful first."""
        by_case: dict[str, list[Result]] = defaultdict(list)
        for result in self.results:
            if result.status in ("fail", "error"):
                by_case[result.case].append(result)
        found = [
            Failure(case, wrong[0].row, self.says.get(case, ""), min(wrong, key=harm), tuple(wrong))
            for case, wrong in by_case.items()
        ]
        return tuple(sorted(found, key=lambda failure: harm(failure.worst)))

    @cached_property
    def levels(self) -> dict[str, tuple[int, int]]:
        """Of each level of which anything was asked: how many of its cases pass, and how many could be asked."""
        verdicts: dict[str, dict[str, bool]] = {level: {} for level in LEVELS}
        for level, profiles in LEVELS.items():
            for result in map(at_level, self.results):
                if result.profile in profiles and result.status in ("pass", "fail", "error"):
                    cases = verdicts[level]
                    cases[result.case] = cases.get(result.case, True) and result.status == "pass"
        return {level: (sum(cases.values()), len(cases)) for level, cases in verdicts.items() if cases}

    @property
    def conforms(self) -> str:
        """The levels in words, such as "core, robust 6 of 8"."""
        return ", ".join(
            level if passed == asked else f"{level} {passed} of {asked}"
            for level, (passed, asked) in self.levels.items()
        )

    @cached_property
    def culprits(self) -> tuple[str, ...]:
        """One sentence for each row that has failures: where they are, and so where to look."""
        asked, wrong = defaultdict(set), defaultdict(list)
        for result in self.results:
            if result.status != "unsupported":
                asked[result.row].add(result)
            if result.status in ("fail", "error"):
                wrong[result.row].append(result)
        return tuple(_culprit(row, asked[row], wrong[row]) for row in self.rows if row in wrong)

    def cells(self, digits: bool) -> dict[tuple[str, Column], Cell]:
        """The matrix, of the suite or of the digits."""
        asked = (result for result in self.results if result.profile != TRANSFORMS)
        return cells(result for result in asked if (result.profile == DIGITS) is digits)

    @property
    def reasons(self) -> list[str]:
        """Why something was not asked: frameworks that are not there, and what implementations declare."""
        skipped = [f"{name}: {facts['reason']}" for name, facts in self.frameworks.items() if facts.get("reason")]
        declared = Counter(
            (result.framework, result.reason) for result in self.results if result.status == "unsupported"
        )
        noted = [f"{name}: {facts['note']}" for name, facts in self.frameworks.items() if facts.get("note")]
        return skipped + noted + [f"{name}, {number} times: {reason}" for (name, reason), number in declared.items()]


def at_level(result: Result) -> Result:
    """A verdict as the levels have it: of level core one that passes by norm, too."""
    if result.status == "fail" and result.by_norm is not None and result.by_norm <= K:
        return replace(
            result, status="pass", ratio=result.by_norm, by_norm=None, reason="", at=(), expected=None, got=None
        )
    return result


def cells(results: Iterable[Result]) -> dict[tuple[str, Column], Cell]:
    """The worst verdict of every row and column."""
    worst: dict[tuple[str, Column], Cell] = {}
    for result in results:
        worsen(worst, result)
    return worst


_RANK = ("skipped", "unsupported", "pass", "error", "fail")


def worsen(cells: dict[tuple[str, Column], Cell], result: Result) -> None:
    """Take one more verdict into the matrix."""
    place = result.row, Column(result.framework, result.dtype, result.engine)
    old = cells.get(place, Cell("skipped"))
    status = max(old.status or "skipped", result.status, key=_RANK.index)
    ratios = [ratio for ratio in (old.ratio, result.ratio) if ratio is not None]
    cells[place] = Cell(status, max(ratios, default=None))


def _culprit(row: str, asked: Iterable[Result], wrong: Sequence[Result]) -> str:
    asked = list(asked)

    def limited(which: str) -> str:
        here = list(dict.fromkeys(getattr(result, which) for result in wrong))
        every = {getattr(result, which) for result in asked}
        told = len(here) < len(every) and len(here) <= 3 and all(here)
        return f", only {which} {', '.join(here)}" if told else ""

    cases, of = len({result.case for result in wrong}), len({result.case for result in asked})
    limits = "".join(limited(which) for which in ("framework", "dtype", "engine", "route", "profile"))
    quantities = list(dict.fromkeys(result.quantity.partition(".")[0] for result in wrong))
    what = " and ".join("no answer" if quantity == "all" else f"wrong {quantity}" for quantity in quantities)
    return f"{row}: {what} in {cases} of {of} cases{limits or ', in everything that was asked'}"


def machine() -> dict[str, str]:
    """What runs here."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "processors": str(os.cpu_count()),
        "python": platform.python_version(),
    }


def report(**fields: Any) -> Report:
    """A report of this package on this machine, in which every text of others is printable."""
    made = Report(package=sincere_spec.__version__, machine=machine(), **fields)
    return replace(
        made,
        implementation=printable(made.implementation),
        suite=printable(made.suite),
        rows=tuple(map(printable, made.rows)),
        frameworks=_printable(made.frameworks),
        says=_printable(made.says),
        results=tuple(
            replace(
                result,
                case=printable(result.case),
                row=printable(result.row),
                profile=printable(result.profile),
                quantity=printable(result.quantity),
                reason=shortened(result.reason),
            )
            for result in made.results
        ),
    )


def _printable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {printable(name): _printable(x) for name, x in value.items()}
    return printable(value) if isinstance(value, str) else value


def to_json(made: Report) -> str:
    """The report as JSON, a line for each verdict, so that two reports can be compared line by line."""
    head = {
        "format": 1,
        "verdict": made.verdict,
        "sentence": made.sentence,
        "implementation": made.implementation,
        "suite": made.suite,
        "package": made.package,
        "seconds": made.seconds,
        "machine": dict(made.machine),
        "frameworks": {name: dict(facts) for name, facts in made.frameworks.items()},
        "tolerance": K,
        "conforms": made.conforms,
        "levels": {level: {"passed": passed, "asked": asked} for level, (passed, asked) in made.levels.items()},
        "rows": list(made.rows),
        "columns": [asdict(column) for column in made.columns],
        "counts": dict(made.counts),
        "culprits": list(made.culprits),
        "says": dict(made.says),
    }
    results = ",\n".join("  " + json.dumps(result.to_dict(), ensure_ascii=False) for result in made.results)
    top = json.dumps(head, indent=1, ensure_ascii=False).removesuffix("\n}")
    return f'{top},\n "results": [\n{results}\n ]\n}}\n'


def badge(made: Report) -> str:
    """The levels as JSON for a badge, as shields.io reads it from an endpoint."""
    message = made.conforms or made.verdict
    passed = [cases == asked for cases, asked in made.levels.values()]
    colour = "brightgreen" if passed and all(passed) else "green" if passed and passed[0] else "red"
    if made.exit_status == 2:
        message, colour = "not judged", "lightgrey"
    elif not passed:
        colour = "brightgreen" if made.exit_status == 0 else "red"
    whose = made.rows[0] if len(made.rows) == 1 else "losses"
    fields = {"schemaVersion": 1, "label": f"{whose} conformance", "message": message, "color": colour}
    return json.dumps(fields, indent=1, ensure_ascii=False) + "\n"


def facts(made: Report) -> list[str]:
    """On what a report was made, in lines: suite, machine, and of each framework its versions and device."""
    lines = [
        f"sincere-spec {made.package}, suite {made.suite}",
        f"Python {made.machine['python']}, {made.machine['system']}, {made.machine['machine']}",
    ]
    for name, known in made.frameworks.items():
        versions = ", ".join(f"{what} {version}" for what, version in known.get("versions", {}).items())
        told = [known.get("reason", ""), versions, f"on {known['device']}" if "device" in known else ""]
        took = [f"{known['seconds']:.0f} s"] if "seconds" in known else []
        lines.append(f"{name}: {'; '.join(filter(None, [*told, *took]))}")
    return lines


def markdown(made: Report) -> str:
    """The report for reading."""
    parts = [
        "# Conformance report",
        f"**{in_markdown(made.sentence)}**",
        "\n".join(f"- {in_markdown(fact)}" for fact in facts(made)),
        f"Each cell is the worst error in units of u times the case's scale; at most {K:g} is right.",
    ]
    if made.columns:
        parts += ["## The suite", _table(made, digits=False)]
    if any(result.profile == DIGITS for result in made.results):
        parts += ["## Real data: handwritten digits", _table(made, digits=True)]
    if any(result.profile == TRANSFORMS for result in made.results):
        parts += ["## Transforms", _transforms(made)]
    if made.reasons:
        parts += ["## Not asked", "\n".join(f"- {in_markdown(reason)}" for reason in made.reasons)]
    if made.failures:
        parts += ["## Failures", "\n".join(f"- {in_markdown(culprit)}" for culprit in made.culprits)]
        parts += [_paragraph(failure) for failure in made.failures]
    return "\n\n".join(parts) + "\n"


def _table(made: Report, digits: bool) -> str:
    found = made.cells(digits)
    columns = [column for column in made.columns if any(place[1] == column for place in found)]
    head = ["", *(f"{column.framework} {column.title}" for column in columns)]
    lines = [head, ["---"] + ["--:"] * len(columns)]
    for row in made.rows:
        cells = [found.get((row, column), Cell(None)) for column in columns]
        lines.append(
            [
                in_markdown(row),
                *(f"**{cell.text}**" if cell.status in ("fail", "error") else cell.text for cell in cells),
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _transforms(made: Report) -> str:
    tables = []
    for found in verdicts(made.results):
        lines = [[found.framework, *found.heads], ["---"] + ["--:"] * len(found.columns)]
        for title, cells in found.lines.items():
            words = [cells.get(column) for column in found.columns]
            lines.append(
                [title, *("" if x is None else x.text if x.status == "pass" else f"**{x.text}**" for x in words)]
            )
        tables.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join(tables)


def _paragraph(failure: Failure) -> str:
    lines = [f"### {in_markdown(failure.case)}", in_markdown(failure.says), in_markdown(failure.kind)]
    lines += ["\n".join(f"- {in_code(described(result))}" for result in failure.results)]
    return "\n\n".join(lines)


def described(result: Result) -> str:
    """A failure in one line: where, what was expected, what came."""
    where = f"{result.framework} {result.dtype} {result.engine}"
    if result.route:
        where += f" {result.route}"
    if result.expected is None or result.got is None:
        what = "" if result.quantity == "all" else f"{result.quantity}: "
        return f"{where}: {what}{result.reason}"
    at = str(list(result.at)) if result.at else ""
    ratio = f"ratio {in_short(result.ratio)}" if result.ratio is not None else ""
    return (
        f"{where}: {result.quantity}{at} expected {result.expected!r}, got {result.got!r}, {ratio} of {K:g} allowed; "
        f"{result.reason}"
    )


def junit(made: Report) -> str:
    """The report as CI systems read it: a suite for each column of the matrix, a test for each verdict."""
    root = Element("testsuites", name=f"{made.implementation}, suite {made.suite}", time=str(made.seconds))
    by_column: dict[Column, list[Result]] = defaultdict(list)
    for result in made.results:
        by_column[Column(result.framework, result.dtype, result.engine)].append(result)
    for column, results in by_column.items():
        counts = Counter(result.status for result in results)
        numbers = {"tests": len(results), "failures": counts["fail"], "errors": counts["error"]}
        numbers["skipped"] = counts["unsupported"] + counts["skipped"]
        attributes = {name: str(number) for name, number in numbers.items()}
        suite = SubElement(root, "testsuite", attributes, name=f"{column.framework} {column.title}")
        properties = SubElement(suite, "properties")
        for name, value in _properties(made, column.framework).items():
            SubElement(properties, "property", name=name, value=value)
        for result in results:
            name = " ".join(filter(None, (result.case, result.route, result.quantity)))
            case = SubElement(suite, "testcase", classname=result.row, name=name, time=str(result.seconds))
            if result.status != "pass":
                kind = {"fail": "failure", "error": "error"}.get(result.status, "skipped")
                says = made.says.get(result.case, "")
                SubElement(case, kind, message=described(result)).text = says
    return tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _properties(made: Report, framework: str) -> dict[str, str]:
    known = made.frameworks.get(framework, {})
    device = {"device": str(known["device"])} if "device" in known else {}
    head = {"suite": made.suite, "sincere-spec": made.package}
    return {**head, **made.machine, **known.get("versions", {}), **device}


def earlier(fields: Mapping[str, Any]) -> dict[Place, str]:
    """The status of every verdict of an earlier report.json; raises OptionError for anything else."""
    try:
        if fields["format"] != 1:
            raise OptionError(f"expected a report of format 1; got {fields['format']!r}.")
        return {_place(Result.from_dict(each)): str(each["status"]) for each in fields["results"]}
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, OptionError):
            raise
        raise OptionError(f"expected a report.json of sincere-spec verify; this one has {error}.") from error


def moved(old: Mapping[Place, str], made: Report) -> list[str]:
    """What is otherwise than in an earlier report, a line for each verdict that changed."""
    new = {_place(result): str(result.status) for result in made.results}
    lines = [
        f"{' '.join(filter(None, place))}: {old.get(place, 'not asked')}, now {new.get(place, 'not asked')}"
        for place in dict.fromkeys((*old, *new))
        if old.get(place) != new.get(place)
    ]
    return sorted(lines, key=lambda line: not line.endswith(("now fail", "now error")))


def _place(result: Result) -> Place:
    return result.case, result.framework, result.dtype, result.engine, result.route, result.quantity
