"""What is refused: before any arithmetic, by one class and in one form of words in every framework.

The words name the argument, say what was expected and what came, and what to do.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from catalogue import CALLS, draw
from frameworks import Framework, load

import sincere_spec as ss
from sincere_spec import losses
from sincere_spec.spec import elementwise

LABELS = [0, 0, 1, 1]


def rows(here: Framework, n: int = 4, width: int = 4, dtype: str = "float32") -> Any:
    return here.array(np.resize(draw(0, z=8)["z"], (n, width)), dtype)


# Each is a call, the error it raises, and words that its message must have, in this order.
Case = tuple[Callable[[Framework], Any], type[Exception], str]
REFUSED: dict[str, Case] = {
    "embeddings as a list": (
        lambda fw: ss.sincere_loss([[1.0, 2.0]] * 4, LABELS),
        ss.UnknownArrayError,
        "embeddings.*list.*known.*convert",
    ),
    "embeddings that are nothing": (
        lambda fw: ss.sincere_loss(None, LABELS),
        ss.UnknownArrayError,
        "embeddings.*NoneType.*convert",
    ),
    "the second view as a list": (
        lambda fw: ss.nt_xent_loss(rows(fw), [[1.0] * 4] * 4),
        ss.UnknownArrayError,
        "view_1.*list.*convert",
    ),
    "integer embeddings": (
        lambda fw: ss.sincere_loss(rows(fw, dtype="int32"), LABELS),
        ss.DtypeError,
        "embeddings.*float32.*int32.*convert",
    ),
    "boolean embeddings": (
        lambda fw: ss.sincere_loss(rows(fw, dtype="bool"), LABELS),
        ss.DtypeError,
        "embeddings.*float32.*bool.*convert",
    ),
    "complex embeddings": (
        lambda fw: ss.clip_loss(rows(fw), rows(fw, dtype="complex64")),
        ss.DtypeError,
        "b.*float32.*complex64.*convert",
    ),
    "two dtypes": (
        lambda fw: ss.clip_loss(rows(fw), rows(fw, dtype="float64")),
        ss.DtypeError,
        "a.*float32.*b.*float64.*convert",
    ),
    "keys of another dtype": (
        lambda fw: ss.sincere_loss(rows(fw), LABELS, keys=rows(fw, dtype="float64"), key_labels=LABELS),
        ss.DtypeError,
        "embeddings.*float32.*keys.*float64.*convert",
    ),
    "a vector for embeddings": (
        lambda fw: ss.sincere_loss(rows(fw)[0, :], LABELS),
        ss.ShapeError,
        r"embeddings.*\[n, d\].*\(4,\).*reshape",
    ),
    "four dimensions": (
        lambda fw: ss.sincere_loss(fw.array(np.ones((4, 1, 2, 3))), LABELS),
        ss.ShapeError,
        r"embeddings.*\[n, views, d\].*\(4, 1, 2, 3\)",
    ),
    "no view of a sample": (
        lambda fw: ss.sincere_loss(fw.array(np.ones((4, 0, 3))), LABELS),
        ss.ShapeError,
        r"embeddings.*\[n, views, d\].*\(4, 0, 3\)",
    ),
    "None for a view": (
        lambda fw: ss.evaluate(ss.losses.nt_xent(), rows(fw), rows(fw), None),
        ss.UnknownArrayError,
        "view_2.*None",
    ),
    "views where there are none": (
        lambda fw: ss.clip_loss(fw.array(np.ones((4, 2, 3))), rows(fw, dtype="float64")),
        ss.ShapeError,
        r"a.*expected.*\(4, 2, 3\).*reshape",
    ),
    "views in the keys": (
        lambda fw: ss.sincere_loss(
            fw.array(np.ones((4, 3))), LABELS, keys=fw.array(np.ones((4, 2, 3))), key_labels=LABELS
        ),
        ss.ShapeError,
        r"keys.*expected.*\(4, 2, 3\).*reshape",
    ),
    "towers of unequal length": (
        lambda fw: ss.clip_loss(rows(fw), rows(fw, n=3)),
        ss.ShapeError,
        "a.*4 rows.*b 3.*same sample",
    ),
    "views of unequal length": (
        lambda fw: ss.nt_xent_loss(rows(fw), rows(fw), rows(fw, n=5)),
        ss.ShapeError,
        "view_0.*4.*view_2 5.*same sample",
    ),
    "towers of unequal width": (
        lambda fw: ss.clip_loss(rows(fw), rows(fw, width=3)),
        ss.ShapeError,
        "a.*4 entries.*b.*3.*compare",
    ),
    "a queue of another width": (
        lambda fw: ss.info_nce_loss(rows(fw), rows(fw), rows(fw, width=5)),
        ss.ShapeError,
        "queries.*4.*negatives.*5",
    ),
    "keys of another width": (
        lambda fw: ss.sincere_loss(rows(fw), LABELS, keys=rows(fw, width=5), key_labels=LABELS),
        ss.ShapeError,
        "embeddings.*4.*keys.*5",
    ),
    "too few labels": (lambda fw: ss.sincere_loss(rows(fw), [0, 1]), ss.ShapeError, "labels.*2.*4.*one for each"),
    "keys without labels": (
        lambda fw: ss.sincere_loss(rows(fw), LABELS, keys=rows(fw)),
        ss.ShapeError,
        "keys.*without key_labels.*both",
    ),
    "key labels without keys": (
        lambda fw: ss.sincere_loss(rows(fw), LABELS, key_labels=LABELS),
        ss.ShapeError,
        "key_labels.*without keys.*both",
    ),
    "ids without key ids": (
        lambda fw: ss.sincere_loss(rows(fw), LABELS, keys=rows(fw), key_labels=LABELS, ids=LABELS),
        ss.ShapeError,
        "ids.*without key_ids.*both",
    ),
    "key ids without ids": (
        lambda fw: ss.sincere_loss(rows(fw), LABELS, keys=rows(fw), key_labels=LABELS, key_ids=LABELS),
        ss.ShapeError,
        "key_ids.*without ids.*both",
    ),
    "key ids without keys": (
        lambda fw: ss.sincere_loss(rows(fw), LABELS, ids=LABELS, key_ids=LABELS),
        ss.ShapeError,
        "key_ids.*without keys",
    ),
    "one view": (lambda fw: ss.nt_xent_loss(rows(fw)), ss.SignatureError, "two or more views.*1"),
    "no view": (lambda fw: ss.dystress_loss(), ss.SignatureError, "two or more views.*0"),
    "three towers": (lambda fw: ss.evaluate(losses.clip(), rows(fw), rows(fw), rows(fw)), ss.SignatureError, "a, b.*3"),
    "no labels": (lambda fw: ss.evaluate(losses.sincere(), rows(fw)), ss.SignatureError, "embeddings, labels.*1"),
    "keys for towers": (
        lambda fw: ss.evaluate(losses.clip(), rows(fw), rows(fw), keys=rows(fw)),
        ss.SignatureError,
        "clip.*a, b.*keys",
    ),
    "ids for views": (
        lambda fw: ss.evaluate(losses.nt_xent(), rows(fw), rows(fw), ids=LABELS),
        ss.SignatureError,
        "nt_xent.*views.*ids",
    ),
    "a temperature in two places": (
        lambda fw: ss.evaluate(losses.sincere(), rows(fw), LABELS, 0.1, temperature=0.2),
        ss.SignatureError,
        "embeddings, labels",
    ),
    "a vector of temperatures": (
        lambda fw: ss.sincere_loss(rows(fw), LABELS, fw.array([0.1, 0.2])),
        ss.ShapeError,
        r"temperature.*0-d.*\(2,\)",
    ),
    "an integer array as temperature": (
        lambda fw: ss.sincere_loss(rows(fw), LABELS, fw.array(1, "int32")),
        ss.DtypeError,
        "temperature.*float.*int32",
    ),
    "a vector of biases": (
        lambda fw: ss.siglip_loss(rows(fw), rows(fw), bias=fw.array([0.1, 0.2])),
        ss.ShapeError,
        r"bias.*0-d.*\(2,\)",
    ),
    "a temperature that is a list": (
        lambda fw: ss.sincere_loss(rows(fw), LABELS, [0.1]),
        ss.SincereSpecError,
        "temperature.*list",
    ),
    "a column of temperatures": (
        lambda fw: ss.clip_loss(rows(fw), rows(fw), temperature=fw.array([[0.1], [0.2]])),
        ss.ShapeError,
        r"temperature.*\(1,\).*\(2, 1\).*index",
    ),
    "a temperature that float32 makes 0": (
        lambda fw: ss.sincere_loss(rows(fw), LABELS, 1e-40),
        ss.OptionError,
        "temperature.*float32.*1e-40.*float64",
    ),
    "a bias that float32 makes infinite": (
        lambda fw: ss.siglip_loss(rows(fw), rows(fw), bias=-1e39),
        ss.OptionError,
        r"bias.*float32.*-1e\+39.*float64",
    ),
    "a temperature that no float holds": (
        lambda fw: ss.sincere_loss(rows(fw), LABELS, 10**400),
        ss.OptionError,
        "temperature.*finite",
    ),
    "a list of views": (
        lambda fw: ss.nt_xent_loss([rows(fw), rows(fw)]),
        ss.UnknownArrayError,
        "nt_xent.*views.*list of 2 arrays.*separate arguments",
    ),
    "a tuple of towers": (
        lambda fw: ss.evaluate(losses.clip(), (rows(fw), rows(fw))),
        ss.UnknownArrayError,
        "clip.*a, b.*tuple of 2 arrays.*separate arguments",
    ),
    "a list of views with labels": (
        lambda fw: ss.sincere_loss([rows(fw), rows(fw)], LABELS),
        ss.UnknownArrayError,
        r"embeddings, labels.*list of 2 arrays.*stack.*\[n, views, d\]",
    ),
    "a temperature in the place of a view": (
        lambda fw: ss.nt_xent_loss(rows(fw), rows(fw), 0.1),
        ss.UnknownArrayError,
        "nt_xent.*views.*0.1.*temperature is a keyword",
    ),
    "labels in the place of a view": (
        lambda fw: ss.nt_xent_loss(rows(fw), fw.array(LABELS, "int64")),
        ss.DtypeError,
        r'view_1.*no labels.*int64.*SincereLoss\(reduction="pairs"\)',
    ),
    "labels that are None": (
        lambda fw: ss.supcon_loss(rows(fw), None),
        ss.LabelError,
        "labels.*None.*nt_xent_loss",
    ),
    "one label for all": (
        lambda fw: ss.sincere_loss(rows(fw), np.int64(3)),
        ss.LabelError,
        "labels.*one label a row.*number",
    ),
    "strings beside integers": (
        lambda fw: ss.sincere_loss(rows(fw), ["a", "a", "b", "b"], keys=rows(fw), key_labels=LABELS),
        ss.LabelError,
        "labels are strings and key_labels integers.*convert",
    ),
    "integers of the framework beside strings": (
        lambda fw: ss.sincere_loss(rows(fw), fw.array(LABELS, "int64"), keys=rows(fw), key_labels=["a", "a", "b", "b"]),
        ss.LabelError,
        "key_labels.*strings.*convert|labels are integers and key_labels strings.*convert",
    ),
    "the rows of value_and_gradient": (
        lambda fw: ss.value_and_gradient(losses.sincere(), rows(fw), LABELS, reduction="none"),
        ss.OptionError,
        "value_and_gradient.*none.*sum",
    ),
    "a function for a record": (
        lambda fw: ss.evaluate(losses.sincere, rows(fw), LABELS),
        ss.OptionError,
        "record.*function",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_in_the_same_words_everywhere(framework: str, case: str) -> None:
    here = load(framework)
    call, error, words = REFUSED[case]
    with pytest.raises(error, match=rf"(?s){words}") as caught:
        call(here)
    assert type(caught.value) is error or error is ss.SincereSpecError
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "temperature", [0, 0.0, -1.0, -0.0, float("nan"), float("inf"), -float("inf"), True, False, "0.1", None]
)
def test_a_temperature_that_is_no_positive_number_is_refused(framework: str, temperature: Any) -> None:
    here = load(framework)
    z = rows(here)
    calls: list[Callable[[], Any]] = [
        lambda: ss.sincere_loss(z, LABELS, temperature),
        lambda: ss.info_nce_loss(z, z, temperature=temperature),
        lambda: ss.siglip_loss(z, z, temperature=temperature),
        lambda: losses.clip(temperature),
        lambda: losses.dystress(temperature_min=temperature),
        lambda: losses.dystress(temperature_max=temperature),
        lambda: losses.f_micl(inverse_bandwidth=temperature),
        lambda: losses.dystress(schedule="shifted", scale=temperature),
        lambda: losses.f_micl("tsallis", order=temperature),
    ]
    if temperature is not None:  # None leaves the record's
        calls.append(lambda: ss.evaluate(losses.sincere(), z, LABELS, temperature=temperature))
    for call in calls:
        with pytest.raises(ss.OptionError, match=r"positive.*got"):
            call()


@pytest.mark.parametrize("temperature", [0.0, -0.5, float("nan"), float("inf")])
def test_an_array_s_temperature_is_checked_where_it_can_be_read(framework: str, temperature: float) -> None:
    here = load(framework)
    with pytest.raises(ss.OptionError, match=r"temperature.*positive.*got"):
        ss.sincere_loss(rows(here), LABELS, here.array(temperature))


@pytest.mark.parametrize("number", [np.float32(0.5), np.float64(0.5), np.int64(1), 1])
def test_numbers_of_every_make_are_temperatures(framework: str, number: Any) -> None:
    here = load(framework)
    z = rows(here, dtype="float64")
    assert here.numbers(ss.sincere_loss(z, LABELS, number)) == here.numbers(ss.sincere_loss(z, LABELS, float(number)))


@pytest.mark.parametrize("shape", [(1,), (1, 1)])
def test_a_parameter_of_one_entry_is_a_number_whose_gradient_has_its_shape(
    framework: str, shape: tuple[int, ...]
) -> None:
    """As the models of Hugging Face and of big_vision keep their temperature and bias."""
    here = load(framework)
    z = rows(here, dtype="float64")
    plain, given = ({"temperature": np.full(s, 0.5), "bias": np.full(s, -1.0)} for s in ((), shape))
    want_value, want = ss.value_and_gradient(losses.siglip(), z, z, **here.arrays(plain))
    value, gradient = ss.value_and_gradient(losses.siglip(), z, z, **here.arrays(given))
    assert here.numbers(value) == here.numbers(want_value)
    for name in given:
        assert tuple(getattr(gradient, name).shape) == shape
        assert here.numbers(getattr(gradient, name)).reshape(()) == here.numbers(getattr(want, name))
    if here.gradient is not None:
        found = here.gradient(lambda x: ss.siglip_loss(z, z, **x), here.arrays(given))
        for name in given:
            assert tuple(found[name].shape) == shape
            assert here.numbers(found[name]).reshape(()) == pytest.approx(float(here.numbers(getattr(want, name))))


def test_numpy_s_numbers_are_options(framework: str) -> None:
    here = load(framework)
    z = rows(here, n=8, dtype="float64")
    options: list[dict[str, Any]] = [
        {"epsilon": np.float32(0.5), "tile": np.int64(3), "engine": "tiled"},
        {"epsilon": 0.5, "tile": 3, "engine": "tiled"},
    ]
    one, other = (here.numbers(ss.sincere_loss(z, LABELS * 2, **words)) for words in options)
    assert one == other


@pytest.mark.parametrize("epsilon", [15.0, 17.0, 100.0, 1e4, 1e6, 1e8, 1e30])
def test_a_large_epsilon_costs_no_digits(framework: str, epsilon: float) -> None:
    """softplus(u + epsilon) - epsilon would lose u; the limit is the decoupled loss, and -epsilon without negatives."""
    here = load(framework)
    z, labels = draw(1, z=8)["z"], [0, 0, 0, 1, 1, 2, 2, 3]
    u = np.exp(_logits(z))
    want = []
    for i, label in enumerate(labels):
        noise = sum(u[i, n] for n in range(8) if labels[n] != label)
        pairs = [p for p in range(8) if p != i and labels[p] == label]
        want += [np.mean([np.log(np.exp(-epsilon) + noise / u[i, p]) for p in pairs])] if pairs else []
    value = ss.sincere_loss(here.array(z, "float32"), labels, 0.5, epsilon=epsilon)
    assert float(here.numbers(value)) == pytest.approx(np.mean(want), rel=1e-5)
    _, got = ss.value_and_gradient(losses.sincere(0.5, epsilon), here.array(z, "float32"), labels)
    _, exact = ss.value_and_gradient(losses.sincere(0.5, epsilon), here.array(z, "float64"), labels)
    np.testing.assert_allclose(here.numbers(got), here.numbers(exact), rtol=1e-4, atol=1e-5)
    assert float(here.numbers(ss.sincere_loss(here.array(z, "float64"), [0] * 8, epsilon=epsilon))) == pytest.approx(
        -epsilon
    )


def _logits(z: np.ndarray) -> np.ndarray:
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    return unit @ unit.T / 0.5


OPTIONS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "reduction": (lambda z: ss.sincere_loss(z, LABELS, reduction="means"), "reduction.*'mean'.*got 'means'.*\"mean\""),
    "reduction of towers": (lambda z: ss.clip_loss(z, z, reduction="batchmean"), "reduction.*'batch'.*\"batch\""),
    "reduction None": (lambda z: ss.sincere_loss(z, LABELS, reduction=None), "reduction.*'none'.*got None"),
    "engine": (lambda z: ss.sincere_loss(z, LABELS, engine="tilde"), "engine.*'tilde'.*\"tiled\""),
    "divergence": (lambda z: ss.f_micl_loss(z, z, divergence="helinger"), "divergence.*'helinger'.*\"hellinger\""),
    "schedule": (lambda z: ss.dystress_loss(z, z, schedule="cosin"), "schedule.*'cosin'.*\"cosine\""),
    "summation": (lambda z: ss.supcon_loss(z, LABELS, summation="outside"), "summation.*'outside'.*\"out\""),
    "normalize": (lambda z: ss.sincere_loss(z, LABELS, normalize="yes"), "normalize.*True or False.*'yes'"),
    "tile 0": (lambda z: ss.sincere_loss(z, LABELS, tile=0), "tile.*positive.*0"),
    "tile True": (lambda z: ss.sincere_loss(z, LABELS, tile=True), "tile.*positive.*True"),
    "tile 2.5": (lambda z: ss.sincere_loss(z, LABELS, tile=2.5), "tile.*positive.*2.5"),
    "bias": (lambda z: ss.siglip_loss(z, z, bias="-10"), "bias.*finite.*'-10'"),
    "bias NaN": (lambda z: ss.siglip_loss(z, z, bias=float("nan")), "bias.*finite.*nan"),
    "epsilon": (lambda z: ss.sincere_loss(z, LABELS, epsilon="0.1"), "epsilon.*'0.1'"),
    "epsilon NaN": (lambda z: ss.sincere_loss(z, LABELS, epsilon=float("nan")), "epsilon.*nan"),
    "epsilon infinite": (lambda z: ss.sincere_loss(z, LABELS, epsilon=float("inf")), "epsilon.*inf"),
    "epsilon True": (lambda z: ss.sincere_loss(z, LABELS, epsilon=True), "epsilon.*True"),
    "epsilon None": (lambda z: ss.sincere_loss(z, LABELS, epsilon=None), "epsilon.*None"),
    "alpha": (lambda z: ss.f_micl_loss(z, z, alpha=-1.0), "alpha.*-1"),
    "alpha NaN": (lambda z: ss.f_micl_loss(z, z, alpha=float("nan")), "alpha.*nan"),
    "order 1": (lambda z: ss.f_micl_loss(z, z, divergence="tsallis", order=1.0), "order.*1.*kl"),
    "offset": (lambda z: ss.dystress_loss(z, z, schedule="shifted", offset="0.4"), "offset.*'0.4'"),
    "offset NaN": (lambda z: ss.dystress_loss(z, z, schedule="shifted", offset=float("nan")), "offset.*nan"),
    "temperatures the wrong way round": (
        lambda z: ss.dystress_loss(z, z, temperature_min=0.3),
        "temperature_min.*temperature_max.*0.3.*0.2",
    ),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_an_unknown_option_is_refused_with_the_nearest_right_one(framework: str, case: str) -> None:
    call, words = OPTIONS[case]
    with pytest.raises(ss.OptionError, match=words):
        call(rows(load(framework)))


@pytest.mark.parametrize("name", ["sincere_loss", "clip_loss", "f_micl_loss", "evaluate", "value_and_gradient"])
def test_a_keyword_that_there_is_not_is_a_type_error(name: str) -> None:
    with pytest.raises(TypeError, match=r"temprature"):
        getattr(ss, name)(np.ones((4, 4)), np.ones((4, 4)), temprature=0.1)


def test_every_error_is_one_of_the_package_and_one_of_python() -> None:
    pythons = {
        ss.UnknownArrayError: TypeError,
        ss.MixedBackendsError: TypeError,
        ss.DtypeError: TypeError,
        ss.ShapeError: ValueError,
        ss.LabelError: ValueError,
        ss.OptionError: ValueError,
        ss.SignatureError: TypeError,
        ss.EngineUnavailable: RuntimeError,
        ss.BackendNotInstalled: ImportError,
    }
    for error, python in pythons.items():
        assert issubclass(error, ss.SincereSpecError)
        assert issubclass(error, python)
    assert set(pythons) == set(ss.SincereSpecError.__subclasses__())


def test_refusals_come_before_any_arithmetic(framework: str, monkeypatch: pytest.MonkeyPatch) -> None:
    here = load(framework)

    def fail(*_: Any) -> Any:
        raise AssertionError("arithmetic")

    monkeypatch.setattr(elementwise, "value", fail)
    monkeypatch.setattr(elementwise, "softplus", fail)
    for call, error, _ in REFUSED.values():
        with pytest.raises(error):
            call(here)


# --- what only some frameworks have ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("framework", ["torch", "jax", "tensorflow", "array_api_strict"], indirect=True)
def test_numpy_arrays_beside_another_framework_s_embeddings_are_labels_or_nothing(framework: str) -> None:
    here = load(framework)
    z, stray = rows(here), np.ones((4, 4), dtype=np.float32)
    with pytest.raises(ss.MixedBackendsError, match=r"a .*array.*b .*convert one"):
        ss.clip_loss(z, stray)
    with pytest.raises(ss.MixedBackendsError, match=r"embeddings .*keys .*convert one"):
        ss.sincere_loss(z, LABELS, keys=stray, key_labels=LABELS)
    with pytest.raises(ss.MixedBackendsError, match=r"embeddings .*temperature .*convert one"):
        ss.sincere_loss(z, LABELS, np.asarray(0.1))
    ss.sincere_loss(z, np.asarray(LABELS))


@pytest.mark.framework("tensorflow")
def test_two_frameworks_are_refused_by_name() -> None:
    """TensorFlow loads jax where it finds it, so this process has both."""
    tf, jnp = pytest.importorskip("tensorflow"), pytest.importorskip("jax.numpy")
    z, x = tf.ones((4, 3)), jnp.ones((4, 3), dtype="float32")
    with pytest.raises(ss.MixedBackendsError, match=r"a is a tensorflow array and b a jax one; convert"):
        ss.clip_loss(z, x)
    with pytest.raises(ss.MixedBackendsError, match=r"embeddings is a jax array and keys a tensorflow one; convert"):
        ss.sincere_loss(x, LABELS, keys=z, key_labels=LABELS)
    with pytest.raises(ss.MixedBackendsError, match=r"labels is a jax array beside tensorflow embeddings; convert"):
        ss.sincere_loss(z, jnp.asarray(LABELS))
    with pytest.raises(ss.MixedBackendsError, match=r"temperature"):
        ss.sincere_loss(z, LABELS, jnp.asarray(0.1))


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")
@pytest.mark.framework("torch")
def test_torch_tensors_that_are_not_dense_or_not_in_one_place() -> None:
    import torch

    z = torch.ones(4, 3)
    nested = torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(1, 3)], layout=torch.jagged)
    for stray, word in ((z.to_sparse(), "sparse_coo"), (z.to_sparse_csr(), "sparse_csr"), (nested, "nested")):
        with pytest.raises(ss.UnknownArrayError, match=rf"embeddings.*dense.*{word}.*convert"):
            ss.sincere_loss(stray, LABELS)
    elsewhere = torch.ones(4, 3, device="meta")
    with pytest.raises(ss.MixedBackendsError, match=r"a is on cpu and b on meta; move"):
        ss.clip_loss(z, elsewhere)
    with pytest.raises(ss.SincereSpecError, match=r"labels.*meta"):
        ss.sincere_loss(z, torch.zeros(4, dtype=torch.int64, device="meta"))
    with pytest.raises(ss.DtypeError, match=r"embeddings.*float8"):
        ss.sincere_loss(z.to(torch.float8_e4m3fn), LABELS)


@pytest.mark.framework("tensorflow")
def test_tensorflow_tensors_that_are_not_dense() -> None:
    import tensorflow as tf

    ragged = tf.ragged.constant([[1.0, 2.0], [3.0]])
    for stray, word in ((ragged, "RaggedTensor"), (tf.sparse.from_dense(tf.eye(4)), "SparseTensor")):
        with pytest.raises(ss.UnknownArrayError, match=rf"embeddings.*dense.*{word}.*convert"):
            ss.sincere_loss(stray, LABELS)
        with pytest.raises(ss.SincereSpecError, match=r"labels.*convert"):
            ss.sincere_loss(tf.eye(4), stray)
    with pytest.raises(ss.DtypeError, match=r"embeddings.*string"):
        ss.sincere_loss(tf.constant([["a"]] * 4), LABELS)
    spec = [tf.TensorSpec(None, tf.float32)]
    unknown = tf.function(lambda x: ss.sincere_loss(x, LABELS), input_signature=spec, autograph=False)
    with pytest.raises(ss.ShapeError, match=r"embeddings"):
        unknown(tf.eye(4))


@pytest.mark.framework("tensorflow")
def test_errors_keep_their_class_inside_a_traced_function() -> None:
    """A traced function, too, is left by the package's own errors, which callers can name."""
    import tensorflow as tf

    traced = tf.function(lambda x: ss.sincere_loss(x, [0, 1]))
    with pytest.raises(ss.ShapeError, match=r"labels.*2.*4.*one for each"):
        traced(tf.ones((4, 3)))


