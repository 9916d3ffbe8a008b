"""A problem's value and gradient as functions of its arrays alone: what a framework's automatic differentiation is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias, cast

from sincere_spec.arrays import COMPUTE_DTYPE, Array
from sincere_spec.call.check import Problem
from sincere_spec.call.plan import Plan
from sincere_spec.engines import dense, kernel, tiled, traced
from sincere_spec.engines.comparison import Comparison, Gradients, Halves, gather, ones_by_row, scatter
from sincere_spec.engines.normalise import Normalised, halved, in_blocks, normalise, pull_back
from sincere_spec.interface import Kernels

ByRows: TypeAlias = Callable[..., tuple[Array, ...]]
"""Calls its first argument, a function of rows, with the arrays that follow."""


@dataclass(frozen=True)
class Steps:
    """Forward and backward of one problem under one plan, for arrays in the order of `Problem.arguments`.

    `near` is what `traced.near` says of the temperature, if that is known. `kind` is the dtype in which the embeddings came:
    they may have been raised since.
    """

    problem: Problem
    plan: Plan
    kind: str
    near: bool | None = None

    def exact(self, *arrays: Array) -> Array:
        """The value by the dense engine's composite, which the framework can differentiate to any order."""
        problem = self._with(arrays)
        embedded = _embedded(problem, _at_once)
        comparison = _comparison(problem, embedded)
        value = dense.value(problem.backend, problem.loss, comparison, *_parameters(problem), problem.reduction)
        return _propagate_non_finite(problem, embedded, value)

    def value(self, *arrays: Array) -> Array:
        """The value where no gradient will be asked for."""
        return self.exact(*arrays) if self.plan.tile is None else self.forward(arrays, (False,) * len(arrays))[0]

    def forward(self, arrays: tuple[Array, ...], wanted: tuple[bool, ...]) -> tuple[Array, Any]:
        """The value, and what `backward` wants to have kept: statistics of the tiles, or on whole matrices all of it."""
        problem = self._with(arrays)
        embedded = _embedded(problem, self._by_rows)
        common = (
            cast(Any, problem.backend),
            problem.loss,
            self._comparison(problem, embedded),
            *_parameters(problem),
            problem.reduction,
        )
        saved: Any
        if self.plan.tile is None:
            value, gradients = dense.value_and_gradient(*common, problem.roles.holding(self._names(wanted)))
            saved = self._by_array(problem, embedded, gradients, wanted)
        elif self.plan.engine == "kernel":
            value, saved = kernel.forward(*common, self._kernels, self.plan.tile)
        elif problem.backend.traces:
            value, saved = traced.forward(*common, self.plan.tile, problem.normalize, self.near)
        else:
            value, saved = tiled.forward(*common, self.plan.tile)
        return _propagate_non_finite(problem, embedded, value), saved

    def backward(
        self, arrays: tuple[Array, ...], saved: Any, cotangent: Array | None, wanted: tuple[bool, ...]
    ) -> tuple[Array | None, ...]:
        """The gradient by each array that is wanted, under the value's cotangent (None is 1)."""
        if self.plan.tile is None:
            if cotangent is not None:
                saved = tuple(None if gradient is None else gradient * cotangent for gradient in saved)
            return self._cast(saved)
        problem = self._with(arrays)
        embedded = _embedded(problem, self._by_rows)
        common = (
            cast(Any, problem.backend),
            problem.loss,
            self._comparison(problem, embedded),
            *_parameters(problem),
            problem.reduction,
        )
        asked = (saved, 1.0 if cotangent is None else cotangent, problem.roles.holding(self._names(wanted)))
        if self.plan.engine == "kernel":
            gradients = kernel.backward(*common, self._kernels, self.plan.tile, *asked)
        elif problem.backend.traces:
            gradients = traced.backward(*common, self.plan.tile, problem.normalize, self.near, *asked)
        else:
            gradients = tiled.backward(*common, self.plan.tile, *asked)
        return self._cast(self._by_array(problem, embedded, gradients, wanted))

    def _comparison(self, problem: Problem, embedded: dict[str, Normalised]) -> Comparison:
        """The comparison as the engine wants it: kernels multiply half types as they came."""
        comparison = _comparison(problem, embedded)
        if self.plan.engine != "kernel" or COMPUTE_DTYPE[self.kind] == self.kind:
            return comparison
        backend = problem.backend
        dtype = backend.dtype(self.kind, comparison.anchors)
        rows, factors = {}, {}
        for name, x in problem.embeddings.items():
            if problem.normalize:
                rows[name], factors[name] = halved(backend, _raised(problem, x), embedded[name], dtype)
            else:
                xp = backend.namespace(x)
                rows[name], factors[name] = xp.astype(x, dtype), ones_by_row(xp, embedded[name].rows)
        xp = backend.namespace(comparison.anchors)
        (anchors, keys, _), (anchor_factors, key_factors, _) = (gather(xp, problem.roles, x) for x in (rows, factors))
        return replace(comparison, halves=Halves(anchors, keys, anchor_factors, key_factors))

    def _names(self, wanted: tuple[bool, ...]) -> list[str]:
        return [name for name, want in zip(self.problem.arguments, wanted, strict=True) if want]

    def _by_array(
        self, problem: Problem, embedded: dict[str, Normalised], gradients: Gradients, wanted: tuple[bool, ...]
    ) -> tuple[Array | None, ...]:
        """From the gradient by roles to that by each array that is wanted, still in the compute dtype."""
        backend, names = problem.backend, self._names(wanted)
        by_name = scatter(backend, problem.roles, problem.embeddings, gradients)
        by_name |= {"temperature": gradients.temperature, "bias": gradients.bias}
        result: list[Array | None] = []
        for name in problem.arguments:
            if name not in names:
                result.append(None)
                continue
            gradient = by_name[name]
            if problem.normalize and name in embedded:
                gradient = self._pulled_back(problem.embeddings[name], embedded[name], gradient)
            result.append(gradient)
        return tuple(result)

    def _pulled_back(self, given: Array, embedded: Normalised, gradient: Array) -> Array:
        backend = self.problem.backend
        if self.plan.tile is None:
            return pull_back(backend, embedded, gradient)

        def pull(given: Array, size: Array, norm: Array, gradient: Array) -> tuple[Array, ...]:
            rows = _raised(self.problem, given) / size / norm  # made again, so that nothing need keep them until here
            return (pull_back(backend, Normalised(rows, size, norm), gradient),)

        (result,) = self._by_rows(pull, given, embedded.size, embedded.norm, gradient)
        return result

    @property
    def _by_rows(self) -> ByRows:
        """How what is done to each row is done to all: a block at a time beside tiles."""
        return partial(in_blocks, self.problem.backend) if self.plan.engine == "tiled" else _at_once

    @property
    def _kernels(self) -> Kernels:
        """The backend's kernels, which the plan has found."""
        problem = self.problem
        kernels = problem.backend.kernels(next(iter(problem.embeddings.values())), problem.loss.logit)
        assert not isinstance(kernels, str), kernels
        return kernels

    def _cast(self, gradients: tuple[Array | None, ...]) -> tuple[Array | None, ...]:
        """Gradients in the dtypes of their arrays: rounded once, at the end."""
        arrays = self.problem.arguments.values()
        xp = self.problem.backend.namespace(next(iter(arrays)))
        return tuple(
            gradient if gradient is None or gradient.dtype == x.dtype else xp.astype(gradient, x.dtype)
            for x, gradient in zip(arrays, gradients, strict=True)
        )

    def _with(self, arrays: tuple[Array, ...]) -> Problem:
        if all(x is y for x, y in zip(arrays, self.problem.arguments.values(), strict=True)):
            return self.problem
        given = dict(zip(self.problem.arguments, arrays, strict=True))
        embeddings = {name: given[name] for name in self.problem.embeddings}
        return replace(
            self.problem,
            embeddings=embeddings,
            temperature=given.get("temperature", self.problem.temperature),
            bias=given.get("bias", self.problem.bias),
        )


