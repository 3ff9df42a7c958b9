"""Checks and times compiled candidates in a process that has the runtime and no compiler.

Values are compared with the oracle before a time counts.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvmconv.errors import TuningError
from tvmconv.hardware import Machine
from tvmconv.measuring.process import device, on_cpu, on_gpu
from tvmconv.measuring.process.candidate import Built, Candidate, Failure, Measurement
from tvmconv.measuring.process.device import Processor
from tvmconv.measuring.process.libraries import Libraries
from tvmconv.measuring.process.worker import Worker
from tvmconv.measuring.roof.probe import Roof
from tvmconv.problem.spec import ConvSpec


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
    """A warm process that checks and times what `Compilers` made; use `close` when done."""

    def __init__(
        self,
        machine: Machine,
        libraries: Libraries,
        conditions: Conditions,
        timeout_seconds: float = 30.0,
    ) -> None:
        self.timeout_seconds, self._machine = timeout_seconds, machine
        environment = {
            "TVM_NUM_THREADS": str(conditions.threads),
            "TVM_BIND_THREADS": os.environ.get("TVM_BIND_THREADS", "0"),
        }
        if machine.gpu is None:
            threads = conditions.threads
            arguments: tuple[Any, ...] = (machine, libraries, threads, conditions.cache)
            self._worker = Worker(on_cpu.start, arguments, environment)
        else:
            arguments = (machine, libraries, conditions.cache)
            self._worker = Worker(on_gpu.start, arguments, environment)

    def start(self) -> None:
        """Let the process start now, in the background."""
        self._worker.start()

    def close(self) -> None:
        """End the process; the next question starts another one."""
        self._worker.close()

    @property
    def processor(self) -> Processor:
        """Of this machine."""
        return device.here(self._machine)

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

    def measure_each(
        self,
        spec: ConvSpec,
        candidates: Sequence[tuple[Candidate, Built | Failure]],
        best: float,
        beside: tuple[Built | None, float],
        done: Callable[[Measurement], None],
    ) -> list[Measurement]:
        """Check and time candidates one by one, and tell ``done`` of each; never raises for a bad one.

        ``beside`` is the yardstick and its seconds, as in `measure`. Those far slower than ``best``, or
        than the best before them, are timed roughly.
        """
        measurements = []
        for candidate, each in candidates:
            result: float | Failure
            result = each if isinstance(each, Failure) else self.measure(spec, each, best, *beside)
            if isinstance(result, Failure):
                measurement = Measurement(candidate, None, result.text)
            else:
                best = min(best, result)
                measurement = Measurement(candidate, result)
            measurements.append(measurement)
            done(measurement)
        return measurements

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

    def compare(
        self, spec: ConvSpec, built: Sequence[Built], rounds: int, processes: int
    ) -> list[list[list[float]]] | Failure:
        """`interleave` in so many processes, one after the other: this one first, then new ones.

        Memory lies differently in each, which decides up to 10 % of a small layer's time.
        """
        found = []
        for number in range(processes):
            if number:
                self.close()
            times = self.interleave(spec, built, rounds)
            if isinstance(times, Failure):
                return times
            found.append(times)
        return found


def _sound(answer: Any) -> Any:
    if isinstance(answer, Failure):
        raise TuningError(
            f"the measuring process failed: {answer.text}. `tvmconv doctor` tries a kernel."
        )
    return answer
