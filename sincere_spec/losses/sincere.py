"""SINCERE, supervised InfoNCE revisited: Feeney and Hughes, arXiv 2309.14277.

With a margin epsilon it is epsilon-SupInfoNCE (Barbano et al., 2211.05568).
"""

from __future__ import annotations

from sincere_spec.arrays import Array
from sincere_spec.spec.arrangements import Labelled
from sincere_spec.spec.checks import NUMBER
from sincere_spec.spec.words import Fold, PairLoss, Pairs, Similarity, Stage, Term

NOISE = Stage("noise", Fold.LOGSUMEXP, over=Pairs.NEGATIVE)
LARGE = 16.0
"""From here on a rounding of epsilon is more than one of a logit, and nothing may add epsilon to one and take it away again."""


def sincere(temperature: float | Array = 0.1, epsilon: float = 0.0) -> PairLoss:
    """Each positive against the negatives alone, so that positives never repel each other.

        loss_i = mean_p -log( exp(a_ip) / (exp(a_ip - epsilon) + Σ_n exp(a_in)) )
               = mean_p softplus(noise_i - a_ip + epsilon) - epsilon          noise_i = log Σ_n exp(a_in)

    A row without negatives has loss -epsilon; a row without positives does not count.

    Args:
        temperature: divides the similarities; a positive number, or a 0-d array, which then receives a gradient.
        epsilon: the margin of epsilon-SupInfoNCE (arXiv 2211.05568), in units of logits; 0 is SINCERE. A large one is
            written without a cancellation, and tends to `decoupled`.

    Raises:
        OptionError: a temperature that is no positive number, or an epsilon that is no finite one.

    Example:
        >>> import sincere_spec as ss
        >>> ss.losses.sincere(temperature=0.1)
        <sincere: temperature=0.1, logit=Similarity(); noise = logsumexp(a) over negative;
        margin = mean softplus(-(a - noise)) over positive; loss = margin>
    """
    epsilon = NUMBER(epsilon, "epsilon")
    made = NO_MARGIN if epsilon == 0.0 else None  # one object, so that engines find again what they made of it
    stages, terms = made or (_large_margin(epsilon) if epsilon > LARGE else _margin(epsilon))
    return PairLoss("sincere", Labelled(), stages, terms, Similarity(), temperature)


def _margin(epsilon: float) -> tuple[tuple[Stage, ...], tuple[Term, ...]]:
    """softplus(u + epsilon) - epsilon, where u = noise - a: it keeps every digit of a small loss."""
    margin = Stage("margin", Fold.SOFTPLUS, Pairs.POSITIVE, scale=-1.0, offset=epsilon, minus="noise", mean=True)
    return (NOISE, margin), (Term("margin", constant=-epsilon),)


NO_MARGIN = _margin(0.0)


def _large_margin(epsilon: float) -> tuple[tuple[Stage, ...], tuple[Term, ...]]:
    """The same as u + softplus(-u - epsilon); and -epsilon where there are no negatives, else -epsilon + epsilon."""
    stages = (
        NOISE,
        Stage("least", Fold.LINEAR, Pairs.POSITIVE, scale=0.0, mean=True),  # 0
        Stage("any", Fold.LINEAR, Pairs.NEGATIVE, scale=0.0, offset=1.0, mean=True),  # 1 where there are negatives
        Stage("gap", Fold.LINEAR, Pairs.POSITIVE, scale=-1.0, minus="noise", mean=True),
        Stage("rest", Fold.SOFTPLUS, Pairs.POSITIVE, offset=-epsilon, minus="noise", mean=True),
    )
    return stages, (Term("least", constant=-epsilon), Term("any", epsilon), Term("gap"), Term("rest"))
