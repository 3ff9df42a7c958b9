"""Runs the CUDA C++ that TVM writes for kernels, on the CPU: emulated_gpu.h says how, and what it shows."""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import emulated_kernels
import numpy as np
import tvm
import tvm_ffi
from tvm import tirx

from tvmconv.building.compile import compile_functions
from tvmconv.building.cuda import compiler as cuda_compiler
from tvmconv.hardware import Function, Machine
from tvmconv.lowering.cuda import passes as gpu_lowering
from tvmconv.runtime import arrays, tensors


@dataclass(frozen=True)
class Launch:
    """One kernel as the host launches it."""

    kernel: str
    blocks: int
    threads: tuple[int, int, int]
    shared_bytes: int


def flat(functions: Mapping[str, Function]) -> dict[str, Any]:
    """Functions and their packing by names of their own."""
    found = {name: function.main for name, function in functions.items()}
    packs = {f"{n}_pack": f.pack for n, f in functions.items() if f.pack is not None}
    return {**found, **packs}


def launches(functions: Mapping[str, Any], machine: Machine) -> Iterator[Launch]:
    """Every kernel of lowered functions, those of one function in the order that the host launches them."""
    mod = tvm.IRModule({n: f.with_attr("global_symbol", n) for n, f in functions.items()})
    target = tvm.target.Target(dict(machine.target))
    passes = gpu_lowering.passes()
    split = next(i for i, each in enumerate(passes) if "SplitHostDevice" in str(each.info.name))
    steps = [tirx.transform.BindTarget(target), *passes[: split + 1]]
    mod = tvm.transform.Sequential(steps)(mod)
    for variable, func in sorted(mod.functions_items(), key=lambda item: item[0].name_hint):
        if "_kernel" in variable.name_hint:
            yield _launch(variable.name_hint, func)


def _launch(name: str, func: Any) -> Launch:
    extents, shared = {}, []

    def note(node: Any) -> None:
        if isinstance(node, tirx.AttrStmt) and node.attr_key == "thread_extent":
            extents[node.node.thread_tag] = int(node.value)
        if isinstance(node, tirx.AllocBuffer) and node.buffer.scope() == "shared.dyn":
            item = tvm.DataType(node.buffer.dtype).itemsize
            shared.append(int(node.buffer.shape[0]) * item)

    tvm_ffi.structural_walk(func.body, note)
    x, y, z = (extents.get(f"threadIdx.{axis}", 1) for axis in "xyz")
    return Launch(name, extents.get("blockIdx.x", 1), (x, y, z), sum(shared))


class EmulatedGpu:
    """Scheduled functions and their packing, as CUDA C++ that g++ compiled."""

    def __init__(self, functions: Mapping[str, Function], machine: Machine, folder: Path) -> None:
        self.functions = dict(functions)
        with cuda_compiler.compiling(machine.gpu.arch) as session:
            compile_functions(flat(functions), machine.target)
        self.modules = session.modules
        source = "".join(module.source for module in session.modules)
        self.launches = list(launches(flat(functions), machine))
        path = folder / "kernels.so"
        self.kernels = {
            each.name: each
            for each in emulated_kernels.compile_source(source, machine.gpu.arch, path)
        }
        self.numbers = {name: number for number, name in enumerate(self.kernels)}
        self.library = ctypes.CDLL(str(path))

    def call(self, name: str, given: Mapping[str, np.ndarray], seed: int) -> None:
        """Run one function's kernels, one after the other; threads that wait forever are an error."""
        for launch in self.launches:
            kernel = launch.kernel
            if kernel.rpartition("_kernel")[0] != name:
                continue
            names = (name.removesuffix("_ptr") for _, name in self.kernels[kernel].parameters)
            addresses = [ctypes.c_void_p(arrays.data_address(given[name])) for name in names]
            values = (ctypes.c_void_p * len(addresses))(*map(ctypes.addressof, addresses))
            stuck = self.library.emulated_run(
                self.numbers[kernel],
                values,
                (ctypes.c_uint * 3)(launch.blocks, 1, 1),
                (ctypes.c_uint * 3)(*launch.threads),
                ctypes.c_size_t(launch.shared_bytes),
                ctypes.c_uint(seed),
            )
            assert not stuck, f"threads of {kernel} wait for others that never come"

    def run(self, name: str, spec, arguments: Mapping[str, np.ndarray], seed: int = 0):
        """The output for arguments as `oracle.random_arguments` gives them; ``seed`` orders threads."""
        function = self.functions[name]
        given = {each: arrays.aligned_copy(array) for each, array in arguments.items()}
        if function.pack is not None:
            packed = _nothing(function.packed_shape, function.packed_dtype)
            self.call(f"{name}_pack", {**given, "packed": packed}, seed)
            given["filter"] = packed
        out = _nothing(spec.output_shape, spec.out_dtype)
        scratch = _nothing((function.workspace_bytes // 4 + 1,), "float32")
        self.call(name, {**given, "conv": scratch, "out": out}, seed)
        return out


def rounded_operands(arguments: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arguments of `oracle.conv` whose data and filter, normal numbers, are rounded to TF32."""

    def rounded(array: np.ndarray) -> np.ndarray:
        fraction, exponent = np.frexp(array.astype(np.float64))
        scaled = np.abs(fraction) * 2.0**11  # 11 significant bits; ties go away from zero
        return np.copysign(np.ldexp(np.floor(scaled + 0.5), exponent - 11), array).astype("float32")

    return {n: rounded(a) if n in ("data", "filter") else a for n, a in arguments.items()}


def _nothing(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """An array of no numbers."""
    array = arrays.empty_aligned(shape, tensors.numpy_dtype(dtype))
    array.view(np.uint8)[...] = 0xFF
    return array


def available() -> bool:
    """Whether a C++ compiler, nvcc and CUDA's headers are here."""
    return shutil.which("g++") is not None and emulated_kernels.headers() is not None
