import dataclasses
import keyword
import pickle
import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import Call, legal_calls, legal_specs

from tvmconv.checking import oracle
from tvmconv.problem.spec import ConvSpec
from tvmconv.problem.taps import seeing

KEY = "conv2d_1x56x56x64_3x3x64x64_s1x1_p1x1x1x1_d1x1_nhwc_float32_bias_relu6"
CONV = ConvSpec.conv2d((1, 56, 56, 64), (3, 3, 64, 64), bias=True, activation="relu6")
DEPTHWISE = ConvSpec.depthwise_conv2d((2, 12, 9, 6), (5, 3, 6, 4), 2, "VALID", residual=True)


def test_key_is_the_documented_one():
    assert CONV.key == KEY
    assert ConvSpec.from_key(KEY) == CONV
    everything = ConvSpec.depthwise_conv2d(
        (2, 6, 8, 9),
        (3, 3, 6, 2),
        (1, 2),
        [(0, 0), (0, 0), (0, 1), (2, 3)],
        "NCHW",
        dtype="bfloat16",
        bias=True,
        residual=True,
        activation="hard_swish",
    )
    assert everything.key == (
        "depthwise_conv2d_2x6x8x9_3x3x6x2_s1x2_p0x1x2x3_d1x1_nchw_bfloat16_bias_residual_hard_swish"
    )


@given(legal_specs())
def test_key_round_trip(spec: ConvSpec):
    assert ConvSpec.from_key(spec.key) == spec
    # So it can be a kernel's symbol, a file name and a test id.
    assert re.fullmatch("[a-z][a-z0-9_]*", spec.key)
    assert spec.key.isidentifier()
    assert not keyword.iskeyword(spec.key)
    assert spec.key.startswith(spec.op)


@given(legal_specs(), legal_specs())
def test_equal_keys_mean_equal_specs(a: ConvSpec, b: ConvSpec):
    assert (a.key == b.key) == (a == b)


@given(legal_specs(), st.data())
def test_altered_key_is_refused_or_is_another_spec(spec: ConvSpec, data):
    at = data.draw(st.integers(0, len(spec.key) - 1))
    altered = spec.key[:at] + data.draw(st.sampled_from("0123x_snd ")) + spec.key[at + 1 :]
    try:
        other = ConvSpec.from_key(altered)
    except ValueError as error:
        assert altered in str(error)  # noqa: PT017  # both outcomes are fine
    else:
        assert other.key == altered


@pytest.mark.parametrize(
    "key",
    [
        "",
        "conv2d",
        KEY.upper(),
        KEY + "\n",
        " " + KEY,
        KEY + "_bias",
        KEY.replace("_bias_relu6", "_relu6_bias"),
        KEY.replace("_bias_relu6", "_residual_bias"),
        KEY.replace("relu6", "gelu"),
        KEY.replace("1x56x56x64", "56x56x64"),
        KEY.replace("1x56x56x64", "01x56x56x64"),
        KEY.replace("1x56x56x64", "-1x56x56x64"),
        KEY.replace("1x56x56x64", "\u0661x56x56x64"),
        KEY.replace("1x56x56x64", "9" * 5000 + "x56x56x64"),
        KEY.replace("float32", "int16"),
        KEY.replace("float32", "float32_tf32"),
        KEY + "_tf32",
        "depthwise_conv2d_1x9x9x4_3x3x4x1_s1x1_p1x1x1x1_d1x1_nhwc_tf32",
        KEY.replace("conv2d", "conv3d"),
        KEY.replace("p1x1x1x1", "p1x1"),
        # Spelled right, but illegal.
        KEY.replace("3x3x64x64", "3x3x63x64"),
        KEY.replace("3x3x64x64", "0x3x64x64"),
        KEY.replace("s1x1", "s0x1"),
        KEY.replace("d1x1", "d1x0"),
        KEY.replace("d1x1", "d1x40"),
        KEY.replace("float32_bias_relu6", "int32_silu"),
        KEY.replace("nhwc_float32", "nchw_int32"),
        KEY.replace("nhwc", "nchw"),
        "depthwise_conv2d_1x9x9x4_3x3x4x1_s2x2_p2x2x2x2_d2x2_nhwc_float32",
        "depthwise_conv2d_1x9x9x4_3x3x4x1_s1x1_p1x1x1x1_d1x1_nhwc_int32",
        "depthwise_conv2d_1x1x9x9x4_3x3x4x1_s1x1_p1x1x1x1_d1x1_nhwc_float32",
    ],
)
def test_garbage_is_no_key(key):
    with pytest.raises(ValueError, match=r"OP_INPUT_FILTER_sHxW_pTOPx") as caught:
        ConvSpec.from_key(key)
    assert repr(key) in str(caught.value)


