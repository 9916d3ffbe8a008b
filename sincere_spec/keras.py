"""The losses for Keras 3, on its TensorFlow, JAX and PyTorch backends: `from sincere_spec.keras import SincereLoss`.

A constructor takes the keywords of the function, and Keras's own `reduction`, `name` and `dtype`. Import this module
before `keras.saving.load_model`, which finds the classes by their registration.

*With labels* (`SincereLoss`, `SupConLoss`, `DecoupledLoss`): `y_pred` has the embeddings, `[n, d]` or `[n, views, d]`,
and `y_true` a label for each sample, `[n]` or `[n, 1]`. Integers stay integers: Keras itself would make them float32,
and merge those from 2^24 on. One-hot rows are read too; other rows of that shape, such as smoothed labels, are refused where
values are known, as outside of `fit` and on PyTorch, and make the loss NaN in a graph. Strings, and floats that are no one-hot
rows, are for calls outside of `fit`. JAX keeps 32 bits of an integer, unless told otherwise, and cuts off the others.

`ignore_label=-1` leaves samples of that label out, as padding of a last batch is. With
`overlap="any"`, or "jaccard" for `SupConLoss`, a sample has several labels, and `y_true` is multi-hot, `[n, classes]`.

*Without labels* (all others): `y_pred` has the views of each sample, `[n, views, d]`, and each view is a positional
argument of the function. `y_true` is not looked at, so `fit(x)` needs none. The views come from the model, and so
receive gradients: two passes through an augmentation, or two towers, stacked on axis 1.

    >>> import keras
    >>> from sincere_spec.keras import NTXentLoss
    >>> x = keras.Input((64,))
    >>> augmentation, encoder = keras.layers.GaussianNoise(0.1), keras.layers.Dense(16)
    >>> views = [encoder(augmentation(x)) for _ in range(2)]
    >>> model = keras.Model(x, keras.ops.stack(views, axis=1))
    >>> model.compile("adam", loss=NTXentLoss())
    >>> history = model.fit(keras.random.normal((32, 64)), verbose=0)

If `y_pred` is one view, `[n, d]`, the second is `y_true`, `[n, d]`: embeddings that were computed before, by a tower that
is not trained, say. It is data, and receives no gradient.

*A temperature that learns* is a weight of the model, which then adds the function's loss itself: Keras trains no weights
of a loss.

    >>> import sincere_spec as ss
    >>> class Towers(keras.Model):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.towers = [keras.layers.Dense(16), keras.layers.Dense(16)]
    ...         self.log_temperature = self.add_weight(shape=(), initializer=keras.initializers.Constant(-2.66))
    ...     def call(self, inputs):
    ...         a, b = (tower(x) for tower, x in zip(self.towers, inputs))
    ...         self.add_loss(ss.clip_loss(a, b, temperature=keras.ops.exp(self.log_temperature)))
    ...         return a, b
    >>> model = Towers()
    >>> model.compile("adam")
    >>> history = model.fit((keras.random.normal((32, 64)), keras.random.normal((32, 8))), verbose=0)

*Reductions* are Keras's, over the losses of the samples; one with several rows, its views or CLIP's two directions, has
their mean. Samples whose rows do not count are left out as if by a mask: Keras's default divides by the number of the
others, which is the function's mean. `sample_weight` multiplies the losses, and no more: a sample of weight 0 is compared
with the others all the same. An empty batch has the loss 0. Masks that Keras attaches to `y_pred` are not read.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, TypedDict, cast

import keras
import numpy as np
from keras import ops

from sincere_spec import losses
from sincere_spec.arrays import Array, Engine, Labels
from sincere_spec.call.dispatch import backend_of
from sincere_spec.call.evaluate import evaluate, explain
from sincere_spec.call.labels import as_integers
from sincere_spec.docstrings import documented_class
from sincere_spec.errors import EngineUnavailable, LabelError, OptionError, ShapeError, unknown_keyword
from sincere_spec.losses.dystress import ScheduleName
from sincere_spec.losses.f_micl import Divergence
from sincere_spec.losses.supcon import Summation
from sincere_spec.relations import Kind
from sincere_spec.relations import overlap as of_classes
from sincere_spec.spec.words import PairLoss

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = [
    "CLIPLoss",
    "DecoupledLoss",
    "DySTreSSInfoNCELoss",
    "DySTreSSLoss",
    "FMICLLoss",
    "HCLLoss",
    "InfoLOOBLoss",
    "InfoNCELoss",
    "NTXentLoss",
    "SigLIPLoss",
    "SincereLoss",
    "SupConLoss",
]

registered = keras.saving.register_keras_serializable(package="sincere_spec")


EXACT_INTEGERS = {"float16": 2**11, "bfloat16": 2**8}
"""From where on a dtype has not every integer, so that it may have merged two labels; that of float32 for all others."""

KerasReduction: TypeAlias = Literal["sum_over_batch_size", "mean", "mean_with_sample_weight", "sum", "none"]


class Options(TypedDict, total=False):
    """The keywords that every loss has: those of every function, then Keras's."""

    normalize: bool
    engine: Engine
    tile: int | None
    across: Any
    reduction: KerasReduction | None
    name: str | None
    dtype: Any


