"""Losses over the devices of one program against one process: `sincere_spec.conformance.distributed --framework jax`.

In JAX a batch is sharded over the rows of a mesh, and each case is called twice: inside `jax.shard_map` with `across=`, and by a
plain `jax.jit`, whose compiler is to divide the rows. In TensorFlow replicas of a `MirroredStrategy` have rows of their own, as
many as `--sizes` says. Devices are parts of this machine's processor. NumPy is the one process.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

import sincere_spec as ss
from sincere_spec.conformance.distributed_cases import Case, Verdict, call, far

Found = tuple[Sequence[Any], dict[str, Any]]
"""The value that each device has, and the gradient of the whole batch by argument."""


def verdicts(framework: str, sizes: Sequence[int], dtype: str, engine: str, chosen: Sequence[Case]) -> list[Verdict]:
    """The verdict of every case in every form of a framework."""
    forms = {"jax": _jax_forms, "tensorflow": _tensorflow_forms}[framework](sizes, dtype, engine)
    found = []
    for case in chosen:
        if any(isinstance(x, list) for x in case.rows.values()):  # programs have integers alone
            continue
        case = replace(case, arrays={name: x.astype(dtype) for name, x in case.arrays.items()})
        want, gradients = _one_process(case)
        for form, run in forms.items():
            values, by_name = run(case)
            errors = {"value": max(far(np.asarray(value), want) for value in values)}
            errors |= {f"d{name}": far(np.asarray(by_name[name]), one) for name, one in gradients.items()}
            error, where = max((error, name) for name, error in errors.items())
            found.append(Verdict(f"{case.name} {form}", error, where, len({float(value) for value in values}) == 1))
    return found


def prepare(framework: str, devices: int, dtype: str) -> None:
    """Give this process so many devices of its processor, before it has any: that is for a process of one's own."""
    if framework == "jax":
        import jax

        settings: Any = jax.config
        settings.update("jax_platforms", "cpu")
        settings.update("jax_num_cpu_devices", devices)
        settings.update("jax_enable_x64", dtype == "float64")
        settings.update("jax_disable_most_optimizations", True)  # which are most of the time
    else:
        # Most of the time is that of compilers, which have little to gain from programs that run once.
        quick = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {quick}"
        import tensorflow as tf

        tf.get_logger().setLevel("ERROR")  # each case is a program of its own, which it warns of
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)


def _one_process(case: Case) -> tuple[Any, dict[str, Any]]:
    """The value and the gradient by argument, of float64 in NumPy."""
    parameters = {"temperature": np.asarray(case.loss.temperature), "bias": np.asarray(case.loss.bias)}
    arrays = {name: x.astype("float64") for name, x in case.arrays.items()}
    value, gradient = _called(case, arrays, parameters, case.rows, function=ss.value_and_gradient, engine="dense")
    return np.asarray(value), dict(zip((*arrays, *parameters), gradient, strict=True))


def _called(
    case: Case, arrays: Mapping[str, Any], parameters: Mapping[str, Any], rows: Mapping[str, Any], **options: Any
) -> Any:
    """What a call of a case gives of these arrays; trees of JAX are sorted by name."""
    where = {"where": rows["where"]} if "where" in rows else {}
    return call(replace(case, rows=rows), {name: arrays[name] for name in case.arrays}, parameters, **where, **options)


def _everywhere(case: Case, name: str) -> bool:
    """Whether all devices have the same rows of an argument."""
    return name in case.shared or ("keys" in case.shared and name in ("key_labels", "key_ids"))


def _mapped(x: Any, function: Callable[[Any], Any]) -> Any:
    """What a function makes of an array, or of each of a tuple."""
    return tuple(_mapped(one, function) for one in x) if isinstance(x, tuple) else None if x is None else function(x)


