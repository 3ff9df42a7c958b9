"""Bytes on ARM: values at their extremes in an emulated core, and the instructions that compute them."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tvmconv import hardware
from tvmconv.checking import contract, oracle
from tvmconv.measuring.simulate import kernel
from tvmconv.problem.spec import ConvSpec

# Without dot products, and with.
MACHINES = ("cortex-a72", "cortex-a76")
DENSE = ConvSpec.conv2d((1, 6, 7, 64), (3, 3, 64, 24), dtype="int8", bias=True)
UNSIGNED = ConvSpec.conv2d((1, 6, 7, 64), (3, 3, 64, 24), dtype="uint8", residual=True)
STEM = ConvSpec.conv2d((1, 9, 9, 3), (5, 5, 3, 16), strides=2, dtype="uint8")
DEPTHWISE = ConvSpec.depthwise_conv2d((1, 7, 8, 32), (3, 3, 32, 1), dtype="int8", bias=True)
UNSIGNED_DEPTHWISE = ConvSpec.depthwise_conv2d((1, 7, 8, 32), (5, 5, 32, 1), dtype="uint8")
EXTREMES = (DENSE, UNSIGNED, STEM, DEPTHWISE, UNSIGNED_DEPTHWISE)


def case_of(spec, name):
    machine, pack = hardware.find_machine(name)
    return contract.Case(machine, hardware.schedules_for(spec, machine, pack)[0], spec)


def applied(case):
    return case.schedule.apply(case.spec, case.machine, case.default())


def instructions(spec, name):
    return set(
        re.findall(r"^\t([a-z0-9]+)\t", contract.assembly(case_of(spec, name)), re.MULTILINE)
    )


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("spec", EXTREMES, ids=lambda spec: spec.key)
@pytest.mark.parametrize("weight", [-128, 127])
@pytest.mark.parametrize("value", ["lowest", "highest"])
def test_sums_of_the_largest_products_do_not_saturate(name, spec, weight, value):
    pytest.importorskip("unicorn", reason="pip install 'tvmconv[simulate]'")
    case, limits = case_of(spec, name), np.iinfo(spec.dtype)
    arguments = oracle.random_arguments(spec, seed=1, wrap=True)
    arguments["data"][...] = limits.min if value == "lowest" else limits.max
    arguments["filter"][...] = weight

    _, out = kernel.simulate(applied(case), case.machine, spec, arguments)

    np.testing.assert_array_equal(out, oracle.conv(spec, **arguments))


@pytest.mark.parametrize(
    ("spec", "name", "instruction"),
    [
        (DENSE, "cortex-a53", "smlal2"),
        (UNSIGNED, "cortex-a72", "smlal2"),
        (DENSE, "cortex-a55", "sdot"),
        (UNSIGNED, "cortex-a76", "sdot"),
        (STEM, "neoverse-n1", "sdot"),
        (DEPTHWISE, "cortex-a72", "smlal2"),
        (DEPTHWISE, "cortex-a76", "sdot"),
        (UNSIGNED_DEPTHWISE, "neoverse-v1", "usdot"),
        (STEM, "neoverse-v1", "usdot"),
        (DENSE, "neoverse-v1", "smmla"),
        (UNSIGNED, "neoverse-v1", "usmmla"),
    ],
)
def test_bytes_are_multiplied_by_the_instruction_for_it(spec, name, instruction):
    found = instructions(spec, name)

    assert instruction in found
    assert "mla" not in found


@pytest.mark.parametrize("spec", [DENSE, UNSIGNED], ids=lambda spec: spec.key)
@pytest.mark.parametrize("name", ["cortex-a76", "neoverse-v1"])
def test_dense_dot_products_take_words_from_their_lanes(spec, name):
    machine, pack = hardware.find_machine(name)
    schedule = hardware.find_schedule("arm.conv2d.dot", pack)
    assembly = contract.assembly(contract.Case(machine, schedule, spec))

    assert re.search(r"\t(s|us|su)dot\tv\d+\.4s, v\d+\.16b, v\d+\.4b\[3\]", assembly)


@pytest.mark.parametrize("name", ["cortex-a76", "neoverse-v1"])
@pytest.mark.parametrize("spec", EXTREMES, ids=lambda spec: spec.key)
def test_the_loops_are_right_on_a_host_that_lacks_the_instruction(name, spec):
    case = case_of(spec, name)
    machine = contract.rehearsal(case.machine)
    contract.check_values(contract.Case(machine, case.schedule, spec), case.default())


# Multiply-adds for an instruction: 16 is a kernel of nothing but sdot, 4 one of nothing but smlal or fmla.
LAYERS = {
    "1x1": (ConvSpec.conv2d((1, 28, 28, 128), (1, 1, 128, 64), dtype="int8"), 3.4, 12.0),
    "3x3": (ConvSpec.conv2d((1, 28, 28, 32), (3, 3, 32, 32), dtype="uint8"), 3.4, 12.0),
    "depthwise": (ConvSpec.depthwise_conv2d((1, 28, 28, 192), (3, 3, 192, 1), dtype="int8"), 2.8, 4.3),
    "stride 2": (
        ConvSpec.depthwise_conv2d((1, 28, 28, 192), (3, 3, 192, 1), strides=2, dtype="int8"), 2.1, 2.8,
    ),
    "5x5": (ConvSpec.depthwise_conv2d((1, 14, 14, 96), (5, 5, 96, 1), dtype="int8"), 2.6, 3.4),
}  # fmt: skip


@pytest.mark.parametrize("layer", LAYERS)
def test_multiply_adds_for_an_instruction(layer):
    pytest.importorskip("unicorn", reason="pip install 'tvmconv[simulate]'")
    spec, *least = LAYERS[layer]
    for name, bound in zip(MACHINES, least, strict=True):
        case, arguments = case_of(spec, name), oracle.random_arguments(spec, seed=0)
        counts, _ = kernel.simulate(applied(case), case.machine, spec, arguments)

        assert spec.macs / counts.instructions >= bound
