"""The contract of schedules: every one of every pack, on every edge case that it accepts.

Registering a schedule or a machine, or adding an edge case, is enough to have it tested here. The checks
are `tvmconv.contract`'s, which third parties call for their own packs.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from strategies import legal_specs

import tvmconv
from tvmconv import hardware
from tvmconv.checking import contract, oracle
from tvmconv.checking.contract import Case
from tvmconv.problem.spec import ConvSpec
from tvmconv.problem.workloads import names, resolve
from tvmconv.records.choice import default_choice
from tvmconv.runtime import arrays

PACKS, BROKEN = hardware.working_packs()
HERE = hardware.detect()
MACHINES = [machine for pack in PACKS for machine in pack.machines]

# One of each kind of layer: what a tile meets in a network and not in an edge case.
REAL_LAYERS = {
    f"{workload}.{name}": layer.spec
    for workload, name in (
        ("mobilenet_v2", "stem"),
        ("mobilenet_v2", "block2.expand"),  # 96 channels of 112x112 pixels
        ("mobilenet_v2", "block3.project"),  # to 24 channels, with a residual
        ("mobilenet_v2", "block2.depthwise"),  # stride 2
        ("mobilenet_v2", "block15.depthwise"),  # 960 channels of 7x7 pixels
        ("efficientnet_b0", "block5.depthwise"),  # 5x5
        ("efficientnet_b0", "block6.depthwise"),  # 3x3, stride 2
        ("resnet50", "stem"),  # 7x7, stride 2
        ("resnet50", "stage1.block1.conv3x3"),
        ("resnet50", "stage3.block1.downsample"),  # 1x1, stride 2
        ("resnet50", "stage4.block2.conv3x3"),  # 512 channels of 7x7 pixels
    )
    for layer in resolve(workload).entries
    if layer.name == name
}


def kinds(pack: hardware.HardwarePack) -> list[hardware.Machine]:
    """This host, and for every other register file the machine with the least features."""
    return contract.kinds(pack, preferred=HERE)


def accepted_cases(machines, specs=None, slow=lambda machine: False):
    """The cases of every pack, as parameters."""
    return [
        pytest.param(case, id=str(case), marks=[pytest.mark.slow] if slow(case.machine) else [])
        for pack in PACKS
        for case in contract.cases(pack, machines(pack), specs)
        if case.machine.gpu is None  # test_cuda_kernels.py compiles many kernels at a time
    ]


def only_here(pack):
    return [machine for machine in pack.machines if machine is HERE]


def test_all_installed_packs_load():
    assert BROKEN == {}
    assert PACKS


def test_schedule_names_are_unique_over_all_packs():
    all_names = [schedule.name for pack in PACKS for schedule in pack.schedules]

    assert sorted(set(all_names)) == sorted(all_names)


@pytest.mark.parametrize("pack", PACKS, ids=lambda pack: pack.name)
def test_packs_name_their_own_and_have_a_schedule_for_every_spec_on_every_machine(pack):
    contract.check_pack(pack)


@pytest.mark.parametrize("workload", names())
@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
def test_default_decisions_are_complete_legal_and_part_of_the_space(machine, workload):
    _, pack = hardware.find_machine(machine.name)
    specs = [layer.spec for layer in resolve(workload).entries]
    for case in contract.cases(pack, [machine], specs):
        contract.check_decisions(case)


@pytest.mark.parametrize("case", accepted_cases(kinds, slow=lambda machine: machine is not HERE))
def test_default_decisions_give_the_oracles_values(case):
    lacking = contract.lacking(case.machine)
    if lacking:
        contract.check_compiles(case)
        pytest.skip(f"compiled only: this host lacks {', '.join(lacking)}")
    contract.check_values(case)


@pytest.mark.slow
@pytest.mark.parametrize("case", accepted_cases(only_here))
def test_random_decisions_give_the_oracles_values(case):
    for decisions in contract.random_decisions(case, 2):
        contract.check_values(case, decisions)


@pytest.mark.slow
@pytest.mark.parametrize("case", accepted_cases(only_here, REAL_LAYERS.values()))
def test_layers_of_networks_give_the_oracles_values(case):
    for decisions in (case.default(), *contract.random_decisions(case, 3)):
        contract.check_values(case, decisions)


def test_real_layers_are_all_found():
    assert len(REAL_LAYERS) == 11


@settings(max_examples=25, deadline=None)
@given(spec=legal_specs(empty=False))
def test_default_decisions_give_the_oracles_values_for_any_legal_spec(spec):
    _, pack = hardware.find_machine(HERE.name)
    chosen = default_choice(spec, HERE, pack)
    contract.check_values(Case(HERE, chosen.schedule, spec), chosen.decisions)


# Every kernel here has a parallel loop over tiles, the last of which is ragged.
RAGGED = (
    ConvSpec.conv2d((1, 13, 19, 16), (3, 3, 16, 48), bias=True, activation="relu"),
    ConvSpec.conv2d((2, 9, 11, 24), (1, 1, 24, 40), residual=True),
    ConvSpec.conv2d((1, 4, 9, 11), (3, 3, 4, 20), strides=2, data_format="NCHW"),
    ConvSpec.depthwise_conv2d((1, 13, 19, 40), (3, 3, 40, 1), activation="relu6"),
    ConvSpec.depthwise_conv2d((1, 11, 9, 33), (3, 3, 33, 1), strides=2, residual=True),
)
RUNNABLE = [
    pytest.param(
        machine,
        id=machine.name,
        marks=pytest.mark.skipif(
            bool(contract.lacking(machine)), reason=f"lacks {', '.join(contract.lacking(machine))}"
        ),
    )
    for pack in PACKS
    for machine in kinds(pack)
]


@pytest.fixture(scope="module", params=RUNNABLE)
def ragged_bundle(request, tmp_path_factory):
    output = tmp_path_factory.mktemp("ragged") / f"{request.param.name}.tvmconv"
    return tvmconv.build(RAGGED, machine=request.param.name, output=output, logs=[])


def misaligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array that begins one element behind a 64-byte boundary."""
    size = int(np.prod(shape))
    return arrays.empty_aligned((size + 1,), dtype)[1:].reshape(shape)


