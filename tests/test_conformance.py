"""The judge, the runner, the reports and the command: what is right passes, and trouble is reported."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from plain import Plain
from rich.console import Console

import sincere_spec as ss
from sincere_spec.conformance import (
    cases,
    files,
    frameworks,
    judge,
    page,
    questions,
    report,
    runner,
    terminal,
    transforms,
)
from sincere_spec.conformance.implementations import Package
from sincere_spec.conformance.judge import Answer, Result, Returned, Unsupported
from sincere_spec.conformance.questions import Question, Wanted

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def suite() -> tuple[Question, ...]:
    return questions.of_suite()


def verdicts(implementation: judge.Implementation, asked: Sequence[Question], dtype: str) -> list[Result]:
    return [
        result
        for question in asked
        if dtype in question.dtypes
        for result in judge.ask(implementation, question, dtype, "dense")
    ]


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
    class Broken(Plain):
        def answer(self, *_: object) -> Answer:
            raise ZeroDivisionError("two\nlines")

    class Modest(Plain):
        def answer(self, *_: object) -> Answer:
            raise Unsupported("no such engine")

    (broken,) = judge.ask(Broken("numpy"), question, "float32", "dense")
    assert (broken.status, broken.reason) == ("error", "ZeroDivisionError: two lines")
    (modest,) = judge.ask(Modest("numpy"), question, "float32", "dense")
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
@pytest.mark.parametrize("engine", ["tiled", "kernel"])
def test_engines_that_are_compiled_are_sampled_unless_they_are_asked_for(engine: str) -> None:
    """One ordinary case of each row, in float32; by name the whole suite, in processes that hold so many programs."""
    request = runner.Request(frameworks=("jax",), digits=False)
    sampled = [unit for unit in runner.plan(request).units["jax"] if unit[2] == engine]
    asked = runner.plan(request).questions
    assert min(len(x) for case, _, _ in sampled for x in asked[case].arguments.values()) > 2
    assert {dtype for _, dtype, _ in sampled} == {"float32"}
    assert len(sampled) == len(runner.plan(request).rows)
    named = runner.plan(replace(request, engines=(engine,)))
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
    json_file, *_ = files.save(made, tmp_path / "new" / "folder")
    read = json.loads(json_file.read_text(encoding="utf-8"))
    assert (read["verdict"], read["suite"], len(read["results"])) == ("fail", "1.0.0", 3)

    def broken(_: report.Report) -> str:
        raise OSError("disk full")

    monkeypatch.setattr(files, "markdown", broken)
    with pytest.raises(OSError, match="disk full"):
        files.save(made, tmp_path / "other")
    assert not (tmp_path / "other").exists()
    with pytest.raises(TypeError):
        files.publish({"report.json": "{}", "report.md": None}, tmp_path / "third")
    assert not list((tmp_path / "third").iterdir())


def test_ci_systems_can_read_a_report(made: report.Report) -> None:
    root = ElementTree.fromstring(report.junit(made))
    (suite,) = root
    assert suite.attrib == {"name": "numpy f32", "tests": "3", "failures": "1", "errors": "0", "skipped": "0"}
    properties, *tests = suite
    assert {"suite": "1.0.0", "numpy": "2", "device": "cpu"}.items() <= {
        each.get("name"): each.get("value") for each in properties
    }.items()
    failures = [(case.get("name"), failure.text) for case in tests for failure in case]
    assert failures == [("sincere/x plain gradient.embeddings", "Because.")]


class Reader(HTMLParser):
    """The tags of a page, each closed in its turn, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.tags, self.text = [], [], ""
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_the_page_has_the_matrix_the_plots_and_every_failure(made: report.Report) -> None:
    text = page.html(replace(made, says={"sincere/x": "Because <b>a & b</b>."}))
    read = Reader(text)
    for words in (made.sentence, "numpy 2; on cpu", "suite 1.0.0", made.machine["machine"], "Because <b>a & b</b>."):
        assert words in read.text
    told = {"what": "gradient.embeddings[0, 1]", "expected": "1.0", "got": "-1.0", "ratio": "1e9"}
    for label, words in told.items():
        assert f'<td data-label="{label}">{words}</td>' in text
    assert made.culprits[0] in read.text
    cells = [(cell["class"], cell["data-framework"]) for cell in read.of("td") if "class" in cell]
    assert cells == [("fail", "numpy"), ("pass", "numpy")]
    assert [(dot["cx"], dot["class"]) for dot in read.of("circle")] == [("100.0%", "dot bad"), ("49.54%", "dot")]
    assert len(read.of("rect")) == 3
    assert len(read.of("details")) == len(made.failures)
    assert "Nothing" not in Reader(page.html(replace(made, results=made.results[2:]))).text.partition("Failures")[0]


