"""Properties without an oracle: right implementations have them at every size, and each is lost by some fault."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from plain import Plain

import sincere_spec as ss
from sincere_spec.conformance import cases, frameworks, large, properties, questions, runner
from sincere_spec.conformance.candidates import Candidate, Foreign
from sincere_spec.conformance.implementations import Package
from sincere_spec.conformance.judge import Answer, Result
from sincere_spec.conformance.properties import PROPERTIES, hold
from sincere_spec.conformance.questions import Question

BATCHES = {question.id: question for question in large.questions()}
SMALL = {question.id: question for question in questions.of_suite()}


def held(implementation: Any, question: Question, *names: str, dtype: str = "float64", engine: str = "dense"):
    asked = replace(question, properties=names or question.properties)
    return {result.quantity.partition(".")[2]: result for result in hold(implementation, asked, dtype, engine)}


def small(name: str, *names: str) -> Question:
    """An ordinary case as a question about properties."""
    return replace(SMALL[name], properties=names)


# --- right implementations ---


@pytest.mark.framework("torch")
@pytest.mark.parametrize(
    ("dtype", "batches"), [("float64", BATCHES), ("float32", ["sincere/large", "info_nce/large-queue"])]
)
def test_a_right_implementation_has_every_property(dtype: str, batches: Iterable[str]) -> None:
    for question in (BATCHES[name] for name in batches):
        found = held(Plain("torch"), question, dtype=dtype)
        wanted = set(question.properties) - {"tiles"} - ({"slope"} if dtype == "float32" else set())
        assert set(found) == wanted
        assert {result.status for result in found.values()} == {"pass"}, question.id


@pytest.mark.framework("numpy")
@pytest.mark.parametrize("engine", ["dense", "tiled"])
def test_the_package_has_them_in_both_engines(engine: str) -> None:
    found = held(Package(frameworks.start("numpy")), BATCHES["sincere/large"], dtype="float32", engine=engine)
    assert {result.status for result in found.values()} == {"pass"}
    assert ("tiles" in found) == (engine == "tiled")


@pytest.mark.parametrize(
    "name", ["sincere/ordinary", "supcon/in-unequal-classes", "clip/ordinary", "info_nce/queue", "nt_xent/three-views"]
)
@pytest.mark.framework("torch")
def test_they_hold_of_small_batches_too(name: str) -> None:
    asked = ("orthogonality", "rotation", "permutation", "renaming", "slope")
    found = held(Plain("torch"), small(name, *asked))
    assert set(found) == set(asked) - (set() if "labels" in SMALL[name].arguments else {"renaming"})
    assert {result.status for result in found.values()} == {"pass"}


def test_anyones_implementation_is_asked_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its values alone, where its framework has no gradients: a batch that is cut off is not the same in another order."""
    code = """
import numpy as np
def right(z, y, t):
    z = z / np.sqrt((z * z).sum(axis=1, keepdims=True))
    a, same = z @ z.T / z.dtype.type(t), y[:, None] == y
    noise = np.log(np.where(same, 0, np.exp(a)).sum(axis=1, keepdims=True))
    some = same & ~np.eye(len(y), dtype=bool)
    counts = some.any(axis=1)
    rows = np.where(some, np.logaddexp(0, noise - a), 0).sum(axis=1)[counts] / some.sum(axis=1)[counts]
    return rows.mean(dtype=z.dtype)
def short(z, y, t):
    return right(z[:512], y[:512], t)
"""
    (tmp_path / "theirs_at_scale.py").write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for name, failed in (("right", set()), ("short", {"permutation"})):
        candidate = Candidate(f"theirs_at_scale:{name}")
        implementation = Foreign(frameworks.start("numpy"), candidate, candidate.load("numpy"))
        found = held(implementation, BATCHES["sincere/large"], dtype="float32")
        assert set(found) == {"rotation", "permutation", "renaming"}
        assert {quantity for quantity, result in found.items() if result.status == "fail"} == failed


# --- each property is lost by a fault ---


