"""The benchmark: its formulas are the losses, its worker is ended at a limit, its reports say what its files hold. No times."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sincere_spec as ss
from sincere_spec.bench import command, crossover, measure, plots, report, results
from sincere_spec.bench.cases import Program, draw, programs, record, shape
from sincere_spec.bench.frameworks import Place, load
from sincere_spec.bench.peers import PEERS
from sincere_spec.bench.process import Died, Process, Stopped, environment
from sincere_spec.bench.relations import relations
from sincere_spec.bench.resident import Peak, resident
from sincere_spec.bench.results import Memory, Overhead, Result, Time
from sincere_spec.bench.settings import DEFAULT_LOSSES, ENGINES, LOSSES, Settings
from sincere_spec.bench.worker import Worker

ROOT = Path(__file__).parents[1]
LINUX = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux counts a process's peak so")


# --- the programs compute the losses ---


def expected(loss: str, size: int) -> tuple[float, list[np.ndarray]]:
    inputs = draw(loss, size, 8, 5)
    labels = () if inputs.labels is None else (inputs.labels,)
    value, gradient = ss.value_and_gradient(record(loss), *inputs.embeddings, *labels, engine="dense")
    return float(value), [gradient] if shape(loss) == "labelled" else list(gradient)


def number(value: Any) -> float:
    return float(value.detach() if hasattr(value, "detach") else value)


def flat(gradients: Any) -> list[np.ndarray]:
    parts = gradients if isinstance(gradients, (list, tuple)) else [gradients]
    return [np.asarray(part, dtype=np.float64) for part in parts]


@pytest.mark.parametrize("framework_name", ["numpy", "torch", "jax", "tensorflow"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("program", [Program("plain", "plain"), Program("ours", "auto")], ids=str)
def test_a_program_is_the_loss(framework_name: str, loss: str, program: Program, need: Any) -> None:
    need(framework_name)
    bench = load(framework_name, Place("cpu", "float64", 1))
    inputs = draw(loss, 12, 8, 5)
    arrays = bench.arrays(inputs)
    try:
        function = bench.plain(loss) if program.kind == "plain" else bench.ours(loss, program)
    except KeyError:
        assert loss not in DEFAULT_LOSSES
        pytest.skip("no plain formula of it is written for the benchmark, which then measures our engines alone")
    value, gradients = bench.step(function, program, arrays, len(inputs.embeddings))()
    known_value, known_gradients = expected(loss, 12)
    assert number(value) == pytest.approx(known_value, rel=1e-11)
    for found, known in zip(flat(gradients), known_gradients, strict=True):
        np.testing.assert_allclose(found, known, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("framework_name", ["torch", "jax"])
def test_a_peer_is_the_loss(framework_name: str, need: Any) -> None:
    """Each peer that can be imported has our value, under the reduction that is its own."""
    need(framework_name)
    bench = load(framework_name, Place("cpu", "float64", 1))
    compared = 0
    for peer in (peer for peer in PEERS if peer.framework == framework_name):
        try:
            function = peer.make()
        except ImportError:
            continue
        inputs = draw(peer.loss, 12, 8, 5)
        arrays = bench.arrays(inputs)
        value, _ = bench.step(function, Program("peer", peer.name), arrays, len(inputs.embeddings))()
        pairs = "NTXent" in peer.name or "ntxent" in peer.name
        labels = () if inputs.labels is None else (inputs.labels,)
        known = ss.evaluate(record(peer.loss), *inputs.embeddings, *labels, reduction="pairs" if pairs else "mean")
        assert number(value) == pytest.approx(float(known), rel=1e-6), peer
        compared += 1
    if not compared:
        pytest.skip("no peer is installed")


@pytest.mark.framework("torch")
def test_a_torch_without_the_loss_of_a_peer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.delattr(torch.nn.functional, "linear_cross_entropy", raising=False)
    peer = next(peer for peer in PEERS if peer.name == "torch linear_cross_entropy")
    told = StringIO()
    worker = Worker("torch", Place("cpu", "float32", 1), 8, 4, told)
    inputs, arrays = worker.inputs(peer.loss, 16)
    assert worker.begin(peer.loss, Program("peer", peer.name), arrays, len(inputs.embeddings), single=False) is None
    event = json.loads(told.getvalue().splitlines()[-1])
    assert (event["event"], event["program"]) == ("unsupported", peer.name)
    assert event["reason"] == f"torch {torch.__version__} has no linear_cross_entropy"
    row = Time(peer.loss, 16, peer.name, "peer", event["event"], event["reason"])
    page = report.render([replace(made(), times=(*made().times, replace(row, size=4096)))], "")
    assert f"{peer.name}: not run, {event['reason']}" in page


@pytest.mark.parametrize("framework_name", ["numpy", "torch", "jax", "tensorflow"])
def test_the_unit_runs(framework_name: str, need: Any) -> None:
    need(framework_name)
    load(framework_name, Place("cpu", "float32", 1)).products(16, 8, 48)(20)


SAID = [(name, loss) for name, relation in relations().items() for loss in relation.losses]


@pytest.mark.parametrize("framework_name", ["numpy", "torch", "jax", "tensorflow"])
@pytest.mark.parametrize(("name", "loss"), SAID)
def test_a_program_says_its_relation(framework_name: str, name: str, loss: str, need: Any) -> None:
    """In every framework it has the value that it has in NumPy, which is not that of the plain loss."""
    need(framework_name)

    def value(framework: str, relation: str) -> float:
        bench, program = load(framework, Place("cpu", "float64", 1)), Program("ours", "dense", relation=relation)
        inputs = draw(loss, 24, 8, 5, relation)
        arrays = bench.arrays(inputs)
        found = bench.step(bench.ours(loss, program), program, arrays, len(inputs.embeddings))()
        assert len(flat(found[1])) in (1, len(inputs.embeddings))
        return number(found[0])

    want = value("numpy", name)
    assert value(framework_name, name) == pytest.approx(want, rel=1e-10)
    same = name == "positives-bool"  # these are the labels
    assert (want == pytest.approx(value("numpy", ""), rel=1e-10)) == same


def test_the_similarity_matrix_has_the_size() -> None:
    for loss in LOSSES:
        inputs = draw(loss, 32, 8, 5)
        rows = sum(len(x) for x in inputs.embeddings) if shape(loss) == "views" else len(inputs.embeddings[0])
        assert rows == 32


def test_every_program_of_a_loss_has_a_name_of_its_own() -> None:
    for framework in ("numpy", "torch", "jax", "tensorflow"):
        for loss in LOSSES:
            names = [str(program) for program in programs(framework, loss, ENGINES, "cuda", True)]
            assert len(names) == len(set(names))
            assert {"dense", "tiled", "auto", "plain"} <= set(names)
            assert ("kernel" in names) == (framework in ("torch", "jax"))


def test_kernels_are_measured_where_a_device_runs_them(need: Any) -> None:
    need("torch")
    assert "kernel" in command.settings(frameworks=["torch"], device="cuda").engines
    assert "kernel" not in command.settings(frameworks=["torch"], device="cpu").engines
    assert command.settings(frameworks=["torch"], engines=["kernel"]).engines == ("kernel",)


# --- the worker, and its limits ---

QUICK = Settings(
    frameworks=("numpy",), losses=("sincere",), sizes=(16,), runs=2, dim=8, classes=4, peers=False, memory_sizes=(16,)
)


@LINUX
def test_a_run_of_numpy() -> None:
    told: list[str] = []
    result = measure.measure("numpy", QUICK, told.append)
    assert len(told) == measure.count(QUICK)
    assert {row.program for row in result.times} == {"dense", "tiled", "auto", "plain"}
    for row in result.times:
        assert row.status == "ok", row
        assert len(row.seconds) == len(row.unit) == len(row.cpu) == 2
        assert row.value == pytest.approx(result.times[0].value, rel=1e-5)
    assert {row.program: row.status for row in result.memory} == dict.fromkeys(("dense", "tiled", "plain"), "ok")
    assert all(row.inputs == 16 * 8 * 4 + 16 * 8 and row.gradients == 16 * 8 * 4 for row in result.memory)
    assert len(result.overhead[0].checks) == 2
    assert results.from_json(results.to_json(result)).times[0].program == result.times[0].program


@LINUX
def test_a_run_of_relations() -> None:
    """Each relation of each loss is timed beside what it is measured against, and the peak of those that multiply classes."""
    settings = replace(QUICK, losses=LOSSES, engines=("dense",), memory_sizes=(24,), sizes=(24,), relations=True)
    told: list[str] = []
    result = measure.measure("numpy", settings, told.append)
    assert len(told) == measure.count(settings)
    times = {(row.program, row.loss): row for row in result.times}
    assert all(row.status == "ok" and len(row.cpu) == 2 for row in times.values())
    assert times.keys() >= {(f"dense+{name}", loss) for name, loss in SAID}
    assert times.keys() >= {("dense", loss) for _, loss in SAID}
    assert [row.program for row in result.memory] == ["dense", "dense+overlap-any", "dense+overlap-jaccard"]
    text = report.relations([result])
    rows = re.findall(r"^\| `([a-z-]+)` \| `([a-z_]+)` \| (\d+\.\d\d) \|$", text, re.MULTILINE)
    assert [(name, loss) for name, loss, _ in rows] == SAID
    for name, loss, ratio in rows:
        against = relations()[name].against
        plain = times[f"dense+{against}" if against else "dense", loss]
        ratios = np.asarray(times[f"dense+{name}", loss].cpu) / plain.cpu
        assert float(ratio) == round(np.median(ratios), 2)
    assert text.count("dense+overlap") == 2


def test_the_limit_on_a_device_is_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that asks for more is stopped there, and not tried at larger sizes; another error is a failure."""

    class Device(Process):
        def __init__(self, framework: str, settings: Settings, *, memory: bool = False) -> None:
            super().__init__(framework, replace(settings, device="cpu"), memory=memory)
            self.ready = {**self.ready, "device": "An invented device", "memory": 80 * 10**9}

        def events(self, job: dict[str, Any], patient: frozenset[str]) -> Iterator[dict[str, Any]]:
            for event in super().events(job, patient):
                if event["event"] == "first" and event["program"] in ("plain", "tiled"):
                    reason = "OutOfMemoryError: CUDA out of memory" if event["program"] == "plain" else "ValueError: no"
                    yield {"event": "failed", "program": event["program"], "reason": reason}
                else:
                    yield event

    monkeypatch.setattr(measure, "Process", Device)
    settings = replace(QUICK, device="cuda", sizes=(16, 24), engines=("dense", "tiled"), memory=False)
    found = {(row.size, row.program): row for row in measure.measure("numpy", settings, lambda _: None).times}
    assert (found[16, "plain"].status, found[16, "plain"].reason) == ("stopped", "stopped at 80 GB")
    assert (found[24, "plain"].status, found[24, "plain"].reason) == ("skipped", "stopped at 80 GB at N = 16")
    assert (found[16, "tiled"].status, found[24, "tiled"].reason) == ("failed", "ValueError: no")
    assert found[24, "dense"].status == "ok"


