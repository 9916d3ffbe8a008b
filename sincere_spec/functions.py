"""The functions that users call: one for each loss, over the arrays of any framework."""

from __future__ import annotations

from sincere_spec import losses
from sincere_spec.arrays import Array, ArrayT, Labels
from sincere_spec.call.evaluate import evaluate


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
    normalize: bool = True,
    reduction: str = "mean",
    engine: str = "auto",
    tile: int | None = None,
) -> ArrayT:
    """Pull rows of one class together against all other classes, without positives repelling each other.

    SINCERE (Feeney and Hughes, arXiv 2309.14277), with the logits a = similarity / temperature:

        loss_i = mean_p -log( exp(a_ip) / (exp(a_ip - epsilon) + Σ_n exp(a_in)) )

    over the positives p of anchor i, n its negatives. Rows without a positive do not count; without negatives the
    loss is -epsilon.

    Args:
        embeddings: `[n, d]`, or `[n, views, d]`, whose rows are taken sample by sample and share the sample's label.
        labels: n of them: integers of any width, strings, integer-valued floats, or one-hot rows `[n, C]`.
        temperature: divides the similarities; a positive number, or a 0-d array, which then receives a gradient.
        epsilon: the margin of epsilon-SupInfoNCE (arXiv 2211.05568), in units of logits; 0 is SINCERE.
        keys, key_labels: `[m, d]` and its m labels: compare the anchors with these instead of with each other.
        ids, key_ids: a sample's identity for each anchor and key (any labels will do); pairs of equal ids are never
            compared.
        normalize: divide each row by its norm first; a zero row stays zero, and no other depends on its scale.
        reduction: "mean" over the rows that count, "pairs" weighs rows by their positives, "batch" divides the sum
            by all rows, "sum", or "none" for the vector of row losses.
        engine: "auto", or one of "dense", "tiled", "kernel", which then never slope_sums back.
        tile: rows in a tile, for a kernel a power of two from 16 on; None chooses.

    Returns:
        A scalar array of the same framework, float32 for half-precision embeddings; a vector for `reduction="none"`.

    Raises:
        SincereSpecError: one of its kinds, before any arithmetic, for arguments that do not fit; see
            `sincere_spec.errors`.

    Example:
        >>> import numpy as np, sincere_spec as ss
        >>> z = np.asarray([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]])
        >>> float(round(ss.sincere_loss(z, [0, 0, 1, 1], temperature=0.5), 4))
        0.4302
    """
    value: ArrayT = evaluate(
        losses.sincere(temperature, epsilon),
        embeddings,
        labels,
        keys=keys,
        key_labels=key_labels,
        ids=ids,
        key_ids=key_ids,
        normalize=normalize,
        reduction=reduction,
        engine=engine,
        tile=tile,
    )
    return value


def supcon_loss(
    embeddings: ArrayT,
    labels: Labels,
    temperature: float | Array = 0.1,
    *,
    summation: str = "out",
    keys: ArrayT | None = None,
    key_labels: Labels | None = None,
    ids: Labels | None = None,
    key_ids: Labels | None = None,
    normalize: bool = True,
    reduction: str = "mean",
    engine: str = "auto",
    tile: int | None = None,
) -> ArrayT:
    """Pull rows of one class together against all other rows, other positives included.

    SupCon (Khosla et al., arXiv 2004.11362 v5, equations 2 and 3), with q_ip = exp(a_ip) / Σ_{j != i} exp(a_ij):

        out:  loss_i = mean_p -log q_ip          in:  loss_i = -log mean_p q_ip

    Rows without a positive do not count. The published scale temperature / base_temperature is 1.

    Args:
        embeddings: `[n, d]`, or `[n, views, d]`, whose rows are taken sample by sample and share the sample's label.
        labels: n of them: integers of any width, strings, integer-valued floats, or one-hot rows `[n, C]`.
        temperature: divides the similarities; a positive number, or a 0-d array, which then receives a gradient.
        summation: "out" or "in": where the sum over positives stands.
        keys, key_labels: `[m, d]` and its m labels: compare the anchors with these instead of with each other.
        ids, key_ids: a sample's identity for each anchor and key (any labels will do); pairs of equal ids are never
            compared.
        normalize: divide each row by its norm first; a zero row stays zero, and no other depends on its scale.
        reduction: "mean" over the rows that count, "pairs" weighs rows by their positives, "batch" divides the sum
            by all rows, "sum", or "none" for the vector of row losses.
        engine: "auto", or one of "dense", "tiled", "kernel", which then never slope_sums back.
        tile: rows in a tile, for a kernel a power of two from 16 on; None chooses.

    Returns:
        A scalar array of the same framework, float32 for half-precision embeddings; a vector for `reduction="none"`.

    Raises:
        SincereSpecError: one of its kinds, before any arithmetic, for arguments that do not fit; see
            `sincere_spec.errors`.

    Example:
        >>> import numpy as np, sincere_spec as ss
        >>> z = np.asarray([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]])
        >>> float(round(ss.supcon_loss(z, [0, 0, 1, 1], temperature=0.5), 4))
        0.4302
    """
    value: ArrayT = evaluate(
        losses.supcon(temperature, summation),
        embeddings,
        labels,
        keys=keys,
        key_labels=key_labels,
        ids=ids,
        key_ids=key_ids,
        normalize=normalize,
        reduction=reduction,
        engine=engine,
        tile=tile,
    )
    return value


