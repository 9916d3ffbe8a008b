"""The other side of a worker: starts it, reads its events, and ends it at a limit."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sincere_spec.bench.resident import resident
from sincere_spec.bench.settings import Settings
from sincere_spec.conformance.processes import Conversation, Processes

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
        self.most: int | None = None  # bytes that the worker may have
        command = [sys.executable, "-m", "sincere_spec.bench.worker"]
        self.talk = Conversation(Processes(), command, environment(settings, memory=memory), START, self._too_large)
        setup = {name: getattr(settings, name) for name in ("dim", "classes", "dtype", "device", "threads")}
        self.talk.send({"framework": framework, **setup})
        self.ready = self._next()
        if self.ready["event"] == "refused":
            self.close()
            raise Died(self.ready["reason"])

    def _too_large(self, process: int) -> str:
        if self.most is None or (resident(process) or 0) <= self.most:
            return ""
        return f"stopped at {self.settings.bytes / 1e9:.0f} GB"

    def _next(self) -> dict[str, Any]:
        """The next event, unless a limit comes first."""
        event = self.talk.hear()
        if event is not None:
            return event
        if self.talk.stopped.startswith("said nothing"):
            raise Stopped(f"stopped at {self.talk.timeout:.0f} s")
        raise Stopped(self.talk.stopped) if self.talk.stopped else Died(f"the process {self.talk.trouble}")

    def events(self, job: dict[str, Any], patient: frozenset[str]) -> Iterator[dict[str, Any]]:
        """The events of a job. `patient` names the programs that are ours, whose limit is longer."""
        self.talk.timeout, self.most = self.settings.own_seconds, None
        self.talk.send(job)
        while (event := self._next())["event"] != "done":
            if event["event"] == "level" and event["resident"] is not None:
                self.most = event["resident"] + self.settings.bytes
            if event["event"] == "start":
                own = event["program"] in patient or event["program"] == "unit"
                self.talk.timeout = self.settings.own_seconds if own else self.settings.seconds
            yield event

    def close(self) -> None:
        """End it."""
        self.talk.close()
