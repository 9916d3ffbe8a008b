"""Verdicts on the catalogue of other packages: each judged like anyone's implementation, told case by case."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import sincere_spec
from sincere_spec.conformance import cases
from sincere_spec.conformance.failures import cause, harm, kind
from sincere_spec.conformance.frameworks import FRAMEWORKS
from sincere_spec.conformance.judge import Result
from sincere_spec.conformance.peers import PEERS, Peer
from sincere_spec.conformance.questions import LEVELS, LOSSES, ORDINARY, Question
from sincere_spec.conformance.report import at_level, machine
from sincere_spec.conformance.runner import CannotJudge, Request, plan, run
from sincere_spec.conformance.text import in_code, in_markdown
from sincere_spec.conformance.tolerance import K
from sincere_spec.errors import unknown_choice

__all__ = ["Failed", "Field", "Verdict", "chosen", "judged", "markdown", "to_json"]


@dataclass(frozen=True)
class Failed:
    """A case that a peer fails: the worst of its verdicts, what kind of failure that is, and in which dtypes."""

    question: Question
    kind: str
    worst: Result
    dtypes: tuple[str, ...]

    @property
    def size(self) -> int:
        """How many numbers its arrays have."""
        return sum(x.size for x in self.question.arrays.values())

    @property
    def shapes(self) -> str:
        """The arrays, by name and shape."""
        return ", ".join(f"{name} {list(x.shape)}" for name, x in self.question.arrays.items())

    def to_dict(self) -> dict[str, Any]:
        """Its fields, ready for JSON."""
        place = {"quantity", "at", "expected", "got", "ratio", "reason"}
        what = {name: x for name, x in self.worst.to_dict().items() if name in place}
        known = {"case": self.question.id, "says": self.question.says, "kind": self.kind, "dtypes": self.dtypes}
        known |= {"cause": cause(self.worst)}
        return {**known, "dtype": self.worst.dtype, "shapes": self.shapes, **what}


@dataclass(frozen=True)
class Verdict:
    """What is known of a peer: how many cases it passes, which it fails, and what it could not be asked.

    `ordinary` has how many cases with nothing unusual about them it passes, and how many it was asked; `levels` the same of
    each level. `failed` has the most harmful first. `absent` says why it was not judged.
    """

    peer: Peer
    version: str
    absent: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    device: str = ""
    passed: int = 0
    ordinary: tuple[int, int] = (0, 0)
    levels: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    worst: float = 0.0
    failed: tuple[Failed, ...] = ()
    unsupported: Mapping[str, int] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The package and the name of the loss in it."""
        return f"{self.peer.distribution} {self.peer.name}"

    @cached_property
    def smallest(self) -> Failed | None:
        """The failing case with the fewest numbers; an empty batch only if there is no other."""
        return min(self.failed, key=lambda failed: (not failed.size, failed.size), default=None)

    @property
    def framework(self) -> str:
        """The framework that it ran in, its version and the device."""
        return f"{self.peer.framework} {self.versions.get(self.peer.framework, '')} on {self.device}"

    @property
    def few(self) -> int:
        """How many cases fail only in their last digits."""
        return sum(failed.kind == "fewer digits" for failed in self.failed)

    def to_dict(self) -> dict[str, Any]:
        """Its fields, ready for JSON."""
        peer, smallest = self.peer, self.smallest
        known: dict[str, Any] = {
            "distribution": peer.distribution,
            "version": self.version,
            "name": peer.name,
            "framework": peer.framework,
            "row": peer.row,
            "reduction": peer.candidate.reduction,
            "same_as": peer.same_as,
            "command": peer.command,
        }
        if self.absent:
            return {**known, "absent": self.absent}
        return {
            **known,
            "versions": dict(self.versions),
            "device": self.device,
            "passed": self.passed,
            "ordinary": {"passed": self.ordinary[0], "asked": self.ordinary[1]},
            "levels": {level: {"passed": passed, "asked": asked} for level, (passed, asked) in self.levels.items()},
            "worst_ratio_passed": self.worst,
            "failed": len(self.failed),
            "fewer_digits": self.few,
            "unsupported": dict(self.unsupported),
            "smallest": None if smallest is None else {**smallest.to_dict(), "input": _numbers(smallest.question)},
            "failures": [failed.to_dict() for failed in self.failed],
        }


@dataclass(frozen=True)
class Field:
    """The verdicts of one run, and on what it ran."""

    verdicts: tuple[Verdict, ...]
    suite: str
    dtypes: tuple[str, ...]
    machine: Mapping[str, str]
    command: str

    @property
    def exit_status(self) -> int:
        """0 if every peer that is installed passes, 1 if one does not, 2 if none could be judged."""
        if any(verdict.failed for verdict in self.verdicts):
            return 1
        return 0 if any(verdict.passed for verdict in self.verdicts) else 2


