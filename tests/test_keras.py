"""`sincere_spec.keras`, once on each Keras backend, in a process of its own: what `compile`, `fit` and `.keras` files need."""

from __future__ import annotations

import inspect
import json
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from catalogue import distance, draw, rule

import sincere_spec as ss

pytestmark = [
    # Keras's own, on its torch backend
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad=True:UserWarning"),
    # PyTorch's own, where its compiler enters Keras 3.12 in pieces
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
]

FUNCTIONS = {loss.class_name: loss.function for loss in ss.losses.table.TABLE}
LABELLED = [loss.class_name for loss in ss.losses.table.TABLE if loss.record().arrangement.labelled]
UNLABELLED = [name for name in FUNCTIONS if name not in LABELLED]
OWN_OPTIONS: dict[str, dict[str, Any]] = {name: {"temperature": 0.2} for name in FUNCTIONS} | {
    "SincereLoss": {"temperature": 0.2, "epsilon": 0.5},
    "SupConLoss": {"temperature": 0.2, "summation": "in"},
    "DySTreSSLoss": {"temperature_min": 0.2, "temperature_max": 0.3, "detach": False, "schedule": "shifted"},
    "DySTreSSInfoNCELoss": {"temperature_min": 0.2, "temperature_max": 0.3, "detach": False, "schedule": "shifted"},
    "SigLIPLoss": {"temperature": 0.2, "bias": -2.0},
    "FMICLLoss": {"divergence": "tsallis", "alpha": 2.0, "inverse_bandwidth": 0.5, "order": 1.5},
}

Z = draw(1, rows=7)["rows"]
LABELS = np.asarray([0, 0, 0, 1, 1, 2, 3])  # the last two rows have no positive
COUNTING = 5
VIEWS = np.stack([Z, draw(2, rows=7)["rows"]], axis=1)
LARGE = 2**24  # from here on float32 has every other integer only
WEIGHTS = np.asarray([0.5, 2.0, 0.0, 1.0, 3.0, 7.0, 1.0])


@pytest.fixture(scope="module")
def here(keras: ModuleType) -> ModuleType:
    """The module under test."""
    from sincere_spec import keras as here

    return here


def traced(keras: ModuleType, f: Any) -> Any:
    """A function of labels and embeddings as `fit` has it: traced, and of no known batch size where that can be."""
    if keras.config.backend() == "jax":
        import jax

        return jax.jit(f)
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        return lambda *arrays: tf.function(f).get_concrete_function(
            *(tf.TensorSpec([None, *x.shape[1:]], x.dtype) for x in arrays)
        )(*arrays)
    return f


def close(got: Any, want: Any, temperature: float = 0.1) -> bool:
    return distance(np.asarray(got, dtype=np.float64), np.asarray(want)) <= rule("float32", temperature)


def digits(rows: int) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return (images[:rows] / 16.0).astype(np.float32), labels[:rows]


def network(keras: ModuleType) -> Any:
    keras.utils.set_random_seed(0)
    layers = keras.layers
    return keras.Sequential([keras.Input((64,)), layers.Dense(32, activation="relu"), layers.Dense(8)])


def losses_of(history: Any) -> list[float]:
    return [float(value) for value in history.history["loss"]]


# --- what a model needs ---


def test_a_model_trains_and_is_saved_with_its_loss(keras: ModuleType, here: ModuleType, tmp_path: Any) -> None:
    x, y = digits(300)
    model = network(keras)
    loss = here.SincereLoss(0.2, epsilon=0.1)
    model.compile(keras.optimizers.Adam(0.01), loss=loss)
    history = losses_of(model.fit(x, y, batch_size=64, epochs=4, verbose=0))  # a last batch of 44
    assert history[-1] < 0.7 * history[0]

    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert type(again.loss) is here.SincereLoss
    assert again.loss.get_config() == loss.get_config()
    values = [float(one.evaluate(x[:64], y[:64], batch_size=64, verbose=0)) for one in (model, again)]
    assert values[0] == values[1]


