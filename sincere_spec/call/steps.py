"""Value and gradient of a checked call as functions of its arrays alone: what automatic differentiation is given.

Steps are a static part that hashes, the jit cache key, and constants: arrays that receive no gradient. Where a framework
compiles programs, tiles are one of their own, found again by the static part, and every array is an argument: a new
temperature, new labels or another batch of the same size compile nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, NamedTuple, TypeAlias

from sincere_spec.arrays import COMPUTE_DTYPE, Array, Namespace, T
from sincere_spec.call.buckets import Padding, Program, bucket, bucket_of_unknown, program_of
from sincere_spec.call.check import PARAMETERS, Problem, where_samples_repeat
from sincere_spec.call.plan import Plan, choose, most_pairs
from sincere_spec.engines import dense, family, kernel, per_anchor, tiled, traced
from sincere_spec.engines.comparison import (
    Comparison,
    Gradients,
    Halves,
    Samples,
    gather,
    insides,
    ones_by_row,
    scatter,
)
from sincere_spec.engines.normalise import Normalised, halved, in_blocks, normalise, pull_back
from sincere_spec.engines.padded import fitted
from sincere_spec.engines.parts import Residuals
from sincere_spec.engines.subset import Subset, put_back, take_inside
from sincere_spec.interface import Kernels, readers
from sincere_spec.spec.dictionaries import changed, decode, encode
from sincere_spec.spec.relations import Relation
from sincere_spec.spec.words import PairLoss, Roles, Word

SETTLED = 1024
"""How many static parts are remembered of a program that runs, by its sizes and numbers."""

ByRows: TypeAlias = Callable[..., tuple[Array, ...]]
"""Calls its first argument, a function of rows, with the arrays that follow."""


class Saved(NamedTuple):
    """What forward keeps for backward: residuals by row, or, where whole matrices were there anyway, the gradients."""

    residuals: Residuals | None = None
    gradients: tuple[Array | None, ...] = ()
    masks: tuple[Array, ...] = ()  # of a batch that was padded: which of its rows are no padding


@dataclass(frozen=True)
class Static:
    """The static, hashable part of a call: the jit cache key.

    `names` are the arguments that receive a gradient. The constants are the attributes that the relation reads, of rows and,
    if columns stand `apart`, of columns; masks, of which `masks` says by array which is its; `blocks`, matrices of pairs; if
    there are `own_pairs`, these; and parameters that are `held`.
    `kind` is the dtype in which embeddings came, `fixed_shift` what `traced.fixed_shift_is_safe` says, if that is known, and
    `numbers` are parameters that are no arrays.
    """

    backend: Any  # a `Backend`, of the kind that the engine asks for
    plan: Plan
    loss: PairLoss
    roles: Roles
    names: tuple[str, ...]
    reads: tuple[str, ...]
    apart: bool
    masks: tuple[tuple[str, int], ...]
    blocks: tuple[str, ...]
    own_pairs: bool
    held: tuple[str, ...]
    tile: int | None  # that of the plan, before it was fitted to a size
    relation: Relation
    samples: Samples
    keys_of_each: int | None
    ascending: bool
    alike: int | None
    normalize: bool
    reduction: str
    kind: str
    fixed_shift: bool | None
    numbers: tuple[tuple[str, float], ...]

    @property
    def compiled(self) -> bool:
        """Whether its steps are programs of their own: tiles are, and whole matrices belong to the caller's program."""
        return self.backend.traces and self.plan.engine in ("tiled", "kernel")

    @property
    def has_both(self) -> bool:
        """Whether the program has matrices and tiles, and takes either by its sizes."""
        return self.plan.engine == "auto" and not self.plan.when_run

    @property
    def scalar(self) -> bool:
        """Whether the value is a scalar, not a vector by row."""
        return self.reduction != "none"

    @property
    def one_sided(self) -> bool:
        """Whether a gradient can be made with the value: of a scalar, from tiles in which columns have no loss."""
        sides = bool(self.roles.keys) and not self.roles.both_ways
        return sides and self.scalar and self.plan.engine == "tiled"

    @property
    def when_run(self) -> bool:
        """Whether the engine is chosen only when the program runs."""
        return self.plan.when_run

    def steps(self, constants: tuple[Array, ...]) -> Steps:
        """The steps of a call with these constants."""
        return Steps(self, constants)

    def total(self, x: Array) -> Array:
        """The tangent itself: the call is of one device."""
        return x

    def settled(self, constants: tuple[Array, ...], arrays: tuple[Array, ...]) -> Steps:
        """The steps when the program runs: what a compiler could not know is looked up in arrays that are there."""
        samples, numbers = self.samples, None
        if samples is Samples.ANYWHERE and {"label", "sample"} <= set(self.reads):
            rows = columns = dict(zip(self.reads, constants, strict=False))
            if self.apart:
                columns = dict(zip(self.reads, constants[len(self.reads) :], strict=False))
            samples = where_samples_repeat(self.backend, rows, columns)
        count = len(constants) - len(self.held)
        if all(self.backend.on_host(x) for x in constants[count:]):
            numbers = tuple(float(x) for x in constants[count:])
            constants = constants[:count]
        like, sizes = arrays[0], self._sizes(arrays)
        seen = (samples, numbers, sizes, like.shape[-1], self.backend.device(like))
        static = self._settled.get(seen)
        if static is None:  # what is known when a program runs is the same from step to step
            if len(self._settled) >= SETTLED:
                self._settled.clear()
            given = (self.backend, like, sizes, self.loss, self.relation, self.keys_of_each is None)
            plan = choose(*given, self.plan.engine, self.plan.tile)
            static = replace(self, plan=Plan(plan.backend, plan.engine, plan.tile, ""), samples=samples)
            if numbers is not None:
                static = replace(static, numbers=tuple(zip(self.held, numbers, strict=True)), held=())
            self._settled[seen] = static
        return Steps(static, constants)

    @cached_property
    def _settled(self) -> dict[Any, Static]:
        return {}

    def rows_with_loss(self, arrays: Sequence[Array]) -> Any:
        """How many rows have a loss."""
        rows, columns = self._sizes(arrays)
        return rows + columns if self.roles.both_ways else rows

    def _sizes(self, arrays: Sequence[Array]) -> tuple[Any, Any]:
        lengths = {name: x.shape[0] for name, x in zip(self.names, arrays, strict=True) if name not in PARAMETERS}
        return self.roles.sizes(lengths, self.keys_of_each)

    def described(self) -> dict[str, Any]:
        """All but the adapter as plain values."""
        result: dict[str, Any] = encode(changed(self, backend=None))
        return result


