"""Checks the CUDA kernels on a GPU, and times them against PyTorch, in one command and without a network.

NOT YET RUN on a machine with a GPU.

    scripts/cuda_kit --build FOLDER --machine sm_90     anywhere: needs a CUDA compiler, no GPU
    scripts/cuda_kit FOLDER --json FILE                 there: needs a driver, NumPy and torch

FOLDER holds bundles, and in ``site`` the few packages besides that the second command needs, for the Python
given by ``--python`` (default: the one that builds). Copy this repository and FOLDER to the machine.

Checked are all kernels of edge_cases and of MobileNetV2, ResNet-50 and EfficientNet-B0 in float16 and float32
at batch 1 and 32, and their dense layers in TF32, each against the float64 oracle, in processes of their
own: one that dies costs one kernel.
Timed are those of the networks that were right; `cuda_race.py` says how. Timing stops when ``--minutes`` are
over, and what was left out is said. The exit code is 1 when a kernel is wrong.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import subprocess
import sys
import time
from pathlib import Path

NETWORKS = ("mobilenet_v2", "resnet50", "efficientnet_b0")
DTYPES = ("float16", "float32", "tf32")
BATCHES = (1, 32)
# What the runtime imports besides NumPy; ml_dtypes is NumPy's bfloat16.
PACKAGES = (
    "apache-tvm-ffi>=0.1.14.post0,<0.1.15",
    "nvidia-cuda-runtime>=13.0,<14",
    "ml_dtypes>=0.5",
)
CHECKED, STARTING, DIED = "checked ", "starting ", -1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="what --build made")
    parser.add_argument("--build", type=Path, metavar="FOLDER", help="make FOLDER; needs no GPU")
    parser.add_argument("--machine", default="sm_90", help="with --build (default: sm_90)")
    parser.add_argument(
        "--untuned", action="store_true", help="with --build: no records, the defaults"
    )
    parser.add_argument("--python", help="with --build: version there, as 3.12 (default: this one)")
    parser.add_argument(
        "--json", type=Path, default=Path("cuda_kit.json"), help="figures go there too"
    )
    parser.add_argument("--minutes", type=float, default=9.0, help="for all of it (default: 9)")
    parser.add_argument("--device", default="cuda:0", help="default: cuda:0")
    parser.add_argument("--check", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--skip", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.build:
        return build(args.build, args.machine, args.untuned, args.python)
    if args.folder is None:
        parser.error("name the folder that --build made, or make one with --build FOLDER")
    sys.path.append(str(args.folder / "site"))  # last: what is installed here comes first
    if args.check:
        return check(args.check, args.device, args.skip)
    return measure(args.folder, args.device, args.json, time.monotonic() + 60 * args.minutes)


# On the machine that builds.


def network_layers(dtype: str, batch: int) -> list[tuple[str, object]]:
    """(network, layer) of all networks in a dtype and batch size."""
    from tvmconv.problem import workloads

    found = []
    for network in NETWORKS:
        for layer in workloads.in_dtype(workloads.resolve(network), dtype).entries:
            if layer.spec.precision != dtype:
                continue  # depthwise layers of a network in TF32: those of float32
            shape = (batch, *layer.spec.input_shape[1:])
            spec = dataclasses.replace(layer.spec, input_shape=shape)
            found.append((network, dataclasses.replace(layer, spec=spec)))
    return found


def sets() -> dict[str, list[object]]:
    """What goes into each bundle, by its name."""
    from tvmconv.problem import workloads

    made = {"edge_cases": [layer.spec for layer in workloads.resolve("edge_cases").entries]}
    for dtype in DTYPES:
        for batch in BATCHES:
            specs = [layer.spec for _, layer in network_layers(dtype, batch)]
            made[f"networks-{dtype}-{batch}"] = list(dict.fromkeys(specs))
    return made


def build(folder: Path, machine: str, untuned: bool, python: str | None) -> int:
    from tvmconv import errors
    from tvmconv.building import builder

    folder.mkdir(parents=True, exist_ok=True)
    failed = 0
    for name, specs in sets().items():
        begun = time.monotonic()
        try:
            builder.build(specs, machine, folder / f"{name}.tvmconv", [] if untuned else None)
        except errors.TvmconvError as error:
            print(f"error: {name} is left out: {error}", file=sys.stderr)
            failed = 1
            continue
        print(f"{name}: {len(specs)} kernels for {machine} in {time.monotonic() - begun:.0f} s")
    version = python or f"{sys.version_info.major}.{sys.version_info.minor}"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--upgrade", "--no-deps"]
    command += [
        "--target",
        str(folder / "site"),
        "--only-binary=:all:",
        "--python-version",
        version,
    ]
    command += ["--platform", "manylinux_2_28_x86_64", "--platform", "manylinux_2_17_x86_64"]
    command += ["--platform", "manylinux2014_x86_64", *PACKAGES]
    done = subprocess.run(command, check=False)
    print(f"{folder} is {'complete' if done.returncode == 0 else 'without its packages'}: "
          f"scripts/cuda_kit {folder} --json FILE there, with Python {version}")  # fmt: skip
    return failed or done.returncode


# On the machine with the GPU.


def check(path: Path, device: str, skip: int) -> int:
    """Check the kernels of one bundle from number ``skip`` on; a line for each, in JSON."""
    import tvmconv
    from tvmconv import errors
    from tvmconv.checking import gpu as gpu_check

    library = tvmconv.load(path, device=device)
    for number, key in enumerate(library):
        if number < skip:
            continue
        print(f"{STARTING}{key}", flush=True)
        result = {"key": key, "schedule": library[key].schedule, "failure": None}
        try:
            difference = gpu_check.check(library[key])
            result.update(error=difference.error, allowed=difference.allowed)
        except errors.DeviceError as error:
            # CUDA answers nothing more in this process: the next kernel needs another.
            print(f"{CHECKED}{json.dumps({**result, 'failure': str(error)})}", flush=True)
            return 3
        except errors.TvmconvError as error:
            result["failure"] = str(error)
        print(f"{CHECKED}{json.dumps(result)}", flush=True)
    return 0


def check_bundle(path: Path, device: str, deadline: float) -> list[dict]:
    """Results for all kernels of a bundle, from as many processes as it takes."""
    from tvmconv.bundle import manifest

    results, total = [], len(manifest.read_manifest(path).keys)
    while len(results) < total:
        command = [sys.executable, __file__, str(path.parent), "--check", str(path)]
        command += ["--device", device, "--skip", str(len(results))]
        limit = max(1.0, deadline - time.monotonic())
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=limit, check=False
            )
            out, status = done.stdout, done.returncode
            said = (done.stderr.strip() or "no message").splitlines()[-1]
        except subprocess.TimeoutExpired as error:
            out = error.stdout or b""
            out = out.decode() if isinstance(out, bytes) else out
            status, said = DIED, "it was not done when the time was over"
        lines = out.splitlines()
        results += [
            json.loads(line.removeprefix(CHECKED)) for line in lines if line.startswith(CHECKED)
        ]
        if lines and lines[-1].startswith(STARTING):
            failure = f"the process that ran it died with {status}: {said}"
            results.append({"key": lines[-1].removeprefix(STARTING), "failure": failure})
        elif status not in (0, 3):
            results.append({"key": path.stem, "failure": f"nothing could be checked: {said}"})
            break
        if time.monotonic() > deadline:
            left = total - len(results)
            results.append({"key": path.stem, "failure": f"no time for {left} more kernels"})
            break
    return results


def measure(folder: Path, device: str, output: Path, deadline: float) -> int:
    from tvmconv.hardware import cuda_driver

    found = [str(each) for each in cuda_driver.devices()]
    if not found:
        print("error: no NVIDIA GPU or driver here: `nvidia-smi` lists them", file=sys.stderr)
        return 2
    bundles = sorted(folder.glob("*.tvmconv"))
    if not bundles:
        print(
            f"error: {folder} holds no bundles: scripts/cuda_kit --build {folder}", file=sys.stderr
        )
        return 2
    figures = {"date": datetime.date.today().isoformat(), "device": found[0], "checks": {}}
    right = set()
    for path in bundles:
        results = check_bundle(path, device, deadline)
        figures["checks"][path.stem] = results
        right |= {each["key"] for each in results if not each["failure"]}
        wrong = [each for each in results if each["failure"]]
        print(
            f"{path.stem}: {len(results) - len(wrong)} of {len(results)} kernels are right",
            flush=True,
        )
        for each in wrong:
            print(f"  WRONG {each['key']}: {each['failure']}", flush=True)
        output.write_text(
            json.dumps(figures, indent=1)
        )  # so that nothing is lost if the rest fails
    import cuda_race

    figures["race"] = cuda_race.race(folder, layers(), right, device, deadline)
    output.write_text(json.dumps(figures, indent=1))
    cuda_race.show(figures["race"])
    print(f"\n{found[0]}, {figures['date']}; all figures: {output}")
    return 1 if any(each["failure"] for part in figures["checks"].values() for each in part) else 0


def layers() -> list[tuple[str, list[tuple[str, object]]]]:
    """Bundle names with the (network, layer) that are timed from them: TF32 last, else small ones first."""
    return [
        (f"networks-{dtype}-{batch}", network_layers(dtype, batch))
        for dtypes in (DTYPES[:2], DTYPES[2:])
        for batch in BATCHES
        for dtype in dtypes
    ]


if __name__ == "__main__":
    sys.exit(main())
