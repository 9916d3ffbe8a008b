"""Every path that an engine takes for speed, forced on and off: the whole suite passes either way."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sincere_spec.conformance import frameworks, judge, questions
from sincere_spec.conformance.implementations import Package
from sincere_spec.engines import neighbours, normalise, panels, parts, prune, tiled

Patch = pytest.MonkeyPatch


def _no_fixed_shift(patch: Patch) -> None:
    for dtype in parts.SPREAD:
        patch.setitem(parts.SPREAD, dtype, -1.0)  # nor products of exponentials for one logarithm


def _no_strips(patch: Patch) -> None:
    patch.setattr(tiled, "STRIP", 0)


def _strips_always(patch: Patch) -> None:
    patch.setattr(tiled, "LOWEST_STRIP", 1)


def _no_neighbours(patch: Patch) -> None:
    patch.setattr(panels, "neighbours", lambda comparison: None)


def _neighbours_always(patch: Patch) -> None:
    patch.setattr(neighbours, "FEW", 1.0)


def _nothing_remembered(patch: Patch) -> None:
    patch.setattr(prune, "_remembered", {})
    patch.setattr(prune, "LIMIT", 0)


def _no_ordinary_norms(patch: Patch) -> None:
    patch.setattr(normalise, "ORDINARY", (1.0, 0.0))


FORCED: list[tuple[str, Callable[[Patch], None]]] = [
    ("dense", _no_neighbours),
    ("dense", _neighbours_always),
    ("dense", _no_fixed_shift),
    ("dense", _no_ordinary_norms),
    ("dense", _nothing_remembered),
    ("tiled", _no_fixed_shift),
    ("tiled", _no_strips),
    ("tiled", _strips_always),
]


@pytest.mark.parametrize(("engine", "force"), FORCED, ids=lambda x: getattr(x, "__name__", x))
@pytest.mark.framework("numpy")
def test_the_suite_passes_with_a_fast_path_forced(
    engine: str, force: Callable[[Patch], None], monkeypatch: Patch
) -> None:
    force(monkeypatch)
    implementation, passed = Package(frameworks.start("numpy")), 0
    for question in questions.of_suite():
        for dtype in set(question.dtypes) & {"float32", "float64"}:
            results = judge.ask(implementation, question, dtype, engine)
            assert {result.status for result in results} <= {"pass", "unsupported"}, results
            passed += sum(result.status == "pass" for result in results)
    assert passed > 1000
