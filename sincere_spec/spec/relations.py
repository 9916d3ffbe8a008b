"""Who is a positive and who is a negative of whom.

A pair is judged by labels and by identities, never by positions: equal ids are the same sample, seen twice, and are
in no sum. A set may be empty. Sums and means over nothing are 0, a log-sum-exp over nothing takes its row out of the
count, and a stage that subtracts one sees no pairs in that row: so SINCERE's margin against no noise is 0.
"""

from __future__ import annotations

from sincere_spec.arrays import Array


def by_label(labels: Array, key_labels: Array, ids: Array, key_ids: Array) -> tuple[Array, Array]:
    """Positive and negative masks of a block of pairs, whose four arguments broadcast against each other."""
    same_class = labels == key_labels
    other_sample = ids != key_ids
    return same_class & other_sample, ~same_class & other_sample


def apart(labels: Array, key_labels: Array) -> tuple[Array, Array]:
    """The same of a block in which no row meets its own sample."""
    return labels == key_labels, labels != key_labels


def beside_partners(labels: Array, key_labels: Array) -> Array:
    """The negative mask of a block whose rows have their one positive elsewhere: every key of another label."""
    return labels != key_labels
