"""What runs in a thread of its own comes back, also as an error, also where there are no threads."""

import threading

import pytest

from tvmconv.bundle.background import Background


def test_a_result_and_an_error_come_back():
    caller = threading.get_ident()

    with Background(threading.get_ident) as made:
        pass
    assert made.result() != caller
    with pytest.raises(ZeroDivisionError):
        Background(lambda: 1 // 0).result()


def test_it_has_ended_when_what_is_done_meanwhile_fails():
    ended = threading.Event()
    wait = threading.Event()

    def fail_meanwhile():
        with Background(lambda: wait.wait() and ended.set()):
            wait.set()
            raise KeyError

    with pytest.raises(KeyError):
        fail_meanwhile()
    assert ended.is_set()


def test_a_system_that_grants_no_thread_runs_it_here(monkeypatch):
    def refuse(_thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)

    assert Background(threading.get_ident).result() == threading.get_ident()
