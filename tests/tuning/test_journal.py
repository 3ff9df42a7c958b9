"""The tuner's memory: what is read back after a torn line, a damaged file, a full disk or a kill."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tuners import DEPTHWISE, POINTWISE, THREE, plan_for, trial

from tvmconv.errors import TuningError
from tvmconv.hardware import host
from tvmconv.measuring.process.candidate import Measurement
from tvmconv.measuring.process.runner import Conditions
from tvmconv.tuning import journal as journals
from tvmconv.tuning.journal import Conclusion, Journal, Spent
from tvmconv.tuning.plan import conditions_name
from tvmconv.tuning.session import alone

KEY = POINTWISE.key
TRIALS = [trial(number, 1e-6 * (number + 1)) for number in range(6)]


@pytest.fixture
def journal(tmp_path):
    return Journal(tmp_path, "a-machine", "some-conditions")


def file_of(journal: Journal, key: str = KEY) -> Path:
    return journal.folder / f"{key}.jsonl"


# What is read back


def test_a_line_of_100_000_brackets_costs_a_trial(journal):
    journal.add(KEY, TRIALS[:1])
    with file_of(journal).open("a") as stream:
        stream.write("[" * 100_000 + "\n")
    journal.add(KEY, TRIALS[1:2])

    assert list(journal.read(KEY).trials) == TRIALS[:2]


@pytest.mark.parametrize("seconds", ["NaN", '"text"', "1e999", "null", "true", "-5.0"])
def test_a_damaged_note_of_the_time_counts_for_none(journal, seconds):
    journal.spend(Spent("mine", 12.5, finished=False))
    file = journal.folder / "session.json"
    file.write_text(file.read_text().replace("12.5", seconds))

    assert journal.spent("mine") == 0.0


def test_what_was_added_is_read_in_order(journal):
    failed = trial(9, None, "crashed\nbadly, \N{SNOWMAN}")
    journal.add(KEY, TRIALS[:2])
    journal.add(KEY, [failed])
    journal.add(KEY, TRIALS[2:])
    end = Conclusion(7, 128, 1.25, "", "session")
    journal.conclude(KEY, Conclusion(3, None, None, "no time", "session"))
    journal.conclude(KEY, end)

    memory = journal.read(KEY)

    assert list(memory.trials) == [*TRIALS[:2], failed, *TRIALS[2:]]
    assert memory.conclusion == end
    assert journal.read(THREE.key).trials == ()
    assert journal.known() == [KEY]


def test_layers_machines_and_conditions_are_kept_apart(journal, tmp_path):
    journal.add(KEY, TRIALS)
    journal.add(DEPTHWISE.key, TRIALS[:1])
    for other in (
        Journal(tmp_path, "a-machine", "other-conditions"),
        Journal(tmp_path, "b-machine", "some-conditions"),
        Journal(tmp_path / "elsewhere", "a-machine", "some-conditions"),
    ):
        assert other.known() == []
        assert other.read(KEY).trials == ()
    journal.forget(KEY)
    journal.forget(KEY)
    assert journal.read(KEY).trials == ()
    assert len(journal.read(DEPTHWISE.key).trials) == 1


def test_conditions_have_names_of_their_own():
    names = {
        conditions_name(host.cpu_name(), Conditions(threads, cache))
        for threads in (1, 2)
        for cache in ("warm", "cold")
    }

    assert len(names) == 4
    assert all(re.fullmatch(r"[a-z0-9._-]+", name) for name in names)


@pytest.mark.parametrize("cut", [1, 10, 60, -1])
def test_a_torn_last_line_costs_that_trial_only(journal, cut):
    journal.add(KEY, TRIALS[:3])
    content = file_of(journal).read_bytes()
    lines = content.splitlines(keepends=True)
    file_of(journal).write_bytes(b"".join(lines[:2]) + lines[2][:cut])

    assert list(journal.read(KEY).trials) == TRIALS[: 3 if cut == -1 else 2]
    journal.add(KEY, TRIALS[3:5])  # on lines of their own
    kept = TRIALS[:3] if cut == -1 else TRIALS[:2]
    assert list(journal.read(KEY).trials) == [*kept, *TRIALS[3:5]]


DAMAGE = {
    "zeros": bytes(200),
    "empty": b"",
    "not text": b"\xff\xfe\x00{",
    "not json": b'{"schedule": "a.sched',
    "a list": b"[1, 2]",
    "a number": b"7",
    "nothing in it": b"{}",
    "decisions of a wrong type": b'{"schedule": "s", "decisions": [1], "seconds": 1.0, "error": null}',
    "a time of a wrong type": b'{"schedule": "s", "decisions": {}, "seconds": "1", "error": null}',
    "an error of a wrong type": b'{"schedule": "s", "decisions": {}, "seconds": 1.0, "error": 3}',
    "a conclusion without its fields": b'{"concluded": {"trials": 3}}',
    "a conclusion of a wrong type": b'{"concluded": 3}',
    "a decision that is a list": (
        b'{"schedule": "s", "decisions": {"pixels": [1]}, "seconds": 1.0, "error": null}'
    ),
    "a time of nothing": b'{"schedule": "s", "decisions": {}, "seconds": 0.0, "error": null}',
    "a time that is no number": b'{"schedule": "s", "decisions": {}, "seconds": NaN, "error": null}',
    "neither time nor error": b'{"schedule": "s", "decisions": {}, "seconds": null, "error": null}',
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_line_in_the_middle_costs_that_trial_only(journal, damage):
    journal.add(KEY, TRIALS)
    lines = file_of(journal).read_bytes().splitlines()
    lines[2] = DAMAGE[damage]
    file_of(journal).write_bytes(b"\n".join(lines) + b"\n")

    memory = journal.read(KEY)

    assert list(memory.trials) == TRIALS[:2] + TRIALS[3:]
    assert memory.conclusion is None
    assert len({each.candidate.identity for each in memory.trials}) == 5


def test_random_damage_is_never_an_error(journal):
    """Bits that flip may change a trial; they do not end a session."""
    journal.add(KEY, TRIALS)
    journal.conclude(KEY, Conclusion(6, 6, 1.1, "", "session"))
    content = file_of(journal).read_bytes()
    draw = random.Random(0)
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(draw.choice((1, 5))):
            damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
        file_of(journal).write_bytes(damaged)
        memory = journal.read(KEY)
        assert len(memory.trials) <= 7
        assert all(hash(each.candidate.identity) is not None for each in memory.trials)
        assert all(each.seconds is None or each.seconds > 0 for each in memory.trials)


def test_the_time_that_is_spent_belongs_to_one_unfinished_session(journal):
    assert journal.spent("mine") == 0.0
    journal.spend(Spent("mine", 12.5, finished=False))
    assert journal.spent("mine") == 12.5
    assert journal.spent("another") == 0.0
    journal.spend(Spent("mine", 30.0, finished=True))
    assert journal.spent("mine") == 0.0
    for content in ("", "{", "[]", "3", '{"session": "mine"}', "\0" * 40):
        (journal.folder / "session.json").write_text(content)
        assert journal.spent("mine") == 0.0


def test_a_session_is_the_same_for_the_same_command(tmp_path):
    def name(*specs, **options) -> str:
        return plan_for("host", tmp_path, *specs, **options).name

    first = name(POINTWISE, THREE, minutes=1.0)
    assert first == name(POINTWISE, THREE, minutes=1.0, again=True)
    others = {
        name(POINTWISE, minutes=1.0),
        name(POINTWISE, THREE, minutes=2.0),
        name(POINTWISE, THREE, minutes=1.0, trials=9),
        name(POINTWISE, THREE, minutes=1.0, conditions=Conditions(2)),
    }
    assert len(others | {first}) == 5


def test_the_name_of_a_journal_is_a_spec_or_is_ignored():
    assert journals.spec_of(KEY) == POINTWISE
    assert journals.spec_of("notes") is None


# Where it cannot be written

FILL = """
import resource, sys
from pathlib import Path
from tuners import trial
from tvmconv.errors import TuningError
from tvmconv.tuning.journal import Conclusion, Journal, Spent
journal = Journal(Path(sys.argv[1]), "a-machine", "some-conditions")
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
steps = {
    "add": lambda: [journal.add("key", [trial(number)]) for number in range(100)],
    "conclude": lambda: [journal.conclude("key", Conclusion(1, 2, None, "x" * n, "")) for n in range(99)],
    "spend": lambda: journal.spend(Spent("mine", 1.0, False)),
}
try:
    steps[sys.argv[3]]()
