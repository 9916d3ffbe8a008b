"""Supervised decoupled contrastive learning (Yeh et al., arXiv 2110.06848, with all positives of a class)."""

from __future__ import annotations

from sincere_spec.arrangements import Labelled
from sincere_spec.protocol import Fold, PairLoss, Pairs, Reduce, Similarity, Term
from sincere_spec.types import Array


def decoupled(temperature: float | Array = 0.1) -> PairLoss:
    """Positives attract and negatives repel, each by itself: only negatives are in the denominator.

        loss_i = log Σ_n exp(a_in) - mean_p a_ip

    It can be negative. A row without positives or without negatives does not count.
    """
    return PairLoss(
        name="decoupled",
        arrangement=Labelled(),
        stages=(
            Reduce("noise", Fold.LOGSUMEXP, over=Pairs.NEGATIVE),
            Reduce("attract", Fold.LINEAR, over=Pairs.POSITIVE, mean=True),
        ),
        terms=(Term("noise"), Term("attract", -1.0)),
        logit=Similarity(),
        temperature=temperature,
    )
