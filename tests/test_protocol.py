"""Records: losses as values, the users' own among them."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import FrozenInstanceError, dataclass, replace
from typing import Any

import numpy as np
import pytest
from catalogue import CALLS, distance, rule
from differences import central_differences
from frameworks import load

import sincere_spec as ss
from sincere_spec import losses
from sincere_spec.spec.arrangements import Labelled, PairedViews, Queries, Towers, Views
from sincere_spec.spec.words import Combine, Fold, Logit, PairLoss, Pairs, Rows, Similarity, Stage, Term

RECORDS: dict[str, tuple[PairLoss, PairLoss]] = {
    "sincere": (losses.sincere(0.3, epsilon=0.25), losses.sincere(0.3, epsilon=0.5)),
    "supcon": (losses.supcon(0.3, summation="in"), losses.supcon(0.3)),
    "decoupled": (losses.decoupled(0.3), losses.decoupled(0.2)),
    "info_nce": (losses.info_nce(0.3), losses.clip(0.3)),
    "nt_xent": (losses.nt_xent(0.3), losses.supcon(0.3)),
    "dystress": (losses.dystress(0.05, 0.2, detach=False), losses.dystress(0.05, 0.2)),
    "dystress shifted": (
        losses.dystress(0.05, 0.2, schedule="shifted", offset=0.4, scale=0.8),
        losses.dystress(0.05, 0.2, schedule="shifted", offset=0.4),
    ),
    "clip": (losses.clip(0.3), losses.clip()),
    "siglip": (losses.siglip(0.3, bias=-5.0), losses.siglip(0.3)),
    "f_micl": (losses.f_micl("js", alpha=3.0), losses.f_micl("js", alpha=3.5)),
    **{
        name: (call.loss, replace(call.loss, temperature=0.3))
        for name, call in CALLS.items()
        if call.name not in ("sincere", "supcon", "decoupled", "info_nce", "nt_xent", "dystress", "clip", "siglip")
    },
}


def test_every_loss_has_its_record_here() -> None:
    assert {loss.name for loss in losses.table.TABLE} <= RECORDS.keys()


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_is_a_value(name: str) -> None:
    record, other = RECORDS[name]
    twin = replace(record)
    assert record == twin
    assert twin is not record
    assert hash(record) == hash(twin)
    assert record != other
    assert len({record, twin, other}) == 2
    assert copy.deepcopy(record) == record
    with pytest.raises(FrozenInstanceError):
        record.temperature = 1.0  # type: ignore[misc]


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", RECORDS)
def test_a_record_pickles(name: str, protocol: int) -> None:
    record, _ = RECORDS[name]
    assert pickle.loads(pickle.dumps(record, protocol)) == record


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_goes_through_json(name: str) -> None:
    record, other = RECORDS[name]
    text = json.dumps(record.to_dict(), allow_nan=False)
    assert PairLoss.from_dict(json.loads(text)) == record
    assert text != json.dumps(other.to_dict())
    again = PairLoss.from_dict(json.loads(text))
    assert hash(again) == hash(record)
    assert repr(again) == repr(record)


def test_two_records_of_one_loss_do_not_compare_equal_by_accident() -> None:
    every = {repr(record): record for pair in RECORDS.values() for record in pair}
    assert len(set(every.values())) == len(every)


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_prints_its_name_its_numbers_and_its_stages(name: str) -> None:
    record, other = RECORDS[name]
    text = repr(record)
    assert text.startswith(f"<{record.name}: temperature={record.temperature!r}")
    for stage in record.stages:
        assert f"{stage.name} = " in text
        assert f"over {stage.over.value}" in text
    assert "\n" not in text
    assert text != repr(other)


def test_how_records_read() -> None:
    assert repr(losses.sincere(0.1, epsilon=0.5)) == (
        "<sincere: temperature=0.1, logit=Similarity(); noise = logsumexp(a) over negative; "
        "margin = mean softplus(-(a - noise) + 0.5) over positive; loss = margin - 0.5>"
    )
    assert repr(losses.decoupled(0.2)) == (
        "<decoupled: temperature=0.2, logit=Similarity(); noise = logsumexp(a) over negative; "
        "attract = mean a over positive; loss = noise - attract>"
    )
    assert "bias=-10.0" in repr(losses.siglip())
    assert "[one positive]" in repr(losses.supcon())


def test_words_compare_and_print() -> None:
    stage = Stage("n", Fold.LOGSUMEXP, over=Pairs.NEGATIVE)
    assert stage == Stage("n", Fold.LOGSUMEXP, Pairs.NEGATIVE)
    assert stage != replace(stage, mean=True)
    assert str(replace(stage, mean=True)) == "n = logmeanexp(a) over negative"
    assert str(Stage("r", Fold.EXP, Pairs.OTHERS, scale=-2.0, offset=-1.0)) == "r = sum exp(-2 a - 1) over others"
    assert str(Stage("r", Fold.SIGMOID_SQUARED, Pairs.OTHERS, minus="n")) == "r = sum sigmoid(a - n)^2 over others"
    assert str(Term("n", -2.0, 1.0, Rows.SEVERAL_POSITIVES)) == "- 2 n + 1 [several positives]"
    of = (Term("up"), Term("down", -2.0, 1.0))
    assert str(Combine("r", Fold.SOFTPLUS, of)) == "r = softplus(up - 2 down + 1)"
    assert str(Combine("r", Fold.LOGSUMEXP, of)) == "r = logsumexp(up, - 2 down + 1)"


# --- what is no record ----------------------------------------------------------------------------------------------------------

LSE = Stage("noise", Fold.LOGSUMEXP, Pairs.NEGATIVE)
SUM = Stage("attract", Fold.LINEAR, Pairs.POSITIVE)

BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "two stages of one name": ({"stages": (LSE, LSE)}, "two stages.*'noise'"),
    "a combination with a stage's name": (
        {"combined": (Combine("noise", Fold.EXP, (Term("attract"),)),)},
        "two stages.*'noise'",
    ),
    "a combination of a later one": (
        {"combined": (Combine("a", Fold.EXP, (Term("b"),)), Combine("b", Fold.EXP, (Term("noise"),)))},
        "names 'b', but the stages are noise, attract",
    ),
    "a stage that subtracts a combination": (
        {
            "stages": (LSE, replace(SUM, minus="level")),
            "combined": (Combine("level", Fold.LOGSUMEXP, (Term("noise"),)),),
        },
        "'attract' subtracts 'level'.*what is combined is of whole rows, and after all stages",
    ),
    "a stage that subtracts a later one": (
        {"stages": (replace(SUM, minus="noise"), LSE)},
        "'attract' subtracts 'noise'",
    ),
    "a stage that subtracts itself": ({"stages": (replace(LSE, minus="noise"),)}, "subtracts 'noise'"),
    "a stage that subtracts a sum": ({"stages": (SUM, replace(LSE, minus="attract"))}, "subtracts 'attract'"),
    "a term of no stage": ({"terms": (Term("margin"),)}, "'margin'.*noise, attract"),
    "no terms": ({"terms": ()}, "at least one term"),
    "no stages": ({"stages": (), "terms": (Term("noise"),)}, "'noise'.*none"),
    "temperature 0": ({"temperature": 0.0}, "temperature.*positive.*0.0"),
    "temperature True": ({"temperature": True}, "temperature.*True"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_record_that_makes_no_sense_is_refused(case: str) -> None:
    changes, words = BROKEN[case]
    whole = {
        "name": "mine",
        "arrangement": Labelled(),
        "stages": (LSE, SUM),
        "terms": (Term("noise"), Term("attract", -1.0)),
        "logit": Similarity(),
    }
    PairLoss(**whole)  # type: ignore[arg-type]
    with pytest.raises(ss.OptionError, match=words):
        PairLoss(**(whole | changes))


WHOLE = losses.sincere().to_dict()
UNREADABLE: dict[str, Any] = {
    "a string": "sincere",
    "nothing": None,
    "an empty dictionary": {},
    "a word that is not known": WHOLE | {"type": "NoSuchWord"},
    "a stage": WHOLE["stages"][0],
    "a field too many": WHOLE | {"temprature": 0.1},
    "a field too few": {key: value for key, value in WHOLE.items() if key != "stages"},
    "a fold that is not known": WHOLE | {"stages": [WHOLE["stages"][0] | {"fold": {"type": "Fold", "value": "cubic"}}]},
    "a fold without a value": WHOLE | {"stages": [WHOLE["stages"][0] | {"fold": {"type": "Fold"}}]},
    "a temperature below 0": WHOLE | {"temperature": -0.1},
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_a_dictionary_that_no_record_wrote_is_refused(case: str) -> None:
    with pytest.raises(ss.OptionError):
        PairLoss.from_dict(UNREADABLE[case])


def test_a_record_with_an_array_in_it_cannot_be_written() -> None:
    with pytest.raises(ss.OptionError, match=r"number"):
        losses.sincere(np.asarray(0.1)).to_dict()
    # A NumPy number is a number.
    assert PairLoss.from_dict(json.loads(json.dumps(losses.sincere(np.float64(0.1)).to_dict()))) == losses.sincere(0.1)


def test_two_words_cannot_have_one_name() -> None:
    with pytest.raises(TypeError, match=r"Similarity.*already"):
        type("Similarity", (Logit,), {"__module__": "elsewhere"})


# --- records of one's own ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ArcLength(Logit):
    """A logit of a user's own: `s + s³ / 6`, the beginning of the arc sine."""

    weight: float = 1.0

    def value(self, xp: Any, s: Any) -> Any:
        return s + self.weight * s * s * s / 6.0

    def slope(self, xp: Any, s: Any) -> Any:
        return xp.ones_like(s) + 0.5 * self.weight * s * s


