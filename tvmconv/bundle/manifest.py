"""The bundle: a directory of compiled kernels and the manifest that describes them.

::

    kernels.tvmconv/
      manifest.json                 what is here, for which CPU features, with checksums
      sapphirerapids.so             one kernel library per variant
      libtvm_runtime-x86_64.so      what the kernels need to run, one per architecture
      sm_90.so                      kernels for a GPU, launched from a CPU of any kind
      libtvm_runtime_cuda-x86_64.so what those need besides
      sapphirerapids.weights.bin    of a whole model: its weights, packed for the kernels

Build and runtime share this module; it knows nothing of TVM and uses the standard library only.
"""

# No `from __future__ import annotations`: whoever decodes them would evaluate strings, 1 ms a process.
import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tvmconv import errors, writing
from tvmconv.bundle.folder import File, Folder
from tvmconv.bundle.model_entries import ModelEntry, ProgramEntry
from tvmconv.files import decode, parse_json
from tvmconv.problem.rules import FLOAT_DTYPES

# 2 says which glibc, 3 which GPU, what else a machine is called, and scratch memory, 4 a whole model
FORMAT = 4
MANIFEST_NAME = "manifest.json"
LIBRARY_SUFFIX = ".so"
WEIGHTS_SUFFIX = ".weights.bin"
_CHECKSUM = "checksum"
_GPU_ARCH = re.compile(r"sm_[1-9][0-9]{1,3}")
_RELEASE = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6}){1,3}")
_SYMBOL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PACKED_DTYPES = {
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    *FLOAT_DTYPES,
}
_BUILD = "tvmconv build WORKLOAD --machine host --output PATH"
_COMPILE = "tvmconv compile MODEL --machine host --output PATH"
REBUILD = f"{_BUILD}, or of a model: {_COMPILE}"  # where it is not known what a bundle holds


def remake(of_model: bool) -> str:
    """The command that makes a bundle again, of kernels or of a whole model."""
    return _COMPILE if of_model else _BUILD


@dataclasses.dataclass(frozen=True)
class PackEntry:
    """The function that rearranges a filter once, and the shape and dtype of the array it fills."""

    symbol: str
    shape: tuple[int, ...]
    dtype: str


@dataclasses.dataclass(frozen=True)
class KernelEntry:
    """One compiled problem: its symbol (None when the output is empty) and how it was scheduled.

    ``record`` names the tuning record that the decisions come from, None for default decisions.
    ``pack`` is None when the kernel takes the filter as TensorFlow lays it out. ``workspace`` is how many
    bytes of scratch memory a call of a GPU kernel is given behind its inputs.
    """

    symbol: str | None
    schedule: str
    decisions: dict[str, Any]
    record: str | None = None
    pack: PackEntry | None = None
    workspace: int = 0

    @property
    def packed_shape(self) -> tuple[int, ...]:
        """As `calling.Compiled` has it; so are the next two."""
        return self.pack.shape if self.pack else ()

    @property
    def packed_dtype(self) -> str:
        """Empty where the kernel takes the filter as it is."""
        return self.pack.dtype if self.pack else ""

    @property
    def workspace_bytes(self) -> int:
        """Of scratch memory; 0 for none."""
        return self.workspace


@dataclasses.dataclass(frozen=True)
class RuntimeEntry:
    """The copy of a runtime library of TVM in the bundle: file name and SHA-256 (hex)."""

    file: str
    sha256: str


