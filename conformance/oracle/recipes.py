"""The cases of the suite: exact inputs, and for each the reason that it is there.

Every number is a small integer over a power of two, so that it is the same in bfloat16, float16, float32 and float64; the
few that cannot be say in which types they are. Shapes repeat on purpose: a framework that compiles does so once for each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sincere_spec.conformance.oracle.problem import Array, Option, Problem

__all__ = ["Recipe", "recipes"]

WARM, USUAL, COLD = 0.125, 0.0703125, 2.0**-10  # near 0.1, 0.07 and 0.001, and exact in bfloat16
DIVERGENCES = (
    "kl",
    "js",
    "pearson",
    "hellinger",
    "tsallis",
    "vincze_le_cam",
    "reverse_kl",
    "neyman",
    "jeffreys",
)
Flags = NDArray[np.bool_]
_WIDE_RANGE = ("bfloat16", "float32", "float64")  # float16 ends at 65504


@dataclass(frozen=True, eq=False)
class Recipe:
    """A case before it has answers."""

    profile: str
    id: str
    says: str
    problem: Problem
    dtypes: tuple[str, ...] | None = None


def _draws(tag: str, count: int, largest: int) -> list[int]:
    """Integers from -largest to largest that depend on the tag alone."""
    answer = []
    for k in range(count):
        word = hashlib.sha256(f"{tag}:{k}".encode()).digest()
        answer.append(int.from_bytes(word[:8], "big") % (2 * largest + 1) - largest)
    return answer


def scattered(tag: str, *shape: int) -> Array:
    """Rows in all directions, with norms from about 0.5 to 2."""
    count = int(np.prod(shape))
    entries = [entry or 17 for entry in _draws(tag, count, 60)]
    return np.asarray(entries, dtype=np.float64).reshape(shape) / 64


def gathered(tag: str, labels: Sequence[int], d: int, spread: int = 16) -> Array:
    """A centre for each label and noise of ``spread`` / 64 about it."""
    centres = {label: _draws(f"{tag}:{label}", d, 24) for label in labels}
    noise = _draws(f"{tag}:noise", len(labels) * d, spread)
    rows = [[2 * c + noise[i * d + k] for k, c in enumerate(centres[label])] for i, label in enumerate(labels)]
    return np.asarray(rows, dtype=np.float64) / 64


def settled(tag: str, places: Sequence[int], d: int, noise: float = 2.0**-8) -> Array:
    """Rows close to an axis each (place k + d is minus axis k): what training arrives at."""
    draws = _draws(tag, len(places) * d, 7)
    rows = np.asarray(draws, dtype=np.float64).reshape(len(places), d) * noise
    for i, place in enumerate(places):
        rows[i, place % d] = 1.0 if place < d else -1.0
    return rows


def alike(tag: str, n: int, d: int, noise: float = 2.0**-10) -> Array:
    """Rows that differ by parts in a thousand."""
    base = [1.0, -0.75] + [0.0] * (d - 2)
    rows = np.tile(np.asarray(base), (n, 1))
    if d > 2:
        rows[:, 2:] += np.asarray(_draws(tag, n * (d - 2), 60), dtype=np.float64).reshape(n, d - 2) * noise
    return rows


def _whole(entries: Sequence[int]) -> NDArray[np.generic]:
    return np.asarray(entries, dtype=np.int64)


BALANCED = (0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3)
UNEQUAL = (2, 0, 0, 1, 0, 0, 2, 1, 0, 0, 1, 0)  # 7, 3 and 2 rows
LONELY = (0, 0, 1, 0, 2, 0, 1, 0, 1, 0, 3, 3)  # 6, 3, 1 and 2 rows: row 4 is alone
PAIRED = (0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5)
SEVEN = (0, 1, 0, 2, 1, 0, 3)  # rows 3 and 6 are alone

N, D = 12, 6  # rows and features of a labelled batch
M, C = 7, 4  # of a tower; differences of loops are slow, so two towers are smaller than one batch
K = 5  # rows of a queue


def _labelled(x: Array, labels: Sequence[int], **more: Sequence[int] | Array) -> dict[str, NDArray[np.generic]]:
    rest = {name: y if isinstance(y, np.ndarray) else _whole(y) for name, y in more.items()}
    return {"embeddings": x, "labels": _whole(labels), **rest}


def _views(*views: Array) -> dict[str, NDArray[np.generic]]:
    return {f"view_{k}": view for k, view in enumerate(views)}


def _sincere(temperature: float = WARM, epsilon: float = 0.0) -> dict[str, Option]:
    return {"temperature": temperature, "epsilon": epsilon}


def _supcon(temperature: float = WARM, summation: str = "out") -> dict[str, Option]:
    return {"temperature": temperature, "summation": summation}


def _decoupled(temperature: float = WARM) -> dict[str, Option]:
    return {"temperature": temperature}


def _plain(temperature: float = USUAL) -> dict[str, Option]:
    return {"temperature": temperature}


def _dystress(
    low: float = 0.1015625, high: float = 0.203125, detach: bool = True, schedule: str = "cosine"
) -> dict[str, Option]:
    options: dict[str, Option] = {
        "temperature_min": low,
        "temperature_max": high,
        "detach": detach,
        "schedule": schedule,
    }
    return {**options, "offset": -0.40625, "scale": 0.6875} if schedule == "shifted" else options


def _hcl(temperature: float = USUAL, beta: float = 1.0) -> dict[str, Option]:
    return {"temperature": temperature, "beta": beta}


def _siglip(temperature: float = 0.1015625, bias: float = -10.0) -> dict[str, Option]:
    return {"temperature": temperature, "bias": bias}


def _f_micl(
    divergence: str, alpha: float = 40.0, inverse_bandwidth: float = 1.0, order: float = 2.0
) -> dict[str, Option]:
    options: dict[str, Option] = {"divergence": divergence, "alpha": alpha, "inverse_bandwidth": inverse_bandwidth}
    return {**options, "order": order} if divergence == "tsallis" else options


Arguments = Mapping[str, NDArray[np.generic]]


class _Profile:
    """Collects the cases of one profile."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.cases: list[Recipe] = []

    def case(
        self,
        name: str,
        says: str,
        options: dict[str, Option],
        arguments: Arguments,
        *,
        normalize: bool = True,
        reduction: str = "mean",
        dtypes: tuple[str, ...] | None = None,
    ) -> None:
        loss = name.split("/", maxsplit=1)[0]
        problem = Problem(loss, options, arguments, normalize, reduction)
        rows = _row_count(problem) if reduction == "none" else 1
        ones = [entry if entry % 64 else entry + 11 for entry in _draws(f"{name}:cotangent", rows, 120)]
        weights = np.asarray(ones, dtype=np.float64) / 64
        problem = problem.with_cotangent(weights if reduction == "none" else weights.reshape(()))
        self.cases.append(Recipe(self.name, name, says, problem, dtypes))


def _row_count(problem: Problem) -> int:
    sizes = {name: len(x) for name, x in problem.arrays().items()}
    if problem.loss in ("nt_xent", "dystress", "hcl"):
        return sum(sizes.values())
    if problem.loss in ("clip", "infoloob"):
        return 2 * sizes["a"]
    return next(iter(sizes.values()))


