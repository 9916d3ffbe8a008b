"""The suite's digits, proved: every loss once more in ball arithmetic, and its gradient by differentiating the balls.

A ball is a number with a bound of its error, which every operation carries along (Arb, in python-flint): what comes out
encloses what is true. A stored number is proved if the whole ball rounds to it. This shares nothing with `loops.py` and
`differences.py`: it reads the files, has formulas of its own (conjugates as they are printed, logarithms of quotients as
they stand in the papers) and takes gradients by the chain rule, backwards through a tape.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flint import arb, ctx

__all__ = ["Ball", "prove", "prove_all"]

PRECISIONS = (320, 640, 1280, 2560, 5120)  # bits; the next where the balls are too wide to tell
NOTHING = arb("1e-30")  # of the scale: what the suite stores as 0

Case = dict[str, Any]
Table = list[list["Ball"]]


class Ball:
    """A number on a tape: its ball, and by how much it changes with the numbers that it was made of."""

    __slots__ = ("at", "by", "slope", "tape")

    def __init__(self, at: Any, tape: list[Ball], by: Sequence[tuple[Ball, Any]] = ()) -> None:
        self.at, self.tape, self.by, self.slope = at, tape, by, arb(0)
        tape.append(self)

    def _with(self, other: Ball | float) -> Ball:
        return other if isinstance(other, Ball) else Ball(arb(other), self.tape)

    def __add__(self, other: Ball | float) -> Ball:
        y = self._with(other)
        return Ball(self.at + y.at, self.tape, ((self, 1), (y, 1)))

    def __sub__(self, other: Ball | float) -> Ball:
        y = self._with(other)
        return Ball(self.at - y.at, self.tape, ((self, 1), (y, -1)))

    def __mul__(self, other: Ball | float) -> Ball:
        y = self._with(other)
        return Ball(self.at * y.at, self.tape, ((self, y.at), (y, self.at)))

    def __truediv__(self, other: Ball | float) -> Ball:
        y = self._with(other)
        q = self.at / y.at
        return Ball(q, self.tape, ((self, 1 / y.at), (y, -q / y.at)))

    def __neg__(self) -> Ball:
        return self * -1

    def exp(self) -> Ball:
        """The exponential."""
        e = self.at.exp()
        return Ball(e, self.tape, ((self, e),))

    def log(self) -> Ball:
        """The logarithm."""
        return Ball(self.at.log(), self.tape, ((self, 1 / self.at),))

    def root(self) -> Ball:
        """The square root."""
        r = self.at.sqrt()
        return Ball(r, self.tape, ((self, 1 / (2 * r)),))

    def cos(self) -> Ball:
        """The cosine."""
        return Ball(self.at.cos(), self.tape, ((self, -self.at.sin()),))

    def lambert(self) -> Ball:
        """Lambert's w, for which w exp(w) is the number."""
        w = self.at.lambertw()
        return Ball(w, self.tape, ((self, w / (self.at * (1 + w))),))

    def held(self) -> Ball:
        """The same number, as a constant."""
        return Ball(self.at, self.tape)


def _sum(terms: Sequence[Ball], tape: list[Ball]) -> Ball:
    return Ball(sum((x.at for x in terms), arb(0)), tape, [(x, 1) for x in terms])


def _dot(a: Sequence[Ball], b: Sequence[Ball]) -> Ball:
    at = sum((x.at * y.at for x, y in zip(a, b, strict=True)), arb(0))
    pairs = zip(a, b, strict=True)
    return Ball(at, a[0].tape, [each for x, y in pairs for each in ((x, y.at), (y, x.at))])


def _exactly(text: str) -> Any:
    return arb(float.fromhex(text))


def _unit(row: list[Ball]) -> list[Ball]:
    if all(x.at == 0 for x in row):
        return [x.held() for x in row]
    norm = _dot(row, row).root()
    return [x / norm for x in row]