@pytest.mark.parametrize(("name", "jit"), [("SincereLoss", "auto"), ("SincereLoss", True), ("NTXentLoss", "auto")])
def test_a_step_of_fit_follows_the_gradient_of_the_function(
    keras: ModuleType, here: ModuleType, monkeypatch: pytest.MonkeyPatch, name: str, jit: Any
) -> None:
    if jit is True:
        if name == "NTXentLoss":
            pytest.skip("one loss is enough: a compilation takes seconds")
        if (
            keras.config.backend() == "torch"
        ):  # Dynamo traces the step; Inductor, which is slow, would add nothing of ours
            import torch

            monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    x = Z if name in LABELLED else VIEWS
    y = LARGE + LABELS if name in LABELLED else None
    weight = np.asarray(draw(4, rows=4)["rows"], dtype=np.float32)
    model = keras.Sequential([keras.Input(x.shape[1:]), keras.layers.Dense(4, use_bias=False)])
    model.set_weights([weight])
    model.compile(keras.optimizers.SGD(0.5), loss=getattr(here, name)(temperature=0.2), jit_compile=jit)
    history = losses_of(model.fit(x, y, batch_size=len(x), verbose=0))

    z = x @ weight.astype(np.float64)
    if name in LABELLED:
        value, gradient = ss.value_and_gradient(ss.losses.sincere(0.2), z, y)
    else:
        value, gradients = ss.value_and_gradient(ss.losses.nt_xent(0.2), z[:, 0], z[:, 1])
        gradient = np.stack(gradients, axis=1)
    slope = np.tensordot(x, gradient, axes=[range(x.ndim - 1)] * 2)
    assert close(history, [value], 0.2)
    assert np.allclose(model.get_weights()[0], weight - 0.5 * slope, rtol=1e-4, atol=1e-5)


