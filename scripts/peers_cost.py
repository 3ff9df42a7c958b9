"""Instructions that other libraries execute for a layer on an ARM core, counted as ours are.

Each library runs in a process of its own on the emulated board (scripts/emulated_board), one thread, with
the plugin count_instructions.c in the emulator; what two calls take less what one takes is counted. The
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
from tvmconv import hardware
from tvmconv.building import toolchain
from tvmconv.checking import oracle
from tvmconv.commands.show import tables
from tvmconv.errors import MissingToolError, UnknownNameError
from tvmconv.hardware import Machine
from tvmconv.measuring.peers import library_timer, ours, xnnpack
from tvmconv.measuring.peers.contender import plain
from tvmconv.problem.spec import ConvSpec

HERE = Path(__file__).resolve().parent
COUNTABLE = {"xnnpack": "ai-edge-litert", "ncnn": "ncnn"}  # and what pip installs on the board
TIMEOUT_SECONDS = 3600
# Between two series of calls, of one, and in instructions: the interpreter's own allocations vary.
MOST_NOISE, LEAST_NOISE = 0.02, 2000
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
        missing = [name for name in ("tensorflow-cpu",) if library_timer.version(name) is None]
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
    outcomes = json.loads((folder / f"{name}.json").read_text())
    lines: dict[int, list[list[int]]] = defaultdict(list)
    for line in marks.read_text().splitlines() if marks.exists() else ():
        number, *sums = map(int, line.split())
        lines[number].append(sums)
    return {
        spec: outcome if isinstance(outcome, str) else difference(lines[number], outcome)
        for number, spec in enumerate(specs)
        for outcome in [outcomes[spec.key]]
    }


def difference(marks: list[list[int]], calls: int) -> Counted | str:
    """One call: two series of ``calls`` less one, if one takes the same before and behind them."""
    _, first, two, again = (
        Counted(*(after - before for before, after in zip(*pair, strict=True)))
        for pair in itertools.pairwise(marks)
    )
    noise = abs(first.instructions - again.instructions)
    if noise > max(LEAST_NOISE, MOST_NOISE * again.instructions):
        series = f"{calls} calls" if calls > 1 else "one call"
        return f"{series} took {first.instructions} instructions, then {again.instructions}"
    return Counted(
        round((two.instructions - again.instructions) / calls),
        round((two.multiply_adds - again.multiply_adds) / calls),
    )


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
    machine, _ = hardware.find_machine(machine_name)
    show_layers(named, counts, machine)
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
        [(name, len(several), *(mean(of, several, machine) for of in counts.values()))
         for name, several in kinds.items()],
    )  # fmt: skip


def show_layers(named: dict[ConvSpec, str], counts: Counts, machine: Machine) -> None:
    """One row a layer, and below them why a library has no count."""
    columns = (f"{name}: {what}" for name in counts for what in ("instructions", "work", "FMA"))
    rows = []
    for spec, name in named.items():
        cells: list[object] = [name]
        for of in counts.values():
            found = of[spec]
            if isinstance(found, str):
                cells += ["-", "-", "-"]
                continue
            share = found.multiply_adds / found.instructions
            cells += [found.instructions, f"{100 * work(spec, found, machine):.1f} %"]
            cells += [f"{100 * share:.1f} %"]
        rows.append(cells)
    tables.show_table(("layer", *columns), rows)
    for library, of in counts.items():
        for spec, found in of.items():
            if isinstance(found, str):
                print(f"{library} has no count of {named[spec]}: {found}")


def work(spec: ConvSpec, found: Counted, machine: Machine) -> float:
    """Vector multiply-adds of the defining sum over instructions."""
    return spec.macs / machine.cpu.lanes(spec.accumulator_dtype) / found.instructions


def mean(of: dict[ConvSpec, Counted | str], specs: Sequence[ConvSpec], machine: Machine) -> str:
    """Geometric mean and range, of those that have a count."""
    counted = [(spec, of[spec]) for spec in specs]
    shares = [
        100 * work(spec, found, machine) for spec, found in counted if isinstance(found, Counted)
    ]
    if not shares:
        return "-"
    geometric = math.exp(sum(map(math.log, shares)) / len(shares))
    few = f", {len(shares)} layers" if len(shares) < len(specs) else ""
    return f"{geometric:.1f} % ({min(shares):.1f}-{max(shares):.1f}{few})"
