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
from tvmconv.building import cross, linked, toolchain
from tvmconv.building.cuda import tools as cuda_tools
from tvmconv.bundle import manifest, publishing, signature
from tvmconv.bundle.model_entries import ModelEntry
from tvmconv.problem.spec import ConvSpec
from tvmconv.records.choice import Selection, choose
from tvmconv.version import __version__

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from tvmconv.hardware import Function, HardwarePack, Machine

Progress = Callable[[str, int, int], None]
_STEPS = 2  # that a variant takes, for progress


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
    sign: str | os.PathLike[str] | None = None,
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
        sign: file of a private key (``tvmconv key`` makes one) to sign the bundle with, for
            `tvmconv.load` with ``trusted``.

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
        SigningKeyError: ``sign`` holds no private key.
        ValueError: there are no specs, or an array of one has 2**31 elements or more.

    """
    wanted = [specs] if isinstance(specs, ConvSpec) else list(dict.fromkeys(specs))
    if not wanted:
        raise ValueError("specs is empty: there is nothing to build")
    for spec in wanted:
        hardware.require_indexable(spec)
    key = None if sign is None else signature.read_private_key(Path(sign))
    # First, because without TVM no machine is known either, and the error would blame the pack.
    toolchain.require_compiler()
    names = [machine] if isinstance(machine, str) else list(machine)
    requests = [request(wanted, name, logs, winograd) for name in names]
    return build_requests(wanted, requests, output, progress, key)


def request(
    specs: Sequence[ConvSpec],
    name: str,
    logs: Sequence[str | os.PathLike[str]] | None = None,
    winograd: bool = True,
) -> Request:
    """Choose how to compute each spec on the machine of that name; arguments and errors as in `build`."""
    directories = None if logs is None else [Path(path) for path in logs]
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
    key: Ed25519PrivateKey | None = None,
) -> Path:
    """Build what was chosen already: `build` after its look-ups, and the tuner's way in."""
    return publish(
        requests,
        output,
        progress,
        lambda *each: _variant(specs, *each),
        [s.key for s in specs],
        key=key,
    )


def publish(
    requests: Sequence[Request],
    output: str | os.PathLike[str],
    progress: Progress | None,
    make: Callable[[Request, Path, Progress], manifest.Variant],
    keys: Sequence[str],
    model: ModelEntry | None = None,
    key: Ed25519PrivateKey | None = None,
) -> Path:
    """Put a bundle of what ``make`` makes of each request where ``output`` says; returns that path."""
    toolchain.require_compiler()
    for machine in (request.machine for request in requests):
        cross.require(machine.architecture, machine.name)
        cuda_tools.require(machine)
    target = Path(os.path.abspath(output))
    # Before minutes of compiling; a link is followed as `publish` does it.
    publishing.require_replaceable(Path(os.path.realpath(target)), _file_names(requests))
    target.parent.mkdir(parents=True, exist_ok=True)
    report = progress or (lambda _what, _done, _total: None)
    with writing.scratch(f".{target.name}-", target.parent) as scratch:
        staging = scratch / "bundle"
        staging.mkdir(mode=0o755)
        variants = [make(request, staging, report) for request in _ordered(requests)]
        manifest.write_manifest(staging, _manifest(keys, variants, model))
        if key is not None:
            contents = (staging / manifest.MANIFEST_NAME).read_bytes()
            (staging / signature.SIGNATURE_NAME).write_bytes(signature.sign(contents, key))
        return publishing.publish(staging, target)


def _file_names(requests: Sequence[Request]) -> set[str]:
    machines = [request.machine for request in requests]
    runtimes = ("libtvm_runtime", "libtvm_runtime_cuda")
    return {
        *(manifest.library_name(each.name) for each in machines),
        *(manifest.runtime_name(each.architecture, name) for each in machines for name in runtimes),
    }


def _ordered(requests: Sequence[Request]) -> list[Request]:
    """CPUs before GPUs, and of each the best first: wider vectors, then more features; newer GPUs."""
    unique = {request.machine.name: request for request in requests}

    def rank(machine: Machine) -> tuple[bool, int, int]:
        if machine.gpu is not None:
            return False, *machine.gpu.capability
        return True, machine.cpu.vector_bytes, len(machine.features)

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


def compile_library(
    functions: Mapping[str, Function],
    machine: Machine,
    path: Path,
    others: Mapping[str, Any] | None = None,
) -> None:
    """Compile scheduled functions for one machine and link them into a shared library.

    ``others`` are TIR functions by symbol that go into the same library.
    """
    # Not at the top: `tvmconv build --help` and a wrong argument need not wait for TVM.
    from tvmconv.building.compile import compile_functions

    flat: dict[str, Any] = dict(others or {})
    for key, function in functions.items():
        flat[key] = function.main
        if function.pack is not None:
            flat[pack_symbol(key)] = function.pack
    executable = compile_functions(flat, machine.target)
    executable.export_library(str(path), fcompile=cross.link_for(machine.architecture))
    if flat:
        linked.check_device_code(path, machine)


def _variant(
    specs: Sequence[ConvSpec], request: Request, staging: Path, report: Progress
) -> manifest.Variant:
    report(f"scheduling {len(specs)} kernels for {request.machine.name}", 0, _STEPS)
    return variant(specs, request, scheduled(specs, request), staging, report)


def variant(
    specs: Sequence[ConvSpec],
    request: Request,
    functions: Mapping[str, Function],
    staging: Path,
    report: Progress,
    others: Mapping[str, Any] | None = None,
) -> manifest.Variant:
    """Compile scheduled functions, and ``others``, into the bundle ``staging``; returns their entry."""
    machine = request.machine
    report(f"compiling {len(functions)} kernels for {machine.name}", 1, _STEPS)
    library = staging / manifest.library_name(machine.name)
    compile_library(functions, machine, library, others)
    runtime = _runtime(machine, staging, "libtvm_runtime")
    cuda = _runtime(machine, staging, "libtvm_runtime_cuda") if machine.gpu else None
    glibc = linked.checked_glibc(machine, [library], runtime, *([cuda] if cuda else []))
    report(f"{machine.name} is built", _STEPS, _STEPS)
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


def _manifest(
    keys: Sequence[str], variants: Sequence[manifest.Variant], model: ModelEntry | None
) -> manifest.Manifest:
    import tvm
    import tvm_ffi

    return manifest.Manifest(
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        tvmconv=__version__,
        tvm=tvm.__version__,
        tvm_ffi=tvm_ffi.__version__,
        keys=tuple(keys),
        variants=tuple(variants),
        model=model,
    )
