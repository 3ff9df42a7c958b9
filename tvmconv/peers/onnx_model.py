"""A layer as an ONNX model of one operator, for the libraries that read ONNX."""

from __future__ import annotations

from tvmconv.peers.contender import Array, oihw
from tvmconv.spec import ConvSpec

PACKAGE = "onnx"


def model(spec: ConvSpec, filter: Array) -> bytes:
    """Return the model of input ``x`` and output ``y``, both NCHW; padding is the operator's."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    top, bottom, left, right = spec.pads
    node = helper.make_node(
        "Conv",
        ["x", "w"],
        ["y"],
        pads=[top, left, bottom, right],
        strides=list(spec.strides),
        dilations=list(spec.dilations),
        group=spec.groups,
        kernel_shape=list(spec.filter_shape[:2]),
    )
    x = [spec.batch, spec.in_channels, spec.in_height, spec.in_width]
    y = [spec.batch, spec.out_channels, spec.out_height, spec.out_width]
    graph = helper.make_graph(
        [node],
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, y)],
        [numpy_helper.from_array(oihw(spec, filter), "w")],
    )
    # Older than the package: what every reader of the last years understands.
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(made)
    serialised: bytes = made.SerializeToString()
    return serialised
