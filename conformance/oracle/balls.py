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
Place = tuple[str, int]
QUEUES = ("negatives", "own_negatives")
Weighed = list[tuple["Ball", Any]]


class Ball:
    """A number on a tape: its ball, and by how much it changes with the numbers that it was made of."""

    __slots__ = ("at", "by", "slope", "tape")

    def __init__(self, at: Any, tape: list[Ball], by: Sequence[tuple[Ball, Any]] = ()) -> None:
        self.at, self.tape, self.by, self.slope = at, tape, by, arb(0)
        tape.append(self)

    def _with(self, other: Ball | Any) -> Ball:
        return other if isinstance(other, Ball) else Ball(arb(other), self.tape)

    def __add__(self, other: Ball | Any) -> Ball:
        y = self._with(other)
        return Ball(self.at + y.at, self.tape, ((self, 1), (y, 1)))

    def __sub__(self, other: Ball | Any) -> Ball:
        y = self._with(other)
        return Ball(self.at - y.at, self.tape, ((self, 1), (y, -1)))

    def __mul__(self, other: Ball | Any) -> Ball:
        y = self._with(other)
        return Ball(self.at * y.at, self.tape, ((self, y.at), (y, self.at)))

    def __truediv__(self, other: Ball | Any) -> Ball:
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


class _Relations:
    """Which pairs a case leaves out, besides what labels, ids and places say; a row is its array and its place in it."""

    def __init__(self, case: Case) -> None:
        self.given, self.options = case["arguments"], case["options"]

    def sample(self, row: Place) -> int:
        """Of which sample a row is: views of one, and negatives of one query, follow each other."""
        name, place = row
        shape = self.given[name]["shape"]
        return place // shape[1] if len(shape) == 3 else place

    def of(self, word: str, row: Place) -> Any:
        """What is given of a row by this word, of keys and queues apart; None where nothing is."""
        beside = "key_" if row[0] in ("keys", *QUEUES) else ""
        return self.given[beside + word][self.sample(row)] if beside + word in self.given else None

    def inside(self, row: Place) -> bool:
        """Whether a row takes part."""
        said = self.of("where", row)
        if isinstance(said, list):  # one word for each of the negatives of a query
            return bool(said[row[1] % len(said)])
        return said is not False

    def kept(self, one: Place, other: Place, own: bool) -> bool:
        """Whether two rows are compared; ``own`` says that they are a row and its own positive."""
        if not (self.inside(one) and self.inside(other)):
            return False
        i, j = self.sample(one), self.sample(other)
        if not own and "groups" in self.given and self.of("groups", one) == self.of("groups", other):
            return False
        beside_queue = other[0] not in QUEUES and any(name in self.given for name in QUEUES)
        if "ignore" in self.given and not beside_queue:
            matrix = self.given["ignore"]
            if matrix[j][i] if (one[0], other[0]) == ("b", "a") else matrix[i][j]:
                return False
        return own or "margin" not in self.options or self.unlike(one, other)

    def unlike(self, one: Place, other: Place) -> bool:
        """Whether the guide finds two rows less similar than the first and its partner, by the margin and a tie of 1e-5."""
        first, second = (name for name in self.given if f"guide_{name}" in self.given and name != "negatives")
        partner = (second if one[0] == first else first, one[1])
        least = self.cosine(one, partner) - _exactly(self.options["margin"]) - arb("1e-5")
        found = self.cosine(one, other)
        if not (found < least or found > least):
            raise ValueError("what a guide finds stands where it decides")
        return bool(found < least)

    def cosine(self, one: Place, other: Place) -> Any:
        """What the guide finds of two rows."""
        x, y = (self.guide(row) for row in (one, other))
        norms = [sum((e * e for e in z), arb(0)).sqrt() for z in (x, y)]
        return sum((e * f for e, f in zip(x, y, strict=True)), arb(0)) / (norms[0] * norms[1])

    def guide(self, row: Place) -> list[Any]:
        """The guide's row."""
        entry = self.given[f"guide_{row[0]}"]
        d = entry["shape"][1]
        return [_exactly(x) for x in entry["hex"][row[1] * d : (row[1] + 1) * d]]

    def weight(self, one: Place, other: Place) -> Any:
        """How much a pair weighs as a positive, 0 if it is none, in place of labels; None where labels say it."""
        i, j = self.sample(one), self.sample(other)
        if "positive_pairs" in self.given:
            return arb(int(self.given["positive_pairs"][i][j]))
        if "positive_weights" in self.given:
            entry = self.given["positive_weights"]
            return _exactly(entry["hex"][i * entry["shape"][1] + j])
        if "classes" not in self.given:
            return None
        mine, theirs = ({k for k, there in enumerate(self.of("classes", row)) if there} for row in (one, other))
        common = mine & theirs
        if self.options["overlap"] == "any":
            return arb(int(bool(common)))
        return arb(len(common)) / len(mine | theirs) if common else arb(0)


