"""`positive_logit`: another logit for positives, in every engine, against rows whose pairs are listed one by one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from math import cos, sin
from typing import Any

import numpy as np
import pytest
import relation_rows as plain
from catalogue import distance
from frameworks import load
from relation_rows import log_sum_exp, softplus

import sincere_spec as ss
from sincere_spec.spec import (
    CosineSchedule,
    Fold,
    Labelled,
    Logit,
    LogKernel,
    PairLoss,
    Pairs,
    Queries,
    Similarity,
    Stage,
    Term,
    Towers,
    Views,
)

N, D, T, BIAS = 11, 3, 0.4, -0.7
LABELS = np.asarray([0, 1, 0, 2, 1, 0, 2, 3, 1, 2, 4])  # sorted, the twos are in two tiles of 8
ENGINES: dict[str, dict[str, Any]] = {
    "dense": {"engine": "dense"},
    "tiles of 8": {"engine": "tiled", "tile": 8},
    "tiles of 64": {"engine": "tiled", "tile": 64},
}


@dataclass(frozen=True)
class Angle(Logit):
    """The cosine of an angle that is a margin larger."""

    margin: float
    reach = (-1.0, 1.0)

    def value(self, xp: Any, s: Any) -> Any:
        return cos(self.margin) * s - sin(self.margin) * self.sine(xp, s)

    def slope(self, xp: Any, s: Any) -> Any:
        return cos(self.margin) + sin(self.margin) * s / self.sine(xp, s)

    def sine(self, xp: Any, s: Any) -> Any:
        square = 1.0 - s * s
        return xp.sqrt(xp.where(square > 1e-12, square, 1e-12))


@dataclass(frozen=True)
class Slowed(Logit):
    """(3 - s) s, of which the first factor is held: not bounded by anything that it says."""

    held = True

    def value(self, xp: Any, s: Any) -> Any:
        return (3.0 - s) * s

    def slope(self, xp: Any, s: Any) -> Any:
        return 3.0 - s


@dataclass(frozen=True)
class Twice(Logit):
    """2 s."""

    reach = (-2.0, 2.0)

    def value(self, xp: Any, s: Any) -> Any:
        return 2.0 * s

    def slope(self, xp: Any, s: Any) -> Any:
        return xp.zeros_like(s) + 2.0


@dataclass(frozen=True)
class Far(Logit):
    """s + 600, whose exponentials are out of range unless they are relative to its own reach."""

    reach = (599.0, 601.0)

    def value(self, xp: Any, s: Any) -> Any:
        return s + 600.0

    def slope(self, xp: Any, s: Any) -> Any:
        return xp.ones_like(s)


def cosine_schedule(s: Any) -> Any:
    return s / (0.2 + 0.5 * np.sin(0.5 * np.pi * s) ** 2)


# The logit of negatives and that of positives, and the formulas of both.
LOGITS: dict[str, tuple[Logit, Logit, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "angle": (Similarity(), Angle(0.3), lambda s: s, lambda s: np.cos(np.arccos(s + 0j) + 0.3)),
    "held": (Similarity(), Slowed(), lambda s: s, lambda s: (3.0 - np.real(s)) * s),
    "plain positives": (CosineSchedule(0.2, 0.7, held=False), Similarity(), cosine_schedule, lambda s: s),
    "far": (Similarity(), Far(), lambda s: s, lambda s: s + 600.0),
    "near": (Far(), Similarity(), lambda s: s + 600.0, lambda s: s),
    "shifted": (LogKernel(), Twice(), lambda s: s - 1.0, lambda s: 2.0 * s),
}
NOISE = Stage("noise", Fold.LOGSUMEXP, Pairs.NEGATIVE)
MARGIN = Stage("margin", Fold.SOFTPLUS, Pairs.POSITIVE, scale=-1.0, minus="noise", mean=True)
ATTRACT = Stage("attract", Fold.LINEAR, Pairs.POSITIVE, mean=True)
OTHERS = Stage("others", Fold.LOGSUMEXP, Pairs.OTHERS, scale=0.5)
INSIDE = Stage("inside", Fold.LOGSUMEXP, Pairs.POSITIVE, scale=-1.0, mean=True)
SQUARES = Stage("squares", Fold.SQUARE, Pairs.OTHERS, mean=True, offset=0.1)


def margin(p: list[Any], w: list[float], n: list[Any]) -> Any:
    return sum(softplus(log_sum_exp(n) - a) for a in p) / len(p) + 0.1 * log_sum_exp(n)


def outside(p: list[Any], w: list[float], n: list[Any]) -> Any:
    """Others have each pair with its own logit."""
    both = [0.5 * a for a in p + n]
    inside = log_sum_exp([-a for a in p]) - np.log(len(p))
    squares = sum((a + 0.1) ** 2 for a in p + n) / len(p + n)
    return log_sum_exp(both) - sum(p) / len(p) + 0.3 * inside + 0.2 * squares


FORMULAS: dict[str, tuple[tuple[Stage, ...], tuple[Term, ...], Callable[..., Any]]] = {
    "margin": ((NOISE, MARGIN), (Term("margin"), Term("noise", 0.1)), margin),
    "others": (
        (OTHERS, ATTRACT, INSIDE, SQUARES),
        (Term("others"), Term("attract", -1.0), Term("inside", 0.3), Term("squares", 0.2)),
        outside,
    ),
}
SHAPES: dict[str, tuple[Any, dict[str, tuple[int, ...]], Callable[..., plain.Rows]]] = {
    "labelled": (Labelled(), {"embeddings": (N, D)}, plain.labelled(lambda i, j: float(LABELS[i] == LABELS[j]))),
    "keys": (
        Labelled(),
        {"embeddings": (N, D), "keys": (7, D)},
        plain.labelled(lambda i, j: float(LABELS[i] == j)),
    ),
    "towers": (Towers(both_ways=True), {"a": (N, D), "b": (N, D)}, plain.towers),
    "views": (Views(), {"view_0": (N, D), "view_1": (N, D)}, plain.views),
    "queue": (Queries(), {"queries": (N, D), "positives": (N, D), "negatives": (9, D)}, plain.queue),
    "own negatives": (
        Queries(),
        {"queries": (N, D), "positives": (N, D), "negatives": (N, 2, D)},
        plain.own_negatives,
    ),
}
IGNORED = np.random.default_rng(1).random((N, N)) < 0.3  # not symmetric


def record(shape: str, formula: str, logits: str) -> PairLoss:
    (stages, terms, _), (logit, positive_logit, *_) = FORMULAS[formula], LOGITS[logits]
    return PairLoss("own", SHAPES[shape][0], stages, terms, logit, positive_logit=positive_logit)


def arrays(shape: str) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(2)
    return {name: generator.normal(size=size) for name, size in SHAPES[shape][1].items()}


def without(shape: str, masked: bool) -> Callable[[int, int], bool]:
    """What is ignored; positives stay."""

    def ignored(i: int, j: int) -> bool:
        same = LABELS[i] == LABELS[j] if shape == "labelled" else i == j
        return masked and bool(IGNORED[i, j]) and not same

    return ignored


@cache
def wanted(shape: str, formula: str, logits: str, masked: bool) -> tuple[float, dict[str, np.ndarray]]:
    given = arrays(shape) | {"temperature": np.asarray(T), "bias": np.asarray(BIAS)}
    negative, positive = LOGITS[logits][2:]

    def value(x: Any) -> Any:
        of_pairs = {name: v for name, v in x.items() if name not in ("temperature", "bias")}
        rows = SHAPES[shape][2](of_pairs, without(shape, masked))
        logit, other = ((lambda s, f=f: f(s) / x["temperature"] + x["bias"]) for f in (negative, positive))
        return plain.value(FORMULAS[formula][2], rows, logit, positive_logit=other)

    return float(np.real(value(given))), plain.derivative(value, given)


def check(framework: str, shape: str, formula: str, logits: str, masked: bool = False, **engine: Any) -> None:
    here = load(framework)
    given = here.arrays(arrays(shape))
    said: dict[str, Any] = {name: here.array(np.asarray(x)) for name, x in (("temperature", T), ("bias", BIAS))}
    positional = [x for name, x in given.items() if name != "keys"]
    if shape in ("labelled", "keys"):
        positional.insert(1, LABELS.tolist())
    if shape == "keys":
        said |= {"keys": given["keys"], "key_labels": list(range(7))}
    if masked:
        ignored = without(shape, True)
        said["ignore"] = here.array(np.asarray([[ignored(i, j) for j in range(N)] for i in range(N)]))
    value, gradient = ss.value_and_gradient(record(shape, formula, logits), *positional, **said, **engine)
    want, slopes = wanted(shape, formula, logits, masked)
    assert float(here.numbers(value)) == pytest.approx(want, rel=1e-12)
    for name, expected in slopes.items():
        assert distance(here.numbers(getattr(gradient, name)), expected) <= 1e-11, name


def skip_programs(framework: str, shape: str, engine: str) -> None:
    """Tiles of JAX and TensorFlow are programs, of several seconds each to compile, and of the latter some are enough."""
    if engine != "dense" and (shape, engine) not in PROGRAMS.get(framework, {(shape, engine)}):
        pytest.skip("traces are those of another shape, which is compiled")


PROGRAMS = {
    "jax": {("labelled", "tiles of 8"), ("keys", "tiles of 8"), ("towers", "tiles of 64")},
    "tensorflow": {("labelled", "tiles of 8"), ("queue", "tiles of 64")},
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("shape", SHAPES)
def test_positives_have_a_logit_of_their_own(framework: str, shape: str, formula: str, engine: str) -> None:
    skip_programs(framework, shape, engine)
    check(framework, shape, formula, "angle", **ENGINES[engine])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("logits", [name for name in LOGITS if name != "angle"])
@pytest.mark.parametrize("shape", ["labelled", "keys", "towers"])
def test_either_logit_may_be_any(framework: str, shape: str, logits: str, engine: str) -> None:
    if logits not in ("plain positives", "far", "near"):
        skip_programs(framework, "", engine)
    skip_programs(framework, shape, engine)
    check(framework, shape, "others", logits, **ENGINES[engine])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("shape", ["labelled", "towers", "views"])
def test_it_is_that_of_positives_under_an_asymmetric_relation(framework: str, shape: str, engine: str) -> None:
    skip_programs(framework, shape, engine)
    check(framework, shape, "margin", "angle", masked=True, **ENGINES[engine])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("logits", ["far", "near"])
def test_pairs_of_one_kind_are_as_if_there_were_no_other(framework: str, logits: str, engine: str) -> None:
    """The range of exponentials of a kind of which a row has no pairs hides nothing."""
    skip_programs(framework, "", engine)
    here, loss = load(framework), record("labelled", "others", logits)
    z = here.arrays(arrays("labelled"))["embeddings"]
    one_logit = replace(loss, logit=loss.logit_of(Pairs.POSITIVE), positive_logit=None)
    found, want = (ss.value_and_gradient(x, z, [0] * N, temperature=T, **ENGINES[engine]) for x in (loss, one_logit))
    assert float(here.numbers(found[0])) == pytest.approx(float(here.numbers(want[0])), rel=1e-12)
    assert distance(here.numbers(found[1]), here.numbers(want[1])) <= 1e-12
    value, gradient = ss.value_and_gradient(loss, z, [*range(N)], temperature=T, **ENGINES[engine])
    assert float(here.numbers(value)) == 0.0
    assert not np.any(here.numbers(gradient))


@pytest.mark.parametrize("framework", ["torch", "jax", "tensorflow"], indirect=True)
@pytest.mark.parametrize("logits", ["angle", "held"])
def test_a_framework_differentiates_it(framework: str, logits: str) -> None:
    """By its own rules through the dense engine's operations, and through the tiled engine's derivative."""
    here, loss = load(framework), record("labelled", "others", logits)
    given = here.arrays({**arrays("labelled"), "temperature": np.asarray(T)})

    def value(x: Any, engine: str) -> Any:
        said = {"temperature": x["temperature"], "bias": BIAS, **ENGINES[engine]}
        return ss.evaluate(loss, x["embeddings"], LABELS.tolist(), **said)

    want = wanted("labelled", "others", logits, False)[1]
    for engine in ("dense", "tiles of 8"):
        found = here.gradient(lambda x, e=engine: value(x, e), given)
        for name in given:
            assert distance(here.numbers(found[name]), want[name]) <= 1e-11, (engine, name)


@pytest.mark.parametrize("framework", ["torch", "jax", "tensorflow"], indirect=True)
def test_two_records_that_differ_in_it_have_programs_of_their_own(framework: str) -> None:
    here = load(framework)
    z, labels = here.arrays(arrays("labelled"))["embeddings"], here.array(LABELS)

    def value(loss: PairLoss, z: Any) -> Any:
        return ss.evaluate(loss, z, labels)

    if framework == "torch":
        import torch

        program = torch.compile(value, backend="eager", fullgraph=True)
    elif framework == "jax":
        import jax

        program = jax.jit(value, static_argnums=0)
    else:
        import tensorflow as tf

        program = tf.function(value)
    stages, terms, _ = FORMULAS["others"]
    found = []
    for positive_logit in (None, Angle(0.3), Angle(0.2), Slowed()):
        loss = PairLoss("own", Labelled(), stages, terms, Similarity(), T, positive_logit=positive_logit)
        found.append(float(here.numbers(program(loss, z))))
        assert found[-1] == pytest.approx(float(here.numbers(value(loss, z))), rel=1e-14)
    assert len(set(found)) == 4


@pytest.mark.parametrize("framework", ["torch"], indirect=True)
def test_torch_differentiates_it_twice_and_compiles_its_tiles(framework: str) -> None:
    import torch

    loss, z = record("labelled", "others", "angle"), torch.tensor(arrays("labelled")["embeddings"])
    labels = torch.tensor(LABELS)

    def value(z: torch.Tensor, engine: str) -> torch.Tensor:
        return ss.evaluate(loss, z, labels, temperature=T, **ENGINES[engine])

    hessians = [torch.autograd.functional.hessian(lambda z, e=e: value(z, e), z) for e in ("dense", "tiles of 8")]
    assert bool(torch.isfinite(hessians[0]).all())
    torch.testing.assert_close(*hessians)
    tiles = torch.compile(lambda z: value(z, "tiles of 8"), backend="eager", fullgraph=True)
    leaf = z.clone().requires_grad_()
    tiles(leaf).backward()
    torch.testing.assert_close(leaf.grad, torch.func.grad(lambda z: value(z, "dense"))(z))


@pytest.mark.parametrize("framework", ["torch", "jax"], indirect=True)
@pytest.mark.parametrize("shape", ["labelled", "towers"])
def test_kernels_refuse_it_by_name_and_auto_chooses_another(framework: str, shape: str) -> None:
    here = load(framework)
    positional = [*here.arrays(arrays(shape)).values()] + ([LABELS] if shape == "labelled" else [])
    loss = record(shape, "margin", "angle")
    with pytest.raises(ss.EngineUnavailable, match="one logit for all pairs, and own another for positives"):
        ss.evaluate(loss, *positional, engine="kernel")
    assert ss.explain(loss, *positional).engine in ("dense", "tiled")


def test_ranks_describe_it_in_their_header() -> None:
    from sincere_spec.call.ranks import _structure

    assert _structure(record("labelled", "margin", "angle")) != _structure(record("labelled", "margin", "held"))


def test_the_repulsion_of_a_record_is_by_its_logits() -> None:
    """A positive is pushed away where its own logit is above the mean of the softmax."""
    z, angle = arrays("labelled")["embeddings"], Angle(0.3)
    stages = (Stage("others", Fold.LOGSUMEXP, Pairs.OTHERS), ATTRACT)
    loss = PairLoss("own", Labelled(), stages, (Term("others"), Term("attract", -1.0)), Similarity(), T)
    s = plain.unit(z) @ plain.unit(z).T
    others = ~np.eye(N, dtype=bool)
    positive = (LABELS[:, None] == LABELS) & others
    for record_, value in ((loss, s), (replace(loss, positive_logit=angle), np.where(positive, angle.value(np, s), s))):
        a = np.where(others, np.exp(value / T), 0.0)
        g = a / a.sum(1, keepdims=True) - 1.0 / np.maximum(positive.sum(1, keepdims=True), 1)
        found = ss.metrics.repulsion(record_, z, LABELS)
        assert float(found.share) == pytest.approx((g > 0.0)[positive].mean(), abs=1e-12)
        push = np.where(positive, np.maximum(g, 0.0), 0.0)
        assert float(found.force) == pytest.approx(push.sum() / np.abs(g[positive]).sum(), rel=1e-12)
        assert float(found.worst) == pytest.approx((push.max(1) * positive.sum(1)).max(), rel=1e-12)


def test_a_record_without_one_has_one_logit() -> None:
    z = arrays("labelled")["embeddings"]
    stages, terms, _ = FORMULAS["others"]
    one = PairLoss("own", Labelled(), stages, terms, Similarity(), T)
    same = replace(one, positive_logit=Similarity())
    for engine in ENGINES.values():
        found = [ss.evaluate(loss, z, LABELS, **engine) for loss in (one, same)]
        assert found[1] == pytest.approx(found[0], rel=1e-14)
    assert one.logit_of(Pairs.POSITIVE) is one.logit
