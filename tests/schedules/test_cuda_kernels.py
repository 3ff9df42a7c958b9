"""Every CUDA schedule on every edge case: compiled for real, and run on an emulated GPU.

No GPU is needed. nvcc compiles for Turing, Ampere and Hopper, and its machine code is looked at; the same
CUDA C++ runs on the CPU (emulated_gpu.py), so that values, barriers, asynchronous copies and the fragments of
tensor cores are checked, all but the PTX inside the functions of tvmconv/lowering/cuda/prelude.py. Default
decisions run on the emulated driver: test_emulated_kernels.py.
"""

from __future__ import annotations

import re

import numpy as np
import pytest
from emulated_gpu import EmulatedGpu, available, flat, launches, rounded_operands

from tvmconv import hardware
from tvmconv.building.compile import compile_functions
from tvmconv.building.cuda import compiler as cuda_compiler
from tvmconv.building.cuda import tools as cuda_tools
from tvmconv.checking import contract, oracle
from tvmconv.errors import MissingToolError
from tvmconv.problem.rules import ACTIVATIONS
from tvmconv.problem.spec import ConvSpec
from tvmconv.schedules.cuda import PACK

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(cuda_tools.nvcc() is None, reason="no nvcc: pip install 'tvmconv[cuda]'"),
]
SCHEDULES = [schedule.name for schedule in PACK.schedules]
ARCHS = ("sm_75", "sm_80", "sm_90")
# Kernels of one C++ file: few files for the headers' sake, and two processes that share the work.
_BATCH = 24


def cases_of(arch, schedule):
    machine, _ = hardware.find_machine(arch)
    return [case for case in contract.cases(PACK, [machine]) if case.schedule.name == schedule]


def functions_of(cases, random=False):
    """(name, case, decisions, function) of default decisions, or of random ones."""
    found = []
    for number, case in enumerate(cases):
        points = contract.random_decisions(case, 1) if random else [case.default()]
        for turn, decisions in enumerate(points):
            function = case.schedule.apply(case.spec, case.machine, decisions)
            found.append((f"k{number}_{turn}", case, decisions, function))
    return found


def batches():
    return [
        pytest.param(arch, schedule, first, id=f"{arch}-{schedule}-{first}")
        for arch, names in (("sm_90", SCHEDULES), ("sm_75", SCHEDULES[:2]))
        for schedule in names
        if not schedule.endswith("direct")  # no decisions
        for first in range(0, len(cases_of(arch, schedule)), _BATCH)
    ]


@pytest.mark.skipif(not available(), reason="the emulated GPU needs g++ and CUDA's headers")
def test_nan_stays_nan_in_every_activation(tmp_path):
    machine, pack = hardware.find_machine("sm_90")
    made = {}
    for activation in ACTIVATIONS:
        for make, last in ((ConvSpec.conv2d, 8), (ConvSpec.depthwise_conv2d, 1)):
            spec = make((1, 2, 2, 8), (1, 1, 8, last), activation=activation)
            schedule = hardware.schedules_for(spec, machine, pack)[0]
            function = schedule.apply(spec, machine, schedule.default(spec, machine))
            made[f"{spec.op}_{activation}"] = spec, function
    gpu = EmulatedGpu({name: function for name, (_, function) in made.items()}, machine, tmp_path)

    for name, (spec, _) in made.items():
        data = np.full(spec.input_shape, np.nan, "float32")
        out = gpu.run(name, spec, {"data": data, "filter": np.ones(spec.filter_shape, "float32")})
        assert np.isnan(out).all(), name


@pytest.mark.skipif(not available(), reason="the emulated GPU needs g++ and CUDA's headers")
@pytest.mark.parametrize(("arch", "schedule", "first"), batches())
def test_random_decisions_compute_the_oracles_values(arch, schedule, first, tmp_path):
    cases = cases_of(arch, schedule)[first : first + _BATCH]
    made = functions_of(cases, random=True)
    gpu = EmulatedGpu({name: function for name, *_, function in made}, made[0][1].machine, tmp_path)

    for name, case, decisions, _ in made:
        arguments = oracle.random_arguments(case.spec, seed=0)
        expected = oracle.conv(case.spec, **arguments)
        # Threads in another order: what depends on it lacks a barrier.
        one, other = (gpu.run(name, case.spec, arguments, seed) for seed in (0, 1))
        assert one.tobytes() == other.tobytes(), f"{case}: {decisions}"
        oracle.assert_close(case.spec, expected, one)
        if case.spec.tf32:
            # On tensor cores float32's sum of what TF32 makes of the operands, elsewhere of these.
            tensor = schedule.endswith(".tensor")
            operands = rounded_operands(arguments) if tensor else arguments
            expected = oracle.conv(case.spec, **operands)
            oracle.assert_close(case.spec, expected, one, oracle.tolerance_of(case.spec.strict))


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_edge_case_compiles_within_the_cards_limits(arch, schedule):
    made = functions_of(cases_of(arch, schedule))
    machine = made[0][1].machine
    functions = flat({name: function for name, *_, function in made})
    with cuda_compiler.compiling(arch) as session:
        compile_functions(functions, machine.target)

    reports = {report.kernel: report for report in session.reports if report.arch == arch}
    for launch in launches(functions, machine):
        report, threads = reports[launch.kernel], launch.threads[0] * launch.threads[1]
        assert launch.shared_bytes + report.shared_bytes <= machine.gpu.shared_bytes
        assert report.registers * threads <= machine.gpu.registers_per_multiprocessor
        assert threads <= 1024
    code = _machine_code(session)
    for report in reports.values():
        if report.spill_stores and not schedule.endswith(".direct"):
            # ptxas 13 parks a few words in front of a loop to stay at 32, 48 or 64 registers.
            assert not _spills_in_a_loop(code[report.kernel]), report
    if ".tensor" in schedule:
        _check_instructions(arch, code, made)


def _machine_code(session):
    """Kernel -> its SASS."""
    try:
        text = "".join(cuda_compiler.sass(module.image) for module in session.modules)
    except MissingToolError as error:
        pytest.skip(str(error))
    return dict(re.findall(r"Function : (\w+)\n(.*?)(?=Function : |\Z)", text, re.S))


def _spills_in_a_loop(code):
    """Whether local memory is touched between a backward branch and where it goes."""
    lines = re.findall(r"/\*([0-9a-f]{4,})\*/ +(?:@!?\w+ )?([\w.]+)([^;]*);", code)
    spills = [int(at, 16) for at, name, _ in lines if name.startswith(("LDL", "STL"))]
    branches = [
        (int(at, 16), re.search(r"0x([0-9a-f]+)", rest))
        for at, name, rest in lines
        if name == "BRA"
    ]
    loops = [(int(to[1], 16), at) for at, to in branches if to and int(to[1], 16) < at]
    return any(begin <= at <= end for begin, end in loops for at in spills)


def _check_instructions(arch, code, made):
    """Products are tensor cores', copies are asynchronous where the card can and 4 bytes are together."""
    for name, case, *_ in made:
        body = code[f"{name}_kernel"]
        product = {"tf32": r"HMMA\.1688\.F32\.TF32", "int8": "IMMA", "uint8": "IMMA"}
        assert re.search(product.get(case.spec.precision, "HMMA"), body), case
        assert "LDSM" in body, case
        if arch != "sm_75":
            assert "LDGSTS" in body, case


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_pack_without_nvcc_rehearses_its_gpu_kernels_on_a_cpu(schedule):
    for case in cases_of("sm_90", schedule)[:3]:
        for decisions in (case.default(), *contract.random_decisions(case, 1)):
            contract.check_values(case, decisions)
