"""Numbers that describe a candidate to the cost model, from the spec and the named decisions alone.

MetaSchedule's own features are taken from the scheduled loops: 11 ms of scheduling and 10 ms of
extraction a candidate, as long as compiling and timing it. These take microseconds, so that the model can
score the whole space and not a sample of it, and they mean the same on every layer: sizes are logarithms,
and each number that a schedule decides on is also given by what it leaves over of each extent.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tvmconv import hardware
from tvmconv.hardware import HardwarePack, Machine
from tvmconv.measuring.process.candidate import Candidate
from tvmconv.problem.spec import ConvSpec

Rows = npt.NDArray[np.float32]

_KNOBS = 8  # more knobs of one schedule than this are not seen by the model
_PLAIN, _EXTENTS = 2, 4  # columns of a knob: its place and value, and how it divides each extent
_SIZES, _KINDS = 10, 11  # columns of a layer
COLUMNS = _SIZES + _KINDS + 1 + _KNOBS * (_PLAIN + _EXTENTS)
_SCHEDULES = 1 << 16  # of the name's checksum: trees part schedules by it, order means nothing


def rows(
    spec: ConvSpec, machine: Machine, pack: HardwarePack, candidates: Sequence[Candidate]
) -> Rows:
    """One row per candidate; all rows of all specs have the same columns."""
    layer = _layer(spec)
    extents = (spec.out_height, spec.out_width, spec.in_channels, spec.out_channels)
    schedules: dict[str, dict[str, dict[int | str, int]]] = {}
    out = np.zeros((len(candidates), COLUMNS), np.float32)
    out[:, : len(layer)] = layer
    for row, candidate in zip(out, candidates, strict=True):
        if candidate.schedule not in schedules:
            schedule = hardware.find_schedule(candidate.schedule, pack)
            schedules[candidate.schedule] = {
                knob.name: {value: place for place, value in enumerate(knob.candidates)}
                for knob in schedule.knobs(spec, machine)
            }
        places = schedules[candidate.schedule]
        at = len(layer)
        row[at] = zlib.crc32(candidate.schedule.encode()) % _SCHEDULES
        at += 1
        for name in list(places)[:_KNOBS]:
            value = candidate.decisions[name]
            row[at] = places[name].get(value, -1)
            if isinstance(value, int):
                row[at + 1] = value
                row[at + _PLAIN : at + _PLAIN + _EXTENTS] = [
                    extent / (-(-extent // value) * value) if value else 0 for extent in extents
                ]
            at += _PLAIN + _EXTENTS
    return out


def _layer(spec: ConvSpec) -> list[float]:
    sizes = (
        spec.batch,
        spec.out_height,
        spec.out_width,
        spec.in_channels,
        spec.out_channels,
        spec.kernel_height,
        spec.kernel_width,
        spec.reduction_length,
        spec.flops,
        spec.bytes,
    )
    kinds = (
        spec.op == "conv2d",
        *spec.strides,
        *spec.dilations,
        sum(spec.pads),
        spec.bias,
        spec.residual,
        spec.activation is not None,
        spec.data_format == "NHWC",
        zlib.crc32(spec.precision.encode()) % _SCHEDULES,
    )
    return [*(float(np.log2(max(size, 1))) for size in sizes), *map(float, kinds)]


def distance(one: ConvSpec, other: ConvSpec) -> float:
    """How far apart two layers are: octaves in their sizes, and what is of another kind counts ten."""
    if one.op != other.op or one.dtype != other.dtype:
        return float("inf")
    a, b = np.array(_layer(one)), np.array(_layer(other))
    octaves = np.abs(a[:_SIZES] - b[:_SIZES]).sum()
    return float(octaves + 10 * (a[_SIZES:] != b[_SIZES:]).sum())
