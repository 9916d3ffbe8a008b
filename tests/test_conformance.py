"""The conformance suite tested: right implementations pass, every planted fault is caught, and trouble is reported."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import sincere_spec as ss
from sincere_spec.conformance import cases, frameworks, judge, questions, report, runner
from sincere_spec.conformance.implementations import Package
from sincere_spec.conformance.judge import Answer, Result, Returned, Unsupported
from sincere_spec.conformance.questions import Question, Wanted

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def suite() -> tuple[Question, ...]:
    return questions.of_suite()


@pytest.fixture(scope="module")
def sincere_cases(suite: tuple[Question, ...]) -> tuple[Question, ...]:
    return tuple(question for question in suite if question.loss == "sincere")


# --- planted faults ---


class Sincere:
    """SINCERE in NumPy, written for these tests alone and right; a fault overrides one method of it."""

    framework = "numpy"

    def routes(self, question: Question) -> tuple[str, ...]:
        return ("formula",)

    def answer(self, question: Question, dtype: str, engine: str, route: str) -> Answer:
        if set(question.arguments) != {"embeddings", "labels"} or question.reduction == "none":
            raise Unsupported("a batch that is compared with itself, reduced to a scalar")
        x = question.arguments["embeddings"].astype(dtype)
        labels = question.arguments["labels"]
        if x.ndim == 3:
            labels = np.repeat(labels, x.shape[1])
        tau, epsilon = (np.asarray(question.options[name], dtype) for name in ("temperature", "epsilon"))
        with np.errstate(all="ignore"):
            value, gradient, by_tau = self.evaluate(
                x.reshape(-1, x.shape[-1]), labels, tau, epsilon, question.normalize, question.reduction
            )
            c = self.cotangent(question.cotangent.astype(dtype))
            gradients = {"embeddings": (c * gradient).reshape(x.shape), "temperature": c * by_tau}
        read = {name: Returned(np.asarray(g, np.float64), g.dtype.name) for name, g in gradients.items()}
        return Answer(Returned(np.asarray(value, np.float64), value.dtype.name), self.kept(read))

    def evaluate(self, x, labels, tau, epsilon, normalize, reduction):
        n = len(x)
        size = np.max(np.abs(x), axis=1, keepdims=True, initial=0)
        size = np.where(size == 0, 1, size).astype(x.dtype) if normalize else np.ones_like(size)
        norm = np.sqrt(np.sum((x / size) ** 2, axis=1, keepdims=True)) if normalize else np.ones_like(size)
        empty = norm == 0
        norm = np.where(empty, 1, norm).astype(x.dtype)
        z = x / size / norm
        a = self.similarities(z) / tau
        same = labels[:, None] == labels[None, :]
        positive, noise = self.positive(same), self.noise(same)
        peak = self.peak(np.max(np.where(noise, a, -np.inf), axis=1, keepdims=True, initial=-np.inf))
        peak = np.where(np.isfinite(peak), peak, 0).astype(x.dtype)
        weight = np.where(noise, np.exp(np.where(noise, a - peak, 0)), 0)
        total = np.sum(weight, axis=1, keepdims=True)
        none = ~np.any(noise, axis=1, keepdims=True)
        level = np.log(np.where(none, 1, total)) + peak
        share = self.share(positive.astype(x.dtype), np.sum(positive, axis=1, keepdims=True).astype(x.dtype))
        some = positive & ~none
        t = np.where(some, level - a + epsilon, 0)
        losses = np.sum(np.where(some, share * np.logaddexp(0, t), 0), axis=1) - epsilon
        counts = np.any(positive, axis=1)
        losses = self.rows(np.where(counts, losses, 0).astype(x.dtype), counts)
        weights = self.weights(counts, np.sum(positive, axis=1), reduction, n).astype(x.dtype)
        pull = np.where(some, weights[:, None] * share / (1 + np.exp(-t)), 0)
        push = np.sum(pull, axis=1, keepdims=True)
        logits = np.where(none, 0, weight / np.where(none, 1, total)) * push - pull
        dz = self.gradient(logits @ z, logits.T @ z) / tau
        dx = (dz - np.sum(dz * z, axis=1, keepdims=True) * z) / norm / size if normalize else dz
        dx = np.where(empty & normalize, 0, dx).astype(x.dtype)
        return np.sum(weights * losses), dx, -np.sum(logits * a) / tau

    def similarities(self, z):
        return z @ z.T

    def positive(self, same):
        return same & ~np.eye(len(same), dtype=bool)

    def noise(self, same):
        return ~same

    def peak(self, peak):
        return peak

    def share(self, positive, number):
        return positive / np.maximum(number, 1)

    def rows(self, losses, counts):
        return losses

    def weights(self, counts, number, reduction, n):
        if reduction == "sum":
            return counts * 1.0
        if reduction == "batch":
            return counts / max(n, 1)
        if reduction == "pairs":
            return counts * number / max(np.sum(number), 1)
        return counts / max(np.sum(counts), 1)

    def gradient(self, anchors, keys):
        return anchors + keys

    def cotangent(self, c):
        return c

    def kept(self, gradients):
        return gradients


class SelfIsPositive(Sincere):
    def positive(self, same):
        return same


class DenominatorOfSupCon(Sincere):
    def noise(self, same):
        return ~np.eye(len(same), dtype=bool)


class GradientHalved(Sincere):
    def gradient(self, anchors, keys):
        return (anchors + keys) / 2


class CotangentIgnored(Sincere):
    def cotangent(self, c):
        return np.ones_like(c)


class KeysWithoutGradient(Sincere):
    def gradient(self, anchors, keys):
        return anchors


class MeanOverAllRows(Sincere):
    def weights(self, counts, number, reduction, n):
        return super().weights(counts, number, "batch" if reduction == "mean" else reduction, n)


class MeanOverPairs(Sincere):
    def weights(self, counts, number, reduction, n):
        return super().weights(counts, number, "pairs" if reduction == "mean" else reduction, n)


class SumOverPositives(Sincere):
    def share(self, positive, number):
        return positive


class TemperatureWithoutGradient(Sincere):
    def kept(self, gradients):
        return {name: g for name, g in gradients.items() if name != "temperature"}


class TemperatureGradientNegated(Sincere):
    def kept(self, gradients):
        wrong = gradients["temperature"]
        return gradients | {"temperature": Returned(-wrong.numbers, wrong.dtype)}


class SimilaritiesInBfloat16(Sincere):
    def similarities(self, z):
        s = np.ascontiguousarray(z @ z.T, np.float32)
        return ((s.view(np.uint32) + 0x8000) & 0xFFFF0000).view(np.float32).astype(z.dtype)


class UnshiftedExponential(Sincere):
    def peak(self, peak):
        return np.zeros_like(peak)


class NanForASingleton(Sincere):
    def share(self, positive, number):
        return positive / number

    def rows(self, losses, counts):
        return np.where(counts, losses, np.nan).astype(losses.dtype)


class LastRowDropped(Sincere):
    def rows(self, losses, counts):
        return np.concatenate([losses[:-1], np.zeros_like(losses[-1:])])


class Float64Answers(Sincere):
    def evaluate(self, x, *rest):
        return super().evaluate(x.astype(np.float64), *rest)


class OneRowTooMany(Sincere):
    def kept(self, gradients):
        z = gradients["embeddings"]
        return gradients | {"embeddings": Returned(np.concatenate([z.numbers, z.numbers[:1]]), z.dtype)}


FAULTS = {
    SelfIsPositive: "sincere/ordinary",
    DenominatorOfSupCon: "sincere/ordinary",
    GradientHalved: "sincere/ordinary",
    CotangentIgnored: "sincere/ordinary",
    KeysWithoutGradient: "sincere/ordinary",
    MeanOverAllRows: "sincere/one-singleton",
    MeanOverPairs: "sincere/unequal-classes",
    SumOverPositives: "sincere/ordinary",
    TemperatureWithoutGradient: "sincere/ordinary",
    TemperatureGradientNegated: "sincere/ordinary",
    SimilaritiesInBfloat16: "sincere/ordinary",
    UnshiftedExponential: "sincere/hot-logits",
    NanForASingleton: "sincere/one-singleton",
    LastRowDropped: "sincere/ordinary",
    Float64Answers: "sincere/ordinary",
    OneRowTooMany: "sincere/ordinary",
}


def verdicts(implementation: judge.Implementation, asked: Sequence[Question], dtype: str) -> list[Result]:
    return [
        result
        for question in asked
        if dtype in question.dtypes
        for result in judge.ask(implementation, question, dtype, "dense")
    ]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_right_implementation_passes(dtype: str, sincere_cases: tuple[Question, ...]) -> None:
    results = verdicts(Sincere(), sincere_cases, dtype)
    assert {result.status for result in results} == {"pass", "unsupported"}
    assert len({result.case for result in results if result.status == "pass"}) > 20


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_every_planted_fault_is_killed(fault: type[Sincere], sincere_cases: tuple[Question, ...]) -> None:
    killed = {result.case for result in verdicts(fault(), sincere_cases, "float32") if result.status == "fail"}
    assert FAULTS[fault] in killed


@pytest.mark.parametrize(
    ("fault", "blind"),
    [
        (MeanOverAllRows, "sincere/ordinary"),
        (MeanOverPairs, "sincere/ordinary"),
        (NanForASingleton, "sincere/ordinary"),
        (UnshiftedExponential, "sincere/ordinary"),
    ],
    ids=lambda x: x if isinstance(x, str) else x.__name__,
)
def test_an_ordinary_case_alone_would_not_do(
    fault: type[Sincere], blind: str, sincere_cases: tuple[Question, ...]
) -> None:
    asked = [question for question in sincere_cases if question.id == blind]
    assert {result.status for result in verdicts(fault(), asked, "float32")} == {"pass"}


# --- the package, judged in this process ---


def test_every_framework_passes_a_case(framework: str, suite: tuple[Question, ...]) -> None:
    (asked,) = ([question] for question in suite if question.id == "sincere/unequal-classes")
    implementation = Package(frameworks.start(framework))
    for dtype in ("float32", "bfloat16") if "bfloat16" in frameworks.FRAMEWORKS[framework].dtypes else ("float32",):
        results = verdicts(implementation, asked, dtype)
        assert not [result for result in results if result.status not in ("pass", "unsupported")]
        assert len(results) >= 4


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.framework("numpy")
def test_numpy_passes_the_suite(dtype: str, suite: tuple[Question, ...]) -> None:
    asked = (*suite, *questions.integrity(suite))
    results = verdicts(Package(frameworks.start("numpy")), asked, dtype)
    assert not [result for result in results if result.status not in ("pass", "unsupported")]


def test_a_nan_is_asked_of_every_row(suite: tuple[Question, ...]) -> None:
    spoilt = [question for question in questions.integrity(suite) if question.id.endswith("/nan")]
    assert {question.row for question in spoilt} == {question.row for question in suite}
    assert all(np.isnan(question.value.numbers) for question in spoilt)


# --- the judge ---


@pytest.fixture
def question() -> Question:
    return Question(
        id="sincere/made",
        profile="core",
        says="Made for a test.",
        loss="sincere",
        options={"temperature": 0.5, "epsilon": 0.0},
        arguments={"embeddings": np.ones((2, 3)), "labels": np.zeros(2, np.int64)},
        normalize=True,
        reduction="mean",
        dtypes=("float32",),
        cotangent=np.asarray(-1.5),
        value=Wanted(np.asarray(2.0), np.asarray(3.0)),
        gradient={"embeddings": Wanted(np.full((2, 3), 6.0), np.ones((2, 3)))},
        floor=1.0,
    )


def judged(question: Question, answer: Answer, dtype: str = "float32") -> dict[str, Result]:
    results = judge.judge(question, answer, framework="numpy", dtype=dtype, engine="dense", route="plain")
    return {result.quantity: result for result in results}


def test_the_ratio_is_the_error_over_u_times_the_scale(question: Question) -> None:
    u = 2.0**-24
    got = judged(question, Answer(Returned(np.asarray(2.0 + u * (2.0 + 3.0 * 2.5)), "float32")))["value"]
    assert (got.status, got.ratio) == ("pass", pytest.approx(2.5, rel=1e-6))
    got = judged(question, Answer(Returned(np.asarray(2.0 + u * (2.0 + 3.0 * 4.5)), "float32")))["value"]
    assert (got.status, got.expected) == ("fail", 2.0)


def test_a_gradient_without_the_cotangent_is_judged_as_such(question: Question) -> None:
    g = Returned(np.full((2, 3), -4.0), "float32")
    value = Returned(np.asarray(2.0), "float32")
    assert judged(question, Answer(value, {"embeddings": g}, under_cotangent=False))["gradient.embeddings"].ratio == 0
    assert judged(question, Answer(value, {"embeddings": g}))["gradient.embeddings"].status == "fail"


@pytest.mark.parametrize(
    ("gradient", "reason"),
    [
        (None, "no gradient came"),
        (Returned(np.ones((3, 2)), "float32"), "shape (2, 3) was expected, and (3, 2) came"),
        (Returned(np.full((2, 3), 6.0), "float64"), "float32 was expected, and float64 came"),
        (Returned(np.full((2, 3), np.nan), "float32"), "not finite, as are 5 of 5 other entries"),
    ],
)
def test_a_wrong_gradient_fails_with_the_reason(question: Question, gradient: Returned | None, reason: str) -> None:
    got = judged(question, Answer(Returned(np.asarray(2.0), "float32"), {"embeddings": gradient}))
    assert got["value"].status == "pass"
    assert (got["gradient.embeddings"].status, got["gradient.embeddings"].reason) == ("fail", reason)


def test_half_types_have_a_float32_value_and_gradients_of_their_own(question: Question) -> None:
    g = Returned(np.full((2, 3), 6.0), "bfloat16")
    got = judged(question, Answer(Returned(np.asarray(2.0), "float32"), {"embeddings": g}), "bfloat16")
    assert {result.status for result in got.values()} == {"pass"}
    got = judged(question, Answer(Returned(np.asarray(2.0), "bfloat16"), {"embeddings": g}), "bfloat16")
    assert got["value"].reason == "float32 was expected, and bfloat16 came"


def test_what_an_implementation_does_is_a_result_and_never_raises(question: Question) -> None:
    class Broken(Sincere):
        def answer(self, *_: object) -> Answer:
            raise ZeroDivisionError("two\nlines")

    class Modest(Sincere):
        def answer(self, *_: object) -> Answer:
            raise Unsupported("no such engine")

    (broken,) = judge.ask(Broken(), question, "float32", "dense")
    assert (broken.status, broken.reason) == ("error", "ZeroDivisionError: two lines")
    (modest,) = judge.ask(Modest(), question, "float32", "dense")
    assert (modest.status, modest.reason) == ("unsupported", "no such engine")


def test_a_result_goes_through_json() -> None:
    wrong = Result(
        *("sincere/x", "sincere", "core", "numpy", "float32", "dense", "plain", "value", "fail"),
        ratio=float("inf"),
        reason="wrong",
        at=(1, 2),
        expected=0.1,
        got=float("nan"),
    )
    text = json.dumps(wrong.to_dict(), allow_nan=False)
    assert repr(Result.from_dict(json.loads(text))) == repr(wrong)


def test_questions_go_through_files(question: Question, tmp_path: Path) -> None:
    questions.write(question, tmp_path / "question.npz")
    back = questions.read(tmp_path / "question.npz")
    assert (back.id, back.options, back.dtypes, back.row) == (question.id, question.options, question.dtypes, "sincere")
    assert np.array_equal(back.gradient["embeddings"].numbers, question.gradient["embeddings"].numbers)
    assert list(back.arguments) == ["embeddings", "labels"]
    assert back.arguments["labels"].dtype == np.int64


# --- the runner ---

SMALL = runner.Request(
    frameworks=("numpy",),
    losses=("sincere",),
    profiles=("core",),
    dtypes=("float32",),
    engines=("dense",),
    digits=False,
)


def worker(code: str) -> tuple[str, ...]:
    start = (
        "import json, os, sys, time; plan = json.loads(sys.stdin.readline()); say = lambda x: print(x, flush=True)\n"
    )
    return (sys.executable, "-c", start + code)


PARTLY = """
case, dtype, engine = plan["units"][0]
one = dict(case=case, row="sincere", profile="core", framework="numpy", dtype=dtype, engine=engine, route="plain")
say(json.dumps({"unit": plan["units"][0], "results": [one | {"quantity": "value", "status": "pass", "ratio": 0.5}]}))
"""


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("os.abort()", "the process of numpy died of SIGABRT"),
        ("raise ImportError('no such thing')", "ended with status 1 before it was done: ImportError: no such thing"),
        ("say('Segmentation fault')", "printed what is no JSON object: 'Segmentation fault'"),
        ("time.sleep(60)", "said nothing for 2 s and was ended"),
        ("pass", "ended with status 0 before it was done"),
    ],
    ids=["crash", "exception", "nonsense", "hang", "silence"],
)
def test_a_worker_that_goes_wrong_is_reported(code: str, reason: str) -> None:
    made = runner.run(replace(SMALL, timeout=2.0), worker=worker(PARTLY + code))
    asked = runner.plan(SMALL).units["numpy"]
    assert [result.status for result in made.results] == ["pass"] + ["error"] * (len(asked) - 1)
    assert reason in made.results[-1].reason
    assert made.exit_status == 1
    assert made.culprits[0].startswith("sincere: no answer in ")


def test_the_digits_process_may_go_wrong_too(tmp_path: Path) -> None:
    request = replace(SMALL, profiles=("digits",), digits=True)
    made = runner.run(request, answers=(sys.executable, "-c", "import os; os.abort()"))
    assert {result.status for result in made.results} == {"error"}
    assert "answers for the digits died of SIGABRT" in made.results[0].reason


def test_a_run_says_what_happens() -> None:
    events: list[runner.Event] = []
    made = runner.run(SMALL, events.append)
    assert made.exit_status == 0
    assert made.sentence.startswith("PASS: ")
    assert [event.kind for event in events if event.kind != "results"] == ["start", "end"]
    assert sum(event.kind == "results" for event in events) == events[0].units == len(runner.plan(SMALL).units["numpy"])
    assert made.frameworks["numpy"]["versions"]["numpy"] == np.__version__


def test_another_engine_is_another_column() -> None:
    todo = runner.plan(replace(SMALL, engines=("dense", "tiled")))
    assert [column.engine for column in todo.columns] == ["dense", "tiled"]
    assert len(todo.units["numpy"]) == 2 * len(runner.plan(SMALL).units["numpy"])
    assert [column.engine for column in runner.plan(replace(SMALL, engines=())).columns] == ["dense", "tiled"]


@pytest.mark.skipif(not frameworks.FRAMEWORKS["jax"].installed, reason="jax is not installed")
def test_tiles_that_are_compiled_are_sampled_unless_they_are_asked_for() -> None:
    """One ordinary case of each row, in float32; by name the whole suite, in processes that hold so many programs."""
    request = runner.Request(frameworks=("jax",), digits=False)
    sampled = [unit for unit in runner.plan(request).units["jax"] if unit[2] == "tiled"]
    asked = runner.plan(request).questions
    assert min(len(x) for case, _, _ in sampled for x in asked[case].arguments.values()) > 2
    assert {dtype for _, dtype, _ in sampled} == {"float32"}
    assert len(sampled) == len(runner.plan(request).rows)
    named = runner.plan(replace(request, engines=("tiled",)))
    assert not named.sampled
    assert {dtype for _, dtype, _ in named.units["jax"]} == {"float16", "bfloat16", "float32", "float64"}
    assert {case for case, _, _ in named.units["jax"]} == set(named.questions)
    batches = runner.batches(named, "jax")
    assert [unit for batch in batches for unit in batch] == list(named.units["jax"])
    assert max(map(len, batches)) <= runner.PROGRAMS


def test_a_framework_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frameworks.Listing, "installed", property(lambda listing: listing.name == "numpy"))
    with pytest.raises(runner.CannotJudge, match=r"jax is not installed; try: pip install 'sincere-spec\[jax\]'"):
        runner.plan(replace(SMALL, frameworks=("jax",)))
    todo = runner.plan(replace(SMALL, frameworks=()))
    assert (tuple(todo.units), "jax" in todo.absent) == (("numpy",), True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"losses": ("supcn",)}, 'did you mean "supcon"?'),
        ({"losses": ("f_micl k",)}, 'did you mean "f_micl kl"?'),
        ({"frameworks": ("pytorch",)}, 'did you mean "torch"?'),
        ({"profiles": ("cor",)}, 'did you mean "core"?'),
        ({"dtypes": ("float",)}, "dtype must be one of"),
        ({"engines": ("tile",)}, 'did you mean "tiled"?'),
        ({"jobs": 0}, "jobs must be 1 or more"),
    ],
)
def test_an_unknown_word_names_the_nearest(change: dict[str, object], message: str) -> None:
    with pytest.raises(ss.OptionError) as refusal:
        runner.plan(replace(SMALL, **change))
    assert message in str(refusal.value)


# --- the report ---


@pytest.fixture
def made() -> report.Report:
    column = {"framework": "numpy", "dtype": "float32", "engine": "dense"}
    place = {"case": "sincere/x", "row": "sincere", "profile": "core", **column, "route": "plain"}
    results = (
        Result(**place, quantity="value", status="pass", ratio=0.5),
        Result(**place, quantity="gradient.embeddings", status="fail", ratio=1e9, at=(0, 1), expected=1.0, got=-1.0),
        Result(**place | {"row": "clip", "case": "clip/x"}, quantity="value", status="pass", ratio=3.0),
    )
    return report.report(
        implementation="sincere_spec",
        suite="1.0.0",
        rows=("sincere", "clip"),
        columns=(report.Column(**column),),
        frameworks={"numpy": {"status": "judged", "seconds": 1.0, "versions": {"numpy": "2"}, "device": "cpu"}},
        says={"sincere/x": "Because."},
        results=results,
        seconds=1.0,
    )


def test_a_report_names_the_culprit(made: report.Report) -> None:
    assert (made.exit_status, made.verdict) == (1, "fail")
    assert made.culprits == ("sincere: wrong gradient in 1 of 1 cases, in everything that was asked",)
    text = report.markdown(made)
    assert "| sincere | **1e9** |" in text
    assert "| clip | 3.00 |" in text
    assert "Because." in text
    assert "gradient.embeddings[0, 1] expected 1.0, got -1.0, ratio 1e9 of 4 allowed" in text


def test_exit_status_2_if_a_column_could_not_be_judged(made: report.Report) -> None:
    good = tuple(result for result in made.results if result.status == "pass")
    assert replace(made, results=good).exit_status == 0
    assert replace(made, results=()).exit_status == 2
    more = (*made.columns, report.Column("numpy", "float32", "tiled"))
    assert replace(made, results=good, columns=more).exit_status == 2


def test_a_report_is_written_whole_or_not_at_all(
    made: report.Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    json_file, *_ = report.save(made, tmp_path / "new" / "folder")
    read = json.loads(json_file.read_text(encoding="utf-8"))
    assert (read["verdict"], read["suite"], len(read["results"])) == ("fail", "1.0.0", 3)

    def broken(_: report.Report) -> str:
        raise OSError("disk full")

    monkeypatch.setattr(report, "markdown", broken)
    with pytest.raises(OSError, match="disk full"):
        report.save(made, tmp_path / "other")
    assert not list((tmp_path / "other").iterdir())


def test_ci_systems_can_read_a_report(made: report.Report) -> None:
    root = ElementTree.fromstring(report.junit(made))
    (suite,) = root
    assert suite.attrib == {"name": "numpy f32", "tests": "3", "failures": "1", "errors": "0", "skipped": "0"}
    failures = [(case.get("name"), failure.text) for case in suite for failure in case]
    assert failures == [("sincere/x plain gradient.embeddings", "Because.")]


def test_two_reports_are_compared(made: report.Report) -> None:
    before = json.loads(report.to_json(made))
    assert report.moved(before, made) == []
    value, gradient, _ = made.results
    now = replace(made, results=(replace(value, status="error"), replace(gradient, status="pass")))
    assert report.moved(before, now) == [
        "sincere/x numpy float32 dense plain value: pass, now error",
        "sincere/x numpy float32 dense plain gradient.embeddings: fail, now pass",
        "clip/x numpy float32 dense plain value: pass, now not asked",
    ]
    with pytest.raises(ss.OptionError, match="this one has 'format'"):
        report.moved({}, made)


# --- the command ---


def command(*words: str, cwd: Path, module: str = "sincere_spec.conformance", **variables: str):
    """The command in a process, from another folder, with this checkout (or the one in PYTHONPATH) on its path."""
    inherited = {name: x for name, x in os.environ.items() if not name.startswith(("COV_", "PYTEST_"))}
    return subprocess.run(
        [sys.executable, "-m", module, *words],
        cwd=cwd,
        env=inherited | {"PYTHONPATH": str(ROOT)} | variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


ONE = ("--framework", "numpy", "--loss", "decoupled", "--profile", "degenerate,reduction", "--no-digits")


def test_verify_passes(tmp_path: Path) -> None:
    done = command(*ONE, "--report", "here", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASS: " in done.stdout.splitlines()[-1]
    assert json.loads((tmp_path / "here" / "report.json").read_text(encoding="utf-8"))["verdict"] == "pass"
    assert sorted(path.name for path in (tmp_path / "here").iterdir()) == ["report.json", "report.md", "report.xml"]


def test_verify_as_json(tmp_path: Path) -> None:
    done = command(*ONE, "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["verdict"] == "pass"


def test_verify_refuses_with_2(tmp_path: Path) -> None:
    done = command("--loss", "supcn", cwd=tmp_path)
    assert done.returncode == 2
    assert 'did you mean "supcon"?' in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def flipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this checkout in which one sign of one loss is flipped."""
    copy = tmp_path_factory.mktemp("flipped")
    shutil.copytree(ROOT / "sincere_spec", copy / "sincere_spec", ignore=shutil.ignore_patterns("__pycache__"))
    path = copy / "sincere_spec" / "losses" / "decoupled.py"
    source = path.read_text(encoding="utf-8")
    assert source.count('Term("attract", -1.0)') == 1
    path.write_text(source.replace('Term("attract", -1.0)', 'Term("attract", 1.0)'), encoding="utf-8")
    return copy


