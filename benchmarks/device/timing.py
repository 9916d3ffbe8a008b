"""How fast the engines are on the device: crossovers by dtype and width, shapes of the kernels, and the bench."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from importlib import import_module
from statistics import median
from time import perf_counter
from typing import Any

import torch

from benchmarks.device.worker import Asked, Row
from sincere_spec.bench.cases import Program, draw, record
from sincere_spec.bench.frameworks import Place
from sincere_spec.bench.frameworks.with_torch import PLAIN, Torch
from sincere_spec.errors import EngineUnavailable

CLASSES = 100
RUNS = 5
ENOUGH = 0.5  # seconds of samples of one program
UNIT_TILE = 8192  # rows of a tile of the unit: at most 256 MB of float32


def synchronize() -> None:
    """Wait for the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds_of(step: Callable[[], Any], runs: int) -> list[float]:
    """Seconds of each run after a warm-up; fewer runs of what takes long."""
    step()
    synchronize()
    found: list[float] = []
    while len(found) < runs and (not found or sum(found) < ENOUGH):
        began = perf_counter()
        step()
        synchronize()
        found.append(perf_counter() - began)
    return found


def measured(row: Row, make: Callable[[], Callable[[], Any]], runs: int, *, ours: bool) -> Row:
    """The row with the seconds of a step and its peak memory; an error is that row's, and a failure if the step is `ours`."""
    cuda = torch.cuda.is_available()
    try:
        step = make()
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() if cuda else 0
        row = {**row, "status": "ok", "seconds": seconds_of(step, runs)}
        return {**row, "peak": torch.cuda.max_memory_allocated() - before} if cuda else row
    except (EngineUnavailable, ImportError) as error:
        return {**row, "status": "failed" if ours else "unsupported", "reason": str(error)[:300]}
    except torch.OutOfMemoryError as error:
        return {**row, "status": "failed" if ours else "out of memory", "reason": f"out of memory: {error}"[:300]}
    except Exception as error:  # a peer's or a compiler's own
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[-260:]}"
        return {**row, "status": "failed" if ours else "unsupported", "reason": reason}
    finally:
        if cuda:
            torch.cuda.empty_cache()


class Batch:
    """The arrays of a loss on the device, and programs of them."""

    def __init__(self, asked: Asked, loss: str, size: int, dim: int, dtype: str) -> None:
        self.loss, self.dtype = loss, dtype
        self.framework = Torch(Place(asked.device, dtype, torch.get_num_threads()))
        inputs = draw(loss, size, dim, CLASSES)
        self.embeddings = len(inputs.embeddings)
        self.arrays = self.framework.arrays(inputs)

    def step(self, program: Program) -> Callable[[], Any]:
        """Value and gradient of a program."""
        function = self.framework.ours(self.loss, program) if program.kind == "ours" else PLAIN[self.loss]
        return self.framework.step(function, program, self.arrays, self.embeddings)

    def of(self, function: Callable[..., Any]) -> Callable[[], Any]:
        """Value and gradient of a function."""
        return self.framework.step(function, Program("peer", ""), self.arrays, self.embeddings)


# --- crossovers ---


def crossovers(asked: Asked) -> Iterator[Row]:
    """For each dtype and width the best tile, then dense, tiled and kernel by size; SINCERE for all, CLIP at D = 512."""
    settings = [("sincere", dtype, dim) for dtype in ("bfloat16", "float32") for dim in (512, 128, 256, 64, 1024)]
    settings[1:1] = [("clip", "bfloat16", 512)]
    sizes, tiles, runs = (512, 1024, 2048, 4096, 8192, 16384), (1024, 2048, 4096, 8192, 16384), 3
    if asked.rehearse:
        settings, sizes, tiles, runs = [("sincere", "bfloat16", 16)], (32, 64), (32, 64), 1
    for loss, dtype, dim in settings:
        place = {"loss": loss, "dtype": dtype, "dim": dim}
        batch = Batch(asked, loss, sizes[-1], dim, dtype)
        best: dict[int, float] = {}
        for tile in tiles:
            program = Program("ours", "tiled", tile=tile)
            row = measured(
                {**place, "size": sizes[-1], "program": "tiled", "tile": tile},
                partial(batch.step, program),
                runs,
                ours=True,
            )
            if row["status"] == "ok":
                best[tile] = median(row["seconds"])
            yield row
        del batch
        tile = min(best, key=lambda tile: best[tile]) if best else None
        for size in sizes:
            batch = Batch(asked, loss, size, dim, dtype)
            for engine in ("dense", "tiled", "kernel"):
                if engine == "tiled" and size == sizes[-1]:
                    continue  # measured above
                program = Program("ours", engine, tile=tile if engine == "tiled" else None)
                yield measured(
                    {**place, "size": size, "program": engine, "tile": program.tile},
                    partial(batch.step, program),
                    runs,
                    ours=engine != "dense",
                )
            del batch


