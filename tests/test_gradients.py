"""Gradients: those of `value_and_gradient` against each framework's own, and both to second order."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from catalogue import CALLS, EXACT, LABELLED, assert_gradients, distance, reduction_of, rule
from differences import central_differences
from frameworks import Framework, load

import sincere_spec as ss
from sincere_spec import losses
from sincere_spec.call import buckets
from sincere_spec.spec import elementwise

COTANGENT = -1.25


@pytest.mark.parametrize("name", EXACT)
def test_the_gradient_is_that_of_central_differences(name: str) -> None:
    """A derivative of a logit brings a factor of up to 25 = 1 / temperature²: h⁴/30 of 25⁵ is 5e-10, and u / h is 5e-13."""
    call, reduction = CALLS[name].with_parameters(), reduction_of(name)
    arrays = {argument: np.asarray(x, dtype=np.float64) for argument, x in call.arrays.items()}
    _, gradient = call.value_and_gradient(arrays, reduction=reduction)
    want = central_differences(lambda moved: call.value(moved, reduction=reduction), arrays)
    for argument in arrays:
        assert distance(gradient[argument], want[argument]) <= 1e-9, argument


def test_central_differences_see_a_wrong_sign_and_a_lost_factor(monkeypatch: pytest.MonkeyPatch) -> None:
    slope = elementwise.slope
    for factor in (-1.0, 0.5, 1.001):
        with monkeypatch.context() as patch:
            patch.setattr(elementwise, "slope", lambda xp, fold, t, factor=factor: factor * slope(xp, fold, t))
            with pytest.raises(AssertionError):
                test_the_gradient_is_that_of_central_differences("sincere")


def own_gradient(here: Framework, name: str, arrays: dict[str, Any], reduction: str) -> dict[str, np.ndarray]:
    """By the framework's automatic differentiation, through a cotangent that is not 1."""
    call = CALLS[name]
    assert here.gradient is not None
    found = here.gradient(lambda inputs: call.value(inputs, reduction=reduction) * COTANGENT, arrays)
    return {argument: x / COTANGENT for argument, x in here.numbers(found).items()}


@pytest.mark.parametrize("name", CALLS)
def test_automatic_differentiation_and_the_formula_of_the_family_agree(framework: str, name: str) -> None:
    """DySTreSS too: the framework sees the temperature held constant. NumPy's own way is the formula, judged above."""
    here, call, reduction = load(framework), CALLS[name].with_parameters(), reduction_of(name)
    reference = call.value_and_gradient(
        {argument: np.asarray(x) for argument, x in call.arrays.items()}, reduction=reduction
    )
    arrays = here.arrays(call.arrays)
    value, gradient = call.value_and_gradient(arrays, reduction=reduction)
    assert distance(here.numbers(value), reference[0]) <= rule("float64", call.temperature)
    assert_gradients(here, gradient, reference[1], "float64", call.temperature)
    if here.gradient is not None:
        own = own_gradient(here, name, arrays, reduction)
        for argument, want in reference[1].items():
            assert distance(own[argument], want) <= rule("float64", call.temperature), argument


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("name", ["sincere_keys", "clip", "f_micl_js"])
def test_a_gradient_has_the_dtype_of_its_array(framework: str, dtype: str, name: str) -> None:
    """Half types are computed in float32 and rounded once, at the end; the value stays float32."""
    here, call = load(framework), CALLS[name].with_parameters()
    if dtype not in here.dtypes:
        pytest.skip(f"{framework} has no {dtype}")
    arrays = here.arrays(call.arrays, dtype)
    exact = here.rounded(call.arrays, dtype)
    value, gradient = call.value_and_gradient(arrays)
    want, want_gradient = call.value_and_gradient(exact)
    assert here.dtype(value) == "float32"
    assert distance(here.numbers(value), want) <= rule(dtype, call.temperature)
    assert_gradients(here, gradient, want_gradient, dtype, call.temperature)
    if here.gradient is not None:
        assert_gradients(here, here.gradient(call.value, arrays), want_gradient, dtype, call.temperature)


