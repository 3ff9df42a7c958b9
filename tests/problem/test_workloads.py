import re
import time
from collections import Counter

import pytest
import tensorflow_oracle

from tvmconv.errors import UnknownNameError
from tvmconv.problem import workloads
from tvmconv.problem.rules import ACTIVATIONS, ITEM_BYTES, OP_DTYPES, PRELU
from tvmconv.problem.spec import ConvSpec
from tvmconv.problem.workloads import Layer, Workload, distinct, names, resolve

NETWORKS = tuple(name for name in names() if resolve(name).sequence)
FIRST_KEY = "conv2d_1x14x14x8_1x1x8x8_s1x1_p0x0x0x0_d1x1_nhwc_float32"
KEYS = [layer.spec.key for layer in resolve("edge_cases").entries[:3]]


def layers(name: str) -> dict[str, Layer]:
    return {layer.name: layer for layer in resolve(name).entries}


# Layers, and multiply-accumulates in millions. Papers, torchvision and Ultralytics name 569, 300, 56, 219,
# 390, 1814, 4089, 15470, 2834, 5713 (of 299x299), 4456 and 4350, with classifier and squeeze-and-excitation.
@pytest.mark.parametrize(
    ("name", "count", "macs"),
    [
        ("mobilenet_v1", 27, 567.7),
        ("mobilenet_v2", 52, 299.5),
        ("mobilenet_v3_small", 34, 54.4),
        ("mobilenet_v3_large", 46, 212.6),
        ("efficientnet_b0", 49, 383.9),
        ("resnet18", 20, 1813.6),
        ("resnet50", 53, 4087.1),
        ("vgg16", 13, 15346.6),
        ("densenet121", 120, 2833.1),
        ("inception_v3", 94, 5711.2),
        ("convnext_tiny", 58, 4454.8),
        ("yolov8n", 63, 4371.5),
    ],
)
def test_networks_add_up(name, count, macs):
    entries = resolve(name).entries
    assert sum(layer.count for layer in entries) == count
    total = sum(layer.count * layer.spec.macs for layer in entries)
    assert total / 1e6 == pytest.approx(macs, abs=0.1)


def test_yolo_has_ultralytics_parameters():
    """3,151,904 when fused, of which 16 are the fixed bins of a box's sides."""
    sequence = resolve("yolov8n").sequence
    each = [(layer.spec.reduction_length + 1) * layer.spec.out_channels for layer in sequence]
    assert sum(each) == 3_151_904 - 16


@pytest.mark.parametrize(
    ("name", "model", "excess"),
    [
        ("mobilenet_v1", "MobileNet", "conv_preds"),
        ("mobilenet_v2", "MobileNetV2", ""),
        ("mobilenet_v3_small", "MobileNetV3Small", "squeeze_excite|^conv_2|logits"),
        ("mobilenet_v3_large", "MobileNetV3Large", "squeeze_excite|^conv_2|logits"),
        ("efficientnet_b0", "EfficientNetB0", "_se_"),
        ("resnet50", "ResNet50", ""),
        ("vgg16", "VGG16", ""),
        ("densenet121", "DenseNet121", ""),
        ("inception_v3", "InceptionV3", ""),
        ("convnext_tiny", "ConvNeXtTiny", ""),
    ],
)
@pytest.mark.slow
def test_networks_are_those_of_keras(name, model, excess):
    """``excess`` is in the names of Keras' layers that are fully connected in disguise."""
    keras = tensorflow_oracle.tensorflow().keras
    theirs: Counter[tuple[object, ...]] = Counter()
    image = resolve(name).sequence[0].spec.input_shape[1:]
    for layer in convolutions(getattr(keras.applications, model)(input_shape=image, weights=None)):
        if excess and re.search(excess, layer.name):
            continue
        shape = tuple(layer.kernel.shape)
        if type(layer).__name__ == "Dense":  # ConvNeXt's 1x1 layers
            shape = (1, 1, *shape)
        depthwise = type(layer).__name__ == "DepthwiseConv2D"
        if not depthwise and getattr(layer, "groups", 1) == shape[3] > 1:
            depthwise, shape = True, (*shape[:2], shape[3], 1)
        theirs[(depthwise, shape, *layer.output.shape[1:3])] += 1
    ours: Counter[tuple[object, ...]] = Counter()
    for layer in resolve(name).entries:
        spec, height, width = layer.spec, layer.spec.out_height, layer.spec.out_width
        if name == "resnet50" and re.fullmatch(r"stage[234]\.block1\.reduce", layer.name):
            # Keras has version 1, with the stride on the first 1x1.
            height, width = height // 2, width // 2
        depthwise = spec.op == "depthwise_conv2d"
        ours[(depthwise, spec.filter_shape, height, width)] += layer.count
    assert ours == theirs


