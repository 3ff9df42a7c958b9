"""A hardware pack of an imaginary third party with GPUs, whose kernels are as simple as can be.

Every kernel runs one thread for each output; of its two schedules for conv2d one sums in a workspace that the
caller gives, and finishes in a second kernel. It packs filters on the GPU too.
"""

from __future__ import annotations

SOURCE = '''
import dataclasses, functools, math

import tvm
from tvm import te
from tvm.s_tir import Schedule as Loops

from tvmconv import hardware
from tvmconv.compute import conv2d, depthwise_conv2d
from tvmconv.hardware import Function, Knob, Schedule
from tvmconv.lowering.interface import prim_func

BLOCK = 4

def knobs(spec, machine):
    return (Knob("threads", (64, 128)),)

def default(spec, machine):
    return {"threads": 64}

def on_threads(tensors, threads):
    loops = Loops(tvm.IRModule({"main": prim_func(tensors)}))
    for block in loops.get_child_blocks(loops.get_sblock("root")):
        spatial = [
            loop for loop, iterator in zip(loops.get_loops(block), loops.get(block).iter_vars)
            if iterator.iter_type == 0
        ]
        grid, thread = loops.split(loops.fuse(*spatial), [None, threads])
        loops.bind(grid, "blockIdx.x")
        loops.bind(thread, "threadIdx.x")
    return loops.mod["main"]

def conv2d_function(spec, machine, decisions):
    made = conv2d.direct(spec, BLOCK)
    pack = on_threads(conv2d.pack(spec, BLOCK), 64)
    return made, pack, conv2d.packed_filter_shape(spec, BLOCK)

def depthwise_function(spec, machine, decisions):
    made = depthwise_conv2d.direct(spec)
    pack = on_threads(depthwise_conv2d.pack(spec), 64)
    return made, pack, depthwise_conv2d.packed_filter_shape(spec)

def apply(make, spec, machine, decisions):
    made, pack, shape = make(spec, machine, decisions)
    return Function(on_threads(made, decisions["threads"]), pack, shape)

def apply_in_workspace(spec, machine, decisions):
    """A 1x1 convolution without padding: sums in the workspace, then the rest."""
    data = te.placeholder(spec.input_shape, spec.dtype, "data")
    weights = te.placeholder(spec.filter_shape, spec.filter_dtype, "filter")
    height, width, outputs = spec.output_shape[1:]
    ci = te.reduce_axis((0, spec.filter_shape[2]), "ci")
    sums = te.compute(
        (math.prod(spec.output_shape),),
        lambda i: te.sum(
            data[i // (height * width * outputs), i // (width * outputs) % height,
                 i // outputs % width, ci] * weights[0, 0, ci, i % outputs],
            axis=ci,
        ),
        name="workspace",
    )
    bias = te.placeholder(spec.bias_shape, spec.out_dtype, "bias") if spec.bias else None
    residual = te.placeholder(spec.output_shape, spec.out_dtype, "residual") if spec.residual else None

    def finish(n, h, w, o):
        value = sums[((n * height + h) * width + w) * outputs + o]
        value = value if bias is None else value + bias[o]
        value = value if residual is None else value + residual[n, h, w, o]
        return te.max(value, tvm.tirx.const(0, spec.dtype)) if spec.activation == "relu" else value

    out = te.compute(spec.output_shape, finish, name="out")
    extra = [each for each in (bias, residual) if each is not None]
    main = on_threads([data, weights, *extra, sums, out], decisions["threads"])
    return Function(main, workspace_bytes=4 * math.prod(spec.output_shape))

def plain(spec):
    return spec.kernel_height == spec.kernel_width == 1 and spec.strides == (1, 1)

def in_workspace(spec, machine):
    return (
        spec.op == "conv2d" and not spec.is_empty and spec.dtype == "float32" and plain(spec)
        and spec.groups == 1 and spec.data_format == "NHWC" and len(spec.input_shape) == 4
        and spec.activation in ("none", None, "relu", "linear")
    )

def computes(op, spec, machine):
    return spec.op == op and not spec.is_empty

def schedule(name, accepts, apply):
    return Schedule(f"toygpu.{name}", accepts, knobs, lambda *_: True, default, apply)

MACHINES = tuple(
    dataclasses.replace(hardware.load_pack("cuda").machines[at], name=f"toy-{name}")
    for at, name in ((0, "75"), (1, "80"), (3, "87"), (6, "90"))
)
PACK = hardware.HardwarePack(
    name="toygpu",
    machines=MACHINES,
    schedules=(
        schedule("conv2d.workspace", in_workspace, apply_in_workspace),
        schedule(
            "conv2d.plain",
            functools.partial(computes, "conv2d"),
            functools.partial(apply, conv2d_function),
        ),
        schedule(
            "depthwise_conv2d.plain",
            functools.partial(computes, "depthwise_conv2d"),
            functools.partial(apply, depthwise_function),
        ),
    ),
)
'''
