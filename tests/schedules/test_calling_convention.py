"""What schedules make has the form that the calling convention says."""

import pytest

from tvmconv import hardware
from tvmconv.problem import calling
from tvmconv.problem.spec import ConvSpec

SPECS = (
    ConvSpec.conv2d((2, 3, 6, 6, 16), (1, 1, 16, 32), bias=True, residual=True),
    ConvSpec.conv2d((1, 8, 8, 16), (3, 3, 16, 32), bias=True, activation="relu"),
    ConvSpec.conv2d((1, 16, 8, 8), (3, 3, 16, 32), data_format="NCHW", residual=True),
    ConvSpec.conv2d((1, 7, 7, 512), (1, 1, 512, 64), dtype="float16", bias=True),
    ConvSpec.conv2d((1, 8, 8, 64), (1, 1, 64, 64), dtype="uint8", bias=True, residual=True),
    ConvSpec.depthwise_conv2d((1, 8, 8, 32), (3, 3, 32, 1), bias=True, residual=True),
)


@pytest.mark.parametrize("name", ["sapphirerapids", "cortex-a76", "sm_80"])
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.key)
def test_functions_take_what_the_convention_says(name, spec):
    machine, pack = hardware.find_machine(name)
    schedules = [each for each in pack.schedules if each.accepts(spec, machine)]
    for schedule in schedules:
        function = schedule.apply(spec, machine, schedule.default(spec, machine))
        operands = calling.signature(spec, function).taken
        params = function.main.params

        assert [forms(each) for each in params] == [
            (list(each.taken_shape), each.taken_dtype) for each in operands
        ], schedule.name
        for param, operand in zip(params, operands, strict=True):
            assert operand.alignment % param.data_alignment == 0, (schedule.name, operand.name)
        if function.pack is not None:
            given, packed = function.pack.params
            (filter_,) = (each for each in operands if each.packed)
            assert forms(given) == (list(filter_.shape), filter_.dtype)
            assert forms(packed) == (list(filter_.taken_shape), filter_.taken_dtype)
    assert schedules


def forms(param):
    return [int(extent) for extent in param.shape], str(param.dtype)
