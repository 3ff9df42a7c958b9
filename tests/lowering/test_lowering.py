"""Our own lowering pass: tiles split by kind, vectors cut to powers of two, accumulators in registers."""

from __future__ import annotations

import re
from collections import Counter

import machine_code
import numpy as np
import pytest
import tvm
import tvm_ffi
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import s_tir, te, tirx
from tvm.s_tir import Schedule as Loops

from tvmconv import hardware
from tvmconv.building.compile import compile_functions
from tvmconv.errors import BuildError
from tvmconv.lowering.cpu import specialise_tiles, split_points
from tvmconv.lowering.interface import SPLIT_AT, prim_func, with_interface
from tvmconv.lowering.runs import power_of_two_runs
from tvmconv.problem.spec import ConvSpec
from tvmconv.runtime import arrays

HERE = hardware.detect()


def loop_over(extent: int, points: list[int]) -> tirx.For:
    body = tirx.Evaluate(tirx.const(0, "int32"))
    kind = tirx.ForKind.SERIAL
    return tirx.For(tirx.Var("i", "int32"), 0, extent, kind, body, annotations={SPLIT_AT: points})


@pytest.mark.parametrize(
    ("points", "pieces"),
    [
        ([], [(0, 10)]),
        ([3], [(0, 3), (3, 10)]),
        ([1, 9], [(0, 1), (1, 9), (9, 10)]),
        ([9, 1], [(0, 1), (1, 9), (9, 10)]),
        ([4, 4], [(0, 4), (4, 10)]),
        ([0, 10], [(0, 10)]),
        ([-2, 15], [(0, 10)]),
    ],
)
def test_loops_are_cut_at_the_points_inside_them(points, pieces):
    assert split_points(loop_over(10, points)) == pieces


@given(extent=st.integers(1, 300), points=st.lists(st.integers(-5, 305), max_size=4))
def test_pieces_cover_the_loop_once_and_in_order(extent, points):
    pieces = split_points(loop_over(extent, points))

    assert [i for begin, end in pieces for i in range(begin, end)] == list(range(extent))
    assert {begin for begin, _ in pieces} == {0, *(p for p in points if 0 < p < extent)}


@given(extent=st.integers(1, 5000))
def test_runs_cover_the_extent_with_falling_powers_of_two(extent):
    runs = power_of_two_runs(extent)

    lengths = [end - begin for begin, end in runs]
    assert [i for begin, end in runs for i in range(begin, end)] == list(range(extent))
    assert all(length.bit_count() == 1 for length in lengths)
    assert lengths == sorted(set(lengths), reverse=True)


def shifted_rows(height: int, width: int, shift: int) -> tirx.PrimFunc:
    """out[i, j] = 2 * data[i - shift, j - shift], zero where that is outside."""
    data = te.placeholder((height, width), "float32", name="data")

    def read(i, j):
        inside = tirx.all(i >= shift, j >= shift)
        return te.if_then_else(inside, data[i - shift, j - shift] * 2.0, 0.0)

    return prim_func([data, te.compute((height, width), read, name="out")])


def tiled(
    func: tirx.PrimFunc, tile: tuple[int, int], parallel: bool, rows: list[int], columns: list[int]
) -> tirx.PrimFunc:
    loops = Loops(tvm.IRModule({"main": func}))
    i, j = loops.get_loops(loops.get_sblock("out"))
    i_outer, i_inner = loops.split(i, [None, tile[0]])
    j_outer, j_inner = loops.split(j, [None, tile[1]])
    loops.reorder(i_outer, j_outer, i_inner, j_inner)
    loops.unroll(i_inner)
    loops.vectorize(j_inner)
    if parallel:
        loops.parallel(i_outer)
    for loop, points in ((i_outer, rows), (j_outer, columns)):
        if points:
            loops.annotate(loop, SPLIT_AT, points)
    return loops.mod["main"]


def run(func: tirx.PrimFunc, data: np.ndarray) -> np.ndarray:
    unaligned = with_interface(func, {}, aligned=frozenset())
    module = compile_functions({"main": unaligned}, HERE.target).mod
    out = np.full_like(data, np.nan)
    module["main"](arrays.array_pointer(data), arrays.array_pointer(out))
    return out


@settings(max_examples=15, deadline=None)
@given(
    size=st.tuples(st.integers(1, 23), st.integers(1, 23)),
    tile=st.tuples(st.integers(1, 5), st.integers(1, 9)),
    parallel=st.booleans(),
    rows=st.lists(st.integers(0, 24), max_size=3),
    columns=st.lists(st.integers(0, 24), max_size=3),
)
def test_splitting_changes_no_value(size, tile, parallel, rows, columns):
    data = np.random.default_rng(0).standard_normal(size, np.float32)
    expected = np.zeros_like(data)
    expected[2:, 2:] = 2 * data[:-2, :-2]

    out = run(tiled(shifted_rows(*size, 2), tile, parallel, rows, columns), data)

    np.testing.assert_array_equal(out, expected)


