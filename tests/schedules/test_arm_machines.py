"""ARM machines as data: what LLVM may use is what they ask for; boards and detection by part number."""

from __future__ import annotations

import pytest
import tvm
from tvm.target import codegen

from tvmconv import hardware
from tvmconv.checking import contract
from tvmconv.errors import HardwarePackError, UnknownNameError
from tvmconv.hardware import host

PACK = hardware.load_pack("arm")
CORES = [machine for machine in PACK.machines if machine.name != "armv8-a"]

# LLVM's name -> the flags in /proc/cpuinfo, for all that its code generator may emit by itself from the
# arithmetic, loads, stores and calls of a kernel.
GENERATED = {
    "fp-armv8": "fp",
    "neon": "asimd",
    "fullfp16": "fphp asimdhp",
    "rdm": "asimdrdm",
    "dotprod": "asimddp",
    "lse": "atomics",
    "complxnum": "fcma",
    "fp16fml": "asimdfhm",
    "sha3": "sha3",  # EOR3 and BCAX, from exclusive or
    "flagm": "flagm",
    "i8mm": "i8mm",
    "bf16": "bf16",
}

# Features that a kernel cannot contain, by the reason.
NOT_GENERATED = {
    "only by intrinsics: cryptography, checksums, JavaScript's conversion, random numbers": (
        "aes sha2 sm4 crc jsconv rand"
    ),
    "orderings and widths of atomic accesses, which kernels do not have": "rcpc rcpc-immo lse2",
    "signed return addresses, which are asked for by function": "pauth ccidx",
    "for the operating system: exception levels, privileges, caches, profiling, tracing": (
        "CONTEXTIDREL2 am ccdp ccpp dit el2vmsa el3 ete lor mpam nv pan pan-rwv perfmon ras sel2 spe "
        "ssbs tlb-rmi tracev8.4 trbe uaops vh"
    ),
    "names of what the others say": "v8a v8.1a v8.2a v8.3a v8.4a",
    "tuning: which of the instructions that all have is the faster": (
        "a53 a55 a72 a76 a78 neoversen1 neoversev1 addr-lsl-slow-14 alu-lsl-fast balance-fp-ops "
        "cmp-bcc-fusion disable-maximize-scalable-bandwidth enable-select-opt fuse-address fuse-adrp-add "
        "fuse-aes fuse-csel fuse-cset fuse-literals no-sve-fp-ld1r predictable-select-expensive "
        "use-postra-scheduler use-wzr-to-vec-move"
    ),
}
EXCLUDED = {name for names in NOT_GENERATED.values() for name in names.split()}

all_machines = pytest.mark.parametrize("machine", PACK.machines, ids=lambda machine: machine.name)


def llvm_features(machine: hardware.Machine) -> set[str]:
    return set(map(str, codegen.llvm_get_cpu_features(tvm.target.Target(dict(machine.target)))))


def test_no_feature_is_in_both_lists():
    assert not EXCLUDED & set(GENERATED)
    assert len(EXCLUDED) == sum(len(names.split()) for names in NOT_GENERATED.values())


@all_machines
def test_every_feature_of_llvm_is_in_one_of_the_lists(machine):
    assert llvm_features(machine) - EXCLUDED - set(GENERATED) == set()


@all_machines
def test_features_are_what_llvm_may_use_and_nothing_else(machine):
    flags = {f for name in llvm_features(machine) & set(GENERATED) for f in GENERATED[name].split()}

    assert set(machine.features) == flags


@all_machines
def test_vectors_have_128_bits_and_no_unknown_length(machine):
    assert not any(name.startswith(("sve", "sme")) for name in llvm_features(machine))
    assert (machine.cpu.vector_bytes, machine.cpu.vector_registers) == (16, 32)


@pytest.mark.parametrize("board", PACK.aliases)
def test_boards_are_names_of_their_cores(board):
    machine, pack = hardware.find_machine(board)

    assert machine.name == PACK.aliases[board]
    assert hardware.find_machine(machine.name) == (machine, pack)


def test_boards_are_among_the_names_of_an_unknown_machine():
    with pytest.raises(UnknownNameError, match="Did you mean raspberry-pi-4"):
        hardware.find_machine("raspberrypi4")


