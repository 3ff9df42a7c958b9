"""Few output channels: vectors run over input channels or columns where that is faster by arithmetic."""

from __future__ import annotations

import math

import pytest

from tvmconv import hardware
from tvmconv.problem.spec import ConvSpec

MACHINES = ["sapphirerapids", "znver5", "x86-64-v3", "cortex-a72"]


def chosen(name: str, channels: int, out: int, kernel: int = 3, **options: object) -> str:
    machine, pack = hardware.find_machine(name)
    spec = ConvSpec.conv2d((1, 64, 64, channels), (kernel, kernel, channels, out), **options)
    return hardware.schedules_for(spec, machine, pack)[0].name.rpartition(".")[2]


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize(
    ("kernel", "out"), [(1, 1), (1, 2), (3, 1), (3, 2), (3, 3), (9, 1), (9, 2), (9, 3)]
)
def test_up_to_three_channels_of_64_use_the_inputs_as_lanes(name, kernel, out):
    assert chosen(name, 64, out, kernel) == "inputs"


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize(("channels", "out"), [(64, 64), (64, 32), (3, 3), (7, 2), (64, 40)])
def test_whole_vectors_of_outputs_and_ragged_inputs_do_not(name, channels, out):
    assert chosen(name, channels, out) != "inputs"


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize(("channels", "out", "kernel"), [(1, 1, 5), (3, 1, 5), (3, 3, 9)])
def test_few_channels_to_few_in_a_wide_window_use_columns_as_lanes(name, channels, out, kernel):
    assert chosen(name, channels, out, kernel) == "columns"


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize(
    ("channels", "out", "kernel"), [(3, 32, 3), (16, 16, 3), (64, 3, 3), (3, 64, 7), (1, 1, 1)]
)
def test_columns_are_not_the_lanes_of_stems_and_many_inputs(name, channels, out, kernel):
    assert chosen(name, channels, out, kernel) != "columns"


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("options", [{"dtype": "float16"}, {"data_format": "NCHW"}])
def test_only_float32_with_channels_last(name, options):
    machine, pack = hardware.find_machine(name)
    shape = (1, 64, 9, 9) if "data_format" in options else (1, 9, 9, 64)
    spec = ConvSpec.conv2d(shape, (3, 3, 64, 3), **options)
    (inputs,) = (each for each in pack.schedules if each.name.endswith(".inputs"))

    assert not inputs.accepts(spec, machine)


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("out", range(1, 9))
def test_a_tile_leaves_registers_to_data_and_weights(name, out):
    machine, pack = hardware.find_machine(name)
    (inputs,) = (each for each in pack.schedules if each.name.endswith(".inputs"))
    spec = ConvSpec.conv2d((1, 64, 64, 64), (3, 3, 64, out))

    tile = inputs.default(spec, machine)

    sums = math.prod((int(tile["channels"]), int(tile["pixels"])))
    assert (
        machine.cpu.fma_latency * machine.cpu.fma_ports
        <= sums
        <= 5 * machine.cpu.vector_registers / 8
    )


def test_the_weights_of_a_single_row_are_one_stream_without_requests():
    machine, pack = hardware.find_machine("sapphirerapids")
    direct = hardware.find_schedule("x86.conv2d.direct", pack)
    row = ConvSpec.conv2d((1, 1, 1, 25088), (1, 1, 25088, 1024))
    image = ConvSpec.conv2d((1, 7, 7, 512), (1, 1, 512, 2048))

    assert direct.default(row, machine)["prefetch"] == 0
    assert direct.default(image, machine)["prefetch"] == 1
