"""The losses as PyTorch modules: the keywords of a function at construction, its arrays at the call.

`learnable_temperature=True` makes the temperature a parameter, kept as CLIP keeps it: `logit_scale`, the logarithm of
1 / temperature, where 1 / temperature is clamped to at most 100. Give the optimizer the parameters of the loss too, and
let no weight decay act on them. Learnt parameters have one entry, so that FSDP2 can shard them; 0-d ones are loaded, too.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from math import log
from numbers import Real
from typing import TYPE_CHECKING, Any, TypedDict, cast

import torch
from torch import Tensor, nn

from sincere_spec import losses
from sincere_spec.arrays import Engine, Labels, Reduction, Where
from sincere_spec.call.evaluate import evaluate, explain
from sincere_spec.docstrings import documented_class
from sincere_spec.errors import EngineUnavailable, OptionError, unknown_keyword
from sincere_spec.losses.dystress import ScheduleName
from sincere_spec.losses.f_micl import Divergence
from sincere_spec.losses.supcon import Summation
from sincere_spec.relations import Ignore
from sincere_spec.spec.words import PairLoss

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = [
    "CLIPLoss",
    "DecoupledLoss",
    "DySTreSSInfoNCELoss",
    "DySTreSSLoss",
    "FMICLLoss",
    "HCLLoss",
    "InfoLOOBLoss",
    "InfoNCELoss",
    "NTXentLoss",
    "SigLIPLoss",
    "SincereLoss",
    "SupConLoss",
]

LARGEST_SCALE = 100.0  # CLIP's


class _Options(TypedDict, total=False):
    normalize: bool
    reduction: Reduction
    engine: Engine
    tile: int | None
    across: Any


class _TemperatureOptions(_Options, total=False):
    learnable_temperature: bool


_described = documented_class(_Options.__annotations__, {})
_learnable = documented_class(
    _TemperatureOptions.__annotations__,
    {
        "temperature": "divides the similarities; a positive number, and where a learnt one begins.",
        "bias": "added to every logit; a number, and where a learnt one begins.",
        "learnable_temperature": "make it the parameter `logit_scale`, log(1 / temperature), clamped to log 100.",
        "learnable_bias": "make it the parameter `logit_bias`.",
    },
)


class _Loss(nn.Module):
    """A loss record, made of its own keywords, and the options of its calls."""

    options_taken = tuple(_Options.__annotations__)

    def __init__(
        self,
        record: Callable[..., PairLoss],
        own: dict[str, Any],
        /,
        *,
        normalize: bool = True,
        reduction: Reduction = "mean",
        engine: Engine = "auto",
        tile: int | None = None,
        across: Any = None,
        **unknown: Any,
    ) -> None:
        if unknown:
            raise unknown_keyword(type(self).__name__, next(iter(unknown)), [*own, *self.options_taken])
        super().__init__()
        for name in {"temperature", "bias"} & own.keys():
            if not isinstance(own[name], Real):
                raise OptionError(
                    f"{name} must be a Python number; got {type(own[name]).__name__}: for one that is learnt, "
                    f"learnable_{name}=True."
                )
        self.own, self.record = own, record(**own)
        self.normalize, self.reduction, self.engine, self.tile = normalize, reduction, engine, tile
        self.across = across
        row = torch.ones(1, 1, device="cpu")
        with suppress(EngineUnavailable):  # what a call is checked for; which engine can serve it, only the call knows
            alone = self._options()
            alone["across"] = None  # the other ranks may make theirs at another time
            explain(self.record, row, [0] if self.record.arrangement.labelled else row, **alone)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name, own in self.named_parameters(recurse=False):
            given = state_dict.get(prefix + name)
            if isinstance(given, Tensor) and given.ndim == 0:  # as CLIP keeps it
                state_dict[prefix + name] = given.reshape(own.shape)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def extra_repr(self) -> str:
        """The arguments of the constructor, for the module as it is now."""
        return ", ".join(
            f"{name}={value!r}" for name, value in {**self.own, **self._learnt(), **self._options()}.items()
        )

    def _learnt(self) -> dict[str, float]:
        """What has been learnt of the arguments."""
        return {}

    def _options(self) -> _Options:
        return {
            "normalize": self.normalize,
            "reduction": self.reduction,
            "engine": self.engine,
            "tile": self.tile,
            "across": self.across,
        }

    def _value(self, *arguments: Any, **keywords: Any) -> Tensor:
        return cast(Tensor, evaluate(self.record, *arguments, **keywords, **self._options()))


class _TemperatureLoss(_Loss):
    """A loss whose temperature is a number, or learnt as the parameter `logit_scale`."""

    options_taken = tuple(_TemperatureOptions.__annotations__)

    def __init__(
        self,
        record: Callable[..., PairLoss],
        own: dict[str, Any],
        /,
        *,
        learnable_temperature: bool = False,
        **options: Unpack[_Options],
    ) -> None:
        super().__init__(record, own, **options)
        scale = 1.0 / float(own["temperature"])
        if learnable_temperature and scale > LARGEST_SCALE:
            raise OptionError(
                f"a learnable temperature is at least {1.0 / LARGEST_SCALE}; got {own['temperature']!r}: start higher."
            )
        self.logit_scale = _parameter("learnable_temperature", learnable_temperature, log(scale))

    @property
    def temperature(self) -> float | Tensor:
        """What similarities are divided by: a number, or, learnt, a tensor."""
        return (
            self.record.temperature if self.logit_scale is None else torch.exp(-_clamped(self.logit_scale)).reshape(())
        )

    def extra_repr(self) -> str:
        """The arguments of the constructor, for the module as it is now."""
        return f"{super().extra_repr()}, learnable_temperature={self.logit_scale is not None}"

    def _learnt(self) -> dict[str, float]:
        return {**super()._learnt(), **_read("temperature", self.temperature)}

    def _value(self, *arguments: Any, **keywords: Any) -> Tensor:
        return super()._value(*arguments, temperature=self.temperature, **keywords)


class _LabelledLoss(_TemperatureLoss):
    """A loss of embeddings and labels."""

    def forward(
        self,
        embeddings: Tensor,
        labels: Labels,
        *,
        keys: Tensor | None = None,
        key_labels: Labels | None = None,
        ids: Labels | None = None,
        key_ids: Labels | None = None,
        where: Where | None = None,
        ignore: Ignore | None = None,
    ) -> Tensor:
        """The loss of rows with labels, compared with each other or with keys."""
        sides = {"keys": keys, "key_labels": key_labels, "ids": ids, "key_ids": key_ids}
        return self._value(embeddings, labels, where=where, ignore=ignore, **sides)


class _TowersLoss(_TemperatureLoss):
    """A loss of two towers."""

    def forward(self, a: Tensor, b: Tensor, *, where: Where | None = None, ignore: Ignore | None = None) -> Tensor:
        """The loss of two towers, whose rows belong to each other in order."""
        return self._value(a, b, where=where, ignore=ignore)


class _QueriesLoss(_Loss):
    """A loss of queries."""

    def forward(
        self,
        queries: Tensor,
        positives: Tensor,
        negatives: Tensor | None = None,
        *,
        where: Where | None = None,
        ignore: Ignore | None = None,
    ) -> Tensor:
        """The loss of queries, each with its positive, and perhaps a queue of negatives."""
        return self._value(queries, positives, negatives, where=where, ignore=ignore)


class _ViewsLoss(_Loss):
    """A loss of views."""

    def forward(self, *views: Tensor, where: Where | None = None, ignore: Ignore | None = None) -> Tensor:
        """The loss of two views of each sample, or more."""
        return self._value(*views, where=where, ignore=ignore)


def _parameter(keyword: str, learnable: bool, value: float) -> nn.Parameter | None:
    if not isinstance(learnable, bool):
        raise OptionError(f"{keyword} must be True or False; got {learnable!r}.")
    return nn.Parameter(torch.tensor([value])) if learnable else None  # of one entry: FSDP2 shards no 0-d parameter


def _read(name: str, learnt: float | Tensor | None) -> dict[str, float]:
    """A learnt number to six digits, under its name, if it is learnt and has a value."""
    if not isinstance(learnt, Tensor) or learnt.is_meta:
        return {}
    return {name: float(f"{float(learnt.detach()):.6g}")}


class _Clamped(torch.autograd.Function):
    """`min(x, limit)`. Where x is beyond, a gradient that leads back passes: clamp's is 0 there, and x would never move.

    It has no jvp, with which torch.compile would refuse it.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, limit: float) -> Tensor:
        return torch.clamp(x, max=limit)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        x, ctx.limit = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return torch.where(x > ctx.limit, torch.clamp(gradient, min=0.0), gradient), None


