"""From an array to the adapter of its framework, by the array's type alone; nothing is imported to find out."""

from __future__ import annotations

from typing import Any

from sincere_spec.backends import by_root, known_roots
from sincere_spec.errors import MixedBackendsError, UnknownArrayError
from sincere_spec.interface import Backend

_by_type: dict[type, Backend | None] = {}


def backend_of(x: object, argument: str) -> Backend:
    """The adapter of an array; raises UnknownArrayError, naming the argument, for anything else."""
    backend = find_backend(x)
    if backend is None:
        frameworks = ", ".join(root for root in known_roots() if root not in ("jaxlib", "dask", "ndonnx"))
        raise UnknownArrayError(
            f"{argument}: {type(x).__name__} is not an array of a framework that is known here ({frameworks}, "
            "or anything with __array_namespace__); convert it, for example with numpy.asarray."
        )
    return backend


def find_backend(x: object) -> Backend | None:
    """The adapter of an array, or None."""
    kind = type(x)
    _look_up(kind)
    return _by_type[kind]


def _look_up(kind: type) -> None:
    """Fill the table; under torch.compile this runs, and is not traced."""
    if kind not in _by_type:
        _by_type[kind] = _search(kind)


# What torch.compiler.assume_constant_result sets, without importing torch. A traced look-up would be a guard on the table
# that the first call fills, and the second call would compile again.
_look_up._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _search(kind: type) -> Backend | None:
    # A subclass written by a user comes from the user's module: its framework is further up.
    for ancestor in kind.__mro__:
        root = ancestor.__module__.partition(".")[0]
        if root == "builtins":
            continue
        backend = by_root(root)
        if backend is not None:
            return backend
    return by_root("array_api_strict") if hasattr(kind, "__array_namespace__") else None


def unwrap(x: Any) -> Any:
    """The framework's own array inside a Keras variable; anything else as it is."""
    if type(x).__module__.partition(".")[0] == "keras" and hasattr(x, "value"):
        return x.value
    return x


def one_backend(arrays: dict[str, Any]) -> Backend:
    """The adapter that all arrays share; raises MixedBackendsError naming two that differ."""
    first, *others = arrays
    backend = backend_of(arrays[first], first)
    for name in others:
        other = backend_of(arrays[name], name)
        if other is not backend:
            raise MixedBackendsError(
                f"{first} is a {backend.name} array and {name} a {other.name} one; convert one of them."
            )
    return backend
