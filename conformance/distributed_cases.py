"""The cases of losses over ranks: calls of a whole batch, and how far what ranks found is from what one process found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

import sincere_spec as ss
from sincere_spec.losses.f_micl import Divergence
from sincere_spec.losses.table import TABLE
from sincere_spec.spec.arrangements import Labelled, PairedViews, Queries, Towers, Views
from sincere_spec.spec.logits import CosineSchedule
from sincere_spec.spec.words import Arrangement, Fold, PairLoss, Pairs, Similarity, Stage, Term

WIDTH, QUEUE, CLASSES = 6, 9, 4
WORDS = ("ant", "bee", "cow", "doe")
DIVERGENCES: tuple[Divergence, ...] = ("js", "pearson", "hellinger", "tsallis", "vincze_le_cam")


@dataclass(frozen=True)
class Case:
    """A call of the whole batch: arrays and what names their rows by argument, other options, and which arrays are shared."""

    name: str
    loss: PairLoss
    arrays: Mapping[str, NDArray[np.float64]]
    rows: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    shared: tuple[str, ...] = ()

    def of_rank(self, start: int, stop: int) -> Case:
        """The same call with the rows of a rank."""

        def cut(name: str, x: Any) -> Any:
            if isinstance(x, tuple):
                return tuple(cut(name, part) for part in x)
            beside = name in self.shared or ("keys" in self.shared and name in ("key_labels", "key_ids"))
            return x if beside or x is None else x[start:stop]

        arrays, rows = ({name: cut(name, x) for name, x in given.items()} for given in (self.arrays, self.rows))
        return replace(self, arrays=arrays, rows=rows)


def cases(count: int, short: bool = False) -> Iterator[Case]:
    """Every loss with every reduction, and what else a call can say, for a batch of so many rows."""
    rng = np.random.default_rng(7)

    def rows(number: int = count) -> NDArray[np.float64]:
        return rng.normal(size=(number, WIDTH)) * np.exp(rng.normal(size=(number, 1)))

    labels, others = rng.integers(0, CLASSES, count), rng.integers(0, CLASSES, count)
    of_queue, ids, inside = rng.integers(0, CLASSES, QUEUE), rng.integers(0, 5, count), rng.random(count) < 0.7
    words = [WORDS[label] for label in labels]
    reductions = ("mean",) if short else ("mean", "pairs", "batch", "sum")
    for built_in in TABLE:
        record: Any = built_in.record
        loss = record() if "temperature" not in record.__code__.co_varnames else record(temperature=0.2)
        name, arrangement = built_in.name, loss.arrangement
        made: list[Case] = []
        if isinstance(arrangement, Labelled):
            named = {"labels": labels}
            plain = Case(name, loss, {"embeddings": rows()}, named)
            keys = Case(f"{name}, keys of each rank", loss, {"embeddings": rows(), "keys": rows()}, named)
            shared = Case(f"{name}, shared keys", loss, {"embeddings": rows(), "keys": rows(QUEUE)}, named)
            made = [plain, replace(keys, rows={**named, "key_labels": others})]
            made += [replace(shared, rows={**named, "key_labels": of_queue}, shared=("keys",))]
            made += [replace(plain, name=f"{name}, words as labels", rows={"labels": words})]
            made += [replace(plain, name=f"{name}, ids", rows={**named, "ids": ids})]
            made += [replace(plain, name=f"{name}, where", rows={**named, "where": inside})]
            made += [replace(plain, name=f"{name}, each row a class", rows={"labels": np.arange(count)})]
            made += [replace(plain, name=f"{name}, groups", rows={**named, "groups": others})]
        elif isinstance(arrangement, Views):
            two = Case(name, loss, {"a": rows(), "b": rows()})
            made = [two, Case(f"{name}, three views", loss, {"a": rows(), "b": rows(), "c": rows()})]
            made += [replace(two, name=f"{name}, where", rows={"where": inside})]
            made += [replace(two, name=f"{name}, groups", rows={"groups": others})]
            made += [replace(made[1], name=f"{name}, three views in groups", rows={"groups": others})]
            made += [replace(two, name=f"{name}, one view masked", rows={"where": (inside, None)})]
        elif isinstance(arrangement, Queries):
            pairs = Case(name, loss, {"queries": rows(), "positives": rows()})
            made = [pairs, Case(f"{name}, queue of each rank", loss, {**pairs.arrays, "negatives": rows()})]
            made += [
                Case(f"{name}, shared queue", loss, {**pairs.arrays, "negatives": rows(QUEUE)}, shared=("negatives",))
            ]
            made += [replace(pairs, name=f"{name}, where", rows={"where": inside})]
        elif isinstance(arrangement, (Towers, PairedViews)):
            made = [Case(name, loss, {"a": rows(), "b": rows()})]
            made += [replace(made[0], name=f"{name}, where", rows={"where": inside})]
            made += [replace(made[0], name=f"{name}, words as groups", rows={"groups": words})]
        if isinstance(arrangement, PairedViews):
            made += [Case(f"{name}, queue of each rank", loss, {**made[0].arrays, "negatives": rows()})]
            queue = {**made[0].arrays, "negatives": rows(QUEUE)}
            made += [Case(f"{name}, shared queue", loss, queue, shared=("negatives",))]
        assert made, f"{name}: no case for the arrangement {type(arrangement).__name__}"
        yield from made
        for reduction in reductions[1:]:
            yield replace(made[0], name=f"{made[0].name}, {reduction}", options={"reduction": reduction})
        yield replace(made[0], name=f"{made[0].name}, rows as they are", options={"normalize": False})
    name = "a logit of positives"
    yield Case(name, with_a_logit_of_positives(Labelled()), {"embeddings": rows()}, {"labels": labels, "where": inside})
    yield Case(f"{name}, towers", with_a_logit_of_positives(Towers(both_ways=True)), {"a": rows(), "b": rows()})
    queue = {"queries": rows(), "positives": rows(), "negatives": rows(QUEUE)}
    yield Case(f"{name}, shared queue", with_a_logit_of_positives(Queries()), queue, shared=("negatives",))
    if not short:
        embeddings, named = rows(), {"labels": labels}
        yield Case("sincere, margin", ss.losses.sincere(0.2, epsilon=0.3), {"embeddings": embeddings}, named)
        yield Case("sincere, cold", ss.losses.sincere(0.001), {"embeddings": embeddings}, named)
        yield Case("supcon, inside", ss.losses.supcon(0.2, "in"), {"embeddings": embeddings}, named)
        yield Case("dystress, undetached", ss.losses.dystress(detach=False), {"a": rows(), "b": rows()})
        for divergence in DIVERGENCES:
            yield Case(f"f_micl, {divergence}", ss.losses.f_micl(divergence), {"a": rows(), "b": rows()})


def with_a_logit_of_positives(arrangement: Arrangement) -> PairLoss:
    """A record of one's own: each positive against the negatives, and all others, each with its own logit."""
    stages = (
        Stage("noise", Fold.LOGSUMEXP, Pairs.NEGATIVE),
        Stage("margin", Fold.SOFTPLUS, Pairs.POSITIVE, scale=-1.0, minus="noise", mean=True),
        Stage("others", Fold.LOGSUMEXP, Pairs.OTHERS),
    )
    logit, near = Similarity(), CosineSchedule(0.5, 1.0, held=False)
    terms = (Term("margin"), Term("others", 0.5))
    return PairLoss("own", arrangement, stages, terms, logit, 0.2, positive_logit=near)


