"""How rows lie in tiles: every pair once, masks only where labels meet, rows that take no part last."""

from __future__ import annotations

import numpy as np
import pytest
from frameworks import load
from hypothesis import given
from hypothesis import strategies as st

import sincere_spec as ss
from sincere_spec.backends import by_root
from sincere_spec.backends.array_api import ArrayApiBackend
from sincere_spec.engines.layout import sort_rows, tiles_of
from sincere_spec.engines.padded import fitted, padded_rows, sort_and_pad
from sincere_spec.engines.parts import levels_of, parts_of
from sincere_spec.spec.words import Pairs

LABELS = st.lists(st.integers(0, 6), min_size=1, max_size=40)


@given(labels=LABELS, others=LABELS, tile=st.integers(1, 17), alone=st.booleans())
def test_tiles_have_every_pair_once_and_bands_every_pair_of_equal_labels(
    labels: list[int], others: list[int], tile: int, alone: bool
) -> None:
    backend = ArrayApiBackend()
    anchors = sort_rows(backend, {"label": np.asarray(labels)}, tile, None)
    columns = anchors if alone else sort_rows(backend, {"label": np.asarray(others)}, tile, None)
    seen = np.zeros((anchors.length, columns.length), int)
    banded = np.zeros_like(seen)
    for one in tiles_of(anchors, columns, anywhere=False):
        seen[one.rows, one.columns] += 1
        for piece in one.bands:
            banded[piece.rows, piece.columns] += 1
    if alone:  # one triangle of tiles: the other has the same pairs from their other end
        seen = np.where(seen == 0, seen.T, seen)
        banded = np.maximum(banded, banded.T)
    assert np.all(seen == 1)
    same = np.asarray(anchors.labels)[:, None] == np.asarray(columns.labels)[None, :]
    assert np.all(banded[same] == 1)


@given(labels=LABELS, tile=st.integers(1, 17))
def test_sorted_rows_come_back_in_their_order(labels: list[int], tile: int) -> None:
    order = sort_rows(ArrayApiBackend(), {"label": np.asarray(labels)}, tile, None)
    assert np.all(np.diff(order.labels) >= 0)
    rows = np.arange(len(labels))
    np.testing.assert_array_equal(order.restored(np, order.sorted(np, rows)), rows)


@given(length=st.integers(0, 5000), tile=st.sampled_from([32, 64, 528, 1024]))
def test_a_fitted_tile_is_near_what_was_asked_or_holds_all_rows(length: int, tile: int) -> None:
    size = fitted(tile, length)
    if length <= tile:
        assert length <= size <= max(length + 7, 8)
    else:
        assert tile // 2 < size <= tile
        assert tile < 512 or -(-length // size) * size <= 1.25 * length


@pytest.mark.parametrize("framework", ["jax", "tensorflow"], indirect=True)
def test_padding_and_rows_outside_are_last_and_the_rows_come_back(framework: str) -> None:
    here, backend = load(framework), by_root(framework)
    labels, inside = np.asarray([3, 1, 2, 1, 0, 3, 2]), np.asarray([True, True, False, True, True, False, True])
    z = np.arange(14.0).reshape(7, 2)
    xp = backend.namespace(here.array(z))
    attributes = {"label": here.array(labels), "sample": here.array(np.arange(7))}
    side = sort_and_pad(backend, here.array(z), attributes, here.array(inside), 4, ascending=False)
    real = np.asarray(here.numpy(side.real))
    assert real.tolist() == [True] * 5 + [False] * 3
    kept = np.asarray(here.numpy(side.labels))
    assert kept.tolist() == [0, 1, 1, 2, 3, 3, 3, 3]  # what takes no part has the highest label inside
    np.testing.assert_array_equal(here.numpy(side.restored(xp, side.embeddings)), z)
    again = padded_rows(xp, side.laid, 7, 4)
    np.testing.assert_array_equal(here.numpy(again.restored(xp, again.embeddings)), z)
    assert np.asarray(here.numpy(again.real)).tolist() == real.tolist()


def test_a_stage_over_others_shares_its_sums_with_those_over_either_half() -> None:
    loss = ss.losses.supcon(0.1, "in")
    halves = {part for stage in loss.stages for part in parts_of(stage)}
    assert {part.over for part in halves} == {Pairs.POSITIVE, Pairs.NEGATIVE}
    assert len(halves) < sum(len(parts_of(stage)) for stage in loss.stages)


def test_a_stage_is_swept_after_the_one_that_it_subtracts() -> None:
    first, second = levels_of(ss.losses.sincere(0.1))
    assert [part.minus for part in first] == [None]
    assert [part.minus for part in second] == ["noise"]


def test_the_backward_pass_reads_no_label_and_sorts_no_row(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    plain = ArrayApiBackend.to_host
    monkeypatch.setattr(ArrayApiBackend, "to_host", lambda self, x: read.append(len(x)) or plain(self, x))
    z, labels = np.random.default_rng(0).normal(size=(12, 4)), np.arange(12) % 3
    ss.value_and_gradient(ss.losses.sincere(), z, labels, engine="tiled", tile=4)
    forward = len(read)
    read.clear()
    ss.sincere_loss(z, labels, engine="tiled", tile=4)
    assert forward == len(read) >= 1
