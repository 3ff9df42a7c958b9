"""Finds hardware packs, and in them machines and schedules; what those are is in `tvmconv.hardware.pack`.

A hardware pack is any installed distribution with an entry point in the group ``tvmconv.hardware``
that names a `HardwarePack`. The packs of this repository are found the same way. A pack that is broken,
or that takes another's name, is an error only for who asks for what it brings; docs/adding-hardware.md
says how to make one, and `tvmconv.contract` tests it.
"""

from __future__ import annotations

import functools
import importlib.metadata
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tvmconv.errors import HardwarePackError, TvmconvError, UnknownNameError
from tvmconv.hardware import home, host
from tvmconv.hardware.machine import Machine
from tvmconv.hardware.pack import HardwarePack
from tvmconv.hardware.schedule import (
    Decisions,
    Schedule,
    require_indexable,
    unknown,
)
from tvmconv.problem.spec import ConvSpec

ENTRY_POINTS = "tvmconv.hardware"


@dataclass(frozen=True)
class _Loaded:
    """A pack that works, the distribution it came with, and its schedules as the pack wrote them."""

    pack: HardwarePack
    owner: str
    written: Mapping[str, Schedule]

    def __str__(self) -> str:
        return f"{self.owner} (pack {self.pack.name!r})"


@dataclass(frozen=True)
class _Installed:
    """What works, why the rest does not, and the names that several packs bring, with those packs."""

    loaded: tuple[_Loaded, ...]
    broken: Mapping[str, str]
    machines: Mapping[str, list[_Loaded]]
    schedules: Mapping[str, list[_Loaded]]


def _entry_points() -> list[importlib.metadata.EntryPoint]:
    points = importlib.metadata.entry_points(group=ENTRY_POINTS)
    return sorted(points, key=lambda point: (point.name, _owner(point)))


def _owner(point: importlib.metadata.EntryPoint) -> str:
    return (point.dist and point.dist.name) or "an unknown distribution"


def pack_names() -> list[str]:
    """Names of all installed packs, whether they can be loaded or not."""
    return sorted({point.name for point in _entry_points()})


def load_pack(name: str) -> HardwarePack:
    """Import one pack; raises HardwarePackError that names the distribution when it is broken."""
    points = [point for point in _entry_points() if point.name == name]
    if not points:
        raise UnknownNameError(unknown("hardware pack", name, pack_names()))
    if len(points) > 1:
        owners = " and ".join(map(_owner, points))
        raise HardwarePackError(
            f"hardware pack {name!r} is brought by {owners}. Uninstall all but one of them."
        )
    return _load(points[0]).pack


@functools.cache
def _load(point: importlib.metadata.EntryPoint) -> _Loaded:
    owner = _owner(point)
    home.ensure_cache()
    try:
        pack = point.load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: a pack must not end the program
        if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] == "tvm":
            raise HardwarePackError(
                f"hardware pack {point.name!r} needs TVM, which is not installed here and which loading a "
                "bundle does not need. For building and tuning, run: pip install 'tvmconv[compiler]'"
            ) from error
        raise HardwarePackError(
            f"hardware pack {point.name!r} of {owner} ({point.value}) cannot be imported: {error!r}. "
            f"Repair or uninstall {owner}."
        ) from error
    if not isinstance(pack, HardwarePack):
        raise HardwarePackError(
            f"hardware pack {point.name!r} of {owner}: {point.value} is a {type(pack).__name__}, "
            "not a tvmconv.hardware.HardwarePack."
        )
    guarded = tuple(_guarded(schedule, pack.name, owner) for schedule in pack.schedules)
    written = {schedule.name: schedule for schedule in pack.schedules}
    return _Loaded(replace(pack, schedules=guarded), owner, written)


def _guarded(schedule: Schedule, pack: str, owner: str) -> Schedule:
    """The schedule, whose functions say where they come from when they fail."""

    def guard(what: str) -> Callable[..., Any]:
        function = getattr(schedule, what)

        @functools.wraps(function)
        def call(spec: ConvSpec, machine: Machine, *decisions: Decisions) -> Any:
            try:
                return function(spec, machine, *decisions)
            except TvmconvError:
                raise
            except (Exception, SystemExit) as error:
                chosen = f" with {dict(decisions[0])}" if decisions else ""
                raise HardwarePackError(
                    f"schedule {schedule.name!r} of hardware pack {pack!r} failed in {what}() for "
                    f"{spec.key} on {machine.name}{chosen}: {type(error).__name__}: {error}. "
                    f"This is a fault of {owner}: report it there, or uninstall it."
                ) from error

        return call

    return replace(
        schedule,
        accepts=guard("accepts"),
        knobs=guard("knobs"),
        legal=guard("legal"),
        default=guard("default"),
        apply=guard("apply"),
        preferred=guard("preferred"),
    )


@functools.cache
def _installed() -> _Installed:
    loaded: list[_Loaded] = []
    broken: dict[str, str] = {}
    for point in _entry_points():
        try:
            loaded.append(_load(point))
        except HardwarePackError as error:
            taken = point.name in broken
            broken[f"{point.name} of {_owner(point)}" if taken else point.name] = str(error)
    machines = _contested(loaded, lambda each: each.pack.machine_names())
    schedules = _contested(loaded, lambda each: each.written)
    # One schedule that two packs list is no contradiction.
    schedules = {
        name: packs
        for name, packs in schedules.items()
        if any(each.written[name] != packs[0].written[name] for each in packs)
    }
    return _Installed(tuple(loaded), broken, machines, schedules)


