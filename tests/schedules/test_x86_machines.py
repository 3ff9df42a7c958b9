"""x86 machines as data: what LLVM may use is what they ask for, and detection goes by features."""

from __future__ import annotations

import pytest
import tvm
from tvm.target import codegen

from tvmconv import hardware
from tvmconv.errors import HardwarePackError
from tvmconv.hardware import host

MACHINES = hardware.load_pack("x86").machines

# LLVM's name -> the flag in /proc/cpuinfo, for all that its code generator may emit by itself from
# the arithmetic, loads, stores and calls of a kernel.
GENERATED = {
    "sse3": "pni",
    "ssse3": "ssse3",
    "sse4.1": "sse4_1",
    "sse4.2": "sse4_2",
    "sse4a": "sse4a",
    "avx": "avx",
    "avx2": "avx2",
    "fma": "fma",
    "f16c": "f16c",
    "avx512f": "avx512f",
    "avx512bw": "avx512bw",
    "avx512cd": "avx512cd",
    "avx512dq": "avx512dq",
    "avx512vl": "avx512vl",
    "avx512ifma": "avx512ifma",
    "avx512vbmi": "avx512vbmi",
    "avx512vbmi2": "avx512_vbmi2",
    "avx512bitalg": "avx512_bitalg",
    "avx512vpopcntdq": "avx512_vpopcntdq",
    "avx512vnni": "avx512_vnni",
    "avx512bf16": "avx512_bf16",
    "avx512fp16": "avx512_fp16",
    "avxvnni": "avx_vnni",
    # Not by itself, but schedules do (schedules/x86/amx_code.py).
    "amx-tile": "amx_tile",
    "amx-int8": "amx_int8",
    "amx-bf16": "amx_bf16",
    "gfni": "gfni",
    "bmi": "bmi1",
    "bmi2": "bmi2",
    "lzcnt": "abm",
    "popcnt": "popcnt",
    "movbe": "movbe",
    "cx16": "cx16",
    "sahf": "lahf_lm",
}

# Features that a kernel cannot contain, or that every x86-64 has, by the reason.
NOT_GENERATED = {
    "part of x86-64 from the first processor on": (
        "64bit 64bit-mode cmov cx8 fxsr mmx nopl sse sse2 x87"
    ),
    "only by intrinsics or inline assembly: cryptography, carry chains, matrix tiles, checksums": (
        "aes vaes sha pclmul vpclmulqdq kl widekl crc32 adx amx-fp16 avx512vp2intersect"
    ),
    "only by intrinsics: time, random numbers, processor identity, tracing, waiting, direct stores": (
        "rdrnd rdseed rdpid rdpru ptwrite pconfig waitpkg mwaitx enqcmd hreset serialize tsxldtrk "
        "uintr movdiri movdir64b"
    ),
    "only by intrinsics: caches; TVM emits no prefetch unless a schedule asks, and PREFETCHW is a "
    "no-op where it is missing": "cldemote clflushopt clwb clzero wbnoinvd prfchw prefetchi",
    "for the operating system: state, segments, protection keys, shadow stacks": (
        "xsave xsavec xsaveopt xsaves fsgsbase invpcid pku shstk"
    ),
    "tuning: which of the instructions that all have is the faster": (
        "allow-light-256-bit branch-hint branchfusion ermsb false-deps-getmant "
        "false-deps-lzcnt-tzcnt false-deps-mulc false-deps-mullq false-deps-perm "
        "false-deps-popcnt false-deps-range fast-15bytenop fast-bextr fast-dpwssd fast-gather "
        "fast-imm16 fast-lzcnt fast-movbe fast-scalar-fsqrt fast-scalar-shift-masks "
        "fast-shld-rotate fast-variable-crosslane-shuffle fast-variable-perlane-shuffle "
        "fast-vector-fsqrt faster-shift-than-shuffle fsrm idivq-to-divl macrofusion "
        "no-bypass-delay-blend no-bypass-delay-mov no-bypass-delay-shuffle prefer-256-bit "
        "prefer-movmsk-over-vtest sbb-dep-breaking slow-3ops-lea slow-pmullq slow-shld "
        "slow-unaligned-mem-32 tuning-fast-imm-vector-shift vzeroupper"
    ),
}
# Not generated, but asked for where nothing generated differs from the generation before.
TELLING_APART = {
    "amx-fp16": "amx_fp16",
    "avx512vp2intersect": "avx512_vp2intersect",
    "clflushopt": "clflushopt",
    "vaes": "vaes",
}
EXCLUDED = {name for names in NOT_GENERATED.values() for name in names.split()}


def llvm_features(machine: hardware.Machine) -> set[str]:
    return set(map(str, codegen.llvm_get_cpu_features(tvm.target.Target(dict(machine.target)))))


all_machines = pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)


def test_no_feature_is_in_both_lists():
    assert not EXCLUDED & set(GENERATED)
    assert len(EXCLUDED) == sum(len(names.split()) for names in NOT_GENERATED.values())


@all_machines
def test_every_feature_of_llvm_is_in_one_of_the_lists(machine):
    assert llvm_features(machine) - EXCLUDED - set(GENERATED) == set()


