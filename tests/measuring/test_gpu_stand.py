"""Checking and timing candidates on a GPU, rehearsed on main memory with wall clocks for CUDA graphs."""

from __future__ import annotations

import ctypes
from pathlib import Path

import gpu_bundles
import gpu_stand_rehearsal
import numpy as np
import pytest
from gpu_rehearsal import SPEC
from gpu_stand_rehearsal import OnMain, WallClock, small, stand_on

from tvmconv import hardware
from tvmconv.bundle import manifest
from tvmconv.errors import BuildError, DeviceError
from tvmconv.hardware import host
from tvmconv.measuring.places import batch as batches
from tvmconv.measuring.places import batch_measuring, batch_results
from tvmconv.measuring.process import device, gpu_copies, on_gpu, runner
from tvmconv.measuring.process.cuda_graphs import Clock, Flush
from tvmconv.measuring.process.gpu_copies import Copies
from tvmconv.measuring.process.worker import SpoiltError, Worker
from tvmconv.measuring.roof import gpu as gpu_roof
from tvmconv.problem.spec import ConvSpec
from tvmconv.runtime import arrays


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return gpu_stand_rehearsal.libraries(tmp_path_factory.mktemp("libraries"))


@pytest.fixture
def gpu():
    WallClock.opened = WallClock.closed = 0
    return OnMain()


@pytest.fixture
def machine():
    return hardware.find_machine("sm_90")[0]


def test_a_right_kernel_has_a_time_and_its_graph_is_freed(gpu, machine, built):
    stand = stand_on(gpu, machine)

    alone = stand.measure(SPEC.key, built[0], float("inf"), None, 0.0)
    assert 1e-7 < alone < 1e-2
    assert (WallClock.opened, WallClock.closed) == (1, 1)
    # Beside itself it takes what the yardstick is said to take, however fast this machine is; other processes
    # may take either's time, so that one of a few must be left alone.
    beside = [stand.measure(SPEC.key, built[0], float("inf"), built[0], 1.0) for _ in range(15)]
    assert any(0.5 < ratio < 2.0 for ratio in beside), beside
    assert (WallClock.opened, WallClock.closed) == (17, 16)  # the yardstick's stays


def test_a_wrong_kernel_is_refused_and_its_layer_uploaded_anew(gpu, machine, built):
    stand = stand_on(gpu, machine)
    stand.measure(SPEC.key, built[0], float("inf"), built[0], 1.0)

    with pytest.raises(BuildError, match="of 720 values are wrong"):
        stand.measure(SPEC.key, built[1], float("inf"), built[0], 1.0)
    assert WallClock.opened == WallClock.closed
    assert stand.measure(SPEC.key, built[0], float("inf"), None, 0.0) > 0


def test_one_that_is_far_slower_than_the_best_is_looked_at_once(gpu, machine, built):
    runs = []
    stand = stand_on(gpu, machine)
    seconds = Clock.seconds
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Clock, "seconds", lambda self, ms: runs.append(ms) or seconds(self, ms))
        stand.measure(SPEC.key, built[0], 1e-3, built[0], 1.0)  # said to take 1 s, the best 1 ms
    assert len(runs) == 2


def test_cold_launches_take_copies_in_turn(gpu, built, machine, monkeypatch):
    places = []
    launch = OnMain.launch

    def noted(self, function, pointers, stream):
        structs = [ctypes.cast(each, ctypes.POINTER(arrays.DLTensor)).contents for each in pointers]
        places.append([struct.data for struct in structs])
        launch(self, function, pointers, stream)

    monkeypatch.setattr(on_gpu, "_LEAST_MS", {"cold": 0.1})
    monkeypatch.setattr(on_gpu, "_WARM_UP_MS", 0.1)
    stand = stand_on(gpu, small(machine, 3 * SPEC.bytes), "cold")  # ten copies
    monkeypatch.setattr(OnMain, "launch", noted)
    (times,) = stand.interleave(SPEC.key, built[:1], 3)

    assert all(0 < each < 1e-2 for each in times)
    # Without packing and the check; and without the workspace, of which each stream has its own.
    places = [each[:4] + each[5:] for each in places if len(each) == 6][1:]
    assert len(places) % 10 == 0
    for turn in range(0, len(places), 10):
        assert places[turn : turn + 10] == places[:10]
    for argument in range(5):  # data, filter, bias, residual, out
        assert len({each[argument] for each in places}) == 10
    # Each copy holds the same and is computed right.
    out = [np.frombuffer(ctypes.string_at(each[4], 2 * 6 * 5 * 12 * 4)) for each in places[:10]]
    assert all(np.array_equal(each, out[0]) for each in out)


