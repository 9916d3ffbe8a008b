"""The site's sources: pages that are made of data are of the committed data, pictures show what they say, links are followed."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from test_faults import FAULTS
from test_readme import blocks

import sincere_spec as ss
from sincere_spec.conformance import questions

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The scripts of the site can be imported."""
    monkeypatch.syspath_prepend(str(DOCS / "make"))
    yield
    for name in ("accuracy", "links", "pictures", "referee"):
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("made")
def test_the_page_of_the_referee_is_of_its_data() -> None:
    import referee

    found = json.loads(referee.DATA.read_text(encoding="utf-8"))
    page = referee.PAGE.read_text(encoding="utf-8")
    assert referee.rewritten(page, found) == page
    assert found["faults"]["killed"]["all"] == found["faults"]["planted"]
    assert found["faults"]["spared"] == []
    assert {row["false_alarms"] for row in found["right"].values()} == {0}
    assert found["one_logit"]["finite"] + found["one_logit"]["not_finite"] == 2**16
    assert found["faults"]["planted"] == len(FAULTS)
    assert found["cases"] == len(questions.of_suite())


@pytest.mark.usefixtures("made")
def test_the_page_of_the_worst_errors_is_of_its_data() -> None:
    import accuracy

    found = json.loads(accuracy.DATA.read_text(encoding="utf-8"))
    assert accuracy.PAGE.read_text(encoding="utf-8") == accuracy.rendered(found)
    worst = [ratio for row in found["worst"].values() for ratio in row.values()]
    assert 0 < max(worst) <= found["tolerance"]


@pytest.mark.usefixtures("made")
def test_the_worst_errors_are_gathered_from_reports() -> None:
    import accuracy

    place = {"row": "sincere", "profile": "core", "framework": "numpy", "engine": "dense", "dtype": "float32"}
    results = [place | {"ratio": 0.5}, place | {"ratio": 1.25}, place | {"ratio": 9.0, "profile": "large"}, place]
    report = {
        "suite": "1.2.0",
        "package": "0.1.0",
        "tolerance": 4.0,
        "machine": {"python": "3.11", "machine": "x86_64"},
        "rows": ["sincere"],
        "frameworks": {"numpy": {"versions": {"numpy": "2.4"}}},
        "results": results,
    }
    found = accuracy.gathered([report])
    assert found["worst"] == {"sincere": {"numpy dense float32": 1.25}}
    assert "| sincere | 1.25 |" in accuracy.rendered(found)
    other = found | {"worst": {"clip": {"numpy dense float32": 0.5}}, "verdicts": 2}
    both = accuracy.together(found, other)
    assert (list(both["worst"]), both["verdicts"]) == (["sincere", "clip"], len(results) + 2)
    for wrong in (found, other | {"suite": "1.3.0"}, other | {"versions": {"numpy": {"numpy": "2.5"}}}):
        with pytest.raises(SystemExit, match="again of all losses"):
            accuracy.together(found, wrong)


@pytest.mark.framework("torch")
@pytest.mark.usefixtures("made")
def test_one_logit_is_right_at_every_bfloat16_number() -> None:
    import referee

    found = referee.one_logit()
    assert found["inputs"] == 2**16
    assert found["value_steps"] < 2  # of float32
    assert found["gradient_steps"] <= 0.5 + 1e-3  # of bfloat16: rounded once
    assert found["not_finite"] == 2**16 - found["finite"]


@pytest.mark.usefixtures("made")
def test_the_picture_shows_a_near_positive_pushed_away_by_supcon_alone() -> None:
    pytest.importorskip("matplotlib")
    import pictures

    positives = slice(0, 3)  # they lie clockwise of the anchor, so that towards it is anticlockwise
    assert pictures.moves("supcon")[0] < 0
    assert np.all(pictures.moves("supcon")[1:3] > 0)
    assert np.all(pictures.moves("sincere")[positives] > 0)


@pytest.mark.usefixtures("made")
def test_the_pictures_of_pairs_are_the_formulas_signs() -> None:
    pytest.importorskip("matplotlib")
    import pictures

    labels = np.asarray([0, 0, 0, 1, 1, 2])
    same, itself = labels[:, None] == labels, np.eye(6)
    signs, *_ = pictures.pairs("sincere")
    assert np.array_equal(signs, np.where(itself, 0, np.where(same, 1, -1)))
    assert np.array_equal(pictures.pairs("clip")[0], 2 * np.eye(6) - 1)
    views, *_ = pictures.pairs("nt_xent")
    assert np.array_equal(views, np.where(itself, 0, np.where(np.roll(itself, 3, axis=1), 1, -1)))


def test_every_loss_has_a_page_with_its_picture_and_four_tabs() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in ss.losses.__all__:
        page = (DOCS / "losses" / f"{name}.md").read_text(encoding="utf-8")
        assert f"`{name}_loss(" in readme
        assert f"../pictures/pairs-{name}.svg" in page
        assert (DOCS / "pictures" / f"pairs-{name}.svg").is_file()
        assert page.count("{tab-item}") == 4
        assert "```bibtex" in page
        assert "**Which rows count.**" in page


