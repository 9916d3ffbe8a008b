"""The vocabulary under its name of version 0.1.0, for imports and pickles; it is `sincere_spec.spec` now."""

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

Reduce = Stage

__all__ = [
    "Arrangement",
    "Fold",
    "Logit",
    "PairLoss",
    "Pairs",
    "Reduce",
    "Roles",
    "Rows",
    "Similarity",
    "Stage",
    "Term",
    "Word",
]
