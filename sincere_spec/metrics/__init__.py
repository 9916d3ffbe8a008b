"""Measures of embeddings, in every framework: what the papers of the losses look at, and what a training loop logs."""

from sincere_spec.metrics.diagnosis import Diagnosis, diagnose
from sincere_spec.metrics.neighbours import Nearest, nearest_similarities
from sincere_spec.metrics.pairs import alignment, separation, tolerance, uniformity
from sincere_spec.metrics.rank import Margin, effective_rank, knn, map_at_r, margin, r_precision, recall_at
from sincere_spec.metrics.report import Report, report
from sincere_spec.metrics.repulsion import Repulsion, kl_bound, repulsion

__all__ = [
    "Diagnosis",
    "Margin",
    "Nearest",
    "Report",
    "Repulsion",
    "alignment",
    "diagnose",
    "effective_rank",
    "kl_bound",
    "knn",
    "map_at_r",
    "margin",
    "nearest_similarities",
    "r_precision",
    "recall_at",
    "report",
    "repulsion",
    "separation",
    "tolerance",
    "uniformity",
]
