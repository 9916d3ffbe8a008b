"""A call, checked: its arrays by name, their roles, its labels as integers. What is refused is refused here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

from sincere_spec.arrays import COMPUTE_DTYPE, Array, Labels
from sincere_spec.call.dispatch import one_backend, unwrap
from sincere_spec.call.labels import as_integers
from sincere_spec.engines.rows import check_reduction
from sincere_spec.errors import (
    DtypeError,
    MixedBackendsError,
    OptionError,
    ShapeError,
)
from sincere_spec.interface import Backend
from sincere_spec.spec.words import PairLoss, Roles, check_temperature

PARAMETERS = ("temperature", "bias")


@dataclass(frozen=True)
class Problem:
    """A checked call: nothing about it can fail any more except the arithmetic."""

    backend: Backend
    loss: PairLoss
    roles: Roles
    embeddings: dict[str, Array]
    shapes: dict[str, tuple[Any, ...]]
    labels: Array
    key_labels: Array
    ids: Array
    key_ids: Array
    distinct: bool
    temperature: float | Array
    bias: float | Array
    normalize: bool
    reduction: str

    @property
    def sizes(self) -> tuple[Any, Any]:
        """The number of rows and of columns; None where it is not known yet."""
        rows = [self.embeddings[name].shape[0] for name in self.roles.anchors]
        count = None if None in rows else sum(rows)
        return count, self.embeddings[self.roles.keys[0]].shape[0] if self.roles.keys else count

    @property
    def arguments(self) -> dict[str, Array]:
        """The arrays that receive a gradient, by name."""
        parameters = {"temperature": self.temperature, "bias": self.bias}
        return self.embeddings | {name: x for name, x in parameters.items() if not isinstance(x, (int, float))}


def prepare(
    loss: PairLoss,
    arguments: tuple[Any, ...],
    temperature: float | Array | None,
    bias: float | Array | None,
    keys: Array | None,
    key_labels: Labels | None,
    ids: Labels | None,
    key_ids: Labels | None,
    normalize: bool,
    reduction: str,
) -> Problem:
    """Check a call and put its arguments in their roles; raises before any arithmetic."""
    if not isinstance(loss, PairLoss):
        raise OptionError(
            f"expected a loss record, such as sincere_spec.losses.sincere(0.1); got {type(loss).__name__}."
        )
    if not isinstance(normalize, bool):
        raise OptionError(f"normalize must be True or False; got {normalize!r}.")
    check_reduction(reduction)
    labels: Labels | None = None
    if loss.arrangement.labelled:
        if len(arguments) == 3 and temperature is None:
            *arguments_, temperature = arguments
            arguments = tuple(arguments_)
        if len(arguments) != 2:
            raise TypeError(
                f"{loss.name} takes {loss.arrangement.signature}; got {len(arguments)} positional arguments."
            )
        labels, given = arguments[1], (arguments[0], *(() if keys is None else (keys,)))
    else:
        extra = {"keys": keys, "key_labels": key_labels, "ids": ids, "key_ids": key_ids}
        refused = [name for name, value in extra.items() if value is not None]
        if refused:
            raise TypeError(f"{loss.name} takes {loss.arrangement.signature} and no {refused[0]}: it has no labels.")
        optional = loss.arrangement.signature.endswith("=None")
        given = arguments[:-1] if optional and arguments and arguments[-1] is None else arguments
    temperature = _parameter("temperature", loss.temperature if temperature is None else temperature)
    bias = _parameter("bias", loss.bias if bias is None else bias)

    names = loss.arrangement.names(len(given))
    raw = {name: unwrap(array) for name, array in zip(names, given, strict=True)}
    parameters = {name: x for name, x in (("temperature", temperature), ("bias", bias)) if not isinstance(x, float)}
    backend = one_backend(raw | parameters)
    raw = {name: backend.prepare(array, name) for name, array in raw.items()}
    parameters = {name: backend.prepare(array, name) for name, array in parameters.items()}
    _check_libraries(backend, raw | parameters)
    _check_floats(backend, raw)
    _check_parameters(backend, parameters)
    shapes = {name: tuple(array.shape) for name, array in raw.items()}
    embeddings = _flattened(backend, loss, raw)
    roles = loss.arrangement.roles(names)
    vectors = _vectors(backend, loss, roles, embeddings, shapes, labels, key_labels, ids, key_ids)
    return Problem(
        backend=backend,
        loss=loss,
        roles=roles,
        embeddings=embeddings,
        shapes=shapes,
        **vectors,
        distinct=ids is None,
        temperature=parameters.get("temperature", temperature),
        bias=parameters.get("bias", bias),
        normalize=normalize,
        reduction=reduction,
    )


def _parameter(name: str, value: float | Array) -> float | Array:
    if isinstance(value, Real) and not isinstance(value, bool):
        value = float(value)
    if name == "temperature":
        check_temperature(value)
    elif isinstance(value, (bool, str)) or (isinstance(value, float) and not -float("inf") < value < float("inf")):
        raise OptionError(f"{name} must be a finite number or a 0-d array; got {value!r}.")
    return value if isinstance(value, float) else unwrap(value)


def _check_libraries(backend: Backend, arrays: Mapping[str, Array]) -> None:
    """One adapter may serve several array libraries, whose arrays no more mix than frameworks do."""
    first, *others = arrays
    here = backend.namespace(arrays[first])
    for name in others:
        there = backend.namespace(arrays[name])
        if there is not here:
            one, other = (namespace.__name__.rpartition(".")[2] for namespace in (here, there))
            raise MixedBackendsError(f"{first} is a {one} array and {name} a {other} one; convert one of them.")


def _check_floats(backend: Backend, arrays: Mapping[str, Array]) -> None:
    first, *others = arrays
    for name, array in arrays.items():
        kind = backend.dtype_name(array)
        if kind not in COMPUTE_DTYPE:
            raise DtypeError(f"{name}: expected one of {', '.join(COMPUTE_DTYPE)}; got {kind}: convert it.")
    for name in others:
        kind, other = backend.dtype_name(arrays[first]), backend.dtype_name(arrays[name])
        if kind != other:
            raise DtypeError(f"{first} is {kind} and {name} {other}; convert one of them.")
        here, there = backend.device(arrays[first]), backend.device(arrays[name])
        if here != there:
            raise MixedBackendsError(f"{first} is on {here} and {name} on {there}; move one of them.")


def _check_parameters(backend: Backend, parameters: Mapping[str, Array]) -> None:
    for name, array in parameters.items():
        if len(array.shape) != 0:
            raise ShapeError(
                f"{name}: expected a number or a 0-d array; got shape {tuple(array.shape)}: index or reshape it."
            )
        if backend.dtype_name(array) not in COMPUTE_DTYPE:
            raise DtypeError(f"{name}: expected a floating-point number; got {backend.dtype_name(array)}: convert it.")
        if name == "temperature" and backend.on_host(array):
            check_temperature(float(backend.hold(array)))


def _flattened(backend: Backend, loss: PairLoss, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The arrays as matrices of rows, checked against each other."""
    matrices = {}
    for name, array in arrays.items():
        rank = len(array.shape)
        if rank == 3 and name == "embeddings" and loss.arrangement.labelled and array.shape[1] != 0:
            rows = backend.length(array) * array.shape[1]
            matrices[name] = backend.namespace(array).reshape(array, (rows, array.shape[2]))
        elif rank == 2:
            matrices[name] = array
        else:
            expected = "[n, d] or [n, views, d]" if name == "embeddings" else "[rows, d]"
            raise ShapeError(
                f"{name}: expected shape {expected}; got {tuple(array.shape)}: reshape it to one row a sample."
            )
    first, *others = arrays
    width = matrices[first].shape[1]
    for name in others:
        if matrices[name].shape[1] != width:
            raise ShapeError(
                f"{first} has rows of {width} entries and {name} of {matrices[name].shape[1]}; "
                "compare embeddings of one space."
            )
        if name not in ("keys", "negatives") and not _may_equal(matrices[name].shape[0], matrices[first].shape[0]):
            raise ShapeError(
                f"{first} has {matrices[first].shape[0]} rows and {name} {matrices[name].shape[0]}; "
                "row i of each must be the same sample."
            )
    return matrices


