"""The body of `sincere-spec study`."""

from __future__ import annotations

import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from sincere_spec.errors import unknown_choice
from sincere_spec.study import report
from sincere_spec.study.data import DataError, find
from sincere_spec.study.run import CannotRun, Progress, study, total_steps
from sincere_spec.study.settings import PARTS, QUICK_PARTS, SUPERVISED, Settings
from sincere_spec.study.train import FRAMEWORKS, installed

SIZES = {"fashion": 60_000, "cifar10": 50_000, "digits": 1297}
CLASSES = 10
DIGITS_EPOCHS = 40
QUICK_EPOCHS = 14

__all__ = ["CannotRun", "DataError", "run", "settings"]


def settings(
    *,
    parts: tuple[str, ...],
    framework: str,
    losses: tuple[str, ...],
    seeds: int,
    images: int,
    epochs: int | None,
    quick: bool,
    digits: bool,
) -> Settings:
    """The settings of a call; raises OptionError or CannotRun."""
    for word, value, choices in (
        *(("part", part, PARTS) for part in parts),
        *(("loss", loss, SUPERVISED) for loss in losses),
        ("framework", framework or "all", (*FRAMEWORKS, "all")),
    ):
        if value not in choices:
            raise unknown_choice(word, value, choices)
    for word, number in (("seeds", seeds), ("images", images), ("epochs", 1 if epochs is None else epochs)):
        if number < 1:
            raise CannotRun(f"--{word} must be 1 or more; got {number}")
    there = list(installed())
    if framework not in ("", "all") and framework not in there:
        raise CannotRun(f"{framework} is not installed; there are {', '.join(there)}")
    trains = there[0] if framework in ("", "all") else framework
    compared = there if framework == "all" else [trains]
    if epochs is None:
        epochs = QUICK_EPOCHS if quick else DIGITS_EPOCHS if digits else 8
    return Settings(
        parts=parts or (QUICK_PARTS if quick else PARTS),
        framework=trains,
        compared=("numpy", *(name for name in compared if name != "numpy")),
        losses=losses or SUPERVISED,
        seeds=seeds,
        images=images,
        epochs=epochs,
    )


def run(
    *,
    parts: tuple[str, ...],
    data: str,
    framework: str,
    losses: tuple[str, ...],
    seeds: int | None,
    images: int,
    epochs: int | None,
    quick: bool,
    output: Path,
    keep: bool,
    as_json: bool,
) -> int:
    """Run a study and write its report; the exit status."""
    found = find(data or ("digits" if quick else ""))
    seeds = (1 if quick else 3) if seeds is None else seeds
    digits = found.name == "digits"
    chosen = settings(
        parts=parts,
        framework=framework,
        losses=losses,
        seeds=seeds,
        images=images,
        epochs=epochs,
        quick=quick,
        digits=digits,
    )
    output.mkdir(parents=True, exist_ok=True)
    said = sys.stderr if as_json else sys.stdout
    said.write(found.sentence + "\n")
    latest: dict[str, Any] = {}

    def save(made: dict[str, Any]) -> None:
        latest.update(made)
        publish({"study.json": report.to_json(made).encode()}, output)

    progress = Progress(total_steps(chosen, SIZES[found.name], CLASSES), quiet=not sys.stderr.isatty())
    cut = None
    try:
        with progress.bar:
            study(chosen, found, progress.tell, save, output / "runs" if keep else None)
    except KeyboardInterrupt:
        cut = "interrupted"
    except CannotRun as error:
        cut = str(error)
    if not latest:
        raise CannotRun(cut or "nothing was run")
    paths = write(latest, output)
    if as_json:
        sys.stdout.write(report.to_json(latest))
    else:
        for claim in latest["claims"]:
            sys.stdout.write(f"{claim['verdict']:>18}  {claim['claim']}\n")
        sys.stdout.write(", ".join(str(path) for path in paths) + "\n")
    if cut is not None:
        raise CannotRun(f"{cut}; {output} has what was done")
    return 0


def write(made: dict[str, Any], output: Path) -> tuple[Path, ...]:
    """study.json, the figures as SVG and PNG, study.md and study.html."""
    from sincere_spec.study import plots

    drawn = plots.render(made)
    files = {"study.json": report.to_json(made).encode()}
    pictures = {}
    for name, (_, _, figure) in drawn.items():
        pictures[name] = plots.encoded(figure, "svg")
        files |= {f"{name}.svg": pictures[name], f"{name}.png": plots.encoded(figure, "png")}
    text = report.markdown(made, {name: shows for name, (shows, _, _) in drawn.items()})
    files |= {"study.md": text.encode(), "study.html": report.page(text, pictures).encode()}
    return publish(files, output)


def publish(files: dict[str, bytes], folder: Path) -> tuple[Path, ...]:
    """Write files, each of which is whole or not there at all."""
    drafts: dict[Path, Path] = {}
    try:
        for name, data in files.items():
            with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{name}.", delete=False) as draft:
                drafts[folder / name] = Path(draft.name)
                draft.write(data)
        for path, whole in drafts.items():
            whole.chmod(0o644)
            whole.replace(path)
    finally:
        for whole in drafts.values():
            with suppress(FileNotFoundError):
                whole.unlink()
    return tuple(drafts)
