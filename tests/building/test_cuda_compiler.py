"""Device code on a machine without a GPU: the compiler, its reports and errors, and what stays untouched."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest
import tvm_ffi

from tvmconv.building.cuda import compiler as cuda_compiler
from tvmconv.building.cuda import fatbin
from tvmconv.building.cuda import tools as cuda_tools
from tvmconv.building.cuda.compiler import Report, compile_source, compiling, parse_reports
from tvmconv.errors import BuildError, MissingToolError
from tvmconv.hardware import cuda_driver

needs_compiler = pytest.mark.skipif(
    not cuda_tools.check_compiler().ok or not cuda_tools.check_cudart().ok,
    reason="no CUDA compiler here: " + cuda_tools.INSTALL,
)
needs_disassembler = pytest.mark.skipif(
    cuda_tools.program("cuobjdump") is None or cuda_tools.program("nvdisasm") is None,
    reason="no cuobjdump and nvdisasm here",
)

SCALE = 'extern "C" __global__ void scale(float* x) { x[threadIdx.x] *= 2.0f; }\n'
TENSOR_CORES = """
#include <mma.h>
using namespace nvcuda::wmma;
extern "C" __global__ void multiply(const half* a, const half* b, float* c) {
  __shared__ half tile[256];
  fragment<matrix_a, 16, 16, 16, half, row_major> left;
  fragment<matrix_b, 16, 16, 16, half, row_major> right;
  fragment<accumulator, 16, 16, 16, float> sum;
  for (int i = threadIdx.x; i < 256; i += 32) tile[i] = a[i];
  __syncthreads();
  fill_fragment(sum, 0.0f);
  load_matrix_sync(left, tile, 16);
  load_matrix_sync(right, b, 16);
  mma_sync(sum, left, right, sum);
  store_matrix_sync(c, sum, 16, mem_row_major);
}
"""
# More values alive at a time than a thread of 24 registers holds.
SPILLING = """
extern "C" __global__ void __launch_bounds__(1024, 2) spill(float* x) {
  float v[64];
#pragma unroll
  for (int i = 0; i < 64; ++i) v[i] = x[i * 1024 + threadIdx.x];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 64; ++i) x[(63 - i) * 1024 + threadIdx.x] = v[i] * v[(i * 7) % 64];
}
"""


@needs_compiler
@pytest.mark.parametrize("arch", ["sm_75", "sm_80", "sm_90"])
def test_an_image_has_machine_code_for_the_machine_and_ptx_for_newer_ones(arch):
    made = compile_source(SCALE, arch)

    assert fatbin.device_code(made.image) == fatbin.DeviceCode(frozenset([arch]), frozenset([arch]))
    (report,) = made.reports
    assert (report.kernel, report.arch) == ("scale", arch)
    assert 0 < report.registers < 32
    assert (report.shared_bytes, report.spill_stores, report.spill_loads) == (0, 0, 0)


@needs_compiler
def test_the_report_tells_shared_memory_and_spills():
    (tensor,) = compile_source(TENSOR_CORES, "sm_80").reports
    (spilling,) = compile_source(SPILLING, "sm_80").reports

    assert tensor.shared_bytes == 512
    assert spilling.registers <= 32
    assert spilling.spill_stores > 0
    assert spilling.spill_loads > 0


@needs_compiler
@needs_disassembler
def test_machine_code_can_be_searched_for_tensor_core_instructions():
    assert "HMMA" in cuda_compiler.sass(compile_source(TENSOR_CORES, "sm_80").image)
    assert "HMMA" not in cuda_compiler.sass(compile_source(SCALE, "sm_80").image)


@needs_compiler
def test_a_compile_error_is_a_build_error_with_the_first_lines():
    with pytest.raises(BuildError) as caught:
        compile_source("__global__ void f(int* x) {\n  *x = missing;\n}\n", "sm_80")

    message = str(caught.value)
    assert "sm_80" in message
    assert 'identifier "missing" is undefined' in message
    assert "kernels.cu" in message
    assert len(message.splitlines()) < 10


@needs_compiler
def test_the_prelude_stands_in_front_of_every_module(monkeypatch):
    monkeypatch.setattr(
        cuda_compiler, "PRELUDE", "__device__ float twice(float x) { return x + x; }\n"
    )

    made = compile_source('extern "C" __global__ void g(float* x) { *x = twice(*x); }', "sm_90")

    assert made.source.startswith("__device__ float twice")
    assert [report.kernel for report in made.reports] == ["g"]


@needs_compiler
def test_tvm_asks_its_own_callback_again_afterwards():
    import tvm  # noqa: F401 - registers the callback

    name = "tvm_callback_cuda_compile"
    before = tvm_ffi.get_global_func(name)
    with compiling("sm_90") as outer:
        inside = tvm_ffi.get_global_func(name)
        assert not inside.same_as(before)
        with compiling("sm_90") as inner:
            assert inner is outer
            made = tvm_ffi.get_global_func(name)(SCALE)
    assert fatbin.device_code(bytes(made)).cubins == {"sm_90"}
    assert [report.kernel for report in outer.reports] == ["scale"]
    assert tvm_ffi.get_global_func(name).same_as(before)

    with pytest.raises(BuildError, match="storage class"), compiling("sm_80"):
        tvm_ffi.get_global_func(name)("nope")
    assert tvm_ffi.get_global_func(name).same_as(before)


DYNAMIC = """
extern "C" __global__ void {name}(float* x) {{
  extern __shared__ __align__(1024) {type} shared_ptr[];
  (({type}*)shared_ptr)[threadIdx.x] = ({type})x[threadIdx.x];
  __syncthreads();
  x[threadIdx.x] = shared_ptr[31 - threadIdx.x];
}}
"""


@needs_compiler
@needs_disassembler
def test_kernels_of_one_module_may_have_shared_memory_of_different_types():
    kernels = [("a", "float"), ("b", "unsigned char"), ("c", "float")]
    code = "".join(DYNAMIC.format(name=name, type=type_) for name, type_ in kernels)

    made = compile_source(code, "sm_90")

    assert {report.kernel for report in made.reports} == {"a", "b", "c"}
    shown = cuda_compiler.sass(made.image)
    assert shown.count("STS") >= 3  # the pointer is known to be to shared memory
    assert "ST.E" not in shown.replace("STG.E", "")


@needs_compiler
def test_it_may_be_opened_before_tvm_is_imported():
    code = """
        from tvmconv.building.cuda import compiler as cuda_compiler
        with cuda_compiler.compiling("sm_90"):
            import tvm
        print(tvm.target.Target({"kind": "cuda", "arch": "sm_90"}).kind)
    """
    assert run(code) == "cuda"


LOG = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'first_kernel' for 'sm_90'
ptxas info    : Function properties for first_kernel
    16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 16 bytes cumulative stack size, 4096 bytes smem
ptxas info    : Compile time = 1.2 ms
ptxas info    : Compiling entry function 'second' for 'sm_90'
ptxas info    : Function properties for second
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 10 registers, used 0 barriers
"""