class LabelledOptions(Options, total=False):
    """The keywords of losses with labels."""

    ignore_label: int | str | None
    overlap: Kind | None


EXPLAINED = {
    "temperature": "divides the similarities; a positive number.",
    "bias": "added to every logit; a number.",
    "reduction": 'Keras\'s, over the losses of the samples: "sum_over_batch_size", "mean", "sum", "none" or None.',
    "name": "of the loss, for Keras.",
    "dtype": "in which the embeddings are compared; None is Keras's default.",
    "ignore_label": "the label of samples that take no part, such as the padding of a last batch; None for none.",
    "overlap": '"any" or "jaccard": `y_true` is multi-hot, `[n, classes]`, as in `sincere_spec.overlap`; None for one label a '
    "sample.",
}
EXPLAINED["across"] = (
    "True for the loss of the rows of all replicas of a tf.distribute strategy, or a process group of PyTorch; None for a "
    "replica's own."
)
described = documented_class(Options.__annotations__, EXPLAINED)
described_with_labels = documented_class(LabelledOptions.__annotations__, EXPLAINED)


class Given(keras.losses.Loss):  # type: ignore[misc]  # Keras has no types
    """Losses that are there already: Keras's weights and reductions, and nothing else."""

    def call(self, y_true: Array, y_pred: Array) -> Array:
        """The losses."""
        return y_pred


