"""Instructions that other libraries execute for a layer on an ARM core, counted as ours are.

Each library runs in a process of its own on the emulated board (scripts/emulated_board), one thread, with
the plugin count_instructions.c in the emulator; the difference between two calls and one is counted. The
layers have no epilogue. LiteRT's models are converted here, which needs tensorflow-cpu.
"""

from __future__ import annotations

import itertools
import json
import logging
import math
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import emulated_board
import numpy as np

import tvmconv
from tvmconv import hardware, oracle, tables, toolchain
from tvmconv.errors import MissingToolError, UnknownNameError
from tvmconv.peers import ours, stand, xnnpack
from tvmconv.peers.contender import plain
from tvmconv.spec import ConvSpec

HERE = Path(__file__).resolve().parent
COUNTABLE = {"xnnpack": "ai-edge-litert", "ncnn": "ncnn"}  # and what pip installs on the board
TIMEOUT_SECONDS = 3600
MOST_NOISE = 0.02  # of a call; the interpreter's own allocations vary
# Next to nothing to compute: what remains is calling the library, from Python, for one layer.
NOTHING = ConvSpec.conv2d((1, 1, 1, 4), (1, 1, 4, 4))


@dataclass(frozen=True)
class Counted:
    """One call of a layer."""

    instructions: int
    multiply_adds: int


Counts = dict[str, dict[ConvSpec, Counted | str]]


def cpu_of(machine: str) -> str:
    """The board's CPU for a machine of tvmconv."""
    name = hardware.find_machine(machine)[0].name
    if name not in emulated_board.CPUS:
        raise UnknownNameError(
            f"the emulated board is no {name}; it has {', '.join(emulated_board.CPUS)}"
        )
    return name


