"""XNNPACK as LiteRT ships it: a .tflite model of one operator."""

from __future__ import annotations

from typing import Any

from tvmconv.peers.contender import Array, Prepared, padded, padding_of
from tvmconv.spec import ConvSpec

NAME = "xnnpack"
PACKAGES = ("ai-edge-litert", "tensorflow-cpu")


def prepare(spec: ConvSpec, data: Array, filter: Array, threads: int) -> Prepared:
    """Convert once with TensorFlow's converter, then only ``invoke``."""
    from ai_edge_litert.interpreter import Interpreter

    padding = padding_of(spec)
    if padding is None:
        data, padding = padded(spec, data), "VALID"
    interpreter = Interpreter(
        model_content=_model(spec, data, filter, padding), num_threads=threads
    )
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], data)
    place = interpreter.get_output_details()[0]["index"]
    return Prepared(interpreter.invoke, lambda: interpreter.get_tensor(place))


def _model(spec: ConvSpec, data: Array, filter: Array, padding: str) -> bytes:
    import tensorflow as tf

    weights = tf.constant(filter)
    strides = [1, *spec.strides, 1]

    def layer(x: Any) -> Any:
        if spec.op == "conv2d":
            return tf.nn.conv2d(x, weights, strides, padding, dilations=spec.dilations)
        return tf.nn.depthwise_conv2d(x, weights, strides, padding, dilations=spec.dilations)

    function = tf.function(layer).get_concrete_function(tf.TensorSpec(data.shape, data.dtype))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function])
    model: bytes = converter.convert()
    return model
