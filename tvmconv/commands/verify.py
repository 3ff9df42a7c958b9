"""Check every kernel of a bundle against the oracle, on random data and on misaligned arrays.

Of a compiled model its convolutions are checked so too, and that its outputs are finite numbers on random
inputs. With --model FILE its outputs are compared with those of the model's own runtime: LiteRT for .tflite,
ONNX Runtime for .onnx, and where that is not installed, or with --reference, our reference in NumPy.

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
from tvmconv.commands.options import arguments
from tvmconv.commands.show import tables
from tvmconv.errors import DeviceError, MissingToolError, TvmconvError
from tvmconv.hardware import cuda_driver
from tvmconv.models.comparing import TOLERANCE


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
    parser.add_argument(
        "bundle", metavar="BUNDLE", help="a directory made by tvmconv build or tvmconv compile"
    )
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
    parser.add_argument(
        "--trusted", metavar="KEYFILE.pub", help="refuse a bundle that this key did not sign"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="threads a call (default: all)")
    parser.add_argument("--verbose", action="store_true", help="also show kernels that are right")
    parser.add_argument("--json", action="store_true", help="print JSON")
    whole = parser.add_argument_group("of a compiled model")
    whole.add_argument("--model", metavar="FILE", help="what it was compiled of, to compare with")
    whole.add_argument(
        "--reference", action="store_true", help="compare with our reference in NumPy, in float64"
    )
    whole.add_argument(
        "--tensors",
        action="store_true",
        help="compare every value between with our reference; compiles the model anew with all of them "
        "as outputs, and names the first layer that deviates",
    )
    whole.add_argument(
        "--input",
        action="append",
        default=[],
        type=_input,
        metavar="NAME=FILE.npy",
        help="an input; may be repeated (default: random)",
    )
    whole.add_argument("--seed", type=int, default=0, help="of random inputs (default: 0)")
    whole.add_argument(
        "--tolerance",
        type=arguments.positive_float,
        default=TOLERANCE,
        help=f"largest error allowed, of an output's largest value (default: {TOLERANCE:g})",
    )


def _input(text: str) -> tuple[str, str]:
    name, _, file = text.rpartition("=")
    if not name or not file:
        raise argparse.ArgumentTypeError(f"{text} is not NAME=FILE.npy")
    return name, file


def run(args: argparse.Namespace) -> int:
    """Check all kernels, or a model; 1 when something is wrong."""
    manifest = bundle.read_manifest(args.bundle)
    if manifest.model is not None:
        return _run_model(args)
    if args.model or args.reference or args.tensors or args.input:
        raise ValueError(
            f"{args.bundle} holds kernels, no model: leave out --model, --reference, --tensors and --input"
        )
    return _run_kernels(args, manifest)


def _run_model(args: argparse.Namespace) -> int:
    """Compare with ``--model``; without it check the convolutions, and that outputs are finite."""
    from tvmconv import runtime
    from tvmconv.commands.models import verify as models

    model = runtime.load(
        args.bundle, args.threads, args.machine, device=args.device, trusted=args.trusted
    )
    if args.model:
        return models.run(args, model)
    if args.reference or args.tensors or args.input:
        raise ValueError(
            "--reference, --tensors and --input compare with a model: add --model FILE"
        )
    library = models.kernels(model)
    results = _results(library, args.json)
    strange = models.not_finite(model, args.seed)
    if args.json:
        tables.show_json({**_as_json([(library, results)], None), "not_finite": strange})
    else:
        _report([(library, results)], args.verbose)
        finite = f"not finite: {', '.join(strange)}" if strange else "all finite numbers"
        print(f"outputs of the whole model on random inputs (seed {args.seed}): {finite}")
        print(f"to compare its values: tvmconv verify {args.bundle} --model FILE")
    return 1 if strange or any(result.failure for result in results) else 0


def _run_kernels(args: argparse.Namespace, manifest: bundle.Manifest) -> int:
    from tvmconv import runtime

    on_gpu = {variant.machine for variant in manifest.variants if variant.gpu}
    device = args.device or ("cuda" if args.machine in on_gpu else None)
    libraries: list[Any] = [
        runtime.load(args.bundle, args.threads, args.machine, device=device, trusted=args.trusted)
    ]
    unchecked = None
    if not libraries[0].variant.gpu and not (args.device or args.machine) and on_gpu:
        unchecked = _no_gpu(manifest)
        if unchecked is None:
            libraries.append(runtime.load(args.bundle, device="cuda", trusted=args.trusted))
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
    from tvmconv.problem.calling import Role

    return kernel(**kernel.signature.keywords(arguments, Role.INPUT, Role.CONSTANT), out=out)


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
