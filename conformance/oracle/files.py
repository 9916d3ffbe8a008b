"""The suite's files: made from the recipes and the loops, and made again to see that they are what is committed."""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from mpmath import mp  # type: ignore[import-untyped,unused-ignore]

from sincere_spec.conformance.oracle import differences, loops
from sincere_spec.conformance.oracle.conditioning import Conditioned, conditioned
from sincere_spec.conformance.oracle.pairs import doubts
from sincere_spec.conformance.oracle.problem import Array, Problem
from sincere_spec.conformance.oracle.recipes import Recipe, recipes

__all__ = ["SUITE", "SUITE_VERSION", "check", "check_inputs", "check_quickly", "entry", "write"]

SUITE = Path(__file__).resolve().parent.parent / "suite"
SUITE_VERSION = "1.2.0"

_BITS = {"bfloat16": (8, -133, 128), "float16": (11, -24, 16), "float32": (24, -149, 128), "float64": (53, -1074, 1024)}
_EVERY = tuple(_BITS)
_U = 2.0**-53
_SMALLEST = 2.0**-1022
_NOTHING = mp.mpf(10) ** -30  # of the scale: below what a difference resolves, so zero
_DOUBTFUL = 1e-4  # how close a guide's similarity may be to where it decides, but for an exact tie
_QUICK = 3000  # entries times pairs: cases up to this size are made again by the quick check


# numbers as text


def _hex(x: float) -> str:
    return "0x0p+0" if x == 0 else _short(float(x).hex())


def _short(text: str) -> str:
    """A hex float without the zeros that say nothing: 0x1.8p+0 for 0x1.8000000000000p+0."""
    mantissa, exponent = text.split("p")
    return f"{mantissa.rstrip('0').rstrip('.')}p{exponent}" if "." in mantissa else text


def _coarse(x: float) -> str:
    """A scale, rounded up to 8 bits: it says how much, not what."""
    fraction, exponent = math.frexp(x)
    return _hex(math.ldexp(math.ceil(fraction * 256) / 256, exponent))


def _decimal(x: Any) -> str:
    text: str = mp.nstr(x, 40)
    return text


def _listed(numbers: Sequence[str], scalar: bool) -> str | list[str]:
    return numbers[0] if scalar else list(numbers)


# a recipe with its answers


def _expected(numbers: Iterable[Any], scales: Array, scalar: bool) -> dict[str, Any]:
    flat = scales.reshape(-1).tolist()
    rounded = [mp.mpf(0) if abs(x) <= _NOTHING * scale else x for x, scale in zip(numbers, flat, strict=True)]
    return {
        "hex": _listed([_hex(float(x)) for x in rounded], scalar),
        "scale": _listed([_coarse(scale) for scale in flat], scalar),
    }


def _options(problem: Problem) -> dict[str, str | bool]:
    return {name: _hex(x) if isinstance(x, float) else x for name, x in problem.options.items()}


def _arguments(problem: Problem) -> dict[str, Any]:
    answer: dict[str, Any] = {}
    for name, x in problem.arguments.items():
        if x.dtype.kind in "ib":
            answer[name] = x.tolist()
        else:
            answer[name] = {"shape": list(x.shape), "hex": [_hex(number) for number in x.reshape(-1).tolist()]}
    return answer


def _head(recipe: Recipe) -> dict[str, Any]:
    problem = recipe.problem
    cotangent = [_hex(c) for c in problem.cotangent.reshape(-1).tolist()]
    head: dict[str, Any] = {"id": recipe.id, "says": recipe.says, "loss": problem.loss}
    if recipe.dtypes is not None:
        head["dtypes"] = list(recipe.dtypes)
    return {
        **head,
        "options": _options(problem),
        "normalize": problem.normalize,
        "reduction": problem.reduction,
        "arguments": _arguments(problem),
        "cotangent": _listed(cotangent, problem.reduction != "none"),
    }


def _value_entry(problem: Problem, near: Conditioned) -> dict[str, Any]:
    scalar = problem.reduction != "none"
    numbers = differences.value(problem)
    with mp.workdps(loops.DIGITS):
        answer = _expected(numbers, near.scale, scalar)
        answer["decimal"] = _listed([_decimal(x) for x in numbers], scalar)
    return {key: answer[key] for key in ("hex", "decimal", "scale")}


