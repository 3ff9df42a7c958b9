"""Quantised kernels on this machine at the ends of what they are given; test_contract.py has edge cases."""

from __future__ import annotations

import numpy as np
import pytest

from tvmconv import hardware
from tvmconv.checking import contract, oracle
from tvmconv.checking.guarded import GuardedKernel
from tvmconv.problem.spec import ConvSpec
from tvmconv.runtime.quantization import Quantization

SPECS = {
    "conv2d": ConvSpec.conv2d((1, 5, 7, 8), (3, 3, 8, 32), dtype="int8", bias=True, quantized="int8"),
    "1x1": ConvSpec.conv2d((1, 5, 7, 16), (1, 1, 16, 48), dtype="int8", bias=True, quantized="uint8"),
    "unsigned": ConvSpec.conv2d((1, 5, 7, 8), (3, 3, 8, 16), dtype="uint8", bias=True, quantized="uint8"),
    "depthwise": ConvSpec.depthwise_conv2d(
        (1, 6, 7, 32), (3, 3, 32, 1), dtype="int8", bias=True, quantized="int8"
    ),
    "unsigned depthwise": ConvSpec.depthwise_conv2d(
        (1, 6, 7, 16), (3, 3, 16, 1), strides=2, dtype="uint8", bias=True, quantized="int8"
    ),
}  # fmt: skip


def kernels(spec: ConvSpec) -> list[GuardedKernel]:
    """One for each schedule of the machine at hand, as its own code and rehearsed without extensions."""
    machine, pack = hardware.find_machine("host")
    found = []
    for target in (machine, contract.rehearsal(machine)):
        for schedule in pack.schedules:
            if schedule.accepts(spec, target):
                function = schedule.apply(spec, target, schedule.default(spec, target))
                found.append(GuardedKernel(schedule.name, spec, function, target))
    assert found
    return found


@pytest.mark.parametrize("name", SPECS)
def test_ends_of_scales_zero_points_clamps_and_sums(name):
    spec = SPECS[name]
    rng = np.random.default_rng(0)
    given = oracle.random_arguments(spec, seed=0, wrap=True)  # sums overflow
    data, out = np.iinfo(spec.dtype), np.iinfo(spec.out_dtype)
    compiled = kernels(spec)
    for point in (data.min, data.max, 3):
        for zero, low, high in (
            (out.min, out.min, out.max), (out.max, out.min, out.max), (5, 5, 5), (9, 7, 100),
        ):  # fmt: skip
            given["limits"] = np.array([point, zero, low, high], np.int32)
            given["scales"] = rng.choice(
                np.float32([2.0**-31, 2.0**-24, 0.5, 1.0, 1.5, 255.0, 1e-3, 1e-7]), spec.bias_shape
            )
            given["data"].flat[0], given["data"].flat[-1] = data.min, data.max
            expected = oracle.conv(spec, **given)
            for kernel in compiled:
                np.testing.assert_array_equal(kernel.run(given, 1), expected, kernel.name)


@pytest.mark.parametrize("name", ["1x1", "depthwise"])
def test_halves_are_rounded_to_even(name):
    spec = SPECS[name]
    given = oracle.random_arguments(spec, seed=0)
    given["filter"] = np.sign(given["filter"]).astype(np.int8)
    given["scales"] = np.full(spec.bias_shape, 0.5, np.float32)
    given["limits"] = np.array(
        [1, 1, -128, 127] if spec.quantized == "int8" else [1, 1, 0, 255], np.int32
    )
    expected = oracle.conv(spec, **given)
    for kernel in kernels(spec):
        np.testing.assert_array_equal(kernel.run(given, 1), expected, kernel.name)


@pytest.mark.parametrize("out", ["int8", "uint8"])
@pytest.mark.parametrize("name", ["host", "x86-64-v3"])
@pytest.mark.parametrize("channels", [8, 16, 24, 32, 48, 64])
def test_bytes_of_every_width_are_packed_in_order(channels, name, out):
    """On x86, where vectors are packed together; each channel has a scale of its own."""
    machine, pack = hardware.find_machine(name)
    if contract.lacking(machine) or pack.name != "x86":
        pytest.skip(f"{name} does not run here, or is no x86")
    spec = ConvSpec.conv2d(
        (1, 2, 3, 4), (1, 1, 4, channels), dtype="int8", bias=True, quantized=out
    )
    schedule = hardware.find_schedule("x86.conv2d.dot", pack)
    points = [p for p in hardware.space(schedule, spec, machine) if p["channels"] == channels]
    if not points:
        pytest.skip(f"{name} has no tile of {channels} channels")
    kernel = GuardedKernel("dot", spec, schedule.apply(spec, machine, points[0]), machine)
    given = oracle.random_arguments(spec, seed=channels)
    limits = np.iinfo(out)
    for zero, low, high in (
        (limits.min, limits.min, limits.max),
        (limits.max, limits.min, limits.max),
        (limits.min + 99, limits.min + 5, limits.max - 5),
    ):
        given["limits"] = np.array([-128, zero, low, high], np.int32)
        for scale in (1.0, 1e-3, 3e38):
            given["scales"] = np.linspace(0.5, 1, channels, dtype=np.float32) * np.float32(scale)
            expected = oracle.conv(spec, **given)
            np.testing.assert_array_equal(kernel.run(given, 1), expected)


def test_built_and_bound_as_users_do(tmp_path):
    import tvmconv

    spec = SPECS["conv2d"]
    kernel = tvmconv.load(tvmconv.build([spec], output=tmp_path / "k.tvmconv"), threads=1)[spec.key]
    given = oracle.random_arguments(spec, seed=3)
    layer = Quantization(0.1, -7, np.linspace(1e-3, 1e-2, 32), 1.5, 11, activation="relu")
    constants = layer.constants(spec, given["filter"], given["bias"])

    made = kernel.bind(**constants)(given["data"])

    filter_ = constants.pop("w")
    np.testing.assert_array_equal(made, oracle.conv(spec, given["data"], filter_, **constants))
    assert made.dtype == np.int8
    with pytest.raises(ValueError, match="was built with scales, but none was given"):
        kernel.bind(filter_, constants["bias"])
