"""Other packages' losses, made once so that only the call is timed; `conformance.peers` says which loss each of them is.

A peer that cannot be imported is recorded as not run, and why.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from sincere_spec.bench.settings import Function

SUPERVISED, TOWERS = 0.1, 0.07  # the temperatures of our functions


@dataclass(frozen=True)
class Peer:
    """A package's name for one of our losses; `make` imports the package."""

    name: str
    framework: str
    loss: str
    package: str
    make: Callable[[], Function]


def _metric_learning(name: str) -> Callable[[], Function]:
    def make() -> Function:
        function = getattr(import_module("pytorch_metric_learning.losses"), name)(temperature=SUPERVISED)
        return lambda embeddings, labels: function(embeddings, labels)

    return make


def _metric_learning_views() -> Function:
    losses, torch = import_module("pytorch_metric_learning.losses"), import_module("torch")
    function = losses.NTXentLoss(temperature=SUPERVISED)

    def value(a: Any, b: Any) -> Any:
        samples = torch.arange(a.shape[0], device=a.device)
        return function(torch.cat((a, b)), torch.cat((samples, samples)))

    return value


def _optax() -> Function:
    ntxent = import_module("optax").losses.ntxent
    return lambda embeddings, labels: ntxent(embeddings, labels, SUPERVISED)


def _optax_views() -> Function:
    ntxent, jnp = import_module("optax").losses.ntxent, import_module("jax.numpy")

    def value(a: Any, b: Any) -> Any:
        samples = jnp.arange(a.shape[0])
        return ntxent(jnp.concatenate((a, b)), jnp.concatenate((samples, samples)), SUPERVISED)

    return value


def _open_clip() -> Function:
    normalize = import_module("torch.nn.functional").normalize
    function = import_module("open_clip.loss").ClipLoss()
    return lambda a, b: function(normalize(a, dim=-1), normalize(b, dim=-1), 1.0 / TOWERS)


def _info_nce() -> Function:
    function = import_module("info_nce").InfoNCE(temperature=TOWERS)
    return lambda a, b: function(a, b)


def _linear_cross_entropy(chunked: bool) -> Callable[[], Function]:
    """InfoNCE as torch has it from 2.13 on: the positives are the classes, and chunks of rows make their gradient forward."""

    def make() -> Function:
        torch = import_module("torch")
        functional = torch.nn.functional
        if not hasattr(functional, "linear_cross_entropy"):
            raise ImportError(f"torch {torch.__version__} has no linear_cross_entropy")
        options = torch.nn.LinearCrossEntropyOptions() if chunked else None

        def value(a: Any, b: Any) -> Any:
            a, b = (functional.normalize(x, dim=1) for x in (a, b))
            rows = torch.arange(a.shape[0], device=a.device)
            return functional.linear_cross_entropy(a / TOWERS, b, rows, options=options)

        return value

    return make


METRIC_LEARNING = "pytorch-metric-learning"
PEERS = (
    Peer(f"{METRIC_LEARNING} NTXentLoss", "torch", "sincere", METRIC_LEARNING, _metric_learning("NTXentLoss")),
    Peer(f"{METRIC_LEARNING} SupConLoss", "torch", "supcon", METRIC_LEARNING, _metric_learning("SupConLoss")),
    Peer(f"{METRIC_LEARNING} NTXentLoss", "torch", "nt_xent", METRIC_LEARNING, _metric_learning_views),
    Peer("open_clip ClipLoss", "torch", "clip", "open-clip-torch", _open_clip),
    Peer("info-nce-pytorch InfoNCE", "torch", "info_nce", "info-nce-pytorch", _info_nce),
    Peer("torch linear_cross_entropy", "torch", "info_nce", "torch", _linear_cross_entropy(chunked=False)),
    Peer("torch linear_cross_entropy, chunked", "torch", "info_nce", "torch", _linear_cross_entropy(chunked=True)),
    Peer("optax ntxent", "jax", "sincere", "optax", _optax),
    Peer("optax ntxent", "jax", "nt_xent", "optax", _optax_views),
)


def find(framework: str, loss: str, name: str) -> Peer:
    """The peer of that name."""
    return next(peer for peer in PEERS if (peer.framework, peer.loss, peer.name) == (framework, loss, name))
