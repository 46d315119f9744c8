import signal
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="package")
def port() -> Iterator[int]:
    """Return the port of a server with default options, the same one for all tests."""
    from tests.support.processes import serving  # noqa: PLC0415 - it needs POSIX

    with serving() as server:
        yield server.port


@pytest.fixture(scope="package", autouse=True)
def _usual_signals() -> None:
    """Have processes started with usual signals, even in the background or under nohup."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, signal.SIGINT)
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
