"""A tuning record: what one line of a log says, in the form that is written and in those that are read.

Format 2 says in fields of their own how the times came about. Format 1 said it in one sentence, ``measured``;
its lines are read for ever, and stay as they are when the file around them changes. Fields that format 2
does not know come from a later release that this one may still read: they are kept and not looked at.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from tvmconv.errors import TvmconvError
from tvmconv.files import decode
from tvmconv.problem.spec import ConvSpec

FORMAT = 2
# `Record.how`: the candidate beat the default by the clock, or in a prediction, or nothing beat the default.
MEASURED, SIMULATED, CONFIRMED_DEFAULT = HOW = ("measured", "simulated", "confirmed default")
# `Record.place`; the fourth is SIMULATED.
HERE, OFFLINE, RPC = "here", "offline", "rpc"
PLACES = (HERE, OFFLINE, RPC, SIMULATED)
CACHES = ("warm", "cold")


class NewerFormatError(TvmconvError, ValueError):
    """A record of a later release, whose format this one does not read."""


@dataclass(frozen=True)
class Times:
    """Microseconds of a call, by process and round: of what was chosen, and of the default beside it."""

    chosen: tuple[tuple[float, ...], ...]
    default: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Record:
    """The best decisions found for one spec on one machine.

    Attributes:
        key: ``ConvSpec.key``.
        schedule: name of the schedule that the decisions belong to.
        decisions: the schedule's knobs, by name.
        microseconds: of one call with these decisions: the mean of the processes' medians.
        default_microseconds: the same for the schedule's default, in the same interleaved rounds.
        how: what the times are, and what they showed: one of `HOW`.
        machine: name of the machine the kernel was compiled for.
        cpu: the own name of the CPU or the card that it ran on.
        driver: of the card; None for a CPU.
        place: where that was: one of `PLACES`.
        board: the key of the boards, where the place is `RPC`.
        threads: threads of one call.
        cache: ``warm`` or ``cold``; None where a record of format 1 does not tell.
        rounds: of each process, in which the times were taken; None where format 1 does not tell.
        trials: candidates measured before this one was chosen.
        tvm: version of TVM that compiled it.
        date: ISO date of the measurement.
        times: all of them; None in format 1, which did not keep them.
        measured: the sentence of a record of format 1; None in format 2.
        extra: fields of a later release.
    """

    key: str
    schedule: str
    decisions: dict[str, int | str]
    microseconds: float
    default_microseconds: float
    how: str
    machine: str
    cpu: str
    driver: str | None
    place: str
    board: str | None
    threads: int
    cache: str | None
    rounds: int | None
    trials: int
    tvm: str
    date: str
    times: Times | None = None
    measured: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def simulated(self) -> bool:
        """Whether its times are predictions: a measured record wins over it, whatever the times."""
        return self.place == SIMULATED

    @property
    def is_default(self) -> bool:
        """Whether it says that the default is best, where a build would take some other record."""
        return self.how == CONFIRMED_DEFAULT

    @property
    def gain(self) -> float:
        """How many times faster than the default, both timed in the same rounds."""
        return self.default_microseconds / self.microseconds


_FIELDS = [each.name for each in fields(Record) if each.name not in ("measured", "extra")]
_FIELDS_1 = (
    *("key", "schedule", "decisions", "microseconds", "default_microseconds"),
    *("machine", "cpu", "threads", "tvm", "date", "trials", "measured"),
)

_SENTENCE_1 = re.compile(
    r"(here|offline|over RPC, key (?P<board>[^,]*))(, (?P<driver>.+?))?, (?P<cache>warm|cold) cache, "
    r"median of (?P<rounds>[0-9]{1,9}) rounds"
)


def encode(record: Record) -> dict[str, Any]:
    """Return what is written of a record, in the format that it has; `parse` reads it."""
    if record.measured is not None:
        return {name: getattr(record, name) for name in _FIELDS_1}
    written = {name: getattr(record, name) for name in _FIELDS}
    if record.times is not None:
        written["times"] = {"chosen": record.times.chosen, "default": record.times.default}
    return {"format": FORMAT, **written, **record.extra}


def parse(value: Any) -> Record:
    """Return the record that decoded JSON spells; ValueError says which field is wrong.

    Raises NewerFormatError for the format of a later release.
    """
    if not isinstance(value, dict):
        raise ValueError(f"a record is an object, this is {type(value).__name__}")
    form = value.get("format", 1)
    if type(form) is not int or form < 1:
        raise ValueError(f"format is {form!r}, expected a number from 1 to {FORMAT}")
    if form > FORMAT:
        raise NewerFormatError(f"it has format {form}, and this tvmconv reads 1 to {FORMAT}")
    record = _parse_1(value) if form == 1 else _parse_2(value)
    _check(record)
    return record


def _parse_2(value: dict[str, Any]) -> Record:
    rest = {name: each for name, each in value.items() if name != "format"}
    extra = {name: rest.pop(name) for name in list(rest) if name not in _FIELDS}
    record: Record = decode(Record, {**rest, "measured": None, "extra": extra}, "record")
    for name, given, allowed in (
        ("how", record.how, HOW),
        ("place", record.place, PLACES),
        ("cache", record.cache, CACHES),
    ):
        if given not in allowed:
            raise ValueError(f"{name} is {given!r}, expected one of {', '.join(allowed)}")
    if record.rounds is None or record.rounds < 1:
        raise ValueError(f"rounds is {record.rounds}, expected a number above 0")
    if not record.is_default and (record.how == SIMULATED) != record.simulated:
        raise ValueError(f"how is {record.how!r}, which contradicts place {record.place!r}")
    return record


def _parse_1(value: dict[str, Any]) -> Record:
    """Take the sentence of format 1 apart; a field of format 2 that is not in it is None."""
    rest = {name: each for name, each in value.items() if name != "format"}
    if set(rest) != set(_FIELDS_1) or not isinstance(rest["measured"], str):
        missing, unknown = sorted(set(_FIELDS_1) - set(rest)), sorted(set(rest) - set(_FIELDS_1))
        raise ValueError(
            f"record of format 1 must have the fields {sorted(_FIELDS_1)}: missing are {missing}, unknown "
            f"{unknown}, measured is a sentence"
        )
    told = {**dict.fromkeys(("driver", "board", "cache", "rounds", "times")), "place": HERE}
    record: Record = decode(Record, {**rest, **told, "how": MEASURED, "extra": {}}, "record")
    sentence = str(record.measured)
    if sentence.startswith("simulated"):
        cache = next((each for each in CACHES if f"{each} cache" in sentence), None)
        return replace(record, how=_how_1(record, SIMULATED), place=SIMULATED, cache=cache)
    found = _SENTENCE_1.match(sentence)
    place = sentence.split(",")[0]
    return replace(
        record,
        how=_how_1(record, MEASURED),
        place={"over RPC": RPC, "offline": OFFLINE}.get(place, HERE),
        board=found["board"] if found else None,
        driver=found["driver"] if found else None,
        cache=found["cache"] if found else None,
        rounds=int(found["rounds"]) if found else None,
    )


def _how_1(record: Record, otherwise: str) -> str:
    """What format 1 left to be concluded: a record of the default itself repeats its time."""
    equal = record.microseconds == record.default_microseconds
    return CONFIRMED_DEFAULT if equal else otherwise


def _check(record: Record) -> None:
    """Raise ValueError where well-typed fields make no sense."""
    for name in ("microseconds", "default_microseconds"):
        if not 0 < getattr(record, name) < math.inf:
            raise ValueError(f"{name} is {getattr(record, name)!r}, expected a time above 0")
    if ConvSpec.from_key(record.key).key != record.key:
        raise ValueError(f"{record.key!r} is not how that spec is spelt")
    if record.times is not None:
        _check_times(record.times, record.rounds)


def _check_times(times: Times, rounds: int | None) -> None:
    processes = (*times.chosen, *times.default)
    if not times.chosen or len(times.chosen) != len(times.default):
        raise ValueError("times must have the same processes for chosen and default")
    if any(len(each) != rounds or min(each) <= 0 for each in processes):
        raise ValueError(f"times must have {rounds} times above 0 of each process")
