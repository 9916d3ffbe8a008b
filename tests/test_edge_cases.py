"""Where losses go wrong: nothing to compare, extremes of scale, values that are no numbers, memory that is not contiguous."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from math import log, sqrt
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest
from catalogue import CALLS, LABELLED, WIDTH, Call, distance, rule
from edges import EDGES, MADE_DIFFERENTLY, Outcome, assert_near
from frameworks import UNIT, Framework, load

import sincere_spec as ss
from sincere_spec import losses

REDUCTIONS = ("mean", "pairs", "batch", "sum", "none")


def outcomes(here: Framework, calls: Mapping[str, Call], dtype: str) -> dict[str, list[Outcome]]:
    """The value and gradient of every call: by the formula, and by the framework's own way if it has one.

    Labels are integer arrays of the framework. Where there is a compiler that compiles once for all values (jax), all calls
    are one program; labels, temperatures and embeddings are its arguments.
    """
    inputs = {name: here.arrays(call.with_parameters().arrays, dtype) for name, call in calls.items()}
    given = {name: call.labels for name, call in calls.items() if call.labels is not None}
    labels = {name: here.array(np.asarray(numbers, dtype=np.int64)) for name, numbers in given.items()}
    key = tuple((name, tuple(x.shape for x in calls[name].arrays.values())) for name in calls)
    return _program(here.name, key, dtype)(inputs, labels)


@cache
def _program(framework: str, key: tuple[Any, ...], dtype: str) -> Callable[..., dict[str, list[Outcome]]]:
    here = load(framework)

    def run(inputs: Mapping[str, Any], labels: Mapping[str, Any]) -> dict[str, list[Outcome]]:
        found = {}
        for name, _ in key:
            # The record as it stands in the catalogue; its numbers come as arguments.
            call = replace(CALLS[name].with_parameters(), labels=labels.get(name))
            found[name] = [call.value_and_gradient(inputs[name])]
            if here.gradient is not None:
                found[name].append((call.value(inputs[name]), here.gradient(call.value, inputs[name])))
        return found

    return here.compile(run) if framework == "jax" and here.compile is not None else run


def exactly(here: Framework, call: Call, dtype: str) -> Outcome:
    """What NumPy answers in float64 to the inputs as they are after rounding to the dtype."""
    return call.with_parameters().value_and_gradient(here.rounded(call.with_parameters().arrays, dtype))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("edge", EDGES)
def test_every_loss_at_every_edge(framework: str, edge: str, dtype: str) -> None:
    """Values and gradients as exact as the rule says, with every gradient taken at the scale of its row."""
    here = load(framework)
    if framework == "jax" and dtype == "float64":
        pytest.skip(
            "a program of all losses takes long to compile: one dtype is enough, and gradients are tested in float64"
        )
    calls = {name: EDGES[edge](CALLS[name]) for name in MADE_DIFFERENTLY}
    for name, found in outcomes(here, calls, dtype).items():
        call, exact = calls[name], here.rounded(calls[name].with_parameters().arrays, dtype)
        for outcome in found:
            assert_near(here, call, edge, dtype, exact, outcome, exactly(here, call, dtype))


def zero(here: Framework, found: Outcome) -> bool:
    return not here.numbers(found[0]) and not any(np.any(here.numbers(x)) for x in found[1].values())


def test_nothing_to_compare_is_exactly_nothing(framework: str) -> None:
    """No positives: every loss with labels is 0. No negatives: SINCERE is 0, the decoupled loss does not count, SupCon stays."""
    here = load(framework)
    calls = {name: EDGES["all singletons"](CALLS[name]) for name in MADE_DIFFERENTLY}
    for name, found in outcomes(here, calls, "float32").items():
        assert all(zero(here, outcome) for outcome in found) == (calls[name].labels is not None), name
    calls = {name: EDGES["one class"](CALLS[name]) for name in MADE_DIFFERENTLY}
    found = outcomes(here, calls, "float32")
    assert all(zero(here, outcome) for name in ("sincere", "decoupled") for outcome in found[name])
    assert all(not np.any(here.numbers(x)) for _, gradient in found["sincere_epsilon"] for x in gradient.values())
    for name in ("supcon_out", "supcon_in"):
        assert all(here.numbers(value) >= log(5.0) * (1.0 - rule("float32", 0.2)) for value, _ in found[name])


def test_a_loss_does_not_depend_on_the_lengths_of_rows(framework: str) -> None:
    here = load(framework)
    plain = outcomes(here, {name: CALLS[name] for name in MADE_DIFFERENTLY}, "float32")
    for edge in ("norms of 1e-30", "norms of 1e30", "norms from 1e-30 to 1e30"):
        scaled = outcomes(here, {name: EDGES[edge](CALLS[name]) for name in MADE_DIFFERENTLY}, "float32")
        for name in scaled:
            for (got, _), (want, _) in zip(scaled[name], plain[name], strict=True):
                assert distance(here.numbers(got), here.numbers(want)) <= 4.0 * UNIT["float32"], (name, edge)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("edge", ["temperature 1e-3", "temperature 1e3", "one class", "a zero row"])
def test_half_types_at_the_edges(framework: str, edge: str, dtype: str) -> None:
    here = load(framework)
    if dtype not in here.dtypes:
        pytest.skip(f"{framework} has no {dtype}")
    call = EDGES[edge](CALLS["supcon_out"])
    exact = here.rounded(call.arrays, dtype)
    value, gradient = _half_program(framework, dtype)(
        here.array(call.arrays["embeddings"], dtype),
        here.array(np.asarray(call.labels)),
        here.array(call.temperature, "float32"),  # 1e-3 is no half
    )
    want, want_gradient = ss.value_and_gradient(
        losses.supcon(np.float32(call.temperature)), exact["embeddings"], call.labels
    )
    assert here.dtype(value) == "float32"
    assert here.dtype(gradient) == dtype
    assert distance(here.numbers(value), want) <= rule(dtype, call.temperature)
    # Entries below the smallest normal number of float16 keep fewer digits: at most half its last one, 2^-25.
    lost = 2.0**-25 * np.sqrt(want_gradient.size) / np.linalg.norm(want_gradient) if dtype == "float16" else 0.0
    assert distance(here.numbers(gradient), want_gradient) <= rule(dtype, call.temperature) + UNIT[dtype] + lost


@cache
def _half_program(framework: str, dtype: str) -> Callable[..., Any]:
    here = load(framework)

    def run(z: Any, labels: Any, temperature: Any) -> Any:
        value, gradient = ss.value_and_gradient(losses.supcon(), z, labels, temperature=temperature)
        return value, gradient.embeddings

    return here.compile(run) if framework == "jax" and here.compile else run


# --- few rows -------------------------------------------------------------------------------------------------------------


def cut(name: str, n: int) -> Call:
    call = CALLS[name]
    arrays = {argument: x[:n] if argument not in ("keys", "negatives") else x for argument, x in call.arrays.items()}
    return replace(call, arrays=arrays, labels=None if call.labels is None else call.labels[:n])


@pytest.mark.parametrize("n", [0, 1, 2])
def test_batches_of_no_one_and_two_rows(framework: str, n: int) -> None:
    here = load(framework)
    # In jax each size is compiled anew.
    names = MADE_DIFFERENTLY if framework != "jax" else ["sincere_keys", "supcon_out", "info_nce_queue", "clip"]
    calls = {name: cut(name, n) for name in names}
    for name, found in outcomes(here, calls, "float32").items():
        want, want_gradient = exactly(here, calls[name], "float32")
        for value, gradient in found:
            if n == 0:
                assert zero(here, (value, gradient)), name
            assert abs(here.numbers(value) - want) <= rule("float32", 0.2) * max(1.0, abs(want)), name
            for argument, expected in want_gradient.items():
                got = here.numbers(gradient[argument])
                assert got.shape == expected.shape, name
                error = np.linalg.norm(got - expected)
                assert error <= rule("float32", 0.2) * max(float(np.linalg.norm(expected)), 2.0 / 0.2), (name, argument)


@pytest.mark.parametrize("name", CALLS)
def test_what_a_batch_of_none_or_one_is(name: str) -> None:
    call, one = cut(name, 0), cut(name, 1)
    for reduction in REDUCTIONS:
        value = np.asarray(call.value(call.arrays, reduction=reduction))
        assert value.shape == ((0,) if reduction == "none" else ())
        assert not np.any(value)
    for argument, gradient in call.with_parameters().value_and_gradient(call.with_parameters().arrays)[1].items():
        assert gradient.shape == call.with_parameters().arrays[argument].shape
        assert not np.any(gradient)
    softmax = (*LABELLED, "info_nce", "info_nce_queue", "nt_xent", "nt_xent_three_views", "clip")
    if name in softmax or name.startswith("dystress"):
        # At equal similarities the positive is one of 1 + k, the queue's rows; three views are two positives that compete.
        want = log(2 if "three" in name else 1 + len(one.arrays.get("negatives", ())))
        value = one.value({argument: x * 0.0 + 1.0 for argument, x in one.arrays.items()})
        assert value == pytest.approx(want, abs=4.0 * UNIT["float64"])


def test_the_first_term_stays_where_there_are_no_negatives(framework: str) -> None:
    here = load(framework)
    a, b = here.array([[3.0, 4.0]]), here.array([[4.0, 3.0]])
    s = 0.96
    siglip = here.numbers(ss.siglip_loss(a, b, temperature=0.5, bias=-1.0))
    assert distance(siglip, np.log1p(np.exp(-(s / 0.5 - 1.0)))) <= rule("float64", 0.5)
    f_micl = here.numbers(ss.f_micl_loss(a, b, divergence="pearson"))
    assert distance(f_micl, -2.0 * (np.exp(2.0 * (s - 1.0)) - 1.0)) <= rule("float64", 0.5) * 20.0  # 1 - exp(-0.08)


def test_a_queue_and_keys_of_no_rows(framework: str) -> None:
    here, call = load(framework), CALLS["info_nce_queue"]
    q, p, _ = here.arrays(call.arrays).values()
    nobody = here.array(np.zeros((0, WIDTH)))
    value, gradient = ss.value_and_gradient(losses.info_nce(0.2), q, p, nobody)
    assert zero(here, (value, gradient._asdict()))
    assert tuple(gradient.negatives.shape) == (0, WIDTH)
    if here.gradient is not None:
        found = here.gradient(lambda x: ss.info_nce_loss(x["q"], p, x["queue"]), {"q": q, "queue": nobody})
        assert tuple(found["queue"].shape) == (0, WIDTH)
        assert zero(here, (value, found))
    for name in LABELLED:
        value, gradient = ss.value_and_gradient(CALLS[name].loss, q, [0, 0, 1], keys=nobody, key_labels=[])
        assert zero(here, (value, gradient._asdict())), name
        assert tuple(gradient.keys.shape) == (0, WIDTH)
        rows = ss.evaluate(CALLS[name].loss, q, [0, 0, 1], keys=nobody, key_labels=[], reduction="none")
        assert here.numbers(rows).tolist() == [0.0, 0.0, 0.0]


def test_with_one_positive_a_row_supcon_is_sincere_however_small(framework: str) -> None:
    """Of one positive, far from all negatives, the loss is some 1e-17: the difference of two logarithms would be 0."""
    here = load(framework)
    z = here.array(np.asarray([[1.0, 0.0], [1.0, 0.01], [-1.0, 0.0], [-1.0, 0.01]]))
    supcon, sincere = (
        float(here.numbers(ss.evaluate(loss, z, [0, 0, 1, 1], engine="dense")))
        for loss in (losses.supcon(0.05), losses.sincere(0.05))
    )
    assert 1e-18 < sincere < 1e-16
    assert abs(supcon - sincere) <= 1e-12 * sincere


def test_keys_among_which_no_anchor_has_a_positive(framework: str) -> None:
    here, call = load(framework), CALLS["sincere_keys"]
    for name in LABELLED:
        strangers = replace(call, loss=CALLS[name].loss, options={"key_labels": [7] * 7})
        assert zero(here, strangers.value_and_gradient(here.arrays(call.arrays))), name


@pytest.mark.parametrize("width", [0, 1])
def test_embeddings_of_one_entry_and_of_none(framework: str, width: int) -> None:
    """Rows without entries have similarity 0: SINCERE is log(1 + |N|). Of one entry they are 1 or -1."""
    here = load(framework)
    x = np.asarray([[2.0], [-3.0], [0.5], [-1.0]])
    z, labels = here.array(x[:, :width]), [0, 0, 1, 1]
    value, gradient = ss.value_and_gradient(losses.sincere(0.5), z, labels)
    assert tuple(gradient.shape) == (4, width)
    assert not np.any(here.numbers(gradient))
    # Each row has a positive and one negative at similarity -1, and a negative at 1; in no dimensions all are 0.
    want = log(3.0) if width == 0 else log(1.0 + 1.0 + np.exp(4.0))
    assert distance(here.numbers(value), want) <= rule("float64", 0.5, width)
    clip = here.numbers(ss.clip_loss(z, z, temperature=0.5))
    assert distance(clip, log(4.0) if width == 0 else log(2.0 + 2.0 * np.exp(-4.0))) <= rule("float64", 0.5, width)


# --- late training -----------------------------------------------------------------------------------------------------------


def late(noise: float) -> dict[str, np.ndarray]:
    """Two views of 8 well separated samples: what a loss sees after long training."""
    rng = np.random.default_rng(4)
    centres = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    return {name: (centres + noise * rng.normal(size=(8, 8))).astype(np.float32) for name in ("a", "b")}


LATE: dict[str, tuple[Callable[[float], Any], Callable[[Any, Any], tuple[Any, ...]], int]] = {
    "sincere": (losses.sincere, lambda a, b: (a, b), 1),
    "supcon_out": (losses.supcon, lambda a, b: (a, b), 1),
    "supcon_in": (lambda t: losses.supcon(t, "in"), lambda a, b: (a, b), 1),
    "nt_xent": (losses.nt_xent, lambda a, b: (a, b), 2),
    "dystress": (lambda t: losses.dystress(t, t), lambda a, b: (a, b), 2),
    "info_nce": (losses.info_nce, lambda a, b: (a, b), 2),
    "clip": (losses.clip, lambda a, b: (a, b), 2),
}


def late_value(name: str, a: np.ndarray, b: np.ndarray, temperature: float) -> Any:
    """The loss in 60 digits: log(1 + Σ exp(a_n - a_p)), a row at a time."""
    with mpmath.workdps(60):

        def unit(x: np.ndarray) -> list[list[Any]]:
            rows = [[mpmath.mpf(float(entry)) for entry in row] for row in x]
            return [[entry / mpmath.sqrt(mpmath.fsum(e * e for e in row)) for entry in row] for row in rows]

        def rows(
            anchors: Any, keys: Any, positive: Callable[[int], int], among: Callable[[int], list[int]]
        ) -> list[Any]:
            result = []
            for i, z in enumerate(anchors):
                logit = [mpmath.fdot(z, k) / mpmath.mpf(temperature) for k in keys]
                noise = mpmath.fsum(mpmath.exp(logit[j] - logit[positive(i)]) for j in among(i))
                result.append(mpmath.log1p(noise))
            return result

        x, y = unit(a), unit(b)

        def across(p: Any, q: Any) -> list[Any]:
            return rows(p, q, lambda i: i, lambda i: [j for j in range(8) if j != i])

        if name == "info_nce":
            found = across(x, y)
        elif name == "clip":
            found = across(x, y) + across(y, x)
        else:
            z = x + y
            found = rows(z, z, lambda i: (i + 8) % 16, lambda i: [j for j in range(16) if j % 8 != i % 8])
        return mpmath.fsum(found) / len(found)


@pytest.mark.parametrize(("temperature", "noise"), [(0.07, 0.05), (0.035, 0.05), (0.017, 0.02)])
@pytest.mark.parametrize("name", LATE)
def test_late_in_training_float64_keeps_its_digits(name: str, temperature: float, noise: float) -> None:
    a, b = late(noise).values()
    record, arrange, kind = LATE[name]
    z = arrange(a.astype(np.float64), b.astype(np.float64))
    given = (np.concatenate(z), [*range(8), *range(8)]) if kind == 1 else z
    want = late_value(name, a, b, temperature)
    got = ss.evaluate(record(temperature), *given)
    assert abs(got / float(want) - 1.0) <= rule("float64", temperature, 8)


@pytest.mark.parametrize(
    ("temperature", "noise", "size"), [(0.07, 0.05, 5e-6), (0.035, 0.05, 2e-11), (0.017, 0.02, 5e-25)]
)
def test_late_in_training_float32_keeps_its_digits(
    framework: str, temperature: float, noise: float, size: float
) -> None:
    """The value relatively, and the gradient as a whole, however small: down to 1e-24, with one positive a row."""
    here = load(framework)
    arrays = late(noise)
    exact = {name: x.astype(np.float64) for name, x in arrays.items()}

    inputs = {**arrays, "z": np.concatenate([*arrays.values()]), "t": np.asarray(temperature)}
    dtypes = {"t": "float64"}
    got = _late_program(framework)(*(here.array(x, dtypes.get(name, "float32")) for name, x in inputs.items()))
    want = _late_run(exact["a"], exact["b"], np.concatenate([*exact.values()]), np.asarray(temperature))
    # In float32 the temperature is rounded, too: at logits of 1 / temperature that is u / temperature of the loss.
    for name in want:
        assert size < want[name][0] < 10.0 * size, name
        assert distance(here.numbers(got[name][0]), want[name][0]) <= rule("float32", temperature, 8), name
        for argument, expected in want[name][1].items():
            assert distance(here.numbers(got[name][1][argument]), expected) <= rule("float32", temperature, 8), (
                name,
                argument,
            )


def _late_run(a: Any, b: Any, z: Any, t: Any) -> dict[str, Any]:
    found = {}
    for name, (record, _, kind) in LATE.items():
        if name != "dystress":  # its temperatures are numbers of the record; judged in float64 above
            given = (z, [*range(8), *range(8)]) if kind == 1 else (a, b)
            value, gradient = ss.value_and_gradient(record(0.1), *given, temperature=t)
            found[name] = (value, gradient._asdict())
    return found


@cache
def _late_program(framework: str) -> Callable[..., dict[str, Any]]:
    here = load(framework)
    return here.compile(_late_run) if framework == "jax" and here.compile else _late_run


@pytest.mark.framework("torch")
@pytest.mark.parametrize("temperature", [0.07, 0.03])  # colder, and their square leaves the range of float32
def test_late_in_training_torch_s_second_derivatives_are_finite(temperature: float) -> None:
    import torch

    a, b = (torch.tensor(x, requires_grad=True) for x in late(0.02).values())
    value = ss.clip_loss(a, b, temperature=temperature)
    (gradient,) = torch.autograd.grad(value, a, create_graph=True)
    (second,) = torch.autograd.grad(torch.sum(gradient * gradient.detach()), a)
    assert torch.all(torch.isfinite(second))
    exact = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in late(0.02).values()]
    (gradient64,) = torch.autograd.grad(ss.clip_loss(*exact, temperature=temperature), exact[0], create_graph=True)
    (want,) = torch.autograd.grad(torch.sum(gradient64 * gradient64.detach()), exact[0])
    size = float(torch.linalg.norm(want))
    assert size == 0.0 or distance(second.double().numpy() / size, want.numpy() / size) <= 4.0 * rule(
        "float32", temperature, 8
    )


@pytest.mark.framework("torch")
def test_a_margin_of_a_thousand_logits_has_finite_second_derivatives() -> None:
    """softplus(t) at t = -2000: its derivatives are 0, not 0 · inf."""
    import torch

    a = torch.eye(3, dtype=torch.float64, requires_grad=True)
    value = ss.clip_loss(a, torch.eye(3, dtype=torch.float64), temperature=1e-3)
    (gradient,) = torch.autograd.grad(value, a, create_graph=True)
    (second,) = torch.autograd.grad(gradient.sum() + (a * gradient).sum(), a)
    assert torch.all(torch.isfinite(second))


# --- values that are no numbers -------------------------------------------------------------------------------------------------


def spoilt(call: Call, bad: float) -> list[dict[str, np.ndarray]]:
    """The arrays of a call, with one bad entry in each in turn; its row has no positive, where rows can be without."""
    result = []
    for argument in call.arrays:
        arrays = {name: x.copy() for name, x in call.arrays.items()}
        arrays[argument][-1, 1] = bad
        result.append(arrays)
    return result


def is_lost(here: Framework, value: Any) -> bool:
    """Whether a value, or some row of it, is NaN, and a scalar is nothing else."""
    return bool(np.any(np.isnan(here.numbers(value))))


@pytest.mark.parametrize("name", CALLS)
def test_nan_and_infinity_make_the_value_nan_and_the_gradient_too(framework: str, name: str) -> None:
    here, call = load(framework), CALLS[name]
    # In jax, where each operation is compiled, all reductions of one loss; the compiled program below has the others.
    reductions = REDUCTIONS if framework != "jax" or name == "sincere" else ("mean",)
    for bad in (np.nan, np.inf, -np.inf):
        for arrays in spoilt(call, bad):
            x = here.arrays(arrays)
            for reduction in reductions:
                assert is_lost(here, call.value(x, reduction=reduction)), (bad, reduction)
                assert is_lost(here, call.value(x, reduction=reduction, normalize=False)), (bad, reduction)
            value, gradient = call.value_and_gradient(x)
            assert is_lost(here, value)
            assert any(is_lost(here, part) for part in gradient.values())
            if here.gradient is not None:
                assert any(is_lost(here, part) for part in here.gradient(call.value, x).values())


@pytest.mark.parametrize("name", LABELLED)
@pytest.mark.parametrize("edge", ["one class", "all singletons"])
def test_nan_is_not_hidden_where_there_is_nothing_to_compare(framework: str, name: str, edge: str) -> None:
    here, call = load(framework), EDGES[edge](CALLS[name])
    for bad in (np.nan, np.inf):
        (arrays,) = spoilt(call, bad)
        for normalize in (True, False):
            assert is_lost(here, call.value(here.arrays(arrays), normalize=normalize))


@pytest.mark.parametrize("framework", ["jax", "tensorflow"], indirect=True)
def test_compiled_by_xla_nan_makes_nan_and_numbers_numbers(framework: str) -> None:
    """XLA's maximum may pass NaN by. One program has every loss, and each array is spoilt in turn."""
    here = load(framework)
    assert here.compile is not None

    def run(inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: [call.value(inputs[name]), call.value(inputs[name], normalize=False, reduction="none")]
            for name, call in CALLS.items()
        }

    program = here.compile(run)
    plain = {name: here.arrays(call.arrays, "float32") for name, call in CALLS.items()}
    for name, values in program(plain).items():
        want = CALLS[name].value(CALLS[name].arrays)
        assert not any(is_lost(here, value) for value in values)
        assert distance(here.numbers(values[0]), want) <= rule("float32", CALLS[name].temperature)
    for bad in (np.nan, np.inf, -np.inf):
        for turn in range(3):
            inputs = {}
            for name, call in CALLS.items():
                ways = spoilt(call, bad)
                inputs[name] = here.arrays(ways[turn % len(ways)], "float32")
            for name, values in program(inputs).items():
                assert all(is_lost(here, value) for value in values), (name, bad, turn)


