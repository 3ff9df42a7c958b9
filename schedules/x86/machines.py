"""x86-64 CPUs as data, and which of them this process runs on.

Sources: the psABI's micro-architecture levels for x86-64-v2 to -v4; Intel's optimisation reference
manual and AMD's software optimisation guides for ports, latencies and caches; agner.org's tables where
those are silent. ``features`` are the flags that LLVM's code generator may use for the CPU of that
name; tests/schedules/test_x86_machines.py compares them with LLVM's own list.
"""

from __future__ import annotations

from tvmconv.hardware import Cpu, Machine, host

KIB = 1024

_V2 = ("cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3")
_V3 = (*_V2, "abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe")
_V4 = (*_V3, "avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl")
_VBMI = ("avx512ifma", "avx512vbmi", "avx512_vbmi2", "avx512_bitalg", "avx512_vpopcntdq", "gfni")
_VNNI = (*_V4, "avx512_vnni")
_ICELAKE = (*_VNNI, *_VBMI)
_AMX = ("amx_tile", "amx_int8", "amx_bf16")
_SSE4A = ("sse4a",)  # LLVM shuffles bytes and halves with AMD's EXTRQ


def _tuning(features: tuple[str, ...]) -> dict[str, list[str]]:
    """Keep vpdpwssd in one piece: LLVM 22 makes two instructions of it on Intel, for a shorter latency.

    A depthwise tile has sums enough to wait for: 3x3 of bytes, 28x28x192, takes 31 us in place of 42, and
    112x112x96 with stride 2 103 in place of 126 (Sapphire Rapids, 2026-11-23).
    """
    has_vnni = "avx512_vnni" in features or "avx_vnni" in features
    return {"mattr": ["+fast-dpwssd"]} if has_vnni else {}


def _machine(
    name: str,
    description: str,
    features: tuple[str, ...],
    vector_bits: int,
    l1_kib: int,
    l2_kib: int,
    fma_latency: int = 4,
) -> Machine:
    """Two FMA and two load ports, as every core below has; AVX-512 brings 32 registers."""
    return Machine(
        name=name,
        description=description,
        architecture="x86_64",
        target={"kind": "llvm", "mcpu": name, "mtriple": "x86_64-linux-gnu", **_tuning(features)},
        features=features,
        core=Cpu(
            vector_bytes=vector_bits // 8,
            vector_registers=32 if vector_bits == 512 else 16,
            fma_ports=2,
            fma_latency=fma_latency,
            load_ports=2,
            l1_bytes=l1_kib * KIB,
            l2_bytes=l2_kib * KIB,
        ),
    )


GENERIC = (
    # The smallest caches of any core of the level, so that a tile fits wherever it runs.
    _machine("x86-64-v4", "any x86-64 with AVX-512", _V4, 512, 32, 1024),
    _machine("x86-64-v3", "any x86-64 with AVX2 and FMA", _V3, 256, 32, 256),
    # No FMA: a multiply and an add, latency of both.
    _machine("x86-64-v2", "any x86-64 with SSE4.2", _V2, 128, 32, 256, fma_latency=8),
)

# Each more specific than those behind it; where the instructions that LLVM may use are the same
# (clflushopt, vaes, amx_fp16 and avx512_vp2intersect are not among them), one more tells them apart.
INTEL = (
    _machine(
        "graniterapids",
        "Intel Xeon 6 with P-cores",
        (*_ICELAKE, "avx512_bf16", "avx512_fp16", "avx_vnni", *_AMX, "amx_fp16"),
        512,
        48,
        2048,
    ),
    _machine(
        "sapphirerapids",
        "Intel Xeon, 4th and 5th generation",
        (*_ICELAKE, "avx512_bf16", "avx512_fp16", "avx_vnni", *_AMX),
        512,
        48,
        2048,
    ),
    _machine("icelake-server", "Intel Xeon, 3rd generation", _ICELAKE, 512, 48, 1280),
    _machine("cascadelake", "Intel Xeon, 2nd generation", _VNNI, 512, 32, 1024),
    _machine("skylake-avx512", "Intel Xeon, 1st generation scalable", _V4, 512, 32, 1024),
    _machine(
        "alderlake",
        "Intel Core, 12th to 14th generation",
        (*_V3, "avx_vnni", "gfni"),
        256,
        48,
        1280,
    ),
    _machine("skylake", "Intel Core, 6th to 10th generation", (*_V3, "clflushopt"), 256, 32, 256),
    _machine("haswell", "Intel Core and Xeon, 4th generation", _V3, 256, 32, 256, fma_latency=5),
)

AMD = (
    _machine(
        "znver5",
        "AMD Zen 5",
        (*_ICELAKE, *_SSE4A, "avx512_bf16", "avx_vnni", "avx512_vp2intersect"),
        512,
        48,
        1024,
    ),
    # 512-bit instructions take both 256-bit halves of a port: half the rate, the same tiles.
    _machine("znver4", "AMD Zen 4", (*_ICELAKE, *_SSE4A, "avx512_bf16"), 512, 32, 1024),
    _machine("znver3", "AMD Zen 3", (*_V3, *_SSE4A, "vaes"), 256, 32, 512),
    _machine("znver2", "AMD Zen 2", (*_V3, *_SSE4A), 256, 32, 512, fma_latency=5),
)

# Where vdpbf16ps, two multiply-adds a lane, makes half as many of them in the same time as float32's
# instruction: 109 GFLOP/s of 219 (Sapphire Rapids, 2026-11-23; Granite Rapids has the same core). No AMD
# processor was measured.
SLOW_BFLOAT16 = ("graniterapids", "sapphirerapids")

# Where a depthwise image behind the second level is faster by blocks of channels than in memory's own order:
# 256x256x144 takes 2.35 ms in place of 3.06 with the same tile's rows, on Zen 5; on Zen 3 tuning made it and
# 512x512x96 at stride 2 2.3 to 2.6 times as fast as memory's order (2026-11).
STRIDED = ("znver2", "znver3", "znver4", "znver5")
# And where such a block, whole images long, is faster than rows of tiles as long as the third level holds it:
# 7x7x960 3.0 us in place of 5.0, 14x14x384 4.8 of 6.5, 56x56x144 36.8 of 42.9 (Zen 5, 2026-11).
CHANNELS_OUTER = ("znver5",)
# Whose second level hands a whole line a cycle to the first.
WHOLE_LINES = ("znver5",)

MACHINES = (*INTEL, *AMD, *GENERIC)

_BY_VENDOR = {"GenuineIntel": INTEL, "AuthenticAMD": AMD}


def detect() -> Machine | None:
    """Return the most specific machine all of whose features this CPU shows; None elsewhere.

    By features and not by family and model, as LLVM does it: virtual machines show invented models
    (one Xeon of the fourth generation calls itself model 167, which is a desktop Rocket Lake).
    """
    if host.architecture() != "x86_64":
        return None
    features = host.cpu_features()
    for machine in (*_BY_VENDOR.get(host.cpu_vendor(), ()), *GENERIC):
        if features.issuperset(machine.features):
            return machine
    return None
