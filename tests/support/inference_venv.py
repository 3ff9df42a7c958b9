"""An environment with this project installed without extras: what an inference machine has."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = ("pyproject.toml", "README.md", "tvmconv", "schedules", "tuning_logs")


def make(folder: Path) -> Path:
    """Make it in ``folder``; returns its Python."""
    project = folder / "project"
    project.mkdir()
    for name in PROJECT:  # a copy, because building leaves files behind
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, project / name)
        else:
            shutil.copy(source, project / name)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", project], check=True
    )
    return python