def _digits(near: Conditioned) -> int:
    """Digits enough for the smallest entry of the gradient: at cold temperatures one row's may be 1e-300 of another's."""
    scales = np.concatenate([np.ones(1), near.scale.reshape(-1), *(x.reshape(-1) for x in near.scales.values())])
    scales = scales[scales > 0]
    return loops.DIGITS + 10 * math.ceil(
        math.log10(float(np.max(scales))) / 10 - math.log10(float(np.min(scales))) / 10
    )


def _gradient_entries(problem: Problem, near: Conditioned) -> dict[str, Any]:
    answer, digits = {}, _digits(near)
    with mp.workdps(digits):
        for name, rows in differences.gradient(problem, digits).items():
            flat = [x for row in rows for x in row]
            answer[name] = _expected(flat, near.scales[name], name not in problem.arguments)
    return answer


def entry(recipe: Recipe) -> dict[str, Any]:
    """A case as it stands in a file."""
    near = conditioned(recipe.problem)
    value, gradient = _value_entry(recipe.problem, near), _gradient_entries(recipe.problem, near)
    return {**_head(recipe), "value": value, "gradient": gradient}


# the files


def _text(profile: str, loss: str, cases: Sequence[dict[str, Any]]) -> str:
    """JSON with one line for each field of a case, so that a difference between two releases can be read."""
    compact = json.JSONEncoder(separators=(",", ":")).encode
    blocks = []
    for case in cases:
        fields = ",\n".join(f"   {compact(key)}: {compact(field)}" for key, field in case.items())
        blocks.append(f"  {{\n{fields}\n  }}")
    head = f' "suite": {compact(SUITE_VERSION)},\n "profile": {compact(profile)},\n "loss": {compact(loss)},\n'
    return "{\n" + head + ' "cases": [\n' + ",\n".join(blocks) + "\n ]\n}\n"


def _by_file(cases: Iterable[tuple[Recipe, dict[str, Any]]]) -> Iterator[tuple[str, str, list[dict[str, Any]]]]:
    files: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for recipe, case in cases:
        files[recipe.profile, recipe.problem.loss].append(case)
    for (profile, loss), group in files.items():
        yield profile, loss, group


def _entries(chosen: Sequence[Recipe], processes: int) -> list[dict[str, Any]]:
    if processes < 2:
        return [entry(recipe) for recipe in chosen]
    order = sorted(range(len(chosen)), key=lambda k: -_cost(chosen[k].problem))
    with get_context("spawn").Pool(processes) as pool:
        made = pool.map(entry, [chosen[k] for k in order], chunksize=1)
    return [case for _, case in sorted(zip(order, made, strict=True), key=lambda pair: pair[0])]


def write(directory: Path = SUITE, processes: int = 1) -> int:
    """Make all files; returns the number of cases."""
    chosen = list(recipes())
    check_inputs(chosen)
    made = _entries(chosen, processes)
    for profile, loss, group in _by_file(zip(chosen, made, strict=True)):
        path = directory / profile / f"{loss}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_text(profile, loss, group), encoding="utf-8")
    _write_losses(directory, chosen)
    return len(chosen)


def _write_losses(directory: Path, chosen: Sequence[Recipe]) -> None:
    """The names of the losses in the schemas, which are those of the recipes."""
    names = json.dumps(list(dict.fromkeys(recipe.problem.loss for recipe in chosen)))
    for name in ("case.schema.json", "large.schema.json"):
        path = directory / name
        if path.exists():
            text = path.read_text(encoding="utf-8")
            path.write_text(re.sub(r'("loss": \{"enum": )\[[^]]*\]', rf"\g<1>{names}", text), encoding="utf-8")


def _cost(problem: Problem) -> int:
    arrays = problem.arrays()
    rows = sum(len(x) for x in arrays.values())
    return sum(x.size for x in arrays.values()) * rows * rows


# what is checked


