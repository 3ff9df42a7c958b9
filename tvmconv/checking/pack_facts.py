"""Checks of a hardware pack as a whole: its names, its machines' facts, and a schedule for every problem.

`tvmconv.contract` says how a pack's own tests call them.
"""

from __future__ import annotations

import dataclasses
import difflib
import re

from tvm.target import Target, codegen

from tvmconv import hardware
from tvmconv.errors import HardwarePackError
from tvmconv.hardware import Gpu, HardwarePack, Machine
from tvmconv.problem.rules import ITEM_BYTES, OP_DTYPES
from tvmconv.problem.spec import ConvSpec

# Names are folders of records, and are listed with commas on the command line.
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


def check_names(pack: HardwarePack) -> None:
    """Names of machines and schedules are well-formed, and no other pack has them."""
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


def check_facts(machine: Machine) -> None:
    """Sizes are positive, and LLVM or CUDA knows the target."""
    _check_whole(machine)
    if len(set(machine.features)) != len(machine.features) or "kind" not in machine.target:
        raise HardwarePackError(
            f"{machine.name} has a feature twice, or a target without a kind: {machine.features}, "
            f"{dict(machine.target)}"
        )
    if machine.target["kind"] == "llvm":
        _check_target(machine)
    if (machine.target["kind"] == "cuda") != (machine.gpu is not None):
        raise HardwarePackError(
            f"{machine.name} has a target of kind {machine.target['kind']!r} and core={machine.core}: "
            "machines of kind cuda, and only they, have facts of a GPU"
        )
    if machine.gpu is not None:
        _check_gpu(machine, machine.gpu)
    else:
        _check_vectors(machine.name, machine.cpu.vector_bytes)


def _check_whole(machine: Machine) -> None:
    """What must be a whole number is one, and positive."""
    for field in dataclasses.fields(machine.core):
        value = getattr(machine.core, field.name)
        if field.type == "int" and (type(value) is not int or value < 1):
            raise HardwarePackError(
                f"{field.name} of {machine.name} is {value!r}, no positive integer"
            )


def _check_vectors(name: str, vector_bytes: int) -> None:
    if vector_bytes & (vector_bytes - 1) or vector_bytes < 8:
        raise HardwarePackError(
            f"vector_bytes of {name} is {vector_bytes}: not a power of two from 8 on"
        )


def _check_gpu(machine: Machine, gpu: Gpu) -> None:
    """The target is of that architecture, with a host that TVM knows, and blocks fit where they run."""
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
    for dtype in gpu.tensor_core_dtypes:
        if gpu.tensor_rates[ITEM_BYTES[dtype].bit_length() - 1] < 1:
            raise HardwarePackError(
                f"{machine.name} has tensor cores for {dtype} and no rate of them in tensor_rates "
                f"{gpu.tensor_rates}: give multiply-adds a cycle of one byte, of two, and of TF32"
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


def check_coverage(pack: HardwarePack, machine: Machine, spec: ConvSpec) -> None:
    """Some schedule accepts a problem, and none one without an output."""
    accepted = [s.name for s in pack.schedules if s.accepts(spec, machine)]
    if spec.is_empty and accepted:
        raise HardwarePackError(f"{accepted[0]} accepts {spec.key}, which has no output to compute")
    if not spec.is_empty and not accepted:
        raise HardwarePackError(f"pack {pack.name!r} has no schedule for {spec.key}")
