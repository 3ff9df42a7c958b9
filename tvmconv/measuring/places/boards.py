"""Measures on boards over TVM's RPC: all of one key at once, whatever becomes of one of them.

Each link to a board is a process of its own (`Worker`), so that a connection that hangs or a library that
aborts is replaced like a candidate's process. A board that is lost costs time: what it was measuring goes
to another one, and the link takes whichever board the tracker has next.
"""

from __future__ import annotations

import dataclasses
import json
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tvmconv.errors import TuningError
from tvmconv.files import decode
from tvmconv.hardware import Machine
from tvmconv.measuring.process.candidate import Built, Candidate, Failure, Measurement
from tvmconv.measuring.process.device import Here
from tvmconv.measuring.process.libraries import Libraries
from tvmconv.measuring.process.pool import Pool, Question
from tvmconv.measuring.process.runner import Conditions
from tvmconv.measuring.process.worker import Worker
from tvmconv.measuring.roof.probe import Roof
from tvmconv.problem.spec import ConvSpec

_WAIT_SECONDS = 20.0  # for an answer of the tracker
# As in `board`: a layer's first kernel, whose oracle a slow core computes; then a multiple of that time.
_FIRST_SECONDS = 600.0
_PATIENCE, _LEAST_SECONDS = 5.0, 10.0
# Beyond that, a board that does not answer is lost: in it are connecting and starting two processes.
_MARGIN_SECONDS = 60.0
_LOSSES = 3  # boards that a candidate may cost before it is to blame
_FILES_KEPT = 64  # on a board


@dataclass(frozen=True)
class Boards:
    """Where boards are: their tracker's address and their key."""

    tracker: tuple[str, int]
    key: str


@dataclass(frozen=True)
class Lost:
    """A board that could not be asked: why, and whether it had the question already."""

    text: str
    asked: bool


