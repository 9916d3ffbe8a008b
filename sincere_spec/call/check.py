"""A call, checked: its arrays by name, their roles, its labels as integers. What is refused is refused here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict, cast

from sincere_spec.arrays import COMPUTE_DTYPE, Array, Engine, Labels, Reduction, Where
from sincere_spec.call.dispatch import one_backend, unwrap
from sincere_spec.call.labels import INTEGERS, as_integers
from sincere_spec.call.relations import IN_PLACE_OF_LABELS, Related, Sides, in_place_of_labels, related
from sincere_spec.call.where import rows_that_take_part
from sincere_spec.engines.comparison import Samples
from sincere_spec.engines.rows import check_reduction
from sincere_spec.errors import (
    DtypeError,
    LabelError,
    MixedBackendsError,
    OptionError,
    ShapeError,
    SignatureError,
    UnknownArrayError,
    unknown_keyword,
)
from sincere_spec.interface import Backend
from sincere_spec.relations import VALUES, Guide, Ignore, InPlaceOfLabels, Same
from sincere_spec.spec.checks import PARAMETER, TEMPERATURE, check_temperature, is_array, shown
from sincere_spec.spec.dictionaries import spelled
from sincere_spec.spec.relations import Attributes, OtherLabel, SameLabel
from sincere_spec.spec.words import PairLoss, Roles
from sincere_spec.tracing import constant_when_traced

PARAMETERS = ("temperature", "bias")
NORMAL = {
    "float32": (2.0**-126, (2.0 - 2.0**-23) * 2.0**127),
    "float64": (2.0**-1022, (2.0 - 2.0**-52) * 2.0**1023),
}
"""The smallest number that has all its digits in a dtype, and the largest."""
NORMAL_SHOWN = {kind: (f"{least:.3g}", f"{most:.3g}") for kind, (least, most) in NORMAL.items()}


class Keywords(TypedDict, total=False):
    """The keywords of `evaluate`, `value_and_gradient` and `explain`, described in `evaluate`."""

    temperature: float | Array | None
    bias: float | Array | None
    keys: Array | None
    key_labels: Labels | None
    ids: Labels | None
    key_ids: Labels | None
    where: Where | None
    ignore: Ignore | None
    normalize: bool
    reduction: Reduction
    engine: Engine
    tile: int | None
    across: Any


KEYWORDS = Keywords.__annotations__.keys()


@dataclass(frozen=True)
class Call:
    """A call as it came."""

    loss: PairLoss
    arguments: tuple[Any, ...]
    temperature: float | Array | None = None
    bias: float | Array | None = None
    keys: Array | None = None
    key_labels: Labels | None = None
    ids: Labels | None = None
    key_ids: Labels | None = None
    where: Where | None = None
    ignore: Ignore | None = None
    normalize: bool = True
    reduction: str = "mean"
    engine: str = "auto"
    tile: int | None = None
    across: Any = None


@dataclass(frozen=True)
class Problem:
    """A checked call: nothing about it can fail any more except the arithmetic.

    `related` says who is compared with whom, and `where` has the rows that take part by array.
    """

    backend: Backend
    loss: PairLoss
    roles: Roles
    embeddings: dict[str, Array]
    shapes: dict[str, tuple[Any, ...]]
    related: Related
    where: dict[str, Array]
    temperature: float | Array
    bias: float | Array
    normalize: bool
    reduction: str
    membership: Any = None  # a `ranks.Membership`, if other ranks have rows of the same batch

    @property
    def sizes(self) -> tuple[Any, Any]:
        """The number of rows and of columns that are swept here; None where it is not known yet."""
        if self.membership is not None:
            return cast(tuple[Any, Any], self.membership.sizes)
        return self.roles.sizes({name: x.shape[0] for name, x in self.embeddings.items()}, self.keys_of_each)

    @property
    def keys_of_each(self) -> int | None:
        """How many keys each anchor has of its own; None where all are compared with all, be it with none."""
        shape = self.shapes[self.roles.keys[0]] if self.roles.queue else ()
        return (shape[1] or None) if len(shape) == 3 else None

    @property
    def arguments(self) -> dict[str, Array]:
        """The arrays that receive a gradient, by name."""
        parameters = {"temperature": self.temperature, "bias": self.bias}
        return self.embeddings | {name: x for name, x in parameters.items() if not isinstance(x, (int, float))}


def call_of(name: str, loss: PairLoss, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> Call:
    """The call of the function of that name; raises SignatureError for a keyword that it does not have."""
    for keyword in keywords:
        if keyword not in KEYWORDS:
            raise unknown_keyword(name, keyword, KEYWORDS)
    return Call(loss, arguments, **keywords)


def read_choices(loss: PairLoss) -> list[tuple[str, str]]:
    """The enums of a record: torch.compile guards a member whose value is read, and none that is only hashed."""
    choices = [choice for stage in loss.stages for choice in (stage.fold, stage.over)]
    return [spelled(x) for x in (*choices, *(term.rows for term in loss.terms), *(x.fold for x in loss.combined))]


def check(call: Call) -> Problem:
    """Check a call and put its arguments in their roles; raises before any arithmetic."""
    loss, arguments, temperature = call.loss, call.arguments, call.temperature
    if not isinstance(loss, PairLoss):
        raise OptionError(
            f"expected a loss record, such as sincere_spec.losses.sincere(0.1); got {type(loss).__name__}."
        )
    read_choices(loss)
    if not isinstance(call.normalize, bool):
        raise OptionError(f"normalize must be True or False; got {call.normalize!r}.")
    check_reduction(call.reduction)
    labels: Labels | None = None
    if loss.arrangement.labelled:
        if len(arguments) == 3 and temperature is None:
            *arguments_, temperature = arguments
            arguments = tuple(arguments_)
        if len(arguments) != 2:
            raise SignatureError(
                f"{loss.name} takes {loss.arrangement.signature}; got {len(arguments)} positional arguments: "
                "name the others by keywords."
            )
        if arguments[1] is None:
            raise LabelError(
                f"labels: {loss.name} tells positives by their labels; got None: for two views of each sample without labels "
                "use nt_xent_loss, for pairs from two towers clip_loss."
            )
        labels, given = arguments[1], (arguments[0], *(() if call.keys is None else (call.keys,)))
    else:
        refused = [name for name in ("keys", "key_labels", "ids", "key_ids") if getattr(call, name) is not None]
        if refused:
            raise SignatureError(
                f"{loss.name} takes {loss.arrangement.signature} and no {refused[0]}: it has no labels."
            )
        optional = loss.arrangement.signature.endswith("=None")
        given = arguments[:-1] if optional and arguments and arguments[-1] is None else arguments
    temperature = unwrap(loss.temperature if temperature is None else TEMPERATURE(temperature, "temperature"))
    bias = unwrap(loss.bias if call.bias is None else PARAMETER(call.bias, "bias"))

    for one in given:
        _check_array(loss, one)
    names = loss.arrangement.names(len(given))
    raw = {name: unwrap(array) for name, array in zip(names, given, strict=True)}
    parameters = {name: x for name, x in (("temperature", temperature), ("bias", bias)) if not isinstance(x, float)}
    backend = one_backend(raw | parameters)
    raw = {name: backend.prepare(array, name) for name, array in raw.items()}
    parameters = {name: backend.prepare(array, name) for name, array in parameters.items()}
    _check_libraries(backend, raw | parameters)
    _check_floats(backend, loss, raw)
    shapes = {name: tuple(array.shape) for name, array in (raw | parameters).items()}
    parameters = _scalars(backend, parameters)
    _check_range(backend, raw[names[0]], {"temperature": temperature, "bias": bias})
    embeddings = _flattened(backend, loss, raw)
    roles = loss.arrangement.roles(names)
    sides = Sides(backend, roles, loss.arrangement.labelled, embeddings, shapes)
    named = _named_by_labels(sides, labels, call) if loss.arrangement.labelled else _named_by_place(sides)
    return Problem(
        backend=backend,
        loss=loss,
        roles=roles,
        embeddings=embeddings,
        shapes=shapes,
        related=related(sides, named, call.ignore),
        where=rows_that_take_part(backend, call.where, names, shapes, embeddings[names[0]]),
        temperature=parameters.get("temperature", temperature),
        bias=parameters.get("bias", bias),
        normalize=call.normalize,
        reduction=call.reduction,
    )


def _check_array(loss: PairLoss, given: object) -> None:
    """Say of what is often put in the place of an array where it belongs."""
    if isinstance(given, (list, tuple)) and any(is_array(one) for one in given):
        advice = (
            "stack the views of a sample, [n, views, d]"
            if loss.arrangement.labelled
            else "pass them as separate arguments"
        )
        raise UnknownArrayError(
            f"{loss.name} takes {loss.arrangement.signature}; got a {type(given).__name__} of {len(given)} arrays where "
            f"one belongs: {advice}."
        )
    if isinstance(given, (int, float)):
        raise UnknownArrayError(
            f"{loss.name} takes {loss.arrangement.signature}; got the number {given!r} in the place of an array: the "
            "temperature is a keyword, temperature=..."
        )


def _check_range(backend: Backend, like: Array, given: Mapping[str, float | Array]) -> None:
    """Refuse numbers that the dtype of the loss does not hold: it would make them 0, or infinite."""
    kind = COMPUTE_DTYPE[backend.dtype_name(like)]
    least, most = _normal(kind)
    for name, value in given.items():
        small = name == "temperature" and isinstance(value, float) and value < least
        if small or (isinstance(value, float) and abs(value) > most):
            lowest, highest = NORMAL_SHOWN[kind]
            bounds = f"up to {highest} and from {lowest} on" if small else f"up to {highest}"
            raise OptionError(
                f"{name}: expected a number that {kind} holds, {bounds}; got {shown(value)}: choose one in its range, or "
                "give float64 embeddings."
            )


@constant_when_traced
def _normal(kind: str) -> tuple[float, float]:
    """The smallest number that has all its digits in a dtype, and the largest."""
    return NORMAL[kind]


def _check_libraries(backend: Backend, arrays: Mapping[str, Array]) -> None:
    """One adapter may serve several array libraries, whose arrays no more mix than frameworks do."""
    first, *others = arrays
    here = backend.namespace(arrays[first])
    for name in others:
        there = backend.namespace(arrays[name])
        if there is not here:
            one, other = (namespace.__name__.rpartition(".")[2] for namespace in (here, there))
            raise MixedBackendsError(f"{first} is a {one} array and {name} a {other} one; convert one of them.")


def _check_floats(backend: Backend, loss: PairLoss, arrays: Mapping[str, Array]) -> None:
    first, *others = arrays
    for name, array in arrays.items():
        kind = backend.dtype_name(array)
        if name != first and len(array.shape) == 1 and not loss.arrangement.labelled and kind in INTEGERS:
            raise DtypeError(
                f"{name}: {loss.name} takes {loss.arrangement.signature}, and no labels; got a vector of {kind}: with labels use "
                'sincere_loss, or SincereLoss(reduction="pairs"), which is pytorch-metric-learning\'s NTXentLoss.'
            )
        if kind not in COMPUTE_DTYPE:
            raise DtypeError(f"{name}: expected one of {', '.join(COMPUTE_DTYPE)}; got {kind}: convert it.")
    for name in others:
        kind, other = backend.dtype_name(arrays[first]), backend.dtype_name(arrays[name])
        if kind != other:
            raise DtypeError(f"{first} is {kind} and {name} {other}; convert one of them.")
        here, there = backend.device(arrays[first]), backend.device(arrays[name])
        if here != there:
            raise MixedBackendsError(f"{first} is on {here} and {name} on {there}; move one of them.")


def _scalars(backend: Backend, parameters: Mapping[str, Array]) -> dict[str, Array]:
    """Parameters that are arrays, checked, as 0-d arrays: models have some of shape [1]."""
    scalars = {}
    for name, array in parameters.items():
        if any(size != 1 for size in array.shape):
            raise ShapeError(
                f"{name}: expected a number, or an array of one: 0-d or of shape (1,); got shape {tuple(array.shape)}: index it."
            )
        if backend.dtype_name(array) not in COMPUTE_DTYPE:
            raise DtypeError(f"{name}: expected a floating-point number; got {backend.dtype_name(array)}: convert it.")
        scalars[name] = backend.namespace(array).reshape(array, ()) if array.shape else array
        if name == "temperature" and backend.on_host(scalars[name]):
            check_temperature(float(backend.hold(scalars[name])))
    return scalars


def _flattened(backend: Backend, loss: PairLoss, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The arrays as matrices of rows, checked against each other."""
    matrices = {}
    for name, array in arrays.items():
        rank = len(array.shape)
        views = name == "embeddings" and loss.arrangement.labelled and len(array.shape) == 3 and array.shape[1] != 0
        if rank == 3 and (views or name == "negatives"):  # of the latter [n, k, d] are those of each query
            rows = backend.length(array) * array.shape[1]
            matrices[name] = backend.namespace(array).reshape(array, (rows, array.shape[2]))
        elif rank == 2:
            matrices[name] = array
        else:
            expected = {"embeddings": "[n, d] or [n, views, d]", "negatives": "[k, d] or [n, k, d]"}.get(
                name, "[rows, d]"
            )
            raise ShapeError(
                f"{name}: expected shape {expected}; got {tuple(array.shape)}: reshape it to one row a sample."
            )
    first, *others = arrays
    width = matrices[first].shape[1]
    for name in others:
        if not _may_equal(matrices[name].shape[1], width):
            raise ShapeError(
                f"{first} has rows of {width} entries and {name} of {matrices[name].shape[1]}; "
                "compare embeddings of one space."
            )
        own = name == "negatives" and len(arrays[name].shape) == 3
        if own and not _may_equal(arrays[name].shape[0], matrices[first].shape[0]):
            raise ShapeError(
                f"{first} has {matrices[first].shape[0]} rows and negatives are of {arrays[name].shape[0]}: give [n, k, d], "
                "k for each query, or [k, d] for all of them."
            )
        if name not in ("keys", "negatives") and not _may_equal(matrices[name].shape[0], matrices[first].shape[0]):
            raise ShapeError(
                f"{first} has {matrices[first].shape[0]} rows and {name} {matrices[name].shape[0]}; "
                "row i of each must be the same sample."
            )
    return matrices


