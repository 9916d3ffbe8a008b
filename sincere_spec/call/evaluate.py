"""Where everything meets: a loss, a call's arrays, the adapter of their framework, and an engine."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from sincere_spec.arrays import Array
from sincere_spec.call import divided
from sincere_spec.call.check import Call, Keywords, Problem, call_of
from sincere_spec.call.empty import warn_of_nothing
from sincere_spec.call.plan import Plan, choose
from sincere_spec.call.ranks import SpreadSteps, checked, ranked, refuse_on_all
from sincere_spec.call.steps import Steps, steps_of
from sincere_spec.errors import EngineUnavailable, OptionError, SincereSpecError
from sincere_spec.interface import DeferringBackend
from sincere_spec.spec.words import PairLoss

if TYPE_CHECKING:
    from typing_extensions import Unpack


def evaluate(loss: PairLoss, *arguments: Any, **keywords: Unpack[Keywords]) -> Array:
    """The value of any loss record, in the framework of the arrays, differentiable there.

    Args:
        loss: a record from `sincere_spec.losses`, or one of your own.
        *arguments: the positional arguments of the record's function, such as `embeddings, labels`.
        temperature, bias: instead of the record's; a number, or a 0-d array, which then receives a gradient.
        where: the rows that take part, as booleans `[n]` or `[n, views]`; a tuple has one mask, or None, for each
            positional array, `keys` last. The loss is that of the batch without the other rows, NaN in them included.
        ignore: pairs that are left out: `same(groups)`, booleans `[n, m]`, or a tuple of several such, which is their union.
        keys, key_labels, ids, key_ids, normalize, reduction, engine, tile, across: as in `sincere_loss`.

    Returns:
        A scalar array; with `reduction="none"` the vector of row losses. float32 for half-precision embeddings.

    Raises:
        SincereSpecError: one of its kinds, before any arithmetic; see `sincere_spec.errors`.

    Example:
        >>> import numpy as np, sincere_spec as ss
        >>> z = np.asarray([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]])
        >>> float(round(ss.evaluate(ss.losses.sincere(0.5), z, [0, 0, 1, 1]), 4))
        0.4302
    """
    call = _call("evaluate", loss, arguments, keywords)
    problem = checked(call, _asked)
    return warn_of_nothing(problem, problem.backend.call(_value, problem, _plan(problem, call)))


def value_and_gradient(loss: PairLoss, *arguments: Any, **keywords: Unpack[Keywords]) -> tuple[Array, Any]:
    """The value of any loss record and its gradient, in every framework: NumPy has no other way to one.

    The gradient is computed by the formula of the family, not by automatic differentiation, and is detached from it:
    feed it to `embeddings.backward(gradient)` or to a gradient cache.

    Args:
        loss, arguments and every keyword: as in `evaluate`; the reduction must be a scalar one.

    Returns:
        `(value, gradient)`; the gradient is one array for one array given, and a named tuple by argument for more
        (keys, views, a temperature that is an array). Each has the shape and dtype of its array.

    Raises:
        SincereSpecError: as in `evaluate`; OptionError for `reduction="none"`.

    Example:
        >>> import numpy as np, sincere_spec as ss
        >>> z = np.asarray([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]])
        >>> value, gradient = ss.value_and_gradient(ss.losses.sincere(0.5), z, [0, 0, 1, 1])
        >>> gradient.shape
        (4, 2)
    """
    call = _call("value_and_gradient", loss, arguments, keywords)
    if call.reduction == "none":
        words = 'value_and_gradient needs a scalar: reduction "none" has a value for each row; use "sum".'
        refuse_on_all(call.across, OptionError(words))
    problem = checked(call, lambda problem: (True,) * len(problem.arguments))
    plan = _plan(problem, call)
    value, gradients = problem.backend.call(_value_and_gradient, problem, plan)
    warn_of_nothing(problem, value)
    if len(gradients) == 1:
        (only,) = gradients.values()
        return value, only
    return value, _named_tuple(tuple(gradients))(*gradients.values())


def explain(loss: PairLoss, *arguments: Any, **keywords: Unpack[Keywords]) -> Plan:
    """Which backend and engine a call would run on, and why; nothing is computed.

    Args:
        loss, arguments and every keyword: as in `evaluate`.

    Returns:
        A record that prints as a sentence, with the fields `backend`, `engine`, `tile` and `reason`.

    Raises:
        SincereSpecError: what the call itself would raise.

    Example:
        >>> import numpy as np, sincere_spec as ss
        >>> plan = ss.explain(ss.losses.sincere(0.1), np.eye(4), [0, 0, 1, 1])
        >>> plan.backend, plan.engine
        ('array_api', 'dense')
    """
    call = _call("explain", loss, arguments, keywords)
    return _plan(checked(call, _asked), call)


def _call(name: str, loss: PairLoss, arguments: tuple[Any, ...], keywords: Any) -> Call:
    """The call; what is wrong with its keywords is refused on every rank, since the others wait for this one."""
    try:
        return call_of(name, loss, arguments, keywords)
    except SincereSpecError as error:
        refuse_on_all(keywords.get("across"), error)


def _asked(problem: Problem) -> tuple[bool, ...]:
    """Which gradients may be asked for later."""
    return tuple(problem.backend.wants_gradient(x) for x in problem.arguments.values())


def _plan(problem: Problem, call: Call) -> Plan:
    like = next(iter(problem.embeddings.values()))
    relation, shared = problem.related.relation, problem.keys_of_each is None
    options = (call.engine, call.tile, divided.obstacle(problem) if problem.backend.traces else None)
    plan = choose(problem.backend, like, problem.sizes, problem.loss, relation, shared, *options)
    if problem.membership is None:
        return plan
    if None in problem.sizes and plan.is_dense:
        raise EngineUnavailable(
            f"across: the dense engine is not served over replicas, which may have different numbers of rows ({plan.reason}); "
            'use engine="auto", without forward mode.'
        )
    if plan.engine == "auto":
        reason = "replicas may have different numbers of rows, so no matrix of pairs is made"
        plan = replace(plan, engine="tiled", reason=reason)
    if plan.when_run:
        raise EngineUnavailable(f"across: {plan.reason}, and ranks exchange what they have now; call it outside.")
    return replace(plan, ranks=str(problem.membership))


def _steps(problem: Problem, plan: Plan) -> Steps | SpreadSteps:
    if problem.membership is not None:
        return ranked(problem, plan)
    return divided.divided_or_whole(problem, plan) if problem.backend.traces else steps_of(problem, plan)


_named_tuples: dict[tuple[str, ...], Any] = {}


def _named_tuple(names: tuple[str, ...]) -> Any:
    if names not in _named_tuples:
        _named_tuples[names] = namedtuple("Gradient", names)  # noqa: PYI024 (its fields differ from call to call)
    return _named_tuples[names]


def _value(problem: Problem, plan: Plan) -> Array:
    steps = _steps(problem, plan)
    backend, arrays = problem.backend, problem.arguments.values()
    if isinstance(steps, SpreadSteps):
        return backend.differentiable(cast(Any, steps), *arrays)  # its engine is chosen, so it has no `settled`
    traced = (backend.tiles_obstacle(x) or backend.when_run(x) for x in arrays)  # the framework has its own derivative
    if plan.is_dense and (problem.reduction == "none" or any(why is not None for why in traced)):
        return steps.exact(*arrays)
    return backend.differentiable(steps, *arrays)


def _value_and_gradient(problem: Problem, plan: Plan) -> tuple[Array, dict[str, Array]]:
    backend, arguments = problem.backend, problem.arguments
    arrays = tuple(backend.hold(x) for x in arguments.values())
    steps = _steps(problem, plan)
    if plan.when_run:
        value, gradients = cast(DeferringBackend, backend).run_later(cast(Steps, steps), *arrays)
    else:
        wanted = (True,) * len(arrays)
        value, saved = steps.forward(arrays, wanted)
        gradients = steps.backward(arrays, saved, None, wanted)
    result = {}
    for name, gradient in zip(arguments, gradients, strict=True):
        assert gradient is not None, name
        shape = tuple(-1 if size is None else size for size in problem.shapes.get(name, ()))
        as_given = len(shape) == len(gradient.shape)
        result[name] = gradient if as_given else backend.namespace(gradient).reshape(gradient, shape)
    return value, result
