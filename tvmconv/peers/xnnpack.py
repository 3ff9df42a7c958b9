"""XNNPACK as LiteRT ships it: a .tflite model of one operator."""

from __future__ import annotations

from tvmconv.peers import tensorflow
from tvmconv.peers.contender import Array, Prepared
from tvmconv.spec import ConvSpec

NAME = "xnnpack"
PACKAGES = ("ai-edge-litert", *tensorflow.PACKAGES)


def prepare(spec: ConvSpec, data: Array, filter: Array, threads: int) -> Prepared:
    """Convert once with TensorFlow's converter, then only ``invoke``."""
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    function, data = tensorflow.graph(spec, data, filter)
    model = tf.lite.TFLiteConverter.from_concrete_functions([function]).convert()
    interpreter = Interpreter(model_content=model, num_threads=threads)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], data)
    place = interpreter.get_output_details()[0]["index"]
    return Prepared(interpreter.invoke, lambda: interpreter.get_tensor(place))
