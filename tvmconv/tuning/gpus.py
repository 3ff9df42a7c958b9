"""What measures candidates: the CPU or a GPU, named, or the reason why there is no such GPU."""

from __future__ import annotations

from dataclasses import dataclass

from tvmconv import host
from tvmconv.errors import IncompatibleMachineError
from tvmconv.gpu import driver as cuda_driver
from tvmconv.gpu import variants as gpu_variants
from tvmconv.gpu.driver import Device
from tvmconv.hardware import Machine
from tvmconv.runtime import gpu as runtime_gpu


@dataclass(frozen=True)
class Found:
    """A GPU of a machine's architecture, how many GPUs this process sees, and the driver in words."""

    device: Device
    devices: int
    driver: str


@dataclass(frozen=True)
class Here:
    """What measures here: the name of the CPU or the card, and the card's driver in words.

    Times of two that differ in either do not compare.
    """

    name: str
    driver: str | None = None

    def __str__(self) -> str:
        return ", ".join(filter(None, (self.name, self.driver)))


def here(machine: Machine) -> Here:
    """Name what measures a machine's kernels here; for a GPU raises what `find` does."""
    if machine.gpu is None:
        return Here(host.cpu_name())
    found = find(machine)
    return Here(found.device.name, found.driver)


def find(machine: Machine) -> Found:
    """Return the first GPU here for which a machine's kernels are made; nothing is started on it.

    Raises IncompatibleMachineError without a driver or a GPU of the very architecture, MissingToolError
    for a driver that is too old or does not work, and without CUDA's runtime library.
    """
    arch = machine.gpu.arch if machine.gpu else ""
    library = cuda_driver.driver()
    if library is None:
        raise IncompatibleMachineError(
            f"kernels for {machine.name} are measured on an NVIDIA GPU of {arch}, and this machine has no "
            f"NVIDIA driver ({cuda_driver.DRIVER})"
        )
    runtime_gpu.find_device(0)
    devices = cuda_driver.devices()
    # The driver would run code for an older GPU too, but its decisions are another machine's.
    fitting = [each for each in devices if each.capability == gpu_variants.capability(arch)]
    if not fitting:
        raise IncompatibleMachineError(
            f"kernels for {machine.name} are measured on an NVIDIA GPU of {arch}, and this machine has "
            f"{', '.join(map(str, devices))}"
        )
    cuda_driver.open_cudart()
    return Found(fitting[0], len(devices), cuda_driver.driver_name(library))