def _raised(problem: Problem, x: Array) -> Array:
    """An array in the dtype in which the loss is computed."""
    backend = problem.backend
    kind = backend.dtype_name(x)
    if COMPUTE_DTYPE[kind] == kind:
        return x
    return backend.namespace(x).astype(x, backend.dtype(COMPUTE_DTYPE[kind], x))


def _at_once(function: Callable[..., tuple[Array, ...]], *arrays: Array) -> tuple[Array, ...]:
    return function(*arrays)


def _embedded(problem: Problem, by_rows: ByRows) -> dict[str, Normalised]:
    """The embeddings as they are compared: in the compute dtype, and on the sphere if they are to be normalised."""
    backend = problem.backend

    def embed(rows: Array) -> tuple[Array, ...]:
        made = normalise(backend, _raised(problem, rows))
        return made.rows, made.size + 0.0 * made.norm, made.norm

    if not problem.normalize:
        return {name: Normalised(_raised(problem, x), 1.0, 1.0) for name, x in problem.embeddings.items()}
    if by_rows is _at_once:
        return {name: normalise(backend, _raised(problem, x)) for name, x in problem.embeddings.items()}
    return {name: Normalised(*by_rows(embed, x)) for name, x in problem.embeddings.items()}


def _parameters(problem: Problem) -> tuple[float | Array, float | Array]:
    """Temperature and bias in the compute dtype; an array of a temperature is NaN unless it is positive."""
    backend = problem.backend
    like = next(iter(problem.embeddings.values()))
    dtype = backend.dtype(COMPUTE_DTYPE[backend.dtype_name(like)], like)
    temperature, bias = problem.temperature, problem.bias
    if not isinstance(temperature, float):
        xp = backend.namespace(temperature)
        temperature = xp.astype(temperature, dtype)
        valid = (temperature > 0.0) & (temperature < float("inf"))
        temperature = xp.where(valid, temperature, float("nan"))
    if not isinstance(bias, float):
        bias = backend.namespace(bias).astype(bias, dtype)
    return temperature, bias


def _comparison(problem: Problem, embedded: dict[str, Normalised]) -> Comparison:
    rows = {name: x.rows for name, x in embedded.items()}
    xp = problem.backend.namespace(next(iter(rows.values())))
    return Comparison(
        *gather(xp, problem.roles, rows),
        problem.labels,
        problem.key_labels,
        problem.ids,
        problem.key_ids,
        problem.roles.both_ways,
        problem.distinct,
        None if problem.loss.arrangement.labelled else problem.roles.alike,
        problem.normalize,
    )


def _propagate_non_finite(problem: Problem, embedded: dict[str, Normalised], value: Array) -> Array:
    """The value, or NaN where an embedding is not finite: a mask could have hidden it, and a logit of -inf has no weight."""
    backend = problem.backend
    for x in embedded.values():
        if problem.normalize and isinstance(x.size, float):  # seen to be ordinary
            continue
        looked_at = x.norm if problem.normalize else x.rows  # a norm tells as much as its row
        value = value + backend.namespace(value).sum(backend.hold(looked_at) * 0.0)
    return value