@dataclasses.dataclass(frozen=True)
class Variant:
    """All kernels compiled for one kind of CPU, or for one of GPU.

    ``also`` are other names of the machine: boards that have it.
    ``features`` are the ``/proc/cpuinfo`` names of everything the compiler was allowed to use;
    ``glibc`` is the oldest C library that kernels and runtime were linked for, None where they need
    none; ``kernels`` maps each of the manifest's keys to its entry. ``gpu`` is the architecture of a GPU
    variant's machine code, like ``sm_90``, beside which there is PTX for newer ones; ``architecture`` and
    ``features`` are then the host's, and ``cuda_runtime`` is the entry of ``libtvm_runtime_cuda.so``.
    ``program`` is what computes the manifest's model, None in a bundle of kernels.
    """

    machine: str
    architecture: str
    os: str
    library: str
    sha256: str
    features: tuple[str, ...]
    glibc: str | None
    runtime: RuntimeEntry
    kernels: dict[str, KernelEntry]
    gpu: str | None = None
    cuda_runtime: RuntimeEntry | None = None
    also: tuple[str, ...] = ()
    program: ProgramEntry | None = None

    @property
    def files(self) -> list[tuple[str, str]]:
        """The names and SHA-256 of the files that the variant needs."""
        runtimes = [self.runtime, *([self.cuda_runtime] if self.cuda_runtime else [])]
        weights = [(self.program.weights, self.program.sha256)] if self.program else []
        return [
            (self.library, self.sha256),
            *((each.file, each.sha256) for each in runtimes),
            *weights,
        ]

    def is_called(self, name: str) -> bool:
        """Whether ``name`` is the machine's, or a board's that has it."""
        return name == self.machine or name in self.also


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Everything a bundle says of itself; ``variants`` are ordered best first.

    ``created`` is an ISO 8601 time; ``tvmconv``, ``tvm``, ``tvm_ffi`` are versions at the build. ``model``
    is what a whole model takes and makes, None in a bundle of kernels.
    """

    created: str
    tvmconv: str
    tvm: str
    tvm_ffi: str
    keys: tuple[str, ...]
    variants: tuple[Variant, ...]
    model: ModelEntry | None = None
    format: int = FORMAT


def runtime_name(architecture: str, library: str = "libtvm_runtime") -> str:
    """Return the file name of a runtime library in a bundle: ``libtvm_runtime-x86_64.so``."""
    return f"{library}-{architecture}{LIBRARY_SUFFIX}"


def library_name(machine: str) -> str:
    """Return the file name of a variant's kernels in a bundle: ``sapphirerapids.so``."""
    return f"{machine}{LIBRARY_SUFFIX}"


def weights_name(machine: str) -> str:
    """Return the file name of a variant's packed weights in a bundle: ``sapphirerapids.weights.bin``."""
    return f"{machine}{WEIGHTS_SUFFIX}"


