"""What a schedule is: named knobs, decisions about them, and the functions that those make."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

from tvmconv.errors import UnknownNameError
from tvmconv.hardware.machine import Machine
from tvmconv.problem.spec import ConvSpec

Choice = int | str
Decisions = Mapping[str, Choice]
_MAX_ELEMENTS = 1 << 31  # TVM's loops and flat indices are int32


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
        macs: multiply-adds that no kernel with these decisions does without: the sum's, but for taps in the
            padding, or what the algorithm makes of them.
    """

    name: str
    accepts: Callable[[ConvSpec, Machine], bool]
    knobs: Callable[[ConvSpec, Machine], tuple[Knob, ...]]
    legal: Callable[[ConvSpec, Machine, Decisions], bool]
    default: Callable[[ConvSpec, Machine], dict[str, Choice]]
    apply: Callable[[ConvSpec, Machine, Decisions], Function]
    preferred: Callable[[ConvSpec, Machine], bool] = lambda _spec, _machine: True
    winograd: bool = False
    macs: Callable[[ConvSpec, Decisions], int] = lambda spec, _decisions: spec.needed_macs


def require_indexable(spec: ConvSpec) -> None:
    """Raise ValueError for an array that 32-bit indices, which compiled code uses, do not reach."""
    shapes = {"input": spec.input_shape, "filter": spec.filter_shape, "output": spec.output_shape}
    for name, shape in shapes.items():
        if prod(shape) >= _MAX_ELEMENTS:
            raise ValueError(
                f"kernels are for arrays below 2**31 elements, but the {name} of {spec.key} has "
                f"{prod(shape)}: its shape is {shape}. Compute it in parts, of fewer images, rows or channels"
            )
    around = (
        spec.in_height + spec.pads[0] + spec.pads[1],
        spec.in_width + spec.pads[2] + spec.pads[3],
    )
    windows = prod(around) if spec.op == "conv2d" else max(around)  # depthwise, they are not copied
    images = spec.batch * spec.in_channels if spec.op == "conv2d" else 1
    if windows * images >= _MAX_ELEMENTS:
        raise ValueError(
            f"kernels are for arrays below 2**31 elements, but with its padding the input of {spec.key} has "
            f"{around[0]} x {around[1]} pixels. Leave out the filter's taps that see nothing but padding, as "
            "tvmconv.conv2d does"
        )


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
