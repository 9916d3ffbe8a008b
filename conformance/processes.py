"""Other processes, and lines of JSON to and from them: they may die, hang or print nonsense, and never outlive the run."""

from __future__ import annotations

import json
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import IO, Any

__all__ = ["Conversation", "Processes"]


class Processes:
    """The processes that run now, so that all of them can be ended."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._over = False

    def start(self, command: Sequence[str], variables: Mapping[str, str], errors: IO[str]) -> subprocess.Popen[str]:
        """Start a process with pipes to and from it."""
        with self._lock:
            if self._over:
                raise RuntimeError("the run is over")
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                encoding="utf-8",
                env=dict(variables),
            )
            self._running.add(process)
        return process

    def stop(self, process: subprocess.Popen[str]) -> int:
        """End a process that still runs, and forget it; its exit status."""
        process.kill()
        status = process.wait()
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):  # what was to be written no longer can be
                if pipe:
                    pipe.close()
        with self._lock:
            self._running.discard(process)
        return status

    def end(self) -> None:
        """End all that run, and let none start."""
        with self._lock:
            self._over = True
            for process in self._running:
                process.kill()


class Conversation:
    """A process that answers in lines of JSON objects, `{"done": true}` the last of them.

    `trouble` says what went wrong with it, once `lines` has ended.
    """

    def __init__(
        self, processes: Processes, command: Sequence[str], variables: Mapping[str, str], timeout: float
    ) -> None:
        self.trouble = ""
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115, it outlives this
        self._processes, self._timeout = processes, timeout
        self._silence, self._listening = 0.0, False
        self._process = processes.start(command, variables, self._errors)

    def send(self, message: object) -> None:
        """Write one line; if nobody reads any more, `lines` says so."""
        pipe = self._process.stdin
        assert pipe is not None
        with suppress(OSError):
            pipe.write(json.dumps(message) + "\n")
            pipe.flush()

    def lines(self) -> Iterator[dict[str, Any]]:
        """What comes until it is done; a process that is silent for too long, or talks nonsense, is ended."""
        pipe, ended = self._process.stdout, threading.Event()
        assert pipe is not None
        threading.Thread(target=self._watch, args=(ended,), daemon=True).start()
        try:
            while line := self._heard(pipe):
                message = _object(line)
                if message is None:
                    self.trouble = f"printed what is no JSON object: {line.strip()[:80]!r}"
                    break
                if "done" in message:
                    break
                yield message
            else:
                self._explain()
        finally:
            ended.set()
            self._processes.stop(self._process)  # some frameworks take long to end by themselves
            self._errors.close()

    def _heard(self, pipe: IO[str]) -> str:
        self._silence, self._listening = 0.0, True  # it need not talk while it waits for us
        line = pipe.readline()
        self._listening = False
        return line

    def _watch(self, ended: threading.Event) -> None:
        # Counted in slices, so that a machine that sleeps for an hour has been silent for one slice and not for an hour.
        slice_ = min(1.0, self._timeout / 4)
        while not ended.wait(slice_):
            self._silence += slice_ if self._listening else 0.0
            if self._silence >= self._timeout:
                self._process.kill()
                return

    def _explain(self) -> None:
        """Why it ended before it was done."""
        if self._silence >= self._timeout:
            self.trouble = f"said nothing for {self._timeout:g} s and was ended"
            return
        try:
            status = self._process.wait(self._timeout)
        except subprocess.TimeoutExpired:
            self.trouble = "closed its output before it was done"
            return
        self._errors.seek(0)
        said = [line.strip() for line in self._errors if line.strip()]
        how = f"died of {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        self.trouble = f"{how} before it was done" + (f": {said[-1][:200]}" if said else "")


def _object(line: str) -> dict[str, Any] | None:
    try:
        message = json.loads(line)
    except ValueError:
        return None
    return message if isinstance(message, dict) else None