def call(
    case: Case, arrays: Mapping[str, Any], parameters: Mapping[str, Any], function: Any = ss.evaluate, **options: Any
) -> Any:
    """The value of a case with these arrays, or what another function makes of them."""
    named = {name: x for name, x in case.rows.items() if name not in ("labels", "where", "groups")}
    if "groups" in case.rows:
        named["ignore"] = ss.same(case.rows["groups"])
    positional = [x for name, x in arrays.items() if name != "keys"]
    if "labels" in case.rows:
        positional.insert(1, case.rows["labels"])
    if "keys" in arrays:
        named["keys"] = arrays["keys"]
    return function(case.loss, *positional, **named, **parameters, **case.options, **options)


def far(got: Any, want: Any, scale: float | None = None) -> float:
    """The largest difference, relative to a scale, which is the largest entry; infinite where something is not finite."""
    got, want = np.asarray(got, "float64"), np.asarray(want, "float64")
    if not got.size:
        return 0.0
    scale = float(np.abs(want).max()) if scale is None else scale
    found = float(np.abs(got - want).max()) / (scale if scale > 1e-6 else 1.0)
    return found if found < float("inf") else float("inf")


@dataclass(frozen=True)
class Verdict:
    """The worst error of a case over ranks and arrays, what has it, and whether all ranks have one value."""

    name: str
    error: float
    where: str
    one_value: bool

    def passes(self, limit: float) -> bool:
        """Whether the case holds."""
        return self.error <= limit and self.one_value
