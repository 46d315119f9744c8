"""The kernel is asked, where it answers, whether everything that was sent is acknowledged (PROTOCOL.md, S2.7)."""

import select
import socket
import sys
from collections.abc import Callable
from contextlib import suppress

import pytest

from .helpers import PATIENCE, adapter

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="nobody can tell")


class Transport:
    """As much of a transport as the adapter needs for this."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def get_extra_info(self, name: str) -> socket.socket:
        """Return the socket."""
        assert name == "socket"
        return self._sock


def ask_blocking(sock: socket.socket) -> bool:
    """Ask as `greet` does."""
    return bool(adapter("def greet(")["is_in_flight"](sock))


def ask_asyncio(sock: socket.socket) -> bool:
    """Ask as `GreeterProtocol` does."""
    kind = adapter("class GreeterProtocol(")["GreeterProtocol"]
    protocol = kind.__new__(kind)
    protocol._transport = Transport(sock)
    return bool(protocol._is_in_flight())


@pytest.mark.parametrize("ask", [ask_blocking, ask_asyncio])
def test_tcp(ask: Callable[[socket.socket], bool]) -> None:
    """What the peer's kernel has no room for is not acknowledged."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    with ours, theirs:
        assert not ask(ours)
        ours.settimeout(0.0)
        with suppress(BlockingIOError):
            while True:
                ours.send(bytes(65536))
        assert ask(ours)
        while ask(ours):
            if select.select([theirs], [], [], 0.001)[
                0
            ]:  # it may acknowledge the last bytes a little later
                theirs.recv(65536)


@pytest.mark.parametrize("ask", [ask_blocking, ask_asyncio])
def test_unix(ask: Callable[[socket.socket], bool]) -> None:
    """What was sent to a Unix socket has arrived, though its peer has not read it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(PATIENCE)
        ours.sendall(b"Welcome!\n")
        assert not ask(ours)
