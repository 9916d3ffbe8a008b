"""The gallery: each block of docs/gallery.md, value and gradient, against the formula that its source publishes.

The formulas are plain PyTorch in float64 and share nothing with the package: whole matrices, differentiated by autograd.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PAGE = Path(__file__).parents[1] / "docs" / "gallery.md"
ARRAYS = ("a", "b", "z", "memory", "queue", "hard", "prototypes")
T = 0.2


@cache
def sections() -> dict[str, str]:
    """The block of each section by its title; what stands before the first one, or before a section, comes before all."""
    page, found, shared = PAGE.read_text(encoding="utf-8"), {}, []
    for part in re.split(r"^(?=##+ )", page, flags=re.MULTILINE):
        codes = re.findall(r"^```python\n(.*?)^```$", part, flags=re.MULTILINE | re.DOTALL)
        if part.startswith("### "):
            (found[part[4:].splitlines()[0]],) = codes
        else:
            shared += codes
    return {"": "\n".join(shared)} | found


Formula = Callable[[Any], Any]
FORMULAS: dict[str, Formula] = {}


def formula(title: str) -> Callable[[Formula], Formula]:
    def keep(function: Formula) -> Formula:
        FORMULAS[title] = function
        return function

    return keep


def unit(x: Any) -> Any:
    return x / (x * x).sum(-1, keepdim=True).sqrt()


def cosine(x: Any, y: Any) -> Any:
    return unit(x) @ unit(y).T


def xent(logits: Any, target: Any) -> Any:
    import torch

    return torch.nn.functional.cross_entropy(logits, target)


def softmax_at(logits: Any, chosen: Any, allowed: Any) -> Any:
    """-log softmax over the allowed entries, averaged over the chosen ones of each row and then over rows that have some."""
    import torch

    level = torch.where(allowed, logits, -torch.inf).logsumexp(1, keepdim=True)
    total = torch.where(chosen, level - logits, 0.0).sum(1)
    number = chosen.sum(1)
    return (total / number.clamp(min=1))[number > 0].mean()


def masks(labels: Any) -> tuple[Any, Any]:
    """Positives and negatives of a batch compared with itself."""
    import torch

    same, itself = labels[:, None] == labels, torch.eye(len(labels), dtype=torch.bool)
    return same & ~itself, ~same


def views(x: Any) -> tuple[Any, Any, Any]:
    """Similarities of two views' rows, the positives and the negatives."""
    import torch

    z = torch.cat([x.a, x.b])
    return (cosine(z, z), *masks(torch.arange(6).repeat(2)))


def level(logits: Any, among: Any) -> Any:
    import torch

    return torch.where(among, logits, -torch.inf).logsumexp(1)


def mean(logits: Any, among: Any) -> Any:
    import torch

    return torch.where(among, logits, 0.0).sum(1) / among.sum(1)


def diagonal(n: int = 6) -> Any:
    import torch

    return torch.eye(n, dtype=torch.bool)


def softplus(x: Any) -> Any:
    import torch

    return torch.nn.functional.softplus(x, threshold=1e9)


@formula("Multiple negatives ranking with hard negatives")
def _(x: Any) -> Any:
    import torch

    return xent(cosine(x.a, torch.cat([x.b, x.hard])) / T, x.pair)


@formula("Hard negatives of each query, beside those of the batch")
def _(x: Any) -> Any:
    import torch

    own = torch.einsum("id,ikd->ik", unit(x.a), unit(x.hard).reshape(6, 2, 8))
    return xent(torch.cat([cosine(x.a, x.b), own], dim=1) / T, x.pair)


@formula("Negatives of each query alone")
def _(x: Any) -> Any:
    import torch

    own = (unit(x.a) * unit(x.b)).sum(1, keepdim=True)
    others = torch.einsum("id,ikd->ik", unit(x.a), unit(x.hard).reshape(6, 2, 8))
    return xent(torch.cat([own, others], dim=1) / T, 0 * x.pair)


