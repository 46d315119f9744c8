"""A connected socket as a Trio stream that goes straight to the kernel.

`trio.SocketStream` does the same and more. What it costs (a guard, a conflict detector, a failing first attempt, two
coroutines more for each call) is a third of the CPU time of a greeting, so the server and the client take the socket
out of it and put this around it; `tests/benchmarks` shows the difference.
"""

import socket
from typing import final

import trio

_RECEIVE_SIZE = 65536  # bytes; what Trio uses, too


@final
class DirectStream(trio.abc.HalfCloseableStream):
    """A stream over a non-blocking, connected socket, which it owns."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    @classmethod
    def take(cls, stream: trio.SocketStream) -> "DirectStream":
        """Take the socket out of a stream, which is closed by that; TCP_NODELAY stays set."""
        taken = stream.socket
        sock = socket.socket(taken.family, taken.type, taken.proto, taken.detach())
        sock.settimeout(0)
        return cls(sock)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Wait for bytes and return them; b"" when the peer's stream has ended."""
        await trio.lowlevel.checkpoint()
        while True:
            try:
                return self._socket.recv(max_bytes or _RECEIVE_SIZE)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._socket)
            except OSError as exc:
                raise trio.BrokenResourceError(str(exc)) from exc

    def send_nowait(self, data: bytes) -> bytes:
        """Send what the kernel takes at once; return the rest. This is no checkpoint."""
        try:
            return data[self._socket.send(data) :]
        except BlockingIOError:
            return data
        except OSError as exc:
            raise trio.BrokenResourceError(str(exc)) from exc

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send everything, however long the peer takes to read it. If this is cancelled, some of it was sent."""
        rest = memoryview(data)
        while rest:
            await trio.lowlevel.wait_writable(self._socket)
            try:
                rest = rest[self._socket.send(rest) :]
            except BlockingIOError:
                continue
            except OSError as exc:
                raise trio.BrokenResourceError(str(exc)) from exc

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.wait_writable(self._socket)

    async def send_eof(self) -> None:
        """End this side of the stream (a TCP half-close)."""
        await trio.lowlevel.checkpoint()
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as exc:
            raise trio.BrokenResourceError(str(exc)) from exc

    async def aclose(self) -> None:
        trio.lowlevel.notify_closing(self._socket)
        self._socket.close()
        await trio.lowlevel.checkpoint()
