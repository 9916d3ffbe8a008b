"""study.json as a page: the claims with their verdicts, the measures, the figures; in Markdown and in HTML."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping, Sequence
from typing import Any

from sincere_spec.study.verdicts import summary

Study = dict[str, Any]

SUPERVISED_COLUMNS = (
    "target",
    "noise",
    "margin",
    "1-NN",
    "10-NN",
    "MAP@R",
    "probe",
    "transfer probe",
    "uniformity",
    "tolerance",
    "separation",
    "effective rank",
)
OTHER_COLUMNS = (
    "uniformity h",
    "tolerance h",
    "1-NN h",
    "probe",
    "uniformity",
    "tolerance",
    "10-NN",
    "noise",
    "effective rank",
)


def to_json(study: Study) -> str:
    """The study as text, a run's numbers on one line each."""
    head = json.dumps({key: value for key, value in study.items() if key not in ("runs", "equivalence")}, indent=1)
    lists = []
    for key in ("runs", "equivalence"):
        lines = ",\n  ".join(json.dumps(item) for item in study[key])
        lists.append(f' "{key}": [\n  {lines}\n ]' if lines else f' "{key}": []')
    return head.removesuffix("\n}") + ",\n" + ",\n".join(lists) + "\n}\n"


def markdown(study: Study, figures: Mapping[str, str], folder: str = "") -> str:
    """The report; `figures` says what each figure shows, by file name without suffix."""
    lines = [study["sentence"], "", "# Study: the papers' claims, measured", ""]
    if not study["complete"]:
        lines += ["**This study was cut short: what follows is of the trainings that were done.**", ""]
    lines += [_how(study), "", "## Claims", ""]
    lines += _table(
        ("claim", "source", "measured", "rule", "mean ± sd", "by seed", "verdict"),
        [
            (
                claim["claim"],
                claim["source"],
                claim["measured"],
                claim["rule"],
                _spread(claim["mean"], claim["sd"]),
                ", ".join(f"{x:.3g}" for x in claim["values"] if x is not None),
                f"**{claim['verdict']}**"
                + (f"; needs {claim['needs']}" if claim["needs"] and claim["verdict"] != "reproduces" else ""),
            )
            for claim in study["claims"]
        ],
    )
    lines += ["", *_measures(study, "supervised", "## Supervised losses", SUPERVISED_COLUMNS)]
    raw = study["raw pixels"]
    if raw:
        lines += [
            f"A linear classifier of raw pixels (4000 images) has a probe of {raw['probe']:.3f}"
            + (f", and {raw['transfer probe']:.3f} on the transfer set" if "transfer probe" in raw else "")
            + ": at this scale accuracy is no figure of merit.",
            "",
        ]
    lines += _measures(study, None, "## Losses without labels", OTHER_COLUMNS)
    lines += _equivalent(study)
    if figures:
        lines += ["## Figures", ""]
        for name, shows in figures.items():
            lines += [f"![{shows}]({folder}{name}.svg)", "", shows, ""]
    return "\n".join(lines).rstrip() + "\n"


def _how(study: Study) -> str:
    settings, data, machine = study["settings"], study["data"], study["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    minutes = sum(seconds for seconds in study["times"].values()) / 60.0
    return (
        f"{settings['seeds']} seed{'s' * (settings['seeds'] != 1)}, {data['training images']} training images, "
        f"{settings['epochs']} epochs of {settings['steps'] // max(1, settings['epochs'])} steps, two views of "
        f"{settings['images in a batch']} images a step, trained in {settings['framework']}; {data['test images']} test images. "
        f"sincere-spec {machine['sincere-spec']} (commit {machine['commit']}), Python {machine['python']}, {versions}. "
        f"{minutes:.1f} minutes of CPU. Verdicts are computed by the rule beside each; none is written by hand."
    )


def _measures(study: Study, part: str | None, title: str, columns: tuple[str, ...]) -> list[str]:
    runs = [run for run in study["runs"] if (run["part"] == "supervised") == (part == "supervised")]
    names = list(dict.fromkeys(run["name"] for run in runs))
    if not names:
        return []
    shown = [name for name in columns if any(run["measures"].get(name) is not None for run in runs)]
    rows = []
    for name in names:
        found = [run["measures"] for run in runs if run["name"] == name]
        cells = [_spread(*summary([x[column] for x in found if x.get(column) is not None])) for column in shown]
        rows.append((name, *cells))
    note = (
        "Of test images against training images; `h` is the backbone's output, all else is of z. Mean ± sd over seeds."
    )
    if part == "supervised":
        note = "Of test images against training images, on z (for cross-entropy on h). Mean ± sd over seeds; tolerance is within."
    return [title, "", note, "", *_table(("loss", *shown), rows), ""]


def _equivalent(study: Study) -> list[str]:
    if not study["equivalence"]:
        return []
    steps = len(study["equivalence"][0]["loss"])
    rows = [
        (row["framework"], row["dtype"], f"{row['largest loss']:.2g}", f"{row['largest weight']:.2g}")
        for row in study["equivalence"]
    ]
    return [
        "## One model in every framework",
        "",
        f"The same weights, batches and Adam, {steps} steps of SINCERE, against NumPy; `one ulp` is NumPy against itself with "
        "one weight matrix a unit in the last place away.",
        "",
        *_table(
            ("framework", "dtype", "largest relative difference of the loss", "largest difference of a weight"), rows
        ),
        "",
    ]


def _spread(mean: float | None, sd: float | None) -> str:
    if mean is None:
        return ""
    return f"{mean:.3g}" if sd is None else f"{mean:.3g} ± {sd:.2g}"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return lines + ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]


def page(text: str, pictures: Mapping[str, bytes]) -> str:
    """The Markdown report as one HTML file, with the figures in it; only what the report uses of Markdown is known."""
    lines: list[str] = []
    table = False
    for line in text.splitlines():
        if line.startswith("|"):
            cells = [cell.strip() for cell in line.strip("|").replace("\\|", "\0").split("|")]
            if all(set(cell) <= {"-"} for cell in cells):
                continue
            tag = "td" if table else "th"
            lines.append("" if table else "<table>")
            lines.append("<tr>" + "".join(f"<{tag}>{_inline(cell)}</{tag}>" for cell in cells) + "</tr>")
            table = True
            continue
        if table:
            lines.append("</table>")
            table = False
        if line.startswith("#"):
            level = len(line) - len(line.lstrip("#"))
            lines.append(f"<h{level}>{_inline(line.lstrip('# '))}</h{level}>")
        elif line.startswith("!["):
            name = line.rpartition("](")[2].removesuffix(".svg)").rpartition("/")[2]
            data = base64.b64encode(pictures[name]).decode()
            lines.append(f'<img alt="{html.escape(name)}" src="data:image/svg+xml;base64,{data}">')
        elif line:
            lines.append(f"<p>{_inline(line)}</p>")
    if table:
        lines.append("</table>")
    style = (
        "body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2em auto;padding:0 1em}"
        "table{border-collapse:collapse;font-size:13px}td,th{border:1px solid #ddd;padding:3px 7px;text-align:left}"
        "img{max-width:100%}"
    )
    body = "\n".join(line for line in lines if line)
    return f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>Study</title><style>{style}</style>\n{body}\n</html>\n'


def _inline(text: str) -> str:
    parts = html.escape(text.replace("\0", "|")).split("**")
    bold = "".join(part if i % 2 == 0 else f"<b>{part}</b>" for i, part in enumerate(parts))
    parts = bold.split("`")
    return "".join(part if i % 2 == 0 else f"<code>{part}</code>" for i, part in enumerate(parts))
