"""What is tuned, what is stale, what is missing: a workload's layers against the logs and the journal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tvmconv.hardware import HardwarePack, Machine
from tvmconv.problem.workloads import Layer
from tvmconv.records import choice, log
from tvmconv.tuning.journal import Journal
from tvmconv.tuning.plan import distinct

STATES = ("tuned", "default is best", "begun", "stale", "missing")
TUNED, DEFAULT_IS_BEST, BEGUN, STALE, MISSING = STATES


@dataclass(frozen=True)
class Status:
    """One layer's tuning.

    Attributes:
        name, key: the layer.
        state: ``tuned``: a record applies; ``default is best``: searched, and nothing was faster;
            ``begun``: trials were made, the search has not ended; ``stale``: there is a record that
            `build` would refuse; ``missing``: nothing.
        gain: over the default, where it was compared.
        trials: candidates measured, here, on boards and offline.
        date: of the record.
        place: file and line of the record.
        detail: why stale; which other epilogue a record is of; why a search came to nothing.
    """

    name: str
    key: str
    state: str
    gain: float | None = None
    trials: int = 0
    date: str = ""
    place: str = ""
    detail: str = ""


def status(
    layers: Sequence[Layer],
    machine: Machine,
    pack: HardwarePack,
    directories: Sequence[Path],
    journals: Sequence[Journal],
) -> list[Status]:
    """Return where each distinct layer stands; raises RecordError when a log is damaged.

    ``journals`` are of all places where candidates were measured; where several searches ended, the
    first one's verdict counts.
    """
    wanted = distinct(layers, machine, pack)
    return [_of(layer, machine, pack, directories, journals) for layer in wanted]


def _of(
    layer: Layer,
    machine: Machine,
    pack: HardwarePack,
    directories: Sequence[Path],
    journals: Sequence[Journal],
) -> Status:
    name, key = layer.name, layer.spec.key
    memories = [journal.read(key) for journal in journals]
    trials = sum(len(memory.trials) for memory in memories)
    end = next((memory.conclusion for memory in memories if memory.conclusion), None)
    entry = log.find(layer.spec, machine.name, directories)
    # A layer that was searched has its own verdict; a record of another epilogue only stands in.
    searched = end is not None and end.gain is not None and bool(end.reason)
    if entry is not None and (entry.record.key == key or not searched):
        record = entry.record
        reason = choice.stale_reason(record, machine, pack)
        state = TUNED if reason is None else STALE
        other = "" if record.key == key else f"tuned with another epilogue: {record.key}"
        made = record.trials if record.key == key else trials
        return Status(
            name, key, state, record.gain, made, record.date, entry.place, reason or other
        )
    if searched and end is not None:
        return Status(name, key, DEFAULT_IS_BEST, end.gain, trials)
    reason = end.reason if end is not None else ""
    return Status(name, key, BEGUN if trials else MISSING, None, trials, detail=reason)
