"""One warning a process where a batch teaches nothing: no row of it counts, so its loss and its gradient are 0."""

from __future__ import annotations

import inspect
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sincere_spec.arrays import Array, Namespace
from sincere_spec.call.check import Problem
from sincere_spec.engines.comparison import pairs
from sincere_spec.engines.rows import KEEPING_NOTHING
from sincere_spec.errors import EmptyBatchWarning
from sincere_spec.spec.relations import SameLabel
from sincere_spec.spec.words import Fold, Pairs

LOOKS = 3
"""How many batches of the value 0 are looked at: losses of 0 that are meant cost nothing after these."""

BLOCK = 256
"""The rows whose pairs are looked at at a time."""

looks_left = [LOOKS]


@contextmanager
def unwarned() -> Iterator[None]:
    """Without the warning, and without taking it from who comes later: for what says more itself."""
    left, looks_left[0] = looks_left[0], 0
    try:
        yield
    finally:
        looks_left[0] = left


def warn_of_nothing(problem: Problem, value: Array) -> Array:
    """The value; warns where it is 0 because no row counts, once a process, if that costs nothing to see.

    Only the value itself is read, where it is in the host's memory already, and labels only where it is exactly 0: there is no
    synchronisation with a device, and nothing under tracing.
    """
    backend, membership = problem.backend, problem.membership
    if backend.traces or problem.reduction == "none" or not problem.loss.arrangement.labelled:
        return value
    if not backend.on_host(value) or not looks_left[0] or float(backend.hold(value)) != 0.0:
        return value
    if membership is not None and membership.collectives.rank != 0:  # one of them says it
        return value
    looks_left[0] -= 1
    counted = rows_that_count(problem) if membership is None else float(membership.shares[-1])
    if not counted:
        looks_left[0] = 0
        rows = problem.related.rows["label"].shape[0] if membership is None else sum(membership.anchors)
        warnings.warn(
            f"{problem.loss.name}: none of the {rows} rows of this batch counts, so the loss is 0 and its gradient, too: a row "
            "needs another of its class to learn from. Sample so that classes come in twos or more, or give two views of each "
            "sample. This is said once a process; sincere_spec.diagnose says more of a batch.",
            EmptyBatchWarning,
            stacklevel=_callers_level(),
        )
    return value


def _callers_level() -> int:
    """How far up the stack, from `warn_of_nothing`, the first frame outside of the package is."""
    package, level, frame = str(Path(__file__).parents[1]), 0, inspect.currentframe()
    while frame is not None and frame.f_code.co_filename.startswith(package):
        level, frame = level + 1, frame.f_back
    return level


def rows_that_count(problem: Problem) -> int:
    """How many rows of a labelled call count, from labels and samples read on the host."""
    backend, related = problem.backend, problem.related
    if not isinstance(related.relation, SameLabel):
        return _by_pairs(problem)
    rows, columns = (
        list(zip(*(backend.to_host(x[name]).tolist() for name in ("label", "sample")), strict=True))
        for x in (related.rows, related.columns)
    )
    if problem.where:
        keys = problem.roles.keys
        rows = _inside(problem, problem.roles.anchors[0], rows)
        columns = _inside(problem, keys[0], columns) if keys else rows
    alike, both = Counter(label for label, _ in columns), Counter(columns)
    sample = Counter(sample for _, sample in columns)
    needs, counted = _needs_negatives(problem), 0
    for row in rows:
        positives = alike[row[0]] - both[row]
        negatives = len(columns) - sample[row[1]] - positives
        counted += positives > 0 and (negatives > 0 or not needs)
    return counted


def _needs_negatives(problem: Problem) -> bool:
    """Whether a row without negatives does not count."""
    negative = {
        stage.name for stage in problem.loss.stages if stage.fold is Fold.LOGSUMEXP and stage.over is Pairs.NEGATIVE
    }
    for one in problem.loss.combined:
        of = [term.stage in negative for term in one.of]
        if all(of) if one.fold is Fold.LOGSUMEXP else one.fold in KEEPING_NOTHING and any(of):
            negative.add(one.name)
    return any(term.stage in negative for term in problem.loss.terms)


def _by_pairs(problem: Problem) -> int:
    """The same where only the pairs themselves say it: a block of rows at a time, so that no matrix of all pairs is made."""
    related, keys, count = problem.related, problem.roles.keys, problem.sizes[0]
    own, other = (problem.where.get(name) for name in (problem.roles.anchors[0], (keys or problem.roles.anchors)[0]))
    integer, needs, counted = related.rows["label"].dtype, _needs_negatives(problem), 0
    xp = problem.backend.namespace(related.rows["label"])
    for start in range(0, count, BLOCK):
        rows = slice(start, min(start + BLOCK, count))
        row, blocks = ({name: x[rows, ...] for name, x in given.items()} for given in (related.rows, related.blocks))
        kinds = pairs(problem.backend, related.relation, row, related.columns, blocks)  # [rows, m]
        positives, negatives = (_pairs_of_row(xp, mask, other, integer) for mask in kinds[:2])  # [rows]
        counts = (positives > 0) & ((negatives > 0) | (not needs))
        counted += int(xp.sum(xp.astype(counts if own is None else counts & own[rows], integer)))
    return counted


def _pairs_of_row(xp: Namespace, mask: Array, inside: Array | None, integer: Any) -> Array:
    """How many pairs of each row of a mask have a column that takes part."""
    return xp.sum(xp.astype(mask if inside is None else mask & inside[None, :], integer), axis=1)


def _inside(problem: Problem, name: str, rows: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The rows that take part."""
    if name not in problem.where:
        return rows
    inside = problem.backend.to_host(problem.where[name]).tolist()
    return [row for row, there in zip(rows, inside, strict=True) if there]
