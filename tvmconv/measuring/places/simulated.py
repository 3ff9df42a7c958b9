"""Measures candidates without a board: run in an emulated core, checked, and timed by prediction.

What it returns are seconds of a prediction:
the cycles of `cycles.predict` and the lines that moved, at the machine's usual clock. The same candidate
takes the same time whenever it is asked: nothing is repeated, and nothing is held against a yardstick.
"""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tvmconv import hardware
from tvmconv.checking import oracle
from tvmconv.errors import MissingToolError, TuningError
from tvmconv.hardware import Machine
from tvmconv.measuring.process.candidate import Candidate, Failure, Identity, Measurement
from tvmconv.measuring.process.device import Processor
from tvmconv.measuring.process.pool import Pool, Question
from tvmconv.measuring.process.runner import Conditions
from tvmconv.measuring.process.worker import Worker
from tvmconv.measuring.roof.probe import Bandwidth, Roof
from tvmconv.measuring.simulate import cycles
from tvmconv.measuring.simulate.caches import Caches
from tvmconv.problem.spec import ConvSpec
from tvmconv.records import record

# And a second for every million multiply-adds: an emulated core does 15 to 60 million in one.
_TIMEOUT_SECONDS, _SLOWEST = 60.0, 1e6
# Compiling, checking and analysing a candidate; then multiply-adds a second of running it.
_SECONDS, _SPEED = 1.0, 3e7


def require(machine: Machine) -> None:
    """Raise TuningError unless ``machine`` can be simulated, MissingToolError without the tools for it."""
    if not _known(machine):
        packs, _ = hardware.working_packs()
        known = [each.name for pack in packs for each in pack.machines if _known(each)]
        raise TuningError(
            f"{machine.name} ({machine.architecture}) cannot be simulated; what can: {', '.join(known)}. "
            "Tune on it without --simulate, or over --rpc-tracker or --export."
        )
    if importlib.util.find_spec("unicorn") is None:
        raise MissingToolError(
            "unicorn is needed to simulate kernels, found: not installed. "
            "To mend it: pip install 'tvmconv[simulate]'"
        )
    cycles.tools()
    Caches.of(machine)


def _processes() -> int:
    return len(os.sched_getaffinity(0))


def _known(machine: Machine) -> bool:
    return machine.gpu is None and machine.architecture == "aarch64" and machine.cpu.gigahertz > 0


@dataclass(frozen=True)
class Simulated:
    """An emulated core of ARM machines; a `place.Place`."""

    name = record.SIMULATED
    board = None
    # Predictions do not scatter, but tiles that were measured to be best are predicted to be up to 8 % from
    # it, one of twenty 13 % (docs/arm.md, "Predicted times").
    worthwhile = 1.10

    def journal_name(self, _machine: Machine) -> str:
        """Predictions do not depend on where they are made."""
        return self.name

    def require(self, machine: Machine) -> None:
        """Raise TuningError unless it can be simulated, MissingToolError without the tools for it."""
        require(machine)

    def seconds_per_trial(self, _machine: Machine, specs: Sequence[ConvSpec]) -> float:
        """What a candidate of these layers takes on average, by experience (VM, 2 cores, 2026-11)."""
        each = [_SECONDS + spec.macs / _SPEED for spec in specs]
        return sum(each) / max(1, len(each)) / _processes()

    def open(self, machine: Machine, _conditions: Conditions | None = None) -> Simulator:
        """Return what predicts: for one thread and warm caches."""
        return Simulator(machine)


