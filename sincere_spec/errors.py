"""Every error the package raises on purpose.

    SincereSpecError
    ├── UnknownArrayError    (TypeError)     not an array of a framework that is known here
    ├── MixedBackendsError   (TypeError)     arrays of two frameworks, or of two devices, in one call
    ├── DtypeError           (TypeError)     integer, complex or differing embeddings
    ├── ShapeError           (ValueError)    wrong rank, length or width
    ├── LabelError           (ValueError)    labels or ids that name no classes
    ├── OptionError          (ValueError)    a keyword's value
    ├── SignatureError       (TypeError)     arguments that a loss does not take, or a keyword that there is not
    ├── EngineUnavailable    (RuntimeError)  an engine asked for by name cannot serve this call
    └── BackendNotInstalled  (ImportError)   the framework of an array, or its adapter, cannot be imported

`EmptyBatchWarning` (UserWarning) is the one warning: no row of a batch counts.

Each message says what was expected, what came, and what to do.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from sincere_spec.tracing import constant_when_traced


class SincereSpecError(Exception):
    """The root of the tree: catch it to catch every refusal of this package."""

    # TensorFlow's AutoGraph raises an error again, in its own class, only if that is made as an Exception is.
    if not TYPE_CHECKING:
        __init__ = Exception.__init__


class EmptyBatchWarning(UserWarning):
    """No row of a batch counts, so its loss and its gradient are 0; given once a process."""


class UnknownArrayError(SincereSpecError, TypeError):
    """An argument is not an array of a framework that is known here."""


class MixedBackendsError(SincereSpecError, TypeError):
    """Arrays of two frameworks, or on two devices, came in one call."""


class DtypeError(SincereSpecError, TypeError):
    """Embeddings are not real floating-point numbers of one type."""


class ShapeError(SincereSpecError, ValueError):
    """An array has the wrong rank, length or width."""


class LabelError(SincereSpecError, ValueError):
    """Labels or ids cannot be read as one class, or one sample, a row."""


class OptionError(SincereSpecError, ValueError):
    """A keyword's value is not one of those it can take."""


class SignatureError(SincereSpecError, TypeError):
    """Too few or too many arrays, or a keyword that a call does not take."""


class EngineUnavailable(SincereSpecError, RuntimeError):
    """An engine that was asked for by name cannot serve this call."""


class BackendNotInstalled(SincereSpecError, ImportError):
    """The adapter of an array's framework cannot be imported."""


def unknown_keyword(name: str, keyword: str, known: Iterable[str]) -> SignatureError:
    """The refusal of a keyword by the public function or class of that name, naming the nearest one that it takes."""
    known = tuple(known)
    near = _nearest(keyword, known)
    advice = f"it takes {', '.join(known)}." if near is None else f"did you mean {near!r}?"
    return SignatureError(f"{name}() got an unexpected keyword argument {keyword!r}: {advice}")


def unknown_choice(keyword: str, value: object, choices: Iterable[str]) -> OptionError:
    """The refusal of a word that a keyword cannot take, naming the nearest one that it can."""
    choices = tuple(choices)
    near = _nearest(f"{value}", choices)
    advice = "choose one of them." if near is None else f'did you mean "{near}"?'
    return OptionError(f"{keyword} must be one of {', '.join(repr(c) for c in choices)}; got {value!r}: {advice}")


@constant_when_traced  # torch.compile cannot trace difflib
def _nearest(word: str, choices: tuple[str, ...]) -> str | None:
    """The nearest of several words."""
    from difflib import get_close_matches

    return next(iter(get_close_matches(word, choices, n=1)), None)
