"""The cases of the suite, read from their files: exact numbers, and nothing of any framework."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

from sincere_spec.conformance.text import read_json_file

__all__ = [
    "DTYPES",
    "REDUCTIONS",
    "SUITE",
    "Argument",
    "Case",
    "CaseError",
    "Expected",
    "Numbers",
    "held",
    "load",
    "version",
]

SUITE = Path(__file__).resolve().parent / "suite"
DTYPES = ("float16", "bfloat16", "float32", "float64")
REDUCTIONS = ("mean", "pairs", "batch", "sum", "none")

_FIELDS = ("id", "says", "loss", "options", "normalize", "reduction", "arguments", "cotangent", "value", "gradient")
_INTEGERS = ("labels", "key_labels", "ids", "key_ids", "groups", "key_groups")
_BOOLEANS = ("where", "key_where", "ignore", "positive_pairs", "classes", "key_classes")
_WORDS = ("summation", "schedule", "divergence", "overlap")


class CaseError(ValueError):
    """A file of the suite is not what the suite's schema says."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """An array of exact numbers: its shape, and its entries in C order."""

    shape: tuple[int, ...]
    flat: tuple[float, ...]

    def nested(self) -> Any:
        """The entries as nested lists, or one number where the shape is ``()``."""
        table: list[Any] = list(self.flat)
        for size in self.shape[:0:-1]:
            table = [table[first : first + size] for first in range(0, len(table), size)] if size else []
        if not self.shape:
            return self.flat[0]
        # Without entries the grouping cannot know how many empty rows there are.
        return table if self.flat else [[] for _ in range(self.shape[0])]


Argument: TypeAlias = Numbers | tuple[int, ...] | tuple[bool, ...] | tuple[tuple[bool, ...], ...]
"""Numbers of an array; integers; or booleans, of a vector or by row of a matrix."""


def held(name: str) -> bool:
    """Whether an argument of numbers receives no gradient: weights of positives, and the rows of a guide."""
    return name == "positive_weights" or name.startswith("guide_")


@dataclass(frozen=True, slots=True)
class Expected:
    """What is wanted, and the scale that an error in it is measured by."""

    want: Numbers
    scale: Numbers


@dataclass(frozen=True, slots=True)
class Case:
    """One case: a loss, its exact arguments, its value and its gradient under a cotangent that is not one.

    Attributes:
        suite: The version of the suite.
        profile: The reason it belongs to, such as ``"core"``.
        id: Its name, which stays.
        says: What it guards, in one sentence.
        loss: The loss's name; ``sincere`` is the function ``sincere_loss``.
        options: The function's own keywords, and of its relations ``overlap`` and ``margin``.
        normalize: The keyword of that name.
        reduction: The keyword of that name.
        dtypes: The types in which all inputs are exact.
        arguments: Arrays, and tuples of integers for labels, ids and groups, in the order of the function's arguments; and
            what else says who is compared with whom.
        cotangent: What the value is multiplied by before it is differentiated; a vector where the reduction is none.
        value: The value.
        decimal: The value in 40 decimal digits, for people.
        gradient: Of every array argument that is not held constant, and of ``temperature`` and ``bias`` where the loss has them.
    """

    suite: str
    profile: str
    id: str
    says: str
    loss: str
    options: Mapping[str, float | str | bool]
    normalize: bool
    reduction: str
    dtypes: tuple[str, ...]
    arguments: Mapping[str, Argument]
    cotangent: Numbers
    value: Expected
    decimal: tuple[str, ...]
    gradient: Mapping[str, Expected]

    @property
    def floor(self) -> float:
        """How many of the smallest normal numbers an entry may be wrong by: rows times the rate of the logits."""
        arrays = (x for name, x in self.arguments.items() if isinstance(x, Numbers) and not held(name))
        rows = sum(math.prod(x.shape[:-1]) for x in arrays)
        coldest = self.options.get("temperature", self.options.get("temperature_min"))
        if coldest is not None:
            return max(rows, 1) * max(1.0, 1.0 / float(coldest))
        return max(rows, 1) * max(1.0, 2 * float(self.options.get("inverse_bandwidth", 1.0)))