@formula("Local rows against gathered keys")
def _(x: Any) -> Any:
    return (xent(cosine(x.a[2:4], x.b) / T, x.pair[2:4]) + xent(cosine(x.b[2:4], x.a) / T, x.pair[2:4])) / 2


@formula("SigLIP of local rows")
def _(x: Any) -> Any:
    import torch

    sign = 2.0 * torch.eye(6, dtype=torch.float64)[2:4] - 1.0
    return softplus(-sign * (cosine(x.a[2:4], x.b) / 0.1 - 10.0)).sum() / 2


@formula("Anchors of one view")
def _(x: Any) -> Any:
    import torch

    both = torch.cat([x.a, x.b])
    itself = torch.arange(6)[:, None] == torch.arange(12)
    same = x.six[:, None] == x.six.repeat(2)
    return softmax_at(cosine(x.a, both) / T, same & ~itself, ~itself)


@formula("Supervised contrastive learning of the Keras examples")
def _(x: Any) -> Any:
    same = (x.labels[:, None] == x.labels).double()
    return -((same / same.sum(1, keepdim=True)) * (cosine(x.z, x.z) / T).log_softmax(1)).sum(1).mean()


@formula("UniCL")
def _(x: Any) -> Any:
    logits, same = cosine(x.a, x.b) / T, x.six[:, None] == x.six
    return (softmax_at(logits, same, same | True) + softmax_at(logits.T, same, same | True)) / 2


@formula("Class prototypes")
def _(x: Any) -> Any:
    return xent(cosine(x.z, x.prototypes) / T, x.labels)


@formula("solo-learn's SimCLR with targets")
def _(x: Any) -> Any:
    import torch

    positive, _ = masks(x.labels)
    e = (cosine(x.z, x.z) / T).exp() * ~torch.eye(12, dtype=torch.bool)
    return -((e * positive).sum(1) / e.sum(1)).log().mean()


@formula("Soft nearest neighbours")
def _(x: Any) -> Any:
    import torch

    positive, _ = masks(x.labels)
    square = ((unit(x.z)[:, None] - unit(x.z)[None]) ** 2).sum(2)
    e = (-square / T).exp() * ~torch.eye(12, dtype=torch.bool)
    return -((e * positive).sum(1) / e.sum(1)).log().mean()


@formula("Cross-batch memory")
def _(x: Any) -> Any:
    import torch

    keys, names = torch.cat([x.z, x.memory]), torch.cat([x.labels, x.memory_labels])
    itself = torch.arange(12)[:, None] == torch.arange(19)
    logits, same = cosine(x.z, keys) / T, x.labels[:, None] == names
    return mean(softplus(level(logits, ~same)[:, None] - logits), same & ~itself).mean()


@formula("Matryoshka")
def _(x: Any) -> Any:
    total = 0.0
    for d in (2, 4, 8):
        logits = cosine(x.a[:, :d], x.b[:, :d]) / T
        total = total + (xent(logits, x.pair) + xent(logits.T, x.pair)) / 2
    return total


@formula("CLOOB")
def _(x: Any) -> Any:
    logits, own = cosine(x.a, x.b) / T, diagonal()
    both = [(level(side, ~own) - side.diagonal()).mean() for side in (logits, logits.T)]
    return T * (both[0] + both[1])


@formula("Repeated captions")
def _(x: Any) -> Any:
    own = diagonal()
    allowed = own | (x.six[:, None] != x.six)
    logits = cosine(x.a, x.b) / T
    return (softmax_at(logits, own, allowed) + softmax_at(logits.T, own, allowed)) / 2


@formula("False negatives by a guide model")
def _(x: Any) -> Any:
    guide = cosine(x.a.detach() + 2.0, x.b.detach() + 2.0)
    return softmax_at(cosine(x.a, x.b) / T, diagonal(), diagonal() | ~(guide > guide.diagonal()[:, None]))


