"""``tvmconv logs``: which of two records stays, what is taken out, and what is never lost."""

from __future__ import annotations

import itertools
import json
import random
import shutil
import signal
import subprocess
import sys

import pytest
from records_upkeep import (
    CONV,
    DEPTHWISE,
    MACHINE,
    OTHER_MACHINE,
    SMALL,
    held,
    line,
    record,
    snapshot,
)

from tvmconv.commands import cli
from tvmconv.records import log, merit

pytest_plugins = ("logs_fixtures",)

# Which of two records is better

WORSE_TO_BETTER = (
    {"how": "simulated", "place": "simulated", "microseconds": 10.0},
    {"tvm": "0.1.0", "microseconds": 20.0},
    {"microseconds": 95.0, "date": "2026-12-31"},
    {"microseconds": 80.0, "date": "2026-01-01"},
    {"microseconds": 80.0, "date": "2026-06-01"},
    # A greater gain on a slower day: absolute times do not count.
    {"microseconds": 160.0, "default_microseconds": 320.0, "date": "2025-01-01"},
)


@pytest.mark.parametrize(("low", "high"), [*itertools.combinations(range(len(WORSE_TO_BETTER)), 2)])
def test_better_is_an_order(low, high):
    worse, good = record(**WORSE_TO_BETTER[low]), record(**WORSE_TO_BETTER[high])

    assert merit.better(good, worse)
    assert merit.better(worse, good) is None


def test_a_record_is_not_better_than_itself_or_one_as_good():
    assert merit.better(record(), record()) is None
    assert merit.better(record(trials=1), record(trials=2)) is None


def test_better_says_what_decided():
    assert merit.better(record(microseconds=50), record()) == "gain 2.000 beats gain 1.250"
    assert "TVM 0.1" in merit.better(record(), record(tvm="0.1"))
    assert (
        merit.better(record(), record(how="simulated", place="simulated"))
        == "measured beats simulated"
    )


# merge


def test_merge_adds_replaces_and_keeps(tmp_path, run):
    source, into = tmp_path / "source", tmp_path / "into"
    slower, faster = {"microseconds": 90.0}, {"microseconds": 70.0}
    log.write(into, [record(CONV), record(SMALL), record(CONV, OTHER_MACHINE)])
    log.write(source, [record(CONV, **faster), record(SMALL, **slower), record(DEPTHWISE)])

    code, out, _ = run("merge", source, "--into", into)

    assert code == 0
    rows = {row.split()[2]: row for row in out.splitlines() if f" {MACHINE.name} " in row}
    assert rows[CONV.key].startswith("replaced")
    assert "gain 1.429 beats gain 1.250" in rows[CONV.key]
    assert f"{source / MACHINE.name / 'conv2d.jsonl'}:1" in rows[CONV.key]
    assert rows[SMALL.key].startswith("kept")
    assert f"{into / MACHINE.name / 'conv2d.jsonl'}:2: gain 1.250 beats" in rows[SMALL.key]
    assert rows[DEPTHWISE.key].startswith("added")
    assert out.splitlines()[-1] == f"{into}: 1 replaced, 1 kept, 1 added"
    assert held(into) == {
        (MACHINE.name, CONV.key): record(CONV, **faster),
        (MACHINE.name, SMALL.key): record(SMALL),
        (MACHINE.name, DEPTHWISE.key): record(DEPTHWISE),
        (OTHER_MACHINE.name, CONV.key): record(CONV, OTHER_MACHINE),
    }


def test_merging_again_changes_nothing(tmp_path, outcome):
    log.write(tmp_path / "a", [record(CONV), record(SMALL, OTHER_MACHINE)])
    assert outcome("merge", tmp_path / "a", "--into", tmp_path / "b") == [
        ("added", SMALL.key),
        ("added", CONV.key),
    ]
    file = log.log_file(tmp_path / "b", MACHINE.name, "conv2d")
    file.write_text("\n" + file.read_text())  # as a person may have left it
    before = snapshot(tmp_path)

    assert {action for action, _ in outcome("merge", tmp_path / "a", "--into", tmp_path / "b")} == {
        "kept"
    }
    assert snapshot(tmp_path) == before


