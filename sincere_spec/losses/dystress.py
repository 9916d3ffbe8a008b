"""DySTreSS: a temperature that depends on the similarity (Manna et al., arXiv 2308.01140)."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

from sincere_spec.errors import OptionError
from sincere_spec.losses.info_nce import STAGES, TERMS
from sincere_spec.losses.supcon import OUT_STAGES, OUT_TERMS
from sincere_spec.spec.arrangements import Queries, Views
from sincere_spec.spec.checks import FLAG, NUMBER, POSITIVE, choice
from sincere_spec.spec.logits import CosineSchedule, Schedule, ShiftedSchedule
from sincere_spec.spec.words import PairLoss

ScheduleName: TypeAlias = Literal["cosine", "shifted"]


def dystress(
    temperature_min: float = 0.1,
    temperature_max: float = 0.2,
    detach: bool = True,
    schedule: ScheduleName = "cosine",
    offset: float = -0.4,
    scale: float = 0.7,
) -> PairLoss:
    """NT-Xent whose temperature depends on the similarity of each pair, positives and negatives alike.

        a_ij = s_ij / τ(s_ij)
        cosine:   τ(s) = min + (max - min) (1 + cos(π(1 + s))) / 2
        shifted:  τ(s) = min + (max - min) (1 + cos(π(s + offset) / scale)) / 2   for s <= -offset, else max

    `detach=True` holds τ(s) constant in the gradient, as the authors' NT-Xent, MoCo and SimCSE code does. Above
    max / min = 4.504 the cosine's logit is no longer increasing in s: a more similar pair can get a smaller logit.

    Args:
        temperature_min: the smallest τ, a positive number.
        temperature_max: the largest τ, a number not below `temperature_min`.
        detach: hold τ(s) constant in the gradient, as the authors' code does for this loss; False differentiates it.
        schedule: "cosine" or "shifted".
        offset: of "shifted": τ is largest from s = -offset on.
        scale: of "shifted": the width of its cosine, a positive number of similarities.

    Raises:
        OptionError: a number out of its range, an unknown schedule, or an array: no keyword of it receives a gradient.

    Example:
        >>> import sincere_spec as ss
        >>> ss.losses.dystress(temperature_min=0.1, temperature_max=0.2).logit
        CosineSchedule(minimum=0.1, maximum=0.2, held=True)
    """
    logit = _schedule(temperature_min, temperature_max, detach, schedule, offset, scale)
    return PairLoss("dystress", arrangement=Views(), stages=OUT_STAGES, terms=OUT_TERMS, logit=logit)


def dystress_info_nce(
    temperature_min: float = 0.1,
    temperature_max: float = 0.2,
    detach: bool = True,
    schedule: ScheduleName = "cosine",
    offset: float = -0.4,
    scale: float = 0.7,
) -> PairLoss:
    """InfoNCE whose temperature depends on the similarity of each pair: DySTreSS as the authors' MoCo and SimCSE code has it.

        loss_i = -log( exp(a_ip) / (exp(a_ip) + Σ_n exp(a_in)) )          a_ij = s_ij / τ(s_ij)

    The negatives of a query are a queue (MoCo), or without one the other rows' positives (SimCSE). τ(s) is that of
    `dystress`. The authors' SimCSE code has schedule="shifted", temperature_min=0.04 and temperature_max=0.05.

    Args:
        temperature_min: the smallest τ, a positive number.
        temperature_max: the largest τ, a number not below `temperature_min`.
        detach: hold τ(s) constant in the gradient, as the authors' code does for this loss; False differentiates it.
        schedule: "cosine" or "shifted".
        offset: of "shifted": τ is largest from s = -offset on.
        scale: of "shifted": the width of its cosine, a positive number of similarities.

    Raises:
        OptionError: a number out of its range, an unknown schedule, or an array: no keyword of it receives a gradient.

    Example:
        >>> import sincere_spec as ss
        >>> ss.losses.dystress_info_nce(0.04, 0.05).arrangement.signature
        'queries, positives, negatives=None'
    """
    logit = _schedule(temperature_min, temperature_max, detach, schedule, offset, scale)
    return PairLoss("dystress_info_nce", arrangement=Queries(), stages=STAGES, terms=TERMS, logit=logit)


def _schedule(
    temperature_min: float, temperature_max: float, detach: bool, schedule: ScheduleName, offset: float, scale: float
) -> Schedule:
    """The logit of these keywords, checked by their names."""
    temperature_min = POSITIVE(temperature_min, "temperature_min")
    temperature_max = POSITIVE(temperature_max, "temperature_max")
    detach = FLAG(detach, "detach")
    offset, scale = NUMBER(offset, "offset"), POSITIVE(scale, "scale")
    if temperature_min > temperature_max:
        raise OptionError(
            f"temperature_min must not exceed temperature_max; got {temperature_min!r} and "
            f"{temperature_max!r}: swap them."
        )
    choice(schedule, "schedule", get_args(ScheduleName))
    shared = (temperature_min, temperature_max, detach)
    return CosineSchedule(*shared) if schedule == "cosine" else ShiftedSchedule(*shared, offset, scale)
