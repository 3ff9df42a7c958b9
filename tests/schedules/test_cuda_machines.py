"""GPUs as data: facts that hang together, cards by name, and what to say of those that cannot be had."""

from __future__ import annotations

import dataclasses

import pytest

from tvmconv import hardware
from tvmconv.checking import contract, pack_facts
from tvmconv.errors import HardwarePackError, UnknownNameError

PACK = hardware.load_pack("cuda")
all_machines = pytest.mark.parametrize("machine", PACK.machines, ids=lambda machine: machine.name)


@all_machines
def test_facts_hang_together(machine):
    gpu = machine.gpu
    pack_facts.check_facts(machine)

    assert gpu.async_copy == (gpu.capability >= (8, 0))
    assert ("bfloat16" in gpu.tensor_core_dtypes) == (gpu.capability >= (8, 0))
    assert gpu.threads_per_multiprocessor % 32 == 0
    # Float32 of these cards: 8 (T4) to 83 (RTX 4090) TFLOP/s, but for Orin's 5.
    peak = 2 * gpu.fma_lanes * gpu.multiprocessors * gpu.clock
    assert 5e12 < peak < 84e12


# Peaks of float32 that NVIDIA's data sheets give, without sparsity, in TFLOP/s.
PEAKS = {
    "t4": 8.1,
    "a100": 19.5,
    "rtx-3090": 35.6,
    "jetson-orin-gpu": 5.3,
    "rtx-4090": 82.6,
    "l4": 30.3,
    "h100": 67.0,
    "h200": 67.0,
}


@pytest.mark.parametrize("name", PEAKS)
def test_multiprocessors_lanes_and_clock_give_the_peak_of_the_data_sheet(name):
    machine, _ = hardware.find_machine(name)
    peak = 2 * machine.gpu.fma_lanes * machine.gpu.multiprocessors * machine.gpu.clock

    assert peak / 1e12 == pytest.approx(PEAKS[name], rel=0.02)


# TFLOP/s of float16 with sums in float32, dense, as the whitepapers and data sheets have them.
TENSOR_PEAKS = {"t4": 65, "a100": 312, "rtx-3090": 71, "rtx-4090": 165.2, "l4": 121, "h100": 989.5}


@pytest.mark.parametrize("name", TENSOR_PEAKS)
def test_tensor_rates_give_the_peak_of_the_data_sheet(name):
    machine, _ = hardware.find_machine(name)
    peak = 2 * machine.gpu.tensor_rates[1] * machine.gpu.multiprocessors * machine.gpu.clock

    # The H100's clock is that of its float32 peak, which tensor cores do not keep up.
    assert peak / 1e12 == pytest.approx(TENSOR_PEAKS[name], rel=0.09 if name == "h100" else 0.02)


def test_a_card_with_the_facts_of_its_architecture_is_an_alias():
    assert hardware.find_machine("h100")[0].name == "sm_90"
    assert hardware.find_machine("h200")[0].name == "h200"
    # The board's name stands for its CPU.
    assert hardware.find_machine("jetson-orin")[0].gpu is None
    assert hardware.find_machine("jetson-orin-gpu")[0].architecture == "aarch64"


@pytest.mark.parametrize("name", ["sm_70", "v100", "p100"])
def test_a_card_too_old_for_cuda_13_is_refused_with_the_reason(name):
    with pytest.raises(UnknownNameError, match=rf"'{name}'.*CUDA 13.*sm_75.*--machine host"):
        hardware.find_machine(name)


def test_a_card_too_new_is_sent_to_the_ptx_of_the_newest():
    with pytest.raises(UnknownNameError, match=r"Build for sm_90.*PTX"):
        hardware.find_machine("b200")


def test_a_name_cannot_be_there_and_unavailable():
    with pytest.raises(HardwarePackError, match="has 'h100' and says that it has not"):
        dataclasses.replace(PACK, unavailable={"h100": "no"})


WRONG = {
    "facts of a CPU": (hardware.find_machine("cortex-a72")[0].core, "machines of kind cuda"),
    "another arch": ({"arch": "sm_80"}, "both must be the same"),
    "no arch": ({"arch": "hopper"}, "both must be the same"),
    "no bandwidth": ({"bandwidth": 0}, "bandwidth of sm_90 is 0"),
    "no tensor rates": ({"tensor_rates": (0, 0, 0)}, "no rate of them in tensor_rates"),
    "a block too large": ({"shared_bytes": 1 << 20}, "its multiprocessor only"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_facts_that_contradict_each_other_are_refused(fault):
    changes, message = WRONG[fault]
    machine, _ = hardware.find_machine("sm_90")
    core = dataclasses.replace(machine.gpu, **changes) if isinstance(changes, dict) else changes
    wrong = dataclasses.replace(machine, core=core)

    with pytest.raises(HardwarePackError, match=message):
        pack_facts.check_facts(wrong)


def test_a_gpu_target_needs_a_host():
    machine, _ = hardware.find_machine("sm_90")
    alone = dataclasses.replace(machine, target={"kind": "cuda", "arch": "sm_90"})

    with pytest.raises(HardwarePackError, match="no host of kind llvm"):
        pack_facts.check_facts(alone)


def test_this_host_never_runs_a_gpus_kernels_on_its_arrays():
    machine, _ = hardware.find_machine("sm_90")

    assert contract.lacking(machine) == ["sm_90"]
    assert {kind.gpu.arch for kind in contract.kinds(PACK)} == {
        machine.gpu.arch for machine in PACK.machines
    }
