"""The transport for TCP and Unix sockets.

It reads and writes a socket of the standard library. Trio's `SocketStream` is not used: it has no
calls that never wait, and it guards against two tasks that use it at the same time, which the
driver does not need and pays for with every greeting.
"""

import contextlib
import errno
import os
import socket
import struct
import sys
from typing import Protocol

import trio

from . import kernel
from .readiness import Watch
from .transport import SIZE, Transport, broken

_TCP = (socket.AF_INET, socket.AF_INET6)
_LINGER = struct.Struct("hh" if sys.platform == "win32" else "ii")  # struct linger, socket(7)


KEEPALIVE = {  # tcp(7); the first two are the same on Linux and on macOS: seconds without traffic
    "TCP_KEEPIDLE": 30,
    "TCP_KEEPALIVE": 30,
    "TCP_KEEPINTVL": 10,  # seconds between probes
    "TCP_KEEPCNT": 9,  # probes
}
"""A peer that answers nothing is lost after 120 seconds, if nothing is on its way to it."""
USER_TIMEOUT = 120
"""The same in seconds for what is on its way, which keeps keepalive from probing (RFC 5482)."""
_MARGIN = 30  # seconds that the user timeout is longer than the patience of the program
_MOST = 2**31  # milliseconds; what is more is no int


class _WithOptions(kernel.Socket, Protocol):
    def setsockopt(self, level: int, option: int, value: int | bytes, /) -> None: ...


class _Socket(_WithOptions, Protocol):
    """What is needed of a socket; none of these calls may wait."""

    def recv(self, size: int, /) -> bytes: ...
    def send(self, data: bytes | memoryview, /) -> int: ...
    def shutdown(self, how: int, /) -> None: ...


class SocketTransport(Transport):
    """A TCP or Unix socket, which must be non-blocking."""

    __slots__ = ("_sock", "_watch")

    def __init__(self, sock: _Socket, watch: Watch) -> None:
        self._sock = sock
        self._watch = watch

    async def receive(self) -> bytes:
        watch = self._watch
        while True:
            try:
                await watch.wait()
                data = self._sock.recv(SIZE)
            except BlockingIOError:
                watch.ready = False
            except OSError as exc:
                raise broken(exc) from exc
            else:
                if len(data) < SIZE:
                    watch.read_short()
                return data

    async def receive_arrived(self) -> bytes | None:
        try:
            return self._sock.recv(SIZE)
        except BlockingIOError:
            return None
        except OSError as exc:
            raise broken(exc) from exc

    def arrived(self) -> int:
        return kernel.bytes_arrived(self._sock)

    def send_now(self, data: bytes | memoryview) -> int:
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0
        except OSError as exc:
            raise broken(exc) from exc

    async def send_some(self, data: bytes | memoryview) -> int:
        sent = 0
        while not sent:
            fd = self._sock.fileno()
            if fd < 0:  # closed by another task; Trio would never end a wait for descriptor -1
                raise trio.BrokenResourceError(os.strerror(errno.EBADF))
            await trio.lowlevel.wait_writable(fd)
            sent = self.send_now(data)
        return sent

    async def send_eof(self, timeout: float) -> None:  # noqa: ARG002, ASYNC109 - never waits
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError as exc:
            raise broken(exc) from exc

    def is_in_flight(self) -> bool:
        return kernel.is_in_flight(self._sock)

    def reset_at_close(self, *, on: bool) -> None:
        reset_at_close(self._sock, on=on)

    def close(self) -> None:
        self._watch.close()


def set_options(sock: _WithOptions, patience: float) -> None:
    """Give a connected TCP socket the options of Trio's `SocketStream`, and keepalive.

    A connection over a path that has died breaks within two minutes or so. For Linux a peer that
    reads nothing is like such a path, so this takes longer than the `patience`, in seconds, that
    the program has with such a peer.
    """
    if sock.family not in _TCP:
        return
    options = {"TCP_NODELAY": 1, "TCP_NOTSENT_LOWAT": SIZE, **KEEPALIVE}
    user_timeout = max(USER_TIMEOUT, patience + _MARGIN) * 1000
    if user_timeout < _MOST:
        options["TCP_USER_TIMEOUT"] = int(user_timeout)
    numbers = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for name, value in options.items():
        option = getattr(socket, name, None)  # no platform has all of them
        if option is not None:
            numbers.append((socket.IPPROTO_TCP, option, value))
    for level, option, value in numbers:
        with contextlib.suppress(OSError):  # it is not supported, or the connection is gone
            sock.setsockopt(level, option, value)


def reset_at_close(sock: _WithOptions, *, on: bool) -> None:
    """Have a TCP socket send RST when it is closed, and drop what is unsent; or not, as at first.

    A plain close would end the stream in good order, wherever the last word has been cut off.
    """
    if sock.family in _TCP:
        with contextlib.suppress(OSError):  # it is closed
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER.pack(on, 0))


def transport_over_socket(stream: trio.SocketStream) -> SocketTransport:
    """Return a transport for an open stream's socket, which the stream goes on to own."""
    return SocketTransport(_Borrowed(stream.socket), Watch(stream.socket))


class _Borrowed:
    """One of Trio's sockets, read and written with calls that never wait; Trio's have none."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self._sock = sock
        self._alias = _Alias(sock.family, sock.type, sock.proto, sock.fileno())
        self._alias.settimeout(0)

    @property
    def family(self) -> int:
        return self._sock.family

    def fileno(self) -> int:
        return self._sock.fileno()

    def recv(self, size: int, /) -> bytes:
        self._check_open()
        return self._alias.recv(size)

    def send(self, data: bytes | memoryview, /) -> int:
        self._check_open()
        return self._alias.send(data)

    def shutdown(self, how: int, /) -> None:
        self._sock.shutdown(how)

    def setsockopt(self, level: int, option: int, value: int | bytes, /) -> None:
        self._sock.setsockopt(level, option, value)

    def _check_open(self) -> None:
        if self._sock.fileno() < 0:  # another file may have got the descriptor since then
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))


class _Alias(socket.socket):
    """A second object for a descriptor that another one owns and closes.

    A copy of the descriptor (`socket.dup`) would keep the connection open until it is closed, too.
    """

    def __del__(self) -> None:
        self.detach()
