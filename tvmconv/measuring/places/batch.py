"""A batch of built candidates in one file, for a machine that measures them without TVM and a network.

::

    candidates.tar
      batch.json                      what is here, with checksums
      libtvm_runtime-aarch64.so       what the candidates need to run
      0-4711-1.so, ...                the roof's loops, candidates, packing functions

The tuner and the machine that measures share this module; it uses the standard library only.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tvmconv import writing
from tvmconv.bundle import variants
from tvmconv.errors import BatchError, IncompatibleMachineError
from tvmconv.files import decode, open_file, parse_json
from tvmconv.hardware import Machine, host
from tvmconv.measuring.process import device
from tvmconv.measuring.process.candidate import Built, Candidate

# 2 has kernels for GPUs; 3 a machine with a core, of a CPU or of a GPU, and the work of each kernel.
FORMAT = 3
_MANIFEST = "batch.json"
_LARGEST = 1 << 30  # bytes of a file: a candidate has a few thousand, TVM's runtime a few million
_AGAIN = "copy it again, or make a new one: tvmconv tune WORKLOAD --machine M --export FILE"


@dataclass(frozen=True)
class Kernel:
    """A candidate as it was compiled, its files by name alone.

    ``seconds`` is None for what is to be measured, and known for what was measured before: a yardstick,
    or a rival in the last comparison.
    """

    schedule: str
    decisions: dict[str, int | str]
    built: Built
    seconds: float | None = None

    @property
    def candidate(self) -> Candidate:
        """Without what was compiled of it."""
        return Candidate(self.schedule, self.decisions)


@dataclass(frozen=True)
class LayerKernels:
    """One layer's kernels; the first is the schedule's default."""

    key: str
    kernels: tuple[Kernel, ...]


@dataclass(frozen=True)
class Batch:
    """What is measured, and how.

    Attributes:
        machine: what the kernels were compiled for.
        os, glibc: as in `bundle.Variant`.
        threads, cache: of a call, as in `runner.Conditions`.
        finalists, rounds, processes: how each layer's fastest are compared with the default.
        runtime, roof: files; ``files`` has the SHA-256 of each file by its name. A GPU has no roof.
        cuda_runtime: the file of TVM's runtime for GPUs, None for a CPU.
        tvmconv, tvm_ffi: versions of who made it.
    """

    machine: Machine
    os: str
    glibc: str | None
    threads: int
    cache: str
    finalists: int
    rounds: int
    processes: int
    runtime: str
    roof: str | None
    cuda_runtime: str | None
    files: dict[str, str]
    layers: tuple[LayerKernels, ...]
    tvmconv: str
    tvm_ffi: str
    format: int = FORMAT

    @property
    def architecture(self) -> str:
        """Of the machine."""
        return self.machine.architecture

    @property
    def features(self) -> tuple[str, ...]:
        """What the machine must have."""
        return self.machine.features

    @property
    def name(self) -> str:
        """Different for every batch: results name it."""
        return hashlib.sha256(_text(self)).hexdigest()[:16]

    def require_here(self) -> None:
        """Raise IncompatibleMachineError, with what is lacking, where this process cannot run it.

        Or MissingToolError, where the GPU's driver is too old or CUDA's runtime library is not here.
        """
        found = host.architecture(), host.cpu_features(), host.operating_system(), host.glibc()
        reason = variants.obstacle(self, *found)
        if reason is not None:
            raise IncompatibleMachineError(
                f"this batch cannot be measured here: {self.machine.name} {reason}. Measure it on a "
                f"{self.machine.name}, or export one for this machine (`tvmconv machines` there names it)"
            )
        if self.machine.gpu is not None:
            device.find(self.machine)


def write(file: Path, batch: Batch, paths: Iterable[Path]) -> None:
    """Write the tar, whole or not at all; ``paths`` are all files that the batch names."""
    with writing.replacing(file) as stream, tarfile.open(fileobj=stream, mode="w") as tar:
        content = _text(batch)
        head = tarfile.TarInfo(_MANIFEST)
        head.size = len(content)
        tar.addfile(head, io.BytesIO(content))
        for path in paths:
            tar.add(path, path.name, filter=_anonymous)


def unpack(file: Path, folder: Path) -> Batch:
    """Check that this machine can run a batch and that all of it is there, and unpack it.

    Raises BatchError for a file that is torn or something else, IncompatibleMachineError before anything
    is unpacked.
    """
    try:
        with open_file(file) as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            batch = parse(_member(tar, _MANIFEST), str(file))
            batch.require_here()
            for name, digest in batch.files.items():
                content = _member(tar, name)
                if hashlib.sha256(content).hexdigest() != digest:
                    raise BatchError(f"{file} is altered: {name} is not what it was; {_AGAIN}")
                (folder / name).write_bytes(content)
    except (tarfile.TarError, EOFError, KeyError, ValueError) as error:
        raise BatchError(
            f"{file} is torn, or no batch of candidates ({error}); {_AGAIN}"
        ) from error
    return batch


def encode(batch: Batch) -> dict[str, Any]:
    """As JSON takes it; `parse` reads it."""
    return dataclasses.asdict(batch)


def parse(text: str | bytes, where: str) -> Batch:
    """Return the batch that JSON spells; raises BatchError that begins with ``where``."""
    try:
        body = parse_json(text)
        found = body.get("format")
        if found != FORMAT:
            writer = body.get("tvmconv", "?")
            raise BatchError(
                f"{where} has format {found}, written by tvmconv {writer}; this tvmconv reads format "
                f"{FORMAT}. Install the same tvmconv on both machines."
            )
        batch: Batch = decode(Batch, body, "batch")
        for name in batch.files:  # a path would write outside the folder
            if not name or name.startswith(".") or "/" in name or "\0" in name:
                raise ValueError(f"{name!r} is not a plain file name")
        named = {k.built.library for layer in batch.layers for k in layer.kernels}
        others = {batch.runtime, batch.roof, batch.cuda_runtime} - {None}
        if not {*others, *named} <= set(batch.files):
            raise ValueError("it names libraries that it does not hold")
    except (ValueError, AttributeError) as error:
        raise BatchError(f"{where} is damaged ({error}); {_AGAIN}") from error
    return batch


def _text(batch: Batch) -> bytes:
    return json.dumps(encode(batch), sort_keys=True).encode()


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    member = tar.getmember(name)
    # A link may point at itself, and a file with holes has any size.
    if not member.isreg() or member.sparse is not None:
        raise KeyError(f"{name} is no plain file")
    if member.size > _LARGEST:
        raise KeyError(f"{name} has more than {_LARGEST} bytes")
    stream = tar.extractfile(member)
    content = b"" if stream is None else stream.read()
    if len(content) != member.size:
        raise EOFError(f"{name} ends after {len(content)} of {member.size} bytes")
    return content


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without who made it and when, which nobody on a board needs to know."""
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member
