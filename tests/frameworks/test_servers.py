"""Both servers of INTEGRATING.md do what the page demands of an adapter."""

import math
import select
import socket
import sys
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

from greeter_core import EndReason, Framing, NamesReceived, ServerConfig, ServerConnection
from tests.support.connections import LINES, dialogue
from tests.support.originals import original_client
from tests.support.processes import PATIENCE, Peer
from tests.support.words import BOB, GOODBYE, PROMPT, TOO_SLOW, WELCOME, hello

from .helpers import ORIGINALS, AsyncioServer, BlockingServer, Server, adapter, memory_below, pair

both = pytest.mark.parametrize("kind", [BlockingServer, AsyncioServer])


def say(client: Peer, words: bytes) -> None:
    """Say words; none are the end of the stream."""
    if words:
        client.say(words)
    else:
        client.end()


def lines(idle_timeout: float) -> ServerConfig:
    return ServerConfig(framing=Framing.LINES, idle_timeout=idle_timeout)


BRIEF = ServerConfig(idle_timeout=0.1, linger=0.1)


@both
@pytest.mark.parametrize(
    ("config", "says", "heard", "reason"),
    [
        (ORIGINALS, [b"Ada\r\nGrace\nexit\n"], dialogue(b"Ada", b"Grace"), EndReason.EXIT),
        # The end of the stream ends the last name, which is answered.
        (ORIGINALS, [b"Ada\nBob", b""], dialogue(b"Ada")[: -len(GOODBYE)] + BOB, EndReason.EOF),
        # `linger` ends it, though the client does not close.
        (BRIEF, [], WELCOME + PROMPT + TOO_SLOW, EndReason.REFUSED),
        # No deadline, and one that no system call takes, are nothing special.
        (lines(math.inf), [b"Ada\n", b"exit\n"], dialogue(b"Ada"), EndReason.EXIT),
        (lines(1e12), [b"Ada\n", b"exit\n"], dialogue(b"Ada"), EndReason.EXIT),
    ],
    ids=["lines", "half-close", "idle", "no deadline", "a distant deadline"],
)
def test_conversation(
    kind: type[Server], config: ServerConfig, says: list[bytes], heard: bytes, reason: EndReason
) -> None:
    with kind(config) as server:
        client = server.connect()
        for words in says:
            say(client, words)
        assert client.hear_rest() == heard
        if reason is not EndReason.REFUSED:
            client.socket.close()
        assert server.ending() is reason
        events = [event for event in server.events if isinstance(event, NamesReceived)]
        greeted = [name for name in (b"Ada", b"Grace", b"Bob") if hello(name) in heard]
        assert [name for event in events for name in event.names] == greeted


@both
def test_original_client(kind: type[Server]) -> None:
    """It takes what one recv returns for one word, and sends names without terminator."""
    with kind(ServerConfig(pace=0.1)) as server:
        client = server.connect()
        for word, answer in original_client([b"Ada", b"Grace"]):
            client.say(word)
            assert client.socket.recv(1024) == answer


def test_nagle_is_off() -> None:
    """Asyncio sees to it by itself."""
    client, sock = pair()
    with BlockingServer() as server, client:
        server.serve(sock)
        client.hear(WELCOME)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@both
def test_half_close_of_the_server(kind: type[Server]) -> None:
    """After its last word the server ends its stream, and still takes what the client says (S8)."""
    with kind() as server:
        client = server.connect()
        client.say(b"exit\n")
        assert client.hear_rest() == dialogue()
        client.say(b"Ada\n" * 1000)
        client.end()
        assert client.socket.recv(1024) == b"", "not reset"
        assert server.ending() is EndReason.EXIT


@both
@pytest.mark.parametrize(
    ("words", "heard", "reason"),
    [(b"", WELCOME, EndReason.CONNECTION_LOST), (b"exit\n", dialogue(), EndReason.EXIT)],
    ids=["early", "after the last word"],
)
def test_reset_by_the_peer(
    kind: type[Server], words: bytes, heard: bytes, reason: EndReason
) -> None:
    """The last event says what ended the conversation (S8.4); if this did, `greet` raises."""
    with kind() as server:
        client = server.connect()
        client.say(words)
        client.hear(heard)
        client.reset()
        assert server.ending() is reason
        if isinstance(server, BlockingServer) and not words:
            assert len(server.failures) == 1