class Fleet:
    """Boards of one key; use `close` when done."""

    def __init__(
        self, boards: Boards, machine: Machine, libraries: Libraries, conditions: Conditions
    ) -> None:
        """``libraries`` go to each board before candidates do."""
        self._boards = boards
        self._limits: dict[str, float] = {}
        count = len(_addresses(boards))
        if not count:
            raise _no_board(boards, 0.0)
        arguments = (boards, machine, libraries, conditions)
        workers = [Worker(_Link, arguments) for _ in range(count)]
        self._pool = Pool(workers, _FIRST_SECONDS)
        self._here: Here | None = None

    @property
    def here(self) -> Here:
        """What measures on the boards, all of which are alike."""
        if self._here is None:
            self._one({"verb": "here"}, {})
        assert self._here is not None  # noqa: S101 - for the type checker
        return self._here

    def roof(self) -> Roof:
        """What a board can do at most."""
        fields = self._one({"verb": "roof", "limit": _FIRST_SECONDS}, {})
        roof: Roof = decode(Roof, _value(fields), "roof")
        return roof

    def measure_each(
        self,
        spec: ConvSpec,
        candidates: Sequence[tuple[Candidate, Built | Failure]],
        best: float,
        beside: tuple[Built | None, float],
        done: Callable[[Measurement], None],
    ) -> list[Measurement]:
        """As `running.time_each`, on all boards at once; ``done`` is told as answers come in."""
        measurements: dict[int, Measurement] = {}

        def take(place: int, seconds: float | None, error: str | None) -> None:
            measurements[place] = Measurement(candidates[place][0], seconds, error)
            done(measurements[place])

        questions = {}
        limit = self._limits.get(spec.key, _FIRST_SECONDS)
        for place, (_, built) in enumerate(candidates):
            if isinstance(built, Failure):
                take(place, None, built.text)
                continue
            question = {
                "verb": "measure",
                "key": spec.key,
                "best": best if best < float("inf") else None,
                "seconds": beside[1],
                "limit": limit,
            }
            questions[place] = (question, {"built": built, "beside": beside[0]})

        def told(place: int, answer: dict[str, Any]) -> None:
            if "error" in answer:
                take(place, None, str(answer["error"]))
                return
            allowed = max(_LEAST_SECONDS, _PATIENCE * float(answer["took"]))
            self._limits.setdefault(spec.key, allowed)
            take(place, float(_value(answer)), None)

        self._all(questions, told)
        return [measurements[place] for place in range(len(candidates))]

    def interleave(
        self, spec: ConvSpec, built: Sequence[Built], rounds: int, again: int
    ) -> list[list[list[float]]] | str:
        """Time kernels against each other, all on one board; as `Measurer.interleave`."""
        limit = self._limits.get(spec.key, _FIRST_SECONDS)
        question = {
            "verb": "interleave",
            "key": spec.key,
            "rounds": rounds,
            "again": again,
            "limit": limit,
        }
        answer = self._one(question, {"built": list(built)})
        if "error" in answer:
            return str(answer["error"])
        times: list[list[list[float]]] = _value(answer)
        return times

    def close(self) -> None:
        """Let all boards go."""
        self._pool.close()

    def _one(self, question: dict[str, Any], files: dict[str, Any]) -> dict[str, Any]:
        answers: list[dict[str, Any]] = []
        self._all({0: (question, files)}, lambda _, answer: answers.append(answer))
        return answers[0]

    def _all(self, questions: dict[int, Any], told: Callable[[int, dict[str, Any]], None]) -> None:
        """Ask until every question has an answer: one that lost its board is asked again."""
        waiting, losses = dict(questions), dict.fromkeys(questions, 0)
        begin = time.monotonic()
        while waiting:
            before = len(waiting)
            self._round(waiting, losses, told)
            if len(waiting) < before:
                begin = time.monotonic()
            elif not _addresses(self._boards):
                raise _no_board(self._boards, time.monotonic() - begin)

    def _round(
        self,
        waiting: dict[int, Any],
        losses: dict[int, int],
        told: Callable[[int, dict[str, Any]], None],
    ) -> None:
        """Ask all once; what is answered is no longer ``waiting``."""
        places = list(waiting)

        def answered(at: int, answer: Any) -> None:
            place = places[at]
            if isinstance(answer, Failure):  # of the link's own process: it died, or waited in vain
                answer = Lost(answer.text, asked=True)
            if isinstance(answer, Lost):
                losses[place] += answer.asked
                if losses[place] < _LOSSES:
                    return
                answer = {"error": f"{_LOSSES} boards were lost over it: {answer.text}"}
            del waiting[place]
            self._require_alike(answer.get("here", self._here))
            told(place, answer)

        self._pool.ask([_question(*waiting[place]) for place in places], answered)

    def _require_alike(self, here: Here | None) -> None:
        self._here = self._here or here
        if here != self._here:
            raise TuningError(
                f"boards under the key {self._boards.key} differ: {self._here} and {here}. Times of two "
                "kinds do not compare; give each kind a key of its own. Trials made are kept."
            )


def _question(question: dict[str, Any], files: dict[str, Any]) -> Question:
    kernels = len(files["built"]) if question["verb"] == "interleave" else 1
    limit = float(question.get("limit", 0.0)) * kernels * int(question.get("again", 1))
    return Question("ask", (question, files), limit + _MARGIN_SECONDS)


def _value(answer: dict[str, Any]) -> Any:
    if "value" not in answer:
        raise TuningError(f"a board cannot measure: {answer.get('refused', answer)}")
    return answer["value"]


def _addresses(boards: Boards) -> list[Any]:
    """What the tracker knows under the key; TuningError where there is no tracker."""
    from tvm.rpc.client import TrackerSession

    try:
        socket.create_connection(boards.tracker, 5.0).close()
        session = TrackerSession(boards.tracker)
        known = session.summary()["server_info"]
        session.close()
    except (OSError, RuntimeError) as error:
        raise TuningError(
            f"no RPC tracker at {boards.tracker[0]}:{boards.tracker[1]} ({error}). Start one: "
            "python -m tvm.exec.rpc_tracker --host 127.0.0.1 --port 9190"
        ) from error
    return [each["addr"] for each in known if each.get("key") == f"server:{boards.key}"]


