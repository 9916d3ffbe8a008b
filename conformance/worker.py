"""One framework's process: it reads a plan from standard input and writes a line of JSON for each question answered.

The first line out says what runs here, or why what was to be judged cannot be. Where real data is to come,
`{"waiting": "digits"}` goes out when the rest is done, and one more line comes in. `{"done": true}` is the last. Whatever
else the framework prints goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

from sincere_spec.conformance import frameworks, large, questions
from sincere_spec.conformance.candidates import Candidate, Foreign, Refused
from sincere_spec.conformance.implementations import Package
from sincere_spec.conformance.judge import Implementation, ask
from sincere_spec.conformance.processes import follow
from sincere_spec.conformance.programs import Executable, Program
from sincere_spec.conformance.properties import hold
from sincere_spec.conformance.tolerance import compute_dtype
from sincere_spec.conformance.transforms import checks

MEMORY = 8 * 2**30
"""The bytes that a process may take in which someone else's implementation runs, a program or a callable with its framework."""


def main() -> int:
    """Returns the exit status."""
    follow(os.getppid())
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def emit(**fields: Any) -> None:
        lines.write(json.dumps(fields) + "\n")
        lines.flush()

    plan = json.loads(sys.stdin.readline())
    if plan.get("transforms"):
        checks.prepare(plan["framework"])
    framework = frameworks.start(plan["framework"])
    emit(versions=frameworks.versions(framework.listing), device=framework.device())
    if plan.get("transforms"):
        for unit in plan["transforms"]:
            emit(unit=unit, results=[result.to_dict() for result in checks.check(framework, tuple(unit))])
        emit(done=True)
        return 0
    suite = questions.of_suite(Path(plan["suite"]))
    batches = large.questions(Path(plan["suite"]))
    known = {question.id: question for question in (*suite, *questions.integrity(suite), *batches)}
    implementation: Implementation = Package(framework)
    if plan.get("candidate"):
        try:
            implementation = _theirs(framework, plan["candidate"])
        except Refused as reason:
            emit(refused=str(reason))
            emit(done=True)
            return 0
        if isinstance(implementation, Foreign):
            known = {name: Foreign.asked(question) for name, question in known.items()}
    for _, units in groupby(
        plan["units"], key=lambda unit: compute_dtype(unit[1])
    ):  # half types share float32's programs
        for name, dtype, engine in units:
            answer(implementation, known[name], dtype, engine, emit)
        framework.forget()
    if plan["digits"]:
        emit(waiting="digits")
        for file, dtype, engine in json.loads(sys.stdin.readline()):
            answer(implementation, questions.read(Path(file)), dtype, engine, emit)
            framework.forget()
    if isinstance(implementation, Program):
        implementation.close()
    emit(done=True)
    return 0


def _theirs(framework: frameworks.Framework, named: dict[str, Any]) -> Foreign | Program:
    _limit_memory()
    if "command" in named:
        return Program(Executable(**named))
    candidate = Candidate(**named)
    return Foreign(framework, candidate, candidate.load(framework.listing.name))


def _limit_memory() -> None:
    """Let an implementation that takes too much, a program too, run out of memory by itself: the machine's is everyone's."""
    if sys.platform == "linux":
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, most))


def answer(
    implementation: Implementation, question: questions.Question, dtype: str, engine: str, emit: Callable[..., None]
) -> None:
    """Put a question to an implementation and send off the verdicts."""
    results = (hold if question.properties else ask)(implementation, question, dtype, engine)
    emit(unit=[question.id, dtype, engine], results=[result.to_dict() for result in results])


if __name__ == "__main__":
    sys.exit(main())
