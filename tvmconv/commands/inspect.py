"""Show what a bundle holds and where it runs, without opening any of its libraries.

Whether a GPU is here is asked of the driver, if there is one.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from tvmconv.bundle import gpu_variants, variants
from tvmconv.bundle import manifest as bundle
from tvmconv.bundle.manifest import Manifest, Variant
from tvmconv.bundle.model_entries import ProgramEntry
from tvmconv.commands.show import tables
from tvmconv.errors import BundleError, IncompatibleMachineError, MissingToolError
from tvmconv.hardware import cuda_driver, host


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("bundle", metavar="BUNDLE", help="a directory made by tvmconv build")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print the manifest; 1 when a file of the bundle is missing or altered."""
    directory = Path(args.bundle)
    manifest = bundle.read_manifest(directory)
    damage = {v.machine: _damage(directory, v) for v in manifest.variants}
    if args.json:
        tables.show_json(_as_json(manifest, damage))
    else:
        _show(directory, manifest, damage)
    return 1 if any(damage.values()) else 0


def _damage(directory: Path, variant: Variant) -> str | None:
    try:
        bundle.verify_files(directory, variant)
    except BundleError as error:
        return str(error)
    return None


def _missing(variant: Variant) -> list[str]:
    """Return what this machine lacks for ``variant``: the architecture, CPU features, glibc, a GPU."""
    here, there = (host.architecture(), host.operating_system()), (variant.architecture, variant.os)
    if here != there:
        return [" ".join(there)]
    features = host.cpu_features()
    missing = [name for name in variant.features if name not in features]
    if not variants.has_glibc(variant.glibc, host.glibc()):
        missing.append(f"glibc {variant.glibc}")
    if variant.gpu is not None and not _devices_for(variant.gpu):
        missing.append(f"a GPU of {variant.gpu} or newer")
    return missing


def _devices_for(arch: str) -> list[cuda_driver.Device]:
    try:
        return [each for each in cuda_driver.devices() if gpu_variants.runs_on(arch, each)]
    except MissingToolError:  # a driver that does not work; `tvmconv doctor` says how
        return []


def _taken(manifest: Manifest) -> str | None:
    """Return the variant that this machine would load."""
    try:
        return variants.choose(
            manifest,
            host.architecture(),
            host.cpu_features(),
            host.operating_system(),
            glibc=host.glibc(),
        ).machine
    except IncompatibleMachineError:
        return None


def _show(directory: Path, manifest: Manifest, damage: dict[str, str | None]) -> None:
    tables.show_facts(
        [
            ("bundle", directory),
            ("built", f"{manifest.created}, format {manifest.format}"),
            ("tvmconv", manifest.tvmconv),
            ("tvm", f"{manifest.tvm}, tvm-ffi {manifest.tvm_ffi}"),
            *_model_facts(manifest),
            ("kernels", len(manifest.keys)),
            ("taken here", _taken(manifest) or "none: no variant runs on this machine"),
        ]
    )
    for variant in manifest.variants:
        missing = _missing(variant)
        print(f"\nvariant {variant.machine}: {variant.architecture} {variant.os}")
        needs = [*variant.features, *([f"glibc {variant.glibc}"] if variant.glibc else [])]
        print(f"  needs  {' '.join(needs) or 'nothing special'}")
        if variant.gpu:
            largest = max(entry.workspace for entry in variant.kernels.values())
            print(f"  gpu    machine code for {variant.gpu}, PTX for newer ones")
            print(f"  memory {largest} bytes of workspace at most")
        print(f"  here   {'lacks ' + ', '.join(missing) if missing else 'has all of it'}")
        print(
            f"  files  {damage[variant.machine] or f'{variant.library} and runtime are intact'}\n"
        )
        if variant.program is not None:
            _show_program(variant.program)
        tables.show_table(
            ("kernel", "schedule", "decisions", "from"),
            [
                (
                    key,
                    entry.schedule,
                    " ".join(f"{k}={v}" for k, v in entry.decisions.items()) or "-",
                    entry.record or ("default" if entry.symbol else "-"),
                )
                for key, entry in variant.kernels.items()
            ],
        )


def _model_facts(manifest: Manifest) -> list[tuple[str, object]]:
    if manifest.model is None:
        return []
    facts: list[tuple[str, object]] = [("model", manifest.model.name)]
    for what, entries in (("input", manifest.model.inputs), ("output", manifest.model.outputs)):
        facts += [(what, f"{each.name} {each.shape} {each.dtype}") for each in entries]
    return facts


def _show_program(program: ProgramEntry) -> None:
    tables.show_table(
        ("call", "function", "computes", "result"),
        [
            (number, layer.symbol, " ".join(layer.operators), "x".join(map(str, layer.shape)))
            for number, layer in enumerate(program.layers)
        ],
    )
    saved = f"of {program.values_bytes / 1e6:.2f} MB that all values have together"
    print(f"  arena   {program.arena_bytes / 1e6:.2f} MB a running call, {saved}")
    print(
        f"  weights {program.weights_bytes / 1e6:.2f} MB in {program.weights}, mapped read-only\n"
    )


def _as_json(manifest: Manifest, damage: dict[str, str | None]) -> dict[str, Any]:
    body = dataclasses.asdict(manifest)
    body["taken_here"] = _taken(manifest)
    for described, variant in zip(body["variants"], manifest.variants, strict=True):
        described["missing_here"] = _missing(variant)
        described["damage"] = damage[variant.machine]
    return body
