"""Who is a positive and who is a negative of whom.

A pair is judged by attributes of its row and its column, never by positions: equal samples are never compared. A set may be
empty. Sums and means over nothing are 0, a log-sum-exp over nothing takes its row out of the count, and a stage that
subtracts one has no pairs in that row: so SINCERE's margin against no noise is 0.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import TypeAlias

from sincere_spec.arrays import Array
from sincere_spec.spec.checks import FLAG, TEXT, TEXT_OR_NONE, check_fields, instance, several
from sincere_spec.spec.words import Word

Attributes: TypeAlias = Mapping[str, Array]
"""What relations read, by name. Of rows vectors of integers, such as "label" and "sample"; of pairs matrices."""


class Relation(Word, ABC):
    """A rule for pairs; it holds no array.

    `reads` are the vectors by row that it needs. `compares` are matrices by row of which it needs the products of rows and
    columns, and `blocks` the matrices of pairs that the user gives. Pairs whose ranges of the attribute `sorted_by` do not
    overlap are no positives, and of a `plain` relation they are negatives, so that tiles of rows in its order need no mask
    there. A `symmetric` relation is the same for (i, j) and (j, i). A `weighted` one weighs its positives.
    """

    reads: tuple[str, ...] = ("label",)
    compares: tuple[str, ...] = ()
    blocks: tuple[str, ...] = ()
    sorted_by: str | None = "label"
    plain: bool = True
    symmetric: bool = True
    weighted: bool = False

    @abstractmethod
    def pair(self, row: Attributes, column: Attributes, between: Attributes) -> tuple[Array | None, Array]:
        """The positive mask of a block of pairs (None: it has no positive) and the negative one.

        `row` has the vectors as `[r, 1]`, `column` as `[1, c]`, and `between` products and parts of matrices as `[r, c]`.
        """

    def weight(self, row: Attributes, column: Attributes, between: Attributes) -> Array:
        """The weights of the positives of a block, of a `weighted` relation; attributes are as in `pair`."""
        raise NotImplementedError(f"{self!r} has no weights")

    @property
    def apart(self) -> Relation:
        """The same rule where no two rows of a block are one sample."""
        return self


@dataclass(frozen=True)
class SameLabel(Relation):
    """Positives share a label, negatives do not; rows of one sample are neither."""

    reads = ("label", "sample")

    def pair(self, row: Attributes, column: Attributes, between: Attributes) -> tuple[Array | None, Array]:
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

    def pair(self, row: Attributes, column: Attributes, between: Attributes) -> tuple[Array | None, Array]:
        """By label."""
        return row["label"] == column["label"], row["label"] != column["label"]


@dataclass(frozen=True)
class OtherLabel(Relation):
    """Columns of another label are negatives; the one positive of a row, its partner, is named by the arrangement."""

    def pair(self, row: Attributes, column: Attributes, between: Attributes) -> tuple[Array | None, Array]:
        """Negatives alone."""
        return None, row["label"] != column["label"]


class Ignored(Word, ABC):
    """A rule for pairs that are left out, whatever they would be; it reads what a relation reads, and holds no array."""

    reads: tuple[str, ...] = ()
    compares: tuple[str, ...] = ()
    blocks: tuple[str, ...] = ()
    symmetric: bool = True

    @abstractmethod
    def left_out(self, row: Attributes, column: Attributes, between: Attributes) -> Array:
        """The mask of a block of pairs; attributes are as in `Relation.pair`."""


@dataclass(frozen=True)
class EqualGroup(Ignored):
    """Pairs of equal groups, but for those that are equal in `own`, too: the views of one sample."""

    group: str
    own: str | None = None

    def __post_init__(self) -> None:
        check_fields(self, group=TEXT, own=TEXT_OR_NONE)

    @property
    def reads(self) -> tuple[str, ...]:  # type: ignore[override]
        """The two attributes."""
        return (self.group,) if self.own is None else (self.group, self.own)

    def left_out(self, row: Attributes, column: Attributes, between: Attributes) -> Array:
        """By group."""
        same = row[self.group] == column[self.group]
        return same if self.own is None else same & (row[self.own] != column[self.own])


@dataclass(frozen=True)
class Marked(Ignored):
    """Pairs that a matrix of the user's marks; `symmetric` if it has a pair once for both of its directions."""

    matrix: str
    symmetric: bool = False

    def __post_init__(self) -> None:
        check_fields(self, matrix=TEXT, symmetric=FLAG)

    @property
    def blocks(self) -> tuple[str, ...]:  # type: ignore[override]
        """The matrix."""
        return (self.matrix,)

    def left_out(self, row: Attributes, column: Attributes, between: Attributes) -> Array:
        """As it says."""
        return between[self.matrix]


