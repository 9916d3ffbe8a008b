"""The divergences of f-MICL beside NT-Xent."""

from __future__ import annotations

from itertools import combinations

import sincere_spec as ss
from sincere_spec.losses.f_micl import Divergence
from sincere_spec.study.parts import runs
from sincere_spec.study.parts.temperature import name_of, self_supervised
from sincere_spec.study.settings import Settings
from sincere_spec.study.train import Job
from sincere_spec.study.verdicts import CONTRADICTS, REPRODUCES, UNSEEN, Claim, claim, paired

DIVERGENCES: tuple[Divergence, ...] = ("kl", "js", "pearson")
SOURCE = "f-MICL (2402.10150)"
NEAR = 0.05


def jobs(settings: Settings, steps: int, classes: int) -> list[Job]:
    """f-MICL with three divergences; NT-Xent at 0.1 is there already if the part `temperature` is asked for, too."""
    found = []
    for seed in range(settings.seeds):
        if "temperature" not in settings.parts:
            found.append(self_supervised(name_of(0.1), seed, ss.losses.nt_xent(0.1), settings, steps))
        for divergence in DIVERGENCES:
            loss = ss.losses.f_micl(divergence=divergence)
            found.append(self_supervised(f"f_micl {divergence}", seed, loss, settings, steps))
    return found


def claims(study: runs.Study) -> list[Claim]:
    """What is said of divergences."""
    found = []
    worst = []
    for divergence in DIVERGENCES:
        given = runs.differences(study, f"f_micl {divergence}", name_of(0.1), "10-NN")
        worst += [min(given)] if given else []
    if worst:
        lowest = min(worst)
        found.append(
            claim(
                "f-MICL learns",
                "every divergence learns as well as NT-Xent",
                SOURCE,
                "10-NN, by divergence the lowest of f-MICL minus NT-Xent at 0.1",
                f"no seed of any divergence more than {NEAR} below",
                worst,
                REPRODUCES if lowest > -NEAR else UNSEEN if lowest > -2 * NEAR else CONTRADICTS,
                "a longer training",
            )
        )
    pairs = [
        runs.differences(study, f"f_micl {one}", f"f_micl {other}", "10-NN")
        for one, other in combinations(DIVERGENCES, 2)
    ]
    pairs = [given for given in pairs if len(given) > 1]
    if pairs:
        differ = [paired(given, 1.0) != UNSEEN for given in pairs]
        means = [sum(given) / len(given) for given in pairs]
        found.append(
            claim(
                "none dominates",
                "no divergence is better than all others",
                SOURCE,
                "10-NN, mean paired difference of each two divergences",
                "not every pair differs by the rule of paired differences",
                means,
                CONTRADICTS if all(differ) else REPRODUCES,
            )
        )
    return found
