"""What engines remember of a record from call to call: never an array, never too much, and nothing that only looks equal."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from frameworks import load

import sincere_spec as ss
from sincere_spec import losses
from sincere_spec.engines import prune
from sincere_spec.spec import Fold, Labelled, PairLoss, Pairs, Similarity, Stage, Term

LABELS = [0, 0, 1, 1, 1, 2]
RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(6, 3))


@pytest.fixture(autouse=True)
def nothing_remembered() -> Iterator[None]:
    prune._remembered.clear()
    yield
    prune._remembered.clear()


def record(
    offset: float = 0.0, coefficient: float = 1.0, stage: type[Stage] = Stage, temperature: Any = 0.5
) -> PairLoss:
    stages = (stage("push", Fold.LOGSUMEXP, Pairs.NEGATIVE, offset=offset), Stage("pull", Fold.LINEAR, Pairs.POSITIVE))
    return PairLoss("mine", Labelled(), stages, (Term("push"), Term("pull", coefficient)), Similarity(), temperature)


def test_a_record_that_was_seen_is_not_rewritten_again(monkeypatch: pytest.MonkeyPatch) -> None:
    value = ss.evaluate(losses.supcon(0.1), ROWS, LABELS)
    assert prune._remembered
    monkeypatch.setattr(prune, "_REWRITE", {})
    assert ss.evaluate(losses.supcon(0.1), ROWS, LABELS) == value  # another record of the same stages


def test_records_that_are_equal_but_differ_are_told_apart() -> None:
    positive, negative = record(coefficient=0.0), record(coefficient=-0.0)
    assert positive == negative
    kept = []
    for loss in (positive, negative):
        ss.evaluate(loss, ROWS, LABELS)
        kept += [
            terms[1].coefficient for (_, given, _), (_, terms, _) in prune._remembered.values() if given is loss.terms
        ]
    assert [str(coefficient) for coefficient in kept] == ["0.0", "-0.0"]


def test_no_more_than_a_bound_is_remembered() -> None:
    for k in range(2 * prune.LIMIT + 3):
        ss.evaluate(record(offset=k / 64), ROWS, LABELS)
        assert 0 < len(prune._remembered) <= prune.LIMIT


def test_a_word_of_a_users_own_is_not_kept_with_what_it_holds() -> None:
    @dataclass(frozen=True)
    class StageWithAnArray(Stage):
        held: Any = None

    held = np.zeros(3)
    seen = weakref.ref(held)
    stages = (StageWithAnArray("push", Fold.LOGSUMEXP, Pairs.NEGATIVE, held=held),)
    loss = PairLoss("mine", Labelled(), stages, (Term("push"),), Similarity())
    ss.evaluate(loss, ROWS, LABELS)
    del held, stages, loss
    gc.collect()
    assert seen() is None


def test_nothing_of_a_call_stays(framework: str) -> None:
    """Neither its arrays nor a temperature that is one."""
    here = load(framework)
    z, temperature = here.array(ROWS.copy()), here.array(np.asarray(0.5))
    loss = record(temperature=temperature)
    ss.value_and_gradient(loss, z, LABELS)
    seen = [weakref.ref(z), weakref.ref(temperature)]
    del z, temperature, loss
    gc.collect()
    assert all(one() is None for one in seen)


def test_threads_share_what_is_remembered(framework: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for three only, so that they throw away what others look for."""
    monkeypatch.setattr(prune, "LIMIT", 3)
    here = load(framework)
    z = here.array(ROWS)
    made = [record(offset=k / 8) for k in range(8)]

    def value(k: int) -> float:
        return float(here.numbers(ss.evaluate(made[k % len(made)], z, LABELS, engine="dense")))

    expected = [value(k) for k in range(len(made))]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(value, range(64))) == expected * 8
