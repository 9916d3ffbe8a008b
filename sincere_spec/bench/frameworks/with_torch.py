"""PyTorch: eager, by autograd; on a GPU the plain formula also through torch.compile."""

from __future__ import annotations

from collections.abc import Callable
from math import pi
from typing import Any

import torch
import torch.nn.functional as F

from sincere_spec.bench import cases
from sincere_spec.bench.cases import Program
from sincere_spec.bench.frameworks import Place, Step
from sincere_spec.bench.inputs import Inputs
from sincere_spec.bench.settings import Function

Tensor = torch.Tensor


def make(place: Place) -> Torch:
    """PyTorch in this process."""
    if place.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("torch sees no CUDA device.")
    torch.set_num_threads(place.threads)
    return Torch(place)


class Torch:
    """Tensors on one device."""

    compiles = False

    def __init__(self, place: Place) -> None:
        self.device, self.dtype = torch.device(place.device), getattr(torch, place.dtype)

    def arrays(self, inputs: Inputs) -> tuple[Any, ...]:
        labels = () if inputs.labels is None else (torch.tensor(inputs.labels, device=self.device),)
        leaves = (torch.tensor(x, dtype=self.dtype, device=self.device, requires_grad=True) for x in inputs.embeddings)
        beside = (
            torch.tensor(x, dtype=self.dtype if x.dtype.kind == "f" else None, device=self.device)
            for x in inputs.beside
        )
        return (*leaves, *labels, *beside)

    def plain(self, loss: str) -> Function:
        return PLAIN[loss]

    def ours(self, loss: str, program: Program) -> Function:
        return cases.ours(loss, program)

    def step(self, function: Function, program: Program, arrays: tuple[Any, ...], embeddings: int) -> Step:
        leaves = arrays[:embeddings]
        if program.mode == "compiled":
            function = torch.compile(function)

        def run() -> Any:
            value = function(*arrays)
            gradients = torch.autograd.grad(value, leaves)
            self._wait()
            return value, gradients

        return run

    def products(self, tile: int, dim: int, rows: int) -> Callable[[int], None]:
        z = torch.ones(rows, dim, dtype=self.dtype, device=self.device)
        tiles = [z[start : start + tile] for start in range(0, rows - tile + 1, tile)]
        buffer = torch.empty(tile, tile, dtype=self.dtype, device=self.device)

        def run(count: int) -> None:
            for k in range(count):
                torch.mm(tiles[k // len(tiles) % len(tiles)], tiles[k % len(tiles)].T, out=buffer)
            self._wait()

        return run

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def device_memory(self) -> tuple[int, int] | None:
        if self.device.type == "cpu":
            return None
        return torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()

    def reset_device_memory(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def memory_limit(self) -> int | None:
        return None if self.device.type == "cpu" else torch.cuda.get_device_properties(self.device).total_memory

    def device_name(self) -> str | None:
        return None if self.device.type == "cpu" else torch.cuda.get_device_name()


# --- plain formulas ---


def _logits(z: Tensor, temperature: float = 0.1) -> Tensor:
    u = F.normalize(z, dim=1)
    return u @ u.T / temperature


def _eye(logits: Tensor) -> Tensor:
    return torch.eye(logits.shape[0], dtype=torch.bool, device=logits.device)


def _mean_over_positives(pairs: Tensor, positive: Tensor) -> Tensor:
    number = positive.sum(1)
    rows = pairs.masked_fill(~positive, 0.0).sum(1) / number.clamp(min=1)
    return rows.sum() / (number > 0).sum().clamp(min=1)


def _sincere(z: Tensor, labels: Tensor) -> Tensor:
    logits = _logits(z)
    same = labels[:, None] == labels[None, :]
    below = logits.masked_fill(same, -torch.inf).logsumexp(1, keepdim=True)
    return _mean_over_positives(torch.logaddexp(logits, below) - logits, same & ~_eye(logits))


def _supcon(z: Tensor, labels: Tensor) -> Tensor:
    logits = _logits(z)
    eye = _eye(logits)
    log_share = logits.masked_fill(eye, -torch.inf).log_softmax(1)
    return _mean_over_positives(-log_share, (labels[:, None] == labels[None, :]) & ~eye)


def _decoupled(z: Tensor, labels: Tensor) -> Tensor:
    logits = _logits(z)
    same = labels[:, None] == labels[None, :]
    below = logits.masked_fill(same, -torch.inf).logsumexp(1, keepdim=True)
    return _mean_over_positives(below - logits, same & ~_eye(logits))


def _partner_entropy(logits: Tensor) -> Tensor:
    rows = torch.arange(logits.shape[0], device=logits.device)
    return F.cross_entropy(logits.masked_fill(_eye(logits), -torch.inf), rows.roll(logits.shape[0] // 2))


def _nt_xent(a: Tensor, b: Tensor) -> Tensor:
    return _partner_entropy(_logits(torch.cat((a, b))))


def _dystress(a: Tensor, b: Tensor) -> Tensor:
    s = _logits(torch.cat((a, b)), 1.0)
    with torch.no_grad():
        temperature = 0.1 + 0.1 * (1.0 + torch.cos(pi * (1.0 + s))) / 2.0
    return _partner_entropy(s / temperature)


def _towers(a: Tensor, b: Tensor, temperature: float) -> Tensor:
    return F.normalize(a, dim=1) @ F.normalize(b, dim=1).T / temperature


def _info_nce(a: Tensor, b: Tensor) -> Tensor:
    return F.cross_entropy(_towers(a, b, 0.07), torch.arange(a.shape[0], device=a.device))


def _clip(a: Tensor, b: Tensor) -> Tensor:
    logits, target = _towers(a, b, 0.07), torch.arange(a.shape[0], device=a.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2.0


def _siglip(a: Tensor, b: Tensor) -> Tensor:
    logits = _towers(a, b, 0.1) - 10.0
    sign = 2.0 * torch.eye(a.shape[0], dtype=a.dtype, device=a.device) - 1.0
    return -F.logsigmoid(sign * logits).sum() / a.shape[0]


def _f_micl(a: Tensor, b: Tensor) -> Tensor:
    u, v = F.normalize(a, dim=1), F.normalize(b, dim=1)
    kernel = torch.exp(2.0 * (u @ u.T) - 2.0)
    repel = kernel.masked_fill(_eye(kernel), 0.0).sum(1) / (a.shape[0] - 1)
    return (40.0 * repel - (2.0 * (u * v).sum(1) - 1.0)).mean()


PLAIN: dict[str, Function] = {
    "sincere": _sincere,
    "supcon": _supcon,
    "decoupled": _decoupled,
    "nt_xent": _nt_xent,
    "dystress": _dystress,
    "info_nce": _info_nce,
    "clip": _clip,
    "siglip": _siglip,
    "f_micl": _f_micl,
}
