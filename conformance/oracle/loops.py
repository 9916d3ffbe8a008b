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
    "Logits",
    "Row",
    "cosine_schedule",
    "decoupled",
    "f_divergence",
    "f_micl",
    "hcl",
    "info_nce",
    "infoloob",
    "logits",
    "shifted_schedule",
    "siglip",
    "sincere",
    "supcon_in",
    "supcon_out",
    "tempered",
]

DIGITS = 80

Number = Any  # an mpmath number: mpmath has no types
Vector = Sequence[Number]
Logits = Sequence[Sequence[Number]]  # by anchor and key; None of a pair that is not compared


class Row(NamedTuple):
    """One row's loss, the weight of its positives (their number), whether it takes part in a mean, and in the batch."""

    loss: Number
    positives: Number
    counts: bool
    inside: bool = True


class Comparison(NamedTuple):
    """Anchors and keys, and for each pair the weight of a positive, 0 for a negative, or None: never compared."""

    anchors: Sequence[Vector]
    keys: Sequence[Vector]
    weights: Sequence[Sequence[Number | None]]
    inside: Sequence[bool]

    def positives(self, i: int) -> list[int]:
        """P(i)."""
        return [j for j, weight in enumerate(self.weights[i]) if weight]

    def negatives(self, i: int) -> list[int]:
        """N(i)."""
        return [j for j, weight in enumerate(self.weights[i]) if weight is not None and not weight]

    def weight(self, i: int) -> Number:
        """W(i), the sum of the weights of the positives: |P(i)| where each is 1."""
        return _sum([self.weights[i][j] for j in self.positives(i)])

    def similarities(self) -> list[list[Number]]:
        """The dot products of pairs that are compared, and None for the others."""
        return [
            [None if w is None else _dot(anchor, key) for key, w in zip(self.keys, weights, strict=True)]
            for anchor, weights in zip(self.anchors, self.weights, strict=True)
        ]

    def without(self, i: int) -> Row:
        """The row of an anchor that does not count."""
        return Row(mp.mpf(0), self.weight(i), False, self.inside[i])


def _dot(a: Vector, b: Vector) -> Number:
    return mp.fdot(a, b)


def _sum(terms: Sequence[Number]) -> Number:
    return mp.fsum(terms)


def _counted(pairs: Comparison, i: int, loss: Number) -> Row:
    return Row(loss, pairs.weight(i), True)


def logits(pairs: Comparison, temperature: Number) -> Logits:
    """``s / temperature`` of every pair."""
    return [[None if s is None else s / temperature for s in row] for row in pairs.similarities()]


def tempered(pairs: Comparison, temperatures: Logits) -> Logits:
    """``s / tau``, with a temperature for each pair."""
    rows = zip(pairs.similarities(), temperatures, strict=True)
    return [[None if s is None else s / tau for s, tau in zip(*both, strict=True)] for both in rows]


def sincere(pairs: Comparison, a: Logits, epsilon: Number) -> list[Row]:
    """``(1/|P|) sum_p -log( e^l_p / (e^(l_p - epsilon) + sum_n e^l_n) )``, epsilon 0 in SINCERE itself."""
    rows = []
    for i in range(len(pairs.anchors)):
        positives = pairs.positives(i)
        if not positives:
            rows.append(pairs.without(i))
            continue
        noise = _sum([mp.exp(a[i][n]) for n in pairs.negatives(i)])
        # -log(x / (x e^-eps + E)) = log(1 + E e^eps / x) - eps; log1p because the ratio may be 1e-30.
        terms = [mp.log1p(noise * mp.exp(epsilon) / mp.exp(a[i][p])) - epsilon for p in positives]
        rows.append(_counted(pairs, i, _sum(terms) / len(positives)))
    return rows


def supcon_out(pairs: Comparison, a: Logits) -> list[Row]:
    """``(-1/W) sum_p w_p log( e^l_p / sum_a e^l_a )``, a over all others; W is |P| where the weights are 1."""
    rows = []
    for i in range(len(pairs.anchors)):
        positives = pairs.positives(i)
        if not positives:
            rows.append(pairs.without(i))
            continue
        others = {j: mp.exp(a[i][j]) for j in positives + pairs.negatives(i)}
        terms = []
        for p in positives:
            # -log(x / (x + rest)) = log(1 + rest / x)
            rest = _sum([x for j, x in others.items() if j != p])
            terms.append(pairs.weights[i][p] * mp.log1p(rest / others[p]))
        rows.append(_counted(pairs, i, _sum(terms) / pairs.weight(i)))
    return rows


def supcon_in(pairs: Comparison, a: Logits) -> list[Row]:
    """``-log( (1/W) sum_p w_p e^l_p / sum_a e^l_a )``, a over all others: each once, whatever it weighs."""
    rows = []
    for i in range(len(pairs.anchors)):
        positives = pairs.positives(i)
        if not positives:
            rows.append(pairs.without(i))
            continue
        above = _sum([pairs.weights[i][p] * mp.exp(a[i][p]) for p in positives])
        below = _sum([mp.exp(a[i][j]) for j in positives + pairs.negatives(i)])
        # log1p because the quotient may be 1 but for 1e-30
        rows.append(_counted(pairs, i, mp.log(pairs.weight(i)) + mp.log1p((below - above) / above)))
    return rows


