"""Checks and times candidates on a CPU, in the measuring process; `gpu_stand` does so on a GPU."""

from __future__ import annotations

import math
import statistics
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from tvmconv.checking import oracle
from tvmconv.hardware import Machine
from tvmconv.measuring.process.candidate import PACK, Built
from tvmconv.measuring.process.libraries import Libraries, open_kernels, open_runtime
from tvmconv.measuring.roof import bounds, timing
from tvmconv.measuring.roof.bounds import ImpossibleTimeError
from tvmconv.measuring.roof.probe import Probe, Roof
from tvmconv.problem import calling
from tvmconv.problem.calling import Role
from tvmconv.problem.spec import ConvSpec
from tvmconv.runtime import arrays

# A run fills 3 ms and there are 3, each between two looks at the machine's speed.
_REPEATS, _LEAST_MS, _LOOK_MS = 3, 3.0, 1.0
_YARDSTICK_REPEATS = 9  # of what all others of a layer are held against
# A run that counts by the fastest of many: where eleven others want a core every run of 3 ms was interrupted,
# and the least of nine was up to five times what short ones took (Zen 5, 2026-11).
_SHORT_MS = 0.3
# One call that takes this many times the best is not timed more closely.
_HOPELESS = 2.0
# Single calls with flushed caches, of which the median counts: 15 agree to about 2 %.
_COLD_CALLS = 15
# At the machine's peak before a time is called impossible: on a busy machine most come out too low.
_PEAK_LOOKS = 4
# Layers whose data, filter and expected output stay in memory: 20 MB each at most, in these networks.
_LAYERS_KEPT = 16

_Called = tuple[Any, str, tuple[Any, ...]]  # module, symbol, arguments: what `timing.seconds` takes


def start(machine: Machine, libraries: Libraries, threads: int, cache: str) -> CpuTimer:
    """Open what kernels need in this process."""
    open_runtime(libraries.runtime, threads)
    probe = Probe(machine, threads, open_kernels(str(libraries.roof)).module)
    return CpuTimer(machine, probe, cache)


@dataclass(frozen=True)
class _Layer:
    """Arguments of one spec, aligned as the runtime would align them, and what must come out.

    ``within`` are the lowest and the highest right values, rounded inward.
    """

    spec: ConvSpec
    arguments: dict[str, np.ndarray[Any, Any]]
    expected: np.ndarray[Any, Any]
    out: np.ndarray[Any, Any]
    within: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]

    def check(self) -> None:
        """Raise BuildError unless ``out`` is right.

        Two comparisons settle that for nearly every candidate; `oracle`'s figures for people took 20 ms
        for 800 000 values, longer than timing the kernel.
        """
        low, high = self.within
        if not bool(np.all((low <= self.out) & (self.out <= high))):
            oracle.assert_close(self.spec, self.expected, self.out)


@dataclass(frozen=True)
class _Yardstick:
    """A kernel whose time is known."""

    called: _Called
    seconds: float