@both
def test_two_conversations(kind: type[Server]) -> None:
    """Connections are independent of each other."""
    with kind() as server:
        one, other = server.connect(), server.connect()
        one.say(b"Ada\n")
        other.say(b"Grace\nexit\n")
        assert other.hear_rest() == dialogue(b"Grace")
        other.reset()
        one.say(b"exit\n")
        assert one.hear_rest() == dialogue(b"Ada")


# Sends that block


@both
def test_peer_that_never_reads(kind: type[Server]) -> None:
    """A send has a time limit, after which the peer is reset: part of the answers is not all."""
    config = ServerConfig(idle_timeout=0.05)
    with kind(config, send_buffer=4096, SEND_TIMEOUT=0.2) as server:
        client = server.connect(receive_buffer=4096)
        client.say(b"Ada\n" * 4096)
        # Not REFUSED, though idle was due meanwhile
        assert server.ending() is EndReason.CONNECTION_LOST
        with pytest.raises(ConnectionResetError):
            client.hear_rest()


@both
def test_memory_for_a_peer_that_never_reads(kind: type[Server]) -> None:
    """While a send is blocked, nothing is read."""
    names = b"Ada\n" * 4_000_000
    with kind(LINES, send_buffer=4096, SEND_TIMEOUT=0.2) as server:
        client = server.connect(receive_buffer=4096)
        with memory_below(2_000_000), pytest.raises(OSError, match=r".") as broken:
            client.say(names)
        assert not isinstance(broken.value, TimeoutError)


@both
def test_end_of_a_blocked_send(kind: type[Server]) -> None:
    """The end of a client's stream ends the conversation, but not before everything is sent."""
    last = b"x" * 1024
    with kind(LINES, send_buffer=4096) as server:
        client = server.connect(receive_buffer=4096)
        client.say(b"Ada\n" * 4000 + last)
        client.end()
        said = b"".join(iter(lambda: client.socket.recv(1024), b""))
        assert said == dialogue(*[b"Ada"] * 4000)[: -len(GOODBYE)] + hello(last)
        assert server.ending() is EndReason.EOF


@both
def test_peer_that_reads_late(kind: type[Server]) -> None:
    """No timer runs while a send is blocked: names that wait in the socket came in time (T3)."""
    names = b"Ada\n" * 30_000
    config = ServerConfig(framing=Framing.LINES, idle_timeout=0.05, linger=20)
    with kind(config, send_buffer=4096) as server:
        client = server.connect(receive_buffer=4096)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(client.say, names + b"exit\n")
            threading.Event().wait(0.2)  # longer than `idle_timeout`
            assert client.hear_rest() == dialogue(*[b"Ada"] * 30_000)


@both
def test_memory_is_bounded(kind: type[Server]) -> None:
    """12 MB of names leave nothing behind, and need little at any time."""
    line = b"%099d\n" % 7
    block, blocks = line * 1000, 120
    expected = len(dialogue()) + 1000 * blocks * len(hello(line[:-1]) + PROMPT)
    buffer, received = bytearray(1 << 18), 0
    with kind() as server, ThreadPoolExecutor(1) as pool:
        server.events = deque(maxlen=0)
        client = server.connect()
        with memory_below(2_000_000):
            sent = pool.submit(
                lambda: [client.say(each) for each in [block] * blocks + [b"exit\n"]]
            )
            while size := client.socket.recv_into(buffer):
                received += size
        sent.result()
        client.socket.close()
    assert received == expected


# Words in flight (S2.7): the kernel is asked, where it answers, what the peer has acknowledged


