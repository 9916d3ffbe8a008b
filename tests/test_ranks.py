"""Losses over the ranks of a process group: value and gradient of the whole batch, whatever each rank owns of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ranks

import sincere_spec as ss
from sincere_spec.bench import ranks as bench
from sincere_spec.engines import ranks as engine
from sincere_spec.engines import tiled
from sincere_spec.engines.comparison import Samples

pytestmark = pytest.mark.framework("torch")
LIMIT = 1e-12


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each rank found, by check."""
    return ranks.start(Path(tmp_path_factory.mktemp("ranks")))


def of(found: list[dict[str, Any]], name: str) -> list[Any]:
    """What the ranks found in a check, none of which failed."""
    by_rank = [rank[name] for rank in found]
    failed = [x["failed"] for x in by_rank if isinstance(x, dict) and "failed" in x]
    assert not failed, failed[0]
    return by_rank


@pytest.mark.parametrize("name", ["uneven", "uneven_dense", "even", "one_rank_has_all", "one_row", "no_row"])
def test_every_loss_is_that_of_one_process(found: list[dict[str, Any]], name: str) -> None:
    for by_case in of(found, name):
        assert len(by_case) >= (30 if name == "uneven" else 10)
        assert {case: far for case, far in by_case.items() if far > LIMIT} == {}


def test_kernels_take_the_rows_inside_of_masks(found: list[dict[str, Any]], need: Any) -> None:
    need("triton")
    assert max(of(found, "kernels_under_masks")) < 1e-2


MUTANTS = {"keys detached": 0.1, "no factor": 0.7, "local mean": 0.05, "samples not told apart": 0.05}
MUTANTS |= {"words numbered by each rank": 0.05, "gradients of keys not added up": 0.05}


@pytest.mark.parametrize("name", MUTANTS)
def test_what_people_do_wrong_fails(found: list[dict[str, Any]], name: str) -> None:
    assert max(by_mutant[name] for by_mutant in of(found, "mutants")) > MUTANTS[name]


def test_the_page_has_what_the_settings_of_other_packages_give(found: list[dict[str, Any]], need: Any) -> None:
    need("pytorch_metric_learning")
    page = (Path(__file__).parents[1] / "docs" / "distributed.md").read_text(encoding="utf-8")
    (table, *others) = of(found, "peers")
    assert others == [table] * 3
    rows = table.splitlines()
    assert len(rows) == 2 + 2 + 4
    assert [row for row in rows if row not in page.splitlines()] == []
    assert all(row.endswith("| 1 | 1 | 1 | exact | 1 |") for row in rows if "sincere-spec" in row)


TRAINERS = ["ddp", "summed_by_hand", "checkpointing", "accumulation", "grad_scaler", "fsdp", "groups_of_two"]


@pytest.mark.parametrize("name", TRAINERS)
def test_parameters_have_the_gradient_of_one_process(found: list[dict[str, Any]], name: str) -> None:
    assert max(of(found, name)) <= LIMIT


@pytest.mark.parametrize("name", ["value_and_gradient", "one_rank_wants_no_gradient", "the_losses_of_rows", "autocast"])
def test_other_calls(found: list[dict[str, Any]], name: str) -> None:
    assert max(map(abs, of(found, name))) <= LIMIT


def test_a_learnt_temperature_has_the_same_gradient_on_every_rank_in_and_out_of_ddp(
    found: list[dict[str, Any]],
) -> None:
    by_rank = of(found, "temperature")
    for outside, inside, want in by_rank:
        assert outside == inside == by_rank[0][0]
        assert outside == pytest.approx(want, rel=LIMIT)


def test_a_nan_of_one_rank_reaches_all(found: list[dict[str, Any]]) -> None:
    assert of(found, "not_finite") == ["nan"] * 4


def test_one_rank_warns_if_no_row_of_the_batch_counts_and_none_because_one_rank_has_none(
    found: list[dict[str, Any]],
) -> None:
    (first, (warning,)), *others = of(found, "nothing_to_learn")
    assert first == []
    assert warning.startswith("EmptyBatchWarning: sincere: none of the 15 rows of this batch counts")
    assert others == [[[], []]] * 3


def test_a_group_of_one_is_the_plain_call(found: list[dict[str, Any]]) -> None:
    assert of(found, "a_group_of_one") == [True] * 4


def test_the_forward_leaves_the_gradient_of_the_ranks_own_rows_and_two_vectors(found: list[dict[str, Any]]) -> None:
    for rows, numbers in zip(ranks.MANY, of(found, "kept"), strict=True):
        assert numbers.pop("logits") >= rows * sum(ranks.MANY)
        for name, kept in numbers.items():
            gradient = (1 if name == "sincere" else 2) * rows * ranks.WIDTH
            assert gradient <= kept <= gradient + 2 * rows + 8, name


