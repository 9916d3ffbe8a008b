"""Supervised decoupled contrastive learning (Yeh et al., arXiv 2110.06848, with all positives of a class)."""

from __future__ import annotations

from sincere_spec.arrays import Array
from sincere_spec.spec.arrangements import Labelled
from sincere_spec.spec.words import Fold, PairLoss, Pairs, Similarity, Stage, Term


def decoupled(temperature: float | Array = 0.1) -> PairLoss:
    """Positives attract and negatives repel, each by itself: only negatives are in the denominator.

        loss_i = log Σ_n exp(a_in) - mean_p a_ip

    It can be negative. A row without positives or without negatives does not count.
    """
    return PairLoss(
        name="decoupled",
        arrangement=Labelled(),
        stages=(
            Stage("noise", Fold.LOGSUMEXP, over=Pairs.NEGATIVE),
            Stage("attract", Fold.LINEAR, over=Pairs.POSITIVE, mean=True),
        ),
        terms=(Term("noise"), Term("attract", -1.0)),
        logit=Similarity(),
        temperature=temperature,
    )