# --- shapes ---


def shapes(asked: Asked) -> Iterator[Row]:
    """Each sweep of SINCERE in bfloat16 and float32, launched as a call launches it, in one shape after another.

    Statistics at D = 128 and 512; the gradient at 128, since from 256 on tiles make it faster.
    """
    size, dims, runs = (64, (32,), 1) if asked.rehearse else (16384, (128, 512), RUNS)
    for dtype, itemsize in (("bfloat16", 2),) if asked.rehearse else (("bfloat16", 2), ("float32", 4)):
        for dim in dims:
            for sweep, (method, given) in _launches(asked, size, dim, dtype).items():
                if sweep != "pull" or dim == dims[0]:
                    place: Row = {"sweep": sweep, "dtype": dtype, "size": size, "dim": dim}
                    yield from _in_shapes(
                        place, itemsize, method, given, _candidates(sweep, itemsize, asked.rehearse), runs
                    )


def _in_shapes(
    place: Row, itemsize: int, method: str, given: tuple[Any, ...], candidates: list[Any], runs: int
) -> Iterator[Row]:
    """The times of a sweep by shape; each must give what the first gave."""
    from sincere_spec.backends.torch import launch

    first, sweep = None, place["sweep"]
    known = launch.SHAPES[itemsize]
    for shape in candidates:
        launch.SHAPES[itemsize] = replace(known, **{sweep: shape})
        step = partial(getattr(launch.TritonKernels(), method), *given)
        fields = {name: value for name, value in asdict(shape).items() if value}
        row = measured({**place, "shape": fields}, lambda step=step: step, runs, ours=shape == getattr(known, sweep))
        if row["status"] == "ok":
            found = step()[0].double()
            first = found if first is None else first
            row["difference"] = ((found - first).norm() / first.norm()).item()
            if not row["difference"] < 1e-4:
                row |= {"status": "wrong", "reason": "another shape gives another result"}
            operations = 2.0 * place["size"] ** 2 * place["dim"] * _products(sweep, place["dtype"], place["dim"], shape)
            row["tflops"] = operations / median(row["seconds"]) / 1e12
        launch.SHAPES[itemsize] = known
        yield row


def _launches(asked: Asked, size: int, dim: int, dtype: str) -> dict[str, tuple[str, tuple[Any, ...]]]:
    """By sweep the method and the arguments of the launches of one call."""
    from sincere_spec.backends.torch import launch

    found: dict[str, tuple[str, tuple[Any, ...]]] = {}

    class Recording(launch.TritonKernels):
        def tally(self, spec: Any, *given: Any) -> Any:
            band = all(part.over.value == "positive" for part in spec.parts)
            found["band" if band else "tally"] = "tally", (spec, *given)
            return super().tally(spec, *given)

        def pull(self, *given: Any) -> Any:
            found["pull"] = "pull", given
            return super().pull(*given)

    known = launch.TritonKernels
    launch.TritonKernels = Recording
    try:
        Batch(asked, "sincere", size, dim, dtype).step(Program("ours", "kernel"))()
    finally:
        launch.TritonKernels = known
    return found


def _candidates(sweep: str, itemsize: int, rehearse: bool) -> list[Any]:
    """The shape in use, and others that the compiler can make."""
    from sincere_spec.backends.torch.launch import SHAPES, Shape

    base = getattr(SHAPES[itemsize], sweep)
    if rehearse:
        others = [replace(base, rows=32, columns=32)]
    elif sweep == "band":
        others = [replace(base, stages=2), replace(base, rows=128, warps=8)]
    elif sweep == "tally" and itemsize == 4:
        others = [Shape(128, 128, 16, 8, 2), Shape(128, 128, 32, 8, 2), Shape(64, 64, 16, 4, 2)]
    elif sweep == "tally":
        others = [
            Shape(64, 128, 64, 4, 3),
            Shape(128, 64, 64, 4, 3),
            Shape(64, 256, 64, 4, 3),
            Shape(64, 128, 32, 4, 4),
        ]
        others += [Shape(64, 128, 128, 4, 2)]
    elif itemsize == 4:
        others = [Shape(64, 64, 16, 8, 2, 128, 1), Shape(64, 64, 16, 4, 2, 128, 1), Shape(64, 64, 32, 8, 2, 128, 1)]
    else:
        others = [
            Shape(64, 64, 64, 4, stages, *slices) for stages in (2, 3) for slices in ((64, 4), (128, 1), (128, 2))
        ]
        others += [Shape(64, 128, 64, 8, 3, 128, 1), Shape(128, 64, 64, 8, 3, 128, 1), Shape(64, 32, 64, 4, 3, 128, 2)]
        others += [Shape(128, 32, 64, 8, 3, 64, 4)]
    return list(dict.fromkeys([base, *others]))


