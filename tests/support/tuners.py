"""What the tests of the tuner share: layers, plans, and tuners in processes of their own."""

from __future__ import annotations

import fcntl
import html.parser
import json
import os
import resource
import signal
import subprocess
import sys
import termios
import time
import xml.etree.ElementTree
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import third_party

from tvmconv import hardware
from tvmconv.hardware import host
from tvmconv.measuring.process.candidate import Candidate, Measurement
from tvmconv.problem.spec import ConvSpec
from tvmconv.problem.workloads import Layer
from tvmconv.tuning.journal import Journal
from tvmconv.tuning.plan import Plan, plan
from tvmconv.tuning.progress import LayerState, Session

# The height of the filter decides what the machine "mixed" of `third_party.FAULTY` makes of it.
POINTWISE = ConvSpec.conv2d((1, 14, 14, 64), (1, 1, 64, 64), bias=True)
THREE = ConvSpec.conv2d((1, 9, 9, 32), (3, 3, 32, 64), activation="relu")
FIVE = ConvSpec.conv2d((1, 9, 9, 16), (5, 5, 16, 32))
TWO = ConvSpec.conv2d((1, 9, 9, 16), (2, 2, 16, 32))
DEPTHWISE = ConvSpec.depthwise_conv2d((1, 14, 14, 32), (3, 3, 32, 1))

only_x86 = pytest.mark.skipif(host.architecture() != "x86_64", reason="borrows x86's schedules")


@contextmanager
def faulty_packs(directory: Path) -> Iterator[Path]:
    """The imaginary machines of `third_party.FAULTY`, here and in what is started from here."""
    with third_party.installed(third_party.write_pack(directory, "faulty", third_party.FAULTY)):
        yield directory


def layers(*specs: ConvSpec, count: int = 1) -> list[Layer]:
    return [Layer(f"layer{number}", spec, count) for number, spec in enumerate(specs)]


def plan_for(
    machine: str, directory: Path, *specs: ConvSpec, trials: int | None = None, **options
) -> Plan:
    return plan(layers(*specs), machine, trials, options.pop("minutes", None), directory, **options)


def default_of(spec: ConvSpec, machine_name: str) -> Candidate:
    machine, pack = hardware.find_machine(machine_name)
    schedule = hardware.schedules_for(spec, machine, pack)[0]
    return Candidate(schedule.name, schedule.default(spec, machine))


def trial(number: int, seconds: float | None = 1e-6, error: str | None = None) -> Measurement:
    """An invented one, for what only writes and reads."""
    return Measurement(Candidate("a.schedule", {"pixels": number, "pad": "rows"}), seconds, error)


class Notes:
    """A watcher that remembers who was measured, in order, and when the session began."""

    def __init__(self) -> None:
        self.measured_keys: list[str] = []
        self.finished_keys: list[str] = []
        self.peak = 0.0

    def started(self, session: Session) -> None:
        self.peak = session.peak

    def measured(self, session: Session, state: LayerState) -> None:
        self.measured_keys.append(state.layer.spec.key)

    def finished(self, session: Session, state: LayerState) -> None:
        self.finished_keys.append(state.layer.spec.key)


