"""The frameworks: how each is installed, started, given arrays, and asked for a gradient its own way.

Nothing here imports a framework before `start` is called, which a process does once.
"""

from __future__ import annotations

import ctypes
import gc
import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sincere_spec.conformance.judge import Returned
from sincere_spec.conformance.questions import Array, Question

__all__ = ["FRAMEWORKS", "Differentiated", "Framework", "Listing", "constants", "environment", "start"]

Differentiated = Callable[[dict[str, Any], dict[str, Any], Any], tuple[Any, Mapping[str, Any]]]
"""From arrays, integers and a cotangent to a value and the gradients of the arrays."""


@dataclass(frozen=True)
class Listing:
    """What is known of a framework without importing it.

    `autograd` says whether it has gradients of its own, `compilers` which of the routes "graph" and "compiled" it has,
    `at_scale` the route that real data takes, and `kernels` the package whose interpreter runs its kernels.
    """

    name: str
    dtypes: tuple[str, ...]
    distributions: tuple[str, ...]
    extra: str
    autograd: bool = True
    compilers: tuple[str, ...] = ()
    at_scale: str = "autograd"
    kernels: str = ""

    @property
    def installed(self) -> bool:
        """Whether it can be imported."""
        return importlib.util.find_spec(self.name) is not None

    @property
    def engines(self) -> tuple[str, ...]:
        """The engines that can run here."""
        kernels = self.kernels and importlib.util.find_spec(self.kernels) is not None
        return ("dense", "tiled", "kernel") if kernels else ("dense", "tiled")


HALF = ("float16", "bfloat16")
FULL = ("float32", "float64")

FRAMEWORKS = {
    listing.name: listing
    for listing in (
        Listing("numpy", ("float16", *FULL), ("numpy",), "verify", autograd=False, at_scale="formula"),
        Listing("array_api_strict", FULL, ("array-api-strict",), "test", autograd=False, at_scale="formula"),
        Listing("torch", (*HALF, *FULL), ("torch", "triton"), "torch", kernels="triton"),
        Listing(
            "jax",
            (*HALF, *FULL),
            ("jax", "jaxlib"),
            "jax",
            compilers=("compiled",),
            at_scale="compiled",
            kernels="jax",
        ),
        Listing(
            "tensorflow",
            (*HALF, *FULL),
            ("tensorflow", "tensorflow-cpu"),
            "tensorflow",
            compilers=("graph", "compiled"),
        ),
    )
}

# Under these, XLA compiles a single operation twice as fast; the route "compiled" sets them back. A version of jaxlib that
# does not know a flag ends the process, so only the one that was tried gets them.
_QUICK_XLA = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
_USUAL_XLA = {"xla_backend_optimization_level": 3, "xla_cpu_use_fusion_emitters": True}


def environment(framework: str, given: Mapping[str, str]) -> dict[str, str]:
    """The variables of a framework's process: a processor's float32 is a float32, on one thread; a device if one is asked for."""
    variables = {
        "JAX_ENABLE_X64": "1",
        "NVIDIA_TF32_OVERRIDE": "0",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_ENABLE_ONEDNN_OPTS": "0",
        "TF_NUM_INTEROP_THREADS": "1",
        "TF_NUM_INTRAOP_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
    }
    usual = {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "-1"}
    if "CUDA_VISIBLE_DEVICES" not in given:
        usual["TRITON_INTERPRET"] = "1"
    if framework == "jax" and _version("jaxlib").startswith("0.10."):
        usual["XLA_FLAGS"] = _QUICK_XLA
    return {**usual, **given, **variables}


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


class Framework(Protocol):
    """A framework that runs in this process."""

    listing: Listing

    def device(self) -> str:
        """Where its arrays are."""

    def array(self, numbers: Array, dtype: str) -> Any:
        """An array of its own; a 0-d one, too."""

    def integers(self, numbers: NDArray[np.generic]) -> Any:
        """Integers of its own, or booleans."""

    def read(self, x: Any) -> Returned:
        """The numbers of an array and its dtype; raises TypeError for anything else."""

    def forget(self) -> None:
        """Free what was compiled and will not be used again."""

    def differentiated(self, function: Callable[[dict[str, Any], dict[str, Any]], Any], route: str) -> Differentiated:
        """The framework's own gradient of a function of arrays and integers, eager or inside a compiler."""


def start(name: str) -> Framework:
    """Import a framework."""
    known: dict[str, Callable[[], Framework]] = {
        "numpy": _Numpy,
        "array_api_strict": _Strict,
        "torch": _Torch,
        "jax": _Jax,
        "tensorflow": _TensorFlow,
    }
    return known[name]()


def constants(framework: Framework, question: Question, dtype: str) -> dict[str, Any]:
    """The arguments of a question that receive no gradient: integers, booleans, and floats in its dtype."""
    whole = {name: framework.integers(x) for name, x in question.integers.items()}
    return whole | {name: framework.array(x, dtype) for name, x in question.held.items()}


def versions(listing: Listing) -> dict[str, str]:
    """The versions of what a framework is made of."""
    found = {distribution: _version(distribution) for distribution in (*listing.distributions, "array-api-compat")}
    return {distribution: version for distribution, version in found.items() if version}


class _Numpy:
    listing = FRAMEWORKS["numpy"]

    def device(self) -> str:
        return "cpu"

    def array(self, numbers: Array, dtype: str) -> Any:
        return np.asarray(numbers, dtype=dtype)

    def integers(self, numbers: NDArray[np.generic]) -> Any:
        return numbers

    def read(self, x: Any) -> Returned:
        if not isinstance(x, (np.ndarray, np.generic)):
            raise TypeError(f"a numpy array was expected, and {type(x).__name__} came")
        return Returned(np.asarray(x, dtype=np.float64), x.dtype.name)

    def forget(self) -> None:
        pass

    def differentiated(self, function: Callable[..., Any], route: str) -> Differentiated:
        raise NotImplementedError("NumPy has no gradients of its own")


