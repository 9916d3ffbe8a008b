"""HCL, contrastive learning with hard negatives: Robinson, Chuang, Sra and Jegelka, arXiv 2010.04592."""

from __future__ import annotations

from sincere_spec.arrays import Array
from sincere_spec.errors import OptionError
from sincere_spec.spec.arrangements import Views
from sincere_spec.spec.checks import NUMBER
from sincere_spec.spec.words import Combine, Fold, PairLoss, Pairs, Similarity, Stage, Term


def hcl(temperature: float | Array = 0.5, beta: float = 1.0) -> PairLoss:
    """NT-Xent whose negatives weigh the more, the more similar they are: the weights are exp(beta a), and their mean is 1.

        loss_i = log(1 + N_i / exp(a_ip))          N_i = m Σ_n exp((1 + beta) a_in) / Σ_n exp(beta a_in)

    m is the number of negatives. With `beta=0.0` it is NT-Xent; the paper's correction for false negatives is not in it
    (tau+ = 0). A row without negatives has loss 0. Of three views or more a_ip is the mean over a row's other views.

    Args:
        temperature: divides the similarities; a positive number, or a 0-d array, which then receives a gradient.
        beta: how much hard negatives weigh, a number that is not negative.

    Raises:
        OptionError: a temperature that is no positive number, or a beta that is negative or no finite number.

    Example:
        >>> import sincere_spec as ss
        >>> ss.losses.hcl(temperature=0.5, beta=1.0)
        <hcl: temperature=0.5, logit=Similarity(); up = logsumexp(2 a) over negative;
        down = logmeanexp(a) over negative; attract = mean a over positive; hcl = softplus(up - down - attract); loss = hcl>
    """
    beta = NUMBER(beta, "beta")
    if beta < 0.0:
        raise OptionError(f"beta must not be negative; got {beta!r}: it would make easy negatives weigh more.")
    stages = (
        Stage("up", Fold.LOGSUMEXP, Pairs.NEGATIVE, scale=1.0 + beta),
        Stage("down", Fold.LOGSUMEXP, Pairs.NEGATIVE, scale=beta, mean=True),
        Stage("attract", Fold.LINEAR, Pairs.POSITIVE, mean=True),
    )
    combined = (Combine("hcl", Fold.SOFTPLUS, (Term("up"), Term("down", -1.0), Term("attract", -1.0))),)
    return PairLoss("hcl", Views(), stages, (Term("hcl"),), Similarity(), temperature, combined=combined)
