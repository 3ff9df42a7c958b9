"""Tuning records: how files are written and read, which one is chosen, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest

from tvmconv import choice, hardware
from tvmconv.errors import RecordError, TuningError
from tvmconv.spec import ConvSpec
from tvmconv.tuning import log

MACHINE, PACK = hardware.find_machine("x86-64-v3")
CONV = ConvSpec.conv2d((1, 14, 14, 64), (1, 1, 64, 64))
OTHER = ConvSpec.conv2d((1, 7, 7, 64), (3, 3, 64, 64))
DEPTHWISE = ConvSpec.depthwise_conv2d((1, 14, 14, 64), (3, 3, 64, 1))
SHIPPED = [
    pytest.param(entry, id=f"{entry.record.machine}-{entry.record.key}")
    for file in sorted(log.shipped_directory().glob("*/*.jsonl"))
    for entry in log.read_log(file)
]


def record(spec: ConvSpec = CONV, **changes: object) -> log.Record:
    schedule = hardware.schedules_for(spec, MACHINE, PACK)[0]
    fields: dict[str, object] = {
        "key": spec.key,
        "schedule": schedule.name,
        "decisions": schedule.default(spec, MACHINE),
        "microseconds": 80.5,
        "default_microseconds": 100,
        "machine": MACHINE.name,
        "cpu": "A CPU",
        "threads": 1,
        "tvm": "0.27.0.post1",
        "date": "2026-01-31",
        "trials": 64,
        "measured": "here",
    }
    return log.Record(**{**fields, **changes})


def write_line(directory: Path, line: str, op: str = "conv2d", before: str = "") -> Path:
    file = log.log_file(directory, MACHINE.name, op)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(before + line + "\n")
    return file


def altered(**changes: object) -> str:
    return json.dumps({**dataclasses.asdict(record()), **changes})


def without(field: str) -> str:
    fields = dataclasses.asdict(record())
    del fields[field]
    return json.dumps(fields)


@pytest.fixture
def users_own(tmp_path, monkeypatch):
    """The user's directory, empty, in place of this user's real one."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "data" / "tvmconv" / "tuning_logs"


def test_what_is_written_is_read_again(tmp_path):
    records = [record(CONV), record(OTHER), record(DEPTHWISE)]

    files = log.write(tmp_path, records)

    folder = tmp_path / MACHINE.name
    assert files == [folder / "conv2d.jsonl", folder / "depthwise_conv2d.jsonl"]
    for each in records:
        spec = ConvSpec.from_key(each.key)
        assert log.find(spec, MACHINE.name, [tmp_path]).record == each


def test_another_machine_does_not_see_a_record(tmp_path):
    log.write(tmp_path, [record()])

    assert log.find(CONV, "x86-64-v2", [tmp_path]) is None


def test_writing_again_replaces_the_record_of_the_same_key_only(tmp_path):
    log.write(tmp_path, [record(CONV), record(OTHER)])

    (file,) = log.write(tmp_path, [record(CONV, trials=65)])

    trials = {entry.record.key: entry.record.trials for entry in log.read_log(file)}
    assert trials == {CONV.key: 65, OTHER.key: 64}


def test_files_are_sorted_by_key_with_one_record_a_line(tmp_path):
    specs = [ConvSpec.conv2d((1, n, n, 8), (1, 1, 8, 8)) for n in (9, 5, 30, 7)]
    (file,) = [log.write(tmp_path, [record(spec)]) for spec in specs][-1]

    keys = [json.loads(line)["key"] for line in file.read_text().splitlines()]
    assert keys == sorted(spec.key for spec in specs)
    assert [entry.line for entry in log.read_log(file)] == [1, 2, 3, 4]


def test_a_written_file_can_be_read_by_everybody(tmp_path):
    (file,) = log.write(tmp_path, [record()])

    assert file.stat().st_mode & 0o444 == 0o444


def test_of_two_lines_with_one_key_the_last_counts(tmp_path):
    lines = "".join(altered(trials=trials) + "\n" for trials in (1, 2))
    write_line(tmp_path, "", before=lines)

    assert log.find(CONV, MACHINE.name, [tmp_path]).record.trials == 2


