"""Words that check themselves: what their constructors refuse, what `from_dict` refuses, and what version 0.1.0 wrote."""

from __future__ import annotations

import importlib
import json
import math
import pickle
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from frameworks import load
from hypothesis import given, settings
from hypothesis import strategies as st

import sincere_spec as ss
from sincere_spec import losses, spec
from sincere_spec.spec import (
    Combine,
    CosineSchedule,
    Fold,
    Labelled,
    Logit,
    PairLoss,
    Pairs,
    Roles,
    Rows,
    ShiftedSchedule,
    Similarity,
    Stage,
    Term,
    Towers,
    elementwise,
    relations,
)
from sincere_spec.spec.words import Word

STAGE = Stage("noise", Fold.LOGSUMEXP, Pairs.NEGATIVE)
TERM = Term("noise")
COMBINE = Combine("sum", Fold.EXP, (TERM,))
RECORD = PairLoss("mine", Labelled(), (STAGE,), (TERM,), Similarity())
COSINE, SHIFTED = CosineSchedule(0.1, 0.2), ShiftedSchedule(0.1, 0.2)
GROUPED = relations.EqualGroup("group")
RELATIONS = (
    GROUPED,
    relations.Marked("matrix"),
    relations.NearGuide("guide"),
    relations.Without(relations.OtherLabel(), (GROUPED,)),
    relations.GivenPositives(),
    relations.OverlappingSets(jaccard=True),
)
WORDS = (STAGE, TERM, COMBINE, RECORD, COSINE, SHIFTED, Towers(both_ways=True), Roles(("a",)), *RELATIONS)

NO_NUMBERS = (None, True, "0.1", math.nan, math.inf, -math.inf, 10**400, 1j, Decimal("0.1"), [0.1], np.asarray(0.1), {})
NO_TEXTS = (None, 1, b"noise", ["noise"], Fold.EXP)
WRONG: dict[str, tuple[Any, ...]] = {
    "name": NO_TEXTS,
    "stage": NO_TEXTS,
    "minus": NO_TEXTS[1:],
    "fold": ("logsumexp", "LOGSUMEXP", "nonsense", None, Pairs.NEGATIVE, []),
    "over": ("negative", None, Fold.EXP, 0),
    "rows": ("one_positive", "all", None, Fold.EXP, 1),
    "mean": (1, 0.0, None, "yes", np.True_),
    "held": (1, None, "yes"),
    "both_ways": (1, None, "yes"),
    "queue": (1, None, "yes"),
    "group": NO_TEXTS,
    "own": NO_TEXTS[1:],
    "matrix": NO_TEXTS,
    "guide": NO_TEXTS,
    "symmetric": (1, None, "yes"),
    "weighted": (1, None, "yes"),
    "jaccard": (1, None, "yes"),
    "relation": (None, "SameLabel", relations.SameLabel, GROUPED),
    "ignored": (None, GROUPED, "abc", (None,)),
    "anchors": ("a", None, (1,), {"a"}),
    "keys": ("a", None, (1,)),
    "partners": ("a", None, (None,)),
    "arrangement": (None, "Labelled", Labelled, Similarity()),
    "logit": (None, "Similarity", Similarity, Labelled()),
    "positive_logit": ("Similarity", Similarity, Labelled(), 0.5),
    "stages": (None, STAGE, "abc", (None,), (TERM,), {STAGE}),
    "terms": (None, TERM, "abc", (1,), (STAGE,)),
    "of": (None, TERM, "noise", ("noise",), (STAGE,)),
    "combined": (None, COMBINE, "abc", (STAGE,), (TERM,)),
    "temperature": (*(x for x in NO_NUMBERS if not isinstance(x, np.ndarray)), 0, 0.0, -0.1),
    "bias": tuple(x for x in NO_NUMBERS if not isinstance(x, np.ndarray)),
    "minimum": (*NO_NUMBERS, 0, -0.1),
    "maximum": (*NO_NUMBERS, 0.0),
    "width": (*NO_NUMBERS, 0.0, -1),
} | dict.fromkeys(("scale", "offset", "coefficient", "constant"), NO_NUMBERS)
CASES = [(word, field.name, value) for word in WORDS for field in fields(word) for value in WRONG[field.name]]


@pytest.mark.parametrize(("word", "field", "value"), CASES, ids=lambda x: x if isinstance(x, str) else type(x).__name__)
def test_a_word_refuses_a_field_of_another_kind(word: Any, field: str, value: Any) -> None:
    with pytest.raises(ss.OptionError, match=rf"{type(word).__name__}.*{field} must be .*; got ") as caught:
        replace(word, **{field: value})
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_every_word_of_the_vocabulary_is_checked_here() -> None:
    exported = [getattr(spec, name) for name in spec.__all__]
    with_fields = {
        one for one in exported if is_dataclass(one) and fields(one) and not getattr(one, "__abstractmethods__", ())
    }
    assert with_fields == {type(word) for word in WORDS}