class _Evaluation:
    """One case on a tape."""

    def __init__(self, case: Case) -> None:
        self.case, self.tape = case, list[Ball]()
        self.words = case["options"]
        numbers = {name: x for name, x in self.words.items() if isinstance(x, str) and "0x" in x}
        self.options = {name: Ball(_exactly(x), self.tape) for name, x in numbers.items()}
        self.raw: dict[str, Table] = {}
        for name, entry in case["arguments"].items():
            if isinstance(entry, dict):
                d, flat = entry["shape"][-1], [Ball(_exactly(x), self.tape) for x in entry["hex"]]
                self.raw[name] = [flat[i : i + d] for i in range(0, len(flat), d)]
        unit = case["normalize"]
        self.rows = {name: [_unit(row) if unit else row for row in rows] for name, rows in self.raw.items()}
        losses = self.losses()
        self.value = self.reduced(losses)
        cotangent = case["cotangent"] if isinstance(case["cotangent"], list) else [case["cotangent"]]
        for x, c in zip(self.value, cotangent, strict=True):
            x.slope = x.slope + _exactly(c)
        for node in reversed(self.tape):
            for before, slope in node.by:
                before.slope = before.slope + slope * node.slope

    # row losses: each with its number of positives, 0 where the row does not count

    def losses(self) -> list[tuple[Ball, int]]:
        loss, x = self.case["loss"], self.rows
        if loss in ("sincere", "supcon", "decoupled"):
            return self.labelled()
        if loss in ("nt_xent", "dystress"):
            return self.views()
        if loss == "f_micl":
            return [(self.f_micl(i), 1) for i in range(len(x["view_a"]))]
        if loss == "dystress_info_nce":
            return [(self.tempered(i), 1) for i in range(len(x["queries"]))]
        if loss == "siglip":
            return [(self.siglip(i), 1) for i in range(len(x["a"]))]
        if loss == "clip":
            both = [(x["a"], x["b"]), (x["b"], x["a"])]
            return [(self.chosen(q[i], k, i), 1) for q, k in both for i in range(len(q))]
        if loss == "infoloob":
            return self.left_out(x["a"], x["b"]) + self.left_out(x["b"], x["a"])
        q, k = x["queries"], x["positives"]
        if "negatives" in x:
            return [(self.chosen(q[i], [k[i], *x["negatives"]], 0), 1) for i in range(len(q))]
        return [(self.chosen(q[i], k, i), 1) for i in range(len(q))]

    def logit(self, a: Sequence[Ball], b: Sequence[Ball]) -> Ball:
        return _dot(a, b) / self.options["temperature"]

    def chosen(self, anchor: Sequence[Ball], keys: Table, i: int) -> Ball:
        """-log of the i-th key's softmax."""
        e = [self.logit(anchor, key).exp() for key in keys]
        return -(e[i] / _sum(e, self.tape)).log()

    def left_out(self, anchors: Table, keys: Table) -> list[tuple[Ball, int]]:
        """The log odds of each anchor's own key against the others, negated."""
        if len(keys) < 2:
            return [(Ball(arb(0), self.tape), 0) for _ in anchors]
        found = []
        for i, anchor in enumerate(anchors):
            below = _sum([self.logit(anchor, key).exp() for j, key in enumerate(keys) if j != i], self.tape)
            found.append((below.log() - self.logit(anchor, keys[i]), 1))
        return found

    def labelled(self) -> list[tuple[Ball, int]]:
        given, anchors = self.case["arguments"], self.rows["embeddings"]
        views = given["embeddings"]["shape"][1] if len(given["embeddings"]["shape"]) == 3 else 1
        labels = [label for label in given["labels"] for _ in range(views)]
        ids = given.get("ids", list(range(len(labels))))
        keys, key_labels, key_ids = anchors, labels, ids
        if "keys" in given:
            keys, key_labels = self.rows["keys"], given["key_labels"]
            key_ids = given.get("key_ids", [("key", j) for j in range(len(keys))])
        found = []
        for i, anchor in enumerate(anchors):
            others = [j for j in range(len(keys)) if key_ids[j] != ids[i]]
            e = {j: self.logit(anchor, keys[j]).exp() for j in others}
            positive = [e[j] for j in others if key_labels[j] == labels[i]]
            negative = [e[j] for j in others if key_labels[j] != labels[i]]
            found.append(self.labelled_row(positive, negative))
        return found

    def labelled_row(self, positive: list[Ball], negative: list[Ball]) -> tuple[Ball, int]:
        loss, count = self.case["loss"], len(positive)
        if not positive or (loss == "decoupled" and not negative):
            return Ball(arb(0), self.tape), 0
        if loss == "supcon":
            return self.supcon(positive, [*positive, *negative]), count
        terms = []
        for p in positive:
            below = negative if loss == "decoupled" else [p / self.options["epsilon"].exp(), *negative]
            terms.append(-(p / _sum(below, self.tape)).log())
        return _sum(terms, self.tape) / count, count

    def supcon(self, positive: list[Ball], others: list[Ball]) -> Ball:
        whole, count = _sum(others, self.tape), len(positive)
        if self.words.get("summation") == "in":
            return -(_sum(positive, self.tape) / whole / count).log()
        return _sum([-(p / whole).log() for p in positive], self.tape) / count

    def views(self) -> list[tuple[Ball, int]]:
        n, rows = len(self.rows["view_0"]), [row for view in self.rows.values() for row in view]
        found = []
        for i, anchor in enumerate(rows):
            others = [j for j in range(len(rows)) if j != i]
            s = {j: _dot(anchor, rows[j]) for j in others}
            e = {j: (s[j] / self.tau(s[j])).exp() for j in others}
            positive = [e[j] for j in others if j % n == i % n]
            found.append((self.supcon(positive, list(e.values())), len(positive)))
        return found

    def tau(self, s: Ball) -> Ball:
        options = self.options
        if "temperature" in options:
            return options["temperature"]
        low, high = options["temperature_min"], options["temperature_max"]
        turn = Ball(arb.pi(), self.tape)
        if self.words["schedule"] == "cosine":
            angle = turn * (s + 1)
        elif s.at > -options["offset"].at:
            return high
        elif s.at <= -options["offset"].at:
            angle = turn * (s + options["offset"]) / options["scale"]
        else:
            raise ValueError("a similarity stands where the schedule bends")
        tau = low + (high - low) * (angle.cos() + 1) / 2
        return tau.held() if self.words["detach"] else tau

    def tempered(self, i: int) -> Ball:
        """-log of the positive's softmax, a temperature for each pair."""
        anchor, keys = self.rows["queries"][i], self.rows["positives"]
        rest = [key for j, key in enumerate(keys) if j != i]
        s = [_dot(anchor, key) for key in [keys[i], *self.rows.get("negatives", rest)]]
        e = [(x / self.tau(x)).exp() for x in s]
        return -(e[0] / _sum(e, self.tape)).log()

    def siglip(self, i: int) -> Ball:
        terms = []
        for j, key in enumerate(self.rows["b"]):
            a = self.logit(self.rows["a"][i], key) + self.options["bias"]
            terms.append(((-a if i == j else a).exp() + 1).log())
        return _sum(terms, self.tape)

    def f_micl(self, i: int) -> Ball:
        a, b = self.rows["view_a"], self.rows["view_b"]
        apart = self.rows.get("negatives", [row for j, row in enumerate(a) if j != i])
        far = [self.conjugate(self.slope(a[i], row)) for row in apart]
        near = self.slope(a[i], b[i])
        return self.options["alpha"] * _sum(far, self.tape) / len(far) - near if far else -near

    def slope(self, x: Sequence[Ball], y: Sequence[Ball]) -> Ball:
        """f'(u) at the Gaussian u of two rows, whose squared distance is 2 - 2 s."""
        name = self.words["divergence"]
        log_u = (_dot(x, y) - 1) * self.options["inverse_bandwidth"] * 2
        u = log_u.exp()
        if name == "kl":
            return log_u + 1
        if name == "js":
            return (u * 2 / (u + 1)).log()
        if name == "pearson":
            return (u - 1) * 2
        if name == "hellinger":
            return -((log_u / -2).exp() - 1)
        if name == "tsallis":
            order = self.options["order"]
            return order / (order - 1) * (log_u * (order - 1)).exp()
        if name == "vincze_le_cam":
            return (u - 1) * (u + 3) / ((u + 1) * (u + 1))
        if name == "reverse_kl":
            return -(-log_u).exp()
        if name == "neyman":
            return -((log_u * -2).exp() - 1)
        return log_u + 1 - (-log_u).exp()  # Jeffreys

    def conjugate(self, t: Ball) -> Ball:
        """f*(t), as it is printed; Jeffreys' by Lambert's function."""
        name = self.words["divergence"]
        if name == "kl":
            return (t - 1).exp()
        if name == "js":
            return -(-(t.exp() - 2)).log()
        if name == "pearson":
            return t * t / 4 + t
        if name == "hellinger":
            return t / -(t - 1)
        if name == "tsallis":
            order = self.options["order"]
            return ((t * (order - 1) / order).log() * order / (order - 1)).exp()
        if name == "vincze_le_cam":
            return -(t + (-(t - 1)).root() * 4 - 4)
        if name == "reverse_kl":
            return -((-t).log() + 1)
        if name == "neyman":
            return -((-(t - 1)).root() * 2 - 2)
        w = (-(t - 1)).exp().lambert()
        return w + (w * 0 + 1) / w + t - 2

    def reduced(self, losses: list[tuple[Ball, int]]) -> list[Ball]:
        reduction, counting = self.case["reduction"], [(loss, p) for loss, p in losses if p]
        if reduction == "none":
            return [loss for loss, _ in losses]
        weigh = reduction == "pairs"
        number = {"mean": len(counting), "batch": len(losses), "sum": 1}.get(reduction, sum(p for _, p in counting))
        total = _sum([loss * p if weigh else loss for loss, p in counting], self.tape)
        return [total / max(number, 1)]


