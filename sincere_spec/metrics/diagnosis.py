"""What a batch can teach a loss: for a training loop to print, or to log."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from math import isnan, sqrt
from typing import TYPE_CHECKING, Any

from sincere_spec.arrays import Array, Labels
from sincere_spec.call.empty import unwarned
from sincere_spec.call.evaluate import value_and_gradient
from sincere_spec.metrics.neighbours import sweep
from sincere_spec.metrics.pairs import alignment, uniformity, within
from sincere_spec.metrics.sample import Sample, compared, require_values, result_of, unit_rows

if TYPE_CHECKING:
    from sincere_spec.call.check import Problem
    from sincere_spec.spec.words import PairLoss


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found, as Python numbers; NaN is what no row defines.

    `rows_that_count` of `rows` have a loss. `positives` is their mean number a row, and `fewest` and `most` its range. `top1` is
    the share of rows whose nearest column is a positive. `teaches` says whether the gradient is neither 0 nor NaN, and `why` why.
    """

    loss: str
    rows: int
    rows_that_count: int
    positives: float
    fewest: int
    most: int
    top1: float
    alignment: float
    uniformity: float
    temperature: float
    value: float
    gradient_norm: float
    teaches: bool
    why: str

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain numbers and strings, ready for a logger."""
        return asdict(self)

    def __str__(self) -> str:
        spread = f"{self.positives:.3g}" + ("" if self.fewest == self.most else f" ({self.fewest} to {self.most})")
        return (
            f"{self.loss}: {self.rows_that_count} of {self.rows} rows count, {spread} positives a row; "
            f"top-1 {self.top1:.3f}, alignment {self.alignment:.3f}, uniformity {self.uniformity:.3f}, "
            f"temperature {self.temperature:.4g}; loss {self.value:.4g}, gradient {self.gradient_norm:.3g}. "
            f"{'It teaches' if self.teaches else 'It teaches nothing'}: {self.why}."
        )


def diagnose(
    loss: PairLoss,
    *arguments: Any,
    temperature: float | Array | None = None,
    bias: float | Array | None = None,
    keys: Array | None = None,
    key_labels: Labels | None = None,
    ids: Labels | None = None,
    key_ids: Labels | None = None,
    normalize: bool = True,
) -> Diagnosis:
    """Whether a batch can teach a loss anything, and how its embeddings lie; for any record, in every framework.

    Args:
        loss: a record from `sincere_spec.losses`, or one of your own.
        *arguments: the positional arguments of the record's function, such as `embeddings, labels`.
        temperature, bias, keys, key_labels, ids, key_ids, normalize: as in `sincere_loss`.

    Returns:
        A frozen record that prints as a sentence and has `to_dict()`: rows, rows that count, positives a row, top-1 contrastive
        accuracy (a tie counts against), alignment and uniformity of the rows on the sphere, temperature, the loss, the norm of
        its gradient, and whether the batch teaches anything.

    Raises:
        SincereSpecError: as in `evaluate`; EngineUnavailable under tracing.

    Example:
        >>> import numpy as np, sincere_spec as ss
        >>> z = np.asarray([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]])
        >>> found = ss.diagnose(ss.losses.sincere(0.5), z, [0, 0, 1, 2])
        >>> found.rows, found.rows_that_count, found.teaches
        (4, 2, True)
        >>> print(ss.diagnose(ss.losses.sincere(0.5), z, [0, 1, 2, 3]).why)
        no row has a positive, since every label is alone: sample classes in twos or more, or give views
    """
    from sincere_spec.metrics import host

    given: dict[str, Any] = {"keys": keys, "key_labels": key_labels, "ids": ids, "key_ids": key_ids}
    sample, call = compared(loss, arguments, temperature, bias, given, normalize)
    require_values(sample, "diagnose")
    with unwarned():
        value, gradient = value_and_gradient(
            loss, *arguments, temperature=temperature, bias=bias, **given, normalize=normalize, reduction="mean"
        )
    parts = [gradient] if len(call.arguments) == 1 else list(gradient)
    norms = [host.on_host(sample.backend, x) for x in parts[: len(call.embeddings)]]
    norm = sqrt(sum(float((x * x).sum()) for x in norms))
    ranks, negatives, positives = _neighbours(sample, call)
    counted = int(host.counted(loss, positives, negatives).sum())
    on_sphere = (sample, call) if normalize else compared(loss, arguments, temperature, bias, given, True)
    held = sample.backend.hold
    return Diagnosis(
        loss=loss.name,
        rows=len(ranks),
        rows_that_count=counted,
        positives=host.mean(positives),
        fewest=int(positives.min()) if len(positives) else 0,
        most=int(positives.max()) if len(positives) else 0,
        top1=host.mean(host.below(ranks, 1)),
        alignment=float(_alignment(*on_sphere)),
        uniformity=float(uniformity(held(on_sphere[0].rows))),
        temperature=call.temperature if isinstance(call.temperature, float) else float(held(call.temperature)),
        value=float(held(value)),
        gradient_norm=norm,
        teaches=norm > 0.0,
        why=_why(counted, positives, negatives, norm),
    )


def _partner(sample: Sample, call: Problem) -> Array | None:
    """The one positive of each row where it is in none of the columns, on the sphere as the rows are; else None."""
    roles = call.roles
    if not roles.partners or (roles.keys and not roles.queue) or len(roles.anchors) > 1:
        return None
    return unit_rows(sample.backend, call.embeddings[roles.partners[0]], call.normalize)


def _neighbours(sample: Sample, call: Problem) -> tuple[Any, Any, Any]:
    """By row, on the host: the rank of its nearest positive, and how many negatives and positives it has."""
    from sincere_spec.metrics import host

    partner = _partner(sample, call)
    if partner is not None:
        xp = sample.xp
        target = xp.sum(sample.rows * partner, axis=1)
        negatives, _ = host.class_counts(sample)
        ranks = host.partner_ranks(sample.backend, target, sweep(sample, None).nearest.noise)
        return ranks, negatives, negatives * 0 + 1
    sides = [sample]
    if call.roles.both_ways:
        swapped = replace(
            sample,
            rows=sample.columns,
            columns=sample.rows,
            labels=sample.column_labels,
            column_labels=sample.labels,
            filled=sample.columns_filled,
            columns_filled=sample.filled,
        )
        sides.append(swapped)
    found = [(host.on_host(x.backend, sweep(x, None).nearest.rank), *host.class_counts(x)) for x in sides]
    ranks, negatives, positives = (host.joined(vectors) for vectors in zip(*found, strict=True))
    return ranks, negatives, positives


def _alignment(sample: Sample, call: Problem) -> Array:
    """The mean squared distance of positive pairs."""
    partner = _partner(sample, replace(call, normalize=True))
    if partner is not None:
        return alignment(sample.backend.hold(sample.rows), partner)
    return result_of(sample, lambda sample: 2.0 - 2.0 * within(sample))


def _why(counted: int, positives: Any, negatives: Any, norm: float) -> str:
    """One clause about what the gradient is."""
    if isnan(norm):
        return "an embedding or the temperature is not finite, and so is the gradient"
    if norm > 0.0:
        return "the gradient is not 0"
    if not len(positives):
        return "there are no rows"
    if not positives.any():
        return "no row has a positive, since every label is alone: sample classes in twos or more, or give views"
    if not counted:
        return "no row with a positive has a negative, and this loss needs both: put more classes into the batch"
    if not negatives.any():
        return "all rows are of one class, and there is nothing to tell them from: put more classes into the batch"
    return "rows count, and the gradient has vanished: the loss is at its minimum, or all embeddings are equal"