@formula("False negatives by a threshold")
def _(x: Any) -> Any:
    s = cosine(x.a, x.b)
    return softmax_at(s / T, diagonal(), diagonal() | ~(s.detach() > s.detach().diagonal()[:, None] + 0.1))


@formula("A mask of positives")
def _(x: Any) -> Any:
    import torch

    i, itself = torch.arange(12), torch.eye(12, dtype=torch.bool)
    mask = (i[:, None] * 7 + i * 5) % 11 < 3
    return softmax_at(cosine(x.z, x.z) / T, mask & ~itself, ~itself)


@formula("Mined pairs")
def _(x: Any) -> Any:
    import torch

    i, (positive, negative) = torch.arange(12), masks(x.labels)
    chosen = (i[:, None] * 7 + i * 5) % 11 < 6
    logits = cosine(x.z, x.z) / T
    terms = [
        (torch.cat([logits[p, k][None], logits[p][(negative & chosen)[p]]]).logsumexp(0) - logits[p, k])
        for p, k in (positive & chosen).nonzero().tolist()
    ]
    return torch.stack(terms).mean()


@formula("A cap of positives")
def _(x: Any) -> Any:
    positive, negative = masks(x.labels)
    kept = positive & (positive.cumsum(1) <= 2)
    return softmax_at(cosine(x.z, x.z) / T, kept, kept | negative)


def soft(logits: Any, weights: Any, allowed: Any) -> Any:
    import torch

    log_softmax = logits - torch.where(allowed, logits, -torch.inf).logsumexp(1, keepdim=True)
    weights = torch.where(allowed, weights, 0.0)
    return -((weights / weights.sum(1, keepdim=True)) * torch.where(allowed, log_softmax, 0.0)).sum(1).mean()


@formula("Soft labels")
def _(x: Any) -> Any:
    return soft(cosine(x.z, x.z) / T, x.graph, ~diagonal(12))


@formula("A teacher's logits")
def _(x: Any) -> Any:
    s, all_ = cosine(x.a, x.b) / T, diagonal() | True
    return (soft(s, x.teacher.softmax(1), all_) + soft(s.T, x.teacher.T.softmax(1), all_)) / 2


@formula("ReSSL")
def _(x: Any) -> Any:
    target = (cosine(x.b, x.queue).detach() / 0.04).softmax(1)
    return -(target * (cosine(x.a, x.queue.detach()) / 0.1).log_softmax(1)).sum(1).mean()


@formula("Label smoothing")
def _(x: Any) -> Any:
    import torch

    logits = cosine(x.a, x.b) / T
    smoothed = [torch.nn.functional.cross_entropy(side, x.pair, label_smoothing=0.1) for side in (logits, logits.T)]
    return (smoothed[0] + smoothed[1]) / 2


@formula("An additive margin")
def _(x: Any) -> Any:
    import torch

    lowered = 0.3 * torch.nn.functional.one_hot(x.labels, 3).double()
    return xent((cosine(x.z, x.prototypes) - lowered) / T, x.labels)


@formula("DCL with DySTreSS's temperature")
def _(x: Any) -> Any:
    import torch

    s, positive, negative = views(x)
    logits = s / (0.1 + 0.05 * (1 + torch.cos(torch.pi * (1 + s))))
    return (level(logits, negative) - mean(logits, positive)).mean()


@formula("Positives inside the logarithm, negatives alone below")
def _(x: Any) -> Any:
    positive, negative = masks(x.labels)
    e = (cosine(x.z, x.z) / T).exp()
    return -((e * positive).sum(1) / positive.sum(1) / (e * negative).sum(1)).log().mean()


def reweighted(s: Any, negative: Any, beta: float) -> Any:
    """Robinson's M Σ exp((beta + 1) l) / Σ exp(beta l)."""
    e, importance = (s / T).exp() * negative, (beta * s / T).exp() * negative
    return (importance * e).sum(1) / importance.sum(1) * negative.sum(1)


@formula("Hard negatives, decoupled")
def _(x: Any) -> Any:
    s, positive, negative = views(x)
    return (reweighted(s, negative, 1.0).log() - mean(s / T, positive)).mean()


