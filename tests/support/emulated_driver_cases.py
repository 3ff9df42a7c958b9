"""What the emulated driver must do and refuse; test_emulated_driver.py runs each case in its own process."""

from __future__ import annotations

import ctypes
import os
import sys

from cuda_calls import (
    FRESH,
    ILLEGAL_ADDRESS,
    IMAGE,
    IMAGES,
    INVALID_CONTEXT,
    INVALID_HANDLE,
    INVALID_IMAGE,
    INVALID_VALUE,
    LAUNCH_FAILED,
    MISALIGNED,
    NO_BINARY,
    NOT_FOUND,
    NOT_INITIALIZED,
    NOT_READY,
    ON_DEVICE,
    OUT_OF_MEMORY,
    SEVENS,
    SIZE,
    TIMEOUT,
    TO_DEVICE,
    WORDS,
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
    start,
    stream,
    sync,
)

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
