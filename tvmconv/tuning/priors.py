"""Decisions worth an early trial: those that won on this layer or on the nearest ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tvmconv import hardware
from tvmconv.hardware import HardwarePack, Machine
from tvmconv.measuring.process.candidate import Candidate
from tvmconv.problem.spec import ConvSpec
from tvmconv.records import log
from tvmconv.tuning import features

_NEAREST = 4  # layers whose winners are tried; a fifth hardly ever brings anything new


def suggestions(
    spec: ConvSpec,
    machine: Machine,
    pack: HardwarePack,
    directories: Sequence[Path],
    found: Sequence[tuple[ConvSpec, Candidate]] = (),
) -> list[Candidate]:
    """Winners on record in ``directories`` and those in ``found``, of the nearest layers first.

    Only what is legal for ``spec``; a stale record is not an error here, tuning again mends it.
    """
    recorded = [
        (
            ConvSpec.from_key(entry.record.key),
            Candidate(entry.record.schedule, entry.record.decisions),
        )
        for directory in directories
        for entry in log.read_log(log.log_file(directory, machine.name, spec.op))
    ]
    near = sorted([*recorded, *found], key=lambda each: features.distance(each[0], spec))
    legal = [candidate for _, candidate in near if _applies(candidate, spec, machine, pack)]
    return list({candidate.identity: candidate for candidate in legal}.values())[:_NEAREST]


def _applies(candidate: Candidate, spec: ConvSpec, machine: Machine, pack: HardwarePack) -> bool:
    try:
        schedule = hardware.find_schedule(candidate.schedule, pack)
        if not schedule.accepts(spec, machine):
            return False
        hardware.check_decisions(schedule, spec, machine, candidate.decisions)
    except (ValueError, KeyError, TypeError):
        return False
    return True
