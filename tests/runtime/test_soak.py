"""A long life: a million calls from ten thousand threads, with bundles loaded again in between."""

import pytest
from runtime_calls import in_new_process, shared_bundle

SOAK = """
import gc, json, os, sys, threading
import plain_bundle as b
import tvmconv
x, w, _, _ = b.operands(b.TINY)
def state():
    gc.collect()
    pages = int(open("/proc/self/statm").read().split()[1])
    maps = len(open("/proc/self/maps").readlines())
    return len(os.listdir("/proc/self/task")), maps, pages * os.sysconf("SC_PAGE_SIZE")
def layers():
    return [tvmconv.load(sys.argv[1], threads=count)[b.TINY].bind(w) for count in (1, 2)]
expected = layers()[0](x)
wrong = []
def work(serial, parallel):
    for _ in range(96):
        out = serial(x)
    if not (out == expected).all():
        wrong.append(out)
    for _ in range(4):
        out = parallel(x)
    if not (out == expected).all():
        wrong.append(out)
states = []
for turn in range(10):
    for _ in range(25):
        now = layers()
        for _ in range(10):
            crowd = [threading.Thread(target=work, args=now) for _ in range(4)]
            for thread in crowd:
                thread.start()
            for thread in crowd:
                thread.join()
    states.append(state())
assert not wrong
print(json.dumps(states))
"""


@pytest.mark.slow
def test_a_million_calls_from_ten_thousand_threads_leave_nothing_behind():
    states = in_new_process(SOAK, shared_bundle())
    threads, maps, resident = zip(*states, strict=True)
    # The main thread, its worker, the one that calls, its worker; and the last four, not yet reaped.
    # Imported libraries' own threads are in the first state too.
    assert max(threads) <= min(threads) + 4
    assert maps[-1] <= maps[1] + 20  # stacks that the C library keeps for the next thread
    assert resident[-1] <= resident[1] + (8 << 20)
