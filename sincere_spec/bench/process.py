"""The other side of a worker: starts it, reads its events, and ends it at a limit."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

from sincere_spec.bench.resident import resident
from sincere_spec.bench.settings import Settings

POLL = 0.02  # seconds between two looks at a worker's memory
START = 180.0  # seconds that a framework may take to be imported


class Stopped(Exception):
    """A worker was ended at a limit."""


class Died(Exception):
    """A worker ended by itself."""


def environment(settings: Settings, *, memory: bool = False) -> dict[str, str]:
    """The environment of a worker, for peaks of memory or for times: settled before a framework is imported."""
    threads = str(settings.threads)
    variables = dict(os.environ)
    for name in ("OMP", "MKL", "OPENBLAS"):
        variables[f"{name}_NUM_THREADS"] = threads
    for name in ("INTRAOP", "INTEROP"):
        variables[f"TF_NUM_{name}_THREADS"] = threads
    variables["NPROC"] = threads  # the size of XLA's pool
    flags = f"--xla_cpu_multi_thread_eigen={str(settings.threads > 1).lower()} intra_op_parallelism_threads={threads}"
    variables["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
    variables["TF_CPP_MIN_LOG_LEVEL"] = "3"
    if memory:  # with oneDNN, TensorFlow keeps what it frees, so that a second call needs no more
        variables["TF_ENABLE_ONEDNN_OPTS"] = "0"
    variables["JAX_ENABLE_X64"] = "1" if settings.dtype == "float64" else "0"
    if settings.device == "cpu":
        variables |= {"CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"}
    else:
        variables |= {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
    import sincere_spec

    root = str(Path(sincere_spec.__file__).parents[1])
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    return variables


class Process:
    """A running worker, until `close`."""

    def __init__(self, framework: str, settings: Settings, *, memory: bool = False) -> None:
        self.settings = settings
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        self.child = subprocess.Popen(
            [sys.executable, "-m", "sincere_spec.bench.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            encoding="utf-8",
            env=environment(settings, memory=memory),
        )
        self.lines: queue.Queue[str | None] = queue.Queue()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        setup = {name: getattr(settings, name) for name in ("dim", "classes", "dtype", "device", "threads")}
        self._send({"framework": framework, **setup})
        self.ready = self._next(monotonic() + START, None)
        if self.ready["event"] == "refused":
            reason = self.ready["reason"]
            self.close()
            raise Died(reason)

    def _read(self) -> None:
        assert self.child.stdout is not None
        for line in self.child.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def _send(self, message: dict[str, Any]) -> None:
        assert self.child.stdin is not None
        try:
            self.child.stdin.write(json.dumps(message) + "\n")
            self.child.stdin.flush()
        except BrokenPipeError as error:
            raise Died(self._last_words()) from error

    def _next(self, deadline: float, most: int | None) -> dict[str, Any]:
        """The next event, unless a limit comes first."""
        while True:
            try:
                line = self.lines.get(timeout=POLL)
            except queue.Empty:
                used = resident(self.child.pid)
                if most is not None and used is not None and used > most:
                    self.close()
                    raise Stopped(f"stopped at {self.settings.bytes / 1e9:.0f} GB") from None
                if monotonic() > deadline:
                    self.close()
                    raise Stopped("stopped at its time limit") from None
                continue
            if line is None:
                self.child.wait()
                raise Died(self._last_words())
            event: dict[str, Any] = json.loads(line)
            return event

    def events(self, job: dict[str, Any], patient: frozenset[str]) -> Iterator[dict[str, Any]]:
        """The events of a job. `patient` names the programs that are ours, whose limit is longer."""
        self._send(job)
        most: int | None = None
        limit, deadline = self.settings.own_seconds, monotonic() + self.settings.own_seconds
        while True:
            try:
                event = self._next(deadline, most)
            except Stopped as stopped:
                if "time" in str(stopped):
                    raise Stopped(f"stopped at {limit:.0f} s") from None
                raise
            if event["event"] == "done":
                return
            if event["event"] == "level" and event["resident"] is not None:
                most = event["resident"] + self.settings.bytes
            if event["event"] == "start":
                own = event["program"] in patient or event["program"] == "unit"
                limit = self.settings.own_seconds if own else self.settings.seconds
            deadline = monotonic() + limit
            yield event

    def _last_words(self) -> str:
        self.errors.seek(0)
        words = self.errors.read().decode(errors="replace").strip().splitlines()
        return f"the process ended with status {self.child.returncode}: {words[-1][:200] if words else 'no message'}"

    def close(self) -> None:
        """End it."""
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait()
        self.reader.join()  # at the end of the output, which the child's end is
        for stream in (self.child.stdin, self.child.stdout, self.errors):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()