except TuningError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("step", "limit", "file"),
    [("add", 1000, "key.jsonl"), ("conclude", 1000, "key.jsonl"), ("spend", 10, "session.json")],
)  # fmt: skip
def test_a_full_disk_is_an_error_that_names_the_file_and_what_to_do(journal, step, limit, file):
    """A limit on the size of files stands for the disk: the same write fails in its middle."""
    done = subprocess.run(
        [sys.executable, "-c", FILL, journal.folder.parents[2], str(limit), step],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "support")},
    )

    assert f"cannot write {journal.folder / file}: File too large" in done.stdout
    assert "--output" in done.stdout
    assert "run the same command again" in done.stdout
    if step == "add":
        assert file_of(journal, "key").stat().st_size == limit  # the last line is torn
        kept = journal.read("key").trials
        assert list(kept) == [trial(number) for number in range(len(kept))]
        assert len(kept) > 3
        journal.add("key", TRIALS)  # there is room again
        assert list(journal.read("key").trials) == [*kept, *TRIALS]
    elif step != "conclude":
        assert journal.spent("mine") == 0.0


def test_a_place_that_cannot_be_written_is_an_error_that_names_it(tmp_path):
    (tmp_path / "a-machine").write_text("a file, where a folder should be")
    journal = Journal(tmp_path, "a-machine", "some-conditions")

    with pytest.raises(TuningError, match=f"cannot write {journal.folder}.*--output"):
        journal.add(KEY, TRIALS)
    assert journal.read(KEY).trials == ()


# One tuner at a time

HOLD = """
import sys
from pathlib import Path
from tuners import THREE, plan_for
from tvmconv.tuning.session import alone
with alone(plan_for("host", Path(sys.argv[1]), THREE, trials=1)):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another tuner at work on ``tmp_path/logs``."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "logs"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "support")},
    )
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_tuner_on_the_same_records_is_refused(holder, tmp_path):
    logs = tmp_path / "logs"
    work = plan_for("host", logs, POINTWISE, trials=1)
    with (
        pytest.raises(TuningError, match=f"process {holder.pid}, since .*--output") as caught,
        alone(work),
    ):
        pass
    assert str(logs / work.machine.name) in str(caught.value)

    with alone(plan_for("host", tmp_path / "elsewhere", POINTWISE, trials=1)):
        pass

    holder.kill()
    holder.wait()
    with alone(work):
        pass
    with alone(work):
        pass


def test_a_trial_in_the_journal_is_plain_json(journal):
    journal.add(KEY, [Measurement(TRIALS[0].candidate, 2.5e-6)])

    assert json.loads(file_of(journal).read_text()) == {
        "schedule": "a.schedule",
        "decisions": {"pixels": 0, "pad": "rows"},
        "seconds": 2.5e-6,
        "error": None,
    }