def _core() -> list[Recipe]:
    add = _Profile("core")
    labelled = (
        ("sincere", "", _sincere()),
        ("supcon", "out-", _supcon()),
        ("supcon", "in-", _supcon(summation="in")),
        ("decoupled", "", _decoupled()),
    )
    for loss, form, options in labelled:
        here = f"{loss}/{form}"
        add.case(
            f"{here}ordinary",
            "An ordinary batch: four classes of three.",
            {**options, "temperature": USUAL},
            _labelled(gathered("ordinary", BALANCED, D), BALANCED),
        )
        add.case(
            f"{here}unequal-classes",
            "Classes of 7, 3 and 2: the mean is over anchors, not over pairs of positives.",
            options,
            _labelled(gathered("unequal", UNEQUAL, D), UNEQUAL),
        )
        add.case(
            f"{here}one-singleton",
            "A row without positives is in the denominators of others, and not in the number that the mean divides by.",
            options,
            _labelled(gathered("lonely", LONELY, D), LONELY),
        )
        if form == "in-":
            continue
        add.case(
            f"{here}unnormalised",
            "normalize=False takes rows of any norm as they are: nothing is divided by norms, forwards or backwards.",
            {**options, "temperature": 0.5},
            _labelled(scattered("raw", N, D), BALANCED),
            normalize=False,
        )
    for loss, form, options in (labelled[0], labelled[1]):
        here = f"{loss}/{form}"
        add.case(
            f"{here}sample-by-sample",
            "[n, views, d] is flattened sample by sample, and the labels repeat in step.",
            options,
            _labelled(
                gathered("sampled", [0, 0, 1, 1, 2, 2, 0, 0, 1, 1, 0, 0], D).reshape(6, 2, D), (0, 1, 2, 0, 1, 0)
            ),
        )
    add.case(
        "sincere/one-dimension",
        "One feature: every dot product is one multiplication.",
        _sincere(0.5),
        _labelled(scattered("line", N, 1), BALANCED),
        normalize=False,
    )
    add.case(
        "sincere/odd-labels",
        "Labels are names, not places: negative, large, in no order.",
        _sincere(),
        _labelled(gathered("odd", SEVEN, C), [-5 + 70000 * label for label in SEVEN]),
    )
    add.case(
        "sincere/large-labels",
        "Labels beyond 2^24 are neighbours that single precision cannot tell apart: a label is never made a float.",
        _sincere(),
        _labelled(gathered("odd", SEVEN, C), [2**24 + label for label in SEVEN]),
    )
    add.case(
        "sincere/one-dimension-normalised",
        "In one dimension a unit row is 1 or -1, whatever its entry was: the gradient vanishes exactly.",
        _sincere(),
        _labelled(scattered("line", N, 1), BALANCED),
    )
    add.case(
        "sincere/epsilon",
        "A margin of epsilon in logits: the positive is lowered in the denominator only, and the least value is -epsilon.",
        _sincere(WARM, 0.25),
        _labelled(gathered("unequal", UNEQUAL, D), UNEQUAL),
    )

    first, second = (gathered(f"view-{k}", range(6), C) + gathered("shared", range(6), C, 0) for k in range(2))
    three = [gathered(f"view-{k}", range(4), C) + gathered("shared", range(4), C, 0) for k in range(3)]
    add.case("nt_xent/two-views", "SimCLR: the other view against all other rows.", _plain(), _views(first, second))
    add.case(
        "nt_xent/three-views",
        "Three views: the mean over two positives, each against all others, the other positive included.",
        _plain(WARM),
        _views(*three),
    )
    add.case(
        "nt_xent/unnormalised",
        "normalize=False on two views.",
        _plain(0.5),
        _views(first, second),
        normalize=False,
    )
    pair = _views(first, second)
    add.case("hcl/two-views", "Two views, where hard negatives weigh more.", _hcl(), pair)
    add.case("hcl/half", "The weights are e^(beta l), and not e^l.", _hcl(WARM, 0.5), pair)
    add.case("hcl/beta-zero", "A beta of 0 is NT-Xent.", _hcl(USUAL, 0.0), pair)
    add.case("hcl/three-views", "Three views: the mean of both positives' logits.", _hcl(WARM), _views(*three))
    add.case("hcl/unnormalised", "normalize=False on two views.", _hcl(0.5, 0.75), pair, normalize=False)
    for schedule in ("cosine", "shifted"):
        for detach in (True, False):
            add.case(
                f"dystress/{schedule}{'' if detach else '-full-derivative'}",
                f"The {schedule} schedule; "
                + (
                    "its temperatures are constants of the gradient."
                    if detach
                    else "the gradient goes through the temperatures."
                ),
                _dystress(detach=detach, schedule=schedule),
                _views(first, second),
            )
    add.case(
        "dystress/three-views",
        "Three views under temperatures by similarity.",
        _dystress(),
        _views(*three),
    )
    add.case(
        "dystress/equal-temperatures",
        "Equal temperatures are NT-Xent.",
        _dystress(WARM, WARM, detach=False),
        _views(first, second),
    )
    add.case(
        "dystress/unnormalised",
        "Dot products beyond 1, where the cosine schedule turns again.",
        _dystress(0.5, 0.75, detach=False),
        _views(first, second),
        normalize=False,
    )
    return add.cases


def _two_tower() -> list[Recipe]:
    add = _Profile("two-tower")
    a, b = gathered("tower", range(M), C, 12), gathered("tower", range(M), C, 14)
    b = np.round(64 * b - 16 * np.roll(b, 1, axis=1)) / 64  # the towers differ by more than noise
    raw_a, raw_b = scattered("raw-a", M, C), scattered("raw-b", M, C)
    add.case(
        "info_nce/no-queue",
        "Without a queue the negatives are the other rows' positives, in one direction only.",
        _plain(),
        {"queries": a, "positives": b},
    )
    queries: dict[str, NDArray[np.generic]] = {"queries": a, "positives": b}
    add.case(
        "dystress_info_nce/no-queue",
        "A temperature for each pair of a query and a positive, its own or another row's: the authors' SimCSE code.",
        _dystress(),
        queries,
    )
    add.case(
        "dystress_info_nce/shifted-full-derivative",
        "The shifted schedule, and the gradient goes through the temperatures.",
        _dystress(detach=False, schedule="shifted"),
        queries,
    )
    add.case(
        "dystress_info_nce/unnormalised",
        "Dot products beyond 1, where the cosine schedule turns again.",
        _dystress(0.5, 0.75, detach=False),
        {"queries": raw_a, "positives": raw_b},
        normalize=False,
    )
    add.case("clip/ordinary", "Both directions: 2n rows in one mean.", _plain(), {"a": a, "b": b})
    add.case("clip/unnormalised", "normalize=False both ways.", _plain(0.5), {"a": raw_a, "b": raw_b}, normalize=False)
    add.case("infoloob/ordinary", "CLIP without the positive in its own denominator.", _plain(), {"a": a, "b": b})
    add.case(
        "infoloob/unnormalised", "normalize=False both ways.", _plain(0.5), {"a": raw_a, "b": raw_b}, normalize=False
    )
    add.case(
        "siglip/ordinary",
        "A sigmoid for every pair, divided by n and not by n squared.",
        _siglip(),
        {"a": a, "b": b},
    )
    add.case(
        "siglip/no-bias",
        "A bias of zero is a number like any other, and has a gradient.",
        _siglip(WARM, 0.0),
        {"a": raw_a, "b": raw_b},
    )
    add.case(
        "siglip/unnormalised",
        "normalize=False and a positive bias.",
        _siglip(0.5, 1.5),
        {"a": raw_a, "b": raw_b},
        normalize=False,
    )
    for divergence in DIVERGENCES:
        add.case(
            f"f_micl/{divergence.replace('_', '-')}",
            "Positives across the views, negatives within the first view only.",
            _f_micl(divergence),
            {"view_a": a, "view_b": b},
        )
    add.case(
        "f_micl/tsallis-half",
        "An order below one turns the sign of f'.",
        _f_micl("tsallis", order=0.5),
        {"view_a": a, "view_b": b},
    )
    add.case(
        "f_micl/unnormalised",
        "Without normalisation the squared distance is still 2 - 2s, and may be negative.",
        _f_micl("js", 2.5, 0.5),
        {"view_a": raw_a, "view_b": raw_b},
        normalize=False,
    )
    other = gathered("modality", SEVEN, C)
    for loss, form, options in (
        ("sincere", "", _sincere()),
        ("supcon", "out-", _supcon()),
        ("supcon", "in-", _supcon(summation="in")),
        ("decoupled", "", _decoupled()),
    ):
        add.case(
            f"{loss}/{form}other-modality",
            "Keys of another modality: without ids no key is an anchor, so place i against place i counts.",
            options,
            _labelled(gathered("query", (0, 1, 2, 0, 1), C), (0, 1, 2, 0, 1), keys=other, key_labels=SEVEN),
        )
    return add.cases