def test_one_array_has_one_gradient_and_several_a_named_tuple(framework: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Single operations in JAX, too: two programs of XLA may round differently.
    monkeypatch.setattr(buckets, "OWN_CALLS", 0)
    monkeypatch.setattr(buckets, "_calls", {})
    here, call = load(framework), CALLS["sincere"]
    z, temperature = here.array(call.arrays["embeddings"]), here.array(0.2)
    value, gradient = ss.value_and_gradient(losses.sincere(0.2), z, call.labels)
    assert tuple(gradient.shape) == (6, 4)
    assert tuple(value.shape) == ()
    _, several = ss.value_and_gradient(losses.sincere(), z, call.labels, temperature=temperature)
    assert several._fields == ("embeddings", "temperature")
    assert tuple(several.temperature.shape) == ()
    np.testing.assert_array_equal(here.numbers(several.embeddings), here.numbers(gradient))
    for name, fields in {
        "sincere_keys": ("embeddings", "keys"),
        "info_nce_queue": ("queries", "positives", "negatives"),
        "nt_xent_three_views": ("view_0", "view_1", "view_2"),
        "clip": ("a", "b"),
        "f_micl_kl": ("view_a", "view_b"),
    }.items():
        positional, keywords = CALLS[name].arguments(here.arrays(CALLS[name].arrays))
        assert ss.value_and_gradient(CALLS[name].loss, *positional, **keywords)[1]._fields == fields
    record = losses.siglip(temperature, here.array(-2.0))
    a, b = here.arrays(CALLS["siglip"].arrays).values()
    assert ss.value_and_gradient(record, a, b)[1]._fields == ("a", "b", "temperature", "bias")


def test_gradients_have_the_shape_of_views(framework: str) -> None:
    here, call = load(framework), CALLS["sincere"]
    z = call.arrays["embeddings"]
    value, gradient = ss.value_and_gradient(call.loss, here.array(z.reshape(3, 2, 4)), [0, 0, 1])
    want, flat = ss.value_and_gradient(call.loss, here.array(z), [0, 0, 0, 0, 1, 1])
    np.testing.assert_array_equal(here.numbers(value), here.numbers(want))
    np.testing.assert_array_equal(here.numbers(gradient).reshape(6, 4), here.numbers(flat))


def test_a_record_s_temperature_a_function_s_and_evaluate_s_receive_the_same_gradient(framework: str) -> None:
    here, call = load(framework), CALLS["sincere"]
    z, t, labels = here.array(call.arrays["embeddings"]), here.array(0.2), call.labels
    found = [
        ss.value_and_gradient(losses.sincere(t), z, labels)[1].temperature,
        ss.value_and_gradient(losses.sincere(), z, labels, t)[1].temperature,
        ss.value_and_gradient(losses.sincere(), z, labels, temperature=t)[1].temperature,
    ]
    if here.gradient is not None:
        ways = (
            lambda x: ss.sincere_loss(z, labels, x["t"]),
            lambda x: ss.sincere_loss(z, labels, temperature=x["t"]),
            lambda x: ss.evaluate(losses.sincere(x["t"]), z, labels),
        )
        found += [here.gradient(way, {"t": t})["t"] for way in ways]
    numbers = np.asarray([here.numbers(x) for x in found])
    np.testing.assert_allclose(numbers, numbers[0], rtol=rule("float64", 0.2))
    assert abs(numbers[0]) > 0.1


def test_a_temperature_in_another_dtype_keeps_it(framework: str) -> None:
    here, call = load(framework), CALLS["sincere"]
    z, t = here.array(call.arrays["embeddings"], "float32"), here.array(0.25, "float64")
    value, gradient = ss.value_and_gradient(losses.sincere(), z, call.labels, temperature=t)
    want, want_gradient = ss.value_and_gradient(
        losses.sincere(), call.arrays["embeddings"], call.labels, temperature=np.asarray(0.25)
    )
    assert here.dtype(value) == "float32"
    assert here.dtype(gradient.temperature) == "float64"
    assert distance(here.numbers(gradient.temperature), want_gradient.temperature) <= rule("float32", 0.25)
    assert distance(here.numbers(value), want) <= rule("float32", 0.25)


@pytest.mark.framework("tensorflow")
@pytest.mark.parametrize("name", EXACT)
def test_tensorflow_s_second_derivatives_are_those_of_the_gradient(name: str) -> None:
    """The tape differentiates its own gradient along a direction; the formula's gradient is differenced along it."""
    import tensorflow as tf

    here, call = load("tensorflow"), CALLS[name]
    rng = np.random.default_rng(0)
    direction = {argument: rng.normal(size=x.shape) for argument, x in call.arrays.items()}
    along = here.arrays(direction)

    def slope(inputs: Any) -> Any:
        found = here.gradient(call.value, inputs)  # type: ignore[misc]
        return tf.add_n([tf.reduce_sum(found[argument] * along[argument]) for argument in along])

    got = here.numbers(here.gradient(slope, here.arrays(call.arrays)))  # type: ignore[misc]

    def gradient_at(step: float) -> dict[str, np.ndarray]:
        moved = {argument: x + step * direction[argument] for argument, x in call.arrays.items()}
        return call.value_and_gradient(moved)[1]

    h = 2e-4
    parts = {step: gradient_at(step * h) for step in (-2, -1, 1, 2)}
    for argument in got:
        want = (parts[-2][argument] - 8 * parts[-1][argument] + 8 * parts[1][argument] - parts[2][argument]) / (12 * h)
        # As for first derivatives, but along a direction of length 3 and with a condition of its own.
        assert distance(got[argument], want) <= 1e-7, argument


# --- each framework's own judge --------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings(
    "ignore:`torch.jit.script` is deprecated:DeprecationWarning"
)  # torch's own, on first forward mode
@pytest.mark.framework("torch")
@pytest.mark.parametrize("name", EXACT)
def test_torch_gradcheck_and_gradgradcheck(name: str) -> None:
    import torch

    call = CALLS[name].with_parameters()
    here = load("torch")
    arrays = {argument: x.requires_grad_() for argument, x in here.arrays(call.arrays).items()}

    def f(*inputs: torch.Tensor) -> torch.Tensor:
        return call.value(dict(zip(arrays, inputs)), reduction=reduction_of(name))

    inputs = tuple(arrays.values())
    # The defaults, made strict: of truncation h²/6 (2/0.1)³ = 1e-9 only rounding u/h = 1e-10 and the outer step's remain.
    assert torch.autograd.gradcheck(f, inputs, eps=1e-6, atol=1e-7, rtol=1e-6, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(f, inputs, eps=1e-6, atol=1e-6, rtol=1e-5)


@pytest.mark.framework("jax")
@pytest.mark.parametrize("name", [name for name in EXACT if name != "nt_xent_three_views"])  # one record's shapes once
def test_jax_check_grads_forward_and_reverse_to_second_order(name: str) -> None:
    from jax.test_util import check_grads

    call = CALLS[name].with_parameters()
    few = {"keys": 6, "negatives": 3}  # as many as there are anchors
    trimmed = {argument: x[: few[argument]] if argument in few else x for argument, x in call.arrays.items()}
    if "key_labels" in call.options:
        call = replace(call, options={"key_labels": call.options["key_labels"][:6]})
    arrays = load("jax").arrays(trimmed)

    def f(inputs: Any) -> Any:  # not compiled as a whole: operations of one shape are compiled once for all losses
        return call.value(inputs, reduction=reduction_of(name))

    # Differences are wrong by eps²/6 of the third derivative, at most 25³ here (as above): 3e-7.
    check_grads(f, (arrays,), order=2, modes=("fwd", "rev"), eps=1e-5, atol=1e-6, rtol=1e-6)


# --- where a gradient is asked for --------------------------------------------------------------------------------------------


@pytest.mark.framework("torch")
@pytest.mark.parametrize("name", CALLS)
def test_torch_fills_the_gradients_that_were_asked_for_and_no_other(name: str) -> None:
    call = CALLS[name].with_parameters()
    want = call.value_and_gradient(call.arrays)[1]
    here = load("torch")
    for asked in call.arrays:
        arrays = here.arrays(call.arrays)
        arrays[asked].requires_grad_()
        call.value(arrays).backward()
        assert [argument for argument, x in arrays.items() if x.grad is not None] == [asked]
        assert distance(here.numbers(arrays[asked].grad), want[asked]) <= rule("float64", call.temperature)


@pytest.mark.framework("torch")
def test_torch_keeps_no_graph_where_none_is_asked_for() -> None:
    import torch

    here, call = load("torch"), CALLS["sincere"]
    z = here.array(call.arrays["embeddings"])
    assert not ss.sincere_loss(z, call.labels).requires_grad
    z.requires_grad_()
    with torch.no_grad():
        assert not ss.sincere_loss(z, call.labels).requires_grad
    assert ss.sincere_loss(z, call.labels).requires_grad


@pytest.mark.framework("torch")
def test_the_gradient_of_value_and_gradient_is_detached_and_feeds_backward() -> None:
    import torch

    here, call = load("torch"), CALLS["sincere"]
    weights = torch.eye(4, dtype=torch.float64, requires_grad=True)
    z = here.array(call.arrays["embeddings"]) @ weights
    value, gradient = ss.value_and_gradient(call.loss, z, call.labels)
    assert not gradient.requires_grad
    assert not value.requires_grad
    z.backward(gradient)
    (want,) = torch.autograd.grad(call.value({"embeddings": here.array(call.arrays["embeddings"]) @ weights}), weights)
    assert distance(here.numbers(weights.grad), here.numbers(want)) <= rule("float64", 0.2)


@pytest.mark.framework("torch")
def test_torch_parameters_and_learnable_temperatures_train() -> None:
    import torch

    here, call = load("torch"), CALLS["sincere"]
    z = torch.nn.Parameter(here.array(call.arrays["embeddings"], "float32"))
    log_temperature = torch.nn.Parameter(torch.tensor(-1.0))
    optimizer = torch.optim.SGD([z, log_temperature], lr=0.05)
    found = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = ss.sincere_loss(z, call.labels, log_temperature.exp())
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    assert found[-1] < 0.5 * found[0]
    assert log_temperature.item() != -1.0


@pytest.mark.framework("jax")
@pytest.mark.parametrize("name", ["sincere", "clip"])
def test_jax_vmap_of_values_and_gradients(name: str) -> None:
    import jax
    import jax.numpy as jnp

    here, call = load("jax"), CALLS[name]
    arrays = here.arrays(call.arrays)
    stacked = {argument: jnp.stack([x, 2.0 * x]) for argument, x in arrays.items()}
    want, want_gradient = call.value_and_gradient(call.arrays)
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(call.value)))(stacked)
    family = jax.jit(jax.vmap(call.value_and_gradient))(stacked)[1]
    np.testing.assert_allclose(values, float(want), rtol=rule("float64", 0.2))
    for argument in want_gradient:
        for found in (gradients, family):
            assert distance(2.0 * here.numbers(found[argument][1]), want_gradient[argument]) <= rule("float64", 0.2)


