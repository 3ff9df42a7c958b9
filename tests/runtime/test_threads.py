"""Threads: of Python, of TVM and of the processor; and what a call costs."""

import sys
import threading
import time
import timeit

import numpy as np
import pytest
from plain_bundle import LARGE, PACKED, RESIDUAL, TINY, assert_right, operands
from runtime_calls import in_new_process, shared_bundle

from tvmconv.runtime import load


@pytest.fixture(scope="module")
def path():
    return shared_bundle()


@pytest.fixture(scope="module")
def library(path):
    return load(path)


def test_calls_from_several_python_threads(path):
    workers, turns = 4, 300
    jobs = []
    for spec in (TINY, PACKED, RESIDUAL, LARGE):
        _, w, bias, _ = operands(spec)
        layers = [load(path, threads=count)[spec].bind(w, bias) for count in (1, 2)]
        # Every thread has inputs of its own, so a result that another thread's call got shows.
        inputs = [operands(spec, seed)[::3] for seed in range(workers)]
        expected = [layers[0](x, residual) for x, residual in inputs]
        for result, (x, residual) in zip(expected, inputs, strict=True):
            assert_right(spec, result, x, w, bias, residual)
        jobs.append((layers, inputs, expected, 10 if spec is LARGE else turns))
    failures = []

    def work(number):
        try:
            for layers, inputs, expected, times in jobs:
                for turn in range(times):
                    out = np.empty_like(expected[number])
                    layers[turn % 2](*inputs[number], out)
                    np.testing.assert_array_equal(out, expected[number])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(workers)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # as many chances to be interrupted between two steps as possible
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert failures == []


def test_calls_release_the_global_lock(library):
    x, w, _, _ = operands(LARGE)
    layer = library[LARGE].bind(w)
    running = threading.Event()
    stop = threading.Event()
    overlapping = 0
    inside = False

    def watch():
        nonlocal overlapping
        running.set()
        while not stop.is_set():
            overlapping += inside
            time.sleep(0)  # gives the lock back

    watcher = threading.Thread(target=watch)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)  # from here on only a released lock lets the watcher run
    try:
        watcher.start()
        running.wait()
        for _ in range(20):
            inside = True
            layer(x)
            inside = False
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        watcher.join()
    assert overlapping > 0


@pytest.mark.parametrize("wrong", [0, -1])
def test_a_thread_count_must_be_positive(path, wrong):
    with pytest.raises(ValueError, match="threads must be at least 1"):
        load(path, threads=wrong)


@pytest.mark.parametrize("wrong", ["2", 1.0, True])
def test_a_thread_count_must_be_an_int(path, wrong):
    with pytest.raises(TypeError, match="threads must be None or an int"):
        load(path, threads=wrong)


THREADS = """
import json, os, sys
import plain_bundle as b
import tvmconv
def state():
    return len(os.listdir("/proc/self/task")), sorted(os.sched_getaffinity(0))
x, w, _, _ = b.operands(b.LARGE)
states = []
for threads in json.loads(sys.argv[2]):
    library = tvmconv.load(sys.argv[1], threads=threads)
    states = states or [state()]
    b.assert_right(b.LARGE, library[b.LARGE](x, w), x, w)
    states.append(state())
print(json.dumps(states))
"""


def test_one_thread_starts_no_pool_and_more_start_one(path):
    before, one, one_again, three, back = in_new_process(THREADS, path, [1, 1, 3, 1])
    assert one == one_again == before
    assert three[0] == before[0] + 2
    assert three[1] == back[1] == before[1]  # nobody was pinned


def test_the_users_own_binding_is_respected(path):
    code = "import os, json, sys, tvmconv; tvmconv.load(sys.argv[1]);" + (
        "print(json.dumps(os.environ['TVM_BIND_THREADS']))"
    )
    assert in_new_process(code, path) == "0"
    kept = "import os; os.environ['TVM_BIND_THREADS'] = '1';" + code
    assert in_new_process(kept, path) == "1"


FORK = """
import json, os, sys, threading
import plain_bundle as b
import tvmconv
library = tvmconv.load(sys.argv[1], threads=2)
def check():
    x, w, _, _ = b.operands(b.LARGE)
    b.assert_right(b.LARGE, library[b.LARGE](x, w), x, w)
check()
child = os.fork()
if child == 0:
    check()
    worker = threading.Thread(target=check)
    worker.start()
    worker.join()
    os._exit(7)
print(json.dumps(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])))
"""


def test_a_forked_child_can_compute(path):
    assert in_new_process(FORK, path) == 7


@pytest.mark.slow
def test_a_call_costs_microseconds(path):
    x, w, _, _ = operands(TINY)
    layer = load(path, threads=1)[TINY].bind(w)
    out = layer(x)
    function, number = layer._frames[0][3], 20_000
    whole = min(timeit.repeat(lambda: layer(x, out=out), number=number, repeat=7)) / number
    bare = min(timeit.repeat(function, number=number, repeat=7)) / number
    print(f"call {whole * 1e6:.2f} us, of it {bare * 1e6:.2f} us in the compiled function")
    assert whole - bare < 15e-6  # 1.7 to 2.6 us on a quiet 2.7 GHz core