def test_the_order_of_sources_does_not_matter(tmp_path, outcome):
    sources = []
    for number, changes in enumerate(WORSE_TO_BETTER):
        sources.append(tmp_path / f"source{number}")
        log.write(sources[-1], [record(**changes)])
    draw = random.Random(1)
    for attempt in range(5):
        into = tmp_path / f"into{attempt}"
        changes = outcome("merge", *draw.sample(sources, len(sources)), "--into", into)

        assert held(into) == {(MACHINE.name, CONV.key): record(**WORSE_TO_BETTER[-1])}
        assert sorted(changes) == [("added", CONV.key)] + 5 * [("kept", CONV.key)]


def test_the_last_line_of_a_key_is_what_is_merged(tmp_path, outcome):
    file = log.log_file(tmp_path / "a", MACHINE.name, "conv2d")
    file.parent.mkdir(parents=True)
    file.write_text(line(microseconds=50.0) + line(microseconds=70.0))

    assert outcome("merge", tmp_path / "a", "--into", tmp_path / "b") == [("added", CONV.key)]
    assert held(tmp_path / "b")[MACHINE.name, CONV.key].microseconds == 70.0


def test_a_damaged_file_anywhere_stops_a_merge_before_anything_is_written(tmp_path, run):
    good, torn, into = tmp_path / "good", tmp_path / "torn", tmp_path / "into"
    log.write(good, [record(CONV), record(DEPTHWISE)])
    (file,) = log.write(torn, [record(SMALL)])
    file.write_text(file.read_text() + line()[:-30])

    code, out, err = run("merge", good, torn, "--into", into)

    assert (code, out) == (1, "")
    assert f"{file}, line 2: not a tuning record" in err
    assert not into.exists()

    damaged = log.log_file(into, MACHINE.name, "depthwise_conv2d")
    damaged.parent.mkdir(parents=True)
    damaged.write_text("{torn\n")
    code, out, err = run("merge", good, "--into", into)
    assert (code, out) == (1, "")
    assert f"{damaged}, line 1" in err
    assert snapshot(into) == {f"{MACHINE.name}/depthwise_conv2d.jsonl": b"{torn\n"}


@pytest.mark.parametrize(("folder", "op"), [("sapphirerapids", "conv2d"), (MACHINE.name, "notes")])
def test_a_record_in_the_wrong_file_is_an_error(tmp_path, run, folder, op):
    file = log.log_file(tmp_path / "a", folder, op)
    file.parent.mkdir(parents=True)
    file.write_text(line())

    code, _, err = run("merge", tmp_path / "a", "--into", tmp_path / "b")

    assert code == 1
    assert f"{file}, line 1: it belongs into {MACHINE.name}/conv2d.jsonl" in err
    assert not (tmp_path / "b").exists()


def test_wrong_directories_are_wrong_arguments(tmp_path, run):
    (tmp_path / "empty").mkdir()
    log.write(tmp_path / "logs", [record()])
    into = tmp_path / "into"
    mistakes = {
        tmp_path / "none": "none is not a directory",
        tmp_path / "empty": "holds no tuning records (<machine>/<op>.jsonl)",
        tmp_path / "logs" / MACHINE.name: f"Did you mean {tmp_path / 'logs'}?",
    }
    for source, message in mistakes.items():
        code, _, err = run("merge", tmp_path / "logs", source, "--into", into)
        assert code == 2
        assert message in err
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "logs")
    code, _, err = run("merge", link, "--into", tmp_path / "logs")
    assert code == 2
    assert "both where records come from and where they go" in err
    assert not into.exists()


# All three


COMMANDS = {
    "merge": ("merge", "{a}", "--into", "{b}"),
    "prune": ("prune", "{a}"),
    "promote": ("promote", "--from", "{a}", "--machine", MACHINE.name, "--into", "{b}"),
}


