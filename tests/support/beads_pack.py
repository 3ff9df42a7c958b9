"""A pack of a third party that counts on beads."""

from __future__ import annotations

import pytest
import third_party

from tvmconv.hardware import Cpu, Knob, Machine, Schedule
from tvmconv.problem.spec import ConvSpec

SPEC = ConvSpec.conv2d((1, 4, 4, 8), (1, 1, 8, 8))
MACHINE = Machine(
    name="abacus",
    description="counts on beads",
    architecture="wood",
    target={"kind": "llvm"},
    features=("beads",),
    core=Cpu(
        vector_bytes=32,
        vector_registers=16,
        fma_ports=2,
        fma_latency=4,
        load_ports=2,
        l1_bytes=1024,
        l2_bytes=4096,
    ),
)


def schedule(name: str = "wood.conv2d.beads", op: str = "conv2d") -> Schedule:
    """Two knobs, of whose four combinations three are legal."""
    return Schedule(
        name=name,
        accepts=lambda spec, machine: spec.op == op,
        knobs=lambda spec, machine: (Knob("rows", (2, 1)), Knob("order", ("up", "down"))),
        legal=lambda spec, machine, point: dict(point) != {"rows": 1, "order": "down"},
        default=lambda spec, machine: {"rows": 2, "order": "up"},
        apply=lambda spec, machine, point: pytest.fail("nothing here is applied"),
    )


BEADS = schedule()
# A pack of its own, with what the classes need and no more.
ABACUS = """
from tvmconv.hardware import Cpu, HardwarePack, Knob, Machine, Schedule

MACHINE = Machine("abacus", "counts on beads", "wood", {"kind": "llvm"}, ("beads",),
                  Cpu(32, 16, 2, 4, 2, 1024, 4096))
SCHEDULE = Schedule(
    "wood.conv2d.beads",
    lambda spec, machine: True,
    lambda spec, machine: (),
    lambda spec, machine, decisions: True,
    lambda spec, machine: {},
    lambda spec, machine, decisions: None,
)
PACK = HardwarePack("wood", (MACHINE,), (SCHEDULE,))
"""


def write_wood(directory, name, machine, schedule_name):
    """Distribution NAME-pack with a pack of that name, one machine and one schedule."""
    source = ABACUS.replace("abacus", machine).replace("wood.conv2d.beads", schedule_name)
    return third_party.write_pack(
        directory, name, source.replace('HardwarePack("wood"', f'HardwarePack("{name}"')
    )
