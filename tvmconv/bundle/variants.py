"""Which variant of a bundle runs on a CPU, and what compiled code needs; standard library only."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from tvmconv import errors
from tvmconv.bundle import manifest as bundle
from tvmconv.bundle.manifest import Manifest, Variant


def choose(
    manifest: Manifest,
    architecture: str,
    features: Collection[str],
    operating_system: str = "linux",
    machine: str | None = None,
    glibc: str | None = None,
) -> Variant:
    """Return the first variant that runs on a CPU where every one of its features is in ``features``.

    Variants for GPUs are never taken: `tvmconv.bundle.gpu_variants` chooses among those.
    ``machine`` restricts the choice to the variant of that name, or of a board's; UnknownNameError if
    there is none.
    ``glibc`` is the release of this process's C library, None where it is another one.
    Raises IncompatibleMachineError, which lists what each variant lacks.
    """
    reasons = []
    for variant in named(manifest, machine):
        reason = (
            f'is for GPUs of {variant.gpu}: tvmconv.load(..., device="cuda")'
            if variant.gpu
            else obstacle(variant, architecture, features, operating_system, glibc)
        )
        if reason is None:
            return variant
        reasons.append(f"{variant.machine} {reason}")
    raise errors.IncompatibleMachineError(
        "no variant of this bundle runs on this machine:\n  "
        + "\n  ".join(reasons)
        + f"\nBuild one for it, on this machine: {bundle.remake(manifest.model is not None)}\n"
        "or elsewhere, with the machine's name in place of host (tvmconv machines lists them)"
    )


def named(manifest: Manifest, machine: str | None) -> list[Variant]:
    """Return the variants that are called so, or all for None; UnknownNameError if there is none."""
    found = [each for each in manifest.variants if machine is None or each.is_called(machine)]
    if not found and machine is not None:
        names = (
            f"{each.machine} ({', '.join(each.also)})" if each.also else each.machine
            for each in manifest.variants
        )
        raise errors.UnknownNameError(
            f"the bundle has no variant {machine!r}; it has {', '.join(names)}"
        )
    return found


class Needs(Protocol):
    """What compiled code needs of the machine that it runs on."""

    @property
    def architecture(self) -> str: ...  # noqa: D102 - as in Variant
    @property
    def os(self) -> str: ...  # noqa: D102
    @property
    def features(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def glibc(self) -> str | None: ...  # noqa: D102


def obstacle(
    needs: Needs,
    architecture: str,
    features: Collection[str],
    operating_system: str,
    glibc: str | None,
) -> str | None:
    """Say why code does not run here: what it needs, and what there is; None where it runs."""
    if (needs.architecture, needs.os) != (architecture, operating_system):
        return (
            f"is for {needs.architecture} {needs.os}, this process is {architecture} "
            f"{operating_system}"
        )
    missing = [name for name in needs.features if name not in features]
    if missing:
        return f"needs {', '.join(missing)}, which this CPU lacks"
    if not has_glibc(needs.glibc, glibc):
        here = f"glibc {glibc}" if glibc else "another C library"
        return f"needs glibc {needs.glibc} or newer, this system has {here}"
    return None


def has_glibc(needed: str | None, found: str | None) -> bool:
    """Tell whether a system with glibc ``found`` (None for another C library) is new enough."""
    if needed is None or found is None:
        return needed is None
    return _numbers(found) >= _numbers(needed)


def _numbers(release: str) -> list[int]:
    return [int(part) for part in release.split(".")]
