"""Split sums that the blocks of a cluster add up: values on the emulated GPU, machine code, refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest
from emulated_gpu import EmulatedGpu, available
from tvm import te
from tvm.s_tir import Schedule as Loops

from tvmconv import ConvSpec, hardware
from tvmconv.building.compile import compile_functions
from tvmconv.building.cuda import compiler as cuda_compiler
from tvmconv.building.cuda import tools as cuda_tools
from tvmconv.checking import oracle
from tvmconv.errors import MissingToolError
from tvmconv.lowering.cuda.clusters import MEETING, join_kernels
from tvmconv.lowering.interface import prim_func

MACHINE, PACK = hardware.find_machine("sm_90")
SCHEDULES = {schedule.name: schedule for schedule in PACK.schedules}
TENSOR, TILED = SCHEDULES["cuda.conv2d.tensor"], SCHEDULES["cuda.conv2d.tiled"]
HALVES = ConvSpec.conv2d(
    (1, 14, 14, 128), (3, 3, 128, 128), dtype="float16", bias=True, activation="relu", residual=True
)
RAGGED = ConvSpec.conv2d((2, 7, 7, 192), (1, 1, 192, 18), dtype="float16", bias=True)
BYTES = ConvSpec.conv2d((1, 9, 9, 64), (3, 3, 64, 70), dtype="int8", bias=True)
FLOATS = ConvSpec.conv2d((1, 9, 9, 64), (3, 3, 64, 70), bias=True, activation="relu6")
CASES = {
    "eight": (TENSOR, HALVES, (64, 64, "2x2", 4, 3, 8)),
    "two": (TENSOR, HALVES, (64, 64, "2x2", 4, 3, 2)),
    "fewer outputs than threads": (TENSOR, HALVES, (16, 16, "1x1", 2, 6, 8)),
    "more outputs than threads": (TENSOR, HALVES, (128, 64, "2x2", 4, 3, 2)),
    "ragged": (TENSOR, RAGGED, (32, 32, "2x2", 2, 3, 2)),
    "bytes": (TENSOR, BYTES, (32, 32, "2x2", 2, 3, 4)),
    "tf32": (TENSOR, replace(FLOATS, tf32=True), (32, 32, "2x2", 2, 3, 4)),
    "floats": (TILED, FLOATS, (64, 64, 16, 3, 8)),
    "floats of small tiles": (TILED, FLOATS, (32, 64, 32, 3, 2)),
}  # fmt: skip
needs_nvcc = pytest.mark.skipif(
    cuda_tools.nvcc() is None, reason="no nvcc: pip install 'tvmconv[cuda]'"
)


def function_of(schedule, spec, values):
    names = [knob.name for knob in schedule.knobs(spec, MACHINE)]
    decisions = dict(zip(names, (*values, "cluster"), strict=True))
    hardware.check_decisions(schedule, spec, MACHINE, decisions)
    return schedule.apply(spec, MACHINE, decisions)


@pytest.fixture(scope="module")
def functions():
    return {name.replace(" ", "_"): function_of(*case) for name, case in CASES.items()}


@pytest.mark.slow
@needs_nvcc
@pytest.mark.skipif(not available(), reason="the emulated GPU needs g++ and CUDA's headers")
def test_a_cluster_adds_up_its_tile(functions, tmp_path):
    gpu = EmulatedGpu(functions, MACHINE, tmp_path)

    for name, (_, spec, _) in CASES.items():
        arguments = oracle.random_arguments(spec, seed=0)
        expected = oracle.conv(spec, **arguments)
        # Blocks of a cluster run in turns of the threads' order: without the meeting some sums are missing.
        one, other = (gpu.run(name.replace(" ", "_"), spec, arguments, seed) for seed in (0, 1))
        assert one.tobytes() == other.tobytes(), name
        oracle.assert_close(spec, expected, one)


@pytest.mark.slow
@needs_nvcc
def test_one_kernel_holds_the_meeting(functions):
    with cuda_compiler.compiling("sm_90") as session:
        mains = {name: function.main for name, function in functions.items()}
        compile_functions(mains, MACHINE.target)
    try:
        code = "".join(cuda_compiler.sass(module.image) for module in session.modules)
    except MissingToolError as error:
        pytest.skip(str(error))

    kernels = code.split("Function : ")[1:]
    assert len(kernels) == len(functions)
    for kernel in kernels:
        assert "UCGABAR_ARV" in kernel
        assert "UCGABAR_WAIT" in kernel
    source = session.modules[0].source
    assert source.count("__cluster_dims__(8, 1, 1)") >= 3
    assert source.count("__cluster_dims__") >= len(functions)


def test_only_machines_with_clusters_have_them():
    older, _ = hardware.find_machine("sm_80")

    assert TENSOR.knobs(HALVES, older)[-1].candidates == ("kernel",)
    assert {d["adding"] for d in hardware.space(TENSOR, HALVES, MACHINE)} == {"kernel", "cluster"}
    alone = {"rows": 64, "columns": 64, "warps": "2x2", "slabs": 4, "stages": 3, "splits": 1}
    assert not TENSOR.legal(HALVES, MACHINE, {**alone, "adding": "cluster"})
    assert not TENSOR.legal(HALVES, MACHINE, {**alone, "splits": 16, "adding": "cluster"})


def test_grids_that_differ_cannot_meet():
    a = te.placeholder((16,), name="a")
    b = te.compute((16,), lambda i: a[i] + 1, name="b")
    c = te.compute((24,), lambda i: b[i % 16], name="c")
    sch = Loops(prim_func([a, b, c]))
    for name in ("b", "c"):
        (loop,) = sch.get_loops(sch.get_sblock(name))
        sch.bind(loop, "blockIdx.x")
        sch.annotate(loop, MEETING, 8)

    # TVM makes a RuntimeError of what a pass raises.
    with pytest.raises(RuntimeError, match="16 and 24 blocks cannot meet in clusters of 8"):
        join_kernels(sch.mod)