def read_static(described: dict[str, Any], backend: Any) -> Static:
    """The static part that `Static.described` wrote, with the adapter of the arrays."""
    static: Static = decode(described, Word.known | {kind.__name__: kind for kind in (Static, Plan, Roles, Samples)})
    return replace(static, backend=backend)


readers.append(read_static)


Key: TypeAlias = tuple[Static, tuple[bool, ...]]
"""The static part, and of which arguments the gradient is wanted."""


@dataclass(frozen=True)
class Steps:
    """Forward and backward of a call, for arrays in the order of `Static.names`."""

    static: Static
    constants: tuple[Array, ...]

    def exact(self, *arrays: Array) -> Array:
        """The value by the dense engine's composite, which the framework can differentiate to any order."""
        opened = open_call(self.static, self.constants, arrays, exact=True)
        return finish(opened, dense.value(opened.comparison, self.static.reduction))

    def _either(self, arrays: tuple[Array, ...], run: Callable[[Steps], T]) -> T:
        """What these steps make of whole matrices where there are few pairs, and of tiles elsewhere."""
        static, backend, xp = self.static, self.static.backend, self.static.backend.namespace(arrays[0])
        anchors, columns = static.roles.sizes(self._rows(arrays), static.keys_of_each)
        at_least_one = columns + (columns == 0) if isinstance(columns, int) else xp.where(columns == 0, 1, columns)
        few = anchors <= most_pairs(backend, arrays[0]) // at_least_one  # their product may be too large an integer
        dense_, tiled_ = (
            Steps(replace(static, plan=replace(static.plan, engine=engine, tile=tile)), self.constants)
            for engine, tile in (("dense", None), ("tiled", static.plan.tile))
        )
        result: T = backend.when(few, lambda: run(dense_), lambda: run(tiled_))
        return result

    def value(self, *arrays: Array) -> Array:
        """The value where no gradient will be asked for."""
        if self.static.has_both:
            return self._either(arrays, lambda steps: steps.value(*arrays))
        if self.static.plan.is_dense and self._program(arrays) is Program.NONE:
            return self.exact(*arrays)
        return self.forward(arrays, (False,) * len(arrays))[0]

    def forward(self, arrays: tuple[Array, ...], wanted: tuple[bool, ...]) -> tuple[Array, Saved]:
        """The value, and what `backward` wants to have kept."""
        if self.static.has_both and not self.static.scalar:
            return self.value(*arrays), Saved()
        if self.static.has_both:
            value, gradients = self._either(arrays, lambda steps: steps.value_and_gradient(arrays, wanted))
            return value, Saved(gradients=gradients)
        program = self._program(arrays)
        made_forward = self.static.one_sided and program is Program.OWN and self.static.backend.gradient_follows()
        if self.static.compiled and not made_forward:  # the same program, whatever is wanted later
            wanted = (False,) * len(arrays)
        run, steps = (_at_once, self) if program is Program.NONE else (self.static.backend.run, self._held())
        if program is not Program.SHARED:
            value, saved = run(_forward, (steps.static, wanted), steps.constants, arrays)
            return value, saved
        padding = steps._padding(arrays)
        steps, padded = steps._padded(arrays, padding)
        value, saved = run(_forward, (steps.static, wanted), steps.constants, padded)
        if not self.static.scalar:
            value = padding.restored_vector(self.static.backend.namespace(value), padding.with_loss, value)
        masks = {id(mask): mask for mask in padding.masks.values()}
        return value, saved._replace(masks=tuple(masks.values()))

    def value_and_gradient(
        self, arrays: tuple[Array, ...], wanted: tuple[bool, ...]
    ) -> tuple[Array, tuple[Array | None, ...]]:
        """A scalar value and its gradient, which is not rounded to the dtypes of the arrays yet: it may be scaled first."""
        if not any(wanted):
            return self.value(*arrays), (None,) * len(arrays)
        value, saved = self.forward(arrays, wanted)
        return value, self._pull(_gradient, arrays, saved, None, wanted)

    def backward(
        self, arrays: tuple[Array, ...], saved: Saved, cotangent: Array | None, wanted: tuple[bool, ...]
    ) -> tuple[Array | None, ...]:
        """The gradient by each array that is wanted, under the value's cotangent (None is 1)."""
        if cotangent is None and self.static.compiled:
            cotangent = self.static.backend.number(1.0, COMPUTE_DTYPE[self.static.kind])
        if self.static.has_both and not self.static.scalar:

            def pull(steps: Steps) -> tuple[Array | None, ...]:  # what either keeps differs, and is made again
                return steps.backward(arrays, steps.forward(arrays, wanted)[1], cotangent, wanted)

            return self._either(arrays, pull)
        return self._pull(_backward, arrays, saved, cotangent, wanted)

    def _pull(
        self,
        function: Callable[..., tuple[Array | None, ...]],
        arrays: tuple[Array, ...],
        saved: Saved,
        cotangent: Array | None,
        wanted: tuple[bool, ...],
    ) -> tuple[Array | None, ...]:
        """What a function makes of the arrays, of what was kept and of a cotangent; of padded ones where forward padded."""
        run = self.static.backend.run if self.static.compiled else _at_once
        found: tuple[Array | None, ...]
        if not saved.masks:
            found = run(function, (self.static, wanted), self.constants, arrays, saved, cotangent)
            return found
        padding = self._padding(arrays, saved.masks)
        steps, padded = self._padded(arrays, padding)
        if cotangent is not None and not self.static.scalar:
            cotangent = padding.vector(self.static.backend.namespace(cotangent), padding.with_loss, cotangent)
        saved = saved._replace(masks=())
        found = run(function, (steps.static, wanted), steps.constants, padded, saved, cotangent)
        return tuple(padding.restored(name, x) for name, x in zip(self.static.names, found, strict=True))

    def _program(self, arrays: tuple[Array, ...]) -> Program:
        """What runs the call: where its sizes are fixed by a caller's program, tiles are one inside of it."""
        static, backend = self.static, self.static.backend
        unpadded, dense_ = Program.OWN if static.compiled else Program.NONE, static.plan.is_dense
        if not backend.traces or static.plan.engine == "kernel" or (dense_ and not static.scalar):
            return unpadded
        if static.blocks or static.own_pairs or static.keys_of_each is not None:  # matrices of pairs are not padded
            return unpadded
        if any(x.shape[0] is None for name, x in zip(static.names, arrays, strict=True) if name not in PARAMETERS):
            return unpadded if dense_ else Program.SHARED
        rows = self._rows(arrays)
        if not backend.runs_by_size((*self.constants, *arrays), dense_) or 0 in rows.values():
            return unpadded
        call = replace(static, plan=replace(static.plan, tile=None), tile=None, numbers=())
        return program_of((call, tuple(x.shape[1:] for x in arrays)), tuple(rows.values()), dense_)

    def _held(self) -> Steps:
        """The same call with its numbers as arrays: one program serves all of them."""
        static = self.static
        if not static.numbers:
            return self
        made = (static.backend.number(value, COMPUTE_DTYPE[static.kind]) for _, value in static.numbers)
        held = (*static.held, *(name for name, _ in static.numbers))
        return Steps(replace(static, held=held, numbers=()), (*self.constants, *made))

    def _rows(self, arrays: tuple[Array, ...]) -> dict[str, Any]:
        """The number of rows of each array."""
        length = self.static.backend.length
        return {name: length(x) for name, x in zip(self.static.names, arrays, strict=True) if name not in PARAMETERS}

    def _padding(self, arrays: tuple[Array, ...], masks: Sequence[Array] = ()) -> Padding:
        """How the arrays of a call are padded; by masks that were made before, if there are any."""
        static, backend, rows = self.static, self.static.backend, self._rows(arrays)
        start = len(static.reads) * (2 if static.apart else 1)
        given = dict(static.masks)
        made: dict[Any, Array] = {}
        found: dict[str, Array] = {}
        for name, count in rows.items():
            known = isinstance(count, int)
            key = (given.get(name), count if known else name)
            if key not in made and masks:
                made[key] = masks[len(made)]
            elif key not in made:
                size = bucket(count) if known else bucket_of_unknown(backend, count)
                mask = self.constants[start + given[name]] if name in given else None
                made[key] = backend.first_rows(count, size) if mask is None else backend.padded(mask, size)
            found[name] = made[key]
        return Padding(backend, static.roles, rows, found)

    def _padded(self, arrays: tuple[Array, ...], padding: Padding) -> tuple[Steps, tuple[Array, ...]]:
        """The same call of the padded arrays."""
        static, count = self.static, len(self.static.reads)
        xp = static.backend.namespace(arrays[0])
        sides = [static.roles.anchors] * count + (
            [static.roles.keys or static.roles.anchors] * count if static.apart else []
        )
        attributes = [padding.vector(xp, names, x) for names, x in zip(sides, self.constants, strict=False)]
        masks = list({id(mask): mask for mask in padding.masks.values()}.values())
        held = self.constants[len(self.constants) - len(static.held) :]
        numbers = tuple(
            (name, next(i for i, x in enumerate(masks) if x is mask)) for name, mask in padding.masks.items()
        )
        sizes = static.roles.sizes({name: mask.shape[0] for name, mask in padding.masks.items()})
        plan = static.plan
        if static.tile is not None:
            plan = replace(plan, tile=fitted(static.tile, *sizes))
        steps = Steps(replace(static, plan=plan, masks=numbers), (*attributes, *masks, *held))
        return steps, tuple(padding.array(name, x) for name, x in zip(static.names, arrays, strict=True))


