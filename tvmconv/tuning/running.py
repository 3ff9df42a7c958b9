"""Checks and times compiled candidates in a process that has the runtime and no compiler.

Values are compared with the oracle before a time counts.
"""

from __future__ import annotations

import math
import os
import statistics
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tvmconv import bundle, oracle, timing, toolchain
from tvmconv.errors import TuningError
from tvmconv.hardware import Machine
from tvmconv.roof import Probe, Roof
from tvmconv.runtime import arrays, engine, tensors
from tvmconv.spec import ConvSpec
from tvmconv.tuning.candidate import Built, Failure
from tvmconv.tuning.compiling import PACK
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


@dataclass(frozen=True)
class Conditions:
    """What a time depends on besides the kernel.

    Attributes:
        threads: threads of one call.
        cache: ``warm``: one call after the other; ``cold``: all but data flushed before each call.
    """

    threads: int = 1
    cache: str = "warm"


class Runner:
    """A warm process that checks and times what `Compilers` made; use `close` when done.

    ``reference`` is the roof (operations a second, fed from the first-level cache) at whose speed of
    the machine seconds are given; without one the process takes what it finds when it starts.
    """

    def __init__(
        self,
        machine: Machine,
        roof_library: str,
        conditions: Conditions,
        timeout_seconds: float = 30.0,
        reference: float | None = None,
    ) -> None:
        self.timeout_seconds = timeout_seconds
        runtime = str(toolchain.runtime_library())
        environment = {
            "TVM_NUM_THREADS": str(conditions.threads),
            "TVM_BIND_THREADS": os.environ.get("TVM_BIND_THREADS", "0"),
        }
        self._arguments = (machine, runtime, roof_library, conditions)
        self._worker = Worker(_Stand, (*self._arguments, reference), environment)

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

    def reference(self) -> float:
        """The roof at whose speed seconds are given; a process started later takes it over."""
        reference = float(_sound(self._worker.ask(self.timeout_seconds, "get_reference")))
        self._worker.arguments = (*self._arguments, reference)
        return reference

    def measure(
        self,
        spec: ConvSpec,
        built: Built,
        best: float = math.inf,
        beside: Built | None = None,
        seconds: float = 0.0,
    ) -> float | Failure:
        """Return seconds of one call at the reference's speed; roughly if far above ``best``.

        ``beside`` is another kernel of the same layer that takes ``seconds`` at that speed: how fast it
        is now says how fast the machine is. Without it the roof's loop does.
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


def _sound(answer: Any) -> Any:
    if isinstance(answer, Failure):
        raise TuningError(
            f"the measuring process failed: {answer.text}. `tvmconv doctor` tries a kernel."
        )
    return answer


@dataclass(frozen=True)
class _Layer:
    """Arguments of one spec, aligned as the runtime would align them, and what must come out."""

    spec: ConvSpec
    arguments: dict[str, np.ndarray[Any, Any]]
    expected: np.ndarray[Any, Any]
    out: np.ndarray[Any, Any]


@dataclass(frozen=True)
class _Yardstick:
    """A kernel whose time at the reference's speed is known."""

    called: tuple[Any, str, tuple[Any, ...]]
    seconds: float


