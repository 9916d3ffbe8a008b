"""What is judged: this package, through its public functions, in one framework."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sincere_spec as ss
from sincere_spec.conformance.frameworks import Differentiated, Framework, constants
from sincere_spec.conformance.judge import Answer, Unsupported
from sincere_spec.conformance.questions import DIGITS, LARGE, OF_RELATIONS, Array, Question

__all__ = ["Package", "called"]


class Package:
    """The losses of `sincere_spec` on the arrays of a framework.

    Labels, groups and masks come in every way that is promised: NumPy's with plain numbers, the framework's own with its
    gradients, and lists with the formula. Classes, weights and guides are always the framework's own.
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
        arrays, given = self._arrays(question.arrays, dtype), self._own(question, dtype) | _foreign(question.integers)
        value = _function(question)(*_positional(question, arrays, given), **_keywords(question, arrays, engine, given))
        return Answer(self.framework_.read(value))

    def _formula(self, question: Question, dtype: str, engine: str) -> Answer:
        if question.reduction == "none":
            raise Unsupported('value_and_gradient differentiates scalars, and "none" gives a vector')
        arrays = self._arrays(question.arrays, dtype) | self._parameters(question, dtype)
        lists = {name: x.tolist() for name, x in _foreign(question.integers).items()}
        integers = self._own(question, dtype) | lists
        options = _options(question) | {name: arrays.pop(name) for name in question.parameters}
        record = getattr(ss.losses, question.loss)(**options)
        keywords = _settings(question, arrays, integers, engine)
        value, gradient = ss.value_and_gradient(record, *_positional(question, arrays, integers), **keywords)
        names = (*arrays, *question.parameters)
        gradients = {names[0]: gradient} if len(names) == 1 else dict(zip(names, gradient, strict=True))
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
        integers = self._own(question, dtype)
        cotangent = self.framework_.array(question.cotangent, "float64" if dtype == "float64" else "float32")
        value, gradients = both(arrays, integers, cotangent)
        if question.gradient is None:
            return Answer(read(value))
        return Answer(read(value), {name: None if x is None else read(x) for name, x in gradients.items()})

    def _own(self, question: Question, dtype: str) -> dict[str, Any]:
        return constants(self.framework_, question, dtype)

    def _arrays(self, arrays: dict[str, Array], dtype: str) -> dict[str, Any]:
        return {name: self.framework_.array(x, dtype) for name, x in arrays.items()}

    def _parameters(self, question: Question, dtype: str) -> dict[str, Any]:
        import numpy

        return self._arrays({name: numpy.asarray(x) for name, x in question.parameters.items()}, dtype)


def called(
    question: Question, arrays: Mapping[str, Any], integers: Mapping[str, Any], *, engine: str, **options: Any
) -> Any:
    """The loss of a question on arrays, parameters among them, and constants; `options` are other keywords of its function."""
    given = {name: arrays[name] for name in question.parameters}
    inputs = {name: x for name, x in arrays.items() if name not in given}
    keywords = _keywords(question, inputs, engine, integers) | given | options
    return _function(question)(*_positional(question, inputs, integers), **keywords)


def _function(question: Question) -> Any:
    return getattr(ss, f"{question.loss}_loss")


def _options(question: Question) -> dict[str, Any]:
    """The keywords of a loss's record."""
    return {name: x for name, x in question.options.items() if name not in OF_RELATIONS}


def _foreign(integers: Mapping[str, Any]) -> dict[str, Any]:
    """What need not be of the framework: all but classes, which are multiplied."""
    return {name: x for name, x in integers.items() if name not in ("classes", "key_classes")}


def _positional(question: Question, arrays: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[Any, ...]:
    if "embeddings" in arrays:
        return arrays["embeddings"], _labels(question, given)
    return tuple(arrays[name] for name in question.names)  # not the order of the dict: jax sorts it


def _labels(question: Question, given: Mapping[str, Any]) -> Any:
    """Labels, or what stands in their place."""
    for name in ("positive_pairs", "positive_weights"):
        if name in given:
            return ss.positives(given[name])
    if "classes" not in given:
        return given["labels"]
    both = (given["classes"], given["key_classes"]) if "key_classes" in given else given["classes"]
    return ss.overlap(both, "any" if question.options["overlap"] == "any" else "jaccard")


def _beside(question: Question, arrays: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords `where` and `ignore`: of all arrays one, or a tuple with one for each, that of keys or a queue last."""
    names = [name for name in question.names if name not in ("keys", "negatives", "own_negatives")]
    alone = len(names) == len(question.names)

    def spread(name: str) -> Any:
        own, others = given.get(name), given.get(f"key_{name}")
        return own if alone else (*(own for _ in names), others)

    asked: dict[str, Any] = {}
    if "where" in given or "key_where" in given:
        asked["where"] = spread("where")
    ignored: list[Any] = []
    if "groups" in given:
        ignored.append(ss.same(spread("groups")))
    if "ignore" in given:
        ignored.append(given["ignore"])
    if "margin" in question.options:
        guides = (given[f"guide_{name}"] for name in question.names)
        ignored.append(ss.guide(*guides, margin=float(question.options["margin"])))
    if ignored:
        asked["ignore"] = ignored[0] if len(ignored) == 1 else tuple(ignored)
    return asked


def _settings(question: Question, arrays: Mapping[str, Any], given: Mapping[str, Any], engine: str) -> dict[str, Any]:
    """The keywords that every loss has, and a memory with its labels."""
    memory = {name: arrays[name] for name in ("keys",) if name in arrays}
    memory |= {name: given[name] for name in ("key_labels", "ids", "key_ids") if name in given}
    asked = {"normalize": question.normalize, "reduction": question.reduction, "engine": engine, "tile": question.tile}
    return {**memory, **_beside(question, arrays, given), **asked}


def _keywords(question: Question, arrays: Mapping[str, Any], engine: str, given: Mapping[str, Any]) -> dict[str, Any]:
    return _options(question) | _settings(question, arrays, given, engine)
