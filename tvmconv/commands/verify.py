"""Check every kernel of a bundle against the oracle, on random data and on misaligned arrays.

It needs the bundle, NumPy and apache-tvm-ffi, so it also runs on the board that the bundle is for. Kernels
for GPUs are checked where there is one, and said not to be where there is none.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from typing import Any

from tvmconv.bundle import gpu_variants
from tvmconv.bundle import manifest as bundle
from tvmconv.commands.show import tables
from tvmconv.errors import DeviceError, MissingToolError, TvmconvError
from tvmconv.hardware import cuda_driver


@dataclasses.dataclass(frozen=True)
class Result:
    """What came of one kernel: its worst error beside what is allowed there, or why it failed.

    ``checked`` is False where an earlier kernel left the GPU unusable for this process.
    """

    key: str
    schedule: str
    error: float | None
    allowed: float | None
    failure: str | None
    checked: bool = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("bundle", metavar="BUNDLE", help="a directory made by tvmconv build")
    parser.add_argument(
        "--machine",
        metavar="M",
        help="check this variant, or a board's (default: what load takes)",
    )
    parser.add_argument(
        "--device",
        metavar="D",
        help="check there alone: cpu, cuda, cuda:1 (default: the CPU, then the first GPU)",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="threads a call (default: all)")
    parser.add_argument("--verbose", action="store_true", help="also show kernels that are right")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Check all kernels; 1 when one is wrong."""
    from tvmconv import runtime

    manifest = bundle.read_manifest(args.bundle)
    on_gpu = {variant.machine for variant in manifest.variants if variant.gpu}
    device = args.device or ("cuda" if args.machine in on_gpu else None)
    libraries: list[Any] = [runtime.load(args.bundle, args.threads, args.machine, device=device)]
    unchecked = None
    if not libraries[0].variant.gpu and not (args.device or args.machine) and on_gpu:
        unchecked = _no_gpu(manifest)
        if unchecked is None:
            libraries.append(runtime.load(args.bundle, device="cuda"))
    checked = [(library, _results(library, args.json)) for library in libraries]
    if args.json:
        tables.show_json(_as_json(checked, unchecked))
    else:
        _report(checked, args.verbose)
        if unchecked:
            print(f"not checked: {', '.join(sorted(on_gpu))} are for GPUs; {unchecked}")
    return 1 if any(result.failure for _, results in checked for result in results) else 0


def _no_gpu(manifest: bundle.Manifest) -> str | None:
    """Why no variant for a GPU runs here; None where one does."""
    try:
        devices = cuda_driver.devices()
    except MissingToolError as error:
        return str(error)
    if not devices:
        return "this machine shows no NVIDIA GPU"
    archs = [variant.gpu for variant in manifest.variants if variant.gpu]
    if any(gpu_variants.runs_on(arch, devices[0]) for arch in archs):
        return None
    return f"{devices[0]} is older than {', '.join(archs)}"


def _results(library: Any, quiet: bool) -> list[Result]:
    results: list[Result] = []
    with tables.progress(quiet=quiet) as report:
        for number, key in enumerate(library):
            report(key, number + 1, len(library))
            if results and _spoilt(library, results[-1]):
                results.append(_unchecked(library[key], results[-1]))
            else:
                results.append(check(library[key]))
    return results


def _spoilt(library: Any, before: Result) -> bool:
    """Whether a GPU refuses everything since the kernel before, as after an illegal address."""
    if before.failure is None or not library.variant.gpu:
        return False
    try:
        library.gpu.synchronize(0)
    except DeviceError:
        return True
    return False


def _unchecked(kernel: Any, before: Result) -> Result:
    why = before.failure
    if before.checked:
        why = f"CUDA refuses everything in this process since {before.key} failed"
    return Result(kernel.spec.key, kernel.schedule, None, None, why, checked=False)


def _report(checked: Sequence[tuple[Any, list[Result]]], verbose: bool) -> None:
    for library, results in checked:
        machine = library.variant.machine
        failed = [result for result in results if result.failure]
        _show(machine, results if verbose else failed)
        right = f"{len(results) - len(failed)} of {len(results)} kernels for {machine} are right"
        print(f"{right} {_where(library)}")


def _where(library: Any) -> str:
    if library.variant.gpu:
        return f"on {library.gpu.device}"
    return f"with {library.threads} threads"


def check(kernel: Any) -> Result:
    """Compare a kernel with the oracle in two calls.

    The second is with every array misaligned; on a GPU, which takes no such arrays, between guards.
    """
    from tvmconv import runtime
    from tvmconv.checking import gpu as gpu_check
    from tvmconv.checking import oracle
    from tvmconv.runtime import tensors

    spec = kernel.spec
    try:
        if isinstance(kernel, runtime.GpuKernel):
            found = gpu_check.check(kernel)
            return Result(spec.key, kernel.schedule, found.error, found.allowed, None)
        arguments = oracle.random_arguments(spec, seed=0, wrap=spec.out_dtype == "int32")
        expected = oracle.conv(spec, **arguments)
        first = oracle.assert_close(spec, expected, _call(kernel, arguments))
        shifted = {name: _misaligned(array) for name, array in arguments.items()}
        out = _misaligned(expected.astype(tensors.numpy_dtype(spec.out_dtype)))
        out[...] = 0
        second = oracle.assert_close(spec, expected, _call(kernel, shifted, out))
    except TvmconvError as error:
        return Result(spec.key, kernel.schedule, None, None, str(error))
    worst = max(first, second, key=lambda difference: difference.error)
    return Result(spec.key, kernel.schedule, worst.error, worst.allowed, None)


def _call(kernel: Any, arguments: dict[str, Any], out: Any = None) -> Any:
    return kernel(
        arguments["data"],
        arguments["filter"],
        arguments.get("bias"),
        arguments.get("residual"),
        out,
    )


def _misaligned(array: Any) -> Any:
    """Return a copy that begins one element behind a 64-byte boundary, as slices may."""
    from tvmconv.runtime import empty_aligned

    copy = empty_aligned((array.size + 1,), array.dtype)[1:].reshape(array.shape)
    copy[...] = array
    return copy


def _show(machine: str, results: list[Result]) -> None:
    passed = [result for result in results if not result.failure]
    if passed:
        tables.show_table(
            ("kernel", "schedule", "error", "allowed"),
            [(r.key, r.schedule, f"{r.error:.2g}", f"{r.allowed:.2g}") for r in passed],
        )
    for result in results:
        if result.failure:
            word = "WRONG" if result.checked else "NOT CHECKED"
            print(f"{word} ({result.schedule}, {machine}): {result.failure}")


def _as_json(checked: Sequence[tuple[Any, list[Result]]], unchecked: str | None) -> dict[str, Any]:
    (library, results), *others = checked
    body: dict[str, Any] = {
        "machine": library.variant.machine,
        "kernels": [dataclasses.asdict(result) for result in results],
    }
    for other, found in others:
        body["gpu"] = {
            "machine": other.variant.machine,
            "device": str(other.gpu.device),
            "kernels": [dataclasses.asdict(result) for result in found],
        }
    return {**body, "gpu_not_checked": unchecked}
