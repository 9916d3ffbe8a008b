"""What a call may say of its pairs, as programs that are timed beside the plain loss of as many rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy

    from sincere_spec.bench.inputs import Inputs

OUTSIDE = 8
"""Rows outside `where`: those that fill up a last batch."""

SEVERAL = 2
"""Rows of a group and of an id, and classes of a row, on average."""

OWN = 128
"""Negatives of each query."""

IGNORED = 0.01
"""The share of pairs that a matrix leaves out."""

Arguments: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]
"""The positional arguments and the keywords of a call."""


@dataclass(frozen=True)
class Relation:
    """What is said beside the arrays of a plain loss.

    `draw` makes its inputs of random numbers, the inputs of the plain loss and a number of classes, and `arguments` a call of the
    arrays of those. It is measured against the program of the relation `against`; "" is the plain loss.
    """

    losses: tuple[str, ...]
    draw: Callable[[numpy.random.Generator, Inputs, int], Inputs]
    arguments: Callable[..., Arguments]
    against: str = ""


@cache
def relations() -> Mapping[str, Relation]:
    """By name, in the order of the page; one without losses is only there for another to be measured against it."""
    import sincere_spec as ss

    def ignoring(value: Callable[..., Any]) -> Callable[..., Arguments]:
        return lambda a, b, *beside: ((a, b), {"ignore": value(*beside)})

    def in_place(value: Callable[..., Any]) -> Callable[..., Arguments]:
        return lambda embeddings, labels, beside: ((embeddings, value(beside)), {})

    return {
        "where": Relation(("clip", "nt_xent", "supcon"), _where, lambda *x: (x[:-1], {"where": x[-1]})),
        "same": Relation(("clip", "nt_xent", "info_nce"), _groups, ignoring(ss.same)),
        "ids": Relation(("sincere",), _ids, lambda *x: (x[:-1], {"ids": x[-1]})),
        "guide": Relation(("clip",), _guides, ignoring(ss.guide)),
        "ignore": Relation(("clip", "nt_xent"), _ignored, ignoring(lambda matrix: matrix)),
        "positives-bool": Relation(("supcon",), _same_label, in_place(ss.positives)),
        "positives-float": Relation(("supcon",), _weights, in_place(ss.positives)),
        "overlap-any": Relation(("supcon",), _classes, in_place(lambda hot: ss.overlap(hot, "any"))),
        "overlap-jaccard": Relation(("supcon",), _classes, in_place(lambda hot: ss.overlap(hot, "jaccard"))),
        "shared-negatives": Relation((), _shared_negatives, lambda *x: (x, {})),
        "own-negatives": Relation(("info_nce",), _own_negatives, lambda *x: (x, {}), against="shared-negatives"),
    }


def _rows(plain: Inputs) -> int:
    return len(plain.embeddings[0])


def _where(random: numpy.random.Generator, plain: Inputs, classes: int) -> Inputs:
    inside = random.permutation(_rows(plain)) >= OUTSIDE
    return replace(plain, beside=(inside,))


def _groups(random: numpy.random.Generator, plain: Inputs, classes: int) -> Inputs:
    return replace(plain, beside=(random.integers(0, _rows(plain) // SEVERAL, _rows(plain)),))


def _ids(random: numpy.random.Generator, plain: Inputs, classes: int) -> Inputs:
    ids = random.integers(0, _rows(plain) // SEVERAL, _rows(plain))
    return replace(plain, labels=random.integers(0, classes, _rows(plain))[ids], beside=(ids,))  # each id has one label


def _guides(random: numpy.random.Generator, plain: Inputs, classes: int) -> Inputs:
    first = random.normal(size=plain.embeddings[0].shape)
    return replace(plain, beside=(first, first + random.normal(size=first.shape)))


def _ignored(random: numpy.random.Generator, plain: Inputs, classes: int) -> Inputs:
    return replace(plain, beside=(random.random((_rows(plain), _rows(plain))) < IGNORED,))


def _same_label(random: numpy.random.Generator, plain: Inputs, classes: int) -> Inputs:
    assert plain.labels is not None
    return replace(plain, beside=(plain.labels[:, None] == plain.labels[None, :],))


def _weights(random: numpy.random.Generator, plain: Inputs, classes: int) -> Inputs:
    (same,) = _same_label(random, plain, classes).beside
    return replace(plain, beside=(same * random.random(same.shape),))


def _classes(random: numpy.random.Generator, plain: Inputs, classes: int) -> Inputs:
    return replace(plain, beside=(random.random((_rows(plain), classes)) < SEVERAL / classes,))


def _shared_negatives(random: numpy.random.Generator, plain: Inputs, classes: int) -> Inputs:
    return replace(plain, embeddings=(*plain.embeddings, random.normal(size=(OWN, plain.embeddings[0].shape[1]))))


def _own_negatives(random: numpy.random.Generator, plain: Inputs, classes: int) -> Inputs:
    rows, dim = plain.embeddings[0].shape
    return replace(plain, embeddings=(*plain.embeddings, random.normal(size=(rows, OWN, dim))))
