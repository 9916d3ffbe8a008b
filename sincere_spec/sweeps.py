"""What an engine asks of device code: the words of one sweep over all pairs of two sides, and its arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from sincere_spec.protocol import Fold, Logit, Pairs
from sincere_spec.types import Array


class Part(NamedTuple):
    """One sum over the positives, or over the negatives, of a row: stages over both have two, and equal ones are shared."""

    fold: Fold
    over: Pairs
    scale: float
    offset: float
    minus: str | None


@dataclass(frozen=True)
class Words:
    """What of a sweep is no array: device code is made for it. With `partners` all pairs of other labels are negatives.

    `distinct` says that a row's columns of other labels are of other samples.
    """

    parts: tuple[Part, ...]
    logit: Logit
    partners: bool
    distinct: bool


class Panel(NamedTuple):
    """Rows and the columns that they are compared with, `[n, d]` and `[m, d]`, sorted by label: arrays of one float dtype.

    A half type is multiplied as it is, with sums in the dtype of the rest, and each row and column stands for itself times
    its factor; in a full type factors are 1. The columns from `first` to before `last` are those of a row's label.
    Temperature and bias are 0-d arrays.
    """

    rows: Array
    columns: Array
    row_factors: Array
    column_factors: Array
    labels: Array
    key_labels: Array
    ids: Array
    key_ids: Array
    first: Array
    last: Array
    temperature: Array
    bias: Array


class Pulls(NamedTuple):
    """What the pull of a pair is made of, by part and by row with a loss: `weight * ψ′(scale * a + offset - shift)`."""

    weights: Array
    shifts: Array


class Kernels(Protocol):
    """Device code that knows the words of the protocol, and no loss. A program owns some rows: no sum depends on the order.

    A pair's part has the argument `t = scale * a + offset - shift`, with a shift by part and row; for LOGSUMEXP ψ′ is `exp`.
    """

    tile: int

    def tally(self, words: Words, panel: Panel, shifts: Array, tile: int) -> tuple[Array, Array, Array]:
        """By part and row: Σ ψ(t), for LOGSUMEXP relative to the peak; the peak; Σ scale ψ′(t) if the part subtracts a stage."""

    def pull(
        self, words: Words, panel: Panel, own: Pulls | None, others: Pulls | None, tile: int
    ) -> tuple[Array, Array, Array]:
        """The gradient `[n, d]` by the rows times their factors, from their own losses and those of the columns.

        It is before 1 / temperature. And by row Σ C and Σ C value(s), of the rows' own losses.
        """