def _queue() -> list[Recipe]:
    add = _Profile("queue")
    q, k = gathered("query", range(M), C, 10), gathered("query", range(M), C, 12)
    memory = scattered("memory", K, C)
    add.case(
        "info_nce/queue",
        "With a queue every row has its own positive and the queue; other rows' positives are no negatives.",
        _plain(),
        {"queries": q, "positives": k, "negatives": memory},
    )
    add.case(
        "info_nce/queue-unnormalised",
        "normalize=False with a queue: queries, positives and queue as they are.",
        _plain(0.5),
        {"queries": scattered("raw-a", M, C), "positives": scattered("raw-b", M, C), "negatives": memory},
        normalize=False,
    )
    add.case(
        "info_nce/queue-holds-the-positive",
        "A stale copy of a row's positive in the queue is a negative like any other.",
        _plain(WARM),
        {"queries": q, "positives": k, "negatives": np.concatenate([k[:2], memory[2:]])},
    )
    add.case(
        "dystress_info_nce/queue",
        "The authors' MoCo code: the positive and each row of the queue at a temperature of its own.",
        _dystress(),
        {"queries": q, "positives": k, "negatives": memory},
    )
    add.case(
        "f_micl/queue",
        "The mean is over the queue: other rows of the first view are no negatives.",
        _f_micl("js"),
        {"view_a": q, "view_b": k, "negatives": memory},
    )
    add.case(
        "f_micl/queue-sum",
        "The sum over rows of means over the queue.",
        _f_micl("kl", 2.5),
        {"view_a": q, "view_b": k, "negatives": memory},
        reduction="sum",
    )
    anchors, bank = gathered("batch", SEVEN, C), (0, 1, 3, 4, 4)
    keys = np.concatenate([anchors, gathered("bank", bank, C)])
    key_labels = (*SEVEN, *bank)
    ids, key_ids = range(100, 100 + M), (*range(100, 100 + M), *range(500, 500 + K))
    for loss, form, options in (
        ("sincere", "", _sincere()),
        ("supcon", "out-", _supcon()),
        ("supcon", "in-", _supcon(summation="in")),
        ("decoupled", "", _decoupled()),
    ):
        add.case(
            f"{loss}/{form}memory-with-anchors",
            "A memory that contains the anchors: equal ids are one sample, and never compared.",
            options,
            _labelled(anchors, SEVEN, keys=keys, key_labels=key_labels, ids=ids, key_ids=key_ids),
        )
    add.case(
        "sincere/memory-shuffled",
        "Who is the same sample is said by ids, not by places.",
        _sincere(),
        _labelled(anchors, SEVEN, keys=keys[::-1].copy(), key_labels=key_labels[::-1], ids=ids, key_ids=key_ids[::-1]),
    )
    absent = (5, 0, 7, 0, 5)
    for loss, options in (("sincere", _sincere()), ("supcon", _supcon()), ("decoupled", _decoupled())):
        add.case(
            f"{loss}/memory-of-other-classes",
            "Anchors whose class the memory lacks do not count; classes that no anchor has are noise.",
            options,
            _labelled(anchors, SEVEN, keys=gathered("absent", absent, C), key_labels=absent),
        )
    add.case(
        "sincere/memory-unnormalised",
        "The keys' gradient, without normalisation in its way.",
        _sincere(0.5),
        _labelled(anchors, SEVEN, keys=gathered("bank", bank, C), key_labels=bank),
        normalize=False,
    )
    add.case(
        "sincere/repeated-sample",
        "Two rows of one batch with one id are one sample: never a pair.",
        _sincere(),
        _labelled(gathered("batch", BALANCED, D), BALANCED, ids=(0, 1, 2, 3, 0, 5, 6, 7, 8, 1, 10, 11)),
    )
    return add.cases


def _temperature() -> list[Recipe]:
    add = _Profile("learnable-temperature")
    x = gathered("unequal", UNEQUAL, D)
    a, b = gathered("tower", range(M), C, 12), gathered("pair", range(M), C, 12)
    add.case("sincere/temperature-half", "A warm temperature's gradient.", _sincere(0.5), _labelled(x, UNEQUAL))
    add.case("sincere/temperature-small", "A cold temperature's gradient.", _sincere(2.0**-5), _labelled(x, UNEQUAL))
    add.case(
        "sincere/temperature-unnormalised",
        "The temperature's gradient where dot products exceed one.",
        _sincere(1.5, 0.5),
        _labelled(scattered("raw", N, D), LONELY),
        normalize=False,
    )
    add.case("supcon/temperature-half", "A warm temperature's gradient.", _supcon(0.5), _labelled(x, UNEQUAL))
    add.case("supcon/in-temperature-small", "A cold one's, sum inside.", _supcon(2.0**-5, "in"), _labelled(x, UNEQUAL))
    add.case(
        "decoupled/temperature-half",
        "The constant in front of positives depends on it.",
        _decoupled(0.5),
        _labelled(x, UNEQUAL),
    )
    add.case(
        "info_nce/temperature-half",
        "The temperature's gradient over positives and queue together.",
        _plain(0.5),
        {"queries": a, "positives": b, "negatives": scattered("memory", K, C)},
    )
    add.case(
        "nt_xent/temperature-half",
        "Three views, one temperature.",
        _plain(0.5),
        _views(a[:4], b[:4], a[3:]),
    )
    add.case(
        "clip/temperature-small", "Near CLIP's limit, a logit scale of 100.", _plain(1.28125 / 128), {"a": a, "b": b}
    )
    add.case(
        "siglip/temperature-and-bias",
        "Temperature and bias have different gradients: the bias is not divided.",
        _siglip(0.25, -2.5),
        {"a": a, "b": b},
    )
    return add.cases