def chosen(frameworks: Sequence[str] = (), losses: Sequence[str] = ()) -> tuple[Peer, ...]:
    """The peers in some frameworks of some losses or rows, all of them if none are named; raises for an unknown word."""
    for name in frameworks:
        if name not in FRAMEWORKS:
            raise unknown_choice("framework", name, FRAMEWORKS)
    known = dict.fromkeys((*LOSSES, *(peer.row for peer in PEERS)))
    for loss in losses:
        if loss not in known:
            raise unknown_choice("loss", loss, known)
    return tuple(
        peer
        for peer in PEERS
        if (not frameworks or peer.framework in frameworks)
        and (not losses or peer.row in losses or peer.row.partition(" ")[0] in losses)
    )


def judged(
    peers: Iterable[Peer], request: Request, command: str, observe: Callable[[Verdict], None] = lambda verdict: None
) -> Field:
    """Judge peers one after another, each in a process of its own; of the request its profiles, dtypes and timeout count."""
    dtypes = request.dtypes or ("float32", "float64")
    verdicts = []
    for peer in peers:
        verdict = _judged(peer, request, dtypes)
        verdicts.append(verdict)
        observe(verdict)
    return Field(tuple(verdicts), cases.version(request.suite), dtypes, machine(), command)


def _judged(peer: Peer, request: Request, dtypes: tuple[str, ...]) -> Verdict:
    version = peer.version
    if not version:
        return Verdict(peer, "", "not installed")
    asked = Request(
        frameworks=(peer.framework,),
        losses=(peer.row,),
        profiles=request.profiles,
        dtypes=dtypes,
        timeout=request.timeout,
        suite=request.suite,
        candidate=peer.candidate,
    )
    try:
        todo = plan(asked)
    except CannotJudge as reason:
        return Verdict(peer, version, str(reason))
    made = run(asked)
    results = [at_level(result) for result in made.results]
    by_case: dict[str, list[Result]] = {}
    for result in results:
        by_case.setdefault(result.case, []).append(result)
    skipped = {result.reason for result in made.results if result.status == "skipped"}
    if skipped:
        return Verdict(peer, version, "; ".join(sorted(skipped)))
    silent = {case for case, results in by_case.items() if all(result.status == "unsupported" for result in results)}
    heard = {case: results for case, results in by_case.items() if case not in silent}
    failed = [_failed(todo.questions[case], results) for case, results in heard.items()]
    wrong = tuple(sorted((one for one in failed if one), key=lambda one: harm(one.worst)))
    usual = [case for case, results in heard.items() if results[0].profile in ORDINARY]
    known = made.frameworks[peer.framework]
    return Verdict(
        peer,
        version,
        versions=known.get("versions", {}),
        device=known.get("device", ""),
        passed=len(heard) - len(wrong),
        ordinary=(len(set(usual) - {one.question.id for one in wrong}), len(usual)),
        levels=made.levels,
        worst=max((result.ratio or 0.0 for result in results if result.status == "pass"), default=0.0),
        failed=wrong,
        unsupported=dict(Counter(by_case[case][0].reason for case in by_case if case in silent).most_common()),
    )


def _failed(question: Question, results: Sequence[Result]) -> Failed | None:
    wrong = [result for result in results if result.status in ("fail", "error")]
    if not wrong:
        return None
    worst = min(wrong, key=harm)
    return Failed(question, kind(worst), worst, tuple(dict.fromkeys(result.dtype for result in wrong)))


def _numbers(question: Question) -> dict[str, Any]:
    """The input; NaN, which JSON has not, is a string."""
    given: dict[str, Any] = {name: x.tolist() for name, x in question.integers.items()}
    for name, x in (question.arrays | question.held).items():
        flat = [number if math.isfinite(number) else repr(number) for number in x.ravel().tolist()]
        given[name] = {"shape": x.shape, "numbers": flat}
    return {name: given[name] for name in question.arguments} | question.parameters


def to_json(made: Field) -> str:
    """The verdicts as JSON, from which the page is made."""
    head = {
        "format": 1,
        "suite": made.suite,
        "package": sincere_spec.__version__,
        "machine": dict(made.machine),
        "dtypes": made.dtypes,
        "tolerance": K,
        "command": made.command,
        "peers": [verdict.to_dict() for verdict in made.verdicts],
    }
    return json.dumps(head, indent=1, ensure_ascii=False) + "\n"


def markdown(made: Field) -> str:
    """The page: which loss of ours each is, which levels it conforms to, and where its numbers are others."""
    here = [verdict for verdict in made.verdicts if not verdict.absent]
    system = f"Python {made.machine['python']}, {made.machine['system']}, {made.machine['machine']}"
    frameworks = dict.fromkeys(verdict.framework for verdict in here)
    parts = [
        "# Other packages",
        INTRODUCTION,
        f"Written by `{made.command}`: sincere-spec {sincere_spec.__version__}, suite {made.suite}, "
        f"{' and '.join(made.dtypes)}; {', '.join(frameworks)}; {system}.",
        "## At a glance",
        _overview(here),
        LEGEND.format(k=K),
        *([_absent(made)] if len(here) < len(made.verdicts) else []),
        "## Which of them is SINCERE",
        _aliases(here, "sincere"),
        "## Each of them",
        *(_section(verdict) for verdict in here),
        ENVIRONMENT,
    ]
    return "\n\n".join(parts) + "\n"


