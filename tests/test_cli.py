"""The command line: what each verb prints, its exit codes, and what it says of mistakes."""

import dataclasses
import importlib.metadata
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from tvmconv import bundle, choice, cli, hardware, host, tables, toolchain
from tvmconv.commands import doctor, verify
from tvmconv.spec import ConvSpec
from tvmconv.tuning import log

PLAIN = ConvSpec.conv2d((1, 6, 5, 8), (3, 3, 8, 16))
RELU = ConvSpec.conv2d((1, 6, 5, 8), (3, 3, 8, 16), activation="relu")
DEPTHWISE = ConvSpec.depthwise_conv2d((1, 7, 7, 16), (3, 3, 16, 1), bias=True, residual=True)
EMPTY = ConvSpec.conv2d((0, 6, 5, 8), (3, 3, 8, 16))
SPECS = (PLAIN, RELU, DEPTHWISE, EMPTY)


@pytest.fixture(scope="module", autouse=True)
def user_records(tmp_path_factory):
    """No records of the person who runs the tests, here and in the processes started."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        yield log.user_directory()


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A bundle made by ``tvmconv build`` from a file of keys."""
    folder = tmp_path_factory.mktemp("built")
    keys = folder / "keys.txt"
    keys.write_text("".join(f"{spec.key}  # comment\n" for spec in SPECS))
    assert cli.main(["build", str(keys), "--output", str(folder / "b.tvmconv")]) == 0
    return folder / "b.tvmconv"


@pytest.fixture
def copied(built, tmp_path):
    """Another bundle like `built`, to damage."""
    target = tmp_path / "copy.tvmconv"
    target.mkdir()
    for file in built.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


@pytest.fixture
def run(capsys):
    """Run a command; returns (exit code, stdout, stderr)."""

    def run(*arguments):
        capsys.readouterr()
        code = cli.main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


def record_for(spec, **changes):
    machine, pack = hardware.find_machine("host")
    default = choice.default_choice(spec, machine, pack)
    fields = {
        "key": spec.key,
        "schedule": default.schedule.name,
        "decisions": default.decisions,
        "microseconds": 1.0,
        "default_microseconds": 1.0,
        "machine": machine.name,
        "cpu": "test",
        "threads": 1,
        "tvm": "0.27",
        "date": "2026-01-01",
        "trials": 1,
        "measured": "not at all",
    }
    return log.Record(**{**fields, **changes})


# The command as a whole


def test_no_verb_prints_the_help_and_fails(run):
    code, out, _ = run()
    assert code == 2
    assert all(name in out for name, _ in cli.VERBS)


