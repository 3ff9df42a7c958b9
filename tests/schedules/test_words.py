"""Bytes and bfloat16: values at their extremes, the instructions that compute them, and their dtypes."""

from __future__ import annotations

import re

import numpy as np
import pytest

import tvmconv
from tvmconv import hardware
from tvmconv.checking import contract, oracle
from tvmconv.problem.spec import ConvSpec

# Every way to multiply words on x86, by a machine that goes it.
MACHINES = ("sapphirerapids", "alderlake", "x86-64-v4", "x86-64-v3", "x86-64-v2")
EXTREMES = (
    ConvSpec.conv2d((1, 6, 7, 64), (3, 3, 64, 24), dtype="int8", bias=True),
    ConvSpec.conv2d((1, 6, 7, 64), (3, 3, 64, 24), dtype="uint8", residual=True),
    ConvSpec.conv2d((1, 9, 9, 3), (5, 5, 3, 16), strides=2, dtype="int8"),
    ConvSpec.depthwise_conv2d((1, 7, 8, 32), (3, 3, 32, 1), dtype="int8", bias=True),
    ConvSpec.depthwise_conv2d((1, 7, 8, 32), (3, 3, 32, 1), dtype="uint8"),
)


def case_of(spec, name):
    machine, pack = hardware.find_machine(name)
    return contract.Case(machine, hardware.schedules_for(spec, machine, pack)[0], spec)


def instructions(spec, name):
    assembly = contract.assembly(case_of(spec, name))
    return set(re.findall(r"^\t(?:{vex}\t)?([a-z0-9]+)\t", assembly, re.MULTILINE))


@pytest.fixture(scope="module", params=MACHINES)
def library(request, tmp_path_factory):
    machine, _ = hardware.find_machine(request.param)
    if contract.lacking(machine):
        pytest.skip(f"this host lacks {', '.join(contract.lacking(machine))}")
    output = tmp_path_factory.mktemp("words") / "words.tvmconv"
    return tvmconv.load(tvmconv.build(EXTREMES, machine=request.param, output=output, logs=[]))


@pytest.mark.parametrize("spec", EXTREMES, ids=lambda spec: spec.key)
@pytest.mark.parametrize("weight", [-128, 127])
@pytest.mark.parametrize("value", ["lowest", "highest"])
def test_sums_of_the_largest_products_do_not_saturate(library, spec, weight, value):
    limits = np.iinfo(spec.dtype)
    extreme = limits.min if value == "lowest" else limits.max
    arguments = oracle.random_arguments(spec, seed=1, wrap=True)
    arguments["data"][...] = extreme
    arguments["filter"][...] = weight

    out = library[spec.key](
        arguments["data"],
        arguments["filter"],
        arguments.get("bias"),
        arguments.get("residual"),
    )

    assert out.dtype == np.int32
    np.testing.assert_array_equal(out, oracle.conv(spec, **arguments))


@pytest.mark.parametrize(
    ("machine", "instruction"),
    [
        ("sapphirerapids", "tdpbssd"),
        ("icelake-server", "vpdpbusd"),
        ("znver4", "vpdpbusd"),
        ("alderlake", "vpdpbusd"),
        ("skylake-avx512", "vpmaddwd"),
        ("haswell", "vpmaddwd"),
        ("x86-64-v2", "pmaddwd"),
    ],
)
def test_bytes_are_multiplied_by_the_instruction_for_it(machine, instruction):
    found = instructions(EXTREMES[0], machine)

    assert instruction in found
    assert not found & {"vpmulld", "pmulld", "vpmullw"}


@pytest.mark.parametrize("machine", ["sapphirerapids", "haswell", "x86-64-v2"])
def test_depthwise_bytes_are_multiplied_in_16_bits(machine):
    found = instructions(EXTREMES[3], machine)

    assert found & {"vpmaddwd", "pmaddwd", "vpdpwssd"}
    assert not found & {"vpmulld", "pmulld"}


def test_bfloat16_takes_the_faster_instruction_of_each_machine():
    spec = ConvSpec.conv2d((1, 6, 7, 64), (3, 3, 64, 32), dtype="bfloat16")

    assert "vdpbf16ps" in instructions(spec, "znver4")
    assert "tdpbf16ps" in instructions(spec, "sapphirerapids")
    assert "vfmadd231ps" in instructions(spec, "icelake-server")


def test_short_sums_are_not_worth_a_matrix_tile():
    spec = ConvSpec.conv2d((1, 56, 56, 64), (1, 1, 64, 64), dtype="uint8")

    assert "vpdpbusd" in instructions(spec, "sapphirerapids")
    assert "tdpbusd" not in instructions(spec, "sapphirerapids")


def test_a_word_of_bfloat16_is_right_where_the_machine_has_the_instruction():
    spec = ConvSpec.conv2d((1, 6, 7, 18), (3, 3, 18, 32), dtype="bfloat16", bias=True)
    machine, pack = hardware.find_machine("sapphirerapids")
    if contract.lacking(machine):
        pytest.skip(f"this host lacks {', '.join(contract.lacking(machine))}")
    contract.check_values(
        contract.Case(machine, hardware.find_schedule("x86.conv2d.dot", pack), spec)
    )


@pytest.mark.parametrize("name", ["sapphirerapids", "alderlake", "x86-64-v3"])
@pytest.mark.parametrize("spec", EXTREMES, ids=lambda spec: spec.key)
def test_the_loops_are_right_on_a_host_that_lacks_the_instruction(name, spec):
    case = case_of(spec, name)
    machine = contract.rehearsal(case.machine)
    contract.check_values(contract.Case(machine, case.schedule, spec), case.default())


def test_the_filter_of_bytes_is_int8_and_what_is_added_is_int32():
    spec = ConvSpec.conv2d((1, 4, 4, 8), (1, 1, 8, 8), dtype="uint8", bias=True)

    assert (spec.dtype, spec.filter_dtype, spec.out_dtype) == ("uint8", "int8", "int32")
    assert spec.bytes == 4 * 4 * 8 + 8 * 8 + 4 * (8 + 4 * 4 * 8)
    with pytest.raises(
        ValueError, match="activation of a uint8 conv2d must be None or one of relu"
    ):
        ConvSpec.conv2d((1, 4, 4, 8), (1, 1, 8, 8), dtype="uint8", activation="silu")


def test_wrong_dtypes_are_refused_by_name(library):
    kernel = library[EXTREMES[1].key]
    data = np.ones(EXTREMES[1].input_shape, np.uint8)
    filter_ = np.ones(EXTREMES[1].filter_shape, np.int8)
    residual = np.ones(EXTREMES[1].output_shape, np.int32)

    with pytest.raises(TypeError, match=r"^w of .* dtype int8, dtype uint8 was given"):
        kernel(data, filter_.astype(np.uint8), residual=residual)
    with pytest.raises(TypeError, match=r"^x of .* dtype uint8, dtype int8 was given"):
        kernel(data.astype(np.int8), filter_, residual=residual)
    with pytest.raises(TypeError, match=r"^residual of .* dtype int32, dtype uint8 was given"):
        kernel(data, filter_, residual=residual.astype(np.uint8))
    with pytest.raises(TypeError, match=r"^out of .* dtype int32, dtype uint8 was given"):
        kernel(data, filter_, residual=residual, out=residual.astype(np.uint8))
