"""Real data: the oracle's questions on handwritten digits, answered once in float64 and handed to every framework by file."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sincere_spec.conformance.oracle import digits
from sincere_spec.conformance.processes import follow
from sincere_spec.conformance.questions import DIGITS, Question, Wanted, write

__all__ = ["questions"]

SAYS = "Real data, the 1797 handwritten digits of scikit-learn, agree with the float64 answer."


def questions(rows: list[str] | None = None) -> list[tuple[Question, digits.DigitsProblem]]:
    """Every loss on the digits, or those of some rows of the matrix, without their answers."""
    found = [(_question(problem), problem) for problem in digits.problems()]
    return [(question, problem) for question, problem in found if rows is None or question.row in rows]


def _question(problem: digits.DigitsProblem) -> Question:
    asked = problem.problem
    floats = [x for x in asked.arguments.values() if x.dtype.kind == "f"]
    coldest = asked.options.get("temperature", asked.options.get("temperature_min"))
    rate = 2.0 * float(asked.options.get("inverse_bandwidth", 0.5)) if coldest is None else 1.0 / float(coldest)
    return Question(
        id=f"{DIGITS}/{problem.name.replace(',', '').replace(' ', '-')}",
        profile=DIGITS,
        says=SAYS,
        loss=asked.loss,
        options=dict(asked.options),
        arguments=dict(asked.arguments),
        normalize=asked.normalize,
        reduction=asked.reduction,
        dtypes=("float32", "float64"),
        cotangent=np.asarray(asked.cotangent),
        value=Wanted(np.asarray(np.nan), np.asarray(1.0)),
        gradient=None,
        floor=sum(len(x) for x in floats) * max(1.0, rate),
    )


def answered(question: Question, problem: digits.DigitsProblem) -> Question:
    """The question with its value and gradients."""
    answer = digits.reference(problem)
    gradient = {name: Wanted(x, answer.scales[name]) for name, x in answer.gradients.items()}
    return replace(question, value=Wanted(answer.value, answer.scale), gradient=gradient)


def main() -> int:
    """Answer every question; the folder and the rows come as JSON on standard input, an id goes out for each that is done."""
    follow(os.getppid())
    plan: dict[str, Any] = json.loads(sys.stdin.readline())
    folder = Path(plan["folder"])
    for question, problem in questions(plan["rows"]):
        path = folder / f"{question.id.partition('/')[2]}.npz"
        write(answered(question, problem), path)
        done = {"question": question.id, "row": question.row, "says": question.says, "file": str(path)}
        sys.stdout.write(json.dumps(done) + "\n")
        sys.stdout.flush()
    sys.stdout.write('{"done": true}\n')
    return 0


if __name__ == "__main__":
    sys.exit(main())
