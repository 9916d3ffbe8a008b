"""Tiles of arrays that a compiler divides over devices: each device sweeps its rows against all columns, as a rank does.

The caller's program has the whole batch, and labels and places of all rows in it. Only the compiler knows which rows lie
where, so it is given both: the steps of one device, and the part of each where rows are divided.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

from sincere_spec.arrays import Array
from sincere_spec.call import ranks
from sincere_spec.call.check import PARAMETERS, Problem
from sincere_spec.call.plan import Plan
from sincere_spec.call.ranks import SHAREABLE, SpreadStatic, SpreadSteps
from sincere_spec.call.steps import Key, Saved, Static, Steps, open_call, steps_of
from sincere_spec.engines.padded import fitted
from sincere_spec.engines.ranks import Shard
from sincere_spec.interface import Collectives, Divisible, TracingBackend


def obstacle(problem: Problem) -> str | None:
    """Why no device sweeps its own rows of a call alone, if none can: in half a sentence."""
    if problem.reduction == "none":
        return 'reduction "none" has no gradient over devices'
    why = ranks.obstacle(problem)
    if why is not None:
        return why
    if problem.related.own_pairs is not None:
        return "pairs of rows and partners that are left out are not served"
    if not all(isinstance(size, int) for size in problem.sizes):
        return "the number of rows is not known before the call"
    backend = cast(TracingBackend, problem.backend)
    return None if backend.may_divide(tuple(problem.arguments.values())) else f"{backend.name} divides no tiles here"


def divided_or_whole(problem: Problem, plan: Plan) -> Steps | DividedSteps:
    """The steps of a call: those of a device, too, where the compiler may find the arrays divided."""
    steps = steps_of(problem, plan)
    if not steps.static.compiled or obstacle(problem) is not None:
        return steps
    return DividedSteps(SpreadStatic(steps.static, None, DividedSteps), steps.constants)


class DividedSteps(SpreadSteps):
    """Those of a call whose arrays a compiler may find divided."""

    def exact(self, *arrays: Array) -> Array:
        """The value by the dense engine's composite, of whose matrices the compiler divides each."""
        return self.static.call.steps(self.constants).exact(*arrays)

    def forward(self, arrays: tuple[Array, ...], wanted: tuple[bool, ...]) -> tuple[Array, Saved]:
        """The value, and the gradients that are wanted."""
        call = self.static.call
        if not call.backend.may_divide((*self.constants, *arrays)):  # in a rule of differentiation arrays may be there
            return call.steps(self.constants).forward(arrays, wanted)
        value, *found = call.backend.run(_run, (call, wanted), self.constants, arrays)
        gradients = iter(found)
        return value, Saved(gradients=tuple(next(gradients) if want else None for want in wanted))

    def backward(
        self, arrays: tuple[Array, ...], saved: Saved, cotangent: Array | None, wanted: tuple[bool, ...]
    ) -> tuple[Array | None, ...]:
        """The gradient by each array that is wanted, under the value's cotangent (None is 1)."""
        return self.static.call.steps(self.constants).backward(arrays, saved, cotangent, wanted)


def _run(key: Key, constants: tuple[Array, ...], arrays: tuple[Array, ...]) -> tuple[Array, ...]:
    static, wanted = key
    names, xp = static.names, static.backend.namespace(arrays[0])
    rows_of = [*_rows_of_constants(static), *(_rows_of(name) for name in names)]
    like = [len(constants) + number for number, want in enumerate(wanted) if want]
    counts = _side_by_side(static)
    program = Divisible(
        partial(_whole, key, len(constants)), partial(_own, key, len(constants)), tuple(rows_of), (None, *like)
    )
    beside = (_beside(xp, x, count) for x, count in zip(constants, counts, strict=True))
    return static.backend.divided(program, (*beside, *arrays))  # type: ignore[no-any-return]


def _rows_of(name: str) -> str | None:
    """What is along the first axis of an argument."""
    return None if name in PARAMETERS else "keys" if name in SHAREABLE else "rows"


def _rows_of_constants(static: Static) -> list[str | None]:
    reads, keys = len(static.reads), static.roles.keys or static.roles.anchors
    of_masks = {number: _rows_of(name) for name, number in static.masks}
    return [
        *["rows"] * reads,
        *[_rows_of(keys[0])] * (reads if static.apart else 0),
        *(of_masks[number] for number in range(len(of_masks))),
        *[None] * len(static.held),
    ]


def _side_by_side(static: Static) -> list[int]:
    """Of how many arrays each constant has the rows, one array's after the other's: the attributes of several views have."""
    reads, keys = len(static.reads), static.roles.keys or static.roles.anchors
    views = [len(static.roles.anchors)] * reads + [len(keys)] * (reads if static.apart else 0)
    return views + [1] * (len({number for _, number in static.masks}) + len(static.held))


def _beside(xp: Any, x: Array, count: int) -> Array:
    """A vector of several arrays' rows with a column for each, so that what is divided are the rows of all."""
    return x if count == 1 else xp.matrix_transpose(xp.reshape(x, (count, -1)))


def _whole(key: Key, count: int, *operands: Array) -> tuple[Array, ...]:
    """The value, and the gradient by each array that is wanted."""
    static, wanted = key
    constants, arrays = _opened(static, count, operands)
    value, gradients = static.steps(constants).value_and_gradient(arrays, wanted)
    return value, *(x for x in gradients if x is not None)


def _own(
    key: Key, count: int, collectives: Collectives, shared: bool, operands: tuple[Array, ...]
) -> tuple[Array, ...]:
    """The value, and a device's rows of the gradient; all of it by what every device has."""
    static, wanted = key
    constants, arrays = _opened(static, count, operands)
    lengths = {name: x.shape[0] for name, x in zip(static.names, arrays, strict=True) if name not in PARAMETERS}
    rows, keys = static.roles.sizes(lengths)
    if static.plan.engine != "kernel":
        tile = fitted(cast(int, static.tile), rows, keys if shared else keys * collectives.size)
        static = replace(static, plan=replace(static.plan, tile=tile))
    opened, size = open_call(static, constants, arrays), collectives.size
    shard = Shard(opened.comparison, collectives, (rows,) * size, (keys,) * size, shared)
    value, _, gradients = ranks.swept(opened, wanted, shard)
    return value, *(x for x in gradients if x is not None)


def _opened(static: Static, count: int, operands: Sequence[Array]) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    """The constants as a call has them, and its arrays."""
    xp = static.backend.namespace(operands[0])
    constants = (
        x if beside == 1 else xp.reshape(xp.matrix_transpose(x), (-1,))
        for x, beside in zip(operands, _side_by_side(static), strict=False)
    )
    return tuple(constants), tuple(operands[count:])
