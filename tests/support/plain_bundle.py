"""A small real bundle, compiled with plain TE without the package's builder, and its reference."""

import dataclasses
import datetime
import importlib.metadata
import shutil
from pathlib import Path

import numpy as np

from tvmconv.bundle import manifest as bundle
from tvmconv.hardware import host
from tvmconv.problem.spec import ConvSpec

WIDTH = 8  # output channels per packed block
MACHINE = "tests"
FEATURES = {"x86_64": ("avx2", "fma"), "aarch64": ("asimd",)}
TARGETS = {
    "x86_64": {"kind": "llvm", "mcpu": "haswell"},
    "aarch64": {"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mattr": ["+neon"]},
}

PACKED = ConvSpec.conv2d((1, 6, 5, 4), (3, 3, 4, 12), bias=True, activation="relu")
RESIDUAL = ConvSpec.depthwise_conv2d((1, 7, 6, 8), (3, 3, 8, 2), 2, bias=True, residual=True)
PLAIN = ConvSpec.conv2d((2, 3, 4, 6, 5), (3, 2, 4, 7), padding="VALID", data_format="NCHW")
HALF = ConvSpec.conv2d((1, 5, 5, 3), (1, 1, 3, 8), dtype="float16")
BRAIN = ConvSpec.conv2d((1, 5, 5, 3), (1, 1, 3, 8), dtype="bfloat16")
DOUBLE = ConvSpec.conv2d((1, 5, 5, 3), (3, 3, 3, 8), dtype="float64", residual=True)
INTEGER = ConvSpec.conv2d((1, 5, 5, 3), (3, 3, 3, 8), dtype="int32", bias=True)
EMPTY = ConvSpec.conv2d((0, 5, 5, 3), (3, 3, 3, 8), bias=True)
LARGE = ConvSpec.conv2d((1, 64, 64, 16), (3, 3, 16, 32))  # long enough for every thread to get work
TINY = ConvSpec.conv2d((1, 2, 2, 4), (1, 1, 4, 8))  # where the cost of the call shows
SPECS = (PACKED, RESIDUAL, PLAIN, HALF, BRAIN, DOUBLE, INTEGER, EMPTY, LARGE, TINY)


def is_packed(spec):
    return spec.op == "conv2d" and spec.data_format == "NHWC" and not spec.is_empty


