"""Small problems of every legal kind: one trait each, and the combinations that break kernels.

Each row is a label, the spec and tags to filter by. Rows differ in spec: a label is a test id.
"""

from __future__ import annotations

from typing import Any, Final

from tvmconv.problem.rules import ACTIVATIONS, FLOAT_DTYPES, INTEGER_ACTIVATIONS, PRELU
from tvmconv.problem.spec import ConvSpec

EdgeCase = tuple[str, ConvSpec, tuple[str, ...]]


def _conv(label: str, tags: str, data: Any, window: Any, **options: Any) -> EdgeCase:
    return label, ConvSpec.conv2d(data, window, **options), ("conv2d", *tags.split())


def _depthwise(label: str, tags: str, data: Any, window: Any, **options: Any) -> EdgeCase:
    spec = ConvSpec.depthwise_conv2d(data, window, **options)
    return label, spec, ("depthwise_conv2d", *tags.split())


def _pads(top: int, bottom: int, left: int, right: int) -> list[tuple[int, int]]:
    return [(0, 0), (top, bottom), (left, right), (0, 0)]


_CONV2D = (
    # Channels that fill no vector register.
    _conv("channels1", "channels", (1, 6, 7, 1), (3, 3, 1, 1)),
    _conv("channels3to5", "channels", (1, 6, 7, 3), (3, 3, 3, 5)),
    _conv("channels7to13", "channels", (1, 5, 6, 7), (3, 3, 7, 13)),
    _conv("channels17to33", "channels", (1, 5, 5, 17), (1, 1, 17, 33)),
    _conv("channels33to17", "channels", (1, 4, 5, 33), (3, 3, 33, 17)),
    _conv("channels64to3", "channels", (1, 5, 9, 64), (3, 3, 64, 3)),
    _conv("channels21to35", "channels", (1, 5, 6, 21), (3, 3, 21, 35)),
    # Fewer output channels than a vector has lanes, of whole and half vectors of input channels.
    _conv("channels16to1", "channels", (1, 6, 7, 16), (3, 3, 16, 1)),
    _conv("channels48to3", "channels", (1, 5, 13, 48), (3, 3, 48, 3), bias=True, activation="relu"),
    _conv("channels24to2", "channels stride", (2, 7, 9, 24), (3, 4, 24, 2), strides=2),
    _conv("channels32to6", "channels dilation", (1, 9, 8, 32), (3, 3, 32, 6), dilations=(2, 3)),
    _conv("channels20to5", "channels", (1, 5, 6, 20), (5, 5, 20, 5), padding="VALID"),
    _conv("channels64to1_1x1", "channels", (2, 5, 9, 64), (1, 1, 64, 1), residual=True),
    _conv("channels16to3_9x9", "channels", (1, 11, 12, 16), (9, 9, 16, 3)),
    _conv("channels16to2_1x19", "channels", (1, 3, 25, 16), (1, 19, 16, 2)),
    # Few channels to few, in wide windows and in rows of no whole vector.
    _conv(
        "channels3to3_9x9", "channels", (1, 7, 21, 3), (9, 9, 3, 3), bias=True, activation="relu"
    ),
    _conv("channels1to1_5x5", "channels", (1, 9, 37, 1), (5, 5, 1, 1), residual=True),
    _conv("channels3to1_stride3", "channels stride", (2, 13, 40, 3), (5, 7, 3, 1), strides=(2, 3)),
    _conv("channels2to3_rates", "dilation", (1, 12, 35, 2), (4, 5, 2, 3), strides=2, dilations=3),
    _conv("channels3to2_dilation", "dilation", (1, 9, 20, 3), (3, 5, 3, 2), dilations=(1, 3)),
    _conv("channels3to3_valid", "padding", (1, 8, 33, 3), (3, 6, 3, 3), padding="VALID"),
    _conv("channels3to3_pads", "padding", (1, 5, 6, 3), (5, 5, 3, 3), padding=_pads(5, 0, 1, 7)),
    _conv("channels3to3_15x35", "kernel", (1, 6, 18, 3), (15, 35, 3, 3)),
    # Filters of odd shapes.
    _conv("kernel1x1", "kernel", (1, 5, 6, 4), (1, 1, 4, 8)),
    _conv("kernel2x3", "kernel", (1, 5, 6, 4), (2, 3, 4, 3)),
    _conv("kernel4x2", "kernel", (1, 7, 6, 3), (4, 2, 3, 5)),
    _conv("kernel5x5", "kernel", (1, 9, 8, 3), (5, 5, 3, 4)),
    _conv("kernel7x1", "kernel", (1, 9, 5, 2), (7, 1, 2, 3)),
    _conv("kernel1x7", "kernel", (1, 5, 9, 2), (1, 7, 2, 3)),
    _conv("kernel9x9", "kernel channels", (1, 9, 8, 16), (9, 9, 16, 3)),
    _conv("kernel_is_input", "kernel", (2, 5, 4, 3), (5, 4, 3, 6), padding="VALID"),
    _conv("kernel_above_input", "kernel", (1, 3, 2, 2), (7, 5, 2, 3)),
    # Strides, dilations, padding.
    _conv("stride1x2", "stride", (1, 7, 8, 3), (3, 3, 3, 4), strides=(1, 2)),
    _conv("stride3x2", "stride", (1, 10, 9, 3), (3, 3, 3, 4), strides=(3, 2), padding="VALID"),
    _conv("stride_above_kernel", "stride", (1, 9, 9, 4), (1, 1, 4, 3), strides=3),
    _conv("stride_drops_rows", "stride", (1, 8, 8, 2), (3, 3, 2, 2), strides=4, padding="VALID"),
    _conv("dilation2", "dilation", (1, 9, 9, 3), (3, 3, 3, 4), dilations=2),
    _conv("dilation2x3", "dilation", (1, 9, 11, 2), (3, 2, 2, 4), dilations=(2, 3)),
    _conv(
        "stride_and_dilation",
        "stride dilation",
        (1, 11, 10, 3),
        (3, 3, 3, 4),
        strides=(2, 1),
        dilations=(1, 2),
    ),
    _conv(
        "stride2_dilation2", "stride dilation", (1, 12, 11, 3), (3, 3, 3, 4), strides=2, dilations=2
    ),
    _conv("dilation_above_input", "dilation batch", (2, 7, 6, 16), (3, 3, 16, 8), dilations=8),
    _conv("valid", "padding", (1, 6, 7, 4), (3, 3, 4, 4), padding="VALID"),
    _conv("pads_asymmetric", "padding", (1, 6, 5, 3), (3, 3, 3, 4), padding=_pads(0, 2, 1, 0)),
    _conv("pads_above_kernel", "padding", (1, 4, 5, 2), (2, 3, 2, 3), padding=_pads(4, 1, 3, 5)),
    _conv("pads_for_kernel1x1", "padding", (1, 4, 4, 3), (1, 1, 3, 4), padding=_pads(1, 2, 0, 1)),
    # Groups.
    _conv("groups2", "groups", (1, 6, 6, 8), (3, 3, 4, 6)),
    _conv("groups3", "groups", (1, 5, 7, 6), (3, 2, 2, 9), strides=2),
    _conv("groups_one_out_channel", "groups", (1, 6, 6, 6), (3, 3, 2, 3)),
    _conv("groups_one_in_channel", "groups", (1, 6, 6, 5), (3, 3, 1, 10)),
    _conv("groups_of_one", "groups", (1, 6, 7, 20), (3, 3, 1, 20)),
    _conv("groups_of_4", "groups", (1, 5, 6, 24), (3, 3, 4, 24)),
    _conv("groups_of_7", "groups", (1, 5, 6, 21), (3, 3, 7, 21)),
    _conv("groups_of_16", "groups", (2, 5, 5, 32), (1, 1, 16, 32)),
    _conv("groups_of_15", "groups", (1, 5, 6, 30), (3, 3, 15, 30), bias=True),
    # Depthwise convolutions by another name.
    _conv("groups_of_1", "groups", (1, 9, 10, 24), (3, 3, 1, 24), bias=True, activation="relu"),
    _conv("groups_of_1_rank5", "groups rank", (2, 2, 6, 5, 20), (2, 3, 1, 40), strides=2),
    _conv("groups_of_1_nchw", "groups nchw", (1, 17, 6, 5), (3, 3, 1, 17), data_format="NCHW"),
    _conv("groups_of_1_int8", "groups dtype", (1, 6, 9, 16), (3, 3, 1, 16), dtype="int8"),
    _conv("groups_of_1_rates", "groups", (1, 9, 9, 6), (3, 3, 1, 6), strides=2, dilations=2),
    # Batches and ranks.
    _conv("batch0", "batch empty", (0, 6, 6, 4), (3, 3, 4, 4)),
    _conv("batch2", "batch", (2, 6, 5, 4), (3, 3, 4, 8)),
    _conv("batch3_stride2", "batch", (3, 5, 5, 3), (3, 3, 3, 5), strides=2),
    _conv("rank5", "batch rank", (2, 3, 5, 6, 4), (3, 3, 4, 8)),
    _conv("rank6", "batch rank", (2, 1, 3, 5, 4, 2), (2, 2, 2, 3), padding="VALID"),
    _conv("rank5_empty", "batch rank empty", (2, 0, 5, 6, 4), (3, 3, 4, 8)),
    # Images with next to nothing in them.
    _conv("height0", "empty", (1, 0, 6, 4), (3, 3, 4, 4)),
    _conv("width0", "empty", (2, 5, 0, 3), (1, 1, 3, 4), strides=2),
    _conv(
        "height0_padded",
        "padding only_padding",
        (1, 0, 4, 2),
        (3, 3, 2, 3),
        padding=_pads(2, 2, 1, 1),
        bias=True,
    ),
    _conv("image1x1", "image", (1, 1, 1, 16), (1, 1, 16, 24), bias=True),
    _conv("connected", "image", (1, 1, 1, 300), (1, 1, 300, 45), bias=True, activation="relu"),
    _conv("image1x1_kernel3", "image", (1, 1, 1, 4), (3, 3, 4, 5)),
    _conv("row", "image", (1, 1, 23, 8), (1, 3, 8, 16)),
    _conv("column", "image", (1, 19, 1, 8), (3, 1, 8, 16)),
    # Widths and channels that are multiples of no tile, and one that is of all.
    _conv("width19", "tile", (1, 5, 19, 8), (3, 3, 8, 24)),
    _conv("width23", "tile", (1, 4, 23, 16), (1, 1, 16, 40)),
    _conv("width29_stride2", "tile", (1, 6, 29, 8), (3, 3, 8, 20), strides=2),
    _conv("width16_channels32", "tile", (1, 8, 16, 32), (3, 3, 32, 32)),
    _conv("channels100", "tile", (1, 3, 13, 20), (1, 1, 20, 100)),
    # NCHW.
    _conv("nchw", "nchw", (1, 4, 6, 7), (3, 3, 4, 5), data_format="NCHW"),
    _conv("nchw_stride2", "nchw", (2, 3, 7, 9), (3, 3, 3, 8), strides=2, data_format="NCHW"),
    _conv("nchw_groups", "nchw groups", (1, 6, 5, 6), (3, 3, 3, 4), data_format="NCHW", bias=True),
    _conv("nchw_rank5", "nchw rank", (2, 2, 3, 5, 6), (2, 3, 3, 4), data_format="NCHW"),
    _conv(
        "nchw_epilogue",
        "nchw epilogue",
        (1, 8, 5, 7),
        (1, 1, 8, 12),
        data_format="NCHW",
        bias=True,
        residual=True,
        activation="relu",
    ),
    # Epilogues.
    _conv("bias", "epilogue", (1, 5, 6, 8), (3, 3, 8, 16), bias=True),
    _conv("residual", "epilogue", (1, 5, 6, 8), (1, 1, 8, 8), residual=True),
    _conv("bias_residual", "epilogue", (2, 5, 7, 8), (1, 1, 8, 20), bias=True, residual=True),
    _conv(
        "bias_residual_relu",
        "epilogue",
        (2, 5, 7, 6),
        (3, 3, 6, 9),
        bias=True,
        residual=True,
        activation="relu",
    ),
)

