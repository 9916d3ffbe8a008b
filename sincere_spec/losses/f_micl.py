"""f-MICL: contrastive learning by the mutual information of an f-divergence (Lu et al., arXiv 2402.10150).

With G = exp(-‖x - y‖² / (2σ²)) and a = log G, the paper's objective needs f′(eᵃ) on positives and f*(f′(eᵃ)) on
negatives. Each is affine in folds of the logit; the table says which.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import Literal, TypeAlias, get_args

from sincere_spec.errors import OptionError
from sincere_spec.spec.arrangements import PairedViews
from sincere_spec.spec.checks import NUMBER, POSITIVE, choice
from sincere_spec.spec.logits import LogKernel
from sincere_spec.spec.words import Fold, PairLoss, Pairs, Stage, Term

Divergence: TypeAlias = Literal[
    "kl", "js", "pearson", "hellinger", "tsallis", "vincze_le_cam", "reverse_kl", "neyman", "jeffreys"
]


@dataclass(frozen=True)
class Affine:
    """`constant + Σ coefficient ψ(scale a)`, of the logit a."""

    folds: tuple[tuple[float, Fold, float], ...]
    constant: float = 0.0


FUNCTIONS = {
    # u log u
    "kl": (Affine(((1.0, Fold.LINEAR, 1.0),), 1.0), Affine(((1.0, Fold.EXP, 1.0),))),
    # u log u - (u + 1) log((u + 1) / 2)
    "js": (Affine(((-1.0, Fold.SOFTPLUS, -1.0),), log(2.0)), Affine(((1.0, Fold.SOFTPLUS, 1.0),), -log(2.0))),
    # (u - 1)²
    "pearson": (Affine(((2.0, Fold.EXP, 1.0),), -2.0), Affine(((1.0, Fold.EXP, 2.0),), -1.0)),
    # (√u - 1)²
    "hellinger": (Affine(((-1.0, Fold.EXP, -0.5),), 1.0), Affine(((1.0, Fold.EXP, 0.5),), -1.0)),
    # (u - 1)² / (u + 1); the paper prints 3 - 4/(u + 1) for the second, which its own f and f* contradict
    "vincze_le_cam": (
        Affine(((-4.0, Fold.SIGMOID_SQUARED, -1.0),), 1.0),
        Affine(((4.0, Fold.SIGMOID_SQUARED, 1.0),), -1.0),
    ),
    # -log u
    "reverse_kl": (Affine(((-1.0, Fold.EXP, -1.0),)), Affine(((1.0, Fold.LINEAR, 1.0),), -1.0)),
    # (1 - u)² / u
    "neyman": (Affine(((-1.0, Fold.EXP, -2.0),), 1.0), Affine(((-2.0, Fold.EXP, -1.0),), 2.0)),
    # (u - 1) log u
    "jeffreys": (
        Affine(((1.0, Fold.LINEAR, 1.0), (-1.0, Fold.EXP, -1.0)), 1.0),
        Affine(((1.0, Fold.LINEAR, 1.0), (1.0, Fold.EXP, 1.0)), -1.0),
    ),
}
"""f′(eᵃ) and f*(f′(eᵃ)) of the divergences without a parameter, from their f(u) with u = eᵃ."""


def divergence_functions(divergence: str, order: float) -> tuple[Affine, Affine]:
    """f′(eᵃ) and f*(f′(eᵃ)) of a divergence."""
    if divergence == "tsallis":  # u^q / (q - 1)
        return Affine(((order / (order - 1.0), Fold.EXP, order - 1.0),)), Affine(((1.0, Fold.EXP, order),))
    return FUNCTIONS[divergence]


def _means(name: str, over: Pairs, function: Affine, factor: float) -> tuple[tuple[Stage, ...], tuple[Term, ...]]:
    stages = tuple(
        Stage(name if len(function.folds) == 1 else f"{name}_{fold.value}", fold, over=over, scale=scale, mean=True)
        for _, fold, scale in function.folds
    )
    constants = (factor * function.constant, *(0.0 for _ in function.folds[1:]))
    terms = tuple(
        Term(stage.name, factor * coefficient, constant)
        for stage, (coefficient, _, _), constant in zip(stages, function.folds, constants, strict=True)
    )
    return stages, terms


def f_micl(
    divergence: Divergence = "kl", alpha: float = 40.0, inverse_bandwidth: float = 1.0, order: float = 2.0
) -> PairLoss:
    """The negative of the f-mutual information that two views show, with the Gaussian kernel as the critic.

        loss_i = -f′(G(a_i, b_i)) + alpha mean_{j != i} f*(f′(G(a_i, a_j)))        G(x, y) = exp(-inverse_bandwidth
        ‖x - y‖²)

    Negatives are pairs within the first view, or with a queue, if there is one. The paper finds "reverse_kl" and "neyman"
    unsuitable (features collapse) and does not classify "jeffreys"; `order` is that of "tsallis", taken as printed,
    without moving f(1) to 0.

    Args:
        divergence: "kl", "js", "pearson", "hellinger", "tsallis", "vincze_le_cam", "reverse_kl", "neyman" or
            "jeffreys".
        alpha: the weight of the negatives, not negative.
        inverse_bandwidth: 1 / (2 σ²) of the kernel, a positive number.
        order: of the Tsallis divergence, positive and not 1; other divergences do not read it.

    Raises:
        OptionError: a number out of its range, an unknown divergence, or an array: no keyword of it receives a gradient.

    Example:
        >>> import sincere_spec as ss
        >>> ss.losses.f_micl("pearson", alpha=2.0)
        <f_micl_pearson: temperature=0.5, logit=LogKernel(); attract = mean exp(a) over positive;
        repel = mean exp(2 a) over negative; loss = - 2 attract + 2 + 2 repel - 2>
    """
    choice(divergence, "divergence", get_args(Divergence))
    alpha, inverse_bandwidth = NUMBER(alpha, "alpha"), POSITIVE(inverse_bandwidth, "inverse_bandwidth")
    order = POSITIVE(order, "order")
    if alpha < 0.0:
        raise OptionError(f"alpha must not be negative; got {alpha!r}: it is the weight of the negatives.")
    if divergence == "tsallis" and order == 1.0:
        raise OptionError('order must not be 1: Tsallis of order 1 is "kl", up to a constant.')
    attract, repel = divergence_functions(divergence, order)
    positive_stages, positive_terms = _means("attract", Pairs.POSITIVE, attract, -1.0)
    negative_stages, negative_terms = _means("repel", Pairs.NEGATIVE, repel, alpha)
    return PairLoss(
        name=f"f_micl_{divergence}",
        arrangement=PairedViews(),
        stages=positive_stages + negative_stages,
        terms=positive_terms + negative_terms,
        logit=LogKernel(),
        temperature=0.5 / inverse_bandwidth,
    )
