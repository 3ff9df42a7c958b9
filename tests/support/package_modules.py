"""The modules of this package, as installed, and their files in the repository."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
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
