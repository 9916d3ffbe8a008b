"""The engines: what they may use, and that they agree whichever runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from catalogue import CALLS, EXACT, Call, distance, rule
from differences import central_differences
from edges import EDGES, MADE_DIFFERENTLY, assert_near
from frameworks import load
from hypothesis import given
from hypothesis import strategies as st

import sincere_spec as ss
from sincere_spec import losses
from sincere_spec.arrays import NAMESPACE, TILES_NAMESPACE
from sincere_spec.backends.array_api import ArrayApiBackend
from sincere_spec.spec.arrangements import Labelled, PairedViews, Queries, Towers, Views
from sincere_spec.spec.words import Arrangement, Fold, PairLoss, Pairs, Rows, Similarity, Stage, Term

TILES = (1, 2, 3, 5, 64)
REDUCTIONS = ("mean", "pairs", "batch", "sum")

# Where there are tiles; a test below holds this list to what the frameworks say.
TILED = ("numpy", "array_api_strict", "torch")
has_tiles = pytest.mark.parametrize("framework", TILED, indirect=True)


class Listed:
    """The functions of a namespace that are on a list, and a record of which were used.

    Whatever else is asked for is not there: what a namespace may have besides, it may also lack.
    """

    def __init__(self, namespace: Any) -> None:
        self.namespace, self.listed, self.used = namespace, TILES_NAMESPACE, set[str]()

    def __getattr__(self, name: str) -> Any:
        if name not in self.listed:
            raise AttributeError(f"{name} is not on the list of sincere_spec.arrays")
        self.used.add(name)
        return getattr(self.namespace, name)


def run_everything(engine: str, **options: Any) -> None:
    here = load("array_api_strict")
    for i, call in enumerate(CALLS.values()):
        call = call.with_parameters()
        arrays = here.arrays(call.arrays)
        for labels in (call.labels, [0] * 6, list(range(6))) if call.labels is not None else (None,):
            chosen = replace(call, labels=labels)
            chosen.value_and_gradient(arrays, engine=engine, reduction=REDUCTIONS[i % len(REDUCTIONS)], **options)
        call.value(arrays, engine=engine, reduction="none", normalize=False, **options)
    z = here.array(np.zeros((6, 0)))
    ss.sincere_loss(z, [0, 0, 1, 1, 2, 2], engine=engine, **options)
    empty = here.array(np.zeros((0, 3)))
    ss.value_and_gradient(losses.clip(), empty, empty, engine=engine, **options)
    views = here.array(np.ones((2, 3, 4)))
    ss.value_and_gradient(losses.sincere(), views, [0, 1], engine=engine, **options)


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> Listed:
    """The namespace of array-api-strict, cut down to the list; what an adapter does for itself is its own business."""
    import array_api_strict as xp

    cut = Listed(xp)
    monkeypatch.setattr(ArrayApiBackend, "namespace", lambda self, x: cut)
    monkeypatch.setattr(ArrayApiBackend, "dtype", lambda self, name, like: getattr(xp, name))
    monkeypatch.setattr(ArrayApiBackend, "indices", lambda self, x: xp.arange(x.shape[0]))
    monkeypatch.setattr(ArrayApiBackend, "integers", lambda self, values, like: xp.asarray(values, dtype=xp.int64))
    monkeypatch.setattr(ArrayApiBackend, "scratch", lambda self, like, size: xp.empty((size,), dtype=like.dtype))
    monkeypatch.setattr(ArrayApiBackend, "exp_of", lambda self, x: xp.exp(x))
    return cut


@pytest.mark.framework("array_api_strict")
@pytest.mark.parametrize(("engine", "functions"), [("dense", NAMESPACE), ("tiled", TILES_NAMESPACE)])
def test_an_engine_uses_the_listed_functions_and_all_of_them(
    listed: Listed, engine: str, functions: frozenset[str]
) -> None:
    """A function on the list that nothing uses need not be ported."""
    listed.listed = functions
    run_everything(engine)
    missing = functions - listed.used
    assert not missing
    with pytest.raises(AttributeError, match=r"tanh is not on the list"):
        listed.tanh  # noqa: B018


@pytest.mark.framework("array_api_strict")
def test_engines_run_at_the_strictest_flags_and_the_version_that_they_are_written_against() -> None:
    import array_api_strict as xp

    before = xp.get_array_api_strict_flags()
    flags = {"boolean_indexing": False, "data_dependent_shapes": False, "enabled_extensions": ()}
    with xp.ArrayAPIStrictFlags(api_version="2024.12", **flags):
        with pytest.raises(RuntimeError):
            xp.nonzero(xp.asarray([1.0, 0.0]))
        run_everything("dense")
        run_everything("tiled", tile=2)
    assert xp.get_array_api_strict_flags() == before


@pytest.mark.parametrize("engine", ["dense", "tiled"])
@pytest.mark.parametrize("minus", [None, "noise"])
@pytest.mark.parametrize("fold", [fold for fold in Fold if fold is not Fold.LOGSUMEXP])
def test_what_rows_of_one_positive_fold_is_the_same_by_its_one_logit(
    fold: Fold, minus: str | None, engine: str
) -> None:
    """The pass over all pairs gives the rows of one positive their numbers; the others must get nothing of the term."""
    z = np.random.default_rng(3).normal(size=(9, 4))
    stages = (
        Stage("noise", Fold.LOGSUMEXP, over=Pairs.NEGATIVE, scale=0.5),
        Stage("margin", fold, over=Pairs.POSITIVE, scale=-1.5, offset=0.25, minus=minus, mean=True),
    )
    alone, every = (
        PairLoss("own", Labelled(), stages, (Term("noise", 0.2), Term("margin", -0.7, 0.3, rows)), Similarity(), 0.5)
        for rows in (Rows.ONE_POSITIVE, Rows.ALL)
    )
    options: dict[str, Any] = {"engine": engine, "tile": None if engine == "dense" else 2}
    for labels in ([0, 1, 1, 2, 2, 2, 3, 3, 4], [0, 0, 1, 1, 2, 2, 3, 3, 4]):
        one = np.asarray([labels.count(label) == 2 for label in labels])
        noise = replace(alone, stages=stages[:1], terms=alone.terms[:1])
        want, rest = (ss.evaluate(loss, z, labels, reduction="none", engine="dense") for loss in (every, noise))
        got = ss.evaluate(alone, z, labels, reduction="none", **options)
        np.testing.assert_allclose(got, np.where(one, want, rest), rtol=1e-13)
        _, gradient = ss.value_and_gradient(alone, z, labels, reduction="sum", **options)
        moved = central_differences(
            lambda x, labels=labels: ss.evaluate(alone, x["z"], labels, reduction="sum", **options), {"z": z}
        )
        assert distance(gradient, moved["z"]) <= 1e-8


ARRANGEMENTS: dict[str, Arrangement] = {
    "towers": Towers(both_ways=True),
    "one way": Towers(both_ways=False),
    "views": Views(),
    "queries": Queries(),
    "paired views": PairedViews(),
}


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_a_record_without_positives_has_every_engine(framework: str, arrangement: str) -> None:
    noise = Stage("noise", Fold.LOGSUMEXP, over=Pairs.NEGATIVE)
    loss = PairLoss("uniformity", ARRANGEMENTS[arrangement], (noise,), (Term("noise"),), Similarity(), 0.5)
    here, z = load(framework), np.random.default_rng(0).normal(size=(2, 9, 4))
    found = []
    for options in ({"engine": "dense"}, {"engine": "tiled", "tile": 8}):
        value, gradient = ss.value_and_gradient(loss, *(here.array(x) for x in z), **options)
        found.append(np.concatenate([here.numbers(value)[None], *(here.numbers(x).ravel() for x in gradient)]))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("engine", ["dense", "tiled"])
def test_a_record_over_all_others_and_an_empty_queue(engine: str) -> None:
    others = Stage("others", Fold.LOGSUMEXP, over=Pairs.OTHERS)
    stages = (others, Stage("attract", Fold.LINEAR, over=Pairs.POSITIVE))
    loss = PairLoss("own", Queries(), stages, (Term("others"), Term("attract", -1.0)), Similarity(), 0.5)
    q, p = np.random.default_rng(0).normal(size=(2, 4, 3))
    value, gradient = ss.value_and_gradient(loss, q, p, q[:0, :], engine=engine)
    np.testing.assert_allclose(value, 0.0, atol=1e-15)
    for part in gradient:
        np.testing.assert_allclose(part, 0.0, atol=1e-15)


@pytest.mark.parametrize("over", [Pairs.POSITIVE, Pairs.OTHERS])
@pytest.mark.parametrize("engine", ["dense", "tiled"])
def test_a_log_sum_exp_against_nothing_takes_its_row_out_of_the_count(engine: str, over: Pairs) -> None:
    noise = Stage("noise", Fold.LOGSUMEXP, over=Pairs.NEGATIVE)
    stages = (noise, Stage("against", Fold.LOGSUMEXP, over=over, minus="noise"))
    loss = PairLoss("own", Labelled(), stages, (Term("against"),), Similarity(), 0.5)
    z = np.random.default_rng(0).normal(size=(5, 3))
    value, gradient = ss.value_and_gradient(loss, z, [0] * 5, engine=engine)
    assert value == 0.0
    assert not np.any(gradient)
    assert np.all(ss.evaluate(loss, z, [0, 0, 1, 1, 1], engine=engine, reduction="none") != 0.0)
    # The first row's one negative is the same sample, and the last row has no positive: the mean is over one row.
    some: dict[str, Any] = {"ids": [0, 1, 0], "engine": engine}
    by_row = ss.evaluate(loss, z[:3, :], [0, 0, 1], reduction="none", **some)
    assert [x != 0.0 for x in by_row] == [False, True, False]
    assert ss.evaluate(loss, z[:3, :], [0, 0, 1], **some) == by_row[1]


@pytest.mark.parametrize("engine", ["dense", "tiled"])
def test_what_subtracts_a_stage_that_subtracts_nothing_has_no_pairs_either(framework: str, engine: str) -> None:
    noise = Stage("noise", Fold.LOGSUMEXP, over=Pairs.NEGATIVE)
    against = Stage("against", Fold.LOGSUMEXP, over=Pairs.OTHERS, minus="noise")
    margin = Stage("margin", Fold.SOFTPLUS, over=Pairs.POSITIVE, scale=-1.0, minus="against", mean=True)
    loss = PairLoss("own", Labelled(), (noise, against, margin), (Term("margin"),), Similarity(), 0.5)
    here = load(framework)
    z = here.array(np.random.default_rng(0).normal(size=(5, 3)))
    value, gradient = ss.value_and_gradient(loss, z, [0] * 5, engine=engine)
    assert float(value) == 0.0
    assert not np.any(here.numbers(gradient))
    assert float(ss.evaluate(loss, z, [0, 0, 1, 1, 1], engine=engine)) != 0.0


@pytest.mark.parametrize("framework", ["numpy", "torch"], indirect=True)
def test_a_tile_is_no_larger_than_the_batch(framework: str) -> None:
    """Room for so many pairs there is on no machine."""
    z = load(framework).array(np.random.default_rng(0).normal(size=(6, 3)))
    found = [ss.sincere_loss(z, [0, 0, 1, 1, 2, 2], engine="tiled", tile=tile) for tile in (6, 2**40)]
    assert float(found[1]) == float(found[0])


# --- tiles -------------------------------------------------------------------------------------------------------------------


@has_tiles
@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("name", CALLS)
def test_tiles_of_every_size_give_the_dense_answer(framework: str, name: str, tile: int) -> None:
    here, call = load(framework), CALLS[name].with_parameters()
    arrays = here.arrays(call.arrays)
    reduction = REDUCTIONS[tile % len(REDUCTIONS)]
    want, want_gradient = call.value_and_gradient(arrays, engine="dense", reduction=reduction)
    value, gradient = call.value_and_gradient(arrays, engine="tiled", tile=tile, reduction=reduction)
    bound = rule("float64", call.temperature)
    assert distance(here.numbers(value), here.numbers(want)) <= bound
    alone = call.value(arrays, engine="tiled", tile=tile, reduction=reduction)
    assert distance(here.numbers(alone), here.numbers(want)) <= bound
    for argument in want_gradient:
        assert distance(here.numbers(gradient[argument]), here.numbers(want_gradient[argument])) <= bound, argument
    rows = [
        here.numbers(call.value(arrays, engine=engine, tile=tile, reduction="none")) for engine in ("dense", "tiled")
    ]
    np.testing.assert_allclose(rows[1], rows[0], rtol=bound, atol=bound * np.max(np.abs(rows[0])))
    if here.gradient is not None:
        own = here.gradient(lambda x: -1.25 * call.value(x, engine="tiled", tile=tile, reduction=reduction), arrays)
        for argument in want_gradient:
            assert distance(here.numbers(own[argument]) / -1.25, here.numbers(want_gradient[argument])) <= bound, (
                argument
            )


@given(
    n=st.integers(0, 9),
    m=st.integers(0, 9),
    tile=st.integers(1, 10),
    name=st.sampled_from(["sincere", "supcon_out", "supcon_in", "decoupled", "sincere_epsilon"]),
    with_keys=st.booleans(),
    with_ids=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_tiles_of_every_size_over_every_batch(
    n: int, m: int, tile: int, name: str, with_keys: bool, with_ids: bool, seed: int
) -> None:
    """Batches and keys that no tile divides, classes in any order, and samples that are known to be the same."""
    rng = np.random.default_rng(seed)
    z, labels = rng.normal(size=(n, 3)), rng.integers(0, 3, size=n)
    options: dict[str, Any] = {}
    if with_keys:
        options |= {"keys": rng.normal(size=(m, 3)), "key_labels": rng.integers(0, 3, size=m)}
    if with_ids:
        options |= {"ids": rng.integers(0, 5, size=n)} | ({"key_ids": rng.integers(0, 5, size=m)} if with_keys else {})
    loss, bound = CALLS[name].loss, rule("float64", 0.2, 3)
    options["reduction"] = "sum"
    found = [
        ss.value_and_gradient(loss, z, labels, **options, engine="dense"),
        ss.value_and_gradient(loss, z, labels, **options, engine="tiled", tile=tile),
    ]
    assert abs(found[1][0] - found[0][0]) <= bound * max(abs(found[0][0]), 5.0 * n)
    pairs = zip(*((g if isinstance(g, tuple) else (g,)) for _, g in found), strict=True)
    # A row's gradient is made of at most 2 n (m) pulls of 1 / temperature, over its norm.
    size = (
        5.0
        * max(n, m, 1)
        / float(np.min(np.linalg.norm(np.concatenate([z, options.get("keys", z)]), axis=1), initial=1.0))
    )
    for dense, streamed in pairs:
        np.testing.assert_allclose(streamed, dense, rtol=0.0, atol=bound * size)


@has_tiles
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", MADE_DIFFERENTLY)
def test_tiles_at_every_edge(framework: str, name: str, dtype: str) -> None:
    here = load(framework)
    for edge, change in EDGES.items():
        call = change(CALLS[name]).with_parameters()
        exact = here.rounded(call.arrays, dtype)
        want, want_gradient = call.value_and_gradient(exact, engine="dense")
        value, gradient = call.value_and_gradient(here.arrays(call.arrays, dtype), engine="tiled", tile=4)
        assert_near(here, call, edge, dtype, exact, (value, gradient), (want, want_gradient))


@has_tiles
@pytest.mark.parametrize("name", CALLS)
def test_tiles_hide_no_nan(framework: str, name: str) -> None:
    here, call = load(framework), CALLS[name]
    for bad in (np.nan, np.inf):
        for argument in call.arrays:
            arrays = {other: x.copy() for other, x in call.arrays.items()}
            arrays[argument][-1, 1] = bad
            for reduction in ("mean", "none"):
                for normalize in (True, False):
                    options = {"engine": "tiled", "tile": 2, "reduction": reduction, "normalize": normalize}
                    value = call.value(here.arrays(arrays), **options)
                    assert np.any(np.isnan(here.numbers(value))), (argument, bad, reduction, normalize)


# Where every shape compiles: one loss with a band of positives, one of two towers, one of whole rows.
COMPILED = ("sincere", "clip", "f_micl_js")
compiles_tiles = pytest.mark.parametrize("framework", ["jax", "tensorflow"], indirect=True)


@compiles_tiles
@pytest.mark.parametrize(("name", "tile"), [("sincere", 64), ("nt_xent", 2), *((name, 4) for name in COMPILED)])
def test_compiled_tiles_give_the_dense_answer_at_padded_shapes(framework: str, name: str, tile: int) -> None:
    here, call = load(framework), CALLS[name].with_parameters()
    arrays = here.arrays(call.arrays)
    want, want_gradient = call.value_and_gradient(arrays, engine="dense")
    value, gradient = call.value_and_gradient(arrays, engine="tiled", tile=tile)
    bound = rule("float64", call.temperature)
    assert distance(here.numbers(value), here.numbers(want)) <= bound
    own = here.gradient(lambda x: -1.25 * call.value(x, engine="tiled", tile=tile), arrays)
    for argument in want_gradient:
        exact = here.numbers(want_gradient[argument])
        assert distance(here.numbers(gradient[argument]), exact) <= bound, argument
        assert distance(here.numbers(own[argument]) / -1.25, exact) <= bound, argument
    rows = [
        here.numbers(call.value(arrays, engine=engine, tile=tile, reduction="none")) for engine in ("dense", "tiled")
    ]
    np.testing.assert_allclose(rows[1], rows[0], rtol=bound, atol=bound * np.max(np.abs(rows[0])))


@compiles_tiles
def test_compiled_tiles_take_rows_of_another_width(framework: str) -> None:
    here, rng = load(framework), np.random.default_rng(0)
    for count, width in ((6, 5), (4, 5), (4, 1), (6, 2)):
        z, labels = here.array(rng.normal(size=(count, width))), [0, 0, 1, 1, 2, 2][:count]
        dense, tiled = (ss.evaluate(losses.sincere(), z, labels, engine=engine) for engine in ("dense", "tiled"))
        assert distance(here.numbers(tiled), here.numbers(dense)) <= rule("float64", 0.1)


def test_tiles_too_cold_for_a_fixed_shift(framework: str) -> None:
    """At 1e-3 opposite embeddings are 2000 apart as logits: the largest logit of a row is found on the way."""
    here, labels = load(framework), [0, 0, 1, 1]
    z = here.array(np.asarray([[1.0, 0.0], [1.0, 0.1], [-1.0, 0.0], [-1.0, 0.1]]))
    temperature = here.array(np.asarray(1e-3))
    dense, tiled = (
        ss.value_and_gradient(losses.decoupled(), z, labels, temperature=temperature, engine=engine, tile=tile)
        for engine, tile in (("dense", None), ("tiled", 3))
    )
    assert float(dense[0]) < -1900.0
    for got, want in zip((tiled[0], *tiled[1]), (dense[0], *dense[1]), strict=True):
        assert distance(here.numbers(got), here.numbers(want)) <= rule("float64", 1e-3)


@pytest.mark.framework("jax")
def test_jax_derivatives_of_tiles_to_the_second_order() -> None:
    import jax

    here, call = load("jax"), CALLS["sincere"]
    z = here.array(call.arrays["embeddings"])

    def derivatives(engine: str, tile: int | None) -> Any:
        def f(z: Any) -> Any:
            return call.value({"embeddings": z}, engine=engine, tile=tile)

        forward = jax.jvp(f, (z,), (z[::-1],))[1]
        forward_over_reverse = jax.jvp(jax.grad(f), (z,), (z[::-1],))[1]
        reverse_over_reverse = jax.grad(lambda z: jax.numpy.sum(jax.grad(f)(z) ** 2))(z)
        return forward, forward_over_reverse, reverse_over_reverse

    dense, tiled = jax.jit(lambda: (derivatives("dense", None), derivatives("tiled", 4)))()
    for got, want in zip(tiled, dense, strict=True):
        assert distance(here.numbers(got), here.numbers(want)) <= 100.0 * rule("float64", call.temperature)


@pytest.mark.framework("tensorflow")
def test_tensorflow_derivatives_of_tiles_to_the_second_order() -> None:
    import tensorflow as tf

    here, call = load("tensorflow"), CALLS["sincere"]
    arrays = here.arrays(call.arrays)
    found = {}
    for engine, tile in (("dense", None), ("tiled", 4)):
        with tf.GradientTape() as outer:
            outer.watch(arrays)
            with tf.GradientTape() as inner:
                inner.watch(arrays)
                value = call.value(arrays, engine=engine, tile=tile)
            first = inner.gradient(value, arrays)
            total = sum(tf.reduce_sum(g * g) for g in first.values())
        found[engine] = outer.gradient(total, arrays)
    for argument, want in found["dense"].items():
        got = found["tiled"][argument]
        assert distance(here.numbers(got), here.numbers(want)) <= 100.0 * rule("float64", call.temperature), argument


@pytest.mark.framework("tensorflow")
def test_tensorflow_refuses_forward_mode_through_tiles() -> None:
    import tensorflow as tf

    here, call = load("tensorflow"), CALLS["sincere"]
    z = here.array(call.arrays["embeddings"])

    def along(z: Any) -> Any:
        with tf.autodiff.ForwardAccumulator(z, tf.ones_like(z)) as accumulator:
            value = call.value({"embeddings": z}, engine="tiled")
        return accumulator.jvp(value)

    for run in (along, tf.function(along, autograph=False)):
        with pytest.raises(ss.EngineUnavailable, match='engine="dense"'):
            run(z)


@pytest.mark.framework("torch")
@pytest.mark.parametrize("engine", ["dense", "tiled"])
@pytest.mark.parametrize("name", [name for name in MADE_DIFFERENTLY if name in EXACT])
def test_torch_gradcheck_of_every_engine(name: str, engine: str) -> None:
    """Value, gradient, and the gradient's gradient, of each engine by name; `engine="auto"` is checked with the gradients."""
    import torch

    here, call = load("torch"), CALLS[name].with_parameters()
    arrays = {argument: x.requires_grad_() for argument, x in here.arrays(call.arrays).items()}
    tile = 4 if engine == "tiled" else None

    def f(*inputs: torch.Tensor) -> torch.Tensor:
        return call.value(dict(zip(arrays, inputs)), engine=engine, tile=tile)

    inputs = tuple(arrays.values())
    assert torch.autograd.gradcheck(f, inputs, eps=1e-6, atol=1e-7, rtol=1e-6, fast_mode=True)
    assert torch.autograd.gradgradcheck(f, inputs, eps=1e-6, atol=1e-6, rtol=1e-5, fast_mode=True)


