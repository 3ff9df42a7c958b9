"""Checks and times candidates on a GPU, in the measuring process: what `running` does on CPUs.

Candidates are replayed from CUDA graphs, so that the host costs nothing, each between two looks at the
layer's default, whose known time says how fast the card's clocks are just then.

NOT YET RUN on a GPU.
"""

from __future__ import annotations

import contextlib
import statistics
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tvmconv.bundle import manifest
from tvmconv.checking import gpu as gpu_check
from tvmconv.checking import oracle
from tvmconv.checking.gpu import Problem
from tvmconv.errors import BuildError, TuningError
from tvmconv.hardware import Machine, cuda_driver
from tvmconv.measuring.process import cuda_graphs, device
from tvmconv.measuring.process import gpu_copies as copies
from tvmconv.measuring.process.candidate import Built
from tvmconv.measuring.process.cuda_graphs import Clock, Flush, GraphOf, Launch
from tvmconv.measuring.process.gpu_copies import Copies, Tensors
from tvmconv.measuring.process.libraries import (
    Libraries,
    open_cuda_runtime,
    open_kernels,
    open_runtime,
)
from tvmconv.measuring.process.worker import SpoiltError
from tvmconv.measuring.roof import bounds
from tvmconv.measuring.roof import gpu as gpu_roof
from tvmconv.measuring.roof.bounds import ImpossibleTimeError
from tvmconv.problem.spec import ConvSpec
from tvmconv.runtime import GpuKernel
from tvmconv.runtime.cuda.device import Gpu

# Runs of a candidate and of the yardstick's own time, and how long they and a look last. With cold caches a
# turn through all copies of a small layer takes half a millisecond.
_REPEATS, _YARDSTICK_REPEATS = 3, 9
_LEAST_MS = {"warm": 3.0, "cold": 6.0}
_LOOK_MS = {"warm": 1.0, "cold": 2.0}
# A first look that takes this many times the best is not timed more closely.
_HOPELESS = 2.0
# Before the first time that counts in a process or of a layer: an idle card's clocks are low.
_WARM_UP_MS = 200.0
_LAYERS_KEPT = 4  # whose tensors stay on the GPU


def start(machine: Machine, libraries: Libraries, cache: str) -> GpuTimer:
    """Open what kernels need in this process, on the first GPU that suits the machine."""
    assert libraries.cuda_runtime is not None  # noqa: S101 - for the type checker
    found = device.find(machine)
    cuda_driver.open_cudart()  # which TVM's part for CUDA is linked with
    open_runtime(libraries.runtime, threads=1)
    open_cuda_runtime(libraries.cuda_runtime)
    return GpuTimer(Gpu(found.device, found.devices), machine, cache)


