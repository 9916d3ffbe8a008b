"""DySTreSS: a temperature that depends on the similarity (Manna et al., arXiv 2308.01140)."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi

from sincere_spec.arrangements import Views
from sincere_spec.errors import OptionError, unknown_choice
from sincere_spec.losses.supcon import OUT_STAGES, OUT_TERMS
from sincere_spec.protocol import Logit, PairLoss, check_number, check_temperature
from sincere_spec.types import Array, Namespace


@dataclass(frozen=True)
class Schedule(Logit):
    """The logit `s / τ(s)`; with `held` its slope is 1 / τ(s), as in published code, else the derivative."""

    minimum: float
    maximum: float
    held: bool = True

    @property
    def reach(self) -> tuple[float, float]:  # type: ignore[override]
        """No logit is larger than at the lowest temperature."""
        return (-1.0 / self.minimum, 1.0 / self.minimum)

    def tau(self, xp: Namespace, s: Array) -> Array:
        """The temperature of a similarity."""
        raise NotImplementedError

    def tau_slope(self, xp: Namespace, s: Array) -> Array:
        """The derivative of `tau`."""
        raise NotImplementedError

    def value(self, xp: Namespace, s: Array) -> Array:
        return s / self.tau(xp, s)

    def slope(self, xp: Namespace, s: Array) -> Array:
        tau = self.tau(xp, s)
        if self.held:
            return 1.0 / tau
        return (1.0 - s * self.tau_slope(xp, s) / tau) / tau


@dataclass(frozen=True)
class CosineSchedule(Schedule):
    """`τ(s) = minimum + (maximum - minimum) (1 + cos(π(1 + s))) / 2`: smallest at s = 0, largest at s = ±1."""

    def tau(self, xp: Namespace, s: Array) -> Array:
        half = xp.sin(0.5 * pi * s)  # (1 + cos(π(1 + s))) / 2 = sin²(πs/2)
        return self.minimum + (self.maximum - self.minimum) * (half * half)

    def tau_slope(self, xp: Namespace, s: Array) -> Array:
        return (0.5 * pi * (self.maximum - self.minimum)) * xp.sin(pi * s)


@dataclass(frozen=True)
class ShiftedSchedule(Schedule):
    """A cosine of its own centre and width, and the maximum from s = -offset on: DySTreSS* of the authors' code.

    τ(s) = minimum + (maximum - minimum) (1 + cos(π(s + offset) / width)) / 2   where s <= -offset,   else maximum
    """

    offset: float = -0.4
    width: float = 0.7

    def tau(self, xp: Namespace, s: Array) -> Array:
        wave = xp.cos((pi / self.width) * (s + self.offset))
        return xp.where(
            s <= -self.offset, self.minimum + (0.5 * (self.maximum - self.minimum)) * (1.0 + wave), self.maximum
        )

    def tau_slope(self, xp: Namespace, s: Array) -> Array:
        wave = xp.sin((pi / self.width) * (s + self.offset))
        slope = (-0.5 * pi * (self.maximum - self.minimum) / self.width) * wave
        return xp.where(s <= -self.offset, slope, xp.zeros_like(s))


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
    logit: Logit
    if schedule == "cosine":
        logit = CosineSchedule(float(temperature_min), float(temperature_max), bool(detach))
    else:
        check_number(offset, "offset")
        check_temperature(scale, "scale")
        logit = ShiftedSchedule(
            float(temperature_min), float(temperature_max), bool(detach), float(offset), float(scale)
        )
    return PairLoss("dystress", arrangement=Views(), stages=OUT_STAGES, terms=OUT_TERMS, logit=logit)