def steps_of(problem: Problem, plan: Plan) -> Steps:
    """The steps of a checked call under a plan."""
    backend: Any = problem.backend
    given_kind = backend.dtype_name(next(iter(problem.embeddings.values())))
    kind = COMPUTE_DTYPE[given_kind]
    given = {"temperature": problem.temperature, "bias": problem.bias}
    numbers = {name: x for name, x in given.items() if isinstance(x, float)}
    loss, fixed_shift, asked = problem.loss, None, plan.tile
    if backend.traces or plan.when_run:  # numbers that change from step to step are not part of the structure
        loss = changed(loss, temperature=1.0, bias=0.0)
        if plan.engine in ("tiled", "auto") and not plan.when_run:
            plan = replace(plan, tile=fitted(plan.rows_of_tile, *problem.sizes))
        if not (plan.is_dense or plan.when_run) and "temperature" in numbers:
            safe = traced.fixed_shift_is_safe(loss, numbers["temperature"], kind, problem.normalize)
            fixed_shift = bool(safe)
        if plan.when_run or not plan.is_dense:
            numbers = {}
    related = problem.related
    apart = bool(problem.roles.keys)
    names = tuple(related.rows)
    attributes = [side[name] for side in (related.rows, *([related.columns] if apart else [])) for name in names]
    blocks = (*related.blocks.values(), *(() if related.own_pairs is None else (related.own_pairs,)))
    masks: list[Array] = []
    for mask in problem.where.values():
        if not any(mask is other for other in masks):  # one for several arrays is one constant
            masks.append(mask)
    held = tuple(name for name, x in given.items() if isinstance(x, float) and name not in numbers)
    static = Static(
        backend=backend,
        plan=Plan(plan.backend, plan.engine, plan.tile, "", when_run=plan.when_run),
        loss=loss,
        roles=problem.roles,
        names=tuple(problem.arguments),
        reads=names,
        apart=apart,
        masks=tuple((name, next(i for i, x in enumerate(masks) if x is mask)) for name, mask in problem.where.items()),
        blocks=tuple(related.blocks),
        own_pairs=related.own_pairs is not None,
        held=held,
        tile=asked,
        relation=related.relation,
        samples=related.samples,
        keys_of_each=problem.keys_of_each,
        ascending=related.ascending,
        alike=related.alike,
        normalize=problem.normalize,
        reduction=problem.reduction,
        kind=given_kind,
        fixed_shift=fixed_shift,
        numbers=tuple(numbers.items()),
    )
    if plan.when_run:
        like = next(iter(problem.embeddings.values()))
        numbers_held = [backend.held_number(given[name], like) for name in held]
    else:
        numbers_held = [backend.number(given[name], kind) for name in held]
    return Steps(static, (*attributes, *masks, *blocks, *numbers_held))


