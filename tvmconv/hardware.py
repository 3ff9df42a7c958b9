"""Machines, schedules and the packs that bring them; discovery through entry points.

A hardware pack is any installed distribution with an entry point in the group ``tvmconv.hardware``
that names a `HardwarePack`. The packs of this repository are found the same way.
"""

from __future__ import annotations

import difflib
import functools
import importlib.metadata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from tvmconv import host
from tvmconv.errors import HardwarePackError, UnknownNameError
from tvmconv.rules import ITEM_BYTES
from tvmconv.spec import ConvSpec

ENTRY_POINTS = "tvmconv.hardware"

Choice = int | str
Decisions = Mapping[str, Choice]


@dataclass(frozen=True)
class Machine:
    """Facts of one kind of core, as published by its vendor or measured; schedules read nothing else.

    Attributes:
        name: what users call it; also the folder of its tuning records.
        description: one line for people.
        architecture: as ``platform.machine()`` spells it.
        target: TVM's target, in its dict form.
        features: the ``/proc/cpuinfo`` flags of every instruction set that ``target`` may use.
        vector_bytes: width of a vector register.
        vector_registers: architectural vector registers.
        fma_ports: vector multiply-adds a cycle.
        fma_latency: cycles from a multiply-add to one that uses its result.
        load_ports: vector loads a cycle from the first-level cache.
        l1_bytes, l2_bytes: data caches of one core.
    """

    name: str
    description: str
    architecture: str
    target: Mapping[str, Any]
    features: tuple[str, ...]
    vector_bytes: int
    vector_registers: int
    fma_ports: int
    fma_latency: int
    load_ports: int
    l1_bytes: int
    l2_bytes: int

    def lanes(self, dtype: str) -> int:
        """Elements of ``dtype`` in one vector register."""
        return self.vector_bytes // ITEM_BYTES[dtype]


@dataclass(frozen=True)
class Knob:
    """One decision of a schedule: its name and the values worth trying, the likelier first."""

    name: str
    candidates: tuple[Choice, ...]


@dataclass(frozen=True)
class Function:
    """A scheduled TVM function and the filter layout it wants.

    Attributes:
        main: scheduled PrimFunc (data, filter, bias?, residual?, out).
        pack: PrimFunc (filter, packed), or None when ``main`` takes TensorFlow's layout.
        packed_shape: shape of the filter that ``main`` takes; its dtype is the spec's.
    """

    main: Any
    pack: Any | None = None
    packed_shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class Schedule:
    """One algorithm's way onto one hardware family: a space of decisions and what they make.

    Attributes:
        name: ``family.operator.algorithm``, unique over all packs.
        accepts: whether it can compute this spec on this machine.
        knobs: the space, as named decisions with their candidates.
        legal: whether these decisions go together (registers, divisibility).
        default: decisions from the machine's facts alone; always legal.
        apply: the scheduled function for these decisions.
    """

    name: str
    accepts: Callable[[ConvSpec, Machine], bool]
    knobs: Callable[[ConvSpec, Machine], tuple[Knob, ...]]
    legal: Callable[[ConvSpec, Machine, Decisions], bool]
    default: Callable[[ConvSpec, Machine], dict[str, Choice]]
    apply: Callable[[ConvSpec, Machine, Decisions], Function]


@dataclass(frozen=True)
class HardwarePack:
    """Everything one hardware family contributes; schedules are listed best first.

    ``detect`` names the machine it runs on, the most specific it knows, or None.
    """

    name: str
    machines: tuple[Machine, ...]
    schedules: tuple[Schedule, ...]
    detect: Callable[[], Machine | None] = field(default=lambda: None)

    def __post_init__(self) -> None:
        for what, names in (
            ("machine", [m.name for m in self.machines]),
            ("schedule", [s.name for s in self.schedules]),
        ):
            twice = sorted({n for n in names if names.count(n) > 1})
            if twice:
                raise HardwarePackError(f"pack {self.name!r} has two {what}s named {twice[0]!r}")


def _entry_points() -> dict[str, importlib.metadata.EntryPoint]:
    return {point.name: point for point in importlib.metadata.entry_points(group=ENTRY_POINTS)}


def pack_names() -> list[str]:
    """Names of all installed packs, whether they can be loaded or not."""
    return sorted(_entry_points())