@both
def test_words_in_flight(kind: type[Server]) -> None:
    """A PROMPT waits for the acknowledgement of what was said before it."""
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

    def is_in_flight(_: Any) -> bool:
        return answers.pop(0)

    config = ServerConfig(pace=0.001)
    with kind(config, is_in_flight=is_in_flight, ServerConnection=Watched) as server:
        if isinstance(server, AsyncioServer):
            server.protocol_class._is_in_flight = is_in_flight
        client = server.connect()
        client.hear(WELCOME + PROMPT)
        assert calls == ["in flight", "in flight", "timeout"]
        client.say(b"exit\n")
        assert client.hear_rest() == GOODBYE
    assert answers == []


def is_in_flight(kind: type[Server], sock: socket.socket) -> bool:
    """Ask as the adapter does."""
    if kind is BlockingServer:
        return bool(adapter(kind.definition)["is_in_flight"](sock))
    protocol_class = adapter(kind.definition)["GreeterProtocol"]
    protocol = protocol_class.__new__(protocol_class)
    protocol._transport = SimpleNamespace(get_extra_info={"socket": sock}.get)
    return bool(protocol._is_in_flight())


@both
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can tell")
def test_in_flight_over_tcp(kind: type[Server]) -> None:
    """What the peer's kernel has no room for is not acknowledged."""
    theirs, ours = pair()
    with ours, theirs:
        assert not is_in_flight(kind, ours)
        ours.settimeout(0.0)
        with suppress(BlockingIOError):
            while True:
                ours.send(bytes(65536))
        assert is_in_flight(kind, ours)
        while is_in_flight(kind, ours):
            # The kernel may acknowledge the last bytes a little later.
            if select.select([theirs.socket], [], [], 0.001)[0]:
                theirs.socket.recv(65536)


@both
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can tell")
def test_in_flight_over_a_unix_socket(kind: type[Server]) -> None:
    """What was sent has arrived, though the peer has not read it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(WELCOME)
        assert not is_in_flight(kind, ours)


# A server that is late reads before it judges (T3)

late_cases = pytest.mark.parametrize(
    ("config", "before", "late", "heard"),
    [
        # `quiet` is due, between the halves of a name
        (
            ServerConfig(pace=20, quiet=0.02),
            b"Grace Hop",
            b"per\nexit\n",
            dialogue(b"Grace Hopper"),
        ),
        # `idle_timeout` is due, and a name or the end of the stream is there
        (lines(0.1), b"", b"Ada\nexit\n", dialogue(b"Ada")),
        (lines(0.1), b"", b"", WELCOME + PROMPT),
    ],
    ids=["half a name", "a name", "the end"],
)


class LateSocket(socket.socket):
    """A socket whose first timeout is noticed late: its peer has said something by then."""

    peer: Peer
    words: bytes | None

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        try:
            return super().recv(size, flags)
        except TimeoutError:
            if self.words is not None:
                say(self.peer, self.words)
                self.words = None
                assert select.select([self], [], [], PATIENCE)[0]
            raise


@late_cases
def test_late_thread(config: ServerConfig, before: bytes, late: bytes, heard: bytes) -> None:
    """It is late when `recv` has timed out."""
    client, accepted = pair()
    sock = LateSocket(fileno=accepted.detach())
    sock.peer, sock.words = client, late
    with BlockingServer(config) as server, client:
        client.say(before)
        server.serve(sock)
        assert client.hear_rest() == heard


@late_cases
def test_late_loop(config: ServerConfig, before: bytes, late: bytes, heard: bytes) -> None:
    """A callback that takes long runs right before the timer, in the same turn of the loop."""
    connected, was_late = threading.Event(), threading.Event()
    with AsyncioServer(config) as server:

        def plan(protocol: Any) -> None:
            if not was_late.is_set():
                was_late.set()
                due = math.nextafter(protocol._next_call.when(), 0)
                server.loop.call_at(due, be_late, protocol._transport.get_extra_info("socket"))

        def be_late(sock: socket.socket) -> None:
            assert connected.wait(PATIENCE)
            time.sleep(0.1)
            say(client, late)
            assert select.select([sock], [], [], PATIENCE)[0]

        # After this call the timer is the one that is to be late.
        server.after("buffer_updated" if before else "connection_made", plan)
        client = server.connect()
        connected.set()
        client.say(before)
        assert client.hear_rest() == heard
