"""From the stages of a row to its loss and back: the arithmetic on vectors of length N that every engine shares."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import reduce
from operator import add, and_, or_

from sincere_spec.arrays import Array, Namespace
from sincere_spec.errors import unknown_choice
from sincere_spec.spec import elementwise
from sincere_spec.spec.words import Combine, Fold, PairLoss, Pairs, Rows, Stage, Term

REDUCTIONS = ("mean", "pairs", "batch", "sum", "none")


FULL_OF_POSITIVES = frozenset({Pairs.POSITIVE, Pairs.OTHERS})

KEEPING_NOTHING = frozenset({Fold.LINEAR, Fold.SQUARE})
"""What makes nothing of a log-sum-exp over nothing; of -inf the others make 0."""


@dataclass(frozen=True)
class Counts:
    """How many positives and negatives each row has, `[rows]` in the dtype of the loss, and what its positives weigh.

    A row's kind, and whether it has pairs, go by their number; means over positives by their weight. `full` are the sets
    known to be empty in none, and `between` has the fewest and the most positives, where known. What was asked is kept in
    `answers`, since each answer is a pass or two over a vector; so they stay in one trace.
    """

    positive: Array
    negative: Array
    weight_of_positives: Array | None = None  # None: each weighs 1
    full: frozenset[Pairs] = frozenset()
    between: tuple[float, float] | None = None
    answers: dict[tuple[str, object], Array] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def weight(self) -> Array:
        """The sum of the weights of a row's positives."""
        return self.positive if self.weight_of_positives is None else self.weight_of_positives

    def over(self, pairs: Pairs) -> Array:
        """The size of one of a row's sets of pairs."""
        if pairs is Pairs.POSITIVE:
            return self.positive
        if pairs is Pairs.NEGATIVE:
            return self.negative
        return self.positive + self.negative

    def lacking(self, pairs: Pairs) -> Array | None:
        """Which rows have none of a set of pairs; None if no row is known to."""
        return None if pairs in self.full else self.once("lacking", pairs, lambda: self.over(pairs) == 0.0)

    def divisor(self, xp: Namespace, pairs: Pairs) -> Array:
        """What makes a mean of a sum over a set: its weight, or 1 where it is empty."""
        empty, size = self.lacking(pairs), self.weight if pairs is Pairs.POSITIVE else self.over(pairs)
        return size if empty is None else self.once("divisor", pairs, lambda: xp.where(empty, 1.0, size))

    @property
    def some_count(self) -> bool:
        """Whether some row is known to count: one with a positive, which weighs 1, where none lacks a negative."""
        known = self.between is not None and self.between[1] > 0.0 and Pairs.NEGATIVE in self.full
        return known and self.weight_of_positives is None

    def of_kind(self, kind: Rows) -> Array | None:
        """Which rows are of a kind; None for all of them."""
        if kind is Rows.ALL:
            return None
        several = kind is Rows.SEVERAL_POSITIVES
        return self.once("kind", kind, lambda: self.positive > 1.0 if several else self.positive == 1.0)

    def once(self, question: str, about: object, answer: Callable[[], Array]) -> Array:
        """An answer, or what it was before."""
        if (question, about) not in self.answers:
            self.answers[question, about] = answer()
        return self.answers[question, about]


@dataclass(frozen=True)
class Single(Term):
    """What rows with one positive fold, as a function of that positive's logit: its stage is the sum of these.

    It replaces a masked N x M reduction by one over N positives.
    """

    folded: Stage = field(kw_only=True)

    def argument(
        self, xp: Namespace, loss: PairLoss, stages: Mapping[str, Array], counts: Counts
    ) -> tuple[Stage, Array, Array]:
        """The stage that it is instead of, which rows have its one pair, and what they fold; 0 for the others."""
        folded, there = self.folded, counts.of_kind(Rows.ONE_POSITIVE)
        if folded.minus is not None:  # a row with an empty reference has no pairs
            empty = rows_with_empty_reference(loss, counts, folded.minus)
            there = there if empty is None else there & ~empty

        def found() -> Array:
            t = stages[self.stage] if folded.minus is None else stages[self.stage] - stages[folded.minus]
            t = t if folded.scale == 1.0 else folded.scale * t
            return xp.where(there, t + folded.offset if folded.offset else t, 0.0)

        return folded, there, counts.once("argument", folded.name, found)


