"""The table of transforms: every cell is a check that passes, and a check that cannot fail would be found here."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import sincere_spec as ss
from sincere_spec.conformance import frameworks, report, runner
from sincere_spec.conformance.transforms import BEGIN, END, TRANSFORMS, checks, rendered, table, transforms_of
from sincere_spec.conformance.transforms.verdicts import verdicts

ROOT = Path(__file__).parents[1]
HAVE_TRANSFORMS = ("torch", "jax", "tensorflow")
have_transforms = pytest.mark.parametrize("framework", HAVE_TRANSFORMS, indirect=True)
CELLS = [
    (framework, row.id, engine)
    for framework in HAVE_TRANSFORMS
    for row in transforms_of(framework).values()
    for engine in checks.ENGINES
    if getattr(row, engine)
]


@cache
def judged(framework: str) -> report.Report:
    """All transforms of a framework, run as `sincere-spec verify` runs them: in a process of their own."""
    return runner.run(runner.Request(frameworks=(framework,), profiles=(TRANSFORMS,), timeout=600.0))


@pytest.mark.timeout(900)  # one test in each process waits for all of them
@pytest.mark.parametrize(("framework", "name", "engine"), CELLS)
def test_every_cell_of_the_table_is_so(framework: str, name: str, engine: str, need) -> None:
    need(framework)
    if transforms_of(framework)[name].framework == "keras":
        need("keras")
    asked = {case for row, case, by in checks.units(framework) if (row, by) == (name, engine)}
    results = [x for x in judged(framework).results if (x.route, x.engine) == (name, engine)]
    assert {result.case for result in results} == {f"{TRANSFORMS}/{framework}/{name}/{case}" for case in asked}
    assert not [f"{result.case} {result.quantity}: {result.reason}" for result in results if result.status != "pass"]


@have_transforms
def test_the_checks_that_ran_are_a_passing_report(framework: str) -> None:
    made = judged(framework)
    assert made.exit_status == 0, made.sentence
    (matrix,) = verdicts(made.results)
    assert list(matrix.lines) == [row.title for row in transforms_of(framework).values()]
    text = report.markdown(made)
    assert "## Transforms" in text
    assert "## The suite" not in text
    assert all(row.title in text for row in transforms_of(framework).values())
    assert json.loads(report.to_json(made))["counts"] == {"pass": len(made.results)}
    assert {result.case for result in made.results} == set(made.says)
    assert report.junit(made).count("<testcase") == len(made.results)


# --- the table ---


def test_the_page_has_the_table() -> None:
    """`python -m sincere_spec.conformance.transforms` writes it."""
    text = (ROOT / "docs" / "transforms.md").read_text(encoding="utf-8")
    assert text.partition(BEGIN)[2].partition(END)[0] == f"\n{rendered(table())}\n"


@have_transforms
def test_a_row_has_one_check_and_a_check_one_row(framework: str) -> None:
    module = import_module(f"sincere_spec.conformance.transforms.{framework}")
    assert list(module.CHECKS) == [row.id for row in table() if row.framework == framework]


def test_every_case_counts_all_its_rows() -> None:
    """The Jacobians of row losses lean on it."""
    for question in checks.cases().values():
        mean, total = (
            ss.evaluate(
                getattr(ss.losses, question.loss)(**question.options),
                *question.arrays.values(),
                *question.integers.values(),
                reduction=reduction,
            )
            for reduction in ("mean", "sum")
        )
        rows = ss.evaluate(
            getattr(ss.losses, question.loss)(**question.options),
            *question.arrays.values(),
            *question.integers.values(),
            reduction="none",
        )
        assert np.isclose(total / mean, len(rows))


# --- a check can fail ---


def verdict(unit: checks.Unit) -> tuple[set[str], str]:
    results = checks.check(frameworks.start("torch"), unit)
    return {result.status for result in results}, " ".join(result.reason for result in results)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
@pytest.mark.framework("torch")
@pytest.mark.parametrize("case", checks.CASES)
@pytest.mark.parametrize(
    "name", ["eager", "double-backward", "forward-mode", "func-vmap", "func-jvp", "func-hessian", "inference-mode"]
)
def test_a_wrong_derivative_or_value_is_seen(name: str, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert verdict((name, case, "auto"))[0] == {"pass"}
    right = checks.called
    monkeypatch.setattr(checks, "called", lambda *given, **options: 1.00001 * right(*given, **options))
    assert "fail" in verdict((name, case, "auto"))[0]


@pytest.mark.framework("torch")
def test_a_batch_that_is_mixed_up_by_vmap_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    right = torch.func.vmap
    monkeypatch.setattr(
        torch.func,
        "vmap",
        lambda f: right(lambda arrays: f({k: x.flip(0) if x.ndim else x for k, x in arrays.items()})),
    )
    assert "fail" in verdict(("func-vmap", "clip/ordinary", "auto"))[0]


@pytest.mark.framework("torch")
def test_another_outcome_than_the_table_s_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    from sincere_spec.backends.torch import TorchBackend as torch_backend

    rows = transforms_of("torch")

    def with_outcomes(**outcomes: str) -> None:
        changed = {name: replace(row, **outcomes) for name, row in rows.items()}
        monkeypatch.setattr(checks, "transforms_of", lambda framework: changed)

    with_outcomes(auto="no such thing", tiled="another reason")
    statuses, reason = verdict(("func-grad", "clip/ordinary", "auto"))
    assert (statuses, "and numbers came" in reason) == ({"fail"}, True)
    monkeypatch.setattr(torch_backend, "tiles_obstacle", lambda self, like: "this is a test")
    statuses, reason = verdict(("func-grad", "clip/ordinary", "tiled"))
    assert (statuses, 'engine="dense" computes the same' in reason) == ({"fail"}, True)
    with_outcomes(tiled="passes")
    assert verdict(("func-grad", "clip/ordinary", "tiled"))[0] == {"error"}


@pytest.mark.skipif(not frameworks.FRAMEWORKS["torch"].installed, reason="torch is not installed")
def test_a_process_that_dies_takes_its_checks_with_it() -> None:
    code = "import os, sys; sys.stdin.readline(); os.abort()"
    request = runner.Request(frameworks=("torch",), profiles=(TRANSFORMS,), losses=("clip",))
    made = runner.run(request, worker=(sys.executable, "-c", code))
    assert {result.status for result in made.results} == {"error"}
    assert len(made.results) == len([unit for unit in checks.units("torch") if unit[1].startswith("clip")])
    assert "died of SIGABRT" in made.results[0].reason
    assert made.exit_status == 1


# --- what is asked ---


@pytest.mark.skipif(not frameworks.FRAMEWORKS["jax"].installed, reason="jax is not installed")
def test_transforms_are_asked_unless_something_else_is() -> None:
    everything = runner.Request(frameworks=("jax",), digits=False)

    def asked(**change: object) -> set[checks.Unit]:
        return set(runner.plan(replace(everything, **change)).transforms["jax"])

    assert asked() == set(checks.units("jax"))
    assert not asked(transforms=False)
    assert not asked(profiles=("core",))
    assert {case for _, case, _ in asked(losses=("clip",))} == {"clip/ordinary"}
    assert {name for name, _, _ in asked(dtypes=("float32",))} == {"fit"}
    tiled = asked(engines=("tiled",))
    assert tiled == {unit for unit in checks.units("jax", sampled=False) if unit[2] == "tiled"}
    assert len(tiled) > len([unit for unit in checks.units("jax") if unit[2] == "tiled"])