def _may_equal(a: Any, b: Any) -> bool:
    return a is None or b is None or bool(a == b)


def _vectors(
    backend: Backend,
    loss: PairLoss,
    roles: Roles,
    embeddings: Mapping[str, Array],
    shapes: Mapping[str, tuple[Any, ...]],
    labels: Labels | None,
    key_labels: Labels | None,
    ids: Labels | None,
    key_ids: Labels | None,
) -> dict[str, Array]:
    """Labels and ids of the rows and of the columns, as integers beside the embeddings."""
    first = embeddings[roles.anchors[0]]
    xp = backend.namespace(first)
    if not loss.arrangement.labelled:
        parts = [backend.indices(first)] * len(roles.anchors)
        own = xp.concat(parts, axis=0) if len(parts) > 1 else parts[0]
        samples = column_samples = backend.indices(own) if len(parts) > 1 else own
        column_labels = own
        if roles.keys:
            column_labels = column_samples = backend.indices(embeddings[roles.keys[0]])
            if roles.queue:
                column_labels = column_labels + -(2**31)  # of no anchor, still ascending, and for int32 too
        return {"labels": own, "key_labels": column_labels, "ids": samples, "key_ids": column_samples}

    keys = embeddings.get("keys")
    _check_pair("keys", keys, "key_labels", key_labels)
    if keys is None and key_ids is not None:
        raise ShapeError(
            "key_ids came without keys; ids alone name the samples of a batch that is compared with itself."
        )
    if keys is not None:
        _check_pair("ids", ids, "key_ids", key_ids)

    shape, rows = shapes["embeddings"], first.shape[0]
    columns = None if keys is None else keys.shape[0]
    named = {"labels": (labels, shape[0])} | ({} if keys is None else {"key_labels": (key_labels, columns)})
    own, *others = as_integers(backend, first, named)
    if len(shape) == 3:  # sample by sample: the views of a sample are neighbours, and share its label
        own = xp.reshape(xp.concat([own[:, None]] * shape[1], axis=1), (-1,))
    if ids is None:
        samples = backend.indices(first)
        key_samples = samples if keys is None else -1 - backend.indices(keys)
    else:
        named = {"ids": (ids, rows)} | ({} if keys is None else {"key_ids": (key_ids, columns)})
        samples, *key_others = as_integers(backend, first, named)
        key_samples = key_others[0] if key_others else samples
    return {"labels": own, "key_labels": others[0] if others else own, "ids": samples, "key_ids": key_samples}


def _check_pair(first: str, given: object, second: str, beside: object) -> None:
    if (given is None) != (beside is None):
        missing, there = (first, second) if given is None else (second, first)
        raise ShapeError(f"{there} came without {missing}; give both, or neither.")