def decoupled_loss(
    embeddings: ArrayT,
    labels: Labels,
    temperature: float | Array = 0.1,
    *,
    keys: ArrayT | None = None,
    key_labels: Labels | None = None,
    ids: Labels | None = None,
    key_ids: Labels | None = None,
    normalize: bool = True,
    reduction: str = "mean",
    engine: str = "auto",
    tile: int | None = None,
) -> ArrayT:
    """Attract positives and repel negatives independently: only negatives are in the denominator.

    Decoupled contrastive learning (Yeh et al., arXiv 2110.06848) with the positives of a class:

        loss_i = log Σ_n exp(a_in) - mean_p a_ip

    The loss can be negative. Rows without a positive, or without a negative, do not count.

    Args:
        embeddings: `[n, d]`, or `[n, views, d]`, whose rows are taken sample by sample and share the sample's label.
        labels: n of them: integers of any width, strings, integer-valued floats, or one-hot rows `[n, C]`.
        temperature: divides the similarities; a positive number, or a 0-d array, which then receives a gradient.
        keys, key_labels: `[m, d]` and its m labels: compare the anchors with these instead of with each other.
        ids, key_ids: a sample's identity for each anchor and key (any labels will do); pairs of equal ids are never
            compared.
        normalize: divide each row by its norm first; a zero row stays zero, and no other depends on its scale.
        reduction: "mean" over the rows that count, "pairs" weighs rows by their positives, "batch" divides the sum
            by all rows, "sum", or "none" for the vector of row losses.
        engine: "auto", or one of "dense", "tiled", "kernel", which then never slope_sums back.
        tile: rows in a tile, for a kernel a power of two from 16 on; None chooses.

    Returns:
        A scalar array of the same framework, float32 for half-precision embeddings; a vector for `reduction="none"`.

    Raises:
        SincereSpecError: one of its kinds, before any arithmetic, for arguments that do not fit; see
            `sincere_spec.errors`.

    Example:
        >>> import numpy as np, sincere_spec as ss
        >>> z = np.asarray([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]])
        >>> float(round(ss.decoupled_loss(z, [0, 0, 1, 1], temperature=0.5), 4))
        -0.7367
    """
    value: ArrayT = evaluate(
        losses.decoupled(temperature),
        embeddings,
        labels,
        keys=keys,
        key_labels=key_labels,
        ids=ids,
        key_ids=key_ids,
        normalize=normalize,
        reduction=reduction,
        engine=engine,
        tile=tile,
    )
    return value


