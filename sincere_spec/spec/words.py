"""What a loss is: a frozen record of stages over pairs, and nothing that computes.

The glossary. Every other file uses these words in this sense.

anchor         row i of the N x M matrix of pairs: an embedding that is compared with the keys
key            column j of that matrix; in a batch compared with itself the keys are the anchors
partner        the one positive of an anchor that the arrangement names: its other view, its caption
positive       a key with the anchor's label that is another sample; or the partner
negative       a key with another label
others         positives and negatives: every key but the anchor itself
mask           which pairs of a row a stage sees: positives, negatives or others (`Pairs`)
similarity     s_ij, the dot product of two embeddings; the cosine where they are normalised
logit          a_ij = value(s_ij) / temperature + bias; its slope is temperature * da_ij/ds_ij; positives may have their own
log-sum-exp    log Σ_j exp(a_ij): the log of a softmax's denominator; a_ij minus it is the log-softmax
fold           what a stage does with a row of masked logits: a log-sum-exp, or a sum of an elementwise function ψ
stage          one masked reduction of each row of logits: r_i
term           one summand of the row's loss: coefficient * r_i + constant
combination    a function of a row's stages: it costs a vector, and no pass over pairs (`Combine`)
counts         a row counts if it has a positive and no log-sum-exp of its terms is over an empty set; "mean" is over these
engine         how a record is evaluated: dense (the N x M matrix), tiled (a tile at a time), kernel (device code)
tile           a block of rows by a block of columns; no larger array of pairs exists in the tiled engine
running max    the largest logit of a row so far; exponentials are taken relative to it and cannot overflow
online softmax log-sum-exps accumulated tile by tile: the sum is rescaled whenever the running max rises
residuals      what the forward pass keeps for the backward: per row the log-sum-exps and sums, never a matrix of pairs
recompute      the backward pass makes the logits of each tile again from the embeddings, as FlashAttention does
cotangent      the gradient of the objective by a value of the forward pass; dL/da_ij is that of a logit

A stage with the elementwise function ψ, over a set of pairs W, is

    r_i = Σ_{j in W_i} ψ(scale * (a_ij - u_i) + offset)          u_i: an earlier log-sum-exp stage, or 0
    r_i = log Σ_{j in W_i} exp(scale * (a_ij - u_i) + offset)    for the fold LOGSUMEXP

(`mean=True` divides the sum by the size of W), and a row's loss is the sum of its terms. From these words alone the
engines derive values, gradients and tilings: a loss never carries a derivative.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

from sincere_spec.arrays import Array, Namespace
from sincere_spec.errors import OptionError
from sincere_spec.spec import checks, printing
from sincere_spec.spec.dictionaries import decode, encode


class Word:
    """A piece of a record that `PairLoss.from_dict` can find again by its class name."""

    known: ClassVar[dict[str, type]] = {}

    def __init_subclass__(cls) -> None:
        other = Word.known.get(cls.__name__, cls)
        if other.__qualname__ != cls.__qualname__ or other.__module__ != cls.__module__:
            raise TypeError(f"{cls.__module__}.{cls.__name__}: {other.__module__} already has a word of that name.")
        Word.known[cls.__name__] = cls  # the newest, where a notebook's cell runs again


class Choice(Enum):
    """An enumeration whose members are hashed as the objects that they are; Enum would hash their names, in Python."""

    __hash__ = object.__hash__  # inherited: torch.compile before 2.13 refuses a class with a hash of its own


class Pairs(Choice):
    """Which columns of a row a stage sees."""

    POSITIVE = "positive"
    NEGATIVE = "negative"
    OTHERS = "others"


class Fold(Choice):
    """The elementwise function ψ that a stage sums, or LOGSUMEXP."""

    LINEAR = "linear"
    EXP = "exp"
    SOFTPLUS = "softplus"
    SIGMOID_SQUARED = "sigmoid_squared"
    HINGE = "hinge"
    SQUARE = "square"
    LOGSUMEXP = "logsumexp"


class Rows(Choice):
    """Which rows a term belongs to, by how many positives they have."""

    ALL = "all"
    ONE_POSITIVE = "one_positive"
    SEVERAL_POSITIVES = "several_positives"


FOLD, PAIRS, ROWS, NAMES = checks.instance(Fold), checks.instance(Pairs), checks.instance(Rows), checks.several(str)
Word.known.update({"Fold": Fold, "Pairs": Pairs, "Rows": Rows})


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

    def __post_init__(self) -> None:
        checks.check_fields(
            self,
            name=checks.TEXT,
            fold=FOLD,
            over=PAIRS,
            scale=checks.NUMBER,
            offset=checks.NUMBER,
            minus=checks.TEXT_OR_NONE,
            mean=checks.FLAG,
        )

    def __str__(self) -> str:
        return printing.stage(self)


Word.known["Reduce"] = Stage  # its name of version 0.1.0, whose dictionaries are read


@dataclass(frozen=True)
class Term(Word):
    """A summand of the row's loss; its constant is there only where the stage has pairs."""

    stage: str
    coefficient: float = 1.0
    constant: float = 0.0
    rows: Rows = Rows.ALL

    def __post_init__(self) -> None:
        checks.check_fields(self, stage=checks.TEXT, coefficient=checks.NUMBER, constant=checks.NUMBER, rows=ROWS)

    def __str__(self) -> str:
        return printing.term(self)