class _Strict(_Numpy):
    listing = FRAMEWORKS["array_api_strict"]

    def __init__(self) -> None:
        import array_api_strict

        self.xp = array_api_strict

    def array(self, numbers: Array, dtype: str) -> Any:
        return self.xp.asarray(numbers, dtype=getattr(self.xp, dtype))

    def integers(self, numbers: NDArray[np.generic]) -> Any:
        return self.xp.asarray(numbers)

    def read(self, x: Any) -> Returned:
        if not isinstance(x, type(self.xp.asarray(0.0))):
            raise TypeError(f"an array of array_api_strict was expected, and {type(x).__name__} came")
        return super().read(np.from_dlpack(x))


class _Torch:
    listing = FRAMEWORKS["torch"]

    def __init__(self) -> None:
        import torch

        self.torch = torch

    def device(self) -> str:
        return "cpu"

    def array(self, numbers: Array, dtype: str) -> Any:
        return self.torch.tensor(numbers, dtype=getattr(self.torch, dtype))

    def integers(self, numbers: NDArray[np.generic]) -> Any:
        return self.torch.tensor(numbers)

    def read(self, x: Any) -> Returned:
        if not isinstance(x, self.torch.Tensor):
            raise TypeError(f"a torch.Tensor was expected, and {type(x).__name__} came")
        return Returned(x.detach().to(self.torch.float64).numpy(), str(x.dtype).removeprefix("torch."))

    def forget(self) -> None:
        pass

    def differentiated(self, function: Callable[..., Any], route: str) -> Differentiated:
        def both(arrays: dict[str, Any], integers: dict[str, Any], cotangent: Any) -> tuple[Any, Mapping[str, Any]]:
            leaves = {name: x.detach().clone().requires_grad_() for name, x in arrays.items()}
            value = function(leaves, integers)
            value.backward(cotangent.to(value.dtype))
            return value, {name: x.grad for name, x in leaves.items()}

        return both


class _Jax:
    listing = FRAMEWORKS["jax"]

    def __init__(self) -> None:
        import jax
        import jax.numpy

        self.jax = jax

    def device(self) -> str:
        return str(self.jax.devices()[0])

    def array(self, numbers: Array, dtype: str) -> Any:
        return self.jax.numpy.asarray(numbers, dtype=dtype)

    def integers(self, numbers: NDArray[np.generic]) -> Any:
        return self.jax.numpy.asarray(numbers, dtype=None if numbers.dtype == np.bool_ else "int32")

    def read(self, x: Any) -> Returned:
        if not isinstance(x, self.jax.Array):
            raise TypeError(f"a jax.Array was expected, and {type(x).__name__} came")
        return Returned(np.asarray(x).astype(np.float64), str(x.dtype))

    def forget(self) -> None:
        # Each operation, shape and dtype has a program of its own, of a megabyte: gigabytes in the end.
        self.jax.clear_caches()  # type: ignore[no-untyped-call]
        gc.collect()
        if sys.platform == "linux":
            with suppress(OSError, AttributeError):  # a C library that cannot, need not
                ctypes.CDLL(None).malloc_trim(0)

    def differentiated(self, function: Callable[..., Any], route: str) -> Differentiated:
        def both(arrays: dict[str, Any], integers: dict[str, Any], cotangent: Any) -> tuple[Any, Mapping[str, Any]]:
            value, back = self.jax.vjp(lambda arrays: function(arrays, integers), arrays)
            (gradients,) = back(cotangent.astype(value.dtype))
            return value, gradients

        if route != "compiled":
            return both
        usual = _USUAL_XLA if _version("jaxlib").startswith("0.10.") else None
        compiled: Differentiated = self.jax.jit(both, compiler_options=usual)
        return compiled


class _TensorFlow:
    listing = FRAMEWORKS["tensorflow"]

    def __init__(self) -> None:
        import tensorflow

        self.tf = tensorflow

    def device(self) -> str:
        return str(self.tf.constant(0.0).device).rpartition("device:")[2]

    def array(self, numbers: Array, dtype: str) -> Any:
        # A cast, as the constructor has no bfloat16 for 0-d arrays of NumPy; the numbers are exact.
        return self.tf.cast(self.tf.constant(numbers, dtype="float64"), dtype)

    def integers(self, numbers: NDArray[np.generic]) -> Any:
        return self.tf.constant(numbers)

    def read(self, x: Any) -> Returned:
        if not isinstance(x, self.tf.Tensor):
            raise TypeError(f"a dense tensor was expected, and {type(x).__name__} came")
        return Returned(self.tf.cast(x, "float64").numpy(), x.dtype.name)

    def forget(self) -> None:
        pass

    def differentiated(self, function: Callable[..., Any], route: str) -> Differentiated:
        def both(arrays: dict[str, Any], integers: dict[str, Any], cotangent: Any) -> tuple[Any, Mapping[str, Any]]:
            with self.tf.GradientTape(watch_accessed_variables=False) as tape:
                for x in arrays.values():
                    tape.watch(x)
                value = function(arrays, integers)
            upstream = self.tf.cast(cotangent, value.dtype)
            return value, tape.gradient(value, arrays, output_gradients=upstream)

        if route == "autograd":
            return both
        compiled: Differentiated = self.tf.function(both, jit_compile=route == "compiled")
        return compiled
