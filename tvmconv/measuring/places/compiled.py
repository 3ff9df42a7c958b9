"""Measures what is compiled here: candidates become libraries, and a timer checks and times those.

The timer is on this machine or on boards; nothing is compiled while something is timed.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

from tvmconv import writing
from tvmconv.building import cross, toolchain
from tvmconv.hardware import Machine
from tvmconv.measuring.process.candidate import Built, Candidate, Failure, Measurement
from tvmconv.measuring.process.compiling import Compilers
from tvmconv.measuring.process.device import Processor
from tvmconv.measuring.process.libraries import Libraries
from tvmconv.measuring.roof import gpu as gpu_roof
from tvmconv.measuring.roof.probe import Roof
from tvmconv.problem.spec import ConvSpec

# Compiling, checking and timing one candidate; VM, 2 cores, 2026-11.
_SECONDS_PER_TRIAL = 0.08
_GPU_SECONDS_PER_TRIAL = 0.4  # 0.37 of it compiling with nvcc; timing is not measured


def seconds_per_trial(machine: Machine) -> float:
    """What one candidate takes, by experience."""
    return _GPU_SECONDS_PER_TRIAL if machine.gpu else _SECONDS_PER_TRIAL


class Timer(Protocol):
    """What checks and times built candidates: a `Runner` here, or boards."""

    @property
    def processor(self) -> Processor:
        """What measures."""

    def roof(self) -> Roof:
        """What a CPU can do at most, measured now."""

    def measure_each(
        self,
        spec: ConvSpec,
        candidates: Sequence[tuple[Candidate, Built | Failure]],
        best: float,
        beside: tuple[Built | None, float],
        done: Callable[[Measurement], None],
    ) -> list[Measurement]:
        """As `Runner.measure_each`."""

    def compare(
        self, spec: ConvSpec, built: Sequence[Built], rounds: int, processes: int
    ) -> list[list[list[float]]] | Failure:
        """As `Runner.compare`."""

    def close(self) -> None:
        """Let go of whatever measures."""


class CompilingMeasurer:
    """Compiles candidates here and has a timer check and time them; a `place.Measurer`.

    A candidate that crashes a process, or takes longer than ``timeout_seconds`` to compile or to run, is
    a failed measurement and costs only itself. The timer is made of the libraries that it needs when it
    is first asked, and again after `close`.
    """

    def __init__(
        self,
        machine: Machine,
        threads: int,
        timeout_seconds: float,
        timer_of: Callable[[Libraries], Timer],
    ) -> None:
        self._machine, self._threads = machine, threads
        self._timeout_seconds, self._timer_of = timeout_seconds, timer_of
        self._opened = contextlib.ExitStack()
        self._compilers: Compilers | None = None
        self._timer: Timer | None = None
        self._yardsticks: dict[str, Built | Failure] = {}

    def __enter__(self) -> CompilingMeasurer:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()

    def start(self) -> None:
        """Let the compiling processes start now, in the background."""
        self._compiling().start()

    def close(self) -> None:
        """End all processes, however busy, and remove what they wrote."""
        self._compilers = self._timer = None
        self._yardsticks.clear()
        self._opened.close()

    @property
    def processor(self) -> Processor:
        """What measures: a CPU or a card."""
        return self._timing().processor

    def roof(self, specs: Sequence[ConvSpec] = ()) -> Roof:
        """What the machine can do at most, measured now; a GPU, by its facts, with these specs' dtypes."""
        if self._machine.gpu is not None:
            return gpu_roof.roof(self._machine.gpu, {spec.precision for spec in specs})
        return self._timing().roof()

    def measure(
        self,
        spec: ConvSpec,
        candidates: Sequence[Candidate],
        best: float = math.inf,
        done: Callable[[Measurement], None] = lambda _measurement: None,
        yardstick: Measurement | None = None,
    ) -> list[Measurement]:
        """Compile all, then check and time one by one; never raises for a bad candidate.

        ``done`` is called after each. Those far slower than ``best`` (seconds) are timed roughly.
        ``yardstick`` is a good measurement of the same layer, the default's: its kernel is timed beside
        each candidate to tell how fast the machine is just then.
        """
        beside = self._beside(spec, yardstick)
        built = self._compiling().compile(spec, candidates)
        pairs = list(zip(candidates, built, strict=True))
        try:
            return self._timing().measure_each(spec, pairs, best, beside, done)
        finally:
            _remove(each.library for each in built if isinstance(each, Built))

    def interleave(
        self, spec: ConvSpec, candidates: Sequence[Candidate], rounds: int, again: int = 1
    ) -> list[list[list[float]]] | str:
        """Time good candidates against each other, in turn, compiled as they would be shipped.

        Returns for each of ``again`` processes (`Runner.compare`) the seconds by candidate and round, or
        the error as text when a candidate fails.
        """
        built = self._compiling().compile(spec, candidates, shipped=True)
        try:
            sound = [each for each in built if isinstance(each, Built)]
            failed = next((each for each in built if isinstance(each, Failure)), None)
            if failed is not None:
                return failed.text
            times = self._timing().compare(spec, sound, rounds, again)
            return times.text if isinstance(times, Failure) else times
        finally:
            _remove(each.library for each in built if isinstance(each, Built))

    def _beside(self, spec: ConvSpec, yardstick: Measurement | None) -> tuple[Built | None, float]:
        """Compile a layer's yardstick once; it stays until `close`."""
        if yardstick is None or yardstick.seconds is None:
            return None, 0.0
        if spec.key not in self._yardsticks:
            (self._yardsticks[spec.key],) = self._compiling().compile(spec, [yardstick.candidate])
        built = self._yardsticks[spec.key]
        return (built, yardstick.seconds) if isinstance(built, Built) else (None, 0.0)

    def _compiling(self) -> Compilers:
        if self._compilers is None:
            folder = self._opened.enter_context(writing.scratch("tvmconv-tune-"))
            self._compilers = Compilers(
                self._machine, folder, timeout_seconds=self._timeout_seconds
            )
            self._opened.callback(self._compilers.close)
        return self._compilers

    def _timing(self) -> Timer:
        if self._timer is None:
            self._timer = self._timer_of(self._libraries())
            self._opened.callback(self._timer.close)
        return self._timer

    def _libraries(self) -> Libraries:
        machine = self._machine
        if machine.gpu is None:
            roof = self._compiling().roof(self._threads)
            return Libraries(toolchain.runtime_library(), Path(roof))
        runtime, cuda_runtime = (
            cross.runtime_library(machine.architecture, name)
            for name in ("libtvm_runtime.so", "libtvm_runtime_cuda.so")
        )
        return Libraries(runtime, cuda_runtime=cuda_runtime)


def _remove(libraries: Iterable[str]) -> None:
    """Delete what was measured; it stays mapped where it is still loaded."""
    for library in set(libraries):
        Path(library).unlink(missing_ok=True)
