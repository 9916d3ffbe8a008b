"""Which rows of a call take part: masks as users give them, made one boolean vector for each array."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sincere_spec.arrays import Array, Where
from sincere_spec.call.dispatch import find_backend, unwrap
from sincere_spec.errors import DtypeError, MixedBackendsError, ShapeError
from sincere_spec.interface import Backend

BESIDE = frozenset({"keys", "negatives"})
"""Arrays whose rows belong to no row of the others: one mask for all does not speak of them."""


def rows_that_take_part(
    backend: Backend, where: Where, names: Sequence[str], shapes: Mapping[str, tuple[Any, ...]], like: Array
) -> dict[str, Array]:
    """The mask of each array that has one, `[rows]`, beside `like`."""
    if where is None:
        return {}
    if isinstance(where, tuple):
        if len(where) != len(names):
            raise ShapeError(
                f"where: expected one mask, or None, for each of {', '.join(names)}; got a tuple of {len(where)}."
            )
        given = dict(zip(names, where, strict=True))
    else:
        given = {name: where for name in names if name not in BESIDE}
    found: dict[str, Array] = {}
    for name, mask in given.items():
        if mask is not None:  # one mask for several arrays stays one object; by `is`: a compiler would guard an id
            same = next((found[other] for other in found if given[other] is mask), None)
            found[name] = _mask(backend, mask, name, shapes[name], like) if same is None else same
    return found


def _mask(backend: Backend, mask: Any, name: str, shape: tuple[Any, ...], like: Array) -> Array:
    """One mask as a boolean vector by row, sample by sample where there are views."""
    xp, mask = backend.namespace(like), unwrap(mask)
    owner = find_backend(mask)
    if owner is backend and backend.namespace(mask) is xp:
        mask = backend.prepare(mask, "where")
        if backend.dtype_name(mask) not in ("bool", "bool_"):
            raise DtypeError(
                f"where: expected booleans; got {backend.dtype_name(mask)}: compare it, as in `labels >= 0`."
            )
        if backend.device(mask) != backend.device(like):
            raise MixedBackendsError(
                f"{name} is on {backend.device(like)} and where on {backend.device(mask)}; move one of them."
            )
        size = tuple(mask.shape)
    else:
        if owner is not None and owner.name != "array_api":
            raise MixedBackendsError(f"where is a {owner.name} array beside {backend.name} embeddings; convert it.")
        values, size = _on_host(owner.to_host(owner.prepare(mask, "where")) if owner is not None else mask)
        mask = backend.integers([int(value) for value in values], like) != 0
    expected = [shape[:1]] + ([shape[:2]] if len(shape) == 3 else [])
    if not any(_may_be(size, shape) for shape in expected):
        also = f" or {shape[:2]}" if len(shape) == 3 else ""
        raise ShapeError(
            f"where: expected shape {shape[:1]}{also} for {name}; got {size}: give a boolean for each row."
        )
    if len(shape) == 3 and len(size) == 1:
        mask = xp.concat([xp.reshape(mask, (-1, 1))] * shape[1], axis=1)
    return xp.reshape(mask, (-1,))


def _on_host(mask: Any) -> tuple[list[bool], tuple[int, ...]]:
    """The booleans of a list or of an array on the host, row by row, and their shape."""
    rows = mask.tolist() if hasattr(mask, "tolist") else mask
    if not isinstance(rows, list):
        raise DtypeError(f"where: expected booleans, as an array or a list; got {type(mask).__name__}.")
    nested = [row if isinstance(row, (list, tuple)) else [row] for row in rows]
    values = [value for row in nested for value in row]
    for value in values:
        if not isinstance(value, bool):
            raise DtypeError(f"where: expected booleans; got {value!r}: compare it, as in `labels >= 0`.")
    if len({len(row) for row in nested}) > 1:
        raise ShapeError("where: expected as many booleans in each row; got rows of several lengths.")
    flat = all(row is given for row, given in zip(nested, rows, strict=True)) and nested
    return values, (len(rows), len(nested[0])) if flat else (len(rows),)


def _may_be(size: tuple[Any, ...], shape: tuple[Any, ...]) -> bool:
    return len(size) == len(shape) and all(a is None or b is None or a == b for a, b in zip(size, shape, strict=True))
