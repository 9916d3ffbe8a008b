"""What a test needs of a framework, once for each: arrays in and out, its own way to a gradient, its compiler.

Nothing here imports a framework before a test of its process asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

Arrays = Mapping[str, Any]

# Unit round-off of a dtype, and of the dtype in which a loss of such inputs is computed.
UNIT = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
COMPUTED_IN = {"float64": "float64", "float32": "float32", "float16": "float32", "bfloat16": "float32"}


@dataclass(frozen=True)
class Framework:
    """A framework, as far as the tests go.

    array      values -> its array, of a dtype by the standard's name, or of the values' own
    dtype      the standard's name of an array's dtype
    gradient   f, arrays by name -> the gradient of f(arrays) by automatic differentiation, by name; None if it has none
    compile    f -> f, compiled by XLA; None if that is not the framework's compiler
    """

    name: str
    dtypes: tuple[str, ...]
    kind: type
    array: Callable[..., Any]
    numpy: Callable[[Any], np.ndarray]
    dtype: Callable[[Any], str]
    gradient: Callable[[Callable[[Arrays], Any], Arrays], dict[str, Any]] | None = None
    compile: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None

    def arrays(self, values: Mapping[str, np.ndarray], dtype: str = "float64") -> dict[str, Any]:
        """Arrays of one dtype, by name."""
        return {name: self.array(value, dtype) for name, value in values.items()}

    def numbers(self, x: Any) -> Any:
        """An array, or a dictionary of arrays, as float64 NumPy arrays."""
        if isinstance(x, Mapping):
            return {name: self.numbers(part) for name, part in x.items()}
        return np.asarray(self.numpy(x), dtype=np.float64)

    def rounded(self, values: Mapping[str, np.ndarray], dtype: str) -> dict[str, np.ndarray]:
        """What is left of the values in a dtype, in float64: the exact inputs of a call in that dtype."""
        return {name: self.numbers(self.array(value, dtype)) for name, value in values.items()}


@cache
def load(name: str) -> Framework:
    """The framework of that name; imports it."""
    return {
        "numpy": _numpy,
        "array_api_strict": _array_api_strict,
        "torch": _torch,
        "jax": _jax,
        "tensorflow": _tensorflow,
    }[name]()


def _numpy() -> Framework:
    return Framework(
        name="numpy",
        dtypes=("float16", "float32", "float64"),
        kind=np.ndarray,
        array=lambda values, dtype=None: np.asarray(values, dtype=dtype),
        numpy=np.asarray,
        dtype=lambda x: str(x.dtype),
    )


def _array_api_strict() -> Framework:
    import array_api_strict as xp

    return Framework(
        name="array_api_strict",
        dtypes=("float32", "float64"),
        kind=type(xp.asarray(0.0)),
        array=lambda values, dtype=None: xp.asarray(np.asarray(values, dtype=dtype)),
        numpy=np.from_dlpack,
        dtype=lambda x: str(x.dtype).rpartition(".")[2],
    )


def _torch() -> Framework:
    import torch

    def array(values: Any, dtype: str | None = None) -> torch.Tensor:
        return torch.tensor(np.array(values), dtype=None if dtype is None else getattr(torch, dtype))

    def numpy(x: torch.Tensor) -> np.ndarray:
        x = x.detach()
        return (x.double() if x.is_floating_point() else x).numpy()

    def gradient(f: Callable[[Arrays], Any], arrays: Arrays) -> dict[str, Any]:
        leaves = {name: x if x.requires_grad else x.clone().requires_grad_() for name, x in arrays.items()}
        found = torch.autograd.grad(f(leaves), tuple(leaves.values()), create_graph=True)
        return dict(zip(leaves, found))

    return Framework(
        name="torch",
        dtypes=("float16", "bfloat16", "float32", "float64"),
        kind=torch.Tensor,
        array=array,
        numpy=numpy,
        dtype=lambda x: str(x.dtype).removeprefix("torch."),
        gradient=gradient,
    )


def _jax() -> Framework:
    import jax
    import jax.numpy as jnp

    return Framework(
        name="jax",
        dtypes=("float16", "bfloat16", "float32", "float64"),
        kind=jax.Array,
        array=lambda values, dtype=None: jnp.asarray(np.asarray(values), dtype=dtype),
        numpy=np.asarray,
        dtype=lambda x: str(x.dtype),
        gradient=lambda f, arrays: jax.grad(f)(dict(arrays)),
        compile=jax.jit,
    )


def _tensorflow() -> Framework:
    import tensorflow as tf

    def array(values: Any, dtype: str | None = None) -> tf.Tensor:
        values = np.asarray(values)
        return tf.constant(values) if dtype is None else tf.cast(tf.constant(values), dtype)

    def gradient(f: Callable[[Arrays], Any], arrays: Arrays) -> dict[str, Any]:
        with tf.GradientTape() as tape:
            for x in arrays.values():
                tape.watch(x)
            value = f(arrays)
        found = tape.gradient(value, list(arrays.values()))
        return dict(zip(arrays, found))

    return Framework(
        name="tensorflow",
        dtypes=("float16", "bfloat16", "float32", "float64"),
        kind=tf.Tensor,
        array=array,
        numpy=lambda x: x.numpy(),
        dtype=lambda x: x.dtype.name,
        gradient=gradient,
        compile=lambda f: tf.function(f, jit_compile=True),
    )
