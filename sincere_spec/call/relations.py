"""Who is compared with whom in a call: what its arrangement says, its labels, and what it leaves out, made one relation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sincere_spec.arrays import Array, Namespace
from sincere_spec.call.dispatch import find_backend, unwrap
from sincere_spec.call.labels import as_integers
from sincere_spec.engines.comparison import Samples
from sincere_spec.errors import DtypeError, MixedBackendsError, OptionError, ShapeError
from sincere_spec.interface import Backend
from sincere_spec.relations import Positives, Same, check_matrix
from sincere_spec.spec.relations import (
    Attributes,
    EqualGroup,
    GivenPositives,
    Ignored,
    Marked,
    OtherLabel,
    Relation,
    Without,
)
from sincere_spec.spec.words import Roles


@dataclass(frozen=True)
class Related:
    """The relation of a call, and what it reads: attributes of the rows of either side, and matrices of pairs.

    `ascending` says that labels are places, or that equal ones follow each other, on either side; `alike` is how many columns
    share a row's label, where the arrangement says so. `own_pairs` says which rows with a loss are compared with their
    partner; None: all.
    """

    relation: Relation
    rows: Attributes
    columns: Attributes
    samples: Samples
    ascending: bool
    alike: int | None
    blocks: Attributes
    own_pairs: Array | None


@dataclass(frozen=True)
class Sides:
    """The arrays of a call by name, as matrices of rows, with the shapes in which they came."""

    backend: Backend
    roles: Roles
    labelled: bool
    embeddings: Mapping[str, Array]
    shapes: Mapping[str, tuple[Any, ...]]

    @property
    def first(self) -> Array:
        """The first array, which says where the others are."""
        return next(iter(self.embeddings.values()))

    @property
    def xp(self) -> Namespace:
        """The namespace of the arrays."""
        return self.backend.namespace(self.first)

    @property
    def views(self) -> int:
        """How many rows of the anchors are one sample."""
        shape = self.shapes[self.roles.anchors[0]]
        return int(shape[1]) if len(shape) == 3 else len(self.roles.anchors)

    @property
    def samples(self) -> Any:
        """How many samples the anchors are; None where that is not known yet."""
        return self.shapes[self.roles.anchors[0]][0]

    @property
    def compared(self) -> Any:
        """How many samples the anchors are compared with."""
        return self.shapes[self.roles.keys[0]][0] if self.roles.keys else self.samples

    def by_row(self, vector: Array) -> Array:
        """A vector, or a matrix, by sample, for each row of the anchors."""
        xp, views = self.xp, self.views
        if views == 1:
            return vector
        if not self.labelled:  # all rows of the first view, then of the next
            return xp.concat([vector] * views, axis=0)
        repeated = xp.concat([vector[:, None, ...]] * views, axis=1)
        return xp.reshape(repeated, (-1, *vector.shape[1:]))

    def by_pair(self, matrix: Array) -> Array:
        """A matrix by sample, for each row and each column."""
        turned, matrix = self.xp.matrix_transpose, self.by_row(matrix)
        return matrix if self.roles.keys else turned(self.by_row(turned(matrix)))


def related(sides: Sides, named: Related, ignore: Any) -> Related:
    """The relation that arrangement and labels name, without the pairs that a call leaves out."""
    if ignore is not None and sides.roles.queue and len(sides.shapes[sides.roles.keys[0]]) == 3:
        raise ShapeError(
            "ignore: each query has negatives of its own, [n, k, d]; say which are there by where=(None, None, mask), [n, k]."
        )
    given = () if ignore is None else ignore if type(ignore) is tuple else (ignore,)
    if len(given) == 1 and isinstance(given[0], Same):
        by_group = _partners_by_group(sides, named, given[0].groups)
        if by_group is not None:
            return by_group
    rules: list[Ignored] = []
    for number, one in enumerate(given):
        if isinstance(one, Same):
            named, rule = _with_groups(sides, named, f"group {number}", one.groups)
        elif isinstance(one, Positives):
            raise OptionError(
                "ignore: got positives(...), which stands in place of labels; give its matrix to leave pairs out."
            )
        else:
            named, rule = _with_matrix(sides, named, f"ignore {number}", one)
        rules.append(rule)
    return named if not rules else replace(named, relation=Without(named.relation, tuple(rules)))


def _partners_by_group(sides: Sides, named: Related, groups: Any) -> Related | None:
    """Groups in place of labels, where the arrangement names a row's one positive: tiles of other groups need no mask."""
    if not isinstance(named.relation, OtherLabel):
        return None
    own, others = _groups(sides, groups)
    if others is not own and not sides.roles.queue:  # a row and its partner may be of two groups
        return None
    rows = {**named.rows, "label": sides.by_row(own)}
    columns = {**named.columns, "label": others} if sides.roles.keys else rows
    return replace(named, rows=rows, columns=columns, ascending=False, alike=None)


def _with_groups(sides: Sides, named: Related, name: str, groups: Any) -> tuple[Related, Ignored]:
    """Pairs of equal groups as a rule; the views of a sample are its own, and not left out."""
    own, others = _groups(sides, groups)
    rows = {**named.rows, name: sides.by_row(own)}
    columns = {**named.columns, name: others} if sides.roles.keys else rows
    place = None
    if not sides.roles.keys and sides.views > 1:
        place = f"{name} place"
        rows[place] = sides.by_row(sides.backend.indices(sides.embeddings[sides.roles.anchors[0]])[: sides.samples])
    return replace(named, rows=rows, columns=columns), EqualGroup(name, place)


