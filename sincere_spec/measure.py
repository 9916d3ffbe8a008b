"""The body of `sincere-spec measure`: embeddings and labels from files, every measure of them, and a figure."""

from __future__ import annotations

import csv
import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sincere_spec import losses, metrics
from sincere_spec.errors import unknown_choice
from sincere_spec.spec.words import PairLoss

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOSSES: dict[str, Callable[[float], PairLoss]] = {
    "sincere": losses.sincere,
    "supcon": losses.supcon,
    "supcon_in": lambda temperature: losses.supcon(temperature, summation="in"),
    "decoupled": losses.decoupled,
}
FRAMEWORKS = ("numpy", "torch", "jax", "tensorflow")
FIGURES = (".svg", ".png", ".pdf")
HEADINGS = {"label", "labels", "class", "classes", "target", "targets", "y"}


class CannotMeasure(ValueError):
    """Files that cannot be measured: one line, for the command line."""


def run(
    embeddings: str,
    labels: str,
    *,
    keys: tuple[str, str] | None,
    loss: str,
    temperature: float,
    k: tuple[int, ...],
    framework: str,
    as_json: bool,
    figure: Path | None,
    bootstrap: int,
    seed: int,
) -> None:
    """Measure, print, and draw; raises CannotMeasure or a SincereSpecError before anything is written."""
    for word, value, choices in (("loss", loss or "sincere", LOSSES), ("framework", framework, FRAMEWORKS)):
        if value not in choices:
            raise unknown_choice(word, value, choices)
    if figure is not None and (figure.suffix not in FIGURES or not figure.parent.is_dir()):
        raise CannotMeasure(f"--figure is a file of {', '.join(FIGURES)} in a folder that is there; got {figure}")
    record = LOSSES[loss](temperature) if loss else None
    rows, classes = _both(embeddings, labels)
    given: dict[str, Any] = {"embeddings": _array(framework, rows), "labels": classes}
    if keys is not None:
        key_rows, key_classes = _both(*keys)
        if key_rows.shape[1] != rows.shape[1]:
            raise CannotMeasure(
                f"{embeddings} has rows of {rows.shape[1]} numbers and {keys[0]} of {key_rows.shape[1]}"
            )
        given |= {"keys": _array(framework, key_rows.astype(rows.dtype, copy=False)), "key_labels": key_classes}
    elif len(set(classes)) < 2:
        raise CannotMeasure(
            f"all rows of {labels} are of one class, {classes[0]!r}; there is nothing to compare them with"
        )
    found = metrics.report(**given, loss=record, k=k, bootstrap=bootstrap, seed=seed)
    if figure is not None:
        nearest = metrics.nearest_similarities(**given)
        _save(histograms(*(np.asarray(_numpy(framework, x), np.float64) for x in nearest[:2])), figure)
    if as_json:
        files = {"embeddings": embeddings, "labels": labels, "keys": None if keys is None else list(keys)}
        said = {**files, "framework": framework, "bootstrap": bootstrap, "seed": seed, **found.to_dict()}
        sys.stdout.write(json.dumps(said, indent=1) + "\n")
        return
    sys.stdout.write(f"{found}\n")
    if bootstrap:
        sys.stdout.write(f"[low, high]: 95 % of {bootstrap} resamples of the rows, seed {seed}\n")


def _both(embeddings: str, labels: str) -> tuple[np.ndarray[Any, Any], list[Any]]:
    """Rows and their labels, checked against each other."""
    rows, classes = _embeddings(embeddings), _labels(labels)
    if len(rows) != len(classes):
        raise CannotMeasure(f"{embeddings} has {len(rows)} rows and {labels} {len(classes)} labels; give one for each")
    return rows, classes


def _embeddings(name: str) -> np.ndarray[Any, Any]:
    """A finite matrix of floating-point numbers."""
    values = _read(name, _floats)
    if values.ndim != 2 or not len(values):
        raise CannotMeasure(f"{name}: expected embeddings of shape [rows, d]; got {values.shape}")
    if values.dtype.kind != "f":
        raise CannotMeasure(f"{name}: expected floating-point numbers; got {values.dtype}: convert them")
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        more = ", ..." if len(bad) > 5 else ""
        raise CannotMeasure(
            f"{name}: {len(bad)} rows have NaN or infinity: {', '.join(map(str, bad[:5]))}{more} (from 0 on)"
        )
    return values


def _labels(name: str) -> list[Any]:
    """One class a row: integers, strings, or one-hot rows."""
    values = _read(name, _words)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if (
        values.ndim == 2
        and values.dtype.kind in "iufb"
        and ((values == 0) | (values == 1)).all()
        and (values.sum(1) == 1).all()
    ):
        values = values.argmax(1)
    if values.ndim != 1:
        raise CannotMeasure(f"{name}: expected one label a row; got shape {values.shape}")
    if values.dtype.kind == "f" and not (np.isfinite(values) & (values == np.floor(values))).all():
        bad = np.flatnonzero(~(np.isfinite(values) & (values == np.floor(values))))
        raise CannotMeasure(f"{name}: labels are classes; row {bad[0]} (from 0 on) has {values[bad[0]]}")
    if values.dtype.kind in "US":
        empty = np.flatnonzero(np.char.str_len(np.char.strip(values)) == 0)
        if len(empty):
            raise CannotMeasure(f"{name}: {len(empty)} labels are missing, the first in row {empty[0]} (from 0 on)")
    labels: list[Any] = (values.astype(np.int64) if values.dtype.kind in "fb" else values).tolist()
    return labels


