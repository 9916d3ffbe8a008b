"""Records as dictionaries of plain values, ready for JSON, and back: a stable format that later releases read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from numbers import Real
from typing import Any, TypeVar

from sincere_spec.errors import OptionError
from sincere_spec.spec.checks import shown
from sincere_spec.tracing import constant_when_traced

T = TypeVar("T")
DEEPEST = 32  # levels; the records of the package have five


@constant_when_traced
def fields_of(kind: type) -> tuple[str, ...]:
    """The names of the fields of a class of records."""
    return tuple(f.name for f in fields(kind))


@constant_when_traced
def outline(kind: type) -> tuple[str, ...]:
    """The name of a class of records, and those of its fields; nothing of another class."""
    return (kind.__name__, *fields_of(kind)) if is_dataclass(kind) else ()


@constant_when_traced
def spelled(choice: Enum) -> tuple[str, str]:
    """The name of an enumeration, and the value of its member."""
    return type(choice).__name__, choice.value


def changed(record: T, **changes: Any) -> T:
    """The record with other values of some fields; `dataclasses.replace`, every step of which a compiler would guard."""
    return type(record)(**{name: getattr(record, name) for name in fields_of(type(record))} | changes)


def encode(value: object) -> Any:
    """A word as a dictionary of its fields, with its class as `type`."""
    if isinstance(value, Enum):
        kind, name = spelled(value)
        return {"type": kind, "value": name}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, tuple):
        return [encode(item) for item in value]
    if record := outline(type(value)):
        kind, *names = record
        return {"type": kind} | {name: encode(getattr(value, name)) for name in names}
    if isinstance(value, Real):  # NumPy's
        return float(value)
    raise OptionError(f"only records of numbers can be written; {type(value).__name__} cannot: use a Python number.")


def decode(data: object, known: Mapping[str, type], path: str = "", depth: int = 0) -> Any:
    """What `encode` wrote, of the classes that are known; raises OptionError for anything else, and says where it is."""
    at = path or "the record"
    if depth > DEEPEST:
        raise OptionError(f"{at[:60]}: nested more than {DEEPEST} deep, which no record is.")
    if isinstance(data, (list, tuple)):
        return tuple(decode(item, known, f"{path}[{i}]", depth + 1) for i, item in enumerate(data))
    if data is None or isinstance(data, (bool, int, float, str)):
        return data
    if not isinstance(data, dict):
        raise OptionError(f"{at}: expected what to_dict writes; got {shown(data)}.")
    name = data.get("type")
    word = known.get(name) if isinstance(name, str) else None
    if word is None:
        raise OptionError(f"{at}: no word of a loss is called {shown(name)}; known are {', '.join(sorted(known))}.")
    return _word(word, {key: item for key, item in data.items() if key != "type"}, known, at, path, depth)


def _word(word: type, given: dict[Any, Any], known: Mapping[str, type], at: str, path: str, depth: int) -> Any:
    if issubclass(word, Enum):
        members = {one.value: one for one in word}
        value = given.get("value")
        if given.keys() != {"value"} or not isinstance(value, str) or value not in members:
            raise OptionError(f"{at}: a {word.__name__} has as value one of {', '.join(members)}; got {shown(given)}.")
        return members[value]
    own = [f for f in fields(word) if f.init] if is_dataclass(word) else []
    unknown = [key for key in given if key not in {f.name for f in own}]
    if unknown:
        has = ", ".join(f.name for f in own) or "none"
        raise OptionError(f"{at}: a {word.__name__} has no field {shown(unknown[0])}; its fields are {has}.")
    missing = [f.name for f in own if f.default is MISSING and f.default_factory is MISSING and f.name not in given]
    if missing:
        raise OptionError(f"{at}: a {word.__name__} needs the field {missing[0]!r}.")
    values = {key: decode(item, known, f"{path}.{key}" if path else key, depth + 1) for key, item in given.items()}
    try:
        return word(**values)
    except OptionError as error:
        raise OptionError(f"{path}: {error}" if path else str(error)) from error
    except Exception as error:  # of a user's own word, or an abstract one
        raise OptionError(f"{at}: a {word.__name__} cannot be made of these values: {error}") from error