class _Stand:
    """What the measuring process does."""

    def __init__(
        self,
        machine: Machine,
        runtime: str,
        roof_library: str,
        conditions: Conditions,
        reference: float | None,
    ) -> None:
        open_runtime(runtime, conditions.threads)
        self._conditions = conditions
        self._probe = Probe(machine, conditions.threads, _load(roof_library))
        self._reference = reference or self._fed(11)
        self._layers: OrderedDict[str, _Layer] = OrderedDict()
        self._packed: dict[tuple[str, str], Any] = {}
        self._yardsticks: dict[tuple[str, str], _Yardstick] = {}

    def roof(self) -> Roof:
        return self._probe.roof()

    def get_reference(self) -> float:
        return self._reference

    def measure(
        self, key: str, built: Built, best: float, beside: Built | None, seconds: float
    ) -> float:
        """Check and time a kernel: median seconds at a steady clock.

        Candidates are measured minutes apart, and a shared machine's speed drifts meanwhile by more than
        good candidates differ. So each run is scaled by the speed found beside it; by the higher of two
        looks, because an interrupt during a look of 1 ms says nothing of the run.
        """
        called = self._prepare(key, built)
        yardstick = None if beside is None else self._yardstick(key, beside, seconds)
        before = self._speed(yardstick)
        if self._conditions.cache == "cold":
            cold = statistics.median(timing.cold_seconds(*called, _COLD_CALLS))
            return cold * max(before, self._speed(yardstick))
        (once,) = timing.seconds(*called, repeats=1, least_ms=0)
        if once * before > _HOPELESS * best:
            # Twice, because an interrupt makes any one call look hopeless.
            once = min(once, *timing.seconds(*called, repeats=1, least_ms=0))
            if once * before > _HOPELESS * best:
                return once * before
        calls = max(1, math.ceil(_LEAST_MS / 1e3 / once))
        steady = []
        for _ in range(_REPEATS if yardstick else _YARDSTICK_REPEATS):
            (run,) = timing.seconds(*called, repeats=1, least_ms=0, calls=calls)
            after = self._speed(yardstick)
            steady.append(run * max(before, after))
            before = after
        return statistics.median(steady)

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

    def _speed(self, yardstick: _Yardstick | None) -> float:
        """Speed of the machine now over the reference's: of the layer's own default if it is known.

        A busy neighbour slows arithmetic, caches and memory differently, and a kernel of the same layer
        needs all of them in like measure.
        """
        if yardstick is None:
            return self._fed(1) / self._reference
        if self._conditions.cache == "cold":
            calls = timing.cold_seconds(*yardstick.called, _COLD_CALLS // 3)
            return yardstick.seconds / statistics.median(calls)
        calls_of_a_look = max(1, math.ceil(_LOOK_MS / 1e3 / yardstick.seconds))
        (now,) = timing.seconds(*yardstick.called, repeats=1, least_ms=0, calls=calls_of_a_look)
        return yardstick.seconds / now

    def _yardstick(self, key: str, built: Built, seconds: float) -> _Yardstick:
        place = (key, built.library)
        if place not in self._yardsticks:
            self._yardsticks[place] = _Yardstick(self._prepare(key, built), seconds)
        return self._yardsticks[place]

    def _fed(self, looks: int) -> float:
        return statistics.median(self._probe.fed_flops_per_second(_LOOK_MS) for _ in range(looks))

    def _layer(self, key: str) -> _Layer:
        if key in self._layers:
            self._layers.move_to_end(key)
            return self._layers[key]
        spec = ConvSpec.from_key(key)
        arguments = oracle.random_arguments(spec, seed=0)
        expected = oracle.conv(spec, **arguments)
        aligned = {name: arrays.aligned_copy(array) for name, array in arguments.items()}
        out = arrays.empty_aligned(spec.output_shape, tensors.numpy_dtype(spec.dtype))
        self._layers[key] = _Layer(spec, aligned, expected, out)
        while len(self._layers) > _LAYERS_KEPT:
            old, _ = self._layers.popitem(last=False)
            for kept in (self._packed, self._yardsticks):
                for place in [place for place in kept if place[0] == old]:
                    del kept[place]
        return self._layers[key]

    def _prepare(self, key: str, built: Built) -> tuple[Any, str, tuple[Any, ...]]:
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
        out.view(np.uint8)[...] = 0xFF  # NaN in every float format: an element never written shows
        module[built.symbol](*pointers)
        oracle.assert_close(spec, layer.expected, out)
        return module, built.symbol, pointers

    def _weights(self, key: str, layer: _Layer, built: Built) -> np.ndarray[Any, Any]:
        weights = layer.arguments["filter"]
        if built.pack_library is None:
            return weights
        place = (key, built.pack_library)
        if place not in self._packed:
            packed = arrays.empty_aligned(built.packed_shape, weights.dtype)
            pack = _load(built.pack_library)[PACK]
            pack(arrays.array_pointer(weights), arrays.array_pointer(packed))
            self._packed[place] = packed
        packed_weights: np.ndarray[Any, Any] = self._packed[place]
        return packed_weights


def open_runtime(runtime: str, threads: int) -> None:
    """Open ``libtvm_runtime`` in this process, and let kernels run on so many threads."""
    path = Path(runtime)
    entry = bundle.RuntimeEntry(path.name, bundle.file_digest(path))
    engine.open_runtime(path.parent, entry, "")
    engine.use_threads(threads)


def _load(library: str) -> Any:
    import tvm_ffi

    return tvm_ffi.load_module(library)
