"""The losses as scalar loops over numbers of 80 digits, each transcribed from its published formula.

Every function returns the losses of the rows, in order. Nothing here is fast, stable by design or differentiated: at this
precision a plain sum of exponentials is exact enough, and gradients are differences of these values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from mpmath import mp  # type: ignore[import-untyped,unused-ignore]

__all__ = [
    "DIGITS",
    "Comparison",
    "Row",
    "clip",
    "cosine_schedule",
    "decoupled",
    "dystress_info_nce",
    "f_divergence",
    "f_micl",
    "info_nce",
    "infoloob",
    "nt_xent",
    "shifted_schedule",
    "siglip",
    "sincere",
    "supcon_in",
    "supcon_out",
]

DIGITS = 80

Number = Any  # an mpmath number: mpmath has no types
Vector = Sequence[Number]


class Row(NamedTuple):
    """One row's loss, its number of positives, and whether it takes part in a mean."""

    loss: Number
    positives: int
    counts: bool


class Comparison(NamedTuple):
    """Anchors and what they are compared with, with a label and an identity for each: equal identities are one sample."""

    anchors: Sequence[Vector]
    labels: Sequence[int]
    ids: Sequence[object]
    keys: Sequence[Vector]
    key_labels: Sequence[int]
    key_ids: Sequence[object]

    def positives(self, i: int) -> list[int]:
        """P(i): the same label, another sample."""
        return [j for j in self._others(i) if self.key_labels[j] == self.labels[i]]

    def negatives(self, i: int) -> list[int]:
        """N(i): another label, another sample."""
        return [j for j in self._others(i) if self.key_labels[j] != self.labels[i]]

    def _others(self, i: int) -> list[int]:
        return [j for j in range(len(self.keys)) if self.key_ids[j] != self.ids[i]]


def _dot(a: Vector, b: Vector) -> Number:
    return mp.fdot(a, b)


def _sum(terms: Sequence[Number]) -> Number:
    return mp.fsum(terms)


def sincere(pairs: Comparison, temperature: Number, epsilon: Number) -> list[Row]:
    """``(1/|P|) sum_p -log( e^l_p / (e^(l_p - epsilon) + sum_n e^l_n) )``, epsilon 0 in SINCERE itself."""
    rows = []
    for i, anchor in enumerate(pairs.anchors):
        positives = pairs.positives(i)
        if not positives:
            rows.append(Row(mp.mpf(0), 0, False))
            continue
        noise = _sum([mp.exp(_dot(anchor, pairs.keys[n]) / temperature) for n in pairs.negatives(i)])
        terms = []
        for p in positives:
            wanted = mp.exp(_dot(anchor, pairs.keys[p]) / temperature)
            # -log(x / (x e^-eps + E)) = log(1 + E e^eps / x) - eps; log1p because the ratio may be 1e-30.
            terms.append(mp.log1p(noise * mp.exp(epsilon) / wanted) - epsilon)
        rows.append(Row(_sum(terms) / len(positives), len(positives), True))
    return rows


def supcon_out(pairs: Comparison, temperature: Number) -> list[Row]:
    """``(-1/|P|) sum_p log( e^l_p / sum_a e^l_a )``, a over all others."""
    logits = [[_dot(anchor, key) / temperature for key in pairs.keys] for anchor in pairs.anchors]
    return _supcon_out(pairs, logits)


def _supcon_out(pairs: Comparison, logits: Sequence[Sequence[Number]]) -> list[Row]:
    rows = []
    for i in range(len(pairs.anchors)):
        positives = pairs.positives(i)
        if not positives:
            rows.append(Row(mp.mpf(0), 0, False))
            continue
        weights = {j: mp.exp(logits[i][j]) for j in positives + pairs.negatives(i)}
        terms = []
        for p in positives:
            # -log(x / (x + rest)) = log(1 + rest / x)
            rest = _sum([weight for j, weight in weights.items() if j != p])
            terms.append(mp.log1p(rest / weights[p]))
        rows.append(Row(_sum(terms) / len(positives), len(positives), True))
    return rows


