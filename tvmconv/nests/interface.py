"""What a scheduled nest and its packing function look like to those who call them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tvmconv.hardware import Function
from tvmconv.lowering import LLVM_IR, with_interface
from tvmconv.spec import ConvSpec


def function(
    spec: ConvSpec,
    main: Any,
    pack: Any,
    packed_shape: tuple[int, ...],
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    llvm_ir: str | None = None,
) -> Function:
    """Return the pair with aligned weights.

    Args:
        spec: the convolution.
        main: scheduled (data, filter, bias?, residual?, out).
        pack: (filter, packed).
        packed_shape: of the packed filter.
        shapes: what callers pass where the loops see another shape.
        llvm_ir: definitions of functions that ``main`` calls.
    """
    main = with_interface(main, shapes or {}, frozenset({"filter"}), {"data": spec.dtype})
    if llvm_ir is not None:
        main = main.with_attr(LLVM_IR, llvm_ir)
    return Function(main, with_interface(pack, {}, frozenset({"packed"})), packed_shape)
