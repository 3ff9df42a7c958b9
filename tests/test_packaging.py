"""What is installed, what importing it loads, and which module may import which."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# Folders of the repository, by the package that they are installed as.
FOLDERS = {
    "tvmconv": "tvmconv",
    "tvmconv.schedules": "schedules",
    "tvmconv.tuning_logs": "tuning_logs",
}


def sources() -> dict[str, Path]:
    """Module name, as installed, -> file; packages under their own name."""
    found = {}
    for package, folder in FOLDERS.items():
        for file in sorted((ROOT / folder).rglob("*.py")):
            parts = file.relative_to(ROOT / folder).with_suffix("").parts
            name = ".".join((package, *parts)).removesuffix(".__init__")
            found[name] = file
    return found


MODULES = sources()


def python(code: str, **environment: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd="/",
        env={**os.environ, **environment},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_the_packages_of_pyproject_are_the_folders():
    packages = {name for name, file in MODULES.items() if file.name == "__init__.py"}

    assert sorted(PROJECT["tool"]["setuptools"]["packages"]) == sorted(packages)


def test_every_folder_with_modules_is_a_package():
    for name, file in MODULES.items():
        assert (file.parent / "__init__.py").is_file(), name


def test_entry_points_name_the_hardware_folders():
    points = PROJECT["project"]["entry-points"]["tvmconv.hardware"]
    folders = [path.parent.name for path in (ROOT / "schedules").glob("*/__init__.py")]

    assert points == {name: f"tvmconv.schedules.{name}:PACK" for name in folders}


def test_hardware_folders_have_the_same_file_names():
    for folder in (ROOT / "schedules").glob("*/"):
        if (folder / "__init__.py").exists():
            assert (folder / "machines.py").is_file(), folder


HEAVY = {"numpy", "tvm", "tvm_ffi", "xgboost", "rich"}
LIGHT = {
    "import tvmconv": set(),
    "import tvmconv; tvmconv.ConvSpec.conv2d((1, 8, 8, 4), (3, 3, 4, 8)).key": set(),
    "import tvmconv; tvmconv.build": set(),
    "import tvmconv.cli": set(),
    "import tvmconv.hardware": set(),
    "import tvmconv.tuning.log": set(),
    "import tvmconv.tuning.candidate": set(),
    "import tvmconv.tuning.journal": set(),
    # The process that measures has the runtime alone, as one on a board would.
    "import tvmconv.tuning.running": {"numpy", "tvm_ffi"},
    "import tvmconv.tuning.session": {"numpy", "tvm_ffi"},
    "import tvmconv.workloads": set(),
    "import tvmconv; tvmconv.load": {"numpy", "tvm_ffi"},
    "import tvmconv; tvmconv.conv2d": {"numpy", "tvm_ffi"},
}


@pytest.mark.parametrize("code", LIGHT)
def test_importing_loads_no_more_than_it_must(code):
    loaded = python(f"{code}\nimport sys\nprint(*{HEAVY} & sys.modules.keys())")

    assert set(loaded.split()) == LIGHT[code]


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


def test_schedules_and_logs_are_importable_from_inside_the_package_only():
    assert "ModuleNotFoundError" in python(
        "try:\n import schedules\nexcept ImportError as e:\n print(type(e).__name__)"
    )
    assert python("import tvmconv.schedules.x86 as x; print(x.__name__)").endswith("x86")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    source, output = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    for folder in FOLDERS.values():
        shutil.copytree(
            ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", output, source],
        check=True,
    )
    (path,) = output.iterdir()
    return path


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()

    top = {name.partition("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"tvmconv"}
    expected = {
        f"{package.replace('.', '/')}/{file.relative_to(ROOT / folder)}"
        for package, folder in FOLDERS.items()
        for pattern in ("*.py", "*.jsonl", "py.typed")
        for file in (ROOT / folder).rglob(pattern)
    }
    inside = {name for name in names if ".dist-info/" not in name}
    assert "tvmconv/py.typed" in inside
    assert "tvmconv/schedules/x86/__init__.py" in inside
    assert expected <= inside
    others = {name for name in inside - expected if not name.endswith("README.md")}
    assert others == {"tvmconv/simulate/caches.c"}


@pytest.mark.slow
def test_the_wheel_works_without_the_source_tree(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)

    out = python(
        "import tvmconv, tvmconv.hardware as h\n"
        "from tvmconv.tuning import log\n"
        "print(tvmconv.__file__, h.load_pack('x86').machines[0].name, log.shipped_directory())",
        PYTHONPATH=str(tmp_path),
    )
    module, machine, logs = out.split()
    assert Path(module).is_relative_to(tmp_path)
    assert machine
    assert Path(logs) == tmp_path / "tvmconv" / "tuning_logs"


def test_scripts_keep_their_arguments_from_the_environment_they_source():
    sourced = {}
    for path in (ROOT / "scripts").iterdir():
        text = path.read_text() if path.is_file() and not path.suffix else ""
        for line in text.splitlines():
            if line.strip().startswith(".") and "environment" in line:
                sourced[path.name] = (
                    line.partition("environment")[2].strip('" ') or "set --" in text
                )

    assert {"test", "quickstart", "arm_cost", "cuda_kit"} <= set(sourced)
    assert all(sourced.values()), sourced