@pytest.mark.framework("jax")
def test_jax_arrays_that_are_not_dense() -> None:
    import jax
    import jax.numpy as jnp
    from jax.experimental import sparse

    with pytest.raises(ss.UnknownArrayError, match=r"embeddings.*convert"):
        ss.sincere_loss(sparse.BCOO.fromdense(jnp.eye(4)), LABELS)
    with pytest.raises(ss.DtypeError, match=r"embeddings.*key"):
        ss.sincere_loss(jax.random.split(jax.random.key(0), 4), LABELS)


@pytest.mark.framework("numpy")
@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_numpy_arrays_that_are_not_plain() -> None:
    z = np.ones((4, 3))
    for stray, word in ((np.matrix(z), "matrix"), (np.ma.masked_array(z, z > 2), "MaskedArray")):
        with pytest.raises(ss.UnknownArrayError, match=rf"embeddings.*plain.*{word}.*numpy.asarray"):
            ss.sincere_loss(stray, LABELS)
        with pytest.raises(ss.SincereSpecError, match=r"labels"):
            ss.sincere_loss(z, stray)
    for dtype, name in (
        (object, "object"),
        ("datetime64[D]", "datetime64"),
        (np.longdouble, "float128|longdouble|float96"),
    ):
        with pytest.raises(ss.DtypeError, match=rf"embeddings.*({name})"):
            ss.sincere_loss(np.zeros((4, 3), dtype=dtype), LABELS)
    with pytest.raises(ss.DtypeError, match=r"embeddings.*string"):
        ss.sincere_loss(np.zeros((4, 3), dtype="U1"), LABELS)


