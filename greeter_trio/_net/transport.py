"""Byte streams as the driver sees them: what never waits apart from what does.

A `Transport` is one end of a reliable byte stream. `SocketTransport` is the one for TCP and Unix
sockets; `StreamTransport` goes around any Trio stream. `transport_over` chooses.

Trio's `SocketStream` is not used for sockets: it has no calls that never wait, and guards against
two tasks that use it at the same time, which the driver does not need.
"""

import contextlib
import errno
import os
import socket
import struct
import sys
from abc import ABC, abstractmethod
from typing import Protocol

import trio

from .optional import optional
from .readiness import Watch
from .tls_words import explain

_fcntl, _termios = optional("fcntl"), optional("termios")

SIZE = (
    16384  # bytes to receive at once; a peer that never reads makes a server keep 17 times as much
)
_MANY = 2**20  # bytes, more than a receive buffer usually holds
_BUFFERED = 65536  # bytes, more than a stream such as TLS holds back
_PASSES = 10  # of the scheduler; a Trio stream that has something hands it over within a few
_BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError)


class Transport(ABC):
    """One end of a byte stream. What breaks it raises `trio.BrokenResourceError`, with a message for people.

    Where another task closes it meanwhile, that may be `trio.ClosedResourceError`.
    """

    __slots__ = ()

    @abstractmethod
    async def receive(self) -> bytes | bytearray:
        """Wait for bytes and return them; `b""` is the end of the stream. Cancelled, it has lost nothing."""

    @abstractmethod
    async def receive_arrived(self) -> bytes | bytearray | None:
        """Return bytes that have arrived (about 16 KiB at most), `b""` for the end, or None for neither."""

    @abstractmethod
    def arrived(self) -> int:
        """Return how many bytes have arrived that were not received: at least, where that is not known."""

    @abstractmethod
    def send_now(self, data: bytes | memoryview) -> int:
        """Send what goes without waiting; return how many bytes that was."""

    @abstractmethod
    async def send_some(self, data: bytes | memoryview) -> int:
        """Wait as long as it takes to send some bytes, 1 or more; return how many.

        Cancelled, it has sent nothing, or the transport is broken.
        """

    @abstractmethod
    async def send_eof(self, patience: float) -> None:
        """End the sending direction; or, where that is not possible, close.

        TLS has a last word of its own: a peer that does not take it in so many seconds goes
        without.
        """

    @abstractmethod
    def is_in_flight(self) -> bool:
        """Return whether the peer's kernel has yet to acknowledge something; False if nobody can tell."""

    @abstractmethod
    def close(self) -> None:
        """Release what the transport itself holds. The stream or socket remains its owner's to close."""


class _Socket(Protocol):
    """What is needed of a socket, which never waits."""

    @property
    def family(self) -> int: ...
    def fileno(self) -> int: ...
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
                raise _broken(exc) from exc
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
            raise _broken(exc) from exc

    def arrived(self) -> int:
        return _arrived(self._sock)

    def send_now(self, data: bytes | memoryview) -> int:
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0
        except OSError as exc:
            raise _broken(exc) from exc

    async def send_some(self, data: bytes | memoryview) -> int:
        sent = 0
        while not sent:
            fd = self._sock.fileno()
            if (
                fd < 0
            ):  # another task has closed it; to wait for -1 would leave Trio a task that waits for ever
                raise trio.BrokenResourceError(os.strerror(errno.EBADF))
            await trio.lowlevel.wait_writable(fd)
            sent = self.send_now(data)
        return sent

    async def send_eof(self, patience: float) -> None:  # noqa: ARG002 - this does not wait
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError as exc:
            raise _broken(exc) from exc

    def is_in_flight(self) -> bool:
        return _is_in_flight(self._sock)

    def close(self) -> None:
        self._watch.close()


class SteppedStream(trio.abc.Stream):
    """A Trio stream that can also send in steps."""

    @abstractmethod
    async def send_some(self, data: bytes | memoryview) -> int:
        """Send a part of it, however long that takes; return how many bytes that was.

        After a cancellation call it again with the same data, if there is more to send, or with
        more behind that.
        """


