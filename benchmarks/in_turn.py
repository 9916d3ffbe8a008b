"""Programs and checkouts timed in turn: `python benchmarks/in_turn.py torch sincere:4096:128 old=../old:tiled new=.:tiled`.

On a busy machine a figure changes by a third from minute to minute, and so do all others. So every program has a process of its
own that stays, all on one core with one thread, and they run in turn, 30 ms or one call at a time. What counts is the median of
ratios to the first program, of CPU time in the same turn. A case is `loss:rows:width`; a program `name=checkout:engine`, where
instead of an engine there may be `plain`, `unit` (the matrix product) or the name of a peer of `sincere_spec.bench.peers`. JSON
goes to standard output.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

TURN = 0.03
"""Seconds of a turn, unless a call takes longer."""

SINGLE_THREADED = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC"), "1"),
    **dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1"),
    "JAX_PLATFORMS": "cpu",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}


def serve(framework: str) -> None:
    """Answer requests `[loss, rows, width, program, calls]` with the seconds of CPU time that one call took."""
    steps: dict[tuple[Any, ...], Any] = {}
    for line in sys.stdin:
        *key, calls = json.loads(line)
        if tuple(key) not in steps:
            steps.clear()
            steps[tuple(key)] = _step(framework, *key)
            for _ in range(3):
                steps[tuple(key)]()
        step, start = steps[tuple(key)], time.process_time()
        for _ in range(calls):
            step()
        sys.stdout.write(json.dumps((time.process_time() - start) / calls) + "\n")
        sys.stdout.flush()


def _step(name: str, loss: str, rows: int, width: int, program: str) -> Any:
    from sincere_spec.bench.cases import Program, draw
    from sincere_spec.bench.frameworks import Place, load
    from sincere_spec.bench.peers import PEERS

    framework = load(name, Place("cpu", "float32", 1))
    if program == "unit":
        products = framework.products(512, width, rows)
        return lambda: products((rows // 512) ** 2)
    inputs = draw(loss, rows, width, 100)
    arrays, count = framework.arrays(inputs), len(inputs.embeddings)
    peer = next((one for one in PEERS if (one.name, one.loss, one.framework) == (program, loss, name)), None)
    if peer is not None:
        return framework.step(peer.make(), Program("peer", program), arrays, count)
    if program == "plain":
        return framework.step(framework.plain(loss), Program("plain", "plain"), arrays, count)
    ours = Program("ours", program)
    return framework.step(framework.ours(loss, ours), ours, arrays, count)


class Contender:
    """A program in a process of its own."""

    def __init__(self, words: str, framework: str, core: int) -> None:
        self.name, rest = words.split("=", 1)
        checkout, self.program = rest.rsplit(":", 1)
        folder = str(Path(checkout).resolve())
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve", framework],
            cwd=folder,
            env=os.environ | SINGLE_THREADED | {"PYTHONPATH": folder},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(self.process.pid, {core})

    def seconds(self, case: tuple[str, int, int], calls: int) -> float:
        """The CPU time of one call, of so many."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([*case, self.program, calls]) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"{self.name} ended in {case}")
        return float(json.loads(answer))


def in_turn(contenders: list[Contender], case: tuple[str, int, int], turns: int) -> dict[str, dict[str, float]]:
    """By program the median and the least of milliseconds, and the median of ratios to the first."""
    once = {one.name: one.seconds(case, 1) for one in contenders}
    calls = {name: max(1, int(TURN / max(seconds, 1e-5))) for name, seconds in once.items()}
    times: dict[str, list[float]] = {name: [] for name in once}
    for turn in range(turns):
        for one in contenders if turn % 2 == 0 else contenders[::-1]:
            times[one.name].append(one.seconds(case, calls[one.name]))
    first = times[contenders[0].name]
    return {
        name: {
            "ms": round(statistics.median(own) * 1e3, 4),
            "least_ms": round(min(own) * 1e3, 4),
            "ratio": round(statistics.median(x / y for x, y in zip(own, first, strict=True)), 3),
        }
        for name, own in times.items()
    }


def main() -> None:
    """Time the cases that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("framework")
    parser.add_argument("cases", help="loss:rows:width, with commas between")
    parser.add_argument("programs", nargs="+", help="name=checkout:engine")
    parser.add_argument("--turns", type=int, default=21)
    parser.add_argument("--core", type=int, default=0)
    given = parser.parse_args()
    contenders = [Contender(words, given.framework, given.core) for words in given.programs]
    found = {}
    for words in given.cases.split(","):
        loss, rows, width = words.split(":")
        found[words] = in_turn(contenders, (loss, int(rows), int(width)), given.turns)
        shown = ", ".join(f"{name} {x['ms']:.3f} ms ({x['ratio']:.3f})" for name, x in found[words].items())
        sys.stderr.write(f"{words}: {shown}\n")
    about = {"framework": given.framework, "turns": given.turns, "load": os.getloadavg(), "programs": given.programs}
    json.dump(about | {"cases": found}, sys.stdout, indent=1)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2])
    else:
        main()
