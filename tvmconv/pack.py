"""What a hardware pack is made of: machines, schedules with their knobs, and what those give.

`tvmconv.hardware` finds packs and hands on these names; packs import them from there.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from tvmconv.errors import HardwarePackError, UnknownNameError
from tvmconv.rules import ITEM_BYTES
from tvmconv.spec import ConvSpec

Choice = int | str
Decisions = Mapping[str, Choice]


@dataclass(frozen=True)
class Gpu:
    """Facts of a GPU beyond those of one of its multiprocessors, which `Machine` has.

    Attributes:
        arch: as CUDA's compilers spell it: ``sm_90``.
        multiprocessors: of the whole card.
        shared_bytes: the most shared memory that one block may ask for.
        shared_bytes_per_multiprocessor: what the blocks on one multiprocessor share; each takes 1 KiB
            more than it asks for, from sm_80 on.
        threads_per_multiprocessor, blocks_per_multiprocessor: the most that are there at a time.
        l2_bytes: of the whole card.
        bandwidth: of its memory, in bytes a second.
        clock: boost clock in Hz.
        tensor_core_dtypes: inputs of tensor cores; float32 stands for TF32.
        async_copy: whether it copies to shared memory past the registers (cp.async).
        registers_per_multiprocessor: of 32 bits.
        cluster_blocks: how many blocks can wait for each other, on every card of the architecture.
    """

    arch: str
    multiprocessors: int
    shared_bytes: int
    shared_bytes_per_multiprocessor: int
    threads_per_multiprocessor: int
    blocks_per_multiprocessor: int
    l2_bytes: int
    bandwidth: int
    clock: int
    tensor_core_dtypes: tuple[str, ...]
    async_copy: bool
    registers_per_multiprocessor: int = 65536
    cluster_blocks: int = 1

    @property
    def capability(self) -> tuple[int, int]:
        """Compute capability: (9, 0) for ``sm_90``."""
        digits = self.arch.removeprefix("sm_")
        return int(digits[:-1]), int(digits[-1])


@dataclass(frozen=True)
class Machine:
    """Facts of one kind of core, as published by its vendor or measured; schedules read nothing else.

    The core of a GPU is a multiprocessor, and ``architecture`` is then that of the host.

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
        gigahertz: the clock of a usual board. This and the next two are for predictions only, and 0 where
            nobody looked them up: such a machine cannot be simulated.
        l2_bytes_per_cycle, memory_bytes_per_cycle: what one core moves between its caches, and beyond.
        gpu: facts of the card, None for a CPU.
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
    gigahertz: float = 0.0
    l2_bytes_per_cycle: float = 0.0
    memory_bytes_per_cycle: float = 0.0
    gpu: Gpu | None = None

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
        main: scheduled PrimFunc (data, filter, bias?, residual?, workspace?, out).
        pack: PrimFunc (filter, packed), or None when ``main`` takes TensorFlow's layout.
        packed_shape: shape of the filter that ``main`` takes.
        workspace_bytes: of a scratch buffer that the caller gives a GPU kernel, as a float32 array of one
            dimension behind its inputs; 0 for none. Its contents need not last and need not be zero.
    """

    main: Any
    pack: Any | None = None
    packed_shape: tuple[int, ...] = ()
    workspace_bytes: int = 0

    @property
    def packed_dtype(self) -> str:
        """The dtype of what ``pack`` writes; empty without it."""
        return "" if self.pack is None else str(self.pack.params[1].dtype)


@dataclass(frozen=True)
class Schedule:
    """One algorithm's way onto one hardware family: a space of decisions and what they make.

    Attributes:
        name: ``family.operator.algorithm``, the family being the pack's name: unique over all packs.
        accepts: whether it can compute this spec on this machine.
        knobs: the space, as named decisions with their candidates.
        legal: whether these decisions go together (registers, divisibility).
        default: decisions from the machine's facts alone; always legal.
        apply: the scheduled function for these decisions.
        preferred: whether its default is a good guess here; one that is not comes after all others.
        winograd: whether it computes by Winograd's algorithm, which rounds otherwise than the defining
            sum: users may do without.
    """

    name: str
    accepts: Callable[[ConvSpec, Machine], bool]
    knobs: Callable[[ConvSpec, Machine], tuple[Knob, ...]]
    legal: Callable[[ConvSpec, Machine, Decisions], bool]
    default: Callable[[ConvSpec, Machine], dict[str, Choice]]
    apply: Callable[[ConvSpec, Machine, Decisions], Function]
    preferred: Callable[[ConvSpec, Machine], bool] = lambda _spec, _machine: True
    winograd: bool = False


@dataclass(frozen=True)
class HardwarePack:
    """Everything one hardware family contributes; schedules are listed best first.

    ``detect`` names the machine it runs on, the most specific it knows, or None. ``aliases`` are other
    names, of boards for example, for machines: what is made and recorded goes under the machine's own.
    ``unavailable`` are names that users may well ask for, with what to do in place of that.
    """

    name: str
    machines: tuple[Machine, ...]
    schedules: tuple[Schedule, ...]
    detect: Callable[[], Machine | None] = field(default=lambda: None)
    aliases: Mapping[str, str] = field(default_factory=dict)
    unavailable: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._check("machine", Machine, self.machines)
        self._check("schedule", Schedule, self.schedules)
        own = {machine.name for machine in self.machines}
        for alias, name in self.aliases.items():
            if name not in own or alias in own:
                raise HardwarePackError(
                    f"pack {self.name!r} has an alias {alias!r} for {name!r}: an alias is a new name for "
                    f"one of {', '.join(sorted(own))}"
                )
        both = sorted(set(self.unavailable) & {*own, *self.aliases})
        if both:
            raise HardwarePackError(f"pack {self.name!r} has {both[0]!r} and says that it has not")

    def also(self, machine: str) -> tuple[str, ...]:
        """Other names of a machine: its aliases."""
        return tuple(alias for alias, name in self.aliases.items() if name == machine)

    def machine_names(self) -> list[str]:
        """Every name that finds a machine of this pack, aliases last."""
        return [*(machine.name for machine in self.machines), *self.aliases]

    def _check(self, what: str, kind: type[Machine | Schedule], things: tuple[Any, ...]) -> None:
        """Raise HardwarePackError unless all ``things`` are of that kind, under names of their own."""
        for thing in things:
            if not isinstance(thing, kind) or not isinstance(thing.name, str):
                raise HardwarePackError(f"pack {self.name!r} lists {thing!r}, which is no {what}")
        names = [thing.name for thing in things]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise HardwarePackError(f"pack {self.name!r} has two {what}s named {twice[0]!r}")


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Message for a name that does not exist: the near ones, then all."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return f"unknown {kind} {name!r}.{hint} Known: {', '.join(names)}."


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