class Loss(keras.losses.Loss):  # type: ignore[misc]
    """A loss record and the options of its calls; `own` are the keywords of the record, by name."""

    keywords = Options.__annotations__

    def __init__(
        self,
        record: Callable[..., PairLoss],
        own: dict[str, Any],
        /,
        *,
        normalize: bool = True,
        engine: Engine = "auto",
        tile: int | None = None,
        across: Any = None,
        reduction: KerasReduction | None = "sum_over_batch_size",
        name: str | None = None,
        dtype: Any = None,
        **unknown: Any,
    ) -> None:
        if unknown:
            taken = [*own, *self.keywords]
            raise unknown_keyword(type(self).__name__, next(iter(unknown)), taken)
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        for parameter in {"temperature", "bias"} & own.keys():
            own[parameter] = _number(parameter, own[parameter])
        self.own, self.record = own, record(**own)
        self.options: dict[str, Any] = {"normalize": normalize, "engine": engine, "tile": tile}
        self.given = Given(name=self.name, reduction=reduction, dtype=dtype)
        if across is not None and reduction not in ("sum_over_batch_size", "mean"):
            raise OptionError(
                'across: the reduction must be "sum_over_batch_size" or "mean", which Keras averages over replicas; '
                f"got {reduction!r}."
            )
        self.across = across
        # Bad options are refused here, by the checks of a call. Whether an engine is there is for the call to say.
        row = np.ones((1, 1))
        with suppress(EngineUnavailable):
            explain(self.record, row, [0] if self.record.arrangement.labelled else row, **self.options)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Array:
        """The losses of the samples, weighted and reduced as Keras does, without its cast of the labels to floats."""
        if self.across is not None and sample_weight is not None:
            raise OptionError("across: sample weights are not served: give the loss samples that all weigh the same.")
        with keras.name_scope(self.name):
            y_pred = ops.convert_to_tensor(y_pred, dtype=self.dtype)
            y_true, share = self.read(y_true, y_pred)
            if self.across is not None:
                value = self.of_all(y_true, y_pred)
                # What cannot be read is NaN.
                value = ops.reshape(value if share is None else value + 0.0 * ops.sum(share), (1,))
                return ops.sum(self.given(value, value))
            values = self.call(y_true, y_pred)
            if sample_weight is not None:
                sample_weight = ops.reshape(ops.convert_to_tensor(sample_weight, dtype=self.dtype), (-1,))
                share = sample_weight if share is None else sample_weight * share
            value = self.given(values, values, share)
            # Keras leaves the losses of an empty batch as they are.
            return value if self.reduction in (None, "none") else ops.sum(value)

    def read(self, y_true: Any, y_pred: Array) -> tuple[Any, Array | None]:
        """`y_true` as `call` takes it, and the weight that each sample has by itself; None if that is 1."""
        raise NotImplementedError

    def call(self, y_true: Any, y_pred: Array) -> Array:
        """The loss of each sample, `[n]`; 0 where its rows do not count."""
        raise NotImplementedError

    def of_all(self, y_true: Any, y_pred: Array) -> Array:
        """The loss of the rows of all replicas, a scalar."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        config: dict[str, Any] = super().get_config()
        return config | {"dtype": self.dtype, "across": self.across} | self.own | self.options


def _number(name: str, value: Any) -> float:
    if isinstance(value, Real) and not isinstance(value, bool):
        return float(value)
    raise OptionError(
        f"{name}: expected a number, since Keras trains no weights of a loss; got {value!r}: for one that learns, add the "
        "function's loss in the model, by add_loss."
    )


class Rows(NamedTuple):
    """What `y_true` says of the rows: a label each or several, and which take part."""

    labels: Any
    where: Array | None


class Labelled(Loss):
    """Losses of embeddings and labels."""

    keywords = LabelledOptions.__annotations__

    def __init__(
        self,
        record: Callable[..., PairLoss],
        own: dict[str, Any],
        /,
        *,
        ignore_label: int | str | None = None,
        overlap: Kind | None = None,
        **options: Any,
    ) -> None:
        super().__init__(record, own, **options)
        if ignore_label is not None and (
            isinstance(ignore_label, bool) or not isinstance(ignore_label, (Integral, str))
        ):
            raise OptionError(f"ignore_label must be a label, an integer or a string, or None; got {ignore_label!r}.")
        if self.across is not None and (overlap is not None or isinstance(ignore_label, str)):
            raise OptionError(
                "across: labels must be integers, one a sample; overlap and labels that are words are not served."
            )
        if overlap is not None:
            if ignore_label is not None:
                raise OptionError("ignore_label is one label a sample, and overlap reads several; give one of the two.")
            if self.record.name == "decoupled":
                raise OptionError(
                    "overlap: which rows of decoupled_loss count, only pairs say; add the function's loss by add_loss."
                )
            explain(self.record, np.ones((1, 1)), of_classes(np.ones((1, 1)), overlap))
        self.ignore_label = int(ignore_label) if isinstance(ignore_label, Integral) else ignore_label
        self.overlap = overlap

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return super().get_config() | {"ignore_label": self.ignore_label, "overlap": self.overlap}

    def read(self, y_true: Any, y_pred: Array) -> tuple[Rows, Array]:
        """The labels as integers, or several of them, and the weight of each sample, by whether its rows count."""
        return self._read_labels(y_true, y_pred) if self.overlap is None else self._read_classes(y_true, y_pred)

    def _read_classes(self, y_true: Any, y_pred: Array) -> tuple[Rows, Array]:
        hot = ops.convert_to_tensor(y_true)
        if len(hot.shape) != 2:
            raise ShapeError(f"y_true: expected [n, classes], a 1 for each class of a sample; got {tuple(hot.shape)}.")
        there = ops.not_equal(hot, 0)
        legible = _refuse_unless(
            ops.all(ops.equal(hot, 1) | ~there), y_pred, "a 1 for each class of a sample and else 0; got other numbers"
        )
        ones = ops.cast(there, self.dtype)
        # A sample has a positive if another has one of its classes, or it has two views.
        shared = ones * ops.cast(ops.sum(ones, axis=0) * _views(y_pred) > 1.0, self.dtype)
        return Rows(of_classes(there, cast(Kind, self.overlap)), None), self._share(
            ops.sum(shared, axis=1) > 0.0, legible
        )

    def _read_labels(self, y_true: Labels, y_pred: Array) -> tuple[Rows, Array]:
        legible = None
        if ops.is_tensor(y_true):
            y_true = ops.convert_to_tensor(y_true)  # beside y_pred, where that is on another device
        if ops.is_tensor(y_true) and len(y_true.shape) == 2 and y_true.shape[1] != 1:
            rows = ops.cast(y_true, "float32")
            ones, entries = (ops.sum(ops.cast(x, "int32"), axis=1) for x in (rows == 1.0, rows != 0.0))
            legible = _refuse_unless(
                ops.all((ones == 1) & (entries == 1)),
                y_pred,
                'one-hot rows; got others: overlap="any" or "jaccard" reads several classes a sample, and a label smoothed is '
                "ss.supcon_loss(z, ss.positives(weights)), by add_loss",
            )
            y_true = ops.argmax(rows, axis=1)
        backend = backend_of(y_pred, "y_pred")
        if self.across is not None and (
            not ops.is_tensor(y_true) or keras.backend.standardize_dtype(y_true.dtype) == "string"
        ):
            raise LabelError("across: y_true must be a tensor of integers, which are the same on every replica.")
        later = self.across is not None or not (ops.is_tensor(y_true) and backend.concrete(y_true))
        if ops.is_tensor(y_true) and keras.backend.is_float_dtype(y_true.dtype) and later:
            given = ops.reshape(
                y_true, (-1,)
            )  # as Keras builds a model with; whether they are whole is seen when it runs
            y_true = ops.cast(given, "int32")
            exact = ops.abs(given) < EXACT_INTEGERS.get(keras.backend.standardize_dtype(given.dtype), 2**24)
            legible = ops.all((ops.cast(y_true, given.dtype) == given) & exact)
        given = {"y_true": (y_true, y_pred.shape[0])}
        if self.ignore_label is not None:
            given["ignore_label"] = ([self.ignore_label], 1)
        labels, *ignored = as_integers(backend, y_pred, given)
        where = labels != ignored[0] if ignored else None
        ordered, xp = ops.sort(labels), backend.namespace(labels)
        before, upto = (xp.searchsorted(ordered, labels, side=side) for side in ("left", "right"))
        # Where a row has no negative, no other has one: if such rows do not count, all losses are 0, whatever the shares.
        counts = ops.cast(upto - before, "int32") * _views(y_pred) > 1
        return Rows(labels, where), self._share(counts if where is None else counts & where, legible)

    def _share(self, counts: Array, legible: Array | None) -> Array:
        """The weight of each sample, by whether its rows count; NaN if what `y_true` says cannot be read."""
        share = ops.cast(counts, self.dtype)
        if self.reduction in ("sum_over_batch_size", "mean"):  # these divide by all samples
            count = ops.cast(ops.shape(share)[0], self.dtype)
            share = share * (count / ops.maximum(ops.sum(share), 1.0))
        return share if legible is None else ops.where(legible, share, float("nan"))

    def call(self, y_true: Rows, y_pred: Array) -> Array:
        """The loss of each sample, `[n]`; 0 where its rows do not count."""
        labels, where = y_true
        rows = evaluate(self.record, y_pred, labels, where=where, reduction="none", **self.options)
        return ops.mean(ops.reshape(rows, (-1, _views(y_pred))), axis=1)

    def of_all(self, y_true: Rows, y_pred: Array) -> Array:
        """The loss of the rows of all replicas, a scalar."""
        return evaluate(self.record, y_pred, y_true.labels, where=y_true.where, across=self.across, **self.options)


def _refuse_unless(legible: Array, y_pred: Array, expected: str) -> Array:
    """Whether labels can be read; raises LabelError where that is known to be false, outside of a graph."""
    if backend_of(y_pred, "y_pred").concrete(legible) and not bool(legible):
        raise LabelError(f"y_true: expected {expected}.")
    return legible


def _views(y_pred: Array) -> int:
    count: int = y_pred.shape[1] if len(y_pred.shape) == 3 else 1
    return count


class Unlabelled(Loss):
    """Losses of views or of towers: all rows of theirs count."""

    def read(self, y_true: Any, y_pred: Array) -> tuple[Array, None]:
        """The second view, where `y_pred` is the first alone."""
        if len(y_pred.shape) == 2 and y_true is not None:
            return ops.convert_to_tensor(y_true, dtype=self.dtype), None
        if len(y_pred.shape) != 3 or y_pred.shape[1] is None:
            raise ShapeError(
                f"y_pred: expected the views of each sample, [n, views, d], or one view, [n, d], and y_true as the second; "
                f"got {tuple(y_pred.shape)}{'' if y_true is not None else ' without y_true'}: stack the views on axis 1."
            )
        return None, None

    def call(self, y_true: Array | None, y_pred: Array) -> Array:
        """The loss of each sample, `[n]`."""
        views = self._views(y_true, y_pred)
        rows = evaluate(self.record, *views, reduction="none", **self.options)
        roles = self.record.arrangement.roles(self.record.arrangement.names(len(views)))
        return ops.mean(ops.reshape(rows, (len(roles.anchors) * (1 + roles.both_ways), -1)), axis=0)

    def of_all(self, y_true: Array | None, y_pred: Array) -> Array:
        """The loss of the rows of all replicas, a scalar."""
        return evaluate(self.record, *self._views(y_true, y_pred), across=self.across, **self.options)

    def _views(self, y_true: Array | None, y_pred: Array) -> tuple[Array, ...]:
        return (y_pred, y_true) if y_true is not None else tuple(y_pred[:, v] for v in range(y_pred.shape[1]))


@registered
@described_with_labels
class SincereLoss(Labelled):
    """SINCERE of embeddings and labels; see `sincere_loss`."""

    def __init__(self, temperature: float = 0.1, *, epsilon: float = 0.0, **options: Unpack[LabelledOptions]) -> None:
        super().__init__(losses.sincere, {"temperature": temperature, "epsilon": epsilon}, **options)


@registered
@described_with_labels
class SupConLoss(Labelled):
    """SupCon of embeddings and labels; see `supcon_loss`."""

    def __init__(
        self, temperature: float = 0.1, *, summation: Summation = "out", **options: Unpack[LabelledOptions]
    ) -> None:
        super().__init__(losses.supcon, {"temperature": temperature, "summation": summation}, **options)


@registered
@described_with_labels
class DecoupledLoss(Labelled):
    """DCL of embeddings and labels; see `decoupled_loss`."""

    def __init__(self, temperature: float = 0.1, **options: Unpack[LabelledOptions]) -> None:
        super().__init__(losses.decoupled, {"temperature": temperature}, **options)


@registered
@described
class InfoNCELoss(Unlabelled):
    """InfoNCE of queries and positives; a third view is the queue of negatives. See `info_nce_loss`."""

    def __init__(self, *, temperature: float = 0.07, **options: Unpack[Options]) -> None:
        super().__init__(losses.info_nce, {"temperature": temperature}, **options)


@registered
@described
class NTXentLoss(Unlabelled):
    """NT-Xent of two views or more; see `nt_xent_loss`."""

    def __init__(self, *, temperature: float = 0.1, **options: Unpack[Options]) -> None:
        super().__init__(losses.nt_xent, {"temperature": temperature}, **options)


@registered
@described
class HCLLoss(Unlabelled):
    """HCL of two views or more; see `hcl_loss`."""

    def __init__(self, *, temperature: float = 0.5, beta: float = 1.0, **options: Unpack[Options]) -> None:
        super().__init__(losses.hcl, {"temperature": temperature, "beta": beta}, **options)


class Scheduled(Unlabelled):
    """A loss with DySTreSS's temperature."""

    schedule_of: Callable[..., PairLoss]

    def __init__(
        self,
        *,
        temperature_min: float = 0.1,
        temperature_max: float = 0.2,
        detach: bool = True,
        schedule: ScheduleName = "cosine",
        offset: float = -0.4,
        scale: float = 0.7,
        **options: Unpack[Options],
    ) -> None:
        own: dict[str, Any] = {"temperature_min": temperature_min, "temperature_max": temperature_max}
        own |= {"detach": detach, "schedule": schedule, "offset": offset, "scale": scale}
        super().__init__(type(self).schedule_of, own, **options)


