"""Kernels in an emulated core: their values, what is counted, and what is found wrong."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from tvmconv import hardware
from tvmconv.checking import contract, oracle
from tvmconv.compute import conv2d
from tvmconv.errors import BuildError, MissingToolError
from tvmconv.lowering.interface import prim_func
from tvmconv.measuring.simulate import cycles, elf, emulator, kernel
from tvmconv.problem.spec import ConvSpec
from tvmconv.records.choice import default_choice
from tvmconv.schedules.shared import bias_start

pytest.importorskip("unicorn", reason="pip install 'tvmconv[simulate]'")
A72, ARM = hardware.find_machine("cortex-a72")
SMALL = ConvSpec.conv2d((1, 5, 9, 8), (3, 3, 8, 16), bias=True, activation="relu")


def built(spec, machine=A72):
    """A kernel's object file, with the shape of its packed filter."""
    choice = default_choice(spec, machine, ARM)
    function = choice.schedule.apply(spec, machine, choice.decisions)
    return kernel.object_file(function, machine), function.packed_shape


def simulated(spec, machine=A72, winograd=True):
    choice = default_choice(spec, machine, ARM, winograd)
    function = choice.schedule.apply(spec, machine, choice.decisions)
    arguments = oracle.random_arguments(spec, seed=0)
    counts, out = kernel.simulate(function, machine, spec, arguments)
    oracle.assert_close(spec, oracle.conv(spec, **arguments), out)
    return counts


