"""What this process runs on: architecture, CPU features, cores; bundles are matched against it.

Standard library only: the inference machine imports it before anything else is known to work.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

from tvmconv.errors import IncompatibleMachineError

CPUINFO = Path("/proc/cpuinfo")
CGROUPS = Path("/sys/fs/cgroup")
PROCESS_CGROUPS = Path("/proc/self/cgroup")

_TILE_FEATURES = {"amx_tile", "amx_int8", "amx_bf16", "amx_fp16", "amx_complex"}
_ARCHITECTURES = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64"}
# A 32-bit process under a 64-bit kernel (Raspberry Pi OS does this) cannot open 64-bit libraries.
_NARROW = {"x86_64": "i686", "aarch64": "armv7l"}
# ARM's /proc/cpuinfo has numbers only; names as in the Main ID Register tables of Arm's manuals.
_ARM_PARTS = {
    "0xd03": "Cortex-A53",
    "0xd04": "Cortex-A35",
    "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd09": "Cortex-A73",
    "0xd0a": "Cortex-A75",
    "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse-N1",
    "0xd0d": "Cortex-A77",
    "0xd40": "Neoverse-V1",
    "0xd41": "Cortex-A78",
    "0xd42": "Cortex-A78AE",
    "0xd44": "Cortex-X1",
    "0xd49": "Neoverse-N2",
    "0xd4f": "Neoverse-V2",
}
ARM_LIMITED = "0x41"  # the only implementer whose part numbers the table above lists
# The kernel's own words, from bit 0 on: arch/arm64/include/uapi/asm/hwcap.h, spelt as in /proc/cpuinfo.
_AT_HWCAP, _AT_HWCAP2 = 16, 26  # of <elf.h>
_HWCAP = (
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm jscvt fcma lrcpc "
    "dcpop sha3 sm3 sm4 asimddp sha512 sve asimdfhm dit uscat ilrcpc flagm ssbs sb paca pacg"
)
_HWCAP2 = (
    "dcpodp sve2 sveaes svepmull svebitperm svesha3 svesm4 flagm2 frint svei8mm svef32mm svef64mm "
    "svebf16 i8mm bf16 dgh rng bti mte ecv afp rpres mte3 sme smei16i64 smef64f64 smei8i32 smef16f32 "
    "smeb16f32 smef32f32 smefa64 wfxt ebf16 sveebf16"
)


def architecture() -> str:
    """Name this process's instruction set: ``x86_64``, ``aarch64``, or what the system says."""
    machine = platform.machine().lower()
    machine = _ARCHITECTURES.get(machine, machine)
    return machine if sys.maxsize > 2**32 else _NARROW.get(machine, machine)


def require_64_bits() -> None:
    """Raise IncompatibleMachineError in a 32-bit process: neither TVM nor NumPy has packages for it."""
    if sys.maxsize < 2**32:
        raise IncompatibleMachineError(
            f"this Python is a 32-bit program ({architecture()}), for which there is no apache-tvm-ffi: "
            "install a 64-bit system. A Raspberry Pi 3 or later runs the 64-bit Raspberry Pi OS."
        )


def glibc() -> str | None:
    """Return the release of this process's GNU C library, like ``2.36``; None if it has another one."""
    try:
        name, _, release = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (ValueError, OSError):  # musl, and systems that are not Linux
        return None
    return release if name == "glibc" else None


def operating_system() -> str:
    """Name the operating system in lower case, as Python's ``platform`` knows it: ``linux``."""
    return platform.system().lower()


def cpu_features() -> frozenset[str]:
    """Return the CPU's features under the names of Linux's ``/proc/cpuinfo``.

    On x86 these are the ``flags`` (``avx2``, ``fma``, ``avx512f``), on ARM the ``Features``
    (``asimd``, ``asimddp``), on RISC-V the extensions of the ``isa`` (``m``, ``v``, ``zba``). Only what
    every core has is returned: a kernel may run on any of them. Empty where there is no
    ``/proc/cpuinfo``.

    On aarch64 they are what the kernel tells this process in its auxiliary vector, the same on real
    boards; an emulator shows the host's ``/proc/cpuinfo``, but the emulated CPU's vector.
    """
    if (architecture(), operating_system()) == ("aarch64", "linux"):
        return _arm_features()
    cores = []
    for name, value in _cpuinfo_fields():
        if name in ("flags", "Features"):
            cores.append(frozenset(value.split()))
        elif name == "isa":
            cores.append(_riscv_extensions(value))
    found = frozenset.intersection(*cores) if cores else frozenset()
    return found if "amx_tile" not in found or _may_use_tiles() else found - _TILE_FEATURES


