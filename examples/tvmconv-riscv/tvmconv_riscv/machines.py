"""RISC-V cores with the vector extension 1.0 as data, and which of them this process runs on.

Sources, all read in 2026-11:

- caches and extensions: Linux, arch/riscv/boot/dts/spacemit/k1.dtsi and canaan/k230.dtsi
- 256-bit vectors of the X60: the K1's data sheet (docs.banana-pi.org, BPI-F3)
- 128-bit vectors of the C908: OpenBLAS, whose RISC-V kernels were tested on a CanMV-K230
- latency and issue: LLVM's scheduling model of the X60 (RISCVSchedSpacemitX60.td), which is "based on
  documentation of the C908 and experiments on real hardware": 5 cycles for a float32 multiply-add, one
  vector arithmetic and one vector memory instruction at a time. The C908 is taken to be the same.
"""

from __future__ import annotations

from tvmconv.hardware import Cpu, Machine, host

KIB = 1024

# Every RVA22 core with vectors, under the names of /proc/cpuinfo's "isa" line.
_RV64GCV = ("m", "a", "f", "d", "c", "v", "zba", "zbb", "zbs", "zfh", "zvfh")


def _machine(
    name: str,
    description: str,
    features: tuple[str, ...],
    target: dict[str, object],
    vector_bits: int,
    l2_kib: int,
) -> Machine:
    """Both cores issue one vector multiply-add and one vector load; RVV has 32 registers on any."""
    return Machine(
        name=name,
        description=description,
        architecture="riscv64",
        target={
            "kind": "llvm",
            "mtriple": "riscv64-unknown-linux-gnu",
            "mabi": "lp64d",
            **target,
        },
        features=features,
        core=Cpu(
            vector_bytes=vector_bits // 8,
            vector_registers=32,
            fma_ports=1,
            fma_latency=5,
            load_ports=1,
            l1_bytes=32 * KIB,
            l2_bytes=l2_kib * KIB,
        ),
    )


# WITHOUT "v": where a target has it, TVM 0.27 turns vector loops into loops of unknown length
# (tirx.VectorizeLoop), and every multiply-add loads and stores its accumulator. Without it vectors have the
# length that the schedule says, and LLVM makes the same instructions of them, because it keeps "zve64d" and
# "zvl256b", which "v" implies.
SPACEMIT_X60 = _machine(
    "spacemit-x60",
    "SpacemiT K1 (Banana Pi BPI-F3, Milk-V Jupiter)",
    (*_RV64GCV, "zicond"),
    {"mcpu": "spacemit-x60", "mattr": ["-v"]},
    vector_bits=256,
    l2_kib=512,  # of a cluster of four cores: all of it for a call with one thread
)
XUANTIE_C908 = _machine(
    "xuantie-c908",
    "Kendryte K230 (CanMV-K230)",
    _RV64GCV,
    # LLVM 22 has no processor of that name: extensions one by one.
    {
        "mcpu": "generic-rv64",
        "mattr": [f"+{name}" for name in _RV64GCV if name != "v"] + ["+zve64d", "+zvl128b"],
    },
    vector_bits=128,
    l2_kib=256,
)

MACHINES = (SPACEMIT_X60, XUANTIE_C908)

# Linux's "uarch" in /proc/cpuinfo, the device tree's name of the core. The extensions would not do: the
# length of a vector is not among them.
_BY_UARCH = {"spacemit,x60": SPACEMIT_X60, "thead,c908": XUANTIE_C908}


def detect() -> Machine | None:
    """Return the machine if all cores are of one kind, and that is known here; None elsewhere."""
    if host.architecture() != "riscv64":
        return None
    lines = host.CPUINFO.read_text(encoding="utf-8").splitlines()
    fields = (line.partition(":") for line in lines)
    cores = {value.strip() for name, _, value in fields if name.strip() == "uarch"}
    return _BY_UARCH.get(cores.pop()) if len(cores) == 1 else None
