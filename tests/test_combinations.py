"""`Combine`: functions of a row's stages, in every engine, against rows whose pairs are listed one by one."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import relation_rows as plain
from catalogue import distance
from frameworks import load
from relation_rows import log_sum_exp, softplus

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
    Views,
)

N, D, T = 9, 3, 0.4
LABELS = np.asarray([0, 1, 0, 2, 1, 0, 2, 3, 1])
ENGINES: dict[str, dict[str, Any]] = {"dense": {"engine": "dense"}, "tiled": {"engine": "tiled", "tile": 4}}
STAGES = (
    Stage("near", Fold.LOGSUMEXP, Pairs.POSITIVE, scale=-1.0),
    Stage("far", Fold.LOGSUMEXP, Pairs.NEGATIVE),
    Stage("own", Fold.LINEAR, Pairs.POSITIVE, mean=True),
)
GAP = Combine("gap", Fold.LINEAR, (Term("near"), Term("far", 0.5, -0.25)))
COMBINED = (
    GAP,
    Combine("soft", Fold.SOFTPLUS, (Term("far"), Term("own", -1.0))),
    Combine("level", Fold.LOGSUMEXP, (Term("far", 0.5), Term("near"), Term("own", constant=0.3))),
    Combine("power", Fold.EXP, (Term("level", -0.5),)),
    Combine("hinge", Fold.HINGE, (Term("far", 0.5), Term("own", -0.5, 0.2))),
    Combine("bell", Fold.SIGMOID_SQUARED, (Term("gap"),)),
    Combine("square", Fold.SQUARE, (Term("soft", 0.3, -0.1),)),
)
KEEPING = (Term("soft"), Term("power", 2.0), Term("hinge"), Term("bell", -1.0, 0.5), Term("square"), Term("own", -0.1))


def hinge(t: Any) -> Any:
    return t if np.real(t) > 0.0 else 0.0 * t


def keeping(p: list[Any], w: list[float], n: list[Any]) -> Any:
    """With -inf for the log-sum-exp of no negatives, of which a softplus, a hinge and a sigmoid are 0."""
    near, own = log_sum_exp([-a for a in p]), sum(p) / len(p)
    far = log_sum_exp(n) if n else None
    soft = softplus(far - own) if n else 0.0
    level = log_sum_exp(([0.5 * far] if n else []) + [near, own + 0.3])
    bell = np.exp(-2.0 * softplus(-(near + 0.5 * far - 0.25))) if n else 0.0
    hinged = hinge(0.5 * far - 0.5 * own + 0.2) if n else 0.0
    return soft + 2.0 * np.exp(-0.5 * level) + hinged - bell + 0.5 + (0.3 * soft - 0.1) ** 2 - 0.1 * own


def dropping(p: list[Any], w: list[float], n: list[Any]) -> Any:
    """A sum with the log-sum-exp of no negatives is no number, and the row does not count."""
    return log_sum_exp([-a for a in p]) + 0.5 * log_sum_exp(n) - 0.25 if n else None


def alone(p: list[Any], w: list[float], n: list[Any]) -> Any:
    """log(exp(2 far)), of nothing where there are no negatives."""
    return 2.0 * log_sum_exp(n) if n else None


FORMULAS: dict[str, tuple[tuple[Combine, ...], tuple[Term, ...], Callable[..., Any]]] = {
    "keeping": (COMBINED, KEEPING, keeping),
    "dropping": ((GAP,), (Term("gap"),), dropping),
    "alone": ((Combine("alone", Fold.LOGSUMEXP, (Term("far", 2.0),)),), (Term("alone"),), alone),
}
SHAPES: dict[str, tuple[Any, dict[str, tuple[int, ...]], Callable[..., plain.Rows]]] = {
    "labelled": (
        Labelled(),
        {"embeddings": (N, D)},
        plain.labelled(lambda i, j: float(LABELS[i] == LABELS[j])),
    ),
    "towers": (Towers(both_ways=True), {"a": (N, D), "b": (N, D)}, plain.towers),
    "views": (Views(), {"view_0": (N, D), "view_1": (N, D)}, plain.views),
    "own negatives": (
        Queries(),
        {"queries": (N, D), "positives": (N, D), "negatives": (N, 2, D)},
        plain.own_negatives,
    ),
}
EMPTY = np.random.default_rng(1).random((N, N)) < 0.3
EMPTY[2] = True  # which leaves this row without negatives
THERE = np.asarray([[True, True], [False, True], [False, False]] * 3)


def record(shape: str, formula: str) -> PairLoss:
    combined, terms, _ = FORMULAS[formula]
    return PairLoss("own", SHAPES[shape][0], STAGES, terms, Similarity(), combined=combined)


def ignored(shape: str) -> Callable[[int, int], bool]:
    def without(i: int, j: int) -> bool:
        if shape == "own negatives":
            return not THERE[i, j]
        same = LABELS[i] == LABELS[j] if shape == "labelled" else i == j  # positives stay
        return bool(EMPTY[i, j]) and not same

    return without


def arrays(shape: str) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(2)
    return {name: generator.normal(size=size) for name, size in SHAPES[shape][1].items()}


@cache
def wanted(shape: str, formula: str, empty: bool) -> tuple[float, dict[str, np.ndarray]]:
    given = arrays(shape) | {"temperature": np.asarray(T)}
    without = ignored(shape) if empty else (lambda i, j: False)

    def value(x: Any) -> Any:
        rows = SHAPES[shape][2]({name: v for name, v in x.items() if name != "temperature"}, without)
        return plain.value(FORMULAS[formula][2], rows, lambda s: s / x["temperature"])

    return float(np.real(value(given))), plain.derivative(value, given)


def options(shape: str, here: Any, empty: bool) -> dict[str, Any]:
    if not empty:
        return {}
    if shape == "own negatives":
        return {"where": (None, None, THERE)}
    without = ignored(shape)
    return {"ignore": here.array(np.asarray([[without(i, j) for j in range(N)] for i in range(N)]))}


def check(framework: str, shape: str, formula: str, empty: bool, **engine: Any) -> None:
    here = load(framework)
    given = here.arrays(arrays(shape))
    positional = [*given.values()]
    if shape == "labelled":
        positional.insert(1, LABELS.tolist())
    temperature = {"temperature": here.array(np.asarray(T))}
    said = options(shape, here, empty) | temperature | engine
    value, gradient = ss.value_and_gradient(record(shape, formula), *positional, **said)
    want, slopes = wanted(shape, formula, empty)
    assert float(here.numbers(value)) == pytest.approx(want, rel=1e-12)
    for name, expected in slopes.items():
        assert distance(here.numbers(getattr(gradient, name)), expected) <= 1e-11, name


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("empty", [False, True], ids=["all pairs", "rows without negatives"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_combination_is_its_function(framework: str, shape: str, empty: bool, engine: str) -> None:
    if framework == "tensorflow" and engine == "tiled" and shape != "labelled":
        pytest.skip("TensorFlow never frees a program, and traces are JAX's: one shape is compiled there")
    check(framework, shape, "keeping", empty, **ENGINES[engine])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("formula", ["dropping", "alone"])
def test_a_row_without_the_log_sum_exp_of_a_combination_does_not_count(
    framework: str, formula: str, engine: str
) -> None:
    check(framework, "labelled", formula, True, **ENGINES[engine])


@pytest.mark.parametrize("framework", ["torch", "jax"], indirect=True)
@pytest.mark.parametrize("shape", ["labelled", "towers", "views"])
def test_kernels_serve_combinations(framework: str, shape: str) -> None:
    check(framework, shape, "keeping", False, engine="kernel", tile=16)


@pytest.mark.parametrize("framework", ["torch", "jax", "tensorflow"], indirect=True)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_framework_differentiates_combinations(framework: str, reduction: str) -> None:
    """By its own rules through the dense engine's operations, and through the tiled engine's derivative."""
    here, loss = load(framework), record("labelled", "keeping")
    given, said = here.arrays(arrays("labelled")), options("labelled", here, True)
    weights = here.array(np.linspace(0.5, 1.5, N))

    def value(x: Any, **engine: Any) -> Any:
        found = ss.evaluate(loss, x["embeddings"], LABELS, temperature=T, reduction=reduction, **said, **engine)
        if reduction == "mean":
            return found
        weighted = found * weights
        return __import__("tensorflow").reduce_sum(weighted) if framework == "tensorflow" else weighted.sum()

    dense, tiled = (here.gradient(lambda x, e=engine: value(x, **e), given) for engine in ENGINES.values())
    assert distance(here.numbers(tiled["embeddings"]), here.numbers(dense["embeddings"])) <= 1e-12
    if reduction == "mean":
        want = wanted("labelled", "keeping", True)[1]["embeddings"]
        assert distance(here.numbers(dense["embeddings"]), want) <= 1e-11


@pytest.mark.parametrize("framework", ["torch"], indirect=True)
def test_torch_differentiates_combinations_twice_and_compiles_them(framework: str) -> None:
    import torch

    loss, z = record("labelled", "keeping"), torch.tensor(arrays("labelled")["embeddings"])
    labels, empty = torch.tensor(LABELS), options("labelled", load(framework), True)

    def value(z: torch.Tensor, **engine: Any) -> torch.Tensor:
        return ss.evaluate(loss, z, labels, temperature=T, **empty, **engine)

    hessians = [torch.autograd.functional.hessian(lambda z, e=e: value(z, **e), z) for e in ENGINES.values()]
    assert bool(torch.isfinite(hessians[0]).all())
    torch.testing.assert_close(*hessians)
    torch.testing.assert_close(torch.compile(value, backend="eager", fullgraph=True)(z), value(z))


def test_a_batch_in_which_no_combination_counts_is_named() -> None:
    from sincere_spec.call import empty

    z = arrays("labelled")["embeddings"]
    for formula, counts in (("keeping", True), ("dropping", False), ("alone", False)):
        empty.looks_left[0] = empty.LOOKS
        if counts:
            assert ss.evaluate(record("labelled", formula), z, [0] * N) != 0.0
            continue
        with pytest.warns(ss.EmptyBatchWarning, match="none of the 9 rows"):
            assert ss.evaluate(record("labelled", formula), z, [0] * N) == 0.0


@pytest.mark.parametrize(
    ("of", "words"),
    [
        ((), "expected the stages that it is of"),
        ((Term("near", rows=Rows.ONE_POSITIVE),), "its terms are of all rows"),
    ],
)
def test_a_combination_is_of_stages(of: tuple[Term, ...], words: str) -> None:
    with pytest.raises(ss.OptionError, match=words):
        Combine("sum", Fold.EXP, of)


def test_a_stage_may_have_any_name() -> None:
    names = ("near", "the positive's logit")
    found = []
    for name in names:
        stages = (
            Stage(name, Fold.LOGSUMEXP, Pairs.NEGATIVE),
            Stage("margin", Fold.SOFTPLUS, Pairs.POSITIVE, -1.0, minus=name),
        )
        terms = (Term("margin", rows=Rows.ONE_POSITIVE), Term(name, 0.1))
        loss = PairLoss("mine", Labelled(), stages, terms, Similarity(), T)
        found.append(ss.evaluate(loss, np.random.default_rng(0).normal(size=(N, D)), LABELS))
    assert found[0] == found[1]