class GpuTimer:
    """What the measuring process does; ``graph`` is what replays launches.

    Whatever fails, but for wrong values, ends the process: after an illegal address CUDA refuses all
    further work there.
    """

    def __init__(
        self, gpu: Gpu, machine: Machine, cache: str, graph: GraphOf = cuda_graphs.Graph
    ) -> None:
        self._gpu, self._machine, self._cache, self._graph = gpu, machine, cache, graph
        self._flush: Flush | None = None
        self._layers: OrderedDict[str, _Layer] = OrderedDict()

    def measure(
        self, key: str, built: Built, best: float, beside: Built | None, seconds: float
    ) -> float:
        """Check and time a kernel: beside another of known time, or else for itself."""
        with self._spoiling(key), contextlib.ExitStack() as kept:
            clock = kept.enter_context(self._clock(key, built))
            if beside is None:
                clock.seconds(_WARM_UP_MS)
                return self._believed(key, built, lambda: self._steady(clock))
            yardstick = self._yardstick(key, beside)
            return self._believed(
                key, built, lambda: self._relative(clock, yardstick, seconds, best)
            )

    def _steady(self, clock: Clock) -> float:
        least = _LEAST_MS[self._cache]
        return statistics.median(clock.seconds(least) for _ in range(_YARDSTICK_REPEATS))

    def _relative(self, clock: Clock, yardstick: Clock, known: float, best: float) -> float:
        """Seconds of one launch, were the card as fast as when the yardstick took its ``known`` seconds."""
        least, look = _LEAST_MS[self._cache], _LOOK_MS[self._cache]
        before = known / yardstick.seconds(look)
        first = clock.seconds(look)
        if first * before > _HOPELESS * best:
            return first * before
        steady = []
        for _ in range(_REPEATS):
            run = clock.seconds(least)
            after = known / yardstick.seconds(look)
            steady.append(run * (before + after) / 2)
            before = after
        return statistics.median(steady)

    def _believed(self, key: str, built: Built, measure: Callable[[], float]) -> float:
        """Return what ``measure`` gives, at the second try at last, if this card can be as fast."""
        spec, gpu = self._layer(key).spec, self._machine.gpu
        assert gpu is not None  # noqa: S101 - for the type checker
        peak = gpu_roof.peak(gpu, {spec.precision})
        least = bounds.least_seconds(built.macs, spec.dtype, self._machine, peak)
        seconds = measure()
        if not bounds.is_possible(seconds, least, self._machine):
            seconds = measure()
        if not bounds.is_possible(seconds, least, self._machine):
            raise ImpossibleTimeError(bounds.impossible(seconds, least))
        return seconds

    def interleave(self, key: str, built: Sequence[Built], rounds: int) -> list[list[float]]:
        """Time kernels against each other, in turn; seconds by kernel and round."""
        with self._spoiling(key), contextlib.ExitStack() as kept:
            clocks = [kept.enter_context(self._clock(key, each)) for each in built]
            clocks[0].seconds(_WARM_UP_MS)
            times: list[list[float]] = [[] for _ in clocks]
            for _ in range(rounds):
                for each, clock, mine in zip(built, clocks, times, strict=True):
                    run = partial(clock.seconds, _LEAST_MS[self._cache])
                    mine.append(self._believed(key, each, run))
            return times

    @contextlib.contextmanager
    def _spoiling(self, key: str) -> Iterator[None]:
        try:
            yield
        except BuildError:  # wrong values: it may have written to inputs of others too
            self._forget(key)
            raise
        except (TuningError, ImpossibleTimeError):
            raise
        except Exception as error:
            first = next((line for line in str(error).splitlines() if line.strip()), "")
            raise SpoiltError(f"{type(error).__name__}: {first}") from error

    def _forget(self, key: str) -> None:
        layer = self._layers.pop(key, None)
        if layer is not None and layer.yardstick is not None:
            layer.yardstick[1].__exit__(None, None, None)

    def _yardstick(self, key: str, built: Built) -> Clock:
        layer = self._layer(key)
        place = (built.library, built.symbol)
        if layer.yardstick is None or layer.yardstick[0] != place:
            layer.yardstick = place, self._clock(key, built)
        return layer.yardstick[1]

    def _clock(self, key: str, built: Built) -> Clock:
        """Check a kernel, and return what times it."""
        layer = self._layer(key)
        kernel = _kernel(layer.spec, built, self._machine.name, self._gpu)
        launches = layer.tensors.launches(kernel)
        layer.check(launches[0])
        if layer.copies.flush and self._flush is None:
            self._flush = Flush(self._gpu, layer.copies.flush, self._graph)
        flush = self._flush if layer.copies.flush else None
        return Clock(self._gpu, launches, flush, self._graph)

    def _layer(self, key: str) -> _Layer:
        if key not in self._layers:
            spec = ConvSpec.from_key(key)
            found = copies.copies(spec, self._machine.core.l2_bytes, self._cache)
            self._layers[key] = _Layer.of(spec, self._gpu, found)
            while len(self._layers) > _LAYERS_KEPT:
                self._forget(next(iter(self._layers)))
        self._layers.move_to_end(key)
        return self._layers[key]


def _kernel(spec: ConvSpec, built: Built, machine: str, gpu: Gpu) -> GpuKernel:
    pack = None
    if built.pack_library is not None:
        pack = manifest.PackEntry(built.pack_symbol, built.packed_shape, built.packed_dtype)
    entry = manifest.KernelEntry(
        built.symbol, "candidate", {}, pack=pack, workspace=built.workspace_bytes
    )
    packing = None
    if built.pack_library is not None:
        packing = open_kernels(built.pack_library).lent_function(built.pack_symbol)
    function = open_kernels(built.library).lent_function(built.symbol)
    return GpuKernel(spec, entry, machine, function, packing, gpu)


@dataclass
class _Layer:
    """Arguments of one spec on the GPU, as often as the state of the caches asks, and what must come out.

    ``within`` are the lowest and the highest right values of the images that differ.
    """

    spec: ConvSpec
    gpu: Gpu
    problem: Problem
    copies: Copies
    tensors: Tensors
    within: tuple[Any, Any]
    yardstick: tuple[tuple[str, str], Clock] | None = None

    @classmethod
    def of(cls, spec: ConvSpec, gpu: Gpu, copies: Copies) -> _Layer:
        problem = gpu_check.problem(spec)
        here = {name: gpu.upload(array) for name, array in problem.arguments.items()}
        within = oracle.within(problem.spec, problem.expected)
        return cls(spec, gpu, problem, copies, Tensors(gpu, spec, here, copies.count), within)

    def check(self, launch: Launch) -> None:
        """Run a kernel once; BuildError unless its output, and what lies around that, is right."""
        # NaN in every float format, -1 in int32: an element never written shows.
        around = self.tensors.around
        self.gpu.fill(int(around.data_ptr()), 0xFF, int(around.shape[0]), 0)
        launch(0)
        self.gpu.synchronize(0)
        out = gpu_check.inside(self.spec, self.gpu.download(around))
        low, high = self.within
        right = (
            bool(((low[at] <= image) & (image <= high[at])).all())
            for image, at in zip(out, self.problem.images, strict=True)
        )
        if not all(right):
            gpu_check.compare(self.problem, self.spec, out)
