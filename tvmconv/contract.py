"""What every hardware pack must hold to, as checks that a pack's own tests call: see `check`.

Nothing here needs a test framework. A pack's whole test file is::

    import pytest

    from tvmconv import contract
    from my_package import PACK

    def test_pack():
        contract.check_pack(PACK)

    @pytest.mark.parametrize("case", contract.cases(PACK), ids=str)
    def test_schedule(case):
        contract.check(case)

Checks return nothing and raise HardwarePackError where the pack breaks the contract, BuildError where
TVM cannot compile it or its values are wrong.
"""

from __future__ import annotations

import difflib
import os
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
from tvm.target import Target, codegen

from tvmconv import hardware, host, lowering, oracle, workloads
from tvmconv.errors import HardwarePackError
from tvmconv.hardware import Decisions, Function, Gpu, HardwarePack, Machine, Schedule
from tvmconv.rules import OP_DTYPES
from tvmconv.runtime import arrays, engine, tensors
from tvmconv.spec import ConvSpec

Array = npt.NDArray[Any]

# Names are folders of records, and are listed with commas on the command line.
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_WHOLE_FACTS = (
    "vector_bytes", "vector_registers", "fma_ports", "fma_latency", "load_ports", "l1_bytes", "l2_bytes",
)  # fmt: skip
_GPU_FACTS = (
    "multiprocessors", "shared_bytes", "shared_bytes_per_multiprocessor", "threads_per_multiprocessor",
    "blocks_per_multiprocessor", "l2_bytes", "bandwidth", "clock", "registers_per_multiprocessor",
)  # fmt: skip
# What LLVM makes without an instruction set beyond the architecture's own: it cuts long vectors down.
_PLAIN_TARGETS = {
    "x86_64": {"kind": "llvm", "mtriple": "x86_64-unknown-linux-gnu", "mcpu": "x86-64"},
    "aarch64": {"kind": "llvm", "mtriple": "aarch64-unknown-linux-gnu", "mcpu": "generic"},
}
# Elements around every array that must be neither used nor written; a multiple of 64 bytes.
_GUARD = 64


@dataclass(frozen=True)
class Case:
    """One schedule with a problem that it accepts on a machine; as text it is a test's name."""

    machine: Machine
    schedule: Schedule
    spec: ConvSpec

    def __str__(self) -> str:
        return f"{self.machine.name}-{self.schedule.name}-{self.spec.key}"

    def default(self) -> Decisions:
        """The schedule's own decisions."""
        return self.schedule.default(self.spec, self.machine)


def edge_cases() -> list[ConvSpec]:
    """The small problems of every legal kind that tests run on, those without an output too."""
    return [layer.spec for layer in workloads.resolve("edge_cases").entries]


def cases(
    pack: HardwarePack,
    machines: Iterable[Machine] | None = None,
    specs: Iterable[ConvSpec] | None = None,
) -> list[Case]:
    """Everything that the pack accepts of ``specs`` on ``machines``.

    By default the edge cases, on one machine of each `kinds`: those with the same registers need not be
    tested one by one.
    """
    chosen = kinds(pack) if machines is None else list(machines)
    problems = edge_cases() if specs is None else list(specs)
    return [
        Case(machine, schedule, spec)
        for machine in chosen
        for schedule in pack.schedules
        for spec in problems
        if schedule.accepts(spec, machine)
    ]


def kinds(pack: HardwarePack, preferred: Machine | None = None) -> list[Machine]:
    """One machine for every register file, and for every GPU architecture.

    ``preferred`` for its own kind, else the one of least features.
    """
    found: dict[tuple[object, ...], Machine] = {}
    for machine in pack.machines:
        arch = machine.gpu and machine.gpu.arch
        kind = (machine.architecture, machine.vector_bytes, machine.vector_registers, arch)
        known = found.setdefault(kind, machine)
        leaner = known != preferred and len(machine.features) <= len(known.features)
        if machine == preferred or leaner:
            found[kind] = machine
    return list(found.values())


def lacking(machine: Machine) -> list[str]:
    """What this host lacks to run the machine's kernels: CPU features, the architecture, or a GPU.

    A GPU is always lacking: the checks here run kernels on arrays in main memory.
    """
    if machine.gpu is not None:
        return [machine.gpu.arch]
    if machine.architecture != host.architecture():
        return [machine.architecture]
    return sorted(set(machine.features) - host.cpu_features())


