"""Implementations in any language: a program that answers lines of JSON, one for each question.

It is sent

    {"id": ..., "loss": "sincere", "options": {...}, "normalize": true, "reduction": "mean", "dtype": "float32",
     "arguments": {"embeddings": {"shape": [n, d], "numbers": [...]}, "labels": [...]}, "cotangent": -0.9375}

and answers `{"value": ..., "gradient": {"embeddings": [...], "temperature": ...}}`, entries in C order and under the
cotangent, or `{"unsupported": "why"}`. NaN and the infinities, which JSON has not, are the strings "nan", "inf" and "-inf".
"""

from __future__ import annotations

import json
import math
import queue
import shlex
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sincere_spec.conformance.candidates import Refused
from sincere_spec.conformance.judge import Answer, Returned, Unsupported
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
        self._timeout, self._trouble = executable.timeout, ""
        try:
            words = shlex.split(executable.command)
            self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        except (OSError, ValueError, IndexError) as error:
            raise Refused(f"{executable.command} cannot be started: {error}") from error
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()

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
        if self._trouble:
            raise RuntimeError(self._trouble)
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(request) + "\n")
            line = self._lines.get(timeout=self._timeout)
        except queue.Empty:
            self._trouble = f"the program said nothing for {self._timeout:g} s and was ended"
        except OSError:
            line = ""
        if not self._trouble and not line:
            self.close()
            self._trouble = f"the program ended with status {self._process.returncode}"
        if self._trouble:
            self.close()
            raise RuntimeError(self._trouble)
        try:
            reply = json.loads(line)
        except ValueError:
            reply = None
        if not isinstance(reply, dict):
            raise TypeError(f"one line with a JSON object was expected, and {line.strip()[:80]!r} came")
        return reply

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")


def _request(question: Question, dtype: str) -> dict[str, Any]:
    arguments: dict[str, Any] = {name: x.tolist() for name, x in question.integers.items()}
    arguments |= {name: {"shape": x.shape, "numbers": _plain(x)} for name, x in question.arrays.items()}
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
