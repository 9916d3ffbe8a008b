"""A whole run: which jobs, in which processes, and what is kept of their events."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from typing import Any

from sincere_spec.bench.cases import Program, programs
from sincere_spec.bench.process import Died, Process, Stopped
from sincere_spec.bench.relations import relations
from sincere_spec.bench.results import Memory, Overhead, Result, Time, commit, machine
from sincere_spec.bench.settings import (
    LARGEST_AUTO_SIZE,
    LARGEST_MATRIX_SIZE,
    OVERHEAD_SIZE,
    Settings,
    available_memory,
)

# What frameworks say when a device has no more memory.
EXHAUSTED = ("OutOfMemoryError", "RESOURCE_EXHAUSTED", "ResourceExhaustedError")
Tell = Callable[[str], None]  # is told what was just done, once for each of `count` jobs


def count(settings: Settings) -> int:
    """How many jobs a run is."""
    return sum(len(plan(framework, settings)) for framework in settings.frameworks)


@dataclass(frozen=True)
class Job:
    """Programs of one loss and size: one for memory, those that take turns for times."""

    kind: str
    loss: str
    size: int
    programs: tuple[Program, ...]

    def __str__(self) -> str:
        what = self.programs[0] if self.kind == "memory" or len(self.programs) == 1 else "in turn"
        return f"{self.loss} N={self.size} {self.kind} {what if self.programs else ''}".rstrip()


def plan(framework: str, settings: Settings) -> list[Job]:
    """The jobs of a framework: overhead first, then by size, memory before time, since it finds the limits."""
    if settings.relations:
        return relation_plan(settings)
    jobs = [Job("overhead", loss, OVERHEAD_SIZE, ()) for loss in settings.losses]
    for loss in settings.losses:
        found = programs(framework, loss, settings.engines, settings.device, settings.peers)
        for size in sorted(settings.sizes):
            if size > LARGEST_MATRIX_SIZE and loss not in settings.large:
                continue
            if settings.memory and size in settings.memory_sizes:
                jobs += [Job("memory", loss, size, (program,)) for program in found if program.name != "auto"]
            together = [
                program
                for program in found
                if program.kind != "peer"
                and (program.name != "auto" or size <= LARGEST_AUTO_SIZE)
                and (program.name in ("tiled", "kernel") or size <= LARGEST_MATRIX_SIZE)
            ]
            if together:
                jobs.append(Job("time", loss, size, tuple(together)))
            jobs += [Job("time", loss, size, (program,)) for program in found if program.kind == "peer"]
    return jobs


def relation_plan(settings: Settings) -> list[Job]:
    """The jobs of a run of relations: of a loss in turn with the plain one, and peaks of those that multiply classes."""
    jobs, table = [], relations()
    for loss in settings.losses:
        said = {name: relation for name, relation in table.items() if loss in relation.losses}
        names = dict.fromkeys(("", *(relation.against for relation in said.values()), *said))
        if settings.memory:
            multiplied = ("", *(name for name in said if name.startswith("overlap")))
            alone = [Program("ours", engine, relation=name) for engine in settings.engines for name in multiplied]
            if len(multiplied) > 1:
                jobs += [Job("memory", loss, size, (program,)) for size in settings.memory_sizes for program in alone]
        for size in settings.sizes if said else ():
            for engine in settings.engines:
                programs_ = tuple(Program("ours", engine, relation=name) for name in names)
                jobs.append(Job("time", loss, size, programs_))
    return jobs


def measure(framework: str, settings: Settings, tell: Tell) -> Result:
    """Run every job of a framework; raises `Died` if it cannot start."""
    settings = within_memory(settings)
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    with closing(Pool(framework, settings)) as pool:
        ready = pool.get("shared").ready
        facts = machine(ready["device"])
        found = Found(framework, settings)
        for job in plan(framework, settings):
            getattr(found, job.kind)(job, pool)
            tell(f"{framework}: {job}")
    return Result(
        framework=framework,
        device=settings.device,
        machine=facts,
        versions=ready["versions"],
        commit=commit(),
        date=date,
        settings={**asdict(settings), "frameworks": [framework]},
        times=tuple(found.times),
        memory=tuple(found.memories),
        overhead=tuple(found.overheads),
    )


def within_memory(settings: Settings) -> Settings:
    """Limits that this machine can keep; on a device its memory takes the place of the host's, once a process has said it."""
    available = available_memory()
    return settings if available is None else replace(settings, bytes=min(settings.bytes, int(0.8 * available)))


