"""docs/adding-hardware.md and examples/tvmconv-riscv: what they say is done, in folders of their own."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import third_party
from tvm import tirx

from tvmconv import hardware
from tvmconv.checking import contract
from tvmconv.compute.depthwise_conv2d import as_depthwise
from tvmconv.errors import BuildError, HardwarePackError
from tvmconv.hardware import Knob, host
from tvmconv.problem.spec import ConvSpec

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "adding-hardware.md"
EXAMPLE = ROOT / "examples" / "tvmconv-riscv"
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(EXAMPLE)
    from tvmconv_riscv import PACK

X60, C908 = PACK.machines
SPEC = ConvSpec.conv2d((1, 14, 14, 32), (3, 3, 32, 32))


# Without the network where what builds a wheel is here already.
BUILDERS = [importlib.util.find_spec(name) for name in ("setuptools", "wheel")]
OFFLINE = ["--no-build-isolation", "--no-index"] if all(BUILDERS) else []


def run(command: str | list[str], site: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command to which ``site`` is where packages are; ``pip install`` fills that, and no more."""
    here = Path(sys.executable).parent
    if isinstance(command, str):
        # An editable install would change the environment that these tests run in.
        install = (
            f"pip install --quiet --no-deps {' '.join(OFFLINE)} --target {shlex.quote(str(site))}"
        )
        command = re.sub(r"^pip install( --editable)?", install, command)
    return subprocess.run(
        command,
        shell=isinstance(command, str),
        cwd=cwd,
        env={
            **os.environ,
            "PYTHONPATH": str(site),
            "PATH": os.pathsep.join([str(here), os.environ["PATH"]]),
            "XDG_DATA_HOME": str(site / "data"),
        },
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The example, installed as its README says."""
    folder = tmp_path_factory.mktemp("example")
    leftovers = shutil.ignore_patterns("build", "*.egg-info", "__pycache__", ".pytest_cache")
    shutil.copytree(EXAMPLE, folder / "source", ignore=leftovers)
    done = run("pip install ./source", folder / "site", folder)
    assert done.returncode == 0, done.stderr
    return folder / "site"


def tvmconv(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run([sys.executable, "-m", "tvmconv.commands.cli", *arguments], site, site)


def test_the_installed_example_is_found_and_listed(site):
    listed = tvmconv(site, "machines")

    assert listed.returncode == 0, listed.stderr
    for machine in PACK.machines:
        assert re.search(rf"{machine.name}\s+{re.escape(machine.description)}", listed.stdout)
    assert "broken" not in listed.stdout


def test_the_installed_example_loads_beside_the_packs_of_this_repository(site):
    here = hardware.detect()
    with third_party.installed(site):
        machine, pack = hardware.find_machine("spacemit-x60")
        assert (machine, pack.name) == (X60, "riscv")
        assert hardware.find_schedule("riscv.conv2d.tiled", pack).accepts(SPEC, machine)
        assert hardware.working_packs()[1] == {}
        assert hardware.detect() == here


def test_the_example_imports_what_third_parties_may():
    modules = set()
    for file in (EXAMPLE / "tvmconv_riscv").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom):
                modules.add(str(node.module))
                modules |= {f"{node.module}.{alias.name}" for alias in node.names}
    allowed = "hardware|lowering|compute|problem|contract|schedules.shared"

    ours = {name for name in modules if name.startswith("tvmconv.")}
    assert {name for name in ours if not re.match(rf"tvmconv\.({allowed})\b", name)} == set()


def test_the_examples_own_tests_pass_where_it_is_installed(site):
    """All but its contract, which the next test runs case by case."""
    tests = ["tests/test_riscv.py", "tests/test_contract.py::test_pack"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    done = run(command, site, site.parent / "source")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "12 passed" in done.stdout


# The machines differ in the length of their vectors: every edge case on one or the other, for time's sake.
CONTRACT = [*contract.cases(PACK, [X60])[::2], *contract.cases(PACK, [C908])[1::2]]


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=str(case), marks=[pytest.mark.slow] if number % 8 else [])
        for number, case in enumerate(CONTRACT)
    ],
)
def test_the_example_keeps_the_contract(case):
    contract.check(case)


def test_its_objects_are_risc_v(tmp_path):
    (case,) = contract.cases(PACK, [X60], [SPEC])
    file = tmp_path / "kernel.o"
    contract.compiled(case).write_to_file(str(file), "o")

    head = file.read_bytes()[:64]
    assert head[:4] == b"\x7fELF"
    assert int.from_bytes(head[18:20], "little") == 243  # e_machine: EM_RISCV
    assert "vfmacc.vf" in contract.assembly(case)


def test_a_bundle_for_another_architecture_is_an_error_and_leaves_nothing(site, monkeypatch):
    for name in ("CXX", "CC"):
        monkeypatch.delenv(name, raising=False)
    built = tvmconv(site, "build", SPEC.key, "--machine", X60.name, "--output", "kernels")

    assert built.returncode == 1
    assert "error: " in built.stderr
    assert "Traceback" not in built.stderr
    assert not [path for path in site.iterdir() if "kernels" in path.name]


def test_tuning_for_a_machine_that_is_not_here_is_refused(site):
    tuned = tvmconv(site, "tune", SPEC.key, "--machine", X60.name, "--trials", "4")

    assert tuned.returncode == 1
    assert "cannot be measured on this machine, which lacks riscv64" in tuned.stderr


REHEARSAL = """
from tvmconv import contract, hardware
from tvmconv_riscv import PACK, machines
import dataclasses

MACHINE = dataclasses.replace(contract.rehearsal(machines.SPACEMIT_X60), name="rehearsal")
PACK = hardware.HardwarePack("rehearsal", (MACHINE,), PACK.schedules)
"""


@pytest.mark.slow
def test_a_rehearsal_of_the_example_can_be_tuned_built_and_verified(site, tmp_path):
    """Its times mean nothing; that knobs, records and replay fit the tuner does."""
    both = shutil.copytree(site, tmp_path / "site")
    third_party.write_pack(both, "rehearsal", REHEARSAL)
    output = ["--output", str(tmp_path / "records")]
    tuned = tvmconv(both, "tune", SPEC.key, "--machine", "rehearsal", "--trials", "4", *output)
    assert tuned.returncode == 0, tuned.stderr

    output = ["--output", str(tmp_path / "kernels"), "--logs", str(tmp_path / "records")]
    built = tvmconv(both, "build", SPEC.key, "--machine", "rehearsal", *output)
    assert built.returncode == 0, built.stderr
    verified = tvmconv(both, "verify", str(tmp_path / "kernels"))
    assert "1 of 1 kernels for rehearsal are right" in verified.stdout, verified.stderr


def fenced() -> list[tuple[str, str]]:
    """The document's code blocks: (language, text)."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.slow
@pytest.mark.skipif(host.architecture() != "x86_64", reason="the document's machine is an x86-64")
def test_the_document_is_right_from_the_empty_folder_to_the_records(tmp_path):
    project = tmp_path / "project"
    files, commands = [], []
    for language, text in fenced():
        title = re.match(r"# (\S+/?\S+\.(py|toml))\n", text)
        if title:
            file = project / title[1]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            files.append(title[1])
        elif language == "sh":
            commands += text.strip().splitlines()
    assert len(files) == 5
    assert [command.split()[0] for command in commands] == (
        ["pip", "tvmconv", "pytest", "tvmconv", "tvmconv", "tvmconv"]
    )
    outputs = []
    for command in commands:
        done = run(command, tmp_path / "site", project)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        outputs.append(done.stdout)
    assert re.search(r"mine\s+any x86-64\s+x86_64\s+128", outputs[1])
    cases = [spec for spec in contract.edge_cases() if not spec.is_empty]
    # Convolutions of one channel a group are taken by the depthwise schedule too.
    twice = sum(spec.op == "conv2d" and as_depthwise(spec) is not None for spec in cases)
    assert f"{len(cases) + twice + 1} passed" in outputs[2]
    assert "are right" in outputs[5]


# The checks find what they are for.

(CASE,) = contract.cases(PACK, [X60], [ConvSpec.conv2d((1, 5, 6, 8), (3, 3, 8, 16))])


def altered(**changes) -> contract.Case:
    return dataclasses.replace(CASE, schedule=dataclasses.replace(CASE.schedule, **changes))


def other_spec(**changes):
    """A schedule that computes something else than it was asked for."""
    return lambda spec, machine, decisions: CASE.schedule.apply(
        dataclasses.replace(spec, **changes), machine, decisions
    )


def knobs(*found: Knob):
    return lambda spec, machine: found


BROKEN_DECISIONS = {
    "two knobs of one name": altered(knobs=knobs(Knob("a", (1,)), Knob("a", (2,)))),
    "is no identifier": altered(knobs=knobs(Knob("a-b", (1,)))),
    "has no candidates": altered(knobs=knobs(Knob("a", ()))),
    "candidate twice": altered(knobs=knobs(Knob("a", (1, 2, 1)))),
    "other than int and str": altered(knobs=knobs(Knob("a", (1.5, True)))),
    "no point of the space: .*needs a decision": altered(default=lambda spec, machine: {}),
    "no point of the space: .*cannot compute": altered(legal=lambda *_: False),
}


@pytest.mark.parametrize("detail", BROKEN_DECISIONS)
def test_ill_formed_decisions_are_found(detail):
    with pytest.raises(HardwarePackError, match=detail):
        contract.check_decisions(BROKEN_DECISIONS[detail])


def test_a_default_that_changes_its_mind_is_found():
    space = iter(hardware.space(CASE.schedule, CASE.spec, CASE.machine))

    with pytest.raises(HardwarePackError, match="differ from call to call"):
        contract.check_decisions(altered(default=lambda spec, machine: next(space)))


def test_wrong_values_are_found():
    with pytest.raises(BuildError, match="values are wrong"):
        contract.check_values(altered(apply=other_spec(activation="relu")))


def with_body(body):
    """The schedule with the body of its loops replaced by ``body(main)``."""

    def apply(spec, machine, decisions):
        function = CASE.schedule.apply(spec, machine, decisions)
        return dataclasses.replace(function, main=function.main.with_body(body(function.main)))

    return altered(apply=apply)


def test_an_output_left_unwritten_is_found():
    case = with_body(lambda main: tirx.Evaluate(tirx.const(0, "int32")))

    with pytest.raises(BuildError, match=r"are wrong.*nan"):
        contract.check_values(case)


@pytest.mark.parametrize(
    ("parameter", "pixel", "detail"),
    [
        (-1, (0, 4, 5, 16), "writes beyond its output"),
        (-1, (0, 0, 0, -1), "writes beyond its output"),
        (0, (0, 2, 3, 4), "writes to its argument data"),
        (1, (0, 0, 0, 0, 0), "writes to its argument filter"),
    ],
)
def test_what_is_written_where_it_must_not_be_is_found(parameter, pixel, detail):
    def body(main):
        store = tirx.BufferStore(main.params[parameter], tirx.const(1, "float32"), list(pixel))
        return tirx.SeqStmt([main.body, store])

    with pytest.raises(HardwarePackError, match=detail):
        contract.check_values(with_body(body))


def test_what_does_not_compile_for_the_machine_is_found():
    machine = dataclasses.replace(X60, target={"kind": "no_such_kind"})

    with pytest.raises(BuildError, match="could not compile"):
        contract.check_compiles(dataclasses.replace(CASE, machine=machine))


def retargeted(**changes):
    return dataclasses.replace(X60, target={**X60.target, **changes})


def with_core(**changes):
    return dataclasses.replace(X60, core=dataclasses.replace(X60.cpu, **changes))


PACK_FAULTS = {
    "no name for a machine": {"machines": (dataclasses.replace(X60, name="My CPU"),)},
    "`host` is taken": {"machines": (dataclasses.replace(X60, name="host"),)},
    "l2_bytes of spacemit-x60 is 0": {"machines": (with_core(l2_bytes=0),)},
    "not a power of two": {"machines": (with_core(vector_bytes=48),)},
    "has a feature twice": {"machines": (dataclasses.replace(X60, features=("v", "v")),)},
    "target without a kind": {"machines": (dataclasses.replace(X60, target={}),)},
    "no processor 'spacemit-x61'": {"machines": (retargeted(mcpu="spacemit-x61"),)},
    "'+zvl256' of spacemit-x60's target": {"machines": (retargeted(mattr=["+zvl256"]),)},
    "also machines of pack 'x86'": {"machines": (dataclasses.replace(X60, name="x86-64-v3"),)},
    "must be named other.OPERATOR.ALGORITHM": {"name": "other"},
    "has no schedule for depthwise": {"schedules": PACK.schedules[:1]},
    "no output to compute": {
        "schedules": tuple(
            dataclasses.replace(each, accepts=lambda spec, machine: True) for each in PACK.schedules
        )
    },
}


@pytest.mark.parametrize("detail", PACK_FAULTS)
def test_ill_formed_packs_are_found(detail):
    with pytest.raises(HardwarePackError, match=re.escape(detail)):
        contract.check_pack(dataclasses.replace(PACK, **PACK_FAULTS[detail]))


def test_a_rehearsal_has_the_facts_of_the_machine_and_runs_here():
    rehearsed = contract.rehearsal(X60)

    changed = {"architecture", "target", "features"}
    for field in dataclasses.fields(X60):
        same = getattr(rehearsed, field.name) == getattr(X60, field.name)
        assert same != (field.name in changed), field.name
    assert contract.lacking(X60) == ["riscv64"]
    assert contract.lacking(rehearsed) == []


def test_random_decisions_are_legal_not_the_default_and_the_same_in_every_run():
    drawn = contract.random_decisions(CASE, 5)

    assert len(drawn) == 5
    assert drawn == contract.random_decisions(CASE, 5)
    assert CASE.default() not in drawn
    for decisions in drawn:
        hardware.check_decisions(CASE.schedule, CASE.spec, CASE.machine, decisions)
