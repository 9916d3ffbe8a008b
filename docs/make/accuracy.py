"""The worst errors: `python docs/make/accuracy.py report.json ...` writes docs/data/accuracy.json and docs/accuracy.md.

The reports are those of `sincere-spec verify`, one of every framework or several together. With `--add` before them they are
of losses that are new, whose rows are put beside those that are there.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DATA, PAGE = ROOT / "docs" / "data" / "accuracy.json", ROOT / "docs" / "accuracy.md"
SHORT = {"float16": "f16", "bfloat16": "bf16", "float32": "f32", "float64": "f64"}


def gathered(reports: list[dict[str, Any]]) -> dict[str, Any]:
    """The worst ratio of every loss by framework, engine and dtype, and on what it was found."""
    worst: dict[str, dict[str, float]] = {}
    for report in reports:
        for result in report["results"]:
            if "ratio" in result and result["profile"] not in ("transforms", "large"):
                column = f"{result['framework']} {result['engine']} {result['dtype']}"
                row = worst.setdefault(result["row"], {})
                row[column] = max(row.get(column, 0.0), round(float(result["ratio"]), 2))
    first = reports[0]
    return {
        "suite": first["suite"],
        "package": first["package"],
        "tolerance": first["tolerance"],
        "verdicts": sum(len(report["results"]) for report in reports),
        "machine": first["machine"],
        "versions": {
            name: known.get("versions", {}) for report in reports for name, known in report["frameworks"].items()
        },
        "worst": {loss: worst[loss] for report in reports for loss in report["rows"] if loss in worst},
    }


def together(there: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """What is there, and what was found of other losses by the same package and suite."""
    if any(there[name] != found[name] for name in ("suite", "package", "tolerance")):
        sys.exit("these reports are of another package or suite: make the page again of all losses")
    if known := there["worst"].keys() & found["worst"].keys():
        sys.exit(f"the page has {', '.join(sorted(known))} already: make it again of all losses")
    changes = {name: known for name, known in found["versions"].items() if there["versions"].get(name) != known}
    if changes:
        sys.exit(f"{', '.join(changes)}: another version than that of the page: make it again of all losses")
    return there | {"verdicts": there["verdicts"] + found["verdicts"], "worst": there["worst"] | found["worst"]}


def rendered(found: dict[str, Any]) -> str:
    """The page."""
    asked = {column.split()[0] for row in found["worst"].values() for column in row}
    frameworks = [name for name in found["versions"] if name in asked]
    known = found["versions"]
    versions = ", ".join(
        f"{name} {known[name].get(name) or known[name].get(name.replace('_', '-'), '')}".strip() for name in frameworks
    )
    parts = [
        "# The worst errors",
        f"The worst error of each loss over {found['verdicts']} verdicts. The unit is u, the unit round-off of the computation, "
        f"times the scale of the case ([how](how.md)); at most {found['tolerance']:g} is right. float16 and bfloat16 are "
        "computed in float32, so their u is that of float32.",
        f"Written by `python docs/make/accuracy.py` from reports of `sincere-spec verify`: sincere-spec {found['package']}, "
        f"suite {found['suite']}; {versions}; Python {found['machine']['python']}, {found['machine']['machine']}.",
    ]
    for framework in frameworks:
        columns = [c for row in found["worst"].values() for c in row if c.split()[0] == framework]
        columns = sorted(set(columns), key=lambda c: (c.split()[1], list(SHORT).index(c.split()[2])))
        heads = [f"{c.split()[1]} {SHORT[c.split()[2]]}" for c in columns]
        lines = [["", *heads], ["---"] + ["--:"] * len(columns)]
        lines += [
            [loss, *(f"{row[c]:.2f}" if c in row else "" for c in columns)]
            for loss, row in found["worst"].items()
            if any(c in row for c in columns)
        ]
        parts += [f"## {framework}", "\n".join(f"| {' | '.join(line)} |" for line in lines)]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    adds, paths = sys.argv[1:2] == ["--add"], [path for path in sys.argv[1:] if path != "--add"]
    reports = [json.loads(Path(path).read_text(encoding="utf-8")) for path in paths]
    if not reports:
        sys.exit("name the report.json files of sincere-spec verify")
    found = gathered(reports)
    if adds:
        found = together(json.loads(DATA.read_text(encoding="utf-8")), found)
    DATA.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(rendered(found), encoding="utf-8")
