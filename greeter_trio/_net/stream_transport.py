"""The transport over any of Trio's streams: TLS, memory, a stream of the caller's own making."""

from abc import abstractmethod

import trio

from . import kernel
from .socket_transport import reset_at_close, transport_over_socket
from .transport import BROKEN, SIZE, Transport, broken

_BUFFERED = 65536  # bytes, more than a stream such as TLS holds back
_PASSES = 10  # of the scheduler; a stream that has something hands it over within a few


def transport_over(stream: trio.abc.Stream) -> Transport:
    """Return the best transport for a stream, which remains the caller's to close."""
    if isinstance(stream, trio.SocketStream) and stream.socket.fileno() >= 0:  # it is not closed
        return transport_over_socket(stream)
    return StreamTransport(stream)


class SteppedStream(trio.abc.Stream):
    """A Trio stream that can also send in steps, so that a send can be cancelled without harm."""

    @abstractmethod
    async def send_some(self, data: bytes | memoryview) -> int:
        """Send a part of it, however long that takes; return how many bytes that was.

        After a cancellation call it again with the same data, if there is more to send, or with
        more behind that.
        """


class StreamTransport(Transport):
    """Any Trio stream.

    Most have no way to send a part: a `send_some` that was cancelled breaks this transport, unless
    the stream is a `SteppedStream`.
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
        except BROKEN as exc:
            raise broken(exc) from exc

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
            # It is soon over, and a cancellation must not lose what was received.
            nursery.cancel_scope.shield = True
            nursery.start_soon(receive)
            for _ in range(_PASSES):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        if failure:
            raise failure
        return received

    def arrived(self) -> int:
        sock = socket_under(self._stream)
        return _BUFFERED if sock is None else _BUFFERED + kernel.bytes_arrived(sock)

    def send_now(self, data: bytes | memoryview) -> int:  # noqa: ARG002 - a stream may always wait
        return 0

    async def send_some(self, data: bytes | memoryview) -> int:
        try:
            if isinstance(self._stream, SteppedStream):
                return await self._stream.send_some(data)
            return await self._send_all(data)
        except BROKEN as exc:
            raise broken(exc) from exc

    async def _send_all(self, data: bytes | memoryview) -> int:
        if self._half_sent:
            raise trio.BrokenResourceError(
                "a send was cancelled, and it is not known how much of it was sent"
            )
        self._half_sent = True
        await self._stream.send_all(data)
        self._half_sent = False
        return len(data)

    async def send_eof(self, timeout: float) -> None:  # noqa: ASYNC109 - the driver decides it
        try:
            with trio.move_on_after(timeout):
                if isinstance(self._stream, trio.abc.HalfCloseableStream):
                    await self._stream.send_eof()
                else:
                    await self._stream.aclose()
        except BROKEN as exc:
            raise broken(exc) from exc

    def is_in_flight(self) -> bool:
        sock = socket_under(self._stream)
        return sock is not None and kernel.is_in_flight(sock)

    def reset_at_close(self, *, on: bool) -> None:
        sock = socket_under(self._stream)
        if sock is not None:
            reset_at_close(sock, on=on)

    def close(self) -> None:
        pass


def socket_under(stream: object) -> trio.socket.SocketType | None:
    """Return the socket below a stream and the streams that wrap it, if there is one."""
    while not isinstance(stream, trio.SocketStream):
        stream = getattr(stream, "transport_stream", None)
        if stream is None:
            return None
    return stream.socket
