"""The kernels of a bundle for a GPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tvmconv.bundle import manifest as bundle
from tvmconv.problem.spec import ConvSpec
from tvmconv.runtime import engine
from tvmconv.runtime.cuda.device import Gpu
from tvmconv.runtime.cuda.kernel import GpuKernel
from tvmconv.runtime.kernels import Kernels


class GpuLibrary(Kernels[GpuKernel]):
    """The kernels of one bundle variant for a GPU: a mapping from `ConvSpec.key` to `GpuKernel`.

    An index may also be the `ConvSpec` itself. `load` makes it.

    Attributes:
        path, manifest, variant, mapped: as in `Library`.
        gpu: where the kernels run.

    """

    def __init__(
        self,
        path: Path,
        manifest: bundle.Manifest,
        variant: bundle.Variant,
        specs: dict[str, ConvSpec],
        gpu: Gpu,
        kernels: engine.KernelLibrary,
    ) -> None:
        super().__init__(path, manifest, variant, specs, kernels)
        self.gpu = gpu

    def __repr__(self) -> str:
        return (
            f"GpuLibrary({str(self.path)!r}, {len(self)} kernels for {self.variant.machine} on "
            f"{self.gpu.device})"
        )

    def _kernel(self, key: str) -> GpuKernel:
        return GpuKernel(*self._parts(key), self.gpu)

    def _function(self, symbol: str) -> Callable[..., Any]:
        # Of tvm_ffi, which hands over the stream that a launch goes into.
        function: Callable[..., Any] = self.mapped.lent_function(symbol)
        return function
