"""A conv2d of one channel a group is the depthwise convolution that it is, and computed as one."""

from __future__ import annotations

import pytest

from tvmconv import hardware
from tvmconv.compute.depthwise_conv2d import as_depthwise
from tvmconv.problem.spec import ConvSpec


@pytest.mark.parametrize("name", ["sapphirerapids", "x86-64-v3", "cortex-a72"])
@pytest.mark.parametrize("multiplier", [1, 2])
def test_many_groups_of_one_channel_have_the_decisions_of_a_depthwise_convolution(name, multiplier):
    machine, pack = hardware.find_machine(name)
    grouped = ConvSpec.conv2d((2, 3, 56, 56, 96), (3, 3, 1, 96 * multiplier), bias=True)
    depthwise = ConvSpec.depthwise_conv2d((6, 56, 56, 96), (3, 3, 96, multiplier), bias=True)

    chosen = hardware.schedules_for(grouped, machine, pack)[0]

    assert as_depthwise(grouped) == depthwise
    assert chosen == hardware.schedules_for(depthwise, machine, pack)[0]
    assert chosen.default(grouped, machine) == chosen.default(depthwise, machine)


@pytest.mark.parametrize("name", ["sapphirerapids", "x86-64-v3", "cortex-a72"])
def test_two_groups_of_one_channel_to_64_are_dense(name):
    machine, pack = hardware.find_machine(name)
    spec = ConvSpec.conv2d((1, 9, 9, 2), (3, 3, 1, 64))

    chosen = hardware.schedules_for(spec, machine, pack)[0]

    assert ".conv2d." in chosen.name


@pytest.mark.parametrize(
    "spec",
    [
        ConvSpec.conv2d((1, 9, 9, 8), (3, 3, 2, 8)),
        ConvSpec.conv2d((1, 9, 9, 1), (3, 3, 1, 8)),
        ConvSpec.conv2d((1, 9, 9, 8), (3, 3, 1, 8), dtype="int32"),
        ConvSpec.conv2d((1, 9, 9, 8), (3, 3, 1, 8), strides=2, dilations=2),
    ],
    ids=lambda spec: spec.key,
)
def test_what_is_no_depthwise_convolution(spec):
    assert as_depthwise(spec) is None
