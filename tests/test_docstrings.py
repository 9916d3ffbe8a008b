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
    found = []
    for name, path in sorted(MODULES.items()):
        if ">>>" in path.read_text(encoding="utf-8"):
            marks = [pytest.mark.framework(framework) for framework, folders in OWN.items() if within(name, *folders)]
            found.append(pytest.param(name, marks=marks))
    return found


@pytest.mark.parametrize("name", cases())
def test_examples(name: str) -> None:
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    report: list[str] = []
    examples = 0
    for test in doctest.DocTestFinder(exclude_empty=True).find(module):
        examples += len(test.examples)
        runner.run(test, out=report.append)
    assert not runner.failures, "".join(report)
    assert examples, f"{name} has >>> and no example that doctest finds"
