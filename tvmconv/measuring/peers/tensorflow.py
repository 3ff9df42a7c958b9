"""TensorFlow itself: a traced function with the filter as a constant."""

from __future__ import annotations

from typing import Any

from tvmconv.measuring.peers.contender import (
    Array,
    Prepared,
    UnsupportedLayerError,
    padded,
    padding_of,
)
from tvmconv.problem.spec import ConvSpec

NAME = "tensorflow"
PACKAGES = ("tensorflow-cpu",)
DTYPES = ("float32",)


def prepare(spec: ConvSpec, data: Array, filter: Array, threads: int) -> Prepared:
    """Trace once, then call the concrete function."""
    import tensorflow as tf

    if tf.config.threading.get_intra_op_parallelism_threads() != threads:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    if spec.op == "depthwise_conv2d" and len(set(spec.strides)) > 1:
        raise UnsupportedLayerError("depthwise strides that differ")
    function, data = graph(spec, data, filter)
    x = tf.constant(data)
    return Prepared(lambda: function(x), lambda: function(x).numpy())


def graph(spec: ConvSpec, data: Array, filter: Array) -> tuple[Any, Array]:
    """Return the layer as a concrete function, and the data that it takes: padded, if it must be."""
    import tensorflow as tf

    padding = padding_of(spec)
    if padding is None:
        data, padding = padded(spec, data), "VALID"
    weights, strides = tf.constant(filter), [1, *spec.strides, 1]

    def layer(x: Any) -> Any:
        if spec.op == "conv2d":
            return tf.nn.conv2d(x, weights, strides, padding, dilations=spec.dilations)
        return tf.nn.depthwise_conv2d(x, weights, strides, padding, dilations=spec.dilations)

    function = tf.function(layer).get_concrete_function(tf.TensorSpec(data.shape, data.dtype))
    return function, data
