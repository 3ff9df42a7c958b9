"""What captures and graphs do and forbid; test_emulated_driver.py runs each case in its own process."""

from __future__ import annotations

import ctypes
import sys
import threading

from cuda_calls import (
    FRESH,
    GLOBAL,
    ILLEGAL_STATE,
    IMAGE,
    IMPLICIT,
    INVALID_VALUE,
    INVALIDATED,
    ISOLATION,
    LEGACY,
    MERGE,
    NON_BLOCKING,
    SEVENS,
    SIZE,
    THREAD_LOCAL,
    UNJOINED,
    UNMATCHED,
    UNSUPPORTED,
    WORDS,
    copy,
    driver,
    fill,
    kernel,
    launch,
    made,
    malloc,
    need,
    read,
    runtime,
    start,
    stream,
    sync,
)


def begin(where, mode=THREAD_LOCAL):
    need(runtime.cudaStreamBeginCapture(where, mode))


def end(where):
    graph = ctypes.c_void_p()
    return runtime.cudaStreamEndCapture(where, ctypes.byref(graph)), graph


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

    def fork():
        begin(one)
        need(fill(at, 1, SIZE, one))
        need(runtime.cudaEventRecord(forked, one))
        need(runtime.cudaStreamWaitEvent(other, forked, 0))
        need(fill(at, 2, WORDS, other))
        need(runtime.cudaEventRecord(joined, other))

    fork()
    assert runtime.cudaEventSynchronize(joined) != 0
    assert end(other)[0] == UNMATCHED
    assert end(one)[0] == INVALIDATED

    for join in (True, False):
        fork()
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


if __name__ == "__main__":
    globals()[sys.argv[1]]()