class AnotherNorm(Plain):
    def unit(self, x: Any) -> Any:
        return x / self.xp.sum(x**4, axis=1, keepdims=True) ** 0.25


class NormsWithoutGradient(Plain):
    def unit(self, x: Any) -> Any:
        return x / self.xp.stop(self.xp.sqrt(self.xp.sum(x * x, axis=1, keepdims=True)))


class LastRowsDropped(Plain):
    def order(self, question: Question, rows: Any) -> Any:
        return self.xp.among(np.arange(rows.shape[0]) < rows.shape[0] // 64 * 64, rows)


class BackgroundIsNoClass(Plain):
    def positive(self, same: np.ndarray, apart: np.ndarray) -> np.ndarray:
        return same & apart

    def labels(self, labels: np.ndarray) -> np.ndarray:
        return np.where(labels == 0, -1 - np.arange(len(labels)), labels)


class GradientHalved(Plain):
    def gradients(self, gradients: dict[str, Any]) -> dict[str, Any]:
        return {name: replace(x, numbers=x.numbers / 2) for name, x in gradients.items()}


class SupCon(Plain):
    def margin(self, a: Any, positive: np.ndarray, negative: np.ndarray, **_: Any) -> Any:
        return self.outside(a, positive, negative)


class Sincere(Plain):
    def outside(self, a: Any, positive: np.ndarray, negative: np.ndarray, **_: Any) -> Any:
        return self.margin(a, positive, negative)


class LastTileDropped(Plain):
    def answer(self, question: Question, dtype: str, engine: str, route: str) -> Answer:
        rows = len(question.arrays["embeddings"])
        kept = rows // (question.tile or rows) * (question.tile or rows)
        cut = {name: x[:kept] for name, x in question.arguments.items()}
        answer = super().answer(replace(question, arguments=cut), dtype, engine, route)
        z = answer.gradients["embeddings"]
        padded = np.concatenate([z.numbers, np.zeros((rows - kept, z.numbers.shape[1]))])
        return replace(answer, gradients={"embeddings": replace(z, numbers=padded)})


@pytest.mark.framework("torch")
@pytest.mark.parametrize(
    ("fault", "batch", "lost"),
    [
        (NormsWithoutGradient, "sincere/large", {"orthogonality", "slope"}),
        (AnotherNorm, "clip/large", {"rotation"}),
        (LastRowsDropped, "nt_xent/large", {"permutation"}),
        (BackgroundIsNoClass, "sincere/large", {"renaming"}),
        (GradientHalved, "siglip/large", {"slope"}),
        (SupCon, "sincere/large", {"attraction"}),
        (Sincere, "supcon/large-out", {"repulsion"}),
        (LastTileDropped, "sincere/large", {"tiles"}),
    ],
)
def test_a_fault_loses_the_property_that_it_should(fault: type[Plain], batch: str, lost: set[str]) -> None:
    found = held(fault("torch"), BATCHES[batch], engine="tiled" if lost == {"tiles"} else "dense")
    failed = {name: result for name, result in found.items() if result.status != "pass"}
    assert set(failed) == lost
    for name, result in failed.items():
        assert (result.reason, result.ratio > 4) == (PROPERTIES[name].says, True)


def test_every_property_is_asked_of_some_batch() -> None:
    assert {name for question in BATCHES.values() for name in question.properties} == set(PROPERTIES)


def test_trouble_is_a_result(suite_question: Question) -> None:
    class Broken(Plain):
        def answer(self, *_: object) -> Answer:
            raise ZeroDivisionError("no rows")

    class Long(Plain):
        def answer(self, *rest: Any) -> Answer:
            answer = super().answer(*rest)
            return replace(answer, value=replace(answer.value, numbers=np.zeros(3)))

    class WithoutNumber(Plain):
        def loss(self, *rest: Any) -> Any:
            return super().loss(*rest) * np.float32(np.nan)

    def only(implementation: Plain) -> Result:
        (result,) = hold(implementation, suite_question, "float32", "dense")
        return result

    assert (only(Broken("numpy")).status, only(Broken("numpy")).reason) == ("error", "ZeroDivisionError: no rows")
    assert only(WithoutNumber("numpy")).reason == "ValueError: a number was expected, and NaN or an infinity came"
    assert only(Long("numpy")).reason == "TypeError: a value of shape () in float32 was expected"


@pytest.fixture
def suite_question() -> Question:
    return small("sincere/ordinary", "rotation")


# --- the recipes ---


def test_numbers_are_those_of_splitmix64() -> None:
    """As its authors' code gives them for the seed 1234567."""
    first = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    assert large.words(1234567, 5).tolist() == first


def test_every_loss_has_a_large_batch_of_exact_numbers() -> None:
    schema, document = (json.loads((cases.SUITE / f"{name}.json").read_text()) for name in ("large.schema", "large"))
    jsonschema.Draft202012Validator(schema).validate(document)
    assert document["suite"] == cases.version()
    assert {question.loss for question in BATCHES.values()} == set(ss.losses.__all__)
    assert not set(BATCHES) & set(SMALL)
    for question in BATCHES.values():
        assert max(len(x) for x in question.arrays.values()) >= 300
        for x in question.arrays.values():
            assert np.array_equal(x * 64, np.round(x * 64))
            assert 50 < np.max(np.abs(x)) * 64 <= 60


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('"seed":1,', '"seed":21,', "sincere/large: malformed: checksum"),
        ('"loss": "sincere"', '"loss": "sincerity"', "sincere/large: malformed: loss 'sincerity' is none of"),
        ('"rotation"', '"reflection"', "sincere/large: malformed: property 'reflection' is none of"),
        ('"cotangent": "-0x1.4p+0",', "", "sincere/large: malformed: 'cotangent'"),
        ('"recipes"', '"recipe"', "large.json: recipes were expected"),
    ],
)
def test_a_malformed_recipe_is_named(old: str, new: str, complaint: str, tmp_path: Path) -> None:
    text = (cases.SUITE / "large.json").read_text()
    assert old in text
    (tmp_path / "large.json").write_text(text.replace(old, new, 1))
    with pytest.raises(cases.CaseError, match=complaint):
        large.questions(tmp_path)
    (tmp_path / "large.json").unlink()
    assert large.questions(tmp_path) == ()


