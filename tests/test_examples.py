"""The examples, each run as a script: real libraries, real images, and a loss that slope_sums."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
PROCESS = {  # the framework of each, beside whose other tests it runs
    "flax_optax": "jax",
    "keras_fit": "tensorflow",
    "lightning_module": "torch",
    "metric_learning": "torch",
    "sentence_transformers_trainer": "torch",
}


def test_every_example_is_run_and_named_in_the_readme() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(PROCESS)
    readme = (EXAMPLES.parent / "README.md").read_text(encoding="utf-8")
    assert all(f"examples/{name}.py" in readme for name in PROCESS)


@pytest.mark.parametrize(("name", "framework"), PROCESS.items())
def test_an_example_trains(name: str, framework: str, need, tmp_path: Path) -> None:
    path = EXAMPLES / f"{name}.py"
    nodes = ast.parse(path.read_text(encoding="utf-8")).body
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    for root in sorted({framework, *(module.partition(".")[0] for module in imported)}):
        need(root)
    settings = {
        "KERAS_BACKEND": framework,
        "KERAS_HOME": str(tmp_path),
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, str(path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent), **settings},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, last = map(float, re.findall(r"^loss (\S+) -> (\S+)$", done.stdout, flags=re.MULTILINE)[-1])
    assert last < 0.7 * first