def test_a_temperature_that_cannot_be_seen_makes_nan_unless_it_is_positive(framework: str) -> None:
    """Under tracing a temperature has no value yet: 0, negative or infinite ones show in the result."""
    here, call = load(framework), CALLS["sincere"]
    if here.compile is None:
        pytest.skip(f"{framework} does not trace: such temperatures are refused")
    z = here.array(call.arrays["embeddings"])
    program = here.compile(lambda x, t: ss.sincere_loss(x, call.labels, t))
    for temperature in (0.0, -0.1, np.inf, np.nan):
        assert is_lost(here, program(z, here.array(temperature)))
    assert distance(here.numbers(program(z, here.array(0.2))), call.value(call.arrays)) <= rule("float64", 0.2)


# --- memory ------------------------------------------------------------------------------------------------------------------


def read_only(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x.flags.writeable = False
    return x


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "Fortran order": np.asfortranarray,
    "every other row": lambda x: np.repeat(x, 2, axis=0)[::2],
    "every other column": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "negative strides": lambda x: np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1],
    "read-only": read_only,
    "big-endian": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "not aligned": lambda x: np.frombuffer(b"." + x.tobytes(), dtype=x.dtype, offset=1).reshape(x.shape),
}


@pytest.mark.framework("numpy")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", MADE_DIFFERENTLY)
def test_how_an_array_lies_in_memory_is_of_no_account(name: str, layout: str) -> None:
    call = CALLS[name]
    arrays = {argument: LAYOUTS[layout](x) for argument, x in call.arrays.items()}
    before = {argument: x.copy() for argument, x in arrays.items()}
    value, gradient = call.value_and_gradient(arrays)
    want, want_gradient = call.value_and_gradient(call.arrays)
    # A product of strided arrays may be added up in another order: a similarity differs by a few u.
    bound = rule("float64", call.temperature)
    assert distance(value, want) <= bound
    for argument in arrays:
        assert distance(gradient[argument], want_gradient[argument]) <= bound
        np.testing.assert_array_equal(arrays[argument], before[argument])


