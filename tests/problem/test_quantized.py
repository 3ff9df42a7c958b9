"""Quantised specs: their keys, dtypes, operands and rules."""

import dataclasses

import pytest
from hypothesis import given
from strategies import quantized_specs

from tvmconv.problem import calling
from tvmconv.problem.calling import Role
from tvmconv.problem.spec import ConvSpec

SPEC = ConvSpec.conv2d((1, 6, 5, 4), (3, 3, 4, 8), dtype="uint8", bias=True, quantized="int8")


@given(quantized_specs())
def test_keys_come_back_and_begin_with_that_of_the_sums(spec):
    assert ConvSpec.from_key(spec.key) == spec
    assert spec.key.endswith(f"_bias_to_{spec.quantized}")
    assert spec.key.startswith(spec.core_key + "_")
    assert ConvSpec.from_key(spec.core_key).out_dtype == "int32"


@given(quantized_specs())
def test_operands_and_their_bytes(spec):
    signature = calling.signature(spec)

    assert [each.name for each in signature.taken] == [
        "data", "filter", "bias", "scales", "limits", "out",
    ]  # fmt: skip
    assert sum(each.bytes for each in signature.taken) == spec.bytes
    channels = (spec.out_channels,)
    forms = {each.name: (each.shape, each.dtype) for each in signature.of(Role.CONSTANT)}
    assert forms["scales"] == (channels, "float32")
    assert forms["limits"] == ((4,), "int32")
    assert forms["bias"] == (channels, "int32")


def test_dtypes():
    dtypes = SPEC.dtype, SPEC.filter_dtype, SPEC.bias_dtype, SPEC.accumulator_dtype, SPEC.out_dtype
    assert dtypes == ("uint8", "int8", "int32", "int32", "int8")


@pytest.mark.parametrize(
    "change",
    [{"bias": False}, {"residual": True}, {"activation": "relu"}, {"quantized": "int32"},
     {"dtype": "float32"}],
    ids=str,
)  # fmt: skip
def test_what_does_not_go_together_is_refused(change):
    with pytest.raises(ValueError, match=r"quantized must be|A quantised convolution has"):
        dataclasses.replace(SPEC, **change)


def test_keywords_of_users_calls():
    values = {each.name: each.name for each in calling.signature(SPEC).operands}
    keywords = calling.signature(SPEC).keywords(values, Role.CONSTANT)
    assert keywords == {"w": "filter", "bias": "bias", "scales": "scales", "limits": "limits"}
