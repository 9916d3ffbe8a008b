"""Who is a positive and who is a negative of whom.

A pair is judged by attributes of its row and its column, never by positions: equal samples are never compared. A set may be
empty. Sums and means over nothing are 0, a log-sum-exp over nothing takes its row out of the count, and a stage that
subtracts one has no pairs in that row: so SINCERE's margin against no noise is 0.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from sincere_spec.arrays import Array
from sincere_spec.spec.words import Word

Attributes: TypeAlias = Mapping[str, Array]
"""Vectors by row that relations read, by name: "label" and "sample" are integers."""


class Relation(Word, ABC):
    """A rule for pairs; it holds no array.

    `reads` are the attributes that it needs. Pairs whose ranges of the attribute `sorted_by` do not overlap are plain
    negatives, so that tiles of rows in its order need no mask there. A `symmetric` relation is the same for (i, j) and (j, i).
    """

    reads: tuple[str, ...] = ("label",)
    sorted_by: str | None = "label"
    symmetric: bool = True

    @abstractmethod
    def pair(self, row: Attributes, column: Attributes) -> tuple[Array | None, Array]:
        """The positive mask of a block of pairs (None: it has no positive) and the negative one; attributes broadcast."""

    @property
    def apart(self) -> Relation:
        """The same rule where no two rows of a block are one sample."""
        return self


@dataclass(frozen=True)
class SameLabel(Relation):
    """Positives share a label, negatives do not; rows of one sample are neither."""

    reads = ("label", "sample")

    def pair(self, row: Attributes, column: Attributes) -> tuple[Array | None, Array]:
        """By label, but for pairs of one sample."""
        same_label, other_sample = row["label"] == column["label"], row["sample"] != column["sample"]
        return same_label & other_sample, ~same_label & other_sample

    @property
    def apart(self) -> Relation:
        """By label alone."""
        return DistinctSameLabel()


@dataclass(frozen=True)
class DistinctSameLabel(Relation):
    """`SameLabel` of distinct samples."""

    def pair(self, row: Attributes, column: Attributes) -> tuple[Array | None, Array]:
        """By label."""
        return row["label"] == column["label"], row["label"] != column["label"]


@dataclass(frozen=True)
class OtherLabel(Relation):
    """Columns of another label are negatives; the one positive of a row, its partner, is named by the arrangement."""

    def pair(self, row: Attributes, column: Attributes) -> tuple[Array | None, Array]:
        """Negatives alone."""
        return None, row["label"] != column["label"]
