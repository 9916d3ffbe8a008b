"""The suite tested: right implementations pass it, every planted fault is killed, and every case is there for a reason.

A fault is the plain implementation with one step replaced by one that somebody got wrong: published code, a package that
people use, or the first thing that comes to mind. It is judged as anyone's implementation is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from plain import Plain, Side

from sincere_spec.conformance import judge, questions
from sincere_spec.conformance.judge import Returned
from sincere_spec.conformance.questions import Question
from sincere_spec.conformance.tolerance import K

EPSILON = 1e-12


@dataclass(frozen=True)
class Fault:
    """What is wrong, why a person would say so, and how it shows.

    because    what is wrong with it
    steps      the methods of `Plain` that are replaced
    killed_by  cases that must catch it
    symptom    how the verdict on the first of them begins: the quantity, and the reason that the judge gives
    spared_by  a case that does not see it, which is why the other is there
    dtype      the type in which it shows
    """

    because: str
    steps: Mapping[str, Callable[..., Any]]
    killed_by: tuple[str, ...]
    symptom: str = "value: wrong"
    spared_by: str = ""
    dtype: str = "float32"

    @property
    def implementation(self) -> Plain:
        """The plain implementation with the fault in it; in torch, whose own gradients follow a wrong formula."""
        return type("Faulty", (Plain,), dict(self.steps))("torch")


def only(loss: str, wrong: Callable[..., Any], right: Callable[..., Any]) -> Callable[..., Any]:
    """A step that is wrong for one loss; its second argument is the question."""
    return lambda self, question, *rest: (wrong if question.loss == loss else right)(self, question, *rest)


def asking(change: Callable[[Question, int], Mapping[str, np.ndarray]]) -> dict[str, Callable[..., Any]]:
    """Other labels or ids than the question's, from it and its number of rows."""

    def labelled(self: Plain, question: Question) -> Side:
        rows = question.arrays["embeddings"].size // question.arrays["embeddings"].shape[-1]
        return Plain.labelled(self, replace(question, arguments=question.arguments | change(question, rows)))

    return {"labelled": labelled}


def with_gradients(change: Callable[[Returned], Returned | None], *names: str) -> dict[str, Callable[..., Any]]:
    """Some gradients, or all, changed after they were right."""
    return {
        "gradients": lambda self, gradients: {
            name: change(x) if not names or name in names else x for name, x in gradients.items()
        }
    }


