"""Runs compiled kernels: NumPy, libtvm_ffi and the bundle's own ``libtvm_runtime.so``, never ``tvm``.

::

    library = load("kernels.tvmconv")
    layer = library[key].bind(weights)
    y = layer(x)
"""

import importlib
from typing import TYPE_CHECKING

from tvmconv.hardware import host

host.require_64_bits()  # before the imports that fail there, of packages that cannot be installed

from tvmconv.runtime.loading import load  # noqa: E402

if TYPE_CHECKING:
    from tvmconv.runtime.arrays import empty_aligned
    from tvmconv.runtime.cuda.kernel import BoundGpuKernel, GpuKernel
    from tvmconv.runtime.cuda.library import GpuLibrary
    from tvmconv.runtime.kernel import BoundKernel, Kernel
    from tvmconv.runtime.library import Library
    from tvmconv.runtime.model import Model

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

# Loaded when they are used: a process that only calls a model starts sooner.
_MODULES = {
    "BoundGpuKernel": "tvmconv.runtime.cuda.kernel",
    "BoundKernel": "tvmconv.runtime.kernel",
    "GpuKernel": "tvmconv.runtime.cuda.kernel",
    "GpuLibrary": "tvmconv.runtime.cuda.library",
    "Kernel": "tvmconv.runtime.kernel",
    "Library": "tvmconv.runtime.library",
    "Model": "tvmconv.runtime.model",
    "empty_aligned": "tvmconv.runtime.arrays",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(
            f"module 'tvmconv.runtime' has no attribute {name!r}; it has {__all__}"
        )
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value  # the next access does not come here again
    return value
