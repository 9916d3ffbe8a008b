"""Other people's implementations: a right one passes, and a wrong one fails for the reason that a person would give."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from xml.dom import minidom

import pytest

from sincere_spec.conformance import frameworks, judge, questions, runner
from sincere_spec.conformance.candidates import Candidate, Foreign
from sincere_spec.conformance.programs import Executable, _request
from sincere_spec.conformance.report import Report, to_json
from sincere_spec.conformance.text import printable
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


RELATED = """
import numpy as np

def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)

def supcon(embeddings, labels=None, temperature=0.1, *, positive_weights=None):
    z = unit(embeddings)
    weights = (labels[:, None] == labels) * 1.0 if positive_weights is None else positive_weights
    me = np.eye(len(z), dtype=bool)
    a, weights = z @ z.T / temperature, np.where(me, 0.0, weights)
    rows = np.log(np.where(me, 0.0, np.exp(a)).sum(axis=1)) - (weights * a).sum(axis=1) / np.maximum(weights.sum(axis=1), 1e-9)
    return rows[weights.sum(axis=1) > 0].mean().astype(embeddings.dtype)

def masked(features, mask, temperature):
    return supcon(features, None, temperature, positive_weights=mask)

def plain_supcon(embeddings, labels, temperature):
    return supcon(embeddings, labels, temperature)

def clip(a, b, temperature, ignore=None):
    s = unit(a) @ unit(b).T / temperature
    s = s if ignore is None else np.where(ignore, -np.inf, s)
    rows = [np.log(np.exp(x).sum(axis=1)) - np.diag(x) for x in (s, s.T)]
    rows = np.concatenate([x[np.isfinite(x)] for x in rows])
    return rows.mean().astype(a.dtype)

def plain_clip(x, y, t):
    return clip(x, y, t)

def queued(queries, positives, negatives, temperature):
    assert negatives.ndim == 2
    q, p, n = unit(queries), unit(positives), unit(negatives)
    own = (q * p).sum(axis=1, keepdims=True)
    a = np.concatenate([own, q @ n.T], axis=1) / temperature
    return (np.log(np.exp(a).sum(axis=1)) - a[:, 0]).mean().astype(q.dtype)
"""


def answers(target: str, call: str, *cases: str) -> dict[str, str]:
    """What becomes of some cases: the status of the value, and the reason of one that is not asked."""
    Path("related.py").write_text(RELATED, encoding="utf-8")
    candidate = Candidate(f"related:{target}", call)
    theirs = Foreign(frameworks.start("numpy"), candidate, candidate.load("numpy"))
    suite = {question.id: question for question in questions.of_suite()}
    found = {}
    for case in cases:
        (result,) = judge.ask(theirs, Foreign.asked(replace(suite[case], gradient=None)), "float64", "dense")
        found[case] = result.reason or result.status
    return found


ORDINARY, WEIGHTED, TEACHER = "supcon/out-ordinary", "supcon/out-weights", "supcon/out-teacher"


def test_a_relation_goes_by_its_keyword_and_without_it_is_not_asked() -> None:
    assert set(answers("supcon", "", ORDINARY, WEIGHTED, TEACHER).values()) == {"pass"}
    found = answers("supcon", "f(z, y, t, positive_weights=positive_weights)", ORDINARY, WEIGHTED)
    assert set(found.values()) == {"pass"}  # what a case has not is None
    assert answers("masked", "f(z, positive_weights, t)", TEACHER) == {TEACHER: "pass"}
    for target, call in (("plain_supcon", ""), ("plain_supcon", "f(z, y, t)"), ("supcon", "f(z, y, t)")):
        found = answers(target, call, ORDINARY, WEIGHTED, "supcon/out-overlap", "supcon/out-where-none")
        assert found.pop(ORDINARY) == "pass"
        assert all("its call takes no" in reason or "reduction" in reason for reason in found.values()), found
    found = answers("clip", "", "clip/ordinary", "clip/ignore", "clip/groups", "clip/guide")
    assert [found.pop(case) for case in ("clip/ordinary", "clip/ignore")] == ["pass", "pass"]
    assert found["clip/groups"] == "its call takes no groups"
    assert found["clip/guide"] == "its call takes no guide_a, guide_b, margin"
    found = answers("plain_clip", "", "clip/ordinary", "clip/ignore", "clip/where")
    assert list(found.values()) == ["pass", "its call takes no ignore", "its call takes no where"]


def test_a_program_is_told_of_relations_among_its_arguments() -> None:
    """Booleans by row, and weights as an array; of neither is a gradient wanted."""
    suite = {question.id: question for question in questions.of_suite()}
    told = json.loads(json.dumps(_request(suite["supcon/out-weights-ignore"], "float64")))
    assert list(told["arguments"]) == ["embeddings", "positive_weights", "ignore"]
    assert told["arguments"]["ignore"][0][0] is False
    assert told["arguments"]["positive_weights"]["shape"] == [7, 7]
    assert set(suite["supcon/out-weights-ignore"].gradient or {}) == {"embeddings", "temperature"}
    told = _request(suite["info_nce/guide"], "float64")
    assert told["options"]["margin"] == 0.375
    assert set(told["arguments"]) == {"queries", "positives", "guide_queries", "guide_positives"}


def test_every_relation_is_judged_or_not_asked_and_never_failed() -> None:
    """Of implementations that know none: whatever their signature, and the order of their arguments."""
    related = [question for question in questions.of_suite() if question.profile == questions.RELATIONS]
    for target, loss in (("plain_supcon", "supcon"), ("plain_clip", "clip"), ("queued", "info_nce")):
        asked = [question.id for question in related if question.loss == loss]
        assert len(asked) > 5
        said = answers(target, "", *asked).items()
        assert not {case: x for case, x in said if not re.search("its call takes no|the reduction is", x)}
    assert answers("queued", "", "info_nce/queue")["info_nce/queue"] == "pass"


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
        _, errors = running.communicate(timeout=200)
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
        (LOOP + "print('half', flush=True)", "printed what is no JSON object: 'half'"),
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


# --- what others print, raise and leave behind ----------------------------------------------------------------------------------

FOREIGN = """
import os, subprocess, sys, pathlib

