"""The calling convention: what a kernel's operands are, by its spec and what was compiled."""

from math import prod

import pytest
from hypothesis import given
from strategies import legal_specs

from tvmconv.bundle.manifest import KernelEntry, PackEntry
from tvmconv.problem import calling
from tvmconv.problem.calling import Role
from tvmconv.problem.rules import ALIGNMENT
from tvmconv.problem.spec import ConvSpec

SPEC = ConvSpec.conv2d((2, 3, 6, 5, 4), (3, 3, 4, 12), bias=True, residual=True)


@given(legal_specs())
def test_a_plain_kernel_takes_what_users_give_in_this_order(spec):
    signature = calling.signature(spec)

    present = [name for name in ("bias", "residual", "slopes") if getattr(spec, name)]
    names = ["data", "filter", *present, "out"]
    assert [each.name for each in signature.taken] == names
    assert sum(each.bytes for each in signature.taken) == spec.bytes
    for each in signature.taken:
        assert prod(each.taken_shape) == prod(each.shape)
        assert (each.taken_dtype, each.packed) == (each.dtype, False)
    for name in ("data", "residual", "out"):
        assert signature[name].taken_shape == (spec.batch, *signature[name].shape[-3:])


def test_packed_filters_and_workspaces():
    pack = PackEntry("symbol__pack", (3, 3, 3, 4, 4), "float32")
    entry = KernelEntry("symbol", "any", {}, pack=pack, workspace=96)
    signature = calling.signature(SPEC, entry)

    assert [(each.name, each.taken_shape) for each in signature.taken] == [
        ("data", (6, 6, 5, 4)),
        ("filter", (3, 3, 3, 4, 4)),
        ("bias", (12,)),
        ("residual", (6, 6, 5, 12)),
        ("workspace", (24,)),
        ("out", (6, 6, 5, 12)),
    ]
    assert signature["filter"].shape == SPEC.filter_shape
    assert [each.name for each in signature.operands if each.packed] == ["filter"]


def test_who_gives_what_and_how_it_is_aligned():
    signature = calling.signature(SPEC)

    assert [each.keyword for each in signature.of(Role.INPUT)] == ["x", "residual"]
    constants = [each.keyword for each in signature.of(Role.CONSTANT) if each.present]
    assert constants == ["w", "bias"]
    assert [each.keyword for each in signature.of(Role.OUTPUT)] == ["out"]
    alignments = {each.name: each.alignment for each in signature.operands}
    assert alignments.pop("filter") == ALIGNMENT == 64
    assert set(alignments.values()) == {4}


def test_values_are_ordered_by_name_and_one_missing_is_found():
    values = {
        name: name.upper() for name in ("out", "residual", "bias", "filter", "data", "workspace")
    }
    signature = calling.signature(SPEC)

    assert signature.ordered(values) == ["DATA", "FILTER", "BIAS", "RESIDUAL", "OUT"]
    del values["bias"]
    with pytest.raises(KeyError, match="bias"):
        signature.ordered(values)
