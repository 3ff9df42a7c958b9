"""How many threads calls use: arguments, variables, limits."""

import pytest

from tvmconv.hardware import host
from tvmconv.runtime import threads
from tvmconv.runtime.threads import most_threads, thread_count

VARIABLES = ("TVMCONV_NUM_THREADS", "TVM_NUM_THREADS", "OMP_NUM_THREADS")


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_cores_are_the_default():
    assert thread_count() == thread_count(None) == host.available_cores()


@pytest.mark.parametrize("name", VARIABLES)
def test_each_variable_is_a_default(monkeypatch, name):
    count = host.available_cores() + 1
    monkeypatch.setenv(name, str(count))
    assert thread_count() == count
    assert thread_count(1) == 1  # the argument goes first


def test_the_first_variable_that_is_set_counts(monkeypatch):
    for count, name in reversed(list(enumerate(VARIABLES, 2))):
        monkeypatch.setenv(name, str(count))
        assert thread_count() == count


@pytest.mark.parametrize(
    ("text", "count"), [("3,2", 3), (" 3 ", 3), ("", None), ("all", None), ("0", None)]
)
def test_what_other_libraries_are_told_may_be_anything(monkeypatch, text, count):
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    assert thread_count() == (count or host.available_cores())


def test_what_other_libraries_are_told_is_cut_to_what_is_allowed(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "100000")
    assert thread_count() == most_threads()


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", "2,1", "100000"])
def test_our_own_variable_must_be_a_number_that_is_allowed(monkeypatch, text):
    monkeypatch.setenv("TVMCONV_NUM_THREADS", text)
    with pytest.raises(ValueError, match="TVMCONV_NUM_THREADS must be"):
        thread_count()


@pytest.mark.parametrize("over", [1, 2000, 2**26, 2**31, 2**64])
def test_more_threads_than_a_multiple_of_the_cores_are_refused(over):
    assert thread_count(most_threads()) == most_threads() == 8 * host.available_cores()
    with pytest.raises(
        ValueError, match=f"threads must be at most {most_threads()}, 8 for each core"
    ):
        thread_count(most_threads() + over)


def test_the_multiple_is_of_the_cores_of_this_process(monkeypatch):
    monkeypatch.setattr(threads.host, "available_cores", lambda: 5)
    assert most_threads() == 40