def _exact_in(x: float, dtype: str) -> bool:
    if x == 0:
        return True
    bits, lowest, highest = _BITS[dtype]
    fraction, exponent = math.frexp(abs(x))
    unit = max(exponent - bits, lowest)
    return exponent <= highest and math.ldexp(fraction, exponent - unit).is_integer()


def check_inputs(chosen: Sequence[Recipe]) -> None:
    """Ids are unique, inputs are exact in every dtype that they promise, and no cotangent is one."""
    seen: set[str] = set()
    for recipe in chosen:
        problem, where = recipe.problem, f"{recipe.profile}: {recipe.id}"
        if recipe.id in seen:
            raise ValueError(f"{where}: the id is used twice")
        seen.add(recipe.id)
        if np.any(problem.cotangent == 1):
            raise ValueError(f"{where}: a cotangent of 1 hides that it is ignored")
        inputs = {**problem.arrays(), **problem.held(), "cotangent": problem.cotangent}
        inputs |= {
            name: np.asarray(problem.options[name])
            for name in ("temperature", "bias", "margin")
            if name in problem.options
        }
        for name, x in inputs.items():
            for dtype in recipe.dtypes or _EVERY:
                if not all(_exact_in(number, dtype) for number in x.reshape(-1).tolist()):
                    raise ValueError(f"{where}: {name} is not exact in {dtype}")
        if any(left <= _DOUBTFUL for left in doubts(problem)):
            raise ValueError(f"{where}: a guide's similarity stands where single precision may decide")


def _numbers(text: str | list[str]) -> Array:
    return np.asarray([float.fromhex(x) for x in ([text] if isinstance(text, str) else text)])


def _same(where: str, got: dict[str, Any], want: dict[str, Any]) -> None:
    """Numbers must be the same; a scale may differ in its last bits, being computed in float64."""
    for key in ("hex", "decimal"):
        if got.get(key) != want.get(key):
            raise ValueError(f"{where}: {key} is not what the oracle makes")
    a, b = _numbers(got["scale"]), _numbers(want["scale"])
    if a.shape != b.shape or np.any(np.abs(a - b) > np.maximum(a, b) / 64):
        raise ValueError(f"{where}: scale is not what the oracle makes")


def _agrees(where: str, got: Array, want: Array, scale: Array) -> None:
    allowed = 4 * _U * scale + _U * np.abs(want) + 1e6 * _SMALLEST
    if got.shape != want.shape or not np.all(np.abs(got - want) <= allowed):
        raise ValueError(f"{where}: the closed form and the loops differ by more than rounding")


def _check_closed_form(recipe: Recipe, case: dict[str, Any]) -> None:
    """The published gradients, in float64, are within their own rounding of the differences in the file."""
    near, where = conditioned(recipe.problem), recipe.id
    _agrees(f"{where}: value", near.value.reshape(-1), _numbers(case["value"]["hex"]), near.scale.reshape(-1))
    if set(near.gradients) != set(case["gradient"]):
        raise ValueError(f"{where}: the gradients are not of the same arguments")
    for name, expected in case["gradient"].items():
        got, scale = near.gradients[name].reshape(-1), near.scales[name].reshape(-1)
        _agrees(f"{where}: gradient of {name}", got, _numbers(expected["hex"]), scale)
        half = name in recipe.problem.arguments and "float16" in (recipe.dtypes or _EVERY)
        if half and np.any(np.abs(got) > 65504):
            raise ValueError(f"{where}: gradient of {name} is too large for float16")


