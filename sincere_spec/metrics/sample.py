"""A measure's arrays, checked by the rules of the losses: unit rows, integer labels, and which rows are left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from sincere_spec.arrays import COMPUTE_DTYPE, Array, Labels, Namespace, T
from sincere_spec.call.check import Call, Problem, check
from sincere_spec.call.dispatch import find_backend, unwrap
from sincere_spec.engines.comparison import Samples
from sincere_spec.engines.normalise import normalise
from sincere_spec.errors import EngineUnavailable, OptionError
from sincere_spec.interface import Backend
from sincere_spec.spec.arrangements import Labelled
from sincere_spec.spec.relations import GivenPositives, OverlappingSets
from sincere_spec.spec.words import Fold, PairLoss, Pairs, Similarity, Stage, Term

SIMILARITIES = PairLoss(
    "similarities", Labelled(), (Stage("s", Fold.LINEAR, over=Pairs.POSITIVE),), (Term("s"),), Similarity()
)
"""The record by which labelled rows are checked; nothing of it is computed."""

TOLERATED = 0.02
"""How far a squared norm may be from 1 where rows are said to be normalised: bfloat16 rounds that much."""


@dataclass(frozen=True)
class Sample:
    """Rows `[n, d]` and the columns `[m, d]` that they are compared with, in the compute dtype.

    `columns` is `rows` where a batch is compared with itself. `filled` and `columns_filled` say, as numbers by row, which rows
    are not all zero; None for all of them. `ids` is None where only a row and itself are the same sample. `poison` is a 0-d
    zero, or NaN if an entry is not finite.
    """

    backend: Backend
    rows: Array
    columns: Array
    labels: Array
    column_labels: Array
    ids: Array | None
    column_ids: Array | None
    filled: Array | None
    columns_filled: Array | None
    poison: Array

    @property
    def xp(self) -> Namespace:
        """The namespace of the arrays."""
        return self.backend.namespace(self.rows)

    @property
    def own(self) -> bool:
        """Whether the rows are compared with each other."""
        return self.columns is self.rows


def labelled(
    embeddings: Array,
    labels: Labels,
    *,
    keys: Array | None = None,
    key_labels: Labels | None = None,
    ids: Labels | None = None,
    key_ids: Labels | None = None,
    normalize: bool = True,
) -> Sample:
    """The sample of a call with labels; raises what a loss would raise."""
    given = {"keys": keys, "key_labels": key_labels, "ids": ids, "key_ids": key_ids}
    return compared(SIMILARITIES, (embeddings, labels), None, None, given, normalize)[0]


def compared(
    loss: PairLoss,
    arguments: tuple[Any, ...],
    temperature: float | Array | None,
    bias: float | Array | None,
    given: dict[str, Any],
    normalize: bool,
) -> tuple[Sample, Problem]:
    """The sample of a loss's arguments, where all of its pairs are told by labels and ids; and the checked call."""
    call = check(Call(loss, arguments, temperature, bias, **given, normalize=normalize, reduction="none"))
    backend, roles = call.backend, call.roles
    parts = [_unit(backend, call.embeddings[name], normalize) for name in roles.anchors]
    xp = backend.namespace(parts[0][0])
    rows, filled = parts[0]
    if len(parts) > 1:
        rows = xp.concat([part for part, _ in parts], axis=0)
        filled = None  # a loss of views sees its rows of zeros, too
    columns, columns_filled = rows, filled
    if roles.keys:
        columns, columns_filled = _unit(backend, call.embeddings[roles.keys[0]], normalize)
    poison = xp.sum(rows * 0.0)
    if roles.keys:
        poison = poison + xp.sum(columns * 0.0)
    if isinstance(call.related.relation, (GivenPositives, OverlappingSets)):
        raise OptionError("labels: expected one label a row, by which pairs are told here; got pairs.")
    sides = (call.related.rows, call.related.columns)
    ids, key_ids = (None, None) if call.related.samples is Samples.DISTINCT else (side["sample"] for side in sides)
    labels, key_labels = (side["label"] for side in sides)
    sample = Sample(backend, rows, columns, labels, key_labels, ids, key_ids, filled, columns_filled, poison)
    return sample, call


def unlabelled(embeddings: Array, normalize: bool = True) -> Sample:
    """The sample of rows without labels: all of one class."""
    return labelled(embeddings, like_zeros(embeddings), normalize=normalize)


def like_zeros(embeddings: Array) -> Labels:
    """A label 0 for each row, beside the rows; for what is no array the call's own refusal comes later."""
    x = unwrap(embeddings)
    backend = find_backend(x)
    if backend is None or not getattr(x, "shape", ()):
        return []
    return backend.indices(x) * 0


def _unit(backend: Backend, x: Array, normalize: bool) -> tuple[Array, Array | None]:
    """Rows in the compute dtype, normalised if they are to be, and which are not all zero."""
    xp, kind = backend.namespace(x), backend.dtype_name(x)
    if COMPUTE_DTYPE[kind] != kind:
        x = xp.astype(x, backend.dtype(COMPUTE_DTYPE[kind], x))
    if not normalize:
        return x, None
    rows = backend.call(normalise, backend, x).rows
    if x.shape[1] == 0 or 0 in x.shape:
        return rows, None
    filled = xp.astype(~(xp.max(xp.abs(backend.hold(x)), axis=1) == 0.0), x.dtype)
    if backend.on_host(filled) and float(xp.sum(filled)) == x.shape[0]:
        return rows, None
    return rows, filled


def unit_rows(backend: Backend, x: Array, normalize: bool) -> Array:
    """Rows in the compute dtype, normalised if they are to be."""
    return _unit(backend, x, normalize)[0]


def require_unit_rows(sample: Sample, measure: str) -> None:
    """Refuse rows given with `normalize=False` that are not on the sphere, where they can be looked at cheaply."""
    xp, rows = sample.xp, sample.backend.hold(sample.rows)
    if not sample.backend.on_host(rows) or 0 in rows.shape:
        return
    away = float(xp.max(xp.abs(xp.sum(rows * rows, axis=1) - 1.0), axis=0))
    if away > TOLERATED:
        raise OptionError(
            f"{measure} is of distances on the sphere, and with normalize=False a row's squared norm is {away:.3g} away "
            "from 1; pass normalize=True."
        )


def require_values(sample: Sample, measure: str) -> None:
    """Refuse arrays whose values cannot be read now: under jit, in a graph, or computed later."""
    if not (sample.backend.concrete(sample.rows) and sample.backend.concrete(sample.labels)):
        raise EngineUnavailable(
            f"{measure} sorts and counts values, and under tracing there are none: call it outside jit, vmap and graphs."
        )


def without_zero_rows(sample: Sample) -> Sample:
    """The sample of a batch without its rows of zeros, where the values can be read; else as it is."""
    if sample.filled is None or not sample.backend.concrete(sample.rows):
        return sample
    kept = [i for i, filled in enumerate(sample.backend.to_host(sample.filled).tolist()) if filled]
    places = sample.backend.integers(kept, sample.rows)
    rows, labels = (sample.xp.take(x, places, axis=0) for x in (sample.rows, sample.labels))
    ids = None if sample.ids is None else sample.xp.take(sample.ids, places, axis=0)
    return replace(
        sample, rows=rows, columns=rows, labels=labels, column_labels=labels, ids=ids, column_ids=ids, filled=None
    )


def result_of(sample: Sample, function: Callable[..., T], *arguments: Any) -> T:
    """Call a function with the framework's casts and warnings out of the way, as the losses are."""
    return sample.backend.call(function, sample, *arguments)
