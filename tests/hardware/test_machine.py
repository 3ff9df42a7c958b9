"""A machine has a core, of a CPU or of a GPU, and says which; as JSON it comes back as the same."""

from __future__ import annotations

import dataclasses
import json

import pytest

from tvmconv import files, hardware
from tvmconv.errors import HardwarePackError
from tvmconv.hardware import Cpu, Gpu, Machine
from tvmconv.schedules.cuda import machines as cuda_machines


def test_vector_registers_are_asked_of_a_cpu_only():
    cpu, gpu = (hardware.find_machine(name)[0] for name in ("cortex-a72", "sm_90"))

    assert cpu.cpu == cpu.core
    assert cpu.gpu is None
    assert gpu.gpu == gpu.core
    with pytest.raises(HardwarePackError, match="sm_90 is a GPU"):
        _ = gpu.cpu
    with pytest.raises(HardwarePackError, match="cortex-a72 is no GPU"):
        cuda_machines.card(cpu)


@pytest.mark.parametrize(("name", "kind"), [("cortex-a72", Cpu), ("h200", Gpu)])
def test_a_machine_comes_back_from_json(name, kind):
    machine, _ = hardware.find_machine(name)
    text = json.dumps(dataclasses.asdict(machine))

    back = files.decode(Machine, files.parse_json(text), "machine")

    assert isinstance(back.core, kind)
    assert back == machine


def test_a_core_of_neither_kind_is_refused():
    machine, _ = hardware.find_machine("cortex-a72")
    body = json.loads(json.dumps(dataclasses.asdict(machine)))
    del body["core"]["fma_ports"]

    with pytest.raises(ValueError, match=r"machine\.core must have .* missing are \['fma_ports'\]"):
        files.decode(Machine, body, "machine")