class Pool:
    """The processes of a framework, by purpose: one that our programs and the plain formula share, one for peers."""

    def __init__(self, framework: str, settings: Settings) -> None:
        self.framework, self.settings = framework, settings
        self.processes: dict[str, Process] = {}

    def close(self) -> None:
        """End them all."""
        for purpose in list(self.processes):
            self.drop(purpose)

    def get(self, purpose: str) -> Process:
        """The process, started if need be."""
        if purpose not in self.processes:
            process = Process(self.framework, self.settings, memory=purpose == "memory")
            if process.ready["memory"] is not None:  # a device's limit is its own memory, not the host's
                self.settings = process.settings = replace(self.settings, bytes=process.ready["memory"])
            self.processes[purpose] = process
        return self.processes[purpose]

    def drop(self, purpose: str) -> None:
        """End it; the next `get` starts another."""
        if purpose in self.processes:
            self.processes.pop(purpose).close()


@dataclass
class Found:
    """What a run has measured so far. `beyond` says at which size, and why, a program was stopped."""

    framework: str
    settings: Settings
    times: list[Time] = field(default_factory=list)
    memories: list[Memory] = field(default_factory=list)
    overheads: list[Overhead] = field(default_factory=list)
    beyond: dict[tuple[str, str], tuple[int, str]] = field(default_factory=dict)

    def stopped(self, job: Job, program: Program) -> tuple[str, str] | None:
        """The status and reason of a program that was stopped at this size or a smaller one."""
        if (job.loss, str(program)) not in self.beyond:
            return None
        size, reason = self.beyond[job.loss, str(program)]
        return ("stopped", reason) if size == job.size else ("skipped", f"{reason} at N = {size}")

    def overhead(self, job: Job, pool: Pool) -> None:
        """What a call costs beside its arithmetic."""
        request = {"job": "overhead", "loss": job.loss, "size": job.size, "runs": self.settings.runs}
        for event in pool.get("shared").events(request, frozenset()):
            if event.pop("event") == "overhead":
                self.overheads.append(Overhead(job.loss, job.size, **{key: tuple(x) for key, x in event.items()}))

    def memory(self, job: Job, pool: Pool) -> None:
        """One program, in a process that ends with it."""
        (program,) = job.programs
        row = Memory(job.loss, job.size, str(program), program.kind, "ok")
        if (known := self.stopped(job, program)) is not None:
            self.memories.append(replace(row, status=known[0], reason=known[1]))
            return
        request = {"job": "memory", "loss": job.loss, "size": job.size, "program": asdict(program)}
        try:
            for event in pool.get("memory").events(request, _own(job.programs)):
                kind = event.pop("event")
                if kind == "memory":
                    self.memories.append(replace(row, **event))
                elif kind in ("unsupported", "failed"):
                    status, reason = self._not_done(job, program, kind, event["reason"], pool)
                    self.memories.append(replace(row, status=status, reason=reason))
        except (Stopped, Died) as end:
            status, reason = self._end(job, program, end, pool)
            self.memories.append(replace(row, status=status, reason=reason))
        pool.drop("memory")

    def time(self, job: Job, pool: Pool) -> None:
        """Programs in turn; one that has to be stopped ends its process, and the others begin again without it."""
        purpose = "peers" if job.programs[0].kind == "peer" else "shared"
        rows: dict[str, Time] = {}
        left = []
        for program in job.programs:
            row = Time(job.loss, job.size, str(program), program.kind, "ok")
            known = self.stopped(job, program)
            rows[str(program)] = row if known is None else replace(row, status=known[0], reason=known[1])
            if known is None:
                left.append(program)
        while left:
            events = _Events()
            try:
                request = {
                    "job": "time",
                    "loss": job.loss,
                    "size": job.size,
                    "programs": [asdict(program) for program in left],
                    "runs": self.settings.runs,
                    "seconds": self.settings.seconds,
                }
                events.read(pool.get(purpose).events(request, _own(left)))
            except (Stopped, Died) as end:
                pool.drop(purpose)
                culprit = next((program for program in left if str(program) == events.current), None)
                if culprit is None:  # the unit, or the process before it began: nothing of this job can be measured
                    for program in left:
                        rows[str(program)] = replace(rows[str(program)], status="failed", reason=str(end))
                    break
                status, reason = self._end(job, culprit, end, pool)
                rows[str(culprit)] = replace(rows[str(culprit)], status=status, reason=reason)
                left.remove(culprit)
                continue
            for program in left:
                row = events.fill(rows[str(program)])
                if row.status == "failed":
                    status, reason = self._not_done(job, program, row.status, row.reason, pool)
                    row = replace(row, status=status, reason=reason)
                rows[str(program)] = row
            break
        self.times += rows.values()

    def _end(self, job: Job, program: Program, end: Exception, pool: Pool) -> tuple[str, str]:
        """The status of a program whose process was ended, or ended itself; larger sizes are not tried."""
        status, reason = self._not_done(job, program, "failed", str(end), pool)
        self.beyond[job.loss, str(program)] = (job.size, reason)
        return "stopped" if isinstance(end, Stopped) else status, reason

    def _not_done(self, job: Job, program: Program, status: str, reason: str, pool: Pool) -> tuple[str, str]:
        """The status of a program that failed: stopped at the device's memory, if that was why; larger sizes are not tried."""
        if self.settings.device == "cpu" or not any(words in reason for words in EXHAUSTED):
            return status, reason
        reason = f"stopped at {pool.settings.bytes / 1e9:.0f} GB"
        self.beyond[job.loss, str(program)] = (job.size, reason)
        return "stopped", reason


