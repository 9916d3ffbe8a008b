"""The arrangements under their name of version 0.1.0, for imports and pickles; they are in `sincere_spec.spec` now."""

from sincere_spec.spec.arrangements import Labelled, PairedViews, Queries, Towers, Views

__all__ = ["Labelled", "PairedViews", "Queries", "Towers", "Views"]
