"""What a loss is: a frozen record of stages over pairs, and nothing that computes.

KernelSpec used everywhere, and defined here only:

anchor       a row `i` of the batch that is compared with others
key          a column `j` that anchors are compared with; in a plain batch the anchors themselves
partner      the one positive that a row is given by the arrangement (its other view, its caption)
positive     a key of the same label as the anchor, and not the same sample; or the partner
negative     a key of another label
others       positives and negatives; never the anchor itself
similarity   `s_ij`, the dot product of two embeddings
logit        `a_ij = value(s_ij) / temperature + bias`
stage        one masked reduction of a row of logits, `r_i`
term         one summand `coefficient * r_i + constant` of the row's loss
counts       a row counts if it has a positive and none of its log-sum-exp terms is over nothing

A stage with the fold ψ, over a set of pairs W, is

    r_i = Σ_{j in W_i} ψ(scale * (a_ij - u_i) + offset)          u_i: an earlier log-sum-exp stage, or 0
    r_i = log Σ_{j in W_i} exp(scale * (a_ij - u_i) + offset)    for the fold LOGSUMEXP

(`mean=True` divides the sum by the size of W), and a row's loss is the sum of its terms. From these words alone the
engines derive values, gradients and tilings: a loss never carries a derivative.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from typing import Any, ClassVar

from sincere_spec.arrays import Array, Namespace
from sincere_spec.errors import OptionError


class Word:
    """A piece of a record that `PairLoss.from_dict` can find again by its class name."""

    known: ClassVar[dict[str, type[Word]]] = {}

    def __init_subclass__(cls) -> None:
        other = Word.known.setdefault(cls.__name__, cls)
        if other.__qualname__ != cls.__qualname__ or other.__module__ != cls.__module__:
            raise TypeError(f"{cls.__module__}.{cls.__name__}: {other.__module__} already has a word of that name.")


class Pairs(Enum):
    """Which columns of a row a stage sees."""

    __hash__ = object.__hash__  # a member is one object; Enum would hash its name, in Python

    POSITIVE = "positive"
    NEGATIVE = "negative"
    OTHERS = "others"


class Fold(Enum):
    """The elementwise function ψ that a stage sums, or LOGSUMEXP."""

    __hash__ = object.__hash__

    LINEAR = "linear"
    EXP = "exp"
    SOFTPLUS = "softplus"
    SIGMOID_SQUARED = "sigmoid_squared"
    LOGSUMEXP = "logsumexp"


class Rows(Enum):
    """Which rows a term belongs to, by how many positives they have."""

    __hash__ = object.__hash__

    ALL = "all"
    ONE_POSITIVE = "one_positive"
    SEVERAL_POSITIVES = "several_positives"


@dataclass(frozen=True)
class Stage(Word):
    """A stage: one masked reduction of each row of logits."""

    name: str
    fold: Fold
    over: Pairs
    scale: float = 1.0
    offset: float = 0.0
    minus: str | None = None
    mean: bool = False

    def __str__(self) -> str:
        logit = f"a - {self.minus}" if self.minus else "a"
        if self.scale != 1.0:
            inner = f"({logit})" if self.minus else logit
            logit = f"-{inner}" if self.scale == -1.0 else f"{self.scale:g} {inner}"
        if self.offset:
            logit += f" {'-' if self.offset < 0 else '+'} {abs(self.offset):g}"
        if self.fold is Fold.LOGSUMEXP:
            folded = f"{'logmeanexp' if self.mean else 'logsumexp'}({logit})"
        else:
            folded = (
                f"{'mean' if self.mean else 'sum'} "
                + {
                    Fold.LINEAR: logit,
                    Fold.EXP: f"exp({logit})",
                    Fold.SOFTPLUS: f"softplus({logit})",
                    Fold.SIGMOID_SQUARED: f"sigmoid({logit})^2",
                }[self.fold]
            )
        return f"{self.name} = {folded} over {self.over.value}"


@dataclass(frozen=True)
class Term(Word):
    """A summand of the row's loss; its constant is there only where the stage has pairs."""

    stage: str
    coefficient: float = 1.0
    constant: float = 0.0
    rows: Rows = Rows.ALL

    def __str__(self) -> str:
        sign = "-" if self.coefficient < 0 else "+"
        size = abs(self.coefficient)
        text = f"{sign} {'' if size == 1.0 else f'{size:g} '}{self.stage}"
        if self.constant:
            text += f" {'-' if self.constant < 0 else '+'} {abs(self.constant):g}"
        if self.rows is not Rows.ALL:
            text += f" [{self.rows.value.replace('_', ' ')}]"
        return text


