"""Tuning records: how files are written and read, which one is chosen, and what is refused."""

from __future__ import annotations

import json

import pytest
from record_writers import (
    BARE,
    CONV,
    DEPTHWISE,
    MACHINE,
    OTHER,
    PACK,
    PREAMBLE,
    ROOT,
    altered,
    listing,
    record,
    run,
    write_line,
)

from tvmconv.errors import RecordError, TuningError
from tvmconv.problem.spec import ConvSpec
from tvmconv.records import choice, log, pruning
from tvmconv.records.record import Record, encode, parse


def without(field: str) -> str:
    fields = encode(record())
    del fields[field]
    return json.dumps(fields)


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


# The real thing: what is written beyond the limit fails as it does on a full disk, in the middle of the
# file. Python ignores the signal that comes with it.
OUT_OF_SPACE = """
import json, pathlib, resource, sys
from tvmconv.errors import TuningError
from tvmconv.records import log, record
directory, lines = map(pathlib.Path, sys.argv[1:])
records = [record.parse(json.loads(line)) for line in lines.read_text().splitlines()]
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    log.write(directory, records)
except TuningError as error:
    print(error)
"""


def test_a_write_that_runs_out_of_space_leaves_the_old_file_and_nothing_else(tmp_path):
    directory, lines = tmp_path / "logs", tmp_path / "lines"
    (file,) = log.write(directory, [record()])
    before = file.read_bytes()
    specs = [ConvSpec.conv2d((1, n, n, 8), (1, 1, 8, 8)) for n in range(2, 12)]
    lines.write_text("".join(altered(key=spec.key) + "\n" for spec in specs))

    message = run(OUT_OF_SPACE, directory, lines).stdout

    assert f"cannot write tuning records to {file}: File too large" in message
    assert "--output" in message
    assert file.read_bytes() == before
    assert listing(file.parent) == [file.name]
    log.write(directory, [record(OTHER)])  # the lock is free
    assert len(log.read_log(file)) == 2


def test_writing_into_a_damaged_file_is_refused_and_leaves_it(tmp_path):
    file = write_line(tmp_path, "{torn")

    with pytest.raises(RecordError, match="line 1"):
        log.write(tmp_path, [record()])

    assert file.read_text() == "{torn\n"


def test_removing_from_a_damaged_file_is_refused_and_leaves_it(tmp_path):
    file = write_line(tmp_path, altered()[:-9], before=altered() + "\n")
    before = file.read_bytes()

    with pytest.raises(RecordError, match="line 2"):
        log.remove(tmp_path, MACHINE.name, CONV.key)

    assert file.read_bytes() == before


def test_a_damaged_file_keeps_the_others_from_being_written(tmp_path):
    write_line(tmp_path, "{torn", op="depthwise_conv2d")

    with pytest.raises(RecordError, match=r"depthwise_conv2d\.jsonl, line 1"):
        log.write(tmp_path, [record(CONV), record(DEPTHWISE)])

    assert log.find(CONV, MACHINE.name, [tmp_path]) is None


@pytest.mark.parametrize("place", ["file", "file/logs", "lock", "folder"])
def test_a_directory_that_cannot_be_written_is_a_tuning_error(tmp_path, place):
    (tmp_path / "file").touch()
    (tmp_path / "lock" / ".lock").mkdir(parents=True)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / MACHINE.name).touch()

    with pytest.raises(TuningError) as caught:
        log.write(tmp_path / place, [record()])

    named, _, reason = str(caught.value).partition(": ")
    assert named.startswith(f"cannot write tuning records to {tmp_path / place}/")
    assert reason.startswith(("File exists;", "Not a directory;", "Is a directory;"))
    assert "--output" in reason


def test_removing_what_is_not_there_needs_no_directory_that_can_be_written(tmp_path):
    assert log.remove(tmp_path / "none", MACHINE.name, CONV.key) is False
    assert listing(tmp_path) == []


