"""The kernels of a bundle for a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvmconv.runtime.cuda.device import Gpu
from tvmconv.runtime.cuda.kernel import GpuKernel
from tvmconv.runtime.kernels import Kernels


class GpuLibrary(Kernels[GpuKernel, Gpu]):
    """The kernels of one bundle variant for a GPU: a mapping from `ConvSpec.key` to `GpuKernel`.

    An index may also be the `ConvSpec` itself. `load` makes it.

    Attributes:
        path, manifest, variant, mapped: as in `Library`.
        gpu: where the kernels run.

    """

    @property
    def gpu(self) -> Gpu:
        """Where the kernels run."""
        return self._place

    def _where(self) -> str:
        return f" on {self.gpu.device}"

    def _kernel(self, key: str) -> GpuKernel:
        return GpuKernel(*self._parts(key), self.gpu)

    def _function(self, symbol: str) -> Callable[..., Any]:
        # Of tvm_ffi, which hands over the stream that a launch goes into.
        function: Callable[..., Any] = self.mapped.lent_function(symbol)
        return function
