"""From how many pairs on tiles are faster than the matrix, in each framework, as its users run it."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from math import fsum, isqrt, log
from statistics import median

from sincere_spec.bench.cases import Program, modes
from sincere_spec.bench.measure import Found, Job, Pool, Tell, within_memory
from sincere_spec.bench.results import Time
from sincere_spec.bench.settings import Settings
from sincere_spec.call.plan import crossovers

SIZES = (128, 180, 256, 362, 512, 724, 1024, 1448, 2048, 2896)
TILES = (128, 256, 512, 528, 1024)  # rows that lie a power of two apart contend for cache lines
TILE_SIZE = 4096
QUICK_SIZES = (128, 256, 512)
QUICK_TILE_SIZE = 1024
# The names in the table of crossovers: NumPy is served by the adapter of all Array API libraries.
BACKENDS = {"numpy": "array_api"}


@dataclass(frozen=True)
class Crossover:
    """The answer of one framework; `by_loss` has that of each loss in each mode, or None if its tiles were never faster.

    `pairs` is one number for all of them, since a plan cannot see the mode.
    """

    backend: str
    tile: int
    pairs: int
    by_loss: dict[str, int | None]
    times: tuple[Time, ...]


def count(settings: Settings, quick: bool) -> int:
    """How many jobs it is."""
    sizes = len(QUICK_SIZES if quick else SIZES)
    return len(settings.frameworks) * len(settings.losses) * (1 + sizes)


def crossover(framework: str, settings: Settings, quick: bool, tell: Tell) -> Crossover | str:
    """Measure a framework: first the best rows of a tile, then dense and those tiles in turn; or why that cannot be."""
    settings = replace(within_memory(settings), peers=False, memory=False)
    found = Found(framework, settings)
    tiles = tuple(Program("ours", "tiled", tile=tile) for tile in TILES)
    with closing(Pool(framework, settings)) as pool:
        for loss in settings.losses:
            found.time(Job("time", loss, QUICK_TILE_SIZE if quick else TILE_SIZE, tiles), pool)
            tell(f"{framework}: {loss} tiles")
        tile = best_tile(found.times)
        if tile is None:
            return next((row.reason for row in found.times if row.status != "ok"), "nothing was measured")
        compared = {
            mode: (Program("ours", "dense", mode), Program("ours", "tiled", mode, tile)) for mode in modes(framework)
        }
        programs = tuple(program for pair in compared.values() for program in pair)
        for loss in settings.losses:
            for size in QUICK_SIZES if quick else SIZES:
                found.time(Job("time", loss, size, programs), pool)
                tell(f"{framework}: {loss} N={size}")
    by_loss = {
        f"{loss} {mode}".strip(): first_win([row for row in found.times if row.loss == loss], *map(str, pair))
        for loss in settings.losses
        for mode, pair in compared.items()
    }
    pairs = least_loss(found.times, [(str(dense), str(tiled)) for dense, tiled in compared.values()])
    return Crossover(BACKENDS.get(framework, framework), tile, pairs, by_loss, tuple(found.times))


def best_tile(times: list[Time]) -> int | None:
    """The rows of a tile with the smallest product of times over the losses; None if no loss was measured."""
    sums: dict[int, list[float]] = {}
    for row in times:
        if row.status == "ok":
            sums.setdefault(int(row.program.partition("@")[2]), []).append(log(row.median))
    if not sums:
        return None
    most = max(len(logs) for logs in sums.values())
    complete = {tile: fsum(logs) for tile, logs in sums.items() if len(logs) == most}
    return min(complete, key=lambda tile: complete[tile])


def least_loss(times: list[Time], compared: list[tuple[str, str]]) -> int:
    """N² from which on to take tiles, so that over all losses and modes the least is lost by taking the slower of two."""
    # By size, for each loss and mode: the logarithms of what dense loses, and of what tiles lose.
    lost: dict[int, list[tuple[float, float]]] = {}
    found = {(row.loss, row.size, row.program): log(row.median) for row in times if row.status == "ok"}
    for loss, size, program in found:
        for dense, tiled in compared:
            if program == dense and (loss, size, tiled) in found:
                gain = found[loss, size, dense] - found[loss, size, tiled]
                lost.setdefault(size, []).append((max(gain, 0.0), max(-gain, 0.0)))
    most = isqrt(crossovers()["unmeasured"]["pairs"])  # from where on a matrix is too large: there tiles save memory
    sizes = [*sorted(lost), most]

    def total(first: int) -> float:
        return fsum(both[size >= first] for size in lost for both in lost[size])

    first = min(sizes, key=total)
    return first**2 if first in (sizes[0], most) else first * sizes[sizes.index(first) - 1]


def first_win(times: list[Time], dense: str, tiled: str) -> int | None:
    """N² from which on `tiled` was faster at every size: between the last size that it lost and the next."""
    by_size: dict[int, dict[str, float]] = {}
    for row in times:
        if row.program in (dense, tiled) and row.status == "ok":
            by_size.setdefault(row.size, {})[row.program] = median(row.seconds)
    sizes = sorted(size for size, found in by_size.items() if len(found) == 2)
    lost = [size for size in sizes if by_size[size][tiled] > by_size[size][dense]]
    if not sizes or (lost and lost[-1] == sizes[-1]):
        return None
    if not lost:
        return sizes[0] ** 2
    return lost[-1] * sizes[sizes.index(lost[-1]) + 1]
