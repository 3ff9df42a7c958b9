"""Pools of threads: how many there are, what they cost when idle, and that a process can end."""

import os
import subprocess
import sys
import time

import pytest
from runtime_calls import in_new_process, shared_bundle

COMMON = """
import json, os, sys, threading, time
import numpy as np
import plain_bundle as b
import tvmconv
def tasks():
    return len(os.listdir("/proc/self/task"))
def settled(most):
    '''Wait: join returns before the system has reaped a thread.'''
    until = time.monotonic() + 10
    while tasks() > most and time.monotonic() < until:
        time.sleep(0.01)
    return tasks()
x, w, _, _ = b.operands(b.LARGE)
def layer(threads):
    return tvmconv.load(sys.argv[1], threads=threads)[b.LARGE].bind(w)
def in_thread(function, *arguments):
    thread = threading.Thread(target=function, args=arguments)
    thread.start()
    thread.join()
"""


@pytest.fixture(scope="module")
def path():
    return shared_bundle()


SHORT = """
before, call, most = tasks(), layer(3), 0
for _ in range(100):
    in_thread(call, x)
    most = max(most, tasks())
print(json.dumps([before, most]))
"""


def test_threads_that_end_leave_none_behind(path):
    before, most = in_new_process(COMMON + SHORT, path)
    # The main thread's two workers, which packed; the one that calls, and its two; the latest of the
    # hundred, and the one before where the system has not reaped it yet.
    assert most <= before + 2 + 3 + 2


CROWD = """
before, call, start = tasks(), layer(2), threading.Barrier(41)
expected = call(x)
def work():
    start.wait()
    for _ in range(20):
        np.testing.assert_array_equal(call(x), expected)
crowd = [threading.Thread(target=work) for _ in range(40)]
for thread in crowd:
    thread.start()
start.wait()
while_running = tasks()
for thread in crowd:
    thread.join()
print(json.dumps([before, while_running, settled(before + 3)]))
"""


def test_threads_share_a_pool_while_they_run(path):
    before, while_running, after = in_new_process(COMMON + CROWD, path)
    # The main thread's worker; the one that calls for all others, and its worker.
    assert while_running <= before + 40 + 3
    assert after == before + 3


ERRORS = """
from tvmconv.runtime import pools
layer(2)
def fail():
    raise ZeroDivisionError("a", 1)
seen = []
def work():
    try:
        pools.call_elsewhere(2, fail)
    except ZeroDivisionError as error:
        seen.append(error.args)
    b.assert_right(b.LARGE, layer(2)(x), x, w)
    seen.append("computes")
in_thread(work)
print(json.dumps(seen))
"""


def test_an_error_comes_to_the_thread_that_asked(path):
    assert in_new_process(COMMON + ERRORS, path) == [["a", 1], "computes"]


GROWING = """
states = []
def work():
    for threads, most in ((2, 1), (4, 5), (6, 7), (3, 7), (1, 7)):
        b.assert_right(b.LARGE, layer(threads)(x), x, w)
        states.append(settled(before + most))
before = tasks()
work()
print(json.dumps([state - before for state in states]))
"""


def test_a_call_on_more_threads_than_the_pool_has_gets_them(path):
    # The main thread's worker; the thread that calls with three workers, then with five.
    assert in_new_process(COMMON + GROWING, path) == [1, 1 + 4, 1 + 6, 1 + 6, 1 + 6]


PINNED = """
call = layer(2)
cores = os.sched_getaffinity(0)
def work():
    os.sched_setaffinity(0, {min(cores)})
    call(x)
in_thread(work)
found = [sorted(os.sched_getaffinity(int(task))) for task in os.listdir("/proc/self/task")]
print(json.dumps([found, sorted(cores)]))
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="lacks a second core")
def test_a_thread_on_one_core_does_not_keep_all_others_there(path):
    found, cores = in_new_process(COMMON + PINNED, path)
    assert len(found) >= 3
    assert all(each == cores for each in found)


IDLE = """
call = layer(2)
out = call(x)
start = time.process_time()
for _ in range(10):
    call(x, out=out)
    time.sleep(0.1)
print(json.dumps(time.process_time() - start))
"""


def test_workers_without_work_sleep(path):
    assert in_new_process(COMMON + IDLE, path) < 0.3  # TVM's own setting: 0.9


def test_the_users_own_spinning_is_respected(path):
    code = COMMON + "layer(2);print(json.dumps(os.environ['TVM_THREAD_POOL_SPIN_COUNT']))"
    assert in_new_process(code, path, TVM_THREAD_POOL_SPIN_COUNT="7") == "7"


EXIT = """
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
call = layer(8)
call(x)
in_thread(call, x)
print(json.dumps(time.time()), flush=True)
"""


def test_a_process_ends_soon_with_busy_neighbours(path):
    core = min(os.sched_getaffinity(0))
    hog = f"import os; os.sched_setaffinity(0, {{{core}}})\nwhile True: pass"
    hogs = [subprocess.Popen([sys.executable, "-c", hog]) for _ in range(2)]
    try:
        # On a busy core another process may take its turn just then: the best of three.
        seconds = []
        for _ in range(3):
            last = in_new_process(COMMON + EXIT, path)
            seconds.append(time.time() - last)
    finally:
        for process in hogs:
            process.kill()
            process.wait()
    assert min(seconds) < 1  # 0.3; with TVM's own setting 30 and more


FORKED = """
def call(x):
    return layer(2)(x)
if sys.argv[2] == "main":
    call(x)
in_thread(call, x)
child = os.fork()
if child == 0:
    b.assert_right(b.LARGE, call(x), x, w)
    in_thread(call, x)
    print(json.dumps(tasks()), flush=True)
    if sys.argv[2] == "main":
        os._exit(0)
    sys.exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


def test_a_forked_child_computes_on_several_threads(path):
    # The main thread, the one that calls for it, its worker, and a thread of Python's that is still ending.
    assert in_new_process(COMMON + FORKED, path, "main") in (3, 4)


def test_a_child_of_a_process_whose_main_thread_has_no_pool_can_end(path):
    # A pool of the main thread, which may have one in the child, and that of the other.
    assert in_new_process(COMMON + FORKED, path, "other") in (4, 5)  # or one of Python's still ends


LIMITED = """

call = layer(2)
out = np.empty_like(call.kernel(x, w))
start = threading.Thread.start
def refuse(thread):
    raise RuntimeError("can't start new thread")
def work():
    threading.Thread.start = refuse
    b.assert_right(b.LARGE, call(x), x, w)
    threading.Thread.start = start
    print(json.dumps("computed"))
in_thread(work)
"""


def test_a_system_that_grants_no_more_threads_computes_on_one(path):
    assert in_new_process(COMMON + LIMITED, path) == "computed"
