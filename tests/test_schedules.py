"""The contract of schedules: every one of every pack, on every edge case that it accepts.

Registering a schedule or a machine, or adding an edge case, is enough to have it tested here.
"""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from strategies import legal_specs

import tvmconv
from tvmconv import hardware, host, lowering, oracle
from tvmconv.choice import default_choice
from tvmconv.hardware import HardwarePack, Machine, Schedule
from tvmconv.runtime import arrays
from tvmconv.spec import ConvSpec
from tvmconv.tuning.measure import Candidate
from tvmconv.tuning.workbench import Workbench
from tvmconv.workloads import names, resolve

PACKS, BROKEN = hardware.working_packs()
HERE = hardware.detect()
EDGE_CASES = [layer.spec for layer in resolve("edge_cases").entries]
NETWORKS = [name for name in names() if name != "edge_cases"]

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


def machine_kinds(pack: HardwarePack) -> list[Machine]:
    """The machine of this host, and for every other register file the one with the least features."""
    kinds: dict[tuple[object, ...], Machine] = {}
    for machine in [*([HERE] if HERE in pack.machines else []), *pack.machines]:
        kind = (machine.architecture, machine.vector_bytes, machine.vector_registers)
        known = kinds.setdefault(kind, machine)
        if known is not HERE and len(machine.features) <= len(known.features):
            kinds[kind] = machine
    return list(kinds.values())


def missing_features(machine: Machine) -> list[str]:
    if machine.architecture != host.architecture():
        return [machine.architecture]
    return sorted(set(machine.features) - host.cpu_features())


def accepted_cases(machines, specs, slow=lambda machine: False):
    """(machine, schedule, spec) for all that a schedule of the machine's pack accepts."""
    return [
        pytest.param(
            machine,
            schedule,
            spec,
            id=f"{machine.name}-{schedule.name}-{spec.key}",
            marks=[pytest.mark.slow] if slow(machine) else [],
        )
        for pack in PACKS
        for machine in machines(pack)
        for schedule in pack.schedules
        for spec in specs
        if schedule.accepts(spec, machine)
    ]


def only_here(pack: HardwarePack) -> list[Machine]:
    return [machine for machine in pack.machines if machine is HERE]


def random_decisions(schedule: Schedule, spec: ConvSpec, machine: Machine, count: int):
    """Legal decisions other than the default, the same ones in every run."""
    default = schedule.default(spec, machine)
    others = [point for point in hardware.space(schedule, spec, machine) if point != default]
    return random.Random(spec.key).sample(others, min(count, len(others)))


def assert_right_values(machine, schedule, spec, decisions, benches={}):  # noqa: B006
    """Compile, run and compare with the oracle; the arguments of a spec are drawn once."""
    bench = benches.setdefault(machine.name, Workbench(machine.name))
    ((seconds,),) = bench.measure(spec.key, [Candidate(schedule.name, decisions)], 1)

    assert 0 < seconds < 10


def compile_only(machine, schedule, spec, decisions):
    function = schedule.apply(spec, machine, decisions)
    functions = {"main": function.main, **({"pack": function.pack} if function.pack else {})}

    assert lowering.compile_functions(functions, machine.target).mod.inspect_source("asm")


def test_all_installed_packs_load():
    assert BROKEN == {}
    assert PACKS


def test_schedule_names_are_unique_over_all_packs():
    all_names = [schedule.name for pack in PACKS for schedule in pack.schedules]

    assert sorted(set(all_names)) == sorted(all_names)


@pytest.mark.parametrize("workload", names())
def test_every_spec_with_an_output_has_a_schedule_on_every_machine(workload):
    for pack in PACKS:
        for machine in pack.machines:
            for layer in resolve(workload).entries:
                if not layer.spec.is_empty:
                    assert hardware.schedules_for(layer.spec, machine, pack)


def test_no_schedule_accepts_a_spec_without_output():
    empty = [spec for spec in EDGE_CASES if spec.is_empty]

    assert empty
    assert accepted_cases(lambda pack: pack.machines, empty) == []