@pytest.mark.framework("torch")
@pytest.mark.parametrize("name", MADE_DIFFERENTLY)
def test_torch_tensors_that_are_not_contiguous(name: str) -> None:
    import torch

    here, call = load("torch"), CALLS[name]
    plain = here.arrays(call.arrays)
    strided = {argument: torch.repeat_interleave(x, 2, dim=0)[::2].mT.contiguous().mT for argument, x in plain.items()}
    for x in strided.values():
        assert not x.is_contiguous()
        x.requires_grad_()
    want, want_gradient = call.value_and_gradient(call.arrays)
    value = call.value(strided)
    value.backward()
    assert distance(here.numbers(value), want) <= rule("float64", call.temperature)
    for argument, x in strided.items():
        assert distance(here.numbers(x.grad), want_gradient[argument]) <= rule("float64", call.temperature)


def test_arguments_are_left_as_they_were(framework: str) -> None:
    here = load(framework)
    for name in MADE_DIFFERENTLY:
        call = CALLS[name].with_parameters()
        arrays = here.arrays(call.arrays)
        call.value_and_gradient(arrays)
        call.value(arrays)
        for argument, x in arrays.items():
            np.testing.assert_array_equal(here.numbers(x), call.arrays[argument])


# --- what frameworks do to a call ---------------------------------------------------------------------------------------------