class _Evaluation:
    """One case on a tape."""

    def __init__(self, case: Case) -> None:
        self.case, self.tape = case, list[Ball]()
        self.words = case["options"]
        self.pairs = _Relations(case)
        numbers = {name: x for name, x in self.words.items() if isinstance(x, str) and "0x" in x}
        self.options = {name: Ball(_exactly(x), self.tape) for name, x in numbers.items()}
        self.raw: dict[str, Table] = {}
        for name, entry in case["arguments"].items():
            if isinstance(entry, dict) and name != "positive_weights" and not name.startswith("guide_"):
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

    # row losses: each with the weight of its positives, their number: 0 where the row does not count

    def losses(self) -> list[tuple[Ball, Any]]:
        loss, x = self.case["loss"], self.rows
        if loss in ("sincere", "supcon", "decoupled"):
            return self.labelled()
        if loss in ("nt_xent", "dystress", "hcl"):
            return self.views()
        ways = [("a", "b"), ("b", "a")] if loss in ("clip", "infoloob") else [tuple(x)[:2]]
        form = {"siglip": self.siglip, "f_micl": self.f_micl, "infoloob": self.left_out}.get(loss, self.chosen)
        found = []
        for one, other in ways:
            for i in range(len(x[one])):
                own = self.pairs.kept((one, i), (other, i), own=True)
                made = form((one, i), (other, i), self.negatives(one, other, i)) if own else None
                found.append((Ball(arb(0), self.tape), 0) if made is None else (made, 1))
        return found

    def negatives(self, one: str, other: str, i: int) -> list[Place]:
        """Of a row with one positive: the queue, its own or that of all rows, or the other rows of a side."""
        queue = [name for name in QUEUES if name in self.rows]
        name = queue[0] if queue else one if self.case["loss"] == "f_micl" else other
        places = [(name, j) for j in range(len(self.rows[name])) if queue or j != i]
        if name == "own_negatives":
            places = [place for place in places if self.pairs.sample(place) == i]
        return [place for place in places if self.pairs.kept((one, i), place, own=False)]

    def at(self, place: Place) -> list[Ball]:
        """A row."""
        return self.rows[place[0]][place[1]]

    def logit(self, a: Sequence[Ball], b: Sequence[Ball]) -> Ball:
        return _dot(a, b) / self.options["temperature"]

    def chosen(self, anchor: Place, own: Place, negatives: list[Place]) -> Ball:
        """-log of the positive's softmax; DySTreSS has a temperature for each pair."""
        s = [_dot(self.at(anchor), self.at(place)) for place in (own, *negatives)]
        e = [(x / self.tau(x)).exp() for x in s]
        return -(e[0] / _sum(e, self.tape)).log()

    def left_out(self, anchor: Place, own: Place, negatives: list[Place]) -> Ball | None:
        """The log odds of an anchor's own key against the others, negated; None where there are none."""
        if not negatives:
            return None
        a = [self.logit(self.at(anchor), self.at(place)) for place in (own, *negatives)]
        return _sum([x.exp() for x in a[1:]], self.tape).log() - a[0]

    def labelled(self) -> list[tuple[Ball, Any]]:
        given, anchors = self.case["arguments"], self.rows["embeddings"]
        keys = "keys" if "keys" in given else "embeddings"
        nobody = [("row", i) for i in range(len(anchors))]
        ids = given.get("ids", nobody)
        key_ids = given.get("key_ids", [("key", j) for j in range(len(self.rows[keys]))]) if keys == "keys" else ids
        found = []
        for i, anchor in enumerate(anchors):
            positive: Weighed = []
            negative: list[Ball] = []
            for j, key in enumerate(self.rows[keys]):
                one, other = ("embeddings", i), (keys, j)
                views = keys == "embeddings" and self.pairs.sample(one) == self.pairs.sample(other)
                if key_ids[j] == ids[i] or not self.pairs.kept(one, other, own=views):
                    continue
                e, weight = self.logit(anchor, key).exp(), self.pairs.weight(one, other)
                if weight is None:
                    weight = arb(int(self.pairs.of("labels", one) == self.pairs.of("labels", other)))
                if weight != 0:
                    positive.append((e, weight))
                else:
                    negative.append(e)
            found.append(self.labelled_row(positive, negative))
        return found

    def labelled_row(self, positive: Weighed, negative: list[Ball]) -> tuple[Ball, Any]:
        loss, total = self.case["loss"], sum((weight for _, weight in positive), arb(0))
        if not positive or (loss == "decoupled" and not negative):
            return Ball(arb(0), self.tape), 0
        if loss == "supcon":
            return self.supcon(positive, negative), total
        terms = []
        for p, _ in positive:
            below = negative if loss == "decoupled" else [p / self.options["epsilon"].exp(), *negative]
            terms.append(-(p / _sum(below, self.tape)).log())
        return _sum(terms, self.tape) / len(positive), total

    def supcon(self, positive: Weighed, negative: list[Ball]) -> Ball:
        whole, total = _sum([*(p for p, _ in positive), *negative], self.tape), sum((w for _, w in positive), arb(0))
        if self.words.get("summation") == "in":
            return -(_sum([p * weight for p, weight in positive], self.tape) / whole / total).log()
        return _sum([-(p / whole).log() * weight for p, weight in positive], self.tape) / total

    def views(self) -> list[tuple[Ball, Any]]:
        places = [(name, i) for name, rows in self.rows.items() for i in range(len(rows))]
        found = []
        for one in places:
            positive: Weighed = []
            negative: list[Ball] = []
            for other in places:
                own = one[1] == other[1]
                if other != one and self.pairs.kept(one, other, own):
                    s = _dot(self.at(one), self.at(other))
                    e = (s / self.tau(s)).exp()
                    if own:
                        positive.append((e, arb(1)))
                    else:
                        negative.append(e)
            form = self.reweighted if self.case["loss"] == "hcl" else self.supcon
            found.append((form(positive, negative) if positive else Ball(arb(0), self.tape), len(positive)))
        return found

    def reweighted(self, positive: Weighed, negative: list[Ball]) -> Ball:
        """-log of the positive's softmax, where each negative counts e^beta times, m negatives as m."""
        p = (_sum([e.log() for e, _ in positive], self.tape) / len(positive)).exp()
        if not negative:
            return (p / p).log()
        counts = [(n.log() * self.options["beta"]).exp() for n in negative]
        noise = _sum([n * w for n, w in zip(negative, counts, strict=True)], self.tape) * len(negative)
        return -(p / (p + noise / _sum(counts, self.tape))).log()

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

    def siglip(self, anchor: Place, own: Place, negatives: list[Place]) -> Ball:
        a = [self.logit(self.at(anchor), self.at(place)) + self.options["bias"] for place in (own, *negatives)]
        return _sum([(x.exp() + 1).log() for x in (-a[0], *a[1:])], self.tape)

    def f_micl(self, anchor: Place, own: Place, negatives: list[Place]) -> Ball:
        far = [self.conjugate(self.slope(self.at(anchor), self.at(place))) for place in negatives]
        near = self.slope(self.at(anchor), self.at(own))
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

    def reduced(self, losses: list[tuple[Ball, Any]]) -> list[Ball]:
        reduction, counting = self.case["reduction"], [(loss, p) for loss, p in losses if p != 0]
        if reduction == "none":
            return [loss for loss, _ in losses]
        weigh = reduction == "pairs"
        weights = sum((p for _, p in counting), arb(0))
        number: Any = {"mean": len(counting), "batch": self.taking_part(), "sum": 1}.get(reduction, weights)
        total = _sum([loss * p if weigh else loss for loss, p in counting], self.tape)
        return [total / number if number != 0 else total]

    def taking_part(self) -> int:
        """How many rows with a loss take part."""
        loss, names = self.case["loss"], tuple(self.rows)
        both = loss in ("nt_xent", "dystress", "hcl", "clip", "infoloob")
        places = [(name, i) for name in (names if both else names[:1]) for i in range(len(self.rows[name]))]
        return sum(self.pairs.inside(place) for place in places)


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