def _jax_forms(sizes: Sequence[int], dtype: str, engine: str) -> dict[str, Callable[[Case], Found]]:
    import jax
    from jax.sharding import PartitionSpec

    P: Any = PartitionSpec
    devices = jax.devices()[: len(sizes)]
    mesh = jax.make_mesh((len(sizes),), ("rows",), (jax.sharding.AxisType.Auto,), devices=devices)
    options = {"engine": engine, "tile": {"tiled": 2}.get(engine)}

    def run(case: Case, form: Callable[..., Any]) -> Found:
        def put(name: str, x: Any) -> Any:
            sharding = jax.NamedSharding(mesh, P() if _everywhere(case, name) else P("rows"))
            return _mapped(x, lambda one: jax.device_put(one, sharding))

        parameters = {name: jax.numpy.asarray(getattr(case.loss, name), dtype) for name in ("temperature", "bias")}
        arrays, rows = ({name: put(name, x) for name, x in given.items()} for given in (case.arrays, case.rows))
        taken = jax.jit(jax.value_and_grad(lambda *given: form(case)(*given, rows), argnums=(0, 1)))
        value, (by_rows, by_parameters) = taken(arrays, parameters)
        return [shard.data for shard in value.addressable_shards], by_rows | by_parameters

    def whole(case: Case) -> Callable[..., Any]:
        return lambda arrays, parameters, rows: _called(case, arrays, parameters, rows, **options)

    def mapped(case: Case) -> Callable[..., Any]:
        def local(arrays: Any, parameters: Any, rows: Any) -> Any:
            return _called(case, arrays, parameters, rows, across=ss.across("rows", shared=case.shared), **options)

        specs = [
            {name: P() if _everywhere(case, name) else P("rows") for name in given}
            for given in (case.arrays, case.rows)
        ]
        return jax.shard_map(local, mesh=mesh, in_specs=(specs[0], P(), specs[1]), out_specs=P())

    return {"in shard_map": lambda case: run(case, mapped), "in jit": lambda case: run(case, whole)}


@lru_cache(maxsize=1)
def _strategy(devices: int) -> Any:
    """The strategy of so many devices: of two over the same ones TensorFlow confuses the collectives."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy([f"CPU:{number}" for number in range(devices)])


def _tensorflow_forms(sizes: Sequence[int], dtype: str, engine: str) -> dict[str, Callable[[Case], Found]]:
    import tensorflow as tf

    strategy = _strategy(len(sizes))
    options = {"engine": engine, "tile": {"tiled": 8}.get(engine)}

    def run(case: Case) -> Found:
        starts = [sum(sizes[:rank]) for rank in range(len(sizes) + 1)]

        def spread(name: str, x: Any) -> Any:
            def own(context: Any, x: Any = x) -> Any:
                rank = context.replica_id_in_sync_group
                return tf.constant(x if _everywhere(case, name) else x[starts[rank] : starts[rank + 1]])

            return _mapped(x, lambda one: strategy.experimental_distribute_values_from_function(lambda c: own(c, one)))

        def step(arrays: Any, parameters: Any, rows: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch((arrays, parameters))
                across = ss.across(True, shared=case.shared)
                value = _called(case, arrays, parameters, rows, across=across, **options)
            return value, *tape.gradient(value, (arrays, parameters), unconnected_gradients="zero")

        parameters = {name: tf.constant(getattr(case.loss, name), dtype) for name in ("temperature", "bias")}
        given = [{name: spread(name, x) for name, x in named.items()} for named in (case.arrays, case.rows)]
        program = tf.function(lambda arrays, rows: strategy.run(step, (arrays, parameters, rows)), autograph=False)
        of_each = strategy.experimental_local_results
        value, by_rows, by_parameters = program(*given)
        gradients = {}
        for name, x in (by_rows | by_parameters).items():
            parts = [np.asarray(part) for part in of_each(x)]
            alike = name in by_parameters or _everywhere(case, name)
            gradients[name] = np.stack(parts) if alike else np.concatenate(parts) / len(sizes)
        return list(of_each(value)), gradients

    return {"in replicas": run}