def version(directory: Path = SUITE) -> str:
    """The version of the suite in a directory; one directory holds one version."""
    versions = {_document(path)["suite"] for path in _files(directory)}
    if len(versions) != 1:
        raise CaseError(f"{directory}: one version of the suite was expected, and {len(versions)} came")
    return str(versions.pop())


def load(directory: Path = SUITE, profiles: Iterable[str] | None = None) -> tuple[Case, ...]:
    """All cases of a directory, or those of some profiles, in the order of the files.

    Args:
        directory: Where the profiles' folders are.
        profiles: Names of profiles; all of them where this is None.

    Raises:
        CaseError: A file or a profile is missing or malformed; the message names the case and the field.
    """
    files = _files(directory)
    here = sorted({path.parent.name for path in files})
    wanted = here if profiles is None else list(profiles)
    for name in wanted:
        if name not in here:
            raise CaseError(f"profile {name!r}: not in this suite, which has {', '.join(here)}")
    cases: list[Case] = []
    seen: set[str] = set()
    for path in files:
        if path.parent.name in wanted:
            cases += _cases(path, seen)
    return tuple(cases)


def _files(directory: Path) -> list[Path]:
    files = sorted(Path(directory).glob("*/*.json"))
    if not files:
        raise CaseError(f"{directory}: no files of the suite are here (expected <profile>/<loss>.json)")
    return files


def _document(path: Path) -> dict[str, Any]:
    try:
        document = read_json_file(path)
    except ValueError as error:
        raise CaseError(f"{path}: not JSON: {error}") from error
    if not isinstance(document, dict) or set(document) != {"suite", "profile", "loss", "cases"}:
        raise CaseError(f"{path}: suite, profile, loss and cases were expected")
    return document


def _cases(path: Path, seen: set[str]) -> list[Case]:
    document = _document(path)
    if (document["profile"], document["loss"]) != (path.parent.name, path.stem):
        raise CaseError(f"{path}: holds profile {document['profile']!r} and loss {document['loss']!r}")
    cases = []
    for entry in document["cases"]:
        name = entry.get("id") if isinstance(entry, dict) else None
        where = str(name or path)
        try:
            case = _case(entry, document)
        except CaseError as error:
            raise CaseError(f"{where}: {error}") from None
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise CaseError(f"{where}: malformed: {error}") from error
        if case.loss != document["loss"]:
            raise CaseError(f"{where}: a case of {case.loss} in a file of {document['loss']}")
        if case.id in seen:
            raise CaseError(f"{where}: the id is used twice")
        seen.add(case.id)
        cases.append(case)
    return cases


def _number(text: Any, where: str) -> float:
    if not isinstance(text, str) or "0x" not in text:
        raise CaseError(f"{where}: a hexadecimal float in a string was expected, and {text!r} came")
    try:
        number = float.fromhex(text)
    except (ValueError, OverflowError) as error:
        raise CaseError(f"{where}: {text!r} is no float: {error}") from error
    if not math.isfinite(number):
        raise CaseError(f"{where}: {text!r} is not finite")
    return number


def _numbers(text: Any, where: str, shape: tuple[int, ...] | None = None) -> Numbers:
    """One number or a list of them; with a shape, of exactly as many as it has."""
    flat = tuple(_number(x, where) for x in text) if isinstance(text, list) else (_number(text, where),)
    if shape is None:
        shape = (len(flat),) if isinstance(text, list) else ()
    if isinstance(text, list) != bool(shape) or math.prod(shape) != len(flat):
        raise CaseError(f"{where}: {math.prod(shape)} entries were expected, and {len(flat)} came")
    return Numbers(shape, flat)


