"""The calling convention: which arrays a compiled kernel takes, in which order, and what each must be.

::

    main(data, filter, bias?, scales?, limits?, residual?, slopes?, workspace?, out)
    pack(filter, packed)              where main wants its filter in another order

Schedules make functions of this form, the runtime and the tuner call them: all of them read it here. It
follows from the spec and from three facts of the compiled function, and uses the standard library only.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Protocol, TypeVar

from tvmconv.problem.quantized import LIMITS, LIMITS_DTYPE, LIMITS_SHAPE, SCALES, SCALES_DTYPE
from tvmconv.problem.rules import ALIGNMENT, ITEM_BYTES
from tvmconv.problem.spec import ConvSpec

_SCRATCH_DTYPE = "float32"

_T = TypeVar("_T")


class Role(enum.Enum):
    """When the memory of an operand is given, and by whom."""

    INPUT = "input"  # by the user, with each call
    CONSTANT = "constant"  # by the user, once, when a layer is bound
    SCRATCH = "scratch"  # by the caller; its contents need not last and need not be zero
    OUTPUT = "output"  # by the user with each call, or allocated in it


@dataclass(frozen=True)
class Operand:
    """One array that belongs to a kernel.

    Attributes:
        name: as the loops and the oracle call it.
        keyword: as users' calls name it; empty for scratch memory.
        role: who gives it, and when.
        shape, dtype: as users give it.
        taken_shape, taken_dtype: as the compiled function takes it. The same bytes, unless it is packed:
            images have one batch dimension there, whatever they have here.
        alignment: the function relies on an address that is a multiple of so many bytes; of one element, but
            for filters, which are copied anyway. (GPU kernels want 16 bytes of every array.)
        packed: whether ``pack`` makes what the function takes from what the user gives.
        present: whether this kernel has it at all.
    """

    name: str
    keyword: str
    role: Role
    shape: tuple[int, ...]
    dtype: str
    taken_shape: tuple[int, ...]
    taken_dtype: str
    alignment: int
    packed: bool = False
    present: bool = True

    @property
    def bytes(self) -> int:
        """Bytes of what users give."""
        return prod(self.shape) * ITEM_BYTES[self.dtype]


class Compiled(Protocol):
    """What a compiled function wants besides what its spec says.

    `hardware.Function`, `manifest.KernelEntry` and the tuner's `Built` have it.
    """

    @property
    def packed_shape(self) -> tuple[int, ...]:
        """Of the packed filter."""

    @property
    def packed_dtype(self) -> str:
        """Of the packed filter; empty where ``main`` takes it as users give it."""

    @property
    def workspace_bytes(self) -> int:
        """Of scratch memory, a float32 array of one dimension; 0 for none."""


@dataclass(frozen=True)
class Signature:
    """All operands of one kernel, absent ones too, in the order in which its function takes them."""

    operands: tuple[Operand, ...]

    def __getitem__(self, name: str) -> Operand:
        """Return the operand of that name; KeyError where no kernel has one."""
        return {each.name: each for each in self.operands}[name]

    @property
    def taken(self) -> tuple[Operand, ...]:
        """Those that the function takes."""
        return tuple(each for each in self.operands if each.present)

    def of(self, *roles: Role) -> tuple[Operand, ...]:
        """Those of some roles, absent ones too."""
        return tuple(each for each in self.operands if each.role in roles)

    def keywords(self, values: Mapping[str, _T], *roles: Role) -> dict[str, _T]:
        """Return what belongs to each present operand of some roles, by its keyword in users' calls.

        KeyError where one is missing.
        """
        return {each.keyword: values[each.name] for each in self.of(*roles) if each.present}

    def ordered(self, values: Mapping[str, _T]) -> list[_T]:
        """Return what belongs to each operand's name, in the order in which the function takes them.

        KeyError where one is missing; names of absent operands and others are left out.
        """
        return [values[each.name] for each in self.taken]


@dataclass(frozen=True)
class _Plain:
    """A function that takes the filter as users give it and needs no scratch memory."""

    packed_shape: tuple[int, ...] = ()
    packed_dtype: str = ""
    workspace_bytes: int = 0


PLAIN: Compiled = _Plain()


def signature(spec: ConvSpec, compiled: Compiled = PLAIN) -> Signature:
    """Return the operands of a kernel of ``spec``."""
    images, results = (spec.input_shape, spec.dtype), (spec.output_shape, spec.out_dtype)
    biases, scales = (spec.bias_shape, spec.bias_dtype), (spec.bias_shape, SCALES_DTYPE)
    residuals, slopes = (spec.residual_shape, spec.out_dtype), (spec.slopes_shape, spec.out_dtype)
    quantized = spec.quantized is not None
    elements = compiled.workspace_bytes // ITEM_BYTES[_SCRATCH_DTYPE]
    scratch = (elements,), _SCRATCH_DTYPE
    return Signature(
        (
            _image("data", "x", Role.INPUT, *images, spec.batch),
            _filter(spec, compiled),
            _plain("bias", "bias", Role.CONSTANT, *biases, present=spec.bias),
            _plain(SCALES, SCALES, Role.CONSTANT, *scales, present=quantized),
            _plain(LIMITS, LIMITS, Role.CONSTANT, LIMITS_SHAPE, LIMITS_DTYPE, present=quantized),
            _image("residual", "residual", Role.INPUT, *residuals, spec.batch, spec.residual),
            _plain("slopes", "slopes", Role.CONSTANT, *slopes, present=spec.slopes),
            _plain("workspace", "", Role.SCRATCH, *scratch, present=elements > 0),
            _image("out", "out", Role.OUTPUT, *results, spec.batch),
        )
    )


def _plain(
    name: str, keyword: str, role: Role, shape: tuple[int, ...], dtype: str, present: bool
) -> Operand:
    """An array that the function takes as it is given."""
    element = ITEM_BYTES[dtype]
    return Operand(name, keyword, role, shape, dtype, shape, dtype, element, present=present)


def _image(
    name: str,
    keyword: str,
    role: Role,
    shape: tuple[int, ...],
    dtype: str,
    batch: int,
    present: bool = True,
) -> Operand:
    """An array of images, whose leading dimensions the function takes as one."""
    taken = (batch, *shape[-3:])
    element = ITEM_BYTES[dtype]
    return Operand(name, keyword, role, shape, dtype, taken, dtype, element, present=present)


def _filter(spec: ConvSpec, compiled: Compiled) -> Operand:
    shape, dtype, packed = spec.filter_shape, spec.filter_dtype, bool(compiled.packed_dtype)
    taken = (compiled.packed_shape, compiled.packed_dtype) if packed else (shape, dtype)
    return Operand("filter", "w", Role.CONSTANT, shape, dtype, *taken, ALIGNMENT, packed)
