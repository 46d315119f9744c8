"""The client of INTEGRATING.md does what the page demands of an adapter."""

import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from greeter_core import ClientConfig, Framing, LocalProtocolError, ServerConfig
from tests.support.processes import PATIENCE, Peer
from tests.support.words import ADA, FULL, PROMPT, WELCOME

from .helpers import BlockingServer, adapter, memory_below, pair

Ask = Callable[..., Iterator[bytes]]


@pytest.fixture(scope="module")
def ask() -> Any:
    """Return the page's function."""
    return adapter("def ask(")["ask"]


def numbers(count: int) -> Iterator[bytes]:
    return (b"%d" % number for number in range(count))


@contextmanager
def scripted(script: Callable[[Peer], object]) -> Iterator[socket.socket]:
    """Yield a socket, at whose other end this script is played."""
    peer, sock = pair()
    with ThreadPoolExecutor(1) as pool, peer:
        played = pool.submit(script, peer)
        with sock:
            yield sock
        played.result(PATIENCE)


@pytest.mark.parametrize("names", [[b"Ada", b"Grace", b"Bob"], []], ids=["names", "none"])
@pytest.mark.parametrize("framing", Framing)
def test_names(ask: Ask, framing: Framing, names: list[bytes]) -> None:
    """It finds out what the server understands; without names it says exit, and nothing else."""
    with BlockingServer(ServerConfig(framing=framing, pace=0.001)) as server:
        assert list(ask(server.connect().socket, names)) == names


@pytest.mark.parametrize(("count", "at_a_time"), [(20_000, 1000), (100_000, 100_001)])
def test_many_names(count: int, at_a_time: int) -> None:
    """It reads on while a send is blocked; otherwise both sides would wait for each other."""
    namespace = adapter("def ask(")
    namespace["AT_A_TIME"] = at_a_time
    with BlockingServer(send_buffer=4096) as server:
        client = server.connect(receive_buffer=4096).socket
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        assert list(namespace["ask"](client, numbers(count))) == list(numbers(count))


def test_memory_is_bounded(ask: Ask) -> None:
    """8 MB of names leave nothing behind, and need little at any time."""
    names = (b"%01000d" % number for number in range(8_000))
    with BlockingServer() as server, memory_below(7_000_000):
        server.events = deque(maxlen=0)
        assert sum(1 for _ in ask(server.connect().socket, names)) == 8_000


def test_caller_that_takes_its_time(ask: Ask) -> None:
    """What came meanwhile is read first: the server was not late, the client was (T3)."""
    taken: list[bytes] = []
    with BlockingServer(ServerConfig(pace=0)) as server:
        for name in ask(server.connect().socket, numbers(2000), ClientConfig(reply_timeout=0.1)):
            taken.append(name)
            if len(taken) in (1, 700):
                threading.Event().wait(0.15)
    assert taken == list(numbers(2000))


def one_name(peer: Peer) -> None:
    peer.say(WELCOME + PROMPT)
    peer.socket.recv(1024)
    peer.say(ADA).end()


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (Peer.hear_rest, "timed out"),
        (one_name, "end of stream"),
        (lambda peer: peer.say(FULL).end(), "refused"),
        (lambda peer: peer.say(b"220 smtp\r\n"), "protocol violation"),
        (Peer.reset, "reset"),
    ],
)
def test_ends_too_early(ask: Ask, script: Callable[[Peer], object], why: str) -> None:
    """What was greeted is yielded; then the reason is told."""
    greeted: list[bytes] = []
    config = ClientConfig(reply_timeout=0.1 if why == "timed out" else PATIENCE)
    with scripted(script) as client, pytest.raises(ConnectionError, match=why):
        greeted.extend(ask(client, [b"Ada", b"Bob"], config))
    assert greeted == ([b"Ada"] if script is one_name else [])


def test_late_caller_and_silent_server(ask: Ask) -> None:
    """If time overtakes a name that waits, that is an end like others: no LocalProtocolError."""

    def slow() -> Iterable[bytes]:
        yield b"Ada"
        threading.Event().wait(0.2)
        yield b"Bob"

    with scripted(Peer.hear_rest) as client, pytest.raises(ConnectionError, match="timed out"):
        list(ask(client, slow(), ClientConfig(reply_timeout=0.1)))


def test_wrong_name(ask: Ask) -> None:
    """It is the caller's fault, and said so (Nagle's algorithm is off by then)."""
    with scripted(Peer.hear_rest) as client:
        with pytest.raises(LocalProtocolError):
            list(ask(client, [b"exit"]))
        assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
