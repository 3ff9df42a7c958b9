"""What the emulated driver must do and refuse; test_emulated_driver.py runs each case in its own process."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from pathlib import Path

from cuda_calls import (
    GLOBAL,
    ILLEGAL_ADDRESS,
    ILLEGAL_STATE,
    IMPLICIT,
    INVALID_CONTEXT,
    INVALID_HANDLE,
    INVALID_IMAGE,
    INVALID_VALUE,
    INVALIDATED,
    ISOLATION,
    LAUNCH_FAILED,
    LEGACY,
    MERGE,
    MISALIGNED,
    NO_BINARY,
    NON_BLOCKING,
    NOT_FOUND,
    NOT_INITIALIZED,
    NOT_READY,
    ON_DEVICE,
    OUT_OF_MEMORY,
    THREAD_LOCAL,
    TIMEOUT,
    TO_DEVICE,
    UNJOINED,
    UNMATCHED,
    UNSUPPORTED,
    copy,
    driver,
    fill,
    kernel,
    launch,
    made,
    malloc,
    module,
    need,
    read,
    runtime,
    stream,
)  # fmt: skip

IMAGES = Path(os.environ["EMULATED_IMAGES"])
IMAGE = IMAGES.joinpath("sm_90").read_bytes()
WORDS = 4  # bytes of an element
SIZE = 32 * WORDS
FRESH, SEVENS = b"\xff" * SIZE, b"\x07\x00\x00\x00" * 32


def start():
    need(runtime.cudaSetDevice(0))


def sync(where=LEGACY):
    return runtime.cudaStreamSynchronize(where)


def begin(where, mode=THREAD_LOCAL):
    need(runtime.cudaStreamBeginCapture(where, mode))


def end(where):
    graph = ctypes.c_void_p()
    return runtime.cudaStreamEndCapture(where, ctypes.byref(graph)), graph


# Memory


def case_the_host_cannot_touch_device_memory():
    at = malloc(SIZE)
    assert read(at, SIZE) == FRESH
    print("so far", flush=True)
    ctypes.string_at(at, 1)


def case_memory_has_no_numbers_and_is_aligned():
    for size in (1, 255, 257, 5000):
        at = malloc(size)
        assert at.value % 256 == 0
        assert read(at, size) == b"\xff" * size


def case_copies_and_fills_stay_within_allocations():
    at, host = malloc(SIZE), ctypes.create_string_buffer(2 * SIZE)
    assert copy(at, host, SIZE + 1, TO_DEVICE) == INVALID_VALUE
    assert fill(at, 0, SIZE + 1) == INVALID_VALUE
    assert (
        copy(host, at, SIZE, TO_DEVICE) == INVALID_VALUE
    )  # the direction is not what the addresses are
    need(copy(at, ctypes.create_string_buffer(SEVENS, SIZE), SIZE, TO_DEVICE))
    assert read(at, SIZE) == SEVENS


def case_memory_ends():  # 1 MiB
    most = malloc(1 << 19)
    left = ctypes.c_void_p()
    assert runtime.cudaMalloc(ctypes.byref(left), ctypes.c_size_t((1 << 19) + 1)) == OUT_OF_MEMORY
    assert runtime.cudaGetLastError() == OUT_OF_MEMORY
    assert runtime.cudaGetLastError() == 0
    need(runtime.cudaFree(most))
    assert runtime.cudaFree(most) == INVALID_VALUE
    again = malloc((1 << 19) + 1)
    assert runtime.cudaFree(ctypes.c_void_p(again.value + 256)) == INVALID_VALUE


def case_writing_behind_an_allocation_is_noticed():
    start()
    at = malloc(SIZE - WORDS)
    print("so far", flush=True)
    need(launch(kernel("seven"), at))
    sync()


# Streams


def case_nothing_runs_before_it_is_waited_for():
    start()
    at, one, other = malloc(SIZE), stream(), stream()
    need(launch(kernel("seven"), at, where=one))
    assert read(at, SIZE, other) == FRESH  # streams that do not wait for each other
    need(sync(one))
    assert read(at, SIZE, other) == SEVENS


def case_the_legacy_stream_waits_for_blocking_streams_and_they_for_it():
    start()
    at, blocking, free = malloc(SIZE), stream(0), stream()
    need(fill(at, 1, SIZE, blocking))
    need(copy(at, at, 0, ON_DEVICE))
    assert read(at, SIZE) == b"\x01" * SIZE
    need(fill(at, 2, SIZE))
    assert read(at, SIZE, free) == b"\x01" * SIZE
    assert read(at, SIZE, blocking) == b"\x02" * SIZE


def case_events_order_streams():
    start()
    at, one, other = malloc(SIZE), stream(), stream()
    before, after = made(runtime.cudaEventCreate), made(runtime.cudaEventCreate)
    taken = ctypes.c_float()
    assert runtime.cudaEventElapsedTime(ctypes.byref(taken), before, after) == INVALID_HANDLE
    need(runtime.cudaEventRecord(before, one))
    need(launch(kernel("seven"), at, where=one))
    need(runtime.cudaEventRecord(after, one))
    assert runtime.cudaEventElapsedTime(ctypes.byref(taken), before, after) == NOT_READY
    need(runtime.cudaStreamWaitEvent(other, after, 0))
    assert read(at, SIZE, other) == SEVENS
    need(runtime.cudaEventElapsedTime(ctypes.byref(taken), before, after))
    assert taken.value == 1  # milliseconds, for whatever a kernel does


def case_freeing_waits():
    start()
    at, one = malloc(SIZE), stream()
    other = malloc(SIZE)
    need(launch(kernel("seven"), at, where=one))
    need(runtime.cudaFree(other))
    assert read(at, SIZE, stream()) == SEVENS


def case_handles_must_live():
    start()
    gone = stream()
    need(runtime.cudaStreamDestroy(gone))
    assert sync(gone) == INVALID_HANDLE
    event = made(runtime.cudaEventCreate)
    need(runtime.cudaEventDestroy(event))
    assert runtime.cudaEventSynchronize(event) == INVALID_HANDLE


# Captures


def case_captured_work_runs_in_replays_alone():
    start()
    at, one, seven = malloc(SIZE), stream(), kernel("seven")
    begin(one)
    need(launch(seven, at, where=one))
    status, graph = end(one)
    need(status)
    need(sync(one))
    assert read(at, SIZE, one) == FRESH
    replayed = made(runtime.cudaGraphInstantiate, graph, ctypes.c_ulonglong(0))
    need(runtime.cudaGraphDestroy(graph))
    for _ in range(2):
        need(fill(at, 0, SIZE, one))
        need(runtime.cudaGraphLaunch(replayed, one))
        assert read(at, SIZE, one) == SEVENS
    need(runtime.cudaGraphExecDestroy(replayed))
    assert runtime.cudaGraphLaunch(replayed, one) == INVALID_VALUE


def refused_in_captures(at, call, status=UNSUPPORTED, flags=NON_BLOCKING):
    one = stream(flags)
    begin(one)
    assert call(one) == status
    state = ctypes.c_int()
    need(runtime.cudaStreamIsCapturing(one, ctypes.byref(state)))
    assert state.value == 2
    assert fill(at, 0, 1, one) == INVALIDATED
    assert end(one)[0] == INVALIDATED
    need(fill(at, 0, 1, one))


def case_captures_forbid():
    start()
    at = malloc(SIZE)
    scratch, host = ctypes.c_void_p(), ctypes.create_string_buffer(SIZE)
    event = made(runtime.cudaEventCreate)
    need(runtime.cudaEventRecord(event, LEGACY))
    refused_in_captures(at, lambda _: runtime.cudaMalloc(ctypes.byref(scratch), ctypes.c_size_t(1)))
    refused_in_captures(at, lambda _: runtime.cudaFree(at))
    refused_in_captures(at, lambda _: driver.cuModuleLoadData(ctypes.byref(scratch), IMAGE))
    refused_in_captures(at, sync)
    refused_in_captures(at, lambda _: runtime.cudaDeviceSynchronize())
    refused_in_captures(at, lambda one: copy(host, at, SIZE, 2, one))
    refused_in_captures(at, lambda one: runtime.cudaStreamWaitEvent(one, event, 0), ISOLATION)
    refused_in_captures(at, lambda _: fill(at, 0, 1), IMPLICIT, flags=0)
    refused_in_captures(at, lambda _: sync(), IMPLICIT, flags=0)


def case_captures_let_pass():
    start()
    at, one, other = malloc(SIZE), stream(), stream()
    assert runtime.cudaStreamBeginCapture(LEGACY, THREAD_LOCAL) == UNSUPPORTED
    begin(one)
    assert runtime.cudaStreamBeginCapture(one, THREAD_LOCAL) == ILLEGAL_STATE
    need(
        fill(at, 1, SIZE)
    )  # the legacy stream, which a stream that does not block it knows nothing of
    assert read(at, SIZE, other) == FRESH  # a wait for another stream
    need(end(one)[0])
    assert end(one)[0] == ILLEGAL_STATE


def case_a_capture_forbids_other_threads_by_its_mode():
    start()
    one, found = stream(), []

    def elsewhere():
        need(runtime.cudaSetDevice(0))
        scratch = ctypes.c_void_p()
        found.append(runtime.cudaMalloc(ctypes.byref(scratch), ctypes.c_size_t(1)))

    for mode, status in ((THREAD_LOCAL, 0), (GLOBAL, UNSUPPORTED)):
        begin(one, mode)
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert found[-1] == status
        assert end(one)[0] == (INVALIDATED if status else 0)


def case_a_legacy_stream_beside_a_capture_gives_no_state():
    start()
    one, state = stream(0), ctypes.c_int()
    begin(one)
    assert runtime.cudaStreamIsCapturing(LEGACY, ctypes.byref(state)) == IMPLICIT
    need(end(one)[0])  # the capture goes on


def case_captures_fork_and_join():
    start()
    at, one, other = malloc(SIZE), stream(), stream()
    forked, joined = made(runtime.cudaEventCreate), made(runtime.cudaEventCreate)
    begin(one)
    need(fill(at, 1, SIZE, one))
    need(runtime.cudaEventRecord(forked, one))
    need(runtime.cudaStreamWaitEvent(other, forked, 0))
    need(fill(at, 2, WORDS, other))
    need(runtime.cudaEventRecord(joined, other))
    assert runtime.cudaEventSynchronize(joined) != 0
    assert end(other)[0] == UNMATCHED
    assert end(one)[0] == INVALIDATED

    for join in (True, False):
        begin(one)
        need(fill(at, 1, SIZE, one))
        need(runtime.cudaEventRecord(forked, one))
        need(runtime.cudaStreamWaitEvent(other, forked, 0))
        need(fill(at, 2, WORDS, other))
        need(runtime.cudaEventRecord(joined, other))
        if join:
            need(runtime.cudaStreamWaitEvent(one, joined, 0))
        status, graph = end(one)
        assert status == (0 if join else UNJOINED)
        if join:
            replayed = made(runtime.cudaGraphInstantiate, graph, ctypes.c_ulonglong(0))
            need(runtime.cudaGraphLaunch(replayed, one))
            assert read(at, SIZE, one) == b"\x02" * WORDS + b"\x01" * (SIZE - WORDS)

    begin(one)
    need(runtime.cudaEventRecord(forked, one))
    begin(other)
    assert runtime.cudaStreamWaitEvent(other, forked, 0) == MERGE


# Launches


def case_launches_are_checked():
    start()
    at, seven = malloc(SIZE), kernel("seven")  # of at most 64 threads
    for bad in (
        {"block": (96, 1, 1)},
        {"block": (0, 1, 1)},
        {"block": (1, 1, 65)},
        {"grid": (1, 65536, 1)},
        {"grid": (0, 1, 1)},
        {"shared": (48 << 10) + 1},
    ):
        assert launch(seven, at, **bad) == INVALID_VALUE, bad
    need(launch(seven, at))
    gone = ctypes.c_void_p()
    name = b"eight"
    assert driver.cuModuleGetFunction(ctypes.byref(gone), module(), name) == NOT_FOUND


def case_clusters_divide_grids():
    start()
    at, pair = malloc(SIZE), kernel("pair")
    assert launch(pair, at, grid=(3, 1, 1)) == INVALID_VALUE
    need(launch(pair, at, grid=(4, 1, 1)))
    assert read(at, SIZE) == SEVENS[: 4 * WORDS] + FRESH[4 * WORDS :]


def case_shared_memory_beyond_48_kb_is_asked_for():
    start()
    at, shared = malloc(SIZE), kernel("shared")
    size = 100 << 10
    assert launch(shared, at, shared=size) == INVALID_VALUE
    assert driver.cuFuncSetAttribute(shared, 8, (227 << 10) + 1) == INVALID_VALUE
    need(driver.cuFuncSetAttribute(shared, 8, size))
    need(launch(shared, at, shared=size))
    assert read(at, WORDS) == b"\xff" * WORDS  # no numbers either
    need(launch(shared, at, shared=0))  # it reads what it has not
    assert sync() == ILLEGAL_ADDRESS


def case_grids_and_blocks_are_those_of_the_launch():
    start()
    at = malloc(4 * 3 * 2 * 32 * WORDS)
    need(launch(kernel("number"), at, grid=(4, 3, 2), block=(4, 4, 2)))
    words = memoryview(read(at, 4 * 3 * 2 * 32 * WORDS)).cast("i")
    assert words.tolist() == list(range(4 * 3 * 2 * 32))


def spoilt(name, error, *pointers):
    need(launch(kernel(name), *pointers))
    assert sync() == error
    scratch = ctypes.c_void_p()
    assert runtime.cudaMalloc(ctypes.byref(scratch), ctypes.c_size_t(1)) == error
    assert driver.cuModuleLoadData(ctypes.byref(scratch), IMAGE) == error
    assert runtime.cudaSetDevice(0) == error
    assert [runtime.cudaGetLastError() for _ in range(2)] == [error, error]


def case_an_illegal_address_spoils_the_context():
    start()
    spoilt("seven", ILLEGAL_ADDRESS, ctypes.c_void_p(malloc(SIZE).value + (1 << 20)))


def case_freed_memory_is_an_illegal_address():
    start()
    at = malloc(SIZE)
    need(runtime.cudaFree(at))
    spoilt("seven", ILLEGAL_ADDRESS, at)


def case_memory_of_the_host_is_an_illegal_address():
    start()
    spoilt("seven", ILLEGAL_ADDRESS, ctypes.c_void_p(0))


def case_a_deadlock_spoils_the_context():
    start()
    spoilt("deadlock", TIMEOUT, malloc(SIZE))


def case_a_misaligned_access_spoils_the_context():
    start()
    spoilt("vector", MISALIGNED, ctypes.c_void_p(malloc(SIZE).value + WORDS))


def case_a_trap_spoils_the_context():
    start()
    spoilt("fails", LAUNCH_FAILED, malloc(SIZE))


# Modules and devices


def case_images_are_for_their_architectures():  # sm_80, sm_86, sm_90, sm_75
    for index, arch, status in (
        (0, "sm_90", NO_BINARY),
        (0, "sm_80", 0),
        (1, "sm_80", 0),  # of the same major number
        (2, "sm_80", 0),  # from its PTX
        (3, "sm_80", NO_BINARY),
    ):
        need(runtime.cudaSetDevice(index))
        image = IMAGES.joinpath(arch).read_bytes()
        found = ctypes.c_void_p()
        assert driver.cuModuleLoadData(ctypes.byref(found), image) == status, (index, arch)
    assert driver.cuModuleLoadData(ctypes.byref(found), b"no image" * 8) == INVALID_IMAGE


def case_devices_are_apart():  # two of them
    start()
    here, seven, one = malloc(SIZE), kernel("seven"), stream()
    need(runtime.cudaSetDevice(1))
    assert launch(seven, here, where=one) == INVALID_HANDLE
    assert launch(seven, here) == INVALID_HANDLE
    need(launch(kernel("seven"), here))
    assert sync() == ILLEGAL_ADDRESS  # no access to the other's memory
    start()
    need(launch(seven, here))
    assert read(here, SIZE) == SEVENS  # which goes on
    assert runtime.cudaSetDevice(2) == 101


def case_a_thread_without_a_device_has_no_context():
    found = ctypes.c_void_p()
    assert driver.cuModuleLoadData(ctypes.byref(found), IMAGE) == INVALID_CONTEXT


def case_a_child_of_a_fork_has_no_cuda():
    start()
    child = os.fork()
    if child == 0:
        scratch = ctypes.c_void_p()
        status = runtime.cudaMalloc(ctypes.byref(scratch), ctypes.c_size_t(1))
        os._exit(0 if status == NOT_INITIALIZED else 1)
    assert os.waitpid(child, 0)[1] == 0


if __name__ == "__main__":
    globals()[sys.argv[1]]()