def raises(z, y, t):
    raise ValueError("\\x1b[31mred\\x1b[0m <script>alert(1)</script> [link](x) `code` | \\x00\\x0c\\ufffe\\u202e " + chr(0xDCE9))

def says_nothing(z, y, t):
    class Dumb(Exception):
        def __str__(self):
            raise RuntimeError
    raise Dumb

def long(z, y, t):
    raise ValueError("x" * 10**8)

def floods(z, y, t):
    part = b"x" * 2**20
    for _ in range(300):
        os.write(2, part)
    os.write(2, b"\\nthe last words\\n")
    os._exit(3)

def breeds(z, y, t):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    with open("children", "a") as file:
        print(child.pid, file=file)
    raise ValueError("left alone")

def spins(z, y, t):
    breeds_one = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    pathlib.Path("running").write_text(f"{os.getpid()} {breeds_one.pid}")
    while True:
        pass
"""
VERIFY_FOREIGN = ("--loss", "sincere", "--framework", "numpy", "--dtype", "float32", "--profile", "core")


@pytest.fixture
def foreign() -> None:
    Path("foreign.py").write_text(FOREIGN, encoding="utf-8")


def alive(process: int) -> bool:
    """Whether a process still runs; one that has ended and is not waited for does not."""
    try:
        os.kill(process, 0)
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    except (ProcessLookupError, FileNotFoundError):
        return False


def gone(processes: list[int]) -> bool:
    """Whether they have ended; what was killed needs a moment."""
    for _ in range(200):
        if not any(map(alive, processes)):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(
    "text", ["\x1b[31mred\x1b[0m", "caf\udce9", "\x00\x07\x7f\x9b", "\ufffe\uffff", "\u202ereversed", "a\nb\tc"]
)
def test_any_text_becomes_one_printable_line(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert shown.encode("utf-8").decode("utf-8") == shown
    assert minidom.parseString(f"<a>{shown}</a>")
    assert printable("größer, 文字, 🙂 and `x`") == "größer, 文字, 🙂 and `x`"


@pytest.mark.usefixtures("foreign")
def test_foreign_text_is_shown_and_saved_in_every_view() -> None:
    command = [*VERIFY, "--impl", "foreign:raises", *VERIFY_FOREIGN]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    assert done.returncode == 1, done.stderr
    assert not done.stderr
    shown = done.stdout.decode("utf-8")
    assert r"\x1b[31mred" in shown
    assert r"\udce9" in shown
    assert not [character for character in shown if not character.isprintable() and character != "\n"]
    folder = Path("conformance-report")
    assert minidom.parse(str(folder / "report.xml"))
    texts = {kind: (folder / f"report.{kind}").read_text(encoding="utf-8") for kind in ("json", "html", "md", "xml")}
    for kind, text in texts.items():
        assert not [character for character in text if not character.isprintable() and character != "\n"], kind
        assert r"\x1b[31mred" in text.replace("\\\\", "\\"), kind
    assert "<script>alert" not in texts["html"]
    outside_code = re.sub(r"`[^`\n]*`", "", texts["md"])
    assert "<script>" not in outside_code
    assert "[link]" not in outside_code


@pytest.mark.usefixtures("foreign")
def test_an_error_without_or_with_a_long_message_is_told() -> None:
    assert any("its message raises RuntimeError" in result.reason for result in judged("foreign:says_nothing").results)
    assert all(len(result.reason) < 400 for result in judged("foreign:long").results)


@pytest.mark.usefixtures("foreign")
def test_a_flood_on_standard_error_costs_little_and_its_end_is_told() -> None:
    code = (
        "import sys; from sincere_spec import cli\n"
        "try: cli.verify_alone()\n"
        # Not ru_maxrss, which begins with what the process that started this one has held.
        "finally: print(*[x for x in open('/proc/self/status') if x.startswith('VmHWM')], file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, "--impl", "foreign:floods", *VERIFY_FOREIGN]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 1
    assert "ended with status 3 before it was done: the last words" in done.stdout
    assert int(done.stderr.split()[-2]) < 250 * 1024  # kB, of the 300 MB that came


@pytest.mark.usefixtures("foreign")
def test_what_an_implementation_started_ends_with_it() -> None:
    made = judged("foreign:breeds")
    assert "left alone" in made.results[0].reason
    assert gone([int(line) for line in Path("children").read_text(encoding="utf-8").splitlines()])


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.usefixtures("foreign")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_nothing(number: int, tmp_path: Path) -> None:
    """No process, grandchildren among them, and no folder; of one that is killed, no process."""
    (temporary := tmp_path / "temporary").mkdir()
    command = [*VERIFY, "--impl", "foreign:spins", *VERIFY_FOREIGN]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as running:
        while not Path("running").exists() or not Path("running").read_text(encoding="utf-8"):
            assert running.poll() is None
            time.sleep(0.05)
        running.send_signal(number)
        _, errors = running.communicate(timeout=200)
    assert gone([int(word) for word in Path("running").read_text(encoding="utf-8").split()])
    if number != signal.SIGKILL:
        assert running.returncode == 2
        assert "no report was written" in errors
        assert not list(temporary.iterdir())


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (
            "import sys\nsys.stdin.readline()\nfor _ in range(100): sys.stdout.write('x' * 2**20)",
            "printed a line of more than 16 MB",
        ),
        (LOOP + "print('[' * 200000 + ']' * 200000, flush=True)", "printed what is no JSON object"),
        ("while True: print('{}')", "numbers were expected, and None came"),
        ("x = bytearray(20 * 2**30)", "MemoryError"),
    ],
    ids=["line", "depth", "flood", "memory"],
)
def test_a_program_is_bounded(code: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(code, encoding="utf-8")
    command = f"{shlex.quote(sys.executable)} program.py"
    made = spoken(command, timeout=20.0, losses=("sincere",), profiles=("core",), dtypes=("float64",))
    assert made.exit_status == 1
    assert any(reason in result.reason for result in made.results), {result.reason for result in made.results}


@pytest.mark.parametrize(
    "words",
    [
        ("--exec", ""),
        ("--impl", " "),
        ("--impl", "theirs:right", "--call", ""),
        ("--loss", ""),
        ("--framework", "numpy,"),
        ("--report", ""),
        ("--compare", ""),
        ("--suite", ""),
    ],
    ids=" ".join,
)
def test_an_unset_variable_is_refused(words: tuple[str, ...]) -> None:
    assert_refused([*VERIFY, *words], "is a variable unset?")


@pytest.mark.parametrize("option", ["--compare", "--suite"])
def test_json_that_is_nested_too_deeply_is_refused(option: str) -> None:
    place = Path("deep.json") if option == "--compare" else Path("deep", "core", "sincere.json")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("[" * 200_000, encoding="utf-8")
    assert_refused([*VERIFY, option, place.parts[0]], "nested too deeply")


def test_a_place_that_cannot_be_written_is_refused_before_anything_runs() -> None:
    Path("taken").write_text("a file", encoding="utf-8")
    Path("here", "report.xml").mkdir(parents=True)
    for place in ("taken", "taken/below", "/proc/nowhere", "here"):
        done = subprocess.run(
            [*VERIFY, "--impl", "theirs:hangs", *MINE[2:], "--report", place],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 2, place
        assert len(done.stderr.splitlines()) == 1
        assert not Path("hanging").exists()


def test_results_are_shown_where_they_cannot_be_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "from sincere_spec.conformance import files; from sincere_spec import cli\n"
        "def full(*_): raise OSError('disk full')\n"
        "cli.save = full; cli.verify_alone()"
    )
    command = [sys.executable, "-c", code, *MINE, "--profile", "core"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert done.stdout.splitlines()[-1].startswith("PASS: ")
    assert done.stderr == "sincere-spec verify: disk full\n"


@pytest.mark.parametrize("timeout", ["0", "-1", "nan"])
def test_a_time_that_is_none_is_refused(timeout: str) -> None:
    assert_refused([*VERIFY, "--timeout", timeout], "timeout must be a positive number of seconds")
