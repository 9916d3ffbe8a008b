"""Steps for frameworks that compile: functions of a description that hashes, and of arrays.

What was compiled is found again by the description, and all arrays are arguments: a new temperature, new labels or another
batch of the same size compile nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from sincere_spec.call import COMPUTE_DTYPE, Problem
from sincere_spec.engines import traced
from sincere_spec.engines.padded import fitted
from sincere_spec.engines.plan import Plan
from sincere_spec.protocol import PairLoss, Roles
from sincere_spec.steps import Steps
from sincere_spec.types import Array, Differentiable, TracingBackend

PARAMETERS = ("temperature", "bias")


@dataclass(frozen=True)
class Description:
    """What of a problem and its plan is no array."""

    backend: TracingBackend
    plan: Plan
    loss: PairLoss
    roles: Roles
    arguments: tuple[str, ...]
    distinct: bool
    normalize: bool
    reduction: str
    kind: str
    near: bool | None

    @property
    def numbers(self) -> tuple[str, ...]:
        """The parameters that came as numbers: arrays without a gradient."""
        return tuple(name for name in PARAMETERS if name not in self.arguments)

    @property
    def scalar(self) -> bool:
        """Whether the value is a scalar, not a vector by row."""
        return self.reduction != "none"

    def steps(self, constants: tuple[Array, ...]) -> Differentiable:
        """The steps of a problem of this description."""
        return CompiledSteps(self, constants)

    def opened(self, constants: Sequence[Array], arrays: Sequence[Array]) -> tuple[Steps, tuple[Array, ...]]:
        """The steps to be compiled, whose arguments are all parameters, too; and these."""
        labels, key_labels, ids, key_ids, *numbers = constants
        given = dict(zip((*self.arguments, *self.numbers), (*arrays, *numbers), strict=True))
        embeddings = {name: x for name, x in given.items() if name not in PARAMETERS}
        problem = Problem(
            backend=self.backend,
            loss=self.loss,
            roles=self.roles,
            embeddings=embeddings,
            shapes={},
            labels=labels,
            key_labels=key_labels,
            ids=ids,
            key_ids=key_ids,
            distinct=self.distinct,
            temperature=given["temperature"],
            bias=given["bias"],
            normalize=self.normalize,
            reduction=self.reduction,
        )
        return Steps(problem, self.plan, self.kind, self.near), tuple(given[name] for name in problem.arguments)


@dataclass(frozen=True)
class CompiledSteps:
    """Forward and backward as programs that the backend compiles, for arrays in the order of `Problem.arguments`."""

    description: Description
    constants: tuple[Array, ...]

    def forward(self, arrays: tuple[Array, ...], wanted: tuple[bool, ...]) -> tuple[Array, Any]:
        """The value, and what `backward` wants to have kept."""
        result: tuple[Array, Any] = self._run(_forward, self.description, arrays)
        return result

    def value(self, *arrays: Array) -> Array:
        """The value where no gradient will be asked for."""
        return self.forward(arrays, (False,) * len(arrays))[0]

    def backward(
        self, arrays: tuple[Array, ...], saved: Any, cotangent: Array | None, wanted: tuple[bool, ...]
    ) -> tuple[Array | None, ...]:
        """The gradient by each array that is wanted, under the value's cotangent (None is 1)."""
        if cotangent is None:
            backend, like = self.description.backend, arrays[0]
            cotangent = backend.number(1.0, COMPUTE_DTYPE[backend.dtype_name(like)])
        result: tuple[Array | None, ...] = self._run(_backward, (self.description, wanted), arrays, saved, cotangent)
        return result

    def exact(self, *arrays: Array) -> Array:
        """The value again, from operations that the framework can differentiate to any order."""
        steps, everything = self.description.opened(self.constants, arrays)
        return steps.exact(*everything)

    def _run(self, function: Any, description: Any, *arrays: Any) -> Any:
        return self.description.backend.run(function, description, self.constants, *arrays)


def steps_of(problem: Problem, plan: Plan) -> Steps | CompiledSteps:
    """The steps of a problem under a plan, as its framework wants them."""
    given_kind = problem.backend.dtype_name(next(iter(problem.embeddings.values())))
    if plan.tile is None or not problem.backend.traces:
        return Steps(problem, plan, given_kind)
    backend, kind = cast(TracingBackend, problem.backend), COMPUTE_DTYPE[given_kind]
    tile = plan.tile
    if plan.engine == "tiled":
        tile = min([tile, *(fitted(tile, length) for length in problem.sizes if isinstance(length, int))])
    given = {"temperature": problem.temperature, "bias": problem.bias}
    near = None
    if isinstance(problem.temperature, float):
        near = bool(traced.near(problem.loss, problem.temperature, kind, problem.normalize))
    description = Description(
        backend=backend,
        plan=replace(plan, tile=tile, reason=""),
        loss=problem.loss,
        roles=problem.roles,
        arguments=tuple(problem.arguments),
        distinct=problem.distinct,
        normalize=problem.normalize,
        reduction=problem.reduction,
        kind=given_kind,
        near=near,
    )
    numbers = (backend.number(given[name], kind) for name in description.numbers)
    return CompiledSteps(description, (problem.labels, problem.key_labels, problem.ids, problem.key_ids, *numbers))


def _forward(description: Description, constants: Sequence[Array], arrays: Sequence[Array]) -> tuple[Array, Any]:
    steps, everything = description.opened(constants, arrays)
    return steps.forward(everything, tuple(False for _ in everything))


def _backward(
    key: tuple[Description, tuple[bool, ...]],
    constants: Sequence[Array],
    arrays: Sequence[Array],
    saved: Any,
    cotangent: Array,
) -> tuple[Array | None, ...]:
    description, wanted = key
    steps, everything = description.opened(constants, arrays)
    asked = {name for name, want in zip(description.arguments, wanted, strict=True) if want}
    names = tuple(steps.problem.arguments)
    found = dict(
        zip(names, steps.backward(everything, saved, cotangent, tuple(name in asked for name in names)), strict=True)
    )
    return tuple(found[name] for name in description.arguments)
