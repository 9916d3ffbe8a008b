"""Which engine runs a call: the one that was asked for, or the one that is faster at this size."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from sincere_spec.errors import EngineUnavailable, OptionError, unknown_choice
from sincere_spec.protocol import Logit
from sincere_spec.sweeps import Kernels
from sincere_spec.types import Array, Backend

ENGINES = ("auto", "dense", "tiled", "kernel")


@dataclass(frozen=True)
class Plan:
    """The backend and engine of a call, the rows of a tile if there are tiles, and the reason."""

    backend: str
    engine: str
    tile: int | None
    reason: str

    def __str__(self) -> str:
        tiles = f" with tiles of {self.tile} rows" if self.tile else ""
        return f"{self.backend}, {self.engine} engine{tiles}: {self.reason}"


@cache
def crossovers() -> dict[str, Any]:
    """From how many pairs on tiles are faster, and the best rows of a tile: measured, by backend and kind of device.

    `unmeasured` is for all others: it says from where on a matrix is too large to hold several of.
    """
    import json  # only here: every program imports this module
    from importlib.resources import files

    table: dict[str, Any] = json.loads((files(__package__) / "crossovers.json").read_text(encoding="utf-8"))
    return table


def choose(backend: Backend, like: Array, sizes: tuple[Any, Any], logit: Logit, engine: str, tile: int | None) -> Plan:
    """The plan of a call beside an array, with so many rows and columns; raises if the engine asked for cannot serve it."""
    if engine not in ENGINES:
        raise unknown_choice("engine", engine, ENGINES)
    if tile is not None and (not isinstance(tile, int) or isinstance(tile, bool) or tile < 1):
        raise OptionError(f"tile must be a positive integer or None; got {tile!r}.")
    if engine == "dense":
        return Plan(backend.name, "dense", None, "asked for by name")
    obstacle = backend.tiles_obstacle(like)
    if obstacle is not None and engine in ("tiled", "kernel"):
        raise EngineUnavailable(
            f'engine="{engine}" was asked for, but {obstacle}; engine="dense" computes the same, and engine="auto" chooses it.'
        )
    if obstacle is not None:
        return Plan(backend.name, "dense", None, obstacle)
    platform = backend.platform(like)
    table = crossovers()
    measured = table.get(backend.name, table["array_api"]).get(platform)
    known = measured or table["unmeasured"]
    if engine == "kernel":
        kernels = backend.kernels(like, logit)
        if isinstance(kernels, str):
            raise EngineUnavailable(
                f'engine="kernel" was asked for, but {kernels}; engine="tiled" computes the same, '
                'and engine="auto" chooses an engine that can.'
            )
        return _kernel_plan(kernels, backend, tile, "asked for by name")
    if engine == "tiled":
        return Plan(backend.name, "tiled", tile or known["tile"], "asked for by name")
    rows, columns = sizes
    if not (isinstance(rows, int) and isinstance(columns, int)):
        return Plan(backend.name, "dense", None, "the number of rows is not known before the call")
    here = f"{rows} x {columns} pairs on {platform}"
    gain = "are faster" if measured else "save memory"
    kernels = _measured_kernels(backend, like, logit, platform, known.get("kernel"), rows * columns)
    if not isinstance(kernels, str):
        return _kernel_plan(kernels, backend, tile, f"{here}; kernels are faster")
    if rows * columns < known["pairs"]:
        return Plan(backend.name, "dense", None, f"{here}; tiles {gain} from {known['pairs']} on; {kernels}")
    return Plan(backend.name, "tiled", tile or known["tile"], f"{here}; tiles {gain}; {kernels}")


def _measured_kernels(
    backend: Backend, like: Array, logit: Logit, platform: str, pairs: int | None, count: int
) -> Kernels | str:
    """The kernels, where they were measured to be faster; or why they are not taken."""
    if pairs is None:
        return f"no kernel was measured on {platform}"
    if count < pairs:
        return f"kernels are from {pairs} on"
    return backend.kernels(like, logit)


def _kernel_plan(kernels: Kernels, backend: Backend, tile: int | None, reason: str) -> Plan:
    rows = kernels.tile if tile is None else tile
    if rows < 16 or rows & (rows - 1):
        raise OptionError(f"tile must be a power of two from 16 on for a kernel; got {rows}.")
    return Plan(backend.name, "kernel", rows, reason)
