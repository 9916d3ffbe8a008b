"""Other packages' losses: where each is, how it is called, and which loss and reduction of ours it computes.

Names only. A peer is imported in the process that judges it, some by a call in `adapters`, and no line of one stands here.
A factor by which a peer differs from the loss would stand in its call; none of these has one.
"""

from __future__ import annotations

import importlib.metadata
import shlex
from dataclasses import dataclass

from sincere_spec.conformance.candidates import Candidate

__all__ = ["PEERS", "Peer"]


@dataclass(frozen=True)
class Peer:
    """A loss of another package: its name there, the package as pip knows it, and a row of the matrix that it is."""

    name: str
    distribution: str
    framework: str
    row: str
    candidate: Candidate

    @property
    def version(self) -> str:
        """The version that is installed, or nothing; it is not imported."""
        try:
            return importlib.metadata.version(self.distribution)
        except importlib.metadata.PackageNotFoundError:
            return ""

    @property
    def same_as(self) -> str:
        """The call of this package that is the same loss."""
        name, _, form = self.row.partition(" ")
        arguments = {
            "info_nce": "queries, positives",
            "nt_xent": "view_0, view_1",
            "clip": "a, b",
            "siglip": "a, b",
        }.get(name, "embeddings, labels")
        arguments += ", negatives" if form == "queue" else ""
        own = f', summation="{form}"' if name == "supcon" else ", bias=bias" if name == "siglip" else ""
        reduction = "" if self.candidate.reduction == "mean" else f', reduction="{self.candidate.reduction}"'
        return f"{name}_loss({arguments}, temperature=t{own}{reduction})"

    @property
    def command(self) -> str:
        """What judges it alone."""
        asked = self.candidate
        words = ["sincere-spec", "verify", "--impl", asked.target, "--call", asked.call]
        words += [] if asked.reduction == "mean" else ["--reduction", asked.reduction]
        return shlex.join([*words, "--loss", self.row, "--framework", self.framework])


def _metric_learning(name: str, row: str, call: str, reduction: str = "mean") -> Peer:
    kind = name.partition(",")[0].partition(" ")[0]
    target = f"pytorch_metric_learning.losses:{kind}"
    return Peer(name, "pytorch-metric-learning", "torch", row, Candidate(target, call, reduction))


_MEMORY = "ref_emb=keys, ref_labels=key_labels"
_PER_ANCHOR = "pytorch_metric_learning.reducers.PerAnchorReducer()"
_CATALYST = "catalyst.contrib.losses"
_ADAPTERS = "sincere_spec.conformance.adapters"
_RANKING = f"{_ADAPTERS}:ranking_of_sentence_transformers"
_BOTH_WAYS = "directions=('query_to_doc', 'doc_to_query'), partition_mode='per_direction'"
_SAMPLES = "jax.numpy.tile(jax.numpy.arange(view_0.shape[0]), 2)"

PEERS = (
    _metric_learning("NTXentLoss", "sincere", f"f(temperature=t)(z, y, {_MEMORY})", "pairs"),
    _metric_learning(
        "NTXentLoss, PerAnchorReducer", "sincere", f"f(temperature=t, reducer={_PER_ANCHOR})(z, y, {_MEMORY})", "batch"
    ),
    _metric_learning("SupConLoss", "supcon out", f"f(temperature=t)(z, y, {_MEMORY})"),
    _metric_learning(
        "NTXentLoss, SelfSupervisedLoss",
        "nt_xent",
        "pytorch_metric_learning.losses.SelfSupervisedLoss(f(temperature=t))(view_0, view_1)",
    ),
    Peer("ntxent", "optax", "jax", "sincere", Candidate("optax:ntxent", "f(z, y, t)", "pairs")),
    Peer(
        "ntxent of two views",
        "optax",
        "jax",
        "nt_xent",
        Candidate("optax:ntxent", f"f(jax.numpy.concatenate([view_0, view_1]), {_SAMPLES}, t)"),
    ),
    Peer(
        "info_nce",
        "info-nce-pytorch",
        "torch",
        "info_nce",
        Candidate("info_nce:info_nce", "f(queries, positives, temperature=t)"),
    ),
    Peer(
        "info_nce, negative_keys",
        "info-nce-pytorch",
        "torch",
        "info_nce queue",
        Candidate("info_nce:info_nce", "f(queries, positives, negatives, temperature=t)"),
    ),
    Peer(
        "MultipleNegativesRankingLoss",
        "sentence-transformers",
        "torch",
        "info_nce",
        Candidate(_RANKING, "f(queries, positives, t)"),
    ),
    Peer(
        "MultipleNegativesRankingLoss, both directions",
        "sentence-transformers",
        "torch",
        "clip",
        Candidate(_RANKING, f"f(a, b, t, {_BOTH_WAYS})"),
    ),
    Peer(
        "ContrastiveLoss",
        "monai",
        "torch",
        "nt_xent",
        Candidate("monai.losses:ContrastiveLoss", "f(temperature=t)(view_0, view_1)"),
    ),
    Peer(
        "NTXentLoss",
        "catalyst",
        "torch",
        "nt_xent",
        Candidate(f"{_CATALYST}.ntxent:NTXentLoss", "f(t)(view_0, view_1)"),
    ),
    *(
        Peer(
            f"SupervisedContrastiveLoss, pos_aggregation={form!r}",
            "catalyst",
            "torch",
            f"supcon {form}",
            Candidate(
                f"{_CATALYST}.supervised_contrastive:SupervisedContrastiveLoss", f"f(t, pos_aggregation={form!r})(z, y)"
            ),
        )
        for form in ("out", "in")
    ),
    Peer(
        "NTXentLoss", "lightly", "torch", "nt_xent", Candidate(f"{_ADAPTERS}:ntxent_of_lightly", "f(view_0, view_1, t)")
    ),
    Peer("ClipLoss", "open-clip-torch", "torch", "clip", Candidate(f"{_ADAPTERS}:clip_of_open_clip", "f(a, b, t)")),
    Peer(
        "SigLipLoss",
        "open-clip-torch",
        "torch",
        "siglip",
        Candidate(f"{_ADAPTERS}:siglip_of_open_clip", "f(a, b, t, bias)"),
    ),
    Peer("CLIPModel", "transformers", "torch", "clip", Candidate(f"{_ADAPTERS}:clip_of_transformers", "f(a, b, t)")),
    Peer(
        "SiglipModel",
        "transformers",
        "torch",
        "siglip",
        Candidate(f"{_ADAPTERS}:siglip_of_transformers", "f(a, b, t, bias)"),
    ),
)
