"""Clients that verify every byte, and the loop that runs them without ever sleeping.

If the load slept until a reply came, each reply would wake it, and the kernel books the wakeup on
the CPU time of the process that sends: the server. A server that is faster than the load would pay
for few wakeups, since the load is busy with earlier replies, and a slower one for one with each
reply. So the sockets are non-blocking, and the loop polls them with a timeout of 0.

A client is a generator, which yields its socket when it waits for it to become readable.
"""

import contextlib
import select
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeAlias

from tests.support import crowds
from tests.support.crowds import HOST, Exchange, WrongReplyError
from tests.support.words import GOODBYE, PROMPT, WELCOME

_select: Any = select  # only Linux has epoll

Client: TypeAlias = Iterator[socket.socket]


def run(clients: Iterable[Client], at_once: int | None = None) -> None:
    """Run clients to their ends, all of them at the same time or at most `at_once`."""
    coming = iter(clients)
    waiting: dict[int, Client] = {}
    with _select.epoll() as epoll:

        def start(number: int | None) -> None:
            for client in islice(coming, number):
                sock = next(client)
                waiting[sock.fileno()] = client
                epoll.register(sock, _select.EPOLLIN)

        start(at_once)
        give_up = time.monotonic() + crowds.PATIENCE
        while waiting:
            ready = epoll.poll(0)
            now = time.monotonic()
            if ready:
                give_up = now + crowds.PATIENCE
            elif now > give_up:
                raise WrongReplyError(b"replies to %d clients" % len(waiting), None)
            for fd, _ in ready:
                if fd not in waiting:
                    raise WrongReplyError(b"", b"something, or the end of the stream")
                if next(waiting[fd], None) is None:
                    del waiting[fd]
                    start(1)


def connect(port: int) -> socket.socket:
    """Return a socket that connects; when it is readable it has done so, or has failed."""
    sock = socket.socket()
    sock.settimeout(0)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with contextlib.suppress(BlockingIOError):
        sock.connect((HOST, port))
    return sock


def converse(port: int, exchanges: Sequence[Exchange]) -> Client:
    """Hold one conversation, from connecting to the end of the stream."""
    with connect(port) as sock:
        yield from receive_welcome(sock)
        yield from send_names(sock, exchanges)
        yield from leave(sock)


def receive_welcome(sock: socket.socket) -> Client:
    """Wait for WELCOME and PROMPT, between which Greeter makes a pause."""
    yield from _receive(sock, WELCOME + PROMPT)


def send_names(
    sock: socket.socket, exchanges: Iterable[Exchange], took: list[float] | None = None
) -> Client:
    """Send the lines of each exchange when the reply to those before it is complete.

    Append to `took` how many seconds each exchange took, as the load saw it.
    """
    for lines, reply in exchanges:
        start = time.perf_counter()
        sock.sendall(lines)  # the send buffer is empty: the kernel takes all, or this raises
        yield from _receive(sock, reply)
        if took is not None:
            took.append(time.perf_counter() - start)


def leave(sock: socket.socket) -> Client:
    """Send `exit`, wait for GOODBYE and the end of the stream, and close the socket."""
    sock.sendall(b"exit\n")
    yield from _receive(sock, GOODBYE)
    yield from _receive(sock, b"")
    sock.close()


def _receive(sock: socket.socket, expected: bytes) -> Client:
    """Receive exactly these bytes; none at all stand for the end of the stream."""
    received = b""
    while True:
        yield sock
        data = sock.recv(len(expected) - len(received) + 1)  # one more, if there is any, is wrong
        received += data
        if received == expected:
            return
        if not data or not expected.startswith(received):
            raise WrongReplyError(expected, received)
