"""Which record a build takes, which it refuses, and those that are shipped."""

from __future__ import annotations

import importlib.metadata
import os

import pytest
from record_writers import (
    BARE,
    CONV,
    MACHINE,
    OTHER,
    PACK,
    PREAMBLE,
    ROOT,
    altered,
    record,
    run,
)

from tvmconv import hardware
from tvmconv.errors import RecordError
from tvmconv.problem.spec import ConvSpec
from tvmconv.records import choice, log

pytest_plugins = ("logs_fixtures",)

SHIPPED = [
    pytest.param(entry, id=f"{entry.record.machine}-{entry.record.key}")
    for file in sorted(log.shipped_directory().glob("*/*.jsonl"))
    for entry in log.read_log(file)
]


def test_the_users_directory_follows_xdg_data_home(users_own, monkeypatch, tmp_path):
    assert log.user_directory() == users_own
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert log.user_directory() == tmp_path / ".local/share/tvmconv/tuning_logs"


def test_the_users_own_record_wins_over_the_shipped_one_and_that_over_the_default(
    users_own, monkeypatch, tmp_path
):
    shipped = tmp_path / "shipped"
    monkeypatch.setattr(log, "shipped_directory", lambda: shipped)
    default = choice.choose(CONV, MACHINE, PACK)
    space = hardware.space(default.schedule, CONV, MACHINE)
    first, second = [point for point in space if point != default.decisions][:2]

    log.write(shipped, [record(decisions=first)])
    from_package = choice.choose(CONV, MACHINE, PACK)
    log.write(users_own, [record(decisions=second)])
    from_user = choice.choose(CONV, MACHINE, PACK)

    assert (default.source, default.entry) == ("default", None)
    assert from_package.decisions == first
    assert from_package.entry.file.is_relative_to(shipped)
    assert from_package.source == f"{MACHINE.name}/conv2d.jsonl:1"
    assert from_user.decisions == second
    assert from_user.entry.file.is_relative_to(users_own)


def test_directories_given_replace_the_users_and_the_shipped(users_own, tmp_path):
    log.write(users_own, [record()])

    assert choice.choose(CONV, MACHINE, PACK).entry is not None
    assert choice.choose(CONV, MACHINE, PACK, []).entry is None
    assert choice.choose(CONV, MACHINE, PACK, [tmp_path / "none"]).entry is None


def decisions(**changes: int | str) -> dict[str, int | str]:
    return {**record().decisions, **changes}


STALE = {
    "unknown_schedule": ({"schedule": "x86.conv2d.dirct"}, "Did you mean x86.conv2d.direct"),
    "schedule_of_the_other_operator": (
        {"schedule": "x86.depthwise_conv2d.tiled"},
        "does not accept",
    ),
    "unknown_knob": ({"decisions": decisions(pixles=4)}, "Did you mean pixels"),
    "missing_knob": (
        {"decisions": {k: v for k, v in decisions().items() if k != "order"}},
        "order",
    ),
    "too_many_registers": ({"decisions": decisions(channels=32, pixels=4)}, "cannot compute"),
    "beyond_the_candidates": ({"decisions": decisions(pixels=60)}, "60"),
    "misspelt_word": ({"decisions": decisions(order="weights_outr")}, "weights_outr"),
    "word_for_a_number": ({"decisions": decisions(pixels="many")}, "many"),
    "number_for_a_word": ({"decisions": decisions(order=1)}, "order"),
    "zero": ({"decisions": decisions(pixels=0)}, "pixels"),
    "negative": ({"decisions": decisions(channels=-8)}, "channels"),
}


@pytest.mark.parametrize(("changes", "detail"), STALE.values(), ids=STALE)
def test_a_record_that_no_longer_applies_is_an_error_with_file_line_and_remedy(
    tmp_path, changes, detail
):
    log.write(tmp_path, [record(ConvSpec.conv2d((1, 10, 10, 8), (1, 1, 8, 8)))])
    (file,) = log.write(tmp_path, [record(**changes)])

    with pytest.raises(RecordError) as caught:
        choice.choose(CONV, MACHINE, PACK, [tmp_path])

    message = str(caught.value)
    assert f"{file}, line 2:" in message
    assert detail in message
    assert f"tvmconv tune {CONV.key} --machine {MACHINE.name} --output {tmp_path}" in message


