"""Sums of exponentials have no maximum taken out. Where one is infinite in a row that does not count, no other row knows of it.

The rows that count are ordinary here, and float64 has numbers for all of them: what it makes is wanted in float32.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from frameworks import load

import sincere_spec as ss
from sincere_spec.spec import (
    Combine,
    Fold,
    Labelled,
    PairLoss,
    Pairs,
    Queries,
    Rows,
    Similarity,
    Stage,
    Term,
    Towers,
)

ENGINES: dict[str, dict[str, Any]] = {"dense": {"engine": "dense"}, "tiled": {"engine": "tiled", "tile": 2}}
E1, E2, E3 = np.eye(3)
NEAR, ASIDE = np.asarray([1.0, 0.1, 0.0]), np.asarray([0.2, 1.0, 0.1])

PUSH = Stage("push", Fold.EXP, Pairs.NEGATIVE, mean=True)
PULL = Stage("pull", Fold.EXP, Pairs.POSITIVE)
OWN = Stage("own", Fold.LINEAR, Pairs.POSITIVE, mean=True)
NOISE = Stage("noise", Fold.LOGSUMEXP, Pairs.NEGATIVE)
LEVEL = Stage("level", Fold.EXP, Pairs.NEGATIVE, scale=-1.0, minus="noise")
ATTRACT, REPEL = Term("own", -1.0), Term("push")


@dataclass(frozen=True)
class Batch:
    """A record with exponentials of up to exp(100), and a batch in which only rows that do not count have these."""

    loss: PairLoss
    arrays: dict[str, Any]
    labels: list[int] | None = None
    where: Any = None
    kernels: bool = False
    options: dict[str, Any] = field(default_factory=dict)


def record(arrangement: Any, stages: Any, terms: Any, combined: Any = ()) -> PairLoss:
    return PairLoss("own", arrangement, stages, terms, Similarity(), 0.01, combined=combined)


SINGLETONS = {"embeddings": np.stack([E1, NEAR, E2, E2, E3])}
ONE_POSITIVE = {"embeddings": np.stack([E1, E1, E2, 0.5 * E1 - E2, E3])}
QUEUE = {"queries": np.stack([E1, E2, E3]), "positives": np.stack([E1, NEAR, ASIDE]), "negatives": np.stack([E1, NEAR])}
BATCHES = {
    "negatives": Batch(record(Labelled(), (PUSH, OWN), (REPEL, ATTRACT)), SINGLETONS, [0, 0, 1, 2, 3], kernels=True),
    "another kind of rows": Batch(
        record(Labelled(), (PULL, OWN), (Term("pull", rows=Rows.SEVERAL_POSITIVES), ATTRACT)),
        ONE_POSITIVE,
        [0, 0, 1, 1, 1],
        kernels=True,
    ),
    "one positive": Batch(
        record(Labelled(), (NOISE, PULL), (Term("noise"), Term("pull", rows=Rows.ONE_POSITIVE))),
        {"embeddings": np.stack([E1, E1, E1, E1])},
        [0, 0, 0, 0],
    ),
    "less a stage": Batch(
        record(Labelled(), (NOISE, LEVEL, OWN), (Term("level"), ATTRACT)),
        {"embeddings": np.stack([E1, NEAR, E2, E2, 0.1 * E2 - E1])},
        [0, 0, 1, 2, 0],
    ),
    "a combination": Batch(
        record(
            Labelled(),
            (OWN, NOISE),
            (Term("power", rows=Rows.SEVERAL_POSITIVES), ATTRACT),
            (Combine("power", Fold.EXP, (Term("own"),)),),
        ),
        ONE_POSITIVE,
        [0, 0, 1, 1, 1],
        kernels=True,
    ),
    "a queue": Batch(
        record(Queries(), (PUSH, OWN), (REPEL, ATTRACT)),
        QUEUE,
        where=(None, np.asarray([False, True, True]), None),
        kernels=True,
    ),
    "negatives of each": Batch(
        record(Queries(), (NOISE, PULL), (Term("noise"), Term("pull"))),
        {
            "queries": np.stack([E1, E2]),
            "positives": np.stack([E1, E1]),
            "negatives": np.stack([[E2, E3], [E2, ASIDE]]),
        },
        where=(None, None, np.asarray([[False, False], [True, True]])),
    ),
    "own queue": Batch(
        record(Queries(), (PUSH, OWN), (REPEL, ATTRACT)),
        {
            "queries": np.stack([E1, E2]),
            "positives": np.stack([E1, E1]),
            "negatives": np.stack([[E1, E3], [E3, E1]]),
        },
        where=(None, np.asarray([False, True]), None),
    ),
    "towers": Batch(
        record(Towers(both_ways=True), (PUSH, OWN), (REPEL, ATTRACT)),
        {"a": np.stack([E1, E2, E3, -E3]), "b": np.stack([E1, -E1, E2, -E3])},
        options={"ignore": np.diag([False, True, True, False])},
    ),
}


def outcome(framework: str, batch: Batch, dtype: str, engine: dict[str, Any]) -> dict[str, np.ndarray]:
    here = load(framework)
    given = [here.array(x, dtype) for x in batch.arrays.values()]
    if batch.labels is not None:
        given.insert(1, batch.labels)
    said = {"where": batch.where, **{name: here.array(x) for name, x in batch.options.items()}}
    value, gradient = ss.value_and_gradient(batch.loss, *given, **said, **engine)
    found = {name: here.numbers(getattr(gradient, name, gradient)) for name in batch.arrays}
    return {"value": here.numbers(value), **found}


def assert_same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    for name, want in wanted.items():
        np.testing.assert_allclose(found[name], want, rtol=2e-4, atol=2e-4 * np.max(np.abs(want)), err_msg=name)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", BATCHES)
def test_what_is_infinite_in_a_row_that_does_not_count_is_nowhere(framework: str, name: str, engine: str) -> None:
    if framework == "tensorflow" and engine == "tiled" and name not in ("negatives", "a queue"):
        pytest.skip("TensorFlow never frees a program, and traces are JAX's: two are compiled there")
    wanted = outcome("numpy", BATCHES[name], "float64", ENGINES["dense"])
    assert all(np.all(np.isfinite(x)) for x in wanted.values())
    with np.errstate(over="ignore", invalid="ignore"):
        assert_same(outcome(framework, BATCHES[name], "float32", ENGINES[engine]), wanted)


@pytest.mark.parametrize("framework", ["torch", "jax"], indirect=True)
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")  # of the interpreter of Triton's programs
@pytest.mark.parametrize("name", [name for name, batch in BATCHES.items() if batch.kernels])
def test_kernels_have_nothing_of_it(framework: str, name: str) -> None:
    wanted = outcome("numpy", BATCHES[name], "float64", ENGINES["dense"])
    assert_same(outcome(framework, BATCHES[name], "float32", {"engine": "kernel", "tile": 16}), wanted)


@pytest.mark.framework("torch")
@pytest.mark.parametrize("name", BATCHES)
def test_torch_differentiates_twice_what_has_none_of_it(name: str) -> None:
    import torch

    batch = BATCHES[name]
    leaves = [torch.tensor(x, dtype=torch.float32, requires_grad=True) for x in batch.arrays.values()]
    given: list[Any] = [*leaves]
    if batch.labels is not None:
        given.insert(1, batch.labels)
    said = {word: torch.tensor(x) for word, x in batch.options.items()}
    value = ss.evaluate(batch.loss, *given, where=batch.where, engine="dense", **said)
    first = torch.autograd.grad(value, leaves, create_graph=True, materialize_grads=True)
    second = torch.autograd.grad(sum((x * x).sum() for x in first), leaves, materialize_grads=True)
    assert all(bool(torch.isfinite(x).all()) for x in (*first, *second))
