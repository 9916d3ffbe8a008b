"""Uniformity and tolerance over the temperature, and a temperature that depends on the similarity."""

from __future__ import annotations

import sincere_spec as ss
from sincere_spec.study.parts import runs
from sincere_spec.study.settings import Settings
from sincere_spec.study.train import Job
from sincere_spec.study.verdicts import PAIRED, Claim, claim, paired

TEMPERATURES = (0.05, 0.1, 0.2, 0.5, 1.0)
WANG, DYSTRESS = "Wang & Liu (2012.09740)", "DySTreSS (2308.01140)"


def name_of(temperature: float) -> str:
    """The name of a run of NT-Xent."""
    return f"nt_xent {temperature:g}"


def self_supervised(name: str, seed: int, loss: ss.PairLoss, settings: Settings, steps: int) -> Job:
    """A training on strong views, with batch normalisation."""
    return Job(name, seed, loss.to_dict(), steps, settings.size, strong=True, norm=True)


def jobs(settings: Settings, steps: int, classes: int) -> list[Job]:
    """NT-Xent at five temperatures, and DySTreSS."""
    found = []
    for seed in range(settings.seeds):
        for temperature in TEMPERATURES:
            loss = ss.losses.nt_xent(temperature)
            found.append(self_supervised(name_of(temperature), seed, loss, settings, steps))
        found.append(self_supervised("dystress", seed, ss.losses.dystress(), settings, steps))
    return found


def claims(study: runs.Study) -> list[Claim]:
    """What is said of the temperature."""
    found = []
    for measure, text in (
        ("uniformity h", "a lower temperature spreads embeddings more evenly"),
        ("tolerance h", "a lower temperature is less tolerant of one class"),
    ):
        given = runs.differences(study, name_of(0.05), name_of(0.5), measure)
        if given:
            what = f"{measure.removesuffix(' h')} of the backbone's h, temperature 0.05 minus 0.5"
            found.append(claim(measure, text, WANG, what, PAIRED, given, paired(given, -1.0), "a longer training"))
    for measure in ("1-NN h", "probe"):
        given = runs.differences(study, "dystress", name_of(0.1), measure)
        if given:
            text = f"a temperature that depends on the similarity is more accurate than a constant one: {measure}"
            what = f"{measure}, DySTreSS minus NT-Xent at 0.1"
            needs = "a convolutional network and hundreds of epochs, as in the paper"
            found.append(claim(f"dystress {measure}", text, DYSTRESS, what, PAIRED, given, paired(given, 1.0), needs))
    return found
