"""What is built: an sdist that holds each file once, and from it a wheel that installs `sincere_spec` and nothing beside it."""

from __future__ import annotations

import email
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PROJECT["tool"]["setuptools"]
NOT_SOURCE = (
    ".git",
    ".venv",
    "build",
    "dist",
    "conformance-report",
    "_build",
    "*.egg-info",
    "__pycache__",
    ".*_cache",
    ".hypothesis",
)


BENCH = "bench"  # a command of a checkout, which no wheel has


def run(*command: object, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout."""
    tree = tmp_path_factory.mktemp("source") / "tree"
    shutil.copytree(ROOT, tree, symlinks=True, ignore=shutil.ignore_patterns(*NOT_SOURCE))
    return tree


@pytest.fixture(scope="module")
def built(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was built from the sdist."""
    dist = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", dist, tree, cwd=dist)
    return dist


@pytest.fixture(scope="module")
def wheel(built: Path) -> zipfile.ZipFile:
    (path,) = built.glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> email.message.Message:
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    return email.message_from_bytes(wheel.read(name))


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, installed into a folder of its own. Its dependency comes from this environment."""
    target = tmp_path_factory.mktemp("site")
    (path,) = built.glob("*.whl")
    run(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", target, path, cwd=target)
    return target


def folders_with_modules() -> set[str]:
    found = set()
    for package, folder in SETUPTOOLS["package-dir"].items():
        for directory, subfolders, files in os.walk(ROOT / folder, followlinks=False):
            subfolders[:] = [name for name in subfolders if name not in ("__pycache__", BENCH)]
            if any(file.endswith(".py") for file in files):
                assert "__init__.py" in files, f"{directory} has modules and no __init__.py"
                found.add(".".join((package, *Path(directory).relative_to(ROOT / folder).parts)))
    return found


def test_the_list_of_packages_is_the_folders() -> None:
    assert sorted(SETUPTOOLS["packages"]) == sorted(folders_with_modules())


@pytest.mark.parametrize("name", ["backends", "conformance"])
def test_the_links_are_relative(name: str) -> None:
    link = ROOT / "sincere_spec" / name
    if not link.is_symlink():
        pytest.skip("a checkout without symbolic links")
    assert os.readlink(link) == f"../{name}"


def test_the_sdist_holds_each_file_once(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
        files = [member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()]
    assert len(names) == len(set(names))
    assert not [name for name in names if name.startswith(("sincere_spec/backends", "sincere_spec/conformance"))]
    for folder in ("sincere_spec", "backends", "conformance", "tests"):
        here = {
            Path(directory, file).relative_to(ROOT).as_posix()
            for directory, _, there in os.walk(ROOT / folder)
            for file in there
            if "__pycache__" not in directory
        }
        assert here <= set(files), f"missing in the sdist: {sorted(here - set(files))}"
    assert {"LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff", "Makefile", "constraints.txt"} <= set(files)


def test_the_wheel_holds_one_package(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    roots = {name.partition("/")[0] for name in names}
    assert {root for root in roots if not root.endswith(".dist-info")} == {"sincere_spec"}
    assert len(roots) == 2
    assert len(names) == len(set(names))
    for package, folder in SETUPTOOLS["package-dir"].items():
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".json", ".j2") and path.is_file() and BENCH not in path.parts:
                assert f"{package.replace('.', '/')}/{path.relative_to(ROOT / folder).as_posix()}" in names
    assert "sincere_spec/py.typed" in names
    assert not [name for name in names if f"/{BENCH}/" in name]
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_core_depends_on_array_api_compat_alone(metadata: email.message.Message) -> None:
    core = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert [line.split(">")[0] for line in core] == ["array-api-compat"]


def test_the_extras(metadata: email.message.Message) -> None:
    assert set(metadata.get_all("Provides-Extra", [])) == {
        "torch",
        "jax",
        "tensorflow",
        "keras",
        "kernels",
        "verify",
        "bench",
        "study",
        "peers",
        "examples",
        "docs",
        "test",
        "all",
    }


def test_no_extra_pins_a_version() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    assert not [
        requirement for extra in extras.values() for requirement in extra if "==" in requirement.partition(";")[0]
    ]


def test_the_metadata(metadata: email.message.Message) -> None:
    assert metadata["Name"] == "sincere-spec"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata["Description-Content-Type"] == "text/markdown"
    import sincere_spec

    assert metadata["Version"] == sincere_spec.__version__


def test_the_installed_wheel_runs_from_another_folder(installed: Path, tmp_path: Path) -> None:
    code = """
import sincere_spec as ss, sincere_spec.conformance, sincere_spec.backends, numpy as np
print(ss.__file__)
value, gradient = ss.value_and_gradient(ss.losses.sincere(0.1), np.eye(4), [0, 0, 1, 1])
assert gradient.shape == (4, 4) and abs(float(value) - np.log(3.0)) < 1e-12, value
"""
    out = run(sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH=str(installed), PYTHONSAFEPATH="1")
    assert Path(out.strip()).is_relative_to(installed)


def test_the_installed_wheel_passes_the_tests_of_the_losses(installed: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    run(
        *(sys.executable, "-m", "pytest", "-q", "--framework", "numpy", "tests/test_losses.py"),
        cwd=tmp_path,
        PYTHONPATH=str(installed),
        PYTHONSAFEPATH="1",
    )


def test_only_the_core_is_needed(installed: Path, tmp_path: Path) -> None:
    """With nothing but array-api-compat to be found, the package imports, and records are made and kept."""
    import array_api_compat

    (site := tmp_path / "site").mkdir()
    (site / "array_api_compat").symlink_to(Path(array_api_compat.__file__).parent)
    (site / "sincere_spec").symlink_to(installed / "sincere_spec")
    code = f"""
import sys; sys.path.append({str(site)!r})
import sincere_spec as ss
assert ss.losses.supcon(summation="in") != ss.losses.supcon()
try:
    ss.sincere_loss([[1.0]], [0])
except ss.UnknownArrayError as error:
    print(error)
"""
    assert "embeddings" in run(sys.executable, "-I", "-S", "-c", code, cwd=tmp_path)


def test_the_constraints_pin_what_the_extras_name() -> None:
    """Every direct dependency has one exact version in constraints.txt: what CI and the two commands install."""
    pinned = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        requirement = line.partition("#")[0].partition(";")[0].strip()
        if requirement:
            name, exact, version = requirement.partition("==")
            assert exact, line
            assert name not in pinned, line
            pinned[name] = version
    extras = PROJECT["project"]["optional-dependencies"]
    direct = {requirement.split(">")[0].split("[")[0] for extra in extras.values() for requirement in extra} | {
        "array-api-compat"
    }
    assert direct - {"sincere-spec"} <= pinned.keys()


# --- types: what a checker sees of an install ---

SCRIPT = Path(__file__).parent / "data" / "user_script.py"
WRONG = {i for i, line in enumerate(SCRIPT.read_text(encoding="utf-8").splitlines(), 1) if line.endswith("# wrong")}


@pytest.fixture(scope="module", params=["editable", "wheel"])
def environment(
    request: pytest.FixtureRequest, tree: Path, built: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """An environment with nothing but the package in it: by `pip install -e .` as pip does it without options, or the wheel."""
    folder = tmp_path_factory.mktemp(request.param)
    (package,) = built.glob("*.whl")
    if request.param == "editable":
        code = f"import setuptools.build_meta as backend; backend.build_editable({str(folder)!r})"
        run(sys.executable, "-c", code, cwd=tree)
        (package,) = folder.glob("*.whl")
    made = folder / "environment"
    run(sys.executable, "-m", "venv", "--without-pip", made, cwd=folder)
    inside = made / ("Scripts" if os.name == "nt" else "bin") / "python"
    pip = (sys.executable, "-m", "pip", "--python", inside, "install", "-q", "--no-deps", "--no-index")
    run(*pip, package, cwd=folder)
    return inside


def checked(*command: object, cwd: Path) -> str:
    """What a checker prints; it ends in an error, since the script is wrong on purpose."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")}
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


