"""What all these tests need: a server that is always there, and signals that do what they usually do."""

import signal
from collections.abc import Iterator

import pytest

from tests.cli.helpers import serving


@pytest.fixture(scope="package")
def port() -> Iterator[int]:
    """Return the port of a server with default options, the same one for all tests."""
    with serving() as server:
        yield server.port


@pytest.fixture(scope="package", autouse=True)
def _usual_signals() -> Iterator[None]:
    """Have processes started with usual signals, even if these tests run in the background or under nohup."""
    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)}
    for number, action in before.items():
        if action is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    yield
    for number, action in before.items():
        if action is signal.SIG_IGN:
            signal.signal(number, action)