def _may_equal(a: Any, b: Any) -> bool:
    return a is None or b is None or bool(a == b)


def _named_by_place(sides: Sides) -> Related:
    """The relation where row i of each array is the same sample: its label is its place."""
    backend, roles = sides.backend, sides.roles
    place, relation = (
        backend.indices(sides.embeddings[roles.anchors[0]]),
        OtherLabel() if roles.partners else SameLabel(),
    )
    if roles.keys:
        rows, label = {"label": place}, backend.indices(sides.embeddings[roles.keys[0]])
        if roles.queue:
            label = label + -(2**31)  # of no anchor, still ascending, and for int32 too
        columns = {"label": label}
    else:
        own = sides.by_row(place)
        rows = columns = {"label": own} if roles.partners else {"label": own, "sample": backend.indices(own)}
    ascending = bool(roles.keys)  # views of one batch follow each other
    return Related(relation, rows, columns, Samples.DISTINCT, ascending, roles.alike, {}, None)


def _named_by_labels(sides: Sides, labels: Labels | InPlaceOfLabels, call: Call) -> Related:
    """The relation that labels name, or pairs of the user's own, and which rows are one sample."""
    backend, embeddings = sides.backend, sides.embeddings
    first, keys, ids, key_ids = embeddings["embeddings"], embeddings.get("keys"), call.ids, call.key_ids
    is_tuple = isinstance(labels, tuple)  # as all pairs are: a compiler guards each class that is asked for
    by_pair = is_tuple and isinstance(labels, IN_PLACE_OF_LABELS)
    if is_tuple and isinstance(labels, (Same, Guide)):
        raise LabelError(f"labels: got {VALUES[type(labels)]}, which leaves pairs out: give it as ignore=.")
    if not by_pair:
        _check_pair("keys", keys, "key_labels", call.key_labels)
    elif call.key_labels is not None:
        raise SignatureError(
            f"key_labels came beside {VALUES[type(labels)]}, which says what the keys are: leave them out."
        )
    if keys is None and key_ids is not None:
        raise ShapeError(
            "key_ids came without keys; ids alone name the samples of a batch that is compared with itself."
        )
    if keys is not None:
        _check_pair("ids", ids, "key_ids", key_ids)

    shape, columns = sides.shapes["embeddings"], None if keys is None else keys.shape[0]
    if by_pair:  # every pair is asked, and rows stay as they are
        own, others = backend.indices(first), [] if keys is None else [backend.indices(keys)]
    else:
        named = {"labels": (labels, shape[0])} | ({} if keys is None else {"key_labels": (call.key_labels, columns)})
        own, *others = as_integers(backend, first, named)
        own = sides.by_row(own)  # sample by sample: the views of a sample are neighbours, and share its label
    if ids is None:  # counted beside labels, which no transform of JAX has in its hands
        samples = [backend.indices(own)] + ([] if keys is None else [-1 - backend.indices(others[0])])
    else:
        named = {"ids": (ids, first.shape[0])} | ({} if keys is None else {"key_ids": (key_ids, columns)})
        samples = as_integers(backend, first, named)
    rows = {"label": own, "sample": samples[0]}
    compared = rows if keys is None else {"label": others[0], "sample": samples[1]}
    repeated = Samples.DISTINCT if ids is None else where_samples_repeat(backend, rows, compared)
    made = Related(SameLabel(), rows, compared, repeated, by_pair, None, {}, None)
    return in_place_of_labels(sides, made, call.loss, labels) if by_pair else made


def where_samples_repeat(backend: Backend, rows: Attributes, columns: Attributes) -> Samples:
    """Whether each id has one label: then ids are asked only where labels meet. Known where they can be read cheaply."""
    vectors = (*rows.values(), *columns.values())
    if not all(backend.on_host(x) for x in vectors) or 0 in (rows["label"].shape[0], columns["label"].shape[0]):
        return Samples.ANYWHERE
    found: set[tuple[int, int]] = set()
    for side in (rows,) if columns is rows else (rows, columns):  # on the host: under tracing no operation has a value
        found.update(zip(*(backend.to_host(side[name]).tolist() for name in ("sample", "label")), strict=True))
    one_label = len(found) == len({sample for sample, _ in found})
    return Samples.WITHIN_LABELS if one_label else Samples.ANYWHERE


def _check_pair(first: str, given: object, second: str, beside: object) -> None:
    if (given is None) != (beside is None):
        missing, there = (first, second) if given is None else (second, first)
        raise ShapeError(f"{there} came without {missing}; give both, or neither.")