def test_same_and_equal_explicit_padding_are_one_problem():
    same = ConvSpec.conv2d((1, 8, 8, 3), (3, 3, 3, 4), 2, "SAME")
    explicit = ConvSpec.conv2d((1, 8, 8, 3), (3, 3, 3, 4), 2, [(0, 0), (0, 1), (0, 1), (0, 0)])
    assert same == explicit
    assert same.key == explicit.key
    assert hash(same) == hash(explicit)


# size, kernel, stride, dilation -> out, before, after; by hand from ceil(n / s) and the odd pixel
# of padding at the bottom right.
@pytest.mark.parametrize(
    ("size", "kernel", "stride", "dilation", "out", "before", "after"),
    [
        (224, 3, 2, 1, 112, 0, 1),
        (224, 7, 2, 1, 112, 2, 3),
        (56, 3, 1, 1, 56, 1, 1),
        (7, 2, 1, 1, 7, 0, 1),
        (9, 1, 2, 1, 5, 0, 0),
        (8, 1, 3, 1, 3, 0, 0),
        (10, 3, 1, 4, 10, 4, 4),
        (3, 7, 1, 1, 3, 3, 3),
        (5, 2, 3, 3, 2, 1, 1),
        (0, 3, 1, 1, 0, 1, 1),
        (0, 3, 2, 1, 0, 0, 1),
        (0, 1, 2, 1, 0, 0, 0),
    ],
)
def test_same_padding(size, kernel, stride, dilation, out, before, after):
    spec = ConvSpec.conv2d((1, size, 1, 2), (kernel, 1, 2, 2), (stride, 1), dilations=(dilation, 1))
    assert (spec.out_height, spec.pads[:2]) == (out, (before, after))
    turned = ConvSpec.conv2d(
        (1, 1, size, 2), (1, kernel, 2, 2), (1, stride), dilations=(1, dilation)
    )
    assert (turned.out_width, turned.pads[2:]) == (out, (before, after))


def test_conv2d_quantities():
    assert CONV.output_shape == (1, 56, 56, 64)
    assert (CONV.batch, CONV.in_height, CONV.in_width, CONV.in_channels) == (1, 56, 56, 64)
    assert (CONV.groups, CONV.multiplier, CONV.reduction_length) == (1, 1, 576)
    assert CONV.macs == 56 * 56 * 64 * 576
    assert CONV.flops == 2 * CONV.macs
    assert CONV.bytes == 4 * (56 * 56 * 64 + 9 * 64 * 64 + 56 * 56 * 64 + 64)
    assert CONV.bias_shape == (64,)


def test_grouped_nchw_quantities_with_leading_dimensions():
    spec = ConvSpec.conv2d(
        (2, 3, 6, 9, 8), (3, 2, 2, 12), (2, 1), "VALID", "NCHW", dtype="float16", residual=True
    )
    assert spec.output_shape == (2, 3, 12, 4, 7)
    assert (spec.batch, spec.in_height, spec.in_width, spec.in_channels) == (6, 9, 8, 6)
    assert (spec.groups, spec.reduction_length, spec.out_channels) == (3, 12, 12)
    out = 6 * 12 * 4 * 7
    assert spec.macs == out * 12
    assert spec.bytes == 2 * (6 * 6 * 9 * 8 + 3 * 2 * 2 * 12 + 2 * out)
    assert spec.accumulator_dtype == "float32"


def test_depthwise_quantities():
    assert DEPTHWISE.output_shape == (2, 4, 4, 24)
    assert (DEPTHWISE.kernel_height, DEPTHWISE.kernel_width) == (5, 3)
    assert (DEPTHWISE.groups, DEPTHWISE.multiplier, DEPTHWISE.reduction_length) == (6, 4, 15)
    assert DEPTHWISE.macs == 2 * 4 * 4 * 24 * 15
    assert DEPTHWISE.bytes == 4 * (2 * 12 * 9 * 6 + 15 * 24 + 2 * (2 * 4 * 4 * 24))


@pytest.mark.parametrize(
    ("dtype", "accumulator", "size"),
    [
        ("float16", "float32", 2),
        ("bfloat16", "float32", 2),
        ("float32", "float32", 4),
        ("float64", "float64", 8),
        ("int32", "int32", 4),
    ],
)
def test_accumulator_and_bytes_of_dtypes(dtype, accumulator, size):
    spec = ConvSpec.conv2d((1, 2, 2, 1), (1, 1, 1, 1), dtype=dtype)
    assert spec.accumulator_dtype == accumulator
    assert spec.bytes == size * (4 + 1 + 4)


