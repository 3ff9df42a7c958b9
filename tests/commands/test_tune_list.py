"""``tvmconv tune --list``: what is tuned, what is not, and the report of earlier runs."""

from __future__ import annotations

import json
import re

import pytest
from tuners import (
    DEPTHWISE,
    FIVE,
    POINTWISE,
    THREE,
    TWO,
    check_report,
    default_of,
    trial,
)

from tvmconv import hardware
from tvmconv.commands import cli
from tvmconv.hardware import host
from tvmconv.measuring.process.candidate import Measurement
from tvmconv.measuring.process.runner import Conditions
from tvmconv.problem.spec import ConvSpec
from tvmconv.records import log
from tvmconv.records.record import Record
from tvmconv.tuning.journal import Conclusion, Journal
from tvmconv.tuning.plan import conditions_name

MACHINE = "x86-64-v4"  # nothing is compiled here: any host will do
MISSING = ConvSpec.conv2d((1, 8, 8, 64), (1, 1, 64, 32))
EMPTY = ConvSpec.conv2d((0, 14, 14, 64), (1, 1, 64, 64))
STATES = {
    POINTWISE: "tuned",
    THREE: "default is best",
    TWO: "begun",
    FIVE: "begun",
    DEPTHWISE: "stale",
    MISSING: "missing",
}


