"""Losses over ranks against one process: `torchrun --nproc_per_node 4 -m sincere_spec.conformance.distributed`.

Every rank has some rows of a batch, and all call a loss `across` their process group. The value, the same on every rank, and
the gradient of every array are those of the whole batch in one process of the dense engine: the mean over ranks of what they
are handed, so that a rank's own rows have the number of ranks times theirs, and parameters their own.

Without torchrun the command starts a process for each of `--sizes` itself, on this machine.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

import sincere_spec as ss
from sincere_spec.conformance import distributed_peers
from sincere_spec.losses.f_micl import Divergence
from sincere_spec.losses.table import TABLE
from sincere_spec.spec.arrangements import Labelled, PairedViews, Queries, Towers, Views
from sincere_spec.spec.words import PairLoss

LIMITS = {"float64": 1e-12, "float32": 2e-5}
"""How far values and gradients may be from one process, relative to the largest entry."""

WIDTH, QUEUE, CLASSES = 6, 9, 4
WORDS = ("ant", "bee", "cow", "doe")
DIVERGENCES: tuple[Divergence, ...] = ("js", "pearson", "hellinger", "tsallis", "vincze_le_cam")


@dataclass(frozen=True)
class Case:
    """A call of the whole batch: arrays and what names their rows by argument, other options, and which arrays are shared."""

    name: str
    loss: PairLoss
    arrays: Mapping[str, NDArray[np.float64]]
    rows: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    shared: tuple[str, ...] = ()

    def of_rank(self, start: int, stop: int) -> Case:
        """The same call with the rows of a rank."""

        def cut(name: str, x: Any) -> Any:
            if isinstance(x, tuple):
                return tuple(cut(name, part) for part in x)
            beside = name in self.shared or ("keys" in self.shared and name in ("key_labels", "key_ids"))
            return x if beside or x is None else x[start:stop]

        arrays, rows = ({name: cut(name, x) for name, x in given.items()} for given in (self.arrays, self.rows))
        return replace(self, arrays=arrays, rows=rows)


def cases(count: int, short: bool = False) -> Iterator[Case]:
    """Every loss with every reduction, and what else a call can say, for a batch of so many rows."""
    rng = np.random.default_rng(7)

    def rows(number: int = count) -> NDArray[np.float64]:
        return rng.normal(size=(number, WIDTH)) * np.exp(rng.normal(size=(number, 1)))

    labels, others = rng.integers(0, CLASSES, count), rng.integers(0, CLASSES, count)
    of_queue, ids, inside = rng.integers(0, CLASSES, QUEUE), rng.integers(0, 5, count), rng.random(count) < 0.7
    words = [WORDS[label] for label in labels]
    reductions = ("mean",) if short else ("mean", "pairs", "batch", "sum")
    for built_in in TABLE:
        record: Any = built_in.record
        loss = record() if "temperature" not in record.__code__.co_varnames else record(temperature=0.2)
        name, arrangement = built_in.name, loss.arrangement
        made: list[Case] = []
        if isinstance(arrangement, Labelled):
            named = {"labels": labels}
            plain = Case(name, loss, {"embeddings": rows()}, named)
            keys = Case(f"{name}, keys of each rank", loss, {"embeddings": rows(), "keys": rows()}, named)
            shared = Case(f"{name}, shared keys", loss, {"embeddings": rows(), "keys": rows(QUEUE)}, named)
            made = [plain, replace(keys, rows={**named, "key_labels": others})]
            made += [replace(shared, rows={**named, "key_labels": of_queue}, shared=("keys",))]
            made += [replace(plain, name=f"{name}, words as labels", rows={"labels": words})]
            made += [replace(plain, name=f"{name}, ids", rows={**named, "ids": ids})]
            made += [replace(plain, name=f"{name}, where", rows={**named, "where": inside})]
            made += [replace(plain, name=f"{name}, each row a class", rows={"labels": np.arange(count)})]
            made += [replace(plain, name=f"{name}, groups", rows={**named, "groups": others})]
        elif isinstance(arrangement, Views):
            two = Case(name, loss, {"a": rows(), "b": rows()})
            made = [two, Case(f"{name}, three views", loss, {"a": rows(), "b": rows(), "c": rows()})]
            made += [replace(two, name=f"{name}, where", rows={"where": inside})]
            made += [replace(two, name=f"{name}, groups", rows={"groups": others})]
            made += [replace(made[1], name=f"{name}, three views in groups", rows={"groups": others})]
            made += [replace(two, name=f"{name}, one view masked", rows={"where": (inside, None)})]
        elif isinstance(arrangement, Queries):
            pairs = Case(name, loss, {"queries": rows(), "positives": rows()})
            made = [pairs, Case(f"{name}, queue of each rank", loss, {**pairs.arrays, "negatives": rows()})]
            made += [
                Case(f"{name}, shared queue", loss, {**pairs.arrays, "negatives": rows(QUEUE)}, shared=("negatives",))
            ]
            made += [replace(pairs, name=f"{name}, where", rows={"where": inside})]
        elif isinstance(arrangement, (Towers, PairedViews)):
            made = [Case(name, loss, {"a": rows(), "b": rows()})]
            made += [replace(made[0], name=f"{name}, where", rows={"where": inside})]
            made += [replace(made[0], name=f"{name}, words as groups", rows={"groups": words})]
        if isinstance(arrangement, PairedViews):
            made += [Case(f"{name}, queue of each rank", loss, {**made[0].arrays, "negatives": rows()})]
            queue = {**made[0].arrays, "negatives": rows(QUEUE)}
            made += [Case(f"{name}, shared queue", loss, queue, shared=("negatives",))]
        assert made, f"{name}: no case for the arrangement {type(arrangement).__name__}"
        yield from made
        for reduction in reductions[1:]:
            yield replace(made[0], name=f"{made[0].name}, {reduction}", options={"reduction": reduction})
        yield replace(made[0], name=f"{made[0].name}, rows as they are", options={"normalize": False})
    if not short:
        embeddings, named = rows(), {"labels": labels}
        yield Case("sincere, margin", ss.losses.sincere(0.2, epsilon=0.3), {"embeddings": embeddings}, named)
        yield Case("sincere, cold", ss.losses.sincere(0.001), {"embeddings": embeddings}, named)
        yield Case("supcon, inside", ss.losses.supcon(0.2, "in"), {"embeddings": embeddings}, named)
        yield Case("dystress, undetached", ss.losses.dystress(detach=False), {"a": rows(), "b": rows()})
        for divergence in DIVERGENCES:
            yield Case(f"f_micl, {divergence}", ss.losses.f_micl(divergence), {"a": rows(), "b": rows()})


def call(
    case: Case, arrays: Mapping[str, Any], parameters: Mapping[str, Any], function: Any = ss.evaluate, **options: Any
) -> Any:
    """The value of a case with these arrays, or what another function makes of them."""
    named = {name: x for name, x in case.rows.items() if name not in ("labels", "where", "groups")}
    if "groups" in case.rows:
        named["ignore"] = ss.same(case.rows["groups"])
    positional = [x for name, x in arrays.items() if name != "keys"]
    if "labels" in case.rows:
        positional.insert(1, case.rows["labels"])
    if "keys" in arrays:
        named["keys"] = arrays["keys"]
    return function(case.loss, *positional, **named, **parameters, **case.options, **options)


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
    far = {"value": _far(got, want)}
    for name, gradient in gradients.items():
        if name in case.arrays and name not in case.shared:
            own = gradient[start : start + sizes[rank]]
            far[f"d{name}"] = _far(
                found[name] / len(sizes), own, float(gradient.abs().max()) if gradient.numel() else 1.0
            )
        else:
            far[f"d{name}"] = _far(found[name], gradient)
    return far


def _far(got: Any, want: Any, scale: float | None = None) -> float:
    """The largest difference, relative to a scale; infinite where something is not finite."""
    if got.numel() == 0:
        return 0.0
    scale = float(want.abs().max()) if scale is None else scale
    far = float((got - want).abs().max()) / (scale if scale > 1e-6 else 1.0)
    return far if far < float("inf") else float("inf")


@dataclass(frozen=True)
class Verdict:
    """The worst error of a case over ranks and arrays, what has it, and whether all ranks have one value."""

    name: str
    error: float
    where: str
    one_value: bool

    def passes(self, limit: float) -> bool:
        """Whether the case holds."""
        return self.error <= limit and self.one_value


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
            (far, f"{name} of rank {r}") for r, found in enumerate(by_rank) for name, far in found.items()
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
    parser.add_argument("--sizes", default="5,3,0,7", help="the rows of each rank")
    parser.add_argument("--backend", default="gloo", help="of torch.distributed")
    parser.add_argument("--dtype", default="float64", choices=LIMITS)
    parser.add_argument("--engine", default="tiled", choices=("auto", "dense", "tiled", "kernel"))
    parser.add_argument("--short", action="store_true", help="fewer reductions and divergences")
    parser.add_argument("--peers", nargs="*", metavar="PACKAGE", help="other packages' settings instead, as a table")
    asked = parser.parse_args(arguments)
    sizes = [int(size) for size in asked.sizes.split(",")]
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
