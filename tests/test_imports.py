"""What imports what. The first half runs interpreters; the second reads the source and imports nothing."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Set as AbstractSet
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = [
    "array_api_compat",
    "jax",
    "jaxlib",
    "jinja2",
    "keras",
    "mpmath",
    "numpy",
    "pytest",
    "rich",
    "tensorflow",
    "torch",
]
HEAVY += ["triton", "typer"]
FRAMEWORKS = {"array_api_compat", "array_api_strict", "cupy", "dask", "jax", "jaxlib", "keras", "ml_dtypes"}
FRAMEWORKS |= {"ndonnx", "numpy", "sparse", "tensorflow", "torch", "triton"}


def python(code: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("COV_", "PYTEST_"))}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_importing_the_package_loads_no_framework() -> None:
    code = f"import sys, sincere_spec; print([name for name in {HEAVY} if name in sys.modules])"
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_an_eager_loss_of_torch_loads_no_compiler(need: Any) -> None:
    need("torch")
    step = "z = torch.eye(4, requires_grad=True); sincere_spec.sincere_loss(z, [0, 0, 1, 1]).backward()"
    done = python(f"import sys, torch, sincere_spec; {step}; print('torch._dynamo' in sys.modules)")
    assert done.stdout.strip() == "False", done.stderr


def test_making_a_loss_loads_no_framework() -> None:
    code = f"""
import sys, sincere_spec as ss
for name in ss.losses.__all__:
    record = getattr(ss.losses, name)()
    assert type(record).from_dict(record.to_dict()) == record
