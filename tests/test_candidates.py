"""Other people's implementations: a right one passes, and a wrong one fails for the reason that a person would give."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sincere_spec.conformance import runner
from sincere_spec.conformance.candidates import Candidate
from sincere_spec.conformance.programs import Executable
from sincere_spec.conformance.report import Report, to_json
from sincere_spec.errors import OptionError

MODULE = '''
import os, sys, types
import numpy as np

def right(z, y, t):
    """SINCERE, from its paper."""
    size = np.abs(z).max(axis=1, keepdims=True)
    z = z / np.where(size > 0, size, 1)
    norm = np.sqrt((z * z).sum(axis=1, keepdims=True))
    z = z / np.where(norm > 0, norm, 1)
    a = z @ z.T / z.dtype.type(t)
    same, me = y[:, None] == y[None, :], np.eye(len(y), dtype=bool)
    positive, negative = same & ~me, ~same
    losses = []
    for i in range(len(y)):
        if positive[i].any() and negative[i].any():
            peak = a[i, negative[i]].max()
            noise = np.log(np.exp(a[i, negative[i]] - peak).sum()) + peak
            losses.append(np.logaddexp(z.dtype.type(0), noise - a[i, positive[i]]).mean())
    return np.asarray(np.mean(losses) if losses else 0.0, dtype=z.dtype)

def with_positives_in_the_noise(z, y, t):
    """SupCon, by the name of SINCERE."""
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    a = z @ z.T / t
    me = np.eye(len(y), dtype=bool)
    same = (y[:, None] == y[None, :]) & ~me
    rows = np.log(np.where(me, 0, np.exp(a)).sum(axis=1, keepdims=True)) - a
    return np.asarray((np.where(same, rows, 0).sum(axis=1) / same.sum(axis=1)).mean(), dtype=z.dtype)

def keyword(embeddings, *, classes, tau):
    return right(embeddings, classes, tau)

def with_memory(z, y, t, keys=None, key_labels=None):
    assert keys is None and key_labels is None
    return right(z, y, t)

def warm(z, y):
    return right(z, y, 0.1)

def halves(z, y, t):
    return right(z, y, t).astype("float16")

def row_losses(z, y, t):
    return z.sum(axis=1)

def nonsense(z, y, t):
    return "a loss"

def chatty(z, y, t):
    print("nonsense")
    os.write(1, b"{}\\n")
    return right(z, y, t)

def leaves(z, y, t):
    sys.exit(0)

def raises(z, y, t):
    raise ValueError("no such batch")

def crash(z, y, t):
    os.abort()

def crash_at_scale(z, y, t):
    return crash(z, y, t) if len(z) > 100 else right(z, y, t)

def greedy(z, y, t):
    return np.zeros(2**31).sum()

def hangs(z, y, t):
    import pathlib, time
    pathlib.Path("hanging").write_text(str(os.getpid()))
    time.sleep(600)

number = 3
'''


@pytest.fixture(autouse=True)
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "theirs.py").write_text(MODULE, encoding="utf-8")
    (tmp_path / "with_torch.py").write_text(
        "import sys\nsys.modules['torch'] = sys\ndef f(z, y, t): ...\n", encoding="utf-8"
    )
    monkeypatch.chdir(tmp_path)


def judged(
    target: str, call: str = "", loss: str = "sincere", timeout: float = 60.0, profiles: tuple[str, ...] = ("core",)
) -> Report:
    candidate = Candidate(target, call)
    request = runner.Request(
        frameworks=("numpy",), losses=(loss,), profiles=profiles, candidate=candidate, timeout=timeout
    )
    return runner.run(request)


@pytest.mark.parametrize(
    ("target", "call"),
    [
        ("theirs:right", ""),
        ("theirs:right", "f(z, y, t)"),
        ("theirs:keyword", "f(z, classes=y, tau=t)"),
        ("theirs:with_memory", "f(z, y, t, keys, key_labels)"),
        ("theirs:chatty", ""),
        ("theirs:number", "theirs.right(z, numpy.asarray(y), t)"),
    ],
)
def test_a_right_implementation_passes(target: str, call: str) -> None:
    made = judged(target, call)
    assert made.exit_status == 0, made.culprits
    assert made.sentence.startswith("PASS: ")
    assert f"{target} as sincere" in made.sentence
    assert json.loads(to_json(made))["implementation"] == target


def test_what_it_cannot_be_asked_is_unsupported_and_not_failed() -> None:
    found = {result.reason for result in judged("theirs:right").results if result.status == "unsupported"}
    assert "the rows are not to be normalised, and its own are judged as normalised" in found
    assert "the views of a sample come as one array, and its own rows as [n, d]" in found
    own = judged("theirs:warm", "f(z, y)").results
    assert {result.reason for result in own if result.status == "unsupported"} > {"its call takes no temperature"}
    memory = runner.Request(
        frameworks=("numpy",), losses=("sincere",), profiles=("queue",), candidate=Candidate("theirs:right")
    )
    assert runner.run(memory).results[0].reason.startswith("its call takes no ")


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("theirs:with_positives_in_the_noise", "wrong"),
        ("theirs:row_losses", "shape () was expected, and (12,) came"),
        ("theirs:halves", "float32 was expected, and float16 came"),
        ("theirs:nonsense", "a numpy array was expected, and str came"),
        ("theirs:raises", "ValueError: no such batch"),
        ("theirs:crash", "died of SIGABRT"),
        ("theirs:leaves", "ended with status 0 before it was done"),
        ("theirs:greedy", "Unable to allocate"),
    ],
)
def test_a_wrong_implementation_is_caught_with_the_reason(target: str, reason: str) -> None:
    made = judged(target)
    assert made.exit_status == 1
    assert any(reason in result.reason for result in made.results), {result.reason for result in made.results}
    assert made.culprits[0].startswith("sincere: ")


def test_one_that_crashes_at_large_batches_has_answered_all_others() -> None:
    made = judged("theirs:crash_at_scale", profiles=("core", "large"))
    assert {result.status for result in made.results if result.profile == "core"} == {"pass", "unsupported"}
    assert {result.status for result in made.results if result.profile == "large"} == {"error"}


def test_one_that_hangs_is_ended() -> None:
    made = judged("theirs:hangs", timeout=2.0)
    assert made.exit_status == 1
    assert "said nothing for 2 s" in made.results[-1].reason


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("theirs:absent", "cannot be imported: AttributeError"),
        ("nowhere:f", "cannot be imported: ModuleNotFoundError"),
        ("theirs:number", "is a int, which cannot be called"),
        ("with_torch:f", "imports torch, and is judged in numpy"),
    ],
)
def test_what_cannot_be_called_is_not_judged(target: str, reason: str) -> None:
    made = judged(target)
    assert made.exit_status == 2
    assert reason in made.sentence


def test_bad_requests_are_refused_before_anything_runs() -> None:
    with pytest.raises(OptionError, match=r"package\.module:callable; got 'theirs'"):
        Candidate("theirs")
    with pytest.raises(OptionError, match="call must be an expression"):
        Candidate("theirs:right", "f(z")
    candidate = Candidate("theirs:right")
    with pytest.raises(runner.CannotJudge, match="leave out --engine"):
        runner.plan(runner.Request(engines=("tiled",), candidate=candidate))
    with pytest.raises(runner.CannotJudge, match="leave out --framework"):
        runner.plan(runner.Request(frameworks=("torch",), candidate=Executable("true")))
    with pytest.raises(runner.CannotJudge, match="in one framework"):
        runner.plan(runner.Request(losses=("sincere",), candidate=candidate))
    with pytest.raises(runner.CannotJudge, match=r"one loss; name one of f_micl kl"):
        runner.plan(runner.Request(frameworks=("numpy",), losses=("f_micl",), candidate=candidate))


def test_the_command_judges_one() -> None:
    command = [sys.executable, "-m", "sincere_spec.conformance", "--impl", "theirs:right", "--loss", "sincere"]
    options = ["--framework", "numpy", "--profile", "core"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "theirs:right as sincere" in done.stdout


# --- what cannot be judged: one line, exit status 2, and no report ---

VERIFY = [sys.executable, "-m", "sincere_spec.conformance"]
WITHOUT_JAX = "import sys; sys.modules['jax'] = None; from sincere_spec import cli; cli.verify_alone()"
MINE = ("--impl", "theirs:right", "--loss", "sincere", "--framework", "numpy")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("--loss", "supcn"), 'did you mean "supcon"?'),
        (("--suite", "nowhere"), "nowhere: no files of the suite are here (expected <profile>/<loss>.json)"),
        (("--suite", "suite"), "sincere/odd: value is missing"),
        (("--compare", "theirs.py"), "theirs.py is no report.json: "),
        (("--compare", "other.json"), "other.json is no report.json: expected a report of format 1; got 7."),
        ((*MINE, "--reduction", "means"), 'did you mean "mean"?'),
        (("--reduction", "pairs"), "--reduction says which one --impl has"),
        ((*MINE[:2], *MINE[4:]), "an implementation is judged as one loss; name one of sincere, "),
    ],
)
def test_bad_input_is_refused_in_one_line(command: tuple[str, ...], message: str) -> None:
    folder = Path("suite", "core")
    folder.mkdir(parents=True)
    case = dict.fromkeys(("id", "says", "loss", "options", "normalize", "reduction", "arguments", "cotangent"), "odd")
    document = {"suite": "1.0.0", "profile": "core", "loss": "sincere", "cases": [case | {"id": "sincere/odd"}]}
    (folder / "sincere.json").write_text(json.dumps(document), encoding="utf-8")
    Path("other.json").write_text('{"format": 7}', encoding="utf-8")
    assert_refused([*VERIFY, *command], message)


def test_a_framework_that_is_missing_is_said_in_one_line() -> None:
    command = [sys.executable, "-c", WITHOUT_JAX, "--framework", "jax"]
    assert_refused(command, "jax is not installed; try: pip install 'sincere-spec[jax]'")


def assert_refused(command: list[str], message: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("sincere-spec verify: ")
    assert message in line
    assert not done.stdout
    assert not Path("conformance-report").exists()


def test_one_that_imports_another_framework_is_said_in_the_last_line() -> None:
    command = [*VERIFY, "--impl", "with_torch:f", "--profile", "core", *MINE[2:]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("NOT JUDGED: with_torch:f imports torch, and is judged in numpy. (")
    assert not done.stderr


def test_an_interrupted_run_leaves_no_report_and_no_process() -> None:
    command = [*VERIFY, "--impl", "theirs:hangs", "--profile", "core", *MINE[2:]]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        while not Path("hanging").exists():
            assert running.poll() is None
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=60)
    assert running.returncode == 2
    assert errors == "sincere-spec verify: interrupted; no report was written.\n"
    assert not Path("conformance-report").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int(Path("hanging").read_text(encoding="utf-8")), 0)


# --- programs -------------------------------------------------------------------------------------------------------------------

NODE = shutil.which("node")
EXAMPLE = Path(runner.__file__).resolve().parent / "examples" / "program.mjs"


def spoken(command: str, timeout: float = 60.0, **choice: tuple[str, ...]) -> Report:
    return runner.run(runner.Request(candidate=Executable(command, timeout), **choice))


@pytest.mark.skipif(NODE is None, reason="node is not installed")
def test_a_right_program_in_another_language_passes() -> None:
    made = spoken(f"node {shlex.quote(str(EXAMPLE))}", losses=("sincere", "clip"))
    assert made.exit_status == 0, made.culprits
    assert made.counts["pass"] > 200
    assert {result.reason for result in made.results if result.row == "clip"} == {"only SINCERE, without a margin"}


LOOP = "import json, sys\nfor line in sys.stdin:\n    question = json.loads(line)\n    "


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (LOOP + 'print(\'{"value": 0.5, "gradient": {}}\', flush=True)', "no gradient came"),
        (LOOP + 'print(\'{"value": [0.5, 0.5], "gradient": {}}\', flush=True)', "shape () was expected, and (2,) came"),
        (LOOP + 'print(\'{"value": "much"}\', flush=True)', "value: numbers were expected, and much came"),
        (LOOP + "print('{\"value\": 0.5}', flush=True)", "a gradient by argument was expected"),
        (LOOP + "print('half', flush=True)", "one line with a JSON object was expected, and 'half' came"),
        ("raise SystemExit(3)", "the program ended with status 3"),
        ("import time; time.sleep(600)", "said nothing for 2 s"),
    ],
)
def test_a_wrong_program_is_caught_with_the_reason(code: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(code, encoding="utf-8")
    command = f"{shlex.quote(sys.executable)} program.py"
    made = spoken(command, timeout=2.0, losses=("sincere",), profiles=("core",), dtypes=("float64",))
    assert made.exit_status == 1
    assert any(reason in result.reason for result in made.results), {result.reason for result in made.results}


def test_a_program_that_is_not_there_is_not_judged() -> None:
    made = spoken("no-such-program", losses=("sincere",), profiles=("core",))
    assert made.exit_status == 2
    assert "no-such-program cannot be started" in made.sentence


def test_the_command_judges_a_callable_or_a_program_and_not_both() -> None:
    command = [sys.executable, "-m", "sincere_spec.conformance", "--impl", "theirs:right", "--exec", "true"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert "give one of them" in done.stderr