class Opened(NamedTuple):
    """The arrays of a call, as they came and as they are compared: by the names of those that were normalised together."""

    static: Static
    given: dict[str, Array]
    embedded: dict[tuple[str, ...], Normalised]
    comparison: Comparison
    subset: Subset | None  # where the comparison is of the rows inside alone
    by_rows: ByRows


def _forward(key: Key, constants: Sequence[Array], arrays: Sequence[Array]) -> tuple[Array, Saved]:
    static, wanted = key
    opened, needed = open_call(static, constants, arrays), static.roles.holding(_names(key))
    kept: Gradients | Residuals | None
    if static.plan.is_dense and not static.scalar:
        value, kept = dense.value(opened.comparison, static.reduction), None
    elif static.plan.is_dense:
        value, kept = dense.value_and_gradient(opened.comparison, static.reduction, needed)
    else:
        value, kept = family.forward(opened.comparison, static.reduction, layout(static), needed)
    saved = Saved(gradients=by_array(opened, kept, wanted)) if isinstance(kept, Gradients) else Saved(kept)
    return finish(opened, value), saved


def _backward(
    key: Key, constants: Sequence[Array], arrays: Sequence[Array], saved: Saved, cotangent: Array | None
) -> tuple[Array | None, ...]:
    xp = key[0].backend.namespace(arrays[0])
    return tuple(  # rounded to the dtypes of their arrays once, at the end
        gradient if gradient is None or gradient.dtype == x.dtype else xp.astype(gradient, x.dtype)
        for x, gradient in zip(arrays, _gradient(key, constants, arrays, saved, cotangent), strict=True)
    )


