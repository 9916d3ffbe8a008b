"""Whether kernels are right on the device: every loss against a float64 reference, repeats, a million rows, and Pallas."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

import sincere_spec as ss
from benchmarks.device.worker import Asked, Row
from sincere_spec.conformance import frameworks, judge, questions
from sincere_spec.conformance.implementations import Package
from sincere_spec.conformance.oracle.conditioning import conditioned
from sincere_spec.conformance.oracle.problem import Problem
from sincere_spec.conformance.questions import Question, Wanted

DIVERGENCES = ("kl", "js", "pearson", "hellinger", "tsallis", "vincze_le_cam", "reverse_kl", "neyman", "jeffreys")
# Rows by width: Triton compiles multiples of 16 and other numbers apart, and takes most of this part's time.
SIZES = {40: (2, 63, 65, 127, 130, 1000), 64: (64, 128)}
SINGLE = ("sincere", "clip")  # also asked of one row, which is compiled apart, too
DTYPES = ("bfloat16", "float32", "float16", "float64")


@dataclass(frozen=True)
class OnDevice:
    """A framework of the suite, with its arrays on a device."""

    framework: Any
    place: str

    @property
    def listing(self) -> Any:
        """What is known of the framework."""
        return self.framework.listing

    def device(self) -> str:
        """Where its arrays are."""
        return self.place

    def array(self, numbers: Any, dtype: str) -> Any:
        """An array on the device."""
        return self.framework.array(numbers, dtype).to(self.place)

    def integers(self, numbers: Any) -> Any:
        """Integers on the device."""
        return self.framework.integers(numbers).to(self.place)

    def read(self, x: Any) -> Any:
        """The numbers of an array."""
        return self.framework.read(x.cpu())

    def forget(self) -> None:
        """Nothing is kept."""

    def differentiated(self, function: Any, route: str) -> Any:
        """The framework's own gradient."""
        return self.framework.differentiated(function, route)