def _reduction() -> list[Recipe]:
    add = _Profile("reduction")
    x = _labelled(gathered("lonely", LONELY, D), LONELY)
    says = {
        "mean": "The mean over the rows that count, with one that does not.",
        "pairs": "Rows weighted by their numbers of positives: the mean over pairs.",
        "batch": "Divided by the number of rows, the one that does not count included.",
        "sum": "The sum over rows.",
        "none": "One loss for each row, 0 for one that does not count, each with a cotangent of its own.",
    }
    for loss, form, options, reductions in (
        ("sincere", "", _sincere(), ("pairs", "batch", "sum", "none")),
        ("supcon", "out-", _supcon(), ("pairs", "batch", "sum", "none")),
        ("supcon", "in-", _supcon(summation="in"), ("none",)),
        ("decoupled", "", _decoupled(), ("pairs", "none")),
    ):
        for reduction in reductions:
            add.case(f"{loss}/{form}{reduction}", says[reduction], options, x, reduction=reduction)
    memory = _labelled(
        gathered("batch", SEVEN, C), SEVEN, keys=gathered("absent", (5, 0, 7, 0, 5), C), key_labels=(5, 0, 7, 0, 5)
    )
    add.case("sincere/memory-batch", says["batch"], _sincere(), memory, reduction="batch")
    sampled = _labelled(
        gathered("sampled", [0, 0, 1, 1, 2, 2, 0, 0, 1, 1, 0, 0], D).reshape(6, 2, D), (0, 1, 2, 0, 1, 0)
    )
    add.case(
        "sincere/sample-by-sample-none",
        "Rows of [n, views, d] in the order of samples.",
        _sincere(),
        sampled,
        reduction="none",
    )
    two = _views(gathered("image", range(6), C, 12), gathered("image", range(6), C, 14))
    views = _views(*(gathered("image", range(4), C, spread) for spread in (8, 12, 14)))
    order = "All rows of the first view, then of the second."
    add.case("nt_xent/none", order, _plain(), two, reduction="none")
    add.case("nt_xent/three-views-none", order, _plain(WARM), views, reduction="none")
    add.case("dystress/none", order, _dystress(), two, reduction="none")
    add.case("hcl/none", order, _hcl(), two, reduction="none")
    add.case("nt_xent/sum", says["sum"], _plain(), two, reduction="sum")
    add.case("hcl/sum", says["sum"], _hcl(), two, reduction="sum")
    add.case("dystress/sum", says["sum"], _dystress(), two, reduction="sum")
    a, b = gathered("tower", range(M), C, 12), gathered("pair", range(M), C, 12)
    queue = {"queries": a, "positives": b, "negatives": scattered("memory", K, C)}
    add.case("info_nce/queue-none", "One loss for each query.", _plain(WARM), queue, reduction="none")
    add.case("info_nce/queue-sum", says["sum"], _plain(WARM), queue, reduction="sum")
    add.case("dystress_info_nce/queue-none", "One loss for each query.", _dystress(), queue, reduction="none")
    add.case("dystress_info_nce/queue-sum", says["sum"], _dystress(), queue, reduction="sum")
    add.case("clip/sum", "The sum over the rows of both directions.", _plain(WARM), {"a": a, "b": b}, reduction="sum")
    add.case("infoloob/sum", "The sum of both directions.", _plain(WARM), {"a": a, "b": b}, reduction="sum")
    add.case("infoloob/none", "Rows from a to b, then from b to a.", _plain(WARM), {"a": a, "b": b}, reduction="none")
    add.case("siglip/sum", says["sum"], _siglip(), {"a": a, "b": b}, reduction="sum")
    add.case("f_micl/sum", says["sum"], _f_micl("kl"), {"view_a": a, "view_b": b}, reduction="sum")
    add.case("clip/none", "Rows from a to b, then from b to a.", _plain(WARM), {"a": a, "b": b}, reduction="none")
    add.case("siglip/none", "One loss for each row of a.", _siglip(), {"a": a, "b": b}, reduction="none")
    add.case(
        "f_micl/none",
        "One loss for each row of the first view, the row's own negatives over n - 1.",
        _f_micl("kl"),
        {"view_a": a, "view_b": b},
        reduction="none",
    )
    return add.cases


def _precision() -> list[Recipe]:
    add = _Profile("precision")
    near = alike("near", N, D)
    labelled = (
        ("sincere", "", _sincere(), ("hot", "cold", "warm", "opposite", "norms")),
        ("supcon", "out-", _supcon(), ("hot", "warm", "opposite", "norms")),
        ("supcon", "in-", _supcon(summation="in"), ("hot",)),
        ("decoupled", "", _decoupled(), ("hot",)),
    )
    batches = {
        "hot": (
            "hot-logits",
            "Near-duplicates across classes at a cold temperature: logits near 1024, where an unshifted exponential overflows.",
            COLD,
            _labelled(near, BALANCED),
        ),
        "cold": (
            "cold",
            "Logits from -1024 to 1024 at a temperature near 0.001.",
            COLD,
            _labelled(scattered("cold", N, D), UNEQUAL),
        ),
        "warm": (
            "warm",
            "A temperature of 1024: all weights nearly equal, all gradients small differences.",
            1024.0,
            _labelled(gathered("unequal", UNEQUAL, D), UNEQUAL),
        ),
        "opposite": (
            "opposite",
            "One anchor opposite to all others: a maximum that includes the row's own similarity underflows.",
            2.0**-9,
            _labelled(np.concatenate([-near[:1], near[1:]]), BALANCED),
        ),
        "norms": (
            "norms",
            "Norms from 1e-30 to 1e30: the value does not depend on them, and the gradient goes with 1 / norm.",
            WARM,
            _labelled(gathered("ordinary", BALANCED, D) * _NORMS[:N], BALANCED),
        ),
    }
    for loss, form, options, wanted in labelled:
        for key in wanted:
            name, says, temperature, arguments = batches[key]
            add.case(
                f"{loss}/{form}{name}",
                says,
                {**options, "temperature": temperature},
                arguments,
                dtypes=_WIDE_RANGE if key == "norms" else None,
            )
    add.case(
        "sincere/epsilon-hot-logits",
        "Hot logits and a margin.",
        _sincere(COLD, 0.25),
        _labelled(near, BALANCED),
    )
    add.case(
        "sincere/mixed-pull",
        "Of a row's positives some are close and some far: softplus on both of its sides.",
        _sincere(2.0**-6),
        _labelled(settled("mixed", (0, 1, 0, 1, 2, 0, 2, 3, 1, 3, 4, 5), D), BALANCED),
    )

    close, closer, closest = alike("close", M, C), alike("closer", M, C), alike("closest", K, C)
    wild, wilder = scattered("wild", M, C), scattered("wilder", M, C)
    hot = "Near-duplicates at a cold temperature: logits near 1024."
    add.case("nt_xent/hot-logits", hot, _plain(COLD), _views(close[:6], closer[:6]))
    add.case("hcl/hot-logits", hot, _hcl(COLD), _views(close[:6], closer[:6]))
    add.case("dystress/hot-logits", hot, _dystress(COLD, 2 * COLD), _views(close[:6], closer[:6]))
    add.case("clip/hot-logits", hot, _plain(COLD), {"a": close, "b": closer})
    add.case(
        "info_nce/queue-hot-logits", hot, _plain(COLD), {"queries": close, "positives": closer, "negatives": closest}
    )
    cold = "Logits from -1024 to 1024."
    add.case("nt_xent/cold", cold, _plain(COLD), _views(wild[:6], wilder[:6]))
    add.case("hcl/cold", cold, _hcl(COLD), _views(wild[:6], wilder[:6]))
    add.case("clip/cold", cold, _plain(COLD), {"a": wild, "b": wilder})
    add.case("siglip/cold", cold, _siglip(COLD, -10.0), {"a": wild, "b": wilder})
    norms = "Norms from 1e-30 to 1e30."
    far, farther = wild * _NORMS[:M], wilder * _NORMS[M : 2 * M]
    add.case("nt_xent/norms", norms, _plain(WARM), _views(far[:6], farther[:6]), dtypes=_WIDE_RANGE)
    add.case("clip/norms", norms, _plain(WARM), {"a": far, "b": farther}, dtypes=_WIDE_RANGE)
    add.case("f_micl/norms", norms, _f_micl("js"), {"view_a": far, "view_b": farther}, dtypes=_WIDE_RANGE)
    raw = gathered("tower", range(M), C, 12)
    for divergence, alpha in (("kl", 409600.0), ("hellinger", 40.0)):
        add.case(
            f"f_micl/{divergence}-narrow",
            "An inverse bandwidth of 20, as for text: similarities from e^-80 to 1.",
            _f_micl(divergence, alpha, 20.0),
            {"view_a": raw, "view_b": gathered("tower", range(M), C, 14)},
        )
    return add.cases


