"""What torch.compile adds to a call: forward and backward, eager and compiled in turn, on one thread, in processor time.

It is compiled as it is, and `unguarded`: without guards of globals, by an option of PyTorch.

`python benchmarks/compiled.py benchmarks/compiled.json` writes the times, and prints them as the table of docs/transforms.md.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch

import sincere_spec as ss

LOSSES: dict[str, Callable[..., Any]] = {
    "sincere": lambda z, y: ss.sincere_loss(z, y),
    "supcon": lambda z, y: ss.supcon_loss(z, y),
    "nt_xent": lambda z, y: ss.nt_xent_loss(z[: len(z) // 2], z[len(z) // 2 :]),
    "clip": lambda z, y: ss.clip_loss(z, z.flip(1)),
}
SIZES = (256, 512, 1024, 2048, 4096)
WIDTH, CLASSES = 128, 100


def step(loss: Callable[..., Any], z: Any, y: Any) -> float:
    """The milliseconds that a processor spends on a forward and a backward pass."""
    began = time.process_time()
    torch.autograd.grad(loss(z, y), z)
    return (time.process_time() - began) * 1e3


def measured(name: str, sizes: tuple[int, ...], seconds: float) -> list[dict[str, Any]]:
    """Least and median times by size; each size has so many seconds, and at least ten rounds."""
    torch.compiler.reset()
    eager, rows = LOSSES[name], []
    unguarded = {"guard_filter_fn": torch.compiler.skip_guard_on_globals_unsafe}
    programs = {
        "eager": eager,
        "compiled": torch.compile(eager, fullgraph=True, dynamic=True),
        "unguarded": torch.compile(lambda z, y: eager(z, y), fullgraph=True, dynamic=True, options=unguarded),
    }
    for n in sizes:
        generator = torch.Generator().manual_seed(n)
        z = torch.randn(n, WIDTH, generator=generator).requires_grad_()
        y = torch.randint(0, CLASSES, (n,), generator=generator)
        for program in programs.values():
            for _ in range(3):
                step(program, z, y)
        found: dict[str, list[float]] = {way: [] for way in programs}
        began = time.process_time()
        while time.process_time() - began < seconds or len(found["eager"]) < 10:
            for way, program in programs.items():
                found[way].append(step(program, z, y))
        times = {way: {"least": round(min(x), 4), "median": round(statistics.median(x), 4)} for way, x in found.items()}
        rows.append({"loss": name, "n": n, "rounds": len(found["eager"])} | times)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Times over those of the eager call: of the least, and of the medians."""
    sizes = sorted({row["n"] for row in rows})
    lines = [["compiled / eager, least (median)", *(f"N = {n}" for n in sizes)], ["---"] * (1 + len(sizes))]
    for way in ("compiled", "unguarded"):
        for name in dict.fromkeys(row["loss"] for row in rows):
            times = {row["n"]: (row[way], row["eager"]) for row in rows if row["loss"] == name}
            ratios = (
                [time[which] / eager[which] for which in ("least", "median")] for time, eager in map(times.get, sizes)
            )
            lines.append(
                [f"`{name}`" + ", unguarded" * (way == "unguarded"), *(f"{x:.2f} ({y:.2f})" for x, y in ratios)]
            )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", nargs="?", type=Path, help="the JSON file to write")
    parser.add_argument("--loss", choices=LOSSES, action="append", help="of these alone")
    parser.add_argument("--size", type=int, action="append", help="at these N alone")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each loss and size")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in given.loss or LOSSES:
        rows += measured(name, tuple(given.size or SIZES), given.seconds)
        print(f"{name} is measured", file=sys.stderr)  # noqa: T201
    if given.out:
        about = {"torch": torch.__version__, "processor": platform.machine(), "date": date.today().isoformat()}
        given.out.write_text(json.dumps(about | {"times": rows}, indent=1) + "\n", encoding="utf-8")
    print(table(rows))  # noqa: T201


if __name__ == "__main__":
    main()