@pytest.mark.parametrize("spec", RAGGED, ids=lambda spec: spec.key)
def test_arrays_need_no_more_than_element_alignment(ragged_bundle, spec):
    arguments = oracle.random_arguments(spec, seed=1)
    expected = oracle.conv(spec, **arguments)
    shifted = {name: misaligned(array.shape, array.dtype) for name, array in arguments.items()}
    for name, array in arguments.items():
        shifted[name][...] = array
    out = misaligned(spec.output_shape, arguments["data"].dtype)
    kernel = tvmconv.load(ragged_bundle, threads=1)[spec]

    result = kernel(
        shifted["data"],
        shifted["filter"],
        bias=shifted.get("bias"),
        residual=shifted.get("residual"),
        out=out,
    )

    assert arrays.data_address(out) % arrays.ALIGNMENT == out.itemsize
    assert result is out
    oracle.assert_close(spec, expected, out)


@pytest.mark.parametrize("spec", RAGGED, ids=lambda spec: spec.key)
def test_two_threads_give_exactly_what_one_gives(ragged_bundle, spec):
    arguments = oracle.random_arguments(spec, seed=2)
    window = arguments.pop("filter")
    data = arguments.pop("data")

    one, two = (
        tvmconv.load(ragged_bundle, threads=threads)[spec](data, window, **arguments)
        for threads in (1, 2)
    )

    np.testing.assert_array_equal(one, two)
    oracle.assert_close(spec, oracle.conv(spec, data, window, **arguments), two)


@pytest.mark.slow
@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
def test_both_operators_build_for_every_machine(machine, tmp_path):
    specs = [
        ConvSpec.conv2d((1, 5, 9, 8), (3, 3, 8, 24)),
        ConvSpec.depthwise_conv2d((1, 6, 9, 16), (3, 3, 16, 1)),
    ]
    path = tvmconv.build(specs, machine=machine.name, output=tmp_path / "kernels", logs=[])
    lacking = contract.lacking(machine)
    if lacking:
        pytest.skip(f"built only: this host lacks {', '.join(lacking)}")
    library = tvmconv.load(path, threads=1)
    for spec in specs:
        arguments = oracle.random_arguments(spec, seed=3)
        oracle.check(spec, arguments, library[spec](arguments["data"], arguments["filter"]))