def _clamped(logit_scale: Tensor) -> Tensor:
    return cast(Tensor, _Clamped.apply(logit_scale, log(LARGEST_SCALE)))  # type: ignore[no-untyped-call]


@_learnable
class SincereLoss(_LabelledLoss):
    """SINCERE, with the keywords of `sincere_spec.sincere_loss`.

    Example:
        >>> import torch
        >>> from sincere_spec.torch import SincereLoss
        >>> loss = SincereLoss(temperature=0.5)
        >>> z = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]])
        >>> round(loss(z, torch.tensor([0, 0, 1, 1])).item(), 4)
        0.4302
    """

    def __init__(
        self, temperature: float = 0.1, *, epsilon: float = 0.0, **options: Unpack[_TemperatureOptions]
    ) -> None:
        super().__init__(losses.sincere, {"temperature": temperature, "epsilon": epsilon}, **options)


@_learnable
class SupConLoss(_LabelledLoss):
    """SupCon, with the keywords of `sincere_spec.supcon_loss`.

    Example:
        >>> import torch
        >>> from sincere_spec.torch import SupConLoss
        >>> loss = SupConLoss(temperature=0.5, summation="in")
        >>> z = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]])
        >>> round(loss(z, torch.tensor([0, 0, 1, 1])).item(), 4)
        0.4302
    """

    def __init__(
        self, temperature: float = 0.1, *, summation: Summation = "out", **options: Unpack[_TemperatureOptions]
    ) -> None:
        super().__init__(losses.supcon, {"temperature": temperature, "summation": summation}, **options)