def _late_training() -> list[Recipe]:
    add = _Profile("late-training")
    late = "Pairs agree: the loss is small and must be right relative to itself."
    for name, temperature in (("early", USUAL), ("settled", 2.0**-6)):
        add.case(
            f"sincere/well-separated-{name}",
            "One positive a row, close by; the loss is small and must be right relative to itself.",
            _sincere(temperature),
            _labelled(settled("settled", PAIRED, D), PAIRED),
        )
    classes = _labelled(settled("classes", UNEQUAL, D), UNEQUAL)
    for name, says, options in (
        ("sincere/", "Several positives a row, close by, and a small loss.", _sincere(2.0**-5)),
        (
            "supcon/out-",
            "The value stays above log |P| while the push of negatives vanishes.",
            _supcon(2.0**-5),
        ),
        (
            "supcon/in-",
            "The sum inside has no pull left between positives that are close: it ends at log |P|.",
            _supcon(2.0**-5, "in"),
        ),
        (
            "decoupled/",
            "Without the positive in the denominator the loss goes on falling, and its gradient never vanishes.",
            _decoupled(2.0**-5),
        ),
    ):
        add.case(f"{name}well-separated-classes", says, options, classes)
    one, two = settled("one", range(6), C), settled("two", range(6), C)
    a, b = settled("a", range(M), C), settled("b", range(M), C)
    add.case("nt_xent/well-separated", late, _plain(2.0**-6), _views(one, two))
    add.case("hcl/well-separated", late, _hcl(2.0**-6), _views(one, two))
    add.case("dystress/well-separated", late, _dystress(2.0**-6, 2.0**-5), _views(one, two))
    add.case("dystress/full-derivative-settled", late, _dystress(2.0**-6, 2.0**-5, detach=False), _views(one, two))
    add.case("dystress/shifted-settled", late, _dystress(2.0**-6, 2.0**-5, schedule="shifted"), _views(one, two))
    places = (0, 1, 2, 3)
    add.case(
        "nt_xent/three-views-settled",
        "Two positives a row, close by: they compete with each other, and the loss stays above log 2.",
        _plain(2.0**-5),
        _views(*(settled(f"settled-{k}", places, C) for k in range(3))),
    )
    add.case("clip/settled", late, _plain(2.0**-6), {"a": a, "b": b})
    apart = np.asarray([[1.0, 0.0, 0.0, 0.0], [-1.0, 0.0, 0.0, 0.0]])
    add.case(
        "infoloob/opposite",
        "Two pairs driven apart: the denominator is e^-1024, below what stands for minus infinity in published code.",
        _plain(COLD),
        {"a": apart, "b": apart},
    )
    add.case("info_nce/well-separated", late, _plain(2.0**-6), {"queries": a, "positives": b})
    add.case(
        "info_nce/queue-well-separated",
        late,
        _plain(2.0**-5),
        {"queries": a, "positives": b, "negatives": np.sign(scattered("queue", K, C))},
    )
    add.case("dystress_info_nce/well-separated", late, _dystress(2.0**-6, 2.0**-5), {"queries": a, "positives": b})
    add.case("siglip/well-separated", late, _siglip(2.0**-6, -20.0), {"a": a, "b": b})
    for divergence in ("kl", "pearson"):
        add.case(
            f"f_micl/{divergence}-well-separated",
            "Views that agree: distances near 0, differences of numbers near 1.",
            _f_micl(divergence),
            {"view_a": a, "view_b": b},
        )
    return add.cases


_NORMS = np.asarray([2.0**power for power in (-100, 100, 0, -60, 60, -100, 0, 100, 30, -30, 100, -100, 45, 0)])[:, None]