class Counted(WallClock):
    """Says that a launch takes 2 s and filling 1 MB takes 3 s."""

    filled = 0

    def seconds(self, replays):
        gpu, Counted.filled = self.gpu, 0
        before = len(gpu.launches)
        self.launch(1)
        return 2.0 * (len(gpu.launches) - before) + 3.0 * Counted.filled / 1e6


def test_tiny_layers_are_flushed_once_a_turn_and_its_time_subtracted(
    gpu, built, machine, monkeypatch
):
    fill = OnMain.fill

    def noted(self, target, byte, count, stream):
        Counted.filled += count
        fill(self, target, byte, count, stream)

    monkeypatch.setattr(OnMain, "fill", noted)
    stand = on_gpu.GpuTimer(gpu, small(machine, 64 * SPEC.bytes), "cold", Counted)

    turn = Counted(gpu, stand._clock(SPEC.key, built[0])._replayed.launch, 1).seconds(1)
    assert turn == 2.0 * 128 + 3.0 * 2 * 64 * SPEC.bytes / 1e6
    assert stand.interleave(SPEC.key, built[:1], 2) == [[pytest.approx(2.0)] * 2]


def test_a_flush_that_takes_longer_than_flush_and_kernel_is_an_error(
    gpu, machine, built, monkeypatch
):
    stand = stand_on(gpu, small(machine, 64 * SPEC.bytes), "cold")
    monkeypatch.setattr(Flush, "seconds", lambda _self, _ms: 1.0)

    with pytest.raises(SpoiltError, match="something else uses this GPU"):
        stand.interleave(SPEC.key, built[:1], 1)


