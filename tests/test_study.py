"""The study: its images, its encoder, its verdicts, and a whole quick run."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from typer.testing import CliRunner

import sincere_spec as ss
from sincere_spec.cli import app
from sincere_spec.study import command, data, measures, plots, report, verdicts
from sincere_spec.study import run as running
from sincere_spec.study.augment import batches, view
from sincere_spec.study.data import DataError, Found, Images
from sincere_spec.study.encoder import Encoder
from sincere_spec.study.optimiser import EPSILON, FIRST, RATE, SECOND, adam, rate
from sincere_spec.study.parts import divergences, equivalence, repulsion, separation, temperature
from sincere_spec.study.parts import runs as runs_of
from sincere_spec.study.settings import PARTS, Settings
from sincere_spec.study.train import Job, embed, train

ROOT = Path(__file__).parents[1]


def images(count: int = 96, side: int = 6) -> Images:
    random = np.random.default_rng(0)
    labels = np.arange(count) % 4
    pixels = (random.normal(size=(count, 1, side, side)) + random.normal(size=(4, 1, side, side))[labels]).astype(
        np.float32
    )
    return Images("made", pixels, labels, pixels[: count // 2], labels[: count // 2], -1.0, False, "0")


# --- images ---


def write_fashion(folder: Path) -> None:
    for name in data.FASHION:
        (folder / name).write_bytes(gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 3, 1, 2, 3])))


def test_a_file_of_idx_bytes(tmp_path: Path) -> None:
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, *range(6)])))
    assert data.idx(path).tolist() == [[0, 1, 2], [3, 4, 5]]
    for raw in (b"", b"plain", gzip.compress(b"ab"), gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 9, 1]))):
        path.write_bytes(raw)
        with pytest.raises(DataError, match=r"x\.gz is no file of IDX bytes"):
            data.idx(path)


def test_fashion_mnist_is_told_by_its_digests(tmp_path: Path) -> None:
    write_fashion(tmp_path)
    found = data.find(str(tmp_path))
    assert found.name == "fashion"
    with pytest.raises(DataError, match="is not Fashion-MNIST's: its sha256 is"):
        data.load(found, 10)


def test_where_fashion_mnist_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "places", lambda: [tmp_path / "nowhere", tmp_path])
    fallback = data.find("")
    assert fallback.name == "digits"
    assert "because Fashion-MNIST was not found" in fallback.sentence
    assert "apt-get download dataset-fashion-mnist" in fallback.sentence
    with pytest.raises(DataError, match="was not found in"):
        data.find("fashion")
    write_fashion(tmp_path)
    assert data.find("") == data.find("fashion") != fallback
    assert str(tmp_path) in data.find("").folder
    with pytest.raises(DataError, match="nowhere is none"):
        data.find(str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="neither Fashion-MNIST"):
        data.find(str(tmp_path / "empty"))


def test_places_begin_with_what_the_user_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SINCERE_SPEC_DATA", "/mine")
    assert data.places()[0] == Path("/mine")
    assert Path("/usr/share/datasets/fashion-mnist") in data.places()


def python_2_pickle(pixels: np.ndarray, labels: list[int]) -> bytes:
    """A batch as CIFAR-10's own files are: pickled by Python 2, whose strings are bytes."""

    def integer(x: int) -> bytes:
        return b"J" + x.to_bytes(4, "little", signed=True)

    def text(x: bytes) -> bytes:
        return b"T" + integer(len(x))[1:] + x

    dtype = b"cnumpy\ndtype\n" + text(b"u1") + integer(0) + integer(1) + b"\x87R"
    dtype += b"(" + integer(3) + text(b"|") + b"NNN" + integer(-1) + integer(-1) + integer(0) + b"tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + integer(0) + b"\x85" + text(b"b") + b"\x87R"
    array += b"(" + integer(1) + integer(len(pixels)) + integer(pixels.shape[1]) + b"\x86" + dtype + b"\x89"
    array += text(pixels.tobytes()) + b"tb"
    names = b"](" + b"".join(map(integer, labels)) + b"e"
    return b"\x80\x02}(" + text(b"labels") + names + text(b"data") + array + b"u."


