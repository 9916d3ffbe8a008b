"""One call on several ranks: what `across=` says, the header that all exchange first, and the batch of which each owns rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from hashlib import blake2b
from itertools import chain
from typing import Any, Literal, NoReturn, cast

from sincere_spec import errors
from sincere_spec.arrays import Array, Labels
from sincere_spec.call.check import PARAMETERS, Call, Problem, check, where_samples_repeat
from sincere_spec.call.dispatch import find_backend
from sincere_spec.call.labels import integers_already, read_labels
from sincere_spec.call.plan import Plan
from sincere_spec.call.steps import Opened, Saved, Static, by_array, finish, layout, non_finite, open_call, steps_of
from sincere_spec.engines import ranks
from sincere_spec.engines.comparison import Samples
from sincere_spec.errors import DtypeError, EngineUnavailable, LabelError, OptionError, ShapeError, SincereSpecError
from sincere_spec.interface import Backend, Collectives, HostCollectives, ProgramCollectives
from sincere_spec.relations import Same
from sincere_spec.spec.relations import Attributes
from sincere_spec.spec.words import PairLoss

VERSION = 1
"""Of the header: processes of other versions of this file are refused."""

SHAREABLE = ("keys", "negatives")
"""Arrays that may be the same on every rank: those whose rows belong to no rows of another."""


@dataclass(frozen=True)
class Across:
    """Over which ranks a loss is taken; `across` makes one."""

    group: Any
    shared: tuple[str, ...] = ()
    gradients: Literal["mean", "sum"] = "mean"


def across(group: Any, *, shared: tuple[str, ...] = (), gradients: Literal["mean", "sum"] = "mean") -> Across:
    """Over which ranks a loss is taken, for the keyword `across=` where a bare group does not say enough.

    Args:
        group: a process group of torch.distributed, the names of axes inside `jax.shard_map` or `jax.pmap`, or True inside
            `strategy.run` of tf.distribute.
        shared: which of "keys" and "negatives" are the same on every rank, as a queue may be; all else is the rank's own.
        gradients: what the trainer does with the gradients of the ranks: "mean" for DDP, FSDP and whatever averages, "sum"
            for what adds.

    Raises:
        OptionError: arrays that cannot be shared, or another word.

    Example:
        >>> import sincere_spec as ss
        >>> ss.across("a process group", shared=("negatives",))
        Across(group='a process group', shared=('negatives',), gradients='mean')
    """
    if isinstance(shared, str) or not set(shared) <= set(SHAREABLE):
        raise OptionError(
            f"shared must be a tuple of {' and '.join(map(repr, SHAREABLE))}; got {shared!r}: every other array has rows of "
            "the rank's own."
        )
    if gradients not in ("mean", "sum"):
        raise errors.unknown_choice("gradients", gradients, ("mean", "sum"))
    return Across(group, tuple(shared), gradients)


@dataclass(frozen=True)
class Membership:
    """A rank's place in a call: how many rows each rank has of either side, masked rows left out, and what is wanted.

    `wanted` are the arguments of which some rank wants a gradient. Of ranks that do not know before they run how many rows
    the others have, `anchors` are the rank's own, None where that is not known either, and there are no `keys`. `shares` has,
    after the call, the sum over ranks of the weights of the rows that count, where ranks are processes.
    """

    across: Across
    collectives: Collectives
    anchors: tuple[Any, ...]
    keys: tuple[int, ...]
    wanted: frozenset[str]
    shares: list[Array] = field(default_factory=list, compare=False)

    @property
    def sizes(self) -> tuple[Any, Any]:
        """The most rows that a rank sweeps, and against how many columns: the same on every rank, and so the engine is.

        Where the columns are not known, the engine has tiles, and these are the rank's own affair.
        """
        if not self.keys:
            return self.anchors[0], None
        columns = self.keys[0] if self.shared else sum(self.keys)
        return max(self.anchors), columns

    @property
    def transposed(self) -> bool:
        """Whether the framework transposes the sum over ranks, so that gradients are those of the batch by themselves."""
        return not self.collectives.on_host and cast(ProgramCollectives, self.collectives).compiled

    @property
    def shared(self) -> bool:
        """Whether the keys are the same on every rank."""
        return bool(self.across.shared)

    def scale(self, name: str) -> float:
        """What the gradient of the batch by an argument is multiplied by, so that its mean over ranks, or sum, is right."""
        if self.transposed:
            return 1.0
        factor = 1.0 if self.replicated(name) else float(self.collectives.size)
        return factor if self.across.gradients == "mean" else factor / self.collectives.size

    def replicated(self, name: str) -> bool:
        """Whether an argument is the same on every rank."""
        return name in PARAMETERS or name in self.across.shared

    def __str__(self) -> str:
        if self.transposed:
            return f"{self.collectives.size} devices along {self.across.group!r}, of {self.anchors[0]} rows each"
        if not self.collectives.on_host:
            return f"{self.collectives.size} replicas, of which each sweeps its own rows"
        rows = ", ".join(map(str, self.anchors))
        return f"rank {self.collectives.rank} of {self.collectives.size}, which have {rows} rows"


def checked(call: Call, wants: Callable[[Problem], Sequence[bool]]) -> Problem:
    """`check` of a call, and if it is across several ranks what all of them agree on. `wants` says by argument of a gradient."""
    if call.across is None:
        return check(call)
    given = call.across if isinstance(call.across, Across) else across(call.across)
    collectives = _collectives(given.group)
    alone = replace(call, across=None)
    if collectives is None:  # not processes: the arrays' framework knows, or has none
        problem = check(alone)
        found = problem.backend.collectives(given.group)
        if isinstance(found, str):
            raise OptionError(f"across: {found}.")
        if found.size == 1:
            return problem
        return _in_one_program(problem, alone, given, cast(ProgramCollectives, found))
    if collectives.size == 1:
        return check(alone)
    return _agree(alone, given, collectives, wants)


def _in_one_program(problem: Problem, call: Call, given: Across, collectives: ProgramCollectives) -> Problem:
    """The problem of a rank's rows in the batch of all, in a program that all ranks run: their arrays are alike."""
    if collectives.compiled and given.gradients != "mean":
        raise OptionError(
            f'across: gradients="{given.gradients}" is for processes; {problem.backend.name} sums gradients over devices itself.'
        )
    if problem.reduction == "none":
        raise OptionError('across: reduction "none" has no gradient over ranks yet; use a scalar reduction.')
    _check_served(problem, given)
    sizes: tuple[tuple[Any, ...], tuple[int, ...]] = (problem.sizes[:1], ())
    if collectives.compiled:
        anchors, keys, *_ = _rows(problem, masked=False)
        sizes = (anchors,) * collectives.size, (keys,) * collectives.size
    elif _numbered(problem, call):
        raise LabelError(
            f"across: labels, ids and groups must be vectors of integers in {problem.backend.name}, the same on every replica."
        )
    membership = Membership(given, collectives, *sizes, frozenset())
    roles, embeddings = problem.roles, problem.embeddings
    before = [collectives.before(embeddings[names[0]]) for names in (roles.anchors, roles.keys or roles.anchors)]
    return replace(_placed(problem, call, before, membership.shared), membership=membership)