def _degenerate() -> list[Recipe]:
    add = _Profile("degenerate")
    small, other, nothing = scattered("small", 2, C), scattered("other", 2, C), np.zeros((0, C))
    ordinary = gathered("ordinary", BALANCED, D)
    identical, zero = np.tile(scattered("same", 1, D), (N, 1)), ordinary.copy()
    zero[4] = 0.0
    labelled = (
        ("sincere", "", _sincere()),
        ("supcon", "out-", _supcon()),
        ("supcon", "in-", _supcon(summation="in")),
        ("decoupled", "", _decoupled()),
    )
    for loss, form, options in labelled:
        here = f"{loss}/{form}"
        add.case(f"{here}all-one-class", "No negatives at all.", options, _labelled(ordinary, (4,) * N))
        if form == "in-":
            continue
        add.case(
            f"{here}all-singletons",
            "No positives at all: 0, with a zero gradient.",
            options,
            _labelled(ordinary, range(N)),
        )
        add.case(f"{here}empty-batch", "No rows: 0, with an empty gradient.", options, _labelled(nothing, ()))
        add.case(f"{here}one-row", "One row: nothing to compare, so 0.", options, _labelled(small[:1], (3,)))
        says = "Two rows of one class: positives, no negatives."
        add.case(f"{here}two-rows", says, options, _labelled(small, (1, 1)))
        if loss == "decoupled":
            continue
        add.case(
            f"{here}identical-rows",
            "All rows equal: every tie is split alike.",
            options,
            _labelled(identical, BALANCED),
        )
        add.case(
            f"{here}zero-row",
            "A zero row stays zero when normalised, is compared as such, and has a gradient of exactly 0.",
            options,
            _labelled(zero, BALANCED),
        )
    add.case("sincere/two-rows-apart", "Two rows of two classes: no positives.", _sincere(), _labelled(small, (0, 1)))
    add.case(
        "sincere/zero-row-unnormalised",
        "Without normalisation a zero row is a row like any other, and has a gradient.",
        _sincere(0.5),
        _labelled(zero, BALANCED),
        normalize=False,
    )
    add.case(
        "sincere/epsilon-all-one-class",
        "Without negatives a margin of epsilon is met exactly: -epsilon.",
        _sincere(WARM, 0.25),
        _labelled(ordinary, (4,) * N),
    )
    add.case(
        "sincere/all-singletons-none",
        "A row loss of 0 for every row that does not count, and no gradient through any.",
        _sincere(),
        _labelled(ordinary, range(N)),
        reduction="none",
    )
    add.case(
        "sincere/empty-memory",
        "No keys: nothing to compare.",
        _sincere(),
        _labelled(small, (0, 0), keys=nothing, key_labels=()),
    )
    pairwise: tuple[tuple[str, dict[str, Option], tuple[str, str], str], ...] = (
        ("info_nce", _plain(), ("queries", "positives"), "One pair has no negatives: 0."),
        ("nt_xent", _plain(), ("view_0", "view_1"), "Two views of one image have no negatives: 0."),
        ("dystress", _dystress(), ("view_0", "view_1"), "Two views of one image have no negatives: 0."),
        ("hcl", _hcl(), ("view_0", "view_1"), "Two views of one image have no negatives: 0."),
        ("clip", _plain(), ("a", "b"), "One pair has no negatives: 0 both ways."),
        ("infoloob", _plain(), ("a", "b"), "One pair has no negatives: it does not count, and the loss is 0."),
        ("siglip", _siglip(WARM, -2.5), ("a", "b"), "One pair has no negatives; the positive's term stays."),
        (
            "f_micl",
            _f_micl("kl"),
            ("view_a", "view_b"),
            "Without negatives their mean is 0; the positive's term stays.",
        ),
    )
    for loss, options, (one, two), alone in pairwise:
        n = 6 if loss in ("nt_xent", "dystress", "hcl") else M
        same, dead = np.tile(scattered("same", 1, C), (n, 1)), scattered("wild", n, C)
        dead[3] = 0.0
        add.case(f"{loss}/empty-batch", "No rows: 0, with empty gradients.", options, {one: nothing, two: nothing})
        add.case(f"{loss}/one-pair", alone, options, {one: small[:1], two: other[:1]})
        if loss not in ("dystress", "info_nce"):
            add.case(f"{loss}/two-pairs", "The smallest batch with negatives.", options, {one: small, two: other})
        if loss in ("nt_xent", "hcl", "clip", "f_micl"):
            add.case(f"{loss}/identical-rows", "All rows equal.", options, {one: same, two: same})
        add.case(
            f"{loss}/zero-row",
            "A zero row is compared as zero, and has a gradient of exactly 0.",
            options,
            {one: dead, two: scattered("wilder", n, C)},
        )
    add.case(
        "nt_xent/three-views-one-image",
        "Three views of one image: positives that compete, and no negatives.",
        _plain(WARM),
        _views(small[:1], small[1:], other[:1]),
    )
    add.case(
        "info_nce/empty-queue",
        "An empty queue: no negatives, so 0.",
        _plain(),
        {"queries": small, "positives": other, "negatives": nothing},
    )
    add.case(
        "dystress_info_nce/empty-queue",
        "An empty queue: no negatives, so 0.",
        _dystress(),
        {"queries": small, "positives": other, "negatives": nothing},
    )
    add.case(
        "f_micl/empty-queue",
        "An empty queue: the mean over it is 0, and the positive's term stays.",
        _f_micl("kl"),
        {"view_a": small, "view_b": other, "negatives": nothing},
    )
    add.case(
        "nt_xent/opposite-views",
        "Every image's views are opposite: all positives at similarity -1.",
        _plain(),
        _views(scattered("wild", 6, C), -scattered("wild", 6, C)),
    )
    return add.cases


GROUPS, QUEUE_GROUPS = (3, 1, 3, 0, 1, 3, 2), (1, 3, 9, 1, 0)  # seven rows: three of one group, two of another
WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0, 0.0, 0.75)
TEACHER = (0.125, 0.5, 1.5)


def _flags(tag: str, *shape: int, share: int = 30) -> Flags:
    """Booleans, ``share`` in a hundred of them true; asymmetric where they are square."""
    drawn = np.asarray(_draws(tag, int(np.prod(shape)), 50)).reshape(shape)
    return np.asarray(drawn < share - 50, dtype=np.bool_)


def _chosen(tag: str, among: Sequence[float], *shape: int) -> Array:
    drawn = np.asarray(_draws(tag, int(np.prod(shape)), 60)).reshape(shape)
    found: Array = np.asarray(among, dtype=np.float64)[drawn % len(among)]
    return found


def _but(matrix: Flags, *pairs: tuple[int, int], to: bool) -> Flags:
    """A matrix with some entries of their own."""
    made = matrix.copy()
    for i, j in pairs:
        made[i, j] = to
    return made


def _apart(tag: str, n: int, share: int = 30) -> Flags:
    """A matrix without its diagonal."""
    return _flags(tag, n, n, share=share) & ~np.eye(n, dtype=np.bool_)