def alignment_and_uniformity(weight: float = 0.5) -> PairLoss:
    """Mean of -s over positives, and log mean exp(a) over all others: made of words, with no formula for a gradient."""
    return PairLoss(
        name="alignment_and_uniformity",
        arrangement=Labelled(),
        stages=(
            Stage("align", Fold.LINEAR, Pairs.POSITIVE, scale=-1.0, mean=True),
            Stage("uniform", Fold.LOGSUMEXP, Pairs.OTHERS, mean=True),
        ),
        terms=(Term("align"), Term("uniform", weight)),
        logit=Similarity(),
        temperature=0.5,
    )


# Each fold over each set, with scales, offsets, means and subtractions: what no loss of the package has together.
OWN: dict[str, PairLoss] = {
    "alignment and uniformity": alignment_and_uniformity(),
    "hard negatives": PairLoss(
        "hard_negatives",
        Labelled(),
        (
            Stage("others", Fold.LOGSUMEXP, Pairs.OTHERS, scale=2.0, offset=0.3, mean=True),
            Stage("noise", Fold.LOGSUMEXP, Pairs.NEGATIVE, scale=-0.5, minus="others"),
            Stage("hard", Fold.EXP, Pairs.NEGATIVE, scale=0.7, minus="others", mean=True),
            Stage("soft", Fold.SIGMOID_SQUARED, Pairs.POSITIVE, scale=-1.5, offset=-0.2, minus="noise"),
        ),
        (
            Term("hard", 2.0, 0.5),
            Term("soft", 0.3),
            Term("others", -0.1, rows=Rows.SEVERAL_POSITIVES),
            Term("noise", 0.2),
        ),
        Similarity(),
        temperature=0.8,
        bias=0.1,
    ),
    "towers with an own logit": PairLoss(
        "own_logit",
        Towers(both_ways=True),
        (
            Stage("noise", Fold.LOGSUMEXP, Pairs.NEGATIVE),
            Stage("margin", Fold.SOFTPLUS, Pairs.POSITIVE, scale=-2.0, minus="noise", mean=True),
        ),
        (Term("margin", 0.5),),
        ArcLength(0.9),
        temperature=0.4,
    ),
    "views without partners in the noise": PairLoss(
        "own_views",
        Views(),
        (
            Stage("noise", Fold.SOFTPLUS, Pairs.OTHERS, scale=3.0, offset=-1.0),
            Stage("pull", Fold.EXP, Pairs.POSITIVE, scale=-1.0, mean=True),
        ),
        (Term("noise"), Term("pull")),
        ArcLength(),
        temperature=0.7,
    ),
    "a queue": PairLoss(
        "own_queue",
        Queries(),
        (
            Stage("noise", Fold.SIGMOID_SQUARED, Pairs.NEGATIVE, scale=1.5, mean=True),
            Stage("pull", Fold.LINEAR, Pairs.POSITIVE),
        ),
        (Term("noise", 2.0), Term("pull", -1.0)),
        Similarity(),
        temperature=0.6,
    ),
    "combinations of stages": PairLoss(
        "own_combinations",
        Labelled(),
        (
            Stage("near", Fold.LOGSUMEXP, Pairs.POSITIVE, scale=-0.5),
            Stage("noise", Fold.LOGSUMEXP, Pairs.NEGATIVE, mean=True),
            Stage("margin", Fold.SOFTPLUS, Pairs.POSITIVE, scale=-1.0, minus="noise", mean=True),
        ),
        (Term("bell", 0.5), Term("power", rows=Rows.SEVERAL_POSITIVES), Term("margin", 0.25), Term("noise", 0.125)),
        Similarity(),
        temperature=0.6,
        combined=(
            Combine("level", Fold.LOGSUMEXP, (Term("near"), Term("noise", 0.5, 0.25), Term("margin", -1.0))),
            Combine("power", Fold.EXP, (Term("level", -0.5), Term("noise", 0.25))),
            Combine("bell", Fold.SIGMOID_SQUARED, (Term("power"), Term("near", -0.5, 0.1))),
        ),
    ),
    "combinations of towers": PairLoss(
        "own_towers",
        Towers(both_ways=True),
        (Stage("noise", Fold.LOGSUMEXP, Pairs.NEGATIVE, scale=1.5), Stage("own", Fold.LINEAR, Pairs.POSITIVE)),
        (Term("robust", 2.0), Term("square", 0.25, 0.5)),
        ArcLength(0.9),
        temperature=0.5,
        combined=(
            Combine("robust", Fold.SOFTPLUS, (Term("noise", 0.5), Term("own", -1.0))),
            Combine("square", Fold.SQUARE, (Term("robust"), Term("own", 0.5))),
        ),
    ),
    "paired views": PairLoss(
        "own_pairs",
        PairedViews(),
        (Stage("spread", Fold.LOGSUMEXP, Pairs.NEGATIVE, mean=True), Stage("pull", Fold.LINEAR, Pairs.POSITIVE)),
        (Term("spread"), Term("pull", -1.0, 0.25)),
        Similarity(),
        temperature=0.6,
    ),
}
ARRAYS = {
    Labelled: "sincere_keys",
    Towers: "clip",
    Views: "nt_xent",
    Queries: "info_nce_queue",
    PairedViews: "f_micl_kl",
}