def _no_board(boards: Boards, waited: float) -> TuningError:
    from tvm.rpc.client import TrackerSession

    session = TrackerSession(boards.tracker)
    known = {
        str(each.get("key", "")).removeprefix("server:")
        for each in session.summary()["server_info"]
    }
    session.close()
    others = ", ".join(sorted(known - {""})) or "none"
    return TuningError(
        f"no board under the key {boards.key} (waited {waited:.0f} s); the tracker at "
        f"{boards.tracker[0]}:{boards.tracker[1]} knows these keys: {others}. Start one on the board: "
        f"tvmconv board --tracker HOST:{boards.tracker[1]} --key {boards.key}. Trials made are kept."
    )


class _Link:
    """A process with a connection to one board, or looking for one."""

    def __init__(
        self, boards: Boards, machine: Machine, libraries: Libraries, conditions: Conditions
    ) -> None:
        from tvm.rpc import client

        self._client = client
        self._boards, self._machine = boards, machine
        self._libraries, self._conditions = libraries.files(), conditions
        if machine.gpu is None:  # a board serves with a runtime, which will do for its CPU
            del self._libraries["runtime"]
        self._session: Any = None
        self._here: Here | None = None
        self._there: dict[str, None] = {}  # names of files on the board, oldest first

    def ask(self, question: dict[str, Any], files: dict[str, Any]) -> dict[str, Any] | Lost:
        """Send the libraries that the board lacks, and ask it."""
        asked = False
        try:
            if self._session is None:
                self._connect()
            if question["verb"] == "here":
                return {"here": self._here}
            built = {name: self._send(kernel) for name, kernel in files.items()}
            asked = True
            return {**self._call({**question, **built}), "here": self._here}
        except TuningError:
            raise
        except Exception as error:  # whatever TVM makes of a connection that ends
            self._session = None
            return Lost(f"{type(error).__name__}: {str(error).strip().splitlines()[-1:]}", asked)

    def _connect(self) -> None:
        tracker = self._client.TrackerSession(self._boards.tracker)
        tracker._sock.settimeout(_WAIT_SECONDS)  # request() would wait for ever
        if not tracker.summary()["queue_info"].get(self._boards.key, {}).get("free"):
            time.sleep(1.0)
            raise OSError("no board is free")
        self._session = tracker.request(self._boards.key, max_retry=1)
        tracker.close()
        self._there = {}
        self._put = self._session.get_function("tvmconv.put")
        self._ask = self._session.get_function("tvmconv.ask")
        for file in self._libraries.values():
            self._put(file.name, file.read_bytes())
        begin = self._call(
            {
                "verb": "begin",
                "machine": dataclasses.asdict(self._machine),
                "threads": self._conditions.threads,
                "cache": self._conditions.cache,
                **{name: file.name for name, file in self._libraries.items()},
            }
        )
        about = _value(begin)
        self._here = Here(about["cpu"], about.get("driver"))

    def _call(self, question: dict[str, Any]) -> dict[str, Any]:
        answer = json.loads(str(self._ask(json.dumps(question))))
        if "refused" in answer:
            _value(answer)
        return dict(answer)

    def _send(self, kernel: Built | list[Built] | None) -> Any:
        if kernel is None:
            return None
        if isinstance(kernel, list):
            return [self._send(each) for each in kernel]
        for library in (kernel.library, kernel.pack_library):
            if library is not None:
                self._upload(Path(library))
        return dataclasses.asdict(kernel.placed(Path()))

    def _upload(self, file: Path) -> None:
        if file.name not in self._there:
            self._put(file.name, file.read_bytes())
        self._there.pop(file.name, None)
        self._there[file.name] = None
        while len(self._there) > _FILES_KEPT:
            oldest = next(iter(self._there))
            del self._there[oldest]
            self._put(oldest, b"")
