"""``tvmconv tune``: what it prints, lists and reports, and what it says of mistakes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

import pytest
from tuners import (
    FIVE,
    POINTWISE,
    THREE,
    TWO,
    check_report,
    journal_in,
    only_x86,
    trial_lines,
    tune,
    workload,
)

from tvmconv.commands import cli
from tvmconv.problem.spec import ConvSpec

EMPTY = ConvSpec.conv2d((0, 14, 14, 64), (1, 1, 64, 64))
TUNED = (POINTWISE, THREE, FIVE, TWO)
TRIALS = 8


@pytest.fixture(autouse=True, scope="module")
def users_own(tmp_path_factory):
    """The user's directory, empty, in place of this user's real one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture
def run(capsys):
    """Run ``tvmconv tune``; returns (exit code, stdout, stderr)."""

    def run(*arguments):
        capsys.readouterr()
        code = cli.main(["tune", *map(str, arguments)])
        return code, *capsys.readouterr()

    return run


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


# --report


@only_x86
@pytest.mark.slow
def test_a_session_leaves_a_report(tuned):
    check_report(tuned[0] / "report.html", TUNED)
    assert f"report: {tuned[0] / 'report.html'}" in tuned[2]
    text = (tuned[0] / "report.html").read_text()
    assert re.search(rf"<td>{POINTWISE.key}</td>.*<td>8</td><td>0</td><td>recorded</td>", text)


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
from tvmconv.commands import cli

pytest_plugins = ("tuning_fixtures",)
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
