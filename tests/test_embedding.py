"""The package inside other software: vendored under another name, and with adapters that other distributions bring."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
ROOT = TESTS.parent
LEFT_OUT = ("conformance", "bench", "cli.py", "__pycache__")


def python(code: str, path: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "PYTHONPATH": f"{path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# --- vendored ---


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a library that has a copy of the package, as docs/embedding.md says to make one."""
    folder = tmp_path_factory.mktemp("site")
    copy = folder / "their_library" / "_losses"
    shutil.copytree(ROOT / "sincere_spec", copy, ignore=shutil.ignore_patterns(*LEFT_OUT))
    for path in copy.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        renamed = re.sub(r"^( *)from sincere_spec\b", r"\1from their_library._losses", text, flags=re.MULTILINE)
        path.write_text(renamed, encoding="utf-8")
    (folder / "their_library" / "__init__.py").write_text(
        "from their_library._losses import losses, sincere_loss, value_and_gradient\n"
    )
    return folder


ALONE = "assert not [name for name in sys.modules if name.partition('.')[0] == 'sincere_spec']"


def test_a_copy_under_another_name_is_alone(library: Path) -> None:
    code = f"""
import sys, their_library
assert "numpy" not in sys.modules
import numpy as np
z, labels = np.random.default_rng(0).normal(size=(6, 4)), [0, 0, 1, 1, 2, 2]
found = [
    their_library.value_and_gradient(their_library.losses.sincere(0.1), z, labels, engine=engine, tile=tile)
    for engine, tile in (("auto", None), ("tiled", 4))
]
assert type(found[0]) is tuple and np.allclose(found[0][1], found[1][1], rtol=0.0, atol=1e-12)
record = their_library.losses.clip(0.2)
assert type(record).from_dict(record.to_dict()) == record and type(record).__module__.startswith("their_library.")
{ALONE}
import sincere_spec
assert float(found[0][0]) == float(sincere_spec.sincere_loss(z, labels))
assert type(record) is not type(sincere_spec.losses.clip(0.2))
print("done")
"""
    assert python(code, library) == "done"


@pytest.mark.framework("torch")
def test_a_copy_under_another_name_trains_in_torch(library: Path) -> None:
    code = f"""
import sys, torch
from their_library import sincere_loss
from their_library._losses.torch import SincereLoss

torch.manual_seed(0)
z, labels = torch.randn(6, 4, requires_grad=True), torch.tensor([0, 0, 1, 1, 2, 2])
loss = SincereLoss(learnable_temperature=True)
loss(z, labels).backward()
assert z.grad.shape == (6, 4) and loss.logit_scale.grad is not None
assert torch.allclose(torch.func.grad(sincere_loss)(z.detach(), labels), z.grad, atol=1e-6)
{ALONE}
print("done")
"""
    assert python(code, library) == "done"


# --- adapters of others ---


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed a distribution with an entry point."""
    folder = tmp_path_factory.mktemp("site")
    source = folder / "source"
    shutil.copytree(TESTS / "toy_arrays", source)
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, "--target", folder, source], check=True)
    shutil.rmtree(source)
    return folder


def test_an_adapter_comes_by_an_entry_point(installed: Path) -> None:
    code = """
import sys, numpy as np, sincere_spec as ss
from toy_arrays import Array, array

z, labels = np.random.default_rng(0).normal(size=(6, 4)), [0, 0, 1, 1, 2, 2]
assert "toy_arrays.adapter" not in sys.modules
value, gradient = ss.value_and_gradient(ss.losses.sincere(), array(z), labels)
assert "toy_arrays.adapter" in sys.modules
assert type(value) is type(gradient) is Array
want = ss.value_and_gradient(ss.losses.sincere(), z, labels)
assert float(value) == float(want[0]) and np.array_equal(gradient, want[1])
assert type(want[0]) is not Array
print(ss.explain(ss.losses.sincere(), array(z), labels).backend)
"""
    assert python(code, installed) == "toy"


def test_an_entry_point_that_cannot_be_loaded_says_so(installed: Path) -> None:
    code = """
import numpy as np, sincere_spec as ss
kind = type("Array", (np.ndarray,), {"__module__": "toy_arrays_broken"})
try:
    ss.sincere_loss(np.ones((2, 2)).view(kind), [0, 0])
except ss.BackendNotInstalled as refusal:
    print(refusal)
"""
    assert python(code, installed) == (
        "arrays of toy_arrays_broken need toy_arrays.adapter_that_is_not_there, which cannot be imported "
        "(No module named 'toy_arrays.adapter_that_is_not_there'); install it."
    )
