"""`tvmconv logs prune`: what is of no use is taken out, with the reason."""

from __future__ import annotations

import third_party
from records_upkeep import (
    CONV,
    DEPTHWISE,
    MACHINE,
    OTHER_MACHINE,
    SMALL,
    held,
    line,
    pruned_directory,
    record,
    snapshot,
)

from tvmconv import hardware
from tvmconv.commands import cli
from tvmconv.records import log

pytest_plugins = ("logs_fixtures",)


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


def test_prune_knows_boards(tmp_path, run):
    core, _ = hardware.find_machine("raspberry-pi-4")
    log.write(tmp_path, [record(CONV, OTHER_MACHINE, tvm="0.1"), record(machine=core.name)])

    assert run("prune", tmp_path, "--machine", "raspberry-pi-4")[0] == 0  # an x86 schedule's
    assert set(held(tmp_path)) == {(OTHER_MACHINE.name, CONV.key)}
    code, _, err = run("prune", tmp_path, "--machine", "raspberry-pi-5")
    assert code == 2
    assert "no records for cortex-a76" in err


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