def refuse_on_all(group: object, error: SincereSpecError) -> NoReturn:
    """Raise an error that came up before a call could be checked, on every rank of its group, if there is one."""
    given = group if isinstance(group, Across) else Across(group)
    collectives = _collectives(given.group)
    if collectives is not None and collectives.size > 1:
        _exchange(collectives, error, "", [0] * 5)
    raise error


def _collectives(group: object) -> HostCollectives | None:
    """The collectives of a group of processes; None for another one."""
    backend = find_backend(group)
    if backend is None:
        return None
    found: Any = backend.collectives(group)
    if isinstance(found, str):
        raise EngineUnavailable(f"across: {found}.")
    return found  # type: ignore[no-any-return]


def _agree(
    call: Call, given: Across, collectives: HostCollectives, wants: Callable[[Problem], Sequence[bool]]
) -> Problem:
    """The problem of this rank's rows in the batch of all: labels, samples and the places of rows are those of the batch."""
    error, saw = None, ""
    numbers, wanted = [0] * 5, 0
    try:
        problem = check(call)
        if problem.backend is not find_backend(given.group):
            raise OptionError(
                f"across: {problem.backend.name} arrays do not go over a {type(given.group).__name__}; convert them."
            )
        _check_served(problem, given)
        saw = _description(problem, call, given)
        numbers = [*_rows(problem), _numbered(problem, call)]
        wanted = sum(want << place for place, want in enumerate(wants(problem)))
    except Exception as raised:  # whatever it is: the others wait
        error = raised
    every = _exchange(collectives, error, saw, [*numbers, wanted])
    if any(row[4] for row in every):  # strings and such on some rank
        call = _with_numbers(call, problem, collectives)
        problem = check(call)
    anchors, keys, rows, columns = (tuple(row[k] for row in every) for k in range(4))
    names, bits = tuple(problem.arguments), [row[5] for row in every]
    some = frozenset(name for place, name in enumerate(names) if any(row >> place & 1 for row in bits))
    if problem.reduction == "none" and some:
        raise OptionError(
            'across: reduction "none" has a value for each row and no gradient over ranks yet; use a scalar reduction, or '
            "call it without a gradient."
        )
    membership = Membership(given, collectives, anchors, keys, some)
    before = [sum(x[: collectives.rank]) for x in (rows, columns)]
    return replace(_placed(problem, call, before, membership.shared), membership=membership)