@pytest.mark.framework("torch")
@pytest.mark.parametrize("engine", ["dense", "tiled"])
def test_torch_row_losses_of_every_engine_can_be_weighed(engine: str) -> None:
    import torch

    here, call = load("torch"), CALLS["sincere"]
    z = here.array(call.arrays["embeddings"]).requires_grad_()
    weights = torch.linspace(0.5, 2.0, 6, dtype=torch.float64)
    (got,) = torch.autograd.grad(torch.sum(weights * call.value({"embeddings": z}, reduction="none", engine=engine)), z)
    want = np.zeros((6, 4))
    x = call.arrays["embeddings"]
    for i, weight in enumerate(weights.tolist()):  # the anchor i alone, and the batch as its keys
        options = {"key_labels": call.labels, "ids": [i], "key_ids": list(range(6))}
        anchor = Call(call.loss, {"embeddings": x[i : i + 1], "keys": x}, call.labels[i : i + 1], options)
        _, parts = anchor.value_and_gradient(anchor.arrays)
        want += weight * parts["keys"]
        want[i] += weight * parts["embeddings"][0]
    assert distance(here.numbers(got), want) <= rule("float64", 0.2)


def test_a_fault_planted_in_one_engine_is_seen_by_the_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    from sincere_spec.engines import dense

    plain = dense._dlogits
    monkeypatch.setattr(dense, "_dlogits", lambda *given: {kind: c * 1.0001 for kind, c in plain(*given).items()})
    call = CALLS["sincere"]
    want, streamed = (
        call.value_and_gradient(call.arrays, engine=engine, tile=tile)[1]["embeddings"]
        for engine, tile in (("dense", None), ("tiled", 2))
    )
    assert distance(streamed, want) > rule("float64", 0.2)