@formula("A negative distance")
def _(x: Any) -> Any:
    distance = ((unit(x.a)[:, None] - unit(x.b)[None]) ** 2).sum(2).sqrt()
    logits = -distance / T
    return (level(logits, ~diagonal()) - logits.diagonal()).mean()


@formula("A margin of pairs")
def _(x: Any) -> Any:
    import torch

    s, (positive, negative) = cosine(x.z, x.z), masks(x.labels)
    return (torch.relu(0.9 - s) * positive).sum() + (torch.relu(s - 0.3) * negative).sum()


@formula("The spectral contrastive loss")
def _(x: Any) -> Any:
    s, own = cosine(x.a, x.b), diagonal()
    return -2.0 * s[own].mean() + (s[~own] ** 2).mean()


@formula("f-MICL with the cosine")
def _(x: Any) -> Any:
    critic = cosine(x.a, x.a) / T
    return (critic[~diagonal()] - 1.0).exp().mean() - (unit(x.a) * unit(x.b)).sum(1).mean() / T


@formula("The debiased contrastive loss")
def _(x: Any) -> Any:
    import torch

    s, positive, negative = views(x)
    own, m = mean(s / T, positive).exp(), 10
    noise = ((s / T).exp() * negative).sum(1)
    noise = torch.clamp((noise - 0.1 * m * own) / 0.9, min=m * np.exp(-1.0 / T))
    return -(own / (own + noise)).log().mean()


@formula("DCLW")
def _(x: Any) -> Any:
    s, positive, negative = views(x)
    aligned = (unit(x.a) * unit(x.b)).sum(1)
    weight = (2.0 - 6.0 * (aligned / 0.5).softmax(0)).detach()
    return (level(s / T, negative) - weight.repeat(2) * mean(s / T, positive)).mean()


@formula("MACL")
def _(x: Any) -> Any:
    s, positive, negative = views(x)
    alignment = (unit(x.a) * unit(x.b)).sum(1).mean().detach()
    logits = s / (0.1 * (1.0 + 0.5 * alignment))
    p = (mean(logits, positive) - level(logits, positive | negative)).exp()
    return -((1.0 / (1.0 - p)).detach() * p.log()).mean()


@formula("RINCE")
def _(x: Any) -> Any:
    e = (cosine(x.a, x.b) / T).exp()
    return (-(e.diagonal() ** 0.5) / 0.5 + (0.1 * e.sum(1)) ** 0.5 / 0.5).mean()


@formula("Multi-similarity")
def _(x: Any) -> Any:
    s, (positive, negative) = cosine(x.z, x.z), masks(x.labels)
    near = (1 + ((-2.0 * (s - 0.5)).exp() * positive).sum(1)).log() / 2.0
    far = (1 + ((50.0 * (s - 0.5)).exp() * negative).sum(1)).log() / 50.0
    return (near + far).mean()


@formula("The generalised lifted structure")
def _(x: Any) -> Any:
    import torch

    s, (positive, negative) = cosine(x.z, x.z), masks(x.labels)
    return torch.relu(level(-s, positive) + level(s, negative) + 0.5).mean()


@formula("Circle")
def _(x: Any) -> Any:
    import torch

    s, (positive, negative) = cosine(x.z, x.z), masks(x.labels)
    near, far = torch.relu(1.4 - s).detach(), torch.relu(s + 0.4).detach()
    return softplus(level(-80.0 * near * (s - 0.6), positive) + level(80.0 * far * (s - 0.4), negative)).mean()


@formula("ArcFace")
def _(x: Any) -> Any:
    import torch

    s = cosine(x.z, x.prototypes)
    own = torch.nn.functional.one_hot(x.labels, 3) > 0
    return xent(torch.where(own, torch.cos(torch.arccos(s) + 0.5), s) / T, x.labels)


