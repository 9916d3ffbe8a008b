"""What engines ask of a framework's adapter: its operations, and device code for a sweep over all pairs."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

from sincere_spec.arrays import Array, Namespace, T
from sincere_spec.spec.words import Fold, Logit, Pairs


class Static(Protocol):
    """What of steps is no array; it hashes, so that a compiled program is found again by it."""

    @property
    def scalar(self) -> bool:
        """Whether the value is a scalar, not a vector by row."""

    @property
    def when_run(self) -> bool:
        """Whether the engine is chosen only when the program runs."""

    def steps(self, constants: tuple[Array, ...]) -> Differentiable:
        """The steps with these constants."""

    def total(self, x: Array) -> Array:
        """The sum of a tangent over the devices that share the call."""

    def settled(self, constants: tuple[Array, ...], arrays: tuple[Array, ...]) -> Settled:
        """The steps when the program runs: the engine is chosen from arrays that are there."""

    def rows_with_loss(self, arrays: Sequence[Array]) -> Any:
        """The length of a vector by row."""

    def described(self) -> dict[str, Any]:
        """All but the adapter as plain values, from which `read_static` makes it again."""


class Differentiable(Protocol):
    """A function of arrays with a hand-written gradient, and an exact composite for whatever is beyond the first order."""

    @property
    def static(self) -> Static:
        """What is no array."""

    @property
    def constants(self) -> tuple[Array, ...]:
        """The arrays that receive no gradient."""

    def forward(self, arrays: tuple[Array, ...], wanted: tuple[bool, ...]) -> tuple[Array, Any]:
        """The value, and what `backward` wants to have kept for the gradients that will be wanted."""

    def backward(
        self, arrays: tuple[Array, ...], saved: Any, cotangent: Array | None, wanted: tuple[bool, ...]
    ) -> tuple[Array | None, ...]:
        """The gradient by each array that is wanted, under the value's cotangent (None is 1)."""

    def value(self, *arrays: Array) -> Array:
        """The value where no gradient will be asked for."""

    def exact(self, *arrays: Array) -> Array:
        """The value again, from operations that the framework can differentiate to any order."""


class Settled(Differentiable, Protocol):
    """Steps whose engine is chosen."""

    def value_and_gradient(
        self, arrays: tuple[Array, ...], wanted: tuple[bool, ...]
    ) -> tuple[Array, tuple[Array | None, ...]]:
        """A scalar value and its gradient, in the dtype in which the loss is computed."""


class Collectives(Protocol):
    """What the ranks of a group exchange: each gives rows of its own, and every rank gets those of all.

    `on_host` says that ranks are processes that agree on a call before it starts, by a `HostCollectives`. Otherwise all run one
    program: these are `ProgramCollectives`.
    """

    @property
    def size(self) -> int:
        """How many ranks there are."""

    @property
    def on_host(self) -> bool:
        """See above."""

    @property
    def rank(self) -> Any:
        """The place of this rank among them."""

    def gather(self, x: Array, sizes: Sequence[Any]) -> Array:
        """The rows of all ranks in order of rank, of which each has so many."""

    def total(self, x: Array) -> Array:
        """The sum over ranks, in the same bits on each."""

    def scatter(self, x: Array, own: Array, sizes: Sequence[Any]) -> Array:
        """The adjoint of `gather`: the sum over ranks of what each has for the rows of all, where these are `own`."""


class HostCollectives(Collectives, Protocol):
    """What processes exchange besides: what they know on the host."""

    def numbers(self, row: Sequence[int]) -> list[list[int]]:
        """The integers of every rank, of 64 bits; each gives as many."""

    def objects(self, x: Any) -> list[Any]:
        """An object of every rank that can be pickled."""


