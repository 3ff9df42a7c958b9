"""Quantised .tflite models as TensorFlow's converter writes them, against LiteRT."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from model_files import run_litert

import tvmconv
from tvmconv.errors import ModelError
from tvmconv.models.folding.fold import fold
from tvmconv.models.reading import read
from tvmconv.models.reference import evaluate
from tvmconv.models.tflite.file import parse

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
tf = pytest.importorskip("tensorflow")
IMAGE = (1, 9, 10, 8)

Function = Callable[[Any], Any]


def weights(*shape: int, seed: int = 1) -> Any:
    """Random, of another size in each output channel."""
    rng = np.random.default_rng(seed)
    return tf.constant(rng.normal(0, rng.uniform(0.02, 1, shape[-1]), shape).astype(np.float32))


def bias(channels: int) -> Any:
    return tf.constant(np.random.default_rng(2).normal(0, 1, channels).astype(np.float32))


def conv(
    data: Any, window: tuple[int, ...], strides: int = 1, padding: str = "SAME", dilations: int = 1
) -> Any:
    made = tf.nn.conv2d(data, weights(*window), strides, padding, dilations=dilations)
    return tf.nn.bias_add(made, bias(window[3]))


def depthwise(
    data: Any, size: int, strides: int = 1, padding: str = "SAME", multiplier: int = 1
) -> Any:
    filters = weights(size, size, data.shape[3], multiplier)
    filters = tf.reshape(tf.reshape(filters, (size, size, -1)), filters.shape)
    return tf.nn.depthwise_conv2d(data, filters, (1, strides, strides, 1), padding)


CONVOLUTIONS: dict[str, Function] = {
    "3x3": lambda x: conv(x, (3, 3, 8, 16)),
    "3x3 relu": lambda x: tf.nn.relu(conv(x, (3, 3, 8, 16))),
    "3x3 relu6": lambda x: tf.nn.relu6(conv(x, (3, 3, 8, 16))),
    "5x5 stride 2": lambda x: conv(x, (5, 5, 8, 7), strides=2),
    "1x1": lambda x: conv(x, (1, 1, 8, 48)),
    "valid": lambda x: conv(x, (3, 2, 8, 5), padding="VALID"),
    "dilated": lambda x: conv(x, (3, 3, 8, 16), dilations=2),
    "groups": lambda x: conv(x, (3, 3, 4, 16)),
    "one channel": lambda x: conv(x[..., :1], (3, 3, 1, 4)),
    "depthwise": lambda x: depthwise(x, 3),
    "depthwise relu6": lambda x: tf.nn.relu6(depthwise(x, 3)),
    "depthwise stride 2": lambda x: depthwise(x, 5, strides=2),
    "depthwise multiplier": lambda x: depthwise(x, 3, multiplier=2, padding="VALID"),
    "dense": lambda x: tf.matmul(tf.reshape(x, (1, -1)), weights(9 * 10 * 8, 10)) + bias(10),
    "dense of rows": lambda x: tf.nn.relu(tf.matmul(tf.reshape(x, (90, 8)), weights(8, 24))),
}
# Others are computed in float32 here and in fixed point there: up to one unit apart.
OTHERS: dict[str, Function] = {
    "add": lambda x: x + 0.5 * tf.reverse(x, [1]),
    "add relu": lambda x: tf.nn.relu(x + tf.reverse(x, [2])),
    "add constant": lambda x: x + bias(8),
    "multiply": lambda x: x * tf.reverse(x, [1]),
    "multiply constant": lambda x: x * bias(8),
    "subtract": lambda x: x - tf.reverse(x, [1]),
    "mean": lambda x: tf.reduce_mean(x, (1, 2)),
    "mean keeping": lambda x: tf.reduce_mean(x, (1, 2), keepdims=True),
    "max pool": lambda x: tf.nn.max_pool2d(x, 3, 2, "SAME"),
    "average pool": lambda x: tf.nn.avg_pool2d(x, 3, 2, "SAME"),
    "concatenation": lambda x: tf.concat([x, tf.nn.relu(x) * 3.0], 3),
    "pad": lambda x: tf.pad(x, [[0, 0], [1, 2], [0, 1], [0, 0]]),
    "softmax": lambda x: tf.nn.softmax(tf.reshape(x, (90, 8))),
    "sigmoid": tf.sigmoid,
    "tanh": tf.tanh,
    "hard swish": lambda x: x * tf.nn.relu6(x + 3.0) * (1 / 6),
    "leaky relu": lambda x: tf.nn.leaky_relu(x, 0.3),
    "reshape": lambda x: tf.reshape(x, (1, 90, 8)) * 2.0,
    "transpose": lambda x: tf.transpose(x, (0, 2, 1, 3)),
    "slice": lambda x: x[:, 1:5, ::2],
    "resize": lambda x: tf.image.resize(x, (18, 20)),
    "resize nearest": lambda x: tf.image.resize(x, (18, 20), "nearest"),
}


def images(shape: tuple[int, ...] = IMAGE, count: int = 4) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [rng.uniform(-1.5, 3, shape).astype(np.float32) for _ in range(count)]


def converted(function: Function, calibrated: bool = True, **options: Any) -> bytes:
    """The bytes of a model quantised by the converter."""
    concrete = tf.function(function).get_concrete_function(tf.TensorSpec(IMAGE, tf.float32))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if calibrated:
        converter.representative_dataset = lambda: ([image] for image in images())
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    for name, value in options.items():
        setattr(converter, name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bytes(converter.convert())


BYTES = {"inference_input_type": tf.int8, "inference_output_type": tf.int8}


def compare(content: bytes, tmp_path: Any, folder: str = "m.tvmconv") -> tuple[np.ndarray, ...]:
    """LiteRT's output, the reference's and that of the compiled model, for bytes of the whole range."""
    graph = read(content)
    (name,) = graph.inputs
    rng = np.random.default_rng(4)
    tensor = graph.inputs[name]
    if tensor.dtype == "float32":
        data = images()[0]
    else:
        limits = np.iinfo(tensor.dtype)
        data = rng.integers(limits.min, limits.max, tensor.shape, endpoint=True).astype(
            tensor.dtype
        )
    (expected,) = run_litert(content, [data])
    (plain,) = evaluate(fold(graph), {name: data}).values()
    made = tvmconv.load(tvmconv.compile(graph, output=tmp_path / folder), threads=1)(data)
    assert made.dtype == expected.dtype
    return expected, plain, made


@cache
def convolution(name: str) -> bytes:
    return converted(CONVOLUTIONS[name], **BYTES)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_are_litert_s_bit_for_bit(name, tmp_path):
    expected, plain, made = compare(convolution(name), tmp_path)

    np.testing.assert_array_equal(made, expected)
    np.testing.assert_array_equal(plain, expected)
    assert len(np.unique(expected)) >= 8


@pytest.mark.parametrize("name", OTHERS)
def test_other_operators_are_within_one_unit(name, tmp_path):
    expected, plain, made = compare(converted(OTHERS[name], **BYTES), tmp_path)

    assert np.abs(made.astype(int) - expected).max() <= 1
    assert np.abs(made.astype(int) - plain).max() <= 1
    assert len(np.unique(expected)) >= 8


def test_floats_outside_and_bytes_inside(tmp_path):
    expected, plain, made = compare(converted(CONVOLUTIONS["3x3 relu6"]), tmp_path)

    assert made.dtype == np.float32
    np.testing.assert_allclose(made, expected, atol=1e-6)
    np.testing.assert_allclose(plain, expected, atol=1e-6)


def test_unsigned_bytes_outside(tmp_path):
    unsigned = {"inference_input_type": tf.uint8, "inference_output_type": tf.uint8}
    expected, _, made = compare(converted(CONVOLUTIONS["1x1"], **unsigned), tmp_path)

    assert made.dtype == np.uint8
    np.testing.assert_array_equal(made, expected)


@pytest.mark.parametrize("name", ["5x5 stride 2", "dense"])
def test_weights_of_dynamic_range_models_become_floats(name, tmp_path):
    """LiteRT quantises the data of such a model while it runs, we do not: the float model is the judge."""
    content = converted(CONVOLUTIONS[name], calibrated=False)
    assert any(tensor.dtype == "int8" for tensor in parse(content, name).tensors)
    _, _, made = compare(content, tmp_path)

    wanted = tf.function(CONVOLUTIONS[name])(images()[0]).numpy()
    assert np.abs(made - wanted).max() < 0.05 * np.abs(wanted).max()


def test_an_operator_that_is_not_computed_on_bytes_is_named():
    content = converted(lambda x: tf.math.cumsum(x, 1), **BYTES)
    with pytest.raises(ModelError, match=r"CUMSUM, operator"):
        read(content)


@pytest.mark.slow
@pytest.mark.timeout(600)  # conversion alone takes a minute on a busy machine
def test_mobilenet_v2_is_litert_s_within_one_unit(tmp_path):
    """Calibrated on photographs; random weights, normalised so that no layer's outputs are all alike."""
    data = pytest.importorskip("skimage.data")
    size = 96
    photographs = [
        np.asarray(tf.image.resize(getattr(data, name)()[None, ..., :3], (size, size))) / 127.5 - 1
        for name in ("astronaut", "coffee", "chelsea", "rocket")
    ]
    tf.keras.utils.set_random_seed(0)
    model = tf.keras.applications.MobileNetV2(
        (size, size, 3), weights=None, classes=100, classifier_activation=None
    )
    for layer in model.layers:
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            layer.momentum = 0.0  # keeps the statistics of the last images
    model(np.concatenate(photographs), training=True)
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image] for image in photographs)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    expected, plain, made = compare(converter.convert(), tmp_path)

    assert np.abs(plain.astype(int) - expected).max() <= 1
    assert np.abs(made.astype(int) - expected).max() <= 1
    assert len(np.unique(expected)) > 20
