"""The measures, against loops written from their definitions, scikit-learn and pytorch-metric-learning; in every framework."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from frameworks import load

import sincere_spec as ss
from sincere_spec.arrays import METRICS_NAMESPACE
from sincere_spec.call.dispatch import backend_of
from sincere_spec.engines.coefficients import of_positives
from sincere_spec.metrics import host
from sincere_spec.spec import Fold, Labelled, PairLoss, Pairs, Similarity, Stage, Term

M = ss.metrics
NAN = float("nan")
DIGITS = {
    "uniformity": -1.16352238,
    "within": 0.82076852,
    "wang_liu": 0.08168287,
    "dystress": 0.82193901,
    "recall@1": 0.98887034,
    "recall@2": 0.99387869,
    "r_precision": 0.60645463,
    "map_at_r": 0.540044,
}
"""What the loops of this file, SciPy's pdist and pytorch-metric-learning give for scikit-learn's digits."""


def digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return images, labels


def measures(z, labels) -> dict[str, float]:
    return {
        "alignment": float(M.alignment(z, labels)),
        "alignment 1": float(M.alignment(z, labels, alpha=1.0)),
        "uniformity": float(M.uniformity(z)),
        "uniformity all": float(M.uniformity(z, pairs="all", t=1.0)),
        "within": float(M.tolerance(z, labels)),
        "wang_liu": float(M.tolerance(z, labels, kind="wang_liu")),
        "dystress": float(M.tolerance(z, labels, kind="dystress")),
        "separation": float(M.separation(z, labels)),
        "recall@1": float(M.recall_at(z, labels)),
        "recall@2": float(M.recall_at(z, labels, k=2)),
        "knn": float(M.knn(z, labels, k=3)),
        "r_precision": float(M.r_precision(z, labels)),
        "map_at_r": float(M.map_at_r(z, labels)),
        "rankme": float(M.effective_rank(z)),
        "variance": float(M.effective_rank(z, kind="variance")),
    }


# --- loops: the definitions, in Python's own numbers ---


def unit(z) -> list[list[float]]:
    rows = []
    for row in np.asarray(z, dtype=np.float64).tolist():
        norm = math.sqrt(math.fsum(x * x for x in row))
        rows.append([x / norm for x in row] if norm else row)
    return rows


def dot(a: list[float], b: list[float]) -> float:
    return math.fsum(x * y for x, y in zip(a, b))


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else NAN


def equal(a: float, b: float) -> bool:
    return abs(a - b) < 1e-14


def neighbour_loops(z, labels, k: int = 3) -> dict[str, list[float]]:
    """By row: target, noise, rank, whether k name its class, R-precision and average precision; NaN where undefined."""
    rows, found = unit(z), {name: [] for name in ("target", "noise", "rank", "knn", "r_precision", "map_at_r")}
    filled = [any(row) for row in rows]
    for i, row in enumerate(rows):
        others = [j for j in range(len(rows)) if j != i and filled[j]] if filled[i] else []
        s = {j: dot(row, rows[j]) for j in others}
        positive = [s[j] for j in others if labels[j] == labels[i]]
        negative = [s[j] for j in others if labels[j] != labels[i]]
        target = max(positive, default=NAN)
        found["target"].append(target)
        found["noise"].append(max(negative, default=NAN))
        if not positive:
            for name in ("rank", "knn", "r_precision", "map_at_r"):
                found[name].append(NAN)
            continue
        found["rank"].append(sum(x > target or equal(x, target) for x in negative))
        order = sorted(others, key=lambda j: -s[j])
        votes: dict[int, float] = {}
        for j in order[:k]:
            votes[labels[j]] = votes.get(labels[j], 0.0) + s[j]
        best = max(votes.values())
        found["knn"].append(float(min(c for c, v in votes.items() if equal(v, best)) == labels[i]))
        relevant = [float(labels[j] == labels[i]) for j in order[: len(positive)]]
        found["r_precision"].append(sum(relevant) / len(positive))
        found["map_at_r"].append(sum(mean(relevant[: n + 1]) * x for n, x in enumerate(relevant)) / len(positive))
    return found


def loops(z, labels) -> dict[str, float]:
    rows = [(row, label) for row, label in zip(unit(z), labels) if any(row)]
    n, classes = len(rows), len({label for _, label in rows})
    pairs = [(dot(a, b), la == lb) for i, (a, la) in enumerate(rows) for j, (b, lb) in enumerate(rows) if i != j]
    same = [s for s, alike in pairs if alike]
    by_row = {name: [x for x in values if x == x] for name, values in neighbour_loops(z, labels).items()}
    found = {
        "alignment": mean([2.0 - 2.0 * s for s in same]),
        "alignment 1": mean([math.sqrt(max(0.0, 2.0 - 2.0 * s)) for s in same]),
        "uniformity": math.log(mean([math.exp(-2.0 * (2.0 - 2.0 * s)) for s, _ in pairs])) if pairs else NAN,
        "uniformity all": math.log((math.fsum(math.exp(-(2.0 - 2.0 * s)) for s, _ in pairs) + n) / n**2)
        if pairs
        else NAN,
        "within": mean(same),
        "wang_liu": math.fsum(same) / (n * (n - 1)) if same else NAN,
        "dystress": (math.fsum(same) + n) * classes / n**2 if same else NAN,
        "separation": mean([s for s, alike in pairs if not alike]),
        "recall@1": mean([float(rank < 1) for rank in by_row["rank"]]),
        "recall@2": mean([float(rank < 2) for rank in by_row["rank"]]),
        **{name: mean(by_row[name]) for name in ("knn", "r_precision", "map_at_r")},
    }
    matrix = np.asarray([row for row, _ in rows])
    for name, centred in (("rankme", 0.0), ("variance", 1.0)):
        sigma = np.linalg.svd(matrix - centred * matrix.mean(0), compute_uv=False)
        p = sigma / sigma.sum() + 1e-7 if name == "rankme" else sigma**2 / (sigma**2).sum()
        found[name] = math.exp(-math.fsum(x * math.log(x) for x in p.tolist() if x > 0.0))
    return found


def near(got: dict[str, float], expected: dict[str, float], tolerance: float) -> None:
    wrong = {
        name: (got[name], value)
        for name, value in expected.items()
        if got[name] != pytest.approx(value, rel=tolerance, abs=tolerance, nan_ok=True)
    }
    assert not wrong


def batch(case: str) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(3)
    z, labels = random.normal(size=(60, 8)), random.integers(0, 7, 60)
    z = z + 1.5 * random.normal(size=(7, 8))[labels]
    if case == "singletons":
        labels[:5] = [20, 21, 22, 23, 24]
    elif case == "one class":
        labels = np.zeros(60, dtype=np.int64)
    elif case == "duplicates":
        z[10:20] = z[:10]
        z[30] = z[31] = z[0]
    elif case == "zero rows":
        z[[3, 17, 40]] = 0.0
    elif case == "scales":
        z = z * 10.0 ** random.integers(-20, 20, (60, 1))
    elif case == "wide":
        z, labels = random.normal(size=(12, 40)), np.arange(12) % 3
    return z, labels


CASES = ["ordinary", "singletons", "one class", "duplicates", "zero rows", "scales", "wide"]


@pytest.mark.parametrize("case", CASES)
def test_loops(case: str, framework: str) -> None:
    z, labels = batch(case)
    got = measures(load(framework).array(z, "float64"), labels.tolist())
    expected = loops(z, labels)
    if case == "duplicates":  # in which order equal similarities come is nobody's business
        for name in ("knn", "r_precision", "map_at_r"):
            del expected[name]
        distance = expected.pop("alignment 1")  # that of equal rows is the root of a rounding
        assert got["alignment 1"] == pytest.approx(distance, abs=1e-9)
    near(got, expected, 1e-12)


@pytest.mark.parametrize("case", CASES)
def test_nearest_similarities_of_loops(case: str, framework: str) -> None:
    z, labels = batch(case)
    tools = load(framework)
    found = M.nearest_similarities(tools.array(z, "float64"), tools.array(labels), tile=7)
    expected = neighbour_loops(z, labels)
    for name in ("target", "noise", "rank"):
        np.testing.assert_allclose(tools.numbers(getattr(found, name)), expected[name], rtol=1e-12, atol=1e-12)
    index, rows = tools.numbers(found.index), unit(z)
    for i, j in enumerate(index.astype(int)):
        if not any(rows[i]):
            assert j == -1
            continue
        best = max(dot(rows[i], rows[c]) for c in range(len(rows)) if c != i and any(rows[c]))
        assert j != i
        assert dot(rows[i], rows[j]) == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
def test_digits(framework: str, dtype: str, tolerance: float) -> None:
    images, labels = digits()
    if framework == "array_api_strict":  # which sorts every row, in Python's time
        images, labels = images[:300], labels[:300]
    got = measures(load(framework).array(images, dtype), labels)
    near(got, measures(images, labels), tolerance)
    if framework != "array_api_strict":
        near(got, DIGITS, max(tolerance, 1e-6))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_types_are_computed_in_float32(framework: str, dtype: str) -> None:
    tools = load(framework)
    if dtype not in tools.dtypes:
        pytest.skip(f"{framework} has no {dtype}")
    z, labels = batch("ordinary")
    rounded = tools.rounded({"z": z}, dtype)["z"]
    near(measures(tools.array(z, dtype), labels), loops(rounded, labels), 2e-5)
    assert tools.dtype(M.uniformity(tools.array(z, dtype))) == "float32"


def test_keys_and_ids(framework: str) -> None:
    tools = load(framework)
    z, labels = batch("ordinary")
    keys = tools.array(z, "float64")
    names = [f"sample {i}" for i in range(60)]
    given = {"keys": keys, "key_labels": labels, "ids": names[:20], "key_ids": names}
    rows = tools.array(z[:20], "float64")
    found = M.nearest_similarities(rows, labels[:20], **given)
    expected = {name: values[:20] for name, values in neighbour_loops(z, labels).items()}
    for name in ("target", "noise", "rank"):
        np.testing.assert_allclose(tools.numbers(getattr(found, name)), expected[name], atol=1e-12)
    for measure, name in ((M.map_at_r, "map_at_r"), (M.r_precision, "r_precision")):
        assert float(measure(rows, labels[:20], **given)) == pytest.approx(mean(expected[name]), abs=1e-12)
    s = np.asarray(unit(z)[:20]) @ np.asarray(unit(z)).T
    same = labels[:20, None] == labels[None]
    other_sample = ~np.eye(20, 60, dtype=bool)
    assert float(M.tolerance(rows, labels[:20], **given)) == pytest.approx(s[same & other_sample].mean(), abs=1e-12)
    assert float(M.separation(rows, labels[:20], **given)) == pytest.approx(s[~same].mean(), abs=1e-12)


def test_ids_join_rows_of_one_sample_and_of_different_classes() -> None:
    z, labels = batch("ordinary")
    ids = np.arange(60) // 2
    s = np.asarray(unit(z)) @ np.asarray(unit(z)).T
    same, apart = labels[:, None] == labels, ids[:, None] != ids
    assert float(M.tolerance(z, labels, ids=ids)) == pytest.approx(s[same & apart].mean(), abs=1e-12)
    assert float(M.separation(z, labels, ids=ids)) == pytest.approx(s[~same & apart].mean(), abs=1e-12)
    found = M.nearest_similarities(z, labels, ids=ids)
    target = np.where(same & apart, s, -np.inf).max(1)
    np.testing.assert_allclose(found.target, np.where(np.isinf(target), np.nan, target), atol=1e-12)


def test_two_views(framework: str) -> None:
    tools = load(framework)
    z, _ = batch("zero rows")
    x, y = tools.array(z[:30], "float64"), tools.array(z[30:], "float64")
    kept = [i for i in range(30) if z[i].any() and z[30 + i].any()]
    apart = [math.dist(unit(z)[i], unit(z)[30 + i]) for i in kept]
    assert len(kept) == 27
    for alpha in (2.0, 1.0, 3.0):
        assert float(M.alignment(x, y, alpha=alpha)) == pytest.approx(mean([a**alpha for a in apart]), abs=1e-12)


def test_a_nan_is_never_hidden(framework: str) -> None:
    z, labels = batch("ordinary")
    z[5, 2] = NAN
    tools = load(framework)
    found = measures(tools.array(z, "float64"), labels.tolist())
    assert all(math.isnan(value) for value in found.values()), found
    report = M.report(tools.array(z, "float64"), labels, loss=ss.losses.supcon())
    assert all(math.isnan(value) for _, value, _, _ in report.lines())


@pytest.mark.parametrize("labels", [[0], [], [0, 1, 2]])
def test_undefined_is_nan(labels: list[int], framework: str) -> None:
    z = load(framework).array(np.eye(3)[: len(labels)], "float64")
    found = {
        "alignment": M.alignment(z, labels),
        "tolerance": M.tolerance(z, labels),
        "recall": M.recall_at(z, labels),
        "map_at_r": M.map_at_r(z, labels),
        "repulsion": M.repulsion(ss.losses.supcon(), z, labels).share,
        "margin": M.margin(z, labels, bootstrap=10).value,
    }
    if len(labels) < 2:
        found |= {"uniformity": M.uniformity(z), "separation": M.separation(z, labels)}
    assert all(math.isnan(float(value)) for value in found.values()), found
    assert M.margin(z, labels, bootstrap=10).left_out == len(labels)


def test_no_class_has_no_noise() -> None:
    z, labels = batch("one class")
    assert math.isnan(float(M.separation(z, labels)))
    assert np.isnan(M.nearest_similarities(z, labels).noise).all()
    assert float(M.recall_at(z, labels)) == 1.0


def test_a_class_that_the_keys_lack_has_no_target() -> None:
    z, labels = batch("ordinary")
    found = M.nearest_similarities(z[:10], labels[:10] + 100, z[10:], labels[10:])
    assert np.isnan(found.target).all()
    assert np.isnan(found.rank).all()
    assert not np.isnan(found.noise).any()


# --- peers ---


@pytest.mark.framework("torch")
def test_pytorch_metric_learning(need) -> None:
    need("pytorch_metric_learning")
    import torch
    from pytorch_metric_learning.distances import CosineSimilarity
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
    from pytorch_metric_learning.utils.inference import CustomKNN

    images, labels = (torch.tensor(x) for x in digits())
    names = ("precision_at_1", "r_precision", "mean_average_precision_at_r")
    calculator = AccuracyCalculator(include=names, k="max_bin_count", knn_func=CustomKNN(CosineSimilarity()))
    found = calculator.get_accuracy(images, labels)
    ours = (M.recall_at(images, labels), M.r_precision(images, labels), M.map_at_r(images, labels))
    for name, value in zip(names, ours):
        assert float(value) == pytest.approx(found[name], abs=1e-6)


def test_scikit_learn() -> None:
    from sklearn.metrics.pairwise import cosine_distances
    from sklearn.neighbors import KNeighborsClassifier

    images, labels = digits()
    train, test = slice(0, 1200), slice(1200, None)

    def weights(distances: np.ndarray) -> np.ndarray:
        return 1.0 - distances

    model = KNeighborsClassifier(7, metric="cosine", weights=weights).fit(images[train], labels[train])
    ours = M.knn(images[test], labels[test], images[train], labels[train], k=7)
    assert float(ours) == pytest.approx(model.score(images[test], labels[test]), abs=1e-12)
    found = M.nearest_similarities(images[test], labels[test], images[train], labels[train])
    s = 1.0 - cosine_distances(images[test], images[train])
    same = labels[test][:, None] == labels[train][None]
    np.testing.assert_allclose(found.target, np.where(same, s, -1.0).max(1), atol=1e-12)
    np.testing.assert_allclose(found.noise, np.where(same, -1.0, s).max(1), atol=1e-12)
    assert (found.index == s.argmax(1)).all()


def test_a_cold_log_sum_exp_is_the_nearest() -> None:
    images, labels = digits()
    found = M.nearest_similarities(images, labels)
    tau = 1e-6
    for pairs, expected in ((Pairs.POSITIVE, found.target), (Pairs.NEGATIVE, found.noise)):
        stages = (Stage("nearest", Fold.LOGSUMEXP, over=pairs),)
        record = PairLoss("cold", Labelled(), stages, (Term("nearest", tau),), Similarity(), temperature=tau)
        np.testing.assert_allclose(ss.evaluate(record, images, labels, reduction="none"), expected, atol=1e-6)


# --- derivatives and compilers ---


def test_the_smooth_measures_have_gradients(framework: str) -> None:
    tools = load(framework)
    if tools.gradient is None:
        pytest.skip(f"{framework} has no automatic differentiation")
    z, labels = batch("ordinary")
    functions = {
        "alignment": lambda z: M.alignment(z, labels.tolist()),
        "alignment 1": lambda z: M.alignment(z, labels.tolist(), alpha=1.0),
        "uniformity": M.uniformity,
        "tolerance": lambda z: M.tolerance(z, labels.tolist(), kind="dystress"),
        "separation": lambda z: M.separation(z, labels.tolist()),
    }
    step = np.random.default_rng(0).normal(size=z.shape)
    for name, function in functions.items():
        gradient = tools.numbers(
            tools.gradient(lambda arrays, function=function: function(arrays["z"]), tools.arrays({"z": z}))["z"]
        )
        up, down = (float(function(z + sign * 1e-5 * step)) for sign in (1.0, -1.0))
        assert (gradient * step).sum() == pytest.approx((up - down) / 2e-5, rel=1e-6), name


def test_under_a_compiler(framework: str) -> None:
    tools = load(framework)
    if tools.compile is None:
        pytest.skip(f"{framework} is not compiled by XLA")
    z, labels = batch("ordinary")
    x, y = tools.array(z, "float64"), tools.array(labels)
    for function in (M.alignment, M.tolerance, M.separation, lambda z, labels: M.uniformity(z)):
        assert float(tools.compile(function)(x, y)) == pytest.approx(float(function(z, labels)), rel=1e-12)
    for function in (M.nearest_similarities, M.knn, lambda z, y: M.repulsion(ss.losses.sincere(), z, y)):
        with pytest.raises(ss.EngineUnavailable, match="call it outside jit"):
            tools.compile(function)(x, y)


def test_only_listed_functions_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    from sincere_spec.backends.array_api import ArrayApiBackend

    used: set[str] = set()
    plain = ArrayApiBackend.namespace

    class Namespace:
        def __init__(self, namespace) -> None:
            self.namespace = namespace

        def __getattr__(self, name: str):
            used.add(name)
            return getattr(self.namespace, name)

    z, labels = batch("zero rows")
    monkeypatch.setattr(ArrayApiBackend, "namespace", lambda self, x: Namespace(plain(self, x)))
    monkeypatch.setattr("sincere_spec.call.check._check_libraries", lambda *_: None)
    own = {"asarray", "int64", "arange", "take_along_axis"}  # of the adapter
    own |= {"softplus", "sigmoid"}  # asked for, and not found
    M.nearest_similarities(z, labels)
    M.map_at_r(z, labels)
    M.knn(z, labels)
    M.tolerance(z, labels, ids=np.arange(60))
    M.repulsion(ss.losses.supcon(summation="in"), z, labels)
    assert used - own <= METRICS_NAMESPACE


# --- repulsion ---


def random_batch(seed: int) -> tuple[np.ndarray, np.ndarray, float]:
    random = np.random.default_rng([7, seed])
    n, d, classes = int(random.integers(4, 24)), int(random.integers(2, 9)), int(random.integers(2, 6))
    labels = random.integers(0, classes, n)
    z = random.normal(size=(n, d)) + random.uniform(0.0, 30.0) * random.normal(size=(classes, d))[labels]
    return z, labels, float(10.0 ** random.uniform(-2.0, 0.0))


def test_sincere_and_supcon_in_never_repel() -> None:
    for seed in range(1000):
        z, labels, temperature = random_batch(seed)
        for record in (ss.losses.sincere(temperature), ss.losses.supcon(temperature, summation="in")):
            found = M.repulsion(record, z, labels)
            if found.rows == 0.0:
                continue
            assert (found.share, found.anchors, found.worst) == (0.0, 0.0, 0.0), (seed, record)
            assert not found.force > 0.0


def closed_forms(a: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> dict[str, np.ndarray]:
    def lse(mask: np.ndarray) -> np.ndarray:
        masked = np.where(mask, a, -np.inf)
        peak = np.where(mask.any(1), masked.max(1), 0.0)
        with np.errstate(divide="ignore"):
            return (peak + np.log(np.exp(masked - peak[:, None]).sum(1)))[:, None]

    number = np.maximum(positive.sum(1), 1)[:, None]
    everything = lse(positive | negative)
    return {
        "sincere": -1.0 / (1.0 + np.exp(a - lse(negative))) / number,
        "supcon_out": np.exp(a - everything) - 1.0 / number,
        "supcon_in": np.exp(a - everything) - np.exp(a - lse(positive)),
        "decoupled": -1.0 / number + 0.0 * a,
    }


@pytest.mark.parametrize(
    "record",
    [ss.losses.sincere(0.1), ss.losses.supcon(0.1), ss.losses.supcon(0.1, summation="in"), ss.losses.decoupled(0.1)],
    ids=lambda record: record.name,
)
def test_coefficients_are_the_closed_forms(record: PairLoss, framework: str) -> None:
    tools = load(framework)
    z, labels = batch("singletons")
    s = np.asarray(unit(z)) @ np.asarray(unit(z)).T
    positive = (labels[:, None] == labels) & ~np.eye(60, dtype=bool)
    negative = labels[:, None] != labels
    a = s / 0.1
    logits = tools.array(a, "float64")
    backend = backend_of(logits, "logits")
    found, counted = of_positives(backend, record, logits, tools.array(positive), tools.array(negative))
    expected = np.where(positive, closed_forms(a, positive, negative)[record.name], 0.0)
    np.testing.assert_allclose(tools.numbers(found), expected, atol=1e-14)
    assert (tools.numbers(counted) == positive.any(1)).all()
    got = M.repulsion(record, tools.array(z, "float64"), labels, tile=11)
    pushed = expected > 1e-15
    rows = positive.any(1)
    assert float(got.share) == pytest.approx(pushed[positive].mean(), abs=1e-12)
    assert float(got.anchors) == pytest.approx(pushed.any(1)[rows].mean(), abs=1e-12)
    assert float(got.force) == pytest.approx(np.maximum(expected, 0).sum() / np.abs(expected).sum(), abs=1e-12)
    assert float(got.worst) == pytest.approx(max(0.0, (expected * positive.sum(1)[:, None]).max()), abs=1e-12)
    assert float(got.rows) == rows.sum()


def test_supcon_out_repels_where_q_is_above_the_share() -> None:
    seen = 0.0
    for seed in range(50):
        z, labels, temperature = random_batch(seed)
        rows = np.asarray(unit(z))
        positive = (labels[:, None] == labels) & ~np.eye(len(z), dtype=bool)
        a = np.where(np.eye(len(z), dtype=bool), -np.inf, rows @ rows.T / temperature)
        q = np.exp(a - a.max(1, keepdims=True))
        q /= q.sum(1, keepdims=True)
        pushed = positive & (q > (1.0 + 1e-9) / np.maximum(positive.sum(1), 1)[:, None])
        if positive.any():
            found = M.repulsion(ss.losses.supcon(temperature), z, labels)
            assert float(found.share) == pytest.approx(pushed[positive].mean(), abs=1e-12)
            seen += float(found.share)
    assert seen > 1.0


def test_repulsion_is_that_of_finite_differences_for_any_record() -> None:
    """Of a record with every word: a mean, an offset, a stage that subtracts another, and rows of one positive."""
    stages = (
        Stage("noise", Fold.LOGSUMEXP, over=Pairs.NEGATIVE),
        Stage("far", Fold.SIGMOID_SQUARED, over=Pairs.POSITIVE, scale=0.5, minus="noise"),
        Stage("all", Fold.LOGSUMEXP, over=Pairs.OTHERS, scale=2.0, offset=0.3, mean=True),
    )
    terms = (Term("far", 2.0), Term("all", 0.7))
    record = PairLoss("mine", Labelled(), stages, terms, Similarity(), temperature=0.4)
    z, labels = batch("ordinary")
    z, labels = z[:12], labels[:12] % 3
    a = np.asarray(unit(z)) @ np.asarray(unit(z)).T / 0.4
    positive = (labels[:, None] == labels) & ~np.eye(12, dtype=bool)
    negative = labels[:, None] != labels

    def losses(a: np.ndarray) -> np.ndarray:
        noise = np.log(np.where(negative, np.exp(a), 0.0).sum(1))
        far = np.where(positive, 1.0 / (1.0 + np.exp(-0.5 * (a - noise[:, None]))) ** 2, 0.0).sum(1)
        others = positive | negative
        everything = np.log(np.where(others, np.exp(2.0 * a + 0.3), 0.0).sum(1) / others.sum(1))
        return 2.0 * far + 0.7 * everything

    found, _ = of_positives(backend_of(a, "a"), record, a, positive, negative)
    for i, j in np.argwhere(positive):
        step = np.zeros_like(a)
        step[i, j] = 1e-6
        slope = (losses(a + step)[i] - losses(a - step)[i]) / 2e-6
        assert found[i, j] == pytest.approx(slope, abs=1e-7)


def test_repulsion_of_views_and_of_other_arrangements() -> None:
    z, _ = batch("ordinary")
    z[20:40] = z[:20] + 0.1 * z[20:40]
    found = M.repulsion(ss.losses.nt_xent(0.1), z[:20], z[20:40], z[40:])
    labels = np.tile(np.arange(20), 3)
    assert float(found.share) == float(M.repulsion(ss.losses.supcon(0.1), z, labels).share) > 0.0
    with pytest.raises(ss.OptionError, match="clip takes a, b"):
        M.repulsion(ss.losses.clip(), z, z)


# --- the KL bound ---


def test_the_kl_bound_is_never_above_the_divergence() -> None:
    """N(1, 1) against N(0, 1): KL = 0.5, for five critics, to three standard errors."""
    random, noise = np.random.default_rng(0), 32
    critics = {
        "optimal": lambda x: x - 0.5,
        "tanh": lambda x: 2.0 * np.tanh(x),
        "scaled": lambda x: 3.0 * x,
        "constant": lambda x: 0.0 * x,
        "wrong": lambda x: -x,
    }
    bounds = {}
    for name, critic in critics.items():
        positive, others = random.normal(1.0, 1.0, 50_000), random.normal(0.0, 1.0, (50_000, noise))
        losses = np.log1p(np.exp(critic(others) - critic(positive)[:, None]).sum(1))
        bound = M.kl_bound(losses, noise)
        bounds[name] = bound.mean()
        assert bound.mean() - 3.0 * bound.std() / math.sqrt(len(bound)) < 0.5
        assert M.kl_bound(losses, noise, symmetrised=True).mean() < bound.mean()
    assert bounds["optimal"] == pytest.approx(0.475, abs=0.02)
    assert bounds["wrong"] < 0.0
    np.testing.assert_allclose(
        M.kl_bound(np.asarray([1.0, 2.0]), np.asarray([1, 3])), [math.log(2) - 1, math.log(4) - 2]
    )


def test_the_bound_of_a_report_is_the_mean_over_rows() -> None:
    z, labels = batch("singletons")
    report = M.report(z, labels, loss=ss.losses.sincere(0.5))
    losses = ss.sincere_loss(z, labels, temperature=0.5, reduction="none")
    same = labels[:, None] == labels
    rows = same.sum(1) > 1
    expected = (np.log((~same).sum(1) + 1.0) - losses)[rows].mean()
    assert report.kl_bound == pytest.approx(expected, rel=1e-12)
    assert report.kl_ceiling == pytest.approx(np.log((~same).sum(1) + 1.0)[rows].mean(), rel=1e-12)


# --- the report ---


def test_a_report_says_what_the_measures_say(framework: str) -> None:
    z, labels = batch("zero rows")
    x = load(framework).array(z, "float64")
    report = M.report(x, labels.tolist(), loss=ss.losses.supcon(0.1), k=(1, 2, 3, 100), bootstrap=20)
    single = measures(x, labels.tolist())
    got = {
        "alignment": report.alignment,
        "uniformity": report.uniformity,
        "within": report.tolerance,
        "separation": report.separation,
        "recall@1": report.recall[1],
        "recall@2": report.recall[2],
        "knn": report.knn[3],
        "r_precision": report.r_precision,
        "map_at_r": report.map_at_r,
        "rankme": report.effective_rank,
        "variance": report.effective_rank_variance,
    }
    near(got, {name: single[name] for name in got}, 1e-12)
    assert report.margin == pytest.approx(M.margin(x, labels.tolist(), bootstrap=0).value, abs=1e-12)
    assert (report.rows, report.keys, report.zero_rows, set(report.recall)) == (60, None, 3, {1, 2, 3})
    assert report.repelled_share == pytest.approx(float(M.repulsion(ss.losses.supcon(0.1), x, labels.tolist()).share))
    low, high = report.intervals["margin"]
    assert low <= report.margin <= high
    text = str(report)
    assert "3 rows of zeros" in text
    assert f"{report.map_at_r:.4f}" in text
    assert report.to_dict()["recall"]["1"] == report.recall[1]
    assert report.to_dict()["collapsed"] == []


def test_a_report_sees_collapse() -> None:
    random = np.random.default_rng(0)
    z = np.ones((50, 8)) + 1e-3 * random.normal(size=(50, 8))
    report = M.report(z, np.arange(50) % 5)
    assert len(report.collapsed) == 3
    assert "mean cosine" in report.collapsed[0]
    assert not M.report(random.normal(size=(50, 8)), np.arange(50) % 5).collapsed
    assert math.isnan(float(M.effective_rank(np.ones((50, 8)), kind="variance")))


def test_a_margin_has_a_sign_and_a_seed() -> None:
    z, labels = batch("ordinary")
    found = M.margin(z, labels)
    assert found == M.margin(z, labels)
    assert found != M.margin(z, labels, seed=1)
    assert found.low < found.value < found.high
    random = np.random.default_rng(0)
    wrong = np.concatenate([random.normal(size=(30, 4)), random.normal(size=(30, 4))])
    wrong[30:] = wrong[:30] + 1e-3
    assert float(M.margin(wrong, np.arange(60) // 30)) < 0.0


def test_memory() -> None:
    n, d = 20_000, 128
    random = np.random.default_rng(0)
    z, labels = random.normal(size=(n, d)).astype(np.float32), random.integers(0, 10_000, n)
    allowed = 64e6 + 4 * n * d * 4
    calls = (
        lambda: M.tolerance(z, labels),
        lambda: M.effective_rank(z),
        lambda: M.nearest_similarities(z[:500], labels[:500], z, labels),
    )
    for call in calls:
        tracemalloc.start()
        call()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < allowed, peak


# --- what is refused ---


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda z, y: M.alignment(z, y, alpha=0.0), ss.OptionError, "alpha must be a positive"),
        (lambda z, y: M.alignment(z, z, ids=y), ss.OptionError, "ids are for rows with labels"),
        (lambda z, y: M.alignment(z, y, normalize=False), ss.OptionError, "normalize=True"),
        (lambda z, y: M.uniformity(z, t=-1.0), ss.OptionError, "t must be a positive"),
        (lambda z, y: M.uniformity(z, pairs="both"), ss.OptionError, "pairs must be one of"),
        (lambda z, y: M.tolerance(z, y, kind="withn"), ss.OptionError, 'did you mean "within"'),
        (lambda z, y: M.tolerance(z, y[:5]), ss.ShapeError, "labels has 5 entries"),
        (lambda z, y: M.knn(z, y, k=60), ss.OptionError, "k is 60, and a row has 59 others"),
        (lambda z, y: M.knn(z, y, k=0), ss.OptionError, "k must be an integer from 1 on"),
        (lambda z, y: M.recall_at(z, y, k=1.5), ss.OptionError, "k must be an integer"),
        (lambda z, y: M.nearest_similarities(z, y, z), ss.ShapeError, "keys came without key_labels"),
        (lambda z, y: M.nearest_similarities(z, y, tile=0), ss.OptionError, "tile must be"),
        (lambda z, y: M.effective_rank(z, kind="rank"), ss.OptionError, "kind must be one of"),
        (lambda z, y: M.kl_bound(1.0, -1), ss.OptionError, "n_noise"),
        (lambda z, y: M.margin(z, y, bootstrap=-1), ss.OptionError, "bootstrap must be"),
        (lambda z, y: M.report(z, y, loss=ss.losses.clip()), ss.OptionError, "report takes a loss of labelled rows"),
        (lambda z, y: M.uniformity([[1.0]]), ss.UnknownArrayError, "embeddings"),
        (lambda z, y: M.uniformity(z.astype(int)), ss.DtypeError, "embeddings"),
    ],
)
def test_refusals(call, error: type[Exception], message: str) -> None:
    z, labels = batch("ordinary")
    with pytest.raises(error, match=message):
        call(z, labels)


def test_normalize_false_takes_unit_rows_as_they_are() -> None:
    z, labels = batch("ordinary")
    rows = np.asarray(unit(z))
    for measure in (M.alignment, M.tolerance, M.recall_at, lambda z, labels, **o: M.uniformity(z, **o)):
        assert float(measure(rows, labels, normalize=False)) == pytest.approx(float(measure(z, labels)), abs=1e-12)


def test_intervals_are_percentiles_of_resampled_rows() -> None:
    values = np.arange(100.0)
    found = host.intervals({"mean": (values,)}, {"mean": host.mean}, 2000, 0)["mean"]
    sigma = values.std() / 10.0
    assert found[0] == pytest.approx(49.5 - 1.96 * sigma, abs=0.6)
    assert found[1] == pytest.approx(49.5 + 1.96 * sigma, abs=0.6)
    assert host.intervals({"mean": (values,)}, {"mean": host.mean}, 0, 0) == {}
