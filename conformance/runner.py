"""Running: a process for each framework, some at a time, and what they say gathered into one report."""

from __future__ import annotations

import os
import queue
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sincere_spec.conformance import cases, large, questions
from sincere_spec.conformance.candidates import Candidate
from sincere_spec.conformance.frameworks import FRAMEWORKS, environment
from sincere_spec.conformance.judge import Result, Status
from sincere_spec.conformance.processes import Conversation, Processes
from sincere_spec.conformance.programs import Executable
from sincere_spec.conformance.questions import DIGITS, LARGE, LEVELS, Question
from sincere_spec.conformance.report import Column, Report, at_level, report
from sincere_spec.conformance.text import of_error
from sincere_spec.conformance.transforms import TRANSFORMS, checks, transforms_of
from sincere_spec.errors import OptionError, unknown_choice

__all__ = ["CannotJudge", "Event", "Plan", "Request", "Unit", "asked", "batches", "estimate", "plan", "run"]

Unit = tuple[str, str, str]
"""The id of a question, a dtype and an engine: what one line of a worker answers."""

WORKER = (sys.executable, "-m", "sincere_spec.conformance.worker")
ANSWERS = (sys.executable, "-m", "sincere_spec.conformance.digits")
PROGRAMS = 60
"""How many questions a process answers with an engine that its framework compiles: what was compiled is never given back."""
SAMPLED = (
    "an ordinary case of each loss for tiles that are compiled for every shape and for kernels, which an interpreter "
    "runs; --engine tiled or kernel asks all"
)
LEFT_OUT = "large batches, which are compiled too, are left out; --profile large asks them"
PACE = {
    "numpy": (0.01, 0.01),
    "array_api_strict": (0.02, 0.02),
    "torch": (0.03, 0.6),
    "jax": (0.06, 2.0),
    "tensorflow": (0.06, 1.5),
}
"""Seconds of a question, and of one that is compiled or interpreted, on one core; only an estimate is made of them."""
BEGIN, TRANSFORM, REAL = 5.0, 0.7, 40.0
"""Seconds of a framework's start, of one transform, and of the real data."""
SLOWEST_FIRST = ("jax", "tensorflow", "torch", "array_api_strict", "numpy")


class CannotJudge(Exception):
    """What was asked for cannot be judged here; the message says why."""


@dataclass(frozen=True)
class Request:
    """What is to be judged; empty means all there is, but of engines that are compiled or interpreted a sample.

    `levels` stand for profiles, and have the cases of level core judged by norm. A `candidate` is judged instead of this
    package: a callable as one row in one framework, a program as all that it can.
    """

    frameworks: tuple[str, ...] = ()
    losses: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()
    levels: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ()
    engines: tuple[str, ...] = ()
    digits: bool = True
    transforms: bool = True
    jobs: int = 2
    timeout: float = 180.0
    suite: Path = cases.SUITE
    candidate: Candidate | Executable | None = None


@dataclass(frozen=True)
class Event:
    """Something that happened to a framework's process.

    Its kind is "start" or "more", with a number of units to come, "results", or "end", with what is known of the framework.
    """

    kind: str
    framework: str
    results: tuple[Result, ...] = ()
    units: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """A request, checked: who is asked what.

    `absent` has the frameworks that are not installed, `sampled` the columns that are asked an ordinary case of each loss,
    and `transforms` what is asked of each framework's transforms.
    """

    questions: Mapping[str, Question]
    rows: tuple[str, ...]
    columns: tuple[Column, ...]
    units: Mapping[str, tuple[Unit, ...]]
    absent: tuple[str, ...]
    sampled: tuple[Column, ...]
    digits: bool
    transforms: Mapping[str, tuple[checks.Unit, ...]]


