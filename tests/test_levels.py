"""Levels: what a textbook implementation conforms to, in which order its failures are told, and what they are called."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_readme import blocks

from sincere_spec.conformance import failures, questions, report, runner
from sincere_spec.conformance.candidates import Candidate
from sincere_spec.conformance.judge import NO_ARRAY, Answer, Result, Returned, judge
from sincere_spec.errors import OptionError

# SINCERE as a person writes it from the paper in PyTorch, by torch.nn.functional.normalize and logaddexp(noise, s) - s.
TEXTBOOK = """
import torch
import torch.nn.functional as F

def sincere(z, y, t):
    z = F.normalize(z)
    s = z @ z.T / t
    same = y[:, None] == y
    positive = same & ~torch.eye(len(y), dtype=torch.bool)
    noise = torch.where(same, -torch.inf, s).logsumexp(1, keepdim=True)
    rows = torch.where(positive, torch.logaddexp(noise, s) - s, 0).sum(1)
    counts = positive.sum(1)
    return (rows / counts.clamp(min=1)).sum() / (counts > 0).sum().clamp(min=1)
"""
FAULTS = {
    "positives in the noise": ("torch.where(same, -torch.inf, s)", "torch.where(torch.eye(len(y)) > 0, -torch.inf, s)"),
    "the mean over all rows": ("(counts > 0).sum().clamp(min=1)", "len(y)"),
    "a count of 0": ("counts.clamp(min=1)", "counts"),
    "another temperature": ("@ z.T / t", "@ z.T / (1.0001 * t)"),
    "the sign of the noise": ("torch.logaddexp(noise, s) - s", "torch.logaddexp(-noise, s) - s"),
    "a detached side": ("z @ z.T", "z @ z.detach().T"),
}


def textbook(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: str,
    observe: Callable[[runner.Event], object] = lambda event: None,
    losses: tuple[str, ...] = ("sincere",),
    **choice: tuple[str, ...],
) -> report.Report:
    (tmp_path / "textbook.py").write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return runner.run(
        runner.Request(
            frameworks=("torch",), losses=losses, candidate=Candidate("textbook:sincere"), timeout=100.0, **choice
        ),
        observe,
    )


def test_a_textbook_implementation_conforms_at_level_core(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, need: object
) -> None:
    need("torch")
    told: list[runner.Event] = []
    made = textbook(tmp_path, monkeypatch, TEXTBOOK, told.append, levels=("core",))
    assert made.exit_status == 0, made.sentence
    assert {result.status for event in told for result in event.results} == {
        "pass",
        "unsupported",
    }  # while it runs, too
    assert made.conforms == "core"
    assert made.sentence.endswith("; conforms: core")
    assert json.loads(report.badge(made)) == {
        "schemaVersion": 1,
        "label": "sincere conformance",
        "message": "core",
        "color": "brightgreen",
    }
    whole = textbook(tmp_path, monkeypatch, TEXTBOOK)
    assert whole.exit_status == 1  # entry by entry it does not
    assert whole.levels["core"] == made.levels["core"]
    passed, asked = whole.levels["robust"]
    assert 0 < passed < asked
    assert whole.conforms.startswith(f"core, robust {passed} of {asked}, extreme ")
    assert json.loads(report.to_json(whole))["conforms"] == whole.conforms
    kinds = {failure.case: failure.kind for failure in whole.failures}
    assert kinds["sincere/zero-row"].startswith("convention; the usual cause: eps of F.normalize")
    assert list(kinds)[-1] == "sincere/zero-row"


def test_the_files_of_the_maintainers_path_are_judged_as_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, need: object
) -> None:
    need("torch")
    docs = Path(__file__).parents[1] / "docs"
    (right,) = (code for code in blocks(docs / "prove.md") if "# mine.py" in code)
    body = TEXTBOOK.partition("def sincere(z, y, t):")[2]
    assert right.partition("# mine.py")[2].strip() == body.strip()
    (wrong,) = (code for code in blocks(docs / "walks.md") if "# wrong.py" in code)
    wrong = wrong.replace("def loss(", "def sincere(")
    made = textbook(tmp_path, monkeypatch, wrong, levels=("core",))
    counts = made.counts
    said = f"FAIL: {counts['fail']} of {counts['fail'] + counts['pass']} verdicts, in {len(made.failures)} cases; "
    page = (docs / "walks.md").read_text(encoding="utf-8")
    assert made.sentence.startswith(said)
    assert f"{said}wrong:loss as sincere, ... conforms to no level: {made.conforms}" in page
    other = textbook(tmp_path, monkeypatch, wrong, losses=("supcon out",), levels=("core",))
    assert other.conforms == "core"
    assert f"PASS: {other.counts['pass']} verdicts in wrong:loss as supcon out, ... conforms: core" in page


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_one_fails_level_core(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, need: object
) -> None:
    need("torch")
    right, wrong = FAULTS[fault]
    assert right in TEXTBOOK
    made = textbook(tmp_path, monkeypatch, TEXTBOOK.replace(right, wrong), levels=("core",))
    assert made.exit_status == 1
    assert "conforms to no level: core " in made.sentence
    if fault == "a count of 0":
        first = made.failures[0]
        assert first.kind == (
            "NaN or infinity; the usual cause: a row without positives is divided by 0: clamp the count, and leave the row out"
        )


# --- by norm ---


def judged(question: questions.Question, error: float, dtype: str = "float32") -> dict[str, Result]:
    """The verdicts on an answer whose gradient is wrong by a part of its norm, in one entry."""
    wanted = question.gradient["embeddings"].numbers
    wrong = wanted.copy()
    wrong.flat[int(np.argmin(np.abs(wanted)))] += error * np.linalg.norm(wanted)
    value = Returned(question.value.numbers, "float64" if dtype == "float64" else "float32")
    answer = Answer(value, {"embeddings": Returned(wrong, dtype), "temperature": None})
    place = {"framework": "numpy", "dtype": dtype, "engine": "dense", "route": "autograd"}
    return {result.quantity: result for result in judge(question, answer, **place)}


@pytest.fixture(scope="module")
def ordinary() -> questions.Question:
    return next(question for question in questions.of_suite() if question.id == "sincere/ordinary")


def test_core_allows_the_promised_part_of_the_norm_and_no_more(ordinary: questions.Question) -> None:
    """8 u (1 + sqrt(d) / t), and one rounding to the dtype of the answer."""
    rule = 2.0**-53 * (1 + 8 * (1 + np.sqrt(6) / 0.0703125))
    for part, passes in ((0.9, True), (1.1, False)):
        result = judged(ordinary, part * rule, "float64")["gradient.embeddings"]
        assert result.status == "fail"
        assert result.by_norm == pytest.approx(part * 4, rel=0.1)
        assert (report.at_level(result).status == "pass") is passes


def test_the_other_levels_are_judged_entry_by_entry(ordinary: questions.Question) -> None:
    result = judged(replace(ordinary, profile="degenerate"), 1e-7)["gradient.embeddings"]
    assert (result.status, result.by_norm) == ("fail", None)
    assert report.at_level(result) is result


def test_none_for_an_array_without_entries_is_no_failure(ordinary: questions.Question) -> None:
    empty = next(question for question in questions.of_suite() if question.id == "sincere/empty-memory")
    value = Returned(empty.value.numbers, "float32")
    gradient = Returned(empty.gradient["embeddings"].numbers, "float32")
    place = {"framework": "numpy", "dtype": "float32", "engine": "dense", "route": "autograd"}
    results = {x.quantity: x for x in judge(empty, Answer(value, {"embeddings": gradient, "keys": None}), **place)}
    assert (results["gradient.keys"].status, results["gradient.keys"].reason) == ("unsupported", NO_ARRAY)
    assert failures.kind(results["gradient.keys"]) == "no array"
    value = Returned(ordinary.value.numbers, "float32")
    (_, missing, *_) = judge(ordinary, Answer(value, {"embeddings": None}), **place)
    assert (missing.status, missing.reason) == ("fail", "no gradient came")


# --- kinds ---

PLACE = {"row": "sincere", "framework": "torch", "dtype": "float32", "engine": "dense", "route": "autograd"}


def failed(case: str, profile: str, quantity: str = "value", **fields: object) -> Result:
    return Result(
        **PLACE | {"row": case.partition("/")[0]},
        case=case,
        profile=profile,
        quantity=quantity,
        **{"status": "fail", **fields},
    )  # type: ignore[arg-type]


def test_what_is_the_definition_s_choice_is_called_a_convention() -> None:
    number = {"ratio": 1e20, "reason": "wrong", "expected": 0.0, "got": 2.5e12}
    assert failures.kind(failed("sincere/zero-row", "degenerate", "gradient.embeddings", **number)) == "convention"
    assert failures.kind(failed("sincere/zero-row", "degenerate", "value", **number)) == "another number"
    one_class = failed("supcon/out-all-one-class", "degenerate", ratio=1e9, reason="wrong", expected=6.8, got=0.0)
    assert failures.kind(replace(one_class, row="supcon out")) == "convention"
    assert failures.kind(replace(one_class, row="sincere", case="sincere/all-one-class")) == "zero"
    nan = {"ratio": float("inf"), "reason": "not finite", "expected": 0.0, "got": float("nan")}
    assert failures.kind(failed("sincere/zero-row", "degenerate", "gradient.embeddings", **nan)) == "NaN or infinity"


def test_a_round_off_against_zero_is_of_digits() -> None:
    small = failed("sincere/two-rows", "degenerate", ratio=float("inf"), reason="wrong", expected=0.0, got=3e-10)
    assert failures.kind(small) == "fewer digits"
    assert failures.kind(replace(small, dtype="float64")) == "another number"
    assert failures.kind(replace(small, got=3e-3)) == "another number"
    assert failures.kind(replace(small, expected=3e-10, got=0.0)) == "zero"


def test_failures_are_told_in_the_order_of_harm() -> None:
    nan = {"ratio": float("inf"), "reason": "not finite", "expected": 0.0, "got": float("nan")}
    results = (
        failed(
            "sincere/zero-row", "degenerate", "gradient.embeddings", ratio=1e20, reason="wrong", expected=0.0, got=1e12
        ),
        failed("sincere/ordinary", "core", ratio=5.0, reason="wrong", expected=1.0, got=1.1),
        failed("sincere/queue", "queue", ratio=1e9, reason="wrong", expected=1.0, got=2.0),
        failed("sincere/cold", "precision", ratio=1e12, reason="wrong", expected=1.0, got=0.0),
        failed("sincere/one-singleton", "core", **nan),
        failed("sincere/one-row", "degenerate", **nan),
    )
    made = report.report(
        implementation="mine:loss",
        suite="1.2.0",
        rows=("sincere",),
        columns=(report.Column("torch", "float32", "dense"),),
        frameworks={},
        says={},
        results=results,
        seconds=1.0,
    )
    names = [failure.case.partition("/")[2] for failure in made.failures]
    assert names == ["one-singleton", "one-row", "queue", "cold", "ordinary", "zero-row"]
    assert made.levels == {"core": (0, 3), "robust": (0, 2), "extreme": (0, 1)}
    assert json.loads(report.badge(made))["color"] == "red"
    assert "the usual cause: a row without positives is divided by 0" in report.markdown(made)


def test_every_profile_of_a_level_is_one_of_the_suite() -> None:
    there = {question.profile for question in questions.of_suite()}
    levels = [profile for profiles in questions.LEVELS.values() for profile in profiles]
    assert sorted(levels) == sorted(there)


def test_a_level_is_asked_of_the_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sincere_spec.conformance", "--framework", "numpy", "--loss", "decoupled"]
    done = subprocess.run(
        [*command, "--level", "core,robust", "--dtype", "float32"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].endswith("; conforms: core, robust")
    results = json.loads((tmp_path / "conformance-report" / "report.json").read_text(encoding="utf-8"))["results"]
    profiles = {result["profile"] for result in results}
    assert profiles <= {*questions.LEVELS["core"], *questions.LEVELS["robust"]}
    assert {"core", "degenerate"} <= profiles
    shutil.rmtree(tmp_path / "conformance-report")
    done = subprocess.run(
        [*command, "--level", "cor"], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 2
    assert 'did you mean "core"?' in done.stderr
    with pytest.raises(OptionError, match="give levels or profiles"):
        runner.plan(runner.Request(levels=("core",), profiles=("core",)))


# --- the signature ---


@pytest.mark.parametrize(
    "signature",
    [
        "embeddings, labels, *, temperature",
        "labels, embeddings, tau=0.5",
        "features, targets, *, temp",
        "z, y, t, extra=None",
        "a, b, *, tau",
        "*arrays, temperature",
    ],
)
def test_names_are_read_from_the_signature(signature: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [part.strip().partition("=")[0] for part in signature.split(",")]
    rows, classes = ("embeddings", "features", "z", "a"), ("labels", "targets", "y", "b")
    z, y = sorted((name for name in names if name in rows + classes), key=classes.__contains__) or (
        "arrays[0]",
        "arrays[1]",
    )
    t = ({"temperature", "tau", "temp", "t"} & set(names)).pop()
    code = f"import sincere_spec as ss\ndef loss({signature}):\n    return ss.sincere_loss({z}, {y}, {t})\n"
    (tmp_path / "mine.py").write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    request = runner.Request(
        frameworks=("numpy",), losses=("sincere",), levels=("core",), candidate=Candidate("mine:loss")
    )
    made = runner.run(request)
    assert made.exit_status == 0, made.sentence
    assert made.counts["pass"] >= 10


def test_a_memory_is_passed_by_its_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sincere_spec as ss\ndef loss(z, y, t, *, keys=None, key_labels=None):\n"
    code += "    return ss.sincere_loss(z, y, t, keys=keys, key_labels=key_labels)\n"
    (tmp_path / "mine.py").write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    request = runner.Request(
        frameworks=("numpy",), losses=("sincere",), profiles=("queue",), candidate=Candidate("mine:loss")
    )
    made = runner.run(request)
    assert made.counts["pass"] >= 1
    assert not made.counts["fail"] + made.counts["error"]
    asked = {question.id: question for question in questions.of_suite()}
    assert any("keys" in asked[result.case].arguments for result in made.results if result.status == "pass")
