"""Training, in one framework a process: NumPy by gradients by hand, the others by their own automatic differentiation."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

import sincere_spec as ss
from sincere_spec.spec.words import PairLoss
from sincere_spec.study.augment import batches
from sincere_spec.study.data import Images
from sincere_spec.study.encoder import Encoder
from sincere_spec.study.optimiser import adam, rate

FRAMEWORKS = ("torch", "jax", "tensorflow", "numpy")
Step = Callable[..., tuple[Any, Any, Any, Any]]


@dataclass(frozen=True)
class Job:
    """One training. `loss` is a record, or None for cross-entropy; `every` how often repulsion is looked at, 0 for never.

    `ulp` adds a unit in the last place to one weight matrix: what rounding alone does.
    """

    name: str
    seed: int
    loss: dict[str, Any] | None
    steps: int
    size: int = 256
    strong: bool = False
    activation: str = "relu"
    norm: bool = False
    classes: int = 0
    dtype: str = "float32"
    decay: bool = True
    every: int = 0
    ulp: bool = False
    embed: bool = True

    def to_dict(self) -> dict[str, Any]:
        """For a worker's input."""
        return asdict(self)

    @property
    def record(self) -> PairLoss | None:
        """The loss; None for cross-entropy."""
        return None if self.loss is None else PairLoss.from_dict(self.loss)

    @property
    def encoder(self) -> Encoder:
        """What is trained."""
        return Encoder(self.activation, self.norm, 0 if self.loss is not None else self.classes)


@dataclass(frozen=True)
class Trained:
    """The weights in NumPy, the loss of every step, and what repulsion was, by step."""

    weights: dict[str, np.ndarray[Any, Any]]
    losses: list[float]
    repulsion: list[tuple[int, float, float, float, float]]
    seconds: float


def train(framework: str, job: Job, images: Images, tell: Callable[[int], None]) -> Trained:
    """Train in a framework, which is imported here; `tell` gets the number of steps done."""
    encoder = job.encoder
    pixels = int(np.prod(images.train.shape[1:]))
    weights = {name: x.astype(job.dtype) for name, x in encoder.weights(pixels, job.seed).items()}
    if job.ulp:
        weights["w4"] = np.nextafter(weights["w4"], np.asarray(1.0, job.dtype))
    start = time.process_time()
    step, state, to_numpy = {"numpy": _numpy, "torch": _torch, "jax": _jax, "tensorflow": _tensorflow}[framework](
        job, encoder, weights
    )
    losses: list[Any] = []
    repulsion = []
    for i, (views, labels) in enumerate(batches(images, job.seed, job.steps, job.size, job.strong)):
        given = [x.astype(job.dtype) for x in views]
        if job.every and i % job.every == 0 and job.record is not None:
            now = {name: to_numpy(x) for name, x in state[0].items()}
            z = np.concatenate([encoder.forward(np, now, x)[1] for x in given])
            found = ss.metrics.repulsion(job.record, z, np.tile(labels, 2))
            share, anchors, force, worst = (float(x) for x in found[:4])
            repulsion.append((i, share, anchors, force, worst))
        loss, *moved = step(*state, *given, labels, np.asarray(rate(i, job.steps, job.decay), job.dtype))
        state = tuple(moved)
        losses.append(loss)
        tell(i + 1)
    numbers = [float(x) for x in losses]
    return Trained({name: to_numpy(x) for name, x in state[0].items()}, numbers, repulsion, time.process_time() - start)