@pytest.mark.parametrize("workload", names())
@pytest.mark.parametrize(
    "machine", [m for pack in PACKS for m in pack.machines], ids=lambda m: m.name
)
def test_default_decisions_are_complete_legal_and_part_of_the_space(machine, workload):
    _, pack = hardware.find_machine(machine.name)
    for layer in resolve(workload).entries:
        for schedule in pack.schedules:
            if not schedule.accepts(layer.spec, machine):
                continue
            decisions = schedule.default(layer.spec, machine)
            hardware.check_decisions(schedule, layer.spec, machine, decisions)
            for knob in schedule.knobs(layer.spec, machine):
                assert decisions[knob.name] in knob.candidates, (layer.spec.key, knob)


@pytest.mark.parametrize(
    "machine", [m for pack in PACKS for m in pack.machines], ids=lambda m: m.name
)
def test_knobs_list_every_candidate_once(machine):
    _, pack = hardware.find_machine(machine.name)
    for spec in EDGE_CASES:
        for schedule in pack.schedules:
            if schedule.accepts(spec, machine):
                for knob in schedule.knobs(spec, machine):
                    assert len(set(knob.candidates)) == len(knob.candidates) > 0, (spec.key, knob)


@pytest.mark.parametrize(
    ("machine", "schedule", "spec"),
    accepted_cases(machine_kinds, EDGE_CASES, slow=lambda machine: machine is not HERE),
)
def test_default_decisions_give_the_oracles_values(machine, schedule, spec):
    decisions = schedule.default(spec, machine)
    missing = missing_features(machine)
    if missing:
        compile_only(machine, schedule, spec, decisions)
        pytest.skip(f"compiled only: this host lacks {', '.join(missing)}")
    assert_right_values(machine, schedule, spec, decisions)


@pytest.mark.slow
@pytest.mark.parametrize(("machine", "schedule", "spec"), accepted_cases(only_here, EDGE_CASES))
def test_random_decisions_give_the_oracles_values(machine, schedule, spec):
    for decisions in random_decisions(schedule, spec, machine, 2):
        assert_right_values(machine, schedule, spec, decisions)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("machine", "schedule", "spec"), accepted_cases(only_here, REAL_LAYERS.values())
)
def test_layers_of_networks_give_the_oracles_values(machine, schedule, spec):
    for decisions in (
        schedule.default(spec, machine),
        *random_decisions(schedule, spec, machine, 3),
    ):
        assert_right_values(machine, schedule, spec, decisions)


def test_real_layers_are_all_found():
    assert len(REAL_LAYERS) == 11


@settings(max_examples=25, deadline=None)
@given(spec=legal_specs(empty=False))
def test_default_decisions_give_the_oracles_values_for_any_legal_spec(spec):
    _, pack = hardware.find_machine(HERE.name)
    chosen = default_choice(spec, HERE, pack)
    assert_right_values(HERE, chosen.schedule, spec, chosen.decisions)


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
            bool(missing_features(machine)), reason=f"lacks {', '.join(missing_features(machine))}"
        ),
    )
    for pack in PACKS
    for machine in machine_kinds(pack)
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
@pytest.mark.parametrize(
    "machine", [m for pack in PACKS for m in pack.machines], ids=lambda m: m.name
)
def test_both_operators_build_for_every_machine(machine, tmp_path):
    specs = [
        ConvSpec.conv2d((1, 5, 9, 8), (3, 3, 8, 24)),
        ConvSpec.depthwise_conv2d((1, 6, 9, 16), (3, 3, 16, 1)),
    ]
    path = tvmconv.build(specs, machine=machine.name, output=tmp_path / "kernels", logs=[])
    if missing_features(machine):
        pytest.skip(f"built only: this host lacks {', '.join(missing_features(machine))}")
    library = tvmconv.load(path, threads=1)
    for spec in specs:
        arguments = oracle.random_arguments(spec, seed=3)
        oracle.check(spec, arguments, library[spec](arguments["data"], arguments["filter"]))