def info_nce_loss(
    queries: ArrayT,
    positives: ArrayT,
    negatives: ArrayT | None = None,
    *,
    temperature: float | Array = 0.07,
    normalize: bool = True,
    reduction: str = "mean",
    engine: str = "auto",
    tile: int | None = None,
) -> ArrayT:
    """Tell each query's own positive from a queue of negatives, or from the other rows' positives.

    InfoNCE (van den Oord et al., arXiv 1807.03748); with `negatives` MoCo (He et al., 1911.05722):

        loss_i = -log( exp(a_ip) / (exp(a_ip) + Σ_n exp(a_in)) )

    Gradients flow into every array, the queue included: detach it if it must not learn.

    Args:
        queries, positives: `[n, d]` each; row i of one belongs to row i of the other.
        negatives: `[k, d]`, a queue that every query is compared with; None takes the other rows of `positives`.
        temperature: divides the similarities; a positive number, or a 0-d array, which then receives a gradient.
        normalize: divide each row by its norm first; a zero row stays zero, and no other depends on its scale.
        reduction: "mean" over the rows that count, "pairs" weighs rows by their positives, "batch" divides the sum
            by all rows, "sum", or "none" for the vector of row losses.
        engine: "auto", or one of "dense", "tiled", "kernel", which then never slope_sums back.
        tile: rows in a tile, for a kernel a power of two from 16 on; None chooses.

    Returns:
        A scalar array of the same framework, float32 for half-precision embeddings; a vector for `reduction="none"`.

    Raises:
        SincereSpecError: one of its kinds, before any arithmetic, for arguments that do not fit; see
            `sincere_spec.errors`.

    Example:
        >>> import numpy as np, sincere_spec as ss
        >>> a = np.asarray([[1.0, 0.0], [0.0, 1.0]])
        >>> b = np.asarray([[0.8, 0.6], [-0.6, 0.8]])
        >>> float(round(ss.info_nce_loss(a, b, temperature=0.5), 4))
        0.286
    """
    value: ArrayT = evaluate(
        losses.info_nce(temperature),
        queries,
        positives,
        negatives,
        normalize=normalize,
        reduction=reduction,
        engine=engine,
        tile=tile,
    )
    return value


def nt_xent_loss(
    *views: ArrayT,
    temperature: float | Array = 0.1,
    normalize: bool = True,
    reduction: str = "mean",
    engine: str = "auto",
    tile: int | None = None,
) -> ArrayT:
    """Find a sample's other views among all rows of all views.

    NT-Xent (SimCLR, Chen et al., arXiv 2002.05709, equation 1); with three views and more, SupCon's outer form over
    views:

        loss_i = mean_p -log( exp(a_ip) / Σ_{j != i} exp(a_ij) )

    Args:
        *views: two or more arrays `[n, d]`; row i of each is the same sample.
        temperature: divides the similarities; a positive number, or a 0-d array, which then receives a gradient.
        normalize: divide each row by its norm first; a zero row stays zero, and no other depends on its scale.
        reduction: "mean" over the rows that count, "pairs" weighs rows by their positives, "batch" divides the sum
            by all rows, "sum", or "none" for the vector of row losses, all rows of the first view,
            then of the next.
        engine: "auto", or one of "dense", "tiled", "kernel", which then never slope_sums back.
        tile: rows in a tile, for a kernel a power of two from 16 on; None chooses.

    Returns:
        A scalar array of the same framework, float32 for half-precision embeddings; a vector for `reduction="none"`.

    Raises:
        SincereSpecError: one of its kinds, before any arithmetic, for arguments that do not fit; see
            `sincere_spec.errors`.

    Example:
        >>> import numpy as np, sincere_spec as ss
        >>> a = np.asarray([[1.0, 0.0], [0.0, 1.0]])
        >>> b = np.asarray([[0.8, 0.6], [-0.6, 0.8]])
        >>> float(round(ss.nt_xent_loss(a, b, temperature=0.5), 4))
        0.4302
    """
    value: ArrayT = evaluate(
        losses.nt_xent(temperature),
        *views,
        normalize=normalize,
        reduction=reduction,
        engine=engine,
        tile=tile,
    )
    return value