def test_a_record_of_one_s_own_has_the_value_that_its_words_say() -> None:
    call = CALLS["sincere"]
    z = call.arrays["embeddings"] / np.linalg.norm(call.arrays["embeddings"], axis=1, keepdims=True)
    s = z @ z.T
    same = np.asarray(call.labels)[:, None] == np.asarray(call.labels)
    others = ~np.eye(6, dtype=bool)
    rows = [
        np.mean(-s[i][same[i] & others[i]]) / 0.5 + 0.5 * np.log(np.mean(np.exp(s[i][others[i]] / 0.5)))
        for i in range(5)
    ]
    got = ss.evaluate(alignment_and_uniformity(), call.arrays["embeddings"], call.labels)
    assert distance(got, np.mean(rows)) <= rule("float64", 0.5)


@pytest.mark.parametrize("reduction", ["mean", "pairs"])
@pytest.mark.parametrize("name", OWN)
def test_a_record_of_one_s_own_has_its_gradient(framework: str, name: str, reduction: str) -> None:
    """Against differences of its values in NumPy; the frameworks' own gradients of it must be the same."""
    here, record = load(framework), OWN[name]
    call = replace(CALLS[ARRAYS[type(record.arrangement)]], loss=record).with_parameters()
    exact = {argument: np.asarray(x, dtype=np.float64) for argument, x in call.arrays.items()}
    want = central_differences(lambda moved: call.value(moved, reduction=reduction), exact)
    arrays = here.arrays(call.arrays)
    _, gradient = call.value_and_gradient(arrays, reduction=reduction)
    own = {} if here.gradient is None else here.gradient(lambda x: call.value(x, reduction=reduction), arrays)
    for argument, expected in want.items():
        for found in (gradient, own) if own else (gradient,):
            # As in test_gradients: a factor of up to 10 a derivative, here.
            assert distance(here.numbers(found[argument]), expected) <= 1e-10, argument


@pytest.mark.parametrize("name", OWN)
def test_a_record_of_one_s_own_is_a_value_too(name: str) -> None:
    record = OWN[name]
    assert PairLoss.from_dict(json.loads(json.dumps(record.to_dict()))) == record
    assert pickle.loads(pickle.dumps(record)) == record
    assert hash(record) == hash(replace(record))


def test_the_numbers_of_a_record_can_be_given_anew() -> None:
    """A record's temperature and bias are defaults: a call's own stand in for them, and leave the record alone."""
    a, b = CALLS["siglip"].arrays.values()
    record = losses.siglip(0.3, -4.0)
    assert ss.evaluate(record, a, b, temperature=0.5, bias=-1.0) == ss.siglip_loss(a, b, temperature=0.5, bias=-1.0)
    assert record == losses.siglip(0.3, -4.0)
    assert ss.evaluate(record, a, b, bias=-1.0) == ss.siglip_loss(a, b, temperature=0.3, bias=-1.0)