class Logit(Word):
    """How a similarity becomes a logit, before the division by the temperature.

    `slope` is the derivative that the loss declares. `held` says that it is not the derivative of `value`: part of
    the value is held constant, as published code does for DySTreSS's temperature. `unit_slope` says that the slope is 1,
    and `reach` between which bounds the values lie for similarities from -1 to 1, where that is known.
    """

    held: bool = False
    unit_slope: bool = False
    reach: tuple[float, float] | None = None

    def value(self, xp: Namespace, s: Array) -> Array:
        """The logit of a similarity at temperature 1."""
        raise NotImplementedError

    def slope(self, xp: Namespace, s: Array) -> Array:
        """The declared derivative of `value`."""
        raise NotImplementedError


@dataclass(frozen=True)
class Similarity(Logit):
    """The similarity itself: `a = s / temperature`."""

    unit_slope = True
    reach = (-1.0, 1.0)

    def value(self, xp: Namespace, s: Array) -> Array:
        """The similarity."""
        return s

    def slope(self, xp: Namespace, s: Array) -> Array:
        """1."""
        return xp.ones_like(s)


@dataclass(frozen=True)
class Roles:
    """Which arguments are the anchors, the keys and the partners of a call; several are concatenated in order.

    `keys=()` are the anchors themselves. With partners the keys hold negatives only: every key of another label.
    `both_ways` compares keys with anchors, too. `queue` keys share no label with any anchor.
    """

    anchors: tuple[str, ...]
    keys: tuple[str, ...] = ()
    partners: tuple[str, ...] = ()
    both_ways: bool = False
    queue: bool = False

    @property
    def alike(self) -> int:
        """How many columns share a row's label where the arrangement gives the labels: row i of each view, or the partner."""
        return 0 if self.queue else 1 if self.keys else len(self.anchors)

    def holding(self, names: list[str]) -> frozenset[str]:
        """The roles, and the parameters, that some of a call's arguments have."""
        roles = {"anchors": self.anchors, "keys": self.keys, "partners": self.partners}
        held = {role for role, members in roles.items() if any(name in names for name in members)}
        return frozenset(held | ({"temperature", "bias"} & set(names)))


class Arrangement(Word):
    """How a call's positional arguments become anchors, keys and partners; nothing else knows the shape of a call."""

    labelled: bool = False
    signature: str = ""

    def names(self, count: int) -> tuple[str, ...]:
        """The names of `count` positional arrays; raises TypeError if the call cannot take so many."""
        raise NotImplementedError

    def roles(self, names: tuple[str, ...]) -> Roles:
        """Who is compared with whom, given the arrays that came."""
        raise NotImplementedError


