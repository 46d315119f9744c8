"""Exchanges whose every byte is verified, and crowds of clients, over loopback.

The sockets are blocking, and no call on them takes longer than `PATIENCE`.
"""

import contextlib
import socket
import struct
from collections.abc import Iterator, Sequence

from .words import GOODBYE, PROMPT, WELCOME, hello

HOST = "127.0.0.1"
PATIENCE = 10.0  # seconds without a single byte from the server
AT_ONCE = 200  # connections are made before the first of them is read: fewer than any backlog

Exchange = tuple[bytes, bytes]
"""Lines to send, and the bytes that must come back."""


class WrongReplyError(Exception):
    """The server sent something else than it should have, or nothing."""

    def __init__(self, expected: bytes, received: bytes | None) -> None:
        heard = f"nothing for {PATIENCE} s" if received is None else _excerpt(received)
        super().__init__(f"expected {_excerpt(expected)}, and received {heard}")


def _excerpt(data: bytes) -> str:
    return f"{len(data)} bytes, {data[:80]!r}"


def exchange(first: int, count: int = 1) -> Exchange:
    """Return `count` lines of 13 bytes, with names numbered from `first`, and the reply to them."""
    names = [b"name%08d" % number for number in range(first, first + count)]
    return b"".join(name + b"\n" for name in names), b"".join(
        hello(name) + PROMPT for name in names
    )


def connect(port: int, *, receive_buffer: int = 0) -> socket.socket:
    """Connect, with this value of SO_RCVBUF unless it is 0."""
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(socket.socket())
        patience = struct.pack("@ll", int(PATIENCE), 0)  # seconds and microseconds
        for limit in socket.SO_RCVTIMEO, socket.SO_SNDTIMEO:
            sock.setsockopt(socket.SOL_SOCKET, limit, patience)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.connect((HOST, port))
        # If no process listens, the kernel may choose this very port for the client's end.
        if sock.getsockname() == sock.getpeername():
            raise ConnectionRefusedError
        stack.pop_all()
    return sock


def expect(sock: socket.socket, expected: bytes) -> None:
    """Receive exactly these bytes; none at all stand for the end of the stream."""
    try:
        received = sock.recv(len(expected) or 1, socket.MSG_WAITALL)
    except BlockingIOError:  # the time of SO_RCVTIMEO is over
        raise WrongReplyError(expected, None) from None
    if received != expected:
        raise WrongReplyError(expected, received)


@contextlib.contextmanager
def crowd(port: int, number: int) -> Iterator[list[socket.socket]]:
    """Have so many clients that were asked for a name."""
    with contextlib.ExitStack() as stack:
        socks: list[socket.socket] = []
        while len(socks) < number:
            count = min(AT_ONCE, number - len(socks))
            coming = [stack.enter_context(connect(port)) for _ in range(count)]
            for sock in coming:
                expect(sock, WELCOME + PROMPT)
            socks += coming
        yield socks


def leave(socks: Sequence[socket.socket]) -> None:
    """Say `exit` on each connection, and hear the end of it."""
    for sock in socks:
        sock.sendall(b"exit\n")
    for sock in socks:
        expect(sock, GOODBYE)
        expect(sock, b"")


def reset(sock: socket.socket) -> None:
    """Break the connection at once: the server gets RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
