"""Logits besides the plain similarity: a temperature that depends on the similarity, and the log of a kernel."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from math import pi

from sincere_spec.arrays import Array, Namespace
from sincere_spec.errors import OptionError
from sincere_spec.spec.checks import FLAG, NUMBER, POSITIVE, check_fields
from sincere_spec.spec.words import Logit


@dataclass(frozen=True)
class Schedule(Logit):
    """The logit `s / τ(s)`; with `held` its slope is 1 / τ(s), as in published code, else the derivative."""

    minimum: float
    maximum: float
    held: bool = True

    def __post_init__(self) -> None:
        check_fields(self, minimum=POSITIVE, maximum=POSITIVE, held=FLAG)
        if self.minimum > self.maximum:
            raise OptionError(f"minimum must not exceed maximum; got {self.minimum!r} and {self.maximum!r}: swap them.")

    @property
    def reach(self) -> tuple[float, float]:  # type: ignore[override]
        """No logit is larger than at the lowest temperature."""
        return (-1.0 / self.minimum, 1.0 / self.minimum)

    @abstractmethod
    def tau(self, xp: Namespace, s: Array) -> Array:
        """The temperature of a similarity."""

    @abstractmethod
    def tau_slope(self, xp: Namespace, s: Array) -> Array:
        """The derivative of `tau`."""

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

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, offset=NUMBER, width=POSITIVE)

    def tau(self, xp: Namespace, s: Array) -> Array:
        wave = xp.cos((pi / self.width) * (s + self.offset))
        return xp.where(
            s <= -self.offset, self.minimum + (0.5 * (self.maximum - self.minimum)) * (1.0 + wave), self.maximum
        )

    def tau_slope(self, xp: Namespace, s: Array) -> Array:
        wave = xp.sin((pi / self.width) * (s + self.offset))
        slope = (-0.5 * pi * (self.maximum - self.minimum) / self.width) * wave
        return xp.where(s <= -self.offset, slope, xp.zeros_like(s))


@dataclass(frozen=True)
class LogKernel(Logit):
    """`s - 1`: over σ² it is the logarithm of the Gaussian kernel of two unit vectors."""

    unit_slope = True
    reach = (-2.0, 0.0)

    def value(self, xp: Namespace, s: Array) -> Array:
        return s - 1.0

    def slope(self, xp: Namespace, s: Array) -> Array:
        return xp.ones_like(s)