def _exchange(
    collectives: HostCollectives, error: Exception | None, saw: str, numbers: Sequence[int]
) -> list[list[int]]:
    """The numbers of all ranks; raises the same error on all if some rank has one, or saw another call than the others."""
    digest = int.from_bytes(blake2b(saw.encode(), digest_size=7).digest(), "big")
    own = [VERSION, int(error is not None), digest, *numbers]
    every = collectives.numbers([*own, *[0] * (16 - len(own))])
    if any(row[1] for row in every):
        for rank, found in enumerate(collectives.objects(None if error is None else _told(error))):
            if found is not None:
                name, text = found
                kind = getattr(errors, name, None)
                words = f"rank {rank}: {text}"
                raise (kind(words) if kind else SincereSpecError(f"rank {rank}: {name}: {text}")) from error
    if len({tuple(row[:3]) for row in every}) > 1:
        raise _disagreement(collectives.objects(saw))
    return [row[3:] for row in every]


def _told(error: Exception) -> tuple[str, str]:
    return type(error).__name__, str(error)


def _disagreement(every: Sequence[str]) -> SincereSpecError:
    """What the ranks see otherwise, as the error of all."""
    lines = [dict(line.split(": ", 1) for line in saw.splitlines()) for saw in every]
    for name in dict.fromkeys(name for line in lines for name in line):
        found: dict[str, list[str]] = {}
        for rank, line in enumerate(lines):
            found.setdefault(line.get(name, "nothing"), []).append(str(rank))
        if len(found) > 1:
            kind = {"dtype": DtypeError, "width": ShapeError}.get(name, OptionError)
            shown = "; ".join(f"rank{'s' * (len(at) > 1)} {', '.join(at)}: {value}" for value, at in found.items())
            return kind(f"across: ranks disagree about {name} ({shown}); make the same call on every rank.")
    return OptionError("across: ranks have different versions of sincere-spec; install one.")


def obstacle(problem: Problem) -> str | None:
    """Why nobody can sweep some rows of a call alone, as half a sentence."""
    if problem.keys_of_each is not None:
        return "keys of each row, [n, k, d], are not served; give keys that all rows are compared with"
    pairs = (*problem.related.blocks, *problem.related.relation.compares)
    if pairs:
        return f"matrices of pairs and of rows ({', '.join(pairs)}) are not served; name rows by labels, ids and same(groups)"
    towers = (*problem.roles.anchors, *problem.roles.keys)
    if problem.roles.both_ways and len({id(problem.where.get(name)) for name in towers}) > 1:
        return "where has another mask for each tower, which is not served; give one mask for both"
    return None


def _check_served(problem: Problem, given: Across) -> None:
    why = obstacle(problem)
    if why is not None:
        raise OptionError(f"across: {why}.")
    for name in given.shared:
        if name not in problem.embeddings:
            raise OptionError(f"shared names {name}, but this call has {', '.join(problem.embeddings)}.")


def _description(problem: Problem, call: Call, given: Across) -> str:
    """What must be the same on every rank, a line each."""
    backend, first = problem.backend, next(iter(problem.embeddings.values()))
    names = ("key_labels", "ids", "key_ids")
    lines = {
        "the loss": _structure(replace(problem.loss, temperature=1.0, bias=0.0)),
        "the arrays": ", ".join([*problem.embeddings, *(name for name in names if getattr(call, name) is not None)]),
        "dtype": backend.dtype_name(first),
        "width": str(first.shape[1]),
        "views of a sample": str(problem.shapes[next(iter(problem.shapes))][1:-1]),
        "where": ", ".join(problem.where) or "nothing",
        "what names rows": _named(backend, problem.related.rows),
        "what names keys": _named(backend, problem.related.columns),
        "device": backend.platform(first),
        "shared arrays": ", ".join(given.shared) or "nothing",
        "gradients": given.gradients,
    }
    lines |= {name: repr(getattr(call, name)) for name in ("normalize", "reduction", "engine", "tile")}
    for name, x in (("temperature", problem.temperature), ("bias", problem.bias)):
        kind = "number" if isinstance(x, float) else "array"
        lines[name] = f"the {kind} {x if isinstance(x, float) else float(backend.hold(x))!r}"
    if given.shared:
        side = [problem.embeddings[name] for name in given.shared] + list(problem.related.columns.values())
        lines["what is in the shared arrays"] = " ".join(repr(_checksum(problem, x)) for x in side)
    return "\n".join(f"{name}: {' '.join(text.split())}" for name, text in lines.items())


