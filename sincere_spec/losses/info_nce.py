"""InfoNCE: van den Oord et al., arXiv 1807.03748.

With a queue it is MoCo's (He et al., 1911.05722), in two directions CLIP's (Radford et al., 2103.00020).
"""

from __future__ import annotations

from sincere_spec.arrays import Array
from sincere_spec.spec.arrangements import Queries, Towers
from sincere_spec.spec.words import Fold, PairLoss, Pairs, Similarity, Stage, Term

# -log softmax at the one positive, in the form that keeps every digit of a small loss.
STAGES = (
    Stage("noise", Fold.LOGSUMEXP, over=Pairs.NEGATIVE),
    Stage("margin", Fold.SOFTPLUS, over=Pairs.POSITIVE, scale=-1.0, minus="noise"),
)
TERMS = (Term("margin"),)


def info_nce(temperature: float | Array = 0.07) -> PairLoss:
    """Each query's own positive against a queue of negatives, or, without one, against the other rows' positives.

    loss_i = -log( exp(a_ip) / (exp(a_ip) + Σ_n exp(a_in)) )

    Args:
        temperature: divides the similarities; a positive number, or a 0-d array, which then receives a gradient.

    Raises:
        OptionError: a temperature that is no positive number.

    Example:
        >>> import sincere_spec as ss
        >>> ss.losses.info_nce(temperature=0.07).arrangement.signature
        'queries, positives, negatives=None'
    """
    return PairLoss(
        "info_nce", arrangement=Queries(), stages=STAGES, terms=TERMS, logit=Similarity(), temperature=temperature
    )


def clip(temperature: float | Array = 0.07) -> PairLoss:
    """InfoNCE from each tower to the other; the mean over the 2n rows is the published half of two means.

    loss_i = -log( exp(a_ii) / Σ_j exp(a_ij) ), and the same for the columns

    Args:
        temperature: divides the similarities; a positive number, or a 0-d array, which then receives a gradient.

    Raises:
        OptionError: a temperature that is no positive number.

    Example:
        >>> import sincere_spec as ss
        >>> ss.losses.clip(temperature=0.07).arrangement
        Towers(both_ways=True)
    """
    return PairLoss(
        "clip",
        arrangement=Towers(both_ways=True),
        stages=STAGES,
        terms=TERMS,
        logit=Similarity(),
        temperature=temperature,
    )
