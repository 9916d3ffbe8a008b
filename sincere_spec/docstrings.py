"""Docstrings of functions and classes, completed: an entry for each argument, those that several share written once, here."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from textwrap import fill
from typing import Any, TypeVar

from sincere_spec import losses

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C", bound=type)

ARGUMENTS = {
    "embeddings": "`[n, d]`, or `[n, views, d]`, whose rows are taken sample by sample and share the sample's label; floats.",
    "labels": "n of them: integers of any width, strings, integer-valued floats, or one-hot rows `[n, C]`; or pairs, by "
    "`positives(matrix)` or `overlap(hot, kind)`.",
    "queries": "`[n, d]`, floats.",
    "negatives": "`[k, d]`, a queue that every query is compared with, or `[n, k, d]`, k for each query alone, fewer by `where`; "
    "None takes the other rows of `positives`.",
    "views": "two or more arrays `[n, d]`, floats; row i of each is the same sample.",
    "a": "`[n, d]`, floats.",
    "b": "`[n, d]`, floats: row i is the positive of row i of `a`.",
    "view_a": "`[n, d]`, floats.",
    "view_b": "`[n, d]`, floats: row i is the same sample as row i of `view_a`.",
    "keys": "`[m, d]`, floats: compare the anchors with these instead of with each other. Needs `key_labels`.",
    "key_labels": "the labels of the m keys, of the same kinds as `labels`.",
    "ids": "the identity of each anchor, by any labels: pairs of equal ids are one sample and never compared. Beside keys "
    "it needs `key_ids`.",
    "key_ids": "the identity of each key.",
    "where": "booleans: the rows that take part. The value is that of the batch without the others, whose gradient is 0, NaN in "
    "them included. `[n]`, or `[n, views]`, for all arrays whose rows belong together; a tuple has one mask, or None, for each "
    "positional array, keys last.",
    "ignore": "pairs that are left out, as if they were not there: `same(groups)` keeps those of one group, repeated captions "
    "say, from being negatives of each other, and a row's own positive stays; `guide(...)` those that "
    "another model finds as similar as it; booleans `[n, m]` name pairs, `[n, n]` by sample "
    "where a sample has several rows; a tuple of several is their union.",
    "normalize": "divide each row by its norm first; a zero row stays zero, and no other depends on its scale.",
    "reduction": '"mean" over the rows that count, "pairs" weighs rows by their positives, "batch" divides the sum by all '
    'rows, "sum", or "none" for the vector of row losses in the order of the anchors: `[n, views, d]` sample by sample; '
    "several views all rows of the first, then of the next; two directions a to b, then b to a.",
    "engine": '"auto", or one of "dense", "tiled", "kernel", which then never falls back to another.',
    "tile": "rows in a tile, for a kernel a power of two from 16 on; None chooses.",
    "across": "the ranks whose rows make up the batch: a process group of torch.distributed, the name of an axis inside "
    "`jax.shard_map` or `jax.pmap`, or `sincere_spec.across` of either. Every rank calls with rows of its own, and returns the "
    "loss of the whole batch; the mean over ranks of their gradients, which is what DDP takes, is its gradient. None: the rows "
    "given are the batch.",
}
"""What the arguments are that several functions share."""

RETURNS = """Returns:
    A scalar array of the same framework, float32 for half-precision embeddings; a vector for `reduction="none"`.

"""
RAISES = """Raises:
    SincereSpecError: one of its kinds, before any arithmetic, for arguments that do not fit; see
        `sincere_spec.errors`.

"""


def documented(function: F) -> F:
    """Complete a function's docstring: its own arguments are described by its record, or in place."""
    parameters = inspect.signature(function).parameters
    names = {name: "*" if p.kind is p.VAR_POSITIONAL else "" for name, p in parameters.items()}
    record = next(loss.record for loss in losses.table.TABLE if loss.function == function.__name__)
    function.__doc__ = _completed(function.__doc__, names, record, {}, RETURNS + RAISES)
    return function


def documented_class(options: Iterable[str], more: dict[str, str]) -> Callable[[C], C]:
    """Complete the docstring of a class of a front end, whose constructor takes its own keywords and the options."""

    def complete(made: C) -> C:
        own = [name for name, p in inspect.signature(made).parameters.items() if p.kind is not p.VAR_KEYWORD]
        names = dict.fromkeys([*own, *options], "")
        record = next(loss.record for loss in losses.table.TABLE if loss.class_name == made.__name__)
        made.__doc__ = _completed(made.__doc__, names, record, more, RAISES.replace("before any arithmetic, ", ""))
        return made

    return complete


def _completed(
    doc: str | None, names: dict[str, str], record: Callable[..., Any], more: dict[str, str], ending: str
) -> str | None:
    """A docstring with an entry for each name, and what is returned and raised; None without one, as under `python -OO`."""
    if doc is None:
        return None
    head, _, example = inspect.cleandoc(doc).partition("Example:\n")
    head, _, own = head.partition("Args:\n")
    entries = ARGUMENTS | _entries(inspect.getdoc(record) or "") | _entries(f"Args:\n{own}") | more
    lines = [head.rstrip(), "", "Args:"]
    for name, stars in names.items():
        lines.append(fill(f"{stars}{name}: {entries[name]}", 116, initial_indent="    ", subsequent_indent="        "))
    lines += ["", ending.rstrip(), ""]
    lines += ["Example:", example.rstrip(), ""] if example else []
    return "\n".join(lines)


def _entries(doc: str) -> dict[str, str]:
    """The arguments that a docstring describes, each on one line."""
    section = re.search(r"^Args:\n((?:    .*\n?|\n(?=    ))*)", doc, re.MULTILINE)
    found = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section[1] if section else "", re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}