def _own(programs: Iterable[Program]) -> frozenset[str]:
    return frozenset(str(program) for program in programs if program.kind == "ours")


class _Events:
    """The events of one attempt at a job, by program."""

    def __init__(self) -> None:
        self.current = ""
        self.units: list[float] = []
        self.unit_cpu: list[float] = []
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.cpu: dict[str, list[float]] = defaultdict(list)
        self.fields: dict[str, dict[str, Any]] = defaultdict(dict)

    def read(self, events: Iterable[dict[str, Any]]) -> None:
        """Read to the end; `current` is the program whose call it is."""
        for event in events:
            kind, program = event["event"], event.get("program", "")
            if kind == "start":
                self.current = program
            elif kind == "unit":
                self.units.append(event["seconds"])
                self.unit_cpu.append(event["cpu"])
            elif kind == "time":
                self.seconds[program].append(event["seconds"])
                self.cpu[program].append(event["cpu"])
                self.fields[program]["calls"] = event["calls"]
            elif kind == "first":
                self.fields[program]["first"] = event["seconds"]
            elif kind == "value":
                self.fields[program]["value"] = event["value"]
            elif kind in ("unsupported", "failed"):
                self.fields[program] |= {"status": kind, "reason": event["reason"]}

    def fill(self, row: Time) -> Time:
        """The measurement of a program."""
        seconds = tuple(self.seconds[row.program])
        return replace(
            row,
            **self.fields[row.program],
            seconds=seconds,
            cpu=tuple(self.cpu[row.program]),
            unit=tuple(self.units[: len(seconds)]),
            unit_cpu=tuple(self.unit_cpu[: len(seconds)]),
        )
