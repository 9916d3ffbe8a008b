"""A record rewritten for one comparison: without the terms, stages and means that none of its rows needs.

What a rewriting gives is remembered by the stages and terms that it was given, for arrays that have values: a compiler that
traces the call must not trace a table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, TypeAlias

from sincere_spec.arrays import Array
from sincere_spec.engines.comparison import Comparison
from sincere_spec.engines.parts import STAGE, TakenApart, parts_of, taken_apart
from sincere_spec.engines.rows import FULL_OF_POSITIVES, Counts, Single, WeightedStage
from sincere_spec.interface import Backend
from sincere_spec.spec.words import Choice, Combine, Fold, PairLoss, Pairs, Rows, Stage, Term, Word

LOGIT = Stage("", Fold.LINEAR, over=Pairs.POSITIVE)
"""The sum of the positives' logits: where there is one, its logit."""


Words: TypeAlias = tuple[tuple[Stage, ...], tuple[Term, ...], tuple[Combine, ...]]
"""The stages and terms of a loss, and what is combined."""

LIMIT = 256
"""How many rewritings are remembered."""

OWN = frozenset({Stage, Term, Combine, WeightedStage, TakenApart, Single})
"""Words that hold numbers alone. A user's own could hold an array, which must not be kept."""


class Rewriting(Choice):
    """The ways to rewrite a loss."""

    WEIGHTED = "weighted"
    SINGLES = "singles"
    ONE_POSITIVE = "one positive"
    SEVERAL_POSITIVES = "several positives"


class Rewritten(PairLoss):
    """A loss with other stages and terms, from the values of all fields in their order, which are not checked again."""

    def __init__(self, *values: Any) -> None:
        for field, value in zip(FIELDS, values, strict=True):
            object.__setattr__(self, field, value)


del Word.known["Rewritten"]  # no dictionary has it

FIELDS = tuple(field.name for field in fields(PairLoss))

# By the identity of what was given, which an entry keeps alive: equal records may differ, as 0.0 and -0.0 do.
_remembered: dict[tuple[int, int, int, Rewriting], tuple[Words, Words]] = {}


def specialise(comparison: Comparison) -> PairLoss:
    """The same loss without what this comparison does not need.

    Partners are one positive a row; without them, what only such rows fold is a function of one logit.
    """
    if comparison.relation.weighted:  # one positive has a weight, too, so that no mean is dropped
        how = Rewriting.WEIGHTED
    else:
        how = Rewriting.SINGLES if comparison.partners is None else Rewriting.ONE_POSITIVE
    return _rewrite(comparison.backend, comparison.anchors, comparison.loss, how)


def prune_terms(backend: Backend, loss: PairLoss, counts: Counts) -> tuple[PairLoss, Counts]:
    """The same loss without what no row here needs, and the counts with what no row lacks, where that is cheap to see."""
    full, between = counts.full, counts.between
    if (between is None or Pairs.NEGATIVE not in full) and backend.on_host(counts.positive):
        if between is None:
            between = backend.extremes(counts.positive)
        if Pairs.NEGATIVE not in full and backend.extremes(counts.negative)[0] > 0.0:
            full |= {Pairs.NEGATIVE, Pairs.OTHERS}
    if between is None:
        return loss, counts
    fewest, most = between
    if fewest > 0.0:
        full |= FULL_OF_POSITIVES
    if any(term.rows is not Rows.ALL for term in loss.terms):
        if fewest > 1.0:
            loss = _rewrite(backend, counts.positive, loss, Rewriting.SEVERAL_POSITIVES)
        elif most <= 1.0:
            loss = _rewrite(backend, counts.positive, loss, Rewriting.ONE_POSITIVE)
    if full is counts.full and between is counts.between:
        return loss, counts
    return loss, replace(counts, full=full, between=between)


