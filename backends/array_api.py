"""NumPy, array-api-strict, CuPy, Dask, ndonnx, and whatever else has an Array API namespace."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import array_api_compat

from sincere_spec.arrays import Array, Namespace, T
from sincere_spec.errors import ShapeError, UnknownArrayError
from sincere_spec.interface import Collectives, Differentiable, Kernels
from sincere_spec.spec.words import Logit

SEGMENTS = 512
"""The segments that are summed at a time where the library has no scatter: a product with their masks."""


@cache
def _dtype_name(kind: type, dtype: Any) -> str:
    """The standard's name of a dtype of some kind of array; NumPy makes its own anew each time it is asked."""
    name = str(getattr(dtype, "name", dtype)).rpartition(".")[2]
    return "string" if name.startswith("str") else name


@cache
def _of_numpy(kind: type) -> bool:
    """Whether a kind of array is NumPy's, or derived from it."""
    return any(f"{one.__module__}.{one.__qualname__}" == "numpy.ndarray" for one in kind.__mro__)


vars(_of_numpy.__wrapped__)["_dynamo_marked_constant"] = True  # torch.compile cannot trace it, and runs it


def _is_numpy(x: Array) -> bool:
    kind: type = type(x)
    return _of_numpy(kind)


class ArrayApiBackend:
    """Plain arrays: no tracing, no gradients of the framework's own."""

    name = "array_api"
    traces = False

    def __init__(self) -> None:
        self.namespaces: dict[type, Namespace] = {}  # looked up thirty times a call

    def namespace(self, x: Array) -> Namespace:
        if type(x) not in self.namespaces:
            self.namespaces[type(x)] = array_api_compat.array_namespace(x)
        return self.namespaces[type(x)]

    def prepare(self, x: Array, argument: str) -> Array:
        kind = type(x).__name__
        if kind == "ndarray" and _is_numpy(x):
            if not hasattr(x, "ctypes"):  # what torch.compile traces in place of one
                raise UnknownArrayError(
                    f"{argument}: torch.compile cannot trace a NumPy array here; convert it before, by torch.from_numpy."
                )
            return x
        if kind in ("matrix", "MaskedArray"):
            raise UnknownArrayError(
                f"{argument}: expected a plain array; got numpy's {kind}: pass numpy.asarray of it."
            )
        try:
            array_api_compat.array_namespace(x)
        except TypeError:
            root = type(x).__module__.partition(".")[0]
            raise UnknownArrayError(
                f"{argument}: {root}'s {kind} has no Array API namespace; convert it to an array."
            ) from None
        if any(isinstance(length, float) for length in x.shape):  # a NaN
            raise ShapeError(
                f"{argument}: expected an array of known shape; got dask's {tuple(x.shape)}: call its compute_chunk_sizes()."
            )
        if None in x.shape[1:] or (len(x.shape) > 2 and x.shape[0] is None):
            raise ShapeError(
                f"{argument}: expected shape [rows, d] where the number of rows is not known yet, and d known; got "
                f"{tuple(x.shape)}: flatten views into rows."
            )
        return x

    def dtype_name(self, x: Array) -> str:
        kind: type = type(x)
        return _dtype_name(kind, x.dtype)

    def dtype(self, name: str, like: Array) -> Any:
        return getattr(self.namespace(like), name)

    def device(self, x: Array) -> object:
        return "cpu" if _is_numpy(x) else array_api_compat.device(x)

    def platform(self, x: Array) -> str:
        return "cuda" if array_api_compat.is_cupy_array(x) else "cpu"

    def concrete(self, x: Array) -> bool:
        return _is_numpy(x) or not (array_api_compat.is_dask_array(x) or array_api_compat.is_ndonnx_array(x))

    def on_host(self, x: Array) -> bool:
        return _is_numpy(x) or (self.concrete(x) and not array_api_compat.is_cupy_array(x))

    def extremes(self, x: Array) -> tuple[float, float]:
        if _is_numpy(x):
            return float(x.min()), float(x.max())
        xp = self.namespace(x)
        return -float(xp.max(-x)), float(xp.max(x))

    def to_host(self, x: Array) -> Any:
        import numpy

        if array_api_compat.is_cupy_array(x):
            return x.get()
        return x if isinstance(x, numpy.ndarray) else numpy.from_dlpack(x)

    def integers(self, values: Sequence[int], like: Array) -> Array:
        xp = self.namespace(like)
        return xp.asarray(values, dtype=xp.int64, device=self.device(like))

    def length(self, x: Array) -> Any:
        return x.dynamic_shape[0] if x.shape[0] is None else x.shape[0]  # None in a graph of ndonnx

    def indices(self, x: Array) -> Array:
        xp = self.namespace(x)
        if x.shape[0] is None:  # of which ndonnx has no arange
            return xp.cumulative_sum(xp.ones_like(x[:, 0] if len(x.shape) > 1 else x, dtype=xp.int64)) - 1
        return xp.arange(x.shape[0], device=self.device(x))

    def hold(self, x: Array) -> Array:
        return x

    def product(self, a: Array, b: Array) -> Array:
        return a @ b

    def scratch(self, like: Array, size: int) -> Array:
        return self.namespace(like).empty((size,), dtype=like.dtype, device=self.device(like))

    def product_into(self, scratch: Array, a: Array, b: Array, scale: float) -> Array:
        a = a if scale == 1.0 else scale * a
        if not _is_numpy(a):
            return a @ b
        numpy = sys.modules["numpy"]
        out = scratch[: a.shape[0] * b.shape[1]].reshape(a.shape[0], b.shape[1])
        return numpy.matmul(a, b, out=out)

    def add_product(self, total: Array, a: Array, b: Array) -> None:
        total += a @ b

    def exp_of(self, x: Array) -> Array:
        return self.namespace(x).exp(x, out=x) if _is_numpy(x) else self.namespace(x).exp(x)

    def has_columns(self, like: Array) -> bool:
        return _is_numpy(like)

    def columns_of(self, x: Array, columns: Array) -> Array:
        return x[_places(x, columns)]

    def with_columns(self, x: Array, columns: Array, value: float) -> Array:
        x[_places(x, columns)] = value
        return x

    def added_to_columns(self, x: Array, columns: Array, values: Array) -> Array:
        sys.modules["numpy"].add.at(x, _places(x, columns), values)
        return x

    def tiles_obstacle(self, like: Array) -> str | None:
        if self.concrete(like):
            return None
        return f"arrays of {type(like).__module__.partition('.')[0]} are computed later, and tiles need numbers now"

    def strips(self, like: Array, logit: Logit) -> Kernels | None:
        return None

    def when_run(self, like: Array) -> str | None:
        return None

    def kernels(self, like: Array, logit: Logit) -> Kernels | str:
        return f"there are no kernels for {self.namespace(like).__name__.rpartition('.')[2]}"

    def collectives(self, group: object) -> Collectives | str:
        return "such arrays have no collectives; PyTorch's process groups have"

    def wants_gradient(self, x: Array) -> bool:
        return True

    def largest(self, x: Array, k: int) -> tuple[Array, Array]:
        xp = self.namespace(x)
        if _is_numpy(x):
            numpy = sys.modules["numpy"]
            if k == 1:
                columns = numpy.argmax(x, axis=1)[:, None]
                return x[_places(x, columns)], columns
            least = numpy.partition(x, x.shape[1] - k, axis=1)[:, x.shape[1] - k, None]
            above, level = x > least, x == least
            kept = above | (level & (numpy.cumsum(level, axis=1) <= k - numpy.sum(above, axis=1, keepdims=True)))
            found = numpy.reshape(numpy.nonzero(kept)[1], (-1, k))
            order = numpy.argsort(-x[_places(x, found)], axis=1, stable=True)
            columns = found[_places(x, order)]
            return x[_places(x, columns)], columns
        columns = xp.argsort(x, axis=1, descending=True, stable=True)[:, :k]
        return xp.take_along_axis(x, columns, axis=1), columns

    def segment_sums(self, x: Array, segments: Array, count: int) -> Array:
        xp = self.namespace(x)
        if _is_numpy(x) and x.shape[0]:
            numpy = sys.modules["numpy"]
            order = numpy.argsort(segments, stable=True)
            ordered = segments[order]
            first = numpy.flatnonzero(numpy.append(True, ordered[1:] != ordered[:-1]))
            sums = numpy.zeros((count, x.shape[1]), dtype=x.dtype)
            sums[ordered[first]] = numpy.add.reduceat(x[order], first, axis=0)
            return sums
        if not count:
            return x[:0, :]
        numbers, parts = xp.arange(count, device=self.device(x)), []
        for start in range(0, count, SEGMENTS):
            mask = numbers[start : min(start + SEGMENTS, count)][:, None] == segments[None, :]
            parts.append(xp.astype(mask, x.dtype) @ x)
        return xp.concat(parts, axis=0)

    def differentiable(self, steps: Differentiable, *arrays: Array) -> Array:
        return steps.value(*arrays)

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        numpy = sys.modules.get("numpy")
        if numpy is None:
            return function(*arguments)
        with numpy.errstate(all="ignore"):  # an overflow is in the result; it needs no warning besides
            return function(*arguments)


def _places(x: Array, columns: Array) -> tuple[Array, Array]:
    """Where some columns of each row of a NumPy array are."""
    return sys.modules["numpy"].arange(x.shape[0])[:, None], columns