def supcon_in(pairs: Comparison, temperature: Number) -> list[Row]:
    """``-log( (1/|P|) sum_p e^l_p / sum_a e^l_a )``, a over all others."""
    rows = []
    for i, anchor in enumerate(pairs.anchors):
        positives = pairs.positives(i)
        if not positives:
            rows.append(Row(mp.mpf(0), 0, False))
            continue
        same = _sum([mp.exp(_dot(anchor, pairs.keys[p]) / temperature) for p in positives])
        noise = _sum([mp.exp(_dot(anchor, pairs.keys[n]) / temperature) for n in pairs.negatives(i)])
        rows.append(Row(mp.log(len(positives)) + mp.log1p(noise / same), len(positives), True))
    return rows


def decoupled(pairs: Comparison, temperature: Number) -> list[Row]:
    """``(-1/|P|) sum_p log( e^l_p / sum_n e^l_n )``: only negatives below, so a row without negatives is undefined."""
    rows = []
    for i, anchor in enumerate(pairs.anchors):
        positives, negatives = pairs.positives(i), pairs.negatives(i)
        if not positives or not negatives:
            rows.append(Row(mp.mpf(0), len(positives), False))
            continue
        noise = _sum([mp.exp(_dot(anchor, pairs.keys[n]) / temperature) for n in negatives])
        wanted = [_dot(anchor, pairs.keys[p]) / temperature for p in positives]
        rows.append(Row(mp.log(noise) - _sum(wanted) / len(positives), len(positives), True))
    return rows


def info_nce(
    queries: Sequence[Vector], positives: Sequence[Vector], negatives: Sequence[Vector] | None, temperature: Number
) -> list[Row]:
    """``-log( e^l_i / (e^l_i + sum_n e^l_n) )``, n over the queue or, without one, over the other rows' positives."""
    rows = []
    for i, query in enumerate(queries):
        others = [x for j, x in enumerate(positives) if j != i] if negatives is None else list(negatives)
        wanted = mp.exp(_dot(query, positives[i]) / temperature)
        rest = _sum([mp.exp(_dot(query, other) / temperature) for other in others])
        rows.append(Row(mp.log1p(rest / wanted), 1, True))
    return rows


def _views(views: Sequence[Sequence[Vector]]) -> Comparison:
    """All rows of the first view, then of the second: the image's number is the label."""
    flat = [row for view in views for row in view]
    images = [image for view in views for image in range(len(view))]
    places = list(range(len(flat)))
    return Comparison(flat, images, places, flat, images, places)


def nt_xent(views: Sequence[Sequence[Vector]], temperature: Number) -> list[Row]:
    """NT-Xent of two views, and for more the SupCon outside form with the image as label."""
    return supcon_out(_views(views), temperature)


def cosine_schedule(similarity: Number, low: Number, high: Number) -> Number:
    """``low + (high - low) (1 + cos(pi (1 + s))) / 2``."""
    return low + (high - low) * (1 + mp.cos(mp.pi * (1 + similarity))) / 2


def shifted_schedule(similarity: Number, low: Number, high: Number, offset: Number, scale: Number) -> Number:
    """``low + (high - low) (1 + cos(pi (s + offset) / scale)) / 2`` up to ``s = -offset``, then ``high``."""
    if similarity > -offset:
        return high
    return low + (high - low) * (1 + mp.cos(mp.pi * (similarity + offset) / scale)) / 2


def similarities(views: Sequence[Sequence[Vector]]) -> list[list[Number]]:
    """All dot products between the rows of all views."""
    flat = [row for view in views for row in view]
    return [[_dot(a, b) for b in flat] for a in flat]


def dystress(views: Sequence[Sequence[Vector]], temperatures: Sequence[Sequence[Number]]) -> list[Row]:
    """NT-Xent in which every pair has a temperature of its own."""
    logits = [
        [s / tau for s, tau in zip(row, taus, strict=True)]
        for row, taus in zip(similarities(views), temperatures, strict=True)
    ]
    return _supcon_out(_views(views), logits)


def dystress_info_nce(
    queries: Sequence[Vector],
    positives: Sequence[Vector],
    negatives: Sequence[Vector] | None,
    near: Sequence[Number],
    far: Sequence[Sequence[Number]],
) -> list[Row]:
    """InfoNCE in which every pair has a temperature of its own: ``near`` with the positive, ``far`` with the negatives."""
    rows = []
    for i, query in enumerate(queries):
        others = positives if negatives is None else negatives
        weights = [mp.exp(_dot(query, other) / tau) for other, tau in zip(others, far[i], strict=True)]
        if negatives is None:
            del weights[i]
        rows.append(Row(mp.log1p(_sum(weights) / mp.exp(_dot(query, positives[i]) / near[i])), 1, True))
    return rows