INTRODUCTION = """\
People train well with every loss on this page. It does not rank them, and says nothing of their other features. It says
which call here is the same loss, so that numbers can be compared when one moves between packages, and on which inputs of
the suite the numbers are others: mostly rare ones, such as an empty batch, or a loss that is smaller than a rounding
error of its terms. Many of these are choices that a package is free to make.

Each loss is called as its documentation shows, in a process of its own, with one temperature and one average. Is a call or
a comparison here not what you mean your package to be used as? Please open an issue: that is our mistake, and is mended."""

LEGEND = """\
*core* are ordinary batches: unequal classes, singletons, two towers, queues, and the averages; value and gradient are held
to 8 u (1 + √d / temperature) of their norms, what any careful implementation reaches. *robust* are degenerate batches and
late training, *extreme* are cold temperatures and norms from 1e-30 to 1e30; there every number is held to {k:g} units of
round-off of its scale. A package that normalises by a constant epsilon, or writes its loss as log-sum-exp less a logit,
has other numbers there, and may never meet them. *Not asked* is what a call cannot express.

The words for a difference, the one that matters most for training first: *NaN or infinity*; *zero*, where another number
is wanted; *another number*; *no gradient*; *shape or type*; *raises*, an error, which at least is seen; *fewer digits*;
*convention*, where the definition is a choice of this suite: that a zero row has no gradient, and what SupCon is without
negatives."""

ENVIRONMENT = """\
## To run it again

In an environment of its own, from a checkout; the second file is installed without dependencies, which would replace torch:

```sh
python -m venv .venv-peers
.venv-peers/bin/pip install -c constraints.txt '.[torch,jax,peers]'
.venv-peers/bin/pip install --no-deps -r benchmarks/peers.txt
.venv-peers/bin/sincere-spec verify --peers --report docs
```"""


def _overview(here: Sequence[Verdict]) -> str:
    lines = [
        "| package | its loss | the same here | core | robust | extreme | not asked | first difference |",
        "| --- | --- | --- | --: | --: | --: | --: | --- |",
    ]
    for verdict in here:
        first = verdict.failed[0] if verdict.failed else None
        what = f"{first.kind} (`{first.question.id}`)" if first else "none"
        levels = [verdict.levels.get(level, (0, 0)) for level in LEVELS]
        cells = [
            f"{verdict.peer.distribution} {verdict.version}",
            f"`{verdict.peer.name}`",
            f"`{verdict.peer.same_as}`",
            *(f"{passed} of {asked}" if asked else "" for passed, asked in levels),
            str(sum(verdict.unsupported.values())),
            what,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _absent(made: Field) -> str:
    absent: dict[str, list[str]] = {}
    for verdict in made.verdicts:
        if verdict.absent:
            absent.setdefault(verdict.absent, []).append(verdict.title)
    return "\n".join(f"Not run: {', '.join(names)}: {in_markdown(reason)}." for reason, names in absent.items())


def _aliases(here: Sequence[Verdict], row: str) -> str:
    lines = [
        f"- {verdict.peer.distribution}'s `{verdict.peer.name}` with class labels is `{verdict.peer.same_as}`."
        for verdict in here
        if verdict.peer.row == row
    ]
    published = "The factors of published code that is in no package: *Switch from another package*."
    return "\n".join(lines or ["None of those that were judged here."]) + f"\n\n{published}"


def _section(verdict: Verdict) -> str:
    told = [
        f"{level} {passed} of {asked}" if passed < asked else level for level, (passed, asked) in verdict.levels.items()
    ]
    parts = [
        f"### {verdict.title}",
        f"{verdict.peer.distribution} {verdict.version}, {verdict.framework}. The same loss here: `{verdict.peer.same_as}`. "
        f"Conforms: {', '.join(told)}.",
        f"```sh\n{verdict.peer.command}\n```",
    ]
    if verdict.unsupported:
        parts.append("\n".join(f"- not asked, {number}: {reason}" for reason, number in verdict.unsupported.items()))
    if verdict.failed:
        lines = ["| case | what it is | in | difference | usual cause | wanted | came |"]
        lines.append("| --- | --- | --- | --- | --- | --: | --: |")
        for failed in verdict.failed:
            worst = failed.worst
            if worst.expected is None or worst.got is None:
                numbers = ["", worst.reason]
            else:
                at = f" {list(worst.at)}" if worst.at else ""
                numbers = [f"{worst.quantity}{at} {worst.expected:.9g}", f"{worst.got:.9g}"]
            cells = [
                in_code(failed.question.id),
                in_markdown(failed.question.says),
                ", ".join(failed.dtypes),
                failed.kind,
            ]
            cells += [in_markdown(cause(worst)), *map(in_markdown, numbers)]
            lines.append(f"| {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)
