"""What measures candidates: the CPU or a GPU, named, or the reason why there is no such GPU."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tvmconv.errors import IncompatibleMachineError
from tvmconv.hardware import Machine, cuda_driver, host
from tvmconv.hardware.cuda_driver import Device, capability
from tvmconv.runtime.cuda import opening as runtime_gpu


@dataclass(frozen=True)
class Found:
    """A GPU of a machine's architecture, how many GPUs this process sees, and the driver in words."""

    device: Device
    devices: int
    driver: str


@dataclass(frozen=True)
class Processor:
    """What measures here: the name of the CPU or the card, and the card's driver in words.

    Times of two that differ in either do not compare.
    """

    name: str
    driver: str | None = None

    def __str__(self) -> str:
        return ", ".join(filter(None, (self.name, self.driver)))


def here(machine: Machine) -> Processor:
    """Name what measures a machine's kernels here; for a GPU raises what `find` does."""
    if machine.gpu is None:
        return Processor(host.cpu_name())
    found = find(machine)
    return Processor(found.device.name, found.driver)


@contextlib.contextmanager
def claimed(machine: Machine) -> Iterator[None]:
    """Keep the GPU that measures for this process: two at a time would spoil each other's times.

    Raises IncompatibleMachineError where another board's server has it. CPUs, and what is not a server of
    boards, are not kept apart.
    """
    name = None if machine.gpu is None else _uuid(find(machine).device)
    with contextlib.ExitStack() as kept:
        if name is not None:
            with contextlib.suppress(PermissionError):  # another user's file
                path = Path(tempfile.gettempdir(), f"tvmconv-gpu-{name}.lock")
                lock = kept.enter_context(os.fdopen(os.open(path, os.O_CREAT | os.O_RDONLY, 0o644)))
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    raise IncompatibleMachineError(
                        "another `tvmconv board` on this machine measures on the same GPU. Start each with "
                        "a card of its own: CUDA_VISIBLE_DEVICES=0 tvmconv board ..., CUDA_VISIBLE_DEVICES=1 "
                        "tvmconv board ... --port 9092"
                    ) from error
        yield


def _uuid(device: Device) -> str | None:
    library = cuda_driver.driver()
    return None if library is None else cuda_driver.uuid_of(library, device.index)


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
    fitting = [each for each in devices if each.capability == capability(arch)]
    if not fitting:
        raise IncompatibleMachineError(
            f"kernels for {machine.name} are measured on an NVIDIA GPU of {arch}, and this machine has "
            f"{', '.join(map(str, devices))}"
        )
    cuda_driver.open_cudart()
    return Found(fitting[0], len(devices), cuda_driver.driver_name(library))