@pytest.fixture
def command(tmp_path):
    """Return a command of that name with something to do in directories that both hold records."""
    log.write(tmp_path / "a", [record(CONV), record(SMALL, tvm="0.1"), record(DEPTHWISE)])
    log.write(tmp_path / "b", [record(CONV, microseconds=90.0), record(SMALL, tvm="0.1")])

    def command(name: str) -> list[str]:
        return [word.format(a=tmp_path / "a", b=tmp_path / "b") for word in COMMANDS[name]]

    return command


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["logs", name, "--help"])

    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert all(option in out for option in ("--dry-run", "--json"))


def test_a_command_is_required(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["logs"])

    assert ended.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_a_dry_run_says_what_a_real_one_does_and_writes_nothing(name, command, run, tmp_path):
    shutil.rmtree(tmp_path / "b" / MACHINE.name)
    for lock in tmp_path.rglob(".lock"):
        lock.unlink()
    before = snapshot(tmp_path)

    code, dry, _ = run(*command(name), "--dry-run")
    assert snapshot(tmp_path) == before
    assert not list(tmp_path.rglob(".lock"))
    assert (code, *run(*command(name))[1:2]) == (
        code,
        dry.replace("; nothing was written: --dry-run", ""),
    )
    assert snapshot(tmp_path) != before


@pytest.mark.parametrize("name", COMMANDS)
def test_json_says_what_the_table_says(name, command, run):
    _, table, _ = run(*command(name), "--dry-run")
    _, out, _ = run(*command(name), "--dry-run", "--json")
    found = json.loads(out)

    assert found["dry_run"] is True
    rows = table.splitlines()[2:-2]
    assert len(rows) == len(found["changes"]) > 0
    for row, change in zip(rows, found["changes"], strict=True):
        words = (change["action"], change["machine"], change["key"], f"{change['gain']:.3f}")
        place = f"{change['file']}:{change['line']}"
        assert row.split(maxsplit=5)[:5] == [*words, place]
        assert row.endswith(change["reason"])


TALKATIVE = """
import logging, sys
logging.basicConfig(level=logging.DEBUG)  # filelock says what it does
from tvmconv.commands import cli
sys.exit(cli.main(["logs", *sys.argv[1:]]))
"""


@pytest.mark.parametrize("name", COMMANDS)
def test_ctrl_c_while_another_process_writes_changes_nothing(name, command, tmp_path):
    target = tmp_path / ("a" if name == "prune" else "b")
    before = snapshot(tmp_path)
    with log.locked(target):
        process = subprocess.Popen(
            [sys.executable, "-c", TALKATIVE, *command(name)],
            stderr=subprocess.PIPE,
            text=True,
            # A shell's background jobs, and what they start, ignore the signal.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        assert any("not acquired" in said for said in process.stderr)  # it waits
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)

    assert process.returncode == 130
    assert error.splitlines()[-1] == "interrupted"
    assert snapshot(tmp_path) == before


NO_SPACE = """
import resource, sys
from tvmconv import hardware
from tvmconv.commands import cli
hardware.working_packs()  # loading them may write caches
resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
sys.exit(cli.main(["logs", *sys.argv[1:]]))
"""


@pytest.mark.parametrize("name", [*COMMANDS, "damaged"])
def test_a_full_disk_leaves_every_file_as_it_was(name, command, tmp_path):
    arguments = command("prune" if name == "damaged" else name)
    if name == "damaged":
        with log.log_file(tmp_path / "a", MACHINE.name, "conv2d").open("a") as stream:
            stream.write("{torn\n")
        arguments.append("--damaged")
    before = snapshot(tmp_path)

    done = subprocess.run(
        [sys.executable, "-c", NO_SPACE, *arguments], capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    named = ".bak" if name == "damaged" else ""
    assert f"conv2d.jsonl{named}: File too large" in done.stderr
    assert snapshot(tmp_path) == before