def write_cifar(folder: Path) -> np.ndarray:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (20, 3072), dtype=np.uint8)
    for name in ("data_batch_1", "data_batch_2", "test_batch"):
        (folder / name).write_bytes(python_2_pickle(pixels, list(range(10)) * 2))
    return pixels


def test_a_folder_of_cifar_10(tmp_path: Path) -> None:
    inner = tmp_path / "cifar-10-batches-py"
    inner.mkdir()
    pixels = write_cifar(inner)
    found = data.find(str(tmp_path))
    assert (found.name, found.folder) == ("cifar10", str(inner))
    assert data.find(str(inner)) == found
    made = data.load(found, 30)
    assert made.train.shape == (30, 3, 32, 32)
    assert made.test.shape == (20, 3, 32, 32)
    chosen = np.random.default_rng(data.SPLIT).permutation(40)[:30] % 20
    assert (made.train_labels == np.tile(np.arange(10), 2)[chosen]).all()
    restored = made.train * pixels[chosen].std() + pixels[chosen].mean()
    np.testing.assert_allclose(restored.reshape(30, -1), pixels[chosen], atol=1e-3)


class Payload:
    def __reduce__(self):
        return os.mkdir, ("hacked",)


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(Payload()),
        pickle.dumps({b"data": Payload(), b"labels": []}),
        pickle.dumps({b"data": np.zeros((2, 7)), b"labels": [0, 1]}),
        pickle.dumps([1, 2]),
        b"no pickle",
        b"",
    ],
)
def test_other_pickles_are_refused(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_cifar(tmp_path)
    (tmp_path / "data_batch_2").write_bytes(content)
    with pytest.raises(DataError, match="data_batch_2 is no batch of CIFAR-10"):
        data.load(data.find(str(tmp_path)), 10)
    assert not (tmp_path / "hacked").exists()


def test_digits_are_standardised() -> None:
    made = data.load(Found("digits", "", ""), 1000)
    assert made.train.shape == (1000, 1, 8, 8)
    assert len(made.test) == 500
    assert made.train.mean() == pytest.approx(0.0, abs=1e-4)
    assert made.train.std() == pytest.approx(1.0, abs=1e-4)
    assert made.train.min() == pytest.approx(made.black, abs=1e-6)
    assert data.transfer(made) is None


# --- views ---


class Still:
    """A generator without chance: the middle of every interval, and no flip."""

    def uniform(self, low: float, high: float, shape: tuple[int, ...]) -> np.ndarray:
        return np.full(shape, 0.5 * (low + high))

    def random(self, shape: tuple[int, ...]) -> np.ndarray:
        return np.ones(shape)


def test_a_view_without_chance_is_the_image_a_little_larger() -> None:
    """The middle of the zooms is 0.95: a pixel at p is the mean of the two that 0.95 p lies between."""
    x = images(3).train
    got = view(x, Still(), False, -1.0, True)  # type: ignore[arg-type]
    side = x.shape[-1]
    middle = 0.5 * (side - 1)
    for row in range(side):
        for column in range(side):
            expected = 0.0
            for i in range(side):
                for j in range(side):
                    weight = max(0.0, 1.0 - abs((row - middle) * 0.95 + middle - i))
                    weight *= max(0.0, 1.0 - abs((column - middle) * 0.95 + middle - j))
                    expected = expected + weight * (x[:, 0, i, j] + 1.0)
            np.testing.assert_allclose(got[:, 0, row, column], expected - 1.0, atol=1e-5)


def test_views_flip_and_shift() -> None:
    x = images(64).train
    random = np.random.default_rng(1)
    mirrored = view(x, random, True, -1.0, True)
    assert mirrored.shape == x.shape
    assert mirrored.dtype == np.float32
    black = view(np.full_like(x, -1.0), np.random.default_rng(1), True, -1.0, True)
    assert np.ptp(black.reshape(64, -1), axis=1).max() < 1e-5  # a black image stays one colour
    assert (view(x, np.random.default_rng(1), True, -1.0, True) == mirrored).all()


def test_batches_take_every_image_once_an_epoch() -> None:
    made = images(96)
    labels = [y for _, y in batches(made, 0, 8, 24, False)]
    assert [len(y) for y in labels] == [24] * 8
    assert np.bincount(np.concatenate(labels[:4])).tolist() == [24] * 4
    again = [x for x, _ in batches(made, 0, 8, 24, False)]
    assert all((a[0] == b[0]).all() for a, (b, _) in zip(again, batches(made, 0, 8, 24, False)))
    assert next(batches(made, 1, 1, 24, False))[0][0].shape == (24, 36)


# --- encoder and optimiser ---


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("of", ["h", "z"])
def test_the_gradient_by_hand(activation: str, norm: bool, of: str) -> None:
    encoder = Encoder(activation, norm)
    weights = {name: x.astype(np.float64) for name, x in encoder.weights(10, 0).items()}
    random = np.random.default_rng(0)
    x = random.normal(size=(7, 10))
    pull = random.normal(size=(7, 128 if of == "h" else 64))

    def value(weights: dict[str, np.ndarray]) -> float:
        return float((pull * encoder.forward(np, weights, x)[of == "z"]).sum())

    layers = encoder.trace(weights, x)
    got = encoder.backward(weights, layers, pull if of == "h" else None, pull if of == "z" else None)
    assert layers[1][3] == pytest.approx(encoder.forward(np, weights, x)[0])
    for name, gradient in got.items():
        direction = random.normal(size=gradient.shape)
        up, down = (value({**weights, name: weights[name] + sign * 1e-6 * direction}) for sign in (1.0, -1.0))
        assert (gradient * direction).sum() == pytest.approx((up - down) / 2e-6, rel=1e-5, abs=1e-6), name


def test_adam_is_kingma_and_ba() -> None:
    random = np.random.default_rng(0)
    w = {"a": random.normal(size=3), "b": random.normal(size=2)}
    m, v = ({name: np.zeros_like(x) for name, x in w.items()} for _ in range(2))
    expected, first, second = w["a"].copy(), np.zeros(3), np.zeros(3)
    for step in range(5):
        gradient = {"a": random.normal(size=3)}
        w, m, v = adam(np, w, gradient, m, v, rate(step, 5, False))
        first = FIRST * first + (1 - FIRST) * gradient["a"]
        second = SECOND * second + (1 - SECOND) * gradient["a"] ** 2
        correction = np.sqrt(1 - SECOND ** (step + 1)) / (1 - FIRST ** (step + 1))
        expected = expected - RATE * correction * first / (np.sqrt(second) + EPSILON)
    np.testing.assert_allclose(w["a"], expected, rtol=1e-14)
    assert rate(5, 10, True) == pytest.approx(0.5 * rate(5, 10, False))


JOBS = {
    "sincere": ss.losses.sincere(0.1),
    "nt_xent": ss.losses.nt_xent(0.1),
    "f_micl": ss.losses.f_micl(divergence="js"),
    "cross_entropy": None,
}


def job(name: str, **options: object) -> Job:
    record = JOBS[name]
    given = {"steps": 12, "size": 24, "activation": "tanh", "dtype": "float64", "classes": 4, **options}
    return Job(name, 0, None if record is None else record.to_dict(), **given)  # type: ignore[arg-type]


def quiet(_: int) -> None:
    pass


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("name", JOBS)
def test_every_framework_trains_the_same_model(framework: str, name: str, norm: bool) -> None:
    if framework == "array_api_strict":
        pytest.skip("array-api-strict is no framework to train in")
    asked = job(name, norm=norm)
    ours, reference = (train(one, asked, images(), quiet) for one in (framework, "numpy"))
    np.testing.assert_allclose(ours.losses, reference.losses, rtol=1e-12)
    for key, weight in reference.weights.items():
        np.testing.assert_allclose(ours.weights[key], weight, rtol=0.0, atol=1e-10)
    assert reference.losses[-1] < reference.losses[0]


def test_one_ulp_is_seen_and_repulsion_is_recorded() -> None:
    asked = job("sincere", every=4)
    plain, moved = (train("numpy", replace(asked, ulp=ulp), images(), quiet) for ulp in (False, True))
    assert plain.losses != moved.losses
    np.testing.assert_allclose(plain.losses, moved.losses, rtol=1e-12)
    assert [row[0] for row in plain.repulsion] == [0, 4, 8]
    assert all(row[1:3] == (0.0, 0.0) for row in plain.repulsion)
    supcon = replace(asked, loss=ss.losses.supcon(0.02).to_dict(), every=1)
    assert max(row[1] for row in train("numpy", supcon, images(), quiet).repulsion) > 0.0


def test_embeddings_are_normalised_by_the_training_images() -> None:
    asked = job("nt_xent", norm=True)
    made = images()
    trained = train("numpy", asked, made, quiet)
    arrays = embed(asked, trained, made, {"test": made.test})
    assert arrays["train_z"].mean(0) == pytest.approx(np.zeros(64), abs=1e-10)
    np.testing.assert_allclose(arrays["test_z"], arrays["train_z"][: len(made.test)], atol=1e-12)
    assert arrays["test_h"].shape == (48, 128)


# --- verdicts ---


def test_the_rule_of_paired_differences() -> None:
    assert verdicts.paired([0.3, 0.31, 0.29], 1.0) == "reproduces"
    assert verdicts.paired([0.3, 0.31, 0.29], -1.0) == "contradicts"
    assert verdicts.paired([0.3, 0.9, 0.01], 1.0) == "not at this scale"  # 2 sd
    assert verdicts.paired([0.3, -0.01, 0.3], 1.0) == "not at this scale"  # signs
    assert verdicts.paired([0.3], 1.0) == verdicts.paired([], 1.0) == "not at this scale"
    assert verdicts.no_worse([0.001, -0.001, 0.0]) == "reproduces"
    assert verdicts.no_worse([-0.3, -0.31, -0.29]) == "contradicts"
    assert verdicts.no_worse([-0.3]) == "not at this scale"
    assert verdicts.summary([1.0, 3.0]) == (2.0, pytest.approx(2.0**0.5))


def made_up(**runs: list[dict[str, float]]) -> dict[str, object]:
    rows = [
        {"name": name, "seed": seed, "measures": found, "repulsion": [], "part": "supervised"}
        for name, seeds in runs.items()
        for seed, found in enumerate(seeds)
    ]
    return {"runs": rows, "repulsion by size": [], "equivalence": []}


def verdict_of(claims: list[verdicts.Claim]) -> dict[str, str]:
    return {claim.key: claim.verdict for claim in claims}


def test_claims_of_separation() -> None:
    def seeds(noise: float, probe: float) -> list[dict[str, float]]:
        table = [{"rows": 10, "bound": 3.0 * noise, "ceiling": 4.0}]
        return [
            {
                "noise": noise + 1e-3 * i,
                "margin": 1 - noise + 1e-4 * i,
                "MAP@R": 1 - noise,
                "probe": probe,
                "bound": table,
            }
            for i in range(3)
        ]

    study = made_up(sincere=seeds(0.5, 0.8), supcon_out=seeds(0.9, 0.8), supcon_in=seeds(0.95, 0.9))
    found = verdict_of(separation.claims(study))
    assert found["noise"] == found["margin"] == found["retrieval"] == "reproduces"
    assert found["probe"] == "reproduces"
    assert found["out over in"] == found["bound"] == "contradicts"
    assert "transfer" not in found  # nothing was measured for it


def test_claims_of_repulsion() -> None:
    study = made_up(sincere=[{}, {}], supcon_out=[{}, {}])
    for run in study["runs"]:  # type: ignore[attr-defined]
        share = 0.0 if run["name"] == "sincere" else 0.08
        run["repulsion"] = [[0, 0.0, 0.0, 0.0, 0.0], [64, share, share, share, share]]
    table = [
        {"kind": kind, "temperature": 0.1, "size": size, "share": size / 1000, "anchors": 0.5, "worst": 1.0}
        for kind in ("balanced", "fixed negatives")
        for size in (4, 16, 64)
    ]
    study["repulsion by size"] = [{"seed": 0, "rows": table}]
    found = verdict_of(repulsion.claims(study))
    assert found["sincere never repels"] == found["supcon_out repels"] == found["grows fixed negatives"] == "reproduces"
    assert found["grows balanced"] == "not at this scale"
    study["runs"][0]["repulsion"][0][1] = 1e-9  # type: ignore[index]
    study["runs"][2]["repulsion"][1][1] = 0.04  # type: ignore[index]
    found = verdict_of(repulsion.claims(study))
    assert found["sincere never repels"] == "contradicts"
    assert found["supcon_out repels"] == "not at this scale"


def test_claims_of_temperature_and_divergences() -> None:
    def seeds(u: float, nn: float) -> list[dict[str, float]]:
        return [
            {"uniformity h": u + 1e-3 * i, "tolerance h": u, "1-NN h": nn, "probe": nn, "10-NN": nn + 0.01 * i}
            for i in range(3)
        ]

    runs = {"nt_xent 0.05": seeds(-2.3, 0.7), "nt_xent 0.5": seeds(-2.0, 0.7), "nt_xent 0.1": seeds(-2.2, 0.7)}
    runs |= {
        "dystress": seeds(-2.1, 0.7),
        "f_micl kl": seeds(0, 0.7),
        "f_micl js": seeds(0, 0.69),
        "f_micl pearson": seeds(0, 0.7),
    }
    found = verdict_of(temperature.claims(made_up(**runs)))
    assert found["uniformity h"] == found["tolerance h"] == "reproduces"
    assert found["dystress probe"] == "not at this scale"
    found = verdict_of(divergences.claims(made_up(**runs)))
    assert found == {"f-MICL learns": "reproduces", "none dominates": "reproduces"}
    runs["f_micl pearson"] = seeds(0, 0.5)
    assert verdict_of(divergences.claims(made_up(**runs)))["f-MICL learns"] == "contradicts"


def test_claims_of_equivalence() -> None:
    weights = {"w": np.ones(3)}
    near = {"w": np.ones(3) + 1e-11}
    curves = {
        ("numpy", "equivalence float64"): ([1.0, 2.0], weights),
        ("numpy", "equivalence float64 ulp"): ([1.0, 3.0], weights),
        ("torch", "equivalence float64"): ([1.0, 2.0 + 1e-13], near),
        ("numpy", "equivalence float32"): ([1.0, 2.0], weights),
        ("torch", "equivalence float32"): ([1.0, 2.001], weights),
    }
    rows = equivalence.compared(curves)
    assert [row["framework"] for row in rows] == ["one ulp", "torch", "torch"]
    found = verdict_of(equivalence.claims({"equivalence": rows}))
    assert found["float64 largest loss"] == found["float64 largest weight"] == "reproduces"
    assert found["float32 largest loss"] == "contradicts"


# --- whole runs ---


def call(*words: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["study", *map(str, words)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


def test_a_quick_study(tmp_path: Path) -> None:
    words = ["study", "--quick", "--framework", "numpy", "--output", "out", "--keep"]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "sincere_spec.cli", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Images: scikit-learn's digits")
    out = tmp_path / "out"
    study = json.loads((out / "study.json").read_text(encoding="utf-8"))
    assert study["complete"]
    assert study["data"]["name"] == "digits"
    assert {run["name"] for run in study["runs"]} == {"sincere", "supcon_out", "supcon_in", "cross_entropy"}
    assert all(run["losses"][-1] < run["losses"][0] for run in study["runs"])
    found = {claim["key"]: claim["verdict"] for claim in study["claims"]}
    assert found["sincere never repels"] == found["supcon_in never repels"] == "reproduces"
    assert found["noise"] == "not at this scale"  # one seed
    figures = {"histograms", "repulsion", "class-size", "accuracy", "bound"}
    for name in figures:
        assert ElementTree.parse(out / f"{name}.svg").getroot().tag.endswith("svg")
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    text = (out / "study.md").read_text(encoding="utf-8")
    assert text.startswith("Images: scikit-learn's digits")
    assert set(re.findall(r"\((\S+)\.svg\)", text)) == figures
    page = (out / "study.html").read_text(encoding="utf-8")
    assert page.count("data:image/svg+xml;base64,") == len(figures)
    assert page.count("<table>") == page.count("</table>") == text.count("\n| --- ") > 1
    kept = out / "runs" / "sincere_0.npz"
    status = CliRunner().invoke(app, ["measure", f"{kept}:test_z", f"{kept}:test_labels", "--bootstrap", "0", "--json"])
    assert status.exit_code == 0
    again = json.loads(status.stdout)
    assert again["uniformity"] == pytest.approx(study["runs"][0]["measures"]["uniformity"], rel=1e-4)


def small(output: Path, **options: object) -> int:
    given = {
        "parts": PARTS,
        "data": "digits",
        "framework": "numpy",
        "losses": (),
        "seeds": 1,
        "images": 256,
        "epochs": 2,
        "quick": False,
        "output": output,
        "keep": False,
        "as_json": False,
        **options,
    }
    return command.run(**given)  # type: ignore[arg-type]


def test_a_rerun_is_the_same_but_for_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    studies = []
    for name in ("one", "two"):
        assert small(tmp_path / name, parts=("repulsion",), losses=("supcon_out",), as_json=True) == 0
        studies.append(json.loads(capsys.readouterr().out))
        assert studies[-1] == json.loads((tmp_path / name / "study.json").read_text(encoding="utf-8"))
        assert studies[-1].pop("times")
    assert studies[0] == studies[1]
    figures = sorted(path.name for path in (tmp_path / "one").glob("*.svg"))
    assert figures
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in figures)


def test_all_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "Settings", lambda **given: Settings(**given, equivalence_steps=8))
    assert small(tmp_path, epochs=1) == 0
    study = json.loads((tmp_path / "study.json").read_text(encoding="utf-8"))
    assert study["complete"]
    assert {path.stem for path in tmp_path.glob("*.svg")} == {
        "histograms",
        "repulsion",
        "class-size",
        "accuracy",
        "temperature",
        "equivalence",
        "bound",
    }
    assert {claim["part"] for claim in study["claims"]} >= {"repulsion", "separation", "temperature", "divergences"}
    assert {row["framework"] for row in study["equivalence"]} == {"one ulp"}


def test_a_run_cut_short_leaves_what_it_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def interrupt(self: running.Worker, job: Job, path: Path, tell: object) -> object:
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(job.name)
        return plain(self, job, path, tell)  # type: ignore[arg-type]

    plain = running.Worker.train
    monkeypatch.setattr(running.Worker, "train", interrupt)
    with pytest.raises(command.CannotRun, match=r"interrupted; .* has what was done"):
        small(tmp_path / "out", parts=("separation",))
    study = json.loads((tmp_path / "out" / "study.json").read_text(encoding="utf-8"))
    assert [run["name"] for run in study["runs"]] == seen == ["sincere", "supcon_out"]
    assert not study["complete"]
    assert "cut short" in (tmp_path / "out" / "study.md").read_text(encoding="utf-8")
    assert (tmp_path / "out" / "accuracy.svg").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--part", "repulson"), 'did you mean "repulsion"'),
        (("--loss", "simcse"), "loss must be one of"),
        (("--framework", "mxnet"), "framework must be one of"),
        (("--seeds", "0"), "--seeds must be 1 or more"),
        (("--epochs", "0"), "--epochs must be 1 or more"),
        (("--data", "nowhere"), "--data is fashion, digits or a folder"),
        (("--data", "fashion"), "apt-get install dataset-fashion-mnist"),
    ],
)
def test_bad_options(words: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "places", lambda: [tmp_path / "nowhere"])
    status, out, err = call(*words, "--output", tmp_path / "out")
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_files_of_others_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write_fashion(tmp_path / "in")
    status, _, err = call("--data", tmp_path / "in", "--output", tmp_path / "out")
    assert status == 2
    assert "is not Fashion-MNIST's" in err
    assert not list(tmp_path.glob("out/*"))


