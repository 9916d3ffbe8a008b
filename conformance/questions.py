"""What is asked: the suite's cases, NaN, and real data, as NumPy arrays with the answers that are right."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import sqrt
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sincere_spec import losses
from sincere_spec.conformance.cases import DTYPES, SUITE, Argument, Case, Expected, Numbers, held, load

__all__ = [
    "DIGITS",
    "INTEGRITY",
    "LARGE",
    "LEVELS",
    "LOSSES",
    "ORDINARY",
    "Array",
    "Question",
    "Wanted",
    "integrity",
    "of_suite",
    "ordinary",
    "read",
    "write",
]

Array = NDArray[np.float64]

LOSSES = tuple(loss.name for loss in losses.table.TABLE)
ORDINARY = ("core", "two-tower", "queue")  # profiles with nothing unusual about them; together they have every loss
RELATIONS = "relations"  # the profile of batches that say by more than labels, ids and places who is compared with whom
LEVELS = {
    "core": (*ORDINARY, "reduction", RELATIONS),
    "robust": ("degenerate", "late-training", "learnable-temperature"),
    "extreme": ("precision",),
}
"""The profiles of each level. Core is judged by norm, the others entry by entry."""
INTEGRITY, DIGITS = "integrity", "digits"  # profiles that stand in no file of the suite
LARGE = "large"  # the profile of recipes and properties
PARAMETERS = ("temperature", "bias")
OF_RELATIONS = ("overlap", "margin")  # options that are no keywords of a loss, but of what relates its rows
RELATED = (
    *("where", "key_where", "ignore", "groups", "key_groups"),
    *("positive_pairs", "positive_weights", "classes", "key_classes", "own_negatives"),
    *OF_RELATIONS,
)
"""What says, beside labels, ids, places and guides, who is compared with whom."""

# One ordinary case of each kind of stage is also asked under the frameworks' compilers.
COMPILED = ("sincere", "supcon out", "nt_xent", "dystress", "siglip", "f_micl kl")


PADDED = ("sincere/where", "clip/where")  # asked again with NaN where rows take no part


@dataclass(frozen=True, eq=False)
class Wanted:
    """What is right, and the scale that an error in it is measured by."""

    numbers: Array
    scale: Array


@dataclass(frozen=True, eq=False)
class Question:
    """One evaluation of one loss, with its value and its gradient under the cotangent.

    `gradient` is None where only the value is asked. `compiled` asks it of the frameworks' compilers, too. Where there are
    `properties` these are judged, and no numbers are known. `tile` is the size of tiles, for the engine that has them.
    """

    id: str
    profile: str
    says: str
    loss: str
    options: Mapping[str, float | str | bool]
    arguments: Mapping[str, NDArray[np.generic]]
    normalize: bool
    reduction: str
    dtypes: tuple[str, ...]
    cotangent: Array
    value: Wanted
    gradient: Mapping[str, Wanted] | None
    floor: float
    compiled: bool = False
    properties: tuple[str, ...] = ()
    tile: int | None = None
    names: tuple[str, ...] = field(init=False)
    """Of the arguments that receive a gradient: a compiler that traces a call reads no array of NumPy to know them."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.arrays))

    @property
    def row(self) -> str:
        """The row of the matrix that this is in: the loss and its form, such as `f_micl kl`."""
        options, queued = self.options, {"negatives", "own_negatives"} & set(self.arguments)
        if self.loss == "supcon":
            return f"supcon {options['summation']}"
        if self.loss == "f_micl":
            return "f_micl queue" if queued else f"f_micl {options['divergence']}"
        if self.loss == "sincere" and options.get("epsilon"):
            return "sincere epsilon"
        if self.loss == "dystress" and options.get("schedule") == "shifted":
            return "dystress shifted"
        if queued:
            return f"{self.loss} queue"
        return self.loss

    @property
    def arrays(self) -> dict[str, Array]:
        """The arguments that receive a gradient."""
        return {name: x for name, x in self._floats.items() if not held(name)}

    @property
    def held(self) -> dict[str, Array]:
        """Arguments of floats that receive none: weights of positives, and the rows of a guide."""
        return {name: x for name, x in self._floats.items() if held(name)}

    @property
    def integers(self) -> dict[str, NDArray[np.generic]]:
        """Labels, ids and groups, and booleans."""
        return {name: x for name, x in self.arguments.items() if x.dtype.kind != "f"}

    @property
    def _floats(self) -> dict[str, Array]:
        return {name: x.astype(np.float64) for name, x in self.arguments.items() if x.dtype.kind == "f"}

    @property
    def relations(self) -> frozenset[str]:
        """The arguments and options that say, beside labels, ids and places, who is compared with whom."""
        return frozenset(name for name in (*self.arguments, *self.options) if name in RELATED or held(name))

    @property
    def parameters(self) -> dict[str, float]:
        """The options that may be arrays and then receive a gradient."""
        return {name: float(self.options[name]) for name in PARAMETERS if name in self.options}

    @property
    def sensitivity(self) -> float:
        """By how much a round-off in the embeddings is multiplied: 1 + sqrt(d) / temperature."""
        rate = max(
            [1.0 / float(self.options[name]) for name in ("temperature", "temperature_min") if name in self.options]
            or [2.0 * float(self.options.get("inverse_bandwidth", 1.0))]
        )
        return 1.0 + sqrt(max(x.shape[-1] for x in self.arrays.values())) * rate

    @property
    def structure(self) -> tuple[object, ...]:
        """What a compiled program depends on: everything but the numbers."""
        fixed = tuple((name, x) for name, x in self.options.items() if name not in PARAMETERS)
        shapes = tuple((name, x.shape) for name, x in self.arguments.items())
        return self.loss, fixed, self.normalize, self.reduction, self.tile, shapes