def test_pages_that_list_modules_and_classes_have_all_of_them() -> None:
    named = {*re.findall(r"class ([A-Z]\w+Loss)\(", (ROOT / "sincere_spec" / "torch.py").read_text(encoding="utf-8"))}
    assert len(named) == len(ss.losses.__all__)
    for page in ("keras.md", "losses/index.md"):
        assert named <= {*re.findall(r"`(\w+Loss)`", (DOCS / page).read_text(encoding="utf-8"))}, page
    functions = {*re.findall(r"autofunction:: (\w+_loss)", (DOCS / "api.md").read_text(encoding="utf-8"))}
    assert functions == {f"{name}_loss" for name in ss.losses.__all__}


def test_the_page_of_calls_names_the_keywords_that_all_functions_have() -> None:
    page = (DOCS / "calls.md").read_text(encoding="utf-8")
    (listed,) = re.findall(r"the keywords that all have: (.*?)\. Embeddings", page, flags=re.DOTALL)
    found = []
    for name in ss.losses.__all__:
        signature = inspect.signature(getattr(ss, f"{name}_loss"))
        named = [word for word in signature.parameters.values() if word.kind is word.KEYWORD_ONLY]
        found.append({f"{word.name}={word.default!r}".replace("'", '"') for word in named})
    assert {*re.findall(r"`(.*?)`", listed)} == set.intersection(*found)


@pytest.mark.usefixtures("made")
def test_dead_links_are_found(tmp_path: Path) -> None:
    import links

    text = (
        '<a id="here" href="b.html#there">b</a><a href="b.html#gone">b</a><a href="c.html">c</a><a href="#here">.</a>'
    )
    (tmp_path / "a.html").write_text(text + '<a href="http://plain.example">x</a>', encoding="utf-8")
    (tmp_path / "b.html").write_text('<p id="there">', encoding="utf-8")
    assert links.dead(tmp_path) == ["a.html: b.html#gone", "a.html: c.html", "a.html: http://plain.example"]


def test_pages_are_reached_from_the_first() -> None:
    """Every page of the site is in a table of contents."""
    named = set()
    for page in DOCS.rglob("*.md"):
        for tree in re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL):
            lines = [line for line in tree.split() if not line.startswith(":")]
            named |= {found.with_suffix("") for line in lines for found in page.parent.glob(f"{line}.md")}
            named |= {page.parent / line for line in lines if "*" not in line}
    pages = {page.with_suffix("") for page in DOCS.rglob("*.md") if "_build" not in page.parts}
    assert pages - {DOCS / "index"} <= named


ONE_OF_TWO = """
import sys
rank, store = int(sys.argv[1]), sys.argv[2]
distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
torch.manual_seed(0)
x, labels = torch.randn(12, 6, dtype=torch.float64), torch.arange(12) % 3
model, temperature = torch.nn.Linear(6, 4).double(), torch.tensor(0.1, dtype=torch.float64).requires_grad_()
loss = ss.sincere_loss(model(x), labels, temperature)
whole, by_temperature = torch.autograd.grad(loss, [model.weight, temperature])
own = slice(0, 5) if rank == 0 else slice(5, 12)
"""
PARALLEL = "parallel = torch.nn.parallel.DistributedDataParallel(model)\n"
ON_RANKS = {
    "def step(model": PARALLEL + "value = step(parallel, x[own], labels[own])\nfound = model.weight.grad\n",
    "def cached_step": PARALLEL
    + "value = cached_step(parallel, x[own].split(2), labels[own])\nfound = model.weight.grad\n",
    "def sharded": """
task = sharded(model).double()
value = task(x[own], labels[own])
value.backward()
found = model.weight.grad.full_tensor()
along = task.log_temperature.grad.full_tensor()
torch.testing.assert_close(along, 0.1 * by_temperature.reshape(1), rtol=1e-6, atol=0)
""",
}
SEEN = """
torch.testing.assert_close(value, loss, rtol=RTOL, atol=0)
torch.testing.assert_close(found, whole, rtol=RTOL, atol=1e-14)
distributed.destroy_process_group()
"""


@pytest.mark.framework("torch")
@pytest.mark.parametrize("name", ON_RANKS)
def test_the_recipes_of_several_devices_have_the_gradient_of_one_process(name: str, tmp_path: Path) -> None:
    (block,) = (code for code in blocks(DOCS / "distributed.md") if name in code)
    # The temperature of the sharded task is 0.1 in float32.
    code = block + ONE_OF_TWO + ON_RANKS[name] + SEEN.replace("RTOL", "1e-6" if "sharded" in name else "1e-12")
    words = [sys.executable, "-c", code]
    store = (tmp_path / "store").as_uri()
    ranks = [
        subprocess.Popen([*words, str(rank), store], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for rank in range(2)
    ]
    said = [rank.communicate(timeout=240)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], said