@_learnable
class DecoupledLoss(_LabelledLoss):
    """Decoupled contrastive learning with class labels, with the keywords of `sincere_spec.decoupled_loss`.

    Example:
        >>> import torch
        >>> from sincere_spec.torch import DecoupledLoss
        >>> loss = DecoupledLoss(temperature=0.5)
        >>> z = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]])
        >>> round(loss(z, torch.tensor([0, 0, 1, 1])).item(), 4)
        -0.7367
    """

    def __init__(self, temperature: float = 0.1, **options: Unpack[_TemperatureOptions]) -> None:
        super().__init__(losses.decoupled, {"temperature": temperature}, **options)


@_learnable
class InfoNCELoss(_QueriesLoss, _TemperatureLoss):
    """InfoNCE, or with negatives MoCo's, with the keywords of `sincere_spec.info_nce_loss`.

    Example:
        >>> import torch
        >>> from sincere_spec.torch import InfoNCELoss
        >>> loss = InfoNCELoss(temperature=0.5)
        >>> a, b = torch.eye(2), torch.tensor([[0.8, 0.6], [-0.6, 0.8]])
        >>> round(loss(a, b).item(), 4)
        0.286
    """

    def __init__(self, temperature: float = 0.07, **options: Unpack[_TemperatureOptions]) -> None:
        super().__init__(losses.info_nce, {"temperature": temperature}, **options)


@_learnable
class NTXentLoss(_ViewsLoss, _TemperatureLoss):
    """NT-Xent, with the keywords of `sincere_spec.nt_xent_loss`.

    Example:
        >>> import torch
        >>> from sincere_spec.torch import NTXentLoss
        >>> loss = NTXentLoss(temperature=0.5)
        >>> a, b = torch.eye(2), torch.tensor([[0.8, 0.6], [-0.6, 0.8]])
        >>> round(loss(a, b).item(), 4)
        0.4302
    """

    def __init__(self, temperature: float = 0.1, **options: Unpack[_TemperatureOptions]) -> None:
        super().__init__(losses.nt_xent, {"temperature": temperature}, **options)


@_learnable
class HCLLoss(_ViewsLoss, _TemperatureLoss):
    """HCL, with the keywords of `sincere_spec.hcl_loss`.

    Example:
        >>> import torch
        >>> from sincere_spec.torch import HCLLoss
        >>> loss = HCLLoss(temperature=0.5)
        >>> a, b = torch.eye(2), torch.tensor([[0.8, 0.6], [-0.6, 0.8]])
        >>> round(loss(a, b).item(), 4)
        0.5224
    """

    def __init__(self, temperature: float = 0.5, *, beta: float = 1.0, **options: Unpack[_TemperatureOptions]) -> None:
        super().__init__(losses.hcl, {"temperature": temperature, "beta": beta}, **options)


class _ScheduledLoss(_Loss):
    """A loss with DySTreSS's temperature."""

    schedule_of: Callable[..., PairLoss]

    def __init__(
        self,
        *,
        temperature_min: float = 0.1,
        temperature_max: float = 0.2,
        detach: bool = True,
        schedule: ScheduleName = "cosine",
        offset: float = -0.4,
        scale: float = 0.7,
        **options: Unpack[_Options],
    ) -> None:
        own: dict[str, Any] = {"temperature_min": temperature_min, "temperature_max": temperature_max}
        own |= {"detach": detach, "schedule": schedule, "offset": offset, "scale": scale}
        super().__init__(type(self).schedule_of, own, **options)


@_described
class DySTreSSLoss(_ViewsLoss, _ScheduledLoss):
    """DySTreSS, with the keywords of `sincere_spec.dystress_loss`.

    Example:
        >>> import torch
        >>> from sincere_spec.torch import DySTreSSLoss
        >>> loss = DySTreSSLoss(temperature_min=0.1, temperature_max=0.2)
        >>> a, b = torch.eye(2), torch.tensor([[0.8, 0.6], [-0.6, 0.8]])
        >>> round(loss(a, b).item(), 4)
        0.2358
    """

    schedule_of = staticmethod(losses.dystress)


