"""What the supervised losses do to embeddings: nearest target and noise, retrieval, probes, transfer, and the KL bound."""

from __future__ import annotations

from sincere_spec.study.parts import runs
from sincere_spec.study.verdicts import NO_WORSE, PAIRED, Claim, claim, no_worse, paired

SINCERE, SUPCON = "SINCERE (2309.14277)", "SupCon (2004.11362)"
LONGER = "a convolutional network, many classes and a far longer training, as in the paper"


def claims(study: runs.Study) -> list[Claim]:
    """What is said of separation, accuracy and transfer."""
    found = []

    def add(key: str, text: str, source: str, one: str, other: str, measure: object, sign: float, needs: str) -> None:
        given = runs.differences(study, one, other, measure)  # type: ignore[arg-type]
        if given:
            name = measure if isinstance(measure, str) else "KL bound"
            what = f"{name}, {one} minus {other}"
            found.append(claim(key, text, source, what, PAIRED, given, paired(given, sign), needs))

    add(
        "noise",
        "SINCERE lowers the similarity of the nearest noise",
        SINCERE,
        "sincere",
        "supcon_out",
        "noise",
        -1.0,
        LONGER,
    )
    add(
        "margin",
        "SINCERE widens the margin of target and noise",
        SINCERE,
        "sincere",
        "supcon_out",
        "margin",
        1.0,
        LONGER,
    )
    add("retrieval", "SINCERE retrieves more of a class", SINCERE, "sincere", "supcon_out", "MAP@R", 1.0, LONGER)
    given = runs.differences(study, "sincere", "supcon_out", "probe")
    if given:
        found.append(
            claim(
                "probe",
                "SINCERE's linear probe is no worse than SupCon's",
                SINCERE,
                "probe, sincere minus supcon_out",
                NO_WORSE,
                given,
                no_worse(given),
                "more seeds",
            )
        )
    add(
        "transfer",
        "SINCERE transfers better than SupCon",
        SINCERE,
        "sincere",
        "supcon_out",
        "transfer probe",
        1.0,
        LONGER,
    )
    text = "contrastive training transfers better than cross-entropy"
    add("transfer of contrast", text, SUPCON, "supcon_out", "cross_entropy", "transfer probe", 1.0, LONGER)
    text = "the sum over positives belongs outside the logarithm: better probe"
    add("out over in", text, SUPCON, "supcon_out", "supcon_in", "probe", 1.0, "more images: it grows with training")
    text = "the sum over positives belongs outside the logarithm: better retrieval"
    add("out over in, retrieval", text, SUPCON, "supcon_out", "supcon_in", "MAP@R", 1.0, "more images")
    text = "training by SINCERE tightens its bound of the KL divergence"
    add("bound", text, SINCERE, "sincere", "supcon_out", runs.largest_bound, 1.0, LONGER)
    return found
