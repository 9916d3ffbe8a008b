"""What four ranks do together, each check in all of them: one start of processes for all of `test_ranks.py`."""

from __future__ import annotations

import json
import multiprocessing
import time
import traceback
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

from sincere_spec.engines.ranks import of_all_ranks

SIZES = (5, 3, 0, 7)
COUNT = sum(SIZES)
MANY, WIDTH = tuple(40 * size for size in SIZES), 16
CHECKS: dict[str, Callable[[int], Any]] = {}


def check(function: Callable[[int], Any]) -> Callable[[int], Any]:
    """One of the checks that every rank runs."""
    CHECKS[function.__name__] = function
    return function


def run(rank: int, store: str, folder: str) -> None:
    """Every check, in order, and what came of it in a file of the rank."""
    import torch
    from torch import distributed

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=store, rank=rank, world_size=len(SIZES), timeout=timedelta(seconds=120)
    )
    found = {}
    for name, function in CHECKS.items():
        try:
            found[name] = function(rank)
        except Exception:
            found[name] = {"failed": traceback.format_exc()}
        distributed.barrier()
    Path(folder, f"{rank}.json").write_text(json.dumps(found), encoding="utf-8")
    distributed.destroy_process_group()


def world() -> Any:
    from torch import distributed

    return distributed.group.WORLD


def own(rank: int, x: Any, sizes: tuple[int, ...] = SIZES) -> Any:
    """The rows of a rank."""
    start = sum(sizes[:rank])
    return x[start : start + sizes[rank]]


def batch() -> tuple[Any, Any]:
    """Inputs of a model, and labels."""
    import torch

    generator = torch.Generator().manual_seed(0)
    return torch.randn(COUNT, 6, generator=generator, dtype=torch.float64), torch.randint(
        0, 3, (COUNT,), generator=generator
    )


def model() -> Any:
    import torch

    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 4)).double()


def one_process(scale: float = 1.0) -> Any:
    """The model with the gradient of the whole batch."""
    import sincere_spec as ss

    made, (x, labels) = model(), batch()
    (scale * ss.sincere_loss(made(x), labels, 0.2)).backward()
    return made


def distance(got: Any, want: Any) -> float:
    """The largest difference of the gradients of two modules, relative to the largest entry of each."""
    pairs = zip(got.parameters(), want.parameters(), strict=True)
    return max(float((a.grad - b.grad).abs().max() / b.grad.abs().max()) for a, b in pairs)


def loss(rank: int, z: Any, sizes: tuple[int, ...] = SIZES, **options: Any) -> Any:
    """SINCERE of the whole batch."""
    import sincere_spec as ss

    options.setdefault("across", world())
    return ss.sincere_loss(z, own(rank, batch()[1], sizes), 0.2, **options)


# --- conformance, and what it must find ---


def found_by(rank: int, name: str, sizes: tuple[int, ...] = SIZES, engine: str = "tiled") -> dict[str, float]:
    """The errors of a case of the conformance suite."""
    from sincere_spec.conformance import distributed

    case = next(case for case in distributed.cases(sum(sizes)) if case.name == name)
    return distributed.errors(case, sizes, rank, world(), "float64", engine)


def judged(sizes: tuple[int, ...], engine: str, every: bool = False) -> dict[str, float]:
    """The errors of the short suite, or of one case of each loss."""
    from sincere_spec.conformance import distributed
    from sincere_spec.losses.table import TABLE

    names = {built_in.name for built_in in TABLE}
    chosen = [case for case in distributed.cases(sum(sizes), short=True) if every or case.name in names]
    verdicts = distributed.judge(world(), sizes, "float64", engine, chosen)
    return {verdict.name: verdict.error if verdict.one_value else float("inf") for verdict in verdicts}


@check
def uneven(rank: int) -> Any:
    return judged(SIZES, "tiled", every=True)


@check
def uneven_dense(rank: int) -> Any:
    return judged(SIZES, "dense")


@check
def even(rank: int) -> Any:
    return judged((4, 4, 4, 4), "auto")


