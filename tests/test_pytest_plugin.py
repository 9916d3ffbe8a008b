"""The pytest plugin, as a library's own tests use it: in a pytest of its own, which knows nothing of this one."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

PLUGIN = "-psincere_spec.conformance.pytest_plugin"

THEIRS = """
import numpy as np
import pytest

def decoupled(z, y, t):
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    a, same = z @ z.T / z.dtype.type(t), y[:, None] == y[None, :]
    positive, negative = same & ~np.eye(len(y), dtype=bool), ~same
    number = positive.sum(axis=1).astype(z.dtype)
    peak = np.where(negative, a, -np.inf).max(axis=1, initial=-np.inf, keepdims=True)
    level = np.log(np.where(negative, np.exp(a - peak), 0).sum(axis=1)) + peak[:, 0]
    rows = level - np.where(positive, a, 0).sum(axis=1) / np.where(number, number, 1)
    counts = (number > 0) & negative.any(axis=1)
    return np.where(counts, rows, 0).sum() / z.dtype.type(max(counts.sum(), 1))

mark = pytest.mark.conformance("decoupled", framework="numpy")

@mark
def test_right(conformance_case):
    if conformance_case.id == "decoupled/ordinary":
        conformance_case.check(decoupled)
        conformance_case.check(lambda z, classes, tau: decoupled(z, classes, tau), call="f(z, classes=y, tau=t)")

@mark
def test_wrong(conformance_case):
    conformance_case.check(lambda z, y, t: -decoupled(z, y, t))

@pytest.mark.conformance("decoupled", "numpy", dtypes=["float64"])
def test_wide(conformance_case):
    conformance_case.check(lambda z, y, t: decoupled(z, y, t).astype("float32"))

@mark
def test_raises(conformance_case):
    conformance_case.check(lambda z, y, t: z.nonsense)

def test_without_cases():
    pass
"""


def run(pytester: pytest.Pytester, *options: str) -> pytest.RunResult:
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", "-q", "-rfs", *options)


def test_a_library_holds_its_own_loss_to_the_suite(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_theirs=THEIRS)
    done = run(pytester, PLUGIN, "--strict-markers", "-W", "error", "-k", "ordinary or two-towers or memory or without")
    lines = done.stdout
    lines.fnmatch_lines(["*decoupled/ordinary: *", "*numpy float32 dense plain: value expected *, got *of 4 allowed*"])
    lines.fnmatch_lines(["*value: float64 was expected, and float32 came"])
    lines.fnmatch_lines(["*AttributeError: *nonsense*"])
    lines.fnmatch_lines(["SKIPPED*its call takes no key_labels, keys"])
    lines.fnmatch_lines(["FAILED *test_wide[[]decoupled/ordinary-float64]*"])
    lines.no_fnmatch_line("FAILED *test_right*")
    assert done.parseoutcomes()["passed"] > 1


def test_it_does_nothing_until_it_is_asked_for(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_mine(conformance_case): pass\ndef test_other(): pass")
    done = run(pytester)
    done.assert_outcomes(passed=1, errors=1)
    done.stdout.fnmatch_lines(["*fixture 'conformance_case' not found"])


@pytest.mark.parametrize(
    ("mark", "message"),
    [
        ("", "*test_mine: conformance_case needs a mark*"),
        ('@pytest.mark.conformance("sincre", "torch")', '*did you mean "sincere"*'),
        ('@pytest.mark.conformance("sincere", "pytorch")', '*did you mean "torch"*'),
        ('@pytest.mark.conformance("supcon", "numpy")', "*judged as one loss; name one of supcon out, supcon in*"),
        ('@pytest.mark.conformance("sincere")', "*missing 1 required positional argument: 'framework'*"),
    ],
)
def test_a_wrong_mark_is_refused_in_a_line(pytester: pytest.Pytester, mark: str, message: str) -> None:
    pytester.makepyfile(f"import pytest\n{mark}\ndef test_mine(conformance_case): ...")
    done = run(pytester, PLUGIN)
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines([message])
