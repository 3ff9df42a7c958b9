"""Checks and times compiled candidates in a process that has the runtime and no compiler.

Values are compared with the oracle before a time counts.
"""

from __future__ import annotations

import math
import os
import statistics
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tvmconv import bundle, oracle, timing
from tvmconv.errors import TuningError
from tvmconv.hardware import Machine
from tvmconv.roof import Probe, Roof
from tvmconv.runtime import arrays, engine, tensors
from tvmconv.spec import ConvSpec
from tvmconv.tuning import gpu_stand
from tvmconv.tuning.candidate import PACK, Built, Candidate, Failure, Measurement
from tvmconv.tuning.worker import Worker

# A run fills 3 ms and there are 3, each between two looks at the machine's speed.
_REPEATS, _LEAST_MS, _LOOK_MS = 3, 3.0, 1.0
_YARDSTICK_REPEATS = 9  # of what all others of a layer are held against
# One call that takes this many times the best is not timed more closely.
_HOPELESS = 2.0
# Single calls with flushed caches, of which the median counts: 15 agree to about 2 %.
_COLD_CALLS = 15
# Layers whose data, filter and expected output stay in memory: 20 MB each at most, in these networks.
_LAYERS_KEPT = 16

CACHES = ("warm", "cold")

_Called = tuple[Any, str, tuple[Any, ...]]  # module, symbol, arguments: what `timing.seconds` takes


@dataclass(frozen=True)
class Conditions:
    """What a time depends on besides the kernel.

    Attributes:
        threads: threads of one call.
        cache: ``warm``: one call after the other; ``cold``: all but data flushed before each call.
    """

    threads: int = 1
    cache: str = "warm"


@dataclass(frozen=True)
class Libraries:
    """What a measuring process opens besides candidates.

    Attributes:
        runtime: ``libtvm_runtime.so``; None for the one that a board has.
        roof: the roof's loops; None for a GPU, whose roof follows from its facts.
        cuda_runtime: ``libtvm_runtime_cuda.so`` of the same release; None for a CPU.
    """

    runtime: Path | None
    roof: Path | None = None
    cuda_runtime: Path | None = None

    def files(self) -> dict[str, Path]:
        """Those that there are, by their names here."""
        named = {
            "runtime": self.runtime,
            "roof": self.roof,
            "cuda_runtime": self.cuda_runtime,
        }
        return {name: file for name, file in named.items() if file is not None}


class Runner:
    """A warm process that checks and times what `Compilers` made; use `close` when done."""

    def __init__(
        self,
        machine: Machine,
        libraries: Libraries,
        conditions: Conditions,
        timeout_seconds: float = 30.0,
    ) -> None:
        self.timeout_seconds = timeout_seconds
        environment = {
            "TVM_NUM_THREADS": str(conditions.threads),
            "TVM_BIND_THREADS": os.environ.get("TVM_BIND_THREADS", "0"),
        }
        runtime, roof, cuda_runtime = map(
            str, (libraries.runtime, libraries.roof, libraries.cuda_runtime)
        )
        if machine.gpu is None:
            arguments: tuple[Any, ...] = (machine, runtime, roof, conditions)
            self._worker = Worker(_Stand, arguments, environment)
        else:
            arguments = (machine, runtime, cuda_runtime, conditions.cache)
            self._worker = Worker(gpu_stand.start, arguments, environment)

    def start(self) -> None:
        """Let the process start now, in the background."""
        self._worker.start()

    def close(self) -> None:
        """End the process; the next question starts another one."""
        self._worker.close()

    def roof(self) -> Roof:
        """What the machine can do at most, measured now."""
        roof: Roof = _sound(self._worker.ask(self.timeout_seconds, "roof"))
        return roof

    def peak(self) -> float:
        """Multiply-adds' operations a second at most, measured now; needs no memory to speak of."""
        peak: float = _sound(self._worker.ask(self.timeout_seconds, "peak"))
        return peak

    def measure(
        self,
        spec: ConvSpec,
        built: Built,
        best: float = math.inf,
        beside: Built | None = None,
        seconds: float = 0.0,
    ) -> float | Failure:
        """Return seconds of one call; roughly if far above ``best``.

        ``beside`` is another kernel of the same layer that takes ``seconds``: how fast it is now says how
        fast the machine is, and the result is what it would have been then. Without it the result is the
        fastest of many runs.
        """
        answer: float | Failure = self._worker.ask(
            self.timeout_seconds, "measure", spec.key, built, best, beside, seconds
        )
        return answer

    def interleave(
        self, spec: ConvSpec, built: Sequence[Built], rounds: int
    ) -> list[list[float]] | Failure:
        """Time kernels against each other, in turn; seconds by round, for each of them.

        A round is a few milliseconds of each, so that whatever else the machine does hits all alike.
        """
        times: list[list[float]] | Failure = self._worker.ask(
            self.timeout_seconds * len(built), "interleave", spec.key, list(built), rounds
        )
        return times


