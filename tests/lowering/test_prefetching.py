"""The pass that fetches the next panel of a filter: what it asks for, and that it is in the machine code."""

from __future__ import annotations

import itertools
import operator
from collections import Counter

import pytest
import tvm
import tvm_ffi
from tvm import tirx

from tvmconv import hardware
from tvmconv.checking import contract
from tvmconv.checking.contract import Case
from tvmconv.lowering.prefetching import PANEL, TILES, prefetch_panels
from tvmconv.problem.spec import ConvSpec

MACHINE, PACK = hardware.find_machine("x86-64-v4")
SPEC = ConvSpec.conv2d((1, 7, 7, 512), (1, 1, 512, 2048))  # 4 MiB of weights for 49 pixels
LINE = 16  # floats


class _T:
    """What TVM's printer calls operations that Python's operators do not stand for."""

    Add, Sub, Mul = map(staticmethod, (operator.add, operator.sub, operator.mul))
    Div = truncdiv = staticmethod(operator.floordiv)
    truncmod = staticmethod(operator.mod)


def nest(tiles: int, steps: int, block: int, panel: int, panels: int) -> tirx.PrimFunc:
    """Panels of a filter, each read by some tiles, a step of the reduction reading ``block``."""
    sums = tirx.decl_buffer((tiles,), "float32", "sums")
    weights = tirx.decl_buffer((panels * panel,), "float32", "filter")
    names = ("p", "t", "k", "v")
    p, t, k, v = (tvm.ir.Var(name, "int32") for name in names)
    body = tirx.BufferStore(sums, sums[t] + weights[p * panel + k * block + v], [t])
    loops = [
        (v, block, {}),
        (k, steps, {PANEL: [panel, panel, block]}),
        (t, tiles, {TILES: [1]}),
        (p, panels, {}),
    ]
    for var, extent, marks in loops:
        kind = tirx.ForKind.SERIAL
        body = tirx.For(var, 0, extent, kind, body, annotations=marks)
    return tirx.PrimFunc([sums, weights], body)


def fetched(func: tirx.PrimFunc) -> list[tuple[dict[str, int], int]]:
    """Run through all loops around the prefetches; returns where they are and which element they name."""
    found = []

    def visit(stmt, loops):
        if isinstance(stmt, tirx.For):
            visit(stmt.body, [*loops, stmt])
        elif isinstance(stmt, tirx.SeqStmt):
            for each in stmt.seq:
                visit(each, loops)
        elif isinstance(stmt, tirx.Evaluate):
            index = stmt.value.args[0].args[0].indices[0]
            for values in itertools.product(*(range(int(loop.extent)) for loop in loops)):
                names = (loop.loop_var.name for loop in loops)
                place = dict(zip(names, values, strict=True))
                # It prints as Python. None of its numbers is negative.
                found.append((place, eval(str(index), {"T": _T}, place)))  # noqa: S307

    visit(func.body, [])
    return found


@pytest.mark.parametrize(
    ("tiles", "steps", "block"),
    [(1, 8, 16), (4, 8, 32), (7, 12, 64), (7, 16, 16), (3, 5, 48)],
)
def test_the_tiles_of_a_panel_ask_for_all_of_the_next_one_and_each_for_its_part(
    tiles, steps, block
):
    panel, panels = steps * block, 3
    mod = tvm.IRModule({"main": nest(tiles, steps, block, panel, panels)})
    asked = fetched(prefetch_panels(mod)["main"])

    for number in range(panels):
        places = [element for at, element in asked if at["p"] == number]
        lines = {element // LINE for element in places}
        wanted = set(range((number + 1) * panel // LINE, (number + 2) * panel // LINE))
        assert len(wanted - lines) <= tiles  # the fractions at the ends of the parts
        assert max(places) < (number + 2) * panel + 2 * LINE
    steps_with = Counter((at["p"], at["t"], at["k"]) for at, _ in asked)
    assert max(steps_with.values()) == -(-block // (LINE * tiles))


def schedule(name: str) -> hardware.Schedule:
    return hardware.find_schedule(name, PACK)


@pytest.mark.parametrize("prefetch", [0, 1])
def test_the_machine_code_prefetches_where_that_was_decided(prefetch):
    case = Case(MACHINE, schedule("x86.conv2d.direct"), SPEC)
    decisions = {**case.default(), "prefetch": prefetch}

    assert case.default()["prefetch"] == 1
    assert ("prefetcht1" in contract.assembly(case, decisions)) is bool(prefetch)


def test_small_filters_have_nothing_to_decide():
    small = ConvSpec.conv2d((1, 28, 28, 64), (1, 1, 64, 64))
    names = [knob.name for knob in schedule("x86.conv2d.direct").knobs(small, MACHINE)]

    assert "prefetch" not in names


def test_a_nest_without_annotations_is_left_alone():
    func = nest(4, 8, 16, 128, 2)
    bare = tvm_ffi.structural_map(
        func.body,
        (tirx.For, lambda f: tirx.For(f.loop_var, f.min, f.extent, f.kind, f.body)),
    )
    mod = tvm.IRModule({"main": func.with_body(bare)})

    assert tvm_ffi.structural_equal(prefetch_panels(mod)["main"].body, bare)