def test_reports_are_read_from_ptxas_output():
    assert list(parse_reports(LOG)) == [
        Report("first_kernel", "sm_90", 255, 4096, 16, 8, 12),
        Report("second", "sm_90", 10, 0, 0, 0, 0),
    ]


@needs_compiler
def test_without_compiler_or_runtime_library_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(cuda_tools, "nvcc", lambda: None)
    monkeypatch.setattr(cuda_tools, "library", lambda _name: None)

    with (
        pytest.raises(MissingToolError, match=r"CUDA compiler.*tvmconv\[cuda-compiler\]"),
        compiling("sm_90"),
    ):
        pass


def test_nvcc_is_not_taken_without_the_compiler_that_it_calls(monkeypatch, tmp_path):
    (tmp_path / "nvcc").write_text("#!/bin/sh\n")
    (tmp_path / "nvcc").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cuda_tools.nvcc() is None

    (tmp_path / "g++").write_text("#!/bin/sh\n")
    (tmp_path / "g++").chmod(0o755)
    assert cuda_tools.nvcc() == str(tmp_path / "nvcc")


def test_a_missing_cudart_is_named_with_the_package():
    code = """
        from tvmconv import errors
        from tvmconv.hardware import cuda_driver
        cuda_driver.package_folders = cuda_driver.toolkit_folders = lambda folder: []
        try:
            cuda_driver.open_cudart()
        except errors.MissingToolError as error:
            print(error)
        else:
            print("on the library path")
    """
    said = run(code)

    assert "on the library path" in said or "pip install 'tvmconv[cuda]'" in said


@needs_compiler
@pytest.mark.skipif(cuda_driver.driver() is not None, reason="this machine has a driver")
def test_a_process_that_builds_is_told_that_it_has_no_driver_and_still_computes():
    """The stand-in for the driver must not be taken for one, nor harm kernels of the CPU."""
    code = """
        import ctypes, numpy, pathlib, sys, tempfile
        import tvm, tvmconv
        from tvmconv.building.cuda import compiler as cuda_compiler
        from tvmconv.hardware import cuda_driver
        assert cuda_driver.driver() is None
        with cuda_compiler.compiling("sm_90"):
            pass
        ctypes.CDLL(cuda_driver.DRIVER)  # opens, under the driver's name
        assert cuda_driver.driver() is None and cuda_driver.devices() == []
        assert ctypes.CDLL(cuda_driver.DRIVER).cuInit(0) == 100
        assert not tvm.cuda().exist
        spec = tvmconv.ConvSpec.conv2d((1, 5, 5, 8), (3, 3, 8, 16))
        with tempfile.TemporaryDirectory() as folder:
            library = tvmconv.load(tvmconv.build(spec, output=pathlib.Path(folder) / "b", logs=[]))
            y = library[spec](numpy.ones(spec.input_shape, "f4"), numpy.ones(spec.filter_shape, "f4"))
        print(y[0, 2, 2, 0])
    """
    assert run(code) == "72.0"


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        env=os.environ,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
