"""Labels and ids: whatever names a class names it exactly, in every framework; what names none is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from catalogue import CALLS, distance, draw, rule
from frameworks import Framework, load
from hypothesis import given
from hypothesis import strategies as st

import sincere_spec as ss

CLASSES = [0, 0, 1, 2, 1, 0]
WIDTHS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
EMBEDDINGS = CALLS["sincere"].arrays["embeddings"]
WANT = ss.supcon_loss(EMBEDDINGS, CLASSES)


def loss(here: Framework, labels: Any, **options: Any) -> np.ndarray:
    return here.numbers(ss.supcon_loss(here.array(EMBEDDINGS), labels, **options))


def assert_same_classes(here: Framework, labels: Any) -> None:
    """The labels divide the rows as `CLASSES` does: any other division gives another value."""
    assert distance(loss(here, labels), WANT) <= rule("float64", 0.1)


def test_another_division_gives_another_value() -> None:
    for other in ([0, 0, 1, 2, 1, 1], [0, 0, 1, 1, 1, 0], [0] * 6, [0, 0, 1, 2, 3, 0]):
        assert abs(ss.supcon_loss(EMBEDDINGS, other) - WANT) > 1e-3


def extremes(kind: str) -> np.ndarray:
    """The lowest, the highest and a middle number of an integer type, as the three classes."""
    limits = np.iinfo(kind)
    return np.asarray([limits.max, limits.min, limits.max // 2], dtype=kind)[CLASSES]


def names(prefix: str = "") -> np.ndarray:
    return np.asarray([f"{prefix}tabby cat", f"{prefix}dog", f"{prefix}Ärmelkanal"])[CLASSES]


ON_THE_HOST: dict[str, Any] = {
    **{f"numpy {kind}": extremes(kind) for kind in WIDTHS},
    **{f"numpy {kind}, big-endian": extremes(kind).astype(np.dtype(kind).newbyteorder(">")) for kind in WIDTHS[1:4]},
    "numpy, negative strides": np.ascontiguousarray(extremes("int64")[::-1])[::-1],
    "numpy, multiples of 2^32": np.asarray([0, 1, 2], dtype=np.int64)[CLASSES] * 2**32,
    "numpy, neighbours at 2^53": np.asarray([2**53, 2**53 + 1, 2**53 + 2])[CLASSES],
    "numpy, neighbours at 2^63": np.asarray([2**63, 2**63 + 1, 2**63 - 1], dtype=np.uint64)[CLASSES],
    "numpy floats": np.asarray([3.0, -1.0, 1e300])[CLASSES],
    "numpy floats, multiples of 2^32": np.asarray([0.0, 2.0**32, 2.0**40])[CLASSES],
    "numpy float16": np.asarray([3.0, -1.0, 4.0], dtype=np.float16)[CLASSES],
    "numpy strings": names(),
    "numpy bytes": np.asarray([b"a", b"b", b"c"])[CLASSES],
    "numpy objects": np.asarray([*names()], dtype=object),
    "numpy one-hot": np.eye(3)[CLASSES],
    "numpy one-hot booleans": np.eye(5, dtype=bool)[CLASSES],
    "numpy one-hot integers": np.eye(4, dtype=np.int8)[CLASSES],
    "list of integers": CLASSES,
    "list of large integers": [2**70 + label for label in CLASSES],
    "list of strings": [*names()],
    "list of floats": [float(label) for label in CLASSES],
    "list of numpy integers": list(extremes("uint64")),
    "list of lists, one-hot": np.eye(3).tolist(),
    "tuple": tuple(CLASSES),
    "a column": np.asarray(CLASSES)[:, None],
    "a column of strings": names()[:, None],
    "a column, as a list": [[label] for label in CLASSES],
}
ON_THE_HOST["list of lists, one-hot"] = [ON_THE_HOST["list of lists, one-hot"][label] for label in CLASSES]


@pytest.mark.parametrize("kind", ON_THE_HOST)
def test_labels_of_the_host_beside_any_framework_s_embeddings(framework: str, kind: str) -> None:
    assert_same_classes(load(framework), ON_THE_HOST[kind])


@pytest.mark.parametrize("kind", WIDTHS)
def test_the_framework_s_own_integers_of_every_width(framework: str, kind: str) -> None:
    here = load(framework)
    assert_same_classes(here, here.array(extremes(kind), kind))


def test_a_range_is_a_label_for_each_row(framework: str) -> None:
    here = load(framework)
    keys = {"keys": here.array(EMBEDDINGS), "key_labels": range(6)}
    assert loss(here, range(6), **keys) == loss(here, [*range(6)], **{**keys, "key_labels": [*range(6)]})


def test_a_column_of_the_framework_s_integers_stays_where_it_is(framework: str) -> None:
    here = load(framework)
    column = here.array(np.asarray(CLASSES)[:, None], "int32")
    assert_same_classes(here, column)
    if here.compile is not None:
        program = here.compile(lambda x, y: ss.supcon_loss(x, y))
        assert distance(here.numbers(program(here.array(EMBEDDINGS), column)), WANT) <= rule("float64", 0.1)


@pytest.mark.parametrize("kind", ["bool", "float32", "float64", "bfloat16", "float16"])
def test_the_framework_s_own_booleans_and_floats_and_one_hot_rows(framework: str, kind: str) -> None:
    here = load(framework)
    if kind != "bool" and kind not in here.dtypes:
        pytest.skip(f"{framework} has no {kind}")
    assert_same_classes(here, here.array(np.eye(3)[CLASSES], kind))
    if kind == "bool":
        two = [label == 0 for label in CLASSES]
        assert loss(here, here.array(two, kind)) == loss(here, two)
    else:
        assert_same_classes(here, here.array(np.asarray([7.0, -2.0, 0.0])[CLASSES], kind))


@pytest.mark.framework("tensorflow")
def test_tensorflow_strings() -> None:
    import tensorflow as tf

    here = load("tensorflow")
    assert_same_classes(here, tf.constant([*names()]))
    keys = {"keys": here.array(EMBEDDINGS), "ids": range_of(6), "key_ids": range_of(6)}
    for own, others in (
        (tf.constant([*names()]), tf.constant([*names()])),
        (tf.constant([*names()]), [*names()]),
        (names(), tf.constant([*names()])),
    ):
        assert_same_classes_with_keys(here, own, keys | {"key_labels": others})


def range_of(n: int) -> list[int]:
    return list(range(n))


def assert_same_classes_with_keys(here: Framework, labels: Any, options: dict[str, Any]) -> None:
    got = here.numbers(ss.supcon_loss(here.array(EMBEDDINGS), labels, **options))
    assert distance(got, WANT) <= rule("float64", 0.1)


@given(labels=st.lists(st.integers(-(2**63), 2**64), min_size=6, max_size=6, unique=True))
def test_integers_are_equal_just_where_they_are(labels: list[int]) -> None:
    chosen = [labels[label] for label in CLASSES]
    assert ss.supcon_loss(EMBEDDINGS, chosen) == WANT
    assert ss.supcon_loss(EMBEDDINGS, labels) == 0.0


def test_a_framework_s_integers_stay_where_they_are(framework: str) -> None:
    """Nothing of them is read: so they may be traced."""
    here = load(framework)
    if here.compile is None:
        pytest.skip(f"{framework} does not trace")
    z = here.array(EMBEDDINGS)
    program = here.compile(lambda x, y: ss.supcon_loss(x, y))
    for kind in ("int32", "int64"):
        assert distance(here.numbers(program(z, here.array(CLASSES, kind))), WANT) <= rule("float64", 0.1)


@pytest.mark.parametrize("framework", ["jax"], indirect=True)
def test_labels_closed_over_by_a_transformed_function(framework: str) -> None:
    """The usual way of jax: the embeddings are traced, and the labels, keys and temperature are arrays already."""
    import jax

    here = load(framework)
    z, labels = here.array(EMBEDDINGS), here.array(CLASSES)
    want, gradient = ss.value_and_gradient(ss.losses.supcon(), EMBEDDINGS, CLASSES)
    value, found = jax.value_and_grad(lambda x: ss.supcon_loss(x, labels))(z)
    assert distance(here.numbers(value), want) <= rule("float64", 0.1)
    assert distance(here.numbers(found), gradient) <= rule("float64", 0.1)
    assert distance(here.numbers(jax.jit(lambda x: ss.supcon_loss(x, labels))(z)), want) <= rule("float64", 0.1)
    ids, temperature = here.array(range_of(6)), here.array(0.1)
    _, found = jax.value_and_grad(
        lambda x: ss.supcon_loss(x, labels, temperature, keys=z, key_labels=labels, ids=ids, key_ids=ids)
    )(z)
    _, keys_gradient = ss.value_and_gradient(
        ss.losses.supcon(),
        EMBEDDINGS,
        CLASSES,
        keys=EMBEDDINGS,
        key_labels=CLASSES,
        ids=range_of(6),
        key_ids=range_of(6),
    )
    assert distance(here.numbers(found), keys_gradient.embeddings) <= rule("float64", 0.1)


# --- labels of anchors and of keys --------------------------------------------------------------------------------------------

PAIRS_OF_KINDS: dict[str, tuple[Any, Any]] = {
    "strings in two orders": ([*names()], np.asarray([*names()])),
    "list beside array": (CLASSES, np.asarray(CLASSES, dtype=np.uint8)),
    "floats beside integers": (np.asarray(CLASSES, dtype=np.float32), CLASSES),
    "one-hot beside classes": (np.eye(3)[CLASSES], CLASSES),
    "two widths": (np.asarray(CLASSES, dtype=np.int8), np.asarray(CLASSES, dtype=np.uint64)),
}


@pytest.mark.parametrize("kinds", PAIRS_OF_KINDS)
def test_labels_of_anchors_and_of_keys_are_numbered_together(framework: str, kinds: str) -> None:
    """The keys are the batch in another order, so equal names come in another order, too."""
    here = load(framework)
    labels, key_labels = PAIRS_OF_KINDS[kinds]
    order = [5, 3, 0, 1, 4, 2]
    shuffled = [key_labels[i] for i in order] if isinstance(key_labels, list) else key_labels[order]
    ids = [f"image {i}" for i in range(6)]
    options = {
        "keys": here.array(EMBEDDINGS[order]),
        "key_labels": shuffled,
        "ids": ids,
        "key_ids": np.asarray([ids[i] for i in order]),
    }
    assert_same_classes_with_keys(here, labels, options)


def test_own_integers_beside_lists_and_numpy(framework: str) -> None:
    here = load(framework)
    own = here.array(CLASSES, "int64")
    options = {"keys": here.array(EMBEDDINGS), "ids": here.array(range_of(6)), "key_ids": range_of(6)}
    for labels, key_labels in (
        (own, CLASSES),
        (CLASSES, own),
        (own, np.asarray(CLASSES)),
        (own, here.array(CLASSES, "int32")),
    ):
        assert_same_classes_with_keys(here, labels, options | {"key_labels": key_labels})
    if here.compile is not None:
        z = here.array(EMBEDDINGS)
        program = here.compile(
            lambda x, y: ss.supcon_loss(x, y, keys=x, key_labels=CLASSES, ids=range_of(6), key_ids=range_of(6))
        )
        for kind in ("int32", "int64"):
            assert distance(here.numbers(program(z, here.array(CLASSES, kind))), WANT) <= rule("float64", 0.1)


def test_traced_integers_of_two_widths_do_not_wrap_into_each_other(framework: str) -> None:
    """4294967295 of uint32 is not -1 of int32."""
    here = load(framework)
    if here.compile is None:
        pytest.skip(f"{framework} does not trace")
    z = here.array(EMBEDDINGS)
    program = here.compile(lambda x, y, k: ss.supcon_loss(x, y, keys=x, key_labels=k))
    try:
        value = program(z, here.array([2**32 - 1] * 6, "uint32"), here.array([-1] * 6, "int32"))
    except ss.LabelError:
        return
    assert not np.any(here.numbers(value))  # no positives


def test_ids_of_every_kind_name_samples(framework: str) -> None:
    """Rows 0 and 5 are one sample: they are no pair, and all other rows are as if nothing had been said."""
    here = load(framework)
    same = [0, 1, 2, 3, 4, 0]
    plain = loss(here, CLASSES, ids=same, reduction="none")
    changed = np.abs(plain - loss(here, CLASSES, reduction="none")) > 1e-3
    assert changed.tolist() == [True, False, False, False, False, True]
    for ids in (
        np.asarray(same, dtype=np.uint64) + np.uint64(2**63),
        [f"image {i}" for i in same],
        here.array(same, "int64"),
        np.asarray(same) * 2**32,
    ):
        np.testing.assert_array_equal(loss(here, CLASSES, ids=ids, reduction="none"), plain)


def test_ids_of_views_are_one_a_row() -> None:
    """Ids are for anchors, and with views every row is one, sample by sample."""
    z = draw(3, z=6)["z"].reshape(3, 2, 4)
    ids = [0, 1, 2, 3, 4, 0]
    flat = ss.sincere_loss(z.reshape(6, 4), [0, 0, 1, 1, 0, 0], ids=ids, reduction="none")
    np.testing.assert_array_equal(ss.sincere_loss(z, [0, 1, 0], ids=ids, reduction="none"), flat)
    with pytest.raises(ss.ShapeError, match=r"ids"):
        ss.sincere_loss(z, [0, 1, 0], ids=[0, 1, 2])


# --- what names no class ---------------------------------------------------------------------------------------------------

NOT_LABELS: dict[str, tuple[Any, type[Exception]]] = {
    "NaN": (np.asarray([0.0, np.nan, 1.0, 0.0, 1.0, 0.0]), ss.LabelError),
    "infinity": ([0.0, float("inf"), 1.0, 0.0, 1.0, 0.0], ss.LabelError),
    "fractions": (np.asarray([0.0, 0.5, 1.0, 0.0, 1.0, 0.0]), ss.LabelError),
    "complex numbers": (np.asarray(CLASSES, dtype=complex), ss.LabelError),
    "None": ([0, None, 1, 2, 1, 0], ss.LabelError),
    "multi-hot rows": (np.asarray([[1, 1, 0]] * 6), ss.LabelError),
    "soft labels": (np.full((6, 4), 0.25), ss.LabelError),
    "smoothed labels": (np.eye(3)[CLASSES] * 0.9 + 0.1 / 3.0, ss.LabelError),
    "rows of zeros": (np.zeros((6, 3)), ss.LabelError),
    "one-hot with a NaN": (np.where(np.eye(3)[CLASSES] == 0, np.nan, 1.0), ss.LabelError),
    "a column of fractions": (np.asarray(CLASSES)[:, None] + 0.5, ss.LabelError),
    "three dimensions": (np.zeros((6, 1, 1)), ss.LabelError),
    "a single number": (np.asarray(3), ss.LabelError),
    "dates": (np.asarray(["2020-01-01"] * 6, dtype="datetime64[D]"), ss.LabelError),
    "a string": ("aabcba", ss.LabelError),
    "an integer": (3, ss.LabelError),
    "nothing": (None, ss.LabelError),
    "a dictionary": ({i: i for i in range(6)}, ss.LabelError),
    "rows of unequal length": ([[1, 0], [1, 0], [0, 1, 0], [0, 1], [1, 0], [0, 1]], ss.LabelError),
    "classes among one-hot rows": ([[1, 0], [1, 0], 1, [0, 1], [1, 0], [0, 1]], ss.LabelError),
    "too few": ([0, 0, 1], ss.ShapeError),
    "too many": (np.zeros(7, dtype=int), ss.ShapeError),
    "too few one-hot rows": (np.eye(3), ss.ShapeError),
    "none": ([], ss.ShapeError),
}


@pytest.mark.parametrize("kind", NOT_LABELS)
def test_what_is_no_label_is_refused_by_name(framework: str, kind: str) -> None:
    here = load(framework)
    labels, error = NOT_LABELS[kind]
    with pytest.raises(error, match=r"^labels") as caught:
        loss(here, labels)
    assert isinstance(caught.value, ValueError)
    keys = {"keys": here.array(EMBEDDINGS), "key_labels": labels}
    with pytest.raises(error if labels is not None else ss.ShapeError, match=r"key_labels"):
        loss(here, CLASSES, **keys)
    if labels is not None:
        with pytest.raises(error, match=r"^ids"):
            loss(here, CLASSES, ids=labels)


@pytest.mark.parametrize("kind", ["fractions", "multi-hot rows", "soft labels", "NaN", "three dimensions", "too many"])
def test_what_is_no_label_is_refused_in_the_framework_s_own_arrays(framework: str, kind: str) -> None:
    here = load(framework)
    labels, error = NOT_LABELS[kind]
    with pytest.raises(error, match=r"^labels"):
        loss(here, here.array(labels))


def test_traced_one_hot_rows_are_refused_with_advice(framework: str) -> None:
    here = load(framework)
    if here.compile is None:
        pytest.skip(f"{framework} does not trace")
    program = here.compile(lambda x, y: ss.supcon_loss(x, y))
    for labels in (np.eye(3)[CLASSES], np.asarray(CLASSES, dtype=np.float32)):
        with pytest.raises(ss.LabelError, match=r"integers.*argmax"):
            program(here.array(EMBEDDINGS), here.array(labels))


def test_labels_that_are_no_gradient_s_business(framework: str) -> None:
    """Float labels, even ones that require a gradient, get none and stop none."""
    here = load(framework)
    if here.gradient is None:
        pytest.skip(f"{framework} has no automatic differentiation")
    floats = here.array(np.asarray(CLASSES, dtype=np.float64))
    if framework == "torch":
        floats.requires_grad_()
    found = here.gradient(lambda inputs: ss.supcon_loss(inputs["z"], floats), {"z": here.array(EMBEDDINGS)})
    _, want = ss.value_and_gradient(ss.losses.supcon(), EMBEDDINGS, CLASSES)
    assert distance(here.numbers(found["z"]), want) <= rule("float64", 0.1)


@pytest.mark.parametrize("unit", ["ns", "us", "s", "D", "Y"])
def test_times_are_refused_alike_in_every_unit(unit: str) -> None:
    """NumPy turns nanoseconds into integers and days into objects."""
    times = np.arange(6).astype(f"datetime64[{unit}]")
    for labels in (times, list(times), [*[0] * 5, times[0]], times - times[0]):
        with pytest.raises(ss.LabelError, match=r"got (datetime|timedelta)64\["):
            ss.sincere_loss(EMBEDDINGS, labels)
    ss.sincere_loss(EMBEDDINGS, times.astype(str))
