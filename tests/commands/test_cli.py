"""The command line: the command as a whole, machines, doctor, and tables on a terminal."""

import importlib.metadata
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from invoking import PLAIN, record_for

from tvmconv import hardware
from tvmconv.building import toolchain
from tvmconv.bundle import manifest
from tvmconv.commands import cli, doctor
from tvmconv.commands.show import tables
from tvmconv.hardware import host
from tvmconv.records import log

pytestmark = pytest.mark.usefixtures("user_records")
pytest_plugins = ("bundle_fixtures",)

# The command as a whole


def test_no_verb_prints_the_help_and_fails(invoke):
    code, out, _ = invoke()
    assert code == 2
    assert all(name in out for name, _ in cli.VERBS)


@pytest.mark.parametrize("flag", ["--version", "--help"])
def test_version_and_help_load_neither_tvm_nor_numpy(flag):
    code = f"""
import sys
from tvmconv.commands import cli
try: cli.main([{flag!r}])
finally: print([name for name in ("tvm", "numpy", "rich") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "tvmconv" in done.stdout


@pytest.mark.parametrize("verb", ["machines", "doctor", "tune", "build", "verify", "inspect"])
def test_every_verb_explains_itself(verb, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([verb, "--help"])
    assert ended.value.code == 0
    assert "--json" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [["biuld"], ["build"], ["build", "resnet50"], ["verify", "b", "--threads", "two"]]
)
def test_wrong_usage_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_interrupt_is_one_line(invoke, monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(hardware, "working_packs", interrupted)
    assert invoke("machines") == (130, "", "interrupted\n")


def test_interrupt_while_tvm_compiles(tmp_path):
    # TVM turns a KeyboardInterrupt in one of its callbacks into a RuntimeError without a message.
    command = [sys.executable, "-m", "tvmconv.commands.cli", "build", "mobilenet_v2"]
    process = subprocess.Popen(
        [*command, "--output", str(tmp_path / "b.tvmconv")],
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs, and what they start, ignore the signal.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert "scheduling" in process.stderr.readline()
    assert "compiling" in process.stderr.readline()
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[1] == "interrupted\n"
    assert process.returncode == 130
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("position", [0, 1])
def test_debug_shows_where_an_error_comes_from(position):
    arguments = ["inspect", "nowhere"]
    arguments.insert(position, "--debug")
    with pytest.raises(manifest.errors.BundleError):
        cli.main(arguments)


def test_a_closed_pipe_is_no_error(built):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "tvmconv.commands.cli", "inspect", str(built)],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


# machines


def test_machines_marks_this_one(invoke):
    code, out, _ = invoke("machines")
    assert code == 0
    name = hardware.detect().name
    (marked,) = [line.split() for line in out.splitlines() if line.startswith("*")]
    assert marked[1] == name
    assert f"This machine is {name}: {host.cpu_name()}" in out


def test_machines_as_json(invoke):
    code, out, _ = invoke("machines", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["host"] == {
        "machine": hardware.detect().name,
        "cpu": host.cpu_name(),
        "architecture": host.architecture(),
        "cores": host.available_cores(),
    }
    assert found["host"]["machine"] in [machine["name"] for machine in found["machines"]]
    assert all(machine["features"] or machine["gpu"] for machine in found["machines"])
    aliases = {machine["name"]: machine["aliases"] for machine in found["machines"]}
    assert aliases["cortex-a72"] == ["raspberry-pi-4", "rk3399"]
    assert found["broken_packs"] == {}


def test_machines_lists_broken_packs_and_damaged_records(invoke, monkeypatch, tmp_path):
    packs, _ = hardware.working_packs()
    monkeypatch.setattr(hardware, "working_packs", lambda: (packs, {"acme": "acme is broken."}))
    monkeypatch.setattr(hardware, "detect", lambda: packs[0].machines[0])
    first, second = packs[0].machines[:2]
    monkeypatch.setattr(log, "shipped_directory", lambda: tmp_path)
    log.write(tmp_path, [record_for(PLAIN, machine=second.name)])
    (tmp_path / first.name).mkdir()
    (tmp_path / first.name / "conv2d.jsonl").write_text("torn\n")
    code, out, _ = invoke("machines")
    assert code == 0
    assert "broken: acme is broken." in out
    rows = {line[3:].split()[0]: line for line in out.splitlines()[2:] if line.strip()}
    assert rows[first.name].endswith("damaged: see tvmconv doctor")
    assert rows[second.name].endswith(" 1")


# doctor


def test_doctor_tries_a_kernel(invoke):
    code, out, _ = invoke("doctor")
    assert code == 0, out
    assert "built, loaded, and computes right" in out
    assert "Kernels can be built and run here." in out
    assert ("aarch64 linker" in out) == (host.architecture() != "aarch64")


def test_doctor_names_what_to_install(invoke, monkeypatch):
    missing = toolchain.Check("linker", False, "none", "build, tune", "apt install it")
    checks = [*toolchain.checks(), missing]
    monkeypatch.setattr(toolchain, "checks", lambda: checks)
    code, out, _ = invoke("doctor")
    assert code == 1
    assert "FAILED: linker, for build, tune: apt install it" in out
    assert "a kernel" not in out  # it could not be tried
    assert "building kernels needs what FAILED" in out


def test_doctor_knows_what_boards_need(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(importlib.metadata, "version", missing_version)
    found = {check.name: check for check in doctor._check_boards()}
    assert list(found) == ["tornado", "cloudpickle", "unicorn", "llvm-mca", "qemu"]
    assert not any(check.ok or doctor.is_essential(check) for check in found.values())
    assert found["cloudpickle"].remedy == "pip install 'tvmconv[rpc]'"
    assert found["unicorn"].remedy == "pip install 'tvmconv[simulate]'"
    assert "apt install llvm-19" in found["llvm-mca"].remedy
    assert "apt install qemu-user-static" in found["qemu"].remedy


def missing_version(name):
    raise importlib.metadata.PackageNotFoundError(name)


def test_doctor_as_json(invoke, monkeypatch):
    monkeypatch.setattr(doctor, "_check_kernel", lambda: toolchain.Check("a", False, "b", "build"))
    code, out, _ = invoke("doctor", "--json")
    found = json.loads(out)
    assert (code, found["ok"]) == (1, False)
    assert {"name": "a", "ok": False, "found": "b", "needed_for": "build", "remedy": "",
            "essential": True} in found["checks"]  # fmt: skip


@pytest.mark.parametrize(
    ("code", "found", "remedy"),
    [
        ("import os; os.abort()", "crashed: SIGABRT", "pip install"),
        ("import sys; print('noise', file=sys.stderr); sys.exit('reason')", "not work", "reason"),
    ],
)
def test_doctor_survives_a_kernel_that_does_not(code, found, remedy, monkeypatch):
    monkeypatch.setattr(doctor, "_TRY_KERNEL", code)
    check = doctor._check_kernel()
    assert not check.ok
    assert doctor.is_essential(check)
    assert found in check.found
    assert remedy in check.remedy


@pytest.mark.parametrize("decisions", [None, {"no_such_knob": 1}])
def test_doctor_reads_the_records(decisions, invoke, monkeypatch, user_records):
    monkeypatch.setattr(doctor, "_check_kernel", lambda: toolchain.Check("a", True, "b", "build"))
    (file,) = log.write(user_records, [record_for(PLAIN)])
    try:
        assert invoke("doctor")[0] == 0
        if decisions is None:
            file.write_text(file.read_text() + "{torn\n")
        else:
            log.write(user_records, [record_for(PLAIN, decisions=decisions)])
        code, out, _ = invoke("doctor")
    finally:
        file.unlink()
    assert code == 1
    assert f"{file}, line {2 if decisions is None else 1}" in out


# on a terminal


def test_a_plain_table_is_aligned_and_whole():
    text = tables.plain_table(("key", "n"), [("a" * 200, "1"), ("[b]", "2")], "title")
    title, head, rule, first, second = text.splitlines()
    assert title == "title"
    assert {line.index(mark) for line, mark in ((head, "n"), (first, "1"), (second, "2"))} == {202}
    assert rule == "-" * 200 + "  -"


def test_a_table_on_a_terminal_keeps_every_letter(monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    tables.show_table(("key", "n"), [(PLAIN.key, "[bold]")])
    out = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)  # colours
    assert "[bold]" in out
    letters = [line.split("│")[1].strip() for line in out.splitlines() if line.startswith("│")]
    assert "".join(letters) == PLAIN.key
    assert max(len(line) for line in out.splitlines()) <= 60


def test_progress_on_a_terminal_stays_off_stdout(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with tables.progress() as report:
        report("half [of] it", 1, 2)
    out, err = capsys.readouterr()
    assert out == ""
    assert "half [of] it" in err
