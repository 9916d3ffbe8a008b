"""Keras, on the backend whose process this is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

import sincere_spec.keras
from sincere_spec import losses
from sincere_spec.conformance.transforms.checks import Asked, Check

KINDS = {loss.name: loss.class_name for loss in losses.table.TABLE}


def fit(asked: Asked) -> Mapping[str, Any]:
    """A step of `fit`, of a model that multiplies by one matrix: the identity, before."""
    question = asked.question
    kind = getattr(sincere_spec.keras, KINDS[question.loss])
    given = list(question.arrays.values())
    x = given[0] if len(given) == 1 else np.stack(given, axis=1)  # towers are views of a sample
    width = x.shape[-1]
    layer = keras.layers.Dense(width, use_bias=False, kernel_initializer="identity")
    model = keras.Sequential([keras.Input(x.shape[1:]), layer])
    model.compile(keras.optimizers.SGD(1.0), loss=kind(**question.options, engine=asked.engine))
    history = model.fit(x.astype("float32"), question.integers.get("labels"), batch_size=len(x), verbose=0)
    moved = np.eye(width) - np.asarray(layer.get_weights()[0], dtype=np.float64)
    return {"value": asked.array(np.asarray(history.history["loss"][0])), "matrix": asked.array(moved)}


CHECKS: dict[str, Check] = {"fit": fit}
