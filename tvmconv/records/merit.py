"""Which of two tuning records is the better one, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvmconv.records import choice
from tvmconv.records.record import Record


@dataclass(frozen=True)
class _Merit:
    """A reason to prefer a record: ``of`` is greater for the better one, ``show`` spells it."""

    of: Callable[[Record], Any]
    show: Callable[[Record], str]


# The first in which two records differ decides.
_MERITS = (
    _Merit(lambda r: not r.simulated, lambda r: "simulated" if r.simulated else "measured"),
    _Merit(lambda r: choice.other_release(r) is None, lambda r: f"TVM {r.tvm}"),
    _Merit(lambda r: r.gain, lambda r: f"gain {r.gain:.3f}"),
    _Merit(lambda r: r.date, lambda r: f"date {r.date}"),
)


def better(record: Record, other: Record) -> str | None:
    """Say why ``record`` is to be preferred to ``other``, of the same key and machine; None if it is not.

    A measured time before a simulated one, and the TVM release that is installed before others, whose
    code is not what would be built. Then the greater gain over the default, then the newer date.

    The gain and not the time: both sides of the gain were timed in the same interleaved rounds, so
    what was the matter with the machine that day (clock, neighbours, another stepping) is in both and
    cancels. Times of two days differ by more than good candidates do; the faster of them would often
    be that of the faster day. A day cannot make a gain, but a bad default can: where a release of this
    package has improved the default, older gains are too great, and tuning again is what helps. Gains
    are compared exactly, though they are known to about 1 % only: were near ones equal, the outcome
    of a merge would depend on the order of its sources.
    """
    for merit in _MERITS:
        mine, others = merit.of(record), merit.of(other)
        if mine != others:
            return f"{merit.show(record)} beats {merit.show(other)}" if mine > others else None
    return None
