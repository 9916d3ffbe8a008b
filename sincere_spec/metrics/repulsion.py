"""What a loss does to pairs of one class, and what its value says of two distributions."""

from __future__ import annotations

from math import log
from typing import Any, NamedTuple

from sincere_spec.arrays import Array, Labels
from sincere_spec.call.dispatch import backend_of
from sincere_spec.engines.coefficients import of_positives
from sincere_spec.errors import OptionError
from sincere_spec.metrics.neighbours import PAIRS, check_tile, others_of
from sincere_spec.metrics.pairs import ratio
from sincere_spec.metrics.sample import Sample, compared, require_values, result_of
from sincere_spec.spec.arrangements import Labelled, Views
from sincere_spec.spec.words import PairLoss


class Repulsion(NamedTuple):
    """How far a loss pushes pairs of one class apart; all 0 if it never does.

    `share` of the ordered pairs of one class that are pushed apart, share of `anchors` that have such a pair, the `force` of
    pushing over that of both directions, and of the `worst` pair the force times the row's number of positives. `rows` count.
    """

    share: Array
    anchors: Array
    force: Array
    worst: Array
    rows: Array


def repulsion(
    loss: PairLoss,
    *arguments: Any,
    temperature: float | Array | None = None,
    bias: float | Array | None = None,
    keys: Array | None = None,
    key_labels: Labels | None = None,
    ids: Labels | None = None,
    key_ids: Labels | None = None,
    normalize: bool = True,
    tile: int | None = None,
) -> Repulsion:
    """How often, and how much, a loss pushes rows of one class apart (the analysis of SINCERE, 2309.14277).

    With G_ij = ∂L_i/∂a_ij, the derivative of a row's own loss by the logit of its positive j:

        share    the share of ordered pairs of one class with G > 0
        anchors  the share of rows with such a pair
        force    Σ max(G, 0) / Σ |G| over pairs of one class
        worst    the largest max(G, 0) |P(i)|

    For SupCon-out G > 0 is q_ip > 1/|P(i)|. For SINCERE and SupCon-in all four are exactly 0.

    Args:
        loss: any record of labelled rows or of views, also one of your own.
        *arguments: the positional arguments of its function, such as `embeddings, labels`.
        temperature, bias: instead of the record's.
        keys, key_labels, ids, key_ids, normalize: as in `sincere_loss`.
        tile: rows of a block; None chooses so that a block needs about 30 MB.

    Returns:
        A named tuple of 0-d arrays `share, anchors, force, worst, rows`. Rows that do not count are left out: `rows` is
        how many do. NaN where none does.

    Raises:
        SincereSpecError: as in the losses; OptionError for a loss of two towers or of queries; EngineUnavailable under
            tracing.

    Example:
        >>> import numpy as np, sincere_spec as ss
        >>> z = np.asarray([[1.0, 0.0], [1.0, 0.1], [0.6, 0.8], [-0.6, 0.8]])
        >>> float(ss.metrics.repulsion(ss.losses.supcon(0.1), z, [0, 0, 0, 1]).anchors)
        1.0
        >>> float(ss.metrics.repulsion(ss.losses.sincere(0.1), z, [0, 0, 0, 1]).share)
        0.0
    """
    if isinstance(loss, PairLoss) and not isinstance(loss.arrangement, (Labelled, Views)):
        raise OptionError(
            f"repulsion is for losses of labelled rows or of views; {loss.name} takes {loss.arrangement.signature}."
        )
    given = {"keys": keys, "key_labels": key_labels, "ids": ids, "key_ids": key_ids}
    sample, call = compared(loss, arguments, temperature, bias, given, normalize)
    require_values(sample, "repulsion")
    check_tile(tile)
    xp, n, m = sample.xp, sample.rows.shape[0], sample.columns.shape[0]
    zero = xp.sum(sample.rows[:0, :])
    totals = [zero] * 6
    worst = zero
    rows = tile or max(1, PAIRS // max(m, 1))
    parameters = tuple(
        x if isinstance(x, float) else float(sample.backend.hold(x)) for x in (call.temperature, call.bias)
    )
    for start in range(0, n if m else 0, rows):
        block = slice(start, min(start + rows, n))
        *sums, largest = result_of(sample, _block, block, call.loss, *parameters)
        totals = [total + part for total, part in zip(totals, sums, strict=True)]
        worst = xp.where(largest > worst, largest, worst)
    pairs, pushed, anchors, anchors_pushed, push, pull = totals
    return Repulsion(
        ratio(xp, pushed, pairs) + sample.poison,
        ratio(xp, anchors_pushed, anchors) + sample.poison,
        ratio(xp, push, pull) + sample.poison,
        xp.where(anchors > 0.0, worst, float("nan")) + sample.poison,
        anchors,
    )


def _block(sample: Sample, block: slice, loss: PairLoss, temperature: float, bias: float) -> tuple[Array, ...]:
    """The sums of a block of rows: pairs, pairs pushed, rows, rows with one, push, push and pull; and the worst."""
    backend, xp = sample.backend, sample.xp
    s = backend.product(sample.rows[block, :], xp.matrix_transpose(sample.columns))  # [n, m]
    same = sample.labels[block][:, None] == sample.column_labels[None, :]
    others = others_of(sample, block)
    positive, negative = (same, ~same) if others is None else (same & others, ~same & others)
    value = loss.logit.value(xp, s)
    if loss.positive_logit is not None:
        value = xp.where(positive, loss.positive_logit.value(xp, s), value)
    logits = value / temperature + bias
    g, counted = of_positives(backend, loss, logits, positive, negative)
    there = xp.where(positive, counted[:, None], xp.zeros_like(g))
    pushed = xp.astype(g > 0.0, g.dtype)
    push = xp.where(g > 0.0, g, 0.0)
    number = xp.sum(there, axis=1)
    return (
        xp.sum(there),
        xp.sum(pushed),
        xp.sum(counted),
        xp.sum(xp.max(pushed, axis=1)),
        xp.sum(push),
        xp.sum(xp.abs(g)),
        xp.max(xp.max(push, axis=1) * number, axis=0),
    )


def kl_bound(value: Any, n_noise: Any, *, symmetrised: bool = False) -> Any:
    """A lower bound of a KL divergence from the value of SINCERE: `log(n_noise + 1) - value <= KL(p+ || p-)`, in nats.

    It holds in expectation for any encoder, with p+ the distribution of a class and p- that of the noise (Donsker and
    Varadhan's bound for the loss's softmax). It holds for rows that the encoder was not trained on, and it cannot exceed
    `log(n_noise + 1)`: near that ceiling it says nothing but "at least".

    Args:
        value: the loss, as a number or an array: of a class with so many noise rows, or by row.
        n_noise: how many rows of other classes each row was compared with; a number, or an array beside `value`.
        symmetrised: the weaker bound `log(n_noise) - value <= KL(p+ || p-) + KL(p- || p+)` instead.

    Returns:
        A number or an array; a negative bound says nothing.

    Raises:
        OptionError: for a negative number of noise rows, or none where the bound is symmetrised.

    Example:
        >>> import sincere_spec as ss
        >>> round(ss.metrics.kl_bound(3.0, 32), 4)
        0.4965
    """
    if isinstance(n_noise, (int, float)):
        if not n_noise >= (1 if symmetrised else 0):
            raise OptionError(f"n_noise must be a number of rows; got {n_noise!r}.")
        return log(n_noise + (0.0 if symmetrised else 1.0)) - value
    backend = backend_of(n_noise, "n_noise")
    xp = backend.namespace(n_noise)
    number = n_noise
    if not backend.dtype_name(number).startswith(("float", "bfloat")):
        like = value if hasattr(value, "dtype") else None
        number = xp.astype(number, backend.dtype("float32", number) if like is None else like.dtype)
    return xp.log(number + (0.0 if symmetrised else 1.0)) - value