def _named(backend: Backend, attributes: Attributes) -> str:
    return ", ".join(f"{name} of {backend.dtype_name(x)}" for name, x in attributes.items())


@lru_cache
def _structure(loss: PairLoss) -> str:
    return repr(loss.to_dict())


def _checksum(problem: Problem, x: Array) -> tuple[int, float]:
    """How many rows there are, and a sum that depends on their order, and on that of their entries."""
    xp, backend = problem.backend.namespace(x), problem.backend
    double = backend.dtype("float64", x)
    wide = xp.astype(xp.reshape(backend.hold(x), (x.shape[0], -1 if x.shape[0] else 1)), double)
    rows, columns = (xp.cos(xp.astype(backend.indices(y), double)) for y in (wide, xp.matrix_transpose(wide)))
    return x.shape[0], float(xp.sum(backend.product(rows[None, :], wide) * columns[None, :]))


def _rows(problem: Problem, masked: bool = True) -> list[int]:
    """The rows (if `masked` those inside) of anchors and of keys, and all rows of an array of anchors and of one of keys."""
    roles, embeddings = problem.roles, problem.embeddings

    def inside(names: Sequence[str]) -> int:
        masks = [problem.where.get(name) if masked else None for name in names]
        sizes = [embeddings[name].shape[0] for name in names]
        return sum(n if mask is None else _count(problem, mask) for n, mask in zip(sizes, masks, strict=True))

    keys = roles.keys or roles.anchors
    return [inside(roles.anchors), inside(keys), embeddings[roles.anchors[0]].shape[0], embeddings[keys[0]].shape[0]]


def _count(problem: Problem, mask: Array) -> int:
    xp, integers = problem.backend.namespace(mask), problem.backend.indices(mask)
    return int(xp.sum(xp.astype(mask, integers.dtype)))


def _numbered(problem: Problem, call: Call) -> int:
    """Whether labels, ids or groups came as something that each rank numbers for itself."""
    like = next(iter(problem.embeddings.values()))
    given = [named for family in _families(call, problem) for named in family.items()]
    return int(any(integers_already(problem.backend, like, name, labels) is None for name, labels in given))


def _families(call: Call, problem: Problem) -> list[dict[str, Labels]]:
    """Labels, ids and groups as they came; those of one family are compared with each other."""
    found: list[dict[str, Labels]] = []
    if problem.loss.arrangement.labelled:
        found.append({"labels": call.arguments[1], "key_labels": call.key_labels})
        found.append({"ids": call.ids, "key_ids": call.key_ids})
    for number, rule in enumerate(_rules(call)):
        groups = rule.groups if type(rule.groups) is tuple else (rule.groups,)
        found.append({f"groups {number} {place}": one for place, one in enumerate(groups)})
    return [{name: labels for name, labels in family.items() if labels is not None} for family in found]


def _rules(call: Call) -> tuple[Any, ...]:
    """What a call leaves out: without matrices it is all `same(groups)`."""
    return () if call.ignore is None else call.ignore if type(call.ignore) is tuple else (call.ignore,)