SPARSE = {
    "a few classes": ([0, 1] * 10, None),
    "many classes": ([*range(10)] * 2, None),
    "classes of every size": ([0, 1, 1, 2, 2, 2, *range(3, 17)], None),
    "keys of every label": ([*range(10)] * 2, [*range(10)] * 3),
    "labels that no key has": ([*range(20)], [*range(5, 15)] * 3),
}


@has_tiles
@pytest.mark.parametrize("temperature", [0.1, 1e-3])
@pytest.mark.parametrize("name", ["sincere", "supcon_out", "supcon_in", "decoupled"])
@pytest.mark.parametrize("labels", SPARSE)
def test_the_narrow_matrix_of_neighbours_gives_what_tiles_give(
    framework: str, labels: str, name: str, temperature: float
) -> None:
    """Where many columns share a row's label, or some row has none, masks over the whole matrix do."""
    here, rng = load(framework), np.random.default_rng(3)
    own, others = SPARSE[labels]
    record = (
        losses.supcon(temperature, name[-3:].strip("_")) if "supcon" in name else getattr(losses, name)(temperature)
    )
    z = rng.normal(size=(20, 4))
    keys = None if others is None else rng.normal(size=(30, 4))
    want, want_gradient = ss.value_and_gradient(record, z, own, keys=keys, key_labels=others, engine="tiled", tile=7)
    keys = None if keys is None else here.array(keys)
    value, gradient = ss.value_and_gradient(record, here.array(z), own, keys=keys, key_labels=others, engine="dense")
    bound = rule("float64", temperature, 4)
    assert distance(here.numbers(value), want) <= bound
    for got, exact in zip(*(x if keys is not None else (x,) for x in (gradient, want_gradient)), strict=True):
        assert distance(here.numbers(got), exact) <= bound


