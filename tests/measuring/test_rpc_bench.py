"""``tvmconv bench`` on a board over TVM's RPC, with a real tracker and a real server on loopback."""

from __future__ import annotations

import json

import pytest
from tuners import FIVE, POINTWISE, default_of, only_x86, workload

from tvmconv.building import toolchain
from tvmconv.commands import cli
from tvmconv.hardware import host
from tvmconv.records import log
from tvmconv.records.record import Record

pytest_plugins = ("rpc_fixtures",)
pytestmark = [only_x86, pytest.mark.slow, pytest.mark.timeout(300)]


def bench(*words: object) -> int:
    return cli.main(["bench", *map(str, words)])


def test_a_board_times_every_layer_and_its_own_roof(packs, tracker, start, where, tmp_path, capsys):
    board = start()
    keys = workload(tmp_path, POINTWISE, FIVE)
    words = [keys, "--rpc-tracker", tracker, "--rpc-key", where.key, "--rounds", 3, "--untuned"]
    assert bench(*words, "--json", tmp_path / "out.json") == 0, capsys.readouterr().err

    report = json.loads((tmp_path / "out.json").read_text())
    assert report["cpu"] == host.cpu_name()
    assert report["roof"]["flops_per_second"] > 1e9
    assert [row["key"] for row in report["rows"]] == [POINTWISE.key, FIVE.key]
    for row, spec in zip(report["rows"], (POINTWISE, FIVE), strict=True):
        assert 0 < row["fastest"] <= row["microseconds"] <= row["slowest"]
        rate = spec.flops / row["microseconds"] * 1e6
        assert row["percent_peak"] == pytest.approx(100 * rate / report["roof"]["flops_per_second"])
        assert row["source"] == "default"
    assert board.clients == 1
    shown = capsys.readouterr().out
    assert POINTWISE.key in shown
    assert host.cpu_name() in shown


def test_a_kernel_that_crashes_on_the_board_has_no_time(
    packs, tracker, start, where, tmp_path, capsys
):
    start()
    machine = "faulty-kernels"
    record = Record(
        key=POINTWISE.key,
        schedule=f"{machine}.faulty.kernel_segfault",
        decisions=dict(default_of(POINTWISE, machine).decisions),
        microseconds=10.0,
        default_microseconds=15.0,
        machine=machine,
        cpu="a CPU",
        threads=1,
        tvm=toolchain.tvm_version(),
        date="2026-01-01",
        trials=8,
        how="measured",
        driver=None,
        place="here",
        board=None,
        cache="warm",
        rounds=11,
    )
    log.write(tmp_path, [record])
    words = [POINTWISE.key, "--machine", machine, "--logs", tmp_path]
    assert bench(*words, "--rpc-tracker", tracker, "--rpc-key", where.key) == 1
    message = capsys.readouterr().err
    assert f"({POINTWISE.key}) failed on the board: crashed the measuring process" in message


@pytest.mark.parametrize("other", [("--peers", "ncnn"), ("--bundle", "kernels.tvmconv")])
def test_what_only_this_machine_can_do_is_refused(other, capsys):
    assert bench(POINTWISE.key, *other, "--rpc-tracker", "127.0.0.1:9190") == 2
    message = capsys.readouterr().err
    assert f"{other[0]} is for this machine" in message
    assert "leave out --rpc-tracker" in message


def test_a_key_without_a_tracker_is_refused(capsys):
    assert bench(POINTWISE.key, "--rpc-key", "rpi4") == 2
    assert "give --rpc-tracker HOST:PORT too" in capsys.readouterr().err
