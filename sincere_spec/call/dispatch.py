"""From an array to the adapter of its framework, by the array's type alone; nothing is imported to find out."""

from __future__ import annotations

from typing import Any

from sincere_spec.backends import by_root, known_roots
from sincere_spec.errors import MixedBackendsError, UnknownArrayError
from sincere_spec.interface import Backend
from sincere_spec.tracing import constant_when_traced

_roots: dict[type, str] = {}


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
    root = _adapted(type(x))
    backend: Backend | None = getattr(_Adapters, root) if root else None
    return backend


class _Adapters:
    """By root package the adapter, as an attribute: what a trace of torch.compile has read of a table, it keeps."""


@constant_when_traced  # a traced look-up would guard the table that the first call fills, and the second compile again
def _adapted(kind: type) -> str:
    """The root package that the adapter of a type is under, or nothing."""
    if kind not in _roots:
        _roots[kind] = _search(kind)
    return _roots[kind]


@constant_when_traced  # the module of a built-in type cannot be traced
def _package(kind: type) -> str:
    """The package of a type."""
    return kind.__module__.partition(".")[0]


def _search(kind: type) -> str:
    # A subclass written by a user comes from the user's module: its framework is further up.
    roots = [_package(ancestor) for ancestor in kind.__mro__]
    standard = ["array_api_strict"] if hasattr(kind, "__array_namespace__") else []
    for root in (*roots, *standard):
        backend = None if root == "builtins" else by_root(root)
        if backend is not None:
            setattr(_Adapters, root, backend)
            return root
    return ""


def unwrap(x: Any) -> Any:
    """The framework's own array inside a Keras variable; anything else as it is."""
    if _package(type(x)) == "keras" and hasattr(x, "value"):
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