@pytest.mark.parametrize(
    "make", [np.float32, np.float64, np.float16, np.int64, int, Fraction], ids=lambda x: x.__name__
)
def test_numbers_of_every_make_are_kept_as_floats(make: Any) -> None:
    two = make(2)
    stage = Stage("noise", Fold.LOGSUMEXP, Pairs.NEGATIVE, scale=two, offset=two)
    record = PairLoss("mine", Labelled(), [stage], [Term("noise", two, two)], Similarity(), two, two)  # type: ignore[arg-type]
    schedule = ShiftedSchedule(two, two, True, two, two)
    assert record == replace(
        RECORD,
        stages=(replace(STAGE, scale=2.0, offset=2.0),),
        terms=(Term("noise", 2.0, 2.0),),
        temperature=2.0,
        bias=2.0,
    )
    kept = [
        stage.scale,
        stage.offset,
        record.terms[0].coefficient,
        record.terms[0].constant,
        record.temperature,
        record.bias,
    ]
    kept += [schedule.minimum, schedule.maximum, schedule.offset, schedule.width]
    assert [type(number) for number in kept] == [float] * len(kept)
    assert hash(record) == hash(PairLoss.from_dict(json.loads(json.dumps(record.to_dict()))))


def test_an_array_where_no_gradient_would_flow_is_refused(framework: str) -> None:
    here = load(framework)
    x = here.array(0.5)
    calls = {
        "epsilon": lambda: losses.sincere(epsilon=x),
        "alpha": lambda: losses.f_micl(alpha=x),
        "inverse_bandwidth": lambda: losses.f_micl(inverse_bandwidth=x),
        "order": lambda: losses.f_micl(order=x),
        "temperature_min": lambda: losses.dystress(temperature_min=x),
        "temperature_max": lambda: losses.dystress(temperature_max=x),
        "offset": lambda: losses.dystress(schedule="shifted", offset=x),
        "scale": lambda: losses.dystress(schedule="shifted", scale=x),
        "detach": lambda: losses.dystress(detach=x),
        "Stage.*scale": lambda: replace(STAGE, scale=x),
        "Stage.*offset": lambda: replace(STAGE, offset=x),
        "Term.*coefficient": lambda: replace(TERM, coefficient=x),
        "Term.*constant": lambda: replace(TERM, constant=x),
        "CosineSchedule.*minimum": lambda: replace(COSINE, minimum=x),
        "Steeper: power": lambda: replace(RECORD, logit=Steeper(x)),
        "Steeper.*power": lambda: replace(RECORD, positive_logit=Steeper(x)),
    }
    for field, call in calls.items():
        with pytest.raises(ss.OptionError, match=rf"{field} must be .*array.*gradient; give a Python number"):
            call()
    replace(RECORD, temperature=x, bias=x)


@dataclass(frozen=True)
class Steeper(Logit):
    """A user's logit with a number in it."""

    power: Any = 3.0

    def value(self, xp: Any, s: Any) -> Any:
        return s**self.power

    def slope(self, xp: Any, s: Any) -> Any:
        return self.power * s ** (self.power - 1.0)


def test_a_user_s_word_may_hold_a_number_of_numpy_s() -> None:
    record = replace(RECORD, logit=Steeper(np.float32(0.5)))
    assert PairLoss.from_dict(json.loads(json.dumps(record.to_dict()))) == record


def test_a_logit_of_positives_is_printed_and_enters_equality() -> None:
    record = replace(RECORD, positive_logit=Steeper(2.0))
    assert "logit=Similarity(), positive_logit=Steeper(power=2.0); noise = " in repr(record)
    assert len({record, RECORD, replace(RECORD, positive_logit=Steeper(3.0))}) == 3
    assert PairLoss.from_dict(json.loads(json.dumps(record.to_dict()))) == record


def test_abstract_words_cannot_be_made() -> None:
    for word in (spec.Logit, spec.Arrangement, spec.Schedule, spec.Relation):
        with pytest.raises(TypeError, match="abstract"):
            word()  # type: ignore[abstract, call-arg]


def test_schedules_are_refused_the_wrong_way_round() -> None:
    with pytest.raises(ss.OptionError, match=r"minimum must not exceed maximum; got 0.3 and 0.2"):
        CosineSchedule(0.3, 0.2)


@pytest.mark.parametrize("function", [elementwise.value, elementwise.slope])
@pytest.mark.parametrize("fold", [Fold.LOGSUMEXP, "exp", "sigmoid_squared", None])
def test_an_elementwise_function_that_there_is_not_is_refused(function: Any, fold: Any) -> None:
    with pytest.raises(ss.OptionError, match="fold"):
        function(np, fold, np.zeros(2))