@registered
@described
class DySTreSSLoss(Scheduled):
    """DySTreSS of two views or more; see `dystress_loss`."""

    schedule_of = staticmethod(losses.dystress)


@registered
@described
class DySTreSSInfoNCELoss(Scheduled):
    """DySTreSS of queries and positives; a third view is the queue of negatives. See `dystress_info_nce_loss`."""

    schedule_of = staticmethod(losses.dystress_info_nce)


@registered
@described
class CLIPLoss(Unlabelled):
    """CLIP of two towers, in both directions; see `clip_loss`."""

    def __init__(self, *, temperature: float = 0.07, **options: Unpack[Options]) -> None:
        super().__init__(losses.clip, {"temperature": temperature}, **options)


@registered
@described
class InfoLOOBLoss(Unlabelled):
    """InfoLOOB of two towers, in both directions; see `infoloob_loss`."""

    def __init__(self, *, temperature: float = 0.07, **options: Unpack[Options]) -> None:
        super().__init__(losses.infoloob, {"temperature": temperature}, **options)


@registered
@described
class SigLIPLoss(Unlabelled):
    """SigLIP of two towers; see `siglip_loss`."""

    def __init__(self, *, temperature: float = 0.1, bias: float = -10.0, **options: Unpack[Options]) -> None:
        super().__init__(losses.siglip, {"temperature": temperature, "bias": bias}, **options)


@registered
@described
class FMICLLoss(Unlabelled):
    """f-MICL of two views; a third is the queue of negatives. See `f_micl_loss`."""

    def __init__(
        self,
        *,
        divergence: Divergence = "kl",
        alpha: float = 40.0,
        inverse_bandwidth: float = 1.0,
        order: float = 2.0,
        **options: Unpack[Options],
    ) -> None:
        own = {"divergence": divergence, "alpha": alpha, "inverse_bandwidth": inverse_bandwidth, "order": order}
        super().__init__(losses.f_micl, own, **options)
