"""The reference server: one level-triggered epoll loop, which handles each chunk name by name.

It speaks Greeter's line framing, asks for the first name at once, and ends a conversation as
Greeter does: GOODBYE, a half-close, then it waits for the client's. It leaves out what the loads do
not use: names without a terminator, pacing, a limit on the size of a name, a log, time limits. So
it is about the least that a single-threaded Python server can do, and the base of the ratios.

The servers in `frameworks` share its `answer` and its words. They also have an idle timeout.
"""

import contextlib
import select
import socket
from typing import Any

from tests.support.words import BANG, GOODBYE, HELLO, PROMPT, WELCOME

_select: Any = select  # only Linux has epoll

HOST = "127.0.0.1"
BACKLOG = 1024  # connections
CHUNK_SIZE = 65536  # bytes
IDLE_TIMEOUT = 300.0  # seconds, Greeter's default; the epoll loop has none

OPENING = WELCOME + PROMPT
_ANSWER_END = BANG + PROMPT


def answer(data: bytes) -> tuple[bytes, bytes, bool]:
    """Return the reply to all lines, what follows the last of them, and whether `exit` came."""
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n")
    names = data.split(b"\n")
    tail = names.pop()
    words = []
    for name in names:
        if name == b"exit":
            words.append(GOODBYE)
            return b"".join(words), b"", True
        words.append(HELLO + name + _ANSWER_END if name else PROMPT)
    return b"".join(words), tail, False


def serve_epoll() -> None:
    """Greet clients until a signal ends the process."""
    clients: dict[int, _Client] = {}
    with socket.create_server((HOST, 0), backlog=BACKLOG) as listener, _select.epoll() as epoll:
        listener.settimeout(0)
        epoll.register(listener, _select.EPOLLIN)
        while True:
            for fd, _ in epoll.poll():
                client = clients.get(fd)
                if client is None:
                    with contextlib.suppress(OSError):  # the client has given up already
                        sock, _ = listener.accept()
                        clients[sock.fileno()] = _Client(sock, epoll)
                elif not client.handle_event():
                    del clients[fd]


class _Client:
    __slots__ = ("_epoll", "_over", "_sock", "_tail", "_unsent")

    def __init__(self, sock: socket.socket, epoll: Any) -> None:
        sock.settimeout(0)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        epoll.register(sock, _select.EPOLLIN)
        self._sock = sock
        self._epoll = epoll
        self._tail = b""
        self._unsent = b""
        self._over = False  # GOODBYE is sent, or part of `_unsent`
        self._send(OPENING)

    def handle_event(self) -> bool:
        """Read or write once; return False when the connection is closed."""
        try:
            if self._unsent:  # nothing is read until it is sent
                self._send(self._unsent)
                if not self._unsent:
                    self._epoll.modify(self._sock, _select.EPOLLIN)
                return True
            data = self._sock.recv(CHUNK_SIZE)
            if data and not self._over:
                reply, self._tail, self._over = answer(self._tail + data)
                if reply:
                    self._send(reply)
        except BlockingIOError:
            return True
        except OSError:
            data = b""
        if not data:
            self._sock.close()
        return bool(data)

    def _send(self, data: bytes) -> None:
        """Send what the kernel takes; keep the rest until the socket is writable."""
        try:
            self._unsent = data[self._sock.send(data) :]
        except BlockingIOError:
            self._unsent = data
        if self._unsent:
            self._epoll.modify(self._sock, _select.EPOLLOUT)
        elif self._over:
            self._sock.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        serve_epoll()
