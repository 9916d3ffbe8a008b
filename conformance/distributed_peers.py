"""Other packages over ranks: `python -m sincere_spec.conformance.distributed --peers`.

Four ranks of four rows each, a linear layer for both towers, and each package's own setting for several devices. The gradient
is that by the layer's weights, averaged over ranks as DistributedDataParallel does, and compared with one process that has all
rows. Ranks have equally many rows because most settings want it.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import sincere_spec as ss
from sincere_spec.conformance import adapters

ROWS, RANKS, WIDTH, CLASSES = 4, 4, 6, 3
TEMPERATURE, BIAS = 0.2, -1.0


class Batch(NamedTuple):
    """What a rank gives to a loss: two rows of each sample, its class, and what is learnt."""

    a: Any  # [n, d]
    b: Any  # [n, d]
    labels: Any  # [n]
    temperature: Any
    bias: Any


@dataclass(frozen=True)
class Setting:
    """A loss of another package as it is set for several devices, and the call of this package that is the same loss."""

    distribution: str
    module: str
    name: str
    call: Callable[[Batch, int, int], Any]
    exact: Callable[[Batch], Any]

    @property
    def title(self) -> str:
        """The package, its version and the setting."""
        version = (
            importlib.metadata.version(self.distribution) if self.distribution != "sincere-spec" else ss.__version__
        )
        return f"{self.distribution} {version} `{self.name}`"


def _clip(batch: Batch, **options: Any) -> Any:
    return ss.clip_loss(batch.a, batch.b, temperature=batch.temperature, **options)


def _siglip(batch: Batch, **options: Any) -> Any:
    return ss.siglip_loss(batch.a, batch.b, temperature=batch.temperature, bias=batch.bias, **options)


def _nt_xent(batch: Batch, **options: Any) -> Any:
    return ss.nt_xent_loss(batch.a, batch.b, temperature=batch.temperature, **options)


def _info_nce(batch: Batch, **options: Any) -> Any:
    return ss.info_nce_loss(batch.a, batch.b, temperature=batch.temperature, **options)


def _sincere(batch: Batch, **options: Any) -> Any:
    return ss.sincere_loss(batch.a, batch.labels, temperature=batch.temperature, **options)


def _by_pairs(batch: Batch) -> Any:
    return _sincere(batch, reduction="pairs")


def _supcon(batch: Batch) -> Any:
    return ss.supcon_loss(batch.a, batch.labels, temperature=batch.temperature)


def _open_clip(**flags: bool) -> Setting:
    def call(batch: Batch, rank: int, ranks: int) -> Any:
        return adapters.clip_of_open_clip(*batch[:2], batch.temperature, rank=rank, world_size=ranks, **flags)

    written = ", ".join(f"{name}={value}" for name, value in flags.items())
    return Setting("open-clip-torch", "open_clip", f"ClipLoss({written})", call, _clip)


def _open_siglip(form: str) -> Setting:
    def call(batch: Batch, rank: int, ranks: int) -> Any:
        options = {"rank": rank, "world_size": ranks, "dist_impl": form}
        return adapters.siglip_of_open_clip(*batch[:2], batch.temperature, batch.bias, **options)

    return Setting("open-clip-torch", "open_clip", f'SigLipLoss(dist_impl="{form}")', call, _siglip)


def _metric_learning(kind: str, exact: Callable[[Batch], Any], efficient: bool) -> Setting:
    def call(batch: Batch, rank: int, ranks: int) -> Any:
        losses = importlib.import_module("pytorch_metric_learning.losses")
        wrapper = importlib.import_module("pytorch_metric_learning.utils.distributed").DistributedLossWrapper
        return wrapper(getattr(losses, kind)(temperature=TEMPERATURE), efficient=efficient)(batch.a, batch.labels)

    name = f"DistributedLossWrapper({kind}(), efficient={efficient})"
    return Setting("pytorch-metric-learning", "pytorch_metric_learning", name, call, exact)


def _lightly(batch: Batch, rank: int, ranks: int) -> Any:
    return adapters.ntxent_of_lightly(*batch[:2], TEMPERATURE, gather_distributed=True)


def _sentence_transformers(batch: Batch, rank: int, ranks: int) -> Any:
    return adapters.ranking_of_sentence_transformers(*batch[:2], TEMPERATURE, gather_across_devices=True)


def _ours(name: str, function: Callable[..., Any]) -> Setting:
    def call(batch: Batch, rank: int, ranks: int) -> Any:
        from torch import distributed

        return function(batch, across=distributed.group.WORLD)

    return Setting("sincere-spec", "sincere_spec", f"{name}_loss(across=group)", call, function)


FLAGS = [(local, grad) for local in (False, True) for grad in (False, True)]
SETTINGS = (
    *(_open_clip(local_loss=local, gather_with_grad=grad) for local, grad in FLAGS),
    *(_open_siglip(form) for form in ("bidir", "gather")),
    *(_metric_learning("NTXentLoss", _by_pairs, efficient) for efficient in (False, True)),
    *(_metric_learning("SupConLoss", _supcon, efficient) for efficient in (False, True)),
    Setting("lightly", "lightly", "NTXentLoss(gather_distributed=True)", _lightly, _nt_xent),
    Setting(
        "sentence-transformers",
        "sentence_transformers",
        "MultipleNegativesRankingLoss(gather_across_devices=True)",
        _sentence_transformers,
        _info_nce,
    ),
    _ours("clip", _clip),
    _ours("sincere", _sincere),
)

HEADER = (
    "| package and setting | value of each rank | mean of them | gradient | its direction | by the temperature |",
    "| --- | --- | --- | --- | --- | --- |",
)


def table(names: Sequence[str]) -> str:
    """The settings of the packages with these names, or of all, over the default process group: a table in Markdown.

    Every rank calls it, and every rank has the table.
    """
    chosen = [setting for setting in SETTINGS if not names or setting.distribution in names]
    return "\n".join([*HEADER, *map(_row, chosen)])


def _row(setting: Setting) -> str:
    from torch import distributed

    if importlib.util.find_spec(setting.module) is None:
        return f"| {setting.distribution} `{setting.name}` | not run: not installed | | | | |"
    rank, ranks = distributed.get_rank(), distributed.get_world_size()
    exact, want, want_t = _gradient(setting.exact, 0, ROWS * ranks)
    value, got, got_t = _gradient(lambda batch: setting.call(batch, rank, ranks), rank * ROWS, ROWS)
    every: list[Any] = [None] * ranks
    distributed.all_gather_object(every, (float(value), got, got_t))
    values = [one / float(exact) for one, _, _ in every]
    mean = sum(gradient for _, gradient, _ in every) / ranks
    ratio = float((mean * want).sum() / (want * want).sum())
    cosine = float((mean * want).sum() / (mean.norm() * want.norm()))
    angle = math.degrees(math.acos(min(1.0, cosine)))
    by_temperature = [one for _, _, one in every if one is not None]
    temperature = _ratio(sum(by_temperature) / ranks / want_t) if want_t and by_temperature else "not learnt"
    spread = sorted({_ratio(one) for one in values}, key=float)
    shown = f"{spread[0]} to {spread[-1]}" if len(spread) > 1 else spread[0]
    average = _ratio(sum(values) / ranks)
    # at float64 the arc cosine of one is right to 1e-6 of a degree
    direction = "exact" if angle < 1e-4 else f"{angle:.0f} degrees off" if angle >= 0.5 else f"{angle:.1g} degrees off"
    return f"| {setting.title} | {shown} | {average} | {_ratio(ratio)} | {direction} | {temperature} |"


def _ratio(x: float) -> str:
    return f"{round(x, 3):g}"


def _gradient(loss: Callable[[Batch], Any], start: int, rows: int) -> tuple[Any, Any, float | None]:
    """The value of a loss of these rows, its gradient by the weights, and that by the temperature if it has one."""
    import torch

    generator = torch.Generator().manual_seed(0)
    count = ROWS * RANKS
    x, y = (torch.randn(count, WIDTH, generator=generator, dtype=torch.float64) for _ in range(2))
    y = x + 0.5 * y
    labels = torch.randint(0, CLASSES, (count,), generator=generator)
    weight = torch.randn(WIDTH, WIDTH, generator=generator, dtype=torch.float64).requires_grad_()
    temperature, bias = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (TEMPERATURE, BIAS))
    own = slice(start, start + rows)
    value = loss(Batch(x[own] @ weight, y[own] @ weight, labels[own], temperature, bias))
    value.backward()
    by_temperature = None if temperature.grad is None else float(temperature.grad)
    return value.detach(), weight.grad, by_temperature
