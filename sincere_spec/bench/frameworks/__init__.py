"""What the benchmark needs of a framework; one module each, which imports it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from sincere_spec.bench.cases import Program
from sincere_spec.bench.inputs import Inputs
from sincere_spec.bench.settings import Function

Step = Callable[[], Any]  # one forward and backward, finished when it returns


@dataclass(frozen=True)
class Place:
    """Where and in what arrays are."""

    device: str
    dtype: str
    threads: int


class Framework(Protocol):
    """A framework in its process."""

    # Whether the first call compiles or traces: it is then no measurement of the second.
    compiles: bool

    def arrays(self, inputs: Inputs) -> tuple[Any, ...]:
        """The embeddings, then the labels, then what a relation holds, on the device."""

    def plain(self, loss: str) -> Function:
        """The usual formula of the loss, without a thought for memory."""

    def step(self, function: Function, program: Program, arrays: tuple[Any, ...], embeddings: int) -> Step:
        """The value and the gradient of the first `embeddings` arrays, compiled where that can be done beforehand."""

    def ours(self, loss: str, program: Program) -> Function:
        """Our function, to be given to `step`."""

    def products(self, tile: int, dim: int, rows: int) -> Callable[[int], None]:
        """A function that multiplies so many pairs of tiles into one reused buffer."""

    def device_memory(self) -> tuple[int, int] | None:
        """Bytes in use on an accelerator, and the most since `reset_device_memory`; None on a CPU."""

    def reset_device_memory(self) -> None:
        """Forget the most."""

    def memory_limit(self) -> int | None:
        """The bytes that an accelerator has; None on a CPU, and where the framework does not say."""

    def device_name(self) -> str | None:
        """The accelerator; None on a CPU."""


def load(name: str, place: Place) -> Framework:
    """The framework of that name; imports it."""
    made: Framework = import_module(f"sincere_spec.bench.frameworks.with_{name}").make(place)
    return made