def _gradient(
    key: Key, constants: Sequence[Array], arrays: Sequence[Array], saved: Saved, cotangent: Array | None
) -> tuple[Array | None, ...]:
    """The gradient in the compute dtype."""
    static, wanted = key
    if saved.gradients:
        found = saved.gradients
        if cotangent is not None:
            found = tuple(None if gradient is None else gradient * cotangent for gradient in found)
    else:
        opened = open_call(static, constants, arrays)
        if opened.subset is not None and cotangent is not None and not static.scalar:
            cotangent = opened.subset.inside_of(opened.comparison.xp, cotangent)
        if static.plan.is_dense:
            needed = static.roles.holding(_names(key))
            gradients = dense.value_and_gradient(opened.comparison, static.reduction, needed, cotangent)[1]
            return by_array(opened, gradients, wanted)
        asked = (saved.residuals, 1.0 if cotangent is None else cotangent, static.roles.holding(_names(key)))
        gradients = family.backward(opened.comparison, static.reduction, layout(static), *asked)
        found = by_array(opened, gradients, wanted)
    return found


def _names(key: Key) -> list[str]:
    return [name for name, want in zip(key[0].names, key[1], strict=True) if want]


def layout(static: Static, own_programs: bool = False) -> family.LayOut:
    """How the plan's engine lays a comparison out; with `own_programs` each sweep is a compiled program."""
    tile = static.plan.rows_of_tile

    def lay_out(given: Comparison, laid: tuple[Any, ...]) -> family.Sweep:
        if given.keys_of_each is not None:
            return per_anchor.lay_out(given, laid, tile)
        kernels = _kernels(static, given.anchors)
        if kernels is not None:
            return kernel.lay_out(given, laid, kernels, tile)
        if static.backend.traces:
            return traced.lay_out(given, laid, tile=tile, fixed_shift=static.fixed_shift, own_programs=own_programs)
        return tiled.lay_out(given, laid, tile=tile)

    return lay_out