def _rewrite(backend: Backend, like: Array, loss: PairLoss, how: Rewriting) -> PairLoss:
    """A loss rewritten one way, or as it was rewritten before."""
    given = (loss.stages, loss.terms, loss.combined)
    if not backend.concrete(like):
        return _rewritten(loss, _REWRITE[how](given))
    key = (id(loss.stages), id(loss.terms), id(loss.combined), how)
    found = _remembered.get(key)
    if found is None or any(one is not other for one, other in zip(found[0], given, strict=True)):
        found = (given, _REWRITE[how](given))
        if all(type(word) in OWN for words in given for word in words):
            if len(_remembered) >= LIMIT:
                _remembered.clear()
            _remembered[key] = found
    return _rewritten(loss, found[1])


def _rewritten(loss: PairLoss, words: Words) -> PairLoss:
    stages, terms, combined = words
    values = (loss.name, loss.arrangement, stages, terms, loss.logit, loss.temperature, loss.bias, combined)
    return Rewritten(*values, loss.positive_logit)


def _weighted(given: Words) -> Words:
    """The same with weights in the stages that are over positives alone: in a denominator each counts once."""
    stages, terms, combined = given
    return (
        tuple(
            taken_apart(
                WeightedStage(**{name: getattr(stage, name) for name in STAGE})
                if stage.over is Pairs.POSITIVE
                else stage
            )
            for stage in stages
        ),
        terms,
        combined,
    )


def _with_one_kind(given: Words, kind: Rows) -> Words:
    """The same loss for rows that all are of one kind, or do not count."""
    stages, terms, combined = given
    kept = [term for term in terms if term.rows in (kind, Rows.ALL)]
    terms = tuple(term if term.rows is Rows.ALL else replace(term, rows=Rows.ALL) for term in kept)
    if not terms:
        return tuple(taken_apart(stage) for stage in stages), given[1], combined
    needed = {term.stage for term in (*terms, *_terms_of(combined))}
    needed |= {term.folded.minus for term in terms if isinstance(term, Single) and term.folded.minus}
    for stage in reversed(stages):
        if stage.name in needed and stage.minus is not None:
            needed.add(stage.minus)
    own = Pairs.POSITIVE if kind is Rows.ONE_POSITIVE else None  # a mean of one is no mean
    stages = tuple(
        taken_apart(
            replace(stage, mean=False)
            if stage.mean and stage.over is own and not parts_of(stage)[0].weighted
            else stage
        )
        for stage in stages
        if stage.name in needed
    )
    return stages, terms, combined


def _terms_of(combined: tuple[Combine, ...]) -> list[Term]:
    """What combinations are of."""
    return [term for one in combined for term in one.of]


def _with_singles(given: Words) -> Words:
    """The same loss, with no pass over all pairs for what only rows of one positive fold."""
    stages, terms, combined = given
    kinds: dict[str, set[Rows]] = {}
    for term in (*terms, *_terms_of(combined)):
        kinds.setdefault(term.stage, set()).add(term.rows)
    folded = {
        stage.name: stage
        for stage in stages
        if kinds.get(stage.name) == {Rows.ONE_POSITIVE}
        and stage.over is Pairs.POSITIVE
        and stage.fold is not Fold.LOGSUMEXP
    }
    if not folded:
        return tuple(taken_apart(stage) for stage in stages), terms, combined
    stages = tuple(stage for stage in stages if stage.name not in folded)
    logit = next((stage for stage in stages if replace(stage, name="", mean=False) == LOGIT), None)
    if logit is None:
        name, taken = "the positive's logit", {x.name for x in given[0]} | {x.name for x in combined}
        while name in taken:
            name += "'"
        logit = replace(LOGIT, name=name)
        stages = (*stages, logit)

    def single(term: Term) -> Term:
        if term.stage not in folded:
            return term
        return Single(logit.name, term.coefficient, term.constant, term.rows, folded=folded[term.stage])

    return tuple(taken_apart(stage) for stage in stages), tuple(single(term) for term in terms), combined


_REWRITE: dict[Rewriting, Callable[[Words], Words]] = {
    Rewriting.WEIGHTED: _weighted,
    Rewriting.SINGLES: _with_singles,
    Rewriting.ONE_POSITIVE: lambda given: _with_one_kind(given, Rows.ONE_POSITIVE),
    Rewriting.SEVERAL_POSITIVES: lambda given: _with_one_kind(given, Rows.SEVERAL_POSITIVES),
}