@pytest.mark.parametrize("options", [{"schedule": []}, {"schedule": None}, {"schedule": np.asarray(["cosine", "x"])}])
def test_a_choice_that_is_no_string_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ss.OptionError, match="schedule must be one of"):
        losses.dystress(**options)
    with pytest.raises(ss.OptionError, match="divergence must be one of"):
        losses.f_micl(divergence=options["schedule"])
    with pytest.raises(ss.OptionError, match="summation must be one of"):
        losses.supcon(summation=options["schedule"])


# --- dictionaries ---------------------------------------------------------------------------------------------------------------

EVERY = [
    losses.sincere(0.25, epsilon=0.5),
    losses.supcon(0.25),
    losses.dystress(schedule="shifted"),
    losses.siglip(),
    losses.clip(),
    losses.f_micl("tsallis", order=1.5),
    replace(RECORD, logit=Steeper()),
    replace(RECORD, positive_logit=Steeper(2.0)),
    replace(RECORD, terms=(Term("sum"),), combined=(COMBINE,)),
]
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.just(10**400)
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from([*Word.known, "logsumexp", "negative", "noise", "all", "type"])
    | st.sampled_from([{"type": "Fold", "value": "exp"}, {"type": "Pairs", "value": "others"}, {"type": "Similarity"}])
    | st.sampled_from(
        [{"type": "Logit"}, {"type": "Arrangement"}, {"type": "Labelled"}, {"type": "Steeper", "power": []}]
    )
    | st.sampled_from([record.to_dict() for record in EVERY] + [STAGE, object(), Fold, 1j, b"", {1: 2}, {None: None}])
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)


