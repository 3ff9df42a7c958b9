"""What every test relies on."""

import signal

import pytest

# A shell starts jobs in the background with Ctrl-C ignored, and all that they start inherits it: tests that
# interrupt a command would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser):
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write the files in tests/golden that differ from what is made now, in place of failing",
    )


@pytest.fixture
def update_golden(request) -> bool:
    return request.config.getoption("--update-golden")
