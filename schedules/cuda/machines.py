"""NVIDIA GPUs as data: one machine for each architecture, and one for each card that differs from it.

Sources: the CUDA C++ Programming Guide's tables "Technical Specifications per Compute Capability" (shared
memory, threads, blocks and registers of a multiprocessor) and "Throughput of Native Arithmetic
Instructions" (multiply-adds a cycle); NVIDIA's whitepapers of Turing, Ampere (GA100, GA102), Ada and Hopper
and the data sheets of the cards for multiprocessors, L2, bandwidth and boost clock. Where a data sheet gives
a peak and no clock, the clock is the peak / (2 x multiprocessors x multiply-adds a cycle).

An architecture has the facts of its largest card here, whose name is an alias: what is tuned on an H100 is
recorded as sm_90. A smaller or faster card is a machine with records of its own.
"""

from __future__ import annotations

from tvmconv.errors import HardwarePackError
from tvmconv.hardware import Gpu, Machine

KIB, MIB = 1024, 1 << 20
_TURING = ("float16", "int8")
# TF32 is how tensor cores take float32.
_AMPERE = (*_TURING, "bfloat16", "float32")
_HOSTS = {"x86_64": "x86_64-linux-gnu", "aarch64": "aarch64-linux-gnu"}


def _machine(name: str, description: str, gpu: Gpu, architecture: str = "x86_64") -> Machine:
    return Machine(
        name=name,
        description=description,
        architecture=architecture,
        target={
            "kind": "cuda",
            "arch": gpu.arch,
            "host": {"kind": "llvm", "mtriple": _HOSTS[architecture]},
        },
        features=(),  # the host's part only launches kernels: any CPU of the architecture runs it
        core=gpu,
    )


def _turing(multiprocessors: int, l2_mib: int, gigabytes: float, clock: int) -> Gpu:
    return Gpu(
        arch="sm_75",
        multiprocessors=multiprocessors,
        fma_lanes=64,
        shared_bytes=64 * KIB,
        shared_bytes_per_multiprocessor=64 * KIB,
        threads_per_multiprocessor=1024,
        blocks_per_multiprocessor=16,
        l2_bytes=l2_mib * MIB,
        bandwidth=int(gigabytes * 1e9),
        clock=clock,
        tensor_core_dtypes=_TURING,
        async_copy=False,
        tensor_rates=(1024, 512, 0),
    )


