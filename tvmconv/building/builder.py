"""The whole pipeline on one page: specs + machine -> bundle."""

from __future__ import annotations

import datetime
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvmconv import hardware, writing
from tvmconv.building import cross, toolchain
from tvmconv.building.cuda import fatbin
from tvmconv.building.cuda import tools as cuda_tools
from tvmconv.bundle import manifest, publishing
from tvmconv.errors import BuildError
from tvmconv.problem.spec import ConvSpec
from tvmconv.records.choice import Selection, choose
from tvmconv.version import __version__

if TYPE_CHECKING:
    from tvmconv.hardware import Function, HardwarePack, Machine

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Request:
    """What to build for one machine: a choice for every spec that has anything to compute."""

    machine: Machine
    pack: HardwarePack
    choices: Mapping[str, Selection]


def build(
    specs: ConvSpec | Iterable[ConvSpec],
    machine: str | Sequence[str] = "host",
    output: str | os.PathLike[str] = "kernels.tvmconv",
    logs: Sequence[str | os.PathLike[str]] | None = None,
    progress: Progress | None = None,
    winograd: bool = True,
) -> Path:
    """Compile kernels into a bundle, a directory that `tvmconv.load` opens without a compiler.

    Args:
        specs: the convolutions; the same one twice is built once.
        machine: a name (``tvmconv machines`` lists them; ``"host"`` detects it) or several, CPUs and
            GPUs. The loader takes the best variant whose every required CPU feature is there, or the
            one for the GPU that it is asked for.
        output: the directory to write; an older bundle there is replaced at once, never half.
        logs: directories of tuning records, the first to have one wins; default: the user's own,
            then those shipped. An empty list builds the untuned defaults.
        progress: called with (what is being done, how far, of how much).
        winograd: whether 3x3 convolutions may be computed by Winograd's algorithm where that is
            faster. It is up to three times as fast, and its largest error is within 2e-5 of the
            largest output (measured: 1e-6 to 4e-6, where the defining sum's is 1e-6 to 3e-6).

    Returns:
        The absolute path of the bundle.

    Raises:
        UnknownNameError: no such machine.
        MissingToolError: TVM, a linker for the machine's architecture or, for a GPU, a CUDA compiler is
            missing, or has a wrong version; or TVM's runtime library for it cannot be fetched.
        RecordError: a tuning record is damaged or no longer applies.
        BuildError: TVM could not compile a kernel, or nothing is known of building for the machine's
            architecture from here.
        BundleError: ``output`` exists and is something other than a bundle.

    """
    wanted = [specs] if isinstance(specs, ConvSpec) else list(dict.fromkeys(specs))
    if not wanted:
        raise ValueError("specs is empty: there is nothing to build")
    # First, because without TVM no machine is known either, and the error would blame the pack.
    toolchain.require_compiler()
    names = [machine] if isinstance(machine, str) else list(machine)
    directories = None if logs is None else [Path(path) for path in logs]
    requests = [_request(wanted, name, directories, winograd) for name in names]
    return build_requests(wanted, requests, output, progress)


def _request(
    specs: Sequence[ConvSpec], name: str, directories: Sequence[Path] | None, winograd: bool
) -> Request:
    machine, pack = hardware.find_machine(name)
    choices = {
        spec.key: choose(spec, machine, pack, directories, winograd)
        for spec in specs
        if not spec.is_empty
    }
    return Request(machine, pack, choices)


def build_requests(
    specs: Sequence[ConvSpec],
    requests: Sequence[Request],
    output: str | os.PathLike[str],
    progress: Progress | None = None,
) -> Path:
    """Build what was chosen already: `build` after its look-ups, and the tuner's way in."""
    toolchain.require_compiler()
    for machine in (request.machine for request in requests):
        cross.require(machine.architecture, machine.name)
        if machine.gpu is not None:
            toolchain.require(cuda_tools.check_compiler(), cuda_tools.check_cudart())
    target = Path(os.path.abspath(output))
    target.parent.mkdir(parents=True, exist_ok=True)
    report = progress or (lambda _what, _done, _total: None)
    with writing.scratch(f".{target.name}-", target.parent) as scratch:
        staging = scratch / "bundle"
        staging.mkdir(mode=0o755)
        variants = [_variant(specs, request, staging, report) for request in _ordered(requests)]
        manifest.write_manifest(staging, _manifest(specs, variants))
        return publishing.publish(staging, target)


def _ordered(requests: Sequence[Request]) -> list[Request]:
    """CPUs before GPUs, and of each the best first: wider vectors, then more features; newer GPUs."""
    unique = {request.machine.name: request for request in requests}

    def rank(machine: Machine) -> tuple[bool, tuple[int, int], int, int]:
        capability = machine.gpu.capability if machine.gpu else (0, 0)
        return machine.gpu is None, capability, machine.vector_bytes, len(machine.features)

    return sorted(unique.values(), key=lambda request: rank(request.machine), reverse=True)


def scheduled(specs: Sequence[ConvSpec], request: Request) -> dict[str, Function]:
    """Apply every choice: key -> scheduled function."""
    functions = {}
    for spec in specs:
        if not spec.is_empty:
            choice = request.choices[spec.key]
            functions[spec.key] = choice.schedule.apply(spec, request.machine, choice.decisions)
    return functions


def pack_symbol(key: str) -> str:
    """Name of the function that packs a kernel's filter."""
    return f"{key}__pack"