def test_the_report_is_html_that_closes(tmp_path: Path) -> None:
    text = "One `line` of **two**.\n\n# Title\n\n| a | b |\n| --- | --- |\n| 1 \\| 2 | <x> |\n\n![what](fig.svg)\n"
    page = report.page(text, {"fig": b"<svg/>"})
    assert "<code>line</code> of <b>two</b>" in page
    assert "<td>1 | 2</td><td>&lt;x&gt;</td>" in page
    assert "<th>a</th><th>b</th>" in page


def test_bounds_grow_with_rows_and_stay_below_their_ceiling() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(2000) % 10
    rows = random.normal(size=(10, 16))[labels] + 0.05 * random.normal(size=(2000, 16))
    found = measures.bounds(rows, labels)
    assert [row["rows"] for row in found] == [256, 1024]
    assert found[0]["ceiling"] < found[1]["ceiling"]
    assert all(row["bound"] < row["ceiling"] for row in found)
    assert measures.histogram(np.asarray([-1.0, 0.99, 1.0, np.nan]))[-1] == 2


def test_probes_learn() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(400) % 4
    rows = random.normal(size=(4, 8))[labels] + 0.1 * random.normal(size=(400, 8))
    assert measures.probe(rows[:200], labels[:200], rows[200:], labels[200:]) == 1.0
    assert measures.probe(rows[:200], labels[:200], rows[200:], random.permutation(labels[200:])) < 0.5


