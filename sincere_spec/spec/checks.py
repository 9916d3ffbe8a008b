"""Checks of a record's fields and of a loss's keywords: what is kept, or an OptionError with what was expected and what came."""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from enum import Enum
from numbers import Real
from typing import Any, Generic, TypeVar

from sincere_spec.errors import OptionError, unknown_choice
from sincere_spec.tracing import constant_when_traced

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
            number = is_array(value) and self in (NUMBER, POSITIVE, FLAG)
            advice = ": only temperature and bias may be arrays, nothing else receives a gradient; give a Python number"
            raise OptionError(
                f"{name} must be {self.expected}; got {shown(value)}{advice if number else ''}."
            ) from None


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
    fields = _declared(type(word))
    for field in getattr(word, "__dict__", ()) if fields is None else fields:
        value = getattr(word, field, None)
        if is_array(value):
            NUMBER(value, f"{type(word).__name__}: {field}")


@constant_when_traced  # a guard of a class's dictionary would hold all of it
def _declared(kind: type) -> tuple[str, ...] | None:
    """The fields of a class that is a dataclass itself, and not by a base alone."""
    return tuple(vars(kind)["__dataclass_fields__"]) if "__dataclass_fields__" in vars(kind) else None


def choice(value: object, name: str, choices: tuple[str, ...]) -> None:
    """Refuse what is not one of several strings, naming the nearest one."""
    if not isinstance(value, str) or value not in choices:
        raise unknown_choice(name, value, choices)


def shown(value: object) -> str:
    """A value in an error message: short, on one line, with its type where that says more; an array by its type alone."""
    if is_array(value):
        return f"an array ({type(value).__name__})"
    if isinstance(value, (int, float)):
        (value,) = {value}  # torch.compile has a symbol for a number, and puts the number itself in a set
    text = " ".join(_short.repr(value).split())
    plain = value is None or isinstance(value, (bool, int, float, str))
    return text if plain else f"{text} ({type(value).__name__})"


def is_array(value: object) -> bool:
    """Whether a value is an array, a framework's tracer among them; NumPy's scalars are numbers."""
    # The first line also serves torch.compile, whose symbolic numbers have no attributes to ask for.
    if isinstance(value, (int, float, str, type)):
        return False
    return hasattr(value, "shape") and not isinstance(value, Real)


def _number(value: Any) -> float:
    if type(value) is not float:
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError
        value = float(value)
    if not -INFINITY < value < INFINITY:
        raise ValueError
    return value  # type: ignore[no-any-return]


def _positive(value: Any) -> float:
    number = _number(value)
    if not number > 0.0:
        raise ValueError
    return number


def instance(kind: type[Any], expected: str = "") -> Kind[Any]:
    """An instance of a class; of an enumeration a member, never its string."""

    def read(value: Any) -> Any:
        if not isinstance(value, kind):
            raise TypeError
        return value

    members = f"one of {', '.join(str(one) for one in kind)}" if issubclass(kind, Enum) else ""
    return Kind(expected or members or f"an instance of {kind.__name__}", read)


def several(kind: type[T]) -> Kind[tuple[T, ...]]:
    """A tuple of instances of a class; a list becomes one."""

    def read(value: Any) -> tuple[T, ...]:
        if not isinstance(value, (tuple, list)) or not all(isinstance(one, kind) for one in value):
            raise TypeError
        return value if type(value) is tuple else tuple(value)

    return Kind(f"a tuple of {kind.__name__}", read)


def optional(kind: Kind[T]) -> Kind[T | None]:
    """The same, or None."""
    return Kind(f"{kind.expected} or None", lambda value: None if value is None else kind.read(value))


NUMBER = Kind("a finite number", _number)
POSITIVE = Kind("positive and finite", _positive)
FLAG = instance(bool, "True or False")
TEXT = instance(str, "a string")
TEXT_OR_NONE = optional(TEXT)
# Such a parameter receives a gradient. Arrays are looked at by the call, which knows their framework.
PARAMETER: Kind[Any] = Kind("a finite number or a 0-d array", lambda x: x if is_array(x) else _number(x))
TEMPERATURE: Kind[Any] = Kind(
    "positive and finite, a number or a 0-d array", lambda x: x if is_array(x) else _positive(x)
)


def check_temperature(temperature: object, name: str = "temperature") -> None:
    """Refuse what cannot be a temperature; of an array the call asks again, where its value can be read."""
    TEMPERATURE(temperature, name)
