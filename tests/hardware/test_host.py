"""What the host says of itself, on every kind of machine."""

import platform

import pytest

from tvmconv.errors import IncompatibleMachineError
from tvmconv.hardware import host

X86 = "processor\t: 0\nmodel name\t: A CPU @ 2 GHz\nflags\t\t: fpu avx2 fma\n\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\nCPU part\t: 0xd03\n\n"


def test_cpu_features_and_name_on_x86(monkeypatch, tmp_path):
    (tmp_path / "cpuinfo").write_text(X86 + X86.replace(" fma", ""))
    monkeypatch.setattr(host, "CPUINFO", tmp_path / "cpuinfo")
    assert host.cpu_features() == {"fpu", "avx2"}  # what both cores have
    assert host.cpu_name() == "A CPU @ 2 GHz"


@pytest.mark.parametrize("granted", [True, False])
def test_tiles_are_a_feature_only_where_the_kernel_grants_them(monkeypatch, tmp_path, granted):
    (tmp_path / "cpuinfo").write_text(X86.replace("fma", "amx_tile amx_int8"))
    monkeypatch.setattr(host, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(host, "_may_use_tiles", lambda: granted)
    assert host.cpu_features() - {"fpu", "avx2"} == ({"amx_tile", "amx_int8"} if granted else set())


def test_cpu_features_and_name_on_arm(monkeypatch, tmp_path):
    (tmp_path / "cpuinfo").write_text(ARM + ARM + ARM.replace("0xd03", "0xd08"))
    monkeypatch.setattr(host, "CPUINFO", tmp_path / "cpuinfo")
    assert host.cpu_features() == {"fp", "asimd"}
    assert host.cpu_name() == "Cortex-A53 + Cortex-A72"


def test_cpu_features_on_riscv_are_the_extensions_of_every_core(monkeypatch, tmp_path):
    core = "processor\t: 0\nisa\t\t: rv64imafdcv_zicbom_zba_zvfh\nuarch\t\t: spacemit,x60\n\n"
    (tmp_path / "cpuinfo").write_text(core + core.replace("_zvfh", ""))
    monkeypatch.setattr(host, "CPUINFO", tmp_path / "cpuinfo")
    assert host.cpu_features() == {*"imafdcv", "zicbom", "zba"}


def test_nothing_is_claimed_without_cpuinfo(monkeypatch, tmp_path):
    monkeypatch.setattr(host, "CPUINFO", tmp_path / "nothing")
    assert host.cpu_features() == frozenset()
    assert host.cpu_name() == "unknown CPU"


@pytest.mark.parametrize(
    ("machine", "bits", "expected"),
    [
        ("x86_64", 64, "x86_64"),
        ("AMD64", 64, "x86_64"),
        ("arm64", 64, "aarch64"),
        ("aarch64", 32, "armv7l"),  # 32-bit Raspberry Pi OS under a 64-bit kernel
        ("riscv64", 64, "riscv64"),
    ],
)
def test_architecture_is_that_of_the_process(monkeypatch, machine, bits, expected):
    monkeypatch.setattr(host.platform, "machine", lambda: machine)
    monkeypatch.setattr(host.sys, "maxsize", 2 ** (bits - 1) - 1)
    assert host.architecture() == expected


def test_a_32_bit_process_is_told_what_to_install(monkeypatch):
    host.require_64_bits()
    monkeypatch.setattr(host.platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(host.sys, "maxsize", 2**31 - 1)
    with pytest.raises(IncompatibleMachineError, match=r"32-bit program \(armv7l\).*64-bit system"):
        host.require_64_bits()


def test_glibc_is_that_of_the_process(monkeypatch):
    assert host.glibc() == platform.libc_ver()[1]
    monkeypatch.setattr(host.os, "confstr", lambda _: None)
    assert host.glibc() is None


@pytest.mark.parametrize(
    ("processes", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 8),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),
        # the tightest of the groups around the process counts
        ("0::/pod/box\n", {"pod/cpu.max": "300000 100000", "pod/box/cpu.max": "max 100000"}, 3),
        # a container that sees the host's path but only its own group
        ("0::/docker/123\n", {"cpu.max": "400000 100000"}, 4),
        # version 1
        (
            "4:cpu,cpuacct:/box\n",
            {"cpu/box/cpu.cfs_quota_us": "200000", "cpu/box/cpu.cfs_period_us": "100000"},
            2,
        ),
        (
            "4:cpu:/\n",
            {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
            8,
        ),
        ("4:cpuset:/\n", {}, 8),
    ],
)
def test_cores_respect_the_quota(monkeypatch, tmp_path, processes, files, expected):
    (tmp_path / "self").write_text(processes)
    for name, text in files.items():
        file = tmp_path / "groups" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.setattr(host, "PROCESS_CGROUPS", tmp_path / "self")
    monkeypatch.setattr(host, "CGROUPS", tmp_path / "groups")
    monkeypatch.setattr(host.os, "sched_getaffinity", lambda _: set(range(8)))
    assert host.available_cores() == expected


def test_cores_respect_the_affinity(monkeypatch, tmp_path):
    monkeypatch.setattr(host, "PROCESS_CGROUPS", tmp_path / "nothing")
    monkeypatch.setattr(host.os, "sched_getaffinity", lambda _: {3})
    assert host.available_cores() == 1
