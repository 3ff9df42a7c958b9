"""Makes device code of the CUDA C++ that TVM writes, on any machine: no GPU and no driver are needed.

TVM asks a global function of Python for the device code of a module, and where the CUDA runtime cannot be
opened, it silently puts the source into the library in place of machine code. `compiling` sees to both.
"""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tvmconv import writing
from tvmconv.building import toolchain
from tvmconv.building.cuda import nvrtc as cuda_nvrtc
from tvmconv.building.cuda import stub as cuda_stub
from tvmconv.building.cuda import tools as cuda_tools
from tvmconv.errors import BuildError, MissingToolError, TvmconvError
from tvmconv.lowering.cuda.prelude import PRELUDE

_CALLBACK = "tvm_callback_cuda_compile"
_SHOWN_ERRORS = 5


@dataclass(frozen=True)
class Report:
    """What ptxas says of one kernel; memory in bytes, for one thread where it is stack or spilt.

    ``shared_bytes`` is what the code declares; dynamic shared memory is asked for at the launch.
    """

    kernel: str
    arch: str
    registers: int
    shared_bytes: int
    stack_bytes: int
    spill_stores: int
    spill_loads: int


@dataclass(frozen=True)
class Compiled:
    """Device code of one module, a fatbin; what it was made of; and ptxas's reports."""

    image: bytes
    source: str
    reports: tuple[Report, ...]


@dataclass
class Session:
    """Everything that was compiled inside one `compiling`."""

    arch: str
    modules: list[Compiled] = field(default_factory=list)
    error: TvmconvError | None = None

    @property
    def reports(self) -> list[Report]:
        """Of all kernels, in the order of compilation."""
        return [report for module in self.modules for report in module.reports]


_lock = threading.RLock()
_active: list[Session] = []


def check_compiler() -> toolchain.Check:
    """Something to compile CUDA with; see `tvmconv.building.cuda.tools`."""
    return cuda_tools.check_compiler()


@contextmanager
def compiling(arch: str) -> Iterator[Session]:
    """While this is open, ``tvm.compile`` makes device code for ``arch``, like ``sm_90``.

    One inside another of the same architecture adds to the outer one's session, from which a test reads
    the reports of what it compiled through `tvmconv.lowering.cpu`. TVM's own callback is there again
    afterwards. Raises MissingToolError without a compiler or the CUDA runtime, BuildError with the first
    error lines when a module cannot be compiled.
    """
    with _lock:
        if _active and _active[-1].arch == arch:
            with _errors_of(_active[-1]):
                yield _active[-1]
            return
        toolchain.require(cuda_tools.check_compiler(), cuda_tools.check_cudart())
        cuda_stub.open_cuda_runtime()
        session = Session(arch)
        _active.append(session)
        try:
            with _as_callback(session), _errors_of(session):
                yield session
        finally:
            _active.pop()


@contextmanager
def _errors_of(session: Session) -> Iterator[None]:
    """Raise the compiler's own error in place of what TVM makes of it: a RuntimeError with a traceback."""
    session.error = None
    try:
        yield
    except Exception as error:
        if session.error is not None:
            raise session.error from error
        raise


@contextmanager
def _as_callback(session: Session) -> Iterator[None]:
    """Have TVM ask ``session`` for device code, and whoever it asked before again afterwards."""
    import tvm_ffi
    from tvm.support import nvcc  # noqa: F401 - registers TVM's own, and fails where there is another

    before = tvm_ffi.get_global_func(_CALLBACK, allow_missing=True)
    tvm_ffi.register_global_func(_CALLBACK, _callback(session), override=True)
    try:
        yield
    finally:
        if before is None:
            tvm_ffi.registry.remove_global_func(_CALLBACK)
        else:
            tvm_ffi.register_global_func(_CALLBACK, before, override=True)


def _callback(session: Session) -> Callable[[str], bytes]:
    def compile_module(code: str) -> bytes:
        try:
            made = compile_source(code, session.arch)
        except TvmconvError as error:
            session.error = error
            raise
        session.modules.append(made)
        return made.image

    return compile_module


def compile_source(code: str, arch: str) -> Compiled:
    """Compile CUDA C++ with `PRELUDE` in front, for ``arch``; PTX for newer ones goes with it.

    Raises BuildError with the first error lines, MissingToolError without a compiler.
    """
    source = PRELUDE + _with_clusters(_one_shared_array(code))
    nvcc = cuda_tools.nvcc()
    if nvcc is not None:
        image, log = _run_nvcc(nvcc, source, arch)
    elif cuda_nvrtc.available():
        image, log = _run_nvrtc(source, arch)
    else:
        toolchain.require(cuda_tools.check_compiler())
        raise AssertionError("require raises")
    return Compiled(image, source, tuple(parse_reports(log)))


_DYNAMIC_SHARED = re.compile(r"extern __shared__ (__align__\(\d+\)) ([A-Za-z_][\w ]*?) ?(\w+)\[\];")


