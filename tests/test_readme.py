"""Every Python block of the README, run as it stands, in a process of its own."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
FRAMEWORKS = ("numpy", "torch", "jax", "tensorflow", "keras")
FIVE_LINES = {"numpy", "torch", "jax", "tensorflow"}
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def frameworks(code: str) -> list[str]:
    roots = {
        alias.name.partition(".")[0]
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    return [name for name in FRAMEWORKS if name in roots]


def label(code: str) -> str:
    return "-".join(frameworks(code)) or "core"


@pytest.mark.parametrize("code", BLOCKS, ids=label)
def test_block(code: str, need, tmp_path: Path) -> None:
    for name in frameworks(code):
        need(name)
    keras = {"KERAS_BACKEND": "tensorflow", "KERAS_HOME": str(tmp_path / "keras")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        env={**os.environ, **keras},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_first_screen_has_the_loss_in_five_lines_of_each_framework() -> None:
    first = {}
    for code in BLOCKS:
        for name in frameworks(code)[:1] or ["none"]:
            first.setdefault(name, code)
    assert first.keys() >= FIVE_LINES
    for name in FIVE_LINES:
        lines = [line for line in first[name].splitlines() if line.strip() and not line.lstrip().startswith("#")]
        assert len(lines) == 5, f"{name}: {len(lines)} lines"


def test_the_two_commands_stand_before_the_first_block() -> None:
    text = README.read_text(encoding="utf-8")
    start = text[: text.index("```python")]
    assert "make verify" in start
    assert "make test" in start
    assert "pip install" in start
