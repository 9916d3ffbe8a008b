"""Labels and ids, whatever they come as, made integers before any cast could merge two of them."""

from __future__ import annotations

from numbers import Real
from typing import Any

from sincere_spec.arrays import Array, Labels
from sincere_spec.call.dispatch import find_backend, unwrap
from sincere_spec.errors import LabelError, MixedBackendsError, ShapeError
from sincere_spec.interface import Backend

SIGNED = ("int64", "int32", "int16", "int8")
INTEGERS = (*SIGNED, "uint8", "uint16", "uint32", "uint64")


def as_integers(backend: Backend, like: Array, given: dict[str, tuple[Labels, Any]]) -> list[Array]:
    """Vectors of labels as integers beside `like`, equal exactly where the labels were.

    `given` has what came and the length it must have, by argument; two of them are numbered together. Integers that
    are in the framework already stay as they are. Everything else is numbered on the host, and so must have values
    by now.
    """
    device: dict[str, Array] = {}
    host: dict[str, list[Any]] = {}
    for name, (labels, length) in given.items():
        vector = integers_already(backend, like, name, labels)
        if vector is not None:
            _check_length(name, vector.shape[0], length)
            # A copy: the caller may write other labels there before the gradient is asked for.
            device[name] = backend.namespace(vector).concat([vector], axis=0)
            continue
        host[name] = read_labels(backend, like, name, labels)
        _check_length(name, len(host[name]), length)

    if device and host and all(backend.concrete(labels) for labels in device.values()):
        for name, labels in device.items():
            host[name] = _read(name, backend.to_host(labels))
        device = {}
    _check_kinds(host)
    numbers: dict[Any, int] = {}
    for name, labels in host.items():
        if device:  # beside traced integers they cannot be renumbered
            device[name] = backend.integers([_device_integer(name, label) for label in labels], like)
        else:
            host[name] = [numbers.setdefault(label, len(numbers)) for label in labels]
    return _of_one_width(
        backend, like, [device[name] if name in device else backend.integers(host[name], like) for name in given]
    )


def integers_already(backend: Backend, like: Array, name: str, labels: Labels) -> Array | None:
    """Labels that are a vector of integers of the framework, which stay as they are; None for others."""
    labels = _of_framework(backend, like, name, labels)
    if labels is None:
        return None
    kind = backend.dtype_name(labels)
    kept = len(labels.shape) == 1 and (kind in SIGNED or (kind in INTEGERS and not backend.concrete(labels)))
    return labels if kept else None


def read_labels(backend: Backend, like: Array, name: str, labels: Labels) -> list[Any]:
    """One hashable label a row, on the host."""
    own = _of_framework(backend, like, name, labels)
    if own is not None:
        if not backend.concrete(own):
            raise LabelError(
                f"{name}: under tracing labels must be a vector of integers; got {backend.dtype_name(own)} of shape "
                f"{tuple(own.shape)}: convert them before (one-hot rows by argmax)."
            )
        return _read(name, backend.to_host(own))
    labels = unwrap(labels)
    if isinstance(labels, Real):
        raise LabelError(f"{name}: expected one label a row, as an array or a list; got the number {labels!r}.")
    owner = find_backend(labels)
    if owner is not None and owner.name != "array_api":
        raise MixedBackendsError(f"{name} is a {owner.name} array beside {backend.name} embeddings; convert it.")
    return _read(name, labels if owner is None else owner.to_host(owner.prepare(labels, name)))


def _of_framework(backend: Backend, like: Array, name: str, labels: Labels) -> Array | None:
    """Labels that are an array of the framework of the embeddings, beside these; None for others."""
    labels = unwrap(labels)
    if isinstance(labels, Real) or find_backend(labels) is not backend:
        return None
    if backend.namespace(labels) is not backend.namespace(like):
        return None
    labels = backend.prepare(labels, name)
    here, there = backend.device(like), backend.device(labels)
    if here != there:
        raise MixedBackendsError(f"the embeddings are on {here} and {name} on {there}; move one of them.")
    if len(labels.shape) == 2 and labels.shape[1] == 1:  # a column, as data frames and Keras have them
        labels = backend.namespace(labels).reshape(labels, (-1,))
    return labels


