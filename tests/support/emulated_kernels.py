"""Compiles the CUDA C++ that TVM writes for the CPU, and does so as an nvcc on PATH; standard library only.

As nvcc it calls the real one, and leaves beside it, as ``HASH.so`` in the folder $EMULATED_KERNELS, what the
emulated driver (emulated_cuda/) runs in place of the image of that hash.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import emulated_ptx

from tvmconv.lowering.cuda.prelude import PRELUDE

HEADER = Path(__file__).with_name("emulated_gpu.h")
# An access of an address that its type does not allow stops the kernel, as on a GPU.
_OPTIONS = ["-O1", "-w", "-std=c++17", "-fPIC", "-fsanitize=alignment"]
_OPTIONS += ["-fsanitize-undefined-trap-on-error"]
_KERNEL = re.compile(
    r'extern "C" __global__ void (?:__cluster_dims__\((\d+), 1, 1\) )?__launch_bounds__\((\d+)\) (\w+)'
    r"\(([^)]*)\) \{"
)
_BOUNDS = ("__launch_bounds__", "__cluster_dims__")
_SHARED = re.compile(r"extern __shared__[^;]*;")


@dataclass(frozen=True)
class Kernel:
    """A kernel: (type, name) of its parameters, most threads of a block, blocks of a cluster."""

    name: str
    parameters: tuple[tuple[str, str], ...]
    threads: int
    cluster: int


def kernels(source: str) -> list[Kernel]:
    """The kernels that are defined in a source."""
    found = []
    for cluster, threads, name, text in _KERNEL.findall(source):
        parts = (part.replace("__restrict__", "").rsplit(None, 1) for part in text.split(","))
        parameters = tuple((kind.strip(), parameter) for kind, parameter in parts)
        found.append(Kernel(name, parameters, int(threads), int(cluster or 1)))
    return found


def headers() -> Path | None:
    """The folder of CUDA's headers."""
    nvcc = real_nvcc()
    roots = [] if nvcc is None else [*Path(nvcc).resolve().parents]
    roots += [Path("/usr/local/cuda")]
    return next((r / "include" for r in roots if (r / "include" / "cuda_fp16.h").exists()), None)


def real_nvcc() -> str | None:
    """NVIDIA's own nvcc, whatever stands in front of it on PATH."""
    here = os.environ.get("EMULATED_NVCC_FOLDER", "")
    from tvmconv.hardware.cuda_driver import package_folders, toolkit_folders

    places = [each for each in os.environ.get("PATH", "").split(os.pathsep) if each != here]
    places += [str(each) for each in (*toolkit_folders("bin"), *package_folders("bin"))]
    return shutil.which("nvcc", path=os.pathsep.join(places))


def compile_source(source: str, arch: str, library: Path) -> list[Kernel]:
    """Compile all kernels of a source into ``library`` as they are for ``arch``, and return them.

    The prelude may stand in front of it, and between its parts.
    """
    source = source.replace(PRELUDE, "")
    found = kernels(source)
    text = emulated_ptx.translated(PRELUDE, arch) + _SHARED.sub("", source)
    assert "__shared__" not in text, "only dynamic shared memory is emulated"
    code = "".join(f"#undef {each}\n#define {each}(...)\n" for each in _BOUNDS) + text
    code += "".join(map(_wrapper, found)) + _table(found) + _RUN
    path = library.with_name(f"{library.stem}-{os.getpid()}.cpp")
    made = path.with_suffix(".so.tmp")
    path.write_text(code)
    command = ["g++", *_OPTIONS, f"-I{headers()}", "-include", str(_precompiled(library.parent))]
    done = subprocess.run(
        [*command, "-shared", "-o", str(made), str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"g++ cannot compile {path}: {done.stderr[:3000]}")
    os.replace(made, library)
    path.unlink()
    return found


def _precompiled(folder: Path) -> Path:
    """The header, compiled once for a folder: CUDA's own headers take most of the time."""
    copy = folder / HEADER.name
    target = folder / f"{HEADER.name}.gch"
    if not target.exists():
        if not copy.exists():
            shutil.copyfile(HEADER, copy)
        scratch = folder / f"{HEADER.name}-{os.getpid()}.gch"
        options = [*_OPTIONS, f"-I{headers()}", "-x", "c++-header", "-o", str(scratch), str(copy)]
        subprocess.run(["g++", *options], check=True)
        os.replace(scratch, target)
    return copy


def _wrapper(kernel: Kernel) -> str:
    for kind, name in kernel.parameters:
        assert kind.endswith("*"), (
            f"{kernel.name} takes {name} as {kind}: only addresses are emulated"
        )
    given = ", ".join(
        f"*({kind}*)values[{number}]" for number, (kind, _) in enumerate(kernel.parameters)
    )
    return f"\nstatic void run_{kernel.name}(void** values) {{ {kernel.name}({given}); }}\n"


def _table(found: list[Kernel]) -> str:
    rows = [
        f'{{"{each.name}", {len(each.parameters)}, {each.threads}, {each.cluster}}}'
        for each in found
    ]
    runs = ", ".join(f"run_{kernel.name}" for kernel in found)
    return (
        "struct EmulatedKernel { const char* name; int parameters, max_threads, cluster; };\n"
        f'extern "C" const EmulatedKernel emulated_kernels[] = {{{", ".join([*rows, "{}"])}}};\n'
        f"static void (*const runs[])(void**) = {{{runs}}};\n"
    )


_RUN = """
extern "C" int emulated_run(int which, void** values, const unsigned* grid, const unsigned* block,
                            size_t shared, unsigned seed) {
  const int cluster = emulated_kernels[which].cluster;
  return emulated::launch(grid, block, cluster, shared, seed, [=] { runs[which](values); });
}
"""


def main(arguments: list[str]) -> int:
    """What nvcc does, and the same for the emulated driver."""
    nvcc = real_nvcc()
    assert nvcc is not None, "no nvcc behind this one"
    done = subprocess.run([nvcc, *arguments], capture_output=True, text=True, check=False)
    sys.stdout.write(done.stdout)
    sys.stderr.write(done.stderr)
    if done.returncode == 0 and "--fatbin" in arguments:
        image = Path(arguments[arguments.index("-o") + 1]).read_bytes()
        driver = ctypes.CDLL(os.environ["EMULATED_DRIVER"])
        driver.emulated_image_hash.restype = ctypes.c_ulonglong
        name = driver.emulated_image_hash(image, ctypes.c_size_t(len(image)))
        library = Path(os.environ["EMULATED_KERNELS"]) / f"{name:016x}.so"
        (arch,) = {sm for each in arguments for sm in re.findall(r"code=\[(sm_\d+)", each)}
        compile_source(Path(arguments[-1]).read_text(), arch, library)
    return done.returncode


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
