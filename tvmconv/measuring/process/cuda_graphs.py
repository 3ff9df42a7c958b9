"""Times kernels on a GPU without any framework: launches in a CUDA graph, its replays between two events.

A launch takes the host longer than a small kernel takes the GPU; replayed from a graph, kernels follow each
other without the host.

NOT YET RUN on a GPU.
"""

from __future__ import annotations

import ctypes
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from tvmconv.errors import DeviceError
from tvmconv.runtime.cuda.device import Gpu

_NON_BLOCKING = ctypes.c_uint(1)  # cudaStreamNonBlocking
_THREAD_LOCAL = ctypes.c_int(
    1
)  # cudaStreamCaptureModeThreadLocal: other threads may allocate meanwhile
_NO_FLAGS = ctypes.c_ulonglong(0)

# A graph holds turns for about so long, this many at most.
_GRAPH_MS, _TURNS = 1.0, 32
_FLUSHES = 8  # in a graph: a quarter of a millisecond on an H100

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

    def __exit__(self, *details: object) -> None:
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
        """The mean time of one call of ``launch`` over so many replays."""
        call = self._gpu.call
        call("cudaEventRecord", self._begin, self._stream)
        for _ in range(replays):
            call("cudaGraphLaunch", self._replayed, self._stream)
        call("cudaEventRecord", self._end, self._stream)
        call("cudaEventSynchronize", self._end)
        milliseconds = ctypes.c_float()
        call("cudaEventElapsedTime", ctypes.byref(milliseconds), self._begin, self._end)
        return milliseconds.value / 1e3 / (replays * self._launches)


GraphOf = Callable[[Gpu, Launch, int], Graph]


class Flush:
    """Fills a buffer, after which L2 holds nothing else; its own time is known."""

    def __init__(self, gpu: Gpu, count: int, graph: GraphOf = Graph) -> None:
        """``count`` in bytes."""
        self._gpu, self._bytes = gpu, count
        self._buffer = gpu.empty((count,), "uint8")
        self._replayed = graph(gpu, self.put, _FLUSHES)

    def put(self, stream: int) -> None:
        """Fill it in the order of the stream."""
        self._gpu.fill(int(self._buffer.data_ptr()), 0, self._bytes, stream)

    def seconds(self, milliseconds: float) -> float:
        """The mean time of one filling, measured for about so long."""
        return _run(self._replayed, _FLUSHES, milliseconds)

    def close(self) -> None:
        """Free the graph."""
        self._replayed.__exit__(None, None, None)


class Clock:
    """Tells the seconds of one launch; use it in a ``with`` statement.

    A turn is all of ``launches``, one after the other, and before them the flush, whose time is subtracted.
    One launch alone is repeated, and finds in L2 what it left there.
    """

    def __init__(
        self, gpu: Gpu, launches: Sequence[Launch], flush: Flush | None, graph: GraphOf = Graph
    ) -> None:
        self._flush, self._launches = flush, len(launches)

        def turn(stream: int) -> None:
            if flush is not None:
                flush.put(stream)
            for launch in launches:
                launch(stream)

        def once() -> float:
            begin = time.perf_counter()
            turn(0)
            gpu.synchronize(0)
            return time.perf_counter() - begin

        self._turn = turn  # holds packed filters, for example, which replays read
        once()  # allocates workspaces
        self._turns = min(_TURNS, max(1, int(_GRAPH_MS / 1e3 / once())))
        self._replayed = graph(gpu, turn, self._turns)

    def __enter__(self) -> Clock:
        return self

    def __exit__(self, *details: Any) -> None:
        self._replayed.__exit__(None, None, None)

    def seconds(self, milliseconds: float) -> float:
        """The mean of as many launches as fill a time; DeviceError where the flush's time makes no sense."""
        if self._flush is None:
            return _run(self._replayed, self._turns, milliseconds) / self._launches
        flushing = self._flush.seconds(milliseconds / 4)
        seconds = _run(self._replayed, self._turns, milliseconds) - flushing
        if seconds <= 0:
            raise DeviceError(
                f"flushing L2 takes {flushing * 1e6:.1f} us, and no less with kernels after it: something "
                "else uses this GPU. Measure when it is idle"
            )
        return seconds / self._launches


def _run(graph: Graph, turns: int, milliseconds: float) -> float:
    """Replay for about so long, after one replay that says how often that is, and may be enough."""
    first = graph.seconds(1)
    replays = milliseconds / 1e3 / max(first * turns, 1e-7)
    return first if replays <= 1 else graph.seconds(math.ceil(replays))