def plan(request: Request) -> Plan:
    """Who is asked what; raises OptionError for a word that is unknown, CannotJudge for a framework that is not there."""
    for name in request.frameworks:
        if name not in FRAMEWORKS:
            raise unknown_choice("framework", name, FRAMEWORKS)
    for dtype in request.dtypes:
        if dtype not in cases.DTYPES:
            raise unknown_choice("dtype", dtype, cases.DTYPES)
    for engine in request.engines:
        if engine not in ("dense", "tiled", "kernel"):
            raise unknown_choice("engine", engine, ("dense", "tiled", "kernel"))
    if request.jobs < 1:
        raise OptionError(f"jobs must be 1 or more; got {request.jobs}.")
    for level in request.levels:
        if level not in LEVELS:
            raise unknown_choice("level", level, LEVELS)
    if request.levels and request.profiles:
        raise OptionError("a level is so many profiles; give levels or profiles.")
    if not request.timeout > 0.0:
        raise OptionError(f"timeout must be a positive number of seconds; got {request.timeout}.")
    if request.levels:
        profiles = tuple(profile for level in request.levels for profile in LEVELS[level])
        request = replace(request, profiles=profiles, digits=False, transforms=False)
    request = _for_candidate(request) if request.candidate else request
    suite = questions.of_suite(request.suite)
    integrity = questions.integrity(suite, compilers=not request.candidate)
    asked = (*suite, *integrity, *large.questions(request.suite))
    profiles = tuple(dict.fromkeys(question.profile for question in asked))
    for profile in request.profiles:
        if profile not in (*profiles, DIGITS, TRANSFORMS):
            raise unknown_choice("profile", profile, (*profiles, DIGITS, TRANSFORMS))
    rows = _rows(asked, request.losses)
    if isinstance(request.candidate, Candidate):
        rows = (one_row(asked, request.losses),)
    digits = request.digits and (not request.profiles or DIGITS in request.profiles)

    names = request.frameworks or tuple(FRAMEWORKS)
    absent = tuple(name for name in names if not FRAMEWORKS[name].installed)
    if absent and request.frameworks:
        extra = FRAMEWORKS[absent[0]].extra
        raise CannotJudge(f"{absent[0]} is not installed; try: pip install 'sincere-spec[{extra}]'")
    columns = tuple(
        Column(name, dtype, engine)
        for name in names
        if name not in absent
        for engine in request.engines or FRAMEWORKS[name].engines
        for dtype in cases.DTYPES
        if dtype in FRAMEWORKS[name].dtypes and (not request.dtypes or dtype in request.dtypes)
    )
    if not request.engines:
        columns = tuple(column for column in columns if column.dtype == "float32" or not _slow(column))
    sampled = () if request.engines else tuple(filter(_slow, columns))
    if not columns:
        raise CannotJudge(f"{', '.join(names)}: none has {' or '.join(request.dtypes)}")
    chosen = {
        question.id: question
        for question in asked
        if question.row in rows and (not request.profiles or question.profile in request.profiles)
    }
    sample = {question.id for question in questions.ordinary(suite).values()}
    sampling = {column.framework for column in sampled} if not request.profiles else set()
    units = {
        name: tuple(
            (question.id, column.dtype, column.engine)
            for column in columns
            if column.framework == name
            for question in chosen.values()
            if column.dtype in question.dtypes
            and (column not in sampled or question.id in sample)
            and (question.profile != LARGE or name not in sampling)
        )
        for name in dict.fromkeys(column.framework for column in columns)
    }
    asked_of = {Column(name, *unit[1:]) for name in units for unit in units[name]}
    answering = {column for column in columns if digits and column.dtype in ("float32", "float64")} - set(sampled)
    columns = tuple(column for column in columns if column in asked_of | answering)
    transforms = {name: _transforms(request, name, rows) for name in units}
    if request.profiles == (TRANSFORMS,):
        columns, rows = (), tuple(row for row in rows if row in {case.row for case in checks.cases().values()})
        units = {name: () for name in units if transforms[name]}
    if not digits and not any((*units.values(), *transforms.values())):
        raise CannotJudge("the suite has no such case: no profile of these has these losses in these dtypes")
    if chosen and not digits:
        rows = tuple(row for row in rows if any(question.row == row for question in chosen.values()))
    return Plan(chosen, rows, columns, units, absent, sampled, digits, transforms)


def _transforms(request: Request, framework: str, rows: Sequence[str]) -> tuple[checks.Unit, ...]:
    if not request.transforms or (request.profiles and TRANSFORMS not in request.profiles):
        return ()
    return tuple(
        unit
        for unit in checks.units(framework, sampled="tiled" not in request.engines)
        for row in (transforms_of(framework)[unit[0]],)
        if (not request.dtypes or row.dtype in request.dtypes)
        and (not request.engines or unit[2] in request.engines)
        and checks.cases()[unit[1]].row in rows
    )