def _one_shared_array(code: str) -> str:
    """Have all kernels of a module declare dynamic shared memory in the same way.

    TVM declares it by one name in every kernel, in some of elements and in some of bytes; in one source file
    the second is an error. Under our name it has one type, and TVM's name becomes a pointer to it.
    """
    shared = r"extern __shared__ \1 unsigned char tvmconv_dynamic_shared[]; "
    return _DYNAMIC_SHARED.sub(shared + r"\2* const \3 = (\2*)tvmconv_dynamic_shared;", code)


_KERNEL = re.compile(r'extern "C" __global__ void (__launch_bounds__\(\d+\) )?(\w+)\(')
_MEET = re.compile(r"\btvmconv_meet<(\d+)>")


def _with_clusters(code: str) -> str:
    """Have every kernel whose blocks meet (`gpu.clusters`) say the size of its clusters."""
    sizes: dict[str, str] = {}
    for kernel in re.split(r'(?=extern "C" __global__ )', code)[1:]:
        name, meeting = _KERNEL.match(kernel), _MEET.search(kernel)
        if name and meeting:
            sizes[name.group(2)] = meeting.group(1)

    def sized(found: re.Match[str]) -> str:
        size = sizes.get(found.group(2))
        whole = found.group(0)
        return (
            whole
            if size is None
            else whole.replace("void ", f"void __cluster_dims__({size}, 1, 1) ")
        )

    return _KERNEL.sub(sized, code)


def _run_nvcc(nvcc: str, source: str, arch: str) -> tuple[bytes, str]:
    number = arch.removeprefix("sm_")
    with writing.scratch("tvmconv-cuda-") as folder:
        made = folder / "kernels.fatbin"
        (folder / "kernels.cu").write_text(source)
        done = subprocess.run(
            [
                # No --use_fast_math: it would round divisions and denormals otherwise than the oracle
                # allows, and exp and tanh of activations too.
                *(
                    nvcc,
                    "-O3",
                    "-std=c++17",
                    "--expt-relaxed-constexpr",
                    "--fatbin",
                    "-Xptxas",
                    "-v",
                ),
                *("-gencode", f"arch=compute_{number},code=[sm_{number},compute_{number}]"),
                *("-o", made.name, "kernels.cu"),
            ],
            cwd=folder,  # so that messages name kernels.cu and no scratch folder
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise BuildError(_failure(f"nvcc for {arch}", done.stderr + done.stdout))
        return made.read_bytes(), done.stderr + done.stdout


def _run_nvrtc(source: str, arch: str) -> tuple[bytes, str]:
    try:
        made = cuda_nvrtc.compile_source(source, arch)
    except BuildError as error:
        raise BuildError(_failure(f"NVRTC for {arch}", str(error))) from None
    return made.image, made.log


def _failure(who: str, log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r"\b(error|fatal)\b", line, re.IGNORECASE)]
    shown = "\n  ".join((errors or lines or ["it says nothing"])[:_SHOWN_ERRORS])
    return (
        f"{who} cannot compile the module:\n  {shown}\n"
        "If `tvmconv doctor` finds the compiler in order, this is a fault of a schedule: report it to who "
        "wrote its hardware pack"
    )


_COMPILING = re.compile(r"Compiling entry function '([^']+)' for '([^']+)'")
_STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")


def parse_reports(log: str) -> Iterator[Report]:
    """Read ptxas's ``-v`` output: one report for every kernel."""
    kernel = arch = ""
    stack = (0, 0, 0)
    for line in log.splitlines():
        if found := _COMPILING.search(line):
            kernel, arch = found.groups()
            stack = (0, 0, 0)
        elif found := _STACK.search(line):
            # A device function that was not inlined has lines of its own, in front of "Used".
            stack = tuple(max(pair) for pair in zip(stack, map(int, found.groups()), strict=True))  # type: ignore[assignment]
        elif kernel and (found := _USED.search(line)):
            shared = _SHARED.search(line)
            size = int(shared.group(1)) if shared else 0
            yield Report(kernel, arch, int(found.group(1)), size, *stack)
            kernel = ""


def sass(image: bytes) -> str:
    """Machine code of a fatbin or cubin as text, in which a test looks for HMMA, IMMA or LDGSTS.

    Raises MissingToolError without cuobjdump and nvdisasm.
    """
    cuobjdump, nvdisasm = cuda_tools.program("cuobjdump"), cuda_tools.program("nvdisasm")
    if cuobjdump is None or nvdisasm is None:
        raise MissingToolError(
            "cuobjdump and nvdisasm, which show machine code, are not here: "
            "pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm"
        )
    with writing.scratch("tvmconv-sass-") as folder:
        path = folder / "image.fatbin"
        path.write_bytes(image)
        done = subprocess.run(
            [cuobjdump, "--dump-sass", str(path)],
            capture_output=True,
            text=True,
            check=False,
            env=_with_path(nvdisasm),
        )
    if done.returncode != 0:
        raise BuildError(f"{cuobjdump} fails: {done.stderr.strip()}")
    return done.stdout


def _with_path(program: str) -> dict[str, str]:
    """The environment with the folder of ``program`` on PATH: cuobjdump calls nvdisasm."""
    return {**os.environ, "PATH": f"{Path(program).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
