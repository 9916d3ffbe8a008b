"""Every loss written once more, plainly, on whatever arrays a framework has, and differentiated by the framework.

It is right, and shares no line with the package or with the oracle. `test_faults.py` plants its faults in it by replacing
one of its steps, each of which is a method.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from sincere_spec.conformance import frameworks
from sincere_spec.conformance.judge import Answer
from sincere_spec.conformance.questions import Question
from sincere_spec.conformance.tolerance import compute_dtype


@dataclass(frozen=True)
class Operations:
    """The few operations that the formulas need. `stop` holds its argument constant."""

    module: Any
    cast: Callable[[Any, str], Any]
    softplus: Callable[[Any], Any]
    stop: Callable[[Any], Any]
    dtype: Callable[[Any], str]
    from_numpy: Callable[[np.ndarray], Any]
    concat: Callable[[list[Any]], Any]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)

    def among(self, mask: np.ndarray, x: Any, otherwise: float = 0.0) -> Any:
        """x where the mask is true."""
        return self.module.where(self.from_numpy(mask), x, self.module.zeros_like(x) + otherwise)

    def constant(self, x: np.ndarray, like: Any) -> Any:
        return self.cast(self.from_numpy(np.asarray(x, np.float64)), self.dtype(like))


def operations(framework: str) -> Operations:
    if framework == "torch":
        import torch

        return Operations(
            torch,
            cast=lambda x, dtype: x.to(getattr(torch, dtype)),
            softplus=lambda t: -torch.nn.functional.logsigmoid(-t),
            stop=lambda x: x.detach(),
            dtype=lambda x: str(x.dtype).removeprefix("torch."),
            from_numpy=torch.tensor,
            concat=torch.cat,
        )
    if framework == "jax":
        import jax

        return Operations(
            jax.numpy,
            cast=lambda x, dtype: x.astype(dtype),
            softplus=jax.nn.softplus,
            stop=jax.lax.stop_gradient,
            dtype=lambda x: x.dtype.name,
            from_numpy=jax.numpy.asarray,
            concat=jax.numpy.concatenate,
        )
    if framework == "tensorflow":
        import tensorflow as tf

        return Operations(
            tf.experimental.numpy,
            cast=tf.cast,
            softplus=tf.nn.softplus,
            stop=tf.stop_gradient,
            dtype=lambda x: x.dtype.name,
            from_numpy=tf.constant,
            concat=partial(tf.concat, axis=0),
        )
    return Operations(
        np,
        cast=lambda x, dtype: x.astype(dtype),
        softplus=lambda t: np.logaddexp(np.zeros_like(t), t),
        stop=lambda x: x,
        dtype=lambda x: x.dtype.name,
        from_numpy=np.asarray,
        concat=np.concatenate,
    )


BESIDE = ("keys", "negatives", "own_negatives")
"""Arrays whose rows are none of the batch's."""


@dataclass(frozen=True)
class Side:
    """Anchors against keys, by the names of their arrays, and who is positive and who negative."""

    anchors: tuple[str, ...]
    keys: tuple[str, ...]
    positive: np.ndarray
    negative: np.ndarray


