"""Measures candidates in a process of its own, so that a crash or a hang costs one candidate only.

The process stays warm: importing TVM takes seconds, compiling and timing a candidate a tenth of one.
Every candidate's values are compared with the oracle before its time counts.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tvmconv.hardware import Machine
    from tvmconv.spec import ConvSpec


@dataclass(frozen=True)
class Candidate:
    """A schedule by name, with decisions."""

    schedule: str
    decisions: Mapping[str, int | str]

    @property
    def identity(self) -> tuple[str, tuple[tuple[str, int | str], ...]]:
        """Equal for candidates that mean the same kernel."""
        return (self.schedule, tuple(sorted(self.decisions.items())))


@dataclass(frozen=True)
class Measurement:
    """Median seconds of one call over the repeats, or what went wrong."""

    candidate: Candidate
    seconds: float | None
    error: str | None = None


class Measurer:
    """A warm process that compiles, checks and times candidates; use it in a ``with`` statement.

    ``threads`` is the number of threads of one call. A candidate that takes longer than
    ``timeout_seconds``, compiling included, is given up and its process replaced.
    """

    def __init__(self, machine: Machine, threads: int = 1, timeout_seconds: float = 30.0) -> None:
        self.machine = machine
        self.threads = threads
        self.timeout_seconds = timeout_seconds
        self._process: Any = None
        self._pipe: Connection | None = None

    def __enter__(self) -> Measurer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def measure(self, spec: ConvSpec, candidate: Candidate) -> Measurement:
        """Compile, check and time one candidate; never raises for a bad one."""
        reply = self._ask("measure", spec.key, [candidate], 1)
        if isinstance(reply, str):
            return Measurement(candidate, None, reply)
        return Measurement(candidate, reply[0][0])

    def interleave(
        self, spec: ConvSpec, candidates: Sequence[Candidate], rounds: int
    ) -> list[list[float]] | str:
        """Time good candidates against each other, in turn; seconds by round, for each of them.

        A round is a few milliseconds of each, so that whatever else the machine does hits all alike.
        Returns the error as text when one of them fails.
        """
        reply: list[list[float]] | str = self._ask("interleave", spec.key, list(candidates), rounds)
        return reply

    def close(self) -> None:
        """End the process, however it is busy."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None

    def _start(self) -> Connection:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, self.machine.name, self.threads), daemon=True
        )
        self._process.start()
        theirs.close()
        if not self._pipe.poll(120) or self._pipe.recv() != "ready":
            self.close()
            raise RuntimeError("the measuring process did not start within 120 s")
        return self._pipe

    def _ask(self, verb: str, key: str, candidates: list[Candidate], rounds: int) -> Any:
        pipe = self._pipe or self._start()
        try:
            pipe.send((verb, key, candidates, rounds))
            if not pipe.poll(self.timeout_seconds * len(candidates)):
                self.close()
                return f"took longer than {self.timeout_seconds:.0f} s"
            return pipe.recv()
        except (EOFError, OSError):
            self._process.join(1)
            code = self._process.exitcode
            self.close()
            name = signal.Signals(-code).name if code is not None and code < 0 else f"exit {code}"
            return f"crashed the measuring process ({name})"
        except BaseException:  # Ctrl-C between question and answer: the pipe is out of step
            self.close()
            raise


def _serve(pipe: Connection, machine_name: str, threads: int) -> None:
    """The measuring process: answers until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this one
    os.environ["TVM_NUM_THREADS"] = str(threads)
    os.environ.setdefault("TVM_BIND_THREADS", "0")
    from tvmconv.tuning.workbench import Workbench

    workbench = Workbench(machine_name, threads)
    pipe.send("ready")
    with contextlib.suppress(EOFError):
        while True:
            verb, key, candidates, rounds = pipe.recv()
            try:
                answer: Any = getattr(workbench, verb)(key, candidates, rounds)
            except Exception as error:
                answer = f"{type(error).__name__}: {error}"
            pipe.send(answer)
