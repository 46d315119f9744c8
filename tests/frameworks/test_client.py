"""The client of INTEGRATING.md does what the page demands of an adapter."""

import socket
import threading
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from greeter_core import ClientConfig, Framing, LocalProtocolError, ServerConfig

from .helpers import PATIENCE, PROMPT, WELCOME, BlockingServer, adapter, hello, reset, serving

Ask = Callable[..., Iterator[bytes]]


@pytest.fixture(scope="module")
def ask() -> Any:  # noqa: ANN401 - a fixture's value
    """Return the page's function."""
    return adapter("def ask(")["ask"]


def numbers(count: int) -> Iterator[bytes]:
    """Yield so many names."""
    return (b"%d" % number for number in range(count))


@contextmanager
def scripted(script: Callable[[socket.socket], object]) -> Iterator[socket.socket]:
    """Yield a socket, at whose other end this script is played."""

    def play() -> None:
        with accepted:
            script(accepted)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname(), timeout=PATIENCE)
        accepted, _ = listener.accept()
    accepted.settimeout(PATIENCE)
    thread = threading.Thread(target=play)
    thread.start()
    with client:
        yield client
    thread.join(PATIENCE)
    assert not thread.is_alive()


@pytest.mark.parametrize("framing", Framing)
def test_names(ask: Ask, framing: Framing) -> None:
    """It finds out what the server understands."""
    with serving(BlockingServer, ServerConfig(framing=framing, pace=0.001)) as server:
        assert list(ask(server.connect(), [b"Ada", b"Grace", b"Bob"])) == [b"Ada", b"Grace", b"Bob"]


def test_no_names(ask: Ask) -> None:
    """It says exit, and nothing else."""
    with serving(BlockingServer) as server:
        assert list(ask(server.connect(), [])) == []


def test_many_names(ask: Ask) -> None:
    """It reads on while a send is blocked; otherwise both sides would wait for each other."""
    with serving(BlockingServer, send_buffer=4096) as server:
        client = server.connect(receive_buffer=4096)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        assert all(
            name == b"%d" % number for number, name in enumerate(ask(client, numbers(50_000)))
        )


def test_all_at_once() -> None:
    """Nor does it stall where it asks everything at once."""
    names = list(numbers(100_000))
    namespace = adapter("def ask(")
    namespace["AT_A_TIME"] = len(names) + 1
    with serving(BlockingServer, send_buffer=4096) as server:
        client = server.connect(receive_buffer=4096)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        assert list(namespace["ask"](client, names)) == names


def test_memory_is_bounded(ask: Ask) -> None:
    """15 MB of names leave nothing behind, and need little at any time."""
    name = b"%01000d" % 7
    with serving(BlockingServer) as server:
        server.events = deque(maxlen=0)
        client = server.connect()
        tracemalloc.start()
        try:
            count = sum(
                1
                for _ in ask(
                    client, (name[:-1] + b"%d" % (number % 10) for number in range(15_000))
                )
            )
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert count == 15_000
    assert peak < 7_000_000


def test_caller_that_takes_its_time(ask: Ask) -> None:
    """What came meanwhile is read first: the server was not late, the client was (T3)."""
    taken: list[bytes] = []
    with serving(BlockingServer, ServerConfig(pace=0)) as server:
        for name in ask(server.connect(), numbers(2000), ClientConfig(reply_timeout=0.1)):
            taken.append(name)
            if len(taken) in (1, 700, 1500):
                threading.Event().wait(0.2)
    assert taken == list(numbers(2000))


def silence(sock: socket.socket) -> None:
    """Say nothing, until the client has gone."""
    sock.recv(1024)


def one_name(sock: socket.socket) -> None:
    """Greet one name, and end."""
    sock.sendall(WELCOME + PROMPT)
    sock.sendall(hello(sock.recv(1024)[:-1]))


def sorry(sock: socket.socket) -> None:
    """Refuse."""
    sock.sendall(b"Sorry, the server is full.\n")
    sock.shutdown(socket.SHUT_WR)
    sock.recv(1024)


def nonsense(sock: socket.socket) -> None:
    """Be no greeter."""
    sock.sendall(b"220 smtp\r\n")
    sock.recv(1024)


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (silence, "timed out"),
        (one_name, "end of stream"),
        (sorry, "refused"),
        (nonsense, "protocol violation"),
    ],
)
def test_ends_too_early(ask: Ask, script: Callable[[socket.socket], object], why: str) -> None:
    """What was greeted is yielded; then the reason is told."""
    greeted: list[bytes] = []
    config = ClientConfig(reply_timeout=0.1 if script is silence else PATIENCE)
    with scripted(script) as client:
        names = ask(client, [b"Ada", b"Bob"], config)
        with pytest.raises(ConnectionError, match=why):
            greeted.extend(names)
    assert greeted == ([b"Ada"] if script is one_name else [])


def test_reset_by_the_server(ask: Ask) -> None:
    """That is an `OSError`."""
    with scripted(reset) as client, pytest.raises(ConnectionResetError):
        list(ask(client, [b"Ada"]))


def test_caller_that_is_late_and_a_server_that_is_silent(ask: Ask) -> None:
    """Where time overtakes a name that waits, that is an end like others, and no `LocalProtocolError`."""

    def slow() -> Iterable[bytes]:
        yield b"Ada"
        threading.Event().wait(0.2)
        yield b"Bob"

    with scripted(silence) as client, pytest.raises(ConnectionError, match="timed out"):
        list(ask(client, slow(), ClientConfig(reply_timeout=0.1)))


def test_wrong_name(ask: Ask) -> None:
    """It is the caller's fault, and said so."""
    with scripted(silence) as client, pytest.raises(LocalProtocolError):
        list(ask(client, [b"exit"]))
