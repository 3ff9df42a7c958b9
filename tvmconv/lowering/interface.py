"""What a scheduled nest and its packing function look like to those who call them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tvm
import tvm_ffi
from tvm import te, tirx

from tvmconv.hardware.schedule import Function
from tvmconv.problem import calling
from tvmconv.problem.calling import Role
from tvmconv.problem.rules import ALIGNMENT
from tvmconv.problem.spec import ConvSpec

LLVM_IR = "tvmconv.llvm_ir"  # function attribute: definitions, in LLVM's language, of what it calls
SPLIT_AT = "tvmconv.split_at"  # loop annotation: tile numbers at which the loop changes its nature


def prim_func(arguments: list[te.Tensor]) -> tirx.PrimFunc:
    """Return the unscheduled function of tensors, all of them arguments, the last one the output."""
    return te.create_prim_func(arguments)


def with_interface(
    func: tirx.PrimFunc,
    shapes: Mapping[str, tuple[int, ...]],
    aligned: frozenset[str],
    dtypes: Mapping[str, str] | None = None,
) -> tirx.PrimFunc:
    """Give a scheduled function the shapes, dtypes and alignments that its callers see.

    ``shapes`` are the callers' shapes by buffer name where they differ from the loops' (the same bytes in
    the same order), and ``dtypes`` the callers' dtypes of those. Buffers that are not in ``aligned`` may
    lie at any multiple of their element size: NumPy hardly ever aligns to the 64 bytes that TVM assumes
    and does not check, and an unaligned vector load costs nothing extra where the address happens to be
    aligned.
    """
    params, views, renamed = [], [], {}
    for inner in func.params:
        element_bytes = tvm.DataType(inner.dtype).itemsize
        alignment = ALIGNMENT if inner.name in aligned else element_bytes
        view = tirx.decl_buffer(inner.shape, inner.dtype, inner.name, data_alignment=alignment)
        renamed[inner] = view
        shape = shapes.get(inner.name, inner.shape)
        dtype = (dtypes or {}).get(inner.name, inner.dtype)
        if dtype != inner.dtype or list(shape) != list(inner.shape):
            outer = tirx.decl_buffer(shape, dtype, inner.name, data_alignment=alignment)
            views.append(tirx.DeclBuffer(view, data=tirx.buffer.buffer_data(outer)))
            params.append(outer)
        else:
            params.append(view)
    body = tvm_ffi.structural_map(func.body, (tvm.ir.Var, lambda var: renamed.get(var, var)))
    body = tirx.SeqStmt([*views, body]) if views else body
    return tirx.PrimFunc(params, body, func.ret_type, func.attrs)


def function(
    spec: ConvSpec,
    main: Any,
    pack: Any,
    packed_shape: tuple[int, ...],
    llvm_ir: str | None = None,
) -> Function:
    """Return the pair in the form of `calling`, whatever shapes and dtype of images the loops see.

    Args:
        spec: the convolution.
        main: scheduled (data, filter, bias?, residual?, out).
        pack: (filter, packed).
        packed_shape: of the packed filter.
        llvm_ir: definitions of functions that ``main`` calls.
    """
    images = calling.signature(spec).of(Role.INPUT, Role.OUTPUT)
    shapes = {each.name: each.taken_shape for each in images}
    dtypes = {each.name: each.taken_dtype for each in images}
    main = with_interface(main, shapes, aligned_arrays(spec), dtypes)
    if llvm_ir is not None:
        main = main.with_attr(LLVM_IR, llvm_ir)
    return Function(main, with_interface(pack, {}, frozenset({"packed"})), packed_shape)


def aligned_arrays(spec: ConvSpec) -> frozenset[str]:
    """Return the names of the arrays that kernels may expect at a multiple of 64 bytes."""
    operands = calling.signature(spec).operands
    return frozenset(each.name for each in operands if each.alignment == ALIGNMENT)
