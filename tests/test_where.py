"""`where`: a loss of the rows that take part is the loss of the batch without the others, whatever these hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from catalogue import CALLS, LABELS, Call, distance, reduction_of, rule
from frameworks import load

import sincere_spec as ss
from sincere_spec.errors import DtypeError, MixedBackendsError, ShapeError

ENGINES = [{"engine": "dense"}, {"engine": "tiled", "tile": 2}]
MASKS = {
    6: [True, True, False, True, True, False],
    3: [True, False, True],
    2: [True, True],
    5: [True, False, True, True, False],
}
MASKS[7] = [False, True, True, True, False, True, True]
SEPARATE = ("keys", "negatives")
PARAMETERS = ("temperature", "bias")


def masks_of(call: Call) -> dict[str, np.ndarray]:
    """The rows of each array that take part: of keys and queues, too."""
    return {name: np.asarray(MASKS[len(x)]) for name, x in call.arrays.items() if name not in PARAMETERS}


def outside_is_nan(call: Call) -> dict[str, np.ndarray]:
    masks = masks_of(call)
    return {name: np.where(masks[name][:, None], x, np.nan) if name in masks else x for name, x in call.arrays.items()}


def where_of(call: Call) -> Any:
    """One mask for the arrays that belong together, or a tuple with those of keys and queues."""
    masks = masks_of(call)
    if not set(SEPARATE) & masks.keys():
        return next(iter(masks.values()))
    aligned = next(mask for name, mask in masks.items() if name not in SEPARATE)
    return tuple(masks[name] if name in SEPARATE else aligned for name in masks)


def sliced(call: Call) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the options of the call without the rows outside."""
    masks = masks_of(call)
    options = dict(call.options)
    if "key_labels" in options:
        options["key_labels"] = [label for label, inside in zip(options["key_labels"], masks["keys"]) if inside]
    return {name: x[masks[name]] if name in masks else x for name, x in call.arrays.items()}, options


def assert_is_sliced(framework: str, call: Call, reduction: str, where: Any, **options: Any) -> None:
    here, arrays, masks = load(framework), outside_is_nan(call), masks_of(call)
    rows, chosen = sliced(call)
    labels = None if call.labels is None else [label for label, inside in zip(LABELS, MASKS[6]) if inside]
    small = Call(call.loss, rows, labels, chosen)
    want, want_gradient = small.value_and_gradient(rows, engine="dense", reduction=reduction)
    value, gradient = call.value_and_gradient(here.arrays(arrays), reduction=reduction, where=where, **options)
    bound = rule("float64", call.temperature)
    assert abs(float(here.numbers(value)) - float(want)) <= bound * max(1.0, abs(float(want)))
    for name, expected in want_gradient.items():
        got = here.numbers(gradient[name])
        if name in masks:
            assert not np.any(got[~masks[name]]), f"{name}: a row outside has a gradient"
            got = got[masks[name]]
        cancelled = 1.0 if name in masks else 10.0  # a parameter's gradient is a sum whose terms cancel
        assert distance(got, np.asarray(expected)) <= cancelled * bound, name


@pytest.mark.parametrize("options", ENGINES, ids=lambda options: options["engine"])
@pytest.mark.parametrize("name", CALLS)
def test_the_loss_of_some_rows_is_that_of_the_batch_without_the_others(
    framework: str, name: str, options: dict[str, Any]
) -> None:
    call = CALLS[name].with_parameters() if framework not in ("jax", "tensorflow") else CALLS[name]
    assert_is_sliced(framework, call, reduction_of(name), where_of(call), **options)


@pytest.mark.parametrize("framework", ["torch", "jax"], indirect=True)
@pytest.mark.parametrize("name", ["sincere", "supcon_in_keys", "clip", "nt_xent_three_views", "info_nce_queue"])
def test_kernels_leave_the_same_rows_out(framework: str, name: str) -> None:
    call = CALLS[name]
    assert_is_sliced(framework, call, "mean", where_of(call), engine="kernel", tile=16)


@pytest.mark.parametrize("options", ENGINES, ids=lambda options: options["engine"])
@pytest.mark.parametrize("name", ["sincere", "supcon_out", "clip", "nt_xent"])
def test_row_losses_keep_their_places_and_are_0_outside(framework: str, name: str, options: dict[str, Any]) -> None:
    call, here = CALLS[name], load(framework)
    masks = list(masks_of(call).values())
    inside = masks[0] if call.labels is not None else np.concatenate(masks[:2])
    small, chosen = sliced(call)
    labels = None if call.labels is None else [label for label, kept in zip(LABELS, MASKS[6]) if kept]
    want = np.asarray(Call(call.loss, small, labels, chosen).value(small, engine="dense", reduction="none"))
    got = here.numbers(call.value(here.arrays(outside_is_nan(call)), reduction="none", where=where_of(call), **options))
    assert got.shape == inside.shape
    assert not np.any(got[~inside])
    np.testing.assert_allclose(got[inside], want, rtol=rule("float64", call.temperature), atol=1e-13)


