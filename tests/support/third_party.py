"""Hardware packs of imaginary third parties: real, tiny distributions in a directory."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tvmconv import hardware

# This host under other names, whose schedules of conv2d go wrong or are chosen badly.
FAULTY = '''
import ctypes, dataclasses, multiprocessing, os, time

from tvmconv import hardware
from tvmconv.schedules.x86.conv2d_direct import DIRECT

def abort(*_):
    os.abort()

def segfault(*_):
    ctypes.string_at(0)

def leave(*_):
    os._exit(3)

def hang(*_):
    time.sleep(3600)

def fail(*_):
    raise RuntimeError("no luck today")

def miscompute(spec, machine, decisions):
    return DIRECT.apply(dataclasses.replace(spec, activation="sigmoid"), machine, decisions)

def faulty(fault):
    """DIRECT, but in the measuring process it comes to grief."""
    def apply(spec, machine, decisions):
        inside = multiprocessing.parent_process() is not None
        return (fault if inside else DIRECT.apply)(spec, machine, decisions)
    return dataclasses.replace(DIRECT, name=f"faulty.{fault.__name__}", apply=apply)

def kernel(name, *call):
    """DIRECT, but its kernel first calls a C function: it strikes where it runs."""
    def apply(spec, machine, decisions):
        from tvm import tirx
        made = DIRECT.apply(spec, machine, decisions)
        called = tirx.Evaluate(tirx.call_extern("int32", *call))
        main = made.main.with_body(tirx.SeqStmt([called, made.main.body]))
        return dataclasses.replace(made, main=main)
    return dataclasses.replace(DIRECT, name=f"faulty.kernel_{name}", apply=apply)

KERNELS = [
    kernel("segfault", "raise", 11),
    kernel("abort", "abort"),
    kernel("hang", "pause"),
    kernel("unlinked", "no_such_function_anywhere"),
]

def smallest(spec, machine):
    """The smallest tile: many times slower than DIRECT's default."""
    return {
        **DIRECT.default(spec, machine),
        **{k.name: min(k.candidates) for k in DIRECT.knobs(spec, machine) if k.name in TILE},
    }

def two_points(spec, machine):
    points = DIRECT.default(spec, machine), smallest(spec, machine)
    return tuple(
        hardware.Knob(name, tuple(dict.fromkeys(point[name] for point in points)))
        for name in points[0]
    )

def one_of_two(spec, machine, decisions):
    return decisions in (DIRECT.default(spec, machine), smallest(spec, machine))

def of_height(height, name, schedule, **changes):
    def accepts(spec, machine):
        return spec.kernel_height == height and DIRECT.accepts(spec, machine)
    return dataclasses.replace(schedule, name=name, accepts=accepts, **changes)

TILE = ("channels", "pixels")
SCHEDULES = {
    "sound": [DIRECT],
    "faulty": [DIRECT, *map(faulty, (abort, segfault, leave, hang, fail, miscompute))],
    "faulty-kernels": [DIRECT, *KERNELS],
    "slow-default": [dataclasses.replace(DIRECT, name="faulty.slow", default=smallest)],
    "best-default": [
        dataclasses.replace(DIRECT, name="faulty.best", knobs=two_points, legal=one_of_two)
    ],
    # By the kernel's height: 1 has a slow default, 2 works by half, 3 is the best, 5 fails.
    "mixed": [
        of_height(1, "slow", DIRECT, default=smallest),
        of_height(3, "best", DIRECT, knobs=two_points, legal=one_of_two),
        of_height(5, "broken", faulty(fail)),
        of_height(2, "right", DIRECT),
        of_height(2, "wrong", DIRECT, apply=miscompute),
    ],
}

def only_on(machine_name, schedule):
    def accepts(spec, machine):
        return machine.name == machine_name and schedule.accepts(spec, machine)
    return dataclasses.replace(schedule, name=f"{machine_name}.{schedule.name}", accepts=accepts)

HOST = hardware.load_pack("x86").detect()
PACK = hardware.HardwarePack(
    name="faulty",
    machines=(
        *(dataclasses.replace(HOST, name=name) for name in SCHEDULES),
        dataclasses.replace(HOST, name="board", architecture="aarch64"),
    ),
    schedules=tuple(only_on(name, each) for name, all in SCHEDULES.items() for each in all),
)
'''


def write_pack(directory: Path, name: str, source: str, value: str | None = None) -> Path:
    """Write distribution ``NAME-pack`` 1.0 with module ``NAME_pack`` and its entry point."""
    directory.mkdir(exist_ok=True)
    (directory / f"{name}_pack.py").write_text(source)
    info = directory / f"{name}_pack-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-pack\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[{hardware.ENTRY_POINTS}]\n{name} = {value or f'{name}_pack:PACK'}\n"
    )
    return directory


@contextmanager
def installed(directory: Path) -> Iterator[None]:
    """Have the packs in ``directory`` installed, in this process and in those it spawns."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(directory)
        hardware.rediscover()
        yield
    for name, module in list(sys.modules.items()):
        if Path(getattr(module, "__file__", None) or "/").is_relative_to(directory):
            del sys.modules[name]  # another test may have another of that name
    hardware.rediscover()