# One of each kind, as networks for boards have them, without an epilogue.
LAYERS = {
    "1x1": (ConvSpec.conv2d((1, 28, 28, 128), (1, 1, 128, 64)), 0.78),
    "3x3": (ConvSpec.conv2d((1, 28, 28, 32), (3, 3, 32, 32)), 0.78),
    "depthwise": (ConvSpec.depthwise_conv2d((1, 28, 28, 192), (3, 3, 192, 1)), 0.45),
    "stride 2": (ConvSpec.depthwise_conv2d((1, 28, 28, 192), (3, 3, 192, 1), strides=2), 0.38),
    "5x5": (ConvSpec.depthwise_conv2d((1, 14, 14, 96), (5, 5, 96, 1)), 0.45),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_work_per_instruction_of_untuned_kernels(layer):
    """Multiply-adds / 4 over all instructions; XNNPACK's: 69, 60, 18, 18 and 21 %."""
    spec, least = LAYERS[layer]
    counts = simulated(spec, winograd=False)

    assert spec.macs / 4 / counts.instructions >= least


def test_winograd_takes_fewer_instructions_than_a_direct_convolution_has_multiply_adds():
    spec, _ = LAYERS["3x3"]

    assert simulated(spec).instructions < spec.macs / 4


@pytest.mark.parametrize("name", ["1x1", "3x3"])
def test_dense_tiles_multiply_by_lanes_and_do_not_spill(name):
    spec, _ = LAYERS[name]
    counts = simulated(spec, winograd=False)
    hottest = max(counts.blocks, key=lambda block: counts.blocks[block] * block[1])
    words = counts.words(hottest)

    by_lane = [word for word in words if word & 0xBF80B400 == 0x0F801000]
    through_stack = [word for word in words if word & 0x3B0003E0 == 0x390003E0]
    assert len(by_lane) > 0.75 * len(words)
    assert through_stack == []


def test_a_multiply_add_is_counted_for_every_four_of_a_plain_convolution():
    spec, _ = LAYERS["1x1"]
    counts = simulated(spec)

    assert counts.count(emulator.is_multiply_add) == spec.macs / 4
    assert counts.charged == 0  # it calls nothing


# Encodings from llvm-mc.
@pytest.mark.parametrize(
    ("word", "is_one"),
    [
        (0x4E22CC20, True),  # fmla v0.4s, v1.4s, v2.4s
        (0x4F981122, True),  # fmla v2.4s, v9.4s, v24.s[0]
        (0x4FB81922, True),  # fmla v2.4s, v9.4s, v24.s[3]
        (0x4FC21820, True),  # fmla v0.2d, v1.2d, v2.d[1]
        (0x4E420C20, True),  # fmla v0.8h, v1.8h, v2.8h
        (0x4F121820, True),  # fmla v0.8h, v1.8h, v2.h[5]
        (0x6E22DC20, False),  # fmul v0.4s, v1.4s, v2.4s
        (0x4FA29020, False),  # fmul v0.4s, v1.4s, v2.s[1]
        (0x4EA29420, False),  # mla v0.4s, v1.4s, v2.4s
        (0x4E22D420, False),  # fadd v0.4s, v1.4s, v2.4s
        (0x3DC00000, False),  # ldr q0, [x0]
        (0x4E22C420, False),  # fmaxnm v0.4s, v1.4s, v2.4s
    ],
)
def test_multiply_adds_are_told_by_their_encoding(word, is_one):
    assert emulator.is_multiply_add(word) is is_one


def test_calls_to_the_c_library_are_made_and_charged():
    of_doubles = {"dtype": "float64", "activation": "sigmoid"}
    spec = ConvSpec.conv2d((1, 4, 4, 8), (1, 1, 8, 8), **of_doubles)
    counts = simulated(spec)

    assert counts.charged >= 25 * np.prod(spec.output_shape)  # exp for each


def test_counts_are_the_same_each_time():
    first, second = simulated(SMALL), simulated(SMALL)

    assert first.blocks == second.blocks
    assert first.instructions > 0


def test_a_read_beyond_an_array_is_an_error():
    """The kernel believes that its filter is as long as the shape says; here memory ends before."""
    content, shape = built(SMALL)
    core = emulator.Emulator(content)
    data = np.zeros(SMALL.input_shape, np.float32)
    weights, bias = np.zeros(shape, np.float32), np.zeros(SMALL.bias_shape, np.float32)
    out = np.zeros(SMALL.output_shape, np.float32)
    place = core._place

    def short(array):
        return place(array[..., :0] if array is weights else array)

    core._place = short
    with pytest.raises(BuildError, match=r"bytes in: Invalid memory read"):
        core.call("main", [data, weights, bias, out])


def test_a_kernel_that_refuses_its_arguments_says_why():
    content, shape = built(SMALL)
    core = emulator.Emulator(content)
    arrays = [np.zeros(s, np.float32) for s in ((1, 5, 9, 7), shape, (16,), SMALL.output_shape)]

    with pytest.raises(BuildError, match=r"refused its arguments: .*data.shape\[3\]"):
        core.call("main", arrays)


def test_an_object_of_another_architecture_is_refused():
    x86, pack = hardware.find_machine("x86-64-v2")
    choice = default_choice(SMALL, x86, pack)
    function = choice.schedule.apply(SMALL, x86, choice.decisions)

    with pytest.raises(BuildError, match="only aarch64 machines can be simulated"):
        kernel.simulate(function, x86, SMALL, oracle.random_arguments(SMALL, seed=0))
    with pytest.raises(BuildError, match="only a relocatable object file for AArch64"):
        elf.link(kernel.object_file(function, x86), 0x1000, {})


def test_an_import_that_nobody_provides_is_named():
    content, _ = built(SMALL)

    with pytest.raises(BuildError, match=r"the kernel calls .*TVMFFIErrorSetRaisedFromCStrParts"):
        elf.link(content, 0x1000, {"memcpy": 0x2000})


def test_a_file_that_is_no_object_is_refused():
    with pytest.raises(BuildError, match="only a relocatable object file"):
        elf.link(b"text", 0x1000, {})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cortex-a72", "cortex-a76"])
@pytest.mark.parametrize("schedule", ARM.schedules, ids=lambda schedule: schedule.name)
def test_edge_cases_give_the_oracles_values_in_the_machines_own_instructions(name, schedule):
    """The contract's problems, which the host can only rehearse."""
    machine, pack = hardware.find_machine(name)
    for case in contract.cases(pack, [machine]):
        if case.schedule == schedule:
            arguments = oracle.random_arguments(case.spec, seed=0)
            function = schedule.apply(case.spec, machine, case.default())
            _, out = kernel.simulate(function, machine, case.spec, arguments)
            oracle.assert_close(case.spec, oracle.conv(case.spec, **arguments), out)


def has_llvm_mca() -> bool:
    try:
        cycles.tools()
    except MissingToolError:
        return False
    return True


needs_llvm_mca = pytest.mark.skipif(
    not has_llvm_mca(), reason="no llvm-mca 18 or newer: apt install llvm-19"
)


@needs_llvm_mca
@pytest.mark.parametrize("name", ["1x1", "3x3"])
def test_dense_layers_are_predicted_within_a_fifth_of_the_bound(name):
    spec, _ = LAYERS[name]
    bound = spec.macs / 4 / A72.cpu.fma_ports

    assert bound <= cycles.predict(simulated(spec, winograd=False), A72) <= 1.2 * bound


@needs_llvm_mca
def test_loads_of_an_a53_take_the_place_of_multiply_adds():
    spec, _ = LAYERS["1x1"]
    a53, _ = hardware.find_machine("cortex-a53")
    counts = simulated(spec, a53)
    loads = sum(
        times * sum(map(cycles.wide_loads, counts.words(block)))
        for block, times in counts.blocks.items()
    )

    assert spec.macs / 4 + loads <= cycles.predict(counts, a53) <= 1.35 * spec.macs / 4


# Encodings from llvm-mc.
@pytest.mark.parametrize(
    ("word", "loaded"),
    [
        (0x3DC00001, 1),  # ldr q1, [x0]
        (0x3CE16801, 1),  # ldr q1, [x0, x1]
        (0x3CC10401, 1),  # ldr q1, [x0], #16
        (0x3CDFD001, 1),  # ldur q1, [x0, #-3]
        (0xAD400801, 2),  # ldp q1, q2, [x0]
        (0xACC10801, 2),  # ldp q1, q2, [x0], #32
        (0xADFE0801, 2),  # ldp q1, q2, [x0, #-64]!
        (0xFD400001, 0),  # ldr d1, [x0]
        (0x3D800001, 0),  # str q1, [x0]
        (0xAD000801, 0),  # stp q1, q2, [x0]
        (0x6D400801, 0),  # ldp d1, d2, [x0]
        (0xA9400801, 0),  # ldp x1, x2, [x0]
    ],
)
def test_wide_loads_are_told_by_their_encoding(word, loaded):
    assert cycles.wide_loads(word) == loaded


@needs_llvm_mca
def test_a_core_with_two_ports_is_predicted_to_take_about_half_the_time():
    spec, _ = LAYERS["1x1"]
    a76, _ = hardware.find_machine("cortex-a76")
    one = cycles.predict(simulated(spec), A72)
    two = cycles.predict(simulated(spec, a76), a76)

    assert 1.7 < one / two < 2.1


def test_without_llvm_mca_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setenv("PATH", "")

    with pytest.raises(MissingToolError, match=r"llvm-mca 18 or newer .* apt install llvm-19"):
        cycles.tools()


def test_blocks_that_the_emulator_cut_are_one_again():
    blocks = Counter({(0x1000, 16): 7, (0x1010, 8): 7, (0x1018, 8): 3, (0x2000, 4): 3})

    assert cycles.joined(blocks) == {(0x1000, 24): 7, (0x1018, 8): 3, (0x2000, 4): 3}


@pytest.mark.parametrize("activation", [None, "relu6", "silu"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_sums_start_at_the_bias_and_the_epilogue_adds_it_no_more(activation, dtype):
    spec = ConvSpec.conv2d(
        (1, 4, 4, 8), (1, 1, 8, 8), bias=True, activation=activation, dtype=dtype
    )
    text = bias_start.at_bias(prim_func(conv2d.direct(spec, 8)), lambda n, h, w, o: o).script()
    init, _, rest = text.partition("T.init()")[2].partition("\n            conv[")

    assert "bias[v_o]" in init
    assert "bias[" not in rest
    simulated(spec)


def test_a_function_without_a_bias_is_left_as_it_is():
    spec = ConvSpec.conv2d((1, 4, 4, 8), (1, 1, 8, 8), residual=True)
    func = prim_func(conv2d.direct(spec, 8))

    assert bias_start.at_bias(func, lambda n, h, w, o: o).script() == func.script()
