"""Runs compiled kernels: NumPy, tvm_ffi and the bundle's own ``libtvm_runtime.so``, never ``tvm``.

::

    library = load("kernels.tvmconv")
    layer = library[key].bind(weights)
    y = layer(x)
"""

from tvmconv.hardware import host

host.require_64_bits()  # before the imports that fail there, of packages that cannot be installed

from tvmconv.runtime.arrays import empty_aligned  # noqa: E402
from tvmconv.runtime.cuda.kernel import BoundGpuKernel, GpuKernel  # noqa: E402
from tvmconv.runtime.kernel import BoundKernel, Kernel  # noqa: E402
from tvmconv.runtime.library import GpuLibrary, Library, load  # noqa: E402
from tvmconv.runtime.model import Model  # noqa: E402

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