@pytest.mark.framework("jax")
def test_jax_without_64_bits() -> None:
    """The default of jax: float32 embeddings, labels that its int32 could not hold, eagerly and compiled, without a warning."""
    code = """
import jax, jax.numpy as jnp, numpy as np, sincere_spec as ss
assert not jax.config.jax_enable_x64
z = np.round(np.random.default_rng(1).normal(size=(6, 4)) * 16) / 16
labels = np.asarray([0, 0, 0, 1, 1, 2]) * 2**32
want, want_gradient = ss.value_and_gradient(ss.losses.supcon(0.2), z, labels)
x = jnp.asarray(z, dtype=jnp.float32)
def run(x): return ss.value_and_gradient(ss.losses.supcon(0.2), x, labels)
def own(x): return jax.value_and_grad(lambda x: ss.supcon_loss(x, labels, 0.2))(x)
for found in (run(x), jax.jit(run)(x), jax.jit(own)(x)):
    print(abs(float(found[0]) / want - 1), np.linalg.norm(found[1] - want_gradient) / np.linalg.norm(want_gradient))
    assert found[0].dtype == found[1].dtype == np.float32
y = jnp.asarray([0, 0, 0, 1, 1, 2])
print(abs(float(jax.jit(lambda x, y: ss.supcon_loss(x, y, 0.2))(x, y)) / want - 1), 0.0)
print(abs(float(ss.supcon_loss(x, labels, 0.2, ids=np.arange(6) * 2**40)) / want - 1), 0.0)
"""
    environment = {**os.environ, "JAX_ENABLE_X64": "0", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=Path(__file__).parents[1],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    errors = [float(word) for word in done.stdout.split()]
    assert len(errors) == 10
    assert max(errors) <= rule("float32", 0.2)


@pytest.mark.framework("tensorflow")
@pytest.mark.parametrize("name", ["sincere", "supcon_out", "info_nce_queue", "nt_xent", "clip", "siglip", "f_micl_js"])
def test_tensorflow_with_batches_of_a_size_not_known_yet(name: str) -> None:
    import tensorflow as tf

    call = CALLS[name]
    rows = tf.TensorSpec([None, WIDTH], tf.float64)
    specs: list[Any] = [rows for _ in call.arrays]
    if call.labels is not None:
        specs.insert(1, tf.TensorSpec([None], tf.int32))

    @tf.function(input_signature=specs)
    def run(*given: Any) -> Any:
        return ss.evaluate(call.loss, *given), ss.value_and_gradient(call.loss, *given)

    for n in (0, 1, 2, 3, 6):
        cutting = cut(name, n)
        given = [tf.constant(x) for x in cutting.arrays.values()]
        if call.labels is not None:
            given.insert(1, tf.constant(cutting.labels, tf.int32))
        value, (again, gradient) = run(*given)
        want, want_gradient = cutting.value_and_gradient(cutting.arrays)
        found = dict(zip(cutting.arrays, (gradient,))) if len(cutting.arrays) == 1 else gradient._asdict()
        for one in (value, again):
            assert abs(one.numpy() - want) <= rule("float64", 0.2) * max(1.0, abs(want))
        for argument, expected in want_gradient.items():
            assert found[argument].shape == expected.shape
            error = np.linalg.norm(found[argument].numpy() - expected)
            assert error <= rule("float64", 0.2) * max(2.0 / 0.2, float(np.linalg.norm(expected)))


@pytest.mark.framework("tensorflow")
def test_tensorflow_with_views_of_a_batch_of_a_size_not_known_yet() -> None:
    import tensorflow as tf

    call = CALLS["sincere"]

    @tf.function(input_signature=[tf.TensorSpec([None, 2, WIDTH], tf.float64), tf.TensorSpec([None], tf.int64)])
    def run(z: Any, labels: Any) -> Any:
        return ss.value_and_gradient(call.loss, z, labels)

    z = call.arrays["embeddings"].reshape(3, 2, WIDTH)
    value, gradient = run(tf.constant(z), tf.constant([0, 0, 1], tf.int64))
    want, want_gradient = ss.value_and_gradient(call.loss, z, [0, 0, 1])
    assert distance(value.numpy(), want) <= rule("float64", 0.2)
    assert distance(gradient.numpy(), want_gradient) <= rule("float64", 0.2)


@pytest.mark.framework("torch")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.parametrize("name", ["sincere", "clip"])
def test_torch_compiles_a_loss_and_its_gradient_as_one_graph(name: str) -> None:
    import torch

    here, call = load("torch"), CALLS[name]
    labels = None if call.labels is None else torch.tensor(call.labels)
    traced = replace(call, labels=labels)

    def run(arrays: dict[str, Any]) -> Any:
        return traced.value(arrays)

    torch.compiler.reset()
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    arrays = {argument: x.requires_grad_() for argument, x in here.arrays(call.arrays).items()}
    value = compiled(arrays)
    value.backward()
    want, want_gradient = call.value_and_gradient(call.arrays)
    assert distance(here.numbers(value), want) <= rule("float64", 0.2)
    for argument, x in arrays.items():
        assert distance(here.numbers(x.grad), want_gradient[argument]) <= rule("float64", 0.2)


@pytest.mark.framework("torch")
@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", MADE_DIFFERENTLY)
def test_torch_autocast_changes_nothing(name: str, kind: str) -> None:
    """A product taken in half precision would be wrong in the third digit of the similarities."""
    import torch

    here, call = load("torch"), CALLS[name]
    found = []
    for enabled in (False, True):
        arrays = {argument: x.requires_grad_() for argument, x in here.arrays(call.arrays, "float32").items()}
        with torch.autocast("cpu", dtype=getattr(torch, kind), enabled=enabled):
            value = call.value(arrays)
            family = call.value_and_gradient(arrays)
        value.backward()
        assert value.dtype is torch.float32
        found.append([value, family[0], *family[1].values(), *(x.grad for x in arrays.values())])
    for plain, cast in zip(*found, strict=True):
        assert torch.equal(plain, cast)


def test_a_loss_of_ordinary_size_is_of_ordinary_size() -> None:
    """An anchor for the relative rules above: SINCERE of random rows is near the logarithm of its negatives plus one."""
    z = np.random.default_rng(0).normal(size=(64, 256))
    value = ss.sincere_loss(z, np.arange(64) // 4, temperature=1.0)
    assert abs(value - log(61.0)) < 4.0 / sqrt(256.0)
