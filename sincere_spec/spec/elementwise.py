"""The folds ψ and their slopes ψ′: with the logits, the only transcendental functions of the package."""

from __future__ import annotations

from sincere_spec.arrays import Array, Namespace
from sincere_spec.errors import OptionError
from sincere_spec.spec.words import Fold


def softplus(xp: Namespace, t: Array) -> Array:
    """`log(1 + exp(t))`, to a few units in the last place from t = -inf to inf; the framework's own where it is so."""
    native = getattr(xp, "softplus", None)
    if native is not None:
        return native(t)
    return xp.logaddexp(t, xp.zeros_like(t))


def sigmoid(xp: Namespace, t: Array) -> Array:
    """`1 / (1 + exp(-t))`, smooth and without overflow; the framework's own where it is so."""
    native = getattr(xp, "sigmoid", None)
    if native is not None:
        return native(t)
    return xp.exp(t - softplus(xp, t))


def value(xp: Namespace, fold: Fold, t: Array) -> Array:
    """ψ(t) of a fold that is a sum."""
    if fold is Fold.LINEAR:
        return t
    if fold is Fold.EXP:
        return xp.exp(t)
    if fold is Fold.SOFTPLUS:
        return softplus(xp, t)
    if fold is Fold.SIGMOID_SQUARED:
        return xp.exp(-2.0 * softplus(xp, -t))
    if fold is Fold.HINGE:
        return xp.where(t > 0.0, t, xp.zeros_like(t))
    if fold is Fold.SQUARE:
        return t * t
    raise _no_function(fold)


def slope(xp: Namespace, fold: Fold, t: Array) -> Array:
    """ψ′(t) of a fold that is a sum."""
    if fold is Fold.LINEAR:
        return xp.ones_like(t)
    if fold is Fold.EXP:
        return xp.exp(t)
    if fold is Fold.SOFTPLUS:
        return sigmoid(xp, t)
    if fold is Fold.SIGMOID_SQUARED:
        return 2.0 * xp.exp(-2.0 * softplus(xp, -t) - softplus(xp, t))  # 2 σ(t)² σ(-t)
    if fold is Fold.HINGE:
        return xp.where(t > 0.0, xp.ones_like(t), xp.zeros_like(t))  # 0 at the bend, as relu's
    if fold is Fold.SQUARE:
        return 2.0 * t
    raise _no_function(fold)


def _no_function(fold: object) -> OptionError:
    return OptionError(f"expected a fold that is a sum of elementwise values; got {fold!r}: it has none here.")