# --- which engine runs ----------------------------------------------------------------------------------------------------------


def test_explain_says_what_runs_and_why(framework: str) -> None:
    here, call = load(framework), CALLS["sincere"]
    z = here.array(call.arrays["embeddings"])
    plan = ss.explain(call.loss, z, call.labels)
    assert plan.engine == "dense"
    assert plan.reason
    assert plan.engine in str(plan)
    assert ss.explain(call.loss, z, call.labels, engine="dense").engine == "dense"
    with pytest.raises(ss.ShapeError):
        ss.explain(call.loss, z, [0])
    plan = ss.explain(call.loss, z, call.labels, engine="tiled", tile=3)
    assert (plan.engine, plan.tile) == ("tiled", 3)


def test_a_large_batch_streams_and_agrees(framework: str) -> None:
    """Large enough that `engine="auto"` takes tiles, several of them and several blocks of rows."""
    here = load(framework)
    rng = np.random.default_rng(0)
    z, labels = rng.normal(size=(2200, 4)), rng.integers(0, 50, size=2200)
    value, gradient = ss.value_and_gradient(losses.sincere(), here.array(z), labels)
    want, want_gradient = ss.value_and_gradient(losses.sincere(), z, labels, engine="dense")
    assert ss.explain(losses.sincere(), here.array(z), labels).engine == "tiled"
    assert distance(here.numbers(value), want) <= rule("float64", 0.1)
    assert distance(here.numbers(gradient), want_gradient) <= rule("float64", 0.1)


