"""Measures on boards over TVM's RPC: all of one key at once, whatever becomes of one of them.

Each link to a board is a process of its own (`Worker`), so that a connection that hangs or a library that
aborts is replaced like a candidate's process. A board that is lost costs time: what it was measuring goes
to another one, and the link takes whichever board the tracker has next.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvmconv.building import cross
from tvmconv.errors import TuningError
from tvmconv.files import decode
from tvmconv.hardware import Machine
from tvmconv.measuring.places.board_link import Address, Link, Lost, addresses, no_board, value_of
from tvmconv.measuring.places.compiled import CompilingMeasurer, seconds_per_trial
from tvmconv.measuring.process.candidate import Built, Candidate, Failure, Measurement
from tvmconv.measuring.process.device import Processor
from tvmconv.measuring.process.libraries import Libraries
from tvmconv.measuring.process.pool import Pool, Question
from tvmconv.measuring.process.runner import Conditions
from tvmconv.measuring.process.worker import Worker
from tvmconv.measuring.roof.probe import Roof
from tvmconv.problem.spec import ConvSpec
from tvmconv.records import record
from tvmconv.records.log import WORTHWHILE

# As in `board`: a layer's first kernel, whose oracle a slow core computes; then a multiple of that time.
_FIRST_SECONDS = 600.0
_PATIENCE, _LEAST_SECONDS = 5.0, 10.0
# Beyond that, a board that does not answer is lost: in it are connecting and starting two processes.
_MARGIN_SECONDS = 60.0
_COMPILE_SECONDS = 30.0  # of a candidate
_LOSSES = 3  # boards that a candidate may cost before it is to blame


@dataclass(frozen=True)
class Boards:
    """Where boards are: their tracker's address and their key; a `place.Place`."""

    tracker: Address
    key: str
    name = record.RPC
    worthwhile = WORTHWHILE

    @property
    def board(self) -> str:
        """The key."""
        return self.key

    def journal_name(self, _machine: Machine) -> str:
        """All boards of a key are alike."""
        return f"{self.name}-{self.key}"

    def require(self, machine: Machine) -> None:
        """Raise MissingToolError where nothing can be built for the machine."""
        cross.require(machine.architecture, machine.name)

    def seconds_per_trial(self, machine: Machine, _specs: Sequence[ConvSpec]) -> float:
        """As if it were measured here."""
        return seconds_per_trial(machine)

    def open(self, machine: Machine, conditions: Conditions | None = None) -> CompilingMeasurer:
        """Return what compiles here, and measures on all boards of the key."""
        given = conditions or Conditions()
        return CompilingMeasurer(
            machine,
            given.threads,
            _COMPILE_SECONDS,
            lambda libraries: Fleet(self, machine, libraries, given),
        )


class Fleet:
    """Boards of one key; use `close` when done."""

    def __init__(
        self, boards: Boards, machine: Machine, libraries: Libraries, conditions: Conditions
    ) -> None:
        """``libraries`` go to each board before candidates do."""
        self._boards = boards
        self._limits: dict[str, float] = {}
        count = len(addresses(boards.tracker, boards.key))
        if not count:
            raise no_board(boards.tracker, boards.key, 0.0)
        arguments = (boards.tracker, boards.key, machine, libraries, conditions)
        workers = [Worker(Link, arguments) for _ in range(count)]
        self._pool = Pool(workers, _FIRST_SECONDS)
        self._here: Processor | None = None

    @property
    def processor(self) -> Processor:
        """What measures on the boards, all of which are alike."""
        if self._here is None:
            self._one({"verb": "here"}, {})
        assert self._here is not None  # noqa: S101 - for the type checker
        return self._here

    def roof(self) -> Roof:
        """What a board can do at most."""
        fields = self._one({"verb": "roof", "limit": _FIRST_SECONDS}, {})
        roof: Roof = decode(Roof, value_of(fields), "roof")
        return roof

    def measure_each(
        self,
        spec: ConvSpec,
        candidates: Sequence[tuple[Candidate, Built | Failure]],
        best: float,
        beside: tuple[Built | None, float],
        done: Callable[[Measurement], None],
    ) -> list[Measurement]:
        """As `Runner.measure_each`, on all boards at once; ``done`` is told as answers come in."""
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
            take(place, float(value_of(answer)), None)

        self._all(questions, told)
        return [measurements[place] for place in range(len(candidates))]

    def compare(
        self, spec: ConvSpec, built: Sequence[Built], rounds: int, processes: int
    ) -> list[list[list[float]]] | Failure:
        """As `Runner.compare`, all on one board."""
        limit = self._limits.get(spec.key, _FIRST_SECONDS)
        question = {
            "verb": "interleave",
            "key": spec.key,
            "rounds": rounds,
            "again": processes,
            "limit": limit,
        }
        answer = self._one(question, {"built": list(built)})
        if "error" in answer:
            return Failure(str(answer["error"]))
        times: list[list[list[float]]] = value_of(answer)
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
            elif not addresses(self._boards.tracker, self._boards.key):
                raise no_board(self._boards.tracker, self._boards.key, time.monotonic() - begin)

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

    def _require_alike(self, here: Processor | None) -> None:
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
