"""MLAS through ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from tvmconv.checking import oracle
from tvmconv.measuring.peers import onnx_model
from tvmconv.measuring.peers.contender import Array, Prepared, from_nchw, summed, to_nchw
from tvmconv.problem.rules import BYTE_DTYPES
from tvmconv.problem.spec import ConvSpec

NAME = "onnxruntime"
PACKAGES = ("onnxruntime", onnx_model.PACKAGE)
DTYPES = ("float32", *BYTE_DTYPES)


def prepare(spec: ConvSpec, data: Array, filter: Array, threads: int) -> Prepared:
    """Input and output are bound once.

    Bytes go through QLinearConv, channels last, with unsigned input and output, which MLAS likes best on
    x86; the output's scale is taken from this very data.
    """
    if spec.dtype == "float32":
        shape = (spec.batch, spec.out_channels, spec.out_height, spec.out_width)
        model = onnx_model.model(spec, filter)
        call, y = _bound(model, to_nchw(data), shape, np.float32, threads)
        return Prepared(call, lambda: from_nchw(y.numpy()))
    step = float(np.abs(oracle.conv(spec, data, filter)).max()) / 127
    zero = 128 if spec.dtype == "int8" else 0
    model = onnx_model.quantized(spec, filter, zero, step)
    unsigned = (data.astype(np.int16) + zero).astype(np.uint8)
    call, y = _bound(model, unsigned, spec.output_shape, np.uint8, threads)
    return Prepared(call, lambda: summed(spec, y.numpy(), step, onnx_model.MIDDLE), step)


def why_wrong(spec: ConvSpec, features: Collection[str]) -> str:
    """Name what saturates: pmaddubsw sums pairs of products in 16 bits."""
    if spec.dtype in BYTE_DTYPES and not {"avx512_vnni", "avx_vnni"} & set(features):
        return "its sums of bytes saturate in 16 bits on a CPU without VNNI"
    return ""


def _bound(
    model: bytes, x: Array, shape: tuple[int, ...], dtype: Any, threads: int
) -> tuple[Callable[[], object], Any]:
    """A session with its input, and the value that it writes to."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    given = onnxruntime.OrtValue.ortvalue_from_numpy(x)
    y = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, dtype)
    binding.bind_ortvalue_input("x", given)
    binding.bind_ortvalue_output("y", y)
    return lambda: session.run_with_iobinding(binding), y
