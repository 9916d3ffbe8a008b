"""A record rewritten for one comparison: without the terms, stages and means that none of its rows needs."""

from __future__ import annotations

from dataclasses import fields, replace

from sincere_spec.engines.comparison import Comparison
from sincere_spec.engines.rows import FULL_OF_POSITIVES, Counts, Single, WeightedStage
from sincere_spec.interface import Backend
from sincere_spec.spec.words import Fold, PairLoss, Pairs, Rows, Stage, Term

LOGIT = Stage("", Fold.LINEAR, over=Pairs.POSITIVE)
"""The sum of the positives' logits: where there is one, its logit."""


def specialise(comparison: Comparison) -> PairLoss:
    """The same loss without what this comparison does not need.

    Partners are one positive a row; without them, what only such rows fold is a function of one logit.
    """
    loss = comparison.loss
    if comparison.relation.weighted:  # one positive has a weight, too, so that no mean is dropped
        return replace(loss, stages=tuple(map(_weighted, loss.stages)))
    return _with_singles(loss) if comparison.partners is None else _with_one_kind(loss, Rows.ONE_POSITIVE)


def _weighted(stage: Stage) -> Stage:
    """The stage with weights, if it is over positives alone: in a denominator each counts once."""
    if stage.over is not Pairs.POSITIVE:
        return stage
    return WeightedStage(**{one.name: getattr(stage, one.name) for one in fields(stage)})


def prune_terms(backend: Backend, loss: PairLoss, counts: Counts) -> tuple[PairLoss, Counts]:
    """The same loss without what no row here needs, and the counts with what no row lacks, where that is cheap to see."""
    xp, full, between = backend.namespace(counts.positive), counts.full, counts.between
    if backend.on_host(counts.positive):
        if between is None:
            between = -float(xp.max(-counts.positive, axis=0)), float(xp.max(counts.positive, axis=0))
        if Pairs.NEGATIVE not in full and float(xp.max(-counts.negative, axis=0)) < 0.0:
            full |= {Pairs.NEGATIVE, Pairs.OTHERS}
    if between is None:
        return loss, counts
    fewest, most = between
    if fewest > 0.0:
        full |= FULL_OF_POSITIVES
    if any(term.rows is not Rows.ALL for term in loss.terms):
        if fewest > 1.0:
            loss = _with_one_kind(loss, Rows.SEVERAL_POSITIVES)
        elif most <= 1.0:
            loss = _with_one_kind(loss, Rows.ONE_POSITIVE)
    return loss, replace(counts, full=full, between=between)


def _with_one_kind(loss: PairLoss, kind: Rows) -> PairLoss:
    """The same loss for rows that all are of one kind, or do not count."""
    kept = [term for term in loss.terms if term.rows in (kind, Rows.ALL)]
    terms = tuple(term if term.rows is Rows.ALL else replace(term, rows=Rows.ALL) for term in kept)
    if not terms:
        return loss
    needed = {term.stage for term in terms}
    needed |= {term.folded.minus for term in terms if isinstance(term, Single) and term.folded.minus}
    for stage in reversed(loss.stages):
        if stage.name in needed and stage.minus is not None:
            needed.add(stage.minus)
    own = Pairs.POSITIVE if kind is Rows.ONE_POSITIVE else None  # a mean of one is no mean
    stages = tuple(
        replace(stage, mean=False) if stage.mean and stage.over is own and type(stage) is Stage else stage
        for stage in loss.stages
        if stage.name in needed
    )
    return PairLoss(loss.name, loss.arrangement, stages, terms, loss.logit, loss.temperature, loss.bias)


def _with_singles(loss: PairLoss) -> PairLoss:
    """The same loss, with no pass over all pairs for what only rows of one positive fold."""
    kinds: dict[str, set[Rows]] = {}
    for term in loss.terms:
        kinds.setdefault(term.stage, set()).add(term.rows)
    folded = {
        stage.name: stage
        for stage in loss.stages
        if kinds.get(stage.name) == {Rows.ONE_POSITIVE}
        and stage.over is Pairs.POSITIVE
        and stage.fold is not Fold.LOGSUMEXP
    }
    if not folded:
        return loss
    stages = tuple(stage for stage in loss.stages if stage.name not in folded)
    logit = next((stage for stage in stages if replace(stage, name="", mean=False) == LOGIT), None)
    if logit is None:
        logit = replace(LOGIT, name="the positive's logit")
        stages = (*stages, logit)

    def single(term: Term) -> Term:
        if term.stage not in folded:
            return term
        return Single(logit.name, term.coefficient, term.constant, term.rows, folded=folded[term.stage])

    return replace(loss, stages=stages, terms=tuple(single(term) for term in loss.terms))