def _for_candidate(request: Request) -> Request:
    if set(request.engines) - {"dense"}:
        raise CannotJudge("only this package has engines; leave out --engine")
    if isinstance(request.candidate, Executable):
        if request.frameworks:
            raise CannotJudge("a program is judged by its numbers, in no framework; leave out --framework")
        request = replace(request, frameworks=("numpy",))  # it holds what comes
    if len(request.frameworks) != 1:
        raise CannotJudge(f"an implementation is judged in one framework; name one of {', '.join(FRAMEWORKS)}")
    dtypes = request.dtypes or ("float32", "float64")
    return replace(request, engines=("dense",), dtypes=dtypes, digits=False, transforms=False)


def _slow(column: Column) -> bool:
    """Whether a question to this column takes so long that a case of each loss has to do, unless all are asked for."""
    return column.engine == "kernel" or _compiled(column)


def _compiled(column: Column) -> bool:
    """Whether each question to this column is a program to compile."""
    return column.engine != "dense" and bool(FRAMEWORKS[column.framework].compilers)


def _rows(asked: Sequence[Question], losses: Sequence[str]) -> tuple[str, ...]:
    """The rows of the matrix, or those of some losses or rows."""
    by_loss: dict[str, list[str]] = {loss: [] for loss in questions.LOSSES}
    for question in asked:
        if question.row not in by_loss[question.loss]:
            by_loss[question.loss].append(question.row)
    every = [row for rows in by_loss.values() for row in rows]
    for loss in losses:
        if loss not in by_loss and loss not in every:
            raise unknown_choice("loss", loss, dict.fromkeys((*by_loss, *every)))
    wanted = {row for loss in losses for row in by_loss.get(loss, [loss])} | set(losses)
    return tuple(row for row in every if not losses or row in wanted)


def one_row(asked: Sequence[Question], losses: Sequence[str]) -> str:
    """The row that an implementation is judged as; raises CannotJudge where the losses are several rows."""
    rows = _rows(asked, losses)
    if len(rows) > 1 and tuple(losses) not in [(row,) for row in rows]:
        raise CannotJudge(f"an implementation is judged as one loss; name one of {', '.join(rows)}")
    return rows[0] if len(rows) == 1 else losses[0]


def run(
    request: Request,
    observe: Callable[[Event], None] = lambda event: None,
    worker: Sequence[str] = WORKER,
    answers: Sequence[str] = ANSWERS,
) -> Report:
    """Judge what is asked; `observe` is called in this thread as things happen. A worker's end, however bad, is a result."""
    todo, began = plan(request), time.monotonic()
    results: list[Result] = []
    facts: dict[str, dict[str, Any]] = {name: {"status": "skipped", "reason": "not installed"} for name in todo.absent}
    events: queue.SimpleQueue[Event | BaseException | None] = queue.SimpleQueue()
    processes = Processes()
    with tempfile.TemporaryDirectory(prefix="sincere-spec-") as folder:
        data = _Digits(Path(folder), todo, answers, request.timeout)
        workers = [
            _Worker(name, todo, data, request, worker, events.put)
            for name in sorted(todo.units, key=SLOWEST_FIRST.index)
        ]
        with ThreadPoolExecutor(request.jobs) as pool:
            try:
                # First, so that no worker waits for what has not begun.
                pending = [pool.submit(data.answer, processes)] if todo.digits else []
                pending += [pool.submit(each.judge, processes) for each in workers]
                for future in pending:
                    future.add_done_callback(lambda end: events.put(None if end.cancelled() else end.exception()))
                left = len(pending)
                while left:
                    event = events.get()
                    if isinstance(event, BaseException):
                        raise event
                    if event is None:
                        left -= 1
                        continue
                    if request.levels:
                        event = replace(event, results=tuple(map(at_level, event.results)))
                    results += event.results
                    facts.setdefault(event.framework, {}).update(event.facts)
                    observe(event)
            finally:  # also when interrupted: nothing goes on behind our back
                data.ready.set()
                for future in pending:
                    future.cancel()
                processes.end()
    says = {question.id: question.says for question in todo.questions.values()} | data.says
    for name in (name for name, units in todo.transforms.items() if units):
        says |= checks.says(name)
    named = {name: facts[name] for name in FRAMEWORKS if name in facts}
    return report(
        implementation=request.candidate.target if request.candidate else "sincere_spec",
        suite=cases.version(request.suite),
        rows=todo.rows,
        columns=todo.columns,
        frameworks=named,
        says=says,
        results=tuple(results),
        seconds=round(time.monotonic() - began, 1),
    )