TERMS = checks.several(Term)


@dataclass(frozen=True)
class Combine(Word):
    """A function of a row's stages, and of combinations before it: ψ(t) with t = Σ coefficient r_i + constant over its terms.

    With the fold LOGSUMEXP it is log Σ exp(coefficient r_i + constant). It makes no pass over pairs. A log-sum-exp over nothing
    is -inf: EXP, SOFTPLUS, SIGMOID_SQUARED and HINGE make 0 of it and the row counts, LINEAR and SQUARE make nothing of it, and
    LOGSUMEXP leaves it out and is nothing where all are.
    """

    name: str
    fold: Fold
    of: tuple[Term, ...]

    def __post_init__(self) -> None:
        checks.check_fields(self, name=checks.TEXT, fold=FOLD, of=TERMS)
        if not self.of:
            raise OptionError(f"Combine {self.name!r}: expected the stages that it is of; got none.")
        if any(term.rows is not Rows.ALL for term in self.of):
            raise OptionError(
                f"Combine {self.name!r}: its terms are of all rows; give a kind of rows to the loss's term."
            )

    def __str__(self) -> str:
        return printing.combination(self)


class Logit(Word, ABC):
    """How a similarity becomes a logit, before the division by the temperature.

    `slope` is the derivative that the loss declares. `held` says that it is not the derivative of `value`: part of
    the value is held constant, as published code does for DySTreSS's temperature. `unit_slope` says that the slope is 1,
    and `reach` between which bounds the values lie for similarities from -1 to 1, where that is known.
    """

    held: bool = False
    unit_slope: bool = False
    reach: tuple[float, float] | None = None

    @abstractmethod
    def value(self, xp: Namespace, s: Array) -> Array:
        """The logit of a similarity at temperature 1."""

    @abstractmethod
    def slope(self, xp: Namespace, s: Array) -> Array:
        """The declared derivative of `value`."""


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

    def __post_init__(self) -> None:
        checks.check_fields(self, anchors=NAMES, keys=NAMES, partners=NAMES, both_ways=checks.FLAG, queue=checks.FLAG)

    @property
    def alike(self) -> int:
        """How many columns share a row's label where the arrangement gives the labels: row i of each view, or the partner."""
        return 0 if self.queue else 1 if self.keys else len(self.anchors)

    def sizes(self, lengths: Mapping[str, Any], keys_of_each: int | None = None) -> tuple[Any, Any]:
        """The number of rows and of columns of a call whose arrays have so many rows; None where it is not known yet.

        `keys_of_each` is how many keys each anchor has of its own; None where all are compared with all.
        """
        rows = [lengths[name] for name in self.anchors]
        count = None if any(length is None for length in rows) else sum(rows)
        if keys_of_each is not None:
            return count, keys_of_each
        return count, lengths[self.keys[0]] if self.keys else count

    def holding(self, names: list[str]) -> frozenset[str]:
        """The roles, and the parameters, that some of a call's arguments have."""
        roles = {"anchors": self.anchors, "keys": self.keys, "partners": self.partners}
        held = {role for role, members in roles.items() if any(name in names for name in members)}
        return frozenset(held | ({"temperature", "bias"} & set(names)))


class Arrangement(Word, ABC):
    """How a call's positional arguments become anchors, keys and partners; nothing else knows the shape of a call."""

    labelled: bool = False
    signature: str = ""

    @abstractmethod
    def names(self, count: int) -> tuple[str, ...]:
        """The names of `count` positional arrays; raises SignatureError if the call cannot take so many."""

    @abstractmethod
    def roles(self, names: tuple[str, ...]) -> Roles:
        """Who is compared with whom, given the arrays that came."""


