"""TensorFlow as the second oracle: in graph mode and without oneDNN, whose eager mode has bugs.

Eager mode with oneDNN returns wrong shapes for empty batches and for filters larger than the
input, and aborts the process on an input of rank 3.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

# TensorFlow reads this once, when it is imported.
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def tensorflow() -> Any:
    """Return the module. Without it, the test is skipped, but fails on CI, which promises it."""
    if os.environ.get("CI") == "true":
        import tensorflow
    else:
        tensorflow = pytest.importorskip("tensorflow")
    return tensorflow


def run(op: str, data: np.ndarray, filter: np.ndarray, **arguments: Any) -> np.ndarray:
    """Run ``tf.nn.conv2d`` or ``tf.nn.depthwise_conv2d`` inside a tf.function."""
    tf = tensorflow()

    def call(data: Any, filter: Any) -> Any:
        return _call(tf, op, data, filter, arguments)

    return tf.function(call, autograph=False)(tf.constant(data), tf.constant(filter)).numpy()


def output_shape(
    op: str,
    input_shape: tuple[int, ...],
    input_dtype: str,
    filter_shape: tuple[int, ...],
    filter_dtype: str,
    **arguments: Any,
) -> tuple[int, ...]:
    """Return the shape that graph mode infers; nothing runs, so this knows NCHW on a CPU too."""
    tf = tensorflow()

    def call(data: Any, filter: Any) -> Any:
        return _call(tf, op, data, filter, arguments)

    graph = tf.function(call, autograph=False).get_concrete_function(
        tf.TensorSpec(input_shape, input_dtype), tf.TensorSpec(filter_shape, filter_dtype)
    )
    return tuple(graph.structured_outputs.shape)


def _call(tf: Any, op: str, data: Any, filter: Any, arguments: dict[str, Any]) -> Any:
    if op == "conv2d":
        return tf.nn.conv2d(data, filters=filter, **arguments)
    return tf.nn.depthwise_conv2d(data, filter=filter, **arguments)
