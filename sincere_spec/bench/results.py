"""What was measured, as data: one JSON file for each framework and device."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

SCHEMA = 1


@dataclass(frozen=True)
class Time:
    """Forward and backward of one program: the raw seconds of each run.

    status  "ok", "unsupported", "failed", "stopped" at a limit, or "skipped": it was stopped at a smaller size
    cpu     seconds of processor in each run: with one thread, less than `seconds` says that the machine was busy
    unit    seconds of the unit in the same rounds; unit_cpu those of the processor
    first   seconds of the first call, with any compilation
    """

    loss: str
    size: int
    program: str
    kind: str
    status: str
    reason: str = ""
    seconds: tuple[float, ...] = ()
    cpu: tuple[float, ...] = ()
    unit: tuple[float, ...] = ()
    unit_cpu: tuple[float, ...] = ()
    calls: int = 0
    first: float | None = None
    value: float | None = None

    @property
    def median(self) -> float:
        """Seconds."""
        return median(self.seconds)

    @property
    def units(self) -> float:
        """How many units it took."""
        return self.median / median(self.unit)


@dataclass(frozen=True)
class Memory:
    """One call in a process of its own: `extra` bytes at the peak, above the level after inputs, imports and compilation.

    `inputs` and `gradients` are the bytes of those arrays; inputs are not in `extra`, gradients are. `kept` is what
    the process held already beyond its inputs: compiled code, and what the allocator did not give back.
    """

    loss: str
    size: int
    program: str
    kind: str
    status: str
    reason: str = ""
    extra: int = 0
    kept: int = 0
    inputs: int = 0
    gradients: int = 0
    method: str = ""

    @property
    def beside(self) -> int:
        """Bytes beside inputs and gradients."""
        return max(self.extra - self.gradients, 0)


@dataclass(frozen=True)
class Overhead:
    """Seconds of a call on a tiny batch: the checks and the plan alone, the whole call, the plain formula."""

    loss: str
    size: int
    checks: tuple[float, ...]
    call: tuple[float, ...]
    plain: tuple[float, ...]


@dataclass(frozen=True)
class Result:
    """One framework on one device."""

    framework: str
    device: str
    machine: dict[str, Any]
    versions: dict[str, str]
    commit: str
    date: str
    settings: dict[str, Any]
    times: tuple[Time, ...] = ()
    memory: tuple[Memory, ...] = ()
    overhead: tuple[Overhead, ...] = ()
    schema: int = field(default=SCHEMA)

    @property
    def file(self) -> str:
        """The name of its file, without a suffix."""
        return f"{self.framework}-{self.device}"


def to_json(result: Result) -> str:
    """The text of a file: settings by line, and one line for each measurement."""
    data = asdict(result)
    lists = {name: data.pop(name) for name in ("times", "memory", "overhead")}
    head = json.dumps(_rounded(data), indent=2)[:-2]
    parts = []
    for name, rows in lists.items():
        lines = ",\n".join(f"    {json.dumps(_rounded(row))}" for row in rows)
        parts.append(f'  "{name}": [\n{lines}\n  ]' if rows else f'  "{name}": []')
    return head + ",\n" + ",\n".join(parts) + "\n}\n"


def from_json(text: str) -> Result:
    """The result that `to_json` wrote."""
    data = json.loads(text)
    if data["schema"] != SCHEMA:
        raise ValueError(f"expected results of schema {SCHEMA}; got {data['schema']}: measure again.")
    for name, kind in (("times", Time), ("memory", Memory), ("overhead", Overhead)):
        data[name] = tuple(kind(**{key: _tuple(value) for key, value in row.items()}) for row in data[name])
    return Result(**data)


def _rounded(value: Any) -> Any:
    """Floats to six digits: more is noise."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    return [_rounded(part) for part in value] if isinstance(value, (list, tuple)) else value


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def write(result: Result, folder: Path) -> Path:
    """Write the file of a result."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{result.file}.json"
    path.write_text(to_json(result), encoding="utf-8")
    return path


def read(folder: Path) -> list[Result]:
    """The results in a folder, in the order of the frameworks."""
    from sincere_spec.bench.settings import FRAMEWORKS

    found = [from_json(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*-*.json"))]
    return sorted(found, key=lambda result: (result.device, FRAMEWORKS.index(result.framework)))


def machine(device: str | None) -> dict[str, Any]:
    """What the measurements depend on beside software."""
    found: dict[str, Any] = {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gb": _memory(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
    if device is not None:
        found["accelerator"] = device
    if hasattr(os, "getloadavg"):
        found["load_at_start"] = os.getloadavg()[0]
    return found


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def _memory() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, OSError, ValueError):
        return None


def commit() -> str:
    """The commit of the source tree that is measured, with "+" for changes since; "unknown" outside of one."""
    import sincere_spec

    folder = Path(sincere_spec.__file__).parent
    try:
        found = [
            subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
            for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no", "--", "."))
        ]
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found[0] + ("+" if found[1] else "")