class CpuTimer:
    """What the measuring process does: the methods are `running.Runner`'s questions."""

    def __init__(
        self,
        machine: Machine,
        probe: Probe,
        cache: str,
    ) -> None:
        self._machine, self._probe, self._cache = machine, probe, cache
        self._peak = 0.0  # the highest of all looks: a busy neighbour lowers one, nothing raises it
        self._layers: OrderedDict[str, _Layer] = OrderedDict()
        self._packed: dict[tuple[str, str], Any] = {}
        self._yardsticks: dict[tuple[str, str], _Yardstick] = {}

    def roof(self) -> Roof:
        """As `Runner.roof`."""
        return self._probe.roof()

    def peak(self) -> float:
        """As `Runner.peak`."""
        return self._probe.peak()

    def measure(
        self, key: str, built: Built, best: float, beside: Built | None, seconds: float
    ) -> float:
        """Check and time a kernel: beside another of known time, or else for itself.

        Candidates are measured minutes apart, and a shared machine's speed drifts meanwhile by more than
        good candidates differ. So each run is scaled by the speed of a kernel of the same layer beside it:
        a busy neighbour slows arithmetic, caches and memory differently, and that kernel needs all of them
        in like measure. The higher of two looks counts, because an interrupt during a look of 1 ms says
        nothing of the run. Both may be hit, and a run then seems many times faster than it was: what the
        machine's peak does not allow is measured again, and then refused (ImpossibleTimeError).
        """
        called = self._prepare(key, built)
        if beside is None:
            return self._believed(key, built, lambda: self._undisturbed(called))
        yardstick = self._yardstick(key, beside, seconds)
        return self._believed(key, built, lambda: self._relative(called, yardstick, best))

    def _believed(self, key: str, built: Built, measure: Callable[[], float]) -> float:
        """Return what ``measure`` gives, at the second try at last, if this machine can be as fast."""
        dtype = self._layer(key).spec.dtype
        seconds = least = 0.0
        for _ in range(2):
            seconds = measure()
            for _ in range(_PEAK_LOOKS):
                self._peak = self._peak or self._probe.peak()
                least = bounds.least_seconds(built.macs, dtype, self._machine, self._peak)
                if bounds.is_possible(seconds, least, self._machine):
                    return seconds
                self._peak = max(self._peak, self._probe.peak())
        raise ImpossibleTimeError(bounds.impossible(seconds, least))

    def _relative(self, called: _Called, yardstick: _Yardstick, best: float) -> float:
        """Seconds of one call, by the speed of the yardstick beside it; roughly if far above ``best``."""
        before = self._speed(yardstick)
        if self._cache == "cold":
            cold = statistics.median(timing.cold_seconds(*called, _COLD_CALLS))
            return cold * max(before, self._speed(yardstick))
        once = _once(called)
        if once * before > _HOPELESS * best:
            once = min(once, _once(called))  # an interrupt makes any one call look hopeless
            if once * before > _HOPELESS * best:
                return once * before
        steady = []
        for _ in range(_REPEATS):
            (run,) = timing.seconds(*called, repeats=1, least_ms=0, calls=_calls(_LEAST_MS, once))
            after = self._speed(yardstick)
            steady.append(run * max(before, after))
            before = after
        return statistics.median(steady)

    def _undisturbed(self, called: _Called) -> float:
        """The fastest of many runs: what this machine does when its neighbours are quiet."""
        if self._cache == "cold":
            return statistics.median(timing.cold_seconds(*called, _YARDSTICK_REPEATS * _COLD_CALLS))
        return min(_short_runs(called, _YARDSTICK_REPEATS, _LEAST_MS))

    def interleave(self, key: str, built: Sequence[Built], rounds: int) -> list[list[float]]:
        """As `Runner.interleave`."""
        prepared = [self._prepare(key, each) for each in built]
        times: list[list[float]] = [[] for _ in prepared]
        for _ in range(rounds):
            for each, called, seconds in zip(built, prepared, times, strict=True):
                seconds.append(self._believed(key, each, partial(self._run, called)))
        return times

    def _run(self, called: _Called) -> float:
        """Seconds of one call in a round."""
        if self._cache == "cold":
            return statistics.median(timing.cold_seconds(*called, _COLD_CALLS))
        return min(_short_runs(called, 1, _LEAST_MS))

    def _speed(self, yardstick: _Yardstick) -> float:
        """Speed of the machine now over that at which the yardstick's time was taken."""
        if self._cache == "cold":
            calls = timing.cold_seconds(*yardstick.called, _COLD_CALLS // 3)
            return yardstick.seconds / statistics.median(calls)
        calls_of_a_look = _calls(_LOOK_MS, yardstick.seconds)
        (now,) = timing.seconds(*yardstick.called, repeats=1, least_ms=0, calls=calls_of_a_look)
        return yardstick.seconds / now

    def _yardstick(self, key: str, built: Built, seconds: float) -> _Yardstick:
        place = (key, built.library)
        if place not in self._yardsticks:
            self._yardsticks[place] = _Yardstick(self._prepare(key, built), seconds)
        return self._yardsticks[place]

    def _layer(self, key: str) -> _Layer:
        if key in self._layers:
            self._layers.move_to_end(key)
            return self._layers[key]
        spec = ConvSpec.from_key(key)
        arguments = oracle.random_arguments(spec, seed=0)
        expected = oracle.conv(spec, **arguments)
        aligned = {name: arrays.aligned_copy(array) for name, array in arguments.items()}
        out = arrays.empty(calling.signature(spec)["out"]).reshape(spec.output_shape)
        self._layers[key] = _Layer(spec, aligned, expected, out, oracle.within(spec, expected))
        while len(self._layers) > _LAYERS_KEPT:
            old, _ = self._layers.popitem(last=False)
            for kept in (self._packed, self._yardsticks):
                for place in [place for place in kept if place[0] == old]:
                    del kept[place]
        return self._layers[key]

    def _prepare(self, key: str, built: Built) -> _Called:
        """Run a kernel once and check its values; returns what `timing.seconds` takes."""
        layer = self._layer(key)
        spec, out = layer.spec, layer.out
        module = open_kernels(built.library).module
        signature = calling.signature(spec, built)
        given = {**layer.arguments, "filter": self._weights(key, layer, built), "out": out}
        given |= {each.name: arrays.empty(each) for each in signature.of(Role.SCRATCH)}
        pointers = tuple(map(arrays.array_pointer, arrays.ordered(signature, given)))
        out.view(np.uint8)[...] = (
            0xFF  # NaN in every float format, -1 in int32: an element never written shows
        )
        module[built.symbol](*pointers)
        layer.check()
        return module, built.symbol, pointers

    def _weights(self, key: str, layer: _Layer, built: Built) -> np.ndarray[Any, Any]:
        weights = layer.arguments["filter"]
        if built.pack_library is None:
            return weights
        place = (key, built.pack_library)
        if place not in self._packed:
            packed = arrays.empty(calling.signature(layer.spec, built)["filter"])
            pack = open_kernels(built.pack_library).module[PACK]
            pack(arrays.array_pointer(weights), arrays.array_pointer(packed))
            self._packed[place] = packed
        packed_weights: np.ndarray[Any, Any] = self._packed[place]
        return packed_weights


def _once(called: _Called) -> float:
    (seconds,) = timing.seconds(*called, repeats=1, least_ms=0)
    return seconds


def _short_runs(called: _Called, least: int, milliseconds: float) -> list[float]:
    """Seconds of a call in short runs: ``least`` at least, or what fills so many times ``milliseconds``."""
    calls = _calls(_SHORT_MS, min(_once(called), _once(called)))
    first = timing.seconds(*called, repeats=least, least_ms=0, calls=calls)
    more = _calls(least * milliseconds, calls * min(first)) - least
    return first + (timing.seconds(*called, more, least_ms=0, calls=calls) if more > 0 else [])


def _calls(milliseconds: float, seconds: float) -> int:
    """How many calls of so many seconds fill a time."""
    return max(1, math.ceil(milliseconds / 1e3 / seconds))
