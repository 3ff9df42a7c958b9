"""A layer's tensors on a GPU, in one copy or in so many that none is in L2 when its turn comes.

Cold times come from copies and not from a flush before each launch. A flush of twice the L2 of an H100, 105
MB at 3.35 TB/s, takes 31 us; a kernel of 5 us would be the small difference of two large times, and an error
of 1 % in the flush one of 6 % in the kernel. Launches that take copies in turn are timed as they are.
CUTLASS's profiler does so too, with as many copies (tools/profiler/src/gemm_operation_profiler.cu). Only
layers so small that `MOST` copies do not displace each other need a flush, one for all of them: then an error
of 1 % in it is 0.05 % of 128 kernels of 5 us.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tvmconv.checking.gpu import GUARD
from tvmconv.measuring.process.cuda_graphs import Launch
from tvmconv.problem.spec import ConvSpec
from tvmconv.runtime import GpuKernel
from tvmconv.runtime.cuda.device import Gpu, size
from tvmconv.runtime.cuda.kernel import BoundGpuKernel

CACHES = ("warm", "cold")
# Between two launches on one copy L2 goes by so often, as in CUTLASS: it is not replaced strictly in order.
_TIMES_L2 = 3
MOST = 128
_FLUSH_L2 = 2


@dataclass(frozen=True)
class Copies:
    """How often a layer's tensors are there, and the bytes to fill after each turn through all of them."""

    count: int = 1
    flush: int = 0


def copies(spec: ConvSpec, l2_bytes: int, cache: str) -> Copies:
    """What keeps a layer in L2 (``warm``) or out of it (``cold``) when its kernel is launched again."""
    if cache == "warm":
        return Copies()
    enough = 1 + _TIMES_L2 * l2_bytes // max(1, _touched(spec))
    if enough <= MOST:
        return Copies(enough)
    return Copies(MOST, flush_bytes(l2_bytes))


def flush_bytes(l2_bytes: int) -> int:
    """Of a filling that leaves nothing else in L2."""
    return _FLUSH_L2 * l2_bytes


def _touched(spec: ConvSpec) -> int:
    """Bytes that a launch reads or writes: a 1x1 layer of stride 2 skips three pixels of four."""
    read = 1.0
    for extent, taps, outputs in (
        (spec.in_height, spec.kernel_height, spec.out_height),
        (spec.in_width, spec.kernel_width, spec.out_width),
    ):
        read *= min(1.0, taps * outputs / max(1, extent))
    return int(spec.bytes - (1.0 - read) * size(spec.input_shape, spec.dtype))


class Tensors:
    """Data, residual and room for the output of one spec, so many times; and what binds a kernel to them.

    Attributes:
        around: the first output, with `GUARD` bytes on both sides.
    """

    def __init__(self, gpu: Gpu, spec: ConvSpec, here: Mapping[str, Any], count: int) -> None:
        """``here`` are the arguments on the GPU, by their names in `oracle`; they are the first copy."""
        self._gpu, self._spec, self._here = gpu, spec, dict(here)
        room = size(spec.output_shape, spec.out_dtype) + 2 * GUARD
        inputs = [{name: here.get(name) for name in ("data", "residual")}]
        inputs += [
            {name: self._copy(one) for name, one in inputs[0].items()} for _ in range(count - 1)
        ]
        outputs = [gpu.empty((room,), "uint8") for _ in inputs]
        self._places = [(*one.values(), out) for one, out in zip(inputs, outputs, strict=True)]
        self.around = outputs[0]
        gpu.synchronize(0)

    def launches(self, kernel: GpuKernel) -> list[Launch]:
        """What launches a kernel on each copy, with weights of its own."""
        weights = [self._here.get(name) for name in ("filter", "bias", "slopes")]
        return [_launch(kernel.bind(*weights), *place) for place in self._places]

    def _copy(self, tensor: Any) -> Any:
        if tensor is None:
            return None
        form = tuple(tensor.shape), str(tensor.dtype)
        made = self._gpu.empty(*form)
        self._gpu.copy(int(made.data_ptr()), int(tensor.data_ptr()), size(*form), 0)
        return made


def _launch(layer: BoundGpuKernel, data: Any, residual: Any, around: Any) -> Launch:
    def launch(stream: int) -> None:
        addend = 0 if residual is None else int(residual.data_ptr())
        layer.run_at(int(data.data_ptr()), addend, int(around.data_ptr()) + GUARD, stream)

    return launch