def _check_along(recipe: Recipe, case: dict[str, Any]) -> None:
    """The derivative along one direction, by a step of another size, is the sum of the file's entries along it."""
    problem, expected, place = recipe.problem, case["gradient"], 0
    direction: dict[str, list[list[Any]]] = {}
    total, size = mp.mpf(0), mp.mpf(0)
    with mp.workdps(loops.DIGITS):
        tables = {**problem.arrays(), **{n: np.asarray([[1.0]]) for n in expected if n not in problem.arguments}}
        for name, table in tables.items():
            entries = iter(_numbers(expected[name]["hex"]).tolist())
            direction[name] = []
            for row in table.tolist():
                widest = max(abs(x) for x in row)
                if name in ("temperature", "bias"):
                    widest = abs(problem.number(name)) or 1.0
                steps = []
                for _ in row:
                    place += 1
                    # A zero row has no derivative of its own when it is normalised: it does not move.
                    dead = problem.normalize and name in problem.arguments and not widest
                    way = mp.mpf(0 if dead else (widest or 1.0)) * ((place * 37) % 19 - 9) / 8
                    term = way * mp.mpf(next(entries))
                    total, size = total + term, size + abs(term)
                    steps.append(way)
                direction[name].append(steps)
        slope = differences.directional(problem, direction, digits=17)
        if abs(slope - total) > 4 * _U * size + mp.mpf(10) ** -25 * (1 + size):
            raise ValueError(f"{recipe.id}: gradient is not the derivative along a direction")


def _read(directory: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    """All cases of the files by id, with the file they stand in."""
    cases = {}
    for path in sorted(directory.glob("*/*.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        for case in document["cases"]:
            cases[case["id"]] = (f"{document['profile']}/{document['loss']}", case)
    return cases


def _check_schema(directory: Path) -> None:
    try:
        import jsonschema  # type: ignore[import-untyped,unused-ignore]
    except ImportError:  # the schema is for other people's tools; the loader has checks of its own
        return
    schema = json.loads((directory / "case.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for path in sorted(directory.glob("*/*.json")):
        for error in validator.iter_errors(json.loads(path.read_text(encoding="utf-8"))):
            raise ValueError(f"{path.name}: {error.json_path}: {error.message}")


def _matched(directory: Path) -> list[tuple[Recipe, dict[str, Any]]]:
    chosen, found = list(recipes()), _read(directory)
    check_inputs(chosen)
    _check_schema(directory)
    missing = {recipe.id for recipe in chosen} ^ set(found)
    if missing:
        raise ValueError(f"{sorted(missing)[0]}: only one of the recipes and the files has it ({len(missing)} such)")
    matched = []
    for recipe in chosen:
        place, case = found[recipe.id]
        if place != f"{recipe.profile}/{recipe.problem.loss}":
            raise ValueError(f"{recipe.id}: stands in {place}.json")
        head = _head(recipe)
        for key, field in head.items():
            if case.get(key) != field:
                raise ValueError(f"{recipe.id}: {key} is not what the recipe says")
        if set(case) != {*head, "value", "gradient"}:
            raise ValueError(f"{recipe.id}: the file has other fields than the recipe")
        matched.append((recipe, case))
    return matched


def _check_value(recipe: Recipe, case: dict[str, Any]) -> None:
    _same(f"{recipe.id}: value", case["value"], _value_entry(recipe.problem, conditioned(recipe.problem)))


def _check_gradient(recipe: Recipe, case: dict[str, Any]) -> None:
    made = _gradient_entries(recipe.problem, conditioned(recipe.problem))
    for name, expected in made.items():
        _same(f"{recipe.id}: gradient of {name}", case["gradient"][name], expected)


def _check_one(job: tuple[Recipe, dict[str, Any], bool]) -> None:
    recipe, case, whole = job
    _check_value(recipe, case)
    _check_closed_form(recipe, case)
    _check_along(recipe, case)
    if whole:
        _check_gradient(recipe, case)


def check(directory: Path = SUITE, processes: int = 1) -> int:
    """Make every case again and compare; returns their number. ValueError says what differs."""
    return _check(directory, processes, math.inf)


def check_quickly(directory: Path = SUITE, processes: int = 1) -> int:
    """The same, but the gradients of larger cases are judged by their closed form and along one direction only."""
    return _check(directory, processes, _QUICK)


def _check(directory: Path, processes: int, largest: float) -> int:
    jobs = [(recipe, case, _cost(recipe.problem) <= largest) for recipe, case in _matched(directory)]
    if processes < 2:
        for job in jobs:
            _check_one(job)
    else:
        with get_context("spawn").Pool(processes) as pool:
            for _ in pool.imap_unordered(_check_one, jobs, chunksize=4):
                pass
    return len(jobs)
