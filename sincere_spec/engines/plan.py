"""Which engine runs a call: the one that was asked for, or the one that is faster at this size."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from sincere_spec.errors import EngineUnavailable, OptionError, unknown_choice
from sincere_spec.types import Backend

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
    """The measured table: from how many pairs on tiles are faster, and the best rows of a tile, by backend and device."""
    import json  # only here: every program imports this module
    from importlib.resources import files

    table: dict[str, Any] = json.loads((files(__package__) / "crossovers.json").read_text(encoding="utf-8"))
    return table


def choose(backend: Backend, sizes: tuple[Any, Any], engine: str, tile: int | None) -> Plan:
    """The plan of a call with so many rows and columns; raises if the engine asked for by name cannot serve it."""
    if engine not in ENGINES:
        raise unknown_choice("engine", engine, ENGINES)
    if tile is not None and (not isinstance(tile, int) or isinstance(tile, bool) or tile < 1):
        raise OptionError(f"tile must be a positive integer or None; got {tile!r}.")
    if engine == "kernel":
        raise EngineUnavailable(
            f'engine="kernel" was asked for, but {backend.name} has no kernels; engine="tiled" computes the same.'
        )
    if engine == "dense":
        return Plan(backend.name, "dense", None, "asked for by name")
    obstacle = backend.tiles_obstacle()
    if engine == "tiled":
        if obstacle is not None:
            raise EngineUnavailable(
                f'engine="tiled" was asked for, but {obstacle}; engine="dense" computes the same, and engine="auto" '
                f"chooses it."
            )
        return Plan(backend.name, "tiled", tile or _tile(backend), "asked for by name")
    if obstacle is not None:
        return Plan(backend.name, "dense", None, obstacle)
    least = _measured(backend)["pairs"]
    if least is None:
        return Plan(backend.name, "dense", None, "no crossover has been measured here; ask for tiles by name")
    rows, columns = sizes
    if rows is None or columns is None:
        return Plan(backend.name, "dense", None, "the number of rows is not known before the call")
    if rows * columns < least:
        return Plan(backend.name, "dense", None, f"{rows} x {columns} pairs; tiles are faster from {least} on")
    return Plan(backend.name, "tiled", tile or _tile(backend), f"{rows} x {columns} pairs; tiles are faster")


def _measured(backend: Backend) -> dict[str, int | None]:
    table: dict[str, int | None] = crossovers().get(backend.name, crossovers()["array_api"])
    return table


def _tile(backend: Backend) -> int:
    return int(_measured(backend)["tile"] or 512)