def _answered(talk: Conversation, message: Mapping[str, Any]) -> tuple[Unit | None, tuple[Result, ...]]:
    """What a worker says of a unit; nothing of what is no such thing, after which it is not heard any more."""
    try:
        case, dtype, engine = message["unit"]
        results = tuple(Result.from_dict(fields) for fields in message["results"])
        return (str(case), str(dtype), str(engine)), results
    except (KeyError, TypeError, ValueError) as error:
        talk.refuse(f"printed what is no result: {of_error(error)}")
        return None, ()


def _known(message: Mapping[str, Any]) -> dict[str, Any]:
    """What a worker says of its framework."""
    said = {name: str(message[name]) for name in ("device", "refused") if name in message}
    versions = message.get("versions")
    return said | ({"versions": versions} if isinstance(versions, dict) else {})


def asked(todo: Plan) -> int:
    """How many questions there are, but for those on real data."""
    return sum(map(len, (*todo.units.values(), *todo.transforms.values())))


def estimate(todo: Plan, jobs: int) -> float:
    """About how many seconds a run takes, with a core for each process."""
    each = [
        BEGIN
        + sum(PACE[name][_slow(Column(name, *unit[1:]))] for unit in todo.units[name])
        + TRANSFORM * len(todo.transforms[name])
        + REAL * todo.digits
        for name in todo.units
    ]
    return max(sum(each) / jobs, max(each, default=0.0))


def batches(todo: Plan, framework: str) -> list[list[Unit]]:
    """What each process of a framework is asked, in turn; the last of them also gets the real data."""
    plain: list[Unit] = []
    compiled: list[Unit] = []
    for unit in todo.units[framework]:
        (compiled if _compiled(Column(framework, *unit[1:])) else plain).append(unit)
    made = [compiled[start : start + PROGRAMS] for start in range(0, len(compiled), PROGRAMS)]
    large = [unit for unit in plain if todo.questions[unit[0]].profile == LARGE]
    if large:  # whoever fails at these, in whatever way, has answered all others
        plain = [unit for unit in plain if todo.questions[unit[0]].profile != LARGE]
        made.append(large)
    return [*made, plain] if plain or todo.digits or not made else made


class _Digits:
    """The questions on real data: answered in a process of their own, and handed to every worker when they are."""

    def __init__(self, folder: Path, todo: Plan, command: Sequence[str], timeout: float) -> None:
        self.ready = threading.Event()
        self.trouble = ""
        self.files: dict[str, str] = {}
        self.rows: dict[str, str] = {}
        self.says: dict[str, str] = {}
        self._folder, self._wanted, self._command, self._timeout = folder, todo.rows, command, timeout

    def answer(self, processes: Processes) -> None:
        """Run that process; `ready` is set in the end, whatever happens."""
        try:
            talk = Conversation(processes, self._command, environment("numpy", os.environ), self._timeout)
            talk.send({"folder": str(self._folder), "rows": list(self._wanted)})
            for message in talk.lines():
                name = message["question"]
                self.files[name], self.rows[name], self.says[name] = message["file"], message["row"], message["says"]
            self.trouble = talk.trouble
        finally:
            if self.trouble:
                missing = [row for row in self._wanted if row not in self.rows.values()]
                self.rows |= {f"{DIGITS}/{row.replace(' ', '-')}": row for row in missing}
            self.ready.set()

    def units(self, columns: Sequence[Column]) -> list[Unit]:
        """What a framework is to be asked; without a file where there is no answer to hold its own against."""
        wanted = [column for column in columns if column.dtype in ("float32", "float64")]
        return [(name, column.dtype, column.engine) for column in wanted for name in self.rows]