def file_digest(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file in hexadecimal; raises OSError as ``open`` does."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_manifest(path: str | os.PathLike[str], manifest: Manifest) -> None:
    """Write ``manifest.json`` into the directory ``path``, whole or not at all.

    Raises BundleError when the manifest would not be readable again, so a fault of the builder
    shows on the build machine and not on the user's.
    """
    body = dataclasses.asdict(manifest)
    body = {"format": body.pop("format"), **body}
    # Through JSON and back, so that the checksum covers what a reader will see.
    body = json.loads(json.dumps(body))
    body[_CHECKSUM] = _checksum(body)
    target = Path(path) / MANIFEST_NAME
    _parse(body, target)
    writing.replace(target, f"{json.dumps(body, indent=1)}\n".encode())


def read_manifest(path: str | os.PathLike[str]) -> Manifest:
    """Read and check the manifest of the bundle directory ``path``.

    Raises BundleError when ``path`` is no directory or holds no manifest, and when the manifest is
    truncated, altered, incomplete or of a newer format.
    """
    with open_folder(path) as folder:
        return parse_manifest(manifest_file(folder))


def open_folder(path: str | os.PathLike[str]) -> Folder:
    """Open the bundle directory ``path``; BundleError when it is none."""
    directory = Path(path)
    try:
        return Folder(directory)
    except NotADirectoryError:
        what = "is a file"
    except FileNotFoundError:
        what = "does not exist"
    except (OSError, ValueError) as error:  # the latter: a null character
        raise errors.BundleError(f"{directory} cannot be opened: {error}") from error
    raise errors.BundleError(f"{directory} {what}; a bundle is a directory made by: {REBUILD}")


def manifest_file(folder: Folder) -> File:
    """Read ``manifest.json``; BundleError when there is none."""
    try:
        return folder.read(MANIFEST_NAME)
    except FileNotFoundError:
        raise errors.BundleError(
            f"{folder.path} holds no {MANIFEST_NAME}, so it is no bundle; make one with: {REBUILD}"
        ) from None
    except OSError as error:
        raise errors.BundleError(
            f"{folder.path / MANIFEST_NAME} cannot be read: {error}"
        ) from error


def parse_manifest(file: File) -> Manifest:
    """Check the contents of ``manifest.json``; raises BundleError as `read_manifest` does."""
    try:
        body = parse_json(file.contents)
    except ValueError as error:
        raise errors.BundleError(
            f"{file.path} is truncated or damaged ({error}); copy the bundle again, or: {REBUILD}"
        ) from error
    return _parse(body, file.path)


def _checksum(body: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in body.items() if name != _CHECKSUM}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _parse(body: object, file: Path) -> Manifest:
    """Turn decoded JSON into a Manifest, or raise BundleError; ``file`` is for the messages."""
    if not isinstance(body, dict) or type(body.get("format")) is not int:
        raise errors.BundleError(f"{file} is no tvmconv manifest; make a bundle with: {REBUILD}")
    again = remake(body.get("model") is not None)
    if body["format"] != FORMAT:
        writer = body.get("tvmconv", "?")
        raise errors.BundleError(
            f"{file} has format {body['format']}, written by tvmconv {writer}; this tvmconv reads "
            f"format {FORMAT}. "
            + (
                f"Run: pip install 'tvmconv>={writer}'"
                if body["format"] > FORMAT
                else f"Make the bundle again: {again}"
            )
        )
    if body.get(_CHECKSUM) != _checksum(body):
        raise errors.BundleError(
            f"{file} was altered after it was built: its contents do not match its checksum; "
            f"copy the bundle again, or: {again}"
        )
    rest = {name: value for name, value in body.items() if name != _CHECKSUM}
    try:
        manifest: Manifest = decode(Manifest, rest, "manifest")
        _check(manifest)
    except ValueError as error:
        raise errors.BundleError(f"{file}: {error}; make the bundle again: {again}") from error
    return manifest


def _check(manifest: Manifest) -> None:
    """Raise ValueError where well-typed fields contradict each other."""
    if not manifest.variants:
        raise ValueError("the bundle has no variant")
    for variant in manifest.variants:
        for name, _ in variant.files:
            # A path would let a manifest open a library from outside the bundle.
            if not name or name.startswith(".") or "/" in name or "\0" in name:
                raise ValueError(f"{name!r} is not a plain file name")
        if (variant.gpu is None) != (variant.cuda_runtime is None):
            raise ValueError(
                f"variant {variant.machine} has gpu without cuda_runtime, or that alone"
            )
        if variant.gpu is not None and not _GPU_ARCH.fullmatch(variant.gpu):
            raise ValueError(f"gpu of variant {variant.machine} is {variant.gpu!r}, not like sm_90")
        if (manifest.model is None) != (variant.program is None):
            raise ValueError(
                f"variant {variant.machine} has a program without a model, or none for it"
            )
        if variant.glibc is not None and not _RELEASE.fullmatch(variant.glibc):
            raise ValueError(
                f"glibc of variant {variant.machine} is {variant.glibc!r}, not like 2.28"
            )
        for key, entry in variant.kernels.items():
            _check_kernel(f"kernel {key} of variant {variant.machine}", entry)
        if set(variant.kernels) != set(manifest.keys):
            differing = sorted(set(variant.kernels) ^ set(manifest.keys))
            raise ValueError(f"the kernels of variant {variant.machine} are not {differing}")


def _check_kernel(name: str, entry: KernelEntry) -> None:
    if entry.workspace < 0:
        raise ValueError(f"{name} has a workspace below 0")
    symbols = [entry.symbol, entry.pack.symbol if entry.pack else None]
    if any(symbol is not None and not _SYMBOL.fullmatch(symbol) for symbol in symbols):
        raise ValueError(f"{name} has a symbol that is no name in C: {symbols}")
    if entry.pack is None:
        return
    if not entry.pack.shape or min(entry.pack.shape) < 1 or max(entry.pack.shape) >= 1 << 31:
        raise ValueError(f"{name} has a filter packed to {entry.pack.shape}, which no array is")
    if entry.pack.dtype not in _PACKED_DTYPES:
        raise ValueError(f"{name} has a filter packed as {entry.pack.dtype!r}")