@functools.cache
def _may_use_tiles() -> bool:
    """Ask Linux for AMX's tile registers, which a process must do once; True if it may have them.

    arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA): see the kernel's Documentation/arch/x86/xstate.rst.
    It fails under a seccomp filter that does not know it, and beside alternative signal stacks that are
    too small for the tiles.
    """
    arch_prctl, request_permission, tile_data = 158, 0x1023, 18
    return bool(ctypes.CDLL(None).syscall(arch_prctl, request_permission, tile_data) == 0)


def _arm_features() -> frozenset[str]:
    getauxval = ctypes.CDLL(None).getauxval
    getauxval.restype, getauxval.argtypes = ctypes.c_ulong, [ctypes.c_ulong]
    words = ((_HWCAP, getauxval(_AT_HWCAP)), (_HWCAP2, getauxval(_AT_HWCAP2)))
    return frozenset(
        name for names, bits in words for bit, name in enumerate(names.split()) if bits >> bit & 1
    )


def _riscv_extensions(isa: str) -> frozenset[str]:
    """``rv64imafdcv_zba_zbb`` is single letters behind the width, then names between underscores."""
    letters, *names = isa.lower().split("_")
    return frozenset([*letters.removeprefix("rv64").removeprefix("rv32"), *names])


def cpu_name() -> str:
    """Return the CPU's marketing or core name, or ``unknown CPU``.

    On ARM a board may mix cores: their distinct names are joined with `` + ``.
    """
    for name, value in _cpuinfo_fields():
        if name == "model name":
            return value
    cores = [
        (_ARM_PARTS.get(part) if implementer == ARM_LIMITED else None)
        or f"ARM implementer {implementer} part {part}"
        for implementer, part in cpu_parts()
    ]
    return " + ".join(cores) or "unknown CPU"


def cpu_parts() -> list[tuple[str, str]]:
    """Return ARM's (implementer, part number) of each kind of core, as written in ``/proc/cpuinfo``.

    In the order in which they come there; empty on other architectures.
    """
    implementer = ""
    parts: list[tuple[str, str]] = []
    for name, value in _cpuinfo_fields():
        if name == "CPU implementer":
            implementer = value
        elif name == "CPU part" and (implementer, value) not in parts:
            parts.append((implementer, value))
    return parts


def cpu_vendor() -> str:
    """Return x86's vendor string (``GenuineIntel``, ``AuthenticAMD``), or nothing elsewhere."""
    return next((value for name, value in _cpuinfo_fields() if name == "vendor_id"), "")


def available_cores() -> int:
    """Return how many threads can really run at once: at least 1.

    The smaller of the process's CPU affinity (``taskset``, cpusets) and the control groups' CPU
    quota (``docker --cpus``, Kubernetes limits), which ``os.cpu_count()`` knows nothing of. A quota
    of 2.5 cores counts as 2: a third thread would only have the others throttled.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        cores = os.cpu_count() or 1
    quotas = [int(quota) for quota in _cgroup_quotas()]
    return max(1, min([cores, *quotas]))


def _cpuinfo_fields() -> Iterator[tuple[str, str]]:
    try:
        text = CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            yield name.strip(), value.strip()


def _cgroup_quotas() -> Iterator[float]:
    """Yield the CPU quotas, in cores, of this process's control groups and of those around it."""
    try:
        lines = PROCESS_CGROUPS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:  # version 2: one hierarchy; beside version 1 it is mounted as "unified"
            roots, quota = [CGROUPS, CGROUPS / "unified"], _quota_v2
        elif "cpu" in controllers.split(","):
            roots, quota = [CGROUPS / "cpu", CGROUPS / "cpu,cpuacct"], _quota_v1
        else:
            continue
        for root in roots:
            # Without a cgroup namespace the path names a folder of the host that a container does
            # not see; its parents end at the mount's root, which is the container's own group.
            group = root / path.strip("/")
            for folder in [group, *group.parents]:
                found = quota(folder)
                if found is not None:
                    yield found
                if folder == root:
                    break


def _quota_v2(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _quota_v1(folder: Path) -> float | None:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
        return None if quota < 0 else quota / period
    except (OSError, ValueError, ZeroDivisionError):
        return None
