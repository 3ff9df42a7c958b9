"""Check every kernel of a bundle against the oracle, on random data and on misaligned arrays.

It needs the bundle, NumPy and apache-tvm-ffi, so it also runs on the board that the bundle is for.
"""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from tvmconv import tables
from tvmconv.errors import TvmconvError


@dataclasses.dataclass(frozen=True)
class Result:
    """What came of one kernel: its worst error beside what is allowed there, or why it failed."""

    key: str
    schedule: str
    error: float | None
    allowed: float | None
    failure: str | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("bundle", metavar="BUNDLE", help="a directory made by tvmconv build")
    parser.add_argument(
        "--machine",
        metavar="M",
        help="check this variant, or a board's (default: what load takes)",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="threads a call (default: all)")
    parser.add_argument("--verbose", action="store_true", help="also show kernels that are right")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Check all kernels; 1 when one is wrong."""
    from tvmconv import runtime

    library = runtime.load(args.bundle, args.threads, args.machine)
    results = []
    with tables.progress(quiet=args.json) as report:
        for number, key in enumerate(library):
            report(key, number + 1, len(library))
            results.append(check(library[key]))
    failed = [result for result in results if result.failure]
    machine = library.variant.machine
    if args.json:
        tables.show_json(_as_json(machine, results))
    else:
        _show(machine, results if args.verbose else failed)
        print(
            f"{len(results) - len(failed)} of {len(results)} kernels for {machine} are right"
            f" with {library.threads} threads"
        )
    return 1 if failed else 0


def check(kernel: Any) -> Result:
    """Compare a kernel with the oracle in two calls, the second with every array misaligned."""
    from tvmconv import oracle

    spec = kernel.spec
    try:
        arguments = oracle.random_arguments(spec, seed=0, wrap=spec.out_dtype == "int32")
        expected = oracle.conv(spec, **arguments)
        first = oracle.assert_close(spec, expected, _call(kernel, arguments))
        shifted = {name: _misaligned(array) for name, array in arguments.items()}
        out = _misaligned(expected.astype(oracle.numpy_dtype(spec.out_dtype)))
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
            print(f"WRONG ({result.schedule}, {machine}): {result.failure}")


def _as_json(machine: str, results: list[Result]) -> dict[str, Any]:
    return {"machine": machine, "kernels": [dataclasses.asdict(result) for result in results]}