def _products(sweep: str, dtype: str, dim: int, shape: Any) -> int:
    """How many products of N x N x D a sweep makes, pieces of coefficients and repeated similarities among them."""
    if sweep != "pull":
        return 1
    programs = -(-dim // (shape.width * shape.slices))
    return programs + {"bfloat16": 3, "float16": 5}.get(dtype, 1)


# --- the bench ---


def bench(asked: Asked) -> Iterator[Row]:
    """Seconds and peak memory by loss, size and dtype, and a unit beside each.

    What torch.compile makes comes last, in bfloat16 alone: it takes most of the time.
    """
    sizes, dim, runs = ((64,), 16, 1) if asked.rehearse else ((16384, 65536, 4096), 512, RUNS)
    dtypes = ("bfloat16",) if asked.rehearse else ("bfloat16", "float32")
    losses = ("sincere",) if asked.rehearse else ("sincere", "clip", "siglip")
    for programs in (_at_once, _compiled):
        for dtype in dtypes[:1] if programs is _compiled else dtypes:
            for size in sizes:
                for loss in losses:
                    batch = Batch(asked, loss, size, dim, dtype)
                    place: Row = {"loss": loss, "size": size, "dim": dim, "dtype": dtype}
                    for name, kind, make in programs(batch, size, dim):
                        row = {**place, "program": name, "kind": kind}
                        if asked.left() < 5.0:
                            yield {**row, "status": "skipped", "reason": "no time was left"}
                        else:
                            yield measured(row, make, runs, ours=name in ("unit", "kernel", "tiled"))
                    del batch


Programs = Iterator[tuple[str, str, Callable[[], Callable[[], Any]]]]


def _at_once(batch: Batch, size: int, dim: int) -> Programs:
    """The unit, our engines and the plain formula."""
    tile = min(UNIT_TILE, size)
    products = batch.framework.products
    yield "unit", "unit", lambda: partial(products(tile, dim, size), (size // tile) ** 2)
    slow = batch.dtype == "float32" and size > 16384  # fused gradients in float32: seconds
    for engine in ("tiled", *(() if slow else ("kernel",)), *(("dense",) if size <= 16384 else ())):
        yield engine, "ours", partial(batch.step, Program("ours", engine))
    yield "plain", "plain", partial(batch.step, Program("plain", "plain"))


def _compiled(batch: Batch, size: int, dim: int) -> Programs:
    """What torch.compile makes of the plain formula and of this package, and other packages."""
    if not torch.cuda.is_available():
        return
    yield "plain-compiled", "plain", partial(batch.step, Program("plain", "plain", "compiled"))
    auto = batch.framework.ours(batch.loss, Program("ours", "auto"))
    yield "auto-compiled", "ours", lambda: batch.of(torch.compile(auto))
    for name, loss, make in PEERS:
        if loss == batch.loss:
            yield name, "peer", lambda make=make: batch.of(make())


def _linear_cross_entropy() -> Callable[..., Any]:
    """CLIP by torch's cross-entropy of a linear layer, in chunks; both directions."""
    function = getattr(torch.nn.functional, "linear_cross_entropy", None)
    if function is None:
        raise ImportError(f"torch {torch.__version__} has no linear_cross_entropy")
    scale = 1.0 / float(record("clip").temperature)

    def value(a: Any, b: Any) -> Any:
        a, b = (torch.nn.functional.normalize(x, dim=1) for x in (a, b))
        target = torch.arange(a.shape[0], device=a.device)
        return (function(a * scale, b, target) + function(b * scale, a, target)) / 2.0

    return value


def _memeff() -> Callable[..., Any]:
    """CLIP by memeff, whose gradient is that of the loss only if it is not `stable`."""
    made: Callable[..., Any] = import_module("memeff").MemoryEfficientCLIPLoss(
        temperature=float(record("clip").temperature), stable=False
    )
    return made


def _siglip_kernel() -> Callable[..., Any]:
    """SigLIP by siglip-kernel, which wants unit rows and the logarithm of 1 / temperature."""
    function, loss = import_module("siglip_kernel").fused_siglip_loss, record("siglip")

    def value(a: Any, b: Any) -> Any:
        a, b = (torch.nn.functional.normalize(x, dim=1) for x in (a, b))
        scale = torch.tensor(-math.log(float(loss.temperature)), device=a.device, dtype=torch.float32)
        return function(a, b, scale, torch.tensor(float(loss.bias), device=a.device, dtype=torch.float32))

    return value


PEERS = (
    ("torch linear_cross_entropy", "clip", _linear_cross_entropy),
    ("memeff", "clip", _memeff),
    ("siglip-kernel", "siglip", _siglip_kernel),
)
