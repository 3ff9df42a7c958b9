"""Networks of keras.applications with random weights, as .tflite files."""

from __future__ import annotations

import os
import warnings
from functools import cache

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@cache
def network(name: str, size: int, last: str | None = "softmax") -> bytes:
    """A network for images of ``size`` pixels and ten classes, converted; ``last`` is its last activation."""
    tf = pytest.importorskip("tensorflow")
    tf.keras.utils.set_random_seed(0)
    make = getattr(tf.keras.applications, name)
    model = make(input_shape=(size, size, 3), weights=None, classes=10, classifier_activation=last)
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            # Fresh ones do nothing: their scale is 1 and their mean 0.
            layer.set_weights([rng.uniform(0.5, 1.5, each.shape) for each in layer.get_weights()])
            layer.momentum = 0.0  # keeps what the next line sees: else values vanish layer by layer
    model(rng.uniform(0, 1, (2, size, size, 3)).astype(np.float32), training=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content: bytes = tf.lite.TFLiteConverter.from_keras_model(model).convert()
    return content
