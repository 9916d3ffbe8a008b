"""What a rank's part of a loss costs, by the number of ranks: `python -m sincere_spec.bench.ranks`, which writes JSON.

One process does what the first of W ranks does, for a batch of fixed size: what the others would send is there already, and is
counted as it is asked for. So work and memory are measured for numbers of ranks that no machine here has, and the network is
not: bytes are counted, and no time of theirs is known.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import sincere_spec as ss
from sincere_spec.backends import by_root
from sincere_spec.bench.resident import Peak
from sincere_spec.bench.results import commit, machine
from sincere_spec.engines import ranks, tiled
from sincere_spec.engines.comparison import Comparison, Samples
from sincere_spec.spec.relations import OtherLabel, Relation, SameLabel

CLASSES = 1000


class First:
    """The collectives of the first rank, whose partners have the rest of some arrays; bytes of theirs are counted."""

    rank, on_host = 0, True

    def __init__(self, size: int, wholes: Iterable[Any]) -> None:
        self.size, self.wholes, self.received = size, list(wholes), 0

    def gather(self, x: Any, sizes: Sequence[int]) -> Any:
        """The whole of which this rank's rows are the beginning, or as much of anything."""
        import torch

        self.received += x.nbytes * (self.size - 1)
        for whole in self.wholes:
            if whole.dtype == x.dtype and whole.shape[1:] == x.shape[1:] and torch.equal(whole[: x.shape[0]], x):
                return whole.clone()
        return x.repeat(self.size, *(1 for _ in x.shape[1:]))

    def scatter(self, x: Any, own: Any, sizes: Sequence[int]) -> Any:
        """What this rank has for its own rows."""
        self.received += x.nbytes
        return x[: len(own)].clone()

    def total(self, x: Any) -> Any:
        """What this rank has: no number here is looked at."""
        self.received += x.nbytes * 2
        return x.clone()


def measure(loss: str, rows: int, width: int, size: int, tile: int, times: int) -> dict[str, Any]:
    """Work, bytes and memory of the first of so many ranks."""
    import torch

    own, generator = rows // size, torch.Generator().manual_seed(0)
    unit = torch.nn.functional.normalize
    a, b = (unit(torch.randn(rows, width, generator=generator)) for _ in range(2))
    labels, places = torch.randint(0, CLASSES, (rows,), generator=generator), torch.arange(rows)
    common: dict[str, Any] = {"unit_rows": True, "ascending": False, "alike": None, "samples": Samples.DISTINCT}
    backend = by_root("torch")
    given: dict[str, Any]
    relation: Relation
    if loss == "sincere":
        record, needed = ss.losses.sincere(0.1), {"anchors"}
        named = {"label": labels[:own], "sample": places[:own]}
        given = {"keys": None, "partners": None, "rows": named, "columns": named, "both_ways": False}
        wholes, relation = [a, torch.stack([labels, places], dim=1)], SameLabel()
    else:
        record, needed = ss.losses.clip(0.1), {"anchors", "keys"}
        named = {"label": places[:own]}
        given = {"keys": b[:own], "partners": b[:own], "rows": named, "columns": named, "both_ways": True}
        wholes, relation = [a, b, places[:, None]], OtherLabel()
    comparison = Comparison(backend, record, 0.1, 0.0, a[:own], relation=relation, **given, **common)

    def call() -> int:
        collectives = First(size, wholes)
        shard = ranks.Shard(comparison, collectives, [own] * size, [own] * size, False)
        ranks.value_and_gradient(shard, "mean", partial(tiled.lay_out, tile=tile), torch.zeros(()), frozenset(needed))
        return collectives.received

    call()  # what a first call loads is not counted
    peak = Peak()
    received, memory = call(), peak.bytes()
    product = _least(lambda: a[:own] @ b.T, times)
    return {
        "loss": loss,
        "N": rows,
        "d": width,
        "W": size,
        "tile": tile,
        "units": round(_least(call, times) / product, 3),
        "unit_seconds": product,
        "received_bytes": received,
        "peak_bytes": memory,
    }


def _least(function: Callable[[], Any], times: int) -> float:
    """The least processor time of several calls."""
    found = []
    for _ in range(times):
        start = time.process_time()
        function()
        found.append(time.process_time() - start)
    return min(found)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status of the command."""
    parser = argparse.ArgumentParser(prog="python -m sincere_spec.bench.ranks", description=__doc__)
    parser.add_argument("--rows", type=int, default=8192, help="of the whole batch, N")
    parser.add_argument("--width", type=int, default=256, help="of a row, d")
    parser.add_argument("--ranks", default="1,2,4,8,16,64,256")
    parser.add_argument("--tiles", default="528,1024")
    parser.add_argument("--times", type=int, default=3)
    asked = parser.parse_args(arguments)
    sizes, tiles = ([int(x) for x in text.split(",")] for text in (asked.ranks, asked.tiles))
    import torch  # once: the processes are forks

    torch.set_num_threads(1)
    fork, found = multiprocessing.get_context("fork"), []
    for loss in ("sincere", "clip"):
        for size in sizes:
            for tile in tiles:
                with fork.Pool(1) as pool:  # a process for each: its peak is its own
                    found.append(pool.apply(measure, (loss, asked.rows, asked.width, size, tile, asked.times)))
    sys.stdout.write(json.dumps({"machine": machine("cpu"), "commit": commit(), "results": found}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