def test_a_flipped_sign_is_found(flipped: Path, tmp_path: Path) -> None:
    done = command(*ONE, "--loss", "sincere", cwd=tmp_path, PYTHONPATH=str(flipped))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "decoupled: " in done.stdout.partition("The culprits")[2]
    assert "sincere: " not in done.stdout.partition("The culprits")[2]
    assert "decoupled/none  One loss for each row" in done.stdout
    assert "FAIL: " in done.stdout.splitlines()[-1]


def test_help_shows_an_example(tmp_path: Path) -> None:
    for words in (("verify", "--help"), ("losses", "--help")):
        done = command(*words, cwd=tmp_path, module="sincere_spec.cli", COLUMNS="200")
        assert f"Example: sincere-spec {words[0]}" in done.stdout


def test_losses_shows_the_catalogue(tmp_path: Path) -> None:
    done = command("losses", cwd=tmp_path, module="sincere_spec.cli")
    assert done.returncode == 0, done.stderr
    assert "loss_i = mean_p -log( exp(a_ip) / (exp(a_ip - epsilon) + Σ_n exp(a_in)) )" in done.stdout
    assert "loss = margin [one positive]" in done.stdout
    entries = json.loads(command("losses", "--json", cwd=tmp_path, module="sincere_spec.cli").stdout)
    assert [entry["name"] for entry in entries] == [f"{name}_loss" for name in ss.losses.__all__]
    for entry in entries:
        assert entry["formula"]
        assert entry["stages"]
        assert ss.PairLoss.from_dict(entry["record"])


