"""A layer as an ONNX model of one operator, for the libraries that read ONNX."""

from __future__ import annotations

from typing import Any

import numpy as np

from tvmconv.measuring.peers.contender import Array, oihw
from tvmconv.problem.spec import ConvSpec

PACKAGE = "onnx"
_MICROSOFT = "com.microsoft"


MIDDLE = 128  # the byte that stands for a sum of 0


def model(spec: ConvSpec, filter: Array) -> bytes:
    """Return the model of input ``x`` and output ``y``, both NCHW; padding is the operator's."""
    from onnx import TensorProto, helper, numpy_helper

    node = helper.make_node("Conv", ["x", "w"], ["y"], **_attributes(spec))
    x = [spec.batch, spec.in_channels, spec.in_height, spec.in_width]
    y = [spec.batch, spec.out_channels, spec.out_height, spec.out_width]
    weights = [numpy_helper.from_array(oihw(spec, filter), "w")]
    return _serialised(node, TensorProto.FLOAT, x, y, weights)


def quantized(spec: ConvSpec, filter: Array, zero: int, step: float) -> bytes:
    """Return the model of bytes ``x``, of which ``zero`` is 0, to bytes ``y`` in units of ``step``; NHWC."""
    from onnx import TensorProto, helper, numpy_helper

    names = ["x", "x_scale", "x_zero", "w", "w_scale", "w_zero", "y_scale", "y_zero"]
    # Microsoft's extension of ONNX's operator: the same, channels last.
    node = helper.make_node(
        "QLinearConv", names, ["y"], domain=_MICROSOFT, channels_last=1, **_attributes(spec)
    )
    values = {
        "x_scale": np.float32(1),
        "x_zero": np.uint8(zero),
        "w": oihw(spec, filter),
        "w_scale": np.ones(spec.out_channels, np.float32),
        "w_zero": np.zeros(spec.out_channels, np.int8),
        "y_scale": np.float32(step),
        "y_zero": np.uint8(MIDDLE),
    }
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]
    return _serialised(
        node, TensorProto.UINT8, list(spec.input_shape), list(spec.output_shape), weights
    )


def _attributes(spec: ConvSpec) -> dict[str, Any]:
    top, bottom, left, right = spec.pads
    return {
        "pads": [top, left, bottom, right],
        "strides": list(spec.strides),
        "dilations": list(spec.dilations),
        "group": spec.groups,
        "kernel_shape": list(spec.filter_shape[:2]),
    }


def _serialised(node: Any, element: int, x: list[int], y: list[int], weights: list[Any]) -> bytes:
    import onnx
    from onnx import helper

    graph = helper.make_graph(
        [node],
        "layer",
        [helper.make_tensor_value_info("x", element, x)],
        [helper.make_tensor_value_info("y", element, y)],
        weights,
    )
    # Older than the package: what every reader of the last years understands.
    versions = [helper.make_opsetid("", 13), helper.make_opsetid(_MICROSOFT, 1)]
    made = helper.make_model(graph, opset_imports=versions, ir_version=8)
    if not node.domain:
        onnx.checker.check_model(made)  # knows ONNX's own operators only
    serialised: bytes = made.SerializeToString()
    return serialised