@pytest.mark.parametrize("views", [[True, False, True], [[True, True], [False, False], [True, False]]])
def test_views_share_the_mask_of_their_sample_or_have_one_each(framework: str, views: list[Any]) -> None:
    here, rng = load(framework), np.random.default_rng(0)
    z, labels = rng.normal(size=(3, 2, 4)), [0, 1, 0]
    inside = np.broadcast_to(np.asarray(views).reshape(3, -1), (3, 2))
    want = ss.sincere_loss(z[inside], [label for label, row in zip(labels, inside) for kept in row if kept])
    got = ss.sincere_loss(here.array(np.where(inside[..., None], z, np.nan)), labels, where=views)
    assert float(here.numbers(got)) == pytest.approx(float(want), rel=1e-12)


OUTSIDE = pytest.mark.parametrize(
    "outside", [((2,), (1,)), ((), (0, 3)), ((1, 2, 4), (0,)), ((), (0, 1, 2, 3, 4))], ids=str
)


@pytest.mark.parametrize("framework", ["torch", "jax"], indirect=True)
@OUTSIDE
def test_kernels_know_the_partners_of_rows_of_two_masks(framework: str, outside: Any) -> None:
    test_a_row_whose_partner_is_outside_has_no_loss_and_is_a_negative(framework, "kernel", outside)


