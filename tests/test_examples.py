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
    "accelerate_ranks": "torch",
    "flax_optax": "jax",
    "keras_callback": "tensorflow",
    "keras_fit": "tensorflow",
    "lightning_callback": "torch",
    "lightning_module": "torch",
    "lightning_ranks": "torch",
    "metric_learning": "torch",
    "sentence_transformers_trainer": "torch",
}
RANKS = {  # and how those that train on two ranks are started
    "accelerate_ranks": ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"],
    "lightning_ranks": [],
}


def test_every_example_is_run_and_named_in_the_recipes() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(PROCESS)
    page = (EXAMPLES.parent / "docs" / "recipes.md").read_text(encoding="utf-8")
    assert all(f"examples/{name}.py" in page for name in PROCESS)


def printed(words: list[str], folder: Path, **settings: str) -> str:
    """What a process of Python prints that ends well."""
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent), **settings},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def losses_of(text: str) -> list[float]:
    """The first and the last loss that an example prints."""
    return [float(x) for x in re.findall(r"^loss (\S+) -> (\S+)$", text, flags=re.MULTILINE)[-1]]


@pytest.mark.parametrize(("name", "framework"), PROCESS.items())
def test_an_example_trains(name: str, framework: str, need, tmp_path: Path) -> None:
    """One that has ranks trains as it would in one process, the loss to more digits than it prints."""
    text = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    nodes = ast.parse(text).body
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
    if name not in RANKS:
        first, last = losses_of(printed([str(EXAMPLES / f"{name}.py")], tmp_path, **settings))
        assert last < 0.7 * first
        return
    exact = text.replace(":.3f}", ":.6f}")
    whole = exact.replace("devices=2", "devices=1").replace("batch_size=64", "batch_size=128")
    found = []
    for number, (script, words) in enumerate([(exact, RANKS[name]), (whole, [])]):
        path = tmp_path / f"script_{number}.py"
        path.write_text(script, encoding="utf-8")
        found.append(losses_of(printed([*words, str(path)], tmp_path, **settings)))
    (first, last), one = found
    assert last < 0.7 * first
    assert [first, last] == pytest.approx(one, abs=2e-5)


METRIC_LEARNING = """
import ast, pathlib, sys, torch
import sincere_spec as ss
nodes = ast.parse(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8")).body
scope = {}
kept = [x for x in nodes if isinstance(x, (ast.Import, ast.ImportFrom, ast.ClassDef))]
exec(compile(ast.Module(kept, []), "example", "exec"), scope)
loss = scope["Sincere"](0.1)
z, keys = torch.randn(6, 8), torch.randn(9, 8)
y, key_y = torch.arange(6) % 3, torch.arange(9) % 3
torch.testing.assert_close(loss(z, y), ss.sincere_loss(z, y))
own = loss(z, y, ref_emb=keys, ref_labels=key_y)
torch.testing.assert_close(own, ss.sincere_loss(z, y, keys=keys, key_labels=key_y))
assert abs(own - loss(z, y)) > 1e-3
try:
    loss(z, y, indices_tuple=(torch.tensor([0]), torch.tensor([3]), torch.tensor([1])))
except ValueError as error:
    print(error)
"""


def test_the_loss_for_metric_learning_compares_with_references_and_refuses_a_miner(need, tmp_path: Path) -> None:
    need("torch")
    need("pytorch_metric_learning")
    assert "leave out the miner" in printed(["-c", METRIC_LEARNING, str(EXAMPLES / "metric_learning.py")], tmp_path)
