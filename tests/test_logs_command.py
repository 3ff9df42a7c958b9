"""``tvmconv logs``: which of two records stays, what is taken out, and what is never lost."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import third_party

from tvmconv import choice, cli, hardware
from tvmconv.spec import ConvSpec
from tvmconv.tuning import log, records

ROOT = Path(__file__).parent.parent
MACHINE, PACK = hardware.find_machine("x86-64-v3")
OTHER_MACHINE, _ = hardware.find_machine("x86-64-v2")
CONV = ConvSpec.conv2d((1, 14, 14, 64), (1, 1, 64, 64))
SMALL = ConvSpec.conv2d((1, 7, 7, 64), (3, 3, 64, 64))
DEPTHWISE = ConvSpec.depthwise_conv2d((1, 14, 14, 64), (3, 3, 64, 1))


def record(spec: ConvSpec = CONV, on: hardware.Machine = MACHINE, **changes: object) -> log.Record:
    default = choice.default_choice(spec, on, PACK)
    fields: dict[str, object] = {
        "key": spec.key,
        "schedule": default.schedule.name,
        "decisions": default.decisions,
        "microseconds": 80.0,
        "default_microseconds": 100.0,
        "machine": on.name,
        "cpu": "A CPU",
        "threads": 1,
        "tvm": metadata.version("apache-tvm"),
        "date": "2026-06-15",
        "trials": 64,
        "measured": "here",
    }
    return log.Record(**{**fields, **changes})


def line(**changes: object) -> str:
    spec = changes.pop("spec", CONV)
    return json.dumps(dataclasses.asdict(record(spec, **changes))) + "\n"


def held(directory: Path) -> dict[tuple[str, str], log.Record]:
    """All records of a directory, by folder and key."""
    return {
        (file.parent.name, entry.record.key): entry.record
        for file in directory.glob("*/*.jsonl")
        for entry in log.read_log(file)
    }


def snapshot(directory: Path) -> dict[str, bytes]:
    """Every file below a directory but locks."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


@pytest.fixture
def run(capsys):
    """Run ``tvmconv logs``; returns (exit code, stdout, stderr)."""

    def run(*arguments: object):
        capsys.readouterr()
        code = cli.main(["logs", *map(str, arguments)])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def outcome(run):
    """Run ``tvmconv logs --json``; returns (action, key) of each change after checking the exit code."""

    def outcome(*arguments: object, code: int = 0):
        ended, out, _ = run(*arguments, "--json")
        assert ended == code
        return [(change["action"], change["key"]) for change in json.loads(out)["changes"]]

    return outcome


