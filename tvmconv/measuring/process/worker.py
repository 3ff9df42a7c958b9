"""A warm process that answers questions, may crash or hang doing so, and is then replaced.

Importing TVM takes a second, compiling a candidate a twentieth of one: so processes stay. What kills
one of them, or keeps it from answering, is the fault of the question it was asked.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

from tvmconv.errors import TuningError
from tvmconv.measuring.process.candidate import Failure

_START_SECONDS = 120.0
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


class SpoiltError(Exception):
    """What a question has done to its process: others could fail for it, so a new one takes its place."""


class Worker:
    """One spawned process around ``make(*arguments)``, whose methods are the questions.

    ``environment`` is set in the process before anything is imported there. The process starts with the
    first question, and again with the next one after it was lost.
    """

    def __init__(
        self,
        make: Callable[..., Any],
        arguments: tuple[Any, ...],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._make, self._arguments = make, arguments
        self._environment = dict(environment or {})
        self._process: Any = None
        self._ready = False
        self.pipe: Connection | None = None

    def start(self) -> Connection:
        """Start the process, if there is none, without waiting until it is ready."""
        if self.pipe is not None:
            return self.pipe
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve,
            # As bytes: reading them imports the module of `make`, which takes a second.
            args=(
                theirs,
                os.getpid(),
                pickle.dumps((self._make, self._arguments)),
                self._environment,
            ),
            daemon=True,
        )
        self._process.start()
        theirs.close()
        self._ready = False
        return self.pipe

    def send(self, verb: str, *arguments: Any) -> None:
        """Ask a question; `receive` takes the answer."""
        pipe = self._when_ready()
        with contextlib.suppress(OSError):  # it died meanwhile: `receive` finds out and says so
            pipe.send((verb, arguments))

    def receive(self, timeout_seconds: float) -> Any:
        """Return the answer, or a Failure: an error, a crash, or no answer in time.

        Raises the TuningError that the process has met: it is no fault of the question.
        """
        try:
            pipe = self.start()
            if not pipe.poll(timeout_seconds):
                self.close()
                return Failure(f"took longer than {timeout_seconds:.0f} s")
            answer = pipe.recv()
            if isinstance(answer, TuningError):
                raise answer
            if isinstance(answer, Failure) and answer.spoilt:
                self.close()
            return answer
        except (EOFError, OSError):
            return Failure(f"crashed the measuring process ({self._how_it_ended()})")
        except BaseException:  # Ctrl-C between question and answer: the pipe is out of step
            self.close()
            raise

    def ask(self, timeout_seconds: float, verb: str, *arguments: Any) -> Any:
        """`send` and `receive`."""
        self.send(verb, *arguments)
        return self.receive(timeout_seconds)

    def pause(self) -> None:
        """Stop the process until `resume`: whatever its threads wait for, they do not spin."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a stopped process go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.is_alive():
            os.kill(self._process.pid, number)

    def close(self) -> None:
        """End the process, however it is busy."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None
        if self.pipe is not None:
            self.pipe.close()
            self.pipe = None

    def _when_ready(self) -> Connection:
        pipe = self.start()
        if self._ready:
            return pipe
        try:
            answer = pipe.recv() if pipe.poll(_START_SECONDS) else Failure("no answer")
        except (EOFError, OSError):
            answer = Failure(self._how_it_ended())
        except BaseException:
            self.close()
            raise
        if answer != "ready":
            self.close()
            reason = answer.text if isinstance(answer, Failure) else answer
            raise TuningError(
                f"a process of the tuner did not start: {reason}. `tvmconv doctor` checks what it needs."
            )
        self._ready = True
        return pipe

    def _how_it_ended(self) -> str:
        self._process.join(1)
        code = self._process.exitcode
        self.close()
        return signal.Signals(-code).name if code is not None and code < 0 else f"exit {code}"


def die_with_parent(parent: int) -> None:
    """Have this process killed when its parent, of that id, ends, however that comes about."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before it could be told
        os._exit(1)


def _serve(
    pipe: Connection,
    parent: int,
    handler_made_by: bytes,
    environment: dict[str, str],
) -> None:
    """Answer until the pipe closes or the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this one
    die_with_parent(parent)  # which closes the pipe, but a candidate that hangs does not look there
    os.environ.update(environment)
    try:
        make, arguments = pickle.loads(handler_made_by)  # noqa: S301 - our own
        handler = make(*arguments)
    except Exception as error:
        pipe.send(Failure(f"{type(error).__name__}: {error}"))
        return
    pipe.send("ready")
    with contextlib.suppress(EOFError, OSError):
        while True:
            verb, details = pipe.recv()
            try:
                answer: Any = getattr(handler, verb)(*details)
            except TuningError as error:
                answer = error
            except SpoiltError as error:
                answer = Failure(str(error), spoilt=True)
            except Exception as error:
                answer = Failure(f"{type(error).__name__}: {error}")
            pipe.send(answer)
