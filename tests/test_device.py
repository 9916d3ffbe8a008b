"""The device run: rehearsed on a CPU with nothing installed but what it says, its failures, and the readers of its files."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path
from typing import Any

import pytest

import sincere_spec as ss
from benchmarks.device import __main__ as device_run
from sincere_spec.bench import command, device, plots

ROOT = Path(__file__).parents[1]

# --- the rehearsal ---

HIDING = """
import sys
from importlib.machinery import PathFinder

HIDDEN = {hidden!r}

class Visible(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if path is None and name in HIDDEN else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Visible
"""


def needed(*names: str) -> set[str]:
    """Distributions, and what they need themselves without any extra."""
    found: set[str] = set()
    left = list(names)
    while left:
        name = re.sub(r"[-_.]+", "-", left.pop()).lower()
        if name in found:
            continue
        try:
            requirements = requires(name) or []
        except PackageNotFoundError:
            continue
        found.add(name)
        left += [re.split(r"[^\w.-]", line)[0] for line in requirements if "extra ==" not in line]
    return found


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which Python finds the two frameworks, Triton, NumPy, array-api-compat, and what these need."""
    kept = needed("torch", "triton", "jax", "numpy", "array-api-compat", "sincere-spec")
    kept -= {"rich", "typer", "jsonschema", "mpmath", "hypothesis", "pytest"} - needed("torch", "jax")
    hidden = {
        module
        for module, distributions in packages_distributions().items()
        if not any(re.sub(r"[-_.]+", "-", name).lower() in kept for name in distributions)
    }
    assert {"rich", "typer", "jsonschema", "pytest", "hypothesis"} <= hidden
    folder = tmp_path_factory.mktemp("bare")
    (folder / "sitecustomize.py").write_text(HIDING.format(hidden=hidden), encoding="utf-8")
    return {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}


def run(environment: dict[str, str], *arguments: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.device", *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


@pytest.mark.parametrize("part", [part.name for part in device_run.PARTS])
def test_a_part_is_rehearsed_with_nothing_else_installed(
    part: str, bare: dict[str, str], tmp_path: Path, need: Any
) -> None:
    need("jax" if part == "pallas" else "torch")
    need("triton")
    done = run(bare, "--rehearse", "--part", part, "--output", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / f"{part}.json").read_text(encoding="utf-8"))
    assert (found["status"], found["reason"], found["rehearsal"]) == ("right", "", True)
    assert found["rows"]
    assert {row["status"] for row in found["rows"]} <= {"right", "ok"}


def test_without_a_device_every_part_says_so(bare: dict[str, str], tmp_path: Path, need: Any) -> None:
    need("torch")
    environment = {**bare, "CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"}
    done = run(environment, "--output", tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    for part in device_run.PARTS:
        found = json.loads((tmp_path / f"{part.name}.json").read_text(encoding="utf-8"))
        assert found["status"] == "unavailable"
        assert re.search(r"CUDA|NVIDIA|jax sees no GPU|cannot be imported", found["reason"]), found["reason"]


def test_a_part_that_ends_early_is_told_from_one_that_is_right(monkeypatch: pytest.MonkeyPatch, need: Any) -> None:
    need("torch")
    facts = {"device": "a CPU, rehearsing", "versions": {}}
    with monkeypatch.context() as m:
        m.setattr(device_run, "REHEARSAL", 0.5)
        late = device_run._run(device_run.Part("correct", "", "torch", 1.0), facts, rehearse=True)
    assert (late["status"], late["reason"]) == ("cut short", "cut short at its time limit")
    dead = device_run._run(device_run.Part("unknown", "", "torch", 60.0), facts, rehearse=True)
    assert dead["status"] == "failed"
    assert "status 2" in dead["reason"]
    refused = device_run._run(device_run.PARTS[0], {"refused": "the driver is too old"}, rehearse=True)
    assert (refused["status"], refused["reason"]) == ("unavailable", "the driver is too old")


@pytest.mark.framework("torch")
def test_running_out_of_memory_is_a_row_and_a_failure_if_it_is_ours() -> None:
    import torch

    from benchmarks.device.timing import measured

    def make() -> Any:
        raise torch.OutOfMemoryError("tried to allocate 80 GiB")

    row = measured({"loss": "sincere", "size": 4096, "program": "plain"}, make, 1, ours=False)
    assert (row["status"], row["reason"]) == ("out of memory", "out of memory: tried to allocate 80 GiB")
    ours = measured({"loss": "sincere", "size": 4096, "program": "kernel"}, make, 1, ours=True)
    assert ours["status"] == "failed"
    assert device_run._what(ours) == "sincere 4096 kernel: failed: out of memory: tried to allocate 80 GiB"


# --- the readers: of files that no device wrote ---


def part(name: str, rows: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    return {
        "schema": 1,
        "rehearsal": False,
        "commit": "0" * 40,
        "date": "2026-01-01T00:00:00+00:00",
        "machine": {"cpu": "a CPU", "cores": 16, "accelerator": "An invented device"},
        "part": name,
        "says": f"says {name}",
        "limit": 10.0,
        "seconds": 1.0,
        "facts": {"versions": {"torch": "2.11.0"}, "device": "An invented device"},
        "status": "right",
        "reason": "",
        **fields,
        "rows": rows,
    }


def timed(program: str, size: int, seconds: float, **fields: Any) -> dict[str, Any]:
    place = {"loss": "sincere", "dtype": "bfloat16", "dim": 64, "size": size, "program": program, "tile": None}
    return {**place, "status": "ok", "seconds": [seconds] * 3, **fields}


def crossover_rows() -> list[dict[str, Any]]:
    """Tiles of 2048 are best and beat dense from 1024 rows on; kernels beat both from 2048 rows on at D = 64, never at 512."""
    rows = []
    for dim, kernel in (
        (64, {512: 4.0, 1024: 3.0, 2048: 2.0, 4096: 8.0}),
        (512, dict.fromkeys((512, 1024, 2048, 4096), 99.0)),
    ):
        rows += [timed("tiled", 4096, seconds, tile=tile, dim=dim) for tile, seconds in ((1024, 12.0), (2048, 10.0))]
        for size, dense, tiled in ((512, 1.0, 2.0), (1024, 2.5, 2.2), (2048, 9.0, 4.0), (4096, 40.0, None)):
            rows.append(timed("dense", size, dense, dim=dim))
            rows += [] if tiled is None else [timed("tiled", size, tiled, tile=2048, dim=dim)]
            rows.append(timed("kernel", size, kernel[size], dim=dim))
    return rows


def shape_rows() -> list[dict[str, Any]]:
    fields = {"rows": 128, "columns": 32, "entries": 64, "warps": 8, "stages": 2, "width": 64, "slices": 4}
    base = {"sweep": "pull", "dtype": "bfloat16", "size": 64, "dim": 64, "status": "ok", "tflops": 1.0}
    return [
        {**base, "shape": fields, "seconds": [2.0, 2.1]},
        {**base, "shape": {**fields, "stages": 3}, "seconds": [1.0, 1.1]},
        {**base, "shape": {**fields, "stages": 4}, "seconds": [0.5], "status": "wrong"},
    ]


def bench_rows() -> list[dict[str, Any]]:
    found = []
    for size in (4096, 16384):
        for program, kind, seconds, status in (
            ("unit", "unit", 0.001, "ok"),
            ("kernel", "ours", 0.005, "ok"),
            ("tiled", "ours", 0.004, "ok"),
            ("plain", "plain", 0.009, "ok" if size == 4096 else "out of memory"),
            ("memeff", "peer", 0.006, "ok"),
        ):
            row = timed(program, size, seconds, kind=kind, status=status, peak=10**9)
            found.append(row if status == "ok" else {**row, "seconds": [], "reason": "out of memory: much"})
    return found


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results" / "an-invented-device"
    folder.mkdir(parents=True)
    for name, rows in (("crossovers", crossover_rows()), ("shapes", shape_rows()), ("bench", bench_rows())):
        (folder / f"{name}.json").write_text(json.dumps(part(name, rows)), encoding="utf-8")
    return folder


@pytest.fixture
def tables(tmp_path: Path) -> tuple[Path, Path]:
    """Copies of the tables that a run may write."""
    copies = tmp_path / "crossovers.json", tmp_path / "shapes.json"
    for copy, original in zip(copies, ("sincere_spec/call/crossovers.json", "backends/torch/shapes.json")):
        copy.write_text((ROOT / original).read_text(encoding="utf-8"), encoding="utf-8")
    return copies


def test_a_run_becomes_the_tables_of_crossovers_and_shapes(results: Path, tables: tuple[Path, Path]) -> None:
    before = [json.loads(path.read_text(encoding="utf-8")) for path in tables]
    said = device.adopt(results, *tables)
    crossovers, shapes = (json.loads(path.read_text(encoding="utf-8")) for path in tables)
    assert crossovers["torch"].pop("cuda") == {
        "bfloat16": {
            "64": {"pairs": 512 * 1024, "tile": 2048, "kernel": 1024 * 2048},
            "512": {"pairs": 512 * 1024, "tile": 2048, "kernel": None},
        }
    }
    before[0]["torch"].pop("cuda")
    assert crossovers == before[0]
    assert shapes["measured_on"] == "An invented device"
    assert shapes["2"].pop("pull")["stages"] == 3  # the fastest that gave the right result
    before[1]["2"].pop("pull")
    before[1].pop("measured_on")
    shapes.pop("measured_on")
    assert shapes == before[1]
    assert any("kernels never faster" in line for line in said)
    assert device.adopt(results, *tables) == said


def test_adopting_is_refused_for_what_decides_nothing(results: Path, tables: tuple[Path, Path]) -> None:
    before = [path.read_bytes() for path in tables]
    wrong = part("correct", [], status="wrong", reason="sincere: wrong")
    (results / "correct.json").write_text(json.dumps(wrong), encoding="utf-8")
    with pytest.raises(ValueError, match="correct wrong: times"):
        device.adopt(results, *tables)
    (results / "correct.json").unlink()
    (results / "suite.json").write_text(json.dumps({**wrong, "part": "suite", "status": "failed"}), encoding="utf-8")
    with pytest.raises(ValueError, match="suite failed: times"):
        device.adopt(results, *tables)
    (results / "suite.json").unlink()
    (results / "correct.json").write_text(json.dumps({**wrong, "rehearsal": True}), encoding="utf-8")
    with pytest.raises(ValueError, match="is of a rehearsal"):
        device.adopt(results, *tables)
    with pytest.raises(ValueError, match="no results of a device run"):
        device.adopt(results.parent, *tables)
    assert [path.read_bytes() for path in tables] == before


def test_a_setting_that_was_cut_short_is_not_adopted(results: Path, tables: tuple[Path, Path]) -> None:
    rows = [
        row for row in crossover_rows() if not (row["dim"] == 64 and row["program"] == "kernel" and row["size"] == 4096)
    ]
    (results / "crossovers.json").write_text(json.dumps(part("crossovers", rows, status="cut short")), encoding="utf-8")
    device.adopt(results, *tables)
    assert list(json.loads(tables[0].read_text(encoding="utf-8"))["torch"]["cuda"]["bfloat16"]) == ["512"]


@pytest.mark.framework("torch")
def test_auto_takes_kernels_where_a_run_found_them_faster(
    results: Path, tables: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, need: Any
) -> None:
    need("triton")
    import torch

    from sincere_spec.backends.torch import TorchBackend
    from sincere_spec.call import plan

    device.adopt(results, *tables)
    table = json.loads(tables[0].read_text(encoding="utf-8"))
    monkeypatch.setattr(plan, "crossovers", lambda: table)
    monkeypatch.setattr(TorchBackend, "platform", lambda self, x: "cuda")

    def explained(rows: int, d: int, dtype: str) -> Any:
        z = torch.zeros(rows, d, dtype=getattr(torch, dtype))
        return ss.explain(ss.losses.sincere(), z, torch.arange(rows) % 9)

    assert explained(2048, 64, "bfloat16").engine == "kernel"
    assert "kernels are faster" in explained(2048, 64, "bfloat16").reason
    assert explained(2048, 48, "float16").engine == "kernel"  # as many bytes, and the next larger D
    assert explained(1024, 64, "bfloat16").engine == "tiled"
    assert "kernels are from 2097152 on" in explained(1024, 64, "bfloat16").reason
    beyond = explained(2048, 65, "bfloat16")
    assert (beyond.engine, beyond.tile) == ("tiled", 2048)
    assert "kernels run on cuda where they are asked for" in beyond.reason
    unmeasured = explained(2048, 64, "float32")
    assert unmeasured.engine == "dense"
    assert "no kernel was measured on cuda" in unmeasured.reason


def test_a_run_is_rendered(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, need: Any) -> None:
    need("matplotlib")
    monkeypatch.chdir(tmp_path)
    Path("docs").mkdir()
    Path("docs/speed.md").write_text("before\n<!-- bench:begin -->\n<!-- bench:end -->\nafter\n", encoding="utf-8")
    assert command.render(results.parent) == command.DONE
    text = Path("docs/speed.md").read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert "**An invented device** (`an-invented-device`), commit 0000000000, 2026-01-01; torch 2.11.0." in text
    ours = "5 ms, 5.0 units, 999 MB | 4 ms, 4.0 units, 999 MB"
    assert f"| `sincere` | bfloat16 | 4096 | {ours} |  |  | 9 ms, 9.0 units, 999 MB |" in text
    assert f"| `sincere` | bfloat16 | 16384 | {ours.replace('999', '998')} |  |  | out of memory |" in text
    assert "memeff: 6 ms, 6.0 units" in text
    assert "| bfloat16 | 512 | 2048 | 524288 | never |" in text
    assert (results / "torch-cuda-bfloat16.svg").read_text(encoding="utf-8").startswith("<?xml")
    assert f"(../{results.relative_to(tmp_path).as_posix()}/torch-cuda-bfloat16.svg)" in text


def test_every_program_of_a_run_has_a_style() -> None:
    assert set(device.PROGRAMS) <= plots.STYLES.keys()