def test_how_many_copies_keep_a_layer_out_of_l2(machine):
    def of(spec, cache="cold"):
        return gpu_copies.copies(spec, machine.gpu.l2_bytes, cache)

    middle = ConvSpec.conv2d((1, 56, 56, 256), (1, 1, 256, 64), dtype="float16")
    assert of(middle, "warm") == Copies(1, 0)
    assert of(middle) == Copies(1 + 3 * machine.gpu.l2_bytes // middle.bytes, 0)
    # Stride 2 reads a quarter of the data, the rest displaces nothing.
    strided = ConvSpec.conv2d((4, 56, 56, 256), (1, 1, 256, 64), strides=2, dtype="float16")
    touched = 2 * (4 * 28 * 28 * 256 + 256 * 64 + 4 * 28 * 28 * 64)
    assert of(strided) == Copies(1 + 3 * machine.gpu.l2_bytes // touched, 0)
    tiny = ConvSpec.conv2d((1, 1, 1, 96), (1, 1, 96, 4), dtype="float16")
    assert of(tiny) == Copies(128, 2 * machine.gpu.l2_bytes)
    large = ConvSpec.conv2d((32, 112, 112, 96), (3, 3, 96, 96))
    assert of(large) == Copies(1, 0)


def test_rounds_of_all_kernels_in_turn(gpu, machine, built):
    times = stand_on(gpu, machine).interleave(SPEC.key, [built[0], built[0]], 2)

    assert [len(each) for each in times] == [2, 2]
    assert WallClock.opened == WallClock.closed == 2


def test_an_error_of_cuda_spoils_the_process(gpu, machine, built, monkeypatch):
    def launch(*_arguments):
        raise DeviceError(
            "cudaStreamSynchronize fails: an illegal memory access was encountered\nstack"
        )

    monkeypatch.setattr(OnMain, "launch", launch)
    with pytest.raises(SpoiltError) as raised:
        stand_on(gpu, machine).measure(SPEC.key, built[0], float("inf"), None, 0.0)
    assert str(raised.value).endswith("an illegal memory access was encountered")


def test_a_spoilt_process_is_replaced_before_the_next_question():
    worker = Worker(gpu_stand_rehearsal.Counting, ())
    try:
        answers = [worker.ask(30.0, "ask", harm) for harm in (False, False, True, False)]
    finally:
        worker.close()
    assert [answers[0], answers[1], answers[3]] == [1, 2, 1]
    assert answers[2].text == "an illegal memory access"


def test_peaks_are_those_of_the_data_sheets():
    def tera(name, dtype):
        return gpu_roof.peak(hardware.find_machine(name)[0].gpu, {dtype}) / 1e12

    assert tera("a100", "float16") == pytest.approx(312, rel=0.01)
    assert tera("a100", "float32") == pytest.approx(19.5, rel=0.01)
    assert tera("a100", "int8") == pytest.approx(624, rel=0.01)
    assert tera("t4", "float16") == pytest.approx(65, rel=0.01)
    assert tera("t4", "bfloat16") == tera("t4", "float32") == pytest.approx(8.1, rel=0.01)
    assert tera("a100", "tf32") == pytest.approx(156, rel=0.01)
    assert tera("h100", "tf32") == tera("h100", "float16") / 2
    assert tera("t4", "tf32") == tera("t4", "float32")
    assert tera("h100", "float32") == pytest.approx(67, rel=0.01)
    roof = gpu_roof.roof(hardware.find_machine("h100")[0].gpu, {"float16"})
    assert roof.bandwidth(1) == roof.bandwidth(1 << 40) == 3350e9


def test_addresses_of_the_rehearsal_are_real(gpu):
    room = gpu.empty((8,), "uint8")
    gpu.fill(int(room.data_ptr()) + 2, 0xFF, 3, 0)
    assert arrays.data_address(room.array) == room.data_ptr()
    assert room.array.tolist() == [0, 0, 255, 255, 255, 0, 0, 0]


def batch_of(built, folder):
    """What `tvmconv tune --export` writes, but with kernels for the CPU."""
    paths = sorted({each.library for each in built} | {each.pack_library for each in built})
    (folder / "runtime.so").touch()
    files = [folder / "runtime.so", *map(folder.joinpath, paths)]
    kernels = [
        batches.Kernel("cuda.conv2d.direct", {"number": number}, each.placed(Path()))
        for number, each in enumerate(built)
    ]
    batch = batches.Batch(
        machine=hardware.find_machine("sm_90")[0],
        os=host.operating_system(),
        glibc=None,
        threads=1,
        cache="warm",
        finalists=2,
        rounds=2,
        processes=2,
        runtime="runtime.so",
        roof=None,
        cuda_runtime="runtime.so",
        files={file.name: manifest.file_digest(file) for file in files},
        layers=(batches.LayerKernels(SPEC.key, tuple(kernels)),),
        tvmconv="0",
        tvm_ffi="0",
    )
    batches.write(folder / "c.tar", batch, files)
    return batch


def test_a_batch_is_measured_whatever_one_candidate_does_to_its_process(
    built, tmp_path, monkeypatch
):
    batch = batch_of(built, tmp_path)
    monkeypatch.setattr(
        device, "find", lambda _machine: device.Found(gpu_bundles.H100, 1, "driver 1")
    )
    monkeypatch.setattr(runner.on_gpu, "start", gpu_stand_rehearsal.start)

    batch_measuring.measure(tmp_path / "c.tar", tmp_path / "c.results", lambda *_: None)

    found = batch_results.read(tmp_path / "c.results")
    head = found.header
    assert (head.batch, head.cpu, head.driver) == (batch.name, gpu_bundles.H100.name, "driver 1")
    assert head.peak == gpu_roof.peak(batch.machine.gpu, {"float32"})
    timed = [found.timed[SPEC.key, place] for place in range(4)]
    assert [each.error is None for each in timed] == [True, False, False, True]
    assert "values are wrong" in timed[1].error
    assert "an illegal memory access" in timed[2].error
    final = found.finals[SPEC.key]
    assert final.compared == (0, 3)
    assert [[len(rounds) for rounds in process] for process in final.times] == [[2, 2]] * 2