def count(
    specs: Sequence[ConvSpec], machine: str, libraries: Sequence[str],
    logs: list[Path] | None, winograd: bool,
) -> Counts:  # fmt: skip
    """Count one call of every layer, of ours and of ``libraries``; texts say why there is no count.

    Raises MissingToolError where the emulator loads no plugins or nothing compiles one, or where
    TensorFlow is not here, whatever building raises.
    """
    cpu = cpu_of(machine)
    if xnnpack.NAME in libraries:
        missing = [name for name in ("tensorflow-cpu",) if stand.version(name) is None]
        if missing:
            raise MissingToolError(f"LiteRT's models are converted here: pip install {missing[0]}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        plugin = compiled_plugin(folder)
        (folder / "keys").write_text("\n".join(spec.key for spec in specs))
        tvmconv.build(specs, machine, folder / "kernels.tvmconv", logs=logs, winograd=winograd)
        if xnnpack.NAME in libraries:
            convert(specs, folder)
        return {name: run(name, specs, cpu, folder, plugin) for name in (ours.NAME, *libraries)}


def compiled_plugin(folder: Path) -> Path:
    toolchain.require(toolchain.check_linker())
    plugin = folder / "count_instructions.so"
    command = toolchain.linker() or []
    toolchain.run_linker(
        [*command, "-x", "c", "-shared", "-fPIC", "-O2", "-o", str(plugin),
         str(HERE / "count_instructions.c")]
    )  # fmt: skip
    return plugin


def convert(specs: Sequence[ConvSpec], folder: Path) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("absl").setLevel(logging.ERROR)
    for number, spec in enumerate(specs):
        content, numbers = xnnpack.model(spec, **oracle.random_arguments(spec, seed=0))
        (folder / f"{number}.tflite").write_bytes(content)
        np.save(folder / f"{number}.npy", numbers)


def run(
    name: str, specs: Sequence[ConvSpec], cpu: str, folder: Path, plugin: Path
) -> dict[ConvSpec, Counted | str]:
    """Run one library on the board, and read what the plugin wrote."""
    marks = folder / f"{name}.marks"
    packages = [f"--with={COUNTABLE[name]}"] if name in COUNTABLE else []
    done = subprocess.run(
        [sys.executable, str(HERE / "emulated_board.py"), "--cpu", cpu, *packages, "--", "python",
         str(HERE / "count_on_board.py"), name, str(folder)],
        # NumPy's threads, which the oracle uses, spin for a while and would be counted.
        env={
            **os.environ, "QEMU_PLUGIN": f"file={plugin},out={marks}", "OPENBLAS_NUM_THREADS": "1",
        },
        stdout=sys.stderr, stderr=subprocess.PIPE, text=True, timeout=TIMEOUT_SECONDS, check=False,
    )  # fmt: skip
    if done.returncode:
        last = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise MissingToolError(f"{name} cannot be counted on an emulated {cpu}: {last}")
    failures = json.loads((folder / f"{name}.json").read_text())
    lines: dict[int, list[list[int]]] = defaultdict(list)
    for line in marks.read_text().splitlines() if marks.exists() else ():
        number, *sums = map(int, line.split())
        lines[number].append(sums)
    return {
        spec: failures[spec.key] or difference(lines[number]) for number, spec in enumerate(specs)
    }


def difference(marks: list[list[int]]) -> Counted | str:
    """What two calls took less what one took, if one takes the same behind them."""
    first, two, again = (
        Counted(*(after - before for before, after in zip(*pair, strict=True)))
        for pair in itertools.pairwise(marks)
    )
    if abs(first.instructions - again.instructions) > MOST_NOISE * again.instructions:
        return f"one call took {first.instructions} instructions, another {again.instructions}"
    return Counted(two.instructions - again.instructions, two.multiply_adds - again.multiply_adds)


def show(
    layers: Sequence[tuple[str, ConvSpec, int]], machine_name: str, libraries: Sequence[str],
    logs: list[Path] | None, winograd: bool, kind: Callable[[ConvSpec], str],
) -> None:  # fmt: skip
    """Print work per instruction of each layer and in geometric mean by kind."""
    named: dict[ConvSpec, str] = {}
    for name, spec, _ in layers:
        named.setdefault(plain(spec), name)
    counts = count([*named, NOTHING], machine_name, libraries, logs, winograd)
    calls = {library: of.pop(NOTHING) for library, of in counts.items()}
    lanes = hardware.find_machine(machine_name)[0].lanes("float32")
    shares = {
        library: {
            spec: spec.macs / lanes / found.instructions
            for spec, found in of.items() if isinstance(found, Counted)
        }
        for library, of in counts.items()
    }  # fmt: skip
    tables.show_table(
        ("layer", *(f"{library}: {what}" for library in counts for what in ("instructions", "work", "FMA"))),
        [(name, *(cell for of in counts.values() for cell in cells(of[spec], spec, lanes)))
         for spec, name in named.items()],
    )  # fmt: skip
    for library, of in counts.items():
        for spec, found in of.items():
            if isinstance(found, str):
                print(f"{library} has no count of {named[spec]}: {found}")
    taken = (
        f"{library} {found if isinstance(found, str) else found.instructions}"
        for library, found in calls.items()
    )
    print(f"\nof which a call takes that has one pixel and four channels: {', '.join(taken)}\n")
    kinds: dict[str, list[ConvSpec]] = defaultdict(list)
    for spec in named:
        kinds[kind(spec)].append(spec)
    tables.show_table(
        ("kind", "layers", *(f"{library}: work (range)" for library in counts)),
        [(name, len(several), *(mean(shares[library], several) for library in counts))
         for name, several in kinds.items()],
    )  # fmt: skip


def cells(found: Counted | str, spec: ConvSpec, lanes: int) -> tuple[object, ...]:
    if isinstance(found, str):
        return ("-", "-", "-")
    work = spec.macs / lanes / found.instructions
    return (
        found.instructions,
        f"{100 * work:.1f} %",
        f"{100 * found.multiply_adds / found.instructions:.1f} %",
    )


def mean(shares: dict[ConvSpec, float], specs: Sequence[ConvSpec]) -> str:
    values = [100 * shares[spec] for spec in specs if spec in shares]
    if not values:
        return "-"
    geometric = math.exp(sum(map(math.log, values)) / len(values))
    few = f", {len(values)} layers" if len(values) < len(specs) else ""
    return f"{geometric:.1f} % ({min(values):.1f}-{max(values):.1f}{few})"
