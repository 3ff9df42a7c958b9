"""A small .onnx model of each operator, of an input x."""

from __future__ import annotations

import numpy as np
from onnx_models import model

IMAGE = (2, 4, 6, 8)


def w(*shape, low=-1.0):
    return np.random.default_rng(sum(shape)).uniform(low, 1, shape).astype(np.float32)


def ints(*numbers):
    return np.asarray(numbers, np.int64)


def one(op, *constants, shape=IMAGE, opset=20, **attributes):
    """A model of one operator of x and constants, None for an absent input."""
    names = ["x", *("" if c is None else f"c{i}" for i, c in enumerate(constants))]
    arrays = {f"c{i}": c for i, c in enumerate(constants) if c is not None}
    return model([(op, names, ["y"], attributes)], {"x": shape}, arrays, opset=opset)


def chain(*steps, shape=IMAGE, opset=20, **constants):
    """A model of operators one behind the other; ``steps``: op, further inputs, attributes."""
    nodes, data = [], "x"
    for index, (op, more, attributes) in enumerate(steps):
        made = "y" if index == len(steps) - 1 else f"v{index}"
        nodes.append((op, [data, *more], [made], attributes))
        data = made
    return model(nodes, {"x": shape}, constants, opset=opset)


CONV1 = ("Conv", ["w1"], {})
W1 = w(6, 4, 1, 1)
MODELS = {
    "conv": one("Conv", w(5, 4, 3, 2), w(5), strides=[2, 1], pads=[1, 0, 2, 1]),
    "conv dilated": one("Conv", w(5, 4, 3, 3), dilations=[2, 1]),
    "conv groups": one("Conv", w(6, 2, 3, 3), group=2, pads=[1, 1, 1, 1]),
    "conv depthwise": one("Conv", w(8, 1, 3, 3), w(8), group=4, auto_pad="SAME_UPPER", strides=[2, 2]),
    "conv same lower": one("Conv", w(5, 4, 2, 2), auto_pad="SAME_LOWER"),
    "conv valid": one("Conv", w(5, 4, 2, 2), auto_pad="VALID"),
    "transposed": one("ConvTranspose", w(4, 5, 3, 3), w(5), strides=[2, 2], pads=[1, 1, 1, 1]),
    "transposed more": one(
        "ConvTranspose", w(4, 5, 3, 2), strides=[2, 3], pads=[0, 1, 1, 0], output_padding=[1, 2]
    ),
    "transposed groups": one("ConvTranspose", w(4, 3, 2, 2), w(6), strides=[2, 2], group=2),
    "transposed dilated": one("ConvTranspose", w(4, 3, 2, 3), dilations=[2, 2]),
    "transposed same": one("ConvTranspose", w(4, 3, 3, 3), strides=[2, 2], auto_pad="SAME_UPPER"),
    "transposed shape": one("ConvTranspose", w(4, 3, 4, 4), strides=[2, 2], output_shape=[13, 17]),
    "batch norm": one("BatchNormalization", w(4), w(4), w(4), w(4, low=0.1), epsilon=1e-3),
    "clip": one("Clip", np.float32(-0.5), np.float32(0.25)),
    "clip low": one("Clip", np.float32(-0.5)),
    "clip high": one("Clip", None, np.float32(0.25)),
    "clip old": one("Clip", opset=9, min=0.0, max=6.0),
    "hard sigmoid": one("HardSigmoid"),
    "hard sigmoid usual": one("HardSigmoid", alpha=1 / 6, beta=0.5),
    "leaky": one("LeakyRelu", alpha=0.2),
    "elu": one("Elu", alpha=1.5),
    "prelu": one("PRelu", w(4, 1, 1)),
    "add": one("Add", w(4, 1, 1)),
    "sub scalar": one("Sub", np.float32(0.5)),
    "mul row": one("Mul", w(8)),
    "pow": one("Pow", np.float32(2)),
    "pow int": one("Pow", np.int64(3)),
    "sum": one("Sum", w(1, 4, 1, 8), w(6, 1)),
    "max min": chain(("Max", ["a"], {}), ("Min", ["b"], {}), a=w(6, 8), b=w(4, 1, 1)),
    "mean of many": one("Mean", w(8), w(6, 1)),
    "max pool": one("MaxPool", kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 1]),
    "max pool ceil": one("MaxPool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    "max pool ceil beyond": one(
        "MaxPool", kernel_shape=[2, 2], strides=[3, 4], pads=[1, 1, 0, 0], ceil_mode=1
    ),
    "average pool": one("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    "average pool counted": one(
        "AveragePool", kernel_shape=[3, 3], pads=[1, 0, 1, 1], count_include_pad=1
    ),
    "average pool ceil": one("AveragePool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    "average pool ceil counted": one(
        "AveragePool",
        kernel_shape=[3, 3],
        strides=[2, 2],
        pads=[1, 1, 0, 0],
        ceil_mode=1,
        count_include_pad=1,
    ),
    "average pool same": one("AveragePool", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_LOWER"),
    "global average": one("GlobalAveragePool"),
    "global max": one("GlobalMaxPool"),
    "reduce mean": one("ReduceMean", ints(2, -1), keepdims=0),
    "reduce mean old": one("ReduceMean", opset=13, axes=[1]),
    "reduce all": one("ReduceSum", keepdims=0),
    "reduce channels": chain(CONV1, ("ReduceMax", ["a"], {"keepdims": 0}), w1=W1, a=ints(1)),
    "reduce rows": chain(CONV1, ("ReduceMin", ["a"], {"keepdims": 0}), w1=W1, a=ints(2)),
    "reduce l2": one("ReduceL2", ints(1)),
    "concat": chain(CONV1, ("Concat", ["x"], {"axis": 1}), w1=W1),
    "concat rows": chain(CONV1, ("Concat", ["c"], {"axis": -2}), w1=W1, c=w(2, 6, 3, 8)),
    "slice": chain(
        CONV1, ("Slice", ["s", "e", "a", "t"], {}),
        w1=W1, s=ints(-1, 1), e=ints(-99, 99), a=ints(1, 3), t=ints(-2, 3),
    ),
    "slice old": one("Slice", opset=9, starts=[1], ends=[-1], axes=[2]),
    "reshape": chain(CONV1, ("Reshape", ["s"], {}), w1=W1, s=ints(0, -1)),
    "reshape groups": chain(
        CONV1,
        ("Reshape", ["s"], {}),
        ("Transpose", [], {"perm": [0, 2, 1, 3, 4]}),
        ("Reshape", ["t"], {}),
        ("Conv", ["w2"], {}),
        w1=W1, s=ints(2, 2, 3, 6, 8), t=ints(0, -1, 6, 8), w2=w(3, 6, 1, 1),
    ),
    "reshape pixel": chain(
        CONV1, ("GlobalAveragePool", [], {}), ("Reshape", ["s"], {}), ("Gemm", ["g"], {}),
        w1=W1, s=ints(2, -1), g=w(6, 5),
    ),
    "flatten": chain(CONV1, ("Flatten", [], {}), ("Gemm", ["g"], {"transB": 1}), w1=W1, g=w(5, 288)),
    "flatten 2": chain(CONV1, ("Flatten", [], {"axis": 2}), w1=W1),
    "transpose": chain(CONV1, ("Transpose", [], {"perm": [0, 2, 3, 1]}), ("Relu", [], {}), w1=W1),
    "transpose all": one("Transpose"),
    "squeeze": chain(("ReduceMean", ["a"], {}), ("Squeeze", ["b"], {}), a=ints(2, 3), b=ints(2, 3)),
    "unsqueeze": one("Unsqueeze", ints(0, -1)),
    "unsqueeze old": one("Unsqueeze", opset=11, axes=[1]),
    "gemm": one("Gemm", w(5, 3), w(5), shape=(3, 7), transA=1, transB=1, alpha=0.5, beta=2.0),
    "gemm matrix": one("Gemm", w(3, 5), w(7, 1), shape=(7, 3)),
    "matmul": chain(CONV1, ("MatMul", ["m"], {}), w1=W1, m=w(8, 5)),
    "matmul vector": one("MatMul", w(8), shape=(3, 8)),
    "matmul batches": one("MatMul", w(4, 8, 3)),
    "attention": model(
        [
            ("Transpose", ["x"], ["a"], {"perm": [0, 2, 1, 3]}),
            ("Transpose", ["x"], ["b"], {"perm": [0, 2, 3, 1]}),
            ("MatMul", ["a", "b"], ["c"], {}),
            ("Softmax", ["c"], ["d"], {}),
            ("MatMul", ["d", "a"], ["e"], {}),
            ("Transpose", ["e"], ["f"], {"perm": [0, 2, 1, 3]}),
            ("Reshape", ["f", "s"], ["y"], {}),
        ],
        {"x": IMAGE},
        {"s": ints(0, 4, -1)},
    ),
    "softmax": chain(CONV1, ("Softmax", [], {"axis": 1}), w1=W1),
    "softmax old": one("Softmax", opset=11),
    "log softmax": one("LogSoftmax", axis=-2),
    "resize sizes": one("Resize", None, None, ints(2, 4, 9, 4), mode="linear"),
    "resize scales": one("Resize", None, np.float32([1, 1, 2, 0.5])),
    "resize corners": one(
        "Resize", None, None, ints(9, 5), mode="linear", axes=[2, 3],
        coordinate_transformation_mode="align_corners",
    ),
    "resize cubic": one("Resize", None, None, ints(2, 4, 9, 5), mode="cubic"),
    "resize floor": one(
        "Resize", None, None, ints(2, 4, 12, 24), nearest_mode="floor",
        coordinate_transformation_mode="asymmetric",
    ),
    "resize old": one("Resize", np.float32([1, 1, 2, 3]), opset=10),
    "upsample": one("Upsample", np.float32([1, 1, 2, 2]), opset=9, mode="linear"),
    "pad": chain(CONV1, ("Pad", ["p", "v"], {}), w1=W1, p=ints(0, 1, 2, 0, 0, 0, 1, 3), v=np.float32(2)),
    "pad crop": one("Pad", ints(0, 0, -1, 2, 0, 0, 1, -3)),
    "pad reflect": one("Pad", ints(0, 0, 1, 2, 0, 0, 2, 1), mode="reflect"),
    "pad axes": one("Pad", ints(1, 2), None, ints(-1), mode="edge"),
    "pad old": one("Pad", opset=10, pads=[0, 0, 1, 1, 0, 0, 0, 0], value=1.5),
    "gather": chain(CONV1, ("Gather", ["i"], {"axis": 1}), w1=W1, i=ints(3, -1, 0)),
    "gather one": chain(CONV1, ("Gather", ["i"], {"axis": 2}), w1=W1, i=np.int64(-2)),
    "gather matrix": one("Gather", np.int64([[1, 0], [2, 2]]), axis=3),
    "expand": one("Expand", ints(3, 1, 4, 1, 1), shape=(4, 6, 8)),
    "tile": one("Tile", ints(1, 2, 1, 3)),
    "lrn": chain(CONV1, ("LRN", [], {"size": 3, "alpha": 0.5, "beta": 0.6, "bias": 2.0}), w1=W1),
    "depth to space": one("DepthToSpace", blocksize=2),
    "depth to space crd": chain(
        ("Conv", ["w1"], {}), ("DepthToSpace", [], {"blocksize": 2, "mode": "CRD"}), w1=w(8, 4, 1, 1)
    ),
    "space to depth": one("SpaceToDepth", blocksize=2),
    "instance norm": one("InstanceNormalization", w(4), w(4)),
    "group norm": one("GroupNormalization", w(4), w(4), opset=21, num_groups=2),
    "layer norm": one("LayerNormalization", w(8), w(8)),
    "layer norm axis": one("LayerNormalization", w(6, 8), axis=2),
    "gelu": one("Gelu"),
    "gelu tanh": one("Gelu", approximate="tanh"),
    "activations": chain(
        *(
            (op, [], {})
            for op in (
                "Sigmoid", "Tanh", "Exp", "Sqrt", "Erf", "HardSwish", "Relu", "Neg", "Abs", "Softplus",
                "Mish", "Log", "Sin", "Cos", "Reciprocal",
            )
        ),
    ),
    "floor": chain(("Add", ["c"], {}), ("Mul", ["c"], {}), ("Floor", [], {}), c=w(8)),
    "ceil round": chain(("Mul", ["c"], {}), ("Round", [], {}), ("Ceil", [], {}), c=np.float32(3)),
    "where": model(
        [
            ("Greater", ["x", "z"], ["c"], {}),
            ("Less", ["x", "o"], ["d"], {}),
            ("And", ["c", "d"], ["e"], {}),
            ("Where", ["e", "x", "o"], ["y"], {}),
        ],
        {"x": IMAGE},
        {"z": np.float32(0), "o": w(4, 1, 1)},
    ),
    "cast": chain(("Cast", [], {"to": 7}), ("Cast", [], {"to": 1})),
    "dropout": chain(("Dropout", [], {}), ("Identity", [], {}), ("Relu", [], {})),
    "split": model(
        [
            ("Conv", ["x", "w1"], ["c"], {}),
            ("Split", ["c", "s"], ["a", "b"], {"axis": 1}),
            ("Mul", ["a", "b"], ["y"], {}),
        ],
        {"x": IMAGE},
        {"w1": W1, "s": ints(3, 3)},
    ),
    "split outputs": model(
        [("Split", ["x"], ["y", "z"], {"axis": 3, "num_outputs": 2})],
        {"x": (2, 4, 6, 7)},
        outputs=("y", "z"),
    ),
    "split old": model([("Split", ["x"], ["y", "z"], {"axis": 1})], {"x": IMAGE}, outputs=("z",), opset=11),
    "shapes": model(
        [
            ("Shape", ["x"], ["s"], {}),
            ("Gather", ["s", "i"], ["b"], {}),
            ("Unsqueeze", ["b", "a"], ["u"], {}),
            ("Constant", [], ["m"], {"value_ints": [-1]}),
            ("Concat", ["u", "m"], ["t"], {"axis": 0}),
            ("Reshape", ["x", "t"], ["r"], {}),
            ("ConstantOfShape", ["u"], ["z"], {}),
            ("Unsqueeze", ["z", "o"], ["zz"], {}),
            ("Add", ["r", "zz"], ["y"], {}),
        ],
        {"x": IMAGE},
        {"i": np.int64(0), "a": ints(0), "o": ints(1)},
    ),
    "shape output": one("Shape", start=1),
    "input as output": model([("Relu", ["x"], ["y"], {})], {"x": IMAGE}, outputs=("y", "x")),
    "squeeze and excite": model(
        [
            ("Conv", ["x", "w1"], ["c"], {}),
            ("GlobalAveragePool", ["c"], ["g"], {}),
            ("Conv", ["g", "w2"], ["h"], {}),
            ("HardSigmoid", ["h"], ["s"], {"alpha": 1 / 6, "beta": 0.5}),
            ("Mul", ["s", "c"], ["m"], {}),
            ("Conv", ["m", "w2"], ["n"], {}),
            ("Add", ["n", "c"], ["y"], {}),
        ],
        {"x": IMAGE},
        {"w1": W1, "w2": w(6, 6, 1, 1)},
    ),
}  # fmt: skip
