"""SupCon: Khosla et al., arXiv 2004.11362 v5, equations 2 and 3.

With the views of a sample as its class it is NT-Xent (Chen et al., 2002.05709).
"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

from sincere_spec.arrays import Array
from sincere_spec.spec.arrangements import Labelled, Views
from sincere_spec.spec.checks import choice
from sincere_spec.spec.words import Fold, PairLoss, Pairs, Rows, Similarity, Stage, Term

Summation: TypeAlias = Literal["out", "in"]

# With one positive, others - a_p loses every digit of a small loss; softplus(noise - a_p) is the same number and keeps
# them. With several the loss is at least log |P|, and the difference is as good as the logits are.
OUT_STAGES = (
    Stage("noise", Fold.LOGSUMEXP, over=Pairs.NEGATIVE),
    Stage("margin", Fold.SOFTPLUS, over=Pairs.POSITIVE, scale=-1.0, minus="noise", mean=True),
    Stage("others", Fold.LOGSUMEXP, over=Pairs.OTHERS),
    Stage("attract", Fold.LINEAR, over=Pairs.POSITIVE, mean=True),
)
OUT_TERMS = (
    Term("margin", rows=Rows.ONE_POSITIVE),
    Term("others", rows=Rows.SEVERAL_POSITIVES),
    Term("attract", -1.0, rows=Rows.SEVERAL_POSITIVES),
)
IN_STAGES = (*OUT_STAGES[:3], Stage("attract", Fold.LOGSUMEXP, over=Pairs.POSITIVE, mean=True))


def supcon(temperature: float | Array = 0.1, summation: Summation = "out") -> PairLoss:
    """All positives against all others, with the sum over positives outside or inside the logarithm.

        out:  loss_i = mean_p -log q_ip          in:  loss_i = -log mean_p q_ip          q_ip = exp(a_ip) / Σ_{j !=
            i} exp(a_ij)

    The published scale (temperature / base temperature) is 1 here; a row without positives does not count.

    Args:
        temperature: divides the similarities; a positive number, or a 0-d array, which then receives a gradient.
        summation: "out" or "in": where the sum over positives stands.

    Raises:
        OptionError: a temperature that is no positive number, or another summation.

    Example:
        >>> import sincere_spec as ss
        >>> ss.losses.supcon(summation="in") == ss.losses.supcon(summation="out")
        False
    """
    choice(summation, "summation", get_args(Summation))
    return PairLoss(
        name=f"supcon_{summation}",
        arrangement=Labelled(),
        stages=OUT_STAGES if summation == "out" else IN_STAGES,
        terms=OUT_TERMS,
        logit=Similarity(),
        temperature=temperature,
    )


def nt_xent(temperature: float | Array = 0.1) -> PairLoss:
    """Each row of every view against all other rows; its positives are the other views of the same sample.

        loss_i = mean_p -log( exp(a_ip) / Σ_{j != i} exp(a_ij) )

    With two views this is the paper's loss, half of what SimCLR's TensorFlow code returns.

    Args:
        temperature: divides the similarities; a positive number, or a 0-d array, which then receives a gradient.

    Raises:
        OptionError: a temperature that is no positive number.

    Example:
        >>> import sincere_spec as ss
        >>> ss.losses.nt_xent(temperature=0.1).arrangement
        Views()
    """
    return PairLoss(
        "nt_xent", arrangement=Views(), stages=OUT_STAGES, terms=OUT_TERMS, logit=Similarity(), temperature=temperature
    )
