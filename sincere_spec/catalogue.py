"""The catalogue of the losses: what each rewards, its formula, and the stages that compute it."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from sincere_spec import functions, losses
from sincere_spec.spec.words import PairLoss


@dataclass(frozen=True)
class Entry:
    """One loss, as its function's docstring and its record tell it."""

    name: str
    signature: str
    summary: str
    source: str
    formula: tuple[str, ...]
    stages: tuple[str, ...]
    loss: str
    record: PairLoss

    def to_dict(self) -> dict[str, Any]:
        """The entry as plain strings and lists, ready for JSON."""
        words = {name: getattr(self, name) for name in ("name", "signature", "summary", "source", "loss")}
        return words | {
            "formula": list(self.formula),
            "stages": list(self.stages),
            "record": self.record.to_dict(),
        }


def entries() -> tuple[Entry, ...]:
    """Every loss, with its defaults."""
    return tuple(_entry(loss) for loss in losses.TABLE)


def _entry(loss: losses.BuiltIn) -> Entry:
    function, record = getattr(functions, loss.function), loss.record()
    summary, *paragraphs = (inspect.getdoc(function) or "").partition("\nArgs:")[0].strip().split("\n\n")
    source = next((p for p in paragraphs if not p.startswith(" ")), "")
    formula = [line.strip() for p in paragraphs if p.startswith(" ") for line in p.splitlines()]
    own = ", ".join(_parameter(p) for p in inspect.signature(loss.record).parameters.values())
    return Entry(
        name=loss.function,
        signature=f"{loss.function}({record.arrangement.signature}{', ' if own else ''}{own})",
        summary=" ".join(summary.split()),
        source=" ".join(source.split()).rstrip(":"),
        formula=tuple(formula),
        stages=tuple(str(stage) for stage in record.stages),
        loss=" ".join(str(term) for term in record.terms).removeprefix("+ "),
        record=record,
    )


def _parameter(parameter: inspect.Parameter) -> str:
    return f"{parameter.name}={parameter.default!r}"