def test_the_runner_asks_for_large_batches() -> None:
    request = runner.Request(
        frameworks=("numpy",), losses=("info_nce",), profiles=("large",), dtypes=("float32",), digits=False
    )
    made = runner.run(request)
    assert made.exit_status == 0
    assert {result.quantity for result in made.results} == {
        "property.orthogonality",
        "property.rotation",
        "property.permutation",
        "property.tiles",
    }


@pytest.mark.skipif(not frameworks.FRAMEWORKS["jax"].installed, reason="jax is not installed")
def test_where_shapes_are_compiled_large_batches_are_asked_by_name() -> None:
    def asked(**choice: Any) -> set[str]:
        todo = runner.plan(runner.Request(frameworks=("jax", "numpy"), dtypes=("float32",), digits=False, **choice))
        return {name for name, units in todo.units.items() if any(case in BATCHES for case, *_ in units)}

    assert asked() == {"numpy"}
    assert asked(profiles=("large",)) == asked(engines=("dense",)) == {"jax", "numpy"}


def test_a_column_that_is_asked_nothing_is_left_out() -> None:
    request = runner.Request(frameworks=("numpy",), profiles=("large",), digits=False)
    assert {column.dtype for column in runner.plan(request).columns} == {"float32", "float64"}
    with pytest.raises(runner.CannotJudge, match="no such case"):
        runner.plan(replace(request, dtypes=("float16",)))


def test_the_names_of_properties_are_those_of_the_schema() -> None:
    schema = json.loads((cases.SUITE / "large.schema.json").read_text())
    recipe = schema["$defs"]["recipe"]["properties"]
    assert recipe["properties"]["items"]["enum"] == list(properties.PROPERTIES)