def ragged(size: int, width: int) -> list[tuple[str, Problem]]:
    """Every loss, with rows that are exact in every dtype and classes in any order."""
    rng = np.random.default_rng(size)

    def rows(n: int) -> Any:
        return np.round(rng.normal(size=(n, width)) * 16.0) / 16.0

    def classes(n: int) -> Any:
        return rng.integers(0, 1 + size // 8, size=n)

    x, y, memory = rows(size), rows(size), rows(size // 2 + 3)
    batch = {"embeddings": x, "labels": classes(size)}
    keys = {**batch, "keys": memory, "key_labels": classes(len(memory))}
    two, three = {"view_0": x, "view_1": y}, {"view_0": x, "view_1": y, "view_2": rows(size)}
    towers, pair = {"a": x, "b": y}, {"queries": x, "positives": y}
    cold: dict[str, Any] = {"temperature_min": 0.125, "temperature_max": 0.25}
    shifted = {**cold, "schedule": "shifted", "offset": -0.40625, "scale": 0.6875}
    found: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
        ("sincere", "sincere", {"temperature": 0.125, "epsilon": 0.0}, batch),
        ("clip", "clip", {"temperature": 0.0703125}, towers),
        ("siglip", "siglip", {"temperature": 0.125, "bias": -10.0}, towers),
        ("supcon out", "supcon", {"temperature": 0.125, "summation": "out"}, batch),
        ("supcon in", "supcon", {"temperature": 0.125, "summation": "in"}, batch),
        ("nt_xent", "nt_xent", {"temperature": 0.125}, two),
        ("info_nce queue", "info_nce", {"temperature": 0.0703125}, {**pair, "negatives": memory}),
        ("sincere keys", "sincere", {"temperature": 0.125, "epsilon": 0.0}, keys),
        ("sincere epsilon", "sincere", {"temperature": 0.125, "epsilon": 0.25}, batch),
        ("supcon keys", "supcon", {"temperature": 0.125, "summation": "out"}, keys),
        ("decoupled", "decoupled", {"temperature": 0.125}, batch),
        ("info_nce", "info_nce", {"temperature": 0.0703125}, pair),
        ("nt_xent three views", "nt_xent", {"temperature": 0.125}, three),
        ("dystress", "dystress", {**cold, "detach": True, "schedule": "cosine"}, two),
        ("dystress full", "dystress", {**cold, "detach": False, "schedule": "cosine"}, two),
        ("dystress shifted", "dystress", {**shifted, "detach": True}, two),
    ]
    for divergence in DIVERGENCES:
        options: dict[str, Any] = {"divergence": divergence, "alpha": 40.0, "inverse_bandwidth": 1.0}
        options |= {"order": 1.5} if divergence == "tsallis" else {}
        found.append((f"f_micl {divergence}", "f_micl", options, {"view_a": x, "view_b": y}))
    return [(name, Problem(loss, options, arguments)) for name, loss, options, arguments in found]


def question(name: str, problem: Problem) -> Question:
    """A problem with its float64 value and gradients, and the scale of the rounding that these may have."""
    answer = conditioned(problem)
    coldest = problem.options.get("temperature", problem.options.get("temperature_min"))
    rate = 2.0 * float(problem.options.get("inverse_bandwidth", 0.5)) if coldest is None else 1.0 / float(coldest)
    return Question(
        id=name,
        profile="device",
        says="Kernels agree with the float64 answer.",
        loss=problem.loss,
        options=dict(problem.options),
        arguments=dict(problem.arguments),
        normalize=problem.normalize,
        reduction=problem.reduction,
        dtypes=DTYPES,
        cotangent=np.asarray(problem.cotangent),
        value=Wanted(answer.value, answer.scale),
        gradient={part: Wanted(x, answer.scales[part]) for part, x in answer.gradients.items()},
        floor=sum(len(x) for x in problem.arrays().values()) * max(1.0, rate),
    )


def judged(package: Package, asked: Question, dtype: str) -> Row:
    """How wrong the kernels' value and gradients are, in units of u times the scale: right is at most 4."""
    results = judge.ask(package, asked, dtype, "kernel")
    bad = [result for result in results if result.status != "pass"]
    worst = max((result.ratio for result in results if result.ratio is not None), default=None)
    row: Row = {"status": "right", "case": asked.id, "dtype": dtype, "ratio": worst}
    if bad:
        first = bad[0]
        status = "wrong" if any(result.status == "fail" for result in bad) else "failed"
        at = "" if first.got is None else f" at {first.at}: {first.expected} was expected, and {first.got} came"
        row |= {"status": status, "reason": f"{first.quantity} by {first.route}: {first.reason}{at}"}
    return row


def correct(asked: Asked) -> Iterator[Row]:
    """Ragged batches of every loss by kernels, dtype after dtype."""
    package = Package(OnDevice(frameworks.start("torch"), asked.device))
    sizes, dtypes = ({40: (17,)}, DTYPES[:2]) if asked.rehearse else (SIZES, DTYPES)
    names = [name for name, _ in ragged(1, 1)]
    mine = asked.mine(names[:4] if asked.rehearse else names)  # by loss, so that no two processes compile the same
    every = [(name, size, width) for width, numbers in sizes.items() for size in numbers for name in mine]
    every += [(name, 1, 40) for name in mine if name in SINGLE]
    batches = {(size, width): dict(ragged(size, width)) for _, size, width in every}
    cases = [question(f"{name} N={size} D={width}", batches[size, width][name]) for name, size, width in every]
    for dtype in dtypes:
        for one in cases:
            yield judged(package, one, dtype)


def suite(asked: Asked) -> Iterator[Row]:
    """Every case of the conformance suite by every engine: for each kind of loss, engine and dtype the worst verdict."""
    package = Package(OnDevice(frameworks.start("torch"), asked.device))
    cases = questions.of_suite()
    rows = asked.mine(sorted(questions.ordinary(cases)))  # by loss, so that no two processes compile the same
    if asked.rehearse:
        rows, cases = rows[:1], tuple(questions.ordinary(cases).values())
    for dtype in DTYPES[:2] if asked.rehearse else DTYPES:
        for row in rows:
            mine = [one for one in cases if one.row == row and dtype in one.dtypes]
            for engine in ("kernel", "tiled", "dense"):
                yield summed_up(package, mine, dtype, engine)


def summed_up(package: Package, cases: Sequence[Question], dtype: str, engine: str) -> Row:
    """The number of right verdicts on cases of one kind of loss, the worst ratio, and the first that is not right.

    Kernels refuse the relations that they do not know: such a case has no verdict.
    """
    results = [result for one in cases for result in judge.ask(package, one, dtype, engine)]
    right = [result for result in results if result.status == "pass"]
    refused = [result for result in results if result.status == "unsupported" and engine == "kernel"]
    bad = [result for result in results if result not in right and result not in refused]
    place: Row = {
        "case": cases[0].row,
        "dtype": dtype,
        "engine": engine,
        "verdicts": len(right),
        "refused": len(refused),
    }
    row: Row = {"status": "right", **place, "ratio": max((x.ratio for x in right if x.ratio is not None), default=None)}
    if bad:
        first = bad[0]
        status = "wrong" if any(result.status == "fail" for result in bad) else "failed"
        row |= {"status": status, "reason": f"{first.case}, {first.quantity} by {first.route}: {first.reason}"}
        return row | {"reason": f"{row['reason']}, and {len(bad) - 1} more"} if len(bad) > 1 else row
    return row if right else row | {"status": "failed", "reason": "no case was asked"}


def repeat(asked: Asked) -> Iterator[Row]:
    """The same bits five times, once beside other work on the device."""
    import torch

    rng = np.random.default_rng(0)
    size, width = (17, 8) if asked.rehearse else (5000, 128)
    other = None if asked.rehearse else torch.cuda.Stream()
    for loss, options in (("sincere", {}), ("clip", {})):
        record = getattr(ss.losses, loss)(**options)
        z = [torch.tensor(rng.normal(size=(size, width))).to(asked.device, torch.bfloat16) for _ in range(2)]
        given = (z[0], torch.tensor(rng.integers(0, 50, size), device=asked.device)) if loss == "sincere" else z
        kept: list[Any] = []
        for turn in range(2 if asked.rehearse else 5):
            if other is not None and turn == 4:
                with torch.cuda.stream(other):
                    busy = torch.randn(4096, 4096, device=asked.device)
                    for _ in range(20):
                        busy = torch.tanh(busy @ busy)
            value, gradient = ss.value_and_gradient(record, *given, engine="kernel")
            kept.append((value, *(gradient if isinstance(gradient, tuple) else (gradient,))))
        same = all(torch.equal(x, y) for found in kept[1:] for x, y in zip(kept[0], found, strict=True))
        reason = {} if same else {"reason": "a repetition gave other bits"}
        yield {"status": "right" if same else "wrong", "loss": loss, "size": size, "dtype": "bfloat16", **reason}
    for engine in () if asked.rehearse else ("kernel", "tiled", "dense"):
        yield replayed(engine)


def replayed(engine: str) -> Row:
    """Whether a step captured in a CUDA graph serves other values of its shapes: it reads nothing back from the device."""
    import torch

    z = torch.randn(2000, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    labels = torch.randint(0, 50, (2000,), device="cuda")

    def step() -> tuple[Any, Any]:
        value = ss.sincere_loss(z, labels, engine=engine)
        return value, torch.autograd.grad(value, z)[0]

    other, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    other.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(other):
        step()
    torch.cuda.current_stream().wait_stream(other)
    with torch.cuda.graph(graph):
        got = step()
    with torch.no_grad():
        z.copy_(torch.randn_like(z))
    graph.replay()
    same = all(torch.equal(x, y) for x, y in zip(got, step(), strict=True))
    row: Row = {
        "status": "right" if same else "wrong",
        "loss": "sincere",
        "program": f"{engine}, CUDA graph",
        "size": 2000,
    }
    return row if same else {**row, "reason": "a replayed graph gave other bits"}


def million(asked: Asked) -> Iterator[Row]:
    """SINCERE of a million rows: a sample of row losses against float64, gradients finite and orthogonal to their rows."""
    import torch

    size, width, sample = (65, 8, 8) if asked.rehearse else (1 << 20, 128, 64)
    cuda = asked.device == "cuda"
    generator = torch.Generator(device=asked.device).manual_seed(0)
    z = torch.randn(size, width, generator=generator, device=asked.device, dtype=torch.float32).to(torch.bfloat16)
    labels = torch.randint(0, max(2, size // 1000), (size,), generator=generator, device=asked.device)
    z.requires_grad_()
    if cuda:
        ss.sincere_loss(z[:4096].detach().requires_grad_(), labels[:4096], engine="kernel").backward()  # compiles
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if cuda else 0
    began = perf_counter()
    row_losses = ss.sincere_loss(z, labels, engine="kernel", reduction="none")
    row_losses.sum().backward()
    if cuda:
        torch.cuda.synchronize()
    seconds = perf_counter() - began
    peak = torch.cuda.max_memory_allocated() - before if cuda else None
    rows = torch.linspace(0, size - 1, sample, device=asked.device).long()
    wanted = _sincere_rows(z.detach(), labels, rows)
    error = ((row_losses.detach()[rows].double() - wanted).abs() / wanted.abs().clamp(min=1.0)).max().item()
    gradient = z.grad.float()
    finite = bool(torch.isfinite(gradient).all())
    unit = torch.nn.functional.normalize(z.detach().float(), dim=1)
    # A gradient through a norm is orthogonal to its row, to the rounding of bfloat16.
    along = ((gradient * unit).sum(1).abs() / gradient.norm(dim=1).clamp(min=1e-30)).max().item()
    right = finite and error <= 1e-4 and along <= 2.0**-6
    row: Row = {"status": "right" if right else "wrong", "loss": "sincere", "size": size, "dim": width}
    row |= {"dtype": "bfloat16", "seconds": seconds, "peak": peak, "error": error, "along": along, "finite": finite}
    if not right:
        row["reason"] = f"row losses wrong by {error:.2g}, gradient along its row {along:.2g}, finite: {finite}"
    yield row


def _sincere_rows(z: Any, labels: Any, rows: Any) -> Any:
    """SINCERE's loss of some rows, at the temperature 0.1, in float64 by the formula."""
    import torch

    unit = torch.nn.functional.normalize(z[rows].double(), dim=1)  # [sample, d]
    logits = [unit @ torch.nn.functional.normalize(part.double(), dim=1).T / 0.1 for part in z.split(1 << 17)]
    a = torch.cat(logits, dim=1)  # [sample, n]
    same = labels[rows][:, None] == labels[None, :]
    negatives = a.masked_fill(same, -torch.inf).logsumexp(1, keepdim=True)
    positive = same & (torch.arange(len(labels), device=a.device)[None, :] != rows[:, None])
    pairs = torch.nn.functional.softplus(negatives - a).masked_fill(~positive, 0.0)
    return pairs.sum(1) / positive.sum(1).clamp(min=1)


def pallas(asked: Asked) -> Iterator[Row]:
    """Three losses of Pallas within the suite's tolerance, and the time of one."""
    import jax

    package = Package(frameworks.start("jax"))
    size, width = (17, 8) if asked.rehearse else (1000, 64)
    cases = [case for case in ragged(size, width) if case[0] in ("sincere", "clip", "f_micl js")]
    for dtype in ("bfloat16", "float32"):
        for name, problem in cases[:1] if asked.rehearse else cases:
            yield judged(_one_route(package), question(f"{name} N={size} D={width}", problem), dtype)
    n, d = (33, 16) if asked.rehearse else (16384, 512)
    z = jax.random.normal(jax.random.key(0), (n, d), dtype="bfloat16")
    labels = jax.numpy.arange(n) % 100
    step = jax.jit(jax.value_and_grad(lambda z: ss.sincere_loss(z, labels, engine="kernel")))
    jax.block_until_ready(step(z))
    seconds = []
    for _ in range(1 if asked.rehearse else 5):
        began = perf_counter()
        jax.block_until_ready(step(z))
        seconds.append(perf_counter() - began)
    yield {"status": "right", "loss": "sincere", "size": n, "dim": d, "dtype": "bfloat16", "seconds": seconds}


def _one_route(package: Package) -> Package:
    """A package that is asked in one way, jax's own gradient: each way compiles anew."""
    package.routes = lambda question: ("autograd",)  # type: ignore[method-assign]
    return package
