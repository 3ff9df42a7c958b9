"""Rooms: each imports only what stands above it in ROOMS; no circle; no hardware folder another."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from package_modules import MODULES

# From the ground up: folders of this package, and modules that stand beside them.
ROOMS = (
    "version",
    "",  # tvmconv/__init__.py
    "errors",
    "files",
    "writing",
    "problem",
    "edge_cases",  # a door to problem/, for packs
    "compute",
    "hardware",
    "lowering",
    "records",
    "bundle",
    "schedules.shared",
    "schedules",
    "tuning_logs",
    "runtime",
    "building",
    "functional",
    "checking",
    "models",
    "contract",  # a door to checking/, for packs
    "measuring.process.candidate",  # what is measured, and what comes back: passed around by all below
    "measuring.process.worker",
    "measuring.process.pool",
    "measuring.roof",
    "measuring.simulate",
    "measuring.process",
    "measuring.places",
    "measuring.bench",
    "measuring.peers",
    "measuring",
    "tuning",
    "commands",
)


def room_of(module: str) -> str:
    """The longest name in ROOMS that fits a module."""
    name = module.removeprefix("tvmconv").removeprefix(".")
    while name not in ROOMS:
        name = name.rpartition(".")[0]
        assert name, f"{module} is in no room of ROOMS: say there where it belongs"
    return name


def imported(file: Path, for_types: bool = False) -> set[str]:
    """Modules of this package that a file imports, also inside functions; ``for_types``: also for typing."""
    found = set()
    waiting: list[ast.AST] = [ast.parse(file.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) and not for_types:
            continue
        waiting.extend(ast.iter_child_nodes(node))
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} has a relative import"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else str(node.module) for name in inner}
    return {name for name in found if name.partition(".")[0] == "tvmconv"}


# The doors of two packages name what is behind them for type checkers, and load it when it is used.
_DOORS = {"tvmconv", "tvmconv.hardware"}


@pytest.mark.parametrize("module", sorted(set(MODULES) - _DOORS))
def test_a_room_imports_only_what_stands_above_it(module):
    own = ROOMS.index(room_of(module))
    below = {name for name in imported(MODULES[module], True) if ROOMS.index(room_of(name)) > own}

    assert not below


def test_no_module_imports_itself_in_a_circle():
    graph = {name: imported(file, name not in _DOORS) for name, file in MODULES.items()}

    tuple(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith("tvmconv.schedules.")])
def test_no_hardware_folder_imports_another(module):
    own = ".".join(module.split(".")[:3])
    others = {
        name
        for name in imported(MODULES[module])
        if name.startswith("tvmconv.schedules.") and not name.startswith("tvmconv.schedules.shared")
    }

    assert all(name == own or name.startswith(f"{own}.") for name in others)


@pytest.mark.parametrize("module", [m for m in MODULES if "tvmconv.schedules" not in m])
def test_schedules_are_found_by_entry_point_only(module):
    assert not {name for name in imported(MODULES[module]) if "tvmconv.schedules" in name}


def test_every_room_exists():
    assert {room_of(module) for module in MODULES} == set(ROOMS)
