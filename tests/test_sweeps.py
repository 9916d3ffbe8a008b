"""The seam between statistics and gradient: rows owned by several processes, whose cotangents come from outside."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from frameworks import load

import sincere_spec as ss
from sincere_spec.backends import by_root
from sincere_spec.engines import family, rows, tiled, traced
from sincere_spec.engines.comparison import Comparison, Samples
from sincere_spec.spec import Combine, CosineSchedule, Fold, Labelled, Pairs, Similarity, Stage, Term
from sincere_spec.spec.relations import Attributes, Relation, SameLabel
from sincere_spec.spec.words import PairLoss

RECORDS = {
    "sincere": ss.losses.sincere(0.2),
    "supcon": ss.losses.supcon(0.2),
    "supcon in": ss.losses.supcon(0.2, "in"),
    "decoupled": ss.losses.decoupled(0.2),
    "combinations": PairLoss(
        "combinations",
        Labelled(),
        (Stage("near", Fold.LOGSUMEXP, Pairs.POSITIVE, scale=-1.0), Stage("far", Fold.LOGSUMEXP, Pairs.NEGATIVE)),
        (Term("push"), Term("gap", 0.5)),
        Similarity(),
        temperature=0.5,
        combined=(
            Combine("push", Fold.SOFTPLUS, (Term("far", 0.5),)),
            Combine("gap", Fold.LOGSUMEXP, (Term("near"), Term("push", 2.0))),
        ),
    ),
}
RECORDS["a logit of positives"] = PairLoss(
    "a logit of positives",
    Labelled(),
    (
        Stage("noise", Fold.LOGSUMEXP, Pairs.NEGATIVE),
        Stage("margin", Fold.SOFTPLUS, Pairs.POSITIVE, scale=-1.0, minus="noise", mean=True),
        Stage("all", Fold.LOGSUMEXP, Pairs.OTHERS),
    ),
    (Term("margin"), Term("all", 0.5)),
    Similarity(),
    temperature=0.5,
    positive_logit=CosineSchedule(0.5, 1.0, held=False),
)
SHARDS = [slice(0, 7), slice(7, 7), slice(7, 12), slice(12, 20)]
N, D = 20, 5


def lay_out_of(framework: str) -> Any:
    if framework in ("jax", "tensorflow"):
        return partial(traced.lay_out, tile=4, fixed_shift=None)
    return partial(tiled.lay_out, tile=4)


def unit_rows() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(N, D))
    return z / np.linalg.norm(z, axis=1, keepdims=True), rng.integers(0, 4, N)


def comparison(framework: str, loss: PairLoss, own: slice, relation: Relation | None = None) -> Comparison:
    """Some rows of a batch against all of it, their own included."""
    here, backend = load(framework), by_root(framework)
    z, labels = unit_rows()
    places = np.arange(N)

    def attributes(rows: slice) -> Attributes:
        return {"label": here.array(labels[rows]), "sample": here.array(places[rows])}

    return Comparison(
        backend,
        loss,
        here.array(np.asarray(loss.temperature)),
        0.0,
        here.array(z[own]),
        here.array(z),
        None,
        relation=relation or SameLabel(),
        rows=attributes(own),
        columns=attributes(slice(None)),
        both_ways=False,
        ascending=False,
        samples=Samples.WITHIN_LABELS,
        alike=None,
        unit_rows=True,
    )


@pytest.mark.parametrize("framework", ["numpy", "torch", "jax", "tensorflow"], indirect=True)
@pytest.mark.parametrize("name", RECORDS)
def test_gradients_of_shards_under_cotangents_of_all_rows_are_those_of_the_batch(framework: str, name: str) -> None:
    here, loss, lay_out = load(framework), RECORDS[name], lay_out_of(framework)
    xp = by_root(framework).namespace(here.array(np.ones(1)))
    shards = [shard for shard in SHARDS if shard.start < shard.stop]
    made = []
    for shard in shards:  # each process: statistics of its own rows
        sweep = lay_out(comparison(framework, loss, shard), ())
        counts = family.count_pairs(sweep)
        residuals = family.reduce_stages(sweep, sweep.loss, counts)
        every = xp.ones_like(counts.positive)
        every = every if sweep.inside is None else xp.where(sweep.inside, every, 0.0)
        share = rows.shares(xp, sweep.loss, "mean", counts, every)
        made.append((sweep, counts, residuals, share))
    total = sum(float(here.numbers(xp.sum(share))) for *_, share in made)  # one number is added over processes
    value = 0.0
    cotangents, found = [], []
    for sweep, counts, residuals, share in made:
        row_losses = rows.losses(xp, sweep.loss, residuals.results_of(sweep.loss), counts)
        value += float(here.numbers(xp.sum(share * row_losses))) / total
        cotangents.append(family.weigh_parts(sweep, sweep.loss, counts, residuals, share / total))

    def gathered(pick: Any) -> Any:
        """A vector of all rows, in the order of the batch."""
        return xp.concat([sweep.unsorted(pick(c)) for (sweep, *_), c in zip(made, cotangents, strict=True)], axis=0)

    for (sweep, counts, *_), own in zip(made, cotangents, strict=True):
        both = lay_out(replace(sweep.comparison, both_ways=True), ())

        def joined(pick: Any, sweep: Any = sweep, own: Any = own, both: Any = both) -> Any:
            return both.sorted(xp.concat([sweep.unsorted(pick(own)), gathered(pick)], axis=0))

        everyone = family.RowCotangents(
            {part: joined(lambda c, part=part: c.weights[part]) for part in own.weights},
            {part: joined(lambda c, part=part: c.maxima[part]) for part in own.maxima},
            family.StageResults(
                {stage: joined(lambda c, stage=stage: c.stages.values[stage]) for stage in own.stages.values},
                {stage: joined(lambda c, stage=stage: empty(xp, c, stage)) > 0.0 for stage in own.stages.empty},
            ),
        )
        found.append(here.numbers(family.gradients(both, everyone, counts, frozenset({"anchors"})).anchors))

    z, labels = unit_rows()
    want, gradient = ss.value_and_gradient(loss, z, labels, normalize=False, engine="dense")
    assert value == pytest.approx(float(want), rel=1e-13)
    np.testing.assert_allclose(np.concatenate(found), gradient, rtol=1e-12, atol=1e-15)


def empty(xp: Any, cotangents: family.RowCotangents, stage: str) -> Any:
    """1 for each row that has no pairs in a stage."""
    like, found = next(iter(cotangents.weights.values())), cotangents.stages.empty[stage]
    return xp.zeros_like(like) if found is None else xp.astype(found, like.dtype)


class Asymmetric(SameLabel):
    """Positives of a lower place only: a pair is not the same from its other end."""

    symmetric = False

    def pair(self, row: Attributes, column: Attributes, between: Attributes) -> tuple[Any, Any]:
        """By label, and by place."""
        positive, negative = super().pair(row, column, between)
        return positive & (row["sample"] < column["sample"]), negative


@pytest.mark.parametrize("framework", ["numpy", "torch", "jax", "tensorflow"], indirect=True)
@pytest.mark.parametrize("name", ["sincere", "supcon"])
def test_a_relation_that_is_not_symmetric_is_asked_from_either_end(framework: str, name: str) -> None:
    """One triangle of tiles serves rows and columns: the columns' pairs are judged with the roles exchanged."""
    here, lay_out = load(framework), lay_out_of(framework)
    given = comparison(framework, RECORDS[name], slice(None), Asymmetric())
    given = replace(given, keys=None, columns=given.rows, samples=Samples.ANYWHERE)
    dense = by_hand(RECORDS[name])
    value, residuals = family.forward(given, "sum", lay_out)
    needed = frozenset({"anchors"})
    gradient = family.backward(given, "sum", lay_out, residuals, 1.0, needed).anchors
    assert float(here.numbers(value)) == pytest.approx(dense[0], rel=1e-12)
    np.testing.assert_allclose(here.numbers(gradient), dense[1], rtol=1e-10, atol=1e-12)


def by_hand(loss: PairLoss) -> tuple[float, np.ndarray]:
    """Value and gradient of the asymmetric relation by the dense engine, which knows no triangle."""
    from sincere_spec.engines import dense

    given = comparison("numpy", loss, slice(None), Asymmetric())
    given = replace(given, keys=None, columns=given.rows, samples=Samples.ANYWHERE, temperature=loss.temperature)
    value, gradients = dense.value_and_gradient(given, "sum", frozenset({"anchors"}))
    return float(value), gradients.anchors