def test_a_last_batch_that_is_smaller_is_fitted_in_a_compiled_program(keras: ModuleType, here: ModuleType) -> None:
    if keras.config.backend() == "torch":
        pytest.skip("tests/test_torch_programs.py compiles for batches of every size")
    x, y = digits(100)
    found = []
    for jit in (False, True):
        model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(8, use_bias=False)])
        model.set_weights([np.random.default_rng(0).normal(size=(64, 8))])
        model.compile(keras.optimizers.SGD(0.5), loss=here.SincereLoss(temperature=0.5), jit_compile=jit)
        history = losses_of(model.fit(x, y, batch_size=64, shuffle=False, epochs=2, verbose=0))  # 64 and 36
        found.append((history, model.get_weights()[0]))
    assert all(np.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(keras: ModuleType, here: ModuleType, policy: str) -> None:
    x, y = digits(64)
    try:
        keras.config.set_dtype_policy(policy)
        model = network(keras)
        model.compile(keras.optimizers.Adam(0.01), loss=here.SupConLoss(0.2))
    finally:
        keras.config.set_dtype_policy("float32")
    history = losses_of(model.fit(x, y, batch_size=64, epochs=8, verbose=0))
    assert history[-1] < history[0]


def test_a_model_trains_on_its_own_views(keras: ModuleType, here: ModuleType, tmp_path: Any) -> None:
    x, _ = digits(64)
    image = keras.Input((64,))
    augmentation, encoder = keras.layers.GaussianNoise(0.2, seed=1), network(keras)
    views = [encoder(augmentation(image)) for _ in range(2)]
    model = keras.Model(image, keras.ops.stack(views, axis=1))
    model.compile(keras.optimizers.Adam(0.01), loss=here.NTXentLoss())
    history = losses_of(model.fit(x, batch_size=64, epochs=8, verbose=0))
    assert history[-1] < history[0]


def test_a_temperature_learns_in_a_model(keras: ModuleType) -> None:
    class Towers(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.towers = [keras.layers.Dense(4), keras.layers.Dense(4)]
            self.log_temperature = self.add_weight(shape=(), initializer=keras.initializers.Constant(-2.66))

        def call(self, inputs: Any) -> Any:
            a, b = (tower(x) for tower, x in zip(self.towers, inputs))
            self.add_loss(ss.clip_loss(a, b, temperature=keras.ops.exp(self.log_temperature)))
            return a, b

    x, _ = digits(32)
    model = Towers()
    model.compile("adam")
    model.fit((x[:, :32], x[:, 32:]), verbose=0)
    assert len(model.trainable_weights) == 5
    assert float(model.log_temperature) not in (-2.66, np.float32(-2.66))


ADDED: dict[str, tuple[Any, Any]] = {
    "groups": (np.asarray([4, 1, 4, 0, 2, 1, 4]), lambda a, b, said: ss.clip_loss(a, b, ignore=ss.same(said))),
    "a matrix": (WEIGHTS, lambda a, b, said: ss.nt_xent_loss(a, b, ignore=said[:, None] - said[None, :] > 1.25)),
    "a guide": (
        np.float32(draw(6, rows=7)["rows"]),
        lambda a, b, said: ss.info_nce_loss(a, b, ignore=ss.guide(said, said + 0.5)),
    ),
    "weights": (
        WEIGHTS,
        lambda a, b, said: ss.supcon_loss(a, ss.positives((said[:, None] - 0.5 * said[None, :]) ** 2), keys=b),
    ),
    "rows": (LABELS > 0, lambda a, b, said: ss.siglip_loss(a, b, where=said)),
}


@pytest.mark.parametrize("kind", ADDED)
def test_a_model_adds_the_loss_of_what_labels_cannot_say(keras: ModuleType, kind: str) -> None:
    """By `add_loss`: what is said of the batch is an input by row, which `fit` shuffles, and matrices are made of it there."""
    said, loss = ADDED[kind]
    said = np.float32(said) if said.dtype == np.float64 else said

    class Model(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.tower = keras.layers.Dense(4, use_bias=False)

        def call(self, inputs: Any) -> Any:
            a, b, said = inputs
            self.add_loss(loss(self.tower(a), self.tower(b), said))
            return a

    a, b = (np.float32(VIEWS[:, view]) for view in range(2))
    model = Model()
    model([a, b, said])
    weight = np.float32(draw(8, rows=4)["rows"])
    model.set_weights([weight])
    model.compile(keras.optimizers.SGD(0.1))
    history = losses_of(model.fit((a, b, said), batch_size=7, verbose=0))
    x, y = (np.float64(rows) @ np.float64(weight) for rows in (a, b))
    assert close(history, [loss(x, y, said.astype(np.float64) if said.dtype == np.float32 else said)])
    assert not np.array_equal(model.get_weights()[0], weight)


# --- the loss of a batch ---


@pytest.mark.parametrize("name", LABELLED)
def test_labelled_losses_are_their_functions(keras: ModuleType, here: ModuleType, name: str) -> None:
    loss, function = (
        getattr(here, name)(**OWN_OPTIONS[name]),
        partial(getattr(ss, FUNCTIONS[name]), **OWN_OPTIONS[name]),
    )
    z = Z.astype(np.float32)
    for labels in (LABELS, np.zeros(7, dtype=np.int64), np.arange(7)):
        assert close(loss(labels, z), function(Z, labels), 0.2)
    assert close(loss(LABELS, VIEWS.astype(np.float32)), function(VIEWS, LABELS), 0.2)


@pytest.mark.parametrize("name", UNLABELLED)
def test_unlabelled_losses_are_their_functions(keras: ModuleType, here: ModuleType, name: str) -> None:
    loss, function = (
        getattr(here, name)(**OWN_OPTIONS[name]),
        partial(getattr(ss, FUNCTIONS[name]), **OWN_OPTIONS[name]),
    )
    views, (a, b) = VIEWS.astype(np.float32), np.moveaxis(VIEWS, 1, 0)
    want = function(a, b)
    assert close(loss(None, views), want, 0.2)
    assert close(loss(np.arange(7), views), want, 0.2)
    assert close(loss(views[:, 1], views[:, 0]), want, 0.2)


def test_every_view_is_an_argument(here: ModuleType) -> None:
    three = draw(5, a=7, b=7, c=7)
    stacked = np.stack([*three.values()], axis=1).astype(np.float32)
    assert close(here.NTXentLoss()(None, stacked), ss.nt_xent_loss(*three.values()))
    assert close(here.InfoNCELoss()(None, stacked), ss.info_nce_loss(*three.values()), 0.07)


@pytest.mark.parametrize("name", LABELLED)
def test_labels_are_read_as_they_came(keras: ModuleType, here: ModuleType, name: str) -> None:
    """In a traced batch, too: integers that float32 would merge, with Keras's additional axis, and one-hot rows."""
    loss, want = traced(keras, getattr(here, name)()), getattr(ss, FUNCTIONS[name])(Z, LABELS)
    z = keras.ops.convert_to_tensor(Z, dtype="float32")
    for labels in (LARGE + LABELS, LARGE + LABELS[:, None], np.eye(4, dtype=np.float32)[LABELS]):
        assert close(loss(keras.ops.convert_to_tensor(labels), z), want)


def test_labels_of_the_host_are_read_as_by_the_functions(here: ModuleType) -> None:
    loss, want = here.SincereLoss(), ss.sincere_loss(Z, LABELS)
    for labels in ([*"aaabbcd"], 2**40 * LABELS, np.eye(4)[LABELS], LABELS.astype(float)[:, None]):
        assert close(loss(labels, Z.astype(np.float32)), want)


def test_rows_that_are_not_one_hot_give_nan_or_are_refused(keras: ModuleType, here: ModuleType) -> None:
    for labels in (0.9 * np.eye(4)[LABELS] + 0.025, np.eye(4)[LABELS] + np.eye(4)[3 - LABELS]):
        assert_illegible(keras, here.SincereLoss(), labels, r'one-hot rows; got others: overlap="any"')
        with pytest.raises(ss.LabelError, match="y_true: a two-dimensional array of labels must be one-hot"):
            here.SincereLoss()(labels, keras.ops.convert_to_tensor(Z, dtype="float32"))


def assert_illegible(keras: ModuleType, loss: Any, labels: np.ndarray, message: str) -> None:
    """Refused where values are known, and NaN in a graph."""
    given = [keras.ops.convert_to_tensor(x, dtype="float32") for x in (labels, Z)]
    with pytest.raises(ss.LabelError, match=message):
        loss(*given)
    if keras.config.backend() != "torch":
        assert np.isnan(float(traced(keras, loss)(*given)))


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_float_labels_of_a_graph_are_read_where_they_are_whole(keras: ModuleType, here: ModuleType, kind: str) -> None:
    """Keras builds a model with float64 labels under a strategy. What may stand for two labels gives NaN."""
    if (kind, keras.config.backend()) == ("float64", "jax"):
        pytest.skip("JAX has float64 only if told so")
    ops, loss = keras.ops, traced(keras, here.SincereLoss())
    z, want = ops.convert_to_tensor(Z, dtype="float32"), ss.sincere_loss(Z, LABELS)
    for labels in (LABELS, LABELS[:, None] - 1):
        assert close(loss(ops.convert_to_tensor(labels, dtype=kind), z), want)
    if keras.config.backend() != "torch":  # whose labels are no graph's: they are read, and refused
        for labels in (LABELS + 0.5, LARGE + LABELS, LABELS * np.nan):
            assert np.isnan(float(loss(ops.convert_to_tensor(labels, dtype=kind), z)))


@pytest.mark.parametrize("name", LABELLED)
def test_samples_of_the_ignored_label_take_no_part(keras: ModuleType, here: ModuleType, name: str) -> None:
    """In a traced batch, too; what their embeddings hold does not matter, and Keras's mean is over the others."""
    inside = np.asarray([1, 1, 0, 1, 1, 1, 0], dtype=bool)
    labels, z = np.where(inside, LABELS, -1), np.where(inside[:, None], Z, np.nan).astype(np.float32)
    want = getattr(ss, FUNCTIONS[name])(Z[inside], LABELS[inside])
    loss, ops = getattr(here, name)(ignore_label=-1), keras.ops
    assert close(loss(labels, z), want)
    assert close(traced(keras, loss)(ops.convert_to_tensor(labels[:, None]), ops.convert_to_tensor(z)), want)
    views = np.where(inside[:, None, None], VIEWS, np.nan).astype(np.float32)
    assert close(loss(labels, views), getattr(ss, FUNCTIONS[name])(VIEWS[inside], LABELS[inside]))
    assert close(getattr(here, name)(ignore_label="none")([*"aa", "none", *"bbc", "none"], z), want)


@pytest.mark.parametrize(("name", "kind"), [("SincereLoss", "any"), ("SupConLoss", "any"), ("SupConLoss", "jaccard")])
def test_samples_have_several_labels(keras: ModuleType, here: ModuleType, name: str, kind: Any) -> None:
    hot = np.asarray([[1, 1, 0, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 1]])
    loss, ops, function = getattr(here, name)(overlap=kind), keras.ops, getattr(ss, FUNCTIONS[name])
    z, want = ops.convert_to_tensor(Z, dtype="float32"), function(Z, ss.overlap(hot, kind))
    assert close(loss(hot, Z.astype(np.float32)), want)
    for dtype in ("int32", "float32"):
        assert close(traced(keras, loss)(ops.convert_to_tensor(hot, dtype=dtype), z), want)
    assert close(loss(hot, VIEWS.astype(np.float32)), function(VIEWS, ss.overlap(hot, kind)))
    assert_illegible(keras, loss, 0.5 * hot, "a 1 for each class of a sample")


@pytest.mark.parametrize("options", [{"ignore_label": -1}, {"overlap": "any"}], ids=str)
def test_a_model_is_fitted_with_what_labels_can_say(
    keras: ModuleType, here: ModuleType, options: dict[str, Any], tmp_path: Any
) -> None:
    x, labels = digits(160)
    y = np.where(labels == 9, -1, labels) if "ignore_label" in options else np.eye(10)[labels] + np.eye(10)[labels // 2]
    model = network(keras)
    model.compile("adam", loss=here.SupConLoss(**options))
    values = losses_of(model.fit(x, np.minimum(y, 1) if y.ndim == 2 else y, batch_size=80, epochs=3, verbose=0))
    assert values[-1] < values[0]
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.loss.get_config().items() >= options.items()


# --- reductions and weights ---


@pytest.mark.parametrize("name", LABELLED)
def test_reductions_are_those_of_keras_over_the_rows_that_count(here: ModuleType, name: str) -> None:
    rows = getattr(ss, FUNCTIONS[name])(Z, LABELS, reduction="none")
    assert not rows[COUNTING:].any()

    def value(reduction: str | None, weights: np.ndarray | None = None) -> np.ndarray:
        loss = getattr(here, name)(reduction=reduction)
        return np.asarray(loss(LABELS, Z.astype(np.float32), sample_weight=weights))

    for reduction in ("sum_over_batch_size", "mean", "mean_with_sample_weight"):
        assert close(value(reduction), np.mean(rows[:COUNTING]))
    assert close(value("sum"), np.sum(rows))
    assert close(value("none"), rows)
    assert close(value(None), rows)

    for weights in (WEIGHTS, WEIGHTS[:, None]):
        weighted = WEIGHTS * rows
        assert close(value("sum_over_batch_size", weights), np.sum(weighted) / COUNTING)
        assert close(value("mean_with_sample_weight", weights), np.sum(weighted) / np.sum(WEIGHTS[:COUNTING]))
        assert close(value("sum", weights), np.sum(weighted))
        assert close(value("none", weights), weighted)


def test_a_sample_of_several_rows_has_their_mean(here: ModuleType) -> None:
    a, b = np.moveaxis(VIEWS, 1, 0)
    rows = ss.clip_loss(a, b, reduction="none").reshape(2, 7).mean(axis=0)
    for weights in (WEIGHTS, WEIGHTS[:, None]):
        got = here.CLIPLoss(reduction="none")(None, VIEWS.astype(np.float32), sample_weight=weights)
        assert close(got, WEIGHTS * rows, 0.07)
    rows = ss.supcon_loss(VIEWS, LABELS, reduction="none").reshape(7, 2).mean(axis=1)
    got = here.SupConLoss(reduction="none")(LABELS, VIEWS.astype(np.float32), sample_weight=WEIGHTS)
    assert close(got, WEIGHTS * rows)


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "mean_with_sample_weight", "sum"])
def test_a_batch_in_which_nothing_counts_is_zero(here: ModuleType, reduction: str) -> None:
    z = Z.astype(np.float32)
    for name in LABELLED:
        loss = getattr(here, name)(reduction=reduction)
        assert float(loss(np.arange(7), z)) == 0.0
        assert float(loss(np.arange(0), z[:0])) == 0.0
    assert float(here.DecoupledLoss(reduction=reduction)(np.zeros(7, dtype=int), z)) == 0.0
    assert float(here.NTXentLoss(reduction=reduction)(None, np.zeros((0, 2, 4), dtype=np.float32))) == 0.0


# --- construction ---


def test_every_function_has_its_class(here: ModuleType) -> None:
    assert here.__all__ == sorted(FUNCTIONS)
    assert {*FUNCTIONS.values()} == {f"{name}_loss" for name in ss.losses.__all__}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_defaults_are_those_of_the_function(here: ModuleType, name: str) -> None:
    function = inspect.signature(getattr(ss, FUNCTIONS[name])).parameters
    own, shared = (inspect.signature(kind).parameters for kind in (getattr(here, name), here.Loss))
    defaults = {key: x.default for key, x in (shared | own).items() if x.default is not x.empty}
    keras_has = {key: defaults.pop(key) for key in ("reduction", "name", "dtype")}
    assert keras_has == {"reduction": "sum_over_batch_size", "name": None, "dtype": None}
    arrays = {"keys", "key_labels", "ids", "key_ids", "negatives", "where", "ignore"}
    expected = {key: x.default for key, x in function.items() if x.default is not x.empty and key not in arrays}
    assert defaults == {key: x for key, x in expected.items() if key != "reduction"}


def test_across_refuses_what_it_does_not_serve(keras: ModuleType, here: ModuleType) -> None:
    for options, words in (
        ({"reduction": "sum"}, "the reduction must be"),
        ({"overlap": "any"}, "labels must be integers"),
        ({"ignore_label": "none"}, "labels must be integers"),
    ):
        with pytest.raises(ss.OptionError, match=f"across: {words}"):
            here.SincereLoss(across=True, **options)
    loss, z = here.SincereLoss(across=True), np.eye(4, dtype="float32")
    assert here.SincereLoss.from_config(loss.get_config()).across is True
    with pytest.raises(ss.OptionError, match="sample weights"):
        loss(keras.ops.convert_to_tensor([0, 0, 1, 1]), z, sample_weight=np.ones(4))
    with pytest.raises(ss.LabelError, match="tensor of integers"):
        loss(["a", "a", "b", "b"], z)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_configuration_makes_the_same_loss(keras: ModuleType, here: ModuleType, name: str) -> None:
    kind = getattr(here, name)
    loss = kind(**OWN_OPTIONS[name], normalize=False, engine="dense", reduction="sum", name="mine", dtype="float16")
    config = loss.get_config()
    assert config.items() >= {**OWN_OPTIONS[name], "normalize": False, "dtype": "float16"}.items()
    again = keras.losses.deserialize(json.loads(json.dumps(keras.losses.serialize(loss))))
    assert type(again) is kind
    assert again.get_config() == config == kind.from_config(config).get_config()
    assert again.record == loss.record


def test_bad_options_are_refused_at_construction(keras: ModuleType, here: ModuleType) -> None:
    for kind, options, message in (
        (here.SincereLoss, {"ignore_label": 0.5}, "ignore_label must be a label"),
        (here.SincereLoss, {"overlap": "some"}, "kind"),
        (here.SincereLoss, {"overlap": "jaccard"}, "use supcon_loss"),
        (here.DecoupledLoss, {"overlap": "any"}, "add_loss"),
        (here.SupConLoss, {"overlap": "any", "ignore_label": -1}, "give one of the two"),
        (here.SincereLoss, {"temperature": 0.0}, "temperature must be positive"),
        (
            here.SincereLoss,
            {"temperature": keras.Variable(0.1)},
            "temperature: expected a number, since Keras trains no",
        ),
        (here.SigLIPLoss, {"bias": float("nan")}, "bias must be a finite number"),
        (here.SupConLoss, {"summation": "outside"}, 'did you mean "out"'),
        (here.FMICLLoss, {"divergence": "KL"}, "divergence must be one of"),
        (here.CLIPLoss, {"normalize": 1}, "normalize must be True or False"),
        (here.CLIPLoss, {"engine": "tilde"}, 'did you mean "tiled"'),
        (here.CLIPLoss, {"tile": 0}, "tile must be a positive integer"),
    ):
        with pytest.raises(ss.OptionError, match=message):
            kind(**options)
    with pytest.raises(ValueError, match="reduction"):
        here.SincereLoss(reduction="pairs")
    with pytest.raises(ss.SignatureError, match=r"^CLIPLoss.*'temprature': did you mean 'temperature'"):
        here.CLIPLoss(temprature=0.1)


def test_embeddings_without_views_are_refused(here: ModuleType) -> None:
    with pytest.raises(ss.ShapeError, match=r"y_pred: .* got \(7, 4\) without y_true: stack the views on axis 1"):
        here.CLIPLoss()(None, VIEWS[:, 0].astype(np.float32))
    with pytest.raises(ss.ShapeError, match="y_true has 6 entries for 7 rows"):
        here.SincereLoss()(LABELS[:6], Z.astype(np.float32))


def test_making_a_loss_changes_no_setting_of_keras(keras: ModuleType, here: ModuleType) -> None:
    def settings() -> list[Any]:
        return [keras.config.backend(), keras.config.floatx(), keras.config.dtype_policy().name]

    before = settings()
    here.SincereLoss(dtype="float16")(LABELS, Z.astype(np.float32))
    assert settings() == before