_DEPTHWISE = (
    _depthwise("depthwise3x3", "kernel", (1, 8, 9, 16), (3, 3, 16, 1)),
    _depthwise("depthwise5x5_stride2", "kernel stride", (1, 9, 9, 7), (5, 5, 7, 1), strides=2),
    _depthwise("depthwise1x7", "kernel", (1, 4, 11, 5), (1, 7, 5, 1)),
    _depthwise("depthwise13x13", "kernel", (1, 7, 8, 16), (13, 13, 16, 1)),
    _depthwise("depthwise13x12", "kernel tile", (1, 10, 9, 20), (13, 12, 20, 1)),
    _depthwise("depthwise1x1", "kernel", (1, 4, 5, 6), (1, 1, 6, 1)),
    _depthwise("depthwise_channels1", "channels", (2, 6, 6, 1), (3, 3, 1, 1)),
    _depthwise("depthwise_channels33", "channels", (1, 5, 7, 33), (3, 3, 33, 1)),
    _depthwise("multiplier2", "multiplier", (1, 6, 7, 5), (3, 3, 5, 2)),
    _depthwise("multiplier3", "multiplier", (2, 5, 5, 4), (2, 3, 4, 3), padding="VALID"),
    _depthwise("multiplier8", "multiplier", (1, 5, 6, 3), (3, 3, 3, 8), strides=2),
    _depthwise("multiplier8_of_1", "multiplier", (1, 5, 6, 1), (3, 3, 1, 8), bias=True),
    _depthwise("depthwise_stride1x2", "stride", (1, 7, 8, 6), (3, 3, 6, 1), strides=(1, 2)),
    _depthwise("depthwise_dilation2", "dilation", (1, 9, 9, 5), (3, 3, 5, 1), dilations=2),
    _depthwise("depthwise_dilation2x3", "dilation", (1, 9, 9, 4), (3, 3, 4, 2), dilations=(2, 3)),
    _depthwise("depthwise_pads", "padding", (1, 5, 6, 8), (3, 3, 8, 1), padding=_pads(4, 0, 1, 5)),
    _depthwise("depthwise_is_input", "kernel", (1, 4, 5, 9), (4, 5, 9, 1), padding="VALID"),
    _depthwise("depthwise_batch0", "batch empty", (0, 6, 6, 4), (3, 3, 4, 1)),
    _depthwise("depthwise_batch3", "batch", (3, 5, 6, 8), (3, 3, 8, 1), strides=2),
    _depthwise("depthwise_height0", "empty", (1, 0, 6, 4), (3, 3, 4, 1)),
    _depthwise("depthwise_width23", "tile", (1, 5, 23, 40), (3, 3, 40, 1)),
    _depthwise("depthwise_nchw", "nchw", (2, 6, 7, 8), (3, 3, 6, 2), data_format="NCHW", strides=2),
    _depthwise(
        "depthwise_epilogue",
        "epilogue",
        (2, 7, 6, 12),
        (3, 3, 12, 1),
        bias=True,
        residual=True,
        activation="relu6",
    ),
)

