"""Which engine runs a call: the one that was asked for, or the one that is faster at this size."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from numbers import Integral
from typing import Any, cast

from sincere_spec.arrays import Array
from sincere_spec.engines import kernel
from sincere_spec.errors import EngineUnavailable, OptionError, unknown_choice
from sincere_spec.interface import Backend, DeferringBackend, TracingBackend
from sincere_spec.spec.checks import shown
from sincere_spec.spec.relations import Relation
from sincere_spec.spec.words import PairLoss

ENGINES = ("auto", "dense", "tiled", "kernel")


@dataclass(frozen=True)
class Plan:
    """The backend and engine of a call, the rows of a tile if there are tiles, and the reason; over which ranks, if several.

    A plan `when_run` has what was asked for: the adapter is called back when the program runs, and the engine chosen from the
    sizes that are there then. Where "auto" is the engine of another plan, the program has both, and takes one by its sizes.
    """

    backend: str
    engine: str
    tile: int | None
    reason: str
    ranks: str = ""
    when_run: bool = False

    @property
    def is_dense(self) -> bool:
        """Whether whole matrices are made."""
        return self.engine == "dense"

    @property
    def rows_of_tile(self) -> int:
        """The rows of a tile, of an engine that has tiles."""
        assert self.tile is not None, self
        return self.tile

    def __str__(self) -> str:
        tiles = f" with tiles of {self.tile} rows" if self.tile else ""
        over = f" on {self.ranks}" if self.ranks else ""
        if self.engine == "auto":
            return f"{self.backend}, engine chosen when it runs{over}: {self.reason}"
        return f"{self.backend}, {self.engine} engine{tiles}{over}: {self.reason}"


@cache
def crossovers() -> dict[str, Any]:
    """From how many pairs on tiles are faster, and the best rows of a tile: measured, by backend and kind of device.

    On a device they depend on the dtype and D, and rows say from how many pairs on kernels are faster; null is never.
    `unmeasured` is for all others: it says from where on a matrix is too large to hold several of.
    """
    import json  # only here: every program imports this module
    from importlib.resources import files

    table: dict[str, Any] = json.loads((files(__package__) / "crossovers.json").read_text(encoding="utf-8"))
    return table


def choose(
    backend: Backend,
    like: Array,
    sizes: tuple[Any, Any],
    loss: PairLoss,
    relation: Relation,
    shared: bool,
    engine: str,
    tile: int | None,
    undivided: str | None = None,
) -> Plan:
    """The plan of a call beside an array, with so many rows and columns; raises if the engine asked for cannot serve it.

    `shared` says that all rows have the same columns, and `undivided` why devices that share the arrays cannot share the tiles.
    """
    if engine not in ENGINES:
        raise unknown_choice("engine", engine, ENGINES)
    if tile is not None:
        if not isinstance(tile, Integral) or isinstance(tile, bool) or tile < 1:
            raise OptionError(f"tile must be a positive integer or None; got {shown(tile)}.")
        tile = int(tile)  # NumPy's, too
    if engine == "dense":
        return Plan(backend.name, "dense", None, "asked for by name")
    obstacle = backend.tiles_obstacle(like)
    if obstacle is not None and engine in ("tiled", "kernel"):
        raise EngineUnavailable(
            f'engine="{engine}" was asked for, but {obstacle}; engine="dense" computes the same, and engine="auto" chooses it.'
        )
    if obstacle is not None:
        return Plan(backend.name, "dense", None, obstacle)
    later = backend.when_run(like)
    if later is not None:
        if engine == "auto" and cast(DeferringBackend, backend).fuses(sizes):
            return Plan(backend.name, "dense", None, "so few pairs are left to the transform or the compiler")
        return Plan(backend.name, engine, tile, later, when_run=True)
    platform, measured = backend.platform(like), _measured(backend, like)
    known = measured or crossovers()["unmeasured"]
    copies = cast(TracingBackend, backend).copies(like) if backend.traces else 1
    over = "" if copies == 1 else f"; each of {copies} devices sweeps its own rows"
    if copies > 1 and undivided is not None:
        over = f"; {copies} devices compute all tiles each: {undivided}"
    if engine == "tiled":
        return Plan(backend.name, "tiled", tile or known["tile"], f"asked for by name{over}")
    unknown_to_kernels = kernel.obstacle(loss, relation) if shared else "kernels have no keys of each row's own"
    rows, columns = sizes
    unknown = None
    if not (isinstance(rows, int) and isinstance(columns, int)):
        unknown = "the number of rows is not known before the call"
    if engine == "kernel":
        kernels = unknown or unknown_to_kernels or backend.kernels(like, loss.logit)
        if isinstance(kernels, str):
            raise EngineUnavailable(
                f'engine="kernel" was asked for, but {kernels}; engine="tiled" computes the same, '
                'and engine="auto" chooses an engine that can.'
            )
        if tile is not None and not _power_of_two(tile):
            raise OptionError(f"tile must be a power of two from 16 on for a kernel; got {tile}.")
        return Plan(backend.name, "kernel", tile or kernels.tile, f"asked for by name{over}")
    if unknown is not None and None not in sizes:  # a symbol of a program that is exported: any number of rows may come
        return Plan(backend.name, "tiled", tile or known["tile"], f"{unknown}, so no matrix of pairs is made")
    if unknown is not None:
        few = f"matrices below {known['pairs']} pairs, and tiles of {tile or known['tile']} rows from there on"
        return Plan(backend.name, "auto", tile or known["tile"], f"{unknown}; {few}")
    here = f"{rows} x {columns} pairs on {platform}"
    gain = "are faster" if measured else "save memory"
    kernels = f"no kernel was measured on {platform}"
    if "kernel" in known and known["kernel"] is None:
        kernels = f"kernels run on {platform} where they are asked for"
    elif "kernel" in known:
        kernels = f"kernels are from {known['kernel']} on, with tiles of a power of two"
        if rows * columns >= known["kernel"] and (tile is None or _power_of_two(tile)):
            kernels = unknown_to_kernels or backend.kernels(like, loss.logit)
    if copies > 1 and undivided is not None:  # of whole matrices each device makes its part
        most = crossovers()["unmeasured"]["pairs"] * copies
        if rows * columns < most:
            reason = (
                f"{here}; {copies} devices divide whole matrices of fewer than {most} pairs, and not tiles: {undivided}"
            )
            return Plan(backend.name, "dense", None, reason)
        return Plan(backend.name, "tiled", tile or known["tile"], f"{here}{over}")
    if not isinstance(kernels, str):
        return Plan(backend.name, "kernel", tile or kernels.tile, f"{here}; kernels are faster{over}")
    if rows * columns < known["pairs"]:
        return Plan(backend.name, "dense", None, f"{here}; tiles {gain} from {known['pairs']} on; {kernels}")
    return Plan(backend.name, "tiled", tile or known["tile"], f"{here}; tiles {gain}; {kernels}{over}")


def most_pairs(backend: Backend, like: Array) -> int:
    """How many pairs beside an array are the most that whole matrices are made for."""
    pairs: int = (_measured(backend, like) or crossovers()["unmeasured"])["pairs"]
    return pairs - 1


def _measured(backend: Backend, like: Array) -> dict[str, Any] | None:
    """The row of an array's platform; of one by dtype and D that of as many bytes, and of the next larger D measured."""
    table, dtype = crossovers(), backend.dtype_name(like)
    known: dict[str, Any] | None = table.get(backend.name, table["array_api"]).get(backend.platform(like))
    if known is None or "pairs" in known:
        return known
    by_width = known.get("bfloat16" if dtype == "float16" else dtype)
    if by_width is None:
        return None
    widths = sorted(map(int, by_width))
    row: dict[str, Any] = by_width[str(next((d for d in widths if d >= (like.shape[-1] or 0)), widths[-1]))]
    return row


def _power_of_two(tile: int) -> bool:
    """Whether device code can have such tiles."""
    return tile >= 16 and not tile & (tile - 1)
