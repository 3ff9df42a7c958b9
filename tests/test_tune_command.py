"""``tvmconv tune``: what it prints, lists and reports, and what it says of mistakes."""

from __future__ import annotations

import html.parser
import json
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path

import pytest
from tuning_helpers import (
    FIVE,
    POINTWISE,
    THREE,
    TWO,
    faulty_packs,
    journal_in,
    only_x86,
    trial,
    trial_lines,
    tune,
)

from tvmconv import cli, hardware
from tvmconv.commands import watch
from tvmconv.spec import ConvSpec
from tvmconv.tuning import log
from tvmconv.tuning.conclude import Outcome
from tvmconv.tuning.journal import Memory
from tvmconv.tuning.model import CostModel
from tvmconv.tuning.search import LayerSearch
from tvmconv.tuning.session import LayerState, Session
from tvmconv.workloads import Layer

BEGUN = ConvSpec.conv2d((1, 8, 8, 16), (1, 1, 16, 32))
STALE = ConvSpec.conv2d((1, 8, 8, 32), (1, 1, 32, 32))
MISSING = ConvSpec.conv2d((1, 8, 8, 64), (1, 1, 64, 32))
EMPTY = ConvSpec.conv2d((0, 14, 14, 64), (1, 1, 64, 64))
TUNED = (POINTWISE, THREE, FIVE, TWO)
TRIALS = 8