_DTYPES = (
    *(
        _conv(f"conv2d_{dtype}", "dtype", (1, 5, 7, 18), (3, 3, 18, 20), dtype=dtype, bias=True)
        for dtype in FLOAT_DTYPES
    ),
    *(
        _depthwise(
            f"depthwise_{dtype}",
            "dtype",
            (1, 6, 7, 19),
            (3, 3, 19, 1),
            dtype=dtype,
            activation="relu6",
        )
        for dtype in FLOAT_DTYPES
    ),
    _conv("int32", "dtype", (1, 5, 6, 4), (3, 3, 4, 7), dtype="int32"),
    _conv("int32_groups", "dtype groups", (2, 5, 6, 4), (2, 3, 2, 6), dtype="int32", strides=2),
    *(
        _conv(
            f"int32_{activation}",
            "dtype epilogue",
            (1, 4, 5, 3),
            (3, 3, 3, 5),
            dtype="int32",
            bias=True,
            residual=True,
            activation=activation,
        )
        for activation in INTEGER_ACTIVATIONS
    ),
)

# Words of four bytes or two halves, cut from channels or from rows of the kernel; and what has none.
_WORDS = (
    _conv("int8", "dtype", (1, 7, 9, 16), (3, 3, 16, 32), dtype="int8"),
    _conv("uint8", "dtype", (1, 7, 9, 16), (3, 3, 16, 24), dtype="uint8", padding="VALID"),
    _conv("int8_1x1", "dtype", (2, 5, 7, 24), (1, 1, 24, 40), dtype="int8", bias=True),
    _conv("uint8_1x1", "dtype", (1, 6, 9, 32), (1, 1, 32, 16), dtype="uint8", activation="relu"),
    _conv("int8_stem", "dtype stride", (1, 13, 15, 3), (3, 3, 3, 16), dtype="int8", strides=2),
    _conv("uint8_stem", "dtype stride", (2, 9, 11, 3), (7, 7, 3, 20), dtype="uint8", strides=2),
    _conv("uint8_channels7", "dtype", (1, 6, 5, 7), (2, 3, 7, 9), dtype="uint8"),
    _conv(
        "int8_dilation", "dtype dilation", (1, 9, 8, 8), (3, 3, 8, 12), dtype="int8", dilations=2
    ),
    _conv(
        "int8_channels5_dilation",
        "dtype dilation",
        (1, 9, 8, 5),
        (3, 3, 5, 12),
        dtype="int8",
        dilations=2,
    ),
    _conv("int8_groups", "dtype groups", (1, 6, 7, 16), (3, 3, 4, 32), dtype="int8"),
    _conv(
        "int8_groups_of_8", "dtype groups", (1, 6, 7, 16), (3, 3, 8, 16), dtype="int8", bias=True
    ),
    _conv("uint8_stride2", "dtype stride", (2, 9, 13, 16), (3, 3, 16, 8), dtype="uint8", strides=2),
    _conv("uint8_groups_of_3", "dtype groups", (1, 6, 7, 6), (3, 3, 3, 8), dtype="uint8"),
    _conv("int8_nchw", "dtype nchw", (1, 8, 6, 7), (3, 3, 8, 16), dtype="int8", data_format="NCHW"),
    _conv(
        "int8_epilogue",
        "dtype epilogue",
        (1, 6, 13, 12),
        (3, 3, 12, 16),
        dtype="int8",
        bias=True,
        residual=True,
        activation="relu6",
    ),
    _depthwise("depthwise_int8", "dtype", (1, 8, 9, 48), (3, 3, 48, 1), dtype="int8"),
    _depthwise(
        "depthwise_uint8", "dtype stride", (1, 9, 9, 32), (5, 5, 32, 1), dtype="uint8", strides=2
    ),
    _depthwise("depthwise_int8_channels19", "dtype", (1, 6, 7, 19), (3, 3, 19, 1), dtype="int8"),
    _depthwise("multiplier2_uint8", "dtype multiplier", (1, 6, 7, 8), (3, 3, 8, 2), dtype="uint8"),
    _depthwise(
        "depthwise_uint8_columns7",
        "dtype epilogue",
        (2, 7, 7, 24),
        (3, 3, 24, 1),
        dtype="uint8",
        bias=True,
        residual=True,
        activation="relu",
    ),
    _depthwise("depthwise_int8_4x7", "dtype kernel", (1, 6, 13, 16), (4, 7, 16, 1), dtype="int8"),
    _depthwise(
        "depthwise_uint8_dilation2x1",
        "dtype dilation",
        (1, 8, 9, 8),
        (3, 5, 8, 1),
        dtype="uint8",
        dilations=(2, 1),
    ),
    _depthwise(
        "depthwise_int8_pads",
        "dtype padding stride",
        (1, 5, 6, 8),
        (3, 3, 8, 1),
        dtype="int8",
        padding=_pads(4, 0, 1, 5),
        strides=2,
        bias=True,
    ),
    _depthwise(
        "depthwise_int8_valid", "dtype", (1, 6, 18, 8), (2, 3, 8, 1), dtype="int8", padding="VALID"
    ),
    _conv(
        "int8_to_int8",
        "dtype quantized",
        (1, 6, 7, 16),
        (3, 3, 16, 32),
        dtype="int8",
        bias=True,
        quantized="int8",
    ),
    _conv(
        "uint8_to_uint8_1x1",
        "dtype quantized",
        (1, 5, 9, 24),
        (1, 1, 24, 40),
        dtype="uint8",
        bias=True,
        quantized="uint8",
    ),
    _conv(
        "int8_to_uint8_stem",
        "dtype quantized stride",
        (2, 9, 11, 3),
        (3, 3, 3, 16),
        strides=2,
        dtype="int8",
        bias=True,
        quantized="uint8",
    ),
    _conv(
        "uint8_to_int8_groups",
        "dtype quantized groups",
        (1, 6, 7, 6),
        (3, 3, 3, 10),
        dtype="uint8",
        bias=True,
        quantized="int8",
    ),
    _conv(
        "int8_to_int8_nchw",
        "dtype quantized nchw",
        (1, 8, 6, 7),
        (3, 3, 8, 12),
        dtype="int8",
        data_format="NCHW",
        bias=True,
        quantized="int8",
    ),
    _depthwise(
        "depthwise_int8_to_int8",
        "dtype quantized",
        (1, 8, 9, 48),
        (3, 3, 48, 1),
        dtype="int8",
        bias=True,
        quantized="int8",
    ),
    _depthwise(
        "depthwise_uint8_to_uint8_stride2",
        "dtype quantized stride",
        (2, 9, 9, 19),
        (3, 3, 19, 1),
        strides=2,
        dtype="uint8",
        bias=True,
        quantized="uint8",
    ),
    _depthwise(
        "multiplier2_int8_to_uint8",
        "dtype quantized multiplier",
        (1, 6, 7, 8),
        (3, 3, 8, 2),
        dtype="int8",
        bias=True,
        quantized="uint8",
    ),
    _conv("bfloat16_1x1", "dtype", (1, 5, 9, 24), (1, 1, 24, 40), dtype="bfloat16", residual=True),
    _conv(
        "bfloat16_stem", "dtype stride", (1, 9, 11, 3), (7, 4, 3, 16), dtype="bfloat16", strides=2
    ),
    _conv("float16_1x1", "dtype", (2, 5, 9, 24), (1, 1, 24, 40), dtype="float16", bias=True),
)