@pytest.mark.parametrize(
    ("input_shape", "empty"), [((0, 5, 5, 2), True), ((1, 0, 5, 2), True), ((1, 5, 5, 2), False)]
)
def test_is_empty(input_shape, empty):
    spec = ConvSpec.conv2d(input_shape, (3, 3, 2, 2))
    assert spec.is_empty is empty
    assert (spec.macs == 0) is empty


def test_padding_alone_makes_output():
    spec = ConvSpec.conv2d((1, 0, 4, 2), (3, 1, 2, 3), 1, [(0, 0), (2, 2), (0, 0), (0, 0)])
    assert spec.output_shape == (1, 2, 4, 3)
    assert not spec.is_empty


@given(legal_calls())
def test_same_gives_ceil_and_others_the_window_formula(call: Call):
    spec = call.spec()
    for axis, out in enumerate((spec.out_height, spec.out_width)):
        size, stride = call.size[axis], call.strides[axis]
        extent = (call.filter_shape[axis] - 1) * call.dilations[axis] + 1
        if call.padding == "SAME":
            assert out == -(-size // stride)
        else:
            pads = 0 if isinstance(call.padding, str) else sum(call.padding[axis])
            # As many windows as start within the padded input and end within it.
            assert out == sum(
                start + extent <= size + pads for start in range(0, size + pads, stride)
            )


@pytest.mark.parametrize(
    ("field", "value", "error", "names"),
    [
        ("op", "conv3d", ValueError, "op='conv3d'"),
        ("input_shape", [1, 56, 56, 64], TypeError, "input_shape"),
        ("input_shape", (1, 56, 56, 64.0), TypeError, "input_shape"),
        ("input_shape", (1, 56, 56, True), TypeError, "input_shape"),
        ("input_shape", (-1, 56, 56, 64), ValueError, "input_shape"),
        ("input_shape", (10**18, 56, 56, 64), ValueError, "input_shape"),
        ("input_shape", (56, 56, 64), ValueError, "rank"),
        ("filter_shape", (3, 3, 64), TypeError, "filter_shape"),
        ("filter_shape", (3, 3, 48, 64), ValueError, "filter"),
        ("strides", (1, 1, 1, 1), TypeError, "strides"),
        ("strides", 1, TypeError, "strides"),
        ("strides", (0, 1), ValueError, "strides"),
        ("pads", "SAME", TypeError, "pads"),
        ("pads", (1, 1, 1, -1), ValueError, "pads"),
        ("dilations", (1, 0), ValueError, "dilations"),
        ("dilations", (40, 1), ValueError, "dilation 40"),
        ("data_format", "nhwc", ValueError, "data_format"),
        ("data_format", None, ValueError, "data_format"),
        ("dtype", "float8", TypeError, "dtype.*'float8'"),
        ("bias", 1, TypeError, "bias"),
        ("residual", None, TypeError, "residual"),
        ("activation", "gelu", ValueError, "activation='gelu'"),
        ("activation", ["relu"], ValueError, "activation"),
        ("tf32", 1, TypeError, "tf32"),
    ],
)
def test_direct_construction_is_validated(field, value, error, names):
    with pytest.raises(error, match=names):
        dataclasses.replace(CONV, **{field: value})


@pytest.mark.parametrize("activation", ["hard_swish", "silu", "sigmoid", "hard_sigmoid"])
def test_int32_has_no_fractional_activation(activation):
    with pytest.raises(ValueError, match=f"int32.*activation='{activation}'"):
        ConvSpec.conv2d((1, 2, 2, 1), (1, 1, 1, 1), dtype="int32", activation=activation)


def test_tf32_is_spelled_in_the_dtypes_place():
    allowed = dataclasses.replace(CONV, tf32=True)
    assert allowed.key == KEY.replace("float32", "tf32")
    assert ConvSpec.from_key(allowed.key) == allowed
    assert (allowed.precision, allowed.dtype, CONV.precision) == ("tf32", "float32", "float32")
    assert allowed.core_key == CONV.core_key.replace("float32", "tf32")
    # Records are found by what keys begin with.
    assert not allowed.key.startswith(CONV.core_key)
    assert allowed.strict == CONV
    assert CONV.strict is CONV
    assert allowed.bytes == CONV.bytes


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "int32", "int8", "uint8"])
def test_tf32_is_of_float32_only(dtype):
    with pytest.raises(ValueError, match=f"tf32.*conv2d of {dtype}"):
        ConvSpec.conv2d((1, 2, 2, 1), (1, 1, 1, 1), dtype=dtype, tf32=True)