def _ampere(
    arch: str,
    shared_kib: int,
    threads: int,
    blocks: int,
    multiprocessors: int,
    l2_mib: int,
    gigabytes: float,
    clock: int,
    halves: int,
) -> Gpu:
    """Ampere, Ada and Hopper: a block gets all shared memory but 1 KiB, which the system keeps.

    ``halves`` is the rate of tensor cores for float16, TF32 has half of it. GeForce cards sum both in float32
    at half the rate of others of their architecture, but bytes at the same (GA102 and Ada whitepapers: RTX
    3090 71 TFLOP/s, 256 a cycle; A40 150, 512; RTX 4090 165, 256; L4 121, 512). An A10, A40 or L40 is taken
    for the GeForce card of its architecture here: its roof for halves is twice what is said.
    """
    geforce = halves == _GEFORCE
    return Gpu(
        arch=arch,
        multiprocessors=multiprocessors,
        fma_lanes=64 if arch == "sm_80" else 128,
        shared_bytes=(shared_kib - 1) * KIB,
        shared_bytes_per_multiprocessor=shared_kib * KIB,
        threads_per_multiprocessor=threads,
        blocks_per_multiprocessor=blocks,
        l2_bytes=l2_mib * MIB,
        bandwidth=int(gigabytes * 1e9),
        clock=clock,
        tensor_core_dtypes=_AMPERE,
        async_copy=True,
        cluster_blocks=8 if int(arch.removeprefix("sm_")) >= 90 else 1,
        tensor_rates=((4 if geforce else 2) * halves, halves, halves // 2),
    )


_GEFORCE = 256
# Multiprocessors, L2 in MiB, GB/s, boost clock in Hz; from Ampere on the rate of halves.
_T4 = _turing(40, 4, 320, 1_590_000_000)
_A100 = _ampere("sm_80", 164, 2048, 32, 108, 40, 2039, 1_410_000_000, 1024)  # 80 GB, SXM
_RTX_3090 = _ampere("sm_86", 100, 1536, 16, 82, 6, 936, 1_695_000_000, _GEFORCE)
_ORIN = _ampere("sm_87", 164, 1536, 16, 16, 4, 204.8, 1_300_000_000, 1024)  # AGX Orin 64 GB
_RTX_4090 = _ampere("sm_89", 100, 1536, 24, 128, 72, 1008, 2_520_000_000, _GEFORCE)
_L4 = _ampere("sm_89", 100, 1536, 24, 58, 48, 300, 2_040_000_000, 512)
_H100 = _ampere(
    "sm_90", 228, 2048, 32, 132, 50, 3350, 1_980_000_000, 2048
)  # SXM; 67 TFLOP/s of float32
_H200 = _ampere("sm_90", 228, 2048, 32, 132, 50, 4800, 1_980_000_000, 2048)

MACHINES = (
    _machine("sm_75", "NVIDIA Turing: T4, RTX 20", _T4),
    _machine("sm_80", "NVIDIA Ampere: A100, A30", _A100),
    _machine("sm_86", "NVIDIA Ampere: RTX 30, A10, A40", _RTX_3090),
    _machine("sm_87", "NVIDIA Jetson Orin, with an ARM host", _ORIN, "aarch64"),
    _machine("sm_89", "NVIDIA Ada: RTX 40, L40", _RTX_4090),
    _machine("l4", "NVIDIA L4, Ada", _L4),
    _machine("sm_90", "NVIDIA Hopper: H100", _H100),
    _machine("h200", "NVIDIA H200, Hopper with faster memory", _H200),
)

# Of the peak on Hopper, which wgmma reaches, mma.sync does two thirds.
_MMA_SYNC = (1350, 2048)


def card(machine: Machine) -> Gpu:
    """Facts of the GPU, which every machine here has; raises HardwarePackError for another pack's CPU."""
    if machine.gpu is None:
        raise HardwarePackError(f"{machine.name} is no GPU: a schedule for GPUs was asked for it")
    return machine.gpu


def tensor_rate(gpu: Gpu, item_bytes: int) -> int:
    """Multiply-adds a cycle of a multiprocessor's tensor cores by mma.sync, of operands of so many bytes."""
    peak = gpu.tensor_rates[item_bytes.bit_length() - 1]
    share, whole = _MMA_SYNC if gpu.capability >= (9, 0) else (1, 1)
    return peak * share // whole


CARDS = {
    "t4": "sm_75",
    "a100": "sm_80",
    "rtx-3090": "sm_86",
    "jetson-orin-gpu": "sm_87",  # jetson-orin is its CPU
    "rtx-4090": "sm_89",
    "h100": "sm_90",
}

_TOO_OLD = (
    "CUDA 13, which makes the kernels, knows no GPU older than sm_75 (Turing). Use a card from sm_75 on, or "
    "run on that machine's CPU: --machine host there. `tvmconv machines` lists what can be built for."
)
_TOO_NEW = (
    "It has no facts and no records here yet. Build for sm_90: the bundle also holds PTX, which the driver "
    "of a newer card compiles when it is loaded."
)
# Names that people ask for, and what to do in place of that.
UNAVAILABLE = {
    **dict.fromkeys(("sm_50", "sm_52", "sm_60", "sm_61", "p100", "p4", "p40"), _TOO_OLD),
    **dict.fromkeys(("sm_70", "sm_72", "v100", "titan-v", "jetson-xavier"), _TOO_OLD),
    **dict.fromkeys(("sm_100", "sm_103", "sm_120", "b200", "gb200", "rtx-5090"), _TOO_NEW),
}
