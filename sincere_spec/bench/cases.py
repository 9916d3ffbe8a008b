"""The losses, their inputs, and the programs that are compared on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sincere_spec.bench.inputs import Inputs
from sincere_spec.bench.peers import PEERS
from sincere_spec.bench.relations import relations
from sincere_spec.bench.settings import KERNELS, SEED, Function
from sincere_spec.spec.words import PairLoss


@dataclass(frozen=True)
class Program:
    """One way to compute a loss: an engine of ours, the plain formula, or a peer.

    mode      how the framework runs it: "" as its users do by default, "xla" or "compiled" by its compiler
    tile      rows of a tile, for our tiled engine; None chooses
    relation  what the call says of its pairs, of `relations`; "" for the plain loss
    """

    kind: str
    name: str
    mode: str = ""
    tile: int | None = None
    relation: str = ""

    def __str__(self) -> str:
        tile, mode = f"@{self.tile}" if self.tile else "", f"-{self.mode}" if self.mode else ""
        return self.name + tile + mode + (f"+{self.relation}" if self.relation else "")


def shape(loss: str) -> str:
    """How a size becomes arrays: "labelled" `[n, d]` and labels, "views" two of n/2 rows, "towers" two of n rows."""
    arrangement = record(loss).arrangement
    return "labelled" if arrangement.labelled else "views" if arrangement.signature == "*views" else "towers"


def record(loss: str) -> PairLoss:
    """The loss with its default keywords."""
    from sincere_spec import losses

    made: PairLoss = getattr(losses, loss)()
    return made


def draw(loss: str, size: int, dim: int, classes: int, relation: str = "") -> Inputs:
    """Inputs of which the similarity matrix has size x size entries; the second of a pair is a noisy first."""
    import numpy as np

    random = np.random.default_rng(SEED)
    if shape(loss) == "labelled":
        found = Inputs((random.normal(size=(size, dim)),), random.integers(0, classes, size))
    else:
        rows = size // 2 if shape(loss) == "views" else size
        first = random.normal(size=(rows, dim))
        found = Inputs((first, first + random.normal(size=(rows, dim))), None)
    return relations()[relation].draw(random, found, classes) if relation else found


def ours(loss: str, program: Program, function: Function | None = None) -> Function:
    """Our function: `evaluate`, or another with its arguments where gradients are not automatic."""
    from sincere_spec import evaluate

    made, tile = record(loss), program.tile
    engine: Any = program.name
    called = function or evaluate

    def value(*arrays: Any) -> Any:
        more: dict[str, Any] = {}
        if program.relation:
            arrays, more = relations()[program.relation].arguments(*arrays)
        return called(made, *arrays, engine=engine, tile=tile, **more)

    return value


def modes(framework: str) -> tuple[str, ...]:
    """The modes of a `Program` in which a framework is measured."""
    return ("", "xla") if framework == "tensorflow" else ("",)


def programs(framework: str, loss: str, engines: tuple[str, ...], device: str, peers: bool) -> list[Program]:
    """What is compared: our engines, the plain formula, peers, each in every mode of the framework."""
    engines = tuple(engine for engine in engines if engine != "kernel" or framework in KERNELS)
    found = [Program("ours", engine, mode) for mode in modes(framework) for engine in engines]
    found += [Program("plain", "plain", mode) for mode in modes(framework)]
    if framework == "torch" and device == "cuda":
        found.append(Program("plain", "plain", "compiled"))
    if peers:
        found += [Program("peer", peer.name) for peer in PEERS if (peer.framework, peer.loss) == (framework, loss)]
    return found