def test_empty_lines_are_skipped_and_counted(tmp_path):
    write_line(tmp_path, altered(), before="\n\n")

    assert log.find(CONV, MACHINE.name, [tmp_path]).place == f"{MACHINE.name}/conv2d.jsonl:3"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    (file,) = log.write(tmp_path, [record()])
    before = file.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TuningError, match="No space left on device"):
        log.write(tmp_path, [record(trials=65)])

    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def test_writing_into_a_damaged_file_is_refused_and_leaves_it(tmp_path):
    file = write_line(tmp_path, "{torn")

    with pytest.raises(RecordError, match="line 1"):
        log.write(tmp_path, [record()])

    assert file.read_text() == "{torn\n"


def test_a_directory_that_cannot_be_written_is_a_tuning_error(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(TuningError, match="--output"):
        log.write(tmp_path / "file" / "logs", [record()])


def test_a_record_serves_other_epilogues_unless_they_have_records_of_their_own(tmp_path):
    user, shipped = tmp_path / "user", tmp_path / "shipped"
    relu = ConvSpec.conv2d(CONV.input_shape, CONV.filter_shape, bias=True, activation="relu")
    half = ConvSpec.conv2d(CONV.input_shape, CONV.filter_shape, dtype="float16")
    log.write(user, [record(relu, trials=1)])
    sibling = choice.choose(CONV, MACHINE, PACK, [user, shipped])
    log.write(shipped, [record(CONV, trials=2)])
    own = choice.choose(CONV, MACHINE, PACK, [user, shipped])

    assert sibling.entry.record.trials == 1
    assert sibling.source == f"{MACHINE.name}/conv2d.jsonl:1 (other epilogue)"
    assert own.entry.record.trials == 2
    assert own.source == f"{MACHINE.name}/conv2d.jsonl:1"
    for spec in (half, OTHER, DEPTHWISE):
        assert choice.choose(spec, MACHINE, PACK, [user, shipped]).entry is None


DAMAGED = {
    "torn": (altered()[:-20], "not a tuning record"),
    "not_json": ("microseconds: 3", "not a tuning record"),
    "two_records": (altered() + altered(), "not a tuning record"),
    "list": ("[1, 2]", "an object"),
    "missing_field": (without("threads"), "threads"),
    "unknown_field": (altered(speed=3), "speed"),
    "wrong_type": (altered(microseconds="fast"), "microseconds is 'fast'"),
    "bool_for_int": (altered(threads=True), "threads is True"),
    "null": (altered(cpu=None), "cpu is None"),
    "float_for_int": (altered(trials=1.5), "trials is 1.5"),
    "decisions_list": (altered(decisions=[3]), "decisions"),
    "decision_float": (altered(decisions={"pixels": 1.5}), "pixels"),
    "decision_bool": (altered(decisions={"pixels": True}), "pixels"),
    "no_key": (altered(key="conv2d_of_my_dreams"), "conv2d_of_my_dreams"),
    "illegal_key": (altered(key=CONV.key.replace("1x1x64x64", "1x1x63x64")), "1x1x63x64"),
    "deep": ("[" * 100_000, "not a tuning record"),
}


@pytest.mark.parametrize(("line", "detail"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_line_is_an_error_with_file_line_and_remedy(tmp_path, line, detail):
    file = write_line(tmp_path, line, before=altered() + "\n")

    with pytest.raises(RecordError) as caught:
        log.find(OTHER, MACHINE.name, [tmp_path])

    message = str(caught.value)
    assert f"{file}, line 2:" in message
    assert detail in message
    assert f"sed -i '2d' {file}" in message
    assert f"tvmconv tune KEY --machine {MACHINE.name} --output {tmp_path}" in message


def test_a_file_that_is_no_text_is_an_error_that_names_it(tmp_path):
    file = write_line(tmp_path, "")
    file.write_bytes(b"\xff\xfe\x00")

    with pytest.raises(RecordError, match=r"conv2d\.jsonl"):
        log.find(CONV, MACHINE.name, [tmp_path])


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
