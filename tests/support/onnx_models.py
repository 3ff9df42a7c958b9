"""Small .onnx models of one operator, and the light models of the onnx package with random weights."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


def model(nodes, inputs, constants=(), outputs=("y",), opset=20):
    """Bytes of a model; inputs and constants are by name: a shape, or an array."""
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    float32 = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node(*args, **attributes) for *args, attributes in nodes],
        "small",
        [helper.make_tensor_value_info(name, float32, shape) for name, shape in inputs.items()],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(np.asarray(a), name) for name, a in dict(constants).items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    made.ir_version = min(made.ir_version, 10)
    return made.SerializeToString()


@cache
def light(name: str) -> bytes:
    """A light model whose weights, which are one number each, become small random ones."""
    made = onnx.load(LIGHT / f"light_{name}.onnx")
    shapes = {each.name: onnx.numpy_helper.to_array(each) for each in made.graph.initializer}
    rng, kept = np.random.default_rng(1), []
    for node in made.graph.node:
        if node.op_type != "ConstantOfShape":
            kept.append(node)
            continue
        shape = [int(each) for each in shapes[node.input[0]]]
        scale = (2 / max(np.prod(shape[1:]), 1)) ** 0.5  # as He: activations keep their size
        one = len(shape) < 2  # of batch norm: near one, and above zero as a variance is
        array = rng.uniform(0.8, 1.2, shape) if one else rng.normal(0, scale, shape)
        made.graph.initializer.append(
            onnx.numpy_helper.from_array(array.astype(np.float32), node.output[0])
        )
    if kept[-1].op_type == "Softmax":  # whose results are all 0 or 1 for random weights
        made.graph.output[0].name = kept.pop().input[0]
    del made.graph.node[:]
    made.graph.node.extend(kept)
    return made.SerializeToString()


def run_onnxruntime(content: bytes, inputs):
    """Outputs of a model, in its order."""
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)
