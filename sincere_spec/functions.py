"""The functions that users call: one for each loss, over the arrays of any framework."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from sincere_spec import losses
from sincere_spec.arrays import Array, ArrayT, Engine, Labels, Reduction, Where
from sincere_spec.call.evaluate import evaluate
from sincere_spec.call.ranks import refuse_on_all
from sincere_spec.docstrings import documented
from sincere_spec.errors import SincereSpecError
from sincere_spec.losses.dystress import ScheduleName
from sincere_spec.losses.f_micl import Divergence
from sincere_spec.losses.supcon import Summation
from sincere_spec.relations import Ignore
from sincere_spec.spec.words import PairLoss

__all__ = [
    "clip_loss",
    "decoupled_loss",
    "dystress_info_nce_loss",
    "dystress_loss",
    "f_micl_loss",
    "hcl_loss",
    "info_nce_loss",
    "infoloob_loss",
    "nt_xent_loss",
    "siglip_loss",
    "sincere_loss",
    "supcon_loss",
]


def _value(
    record: Callable[..., PairLoss], own: tuple[Any, ...], arguments: tuple[Any, ...], across: Any, **options: Any
) -> Any:
    """The call that all functions end in: a record made of its own arguments; labels stand after the embeddings."""
    try:
        loss = record(*own)
    except SincereSpecError as error:
        refuse_on_all(across, error)
    return evaluate(loss, *arguments, across=across, **options)


@documented
def sincere_loss(
    embeddings: ArrayT,
    labels: Labels,
    temperature: float | Array = 0.1,
    *,
    epsilon: float = 0.0,
    keys: ArrayT | None = None,
    key_labels: Labels | None = None,
    ids: Labels | None = None,
    key_ids: Labels | None = None,
    where: Where | None = None,
    ignore: Ignore | None = None,
    normalize: bool = True,
    reduction: Reduction = "mean",
    engine: Engine = "auto",
    tile: int | None = None,
    across: Any = None,
) -> ArrayT:
    """Pull rows of one class together against all other classes, without positives repelling each other.

    SINCERE (Feeney and Hughes, arXiv 2309.14277), with the logits a = similarity / temperature:

        loss_i = mean_p -log( exp(a_ip) / (exp(a_ip - epsilon) + Σ_n exp(a_in)) )

    over the positives p of anchor i, n its negatives. Rows without a positive do not count; without negatives the
    loss is -epsilon.

    Example:
        >>> import numpy as np, sincere_spec as ss
        >>> z = np.asarray([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]])
        >>> float(round(ss.sincere_loss(z, [0, 0, 1, 1], temperature=0.5), 4))
        0.4302
    """
    pairs = {"where": where, "ignore": ignore}
    options = {**pairs, "normalize": normalize, "reduction": reduction, "engine": engine, "tile": tile}
    sides = {"keys": keys, "key_labels": key_labels, "ids": ids, "key_ids": key_ids}
    own = (temperature, epsilon)
    return cast(ArrayT, _value(losses.sincere, own, (embeddings, labels), across, **options, **sides))


@documented
def supcon_loss(
    embeddings: ArrayT,
    labels: Labels,
    temperature: float | Array = 0.1,
    *,
    summation: Summation = "out",
    keys: ArrayT | None = None,
    key_labels: Labels | None = None,
    ids: Labels | None = None,
    key_ids: Labels | None = None,
    where: Where | None = None,
    ignore: Ignore | None = None,
    normalize: bool = True,
    reduction: Reduction = "mean",
    engine: Engine = "auto",
    tile: int | None = None,
    across: Any = None,
) -> ArrayT:
    """Pull rows of one class together against all other rows, other positives included.

    SupCon (Khosla et al., arXiv 2004.11362 v5, equations 2 and 3), with q_ip = exp(a_ip) / Σ_{j != i} exp(a_ij):

        out:  loss_i = mean_p -log q_ip          in:  loss_i = -log mean_p q_ip

    Rows without a positive do not count. The published scale temperature / base_temperature is 1.

    Example:
        >>> import numpy as np, sincere_spec as ss
        >>> z = np.asarray([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]])
        >>> float(round(ss.supcon_loss(z, [0, 0, 1, 1], temperature=0.5), 4))
        0.4302
    """
    pairs = {"where": where, "ignore": ignore}
    options = {**pairs, "normalize": normalize, "reduction": reduction, "engine": engine, "tile": tile}
    sides = {"keys": keys, "key_labels": key_labels, "ids": ids, "key_ids": key_ids}
    own = (temperature, summation)
    return cast(ArrayT, _value(losses.supcon, own, (embeddings, labels), across, **options, **sides))


@documented
def decoupled_loss(
    embeddings: ArrayT,
    labels: Labels,
    temperature: float | Array = 0.1,
    *,
    keys: ArrayT | None = None,
    key_labels: Labels | None = None,
    ids: Labels | None = None,
    key_ids: Labels | None = None,
    where: Where | None = None,
    ignore: Ignore | None = None,
    normalize: bool = True,
    reduction: Reduction = "mean",
    engine: Engine = "auto",
    tile: int | None = None,
    across: Any = None,
) -> ArrayT:
    """Attract positives and repel negatives independently: only negatives are in the denominator.

    Decoupled contrastive learning (Yeh et al., arXiv 2110.06848) with the positives of a class:

        loss_i = log Σ_n exp(a_in) - mean_p a_ip

    The loss can be negative. Rows without a positive, or without a negative, do not count.

    Example:
        >>> import numpy as np, sincere_spec as ss
        >>> z = np.asarray([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]])
        >>> float(round(ss.decoupled_loss(z, [0, 0, 1, 1], temperature=0.5), 4))
        -0.7367
    """
    pairs = {"where": where, "ignore": ignore}
    options = {**pairs, "normalize": normalize, "reduction": reduction, "engine": engine, "tile": tile}
    sides = {"keys": keys, "key_labels": key_labels, "ids": ids, "key_ids": key_ids}
    own = (temperature,)
    return cast(ArrayT, _value(losses.decoupled, own, (embeddings, labels), across, **options, **sides))


@documented
def info_nce_loss(
    queries: ArrayT,
    positives: ArrayT,
    negatives: ArrayT | None = None,
    *,
    temperature: float | Array = 0.07,
    where: Where | None = None,
    ignore: Ignore | None = None,
    normalize: bool = True,
    reduction: Reduction = "mean",
    engine: Engine = "auto",
    tile: int | None = None,
    across: Any = None,
) -> ArrayT:
    """Tell each query's own positive from a queue of negatives, or from the other rows' positives.

    InfoNCE (van den Oord et al., arXiv 1807.03748); with `negatives` MoCo (He et al., 1911.05722):

        loss_i = -log( exp(a_ip) / (exp(a_ip) + Σ_n exp(a_in)) )

    Gradients flow into every array, the queue included: detach it if it must not learn.

    Args:
        positives: `[n, d]`, floats: row i is the positive of row i of the queries.

    Example:
        >>> import numpy as np, sincere_spec as ss
        >>> a = np.asarray([[1.0, 0.0], [0.0, 1.0]])
        >>> b = np.asarray([[0.8, 0.6], [-0.6, 0.8]])
        >>> float(round(ss.info_nce_loss(a, b, temperature=0.5), 4))
        0.286
    """
    pairs = {"where": where, "ignore": ignore}
    options = {**pairs, "normalize": normalize, "reduction": reduction, "engine": engine, "tile": tile}
    return cast(ArrayT, _value(losses.info_nce, (temperature,), (queries, positives, negatives), across, **options))


@documented
def nt_xent_loss(
    *views: ArrayT,
    temperature: float | Array = 0.1,
    where: Where | None = None,
    ignore: Ignore | None = None,
    normalize: bool = True,
    reduction: Reduction = "mean",
    engine: Engine = "auto",
    tile: int | None = None,
    across: Any = None,
) -> ArrayT:
    """Find a sample's other views among all rows of all views.

    NT-Xent (SimCLR, Chen et al., arXiv 2002.05709, equation 1); with three views and more, SupCon's outer form over
    views:

        loss_i = mean_p -log( exp(a_ip) / Σ_{j != i} exp(a_ij) )

    Example:
        >>> import numpy as np, sincere_spec as ss
        >>> a = np.asarray([[1.0, 0.0], [0.0, 1.0]])
        >>> b = np.asarray([[0.8, 0.6], [-0.6, 0.8]])
        >>> float(round(ss.nt_xent_loss(a, b, temperature=0.5), 4))
        0.4302
    """
    pairs = {"where": where, "ignore": ignore}
    options = {**pairs, "normalize": normalize, "reduction": reduction, "engine": engine, "tile": tile}
    return cast(ArrayT, _value(losses.nt_xent, (temperature,), views, across, **options))


@documented
def hcl_loss(
    *views: ArrayT,
    temperature: float | Array = 0.5,
    beta: float = 1.0,
    where: Where | None = None,
    ignore: Ignore | None = None,
    normalize: bool = True,
    reduction: Reduction = "mean",
    engine: Engine = "auto",
    tile: int | None = None,
    across: Any = None,
) -> ArrayT:
    """Find a sample's other view among all rows of both views, where hard negatives weigh more.

    HCL (Robinson et al., arXiv 2010.04592, with tau+ = 0): NT-Xent whose negatives are reweighted by exp(beta a), weights
    whose mean over a row's m negatives is 1:

        loss_i = log(1 + N_i / exp(a_ip))          N_i = m Σ_n exp((1 + beta) a_in) / Σ_n exp(beta a_in)

    With `beta=0.0` it is NT-Xent. Of three views or more a_ip is the mean over a row's other views.

    Example:
        >>> import numpy as np, sincere_spec as ss
        >>> a = np.asarray([[1.0, 0.0], [0.0, 1.0]])
        >>> b = np.asarray([[0.8, 0.6], [-0.6, 0.8]])
        >>> float(round(ss.hcl_loss(a, b, temperature=0.5), 4))
        0.5224
    """
    pairs = {"where": where, "ignore": ignore}
    options = {**pairs, "normalize": normalize, "reduction": reduction, "engine": engine, "tile": tile}
    return cast(ArrayT, _value(losses.hcl, (temperature, beta), views, across, **options))


@documented
def dystress_loss(
    *views: ArrayT,
    temperature_min: float = 0.1,
    temperature_max: float = 0.2,
    detach: bool = True,
    schedule: ScheduleName = "cosine",
    offset: float = -0.4,
    scale: float = 0.7,
    where: Where | None = None,
    ignore: Ignore | None = None,
    normalize: bool = True,
    reduction: Reduction = "mean",
    engine: Engine = "auto",
    tile: int | None = None,
    across: Any = None,
) -> ArrayT:
    """NT-Xent with a temperature that depends on each pair's similarity.

    DySTreSS (Manna et al., arXiv 2308.01140), with the logits a = s / τ(s), positives and negatives alike:

        cosine:   τ(s) = min + (max - min) (1 + cos(π(1 + s))) / 2
        shifted:  τ(s) = min + (max - min) (1 + cos(π(s + offset) / scale)) / 2   for s <= -offset, else max

    Above max / min = 4.504 the cosine's logit is no longer increasing in s.

    Example:
        >>> import numpy as np, sincere_spec as ss
        >>> a = np.asarray([[1.0, 0.0], [0.0, 1.0]])
        >>> b = np.asarray([[0.8, 0.6], [-0.6, 0.8]])
        >>> float(round(ss.dystress_loss(a, b), 4))
        0.2358
    """
    pairs = {"where": where, "ignore": ignore}
    options = {**pairs, "normalize": normalize, "reduction": reduction, "engine": engine, "tile": tile}
    own = (temperature_min, temperature_max, detach, schedule, offset, scale)
    return cast(ArrayT, _value(losses.dystress, own, views, across, **options))


@documented
def dystress_info_nce_loss(
    queries: ArrayT,
    positives: ArrayT,
    negatives: ArrayT | None = None,
    *,
    temperature_min: float = 0.1,
    temperature_max: float = 0.2,
    detach: bool = True,
    schedule: ScheduleName = "cosine",
    offset: float = -0.4,
    scale: float = 0.7,
    where: Where | None = None,
    ignore: Ignore | None = None,
    normalize: bool = True,
    reduction: Reduction = "mean",
    engine: Engine = "auto",
    tile: int | None = None,
    across: Any = None,
) -> ArrayT:
    """Tell each query's positive from a queue or the other positives, at a temperature that depends on the similarity.

    DySTreSS (Manna et al., arXiv 2308.01140) as its authors' MoCo and SimCSE code has it: InfoNCE with the logits
    a = s / τ(s), positives and negatives alike, and τ that of `dystress_loss`:

        loss_i = -log( exp(a_ip) / (exp(a_ip) + Σ_n exp(a_in)) )

    Gradients flow into every array, the queue included: detach it if it must not learn.

    Args:
        positives: `[n, d]`, floats: row i is the positive of row i of the queries.

    Example:
        >>> import numpy as np, sincere_spec as ss
        >>> a = np.asarray([[1.0, 0.0], [0.0, 1.0]])
        >>> b = np.asarray([[0.8, 0.6], [-0.6, 0.8]])
        >>> float(round(ss.dystress_info_nce_loss(a, b), 4))
        0.2236
    """
    pairs = {"where": where, "ignore": ignore}
    options = {**pairs, "normalize": normalize, "reduction": reduction, "engine": engine, "tile": tile}
    own = (temperature_min, temperature_max, detach, schedule, offset, scale)
    return cast(ArrayT, _value(losses.dystress_info_nce, own, (queries, positives, negatives), across, **options))


@documented
def clip_loss(
    a: ArrayT,
    b: ArrayT,
    *,
    temperature: float | Array = 0.07,
    where: Where | None = None,
    ignore: Ignore | None = None,
    normalize: bool = True,
    reduction: Reduction = "mean",
    engine: Engine = "auto",
    tile: int | None = None,
    across: Any = None,
) -> ArrayT:
    """Match two towers row by row, in both directions.

    CLIP (Radford et al., arXiv 2103.00020): InfoNCE from a to b and from b to a. The mean over the 2n rows is the
    published half of two means:

        loss_i = -log( exp(a_ii) / Σ_j exp(a_ij) )          and the same for the columns

    Example:
        >>> import numpy as np, sincere_spec as ss
        >>> a = np.asarray([[1.0, 0.0], [0.0, 1.0]])
        >>> b = np.asarray([[0.8, 0.6], [-0.6, 0.8]])
        >>> float(round(ss.clip_loss(a, b, temperature=0.5), 4))
        0.286
    """
    pairs = {"where": where, "ignore": ignore}
    options = {**pairs, "normalize": normalize, "reduction": reduction, "engine": engine, "tile": tile}
    return cast(ArrayT, _value(losses.clip, (temperature,), (a, b), across, **options))


@documented
def infoloob_loss(
    a: ArrayT,
    b: ArrayT,
    *,
    temperature: float | Array = 0.07,
    where: Where | None = None,
    ignore: Ignore | None = None,
    normalize: bool = True,
    reduction: Reduction = "mean",
    engine: Engine = "auto",
    tile: int | None = None,
    across: Any = None,
) -> ArrayT:
    """Match two towers row by row, in both directions, with the positive left out of the denominator.

    InfoLOOB (CLOOB, Fürst et al., arXiv 2110.11316), without the Hopfield retrieval: the gradient does not vanish as
    pairs agree. The mean over the 2n rows is half of the published sum of two means:

        loss_i = log Σ_{j != i} exp(a_ij) - a_ii          and the same for the columns

    The loss can be negative. A single pair has no negatives, and does not count.

    Example:
        >>> import numpy as np, sincere_spec as ss
        >>> a = np.asarray([[1.0, 0.0], [0.0, 1.0]])
        >>> b = np.asarray([[0.8, 0.6], [-0.6, 0.8]])
        >>> float(round(ss.infoloob_loss(a, b, temperature=0.5), 4))
        -1.6
    """
    pairs = {"where": where, "ignore": ignore}
    options = {**pairs, "normalize": normalize, "reduction": reduction, "engine": engine, "tile": tile}
    return cast(ArrayT, _value(losses.infoloob, (temperature,), (a, b), across, **options))


@documented
def siglip_loss(
    a: ArrayT,
    b: ArrayT,
    *,
    temperature: float | Array = 0.1,
    bias: float | Array = -10.0,
    where: Where | None = None,
    ignore: Ignore | None = None,
    normalize: bool = True,
    reduction: Reduction = "mean",
    engine: Engine = "auto",
    tile: int | None = None,
    across: Any = None,
) -> ArrayT:
    """Match two towers by a yes or no for every pair.

    SigLIP (Zhai et al., arXiv 2303.15343); the mean divides by n, not by n²:

        loss_i = softplus(-a_ii) + Σ_{j != i} softplus(a_ij)          a_ij = s_ij / temperature + bias

    Example:
        >>> import numpy as np, sincere_spec as ss
        >>> a = np.asarray([[1.0, 0.0], [0.0, 1.0]])
        >>> b = np.asarray([[0.8, 0.6], [-0.6, 0.8]])
        >>> float(round(ss.siglip_loss(a, b), 4))
        2.136
    """
    pairs = {"where": where, "ignore": ignore}
    options = {**pairs, "normalize": normalize, "reduction": reduction, "engine": engine, "tile": tile}
    return cast(ArrayT, _value(losses.siglip, (temperature, bias), (a, b), across, **options))


@documented
def f_micl_loss(
    view_a: ArrayT,
    view_b: ArrayT,
    negatives: ArrayT | None = None,
    *,
    divergence: Divergence = "kl",
    alpha: float = 40.0,
    inverse_bandwidth: float = 1.0,
    order: float = 2.0,
    where: Where | None = None,
    ignore: Ignore | None = None,
    normalize: bool = True,
    reduction: Reduction = "mean",
    engine: Engine = "auto",
    tile: int | None = None,
    across: Any = None,
) -> ArrayT:
    """Maximise the f-mutual information that two views of a sample share.

    f-MICL (Lu et al., arXiv 2402.10150), negated, with the kernel G(x, y) = exp(-inverse_bandwidth ‖x - y‖²),
    f of the divergence and f* its conjugate:

        loss_i = -f′(G(a_i, b_i)) + alpha mean_{j != i} f*(f′(G(a_i, a_j)))

    With `negatives`, a queue, as the paper has it on MoCo, the mean is over the pairs of a_i and the queue. The distance
    is taken as 2 - 2 s of unit rows. The paper finds "reverse_kl" and "neyman" unsuitable, since
    features collapse, and does not classify "jeffreys".

    Args:
        negatives: `[k, d]`, a queue that every row of `view_a` is compared with; None takes its other rows.

    Example:
        >>> import numpy as np, sincere_spec as ss
        >>> a = np.asarray([[1.0, 0.0], [0.0, 1.0]])
        >>> b = np.asarray([[0.8, 0.6], [-0.6, 0.8]])
        >>> float(round(ss.f_micl_loss(a, b), 4))
        4.8134
    """
    pairs = {"where": where, "ignore": ignore}
    options = {**pairs, "normalize": normalize, "reduction": reduction, "engine": engine, "tile": tile}
    own = (divergence, alpha, inverse_bandwidth, order)
    return cast(ArrayT, _value(losses.f_micl, own, (view_a, view_b, negatives), across, **options))
