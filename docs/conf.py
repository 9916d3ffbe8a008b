"""How the site is built: `make docs`."""

from __future__ import annotations

import json
import os
import re
import statistics
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
# Keras is documented on the backend that may be imported beside torch.
os.environ.setdefault("KERAS_BACKEND", "torch")

from docutils import nodes  # noqa: E402
from docutils.utils.math import latex2mathml  # noqa: E402
from sphinx.application import Sphinx  # noqa: E402
from sphinx.writers.html5 import HTML5Translator  # noqa: E402

import sincere_spec  # noqa: E402

project = "sincere-spec"
author = "The sincere-spec authors"
copyright = "The sincere-spec authors, Apache-2.0"
release = version = sincere_spec.__version__
html_title = f"sincere-spec {release}"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "make", "data"]
html_theme = "furo"
html_math_renderer = "mathml"
html_static_path = ["pictures"]
html_theme_options = {
    "source_repository": "https://github.com/sincere-spec/sincere-spec",
    "source_branch": "main",
    "source_directory": "docs/",
}
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "substitution"]
myst_heading_anchors = 3
napoleon_numpy_docstring = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_type_aliases = {"Array": "Array", "Labels": "Labels"}
python_use_unqualified_type_names = True
maximum_signature_line_length = 88


def _measured() -> dict[str, str]:
    """The numbers of the first page, from the committed results: never typed."""
    result = json.loads((HERE.parent / "benchmarks" / "results" / "torch-cpu.json").read_text(encoding="utf-8"))

    def time(program: str) -> float:
        (row,) = [
            row
            for row in result["times"]
            if (row["loss"], row["size"]) == ("sincere", 4096) and row["program"].partition("@")[0] == program
        ]
        return 1000 * statistics.median(row["seconds"])

    def memory(program: str) -> str:
        (row,) = [
            row
            for row in result["memory"]
            if (row["loss"], row["size"]) == ("sincere", 65536) and row["program"].partition("@")[0] == program
        ]
        extra = (row["extra"] - row["gradients"]) / 1e6
        return f"{extra:.0f} MB" if row["status"] == "ok" else f"was {row['reason']}"

    worth = json.loads((HERE / "data" / "referee.json").read_text(encoding="utf-8"))
    return {
        "tiled_ms": f"{time('tiled'):.0f} ms",
        "plain_ms": f"{time('plain'):.0f} ms",
        "tiled_memory": memory("tiled"),
        "plain_memory": memory("plain"),
        "faults": str(worth["faults"]["planted"]),
        "killed": str(worth["faults"]["killed"]["all"]),
        "cases": str(worth["cases"]),
    }


myst_substitutions = _measured()


def _inline(writer: HTML5Translator, node: nodes.math) -> None:
    writer.body.append(latex2mathml.tex2mathml(node.astext(), as_block=False))
    raise nodes.SkipNode


def _block(writer: HTML5Translator, node: nodes.math_block) -> None:
    formula = latex2mathml.tex2mathml(node.astext(), as_block=True)
    writer.body.append(f'<div class="math" style="overflow-x: auto; padding: 0.5em 0">{formula}</div>')
    raise nodes.SkipNode


def _bars(app: Sphinx, what: str, name: str, of: object, options: object, lines: list[str]) -> None:
    """A bar in a docstring is one of mathematics, and no substitution."""
    lines[:] = [line if line.lstrip().startswith((">>>", "...")) else line.replace("|", r"\|") for line in lines]


def _alias(
    app: Sphinx, what: str, name: str, of: object, options: object, given: str | None, returned: str | None
) -> tuple[str, str | None] | None:
    """Aliases of types by their names: in a union autodoc writes the `repr` of its own wrapper."""

    def named(text: str) -> str:
        return re.sub(r"TypeAliasForwardRef\('(\w+)'\)", r"\1", text)

    return (named(given), returned and named(returned)) if given else None


def setup(app: Sphinx) -> None:
    """Formulas are MathML: no script, and no other site."""
    app.connect("autodoc-process-docstring", _bars)
    app.connect("autodoc-process-signature", _alias)
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
