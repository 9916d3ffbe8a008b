"""What a batch can teach: `ss.diagnose`, the one warning, and what training loops log."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from frameworks import load

import sincere_spec as ss
from sincere_spec.call import empty
from sincere_spec.call.check import Call, check

RANDOM = np.random.default_rng(1)
LABELS = np.asarray([0, 0, 1, 1, 1, 2, 3, 3, 4, 4, 4, 4])
ROWS = RANDOM.normal(size=(12, 5)) + 2.0 * RANDOM.normal(size=(5, 5))[LABELS]
OTHER = ROWS + 0.3 * RANDOM.normal(size=(12, 5))


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_labelled_rows(framework: str) -> None:
    tools = load(framework)
    found = ss.diagnose(ss.losses.sincere(0.2), tools.array(ROWS, "float64"), LABELS.tolist())
    s = unit(ROWS) @ unit(ROWS).T
    np.fill_diagonal(s, -2.0)
    positive = (LABELS[:, None] == LABELS) & ~np.eye(12, dtype=bool)
    rows = positive.any(1)
    assert (found.loss, found.rows, found.rows_that_count) == ("sincere", 12, 11)
    assert (found.fewest, found.most, found.positives) == (0, 3, positive.sum(1).mean())
    assert found.top1 == pytest.approx(np.mean(LABELS[s.argmax(1)][rows] == LABELS[rows]))
    assert found.alignment == pytest.approx(2.0 - 2.0 * s[positive].mean(), abs=1e-12)
    assert found.uniformity == pytest.approx(float(ss.metrics.uniformity(ROWS)), abs=1e-12)
    assert found.temperature == 0.2
    value, gradient = ss.value_and_gradient(ss.losses.sincere(0.2), ROWS, LABELS)
    assert found.value == pytest.approx(float(value), abs=1e-12)
    assert found.gradient_norm == pytest.approx(np.linalg.norm(gradient), abs=1e-12)
    assert found.teaches
    assert "11 of 12 rows count" in str(found)
    assert found.to_dict()["top1"] == found.top1


@pytest.mark.parametrize("name", ["nt_xent", "clip", "info_nce", "queue", "siglip", "f_micl"])
def test_pairs_by_place(name: str, framework: str) -> None:
    tools = load(framework)
    record = getattr(ss.losses, "info_nce" if name == "queue" else name)()
    queue = [RANDOM.normal(size=(7, 5))] if name == "queue" else []
    found = ss.diagnose(record, *(tools.array(x, "float64") for x in (ROWS, OTHER, *queue)))
    a, b = unit(ROWS), unit(OTHER)
    own = (a * b).sum(1)
    noise = {
        "nt_xent": np.concatenate([np.concatenate([a @ b.T, a @ a.T], 1), np.concatenate([b @ a.T, b @ b.T], 1)]),
        "clip": np.concatenate([a @ b.T, b @ a.T]),
        "siglip": np.concatenate([a @ b.T, b @ a.T]),
        "info_nce": a @ b.T,
        "queue": a @ unit(queue[0]).T if queue else None,
        "f_micl": a @ a.T,
    }[name]
    if not record.arrangement.roles(record.arrangement.names(2 + len(queue))).both_ways and name in ("siglip",):
        noise = a @ b.T
    n = len(noise)
    if name != "queue":
        for block in range(noise.shape[1] // 12):
            noise[np.arange(n), np.arange(n) % 12 + 12 * block] = -2.0
    assert found.rows == found.rows_that_count == n
    assert found.positives == 1.0
    assert found.top1 == pytest.approx(np.mean(np.tile(own, n // 12) > noise.max(1)))
    assert found.alignment == pytest.approx(np.mean(2.0 - 2.0 * own), abs=1e-12)
    assert found.teaches


@pytest.mark.parametrize(
    ("record", "rows", "labels", "counted", "why"),
    [
        (ss.losses.sincere(), ROWS, range(12), 0, "no row has a positive"),
        (ss.losses.sincere(), ROWS, [0] * 12, 12, "all rows are of one class"),
        (ss.losses.decoupled(), ROWS, [0] * 12, 0, "this loss needs both"),
        (ss.losses.sincere(), ROWS[:0], [], 0, "there are no rows"),
        (ss.losses.sincere(), ROWS * np.nan, LABELS, 11, "not finite"),
        (ss.losses.sincere(), np.zeros((12, 5)), LABELS, 11, "the gradient has vanished"),
    ],
)
def test_what_teaches_nothing(record: ss.PairLoss, rows: np.ndarray, labels, counted: int, why: str) -> None:
    found = ss.diagnose(record, rows, list(labels))
    assert not found.teaches
    assert found.rows_that_count == counted
    assert why in found.why
    assert "It teaches nothing" in str(found)


def test_one_class_teaches_supcon() -> None:
    assert ss.diagnose(ss.losses.supcon(), ROWS, [0] * 12).teaches


def test_keys_and_a_temperature_of_the_framework(framework: str) -> None:
    tools = load(framework)
    rows, keys = tools.array(ROWS[:4], "float64"), tools.array(ROWS, "float64")
    temperature = tools.array(0.25, "float64")
    given = {"keys": keys, "key_labels": LABELS, "ids": list(range(4)), "key_ids": list(range(12))}
    found = ss.diagnose(ss.losses.supcon(), rows, LABELS[:4], temperature=temperature, **given)
    assert found.temperature == 0.25
    assert (found.rows, found.fewest, found.most) == (4, 1, 2)


def test_under_a_compiler(framework: str) -> None:
    tools = load(framework)
    if tools.compile is None:
        pytest.skip(f"{framework} is not compiled by XLA")
    with pytest.raises(ss.EngineUnavailable, match="call it outside jit"):
        tools.compile(lambda z, y: ss.diagnose(ss.losses.sincere(), z, y).rows)(
            tools.array(ROWS, "float64"), tools.array(LABELS)
        )


# --- the warning ---


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    left = [empty.LOOKS]
    monkeypatch.setattr(empty, "looks_left", left)
    return left


def said(call) -> list[warnings.WarningMessage]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [one for one in caught if issubclass(one.category, ss.EmptyBatchWarning)]


def test_a_batch_of_lone_rows_is_said_once(framework: str, looks: list[int]) -> None:
    z = load(framework).array(ROWS, "float32")
    if framework in ("jax", "tensorflow"):  # whose values are not read
        assert not said(lambda: ss.sincere_loss(z, list(range(12))))
        assert looks == [empty.LOOKS]
        return

    def train() -> None:
        for _ in range(3):
            ss.supcon_loss(z, list(range(12)))
            ss.value_and_gradient(ss.losses.sincere(), z, list(range(12)))

    caught = said(train)
    assert len(caught) == 1
    assert "none of the 12 rows of this batch counts" in str(caught[0].message)
    assert "sincere_spec.diagnose" in str(caught[0].message)
    assert caught[0].filename == __file__
    assert looks == [0]


def test_what_is_no_empty_batch(looks: list[int]) -> None:
    assert not said(lambda: ss.sincere_loss(ROWS, LABELS))
    assert not said(lambda: ss.nt_xent_loss(ROWS, OTHER))
    assert not said(lambda: ss.sincere_loss(ROWS, list(range(12)), reduction="none"))
    assert looks == [empty.LOOKS]
    assert not said(lambda: ss.sincere_loss(ROWS, [0] * 12))  # 0, but its rows count
    assert looks == [empty.LOOKS - 1]
    for _ in range(5):
        assert not said(lambda: ss.sincere_loss(ROWS, [0] * 12))
    assert looks == [0]


def test_no_row_that_takes_part_counts(looks: list[int]) -> None:
    inside = np.asarray([True, False, True, False, False, True, True, False, True, False, False, False])
    assert len(said(lambda: ss.supcon_loss(ROWS, LABELS, where=inside))) == 1


def test_a_diagnosis_does_not_take_the_warning(looks: list[int]) -> None:
    assert not said(lambda: ss.diagnose(ss.losses.sincere(), ROWS, list(range(12))))
    assert looks == [empty.LOOKS]


@pytest.mark.parametrize(
    "record", [ss.losses.sincere(), ss.losses.decoupled(), ss.losses.supcon()], ids=lambda r: r.name
)
def test_the_rows_that_count_are_those_with_a_loss(record: ss.PairLoss) -> None:
    random = np.random.default_rng(0)
    for _ in range(30):
        labels, ids = random.integers(0, 4, 8), random.integers(0, 6, 8)
        problem = check(Call(record, (ROWS[:8], labels), ids=ids))
        expected = ss.evaluate(record, ROWS[:8], labels, ids=ids, reduction="none", engine="dense")
        diagnosed = ss.diagnose(record, ROWS[:8], labels, ids=ids).rows_that_count
        assert empty.rows_that_count(problem) == diagnosed
        if record.name != "sincere":  # whose loss is 0 without negatives, too
            assert diagnosed == (expected != 0.0).sum()


@pytest.mark.parametrize("record", [ss.losses.decoupled(), ss.losses.supcon()], ids=lambda r: r.name)
@pytest.mark.parametrize("masked", [False, True])
def test_the_rows_that_count_by_pairs_are_those_with_a_loss(
    record: ss.PairLoss, masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of three rows, so that no matrix of all pairs is made."""
    monkeypatch.setattr(empty, "BLOCK", 3)
    random = np.random.default_rng(0)
    for _ in range(30):
        labels, where = ss.positives(random.random((8, 8)) < 0.15), random.random(8) < 0.7 if masked else None
        expected = ss.evaluate(record, ROWS[:8], labels, where=where, reduction="none", engine="dense")
        counted = empty.rows_that_count(check(Call(record, (ROWS[:8], labels), where=where)))
        assert counted == (expected != 0.0).sum()


# --- modules ---


@pytest.mark.framework("torch")
def test_the_repr_of_a_module_has_the_temperature_and_bias_that_it_has_learnt() -> None:
    import torch

    from sincere_spec.torch import SigLIPLoss

    module = SigLIPLoss(temperature=0.1, bias=-10.0, learnable_temperature=True, learnable_bias=True)
    assert repr(module).startswith("SigLIPLoss(temperature=0.1, bias=-10.0, ")
    with torch.no_grad():
        module.logit_scale.fill_(math.log(1 / 0.05))
        module.logit_bias.fill_(-9.5)
    assert repr(module).startswith("SigLIPLoss(temperature=0.05, bias=-9.5, ")
    assert "temperature=0.1, bias=-10.0" in repr(module.to("meta"))  # nothing can be read there
