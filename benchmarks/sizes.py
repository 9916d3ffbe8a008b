"""What 200 batches of different sizes cost in one process: value and gradient of SINCERE, float32, D = 128, one thread.

`python benchmarks/sizes.py jax`, or `tensorflow`, prints the seconds, the programs that were compiled, and the memory of the
process before and after. Sizes are up to 5000 and come in no order, each once: the worst that ragged batches can be.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

for _name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

LARGEST, COUNT, WIDTH, CLASSES = 5000, 200, 128, 100


def jax_step() -> tuple[Callable[..., Any], Callable[[], int]]:
    """An eager step of JAX by its own differentiation, and how many programs XLA has compiled."""
    import jax

    import sincere_spec as ss

    compiled: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **_: compiled.append(event) if event.endswith("backend_compile_duration") else None
    )
    value_and_grad = jax.value_and_grad(ss.sincere_loss)

    def step(z: Any, y: Any) -> None:
        jax.block_until_ready(value_and_grad(jax.device_put(z), jax.device_put(y)))

    return step, lambda: len(compiled)


def tensorflow_step() -> tuple[Callable[..., Any], Callable[[], int]]:
    """An eager step of TensorFlow, and how many functions it has traced, of which XLA makes one program each."""
    import tensorflow as tf

    import sincere_spec as ss
    from sincere_spec.backends import tensorflow as backend

    made: dict[int, Any] = {}
    compiled = backend._compiled

    def remembered(*key: Any) -> Any:
        program = compiled(*key)
        made[id(program)] = program
        return program

    backend._compiled = remembered

    loss = ss.losses.sincere()

    def step(z: Any, y: Any) -> None:
        ss.value_and_gradient(loss, tf.constant(z), tf.constant(y))[1].numpy()

    return step, lambda: sum(program.experimental_get_tracing_count() for program in made.values())


def main() -> None:
    """Run the sizes, and say what they cost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("framework", choices=("jax", "tensorflow"))
    framework = parser.parse_args().framework
    step, programs = {"jax": jax_step, "tensorflow": tensorflow_step}[framework]()
    rng = np.random.default_rng(0)
    sizes = rng.permutation(np.arange(8, LARGEST + 1))[:COUNT]
    before, began, compiled = memory(), time.process_time(), programs()
    for n in sizes:
        step(rng.normal(size=(n, WIDTH)).astype("float32"), rng.integers(0, CLASSES, n))
    seconds = time.process_time() - began
    print(  # noqa: T201
        f"{framework}: {COUNT} sizes up to {max(sizes)} in {seconds:.1f} s of a processor and {programs() - compiled} programs; "
        f"{before} MB before, {memory()} MB after, {peak()} MB at the most"
    )


def memory() -> int:
    """What the process holds, in MB."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize() // 10**6


def peak() -> int:
    """The most that it held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 // 10**6


if __name__ == "__main__":
    sys.exit(main())
