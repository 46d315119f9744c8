"""The loads: what clients do with one server, and what that costs it.

Every byte that a server says is compared with what it should have said. That is cheap: the replies are made before
the server's clock is read, and the kernel puts a whole reply together (MSG_WAITALL) before it is compared at once.

A client is a generator, which yields its socket when it waits for the server. One loop over epoll runs them all.
"""

import select
import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import islice
from typing import Final, TypeAlias

import attrs

from .process import ServerProcess
from .wire import EXIT_LINE, GOODBYE, HOST, PROMPT, WELCOME, Exchange, exchange

PATIENCE = 10.0  # seconds without a single byte from the server

Client: TypeAlias = Iterator[socket.socket]


class WrongReplyError(Exception):
    """The server said something else than it should have, or nothing."""


@attrs.frozen(kw_only=True)
class Sizes:
    """How much of each load is one measurement."""

    clients: int = 50
    exchanges: int = 60  # of each client, one name each
    blocks: int = 8  # of each client
    names: int = 1000  # in each block
    conversations: int = 100
    conversations_at_once: int = 20
    connections: int = 2000


@attrs.frozen(kw_only=True)
class Measured:
    """One measurement."""

    cost: float  # in the load's unit
    count: int  # of greetings, conversations or connections, all of them verified, of which it is the cost of one


Measure: TypeAlias = Callable[[], Measured]
"""Load the server once, and measure that."""
Load: TypeAlias = Callable[[ServerProcess, Sizes], AbstractContextManager[Measure]]
"""Connect clients to the server, warm it up, and return what loads it then."""


@contextmanager
def ping_pong(server: ServerProcess, sizes: Sizes) -> Iterator[Measure]:
    """Let each client send a name, and the next as soon as it has the answer: CPU in µs per greeting.

    A client that is fast enough sends it while the server is still busy with the others. Then what the server looks for
    next is there already, and it need not wait.
    """
    with _greetings(server, _single_names(sizes), _talk_freely) as measure:
        yield measure


@contextmanager
def in_step(server: ServerProcess, sizes: Sizes) -> Iterator[Measure]:
    """Let each client send a name, and the next when all have their answers: CPU in µs per greeting.

    So the next name is never there when the server has answered, as it is not where there is a network in between. And
    what is measured depends less on how fast the clients are, and on what else the machine is doing.
    """
    with _greetings(server, _single_names(sizes), _talk_in_step) as measure:
        yield measure


@contextmanager
def pipelined(server: ServerProcess, sizes: Sizes) -> Iterator[Measure]:
    """Let each client send a block of names, and the next when all are answered: CPU in µs per greeting."""
    blocks = [exchange(client * sizes.names, sizes.names) for client in range(sizes.clients)]
    with _greetings(server, [[block] * sizes.blocks for block in blocks], _talk_freely, sizes.names) as measure:
        yield measure


@contextmanager
def churn(server: ServerProcess, sizes: Sizes) -> Iterator[Measure]:
    """Let clients come, be greeted once, say `exit` and go, a few at a time: CPU in µs per conversation."""

    def measure() -> Measured:
        before = server.cpu()
        numbers = range(sizes.conversations)
        _run((_conversation(server.port, exchange(number)) for number in numbers), sizes.conversations_at_once)
        return Measured(cost=(server.cpu() - before) / 1000 / len(numbers), count=len(numbers))

    measure()
    yield measure


@contextmanager
def idle(server: ServerProcess, sizes: Sizes) -> Iterator[Measure]:
    """Let clients come, wait until they are asked for a name, and stay: growth of the server in KiB per connection.

    This can be measured once only: what a process once had does not grow again.
    """

    def measure() -> Measured:
        before = server.memory()
        with _connected(server.port, sizes.connections) as socks:
            after = server.memory()
            _run(_greeted(sock, [exchange(number)]) for number, sock in enumerate(socks))  # they are all still there
        return Measured(cost=(after - before) / len(socks), count=len(socks))

    _run([_conversation(server.port, exchange(0))])
    yield measure


LOADS: Final[Mapping[str, Load]] = {
    "ping-pong": ping_pong,
    "in step": in_step,
    "pipelined": pipelined,
    "churn": churn,
    "idle": idle,
}

Talk: TypeAlias = Callable[[Sequence[socket.socket], Sequence[Sequence[Exchange]]], None]
"""What the clients do together: for each its socket, and its exchanges, as many as every other's."""


def _single_names(sizes: Sizes) -> list[list[Exchange]]:
    numbers = range(0, sizes.clients * sizes.exchanges, sizes.exchanges)
    return [[exchange(number) for number in range(first, first + sizes.exchanges)] for first in numbers]