@dataclass(frozen=True)
class WeightedStage(Stage):
    """A stage over positives whose pairs are summed under their weights."""


def without_pairs(loss: PairLoss, counts: Counts, stage: Stage) -> Array | None:
    """Which rows have no pairs in a stage: none of its kind, or none in the stage that it subtracts; None if all have."""
    empty = counts.lacking(stage.over)
    if stage.minus is None:
        return empty
    nothing = rows_with_empty_reference(loss, counts, stage.minus)
    return nothing if empty is None else empty if nothing is None else empty | nothing


def rows_with_empty_reference(loss: PairLoss, counts: Counts, minus: str) -> Array | None:
    """The mask of rows whose reference stage (`minus`) has no pairs, so that what subtracts it has none; None if all have."""
    return without_pairs(loss, counts, next(stage for stage in loss.stages if stage.name == minus))


def empty_stages(loss: PairLoss, counts: Counts) -> dict[str, Array | None]:
    """By stage, which rows have no pairs in it; None if all have."""
    return {stage.name: without_pairs(loss, counts, stage) for stage in loss.stages}


def empty_sums(loss: PairLoss, counts: Counts) -> dict[str, Array | None]:
    """By stage and combination, in which rows it is a log-sum-exp over nothing, or made of one; None if in none."""
    found: dict[str, Array | None] = {
        stage.name: without_pairs(loss, counts, stage) if stage.fold is Fold.LOGSUMEXP else None
        for stage in loss.stages
    }
    for one in loss.combined:
        masks = [found[term.stage] for term in one.of]
        there = [mask for mask in masks if mask is not None]
        if one.fold is Fold.LOGSUMEXP:
            found[one.name] = reduce(and_, there) if len(there) == len(masks) else None
        else:
            found[one.name] = reduce(or_, there) if there and one.fold in KEEPING_NOTHING else None
    return found


def combine(xp: Namespace, loss: PairLoss, stages: Mapping[str, Array], counts: Counts) -> dict[str, Array]:
    """The stages, and what is combined of them, `[rows]`; 0 where it is of nothing."""
    found, empty = dict(stages), empty_sums(loss, counts)
    for one in loss.combined:
        if one.fold is Fold.LOGSUMEXP:
            found[one.name] = _log_of_sum(xp, one, found, empty)
            continue
        t, nothing = combined_argument(xp, loss, one, found, counts, empty)
        value = elementwise.value(xp, one.fold, t)
        found[one.name] = value if nothing is None else xp.where(nothing, 0.0, value)
    return found


def combined_argument(
    xp: Namespace,
    loss: PairLoss,
    one: Combine,
    found: Mapping[str, Array],
    counts: Counts,
    empty: Mapping[str, Array | None],
) -> tuple[Array, Array | None]:
    """What a combination folds, `[rows]`, and in which rows that is of nothing, or for nothing and might overflow: it is 0."""
    t = reduce(add, (_scaled(term, found[term.stage]) for term in one.of))
    idle = without_effect(loss, counts, (one.name,)) if one.fold is Fold.EXP else None
    masks = [mask for mask in (idle, *(empty[term.stage] for term in one.of)) if mask is not None]
    nothing = reduce(or_, masks) if masks else None
    return (t if nothing is None else xp.where(nothing, 0.0, t)), nothing


def _scaled(term: Term, x: Array) -> Array:
    x = x if term.coefficient == 1.0 else term.coefficient * x
    return x + term.constant if term.constant else x


def _log_of_sum(xp: Namespace, one: Combine, found: Mapping[str, Array], empty: Mapping[str, Array | None]) -> Array:
    """Log Σ exp of the terms of a combination, without those of nothing; 0 where all are."""
    total, nothing = _scaled(one.of[0], found[one.of[0].stage]), empty[one.of[0].stage]
    for term in one.of[1:]:
        x, without = _scaled(term, found[term.stage]), empty[term.stage]
        both = xp.logaddexp(total, x)
        both = both if without is None else xp.where(without, total, both)
        total = both if nothing is None else xp.where(nothing, x, both)
        nothing = None if nothing is None or without is None else nothing & without
    return total if nothing is None else xp.where(nothing, 0.0, total)