def test_a_call_that_is_too_long_is_stopped_and_the_rest_is_measured() -> None:
    """No call is as short as a nanosecond; ours may take longer."""
    result = measure.measure("numpy", replace(QUICK, memory=False, sizes=(2048, 2064), seconds=1e-9), lambda _: None)
    found = {(row.size, row.program): row for row in result.times}
    assert found[2048, "plain"].status == "stopped"
    assert "stopped at" in found[2048, "plain"].reason
    assert found[2064, "plain"].status == "skipped"
    assert "N = 2048" in found[2064, "plain"].reason
    assert found[2048, "dense"].status == found[2064, "tiled"].status == "ok"


@LINUX
def test_a_process_that_is_too_large_is_stopped() -> None:
    job = {"job": "memory", "loss": "sincere", "size": 4096, "program": {"kind": "plain", "name": "plain"}}
    with closing(Process("numpy", replace(QUICK, bytes=20 * 10**6))) as process, pytest.raises(Stopped, match="GB"):
        list(process.events(job, frozenset()))


def test_a_worker_that_cannot_start_says_why() -> None:
    with pytest.raises(Died, match="bfloat16"):
        Process("numpy", replace(QUICK, dtype="bfloat16"))


@LINUX
def test_the_peak_is_that_of_the_call() -> None:
    earlier = np.ones(40_000_000 // 8)
    del earlier
    peak = Peak()
    now = np.ones(16_000_000 // 8)
    del now
    assert 15_000_000 < peak.bytes() < 30_000_000
    assert resident() is not None


def test_threads_are_settled_in_the_environment() -> None:
    found = environment(replace(QUICK, threads=3))
    assert {found[name] for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "NPROC")} == {"3"}
    assert "intra_op_parallelism_threads=3" in found["XLA_FLAGS"]


def test_only_peaks_of_memory_are_measured_without_the_allocator_of_one_dnn() -> None:
    assert environment(QUICK, memory=True)["TF_ENABLE_ONEDNN_OPTS"] == "0"
    assert environment(QUICK).get("TF_ENABLE_ONEDNN_OPTS") == os.environ.get("TF_ENABLE_ONEDNN_OPTS")


# --- the reports ---


def made() -> Result:
    """A result of every kind of row."""
    times = [
        Time(
            "sincere",
            size,
            program,
            kind,
            "ok",
            "",
            (size**2 * factor,) * 3,
            (size**2 * factor,) * 3,
            (size**2 * 1e-9,) * 3,
        )
        for size in (128, 4096, 8192)
        for program, kind, factor in (("tiled", "ours", 3e-9), ("auto", "ours", 3e-9), ("plain", "plain", 2e-8))
    ]
    times.append(Time("sincere", 128, "a peer", "peer", "ok", "", (1.0,), (1.0,), (0.01,)))
    times.append(Time("sincere", 4096, "a peer", "peer", "stopped", "stopped at 60 s"))
    times.append(Time("sincere", 8192, "a peer", "peer", "skipped", "stopped at 60 s at N = 4096"))
    times.append(Time("sincere", 4096, "dense", "ours", "unsupported", "none"))
    memory = (
        Memory("sincere", 8192, "tiled", "ours", "ok", extra=12 * 10**6, gradients=4 * 10**6),
        Memory("sincere", 8192, "plain", "plain", "stopped", "stopped at 8 GB"),
    )
    machine = {"cpu": "a processor", "cores": 2}
    settings = {"threads": 1, "dtype": "float32", "dim": 128, "classes": 100, "runs": 5}
    overhead = (Overhead("sincere", 8, (42e-6,), (1e-3,), (1e-3,)),)
    return Result(
        "torch",
        "cpu",
        machine,
        {"torch": "2.0"},
        "abcdef0123456789",
        "2026-01-02T",
        settings,
        tuple(times),
        memory,
        overhead,
    )


def test_a_result_is_the_same_after_its_file(tmp_path: Path) -> None:
    path = results.write(made(), tmp_path)
    assert path.name == "torch-cpu.json"
    (read,) = results.read(tmp_path)
    assert results.to_json(read) == results.to_json(made())
    assert [row.program for row in read.times] == [row.program for row in made().times]
    with pytest.raises(ValueError, match="schema"):
        results.from_json(json.dumps({"schema": 0}))


def test_the_tables_say_what_was_measured() -> None:
    text = report.render([made()], "folder")
    assert "3.0 units, 50 ms" in text
    assert "a peer: stopped at 60 s" in text
    assert "at most 4.0 x" in text
    assert "| 0.15 |" in text
    assert "42 µs" in text
    assert "8 MB" in text
    assert "folder/torch-cpu.svg" in text
    assert "busy" not in text
    slow = [replace(row, cpu=tuple(0.5 * x for x in row.cpu)) for row in made().times]
    assert "The machine was busy" in report.render([replace(made(), times=tuple(slow))], "folder")


def test_the_figure_is_the_same_for_the_same_result(need: Any, tmp_path: Path) -> None:
    need("matplotlib")
    first = plots.write(made(), tmp_path).read_bytes()
    assert first == plots.write(made(), tmp_path).read_bytes()
    for word in (b"tiled", b"plain formula", b"a peer", b"60 s", b"8 GB"):
        assert word in first, word


def test_a_readme_is_rewritten_between_its_markers_only() -> None:
    text = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"
    assert report.rewrite(text, "new") == f"before\n{report.BEGIN}\nnew\n{report.END}\nafter\n"
    assert report.block(report.rewrite(text, "new\n\nlines")) == "new\n\nlines"
    with pytest.raises(ValueError, match="bench:begin"):
        report.rewrite("nothing", "new")


def test_the_page_has_the_tables_of_the_committed_results() -> None:
    page = ROOT / command.PAGE
    text = page.read_text(encoding="utf-8")
    assert report.block(text) == command.tables(ROOT / command.RESULTS, page), "run sincere-spec bench --render"


def test_the_page_of_relations_has_the_tables_of_the_committed_results() -> None:
    """And the peak of classes in common is a third of a matrix of 12 000 x 12 000 numbers, and less."""
    found = results.read(ROOT / command.RELATION_RESULTS)
    assert {result.framework for result in found} >= {"torch", "numpy"}
    text = (ROOT / command.RELATION_PAGE).read_text(encoding="utf-8")
    assert report.block(text) == report.relations(found), "run sincere-spec bench --relations --render"
    for result in found:
        assert {row.status for row in (*result.times, *result.memory)} == {"ok"}
        peaks = {row.program: row.extra for row in result.memory if row.size == 12000}
        assert {"auto+overlap-any", "auto+overlap-jaccard"} <= peaks.keys()
        assert max(peaks.values()) < 200 * 10**6


# --- the crossover ---


def rows(seconds: dict[int, tuple[float, float]]) -> Iterator[Time]:
    for size, (dense, tiled) in seconds.items():
        yield Time("sincere", size, "dense", "ours", "ok", seconds=(dense,), unit=(1.0,))
        yield Time("sincere", size, "tiled@512", "ours", "ok", seconds=(tiled,), unit=(1.0,))


@pytest.mark.parametrize(
    ("seconds", "pairs"),
    [
        ({128: (1, 2), 256: (2, 3), 512: (5, 4)}, 256 * 512),
        ({128: (2, 1), 256: (2, 3), 512: (5, 4)}, 256 * 512),
        ({128: (2, 1), 256: (3, 2)}, 128 * 128),
        ({128: (1, 2), 256: (2, 3)}, None),
        ({}, None),
    ],
)
def test_the_first_win_is_after_the_last_loss(seconds: dict[int, tuple[float, float]], pairs: int | None) -> None:
    assert crossover.first_win(list(rows(seconds)), "dense", "tiled@512") == pairs


@pytest.mark.parametrize(
    ("seconds", "pairs"),
    [
        ({128: (1, 2), 256: (2, 3), 512: (5, 4)}, 256 * 512),
        ({128: (1, 2), 256: (5, 4), 512: (2, 9), 1024: (9, 2)}, 512 * 1024),
        ({128: (2, 1), 256: (3, 2)}, 128 * 128),
        ({128: (1, 2), 256: (2, 3)}, 4096 * 4096),
        ({}, 4096 * 4096),
    ],
)
def test_one_crossover_loses_least(seconds: dict[int, tuple[float, float]], pairs: int) -> None:
    assert crossover.least_loss(list(rows(seconds)), [("dense", "tiled@512")]) == pairs


def test_every_loss_and_mode_has_a_say_in_the_crossover() -> None:
    times = [
        Time("sincere", size, name + mode, "ours", "ok", seconds=(float(seconds),))
        for mode, dense in (("", (1, 1, 1)), ("-xla", (1, 9, 9)))
        for size, both in zip((128, 256, 512), dense, strict=True)
        for name, seconds in (("dense", both), ("tiled@512", 2))
    ]
    pairs = [("dense", "tiled@512"), ("dense-xla", "tiled@512-xla")]
    assert crossover.least_loss(times, pairs) == 128 * 256
    assert crossover.least_loss(times, pairs[:1]) == 4096 * 4096


def test_the_best_tile_is_best_over_all_losses() -> None:
    times = [
        Time(loss, 64, f"tiled@{tile}", "ours", "ok", seconds=(seconds,))
        for loss, tile, seconds in (("a", 8, 1.0), ("b", 8, 9.0), ("a", 16, 2.0), ("b", 16, 2.0), ("a", 32, 0.1))
    ]
    assert crossover.best_tile(times) == 16
    assert crossover.best_tile([]) is None


# --- the command ---


def bench(*options: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "sincere_spec.cli", "bench", *map(str, options)]
    return subprocess.run(
        words, cwd=cwd, env=environment(QUICK), capture_output=True, text=True, timeout=120, check=False
    )


def test_the_command_measures_writes_and_prints_json(tmp_path: Path) -> None:
    options = ("--framework", "numpy", "--loss", "clip", "--size", 16, "--size", 32, "--dim", 8, "--no-memory")
    done = bench(*options, "--quick", "--output", tmp_path / "out", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (printed,) = json.loads(done.stdout)
    assert printed == json.loads((tmp_path / "out" / "numpy-cpu.json").read_text(encoding="utf-8"))
    assert {row["size"] for row in printed["times"]} == {16, 32}
    assert "numpy: clip N=32" in done.stderr

    (page := tmp_path / "docs" / "speed.md").parent.mkdir()
    page.write_text(f"{report.BEGIN}\n{report.END}\n", encoding="utf-8")
    if (tmp_path / "out" / "numpy-cpu.svg").exists():  # where matplotlib is installed
        assert bench("--render", "--output", "out", cwd=tmp_path).returncode == 0
        assert "(../out/numpy-cpu.svg)" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--framework", "nmupy"), 'did you mean "numpy"'),
        (("--loss", "supcn"), 'did you mean "supcon"'),
        (("--size", "3"), "size must be at least 8"),
        (("--render", "--output", "nowhere"), "no folder with results"),
    ],
)
def test_the_command_refuses_what_it_cannot_run(options: tuple[str, ...], words: str, tmp_path: Path) -> None:
    done = bench(*options, cwd=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr


def test_a_framework_that_is_named_and_missing_cannot_be_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    with pytest.raises(command.CannotRun, match="torch is not installed"):
        command.settings(frameworks=["torch"])
    with pytest.raises(command.CannotRun, match="no framework"):
        command.settings()


def test_a_quick_run_is_small_and_elsewhere() -> None:
    chosen = command.settings(quick=True)
    assert max(chosen.sizes) <= 1024
    assert command.QUICK_RESULTS != command.RESULTS


def test_the_page_of_several_devices_has_what_was_measured() -> None:
    root = Path(__file__).parents[1]
    found = json.loads((root / "benchmarks" / "ranks.json").read_text(encoding="utf-8"))["results"]
    page = (root / "docs" / "distributed.md").read_text(encoding="utf-8")
    assert {one["W"] for one in found} == {2, 8, 64, 256}
    for one in found:
        width, rows = 4 * one["d"], one["N"] // one["W"]
        gathered = (one["N"] - rows) * width * (1 if one["loss"] == "sincere" else 2)
        assert gathered < one["received_bytes"] < 1.1 * gathered
        if one["tile"] == 528:  # the default
            numbers = f"{one['units']:.1f} | {one['received_bytes'] / 1e6:.2f} MB | {one['peak_bytes'] / 1e6:.0f} MB |"
            assert f"| {one['loss']} | {one['W']} | {rows} | {numbers}" in page