def compile_library(functions: Mapping[str, Function], machine: Machine, path: Path) -> None:
    """Compile scheduled functions for one machine and link them into a shared library."""
    # Not at the top: `tvmconv build --help` and a wrong argument need not wait for TVM.
    from tvmconv.building.compile import compile_functions

    flat: dict[str, Any] = {}
    for key, function in functions.items():
        flat[key] = function.main
        if function.pack is not None:
            flat[pack_symbol(key)] = function.pack
    executable = compile_functions(flat, machine.target)
    executable.export_library(str(path), fcompile=cross.link_for(machine.architecture))
    if machine.gpu is not None and flat:
        check_device_code(path, machine.name, machine.gpu.arch)


def check_device_code(library: Path, name: str, arch: str) -> None:
    """Raise BuildError unless machine code for ``arch``, and PTX from there on, is in the library.

    TVM puts CUDA source in its place, and says nothing, where it cannot hold device code.
    """
    found = fatbin.device_code(library.read_bytes())
    if found.cubins != {arch} or arch not in found.ptx:
        cubins, ptx = (", ".join(sorted(archs)) or "none" for archs in (found.cubins, found.ptx))
        raise BuildError(
            f"{library.name}, made for {name}, has machine code for {cubins} and PTX for {ptx}, where both "
            f"must be for {arch}: `tvmconv doctor` tells which CUDA compiler was used"
        )


def _variant(
    specs: Sequence[ConvSpec], request: Request, staging: Path, report: Progress
) -> manifest.Variant:
    machine = request.machine
    steps = 2
    report(f"scheduling {len(specs)} kernels for {machine.name}", 0, steps)
    functions = scheduled(specs, request)
    report(f"compiling {len(functions)} kernels for {machine.name}", 1, steps)
    library = staging / manifest.library_name(machine.name)
    compile_library(functions, machine, library)
    runtime = _runtime(machine, staging, "libtvm_runtime")
    cuda = _runtime(machine, staging, "libtvm_runtime_cuda") if machine.gpu else None
    glibc = checked_glibc(machine, [library], runtime, *([cuda] if cuda else []))
    report(f"{machine.name} is built", steps, steps)
    return manifest.Variant(
        machine=machine.name,
        architecture=machine.architecture,
        os="linux",
        library=library.name,
        sha256=manifest.file_digest(library),
        features=machine.features,
        glibc=glibc,
        runtime=_runtime_entry(runtime),
        kernels={spec.key: _entry(spec, request, functions) for spec in specs},
        gpu=machine.gpu.arch if machine.gpu else None,
        cuda_runtime=_runtime_entry(cuda) if cuda else None,
        also=request.pack.also(machine.name),
    )


def _runtime(machine: Machine, staging: Path, library: str) -> Path:
    """Put a runtime library of TVM into the bundle, unless another variant has it there."""
    path = staging / manifest.runtime_name(machine.architecture, library)
    if not path.exists():
        shutil.copyfile(cross.runtime_library(machine.architecture, f"{library}.so"), path)
    return path


def _runtime_entry(path: Path) -> manifest.RuntimeEntry:
    return manifest.RuntimeEntry(path.name, manifest.file_digest(path))


def checked_glibc(machine: Machine, libraries: Sequence[Path], *runtimes: Path) -> str | None:
    """Return the oldest glibc that all files run on, having checked that they suit the machine."""
    from tvmconv.building import (
        elf,  # needs NumPy and pyelftools, which `tvmconv build --help` does not
    )

    files = (*libraries, *runtimes)
    needs = [elf.needs(path) for path in files]
    for path, found in zip(files, needs, strict=True):
        if found.architecture != machine.architecture:
            raise BuildError(
                f"{path.name}, made for {machine.name}, is for {found.architecture}, not for "
                f"{machine.architecture}: `tvmconv doctor` tells which linker was used"
            )
    # The runtime is made for every CPU of the architecture, and asks the kernel before it uses more.
    kernels = needs[: len(libraries)]
    used = frozenset[str]().union(*(found.features or () for found in kernels))
    surplus = sorted(used - set(machine.features))
    if surplus:
        raise BuildError(
            f"kernels for {machine.name} use {', '.join(surplus)}, which its features do not list: a CPU "
            f"without would crash. Target and features of {machine.name} contradict each other; report "
            "it to who wrote its hardware pack"
        )
    return elf.newest([found.glibc for found in needs if found.glibc])


def _entry(
    spec: ConvSpec, request: Request, functions: Mapping[str, Function]
) -> manifest.KernelEntry:
    if spec.is_empty:
        return manifest.KernelEntry(None, "empty", {})
    choice, function = request.choices[spec.key], functions[spec.key]
    pack = None
    if function.pack is not None:
        pack = manifest.PackEntry(
            pack_symbol(spec.key), function.packed_shape, function.packed_dtype
        )
    record = choice.source if choice.entry else None
    return manifest.KernelEntry(
        spec.key, choice.schedule.name, choice.decisions, record, pack, function.workspace_bytes
    )


def _manifest(specs: Sequence[ConvSpec], variants: Sequence[manifest.Variant]) -> manifest.Manifest:
    import tvm
    import tvm_ffi

    return manifest.Manifest(
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        tvmconv=__version__,
        tvm=tvm.__version__,
        tvm_ffi=tvm_ffi.__version__,
        keys=tuple(spec.key for spec in specs),
        variants=tuple(variants),
    )