def _read(name: str, read_csv: Callable[[Path], np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """An array from a file; nothing in it is executed."""
    path, member = Path(name), ""
    if not path.is_file() and ".npz:" in name:
        file, _, member = name.rpartition(":")
        path = Path(file)
    if not path.is_file():
        raise CannotMeasure(f"{path}: no such file")
    try:
        if path.suffix == ".npz":
            return _member(path, member)
        if path.suffix == ".npy":
            return np.asarray(np.load(path, allow_pickle=False))
        if path.suffix == ".csv":
            return read_csv(path)
        if path.suffix == ".pt":
            return _tensor(path)
    except CannotMeasure:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        why = "it holds Python objects, which are never loaded" if "pickle" in str(error).lower() else str(error)
        raise CannotMeasure(f"{path}: {why.splitlines()[0]}") from None
    raise CannotMeasure(f"{path}: expected a file of .npy, .npz, .csv or .pt")


def _member(path: Path, member: str) -> np.ndarray[Any, Any]:
    with np.load(path, allow_pickle=False) as file:
        names = list(file.files)
        if not member and len(names) != 1:
            raise CannotMeasure(
                f"{path} has {', '.join(names) or 'no array'}: say which, as {path}:{(names or ['name'])[0]}"
            )
        if member and member not in names:
            raise CannotMeasure(f"{path} has no {member}, but {', '.join(names)}")
        return np.asarray(file[member or names[0]])


def _tensor(path: Path) -> np.ndarray[Any, Any]:
    try:
        import torch
    except ImportError:
        raise CannotMeasure(f"{path}: torch, which reads .pt files, is not installed; save an .npy file") from None
    try:
        value = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a file of other bytes makes it raise
        raise CannotMeasure(f"{path}: torch cannot load it with weights_only=True ({type(error).__name__})") from None
    if not isinstance(value, torch.Tensor):
        raise CannotMeasure(f"{path}: expected one tensor; got a {type(value).__name__}")
    value = value.detach()
    return np.asarray((value.float() if value.dtype is torch.bfloat16 else value).numpy())


def _rows(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        return [row for row in csv.reader(file) if row]


def _floats(path: Path) -> np.ndarray[Any, Any]:
    """A table of numbers, which may have a line of headings."""
    rows = _rows(path)
    start = 1 if rows and not _is_number(rows[0][0]) else 0
    widths = {len(row) for row in rows[start:]}
    if len(widths) > 1:
        raise CannotMeasure(f"{path}: its lines have {min(widths)} to {max(widths)} numbers")
    try:
        return np.asarray([[float(cell) for cell in row] for row in rows[start:]], np.float64)
    except ValueError as error:
        raise CannotMeasure(f"{path}: {error}") from None


def _words(path: Path) -> np.ndarray[Any, Any]:
    """One label a line, all integers or all words; a first line of "label", "class" or the like is a heading."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = [row if row else [""] for row in csv.reader(file)]
    if rows and rows[0][0].strip().lower() in HEADINGS:
        rows = rows[1:]
    if any(len(row) != 1 for row in rows):
        raise CannotMeasure(
            f"{path}: expected one label a line; got {len(next(row for row in rows if len(row) != 1))} cells"
        )
    words = [row[0].strip() for row in rows]
    try:  # numbers are equal to those of another file, however they are written
        return np.asarray([int(word) for word in words])
    except ValueError:
        return np.asarray(words, dtype=np.str_)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _array(framework: str, rows: np.ndarray[Any, Any]) -> Any:
    """The rows in a framework."""
    try:
        if framework == "torch":
            import torch

            return torch.from_numpy(np.ascontiguousarray(rows))
        if framework == "jax":
            import jax.numpy

            return jax.numpy.asarray(rows)
        if framework == "tensorflow":
            import tensorflow

            return tensorflow.constant(rows)
    except ImportError as error:
        raise CannotMeasure(f"{framework} is not installed ({error})") from None
    return rows


def _numpy(framework: str, x: Any) -> Any:
    return x.numpy() if framework in ("torch", "tensorflow") else x


def histograms(target: np.ndarray[Any, Any], noise: np.ndarray[Any, Any]) -> Figure:
    """SINCERE's two histograms, with dotted medians."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.0, 3.2), layout="constrained")
    axes = figure.subplots()
    shown = [x[~np.isnan(x)] for x in (target, noise)]
    low = min((float(x.min()) for x in shown if len(x)), default=-1.0)
    for values, name, colour in zip(shown, ("target", "noise"), ("#0072B2", "#D55E00"), strict=True):
        if len(values):
            median = float(np.median(values))
            label = f"nearest {name}, median {median:.3f}"
            axes.hist(values, bins=60, range=(low, 1.0), alpha=0.5, color=colour, label=label)
            axes.axvline(median, color=colour, linestyle=":")
    axes.set_xlabel("cosine similarity")
    axes.set_ylabel("rows")
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _save(figure: Figure, path: Path) -> None:
    """Write a figure, whole or not at all."""
    draft = path.with_name(f".{path.name}.draft{path.suffix}")
    try:
        figure.savefig(draft, dpi=150)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