def _with_numbers(call: Call, problem: Problem, collectives: HostCollectives) -> Call:
    """The call with labels, ids and groups numbered over all ranks, on the host."""
    backend, like = problem.backend, next(iter(problem.embeddings.values()))
    own = [
        {name: read_labels(backend, like, name, labels) for name, labels in family.items()}
        for family in _families(call, problem)
    ]
    every = collectives.objects([list(dict.fromkeys(chain.from_iterable(family.values()))) for family in own])
    numbers: dict[str, Array] = {}
    for family, by_rank in zip(own, zip(*every, strict=True), strict=True):
        if family:
            _check_kinds(next(iter(family)), by_rank)
        found: dict[Any, int] = {}
        for label in chain.from_iterable(by_rank):
            found.setdefault(label, len(found))
        numbers |= {name: backend.integers([found[x] for x in labels], like) for name, labels in family.items()}
    arguments = call.arguments
    if "labels" in numbers:
        arguments = (arguments[0], numbers["labels"], *arguments[2:])
    rules = []
    for number, rule in enumerate(_rules(call)):
        made: list[Any] = []
        groups = rule.groups if type(rule.groups) is tuple else (rule.groups,)
        for one in groups:  # one array for several stays one
            first = next(i for i, other in enumerate(groups) if other is one)
            made.append(numbers.get(f"groups {number} {first}"))
        rules.append(Same(tuple(made) if type(rule.groups) is tuple else made[0]))
    others = {name: numbers[name] for name in ("key_labels", "ids", "key_ids") if name in numbers}
    return replace(call, arguments=arguments, ignore=tuple(rules) or None, **others)


def _check_kinds(name: str, by_rank: Sequence[Sequence[Any]]) -> None:
    """Refuse strings on one rank beside integers on another: none is equal to one of the others, and nobody means that."""
    kinds = {rank: isinstance(labels[0], str) for rank, labels in enumerate(by_rank) if labels}
    if len(set(kinds.values())) > 1:
        strings, integers = (
            ", ".join(str(rank) for rank, kind in kinds.items() if kind is one) for one in (True, False)
        )
        raise LabelError(
            f"across: {name} are strings on rank {strings} and integers on rank {integers}, and so no two are equal; convert one "
            "of them."
        )


