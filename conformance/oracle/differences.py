"""The value of a problem, and its gradient by central differences of that value: nothing is derived by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mpmath import mp  # type: ignore[import-untyped,unused-ignore]

from sincere_spec.conformance.oracle import loops
from sincere_spec.conformance.oracle.loops import Comparison, Row
from sincere_spec.conformance.oracle.pairs import Side, sides
from sincere_spec.conformance.oracle.problem import Problem

__all__ = ["directional", "gradient", "value"]

Number = Any
Table = list[list[Number]]

_STEP = 22  # digits; a difference is then right to 44 digits less those of the third derivative, 1e9 at the coldest


def _exactly(name: str, problem: Problem) -> Table:
    return [[mp.mpf(entry) for entry in row] for row in problem.arrays()[name].tolist()]


def _point(problem: Problem) -> dict[str, Any]:
    """Everything that may be moved: the arrays, the temperature, the bias."""
    point: dict[str, Any] = {name: _exactly(name, problem) for name in problem.arrays()}
    for name in ("temperature", "bias"):
        if name in problem.options:
            point[name] = mp.mpf(problem.number(name))
    return point


def _unit(rows: Table) -> Table:
    norms = [mp.sqrt(mp.fdot(row, row)) for row in rows]
    return [[entry / norm for entry in row] if norm else row for row, norm in zip(rows, norms, strict=True)]


def _towers(problem: Problem, point: dict[str, Any]) -> dict[str, Table]:
    tables = {name: point[name] for name in problem.arrays()}
    return {name: _unit(rows) for name, rows in tables.items()} if problem.normalize else tables


def _compared(side: Side, towers: dict[str, Table]) -> Comparison:
    anchors, keys = ([row for name in names for row in towers[name]] for names in (side.anchors, side.keys))
    weights = [[None if w is None else mp.mpf(w.numerator) / w.denominator for w in row] for row in side.weights]
    return Comparison(anchors, keys, weights, side.inside)


def _temperatures(problem: Problem, pairs: Comparison) -> loops.Logits:
    """DySTreSS's temperature of each similarity."""
    low, high = mp.mpf(problem.number("temperature_min")), mp.mpf(problem.number("temperature_max"))
    if problem.options.get("schedule", "cosine") == "cosine":

        def at(s: Number) -> Number:
            return loops.cosine_schedule(s, low, high)
    else:
        offset, scale = mp.mpf(problem.number("offset")), mp.mpf(problem.number("scale"))

        def at(s: Number) -> Number:
            return loops.shifted_schedule(s, low, high, offset, scale)

    return [[None if s is None else at(s) for s in row] for row in pairs.similarities()]


def _rows(problem: Problem, compared: Sequence[Side], point: dict[str, Any], start: dict[str, Any]) -> list[Row]:
    """The row losses at ``point``; what a loss holds constant is taken from ``start``, where no difference has moved it."""
    towers, held = (_towers(problem, x) for x in (point, start if problem.options.get("detach") else point))
    rows = []
    for side in compared:
        rows += _rows_of(problem, _compared(side, towers), _compared(side, held), point)
    return rows


def _rows_of(problem: Problem, pairs: Comparison, held: Comparison, point: dict[str, Any]) -> list[Row]:
    loss = problem.loss
    if loss == "f_micl":
        alpha, bandwidth = mp.mpf(problem.number("alpha")), mp.mpf(problem.number("inverse_bandwidth"))
        order = mp.mpf(float(problem.options.get("order", 2.0)))
        return loops.f_micl(pairs, str(problem.options["divergence"]), alpha, bandwidth, order)
    if loss in ("dystress", "dystress_info_nce"):
        a = loops.tempered(pairs, _temperatures(problem, held))
        return loops.supcon_out(pairs, a) if loss == "dystress" else loops.info_nce(pairs, a)
    a = loops.logits(pairs, point["temperature"])
    if loss == "sincere":
        return loops.sincere(pairs, a, mp.mpf(problem.number("epsilon")))
    if loss == "hcl":
        return loops.hcl(pairs, a, mp.mpf(problem.number("beta")))
    if loss == "siglip":
        return loops.siglip(pairs, a, point["bias"])
    if loss == "supcon":
        return (loops.supcon_out if problem.options["summation"] == "out" else loops.supcon_in)(pairs, a)
    form = {
        "decoupled": loops.decoupled,
        "nt_xent": loops.supcon_out,  # of more than two views the form outside, with the image as label
        "info_nce": loops.info_nce,
        "clip": loops.info_nce,
        "infoloob": loops.infoloob,
    }
    if loss not in form:
        raise ValueError(f"loss: no formula for {loss!r}")
    return form[loss](pairs, a)


