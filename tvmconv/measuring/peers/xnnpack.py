"""XNNPACK as LiteRT ships it: a .tflite model of one operator."""

from __future__ import annotations

from typing import Any

import numpy as np

from tvmconv.measuring.peers import tensorflow
from tvmconv.measuring.peers.contender import Array, Prepared, summed
from tvmconv.problem.spec import ConvSpec

NAME = "xnnpack"
PACKAGES = ("ai-edge-litert", *tensorflow.PACKAGES)
DTYPES = ("float32", "int8")


def prepare(spec: ConvSpec, data: Array, filter: Array, threads: int) -> Prepared:
    """Convert once with TensorFlow's converter, then only ``invoke``."""
    return loaded(spec, *model(spec, data, filter), threads)


def model(spec: ConvSpec, data: Array, filter: Array) -> tuple[bytes, Array]:
    """Return the layer as a .tflite file, and the data that it takes: padded, if it must be.

    int8 becomes a model with an int8 output, as LiteRT has it, its scale taken from this very data.
    """
    import tensorflow as tf

    as_float = [array.astype(np.float32) for array in (data, filter)]
    function, numbers = tensorflow.graph(spec, *as_float)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function])
    if spec.dtype == "int8":
        _quantize(tf, converter, numbers)
    return converter.convert(), numbers


def loaded(spec: ConvSpec, content: bytes, numbers: Array, threads: int) -> Prepared:
    """Make a `model` ready; this needs no TensorFlow."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=threads)
    interpreter.allocate_tensors()
    given, made = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    if spec.dtype != "int8":
        interpreter.set_tensor(given["index"], numbers)
        return Prepared(interpreter.invoke, lambda: interpreter.get_tensor(made["index"]))
    step, zero = given["quantization"]
    rounded = np.clip(np.rint(numbers / step) + zero, -128, 127)
    interpreter.set_tensor(given["index"], rounded.astype(np.int8))
    step, zero = made["quantization"]
    return Prepared(
        interpreter.invoke,
        lambda: summed(spec, interpreter.get_tensor(made["index"]), step, zero),
        step,
    )


def _quantize(tf: Any, converter: Any, data: Array) -> None:
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: iter([[data]])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
