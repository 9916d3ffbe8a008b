"""What is judged: this package, through its public functions, in one framework."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sincere_spec as ss
from sincere_spec.conformance.frameworks import Differentiated, Framework
from sincere_spec.conformance.judge import Answer, Unsupported
from sincere_spec.conformance.questions import DIGITS, LARGE, Array, Question

__all__ = ["Package", "called"]


class Package:
    """The losses of `sincere_spec` on the arrays of a framework.

    Labels come in every way that is promised: NumPy's with plain numbers, the framework's own with its gradients, and
    lists with the formula.
    """

    def __init__(self, framework: Framework) -> None:
        self.framework_ = framework
        self.framework = framework.listing.name
        self._compiled: dict[tuple[object, ...], Differentiated] = {}

    def routes(self, question: Question) -> tuple[str, ...]:
        """Plain numbers, the framework's own gradient, and the formula's; on real data only one of these."""
        listing = self.framework_.listing
        if question.gradient is None:
            return ("plain", *(listing.compilers if question.compiled else ()))
        if question.compiled:
            return listing.compilers
        if question.profile in (DIGITS, LARGE):
            return (listing.at_scale,)
        own = ("autograd",) if listing.autograd else ()
        formula = () if listing.autograd and question.reduction == "none" else ("formula",)
        return ("plain", *own, *formula)

    def answer(self, question: Question, dtype: str, engine: str, route: str) -> Answer:
        """See `judge.Implementation`."""
        try:
            if route == "plain":
                return self._plain(question, dtype, engine)
            if route == "formula":
                return self._formula(question, dtype, engine)
            return self._differentiated(question, dtype, engine, route)
        except ss.EngineUnavailable as reason:
            raise Unsupported(str(reason)) from None

    def _plain(self, question: Question, dtype: str, engine: str) -> Answer:
        arrays = self._arrays(question.arrays, dtype)
        value = _function(question)(
            *_positional(question, arrays, question.integers), **_keywords(question, arrays, engine)
        )
        return Answer(self.framework_.read(value))

    def _formula(self, question: Question, dtype: str, engine: str) -> Answer:
        if question.reduction == "none":
            raise Unsupported('value_and_gradient differentiates scalars, and "none" gives a vector')
        arrays = self._arrays(question.arrays, dtype) | self._parameters(question, dtype)
        integers = {name: x.tolist() for name, x in question.integers.items()}
        options = dict(question.options) | {name: arrays.pop(name) for name in question.parameters}
        record = getattr(ss.losses, question.loss)(**options)
        keywords = _settings(question, arrays, integers, engine)
        value, gradient = ss.value_and_gradient(record, *_positional(question, arrays, integers), **keywords)
        names = (*arrays, *question.parameters)
        gradients = {names[0]: gradient} if len(names) == 1 else gradient._asdict()
        read = self.framework_.read
        return Answer(read(value), {name: read(x) for name, x in gradients.items()}, under_cotangent=False)

    def _differentiated(self, question: Question, dtype: str, engine: str, route: str) -> Answer:
        read = self.framework_.read

        def function(arrays: dict[str, Any], integers: dict[str, Any]) -> Any:
            return called(question, arrays, integers, engine=engine)

        key = (question.structure, dtype, engine, route)
        both = self._compiled.get(key) or self.framework_.differentiated(function, route)
        if route != "autograd" and question.profile != DIGITS:  # a large program is kept only for as long as it is used
            self._compiled[key] = both
        arrays = self._arrays(question.arrays, dtype) | self._parameters(question, dtype)
        integers = {name: self.framework_.integers(x) for name, x in question.integers.items()}
        cotangent = self.framework_.array(question.cotangent, "float64" if dtype == "float64" else "float32")
        value, gradients = both(arrays, integers, cotangent)
        if question.gradient is None:
            return Answer(read(value))
        return Answer(read(value), {name: None if x is None else read(x) for name, x in gradients.items()})

    def _arrays(self, arrays: dict[str, Array], dtype: str) -> dict[str, Any]:
        return {name: self.framework_.array(x, dtype) for name, x in arrays.items()}

    def _parameters(self, question: Question, dtype: str) -> dict[str, Any]:
        import numpy

        return self._arrays({name: numpy.asarray(x) for name, x in question.parameters.items()}, dtype)


def called(
    question: Question, arrays: Mapping[str, Any], integers: Mapping[str, Any], *, engine: str, **options: Any
) -> Any:
    """The loss of a question on arrays, parameters among them, and integers; `options` are other keywords of its function."""
    given = {name: arrays[name] for name in question.parameters}
    inputs = {name: x for name, x in arrays.items() if name not in given}
    keywords = _keywords(question, inputs, engine, dict(integers)) | given | options
    return _function(question)(*_positional(question, inputs, dict(integers)), **keywords)


def _function(question: Question) -> Any:
    return getattr(ss, f"{question.loss}_loss")


def _positional(question: Question, arrays: dict[str, Any], integers: dict[str, Any]) -> tuple[Any, ...]:
    if "embeddings" in arrays:
        return arrays["embeddings"], integers["labels"]
    return tuple(arrays[name] for name in question.arguments)  # not the order of the dict: jax sorts it


def _settings(question: Question, arrays: dict[str, Any], integers: dict[str, Any], engine: str) -> dict[str, Any]:
    """The keywords that every loss has, and a memory with its labels."""
    memory = {name: arrays[name] for name in ("keys",) if name in arrays}
    memory |= {name: x for name, x in integers.items() if name != "labels"}
    asked = {"normalize": question.normalize, "reduction": question.reduction, "engine": engine, "tile": question.tile}
    return {**memory, **asked}


def _keywords(
    question: Question, arrays: dict[str, Any], engine: str, integers: dict[str, Any] | None = None
) -> dict[str, Any]:
    given = question.integers if integers is None else integers
    return dict(question.options) | _settings(question, arrays, given, engine)
