"""A pytest plugin for a library's own tests: the suite's cases of a loss as a fixture.

It is asked for by `pytest -p sincere_spec.conformance.pytest_plugin`, or by a line in the root `conftest.py`:

    pytest_plugins = ["sincere_spec.conformance.pytest_plugin"]

and then a test is run once for each case and dtype:

    @pytest.mark.conformance("sincere", framework="torch")
    def test_mine(conformance_case):
        conformance_case.check(my_loss)
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest

from sincere_spec.conformance import frameworks, questions
from sincere_spec.conformance.candidates import Candidate, Foreign
from sincere_spec.conformance.cases import DTYPES
from sincere_spec.conformance.judge import Unsupported, judge
from sincere_spec.conformance.questions import Question
from sincere_spec.conformance.report import described
from sincere_spec.conformance.runner import CannotJudge, one_row
from sincere_spec.errors import OptionError, unknown_choice

__all__ = ["ConformanceCase", "conformance_case"]

MARKER = "conformance(loss, framework, dtypes=('float32', 'float64')): the cases of a loss that conformance_case has"


@dataclass(frozen=True)
class ConformanceCase:
    """One case of the suite in one dtype, on the arrays of a framework. `says` is what it guards."""

    question: Question
    dtype: str
    framework: str

    def __repr__(self) -> str:
        return f"<{self.id} in {self.framework} {self.dtype}>"

    @property
    def id(self) -> str:
        """The id of the case."""
        return self.question.id

    @property
    def says(self) -> str:
        """What is wrong with an implementation that fails it, in one sentence."""
        return self.question.says

    def check(self, function: Callable[..., Any], call: str = "", reduction: str = "mean") -> None:
        """Hold an implementation to the case; the test fails with what was expected, or is skipped if it cannot be asked.

        Args:
            function: Gets embeddings of any norm, integer labels and the temperature, or the views and the temperature,
                and returns the loss of normalised rows.
            call: How it is called, such as `"f(z, y, tau=t, queue=keys)"`; as in `sincere-spec verify --call`.
            reduction: Which of the reductions its value is.

        Raises:
            AssertionError: A number is wrong, or has another shape or type. What the function raises, goes through.
        """
        __tracebackhide__ = True
        started = _start(self.framework)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # JAX's, where it makes a float64 a float32
            made = started.read(started.array(self.question.cotangent, self.dtype))
        if made.dtype != self.dtype:
            pytest.skip(f"{self.framework} has no {self.dtype} in this process")
        target = f"{getattr(function, '__module__', 'here')}:{getattr(function, '__qualname__', 'function')}"
        theirs = Foreign(started, Candidate(target, call, reduction), function)
        asked = Foreign.asked(self.question)
        (route,) = theirs.routes(asked)
        try:
            answer = theirs.answer(asked, self.dtype, "dense", route)
        except Unsupported as reason:
            pytest.skip(str(reason))
        results = judge(asked, answer, framework=self.framework, dtype=self.dtype, engine="dense", route=route)
        wrong = [described(result) for result in results if result.status != "pass"]
        if wrong:
            raise AssertionError("\n".join([f"{self.id}: {self.says}", *wrong]))


@pytest.fixture
def conformance_case(request: pytest.FixtureRequest) -> ConformanceCase:
    """A case of the suite, of the loss that the test's mark names: `conformance_case.check(my_loss)` holds it to it."""
    case: ConformanceCase = request.param
    return case


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark."""
    config.addinivalue_line("markers", MARKER)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes the fixture once for each case and dtype."""
    if "conformance_case" not in metafunc.fixturenames:
        return
    mark = metafunc.definition.get_closest_marker("conformance")
    try:
        if mark is None:
            raise OptionError(
                'conformance_case needs a mark, such as @pytest.mark.conformance("sincere", framework="torch")'
            )
        cases = _cases(*mark.args, **mark.kwargs)
    except (OptionError, CannotJudge, TypeError) as error:
        raise pytest.Collector.CollectError(f"{metafunc.definition.name}: {error}") from None
    ids = [f"{case.id}-{case.dtype}" for case in cases]
    metafunc.parametrize("conformance_case", cases, ids=ids, indirect=True)


def _cases(loss: str, framework: str, dtypes: Sequence[str] = ("float32", "float64")) -> list[ConformanceCase]:
    if framework not in frameworks.FRAMEWORKS:
        raise unknown_choice("framework", framework, frameworks.FRAMEWORKS)
    for dtype in dtypes:
        if dtype not in DTYPES:
            raise unknown_choice("dtype", dtype, DTYPES)
    asked = _asked()
    row = one_row(asked, (loss,))
    return [
        ConformanceCase(question, dtype, framework)
        for question in asked
        if question.row == row
        for dtype in dtypes
        if dtype in question.dtypes
    ]


@cache
def _asked() -> tuple[Question, ...]:
    suite = questions.of_suite()
    return (*suite, *questions.integrity(suite, compilers=False))


@cache
def _start(framework: str) -> frameworks.Framework:
    return frameworks.start(framework)
