"""Checks of a record's fields and of a loss's keywords: what is kept, or an OptionError with what was expected and what came."""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from enum import Enum
from numbers import Real
from typing import Any, Generic, TypeVar

from sincere_spec.errors import OptionError, unknown_choice

T = TypeVar("T")
INFINITY = float("inf")
_short = reprlib.Repr()  # bounded in length and depth: what came may be anything
_short.maxstring = _short.maxother = 60


class Kind(Generic[T]):
    """A kind of value: called with one and its name, it returns the value as it is kept, or raises OptionError."""

    __slots__ = ("expected", "read")

    def __init__(self, expected: str, read: Callable[[Any], T]) -> None:
        self.expected, self.read = expected, read  # `read` raises TypeError, ValueError or OverflowError

    def __call__(self, value: object, name: str) -> T:
        """The value as it is kept; `name` is that of the keyword or field."""
        try:
            return self.read(value)
        except (TypeError, ValueError, OverflowError):
            raise OptionError(f"{name} must be {self.expected}; got {shown(value)}{_advice(self, value)}.") from None


def check_fields(word: object, **kinds: Kind[Any]) -> None:
    """Check the fields of a frozen record in its `__post_init__`, and keep numbers of every make as floats."""
    for field, kind in kinds.items():
        given = getattr(word, field)
        try:
            kept = kind.read(given)
        except (TypeError, ValueError, OverflowError):
            name = getattr(word, "name", None)
            kept = kind(given, f"{type(word).__name__}{'' if name is None else f' {shown(name)}'}: {field}")
        if kept is not given:
            object.__setattr__(word, field, kept)


def hold_no_array(word: object) -> None:
    """Refuse a word of a user's own that has an array in a field: it would receive no gradient."""
    for field, value in getattr(word, "__dict__", {}).items():
        if is_array(value):
            NUMBER(value, f"{type(word).__name__}: {field}")


def shown(value: object) -> str:
    """A value in an error message: short, on one line, with its type where that says more; an array by its type alone."""
    if is_array(value):
        return f"an array ({type(value).__name__})"
    text = " ".join(_short.repr(value).split())
    plain = value is None or isinstance(value, (bool, int, float, str))
    return text if plain else f"{text} ({type(value).__name__})"


def is_array(value: object) -> bool:
    """Whether a value is an array, a framework's tracer among them; NumPy's scalars are numbers."""
    if isinstance(
        value, (int, float, str, type)
    ):  # first, for torch.compile, whose symbolic numbers have no attributes
        return False
    return hasattr(value, "shape") and not isinstance(value, Real)


def choice(value: object, name: str, choices: tuple[str, ...]) -> str:
    """A keyword's word, one of several; the refusal names the nearest right one."""
    if not isinstance(value, str) or value not in choices:
        raise unknown_choice(name, value, choices)
    return value


def _advice(kind: Kind[Any], value: object) -> str:
    if is_array(value) and kind in (NUMBER, POSITIVE, FLAG):
        return ": only temperature and bias may be arrays, nothing else receives a gradient; give a Python number"
    return ""


def _number(value: Any) -> float:
    if type(value) is not float:
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError
        value = float(value)
    if not -INFINITY < value < INFINITY:
        raise ValueError
    return value  # type: ignore[no-any-return]


def _positive(value: Any) -> float:
    if not (number := _number(value)) > 0.0:
        raise ValueError
    return number


def _flag(value: Any) -> bool:
    if value is not True and value is not False:
        raise TypeError
    return value


def _text(value: Any) -> str:
    if type(value) is not str:
        raise TypeError
    return value


NUMBER = Kind("a finite number", _number)
POSITIVE = Kind("positive and finite", _positive)
FLAG = Kind("True or False", _flag)
TEXT = Kind("a string", _text)
TEXT_OR_NONE = Kind("a string or None", lambda value: None if value is None else _text(value))
# Arrays are looked at by the call, which knows their framework: such a parameter receives a gradient.
PARAMETER: Kind[Any] = Kind(
    "a finite number or a 0-d array", lambda value: value if is_array(value) else _number(value)
)
TEMPERATURE: Kind[Any] = Kind(
    "positive and finite, a number or a 0-d array", lambda value: value if is_array(value) else _positive(value)
)


def member(kind: type[Enum]) -> Kind[Enum]:
    """A member of an enumeration, never its string."""

    def read(value: Any) -> Enum:
        if type(value) is not kind:
            raise TypeError
        return value

    return Kind(f"one of {', '.join(str(one) for one in kind)}", read)


def instance(kind: type) -> Kind[Any]:
    """An instance of a class."""

    def read(value: Any) -> Any:
        if not isinstance(value, kind):
            raise TypeError
        return value

    return Kind(f"an instance of {kind.__name__}", read)


def several(kind: type) -> Kind[tuple[Any, ...]]:
    """A tuple of instances of a class; a list becomes one."""

    def read(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, (tuple, list)) or not all(isinstance(one, kind) for one in value):
            raise TypeError
        return value if type(value) is tuple else tuple(value)

    return Kind(f"a tuple of {kind.__name__}", read)


def check_temperature(temperature: object, name: str = "temperature") -> None:
    """Raise OptionError unless a number is positive and finite; an array is looked at where its values can be read."""
    TEMPERATURE(temperature, name)
