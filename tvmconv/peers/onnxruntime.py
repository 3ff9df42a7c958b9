"""MLAS through ONNX Runtime."""

from __future__ import annotations

from tvmconv.peers import onnx_model
from tvmconv.peers.contender import Array, Prepared, from_nchw, to_nchw
from tvmconv.spec import ConvSpec

NAME = "onnxruntime"
PACKAGES = ("onnxruntime", onnx_model.PACKAGE)


def prepare(spec: ConvSpec, data: Array, filter: Array, threads: int) -> Prepared:
    """Input and output are bound once."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        onnx_model.model(spec, filter), options, providers=["CPUExecutionProvider"]
    )
    binding = session.io_binding()
    x = onnxruntime.OrtValue.ortvalue_from_numpy(to_nchw(data))
    shape = (spec.batch, spec.out_channels, spec.out_height, spec.out_width)
    y = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, data.dtype)
    binding.bind_ortvalue_input("x", x)
    binding.bind_ortvalue_output("y", y)
    return Prepared(lambda: session.run_with_iobinding(binding), lambda: from_nchw(y.numpy()))
