"""One loss, one model, four frameworks: the same training step by step."""

from __future__ import annotations

from typing import Any

import numpy as np

import sincere_spec as ss
from sincere_spec.study.parts import runs
from sincere_spec.study.settings import TEMPERATURE, Settings
from sincere_spec.study.train import Job
from sincere_spec.study.verdicts import Claim, claim, where

SIZE = 128
SOURCE = "this package"
LOSS_64, WEIGHTS_64, LOSS_32 = 1e-12, 1e-10, 1e-4


def job(dtype: str, steps: int, *, ulp: bool = False) -> Job:
    """SINCERE with a smooth nonlinearity, whose slope no rounding can switch."""
    name = f"equivalence {dtype}{' ulp' if ulp else ''}"
    record = ss.losses.sincere(TEMPERATURE).to_dict()
    return Job(name, 0, record, steps, SIZE, activation="tanh", dtype=dtype, decay=False, ulp=ulp, embed=False)


def jobs(settings: Settings, framework: str) -> list[Job]:
    """In every framework both dtypes; in NumPy the controls, too, with one matrix a unit in the last place away."""
    steps = settings.equivalence_steps
    found = [job(dtype, steps) for dtype in ("float64", "float32")]
    return found + ([job(dtype, steps, ulp=True) for dtype in ("float64", "float32")] if framework == "numpy" else [])


def compared(curves: dict[tuple[str, str], tuple[list[float], dict[str, Any]]]) -> list[dict[str, Any]]:
    """Against NumPy's run of a dtype: by framework the relative difference of the loss at each step, and of any weight."""
    found = []
    for (framework, name), (losses, weights) in curves.items():
        dtype = name.split()[1]
        reference = curves.get(("numpy", f"equivalence {dtype}"))
        if reference is None or (framework, name) == ("numpy", f"equivalence {dtype}"):
            continue
        ours, theirs = np.asarray(losses), np.asarray(reference[0])
        relative = np.abs(ours - theirs) / np.abs(theirs)
        apart = max(float(np.abs(weights[key] - reference[1][key]).max()) for key in weights)
        found.append(
            {
                "framework": "one ulp" if name.endswith("ulp") else framework,
                "dtype": dtype,
                "loss": [float(f"{x:.3g}") for x in relative],
                "largest loss": float(f"{relative.max():.3g}"),
                "largest weight": float(f"{apart:.3g}"),
            }
        )
    return found


def claims(study: runs.Study) -> list[Claim]:
    """What this package says of itself."""
    rows = [row for row in study.get("equivalence", []) if row["framework"] != "one ulp"]
    found = []
    for dtype, measure, bound in (
        ("float64", "largest loss", LOSS_64),
        ("float64", "largest weight", WEIGHTS_64),
        ("float32", "largest loss", LOSS_32),
    ):
        values = [row[measure] for row in rows if row["dtype"] == dtype]
        names = ", ".join(row["framework"] for row in rows if row["dtype"] == dtype)
        if values:
            what = (
                "relative difference of the loss at any step"
                if measure == "largest loss"
                else "difference of any weight"
            )
            steps = len(rows[0]["loss"])
            found.append(
                claim(
                    f"{dtype} {measure}",
                    f"one loss trains the same model in every framework, in {dtype}: {measure.removeprefix('largest ')}",
                    SOURCE,
                    f"{what} over {steps} steps, NumPy against {names}",
                    f"below {bound:g} in every framework",
                    values,
                    where(max(values) < bound),
                )
            )
    return found