class ProgramCollectives(Collectives, Protocol):
    """What ranks that run one program exchange.

    `compiled` says that the framework compiles and transposes collectives: it adds up gradients of what all ranks have itself,
    and ranks have equally many rows. Otherwise the loops between collectives are compiled programs, and no rank knows before
    it runs how many rows another has.
    """

    @property
    def compiled(self) -> bool:
        """See above."""

    def before(self, x: Array) -> Any:
        """How many rows the lower ranks have of an array."""


@dataclass(frozen=True)
class Divisible:
    """A program of which each device can run its part, where a compiler divides the operands over devices by rows.

    `whole(*operands)` is all of it. `own(collectives, shared, operands)` is the part of a device that has as many rows of each
    operand as any other; if `shared`, all have all keys. `rows_of` says by operand what is along its first axis: "rows", "keys"
    if these are others, or None for neither. `like` is by result the operand of whose shape and rows it is, or None for a scalar.
    """

    whole: Callable[..., tuple[Array, ...]]
    own: Callable[[Collectives, bool, tuple[Array, ...]], tuple[Array, ...]]
    rows_of: tuple[str | None, ...]
    like: tuple[int | None, ...]


readers: list[Callable[[dict[str, Any], Any], Static]] = []
"""Who makes a static part of what `described` wrote, and an adapter: the call path is, and adapters do not import it."""


class Backend(Protocol):
    """What a framework's adapter supplies. It imports its framework; it knows nothing of losses.

    `traces` says that it is a `TracingBackend`, which compiles programs and has loops of its own; others are `EagerBackend`s.
    """

    name: str
    traces: bool

    def namespace(self, x: Array) -> Namespace:
        """The Array API namespace of an array."""

    def prepare(self, x: Array, argument: str) -> Array:
        """A plain dense array of the framework (a variable's value, say); raises for sparse and ragged ones."""

    def dtype_name(self, x: Array) -> str:
        """The standard's name of an array's dtype, such as "float32"; also "bfloat16", "string", "object"."""

    def dtype(self, name: str, like: Array) -> Any:
        """The framework's own dtype of that name."""

    def device(self, x: Array) -> object:
        """Where an array lives, comparable with ==; None where that cannot be told or does not matter."""

    def platform(self, x: Array) -> str:
        """The kind of device that an array is on, or will be when a traced program runs: "cpu", "cuda", and so on.

        The words are those of `sincere-spec bench --device`, whose crossovers are found by them.
        """

    def concrete(self, x: Array) -> bool:
        """Whether an array has values that can be read now: False under tracing."""

    def on_host(self, x: Array) -> bool:
        """Whether reading them is cheap, too: concrete, and in the host's own memory."""

    def extremes(self, x: Array) -> tuple[float, float]:
        """The least and the largest entry of an array that has entries and is `on_host`; NaN if one is."""

    def to_host(self, x: Array) -> Any:
        """The values of a concrete array as a NumPy array or a plain list."""

    def integers(self, values: Sequence[int], like: Array) -> Array:
        """Small integers from the host, beside `like`."""

    def length(self, x: Array) -> Any:
        """The number of rows: an int, or a scalar of the framework where it is not known yet."""

    def indices(self, x: Array) -> Array:
        """0, 1, ... for the rows of an array, beside it, also where their number is not known yet."""

    def hold(self, x: Array) -> Array:
        """The array with no gradient flowing through it."""

    def product(self, a: Array, b: Array) -> Array:
        """`a @ b`, in the full precision of the dtype where the framework lets a call ask for it."""

    def exp_of(self, x: Array) -> Array:
        """The exponential; may overwrite its argument, where the framework can."""

    def has_columns(self, like: Array) -> bool:
        """Whether a few columns of each row can be read and written by themselves: as an `EagerBackend`, on the host."""

    def tiles_obstacle(self, like: Array) -> str | None:
        """Why the tiled engine cannot run on such arrays here and now, as half a sentence; None if it can."""

    def when_run(self, like: Array) -> str | None:
        """Why the engine is chosen only when the program runs, as half a sentence; None if it is chosen here and now.

        An adapter that says so is a `DeferringBackend`.
        """

    def kernels(self, like: Array, logit: Logit) -> Kernels | str:
        """Device code for sweeps beside an array, with a logit; or why there is none, as half a sentence."""

    def collectives(self, group: object) -> Collectives | str:
        """The collectives of a group of ranks, as `across=` names it here and now; or why there are none, as half a sentence."""

    def wants_gradient(self, x: Array) -> bool:
        """Whether a gradient by an array may be asked for."""

    def largest(self, x: Array, k: int) -> tuple[Array, Array]:
        """The `k` largest entries of each row of a matrix in descending order, and their columns; of equal ones the first.

        No entry may be NaN.
        """

    def segment_sums(self, x: Array, segments: Array, count: int) -> Array:
        """The sums `[count, d]` of the rows `[n, d]` of each segment, which are numbered from 0; differentiable."""

    def differentiable(self, steps: Differentiable, *arrays: Array) -> Array:
        """`steps.forward` of the arrays, as a node of the framework's graph whose gradient is `steps.backward`."""

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function with the framework's automatic casts, conversions and warnings out of the way."""


