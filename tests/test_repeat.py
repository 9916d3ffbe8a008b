"""A call that is repeated gives the same bits, in every framework and engine on a CPU, whichever thread makes it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from catalogue import CALLS, Call, reduction_of
from frameworks import Framework, load

import sincere_spec as ss
from sincere_spec import losses

# One of each arrangement and kind of stage: traced programs of all of them would take minutes to compile.
NAMES = ["sincere_epsilon", "supcon_in_keys", "info_nce_queue", "nt_xent_three_views", "dystress", "clip", "f_micl_kl"]
ENGINES: dict[str, dict[str, Any]] = {"dense": {"engine": "dense"}, "tiled": {"engine": "tiled", "tile": 2}}


def bits(here: Framework, value: Any, gradients: dict[str, Any]) -> list[bytes]:
    return [here.numbers(x).tobytes() for x in (value, *gradients.values())]


def call_bits(here: Framework, call: Call, **options: Any) -> list[bytes]:
    return bits(here, *call.value_and_gradient(here.arrays(call.arrays), **options))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", NAMES)
def test_a_repeated_call_gives_the_same_bits(framework: str, name: str, engine: str) -> None:
    here, call = load(framework), CALLS[name].with_parameters()
    options = {**ENGINES[engine], "reduction": reduction_of(name)}
    first = call_bits(here, call, **options)
    call_bits(here, CALLS["clip"], engine="dense")  # what lay in memory is not what lay there before
    assert call_bits(here, call, **options) == first


@pytest.mark.parametrize("engine", ["dense", "tiled"])
def test_other_threads_give_the_same_bits(framework: str, engine: str) -> None:
    """Rows enough for several tiles and for the threads of a matrix product."""
    here, rng = load(framework), np.random.default_rng(0)
    arrays = here.arrays({"embeddings": rng.normal(size=(600, 32))})
    call = Call(losses.supcon(0.1), arrays, rng.integers(0, 7, 600).tolist(), {"engine": engine})

    def once(_: int) -> list[bytes]:
        return bits(here, *call.value_and_gradient(arrays))

    first = once(0)
    with ThreadPoolExecutor(4) as pool:
        assert all(found == first for found in pool.map(once, range(8)))


def test_a_value_has_the_bits_of_value_and_gradient(framework: str) -> None:
    here, call = load(framework), CALLS["sincere"]
    arrays = here.arrays(call.arrays)
    value, _ = call.value_and_gradient(arrays)
    assert here.numbers(ss.evaluate(call.loss, *call.arguments(arrays)[0])).tobytes() == here.numbers(value).tobytes()
