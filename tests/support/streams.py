"""Streams for tests: pairs of all kinds, and a wrapper that notes calls, and fails."""

import socket
import ssl
from typing import Any, TypeAlias

import attrs
import trio

from greeter_trio._net.tls_stream import TLSStream

StreamPair: TypeAlias = tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]
Contexts: TypeAlias = tuple[ssl.SSLContext, ssl.SSLContext]
Ends: TypeAlias = tuple[TLSStream, TLSStream]


@attrs.frozen
class Fault:
    """What a `Tap` does at one of its calls: raise, instead of passing it on."""

    call: str
    number: int
    exception: Exception


class Tap(trio.abc.HalfCloseableStream):
    """Passes everything on to another stream, notes each call, and fails where it is told to.

    With `sip` one receive returns so many bytes at most.
    """

    def __init__(
        self, stream: trio.abc.HalfCloseableStream, fault: Fault | None = None, *, sip: int = 2**20
    ) -> None:
        self.calls: list[str] = []
        self._stream = stream
        self.fault = fault
        self._sip = sip

    def _note(self, call: str) -> None:
        self.calls.append(call)
        if self.fault and self.fault.call == call and self.fault.number == self.calls.count(call):
            raise self.fault.exception

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        await trio.lowlevel.checkpoint()
        self._note("receive")
        return await self._stream.receive_some(min(self._sip, max_bytes or self._sip))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        self._note("send")
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        raise NotImplementedError

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()
        self._note("eof")
        await self._stream.send_eof()

    async def aclose(self) -> None:
        self._note("close")
        await self._stream.aclose()


def _connected(family: str) -> tuple[socket.socket, socket.socket]:
    if family == "Unix":
        return socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        return listener.accept()[0], client


def sockets(family: str = "TCP") -> tuple[socket.socket, trio.SocketStream]:
    """Return a non-blocking socket of the standard library, and the other end as a stream."""
    ours, theirs = _connected(family)
    ours.settimeout(0)
    return ours, stream_of(theirs)


def stream_of(sock: socket.socket) -> trio.SocketStream:
    return trio.SocketStream(trio.socket.from_stdlib_socket(sock))


def tcp_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    ours, theirs = _connected("TCP")
    return stream_of(ours), stream_of(theirs)


def unix_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    ours, theirs = _connected("Unix")
    return stream_of(ours), stream_of(theirs)


def tls_ends(
    contexts: Contexts, pair: StreamPair, host: str = "localhost", kind: type[TLSStream] = TLSStream
) -> Ends:
    """Return a server's and a client's end of TLS over these streams, before the handshake."""
    server = kind(pair[0], contexts[0], server_side=True)
    return server, kind(pair[1], contexts[1], server_side=False, server_hostname=host)


async def shake_hands(*ends: "TLSStream | trio.SSLStream[Any]") -> None:
    async with trio.open_nursery() as nursery:
        for end in ends:
            nursery.start_soon(end.do_handshake)