def _reduced(rows: Sequence[Row], reduction: str) -> list[Number]:
    counting = [row for row in rows if row.counts]
    if reduction == "none":
        return [row.loss for row in rows]
    if reduction == "pairs":
        total = mp.fsum([row.positives * row.loss for row in counting])
        number = mp.fsum([row.positives for row in counting])
    else:
        total = mp.fsum([row.loss for row in counting])
        number = {"mean": len(counting), "batch": sum(row.inside for row in rows), "sum": 1}[reduction]
    return [total / number if number else mp.mpf(0)]


def value(problem: Problem) -> list[Number]:
    """The value to some 80 digits: one number, or one for each row where the reduction is ``"none"``."""
    with mp.workdps(loops.DIGITS):
        start = _point(problem)
        return _reduced(_rows(problem, sides(problem), start, start), problem.reduction)


def _weighted(problem: Problem, start: dict[str, Any]) -> Callable[[dict[str, Any]], Number]:
    cotangent = [mp.mpf(c) for c in problem.cotangent.reshape(-1).tolist()]
    compared = sides(problem)

    def at(point: dict[str, Any]) -> Number:
        return mp.fdot(cotangent, _reduced(_rows(problem, compared, point, start), problem.reduction))

    return at


def _moved(table: Table, i: int, k: int, by: Number) -> Table:
    rows = list(table)
    rows[i] = [entry + by if place == k else entry for place, entry in enumerate(table[i])]
    return rows


def gradient(problem: Problem, digits: int = loops.DIGITS) -> dict[str, Table]:
    """The gradient of cotangent times value, for every array (by rows), the temperature and the bias (as 1 by 1).

    With ``digits`` digits, entries down to 10 to the minus ``digits`` - 22 of the value are seen at all.
    """
    with mp.workdps(digits):
        start = _point(problem)
        at = _weighted(problem, start)
        answer: dict[str, Table] = {}
        for name, here in start.items():
            if not isinstance(here, list):
                step = (abs(here) or 1) * mp.mpf(10) ** -_STEP
                rise = at({**start, name: here + step}) - at({**start, name: here - step})
                answer[name] = [[rise / (2 * step)]]
                continue
            answer[name] = []
            for i, row in enumerate(here):
                size = max(abs(entry) for entry in row)
                if problem.normalize and not size:  # a zero row stays zero, and its gradient is zero by definition
                    answer[name].append([mp.mpf(0)] * len(row))
                    continue
                step = (size or 1) * mp.mpf(10) ** -_STEP
                slopes = []
                for k in range(len(row)):
                    rise = at({**start, name: _moved(here, i, k, step)}) - at(
                        {**start, name: _moved(here, i, k, -step)}
                    )
                    slopes.append(rise / (2 * step))
                answer[name].append(slopes)
        return answer


def directional(problem: Problem, direction: dict[str, Table], digits: int) -> Number:
    """The derivative along ``direction``, by one central difference whose step is 10 to the minus ``digits``."""
    with mp.workdps(loops.DIGITS):
        start = _point(problem)
        at, step = _weighted(problem, start), mp.mpf(10) ** -digits

        def along(by: Number) -> dict[str, Any]:
            point: dict[str, Any] = {}
            for name, here in start.items():
                if isinstance(here, list):
                    pairs = zip(here, direction[name], strict=True)
                    point[name] = [[x + by * d for x, d in zip(row, way, strict=True)] for row, way in pairs]
                else:
                    point[name] = here + by * direction[name][0][0]
            return point

        return (at(along(step)) - at(along(-step))) / (2 * step)