def dystress_loss(
    *views: ArrayT,
    temperature_min: float = 0.1,
    temperature_max: float = 0.2,
    detach: bool = True,
    schedule: str = "cosine",
    offset: float = -0.4,
    scale: float = 0.7,
    normalize: bool = True,
    reduction: str = "mean",
    engine: str = "auto",
    tile: int | None = None,
) -> ArrayT:
    """NT-Xent with a temperature that depends on each pair's similarity.

    DySTreSS (Manna et al., arXiv 2308.01140), with the logits a = s / τ(s), positives and negatives alike:

        cosine:   τ(s) = min + (max - min) (1 + cos(π(1 + s))) / 2
        shifted:  τ(s) = min + (max - min) (1 + cos(π(s + offset) / scale)) / 2   for s <= -offset, else max

    Above max / min = 4.504 the cosine's logit is no longer increasing in s.

    Args:
        *views: two or more arrays `[n, d]`; row i of each is the same sample.
        temperature_min, temperature_max: positive numbers, the range of τ.
        detach: hold τ(s) constant in the gradient, as the authors' code does for this loss; False differentiates it.
        schedule: "cosine", or "shifted" with `offset` and `scale`.
        normalize: divide each row by its norm first; a zero row stays zero, and no other depends on its scale.
        reduction: "mean" over the rows that count, "pairs" weighs rows by their positives, "batch" divides the sum
            by all rows, "sum", or "none" for the vector of row losses, all rows of the first view,
            then of the next.
        engine: "auto", or one of "dense", "tiled", "kernel", which then never slope_sums back.
        tile: rows in a tile, for a kernel a power of two from 16 on; None chooses.

    Returns:
        A scalar array of the same framework, float32 for half-precision embeddings; a vector for `reduction="none"`.

    Raises:
        SincereSpecError: one of its kinds, before any arithmetic, for arguments that do not fit; see
            `sincere_spec.errors`.

    Example:
        >>> import numpy as np, sincere_spec as ss
        >>> a = np.asarray([[1.0, 0.0], [0.0, 1.0]])
        >>> b = np.asarray([[0.8, 0.6], [-0.6, 0.8]])
        >>> float(round(ss.dystress_loss(a, b), 4))
        0.2358
    """
    value: ArrayT = evaluate(
        losses.dystress(temperature_min, temperature_max, detach, schedule, offset, scale),
        *views,
        normalize=normalize,
        reduction=reduction,
        engine=engine,
        tile=tile,
    )
    return value


def clip_loss(
    a: ArrayT,
    b: ArrayT,
    *,
    temperature: float | Array = 0.07,
    normalize: bool = True,
    reduction: str = "mean",
    engine: str = "auto",
    tile: int | None = None,
) -> ArrayT:
    """Match two towers row by row, in both directions.

    CLIP (Radford et al., arXiv 2103.00020): InfoNCE from a to b and from b to a. The mean over the 2n rows is the
    published half of two means:

        loss_i = -log( exp(a_ii) / Σ_j exp(a_ij) )          and the same for the columns

    Args:
        a, b: `[n, d]` each; row i of one belongs to row i of the other.
        temperature: divides the similarities; a positive number, or a 0-d array, which then receives a gradient.
        normalize: divide each row by its norm first; a zero row stays zero, and no other depends on its scale.
        reduction: "mean" over the rows that count, "pairs" weighs rows by their positives, "batch" divides the sum
            by all rows, "sum", or "none" for the vector of row losses, a to b, then b to a.
        engine: "auto", or one of "dense", "tiled", "kernel", which then never slope_sums back.
        tile: rows in a tile, for a kernel a power of two from 16 on; None chooses.

    Returns:
        A scalar array of the same framework, float32 for half-precision embeddings; a vector for `reduction="none"`.

    Raises:
        SincereSpecError: one of its kinds, before any arithmetic, for arguments that do not fit; see
            `sincere_spec.errors`.

    Example:
        >>> import numpy as np, sincere_spec as ss
        >>> a = np.asarray([[1.0, 0.0], [0.0, 1.0]])
        >>> b = np.asarray([[0.8, 0.6], [-0.6, 0.8]])
        >>> float(round(ss.clip_loss(a, b, temperature=0.5), 4))
        0.286
    """
    value: ArrayT = evaluate(
        losses.clip(temperature),
        a,
        b,
        normalize=normalize,
        reduction=reduction,
        engine=engine,
        tile=tile,
    )
    return value


