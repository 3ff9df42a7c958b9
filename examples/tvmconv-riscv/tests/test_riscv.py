"""What only this pack can know of itself: its instructions, and how it recognises its machines."""

import re

import pytest

from tvmconv import contract
from tvmconv.hardware import host
from tvmconv.problem.spec import ConvSpec
from tvmconv_riscv import PACK, machines

CONV2D = ConvSpec.conv2d((1, 14, 14, 64), (3, 3, 64, 64), bias=True, activation="relu")
DEPTHWISE = ConvSpec.depthwise_conv2d((1, 28, 28, 64), (3, 3, 64, 1))
SPILL = re.compile(r"\s(vs[1248]r\.v|vl[1248]r[e\d]*\.v)\s")


def assembly(machine, spec):
    (case,) = contract.cases(PACK, [machine], [spec])
    return contract.assembly(case), case.default()


def inner_loop(text):
    """The basic block that jumps back to itself and has the most multiply-adds."""
    blocks = re.split(r"^(\.LBB\w+):", text, flags=re.MULTILINE)
    bodies = [
        body.partition(f", {label}\n")[0]
        for label, body in zip(blocks[1::2], blocks[2::2], strict=True)
        if re.search(rf"^\sb\w+\s.*, {re.escape(label)}$", body, re.MULTILINE)
    ]
    return max(bodies, key=lambda body: body.count("vfmacc"))


@pytest.mark.parametrize("machine", PACK.machines, ids=lambda machine: machine.name)
def test_the_inner_loop_of_conv2d_is_multiply_adds_in_registers(machine):
    text, decisions = assembly(machine, CONV2D)
    loop = inner_loop(text)

    assert loop.count("vfmacc.vf") == loop.count("flw") == decisions["pixels"] == 7
    assert loop.count("vle32.v") == 1  # four registers of weights
    assert not SPILL.search(loop)
    assert "vset" not in loop


@pytest.mark.parametrize("machine", PACK.machines, ids=lambda machine: machine.name)
def test_depthwise_multiply_adds_are_vectors_and_nothing_spills(machine):
    text, _ = assembly(machine, DEPTHWISE)

    assert text.count("vfmacc.vv") + text.count("vfmadd.vv") > 100
    assert not re.search(r"\sfn?m(add|sub)\.s\s", text)
    assert not SPILL.search(text)


def test_half_precision_accumulates_in_single_by_widening():
    spec = ConvSpec.conv2d((1, 14, 14, 64), (3, 3, 64, 64), dtype="float16")
    text, _ = assembly(machines.SPACEMIT_X60, spec)

    assert "vfwmacc.vf" in text


@pytest.mark.parametrize(
    ("uarch", "found"),
    [
        (["spacemit,x60"] * 8, machines.SPACEMIT_X60),
        (["thead,c908"], machines.XUANTIE_C908),
        (["spacemit,x60", "thead,c908"], None),
        (["sifive,u74-mc"] * 4, None),
        ([], None),
    ],
)
def test_detection_goes_by_the_name_that_linux_shows(uarch, found, tmp_path, monkeypatch):
    cores = (f"processor\t: {n}\nuarch\t\t: {name}\n" for n, name in enumerate(uarch))
    (tmp_path / "cpuinfo").write_text("\n".join(cores))
    monkeypatch.setattr(host, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(host.platform, "machine", lambda: "riscv64")

    assert PACK.detect() is found


def test_other_architectures_are_left_to_other_packs(monkeypatch):
    monkeypatch.setattr(host.platform, "machine", lambda: "x86_64")

    assert PACK.detect() is None
