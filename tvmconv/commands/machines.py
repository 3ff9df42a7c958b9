"""List the machines that kernels can be made for, and say what this one is."""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import dataclass
from typing import Any

from tvmconv import hardware
from tvmconv.bundle import gpu_variants
from tvmconv.commands.show import tables
from tvmconv.errors import HardwarePackError, MissingToolError, RecordError
from tvmconv.hardware import Machine, cuda_driver, host
from tvmconv.hardware.cuda_driver import capability
from tvmconv.records import log


@dataclass(frozen=True)
class _Row:
    """A machine, its other names, its shipped records (None: damaged), and whether it is this one."""

    machine: Machine
    aliases: tuple[str, ...]
    records: int | None
    is_host: bool


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print the table."""
    packs, broken = hardware.working_packs()
    name = _detected()
    rows = [
        _Row(machine, pack.also(machine.name), _shipped_records(machine.name), machine.name == name)
        for pack in packs
        for machine in pack.machines
    ]
    if args.json:
        tables.show_json(_as_json(rows, name, broken))
        return 0
    tables.show_table(
        ("", "machine", "description", "also", "architecture", "vector bits", "records"),
        [_cells(row) for row in rows],
    )
    print(f"\nThis machine is {name or 'not one of these'}: {host.cpu_name()}, ", end="")
    print(f"{host.architecture()}, {host.available_cores()} cores for this process.")
    for device in _devices():
        print(f"Its GPU {device} runs what is built for {_advice(device, rows)}.")
    for message in broken.values():
        print(f"\nbroken: {message}")
    return 0


def _devices() -> list[cuda_driver.Device]:
    try:
        return cuda_driver.devices()
    except MissingToolError:  # a driver that does not work; `tvmconv doctor` says how
        return []


def _advice(device: cuda_driver.Device, rows: list[_Row]) -> str:
    """The machines whose kernels this GPU runs best: those of the newest architecture that it has."""
    archs = {row.machine.gpu.arch for row in rows if row.machine.gpu}
    fitting = [arch for arch in archs if gpu_variants.runs_on(arch, device)]
    if not fitting:
        return "no machine here: it is too old"
    newest = max(fitting, key=capability)
    return " or ".join(
        row.machine.name for row in rows if row.machine.gpu and row.machine.gpu.arch == newest
    )


def _detected() -> str | None:
    try:
        return hardware.detect().name
    except HardwarePackError:
        return None


def _shipped_records(machine: str) -> int | None:
    folder = log.shipped_directory() / machine
    try:
        return sum(len(log.read_log(file)) for file in sorted(folder.glob("*.jsonl")))
    except RecordError:
        return None


def _cells(row: _Row) -> tuple[object, ...]:
    machine = row.machine
    return (
        "*" if row.is_host else "",
        machine.name,
        machine.description,
        ", ".join(row.aliases),
        machine.architecture,
        _vector_bits(machine) or "",
        "damaged: see tvmconv doctor" if row.records is None else row.records,
    )


def _vector_bits(machine: Machine) -> int | None:
    return None if machine.gpu else 8 * machine.cpu.vector_bytes


def _as_json(rows: list[_Row], name: str | None, broken: dict[str, str]) -> dict[str, Any]:
    return {
        "host": {
            "machine": name,
            "cpu": host.cpu_name(),
            "architecture": host.architecture(),
            "cores": host.available_cores(),
        },
        "machines": [
            {
                "name": row.machine.name,
                "description": row.machine.description,
                "aliases": list(row.aliases),
                "architecture": row.machine.architecture,
                "vector_bits": _vector_bits(row.machine),
                "features": list(row.machine.features),
                "gpu": dataclasses.asdict(row.machine.gpu) if row.machine.gpu else None,
                "records": row.records,
            }
            for row in rows
        ],
        "gpus": [dataclasses.asdict(device) for device in _devices()],
        "broken_packs": broken,
    }