@pytest.fixture
def users_own(tmp_path, monkeypatch):
    """The user's directory, empty, in place of this user's real one."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "data" / "tvmconv" / "tuning_logs"


# Which of two records is better

WORSE_TO_BETTER = (
    {"measured": "simulated", "microseconds": 10.0},
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

    assert records.better(good, worse)
    assert records.better(worse, good) is None


def test_a_record_is_not_better_than_itself_or_one_as_good():
    assert records.better(record(), record()) is None
    assert records.better(record(trials=1), record(trials=2)) is None


def test_better_says_what_decided():
    assert records.better(record(microseconds=50), record()) == "gain 2.000 beats gain 1.250"
    assert "TVM 0.1" in records.better(record(), record(tvm="0.1"))
    assert records.better(record(), record(measured="simulated")) == "measured beats simulated"


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


# prune


def pruned_directory(directory: Path) -> dict[str, str]:
    """Fill a directory with a record of every kind; returns a part of the reason by key."""
    reasons: dict[str, str] = {}

    def bad(number: int, reason: str, **changes: object) -> log.Record:
        spec = ConvSpec.conv2d((1, number, number, 8), (1, 1, 8, 8))
        reasons[spec.key] = reason
        return record(spec, **changes)

    log.write(
        directory,
        [
            record(CONV),
            record(DEPTHWISE),
            record(SMALL, OTHER_MACHINE, microseconds=98.0),  # just worthwhile
            bad(1, "unknown schedule 'gone'", schedule="gone"),
            bad(2, "pixels of x86.conv2d.direct is 60", decisions={"pixels": 60}),
            bad(3, "measured with TVM 0.1", tvm="0.1"),
            bad(4, "gain 1.015, worthwhile from 1.02", microseconds=98.5),
            bad(5, "unknown machine 'abacus'", machine="abacus"),
        ],
    )
    return reasons


def test_prune_takes_out_what_is_of_no_use_and_says_why(tmp_path, run):
    directory = tmp_path / "logs"
    reasons = pruned_directory(directory)

    code, out, _ = run("prune", directory)

    assert code == 0
    for key, reason in reasons.items():
        (row,) = [row for row in out.splitlines() if key in row]
        assert row.startswith("removed")
        assert reason in row
    assert out.splitlines()[-1] == f"{directory}: {len(reasons)} removed"
    assert set(held(directory)) == {
        (MACHINE.name, CONV.key),
        (MACHINE.name, DEPTHWISE.key),
        (OTHER_MACHINE.name, SMALL.key),
    }
    assert not (directory / "abacus").exists()  # nothing is left of it
    assert run("prune", directory)[1] == f"{directory}: nothing to do\n"


def test_prune_leaves_the_lines_that_stay_as_they_are(tmp_path, outcome):
    file = log.log_file(tmp_path, MACHINE.name, "conv2d")
    file.parent.mkdir(parents=True)
    by_hand = "  " + line(spec=SMALL).replace('": ', '":')
    early, late = line(microseconds=50.0), line(microseconds=60.0)
    useless = line(tvm="0.1")  # the last of its key, but of no use
    file.write_text(early + by_hand + late + useless)

    assert outcome("prune", tmp_path) == [("removed", CONV.key), ("removed", CONV.key)]
    assert file.read_text() == by_hand + late


def test_prune_of_one_machine_leaves_the_others(tmp_path, run):
    log.write(tmp_path, [record(tvm="0.1"), record(CONV, OTHER_MACHINE, tvm="0.1")])

    assert run("prune", tmp_path, "--machine", MACHINE.name)[0] == 0
    assert set(held(tmp_path)) == {(OTHER_MACHINE.name, CONV.key)}
    code, _, err = run("prune", tmp_path, "--machine", "x86-64-v22")
    assert code == 2
    assert "Did you mean x86-64-v2?" in err


def test_prune_knows_the_host(tmp_path, run):
    host = hardware.detect()
    log.write(tmp_path, [record(CONV, host, tvm="0.1"), record(CONV, OTHER_MACHINE, tvm="0.1")])

    assert run("prune", tmp_path, "--machine", "host")[0] == 0
    assert set(held(tmp_path)) == {(OTHER_MACHINE.name, CONV.key)}


def test_prune_takes_out_damaged_lines_only_when_told_and_after_a_copy(tmp_path, run):
    directory = tmp_path / "logs"
    log.write(directory, [record(CONV, tvm="0.1"), record(DEPTHWISE, tvm="0.1")])
    file = log.log_file(directory, MACHINE.name, "depthwise_conv2d")
    file.write_bytes(line(spec=DEPTHWISE).encode() + b"\xff\xfe\n" + line().encode()[:-40])
    before = snapshot(directory)

    code, out, err = run("prune", directory)
    assert (code, out) == (1, "")
    assert f"{file}, line 2: not a tuning record" in err
    command = f"tvmconv logs prune {directory} --machine {MACHINE.name} --damaged"
    assert command in err
    assert snapshot(directory) == before

    code, out, _ = run(*command.split()[2:])
    copy = file.with_name(f"{file.name}.bak")
    assert code == 0
    assert out.count(f"{copy} keeps a copy") == 2
    assert copy.read_bytes() == before[f"{MACHINE.name}/depthwise_conv2d.jsonl"]
    assert file.read_text() == line(spec=DEPTHWISE)

    file.write_text("{torn again\n")  # an older copy stays
    assert run("prune", directory, "--damaged")[0] == 0
    assert not file.exists()
    assert copy.read_bytes() == before[f"{MACHINE.name}/depthwise_conv2d.jsonl"]
    assert file.with_name(f"{file.name}.bak2").read_text() == "{torn again\n"


def test_prune_judges_no_machine_whose_pack_is_broken(tmp_path, run):
    logs = tmp_path / "logs"
    log.write(logs, [record(machine="abacus"), record(tvm="0.1")])
    before = snapshot(logs)
    packs = third_party.write_pack(
        tmp_path / "packs", "old", "raise ImportError('beads are missing')"
    )

    with third_party.installed(packs):
        code, _, err = run("prune", logs)

    assert code == 1
    assert "records of abacus still apply cannot be told" in err
    assert "beads are missing" in err
    assert snapshot(logs) == before


def test_a_build_refuses_what_prune_then_takes_out(tmp_path, capfd):
    log.write(tmp_path / "logs", [record(tvm="0.1.2")])
    command = ["build", CONV.key, "--machine", MACHINE.name, "--logs", str(tmp_path / "logs")]
    command += ["--output", str(tmp_path / "b.tvmconv")]

    assert cli.main(command) == 1
    message = capfd.readouterr().err.splitlines()[-1]
    remedy = message.rpartition("All such records at once: ")[2]
    assert cli.main(remedy.split()[1:]) == 0
    assert held(tmp_path / "logs") == {}
    assert cli.main(command) == 0


# promote


def test_promote_takes_ones_own_records_of_a_machine(tmp_path, users_own, run):
    into = tmp_path / "into"
    log.write(into, [record(SMALL, microseconds=50.0), record(CONV, microseconds=90.0)])
    log.write(users_own, [record(CONV), record(SMALL), record(CONV, OTHER_MACHINE)])
    before = snapshot(users_own)

    code, out, _ = run("promote", "--machine", MACHINE.name, "--into", into)

    assert code == 0
    assert out.splitlines()[-1] == f"{into}: 1 replaced, 1 kept"
    assert held(into) == {
        (MACHINE.name, CONV.key): record(CONV),
        (MACHINE.name, SMALL.key): record(SMALL, microseconds=50.0),
    }
    assert snapshot(users_own) == before


def test_promote_refuses_what_prune_would_take_out(tmp_path, outcome):
    source, into = tmp_path / "source", tmp_path / "into"
    reasons = pruned_directory(source)
    own = [
        key for key in reasons if (source / MACHINE.name / "conv2d.jsonl").read_text().count(key)
    ]

    changes = outcome(
        "promote", "--from", source, "--machine", MACHINE.name, "--into", into, code=1
    )

    assert sorted(changes) == sorted(
        [("added", CONV.key), ("added", DEPTHWISE.key), *(("refused", key) for key in own)]
    )
    assert len(own) == 4
    assert set(held(into)) == {(MACHINE.name, CONV.key), (MACHINE.name, DEPTHWISE.key)}


def test_promote_of_the_host_and_of_some_layers_only(tmp_path, outcome):
    source, into, host = tmp_path / "source", tmp_path / "into", hardware.detect()
    log.write(source, [record(spec, host) for spec in (CONV, SMALL, DEPTHWISE)])
    keys = tmp_path / "keys"
    keys.write_text(f"{SMALL.key}\n{DEPTHWISE.key}\n")
    command = ("promote", "--from", source, "--machine", "host", "--into", into)

    assert outcome(*command, CONV.key) == [("added", CONV.key)]
    assert sorted(outcome(*command, keys)) == [("added", SMALL.key), ("added", DEPTHWISE.key)]
    assert {key for _, key in outcome(*command)} == {CONV.key, SMALL.key, DEPTHWISE.key}


def test_promote_says_what_is_wrong(tmp_path, users_own, run):
    log.write(tmp_path / "logs", [record()])
    into = tmp_path / "into"
    near = CONV.key.replace("14x14", "14x15")

    def promote(*arguments: object, machine: str = MACHINE.name, source: Path = tmp_path / "logs"):
        code, _, err = run(
            "promote", *arguments, "--from", source, "--machine", machine, "--into", into
        )
        assert not into.exists()
        return code, err

    code, err = promote(machine="x86-64-v")
    assert code == 2
    assert "Did you mean" in err
    code, err = promote(machine=OTHER_MACHINE.name)
    assert code == 2
    assert f"has no records for {OTHER_MACHINE.name}" in err
    assert MACHINE.name in err
    code, err = promote(near)
    assert code == 2
    assert f"Did you mean {CONV.key}?" in err
    code, err = promote("mobilenet_v22")
    assert code == 2
    assert "Did you mean mobilenet_v2" in err
    code, err = promote("mobilenet_v2")
    assert code == 1
    assert "none of them for one of these" in err
    assert f"tvmconv tune WORKLOAD --machine {MACHINE.name}" in err
    code, _, err = run("promote", "--machine", MACHINE.name, "--into", into)
    assert code == 2
    assert f"no records of your own in {users_own}" in err
    assert "tvmconv tune" in err


def test_promote_goes_into_the_source_tree_by_default(tmp_path, outcome, monkeypatch):
    log.write(tmp_path / "own", [record()])
    tree = tmp_path / "tree"
    (tree / "tuning_logs").mkdir(parents=True)
    (tree / "pyproject.toml").touch()
    monkeypatch.setattr(log, "shipped_directory", lambda: tree / "tuning_logs")

    outcome("promote", "--from", tmp_path / "own", "--machine", MACHINE.name)

    assert held(tree / "tuning_logs") == held(tmp_path / "own")


def test_promote_into_an_installed_package_must_be_meant(tmp_path):
    package = tmp_path / "site-packages" / "tvmconv"
    ignore = shutil.ignore_patterns("__pycache__")
    for folder, name in (("tvmconv", "."), ("schedules", "schedules"), ("tuning_logs",) * 2):
        shutil.copytree(ROOT / folder, package / name, ignore=ignore, dirs_exist_ok=True)
    log.write(tmp_path / "own", [record()])
    before = snapshot(package)
    command = [sys.executable, "-m", "tvmconv.cli", "logs", "promote", "--machine", MACHINE.name]
    command += ["--from", str(tmp_path / "own")]
    environment = {**os.environ, "PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": "1"}

    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd="/", check=False
    )

    assert done.returncode == 2
    assert f"{package / 'tuning_logs'}, which belongs to an installed package" in done.stderr
    assert "--into" in done.stderr
    assert snapshot(package) == before


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
from tvmconv import cli
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
from tvmconv import cli, hardware
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
