"""The public names: sorted, importable, documented, and all of them."""

from __future__ import annotations

import inspect
from types import ModuleType

import pytest

import sincere_spec as ss

NAMES = [(ss, name) for name in ss.__all__] + [(ss.losses, name) for name in ss.losses.__all__]


def identify(case: object) -> str:
    return case.__name__ if isinstance(case, ModuleType) else str(case)


@pytest.mark.parametrize("module", [ss, ss.losses], ids=identify)
def test_all_is_sorted_and_complete(module: ModuleType) -> None:
    assert list(module.__all__) == sorted(set(module.__all__))
    public = {name for name, value in vars(module).items() if not name.startswith("_") and not inspect.ismodule(value)}
    assert public - {"annotations"} <= set(module.__all__)


@pytest.mark.parametrize(("module", "name"), NAMES, ids=identify)
def test_every_name_is_there_and_documented(module: ModuleType, name: str) -> None:
    value = getattr(module, name)
    if not name.startswith("__"):
        assert (inspect.getdoc(value) or "").strip(), f"{name} has no docstring"


@pytest.mark.parametrize("name", [name for name in ss.__all__ if inspect.isfunction(getattr(ss, name))])
def test_every_function_has_an_example(name: str) -> None:
    assert ">>>" in (inspect.getdoc(getattr(ss, name)) or "")


def test_the_functions_of_every_loss() -> None:
    """Each record has its function, `sincere` and `sincere_loss`, with the same keywords and defaults."""
    shared = {
        "where",
        "ignore",
        "normalize",
        "reduction",
        "engine",
        "tile",
        "across",
        "keys",
        "key_labels",
        "ids",
        "key_ids",
    }
    for name in ss.losses.__all__:
        record = inspect.signature(getattr(ss.losses, name)).parameters
        function = inspect.signature(getattr(ss, f"{name}_loss")).parameters
        assert {parameter: function[parameter].default for parameter in record} == {
            parameter: record[parameter].default for parameter in record
        }
        keywords = {p.name for p in function.values() if p.default is not p.empty} - {"negatives"}
        assert keywords - shared == set(record), name


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError):
        ss.no_such_loss  # noqa: B018