@_described
class DySTreSSInfoNCELoss(_QueriesLoss, _ScheduledLoss):
    """DySTreSS of queries, with a queue or without, with the keywords of `sincere_spec.dystress_info_nce_loss`.

    Example:
        >>> import torch
        >>> from sincere_spec.torch import DySTreSSInfoNCELoss
        >>> loss = DySTreSSInfoNCELoss(temperature_min=0.1, temperature_max=0.2)
        >>> a, b = torch.eye(2), torch.tensor([[0.8, 0.6], [-0.6, 0.8]])
        >>> round(loss(a, b).item(), 4)
        0.2236
    """

    schedule_of = staticmethod(losses.dystress_info_nce)


@_learnable
class CLIPLoss(_TowersLoss):
    """CLIP, with the keywords of `sincere_spec.clip_loss`.

    Example:
        >>> import torch
        >>> from sincere_spec.torch import CLIPLoss
        >>> loss = CLIPLoss(temperature=0.5, learnable_temperature=True)
        >>> a, b = torch.eye(2), torch.tensor([[0.8, 0.6], [-0.6, 0.8]])
        >>> round(loss(a, b).item(), 4)
        0.286
        >>> list(loss.state_dict())
        ['logit_scale']
    """

    def __init__(self, temperature: float = 0.07, **options: Unpack[_TemperatureOptions]) -> None:
        super().__init__(losses.clip, {"temperature": temperature}, **options)


@_learnable
class InfoLOOBLoss(_TowersLoss):
    """InfoLOOB, with the keywords of `sincere_spec.infoloob_loss`.

    Example:
        >>> import torch
        >>> from sincere_spec.torch import InfoLOOBLoss
        >>> loss = InfoLOOBLoss(temperature=0.5)
        >>> a, b = torch.eye(2), torch.tensor([[0.8, 0.6], [-0.6, 0.8]])
        >>> round(loss(a, b).item(), 4)
        -1.6
    """

    def __init__(self, temperature: float = 0.07, **options: Unpack[_TemperatureOptions]) -> None:
        super().__init__(losses.infoloob, {"temperature": temperature}, **options)


@_learnable
class SigLIPLoss(_TowersLoss):
    """SigLIP, with the keywords of `sincere_spec.siglip_loss`; `learnable_bias` makes the bias the parameter `logit_bias`.

    Example:
        >>> import torch
        >>> from sincere_spec.torch import SigLIPLoss
        >>> loss = SigLIPLoss(learnable_temperature=True, learnable_bias=True)
        >>> a, b = torch.eye(2), torch.tensor([[0.8, 0.6], [-0.6, 0.8]])
        >>> round(loss(a, b).item(), 4)
        2.136
        >>> list(loss.state_dict())
        ['logit_scale', 'logit_bias']
    """

    def __init__(
        self,
        temperature: float = 0.1,
        *,
        bias: float = -10.0,
        learnable_bias: bool = False,
        **options: Unpack[_TemperatureOptions],
    ) -> None:
        super().__init__(losses.siglip, {"temperature": temperature, "bias": bias}, **options)
        self.logit_bias = _parameter("learnable_bias", learnable_bias, float(bias))

    def extra_repr(self) -> str:
        """The arguments of the constructor, for the module as it is now."""
        return f"{super().extra_repr()}, learnable_bias={self.logit_bias is not None}"

    def _learnt(self) -> dict[str, float]:
        return {**super()._learnt(), **_read("bias", self.logit_bias)}

    def _value(self, *arguments: Any, **keywords: Any) -> Tensor:
        return super()._value(*arguments, bias=self.logit_bias, **keywords)


@_described
class FMICLLoss(_Loss):
    """f-MICL, with the keywords of `sincere_spec.f_micl_loss`.

    Example:
        >>> import torch
        >>> from sincere_spec.torch import FMICLLoss
        >>> loss = FMICLLoss(divergence="kl")
        >>> a, b = torch.eye(2), torch.tensor([[0.8, 0.6], [-0.6, 0.8]])
        >>> round(loss(a, b).item(), 4)
        4.8134
    """

    def __init__(
        self,
        *,
        divergence: Divergence = "kl",
        alpha: float = 40.0,
        inverse_bandwidth: float = 1.0,
        order: float = 2.0,
        **options: Unpack[_Options],
    ) -> None:
        own = {"divergence": divergence, "alpha": alpha, "inverse_bandwidth": inverse_bandwidth, "order": order}
        super().__init__(losses.f_micl, own, **options)

    def forward(
        self,
        view_a: Tensor,
        view_b: Tensor,
        negatives: Tensor | None = None,
        *,
        where: Where | None = None,
        ignore: Ignore | None = None,
    ) -> Tensor:
        """The loss of two views of each sample, and perhaps a queue of negatives."""
        return self._value(view_a, view_b, negatives, where=where, ignore=ignore)
