"""Programs that run as `python -c` does, in forks of a process that has imported their framework, and nothing else, once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

# A fork ends as a process does, by way of whatever a framework does at exit; an alarm ends one that takes too long.
SERVER = """
import importlib, json, os, signal, sys, types
for name in sys.argv[1:]:
    importlib.import_module(name)
for line in sys.stdin:
    asked = json.loads(line)
    process = os.fork()
    if not process:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, name in ((1, "output"), (2, "errors")):
            os.dup2(os.open(asked[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.environ.update(asked["environment"])
        os.chdir(asked["folder"])
        signal.alarm(asked["timeout"])
        sys.argv[:] = ["-c"]
        # The server's module is held: it would be cleared, and this code with it.
        server, sys.modules["__main__"] = sys.modules["__main__"], types.ModuleType("__main__")
        exec(compile(asked["code"], "<string>", "exec", dont_inherit=True), vars(sys.modules["__main__"]))
        sys.exit()
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
"""


class Preloaded:
    """A process that has imported `modules`, under options of Python and variables of its own."""

    def __init__(self, modules: tuple[str, ...], options: tuple[str, ...], environment: Mapping[str, str]) -> None:
        self.folder = TemporaryDirectory()
        self.process: subprocess.Popen[str] = subprocess.Popen(
            [sys.executable, *options, "-c", SERVER, *modules],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, code: str, folder: Path, timeout: int = 240, **environment: str) -> subprocess.CompletedProcess[str]:
        """What a program ended with and printed."""
        written = {name: Path(self.folder.name, name) for name in ("output", "errors")}
        asked: dict[str, Any] = {"code": code, "folder": str(folder), "timeout": timeout, "environment": environment}
        asked |= {name: str(path) for name, path in written.items()}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        status = self.process.stdout.readline()
        assert status, "the process that imports the framework ended"
        output, errors = (path.read_text(encoding="utf-8") for path in written.values())
        return subprocess.CompletedProcess(["python", "-c", code], int(status), output, errors)

    def end(self) -> None:
        self.process.communicate()
        self.folder.cleanup()
