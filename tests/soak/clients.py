"""What clients of several scenarios have in common: blocking sockets, on which no call takes longer than `PATIENCE`."""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Self

from tests.benchmarks.load import WrongReplyError, expect
from tests.benchmarks.process import PATIENCE
from tests.benchmarks.wire import BANG, EXIT_LINE, GOODBYE, HELLO, HOST, PROMPT, WELCOME, exchange

from .finding import Finding, none_of

AT_ONCE = (
    200  # connections that are made before the first of them is listened to: fewer than any backlog
)


def connect(port: int, *, receive_buffer: int = 0) -> socket.socket:
    """Connect; with a receive buffer of a size of its own, if that is not 0 (bytes; see SO_RCVBUF in socket(7))."""
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(socket.socket())
        patience = struct.pack("@ll", int(PATIENCE), 0)  # seconds and microseconds
        for limit in socket.SO_RCVTIMEO, socket.SO_SNDTIMEO:
            sock.setsockopt(socket.SOL_SOCKET, limit, patience)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.connect((HOST, port))
        if (
            sock.getsockname() == sock.getpeername()
        ):  # nobody listens, and the kernel chose just this port for us
            raise ConnectionRefusedError
        stack.pop_all()
    return sock


def reset(sock: socket.socket) -> None:
    """Break the connection with RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@contextlib.contextmanager
def crowd(port: int, number: int) -> Iterator[list[socket.socket]]:
    """Have clients who were all asked for a name."""
    with contextlib.ExitStack() as stack:
        socks: list[socket.socket] = []
        while len(socks) < number:
            coming = [
                stack.enter_context(connect(port)) for _ in range(min(AT_ONCE, number - len(socks)))
            ]
            for sock in coming:
                expect(sock, WELCOME + PROMPT)
            socks += coming
        yield socks


def leave(socks: Sequence[socket.socket]) -> None:
    """Say `exit` on each connection, and hear the end of it."""
    for sock in socks:
        sock.sendall(EXIT_LINE)
    for sock in socks:
        expect(sock, GOODBYE)
        expect(sock, b"")


def transcript(names: Sequence[bytes]) -> bytes:
    """Return all that is said to a client who has sent these names in lines, up to the next name."""
    return WELCOME + PROMPT + b"".join(HELLO + name + BANG + PROMPT for name in names)


class Chat:
    """Honest clients: each sends a name, and the next when all have their replies, of which each byte is checked.

    They do so in a thread of their own, as long as the context lasts, and pause so many seconds
    after each round.
    """

    def __init__(self, port: int, clients: int, pause: float = 0.0) -> None:
        self._crowd = crowd(port, clients)
        self._pause = pause
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._greeted = 0
        self._failures: list[str] = []
        self._slowest = 0.0  # seconds

    def __enter__(self) -> Self:
        self._socks = self._crowd.__enter__()
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()
        self._crowd.__exit__(None, None, None)

    def _run(self) -> None:
        try:
            while not self._over.wait(self._pause):
                start = time.monotonic()
                exchanges = [exchange(self._greeted + number) for number in range(len(self._socks))]
                for sock, (line, _) in zip(self._socks, exchanges, strict=True):
                    sock.sendall(line)
                for sock, (_, reply) in zip(self._socks, exchanges, strict=True):
                    expect(sock, reply)
                self._greeted += len(exchanges)
                self._slowest = max(self._slowest, time.monotonic() - start)
            leave(self._socks)
        except (OSError, WrongReplyError) as exc:
            self._failures.append(str(exc))

    def findings(self) -> Iterator[Finding]:
        """Tell what they heard, when it is over."""
        yield none_of("wrong replies to honest clients", self._failures, self._greeted)
        yield Finding("slowest of these", f"{self._slowest * 1000:,.3g} ms")
