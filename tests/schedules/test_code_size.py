"""How much straight code default decisions make of any problem: LLVM takes minutes for too much of it."""

from __future__ import annotations

import pytest
from tvm import tirx

from tvmconv import hardware
from tvmconv.checking import contract
from tvmconv.lowering.cpu import split_points
from tvmconv.lowering.interface import SPLIT_AT
from tvmconv.lowering.runs import power_of_two_runs
from tvmconv.problem.spec import ConvSpec
from tvmconv.schedules.shared import code_size

# Statements of one kernel, in vectors of any length: nine copies of the longest tile. 64 -> 3 channels made
# 14256 and took 153 CPU seconds, its next whole vector makes 7128 and takes 1.2 (Zen 5, 2026-11).
MOST = 9 * code_size.MOST_DENSE
ODD = [
    *(ConvSpec.conv2d((1, 64, 64, 64), (3, 3, 64, out)) for out in (1, 2, 3, 5, 6, 7, 13, 21, 31)),
    ConvSpec.conv2d((1, 128, 128, 64), (9, 9, 64, 3)),
    ConvSpec.conv2d((1, 64, 64, 56), (3, 3, 7, 56)),
    *(
        ConvSpec.depthwise_conv2d((1, 24, 16, channels), (size, size, channels, 1), dtype=dtype)
        for channels, size in ((31, 5), (3, 7), (7, 5))
        for dtype in ("float32", "int8", "uint8")
    ),
]


def statements(node: tirx.Stmt) -> int:
    """Stores that remain when loops are unrolled, vectors cut and tiles specialised."""
    if isinstance(node, tirx.For):
        inside = statements(node.body)
        if SPLIT_AT in node.annotations:
            return inside * len(split_points(node))
        if node.kind == tirx.ForKind.UNROLLED:
            return inside * int(node.extent)
        if node.kind == tirx.ForKind.VECTORIZED:
            return inside * len(power_of_two_runs(int(node.extent)))
        return inside
    if isinstance(node, tirx.BufferStore):
        return 1
    children = [getattr(node, name, None) for name in ("body", "block", "init")]
    children += list(getattr(node, "seq", []))
    return sum(statements(child) for child in children if child is not None)


def most(case: contract.Case) -> float:
    """Statements of a kernel; fewer where a depthwise tile is ragged, with a tenth for zeros and stores."""
    channels = int(case.default().get("channels", 1))
    left = case.spec.in_channels % channels
    if case.spec.op == "conv2d" or not (left or channels & (channels - 1)):
        return MOST
    whole = channels.bit_count()
    longest = code_size.MOST_DEPTHWISE if whole == 1 else code_size.MOST_RAGGED
    # The ragged last tile is counted with the vectors of a whole one.
    return 1.1 * 9 * longest * whole * (2 if left else 1) / (whole + left.bit_count())


@pytest.mark.parametrize("size", [10, 11, 13, 15, 21, 31, 51])
@pytest.mark.parametrize("name", ["znver5", "x86-64-v3", "cortex-a72"])
def test_tiles_of_large_depthwise_filters_have_outputs_enough_to_wait_for(name, size):
    """One output at a time waits for each sum: 31x31 on 14x14x512 took 41 ms, and takes 2.2 (Zen 5)."""
    machine, pack = hardware.find_machine(name)
    spec = ConvSpec.depthwise_conv2d((1, 28, 28, 64), (size, size, 64, 1))
    schedule = hardware.schedules_for(spec, machine, pack)[0]
    tile = schedule.default(spec, machine)

    assert tile["rows"] * tile["columns"] >= machine.cpu.fma_latency * machine.cpu.fma_ports


@pytest.mark.parametrize("name", ["sapphirerapids", "x86-64-v3", "x86-64-v2", "cortex-a72"])
def test_no_kernel_is_longer_than_nine_of_the_longest_tiles(name):
    machine, pack = hardware.find_machine(name)
    long = {}
    for case in contract.cases(pack, [machine], [*contract.edge_cases(), *ODD]):
        made = case.schedule.apply(case.spec, machine, case.default())
        count = statements(made.main.body)
        assert count > 0
        if count > most(case):
            long[str(case)] = count

    assert not long


@pytest.mark.parametrize("name", ["sapphirerapids", "x86-64-v3", "cortex-a72"])
@pytest.mark.parametrize("out", [3, 7, 13])
def test_an_odd_number_of_channels_is_computed_in_one_vector(name, out):
    machine, pack = hardware.find_machine(name)
    spec = ConvSpec.conv2d((1, 8, 8, 16), (1, 1, 16, out))
    case = contract.Case(machine, hardware.schedules_for(spec, machine, pack)[0], spec)

    channels = case.default()["channels"]

    assert channels & (channels - 1) == 0 or channels % machine.cpu.lanes("float32") == 0
