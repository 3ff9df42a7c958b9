"""Times kernels on a GPU without any framework: launches in a CUDA graph, its replays between two events.

A launch takes the host longer than a small kernel takes the GPU; replayed from a graph, kernels follow each
other without the host.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from types import TracebackType
from typing import Any

from tvmconv.runtime.gpu_device import Gpu

_NON_BLOCKING = ctypes.c_uint(1)  # cudaStreamNonBlocking
_THREAD_LOCAL = ctypes.c_int(
    1
)  # cudaStreamCaptureModeThreadLocal: other threads may allocate meanwhile
_NO_FLAGS = ctypes.c_ulonglong(0)

Launch = Callable[[int], None]


class Graph:
    """Calls of ``launch``, which puts kernels into the stream that it is given, captured in a CUDA graph.

    Use it in a ``with`` statement, which frees it.
    """

    def __init__(self, gpu: Gpu, launch: Launch, launches: int) -> None:
        # Kept as long as the graph: what ``launch`` holds, packed filters for example, is read in replays.
        self._gpu, self._launch, self._launches = gpu, launch, launches
        self._stream, self._graph, self._replayed, self._begin, self._end = (
            ctypes.c_void_p() for _ in range(5)
        )
        try:
            self._capture()
        except BaseException:
            self._free()
            raise

    def _capture(self) -> None:
        gpu = self._gpu
        gpu.call("cudaSetDevice", gpu.index)
        gpu.call("cudaStreamCreateWithFlags", ctypes.byref(self._stream), _NON_BLOCKING)
        for event in (self._begin, self._end):
            gpu.call("cudaEventCreate", ctypes.byref(event))
        handle = self._stream.value or 0
        self._launch(handle)  # loads the code, which a capture must not do
        gpu.synchronize(handle)
        gpu.call("cudaStreamBeginCapture", self._stream, _THREAD_LOCAL)
        try:
            for _ in range(self._launches):
                self._launch(handle)
        except BaseException:
            gpu.attempt("cudaStreamEndCapture", self._stream, ctypes.byref(self._graph))
            raise
        gpu.call("cudaStreamEndCapture", self._stream, ctypes.byref(self._graph))
        gpu.call("cudaGraphInstantiate", ctypes.byref(self._replayed), self._graph, _NO_FLAGS)

    def __enter__(self) -> Graph:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._free()

    def _free(self) -> None:
        # After an illegal address these fail too, and would hide what failed first.
        for name, handle in (
            ("cudaEventDestroy", self._begin),
            ("cudaEventDestroy", self._end),
            ("cudaGraphExecDestroy", self._replayed),
            ("cudaGraphDestroy", self._graph),
            ("cudaStreamDestroy", self._stream),
        ):
            if handle.value:
                self._gpu.attempt(name, handle)

    def seconds(self, replays: int) -> float:
        """The mean time of one launch over so many replays."""
        call = self._gpu.call
        call("cudaEventRecord", self._begin, self._stream)
        for _ in range(replays):
            call("cudaGraphLaunch", self._replayed, self._stream)
        call("cudaEventRecord", self._end, self._stream)
        call("cudaEventSynchronize", self._end)
        milliseconds = ctypes.c_float()
        call("cudaEventElapsedTime", ctypes.byref(milliseconds), self._begin, self._end)
        return milliseconds.value / 1e3 / (replays * self._launches)


def seconds(
    gpu: Gpu, launch: Launch, repeats: int = 3, least_ms: float = 2.0, launches: int = 20
) -> list[float]:
    """Return the mean time of one launch, in seconds, of each of ``repeats`` runs of ``least_ms`` or more.

    Data stays in L2 between launches where it fits. Raises DeviceError where CUDA refuses.
    """
    with Graph(gpu, launch, launches) as graph:
        graph.seconds(1)
        replays = max(1, math.ceil(least_ms / 1e3 / (graph.seconds(1) * launches)))
        return [graph.seconds(replays) for _ in range(repeats)]


def launcher(layer: Any, data: Any, residual: Any, out: Any) -> Launch:
    """Return what launches a `BoundGpuKernel` on ``tvm_ffi`` tensors, which must outlive it."""
    source, target = int(data.data_ptr()), int(out.data_ptr())
    addend = 0 if residual is None else int(residual.data_ptr())
    return lambda stream: layer.run_at(source, addend, target, stream)