@dataclass(frozen=True, repr=False)
class PairLoss(Word):
    """A loss, as a value: it compares, hashes, pickles, prints, and round-trips through `to_dict` and `from_dict`.

    Give one to `evaluate` or `value_and_gradient`; write your own from the words of `sincere_spec.protocol` and it
    has values, gradients and every engine with no further code. `temperature` and `bias` may be 0-d arrays, which
    then receive gradients (such a record is not hashable where its framework's arrays are not).
    """

    name: str
    arrangement: Arrangement
    stages: tuple[Stage, ...]
    terms: tuple[Term, ...]
    logit: Logit
    temperature: float | Array = 1.0
    bias: float | Array = 0.0

    def __post_init__(self) -> None:
        folds: dict[str, Fold] = {}
        for stage in self.stages:
            if stage.name in folds:
                raise OptionError(f"{self.name}: two stages are called {stage.name!r}; give each a name of its own.")
            if stage.minus is not None and folds.get(stage.minus) is not Fold.LOGSUMEXP:
                raise OptionError(
                    f"{self.name}: stage {stage.name!r} subtracts {stage.minus!r}, which is no "
                    "earlier log-sum-exp stage."
                )
            folds[stage.name] = stage.fold
        if not self.terms:
            raise OptionError(f"{self.name}: a loss needs at least one term.")
        for term in self.terms:
            if term.stage not in folds:
                raise OptionError(
                    f"{self.name}: a term names {term.stage!r}, but the stages are {', '.join(folds) or 'none'}."
                )
        check_temperature(self.temperature)

    def __repr__(self) -> str:
        numbers = f"temperature={self.temperature!r}"
        if not isinstance(self.bias, float) or self.bias:
            numbers += f", bias={self.bias!r}"
        stages = "; ".join(str(stage) for stage in self.stages)
        loss = " ".join(str(term) for term in self.terms).removeprefix("+ ")
        return f"<{self.name}: {numbers}, logit={self.logit!r}; {stages}; loss = {loss}>"

    def to_dict(self) -> dict[str, Any]:
        """The record as plain numbers, strings and lists, ready for JSON."""
        encoded: dict[str, Any] = _encode(self)
        return encoded

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> PairLoss:
        """The record that `to_dict` wrote; raises OptionError for anything else."""
        try:
            record = _decode(data)
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, OptionError):
                raise
            raise OptionError(f"expected a dictionary written by PairLoss.to_dict; this one has {error}.") from error
        if not isinstance(record, cls):
            raise OptionError(
                f"expected a dictionary written by PairLoss.to_dict; got one of a {type(record).__name__}."
            )
        return record


def check_temperature(temperature: object, name: str = "temperature") -> None:
    """Raise OptionError unless a number is positive and finite; arrays are looked at where their values can be read."""
    if isinstance(temperature, (bool, str)) or temperature is None:
        raise OptionError(f"{name} must be a positive number or a 0-d array; got {temperature!r}.")
    if isinstance(temperature, (int, float)) and not 0.0 < temperature < float("inf"):
        raise OptionError(f"{name} must be positive and finite; got {temperature!r}.")


def check_number(number: object, name: str) -> None:
    """Raise OptionError unless a keyword is a finite Python number."""
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not -float("inf") < number < float("inf"):
        raise OptionError(f"{name} must be a finite number; got {number!r}.")


_RENAMED = {"Reduce": "Stage"}
"""Words by their name of version 0.1.0, whose dictionaries are read."""

_ENUMS: dict[str, type[Enum]] = {"Pairs": Pairs, "Fold": Fold, "Rows": Rows}


def _encode(value: object) -> Any:
    if isinstance(value, Enum):
        return {"type": type(value).__name__, "value": value.value}
    if isinstance(value, Word) and is_dataclass(value):
        return {"type": type(value).__name__} | {f.name: _encode(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, tuple):
        return [_encode(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise OptionError(f"only records of numbers can be written; {type(value).__name__} cannot: use a Python number.")


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_decode(item) for item in value)
    if not isinstance(value, dict):
        return value
    name = value.get("type")
    if name in _ENUMS:
        return _ENUMS[name](value["value"])
    word = Word.known.get(_RENAMED.get(str(name), str(name)))
    if word is None:
        raise OptionError(f"no word of a loss is called {name!r}; known are {', '.join(sorted(Word.known))}.")
    return word(**{key: _decode(item) for key, item in value.items() if key != "type"})