@check
def kernels_under_masks(rank: int) -> Any:
    """Of half types, which kernels multiply as they came: how far the gradient is from that of float64."""
    import torch

    import sincere_spec as ss

    generator = torch.Generator().manual_seed(2)
    z, inside = batch()[0].to(torch.bfloat16), torch.rand(COUNT, generator=generator) < 0.7
    other, found = z.flip(0), []
    for name in ("sincere", "clip"):

        def value(z: Any, other: Any, rows: Any, name: str = name, **options: Any) -> Any:
            given = (batch()[1][rows],) if name == "sincere" else (other[rows],)
            return ss.evaluate(getattr(ss.losses, name)(0.2), z, *given, where=inside[rows], **options)

        whole = z.double().requires_grad_()
        want = value(whole, other.double(), slice(None), engine="dense")
        want.backward()
        part = own(rank, z).clone().requires_grad_()
        got = value(part, other, own(rank, torch.arange(COUNT)), across=world(), engine="kernel", tile=16)
        got.backward()
        far = (part.grad.double() / len(SIZES) - own(rank, whole.grad)).abs() / whole.grad.abs().max()
        found += [abs(float(got.detach() / want.detach()) - 1.0), float(far.max()) if far.numel() else 0.0]
    return max(found)


@check
def one_rank_has_all(rank: int) -> Any:
    return judged((15, 0, 0, 0), "tiled")


@check
def one_row(rank: int) -> Any:
    return judged((0, 0, 1, 0), "tiled")


@check
def no_row(rank: int) -> Any:
    return judged((0, 0, 0, 0), "tiled")


def _nobody_else(shard: Any, own: Any, cotangents: Any, sizes: Any) -> Any:
    every = GATHERED(shard, own, cotangents, sizes)
    return every._replace(weights={part: 0.0 * weight for part, weight in every.weights.items()})


GATHERED = of_all_ranks


@check
def mutants(rank: int) -> Any:
    """The gradient's error under what people do wrong; 0.0 before, to see that the case itself holds."""
    planted = {
        "keys detached": ("sincere", mock.patch("sincere_spec.engines.ranks.of_all_ranks", _nobody_else)),
        "gradients of keys not added up": (
            "info_nce",
            mock.patch(
                "sincere_spec.backends.torch.ranks.GroupCollectives.scatter",
                lambda self, x, own, sizes: x[sum(sizes[: self.rank]) :][: len(own)],
            ),
        ),
        "no factor": ("sincere", mock.patch("sincere_spec.call.ranks.Membership.scale", return_value=1.0)),
        "local mean": (
            "sincere",
            mock.patch("sincere_spec.backends.torch.ranks.GroupCollectives.total", lambda self, x: x.clone()),
        ),
        "samples not told apart": (
            "sincere",
            mock.patch("sincere_spec.call.ranks._placed", lambda problem, *_: problem),
        ),
        "words numbered by each rank": (
            "sincere, words as labels",
            mock.patch("sincere_spec.call.ranks._numbered", return_value=0),
        ),
    }
    found = {}
    for name, (case, patch) in planted.items():
        with patch:
            far = found_by(rank, case)
        found[name] = far["dembeddings" if "dembeddings" in far else "dpositives"]
    return found


@check
def peers(rank: int) -> Any:
    from sincere_spec.conformance import distributed_peers

    return distributed_peers.table(["sincere-spec", "pytorch-metric-learning", "no such package"])


# --- trainers ---


@check
def ddp(rank: int) -> Any:
    from torch.nn.parallel import DistributedDataParallel

    wrapped = DistributedDataParallel(model())
    loss(rank, wrapped(own(rank, batch()[0]))).backward()
    return distance(wrapped.module, one_process())


@check
def summed_by_hand(rank: int) -> Any:
    from torch import distributed

    import sincere_spec as ss

    made = model()
    loss(rank, made(own(rank, batch()[0])), across=ss.across(world(), gradients="sum")).backward()
    for parameter in made.parameters():
        distributed.all_reduce(parameter.grad)
    return distance(made, one_process())


@check
def checkpointing(rank: int) -> Any:
    """The loss is inside of what is computed again."""
    from torch.nn.parallel import DistributedDataParallel
    from torch.utils.checkpoint import checkpoint

    wrapped = DistributedDataParallel(model())
    x = own(rank, batch()[0]).clone().requires_grad_()
    checkpoint(lambda x: loss(rank, wrapped.module(x)), x, use_reentrant=False)
    value = checkpoint(lambda x: loss(rank, wrapped(x)), x, use_reentrant=False)
    value.backward()
    return distance(wrapped.module, one_process())


@check
def accumulation(rank: int) -> Any:
    """Two batches, of which the first is not synchronised."""
    from torch.nn.parallel import DistributedDataParallel

    wrapped, x = DistributedDataParallel(model()), own(rank, batch()[0])
    with wrapped.no_sync():
        (0.25 * loss(rank, wrapped(x))).backward()
    (0.75 * loss(rank, wrapped(x))).backward()
    return distance(wrapped.module, one_process())


