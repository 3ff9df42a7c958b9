"""Finds the GPU that a bundle is loaded for, and opens what kernels need there.

Everything is checked before anything is opened: the driver, the device, and that a variant runs on it.
"""

from __future__ import annotations

import os
import re

from tvmconv import errors
from tvmconv.bundle import gpu_variants
from tvmconv.bundle import manifest as bundle
from tvmconv.bundle.reading import Contents
from tvmconv.hardware import cuda_driver, host
from tvmconv.hardware.cuda_driver import Device
from tvmconv.runtime import engine
from tvmconv.runtime.cuda.device import Gpu

_OLDEST_CUDA = (13, 0)  # what libcudart.so.13 asks of the driver
_OLDEST_DRIVER = 580


def device_index(device: object) -> int | None:
    """Return the number of a GPU, 1 for ``"cuda:1"``; None for the CPU.

    ``device`` is a string or has a type and an index, as PyTorch's devices do. Raises TypeError for
    anything else, ValueError for a device of another kind.
    """
    if device is None:
        return None
    kind, index = getattr(device, "type", None), getattr(device, "index", None)
    text = device if isinstance(device, str) else f"{kind}:{index or 0}" if kind else None
    if text is None:
        raise TypeError(f"device must be {_ALLOWED}, {device!r} was given")
    if text in ("cpu", "cpu:0"):
        return None
    found = re.fullmatch(r"cuda(?::([0-9]+))?", text)
    if found is None:
        raise ValueError(f"device must be {_ALLOWED}, {text!r} was given")
    return int(found.group(1) or 0)


_ALLOWED = "None, 'cpu', 'cuda', 'cuda:N' or such a device of PyTorch"


def find_device(index: int) -> tuple[Device, int]:
    """Return the GPU of that number, and how many there are.

    Raises IncompatibleMachineError without a driver or any GPU, MissingToolError for a driver that is too
    old or does not work, ValueError for a number that no GPU has.
    """
    driver = cuda_driver.driver()
    if driver is None:
        raise errors.IncompatibleMachineError(
            f"this machine has no NVIDIA driver ({cuda_driver.DRIVER}), so nothing runs on a GPU here. "
            "Install one, or load a variant for this CPU: tvmconv.load(PATH, device='cpu')"
        )
    release = cuda_driver.driver_release(driver)
    if release < _OLDEST_CUDA:
        raise errors.MissingToolError(
            f"the NVIDIA driver is for CUDA {release[0]}.{release[1]} and older, kernels need CUDA "
            f"{_OLDEST_CUDA[0]}.{_OLDEST_CUDA[1]}: install driver {_OLDEST_DRIVER} or newer"
        )
    devices = cuda_driver.devices()
    if not devices:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        reason = f" (CUDA_VISIBLE_DEVICES is {visible!r})" if visible is not None else ""
        raise errors.IncompatibleMachineError(
            f"the NVIDIA driver shows this process no GPU{reason}. `nvidia-smi` lists them; or load a "
            "variant for this CPU: tvmconv.load(PATH, device='cpu')"
        )
    if index >= len(devices):
        raise ValueError(
            f"there is no device cuda:{index}; this process has {', '.join(map(str, devices))}"
        )
    return devices[index], len(devices)


def choose_variant(
    manifest: bundle.Manifest, device: Device, machine: str | None
) -> bundle.Variant:
    """Return the variant for a GPU of this machine; errors are those of `gpu_variants.choose`."""
    return gpu_variants.choose(
        manifest,
        device,
        host.architecture(),
        host.cpu_features(),
        host.operating_system(),
        machine,
        host.glibc(),
    )


def open_gpu(contents: Contents, device: Device, devices: int) -> Gpu:
    """Open CUDA's runtime library and TVM's part for it; TVM's own runtime must be open before.

    Raises MissingToolError without the former, BundleError when the latter cannot be opened.
    """
    cuda_driver.open_cudart()
    variant = contents.variant
    if variant.cuda_runtime is None:
        raise errors.BundleError(f"variant {variant.machine} of the bundle is not for a GPU")
    file = contents.files[variant.cuda_runtime.file]
    engine.open_cuda_runtime(file, contents.manifest.tvm_ffi)
    return Gpu(device, devices)