@OUTSIDE
@pytest.mark.parametrize("engine", ["dense", "tiled"])
def test_a_row_whose_partner_is_outside_has_no_loss_and_is_a_negative(
    framework: str, engine: str, outside: tuple[tuple[int, ...], tuple[int, ...]]
) -> None:
    here, rng = load(framework), np.random.default_rng(1)
    a, b = rng.normal(size=(2, 5, 4))
    in_a, in_b = (~np.isin(np.arange(5), rows) for rows in outside)
    both = in_a & in_b

    def loss(a: np.ndarray, b: np.ndarray) -> Any:
        unit = [x / np.sqrt(np.sum(x * x, axis=1, keepdims=True)) for x in (a, b)]
        logits = unit[0] @ unit[1].T / 0.07
        rows = [np.log(np.sum(np.exp(logits[i][in_b]))) - logits[i, i] for i in np.flatnonzero(both)]
        columns = [np.log(np.sum(np.exp(logits[:, j][in_a]))) - logits[j, j] for j in np.flatnonzero(both)]
        return np.mean(rows + columns) if rows else 0.0

    arrays = [here.array(np.where(mask[:, None], x, np.nan)) for x, mask in ((a, in_a), (b, in_b))]
    value, gradients = ss.value_and_gradient(ss.losses.clip(), *arrays, where=(in_a, in_b), engine=engine)
    assert float(here.numbers(value)) == pytest.approx(loss(a, b), rel=1e-12)
    for k, got in enumerate(gradients):
        want = np.zeros((5, 4))
        for place in np.ndindex(5, 4):  # by a complex step
            moved = [x.astype(complex) for x in (a, b)]
            moved[k][place] += 1e-30j
            want[place] = np.imag(loss(*moved)) / 1e-30
        np.testing.assert_allclose(here.numbers(got), want, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("engine", ["dense", "tiled"])
def test_a_row_outside_has_no_loss_in_any_arrangement_with_partners(framework: str, engine: str) -> None:
    here, rng, inside = load(framework), np.random.default_rng(3), np.asarray([True, False])
    q, p = (here.array(x) for x in rng.normal(size=(2, 2, 3)))
    own = here.array(rng.normal(size=(2, 2, 3)))
    for loss, *arrays in ((ss.losses.info_nce(0.5), q, p, own), (ss.losses.siglip(0.5, -1.0), q, p)):
        rows = here.numbers(ss.evaluate(loss, *arrays, where=inside, reduction="none", engine=engine))
        assert rows[0] > 0.0
        assert rows[1] == 0.0
    value, gradients = ss.value_and_gradient(ss.losses.info_nce(0.5), q, p, own, where=np.zeros(2, bool), engine=engine)
    assert float(here.numbers(value)) == 0.0
    assert not any(np.any(here.numbers(x)) for x in gradients)


def test_towers_have_as_many_row_losses_where_one_has_no_row_inside(framework: str) -> None:
    here, rng = load(framework), np.random.default_rng(4)
    a, b = (here.array(x) for x in rng.normal(size=(2, 3, 3)))
    for options in ENGINES:
        rows = ss.clip_loss(a, b, where=(np.zeros(3, bool), np.ones(3, bool)), reduction="none", **options)
        np.testing.assert_array_equal(here.numbers(rows), np.zeros(6))


def test_no_row_inside_is_an_empty_batch(framework: str) -> None:
    here = load(framework)
    z = here.array(np.full((4, 3), np.nan))
    for options in ENGINES:
        value, gradient = ss.value_and_gradient(ss.losses.supcon(), z, [0, 0, 1, 1], where=[False] * 4, **options)
        assert float(here.numbers(value)) == 0.0
        assert not np.any(here.numbers(gradient))


@pytest.mark.parametrize("framework", ["jax", "tensorflow"], indirect=True)
@pytest.mark.parametrize("options", ENGINES, ids=lambda options: options["engine"])
def test_a_compiled_program_takes_any_mask(framework: str, options: dict[str, Any]) -> None:
    here, rng, traces = load(framework), np.random.default_rng(2), []
    z, labels = here.array(rng.normal(size=(6, 4))), here.array(np.asarray(LABELS))

    @here.compile
    def loss(z: Any, where: Any) -> Any:
        traces.append(None)
        return ss.sincere_loss(z, labels, where=where, **options)

    for mask in (MASKS[6], [True] * 6, [False, True, True, True, True, True]):
        inside = np.asarray(mask)
        want = ss.sincere_loss(np.asarray(here.numbers(z))[inside], [y for y, kept in zip(LABELS, mask) if kept])
        assert float(here.numbers(loss(z, here.array(inside)))) == pytest.approx(float(want), rel=1e-12)
    assert len(traces) == 1


@pytest.mark.parametrize("framework", ["torch"], indirect=True)
def test_torch_transforms_and_higher_derivatives_take_a_mask(framework: str) -> None:
    import torch

    z = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    inside = torch.tensor(MASKS[6])
    y = torch.tensor(LABELS)

    def loss(z: torch.Tensor) -> torch.Tensor:
        return ss.supcon_loss(z, y, where=inside)

    def small(z: torch.Tensor) -> torch.Tensor:
        return ss.supcon_loss(z[inside], y[inside])

    torch.testing.assert_close(torch.func.grad(loss)(z), torch.func.grad(small)(z))
    torch.testing.assert_close(torch.compile(loss, backend="eager", fullgraph=True)(z), small(z))
    torch.testing.assert_close(torch.autograd.functional.hessian(loss, z), torch.autograd.functional.hessian(small, z))


@pytest.mark.parametrize("framework", ["torch"], indirect=True)
def test_a_module_takes_the_mask_at_its_call(framework: str) -> None:
    import torch

    from sincere_spec.torch import NTXentLoss, SincereLoss

    z, y, inside = torch.randn(6, 4), torch.tensor(LABELS), torch.tensor(MASKS[6])
    torch.testing.assert_close(SincereLoss()(z, y, where=inside), SincereLoss()(z[inside], y[inside]))
    torch.testing.assert_close(NTXentLoss()(z, z + 1.0, where=inside), NTXentLoss()(z[inside], z[inside] + 1.0))


BAD = {
    "another length": ([True] * 5, ShapeError, r"expected shape \(6,\) for embeddings; got \(5,\)"),
    "integers": (np.asarray([1, 1, 1, 1, 0, 0]), DtypeError, "expected booleans; got"),
    "a list of integers": ([1, 1, 1, 1, 0, 0], DtypeError, "expected booleans; got 1"),
    "a matrix": (np.ones((6, 6), bool), ShapeError, "expected shape"),
    "too many masks": (([True] * 6, [True] * 6), ShapeError, "got a tuple of 2"),
    "a number": (3, DtypeError, "expected booleans"),
}


@pytest.mark.parametrize("bad", BAD)
def test_what_is_no_mask_is_refused(framework: str, bad: str) -> None:
    where, error, words = BAD[bad]
    z = load(framework).array(np.ones((6, 4)))
    with pytest.raises(error, match=words):
        ss.sincere_loss(z, LABELS, where=where)


@pytest.mark.parametrize("framework", ["torch"], indirect=True)
def test_a_mask_of_another_framework_is_named(framework: str) -> None:
    import torch

    with pytest.raises(MixedBackendsError, match="where is a torch array"):
        ss.sincere_loss(np.ones((6, 4)), LABELS, where=torch.ones(6, dtype=torch.bool))
