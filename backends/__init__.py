"""The frameworks. Each adapter is found by name and imported only when an array of its framework comes.

`register_backend` adds one by hand; an installed package adds one by an entry point of the group
`sincere_spec.backends`, whose name is the root package of the arrays it serves. README.md in this folder says how to
write an adapter.
"""

from __future__ import annotations

if __name__ == "backends":
    raise ImportError("import sincere_spec.backends, not backends: a second copy would keep a registry of its own.")

from collections.abc import Callable

from sincere_spec.errors import BackendNotInstalled
from sincere_spec.interface import Backend


# Import statements, not names of modules: torch.compile can trace these, if the first call is a compiled one.
def _array_api() -> Backend:
    from sincere_spec.backends.array_api import ArrayApiBackend

    return ArrayApiBackend()


def _jax() -> Backend:
    from sincere_spec.backends.jax import JaxBackend

    return JaxBackend()


def _jaxlib() -> Backend:
    # Tracers are of jax and concrete arrays of jaxlib, and one call has both.
    return by_root("jax") or _jax()


def _tensorflow() -> Backend:
    from sincere_spec.backends.tensorflow import TensorFlowBackend

    return TensorFlowBackend()


def _torch() -> Backend:
    from sincere_spec.backends.torch import TorchBackend

    return TorchBackend()


_factories: dict[str, Callable[[], Backend]] = {
    "array_api_strict": _array_api,
    "cupy": _array_api,
    "dask": _array_api,
    "jax": _jax,
    "jaxlib": _jaxlib,
    "ndonnx": _array_api,
    "numpy": _array_api,
    "tensorflow": _tensorflow,
    "torch": _torch,
}
_loaded: dict[str, Backend] = {}


def register_backend(root: str, factory: Callable[[], Backend]) -> None:
    """Serve arrays whose class comes from the package `root` by the adapter that `factory()` makes.

    Example:
        >>> from sincere_spec.backends import register_backend
        >>> from sincere_spec.backends.array_api import ArrayApiBackend
        >>> register_backend("my_arrays", ArrayApiBackend)
    """
    _factories[root] = factory
    _loaded.pop(root, None)


def known_roots() -> tuple[str, ...]:
    """The root packages whose arrays are served, without those that only entry points know."""
    return tuple(_factories)


def by_root(root: str) -> Backend | None:
    """The adapter for arrays whose class comes from the package `root`; None if nobody has one."""
    backend = _loaded.get(root)
    if backend is None:
        factory = _factories.get(root)
        if factory is None:
            from importlib.metadata import entry_points

            found = [point for point in entry_points(group="sincere_spec.backends") if point.name == root]
            if not found:
                return None
            factory = lambda: found[0].load()()  # noqa: E731
        same = next((other for other in _loaded if _factories.get(other) is factory), None)  # jax and jaxlib, say
        backend = _loaded[root] = _loaded[same] if same else _made(root, factory)
    return backend


def _made(root: str, factory: Callable[[], Backend]) -> Backend:
    try:
        return factory()
    except ImportError as error:
        example = f", for example with: pip install 'sincere-spec[{root}]'" if root in _factories else ""
        raise BackendNotInstalled(
            f"arrays of {root} need {error.name or root}, which cannot be imported ({error}); install it{example}."
        ) from error
