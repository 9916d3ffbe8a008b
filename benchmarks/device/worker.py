"""The process of a part: `python -m benchmarks.device.worker PART FRAMEWORK`, a JSON line for each row on standard output."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from time import monotonic
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """What a part is asked: in a rehearsal little, and one of several processes only every `count`-th thing."""

    rehearse: bool
    index: int
    count: int
    deadline: float

    @property
    def device(self) -> str:
        """Where torch's tensors are."""
        return "cpu" if self.rehearse else "cuda"

    def mine(self, things: list[Any]) -> list[Any]:
        """The share of this process."""
        return things[self.index :: self.count]

    def left(self) -> float:
        """Seconds until the part is cut short."""
        return self.deadline - monotonic()


Rows = Callable[[Asked], Iterator[Row]]
PARTS = {
    "correct": "correctness",
    "suite": "correctness",
    "repeat": "correctness",
    "million": "correctness",
    "pallas": "correctness",
    "crossovers": "timing",
    "shapes": "timing",
    "bench": "timing",
}


def main() -> int:
    """Serve one part."""
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=["facts", *PARTS])
    parser.add_argument("framework", choices=["torch", "jax"])
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--slice", type=int, nargs=2, default=(0, 1))
    parser.add_argument("--seconds", type=float, default=600.0)
    given = parser.parse_args()
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")  # what a framework prints goes to stderr
    os.dup2(2, 1)
    if given.part == "facts":
        print(json.dumps(facts(given.framework, given.rehearse)), file=out, flush=True)
        return 0
    asked = Asked(given.rehearse, *given.slice, deadline=monotonic() + given.seconds)
    rows: Rows = getattr(import_module(f"benchmarks.device.{PARTS[given.part]}"), given.part)
    for row in rows(asked):
        print(json.dumps(_numbers(row)), file=out, flush=True)
    print('{"done": true}', file=out, flush=True)
    return 0


def facts(framework: str, rehearse: bool) -> Row:
    """The device and the versions; `refused` says why there is no device."""
    try:
        module = import_module(framework)
    except ImportError as error:
        return {"refused": f"{framework} cannot be imported: {error}"}
    found = {"versions": _versions("torch", "triton", "jax", "jaxlib", "numpy", "array-api-compat")}
    found["versions"]["python"] = ".".join(map(str, sys.version_info[:3]))
    if rehearse:
        return {**found, "device": "a CPU, rehearsing"}
    try:
        if framework == "torch":
            if module.version.cuda is None:
                return {"refused": f"torch {module.__version__} is built without CUDA"}
            module.cuda.init()  # says more than is_available: an old driver, for one
            properties = module.cuda.get_device_properties(0)
            capability = f"{properties.major}.{properties.minor}"
            return {**found, "device": properties.name, "memory": properties.total_memory, "capability": capability}
        device = module.devices()[0]
        if device.platform != "gpu":
            return {"refused": f"jax sees no GPU, only {device.platform}: is its CUDA plugin installed?"}
        return {**found, "device": device.device_kind}
    except Exception as error:  # a framework's own words about its device
        return {"refused": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}


def _versions(*names: str) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _numbers(value: Any) -> Any:
    """Floats to six digits; what is not finite as text, which JSON has no number for."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if value - value == 0.0 else repr(value)
    if isinstance(value, dict):
        return {name: _numbers(part) for name, part in value.items()}
    return [_numbers(part) for part in value] if isinstance(value, (list, tuple)) else value


if __name__ == "__main__":
    sys.exit(main())