print([name for name in {HEAVY} if name in sys.modules])
"""
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("folder", ["backends", "conformance"])
def test_the_root_folders_refuse_their_bare_names(folder: str) -> None:
    done = python(f"import {folder}")
    assert done.returncode != 0
    assert f"ImportError: import sincere_spec.{folder}, not {folder}" in done.stderr


# --- the source, read ---


def modules() -> dict[str, Path]:
    """Every module of the package by its import name, each file once: the links inside sincere_spec are not followed."""
    found = {}
    for folder, package in (("sincere_spec", ()), ("backends", ("sincere_spec",)), ("conformance", ("sincere_spec",))):
        for directory, folders, files in os.walk(ROOT / folder, followlinks=False):
            folders[:] = [name for name in folders if name != "__pycache__"]
            for file in files:
                if file.endswith(".py"):
                    path = Path(directory, file)
                    name = ".".join((*package, *path.relative_to(ROOT).with_suffix("").parts))
                    found[name.removesuffix(".__init__")] = path
    return found


@cache
def imports(name: str) -> frozenset[str]:
    """Every module that one imports, also inside functions; `from a import b` counts as `a.b` where b is a module."""
    path, names = MODULES[name], set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            submodules = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
            names |= submodules
            if len(submodules) < len(node.names):
                names.add(node.module or "")
    return frozenset(names)


MODULES = modules()


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def roots(names: AbstractSet[str]) -> set[str]:
    """The third-party packages among imported names."""
    return {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names) - {"sincere_spec"}


def ours(names: AbstractSet[str]) -> set[str]:
    return {name for name in names if within(name, "sincere_spec")}


def of(*packages: str) -> list[str]:
    chosen = [name for name in sorted(MODULES) if within(name, *packages)]
    assert chosen, f"no module in {packages}"
    return chosen


def test_the_walk_sees_the_package() -> None:
    assert len(of("sincere_spec.losses")) >= 7
    assert {
        "sincere_spec.backends.array_api",
        "sincere_spec.engines.dense",
        "sincere_spec.spec.words",
    } <= MODULES.keys()


# What each folder may import of the package, besides itself: the architecture.
FOUNDATIONS = ("sincere_spec.arrays", "sincere_spec.errors", "sincere_spec.tracing")
LAYERS = {
    "sincere_spec.arrays": (),
    "sincere_spec.errors": ("sincere_spec.tracing",),
    "sincere_spec.tracing": (),
    "sincere_spec.spec": FOUNDATIONS,
    "sincere_spec.relations": ("sincere_spec.spec", *FOUNDATIONS),
    "sincere_spec.interface": ("sincere_spec.spec", *FOUNDATIONS),
    "sincere_spec.losses": ("sincere_spec.spec", *FOUNDATIONS),
    "sincere_spec.engines": ("sincere_spec.spec", "sincere_spec.interface", *FOUNDATIONS),
    "sincere_spec.backends": ("sincere_spec.spec", "sincere_spec.interface", *FOUNDATIONS),
    "sincere_spec.call": (
        "sincere_spec.engines",
        "sincere_spec.backends",
        "sincere_spec.relations",
        "sincere_spec.spec",
        "sincere_spec.interface",
        *FOUNDATIONS,
    ),
    "sincere_spec.metrics": (
        "sincere_spec.call",
        "sincere_spec.engines",
        "sincere_spec.losses",
        "sincere_spec.spec",
        "sincere_spec.interface",
        *FOUNDATIONS,
    ),
}


def beyond(name: str, *allowed: str) -> set[str]:
    """What a module imports of the package and may not; the bare package is never a name to import from."""
    return {used for used in ours(imports(name)) if not within(used, *allowed)}


@pytest.mark.parametrize("folder", LAYERS)
def test_imports_go_down_the_layers(folder: str) -> None:
    assert not {name: found for name in of(folder) if (found := beyond(name, folder, *LAYERS[folder]))}


def test_no_two_folders_and_no_two_files_import_each_other() -> None:
    def folder(name: str) -> str:
        return ".".join(name.split(".")[:2])

    # The entry point of `python -m` starts the command line, and nothing imports it.
    names = [name for name in MODULES if not name.endswith("__main__")]
    by_file = {name: (ours(imports(name)) & MODULES.keys()) - {name} for name in names}
    by_folder: dict[str, set[str]] = {}
    for name, found in by_file.items():
        by_folder.setdefault(folder(name), set()).update({folder(used) for used in found} - {folder(name)})
    for graph in (by_file, by_folder):
        for name in graph:
            assert name not in reachable(graph, name), f"{name} imports itself, by way of others"


def reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    front = set(graph.get(start, ()))
    while front:
        found |= front
        front = {further for name in front for further in graph.get(name, ())} - found
    return found


@pytest.mark.parametrize("name", of("sincere_spec.losses"))
def test_losses_hold_mathematics_only(name: str) -> None:
    assert not roots(imports(name))


@pytest.mark.parametrize("name", of("sincere_spec.engines"))
def test_engines_know_no_framework(name: str) -> None:
    assert not roots(imports(name))


OWN = {
    "sincere_spec.backends.torch": {"torch", "triton"},
    "sincere_spec.backends.jax": {"jax", "jaxlib"},
    "sincere_spec.backends.tensorflow": {"tensorflow"},
}


@pytest.mark.parametrize("name", of("sincere_spec.backends"))
def test_backends_know_their_framework(name: str) -> None:
    own = next((packages for folder, packages in OWN.items() if within(name, folder)), set())
    assert not roots(imports(name)) - own - {"array_api_compat", "numpy"}


FRONT_ENDS = {"sincere_spec.keras": {"keras", "numpy"}, "sincere_spec.torch": {"torch"}}


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_front_ends_know_their_framework_and_no_machinery(name: str) -> None:
    machinery = ("sincere_spec.engines", "sincere_spec.backends", "sincere_spec.conformance", "sincere_spec.bench")
    assert not {used for used in ours(imports(name)) if within(used, *machinery)}
    assert not roots(imports(name)) - FRONT_ENDS[name] - {"typing_extensions"}  # this for the type checker alone


def test_nothing_imports_a_front_end() -> None:
    check = "sincere_spec.conformance.transforms.keras"  # of what `fit` does with it
    assert [name for name in MODULES if imports(name) & FRONT_ENDS.keys()] == [check]


CORE = [
    name
    for name in of("sincere_spec")
    if not within(name, "sincere_spec.backends", "sincere_spec.bench", "sincere_spec.conformance", "sincere_spec.cli")
    and not within(name, "sincere_spec.study")
    and name not in ("sincere_spec.torch", "sincere_spec.keras")
    # Float64 statistics of NumPy, imported where they are asked for; and the command that reads its files.
    and name not in ("sincere_spec.metrics.host", "sincere_spec.measure")
]


@pytest.mark.parametrize("name", CORE)
def test_the_core_imports_no_framework(name: str) -> None:
    assert not roots(imports(name)) & (FRAMEWORKS - {"array_api_compat"})
    assert not {used for used in imports(name) if within(used, "sincere_spec.conformance")}


@pytest.mark.parametrize("name", of("sincere_spec.conformance.oracle"))
def test_the_oracle_shares_no_line_with_the_package(name: str) -> None:
    assert not {used for used in ours(imports(name)) if not within(used, "sincere_spec.conformance.oracle")}
    assert not roots(imports(name)) - {"flint", "jsonschema", "mpmath", "numpy", "sklearn"}  # for inputs and scales


def test_the_oracle_computes_with_mpmath_alone_and_is_checked_without_it() -> None:
    assert roots(imports("sincere_spec.conformance.oracle.loops")) <= {"mpmath"}
    checked = imports("sincere_spec.conformance.oracle.balls")
    assert roots(checked) == {"flint"}
    assert not ours(checked)


def test_no_module_is_a_drawer() -> None:
    drawers = {"utils", "util", "helpers", "helper", "common", "misc"}
    assert not [name for name in MODULES if drawers & set(name.split("."))]


def test_the_whole_is_understood_from_at_most_800_lines() -> None:
    path = ["spec/words.py", "losses/sincere.py", "engines/README.md", "engines/dense.py"]
    lines = {name: len((ROOT / "sincere_spec" / name).read_text(encoding="utf-8").splitlines()) for name in path}
    assert sum(lines.values()) <= 800, lines