def uncounted(loss: PairLoss, counts: Counts) -> Array | None:
    """Which rows do not count: those without a positive, or with a log-sum-exp term over nothing. None if all count."""
    stages = {stage.name: stage for stage in loss.stages}
    combined = empty_sums(loss, counts) if loss.combined else {}
    result = counts.lacking(Pairs.POSITIVE)
    for term in loss.terms:
        if term.stage not in stages:
            rows, empty = counts.of_kind(term.rows), combined[term.stage]
            if empty is not None:
                empty = empty if rows is None else empty & rows
                result = empty if result is None else result | empty
            continue
        stage = stages[term.stage]
        # With a positive, only a set of negatives can be empty.
        if stage.fold is Fold.LOGSUMEXP and (stage.over is Pairs.NEGATIVE or stage.minus):
            rows, empty = counts.of_kind(term.rows), without_pairs(loss, counts, stage)
            if empty is not None:
                empty = empty if rows is None else empty & rows
                result = empty if result is None else result | empty
    return result


def without_effect(loss: PairLoss, counts: Counts, names: Collection[str]) -> Array | None:
    """Rows whose loss some stages are not in, as these do not count, or subtract an empty stage, or no term is for their kind."""
    rows = uncounted(loss, counts)
    for stage in loss.stages:
        if stage.name in names and stage.minus is not None:
            empty = rows_with_empty_reference(loss, counts, stage.minus)
            rows = empty if rows is None else rows if empty is None else rows | empty
    used = {stage.minus for stage in loss.stages} | {term.stage for one in loss.combined for term in one.of}
    kinds = {term.rows for term in loss.terms if term.stage in names}
    if len(kinds) != 1 or used.intersection(names):
        return rows
    own = counts.of_kind(*kinds)
    others = None if own is None else ~own
    return others if rows is None else rows if others is None else rows | others


def without_uncounted(xp: Namespace, loss: PairLoss, counts: Counts, vector: Array) -> Array:
    """A vector by row, with 0 for rows that do not count."""
    rows = uncounted(loss, counts)
    return vector if rows is None else xp.where(rows, 0.0, vector)


def losses(xp: Namespace, loss: PairLoss, stages: Mapping[str, Array], counts: Counts) -> Array:
    """The loss of each row from its stages; 0 where the row does not count."""
    over = {stage.name: stage.over for stage in loss.stages}
    if loss.combined:
        stages = combine(xp, loss, stages, counts)
    by_kind: dict[Rows, Array] = {}
    of_one_pair: list[Array] = []  # 0 in all other rows
    for term in loss.terms:
        summand, single = stages[term.stage], isinstance(term, Single)
        if isinstance(term, Single):
            folded, there, t = term.argument(xp, loss, stages, counts)
            summand = xp.where(there, elementwise.value(xp, folded.fold, t), 0.0)
        subtracted = term.coefficient == -1.0 and not term.constant and not single and term.rows in by_kind
        if term.coefficient != 1.0 and not subtracted:
            summand = term.coefficient * summand
        if term.constant:
            empty = counts.lacking(over[term.stage]) if term.stage in over else None
            constant = summand + term.constant
            summand = constant if empty is None else xp.where(empty, summand, constant)
        elif single:
            of_one_pair.append(summand)
            continue
        total = by_kind.get(term.rows)
        by_kind[term.rows] = summand if total is None else total - summand if subtracted else total + summand
    total = None
    for kind, summand in by_kind.items():
        rows = counts.of_kind(kind)
        summand = summand if rows is None else xp.where(rows, summand, 0.0)
        total = summand if total is None else total + summand
    for summand in of_one_pair:
        total = summand if total is None else total + summand
    rows = uncounted(loss, counts)
    if rows is None or (rows is counts.lacking(Pairs.POSITIVE) and Rows.ALL not in by_kind):
        return total  # other kinds have a positive
    return xp.where(rows, 0.0, total)


def shares(xp: Namespace, loss: PairLoss, reduction: str, counts: Counts, every: Array) -> Array:
    """The weight of each row's loss in a scalar reduction, before the division by `divisor`; 0 if it does not count.

    `every` is 1 for each row that takes part, and 0 for padding and rows outside.
    """
    share = without_uncounted(xp, loss, counts, every)
    return share * counts.weight if reduction == "pairs" else share


