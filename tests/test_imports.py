"""Which module may import which: one direction, and no hardware folder another."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from package_modules import MODULES

# Which module or folder may import which others of this package; "." is ``tvmconv/__init__.py``. The
# longest name that fits a module counts, and modules under the same name may import each other.
MAY_IMPORT = {
    "errors": "",
    "arguments": "",
    "decoding": "",
    "host": "errors",
    "tables": "",
    "timing": "",
    "rules": "arguments",
    "keys": "rules",
    "spec": "arguments rules keys",
    "calls": "arguments rules spec",
    "edge_cases": "rules spec",
    "workloads": "errors rules spec edge_cases",
    "oracle": "errors rules spec",
    "bundle": "errors decoding spec",
    "variants": "errors bundle",
    "publishing": "errors bundle",
    "gpu": "",
    "gpu.variants": "errors bundle variants gpu.driver",
    "toolchain": "errors",
    "cache": "errors toolchain",
    "cross": "errors host toolchain cache",
    "extensions": "",
    "elf": "errors extensions",
    "pack": "errors rules spec",
    "hardware": "errors spec host pack",
    "prefetching": "",
    "dot_words": "errors",
    "matrix_tiles": "errors",
    "gpu.driver": "errors",
    "gpu.fatbin": "",
    "gpu.prelude": "",
    "gpu.tools": "errors toolchain gpu.driver",
    "gpu.stub": "errors host toolchain cache gpu.driver",
    "gpu.nvrtc": "errors toolchain gpu.tools",
    "gpu.compiler": "errors toolchain gpu.tools gpu.stub gpu.nvrtc gpu.prelude",
    "gpu.tiles": "errors gpu.prelude",
    "gpu.clusters": "errors",
    "gpu.pipelines": "errors",
    "gpu.lowering": "gpu.tiles gpu.clusters gpu.pipelines",
    "unbinding": "",
    "lowering": "errors prefetching dot_words matrix_tiles unbinding gpu.lowering gpu.compiler",
    "compute": "arguments rules spec",
    "nests": "arguments rules spec hardware compute lowering prefetching dot_words",
    "schedules": (
        "errors arguments rules spec host hardware compute lowering prefetching dot_words matrix_tiles "
        "nests gpu.tiles gpu.clusters gpu.pipelines"
    ),
    "tuning_logs": "",
    "tuning": "",
    "tuning.log": "errors toolchain spec",
    "tuning.records": "errors spec hardware choice tuning.log",
    "runtime": "errors rules spec bundle variants gpu.driver gpu.variants host",
    "gpu.check": "errors oracle runtime spec",
    "gpu.copies": "oracle runtime spec gpu.check",
    "choice": "errors spec hardware tuning.log",
    "builder": (
        ". errors spec bundle publishing hardware toolchain cross gpu.tools gpu.fatbin elf choice lowering"
    ),
    # The tuner, from what it passes around to what it does all day.
    "tuning.candidate": "",
    "tuning.worker": "errors tuning.candidate",
    "tuning.pool": "tuning.candidate tuning.worker",
    "tuning.compiling": (
        "errors spec hardware builder cross lowering roof_loops tuning.candidate tuning.worker tuning.pool"
    ),
    "tuning.gpus": "errors host hardware runtime gpu.driver gpu.variants",
    "tuning.libraries": "bundle runtime",
    "tuning.cpu_stand": (
        "spec hardware oracle timing runtime roof tuning.candidate tuning.libraries"
    ),
    "tuning.gpu_stand": (
        "errors spec hardware bundle oracle runtime gpu.driver gpu.check gpu.copies tuning.candidate "
        "tuning.worker tuning.gpus tuning.libraries"
    ),
    "tuning.running": (
        "errors spec hardware roof tuning.candidate tuning.worker tuning.libraries tuning.cpu_stand "
        "tuning.gpu_stand"
    ),
    # Boards over a network: the client's side, and the board's.
    "tuning.fleet": (
        "errors decoding spec hardware roof tuning.candidate tuning.worker tuning.pool tuning.gpus "
        "tuning.libraries tuning.running"
    ),
    "tuning.serving": (
        ". errors decoding spec host hardware toolchain bundle tuning.candidate tuning.worker tuning.gpus "
        "tuning.libraries tuning.running"
    ),
    "tuning.measure": (
        "spec hardware cross toolchain roof gpu.roof tuning.candidate tuning.gpus tuning.compiling "
        "tuning.libraries tuning.running tuning.fleet"
    ),
    # Without a board: predicted in place of measured.
    "tuning.simulated": (
        "errors spec hardware oracle roof simulate tuning.candidate tuning.worker tuning.pool "
        "tuning.running"
    ),
    "tuning.features": "spec hardware tuning.candidate",
    "tuning.model": "tuning.features",
    "tuning.search": "spec hardware tuning.candidate tuning.features tuning.model",
    "tuning.priors": "spec hardware tuning.candidate tuning.features tuning.log",
    "tuning.conclude": (
        "spec tuning.candidate tuning.log tuning.measure tuning.running tuning.search tuning.simulated"
    ),
    "tuning.journal": "errors spec tuning.candidate",
    "tuning.plan": (
        "errors hardware choice host toolchain cross gpu.tools workloads tuning.gpus tuning.running "
        "tuning.fleet tuning.search tuning.simulated tuning.journal"
    ),
    "tuning.progress": "workloads tuning.search tuning.conclude tuning.journal tuning.plan",
    "tuning.session": (
        "errors tuning.candidate tuning.measure tuning.model tuning.search tuning.conclude "
        "tuning.journal tuning.plan tuning.progress tuning.opening tuning.simulated"
    ),
    "tuning.opening": (
        "spec workloads tuning.candidate tuning.features tuning.log tuning.model tuning.search "
        "tuning.priors tuning.conclude tuning.journal tuning.plan tuning.progress tuning.simulated"
    ),
    # For machines out of reach; the first three are all that such a machine uses.
    "tuning.batch": "errors decoding bundle variants host hardware tuning.candidate tuning.gpus",
    "tuning.results": "errors decoding",
    "tuning.board": (
        ". errors spec host gpu.roof tuning.batch tuning.results tuning.candidate tuning.gpus "
        "tuning.libraries tuning.running"
    ),
    "tuning.offline": (
        ". errors bundle hardware cross builder tuning.candidate tuning.compiling tuning.search "
        "tuning.conclude tuning.plan tuning.progress tuning.opening tuning.session tuning.batch "
        "tuning.results"
    ),
    "tuning.status": "hardware choice workloads tuning.log tuning.journal tuning.plan",
    "tuning.metaschedule": (
        "timing toolchain runtime tuning.candidate tuning.worker tuning.pool tuning.libraries"
    ),
    "pack_facts": "errors rules spec hardware",
    "guarded": "errors spec hardware lowering runtime",
    "contract": "errors spec host hardware oracle workloads pack_facts guarded",
    "simulate": "errors spec hardware lowering oracle toolchain cache",
    "roof": "hardware timing runtime",
    "gpu.roof": "hardware roof rules",
    "roof_loops": "hardware lowering roof",
    "bench": "errors spec hardware host oracle timing workloads runtime roof roof_loops",
    "tuning.remote_bench": (
        "errors hardware toolchain cross choice workloads roof bench gpu.bench tuning.candidate "
        "tuning.measure tuning.running tuning.fleet"
    ),
    "gpu.bench": "spec hardware oracle workloads runtime bench gpu.check gpu.copies",
    "comparison": "errors spec hardware workloads runtime builder bench",
    "kernel_cache": ". errors spec hardware host cache runtime builder toolchain tuning.log",
    "functional": "spec calls runtime kernel_cache",
    "peers": "",
    "peers.contender": "errors spec oracle",
    "peers.onnx_model": "spec peers.contender",
    **{
        f"peers.{name}": "oracle rules spec peers.contender peers.onnx_model"
        for name in ("onednn", "onnxruntime", "openvino", "tensorflow", "ncnn")
    },
    "peers.xnnpack": "spec peers.contender peers.tensorflow",
    "peers.ours": "spec runtime peers.contender",
    "peers.stand": "errors spec hardware oracle runtime roof roof_loops peers peers.contender peers.ours",
    "peers.race": (
        "errors spec workloads roof tuning.candidate tuning.worker peers.contender peers.ours peers.stand"
    ),
    # Users' side: may import everything but schedules, which are found by entry point only.
    "commands": (
        ". errors spec bundle variants gpu.driver gpu.tools gpu.variants gpu.check gpu.bench hardware host "
        "tables timing toolchain cross workloads oracle runtime choice builder roof bench comparison "
        "peers.race peers.stand simulate tuning.log tuning.records tuning.running tuning.search "
        "tuning.journal tuning.plan tuning.progress tuning.session tuning.status tuning.results "
        "tuning.board tuning.offline tuning.fleet tuning.serving tuning.remote_bench tuning.simulated"
    ),
    "cli": ". errors commands",
    ".": "",
}


def rule_of(module: str) -> str:
    """The line of MAY_IMPORT for a module; ``tvmconv`` itself is the dot."""
    name = module.removeprefix("tvmconv").removeprefix(".") or "."
    while name not in MAY_IMPORT:
        name = name.rpartition(".")[0]
        assert name, f"{module} is not in MAY_IMPORT: say there where it belongs"
    return name


def imported(file: Path) -> set[str]:
    """Modules of this package that a file imports, also inside functions, but not for typing only."""
    found = set()
    waiting: list[ast.AST] = [ast.parse(file.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        waiting.extend(ast.iter_child_nodes(node))
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} has a relative import"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else str(node.module) for name in inner}
    return {name for name in found if name.partition(".")[0] == "tvmconv"}


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module):
    rule = rule_of(module)
    allowed = {rule, *MAY_IMPORT[rule].split()}

    assert {rule_of(name) for name in imported(MODULES[module])} <= allowed


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith("tvmconv.schedules.")])
def test_no_hardware_folder_imports_another(module):
    own = ".".join(module.split(".")[:3])
    schedules = {name for name in imported(MODULES[module]) if "tvmconv.schedules." in name}

    assert all(name == own or name.startswith(f"{own}.") for name in schedules)


def test_the_table_of_imports_names_what_exists_and_has_no_cycle():
    assert {rule_of(module) for module in MODULES} == set(MAY_IMPORT)
    waiting = {name: set(allowed.split()) for name, allowed in MAY_IMPORT.items()}
    while waiting:
        ready = [name for name, allowed in waiting.items() if not allowed & set(waiting)]
        assert ready, f"a cycle among {sorted(waiting)}"
        waiting = {name: rest for name, rest in waiting.items() if name not in ready}
