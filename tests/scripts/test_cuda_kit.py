"""The measuring kit where there is no GPU: what it would measure, and what it says here."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from pathlib import Path

import gpu_bundles
import pytest

from tvmconv.hardware import cuda_driver
from tvmconv.problem.spec import ConvSpec
from tvmconv.problem.workloads import Layer

SCRIPT = Path(__file__).parents[2] / "scripts" / "cuda_kit.py"
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


DENSE = ConvSpec.conv2d((1, 8, 8, 16), (3, 3, 16, 8), strides=2, bias=True, activation="relu")
DEPTHWISE = ConvSpec.depthwise_conv2d((1, 6, 6, 8), (3, 3, 8, 1))


@pytest.fixture
def tables(monkeypatch):
    """The kit's second half."""
    monkeypatch.syspath_prepend(SCRIPT.parent)
    import cuda_race

    return cuda_race


@pytest.fixture
def race(tables, monkeypatch):
    """It, and PyTorch whose GPU is rehearsed on the CPU."""
    torch = pytest.importorskip("torch")
    import cuda_torch_rehearsal

    monkeypatch.setattr(tables.cuda_graphs, "LEAST_MS", 0.1)
    # 128 copies and a flush for both layers: 3 x L2 is more than they have bytes.
    assert 128 * max(DENSE.bytes, DEPTHWISE.bytes) < 3 << 20
    return tables, cuda_torch_rehearsal.Torch(torch, l2_bytes=1 << 20)


@pytest.mark.parametrize("spec", [DENSE, DEPTHWISE], ids=["dense", "depthwise"])
def test_a_layer_is_timed_warm_and_cold_on_all_sides(race, spec):
    cuda_race, torch = race
    kernel = torch.kernel(spec)
    cold = cuda_race.Cold.of(torch, "cpu")
    layer = Layer("one", spec, 1)

    found = cuda_race.row(torch, "net", layer, kernel, "cpu", cold, time.monotonic() + 60)
    sides = ["ours_us", "cudnn_us"] + (["native_us"] if spec is DEPTHWISE else [])
    for times in (found, found["cold"]):
        assert "failure" not in times
        assert all(times[side] > 0 for side in sides)
        best = min(times[side] for side in sides[1:])
        assert times["ratio"] == pytest.approx(best / times["ours_us"])
    assert kernel.bound == 128
    flushes, *graphs = torch.cuda.captured
    assert flushes == (0, 0)
    # Launches of the same tensor; then each of another one.
    cudnn, cold_cudnn = graphs[1], graphs[len(sides) + 1]
    assert (cudnn, cold_cudnn) == ((20, 1), (128, 128))

    assert "cold" not in cuda_race.row(torch, "net", layer, kernel, "cpu", cold, time.monotonic())


def test_a_side_that_computes_something_else_is_not_timed(race):
    cuda_race, torch = race
    kernel = torch.kernel(DENSE, wrong=True)
    cold = cuda_race.Cold.of(torch, "cpu")
    layer = Layer("one", DENSE, 1)

    found = cuda_race.row(torch, "net", layer, kernel, "cpu", cold, time.monotonic() + 60)
    assert "cudnn and ours differ" in found["failure"]
    assert "cold" not in found


def test_the_tables_show_warm_and_cold_and_what_was_left_out(tables, capsys):
    about = {"network": "net", "class": "dense", "dtype": "float16", "batch": 1, "schedule": "s"}
    warm = {"ours_us": 2.0, "cudnn_us": 4.0, "ratio": 2.0, "bytes": 1000}
    cold = {"ours_us": 4.0, "cudnn_us": 12.0, "ratio": 3.0}
    rows = [
        {**about, **warm, "layer": "a", "key": "a", "cold": cold},
        {**about, **warm, "layer": "b", "key": "b"},
        {**about, **warm, "layer": "c", "key": "c", "cold": {"failure": "ValueError: no"}},
    ]
    figures = {
        "rows": rows,
        "copy_bytes_per_second": 1e9,
        "left_out": ["d"],
        "torch": 2,
        "cudnn": 9,
    }
    tables.show(figures)
    out = capsys.readouterr().out

    assert "| net a | float16 | 1 | 2.0 | 4.0 |  | 2.00 | 4.0 | 12.0 |  | 3.00 | s |" in out
    assert "| net b | float16 | 1 | 2.0 | 4.0 |  | 2.00 |  |  |  |  | s |" in out
    assert "| dense float16, batch 1 | 3 | 2.00 | 2.00 | 1 | 3.00 | 3.00 | 50 | 25 |" in out
    assert "NOT TIMED cold c: ValueError: no" in out
    assert "left out for lack of time: 1, cold 1" in out


def gpu_bundles_manifest(folder, count):
    """A bundle's manifest of so many kernels without any output."""
    from tvmconv.bundle import manifest

    keys = tuple(f"k{number}" for number in range(count))
    runtime = manifest.RuntimeEntry("libtvm_runtime-x86_64.so", "1" * 64)
    entries = {key: manifest.KernelEntry(None, "empty", {}) for key in keys}
    variant = manifest.Variant(
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
    manifest.write_manifest(
        path, manifest.Manifest("2026-11-23", "0.1", "0.27", "0.1", keys, (variant,))
    )
    return path
