"""Who is compared with whom in a problem that says so by more than labels, ids and places: every pair asked by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from sincere_spec.conformance.oracle.problem import Array, Problem

__all__ = ["TIE", "Side", "cosines", "sides"]

_QUEUES = ("negatives", "own_negatives")
TIE = 1e-5
"""A negative that the guide finds less similar than the own pair by less than this is as similar as it."""


@dataclass(frozen=True, eq=False)
class Side:
    """Anchors against keys, both by the names of their arrays, whose rows follow each other.

    ``weights`` has the exact weight of each positive pair, 0 for a negative one, and None for two rows that are not
    compared. ``inside`` says which anchors take part.
    """

    anchors: tuple[str, ...]
    keys: tuple[str, ...]
    weights: list[list[Fraction | None]]
    inside: list[bool]

    def rounded(self) -> Array:
        """The weights in float64, NaN for two rows that are not compared."""
        rows = [[np.nan if weight is None else float(weight) for weight in row] for row in self.weights]
        return np.asarray(rows, dtype=np.float64).reshape(len(rows), -1)


@dataclass(frozen=True)
class _Place:
    """A row: its array, and its sample's place there."""

    array: str
    sample: int


def _places(problem: Problem, names: tuple[str, ...]) -> list[_Place]:
    found = []
    for name in names:
        shape = problem.arguments[name].shape
        each = shape[1] if len(shape) == 3 else 1
        found += [_Place(name, k // each) for k in range(shape[0] * each)]
    return found


def sides(problem: Problem) -> list[Side]:
    """The sides of a problem; CLIP's second compares b with a."""
    names = tuple(problem.arrays())
    if "embeddings" in names:
        keys = ("keys",) if "keys" in names else ("embeddings",)
        return [_side(problem, ("embeddings",), keys, _labelled)]
    if problem.loss in ("nt_xent", "dystress", "hcl"):
        return [_side(problem, names, names, _views)]
    if set(_QUEUES) & set(names):
        return [_side(problem, names[:1], names[1:], _queue)]
    if problem.loss == "f_micl":
        return [_side(problem, names[:1], names[::-1], _within)]
    both = [_side(problem, names[:1], names[1:], _towers), _side(problem, names[1:], names[:1], _towers)]
    return both if problem.loss in ("clip", "infoloob") else both[:1]


Kind = Callable[[Problem, _Place, _Place, int, int], Fraction | None]
"""The weight of a pair before any is left out, from two rows and their numbers; None: it is never compared."""


def _labelled(problem: Problem, i: _Place, j: _Place, row: int, column: int) -> Fraction | None:
    given = problem.arguments
    if j.array == "keys":
        same = "key_ids" in given and given["ids"][row] == given["key_ids"][column]
    else:
        same = given["ids"][row] == given["ids"][column] if "ids" in given else row == column
    if same:
        return None
    for name in ("positive_pairs", "positive_weights"):
        if name in given:
            return Fraction(float(given[name][i.sample, j.sample]))
    beside = "key_" if j.array == "keys" else ""
    if "classes" in given:
        mine, theirs = given["classes"][i.sample], given[f"{beside}classes"][j.sample]
        common, either = int(np.sum(mine & theirs)), int(np.sum(mine | theirs))
        return Fraction(common > 0) if problem.options["overlap"] == "any" else Fraction(common, max(either, 1))
    return Fraction(bool(given["labels"][i.sample] == given[f"{beside}labels"][j.sample]))


def _views(problem: Problem, i: _Place, j: _Place, row: int, column: int) -> Fraction | None:
    return None if row == column else Fraction(i.sample == j.sample)


def _towers(problem: Problem, i: _Place, j: _Place, row: int, column: int) -> Fraction | None:
    return Fraction(i.sample == j.sample)


def _within(problem: Problem, i: _Place, j: _Place, row: int, column: int) -> Fraction | None:
    """Positives in the second view, negatives in the first."""
    if j.array == "view_b":
        return Fraction(1) if i.sample == j.sample else None
    return None if i.sample == j.sample else Fraction(0)


def _queue(problem: Problem, i: _Place, j: _Place, row: int, column: int) -> Fraction | None:
    """The positive of a row, and a queue, of all rows or of each its own."""
    own = i.sample == j.sample
    if j.array not in _QUEUES:
        return Fraction(1) if own else None
    return Fraction(0) if own or j.array == "negatives" else None


def _side(problem: Problem, anchors: tuple[str, ...], keys: tuple[str, ...], kind: Kind) -> Side:
    rows, columns = _places(problem, anchors), _places(problem, keys)
    inside = [_takes_part(problem, place) for place in rows]
    there = _of_each_there(problem, columns, [_takes_part(problem, place) for place in columns])
    weights: list[list[Fraction | None]] = [[None] * len(columns) for _ in rows]
    for row, i in enumerate(rows):
        for column, j in enumerate(columns):
            weight = kind(problem, i, j, row, column)
            # What labels say may be left out whole; of others the own pair stays, but where a matrix has it.
            own = bool(weight) if "embeddings" not in anchors else i.array == j.array and i.sample == j.sample
            if inside[row] and there[column] and not _left_out(problem, i, j, own):
                weights[row][column] = weight
    return Side(anchors, keys, weights, inside)


def _takes_part(problem: Problem, place: _Place) -> bool:
    mask = problem.arguments.get("key_where" if place.array in ("keys", *_QUEUES) else "where")
    return mask is None or mask.ndim == 2 or bool(mask[place.sample])


def _of_each_there(problem: Problem, columns: list[_Place], there: list[bool]) -> list[bool]:
    """Of the negatives of each row those that ``key_where``, ``[n, k]``, has."""
    mask = problem.arguments.get("key_where")
    if mask is None or mask.ndim == 1:
        return there
    flags = iter(mask.ravel().tolist())
    return [next(flags) if place.array == "own_negatives" else ok for place, ok in zip(columns, there, strict=True)]


def _left_out(problem: Problem, i: _Place, j: _Place, own: bool) -> bool:
    given = problem.arguments
    beside = "key_" if j.array in ("keys", *_QUEUES) else ""
    partner = j.array not in _QUEUES and bool(set(_QUEUES) & set(given))  # a matrix beside a queue is of the queue
    if "groups" in given and not own and given["groups"][i.sample] == given[f"{beside}groups"][j.sample]:
        return True
    if "ignore" in given and not partner:
        backwards = (i.array, j.array) == ("b", "a")
        if given["ignore"][(j.sample, i.sample) if backwards else (i.sample, j.sample)]:
            return True
    if "margin" in problem.options and not own:
        least = cosines(problem, i.array, _partner(problem, i))[i.sample, i.sample] - problem.number("margin")
        return bool(cosines(problem, i.array, j.array)[i.sample, j.sample] >= least - TIE)
    return False


def _partner(problem: Problem, place: _Place) -> str:
    """The array with a row's own positive."""
    pair = tuple(problem.arrays())[:2]
    return pair[1] if place.array == pair[0] else pair[0]


def cosines(problem: Problem, one: str, other: str) -> Array:
    """What a guide finds of the rows of two arrays."""
    x, y = (problem.held()[f"guide_{name}"] for name in (one, other))
    x, y = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x, y))
    table: Array = x @ y.T
    return table


def doubts(problem: Problem) -> list[float]:
    """How far each similarity of a guide is from where it decides; ties are left out, which every rounding decides alike."""
    if "margin" not in problem.options:
        return []
    found = []
    for side in sides(problem):
        for i in _places(problem, side.anchors):
            least = cosines(problem, i.array, _partner(problem, i))[i.sample, i.sample] - problem.number("margin")
            for name in side.keys:
                found += np.abs(cosines(problem, i.array, name)[i.sample] - least).tolist()
    return [gap for gap in found if gap > 1e-12]