def test_following_the_remedy_mends_the_file(tmp_path):
    (file,) = log.write(tmp_path, [record(), record(OTHER, schedule="gone")])
    with pytest.raises(RecordError) as caught:
        choice.choose(OTHER, MACHINE, PACK, [tmp_path])

    command = str(caught.value).partition("(")[2].partition("(")[2].partition(")")[0]
    assert command.startswith("sed -i ")
    assert os.system(command) == 0  # noqa: S605 - the command we tell people to type

    assert choice.choose(OTHER, MACHINE, PACK, [tmp_path]).entry is None
    assert choice.choose(CONV, MACHINE, PACK, [tmp_path]).entry is not None
    assert len(file.read_text().splitlines()) == 1


INSTALLED = importlib.metadata.version("apache-tvm")
THIS_RELEASE = ".".join(INSTALLED.split(".")[:2])


@pytest.mark.parametrize("version", [THIS_RELEASE, f"{THIS_RELEASE}.0", f"{THIS_RELEASE}.7.dev1"])
def test_a_record_of_the_same_tvm_release_is_used(tmp_path, version):
    log.write(tmp_path, [record(tvm=version)])

    assert choice.choose(CONV, MACHINE, PACK, [tmp_path]).entry.record.tvm == version


@pytest.mark.parametrize("version", ["0.2", "0.26.1", f"1{THIS_RELEASE}", "1.0.0", "main", ""])
def test_a_record_of_another_tvm_release_is_an_error_with_both_remedies(tmp_path, version):
    first = record(ConvSpec.conv2d((1, 10, 10, 8), (1, 1, 8, 8)))
    (file,) = log.write(tmp_path, [first, record(tvm=version)])

    with pytest.raises(RecordError) as caught:
        choice.choose(CONV, MACHINE, PACK, [tmp_path])

    message = str(caught.value)
    assert f"{file}, line 2: the record for {CONV.key} " in message
    assert f"measured with TVM {version}, and TVM {INSTALLED} is installed" in message
    assert f"tvmconv tune {CONV.key} --machine {MACHINE.name} --output {tmp_path}" in message
    assert f"sed -i '2d' {file}" in message
    # The tuner still finds it, as a place to start from.
    assert log.find(CONV, MACHINE.name, [tmp_path]).record.tvm == version
    assert choice.stale_reason(record(tvm=version), MACHINE, PACK) in message
    assert choice.stale_reason(first, MACHINE, PACK) is None


def test_where_tvm_is_not_installed_every_release_will_do(tmp_path):
    (tmp_path / "lines").write_text(altered(tvm="0.1") + "\n")
    code = "from tvmconv.records import choice; print(choice.other_release(records[0]))"
    arguments = (tmp_path, tmp_path / "lines", ROOT)

    assert run(BARE + PREAMBLE + code, *arguments, flags=["-I", "-S"]).stdout == "None\n"
    assert choice.other_release(record(tvm="0.1")) is not None


def test_the_remedy_for_ones_own_record_names_no_directory(users_own):
    log.write(users_own, [record(tvm="0.1")])

    with pytest.raises(RecordError) as caught:
        choice.choose(CONV, MACHINE, PACK)

    assert f"tvmconv tune {CONV.key} --machine {MACHINE.name}. " in str(caught.value)


def test_every_shipped_folder_is_a_machine_and_every_file_an_operator():
    packs, _ = hardware.working_packs()
    machines = {machine.name for pack in packs for machine in pack.machines}
    for file in log.shipped_directory().rglob("*.jsonl"):
        assert file.parent.name in machines
        assert file.parent.parent == log.shipped_directory()
        assert file.stem in ("conv2d", "depthwise_conv2d")


@pytest.mark.parametrize("entry", SHIPPED)
def test_shipped_records_apply_and_beat_the_default(entry):
    shipped = entry.record
    spec = ConvSpec.from_key(shipped.key)
    machine, pack = hardware.find_machine(shipped.machine)

    chosen = choice.choose(spec, machine, pack, [log.shipped_directory()])

    assert chosen.entry == entry  # in the right file, once
    assert chosen.decisions == shipped.decisions
    assert shipped.microseconds < shipped.default_microseconds
    assert shipped.machine == entry.file.parent.name
    assert spec.op == entry.file.stem


@pytest.mark.parametrize(
    "file",
    sorted(log.shipped_directory().rglob("*.jsonl")),
    ids=lambda f: f"{f.parent.name}-{f.stem}",
)
def test_shipped_files_are_sorted_as_write_leaves_them(file, tmp_path):
    (copy,) = log.write(tmp_path, [entry.record for entry in log.read_log(file)])

    assert copy.read_text() == file.read_text()
