"""A server that is late reads before it judges (PROTOCOL.md, T3)."""

import math
import select
import socket
import threading
import time
from typing import Any

import pytest

from greeter_core import Framing, ServerConfig

from .helpers import PATIENCE, AsyncioServer, BlockingServer, dialogue, receive_all, serving

LATE = 0.1  # seconds

cases = pytest.mark.parametrize(
    ("config", "before", "late", "said"),
    [
        # quiet is due, between the halves of a name
        (
            ServerConfig(pace=PATIENCE, quiet=0.02),
            b"Grace Hop",
            b"per\nexit\n",
            dialogue(b"Grace Hopper"),
        ),
        # idle is due, and a name is there
        (
            ServerConfig(framing=Framing.LINES, idle_timeout=0.1),
            b"",
            b"Ada\nexit\n",
            dialogue(b"Ada"),
        ),
        # idle is due, and the end of the stream is there
        (
            ServerConfig(framing=Framing.LINES, idle_timeout=0.1),
            b"",
            b"",
            dialogue()[: -len("Goodbye!\n")],
        ),
    ],
    ids=["half a name", "a name", "the end"],
)


def say(sock: socket.socket, words: bytes) -> None:
    """Send words; none are the end of the stream."""
    if words:
        sock.sendall(words)
    else:
        sock.shutdown(socket.SHUT_WR)


class LateSocket(socket.socket):
    """A socket whose first timeout is noticed late: its peer has said something by then."""

    peer: socket.socket
    words: bytes | None

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """Receive."""
        try:
            return super().recv(size, flags)
        except TimeoutError:
            if self.words is not None:
                say(self.peer, self.words)
                self.words = None
                assert select.select([self], [], [], PATIENCE)[0]
            raise


@cases
def test_blocking(config: ServerConfig, before: bytes, late: bytes, said: bytes) -> None:
    """The thread is late when `recv` has timed out."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname(), timeout=PATIENCE)
        accepted, _ = listener.accept()
    sock = LateSocket(fileno=accepted.detach())
    sock.peer, sock.words = client, late
    with serving(BlockingServer, config) as server, client:
        client.sendall(before)
        server.serve(sock)
        assert receive_all(client) == said


@cases
def test_asyncio(config: ServerConfig, before: bytes, late: bytes, said: bytes) -> None:
    """A callback that takes long runs right before the timer of the connection, in the same turn of the loop."""
    connected = threading.Event()

    with serving(AsyncioServer, config) as server:
        # After this call the timer is the one that is to be late.
        name = "buffer_updated" if before else "connection_made"
        method = getattr(server.protocol_class, name)

        def call(protocol: Any, argument: Any) -> None:  # noqa: ANN401 - those of either method
            method(protocol, argument)
            server.override(name, method)
            server.loop.call_at(math.nextafter(server.loop.timers[-1].when(), 0), be_late)

        def be_late() -> None:
            assert connected.wait(PATIENCE)
            time.sleep(LATE)
            say(client, late)
            assert select.select(
                [server.protocols[0]._transport.get_extra_info("socket")], [], [], PATIENCE
            )[0]

        server.override(name, call)
        client = server.connect()
        connected.set()
        if before:
            client.sendall(before)
        assert receive_all(client) == said