def _towers() -> list[Recipe]:
    """Relations of rows whose one positive is named by the arrangement."""
    add = _Profile("relations")
    a, b = gathered("tower", range(M), C, 12), gathered("pair", range(M), C, 14)
    memory, groups = scattered("memory", K, C), _whole(GROUPS)
    own = scattered("of each", M, 3, C)
    some = _but(_flags("each there", M, 3, share=65), (2, 0), (2, 1), (2, 2), to=False)
    ignore = _but(_apart("left out", M), (4, 4), to=True)  # of row 4 the own pair, too
    alone = _apart("alone", M) | (np.arange(M)[:, None] == 2) & ~np.eye(M, dtype=np.bool_)
    shared = "Rows of one group are no negatives of each other, and the own pair stays: repeated captions."
    matrix = "Pairs that a matrix has are not compared: entry (i, j) is of row i, and a row without its own pair does not count."
    two, named = {"a": a, "b": b}, {"queries": a, "positives": b}
    views = {"view_a": a, "view_b": b}
    add.case("clip/groups", shared, _plain(), {**two, "groups": groups})
    add.case("infoloob/groups", shared, _plain(), {**two, "groups": groups})
    add.case("siglip/groups", shared, _siglip(WARM, -2.5), {**two, "groups": groups})
    add.case("info_nce/groups", shared, _plain(), {**named, "groups": groups})
    add.case("dystress_info_nce/groups", shared, _dystress(), {**named, "groups": groups})
    add.case(
        "f_micl/groups", "The mean is over the negatives that are left.", _f_micl("js"), {**views, "groups": groups}
    )
    add.case(
        "clip/ignore",
        "A matrix is a by b: from b to a a pair stands at the transposed place. A row without its own pair does not count.",
        _plain(),
        {**two, "ignore": ignore},
    )
    add.case(
        "clip/ignore-none",
        "Of a row without its own pair the loss is 0.",
        _plain(WARM),
        {**two, "ignore": ignore},
        reduction="none",
    )
    add.case(
        "infoloob/ignore",
        "A row all of whose negatives are left out does not count; as a column it still does.",
        _plain(),
        {**two, "ignore": alone},
    )
    add.case("siglip/ignore", matrix, _siglip(WARM, -2.5), {**two, "ignore": ignore})
    add.case("info_nce/ignore", matrix, _plain(), {**named, "ignore": ignore})
    add.case("f_micl/ignore", matrix, _f_micl("kl"), {**views, "ignore": ignore})
    add.case(
        "info_nce/groups-and-ignore",
        "What is left out for several reasons is their union.",
        _plain(),
        {**named, "groups": groups, "ignore": ignore},
    )
    queue = {**named, "negatives": memory}
    beside = {"groups": groups, "key_groups": _whole(QUEUE_GROUPS)}
    add.case("info_nce/queue-groups", "A queue has groups of its own.", _plain(), {**queue, **beside})
    add.case(
        "info_nce/queue-ignore",
        "Beside a queue a matrix is of the queue alone.",
        _plain(),
        {**queue, "ignore": _flags("of the queue", M, K)},
    )
    add.case(
        "f_micl/queue-groups",
        "The mean is over what is left of the queue.",
        _f_micl("js"),
        {**views, "negatives": memory, **beside},
    )
    filled = np.asarray([True, False, True, True, False])
    add.case(
        "info_nce/queue-where",
        "A queue that is filled in part: what its other rows hold is of no account.",
        _plain(),
        {**queue, "key_where": filled},
    )
    add.case(
        "info_nce/own-negatives",
        "Negatives [n, k, d] are k for each query alone: no other query sees them.",
        _plain(),
        {**named, "own_negatives": own},
    )
    ragged = {**named, "own_negatives": own, "key_where": some}
    add.case(
        "info_nce/ragged-negatives",
        "Queries may have fewer negatives than others, or none: what fills their places is of no account.",
        _plain(),
        ragged,
    )
    add.case(
        "info_nce/ragged-none", "One loss for each query, 0 without negatives.", _plain(WARM), ragged, reduction="none"
    )
    add.case("dystress_info_nce/ragged-negatives", "Each at a temperature of its own.", _dystress(), ragged)
    add.case(
        "f_micl/ragged-negatives",
        "The mean is over the negatives that a row has.",
        _f_micl("kl"),
        {**views, "own_negatives": own, "key_where": some},
    )
    inside = np.asarray([True, True, False, True, True, False, True])
    padded = {name: np.where(inside[:, None], x, 0.0) for name, x in two.items()}
    add.case(
        "clip/where",
        "Padding, of zeros here, takes no part in either direction.",
        _plain(),
        {**padded, "where": inside},
    )
    add.case(
        "clip/where-batch",
        "The sum over the number of rows inside.",
        _plain(WARM),
        {**two, "where": inside},
        reduction="batch",
    )
    guide = scattered("guide", M, 3)
    guides = guide, np.round(64 * guide + 24 * scattered("partner", M, 3)) / 64  # the own pair is similar, mostly
    of_two, of_named, of_views = (
        {f"guide_{name}": x for name, x in zip(names, guides, strict=True)} for names in (two, named, views)
    )
    near = "A negative that another model finds as similar as the row's own pair, less a margin, is left out; the own pair stays."
    add.case("info_nce/guide", near, {**_plain(), "margin": 0.375}, {**named, **of_named})
    add.case(
        "clip/guide",
        "Each row goes by its own pair: one direction of a pair may stay where the other is left out.",
        {**_plain(), "margin": 0.25},
        {**two, **of_two},
    )
    add.case(
        "info_nce/queue-guide",
        "A queue has rows of the guide, too.",
        {**_plain(), "margin": 0.125},
        {**queue, **of_named, "guide_negatives": scattered("of the queue", K, 3)},
    )
    add.case(
        "f_micl/guide",
        "The guide compares the first view with itself, and its own pair is across.",
        {**_f_micl("js"), "margin": 0.25},
        {**views, **of_views},
    )
    repeated = guides[1].copy()
    repeated[3], repeated[5] = repeated[0], repeated[1]
    add.case(
        "info_nce/guide-ties",
        "A copy of the own positive is as similar as it is: a tie is left out, however it is rounded.",
        {**_plain(), "margin": 0.0},
        {**named, "guide_queries": guides[0], "guide_positives": repeated},
    )
    one, other = (gathered(f"view-{k}", range(5), C) + gathered("shared", range(5), C, 0) for k in range(2))
    three = [gathered(f"view-{k}", range(4), C) + gathered("shared", range(4), C, 0) for k in range(3)]
    five, four = _whole((1, 0, 1, 2, 0)), _whole((1, 0, 1, 2))
    add.case("nt_xent/groups", shared, _plain(), {**_views(one, other), "groups": five})
    add.case(
        "nt_xent/three-views-groups",
        "The views of one sample are its positives, though they are of one group.",
        _plain(WARM),
        {**_views(*three), "groups": four},
    )
    alone = "Sample 0 shares its group with all others: its rows have no negatives, a loss of 0, and count."
    everywhere = _apart("of samples", 5) | (np.arange(5) == 0)[:, None]
    add.case("hcl/groups", shared, _hcl(), {**_views(one, other), "groups": five})
    add.case("hcl/ignore", alone, _hcl(0.5), {**_views(one, other), "ignore": everywhere & ~np.eye(5, dtype=np.bool_)})
    add.case("dystress/groups", shared, _dystress(), {**_views(one, other), "groups": five})
    add.case(
        "nt_xent/ignore",
        "A matrix is by sample: entry (i, j) is of each view of sample i with each view of sample j.",
        _plain(),
        {**_views(one, other), "ignore": _but(_apart("of samples", 5), (3, 3), to=True)},
    )
    add.case(
        "nt_xent/three-views-ignore",
        "A matrix by sample, with the own views of one.",
        _plain(WARM),
        {**_views(*three), "ignore": _but(_apart("of four", 4), (1, 1), to=True)},
    )
    add.case(
        "nt_xent/guide",
        near,
        {**_plain(), "margin": 0.125},
        {**_views(one, other), "guide_view_0": guides[0][:5], "guide_view_1": guides[1][:5]},
    )
    outside = np.asarray([True, False, True, True, False])
    for loss, options in (("nt_xent", _plain()), ("hcl", _hcl())):
        add.case(
            f"{loss}/where",
            "A sample outside is none in any of its views.",
            options,
            {**_views(one, other), "where": outside},
        )
    return add.cases