def test_without_filelock_records_are_read_but_not_written(tmp_path):
    (file,) = log.write(tmp_path / "logs", [record()])
    (tmp_path / "lines").write_text(altered(trials=65) + "\n")
    code = """
from tvmconv.errors import MissingToolError
try:
    log.write(directory, records)
except MissingToolError as error:
    print(len(log.read_log(next(directory.glob("*/*.jsonl")))), error)
"""
    arguments = (tmp_path / "logs", tmp_path / "lines", ROOT)
    done = run(BARE + PREAMBLE + code, *arguments, flags=["-I", "-S"])

    assert done.stdout.startswith("1 filelock is needed for writing tuning records")
    assert "pip install 'tvmconv[compiler]'" in done.stdout
    assert log.read_log(file)[0].record.trials == 64


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


# As every release before format 2 wrote it.
FORMAT_1 = {
    name: getattr(record(), name)
    for name in ("key", "schedule", "decisions", "microseconds", "default_microseconds")
} | {
    "machine": MACHINE.name,
    "cpu": "A CPU",
    "threads": 1,
    "tvm": record().tvm,
    "date": "2026-01-31",
    "trials": 64,
    "measured": "over RPC, key rpi4, driver 580.65, CUDA 13, cold cache, median of 11 rounds interleaved "
    "with the default, mean of 2 processes, the gain is the smaller of them",
}
DAMAGED = {
    "torn": (altered()[:-20], "not a tuning record"),
    "not_json": ("microseconds: 3", "not a tuning record"),
    "zero_time": (altered(microseconds=0), "microseconds is 0"),
    "negative_time": (altered(default_microseconds=-1.5), "default_microseconds is -1.5"),
    "no_number": (altered(microseconds=float("nan")), "NaN is no number"),
    "infinite": (altered(microseconds=float("inf")), "Infinity is no number"),
    "no_text": ("\udcff\udcfe", "not a tuning record"),
    "two_records": (altered() + altered(), "not a tuning record"),
    "list": ("[1, 2]", "an object"),
    "missing_field": (without("threads"), "threads"),
    "unknown_field": (json.dumps({**FORMAT_1, "speed": 3}), "speed"),
    "wrong_type": (altered(microseconds="fast"), "record.microseconds must be float"),
    "bool_for_int": (altered(threads=True), "record.threads must be int"),
    "null": (altered(cpu=None), "record.cpu must be str"),
    "float_for_int": (altered(trials=1.5), "record.trials must be int"),
    "decisions_list": (altered(decisions=[3]), "decisions"),
    "decision_float": (altered(decisions={"pixels": 1.5}), "pixels"),
    "decision_bool": (altered(decisions={"pixels": True}), "pixels"),
    "no_key": (altered(key="conv2d_of_my_dreams"), "conv2d_of_my_dreams"),
    "illegal_key": (altered(key=CONV.key.replace("1x1x64x64", "1x1x63x64")), "1x1x63x64"),
    "format_text": (altered(format="2"), "format is '2'"),
    "format_0": (altered(format=0), "format is 0"),
    "unknown_how": (altered(how="guessed"), "how is 'guessed'"),
    "unknown_place": (altered(place="moon"), "place is 'moon'"),
    "unknown_cache": (altered(cache=None), "cache is None"),
    "no_rounds": (altered(rounds=0), "rounds is 0"),
    "contradiction": (altered(how="simulated"), "contradicts place 'here'"),
    "too_few_times": (altered(times={"chosen": [[1.0]], "default": [[1.0]]}), "11 times"),
    "sentence_no_text": (json.dumps({**FORMAT_1, "measured": 3}), "measured is a sentence"),
    "huge_number": (altered().replace("80.5", "1e999"), "1e999 is too large"),
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
    assert f"tvmconv logs prune {tmp_path} --machine {MACHINE.name} --damaged" in message


def test_the_line_of_an_error_is_that_of_sed(tmp_path):
    """A line separator ends a line for str.splitlines, but not for JSON or sed."""
    measured = altered(cpu="here, now").replace("here, now", "here\u2028now")
    file = write_line(tmp_path, "{torn", before=measured + "\n")

    with pytest.raises(RecordError, match="line 2: not"):
        log.read_log(file)


def test_a_file_that_cannot_be_read_is_an_error_that_names_it(tmp_path):
    file = log.log_file(tmp_path, MACHINE.name, "conv2d")
    file.mkdir(parents=True)

    with pytest.raises(RecordError, match=r"conv2d\.jsonl cannot be read"):
        log.find(CONV, MACHINE.name, [tmp_path])


# Formats

SENTENCES = {
    "here, warm cache, median of 11 rounds interleaved": (
        "measured", "here", None, None, "warm", 11
    ),
    "here, driver 580.65, CUDA 13, cold cache, median of 11 rounds interleaved": (
        "measured", "here", None, "driver 580.65, CUDA 13", "cold", 11
    ),
    "over RPC, key rpi4, warm cache, median of 9 rounds interleaved": (
        "measured", "rpc", "rpi4", None, "warm", 9
    ),
    "offline, cold cache, median of 11 rounds interleaved": (
        "measured", "offline", None, None, "cold", 11
    ),
    "simulated: cycles of llvm-mca; warm cache; no clock ran": (
        "simulated", "simulated", None, None, "warm", None
    ),
    "by hand": ("measured", "here", None, None, None, None),
}  # fmt: skip


@pytest.mark.parametrize("sentence", SENTENCES)
def test_a_record_of_format_1_is_read_into_the_fields_of_format_2(sentence):
    found = parse({**FORMAT_1, "measured": sentence})

    told = (found.how, found.place, found.board, found.driver, found.cache, found.rounds)
    assert told == SENTENCES[sentence]
    assert found.simulated is sentence.startswith("simulated")
    assert parse({**FORMAT_1, "measured": sentence, "microseconds": 100.0}).is_default


def test_lines_of_format_1_stay_as_they_are_beside_new_ones(tmp_path):
    old = json.dumps({**FORMAT_1, "default_microseconds": 100.0})
    file = write_line(tmp_path, old)

    log.write(tmp_path, [record(OTHER)])

    first, second = file.read_text().splitlines()
    assert first == old
    assert json.loads(second)["format"] == 2
    assert [entry.record.key for entry in log.read_log(file)] == [CONV.key, OTHER.key]


def test_fields_of_a_later_release_are_kept(tmp_path):
    file = write_line(tmp_path, altered(watts=3.5, extra={"a": [1]}))

    log.write(tmp_path, [record(OTHER)])

    kept = json.loads(file.read_text().splitlines()[0])
    assert (kept["watts"], kept["extra"]) == (3.5, {"a": [1]})
    assert log.find(CONV, MACHINE.name, [tmp_path]).record.microseconds == 80.5


def test_a_later_format_is_an_error_that_says_to_upgrade(tmp_path):
    file = write_line(tmp_path, altered(format=3), before=altered() + "\n")

    with pytest.raises(RecordError, match=r"line 2: a later tvmconv .* format 3") as caught:
        log.write(tmp_path, [record(OTHER)])

    assert str(file) in str(caught.value)
    assert "pip install --upgrade tvmconv" in str(caught.value)
    with pytest.raises(RecordError, match="a later tvmconv"):
        pruning.prune(tmp_path, damaged=True)


@pytest.mark.parametrize("file", sorted(log.shipped_directory().glob("*/*.jsonl")), ids=str)
def test_shipped_records_are_written_as_they_are(file):
    for line in file.read_text().splitlines():
        found: Record = parse(json.loads(line))
        assert json.dumps(encode(found)) == line
        assert found.cache == "warm"