class Tuner:
    """``tvmconv tune ARGUMENTS --output DIRECTORY``, running, in a process group of its own."""

    def __init__(
        self, packs: Path, directory: Path, *arguments: object, terminal: int | None = None
    ) -> None:
        """``terminal`` is a descriptor, for all but stdout."""
        self.directory = directory
        self._temporary = directory.with_name(f"{directory.name}-tmp")
        self._temporary.mkdir(exist_ok=True)
        environment = {
            **os.environ,
            "PYTHONPATH": str(packs),
            "TMPDIR": str(self._temporary),
            "XDG_DATA_HOME": str(self._temporary),
        }
        words = [str(word) for word in (*arguments, "--output", directory)]

        def prepare() -> None:
            # A shell's background jobs, and what they start, ignore Ctrl-C.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if terminal is not None:
                fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            [sys.executable, "-m", "tvmconv.commands.cli", "tune", *words],
            stdin=subprocess.DEVNULL if terminal is None else terminal,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if terminal is None else terminal,
            text=True,
            env=environment,
            start_new_session=True,
            preexec_fn=prepare,
        )

    def wait_for_trials(self, count: int) -> None:
        """Wait until so many are in the journals."""
        self.wait_until(lambda: len(trial_lines(self.directory)) >= count)

    def wait_until(self, reached: Callable[[], bool]) -> None:
        for _ in range(3000):
            if reached():
                return
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.02)
        raise AssertionError("waited for a minute")

    def kill(self) -> None:
        """As the out-of-memory killer or a power cut would: the process alone, without a warning."""
        self.process.kill()
        self.process.communicate()

    def limit_files(self, size: int) -> None:
        """Let the tuner itself, but not what it has started, write no file beyond ``size`` bytes."""
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (size, size))

    def end(self) -> tuple[int, str, str]:
        """Return exit code, stdout and stderr."""
        out, err = self.process.communicate(timeout=120)
        return self.process.returncode, out, err

    def processes(self) -> list[int]:
        """All of its group that live, 20 s later at the latest."""
        for _ in range(200):
            left = [
                pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if self._has(pid)
            ]
            if not left:
                return []
            time.sleep(0.1)
        return left

    def scratch(self) -> list[Path]:
        return list(self._temporary.iterdir())

    def _has(self, pid: int) -> bool:
        try:
            state, _, group = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:3]
        except (OSError, ValueError):
            return False  # it has just ended
        return state != "Z" and int(group) == self.process.pid


def tune(packs: Path, directory: Path, *arguments: object) -> tuple[int, str, str]:
    return Tuner(packs, directory, *arguments).end()


def journal_files(directory: Path) -> list[Path]:
    return sorted(directory.glob("*/.tuning/*/*.jsonl"))


def trial_lines(directory: Path) -> list[str]:
    lines = [line for file in journal_files(directory) for line in file.read_text().splitlines()]
    return [line for line in lines if '"decisions"' in line]


def trials_in(directory: Path, spec: ConvSpec) -> list[str]:
    """What was tried for a layer and can be read, as text, equal for equal candidates."""
    (file,) = [file for file in journal_files(directory) if file.stem == spec.key]
    tried = []
    for line in file.read_bytes().splitlines():
        with suppress(ValueError, KeyError):
            fields = json.loads(line)
            tried.append(f"{fields['schedule']} {sorted(fields['decisions'].items())}")
    return tried


def workload(directory: Path, *specs: ConvSpec) -> Path:
    """A file that names these layers."""
    file = directory / "keys.txt"
    file.write_text("".join(f"{spec.key}\n" for spec in specs))
    return file


def journal_in(directory: Path) -> Journal:
    """The one journal below a directory."""
    (conditions,) = {file.parent for file in journal_files(directory)}
    return Journal(directory, conditions.parent.parent.name, conditions.name)


class Tags(html.parser.HTMLParser):
    """Raises unless every tag is closed where it should be; keeps the text."""

    VOID = ("meta", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.seen: list[str] = []

    def handle_starttag(self, tag, attrs) -> None:
        self.seen.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        self.text += data


def check_report(file: Path, specs: Iterable[ConvSpec]) -> None:
    """Raise unless it is what its name says, with all layers in it where that can be read."""
    specs, content = list(specs), file.read_bytes()
    if file.suffix == ".png":
        assert content.startswith(b"\x89PNG\r\n\x1a\n")
        assert content.endswith(b"IEND\xaeB`\x82")
        return
    text = content.decode()
    assert all(spec.key in text for spec in specs)
    drawing = text[text.index("<svg") : text.index("</svg>") + len("</svg>")]
    assert len(xml.etree.ElementTree.fromstring(drawing)) > 0  # noqa: S314 - our own
    if file.suffix == ".svg":
        return
    tags = Tags()
    tags.feed(text)
    tags.close()
    assert tags.open == []
    assert all(spec.key in tags.text for spec in specs)
    assert tags.seen.count("tr") == 1 + len(specs)