def _samples() -> list[Recipe]:
    """Relations of rows that may have several positives."""
    add = _Profile("relations")
    z, labels, n = gathered("batch", SEVEN, C), (0, 1, 0, 2, 1, 0, 2), M
    x = _labelled(z, labels)
    rows: dict[str, NDArray[np.generic]] = {"embeddings": z}
    groups = _whole((3, 1, 3, 0, 4, 2, 0))
    bank = (0, 1, 2, 1, 2)
    keys = {"keys": gathered("bank", bank, C), "key_labels": _whole(bank)}
    views = gathered("sampled", [0, 0, 1, 1, 2, 2, 0, 0], C).reshape(4, 2, C)
    sampled = _labelled(views, (0, 1, 2, 0))
    ignore, pairs = _apart("rows", n), _but(_apart("positives", n, 35), *((5, j) for j in range(n)), to=False)
    weights = _chosen("weights", WEIGHTS, n, n) * (np.arange(n)[:, None] != 3)
    out = "Pairs of one group are left out, positives too: but for the views of one sample no positive is a row's own."
    here = (
        ("sincere", "", _sincere()),
        ("supcon", "out-", _supcon()),
        ("supcon", "in-", _supcon(summation="in")),
        ("decoupled", "", _decoupled()),
    )
    for loss, form, options in here:
        add.case(
            f"{loss}/{form}ignore",
            "A pair that is left out is no positive and no negative: entry (i, j) is of anchor i, and (j, i) may stay.",
            options,
            {**x, "ignore": ignore},
        )
        add.case(
            f"{loss}/{form}positive-pairs",
            "A matrix says who is a positive of whom, and it need not be symmetric; a row without one does not count.",
            options,
            {**rows, "positive_pairs": pairs},
        )
    for loss, form, options in here[:2]:
        add.case(f"{loss}/{form}groups", out, options, {**x, "groups": groups})
    add.case(
        "sincere/views-groups",
        "The views of one sample stay, though they are of one group.",
        _sincere(),
        {**sampled, "groups": _whole((1, 0, 2, 1))},
    )
    add.case(
        "sincere/views-ignore",
        "A matrix by sample, whose entry (i, i) is of the views of sample i.",
        _sincere(),
        {**sampled, "ignore": _but(_apart("views", 4), (1, 1), (0, 3), to=True)},
    )
    by_sample = np.asarray([[0, 1, 0, 0], [0, 1, 0, 1], [1, 1, 0, 0], [0, 0, 0, 1]]) > 0
    add.case(
        "sincere/views-positive-pairs",
        "A matrix by sample: entry (i, i) says whether the views of sample i are positives.",
        _sincere(),
        {"embeddings": views, "positive_pairs": by_sample},
    )
    memory = {**x, **keys}
    add.case(
        "sincere/memory-groups",
        "Keys have groups of their own.",
        _sincere(),
        {**memory, "groups": groups, "key_groups": _whole((0, 1, 3, 7, 4))},
    )
    add.case(
        "sincere/memory-ignore",
        "A matrix of anchors by keys.",
        _sincere(),
        {**memory, "ignore": _flags("memory", n, K)},
    )
    add.case(
        "sincere/memory-positive-pairs",
        "A matrix of anchors by keys in place of both sides' labels.",
        _sincere(),
        {**rows, "keys": keys["keys"], "positive_pairs": _flags("of the bank", n, K, share=40)},
    )
    add.case(
        "sincere/positive-pairs-pairs",
        "Rows are weighted by their numbers of positives.",
        _sincere(),
        {**rows, "positive_pairs": pairs},
        reduction="pairs",
    )
    heavy = "Positives by weight: a pair of weight 0 is a negative, and each positive is in a denominator once."
    for form, options in (("out", _supcon()), ("in", _supcon(summation="in"))):
        weighed = {**rows, "positive_weights": weights}
        add.case(f"supcon/{form}-weights", heavy, options, weighed)
        add.case(
            f"supcon/{form}-weights-pairs",
            "Rows are weighted by the sums of their weights.",
            options,
            weighed,
            reduction="pairs",
        )
    add.case(
        "supcon/out-weights-none",
        "A row whose weights are all 0 has no loss.",
        _supcon(),
        {**rows, "positive_weights": weights},
        reduction="none",
    )
    add.case(
        "supcon/out-teacher",
        "A teacher's weights: no pair is a negative, and the sums of weights are not 1.",
        _supcon(),
        {**rows, "positive_weights": _chosen("teacher", TEACHER, n, n)},
    )
    add.case(
        "supcon/out-memory-weights",
        "Weights of anchors by keys.",
        _supcon(),
        {**rows, "keys": keys["keys"], "positive_weights": _chosen("bank", WEIGHTS, n, K)},
    )
    add.case(
        "supcon/out-weights-ignore",
        "What is left out weighs nothing.",
        _supcon(),
        {**rows, "positive_weights": weights, "ignore": ignore},
    )
    hot = np.asarray(
        [[1, 0, 1, 0], [0, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]],
        dtype=np.bool_,
    )
    hot_keys = np.asarray([[1, 0, 0, 0], [0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1], [1, 1, 1, 0]], dtype=np.bool_)
    some = "Positives have a class in common, of the several that a row has; a row without a class has none, and is a negative."
    share = "Positives weigh what two rows share of all their classes; two rows without a class share nothing."
    for loss, form, options in here:
        add.case(f"{loss}/{form}overlap", some, {**options, "overlap": "any"}, {**rows, "classes": hot})
    for form, options in (("out", _supcon()), ("in", _supcon(summation="in"))):
        add.case(f"supcon/{form}-jaccard", share, {**options, "overlap": "jaccard"}, {**rows, "classes": hot})
    add.case(
        "supcon/out-jaccard-pairs",
        "Rows are weighted by the sums of their shares.",
        {**_supcon(), "overlap": "jaccard"},
        {**rows, "classes": hot},
        reduction="pairs",
    )
    beside = {**rows, "keys": keys["keys"], "classes": hot, "key_classes": hot_keys}
    add.case("sincere/memory-overlap", "Keys have classes of their own.", {**_sincere(), "overlap": "any"}, beside)
    add.case(
        "supcon/out-memory-jaccard", "Keys have classes of their own.", {**_supcon(), "overlap": "jaccard"}, beside
    )
    add.case(
        "sincere/views-overlap",
        "Classes are by sample; the views of a sample without a class are negatives of each other.",
        {**_sincere(), "overlap": "any"},
        {"embeddings": views, "classes": hot[2:6]},
    )
    inside = np.asarray([True, True, True, False, True, True, False])
    padded = _labelled(np.where(inside[:, None], z, 0.0), np.where(inside, labels, -1).tolist(), where=inside)
    add.case(
        "sincere/where",
        "Padding, of zeros and one label here, is no anchor, no positive and no negative.",
        _sincere(),
        padded,
    )
    add.case(
        "sincere/where-batch",
        "The sum over the number of rows inside.",
        _sincere(),
        {**x, "where": inside},
        reduction="batch",
    )
    add.case(
        "supcon/out-where-none", "A row outside has a loss of 0.", _supcon(), {**x, "where": inside}, reduction="none"
    )
    add.case(
        "sincere/memory-where",
        "A memory that is filled in part.",
        _sincere(),
        {**memory, "key_where": np.asarray([True, True, False, True, False])},
    )
    return add.cases


def recipes() -> Iterator[Recipe]:
    """All cases, profile by profile."""
    for profile in (
        _core,
        _degenerate,
        _late_training,
        _precision,
        _queue,
        _two_tower,
        _temperature,
        _reduction,
        _towers,
        _samples,
    ):
        yield from profile()
