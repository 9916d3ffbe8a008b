"""Losses of rows whose positives and negatives are listed one by one: plain loops, from the formulas of the docs.

Complex numbers pass through every operation, so a derivative is `imag(f(x + i h)) / h` with no difference taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Rows = list["Row"]
STEP = 1e-40


@dataclass
class Row:
    """An anchor, its positives with their weights, and its negatives: vectors of norm 1."""

    anchor: Any
    positives: list[Any] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    negatives: list[Any] = field(default_factory=list)
    inside: bool = True

    def add_positive(self, vector: Any, weight: float = 1.0) -> None:
        self.positives.append(vector)
        self.weights.append(weight)


def log_sum_exp(terms: list[Any]) -> Any:
    peak = max(np.real(t) for t in terms)
    return peak + np.log(sum(np.exp(t - peak) for t in terms))


def softplus(t: Any) -> Any:
    return log_sum_exp([0.0, t])


def supcon_out(p: list[Any], w: list[float], n: list[Any]) -> Any:
    return log_sum_exp(p + n) - sum(x * a for x, a in zip(w, p)) / sum(w)


def supcon_in(p: list[Any], w: list[float], n: list[Any]) -> Any:
    mean = log_sum_exp([a + np.log(x) for x, a in zip(w, p)]) - np.log(sum(w))
    return log_sum_exp(p + n) - mean


def sincere(p: list[Any], w: list[float], n: list[Any]) -> Any:
    return 0.0 if not n else sum(log_sum_exp([a, *n]) - a for a in p) / len(p)


def decoupled(p: list[Any], w: list[float], n: list[Any]) -> Any:
    return None if not n else log_sum_exp(n) - sum(p) / len(p)


def siglip(p: list[Any], w: list[float], n: list[Any]) -> Any:
    return sum(softplus(-a) for a in p) + sum(softplus(a) for a in n)


def f_micl(p: list[Any], w: list[float], n: list[Any]) -> Any:
    """Of the KL divergence with G = exp(2 s - 2): f'(G) = log G + 1 and f*(f'(G)) = G, at alpha = 40."""
    return -sum(a + 1.0 for a in p) + (40.0 * sum(np.exp(a) for a in n) / len(n) if n else 0.0)


def value(
    row_loss: Callable[..., Any],
    rows: Rows,
    logit: Callable[[Any], Any],
    reduction: str = "mean",
    positive_logit: Callable[[Any], Any] | None = None,
) -> Any:
    """The loss of all rows; one without positives does not count, nor one whose loss is None."""
    found, weights = [], []
    of_positives = logit if positive_logit is None else positive_logit
    for row in rows:
        if not row.positives or not row.inside:
            continue
        p = [of_positives(np.sum(row.anchor * x)) for x in row.positives]
        n = [logit(np.sum(row.anchor * x)) for x in row.negatives]
        loss = row_loss(p, row.weights, n)
        if loss is not None:
            found.append(loss)
            weights.append(sum(row.weights) if reduction == "pairs" else 1.0)
    if not found:
        return 0.0
    total = sum(w * x for w, x in zip(weights, found))
    return total if reduction == "sum" else total / sum(weights)


def unit(x: Any) -> Any:
    return x / np.sqrt(np.sum(x * x, axis=-1, keepdims=True))


def derivative(function: Callable[..., Any], arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The gradient of a function of arrays by name."""
    found = {}
    for name, x in arrays.items():
        gradient = np.zeros(x.shape)
        for place in np.ndindex(*x.shape):
            moved = x.astype(complex)
            moved[place] += 1j * STEP
            gradient[place] = np.imag(function({**arrays, name: moved})) / STEP
        found[name] = gradient
    return found


# Who is compared with whom, from what is ignored by sample: `ignored(i, j)`.


def towers(x: Mapping[str, Any], ignored: Callable[[int, int], bool], both: bool = True) -> Rows:
    a, b = (unit(v) for v in list(x.values())[:2])
    rows = []
    for i in range(len(a)):
        row = Row(a[i])
        for j in range(len(b)):
            if not ignored(i, j):
                row.add_positive(b[j]) if i == j else row.negatives.append(b[j])
        rows.append(row)
    for j in range(len(b) if both else 0):
        row = Row(b[j])
        for i in range(len(a)):
            if not ignored(i, j):
                row.add_positive(a[i]) if i == j else row.negatives.append(a[i])
        rows.append(row)
    return rows


def queries(x: Mapping[str, Any], ignored: Callable[[int, int], bool]) -> Rows:
    return towers(x, ignored, both=False)


def queue(x: Mapping[str, Any], ignored: Callable[[int, int], bool]) -> Rows:
    q, p, n = (unit(x[name]) for name in ("queries", "positives", "negatives"))
    return [Row(q[i], [p[i]], [1.0], [n[j] for j in range(len(n)) if not ignored(i, j)]) for i in range(len(q))]


def views(x: Mapping[str, Any], ignored: Callable[[int, int], bool]) -> Rows:
    every = [unit(v) for name, v in x.items() if name.startswith("view")]
    rows = []
    for v, first in enumerate(every):
        for i, anchor in enumerate(first):
            row = Row(anchor)
            for w, second in enumerate(every):
                for j, other in enumerate(second):
                    if (v, i) != (w, j) and not ignored(i, j):
                        row.add_positive(other) if i == j else row.negatives.append(other)
            rows.append(row)
    return rows


def paired_views(x: Mapping[str, Any], ignored: Callable[[int, int], bool]) -> Rows:
    a, b = unit(x["view_a"]), unit(x["view_b"])
    rows = []
    for i in range(len(a)):
        row = Row(a[i])
        if not ignored(i, i):
            row.add_positive(b[i])
        row.negatives = [a[j] for j in range(len(a)) if j != i and not ignored(i, j)]
        rows.append(row)
    return rows


def labelled(weight: Callable[[int, int], float]) -> Callable[..., Rows]:
    """Positives of a weight above 0, by sample, among the rows of `[n, d]` or `[n, views, d]`, or against keys."""

    def rows_of(x: Mapping[str, Any], ignored: Callable[[int, int], bool]) -> Rows:
        z = unit(x["embeddings"])
        own = [(i, v) for i, sample in enumerate(z) for v in (sample if sample.ndim == 2 else [sample])]
        keys = list(enumerate(unit(x["keys"]))) if "keys" in x else own
        rows = []
        for at, (i, anchor) in enumerate(own):
            row = Row(anchor)
            for other, (j, key) in enumerate(keys):
                if (keys is own and at == other) or ignored(i, j):
                    continue
                row.add_positive(key, weight(i, j)) if weight(i, j) > 0 else row.negatives.append(key)
            rows.append(row)
        return rows

    return rows_of


def own_negatives(x: Mapping[str, Any], ignored: Callable[[int, int], bool]) -> Rows:
    """Negatives of each query, `[n, k, d]`; of those that are ignored the k-th is no negative of it."""
    q, p, n = (unit(x[name]) for name in ("queries", "positives", "negatives"))
    return [Row(q[i], [p[i]], [1.0], [v for j, v in enumerate(n[i]) if not ignored(i, j)]) for i in range(len(q))]


def near_guide(own: Any, others: Any, partners: Any, margin: float) -> np.ndarray:
    """By row and column, what a guide leaves out: cosines as high as that of the own pair, less a margin."""
    own, others, partners = (unit(np.asarray(x, np.float64)) for x in (own, others, partners))
    return own @ others.T >= np.sum(own * partners, axis=1)[:, None] - margin - 1e-5
