"""What a compiler that traces Python runs as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

F = TypeVar("F", bound=Callable[..., object])


def constant_when_traced(function: F) -> F:
    """Have torch.compile run a function while it traces, and keep its result: a decorator.

    It does what `torch.compiler.assume_constant_result` does, which would import torch and its compiler: two seconds and 160 MB.
    What the function reads is not guarded, and not checked before each step. So the result must follow from the arguments alone,
    which are.
    """
    vars(function)["_dynamo_marked_constant"] = True
    return function
