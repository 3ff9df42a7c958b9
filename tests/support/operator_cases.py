"""Small nodes of every operator: what a compiled model must compute as the NumPy reference does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tvmconv.models.graph import Builder
from tvmconv.models.operators import BINARY, COMPARISONS, REDUCTIONS, UNARY

RANDOM = np.random.default_rng(7)


@dataclass(frozen=True)
class Case:
    """A name, and what adds the nodes to a builder: returns the values to look at."""

    name: str
    add: Callable[[Builder, str], str]


def values(shape, low=-3.0, high=3.0):
    return RANDOM.uniform(low, high, shape).astype(np.float32)


def _one(op, shape=(1, 3, 5, 19), of="float32", **attributes):
    return lambda b, name: b.node(
        op, [b.input(f"{name} x", tuple(shape), of)], name=name, **attributes
    )


def _to(op, shape, result):
    return lambda b, name: b.node(
        op, [b.input(f"{name} x", shape, "float32")], name=name, shape=result
    )


def _two(op, left=(1, 3, 5, 19), right=(1, 3, 5, 19), dtype="float32", **attributes):
    def add(b, name):
        inputs = [b.input(f"{name} x", left, dtype), b.input(f"{name} y", right, dtype)]
        return b.node(op, inputs, name=name, **attributes)

    return add


def _layer(op, data, filter_, bias=True, more=(), **attributes):
    """A node with constant weights; ``more`` adds constants of those shapes."""

    def add(b, name):
        x = b.input(f"{name} x", data, "float32")
        w = b.constant(f"{name} w", values(filter_, -1, 1))
        inputs = [x, w]
        channels = b.node(op, inputs, name=f"{name} shape", **attributes)
        shape = b.tensor(channels).shape
        inputs.append(b.constant(f"{name} b", values(shape[-1:])) if bias else "")
        for extra in more:
            inputs.append(b.constant(f"{name} more", values(extra)) if extra else "")
        return b.node(op, inputs, name=name, **attributes)

    return add


CONV = {"strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1), "activation": "relu"}
STRIDED = {**CONV, "strides": (2, 1), "pads": (0, 1, 2, 0)}
UP = {"strides": (2, 2), "pads": (0, 0, 0, 0), "activation": None}
RESIZED = [
    ("bilinear", "half_pixel", "floor"),
    ("bilinear", "align_corners", "floor"),
    ("bilinear", "asymmetric", "floor"),
    ("cubic", "half_pixel", "floor"),
    ("nearest", "half_pixel", "round"),
    ("nearest", "half_pixel", "half_down"),
    ("nearest", "asymmetric", "floor"),
    ("nearest", "asymmetric", "ceil"),
    ("nearest", "align_corners", "round"),
]
POOL = {"window": (3, 2), "strides": (2, 1), "pads": (1, 1, 0, 1)}
FILTER = (3, 3, 8, 12)
PADS = ((0, 0), (1, 2), (0, 1), (0, 0))

CASES = [
    *(Case(op, _one(op)) for op in UNARY if op not in ("log", "sqrt", "rsqrt", "not")),
    *(
        Case(f"{op} of squares", lambda b, name, op=op: b.node(op, [_positive(b, name)], name=name))
        for op in ("log", "sqrt", "rsqrt")
    ),
    *(Case(op, _two(op)) for op in BINARY if op not in ("power", "and", "or")),
    *(Case(op, _two(op)) for op in COMPARISONS),
    Case(
        "power",
        lambda b, name: b.node(
            "power", [_positive(b, name), b.input(f"{name} e", (19,), "float32")], name=name
        ),
    ),
    *(
        Case(
            f"{op} of comparisons",
            lambda b, name, op=op: b.node(op, [_truth(b, name, 1), _truth(b, name, 2)], name=name),
        )
        for op in ("and", "or")
    ),
    Case("not of a comparison", lambda b, name: b.node("not", [_truth(b, name, 1)], name=name)),
    Case(
        "select",
        lambda b, name: b.node(
            "select",
            [
                _truth(b, name, 1),
                b.input(f"{name} x", (5, 19), "float32"),
                b.input(f"{name} y", (1, 3, 5, 19), "float32"),
            ],
            name=name,
            dtype="float32",
        ),
    ),
    Case("add a channel's", _two("add", right=(19,))),
    Case("multiply by pixel", _two("multiply", right=(1, 3, 5, 1))),
    Case("multiply both ways", _two("multiply", left=(3, 1, 7), right=(1, 5, 7))),
    Case("multiply by image", _two("multiply", left=(2, 3, 5, 16), right=(2, 1, 1, 16))),
    Case("add integers", _two("add", dtype="int32")),
    Case("clip", _one("clip", low=-1.0, high=0.5)),
    Case("leaky_relu", _one("leaky_relu", alpha=0.2)),
    Case("elu", _one("elu", alpha=0.7)),
    Case("cast to int", _one("cast", dtype="int32")),
    Case("scalar", _one("tanh", shape=())),
    *(
        Case(f"{op} {what}", _one(op, shape=shape, axes=axes, keepdims=keep))
        for op in REDUCTIONS
        for what, shape, axes, keep in (
            ("of the image", (1, 4, 3, 32), (1, 2), True),
            ("of odd channels", (2, 3, 2, 19), (1, 2), False),
            ("of the last", (1, 3, 2, 9), (3,), False),
            ("of all", (1, 3, 2, 2), (0, 1, 2, 3), False),
            ("of the middle", (3, 4, 16, 2), (1,), False),
            ("of none", (1, 1, 1, 5), (1, 2), False),
        )
    ),
    Case("softmax", _one("softmax", shape=(6, 11), axis=1)),
    Case("softmax of the middle", _one("softmax", shape=(2, 5, 7), axis=1)),
    Case("log_softmax", _one("log_softmax", shape=(6, 11), axis=1)),
    Case("arg_max", _one("arg_max", shape=(1, 4, 5, 7), axis=3, dtype="int64")),
    Case("transpose", _one("transpose", shape=(2, 3, 4, 17), permutation=(0, 3, 1, 2))),
    Case(
        "slice",
        _one("slice", (1, 7, 8, 19), begin=(0, 1, 7, 3), end=(1, 7, -1, 19), strides=(1, 2, -3, 1)),
    ),
    *(
        Case(f"pad by {mode}", _one("pad", pads=PADS, value=1.5, mode=mode))
        for mode in ("constant", "reflect", "edge")
    ),
    Case(
        "pad channels",
        _one("pad", (1, 3, 3, 32), pads=((0, 0), (0, 0), (0, 0), (0, 32)), value=0.0, mode="constant"),
    ),
    *(
        Case(f"resize {' '.join(way)} {size[0]}", _one(
            "resize", (1, 5, 4, channels), size=size,
            method=way[0], coordinates=way[1], rounding=way[2],
        ))
        for way in RESIZED
        for size, channels in (((10, 8), 16), ((3, 7), 3))
    ),
    Case("depth_to_space", _one("depth_to_space", shape=(1, 3, 2, 24), block=2)),
    Case("space_to_depth", _one("space_to_depth", shape=(1, 4, 6, 5), block=2)),
    Case("broadcast_to", _to("broadcast_to", (3, 1), (2, 3, 5))),
    Case("reshape", _to("reshape", (2, 6), (3, 4))),
    Case(
        "gather",
        lambda b, name: b.node(
            "gather",
            [
                b.input(f"{name} x", (4, 5, 3), "float32"),
                b.constant(f"{name} i", np.array([[3, 0], [1, 4]])),
            ],
            name=name,
            axis=1,
        ),
    ),
    *(
        Case(f"concat along {axis}", lambda b, name, axis=axis: b.node(
            "concat",
            [
                b.node("relu", [b.input(f"{name} {i}", shape, "float32")])
                for i, shape in enumerate(_parts(axis))
            ],
            name=name, axis=axis,
        ))
        for axis in (1, 2, 3)
    ),
    *(
        Case(f"{op} {pad}", _one(op, shape=(2, 7, 6, channels), **POOL, **more))
        for pad, channels in (("odd", 5), ("vectors", 64), ("wide and odd", 70))
        for op, more in (("max_pool2d", {}), ("average_pool2d", {"count_padding": False}))
    ),
    Case(
        "average_pool2d with padding",
        _one("average_pool2d", shape=(1, 7, 6, 16), **POOL, count_padding=True),
    ),
    Case("conv2d", _layer("conv2d", (1, 6, 5, 8), FILTER, **CONV)),
    Case("conv2d without bias", _layer("conv2d", (1, 6, 5, 8), FILTER, bias=False, **CONV)),
    Case("conv2d with residual", _layer("conv2d", (1, 6, 5, 8), FILTER, more=((1, 6, 5, 12),), **CONV)),
    Case(
        "conv2d with slopes",
        _layer("conv2d", (1, 6, 5, 8), FILTER, more=((), (12,)), **{**CONV, "activation": None}),
    ),
    Case(
        "conv2d of strides",
        _layer("conv2d", (2, 9, 8, 8), (3, 2, 4, 12), **STRIDED),
    ),
    Case("depthwise_conv2d", _layer("depthwise_conv2d", (1, 6, 5, 8), (3, 3, 8, 2), **CONV)),
    *(
        Case(f"conv2d_transpose {'x'.join(map(str, window))} to {size}", _layer(
            "conv2d_transpose", (1, 4, 3, 8), (*window, 5, 8), **{**UP, **more}, size=size
        ))
        for window, size, more in (
            ((2, 2), (8, 6), {}),
            ((3, 3), (8, 6), {"pads": (0, 1, 0, 1)}),
            ((3, 3), (9, 7), {"activation": "relu"}),
            ((4, 4), (8, 6), {"pads": (1, 1, 1, 1)}),
            ((3, 2), (5, 9), {"strides": (1, 3)}),
            ((3, 3), (11, 9), {}),
            ((1, 1), (7, 5), {}),
        )
    ),
    Case("dense of a row", _layer("dense", (1, 70), (70, 50), activation="relu")),
    Case("dense of a row without bias", _layer("dense", (1, 70), (70, 64), bias=False, activation=None)),
    Case("dense to one", _layer("dense", (1, 33), (33, 1), activation="sigmoid")),
    Case("dense of large rows", _layer("dense", (1, 300), (300, 100), activation=None)),
    Case("dense of rows", _layer("dense", (2, 3, 17), (17, 20), activation="relu6")),
    *(
        Case(f"matmul {ta:d}{tb:d}", _two(
            "matmul", (2, 5, 4) if ta else (2, 4, 5), (1, 6, 5) if tb else (1, 5, 6),
            transpose_a=ta, transpose_b=tb,
        ))
        for ta in (False, True)
        for tb in (False, True)
    ),
    Case(
        "matmul by a constant",
        lambda b, name: b.node(
            "matmul",
            [b.input(f"{name} x", (3, 8), "float32"), b.constant(f"{name} w", values((20, 8)))],
            name=name,
            transpose_a=False,
            transpose_b=True,
        ),
    ),
]  # fmt: skip


def _parts(axis):
    return [
        tuple(n if at != axis else extent for at, n in enumerate((1, 2, 3, 16)))
        for extent in (2, 16, 5)
    ]


def _positive(b, name):
    return b.node(
        "add",
        [
            b.node("square", [b.input(f"{name} x", (1, 3, 5, 19), "float32")]),
            b.constant(f"{name} c", np.float32([0.5])),
        ],
    )


def _truth(b, name, number):
    shape = (1, 3, 5, 19)
    data = b.input(f"{name} {number}", shape, "float32")
    return b.node("greater", [data, b.constant(f"{name} zero {number}", np.float32([0]))])