ARRANGEMENT, LOGIT = checks.instance(Arrangement), checks.instance(Logit)
STAGES, COMBINED, LOGIT_OR_NONE = checks.several(Stage), checks.several(Combine), checks.optional(LOGIT)


@dataclass(frozen=True, repr=False)
class PairLoss(Word):
    """A loss, as a value: it compares, hashes, pickles, prints, and round-trips through `to_dict` and `from_dict`.

    Give one to `evaluate` or `value_and_gradient`. One of your own, written with the words of `sincere_spec.spec`, has
    values, gradients and every engine with no further code. `temperature` and `bias` may be 0-d arrays, which then
    receive gradients (such a record is not hashable where its framework's arrays are not); nothing else may. Terms name
    stages, or what is `combined` of them. If there is a `positive_logit` it is that of positives, in stages over others, too.

    Raises:
        OptionError: a field of another type, a stage or term that names no stage, or a number that is not finite.

    Example:
        >>> import numpy as np, sincere_spec as ss
        >>> from sincere_spec.spec import Fold, PairLoss, Pairs, Similarity, Stage, Term, Towers
        >>> noise = Stage("noise", Fold.LOGSUMEXP, over=Pairs.NEGATIVE)
        >>> attract = Stage("attract", Fold.LINEAR, over=Pairs.POSITIVE)
        >>> terms = (Term("noise"), Term("attract", -1.0))
        >>> mine = PairLoss("mine", Towers(both_ways=True), (noise, attract), terms, Similarity(), temperature=0.5)
        >>> mine
        <mine: temperature=0.5, logit=Similarity(); noise = logsumexp(a) over negative; attract = sum a over positive;
        loss = noise - attract>
        >>> value, gradient = ss.value_and_gradient(mine, np.eye(3), np.eye(3))
        >>> round(float(value), 4)
        -1.3069
    """

    name: str
    arrangement: Arrangement
    stages: tuple[Stage, ...]
    terms: tuple[Term, ...]
    logit: Logit
    temperature: float | Array = 1.0
    bias: float | Array = 0.0
    combined: tuple[Combine, ...] = ()
    positive_logit: Logit | None = None

    def __post_init__(self) -> None:
        checks.check_fields(
            self,
            name=checks.TEXT,
            arrangement=ARRANGEMENT,
            stages=STAGES,
            terms=TERMS,
            logit=LOGIT,
            temperature=checks.TEMPERATURE,
            bias=checks.PARAMETER,
            combined=COMBINED,
            positive_logit=LOGIT_OR_NONE,
        )
        for word in (self.arrangement, self.logit, self.positive_logit):
            checks.hold_no_array(word)
        folds: dict[str, Fold] = {}
        for stage in self.stages:
            if stage.name in folds:
                raise OptionError(f"{self.name}: two stages are called {stage.name!r}; give each a name of its own.")
            if stage.minus is not None and folds.get(stage.minus) is not Fold.LOGSUMEXP:
                raise OptionError(
                    f"{self.name}: stage {stage.name!r} subtracts {stage.minus!r}, which is no earlier log-sum-exp "
                    "stage; what is combined is of whole rows, and after all stages: combine it with their results."
                )
            folds[stage.name] = stage.fold
        known = dict.fromkeys(folds)
        for one in self.combined:
            if one.name in known:
                raise OptionError(f"{self.name}: two stages are called {one.name!r}; give each a name of its own.")
            self._check_names(one.of, known)
            known[one.name] = None
        if not self.terms:
            raise OptionError(f"{self.name}: a loss needs at least one term.")
        self._check_names(self.terms, known)

    def _check_names(self, terms: tuple[Term, ...], known: Mapping[str, None]) -> None:
        for term in terms:
            if term.stage not in known:
                raise OptionError(
                    f"{self.name}: a term names {term.stage!r}, but the stages are {', '.join(known) or 'none'}."
                )

    def __repr__(self) -> str:
        return printing.loss(self)

    def logit_of(self, kind: Pairs) -> Logit:
        """The logit of positives, or of negatives."""
        return self.logit if self.positive_logit is None or kind is not Pairs.POSITIVE else self.positive_logit

    def to_dict(self) -> dict[str, Any]:
        """The record as plain numbers, strings and lists, ready for JSON."""
        encoded: dict[str, Any] = encode(self)
        return encoded

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> PairLoss:
        """The record that `to_dict` wrote; raises OptionError for anything else."""
        record = decode(data, Word.known)
        if not isinstance(record, cls):
            raise OptionError(
                f"expected a dictionary written by PairLoss.to_dict; got that of a {type(record).__name__}."
            )
        return record
