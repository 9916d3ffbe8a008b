"""Other processes, and lines of JSON to and from them: they may die, hang or print nonsense, and never outlive the run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from sincere_spec.conformance.text import printable, read_json

__all__ = ["Conversation", "Ended", "Processes", "ended_by_signals", "follow"]

LINE = 16 * 2**20
"""The longest line that is read, in characters."""
SLICE = 0.02
"""Seconds between two looks at a process that is waited for."""
TAIL = 8192
"""So many of the last bytes of a process's standard error are kept."""


class Ended(BaseException):
    """A signal asked this process to end; the message says which."""


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """While it is open, SIGTERM, SIGINT and SIGHUP raise `Ended` in the main thread, once: then the end is under way."""
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    # One that is ignored, as under nohup, stays so; only the main thread may set handlers.
    mine = threading.current_thread() is threading.main_thread()
    before = {number: x for number, x in before.items() if mine and x not in (None, signal.SIG_IGN)}

    def end(number: int, frame: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        raise Ended("interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}")

    for number in before:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def follow(parent: int) -> None:
    """End this process and its group when its parent is no more, however that ended."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        _kill_group(os.getpid())

    if os.name == "posix":
        threading.Thread(target=watch, daemon=True).start()


def _kill_group(leader: int) -> None:
    with suppress(OSError):  # nobody of it is left
        os.killpg(leader, signal.SIGKILL)


class Processes:
    """The processes that run now, so that all of them can be ended.

    Each is the leader of a process group of its own, and what it has started is ended with it. Without `groups` they stay in
    the group of this process, and end with that.
    """

    def __init__(self, groups: bool = True) -> None:
        self._groups = groups and os.name == "posix"
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._over = False

    def start(self, command: Sequence[str], variables: Mapping[str, str]) -> subprocess.Popen[str]:
        """Start a process with pipes to and from it."""
        with self._lock:
            if self._over:
                raise RuntimeError("the run is over")
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                errors="replace",
                env=dict(variables),
                start_new_session=self._groups,
            )
            self._running.add(process)
        return process

    def kill(self, process: subprocess.Popen[str]) -> None:
        """End a process and what it has started, at once."""
        if self._groups:
            _kill_group(process.pid)
        process.kill()

    def stop(self, process: subprocess.Popen[str]) -> int:
        """End a process that still runs, and forget it; its exit status."""
        self.kill(process)
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
                self.kill(process)


class Conversation:
    """A process that is sent lines of JSON and answers with lines of JSON objects.

    `trouble` says what went wrong with it; from then on it has ended. What it prints on standard error is read and
    forgotten, but for the end of it. `limit` is asked again and again for a reason to end the process, which is then
    `stopped`; silence for longer than `timeout` seconds is another.
    """

    def __init__(
        self,
        processes: Processes,
        command: Sequence[str],
        variables: Mapping[str, str],
        timeout: float,
        limit: Callable[[int], str] = lambda process: "",
    ) -> None:
        self.trouble, self.stopped, self.timeout = "", "", timeout
        self._processes, self._limit = processes, limit
        self._silence, self._waiting, self._tail = 0.0, False, b""
        self._over = threading.Event()
        self._process = processes.start(command, variables)
        self._errors = threading.Thread(target=self._drain, daemon=True)
        self._errors.start()
        threading.Thread(target=self._watch, daemon=True).start()

    def send(self, message: object) -> None:
        """Write one line; if nobody reads any more, `hear` says so."""
        pipe = self._process.stdin
        assert pipe is not None
        with suppress(OSError, ValueError), self._patience():
            pipe.write(json.dumps(message) + "\n")
            pipe.flush()

    def hear(self) -> dict[str, Any] | None:
        """The next object, or None where none comes: then `trouble` says why.

        A process that is silent for too long, or talks nonsense, is ended.
        """
        pipe = self._process.stdout
        assert pipe is not None
        if self.trouble:
            return None
        with self._patience():
            line = pipe.readline(LINE)
        if line:
            message = _object(line)
            if message is None:
                self.trouble = (
                    f"printed a line of more than {LINE >> 20} MB"
                    if len(line) >= LINE
                    else f"printed what is no JSON object: {printable(repr(line.strip()[:80]))}"
                )
        else:
            message = None
            self._explain()
        if message is None:
            self.close()
        return message

    def lines(self) -> Iterator[dict[str, Any]]:
        """What comes until `{"done": true}`; then the process is ended, as some frameworks take long to end by themselves."""
        try:
            while (message := self.hear()) is not None and "done" not in message:
                yield message
        finally:
            self.close()

    def refuse(self, trouble: str) -> None:
        """Hear no more of it, for a reason."""
        self.trouble = trouble
        self.close()

    def close(self) -> None:
        """End the process."""
        if not self._over.is_set():
            self._over.set()
            self._processes.stop(self._process)

    @contextmanager
    def _patience(self) -> Iterator[None]:
        """While it is waited for; it need not talk while it waits for us."""
        self._silence, self._waiting = 0.0, True
        try:
            yield
        finally:
            self._waiting = False

    def _watch(self) -> None:
        # Counted in slices, so that a machine that sleeps for an hour has been silent for one slice and not for an hour.
        while not self._over.wait(SLICE):
            self._silence += SLICE if self._waiting else 0.0
            silent = f"said nothing for {self.timeout:g} s and was ended" if self._silence >= self.timeout else ""
            self.stopped = silent or self._limit(self._process.pid)
            if self.stopped:
                self._processes.kill(self._process)
                return

    def _drain(self) -> None:
        pipe = self._process.stderr
        assert pipe is not None
        with suppress(OSError, ValueError), pipe:
            while part := os.read(pipe.fileno(), 2**16):
                self._tail = (self._tail + part)[-TAIL:]

    def _explain(self) -> None:
        """Why it ended before it was done."""
        if self.stopped:
            self.trouble = self.stopped
            return
        try:
            status = self._process.wait(self.timeout)
        except subprocess.TimeoutExpired:
            self.trouble = "closed its output before it was done"
            return
        self._processes.kill(self._process)  # what it has started may hold its standard error open
        self._errors.join(self.timeout)
        said = [line.strip() for line in self._tail.decode(errors="replace").splitlines() if line.strip()]
        how = f"died of {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        self.trouble = f"{how} before it was done" + (f": {printable(said[-1][-200:])}" if said else "")


def _object(line: str) -> dict[str, Any] | None:
    try:
        message = read_json(line)
    except ValueError:
        return None
    return message if isinstance(message, dict) else None