def _groups(sides: Sides, groups: Any) -> tuple[Array, Array]:
    """The groups of the samples of either side; one array where it serves both."""
    names = tuple(sides.embeddings)
    keys = sides.roles.keys[:1]
    if type(groups) is not tuple:
        if keys and (sides.labelled or sides.roles.queue):
            raise ShapeError(
                f"same: {keys[0]} have groups of their own; give a tuple with the groups of each of {', '.join(names)}."
            )
        (own,) = as_integers(sides.backend, sides.first, {"groups": (groups, sides.samples)})
        return own, own
    if len(groups) != len(names):
        raise ShapeError(f"same: expected the groups of each of {', '.join(names)}; got a tuple of {len(groups)}.")
    of = dict(zip(names, groups, strict=True))
    anchors = sides.roles.anchors
    if any(of[name] is not of[anchors[0]] for name in anchors):
        raise ShapeError("same: the views of a sample are of one group; give one array for all of them.")
    wanted = {anchors[0]: sides.samples} | ({keys[0]: sides.compared} if keys else {})
    for name in wanted:
        if of[name] is None:
            raise ShapeError(f"same: expected the group of each row of {name}; got None.")
    if keys and of[keys[0]] is of[anchors[0]]:
        wanted = {anchors[0]: sides.samples}
    found = as_integers(sides.backend, sides.first, {f"groups of {name}": (of[name], n) for name, n in wanted.items()})
    return found[0], found[-1]


def _with_matrix(sides: Sides, named: Related, name: str, matrix: Any) -> tuple[Related, Ignored]:
    """A matrix of pairs to leave out, as a rule; a row whose own pair is one of them has no partner."""
    matrix = booleans(sides, "ignore", matrix)
    own_pairs, roles, xp = named.own_pairs, sides.roles, sides.xp
    if roles.partners and not roles.queue:
        place = sides.backend.indices(sides.first)
        width = sides.backend.length(sides.first)
        width = width if isinstance(width, int) else xp.astype(width, place.dtype)
        kept = ~xp.take(xp.reshape(matrix, (-1,)), place * (width + 1), axis=0)
        kept = xp.concat([kept] * (2 if roles.both_ways else sides.views), axis=0)
        own_pairs = kept if own_pairs is None else own_pairs & kept
    blocks = {**named.blocks, name: sides.by_pair(matrix)}
    return replace(named, blocks=blocks, own_pairs=own_pairs), Marked(name)


def given_positives(sides: Sides, named: Related, value: Positives) -> Related:
    """The relation of a matrix of positives, instead of labels."""
    matrix = sides.by_pair(booleans(sides, "positives", value.matrix))
    return replace(named, relation=GivenPositives(), blocks={**named.blocks, "positives": matrix})


def booleans(sides: Sides, argument: str, matrix: Any) -> Array:
    """A matrix of booleans by sample beside the embeddings, of the shape that the call's pairs have."""
    backend, matrix = sides.backend, unwrap(matrix)
    check_matrix(argument, matrix)
    owner = find_backend(matrix)
    if owner is backend and backend.namespace(matrix) is sides.xp:
        matrix = backend.prepare(matrix, argument)
        kind = backend.dtype_name(matrix)
        if kind not in ("bool", "bool_"):
            raise DtypeError(f"{argument}: expected booleans; got {kind}: compare it, as in `matrix > 0.5`.")
        if backend.device(matrix) != backend.device(sides.first):
            raise MixedBackendsError(
                f"the embeddings are on {backend.device(sides.first)} and {argument} on {backend.device(matrix)}; "
                "move one of them."
            )
        _check_pairs(sides, argument, tuple(matrix.shape))
        return matrix
    if owner is not None and owner.name != "array_api":
        raise MixedBackendsError(f"{argument} is a {owner.name} array beside {backend.name} embeddings; convert it.")
    rows = owner.to_host(owner.prepare(matrix, argument)) if owner is not None else matrix
    rows = rows.tolist() if hasattr(rows, "tolist") else [list(row) if isinstance(row, tuple) else row for row in rows]
    if not all(isinstance(row, list) for row in rows) or len({len(row) for row in rows}) > 1:
        raise ShapeError(f"{argument}: expected a matrix [n, m]; got rows of several lengths, or none.")
    entries = [entry for row in rows for entry in row]
    for entry in entries:
        if not isinstance(entry, bool):
            raise DtypeError(f"{argument}: expected booleans; got {entry!r}: compare it, as in `matrix > 0`.")
    _check_pairs(sides, argument, (len(rows), len(rows[0]) if rows else 0))
    return sides.xp.reshape(backend.integers(entries, sides.first), (len(rows), -1 if rows else 0)) != 0


def _check_pairs(sides: Sides, argument: str, shape: tuple[Any, ...]) -> None:
    expected = (sides.samples, sides.compared)
    if any(a is not None and b is not None and a != b for a, b in zip(shape, expected, strict=True)):
        across = f"{sides.roles.keys[0]}" if sides.roles.keys else "samples" if sides.views > 1 else "rows"
        raise ShapeError(
            f"{argument}: expected shape {expected}, {'samples' if sides.views > 1 else 'rows'} by {across}; got {shape}."
        )
