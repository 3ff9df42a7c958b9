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
    """Return the pair with aligned weights, stored in elements of the filter's dtype.

    Args:
        spec: the convolution.
        main: scheduled (data, filter, bias?, residual?, out).
        pack: (filter, packed).
        packed_shape: of the packed filter, counted in elements of the filter's own dtype.
        shapes: what callers pass where the loops see another shape.
        llvm_ir: definitions of functions that ``main`` calls.
    """
    dtypes = {"data": spec.dtype, "filter": spec.filter_dtype, "packed": spec.filter_dtype}
    main = with_interface(
        main, {**(shapes or {}), "filter": packed_shape}, frozenset({"filter"}), dtypes
    )
    if llvm_ir is not None:
        main = main.with_attr(LLVM_IR, llvm_ir)
    pack = with_interface(pack, {"packed": packed_shape}, frozenset({"packed"}), dtypes)
    return Function(main, pack, packed_shape)
