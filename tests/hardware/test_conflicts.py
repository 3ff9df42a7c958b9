"""Two packs that bring the same name: an error for who asks for it, and for nobody else."""

from __future__ import annotations

import subprocess
import sys

import pytest
import third_party
from beads_pack import write_wood

from tvmconv import hardware
from tvmconv.errors import TvmconvError


def test_two_packs_with_one_machine_are_an_error_for_who_asks_for_it(tmp_path):
    write_wood(tmp_path, "oak", "abacus", "oak.conv2d.beads")
    write_wood(tmp_path, "yew", "abacus", "yew.conv2d.beads")
    write_wood(tmp_path, "ash", "soroban", "ash.conv2d.beads")
    here = hardware.detect()
    with third_party.installed(tmp_path):
        packs, wrong = hardware.working_packs()
        assert {"ash", "oak", "x86", "yew"} <= {pack.name for pack in packs}
        assert list(wrong) == ["oak and yew"]
        for message in (wrong["oak and yew"], refused(hardware.find_machine, "abacus")):
            assert "machine 'abacus' is brought by oak-pack (pack 'oak') and by yew-pack" in message
            assert "Uninstall all but one" in message
        assert hardware.find_machine("soroban")[1].name == "ash"
        assert hardware.find_machine("host")[0] == here
        # Not a reason for another name's being unknown.
        assert "brought by" not in refused(hardware.find_machine, "slide-rule")


def refused(function, *arguments) -> str:
    """The message of the TvmconvError that a call raises."""
    with pytest.raises(TvmconvError) as caught:
        function(*arguments)
    return str(caught.value)


def test_a_machine_of_the_name_of_the_host_is_an_error_for_the_host_only(tmp_path):
    here = hardware.detect().name
    other = next(m.name for m in hardware.load_pack("x86").machines if m.name != here)
    write_wood(tmp_path, "oak", here, "oak.conv2d.beads")
    with third_party.installed(tmp_path):
        assert hardware.detect().name == here
        for name in ("host", here):
            message = refused(hardware.find_machine, name)
            assert f"machine {here!r} is brought by oak-pack (pack 'oak') and by tvmconv" in message
        assert hardware.find_machine(other)[1].name == "x86"


def test_a_schedule_named_like_another_packs_is_an_error_for_its_own_pack(tmp_path):
    write_wood(tmp_path, "oak", "abacus", "x86.conv2d.direct")
    with third_party.installed(tmp_path):
        _, wrong = hardware.working_packs()
        assert list(wrong) == ["oak and x86"]
        assert "schedule 'x86.conv2d.direct' is brought by oak-pack" in wrong["oak and x86"]
        _, oak = hardware.find_machine("abacus")
        assert refused(hardware.find_schedule, "x86.conv2d.direct", oak) == wrong["oak and x86"]
        # Tuning records of x86 name it.
        x86 = hardware.load_pack("x86")
        assert hardware.find_schedule("x86.conv2d.direct", x86) in x86.schedules


def test_a_schedule_that_two_packs_share_is_no_conflict(tmp_path):
    write_wood(tmp_path, "oak", "abacus", "oak.conv2d.beads")
    third_party.write_pack(
        tmp_path,
        "yew",
        "from tvmconv.hardware import HardwarePack\nfrom oak_pack import SCHEDULE\n"
        "PACK = HardwarePack('yew', (), (SCHEDULE,))",
    )
    with third_party.installed(tmp_path):
        assert hardware.working_packs()[1] == {}


def test_two_distributions_with_a_pack_of_one_name_both_work_but_for_that_name(tmp_path):
    write_wood(tmp_path / "a", "oak", "abacus", "oak.conv2d.beads")
    other = write_wood(tmp_path / "b", "elm", "soroban", "oak.conv2d.rods")
    points = other / "elm_pack-1.0.dist-info" / "entry_points.txt"
    points.write_text(points.read_text().replace("elm =", "oak ="))
    with third_party.installed(tmp_path / "a"), third_party.installed(other):
        message = refused(hardware.load_pack, "oak")
        assert "elm-pack and oak-pack" in message
        assert "Uninstall" in message
        assert hardware.working_packs()[1] == {}
        assert hardware.find_machine("abacus")[1].name == "oak"
        assert hardware.find_machine("soroban")[1].name == "elm"


def test_conflicts_are_listed_by_the_command_line(tmp_path):
    for name in ("oak", "yew"):
        write_wood(tmp_path, name, "abacus", f"{name}.conv2d.beads")
    listed = subprocess.run(
        [sys.executable, "-m", "tvmconv.commands.cli", "machines"],
        env={"PYTHONPATH": str(tmp_path), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert listed.returncode == 0, listed.stderr
    assert "machine 'abacus' is brought by oak-pack" in listed.stdout
    assert "x86-64-v3" in listed.stdout
