"""Contrastive losses, each defined once against the Python Array API, for every framework that has arrays.

Example:
    >>> import numpy as np, sincere_spec as ss
    >>> z = np.asarray([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]])
    >>> float(round(ss.sincere_loss(z, [0, 0, 1, 1], temperature=0.5), 4))
    0.4302
"""

from sincere_spec import losses, metrics
from sincere_spec.backends import register_backend
from sincere_spec.call.evaluate import evaluate, explain, value_and_gradient
from sincere_spec.errors import (
    BackendNotInstalled,
    DtypeError,
    EngineUnavailable,
    LabelError,
    MixedBackendsError,
    OptionError,
    ShapeError,
    SincereSpecError,
    UnknownArrayError,
)
from sincere_spec.functions import (
    clip_loss,
    decoupled_loss,
    dystress_loss,
    f_micl_loss,
    info_nce_loss,
    nt_xent_loss,
    siglip_loss,
    sincere_loss,
    supcon_loss,
)
from sincere_spec.spec.words import PairLoss

__version__ = "0.1.0"

__all__ = [
    "BackendNotInstalled",
    "DtypeError",
    "EngineUnavailable",
    "LabelError",
    "MixedBackendsError",
    "OptionError",
    "PairLoss",
    "ShapeError",
    "SincereSpecError",
    "UnknownArrayError",
    "clip_loss",
    "decoupled_loss",
    "dystress_loss",
    "evaluate",
    "explain",
    "f_micl_loss",
    "info_nce_loss",
    "losses",
    "metrics",
    "nt_xent_loss",
    "register_backend",
    "siglip_loss",
    "sincere_loss",
    "supcon_loss",
    "value_and_gradient",
]