class EagerBackend(Backend, Protocol):
    """What an adapter supplies besides, if its framework writes to arrays in place."""

    def scratch(self, like: Array, size: int) -> Array:
        """Room for `size` entries, for `product_into`."""

    def product_into(self, scratch: Array, a: Array, b: Array, scale: float) -> Array:
        """`scale` times `product`, written into `scratch` where the framework can."""

    def add_product(self, total: Array, a: Array, b: Array) -> None:
        """Add `product` to a part of an array."""

    def columns_of(self, x: Array, columns: Array) -> Array:
        """The entries of each row in some columns of its own."""

    def with_columns(self, x: Array, columns: Array, value: float) -> Array:
        """The array with a value there; may overwrite its argument."""

    def added_to_columns(self, x: Array, columns: Array, values: Array) -> Array:
        """The array with values added there, also twice to one column; may overwrite its argument."""

    def strips(self, like: Array, logit: Logit) -> Kernels | None:
        """The sweeps of tiles on a device, by its vendor's matrix products; None where the engine's own tiles are meant."""


class TracingBackend(Backend, Protocol):
    """What an adapter supplies besides, if its framework compiles programs and has loops of its own."""

    def loop(self, start: Any, stop: Any, body: Callable[[Any, Any], Any], state: Any) -> Any:
        """`state = body(i, state)` for each i from `start` to before `stop`; states are nested tuples of arrays."""

    def when(self, condition: Array, yes: Callable[[], T], no: Callable[[], T]) -> T:
        """`yes()` or `no()`, decided at run time."""

    def rows_of(self, x: Array, start: Any, count: int) -> Array:
        """`count` rows of an array from `start` on."""

    def with_rows(self, x: Array, rows: Array, start: Any) -> Array:
        """The array with these rows from `start` on."""

    def padded(self, x: Array, count: Any) -> Array:
        """The array with rows of zeros appended, to `count` rows."""

    def first_rows(self, count: int, size: int) -> Array:
        """A mask of `size` rows, True for the first `count`."""

    def runs_by_size(self, arrays: Sequence[Array], dense: bool) -> bool:
        """Whether a call of these arrays compiles for their sizes, here and now: no caller's program does.

        Tiles do; whole matrices where each operation is compiled by itself.
        """

    def copies(self, x: Array) -> int:
        """Over how many devices rows are sharded; 1 where that is not known, or it is not sharded."""

    def may_divide(self, arrays: Sequence[Array]) -> bool:
        """Whether a compiler may divide the rows of these arrays over devices, so that `divided` is what to call."""

    def divided(self, program: Divisible, operands: tuple[Array, ...]) -> tuple[Array, ...]:
        """What a program makes of its operands: each device its part of it, where the compiler divides them by rows."""

    def number(self, value: float, dtype: str) -> Array:
        """A 0-d array."""

    def gradient_follows(self) -> bool:
        """Whether `forward` is called with gradients wanted only where one follows, so that it may make the gradient itself."""

    def run(self, function: Callable[..., T], static: Hashable, *arrays: Any) -> T:
        """`function(static, *arrays)`, compiled once for each static part and each shape of the arrays."""