def decoupled(pairs: Comparison, a: Logits) -> list[Row]:
    """``(-1/|P|) sum_p log( e^l_p / sum_n e^l_n )``: only negatives below, so a row without negatives is undefined."""
    rows = []
    for i in range(len(pairs.anchors)):
        positives, negatives = pairs.positives(i), pairs.negatives(i)
        if not positives or not negatives:
            rows.append(pairs.without(i))
            continue
        noise = _sum([mp.exp(a[i][n]) for n in negatives])
        rows.append(_counted(pairs, i, mp.log(noise) - _sum([a[i][p] for p in positives]) / len(positives)))
    return rows


def info_nce(pairs: Comparison, a: Logits) -> list[Row]:
    """``-log( e^l_i / (e^l_i + sum_n e^l_n) )`` of the one positive of a row."""
    rows = []
    for i in range(len(pairs.anchors)):
        if not pairs.positives(i):
            rows.append(pairs.without(i))
            continue
        (p,) = pairs.positives(i)
        rest = _sum([mp.exp(a[i][n]) for n in pairs.negatives(i)])
        rows.append(_counted(pairs, i, mp.log1p(rest / mp.exp(a[i][p]))))
    return rows


def infoloob(pairs: Comparison, a: Logits) -> list[Row]:
    """``-log( e^l_i / sum_n e^l_n )``, the positive left out below."""
    rows = []
    for i in range(len(pairs.anchors)):
        positives, negatives = pairs.positives(i), pairs.negatives(i)
        if not positives or not negatives:
            rows.append(pairs.without(i))
            continue
        rest = _sum([mp.exp(a[i][n]) for n in negatives])
        rows.append(_counted(pairs, i, -mp.log(mp.exp(a[i][positives[0]]) / rest)))
    return rows


def hcl(pairs: Comparison, a: Logits, beta: Number) -> list[Row]:
    """``log(1 + N_i / e^l_p)``, N_i the sum of ``e^l_n`` over m negatives, each times ``m w_n / sum w``, w = e^(beta l_n).

    Of several positives l_p is the mean.
    """
    rows = []
    for i in range(len(pairs.anchors)):
        if not pairs.positives(i):
            rows.append(pairs.without(i))
            continue
        positives, negatives = pairs.positives(i), pairs.negatives(i)
        own = _sum([a[i][p] for p in positives]) / len(positives)
        importance = [mp.exp(beta * a[i][n]) for n in negatives]
        mean = _sum(importance) / max(len(negatives), 1)
        noise = _sum([mp.exp(a[i][n]) * w / mean for n, w in zip(negatives, importance, strict=True)])
        rows.append(_counted(pairs, i, mp.log1p(noise / mp.exp(own))))
    return rows


def cosine_schedule(similarity: Number, low: Number, high: Number) -> Number:
    """``low + (high - low) (1 + cos(pi (1 + s))) / 2``."""
    return low + (high - low) * (1 + mp.cos(mp.pi * (1 + similarity))) / 2


def shifted_schedule(similarity: Number, low: Number, high: Number, offset: Number, scale: Number) -> Number:
    """``low + (high - low) (1 + cos(pi (s + offset) / scale)) / 2`` up to ``s = -offset``, then ``high``."""
    if similarity > -offset:
        return high
    return low + (high - low) * (1 + mp.cos(mp.pi * (similarity + offset) / scale)) / 2


def siglip(pairs: Comparison, a: Logits, bias: Number) -> list[Row]:
    """``sum_j log(1 + exp(-z_ij (s_ij / temperature + bias)))``, z = 1 for the own pair and -1 for others."""
    rows = []
    for i in range(len(pairs.anchors)):
        positives, terms = pairs.positives(i), []
        if not positives:
            rows.append(pairs.without(i))
            continue
        for j in positives + pairs.negatives(i):
            z = 1 if j in positives else -1
            terms.append(mp.log1p(mp.exp(-z * (a[i][j] + bias))))
        rows.append(_counted(pairs, i, _sum(terms)))
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


def f_micl(pairs: Comparison, divergence: str, alpha: Number, inverse_bandwidth: Number, order: Number) -> list[Row]:
    """``-f'(G(a_i, b_i)) + alpha mean_n f*(f'(G(a_i, n)))``, G the Gaussian of the squared distance."""

    def gaussian(similarity: Number) -> Number:
        return mp.exp(-inverse_bandwidth * (2 - 2 * similarity))

    rows, s = [], pairs.similarities()
    for i in range(len(pairs.anchors)):
        if not pairs.positives(i):
            rows.append(pairs.without(i))
            continue
        (p,) = pairs.positives(i)
        _, attraction = f_divergence(divergence, gaussian(s[i][p]), order)
        terms = []
        for n in pairs.negatives(i):
            u = gaussian(s[i][n])
            f, slope = f_divergence(divergence, u, order)
            terms.append(u * slope - f)  # f*(t) = sup_u (u t - f(u)), reached where f'(u) = t
        repulsion = alpha * _sum(terms) / len(terms) if terms else 0
        rows.append(_counted(pairs, i, repulsion - attraction))
    return rows