@pytest.mark.framework("tensorflow")
def test_tensorflow_variables_receive_gradients() -> None:
    import tensorflow as tf

    call = CALLS["sincere_keys"].with_parameters()
    variables = {argument: tf.Variable(x) for argument, x in call.arrays.items()}
    want = call.value_and_gradient(call.arrays)[1]
    with tf.GradientTape() as tape:
        value = call.value(variables)
    found = tape.gradient(value, variables)
    for argument in want:
        assert distance(found[argument].numpy(), want[argument]) <= rule("float64", 0.2)


@pytest.mark.framework("tensorflow")
@pytest.mark.parametrize("name", LABELLED)
def test_tensorflow_jacobians_of_row_losses(name: str) -> None:
    """Row losses have a gradient each, and they sum to that of the sum."""
    import tensorflow as tf

    here, call = load("tensorflow"), CALLS[name]
    z = here.array(call.arrays["embeddings"])
    with tf.GradientTape() as tape:
        tape.watch(z)
        rows = call.value({"embeddings": z}, reduction="none")
    jacobian = tape.jacobian(rows, z)
    _, want = call.value_and_gradient(call.arrays, reduction="sum")
    assert distance(tf.reduce_sum(jacobian, axis=0).numpy(), want["embeddings"]) <= rule("float64", 0.2)
    assert not np.any(jacobian[5].numpy())  # the row without a positive
