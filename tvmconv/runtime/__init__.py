"""Runs compiled kernels: NumPy, tvm_ffi and the bundle's own ``libtvm_runtime.so``, never ``tvm``.

::

    library = load("kernels.tvmconv")
    layer = library[key].bind(weights)
    y = layer(x)
"""

import importlib
from typing import TYPE_CHECKING

from tvmconv.hardware import host

host.require_64_bits()  # before the imports that fail there, of packages that cannot be installed

from tvmconv.runtime.arrays import empty_aligned  # noqa: E402
from tvmconv.runtime.kernel import BoundKernel, Kernel  # noqa: E402
from tvmconv.runtime.library import Library, load  # noqa: E402
from tvmconv.runtime.model import Model  # noqa: E402

if TYPE_CHECKING:
    from tvmconv.runtime.cuda.kernel import BoundGpuKernel, GpuKernel
    from tvmconv.runtime.cuda.library import GpuLibrary

__all__ = [
    "BoundGpuKernel",
    "BoundKernel",
    "GpuKernel",
    "GpuLibrary",
    "Kernel",
    "Library",
    "Model",
    "empty_aligned",
    "load",
]

# Loaded when they are used: a process without a GPU starts sooner.
_FOR_GPUS = {
    "BoundGpuKernel": "tvmconv.runtime.cuda.kernel",
    "GpuKernel": "tvmconv.runtime.cuda.kernel",
    "GpuLibrary": "tvmconv.runtime.cuda.library",
}


def __getattr__(name: str) -> object:
    if name not in _FOR_GPUS:
        raise AttributeError(
            f"module 'tvmconv.runtime' has no attribute {name!r}; it has {__all__}"
        )
    value = getattr(importlib.import_module(_FOR_GPUS[name]), name)
    globals()[name] = value  # the next access does not come here again
    return value