def test_explain_says_over_which_ranks_and_with_which_engine(found: list[dict[str, Any]]) -> None:
    for rank, text in enumerate(of(found, "explained")):
        assert text.startswith(f"torch, dense engine on rank {rank} of 4, which have 5, 3, 0, 7 rows:")


DISAGREEMENTS = {
    "temperature kind": ("OptionError", "temperature"),
    "temperature": ("OptionError", "0.3"),
    "record": ("OptionError", "the loss"),
    "reduction": ("OptionError", "'sum'"),
    "width": ("ShapeError", "ranks 0, 1, 3: 4; rank 2: 3"),
    "dtype": ("DtypeError", "rank 2: float32"),
    "ids": ("OptionError", "ids"),
    "keys": ("OptionError", "keys"),
    "own check fails": ("ShapeError", "rank 2: embeddings"),
    "record cannot be made": ("OptionError", "temperature must be positive"),
    "normalize is no flag": ("OptionError", "rank 2: normalize"),
    "label of no class": ("LabelError", "rank 3: labels"),
    "shared queue": ("OptionError", "shared arrays"),
    "order of a shared queue": ("OptionError", "shared arrays"),
    "words": ("LabelError", "strings on rank 3 and integers on rank 0, 1"),
    "dtype of labels": ("OptionError", "rank 2: label of int32"),
    "gradients": ("OptionError", "gradients"),
    "keyword of no function": ("SignatureError", "rank 2: evaluate"),
    "no scalar": ("OptionError", "rank 2: value_and_gradient needs a scalar"),
}


@pytest.mark.parametrize("name", DISAGREEMENTS)
def test_ranks_that_disagree_raise_the_same_error_everywhere(found: list[dict[str, Any]], name: str) -> None:
    kind, words = DISAGREEMENTS[name]
    errors = [by_call[name] for by_call in of(found, "disagreements")]
    assert {(error[0], error[1]) for error in errors} == {(kind, errors[0][1])}
    assert words in errors[0][1]
    assert max(error[2] for error in errors) < 10.0


NOT_YET = {
    "rows with a gradient": "OptionError",
    "second order": "EngineUnavailable",
    "forward mode": "EngineUnavailable",
    "torch.func": "EngineUnavailable",
    "axis name": "OptionError",
    "no such array": "OptionError",
    "matrix of pairs": "OptionError",
    "guide": "OptionError",
    "several labels a row": "OptionError",
    "value": "none",
}


@pytest.mark.parametrize("name", NOT_YET)
def test_what_is_not_served_is_refused_by_name(found: list[dict[str, Any]], name: str) -> None:
    errors = [by_call[name] for by_call in of(found, "not_yet")]
    assert {error[0] for error in errors} == {NOT_YET[name]}
    assert len({error[1] for error in errors}) == 1
    assert "across: " in errors[0][1] or NOT_YET[name] == "none" or name == "no such array"


def test_a_group_that_does_not_divide_the_ranks_is_refused(found: list[dict[str, Any]]) -> None:
    kinds = [error[0] for error in of(found, "a_group_that_does_not_divide")]
    assert kinds == ["EngineUnavailable"] * 3 + ["OptionError"]


def test_a_row_among_its_gathered_keys_needs_no_mask_beyond_its_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many pairs are looked at as where no row is among its keys; a mask on every tile would look at all."""
    seen, blocks, against_all = [], tiled.TiledSweep.blocks, engine.against_all

    def counted(sweep: Any, tile: Any, piece: Any, logits: Any) -> Any:
        seen[-1] += (piece.rows.stop - piece.rows.start) * (piece.columns.stop - piece.columns.start)
        return blocks(sweep, tile, piece, logits)

    monkeypatch.setattr(tiled.TiledSweep, "blocks", counted)
    for samples in (None, Samples.DISTINCT, Samples.ANYWHERE):

        def chosen(shard: Any, samples: Samples | None = samples) -> Any:
            (one,) = against_all(shard)
            return [one if samples is None else replace(one, samples=samples)]

        monkeypatch.setattr(engine, "against_all", chosen)
        seen.append(0)
        bench.measure("sincere", 2048, 8, 4, 528, 1)
    own, without, masked = seen
    assert own == without
    assert 4 * own < masked


def test_what_can_be_shared() -> None:
    for shared in ("keys", ("embeddings",)):
        with pytest.raises(ss.OptionError, match="shared must be a tuple of 'keys' and 'negatives'"):
            ss.across("group", shared=shared)  # type: ignore[arg-type]
    with pytest.raises(ss.OptionError, match='did you mean "mean"'):
        ss.across("group", gradients="men")  # type: ignore[arg-type]


def test_arrays_without_collectives() -> None:
    with pytest.raises(ss.OptionError, match="no collectives"):
        ss.sincere_loss(np.eye(4), [0, 0, 1, 1], across="batch")
