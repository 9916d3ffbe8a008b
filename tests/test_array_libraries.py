"""Array libraries beside the frameworks: dask, ndonnx and CuPy, as array-api-compat recognises them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from catalogue import CALLS, distance, draw, rule

import sincere_spec as ss

pytestmark = pytest.mark.filterwarnings(
    "ignore:onnxruntime is not installed:UserWarning"
)  # ONNX's own evaluator serves

TESTS = Path(__file__).parent
LABELS = [0, 0, 0, 1, 1, 2]
NAMES = ("dask", "ndonnx")
MADE = (
    "sincere_keys",
    "supcon_in",
    "info_nce_queue",
    "nt_xent",
    "dystress_shifted",
    "clip",
    "siglip",
    "f_micl_pearson",
)


def array(library: str, x: Any) -> Any:
    """An array of the library that has numbers; of dask in several chunks."""
    if library == "dask":
        import dask.array

        return dask.array.from_array(np.asarray(x), chunks=2)
    import ndonnx

    return ndonnx.asarray(np.asarray(x))


def numbers(x: Any) -> np.ndarray:
    """What is in it, computed if need be."""
    return np.asarray(x.compute() if hasattr(x, "compute") else x.unwrap_numpy())


@pytest.fixture(params=NAMES)
def library(request: pytest.FixtureRequest, need: Any) -> str:
    need(request.param)
    return request.param


@pytest.mark.filterwarnings("ignore:'cos' is not implemented for 'float64' in onnxruntime:UserWarning")
@pytest.mark.parametrize("name", MADE)
def test_losses_and_their_gradients(library: str, name: str) -> None:
    """Still an array of the library: of dask one that is computed when it is asked for."""
    call = CALLS[name].with_parameters()
    arrays = {argument: array(library, x) for argument, x in call.arrays.items()}
    value, gradient = call.value_and_gradient(arrays)
    want, want_gradient = call.value_and_gradient(call.arrays)
    assert type(value).__module__.startswith(library)
    # ndonnx has the cosine of a schedule in float32.
    bound = rule("float32" if (library, name) == ("ndonnx", "dystress_shifted") else "float64", call.temperature)
    assert distance(numbers(value), want) <= bound
    for argument, x in want_gradient.items():
        assert distance(numbers(gradient[argument]), x) <= bound, argument


def test_labels_of_the_library_and_of_the_host(library: str) -> None:
    z = array(library, CALLS["sincere"].arrays["embeddings"])
    values = [
        float(numbers(ss.sincere_loss(z, labels)))
        for labels in (LABELS, np.asarray(LABELS), [*"aaabbc"], array(library, LABELS))
    ]
    assert len(set(values)) == 1


def test_tiles_are_refused_and_the_dense_engine_is_taken_at_any_size(library: str) -> None:
    z = array(library, np.ones((1500, 2)))
    plan = ss.explain(ss.losses.sincere(), z, np.zeros(1500, dtype=int))
    assert (plan.engine, plan.reason) == (
        "dense",
        f"arrays of {library} are computed later, and tiles need numbers now",
    )
    with pytest.raises(ss.EngineUnavailable, match=f'arrays of {library} are computed later.*engine="dense"'):
        ss.sincere_loss(z, np.zeros(1500, dtype=int), engine="tiled")


def test_two_libraries_do_not_mix(library: str) -> None:
    z = CALLS["clip"].arrays["a"]
    with pytest.raises(ss.MixedBackendsError, match="convert one of them"):
        ss.clip_loss(array(library, z), z)


def test_dask_of_unknown_chunks_is_refused(need: Any) -> None:
    need("dask")
    z = array("dask", CALLS["clip"].arrays["a"])
    unknown = z[z[:, 0] < 100.0]
    with pytest.raises(
        ss.ShapeError, match=r"a: expected an array of known shape; .* call its compute_chunk_sizes\(\)"
    ):
        ss.clip_loss(unknown, unknown)
    unknown.compute_chunk_sizes()
    assert np.isfinite(numbers(ss.clip_loss(unknown, unknown)))


def test_an_onnx_model_of_a_loss_and_its_gradient_for_any_number_of_rows(need: Any) -> None:
    """A graph of ndonnx, whose number of rows is an input, built and run by ONNX's own evaluator."""
    need("ndonnx")
    import ndonnx
    from onnx.reference import ReferenceEvaluator

    a, b = (ndonnx.argument(shape=("n", 4), dtype=ndonnx.float64) for _ in range(2))
    labels = ndonnx.argument(shape=("n",), dtype=ndonnx.int64)
    records = {"sincere": ss.losses.sincere(), "clip": ss.losses.clip(), "f_micl": ss.losses.f_micl()}
    outputs = {}
    for name, record in records.items():
        value, gradient = ss.value_and_gradient(record, a, labels if name == "sincere" else b)
        outputs |= {name: value, f"{name}_gradient": gradient if name == "sincere" else gradient[0]}
    model = ReferenceEvaluator(ndonnx.build({"a": a, "b": b, "labels": labels}, outputs))

    for n in (5, 8):
        given = draw(n, a=n, b=n) | {"labels": np.arange(n) % 3}
        found = dict(zip(outputs, model.run(list(outputs), given)))
        for name, record in records.items():
            arguments = (given["a"], given["labels" if name == "sincere" else "b"])
            value, gradient = ss.value_and_gradient(record, *arguments)
            assert distance(found[name], value) <= rule("float64", 0.07)
            want = gradient if name == "sincere" else gradient[0]
            assert distance(found[f"{name}_gradient"], want) <= rule("float64", 0.07)


def test_views_of_an_unknown_number_of_samples_are_refused(need: Any) -> None:
    need("ndonnx")
    import ndonnx

    z = ndonnx.argument(shape=("n", 2, 4), dtype=ndonnx.float64)
    labels = ndonnx.argument(shape=("n",), dtype=ndonnx.int64)
    with pytest.raises(ss.ShapeError, match=r"embeddings: expected shape \[rows, d\] .* flatten views into rows"):
        ss.sincere_loss(z, labels)


ON_A_DEVICE = """
import cupy, numpy as np, sincere_spec as ss
from catalogue import CALLS, distance, rule

for name, call in CALLS.items():
    call = call.with_parameters()
    arrays = {argument: cupy.asarray(x) for argument, x in call.arrays.items()}
    want = call.value_and_gradient(call.arrays)
    for engine, tile in (("dense", None), ("tiled", 4)):
        got = call.value_and_gradient(arrays, engine=engine, tile=tile)
        for x, y in ((got[0], want[0]), *((got[1][argument], want[1][argument]) for argument in want[1])):
            assert type(x) is cupy.ndarray, (name, engine)
            assert distance(x.get(), y) <= rule("float64", call.temperature), (name, engine)

z = cupy.asarray(CALLS["sincere"].arrays["embeddings"])
labels = CALLS["sincere"].labels
values = {float(ss.sincere_loss(z, y)) for y in (labels, np.asarray(labels), cupy.asarray(labels), cupy.asarray(labels) * 1.0)}
assert len(values) == 1
assert "on cuda" in str(ss.explain(ss.losses.sincere(), z, labels))
try:
    ss.clip_loss(z, np.ones((6, 4)))
except ss.MixedBackendsError as refusal:
    print(refusal)
"""


def test_cupy_by_a_module_that_looks_like_it() -> None:
    """There is no GPU here: `cupy_stub` has CuPy's array class on NumPy, which converts nothing implicitly."""
    path = os.pathsep.join([str(TESTS / "cupy_stub"), str(TESTS), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ON_A_DEVICE],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "a is a cupy array and b a numpy one; convert one of them."
