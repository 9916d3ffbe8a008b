"""The parts of a device run, in their order: `python -m benchmarks.device --help`."""

from __future__ import annotations

import argparse
import json
import os
import queue
import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from time import monotonic
from typing import Any

from sincere_spec.bench.results import commit, machine

ROOT = Path(__file__).parents[2]
SCHEMA = 1
REHEARSAL = 240.0  # seconds of a part in a rehearsal, most of which are those of other processes
START = 90.0  # seconds that a framework and a driver may take to say what device there is


@dataclass(frozen=True)
class Part:
    """A part of the run. Its limit is in seconds; a rehearsal has one process, and REHEARSAL seconds for each part."""

    name: str
    says: str
    framework: str
    limit: float
    processes: int = 1


PARTS = (
    Part("correct", "every loss, dtype and ragged size within the suite's tolerance", "torch", 110.0, 12),
    Part("suite", "the conformance suite by every engine", "torch", 110.0, 12),
    Part("repeat", "the same bits in every repetition, and from a CUDA graph", "torch", 20.0),
    Part("crossovers", "from how many pairs on tiles and kernels are faster", "torch", 70.0),
    Part("shapes", "the shapes of the kernels, timed", "torch", 60.0),
    Part("bench", "kernel, tiles, plain formulas and other packages: time and peak memory", "torch", 130.0),
    Part("million", "a million rows, forward and backward", "torch", 30.0),
    Part("pallas", "Pallas within the suite's tolerance, and one time", "jax", 55.0),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts; the exit status is 0 if all are right, 1 if one is not, 2 if the command is wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.device", description=__doc__)
    parser.add_argument("--rehearse", action="store_true", help="on a CPU, in the interpreters, at small sizes")
    parser.add_argument("--output", type=Path, help="the folder of the JSON files (benchmarks/results/<device>)")
    parser.add_argument(
        "--part", action="append", choices=[part.name for part in PARTS], help="only this; again for more"
    )
    asked = parser.parse_args(arguments)
    parts = [part for part in PARTS if not asked.part or part.name in asked.part]
    began = monotonic()
    facts = {name: _facts(name, asked.rehearse) for name in dict.fromkeys(part.framework for part in parts)}
    folder = asked.output or _folder(facts, asked.rehearse)
    folder.mkdir(parents=True, exist_ok=True)
    header = {
        "schema": SCHEMA,
        "rehearsal": asked.rehearse,
        "commit": commit(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(next((fact["device"] for fact in facts.values() if "device" in fact), None)),
    }
    statuses = {}
    for part in parts:
        found = _run(part, facts[part.framework], asked.rehearse)
        statuses[part.name] = found["status"]
        _write(folder / f"{part.name}.json", {**header, "part": part.name, "says": part.says, **found})
        reason = f": {found['reason']}" if found["reason"] else ""
        _say(f"{part.name:<11} {found['status']:<12} {len(found['rows']):>4} rows {found['seconds']:6.1f} s{reason}")
    _say(f"{monotonic() - began:.0f} s; the files are in {folder}")
    return 0 if set(statuses.values()) == {"right"} else 1


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _write(path: Path, data: dict[str, Any]) -> None:
    """A file with a line for each row, complete or not there at all."""
    rows = ",\n".join(f"    {json.dumps(row)}" for row in data["rows"])
    head = json.dumps({name: value for name, value in data.items() if name != "rows"}, indent=2)[:-2]
    part = path.with_suffix(".part")
    part.write_text(f'{head},\n  "rows": [{f"{chr(10)}{rows}{chr(10)}  " if rows else ""}]\n}}\n', encoding="utf-8")
    part.replace(path)


def _folder(facts: dict[str, dict[str, Any]], rehearse: bool) -> Path:
    """Beside the other results for a device; in the folder that is never committed for anything else."""
    device = next((fact["device"] for fact in facts.values() if "device" in fact), None)
    if rehearse or device is None:
        return ROOT / "report" / "device"
    return ROOT / "benchmarks" / "results" / re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")


def _environment(rehearse: bool) -> dict[str, str]:
    variables = {**os.environ, "NVIDIA_TF32_OVERRIDE": "0", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    variables.pop("TRITON_INTERPRET", None)
    if rehearse:
        variables |= {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"}
        variables |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return variables


def _facts(framework: str, rehearse: bool) -> dict[str, Any]:
    """The device and versions, or `refused` with the reason why there is none."""
    command = [sys.executable, "-m", "benchmarks.device.worker", "facts", framework]
    try:
        done = subprocess.run(
            [*command, *(["--rehearse"] if rehearse else [])],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=_environment(rehearse),
            timeout=START,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"refused": f"{framework} did not say within {START:.0f} s what device there is"}
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            found: dict[str, Any] = json.loads(line)
            return found
    return {"refused": f"{framework} ended with status {done.returncode}: {_last(done.stderr)}"}


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1][:300] if lines else "no message"


@dataclass
class _Worker:
    """A process of a part: its rows, and how it ended."""

    child: subprocess.Popen[str]
    rows: list[dict[str, Any]]
    ended: str = ""
    done: bool = False


def _run(part: Part, facts: dict[str, Any], rehearse: bool) -> dict[str, Any]:
    """The rows of a part and its status: right, wrong, failed, cut short, or unavailable."""
    limit = REHEARSAL if rehearse else part.limit
    found: dict[str, Any] = {"limit": limit, "seconds": 0.0, "facts": facts, "rows": []}
    if "refused" in facts:
        return {**found, "status": "unavailable", "reason": facts["refused"]}
    count = 1 if rehearse else min(part.processes, max(1, (os.cpu_count() or 1) - 2))
    began = monotonic()
    workers = [_start(part, rehearse, k, count, limit) for k in range(count)]
    _read(workers, began + limit)
    rows = [row for worker in workers for row in worker.rows]
    found |= {"seconds": round(monotonic() - began, 1), "rows": rows}
    bad = [row for row in rows if row["status"] in ("wrong", "failed")]
    ended = [worker.ended for worker in workers if worker.ended]
    if any(row["status"] == "wrong" for row in bad):
        status = "wrong"
    elif bad or (ended and not ended[0].startswith("cut short")):
        status = "failed"
    elif ended:
        status = "cut short"
    else:
        status = "right"
    reason = "; ".join([*dict.fromkeys(ended), *(_what(row) for row in bad[:1])])
    if len(bad) > 1:
        reason += f", and {len(bad) - 1} more"
    return {**found, "status": status, "reason": reason}


def _what(row: dict[str, Any]) -> str:
    """A row that is not right, in a line."""
    names = " ".join(str(row[name]) for name in ("case", "loss", "size", "dtype", "program") if name in row)
    return f"{names}: {row['status']}: {row.get('reason', '')}"


def _start(part: Part, rehearse: bool, index: int, count: int, limit: float) -> _Worker:
    command = [sys.executable, "-m", "benchmarks.device.worker", part.name, part.framework]
    command += ["--slice", str(index), str(count), "--seconds", str(limit), *(["--rehearse"] if rehearse else [])]
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=_environment(rehearse)
    )
    return _Worker(child, [])


def _read(workers: Sequence[_Worker], deadline: float) -> None:
    """Read the rows of workers until they end or the deadline ends them."""
    lines: queue.Queue[tuple[_Worker, str | None]] = queue.Queue()
    errors: dict[int, str] = {}

    def rows(worker: _Worker) -> None:
        assert worker.child.stdout is not None
        for line in worker.child.stdout:
            lines.put((worker, line))
        lines.put((worker, None))

    def messages(worker: _Worker) -> None:
        assert worker.child.stderr is not None
        errors[id(worker)] = worker.child.stderr.read()[-4000:]

    threads = [threading.Thread(target=read, args=(worker,)) for worker in workers for read in (rows, messages)]
    for thread in threads:
        thread.start()
    closed: set[int] = set()
    while len(closed) < len(workers):
        try:
            worker, line = lines.get(timeout=max(0.0, deadline - monotonic()))
        except queue.Empty:
            break
        if line is None:
            closed.add(id(worker))
        elif line.startswith("{"):
            row = json.loads(line)
            worker.done = worker.done or "done" in row
            worker.rows += [] if "done" in row else [row]
    for worker in workers:
        if id(worker) not in closed:
            worker.child.kill()
            worker.ended = "" if worker.done else "cut short at its time limit"
        worker.child.wait()
    for thread in threads:
        thread.join()
    for worker in workers:
        if not worker.done and not worker.ended:
            worker.ended = f"a process ended with status {worker.child.returncode}: {_last(errors[id(worker)])}"
        for stream in (worker.child.stdout, worker.child.stderr):
            assert stream is not None
            stream.close()


if __name__ == "__main__":
    sys.exit(main())
