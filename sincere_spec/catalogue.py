"""The catalogue of the losses: what each rewards, its formula, and the stages that compute it."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sincere_spec import functions, losses
from sincere_spec.errors import unknown_choice
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


def entries(names: Iterable[str] = ()) -> tuple[Entry, ...]:
    """Every loss, or those of some names, with its defaults; raises OptionError for an unknown name."""
    wanted = [name.removesuffix("_loss") for name in names]
    table = {loss.name: loss for loss in losses.table.TABLE}
    for name in wanted:
        if name not in table:
            raise unknown_choice("loss", name, table)
    return tuple(_entry(table[name]) for name in wanted or losses.__all__)


def shown(found: Iterable[Entry]) -> str:
    """Losses as text."""
    parts = []
    for entry in found:
        lines = [entry.signature, f"{entry.summary} {entry.source}.", *(f"    {line}" for line in entry.formula)]
        parts.append("\n".join([*lines, f"  {'; '.join((*entry.stages, f'loss = {entry.loss}'))}"]))
    return "\n\n".join(parts) + "\n"


def as_json(found: Iterable[Entry]) -> str:
    """Losses as JSON."""
    return json.dumps([entry.to_dict() for entry in found], indent=1, ensure_ascii=False) + "\n"


def _entry(loss: losses.table.BuiltIn) -> Entry:
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
        stages=tuple(str(stage) for stage in (*record.stages, *record.combined)),
        loss=" ".join(str(term) for term in record.terms).removeprefix("+ "),
        record=record,
    )


def _parameter(parameter: inspect.Parameter) -> str:
    return f"{parameter.name}={parameter.default!r}"
