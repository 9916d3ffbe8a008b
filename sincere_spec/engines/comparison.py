"""A call's arrays in their roles: what every engine gets, whatever the arrangement was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, NamedTuple

from sincere_spec.arrays import Array, Namespace
from sincere_spec.engines.parts import negatives_subtract
from sincere_spec.interface import Backend
from sincere_spec.spec.relations import Attributes, Relation
from sincere_spec.spec.words import PairLoss, Roles


class Samples(Enum):
    """Where two rows may be one sample, beside a row and itself: nowhere, among rows of one label, or anywhere."""

    DISTINCT = "distinct"
    WITHIN_LABELS = "within labels"
    ANYWHERE = "anywhere"


class Kinds(NamedTuple):
    """Which of a block of pairs are positives (None: there is none) and negatives, and what positives weigh (None: 1)."""

    positive: Array | None
    negative: Array
    weight: Array | None = None


class Halves(NamedTuple):
    """Anchors and keys as they came in a half type, and by row the factor that makes them those of the comparison."""

    anchors: Array
    keys: Array | None
    anchor_factors: Array
    key_factors: Array | None


@dataclass(frozen=True)
class Comparison:
    """A loss, and its arrays in their roles: embeddings of one float dtype, and attributes of the rows of either side.

    Without `keys` the anchors are compared with each other. `partners` has the one positive of each anchor; the relation is
    then of negatives only. `both_ways` adds a second set of rows, in which the keys are the anchors. `samples` says where two
    rows may be one sample. `ascending` says that the labels of either side ascend, `alike` how many columns share a row's
    label, where the arrangement says so (row i of each view), `unit_rows` that embeddings have norm 1, or 0, and `halves` is
    there for an engine that multiplies half types.

    With `keys_of_each` each anchor has so many keys of its own, which follow each other, and sees no others.

    Rows and columns that are not `inside` take no part; their embeddings are 0. `has_partner` says which rows with a loss
    have a partner inside. None: all.
    """

    backend: Any  # a `Backend`, of the kind that the engine asks for
    loss: PairLoss
    temperature: float | Array
    bias: float | Array
    anchors: Array  # [n, d]
    keys: Array | None  # [m, d]
    partners: Array | None  # [n, d]
    relation: Relation
    rows: Attributes  # [n] each
    columns: Attributes  # [m] each; `rows` where the anchors are their own keys
    both_ways: bool
    samples: Samples
    ascending: bool
    alike: int | None
    unit_rows: bool
    halves: Halves | None = None
    inside: Array | None = None  # [n]
    columns_inside: Array | None = None  # [m]
    has_partner: Array | None = None  # [n], or [n + m] both ways
    partner_places: tuple[Array, Array] | None = None  # [n] among the keys, [m] among the anchors; None: the same place
    blocks: Attributes = field(default_factory=dict)  # [n, m] each
    keys_of_each: int | None = None

    @property
    def xp(self) -> Namespace:
        """The namespace of its arrays."""
        return self.backend.namespace(self.anchors)

    @property
    def static_and_arrays(self) -> tuple[Comparison, tuple[Any, ...]]:
        """What hashes, and the arrays: `with_arrays` is the inverse."""
        nothing: dict[str, Any] = dict.fromkeys(ARRAYS)
        return replace(self, **nothing), tuple(getattr(self, name) for name in ARRAYS)

    def with_arrays(self, arrays: tuple[Any, ...]) -> Comparison:
        """The same comparison with these arrays."""
        return replace(self, **dict(zip(ARRAYS, arrays, strict=True)))

    @property
    def compared(self) -> Array:
        """The keys, or the anchors where they are the keys, `[m, d]`."""
        return self.anchors if self.keys is None else self.keys

    @property
    def rows_inside(self) -> Array | None:
        """Which rows with a loss take part, `[n]`, or `[n + m]` both ways; None if all do."""
        if self.inside is None or not self.both_ways:
            return self.inside
        return self.xp.concat([self.inside, self.columns_inside], axis=0)

    @property
    def masked(self) -> bool:
        """Whether a pair of any two labels may be no negative, or may not be the same from its column."""
        plain = self.relation.plain and self.relation.sorted_by is not None
        return not plain or self.samples is Samples.ANYWHERE or negatives_subtract(self.loss)

    def pairs(self, row: Attributes, column: Attributes, blocks: Attributes, relation: Relation | None = None) -> Kinds:
        """The masks of some rows and columns, `[r, c]`, from their attributes."""
        return pairs(self.backend, relation or self.relation, row, column, blocks)


ARRAYS = (
    *("temperature", "bias", "anchors", "keys", "partners", "rows", "columns", "halves", "inside", "columns_inside"),
    *("has_partner", "partner_places", "blocks"),
)
"""The fields of a comparison that hold arrays."""


@dataclass(frozen=True)
class Gradients:
    """The gradient of a value by each array of a comparison, the temperature and the bias; None where not needed."""

    anchors: Array | None
    keys: Array | None
    partners: Array | None
    temperature: Array | None
    bias: Array | None


def pairs(backend: Backend, relation: Relation, row: Attributes, column: Attributes, blocks: Attributes) -> Kinds:
    """The masks of a relation for some rows and columns, `[r, c]`: vectors broadcast, and matrices by row are multiplied."""
    between = dict(blocks)
    for name in relation.compares:
        across = backend.namespace(column[name]).matrix_transpose(column[name])
        between[name] = backend.product(row[name], across)
    vectors = [name for name in relation.reads if name in row]
    given = {name: row[name][:, None] for name in vectors}, {name: column[name][None, :] for name in vectors}, between
    return Kinds(*relation.pair(*given), relation.weight(*given) if relation.weighted else None)


def ones_by_row(xp: Namespace, rows: Array) -> Array:
    """A one for each row, in its dtype."""
    return xp.ones_like(xp.sum(rows[:, :0], axis=1))


def nothing(comparison: Comparison) -> Array | None:
    """A zero for each row if there is no pair to compare, still depending on every argument; else None."""
    xp, anchors, partners = comparison.xp, comparison.anchors, comparison.partners
    if 0 not in (anchors.shape[0], comparison.compared.shape[0]) or (partners is not None and anchors.shape[0] != 0):
        return None
    rest = xp.sum(comparison.compared * 0.0) + comparison.temperature * 0.0 + comparison.bias * 0.0
    if partners is not None:
        rest = rest + xp.sum(partners * 0.0)
    sides = (anchors, comparison.compared) if comparison.both_ways else (anchors,)
    return xp.concat([xp.sum(side * 0.0, axis=1) for side in sides], axis=0) + rest


def zeros(comparison: Comparison) -> Gradients:
    """The gradient of a constant."""
    zero = comparison.xp.sum(comparison.anchors * 0.0)
    roles = (comparison.anchors, comparison.keys, comparison.partners)
    anchors, keys, partners = (None if x is None else comparison.xp.zeros_like(x) for x in roles)
    return Gradients(anchors, keys, partners, zero, zero)


def gather(xp: Namespace, roles: Roles, embeddings: Mapping[str, Array]) -> tuple[Array, Array | None, Array | None]:
    """The anchors, keys and partners of a call, from its arrays by name."""

    def joined(names: tuple[str, ...]) -> Array | None:
        arrays = [embeddings[name] for name in names]
        return None if not arrays else arrays[0] if len(arrays) == 1 else xp.concat(arrays, axis=0)

    return joined(roles.anchors), joined(roles.keys), joined(roles.partners)


def insides(
    backend: Backend, roles: Roles, embeddings: Mapping[str, Array], where: Mapping[str, Array]
) -> dict[str, Any]:
    """What a comparison says of the rows that take part, from their mask by array."""
    xp = backend.namespace(embeddings[roles.anchors[0]])

    def joined(names: tuple[str, ...]) -> Array:
        masks = [where[name] if name in where else backend.indices(embeddings[name]) >= 0 for name in names]
        return masks[0] if len(masks) == 1 else xp.concat(masks, axis=0)

    inside = joined(roles.anchors)
    masks = [where.get(name) for name in (*roles.anchors, *roles.partners, *(() if roles.queue else roles.keys))]
    one_mask = all(mask is masks[0] for mask in masks)
    found: dict[str, Any] = {"inside": inside, "columns_inside": inside}
    if roles.keys:
        same = one_mask and not roles.queue  # one mask for both sides stays one object
        found["columns_inside"] = inside if same else joined(roles.keys)
    if not one_mask:  # then partners, and rows of an equal label, may be outside
        found["alike"] = None
        if roles.partners:
            partners = joined(roles.partners)
            found["has_partner"] = xp.concat([partners, inside], axis=0) if roles.both_ways else partners
    return found


def scatter(backend: Backend, roles: Roles, embeddings: Mapping[str, Array], gradients: Gradients) -> dict[str, Array]:
    """The gradient of each of a call's arrays, from those of its roles: the adjoint of `gather`."""
    parts = ((roles.anchors, gradients.anchors), (roles.keys, gradients.keys), (roles.partners, gradients.partners))
    total: dict[str, Array] = {}
    gradient: Array
    for names, gradient in parts:
        start = 0
        if gradient is None:
            continue
        for name in names:
            stop = start + backend.length(embeddings[name])
            part = gradient if len(names) == 1 else gradient[start:stop, :]
            total[name] = total[name] + part if name in total else part
            start = stop
    return total