def _expected(entry: dict[str, Any], where: str, shape: tuple[int, ...] | None = None) -> Expected:
    want = _numbers(entry["hex"], where, shape)
    scale = _numbers(entry["scale"], f"{where} scale", want.shape)
    if any(x < 0 for x in scale.flat):
        raise CaseError(f"{where} scale: a negative number")
    return Expected(want, scale)


def _argument(name: str, entry: Any) -> Argument:
    if name in _BOOLEANS:
        return _booleans(name, entry)
    if name in _INTEGERS:
        if not isinstance(entry, list) or not all(type(x) is int for x in entry):
            raise CaseError(f"{name}: a list of integers was expected")
        return tuple(entry)
    return _numbers(entry["hex"], name, tuple(entry["shape"]))


def _booleans(name: str, entry: Any) -> Argument:
    rows: list[Any] = entry if isinstance(entry, list) else [None]
    nested = [row if isinstance(row, list) else [row] for row in rows]
    alike = len({(isinstance(row, list), len(each)) for row, each in zip(rows, nested, strict=True)}) < 2
    if not alike or not all(type(x) is bool for row in nested for x in row):
        raise CaseError(f"{name}: a list of booleans, or of rows of them, was expected")
    if any(isinstance(row, list) for row in rows):
        return tuple(tuple(row) for row in rows)
    return tuple(rows)


def _option(name: str, entry: Any) -> float | str | bool:
    return entry if isinstance(entry, bool) or name in _WORDS else _number(entry, name)


def _case(entry: dict[str, Any], document: dict[str, Any]) -> Case:
    missing = [field for field in _FIELDS if field not in entry]
    unknown = sorted(set(entry) - {*_FIELDS, "dtypes"})
    if missing or unknown:
        raise CaseError(f"{missing[0]} is missing" if missing else f"{unknown[0]} is not a field of a case")
    if entry["reduction"] not in REDUCTIONS:
        raise CaseError(f"reduction: {entry['reduction']!r} is none of {', '.join(REDUCTIONS)}")
    dtypes = tuple(entry.get("dtypes", DTYPES))
    if not dtypes or not set(dtypes) <= set(DTYPES):
        raise CaseError(f"dtypes: {', '.join(dtypes) or 'none'}; expected some of {', '.join(DTYPES)}")
    options = {name: _option(name, x) for name, x in entry["options"].items()}
    arguments = {name: _argument(name, x) for name, x in entry["arguments"].items()}
    value = _expected(entry["value"], "value")
    if (entry["reduction"] == "none") != (len(value.want.shape) == 1):
        raise CaseError(f"value: a vector goes with the reduction none, and this one is {entry['reduction']}")
    gradient = {}
    for name, x in entry["gradient"].items():
        argument = arguments.get(name)
        if isinstance(argument, tuple) or held(name) or (argument is None and name not in options):
            raise CaseError(f"gradient: {name} is no argument that has one")
        gradient[name] = _expected(x, f"gradient of {name}", () if argument is None else argument.shape)
    arrays = {name for name, x in arguments.items() if isinstance(x, Numbers) and not held(name)}
    if not arrays <= set(gradient):
        raise CaseError(f"gradient: that of {min(arrays - set(gradient))} is missing")
    decimal = entry["value"]["decimal"]
    return Case(
        suite=document["suite"],
        profile=document["profile"],
        id=entry["id"],
        says=entry["says"],
        loss=entry["loss"],
        options=MappingProxyType(options),
        normalize=entry["normalize"],
        reduction=entry["reduction"],
        dtypes=dtypes,
        arguments=MappingProxyType(arguments),
        cotangent=_numbers(entry["cotangent"], "cotangent", value.want.shape),
        value=value,
        decimal=tuple(decimal) if isinstance(decimal, list) else (decimal,),
        gradient=MappingProxyType(gradient),
    )
