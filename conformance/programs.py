"""Implementations in any language: a program that answers lines of JSON, one for each question.

It is sent

    {"id": ..., "loss": "sincere", "options": {...}, "normalize": true, "reduction": "mean", "dtype": "float32",
     "arguments": {"embeddings": {"shape": [n, d], "numbers": [...]}, "labels": [...]}, "cotangent": -0.9375}

and answers `{"value": ..., "gradient": {"embeddings": [...], "temperature": ...}}`, entries in C order and under the
cotangent, or `{"unsupported": "why"}`. NaN and the infinities, which JSON has not, are the strings "nan", "inf" and "-inf".
"""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sincere_spec.conformance.candidates import Refused
from sincere_spec.conformance.judge import Answer, Returned, Unsupported
from sincere_spec.conformance.processes import Conversation, Processes
from sincere_spec.conformance.questions import Array, Question, Wanted
from sincere_spec.conformance.tolerance import value_dtype

__all__ = ["Executable", "Program"]


@dataclass(frozen=True)
class Executable:
    """A command line, and the seconds that it may be silent."""

    command: str
    timeout: float = 60.0

    @property
    def target(self) -> str:
        """Its name in a report."""
        return self.command

    def to_dict(self) -> dict[str, Any]:
        """Its fields, ready for JSON."""
        return asdict(self)


class Program:
    """A running executable. One that ends, hangs or prints nonsense is an error of the question, and of all that follow."""

    framework = "numpy"

    def __init__(self, executable: Executable) -> None:
        try:
            words = shlex.split(executable.command)
            # It stays in the group of this process, and ends with it at the latest.
            self._talk = Conversation(Processes(groups=False), words, os.environ, executable.timeout)
        except (OSError, ValueError, IndexError) as error:
            raise Refused(f"{executable.command} cannot be started: {error}") from error

    def close(self) -> None:
        """End it."""
        self._talk.close()

    def routes(self, question: Question) -> tuple[str, ...]:
        """It has one."""
        return ("program",)

    def answer(self, question: Question, dtype: str, engine: str, route: str) -> Answer:
        """See `judge.Implementation`."""
        reply = self._asked(_request(question, dtype))
        if "unsupported" in reply:
            raise Unsupported(str(reply["unsupported"]))
        value = _returned(reply.get("value"), question.value, value_dtype(dtype), "value")
        if question.gradient is None:
            return Answer(value)
        came = reply.get("gradient")
        if not isinstance(came, Mapping):
            raise TypeError(f"a gradient by argument was expected, and {came!r} came")
        gradients = {
            name: _returned(came[name], wanted, dtype, f"gradient of {name}") if name in came else None
            for name, wanted in question.gradient.items()
        }
        return Answer(value, gradients)

    def _asked(self, request: dict[str, Any]) -> dict[str, Any]:
        self._talk.send(request)
        reply = self._talk.hear()
        if reply is None:
            raise RuntimeError(f"the program {self._talk.trouble}")
        return reply


def _request(question: Question, dtype: str) -> dict[str, Any]:
    arguments: dict[str, Any] = {name: x.tolist() for name, x in question.integers.items()}
    floats = question.arrays | question.held
    arguments |= {name: {"shape": x.shape, "numbers": _plain(x)} for name, x in floats.items()}
    return {
        "id": question.id,
        "loss": question.loss,
        "options": dict(question.options),
        "normalize": question.normalize,
        "reduction": question.reduction,
        "dtype": dtype,
        "arguments": {name: arguments[name] for name in question.arguments},
        "cotangent": _plain(question.cotangent) if question.cotangent.ndim else float(question.cotangent),
    }


def _plain(x: Array) -> list[float | str]:
    return [number if math.isfinite(number) else repr(number) for number in x.ravel().tolist()]


def _returned(came: Any, wanted: Wanted, dtype: str, what: str) -> Returned:
    """Numbers that came in C order, as an array of the shape that is wanted."""
    try:
        numbers = np.asarray([float(x) for x in came] if isinstance(came, list) else float(came), dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{what}: numbers were expected, and {str(came)[:80]} came") from None
    if numbers.size == wanted.numbers.size:
        numbers = numbers.reshape(wanted.numbers.shape)
    return Returned(numbers, dtype)