@pytest.fixture(autouse=True, scope="module")
def users_own(tmp_path_factory):
    """The user's directory, empty, in place of this user's real one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture(scope="module")
def packs(tmp_path_factory):
    with faulty_packs(tmp_path_factory.mktemp("packs")) as directory:
        yield directory


@pytest.fixture
def run(capsys):
    """Run ``tvmconv tune``; returns (exit code, stdout, stderr)."""

    def run(*arguments):
        capsys.readouterr()
        code = cli.main(["tune", *map(str, arguments)])
        return code, *capsys.readouterr()

    return run


def workload(directory: Path, *specs: ConvSpec) -> Path:
    file = directory / "keys.txt"
    file.write_text("".join(f"{spec.key}\n" for spec in specs))
    return file


# Tuning


@pytest.fixture(scope="module")
def tuned(packs, tmp_path_factory):
    """What a command has printed and left: its directory, stdout, stderr."""
    directory = tmp_path_factory.mktemp("tuned")
    command = (workload(directory, *TUNED, EMPTY), "--machine", "mixed", "--trials", TRIALS)
    report = directory / "report.html"
    code, out, err = tune(packs, directory / "logs", *command, "--report", report)
    assert code == 0, err
    return directory, out, err


@only_x86
@pytest.mark.slow
def test_the_estimate_comes_first_and_then_one_line_a_layer(tuned):
    first, *lines = tuned[2].splitlines()

    assert re.fullmatch(
        r"tuning 4 layers for mixed, at most 8 candidates each, at most about [\d.]+ (s|min); "
        r"records go to \S+/logs",
        first,
    )
    numbered = [line for line in lines if re.match(r"\[\d/4\] ", line)]
    assert [line[:6] for line in numbered] == ["[1/4] ", "[2/4] ", "[3/4] ", "[4/4] "]
    rates = r"[\d.]+ GFLOP/s, \d+ % of peak, [\d.]+ x the default"
    counts = r"{} trials, {} failed, [\d.]+ (s|min) left"
    for line, spec, expected in zip(
        numbered,
        TUNED,
        (
            f"{rates}, {counts.format(8, 0)}; recorded",
            f"{rates}, {counts.format(2, 0)}; nothing beats the default .*",
            f"nothing measured, {counts.format('[0-9]', '[0-9]')}; the default itself fails.*luck.*",
            f"{rates}, {counts.format(8, '[1-7]')}; .*",
        ),
        strict=True,
    ):
        assert re.fullmatch(rf"\[\d/4\] {spec.key}: {expected}", line), line
    assert "0 s left" in numbered[-1]


@only_x86
@pytest.mark.slow
def test_each_kind_of_error_is_shown_in_full_once(tuned):
    failed = [line for line in tuned[2].splitlines() if ": a candidate failed: " in line]

    luck, wrong = sorted(failed, key=lambda line: "values are wrong" in line)
    assert luck.startswith(f"{FIVE.key}: a candidate failed: ")
    assert "RuntimeError: no luck today" in luck
    assert wrong.startswith(f"{TWO.key}: a candidate failed: BuildError: ")
    assert wrong.endswith("computes something else.")
    trials = journal_in(tuned[0] / "logs").read(TWO.key).trials
    assert sum("values are wrong" in (trial.error or "") for trial in trials) > 1


@only_x86
@pytest.mark.slow
def test_the_summary_counts_layers_records_and_failures(tuned):
    directory, out, _ = tuned
    failures = sum('"seconds": null' in line for line in trial_lines(directory / "logs"))
    records = (directory / "logs" / "mixed" / "conv2d.jsonl").read_text().splitlines()

    assert f"tuned 4 of 4 layers; {len(records)} beat the default and are recorded in" in out
    assert f"{directory}/logs/mixed; {failures} candidates failed" in out
    assert THREE.key not in "".join(records)


@only_x86
@pytest.mark.slow
def test_the_outcome_as_json(packs, tuned, tmp_path):
    """Of the same command once more, which does nothing."""
    shutil.copytree(tuned[0] / "logs", tmp_path / "logs")

    code, out, _ = tune(
        packs, tmp_path / "logs", tuned[0] / "keys.txt", "--machine", "mixed", "--trials", TRIALS,
        "--json",
    )  # fmt: skip

    found = {each["key"]: each for each in json.loads(out)}
    assert code == 0
    assert list(found) == [spec.key for spec in TUNED]
    assert all(each["earlier"] for each in found.values())
    assert found[POINTWISE.key]["record"]["key"] == POINTWISE.key
    assert found[POINTWISE.key]["gain"] > 1.5
    assert found[POINTWISE.key]["failures"] == 0
    assert (found[THREE.key]["record"], found[THREE.key]["trials"]) == (None, 2)
    assert "nothing beats" in found[THREE.key]["reason"]
    assert found[FIVE.key]["failures"] == found[FIVE.key]["trials"]
    assert trial_lines(tmp_path / "logs") == trial_lines(tuned[0] / "logs")


# --list


@pytest.fixture
def listed(packs, tuned, tmp_path):
    """Arguments for layers in all states; the records in a directory to write to."""
    logs = tmp_path / "logs"
    shutil.copytree(tuned[0] / "logs", logs)
    record = log.find(POINTWISE, "mixed", [logs]).record
    fields = {**vars(record), "key": STALE.key, "schedule": "mixed.gone"}
    log.write(logs, [log.Record(**fields)])
    journal_in(logs).add(BEGUN.key, [trial(number) for number in range(3)])
    keys = workload(tmp_path, POINTWISE, THREE, BEGUN, STALE, MISSING, EMPTY)
    return keys, "--machine", "mixed", "--output", logs, "--list"


STATES = {
    POINTWISE: "tuned",
    THREE: "default is best",
    BEGUN: "begun",
    STALE: "stale",
    MISSING: "missing",
}


@only_x86
@pytest.mark.slow
def test_the_list_shows_every_state(run, listed):
    code, out, err = run(*listed)

    assert (code, err) == (0, "")
    rows = {line.split()[0]: line for line in out.splitlines() if line.startswith("conv2d")}
    assert list(rows) == [spec.key for spec in STATES]
    for spec, state in STATES.items():
        assert re.match(rf"{spec.key} +{state}( |$)", rows[spec.key])
    assert re.search(
        r"tuned +[\d.]+ x +8 +\d{4}-\d\d-\d\d +mixed/conv2d.jsonl:\d", rows[POINTWISE.key]
    )
    assert re.search(r"begun +3$", rows[BEGUN.key])
    assert "'mixed.gone'" in rows[STALE.key]
    assert "mixed: 1 tuned, 1 default is best, 1 begun, 1 stale, 1 missing" in out
    assert "to tune the rest: tvmconv tune" in out


@only_x86
@pytest.mark.slow
def test_the_list_as_json(run, listed):
    code, out, _ = run(*listed, "--json")

    found = {each["key"]: each for each in json.loads(out)}
    assert code == 0
    assert {key: each["state"] for key, each in found.items()} == {
        spec.key: state for spec, state in STATES.items()
    }
    assert found[POINTWISE.key]["gain"] > 1.5
    assert found[THREE.key]["trials"] == 2
    assert found[BEGUN.key]["trials"] == 3


def test_nothing_is_tuned_where_nobody_has_been(run, tmp_path):
    code, out, _ = run("mobilenet_v1", "--list", "--output", tmp_path / "none", "--json")

    found = json.loads(out)
    assert code == 0
    assert {"block1.pointwise", "stem"} <= {each["name"] for each in found}
    assert {each["state"] for each in found} <= {"missing", "tuned", "stale"}  # those shipped
    assert list(tmp_path.iterdir()) == []


# --report


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


def check_report(file: Path, specs) -> None:
    """Raise unless it is what its name says, with all layers in it where that can be read."""
    content = file.read_bytes()
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


@only_x86
@pytest.mark.slow
def test_a_session_leaves_a_report(tuned):
    check_report(tuned[0] / "report.html", TUNED)
    assert f"report: {tuned[0] / 'report.html'}" in tuned[2]
    text = (tuned[0] / "report.html").read_text()
    assert re.search(rf"<td>{POINTWISE.key}</td>.*<td>8</td><td>0</td><td>recorded</td>", text)


@only_x86
@pytest.mark.slow
@pytest.mark.parametrize("ending", ["html", "png", "svg"])
def test_a_report_of_earlier_runs(run, listed, tmp_path, ending):
    code, _, err = run(*listed, "--report", tmp_path / f"report.{ending}")

    assert code == 0, err
    # Only layers with trials have a curve.
    specs = [POINTWISE, THREE, BEGUN] if ending == "svg" else STATES
    check_report(tmp_path / f"report.{ending}", specs)


# What it says of mistakes

BEFORE_ANY_TUNING = {
    "machine": ([POINTWISE.key, "--machine", "sapphirerapid"], "Did you mean sapphirerapids"),
    "workload": (["mobilnet_v2"], "Did you mean mobilenet_v2"),
    "key": (["conv2d_1x2"], "not the key of a convolution"),
    "layer": (["resnet50", "--layers", "stem,stage1.block1.conv3x2"], "stage1.block1.conv3x3"),
    "ending": ([POINTWISE.key, "--report", "report.pdf"], "must end in one of .html, .png, .svg"),
    "no ending": ([POINTWISE.key, "--report", "report"], "must end in one of .html, .png, .svg"),
    "folder": ([POINTWISE.key, "--report", "none/report.html"], "there is no directory none"),
}


@pytest.mark.parametrize("listing", [[], ["--list"]], ids=["tune", "list"])
@pytest.mark.parametrize("mistake", BEFORE_ANY_TUNING)
def test_a_mistake_is_found_before_anything_is_done(run, tmp_path, monkeypatch, mistake, listing):
    monkeypatch.chdir(tmp_path)
    arguments, message = BEFORE_ANY_TUNING[mistake]

    code, out, err = run(*arguments, "--output", "logs", *listing)

    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "option",
    [["--trials", "0"], ["--trials", "x"], ["--minutes", "0"], ["--minutes", "nan"],
     ["--minutes", "inf"], ["--threads", "-1"], ["--cache", "tepid"], ["--patience", "0"]],
    ids=" ".join,
)  # fmt: skip
def test_a_wrong_value_is_refused(capsys, option):
    with pytest.raises(SystemExit) as ended:
        cli.main(["tune", POINTWISE.key, *option])
    assert ended.value.code == 2
    assert option[0] in capsys.readouterr().err


WITHOUT_MATPLOTLIB = """
import sys
class Without:
    '''A finder that finds what another one does, but for matplotlib.'''
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "matplotlib":
            return None
        return self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)
