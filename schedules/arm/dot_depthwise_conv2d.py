"""Depthwise convolution of bytes on ARM with dot products: words of four columns, put together on the way.

A row of words of eight channels takes three instructions for two columns: two bytes are zipped, then two
pairs; each word serves two outputs of stride 1 (compute/dot_depthwise_conv2d.py).
"""

from __future__ import annotations

from tvmconv.arguments import window_extent
from tvmconv.compute import dot_depthwise_conv2d
from tvmconv.hardware import Choice, Decisions, Function, Knob, Machine, Schedule
from tvmconv.nests import dot_depthwise
from tvmconv.schedules.arm import dot_products
from tvmconv.spec import ConvSpec

_LANES, _CHANNELS = dot_products.LANES, dot_products.WORDS_LANES


def accepts(spec: ConvSpec, machine: Machine) -> bool:
    """Bytes that the machine has an instruction for, whole vectors of channels."""
    return (
        not spec.is_empty
        and dot_depthwise_conv2d.words(spec) is not None
        and dot_products.instruction(spec.dtype, machine) is not None
        and spec.in_channels % _CHANNELS == 0
    )


def knobs(spec: ConvSpec, machine: Machine) -> tuple[Knob, ...]:
    """The tile."""
    phases = dot_depthwise_conv2d.cut(spec).phases
    columns = [t for t in (4, 2, 6, 8, 3, 1, 5, 7) if t % phases == 0 and t < spec.out_width + phases]
    return (
        Knob("channels", (_CHANNELS,)),
        Knob("columns", tuple(columns)),
        Knob("rows", tuple(t for t in (4, 2, 3, 1) if t <= spec.out_height)),
    )


def legal(spec: ConvSpec, machine: Machine, decisions: Decisions) -> bool:
    return True


def default(spec: ConvSpec, machine: Machine) -> dict[str, Choice]:
    space = {knob.name: knob.candidates for knob in knobs(spec, machine)}
    return {name: candidates[0] for name, candidates in space.items()}


def apply(spec: ConvSpec, machine: Machine, decisions: Decisions) -> Function:
    """Schedule `compute.dot_depthwise_conv2d.direct`; raises nothing for legal decisions."""
    dot = dot_products.dot(spec.dtype, machine, turn=True)
    calls = None if dot is None else (dot_products.words(spec.dtype), dot)
    operand = dot_products.operand(spec.dtype, machine)
    return dot_depthwise.apply(spec, decisions, _LANES, calls, operand)


WORDS = Schedule("arm.depthwise_conv2d.dot", accepts, knobs, legal, default, apply)
SCHEDULES = (WORDS,)
