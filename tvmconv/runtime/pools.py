"""Which threads a kernel's parallel loops run on: at most two pools of TVM's in a process.

TVM keeps a pool of worker threads for each calling thread, which a server with a thread for every request
cannot pay. Here the main thread has a pool, and so has one more thread, which runs the parallel kernels of
all others, one after the other; handing over costs 8 to 15 us. Calls on one thread need neither.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import threading
from collections.abc import Callable

from tvmconv import errors
from tvmconv.runtime import abi

# TVM's ThreadGroup::kSpecifyThreadShareAllCore: the mode that uses as many threads as it is told
# also on CPUs with big and little cores, where others count only the cores of one kind.
_SHARE_ALL_CORES = -3
CONFIGURE = "runtime.config_threadpool"
_SET_CONCURRENCY = "_ZN3tvm7runtime9threading17SetMaxConcurrencyEi"  # SetMaxConcurrency(int)

# Idle workers look for work that many times, giving their core away each time, and then sleep. TVM's 300000
# keep a core busy for 0.1 s a call, and a process from ending for 3 ms each where others want the core.
# Calls back to back are as fast from 50 on; with 0 each wakes its workers, which costs 5 us.
_SPINS = "100"


class _PerThread(threading.local):
    """What TVM was last told in this Python thread; 0 threads where it was not told anything.

    A pool has as many threads as were asked for first, for good; 0 is no pool.
    """

    threads = 0
    pool = 0
    lost_pool = False

    def __init__(self) -> None:
        self.may_have_pool = threading.get_ident() == threading.main_thread().ident


current = _PerThread()


def set_environment() -> None:
    """Tell TVM, which reads it when it starts its first pool, what the user has not told it."""
    # TVM pins the calling thread to some cores when it starts its pool, and with it all that the
    # process does next in that thread. A user who wants that sets the variable.
    os.environ.setdefault("TVM_BIND_THREADS", "0")
    os.environ.setdefault("TVM_THREAD_POOL_SPIN_COUNT", _SPINS)


def may_call(count: int) -> bool:
    """Whether this Python thread itself may call kernels on ``count`` threads; if so, it can from now on.

    Where it may not, `call_elsewhere` does.
    """
    if current.threads == count:  # telling TVM again takes longer than a small kernel
        return True
    if count > 1:
        if current.lost_pool or not current.may_have_pool:
            return False
        if 0 < current.pool < count:
            return False
    use_threads(count)
    return True


def use_threads(count: int) -> None:
    """Let kernels that this Python thread calls from now on run on ``count`` threads.

    With 1, kernels run in the calling thread and no pool is started. With more, this thread gets a pool of
    its own, which ends with it; later calls on more threads than that run on these.
    """
    if count == 1 or current.lost_pool:
        # Not through config_threadpool: that creates the pool.
        _set_concurrency()(1)
    else:
        cores = sorted(os.sched_getaffinity(0))
        cpus = [str(cores[index % len(cores)]) for index in range(count)]
        strings = abi.required_function("ffi.Array")(*cpus)
        abi.required_function(CONFIGURE)(_SHARE_ALL_CORES, count, strings)
        current.pool = current.pool or count
    current.threads = count


def call(count: int, function: Callable[[], object]) -> None:
    """Call a kernel on ``count`` threads: in this thread if it may, else in the one that calls for others."""
    if may_call(count):
        function()
    else:
        call_elsewhere(count, function)


def call_elsewhere(count: int, function: Callable[[], object]) -> None:
    """Call a kernel on ``count`` threads from a Python thread that has no pool, and wait for it."""
    global _caller
    job = _Job(count, function)
    try:
        with _starting:
            if _caller is None or _caller.threads < count:
                old, _caller = _caller, _Caller(count)
                if old is not None:
                    old.end()
            _caller.add(job)
    except RuntimeError:  # the system grants no more threads: this one has to do
        use_threads(1)
        function()
    else:
        job.wait()


class _Job:
    """A call that another thread makes."""

    def __init__(self, count: int, function: Callable[[], object]) -> None:
        self.count = count
        self.function = function
        self.error: BaseException | None = None
        self.over = False
        self.signal = threading.Lock()
        self.signal.acquire()

    def run(self) -> None:
        try:
            if current.threads != self.count:
                use_threads(self.count)
            self.function()
        except BaseException as error:
            self.error = error
        self.over = True
        self.signal.release()

    def wait(self) -> None:
        try:
            self.signal.acquire()
        finally:
            # After an interrupt too: until it is over, the kernel writes to the caller's arrays.
            while not self.over:
                self.signal.acquire(timeout=0.01)
        if self.error is not None:
            raise self.error


class _Caller:
    """The thread that calls the parallel kernels of threads without a pool, in their order.

    Its pool has ``threads`` threads; where more are needed, another takes its place.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        import queue  # here, because most processes need no other thread

        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        threading.Thread(target=self._serve, name="tvmconv-caller", daemon=True).start()

    def add(self, job: _Job) -> None:
        self._jobs.put(job)

    def end(self) -> None:
        """End the thread, and with it its pool, behind the jobs that wait."""
        self._jobs.put(None)

    def _serve(self) -> None:
        # Threads inherit the cores of the one that starts them, which may have pinned itself to one.
        with contextlib.suppress(OSError):  # sandboxes may forbid it
            os.sched_setaffinity(0, os.sched_getaffinity(os.getpid()))
        while (job := self._jobs.get()) is not None:
            job.run()
            job = None  # and the arrays that it keeps alive


_starting = threading.RLock()
_caller: _Caller | None = None


@functools.cache
def _set_concurrency() -> Callable[[int], None]:
    try:
        return ctypes.CFUNCTYPE(None, ctypes.c_int)((_SET_CONCURRENCY, ctypes.CDLL(None)))
    except AttributeError as error:
        raise errors.BundleError(
            "the libtvm_runtime loaded in this process is not the one this package works with; "
            "load the bundle in a process that has not imported another version of tvm"
        ) from error


def _after_fork() -> None:
    """Remember, in a forked child, that the threads of pools stayed behind in the parent.

    A parallel kernel would wait for them forever: those of this thread are called by another one.
    """
    global _starting, _caller
    _starting, _caller = threading.RLock(), None
    current.threads = 0
    current.lost_pool = current.pool > 0


os.register_at_fork(after_in_child=_after_fork)
