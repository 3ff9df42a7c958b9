"""Measures candidates: compiled in some processes, checked and timed in another, all of them warm.

This is the seam for measuring elsewhere: a search needs `measure` and `interleave`, whatever is behind.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType

from tvmconv.building import cross, toolchain
from tvmconv.hardware import Machine
from tvmconv.measuring.places.boards import Boards, Fleet
from tvmconv.measuring.process import device
from tvmconv.measuring.process.candidate import Built, Candidate, Failure, Measurement
from tvmconv.measuring.process.compiling import Compilers
from tvmconv.measuring.process.device import Here
from tvmconv.measuring.process.libraries import Libraries
from tvmconv.measuring.process.runner import Conditions, Runner, time_each
from tvmconv.measuring.roof import gpu as gpu_roof
from tvmconv.measuring.roof.probe import Roof
from tvmconv.problem.spec import ConvSpec

_SCRATCH = "tvmconv-tune-"  # then the tuner's process


class Measurer:
    """Compiles candidates here, checks and times them here or on boards; use it in a ``with`` statement.

    A candidate that crashes a process, or takes longer than ``timeout_seconds`` to compile or to run, is
    a failed measurement and costs only itself. Nothing is compiled while something is timed.
    """

    def __init__(
        self,
        machine: Machine,
        conditions: Conditions | None = None,
        timeout_seconds: float = 30.0,
        boards: Boards | None = None,
    ) -> None:
        self.machine = machine
        self._boards = boards
        self._fleet: Fleet | None = None
        self.conditions = conditions or Conditions()
        self._timeout_seconds = timeout_seconds
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._compilers: Compilers | None = None
        self._runner: Runner | None = None
        self._yardsticks: dict[str, Built | Failure] = {}

    def __enter__(self) -> Measurer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def start(self) -> None:
        """Let the compiling processes start now, in the background."""
        self._compiling().start()

    def roof(self, specs: Sequence[ConvSpec] = ()) -> Roof:
        """What the machine can do at most, measured now; a GPU, by its facts, with these specs' dtypes."""
        if self.machine.gpu is not None:
            return gpu_roof.roof(self.machine, {spec.precision for spec in specs})
        return self._on_boards().roof() if self._boards else self._running().roof()

    @property
    def cpu(self) -> str:
        """What measures: the name of a CPU or a card."""
        return self.here.name

    @property
    def how(self) -> str:
        """The first words of a record's ``measured``."""
        place = f"over RPC, key {self._boards.key}" if self._boards else "here"
        driver = self.here.driver
        return f"{place}, {driver}" if driver else place

    @property
    def here(self) -> Here:
        """What measures, and its driver if it has one."""
        return self._on_boards().here if self._boards else device.here(self.machine)

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
            if self._boards:
                return self._on_boards().measure_each(spec, pairs, best, beside, done)
            return time_each(self._running(), spec, pairs, best, beside, done)
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
            if self._boards:
                return self._on_boards().interleave(spec, sound, rounds, again)
            times = self._running().compare(spec, sound, rounds, again)
            return times.text if isinstance(times, Failure) else times
        finally:
            _remove(each.library for each in built if isinstance(each, Built))

    def close(self) -> None:
        """End all processes, however busy, and remove what they wrote."""
        if self._runner is not None:
            self._runner.close()
            self._runner = None
        if self._fleet is not None:
            self._fleet.close()
            self._fleet = None
        if self._compilers is not None:
            self._compilers.close()
            self._compilers = None
        if self._scratch is not None:
            self._scratch.cleanup()
            self._scratch = None
        self._yardsticks.clear()

    def _compiling(self) -> Compilers:
        if self._compilers is None:
            _remove_orphans()
            self._scratch = tempfile.TemporaryDirectory(prefix=f"{_SCRATCH}{os.getpid()}-")
            self._compilers = Compilers(
                self.machine,
                Path(self._scratch.name),
                # nvcc takes seconds for a chunk of candidates
                timeout_seconds=self._timeout_seconds * (10 if self.machine.gpu else 1),
            )
        return self._compilers

    def _on_boards(self) -> Fleet:
        if self._fleet is None:
            assert self._boards is not None  # noqa: S101 - for the type checker
            self._fleet = Fleet(self._boards, self.machine, self._libraries(), self.conditions)
        return self._fleet

    def _running(self) -> Runner:
        if self._runner is None:
            self._runner = Runner(
                self.machine, self._libraries(), self.conditions, self._timeout_seconds
            )
        return self._runner

    def _libraries(self) -> Libraries:
        machine = self.machine
        if machine.gpu is None:
            roof = self._compiling().roof(self.conditions.threads)
            return Libraries(toolchain.runtime_library(), Path(roof))
        runtime, cuda_runtime = (
            cross.runtime_library(machine.architecture, name)
            for name in ("libtvm_runtime.so", "libtvm_runtime_cuda.so")
        )
        return Libraries(runtime, cuda_runtime=cuda_runtime)


def _remove_orphans() -> None:
    """Delete what tuners left behind that were killed: only they could have done it."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_SCRATCH}*"):
        pid = folder.name.removeprefix(_SCRATCH).partition("-")[0]
        if pid.isdigit() and not Path("/proc", pid).exists():
            shutil.rmtree(folder, ignore_errors=True)


def _remove(libraries: Iterable[str]) -> None:
    """Delete what was measured; it stays mapped where it is still loaded."""
    for library in set(libraries):
        Path(library).unlink(missing_ok=True)
