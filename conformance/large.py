"""Batches too large to be stored: recipes by which any language makes the same arrays, and what must hold of the loss there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sincere_spec.conformance.cases import SUITE, CaseError
from sincere_spec.conformance.properties import PROPERTIES
from sincere_spec.conformance.questions import LARGE, LOSSES, Array, Question, Wanted
from sincere_spec.conformance.text import read_json_file

__all__ = ["numbers", "questions", "words"]


def words(seed: int, count: int) -> NDArray[np.uint64]:
    """The first outputs of SplitMix64: 64 bits each, and each computed by itself."""
    k = np.arange(1, count + 1, dtype=np.uint64)
    z = np.uint64(seed) + k * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def numbers(entry: dict[str, Any]) -> NDArray[np.generic]:
    """An array of multiples of 1/64, exact in every dtype, or labels; raises CaseError if they are not what was meant."""
    if "classes" in entry:
        whole = (words(entry["seed"], entry["rows"]) % np.uint64(entry["classes"])).astype(np.int64)
    else:
        drawn = words(entry["seed"], int(np.prod(entry["shape"]))) % np.uint64(121)
        whole = drawn.astype(np.int64) - 60
    checksum = int(np.sum(np.arange(1, whole.size + 1) * whole))
    if checksum != entry["checksum"]:
        raise CaseError(f"checksum {entry['checksum']} was expected, and {checksum} came")
    return whole if "classes" in entry else whole.reshape(entry["shape"]) / 64.0


def questions(directory: Path = SUITE) -> tuple[Question, ...]:
    """The large batches of the suite in a directory, or none where it has none; raises CaseError for a malformed file."""
    path = Path(directory) / f"{LARGE}.json"
    if not path.exists():
        return ()
    try:
        recipes = read_json_file(path)["recipes"]
    except (ValueError, KeyError, TypeError) as error:
        raise CaseError(f"{path}: recipes were expected: {error}") from error
    return tuple(_question(recipe, path) for recipe in recipes)


def _question(recipe: dict[str, Any], path: Path) -> Question:
    try:
        if recipe["loss"] not in LOSSES:
            raise CaseError(f"loss {recipe['loss']!r} is none of {', '.join(LOSSES)}")
        unknown = sorted(set(recipe["properties"]) - set(PROPERTIES))
        if unknown:
            raise CaseError(f"property {unknown[0]!r} is none of {', '.join(PROPERTIES)}")
        arguments = {name: numbers(entry) for name, entry in recipe["arguments"].items()}
        gradient = {name: Wanted(_nothing(x), _nothing(x)) for name, x in arguments.items() if x.dtype == np.float64}
        options = {name: float.fromhex(x) if "0x" in str(x) else x for name, x in recipe["options"].items()}
        return Question(
            id=recipe["id"],
            profile=LARGE,
            says=recipe["says"],
            loss=recipe["loss"],
            options=options,
            arguments=arguments,
            normalize=True,
            reduction="mean",
            dtypes=("float32", "float64"),
            cotangent=np.asarray(float.fromhex(recipe["cotangent"])),
            value=Wanted(np.asarray(np.nan), np.asarray(0.0)),
            gradient=gradient,
            floor=1.0,
            properties=tuple(recipe["properties"]),
        )
    except (CaseError, KeyError, TypeError, ValueError) as error:
        name = recipe.get("id") if isinstance(recipe, dict) else None
        raise CaseError(f"{name or path}: malformed: {error}") from error


def _nothing(x: NDArray[np.generic]) -> Array:
    """What is wanted of a gradient that no oracle has: its shape."""
    return np.full(x.shape, np.nan)
