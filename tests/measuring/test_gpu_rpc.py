"""GPUs over TVM's RPC: a real tracker and real servers on loopback, whose measuring process is rehearsed.

The board finds no GPU here: it is told of one (`gpus.find`), and its measuring process works on main memory
(`gpu_stand_rehearsal.start`). All else is as it would be: the tracker, uploads, the server, the process that
is replaced, and without the rehearsal the refusal of a machine without a driver. What the tuner compiles are
the candidates of `schedules/cuda`, for the CPU (`CompilerForMain`).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import gpu_bundles
import gpu_stand_rehearsal
import pytest
from gpu_rehearsal import SPEC
from tuners import only_x86

from tvmconv import hardware
from tvmconv.building import cross, toolchain
from tvmconv.building.compile import compile_functions
from tvmconv.commands import cli
from tvmconv.errors import TuningError
from tvmconv.hardware import cuda_driver, host
from tvmconv.measuring.places.boards import Boards, Fleet
from tvmconv.measuring.process import compiling
from tvmconv.measuring.process.candidate import Candidate
from tvmconv.measuring.process.device import Processor
from tvmconv.measuring.process.libraries import Libraries
from tvmconv.measuring.process.runner import Conditions
from tvmconv.problem.spec import ConvSpec
from tvmconv.records import log

pytest_plugins = ("rpc_fixtures",)
pytestmark = [only_x86, pytest.mark.slow, pytest.mark.timeout(300)]
no_driver = pytest.mark.skipif(cuda_driver.driver() is not None, reason="this machine has a driver")
LAYER = ConvSpec.conv2d((1, 5, 5, 16), (1, 1, 16, 32), bias=True, activation="relu")
DRIVER = "driver 580.65.06, CUDA 13.0"
# `tvmconv board` on a machine with that card, which is said to be there; arguments: card, then the verb's.
REHEARSED = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1] / "support")!r})
import gpu_bundles, gpu_stand_rehearsal
from tvmconv.commands import cli
from tvmconv.measuring.process import device, on_gpu
found = device.Found(getattr(gpu_bundles, sys.argv[1]), 1, {DRIVER!r})
device.find = lambda machine: found
on_gpu.start = gpu_stand_rehearsal.start
sys.exit(cli.main(sys.argv[2:]))
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return gpu_stand_rehearsal.libraries(tmp_path_factory.mktemp("libraries"))


@pytest.fixture
def card(start):
    """Start a board with a card of this name in `gpu_bundles`."""
    return lambda name: start(sys.executable, "-c", REHEARSED, name)


@pytest.fixture
def fleet(where):
    made = []

    def make(cache="warm"):
        machine, _ = hardware.find_machine("sm_90")
        names = ("libtvm_runtime.so", "libtvm_runtime_cuda.so")
        runtime, cuda = (cross.runtime_library(host.architecture(), name) for name in names)
        libraries = Libraries(runtime, cuda_runtime=cuda)
        made.append(Fleet(where, machine, libraries, Conditions(cache=cache)))
        return made[-1]

    yield make
    for each in made:
        each.close()


class CompilerForMain(compiling._Compiler):
    """Compiles what nvcc would for main memory, where threads are loops."""

    def _link(self, functions, shipped):
        self._libraries += 1
        path = f"{self._prefix}-{self._libraries}.so"
        made = compile_functions(functions, {"kind": "llvm"})
        made.export_library(path, fcompile=toolchain.link)
        return path


@pytest.fixture
def command(monkeypatch, tmp_path, tracker, where, capsys):
    """Run a verb for LAYER on boards; returns exit code, stdout and stderr."""
    monkeypatch.setattr(compiling, "_Compiler", CompilerForMain)

    def call(verb, *options):
        words = [verb, LAYER.key, "--machine", "sm_90", "--rpc-tracker", tracker]
        code = cli.main([*words, "--rpc-key", where.key, *map(str, options)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def pairs(built):
    return [(Candidate("cuda.conv2d.direct", {"number": at}), one) for at, one in enumerate(built)]


def measure(fleet, built, default=None):
    beside = (None, 0.0) if default is None else default
    return fleet.measure_each(SPEC, pairs(built), float("inf"), beside, lambda _measured: None)


def test_a_card_measures_over_rpc(card, fleet, built):
    card("H100")
    boards = fleet()
    assert boards.processor == Processor(gpu_bundles.H100.name, DRIVER)

    (default,) = measure(boards, built[:1])
    assert default.error is None
    assert 1e-7 < default.seconds < 1e-1
    found = measure(boards, built, (built[0], default.seconds))
    # main1 is wrong; main2 spoils its process, which is replaced before main3.
    assert [each.error is None for each in found] == [True, False, False, True]
    assert "values are wrong" in found[1].error
    assert "an illegal memory access" in found[2].error
    times = boards.compare(SPEC, [built[0], built[3]], 2, 2)
    assert [[len(rounds) for rounds in process] for process in times] == [[2, 2]] * 2


@pytest.mark.parametrize("cache", ["warm", "cold"])
@gpu_bundles.needs_compiler
def test_tune_on_two_cards_writes_a_record_as_local_tuning_does(
    card, command, where, tmp_path, monkeypatch, cache
):
    monkeypatch.setattr(Boards, "worthwhile", 0.0)  # what is best on main memory means nothing
    first, second = card("H100"), card("H100")
    words = ["--trials", 6, "--output", tmp_path / "logs", "--cache", cache]
    code, _, err = command("tune", *words)
    assert code == 0, err

    (entry,) = log.read_log(tmp_path / "logs" / "sm_90" / "conv2d.jsonl")
    record = entry.record
    assert (record.place, record.board, record.driver, record.cache) == (
        "rpc",
        where.key,
        DRIVER,
        cache,
    )
    assert (record.machine, record.cpu) == ("sm_90", gpu_bundles.H100.name)
    assert record.trials == 6
    assert first.clients == second.clients == 1


@gpu_bundles.needs_compiler
def test_bench_on_a_card_has_a_gpus_columns(card, command, tmp_path):
    card("H200")
    code, out, err = command("bench", "--rounds", 3, "--untuned", "--json", tmp_path / "out.json")
    assert code == 0, err

    report = json.loads((tmp_path / "out.json").read_text())
    assert (report["machine"], report["device"]) == ("sm_90", f"{gpu_bundles.H200.name}, {DRIVER}")
    (row,) = report["rows"]
    assert (row["key"], row["source"]) == (LAYER.key, "default")
    assert 0 < row["fastest"] <= row["microseconds"] <= row["slowest"]
    bandwidth = hardware.find_machine("sm_90")[0].gpu.bandwidth
    rate = LAYER.bytes / row["microseconds"] * 1e6
    assert row["percent_bandwidth"] == pytest.approx(100 * rate / bandwidth)
    assert gpu_bundles.H200.name in out
    assert "% of FMA peak" not in out


def test_cards_of_two_kinds_under_one_key_are_refused(card, fleet, built):
    card("H100")
    card("H200")
    with pytest.raises(TuningError, match=r"boards under the key .* differ: NVIDIA H") as raised:
        measure(fleet(), [built[0], built[3]] * 4)
    for one in (gpu_bundles.H100, gpu_bundles.H200):
        assert f"{one.name}, {DRIVER}" in str(raised.value)


@no_driver
@gpu_bundles.needs_compiler
@pytest.mark.parametrize("verb", ["tune", "bench"])
def test_a_board_without_a_driver_says_so(start, command, verb, tmp_path):
    start()
    options = ["--trials", 2, "--output", tmp_path / "logs"] if verb == "tune" else ["--untuned"]
    code, _, err = command(verb, *options)

    assert code == 1
    assert "a board cannot measure: kernels for sm_90 are measured on an NVIDIA GPU of sm_90" in err
    assert "this machine has no NVIDIA driver (libcuda.so.1)" in err
    assert not list((tmp_path / "logs").glob("*/*.jsonl"))
