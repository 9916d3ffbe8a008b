"""The figures of a study, each from study.json alone."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import TYPE_CHECKING, Any

from sincere_spec.study.measures import BINS
from sincere_spec.study.parts.temperature import TEMPERATURES, name_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Study = dict[str, Any]

# Okabe and Ito's colours, which the colour-blind can tell apart.
COLOURS = {
    "sincere": "#0072B2",
    "supcon_out": "#D55E00",
    "supcon_in": "#E69F00",
    "cross_entropy": "#999999",
    "dystress": "#009E73",
    "f_micl kl": "#CC79A7",
    "f_micl js": "#56B4E9",
    "f_micl pearson": "#000000",
    "torch": "#D55E00",
    "jax": "#0072B2",
    "tensorflow": "#E69F00",
    "one ulp": "#999999",
    "numpy": "#000000",
}
SHOWN = {
    "sincere": "SINCERE",
    "supcon_out": "SupCon-out",
    "supcon_in": "SupCon-in",
    "cross_entropy": "cross-entropy (h)",
    "dystress": "DySTreSS",
    "f_micl kl": "f-MICL KL",
    "f_micl js": "f-MICL JS",
    "f_micl pearson": "f-MICL Pearson",
}


def render(study: Study) -> dict[str, tuple[str, str, Figure]]:
    """By file name, what a figure shows, and the figure; only those that there is something for."""
    found: dict[str, tuple[str, str, Figure]] = {}
    figures: dict[str, tuple[str, Callable[[Study], Figure | None]]] = {
        "histograms": (
            "Cosine similarity of test images to the nearest training image of their class (target) and of another class "
            "(noise), by loss; dotted lines are medians. First seed.",
            histograms,
        ),
        "repulsion": (
            "Share of same-class pairs that a loss pushes apart, and of rows with such a pair, in training batches; a line for "
            "each seed.",
            repulsion,
        ),
        "class-size": (
            "SupCon-out on the embeddings that it trained, as the class grows: in balanced batches of 10 classes, and one class "
            "against 200 negatives; three temperatures, the mean over seeds.",
            class_size,
        ),
        "accuracy": (
            "What the supervised losses lead to, a dot for each seed and a bar for the mean; the dashed line is a linear "
            "classifier of raw pixels.",
            accuracy,
        ),
        "temperature": (
            "Uniformity and tolerance of test images, of the backbone's h and of the head's z: NT-Xent at five temperatures, "
            "DySTreSS and f-MICL; means over seeds.",
            plane,
        ),
        "equivalence": (
            "Relative difference of the loss from NumPy's at each step of one training; grey is NumPy against itself with one "
            "weight matrix a unit in the last place away.",
            equivalence,
        ),
        "bound": (
            "Lower bound of the KL divergence of a class from the others, in nats, by SINCERE on held-out images, against the "
            "number of images; the dashed line is the largest value that the bound can have.",
            bound,
        ),
    }
    for name, (shows, draw) in figures.items():
        drawn = draw(study)
        if drawn is not None:
            found[name] = (shows, name, drawn)
    return found


def encoded(figure: Figure, kind: str) -> bytes:
    """A figure as a file: the same bytes for the same figure."""
    import matplotlib

    target = BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "sincere-spec", "svg.fonttype": "none"}):
        figure.savefig(target, format=kind, dpi=110, metadata={"Date": None} if kind == "svg" else {})
    text = target.getvalue()
    if kind == "svg":
        text = b"\n".join(line.rstrip() for line in text.splitlines()) + b"\n"
    return text


def _grid(rows: int, columns: int, width: float = 3.2, height: float = 2.8, **options: Any) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, **options)
    for axes in grid.flat:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    return figure, grid


def _runs(study: Study, name: str) -> list[dict[str, Any]]:
    return [run for run in study["runs"] if run["name"] == name]


def _mean(study: Study, name: str, measure: str) -> float | None:
    values = [run["measures"][measure] for run in _runs(study, name) if run["measures"].get(measure) is not None]
    return sum(values) / len(values) if values else None


def histograms(study: Study) -> Figure | None:
    """SINCERE's figures 2 and 3."""
    names = [name for name in SHOWN if any("histograms" in run["measures"] for run in _runs(study, name))]
    if not names:
        return None
    figure, grid = _grid(1, len(names), sharey=True, sharex=True)
    edges = [-1.0 + 2.0 * i / BINS for i in range(BINS + 1)]
    for axes, name in zip(grid[0], names, strict=True):
        measures = _runs(study, name)[0]["measures"]
        for kind, colour in (("target", "#0072B2"), ("noise", "#D55E00")):
            axes.stairs(measures["histograms"][kind], edges, fill=True, alpha=0.5, color=colour, label=kind)
            axes.axvline(measures[kind], color=colour, linestyle=":", linewidth=1.2)
        axes.set_title(SHOWN[name], fontsize=9)
        axes.set_xlabel("cosine similarity", fontsize=8)
        axes.set_xlim(0.4, 1.01)
    grid[0][0].set_ylabel("test images", fontsize=8)
    grid[0][0].legend(frameon=False, fontsize=8)
    return figure


