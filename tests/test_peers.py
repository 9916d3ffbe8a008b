"""Other packages' losses: each is named by how it is called, judged like anyone's, and told with what it fails."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sincere_spec.conformance import candidates, frameworks, judge, questions, runner, verdicts
from sincere_spec.conformance.candidates import Candidate
from sincere_spec.conformance.judge import Result
from sincere_spec.conformance.peers import PEERS, Peer
from sincere_spec.errors import OptionError

DOCS = Path(__file__).parents[1] / "docs"

MODULE = """
import numpy as np

def nt_xent(a, b, t):
    z = np.concatenate([a, b])
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    s, n = z @ z.T / z.dtype.type(t), len(a)
    np.fill_diagonal(s, -np.inf)
    top = s.max(axis=1)
    rows = np.log(np.exp(s - top[:, None]).sum(axis=1)) + top - s[np.arange(2 * n), (np.arange(2 * n) + n) % (2 * n)]
    return rows.mean()

def doubled(a, b, t):
    return a.dtype.type(2) * nt_xent(a, b, t)

def raises(a, b, t):
    raise ValueError("no")
"""


@pytest.fixture(autouse=True)
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "another.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Peer, "version", property(lambda peer: "" if peer.distribution == "absent" else "1.2"))


def peer(name: str, distribution: str = "another", call: str = "f(view_0, view_1, t)") -> Peer:
    return Peer(name, distribution, "numpy", "nt_xent", Candidate(f"another:{name}", call))


def told(*which: Peer) -> verdicts.Field:
    return verdicts.judged(which, runner.Request(profiles=("core", "reduction"), dtypes=("float32",)), "the command")


def test_peers_are_judged_and_the_smallest_input_that_they_fail_is_shown() -> None:
    seen: list[str] = []
    request = runner.Request(profiles=("core",), dtypes=("float64",))
    asked = [peer("nt_xent"), peer("doubled"), peer("raises"), peer("nowhere"), peer("nt_xent", "absent")]
    field = verdicts.judged(asked, request, "the command", lambda verdict: seen.append(verdict.title))
    right, doubled, raises, nowhere, absent = field.verdicts
    assert seen == [verdict.title for verdict in field.verdicts]
    assert (right.failed, right.passed > 0, right.version) == ((), True, "1.2")
    assert right.ordinary == (right.passed, right.passed)
    assert doubled.ordinary == (0, right.passed)
    assert {failed.kind for failed in doubled.failed} == {"another number"}
    assert {failed.kind for failed in raises.failed} == {"raises"}
    assert "cannot be imported" in nowhere.absent
    assert absent.absent == "not installed"
    assert field.exit_status == 1
    assert replace(field, verdicts=(right, absent)).exit_status == 0
    assert replace(field, verdicts=(nowhere, absent)).exit_status == 2

    read = json.loads(verdicts.to_json(field))
    assert [len(found.get("failures", ())) for found in read["peers"]] == [
        0,
        len(doubled.failed),
        len(raises.failed),
        0,
        0,
    ]
    page = verdicts.markdown(field)
    passed, asked = doubled.levels["core"]
    row = "| another 1.2 | `doubled` | `nt_xent_loss(view_0, view_1, temperature=t)` |"
    assert f"{row} {passed} of {asked} |  |  |" in page
    assert "Not run: absent nt_xent: not installed." in page
    assert right.levels == {"core": (right.passed, right.passed)}
    assert "Conforms: core." in page
    assert doubled.peer.command in page


def test_the_smallest_input_is_no_empty_batch_if_there_is_another() -> None:
    request = runner.Request(profiles=("core", "degenerate"), dtypes=("float32",))
    (verdict,) = verdicts.judged([peer("doubled")], request, "the command").verdicts
    sizes = {failed.question.id: failed.size for failed in verdict.failed}
    assert 0 in sizes.values()
    assert verdict.smallest.size == min(size for size in sizes.values() if size) < max(sizes.values())


def test_what_a_call_cannot_express_is_not_asked() -> None:
    (verdict,) = told(peer("nt_xent")).verdicts
    assert "its call takes no view_2" in verdict.unsupported
    assert 'the reduction is "none", and its own is judged as "mean"' in verdict.unsupported


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"status": "error", "reason": "ValueError: no"}, "raises"),
        ({"status": "fail", "reason": "no gradient came"}, "no gradient"),
        ({"status": "fail", "reason": "float32 was expected, and float16 came"}, "shape or type"),
        ({"status": "fail", "reason": "not finite", "ratio": float("inf"), "got": float("nan")}, "NaN or infinity"),
        ({"status": "fail", "reason": "wrong", "ratio": 1e3, "got": 1.0}, "fewer digits"),
        ({"status": "fail", "reason": "wrong", "ratio": 1e6, "got": 1.0}, "another number"),
        ({"status": "fail", "reason": "wrong", "ratio": 1e30, "expected": 0.0, "got": 3e-10}, "fewer digits"),
        ({"status": "fail", "reason": "wrong", "ratio": 1e6, "got": 0.0}, "zero"),
    ],
)
def test_a_failure_is_named_by_what_came(fields: dict, kind: str) -> None:
    place = ("sincere/x", "sincere", "core", "numpy", "float32", "dense", "autograd", "value")
    assert verdicts.kind(Result(*place, **fields)) == kind


def test_peers_are_chosen_by_framework_and_loss() -> None:
    assert verdicts.chosen() == PEERS
    assert {one.framework for one in verdicts.chosen(frameworks=("jax",))} == {"jax"}
    assert {one.row for one in verdicts.chosen(losses=("supcon",))} == {"supcon out", "supcon in"}
    assert {one.row for one in verdicts.chosen(losses=("info_nce queue",))} == {"info_nce queue"}
    with pytest.raises(OptionError, match='did you mean "supcon"'):
        verdicts.chosen(losses=("supcn",))
    with pytest.raises(OptionError, match='did you mean "torch"'):
        verdicts.chosen(frameworks=("pytorch",))


@pytest.mark.parametrize("one", PEERS, ids=lambda one: f"{one.distribution} {one.name}")
def test_each_of_the_catalogue_names_a_row_and_arguments_of_the_suite(one: Peer) -> None:
    rows = questions.ordinary(questions.of_suite())
    assert one.row in rows
    taken = one.candidate.names
    assert taken >= candidates.usual(rows[one.row]) - {"temperature"}
    assert "temperature" in taken


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--impl", "another:nt_xent"), "--peers takes --framework, --loss, --profile and --dtype"),
        (("--framework", "numpy"), "no package of the catalogue has this loss in this framework"),
        (("--loss", "ntxent"), 'did you mean "nt_xent"?'),
    ],
)
def test_the_command_refuses_what_cannot_be_asked(options: tuple[str, ...], message: str, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "sincere_spec.conformance",
        "--peers",
        "--report",
        str(tmp_path / "here"),
        *options,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "here").exists()


# --- reductions -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "reduction", "asked"),
    [
        ("sincere/ordinary", "pairs", True),  # four classes of three
        ("sincere/ordinary", "batch", True),
        ("sincere/ordinary", "sum", False),
        ("sincere/unequal-classes", "pairs", False),
        ("sincere/unequal-classes", "batch", True),
        ("sincere/one-singleton", "batch", False),
        ("sincere/all-singletons", "pairs", True),  # no row counts: every average is 0
        ("nt_xent/two-views", "pairs", True),
    ],
)
def test_an_average_that_is_the_same_is_asked(case: str, reduction: str, asked: bool) -> None:
    (question,) = (question for question in questions.of_suite() if question.id == case)
    assert candidates.weighs_alike(question, reduction) is asked


@pytest.mark.parametrize("one", PEERS, ids=lambda one: one.name)
def test_relations_are_not_asked_of_a_call_without_their_words(one: Peer) -> None:
    theirs = candidates.Foreign(frameworks.start("numpy"), one.candidate, lambda *_, **__: pytest.fail("it was called"))
    related = [question for question in questions.of_suite(profiles=[questions.RELATIONS]) if question.row == one.row]
    for question in related:
        (result,) = judge.ask(theirs, candidates.Foreign.asked(question), "float64", "dense")
        assert result.status == "unsupported", (question.id, result.reason)


def test_the_committed_page_is_of_the_committed_data() -> None:
    read = json.loads((DOCS / "peers.json").read_text(encoding="utf-8"))
    page = (DOCS / "peers.md").read_text(encoding="utf-8")
    known = {(one.distribution, one.name): one for one in PEERS}
    assert {(found["distribution"], found["name"]) for found in read["peers"]} == set(known)
    for found in read["peers"]:
        one = known[found["distribution"], found["name"]]
        assert (found["command"], found["same_as"]) == (one.command, one.same_as)
        if "absent" not in found:
            row = f"| {found['distribution']} {found['version']} | `{found['name']}` | `{found['same_as']}` |"
            levels = " | ".join("{passed} of {asked}".format(**level) for level in found["levels"].values())
            assert f"{row} {levels} |" in page