class Simulator:
    """Compiles, runs, checks and predicts in some processes; a `place.Measurer`."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        workers = [Worker(_Core, (machine.name,)) for _ in range(_processes())]
        self._pool = Pool(workers, _TIMEOUT_SECONDS)
        self._known: dict[tuple[str, Identity], Measurement] = {}

    def __enter__(self) -> Simulator:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()

    def start(self) -> None:
        """Let the processes start now, in the background."""
        self._pool.start()

    def close(self) -> None:
        """End all processes, however busy."""
        self._pool.close()

    @property
    def processor(self) -> Processor:
        """What a record says in place of a CPU's own name."""
        return Processor(
            f"no CPU: {self.machine.name} at {self.machine.cpu.gigahertz:g} GHz, predicted"
        )

    def roof(self, _specs: Sequence[ConvSpec] = ()) -> Roof:
        """What the machine can do at most, by its facts."""
        cpu, clock = self.machine.cpu, self.machine.cpu.gigahertz * 1e9
        peak = 2 * cpu.lanes("float32") * cpu.fma_ports * clock
        levels = (
            Bandwidth(cpu.l2_bytes, cpu.l2_bytes_per_cycle * clock),
            Bandwidth(1 << 62, cpu.memory_bytes_per_cycle * clock),
        )
        return Roof(peak, peak, levels)

    def measure(
        self,
        spec: ConvSpec,
        candidates: Sequence[Candidate],
        best: float = math.inf,
        done: Callable[[Measurement], None] = lambda _measurement: None,
        yardstick: Measurement | None = None,
    ) -> list[Measurement]:
        """Predict all of them; ``done`` is called after each. Never raises for a bad candidate.

        ``best`` and ``yardstick`` say nothing here: predictions do not scatter.
        """
        limit = _TIMEOUT_SECONDS + spec.macs / _SLOWEST

        def told(place: int, answer: float | Failure) -> None:
            candidate = candidates[place]
            made = Measurement(candidate, None if isinstance(answer, Failure) else answer)
            if isinstance(answer, Failure):
                made = Measurement(candidate, None, answer.text)
            self._known[spec.key, candidate.identity] = made
            done(made)

        questions = [Question("seconds", (spec.key, each), limit) for each in candidates]
        self._pool.ask(questions, told)
        return [self._known[spec.key, candidate.identity] for candidate in candidates]

    def interleave(
        self, spec: ConvSpec, candidates: Sequence[Candidate], rounds: int, again: int = 1
    ) -> list[list[list[float]]] | str:
        """The form of `Measurer.interleave`, with one process and one round: others would be the same."""
        unknown = [each for each in candidates if (spec.key, each.identity) not in self._known]
        self.measure(spec, unknown)
        times = []
        for each in candidates:
            known = self._known[spec.key, each.identity]
            if known.seconds is None:
                return str(known.error)
            times.append([known.seconds])
        return [times]


class _Core:
    """What a simulating process does."""

    def __init__(self, machine_name: str) -> None:
        from tvmconv.measuring.simulate import kernel  # imports TVM: a second

        self._kernel = kernel
        self.machine, self.pack = hardware.find_machine(machine_name)
        self._spec: ConvSpec | None = None

    def seconds(self, key: str, candidate: Candidate) -> float:
        """Compile, run, check, predict."""
        spec, machine = self._layer(key), self.machine
        schedule = hardware.find_schedule(candidate.schedule, self.pack)
        function = schedule.apply(spec, machine, candidate.decisions)
        content = self._kernel.object_file(function, machine)
        counts, out = self._kernel.run(content, spec, function, self._arguments, Caches.of(machine))
        low, high = self._within
        if not bool(np.all((low <= out) & (out <= high))):
            oracle.assert_close(spec, self._expected, out)
        taken = cycles.with_caches(cycles.predict(counts, machine), counts.traffic, machine)
        return taken / (machine.cpu.gigahertz * 1e9)

    def _layer(self, key: str) -> ConvSpec:
        if self._spec is None or self._spec.key != key:
            self._spec = spec = ConvSpec.from_key(key)
            self._arguments = oracle.random_arguments(spec, seed=0)
            self._expected = oracle.conv(spec, **self._arguments)
            self._within = oracle.within(spec, self._expected)
        return self._spec