def specialised(func: tirx.PrimFunc) -> Counter[int]:
    """How many loops of each kind there are once tiles are split."""
    mod = tvm.IRModule({"main": func})
    for step in (s_tir.transform.ConvertBlocksToOpaque(), s_tir.transform.LowerOpaqueBlock()):
        mod = step(mod)
    kinds: Counter[int] = Counter()

    def count(loop: tirx.For) -> tirx.For:
        kinds[loop.kind] += 1
        return loop

    tvm_ffi.structural_map(specialise_tiles(mod)["main"].body, (tirx.For, count))
    return kinds


def test_a_parallel_loop_stays_one_loop():
    """Several parallel loops would be several barriers."""
    func = tiled(shifted_rows(20, 20, 2), (4, 4), True, [1, 4], [])

    assert specialised(func)[tirx.ForKind.PARALLEL] == 1


def test_pieces_of_one_tile_are_unrolled():
    plain = specialised(tiled(shifted_rows(20, 20, 2), (4, 4), False, [], []))
    split = specialised(tiled(shifted_rows(20, 20, 2), (4, 4), False, [1, 4], []))

    assert plain[tirx.ForKind.SERIAL] == split[tirx.ForKind.SERIAL] - 2
    assert split[tirx.ForKind.UNROLLED] == 3 * plain[tirx.ForKind.UNROLLED] + 2


def test_what_tvm_cannot_compile_is_a_build_error_with_the_names():
    func = shifted_rows(4, 4, 1)

    with pytest.raises(BuildError, match=r"could not compile first and 1 more for .*no_such_kind"):
        compile_functions({"first": func, "second": func}, {"kind": "no_such_kind"})


REGISTER = {64: "zmm", 32: "ymm", 16: "xmm"}
VECTOR_MACHINES = [hardware.find_machine(name)[0] for name in ("x86-64-v4", "x86-64-v3")]


def assembly(spec: ConvSpec, machine: hardware.Machine) -> tuple[str, dict[str, int | str]]:
    _, pack = hardware.find_machine(machine.name)
    schedule = hardware.schedules_for(spec, machine, pack)[0]
    decisions = schedule.default(spec, machine)
    function = schedule.apply(spec, machine, decisions)
    executable = compile_functions({"main": function.main}, machine.target)
    return executable.mod.inspect_source("asm"), decisions


def fmas(code: list[machine_code.Instruction]) -> list[str]:
    """Multiply-adds, each as its kind and widest register: ``ps zmm``, ``ss xmm``."""
    return [
        f"{each.name[-2:]} {max(re.findall('[xyz]mm', each.operands))}"
        for each in code
        if each.kind.startswith(machine_code.MULTIPLY_ADDS)
    ]


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("channels", [16, 24, 32, 40, 48, 64])
@pytest.mark.parametrize("machine", VECTOR_MACHINES, ids=lambda machine: machine.name)
def test_the_inner_loop_is_multiply_adds_in_registers(machine, channels, kernel):
    """LLVM keeps an array of <24 x float> in memory: 1.5 GFLOP/s in place of 190."""
    spec = ConvSpec.conv2d((1, 14, 14, 32), (kernel, kernel, 32, channels))
    asm, decisions = assembly(spec, machine)
    loop = machine_code.hot_loop(asm)

    runs = power_of_two_runs(decisions["channels"])
    vectors = sum(-(-(end - begin) // machine.cpu.lanes("float32")) for begin, end in runs)
    assert len(fmas(loop)) >= decisions["pixels"] * vectors * decisions["unroll"]
    assert f"ps {REGISTER[machine.cpu.vector_bytes]}" in fmas(loop)
    # A few spills of a tile that fills the registers are LLVM's; memory would be two for each.
    on_stack = [
        each for each in loop if re.search(r"[xyz]mm.*\(%rsp|\(%rsp.*[xyz]mm", each.operands)
    ]
    assert len(on_stack) <= len(fmas(loop)) / 2


@pytest.mark.parametrize("channels", [16, 24, 40, 48])
@pytest.mark.parametrize("machine", VECTOR_MACHINES, ids=lambda machine: machine.name)
@pytest.mark.parametrize("op", ["conv2d", "depthwise_conv2d"])
def test_no_multiply_add_is_scalar(op, machine, channels):
    """Half vectors fill the rest: 24 and 40 channels are multiples of 8."""
    make = getattr(ConvSpec, op)
    window = (3, 3, channels, channels if op == "conv2d" else 1)
    asm, _ = assembly(make((1, 14, 14, channels), window), machine)

    kinds = set(fmas(machine_code.instructions(asm)))
    assert kinds
    assert kinds <= {"ps zmm", "ps ymm"}


@pytest.mark.parametrize("channels", [48, 80])
def test_no_residual_of_fewer_channels_is_added_one_by_one(channels):
    spec = ConvSpec.conv2d(
        (1, 8, 8, 16), (1, 1, 16, channels), residual=True, residual_channels=channels - 12
    )
    asm, _ = assembly(spec, HERE)

    assert not re.search(r"\bv?(addss|insertps)\b", asm)
