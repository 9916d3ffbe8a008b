"""The process that measures: `python -m sincere_spec.bench.worker`, jobs in as JSON lines, events out as JSON lines.

    {"job": "time", "loss", "size", "programs", "runs"}     the programs in turn, and the unit
    {"job": "memory", "loss", "size", "program"}            one call; a process does one such job
    {"job": "overhead", "loss", "size"}                     what a call costs beside its arithmetic

Every event names its program, so that the other side, which may end this process at any time, knows whose call it was.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from math import ceil
from time import perf_counter, process_time, sleep
from typing import Any, TextIO

from sincere_spec.bench.cases import Program, draw, record
from sincere_spec.bench.frameworks import Framework, Place, Step, load
from sincere_spec.bench.inputs import Inputs
from sincere_spec.bench.peers import find
from sincere_spec.bench.resident import Peak, release, resident
from sincere_spec.bench.settings import SINGLE_SIZE
from sincere_spec.conformance.processes import follow
from sincere_spec.errors import EngineUnavailable

TILE = 512  # rows of a tile of the unit
LONG = 1.0  # seconds from which on a first call is as good as a second to plan by
SAMPLE = 0.02  # seconds that one sample lasts at least: short calls are repeated
MOST_PRODUCTS = 4096  # a unit of more is measured by so many
LEAST_PRODUCTS = 64
WARM_SIZE = 128
NAP, MOST_NAPS = 0.01, 100  # seconds at a time in which nothing else may work before a measurement, and how often


class Unsupported(Exception):
    """A program cannot be had here; the message says why."""


class Worker:
    """One framework in one process."""

    def __init__(self, name: str, place: Place, dim: int, classes: int, out: TextIO) -> None:
        self.name, self.dim, self.classes, self.out = name, dim, classes, out
        self.framework: Framework = load(name, place)

    def tell(self, event: str, **fields: Any) -> None:
        """One event."""
        print(json.dumps({"event": event, **fields}), file=self.out, flush=True)

    def inputs(self, loss: str, size: int, relation: str = "") -> tuple[Inputs, tuple[Any, ...]]:
        """The inputs and their arrays."""
        inputs = draw(loss, size, self.dim, self.classes, relation)
        return inputs, self.framework.arrays(inputs)

    def step(self, loss: str, program: Program, arrays: tuple[Any, ...], embeddings: int) -> Step:
        """A program, ready to run."""
        if program.kind == "ours":
            function = self.framework.ours(loss, program)
        elif program.kind == "plain":
            try:
                function = self.framework.plain(loss)
            except KeyError:
                raise Unsupported(f"no plain formula of {loss} is written for {self.name}") from None
        else:
            peer = find(self.name, loss, program.name)
            try:
                function = peer.make()
            except ModuleNotFoundError as error:
                raise Unsupported(f"{peer.package} is not installed ({error})") from error
            except ImportError as error:
                raise Unsupported(str(error)) from error
        return self.framework.step(function, program, arrays, embeddings)

    def begin(
        self, loss: str, program: Program, arrays: tuple[Any, ...], embeddings: int, single: bool
    ) -> tuple[Step, float] | None:
        """A program, built and called once, and the seconds of that; None if it cannot be done."""
        name = str(program)
        self.tell("start", program=name)
        try:
            if single and not self.framework.compiles:
                # one call is enough, so the warm-up is a small one
                inputs, small = self.inputs(loss, WARM_SIZE, program.relation)
                self.step(loss, program, small, len(inputs.embeddings))()
            step = self.step(loss, program, arrays, embeddings)
            start = perf_counter()
            if not single or self.framework.compiles:
                step()
            first = perf_counter() - start
            self.tell("first", program=name, seconds=first)
        except (EngineUnavailable, Unsupported) as reason:
            self.tell("unsupported", program=name, reason=str(reason))
        except MemoryError as error:
            self.tell("failed", program=name, reason=f"out of memory: {error}")
        except Exception as error:  # whatever a framework or a peer raises is that program's result
            self.tell("failed", program=name, reason=f"{type(error).__name__}: {error}"[:300])
        else:
            return step, first
        return None

    def time(self, job: dict[str, Any]) -> None:
        """The programs in turn: each round measures the unit and one sample of every program."""
        loss, size = job["loss"], job["size"]
        programs = [Program(**fields) for fields in job["programs"]]
        single = size >= SINGLE_SIZE
        of = {relation: self.inputs(loss, size, relation) for relation in {program.relation for program in programs}}
        steps: list[tuple[str, Step, int, int]] = []
        for program in programs:
            inputs, arrays = of[program.relation]
            begun = self.begin(loss, program, arrays, len(inputs.embeddings), single)
            if begun is None:
                continue
            step, seconds = begun
            if single:
                steps.append((str(program), step, 1, 1))
                continue
            if seconds < LONG or self.framework.compiles:
                start = perf_counter()
                value = step()
                seconds = perf_counter() - start
                self.tell("value", program=str(program), value=_number(value[0]))
                del value
            runs = min(job["runs"], max(1, int(job["seconds"] / seconds)))
            steps.append((str(program), step, runs, max(1, ceil(SAMPLE / seconds))))
        self.tell("start", program="unit")
        unit = self.unit(size)
        unit()
        for turn in range(job["runs"]):
            present = [(name, step, calls) for name, step, runs, calls in steps if turn < runs]
            if not present:
                break
            self.tell("start", program="unit")
            seconds, cpu = unit()
            self.tell("unit", seconds=seconds, cpu=cpu)
            for name, step, calls in present:
                self.tell("start", program=name)
                settle()
                wall, cpu = perf_counter(), process_time()
                for _ in range(calls):
                    step()
                wall, cpu = perf_counter() - wall, process_time() - cpu
                self.tell("time", program=name, seconds=wall / calls, cpu=cpu / calls, calls=calls)

    def unit(self, size: int) -> Callable[[], tuple[float, float]]:
        """A function that measures one unit, in seconds, and in seconds of processor."""
        tile = min(TILE, size)
        whole = (size / tile) ** 2
        count = int(min(max(whole, LEAST_PRODUCTS), MOST_PRODUCTS))
        run = self.framework.products(tile, self.dim, size)

        def measure() -> tuple[float, float]:
            settle()
            wall, cpu = perf_counter(), process_time()
            run(count)
            return (perf_counter() - wall) * whole / count, (process_time() - cpu) * whole / count

        return measure

    def memory(self, job: dict[str, Any]) -> None:
        """The peak of one call above the level before it, in this process, which does nothing else."""
        loss, size, program = job["loss"], job["size"], Program(**job["program"])
        name = str(program)
        small_inputs, small = self.inputs(loss, min(WARM_SIZE, size), program.relation)
        warm = self.begin(loss, program, small, len(small_inputs.embeddings), single=False)
        if warm is None:
            return
        del warm, small
        inputs, arrays = self.inputs(loss, size, program.relation)
        embeddings = len(inputs.embeddings)
        input_bytes, gradient_bytes = _bytes(arrays), _bytes(arrays[:embeddings])
        del inputs, small_inputs
        release()
        before = resident()
        self.tell("start", program=name)
        step = self.step(loss, program, arrays, embeddings)
        if self.framework.compiles:
            step()  # compiles what is compiled at the first call
        self.framework.reset_device_memory()
        device = self.framework.device_memory()
        peak = Peak()
        step()
        extra, method = peak.bytes(), peak.method
        after = self.framework.device_memory()
        if device is not None and after is not None:
            extra, method = after[1] - device[0], "the framework's allocator"
        kept = max((peak.level or 0) - (before or 0), 0)
        self.tell(
            "memory", program=name, extra=extra, kept=kept, inputs=input_bytes, gradients=gradient_bytes, method=method
        )

    def overhead(self, job: dict[str, Any]) -> None:
        """Microseconds of a call on a tiny batch: the checks and the plan alone, the whole call, the plain formula."""
        from sincere_spec import explain

        loss, size = job["loss"], job["size"]
        inputs, arrays = self.inputs(loss, size)
        made, embeddings = record(loss), len(inputs.embeddings)
        call, plain = Program("ours", "auto"), Program("plain", "plain")
        steps = {
            "checks": lambda: explain(made, *arrays),
            "call": self.step(loss, call, arrays, embeddings),
            "plain": self.step(loss, plain, arrays, embeddings),
        }
        for step in steps.values():
            step()
        samples: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(job["runs"]):
            for name, step in steps.items():
                start = perf_counter()
                for _ in range(200):
                    step()
                samples[name].append((perf_counter() - start) / 200)
        self.tell("overhead", **samples)


def settle() -> None:
    """Wait until no thread works any more: JAX gives back the memory of a program after its result is there.

    What is measured next would take twice as long beside that.
    """
    for _ in range(MOST_NAPS):
        before = process_time()
        sleep(NAP)
        if process_time() - before < NAP / 10:
            return


def _bytes(arrays: tuple[Any, ...]) -> int:
    return sum(int(x.nbytes) if hasattr(x, "nbytes") else x.shape.num_elements() * x.dtype.size for x in arrays)


def _number(value: Any) -> float:
    return float(value.detach() if hasattr(value, "detach") else value)


def versions(framework: str) -> dict[str, str]:
    """The versions of what a result depends on, without importing it."""
    from importlib.metadata import PackageNotFoundError, version

    from sincere_spec.bench.peers import PEERS

    names = {"numpy", framework, *(["jaxlib"] if framework == "jax" else [])}
    names |= {peer.package for peer in PEERS if peer.framework == framework}
    found = {}
    for name in sorted(names):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def main() -> None:
    """Serve jobs until the input ends."""
    follow(os.getppid())
    # What a framework prints goes to stderr; stdout belongs to the events.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    setup = json.loads(sys.stdin.readline())
    try:
        place = Place(setup["device"], setup["dtype"], setup["threads"])
        worker = Worker(setup["framework"], place, setup["dim"], setup["classes"], out)
    except Exception as error:
        print(json.dumps({"event": "refused", "reason": f"{type(error).__name__}: {error}"}), file=out, flush=True)
        return
    framework = worker.framework
    facts = {"device": framework.device_name(), "memory": framework.memory_limit()}
    worker.tell("ready", versions=versions(setup["framework"]), **facts)
    jobs = {"time": worker.time, "memory": worker.memory, "overhead": worker.overhead}
    for line in sys.stdin:
        job = json.loads(line)
        worker.tell("level", resident=resident())
        jobs[job["job"]](job)
        release()
        worker.tell("done")


if __name__ == "__main__":
    main()