@dataclass(frozen=True)
class _Worker:
    """One framework's process, from its start to its end."""

    framework: str
    todo: Plan
    digits: _Digits
    request: Request
    command: Sequence[str]
    tell: Callable[[Event], None]

    def judge(self, processes: Processes) -> None:
        """Run it; every unit ends in results, if only in one that says what became of the process."""
        name, began = self.framework, time.monotonic()
        self.tell(Event("start", name, units=len(self.todo.units[name]) + len(self.todo.transforms[name])))
        facts: dict[str, Any] = {"status": "judged"}
        *first, last = batches(self.todo, name)
        for units in first:
            facts |= self._converse(processes, units, digits=False)
        if last or self.todo.digits:
            facts |= self._converse(processes, last, digits=self.todo.digits)
        if self.todo.transforms[name]:
            facts |= self._transformed(processes)
        if any(column.framework == name for column in self.todo.sampled):
            facts["note"] = SAMPLED if self.request.profiles else f"{SAMPLED}; {LEFT_OUT}"
        self.tell(Event("end", name, facts={**facts, "seconds": round(time.monotonic() - began, 1)}))

    def _converse(self, processes: Processes, units: Sequence[Unit], digits: bool) -> dict[str, Any]:
        """Have one process answer; what is known of the framework."""
        name = self.framework
        left = dict.fromkeys(units)
        talk = Conversation(processes, self.command, environment(name, os.environ), self.request.timeout)
        candidate = self.request.candidate
        asked = {"candidate": candidate.to_dict()} if candidate else {}
        talk.send({"framework": name, "suite": str(self.request.suite), "units": list(left), "digits": digits, **asked})
        columns = [column for column in self.todo.columns if column.framework == name]
        columns = [column for column in columns if column not in self.todo.sampled]
        facts: dict[str, Any] = {}
        data: list[Unit] = []
        for message in talk.lines():
            if "results" in message:
                unit, results = _answered(talk, message)
                if unit is not None:
                    left.pop(unit, None)
                self.tell(Event("results", name, results))
            elif "waiting" in message:
                self.digits.ready.wait()
                data = self.digits.units(columns)
                left |= dict.fromkeys(data)
                self.tell(Event("more", name, units=len(data)))
                files = self.digits.files
                talk.send([(files[case], dtype, engine) for case, dtype, engine in data if case in files])
            else:
                facts |= _known(message)
        if digits and not data:
            self.digits.ready.wait()
            left |= dict.fromkeys(self.digits.units(columns))
        trouble = f"the process of {name} {talk.trouble or 'left this out'}"
        refused = facts.pop("refused", "")
        if left:
            status: Status = "skipped" if refused else "error"
            self.tell(Event("results", name, tuple(self._lost(unit, refused or trouble, status) for unit in left)))
        if talk.trouble:
            facts |= {"status": "error", "reason": trouble}
        return facts

    def _transformed(self, processes: Processes) -> dict[str, Any]:
        """Have another process run the transforms: some of them change what belongs to a process."""
        name = self.framework
        left = dict.fromkeys(self.todo.transforms[name])
        talk = Conversation(processes, self.command, environment(name, os.environ), self.request.timeout)
        talk.send({"framework": name, "transforms": list(left)})
        facts: dict[str, Any] = {}
        for message in talk.lines():
            if "results" in message:
                unit, results = _answered(talk, message)
                if unit is not None:
                    left.pop(unit, None)
                self.tell(Event("results", name, results))
            else:
                facts |= _known(message)
        trouble = f"the process of {name} {talk.trouble or 'left this out'}"
        if left:
            lost = (checks.result(name, unit, "all", status="error", reason=trouble) for unit in left)
            self.tell(Event("results", name, tuple(lost)))
        return facts | ({"status": "error", "reason": trouble} if talk.trouble else {})

    def _lost(self, unit: Unit, trouble: str, status: Status) -> Result:
        case, dtype, engine = unit
        if case in self.digits.rows:
            row, profile = self.digits.rows[case], DIGITS
            if case not in self.digits.files:
                trouble = f"the process that answers for the digits {self.digits.trouble}"
        else:
            row, profile = self.todo.questions[case].row, self.todo.questions[case].profile
        return Result(
            case, row, profile, self.framework, dtype, engine, route="", quantity="all", status=status, reason=trouble
        )