def divisor(xp: Namespace, reduction: str, share: Array, every: Array) -> Array | None:
    """What a scalar reduction divides the sum of the losses by; None for 1. Processes with rows of one batch add theirs."""
    if reduction == "sum":
        return None
    total = xp.sum(every if reduction == "batch" else share)
    return xp.where(total == 0.0, 1.0, total)


def weights(xp: Namespace, loss: PairLoss, reduction: str, counts: Counts, inside: Array | None = None) -> Array:
    """The weight of each row's loss in a scalar reduction, `[rows]`; 0 where the row does not count."""
    every = xp.ones_like(counts.positive)
    if inside is not None:
        every = xp.where(inside, every, 0.0)
    share = shares(xp, loss, reduction, counts, every)
    if reduction != "sum" and (counts.some_count or (inside is None and share is every)):  # the sum is not 0
        number = every.shape[0]
        if inside is None and (share is every or reduction == "batch") and isinstance(number, int):
            return share / number
        return share / xp.sum(every if reduction == "batch" else share)
    total = divisor(xp, reduction, share, every)
    return share if total is None else share / total


def weighed_slopes(xp: Namespace, fold: Fold, slopes: Array, weight: Array) -> Array:
    """Slopes times weights; 0 where the weight is 0, as in a row that does not count: an exponential may be infinite there."""
    weighed = slopes * weight
    return xp.where(weight == 0.0, 0.0, weighed) if fold is Fold.EXP else weighed


def term_cotangents(
    xp: Namespace, loss: PairLoss, stages: Mapping[str, Array], counts: Counts, row_cotangents: Array
) -> dict[str, Array]:
    """The derivative of the value by each stage that has a term, through the terms alone, from that of each row's loss.

    The cotangent of a row that does not count must be 0.
    """
    result: dict[str, Array] = {}
    shares: dict[Rows, Array] = {}
    for term in loss.terms:
        rows = counts.of_kind(term.rows)
        if term.rows not in shares:
            shares[term.rows] = row_cotangents if rows is None else xp.where(rows, row_cotangents, 0.0)
        share = shares[term.rows]
        if term.coefficient != 1.0:
            share = term.coefficient * share
        if isinstance(term, Single):
            folded, there, t = term.argument(xp, loss, stages, counts)
            share = weighed_slopes(xp, folded.fold, elementwise.slope(xp, folded.fold, t), share)
            if there is not rows:
                share = xp.where(there, share, 0.0)
            slope, scale = share, folded.scale
            share = slope if scale == 1.0 else -slope if scale == -1.0 else scale * slope
            if folded.minus is not None:
                through = slope if scale == -1.0 else -share
                result[folded.minus] = result[folded.minus] + through if folded.minus in result else through
        result[term.stage] = result[term.stage] + share if term.stage in result else share
    if loss.combined:
        _through_combined(xp, loss, combine(xp, loss, stages, counts), counts, result)
    return result


def _through_combined(
    xp: Namespace, loss: PairLoss, found: Mapping[str, Array], counts: Counts, result: dict[str, Array]
) -> None:
    """Add the derivative by what combinations are of, from that by these, and take the latter out."""
    empty = empty_sums(loss, counts)
    for one in reversed(loss.combined):
        if one.name not in result:
            continue
        cotangent, exponential = result.pop(one.name), one.fold is Fold.LOGSUMEXP
        if not exponential:
            t, nothing = combined_argument(xp, loss, one, found, counts, empty)
            cotangent = cotangent * elementwise.slope(xp, one.fold, t)
            cotangent = cotangent if nothing is None else xp.where(nothing, 0.0, cotangent)
        for term in one.of:
            share = cotangent
            if exponential:
                nothing, t = empty[term.stage], _scaled(term, found[term.stage]) - found[one.name]
                share = cotangent * xp.exp(t if nothing is None else xp.where(nothing, 0.0, t))
                share = share if nothing is None else xp.where(nothing, 0.0, share)
            share = share if term.coefficient == 1.0 else term.coefficient * share
            result[term.stage] = result[term.stage] + share if term.stage in result else share


def check_reduction(reduction: str) -> None:
    """Raise OptionError unless the word is a reduction."""
    if reduction not in REDUCTIONS:
        raise unknown_choice("reduction", reduction, REDUCTIONS)
