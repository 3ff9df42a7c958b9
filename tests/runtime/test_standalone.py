"""A bundle on an inference machine: an environment of its own that has never seen TVM's compiler."""

import json
import subprocess
from pathlib import Path

import inference_venv
import numpy as np
import plain_bundle
import pytest
from plain_bundle import BRAIN, SPECS, operands, reference

# Runs there, isolated from this repository; prints what it measured as JSON.
DEPLOYED = """
import sys, time
start = time.perf_counter()
import tvmconv
library = tvmconv.load(sys.argv[1], threads=2)
loaded = time.perf_counter()
import importlib.util, json
import numpy as np
from tvmconv import errors
saved = np.load(sys.argv[2])
worst, missing = 0.0, ""
for number, key in enumerate(library):
    named = {name: saved[f"{number}_{name}"] for name in ("x", "w", "bias", "residual", "expected")
             if f"{number}_{name}" in saved.files}
    if not named:
        try:
            library[key].bind(np.zeros(library[key].spec.filter_shape, np.float16))
        except errors.MissingToolError as error:
            missing = str(error)
        continue
    expected = named.pop("expected")
    error = np.abs(library[key](**named) - expected)
    worst = max(worst, float(np.max(error / (1 + np.abs(expected)), initial=0)))
print(json.dumps({
    "load_s": loaded - start,
    "worst": worst,
    "missing": missing,
    "tvm": importlib.util.find_spec("tvm") is not None or "tvm" in sys.modules,
    "package": tvmconv.__file__,
    "runtimes": sorted({line.split()[5] for line in open("/proc/self/maps")
                        if "libtvm_runtime" in line or "libtvm_compiler" in line}),
}))
"""


@pytest.fixture(scope="module")
def deployed(tmp_path_factory):
    """The Python of an environment with this project installed without extras, and a bundle."""
    folder = tmp_path_factory.mktemp("deployed")
    python = inference_venv.make(folder)
    return python, plain_bundle.build(folder / "kernels")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_bundle_runs_without_tvm(deployed, tmp_path):
    python, path = deployed
    arrays = {}
    for number, spec in enumerate(SPECS):
        if spec == BRAIN:
            continue
        x, w, bias, residual = operands(spec)
        values = {"x": x, "w": w, "bias": bias, "residual": residual}
        values["expected"] = reference(spec, x, w, bias, residual)
        arrays |= {f"{number}_{name}": v for name, v in values.items() if v is not None}
    np.savez(tmp_path / "arrays.npz", **arrays)
    found = []
    for _ in range(3):  # the first run compiles the Python files
        done = subprocess.run(
            [python, "-I", "-c", DEPLOYED, path, tmp_path / "arrays.npz"],
            cwd=tmp_path, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout))
    result = found[-1]
    assert not result["tvm"]
    assert Path(result["package"]).is_relative_to(python.parent.parent)
    assert result["runtimes"] == [f"/memfd:{next(path.glob('libtvm_runtime-*')).name}"]
    assert result["worst"] < 5e-3  # float16; the other types are far below
    assert "pip install ml_dtypes" in result["missing"]
    best = min(run["load_s"] for run in found)
    print(f"import and load: {best * 1e3:.0f} ms")
    assert best < 1.0  # 0.15 to 0.25 s on a quiet 2.7 GHz core


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_needs_tvm_says_so_where_there_is_none(deployed):
    python, _ = deployed
    command = [python.parent / "tvmconv", "machines"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)

    assert done.returncode == 0, done.stderr
    assert "needs TVM, which is not installed here" in done.stdout
    assert "uninstall" not in done.stdout