def places(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def changed(data: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    copy: Any = dict(data) if isinstance(data, dict) else list(data)
    copy[path[0]] = changed(copy[path[0]], path[1:], value)
    return copy


def typed(value: Any) -> bool:
    """Whether every field of a word has the type that it declares."""
    if isinstance(value, tuple):
        return all(typed(one) for one in value)
    if not is_dataclass(value) or isinstance(value, type):
        return True
    allowed = {
        "str": str,
        "float": float,
        "bool": bool,
        "str | None": (str, type(None)),
        "Logit | None": (Logit, type(None)),
        "float | Array": float,
        "tuple[Stage, ...]": tuple,
        "tuple[Term, ...]": tuple,
        "tuple[Combine, ...]": tuple,
        "Any": object,
    } | {one.__name__: one for one in (Fold, Pairs, Rows, Logit, spec.Arrangement)}
    return all(
        isinstance(getattr(value, f.name), allowed[str(f.type)]) and typed(getattr(value, f.name))
        for f in fields(value)
    )


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(EVERY), st.data())
def test_a_dictionary_is_read_as_constructors_would_or_refused(record: PairLoss, data: st.DataObject) -> None:
    """Whatever stands anywhere in a dictionary: OptionError, or a record of the declared types that is written as it was read."""
    whole = record.to_dict()
    path = data.draw(st.sampled_from(list(places(whole))))
    changes = changed(whole, path, data.draw(VALUES))
    try:
        again = PairLoss.from_dict(changes)
    except ss.OptionError:
        return
    assert typed(again)
    assert PairLoss.from_dict(again.to_dict()) == again


DEEP: Any = []
for _ in range(100_000):
    DEEP = [DEEP]
DEEP_DICT: Any = {}
for _ in range(100_000):
    DEEP_DICT = {"type": "Towers", "both_ways": DEEP_DICT}
CYCLE: list[Any] = []
CYCLE.append(CYCLE)
HOSTILE = {
    "deep lists": DEEP,
    "deep dictionaries": DEEP_DICT,
    "a cycle": CYCLE,
    "NaN": math.nan,
    "infinity": math.inf,
    "an enormous integer": 10**400,
    "an object": object(),
    "a set": {1},
    "a class": PairLoss,
    "a dictionary without a type": {},
    "a type that is no string": {"type": DEEP},
    "a type that is unknown": {"type": "os.system"},
    "keys that are no strings": {"type": "Towers", 1: True},
    "an abstract word": {"type": "Logit"},
    "an enumeration without its value": {"type": "Fold"},
    "an enumeration of a deep value": {"type": "Fold", "value": DEEP},
    "an enumeration and more": {"type": "Fold", "value": "exp", "more": 1},
}


@pytest.mark.parametrize("place", [path for path in places(losses.sincere().to_dict()) if "type" not in path], ids=str)
@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_dictionary_is_refused(case: str, place: tuple[Any, ...]) -> None:
    with pytest.raises(ss.OptionError) as caught:
        PairLoss.from_dict(changed(losses.sincere().to_dict(), place, HOSTILE[case]))
    assert len(str(caught.value)) < 800


def test_the_refusal_of_a_dictionary_says_where() -> None:
    whole = losses.sincere().to_dict()
    for path, value, words in (
        (("stages", 1, "fold"), "softplus", r"stages\[1\]: Stage 'margin': fold must be"),
        (("stages", 0, "over"), {"type": "Pairs", "value": "some"}, r"stages\[0\]\.over: a Pairs has as value"),
        (("terms", 0), {"type": "Term"}, r"terms\[0\]: a Term needs the field 'stage'"),
        (
            ("terms", 0),
            {"type": "Term", "stage": "margin", "row": 1},
            r"terms\[0\]: a Term has no field 'row'; its fields are",
        ),
        (("logit",), {"type": "Nothing"}, r"logit: no word of a loss is called 'Nothing'; known are"),
    ):
        with pytest.raises(ss.OptionError, match=words):
            PairLoss.from_dict(changed(whole, path, value))


def test_a_user_s_word_cannot_take_the_name_of_another() -> None:
    for name in ("Fold", "Stage", "Reduce", "Similarity"):
        with pytest.raises(TypeError, match=f"{name}.*already has a word"):
            type(name, (Logit,), {"__module__": "elsewhere"})


# --- what version 0.1.0 wrote ---------------------------------------------------------------------------------------------------

STORED = json.loads((Path(__file__).parent / "data" / "records_0_1_0.json").read_text(encoding="utf-8"))
NOW = {
    "sincere": losses.sincere(0.25, epsilon=0.5),
    "supcon out": losses.supcon(0.25),
    "supcon in": losses.supcon(0.25, "in"),
    "decoupled": losses.decoupled(0.25),
    "info_nce": losses.info_nce(0.25),
    "nt_xent": losses.nt_xent(0.25),
    "dystress": losses.dystress(0.125, 0.25),
    "dystress differentiated": losses.dystress(0.125, 0.25, detach=False),
    "dystress shifted": losses.dystress(0.125, 0.25, schedule="shifted", offset=-0.5, scale=0.75),
    "clip": losses.clip(0.25),
    "siglip": losses.siglip(0.25, -5.0),
    "a record of one's own": PairLoss(
        "mine",
        Towers(both_ways=True),
        (
            Stage("noise", Fold.LOGSUMEXP, Pairs.OTHERS, scale=2.0, offset=0.25, mean=True),
            Stage("pull", Fold.EXP, Pairs.POSITIVE, scale=-1.0, minus="noise"),
        ),
        (Term("noise", 2.0, 0.5, Rows.SEVERAL_POSITIVES), Term("pull", -1.0)),
        Similarity(),
        0.5,
        1.5,
    ),
} | {
    f"f_micl {name}": losses.f_micl(name, alpha=3.0, inverse_bandwidth=2.0, order=1.5)
    for name in ("kl", "js", "pearson", "hellinger", "tsallis", "vincze_le_cam", "reverse_kl", "neyman", "jeffreys")
}


@pytest.mark.parametrize("name", STORED)
def test_what_version_0_1_0_wrote_is_read(name: str) -> None:
    stored = STORED[name]
    assert '"Reduce"' in json.dumps(stored["dictionary"])
    assert PairLoss.from_dict(stored["dictionary"]) == NOW[name]
    again = pickle.loads(bytes.fromhex(stored["pickle"]))
    assert again == NOW[name]
    assert hash(again) == hash(NOW[name])
    assert repr(again) == stored["repr"]


def test_every_stored_record_is_one_of_today() -> None:
    assert STORED.keys() == NOW.keys()


def test_the_names_of_version_0_1_0_are_still_there() -> None:
    for module, names in {
        "sincere_spec.protocol": "Arrangement Fold Logit PairLoss Pairs Reduce Roles Rows Similarity Term Word",
        "sincere_spec.arrangements": "Labelled PairedViews Queries Towers Views",
        "sincere_spec.losses.dystress": "CosineSchedule ShiftedSchedule",
        "sincere_spec.losses.f_micl": "LogKernel",
    }.items():
        there = importlib.import_module(module)
        for name in names.split():
            assert getattr(there, name) is getattr(spec, "Stage" if name == "Reduce" else name)


def test_an_array_beside_the_declared_fields_of_a_word_is_refused() -> None:
    class Scaled(Similarity):
        def __init__(self) -> None:
            object.__setattr__(self, "weights", np.ones(3))

    try:
        with pytest.raises(ss.OptionError, match="Scaled: weights must be a finite number; got an array"):
            replace(losses.sincere(), logit=Scaled())
    finally:
        del Word.known["Scaled"]