# --- the recorded run ---

RECORDED = ROOT / "docs" / "study" / "study.json"


def recorded() -> dict[str, object]:
    return json.loads(RECORDED.read_text(encoding="utf-8"))


def test_the_recorded_verdicts_are_those_of_the_rules() -> None:
    study = recorded()
    again = json.loads(json.dumps(study))
    again["claims"] = []
    running.judge(again, Settings(parts=tuple(study["settings"]["parts"])))  # type: ignore[index]
    assert json.loads(report.to_json(again)) == study


def test_the_recorded_run_is_of_fashion_mnist_and_three_seeds() -> None:
    study = recorded()
    assert study["data"]["name"] == "fashion"  # type: ignore[index]
    assert study["data"]["sha256"] == data._digest(data.FASHION.values())  # type: ignore[index]
    runs: dict[str, set[int]] = {}
    for run in study["runs"]:  # type: ignore[attr-defined]
        runs.setdefault(run["name"], set()).add(run["seed"])
    supervised = {"sincere", "supcon_out", "supcon_in", "cross_entropy"}
    assert runs.keys() >= supervised | {f"nt_xent {t:g}" for t in temperature.TEMPERATURES} | {"dystress"}
    assert set(map(tuple, runs.values())) == {(0, 1, 2)}


def test_the_recorded_run_is_what_was_expected() -> None:
    """The bounds that the design of the study set before it was run."""
    study = recorded()

    def late(name: str) -> list[float]:
        return [float(np.mean([row[1] for row in rows])) for rows in runs_of.repulsion(study, name, 64)]  # type: ignore[arg-type]

    def apart(measure: str, one: str = "sincere", other: str = "supcon_out") -> list[float]:
        return runs_of.differences(study, one, other, measure)  # type: ignore[arg-type]

    for name in ("sincere", "supcon_in"):
        assert max(row[1] for rows in runs_of.repulsion(study, name) for row in rows) == 0.0  # type: ignore[arg-type]
    assert min(late("supcon_out")) > 0.05
    assert max(apart("noise")) < -0.015
    margins = runs_of.of(study, "sincere"), runs_of.of(study, "supcon_out")  # type: ignore[arg-type]
    assert min(margins[0][seed]["margin"] / margins[1][seed]["margin"] for seed in range(3)) > 2.0
    assert max(map(abs, apart("probe"))) < 0.02
    assert min(apart("MAP@R")) > 0.0
    assert min(apart("MAP@R", "supcon_out", "cross_entropy")) > 0.0
    for measure in ("uniformity h", "tolerance h"):
        assert max(apart(measure, "nt_xent 0.05", "nt_xent 0.5")) < 0.0
    for row in study["equivalence"]:  # type: ignore[attr-defined]
        if row["framework"] != "one ulp":
            bounds = (1e-12, 1e-10) if row["dtype"] == "float64" else (1e-4, 1e-2)
            assert row["largest loss"] < bounds[0]
            assert row["largest weight"] < bounds[1]


def test_the_page_shows_the_recorded_run() -> None:
    text = (ROOT / "docs" / "study.md").read_text(encoding="utf-8")
    study = recorded()
    for claim in study["claims"]:  # type: ignore[attr-defined]
        assert f"| {claim['claim']} |" in text
        assert f"**{claim['verdict']}**" in text
    figures = re.findall(r"\(study/(\S+\.svg)\)", text)
    assert figures == [f"{name}.svg" for name in plots.render(study)]  # type: ignore[arg-type]
    assert ("cut short" in text) != study["complete"]
    for name in figures:
        assert (ROOT / "docs" / "study" / name).stat().st_size < 300_000
