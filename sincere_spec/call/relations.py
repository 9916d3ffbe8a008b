"""Who is compared with whom in a call: what its arrangement says, its labels, and what it leaves out, made one relation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sincere_spec.arrays import COMPUTE_DTYPE, Array, Namespace
from sincere_spec.call.dispatch import find_backend, unwrap
from sincere_spec.call.labels import as_integers
from sincere_spec.engines.comparison import Samples, gather
from sincere_spec.engines.normalise import normalise
from sincere_spec.errors import DtypeError, MixedBackendsError, OptionError, ShapeError
from sincere_spec.interface import Backend
from sincere_spec.relations import (
    VALUES,
    AnyOverlap,
    Guide,
    InPlaceOfLabels,
    JaccardOverlap,
    Positives,
    Same,
    check_matrix,
)
from sincere_spec.spec.relations import (
    Attributes,
    EqualGroup,
    GivenPositives,
    Ignored,
    Marked,
    NearGuide,
    OtherLabel,
    OverlappingSets,
    Relation,
    Without,
)
from sincere_spec.spec.words import Fold, PairLoss, Pairs, Roles

TIE = 1e-5
"""How close to the own pair a negative is as similar as it: ties must not depend on rounding."""

IN_PLACE_OF_LABELS = (Positives, AnyOverlap, JaccardOverlap)


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
        elif isinstance(one, Guide):
            named, rule = _with_guide(sides, named, f"guide {number}", one)
        elif isinstance(one, IN_PLACE_OF_LABELS):
            raise OptionError(
                f"ignore: got {VALUES[type(one)]}, which stands in place of labels; give a matrix to leave pairs out."
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
    return replace(named, blocks=blocks, own_pairs=own_pairs), Marked(name, symmetric=roles.both_ways)


def _with_guide(sides: Sides, named: Related, name: str, value: Guide) -> tuple[Related, Ignored]:
    """What another model finds as similar as the own pair, as a rule."""
    backend, roles, xp = sides.backend, sides.roles, sides.xp
    if not roles.partners:
        raise OptionError(
            "ignore: guide(...) compares negatives with a row's own pair, and here a row may have several positives: give "
            "booleans, or use info_nce_loss, clip_loss or two views."
        )
    names = tuple(sides.embeddings)
    if len(value.rows) != len(names):
        raise ShapeError(f"guide: expected an array for each of {', '.join(names)}; got {len(value.rows)}.")
    found = {}
    for one, given in zip(names, value.rows, strict=True):
        x = backend.hold(_beside(sides, "guide", unwrap(given)))
        if backend.dtype_name(x) not in COMPUTE_DTYPE:
            raise DtypeError(f"guide: expected floating-point numbers; got {backend.dtype_name(x)}: convert it.")
        came, count = x.shape, sides.shapes[one][0]
        if came[1] != value.rows[0].shape[1] or not (None in (came[0], count) or came[0] == count):
            raise ShapeError(f"guide: expected shape ({count}, {value.rows[0].shape[1]}) for {one}; got {tuple(came)}.")
        found[one] = backend.call(normalise, backend, xp.astype(x, backend.dtype("float32", x))).rows
    anchors, keys, partners = gather(xp, roles, found)
    own = xp.sum(anchors * partners, axis=1)
    rule = NearGuide(name)
    least = own - value.margin - TIE
    rows = {**named.rows, name: anchors, rule.least: least}
    if keys is None:
        columns = rows
    else:  # of a queue nothing is a row
        columns = {**named.columns, name: keys, rule.least: least if not roles.queue else xp.sum(keys, axis=1)}
    return replace(named, rows=rows, columns=columns), rule


def in_place_of_labels(sides: Sides, named: Related, loss: PairLoss, value: InPlaceOfLabels) -> Related:
    """The relation of a matrix of positives, or of several labels a row."""
    made = _given(sides, named, value) if isinstance(value, Positives) else _overlapping(sides, named, value)
    # Of a positive that weighs little the rest is no negative: it must stay in a denominator.
    if made.relation.weighted and not any(
        stage.fold is Fold.LOGSUMEXP and stage.over is Pairs.OTHERS for stage in loss.stages
    ):
        raise OptionError(
            f"labels: {loss.name} takes no weights, since a weighted positive is no negative there; got "
            f"{VALUES[type(value)]}: give booleans, or use supcon_loss."
        )
    return made


def _given(sides: Sides, named: Related, value: Positives) -> Related:
    backend, matrix = sides.backend, unwrap(value.matrix)
    owner = find_backend(matrix)
    weighted = owner is not None and owner.dtype_name(matrix) in COMPUTE_DTYPE
    if not weighted:
        matrix = booleans(sides, "positives", matrix)
    else:
        matrix = _beside(sides, "positives", matrix)
        _check_pairs(sides, "positives", tuple(matrix.shape))
        _check_weights(backend, matrix)
        matrix = sides.xp.astype(backend.hold(matrix), _compute_dtype(sides))
    blocks = {**named.blocks, "positives": sides.by_pair(matrix)}
    return replace(named, relation=GivenPositives(weighted), blocks=blocks)


def _overlapping(sides: Sides, named: Related, value: AnyOverlap | JaccardOverlap) -> Related:
    """Several labels a row: matrices by row, whose products count the classes in common."""
    xp, keys = sides.xp, sides.roles.keys
    hot = value.hot if type(value.hot) is tuple else (value.hot,)
    if len(hot) != (2 if keys else 1):
        wanted = "a tuple (hot, key_hot) beside keys" if keys else "one array, since there are no keys"
        raise ShapeError(f"overlap: expected {wanted}; got {len(hot)} arrays.")
    made = [_beside(sides, "overlap", unwrap(one)) for one in hot]
    for one, count in zip(made, (sides.samples, sides.compared), strict=False):
        if one.shape[1] != made[0].shape[1] or not (None in (one.shape[0], count) or one.shape[0] == count):
            raise ShapeError(f"overlap: expected shape ({count}, {made[0].shape[1]}); got {tuple(one.shape)}.")
    made = [_hot(sides, one) for one in made]
    made[0] = sides.by_row(made[0])
    relation, read = OverlappingSets(isinstance(value, JaccardOverlap)), []
    for side, one in zip((named.rows, named.columns), made, strict=False):
        size = xp.sum(one, axis=1)
        size = {"size": xp.where(size == 0.0, 1.0, size)} if relation.jaccard else {}
        read.append({**side, "hot": one, **size})
    return replace(named, relation=relation, rows=read[0], columns=read[-1])


def _hot(sides: Sides, x: Array) -> Array:
    """Several labels a row as ones and zeros in the dtype of the loss."""
    backend, xp = sides.backend, sides.xp
    kind = backend.dtype_name(x)
    there = x if kind in ("bool", "bool_") else x != 0
    if kind not in ("bool", "bool_") and backend.on_host(x):
        other = there & (x != 1)
        if float(xp.sum(xp.astype(other, _compute_dtype(sides)))):
            raise DtypeError(
                "overlap: expected a 1 for each class of a row and else 0; got other numbers: compare them."
            )
    return xp.astype(there, _compute_dtype(sides))


def _compute_dtype(sides: Sides) -> Any:
    kind = sides.backend.dtype_name(sides.first)
    return sides.backend.dtype(COMPUTE_DTYPE[kind], sides.first)


def _beside(sides: Sides, argument: str, x: Any) -> Array:
    """An array that must be of the framework and on the device of the embeddings."""
    backend, owner = sides.backend, find_backend(x)
    if owner is not backend or backend.namespace(x) is not sides.xp:
        came = type(x).__name__ if owner is None else f"a {owner.name} array"
        raise MixedBackendsError(
            f"{argument}: expected an array of {backend.name}, as the embeddings are; got {came}: convert it."
        )
    x = backend.prepare(x, argument)
    if backend.device(x) != backend.device(sides.first):
        raise MixedBackendsError(
            f"the embeddings are on {backend.device(sides.first)} and {argument} on {backend.device(x)}; move one of them."
        )
    return x


def _check_weights(backend: Backend, weights: Array) -> None:
    """Refuse weights that are negative, or not finite, where they can be read cheaply."""
    if not backend.on_host(weights) or 0 in weights.shape:
        return
    xp = backend.namespace(weights)
    right = (weights >= 0.0) & (weights < float("inf"))
    if float(xp.sum(xp.astype(~right, backend.dtype("float32", weights)))):
        raise OptionError(
            "positives: expected weights of 0 and above; got negative ones, or NaN: clip or replace them."
        )


def booleans(sides: Sides, argument: str, matrix: Any) -> Array:
    """A matrix of booleans by sample beside the embeddings, of the shape that the call's pairs have."""
    backend, matrix = sides.backend, unwrap(matrix)
    check_matrix(argument, matrix)
    owner = find_backend(matrix)
    if owner is backend and backend.namespace(matrix) is sides.xp:
        matrix = _beside(sides, argument, matrix)
        kind = backend.dtype_name(matrix)
        if kind not in ("bool", "bool_"):
            raise DtypeError(f"{argument}: expected booleans; got {kind}: compare it, as in `matrix > 0.5`.")
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