@pytest.mark.framework("array_api_strict")
def test_arrays_on_two_devices() -> None:
    import array_api_strict as xp

    z, labels = CALLS["sincere"].arrays["embeddings"], CALLS["sincere"].labels
    here, there = (xp.asarray(z, device=xp.Device(name)) for name in ("CPU_DEVICE", "device1"))
    with pytest.raises(ss.MixedBackendsError, match=r"embeddings is on .* and keys on .*; move"):
        ss.sincere_loss(here, labels, keys=there, key_labels=labels)
    with pytest.raises(ss.MixedBackendsError, match=r"labels"):
        ss.sincere_loss(there, xp.asarray(labels))
    assert float(ss.sincere_loss(there, labels)) == float(ss.sincere_loss(here, labels))
    assert float(ss.sincere_loss(there, np.asarray(labels))) == float(ss.sincere_loss(here, labels))


@pytest.mark.parametrize("package", ["scipy.sparse", "pandas"])
def test_arrays_of_packages_that_are_not_known(package: str) -> None:
    pytest.importorskip(package)
    code = f"""
import {package} as package, numpy as np, sincere_spec as ss
stray = package.csr_array(np.eye(4)) if "sparse" in "{package}" else package.DataFrame(np.eye(4))
try:
    ss.sincere_loss(stray, [0, 0, 1, 1])
except ss.UnknownArrayError as error:
    assert "embeddings" in str(error) and "convert" in str(error), error
else:
    raise SystemExit("not refused")
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_framework_that_is_not_installed_is_said_to_be_so() -> None:
    """An array whose adapter cannot be imported: here its framework has been taken away."""
    code = """
import sys, sincere_spec as ss
sys.modules["jax"] = None
class Array: pass
Array.__module__ = "jaxlib.fake"
try:
    ss.sincere_loss(Array(), [0])
except ss.BackendNotInstalled as error:
    assert "jax" in str(error) and "pip install" in str(error) and isinstance(error, ImportError), error
else:
    raise SystemExit("not refused")
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
