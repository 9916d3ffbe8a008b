"""How the words of a loss read in print."""

from __future__ import annotations

from typing import Any

FUNCTIONS = {"linear": "{}", "exp": "exp({})", "softplus": "softplus({})", "sigmoid_squared": "sigmoid({})^2"}
FUNCTIONS |= {"hinge": "max({}, 0)", "square": "({})^2"}


def stage(word: Any) -> str:
    """A stage, such as `noise = logsumexp(a) over negative`."""
    logit = f"a - {word.minus}" if word.minus else "a"
    if word.scale != 1.0:
        inner = f"({logit})" if word.minus else logit
        logit = f"-{inner}" if word.scale == -1.0 else f"{word.scale:g} {inner}"
    logit += _signed(word.offset)
    if word.fold.value == "logsumexp":
        folded = f"{'logmeanexp' if word.mean else 'logsumexp'}({logit})"
    else:
        folded = f"{'mean' if word.mean else 'sum'} {FUNCTIONS[word.fold.value].format(logit)}"
    return f"{word.name} = {folded} over {word.over.value}"


def term(word: Any) -> str:
    """A term with its sign, such as `- attract [several positives]`."""
    size = abs(word.coefficient)
    text = f"{'-' if word.coefficient < 0 else '+'} {'' if size == 1.0 else f'{size:g} '}{word.stage}"
    text += _signed(word.constant)
    return text if word.rows.value == "all" else f"{text} [{word.rows.value.replace('_', ' ')}]"


def combination(word: Any) -> str:
    """A function of stages, such as `rest = softplus(noise - attract)`."""
    if word.fold.value == "logsumexp":
        return f"{word.name} = logsumexp({', '.join(_sum((one,)) for one in word.of)})"
    return f"{word.name} = {FUNCTIONS[word.fold.value].format(_sum(word.of))}"


def _sum(terms: Any) -> str:
    return " ".join(str(one) for one in terms).removeprefix("+ ")


def loss(record: Any) -> str:
    """A whole record, on one line."""
    numbers = f"temperature={record.temperature!r}"
    if not isinstance(record.bias, float) or record.bias:
        numbers += f", bias={record.bias!r}"
    logit = f"logit={record.logit!r}"
    if record.positive_logit is not None:
        logit += f", positive_logit={record.positive_logit!r}"
    stages = "; ".join(str(one) for one in (*record.stages, *record.combined))
    return f"<{record.name}: {numbers}, {logit}; {stages}; loss = {_sum(record.terms)}>"


def _signed(number: float) -> str:
    return f" {'-' if number < 0 else '+'} {abs(number):g}" if number else ""