class DeferringBackend(Backend, Protocol):
    """What an adapter supplies besides, if a program of its framework can call back when it runs."""

    def fuses(self, sizes: tuple[Any, Any]) -> bool:
        """Whether so few pairs are known now, and the compiler makes the best program of the dense composite."""

    def held_number(self, value: float, like: Array) -> Array:
        """A 0-d array beside another, of all digits: a program that has it serves other values, too."""

    def run_later(self, steps: Differentiable, *arrays: Array) -> tuple[Array, tuple[Array | None, ...]]:
        """A scalar value and its gradient, when the program runs."""


class Part(NamedTuple):
    """One sum over the positives, or over the negatives, of a row: stages over both have two, and equal ones are shared."""

    fold: Fold
    over: Pairs
    scale: float
    offset: float
    minus: str | None
    weighted: bool = False  # whether pairs are summed under their weights


@dataclass(frozen=True)
class KernelSpec:
    """What of a sweep is no array: device code is made for it. With `partners` all pairs of other labels are negatives.

    `distinct` says that a row's columns of other labels are of other samples.
    """

    parts: tuple[Part, ...]
    logit: Logit
    partners: bool
    distinct: bool


class KernelOperands(NamedTuple):
    """Rows and the columns that they are compared with, `[n, d]` and `[m, d]`, sorted by label: arrays of one float dtype.

    A half type is multiplied as it is, with sums in the dtype of the rest, and each row and column stands for itself times
    its factor; in a full type factors are 1. The columns from `first` to before `last` are those of a row's label.
    Columns that take part come first: `length` is their number. It, temperature and bias are 0-d arrays.
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
    length: Array


class LogitCotangents(NamedTuple):
    """What the pull of a pair is made of, by part and by row with a loss: `weight * ψ′(scale * a + offset - shift)`."""

    weights: Array
    shifts: Array


class Kernels(Protocol):
    """Device code that knows the words of `spec`, and no loss. A program owns some rows: no sum depends on the order.

    A pair's part has the argument `t = scale * a + offset - shift`, with a shift by part and row; for LOGSUMEXP ψ′ is `exp`.
    """

    tile: int

    def tally(self, words: KernelSpec, panel: KernelOperands, shifts: Array, tile: int) -> tuple[Array, Array, Array]:
        """By part and row: Σ ψ(t), for LOGSUMEXP relative to the peak; the peak; Σ scale ψ′(t) if the part subtracts a stage."""

    def pull(
        self,
        words: KernelSpec,
        panel: KernelOperands,
        own: LogitCotangents | None,
        others: LogitCotangents | None,
        tile: int,
    ) -> tuple[Array, Array, Array]:
        """The gradient `[n, d]` by the rows times their factors, from their own losses and those of the columns.

        It is before 1 / temperature. And by row Σ C and Σ C value(s), of the rows' own losses.
        """


@runtime_checkable
class TwoSidedKernels(Kernels, Protocol):
    """Device code that makes the gradients by both sides of a panel in one sweep."""

    def pull_both(
        self,
        words: KernelSpec,
        panel: KernelOperands,
        row_length: Array,
        own: LogitCotangents | None,
        others: LogitCotangents | None,
        tile: int,
    ) -> tuple[Array, Array, Array, Array] | None:
        """The gradients by rows `[n, d]` and by columns `[m, d]`, and by row Σ C and Σ C value(s), of the losses of both sides.

        The rows that take part are the first `row_length`, a 0-d array. None where two sweeps are better.
        """