def _stored(entry: str | list[str]) -> list[float]:
    return [float.fromhex(x) for x in ([entry] if isinstance(entry, str) else entry)]


def _rounds_to(ball: Any, number: float, scale: float) -> bool | None:
    """Whether all of a ball rounds to a number; None if only some of it does."""
    if number == 0:
        size = abs(ball)
        return True if size <= NOTHING * scale or (not scale and size < NOTHING**2) else None if 0 in ball else False
    low, high = ((arb(number) + arb(math.nextafter(number, way))) / 2 for way in (-math.inf, math.inf))
    if low <= ball <= high:
        return True
    return False if ball < low or ball > high else None


def _numbers(case: Case, made: _Evaluation) -> list[tuple[str, Any, float, float]]:
    """What every stored number is, its ball, the number, and its scale."""
    places = [("value", [x.at for x in made.value], case["value"])]
    for name, entry in case["gradient"].items():
        balls = [x.slope for row in made.raw[name] for x in row] if name in made.raw else [made.options[name].slope]
        places.append((f"gradient of {name}", balls, entry))
    return [
        (where, *each)
        for where, balls, entry in places
        for each in zip(balls, _stored(entry["hex"]), _stored(entry["scale"]), strict=True)
    ]


def prove(case: Case) -> int:
    """Prove the numbers of a case as it stands in its file; returns how many. ValueError says which is not what is true."""
    before = ctx.prec
    try:
        for bits in PRECISIONS:
            ctx.prec = bits
            numbers = _numbers(case, _Evaluation(case))
            told = [(where, ball, number, _rounds_to(ball, number, scale)) for where, ball, number, scale in numbers]
            for where, ball, number, right in told:
                if right is False:
                    raise ValueError(f"{case['id']}: {where}: {number!r} is stored, and {ball.str(20)} is true")
            if all(right for *_, right in told):
                _prove_decimals(case, numbers)
                return len(told)
    finally:
        ctx.prec = before
    raise ValueError(f"{case['id']}: {bits} bits are not enough to tell")


def _prove_decimals(case: Case, numbers: list[tuple[str, Any, float, float]]) -> None:
    texts = case["value"]["decimal"]
    for text, (_, ball, number, _) in zip([texts] if isinstance(texts, str) else texts, numbers, strict=False):
        if number and not abs(ball / arb(text) - 1) < 1e-39:
            raise ValueError(f"{case['id']}: value: {text} is stored, and {ball.str(50)} is true")


def prove_all(directory: Path) -> int:
    """Prove every number of the suite's files; returns how many."""
    documents = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(directory.glob("*/*.json"))]
    return sum(prove(case) for document in documents for case in document["cases"])
