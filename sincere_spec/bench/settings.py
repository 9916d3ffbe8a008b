"""What a run measures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sincere_spec import losses

Function = Callable[..., Any]  # of the embeddings, then the labels if the loss has any; returns the loss

FRAMEWORKS = ("numpy", "torch", "jax", "tensorflow")
LOSSES = tuple(loss.name for loss in losses.table.TABLE)
ENGINES = ("dense", "tiled", "kernel", "auto")
# On a CPU kernels run in interpreters, whose time says nothing.
HOST_ENGINES = ("dense", "tiled", "auto")
KERNELS = ("torch", "jax")
DTYPES = ("float32", "float64", "bfloat16", "float16")
DEVICES = ("cpu", "cuda")

DEFAULT_LOSSES = ("sincere", "supcon", "nt_xent", "clip")
DEFAULT_SIZES = (128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)
QUICK_LOSSES = ("sincere", "clip")
QUICK_SIZES = (128, 512, 1024)

# Below this, a process's own noise is larger than what a call needs.
SMALLEST_MEMORY_SIZE = 4096
QUICK_MEMORY_SIZE = 1024
# Above this a matrix is tried once, for its memory, and not timed: hours would say what this size says.
LARGEST_MATRIX_SIZE = 8192
# Above it, of what is measured by default these stand for the others: one triangle, and two towers.
LARGE_LOSSES = ("sincere", "clip")
# From here on one call is enough.
SINGLE_SIZE = 65536
# Up to here auto is timed; above, it is the engine that it names, which is timed under its own name.
LARGEST_AUTO_SIZE = 4096
OVERHEAD_SIZE = 8
# What relations cost is a ratio of a few hundredths: more runs, and a size for matrices and one for tiles.
RELATION_SIZES = (1024, 4096)
RELATION_RUNS = 9
# Where N x N numbers are 576 MB, the classes of rows must not be multiplied at once.
RELATION_MEMORY_SIZE = 12000
SEED = 20240817


@dataclass(frozen=True)
class Settings:
    """A run. `seconds` limits one call of a program that is not ours, and `bytes` the memory of any program.

    `large` are the losses that are measured above LARGEST_MATRIX_SIZE. With `relations` a run is of what these cost.
    """

    frameworks: tuple[str, ...] = FRAMEWORKS
    losses: tuple[str, ...] = DEFAULT_LOSSES
    large: tuple[str, ...] = LARGE_LOSSES
    sizes: tuple[int, ...] = DEFAULT_SIZES
    engines: tuple[str, ...] = HOST_ENGINES
    dim: int = 128
    classes: int = 100
    dtype: str = "float32"
    device: str = "cpu"
    threads: int = 1
    runs: int = 5
    peers: bool = True
    memory: bool = True
    memory_sizes: tuple[int, ...] = tuple(size for size in DEFAULT_SIZES if size >= SMALLEST_MEMORY_SIZE)
    seconds: float = 60.0
    own_seconds: float = 900.0
    relations: bool = False
    bytes: int = 8 * 10**9


def available_memory() -> int | None:
    """Bytes that can be had without swapping; None where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None
