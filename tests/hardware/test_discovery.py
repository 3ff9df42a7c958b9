"""Hardware packs: found by entry point, named, refused when broken; decisions checked."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import pytest
import third_party
from beads_pack import ABACUS, BEADS, MACHINE, SPEC, schedule, write_wood

from tvmconv import hardware
from tvmconv.errors import BuildError, HardwarePackError, UnknownNameError
from tvmconv.hardware import HardwarePack, host

BROKEN = {
    "syntax": ("PACK = (", None, "SyntaxError"),
    "missing_dependency": ("import a_module_nobody_has", None, "a_module_nobody_has"),
    "raises": ("raise RuntimeError('out of order')", None, "out of order"),
    "exits": ("raise SystemExit('no beads')", None, "SystemExit('no beads')"),
    "stops": ("class Stop(BaseException): ...\nraise Stop('at once')", None, "Stop('at once')"),
    "no_attribute": ("PACKS = 1", None, "PACK"),
    "no_module": ("", "no_such_module_anywhere:PACK", "no_such_module_anywhere"),
    "not_a_pack": ("PACK = 'x86'", None, "is a str, not a tvmconv.hardware.HardwarePack"),
    "names_twice": (
        ABACUS + "PACK = HardwarePack('wood', (MACHINE, MACHINE), ())",
        None,
        "two machines named 'abacus'",
    ),
    "not_a_machine": (
        ABACUS + "PACK = HardwarePack('wood', ('abacus',), ())",
        None,
        "is no machine",
    ),
    "not_a_schedule": (
        ABACUS + "PACK = HardwarePack('wood', (MACHINE,), (MACHINE,))",
        None,
        "which is no schedule",
    ),
    "no_name": (
        ABACUS + "import dataclasses\n"
        "PACK = HardwarePack('wood', (dataclasses.replace(MACHINE, name=None),), ())",
        None,
        "is no machine",
    ),
}


@pytest.fixture(params=BROKEN)
def broken(request, tmp_path):
    """A broken distribution is installed; yields what its error has to say."""
    source, value, detail = BROKEN[request.param]
    name = f"broken_{request.param}"  # modules stay imported: one of its own for each
    with third_party.installed(third_party.write_pack(tmp_path, name, source, value)):
        yield name, detail


@pytest.fixture
def abacus(tmp_path):
    directory = third_party.write_pack(tmp_path / "abacus", "wood", ABACUS)
    with third_party.installed(directory):
        yield directory


def test_the_packs_of_this_repository_are_installed_and_work():
    packs, broken = hardware.working_packs()

    assert "x86" in hardware.pack_names()
    assert sorted(pack.name for pack in packs) == hardware.pack_names()
    assert broken == {}


def test_a_broken_pack_harms_only_itself(broken):
    name, detail = broken

    packs, errors = hardware.working_packs()

    assert "x86" in {pack.name for pack in packs}
    assert list(errors) == [name]
    assert detail in errors[name]
    assert f"{name}-pack" in errors[name]  # the distribution to repair or uninstall
    assert hardware.find_machine("x86-64-v2")[0].name == "x86-64-v2"


def test_a_broken_pack_is_an_error_when_it_is_asked_for(broken):
    name, detail = broken

    with pytest.raises(HardwarePackError, match=f"{name}-pack") as caught:
        hardware.load_pack(name)
    assert detail in str(caught.value)


def test_an_unknown_machine_may_be_one_of_a_broken_pack(broken):
    name, _ = broken

    with pytest.raises(UnknownNameError, match=f"{name}-pack"):
        hardware.find_machine("abacus")


def test_a_third_partys_machine_can_be_named(abacus):
    machine, pack = hardware.find_machine("abacus")

    assert machine == MACHINE
    assert pack.name == "wood"
    assert hardware.find_machine("x86-64-v2")[1].name == "x86"
    assert hardware.schedules_for(SPEC, machine, pack)[0].name == "wood.conv2d.beads"


def test_a_third_partys_machine_is_listed_by_the_command_line(abacus):
    listed = subprocess.run(
        [sys.executable, "-m", "tvmconv.commands.cli", "machines"],
        env={"PYTHONPATH": str(abacus), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert "abacus" in listed.stdout, listed.stderr


def test_an_unknown_pack_names_the_near_ones():
    with pytest.raises(UnknownNameError, match=r"pack 'x68'\. Did you mean x86"):
        hardware.load_pack("x68")


@pytest.mark.parametrize(
    ("name", "near"),
    [("x86-64v3", "x86-64-v3"), ("saphirerapids", "sapphirerapids"), ("hots", "host")],
)
def test_an_unknown_machine_names_the_near_ones_and_all(name, near):
    with pytest.raises(UnknownNameError) as caught:
        hardware.find_machine(name)

    hint, _, known = str(caught.value).partition(" Known: ")
    assert near in hint
    packs, _ = hardware.working_packs()
    assert {machine.name for pack in packs for machine in pack.machines} <= set(
        known.removesuffix(".").split(", ")
    )


def test_a_name_like_no_other_gets_no_hint():
    with pytest.raises(UnknownNameError) as caught:
        hardware.find_machine("quantum")

    assert "Did you mean" not in str(caught.value)


@pytest.mark.parametrize(
    ("machines", "schedules", "twice"),
    [
        (
            (MACHINE, dataclasses.replace(MACHINE, description="another")),
            (),
            "machines named 'abacus'",
        ),
        ((), (BEADS, schedule(op="depthwise_conv2d")), "schedules named 'wood.conv2d.beads'"),
    ],
)
def test_a_pack_with_a_name_twice_is_refused(machines, schedules, twice):
    with pytest.raises(HardwarePackError, match=f"pack 'wood' has two {twice}"):
        HardwarePack("wood", machines, schedules)


def test_the_detected_machine_runs_here():
    machine = hardware.detect()

    assert machine.architecture == host.architecture()
    assert set(machine.features) <= host.cpu_features()
    assert hardware.find_machine("host")[0] == machine


def test_a_host_that_nobody_recognises_is_an_error_that_says_what_it_is(monkeypatch, tmp_path):
    (tmp_path / "cpuinfo").write_text("model name : Difference Engine\nflags : gears\n")
    monkeypatch.setattr(host, "CPUINFO", tmp_path / "cpuinfo")

    with pytest.raises(HardwarePackError, match="Difference Engine") as caught:
        hardware.find_machine("host")
    assert "--machine" in str(caught.value)


def test_a_host_that_nobody_recognises_may_be_one_of_a_broken_pack(broken, monkeypatch, tmp_path):
    monkeypatch.setattr(host, "CPUINFO", tmp_path / "none")

    with pytest.raises(HardwarePackError, match=f"{broken[0]}-pack"):
        hardware.detect()


DETECTIONS = {
    "raises": (
        "raise OSError('no beads')",
        r"failed to detect this machine: OSError\('no beads'\)",
    ),
    "exits": ("raise SystemExit(1)", r"failed to detect this machine: SystemExit\(1\)"),
    "text": ("return 'abacus'", r"detected 'abacus' here, which is none of its machines: abacus\."),
    "another": (
        "return Machine('adder', *list(vars(MACHINE).values())[1:])",
        "detected 'adder' here, which is none of its machines",
    ),
}


@pytest.mark.parametrize("fault", DETECTIONS)
def test_a_pack_whose_detection_fails_is_skipped_with_a_warning(fault, tmp_path, monkeypatch):
    code, detail = DETECTIONS[fault]
    source = ABACUS + (
        f"def detect():\n    {code}\n"
        "PACK = HardwarePack('clumsy', (MACHINE,), (SCHEDULE,), detect)\n"
    )
    here = hardware.detect()
    # Asked before x86, in the order of the alphabet.
    with third_party.installed(third_party.write_pack(tmp_path, "clumsy", source)):
        with pytest.warns(RuntimeWarning, match=f"'clumsy' of clumsy-pack {detail}"):
            assert hardware.detect() == here
        with pytest.warns(RuntimeWarning):
            assert hardware.find_machine("host")[0] == here
        monkeypatch.setattr(host, "CPUINFO", tmp_path / "none")
        with pytest.warns(RuntimeWarning), pytest.raises(HardwarePackError, match=detail):
            hardware.detect()


def test_ctrl_c_is_no_fault_of_a_pack(tmp_path):
    write = third_party.write_pack
    with (
        third_party.installed(write(tmp_path, "interrupted", "raise KeyboardInterrupt")),
        pytest.raises(KeyboardInterrupt),
    ):
        hardware.working_packs()


SCHEDULE_FAULTS = {
    "accepts": lambda schedule, machine: schedule.accepts(SPEC, machine),
    "knobs": lambda schedule, machine: hardware.space(schedule, SPEC, machine),
    "legal": lambda schedule, machine: hardware.check_decisions(schedule, SPEC, machine, {}),
    "default": lambda schedule, machine: schedule.default(SPEC, machine),
    "apply": lambda schedule, machine: schedule.apply(SPEC, machine, {"rows": 2}),
}


@pytest.mark.parametrize("raised", ["KeyError('rows')", "SystemExit(3)", "AssertionError"])
@pytest.mark.parametrize("what", SCHEDULE_FAULTS)
def test_an_error_of_a_schedule_says_whose_it_is(what, raised, tmp_path):
    source = ABACUS + (
        f"import dataclasses\ndef fail(*_):\n    raise {raised}\n"
        f"SCHEDULE = dataclasses.replace(SCHEDULE, {what}=fail)\n"
        f"PACK = HardwarePack('faulty', (MACHINE,), (SCHEDULE,))\n"
    )
    with third_party.installed(third_party.write_pack(tmp_path, "careless", source)):
        machine, pack = hardware.find_machine("abacus")
        with pytest.raises(HardwarePackError) as caught:
            SCHEDULE_FAULTS[what](pack.schedules[0], machine)
    message = str(caught.value)
    assert f"schedule 'wood.conv2d.beads' of hardware pack 'faulty' failed in {what}()" in message
    assert f"{SPEC.key} on abacus" in message
    assert raised.partition("(")[0] in message
    assert "fault of careless-pack" in message
    assert isinstance(caught.value.__cause__, BaseException)  # the traceback into the pack


def test_errors_that_say_what_to_do_pass_through_as_they_are(tmp_path):
    source = ABACUS + (
        "import dataclasses\nfrom tvmconv.errors import BuildError\n"
        "def fail(*_):\n    raise BuildError('too many beads')\n"
        "PACK = HardwarePack('wood', (MACHINE,), (dataclasses.replace(SCHEDULE, apply=fail),))\n"
    )
    with third_party.installed(third_party.write_pack(tmp_path, "passing", source)):
        machine, pack = hardware.find_machine("abacus")
        with pytest.raises(BuildError, match=r"^too many beads$"):
            pack.schedules[0].apply(SPEC, machine, {})


def test_a_kernel_of_a_faulty_schedule_is_a_clear_error_of_the_command_line(tmp_path):
    source = ABACUS.replace("lambda spec, machine: {},", "lambda spec, machine: {}['beads'],")
    directory = third_party.write_pack(tmp_path, "careless", source)
    built = subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "tvmconv.commands.cli",
                "build",
                SPEC.key,
                "--machine",
                "abacus",
            ),
            *("--untuned", "--output", str(tmp_path / "kernels")),
        ],
        env={**os.environ, "PYTHONPATH": str(directory)},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 1
    assert "error: schedule 'wood.conv2d.beads' of hardware pack 'wood' failed in default()" in (
        built.stderr
    )
    assert "fault of careless-pack" in built.stderr
    assert "Traceback" not in built.stderr
    assert not (tmp_path / "kernels").exists()


def test_packs_installed_meanwhile_are_found_when_asked_to_look_again(abacus, tmp_path):
    with pytest.raises(UnknownNameError):
        hardware.find_machine("soroban")
    later = write_wood(tmp_path / "later", "ash", "soroban", "ash.conv2d.beads")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(later)
        hardware.rediscover()
        assert hardware.find_machine("soroban")[1].name == "ash"


def test_schedules_for_a_spec_are_those_that_accept_it_best_first():
    first, second = schedule("first"), schedule("second")
    other = schedule("other", op="depthwise_conv2d")
    pack = HardwarePack("wood", (MACHINE,), (first, other, second))

    assert hardware.schedules_for(SPEC, MACHINE, pack) == [first, second]


def test_a_pack_without_a_schedule_for_a_spec_is_at_fault():
    pack = HardwarePack("wood", (MACHINE,), (schedule(op="depthwise_conv2d"),))

    with pytest.raises(HardwarePackError, match=f"'wood' has no schedule for {SPEC.key}"):
        hardware.schedules_for(SPEC, MACHINE, pack)


def test_an_unknown_schedule_names_the_near_ones():
    pack = HardwarePack("wood", (MACHINE,), (BEADS,))

    assert hardware.find_schedule(BEADS.name, pack) is BEADS
    with pytest.raises(UnknownNameError, match=r"Did you mean wood\.conv2d\.beads"):
        hardware.find_schedule("wood.conv2d.bead", pack)


def test_the_space_is_every_legal_combination_in_the_knobs_order():
    assert hardware.space(BEADS, SPEC, MACHINE) == [
        {"rows": 2, "order": "up"},
        {"rows": 2, "order": "down"},
        {"rows": 1, "order": "up"},
    ]


@pytest.mark.parametrize("decisions", hardware.space(BEADS, SPEC, MACHINE))
def test_points_of_the_space_are_accepted(decisions):
    hardware.check_decisions(BEADS, SPEC, MACHINE, decisions)


@pytest.mark.parametrize(
    ("decisions", "kind", "detail"),
    [
        ({"rows": 2}, ValueError, r"needs a decision for \['order'\]"),
        ({}, ValueError, "'rows', 'order'"),
        ({"rows": 2, "ordre": "up"}, UnknownNameError, "'ordre'. Did you mean order"),
        ({"rows": 2, "order": "up", "depth": 1}, UnknownNameError, "Known: order, rows"),
        ({"rows": 1, "order": "down"}, ValueError, "cannot compute .* on abacus with"),
        ({"rows": 3, "order": "up"}, ValueError, r"rows .* is 3, not of \(2, 1\)"),
        ({"rows": 2, "order": "upp"}, ValueError, "'upp'"),
        ({"rows": "2", "order": "up"}, ValueError, "'2'"),
    ],
)
def test_other_decisions_are_refused(decisions, kind, detail):
    with pytest.raises(kind, match=detail):
        hardware.check_decisions(BEADS, SPEC, MACHINE, decisions)


def test_lanes_follow_the_item_size():
    assert [MACHINE.cpu.lanes(dtype) for dtype in ("float16", "float32", "float64")] == [16, 8, 4]
