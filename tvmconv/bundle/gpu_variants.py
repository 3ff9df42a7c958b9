"""Which variant of a bundle runs on a GPU; standard library only."""

from __future__ import annotations

import re
from collections.abc import Collection

from tvmconv import errors
from tvmconv.bundle import variants
from tvmconv.bundle.manifest import Manifest, Variant
from tvmconv.hardware.cuda_driver import Device, capability


def runs_on(arch: str, device: Device) -> bool:
    """Whether machine code for ``arch``, or the PTX beside it, runs there.

    Machine code runs on GPUs of the same major and no smaller minor number. The driver compiles PTX for
    every newer one.
    """
    return device.capability >= capability(arch)


def has_machine_code(arch: str, device: Device) -> bool:
    """Whether it runs there without being compiled by the driver."""
    made = capability(arch)
    return made[0] == device.capability[0] and made <= device.capability


def choose(
    manifest: Manifest,
    device: Device,
    architecture: str,
    features: Collection[str],
    operating_system: str = "linux",
    machine: str | None = None,
    glibc: str | None = None,
) -> Variant:
    """Return the best variant for ``device`` on a host of that architecture.

    One with machine code for it comes before one that the driver compiles, a newer architecture before an
    older, and then one that is named as the card is. ``machine`` restricts the choice to the variant of
    that name, or of a card's; UnknownNameError if there is none. Raises IncompatibleMachineError, which
    lists what is in the way of each variant.
    """
    reasons, fitting = [], []
    for variant in variants.named(manifest, machine):
        reason = _obstacle(variant, device) or variants.obstacle(
            variant, architecture, features, operating_system, glibc
        )
        if reason is None:
            fitting.append(variant)
        else:
            reasons.append(f"{variant.machine} {reason}")
    if fitting:
        return max(fitting, key=lambda variant: _rank(variant, device))
    raise errors.IncompatibleMachineError(
        f"no variant of this bundle runs on {device}:\n  "
        + "\n  ".join(reasons)
        + f"\nBuild one for it, on any machine: tvmconv build WORKLOAD --machine {_advised(device)} "
        "--output PATH"
    )


def _obstacle(variant: Variant, device: Device) -> str | None:
    if variant.gpu is None:
        return "is for CPUs"
    if not runs_on(variant.gpu, device):
        return f"needs a GPU of {variant.gpu} or newer, this one is {device.arch}"
    return None


def _rank(variant: Variant, device: Device) -> tuple[bool, tuple[int, int], bool]:
    arch = variant.gpu or "sm_00"
    words = set(re.split(r"[^a-z0-9]+", device.name.lower()))
    named = set(variant.machine.split("-")) <= words
    return has_machine_code(arch, device), capability(arch), named


def _advised(device: Device) -> str:
    """The newest machine that this GPU's major number has kernels made for; sm_75 is the oldest."""
    known = ("sm_75", "sm_80", "sm_86", "sm_87", "sm_89", "sm_90")
    fitting = [arch for arch in known if runs_on(arch, device)]
    return fitting[-1] if fitting else "host"
