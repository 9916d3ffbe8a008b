"""What the transforms of each framework do with a loss: a table, and the checks that prove every cell of it.

`table.json` is the table. Each of its rows is a transform of a framework, and says what becomes of a loss under it: with
`engine="auto"`, and with `engine="tiled"`. A module for each framework has a function for each row, which really runs the
transform; `checks.py` asks it of three losses of different kinds, and holds what comes to the suite's own answers.
`python -m sincere_spec.conformance.transforms` writes the table into docs/transforms.md.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["BEGIN", "END", "TRANSFORMS", "Transform", "rendered", "rewritten", "table", "transforms_of"]

TRANSFORMS = "transforms"  # the profile of these checks
TABLE = Path(__file__).with_name("table.json")
BEGIN, END = "<!-- transforms:begin -->", "<!-- transforms:end -->"
TITLES = {"torch": "PyTorch", "jax": "JAX", "tensorflow": "TensorFlow", "keras": "Keras, on each of its backends"}


@dataclass(frozen=True)
class Transform:
    """A row of the table: a transform, and what becomes of a loss under it.

    Attributes:
        framework: Whose transform it is; that of Keras is run on each backend.
        id: The name of its check, in the module of the framework.
        title: The transform, as its users write it.
        dtype: Of the embeddings of the check.
        auto: For `engine="auto"`: "passes", "dense" if it does so because that engine is taken at every size, or the words of
            the refusal.
        tiled: For `engine="tiled"`: "passes", or the words of the refusal; empty if it is not asked.
        says: What there is to know.
    """

    framework: str
    id: str
    title: str
    auto: str
    tiled: str
    says: str = ""
    dtype: str = "float64"


@cache
def table() -> tuple[Transform, ...]:
    """The table, in its order."""
    return tuple(Transform(**row) for row in json.loads(TABLE.read_text(encoding="utf-8")))


def transforms_of(framework: str) -> dict[str, Transform]:
    """What is run in the process of a framework, by id: its own transforms, and those of Keras where it is a backend."""
    own = {row.id: row for row in table() if row.framework == framework}
    return own | {row.id: row for row in table() if own and row.framework == "keras"}


def rendered(rows: Sequence[Transform]) -> str:
    """The table as Markdown, a part for each framework."""
    parts = []
    for framework, title in TITLES.items():
        lines = [[title, '`engine="auto"`', '`engine="tiled"`', ""], ["---"] * 4]
        lines += [
            [row.title, _word(row.auto), _word(row.tiled), row.says] for row in rows if row.framework == framework
        ]
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join(parts)


def _word(outcome: str) -> str:
    words = {"passes": "passes", "dense": "passes, dense", "": ""}
    return words.get(outcome, f"refused: “{outcome}”")


def rewritten(page: str) -> str:
    """The page with the table between its markers."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"expected the markers {BEGIN} and {END}: put them where the table belongs.")
    return f"{before}{begin}\n{rendered(table())}\n{end}{after}"