@pytest.mark.parametrize("options", [{"engine": "dense"}, {"engine": "tiled", "tile": 8}], ids=["dense", "tiled"])
def test_hinge_and_square_are_their_formulas(framework: str, options: dict[str, Any]) -> None:
    """A margin loss of pairs, and the spectral contrastive loss, with all their gradients, that of the temperature too."""
    here = load(framework)
    rng = np.random.default_rng(5)
    z, temperature, labels = rng.normal(size=(20, 6)), 0.7, [int(x) for x in rng.integers(0, 5, 20)]
    near = Stage("near", Fold.HINGE, over=Pairs.POSITIVE, scale=-1.0, offset=0.9)
    far = Stage("far", Fold.SQUARE, over=Pairs.NEGATIVE, offset=0.1, mean=True)
    loss = PairLoss("own", Labelled(), (near, far), (Term("near"), Term("far", 2.0)), Similarity())

    def formula(x: dict[str, np.ndarray]) -> float:
        unit = x["z"] / np.linalg.norm(x["z"], axis=1, keepdims=True)
        a, y = unit @ unit.T / x["temperature"], np.asarray(labels)
        same, itself = y[:, None] == y, np.eye(20, dtype=bool)
        hinges = np.sum(np.maximum(0.9 - a, 0.0) * (same & ~itself), axis=1)
        squares = np.sum((a + 0.1) ** 2 * ~same, axis=1) / np.sum(~same, axis=1)
        return float(np.mean((hinges + 2.0 * squares)[np.sum(same & ~itself, axis=1) > 0]))

    arrays = {"z": z, "temperature": np.asarray(temperature)}
    given = here.arrays(arrays)
    value, gradient = ss.value_and_gradient(loss, given["z"], labels, temperature=given["temperature"], **options)
    assert float(here.numbers(value)) == pytest.approx(formula(arrays), rel=1e-12)
    moved = central_differences(formula, arrays)
    assert distance(here.numbers(gradient.embeddings), moved["z"]) <= 1e-8
    assert distance(here.numbers(gradient.temperature), moved["temperature"]) <= 1e-8
