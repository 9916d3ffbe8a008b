"""Contrastive losses, each defined once against the Python Array API, for every framework that has arrays.

Example:
    >>> import numpy as np, sincere_spec as ss
    >>> z = np.asarray([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]])
    >>> float(round(ss.sincere_loss(z, [0, 0, 1, 1], temperature=0.5), 4))
    0.4302
"""

from sincere_spec import functions, losses, metrics
from sincere_spec.backends import register_backend
from sincere_spec.call.evaluate import evaluate, explain, value_and_gradient
from sincere_spec.call.ranks import across
from sincere_spec.errors import (
    BackendNotInstalled,
    DtypeError,
    EmptyBatchWarning,
    EngineUnavailable,
    LabelError,
    MixedBackendsError,
    OptionError,
    ShapeError,
    SignatureError,
    SincereSpecError,
    UnknownArrayError,
)
from sincere_spec.functions import *
from sincere_spec.metrics import diagnose
from sincere_spec.relations import guide, overlap, positives, same
from sincere_spec.spec.words import PairLoss

__version__ = "0.1.0"

__all__ = [
    "BackendNotInstalled",
    "DtypeError",
    "EmptyBatchWarning",
    "EngineUnavailable",
    "LabelError",
    "MixedBackendsError",
    "OptionError",
    "PairLoss",
    "ShapeError",
    "SignatureError",
    "SincereSpecError",
    "UnknownArrayError",
    "across",
    "diagnose",
    "evaluate",
    "explain",
    "guide",
    "losses",
    "metrics",
    "overlap",
    "positives",
    "register_backend",
    "same",
    "value_and_gradient",
]
__all__ += functions.__all__
__all__.sort()