def _kernels(static: Static, like: Array) -> Kernels | None:
    """The sweeps of a device: fused kernels where these are the engine, or strips where tiles run on a device."""
    made: Kernels | None = None
    if kernel.obstacle(static.loss, static.relation) is not None:
        return made
    if static.plan.engine == "kernel":
        made = static.backend.kernels(like, static.loss.logit)
    elif static.plan.engine == "tiled" and not static.backend.traces:
        made = static.backend.strips(like, static.loss.logit)
    return made


def _at_once(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def _by_rows(static: Static, like: Array) -> ByRows:
    """How what is done to each row is done to all: a block at a time beside tiles, but at once on a device."""
    blocks = static.plan.engine == "tiled" and _kernels(static, like) is None
    return partial(in_blocks, static.backend) if blocks else _at_once


def open_call(
    static: Static, constants: Sequence[Array], arrays: Sequence[Array], exact: bool = False, take: bool = False
) -> Opened:
    """The arrays of a call under their names.

    `exact` is for operations outside of loops, as what is differentiated must be; `take` takes out the rows inside masks for
    kernels, too.
    """
    by_rows = _at_once if exact else _by_rows(static, arrays[0])
    count = len(static.reads)
    rows = columns = dict(zip(static.reads, constants, strict=False))
    if static.apart:
        columns, count = dict(zip(static.reads, constants[count:], strict=False)), 2 * count
    where = {name: constants[count + number] for name, number in static.masks}
    count += len({number for _, number in static.masks})
    blocks = dict(zip(static.blocks, constants[count:], strict=False))
    own_pairs = constants[count + len(blocks)] if static.own_pairs else None
    given = dict(zip(static.names, arrays, strict=True)) | dict(static.numbers)
    if static.held:
        given |= zip(static.held, constants[-len(static.held) :], strict=True)
    temperature, bias = (given.pop(name) for name in PARAMETERS)
    xp = static.backend.namespace(arrays[0])
    for name, mask in where.items():
        given[name] = xp.where(mask[:, None], given[name], 0.0)
    anchors = static.roles.anchors
    together = (
        len(anchors) > 1 and set(anchors) == given.keys() and len(given) == len(anchors) and not static.roles.keys
    )
    if together and static.plan.is_dense and not (where or static.backend.traces):  # the number of operations counts
        embedded = {anchors: _embed(static, xp.concat([given[name] for name in anchors], axis=0), by_rows)}
        by_role = _views(static, given, embedded[anchors].rows)
    else:
        embedded = {(name,): _embed(static, x, by_rows) for name, x in given.items()}
        by_role = gather(xp, static.roles, {name: embedded[(name,)].rows for name in given})
    comparison = Comparison(
        static.backend,
        static.loss,
        *_parameters(static, temperature, bias, arrays[0]),
        *by_role,
        relation=static.relation,
        rows=rows,
        columns=columns,
        both_ways=static.roles.both_ways,
        samples=static.samples,
        ascending=static.ascending,
        alike=static.alike,
        unit_rows=static.normalize,
        has_partner=own_pairs,
        blocks=blocks,
        keys_of_each=static.keys_of_each,
    )
    half = COMPUTE_DTYPE[static.kind] != static.kind
    if half and not exact and _kernels(static, arrays[0]) is not None:
        comparison = replace(comparison, halves=_halves(static, xp, given, embedded))
    subset = None
    if where:
        inside = insides(static.backend, static.roles, given, where)
        if own_pairs is not None and "has_partner" in inside:
            inside["has_partner"] = inside["has_partner"] & own_pairs
        comparison = replace(comparison, **inside)
        readable = static.backend.on_host if static.plan.is_dense or exact else static.backend.concrete
        tiles = static.plan.engine != "kernel" or exact or take  # kernels take the masks, and read no array
        tiles = tiles and static.keys_of_each is None  # of which each row keeps as many
        if static.plan.is_dense or exact:  # which has both directions in one matrix, and partners at the same place
            tiles = tiles and not (comparison.both_ways and comparison.columns_inside is not comparison.inside)
        if tiles and not static.backend.traces and all(readable(mask) for mask in where.values()):
            comparison, subset = take_inside(comparison)
    return Opened(static, given, embedded, comparison, subset, by_rows)


def _views(static: Static, given: Mapping[str, Array], rows: Array) -> tuple[Array, Array | None, Array | None]:
    """What `gather` gives where the anchors are all arrays of a call, in one."""
    parts, start = {}, 0
    for name in static.roles.anchors if static.roles.partners else ():
        stop = start + static.backend.length(given[name])
        parts[name], start = rows[start:stop, :], stop
    partners = [parts[name] for name in static.roles.partners]
    return rows, None, static.backend.namespace(rows).concat(partners, axis=0) if partners else None


def _raise(static: Static, x: Array) -> Array:
    """An array in the dtype in which the loss is computed."""
    kind = static.backend.dtype_name(x)
    if COMPUTE_DTYPE[kind] == kind:
        return x
    return static.backend.namespace(x).astype(x, static.backend.dtype(COMPUTE_DTYPE[kind], x))


def _embed(static: Static, x: Array, by_rows: ByRows) -> Normalised:
    """Embeddings as they are compared: in the compute dtype, and on the sphere if they are to be normalised."""

    def embed(rows: Array) -> tuple[Array, ...]:
        made = normalise(static.backend, _raise(static, rows))
        return made.rows, made.size + 0.0 * made.norm, made.norm

    if not static.normalize:
        return Normalised(_raise(static, x), 1.0, 1.0)
    return normalise(static.backend, _raise(static, x)) if by_rows is _at_once else Normalised(*by_rows(embed, x))


def _parameters(
    static: Static, temperature: float | Array, bias: float | Array, like: Array
) -> tuple[float | Array, float | Array]:
    """Temperature and bias in the compute dtype; an array of a temperature is NaN unless it is positive."""
    dtype = static.backend.dtype(COMPUTE_DTYPE[static.backend.dtype_name(like)], like)
    if not isinstance(temperature, float):
        xp = static.backend.namespace(temperature)
        temperature = xp.astype(temperature, dtype)
        valid = (temperature > 0.0) & (temperature < float("inf"))
        temperature = xp.where(valid, temperature, float("nan"))
    if not isinstance(bias, float):
        bias = static.backend.namespace(bias).astype(bias, dtype)
    return temperature, bias


def _halves(
    static: Static, xp: Namespace, given: dict[str, Array], embedded: dict[tuple[str, ...], Normalised]
) -> Halves:
    """Rows as they came in a half type, which kernels multiply, and their factors."""
    backend, rows, factors = static.backend, {}, {}
    for name, x in given.items():
        dtype = backend.dtype(static.kind, x)
        if static.normalize:
            rows[name], factors[name] = halved(backend, _raise(static, x), embedded[(name,)], dtype)
        else:
            rows[name], factors[name] = xp.astype(x, dtype), ones_by_row(xp, embedded[(name,)].rows)
    (anchors, keys, _), (anchor_factors, key_factors, _) = (gather(xp, static.roles, x) for x in (rows, factors))
    return Halves(anchors, keys, anchor_factors, key_factors)


def by_array(opened: Opened, gradients: Gradients, wanted: tuple[bool, ...]) -> tuple[Array | None, ...]:
    """From the gradient by roles to that by each array that is wanted, still in the compute dtype."""
    static = opened.static
    if opened.subset is not None:
        gradients = put_back(opened.comparison.xp, gradients, opened.subset)
    together = next(iter(opened.embedded))
    if len(together) > 1 and static.normalize:
        gradients = replace(gradients, anchors=_pull_back_together(opened, gradients), partners=None)
    by_name = scatter(static.backend, static.roles, opened.given, gradients)
    by_name |= {"temperature": gradients.temperature, "bias": gradients.bias}
    result: list[Array | None] = []
    for name, want in zip(static.names, wanted, strict=True):
        gradient = by_name[name] if want else None
        if gradient is not None and static.normalize and (name,) in opened.embedded:
            gradient = _pull_back(opened, opened.given[name], opened.embedded[(name,)], gradient)
        result.append(gradient)
    return tuple(result)


def _pull_back_together(opened: Opened, gradients: Gradients) -> Array | None:
    """The gradient by all anchors as they came, where they were normalised in one."""
    (embedded,) = opened.embedded.values()
    gradient = gradients.anchors
    if gradients.partners is not None:
        static, xp = opened.static, opened.comparison.xp
        parts = scatter(static.backend, static.roles, opened.given, gradients)
        gradient = xp.concat([parts[name] for name in static.roles.anchors], axis=0)
    return None if gradient is None else pull_back(opened.static.backend, embedded, gradient)


def _pull_back(opened: Opened, given: Array, embedded: Normalised, gradient: Array) -> Array:
    static = opened.static
    if static.plan.is_dense:
        return pull_back(static.backend, embedded, gradient)

    def pull(given: Array, size: Array, norm: Array, gradient: Array) -> tuple[Array, ...]:
        rows = _raise(static, given) / size / norm  # recomputed, so that nothing need keep them until here
        return (pull_back(static.backend, Normalised(rows, size, norm), gradient),)

    (result,) = opened.by_rows(pull, given, embedded.size, embedded.norm, gradient)
    return result


def finish(opened: Opened, value: Array) -> Array:
    """The value for all rows that came, 0 for those outside."""
    if opened.subset is not None and not opened.static.scalar:
        value = opened.subset.rows_with_loss(opened.comparison.xp, value)
    return non_finite(opened, value)


def non_finite(opened: Opened, value: Array) -> Array:
    """The value, or NaN where an embedding is not finite: a mask could have hidden it, and a logit of -inf has no weight."""
    static = opened.static
    for x in opened.embedded.values():
        if static.normalize and isinstance(x.size, float):  # seen to be ordinary
            continue
        looked_at = x.norm if static.normalize else x.rows  # a norm tells as much as its row
        value = value + static.backend.namespace(value).sum(static.backend.hold(looked_at) * 0.0)
    return value
