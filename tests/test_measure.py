"""`sincere-spec measure`: what it prints, what it reads, and what it refuses, in a line and with status 2."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import sincere_spec as ss
from sincere_spec.cli import app

RANDOM = np.random.default_rng(0)
LABELS = np.arange(40) % 4
ROWS = RANDOM.normal(size=(40, 6)) + RANDOM.normal(size=(4, 6))[LABELS]


def call(*words: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["measure", *map(str, words)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    np.save(tmp_path / "z.npy", ROWS)
    np.save(tmp_path / "y.npy", LABELS)
    np.savez(tmp_path / "both.npz", z=ROWS, y=LABELS)
    np.savetxt(tmp_path / "z.csv", ROWS, delimiter=",", header="a,b,c,d,e,f", comments="")
    (tmp_path / "y.csv").write_text("label\n" + "".join(f"class {label}\n" for label in LABELS), encoding="utf-8")
    return {
        "npy": [str(tmp_path / "z.npy"), str(tmp_path / "y.npy")],
        "npz": [f"{tmp_path / 'both.npz'}:z", f"{tmp_path / 'both.npz'}:y"],
        "csv": [str(tmp_path / "z.csv"), str(tmp_path / "y.csv")],
    }


@pytest.mark.parametrize("kind", ["npy", "npz", "csv"])
def test_files_of_every_kind_say_the_same(files: dict[str, str], kind: str) -> None:
    status, out, err = call(*files[kind], "--json", "--bootstrap", 50, "--k", "1,3")
    assert (status, err) == (0, "")
    found = json.loads(out)
    expected = ss.metrics.report(ROWS, LABELS, k=(1, 3), bootstrap=50)
    assert found["recall"] == {"1": expected.recall[1], "3": expected.recall[3]}
    for name in ("alignment", "uniformity", "tolerance", "margin", "map_at_r", "effective_rank"):
        assert found[name] == pytest.approx(getattr(expected, name), abs=1e-12)
    assert found["intervals"]["margin"] == pytest.approx(expected.intervals["margin"], abs=1e-12)


def test_keys_a_loss_and_a_figure(files: dict[str, str], tmp_path: Path) -> None:
    figure = tmp_path / "nearest.svg"
    words = (*files["npy"], "--keys", *files["npz"], "--loss", "supcon", "--temperature", "0.2", "--figure", figure)
    status, out, err = call(*words, "--bootstrap", 20)
    assert (status, err) == (0, "")
    expected = ss.metrics.report(ROWS, LABELS, ROWS, LABELS, loss=ss.losses.supcon(0.2), bootstrap=20)
    assert str(expected) in out
    assert "against 40 keys" in out
    assert "95 % of 20 resamples" in out
    assert "nearest noise, median" in figure.read_text(encoding="utf-8") or "<path" in figure.read_text(
        encoding="utf-8"
    )
    assert [path.name for path in tmp_path.glob(".nearest*")] == []


@pytest.mark.parametrize("other", ["torch", "jax", "tensorflow"])
def test_other_frameworks(other: str, need, tmp_path: Path) -> None:
    """In a process of its own: of one framework."""
    import os
    import subprocess
    import sys

    need(other)
    np.save(tmp_path / "z.npy", ROWS)
    np.save(tmp_path / "y.npy", LABELS)
    words = [
        "measure",
        str(tmp_path / "z.npy"),
        str(tmp_path / "y.npy"),
        "--framework",
        other,
        "--json",
        "--bootstrap",
        "0",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "sincere_spec.cli", *words],
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["map_at_r"] == pytest.approx(ss.metrics.report(ROWS, LABELS).map_at_r, abs=1e-5)


def bad_npy(path: Path) -> None:
    np.save(path, np.asarray([{"a": 1}], dtype=object), allow_pickle=True)


def bad_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(ROWS))


def with_nan(path: Path) -> None:
    rows = ROWS.copy()
    rows[[3, 7]] = np.nan
    np.save(path, rows)


def archive(path: Path) -> None:
    file = io.BytesIO()
    np.savez(file, a=ROWS, b=ROWS)
    path.write_bytes(file.getvalue())


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("z.npy", bad_npy, "Python objects, which are never loaded"),
        ("z.npy", bad_pickle, "Python objects, which are never loaded"),
        ("z.npy", with_nan, "2 rows have NaN or infinity: 3, 7"),
        ("z.npy", lambda path: np.save(path, ROWS[:39]), "has 39 rows and"),
        ("z.npy", lambda path: np.save(path, ROWS[0]), "expected embeddings of shape [rows, d]"),
        ("z.npy", lambda path: np.save(path, np.ones((40, 3), int)), "expected floating-point numbers; got int64"),
        ("z.npy", lambda path: path.write_bytes(b""), "z.npy: "),
        ("z.npz", archive, "has a, b: say which"),
        ("z.npz", lambda path: path.write_bytes(b"no archive"), "z.npz: "),
        ("z.csv", lambda path: path.write_text("1,2\n3\n"), "its lines have 1 to 2 numbers"),
        ("z.csv", lambda path: path.write_text("1,2\n3,x\n"), "could not convert"),
        ("z.txt", lambda path: path.write_text("1"), "expected a file of .npy, .npz, .csv or .pt"),
        ("gone.npy", lambda path: None, "no such file"),
    ],
)
def test_bad_embeddings(name: str, write, message: str, tmp_path: Path) -> None:
    np.save(tmp_path / "y.npy", LABELS)
    write(tmp_path / name)
    before = set(tmp_path.iterdir())
    status, out, err = call(tmp_path / name, tmp_path / "y.npy", "--figure", tmp_path / "f.svg")
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("y.npy", lambda path: np.save(path, np.zeros(40, int)), "all rows of"),
        ("y.npy", lambda path: np.save(path, np.where(LABELS == 3, np.nan, LABELS)), "labels are classes; row 3"),
        ("y.npy", lambda path: np.save(path, LABELS + 0.5), "labels are classes; row 0"),
        ("y.npy", lambda path: np.save(path, np.ones((40, 2))), "expected one label a row"),
        ("y.csv", lambda path: path.write_text("a\n\n" + "b\n" * 38), "1 labels are missing, the first in row 1"),
        ("y.csv", lambda path: path.write_text("a,b\n" * 40), "expected one label a line"),
    ],
)
def test_bad_labels(name: str, write, message: str, tmp_path: Path) -> None:
    np.save(tmp_path / "z.npy", ROWS)
    write(tmp_path / name)
    status, out, err = call(tmp_path / "z.npy", tmp_path / name)
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--loss", "sinceer"), 'did you mean "sincere"'),
        (("--loss", "sincere", "--temperature", "-1"), "temperature must be positive"),
        (("--framework", "mxnet"), "framework must be one of"),
        (("--k", "1,x"), "--k is positive integers"),
        (("--bootstrap", "-5"), "bootstrap must be"),
        (("--figure", "nowhere/f.svg"), "--figure is a file"),
        (("--figure", "f.txt"), "--figure is a file"),
    ],
)
def test_bad_options(words: tuple[str, ...], message: str, files: dict[str, str]) -> None:
    status, out, err = call(*files["npy"], *words)
    assert (status, out) == (2, "")
    assert message in err


def test_keys_of_another_width(files: dict[str, str], tmp_path: Path) -> None:
    np.save(tmp_path / "k.npy", ROWS[:, :3])
    status, _, err = call(*files["npy"], "--keys", tmp_path / "k.npy", files["npy"][1])
    assert status == 2
    assert "rows of 6 numbers" in err


def test_integers_of_a_csv_file_are_those_of_an_array(files: dict[str, str], tmp_path: Path) -> None:
    np.savetxt(tmp_path / "numbers.csv", LABELS, fmt="%d")
    status, out, _ = call(
        *files["npy"], "--keys", files["npy"][0], tmp_path / "numbers.csv", "--json", "--bootstrap", 0
    )
    assert status == 0
    assert json.loads(out)["without_positive"] == 0


def test_one_hot_labels_and_zero_rows(tmp_path: Path) -> None:
    rows = ROWS.copy()
    rows[5] = 0.0
    np.save(tmp_path / "z.npy", rows)
    np.save(tmp_path / "y.npy", np.eye(4)[LABELS])
    status, out, _ = call(tmp_path / "z.npy", tmp_path / "y.npy", "--bootstrap", 0)
    assert status == 0
    assert "left out: 1 rows of zeros" in out


@pytest.mark.framework("torch")
def test_a_file_of_torch(tmp_path: Path) -> None:
    import torch

    np.save(tmp_path / "y.npy", LABELS)
    torch.save(torch.tensor(ROWS), tmp_path / "z.pt")
    status, out, _ = call(tmp_path / "z.pt", tmp_path / "y.npy", "--json", "--bootstrap", 0)
    assert status == 0
    assert json.loads(out)["map_at_r"] == pytest.approx(ss.metrics.report(ROWS, LABELS).map_at_r)
    for content, message in ((pickle.dumps(print), "weights_only=True"), (b"no tensor", "weights_only=True")):
        (tmp_path / "z.pt").write_bytes(content)
        status, out, err = call(tmp_path / "z.pt", tmp_path / "y.npy")
        assert (status, out) == (2, "")
        assert message in err
