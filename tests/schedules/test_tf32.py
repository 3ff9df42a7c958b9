"""The permission to round to TF32: what it changes where it is used, and that it changes nothing else."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from emulated_gpu import EmulatedGpu, available, rounded_operands
from record_writers import CONV, MACHINE, PACK, record

from tvmconv import hardware
from tvmconv.building.cuda import tools as cuda_tools
from tvmconv.checking import contract, oracle
from tvmconv.problem import workloads
from tvmconv.problem.spec import ConvSpec
from tvmconv.records import choice, log, pruning, upkeep
from tvmconv.records.record import Record
from tvmconv.tuning import plan, status

ALLOWED = dataclasses.replace(CONV, tf32=True)
RELU = dataclasses.replace(ALLOWED, activation="relu")
EVERYWHERE = [
    pytest.param(machine, pack, id=machine.name)
    for pack in map(hardware.load_pack, ("x86", "arm", "cuda"))
    for machine in pack.machines
]
HOPPER, CUDA = hardware.find_machine("sm_90")
TURING, _ = hardware.find_machine("sm_75")


def tf32_specs() -> list[ConvSpec]:
    """Layers of all networks that allow TF32, and edge cases of float32 turned so."""
    named = [workloads.resolve(f"{name}:tf32") for name in ("mobilenet_v2", "resnet50")]
    cases = [layer.spec for layer in workloads.resolve("edge_cases").entries]
    turned = [dataclasses.replace(spec, tf32=True) for spec in cases if spec.dtype == "float32"
              and spec.op == "conv2d" and not spec.is_empty]  # fmt: skip
    return [spec for spec in workloads.distinct(*named) if spec.tf32] + turned


@pytest.mark.parametrize(("machine", "pack"), EVERYWHERE)
def test_without_tensor_cores_for_it_schedules_and_decisions_are_those_of_float32(machine, pack):
    takes = machine.gpu is not None and "float32" in machine.gpu.tensor_core_dtypes
    used = 0
    for spec in tf32_specs():
        schedules = hardware.schedules_for(spec, machine, pack)
        strict = hardware.schedules_for(spec.strict, machine, pack)
        assert [each for each in schedules if each in strict] == strict
        for schedule in strict:
            assert schedule.knobs(spec, machine) == schedule.knobs(spec.strict, machine)
            assert schedule.default(spec, machine) == schedule.default(spec.strict, machine)
        extra = [each.name for each in schedules if each not in strict]
        assert extra in ([], ["cuda.conv2d.tensor"])
        assert choice.permitted(spec, machine, pack) == (spec if extra else spec.strict)
        assert choice.permitted(spec.strict, machine, pack) == spec.strict
        used += bool(extra)
    assert bool(used) == takes


def test_tensor_cores_come_first_where_they_may_and_can():
    assert choice.default_choice(ALLOWED, HOPPER, CUDA).schedule.name == "cuda.conv2d.tensor"
    for spec, machine in ((ALLOWED, TURING), (ALLOWED.strict, HOPPER)):
        assert choice.default_choice(spec, machine, CUDA).schedule.name == "cuda.conv2d.tiled"
    nchw = ConvSpec.conv2d((1, 64, 14, 14), (1, 1, 64, 64), data_format="NCHW", tf32=True)
    assert choice.default_choice(nchw, HOPPER, CUDA).schedule.name == "cuda.conv2d.direct"


@pytest.mark.parametrize("spec", [ALLOWED, RELU], ids=["same", "other epilogue"])
def test_a_machine_without_use_for_it_takes_the_record_of_float32(tmp_path, spec):
    log.write(tmp_path, [record(CONV)])
    strict, allowed = (choice.choose(s, MACHINE, PACK, [tmp_path]) for s in (spec.strict, spec))
    assert allowed.entry == strict.entry is not None
    assert (allowed.schedule, allowed.decisions) == (strict.schedule, strict.decisions)
    assert allowed.source == strict.source
    assert allowed.spec == spec


def gpu_record(spec: ConvSpec) -> Record:
    found = choice.default_choice(spec, HOPPER, CUDA)
    return record(
        spec, schedule=found.schedule.name, decisions=found.decisions, machine=HOPPER.name
    )


def test_records_of_both_precisions_stand_side_by_side_where_it_is_used(tmp_path):
    for written in (CONV, ALLOWED):
        logs = tmp_path / written.precision
        log.write(logs, [gpu_record(written)])
        for spec in (CONV, ALLOWED):
            entry = choice.choose(spec, HOPPER, CUDA, [logs]).entry
            assert (entry is not None) == (spec == written)
    assert choice.choose(RELU, HOPPER, CUDA, [tmp_path / "tf32"]).entry.record.key == ALLOWED.key
    assert "other epilogue" in choice.choose(RELU, HOPPER, CUDA, [tmp_path / "tf32"]).source


def test_a_record_of_a_permission_without_use_is_of_no_use(tmp_path):
    useless = record(CONV, key=ALLOWED.key)
    assert CONV.key in choice.stale_reason(useless, MACHINE, PACK)
    assert choice.stale_reason(gpu_record(ALLOWED), HOPPER, CUDA) is None
    log.write(tmp_path, [useless])
    assert choice.choose(ALLOWED, MACHINE, PACK, [tmp_path]).entry is None
    (change,) = pruning.prune(tmp_path)
    assert change.key == ALLOWED.key


def test_without_use_for_it_tuning_and_promoting_are_those_of_float32(tmp_path):
    layers = [workloads.Layer("a", ALLOWED), workloads.Layer("b", CONV), workloads.Layer("c", RELU)]
    found = plan.distinct(layers, MACHINE, PACK)
    assert [layer.spec for layer in found] == [CONV, RELU.strict]
    assert [layer.spec for layer in plan.distinct(layers, HOPPER, CUDA)] == [ALLOWED, CONV, RELU]
    source, into = tmp_path / "mine", tmp_path / "shipped"
    log.write(source, [record(CONV)])
    (row, _) = status.status(layers, MACHINE, PACK, [source], [])
    assert (row.key, row.state) == (CONV.key, status.TUNED)
    (change,) = upkeep.promote(source, MACHINE.name, {ALLOWED.key}, into)
    assert (change.action, change.key) == ("added", CONV.key)


SPECIAL = np.array(
    [0x00000000, 0x80000000, 0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC00000, 0x7FFFFFFF, 0xFFFFFFFF,
     0x00000FFF, 0x00001000, 0x80001000, 0x007FFFFF, 0x3F800FFF, 0x3F801000, 0x3F802FFF, 0x3F803000,
     0xBF801000, 0x3FFFF000, 0x3FFFEFFF, 0x7F7FE000, 0x7F7FEFFF, 0x7F7FF000, 0xFF7FFFFF, 0x42F6E979],
    np.uint32,
)  # fmt: skip


needs_emulator = pytest.mark.skipif(
    not available() or cuda_tools.nvcc() is None, reason="the emulated GPU needs nvcc and g++"
)


@pytest.mark.slow
@needs_emulator
def test_ampere_sums_rounded_operands_in_float32(tmp_path):
    machine, _ = hardware.find_machine("sm_80")  # test_cuda_kernels.py has Hopper
    tensor = hardware.find_schedule("cuda.conv2d.tensor", CUDA)
    cases = [contract.Case(machine, tensor, spec) for spec in contract.edge_cases() if spec.tf32]
    made = {
        f"k{number}_{turn}": (case.spec, tensor.apply(case.spec, machine, decisions))
        for number, case in enumerate(cases)
        for turn, decisions in enumerate([case.default(), *contract.random_decisions(case, 3)])
    }
    gpu = EmulatedGpu({name: function for name, (_, function) in made.items()}, machine, tmp_path)

    assert len(made) == 8
    for name, (spec, _) in made.items():
        arguments = oracle.random_arguments(spec, seed=1)
        out = gpu.run(name, spec, arguments)
        oracle.check(spec, arguments, out)
        expected = oracle.conv(spec, **rounded_operands(arguments))
        oracle.assert_close(spec, expected, out, oracle.tolerance_of(spec.strict))


@needs_emulator
def test_packing_rounds_to_nearest_and_keeps_infinities_and_nans(tmp_path):
    many = np.random.default_rng(0).integers(0, 1 << 32, 32 * 64 - SPECIAL.size, np.uint32)
    values = np.concatenate([SPECIAL, many]).view(np.float32)
    spec = ConvSpec.conv2d((1, 4, 4, 32), (1, 1, 32, 64), tf32=True)
    schedule = hardware.find_schedule("cuda.conv2d.tensor", CUDA)
    made = schedule.apply(spec, HOPPER, schedule.default(spec, HOPPER))
    gpu = EmulatedGpu({"k": made}, HOPPER, tmp_path)
    packed = np.zeros(made.packed_shape, np.float32)
    gpu.call("k_pack", {"filter": values.reshape(spec.filter_shape), "packed": packed}, 0)
    got = packed[:64, :32].T.reshape(-1)

    assert (got.view(np.uint32) & 0x1FFF == 0)[np.isfinite(got)].all()
    assert np.array_equal(np.isnan(got), np.isnan(values))
    number = np.isfinite(values)
    with np.errstate(over="ignore"):
        wide = values[number].astype(np.float64)
        _, exponent = np.frexp(wide)
        # Denormals have a fixed last bit.
        last = np.maximum(exponent - 11, -149 + 13)
        expected = np.copysign(np.ldexp(np.floor(np.abs(np.ldexp(wide, -last)) + 0.5), last), wide)
        expected = expected.astype(np.float32)
    assert np.array_equal(got[number], expected)
    assert np.array_equal(got[np.isinf(values)], values[np.isinf(values)])
