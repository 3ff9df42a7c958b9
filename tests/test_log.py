"""Tuning records: how files are written and read, which one is chosen, and what is refused."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tvmconv import choice, hardware
from tvmconv.errors import RecordError, TuningError
from tvmconv.spec import ConvSpec
from tvmconv.tuning import log

ROOT = Path(__file__).parent.parent
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
        "tvm": importlib.metadata.version("apache-tvm"),
        "date": "2026-01-31",
        "trials": 64,
        "measured": "here",
    }
    return log.Record(**{**fields, **changes})


def write_line(directory: Path, line: str, op: str = "conv2d", before: str = "") -> Path:
    file = log.log_file(directory, MACHINE.name, op)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes((before + line + "\n").encode(errors="surrogateescape"))
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


def run(code: str, *arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of its own, which must succeed."""
    command = [sys.executable, *options.pop("flags", ()), "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True, **options)


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# The real thing: what is written beyond the limit fails as it does on a full disk, in the middle of the
# file. Python ignores the signal that comes with it.
OUT_OF_SPACE = """
import json, pathlib, resource, sys
from tvmconv.errors import TuningError
from tvmconv.tuning import log
directory, lines = map(pathlib.Path, sys.argv[1:])
records = [log.parse_record(json.loads(line)) for line in lines.read_text().splitlines()]
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


# Processes that write at the same time

PREAMBLE = """
import json, pathlib, signal, sys
from tvmconv.tuning import log
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
directory, lines = map(pathlib.Path, sys.argv[1:3])
records = [log.parse_record(json.loads(line)) for line in lines.read_text().splitlines()]
def start():
    print("ready", flush=True)
    sys.stdin.readline()
"""
WRITER = """
start()
for record in records:
    log.write(directory, [record])
"""
REMOVER = """
start()
for record in records:
    assert log.remove(directory, record.machine, record.key)
"""
PRUNER = """
from tvmconv.tuning import records as upkeep
upkeep.prune(directory, dry_run=True)  # loads the packs, which takes longer than all that follows
start()
for _ in records:
    upkeep.prune(directory)
"""


def start(code: str, directory: Path, records: list[log.Record]) -> subprocess.Popen[str]:
    """Start a process of the code above, which waits until `go`."""
    handle, lines = tempfile.mkstemp(dir=directory.parent)
    with os.fdopen(handle, "w") as stream:
        stream.writelines(json.dumps(dataclasses.asdict(each)) + "\n" for each in records)
    return subprocess.Popen(
        [sys.executable, "-c", PREAMBLE + code, directory, lines],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def go(processes: list[subprocess.Popen[str]]) -> None:
    """Let processes work at the same time, and wait for all."""
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate(timeout=100)
        assert process.returncode == 0


def numbered(first: int, count: int, **changes: object) -> list[log.Record]:
    specs = [ConvSpec.conv2d((1, n, n, 8), (1, 1, 8, 8)) for n in range(first, first + count)]
    return [record(spec, **changes) for spec in specs]


def alternating(first: list[log.Record], second: list[log.Record]) -> list[log.Record]:
    return [each for pair in zip(first, second, strict=True) for each in pair]


def test_processes_that_write_one_file_at_once_lose_nothing(tmp_path):
    each = 25
    new = [numbered(100 * worker, each) for worker in (1, 2, 3)]
    same = [record(trials=trials) for trials in range(each)]  # every worker writes this key too
    old, slow = numbered(400, each), numbered(500, each, microseconds=99)
    (file,) = log.write(tmp_path / "logs", [*old, *slow])

    workers = [
        *(start(WRITER, tmp_path / "logs", alternating(mine, same)) for mine in new),
        start(REMOVER, tmp_path / "logs", old),
        start(PRUNER, tmp_path / "logs", old),
    ]
    go(workers)

    found = {entry.record.key: entry.record for entry in log.read_log(file)}
    expected = {each.key: each for mine in new for each in mine}
    assert found == {**expected, CONV.key: same[-1]}
    assert len(file.read_bytes().splitlines()) == len(found)
    assert listing(file.parent) == [file.name]


ENDLESS = """
for record in records:
    log.write(directory, [record])
    print(record.key, flush=True)
"""


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("seen", [1, 5, 12])
def test_a_writer_that_is_stopped_loses_nothing_and_blocks_nobody(tmp_path, signal_number, seen):
    directory = tmp_path / "logs"
    process = start(ENDLESS, directory, numbered(1, 1000))
    written = [process.stdout.readline().strip() for _ in range(seen)]
    process.send_signal(signal_number)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode != 0  # it was stopped in the middle

    (file,) = log.write(directory, [record()])

    keys = {entry.record.key for entry in log.read_log(file)}
    assert {*written, *rest.split(), CONV.key} <= keys
    assert listing(file.parent) == [file.name]


def test_a_lock_that_is_not_let_go_is_an_error_that_names_it(tmp_path, monkeypatch):
    monkeypatch.setattr(log, "_LOCK_SECONDS", 0.1)
    holder = start("with log.locked(directory): start()", tmp_path / "logs", [])
    assert holder.stdout.readline() == "ready\n"

    with pytest.raises(TuningError, match=r"another process has held .*/logs/\.lock for 0.1 s"):
        log.write(tmp_path / "logs", [record()])

    holder.communicate("let go\n", timeout=60)
    assert log.write(tmp_path / "logs", [record()])


# -I -S: without site-packages, as where the compiler's packages are not installed.
BARE = """
import sys
sys.path.insert(0, sys.argv[3])
"""


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


DAMAGED = {
    "torn": (altered()[:-20], "not a tuning record"),
    "not_json": ("microseconds: 3", "not a tuning record"),
    "zero_time": (altered(microseconds=0), "microseconds is 0"),
    "negative_time": (altered(default_microseconds=-1.5), "default_microseconds is -1.5"),
    "no_number": (altered(microseconds=float("nan")), "microseconds is nan"),
    "infinite": (altered(microseconds=float("inf")), "microseconds is inf"),
    "no_text": ("\udcff\udcfe", "not a tuning record"),
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
    assert f"tvmconv logs prune {tmp_path} --machine {MACHINE.name} --damaged" in message


def test_the_line_of_an_error_is_that_of_sed(tmp_path):
    """A line separator ends a line for str.splitlines, but not for JSON or sed."""
    measured = altered(measured="here, now").replace("here, now", "here\u2028now")
    file = write_line(tmp_path, "{torn", before=measured + "\n")

    with pytest.raises(RecordError, match="line 2: not"):
        log.read_log(file)


def test_a_file_that_cannot_be_read_is_an_error_that_names_it(tmp_path):
    file = log.log_file(tmp_path, MACHINE.name, "conv2d")
    file.mkdir(parents=True)

    with pytest.raises(RecordError, match=r"conv2d\.jsonl cannot be read"):
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
    code = "from tvmconv import choice; print(choice.other_release(records[0]))"
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