@pytest.mark.parametrize("flag", ["--version", "--help"])
def test_version_and_help_load_neither_tvm_nor_numpy(flag):
    code = f"""
import sys
from tvmconv import cli
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


def test_interrupt_is_one_line(run, monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(hardware, "working_packs", interrupted)
    assert run("machines") == (130, "", "interrupted\n")


def test_interrupt_while_tvm_compiles(tmp_path):
    # TVM turns a KeyboardInterrupt in one of its callbacks into a RuntimeError without a message.
    command = [sys.executable, "-m", "tvmconv.cli", "build", "mobilenet_v2"]
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
    with pytest.raises(bundle.errors.BundleError):
        cli.main(arguments)


def test_a_closed_pipe_is_no_error(built):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "tvmconv.cli", "inspect", str(built)],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


# machines


def test_machines_marks_this_one(run):
    code, out, _ = run("machines")
    assert code == 0
    name = hardware.detect().name
    (marked,) = [line.split() for line in out.splitlines() if line.startswith("*")]
    assert marked[1] == name
    assert f"This machine is {name}: {host.cpu_name()}" in out


def test_machines_as_json(run):
    code, out, _ = run("machines", "--json")
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


def test_machines_lists_broken_packs_and_damaged_records(run, monkeypatch, tmp_path):
    packs, _ = hardware.working_packs()
    monkeypatch.setattr(hardware, "working_packs", lambda: (packs, {"acme": "acme is broken."}))
    monkeypatch.setattr(hardware, "detect", lambda: packs[0].machines[0])
    first, second = packs[0].machines[:2]
    monkeypatch.setattr(log, "shipped_directory", lambda: tmp_path)
    log.write(tmp_path, [record_for(PLAIN, machine=second.name)])
    (tmp_path / first.name).mkdir()
    (tmp_path / first.name / "conv2d.jsonl").write_text("torn\n")
    code, out, _ = run("machines")
    assert code == 0
    assert "broken: acme is broken." in out
    rows = {line[3:].split()[0]: line for line in out.splitlines()[2:] if line.strip()}
    assert rows[first.name].endswith("damaged: see tvmconv doctor")
    assert rows[second.name].endswith(" 1")


# doctor


def test_doctor_tries_a_kernel(run):
    code, out, _ = run("doctor")
    assert code == 0, out
    assert "built, loaded, and computes right" in out
    assert "Kernels can be built and run here." in out
    assert ("aarch64 linker" in out) == (host.architecture() != "aarch64")


def test_doctor_names_what_to_install(run, monkeypatch):
    missing = toolchain.Check("linker", False, "none", "build, tune", "apt install it")
    checks = [*toolchain.checks(), missing]
    monkeypatch.setattr(toolchain, "checks", lambda: checks)
    code, out, _ = run("doctor")
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


def test_doctor_as_json(run, monkeypatch):
    monkeypatch.setattr(doctor, "_check_kernel", lambda: toolchain.Check("a", False, "b", "build"))
    code, out, _ = run("doctor", "--json")
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
def test_doctor_reads_the_records(decisions, run, monkeypatch, user_records):
    monkeypatch.setattr(doctor, "_check_kernel", lambda: toolchain.Check("a", True, "b", "build"))
    (file,) = log.write(user_records, [record_for(PLAIN)])
    try:
        assert run("doctor")[0] == 0
        if decisions is None:
            file.write_text(file.read_text() + "{torn\n")
        else:
            log.write(user_records, [record_for(PLAIN, decisions=decisions)])
        code, out, _ = run("doctor")
    finally:
        file.unlink()
    assert code == 1
    assert f"{file}, line {2 if decisions is None else 1}" in out


# build


def test_build_says_what_came_of_it(run, tmp_path):
    path = tmp_path / "b.tvmconv"
    code, out, err = run("build", DEPTHWISE.key, "--machine", "host", "--output", path)
    assert code == 0
    assert f"{path}: 1 kernels" in out
    assert "0 from tuning records, 1 with default decisions, 0 with nothing to compute" in out
    assert f"tvmconv verify {path}" in out
    assert "compiling 1 kernels" in err


def test_build_takes_records_and_several_machines(run, tmp_path):
    name = hardware.detect().name
    other = next(
        machine.name for pack in hardware.working_packs()[0] for machine in pack.machines
        if machine.name != name and machine.architecture == host.architecture() and not machine.gpu
    )  # fmt: skip
    log.write(tmp_path / "logs", [record_for(PLAIN)])
    code, out, err = run(
        "build", PLAIN.key, "--machine", f"{name},{other}", "--output", tmp_path / "b.tvmconv",
        "--logs", tmp_path / "logs", "--json",
    )  # fmt: skip
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert found["bytes"] == sum(f.stat().st_size for f in (tmp_path / "b.tvmconv").iterdir())
    counts = {variant["machine"]: variant for variant in found["variants"]}
    assert counts[name] == {"machine": name, "tuned": 1, "default": 0, "empty": 0}
    assert counts[other]["tuned"] == 0


MISTAKES = {
    "workload": (["mobilnet_v2"], {}, 2, "Did you mean mobilenet_v2"),
    "key": (["conv2d_1x2"], {}, 2, "not the key of a convolution"),
    "machine": ([PLAIN.key], {"--machine": "sapphirerapid"}, 2, "Did you mean sapphirerapids"),
    "logs": ([PLAIN.key], {"--logs": "nowhere"}, 2, "--logs nowhere is not a directory"),
    "output": ([PLAIN.key], {"--output": "full"}, 1, "full exists and is not only a bundle"),
    "permission": ([PLAIN.key], {"--output": "/proc/b.tvmconv"}, 1, "/proc/"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_build_says_what_is_wrong(mistake, run, tmp_path, monkeypatch):
    positional, options, expected, message = MISTAKES[mistake]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    options = {"--output": "b.tvmconv", **options}
    code, out, err = run("build", *positional, *(word for pair in options.items() for word in pair))
    assert code == expected
    assert out == ""
    assert message in err
    assert err.splitlines()[-1].startswith("error: ")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["full", "thesis.txt"]


def test_build_without_tvm_says_how_to_get_it(run, tmp_path, monkeypatch):
    missing = toolchain.Check("apache-tvm", False, "not installed", "build", "pip install it")
    monkeypatch.setattr(toolchain, "check_tvm", lambda: missing)
    code, _, err = run("build", PLAIN.key, "--output", tmp_path / "b.tvmconv")
    assert code == 1
    assert "apache-tvm is needed for build, found: not installed. To mend it: pip install it" in err


# verify


def test_verify_passes_a_sound_bundle(run, built):
    code, out, err = run("verify", built, "--threads", 1)
    assert (code, out) == (
        0,
        f"4 of 4 kernels for {hardware.detect().name} are right with 1 threads\n",
    )
    assert all(spec.key in err for spec in SPECS)
    assert all(spec.key in run("verify", built, "--verbose")[1] for spec in SPECS)


def test_verify_finds_a_wrong_kernel(run, copied):
    manifest = bundle.read_manifest(copied)
    (variant,) = manifest.variants
    kernels = {**variant.kernels, RELU.key: variant.kernels[PLAIN.key]}  # forgets the activation
    variant = dataclasses.replace(variant, kernels=kernels)
    bundle.write_manifest(copied, dataclasses.replace(manifest, variants=(variant,)))
    code, out, _ = run("verify", copied)
    assert code == 1
    assert f"{RELU.key}: " in out
    assert "values are wrong; the worst, at" in out
    assert f"{PLAIN.key}: " not in out
    assert "3 of 4 kernels" in out
    code, out, err = run("verify", copied, "--json")
    failures = {kernel["key"]: kernel["failure"] for kernel in json.loads(out)["kernels"]}
    assert (code, err) == (1, "")
    assert [key for key, failure in failures.items() if failure] == [RELU.key]


def test_verify_misaligns_every_array(built):
    from tvmconv import runtime

    kernel = runtime.load(built)[DEPTHWISE]
    calls = []

    class Spy:
        spec, schedule = kernel.spec, kernel.schedule

        def __call__(self, *arrays):
            calls.append([None if a is None else a.ctypes.data % 64 for a in arrays])
            return kernel(*arrays)

    result = verify.check(Spy())
    assert result.failure is None
    assert 0 < result.error < result.allowed
    assert calls[1] == [4] * 5  # x, w, bias, residual, out


@pytest.mark.parametrize(
    ("arguments", "expected", "message"),
    [
        (["nowhere"], 1, "nowhere does not exist; a bundle is a directory made by"),
        (["{folder}"], 1, "holds no manifest.json, so it is no bundle"),
        (["{bundle}", "--machine", "acme"], 2, "the bundle has no variant 'acme'"),
        (["{bundle}", "--threads", "0"], 2, "threads must be at least 1"),
    ],
)
def test_verify_says_what_is_wrong(arguments, expected, message, run, built, tmp_path):
    given = [text.format(folder=tmp_path, bundle=built) for text in arguments]
    code, out, err = run("verify", *given)
    assert (code, out) == (expected, "")
    assert err.startswith("error: ")
    assert message in err


# inspect


def test_inspect_shows_the_manifest(run, built):
    code, out, _ = run("inspect", built)
    assert code == 0
    manifest = bundle.read_manifest(built)
    assert f"taken here  {hardware.detect().name}" in out
    assert "has all of it" in out
    assert manifest.tvm in out
    rows = {line.split()[0]: line for line in out.splitlines() if line.startswith(("conv", "dep"))}
    assert set(rows) == set(manifest.keys)
    entry = manifest.variants[0].kernels[PLAIN.key]
    assert f"channels={entry.decisions['channels']}" in rows[PLAIN.key]
    assert rows[PLAIN.key].endswith("default")


def test_inspect_as_json(run, built):
    code, out, _ = run("inspect", built, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["keys"] == [spec.key for spec in SPECS]
    assert found["taken_here"] == found["variants"][0]["machine"]
    assert found["variants"][0]["missing_here"] == []


def test_inspect_says_where_a_bundle_runs(run, built, monkeypatch):
    monkeypatch.setattr(host, "cpu_features", lambda: frozenset({"popcnt"}))
    code, out, _ = run("inspect", built)
    assert code == 0  # the bundle is sound
    assert "taken here  none" in out
    assert "lacks cx16" in out
    monkeypatch.setattr(host, "architecture", lambda: "riscv64")
    assert "lacks x86_64 linux" in run("inspect", built)[1]


def test_inspect_finds_damage(run, copied):
    library = copied / bundle.read_manifest(copied).variants[0].library
    library.write_bytes(library.read_bytes()[:-1])
    code, out, _ = run("inspect", copied)
    assert code == 1
    assert f"{library} is truncated or altered" in out
    assert json.loads(run("inspect", copied, "--json")[1])["variants"][0]["damage"]


# without a compiler, and on a terminal


def test_verify_and_inspect_need_only_the_runtime(built):
    """As on a board: TVM, rich and the other packages for building cannot be imported."""
    code = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("tvm", "rich", "filelock", "platformdirs", "xgboost"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
from tvmconv import cli
sys.exit(cli.main(["verify", {str(built)!r}]) or cli.main(["inspect", {str(built)!r}]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "4 of 4 kernels" in done.stdout
    assert PLAIN.key in done.stdout


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