@pytest.mark.parametrize("missing", ["typer", "rich", "numpy"])
def test_a_missing_extra_is_said_in_one_line(missing: str, tmp_path: Path) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; import sincere_spec.cli"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert done.stderr == f"sincere-spec: {missing} is not installed; try: pip install 'sincere-spec[verify]'\n"


# --- another language -----------------------------------------------------------------------------------------------------------

NODE = shutil.which("node")
EXAMPLE = Path(report.__file__).resolve().parent / "examples" / "sincere.mjs"


def run_example(program: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(NODE), str(program), str(cases.SUITE)], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.skipif(NODE is None, reason="node is not installed")
def test_the_files_alone_are_enough_for_a_runner_in_another_language(tmp_path: Path) -> None:
    done = run_example(EXAMPLE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["pass"] > 30

    source = EXAMPLE.read_text(encoding="utf-8")
    assert len(source.splitlines()) < 100
    assert "sincere_spec" not in source
    faults = {
        "slope[j] -= share;": "slope[j] += share;",
        "labels[j] !== labels[i]": "j !== i",
        "byTemperature -= ": "byTemperature += ",
        'reduction === "batch" ? n : ': "",
    }
    for right, wrong in faults.items():
        assert right in source
        (tmp_path / EXAMPLE.name).write_text(source.replace(right, wrong), encoding="utf-8")
        faulty = run_example(tmp_path / EXAMPLE.name)
        assert faulty.returncode == 1, wrong
        assert "of 4" in faulty.stdout