@functools.cache
def load_pack(name: str) -> HardwarePack:
    """Import one pack; raises HardwarePackError that names the distribution when it is broken."""
    points = _entry_points()
    if name not in points:
        raise UnknownNameError(unknown("hardware pack", name, points))
    point = points[name]
    owner = point.dist.name if point.dist else "an unknown distribution"
    try:
        pack = point.load()
    except Exception as error:
        raise HardwarePackError(
            f"hardware pack {name!r} of {owner} ({point.value}) cannot be imported: {error!r}. "
            f"Repair or uninstall {owner}."
        ) from error
    if not isinstance(pack, HardwarePack):
        raise HardwarePackError(
            f"hardware pack {name!r} of {owner}: {point.value} is a {type(pack).__name__}, "
            "not a tvmconv.hardware.HardwarePack."
        )
    return pack


def working_packs() -> tuple[list[HardwarePack], dict[str, str]]:
    """Return (packs that load, error message by name of those that do not): one harms only itself."""
    packs, broken = [], {}
    for name in pack_names():
        try:
            packs.append(load_pack(name))
        except HardwarePackError as error:
            broken[name] = str(error)
    return packs, broken


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Message for a name that does not exist: the near ones, then all."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return f"unknown {kind} {name!r}.{hint} Known: {', '.join(names)}."


def detect() -> Machine:
    """Return the machine this process runs on, the most specific that a pack recognises.

    Raises HardwarePackError when no pack recognises it; what is broken is then said too.
    """
    packs, broken = working_packs()
    for pack in packs:
        try:
            machine = pack.detect()
        except Exception as error:
            broken[pack.name] = f"hardware pack {pack.name!r} failed to detect: {error!r}."
            continue
        if machine is not None:
            return machine
    details = "".join(f" {message}" for message in broken.values())
    raise HardwarePackError(
        f"no hardware pack recognises this machine ({host.architecture()}, {host.cpu_name()}). "
        f"`tvmconv machines` lists what can be named with --machine.{details}"
    )


def find_machine(name: str) -> tuple[Machine, HardwarePack]:
    """Return a machine by name (``host`` detects it) and the pack that brings it."""
    packs, broken = working_packs()
    wanted = detect().name if name == "host" else name
    for pack in packs:
        for machine in pack.machines:
            if machine.name == wanted:
                return machine, pack
    details = "".join(f" {message}" for message in broken.values())
    known = [machine.name for pack in packs for machine in pack.machines]
    raise UnknownNameError(unknown("machine", name, [*known, "host"]) + details)


def schedules_for(spec: ConvSpec, machine: Machine, pack: HardwarePack) -> list[Schedule]:
    """Schedules of ``pack`` that accept ``spec``, best first; there is always at least one.

    Raises HardwarePackError when the pack has none, which is a fault of the pack.
    """
    found = [schedule for schedule in pack.schedules if schedule.accepts(spec, machine)]
    if not found:
        raise HardwarePackError(f"pack {pack.name!r} has no schedule for {spec.key}")
    return found


def find_schedule(name: str, pack: HardwarePack) -> Schedule:
    """Return a schedule of ``pack`` by name."""
    for schedule in pack.schedules:
        if schedule.name == name:
            return schedule
    raise UnknownNameError(unknown("schedule", name, [s.name for s in pack.schedules]))


def check_decisions(
    schedule: Schedule, spec: ConvSpec, machine: Machine, decisions: Decisions
) -> None:
    """Raise UnknownNameError or ValueError unless ``decisions`` are complete and legal."""
    candidates = {knob.name: knob.candidates for knob in schedule.knobs(spec, machine)}
    for name, value in decisions.items():
        if name not in candidates:
            raise UnknownNameError(unknown(f"knob of {schedule.name}", name, candidates))
        if value not in candidates[name]:
            raise ValueError(f"{name} of {schedule.name} is {value!r}, not of {candidates[name]}")
    missing = [name for name in candidates if name not in decisions]
    if missing:
        raise ValueError(f"{schedule.name} for {spec.key} needs a decision for {missing}")
    if not schedule.legal(spec, machine, decisions):
        raise ValueError(
            f"{schedule.name} cannot compute {spec.key} on {machine.name} with {dict(decisions)}"
        )


def space(schedule: Schedule, spec: ConvSpec, machine: Machine) -> list[dict[str, Choice]]:
    """Every legal combination of a schedule's knobs, in a fixed order."""
    knobs = schedule.knobs(spec, machine)
    combinations = product(*(knob.candidates for knob in knobs))
    points = (
        dict(zip((knob.name for knob in knobs), values, strict=True)) for values in combinations
    )
    return [point for point in points if schedule.legal(spec, machine, point)]
