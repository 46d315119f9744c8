"""Both servers of INTEGRATING.md do what the page demands of an adapter."""

import math
import socket
import threading
import tracemalloc
from collections import deque
from typing import Any

import pytest

from greeter_core import (
    ConversationEnded,
    EndReason,
    Framing,
    NamesReceived,
    ServerConfig,
    ServerConnection,
)

from .helpers import (
    GOODBYE,
    PROMPT,
    TOO_SLOW,
    WELCOME,
    AsyncioServer,
    BlockingServer,
    Server,
    dialogue,
    hello,
    leave,
    receive_all,
    reset,
    serving,
)

pytestmark = pytest.mark.parametrize("kind", [BlockingServer, AsyncioServer])

LINES = ServerConfig(framing=Framing.LINES)


def test_lines(kind: type[Server]) -> None:
    """Lines are answered, and reported; `exit` ends the conversation."""
    with serving(kind) as server:
        client = server.connect()
        client.sendall(b"Ada\r\nGrace\nexit\n")
        assert receive_all(client) == dialogue(b"Ada", b"Grace")
        client.close()
        assert server.ending() is EndReason.EXIT
        assert [event.names for event in server.events if isinstance(event, NamesReceived)] == [
            (b"Ada", b"Grace")
        ]


def test_original_client(kind: type[Server]) -> None:
    """A client that takes each recv for one word, and sends names without terminator, finds one word in each."""
    with serving(kind, ServerConfig(pace=0.1)) as server:
        client = server.connect()
        assert client.recv(1024) == WELCOME
        assert client.recv(1024) == PROMPT
        for name in (b"Ada", b"Grace"):
            client.sendall(name)
            assert client.recv(1024) == hello(name)
            assert client.recv(1024) == PROMPT
        client.sendall(b"exit")
        assert client.recv(1024) == GOODBYE


def test_half_close(kind: type[Server]) -> None:
    """The end of the client's stream ends its last name, and that is answered."""
    with serving(kind) as server:
        client = server.connect()
        client.sendall(b"Ada\nBob")
        client.shutdown(socket.SHUT_WR)
        assert receive_all(client) == WELCOME + PROMPT + hello(b"Ada") + PROMPT + hello(b"Bob")
        assert server.ending() is EndReason.EOF


def test_half_close_of_the_server(kind: type[Server]) -> None:
    """After its last word the server ends its stream, and still takes what the client says (S8)."""
    with serving(kind) as server:
        client = server.connect()
        client.sendall(b"exit\n")
        assert receive_all(client) == dialogue()
        client.sendall(b"Ada\n" * 1000)
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1024) == b"", "not reset"
        assert server.ending() is EndReason.EXIT


def test_idle(kind: type[Server]) -> None:
    """A client that says nothing is told so, and waited for no longer than `linger`."""
    with serving(kind, ServerConfig(idle_timeout=0.1, linger=0.1)) as server:
        client = server.connect()
        assert receive_all(client) == WELCOME + PROMPT + TOO_SLOW
        assert server.ending() is EndReason.REFUSED, (
            "linger ends it, though the client does not close"
        )


@pytest.mark.parametrize("idle_timeout", [math.inf, 1e12])
def test_times_without_end(kind: type[Server], idle_timeout: float) -> None:
    """No deadline, and one that no system call takes, are nothing special."""
    with serving(kind, ServerConfig(framing=Framing.LINES, idle_timeout=idle_timeout)) as server:
        client = server.connect()
        client.sendall(b"Ada\n")
        leave(client)
        assert server.ending() is EndReason.EXIT


def test_reset_by_the_peer(kind: type[Server]) -> None:
    """The core is told, and `greet` raises."""
    with serving(kind) as server:
        client = server.connect()
        assert client.recv(1024) == WELCOME
        reset(client)
        assert server.ending() is EndReason.CONNECTION_LOST
        if isinstance(server, BlockingServer):
            assert len(server.failures) == 1


def test_peer_that_never_reads(kind: type[Server]) -> None:
    """A send has patience of its own; then the peer is reset, lest it take a part of the answers for the whole."""
    with serving(
        kind, ServerConfig(idle_timeout=0.05), send_buffer=4096, SEND_TIMEOUT=0.2
    ) as server:
        client = server.connect(receive_buffer=4096)
        client.sendall(b"Ada\n" * 4096)
        assert server.ending() is EndReason.CONNECTION_LOST, (
            "and not REFUSED, though idle was due meanwhile"
        )
        with pytest.raises(ConnectionResetError):
            receive_all(client)


