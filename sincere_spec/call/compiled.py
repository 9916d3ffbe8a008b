"""Steps for frameworks that trace: functions of a description that hashes, and of arrays.

Where there are tiles they are programs. What was compiled is found again by the description, and all arrays are arguments:
a new temperature, new labels or another batch of the same size compile nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, cast

from sincere_spec.arrays import COMPUTE_DTYPE, Array
from sincere_spec.call.check import Problem
from sincere_spec.call.plan import Plan
from sincere_spec.call.steps import Steps
from sincere_spec.engines import traced
from sincere_spec.engines.padded import fitted
from sincere_spec.interface import Differentiable, TracingBackend
from sincere_spec.spec.words import PairLoss, Roles

PARAMETERS = ("temperature", "bias")


@dataclass(frozen=True)
class Description:
    """What of a problem and its plan is no array; `numbers` are parameters that stay numbers, where nothing is compiled."""

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
    numbers: tuple[tuple[str, float], ...]

    @property
    def compiled(self) -> bool:
        """Whether its steps are programs of their own: tiles are, and whole matrices belong to the caller's program."""
        return self.plan.tile is not None

    @property
    def held(self) -> tuple[str, ...]:
        """The parameters that came as numbers, and are arrays without a gradient."""
        numbers = dict(self.numbers)
        return tuple(name for name in PARAMETERS if name not in self.arguments and name not in numbers)

    @property
    def scalar(self) -> bool:
        """Whether the value is a scalar, not a vector by row."""
        return self.reduction != "none"

    def steps(self, constants: tuple[Array, ...]) -> Differentiable:
        """The steps of a problem of this description."""
        return DescribedSteps(self, constants)

    def opened(self, constants: Sequence[Array], arrays: Sequence[Array]) -> tuple[Steps, tuple[Array, ...]]:
        """The steps to be run, whose arguments are all parameters that are arrays, too; and these."""
        labels, key_labels, ids, key_ids, *held = constants
        given = dict(zip((*self.arguments, *self.held), (*arrays, *held), strict=True)) | dict(self.numbers)
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
class DescribedSteps:
    """Forward and backward of a description, for arrays in the order of `Problem.arguments`."""

    description: Description
    constants: tuple[Array, ...]

    def forward(self, arrays: tuple[Array, ...], wanted: tuple[bool, ...]) -> tuple[Array, Any]:
        """The value, and what `backward` wants to have kept."""
        if self.description.compiled:  # the same program, whatever is wanted later
            wanted = (False,) * len(arrays)
        result: tuple[Array, Any] = self._run(_forward, (self.description, wanted), arrays)
        return result

    def value(self, *arrays: Array) -> Array:
        """The value where no gradient will be asked for."""
        return self.forward(arrays, (False,) * len(arrays))[0] if self.description.compiled else self.exact(*arrays)

    def backward(
        self, arrays: tuple[Array, ...], saved: Any, cotangent: Array | None, wanted: tuple[bool, ...]
    ) -> tuple[Array | None, ...]:
        """The gradient by each array that is wanted, under the value's cotangent (None is 1)."""
        if cotangent is None and self.description.compiled:
            backend, like = self.description.backend, arrays[0]
            cotangent = backend.number(1.0, COMPUTE_DTYPE[backend.dtype_name(like)])
        result: tuple[Array | None, ...] = self._run(_backward, (self.description, wanted), arrays, saved, cotangent)
        return result

    def exact(self, *arrays: Array) -> Array:
        """The value again, from operations that the framework can differentiate to any order."""
        steps, everything = self.description.opened(self.constants, arrays)
        return steps.exact(*everything)

    def _run(self, function: Any, key: Any, *arrays: Any) -> Any:
        if not self.description.compiled:
            return function(key, self.constants, *arrays)
        return self.description.backend.run(function, key, self.constants, *arrays)


def steps_of(problem: Problem, plan: Plan) -> Steps | DescribedSteps:
    """The steps of a problem under a plan, as its framework wants them."""
    given_kind = problem.backend.dtype_name(next(iter(problem.embeddings.values())))
    if not problem.backend.traces:
        return Steps(problem, plan, given_kind)
    backend, kind = cast(TracingBackend, problem.backend), COMPUTE_DTYPE[given_kind]
    tile = plan.tile
    if tile is not None and plan.engine == "tiled":
        tile = min([tile, *(fitted(tile, length) for length in problem.sizes if isinstance(length, int))])
    given = {"temperature": problem.temperature, "bias": problem.bias}
    numbers = {name: x for name, x in given.items() if isinstance(x, float) and tile is None}
    near = None
    if tile is not None and isinstance(problem.temperature, float):
        near = bool(traced.fixed_shift_is_safe(problem.loss, problem.temperature, kind, problem.normalize))
    description = Description(
        backend=backend,
        plan=replace(plan, tile=tile, reason=""),
        # Numbers that change from step to step are not part of the structure.
        loss=replace(problem.loss, temperature=1.0, bias=0.0),
        roles=problem.roles,
        arguments=tuple(problem.arguments),
        distinct=problem.distinct,
        normalize=problem.normalize,
        reduction=problem.reduction,
        kind=given_kind,
        near=near,
        numbers=tuple(numbers.items()),
    )
    held = (backend.number(given[name], kind) for name in description.held)
    return DescribedSteps(description, (problem.labels, problem.key_labels, problem.ids, problem.key_ids, *held))


Key: TypeAlias = tuple[Description, tuple[bool, ...]]
"""A description, and which of its arguments want a gradient."""


def _forward(key: Key, constants: Sequence[Array], arrays: Sequence[Array]) -> tuple[Array, Any]:
    steps, everything = key[0].opened(constants, arrays)
    return steps.forward(everything, _asked(key, steps))


def _backward(
    key: Key, constants: Sequence[Array], arrays: Sequence[Array], saved: Any, cotangent: Array
) -> tuple[Array | None, ...]:
    steps, everything = key[0].opened(constants, arrays)
    gradients = steps.backward(everything, saved, cotangent, _asked(key, steps))
    found = dict(zip(steps.problem.arguments, gradients, strict=True))
    return tuple(found[name] for name in key[0].arguments)


def _asked(key: Key, steps: Steps) -> tuple[bool, ...]:
    """Which arguments of the opened steps want a gradient."""
    wanted = dict(zip(key[0].arguments, key[1], strict=True))
    return tuple(wanted.get(name, False) for name in steps.problem.arguments)