def repulsion(study: Study) -> Figure | None:
    """Repulsion over training steps."""
    names = [name for name in SHOWN if any(run["repulsion"] for run in _runs(study, name))]
    if not names:
        return None
    figure, (axes,) = _grid(1, 2, 4.0)
    for place, title in ((0, "pairs repelled"), (1, "anchors that repel")):
        for name in names:
            for i, run in enumerate(_runs(study, name)):
                steps = [row[0] for row in run["repulsion"]]
                label = SHOWN[name] if i == 0 else None
                axes[place].plot(
                    steps, [row[1 + place] for row in run["repulsion"]], color=COLOURS[name], label=label, lw=1.1
                )
        axes[place].set_title(title, fontsize=9)
        axes[place].set_xlabel("training step", fontsize=8)
    axes[0].set_ylabel("share", fontsize=8)
    axes[0].legend(frameon=False, fontsize=8)
    return figure


def class_size(study: Study) -> Figure | None:
    """Repulsion against the size of a class."""
    tables = [row for table in study["repulsion by size"] for row in table["rows"]]
    if not tables:
        return None
    figure, grid = _grid(2, 3, sharex="row")
    styles = {0.05: ("#0072B2", "o"), 0.1: ("#D55E00", "s"), 0.2: ("#009E73", "^")}
    for i, kind in enumerate(("balanced", "fixed negatives")):
        for j, measure in enumerate(("share", "anchors", "worst")):
            axes: Axes = grid[i][j]
            for temperature, (colour, marker) in styles.items():
                rows = [row for row in tables if row["kind"] == kind and row["temperature"] == temperature]
                sizes = sorted({row["size"] for row in rows})
                means = [[row[measure] for row in rows if row["size"] == size] for size in sizes]
                heights = [sum(values) / len(values) for values in means]
                axes.plot(
                    sizes,
                    heights,
                    color=colour,
                    marker=marker,
                    markersize=4,
                    label=f"temperature {temperature:g}",
                    lw=1.1,
                )
            axes.set_xscale("log", base=2)
            title = {"share": "pairs repelled", "anchors": "anchors that repel", "worst": "worst force times |P|"}[
                measure
            ]
            axes.set_title(f"{title}, {kind}", fontsize=9)
        grid[i][0].set_ylabel("share", fontsize=8)
    for axes in grid[1]:
        axes.set_xlabel("images of the class", fontsize=8)
    grid[0][0].legend(frameon=False, fontsize=7)
    return figure


