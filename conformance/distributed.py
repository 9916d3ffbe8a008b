"""Losses over ranks against one process: `torchrun --nproc_per_node 4 -m sincere_spec.conformance.distributed`.

Every rank has some rows of a batch, and all call a loss `across` their process group. The value, the same on every rank, and
the gradient of every array are those of the whole batch in one process of the dense engine: the mean over ranks of what they
are handed, so that a rank's own rows have the number of ranks times theirs, and parameters their own.

Without torchrun the command starts a process for each of `--sizes` itself, on this machine. `--framework jax` and `--framework
tensorflow` have the devices of one program instead, see `distributed_programs`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import sincere_spec as ss
from sincere_spec.conformance import distributed_peers, distributed_programs
from sincere_spec.conformance.distributed_cases import Case, Verdict, call, cases, far
from sincere_spec.losses.table import TABLE

__all__ = ["Case", "Verdict", "call", "cases", "errors", "judge", "main", "report"]

LIMITS = {"float64": 1e-12, "float32": 2e-5}
"""How far values and gradients may be from one process, relative to the largest entry."""

SIZES = {"torch": "5,3,0,7", "jax": "4,4,4,4", "tensorflow": "5,0,7"}
"""The rows of each rank, if nothing else is said: each replica of TensorFlow has programs of its own to trace and compile."""

PROGRAMS = 12
"""How many cases one process of TensorFlow has, of two at a time: each takes some 100 MB, which are never given back."""


def errors(case: Case, sizes: Sequence[int], rank: int, group: Any, dtype: str, engine: str) -> dict[str, float]:
    """How far a rank's value and gradients are from those of one process, by name, relative to the largest entry."""
    import torch

    kind, start = getattr(torch, dtype), sum(sizes[:rank])

    def made(case: Case, compute: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
        def leaf(x: Any) -> Any:
            return torch.tensor(x, dtype=kind).to(compute).requires_grad_()

        arrays = {name: leaf(x) for name, x in case.arrays.items()}
        numbers = {"temperature": case.loss.temperature, "bias": case.loss.bias}
        parameters = {name: leaf(x) for name, x in numbers.items()}
        tensors = {
            name: x if name == "where" or isinstance(x, list) else torch.tensor(x) for name, x in case.rows.items()
        }
        if "where" in tensors:
            where = tensors["where"]
            masks = where if isinstance(where, tuple) else (where,)
            masks = tuple(None if x is None else torch.tensor(x) for x in masks)
            options["where"] = masks if isinstance(where, tuple) else masks[0]
        value = call(replace(case, rows=tensors), arrays, parameters, **options)
        value.backward()
        given = arrays | parameters
        return value.detach(), {name: torch.zeros_like(x) if x.grad is None else x.grad for name, x in given.items()}

    want, gradients = made(case, torch.float64, engine="dense")  # of what float32 has of the arrays, too
    tile = {"tiled": 2, "kernel": 16}.get(engine)
    across = ss.across(group, shared=case.shared)
    got, found = made(case.of_rank(start, start + sizes[rank]), kind, across=across, engine=engine, tile=tile)
    by_name = {"value": far(got, want)}
    for name, gradient in gradients.items():
        if name in case.arrays and name not in case.shared:
            own = gradient[start : start + sizes[rank]]
            scale = float(gradient.abs().max()) if gradient.numel() else 1.0
            by_name[f"d{name}"] = far(found[name] / len(sizes), own, scale)
        else:
            by_name[f"d{name}"] = far(found[name], gradient)
    return by_name


def judge(group: Any, sizes: Sequence[int], dtype: str, engine: str, chosen: Sequence[Case]) -> list[Verdict]:
    """The verdict of every case, on every rank; without those that kernels do not serve, where these are the engine."""
    from torch import distributed

    rank = distributed.get_rank(group)
    own, served = [], []
    for case in chosen:
        try:
            own.append(errors(case, sizes, rank, group, dtype, engine))
        except ss.EngineUnavailable:  # on all ranks alike
            if engine != "kernel":
                raise
        else:
            served.append(case)
    every: list[Any] = [None] * len(sizes)
    distributed.all_gather_object(every, own, group=group)
    verdicts = []
    for case, by_rank in zip(served, zip(*every, strict=True), strict=True):
        worst, where = max(
            (error, f"{name} of rank {r}") for r, found in enumerate(by_rank) for name, error in found.items()
        )
        one_value = len({found["value"] for found in by_rank}) == 1
        verdicts.append(Verdict(case.name, worst, where, one_value))
    return verdicts


def report(verdicts: Sequence[Verdict], sizes: Sequence[int], dtype: str, engine: str) -> tuple[str, bool]:
    """The verdicts as text, and whether all cases pass."""
    limit = LIMITS[dtype]
    failed = [verdict for verdict in verdicts if not verdict.passes(limit)]
    worst = max(verdict.error for verdict in verdicts)
    lines = [
        f"FAIL  {v.name}: {v.where} is {v.error:.1e} away" + ("" if v.one_value else "; ranks have different values")
        for v in failed
    ]
    rows = ", ".join(map(str, sizes))
    lines.append(
        f"ranks of {rows} rows, {dtype}, {engine} engine: {len(verdicts) - len(failed)} of {len(verdicts)} cases hold; "
        f"the worst error is {worst:.1e}, the limit {limit:.0e}"
    )
    return "\n".join(lines), not failed


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status of the command."""
    parser = argparse.ArgumentParser(prog="python -m sincere_spec.conformance.distributed", description=__doc__)
    parser.add_argument("--framework", default="torch", choices=tuple(SIZES))
    parser.add_argument("--sizes", help="the rows of each rank; in JAX as many each")
    parser.add_argument("--backend", default="gloo", help="of torch.distributed")
    parser.add_argument("--dtype", default="float64", choices=LIMITS)
    parser.add_argument("--engine", default="tiled", choices=("auto", "dense", "tiled", "kernel"))
    parser.add_argument("--short", action="store_true", help="fewer reductions and divergences")
    parser.add_argument("--peers", nargs="*", metavar="PACKAGE", help="other packages' settings instead, as a table")
    asked = parser.parse_args(arguments)
    sizes = [int(size) for size in (asked.sizes or SIZES[asked.framework]).split(",")]
    if asked.framework != "torch":
        if asked.framework == "jax" and len(set(sizes)) > 1:
            parser.error(f"devices of JAX have as many rows each; got --sizes {asked.sizes}.")
        return _programs(asked, sizes)
    if asked.peers is not None:
        sizes = [distributed_peers.ROWS] * distributed_peers.RANKS
    if "RANK" in os.environ:
        if int(os.environ["WORLD_SIZE"]) != len(sizes):
            parser.error(f"--sizes has {len(sizes)} ranks, and torchrun started {os.environ['WORLD_SIZE']}.")
        return _rank(int(os.environ["RANK"]), sizes, asked, "env://")
    import torch.multiprocessing

    with tempfile.TemporaryDirectory() as folder:
        ours = (sizes, asked, f"file://{folder}/store")
        # One process imports, and the ranks are its forks.
        multiprocessing.set_forkserver_preload([__name__, "torch"])
        start: Any = torch.multiprocessing.start_processes  # type: ignore[attr-defined]
        start(_exit, ours, len(sizes), start_method="forkserver")
    return 0


def _programs(asked: argparse.Namespace, sizes: Sequence[int]) -> int:
    """The verdicts of one process that has all devices; of several where TensorFlow frees no program."""
    count = len(_of_programs(asked, sizes))
    step = PROGRAMS if asked.framework == "tensorflow" else count
    parts = [slice(first, min(first + step, count)) for first in range(0, count, step)]
    verdicts = []
    with multiprocessing.get_context("spawn").Pool(min(2, len(parts)), maxtasksperchild=1) as pool:
        for part, found in zip(parts, pool.imap(partial(_verdicts, asked, sizes), parts), strict=True):
            verdicts += found
            sys.stderr.write(f"{asked.framework}: {part.stop} of {count} cases\n")
    text, passed = report(verdicts, sizes, asked.dtype, asked.engine)
    sys.stdout.write(f"{asked.framework}: {text}\n")
    return int(not passed)


def _of_programs(asked: argparse.Namespace, sizes: Sequence[int]) -> list[Case]:
    """The cases that programs are asked: of the short form the first of every loss."""
    names = {built_in.name for built_in in TABLE}
    return [case for case in cases(sum(sizes), asked.short) if not asked.short or case.name in names]


def _verdicts(asked: argparse.Namespace, sizes: Sequence[int], part: slice) -> list[Verdict]:
    """The verdicts of some cases, in a process of their own."""
    warnings.simplefilter("ignore")
    chosen = _of_programs(asked, sizes)[part]
    distributed_programs.prepare(asked.framework, len(sizes), asked.dtype)
    return distributed_programs.verdicts(asked.framework, sizes, asked.dtype, asked.engine, chosen)


def _exit(rank: int, *arguments: Any) -> None:
    if _rank(rank, *arguments):
        sys.exit(1)


def _rank(rank: int, sizes: Sequence[int], asked: argparse.Namespace, store: str) -> int:
    """What one process does."""
    import torch
    from torch import distributed

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    distributed.init_process_group(asked.backend, init_method=store, rank=rank, world_size=len(sizes))
    try:
        if asked.peers is not None:
            table = distributed_peers.table(asked.peers)
            if rank == 0:
                sys.stdout.write(table + "\n")
            distributed.barrier()
            return 0
        chosen = list(cases(sum(sizes), asked.short))
        verdicts = judge(distributed.group.WORLD, sizes, asked.dtype, asked.engine, chosen)
        text, passed = report(verdicts, sizes, asked.dtype, asked.engine)
        if rank == 0:
            sys.stdout.write(text + "\n")
        distributed.barrier()
        return int(not passed)
    finally:
        distributed.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main())