def _placed(problem: Problem, call: Call, before: Sequence[int], shared: bool) -> Problem:
    """The problem with the places of its rows in the batch, where these name samples; `before` are the rows of lower ranks."""
    related, labelled = problem.related, problem.loss.arrangement.labelled
    first, second = before[0], 0 if shared else before[1]
    shape = problem.shapes[problem.roles.anchors[0]]
    moves = {name: first // (shape[1] if len(shape) == 3 else 1) for name in related.rows if name.endswith(" place")}
    beside: dict[str, int] = {}
    if not labelled and related.alike is not None:  # not groups in their place
        moves["label"] = first
        beside["label"] = second
    if call.ids is None and "sample" in related.rows:
        moves["sample"] = first * (1 if labelled else len(problem.roles.anchors))
        beside["sample"] = -second
    rows = {name: x + moves[name] if name in moves else x for name, x in related.rows.items()}
    columns = rows
    if related.columns is not related.rows:
        columns = {name: x + beside[name] if name in beside else x for name, x in related.columns.items()}
    return replace(problem, related=replace(related, rows=rows, columns=columns))


@dataclass(frozen=True)
class SpreadStatic:
    """The static part of a call whose rows are spread over ranks, or over devices by a compiler: without a membership."""

    call: Static
    membership: Membership | None
    kind: type[SpreadSteps]  # of its steps

    @property
    def scalar(self) -> bool:
        """Whether the value is a scalar, not a vector by row."""
        return self.call.scalar

    @property
    def when_run(self) -> bool:
        """Never: ranks exchange what they have now, and what a compiler divides is one program."""
        return False

    def steps(self, constants: tuple[Array, ...]) -> SpreadSteps:
        """The steps of a call with these constants."""
        return self.kind(self, constants)

    def total(self, x: Array) -> Array:
        """The sum over ranks of a tangent; of the whole batch it is the tangent itself."""
        return x if self.membership is None else self.membership.collectives.total(x)


@dataclass(frozen=True)
class SpreadSteps:
    """Forward and backward of a call whose rows are spread: the gradient is made in forward, and kept."""

    static: SpreadStatic
    constants: tuple[Array, ...]

    def forward(self, arrays: tuple[Array, ...], wanted: tuple[bool, ...]) -> tuple[Array, Saved]:
        """The value, and the gradients that are wanted."""
        raise NotImplementedError

    def backward(
        self, arrays: tuple[Array, ...], saved: Saved, cotangent: Array | None, wanted: tuple[bool, ...]
    ) -> tuple[Array | None, ...]:
        """The gradient by each array that is wanted, under the value's cotangent (None is 1)."""
        raise NotImplementedError

    def value(self, *arrays: Array) -> Array:
        """The value where no gradient is asked for here."""
        return self.forward(arrays, (False,) * len(arrays))[0]


def swept(
    opened: Opened, wanted: tuple[bool, ...], shard: ranks.Shard, own_programs: bool = False
) -> tuple[Array, Array | None, tuple[Array | None, ...]]:
    """What `ranks.value_and_gradient` finds of a shard, the gradient by each array that is wanted."""
    static, xp = opened.static, opened.comparison.xp
    needed = static.roles.holding([name for name, want in zip(static.names, wanted, strict=True) if want])
    spoilt = non_finite(opened, xp.sum(opened.comparison.anchors[:0, :]))
    lay_out = layout(static, own_programs)
    value, shares, gradients = ranks.value_and_gradient(shard, static.reduction, lay_out, spoilt, needed)
    return value, shares, () if gradients is None else by_array(opened, gradients, wanted)


class RankedSteps(SpreadSteps):
    """Those of a call on several ranks: all collectives are in forward.

    Processes and replicas are handed a gradient that is scaled for their trainer. Where the framework transposes collectives it
    is that of the batch by what a rank has, before any sum over ranks: that of `SpreadStatic.total` is transposed.
    """

    @property
    def membership(self) -> Membership:
        """The rank's place in the call."""
        return cast(Membership, self.static.membership)

    def exact(self, *arrays: Array) -> Array:
        """There is none."""
        raise EngineUnavailable(
            "across: the gradient over ranks cannot be differentiated again; differentiate once, or on one process."
        )

    def forward(self, arrays: tuple[Array, ...], wanted: tuple[bool, ...]) -> tuple[Array, Saved]:
        """The value, and the gradients that some rank wants."""
        call, membership = self.static.call, self.membership
        collectives, names = membership.collectives, call.names
        if collectives.on_host:
            wanted = tuple(name in membership.wanted for name in names)
        own_programs = not (collectives.on_host or membership.transposed)
        opened = open_call(call, self.constants, arrays, exact=own_programs, take=collectives.on_host)
        opened = _of_the_batch(opened, membership)
        sizes = membership.anchors, membership.keys
        shard = ranks.Shard(opened.comparison, collectives, *sizes, membership.shared, totals=not membership.transposed)
        value, shares, gradients = swept(opened, wanted, shard, own_programs)
        if collectives.on_host and shares is not None:
            membership.shares.append(shares)
        found = tuple(
            gradient if gradient is None or membership.scale(name) == 1.0 else gradient * membership.scale(name)
            for name, gradient in zip(names, gradients, strict=False)  # without any there are none
        )
        return value if call.scalar else finish(opened, value), Saved(gradients=found)

    def backward(
        self, arrays: tuple[Array, ...], saved: Saved, cotangent: Array | None, wanted: tuple[bool, ...]
    ) -> tuple[Array | None, ...]:
        """The gradient by each array that is wanted: no process waits for another here."""
        call, membership = self.static.call, self.membership
        xp = call.backend.namespace(arrays[0])
        found: list[Array | None] = []
        for name, x, gradient, want in zip(call.names, arrays, saved.gradients, wanted, strict=True):
            if gradient is None or not want:
                found.append(None)
                continue
            if cotangent is not None:
                gradient = gradient * cotangent
            elif membership.replicated(name) and membership.transposed:  # nobody will transpose this
                gradient = membership.collectives.total(gradient)
            found.append(gradient if gradient.dtype == x.dtype else xp.astype(gradient, x.dtype))
        return tuple(found)


def ranked(problem: Problem, plan: Plan) -> RankedSteps:
    """The steps of a call on several ranks; the dense engine's are one tile."""
    if plan.is_dense:
        plan = replace(plan, engine="tiled", tile=max(1, *problem.sizes))
    steps = steps_of(problem, plan)
    return RankedSteps(SpreadStatic(steps.static, problem.membership, RankedSteps), steps.constants)


def _of_the_batch(opened: Opened, membership: Membership) -> Opened:
    """What was opened, with what only all ranks together know: whether each id has one label."""
    comparison = opened.comparison
    if comparison.samples is Samples.DISTINCT or "sample" not in comparison.rows:
        return opened
    if not membership.collectives.on_host:
        return opened._replace(comparison=replace(comparison, samples=Samples.ANYWHERE))
    rows, sizes = comparison.rows, membership.anchors
    whole = ranks.attributes_of_all(membership.collectives, comparison.xp, rows, sizes)
    columns: Attributes = whole
    if comparison.columns is not rows:
        columns = comparison.columns
        if not membership.shared:
            columns = ranks.attributes_of_all(membership.collectives, comparison.xp, columns, membership.keys)
    samples = where_samples_repeat(comparison.backend, whole, columns)
    return opened._replace(comparison=replace(comparison, samples=samples))
