"""What a quantised convolution computes: bytes in, bytes out.

A byte q of a tensor with scale s and zero point z stands for the number s * (q - z). A convolution of data
(s_x, z_x) by an int8 filter of scale s_k for output channel k (its zero point is 0), with an int32 bias of
scale s_x * s_k, into an output (s_y, z_y) that is clamped to the bytes [low, high] is

    sum = bias[k] + sum of (data - z_x) * filter             int32, wraps; outside the image data is z_x
    out = clamp(round(float32(sum) * scales[k]) + z_y)       scales[k] = s_x * s_k / s_y, float32

relu and relu6 are clamps. This is LiteRT's 8-bit quantisation specification
(ai.google.dev/edge/litert/models/quantization_spec) but for the scaling, where that leaves room: LiteRT's
reference kernels multiply by a fixed-point number of 31 bits and round halves up, up to one unit of the
output away; XNNPACK, by which LiteRT computes such models unless it is told otherwise, converts the sum to
float32 and rounds to nearest, halves to even. We compute what XNNPACK does, bit for bit.

A kernel takes two more arrays for it, and a bias into which z_x is folded already, so that it sums up bytes
as they are: bias[k] - z_x * (sum of the filter of channel k). `runtime.quantization` makes all three.

    scales    float32, one an output channel: of a filter with one scale all are the same
    limits    int32: z_x, z_y, low, high

Only dtypes are part of the problem's key. Scales, zero points and clamp are read when the kernel runs: each
layer of a network has its own, while many share a shape; so a network needs, and tuning measures, no kernel
more than for int32 sums. It costs a vector of scales beside each vector of bias, and four numbers that stay
in registers: the border of the image is written from one of those in place of a constant.
"""

from __future__ import annotations

from typing import Final

SCALES, LIMITS = "scales", "limits"  # names of the operands
SCALES_DTYPE, LIMITS_DTYPE = "float32", "int32"
# What stands where in limits.
INPUT_ZERO_POINT, ZERO_POINT, LOW, HIGH = range(4)
LIMITS_SHAPE: Final = (4,)
