"""Each operator of .tflite files, as TensorFlow's converter writes it, against LiteRT."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from model_files import run_litert

from tvmconv.errors import ModelError
from tvmconv.models.folding.fold import fold
from tvmconv.models.reading import read
from tvmconv.models.reference import evaluate

tf = pytest.importorskip("tensorflow")
IMAGE = (1, 6, 8, 4)


def weights(*shape):
    return np.random.default_rng(sum(shape)).uniform(-1, 1, shape).astype(np.float32)


FUNCTIONS = {
    "conv same stride": lambda x: tf.nn.relu(tf.nn.conv2d(x, weights(3, 2, 4, 5), (2, 1), "SAME")),
    "conv dilated": lambda x: tf.nn.conv2d(x, weights(2, 3, 4, 5), 1, "SAME", dilations=2),
    "conv n1 to 1": lambda x: tf.clip_by_value(
        tf.nn.conv2d(x, weights(1, 1, 4, 3), 1, "VALID"), -1.0, 1.0
    ),
    "conv tanh": lambda x: tf.tanh(tf.nn.conv2d(x, weights(1, 1, 4, 3), 1, "VALID")),
    "conv batch norm": lambda x: (
        tf.nn.conv2d(x, weights(3, 3, 4, 5), 1, "VALID") * weights(5) + weights(5)
    ),
    "conv groups": lambda x: tf.nn.conv2d(x, weights(3, 3, 2, 6), 1, "SAME"),
    "conv of a pad": lambda x: tf.nn.conv2d(
        tf.pad(x, [(0, 0), (0, 1), (2, 1), (0, 0)]), weights(3, 3, 4, 2), 2, "VALID"
    ),
    "depthwise": lambda x: tf.nn.depthwise_conv2d(x, weights(3, 3, 4, 2), (1, 2, 2, 1), "SAME"),
    "transposed same": lambda x: tf.nn.conv2d_transpose(
        x, weights(3, 3, 5, 4), (1, 12, 16, 5), 2, "SAME"
    ),
    "transposed odd": lambda x: tf.nn.conv2d_transpose(
        x, weights(4, 2, 5, 4), (1, 11, 23, 5), (2, 3), "SAME"
    ),
    "transposed valid": lambda x: tf.nn.conv2d_transpose(
        x, weights(3, 2, 5, 4), (1, 13, 16, 5), 2, "VALID"
    ),
    "max pool": lambda x: tf.nn.max_pool2d(x, (3, 2), 2, "SAME"),
    "average pool": lambda x: tf.nn.relu6(tf.nn.avg_pool2d(x, 3, 2, "SAME")),
    "mean": lambda x: tf.reduce_mean(x, (1, -2)),
    "max": lambda x: tf.reduce_max(x, 3, keepdims=True),
    "min sum prod": lambda x: tf.reduce_min(x, 1) + tf.reduce_sum(x, 1) - tf.reduce_prod(x, 1),
    "reshape": lambda x: tf.reshape(x, (1, -1, 4)),
    "squeeze expand": lambda x: tf.expand_dims(tf.squeeze(x, 0), 1),
    "concat": lambda x: tf.concat([x, x * 2.0], -1),
    "split": lambda x: tf.split(x, 2, 2)[1],
    "split sizes": lambda x: tf.split(x, (1, 3), 3)[1] * 2.0,
    "stack unstack": lambda x: tf.stack(tf.unstack(x, axis=3)[::-1], 1),
    "strided slice": lambda x: x[:, 4:1:-2, ..., tf.newaxis, 1],
    "slice": lambda x: tf.slice(x, (0, 1, 2, 0), (1, 3, -1, 2)),
    "reverse": lambda x: tf.reverse(x, (1,)),
    "transpose": lambda x: tf.transpose(x, (0, 3, 1, 2)),
    "pad value": lambda x: tf.pad(x, [(0, 0), (1, 0), (0, 2), (1, 1)], constant_values=2.0),
    "pad reflect": lambda x: tf.pad(x, [(0, 0), (2, 1), (0, 2), (0, 0)], "REFLECT"),
    "pad symmetric": lambda x: tf.pad(x, [(0, 0), (1, 1), (0, 1), (0, 0)], "SYMMETRIC"),
    "tile": lambda x: tf.tile(x, (1, 2, 1, 3)),
    "broadcast": lambda x: tf.broadcast_to(x, (2, 6, 8, 4)) + 0.5,
    "gather": lambda x: tf.gather(x, [[3, 0], [1, 1]], axis=2),
    "depth to space": lambda x: tf.nn.depth_to_space(x, 2),
    "space to depth": lambda x: tf.nn.space_to_depth(x, 2),
    "space to batch": lambda x: tf.batch_to_space(
        tf.space_to_batch(x, (2, 2), [(0, 0), (1, 1)]), (2, 2), [(0, 0), (1, 1)]
    ),
    "softmax": tf.nn.softmax,
    "log softmax": tf.nn.log_softmax,
    "normalise": lambda x: tf.nn.l2_normalize(x, -1),
    "activations": lambda x: (
        tf.nn.elu(x) + tf.nn.leaky_relu(x, 0.1) * tf.tanh(x) - tf.sigmoid(x) * tf.nn.swish(x)
    ),
    "hard swish": lambda x: x * tf.nn.relu6(x + 3) * (1 / 6),
    "gelu": lambda x: tf.nn.gelu(x, approximate=True),
    "unary": lambda x: (
        tf.exp(-tf.abs(x)) + tf.sqrt(tf.square(x) + 1) * tf.math.rsqrt(x * x + 1) + tf.math.log(x * x + 1)
    ),
    "rounding": lambda x: tf.round(x * 4) + tf.floor(x * 3) - tf.math.ceil(x * 5) + tf.sin(x) * tf.cos(x),
    "binary": lambda x: (
        tf.maximum(x, x[:, :1]) / (tf.minimum(x, 0.5) + 9.0)
        + tf.pow(tf.abs(x), 1.5) + tf.math.squared_difference(x, x[:, :, :1])
    ),
    "integers": lambda x: tf.cast(
        tf.cast(x * 50, tf.int32) // 7 + tf.math.floormod(tf.cast(x * 50, tf.int32), 5), tf.float32
    ),
    "select": lambda x: tf.where(tf.logical_and(x > 0.1, tf.not_equal(x, 0.5)), x, -x),
    "arg max": lambda x: tf.argmax(x, 3, output_type=tf.int32),
    "matmul": lambda x: tf.matmul(x, x, transpose_b=True),
    "dense": lambda x: tf.nn.relu(tf.matmul(tf.reshape(x, (6, 32)), weights(32, 7)) + weights(7)),
    "shape of it": lambda x: tf.reshape(x, (tf.shape(x)[0], -1)),
    **{
        f"{method} {flags}": lambda x, method=method, flags=flags: getattr(
            tf.compat.v1.image, f"resize_{method}"
        )(x, (9, 5), **dict.fromkeys(flags, True))
        for method in ("bilinear", "nearest_neighbor")
        for flags in ((), ("align_corners",), ("half_pixel_centers",))
    },
}  # fmt: skip


def converted(function, shape=IMAGE, **settings) -> bytes:
    signature = tf.TensorSpec(shape, tf.float32)
    concrete = tf.function(function, input_signature=[signature]).get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
    for name, value in settings.items():
        setattr(converter, name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content: bytes = converter.convert()
    return content


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
def test_operators_compute_what_litert_does(name):
    content = converted(FUNCTIONS[name])
    image = np.random.default_rng(1).uniform(-2, 2, IMAGE).astype(np.float32)
    (expected,) = run_litert(content, [image])
    graph = read(content)
    for each in (graph, fold(graph)):
        (out,) = evaluate(each, dict.fromkeys(graph.inputs, image)).values()
        np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)


def test_float16_weights_become_float32_constants():
    content = converted(
        FUNCTIONS["conv same stride"],
        optimizations=[tf.lite.Optimize.DEFAULT],
        target_spec=tf.lite.TargetSpec(supported_types=[tf.float16]),
    )
    graph = read(content)

    assert [node.op for node in graph.nodes] == ["conv2d"]


def test_a_batch_is_one_or_what_is_given_and_other_extents_must_be():
    function = FUNCTIONS["conv batch norm"]
    content = converted(function, (None, 6, 8, 4))
    (name,) = read(content).inputs
    assert read(content).inputs[name].shape == IMAGE
    given = read(content, {name: (3, 7, 9, 4)})
    image = np.random.default_rng(1).uniform(-2, 2, (3, 7, 9, 4)).astype(np.float32)
    (expected,) = run_litert(content, [image])
    (out,) = evaluate(fold(given), {name: image}).values()
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)

    content = converted(function, (1, None, 8, 4))
    with pytest.raises(ModelError, match=r"\(1, \?, 8, 4\), where \? is not known.* --input-shape"):
        read(content)
    assert read(content, {name: IMAGE}).inputs[name].shape == IMAGE
    with pytest.raises(ModelError, match="input_shapes names 'z'"):
        read(content, {name: IMAGE, "z": IMAGE})
    with pytest.raises(ModelError, match=r"input_shapes has \(6, 8, 4\)"):
        read(content, {name: IMAGE[1:]})


def test_what_is_not_supported_is_listed_with_its_place():
    def function(x):
        return tf.cumsum(x, 1) + tf.cast(tf.math.top_k(x, 4)[1], tf.float32)

    with pytest.raises(ModelError) as caught:
        read(converted(function))

    assert "CUMSUM, operator " in str(caught.value)
    assert "TOPK_V2, operator " in str(caught.value)
    assert str(caught.value).count("not supported") == 2