@check
def grad_scaler(rank: int) -> Any:
    import torch
    from torch.nn.parallel import DistributedDataParallel

    scaler, wrapped = torch.amp.GradScaler("cpu", init_scale=1024.0), DistributedDataParallel(model())
    optimizer = torch.optim.SGD(wrapped.parameters(), lr=1.0)
    scaler.scale(loss(rank, wrapped(own(rank, batch()[0])))).backward()
    scaler.unscale_(optimizer)
    return distance(wrapped.module, one_process())


@check
def autocast(rank: int) -> Any:
    """Inside autocast products are of full precision."""
    import torch

    made, x = model(), own(rank, batch()[0])
    z = made(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(rank, z)
    return float(value.detach()) - float(loss(rank, z).detach())


@check
def fsdp(rank: int) -> Any:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    made = model()
    fully_shard(made, mesh=init_device_mesh("cpu", (len(SIZES),)))
    loss(rank, made(own(rank, batch()[0]))).backward()
    want = one_process()
    pairs = [(a.grad.full_tensor(), b.grad) for a, b in zip(made.parameters(), want.parameters(), strict=True)]
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


@check
def groups_of_two(rank: int) -> Any:
    """The mean of what two groups of the four ranks have."""
    from torch import distributed
    from torch.nn.parallel import DistributedDataParallel

    import sincere_spec as ss

    pairs = [distributed.new_group([0, 1]), distributed.new_group([2, 3])]
    wrapped, (x, labels) = DistributedDataParallel(model()), batch()
    loss(rank, wrapped(own(rank, x)), across=pairs[rank // 2]).backward()
    want = model()
    for rows in (slice(0, SIZES[0] + SIZES[1]), slice(SIZES[0] + SIZES[1], COUNT)):
        (0.5 * ss.sincere_loss(want(x[rows]), labels[rows], 0.2)).backward()
    return distance(wrapped.module, want)


@check
def a_group_that_does_not_divide(rank: int) -> Any:
    from torch import distributed

    three = distributed.new_group([0, 1, 2])
    return refusal(lambda: loss(rank, model()(own(rank, batch()[0])), across=three))


@check
def temperature(rank: int) -> Any:
    """A learnt temperature inside and outside of DDP: its gradient on every rank, and that of one process."""
    from torch.nn.parallel import DistributedDataParallel

    from sincere_spec.torch import SigLIPLoss

    (x, _), other = batch(), model()(batch()[0].flip(1)).detach()
    gradients = []
    for wrap, sizes in ((lambda m: m, SIZES), (DistributedDataParallel, SIZES), (None, (COUNT,))):
        across = None if wrap is None else world()
        module = SigLIPLoss(0.2, bias=-1.0, learnable_temperature=True, learnable_bias=True, across=across).double()
        given = [own(rank if wrap else 0, y, sizes) for y in (model()(x).detach(), other)]
        (wrap or (lambda m: m))(module)(*(y.requires_grad_() for y in given)).backward()
        gradients.append([float(p.grad) for p in module.parameters()])
    return gradients


@check
def value_and_gradient(rank: int) -> Any:
    import sincere_spec as ss

    z, labels = model()(batch()[0]).detach(), batch()[1]
    want, whole = ss.value_and_gradient(ss.losses.sincere(0.2), z, labels)
    got, part = ss.value_and_gradient(ss.losses.sincere(0.2), own(rank, z), own(rank, labels), across=world())
    far = (part / len(SIZES) - own(rank, whole)).abs()
    return max(abs(float(got - want)), float(far.max()) if far.numel() else 0.0)


@check
def one_rank_wants_no_gradient(rank: int) -> Any:
    import torch

    z = own(rank, model()(batch()[0]).detach())
    if rank == 1:
        with torch.no_grad():
            loss(rank, z)
        return 0.0
    z.requires_grad_()
    loss(rank, z).backward()
    whole = model()(batch()[0]).detach().requires_grad_()
    import sincere_spec as ss

    ss.sincere_loss(whole, batch()[1], 0.2).backward()
    far = (z.grad / len(SIZES) - own(rank, whole.grad)).abs()
    return float(far.max()) if far.numel() else 0.0


@check
def the_losses_of_rows(rank: int) -> Any:
    import sincere_spec as ss

    z, labels = model()(batch()[0]).detach(), batch()[1]
    rows = loss(rank, own(rank, z), reduction="none")
    far = (rows - own(rank, ss.sincere_loss(z, labels, 0.2, reduction="none"))).abs()
    return float(far.max()) if far.numel() else 0.0


@check
def not_finite(rank: int) -> Any:
    """A NaN on one rank is seen on all."""
    z = own(rank, model()(batch()[0]).detach()).clone()
    if rank == 1:
        z[0, 0] = float("nan")
    return str(float(loss(rank, z)))


@check
def nothing_to_learn(rank: int) -> Any:
    """The warnings of a batch in which one rank alone has no row that counts, and of one in which no row counts."""
    import torch

    import sincere_spec as ss
    from sincere_spec.call import empty

    z, found = own(rank, model()(batch()[0]).detach()).requires_grad_(), []
    alone = own(rank, torch.arange(COUNT))
    for labels in (alone if rank == 1 else alone * 0 - 1, alone):
        with mock.patch.object(empty, "looks_left", [empty.LOOKS]), warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            for _ in range(2):
                ss.sincere_loss(z, labels, 0.2, epsilon=0.1, across=world())
        found.append([f"{warning.category.__name__}: {warning.message}" for warning in said])
    return found


@check
def a_group_of_one(rank: int) -> Any:
    """It is the plain call, bit for bit."""
    from torch import distributed

    import sincere_spec as ss

    alone = [distributed.new_group([r]) for r in range(len(SIZES))]
    z, labels = model()(batch()[0]).detach(), batch()[1]
    pairs = [ss.value_and_gradient(ss.losses.sincere(0.2), z, labels, across=x) for x in (None, alone[rank])]
    return all(bool((a == b).all()) for a, b in zip(*pairs, strict=True))


def _live_bytes(calls: dict[str, Callable[[], Any]]) -> dict[str, int]:
    """What is left of the tensors that each call made while its result is there, whatever the allocator keeps of the others."""
    from torch.multiprocessing.reductions import StorageWeakRef
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Recorder(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.made: dict[int, tuple[Any, int]] = {}

        def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = operator(*args, **(kwargs or {}))
            for x in tree_leaves(result):
                if hasattr(x, "untyped_storage"):
                    storage = x.untyped_storage()
                    self.made[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
            return result

    recorders, results = {name: Recorder() for name in calls}, []  # results keep what their backward needs
    for name, call in calls.items():
        with recorders[name]:
            results.append(call())
    time.sleep(1)  # a thread of gloo holds the tensors of a collective until it runs again after the call
    return {
        name: sum(size for reference, size in recorder.made.values() if not reference.expired())
        for name, recorder in recorders.items()
    }


@check
def kept(rank: int) -> Any:
    """How many numbers of 8 bytes each loss keeps for its backward; and a product with all columns, which keeps these."""
    import torch

    import sincere_spec as ss

    generator, count = torch.Generator().manual_seed(3), sum(MANY)
    wholes = [torch.randn(count, WIDTH, generator=generator, dtype=torch.float64) for _ in range(2)]
    a, b = (own(rank, x, MANY).clone().requires_grad_() for x in wholes)
    labels = own(rank, torch.arange(count) % 7, MANY)
    options: dict[str, Any] = {"across": world(), "engine": "tiled", "tile": 64}
    calls = {
        "clip": lambda: ss.clip_loss(a, b, **options),
        "info_nce": lambda: ss.info_nce_loss(a, b, **options),
        "siglip": lambda: ss.siglip_loss(a, b, **options),
        "sincere": lambda: ss.sincere_loss(a, labels, **options),
        "logits": lambda: (a @ wholes[1].T).exp().sum(),
    }
    return {name: left / 8 for name, left in _live_bytes(calls).items()}


@check
def explained(rank: int) -> Any:
    import sincere_spec as ss

    z = own(rank, model()(batch()[0]).detach())
    return str(ss.explain(ss.losses.sincere(0.2), z, own(rank, batch()[1]), across=world()))


# --- what is refused ---


def refusal(call: Callable[[], Any]) -> tuple[str, str, float]:
    """The error of a call, and the seconds until it came."""
    from sincere_spec.errors import SincereSpecError

    start = time.perf_counter()
    try:
        call()
    except SincereSpecError as error:
        return type(error).__name__, str(error), time.perf_counter() - start
    return "none", "", time.perf_counter() - start


@check
def disagreements(rank: int) -> Any:
    import torch

    import sincere_spec as ss

    z, labels, odd = own(rank, model()(batch()[0]).detach()), own(rank, batch()[1]), rank == 2
    ids = torch.arange(len(z)) + 100 * rank
    calls = {
        "temperature kind": lambda: (
            loss(rank, z) if not odd else ss.sincere_loss(z, labels, torch.tensor(0.2, dtype=z.dtype), across=world())
        ),
        "temperature": lambda: ss.sincere_loss(z, labels, 0.3 if odd else 0.2, across=world()),
        "record": lambda: (ss.supcon_loss if odd else ss.sincere_loss)(z, labels, 0.2, across=world()),
        "reduction": lambda: loss(rank, z, reduction="sum" if odd else "mean"),
        "width": lambda: loss(rank, z[:, :3] if odd else z),
        "dtype": lambda: loss(rank, z.float() if odd else z),
        "ids": lambda: loss(rank, z, **({} if odd else {"ids": ids})),
        "keys": lambda: loss(rank, z, **({} if odd else {"keys": z, "key_labels": labels})),
        "own check fails": lambda: ss.sincere_loss(z.reshape(-1) if odd else z, labels, 0.2, across=world()),
        "record cannot be made": lambda: ss.sincere_loss(z, labels, -1.0 if odd else 0.2, across=world()),
        "normalize is no flag": lambda: loss(rank, z, normalize=1 if odd else True),
        "label of no class": lambda: ss.sincere_loss(z, [0.5] * len(z) if rank == 3 else labels, 0.2, across=world()),
        "shared queue": lambda: ss.info_nce_loss(
            z, z, torch.ones(3, 4, dtype=z.dtype) * (1 + odd), across=ss.across(world(), shared=("negatives",))
        ),
        "order of a shared queue": lambda: ss.sincere_loss(
            z,
            labels,
            keys=torch.ones(3, 4, dtype=z.dtype),
            key_labels=torch.tensor([1, 0, 2] if odd else [0, 1, 2]),
            across=ss.across(world(), shared=("keys",)),
        ),
        "words": lambda: ss.sincere_loss(z, [str(x) for x in labels.tolist()] if rank == 3 else labels, across=world()),
        "dtype of labels": lambda: ss.sincere_loss(z, labels.to(torch.int32) if odd else labels, across=world()),
        "gradients": lambda: loss(rank, z, across=ss.across(world(), gradients="sum" if odd else "mean")),
        "keyword of no function": lambda: ss.evaluate(
            ss.losses.sincere(0.2), z, labels, across=world(), **({"reductoin": "sum"} if odd else {})
        ),
        "no scalar": lambda: ss.value_and_gradient(
            ss.losses.sincere(0.2), z, labels, across=world(), reduction="none" if odd else "mean"
        ),
    }
    return {name: refusal(call) for name, call in calls.items()}


@check
def not_yet(rank: int) -> Any:
    """What is refused by name on every rank."""
    import torch
    from torch.autograd import forward_ad

    import sincere_spec as ss

    z = own(rank, model()(batch()[0]).detach()).requires_grad_()

    def second_order() -> None:
        (gradient,) = torch.autograd.grad(loss(rank, z), z, create_graph=True)
        gradient.square().sum().backward()

    def forward_mode() -> None:
        with forward_ad.dual_level():
            loss(rank, forward_ad.make_dual(z, torch.ones_like(z)))

    calls = {
        "rows with a gradient": lambda: loss(rank, z, reduction="none"),
        "second order": second_order,
        "forward mode": forward_mode,
        "torch.func": lambda: torch.func.grad(lambda z: loss(rank, z))(z),
        "axis name": lambda: loss(rank, z, across="batch"),
        "no such array": lambda: loss(rank, z, across=ss.across(world(), shared=("keys",))),
        "matrix of pairs": lambda: loss(rank, z, ignore=torch.eye(len(z)) > 0),
        "guide": lambda: ss.clip_loss(z, z, ignore=ss.guide(z, z), across=world()),
        "several labels a row": lambda: ss.supcon_loss(z, ss.overlap(torch.ones(len(z), 2), "any"), across=world()),
        "value": lambda: loss(rank, z.detach()),
    }
    return {name: refusal(call)[:2] for name, call in calls.items()}


def start(folder: Path) -> list[dict[str, Any]]:
    """Run every check on four ranks; what came of it by rank."""
    from torch.multiprocessing import start_processes

    # One process imports, and the ranks are its forks.
    multiprocessing.set_forkserver_preload(["ranks", "torch._dynamo", "torch.distributed.fsdp", "sincere_spec.torch"])
    start_processes(run, (f"file://{folder}/store", str(folder)), len(SIZES), start_method="forkserver")
    return [json.loads((folder / f"{rank}.json").read_text(encoding="utf-8")) for rank in range(len(SIZES))]
