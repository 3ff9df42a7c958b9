"""64-bit ARM cores as data, the boards that have them, and which core this process runs on.

Where to look them up: Arm's software optimisation guides (Cortex-A55, A72, A76, A78, Neoverse N1, V1) for
ports and latencies; the cores' technical reference manuals, and the boards' data sheets where a manual
leaves the size open, for caches. NOT YET compared with these documents figure by figure. LLVM 19's models
(llvm-mca) agree on multiply-adds and loads a cycle for A53, A72 (as A57), N1, and on V1's loads; they give
the A55 two multiply-adds. The A53, which has no guide, has its latency from there.

``fma_latency`` is from a multiply-add to the next that adds to its result, which these cores forward
early: 2 or 3 where LLVM's models say 4.

For predictions only (`tvmconv tune --simulate`): a clock, and bytes a cycle from the second cache and from
memory. Measured on one core: N1, Graviton2, learn.arm.com, "Measure Arm single-core memory bandwidth"
(73.4 and 20.9 GB/s at 2.5 GHz); memory of A53, A55 and A72, twice the memcpy of a Raspberry Pi 3B+, an
ODROID-C4 and a Raspberry Pi 4 in sbc-bench's Results.md (github.com/ThomasKaiser/sbc-bench: 1.23, 3.31 and
2.5 GB/s). Guessed: the second cache of A72, A53 and A55, 8 bytes a cycle, half of a 128-bit interface; of the
A76, that of the N1, and two thirds of the 17 GB/s of a Raspberry Pi 5's memory; A78 and V1, as A76 and N1.

``features`` are the names of Linux (arch/arm64/kernel/cpuinfo.c) for all that LLVM's code generator may
use; tests/schedules/test_arm_machines.py compares them with LLVM's own list.
"""

from __future__ import annotations

from tvmconv.hardware import Cpu, Machine, host

KIB = 1024

_V8 = ("fp", "asimd")
_V82 = (*_V8, "atomics", "fphp", "asimdhp", "asimdrdm", "asimddp")


def _machine(
    name: str,
    description: str,
    features: tuple[str, ...],
    l1_kib: int,
    l2_kib: int,
    fma_ports: int,
    fma_latency: int,
    load_ports: int,
    speeds: tuple[float, float, float],
    target: dict[str, object] | None = None,
) -> Machine:
    """NEON has 32 registers of 128 bits on every core; ``target`` adds to LLVM's processor ``name``.

    ``speeds``: GHz, bytes a cycle from the second cache, and from memory.
    """
    return Machine(
        name=name,
        description=description,
        architecture="aarch64",
        target={"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": name, **(target or {})},
        features=features,
        core=Cpu(
            vector_bytes=16,
            vector_registers=32,
            fma_ports=fma_ports,
            fma_latency=fma_latency,
            load_ports=load_ports,
            l1_bytes=l1_kib * KIB,
            l2_bytes=l2_kib * KIB,
            gigahertz=speeds[0],
            l2_bytes_per_cycle=speeds[1],
            memory_bytes_per_cycle=speeds[2],
        ),
    )


CORES = (
    # In order; a vector load takes the place of a multiply-add, so its one port is worth half of one.
    _machine("cortex-a53", "Arm Cortex-A53, in order", _V8, 32, 512, 1, 10, 1, (1.4, 8.0, 1.8)),
    _machine("cortex-a55", "Arm Cortex-A55, in order", _V82, 32, 128, 1, 4, 1, (2.0, 8.0, 3.3)),
    _machine("cortex-a72", "Arm Cortex-A72", _V8, 32, 1024, 1, 3, 1, (1.5, 8.0, 3.4)),
    _machine("cortex-a76", "Arm Cortex-A76", _V82, 64, 512, 2, 2, 2, (2.4, 29.0, 4.7)),
    _machine("cortex-a78", "Arm Cortex-A78, A78AE", _V82, 64, 256, 2, 2, 2, (2.2, 29.0, 4.7)),
    _machine("neoverse-n1", "Arm Neoverse N1", _V82, 64, 1024, 2, 2, 2, (2.5, 29.0, 8.4)),
    _machine(
        "neoverse-v1",
        "Arm Neoverse V1",
        (*_V82, "fcma", "sha3", "asimdfhm", "flagm", "i8mm", "bf16"),
        64,
        1024,
        4,
        2,
        3,
        (2.6, 29.0, 8.4),
        # WITHOUT SVE: TVM 0.27 gives loads and stores of scalable vectors one alias class for a whole
        # buffer, and accumulators leave the registers. Four NEON ports do the work of its two SVE ports.
        {"mattr": ["-sve"]},
    ),
)

# Any other core: the smallest caches, one port for each; the speeds of an A53.
GENERIC = _machine(
    "armv8-a", "any 64-bit ARM core", _V8, 32, 128, 1, 4, 1, (1.4, 8.0, 1.8), {"mcpu": "generic"}
)

MACHINES = (*CORES, GENERIC)

# Boards, and machines to rent, by the core that kernels are made for. A smaller core beside it runs the
# same kernels.
BOARDS = {
    "raspberry-pi-3": "cortex-a53",
    "raspberry-pi-4": "cortex-a72",
    "raspberry-pi-5": "cortex-a76",
    "rk3399": "cortex-a72",  # 2 of them beside 4 A53
    "rk3588": "cortex-a76",  # 4 of them beside 4 A55
    "jetson-orin": "cortex-a78",
    "aws-graviton2": "neoverse-n1",
    "aws-graviton3": "neoverse-v1",
}

# Main ID Register, part number: of a board's cores the last one here is the largest.
_PARTS = {
    "0xd03": "cortex-a53",
    "0xd05": "cortex-a55",
    "0xd08": "cortex-a72",
    "0xd0b": "cortex-a76",
    "0xd41": "cortex-a78",
    "0xd42": "cortex-a78",  # A78AE
    "0xd0c": "neoverse-n1",
    "0xd40": "neoverse-v1",
}


def detect() -> Machine | None:
    """Return the largest core of this machine that is known and all of whose features it shows.

    The generic machine where none is, None on another architecture. The features of all cores count, so
    that kernels may run on any of them.
    """
    if host.architecture() != "aarch64":
        return None
    features = host.cpu_features()
    parts = host.cpu_parts()
    here = [_PARTS[part] for maker, part in parts if maker == host.ARM_LIMITED and part in _PARTS]
    largest_first = sorted(here, key=list(_PARTS.values()).index, reverse=True)
    by_name = {machine.name: machine for machine in CORES}
    for machine in (*(by_name[name] for name in largest_first), GENERIC):
        if features.issuperset(machine.features):
            return machine
    return None
