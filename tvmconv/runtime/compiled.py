"""What compiled kernels on CPUs and on GPUs have in common."""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from tvmconv.bundle import manifest
from tvmconv.problem import calling
from tvmconv.problem.spec import ConvSpec
from tvmconv.runtime.in_process import InProcess


@dataclasses.dataclass(frozen=True, eq=False)
class CompiledKernel(InProcess, abc.ABC):
    """One compiled problem.

    Attributes:
        spec: the problem.
        entry: how the manifest describes the kernel: schedule, decisions, tuning record.
        machine: the variant of the bundle that was chosen for this CPU or GPU.
        function: the compiled function, None when the output is empty.
        pack: the compiled function that packs the filter, None when the kernel takes it as it is.

    """

    spec: ConvSpec
    entry: manifest.KernelEntry
    machine: str
    function: Callable[..., Any] | None = dataclasses.field(repr=False)
    pack: Callable[..., Any] | None = dataclasses.field(repr=False)

    @property
    def key(self) -> str:
        """The problem in one line; see `ConvSpec.key`."""
        return self.spec.key

    @property
    def schedule(self) -> str:
        """Name of the schedule that the kernel was compiled with."""
        return self.entry.schedule

    @property
    def decisions(self) -> dict[str, Any]:
        """Values of the schedule's knobs."""
        return dict(self.entry.decisions)

    @functools.cached_property
    def signature(self) -> calling.Signature:
        """The arrays that ``function`` takes, in its order."""
        return calling.signature(self.spec, self.entry)

    @abc.abstractmethod
    def bind(
        self,
        w: object,
        bias: object = None,
        slopes: object = None,
        scales: object = None,
        limits: object = None,
    ) -> BoundLayer:
        """Pack the weights once."""

    def __call__(
        self,
        x: object,
        w: object,
        bias: object = None,
        residual: object = None,
        out: object = None,
        slopes: object = None,
        scales: object = None,
        limits: object = None,
    ) -> Any:
        """Compute one convolution, packing ``w`` first; where weights stay the same, `bind` them.

        Arguments, result and errors are those of `bind` and of the layer that it returns.
        """
        return self.bind(w, bias, slopes, scales, limits)(x, residual, out)


class BoundLayer(InProcess, abc.ABC):
    """A kernel with its weights packed."""

    __slots__ = ("kernel",)
    kernel: CompiledKernel

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.kernel!r})"

    @abc.abstractmethod
    def __call__(self, x: object, residual: object = None, out: object = None) -> Any:
        """Compute the layer's output."""
