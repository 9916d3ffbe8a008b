"""Every example in a docstring, run with NumPy; those of a framework's own modules run in that framework's process."""

from __future__ import annotations

import doctest
import importlib

import pytest
from test_imports import MODULES, within

OWN = {
    "torch": ("sincere_spec.torch", "sincere_spec.backends.torch"),
    "jax": ("sincere_spec.backends.jax",),
    "tensorflow": ("sincere_spec.keras", "sincere_spec.backends.tensorflow"),
}


def cases() -> list[object]:
    """A module and the framework whose own it is, which in the id names the process of the test."""
    found = []
    for name, path in sorted(MODULES.items()):
        if ">>>" in path.read_text(encoding="utf-8"):
            own = [framework for framework, folders in OWN.items() if within(name, *folders)]
            found.append(pytest.param(name, own, id="-".join([*own, name])))
    return found


@pytest.mark.parametrize(("name", "own"), cases())
def test_examples(name: str, own: list[str], need) -> None:
    for framework in own:
        need(framework)
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    report: list[str] = []
    examples = 0
    for test in doctest.DocTestFinder(exclude_empty=True).find(module):
        examples += len(test.examples)
        runner.run(test, out=report.append)
    assert not runner.failures, "".join(report)
    assert examples, f"{name} has >>> and no example that doctest finds"
