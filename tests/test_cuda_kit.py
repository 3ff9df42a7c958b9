"""The measuring kit where there is no GPU: what it would measure, and what it says here."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from pathlib import Path

import gpu_bundles
import pytest

from tvmconv.gpu import driver as cuda_driver

SCRIPT = Path(__file__).parent.parent / "scripts" / "cuda_kit.py"
no_gpu = pytest.mark.skipif(bool(cuda_driver.devices()), reason="this machine has a GPU")


@pytest.fixture(scope="module")
def kit():
    spec = importlib.util.spec_from_file_location("cuda_kit", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_edge_cases_and_every_network_in_all_dtypes_and_batches(kit):
    sets = kit.sets()

    assert len(sets) == 7
    for name, specs in sets.items():
        assert len(specs) == len({spec.key for spec in specs})
        if name != "edge_cases":
            _, dtype, batch = name.split("-")
            assert {spec.precision for spec in specs} == {dtype}
            assert {spec.batch for spec in specs} == {int(batch)}
    timed = {layer.spec for _, layers in kit.layers() for _, layer in layers}
    assert timed == {spec for name, specs in sets.items() if name != "edge_cases" for spec in specs}


@no_gpu
def test_without_a_gpu_it_says_so(tmp_path):
    done = subprocess.run([sys.executable, SCRIPT, tmp_path], capture_output=True, text=True)

    assert done.returncode == 2
    assert "no NVIDIA GPU or driver here" in done.stderr


@no_gpu
@gpu_bundles.needs_compiler
def test_a_check_that_cannot_start_is_a_failure_and_not_a_pass(kit, tmp_path):
    path = gpu_bundles.build(tmp_path, "toy-90", [gpu_bundles.PLAIN])

    (result,) = kit.check_bundle(path, "cuda:0", time.monotonic() + 60)

    assert "nothing could be checked" in result["failure"]
    assert "IncompatibleMachineError" in result["failure"] or "driver" in result["failure"]


def test_a_process_that_dies_costs_one_kernel(kit, tmp_path, monkeypatch):
    """The parent's bookkeeping: a real child that dies in its second kernel, then in none."""
    child = tmp_path / "child.py"
    child.write_text(
        "import json, os, sys\n"
        "skip = int(sys.argv[sys.argv.index('--skip') + 1])\n"
        "for number in range(skip, 4):\n"
        "    print(f'starting k{number}', flush=True)\n"
        "    if number == 1: os.abort()\n"
        "    print('checked ' + json.dumps({'key': f'k{number}', 'failure': None}), flush=True)\n"
        "    if number == 2: sys.exit(3)\n"
    )
    path = gpu_bundles_manifest(tmp_path, 4)
    monkeypatch.setattr(kit, "__file__", str(child))

    results = kit.check_bundle(path, "cuda:0", time.monotonic() + 60)

    assert [each["key"] for each in results] == ["k0", "k1", "k2", "k3"]
    assert [bool(each["failure"]) for each in results] == [False, True, False, False]
    assert "died with -6" in results[1]["failure"]


def gpu_bundles_manifest(folder, count):
    """A bundle's manifest of so many kernels without any output."""
    from tvmconv import bundle

    keys = tuple(f"k{number}" for number in range(count))
    runtime = bundle.RuntimeEntry("libtvm_runtime-x86_64.so", "1" * 64)
    entries = {key: bundle.KernelEntry(None, "empty", {}) for key in keys}
    variant = bundle.Variant(
        "sm_90",
        "x86_64",
        "linux",
        "sm_90.so",
        "0" * 64,
        (),
        None,
        runtime,
        entries,
        "sm_90",
        runtime,
    )
    path = folder / "some.tvmconv"
    path.mkdir()
    bundle.write_manifest(
        path, bundle.Manifest("2026-11-23", "0.1", "0.27", "0.1", keys, (variant,))
    )
    return path