def time_each(
    runner: Runner,
    spec: ConvSpec,
    candidates: Sequence[tuple[Candidate, Built | Failure]],
    best: float,
    beside: tuple[Built | None, float],
    done: Callable[[Measurement], None],
) -> list[Measurement]:
    """Check and time candidates one by one, and tell ``done`` of each; never raises for a bad one.

    ``beside`` is the yardstick and its seconds, as in `Runner.measure`. Those far slower than ``best``,
    or than the best before them, are timed roughly.
    """
    measurements = []
    for candidate, each in candidates:
        result: float | Failure
        result = each if isinstance(each, Failure) else runner.measure(spec, each, best, *beside)
        if isinstance(result, Failure):
            measurement = Measurement(candidate, None, result.text)
        else:
            best = min(best, result)
            measurement = Measurement(candidate, result)
        measurements.append(measurement)
        done(measurement)
    return measurements


def _sound(answer: Any) -> Any:
    if isinstance(answer, Failure):
        raise TuningError(
            f"the measuring process failed: {answer.text}. `tvmconv doctor` tries a kernel."
        )
    return answer


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


class _Stand:
    """What the measuring process does."""

    def __init__(
        self,
        machine: Machine,
        runtime: str,
        roof_library: str,
        conditions: Conditions,
    ) -> None:
        open_runtime(runtime, conditions.threads)
        self._conditions = conditions
        self._probe = Probe(machine, conditions.threads, _load(roof_library))
        self._layers: OrderedDict[str, _Layer] = OrderedDict()
        self._packed: dict[tuple[str, str], Any] = {}
        self._yardsticks: dict[tuple[str, str], _Yardstick] = {}

    def roof(self) -> Roof:
        return self._probe.roof()

    def peak(self) -> float:
        return self._probe.peak()

    def measure(
        self, key: str, built: Built, best: float, beside: Built | None, seconds: float
    ) -> float:
        """Check and time a kernel: beside another of known time, or else for itself.

        Candidates are measured minutes apart, and a shared machine's speed drifts meanwhile by more than
        good candidates differ. So each run is scaled by the speed of a kernel of the same layer beside it:
        a busy neighbour slows arithmetic, caches and memory differently, and that kernel needs all of them
        in like measure. The higher of two looks counts, because an interrupt during a look of 1 ms says
        nothing of the run.
        """
        called = self._prepare(key, built)
        if beside is None:
            return self._undisturbed(called)
        yardstick = self._yardstick(key, beside, seconds)
        before = self._speed(yardstick)
        if self._conditions.cache == "cold":
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
        if self._conditions.cache == "cold":
            return statistics.median(timing.cold_seconds(*called, _YARDSTICK_REPEATS * _COLD_CALLS))
        calls = _calls(_LEAST_MS, _once(called))
        return min(timing.seconds(*called, _YARDSTICK_REPEATS, least_ms=0, calls=calls))

    def interleave(self, key: str, built: Sequence[Built], rounds: int) -> list[list[float]]:
        prepared = [self._prepare(key, each) for each in built]
        times: list[list[float]] = [[] for _ in prepared]
        for _ in range(rounds):
            for called, seconds in zip(prepared, times, strict=True):
                if self._conditions.cache == "cold":
                    seconds.append(statistics.median(timing.cold_seconds(*called, _COLD_CALLS)))
                else:
                    seconds.extend(timing.seconds(*called, 1, _LEAST_MS))
        return times

    def _speed(self, yardstick: _Yardstick) -> float:
        """Speed of the machine now over that at which the yardstick's time was taken."""
        if self._conditions.cache == "cold":
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
        out = arrays.empty_aligned(spec.output_shape, tensors.numpy_dtype(spec.out_dtype))
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
        module = _load(built.library)
        images = {
            name: array.reshape((spec.batch, *array.shape[-3:]))
            for name, array in layer.arguments.items()
            if name in ("data", "residual")
        }
        called = [images["data"], self._weights(key, layer, built)]
        called += [layer.arguments["bias"]] if spec.bias else []
        called += [images["residual"]] if spec.residual else []
        called += [out.reshape((spec.batch, *out.shape[-3:]))]
        pointers = tuple(arrays.array_pointer(array) for array in called)
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
            packed = arrays.empty_aligned(
                built.packed_shape, tensors.numpy_dtype(built.packed_dtype)
            )
            pack = _load(built.pack_library)[PACK]
            pack(arrays.array_pointer(weights), arrays.array_pointer(packed))
            self._packed[place] = packed
        packed_weights: np.ndarray[Any, Any] = self._packed[place]
        return packed_weights


def _once(called: _Called) -> float:
    (seconds,) = timing.seconds(*called, repeats=1, least_ms=0)
    return seconds


def _calls(milliseconds: float, seconds: float) -> int:
    """How many calls of so many seconds fill a time."""
    return max(1, math.ceil(milliseconds / 1e3 / seconds))


def open_runtime(runtime: str, threads: int) -> None:
    """Open ``libtvm_runtime`` in this process, and let kernels run on so many threads."""
    path = Path(runtime)
    entry = bundle.RuntimeEntry(path.name, bundle.file_digest(path))
    engine.open_runtime(path.parent, entry, "")
    engine.use_threads(threads)


def _load(library: str) -> Any:
    import tvm_ffi

    return tvm_ffi.load_module(library)
