"""Several warm workers that share a list of questions."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from time import monotonic
from typing import Any

from tvmconv.measuring.process.candidate import Failure
from tvmconv.measuring.process.worker import Worker


@dataclass(frozen=True)
class Question:
    """A method of the workers' handler and its arguments; ``seconds`` in place of the pool's timeout."""

    verb: str
    arguments: tuple[Any, ...]
    seconds: float | None = None


@dataclass(frozen=True)
class _Asked:
    worker: Worker
    place: int
    deadline: float
    seconds: float


class Pool:
    """Workers that are all alike; use `close` when done."""

    def __init__(self, workers: Sequence[Worker], timeout_seconds: float) -> None:
        self._workers, self._timeout_seconds = list(workers), timeout_seconds

    def start(self) -> None:
        """Let all processes start now, in the background."""
        for worker in self._workers:
            worker.start()

    def close(self) -> None:
        """End all processes."""
        for worker in self._workers:
            worker.close()

    def ask(
        self,
        questions: Sequence[Question],
        told: Callable[[int, Any], None] = lambda _place, _answer: None,
    ) -> list[Any]:
        """Return the answers in order, a Failure for a crash, an error or none in time.

        ``told`` hears of each with its place as soon as it is there.
        """
        waiting = deque(enumerate(questions))
        answers: dict[int, Any] = {}
        asked: dict[Any, _Asked] = {}
        while waiting or asked:
            idle = [worker for worker in self._workers if worker.pipe not in asked]
            for worker in idle[: len(waiting)]:
                place, question = waiting.popleft()
                # In turn, so that one that cannot answer does not get the same question again and again.
                self._workers.remove(worker)
                self._workers.append(worker)
                worker.send(question.verb, *question.arguments)
                seconds = question.seconds or self._timeout_seconds
                asked[worker.pipe] = _Asked(worker, place, monotonic() + seconds, seconds)
            for one in _answered(asked):
                answer = one.worker.receive(0)
                late = isinstance(answer, Failure) and one.deadline <= monotonic()
                text = f"took longer than {one.seconds:.0f} s"
                answers[one.place] = Failure(text) if late else answer
                told(one.place, answers[one.place])
        return [answers[place] for place in range(len(questions))]


def _answered(asked: dict[Any, _Asked]) -> list[_Asked]:
    """Wait for the next answer or deadline; returns who answered, died or is late."""
    soonest = min(one.deadline for one in asked.values())
    ready = wait(list(asked), timeout=max(0.0, soonest - monotonic()))
    late = [pipe for pipe, one in asked.items() if one.deadline <= monotonic()]
    return [asked.pop(pipe) for pipe in dict.fromkeys([*ready, *late])]
