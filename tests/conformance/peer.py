"""A client on a socket: it says what came, and when, if that is not what was expected."""

import contextlib
import math
import os
import socket
import struct
import sys
from collections.abc import AsyncIterator
from typing import Any, Final

import trio

Address = tuple[socket.AddressFamily, Any]
"""A family of addresses, and one of them as `connect` takes it."""

READ_SIZE: Final = 16384
EARLY: Final = 0.002
"""Seconds that a word may come before its time: some clocks count milliseconds."""
PATIENCE: Final = 5.0
"""Seconds that an answer may take where the protocol does not say when it comes."""

_EXCERPT = 64  # bytes
_NO_LINGER = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
_QUICKACK: Any = getattr(socket, "TCP_QUICKACK", None)  # Linux


class Fault(Exception):
    """The server does not conform: what was expected, and what came instead."""

    def __init__(self, expected: str, got: str) -> None:
        super().__init__(f"expected {expected}, got {got}")
        self.expected = expected
        self.got = got


class TooLateError(Exception):
    """The client could not keep to its times, so that this try says nothing about the server."""


class NoConnectionError(Exception):
    """The server cannot be connected to; the message says why."""


class Peer:
    """The client's end of a connection. All times are those of `trio.current_time`."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._heard = b""  # and not expected yet
        self._heard_at = -math.inf

    async def say(self, data: bytes) -> None:
        """Send all of this."""
        unsent = memoryview(data)
        while unsent:
            unsent = unsent[await self.say_some(unsent) :]

    async def say_some(self, data: bytes | memoryview) -> int:
        """Wait until there is room, and fill it; return how many bytes that took."""
        while True:
            try:
                return self._sock.send(data)
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._sock)

    def end(self) -> None:
        """End this side of the connection (half-close)."""
        self._sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Break the connection with RST."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self._sock.close()

    async def hear(
        self, words: bytes, *, since: float = -math.inf, by: float | None = None
    ) -> float:
        """Hear these words next, all of them by then; return when the first of them came.

        None of them may come before `since`. Whatever comes after them is kept for the next call.
        """
        by = trio.current_time() + PATIENCE if by is None else by
        first, count = math.inf, 0
        while count < len(words):
            data = await self.read(by)
            wanted = words[count:]
            expected = excerpt(wanted) + (f" after {excerpt(words[:count])}" if count else "")
            if not data:
                raise Fault(expected, _nothing(data))
            if not (wanted.startswith(data) or data.startswith(wanted)):
                raise Fault(*_difference(wanted, data))
            if self._heard_at < since - EARLY:
                raise Fault(expected, f"that, {since - self._heard_at:.3f} s too early")
            first = min(first, self._heard_at)
            count += min(len(data), len(wanted))
            self._heard = data[len(wanted) :]
        return first

    async def hear_end(self, *, by: float | None = None) -> None:
        """Hear the end of the stream next."""
        data = await self.read(trio.current_time() + PATIENCE if by is None else by)
        if data != b"":
            raise Fault("the end of the stream", _nothing(data) if data is None else excerpt(data))

    async def hear_nothing(self, until: float) -> None:
        """Hear neither a word nor the end of the stream before that time."""
        data = await self.read(until)
        if data is not None:
            raise Fault("nothing yet", excerpt(data) if data else _nothing(data))

    async def read(self, until: float = math.inf) -> bytes | None:
        """Return what one read returns, `b""` at the end of the stream, or None for nothing."""
        if self._heard:
            data, self._heard = self._heard, b""
            return data
        with trio.CancelScope(deadline=until):
            await trio.lowlevel.wait_readable(self._sock)
        try:  # also after the deadline: it came in time if this process was late
            data = self._sock.recv(READ_SIZE)
        except BlockingIOError:
            return None
        self._heard_at = trio.current_time()
        if _QUICKACK is not None:  # a server may wait for the acknowledgement (S2.7)
            with contextlib.suppress(OSError):
                self._sock.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
        return data


@contextlib.asynccontextmanager
async def connected(
    address: Address, *, receive_buffer: int = 0, send_buffer: int = 0
) -> AsyncIterator[Peer]:
    """Connect to a server; the kernel keeps so many bytes of each direction, unless it is 0."""
    family, where = address
    with socket.socket(family) as sock:
        for option, size in (socket.SO_RCVBUF, receive_buffer), (socket.SO_SNDBUF, send_buffer):
            if size:
                sock.setsockopt(socket.SOL_SOCKET, option, size)
        try:
            with trio.fail_after(PATIENCE):
                await trio.socket.from_stdlib_socket(sock).connect(where)
        except (OSError, trio.TooSlowError) as exc:
            raise NoConnectionError(why(exc)) from None
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield Peer(sock)


def excerpt(data: bytes) -> str:
    """Return bytes as they are written in a program; of many, the first."""
    if len(data) <= _EXCERPT:
        return repr(data)
    return f"{data[:_EXCERPT]!r}... ({len(data)} bytes)"


def why(exc: Exception) -> str:
    """Return why a connection could not be made."""
    if isinstance(exc, trio.TooSlowError):
        return "no answer"
    if isinstance(exc, OSError) and exc.errno and not isinstance(exc, socket.gaierror):
        return os.strerror(exc.errno)  # without the address, which Trio puts before it
    return getattr(exc, "strerror", None) or str(exc)


def _nothing(data: bytes | None) -> str:
    return "nothing in time" if data is None else "the end of the stream"


def _difference(wanted: bytes, data: bytes) -> tuple[str, str]:
    """Return excerpts of both, from the word on in which they differ."""
    same = next(n for n, (one, other) in enumerate(zip(wanted, data, strict=False)) if one != other)
    start = max(0, same - 20)
    before = f"after {start} bytes more: " if start else ""
    return before + excerpt(wanted[start:]), before + excerpt(data[start:])
