"""What all these tests need: a server that is always there, and signals that do what they usually do."""

import signal
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="package")
def port() -> Iterator[int]:
    """Return the port of a server with default options, the same one for all tests."""
    from tests.cli.helpers import serving  # noqa: PLC0415 - where there is no POSIX, it skips

    with serving() as server:
        yield server.port


@pytest.fixture(scope="package", autouse=True)
def _usual_signals() -> Iterator[None]:
    """Have processes started with usual signals, even if these tests run in the background or under nohup."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP"):
        numbers.append(signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    for number, action in before.items():
        if action is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    yield
    for number, action in before.items():
        if action is signal.SIG_IGN:
            signal.signal(number, action)
