"""Every Python block of the README and of the site, run as it stands: those of one page and framework in one process.

The process of a page is a fork of one that has imported its framework and nothing else: that is most of the time of a page.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from preloaded import Preloaded

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
FRAMEWORKS = ("numpy", "torch", "jax", "tensorflow", "keras")
# torch.compile makes an instance of its own of an autograd function under autocast, and torch then warns of that.
DYNAMO = "ignore:<class 'torch.autograd.function.Function'> should not be instantiated:DeprecationWarning"
# A block that imports one of these is a program of its own: where it is not installed, the rest of the page runs.
OPTIONAL = ("timm",)
# Formulas of packages that are no dependency of the tests, in the place of those that are not installed.
PUBLISHED = ROOT / "tests" / "published"
FIVE_LINES = {"numpy", "torch", "jax", "tensorflow"}


def blocks(page: Path) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def frameworks(code: str) -> list[str]:
    roots = {
        alias.name.partition(".")[0]
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    return [name for name in FRAMEWORKS if name in roots]


def imports(code: str, module: str) -> bool:
    return re.search(rf"^(from|import) {module}\b", code, flags=re.MULTILINE) is not None


def process(code: str) -> str:
    """The framework in whose process a block runs, or nothing; NumPy beside another is no framework."""
    named = frameworks(code)
    return next((name for name in ("keras", "tensorflow", "torch", "jax", "numpy") if name in named), "")


def programs() -> dict[tuple[str, str], str]:
    """The blocks of each page by framework, one after another; one that names no framework goes on with the one before."""
    found: dict[tuple[str, str], list[str]] = {}
    for page in PAGES:
        last = ""
        for code in blocks(page):
            last = process(code) or last
            name = page.relative_to(ROOT).with_suffix("").as_posix()
            alone = "".join(f"-{module}" for module in OPTIONAL if imports(code, module))
            found.setdefault((name, last + alone), []).append(code)
    return {key: "\n\n".join(parts) for key, parts in found.items()}


PROGRAMS = programs()


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Preloaded]]:
    """By framework, as tests ask for them."""
    started: dict[str, Preloaded] = {}
    yield started
    for process in started.values():
        process.end()


@pytest.mark.parametrize(("page", "name"), PROGRAMS, ids=lambda word: word.replace("/", ".") or "core")
def test_the_blocks_of_a_page_run(
    page: str,
    name: str,
    need,
    processes: dict[str, Preloaded],
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
) -> None:
    code = PROGRAMS[page, name]
    for framework in (*frameworks(code), *(["tensorflow"] if name == "keras" else [])):
        need(framework)
    for module in ("sklearn", "optax", "flax", "pytorch_metric_learning", "sentence_transformers", *OPTIONAL):
        if imports(code, module):
            need(module)
    framework = name.partition("-")[0]
    if framework not in processes:
        keras = {"KERAS_BACKEND": "tensorflow", "KERAS_HOME": str(tmp_path_factory.mktemp("keras"))}
        modules = (framework,) if framework else ()
        processes[framework] = Preloaded(modules, ("-W", "error", "-W", DYNAMO), keras)
    code = f"import sys; sys.path.append({str(PUBLISHED)!r})\n{code}"
    done = processes[framework].run(code, ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_readme_has_the_loss_in_five_lines_of_each_framework() -> None:
    first = {}
    for code in blocks(README):
        for name in frameworks(code)[:1] or ["none"]:
            first.setdefault(name, code)
    assert first.keys() >= FIVE_LINES
    for name in FIVE_LINES:
        lines = [line for line in first[name].splitlines() if line.strip() and not line.lstrip().startswith("#")]
        assert len(lines) == 5, f"{name}: {len(lines)} lines"


def test_the_readme_is_short_and_its_links_work_outside_of_a_checkout() -> None:
    text = README.read_text(encoding="utf-8")
    assert len(text.encode()) <= 10_000
    links = re.findall(r"\]\(([^)]*)\)", text)
    assert links
    ours = "https://github.com/sincere-spec/sincere-spec/blob/main/"
    raw = "https://raw.githubusercontent.com/sincere-spec/sincere-spec/main/"
    for link in links:
        assert link.startswith("https://"), link
        for start in (ours, raw):
            if link.startswith(start):
                assert (ROOT / link.removeprefix(start)).exists(), link
    start = text[: text.index("```python")]
    assert "pip install ." in start
    assert "No index has the package yet" in start


def test_every_tutorial_ends_with_an_accuracy() -> None:
    for page in (ROOT / "docs" / "tutorials").glob("*.md"):
        if page.stem != "index":
            assert re.match(r"assert (accuracy|found) > 0\.\d+", blocks(page)[-1].strip().splitlines()[-1].strip()), (
                page
            )