def rehearsal(machine: Machine) -> Machine:
    """Return the machine's facts with a target that runs on this host, whatever the host is.

    A schedule makes of it the very loops that it makes for the machine: the same tile, the same
    vectors, the same borders. LLVM then compiles them for this host's architecture without any
    extension and cuts vectors that are too long. So values show whether loops, indices, predicates and
    packing are right. They show nothing of the machine's own instructions, which only the machine or an
    emulator of it can run, and the time that a rehearsal takes means nothing.

    Raises HardwarePackError on a host that is neither x86_64 nor aarch64.
    """
    architecture = host.architecture()
    if architecture not in _PLAIN_TARGETS:
        raise HardwarePackError(
            f"{machine.name} cannot be rehearsed on {architecture}, only on "
            f"{' and '.join(_PLAIN_TARGETS)}."
        )
    return replace(
        machine, architecture=architecture, target=_PLAIN_TARGETS[architecture], features=()
    )


def check(case: Case, others: int = 1) -> None:
    """Everything that holds for one problem.

    `check_decisions`, `check_compiles` for the machine's own target, and `check_values` of the default
    and of ``others`` decisions drawn from the space: on the machine if this is one, else rehearsed.
    """
    check_decisions(case)
    if lacking(case.machine):
        check_compiles(case)
    for decisions in (case.default(), *random_decisions(case, others)):
        check_values(case, decisions)


def check_pack(pack: HardwarePack) -> None:
    """Names are well-formed and the pack's own, facts are sane, and every problem has a schedule.

    Of every workload that tvmconv knows, on every machine; and none is accepted that has no output.
    """
    _check_names(pack)
    for machine in pack.machines:
        _check_facts(machine)
        for workload in workloads.names():
            for layer in workloads.resolve(workload).entries:
                _check_coverage(pack, machine, layer.spec)


def check_decisions(case: Case) -> None:
    """Knobs list every candidate once; the default decides each of them, legally, the same each time."""
    schedule, spec, machine = case.schedule, case.spec, case.machine
    names = [knob.name for knob in schedule.knobs(spec, machine)]
    if len(set(names)) != len(names):
        _broken(case, f"has two knobs of one name: {names}")
    for knob in schedule.knobs(spec, machine):
        if not knob.name.isidentifier() or not knob.candidates:
            _broken(case, f"knob {knob.name!r} is no identifier or has no candidates")
        if len(set(knob.candidates)) != len(knob.candidates):
            _broken(case, f"knob {knob.name} has a candidate twice: {knob.candidates}")
        if not all(type(value) in (int, str) for value in knob.candidates):
            _broken(case, f"knob {knob.name} has candidates other than int and str")
    try:
        hardware.check_decisions(schedule, spec, machine, case.default())
    except ValueError as error:
        _broken(case, f"default decisions are no point of the space: {error}")
    if case.default() != case.default():
        _broken(case, "default decisions differ from call to call")


def check_compiles(case: Case, decisions: Decisions | None = None) -> None:
    """TVM compiles the kernel for the machine's own target, whether it runs here or not."""
    compiled(case, decisions)


def compiled(case: Case, decisions: Decisions | None = None) -> Any:
    """Return TVM's module of the kernel for the machine's own target, to write it to an object file."""
    return _compile(_apply(case, case.machine, decisions), case.machine)


def assembly(case: Case, decisions: Decisions | None = None) -> str:
    """Return the kernel's assembly for the machine's own target, to look for instructions in it."""
    function = replace(_apply(case, case.machine, decisions), pack=None)
    return str(_compile(function, case.machine).inspect_source("asm"))


def check_values(case: Case, decisions: Decisions | None = None) -> None:
    """The kernel computes what the float64 oracle does; on a `rehearsal` where it cannot run here.

    Arrays lie one element behind a 64-byte boundary, with values around them that must be neither used
    nor written, and one thread must give bit for bit what two give. A kernel that crashes takes this
    process with it.
    """
    machine = rehearsal(case.machine) if lacking(case.machine) else case.machine
    kernel = _Kernel(case, machine, decisions)
    arguments, expected = _problem(case.spec)
    alone, together = (kernel.run(arguments, threads) for threads in (1, 2))
    oracle.assert_close(case.spec, expected, alone)
    if alone.tobytes() != together.tobytes():
        _broken(case, "two threads give other values than one: jobs of a parallel loop overlap")