@all_machines
def test_features_cover_all_that_llvm_may_use(machine):
    needed = {GENERATED[name] for name in llvm_features(machine) if name in GENERATED}

    assert needed - set(machine.features) == set()


@all_machines
def test_features_ask_for_nothing_else_that_llvm_does_not_know_there(machine):
    """A feature too many would keep kernels from processors that can run them."""
    names = {**GENERATED, **TELLING_APART}
    flags = {names[name] for name in llvm_features(machine) if name in names}

    assert set(machine.features) - flags == set()


@all_machines
def test_registers_are_those_of_the_features(machine):
    wide, medium = "avx512f" in machine.features, "avx2" in machine.features
    assert machine.cpu.vector_bytes == (64 if wide else 32 if medium else 16)
    assert machine.cpu.vector_registers == (32 if wide else 16)


@all_machines
def test_a_vector_fits_the_caches(machine):
    assert machine.cpu.vector_bytes < machine.cpu.l1_bytes < machine.cpu.l2_bytes


def flags_of(*names: str, without: str = "") -> str:
    """The flags of all these machines, among those that every processor has."""
    flags = {flag for machine in MACHINES if machine.name in names for flag in machine.features}
    return " ".join(sorted({"fpu", "sse2", "lm", *flags} - set(without.split())))


PROCESSORS = {
    "sapphire_rapids": ("GenuineIntel", 143, flags_of("sapphirerapids"), "sapphirerapids"),
    "sapphire_rapids_as_a_rocket_lake": (
        "GenuineIntel",
        167,
        flags_of("sapphirerapids"),
        "sapphirerapids",
    ),
    "invented_model": ("GenuineIntel", 9999, flags_of("icelake-server"), "icelake-server"),
    "zen4": ("AuthenticAMD", 97, flags_of("znver4"), "znver4"),
    "cascade_lake_without_its_vnni": (
        "GenuineIntel",
        85,
        flags_of("cascadelake", without="avx512_vnni"),
        "skylake-avx512",
    ),
    "knights_landing": (
        "GenuineIntel",
        87,
        flags_of("haswell") + " avx512f avx512cd avx512er avx512pf",
        "haswell",
    ),
    "avx2_of_an_unknown_vendor": ("CentaurHauls", 59, flags_of("x86-64-v3"), "x86-64-v3"),
    "avx512_of_an_unknown_vendor": ("HygonGenuine", 4, flags_of("x86-64-v4"), "x86-64-v4"),
    "sse42": ("GenuineIntel", 37, flags_of("x86-64-v2"), "x86-64-v2"),
}


def fake_host(monkeypatch, tmp_path, vendor: str, model: int, *flags_by_core: str) -> None:
    cores = [
        f"processor\t: {core}\nvendor_id\t: {vendor}\ncpu family\t: 6\nmodel\t\t: {model}\n"
        f"model name\t: A Processor\nflags\t\t: {flags}\n"
        for core, flags in enumerate(flags_by_core)
    ]
    (tmp_path / "cpuinfo").write_text("\n".join(cores))
    monkeypatch.setattr(host, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(host, "architecture", lambda: "x86_64")
    monkeypatch.setattr(host, "_may_use_tiles", lambda: True)


@pytest.mark.parametrize("processor", PROCESSORS)
def test_detection_goes_by_features(monkeypatch, tmp_path, processor):
    vendor, model, flags, expected = PROCESSORS[processor]
    fake_host(monkeypatch, tmp_path, vendor, model, flags, flags)

    assert hardware.detect().name == expected


@all_machines
def test_a_processor_with_exactly_its_features_is_that_machine(monkeypatch, tmp_path, machine):
    vendor = "AuthenticAMD" if machine.name.startswith("znver") else "GenuineIntel"
    generic = machine.name.startswith("x86-64")
    fake_host(monkeypatch, tmp_path, "Other" if generic else vendor, 1, flags_of(machine.name))

    assert hardware.detect() == machine


@all_machines
@pytest.mark.parametrize("vendor", ["GenuineIntel", "AuthenticAMD", "Other"])
def test_every_vendor_with_these_features_gets_a_machine_that_runs_there(
    monkeypatch, tmp_path, machine, vendor
):
    fake_host(monkeypatch, tmp_path, vendor, 1, flags_of(machine.name))

    found = hardware.detect()

    assert set(found.features) <= set(machine.features)
    assert found.cpu.vector_bytes == machine.cpu.vector_bytes


def test_a_mixed_processor_is_what_all_of_its_cores_are(monkeypatch, tmp_path):
    big, little = flags_of("sapphirerapids"), flags_of("alderlake")
    fake_host(monkeypatch, tmp_path, "GenuineIntel", 1, big, little)

    assert hardware.detect().name == "alderlake"


def test_a_processor_below_all_levels_is_not_detected(monkeypatch, tmp_path):
    fake_host(monkeypatch, tmp_path, "GenuineIntel", 1, "fpu sse2 lm")

    with pytest.raises(HardwarePackError, match="A Processor"):
        hardware.detect()


def test_another_architecture_is_not_detected(monkeypatch):
    monkeypatch.setattr(host, "architecture", lambda: "aarch64")

    assert hardware.load_pack("x86").detect() is None