@formula("Tuplet margin")
def _(x: Any) -> Any:
    import torch

    s, (positive, negative) = cosine(x.z, x.z), masks(x.labels)
    i, p = positive.nonzero(as_tuple=True)
    own = torch.cos(torch.arccos(s[i, p]) - 0.1)
    return (1 + ((64.0 * (s[i] - own[:, None])).exp() * negative[i]).sum(1)).log().mean()


@formula("Hardness weights of MNRL")
def _(x: Any) -> Any:
    import torch

    s = cosine(x.a, x.b)
    return xent(s / 0.2 + torch.where(diagonal(), 0.0, 9.0 * s.detach()), x.pair)


@formula("Hardness weights of all negatives")
def _(x: Any) -> Any:
    import torch

    s = cosine(x.a, torch.cat([x.b, x.hard]))
    return xent(s / 0.2 + torch.where(torch.eye(6, 18) > 0, 0.0, 9.0 * s.detach()), x.pair)


@formula("Hardness weights of a query's own negatives alone")
def _(x: Any) -> Any:
    import torch

    s = cosine(x.a, torch.cat([x.b, x.hard]))
    own = torch.cat([torch.zeros(6, 6) > 0, torch.eye(6).repeat_interleave(2, dim=1) > 0], dim=1)
    return xent(s / 0.2 + torch.where(own, 5.0 * s.detach(), 0.0), x.pair)


@formula("Proxy anchor")
def _(x: Any) -> Any:
    import torch

    s = cosine(x.z, x.prototypes)
    own = torch.nn.functional.one_hot(x.labels, 3) > 0
    near = (1 + ((-32.0 * (s - 0.1)).exp() * own).sum(0)).log().mean()
    return near + (1 + ((32.0 * (s + 0.1)).exp() * ~own).sum(0)).log().mean()


@formula("Uniformity")
def _(x: Any) -> Any:
    import torch

    return torch.pdist(unit(x.z)).pow(2).mul(-2.0).exp().mean().log()


@formula("One softmax over several arrangements")
def _(x: Any) -> Any:
    import torch

    across, within = cosine(x.a, x.b) / T, cosine(x.a, x.a) / T
    return xent(torch.cat([across, torch.where(diagonal(), -torch.inf, within)], dim=1), x.pair)


class Names:
    """A dictionary's entries as attributes."""

    def __init__(self, names: dict[str, Any]) -> None:
        self.__dict__.update(names)


@pytest.mark.framework("torch")
@pytest.mark.parametrize("title", [title for title in sections() if title])
def test_a_block_is_the_published_formula(title: str) -> None:
    import torch

    names: dict[str, Any] = {"__name__": "gallery"}
    for code in (sections()[""], sections()[title]):
        exec(compile(code, "gallery", "exec", dont_inherit=True), names)
    arrays = [names[name] for name in ARRAYS]
    got = torch.autograd.grad(names["loss"], arrays, allow_unused=True)
    want_value = FORMULAS[title](Names(names))
    want = torch.autograd.grad(want_value, arrays, allow_unused=True)
    assert names["loss"].dtype == torch.float64
    torch.testing.assert_close(names["loss"], want_value, rtol=1e-12, atol=1e-13)
    assert any(gradient is not None and bool((gradient != 0).any()) for gradient in want)
    for name, x, y in zip(ARRAYS, got, want):
        x, y = (torch.zeros(1) if gradient is None else gradient for gradient in (x, y))
        assert float((x - y).norm()) <= 1e-12 * max(float(y.norm()), 1e-300) or not bool(x.any() or y.any()), name


def test_the_numbers_of_the_page_add_up() -> None:
    said = [
        int(number)
        for number in re.findall(r"^\|[^|]*\|[^|]*\| (\d+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert sum(said) == 76
    reasons = PAGE.read_text(encoding="utf-8").split("| what cannot be said | why |\n")[1].splitlines()[1:]
    assert len(reasons) == said[-1]


def test_every_formula_has_its_block() -> None:
    assert FORMULAS.keys() == sections().keys() - {""}