def accuracy(study: Study) -> Figure | None:
    """Accuracies by loss, a dot for each seed."""
    names = [name for name in SHOWN if any("bound" in run["measures"] for run in _runs(study, name))]
    if not names:
        return None
    measures = ["target", "noise", "margin", "1-NN", "10-NN", "MAP@R", "probe", "transfer probe"]
    measures = [name for name in measures if any(_mean(study, one, name) is not None for one in names)]
    figure, grid = _grid(2, -(-len(measures) // 2), 2.4, 2.4)
    for axes in grid.flat[len(measures) :]:
        axes.set_visible(False)
    for axes, measure in zip(grid.flat, measures, strict=False):
        for x, name in enumerate(names):
            values = [
                run["measures"][measure] for run in _runs(study, name) if run["measures"].get(measure) is not None
            ]
            axes.plot([x] * len(values), values, "o", color=COLOURS[name], markersize=4)
            if values:
                mean = sum(values) / len(values)
                axes.plot([x - 0.3, x + 0.3], [mean, mean], color=COLOURS[name], lw=1.5)
        raw = study["raw pixels"].get(measure)
        if raw is not None:
            axes.axhline(raw, color="#999999", linestyle="--", lw=0.8)
        axes.set_title(measure, fontsize=9)
        axes.set_xticks(range(len(names)), [SHOWN[name].partition(" ")[0] for name in names], rotation=35, fontsize=7)
        axes.margins(0.15)
    return figure


def plane(study: Study) -> Figure | None:
    """The uniformity-tolerance plane."""
    curve = [name_of(t) for t in TEMPERATURES if _runs(study, name_of(t))]
    points = [name for name in ("dystress", "f_micl kl", "f_micl js", "f_micl pearson") if _runs(study, name)]
    if not curve and not points:
        return None
    figure, (both,) = _grid(1, 2, 4.0, 3.2)
    for axes, suffix, title in ((both[0], " h", "backbone, h"), (both[1], "", "head, z")):
        spread = {name: _mean(study, name, f"uniformity{suffix}") for name in (*curve, *points)}
        alike = {name: _mean(study, name, f"tolerance{suffix}") for name in (*curve, *points)}
        axes.plot(
            [spread[n] for n in curve],
            [alike[n] for n in curve],
            color="#555555",
            marker="o",
            markersize=4,
            lw=1.0,
            label="NT-Xent",
        )
        for name in curve:
            axes.annotate(
                name.split()[1], (spread[name], alike[name]), textcoords="offset points", xytext=(4, 3), fontsize=7
            )
        for name in points:
            axes.plot([spread[name]], [alike[name]], "D", color=COLOURS[name], markersize=5, label=SHOWN[name])
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("uniformity (lower is more even)", fontsize=8)
    both[0].set_ylabel("tolerance (within)", fontsize=8)
    both[0].legend(frameon=False, fontsize=7)
    return figure


def equivalence(study: Study) -> Figure | None:
    """Curves of frameworks."""
    rows = study["equivalence"]
    if not rows:
        return None
    figure, (both,) = _grid(1, 2, 4.0)
    for axes, dtype in zip(both, ("float64", "float32"), strict=True):
        floor = {"float64": 1e-17, "float32": 1e-9}[dtype]
        for row in rows:
            if row["dtype"] == dtype:
                name = row["framework"]
                line = "--" if name == "one ulp" else "-"
                shown = "NumPy, one ulp away" if name == "one ulp" else name
                axes.plot(
                    [max(x, floor) for x in row["loss"]], color=COLOURS[name], label=shown, linestyle=line, lw=1.0
                )
        axes.set_yscale("log")
        axes.set_title(dtype, fontsize=9)
        axes.set_xlabel("training step", fontsize=8)
    both[0].set_ylabel("relative difference of the loss", fontsize=8)
    both[1].legend(frameon=False, fontsize=7)
    return figure


def bound(study: Study) -> Figure | None:
    """The KL bound against the number of rows."""
    names = [name for name in SHOWN if any(run["measures"].get("bound") for run in _runs(study, name))]
    if not names:
        return None
    figure, ((axes,),) = _grid(1, 1, 4.6, 3.2)
    for name in names:
        tables = [run["measures"]["bound"] for run in _runs(study, name)]
        sizes = [row["rows"] for row in tables[0]]
        means = [sum(table[i]["bound"] for table in tables) / len(tables) for i in range(len(sizes))]
        axes.plot(sizes, means, color=COLOURS[name], marker="o", markersize=4, label=SHOWN[name], lw=1.1)
    axes.plot(sizes, [row["ceiling"] for row in tables[0]], color="#999999", linestyle="--", label="ceiling", lw=1.0)
    axes.set_xscale("log")
    axes.set_xlabel("held-out images", fontsize=8)
    axes.set_ylabel("KL at least, nats", fontsize=8)
    axes.legend(frameon=False, fontsize=8)
    return figure