@contextmanager
def _greetings(server: ServerProcess, exchanges: list[list[Exchange]], talk: Talk, names: int = 1) -> Iterator[Measure]:
    """Measure exchanges of so many names each."""
    count = sum(map(len, exchanges)) * names
    with _connected(server.port, len(exchanges)) as socks:

        def measure() -> Measured:
            before = server.cpu()
            talk(socks, exchanges)
            return Measured(cost=(server.cpu() - before) / 1000 / count, count=count)

        measure()
        yield measure


def _talk_freely(socks: Sequence[socket.socket], exchanges: Sequence[Sequence[Exchange]]) -> None:
    _run(map(_greeted, socks, exchanges))


def _talk_in_step(socks: Sequence[socket.socket], exchanges: Sequence[Sequence[Exchange]]) -> None:
    for step in zip(*exchanges, strict=True):
        for sock, (lines, _) in zip(socks, step, strict=True):
            sock.sendall(lines)
        # The last one first: where that answer is there, the others are, and the server is not kept busy by waking
        # whoever waits for each.
        for sock, (_, reply) in zip(reversed(socks), reversed(step), strict=True):
            expect(sock, reply)


@contextmanager
def _connected(port: int, number: int) -> Iterator[list[socket.socket]]:
    """Have connections, all of them asked for a name; unless something failed, they say `exit` at the end."""
    with ExitStack() as stack:
        socks: list[socket.socket] = []

        def clients() -> Iterator[Client]:
            for _ in range(number):
                socks.append(stack.enter_context(_connect(port)))
                yield _welcomed(socks[-1])

        _run(clients(), at_once=50)  # fewer than any server's backlog
        yield socks
        _run(map(_leaving, socks))


# What a client does


def _conversation(port: int, greeting: Exchange) -> Client:
    with _connect(port) as sock:
        yield from _welcomed(sock)
        yield from _greeted(sock, [greeting])
        yield from _leaving(sock)


def _welcomed(sock: socket.socket) -> Client:
    yield sock
    expect(sock, WELCOME)
    yield sock  # Greeter lets some time pass before it asks
    expect(sock, PROMPT)


def _greeted(sock: socket.socket, exchanges: Iterable[Exchange]) -> Client:
    for lines, reply in exchanges:
        sock.sendall(lines)
        yield sock
        expect(sock, reply)


def _leaving(sock: socket.socket) -> Client:
    sock.sendall(EXIT_LINE)
    yield sock
    expect(sock, GOODBYE)
    yield sock
    expect(sock, b"")
    sock.close()


def _connect(port: int) -> socket.socket:
    sock = socket.create_connection((HOST, port), PATIENCE)
    # The kernel's own limits on a blocking socket. A time limit of Python's would cost a `poll` for each call.
    sock.settimeout(None)
    patience = struct.pack("@ll", int(PATIENCE), int(PATIENCE % 1 * 1_000_000))  # seconds and microseconds
    for limit in socket.SO_RCVTIMEO, socket.SO_SNDTIMEO:
        sock.setsockopt(socket.SOL_SOCKET, limit, patience)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def expect(sock: socket.socket, words: bytes) -> None:
    """Receive exactly these words; none at all stands for the end of the stream."""
    try:
        heard = sock.recv(len(words) or 1, socket.MSG_WAITALL)
    except BlockingIOError:
        msg = f"expected {words[:80]!r}, and heard nothing for {PATIENCE} s"
        raise WrongReplyError(msg) from None
    if heard != words:
        msg = f"expected {len(words)} bytes, {words[:80]!r}, and heard {len(heard)}, {heard[:80]!r}"
        raise WrongReplyError(msg)


def _run(clients: Iterable[Client], at_once: int | None = None) -> None:
    """Run clients to their ends, so many at a time, or all."""
    coming = iter(clients)
    waiting: dict[int, Client] = {}
    with select.epoll() as epoll:

        def start(number: int | None) -> None:
            for client in islice(coming, number):
                sock = next(client)
                waiting[sock.fileno()] = client
                epoll.register(sock, select.EPOLLIN)

        start(at_once)
        while waiting:
            ready = epoll.poll(PATIENCE)
            if not ready:
                msg = f"{len(waiting)} clients have heard nothing for {PATIENCE} s"
                raise WrongReplyError(msg)
            for fd, _ in ready:
                if fd not in waiting:
                    msg = "the server said more than it was asked for, or ended the conversation"
                    raise WrongReplyError(msg)
                if next(waiting[fd], None) is None:
                    del waiting[fd]
                    start(1)