def test_mypy_sees_the_types_of_an_install(environment: Path, tmp_path: Path) -> None:
    shutil.copy(SCRIPT, tmp_path)
    options = ("--strict", "--python-executable", environment, "--cache-dir", environment.parents[2] / "mypy")
    out = checked(sys.executable, "-m", "mypy", *options, SCRIPT.name, cwd=tmp_path)
    assert {int(line) for line in re.findall(r"user_script\.py:(\d+): error", out)} == WRONG, out


def test_pyright_sees_the_types_of_an_install(environment: Path, tmp_path: Path, need) -> None:
    """By basedpyright, which is pyright with a Node of its own, under pyright's rules."""
    need("basedpyright")
    shutil.copy(SCRIPT, tmp_path)
    rules = {"typeCheckingMode": "standard", "reportMissingModuleSource": False}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(rules), encoding="utf-8")
    checker = ("-m", "basedpyright", "--outputjson", "--pythonpath", environment)
    found = json.loads(checked(sys.executable, *checker, SCRIPT.name, cwd=tmp_path))["generalDiagnostics"]
    lines = {line["range"]["start"]["line"] + 1 for line in found if line["severity"] == "error"}
    assert lines == WRONG, found


def test_the_command_of_the_base_install(installed: Path, tmp_path: Path) -> None:
    """With array-api-compat alone: help, the version and the catalogue; and what `verify` needs."""
    import array_api_compat

    (site := tmp_path / "site").mkdir()
    (site / "array_api_compat").symlink_to(Path(array_api_compat.__file__).parent)
    (site / "sincere_spec").symlink_to(installed / "sincere_spec")
    code = f"import sys; sys.path.append({str(site)!r}); from sincere_spec.__main__ import main; sys.exit(main())"

    def command(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-I", "-S", "-c", code, *words], capture_output=True, text=True, timeout=60, check=False
        )

    assert command("--version").stdout.startswith("sincere-spec ")
    for help_ in (command("--help"), command()):
        assert help_.returncode == 0, help_.stderr
        assert "losses" in help_.stdout
        assert "pip install 'sincere-spec[verify]'" in " ".join(help_.stdout.split())  # argparse wraps lines
    assert command("losses").stdout.count("loss_i = ") >= 9
    one = command("losses", "clip")
    assert one.stdout.startswith("clip_loss(a, b, temperature=0.07)")
    assert "sincere_loss" not in one.stdout
    wrong = command("losses", "clp")
    assert (wrong.returncode, 'did you mean "clip"?' in wrong.stderr) == (2, True)
    for name in ("verify", "measure", "study"):
        missing = command(name, "--quick")
        assert missing.returncode == 2
        assert len(missing.stderr.splitlines()) == 1
        assert "try: pip install 'sincere-spec[verify]'" in missing.stderr


def test_the_urls(metadata: email.message.Message) -> None:
    urls = dict(line.split(", ", 1) for line in metadata.get_all("Project-URL", []))
    assert {"Homepage", "Documentation", "Repository", "Issues", "Changelog"} <= set(urls)
    assert all(url.startswith("https://github.com/sincere-spec/sincere-spec") for url in urls.values())