def test_the_page_has_the_transforms_of_each_framework(made: report.Report) -> None:
    name, transform = next(iter(transforms.transforms_of("torch").items()))
    of_torch = replace(made.results[0], framework="torch", profile="transforms", engine="auto", route=name)
    failed = replace(of_torch, status="fail", row="clip", ratio=7.0)
    read = Reader(page.html(replace(made, results=(*made.results, of_torch, failed))))
    assert "Transforms of torch" in read.text
    assert transform.title in read.text
    assert [cell["class"] for cell in read.of("td") if "class" in cell][2:] == ["pass", "fail"]
    assert "Transforms" not in Reader(page.html(made)).text


def test_the_page_needs_nothing_else_and_filters_by_what_is_there(made: report.Report) -> None:
    text = page.html(made)
    assert "http" not in text
    read = Reader(text)
    assert not [tag for tag, attributes in read.tags if "src" in attributes or tag == "link"]
    assert [each["name"] for each in read.of("select")] == json.loads(re.search(r"names = (\[.*?\]);", text).group(1))
    rows = [each for each in read.of("tr") if "data-profile" in each]
    assert rows == [{"data-" + key: x for key, x in place.items()} for place in [FAILED]]


FAILED = {"row": "sincere", "framework": "numpy", "dtype": "float32", "engine": "dense", "profile": "core"}


def test_two_reports_are_compared(made: report.Report) -> None:
    before = report.earlier(json.loads(report.to_json(made)))
    assert report.moved(before, made) == []
    value, gradient, _ = made.results
    now = replace(made, results=(replace(value, status="error"), replace(gradient, status="pass")))
    assert report.moved(before, now) == [
        "sincere/x numpy float32 dense plain value: pass, now error",
        "sincere/x numpy float32 dense plain gradient.embeddings: fail, now pass",
        "clip/x numpy float32 dense plain value: pass, now not asked",
    ]
    with pytest.raises(ss.OptionError, match="this one has 'format'"):
        report.earlier({})


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
    assert sorted(path.name for path in (tmp_path / "here").iterdir()) == [
        "badge.json",
        *(f"report.{kind}" for kind in ("html", "json", "md", "xml")),
    ]


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
    one = command("losses", "siglip", cwd=tmp_path, module="sincere_spec").stdout
    assert one.startswith("siglip_loss(a, b, ")
    assert "sincere_loss" not in one
    assert command("--version", cwd=tmp_path, module="sincere_spec").stdout == f"sincere-spec {ss.__version__}\n"
    unknown = command("losses", "siglp", cwd=tmp_path, module="sincere_spec.cli")
    assert (unknown.returncode, 'did you mean "siglip"?' in unknown.stderr) == (2, True)
    entries = json.loads(command("losses", "--json", cwd=tmp_path, module="sincere_spec.cli").stdout)
    assert [entry["name"] for entry in entries] == [f"{name}_loss" for name in ss.losses.__all__]
    for entry in entries:
        assert entry["formula"]
        assert entry["stages"]
        assert ss.PairLoss.from_dict(entry["record"])


@pytest.mark.parametrize("missing", ["typer", "rich", "numpy", "jinja2"])
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


# --- the terminal ---


@pytest.mark.parametrize("width", [60, 80, 100, 120, 160])
@pytest.mark.parametrize("choice", [{}, {"dtypes": ("float32",), "engines": ("dense",)}], ids=["all", "narrow"])
def test_the_matrix_is_cut_nowhere(width: int, choice: dict[str, tuple[str, ...]]) -> None:
    names = ("numpy", "array_api_strict", "torch")
    columns = tuple(
        report.Column(name, dtype, engine)
        for name in names
        for engine in choice.get("engines", ("dense", "tiled", "kernel"))
        for dtype in choice.get("dtypes", cases.DTYPES)
    )
    rows = ("sincere", "f_micl vincze_le_cam")
    found = {(row, column): report.Cell("error") for row in rows for column in columns}
    file = io.StringIO()
    console = Console(file=file, width=width)
    console.print(terminal.Matrix("The suite", rows, columns, found))
    text = file.getvalue()
    assert "…" not in text
    assert text.count("error") == len(found)
    assert max(map(len, text.splitlines())) <= width
    for name in names:
        assert name in text


def test_a_run_says_beforehand_how_long_it_takes_and_afterwards_what_was_not_asked(tmp_path: Path) -> None:
    done = command(*ONE, cwd=tmp_path)
    assert re.match(r"\d+ questions to 1 framework: about \d+ seconds", done.stdout)
    done = command(
        "--impl", "sincere_spec:sincere_loss", "--loss", "sincere", "--framework", "numpy", "--profile", "reduction",
        cwd=tmp_path,
    )  # fmt: skip
    assert "Not asked\n  numpy, " in done.stdout


def test_an_estimate_grows_with_what_is_asked() -> None:
    small, whole = runner.plan(SMALL), runner.plan(replace(SMALL, losses=(), profiles=()))
    assert 0 < runner.estimate(small, 1) < runner.estimate(whole, 1)
    assert set(runner.PACE) == set(frameworks.FRAMEWORKS)
