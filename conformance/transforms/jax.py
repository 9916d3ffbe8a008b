"""The transforms of JAX."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec as P

from sincere_spec.conformance.transforms.checks import Asked, Check, by_name

Found = Mapping[str, Any]
RATE = 2.0**-10
STEPS = 3


def prepare() -> None:
    """Two devices; JAX takes no such word once it runs."""
    jax.config.update("jax_num_cpu_devices", 2)  # type: ignore[no-untyped-call]


def grad(asked: Asked) -> Found:
    """Outside of any compiler."""
    return {f"gradient.{name}": x for name, x in jax.grad(asked.loss)(asked.arrays, asked.integers).items()}


def value_and_grad(asked: Asked) -> Found:
    """Both at once, outside of any compiler."""
    return by_name(*jax.value_and_grad(asked.loss)(asked.arrays, asked.integers))


def jit(asked: Asked) -> Found:
    """Compiled, labels and parameters as arguments."""
    return by_name(*jax.jit(jax.value_and_grad(asked.loss))(asked.arrays, asked.integers))


def jit_of_rows(asked: Asked) -> Found:
    """Row losses under a cotangent that makes them their mean."""
    return by_name(*jax.jit(jax.value_and_grad(_mean_of_rows(asked)))(asked.arrays, asked.integers))


def vmap(asked: Asked) -> Found:
    """Values and gradients of two batches at once."""
    both = jax.jit(jax.vmap(jax.value_and_grad(asked.loss), in_axes=(0, None)))
    values, gradients = both(asked.batch, asked.integers)
    return by_name(values, gradients, "batch.")


def jacrev(asked: Asked) -> Found:
    """A row of the Jacobian for each row loss; they sum to the gradient, over their number."""

    def shares(arrays: Any, integers: Any) -> Any:
        rows = asked.loss(arrays, integers, reduction="none")
        return rows / len(rows)  # all rows of these cases count

    jacobian = jax.jit(jax.jacrev(shares))(asked.arrays, asked.integers)
    return {f"gradient.{name}": jnp.sum(x, axis=0) for name, x in jacobian.items()}


def jvp(asked: Asked) -> Found:
    """The derivative along a direction."""
    value, tangent = jax.jit(_along(asked))(asked.arrays, asked.direction, asked.integers)
    return {"value": value, "tangent": tangent}


def jvp_of_rows(asked: Asked) -> Found:
    """The derivatives of all row losses along a direction."""
    rows, tangents = _along(asked)(asked.arrays, asked.direction, asked.integers, "none")
    return {"value": jnp.mean(rows), "tangent": jnp.mean(tangents)}


def hessian(asked: Asked) -> Found:
    """Forward over reverse, along a direction."""

    @jax.jit
    def product(arrays: Any, tangents: Any, integers: Any) -> Any:
        return jax.jvp(jax.grad(lambda arrays: asked.loss(arrays, integers)), (arrays,), (tangents,))[1]

    found = product(asked.arrays, asked.direction, asked.integers)
    return {f"second.{name}": x for name, x in found.items()}


def scan(asked: Asked) -> Found:
    """A training loop; its first step is judged, and the others go downhill."""
    slope = jax.value_and_grad(asked.loss)

    @jax.jit
    def train(arrays: Any, integers: Any) -> Any:
        def step(now: Any, _: None) -> Any:
            value, gradient = slope(now, integers)
            return {name: x - RATE * gradient[name] for name, x in now.items()}, (value, gradient)

        return lax.scan(step, arrays, None, length=STEPS)[1]

    values, gradients = train(asked.arrays, asked.integers)
    if not bool(jnp.all(jnp.diff(values) < 0.0)):
        raise AssertionError(f"expected a loss that falls; got {values}")
    return by_name(values[0], {name: x[0] for name, x in gradients.items()})


def checkpoint(asked: Asked) -> Found:
    """Computed again in the backward."""
    return by_name(*jax.jit(jax.value_and_grad(jax.checkpoint(asked.loss)))(asked.arrays, asked.integers))


def debug_nans(asked: Asked) -> Found:
    """No NaN on the way, even one that would be masked away."""
    with jax.debug_nans(True):
        return by_name(*jax.jit(jax.value_and_grad(asked.loss))(asked.arrays, asked.integers))


def export(asked: Asked) -> Found:
    """For any number of rows, with its gradient."""
    return _exported(asked.loss, asked)


def export_of_rows(asked: Asked) -> Found:
    """The same of row losses."""
    return _exported(_mean_of_rows(asked), asked)


def _exported(loss: Callable[..., Any], asked: Asked) -> Found:
    import jax.export as exports

    (rows,) = exports.symbolic_shape("n")

    def shape(x: Any) -> Any:
        return jax.ShapeDtypeStruct((rows, *x.shape[1:]) if x.ndim else (), x.dtype)  # type: ignore[no-untyped-call]

    shapes = jax.tree.map(shape, (asked.arrays, asked.integers))
    made = exports.export(jax.jit(jax.value_and_grad(loss)))(*shapes)
    again = exports.deserialize(made.serialize())
    return by_name(*again.call(asked.arrays, asked.integers))  # type: ignore[no-untyped-call]


def shard_map(asked: Asked) -> Found:
    """Each device has the loss of its own batch; here of the two of `Asked.batch`."""
    mesh = jax.make_mesh((2,), ("batches",), (jax.sharding.AxisType.Auto,), devices=jax.devices()[:2])
    batches, everywhere = P("batches"), P()  # type: ignore[no-untyped-call]

    def local(arrays: Any, integers: Any) -> Any:
        value, gradients = jax.value_and_grad(asked.loss)({name: x[0] for name, x in arrays.items()}, integers)
        return jax.tree.map(lambda x: x[None], (value, gradients))

    mapped = jax.shard_map(local, mesh=mesh, in_specs=(batches, everywhere), out_specs=batches)
    values, gradients = jax.jit(mapped)(asked.batch, asked.integers)
    return by_name(values, gradients, "batch.")


def donated(asked: Asked) -> Found:
    """Buffers of the arrays reused for their gradients."""
    arrays = asked.arrays
    both = jax.jit(jax.value_and_grad(asked.loss), donate_argnums=0)
    found = by_name(*both(arrays, asked.integers))
    if not all(x.is_deleted() for x in arrays.values() if x.ndim):
        raise AssertionError("expected the buffers to be reused")
    return found


def _mean_of_rows(asked: Asked) -> Callable[..., Any]:
    """A cotangent of 1 / n for each row: all rows of these cases count, so its gradient is that of the mean."""
    return lambda arrays, integers: jnp.mean(asked.loss(arrays, integers, "none"))


def _along(asked: Asked) -> Callable[..., Any]:
    def along(arrays: Any, tangents: Any, integers: Any, reduction: str = "mean") -> Any:
        return jax.jvp(lambda arrays: asked.loss(arrays, integers, reduction), (arrays,), (tangents,))

    return along


CHECKS: dict[str, Check] = {
    "grad": grad,
    "value-and-grad": value_and_grad,
    "jit": jit,
    "jit-rows": jit_of_rows,
    "vmap": vmap,
    "jacrev": jacrev,
    "jvp": jvp,
    "jvp-rows": jvp_of_rows,
    "hessian": hessian,
    "scan": scan,
    "checkpoint": checkpoint,
    "debug-nans": debug_nans,
    "export": export,
    "export-rows": export_of_rows,
    "shard-map": shard_map,
    "donate": donated,
}
