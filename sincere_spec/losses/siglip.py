"""SigLIP, the sigmoid loss for language-image pre-training (Zhai et al., arXiv 2303.15343)."""

from __future__ import annotations

from sincere_spec.arrays import Array
from sincere_spec.spec.arrangements import Towers
from sincere_spec.spec.words import Fold, PairLoss, Pairs, Similarity, Stage, Term

STAGES = (
    Stage("attract", Fold.SOFTPLUS, over=Pairs.POSITIVE, scale=-1.0),
    Stage("repel", Fold.SOFTPLUS, over=Pairs.NEGATIVE),
)
TERMS = (Term("attract"), Term("repel"))


def siglip(temperature: float | Array = 0.1, bias: float | Array = -10.0) -> PairLoss:
    """Every pair is a binary decision of its own; the sum of a row is its loss, so the mean divides by n, not n².

    loss_i = softplus(-a_ii) + Σ_{j != i} softplus(a_ij)          a_ij = s_ij / temperature + bias

    Args:
        temperature: divides the similarities; a positive number, or a 0-d array, which then receives a gradient.
        bias: added to every logit; a number, or a 0-d array, which then receives a gradient.

    Raises:
        OptionError: a temperature that is no positive number, or a bias that is no finite one.

    Example:
        >>> import sincere_spec as ss
        >>> ss.losses.siglip(bias=-5.0).bias
        -5.0
    """
    return PairLoss(
        "siglip",
        arrangement=Towers(both_ways=False),
        stages=STAGES,
        terms=TERMS,
        logit=Similarity(),
        temperature=temperature,
        bias=bias,
    )
