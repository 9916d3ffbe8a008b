"""The pictures of the site, drawn from gradients of this package: `python docs/make/pictures.py` writes docs/pictures/."""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "pictures"
sys.path.insert(0, str(ROOT))

import sincere_spec as ss  # noqa: E402

INK, ANCHOR = "#333a45", "#111111"
CLASSES = ("#0a66c2", "#d9822b", "#7a52a8")
PULL, PUSH, NOTHING = "#2a7f4f", "#c0392b", "#e8eaed"
ANGLES = np.radians([90, 78, 40, 5, 140, 168, 200, 262, 290, 318])
LABELS = [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]


def points() -> np.ndarray:
    """The embeddings of the first picture: an anchor, then others on the circle."""
    return np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)


def moves(name: str) -> np.ndarray:
    """Where the loss of the anchor moves each other row along the circle, in radians a step; positive is anticlockwise."""
    z = points()
    record = getattr(ss.losses, name)(temperature=0.5)
    _, gradient = ss.value_and_gradient(record, z[:1], LABELS[:1], keys=z[1:], key_labels=LABELS[1:])
    tangent = np.stack([-z[1:, 1], z[1:, 0]], axis=1)
    return -np.sum(np.asarray(gradient.keys) * tangent, axis=1)


def sincere_and_supcon() -> None:
    """Two circles, with an arrow at each row."""
    z = points()
    with plt.rc_context({"svg.hashsalt": "sincere-spec", "font.family": "DejaVu Sans", "font.size": 11}):
        figure, axes = plt.subplots(1, 2, figsize=(8.4, 4.4))
        for axis, (name, title) in zip(axes, (("supcon", "SupCon"), ("sincere", "SINCERE")), strict=True):
            axis.add_patch(plt.Circle((0, 0), 1, fill=False, color="#cfd4da", linewidth=1.2))
            step = moves(name)
            largest = np.max(np.abs(step))
            for row, angle, move, label in zip(z[1:], ANGLES[1:], step, LABELS[1:], strict=True):
                towards = angle + np.sign(move) * (0.08 + 0.42 * abs(move) / largest)
                end = 1.13 * np.array([np.cos(towards), np.sin(towards)])
                start = 1.13 * row
                pulled = (
                    np.dot(
                        np.array([np.cos(angle + 0.01 * np.sign(move)), np.sin(angle + 0.01 * np.sign(move))]) - row,
                        z[0],
                    )
                    > 0
                )
                axis.annotate(
                    "",
                    end,
                    start,
                    arrowprops={"arrowstyle": "-|>", "color": PULL if pulled else PUSH, "linewidth": 2.0},
                )
                axis.plot(*row, "o", color=CLASSES[label], markersize=9)
            axis.plot(*z[0], "*", color=CLASSES[0], markersize=19, markeredgecolor=ANCHOR)
            axis.text(0, 0.02, title, ha="center", va="center", fontsize=15, color=INK, weight="bold")
            axis.set_xlim(-1.5, 1.5)
            axis.set_ylim(-1.5, 1.5)
            axis.set_aspect("equal")
            axis.axis("off")
        words = "star: the anchor; same colour: its class; green: moved towards it, red: away"
        figure.text(0.5, 0.03, words, ha="center", color=INK, fontsize=10)
        figure.subplots_adjust(0, 0.06, 1, 1, 0, 0)
        _save(figure, "sincere-supcon")


def pairs(name: str) -> tuple[np.ndarray, list[str], list[str]]:
    """The sign with which the loss moves each similarity: rows by columns, with their names; 0 where nothing is compared."""
    record = getattr(ss.losses, name)()
    n = 6
    if name in ("sincere", "supcon", "decoupled"):
        z = np.eye(n)
        _, g = ss.value_and_gradient(record, z, [0, 0, 0, 1, 1, 2], normalize=False, reduction="sum")
        names = ["a", "a", "a", "b", "b", "c"]
        return -np.sign(np.round(np.asarray(g), 12)), names, names
    if name in ("nt_xent", "hcl", "dystress", "f_micl"):
        views = np.eye(n).reshape(2, 3, n)
        _, g = ss.value_and_gradient(record, *views, normalize=False, reduction="sum")
        names = ["1", "2", "3", "1'", "2'", "3'"]
        return -np.sign(np.round(np.concatenate([np.asarray(x) for x in g]), 12)), names, names
    a, b = np.eye(2 * n)[:n], np.eye(2 * n)[n:]
    _, g = ss.value_and_gradient(record, a, b, normalize=False, reduction="sum")
    rows = [f"a{k + 1}" for k in range(n)]
    return -np.sign(np.round(np.asarray(g[0]) @ b.T, 12)), rows, [f"b{k + 1}" for k in range(n)]


def of_pairs(name: str) -> None:
    """A square for each pair of rows: pulled together, pushed apart, or not compared."""
    signs, rows, columns = pairs(name)
    with plt.rc_context({"svg.hashsalt": "sincere-spec", "font.family": "DejaVu Sans", "font.size": 10}):
        figure, axis = plt.subplots(figsize=(2.9, 2.9))
        axis.imshow(signs, cmap=ListedColormap([PUSH, NOTHING, PULL]), vmin=-1, vmax=1)
        axis.set_xticks(range(len(columns)), columns)
        axis.set_yticks(range(len(rows)), rows)
        axis.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
        axis.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
        axis.grid(which="minor", color="white", linewidth=2)
        axis.tick_params(which="both", length=0, colors=INK)
        axis.spines[:].set_visible(False)
        figure.subplots_adjust(0.12, 0.1, 0.98, 0.98)
        _save(figure, f"pairs-{name}")


def _save(figure: plt.Figure, name: str) -> None:
    figure.savefig(
        FOLDER / f"{name}.svg", metadata={"Date": None, "Creator": None}, transparent=False, facecolor="white"
    )
    plt.close(figure)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    sincere_and_supcon()
    for loss in ss.losses.__all__:
        of_pairs(loss)