def of_suite(directory: Path = SUITE, profiles: Iterable[str] | None = None) -> tuple[Question, ...]:
    """The cases of the suite; raises `cases.CaseError` where a file of it is not what it must be."""
    return tuple(_from_case(case) for case in load(directory, profiles))


def integrity(asked: Iterable[Question], compilers: bool = True) -> tuple[Question, ...]:
    """What is asked beside the suite: an ordinary case of some losses under compilers, if wanted, and NaN.

    NaN stands in a row of every loss, where the value must be NaN, and in rows that take no part, where it must not.
    """
    asked = tuple(asked)
    usual = [one for question in ordinary(asked).values() for one in _checks(question, compilers)]
    return (*usual, *(_padded(question) for question in asked if question.id in PADDED))


def ordinary(asked: Iterable[Question]) -> dict[str, Question]:
    """For each row of the matrix its first case that is asked in every dtype, with nothing unusual about it."""
    found: dict[str, Question] = {}
    for question in asked:
        scalar = question.reduction == "mean" and question.normalize and set(question.dtypes) == set(DTYPES)
        if question.profile in ORDINARY and scalar and min(_sizes(question)) > 2:
            found.setdefault(question.row, question)
    return found


def _sizes(question: Question) -> list[int]:
    return [x.size for x in question.arguments.values()]


def _checks(question: Question, compilers: bool) -> Iterator[Question]:
    compiled = compilers and question.row in COMPILED
    name = question.row.replace(" ", "-")
    if compiled:
        says = f"The frameworks' compilers change nothing. {question.says}"
        yield replace(question, id=f"{name}/compiled", profile=INTEGRITY, says=says, dtypes=("float32",), compiled=True)
    first = next(iter(question.arrays))
    spoilt = question.arrays[first].copy()
    spoilt.flat[spoilt.size // 2] = np.nan
    nothing = Wanted(np.full_like(question.value.numbers, np.nan), np.ones_like(question.value.scale))
    yield replace(
        question,
        id=f"{name}/nan",
        profile=INTEGRITY,
        says="NaN in one entry of one row gives NaN, never a finite wrong number.",
        arguments={**question.arguments, first: spoilt},
        dtypes=("float32",),
        value=nothing,
        gradient=None,
        compiled=compiled,
    )


def _padded(question: Question) -> Question:
    """The same with NaN in the rows that take no part."""
    inside = question.arguments["where"]
    spoilt = {name: np.where(inside[:, None], x, np.nan) for name, x in question.arrays.items()}
    return replace(
        question,
        id=f"{question.id}-nan",
        profile=INTEGRITY,
        says="What is in a row outside is of no account, NaN included: the numbers are the same, and its gradient is 0.",
        arguments={**question.arguments, **spoilt},
        dtypes=("float32",),
    )


def _from_case(case: Case) -> Question:
    return Question(
        id=case.id,
        profile=case.profile,
        says=case.says,
        loss=case.loss,
        options=dict(case.options),
        arguments={name: _argument(x) for name, x in case.arguments.items()},
        normalize=case.normalize,
        reduction=case.reduction,
        dtypes=case.dtypes,
        cotangent=_array(case.cotangent),
        value=_wanted(case.value),
        gradient={name: _wanted(x) for name, x in case.gradient.items()},
        floor=case.floor,
    )


def _array(x: Numbers) -> Array:
    return np.asarray(x.flat, dtype=np.float64).reshape(x.shape)


def _argument(x: Argument) -> NDArray[np.generic]:
    if isinstance(x, Numbers):
        return _array(x)
    whole = np.asarray(x)
    return whole if whole.dtype == np.bool_ else whole.astype(np.int64)


def _wanted(x: Expected) -> Wanted:
    return Wanted(_array(x.want), _array(x.scale))


# Questions about real data travel between processes as files: the arrays, and the rest as JSON beside them.


def write(question: Question, path: Path) -> None:
    """Write a question with all its arrays to one .npz file."""
    arrays: dict[str, NDArray[np.generic]] = {f"argument {name}": x for name, x in question.arguments.items()}
    arrays |= {"cotangent": question.cotangent, "value": question.value.numbers, "value scale": question.value.scale}
    for name, wanted in (question.gradient or {}).items():
        arrays |= {f"gradient {name}": wanted.numbers, f"scale {name}": wanted.scale}
    words = ("id", "profile", "says", "loss", "options", "normalize", "reduction", "dtypes", "floor", "compiled")
    arrays["words"] = np.asarray(json.dumps({name: getattr(question, name) for name in words}))
    with path.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def read(path: Path) -> Question:
    """The question that `write` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        words = json.loads(str(arrays["words"]))
        words["dtypes"] = tuple(words["dtypes"])
        names = [name.removeprefix("gradient ") for name in arrays.files if name.startswith("gradient ")]
        return Question(
            arguments={
                name.removeprefix("argument "): arrays[name] for name in arrays.files if name.startswith("argument ")
            },
            cotangent=arrays["cotangent"],
            value=Wanted(arrays["value"], arrays["value scale"]),
            gradient={name: Wanted(arrays[f"gradient {name}"], arrays[f"scale {name}"]) for name in names},
            **words,
        )