def clip(a: Sequence[Vector], b: Sequence[Vector], temperature: Number) -> list[Row]:
    """The cross entropy of each ``a`` among all ``b``, then of each ``b`` among all ``a``."""
    return info_nce(a, b, None, temperature) + info_nce(b, a, None, temperature)


def infoloob(a: Sequence[Vector], b: Sequence[Vector], temperature: Number) -> list[Row]:
    """``-log( e^l_ii / sum_(j != i) e^l_ij )``, the positive left out below, from ``a`` to ``b`` and then from ``b`` to ``a``."""
    rows = []
    for anchors, keys in ((a, b), (b, a)):
        for i, anchor in enumerate(anchors):
            weights = [mp.exp(_dot(anchor, key) / temperature) for key in keys]
            rest = _sum(weights[:i] + weights[i + 1 :])
            rows.append(Row(-mp.log(weights[i] / rest), 1, True) if rest else Row(mp.mpf(0), 1, False))
    return rows


def siglip(a: Sequence[Vector], b: Sequence[Vector], temperature: Number, bias: Number) -> list[Row]:
    """``sum_j log(1 + exp(-z_ij (s_ij / temperature + bias)))``, z = 1 on the diagonal and -1 elsewhere."""
    rows = []
    for i, anchor in enumerate(a):
        terms = []
        for j, key in enumerate(b):
            z = 1 if i == j else -1
            terms.append(mp.log1p(mp.exp(-z * (_dot(anchor, key) / temperature + bias))))
        rows.append(Row(_sum(terms), 1, True))
    return rows


def f_divergence(name: str, u: Number, order: Number) -> tuple[Number, Number]:
    """``f(u)`` and ``f'(u)`` of a divergence."""
    if name == "kl":
        return u * mp.log(u), mp.log(u) + 1
    if name == "js":
        return u * mp.log(u) - (u + 1) * mp.log((u + 1) / 2), mp.log(2 * u / (1 + u))
    if name == "pearson":
        return (u - 1) ** 2, 2 * (u - 1)
    if name == "hellinger":
        return (mp.sqrt(u) - 1) ** 2, 1 - 1 / mp.sqrt(u)
    if name == "tsallis":
        return mp.power(u, order) / (order - 1), order * mp.power(u, order - 1) / (order - 1)
    if name == "vincze_le_cam":
        return (u - 1) ** 2 / (u + 1), 1 - 4 / (u + 1) ** 2
    if name == "reverse_kl":
        return -mp.log(u), -1 / u
    if name == "neyman":
        return (1 - u) ** 2 / u, 1 - 1 / u**2
    if name == "jeffreys":
        return (u - 1) * mp.log(u), 1 - 1 / u + mp.log(u)
    raise ValueError(f"divergence: no formula for {name!r}")


def f_micl(
    view_a: Sequence[Vector],
    view_b: Sequence[Vector],
    divergence: str,
    alpha: Number,
    inverse_bandwidth: Number,
    order: Number,
    negatives: Sequence[Vector] | None = None,
) -> list[Row]:
    """``-f'(G(a_i, b_i)) + alpha / (N - 1) sum_(j != i) f*(f'(G(a_i, a_j)))``, G the Gaussian of the squared distance.

    With a queue the mean is over its rows instead: ``alpha / K sum_k f*(f'(G(a_i, n_k)))``.
    """

    def gaussian(x: Vector, y: Vector) -> Number:
        return mp.exp(-inverse_bandwidth * (2 - 2 * _dot(x, y)))

    rows = []
    for i, anchor in enumerate(view_a):
        _, attraction = f_divergence(divergence, gaussian(anchor, view_b[i]), order)
        terms = []
        for j, other in enumerate(view_a if negatives is None else negatives):
            if j != i or negatives is not None:
                u = gaussian(anchor, other)
                f, slope = f_divergence(divergence, u, order)
                terms.append(u * slope - f)  # f*(t) = sup_u (u t - f(u)), reached where f'(u) = t
        repulsion = alpha * _sum(terms) / len(terms) if terms else 0
        rows.append(Row(repulsion - attraction, 1, True))
    return rows