@dataclass(frozen=True)
class NearGuide(Ignored):
    """Pairs that are as similar as a row's own pair, by the rows of another model: at least its "least"."""

    guide: str
    symmetric = False

    def __post_init__(self) -> None:
        check_fields(self, guide=TEXT)

    @property
    def compares(self) -> tuple[str, ...]:  # type: ignore[override]
        """The other model's rows."""
        return (self.guide,)

    @property
    def reads(self) -> tuple[str, ...]:  # type: ignore[override]
        """From which similarity on a row leaves a pair out."""
        return (self.least,)

    @property
    def least(self) -> str:
        """The name of that attribute."""
        return f"{self.guide} least"

    def left_out(self, row: Attributes, column: Attributes, between: Attributes) -> Array:
        """By the other model's similarity."""
        return between[self.guide] >= row[self.least]


@dataclass(frozen=True)
class Without(Relation):
    """A relation without the pairs that any of several rules leaves out."""

    relation: Relation
    ignored: tuple[Ignored, ...]
    plain = False

    def __post_init__(self) -> None:
        check_fields(self, relation=instance(Relation), ignored=several(Ignored))

    @property
    def reads(self) -> tuple[str, ...]:  # type: ignore[override]
        """Those of all."""
        return self._union("reads")

    @property
    def compares(self) -> tuple[str, ...]:  # type: ignore[override]
        """Those of all."""
        return self._union("compares")

    @property
    def blocks(self) -> tuple[str, ...]:  # type: ignore[override]
        """Those of all."""
        return self._union("blocks")

    @property
    def sorted_by(self) -> str | None:  # type: ignore[override]
        """That of the relation: no pair becomes a positive."""
        return self.relation.sorted_by

    @property
    def symmetric(self) -> bool:  # type: ignore[override]
        """If all are."""
        return self.relation.symmetric and all(rule.symmetric for rule in self.ignored)

    @property
    def weighted(self) -> bool:  # type: ignore[override]
        """If the relation is."""
        return self.relation.weighted

    def weight(self, row: Attributes, column: Attributes, between: Attributes) -> Array:
        """That of the relation."""
        return self.relation.weight(row, column, between)

    def _union(self, field: str) -> tuple[str, ...]:
        names = (name for rule in (self.relation, *self.ignored) for name in getattr(rule, field))
        return tuple(dict.fromkeys(names))

    def pair(self, row: Attributes, column: Attributes, between: Attributes) -> tuple[Array | None, Array]:
        """The pairs of the relation that no rule leaves out."""
        positive, negative = self.relation.pair(row, column, between)
        kept = ~reduce(or_, (rule.left_out(row, column, between) for rule in self.ignored))
        return None if positive is None else positive & kept, negative & kept

    @property
    def apart(self) -> Relation:
        """The same without the relation that is apart."""
        return Without(self.relation.apart, self.ignored)


@dataclass(frozen=True)
class GivenPositives(Relation):
    """A matrix says which pairs are positives; the others are negatives, but for rows of one sample.

    It is of booleans, or, where positives are `weighted`, of weights: a pair is a positive if its weight is above 0.
    """

    weighted: bool = False
    reads = ("sample",)
    blocks = ("positives",)
    sorted_by = None
    symmetric = False

    def __post_init__(self) -> None:
        check_fields(self, weighted=FLAG)

    def pair(self, row: Attributes, column: Attributes, between: Attributes) -> tuple[Array | None, Array]:
        """As the matrix says."""
        positive, other_sample = between["positives"], row["sample"] != column["sample"]
        positive = positive > 0.0 if self.weighted else positive
        return positive & other_sample, ~positive & other_sample

    def weight(self, row: Attributes, column: Attributes, between: Attributes) -> Array:
        """As the matrix says."""
        return between["positives"]


@dataclass(frozen=True)
class OverlappingSets(Relation):
    """Positives have a class in common, of the several that each row has; with `jaccard` they weigh |A and B| / |A or B|.

    "hot" has a 1 for each class of a row, and "size" is how many it has, 1 for none.
    """

    jaccard: bool
    compares = ("hot",)
    sorted_by = None

    def __post_init__(self) -> None:
        check_fields(self, jaccard=FLAG)

    @property
    def reads(self) -> tuple[str, ...]:  # type: ignore[override]
        """The sample, and the size where it is needed."""
        return ("sample", "size") if self.jaccard else ("sample",)

    @property
    def weighted(self) -> bool:  # type: ignore[override]
        """By the shares of classes."""
        return self.jaccard

    def pair(self, row: Attributes, column: Attributes, between: Attributes) -> tuple[Array | None, Array]:
        """By the classes in common."""
        positive, other_sample = between["hot"] > 0.5, row["sample"] != column["sample"]
        return positive & other_sample, ~positive & other_sample

    def weight(self, row: Attributes, column: Attributes, between: Attributes) -> Array:
        """Their share of all classes of either."""
        common = between["hot"]
        return common / (row["size"] + column["size"] - common)
