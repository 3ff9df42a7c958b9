"""What the compiler makes of a schedule: its loops, and its inner loop's instructions, as they are kept.

Every text is of default decisions and for a named machine, so that it is the same on any host; `pytest
--update-golden` writes those that differ. A change that spills registers or loses a broadcast shows here.
"""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import golden_files
import machine_code
import pytest

from tvmconv import hardware
from tvmconv.building.compile import compile_functions
from tvmconv.building.cuda import compiler as cuda_compiler
from tvmconv.building.cuda import tools as cuda_tools
from tvmconv.checking import contract
from tvmconv.checking.guarded import compile_function
from tvmconv.measuring.roof import roof_loops
from tvmconv.problem.spec import ConvSpec

HERE = Path(__file__).parent


def dense(kernel: int = 3, **options: object) -> ConvSpec:
    shape = (kernel, kernel, 128, 128)
    return ConvSpec.conv2d((1, 28, 28, 128), shape, bias=True, activation="relu", **options)


def depthwise(**options: object) -> ConvSpec:
    shape = (3, 3, 128, 1)
    return ConvSpec.depthwise_conv2d(
        (1, 28, 28, 128), shape, bias=True, activation="relu", **options
    )


def to_few(channels: int = 3) -> ConvSpec:
    return ConvSpec.conv2d((1, 64, 64, 64), (3, 3, 64, channels), bias=True, activation="relu")


def few_to_few() -> ConvSpec:
    return ConvSpec.conv2d((1, 64, 64, 3), (9, 9, 3, 3), bias=True, activation="relu")


CASES = [
    ("sapphirerapids", "x86.conv2d.columns", few_to_few()),
    ("x86-64-v3", "x86.conv2d.columns", few_to_few()),
    ("cortex-a72", "arm.conv2d.columns", few_to_few()),
    ("sapphirerapids", "x86.conv2d.inputs", to_few()),
    ("sapphirerapids", "x86.conv2d.direct", dense(3)),
    ("sapphirerapids", "x86.conv2d.direct", dense(1)),
    ("sapphirerapids", "x86.conv2d.dot", dense(3, dtype="int8")),
    ("sapphirerapids", "x86.conv2d.amx", dense(3, dtype="int8")),
    ("sapphirerapids", "x86.conv2d.amx", dense(3, dtype="bfloat16")),
    ("sapphirerapids", "x86.conv2d.winograd", dense(3)),
    ("sapphirerapids", "x86.depthwise_conv2d.tiled", depthwise()),
    ("sapphirerapids", "x86.depthwise_conv2d.tiled", depthwise(dtype="int8")),
    ("x86-64-v3", "x86.conv2d.direct", dense(3)),
    ("x86-64-v3", "x86.conv2d.direct", dense(1)),
    ("x86-64-v3", "x86.conv2d.dot", dense(3, dtype="int8")),
    ("x86-64-v3", "x86.conv2d.winograd", dense(3)),
    ("x86-64-v3", "x86.depthwise_conv2d.tiled", depthwise()),
    ("x86-64-v3", "x86.depthwise_conv2d.tiled", depthwise(dtype="int8")),
    ("x86-64-v3", "x86.conv2d.inputs", to_few()),
    ("cortex-a72", "arm.conv2d.inputs", to_few()),
    ("cortex-a72", "arm.conv2d.direct", dense(3)),
    ("cortex-a72", "arm.conv2d.direct", dense(1)),
    ("cortex-a72", "arm.conv2d.direct", dense(3, dtype="int8")),
    ("cortex-a72", "arm.conv2d.winograd", dense(3)),
    ("cortex-a72", "arm.depthwise_conv2d.tiled", depthwise()),
    ("cortex-a76", "arm.conv2d.dot", dense(3, dtype="int8")),
    ("cortex-a76", "arm.depthwise_conv2d.dot", depthwise(dtype="int8")),
    ("neoverse-v1", "arm.conv2d.matrix", dense(3, dtype="int8")),
]
CUDA_CASES = [
    ("sm_90", "cuda.conv2d.tiled", dense(3)),
    ("sm_90", "cuda.conv2d.tensor", dense(3, dtype="float16")),
    ("sm_90", "cuda.depthwise_conv2d.window", depthwise()),
]
NVCC = "13.0"
ROOFS = ["sapphirerapids", "x86-64-v3", "cortex-a72"]


