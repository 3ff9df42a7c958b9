"""What is installed, what importing it loads, and that scripts keep their arguments."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from package_modules import FOLDERS, MODULES, ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


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
    folders = [path.parent.name for path in (ROOT / "schedules").glob("*/machines.py")]

    assert points == {name: f"tvmconv.schedules.{name}:PACK" for name in folders}


def test_hardware_folders_have_the_same_file_names():
    for folder in (ROOT / "schedules").glob("*/"):
        if (folder / "__init__.py").exists() and folder.name != "shared":
            assert (folder / "machines.py").is_file(), folder


HEAVY = {"numpy", "tvm", "tvm_ffi", "xgboost", "rich"}
LIGHT = {
    "import tvmconv": set(),
    "import tvmconv; tvmconv.ConvSpec.conv2d((1, 8, 8, 4), (3, 3, 4, 8)).key": set(),
    "import tvmconv; tvmconv.build": set(),
    "import tvmconv.commands.cli": set(),
    "import tvmconv.hardware": set(),
    "import tvmconv.records.log": set(),
    "import tvmconv.measuring.process.candidate": set(),
    "import tvmconv.tuning.journal": set(),
    # The process that measures has the runtime alone, as one on a board would.
    "import tvmconv.measuring.process.runner": {"numpy", "tvm_ffi"},
    "import tvmconv.tuning.session": {"numpy", "tvm_ffi"},
    "import tvmconv.problem.workloads": set(),
    "import tvmconv; tvmconv.load": set(),
    "import tvmconv; tvmconv.conv2d": {"numpy"},
}


@pytest.mark.parametrize("code", LIGHT)
def test_importing_loads_no_more_than_it_must(code):
    loaded = python(f"{code}\nimport sys\nprint(*{HEAVY} & sys.modules.keys())")

    assert set(loaded.split()) == LIGHT[code]


# Of the standard library and of this package, what a process that loads a bundle for its CPU does without.
UNUSED = ("tvmconv.runtime.cuda.", "tvmconv.building", "tvmconv.hardware.machine", "difflib")


def test_importing_the_runtime_loads_nothing_for_gpus():
    assert (
        python(
            "import sys, tvmconv.runtime\n"
            f"print(*[name for name in sys.modules if name.startswith({UNUSED})])"
        )
        == ""
    )


def test_what_is_for_gpus_is_loaded_when_it_is_used():
    assert (
        python(
            "from tvmconv import runtime\n"
            "print(*[getattr(runtime, name).__name__ for name in runtime.__all__ if 'Gpu' in name])"
        )
        == "BoundGpuKernel GpuKernel GpuLibrary"
    )
    assert "no attribute 'GpuModel'" in python(
        "from tvmconv import runtime\n"
        "try: runtime.GpuModel\nexcept AttributeError as error: print(error)"
    )


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
    assert others == {"tvmconv/measuring/simulate/caches.c"}


@pytest.mark.slow
def test_the_wheel_works_without_the_source_tree(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)

    out = python(
        "import tvmconv, tvmconv.hardware as h\n"
        "from tvmconv.records import log\n"
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