def embed(job: Job, trained: Trained, images: Images, others: dict[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
    """The arrays h and z of the training images, and of each of the others by name."""
    encoder = job.encoder
    flat = images.train.reshape(len(images.train), -1).astype(job.dtype)
    moments = encoder.population(trained.weights, flat)
    made = {}
    for name, pixels in {"train": images.train, **others}.items():
        rows = pixels.reshape(len(pixels), -1).astype(job.dtype)
        made[f"{name}_h"], made[f"{name}_z"] = encoder.forward(np, trained.weights, rows, moments)
    return made


def _value(job: Job, encoder: Encoder, xp: Any, weights: Any, one: Any, other: Any, labels: Any) -> Any:
    """The loss of a batch of two views, from operations that a framework differentiates."""
    record = job.record
    (h, z), (other_h, other_z) = (encoder.forward(xp, weights, x) for x in (one, other))
    if record is None:
        return 0.5 * (encoder.classify(xp, weights, h, labels) + encoder.classify(xp, weights, other_h, labels))
    if record.arrangement.labelled:
        return ss.evaluate(record, xp.concat([z, other_z], axis=0), xp.concat([labels, labels], axis=0))
    return ss.evaluate(record, z, other_z)


def _labels(job: Job, labels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Labels as the loss wants them: one-hot for cross-entropy."""
    return np.eye(job.classes, dtype=job.dtype)[labels] if job.loss is None else labels


def _numpy(job: Job, encoder: Encoder, weights: Any) -> tuple[Step, Any, Callable[[Any], Any]]:
    record = job.record

    def step(weights: Any, first: Any, second: Any, one: Any, other: Any, labels: Any, size: Any) -> Any:
        traces = [encoder.trace(weights, x) for x in (one, other)]
        gradient: Any
        if record is None:
            loss, gradient = 0.0, {}
            for layers in traces:
                part, by_h, own = _cross_entropy(weights, layers[1][3], _labels(job, labels))
                found = {**encoder.backward(weights, layers, by_h, None), **own}
                loss = loss + 0.5 * part
                gradient = {name: 0.5 * x + gradient.get(name, 0.0) for name, x in found.items()}
        else:
            z, other_z = (layers[-1][3] for layers in traces)
            if record.arrangement.labelled:
                loss, by_z = ss.value_and_gradient(record, np.concatenate([z, other_z]), np.concatenate([labels] * 2))
                parts = by_z[: len(z)], by_z[len(z) :]
            else:
                loss, parts = ss.value_and_gradient(record, z, other_z)
            both = [encoder.backward(weights, x, None, part) for x, part in zip(traces, parts, strict=True)]
            gradient = {name: both[0][name] + both[1][name] for name in both[0]}
        return loss, *adam(np, weights, gradient, first, second, size)

    zeros = {name: np.zeros_like(x) for name, x in weights.items()}
    return step, (weights, zeros, dict(zeros)), lambda x: x


def _cross_entropy(weights: Any, h: Any, hot: Any) -> tuple[Any, Any, Any]:
    """The cross-entropy, and its gradient by h and by the classifier."""
    logits = h @ weights["w"] + weights["b"]
    shifted = logits - logits.max(1, keepdims=True)
    total = np.exp(shifted).sum(1, keepdims=True)
    value = (np.log(total[:, 0]) - (hot * shifted).sum(1)).mean()
    by_logits = (np.exp(shifted) / total - hot) / h.dtype.type(len(h))
    return value, by_logits @ weights["w"].T, {"w": h.T @ by_logits, "b": by_logits.sum(0)}


def _torch(job: Job, encoder: Encoder, weights: Any) -> tuple[Step, Any, Callable[[Any], Any]]:
    import array_api_compat.torch as xp
    import torch

    def step(weights: Any, first: Any, second: Any, one: Any, other: Any, labels: Any, size: Any) -> Any:
        leaves = {name: x.detach().requires_grad_() for name, x in weights.items()}
        given = (torch.from_numpy(x) for x in (one, other, _labels(job, labels)))
        loss = _value(job, encoder, xp, leaves, *given)
        found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        gradient = {name: x for name, x in zip(leaves, found, strict=True) if x is not None}
        with torch.no_grad():
            return loss.detach(), *adam(xp, weights, gradient, first, second, float(size))

    tensors = {name: torch.tensor(x) for name, x in weights.items()}
    zeros = {name: torch.zeros_like(x) for name, x in tensors.items()}
    return step, (tensors, zeros, dict(zeros)), lambda x: x.detach().numpy()


def _jax(job: Job, encoder: Encoder, weights: Any) -> tuple[Step, Any, Callable[[Any], Any]]:
    import jax
    import jax.numpy as jnp

    @jax.jit
    def program(weights: Any, first: Any, second: Any, one: Any, other: Any, labels: Any, size: Any) -> Any:
        loss, gradient = jax.value_and_grad(lambda w: _value(job, encoder, jnp, w, one, other, labels))(weights)
        return loss, *adam(jnp, weights, gradient, first, second, size)

    def step(weights: Any, first: Any, second: Any, one: Any, other: Any, labels: Any, size: Any) -> Any:
        return program(weights, first, second, one, other, jnp.asarray(_labels(job, labels)), size)

    arrays = {name: jnp.asarray(x) for name, x in weights.items()}
    zeros = {name: jnp.zeros_like(x) for name, x in arrays.items()}
    return step, (arrays, zeros, dict(zeros)), np.asarray


def _tensorflow(job: Job, encoder: Encoder, weights: Any) -> tuple[Step, Any, Callable[[Any], Any]]:
    import tensorflow as tf

    class Names:
        matmul, where, zeros_like, sqrt, tanh, exp, log = (
            tf.matmul,
            tf.where,
            tf.zeros_like,
            tf.sqrt,
            tf.tanh,
            tf.exp,
            tf.math.log,
        )
        mean, max, sum = tf.reduce_mean, tf.reduce_max, tf.reduce_sum
        concat = tf.concat

    @tf.function  # type: ignore[untyped-decorator]
    def program(weights: Any, first: Any, second: Any, one: Any, other: Any, labels: Any, size: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(weights)
            loss = _value(job, encoder, Names, weights, one, other, labels)
        found = tape.gradient(loss, weights, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return loss, *adam(Names, weights, found, first, second, size)

    def step(weights: Any, first: Any, second: Any, one: Any, other: Any, labels: Any, size: Any) -> Any:
        given = (tf.constant(x) for x in (one, other, _labels(job, labels), size))
        return program(weights, first, second, *given)

    tensors = {name: tf.constant(x) for name, x in weights.items()}
    zeros = {name: tf.zeros_like(x) for name, x in tensors.items()}
    return step, (tensors, zeros, dict(zeros)), lambda x: x.numpy()


def installed() -> Iterator[str]:
    """The frameworks that can be imported here; none is imported to find out."""
    from importlib.util import find_spec

    for name in FRAMEWORKS:
        if find_spec(name) is not None:
            yield name


def environment() -> dict[str, str]:
    """Of a worker: one thread, the host, and float64 where JAX has it."""
    variables = dict(os.environ)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC"):
        variables[name] = "1"
    variables |= {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    variables |= {
        "TF_ENABLE_ONEDNN_OPTS": "0",
        "JAX_ENABLE_X64": "1",
        "JAX_PLATFORMS": "cpu",
        "CUDA_VISIBLE_DEVICES": "-1",
    }
    flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    variables["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
    return variables
