"""SigLIP, the sigmoid loss for language-image pre-training (Zhai et al., arXiv 2303.15343)."""

from __future__ import annotations

from sincere_spec.arrangements import Towers
from sincere_spec.protocol import Fold, PairLoss, Pairs, Reduce, Similarity, Term
from sincere_spec.types import Array


def siglip(temperature: float | Array = 0.1, bias: float | Array = -10.0) -> PairLoss:
    """Every pair is a binary decision of its own; the sum of a row is its loss, so the mean divides by n, not n².

    loss_i = softplus(-a_ii) + Σ_{j != i} softplus(a_ij)          a_ij = s_ij / temperature + bias
    """
    return PairLoss(
        name="siglip",
        arrangement=Towers(both_ways=False),
        stages=(
            Reduce("attract", Fold.SOFTPLUS, over=Pairs.POSITIVE, scale=-1.0),
            Reduce("repel", Fold.SOFTPLUS, over=Pairs.NEGATIVE),
        ),
        terms=(Term("attract"), Term("repel")),
        logit=Similarity(),
        temperature=temperature,
        bias=bias,
    )