def weighted(**change: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> dict[str, Callable[..., Any]]:
    """A reduction with other weights, from the rows that count and their numbers of positives."""

    def weights(self: Plain, reduction: str, counts: np.ndarray, positives: np.ndarray) -> np.ndarray:
        if reduction in change:
            return change[reduction](counts, positives)
        return Plain.weights(self, reduction, counts, positives)

    return {"weights": weights}


def sides(loss: str, change: Callable[[Question, list[Side]], list[Side]]) -> dict[str, Callable[..., Any]]:
    """Another idea of who is compared with whom."""

    def wrong(self: Plain, question: Question) -> list[Side]:
        right = Plain.sides(self, question)
        return change(question, right) if question.loss == loss else right

    return {"sides": wrong}


def coarse(self: Plain, q: Any, k: Any) -> Any:
    """Products of numbers with 10 bits, as tensor cores make them by default."""

    def rounded(x: Any) -> Any:
        return x + self.xp.stop((x * (1 + 2**13)) - (x * (1 + 2**13) - x) - x)

    return Plain.similarities(self, rounded(q), rounded(k))


def naive_unit(self: Plain, x: Any) -> Any:
    return x / self.xp.sqrt(self.xp.sum(x * x, axis=1, keepdims=True))


def clamped_unit(self: Plain, x: Any) -> Any:
    size = self.xp.sqrt(self.xp.sum(x * x, axis=1, keepdims=True) + EPSILON**2)
    return x / self.xp.where(size > EPSILON, size, self.xp.zeros_like(size) + EPSILON)


def living_unit(self: Plain, x: Any) -> Any:
    """Right, but a zero row passes its gradient on."""
    zero = (self.made.read(x).numbers == 0).all(axis=1, keepdims=True)
    return Plain.unit(self, self.xp.among(~np.broadcast_to(zero, tuple(x.shape)), x)) + self.xp.among(
        np.broadcast_to(zero, tuple(x.shape)), x
    )


def floored_margin(self: Plain, a: Any, positive: np.ndarray, negative: np.ndarray, epsilon=0.0, **_: Any) -> Any:
    """-log(ratio + tiny), which ends at 87.3."""
    some = positive & negative.any(axis=1, keepdims=True)
    ratio = 1 / (1 + self.xp.exp(self.level(a, negative) - a + epsilon))
    tiny = float(np.finfo(np.float32).tiny)
    return self.average(-self.xp.log(self.xp.among(some, ratio, 1.0) + tiny), positive) - epsilon


def differing_margin(self: Plain, a: Any, positive: np.ndarray, negative: np.ndarray, epsilon=0.0, **_: Any) -> Any:
    """log(e^l_p + sum of negatives) - l_p, a difference of large numbers."""
    some = positive & negative.any(axis=1, keepdims=True)
    level = self.level(a, negative)
    top = self.xp.stop(self.xp.where(a > level, a, level))
    whole = self.xp.log(self.xp.exp(a - epsilon - top) + self.xp.exp(level - top)) + top
    return self.average(self.xp.among(some, whole - a), positive) - epsilon * ~negative.any(axis=1).all()


def own_peak(self: Plain, a: Any, over: np.ndarray) -> Any:
    """The largest of the whole row, the anchor itself included."""
    return self.xp.amax(a, axis=1, keepdims=True)


def by_subtraction(self: Plain, a: Any, over: np.ndarray) -> Any:
    """The sum over the whole row, less that of the others' complement."""
    peak = self.xp.amax(self.xp.stop(a), axis=1, keepdims=True) if a.shape[1] else 0.0
    weight = self.xp.exp(a - peak)
    total = self.xp.sum(weight, axis=1, keepdims=True)
    return self.xp.log(total - self.xp.sum(self.xp.among(~over, weight), axis=1, keepdims=True)) + peak


def printed_vincze_le_cam(self: Plain, name: str, a: Any, order: float) -> Any:
    """f* as the table prints it, at u rather than at f'(u)."""
    if name != "vincze_le_cam":
        return Plain.conjugate(self, name, a, order)
    return 4 - self.xp.exp(a) - 4 * self.xp.sqrt(1 - self.xp.exp(a) + 1e-6)


def without_duplicates(self: Plain, question: Question) -> list[Side]:
    right = Plain.sides(self, question)
    if right[0].anchors != right[0].keys:
        return right
    rows = np.concatenate([x.reshape(-1, x.shape[-1]) for x in question.arrays.values()])
    other = (rows[:, None] != rows[None]).any(axis=-1)
    return [replace(side, positive=side.positive & other, negative=side.negative & other) for side in right]


def without_copies(self: Plain, question: Question) -> list[Side]:
    """For a row with one partner, keys that equal it are no negatives."""
    right = Plain.sides(self, question)
    if question.loss not in ("info_nce", "clip") or not right[0].positive.any():
        return right
    found = []
    for side in right:
        keys = np.concatenate([question.arrays[name] for name in side.keys])
        partners = keys[side.positive.argmax(axis=1)]
        copies = (partners[:, None] == keys[None]).all(axis=-1)
        found.append(replace(side, negative=side.negative & ~copies))
    return found


def without_zeros(self: Plain, question: Question, rows: Any) -> Any:
    """Rows that make the mean over those that count one over those that are not 0."""
    counting = np.concatenate([side.positive.any(axis=1) for side in Plain.sides(self, question)])
    left = (self.made.read(rows).numbers[counting] != 0).sum()
    return rows * float(counting.sum() / max(1, left)) if question.reduction == "mean" else rows


def transposed(question: Question, rows: int) -> np.ndarray:
    """Rows of the first view, then the second, told as image by image."""
    return np.arange(rows).reshape(len(question.arrays), -1).T.ravel()


# --- relations ---------------------------------------------------------------------------------------------------------------


def square(change: Callable[[np.ndarray], np.ndarray]) -> dict[str, Callable[..., Any]]:
    """Other entries of a matrix to leave out, where it can be turned."""

    def wrong(self: Plain, question: Question, side: Side, matrix: np.ndarray) -> np.ndarray:
        alike = matrix.shape[0] == matrix.shape[1]
        return Plain.marked(self, question, side, change(matrix) if alike else matrix)

    return {"marked": wrong}


def heavier(change: Callable[[np.ndarray], np.ndarray]) -> dict[str, Callable[..., Any]]:
    """Other entries of a matrix of positives, where it can be turned."""

    def wrong(self: Plain, question: Question, keys: tuple[str, ...]) -> np.ndarray:
        right = Plain.heavy(self, question, keys)
        return change(right) if right.shape[0] == right.shape[1] else right

    return {"heavy": wrong}


def unturned(self: Plain, question: Question, side: Side, matrix: np.ndarray) -> np.ndarray:
    return Plain.marked(self, question, side, matrix.T if side.anchors == ("b",) else matrix)


def zeros_for_ignored(self: Plain, question: Question, a: Any, positive: np.ndarray, negative: np.ndarray) -> Any:
    """Logits are multiplied by a mask, and what is left out keeps a logit of 0."""
    missing = ~(positive | negative)
    if not {"groups", "ignore"} & set(question.arguments) or question.loss not in ("clip", "info_nce"):
        return Plain.rows(self, question, a, positive, negative)
    return Plain.rows(self, question, self.xp.among(~missing, a), positive, negative | missing)


def every_softplus(self: Plain, a: Any, positive: np.ndarray, negative: np.ndarray, **_: Any) -> Any:
    return self.xp.sum(self.softplus(a * self.xp.constant(np.where(positive, -1.0, 1.0 * negative), a)), axis=1)


def weighted_denominator(self: Plain, a: Any, positive: np.ndarray, negative: np.ndarray, weight=None, **_: Any) -> Any:
    heavy = a + self.xp.constant(np.log(np.where(positive, weight, 1.0)), a)
    return self.level(heavy, positive | negative)[:, 0] - self.average(a, positive, weight)


def log_of_the_number(self: Plain, a: Any, positive: np.ndarray, negative: np.ndarray, weight=None, **_: Any) -> Any:
    right = Plain.within(self, a, positive, negative, weight)
    return right + self.xp.constant(np.log(np.maximum(positive.sum(axis=1), 1) / self.mass(weight)[:, 0]), a)


def with_itself(self: Plain, question: Question, positive: np.ndarray) -> np.ndarray:
    """W over the whole row of a matrix, its diagonal included."""
    if "positive_weights" not in question.arguments or "keys" in question.arrays:
        return Plain.shares(self, question, positive)
    return np.where(positive | np.eye(len(positive), dtype=bool), self.heavy(question, ("embeddings",)), 0.0)


def neither_has_any(self: Plain, question: Question, keys: tuple[str, ...]) -> np.ndarray:
    mine, theirs = (self.of(question, "classes", names).any(axis=1) for names in (("embeddings",), keys))
    return ~mine[:, None] & ~theirs


def jaccard_of_nothing(self: Plain, question: Question, keys: tuple[str, ...], common: np.ndarray) -> np.ndarray:
    return np.where(neither_has_any(self, question, keys), 1.0, Plain.jaccard(self, question, keys, common))


def jaccard_by_division(self: Plain, question: Question, keys: tuple[str, ...], common: np.ndarray) -> np.ndarray:
    right = Plain.jaccard(self, question, keys, common)
    return np.where(neither_has_any(self, question, keys), np.nan, right)


def by_classes(change: Callable[..., np.ndarray]) -> dict[str, Callable[..., Any]]:
    """Another idea of whose classes make positives."""

    def wrong(self: Plain, question: Question, keys: tuple[str, ...]) -> np.ndarray:
        right = Plain.same(self, question, keys)
        return change(self, question, keys, right) if "classes" in question.arguments else right

    return {"same": wrong}


def equal_classes(self: Plain, question: Question, keys: tuple[str, ...], right: np.ndarray) -> np.ndarray:
    mine, theirs = (self.of(question, "classes", names) for names in (("embeddings",), keys))
    return (mine[:, None] == theirs).all(axis=-1)


def of_the_batch(*words: str) -> dict[str, Callable[..., Any]]:
    """What belongs to keys or to a queue is read from the batch."""

    def wrong(self: Plain, question: Question, word: str, names: tuple[str, ...]) -> np.ndarray:
        right = Plain.of(self, question, word, names)
        return np.resize(question.arguments[word], right.shape) if word in words else right

    return {"of": wrong}


def as_if_inside(kind: int) -> dict[str, Callable[..., Any]]:
    """Masks of keys of so many dimensions are not heard."""

    def wrong(self: Plain, question: Question, names: tuple[str, ...]) -> np.ndarray:
        right = Plain.inside(self, question, names)
        mask = question.arguments.get("key_where")
        return right | (mask is not None and mask.ndim == kind)

    return {"inside": wrong}


def outside_as_keys(self: Plain, question: Question, side: Side) -> Side:
    """A row outside is no anchor, and still a key."""
    right = Plain.by_arrangement(self, question)
    (whole,) = (one for one in right if one.anchors == side.anchors)
    return self.remaining(question, whole, self.inside(question, side.anchors)[:, None] | np.zeros_like(whole.positive))


def last_reason(self: Plain, question: Question, side: Side, own: np.ndarray) -> np.ndarray:
    given = dict(question.arguments)
    if "ignore" in given:
        given.pop("groups", None)
    return Plain.left_out(self, replace(question, arguments=given), side, own)


def guided(change: Callable[..., np.ndarray]) -> dict[str, Callable[..., Any]]:
    """Another rule of what a guide leaves out, from what it finds and the own pairs."""

    def wrong(self: Plain, question: Question, side: Side, own: np.ndarray) -> np.ndarray:
        return change(self.found(question, side), own, self.margin_of(question))

    return {"near": wrong}


def own_of_the_row(found: np.ndarray, own: np.ndarray) -> np.ndarray:
    return found[own].reshape(-1, 1)


def own_of_the_column(found: np.ndarray, own: np.ndarray, margin: float) -> np.ndarray:
    if own.shape[0] != own.shape[1]:
        return (found >= own_of_the_row(found, own) - margin - 1e-5) & ~own
    return (found >= found.T[own.T][None, :] - margin - 1e-5) & ~own


def own_embeddings(self: Plain, question: Question, side: Side) -> np.ndarray:
    mine, theirs = (
        np.concatenate([self.guide(question.arrays[name]) for name in names]) for names in (side.anchors, side.keys)
    )
    return mine @ theirs.T


def counted_with(change: Callable[[np.ndarray], Any]) -> dict[str, Callable[..., Any]]:
    """The mean over negatives divides by another number, from who is one."""
    return {
        "repelled": lambda self, x, negative: (
            Plain.repelled(self, x, negative)
            * self.xp.constant(negative.sum(axis=1) / np.maximum(change(negative), 1), x)
        )
    }


def harder(change: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    """Another sum of HCL's negatives, from the log-sum-exps under both exponents and the logarithm of their number."""

    def hard(self: Plain, a: Any, negative: np.ndarray, beta: float) -> Any:
        up, down = self.level((1 + beta) * a, negative), self.level(beta * a, negative)
        return change(up, down, self.xp.constant(np.log(self.number(negative)), a))

    return {"hard": hard}


def of_hcl(change: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    """Another loss of HCL's rows."""
    return {"reweighted": change}


def hard_odds(self: Plain, a: Any, positive: np.ndarray, negative: np.ndarray, beta: float, **_: Any) -> Any:
    """-log of the positive's softmax, as the authors' code has it."""
    own = self.xp.exp(self.average(a, positive))
    noise = self.xp.among(negative.any(axis=1), self.xp.exp(self.hard(a, negative, beta))[:, 0])
    return -self.xp.log(own / (own + noise))


def hard_by_exponentials(self: Plain, a: Any, negative: np.ndarray, beta: float) -> Any:
    """Products of exponentials as they are, and the logarithm of their sum last."""
    over, some = self.xp.constant(negative.astype(float), a), negative.any(axis=1, keepdims=True)
    counts = self.xp.exp(beta * a) * over
    mean = self.xp.sum(counts, axis=1, keepdims=True) / self.xp.constant(self.number(negative), a)
    noise = self.xp.sum(self.xp.exp(a) * counts, axis=1, keepdims=True) / self.xp.among(some, mean, 1.0)
    return self.xp.log(self.xp.among(some, noise, 1.0))


def hard_from_nothing(self: Plain, a: Any, positive: np.ndarray, negative: np.ndarray, beta: float, **_: Any) -> Any:
    """Log-sum-exps over nothing are -inf, and what is made of them is covered after it was made."""
    bare = self.xp.among(negative, a, -math.inf)
    up, down = (self.xp.module.logsumexp(scale * bare, dim=1) for scale in (1 + beta, beta))
    gap = up - down + self.xp.constant(np.log(self.number(negative)[:, 0]), a) - self.average(a, positive)
    return self.xp.among(positive.any(axis=1) & negative.any(axis=1), self.softplus(gap))


FAULTS: dict[str, Fault] = {
    # which pairs
    "self is a positive": Fault(
        "A row is a positive of itself: similarity 1, for nothing.",
        {"positive": lambda self, same, apart: same},
        ("sincere/ordinary", "supcon/out-ordinary", "supcon/in-ordinary", "decoupled/ordinary"),
    ),
    "self is noise": Fault(
        "A row stands in its own denominator.",
        {"negative": lambda self, same, apart: ~same | ~apart},
        ("sincere/ordinary", "supcon/out-ordinary", "decoupled/all-one-class"),
    ),
    "the denominator of SupCon": Fault(
        "The positives of a row repel each other: this is SupCon, by the name of SINCERE.",
        {
            "margin": lambda self, a, positive, negative, epsilon=0.0, **_: (
                Plain.outside(self, a, positive, negative) - epsilon
            )
        },
        ("sincere/ordinary", "sincere/all-one-class"),
    ),
    "the denominator of SINCERE": Fault(
        "The other positives are left out of the denominator: this is SINCERE, by the name of SupCon.",
        {"outside": lambda self, a, positive, negative, **_: Plain.margin(self, a, positive, negative)},
        ("supcon/out-ordinary", "nt_xent/three-views", "dystress/three-views"),
        spared_by="nt_xent/two-views",
    ),
    "the denominator of DCL": Fault(
        "The positive is left out of the denominator, which the decoupled loss alone does.",
        {"margin": lambda self, a, positive, negative, epsilon=0.0, **_: Plain.decoupled(self, a, positive, negative)},
        ("sincere/ordinary", "nt_xent/two-views", "clip/ordinary", "info_nce/no-queue"),
    ),
    "the sum on the other side": Fault(
        "The logarithm of the sum over positives, where the sum of logarithms is meant.",
        {
            "outside": lambda self, *rest, **options: Plain.within(self, *rest, **options),
            "within": lambda self, *rest, **options: Plain.outside(self, *rest, **options),
        },
        ("supcon/out-ordinary", "supcon/in-ordinary", "nt_xent/three-views"),
        spared_by="supcon/out-two-rows",
    ),
    "the sum inside, not its mean": Fault(
        "log |P| is left out: nothing but the value shows it.",
        {
            "within": lambda self, a, positive, negative, **_: (
                self.level(a, positive | negative) - self.level(a, positive)
            )[:, 0]
        },
        ("supcon/in-ordinary",),
    ),
    "self is who is most similar": Fault(
        "Rows are known by their similarity of 1, and a duplicate is taken for the row itself.",
        {"sides": without_duplicates},
        ("sincere/identical-rows", "supcon/out-identical-rows", "nt_xent/identical-rows"),
        spared_by="sincere/ordinary",
    ),
    "ids are places": Fault(
        "Row i of a memory is taken for anchor i, whoever it is.",
        asking(lambda question, n: {"ids": np.arange(n), "key_ids": np.arange(len(question.arrays.get("keys", ())))}),
        ("sincere/memory-shuffled", "sincere/other-modality", "supcon/out-other-modality", "decoupled/other-modality"),
        spared_by="sincere/memory-with-anchors",
    ),
    "ids are not read": Fault(
        "A memory's copy of the anchor is its positive; a repeated sample, too.",
        asking(
            lambda question, n: {"ids": np.arange(n), "key_ids": -1 - np.arange(len(question.arrays.get("keys", ())))}
        ),
        (
            "sincere/memory-with-anchors",
            "supcon/out-memory-with-anchors",
            "supcon/in-memory-with-anchors",
            "decoupled/memory-with-anchors",
            "sincere/repeated-sample",
        ),
        spared_by="sincere/memory-unnormalised",
    ),
    "negative labels are ignored": Fault(
        "A label below 0 means that a row has none, as in published code with queues.",
        {"labels": lambda self, labels: np.where(labels < 0, -1 - np.arange(len(labels)), labels)},
        ("sincere/odd-labels",),
        spared_by="sincere/ordinary",
    ),
    "labels are single precision": Fault(
        "Labels are cast to float32, as Keras does to targets: those beyond 2^24 merge.",
        {"labels": lambda self, labels: labels.astype(np.float32)},
        ("sincere/large-labels",),
        spared_by="sincere/odd-labels",
    ),
    "[n, views, d] view by view": Fault(
        "Rows are flattened sample by sample, and labels are repeated view by view.",
        asking(
            lambda question, n: {
                "embeddings": question.arrays["embeddings"].reshape(n, -1),
                "labels": np.tile(question.arguments["labels"], n // max(1, len(question.arguments["labels"]))),
            }
        ),
        ("sincere/sample-by-sample", "supcon/out-sample-by-sample"),
        spared_by="sincere/ordinary",
    ),
    "other rows' positives beside a queue": Fault(
        "With a queue the batch's other positives are negatives, too.",
        sides(
            "info_nce",
            lambda question, right: [
                replace(side, negative=~side.positive if "negatives" in question.arrays else side.negative)
                for side in right
            ],
        ),
        ("info_nce/queue",),
        spared_by="info_nce/no-queue",
    ),
    "copies of the positive are left out": Fault(
        "A negative that equals the row's positive is dropped: a false negative, it is thought.",
        {"sides": without_copies},
        ("info_nce/queue-holds-the-positive", "clip/identical-rows"),
        spared_by="info_nce/queue",
    ),
    "both directions of InfoNCE": Fault(
        "InfoNCE is taken in both directions, as CLIP is.",
        {
            "sides": lambda self, question: Plain.sides(
                self, replace(question, loss="clip") if question.row == "info_nce" else question
            )
        },
        ("info_nce/no-queue",),
    ),
    "one direction of CLIP": Fault(
        "Only a is compared with b.",
        sides("clip", lambda question, right: right[:1]),
        ("clip/ordinary", "clip/unnormalised"),
    ),
    "one direction of InfoLOOB": Fault(
        "Only a is compared with b.",
        sides("infoloob", lambda question, right: right[:1]),
        ("infoloob/ordinary", "infoloob/unnormalised"),
    ),
    "the positive in InfoLOOB's denominator": Fault(
        "The positive is not left out below: it is CLIP.",
        {
            "rows": lambda self, question, a, positive, negative: (
                self.margin(a, positive, negative)
                if question.loss == "infoloob"
                else Plain.rows(self, question, a, positive, negative)
            )
        },
        ("infoloob/ordinary", "infoloob/sum"),
        spared_by="clip/ordinary",
    ),
    "a number for minus infinity": Fault(
        "The positive is left out of the denominator by a logit of -1000: CLOOB's code.",
        {
            "decoupled": lambda self, a, positive, negative, **_: (
                self.level(self.xp.among(~positive, a, -1000.0), positive | negative)[:, 0] - self.average(a, positive)
            )
        },
        ("infoloob/opposite",),
        spared_by="infoloob/ordinary",
    ),
    "negatives across the views": Fault(
        "f-MICL's negatives are taken from the other view, as InfoNCE's are.",
        sides(
            "f_micl",
            lambda question, right: [
                replace(side, negative=~side.positive & (np.arange(side.positive.shape[1]) < len(side.positive)))
                for side in right
            ],
        ),
        ("f_micl/kl", "f_micl/jeffreys", "f_micl/two-pairs"),
    ),
    "one temperature for the queue": Fault(
        "DySTreSS's schedule is for the positive alone, and the queue is divided by the highest temperature.",
        {
            "logits": lambda self, question, s, x: (
                self.xp.concat(
                    [
                        Plain.logits(self, question, s[:, : len(s)], x),
                        s[:, len(s) :] / question.options["temperature_max"],
                    ],
                    axis=1,
                )
                if question.row == "dystress_info_nce queue"
                else Plain.logits(self, question, s, x)
            )
        },
        ("dystress_info_nce/queue",),
        spared_by="dystress_info_nce/no-queue",
    ),
    "DySTreSS in both directions": Fault(
        "Positives are compared with queries, too: the authors' code has one direction.",
        {
            "sides": lambda self, question: Plain.sides(
                self, replace(question, loss="clip") if question.row == "dystress_info_nce" else question
            )
        },
        ("dystress_info_nce/no-queue", "dystress_info_nce/shifted-full-derivative"),
        spared_by="dystress_info_nce/queue",
    ),
    "in-batch negatives beside f-MICL's queue": Fault(
        "The other rows of the second view are negatives, too.",
        {
            "sides": lambda self, question: (
                [replace(side, negative=~side.positive) for side in Plain.sides(self, question)]
                if question.row == "f_micl queue"
                else Plain.sides(self, question)
            )
        },
        ("f_micl/queue", "f_micl/queue-sum"),
        spared_by="f_micl/kl",
    ),
    "the queue over n - 1": Fault(
        "The sum over the queue is divided by the number of other rows, as without one.",
        {
            "repelled": lambda self, x, negative: (
                Plain.repelled(self, x, negative)
                * (1.0 if negative.shape[1] == 2 * len(negative) else negative.sum(axis=1).max() / (len(negative) - 1))
            )
        },
        ("f_micl/queue",),
        spared_by="f_micl/kl",
    ),
    "an empty queue is NaN": Fault(
        "The mean over the queue divides by its length.",
        {
            "number": lambda self, over: (
                np.where(over.any(axis=1, keepdims=True), Plain.number(self, over), math.nan)
                if over.shape[1] == len(over)
                else Plain.number(self, over)
            )
        },
        ("f_micl/empty-queue",),
        "value: not finite",
        spared_by="f_micl/queue",
    ),
    # functions of what the stages of a row are
    "a row without negatives does not count": Fault(
        "A softplus of a log-sum-exp over nothing is taken for nothing, and not for 0.",
        {
            "counting": lambda self, question, positive, negative: (
                Plain.counting(self, question, positive, negative)
                & (negative.any(axis=1) if question.loss == "hcl" else True)
            )
        },
        ("hcl/ignore",),
        spared_by="hcl/groups",
    ),
    "1 for no negatives": Fault(
        "A log-sum-exp over nothing is 0, so that a softplus of it is there.",
        of_hcl(
            lambda self, a, positive, negative, beta, **_: self.xp.among(
                positive.any(axis=1), self.softplus(self.hard(a, negative, beta)[:, 0] - self.average(a, positive))
            )
        ),
        ("hcl/one-pair", "hcl/ignore"),
        spared_by="hcl/groups",
    ),
    "0 times infinity": Fault(
        "The value without negatives is covered with 0, and its gradient is 0 times that of a log-sum-exp over nothing.",
        of_hcl(hard_from_nothing),
        ("hcl/ignore", "hcl/one-pair"),
        "gradient.view_0: not finite",
        spared_by="hcl/two-views",
    ),
    "plus for minus": Fault(
        "The log-sum-exp of the weights is added.",
        harder(lambda up, down, number: up + down - number),
        ("hcl/two-views", "hcl/half"),
        spared_by="hcl/beta-zero",
    ),
    "weights whose sum is 1": Fault(
        "The weights of negatives are a softmax: their mean is not 1, and the loss does not grow with the batch.",
        harder(lambda up, down, number: up - down),
        ("hcl/two-views", "hcl/beta-zero"),
    ),
    "weights that are held": Fault(
        "No gradient goes through the weights of negatives.",
        {
            "hard": lambda self, a, negative, beta: (
                self.level(a + self.xp.stop(beta * a), negative)
                - self.xp.stop(self.level(beta * a, negative))
                + self.xp.constant(np.log(self.number(negative)), a)
            )
        },
        ("hcl/two-views", "hcl/half"),
        "gradient.view_0: wrong",
        spared_by="hcl/beta-zero",
    ),
    "beta by the similarity": Fault(
        "Weights are e^(beta s), and not of the logit.",
        of_hcl(
            lambda self, a, positive, negative, beta, temperature, **_: Plain.reweighted(
                self, a, positive, negative, beta * temperature
            )
        ),
        ("hcl/two-views", "hcl/half"),
        spared_by="hcl/beta-zero",
    ),
    "a falsy beta": Fault(
        "`beta or 1.0` is 1 where 0 was asked.",
        {"hard": lambda self, a, negative, beta: Plain.hard(self, a, negative, beta or 1.0)},
        ("hcl/beta-zero",),
        spared_by="hcl/two-views",
    ),
    "a beta of 1": Fault(
        "The weights are e^l, and beta is not read.",
        {"hard": lambda self, a, negative, beta: Plain.hard(self, a, negative, 1.0)},
        ("hcl/half", "hcl/beta-zero", "hcl/unnormalised"),
        spared_by="hcl/two-views",
    ),
    "2n - 2 negatives": Fault(
        "Weights are divided by the number of negatives of a whole batch, whatever is left out.",
        {
            "hard": lambda self, a, negative, beta: (
                Plain.hard(self, a, negative, beta)
                + self.xp.constant(np.log(max(negative.shape[1] - 2, 1) / self.number(negative)), a)
            )
        },
        ("hcl/groups", "hcl/where"),
        spared_by="hcl/two-views",
    ),
    "the positive among the hard": Fault(
        "The positive has a weight, too, among those whose mean is 1.",
        of_hcl(
            lambda self, a, positive, negative, beta, **_: self.softplus(
                self.level((1 + beta) * a, negative)[:, 0]
                - self.level(beta * a, positive | negative)[:, 0]
                + self.xp.constant(np.log(self.number(positive | negative)[:, 0]), a)
                - self.average(a, positive)
            )
        ),
        ("hcl/two-views",),
    ),
    "a positive at a time": Fault(
        "The mean over positives is of their losses, and not of their logits.",
        of_hcl(
            lambda self, a, positive, negative, beta, **_: self.average(
                self.xp.among(
                    positive & negative.any(axis=1, keepdims=True), self.softplus(self.hard(a, negative, beta) - a)
                ),
                positive,
            )
        ),
        ("hcl/three-views",),
        spared_by="hcl/two-views",
    ),
    "a softmax's logarithm": Fault(
        "The quotient is made before its logarithm is taken: a small loss is lost, and a large one is infinite.",
        of_hcl(hard_odds),
        ("hcl/well-separated", "hcl/hot-logits", "hcl/cold"),
        spared_by="hcl/two-views",
    ),
    "exponentials as they are": Fault(
        "Weights and exponentials are multiplied before the maximum is taken out.",
        {"hard": hard_by_exponentials},
        ("hcl/hot-logits", "hcl/cold"),
        "value: not finite",
        spared_by="hcl/two-views",
    ),
    # reductions and scales
    "mean over all rows": Fault(
        "The mean is divided by N, and rows without positives are counted.",
        weighted(mean=lambda counts, positives: counts / max(1, len(counts))),
        (
            "sincere/one-singleton",
            "supcon/out-one-singleton",
            "supcon/in-one-singleton",
            "decoupled/one-singleton",
            "sincere/memory-of-other-classes",
        ),
        spared_by="sincere/ordinary",
    ),
    "mean over pairs": Fault(
        "The mean is over pairs of positives, as in optax and pytorch-metric-learning.",
        weighted(mean=lambda counts, positives: counts * positives / max(1, (counts * positives).sum())),
        (
            "sincere/unequal-classes",
            "supcon/out-unequal-classes",
            "supcon/in-unequal-classes",
            "decoupled/unequal-classes",
        ),
        spared_by="sincere/ordinary",
    ),
    "no weights for pairs": Fault(
        '"pairs" is the mean over rows.',
        weighted(pairs=lambda counts, positives: counts / max(1, counts.sum())),
        ("sincere/pairs", "supcon/out-pairs", "decoupled/pairs"),
    ),
    '"batch" is the mean': Fault(
        "The batch's sum is divided by the rows that count, not by all.",
        weighted(batch=lambda counts, positives: counts / max(1, counts.sum())),
        ("sincere/batch", "supcon/out-batch", "sincere/memory-batch"),
    ),
    '"sum" is the mean': Fault(
        "The sum is divided.",
        weighted(sum=lambda counts, positives: counts / max(1, counts.sum())),
        (
            "sincere/sum",
            "supcon/out-sum",
            "nt_xent/sum",
            "dystress/sum",
            "info_nce/queue-sum",
            "clip/sum",
            "f_micl/sum",
            "infoloob/sum",
        ),
    ),
    '"none" leaves NaN': Fault(
        "A row that does not count is NaN in the vector, and not 0.",
        weighted(none=lambda counts, positives: np.where(counts, 1.0, np.nan)),
        ("sincere/none", "supcon/out-none", "sincere/all-singletons-none"),
        "value: not finite",
        spared_by="clip/none",
    ),
    "rows image by image": Fault(
        'The rows of "none" come image by image, and not view by view.',
        {
            "order": lambda self, question, rows: (
                rows[transposed(question, rows.shape[0])]
                if question.loss in ("nt_xent", "dystress", "hcl", "clip", "infoloob") and question.reduction == "none"
                else rows
            )
        },
        ("nt_xent/none", "nt_xent/three-views-none", "dystress/none", "hcl/none", "clip/none", "infoloob/none"),
        spared_by="nt_xent/two-views",
    ),
    "one cotangent for all rows": Fault(
        "The first row's cotangent is every row's.",
        {"cotangent": lambda self, c: np.full_like(c, c.flat[0]) if c.size else c},
        (
            "sincere/sample-by-sample-none",
            "info_nce/queue-none",
            "siglip/none",
            "f_micl/none",
            "decoupled/none",
            "supcon/in-none",
        ),
        "gradient.",
        spared_by="sincere/ordinary",
    ),
    "over the positives twice": Fault(
        "The sum over positives is divided by |P| twice, as in google-research's code for one view.",
        {"number": lambda self, over: np.maximum(over.sum(axis=1, keepdims=True), 1) ** 2},
        ("sincere/ordinary", "f_micl/kl"),
        spared_by="nt_xent/two-views",
    ),
    "scaled by the temperature": Fault(
        "The loss is multiplied by the temperature over 0.07.",
        {"loss": lambda self, question, x: Plain.loss(self, question, x) * x.get("temperature", 1.0) / 0.07},
        ("sincere/unequal-classes", "supcon/out-unequal-classes", "clip/unnormalised"),
    ),
    "the sum of both directions": Fault(
        "The losses of the two directions are added, and not averaged.",
        {"loss": lambda self, question, x: 2 * Plain.loss(self, question, x)},
        ("nt_xent/two-views", "clip/ordinary"),
    ),
    "over n squared": Fault(
        "SigLIP's sum is divided by the number of pairs.",
        {"pairwise": lambda self, a, *rest, **_: Plain.pairwise(self, a, *rest) / max(1, a.shape[0])},
        ("siglip/ordinary", "siglip/two-pairs"),
        spared_by="siglip/one-pair",
    ),
    "over n, with itself": Fault(
        "f-MICL's negatives are divided by n, and there are n - 1.",
        {"number": lambda self, over: np.where(over.sum(axis=1, keepdims=True) > 1, len(over), 1)},
        ("f_micl/kl", "f_micl/reverse-kl", "f_micl/none"),
    ),
    # rows that do not count
    "NaN for a row without positives": Fault(
        "The sum over positives is divided by their number, which is 0: the official code of SINCERE.",
        {
            "counting": lambda self, question, positive, negative: np.ones(len(positive), bool),
            "number": lambda self, over: np.where(
                over.any(axis=1, keepdims=True), over.sum(axis=1, keepdims=True), np.nan
            ),
        },
        ("sincere/one-singleton", "sincere/two-rows-apart"),
        "value: not finite",
        spared_by="sincere/ordinary",
    ),
    "NaN where nothing counts": Fault(
        "The mean over the rows that count is 0 / 0: optax, where no row has a positive.",
        weighted(
            mean=lambda counts, positives: counts / counts.sum() if counts.any() else np.full(len(counts), np.nan)
        ),
        ("sincere/all-singletons", "supcon/out-all-singletons", "decoupled/all-singletons", "sincere/one-row"),
        "value: not finite",
        spared_by="sincere/one-singleton",
    ),
    "NaN for an empty batch": Fault(
        "The mean of no rows.",
        {
            "loss": lambda self, question, x: (
                Plain.loss(self, question, x)
                * (1.0 if all(len(rows) for rows in question.arrays.values()) else math.nan)
            )
        },
        (
            "sincere/empty-batch",
            "supcon/out-empty-batch",
            "decoupled/empty-batch",
            "info_nce/empty-batch",
            "nt_xent/empty-batch",
            "dystress/empty-batch",
            "clip/empty-batch",
            "siglip/empty-batch",
            "f_micl/empty-batch",
            "info_nce/empty-queue",
            "sincere/empty-memory",
        ),
        "value: not finite",
        spared_by="sincere/one-row",
    ),
    "nothing without negatives": Fault(
        "Where no row has a negative the loss is 0, as in pytorch-metric-learning: the positives still compete.",
        {
            "rows": lambda self, question, a, positive, negative: (
                Plain.rows(self, question, a, positive, negative) * float(negative.any())
            )
        },
        (
            "supcon/out-all-one-class",
            "supcon/in-all-one-class",
            "sincere/epsilon-all-one-class",
            "nt_xent/three-views-one-image",
            "siglip/one-pair",
            "f_micl/one-pair",
        ),
        spared_by="supcon/out-ordinary",
    ),
    "NaN without negatives": Fault(
        "The logarithm of an empty sum, less itself.",
        {
            "rows": lambda self, question, a, positive, negative: (
                Plain.rows(self, question, a, positive, negative)
                + self.xp.constant(np.where(negative.any(axis=1), 0.0, np.nan), a)
            ),
            "counting": lambda self, question, positive, negative: positive.any(axis=1),
        },
        (
            "sincere/all-one-class",
            "sincere/two-rows",
            "decoupled/all-one-class",
            "decoupled/two-rows",
            "info_nce/one-pair",
            "nt_xent/one-pair",
            "dystress/one-pair",
            "hcl/one-pair",
            "clip/one-pair",
        ),
        "value: not finite",
        spared_by="sincere/ordinary",
    ),
    "rows of loss zero are left out": Fault(
        "The mean is over rows whose loss is not 0, which leaves out rows that are merely good.",
        {"order": without_zeros},
        ("clip/cold", "nt_xent/cold"),
        spared_by="clip/ordinary",
    ),
    # gradients
    "gradient halved": Fault(
        "The gradient is halved, as POT's in JAX.",
        with_gradients(lambda x: replace(x, numbers=x.numbers / 2)),
        ("sincere/ordinary", "clip/ordinary"),
        "gradient.",
    ),
    "cotangent ignored": Fault(
        "What comes from above is not multiplied in, as POT's in TensorFlow.",
        {"cotangent": lambda self, c: np.ones_like(c)},
        ("sincere/ordinary", "clip/ordinary"),
        "gradient.",
    ),
    "keys without gradient": Fault(
        "Rows receive a gradient as anchors only.",
        {"key": lambda self, z: self.xp.stop(z)},
        ("sincere/ordinary", "nt_xent/two-views", "info_nce/queue", "sincere/memory-unnormalised", "siglip/ordinary"),
        "gradient.",
    ),
    "norms without gradient": Fault(
        "The gradient is that of the unit rows.",
        {"unit": lambda self, x: x / self.xp.stop(self.xp.sqrt(self.xp.sum(x * x, axis=1, keepdims=True)))},
        ("sincere/ordinary", "sincere/one-dimension-normalised"),
        "gradient.embeddings: wrong",
        spared_by="sincere/one-dimension",
    ),
    "temperature without gradient": Fault(
        "The temperature is taken for a number.",
        with_gradients(lambda x: None, "temperature"),
        ("sincere/ordinary", "clip/temperature-small"),
        "gradient.temperature: no gradient came",
    ),
    "temperature's gradient negated": Fault(
        "The derivative by 1 / temperature is given.",
        with_gradients(lambda x: replace(x, numbers=-x.numbers), "temperature"),
        (
            "sincere/temperature-half",
            "sincere/temperature-small",
            "sincere/temperature-unnormalised",
            "supcon/temperature-half",
            "supcon/in-temperature-small",
            "decoupled/temperature-half",
            "info_nce/temperature-half",
            "nt_xent/temperature-half",
            "clip/temperature-small",
        ),
        "gradient.temperature: wrong",
        dtype="float64",  # a cold temperature's gradient may be less than single precision can tell from 0
    ),
    "bias without gradient": Fault(
        "SigLIP's bias is a constant where it is 0.",
        {
            "logits": only(
                "siglip",
                lambda self, question, s, x: (
                    s / x["temperature"] + (x["bias"] if question.options["bias"] else self.xp.stop(x["bias"]))
                ),
                Plain.logits,
            )
        },
        ("siglip/no-bias",),
        "gradient.bias: no gradient came",
        spared_by="siglip/ordinary",
    ),
    "bias is divided": Fault(
        "SigLIP's bias is added to the similarity, before the division.",
        {"logits": only("siglip", lambda self, question, s, x: (s + x["bias"]) / x["temperature"], Plain.logits)},
        ("siglip/ordinary", "siglip/temperature-and-bias", "siglip/unnormalised"),
    ),
    "through the temperatures": Fault(
        "The gradient goes through DySTreSS's temperatures where they are to be constants.",
        {"held": lambda self, question, tau: tau},
        ("dystress/cosine", "dystress/shifted", "dystress/well-separated"),
        "gradient.",
        spared_by="dystress/cosine-full-derivative",
    ),
    "temperatures always constant": Fault(
        "DySTreSS's full derivative is asked for, and its temperatures are held constant.",
        {"held": lambda self, question, tau: self.xp.stop(tau)},
        ("dystress/cosine-full-derivative", "dystress/shifted-full-derivative", "dystress/full-derivative-settled"),
        "gradient.",
        spared_by="dystress/cosine",
    ),
    # precision
    "similarities are clamped": Fault(
        "Similarities are kept away from -1 and 1, as if for an arc cosine.",
        {"similarities": lambda self, q, k: self.xp.clip(Plain.similarities(self, q, k), -1 + 1e-4, 1 - 1e-4)},
        ("nt_xent/opposite-views", "clip/hot-logits"),
        spared_by="sincere/ordinary",
    ),
    "products of 10 bits": Fault(
        "Similarities are multiplied in TF32.",
        {"similarities": coarse},
        ("sincere/ordinary", "clip/cold", "nt_xent/cold", "siglip/cold"),
    ),
    "no shift": Fault(
        "exp is taken without a maximum: it overflows at 89.",
        {"peak": lambda self, a, over: self.xp.zeros_like(a[:, :1])},
        (
            "sincere/hot-logits",
            "supcon/out-hot-logits",
            "supcon/in-hot-logits",
            "decoupled/hot-logits",
            "nt_xent/hot-logits",
            "dystress/hot-logits",
            "clip/hot-logits",
            "info_nce/queue-hot-logits",
            "sincere/epsilon-hot-logits",
        ),
        "value: not finite",
        spared_by="sincere/ordinary",
    ),
    "the maximum includes the row itself": Fault(
        "The shift is the row's own similarity: all others underflow, and the logarithm is of 0.",
        {"peak": own_peak},
        ("sincere/opposite", "supcon/out-opposite", "sincere/cold"),
        spared_by="sincere/hot-logits",
    ),
    "one shift for all rows": Fault(
        "The shift is the largest logit of the whole matrix: rows without one near it underflow.",
        {"peak": lambda self, a, over: self.xp.zeros_like(a[:, :1]) + self.xp.amax(a)},
        ("sincere/opposite", "nt_xent/cold", "clip/cold"),
        spared_by="sincere/hot-logits",
    ),
    "the row itself is subtracted": Fault(
        "What does not belong to the sum is subtracted from it.",
        {"level": by_subtraction},
        ("sincere/opposite", "supcon/out-opposite"),
    ),
    "tiny in the logarithm": Fault(
        "log(x + tiny) ends at 87.3, with a gradient of 0: pytorch-metric-learning.",
        {"margin": floored_margin},
        ("sincere/cold", "nt_xent/cold", "clip/cold"),
        spared_by="sincere/ordinary",
    ),
    "a difference of large numbers": Fault(
        "lse - l_p, where the loss is small: 0, or negative, and the gradient is noise.",
        {"margin": differing_margin},
        (
            "sincere/well-separated-settled",
            "nt_xent/well-separated",
            "dystress/well-separated",
            "dystress/shifted-settled",
            "clip/settled",
            "info_nce/well-separated",
            "info_nce/queue-well-separated",
        ),
        spared_by="sincere/odd-labels",
    ),
    "softplus by its definition": Fault(
        "log(1 + exp(t)) overflows above 89, and loses everything below 1e-7.",
        {"softplus": lambda self, t: self.xp.log(1 + self.xp.exp(t))},
        ("siglip/cold", "siglip/well-separated", "sincere/well-separated-settled"),
        "value: not finite",
        spared_by="siglip/no-bias",
    ),
    "half precision throughout": Fault(
        "Similarities and sums stay in the type of the embeddings.",
        {"compute": lambda self, dtype: dtype},
        ("sincere/ordinary",),
        "value: float32 was expected, and bfloat16 came",
        dtype="bfloat16",
    ),
    "half precision inside": Fault(
        "Similarities are rounded to the type of the embeddings.",
        {
            "similarities": lambda self, q, k: self.xp.cast(
                self.xp.cast(Plain.similarities(self, q, k), "bfloat16"), self.xp.dtype(q)
            )
        },
        ("sincere/ordinary", "f_micl/kl"),
        dtype="bfloat16",
    ),
    "sums of squares overflow": Fault(
        "The norm is the root of a sum of squares, which is 0 or infinite beyond 1e-19 and 1e19.",
        {"unit": naive_unit},
        ("sincere/norms", "supcon/out-norms", "nt_xent/norms", "clip/norms", "f_micl/norms"),
        "value: not finite",
        spared_by="sincere/ordinary",
    ),
    "norms of at least 1e-12": Fault(
        "A zero row has a gradient of 1e12, and a small one is not normalised.",
        {"unit": clamped_unit},
        ("sincere/zero-row", "clip/zero-row", "siglip/zero-row"),
        "gradient.",
        spared_by="sincere/ordinary",
    ),
    "a zero row receives a gradient": Fault(
        "It stays zero when it is normalised, and so it must have none.",
        {"unit": living_unit},
        (
            "sincere/zero-row",
            "supcon/out-zero-row",
            "info_nce/zero-row",
            "nt_xent/zero-row",
            "dystress/zero-row",
            "clip/zero-row",
            "siglip/zero-row",
            "f_micl/zero-row",
        ),
        "gradient.",
        spared_by="sincere/zero-row-unnormalised",
    ),
    "always normalised": Fault(
        "normalize=False is not heard.",
        {"normalizes": lambda self, question: True},
        (
            "sincere/unnormalised",
            "supcon/out-unnormalised",
            "decoupled/unnormalised",
            "nt_xent/unnormalised",
            "dystress/unnormalised",
            "info_nce/queue-unnormalised",
            "clip/unnormalised",
            "siglip/unnormalised",
            "f_micl/unnormalised",
            "sincere/one-dimension",
            "sincere/zero-row-unnormalised",
        ),
        spared_by="sincere/ordinary",
    ),
    "never normalised": Fault(
        "Rows are taken as they come.",
        {"normalizes": lambda self, question: False},
        ("sincere/ordinary", "clip/ordinary"),
        spared_by="sincere/unnormalised",
    ),
    "the last rows are dropped": Fault(
        "Rows beyond the last whole tile are not computed.",
        {
            "order": lambda self, question, rows: self.xp.among(
                np.arange(rows.shape[0]) < max(1, rows.shape[0] // 5 * 5), rows
            )
        },
        ("sincere/ordinary", "clip/ordinary"),
    ),
    "double precision answers": Fault(
        "float32 goes in, and float64 comes out.",
        {"compute": lambda self, dtype: "float64"},
        ("sincere/ordinary",),
        "value: float32 was expected, and float64 came",
    ),
    # words of single losses
    "epsilon over the temperature": Fault(
        "The margin is taken in similarities, and not in logits.",
        {
            "rows": only(
                "sincere",
                lambda self, question, a, positive, negative: self.margin(
                    a, positive, negative, question.options["epsilon"] / question.options["temperature"]
                ),
                Plain.rows,
            )
        },
        ("sincere/epsilon", "sincere/epsilon-all-one-class"),
        spared_by="sincere/ordinary",
    ),
    "epsilon on both sides": Fault(
        "The margin lowers the positive above the fraction, too.",
        {
            "margin": lambda self, a, positive, negative, epsilon=0.0, **_: (
                Plain.margin(self, a, positive, negative, epsilon) + epsilon
            )
        },
        ("sincere/epsilon", "sincere/epsilon-all-one-class", "sincere/epsilon-hot-logits"),
        spared_by="sincere/ordinary",
    ),
    "the cosine stops at 1": Fault(
        "DySTreSS's schedule is cut off at similarities of -1 and 1.",
        {
            "schedule": lambda self, s, *rest, **options: Plain.schedule(
                self, self.xp.where(self.xp.abs(s) > 1, s / self.xp.abs(s), s), *rest, **options
            )
        },
        ("dystress/unnormalised",),
        spared_by="dystress/cosine",
    ),
    "the schedule turned over": Fault(
        "High temperatures where similarities are near 0, and low ones at the ends.",
        {
            "schedule": lambda self, s, temperature_min, temperature_max, **options: Plain.schedule(
                self, s, temperature_max, temperature_min, **options
            )
        },
        ("dystress/cosine", "dystress/shifted", "dystress/hot-logits"),
        spared_by="dystress/equal-temperatures",
    ),
    "one schedule": Fault(
        "The shifted schedule is the cosine one.",
        {"schedule": lambda self, s, schedule="", **options: Plain.schedule(self, s, schedule="cosine", **options)},
        ("dystress/shifted", "dystress/shifted-full-derivative"),
        spared_by="dystress/cosine",
    ),
    "a distance of at least 0": Fault(
        "2 - 2 s is taken for a squared distance, and cut off below 0, where rows are not normalised.",
        {"distance": lambda self, s: self.xp.where(s > 1, s - s, 2 - 2 * s)},
        ("f_micl/unnormalised",),
        spared_by="f_micl/kl",
    ),
    "the printed conjugate of Vincze-Le Cam": Fault(
        "The published table of conjugates contradicts f and f'.",
        {"conjugate": printed_vincze_le_cam},
        ("f_micl/vincze-le-cam",),
        spared_by="f_micl/kl",
    ),
    "the slope of another divergence": Fault(
        "Constants of f' are left out: the gradient cannot tell.",
        {
            "slope": lambda self, name, a, order: (
                Plain.slope(self, name, a, order)
                - {"kl": 1, "js": math.log(2), "pearson": -2, "hellinger": 1, "neyman": 1, "jeffreys": 1}.get(name, 0)
            )
        },
        ("f_micl/kl", "f_micl/js", "f_micl/pearson", "f_micl/hellinger", "f_micl/neyman", "f_micl/jeffreys"),
        spared_by="f_micl/tsallis",
    ),
    "the sign of an order below one": Fault(
        "Tsallis' f' is divided by |order - 1|.",
        {
            "slope": lambda self, name, a, order: (
                Plain.slope(self, name, a, order) * (-1 if name == "tsallis" and order < 1 else 1)
            )
        },
        ("f_micl/tsallis-half",),
        spared_by="f_micl/tsallis",
    ),
    "a bandwidth that is not read": Fault(
        "The Gaussian has a width of its own.",
        {
            "logits": lambda self, question, s, x: (
                -self.distance(s) if question.loss == "f_micl" else Plain.logits(self, question, s, x)
            )
        },
        ("f_micl/kl-narrow", "f_micl/hellinger-narrow", "f_micl/unnormalised"),
        spared_by="f_micl/kl",
    ),
    "a schedule over its range": Fault(
        "DySTreSS's temperature is found by a share of the width of its range, which may be 0.",
        {
            "schedule": lambda self, s, temperature_min, temperature_max, **options: (
                temperature_min
                + (Plain.schedule(self, s, temperature_min, temperature_max, **options) - temperature_min)
                / (temperature_max - temperature_min)
                * (temperature_max - temperature_min)
            )
        },
        ("dystress/equal-temperatures",),
        "value: not finite",
        spared_by="dystress/cosine",
    ),
    "features are squeezed": Fault(
        "A single feature is squeezed away.",
        {
            "similarities": lambda self, q, k: Plain.similarities(self, self.xp.squeeze(q), self.xp.squeeze(k)),
        },
        ("sincere/one-dimension",),
        "all: IndexError",
        spared_by="sincere/ordinary",
    ),
    # who is compared with whom, said pair by pair
    "a matrix that is not turned": Fault(
        "From b to a the matrix is read as from a to b.",
        {"marked": unturned},
        ("clip/ignore", "clip/ignore-none", "infoloob/ignore"),
        spared_by="info_nce/ignore",
    ),
    "a matrix by columns": Fault(
        "Entry (i, j) is taken for (j, i): nothing but an asymmetric matrix shows it.",
        square(lambda matrix: matrix.T),
        (
            "sincere/ignore",
            "supcon/out-ignore",
            "decoupled/ignore",
            "info_nce/ignore",
            "siglip/ignore",
            "nt_xent/ignore",
        ),
        spared_by="sincere/groups",
    ),
    "a matrix made symmetric": Fault(
        "A pair that one row leaves out is left out of both.",
        square(lambda matrix: matrix | matrix.T),
        ("sincere/ignore", "supcon/in-ignore", "f_micl/ignore", "nt_xent/three-views-ignore", "sincere/views-ignore"),
        spared_by="sincere/memory-ignore",
    ),
    "a matrix by sample, view by view": Fault(
        "A matrix by sample is repeated as a whole, and the rows of [n, views, d] come sample by sample.",
        {
            "samples": lambda self, question, names: np.concatenate(
                [
                    np.tile(np.arange(x.shape[0]), x.shape[1])
                    if name == "embeddings" and x.ndim == 3
                    else Plain.samples(self, question, (name,))
                    for name, x in ((name, question.arrays[name]) for name in names)
                ]
            )
        },
        ("sincere/views-ignore", "sincere/views-groups", "sincere/views-positive-pairs", "sincere/views-overlap"),
        spared_by="sincere/ignore",
    ),
    "a matrix by sample, image by image": Fault(
        "A matrix by sample has its entries repeated, and the rows of several views come view by view.",
        {
            "samples": lambda self, question, names: (
                np.repeat(np.arange(len(question.arrays["view_0"])), len(names))
                if question.loss in ("nt_xent", "dystress")
                else Plain.samples(self, question, names)
            )
        },
        (
            "nt_xent/ignore",
            "nt_xent/groups",
            "nt_xent/three-views-ignore",
            "nt_xent/three-views-groups",
            "dystress/groups",
        ),
        spared_by="nt_xent/two-views",
    ),
    "a group drops the own pair": Fault(
        "A row's own positive is of its group, and is left out with it.",
        {"grouped": lambda self, question, side, own: Plain.grouped(self, question, side, np.zeros_like(own))},
        (
            *("clip/groups", "infoloob/groups", "siglip/groups", "info_nce/groups", "f_micl/groups"),
            *("nt_xent/groups", "nt_xent/three-views-groups", "dystress/groups", "dystress_info_nce/groups"),
        ),
        spared_by="clip/ignore",
    ),
    "the views of a sample are of one group": Fault(
        "With labels all pairs of a group are left out: those of one sample, too.",
        {
            "grouped": lambda self, question, side, own: Plain.grouped(
                self, question, side, np.zeros_like(own) if "embeddings" in question.arrays else own
            )
        },
        ("sincere/views-groups",),
        spared_by="sincere/groups",
    ),
    "positives of a group stay": Fault(
        "A group is taken for a reason to leave out negatives alone.",
        {"grouped": lambda self, question, side, own: Plain.grouped(self, question, side, own) & ~side.positive},
        ("sincere/groups", "supcon/out-groups", "sincere/memory-groups"),
        spared_by="clip/groups",
    ),
    "a queue of the batch's groups": Fault(
        "Row k of a queue, or of a memory, is taken to be of the group of row k of the batch.",
        of_the_batch("groups"),
        ("info_nce/queue-groups", "f_micl/queue-groups", "sincere/memory-groups"),
        spared_by="info_nce/groups",
    ),
    "the own pair is never left out": Fault(
        "A matrix is for negatives, it is thought: a row keeps its own positive.",
        {
            "marked": lambda self, question, side, matrix: (
                Plain.marked(self, question, side, matrix)
                & ~(side.positive if "embeddings" not in question.arrays else np.zeros_like(side.positive))
            )
        },
        (
            "clip/ignore",
            "siglip/ignore",
            "info_nce/ignore",
            "f_micl/ignore",
            "nt_xent/ignore",
            "nt_xent/three-views-ignore",
        ),
        spared_by="info_nce/queue-ignore",
    ),
    "a row without its own pair counts": Fault(
        "It adds nothing to the sum, and is still in the number that the mean divides by.",
        {
            "counting": lambda self, question, positive, negative: (
                Plain.counting(self, question, positive, negative)
                | (question.loss in ("clip", "info_nce") and "ignore" in question.arguments)
            )
        },
        ("clip/ignore", "info_nce/ignore", "info_nce/groups-and-ignore"),
        spared_by="clip/groups",
    ),
    "a row without negatives counts": Fault(
        "InfoLOOB's row without negatives is the positive's logit, negated.",
        {"counting": lambda self, question, positive, negative: positive.any(axis=1)},
        ("infoloob/ignore",),
        spared_by="infoloob/groups",
    ),
    "logits of 0 for what is left out": Fault(
        "Logits are multiplied by a mask: exp(0) stays in the denominator.",
        {"rows": zeros_for_ignored},
        ("clip/groups", "info_nce/groups", "clip/ignore", "info_nce/queue-groups"),
        spared_by="clip/ordinary",
    ),
    "log 2 for what is left out": Fault(
        "SigLIP's sum has the softplus of 0 for each pair that is left out.",
        {"pairwise": every_softplus},
        ("siglip/groups", "siglip/ignore"),
        spared_by="siglip/ordinary",
    ),
    "what is left out is a negative": Fault(
        "A positive that is left out goes to the other rows, in place of none.",
        {
            "remaining": lambda self, question, side, kept: replace(
                side, positive=side.positive & kept, negative=(side.negative & kept) | (side.positive & ~kept)
            )
        },
        (
            "sincere/ignore",
            "supcon/out-ignore",
            "supcon/in-ignore",
            "decoupled/ignore",
            "sincere/groups",
            "supcon/out-weights-ignore",
        ),
        spared_by="info_nce/queue-ignore",
    ),
    "the mean over what is left out": Fault(
        "f-MICL's sum is divided by n - 1, pairs that are left out included.",
        counted_with(
            lambda negative: (len(negative) - 1) if negative.shape[1] == 2 * len(negative) else negative.sum(axis=1)
        ),
        ("f_micl/groups", "f_micl/ignore", "f_micl/guide"),
        spared_by="f_micl/kl",
    ),
    "the mean over the whole queue": Fault(
        "f-MICL's sum is divided by the length of the queue, what is left out of it included.",
        counted_with(
            lambda negative: (
                negative.sum(axis=1)
                if negative.shape[1] == 2 * len(negative)
                else 3
                if negative.shape[1] > 2 * len(negative)
                else negative.shape[1] - len(negative)
            )
        ),
        ("f_micl/queue-groups", "f_micl/ragged-negatives"),
        spared_by="f_micl/queue",
    ),
    "the last reason alone": Fault(
        "Of several reasons to leave a pair out only one is heard.",
        {"left_out": last_reason},
        ("info_nce/groups-and-ignore",),
        spared_by="info_nce/ignore",
    ),
    "padding among negatives": Fault(
        "Where a query has fewer negatives, what fills their places is in its denominator.",
        as_if_inside(2),
        (
            "info_nce/ragged-negatives",
            "info_nce/ragged-none",
            "dystress_info_nce/ragged-negatives",
            "f_micl/ragged-negatives",
        ),
        spared_by="info_nce/own-negatives",
    ),
    "negatives of all queries": Fault(
        "[n, k, d] is reshaped to a queue that every query sees.",
        {"queue": lambda self, question, name: np.ones_like(Plain.queue(self, question, name))},
        ("info_nce/own-negatives", "info_nce/ragged-negatives"),
        spared_by="info_nce/queue",
    ),
    "a queue that is always full": Fault(
        "Rows of a queue, or of a memory, that were never filled are negatives.",
        as_if_inside(1),
        ("info_nce/queue-where", "sincere/memory-where"),
        spared_by="clip/where",
    ),
    # rows outside
    "rows outside are keys": Fault(
        "A row that takes no part is no anchor, and still in the denominators of others.",
        {"related": outside_as_keys},
        ("sincere/where", "clip/where", "supcon/out-where-none", "nt_xent/where"),
        spared_by="sincere/one-singleton",
    ),
    "batch counts rows outside": Fault(
        "The sum is divided by the number of rows, those outside included.",
        {"taking_part": lambda self, inside: np.ones_like(inside)},
        ("sincere/where-batch", "clip/where-batch"),
        spared_by="sincere/where",
    ),
    "NaN from rows outside": Fault(
        "Padding of zeros is divided by its norm before it is left out: a gradient of 0 times NaN.",
        {"unit": naive_unit},
        ("sincere/where", "clip/where"),
        "gradient.",
        spared_by="sincere/where-batch",
    ),
    # positives by pair, by weight and by class
    "positives turned": Fault(
        "Entry (i, j) of the positives is taken for (j, i).",
        heavier(lambda matrix: matrix.T),
        (
            *(
                "sincere/positive-pairs",
                "supcon/out-positive-pairs",
                "supcon/in-positive-pairs",
                "decoupled/positive-pairs",
            ),
            *(
                "supcon/out-weights",
                "supcon/in-weights",
                "sincere/views-positive-pairs",
                "sincere/positive-pairs-pairs",
            ),
        ),
        spared_by="supcon/out-jaccard",
    ),
    "positives of either direction": Fault(
        "A positive of i is made one of each other.",
        heavier(lambda matrix: np.maximum(matrix, matrix.T)),
        ("sincere/positive-pairs", "supcon/out-weights", "supcon/out-teacher"),
        spared_by="sincere/memory-positive-pairs",
    ),
    "the views of a sample are positives": Fault(
        "Whatever the matrix says of entry (i, i), two views of one sample attract each other.",
        {
            "same": lambda self, question, keys: (
                Plain.same(self, question, keys)
                | (
                    (self.samples(question, ("embeddings",))[:, None] == self.samples(question, keys))
                    & ("positive_pairs" in question.arguments and keys == ("embeddings",))
                )
            )
        },
        ("sincere/views-positive-pairs",),
        spared_by="sincere/positive-pairs",
    ),
    "weights in the denominator": Fault(
        "The weight of a positive stands below the fraction, too.",
        {"outside": weighted_denominator},
        ("supcon/out-weights", "supcon/out-teacher", "supcon/out-jaccard", "supcon/out-memory-weights"),
        spared_by="supcon/out-positive-pairs",
        dtype="float64",
    ),
    "|P| for W": Fault(
        "The weighted sum is divided by the number of positives.",
        {"mass": lambda self, weight: np.maximum((weight > 0).sum(axis=1, keepdims=True), 1)},
        (
            "supcon/out-weights",
            "supcon/in-weights",
            "supcon/out-jaccard",
            "supcon/in-jaccard",
            "supcon/out-memory-jaccard",
        ),
        spared_by="supcon/out-overlap",
    ),
    "log |P| for log W": Fault(
        "With the sum inside the constant is that of weights of 1: nothing but the value shows it.",
        {"within": log_of_the_number},
        ("supcon/in-weights", "supcon/in-weights-pairs"),
        spared_by="supcon/out-weights",
    ),
    "pairs by their number": Fault(
        'With "pairs" a row is weighted by |P|, and not by W.',
        {"numbers": lambda self, question, positive: positive.sum(axis=1)},
        ("supcon/out-weights-pairs", "supcon/in-weights-pairs", "supcon/out-jaccard-pairs"),
        spared_by="supcon/out-weights",
    ),
    "weights of at most 1": Fault(
        "Weights are taken for probabilities, and cut off at 1.",
        heavier(lambda matrix: np.minimum(matrix, 1.0)),
        ("supcon/out-weights", "supcon/out-teacher"),
        spared_by="supcon/out-jaccard",
    ),
    "a weight of 0 is no pair": Fault(
        "A pair without weight is left out of the denominator, where it is a negative.",
        {
            "remaining": lambda self, question, side, kept: Plain.remaining(
                self, question, side, kept & (side.positive | ("positive_weights" not in question.arguments))
            )
        },
        ("supcon/out-weights", "supcon/in-weights", "supcon/out-memory-weights", "supcon/out-weights-ignore"),
        spared_by="supcon/out-teacher",
    ),
    "a row of weights of 0 counts": Fault(
        "A row without a positive is its denominator's logarithm.",
        {
            "counting": lambda self, question, positive, negative: (
                Plain.counting(self, question, positive, negative) | ("positive_weights" in question.arguments)
            )
        },
        ("supcon/out-weights", "supcon/out-weights-none"),
        spared_by="supcon/out-teacher",
    ),
    "W with the row itself": Fault(
        "The diagonal of a matrix of weights is in the sum that divides.",
        {"shares": with_itself},
        ("supcon/out-teacher", "supcon/out-weights"),
        spared_by="supcon/out-memory-weights",
    ),
    "two empty sets are alike": Fault(
        "Jaccard's quotient of two empty sets is taken for 1: rows without a class attract each other.",
        {
            "jaccard": jaccard_of_nothing,
            **by_classes(
                lambda self, question, keys, right: (
                    right | (neither_has_any(self, question, keys) & (question.options["overlap"] == "jaccard"))
                )
            ),
        },
        ("supcon/out-jaccard", "supcon/in-jaccard", "supcon/out-memory-jaccard"),
        spared_by="supcon/out-overlap",
    ),
    "NaN for two empty sets": Fault(
        "0 / 0 is multiplied by a mask: the weight of a row without a class is NaN.",
        {
            "jaccard": jaccard_by_division,
            "shares": lambda self, question, positive: (
                positive * self.heavy(question, ("keys",) if "keys" in question.arrays else ("embeddings",))
                if question.options.get("overlap") == "jaccard"
                else Plain.shares(self, question, positive)
            ),
        },
        ("supcon/out-jaccard-pairs",),
        "value: not finite",
        spared_by="supcon/out-jaccard",
    ),
    "classes in common, over those of both": Fault(
        "What is in common is counted twice below.",
        {
            "jaccard": lambda self, question, keys, common: (
                common
                / np.maximum(common + 1 / np.maximum(Plain.jaccard(self, question, keys, common), 1e-9) * common, 1)
            )
        },
        ("supcon/out-jaccard", "supcon/in-jaccard", "supcon/out-memory-jaccard"),
        spared_by="supcon/out-overlap",
    ),
    "classes in common are weights": Fault(
        "The product of several labels a row is taken as it comes, as in google-research's code.",
        {
            "shares": lambda self, question, positive: (
                np.where(positive, self.common(question, ("embeddings",)), 0.0)
                if question.options.get("overlap") == "any" and "keys" not in question.arrays
                else Plain.shares(self, question, positive)
            )
        },
        ("supcon/out-overlap", "supcon/in-overlap"),
        spared_by="supcon/out-positive-pairs",
    ),
    "all classes alike": Fault(
        "Positives have the same classes, all of them.",
        by_classes(equal_classes),
        ("sincere/overlap", "decoupled/overlap", "sincere/memory-overlap"),
        spared_by="sincere/ordinary",
    ),
    "nothing in common is in common": Fault(
        "Rows without a class are positives of each other.",
        by_classes(lambda self, question, keys, right: right | neither_has_any(self, question, keys)),
        ("sincere/overlap", "sincere/memory-overlap", "sincere/views-overlap"),
        spared_by="sincere/positive-pairs",
    ),
    "keys of the batch's classes": Fault(
        "Key k is taken to have the classes of row k.",
        of_the_batch("classes"),
        ("sincere/memory-overlap", "supcon/out-memory-jaccard"),
        spared_by="sincere/overlap",
    ),
    # a guide
    "the loss is its own guide": Fault(
        "False negatives are found by the rows that are trained, and not by the other model's.",
        {"found": own_embeddings},
        ("info_nce/guide", "clip/guide", "info_nce/queue-guide"),
        spared_by="info_nce/no-queue",
    ),
    "the own pair of the column": Fault(
        "A negative is compared with the pair that it belongs to, and not with the row's.",
        guided(own_of_the_column),
        ("info_nce/guide", "clip/guide", "nt_xent/guide"),
        spared_by="info_nce/queue-guide",
    ),
    "a guide drops the own pair": Fault(
        "The own pair is as similar as itself, and is left out.",
        guided(lambda found, own, margin: found >= own_of_the_row(found, own) - margin - 1e-5),
        ("info_nce/guide", "f_micl/guide", "nt_xent/guide", "info_nce/guide-ties"),
        spared_by="info_nce/groups",
    ),
    "a margin on the other side": Fault(
        "A negative must be more similar than the own pair, by the margin.",
        guided(lambda found, own, margin: (found >= own_of_the_row(found, own) + margin - 1e-5) & ~own),
        ("info_nce/guide", "clip/guide", "info_nce/queue-guide"),
        spared_by="info_nce/guide-ties",
    ),
    "a guide of any length": Fault(
        "The guide's rows are multiplied as they come.",
        {"guide": lambda self, rows: rows},
        ("info_nce/guide", "f_micl/guide"),
        spared_by="info_nce/groups",
    ),
    "ties stay": Fault(
        "Only what is more similar than the own pair is left out: copies of it are not.",
        guided(lambda found, own, margin: (found > own_of_the_row(found, own) - margin + 1e-5) & ~own),
        ("info_nce/guide-ties",),
        spared_by="info_nce/guide",
    ),
}


@cache
def suite() -> dict[str, Question]:
    return {question.id: question for question in questions.of_suite()}


PROMISES = {
    **{
        f"{loss}/two-pairs": "The smallest batch with negatives"
        for loss in ("nt_xent", "hcl", "clip", "siglip", "f_micl")
    },
    **{f"f_micl/{name}-well-separated": "Views that agree: distances near 0" for name in ("kl", "pearson")},
    "info_nce/temperature-half": "The temperature's gradient over positives and queue together",
    "siglip/temperature-and-bias": "Temperature and bias have different gradients",
}
"""What a case guards, in its own words, where no fault above is caught by it and not by the ordinary case of its loss."""

NAN_OUTSIDE = ("sincere/where-nan", "clip/where-nan")
COARSE = {"half precision throughout", "double precision answers"}  # caught by every case


def failures(implementation: Plain, question: Question, dtype: str) -> list[str]:
    """What is said against an implementation."""
    results = judge.ask(implementation, question, dtype, "dense")
    return [f"{result.quantity}: {result.reason}" for result in results if result.status != "pass"]


COMPILING = ("sincere", "dystress", "f_micl kl")
"""What is asked where every shape and every operation takes a compilation: one loss of each kind."""


@pytest.mark.parametrize("framework", ["numpy", "torch", "jax", "tensorflow"], indirect=True)
def test_a_right_implementation_passes(framework: str) -> None:
    right, asked = Plain(framework), tuple(suite().values())
    dtypes: tuple[str, ...] = ("float32", "float64")
    if framework in ("jax", "tensorflow"):
        ordinary = questions.ordinary(asked)
        asked, dtypes = tuple(ordinary[row] for row in COMPILING), ("float32",)
    results = [
        result
        for dtype in dtypes
        for question in asked
        if dtype in question.dtypes
        for result in judge.ask(right, question, dtype, "dense")
    ]
    assert not [result for result in results if result.status != "pass"]
    assert 0 < max(result.ratio for result in results) < K


@pytest.mark.framework("torch")
@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_killed(name: str) -> None:
    fault = FAULTS[name]
    for case in fault.killed_by:
        found = failures(fault.implementation, suite()[case], fault.dtype)
        assert found, f"{case} does not see it: {fault.because}"
        assert case != fault.killed_by[0] or any(line.startswith(fault.symptom) for line in found), found
    if fault.spared_by:
        assert not failures(fault.implementation, suite()[fault.spared_by], fault.dtype)


@pytest.mark.framework("torch")
def test_every_case_is_there_for_a_reason() -> None:
    """An ordinary case kills some fault; any other one that the ordinary case spares, or it guards what it promises."""
    ordinary = questions.ordinary(suite().values())
    faulty = {name: (fault.implementation, fault.dtype) for name, fault in FAULTS.items() if name not in COARSE}
    spared = {
        row: {name for name in faulty if not failures(faulty[name][0], question, faulty[name][1])}
        for row, question in ordinary.items()
    }
    idle = []
    for case, question in suite().items():
        usual = ordinary[question.row]
        names = set(faulty) - spared[question.row] if question is usual else spared[question.row]
        named = sorted(names, key=lambda name: case not in FAULTS[name].killed_by)
        if not any(failures(faulty[name][0], question, faulty[name][1]) for name in named):
            idle.append(case)
    assert sorted(idle) == sorted(PROMISES)
    assert all(promise in suite()[case].says for case, promise in PROMISES.items())


@pytest.mark.framework("numpy")
def test_nan_is_asked_where_rows_take_no_part() -> None:
    """Files hold no NaN: it is put where padding is, and nothing else of the case changes."""
    padded = [question for question in questions.integrity(suite().values()) if question.id in NAN_OUTSIDE]
    assert len(padded) == len(NAN_OUTSIDE)
    multiplied = {"rows": lambda self, question, a, *masks: Plain.rows(self, question, a, *masks) + 0.0 * a.sum(axis=1)}
    wrong = type("Faulty", (Plain,), {"unit": naive_unit, **multiplied})("numpy")  # a mask of 0 times NaN
    for question in padded:
        usual = suite()[question.id.removesuffix("-nan")]
        assert question.value is usual.value
        assert (
            np.isnan(next(iter(question.arrays.values()))).any(axis=1).tolist()
            == (~question.arguments["where"]).tolist()
        )
        assert not failures(Plain("numpy"), question, "float32")
        assert failures(wrong, question, "float32") == ["value: not finite"]


def test_there_are_faults_enough() -> None:
    assert len(FAULTS) >= 25
    assert {case.partition("/")[0] for fault in FAULTS.values() for case in fault.killed_by} == set(questions.LOSSES)
