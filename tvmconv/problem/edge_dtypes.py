"""Edge cases of dtype: each with each kind of layer, what fills words of four bytes, and TF32."""

from __future__ import annotations

from typing import Final

from tvmconv.problem.edge_rows import EdgeCase, conv, depthwise, pads
from tvmconv.problem.rules import FLOAT_DTYPES, INTEGER_ACTIVATIONS

DTYPES: Final[tuple[EdgeCase, ...]] = (
    *(
        conv(f"conv2d_{dtype}", "dtype", (1, 5, 7, 18), (3, 3, 18, 20), dtype=dtype, bias=True)
        for dtype in FLOAT_DTYPES
    ),
    *(
        depthwise(
            f"depthwise_{dtype}",
            "dtype",
            (1, 6, 7, 19),
            (3, 3, 19, 1),
            dtype=dtype,
            activation="relu6",
        )
        for dtype in FLOAT_DTYPES
    ),
    conv("int32", "dtype", (1, 5, 6, 4), (3, 3, 4, 7), dtype="int32"),
    conv("int32_groups", "dtype groups", (2, 5, 6, 4), (2, 3, 2, 6), dtype="int32", strides=2),
    *(
        conv(
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
WORDS: Final[tuple[EdgeCase, ...]] = (
    conv("int8", "dtype", (1, 7, 9, 16), (3, 3, 16, 32), dtype="int8"),
    conv("uint8", "dtype", (1, 7, 9, 16), (3, 3, 16, 24), dtype="uint8", padding="VALID"),
    conv("int8_1x1", "dtype", (2, 5, 7, 24), (1, 1, 24, 40), dtype="int8", bias=True),
    conv("uint8_1x1", "dtype", (1, 6, 9, 32), (1, 1, 32, 16), dtype="uint8", activation="relu"),
    conv("int8_stem", "dtype stride", (1, 13, 15, 3), (3, 3, 3, 16), dtype="int8", strides=2),
    conv("uint8_stem", "dtype stride", (2, 9, 11, 3), (7, 7, 3, 20), dtype="uint8", strides=2),
    conv("uint8_channels7", "dtype", (1, 6, 5, 7), (2, 3, 7, 9), dtype="uint8"),
    conv("int8_dilation", "dtype dilation", (1, 9, 8, 8), (3, 3, 8, 12), dtype="int8", dilations=2),
    conv(
        "int8_channels5_dilation",
        "dtype dilation",
        (1, 9, 8, 5),
        (3, 3, 5, 12),
        dtype="int8",
        dilations=2,
    ),
    conv("int8_groups", "dtype groups", (1, 6, 7, 16), (3, 3, 4, 32), dtype="int8"),
    conv("int8_groups_of_8", "dtype groups", (1, 6, 7, 16), (3, 3, 8, 16), dtype="int8", bias=True),
    conv("uint8_stride2", "dtype stride", (2, 9, 13, 16), (3, 3, 16, 8), dtype="uint8", strides=2),
    conv("uint8_groups_of_3", "dtype groups", (1, 6, 7, 6), (3, 3, 3, 8), dtype="uint8"),
    conv("int8_nchw", "dtype nchw", (1, 8, 6, 7), (3, 3, 8, 16), dtype="int8", data_format="NCHW"),
    conv(
        "int8_epilogue",
        "dtype epilogue",
        (1, 6, 13, 12),
        (3, 3, 12, 16),
        dtype="int8",
        bias=True,
        residual=True,
        activation="relu6",
    ),
    depthwise("depthwise_int8", "dtype", (1, 8, 9, 48), (3, 3, 48, 1), dtype="int8"),
    depthwise(
        "depthwise_uint8", "dtype stride", (1, 9, 9, 32), (5, 5, 32, 1), dtype="uint8", strides=2
    ),
    depthwise("depthwise_int8_channels19", "dtype", (1, 6, 7, 19), (3, 3, 19, 1), dtype="int8"),
    depthwise("multiplier2_uint8", "dtype multiplier", (1, 6, 7, 8), (3, 3, 8, 2), dtype="uint8"),
    depthwise(
        "depthwise_uint8_columns7",
        "dtype epilogue",
        (2, 7, 7, 24),
        (3, 3, 24, 1),
        dtype="uint8",
        bias=True,
        residual=True,
        activation="relu",
    ),
    depthwise("depthwise_int8_4x7", "dtype kernel", (1, 6, 13, 16), (4, 7, 16, 1), dtype="int8"),
    depthwise(
        "depthwise_uint8_dilation2x1",
        "dtype dilation",
        (1, 8, 9, 8),
        (3, 5, 8, 1),
        dtype="uint8",
        dilations=(2, 1),
    ),
    depthwise(
        "depthwise_int8_pads",
        "dtype padding stride",
        (1, 5, 6, 8),
        (3, 3, 8, 1),
        dtype="int8",
        padding=pads(4, 0, 1, 5),
        strides=2,
        bias=True,
    ),
    depthwise(
        "depthwise_int8_valid", "dtype", (1, 6, 18, 8), (2, 3, 8, 1), dtype="int8", padding="VALID"
    ),
    conv(
        "int8_to_int8",
        "dtype quantized",
        (1, 6, 7, 16),
        (3, 3, 16, 32),
        dtype="int8",
        bias=True,
        quantized="int8",
    ),
    conv(
        "uint8_to_uint8_1x1",
        "dtype quantized",
        (1, 5, 9, 24),
        (1, 1, 24, 40),
        dtype="uint8",
        bias=True,
        quantized="uint8",
    ),
    conv(
        "int8_to_uint8_stem",
        "dtype quantized stride",
        (2, 9, 11, 3),
        (3, 3, 3, 16),
        strides=2,
        dtype="int8",
        bias=True,
        quantized="uint8",
    ),
    conv(
        "uint8_to_int8_groups",
        "dtype quantized groups",
        (1, 6, 7, 6),
        (3, 3, 3, 10),
        dtype="uint8",
        bias=True,
        quantized="int8",
    ),
    conv(
        "int8_to_int8_nchw",
        "dtype quantized nchw",
        (1, 8, 6, 7),
        (3, 3, 8, 12),
        dtype="int8",
        data_format="NCHW",
        bias=True,
        quantized="int8",
    ),
    depthwise(
        "depthwise_int8_to_int8",
        "dtype quantized",
        (1, 8, 9, 48),
        (3, 3, 48, 1),
        dtype="int8",
        bias=True,
        quantized="int8",
    ),
    depthwise(
        "depthwise_uint8_to_uint8_stride2",
        "dtype quantized stride",
        (2, 9, 9, 19),
        (3, 3, 19, 1),
        strides=2,
        dtype="uint8",
        bias=True,
        quantized="uint8",
    ),
    depthwise(
        "multiplier2_int8_to_uint8",
        "dtype quantized multiplier",
        (1, 6, 7, 8),
        (3, 3, 8, 2),
        dtype="int8",
        bias=True,
        quantized="uint8",
    ),
    conv("bfloat16_1x1", "dtype", (1, 5, 9, 24), (1, 1, 24, 40), dtype="bfloat16", residual=True),
    conv(
        "bfloat16_stem", "dtype stride", (1, 9, 11, 3), (7, 4, 3, 16), dtype="bfloat16", strides=2
    ),
    conv("float16_1x1", "dtype", (2, 5, 9, 24), (1, 1, 24, 40), dtype="float16", bias=True),
)

# float32 that tensor cores may round to TF32; strict float32 where there are none.
TF32: Final[tuple[EdgeCase, ...]] = (
    conv(
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
    conv("tf32_stem", "dtype tf32", (2, 9, 11, 3), (7, 5, 3, 20), tf32=True, padding="VALID"),
)