# float32 that tensor cores may round to TF32; strict float32 where there are none.
_TF32 = (
    _conv(
        "tf32_epilogue",
        "dtype tf32 epilogue",
        (1, 9, 11, 24),
        (3, 3, 24, 40),
        strides=2,
        tf32=True,
        bias=True,
        residual=True,
        activation="relu",
    ),
    _conv("tf32_stem", "dtype tf32", (2, 9, 11, 3), (7, 5, 3, 20), tf32=True, padding="VALID"),
)

_ACTIVATIONS = (
    *(
        _conv(
            f"conv2d_{activation}",
            "epilogue",
            (1, 5, 6, 8),
            (3, 3, 8, 10),
            bias=True,
            activation=activation,
        )
        for activation in (*ACTIVATIONS, PRELU)
    ),
    *(
        _depthwise(
            f"depthwise_{activation}",
            "epilogue",
            (1, 5, 6, 10),
            (3, 3, 10, 1),
            bias=True,
            activation=activation,
        )
        for activation in (*ACTIVATIONS, PRELU)
    ),
)

_NARROW: Final[dict[str, Any]] = {"bias": True, "residual": True}
_NARROW_RESIDUALS = (
    _conv("residual9of12", "epilogue", (2, 5, 7, 8), (1, 1, 8, 12), residual_channels=9, **_NARROW),
    _conv(
        "residual20of80",
        "epilogue",
        (1, 5, 7, 6),
        (3, 3, 6, 80),
        strides=2,
        residual_channels=20,
        activation=PRELU,
        **_NARROW,
    ),
    _conv(
        "nchw_residual5of8",
        "nchw epilogue",
        (1, 6, 4, 5),
        (1, 1, 6, 8),
        data_format="NCHW",
        residual_channels=5,
        activation=PRELU,
        **_NARROW,
    ),
    _conv(
        "3x3_residual16of40",
        "winograd epilogue",
        (1, 10, 9, 16),
        (3, 3, 16, 40),
        residual_channels=16,
        activation=PRELU,
        **_NARROW,
    ),
    _depthwise(
        "depthwise_residual10of20",
        "epilogue",
        (1, 5, 6, 10),
        (3, 3, 10, 2),
        residual_channels=10,
        activation="relu",
        **_NARROW,
    ),
    _conv(
        "bfloat16_residual8of24",
        "dtype epilogue",
        (1, 5, 7, 16),
        (1, 1, 16, 24),
        dtype="bfloat16",
        residual_channels=8,
        activation=PRELU,
        **_NARROW,
    ),
    _conv(
        "uint8_residual8of16",
        "dtype epilogue",
        (1, 6, 9, 32),
        (1, 1, 32, 16),
        dtype="uint8",
        residual_channels=8,
        **_NARROW,
    ),
)

# 3x3 and stride 1 with whole vectors of channels: Winograd's algorithm may compute these.
_WINOGRAD = (
    _conv("3x3_whole_tiles", "winograd", (1, 8, 12, 16), (3, 3, 16, 32)),
    _conv("3x3_ragged_tiles", "winograd tile", (2, 7, 14, 16), (3, 3, 16, 24), bias=True),
    _conv("3x3_valid", "winograd padding", (1, 9, 6, 8), (3, 3, 8, 16), padding="VALID"),
    _conv("3x3_pads", "winograd padding", (1, 3, 5, 24), (3, 3, 24, 16), padding=_pads(3, 1, 0, 4)),
    _conv(
        "3x3_epilogue",
        "winograd epilogue",
        (1, 10, 9, 16),
        (3, 3, 16, 40),
        bias=True,
        residual=True,
        activation="relu6",
    ),
)

EDGE_CASES: Final[tuple[EdgeCase, ...]] = (
    *_CONV2D,
    *_DEPTHWISE,
    *_DTYPES,
    *_WORDS,
    *_TF32,
    *_ACTIVATIONS,
    *_NARROW_RESIDUALS,
    *_WINOGRAD,
)
