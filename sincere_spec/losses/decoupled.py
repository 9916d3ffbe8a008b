"""Supervised decoupled contrastive learning (Yeh et al., arXiv 2110.06848, with all positives of a class)."""

from __future__ import annotations

from sincere_spec.arrays import Array
from sincere_spec.spec.arrangements import Labelled
from sincere_spec.spec.words import Fold, PairLoss, Pairs, Similarity, Stage, Term

STAGES = (
    Stage("noise", Fold.LOGSUMEXP, over=Pairs.NEGATIVE),
    Stage("attract", Fold.LINEAR, over=Pairs.POSITIVE, mean=True),
)
TERMS = (Term("noise"), Term("attract", -1.0))


def decoupled(temperature: float | Array = 0.1) -> PairLoss:
    """Positives attract and negatives repel, each by itself: only negatives are in the denominator.

        loss_i = log Σ_n exp(a_in) - mean_p a_ip

    It can be negative. A row without positives or without negatives does not count.

    Args:
        temperature: divides the similarities; a positive number, or a 0-d array, which then receives a gradient.

    Raises:
        OptionError: a temperature that is no positive number.

    Example:
        >>> import sincere_spec as ss
        >>> ss.losses.decoupled(temperature=0.2)
        <decoupled: temperature=0.2, logit=Similarity(); noise = logsumexp(a) over negative;
        attract = mean a over positive; loss = noise - attract>
    """
    return PairLoss(
        "decoupled", arrangement=Labelled(), stages=STAGES, terms=TERMS, logit=Similarity(), temperature=temperature
    )