@pytest.fixture(autouse=True)
def users_own(tmp_path, monkeypatch):
    """The user's directory, empty, in place of this user's real one."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


@pytest.fixture
def run(capsys):
    """Run ``tvmconv tune``; returns (exit code, stdout, stderr)."""

    def run(*arguments):
        capsys.readouterr()
        code = cli.main(["tune", *map(str, arguments)])
        return code, *capsys.readouterr()

    return run


def record_for(spec: ConvSpec, schedule: str | None = None) -> Record:
    default = default_of(spec, MACHINE)
    return Record(
        key=spec.key,
        schedule=schedule or default.schedule,
        decisions=dict(default.decisions),
        microseconds=10.0,
        default_microseconds=15.0,
        machine=MACHINE,
        cpu="a CPU",
        threads=1,
        tvm="0.27.0",
        date="2026-01-01",
        trials=8,
        how="measured",
        driver=None,
        place="here",
        board=None,
        cache="warm",
        rounds=11,
    )


@pytest.fixture
def listed(tmp_path):
    """Arguments for layers in all states."""
    logs = tmp_path / "logs"
    log.write(logs, [record_for(POINTWISE), record_for(DEPTHWISE, "x86.depthwise_conv2d.gone")])
    journal = Journal(logs, MACHINE, conditions_name(host.cpu_name(), Conditions()))
    for spec in (POINTWISE, THREE, TWO, FIVE):
        first = Measurement(default_of(spec, MACHINE), 3e-6)
        journal.add(spec.key, [first, trial(1, 2e-6), trial(2, None, "crashed"), trial(3, 4e-6)])
    journal.conclude(POINTWISE.key, Conclusion(4, 4, 1.5, "", "session"))
    journal.conclude(THREE.key, Conclusion(4, 4, 0.9, "nothing beats the default", "session"))
    journal.conclude(FIVE.key, Conclusion(4, 4, None, "the default itself fails", "session"))
    cold = Journal(logs, MACHINE, conditions_name(host.cpu_name(), Conditions(cache="cold")))
    cold.add(MISSING.key, [trial(1)])
    keys = tmp_path / "keys.txt"
    keys.write_text("".join(f"{spec.key}\n" for spec in (*STATES, EMPTY, POINTWISE)))
    return keys, "--machine", MACHINE, "--output", logs, "--list"


def test_the_list_shows_every_state(run, listed):
    code, out, err = run(*listed)

    assert (code, err) == (0, "")
    rows = {line.split()[0]: line for line in out.splitlines() if "conv2d_" in line.split(" ")[0]}
    assert list(rows) == [spec.key for spec in STATES]
    for spec, state in STATES.items():
        assert re.match(rf"{spec.key} +{state}( |$)", rows[spec.key])
    place = rf"{MACHINE}/conv2d.jsonl:1"
    assert re.search(rf"tuned +1.50 x +8 +2026-01-01 +{place}", rows[POINTWISE.key])
    assert re.search(r"best +0.90 x +4$", rows[THREE.key])
    assert re.search(r"begun +4$", rows[TWO.key])
    assert re.search(r"begun +4 +the default itself fails$", rows[FIVE.key])
    assert "'x86.depthwise_conv2d.gone'" in rows[DEPTHWISE.key]
    assert f"{MACHINE}: 1 tuned, 1 default is best, 2 begun, 1 stale, 1 missing" in out
    command = f"tvmconv tune {listed[0]} --machine {MACHINE} --output {listed[-2]}"
    assert f"to tune the rest: {command}\n" in out


def test_the_list_as_json(run, listed):
    code, out, _ = run(*listed, "--json")

    found = {each["key"]: each for each in json.loads(out)}
    assert code == 0
    assert {key: each["state"] for key, each in found.items()} == {
        spec.key: state for spec, state in STATES.items()
    }
    assert found[POINTWISE.key]["gain"] == 1.5
    assert found[THREE.key]["gain"] == 0.9
    assert {spec: found[spec.key]["trials"] for spec in (THREE, TWO)} == {THREE: 4, TWO: 4}


def test_trials_of_other_conditions_are_another_list(run, listed):
    found = {each["key"]: each for each in json.loads(run(*listed, "--json", "--cache", "cold")[1])}

    assert found[MISSING.key]["state"] == "begun"
    assert found[TWO.key]["state"] == "missing"
    assert found[POINTWISE.key]["state"] == "tuned"  # records are for all


def test_trials_of_boards_and_batches_are_counted(run, listed, tmp_path):
    for number, place in enumerate(("rpc-rpi4", "offline")):
        journal = Journal(tmp_path / "logs", MACHINE, conditions_name(place, Conditions()))
        for spec in (TWO, MISSING):
            journal.add(spec.key, [trial(each) for each in range(number + 1)])
        journal.conclude(MISSING.key, Conclusion(1, 1, 0.9, "nothing beats the default", "session"))
    threads = Journal(tmp_path / "logs", MACHINE, conditions_name("rpc-rpi4", Conditions(11)))
    threads.add(TWO.key, [trial(1)])
    found = {each["key"]: each for each in json.loads(run(*listed, "--json")[1])}

    assert (found[TWO.key]["state"], found[TWO.key]["trials"]) == ("begun", 4 + 1 + 2)
    assert (found[MISSING.key]["state"], found[MISSING.key]["trials"]) == ("default is best", 3)
    assert found[THREE.key]["trials"] == 4


def test_layers_can_be_chosen(run, listed):
    code, out, _ = run(*listed, "--json", "--layers", f"{TWO.key},{THREE.key}")

    assert code == 0
    assert [each["key"] for each in json.loads(out)] == [TWO.key, THREE.key]


def test_nothing_to_tune_is_left_where_all_is_done(run, listed):
    out = run(*listed, "--layers", f"{POINTWISE.key},{THREE.key}")[1]

    assert "1 tuned, 1 default is best" in out
    assert "to tune the rest" not in out


def test_a_record_of_another_epilogue_stands_in_until_the_layer_is_searched(run, listed, tmp_path):
    activated = ConvSpec.conv2d((1, 14, 14, 64), (1, 1, 64, 64), bias=True, activation="relu")
    arguments = [activated.key, *listed[1:], "--json"]

    (before,) = json.loads(run(*arguments)[1])
    journal = Journal(tmp_path / "logs", MACHINE, conditions_name(host.cpu_name(), Conditions()))
    journal.add(activated.key, [trial(1)])
    journal.conclude(activated.key, Conclusion(1, 1, 0.95, "nothing beats the default", "session"))
    (after,) = json.loads(run(*arguments)[1])

    assert (before["state"], before["trials"]) == ("tuned", 0)
    assert before["detail"] == f"tuned with another epilogue: {POINTWISE.key}"
    assert (after["state"], after["trials"]) == ("default is best", 1)


def test_where_nobody_has_been_nothing_is_made(run, tmp_path):
    code, out, _ = run("mobilenet_v1", "--list", "--output", tmp_path / "none", "--json")

    found = json.loads(out)
    assert code == 0
    assert {"block1.pointwise", "stem"} <= {each["name"] for each in found}
    assert {each["state"] for each in found} <= {"missing", "tuned", "stale"}  # those shipped
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_log_is_an_error(run, listed, tmp_path):
    file = log.log_file(tmp_path / "logs", MACHINE, "conv2d")
    file.write_text(file.read_text() + "torn\n")

    code, out, err = run(*listed)

    assert (code, out) == (1, "")
    assert f"{file}, line 2" in err


@pytest.mark.parametrize("ending", ["html", "png", "svg"])
def test_a_report_of_earlier_runs(run, listed, tmp_path, ending):
    code, _, err = run(*listed, "--report", tmp_path / f"report.{ending}")

    assert code == 0, err
    # Only layers with trials have a curve.
    specs = [POINTWISE, THREE, TWO, FIVE] if ending == "svg" else STATES
    check_report(tmp_path / f"report.{ending}", specs)
    if ending == "html":
        (row,) = re.findall(rf"<td>{THREE.key}.*", (tmp_path / "report.html").read_text())
        best, default, gain, *counts, outcome = re.findall("<td>(.*?)</td>", row)[1:]
        assert float(best) == pytest.approx(THREE.flops / 2e-6 / 1e9, abs=0.05)
        assert float(default) == pytest.approx(THREE.flops / 3e-6 / 1e9, abs=0.05)
        assert (gain, counts, outcome) == ("0.900", ["4", "1"], "nothing beats the default")


def test_machines_of_another_architecture_can_be_listed(run, listed):
    names = [machine.name for pack in hardware.working_packs()[0] for machine in pack.machines]

    for name in names:
        code, out, _ = run(POINTWISE.key, "--machine", name, "--list")
        assert code == 0
        assert f"{name}: 1 " in out
