"""Runs compiled kernels: NumPy, tvm_ffi and the bundle's own ``libtvm_runtime.so``, never ``tvm``.

::

    library = load("kernels.tvmconv")
    layer = library[key].bind(weights)
    y = layer(x)
"""

from tvmconv.runtime.arrays import empty_aligned
from tvmconv.runtime.kernel import BoundKernel, Kernel
from tvmconv.runtime.library import Library, load

__all__ = ["BoundKernel", "Kernel", "Library", "empty_aligned", "load"]