sys.meta_path[:] = map(Without, sys.meta_path)
from tvmconv import cli
sys.exit(cli.main(["tune", *sys.argv[1:]]))
"""


@pytest.mark.parametrize("listing", [[], ["--list"]], ids=["tune", "list"])
def test_a_report_without_matplotlib_is_refused_before_anything_is_done(tmp_path, listing):
    words = [
        POINTWISE.key,
        "--output",
        tmp_path / "logs",
        "--report",
        tmp_path / "r.html",
        *listing,
    ]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_MATPLOTLIB, *map(str, words)], capture_output=True, text=True
    )

    assert done.returncode == 1
    assert done.stderr == (
        "error: --report needs matplotlib. To mend it: pip install 'tvmconv[plots]'\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_linker_that_fails_is_an_error_and_not_a_failed_candidate(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "/bin/false")
    code, _, err = tune(tmp_path, tmp_path / "logs", POINTWISE.key, "--trials", 2)

    assert code == 1
    assert "linking failed" in err
    assert "tvmconv doctor" in err
    assert "Traceback" not in err
    assert trial_lines(tmp_path / "logs") == []


def test_nothing_to_tune_is_done_at_once(run, tmp_path):
    code, out, _ = run(EMPTY.key, "--output", tmp_path, "--trials", 3)

    assert code == 0
    assert "tuned 0 of 0 layers" in out
    assert "done before" not in out


# The lines themselves


def shown(capsys, *errors: str | None) -> list[str]:
    """What a watcher prints of trials with these errors."""
    machine, pack = hardware.find_machine("host")
    search = LayerSearch(POINTWISE, machine, pack, CostModel())
    state = LayerState(Layer("stem", POINTWISE), search, Memory())
    watcher = watch.Plain()
    for number, error in enumerate(errors):
        search.note(trial(number, 1e-6 if error is None else None, error))
        watcher.measured(Session(None, [state]), state)
    return capsys.readouterr().err.splitlines()


def test_errors_that_differ_in_numbers_and_files_only_are_of_one_kind(capsys):
    wrong = (
        "BuildError: {} of 12544 values are wrong; the worst, at ({}, 0), is {} and should be {}"
    )
    link = "BuildError: linking failed: g++ -o /tmp/tvmconv-{}/0-{}.so /tmp/{}/lib0.o: no space"

    lines = shown(
        capsys,
        wrong.format(12544, 3, 0.5, -1.25),
        None,
        wrong.format(1, 11, -1.5e-07, 2.5),
        wrong.format(7, 12, "nan", "inf"),
        link.format("ab_c", 12, "tmpx9"),
        link.format("q1", 7, "tmp_zz"),
        "crashed the measuring process (SIGSEGV)",
        "crashed the measuring process (SIGABRT)",
        "crashed the measuring process (SIGSEGV)",
        "failed in apply() with {'pixels': 3, 'pad': 'rows'}: no luck",
        "failed in apply() with {'pixels': 3, 'pad': 'image'}: no luck",
    )

    assert [line.partition(" failed: ")[2][:40] for line in lines] == [
        "BuildError: 12544 of 12544 values are wr",
        "BuildError: linking failed: g++ -o /tmp/",
        "crashed the measuring process (SIGSEGV)",
        "crashed the measuring process (SIGABRT)",
        "failed in apply() with {'pixels': 3, 'pa",
    ]


def test_a_layer_that_got_no_time_has_a_line_without_figures(capsys):
    machine, pack = hardware.find_machine("host")
    search = LayerSearch(POINTWISE, machine, pack, CostModel())
    state = LayerState(Layer("stem", POINTWISE), search, Memory())
    state.outcome = Outcome(POINTWISE, None, reason="no time was left for it")

    assert watch.line(Session(None, [state]), state) == "stem: no time was left for it"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (89.4, "89 s"), (90, "1.5 min"), (5400, "1.5 h")]
)
def test_times_are_for_people(seconds, text):
    assert watch.left(seconds) == text