def random_decisions(case: Case, count: int) -> list[Decisions]:
    """Legal decisions other than the default, the same ones in every run."""
    space = hardware.space(case.schedule, case.spec, case.machine)
    others: Sequence[Decisions] = [point for point in space if point != case.default()]
    drawn = random.Random(case.spec.key)  # noqa: S311 - the same tests in every run
    return drawn.sample(others, min(count, len(others)))


def _broken(case: Case, what: str) -> NoReturn:
    raise HardwarePackError(
        f"{case.schedule.name} on {case.machine.name} for {case.spec.key}: {what}"
    )


def _check_names(pack: HardwarePack) -> None:
    for name in pack.machine_names():
        if not _NAME.fullmatch(name) or name == "host":
            raise HardwarePackError(
                f"pack {pack.name!r}: {name!r} is no name for a machine: it must be lower "
                "case letters, digits, '.', '_' and '-', and `host` is taken"
            )
    for schedule in pack.schedules:
        family, _, rest = schedule.name.partition(".")
        operator, _, algorithm = rest.partition(".")
        if family != pack.name or operator not in OP_DTYPES or not algorithm:
            raise HardwarePackError(
                f"pack {pack.name!r}: schedule {schedule.name!r} must be named "
                f"{pack.name}.OPERATOR.ALGORITHM with an operator of {', '.join(OP_DTYPES)}"
            )
    for other in hardware.working_packs()[0]:
        names = set(other.machine_names()) if other.name != pack.name else set()
        taken = sorted(names & set(pack.machine_names()))
        if taken:
            raise HardwarePackError(f"{', '.join(taken)} are also machines of pack {other.name!r}")


def _check_facts(machine: Machine) -> None:
    _check_whole(machine.name, machine, _WHOLE_FACTS)
    if machine.vector_bytes & (machine.vector_bytes - 1) or machine.vector_bytes < 8:
        raise HardwarePackError(
            f"vector_bytes of {machine.name} is {machine.vector_bytes}: not a power of two from 8 on"
        )
    if len(set(machine.features)) != len(machine.features) or "kind" not in machine.target:
        raise HardwarePackError(
            f"{machine.name} has a feature twice, or a target without a kind: {machine.features}, "
            f"{dict(machine.target)}"
        )
    if machine.target["kind"] == "llvm":
        _check_target(machine)
    if (machine.target["kind"] == "cuda") != (machine.gpu is not None):
        raise HardwarePackError(
            f"{machine.name} has a target of kind {machine.target['kind']!r} and gpu={machine.gpu}: "
            "machines of kind cuda, and only they, have facts of a GPU"
        )
    if machine.gpu is not None:
        _check_gpu(machine, machine.gpu)


def _check_whole(owner: str, facts: Machine | Gpu, names: Iterable[str]) -> None:
    for name in names:
        value = getattr(facts, name)
        if type(value) is not int or value < 1:
            raise HardwarePackError(f"{name} of {owner} is {value!r}, no positive integer")


def _check_gpu(machine: Machine, gpu: Gpu) -> None:
    """The target is of that architecture, with a host that TVM knows, and blocks fit where they run."""
    _check_whole(machine.name, gpu, _GPU_FACTS)
    if not re.fullmatch(r"sm_[1-9][0-9]+", gpu.arch) or machine.target.get("arch") != gpu.arch:
        raise HardwarePackError(
            f"{machine.name} has arch {gpu.arch!r}, and {machine.target.get('arch')!r} in its target: both "
            "must be the same, like sm_90"
        )
    if gpu.shared_bytes > gpu.shared_bytes_per_multiprocessor:
        raise HardwarePackError(
            f"a block of {machine.name} has {gpu.shared_bytes} bytes of shared memory, its multiprocessor "
            f"only {gpu.shared_bytes_per_multiprocessor}"
        )
    host_target = Target(dict(machine.target)).host
    if host_target is None or host_target.kind.name != "llvm":
        raise HardwarePackError(
            f"{machine.name}'s target has no host of kind llvm, which its kernels are launched from"
        )


def _check_target(machine: Machine) -> None:
    """LLVM knows processor and extensions: those that it does not know it leaves out, and goes on."""
    target = Target(dict(machine.target))
    processor = machine.target.get("mcpu")
    known = {str(name) for name in codegen.llvm_get_cpu_archlist(target)}
    if processor is not None and processor not in known:
        near = ", ".join(difflib.get_close_matches(str(processor), known)) or "none"
        raise HardwarePackError(
            f"LLVM knows no processor {processor!r} for {machine.name}; near names: {near}"
        )
    on = {str(name) for name in codegen.llvm_get_cpu_features(target)}
    for extension in machine.target.get("mattr", ()):
        if (extension[1:] in on) != extension.startswith("+"):
            raise HardwarePackError(
                f"{extension!r} of {machine.name}'s target changes nothing: LLVM does not know it"
            )


