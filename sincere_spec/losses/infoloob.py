"""InfoLOOB, the leave-one-out bound of CLOOB (Fürst et al., arXiv 2110.11316), without the Hopfield retrieval."""

from __future__ import annotations

from sincere_spec.arrays import Array
from sincere_spec.spec.arrangements import Towers
from sincere_spec.spec.words import Fold, PairLoss, Pairs, Similarity, Stage, Term

STAGES = (Stage("noise", Fold.LOGSUMEXP, over=Pairs.NEGATIVE), Stage("attract", Fold.LINEAR, over=Pairs.POSITIVE))
TERMS = (Term("noise"), Term("attract", -1.0))


def infoloob(temperature: float | Array = 0.07) -> PairLoss:
    """CLIP whose denominator leaves the positive out, so that the gradient does not vanish as pairs agree.

        loss_i = log Σ_{j != i} exp(a_ij) - a_ii, and the same for the columns

    It can be negative. A row without negatives does not count.

    Args:
        temperature: divides the similarities; a positive number, or a 0-d array, which then receives a gradient.

    Raises:
        OptionError: a temperature that is no positive number.

    Example:
        >>> import sincere_spec as ss
        >>> ss.losses.infoloob(temperature=0.07)
        <infoloob: temperature=0.07, logit=Similarity(); noise = logsumexp(a) over negative;
        attract = sum a over positive; loss = noise - attract>
    """
    return PairLoss(
        "infoloob",
        arrangement=Towers(both_ways=True),
        stages=STAGES,
        terms=TERMS,
        logit=Similarity(),
        temperature=temperature,
    )
