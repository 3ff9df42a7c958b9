"""Winograd's algorithm: its matrices exactly, its errors as promised, and how users do without it."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tvmconv
from tvmconv import hardware
from tvmconv.checking import contract, oracle
from tvmconv.compute import conv2d_winograd
from tvmconv.problem import workloads
from tvmconv.problem.spec import ConvSpec
from tvmconv.records import choice

MACHINE = hardware.detect()
_, PACK = hardware.find_machine("host")
SCHEDULES = [schedule for schedule in PACK.schedules if schedule.winograd]
pytestmark = pytest.mark.skipif(not SCHEDULES, reason="this machine's pack has no such schedule")


def times(matrix, vector):
    return [sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix]


@given(
    outputs=st.sampled_from(conv2d_winograd.TILES),
    numbers=st.lists(st.integers(-1000, 1000), min_size=9, max_size=9),
)
def test_the_matrices_compute_a_convolution_exactly(outputs, numbers):
    t = conv2d_winograd.transform(outputs)
    data, taps = numbers[: t.inputs], numbers[-conv2d_winograd.TAPS :]

    products = [a * b for a, b in zip(times(t.data, data), times(t.filter, taps), strict=True)]

    assert times(t.out, products) == [
        sum(data[at + tap] * taps[tap] for tap in range(conv2d_winograd.TAPS))
        for at in range(outputs)
    ]


@pytest.mark.parametrize("outputs", conv2d_winograd.TILES)
def test_coefficients_are_exact_in_float32(outputs):
    t = conv2d_winograd.transform(outputs)

    for factor in itertools.chain(*t.data, *t.out):
        assert float(np.float32(float(factor))) == factor


@pytest.mark.slow
@pytest.mark.parametrize("outputs", conv2d_winograd.TILES)
@pytest.mark.parametrize("channels", [64, 512])
def test_errors_are_as_small_as_promised(outputs, channels, tmp_path):
    spec = ConvSpec.conv2d((1, 14, 14, channels), (3, 3, channels, 64))
    (schedule,) = SCHEDULES
    decisions = {**schedule.default(spec, MACHINE), "outputs": outputs, "band": 1}
    decisions |= {"pixels": 4, "order": "data_outer"}
    assert schedule.legal(spec, MACHINE, decisions)
    chosen = choice.Selection(spec, schedule, decisions, None)
    from tvmconv.building.builder import Request, build_requests

    request = Request(MACHINE, PACK, {spec.key: chosen})
    path = build_requests([spec], [request], tmp_path / "k.tvmconv")
    arguments = oracle.random_arguments(spec, seed=3)
    expected = oracle.conv(spec, **arguments)

    out = tvmconv.load(path, threads=1)[spec](arguments["data"], arguments["filter"])

    assert np.abs(out - expected).max() <= 2e-5 * np.abs(expected).max()


def test_layers_with_large_images_are_computed_so_and_others_directly():
    by_name = {layer.name: layer.spec for layer in workloads.resolve("resnet50").entries}

    for name, expected in (
        ("stage1.block1.conv3x3", True),
        ("stage2.block2.conv3x3", True),
        ("stage2.block1.conv3x3", False),  # stride 2
        ("stage1.block1.reduce", False),  # 1x1
        ("stem", False),
    ):
        chosen = choice.default_choice(by_name[name], MACHINE, PACK)
        assert chosen.schedule.winograd is expected


SPEC = ConvSpec.conv2d((1, 28, 28, 32), (3, 3, 32, 32))


def test_whoever_wants_the_defining_sum_gets_it(tmp_path):
    usual = tvmconv.build([SPEC], output=tmp_path / "usual.tvmconv", logs=[])
    exact = tvmconv.build([SPEC], output=tmp_path / "exact.tvmconv", logs=[], winograd=False)

    names = [tvmconv.load(path)[SPEC].entry.schedule for path in (usual, exact)]
    by_name = {schedule.name: schedule for schedule in PACK.schedules}
    assert [by_name[name].winograd for name in names] == [True, False]
    arguments = oracle.random_arguments(SPEC, seed=4)
    expected = oracle.conv(SPEC, **arguments)
    outs = []
    for path in (usual, exact):
        out = tvmconv.load(path)[SPEC](arguments["data"], arguments["filter"])
        oracle.assert_close(SPEC, expected, out)
        outs.append(out)
    assert (outs[0] != outs[1]).any()


def test_other_types_and_shapes_are_refused():
    (schedule,) = SCHEDULES

    assert schedule.accepts(SPEC, MACHINE)
    for other in (
        replace(SPEC, dtype="float64"),
        replace(SPEC, dtype="float16"),
        replace(SPEC, strides=(2, 2)),
        replace(SPEC, dilations=(2, 2)),
        ConvSpec.conv2d((1, 28, 28, 32), (3, 3, 16, 32)),  # groups
        ConvSpec.conv2d((1, 28, 28, 30), (3, 3, 30, 32)),
        ConvSpec.conv2d((1, 28, 28, 32), (5, 5, 32, 32)),
        ConvSpec.conv2d((1, 1, 28, 32), (3, 3, 32, 32)),
    ):
        assert not schedule.accepts(other, MACHINE)


@pytest.mark.parametrize("order", ["data_outer", "filter_outer"])
@pytest.mark.parametrize(
    ("spec", "outputs", "columns"),
    [
        (ConvSpec.conv2d((2, 13, 46, 16), (3, 3, 16, 32), bias=True, activation="relu"), 4, 6),
        (ConvSpec.conv2d((1, 9, 41, 8), (3, 3, 8, 16), padding="VALID"), 4, 5),
        (ConvSpec.conv2d((1, 6, 15, 16), (3, 3, 16, 32)), 2, 4),
    ],
    ids=lambda each: each.key if isinstance(each, ConvSpec) else str(each),
)
def test_strips_of_columns_give_the_oracles_values(spec, outputs, columns, order):
    (schedule,) = SCHEDULES
    case = contract.Case(MACHINE, schedule, spec)
    decisions = {**schedule.default(spec, MACHINE), "outputs": outputs, "pixels": 1, "band": 1}

    contract.check_values(case, decisions | {"order": order, "columns": columns})


def test_strips_are_as_wide_as_the_second_level_holds():
    machine, pack = hardware.find_machine("znver3")  # 512 KiB
    spec = ConvSpec.conv2d((1, 112, 112, 128), (3, 3, 128, 128))
    small = ConvSpec.conv2d((1, 56, 56, 32), (3, 3, 32, 32))
    (schedule,) = (each for each in pack.schedules if each.winograd)

    decisions = schedule.default(spec, machine)

    # 28 tiles of 36 products of 128 channels are 516 KB; 14 fit half of it.
    assert (decisions["order"], decisions["columns"]) == ("data_outer", 14)
    assert "columns" not in schedule.default(small, machine)


def test_multiply_adds_are_those_of_the_products():
    """(m + 2)^2 for m^2 outputs of nine taps, on tiles that may reach over the edge."""
    spec = ConvSpec.conv2d((1, 56, 56, 64), (3, 3, 64, 64))
    schedule = SCHEDULES[0]
    for point in hardware.space(schedule, spec, MACHINE)[::997]:
        outputs = int(point["outputs"])
        if 56 % outputs == 0:
            assert schedule.macs(spec, point) * 9 * outputs**2 == spec.macs * (outputs + 2) ** 2
        else:
            assert schedule.macs(spec, point) * 9 * outputs**2 > spec.macs * (outputs + 2) ** 2