def siglip_loss(
    a: ArrayT,
    b: ArrayT,
    *,
    temperature: float | Array = 0.1,
    bias: float | Array = -10.0,
    normalize: bool = True,
    reduction: str = "mean",
    engine: str = "auto",
    tile: int | None = None,
) -> ArrayT:
    """Match two towers by a yes or no for every pair.

    SigLIP (Zhai et al., arXiv 2303.15343); the mean divides by n, not by n²:

        loss_i = softplus(-a_ii) + Σ_{j != i} softplus(a_ij)          a_ij = s_ij / temperature + bias

    Args:
        a, b: `[n, d]` each; row i of one belongs to row i of the other.
        temperature: divides the similarities; a positive number, or a 0-d array, which then receives a gradient.
        bias: added to every logit; a number, or a 0-d array, which then receives a gradient.
        normalize: divide each row by its norm first; a zero row stays zero, and no other depends on its scale.
        reduction: "mean" over the rows that count, "pairs" weighs rows by their positives, "batch" divides the sum
            by all rows, "sum", or "none" for the vector of row losses.
        engine: "auto", or one of "dense", "tiled", "kernel", which then never slope_sums back.
        tile: rows in a tile, for a kernel a power of two from 16 on; None chooses.

    Returns:
        A scalar array of the same framework, float32 for half-precision embeddings; a vector for `reduction="none"`.

    Raises:
        SincereSpecError: one of its kinds, before any arithmetic, for arguments that do not fit; see
            `sincere_spec.errors`.

    Example:
        >>> import numpy as np, sincere_spec as ss
        >>> a = np.asarray([[1.0, 0.0], [0.0, 1.0]])
        >>> b = np.asarray([[0.8, 0.6], [-0.6, 0.8]])
        >>> float(round(ss.siglip_loss(a, b), 4))
        2.136
    """
    value: ArrayT = evaluate(
        losses.siglip(temperature, bias),
        a,
        b,
        normalize=normalize,
        reduction=reduction,
        engine=engine,
        tile=tile,
    )
    return value


def f_micl_loss(
    view_a: ArrayT,
    view_b: ArrayT,
    *,
    divergence: str = "kl",
    alpha: float = 40.0,
    inverse_bandwidth: float = 1.0,
    order: float = 2.0,
    normalize: bool = True,
    reduction: str = "mean",
    engine: str = "auto",
    tile: int | None = None,
) -> ArrayT:
    """Maximise the f-mutual information that two views of a sample share.

    f-MICL (Lu et al., arXiv 2402.10150), negated, with the Gaussian kernel G(x, y) = exp(-inverse_bandwidth ‖x -
    y‖²) and f of the divergence, f* its conjugate:

        loss_i = -f′(G(a_i, b_i)) + alpha mean_{j != i} f*(f′(G(a_i, a_j)))

    The distance is taken as 2 - 2 s of unit rows. The paper finds "reverse_kl" and "neyman" unsuitable, since
    features collapse, and does not classify "jeffreys".

    Args:
        view_a, view_b: `[n, d]` each; row i of one is the same sample as row i of the other.
        divergence: "kl", "js", "pearson", "hellinger", "tsallis", "vincze_le_cam", "reverse_kl", "neyman" or
            "jeffreys".
        alpha: the weight of the negatives.
        inverse_bandwidth: 1 / (2 σ²) of the kernel.
        order: of the Tsallis divergence, positive and not 1.
        normalize: divide each row by its norm first; a zero row stays zero, and no other depends on its scale.
        reduction: "mean" over the rows that count, "pairs" weighs rows by their positives, "batch" divides the sum
            by all rows, "sum", or "none" for the vector of row losses.
        engine: "auto", or one of "dense", "tiled", "kernel", which then never slope_sums back.
        tile: rows in a tile, for a kernel a power of two from 16 on; None chooses.

    Returns:
        A scalar array of the same framework, float32 for half-precision embeddings; a vector for `reduction="none"`.

    Raises:
        SincereSpecError: one of its kinds, before any arithmetic, for arguments that do not fit; see
            `sincere_spec.errors`.

    Example:
        >>> import numpy as np, sincere_spec as ss
        >>> a = np.asarray([[1.0, 0.0], [0.0, 1.0]])
        >>> b = np.asarray([[0.8, 0.6], [-0.6, 0.8]])
        >>> float(round(ss.f_micl_loss(a, b), 4))
        4.8134
    """
    value: ArrayT = evaluate(
        losses.f_micl(divergence, alpha, inverse_bandwidth, order),
        view_a,
        view_b,
        normalize=normalize,
        reduction=reduction,
        engine=engine,
        tile=tile,
    )
    return value
