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


class _WithOptions(kernel.Socket, Protocol):
    def setsockopt(self, level: int, option: int, value: bytes, /) -> None: ...


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


def set_options(sock: socket.socket) -> None:
    """Give a connected socket the options that Trio's `SocketStream` gives it (TCP only)."""
    if sock.family in _TCP:
        with contextlib.suppress(OSError):  # the connection is gone already
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if hasattr(socket, "TCP_NOTSENT_LOWAT"):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, SIZE)


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

    def setsockopt(self, level: int, option: int, value: bytes, /) -> None:
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