def test_memory_for_a_peer_that_never_reads(kind: type[Server]) -> None:
    """While a send is blocked, nothing is read."""
    names = b"Ada\n" * 4_000_000
    with serving(kind, LINES, send_buffer=4096, SEND_TIMEOUT=0.2) as server:
        client = server.connect(receive_buffer=4096)
        tracemalloc.start()
        try:
            with pytest.raises(OSError, match=r".") as broken:
                client.sendall(names)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert not isinstance(broken.value, TimeoutError)
    assert peak < 2_000_000


def test_end_of_a_blocked_send(kind: type[Server]) -> None:
    """The end of a client's stream is the end of the conversation, but not before everything is sent."""
    last = b"x" * 1024
    with serving(kind, LINES, send_buffer=4096) as server:
        client = server.connect(receive_buffer=4096)
        client.sendall(b"Ada\n" * 4000 + last)
        client.shutdown(socket.SHUT_WR)
        said = b""
        while data := client.recv(1024):
            said += data
        assert said == dialogue(*[b"Ada"] * 4000)[: -len(GOODBYE)] + hello(last)
        assert server.ending() is EndReason.EOF


def test_peer_that_reads_late(kind: type[Server]) -> None:
    """No timer runs while a send is blocked: the names that wait in the socket are no fault of the client's (T3)."""
    names = b"Ada\n" * 30_000
    with serving(
        kind, ServerConfig(framing=Framing.LINES, idle_timeout=0.05, linger=20), send_buffer=4096
    ) as server:
        client = server.connect(receive_buffer=4096)
        sender = threading.Thread(target=client.sendall, args=[names + b"exit\n"])
        sender.start()
        threading.Event().wait(0.2)  # longer than `idle_timeout`
        said = receive_all(client)
        sender.join()
        assert said == dialogue(*[b"Ada"] * 30_000)


def test_memory_is_bounded(kind: type[Server]) -> None:
    """59 MB of names leave nothing behind, and need little at any time."""
    line = b"%099d\n" % 7
    block, blocks = line * 1000, 590
    expected = len(dialogue()) + 1000 * blocks * (len(hello(line[:-1])) + len(PROMPT))
    buffer, received = bytearray(1 << 18), 0

    def send(client: socket.socket) -> None:
        for _ in range(blocks):
            client.sendall(block)
        client.sendall(b"exit\n")

    with serving(kind) as server:
        server.events = deque(maxlen=0)
        client = server.connect()
        sender = threading.Thread(target=send, args=[client])
        tracemalloc.start()
        try:
            sender.start()
            while size := client.recv_into(buffer):
                received += size
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        sender.join()
        client.close()
    assert received == expected
    assert peak < 2_000_000


def test_two_conversations(kind: type[Server]) -> None:
    """Connections are independent of each other."""
    with serving(kind) as server:
        one, other = server.connect(), server.connect()
        one.sendall(b"Ada\n")
        other.sendall(b"Grace\nexit\n")
        assert receive_all(other) == dialogue(b"Grace")
        reset(other)
        one.sendall(b"exit\n")
        assert receive_all(one) == dialogue(b"Ada")


def test_words_in_flight(kind: type[Server]) -> None:
    """A PROMPT waits for the acknowledgement of what was said before it, where that can be asked for (S2.7)."""
    answers = [True, True, False]
    calls = []

    class Watched(ServerConnection):
        def data_in_flight(self, now: float) -> None:
            calls.append("in flight")
            super().data_in_flight(now)

        def handle_timeout(self, now: float) -> None:
            if now >= self.deadline:
                calls.append("timeout")
            super().handle_timeout(now)

    def is_in_flight(_: Any) -> bool:  # noqa: ANN401 - a socket or a protocol
        return answers.pop(0)

    with serving(
        kind, ServerConfig(pace=0.001), is_in_flight=is_in_flight, ServerConnection=Watched
    ) as server:
        if isinstance(server, AsyncioServer):
            server.override("_is_in_flight", is_in_flight)
        client = server.connect()
        received = b""
        while len(received) < len(WELCOME + PROMPT):
            received += client.recv(1024)
        assert received == WELCOME + PROMPT
        assert calls == ["in flight", "in flight", "timeout"]
        leave(client)
    assert answers == []


def test_events_of_a_lost_connection(kind: type[Server]) -> None:
    """The last event says how it ended, also where the connection broke after that (S8.4)."""
    with serving(kind) as server:
        client = server.connect()
        client.sendall(b"exit\n")
        assert receive_all(client) == dialogue()
        reset(client)
        server.join()
        assert server.events[-1] == ConversationEnded(EndReason.EXIT)
