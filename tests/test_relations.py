"""`ignore` and relations in place of labels, in every engine, against rows whose pairs are listed one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any
from zlib import crc32

import numpy as np
import pytest
import relation_rows as plain
from catalogue import distance
from frameworks import load

import sincere_spec as ss
from sincere_spec import losses
from sincere_spec.errors import DtypeError, EngineUnavailable, OptionError, ShapeError
from sincere_spec.spec.words import PairLoss

ENGINES = {
    "dense": {"engine": "dense"},
    "tiles of 8": {"engine": "tiled", "tile": 8},
    "tiles of 64": {"engine": "tiled"},
}
ENGINES["tiles of 64"]["tile"] = 64
N, D, T = 11, 3, 0.3
GROUPS = np.asarray([4, 1, 4, 0, 2, 1, 4, 3, 0, 3, 1])  # of repeated captions, in no order
QUEUE_GROUPS = np.asarray([1, 9, 4, 0, 4, 8, 1, 3, 0])
LABELS = np.asarray([2, 0, 1, 2, 0, 1, 0, 2, 1, 3, 0])
KEY_LABELS = np.asarray([0, 1, 2, 0, 1, 2, 0, 1, 2])
rng = np.random.default_rng(0)
MATRIX = rng.random((N, N)) < 0.3  # asymmetric, and with some of its diagonal
BESIDE = rng.random((N, len(QUEUE_GROUPS))) < 0.3


def draw(seed: int, **shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {name: generator.normal(size=shape) for name, shape in shapes.items()}


@dataclass(frozen=True)
class Setup:
    """A loss, its arrays, what is positional besides, and its rows one by one."""

    loss: PairLoss
    row_loss: Callable[..., Any]
    rows: Callable[..., plain.Rows]
    arrays: Mapping[str, np.ndarray]
    labels: Any = None
    options: Mapping[str, Any] = field(default_factory=dict)
    logit: Callable[[Any, Any], Any] = lambda s, t: s / t
    reduction: str = "mean"

    @property
    def learns_temperature(self) -> bool:
        return self.loss.name != "f_micl_kl"

    def want(self, ignored: Callable[[int, int], bool]) -> tuple[float, dict[str, np.ndarray]]:
        def value(x: Mapping[str, Any]) -> Any:
            t = x.get("temperature", 1.0)
            rows = self.rows({name: v for name, v in x.items() if name != "temperature"}, ignored)
            return plain.value(self.row_loss, rows, lambda s: self.logit(s, t), self.reduction)

        arrays = dict(self.arrays) | ({"temperature": np.asarray(T)} if self.learns_temperature else {})
        return float(np.real(value(arrays))), plain.derivative(value, arrays)

    def got(self, framework: str, **options: Any) -> tuple[float, dict[str, np.ndarray]]:
        here = load(framework)
        arrays = here.arrays(self.arrays)
        keys = {"keys": arrays.pop("keys")} if "keys" in arrays else {}
        if self.learns_temperature:
            keys["temperature"] = here.array(np.asarray(T))
        positional = [*arrays.values()]
        if self.labels is not None:
            positional.insert(1, self.labels)
        options = {"reduction": self.reduction, **keys, **self.options, **options}
        value, gradient = ss.value_and_gradient(self.loss, *positional, **options)
        names = [*self.arrays, *(["temperature"] if self.learns_temperature else [])]
        found = dict(zip(names, (gradient,))) if len(names) == 1 else gradient._asdict()
        return float(here.numbers(value)), {name: here.numbers(x) for name, x in found.items()}

    def check(self, framework: str, wanted: tuple[float, dict[str, np.ndarray]], **options: Any) -> None:
        value, gradient = self.got(framework, **options)
        want, want_gradient = wanted
        assert value == pytest.approx(want, rel=1e-12, abs=1e-13)
        assert gradient.keys() == want_gradient.keys()
        for name, x in want_gradient.items():
            assert distance(gradient[name], x) <= 1e-11, name


TWO = {"a": (N, D), "b": (N, D)}
QUERIES = {"queries": (N, D), "positives": (N, D)}
VIEWS = {"view_0": (N, D), "view_1": (N, D)}


@pytest.fixture(autouse=True)
def spare_programs(request: pytest.FixtureRequest) -> None:
    """TensorFlow never frees a program that XLA compiled, about 50 MB each: it takes one set of parameters in four."""
    call = getattr(request.node, "callspec", None)
    if call is None or call.params.get("framework") != "tensorflow" or "tiles" not in str(call.params.get("engine")):
        return
    if crc32(call.id.encode()) % 4:
        pytest.skip("TensorFlow never frees a program, so that one set of parameters in four is compiled there")


SETUPS = {
    "clip": Setup(losses.clip(T), plain.sincere, plain.towers, draw(1, **TWO)),
    "infoloob": Setup(losses.infoloob(T), plain.decoupled, plain.towers, draw(2, **TWO)),
    "siglip": Setup(
        losses.siglip(T, -1.5),
        plain.siglip,
        plain.queries,
        draw(3, **TWO),
        logit=lambda s, t: s / t - 1.5,
        reduction="sum",
    ),
    "info_nce": Setup(losses.info_nce(T), plain.sincere, plain.queries, draw(4, **QUERIES)),
    "info_nce_queue": Setup(
        losses.info_nce(T), plain.sincere, plain.queue, draw(5, **QUERIES, negatives=(len(QUEUE_GROUPS), D))
    ),
    "nt_xent": Setup(losses.nt_xent(T), plain.supcon_out, plain.views, draw(6, **VIEWS)),
    "nt_xent_three_views": Setup(
        losses.nt_xent(T), plain.supcon_out, plain.views, draw(7, **VIEWS, view_2=(N, D)), reduction="pairs"
    ),
    "f_micl": Setup(
        losses.f_micl("kl"),
        plain.f_micl,
        plain.paired_views,
        draw(8, view_a=(N, D), view_b=(N, D)),
        logit=lambda s, t: 2.0 * s - 2.0,
    ),
    "sincere": Setup(
        losses.sincere(T),
        plain.sincere,
        plain.labelled(lambda i, j: float(LABELS[i] == LABELS[j])),
        draw(9, embeddings=(N, D)),
        LABELS.tolist(),
    ),
    "supcon_views": Setup(
        losses.supcon(T),
        plain.supcon_out,
        plain.labelled(lambda i, j: float(LABELS[i] == LABELS[j])),
        draw(10, embeddings=(N, 2, D)),
        LABELS.tolist(),
    ),
    "decoupled_keys": Setup(
        losses.decoupled(T),
        plain.decoupled,
        plain.labelled(lambda i, j: float(LABELS[i] == KEY_LABELS[j])),
        draw(11, embeddings=(N, D), keys=(len(KEY_LABELS), D)),
        LABELS.tolist(),
        {"key_labels": KEY_LABELS.tolist()},
    ),
}
BESIDE_OTHERS = {"info_nce_queue", "decoupled_keys"}


def forms(name: str) -> dict[str, tuple[Callable[[Any], Any], Callable[[int, int], bool]]]:
    """What is ignored, as a call says it and by pairs of samples. The queue and the keys have groups of their own."""
    beside = name in BESIDE_OTHERS
    matrix = BESIDE if beside else MATRIX
    groups: Any = GROUPS.tolist()
    if name == "info_nce_queue":
        groups = (groups, None, QUEUE_GROUPS.tolist())
    elif beside:
        groups = (groups, QUEUE_GROUPS.tolist())

    def grouped(i: int, j: int) -> bool:
        return bool(GROUPS[i] == QUEUE_GROUPS[j]) if beside else bool(GROUPS[i] == GROUPS[j]) and i != j

    def marked(i: int, j: int) -> bool:
        return bool(matrix[i, j])

    return {
        "groups": (lambda here: ss.same(groups), grouped),
        "a matrix": (lambda here: here.array(matrix), marked),
        "both": (lambda here: (ss.same(groups), matrix.tolist()), lambda i, j: grouped(i, j) or marked(i, j)),
    }


@cache
def wanted(name: str, form: str) -> tuple[float, dict[str, np.ndarray]]:
    return SETUPS[name].want(forms(name)[form][1])


# A single tile of all rows, and unions of relations in tiles: of one loss of each arrangement.
ARRANGED = {"clip", "info_nce_queue", "nt_xent_three_views", "sincere", "decoupled_keys"}
IGNORING = [
    (name, form, engine)
    for name in SETUPS
    for form, engine in (
        ("groups", "dense"),
        ("groups", "tiles of 8"),
        ("a matrix", "dense"),
        ("a matrix", "tiles of 8"),
        ("both", "dense"),
        ("both", "tiles of 64"),
    )
    if engine != "tiles of 64" or name in ARRANGED
]


@pytest.mark.parametrize(("name", "form", "engine"), IGNORING)
def test_ignored_pairs_are_as_if_they_were_not_there(framework: str, name: str, form: str, engine: str) -> None:
    ignore, _ = forms(name)[form]
    SETUPS[name].check(framework, wanted(name, form), ignore=ignore(load(framework)), **ENGINES[engine])


@pytest.mark.parametrize("framework", ["torch", "jax"], indirect=True)
@pytest.mark.parametrize("name", ["clip", "siglip", "info_nce", "info_nce_queue", "nt_xent"])
def test_kernels_serve_groups_of_partners(framework: str, name: str) -> None:
    ignore, _ = forms(name)["groups"]
    SETUPS[name].check(framework, wanted(name, "groups"), ignore=ignore(load(framework)), engine="kernel", tile=16)


@pytest.mark.parametrize("framework", ["torch", "jax"], indirect=True)
def test_kernels_refuse_what_they_cannot_ask_and_auto_chooses_another(framework: str) -> None:
    here = load(framework)
    a, b = here.arrays(SETUPS["clip"].arrays).values()
    ignore = here.array(MATRIX)
    with pytest.raises(EngineUnavailable, match="Without"):
        ss.clip_loss(a, b, ignore=ignore, engine="kernel")
    assert ss.explain(losses.clip(), a, b, ignore=ignore).engine in ("dense", "tiled")


@pytest.mark.parametrize(
    ("form", "engine"), [("groups", "tiles of 8"), ("a matrix", "dense"), ("a matrix", "tiles of 8")]
)
@pytest.mark.parametrize("name", ["clip", "nt_xent", "nt_xent_three_views", "info_nce_queue", "sincere"])
def test_rows_outside_are_as_if_they_were_not_there_either(framework: str, name: str, form: str, engine: str) -> None:
    """`where` beside `ignore`: the pairs of the rows that remain, each at its place in groups and matrices."""
    setup, here, beside = SETUPS[name], load(framework), name in BESIDE_OTHERS
    inside, among = np.arange(N) % 4 != 1, np.arange(len(QUEUE_GROUPS)) % 3 != 0
    ignore, ignored = forms(name)[form]
    kept = {n: x[among if n == "negatives" else inside] for n, x in setup.arrays.items()}
    rows, columns = np.flatnonzero(inside), np.flatnonzero(among if beside else inside)
    labels = None if setup.labels is None else LABELS[inside].tolist()
    small = replace(setup, arrays=kept, labels=labels, rows=_labelled_by(labels) if labels else setup.rows)
    want, want_gradient = small.want(lambda i, j: ignored(int(rows[i]), int(columns[j])))
    padded = {n: np.where((among if n == "negatives" else inside)[:, None], x, np.nan) for n, x in setup.arrays.items()}
    where = tuple(among if n == "negatives" else inside for n in setup.arrays) if beside else inside
    given = replace(setup, arrays=padded)
    value, gradient = given.got(framework, ignore=ignore(here), where=where, **ENGINES[engine])
    assert value == pytest.approx(want, rel=1e-12)
    for n, x in want_gradient.items():
        got = gradient[n]
        if n != "temperature":
            mask = among if n == "negatives" else inside
            assert not np.any(got[~mask])
            got = got[mask]
        assert distance(got, x) <= 1e-11, n


def _labelled_by(labels: list[int]) -> Callable[..., plain.Rows]:
    return plain.labelled(lambda i, j: float(labels[i] == labels[j]))


@pytest.mark.parametrize("framework", ["jax", "tensorflow"], indirect=True)
@pytest.mark.parametrize("options", [ENGINES["dense"], ENGINES["tiles of 8"]], ids=["dense", "tiled"])
def test_relations_are_arguments_of_a_compiled_program(framework: str, options: dict[str, Any]) -> None:
    """A new batch of groups and another matrix compile nothing, and values of theirs cross the boundary."""
    here, traces = load(framework), []
    a, b = here.arrays(SETUPS["clip"].arrays).values()

    @here.compile
    def loss(a: Any, b: Any, groups: Any, matrix: Any) -> Any:
        traces.append(None)
        return ss.clip_loss(a, b, ignore=(groups, matrix), **options)

    for shift in range(3):
        groups, matrix = np.roll(GROUPS, shift), np.roll(MATRIX, shift, axis=0)
        got = here.numbers(loss(a, b, ss.same(here.array(groups)), here.array(matrix)))
        want = ss.clip_loss(*SETUPS["clip"].arrays.values(), ignore=(ss.same(groups), matrix))
        assert float(got) == pytest.approx(float(want), rel=1e-12)
    assert len(traces) == 1


@pytest.mark.parametrize("framework", ["torch"], indirect=True)
def test_torch_compiles_transforms_and_differentiates_twice_with_relations(framework: str) -> None:
    import torch

    a, b = (torch.tensor(x) for x in SETUPS["clip"].arrays.values())
    groups, matrix = torch.tensor(GROUPS), torch.tensor(MATRIX)

    def loss(a: torch.Tensor, ignore: Any = None) -> torch.Tensor:
        return ss.clip_loss(a, b, ignore=(ss.same(groups), matrix) if ignore is None else ignore)

    want = loss(a)
    torch.testing.assert_close(torch.compile(loss, backend="eager", fullgraph=True)(a), want)
    crossing = torch.compile(loss, backend="eager", fullgraph=True)
    torch.testing.assert_close(crossing(a, (ss.same(groups), matrix)), want)
    z = a.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(z), z)
    torch.testing.assert_close(torch.func.grad(loss)(a), gradient)

    def tiled(a: torch.Tensor) -> torch.Tensor:
        return ss.clip_loss(a, b, ignore=(ss.same(groups), matrix), engine="tiled", tile=8)

    torch.testing.assert_close(torch.autograd.functional.hessian(tiled, a), torch.autograd.functional.hessian(loss, a))


@pytest.mark.parametrize("framework", ["torch"], indirect=True)
def test_modules_take_what_is_ignored_at_their_call(framework: str) -> None:
    import torch

    from sincere_spec.torch import CLIPLoss, InfoNCELoss, NTXentLoss, SincereLoss

    a, b = (torch.tensor(x) for x in SETUPS["clip"].arrays.values())
    groups = ss.same(torch.tensor(GROUPS))
    torch.testing.assert_close(CLIPLoss(T)(a, b, ignore=groups), ss.clip_loss(a, b, temperature=T, ignore=groups))
    torch.testing.assert_close(
        InfoNCELoss(T)(a, b, ignore=groups), ss.info_nce_loss(a, b, temperature=T, ignore=groups)
    )
    torch.testing.assert_close(NTXentLoss(T)(a, b, ignore=groups), ss.nt_xent_loss(a, b, temperature=T, ignore=groups))
    torch.testing.assert_close(
        SincereLoss(T)(a, LABELS.tolist(), ignore=MATRIX), ss.sincere_loss(a, LABELS, T, ignore=MATRIX)
    )


def test_repeated_captions_are_no_negatives_and_the_own_pair_stays(framework: str) -> None:
    """CLIP with two captions alike; labels would make them positives, and ids drop the own pair as well."""
    here = load(framework)
    a, b, captions, t = *np.random.default_rng(0).normal(size=(2, 4, 3)), np.asarray([7, 7, 8, 9]), 0.1
    logits = plain.unit(a) @ plain.unit(b).T / t
    hidden = (captions[:, None] == captions) & ~np.eye(4, dtype=bool)
    logits[hidden] = -np.inf
    want = np.mean(np.log(np.sum(np.exp(logits), axis=1)) - np.diag(logits))
    got = ss.info_nce_loss(here.array(a), here.array(b), temperature=t, ignore=ss.same(captions))
    assert float(here.numbers(got)) == pytest.approx(want, rel=1e-12)
    words = ss.info_nce_loss(here.array(a), here.array(b), temperature=t, ignore=ss.same(["x", "x", "y", "z"]))
    assert float(here.numbers(words)) == pytest.approx(want, rel=1e-12)


BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "another shape": (
        np.ones((N, N + 1), bool),
        ShapeError,
        r"ignore: expected shape \(11, 11\), rows by b; got \(11, 12\)",
    ),
    "integers": (np.ones((N, N), int), DtypeError, "ignore: expected booleans; got int64: compare it"),
    "floats": (np.ones((N, N)), DtypeError, "ignore: expected booleans; got"),
    "a list of integers": ([[1] * N] * N, DtypeError, "ignore: expected booleans; got 1"),
    "a ragged list": ([[True], [True, False]], ShapeError, "rows of several lengths"),
    "a vector": (np.ones(N, bool), ShapeError, "expected a matrix"),
    "a number": (3, OptionError, "ignore: expected booleans"),
    "positives": (ss.positives(MATRIX), OptionError, "stands in place of labels"),
    "groups of another length": (ss.same([1, 2]), ShapeError, "groups has 2 entries for 11 rows"),
    "too many groups": (ss.same((GROUPS, GROUPS, GROUPS)), ShapeError, "each of a, b; got a tuple of 3"),
    "no groups": (ss.same((GROUPS, None)), ShapeError, "expected the group of each row of b"),
}


@pytest.mark.parametrize("bad", BAD)
def test_what_cannot_be_ignored_is_refused(framework: str, bad: str) -> None:
    ignore, error, words = BAD[bad]
    a, b = load(framework).arrays(SETUPS["clip"].arrays).values()
    with pytest.raises(error, match=words):
        ss.clip_loss(a, b, ignore=ignore)


def test_a_queue_has_groups_of_its_own() -> None:
    arrays = SETUPS["info_nce_queue"].arrays.values()
    with pytest.raises(ShapeError, match="negatives have groups of their own"):
        ss.info_nce_loss(*arrays, ignore=ss.same(GROUPS))


@pytest.mark.parametrize("groups", [None, 3, "captions", ss.same([1])])
def test_groups_are_one_a_row(groups: Any) -> None:
    with pytest.raises(OptionError, match="expected the group of each row"):
        ss.same(groups)


def test_relations_print_what_they_hold() -> None:
    assert repr(ss.same(GROUPS)) == "same([11] int64)"
    assert repr(ss.same(([1, 2], None))) == "same((2 entries, NoneType))"
    assert repr(ss.positives(MATRIX)) == "positives([11, 11] bool)"


def test_a_batch_whose_pairs_are_all_ignored_is_named_once() -> None:
    from sincere_spec.call import empty

    empty.looks_left[0] = empty.LOOKS
    with pytest.warns(ss.EmptyBatchWarning, match="none of the 11 rows"):
        ss.sincere_loss(SETUPS["sincere"].arrays["embeddings"], LABELS, ignore=np.ones((N, N), bool))


OWN = Setup(
    losses.info_nce(T), plain.sincere, plain.own_negatives, draw(12, **QUERIES, negatives=(N, 3, D)), reduction="mean"
)
FILLED = np.random.default_rng(1).random((N, 3)) < 0.7
FILLED[2] = False


@pytest.mark.parametrize("engine", ENGINES)
def test_negatives_of_each_query_are_of_no_other(framework: str, engine: str) -> None:
    OWN.check(framework, OWN.want(lambda i, j: False), **ENGINES[engine])


@pytest.mark.parametrize("engine", ["dense", "tiles of 8"])
def test_queries_may_have_fewer_negatives_than_others(framework: str, engine: str) -> None:
    """Ragged by `where`: what fills the places may be NaN; a query without a negative has loss 0."""
    padded = {**OWN.arrays, "negatives": np.where(FILLED[..., None], OWN.arrays["negatives"], np.nan)}
    want, gradient = OWN.want(lambda i, j: not FILLED[i, j])
    value, got = replace(OWN, arrays=padded).got(framework, where=(None, None, FILLED), **ENGINES[engine])
    assert value == pytest.approx(want, rel=1e-12)
    assert not np.any(got["negatives"][~FILLED])
    for name, x in gradient.items():
        assert distance(got[name], x) <= 1e-11, name


@pytest.mark.parametrize("framework", ["torch", "jax", "tensorflow"], indirect=True)
@pytest.mark.parametrize("options", [{}, {"engine": "tiled", "tile": 8}], ids=["auto", "tiled"])
def test_frameworks_differentiate_negatives_of_each_query(framework: str, options: dict[str, Any]) -> None:
    here = load(framework)
    arrays = here.arrays(OWN.arrays)
    _, want = OWN.want(lambda i, j: False)
    got = here.gradient(lambda x: ss.info_nce_loss(**x, temperature=T, **options), arrays)
    for name in arrays:
        assert distance(here.numbers(got[name]), want[name]) <= 1e-11, name


@pytest.mark.parametrize("engine", ["dense", "tiles of 8"])
def test_queries_of_no_negatives_are_those_of_an_empty_queue(framework: str, engine: str) -> None:
    """Each has loss 0, and gradients have the shapes of their arrays."""
    here = load(framework)
    q, p, n = here.arrays({**OWN.arrays, "negatives": np.zeros((N, 0, D))}).values()
    value, gradient = ss.value_and_gradient(losses.info_nce(T), q, p, n, **ENGINES[engine])
    assert float(here.numbers(value)) == 0.0
    assert [tuple(x.shape) for x in gradient] == [(N, D), (N, D), (N, 0, D)]
    assert not any(np.any(here.numbers(x)) for x in gradient)


def test_negatives_of_each_query_that_do_not_fit_are_refused(framework: str) -> None:
    here = load(framework)
    q, p, n = here.arrays(OWN.arrays).values()
    with pytest.raises(ShapeError, match=r"negatives are of 10: give \[n, k, d\], k for each query"):
        ss.info_nce_loss(q, p, n[:10, ...])
    with pytest.raises(ShapeError, match="where=\\(None, None, mask\\)"):
        ss.info_nce_loss(q, p, n, ignore=[[True] * 3] * N)
    if framework in ("torch", "jax"):
        with pytest.raises(EngineUnavailable, match="keys of each row's own"):
            ss.info_nce_loss(q, p, n, engine="kernel")


# In place of labels: pairs of the user's own, their weights, and several labels a row.

WEIGHTS = np.where(np.random.default_rng(2).random((N, N)) < 0.4, np.random.default_rng(3).random((N, N)), 0.0)
WEIGHTS[4] = 0.0  # a row without positives
WEIGHTS[5] = 0.0
WEIGHTS[5, 2] = 0.3  # and one with a single one
KEY_WEIGHTS = WEIGHTS[:, : len(KEY_LABELS)]
HOT = (np.random.default_rng(4).random((N, 5)) < 0.35).astype(np.int64)
HOT[[2, 7]] = 0
KEY_HOT = HOT[: len(KEY_LABELS)][::-1].copy()


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    union = np.sum((a | b) > 0)
    return float(np.sum(a & b) / union) if union else 0.0


def _by(weight: Callable[[int, int], float]) -> Callable[..., plain.Rows]:
    return plain.labelled(weight)


IN_PLACE: dict[str, tuple[Setup, Callable[[Any], Any]]] = {
    "positives, sincere": (
        Setup(losses.sincere(T), plain.sincere, _by(lambda i, j: float(MATRIX[i, j])), draw(20, embeddings=(N, D))),
        lambda here: ss.positives(here.array(MATRIX)),
    ),
    "positives of views, decoupled": (
        Setup(
            losses.decoupled(T), plain.decoupled, _by(lambda i, j: float(MATRIX[i, j])), draw(21, embeddings=(N, 2, D))
        ),
        lambda here: ss.positives(MATRIX.tolist()),
    ),
    "weights, out": (
        Setup(losses.supcon(T), plain.supcon_out, _by(lambda i, j: WEIGHTS[i, j]), draw(22, embeddings=(N, D))),
        lambda here: ss.positives(here.array(WEIGHTS)),
    ),
    "weights, in, by pairs": (
        Setup(
            losses.supcon(T, "in"),
            plain.supcon_in,
            _by(lambda i, j: WEIGHTS[i, j]),
            draw(23, embeddings=(N, D)),
            reduction="pairs",
        ),
        lambda here: ss.positives(here.array(WEIGHTS)),
    ),
    "weights of views against keys": (
        Setup(
            losses.supcon(T),
            plain.supcon_out,
            _by(lambda i, j: KEY_WEIGHTS[i, j]),
            draw(24, embeddings=(N, 2, D), keys=(len(KEY_LABELS), D)),
        ),
        lambda here: ss.positives(here.array(KEY_WEIGHTS)),
    ),
    "any class in common": (
        Setup(
            losses.supcon(T),
            plain.supcon_out,
            _by(lambda i, j: float(HOT[i] @ HOT[j] > 0)),
            draw(25, embeddings=(N, D)),
        ),
        lambda here: ss.overlap(here.array(HOT), "any"),
    ),
    "any class in common, sincere, keys": (
        Setup(
            losses.sincere(T),
            plain.sincere,
            _by(lambda i, j: float(HOT[i] @ KEY_HOT[j] > 0)),
            draw(26, embeddings=(N, D), keys=(len(KEY_LABELS), D)),
        ),
        lambda here: ss.overlap((here.array(HOT > 0), here.array(KEY_HOT > 0)), "any"),
    ),
    "jaccard": (
        Setup(
            losses.supcon(T),
            plain.supcon_out,
            _by(lambda i, j: jaccard(HOT[i], HOT[j])),
            draw(27, embeddings=(N, 2, D)),
        ),
        lambda here: ss.overlap(here.array(HOT.astype(np.float32)), "jaccard"),
    ),
    "jaccard, in": (
        Setup(
            losses.supcon(T, "in"),
            plain.supcon_in,
            _by(lambda i, j: jaccard(HOT[i], HOT[j])),
            draw(28, embeddings=(N, D)),
        ),
        lambda here: ss.overlap(here.array(HOT), "jaccard"),
    ),
}


@cache
def wanted_in_place(name: str, ignoring: bool) -> tuple[float, dict[str, np.ndarray]]:
    matrix = BESIDE if "keys" in IN_PLACE[name][0].arrays else MATRIX.T
    return IN_PLACE[name][0].want(lambda i, j: ignoring and bool(matrix[i, j]))


IN_ONE_TILE = {"positives, sincere", "weights of views against keys", "jaccard"}  # one of each arrangement and kind


@pytest.mark.parametrize(
    ("name", "engine"),
    [(name, engine) for name in IN_PLACE for engine in ENGINES if engine != "tiles of 64" or name in IN_ONE_TILE],
)
def test_pairs_stand_in_place_of_labels(framework: str, name: str, engine: str) -> None:
    setup, relation = IN_PLACE[name]
    given = replace(setup, labels=relation(load(framework)))
    given.check(framework, wanted_in_place(name, False), **ENGINES[engine])


@pytest.mark.parametrize("engine", ["dense", "tiles of 8"])
@pytest.mark.parametrize("name", ["positives, sincere", "weights, out", "weights of views against keys", "jaccard"])
def test_pairs_in_place_of_labels_are_ignored_like_others(framework: str, name: str, engine: str) -> None:
    setup, relation = IN_PLACE[name]
    given = replace(setup, labels=relation(load(framework)))
    matrix = BESIDE if "keys" in setup.arrays else MATRIX.T
    given.check(framework, wanted_in_place(name, True), ignore=matrix.tolist(), **ENGINES[engine])


@pytest.mark.parametrize("engine", ["dense", "tiles of 8"])
@pytest.mark.parametrize("name", ["weights, out", "jaccard, in"])
def test_rows_outside_have_no_weights(framework: str, name: str, engine: str) -> None:
    setup, relation = IN_PLACE[name]
    inside = np.arange(N) % 4 != 1
    kept = np.flatnonzero(inside)
    weight = {"weights, out": lambda i, j: WEIGHTS[i, j], "jaccard, in": lambda i, j: jaccard(HOT[i], HOT[j])}[name]
    z = setup.arrays["embeddings"]
    small = replace(
        setup, arrays={"embeddings": z[inside]}, rows=plain.labelled(lambda i, j: weight(int(kept[i]), int(kept[j])))
    )
    want, gradient = small.want(lambda i, j: False)
    given = replace(
        setup, arrays={"embeddings": np.where(inside[:, None], z, np.nan)}, labels=relation(load(framework))
    )
    value, got = given.got(framework, where=inside, **ENGINES[engine])
    assert value == pytest.approx(want, rel=1e-12)
    assert distance(got["embeddings"][inside], gradient["embeddings"]) <= 1e-11
    assert not np.any(got["embeddings"][~inside])


def test_weights_of_one_are_labels(framework: str) -> None:
    here = load(framework)
    z = here.array(SETUPS["sincere"].arrays["embeddings"])
    same = (LABELS[:, None] == LABELS).astype(np.float64)
    for summation in ("out", "in"):
        got = ss.supcon_loss(z, ss.positives(here.array(same)), summation=summation)
        want = ss.supcon_loss(z, LABELS, summation=summation)
        assert float(here.numbers(got)) == pytest.approx(float(here.numbers(want)), rel=1e-12)


BAD_PAIRS: dict[str, tuple[Any, dict[str, Any], type[Exception], str]] = {
    "another shape": (ss.positives(MATRIX[:5]), {}, ShapeError, r"positives: expected shape \(11, 11\)"),
    "negative weights": (-1.0 * MATRIX, {}, OptionError, "expected weights of 0 and above"),
    "NaN for a weight": (np.where(MATRIX, np.nan, 1.0), {}, OptionError, "expected weights of 0 and above"),
    "labels of keys": (ss.positives(BESIDE), {"keys": 9, "key_labels": [0] * 9}, ss.SincereSpecError, "leave them out"),
    "overlap of one side": (HOT, {"keys": 9}, ShapeError, "a tuple"),
    "other numbers": (HOT * 2, {}, DtypeError, "got other numbers"),
    "too few rows": (HOT[:4], {}, ShapeError, r"overlap: expected shape \(11, 5\); got \(4, 5\)"),
}


@pytest.mark.parametrize("bad", BAD_PAIRS)
def test_pairs_that_do_not_fit_are_refused(framework: str, bad: str) -> None:
    here = load(framework)
    given, options, error, words = BAD_PAIRS[bad]
    if isinstance(given, np.ndarray):
        x = here.array(given)
        given = ss.overlap(x, "any") if given.shape[1] == 5 else ss.positives(x)
    if "keys" in options:
        options = {**options, "keys": here.array(np.ones((9, D)))}
    with pytest.raises(error, match=words):
        ss.supcon_loss(here.array(SETUPS["sincere"].arrays["embeddings"]), given, **options)


@pytest.mark.parametrize("function", [ss.sincere_loss, ss.decoupled_loss])
def test_losses_with_negatives_alone_in_the_denominator_refuse_weights(framework: str, function: Any) -> None:
    here = load(framework)
    z = here.array(SETUPS["sincere"].arrays["embeddings"])
    with pytest.raises(OptionError, match="booleans, or use supcon_loss"):
        function(z, ss.positives(here.array(WEIGHTS)))
    with pytest.raises(OptionError, match="booleans, or use supcon_loss"):
        function(z, ss.overlap(here.array(HOT), "jaccard"))


def test_overlaps_check_themselves_and_print() -> None:
    assert repr(ss.overlap(HOT, "jaccard")) == "overlap([11, 5] int64, 'jaccard')"
    with pytest.raises(OptionError, match="kind must be one of"):
        ss.overlap(HOT, "all")
    for hot in ([[1, 0]], LABELS, None):
        with pytest.raises(ShapeError, match=r"expected an array \[n, classes\]"):
            ss.overlap(hot, "any")
    for matrix in (HOT[:, :, None], LABELS):
        with pytest.raises(ShapeError, match="expected a matrix"):
            ss.positives(matrix)
    with pytest.raises(DtypeError, match="positives: expected booleans; got int64"):
        ss.positives(HOT)


GUIDES = draw(30, first=(N, 4), second=(N, 4), queue=(len(QUEUE_GROUPS), 4))
GUIDES["second"] = 0.8 * GUIDES["second"] + GUIDES["first"]
MARGIN = 0.1


def guided(name: str) -> tuple[float, dict[str, np.ndarray]]:
    """The rows of a setup, of which each leaves out what its own pair says: a direction of a pair may, and the other not."""
    setup, first, second = SETUPS[name], GUIDES["first"], GUIDES["second"]
    if name in ("nt_xent", "f_micl"):  # the columns are rows of the first view, or of either
        views = np.concatenate([first, second]) if name == "nt_xent" else first
        others = views
        partners = np.concatenate([second, first]) if name == "nt_xent" else second
        rows_of = [plain.near_guide(views, others, partners, MARGIN)]
    elif name == "info_nce_queue":
        rows_of = [plain.near_guide(first, GUIDES["queue"], second, MARGIN)]
    else:
        rows_of = [plain.near_guide(first, second, second, MARGIN), plain.near_guide(second, first, first, MARGIN)]
    out = np.concatenate(rows_of) if len({x.shape[1] for x in rows_of}) == 1 else rows_of[0]

    def rows(x: Mapping[str, Any], ignored: Callable[[int, int], bool]) -> plain.Rows:
        made = setup.rows(x, ignored)
        for at, row in enumerate(made):
            columns = [j for j in range(out.shape[1]) if name == "info_nce_queue" or j % N != at % N]
            assert len(columns) == len(row.negatives)
            row.negatives = [vector for j, vector in zip(columns, row.negatives) if not out[at, j]]
        return made

    assert 0 < out.sum() < out.size
    return replace(setup, rows=rows).want(lambda i, j: False)


wanted_by_guide = cache(guided)


GUIDED = [
    (name, engine)
    for name in ("clip", "infoloob", "info_nce", "info_nce_queue", "nt_xent", "f_micl")
    for engine in ENGINES
    if engine != "tiles of 64" or name in {"clip", "info_nce_queue", "nt_xent"}
]


@pytest.mark.parametrize(("name", "engine"), GUIDED)
def test_a_guide_leaves_out_what_it_finds_as_similar_as_the_own_pair(framework: str, name: str, engine: str) -> None:
    here = load(framework)
    rows = here.arrays(GUIDES)
    given = [rows["first"], rows["second"]] + ([rows["queue"]] if name == "info_nce_queue" else [])
    ignore = ss.guide(*given, margin=MARGIN)
    SETUPS[name].check(framework, wanted_by_guide(name), ignore=ignore, **ENGINES[engine])


def test_a_guide_that_does_not_fit_is_refused(framework: str) -> None:
    here = load(framework)
    a, b = here.arrays(SETUPS["clip"].arrays).values()
    g, short = here.array(GUIDES["first"]), here.array(GUIDES["first"][:4])
    with pytest.raises(ShapeError, match=r"guide: expected shape \(11, 4\) for b; got \(4, 4\)"):
        ss.clip_loss(a, b, ignore=ss.guide(g, short))
    with pytest.raises(ShapeError, match="an array for each of a, b; got 3"):
        ss.clip_loss(a, b, ignore=ss.guide(g, g, g))
    with pytest.raises(OptionError, match="a row's own pair"):
        ss.sincere_loss(a, LABELS, ignore=ss.guide(g, g))
    with pytest.raises(OptionError, match="a row's own pair"):
        ss.nt_xent_loss(a, b, a, ignore=ss.guide(g, g, g))
    with pytest.raises(OptionError, match="margin must be"):
        ss.guide(g, g, margin=float("nan"))
    with pytest.raises(ShapeError, match="one array for each positional array"):
        ss.guide(g)


PAIRS = np.asarray([3, 1, 4, 0, 2, 1, 5, 3, 6, 7, 8])  # of groups so small that dense hides their columns one by one


@cache
def wanted_of_pairs(name: str) -> tuple[float, dict[str, np.ndarray]]:
    return SETUPS[name].want(lambda i, j: bool(PAIRS[i] == PAIRS[j]) and i != j)


@pytest.mark.parametrize("engine", ["dense", "tiles of 8"])
@pytest.mark.parametrize("name", ["clip", "infoloob", "siglip", "info_nce", "nt_xent", "f_micl"])
def test_small_groups_hide_few_columns(framework: str, name: str, engine: str) -> None:
    SETUPS[name].check(framework, wanted_of_pairs(name), ignore=ss.same(PAIRS), **ENGINES[engine])


def test_hard_negatives_of_each_query_and_those_of_the_batch(framework: str) -> None:
    """Each query against its own negatives, and, by keys, against those of all: two losses, and each has a call."""
    here = load(framework)
    q, p, n = OWN.arrays.values()
    unit, t = plain.unit, 0.07
    own = np.concatenate(
        [np.sum(unit(q) * unit(p), axis=1)[:, None], np.einsum("nd,nkd->nk", unit(q), unit(n))], axis=1
    )
    want = np.mean(np.log(np.sum(np.exp(own / t), axis=1)) - own[:, 0] / t)
    arrays = [here.array(x) for x in (q, p, n)]
    assert float(here.numbers(ss.info_nce_loss(*arrays))) == pytest.approx(want, rel=1e-12)
    keys = np.concatenate([p, n.reshape(-1, D)])
    shared = unit(q) @ unit(keys).T / t
    want = np.mean(np.log(np.sum(np.exp(shared), axis=1)) - np.diag(shared))
    got = ss.sincere_loss(arrays[0], np.arange(N), t, keys=here.array(keys), key_labels=np.arange(len(keys)))
    assert float(here.numbers(got)) == pytest.approx(want, rel=1e-12)


def test_given_pairs_go_one_way_and_may_be_none(framework: str) -> None:
    """A row whose positive has other positives, and a row without any, which does not count."""
    here = load(framework)
    z = np.random.default_rng(0).normal(size=(4, 8))
    pairs = np.asarray([[0, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]])
    logits = plain.unit(z) @ plain.unit(z).T / 0.1
    np.fill_diagonal(logits, -np.inf)
    log_softmax = logits - np.log(np.sum(np.exp(logits), axis=1, keepdims=True))
    rows = -np.sum(np.where(pairs > 0, log_softmax, 0.0), axis=1)[:3] / pairs.sum(axis=1)[:3]
    given = here.array(pairs)
    got = ss.supcon_loss(here.array(z), ss.positives(given > 0))
    assert float(here.numbers(got)) == pytest.approx(rows.mean(), rel=1e-12)
    with pytest.raises(DtypeError, match=r"expected booleans; got int.*: compare it"):
        ss.supcon_loss(here.array(z), ss.positives(given))


def test_pairs_that_no_label_says(framework: str) -> None:
    """Rows share classes in a way that is not transitive; the pairs, or their classes, say it alike."""
    here = load(framework)
    z = np.random.default_rng(0).normal(size=(6, 8))
    y = np.asarray([[1, 0, 1], [0, 1, 1], [1, 1, 0], [0, 0, 1], [1, 0, 0], [0, 1, 0]])
    logits = plain.unit(z) @ plain.unit(z).T / 0.1
    np.fill_diagonal(logits, -np.inf)
    positive = (y @ y.T > 0) & ~np.eye(6, dtype=bool)
    log_softmax = logits - np.log(np.sum(np.exp(logits), axis=1, keepdims=True))
    want = np.mean(-np.sum(np.where(positive, log_softmax, 0.0), axis=1) / positive.sum(axis=1))
    for labels in (ss.overlap(here.array(y), "any"), ss.positives(here.array(positive))):
        assert float(here.numbers(ss.supcon_loss(here.array(z), labels))) == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize("framework", ["tensorflow"], indirect=True)
@pytest.mark.parametrize("options", [ENGINES["dense"], ENGINES["tiles of 8"]], ids=["dense", "tiled"])
def test_a_graph_of_tensorflow_has_relations_of_any_number_of_rows(framework: str, options: dict[str, Any]) -> None:
    import tensorflow as tf

    def rows(*shape: int | None) -> Any:
        return tf.TensorSpec(shape, tf.float64)

    a, b, n = (tf.constant(x) for x in (*SETUPS["clip"].arrays.values(), OWN.arrays["negatives"]))
    many = [rows(None, D), rows(None, D)]

    @tf.function(input_signature=[*many, tf.TensorSpec((None,), tf.int64), tf.TensorSpec((None, None), tf.bool)])
    def ignoring(a: Any, b: Any, groups: Any, matrix: Any) -> Any:
        return ss.clip_loss(a, b, ignore=(ss.same(groups), ss.guide(a, b), matrix), **options)

    @tf.function(input_signature=[rows(None, D), rows(None, None)])
    def weighted(z: Any, weights: Any) -> Any:
        return ss.supcon_loss(z, ss.positives(weights), **options)

    @tf.function(input_signature=[*many, rows(None, 3, D)])
    def own(q: Any, p: Any, n: Any) -> Any:
        return ss.info_nce_loss(q, p, n, **options)

    pairs = {
        "ignoring": (
            ignoring(a, b, tf.constant(GROUPS), tf.constant(MATRIX)),
            ss.clip_loss(a, b, ignore=(ss.same(GROUPS), ss.guide(a, b), tf.constant(MATRIX)), engine="dense"),
        ),
        "weighted": (
            weighted(a, tf.constant(WEIGHTS)),
            ss.supcon_loss(a, ss.positives(tf.constant(WEIGHTS)), engine="dense"),
        ),
        "own": (own(a, b, n), ss.info_nce_loss(a, b, n, engine="dense")),
    }
    for name, (got, want) in pairs.items():
        assert float(got) == pytest.approx(float(want), rel=1e-12), name


# The calls of the page of relations, each with arrays of the framework as arguments of a program.

FIRST, SECOND = SETUPS["clip"].arrays.values()
PROGRAMS: dict[str, tuple[tuple[np.ndarray, ...], Callable[..., Any]]] = {
    "rows that take part": ((FIRST, LABELS, GROUPS > 0), lambda z, y, real: ss.supcon_loss(z, y, where=real)),
    "a queue filled in part": (
        (FIRST, SECOND, SECOND[:9], QUEUE_GROUPS < 4),
        lambda q, p, queue, filled: ss.info_nce_loss(q, p, queue, where=(None, None, filled)),
    ),
    "repeated captions": ((FIRST, SECOND, GROUPS), lambda a, b, c: ss.clip_loss(a, b, ignore=ss.same(c))),
    "a guide": (
        (FIRST, SECOND, *(GUIDES[name] for name in ("first", "second"))),
        lambda q, p, gq, gp: ss.info_nce_loss(q, p, ignore=ss.guide(gq, gp, margin=0.05)),
    ),
    "pairs left out": ((FIRST, SECOND, MATRIX), lambda a, b, mask: ss.nt_xent_loss(a, b, ignore=mask)),
    "pairs left out for two reasons": (
        (FIRST, SECOND, GROUPS, MATRIX),
        lambda a, b, c, mask: ss.siglip_loss(a, b, ignore=(ss.same(c), mask)),
    ),
    "pairs": ((FIRST, MATRIX), lambda z, pairs: ss.sincere_loss(z, ss.positives(pairs))),
    "weights": ((FIRST, WEIGHTS), lambda z, weights: ss.supcon_loss(z, ss.positives(weights))),
    "several labels": ((FIRST, HOT), lambda z, hot: ss.supcon_loss(z, ss.overlap(hot, "any"))),
    "shares of several labels": (
        (FIRST, HOT, SECOND[:9], KEY_HOT),
        lambda z, hot, keys, key_hot: ss.supcon_loss(z, ss.overlap((hot, key_hot), "jaccard"), keys=keys),
    ),
    "negatives of each query": (
        (*OWN.arrays.values(), FILLED),
        lambda q, p, n, there: ss.info_nce_loss(q, p, n, where=(None, None, there)),
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_each_call_of_the_page_is_a_program(framework: str, name: str) -> None:
    """In NumPy as it is; in torch by Dynamo, under jit in JAX, and in a graph of TensorFlow."""
    here, (arrays, call) = load(framework), PROGRAMS[name]
    want, program = float(call(*arrays)), call
    if framework == "torch":
        import torch

        program = torch.compile(call, backend="eager", fullgraph=True)
    elif framework == "jax":
        program = here.compile(call)
    elif framework == "tensorflow":
        import tensorflow as tf

        program = tf.function(call)
    got = program(*(here.array(x) for x in arrays))
    assert float(here.numbers(got)) == pytest.approx(want, rel=1e-12)


def test_classes_in_common_make_no_matrix_of_pairs() -> None:
    """The peak, of which N x N numbers would be four times as much."""
    import tracemalloc

    n, generator = 2048, np.random.default_rng(0)
    z, hot = generator.normal(size=(n, 32)), generator.random((n, 32)) < 0.1
    ss.value_and_gradient(losses.supcon(T), z, ss.overlap(hot, "jaccard"), engine="tiled", tile=128)
    tracemalloc.start()
    ss.value_and_gradient(losses.supcon(T), z, ss.overlap(hot, "jaccard"), engine="tiled", tile=128)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * n * n / 4