def pack_entry(spec, name):
    if not is_packed(spec):
        return None
    kernel_height, kernel_width, channels, out_channels = spec.filter_shape
    shape = (-(-out_channels // WIDTH), kernel_height, kernel_width, channels, WIDTH)
    return bundle.PackEntry(f"{name}_pack", shape, spec.dtype)


def functions(spec, name):
    """Return TVM functions by name: the convolution and, for packed specs, its filter's packing."""
    from tvm import te

    def image_index(n, y, x, c):
        return (n, y, x, c) if spec.data_format == "NHWC" else (n, c, y, x)

    image = te.placeholder((spec.batch, *spec.input_shape[-3:]), spec.dtype, "x")
    plain = te.placeholder(spec.filter_shape, spec.dtype, "w")
    entry = pack_entry(spec, name)
    filter_ = te.placeholder(entry.shape, spec.dtype, "packed") if entry else plain
    bias = te.placeholder(spec.bias_shape, spec.dtype, "bias")
    out_shape = (spec.batch, *spec.output_shape[-3:])
    residual = te.placeholder(out_shape, spec.dtype, "residual")
    accumulator = spec.accumulator_dtype
    group = 1 if spec.op == "depthwise_conv2d" else spec.filter_shape[2]
    taps = [te.reduce_axis((0, extent)) for extent in (*spec.filter_shape[:2], group)]

    def product(n, i, j, k):
        dy, dx, q = taps
        y = i * spec.strides[0] + dy * spec.dilations[0] - spec.pads[0]
        x = j * spec.strides[1] + dx * spec.dilations[1] - spec.pads[2]
        channel = te.indexdiv(k, spec.multiplier) if spec.op == "depthwise_conv2d" else q
        inside = te.all(y >= 0, y < spec.in_height, x >= 0, x < spec.in_width)
        pixel = te.if_then_else(
            inside, image(*image_index(n, y, x, channel)), te.const(0, spec.dtype)
        )
        if entry:
            weight = filter_(te.indexdiv(k, WIDTH), dy, dx, q, te.indexmod(k, WIDTH))
        elif spec.op == "depthwise_conv2d":
            weight = filter_(dy, dx, channel, te.indexmod(k, spec.multiplier))
        else:
            weight = filter_(dy, dx, q, k)
        return te.sum(pixel.astype(accumulator) * weight.astype(accumulator), axis=taps)

    def coordinates(a, b, c, d):
        return (a, b, c, d) if spec.data_format == "NHWC" else (a, c, d, b)

    conv = te.compute(out_shape, lambda *i: product(*coordinates(*i)), name="conv")

    def epilogue(*i):
        value = conv(*i)
        if spec.bias:
            value = value + bias(coordinates(*i)[3]).astype(accumulator)
        if spec.residual:
            value = value + residual(*i).astype(accumulator)
        if spec.activation == "relu":
            value = te.max(value, te.const(0, accumulator))
        return value.astype(spec.dtype)

    out = te.compute(out_shape, epilogue, name="out")
    arguments = [image, filter_, *[bias] * spec.bias, *[residual] * spec.residual, out]
    result = {name: scheduled(te.create_prim_func(arguments), {"packed"})}
    if entry:
        packed = te.compute(
            entry.shape,
            lambda block, dy, dx, q, lane: te.if_then_else(
                block * WIDTH + lane < spec.out_channels,
                plain(dy, dx, q, te.min(block * WIDTH + lane, spec.out_channels - 1)),
                te.const(0, spec.dtype),
            ),
            name="packed",
        )
        result[entry.symbol] = scheduled(te.create_prim_func([plain, packed]), {"packed"}, "packed")
    return result


def scheduled(func, aligned, last="out"):
    """Run the rows of the last block in parallel and 4 innermost values at a time."""
    import tvm
    from tvm import s_tir

    schedule = s_tir.Schedule(tvm.IRModule({"main": func}))
    block = schedule.get_sblock(last)
    loops = schedule.get_loops(block)
    _, lanes = schedule.split(loops[-1], [None, 4])
    schedule.vectorize(lanes)
    rows = schedule.fuse(*loops[:2])
    if last == "out":
        schedule.compute_at(schedule.get_sblock("conv"), rows)
    schedule.parallel(rows)
    return unaligned(schedule.mod["main"], aligned)


def unaligned(func, aligned):
    """Let every argument but ``aligned`` lie at any multiple of its element size."""
    import tvm
    import tvm_ffi
    from tvm import tirx

    renamed = {
        old: old
        if old.name in aligned
        else tirx.decl_buffer(
            old.shape, old.dtype, old.name, data_alignment=tvm.DataType(old.dtype).itemsize
        )
        for old in func.params
    }
    body = tvm_ffi.structural_map(func.body, (tvm.ir.Var, lambda var: renamed.get(var, var)))
    return tirx.PrimFunc([renamed[old] for old in func.params], body, func.ret_type, func.attrs)


def build(directory, specs=SPECS, machine=MACHINE):
    """Write a bundle of ``specs`` for this architecture to the new folder ``directory``."""
    import tvm

    architecture = host.architecture()
    entries, module = {}, {}
    for number, spec in enumerate(specs):
        name = f"kernel{number}"
        if spec.is_empty:
            entries[spec.key] = bundle.KernelEntry(None, "empty", {})
            continue
        for symbol, func in functions(spec, name).items():
            module[symbol] = func.with_attr("global_symbol", symbol)
        entries[spec.key] = bundle.KernelEntry(
            name, "direct", {"width": WIDTH}, None, pack_entry(spec, name)
        )
    directory = Path(directory)
    directory.mkdir(parents=True)
    library = directory / bundle.library_name(machine)
    target = tvm.target.Target(TARGETS[architecture])
    tvm.compile(tvm.IRModule(module), target=target).export_library(str(library))
    runtime = directory / bundle.runtime_name(architecture)
    shutil.copy(Path(tvm.__file__).parent / "lib" / "libtvm_runtime.so", runtime)
    variant = bundle.Variant(
        machine=machine,
        architecture=architecture,
        os="linux",
        library=library.name,
        sha256=bundle.file_digest(library),
        features=FEATURES[architecture],
        glibc=None,
        runtime=bundle.RuntimeEntry(runtime.name, bundle.file_digest(runtime)),
        kernels=entries,
    )
    bundle.write_manifest(directory, manifest(variant))
    return directory


def manifest(*variants, **changes):
    fields = {
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(),
        "tvmconv": "0.1.0",
        "tvm": importlib.metadata.version("apache-tvm"),
        "tvm_ffi": importlib.metadata.version("apache-tvm-ffi"),
        "keys": tuple(variants[0].kernels),
        "variants": variants,
    }
    return bundle.Manifest(**{**fields, **changes})


def operands(spec, seed=0):
    """Random x, w, bias and residual (None where the spec has none)."""
    from tvmconv.runtime import tensors

    random = np.random.default_rng(seed)
    dtype = tensors.numpy_dtype(spec.dtype)

    def values(shape):
        if dtype.kind == "i":
            return random.integers(-50, 50, shape).astype(dtype)
        return random.standard_normal(shape).astype(dtype)

    return (
        values(spec.input_shape),
        values(spec.filter_shape),
        values(spec.bias_shape) if spec.bias else None,
        values(spec.output_shape) if spec.residual else None,
    )


def reference(spec, x, w, bias=None, residual=None):
    """The same in float64 (or int64) NumPy: one product per tap of the filter."""
    wide = np.int64 if spec.dtype == "int32" else np.float64
    nchw = spec.data_format == "NCHW"
    x = np.asarray(x).astype(wide).reshape(spec.batch, *spec.input_shape[-3:])
    x = np.moveaxis(x, 1, 3) if nchw else x
    w = np.asarray(w).astype(wide)
    top, bottom, left, right = spec.pads
    x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
    result = np.zeros((spec.batch, spec.out_height, spec.out_width, spec.out_channels), wide)
    for dy in range(spec.kernel_height):
        for dx in range(spec.kernel_width):
            first = (dy * spec.dilations[0], dx * spec.dilations[1])
            rows, columns = (
                slice(begin, begin + (extent - 1) * stride + 1, stride)
                for begin, extent, stride in zip(
                    first, (spec.out_height, spec.out_width), spec.strides, strict=True
                )
            )
            window = x[:, rows, columns, :]
            if spec.op == "depthwise_conv2d":
                result += (window[..., None] * w[dy, dx]).reshape(result.shape)
            else:
                result += window @ w[dy, dx]
    result = result if bias is None else result + np.asarray(bias).astype(wide)
    result = np.moveaxis(result, 3, 1) if nchw else result
    result = result.reshape(spec.output_shape)
    result = result if residual is None else result + np.asarray(residual).astype(wide)
    return np.maximum(result, 0) if spec.activation == "relu" else result


def assert_right(spec, result, *arguments):
    """Compare with the reference, to the rounding of the spec's dtype and the length of its sums."""
    expected = reference(spec, *arguments)
    assert tuple(result.shape) == spec.output_shape
    epsilon = {"float64": 1e-12, "float32": 1e-5, "float16": 2e-3, "bfloat16": 1.6e-2, "int32": 0}
    tolerance = epsilon[spec.dtype]
    np.testing.assert_allclose(
        np.asarray(result).astype(expected.dtype),
        expected,
        rtol=tolerance,
        atol=tolerance * spec.reduction_length**0.5,
    )


def signed(directory, **changes):
    """Change fields of the bundle's only variant and sign the manifest again."""
    found = bundle.read_manifest(directory)
    variant = dataclasses.replace(found.variants[0], **changes)
    bundle.write_manifest(directory, dataclasses.replace(found, variants=(variant,)))


def library_file(directory):
    return directory / bundle.library_name(MACHINE)


def runtime_file(directory):
    return next(directory.glob("libtvm_runtime-*"))