def _of_one_width(backend: Backend, like: Array, vectors: list[Array]) -> list[Array]:
    """Vectors of labels in one signed dtype, so that they can be compared and none wraps into another."""
    kinds = {backend.dtype_name(vector) for vector in vectors}
    if len(kinds) == 1:
        return vectors
    if kinds & {"uint32", "uint64"}:
        raise LabelError(
            f"traced labels of {' and '.join(sorted(kinds))} would wrap into each other; convert them to one."
        )
    widest = backend.dtype("int64" if "int64" in kinds else "int32", like)
    return [backend.namespace(like).astype(vector, widest) for vector in vectors]


def _check_length(name: str, came: Any, length: Any) -> None:
    if isinstance(length, int) and isinstance(came, int) and came != length:
        raise ShapeError(f"{name} has {came} entries for {length} rows; give one for each, in the same order.")


def _device_integer(name: str, label: Any) -> int:
    if not isinstance(label, int) or not -(2**31) <= label < 2**31:
        raise LabelError(f"{name}: beside traced integers every label must be one of 32 bits; got {label!r}.")
    return label


def _read(name: str, labels: Any) -> list[Any]:
    """One hashable label a row, from a list or from an array on the host."""
    if not isinstance(labels, (list, tuple, range)) and not hasattr(labels, "tolist"):
        raise LabelError(f"{name}: expected one label a row, as an array or a list; got {type(labels).__name__}.")
    shape = getattr(labels, "shape", None)
    if shape is not None and len(shape) not in (1, 2):
        raise LabelError(f"{name}: expected one label a row; got shape {tuple(shape)}.")
    for x in (labels,) if hasattr(labels, "dtype") else labels:
        if getattr(getattr(x, "dtype", None), "kind", None) in ("m", "M"):  # of some units NumPy makes integers
            raise LabelError(f"{name}: labels are integers or strings; got {x.dtype}: convert them, by astype(str).")
    rows = labels.tolist() if hasattr(labels, "tolist") else list(labels)
    rows = [row.tolist() if hasattr(row, "tolist") else row for row in rows]
    if not any(isinstance(row, (list, tuple)) for row in rows):
        return [_label(name, row) for row in rows]
    if len({len(row) if isinstance(row, (list, tuple)) else None for row in rows}) > 1:
        raise LabelError(f"{name}: expected one label a row, or one-hot rows of one length; got some of each.")
    if len(rows[0]) == 1:  # a column
        return [_label(name, row[0]) for row in rows]
    return [_class_of_one_hot(name, row) for row in rows]


def _check_kinds(given: dict[str, list[Any]]) -> None:
    """Refuse strings beside integers: none of them is equal to one of the others, and nobody means that."""
    kinds = {
        name: "strings" if isinstance(labels[0], str) else "integers"
        for name, labels in given.items()
        if labels and len({isinstance(label, str) for label in labels}) == 1
    }
    if len(set(kinds.values())) > 1:
        (one, kind), (other, another) = kinds.items()
        raise LabelError(f"{one} are {kind} and {other} {another}, and so no two are equal; convert one of them.")


def _label(name: str, label: Any) -> Any:
    if isinstance(label, bytes):  # as TensorFlow has its strings
        return label.decode(errors="surrogateescape")
    if isinstance(label, (str, int)):
        return label
    if isinstance(label, float) and label.is_integer():
        return int(label)
    raise LabelError(f"{name}: labels are integers, strings, integer-valued floats or one-hot rows; got {label!r}.")


def _class_of_one_hot(name: str, row: list[Any] | tuple[Any, ...]) -> int:
    if row.count(1) != 1 or row.count(0) != len(row) - 1:
        raise LabelError(
            f"{name}: a two-dimensional array of labels must be one-hot, one 1 in each row and else 0; got the row "
            f"{list(row[:8])}{'...' if len(row) > 8 else ''}: pass one class a row."
        )
    return row.index(1)
