"""The value of a problem, and its gradient by central differences of that value: nothing is derived by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mpmath import mp  # type: ignore[import-untyped,unused-ignore]

from sincere_spec.conformance.oracle import loops
from sincere_spec.conformance.oracle.loops import Comparison, Row
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


def _labelled(problem: Problem, towers: dict[str, Table]) -> Comparison:
    anchors, labels = towers["embeddings"], problem.integers("labels") or []
    ids: Sequence[object] | None = problem.integers("ids")
    if "keys" not in towers:
        ids = list(range(len(anchors))) if ids is None else ids
        return Comparison(anchors, labels, ids, anchors, labels, ids)
    key_ids: Sequence[object] | None = problem.integers("key_ids")
    if ids is None or key_ids is None:  # no identities are known, so no key is an anchor
        ids = [("anchor", i) for i in range(len(anchors))]
        key_ids = [("key", j) for j in range(len(towers["keys"]))]
    return Comparison(anchors, labels, ids, towers["keys"], problem.integers("key_labels") or [], key_ids)


def _views(towers: dict[str, Table]) -> list[Table]:
    return [towers[f"view_{k}"] for k in range(len(towers))]


def _schedule(problem: Problem, table: Table) -> Table:
    """The temperature of each similarity of a table."""
    low, high = mp.mpf(problem.number("temperature_min")), mp.mpf(problem.number("temperature_max"))
    if problem.options.get("schedule", "cosine") == "cosine":
        return [[loops.cosine_schedule(s, low, high) for s in row] for row in table]
    offset, scale = mp.mpf(problem.number("offset")), mp.mpf(problem.number("scale"))
    return [[loops.shifted_schedule(s, low, high, offset, scale) for s in row] for row in table]


def _rows(problem: Problem, point: dict[str, Any], start: dict[str, Any]) -> list[Row]:
    """The row losses at ``point``; what a loss holds constant is taken from ``start``, where no difference has moved it."""
    towers, loss = _towers(problem, point), problem.loss
    temperature = point.get("temperature")
    if loss == "sincere":
        return loops.sincere(_labelled(problem, towers), temperature, mp.mpf(problem.number("epsilon")))
    if loss == "supcon":
        form = loops.supcon_out if problem.options["summation"] == "out" else loops.supcon_in
        return form(_labelled(problem, towers), temperature)
    if loss == "info_nce":
        return loops.info_nce(towers["queries"], towers["positives"], towers.get("negatives"), temperature)
    if loss == "nt_xent":
        return loops.nt_xent(_views(towers), temperature)
    if loss == "dystress":
        held = _towers(problem, start) if problem.options["detach"] else towers
        return loops.dystress(_views(towers), _schedule(problem, loops.similarities(_views(held))))
    if loss == "dystress_info_nce":
        held = _towers(problem, start) if problem.options["detach"] else towers
        queries, positives = held["queries"], held["positives"]
        own = [[mp.fdot(q, p)] for q, p in zip(queries, positives, strict=True)]
        others = [[mp.fdot(q, x) for x in held.get("negatives", positives)] for q in queries]
        near, far = [tau for (tau,) in _schedule(problem, own)], _schedule(problem, others)
        return loops.dystress_info_nce(towers["queries"], towers["positives"], towers.get("negatives"), near, far)
    if loss == "siglip":
        return loops.siglip(towers["a"], towers["b"], temperature, point["bias"])
    if loss == "f_micl":
        alpha, bandwidth = mp.mpf(problem.number("alpha")), mp.mpf(problem.number("inverse_bandwidth"))
        order = mp.mpf(float(problem.options.get("order", 2.0)))
        divergence = str(problem.options["divergence"])
        views = towers["view_a"], towers["view_b"]
        return loops.f_micl(*views, divergence, alpha, bandwidth, order, towers.get("negatives"))
    if loss not in loops.__all__:
        raise ValueError(f"loss: no formula for {loss!r}")
    # Of a temperature alone: labelled rows, or the towers in their order.
    arguments = [_labelled(problem, towers)] if "embeddings" in towers else list(towers.values())
    rows: list[Row] = getattr(loops, loss)(*arguments, temperature)
    return rows


def _reduced(rows: Sequence[Row], reduction: str) -> list[Number]:
    counting = [row for row in rows if row.counts]
    if reduction == "none":
        return [row.loss for row in rows]
    if reduction == "pairs":
        total = mp.fsum([row.positives * row.loss for row in counting])
        number = sum(row.positives for row in counting)
    else:
        total = mp.fsum([row.loss for row in counting])
        number = {"mean": len(counting), "batch": len(rows), "sum": 1}[reduction]
    return [total / number if number else mp.mpf(0)]


def value(problem: Problem) -> list[Number]:
    """The value to some 80 digits: one number, or one for each row where the reduction is ``"none"``."""
    with mp.workdps(loops.DIGITS):
        start = _point(problem)
        return _reduced(_rows(problem, start, start), problem.reduction)


def _weighted(problem: Problem, start: dict[str, Any]) -> Callable[[dict[str, Any]], Number]:
    cotangent = [mp.mpf(c) for c in problem.cotangent.reshape(-1).tolist()]

    def at(point: dict[str, Any]) -> Number:
        return mp.fdot(cotangent, _reduced(_rows(problem, point, start), problem.reduction))

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
