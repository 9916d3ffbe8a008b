"""The vocabulary of losses: public and stable. A loss is a frozen record of these words; `words` has the glossary."""

from sincere_spec.spec.arrangements import Labelled, PairedViews, Queries, Towers, Views
from sincere_spec.spec.logits import CosineSchedule, LogKernel, Schedule, ShiftedSchedule
from sincere_spec.spec.relations import DistinctSameLabel, OtherLabel, Relation, SameLabel
from sincere_spec.spec.words import (
    Arrangement,
    Fold,
    Logit,
    PairLoss,
    Pairs,
    Roles,
    Rows,
    Similarity,
    Stage,
    Term,
    Word,
)

__all__ = [
    "Arrangement",
    "CosineSchedule",
    "DistinctSameLabel",
    "Fold",
    "Labelled",
    "LogKernel",
    "Logit",
    "OtherLabel",
    "PairLoss",
    "PairedViews",
    "Pairs",
    "Queries",
    "Relation",
    "Roles",
    "Rows",
    "SameLabel",
    "Schedule",
    "ShiftedSchedule",
    "Similarity",
    "Stage",
    "Term",
    "Towers",
    "Views",
    "Word",
]
