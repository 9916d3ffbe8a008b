"""The five ways in which calls name their arrays: each says who is compared with whom, and touches no array."""

from __future__ import annotations

from dataclasses import dataclass

from sincere_spec.errors import SignatureError
from sincere_spec.spec.checks import FLAG, check_fields
from sincere_spec.spec.words import Arrangement, Roles


def _fixed(names: tuple[str, ...], count: int, least: int | None = None) -> tuple[str, ...]:
    least = len(names) if least is None else least
    if not least <= count <= len(names):
        raise SignatureError(f"expected the arrays {', '.join(names)}; got {count} of them: pass each by itself.")
    return names[:count]


# A call makes none of these anew.
ALONE, BESIDE_KEYS = Roles(anchors=("embeddings",)), Roles(anchors=("embeddings",), keys=("keys",))
TWO_VIEWS = Roles(anchors=("view_0", "view_1"), partners=("view_1", "view_0"))
TOWERS = {both: Roles(anchors=("a",), keys=("b",), partners=("b",), both_ways=both) for both in (False, True)}


@dataclass(frozen=True)
class Labelled(Arrangement):
    """`embeddings, labels`: all rows with each other, or with `keys`; positives share a label."""

    labelled = True
    signature = "embeddings, labels"

    def names(self, count: int) -> tuple[str, ...]:
        return _fixed(("embeddings", "keys"), count, least=1)

    def roles(self, names: tuple[str, ...]) -> Roles:
        return BESIDE_KEYS if len(names) == 2 else ALONE


@dataclass(frozen=True)
class Views(Arrangement):
    """`*views`: all rows of all views with each other; positives are the other views of the same row."""

    signature = "*views"

    def names(self, count: int) -> tuple[str, ...]:
        if count < 2:
            raise SignatureError(f"expected two or more views of one shape; got {count}: pass each by itself.")
        return tuple(f"view_{v}" for v in range(count))

    def roles(self, names: tuple[str, ...]) -> Roles:
        return TWO_VIEWS if len(names) == 2 else Roles(anchors=names)


@dataclass(frozen=True)
class Towers(Arrangement):
    """`a, b`: rows of one tower with rows of the other; row i of `b` is the positive of row i of `a`."""

    both_ways: bool
    signature = "a, b"

    def __post_init__(self) -> None:
        check_fields(self, both_ways=FLAG)

    def names(self, count: int) -> tuple[str, ...]:
        return _fixed(("a", "b"), count)

    def roles(self, names: tuple[str, ...]) -> Roles:
        return TOWERS[self.both_ways]


@dataclass(frozen=True)
class Queries(Arrangement):
    """`queries, positives, negatives=None`: each query with its positive, and a queue or the other positives."""

    signature = "queries, positives, negatives=None"

    def names(self, count: int) -> tuple[str, ...]:
        return _fixed(("queries", "positives", "negatives"), count, least=2)

    def roles(self, names: tuple[str, ...]) -> Roles:
        queue = len(names) == 3
        keys = ("negatives",) if queue else ("positives",)
        return Roles(anchors=("queries",), keys=keys, partners=("positives",), queue=queue)


@dataclass(frozen=True)
class PairedViews(Arrangement):
    """`view_a, view_b, negatives=None`: positives are pairs across the views, negatives a queue, or pairs within the first."""

    signature = "view_a, view_b, negatives=None"

    def names(self, count: int) -> tuple[str, ...]:
        return _fixed(("view_a", "view_b", "negatives"), count, least=2)

    def roles(self, names: tuple[str, ...]) -> Roles:
        queue = len(names) == 3
        return Roles(anchors=("view_a",), keys=("negatives",) if queue else (), partners=("view_b",), queue=queue)
