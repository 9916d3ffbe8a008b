"""One call on several replicas of a program, of which each evaluates the whole batch: its rows are gathered before the call.

The value is the same on every replica, and each hands back the gradient of its own rows from the whole that it has: no gradient
is exchanged. Every replica does the work of the whole batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sincere_spec.arrays import Array
from sincere_spec.call.check import PARAMETERS, Call, Problem, check
from sincere_spec.call.dispatch import find_backend, unwrap
from sincere_spec.call.labels import integers_already
from sincere_spec.errors import LabelError, OptionError
from sincere_spec.interface import Replicas
from sincere_spec.relations import Same


@dataclass(frozen=True)
class Replicated:
    """What a replica gave to a call, by argument, and by what its gradients are multiplied: `scale` where all have the same."""

    replicas: Replicas
    given: Mapping[str, Array]
    scale: float

    def own(self, name: str, gradient: Array) -> Array:
        """The gradient that is handed back, of that by an argument of the whole batch."""
        if name in self.given:
            return self.replicas.own(self.given[name], gradient) * (self.scale * self.replicas.size)
        return gradient * self.scale

    def __str__(self) -> str:
        return f"{self.replicas.size} replicas, of which each has the whole batch"


def of_the_whole_batch(
    problem: Problem, call: Call, replicas: Replicas, shared: tuple[str, ...], mean: bool
) -> Problem:
    """The problem of the rows of all replicas; `mean` says that a trainer takes the mean of their gradients, not the sum."""
    backend, names = problem.backend, list(problem.embeddings)
    like, labelled = problem.embeddings[names[0]], problem.loss.arrangement.labelled
    scale = 1.0 if mean else 1.0 / replicas.size
    given: dict[str, Array] = {}

    def array(name: str, x: Any) -> Array:
        x = backend.prepare(unwrap(x), name)
        if name in shared or name in PARAMETERS:
            return x if scale == 1.0 else replicas.scaled(x, scale)
        given[name] = x
        return replicas.gather(x, scale * replicas.size)

    def integers(name: str, x: Any) -> Array | None:
        if x is None:
            return None
        found = integers_already(backend, like, name, x)
        if found is None:
            raise LabelError(
                f"across: {name} must be a vector of integers in {backend.name}, the same on every replica."
            )
        wide = backend.namespace(found).astype(found, backend.dtype("int64", like))
        return wide if "keys" in shared and name in ("key_labels", "key_ids") else replicas.gather(wide, None)

    def mask(name: str, x: Any) -> Array | None:
        if x is None or name in shared:
            return x
        if find_backend(x) is not backend:
            raise OptionError(f"across: where must be a {backend.name} array of booleans; got {type(x).__name__}.")
        marks = backend.namespace(x).astype(x, backend.dtype("int64", like))
        return replicas.gather(marks, None) != 0

    arguments, rest = [], iter(names)
    for place, x in enumerate(call.arguments):
        is_labels = labelled and place == 1
        arguments.append(integers("labels", x) if is_labels else None if x is None else array(next(rest), x))
    where: Any = call.where
    if isinstance(where, tuple):
        where = tuple(mask(name, x) for name, x in zip(names, where, strict=False))
    elif where is not None:
        where = mask(names[0], where)
    ignore: Any = call.ignore
    if ignore is not None:
        rules = ignore if type(ignore) is tuple else (ignore,)
        ignore = tuple(Same(_each(rule.groups, integers)) for rule in rules)
    arrays = {name: array(name, x) for name, x in problem.arguments.items() if name in PARAMETERS}
    labels: Any = {name: integers(name, getattr(call, name)) for name in ("key_labels", "ids", "key_ids")}
    keys = None if call.keys is None else array("keys", call.keys)
    call = replace(call, arguments=tuple(arguments), keys=keys, where=where, ignore=ignore, **labels, **arrays)
    return replace(check(call), replicas=Replicated(replicas, given, scale))


def _each(groups: Any, integers: Any) -> Any:
    """Groups of all replicas; one array for several stays one."""
    if type(groups) is not tuple:
        return integers("groups", groups)
    made = {id(one): integers("groups", one) for one in groups}
    return tuple(made[id(one)] for one in groups)
