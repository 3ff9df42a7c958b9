"""What every hardware pack must hold to, as checks that a pack's own tests call: see `check`.

Nothing here needs a test framework. A pack's whole test file is::

    import pytest

    from tvmconv.checking import contract
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

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NoReturn

import numpy.typing as npt

from tvmconv import hardware
from tvmconv.checking import oracle, pack_facts
from tvmconv.checking.guarded import GuardedKernel, compile_function
from tvmconv.errors import HardwarePackError
from tvmconv.hardware import Decisions, Function, HardwarePack, Machine, Schedule, host
from tvmconv.problem import workloads
from tvmconv.problem.spec import ConvSpec

Array = npt.NDArray[Any]

# What LLVM makes without an instruction set beyond the architecture's own: it cuts long vectors down.
_PLAIN_TARGETS = {
    "x86_64": {"kind": "llvm", "mtriple": "x86_64-unknown-linux-gnu", "mcpu": "x86-64"},
    "aarch64": {"kind": "llvm", "mtriple": "aarch64-unknown-linux-gnu", "mcpu": "generic"},
}


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
        registers = (
            (machine.gpu.arch,)
            if machine.gpu
            else (machine.cpu.vector_bytes, machine.cpu.vector_registers)
        )
        kind = (machine.architecture, *registers)
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
    pack_facts.check_names(pack)
    for machine in pack.machines:
        pack_facts.check_facts(machine)
        for workload in workloads.names():
            for layer in workloads.resolve(workload).entries:
                pack_facts.check_coverage(pack, machine, layer.spec)


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
    decisions = case.default()
    try:
        hardware.check_decisions(schedule, spec, machine, decisions)
    except ValueError as error:
        _broken(case, f"default decisions are no point of the space: {error}")
    if case.default() != decisions:
        _broken(case, "default decisions differ from call to call")


def check_compiles(case: Case, decisions: Decisions | None = None) -> None:
    """TVM compiles the kernel for the machine's own target, whether it runs here or not."""
    compiled(case, decisions)


def compiled(case: Case, decisions: Decisions | None = None) -> Any:
    """Return TVM's module of the kernel for the machine's own target, to write it to an object file."""
    return compile_function(_apply(case, case.machine, decisions), case.machine)


def assembly(case: Case, decisions: Decisions | None = None) -> str:
    """Return the kernel's assembly for the machine's own target, to look for instructions in it."""
    function = replace(_apply(case, case.machine, decisions), pack=None)
    return str(compile_function(function, case.machine).inspect_source("asm"))


def check_values(case: Case, decisions: Decisions | None = None) -> None:
    """The kernel computes what the float64 oracle does; on a `rehearsal` where it cannot run here.

    Arrays lie one element behind a 64-byte boundary, with values around them that must be neither used
    nor written, and one thread must give bit for bit what two give. A kernel that crashes takes this
    process with it.
    """
    machine = rehearsal(case.machine) if lacking(case.machine) else case.machine
    kernel = GuardedKernel(_named(case), case.spec, _apply(case, machine, decisions), machine)
    arguments, expected = _problem(case.spec)
    alone, together = (kernel.run(arguments, threads) for threads in (1, 2))
    oracle.assert_close(case.spec, expected, alone)
    if alone.tobytes() != together.tobytes():
        _broken(case, "two threads give other values than one: jobs of a parallel loop overlap")


def random_decisions(case: Case, count: int) -> list[Decisions]:
    """Legal decisions other than the default, the same ones in every run."""
    space = hardware.space(case.schedule, case.spec, case.machine)
    default = case.default()
    others: Sequence[Decisions] = [point for point in space if point != default]
    drawn = random.Random(case.spec.key)  # noqa: S311 - the same tests in every run
    return drawn.sample(others, min(count, len(others)))


def _broken(case: Case, what: str) -> NoReturn:
    raise HardwarePackError(f"{_named(case)}: {what}")


def _named(case: Case) -> str:
    return f"{case.schedule.name} on {case.machine.name} for {case.spec.key}"


def _apply(case: Case, machine: Machine, decisions: Decisions | None) -> Function:
    chosen = case.default() if decisions is None else decisions
    return case.schedule.apply(case.spec, machine, chosen)


@lru_cache(maxsize=8)
def _problem(spec: ConvSpec) -> tuple[dict[str, Array], Array]:
    """Random arguments, and what must come out; kept for the next decisions of the same spec."""
    arguments = oracle.random_arguments(spec, seed=0)
    return arguments, oracle.conv(spec, **arguments)