def _contested(
    loaded: Iterable[_Loaded], names: Callable[[_Loaded], Iterable[str]]
) -> dict[str, list[_Loaded]]:
    """The names that several packs bring."""
    packs: dict[str, list[_Loaded]] = defaultdict(list)
    for each in loaded:
        for name in names(each):
            packs[name].append(each)
    return {name: several for name, several in packs.items() if len(several) > 1}


def _contest(kind: str, name: str, packs: Iterable[_Loaded]) -> str:
    return (
        f"{kind} {name!r} is brought by {' and by '.join(map(str, packs))}. Uninstall all but one of "
        f"these, or have the others give their {kind} another name."
    )


def rediscover() -> None:
    """Forget which packs there are: one was installed, removed or repaired in this process's life."""
    _load.cache_clear()
    _installed.cache_clear()


def working_packs() -> tuple[list[HardwarePack], dict[str, str]]:
    """Return (packs that load, what is wrong with the others): one harms only itself.

    Messages are by name of the pack that does not load, or by the names of packs, as "a and b", that
    bring a machine or schedule of the same name. Those load, and all else of them works.
    """
    installed = _installed()
    wrong = defaultdict(list, {name: [message] for name, message in installed.broken.items()})
    for kind, contested in (("machine", installed.machines), ("schedule", installed.schedules)):
        for name, packs in contested.items():
            wrong[" and ".join(each.pack.name for each in packs)].append(
                _contest(kind, name, packs)
            )
    messages = {name: " ".join(several) for name, several in wrong.items()}
    return [each.pack for each in installed.loaded], messages


def detect() -> Machine:
    """Return the machine this process runs on, the most specific that a pack recognises.

    A pack that fails to say is skipped with a RuntimeWarning. Raises HardwarePackError when no pack
    recognises the machine; what is broken is then said too.
    """
    installed = _installed()
    faults = list(installed.broken.values())
    for each in installed.loaded:
        try:
            machine = _detected_by(each)
        except HardwarePackError as error:
            warnings.warn(str(error), RuntimeWarning, stacklevel=2)
            faults.append(str(error))
            continue
        if machine is not None:
            return machine
    details = "".join(f" {message}" for message in faults)
    raise HardwarePackError(
        f"no hardware pack recognises this machine ({host.architecture()}, {host.cpu_name()}). "
        f"`tvmconv machines` lists what can be named with --machine.{details}"
    )


def _detected_by(loaded: _Loaded) -> Machine | None:
    """The machine that a pack recognises; raises HardwarePackError unless it is one of the pack's."""
    who = f"hardware pack {loaded.pack.name!r} of {loaded.owner}"
    try:
        machine: object = loaded.pack.detect()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise HardwarePackError(f"{who} failed to detect this machine: {error!r}.") from error
    if machine is None:
        return None
    if not isinstance(machine, Machine) or machine not in loaded.pack.machines:
        raise HardwarePackError(
            f"{who} detected {getattr(machine, 'name', machine)!r} here, which is none of its machines: "
            f"{', '.join(known.name for known in loaded.pack.machines)}."
        )
    return machine


def find_machine(name: str) -> tuple[Machine, HardwarePack]:
    """Return a machine by name or alias (``host`` detects it) and the pack that brings it.

    Raises UnknownNameError, or HardwarePackError when several packs bring a machine of that name:
    their facts, and so records and kernels, differ.
    """
    installed = _installed()
    wanted = detect().name if name == "host" else name
    if wanted in installed.machines:
        raise HardwarePackError(_contest("machine", wanted, installed.machines[wanted]))
    for each in installed.loaded:
        own = each.pack.aliases.get(wanted, wanted)
        for machine in each.pack.machines:
            if machine.name == own:
                return machine, each.pack
    for each in installed.loaded:
        if wanted in each.pack.unavailable:
            raise UnknownNameError(
                f"there is no machine {wanted!r}. {each.pack.unavailable[wanted]}"
            )
    details = "".join(f" {message}" for message in installed.broken.values())
    known = [name for each in installed.loaded for name in each.pack.machine_names()]
    raise UnknownNameError(unknown("machine", name, [*known, "host"]) + details)


def schedules_for(
    spec: ConvSpec, machine: Machine, pack: HardwarePack, winograd: bool = True
) -> list[Schedule]:
    """Schedules of ``pack`` that accept ``spec``, best first; there is always at least one.

    Those that prefer the spec come first, in the pack's order. Without ``winograd`` only those that
    evaluate the defining sum. Raises HardwarePackError when the pack has none, which is its fault, and
    ValueError where an array has more elements than compiled code can index.
    """
    require_indexable(spec)
    found = [
        schedule
        for schedule in pack.schedules
        if (winograd or not schedule.winograd) and schedule.accepts(spec, machine)
    ]
    if not found:
        raise HardwarePackError(f"pack {pack.name!r} has no schedule for {spec.key}")
    return sorted(found, key=lambda schedule: not schedule.preferred(spec, machine))


def find_schedule(name: str, pack: HardwarePack) -> Schedule:
    """Return a schedule of ``pack`` by name.

    Raises UnknownNameError, or HardwarePackError when another pack brings a schedule of that name and
    the name's first part says that it is not this pack's.
    """
    contested = _installed().schedules
    if name in contested and name.partition(".")[0] != pack.name:
        raise HardwarePackError(_contest("schedule", name, contested[name]))
    for schedule in pack.schedules:
        if schedule.name == name:
            return schedule
    raise UnknownNameError(unknown("schedule", name, [s.name for s in pack.schedules]))