def shows_nvccs_code() -> bool:
    """Whether the compiler of the files is here, and what shows its code; other releases make other code."""
    nvcc = cuda_tools.nvcc()
    if nvcc is None or None in (cuda_tools.program("cuobjdump"), cuda_tools.program("nvdisasm")):
        return False
    said = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    return f"release {NVCC}," in said


def case_of(machine: str, schedule: str, spec: ConvSpec) -> contract.Case:
    found, pack = hardware.find_machine(machine)
    return contract.Case(found, hardware.find_schedule(schedule, pack), spec)


def file_of(machine: str, schedule: str, spec: ConvSpec) -> Path:
    window = f"{spec.kernel_height}x{spec.kernel_width}"
    return HERE / f"{schedule}-{window}-{spec.dtype}-{machine}.txt"


def text_of(case: contract.Case, code: str) -> str:
    decided = ", ".join(f"{name} {value}" for name, value in sorted(case.default().items()))
    function = case.schedule.apply(case.spec, case.machine, case.default())
    parts = (
        f"{case.schedule.name} for {case.machine.name}\n{case.spec.key}\n{decided}",
        f"INNER LOOP: {machine_code.described(machine_code.hot_loop(code))}",
        f"LOOPS\n{golden_files.loops_text(function.main)}",
    )
    return "\n\n".join(parts) + "\n"


@pytest.mark.parametrize(
    ("machine", "schedule", "spec"), CASES, ids=[file_of(*case).stem for case in CASES]
)
def test_machine_code_of_a_cpu(machine, schedule, spec, update_golden):
    case = case_of(machine, schedule, spec)

    text = text_of(case, contract.assembly(case))

    golden_files.check(file_of(machine, schedule, spec), text, update_golden)


@pytest.mark.slow
@pytest.mark.skipif(
    not shows_nvccs_code(),
    reason=f"the files are of nvcc {NVCC}'s code, as cuobjdump shows it: one of them is not here",
)
@pytest.mark.parametrize(
    ("machine", "schedule", "spec"), CUDA_CASES, ids=[file_of(*case).stem for case in CUDA_CASES]
)
def test_machine_code_of_a_gpu(machine, schedule, spec, update_golden):
    case = case_of(machine, schedule, spec)
    function = case.schedule.apply(spec, case.machine, case.default())
    with cuda_compiler.compiling(machine) as session:
        compile_function(replace(function, pack=None), case.machine)

    code = "".join(cuda_compiler.sass(module.image) for module in session.modules)

    golden_files.check(file_of(machine, schedule, spec), text_of(case, code), update_golden)


@pytest.mark.parametrize("name", ROOFS)
def test_machine_code_of_the_roof(name, update_golden):
    machine, _ = hardware.find_machine(name)
    parts = []
    for probe, function in roof_loops.functions(machine, threads=1).items():
        code = compile_functions({probe: function}, machine.target).mod.inspect_source("asm")
        # LLVM makes one call of the whole copy.
        copies = "memcpy" in machine_code.called(code)
        loop = machine_code.described(machine_code.hot_loop(code))
        parts.append(f"{probe}: {'memcpy' if copies else loop}")

    text = "\n\n".join(parts) + "\n"

    golden_files.check(HERE / f"roof-{name}.txt", text, update_golden)


def test_every_file_is_of_a_case():
    kept = {path.name for path in HERE.glob("*.txt")}
    made = {file_of(*case).name for case in [*CASES, *CUDA_CASES]}

    assert kept == made | {f"roof-{name}.txt" for name in ROOFS}


def test_a_missing_or_different_file_fails_with_the_command_that_writes_it(tmp_path):
    path = tmp_path / "golden" / "one.txt"
    path.parent.mkdir()

    with pytest.raises(AssertionError, match=r"missing.*pytest --update-golden tests/golden"):
        golden_files.check(path, "a\nb\n", update=False)
    golden_files.check(path, "a\nb\n", update=True)
    golden_files.check(path, "a\nb\n", update=False)
    with pytest.raises(AssertionError, match=r"(?s)-b\n\+c\n.*pytest --update-golden tests/golden"):
        golden_files.check(path, "a\nc\n", update=False)