def convolutions(model):
    """Layers of a Keras model that are convolutions, those of models inside it too."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from convolutions(layer)
        elif type(layer).__name__ in ("Conv2D", "DepthwiseConv2D") or (
            type(layer).__name__ == "Dense" and len(layer.output.shape) == 4
        ):
            yield layer


@pytest.mark.parametrize("name", NETWORKS)
def test_network_layers_are_what_deployment_runs(name):
    for layer in resolve(name).entries:
        assert layer.spec.bias
        assert layer.spec.dtype == "float32"
        assert layer.spec.data_format == "NHWC"
        assert layer.spec.batch == 1


def test_mobilenet_v2_blocks():
    net = layers("mobilenet_v2")
    assert net["stem"].spec.key == (
        "conv2d_1x224x224x3_3x3x3x32_s2x2_p0x1x0x1_d1x1_nhwc_float32_bias_relu6"
    )
    assert "block1.expand" not in net
    assert net["block1.project"].spec.output_shape == (1, 112, 112, 16)
    assert net["block2.expand"].spec.activation == "relu6"
    assert net["block2.depthwise"].spec.strides == (2, 2)
    assert not net["block2.project"].spec.residual
    residual = net["block3.project"].spec
    assert residual.key == (
        "conv2d_1x56x56x144_1x1x144x24_s1x1_p0x0x0x0_d1x1_nhwc_float32_bias_residual"
    )
    assert net["head"].spec.filter_shape == (1, 1, 320, 1280)
    adding = sum(layer.count for layer in net.values() if layer.spec.residual)
    assert adding == 10


def test_resnet50_blocks():
    net = layers("resnet50")
    assert net["stem"].spec.pads == (3, 3, 3, 3)
    assert net["stage1.block1.downsample"].spec.strides == (1, 1)
    assert net["stage2.block1.downsample"].spec.key == (
        "conv2d_1x56x56x256_1x1x256x512_s2x2_p0x0x0x0_d1x1_nhwc_float32_bias"
    )
    assert net["stage2.block1.reduce"].spec.strides == (1, 1)
    assert net["stage2.block1.conv3x3"].spec.strides == (2, 2)
    assert net["stage2.block1.conv3x3"].spec.pads == (1, 1, 1, 1)
    expands = [layer for label, layer in net.items() if label.endswith("expand")]
    assert sum(layer.count for layer in expands) == 16
    assert all(layer.spec.residual and layer.spec.activation == "relu" for layer in expands)


def test_efficientnet_b0_blocks():
    net = layers("efficientnet_b0")
    kernels = Counter()
    for layer in net.values():
        if layer.spec.op == "depthwise_conv2d":
            kernels[layer.spec.kernel_height] += layer.count
    assert kernels == {3: 7, 5: 9}
    assert net["block4.depthwise"].spec.strides == (2, 2)
    assert sum(layer.count for layer in net.values() if layer.spec.residual) == 9
    assert {layer.spec.activation for layer in net.values()} == {"silu", None}


@pytest.mark.parametrize("name", names())
def test_labels_and_specs_are_distinct(name):
    workload = resolve(name)
    assert workload.name == name
    assert workload.description
    assert len({layer.name for layer in workload.entries}) == len(workload.entries)
    assert distinct(workload) == tuple(layer.spec for layer in workload.entries)
    assert len(set(distinct(workload))) == len(workload.entries)
    assert resolve(name) is workload


def test_distinct_merges_workloads():
    merged = distinct(resolve("mobilenet_v1"), resolve("mobilenet_v2"), resolve("mobilenet_v1"))
    both = set(distinct(resolve("mobilenet_v1"))) | set(distinct(resolve("mobilenet_v2")))
    assert set(merged) == both
    assert len(merged) == len(both)


def test_edge_cases_reach_every_legal_kind():
    specs = distinct(resolve("edge_cases"))
    by_op = {op: [spec for spec in specs if spec.op == op] for op in OP_DTYPES}
    for op, dtypes in OP_DTYPES.items():
        assert {spec.dtype for spec in by_op[op]} == set(dtypes)
        assert {spec.activation for spec in by_op[op]} == {None, *ACTIVATIONS, PRELU}
        assert {spec.data_format for spec in by_op[op]} == {"NHWC", "NCHW"}
        assert any(spec.is_empty for spec in by_op[op])
        assert any(spec.strides[0] != spec.strides[1] for spec in by_op[op])
        assert any(spec.dilations[0] != spec.dilations[1] for spec in by_op[op])
        assert any(spec.pads[0] > spec.kernel_height for spec in by_op[op])
    conv2d = by_op["conv2d"]
    assert {4, 5, 6} == {len(spec.input_shape) for spec in conv2d}
    assert {1, 2, 3} <= {spec.groups for spec in conv2d}
    assert any(spec.groups > 1 and spec.out_channels == spec.groups for spec in conv2d)
    assert any(max(spec.strides) > 1 and max(spec.dilations) > 1 for spec in conv2d)
    assert any(spec.in_height == 0 and not spec.is_empty for spec in conv2d)
    assert any(spec.activation and spec.bias and spec.residual for spec in conv2d)
    assert {1, 2, 3, 8} <= {spec.multiplier for spec in by_op["depthwise_conv2d"]}
    # Small, because tests compile and run them all.
    assert max(spec.macs for spec in specs) < 2_000_000
    assert max(spec.bytes for spec in specs) < 100_000


def test_a_network_in_tf32_keeps_its_depthwise_layers_in_float32():
    network, allowed = resolve("mobilenet_v2"), resolve("mobilenet_v2:tf32")
    assert allowed.name == "mobilenet_v2:tf32"
    assert [layer.name for layer in allowed.sequence] == [layer.name for layer in network.sequence]
    assert [layer.spec.strict for layer in allowed.entries] == [
        layer.spec for layer in network.entries
    ]
    for layer in allowed.entries:
        assert layer.spec.tf32 == (layer.spec.op == "conv2d")
    strict = workloads.in_dtype(allowed, "float32")
    assert [layer.spec for layer in strict.entries] == [layer.spec for layer in network.entries]
    # Operators' dtypes are another matter: the edge cases are turned whole.
    halves = workloads.in_dtype(resolve("edge_cases"), "float16")
    assert not any(layer.spec.tf32 for layer in halves.entries)


def test_edge_cases_are_tagged():
    for layer in resolve("edge_cases").entries:
        assert layer.spec.op in layer.tags
        assert len(layer.tags) >= 2
        assert ("empty" in layer.tags) == layer.spec.is_empty


def test_resolve_key():
    spec = ConvSpec.depthwise_conv2d((1, 9, 9, 4), (3, 3, 4, 1))
    assert resolve(spec.key) == Workload(spec.key, "one convolution", (Layer(spec.key, spec),))


def test_resolve_malformed_key():
    with pytest.raises(ValueError, match="'conv2d_1x2' is not the key"):
        resolve("conv2d_1x2")
    with pytest.raises(ValueError, match="is not the key"):
        resolve("conv2d_" + "1x" * 5000)


def test_resolve_unknown_name_lists_near_and_known_ones():
    with pytest.raises(UnknownNameError) as caught:
        resolve("mobilnet_v2")
    message = str(caught.value)
    assert "'mobilnet_v2'" in message
    assert message.index("Did you mean mobilenet_v2") < message.index("Known are")
    for name in names():
        assert name in message
    with pytest.raises(UnknownNameError, match="Known are"):
        resolve("")


def test_resolve_file(tmp_path):
    path = tmp_path / "conv2d_of_mine.txt"
    path.write_text(
        f"# my layers\n\n{KEYS[0]}\n  {KEYS[1]}  # the second\n{KEYS[0]}\n{KEYS[2]}", "utf-8"
    )
    workload = resolve(str(path))
    assert workload.name == "conv2d_of_mine"
    assert [(layer.spec.key, layer.count) for layer in workload.entries] == [
        (KEYS[0], 2),
        (KEYS[1], 1),
        (KEYS[2], 1),
    ]


@pytest.mark.parametrize("line", ["conv2d_1x2", f"{KEYS[0]} {KEYS[1]}", "mobilenet_v2"])
def test_bad_line_names_file_and_line(tmp_path, line):
    path = tmp_path / "layers.txt"
    path.write_text(f"{KEYS[0]}\n# fine so far\n{line}\n", "utf-8")
    with pytest.raises(ValueError, match=rf"layers\.txt:3: '{line}'"):
        resolve(str(path))


@pytest.mark.parametrize(
    ("content", "says"), [(b"# nothing\n\n", "no spec keys"), (b"\xff\xfe\x00", "not text")]
)
def test_file_without_keys(tmp_path, content, says):
    path = tmp_path / "layers.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"layers\.txt.*{says}"):
        resolve(str(path))


def test_every_dtype_has_a_size():
    assert set(ITEM_BYTES) == {dtype for dtypes in OP_DTYPES.values() for dtype in dtypes}


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "layers.txt"
    path.write_bytes(b"\xef\xbb\xbf" + FIRST_KEY.encode() + b"\n")

    assert [layer.name for layer in resolve(str(path)).entries] == [FIRST_KEY]


@pytest.mark.slow
@pytest.mark.parametrize("kinds", [1, 100_000])
def test_100_000_lines_are_read_in_seconds(tmp_path, kinds):
    path = tmp_path / "layers.txt"
    sizes = [(1 + number % kinds % 300, 1 + number % kinds // 300) for number in range(100_000)]
    path.write_text("".join(FIRST_KEY.replace("14x14", f"{h}x{w}") + "\n" for h, w in sizes))

    begin = time.process_time()
    entries = resolve(str(path)).entries

    assert time.process_time() - begin < 6.0  # 2 s; 39 s before
    assert len(entries) == kinds
    assert sum(layer.count for layer in entries) == 100_000