class StreamTransport(Transport):
    """Any Trio stream: TLS, memory, a stream of the caller's own making.

    Most have no way to send a part: `send_some` that was cancelled breaks this transport, unless it
    is a `SteppedStream`.
    """

    __slots__ = ("_broken", "_half_sent", "_stream")

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._half_sent = False
        self._broken: trio.BrokenResourceError | None = None  # found behind bytes that had arrived

    async def receive(self, size: int = SIZE) -> bytes | bytearray:
        if self._broken:
            raise self._broken
        try:
            return await self._stream.receive_some(size)
        except _BROKEN as exc:
            raise _broken(exc) from exc

    async def receive_arrived(self) -> bytes | bytearray | None:
        # A Trio stream does not tell what has arrived. But what has, it hands over within a few
        # passes of the scheduler. All of it is one arrival: TLS returns no more than one record.
        arrived: bytes | bytearray = b""
        while len(arrived) < SIZE:
            try:
                more = await self._receive_within_passes(SIZE - len(arrived))
            except trio.BrokenResourceError as exc:
                self._broken = exc
                if arrived:
                    return arrived
                raise
            if not more:
                return arrived or more  # the next receive tells the end again
            arrived += more
        return arrived

    async def _receive_within_passes(self, size: int) -> bytes | bytearray | None:
        received: bytes | bytearray | None = None
        failure: Exception | None = None  # to be raised without a group

        async def receive() -> None:
            nonlocal received, failure
            try:
                received = await self.receive(size)
            except Exception as exc:  # noqa: BLE001 - it is raised below
                failure = exc
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.cancel_scope.shield = (
                True  # it is soon over, and what was received must not be lost
            )
            nursery.start_soon(receive)
            for _ in range(_PASSES):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        if failure:
            raise failure
        return received

    def arrived(self) -> int:
        sock = _socket_under(self._stream)
        return _BUFFERED if sock is None else _BUFFERED + _arrived(sock)

    def send_now(self, data: bytes | memoryview) -> int:  # noqa: ARG002 - a Trio stream may always wait
        return 0

    async def send_some(self, data: bytes | memoryview) -> int:
        try:
            if isinstance(self._stream, SteppedStream):
                return await self._stream.send_some(data)
            return await self._send_all(data)
        except _BROKEN as exc:
            raise _broken(exc) from exc

    async def _send_all(self, data: bytes | memoryview) -> int:
        if self._half_sent:
            msg = "a send was cancelled, and it is not known how much of it was sent"
            raise trio.BrokenResourceError(msg)
        self._half_sent = True
        await self._stream.send_all(data)
        self._half_sent = False
        return len(data)

    async def send_eof(self, patience: float) -> None:
        try:
            with trio.move_on_after(patience):
                if isinstance(self._stream, trio.abc.HalfCloseableStream):
                    await self._stream.send_eof()
                else:
                    await self._stream.aclose()
        except _BROKEN as exc:
            raise _broken(exc) from exc

    def is_in_flight(self) -> bool:
        sock = _socket_under(self._stream)
        return sock is not None and _is_in_flight(sock)

    def close(self) -> None:
        pass


def set_options(sock: socket.socket) -> None:
    """Give a connected socket the options that Trio's `SocketStream` gives it (TCP only)."""
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):  # it is gone already
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if hasattr(socket, "TCP_NOTSENT_LOWAT"):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, SIZE)


def transport_over(stream: trio.abc.Stream) -> Transport:
    """Return a transport over a Trio stream, which remains the caller's to close."""
    if isinstance(stream, trio.SocketStream) and stream.socket.fileno() >= 0:  # it is not closed
        return SocketTransport(_Borrowed(stream.socket), Watch(stream.socket))
    return StreamTransport(stream)


class _Borrowed:
    """A socket of Trio's, read and written past it, because it has no public calls that never wait."""

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

    def _check_open(self) -> None:
        if self._sock.fileno() < 0:  # then the descriptor may be another's already
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))


class _Alias(socket.socket):
    """A second object for a descriptor that another one owns, and closes.

    A copy of the descriptor (`socket.dup`) would keep the connection open until that is closed,
    too.
    """

    def __del__(self) -> None:
        self.detach()


def _broken(exc: Exception) -> trio.BrokenResourceError:
    words = exc.strerror if isinstance(exc, OSError) else explain(exc)
    return trio.BrokenResourceError(words or type(exc).__name__)


def _socket_under(stream: object) -> trio.socket.SocketType | None:
    """Return the socket below a stream and what it is wrapped in, if there is one."""
    while not isinstance(stream, trio.SocketStream):
        stream = getattr(stream, "transport_stream", None)
        if stream is None:
            return None
    return stream.socket


# What the kernel can be asked about a socket


def _arrived(sock: _Socket | trio.socket.SocketType) -> int:
    return _ask(sock, "FIONREAD", _MANY)  # tcp(7), unix(7)


def _is_in_flight(sock: _Socket | trio.socket.SocketType) -> bool:
    if sys.platform != "linux" or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return False  # what is sent to a Unix socket has arrived
    return _ask(sock, "TIOCOUTQ", 0) > 0  # SIOCOUTQ in tcp(7), by its other name


def _ask(sock: _Socket | trio.socket.SocketType, request: str, unknown: int) -> int:
    """Return what ioctl(2) answers to a request: a number, or `unknown` where it cannot be asked."""
    if not (_fcntl and _termios):
        return unknown
    if sock.fileno() < 0:
        return 0  # it is closed
    try:
        answer = _fcntl.ioctl(sock.fileno(), getattr(_termios, request), bytes(4))
    except OSError:
        return unknown
    (number,) = struct.unpack("i", answer)
    return int(number)