@pytest.mark.parametrize(
    "aliases", [{"board": "abacus"}, {"cortex-a72": "cortex-a53"}, {"armv8-a": "armv8-a"}]
)
def test_an_alias_is_a_new_name_for_a_machine_of_the_pack(aliases):
    with pytest.raises(
        HardwarePackError, match="an alias is a new name for one of armv8-a, cortex-a53"
    ):
        hardware.HardwarePack("arm", PACK.machines, (), aliases=aliases)


def test_an_alias_must_be_well_formed():
    pack = hardware.HardwarePack("arm", PACK.machines, (), aliases={"Pi 4": "cortex-a72"})

    with pytest.raises(HardwarePackError, match="'Pi 4' is no name for a machine"):
        contract.check_pack(pack)


def core(part: str, features: str, implementer: str = "0x41") -> str:
    return (
        f"processor\t: 0\nFeatures\t: {features}\nCPU implementer\t: {implementer}\n"
        f"CPU architecture: 8\nCPU part\t: {part}\n\n"
    )


# As the boards' Linux shows them.
PI4 = "fp asimd evtstrm crc32 cpuid"
V82 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
GRAVITON3 = (
    f"{V82} jscvt fcma sha3 sm3 sm4 sha512 sve asimdfhm dit uscat ilrcpc flagm ssbs paca pacg dcpodp "
    "svei8mm svebf16 i8mm bf16 dgh rng"
)
HOSTS = {
    "raspberry-pi-3": (core("0xd03", PI4) * 4, "cortex-a53"),
    "raspberry-pi-4": (core("0xd08", PI4) * 4, "cortex-a72"),
    "raspberry-pi-5": (core("0xd0b", V82) * 4, "cortex-a76"),
    "rk3399": (core("0xd03", PI4) * 4 + core("0xd08", PI4) * 2, "cortex-a72"),
    "rk3588": (core("0xd05", V82) * 4 + core("0xd0b", V82) * 4, "cortex-a76"),
    "jetson-orin": (core("0xd42", V82) * 8, "cortex-a78"),
    "aws-graviton2": (core("0xd0c", V82 + " ssbs") * 2, "neoverse-n1"),
    "aws-graviton3": (core("0xd40", GRAVITON3) * 2, "neoverse-v1"),
    "a55_alone": (core("0xd05", V82) * 4, "cortex-a55"),
    "v1_whose_hypervisor_hides_bf16": (core("0xd40", GRAVITON3.replace(" bf16", "")), "armv8-a"),
    "a76_beside_an_unknown_core": (core("0xd0b", V82) + core("0xfff", V82), "cortex-a76"),
    "unknown_core": (core("0xfff", V82), "armv8-a"),
    "another_maker_with_the_same_number": (core("0xd08", PI4, "0x61"), "armv8-a"),
    "no_numbers_at_all": (f"Features\t: {PI4}\n", "armv8-a"),
}


def fake_host(monkeypatch, tmp_path, text: str) -> None:
    """This process runs on such a board: numbers from /proc/cpuinfo, features as its Linux reports them."""
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(host, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(host, "architecture", lambda: "aarch64")
    lines = [line.partition(":")[2] for line in text.splitlines() if line.startswith("Features")]
    features = frozenset.intersection(*(frozenset(line.split()) for line in lines))
    monkeypatch.setattr(host, "cpu_features", lambda: features)


@pytest.mark.parametrize("name", HOSTS)
def test_detection_goes_by_part_and_features(monkeypatch, tmp_path, name):
    text, expected = HOSTS[name]
    fake_host(monkeypatch, tmp_path, text)

    assert hardware.detect().name == expected
    if name in PACK.aliases:
        assert PACK.aliases[name] == expected


def test_every_core_is_detected_by_some_part():
    assert {machine.name for machine in CORES} == {name for _, name in HOSTS.values()} - {"armv8-a"}


def test_a_core_without_vectors_is_not_detected(monkeypatch, tmp_path):
    fake_host(monkeypatch, tmp_path, core("0xd08", "evtstrm"))

    assert PACK.detect() is None


def test_another_architecture_is_not_detected(monkeypatch):
    monkeypatch.setattr(host, "architecture", lambda: "x86_64")

    assert PACK.detect() is None