def test_depthwise_has_no_tf32():
    with pytest.raises(ValueError, match=r"tf32.*depthwise_conv2d of float32"):
        dataclasses.replace(DEPTHWISE, tf32=True)
    with pytest.raises(TypeError, match="tf32"):
        ConvSpec.depthwise_conv2d((1, 2, 2, 1), (1, 1, 1, 1), tf32=True)


def test_window_of_empty_input_fits_only_as_same():
    same = ConvSpec.conv2d((1, 0, 6, 4), (3, 3, 4, 4))
    assert same.pads[:2] == (1, 1)
    for pads in ((0, 0, 1, 1), (2, 0, 1, 1)):
        with pytest.raises(ValueError, match="subtracting 3"):
            dataclasses.replace(same, pads=pads)


def test_specs_are_values():
    assert {CONV: 1}[ConvSpec.from_key(KEY)] == 1
    assert pickle.loads(pickle.dumps(CONV)) == CONV  # noqa: S301  # our own bytes
    with pytest.raises(dataclasses.FrozenInstanceError):
        CONV.bias = False  # type: ignore[misc]


@settings(max_examples=25)
@given(legal_calls(dtypes=("float32",)))
def test_positional_order_is_that_of_the_contract(call: Call):
    spec = call.spec()  # positional
    make = ConvSpec.conv2d if call.op == "conv2d" else ConvSpec.depthwise_conv2d
    permission = {"tf32": spec.tf32} if call.op == "conv2d" else {}
    assert spec == make(
        input_shape=spec.input_shape,
        filter_shape=spec.filter_shape,
        strides=spec.strides,
        padding=call.padding_argument(call.data_format),
        data_format=spec.data_format,
        dilations=spec.dilations,
        dtype="float32",
        bias=spec.bias,
        activation=spec.activation,
        residual=spec.residual,
        residual_channels=spec.residual_channels,
        **permission,
    )


def test_spec_imports_the_standard_library_alone():
    program = (
        "import sys, tvmconv.problem.workloads\n"
        "print([name for name in ('numpy', 'tvm', 'tvm_ffi') if name in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "[]\n"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"residual_channels": 4}, "residual_channels=4 with residual=False"),
        ({"residual": True, "residual_channels": 8}, "at least 1 and below 8"),
        ({"residual": True, "residual_channels": 0}, "at least 1 and below 8"),
    ],
)
def test_a_narrow_residual_has_fewer_channels(options, error):
    with pytest.raises(ValueError, match=error):
        ConvSpec.conv2d((1, 4, 4, 4), (1, 1, 4, 8), **options)


def test_keys_spell_narrow_residuals_and_slopes():
    spec = ConvSpec.conv2d(
        (1, 4, 4, 4), (1, 1, 4, 8), residual=True, residual_channels=5, activation="prelu"
    )
    assert spec.key.endswith("_float32_residual5_prelu")
    assert ConvSpec.from_key(spec.key) == spec
    assert spec.core_key == ConvSpec.conv2d((1, 4, 4, 4), (1, 1, 4, 8)).key
    assert (spec.residual_shape, spec.slopes_shape) == ((1, 4, 4, 5), (8,))


@given(legal_specs())
def test_needed_macs_are_those_that_see_the_image(spec: ConvSpec):
    """A filter of ones on an image of ones counts the taps that lie inside."""
    image = dataclasses.replace(spec.core, dtype="float32", tf32=False, quantized=None)
    ones = np.ones(image.input_shape, "float32"), np.ones(image.filter_shape, "float32")

    assert image.needed_macs == oracle.conv(image, *ones).sum()
    assert image.needed_macs <= image.macs


@given(legal_specs(), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_taps_that_see_only_padding_may_be_left_out(spec: ConvSpec, dilation: int, seed: int):
    spec = dataclasses.replace(spec.core, dtype="float64", tf32=False, quantized=None)
    if spec.strides == (1, 1):
        pads = ((k - 1) * dilation for k in (spec.kernel_height, spec.kernel_width))
        (top, left), (bottom, right) = zip(*((p // 2, p - p // 2) for p in pads), strict=True)
        spec = dataclasses.replace(
            spec, dilations=(dilation, dilation), pads=(top, bottom, left, right)
        )
    random = np.random.default_rng(seed)
    data = random.standard_normal(spec.input_shape)
    window = random.standard_normal(spec.filter_shape)

    smaller, taps = seeing(spec)

    assert smaller.filter_shape == window[taps].shape
    np.testing.assert_array_equal(
        oracle.conv(smaller, data, window[taps]), oracle.conv(spec, data, window)
    )
    assert smaller.needed_macs == spec.needed_macs
