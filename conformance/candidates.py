"""Anyone's implementation of a loss, named as `package.module:callable`, judged as the loss with one reduction."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

import sincere_spec as ss
from sincere_spec.conformance.cases import REDUCTIONS
from sincere_spec.conformance.frameworks import FRAMEWORKS, Framework, constants
from sincere_spec.conformance.judge import Answer, Unsupported
from sincere_spec.conformance.questions import RELATED, Question
from sincere_spec.conformance.text import of_error
from sincere_spec.errors import OptionError, unknown_choice

__all__ = ["Candidate", "Foreign", "Refused", "usual", "weighs_alike"]

SHORT = {"z": "embeddings", "y": "labels", "t": "temperature"}
"""What an expression may call the usual arguments, beside f, the callable."""

ALSO = {"tau": "temperature", "temp": "temperature", "features": "embeddings", "classes": "labels", "targets": "labels"}
"""What parameters of a callable are called, too."""

AVERAGES = ("mean", "pairs", "batch")  # reductions that are the same where every row weighs the same


class Refused(Exception):
    """The implementation cannot be put to the question at all; the message says why."""


@dataclass(frozen=True)
class Candidate:
    """An implementation by name, the expression that calls it, and the reduction that its value has.

    Without an expression it gets its arguments in the usual order.
    """

    target: str
    call: str = ""
    reduction: str = "mean"

    def __post_init__(self) -> None:
        module, colon, name = self.target.partition(":")
        if not (module and colon and name):
            raise OptionError(f"impl must be package.module:callable; got {self.target!r}.")
        try:
            compile(self.call or "f()", "call", "eval")
        except SyntaxError as error:
            raise OptionError(
                f"call must be an expression such as f(z, y, t); got {self.call!r}: {error.msg}."
            ) from None
        if self.reduction not in REDUCTIONS:
            raise unknown_choice("reduction", self.reduction, REDUCTIONS)

    def to_dict(self) -> dict[str, str]:
        """Its fields, ready for JSON."""
        return asdict(self)

    @property
    def names(self) -> set[str] | None:
        """The arguments that the expression names; None if there is none."""
        if not self.call:
            return None
        return {SHORT.get(name, name) for name in compile(self.call, "call", "eval").co_names}

    def load(self, framework: str) -> Callable[..., Any]:
        """Import it; raises `Refused` where that fails, or brings another framework into the process."""
        before = set(sys.modules)
        module, _, name = self.target.partition(":")
        sys.path.insert(0, "")  # as for a program that is started here
        try:
            found: Any = importlib.import_module(module)
            for part in name.split("."):
                found = getattr(found, part)
        except BaseException as error:
            raise Refused(f"{self.target} cannot be imported: {of_error(error)}") from error
        others = {other for other in FRAMEWORKS if other not in (framework, "numpy", "array_api_strict")}
        brought = others & (set(sys.modules) - before)
        if brought:
            raise Refused(f"{self.target} imports {', '.join(sorted(brought))}, and is judged in {framework}.")
        if not (callable(found) or self.call):
            raise Refused(f"{self.target} is a {type(found).__name__}, which cannot be called.")
        loaded: Callable[..., Any] = found
        return loaded


class Foreign:
    """A candidate, loaded, on the arrays of a framework: rows of any norm, labels as integers, the temperature as a number."""

    def __init__(self, framework: Framework, candidate: Candidate, function: Callable[..., Any]) -> None:
        self.framework_, self.framework = framework, framework.listing.name
        self._names, self._reduction, self._function = candidate.names, candidate.reduction, function
        self._parameters = _parameters(function)
        self._code = compile(candidate.call, "call", "eval") if candidate.call else None
        packages = (candidate.target.partition(":")[0].partition(".")[0], self.framework)
        self._packages = {name: sys.modules[name] for name in packages if name in sys.modules}

    @staticmethod
    def asked(question: Question) -> Question:
        """The question without the gradients of numbers, which an implementation is given as such."""
        wanted = question.gradient
        if wanted is None:
            return question
        return replace(question, gradient={name: x for name, x in wanted.items() if name in question.arrays})

    def routes(self, question: Question) -> tuple[str, ...]:
        """Its framework's own gradient, or only the value where there is none."""
        return ("autograd" if self.framework_.listing.autograd and question.gradient is not None else "plain",)

    def answer(self, question: Question, dtype: str, engine: str, route: str) -> Answer:
        """See `judge.Implementation`."""
        self._check(question)
        read = self.framework_.read
        arrays = {name: self.framework_.array(x, dtype) for name, x in question.arrays.items()}
        integers = constants(self.framework_, question, dtype)
        if route == "plain":
            return Answer(read(self._called(question, arrays, integers)))
        cotangent = self.framework_.array(question.cotangent, "float64" if dtype == "float64" else "float32")
        both = self.framework_.differentiated(lambda x, y: self._called(question, x, y), "autograd")
        value, gradients = both(arrays, integers, cotangent)
        return Answer(read(value), {name: None if x is None else read(x) for name, x in gradients.items()})

    def _check(self, question: Question) -> None:
        """Raise `Unsupported` for what the call cannot say."""
        if question.reduction != self._reduction and not weighs_alike(question, self._reduction):
            raise Unsupported(f'the reduction is "{question.reduction}", and its own is judged as "{self._reduction}"')
        if not question.normalize:
            raise Unsupported("the rows are not to be normalised, and its own are judged as normalised")
        if "embeddings" in question.arrays and question.arrays["embeddings"].ndim > 2:
            raise Unsupported("the views of a sample come as one array, and its own rows as [n, d]")
        defaults = _defaults(question)
        options = {name: x for name, x in question.options.items() if not isinstance(x, str)}  # words make it a row
        special = {name for name, x in options.items() if x != defaults.get(name)} | question.relations
        beyond = (special | set(question.arguments)) - (self._taken(question) if self._names is None else self._names)
        if beyond:
            raise Unsupported(f"its call takes no {', '.join(sorted(beyond))}")

    def _called(self, question: Question, arrays: Mapping[str, Any], integers: Mapping[str, Any]) -> Any:
        if self._code is None:
            given = {"labels": None, **question.options, **arrays, **integers}
            places, keywords = self._places(question)
            return self._function(*(given[x] for x in places), **{name: given[x] for name, x in keywords.items()})
        absent = {name: None for name, default in _defaults(question).items() if default is None}
        absent |= dict.fromkeys((*RELATED, *(f"guide_{name}" for name in question.arrays), "labels"))
        names = {**absent, **question.options, **arrays, **integers, "f": self._function}
        names |= {short: names[name] for short, name in SHORT.items() if name in names}
        return eval(self._code, {**self._packages, **names})

    def _taken(self, question: Question) -> set[str]:
        """The arguments and options that a call without an expression passes."""
        places, keywords = self._places(question)
        return {*places, *keywords.values()}

    def _places(self, question: Question) -> tuple[list[str], dict[str, str]]:
        """Which of the question's arguments and options go by their place, and which by which keyword.

        Names are read from the signature. Where every place that must be filled has a name that is known, all go by name;
        otherwise those that go by place have the usual order.
        """
        arguments = list(question.arguments)
        if "embeddings" in arguments and "labels" not in arguments:  # something stands in their place: they are None
            arguments.insert(1, "labels")
        asked = {*arguments, *question.options}
        order = [name for name in (*arguments, *question.parameters) if name in usual(question)]
        if self._parameters is None:
            return order, {}
        meant = {p.name: _meant(p.name, asked) for p in self._parameters}
        named = {p.name: meant[p.name] for p in self._parameters if p.kind is p.KEYWORD_ONLY and meant[p.name]}
        in_place = [p for p in self._parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        by_name = [p for p in in_place if p.kind is p.POSITIONAL_OR_KEYWORD and meant[p.name]]
        if in_place and all(p in by_name or p.default is not p.empty for p in in_place):
            return [], named | {p.name: meant[p.name] for p in by_name}
        left = [name for name in order if name not in named.values()]
        open_ended = any(p.kind is p.VAR_POSITIONAL for p in self._parameters)
        return left if open_ended else left[: len(in_place)], named


def _parameters(function: Callable[..., Any]) -> tuple[inspect.Parameter, ...] | None:
    """The parameters of a callable, or None where it does not say."""
    try:
        return tuple(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return None


def _meant(name: str, asked: set[str]) -> str:
    """The argument or option that a parameter of this name is, or nothing."""
    return next((x for x in (name, SHORT.get(name, ""), ALSO.get(name, "")) if x in asked), "")


def _defaults(question: Question) -> dict[str, Any]:
    """The keywords of the loss's function."""
    parameters = inspect.signature(getattr(ss, f"{question.loss}_loss")).parameters
    return {name: parameter.default for name, parameter in parameters.items()}


def weighs_alike(question: Question, reduction: str) -> bool:
    """Whether another average is the question's own: its rows have equally many positives, or all of them count."""
    if not {question.reduction, reduction} <= set(AVERAGES) or "ids" in question.arguments or question.relations:
        return False
    if "labels" not in question.arguments:
        return True
    labels = question.arguments["labels"]
    same = labels[:, None] == question.arguments.get("key_labels", labels)[None, :]
    itself = np.eye(len(labels), dtype=bool) if "keys" not in question.arguments else np.zeros_like(same)
    positives = np.sum(same & ~itself, axis=1)
    counts = positives > 0
    if not np.any(counts):
        return True
    used = {question.reduction, reduction}
    return not ("batch" in used and not np.all(counts)) and not ("pairs" in used and len(set(positives[counts])) > 1)


def usual(question: Question) -> set[str]:
    """What a call in the usual order has: all arrays of a loss of views, of a labelled one those of a batch; parameters."""
    arrays = {"embeddings", "labels"} if "embeddings" in question.arrays else set(question.arrays) - set(RELATED)
    return arrays | set(question.parameters)
