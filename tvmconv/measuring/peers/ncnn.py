"""ncnn, with its float16 and bfloat16 shortcuts off."""

from __future__ import annotations

from typing import Any

import numpy as np

from tvmconv import writing
from tvmconv.measuring.peers.contender import (
    Array,
    Prepared,
    UnsupportedLayerError,
    oihw,
    padded,
    to_nchw,
)
from tvmconv.problem.spec import ConvSpec

NAME = "ncnn"
PACKAGES = ("ncnn",)
DTYPES = ("float32",)


def prepare(spec: ConvSpec, data: Array, filter: Array, threads: int) -> Prepared:
    """Run one extraction a call; asymmetric padding is done in advance."""
    import ncnn

    if spec.batch != 1:
        raise UnsupportedLayerError("batches")
    top, bottom, left, right = spec.pads
    if (top, left) != (bottom, right):
        data, top, left = padded(spec, data), 0, 0
    net = ncnn.Net()
    options = net.opt
    options.num_threads = threads
    for name in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage", "bf16_packed"):
        if hasattr(options, f"use_{name}"):
            setattr(options, f"use_{name}", False)
    with writing.scratch("tvmconv-ncnn-") as folder:
        param, binary = folder / "layer.param", folder / "layer.bin"
        param.write_text(_param(spec, (top, left)))
        # A tag of four zero bytes says that raw float32 follows.
        binary.write_bytes(bytes(4) + oihw(spec, filter).tobytes())
        net.load_param(str(param))
        net.load_model(str(binary))
    image = to_nchw(data)[0]
    source = ncnn.Mat(image).clone()  # a Mat of an array borrows its memory
    last: list[Any] = []

    def call() -> None:
        extractor = net.create_extractor()
        extractor.input("x", source)
        _, out = extractor.extract("y")
        last[:] = [extractor, out]  # a result lives in its extractor's memory

    return Prepared(call, lambda: np.array(last[1]).transpose(1, 2, 0)[np.newaxis])


def _param(spec: ConvSpec, pads: tuple[int, int]) -> str:
    """The network in ncnn's text format: a magic number, two counts, a line a layer."""
    height, width = spec.filter_shape[:2]
    fields = {
        0: spec.out_channels,
        1: width,
        11: height,
        2: spec.dilations[1],
        12: spec.dilations[0],
        3: spec.strides[1],
        13: spec.strides[0],
        4: pads[1],
        14: pads[0],
        6: int(np.prod(spec.filter_shape)),
    }
    kind = "Convolution"
    if spec.groups > 1:
        kind, fields[7] = "ConvolutionDepthWise", spec.groups
    settings = " ".join(f"{number}={value}" for number, value in fields.items())
    return f"7767517\n2 2\nInput x 0 1 x\n{kind} layer 1 1 x y {settings}\n"