class Plain:
    """A right implementation of every loss; nothing of it is fast."""

    def __init__(self, framework: str) -> None:
        self.framework = framework
        self.made = frameworks.start(framework)
        self.xp = operations(framework)

    def routes(self, question: Question) -> tuple[str, ...]:
        if self.framework == "jax":
            return ("compiled",)  # as one program: by itself every operation is one, too
        return ("autograd" if self.made.listing.autograd else "plain",)

    def answer(self, question: Question, dtype: str, engine: str, route: str) -> Answer:
        numbers = question.arrays | {name: np.asarray(x) for name, x in question.parameters.items()}
        arrays = {name: self.made.array(x, dtype) for name, x in numbers.items()}
        compute = self.compute(dtype)

        def function(arrays: dict[str, Any], _: object) -> Any:
            return self.loss(question, {name: self.xp.cast(x, compute) for name, x in arrays.items()})

        if route == "plain":
            return Answer(self.made.read(self.xp.module.asarray(function(arrays, {}))))
        cotangent = self.made.array(self.cotangent(question.cotangent), compute)
        value, gradients = self.made.differentiated(function, route)(arrays, {}, cotangent)
        read = {name: None if x is None else self.made.read(x) for name, x in gradients.items()}
        return Answer(self.made.read(value), self.gradients(read))

    # what stands around the formulas

    def compute(self, dtype: str) -> str:
        return compute_dtype(dtype)

    def cotangent(self, c: np.ndarray) -> np.ndarray:
        return c

    def gradients(self, gradients: dict[str, Any]) -> dict[str, Any]:
        return gradients

    def loss(self, question: Question, x: dict[str, Any]) -> Any:
        z = {name: self.flat(x[name]) for name in question.arrays}
        z = {name: self.unit(rows) if self.normalizes(question) else rows for name, rows in z.items()}
        losses, positives, counts, inside = [], [], [], []
        for side in self.sides(question):
            q = self.xp.concat([self.anchor(z[name]) for name in side.anchors])
            k = self.xp.concat([self.key(z[name]) for name in side.keys])
            a = self.logits(question, self.similarities(q, k), x)
            losses.append(self.rows(question, a, side.positive, side.negative))
            positives.append(self.numbers(question, side.positive))
            counts.append(self.counting(question, side.positive, side.negative))
            inside.append(self.inside(question, side.anchors))
        rows, counting = self.order(question, self.xp.concat(losses)), np.concatenate(counts)
        there, weights = self.taking_part(np.concatenate(inside)), np.zeros(len(counting))
        weights[there] = self.weights(question.reduction, counting[there], np.concatenate(positives)[there])
        weighted = self.xp.among(counting, rows) * self.xp.constant(weights, rows)
        return weighted if question.reduction == "none" else self.xp.sum(weighted)

    def flat(self, x: Any) -> Any:
        return self.xp.reshape(x, (-1, x.shape[-1]))

    def normalizes(self, question: Question) -> bool:
        return question.normalize

    def unit(self, x: Any) -> Any:
        if not x.shape[0]:
            return x
        xp = self.xp
        size = xp.stop(xp.amax(xp.abs(x), axis=1, keepdims=True))
        live, one = size > 0, xp.ones_like(size)
        y = x / xp.where(live, size, one)
        z = y / xp.sqrt(xp.where(live, xp.sum(y * y, axis=1, keepdims=True), one))
        return xp.where(live, z, xp.zeros_like(z))

    def anchor(self, z: Any) -> Any:
        return z

    def key(self, z: Any) -> Any:
        return z

    def similarities(self, q: Any, k: Any) -> Any:
        return self.xp.matmul(q, self.xp.swapaxes(k, 0, 1))

    def order(self, question: Question, rows: Any) -> Any:
        return rows

    def weights(self, reduction: str, counts: np.ndarray, positives: np.ndarray) -> np.ndarray:
        if reduction == "pairs":
            return positives * counts / ((positives * counts).sum() or 1.0)
        number = {"mean": counts.sum(), "batch": len(counts)}.get(reduction, 1)
        return counts / max(1, number)

    # who is compared with whom

    def sides(self, question: Question) -> list[Side]:
        return [self.related(question, side) for side in self.by_arrangement(question)]

    def by_arrangement(self, question: Question) -> list[Side]:
        names = tuple(question.arrays)
        n = len(question.arrays[names[0]])
        here, apart = np.eye(n, dtype=bool), ~np.eye(n, dtype=bool)
        if "embeddings" in question.arguments:
            return [self.labelled(question)]
        if question.loss in ("nt_xent", "dystress", "hcl"):
            image = np.tile(np.arange(n), len(names))
            same = image[:, None] == image
            return [Side(names, names, same & ~np.eye(len(image), dtype=bool), ~same)]
        if len(names) == 3:
            queue = self.queue(question, names[2])
            nobody = np.zeros_like(here)
            return [Side(names[:1], names[1:], np.hstack([here, np.zeros_like(queue)]), np.hstack([nobody, queue]))]
        if question.loss == "f_micl":
            nobody = np.zeros_like(here)
            return [Side(names[:1], names[::-1], np.hstack([here, nobody]), np.hstack([nobody, apart]))]
        both = [Side(names[:1], names[1:], here, apart), Side(names[1:], names[:1], here, apart)]
        return both if question.loss in ("clip", "infoloob") else both[:1]

    def queue(self, question: Question, name: str) -> np.ndarray:
        """Who is compared with whom of a queue: all, or each with its own."""
        rows = np.arange(len(next(iter(question.arrays.values()))))
        samples = self.samples(question, (name,))
        return (rows[:, None] == samples) | np.full((len(rows), len(samples)), name == "negatives")

    def labelled(self, question: Question) -> Side:
        x, given = question.arrays["embeddings"], question.integers
        count = x.size // x.shape[-1]
        ids = given.get("ids", np.arange(count))
        if "keys" not in question.arrays:
            key_ids, keys = ids, ("embeddings",)
        else:
            key_ids, keys = given.get("key_ids", -1 - np.arange(len(question.arrays["keys"]))), ("keys",)
        same, apart = self.same(question, keys), ids[:, None] != key_ids
        return Side(("embeddings",), keys, self.positive(same, apart), self.negative(same, apart))

    # relations

    def samples(self, question: Question, names: tuple[str, ...]) -> np.ndarray:
        """The sample of each row of some arrays."""
        shapes = [question.arrays[name].shape for name in names]
        return np.concatenate([np.repeat(np.arange(s[0]), s[1] if len(s) == 3 else 1) for s in shapes])

    def by_pair(self, question: Question, matrix: np.ndarray, side_names: tuple[tuple[str, ...], ...]) -> np.ndarray:
        """A matrix by sample for each pair of rows."""
        rows, columns = (self.samples(question, names) for names in side_names)
        return matrix[rows[:, None], columns[None, :]]

    def of(self, question: Question, word: str, names: tuple[str, ...]) -> np.ndarray:
        """What is said of each row of some arrays, those of keys and queues apart."""
        said = question.arguments[f"key_{word}" if names[0] in BESIDE else word]
        return said[self.samples(question, names)]

    def same(self, question: Question, keys: tuple[str, ...]) -> np.ndarray:
        """Whose positives are whose, but for a row and itself."""
        anchors, given = ("embeddings",), question.arguments
        if "positive_pairs" in given or "positive_weights" in given:
            return self.heavy(question, keys) > 0
        if "classes" in given:
            return self.common(question, keys) > 0
        labels, others = (self.labels(self.of(question, "labels", names)) for names in (anchors, keys))
        return labels[:, None] == others

    def common(self, question: Question, keys: tuple[str, ...]) -> np.ndarray:
        """How many classes two rows have in common."""
        mine, theirs = (self.of(question, "classes", names).astype(float) for names in (("embeddings",), keys))
        return mine @ theirs.T

    def heavy(self, question: Question, keys: tuple[str, ...]) -> np.ndarray:
        """How much each pair weighs as a positive."""
        given = question.arguments
        for name in ("positive_pairs", "positive_weights"):
            if name in given:
                return self.by_pair(question, given[name].astype(float), (("embeddings",), keys))
        return self.jaccard(question, keys, self.common(question, keys))

    def jaccard(self, question: Question, keys: tuple[str, ...], common: np.ndarray) -> np.ndarray:
        mine, theirs = (self.of(question, "classes", names).sum(axis=1) for names in (("embeddings",), keys))
        return common / np.maximum(mine[:, None] + theirs - common, 1)

    def shares(self, question: Question, positive: np.ndarray) -> np.ndarray:
        """The weights of positives: 1 where nothing weighs."""
        if "positive_weights" not in question.arguments and question.options.get("overlap") != "jaccard":
            return positive.astype(float)
        keys = ("keys",) if "keys" in question.arrays else ("embeddings",)
        return np.where(positive, self.heavy(question, keys), 0.0)

    def numbers(self, question: Question, positive: np.ndarray) -> np.ndarray:
        """By how much "pairs" weighs each row."""
        return self.shares(question, positive).sum(axis=1)

    def related(self, question: Question, side: Side) -> Side:
        """A side without the pairs that are left out."""
        own = side.positive
        if "embeddings" in question.arguments:
            rows, columns = (self.samples(question, names) for names in (side.anchors, side.keys))
            own = (rows[:, None] == columns) & (side.anchors == side.keys)
        kept = ~self.left_out(question, side, own)
        kept &= self.inside(question, side.anchors)[:, None] & self.inside(question, side.keys)
        return self.remaining(question, side, kept)

    def remaining(self, question: Question, side: Side, kept: np.ndarray) -> Side:
        return replace(side, positive=side.positive & kept, negative=side.negative & kept)

    def left_out(self, question: Question, side: Side, own: np.ndarray) -> np.ndarray:
        given, out = question.arguments, np.zeros(side.positive.shape, dtype=bool)
        if "groups" in given:
            out |= self.grouped(question, side, own)
        if "ignore" in given:
            out |= self.marked(question, side, given["ignore"])
        if "margin" in question.options:
            out |= self.near(question, side, own)
        return out

    def grouped(self, question: Question, side: Side, own: np.ndarray) -> np.ndarray:
        """Pairs of one group, without a row's own positive."""
        mine, theirs = self.of(question, "groups", side.anchors), self.groups_of_keys(question, side)
        return (mine[:, None] == theirs) & ~own

    def groups_of_keys(self, question: Question, side: Side) -> np.ndarray:
        return np.concatenate([self.of(question, "groups", (name,)) for name in side.keys])

    def marked(self, question: Question, side: Side, matrix: np.ndarray) -> np.ndarray:
        """Pairs of a matrix, which is that of a queue alone where there is one."""
        if side.anchors == ("b",):
            matrix = matrix.T
        if "negatives" in side.keys:
            partners = np.zeros((len(matrix), len(matrix)), dtype=bool)
            return np.hstack([partners, self.by_pair(question, matrix, (side.anchors, ("negatives",)))])
        return self.by_pair(question, matrix, (side.anchors, side.keys))

    def near(self, question: Question, side: Side, own: np.ndarray) -> np.ndarray:
        """Negatives that the guide finds as similar as the own pair."""
        found = self.found(question, side)
        least = found[own].reshape(-1, 1) - self.margin_of(question) - 1e-5
        return (found >= least) & ~own

    def margin_of(self, question: Question) -> float:
        return float(question.options["margin"])

    def found(self, question: Question, side: Side) -> np.ndarray:
        """What the guide finds of each pair."""
        mine, theirs = (
            np.concatenate([self.guide(question.arguments[f"guide_{name}"]) for name in names])
            for names in (side.anchors, side.keys)
        )
        return mine @ theirs.T

    def guide(self, rows: np.ndarray) -> np.ndarray:
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def inside(self, question: Question, names: tuple[str, ...]) -> np.ndarray:
        """Which rows of some arrays take part."""
        found = []
        for name in names:
            mask = question.arguments.get("key_where" if name in BESIDE else "where")
            rows = self.samples(question, (name,))
            found.append(
                np.ones(len(rows), dtype=bool) if mask is None else mask.ravel() if mask.ndim == 2 else mask[rows]
            )
        return np.concatenate(found)

    def taking_part(self, inside: np.ndarray) -> np.ndarray:
        return inside

    def labels(self, labels: np.ndarray) -> np.ndarray:
        return labels

    def positive(self, same: np.ndarray, apart: np.ndarray) -> np.ndarray:
        return same & apart

    def negative(self, same: np.ndarray, apart: np.ndarray) -> np.ndarray:
        return ~same & apart

    def counting(self, question: Question, positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
        counts = positive.any(axis=1)
        return counts & negative.any(axis=1) if question.loss in ("decoupled", "infoloob") else counts

    # the formulas

    def logits(self, question: Question, s: Any, x: dict[str, Any]) -> Any:
        if question.loss in ("dystress", "dystress_info_nce"):
            return s / self.held(question, self.schedule(s, **question.options))
        if question.loss == "f_micl":
            return -float(question.options["inverse_bandwidth"]) * self.distance(s)
        a = s / x["temperature"]
        return a + x["bias"] if "bias" in x else a

    def held(self, question: Question, tau: Any) -> Any:
        return self.xp.stop(tau) if question.options["detach"] else tau

    def schedule(
        self, s: Any, temperature_min: float, temperature_max: float, schedule: str, offset=0.0, scale=1.0, **_: Any
    ) -> Any:
        wide = (temperature_max - temperature_min) / 2
        if schedule == "cosine":
            return temperature_min + wide * (1 + self.xp.cos(math.pi * (1 + s)))
        turned = temperature_min + wide * (1 + self.xp.cos(math.pi * (s + offset) / scale))
        return self.xp.where(s > -offset, self.xp.zeros_like(s) + temperature_max, turned)

    def distance(self, s: Any) -> Any:
        return 2 - 2 * s

    def rows(self, question: Question, a: Any, positive: np.ndarray, negative: np.ndarray) -> Any:
        """The loss of each row."""
        form = {
            "sincere": self.margin,
            "decoupled": self.decoupled,
            "infoloob": self.decoupled,
            "hcl": self.reweighted,
            "siglip": self.pairwise,
            "f_micl": self.divergence,
        }
        if question.loss == "supcon":
            form = self.outside if question.options["summation"] == "out" else self.within
            return form(a, positive, negative, weight=self.shares(question, positive), **question.options)
        several = question.loss in ("nt_xent", "dystress") and len(question.arrays) > 2
        chosen = form.get(question.loss, self.outside if several else self.margin)
        return chosen(a, positive, negative, **question.options)

    def margin(self, a: Any, positive: np.ndarray, negative: np.ndarray, epsilon: float = 0.0, **_: Any) -> Any:
        some = positive & negative.any(axis=1, keepdims=True)
        gap = self.level(a, negative) - a + epsilon
        return self.average(self.xp.among(some, self.softplus(self.xp.among(some, gap))), positive) - epsilon

    def reweighted(self, a: Any, positive: np.ndarray, negative: np.ndarray, beta: float, **_: Any) -> Any:
        some = positive.any(axis=1) & negative.any(axis=1)
        gap = self.hard(a, negative, beta)[:, 0] - self.average(a, positive)
        return self.xp.among(some, self.softplus(self.xp.among(some, gap)))

    def hard(self, a: Any, negative: np.ndarray, beta: float) -> Any:
        """The logarithm of the sum of negatives that count e^(beta a) times, all together as many as they are."""
        scale = self.xp.constant(np.log(self.number(negative)), a)
        return self.level((1 + beta) * a, negative) - self.level(beta * a, negative) + scale

    def outside(
        self, a: Any, positive: np.ndarray, negative: np.ndarray, weight: np.ndarray | None = None, **_: Any
    ) -> Any:
        return self.level(a, positive | negative)[:, 0] - self.average(a, positive, weight)

    def within(
        self, a: Any, positive: np.ndarray, negative: np.ndarray, weight: np.ndarray | None = None, **_: Any
    ) -> Any:
        weight = positive.astype(float) if weight is None else weight
        heavy = a + self.xp.constant(np.log(np.where(positive, weight, 1.0)), a)
        everyone, same = self.level(a, positive | negative), self.level(heavy, positive)
        return (everyone - same)[:, 0] + self.xp.constant(np.log(self.mass(weight)[:, 0]), a)

    def mass(self, weight: np.ndarray) -> np.ndarray:
        """W, the sum of a row's weights."""
        total = weight.sum(axis=1, keepdims=True)
        return np.where(total > 0, total, 1.0)

    def decoupled(self, a: Any, positive: np.ndarray, negative: np.ndarray, **_: Any) -> Any:
        return self.level(a, negative)[:, 0] - self.average(a, positive)

    def pairwise(self, a: Any, positive: np.ndarray, negative: np.ndarray, **_: Any) -> Any:
        terms = self.softplus(a * self.xp.constant(np.where(positive, -1.0, 1.0), a))
        return self.xp.sum(self.xp.among(positive | negative, terms), axis=1)

    def divergence(
        self,
        a: Any,
        positive: np.ndarray,
        negative: np.ndarray,
        divergence: str,
        alpha: float,
        order: float = 2.0,
        **_: Any,
    ) -> Any:
        near, far = self.xp.among(positive, a), self.xp.among(negative, a)
        attraction = self.xp.sum(self.xp.among(positive, self.slope(divergence, near, order)), axis=1)
        return alpha * self.repelled(self.conjugate(divergence, far, order), negative) - attraction

    def repelled(self, x: Any, negative: np.ndarray) -> Any:
        return self.average(x, negative)

    def slope(self, name: str, a: Any, order: float) -> Any:
        """f'(u) at u = exp(a)."""
        exp = self.xp.exp
        return {
            "kl": lambda: a + 1,
            "js": lambda: math.log(2) - self.softplus(-a),
            "pearson": lambda: 2 * exp(a) - 2,
            "hellinger": lambda: 1 - exp(-a / 2),
            "tsallis": lambda: order / (order - 1) * exp((order - 1) * a),
            "vincze_le_cam": lambda: 1 - 4 / (1 + exp(a)) ** 2,
            "reverse_kl": lambda: -exp(-a),
            "neyman": lambda: 1 - exp(-2 * a),
            "jeffreys": lambda: 1 - exp(-a) + a,
        }[name]()

    def conjugate(self, name: str, a: Any, order: float) -> Any:
        """f*(f'(u)) = u f'(u) - f(u) at u = exp(a), worked out."""
        exp = self.xp.exp
        return {
            "kl": lambda: exp(a),
            "js": lambda: self.softplus(a) - math.log(2),
            "pearson": lambda: exp(2 * a) - 1,
            "hellinger": lambda: exp(a / 2) - 1,
            "tsallis": lambda: exp(order * a),
            "vincze_le_cam": lambda: 3 - 8 / (1 + exp(a)) + 4 / (1 + exp(a)) ** 2,
            "reverse_kl": lambda: a - 1,
            "neyman": lambda: 2 - 2 * exp(-a),
            "jeffreys": lambda: exp(a) - 1 + a,
        }[name]()

    def softplus(self, t: Any) -> Any:
        return self.xp.softplus(t)

    def average(self, a: Any, over: np.ndarray, weight: np.ndarray | None = None) -> Any:
        share = (
            over / self.number(over) if weight is None or np.array_equal(weight, over) else weight / self.mass(weight)
        )
        return self.xp.sum(self.xp.among(over, a) * self.xp.constant(share, a), axis=1)

    def number(self, over: np.ndarray) -> np.ndarray:
        return np.maximum(over.sum(axis=1, keepdims=True), 1)

    def level(self, a: Any, over: np.ndarray) -> Any:
        """The log-sum-exp of each row, as a column; 0 where there is nothing."""
        if not a.shape[1]:
            return self.xp.sum(a, axis=1, keepdims=True)
        some = over.any(axis=1, keepdims=True)
        peak = self.xp.among(some, self.peak(self.xp.stop(a), over))
        weight = self.xp.among(over, self.xp.exp(self.xp.among(over, a - peak)))
        return self.log(self.xp.among(some, self.xp.sum(weight, axis=1, keepdims=True), 1.0)) + peak

    def peak(self, a: Any, over: np.ndarray) -> Any:
        return self.xp.amax(self.xp.among(over, a, -math.inf), axis=1, keepdims=True)

    def log(self, x: Any) -> Any:
        return self.xp.log(x)
