"""Vectors end where channels do: the lanes of a ragged last tile are not computed one by one."""

from __future__ import annotations

import re

import pytest

import tvmconv
from tvmconv import hardware
from tvmconv.checking import contract, oracle
from tvmconv.problem.spec import ConvSpec

SCALAR = re.compile(r"vfmadd\w+ss|\bfmadd\b")


def case_of(machine: str, channels: int) -> contract.Case:
    found, pack = hardware.find_machine(machine)
    spec = ConvSpec.depthwise_conv2d((1, 12, 12, channels), (3, 3, channels, 1), 1, "SAME")
    return contract.Case(found, hardware.schedules_for(spec, found, pack)[0], spec)


@pytest.mark.parametrize(
    ("machine", "channels"),
    [("sapphirerapids", 36), ("sapphirerapids", 42), ("x86-64-v3", 44), ("cortex-a72", 38)],
)
def test_a_ragged_last_tile_is_vectors_too(machine, channels):
    case = case_of(machine, channels)

    assert channels % int(case.default()["channels"])
    assert not SCALAR.search(contract.assembly(case))


@pytest.mark.parametrize("channels", [17, 36, 42, 43, 47])
def test_values_of_ragged_tiles(channels, tmp_path):
    spec = case_of("host", channels).spec
    library = tvmconv.load(tvmconv.build([spec], output=tmp_path / "k.tvmconv"), threads=1)
    given = oracle.random_arguments(spec, seed=channels)

    out = library[spec.key](given["data"], given["filter"])

    oracle.assert_close(spec, oracle.conv(spec, **given), out)