def _check_coverage(pack: HardwarePack, machine: Machine, spec: ConvSpec) -> None:
    accepted = [s.name for s in pack.schedules if s.accepts(spec, machine)]
    if spec.is_empty and accepted:
        raise HardwarePackError(f"{accepted[0]} accepts {spec.key}, which has no output to compute")
    if not spec.is_empty and not accepted:
        raise HardwarePackError(f"pack {pack.name!r} has no schedule for {spec.key}")


def _apply(case: Case, machine: Machine, decisions: Decisions | None) -> Function:
    chosen = case.default() if decisions is None else decisions
    return case.schedule.apply(case.spec, machine, chosen)


def _compile(function: Function, machine: Machine) -> Any:
    functions = {"main": function.main}
    if function.pack is not None:
        functions["pack"] = function.pack
    return lowering.compile_functions(functions, machine.target).mod


@lru_cache(maxsize=8)
def _problem(spec: ConvSpec) -> tuple[dict[str, Array], Array]:
    """Random arguments, and what must come out; kept for the next decisions of the same spec."""
    arguments = oracle.random_arguments(spec, seed=0)
    return arguments, oracle.conv(spec, **arguments)


class _Kernel:
    """A case compiled in memory for a machine that runs here."""

    def __init__(self, case: Case, machine: Machine, decisions: Decisions | None) -> None:
        self.case, self.spec = case, case.spec
        self.function = _apply(case, machine, decisions)
        # TVM would pin this thread to a core when it starts others.
        os.environ.setdefault("TVM_BIND_THREADS", "0")
        self.module = _compile(self.function, machine)

    def run(self, arguments: dict[str, Array], threads: int) -> Array:
        """Compute the output on copies of ``arguments`` between guards, and check those."""
        engine.use_threads(threads)
        spec = self.spec
        placed = {name: _placed(array) for name, array in arguments.items() if name != "filter"}
        out, edges = _guarded(spec.output_shape, tensors.numpy_dtype(spec.out_dtype))
        names = [name for name in ("bias", "residual") if name in placed]
        called = [placed["data"], self._weights(arguments["filter"])]
        called += [*(placed[name] for name in names), *self._workspace(), out]
        images = (arrays.array_pointer(self._as_called(array)) for array in called)
        self.module["main"](*images)
        if any((edge.view(np.uint8) != 0xFF).any() for edge in edges):
            _broken(self.case, "writes beyond its output")
        for name in ("data", *names):
            if placed[name].tobytes() != arguments[name].tobytes():
                _broken(self.case, f"writes to its argument {name}")
        return out

    def _workspace(self) -> list[Array]:
        """Scratch memory that holds no numbers."""
        size = self.function.workspace_bytes // 4
        return [_guarded((size,), np.dtype("float32"))[0]] if size else []

    def _weights(self, filter_: Array) -> Array:
        """The filter as the kernel takes it, 64-byte aligned as the runtime promises."""
        weights = arrays.aligned_copy(filter_)
        if self.function.pack is None:
            return weights
        dtype = tensors.numpy_dtype(self.function.packed_dtype)
        packed = arrays.empty_aligned(self.function.packed_shape, dtype)
        self.module["pack"](arrays.array_pointer(weights), arrays.array_pointer(packed))
        return packed

    def _as_called(self, array: Array) -> Array:
        """Images of any rank as the kernel takes them: with one batch dimension."""
        if array.shape not in (self.spec.input_shape, self.spec.output_shape):
            return array
        return array.reshape((self.spec.batch, *array.shape[-3:]))


def _guarded(shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[Array, tuple[Array, Array]]:
    """An array one element behind a 64-byte boundary and what lies around it, all bytes 0xFF.

    As floats of any width that is NaN: whoever uses a value from outside, or leaves one of the output
    as it was, is found out by the comparison with the oracle.
    """
    size = int(np.prod(shape))
    raw = arrays.empty_aligned((size + 2 * _GUARD + 1,), dtype)
    raw.view(np.uint8)[...] = 0xFF
    begin = _GUARD + 1
    return raw[begin : begin + size].reshape(shape), (raw[:begin], raw[begin + size :])


def _placed(array: Array) -> Array:
    copy, _ = _guarded(array.shape, array.dtype)
    copy[...] = array
    return copy
