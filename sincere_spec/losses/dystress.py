"""DySTreSS: a temperature that depends on the similarity (Manna et al., arXiv 2308.01140)."""

from __future__ import annotations

from sincere_spec.errors import OptionError, unknown_choice
from sincere_spec.losses.supcon import OUT_STAGES, OUT_TERMS
from sincere_spec.spec.arrangements import Views
from sincere_spec.spec.logits import CosineSchedule, Schedule, ShiftedSchedule
from sincere_spec.spec.words import PairLoss, check_number, check_temperature


def dystress(
    temperature_min: float = 0.1,
    temperature_max: float = 0.2,
    detach: bool = True,
    schedule: str = "cosine",
    offset: float = -0.4,
    scale: float = 0.7,
) -> PairLoss:
    """NT-Xent whose temperature depends on the similarity of each pair, positives and negatives alike.

        a_ij = s_ij / τ(s_ij)
        cosine:   τ(s) = min + (max - min) (1 + cos(π(1 + s))) / 2
        shifted:  τ(s) = min + (max - min) (1 + cos(π(s + offset) / scale)) / 2   for s <= -offset, else max

    `detach=True` holds τ(s) constant in the gradient, as the authors' NT-Xent, MoCo and SimCSE code does. Above
    max / min = 4.504 the cosine's logit is no longer increasing in s: a more similar pair can get a smaller logit.
    """
    check_temperature(temperature_min, "temperature_min")
    check_temperature(temperature_max, "temperature_max")
    for name, number in (("temperature_min", temperature_min), ("temperature_max", temperature_max)):
        if not isinstance(number, (int, float)):
            raise OptionError(f"{name} must be a Python number; got {type(number).__name__}: it receives no gradient.")
    if temperature_min > temperature_max:
        raise OptionError(
            f"temperature_min must not exceed temperature_max; got {temperature_min!r} and {temperature_max!r}."
        )
    if schedule not in ("cosine", "shifted"):
        raise unknown_choice("schedule", schedule, ("cosine", "shifted"))
    logit: Schedule
    if schedule == "cosine":
        logit = CosineSchedule(float(temperature_min), float(temperature_max), bool(detach))
    else:
        check_number(offset, "offset")
        check_temperature(scale, "scale")
        logit = ShiftedSchedule(
            float(temperature_min), float(temperature_max), bool(detach), float(offset), float(scale)
        )
    return PairLoss("dystress", arrangement=Views(), stages=OUT_STAGES, terms=OUT_TERMS, logit=logit)
