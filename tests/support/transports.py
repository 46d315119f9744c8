"""Transports of all kinds, each with the peer at its other end, and some that follow a script."""

import contextlib
import math
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import attrs
import pytest
import trio
from trio.testing import lockstep_stream_pair, memory_stream_pair

from greeter_trio._net.readiness import Watch, open_readiness
from greeter_trio._net.socket_transport import SocketTransport
from greeter_trio._net.stream_transport import transport_over
from greeter_trio._net.transport import SIZE, Transport

from .certificates import Authority
from .peers import Peer
from .streams import StreamPair, shake_hands, sockets, tcp_pair, tls_ends, unix_pair

PATTERN = b"".join(b"%07d\n" % number for number in range(200_000))
"""Bytes no eighth of which is like another, so that what is lost or doubled is seen."""

BLOCK = 6 * SIZE
"""So many of them are sent at once: as much as some full reads, less than any kernel buffers."""


@attrs.define
class Pair:
    """A transport, and the peer at the other end."""

    transport: Transport
    peer: Peer
    close: Callable[[], Awaitable[object]]
    """Closes what the transport goes over."""
    sock: socket.socket | trio.socket.SocketType | None = None
    """The socket below, if there is one."""

    async def send(self, data: bytes) -> None:
        """Send all of it, as the driver does."""
        sent = self.transport.send_now(data)
        while sent < len(data):
            sent += await self.transport.send_some(memoryview(data)[sent:])

    def fill(self, start: int = 0) -> int:
        """Send the pattern from there on until nothing goes without waiting; return how much."""
        sent = 0
        while more := self.transport.send_now(memoryview(PATTERN)[start + sent :]):
            sent += more
        return sent


Kind = Callable[[Authority], contextlib.AbstractAsyncContextManager[Pair]]


@contextlib.asynccontextmanager
async def _over_socket(_: Authority, *, family: str, edges: bool) -> AsyncIterator[Pair]:
    sock, peer = sockets(family)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * BLOCK)

    async def close() -> None:
        sock.close()

    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(peer)
        watch = Watch(sock)
        if edges:
            watch = (await stack.enter_async_context(open_readiness())).watch(sock)
        stack.callback(sock.close)
        transport = SocketTransport(sock, watch)
        stack.callback(transport.close)
        yield Pair(transport, Peer(peer), close, sock)


@contextlib.asynccontextmanager
async def over_stream(
    authority: Authority, *, make: Callable[[], StreamPair], secure: bool = False
) -> AsyncIterator[Pair]:
    """Yield the transport that is chosen for a stream, or for this package's TLS over it."""
    pair: StreamPair = make()
    sock = getattr(pair[0], "socket", None)
    if secure:
        pair = ends = tls_ends((authority.server(), authority.client()), pair)
        await shake_hands(*ends)
    ours, theirs = pair
    async with ours, theirs:
        yield Pair(transport_over(ours), Peer(theirs), ours.aclose, sock)


class _Whole(Peer):
    """A peer whose stream has no half-close: to end it is to close it."""

    async def end(self) -> None:
        await self.stream.aclose()

    async def close(self) -> None:
        await trio.aclose_forcefully(self.stream)


@contextlib.asynccontextmanager
async def _over_ssl_stream(authority: Authority) -> AsyncIterator[Pair]:
    left, right = memory_stream_pair()
    ours = trio.SSLStream(left, authority.server(), server_side=True)
    theirs = trio.SSLStream(right, authority.client(), server_hostname="localhost")
    await shake_hands(ours, theirs)
    yield Pair(transport_over(ours), _Whole(theirs), ours.aclose)  # type: ignore[arg-type]
    await trio.aclose_forcefully(ours)
    await trio.aclose_forcefully(theirs)


PLAIN: dict[str, Kind] = {
    "TCP": partial(_over_socket, family="TCP", edges=False),
    "Unix": partial(_over_socket, family="Unix", edges=False),
    "TCP-edges": partial(_over_socket, family="TCP", edges=True),
    "Unix-edges": partial(_over_socket, family="Unix", edges=True),
    "TCP-borrowed": partial(over_stream, make=tcp_pair),
    "Unix-borrowed": partial(over_stream, make=unix_pair),
}
TLS: dict[str, Kind] = {
    "TLS-TCP": partial(over_stream, make=tcp_pair, secure=True),
    "TLS-Unix": partial(over_stream, make=unix_pair, secure=True),
    "TLS-memory": partial(over_stream, make=memory_stream_pair, secure=True),
    "SSLStream": _over_ssl_stream,
}
MEMORY: dict[str, Kind] = {
    "memory": partial(over_stream, make=memory_stream_pair),
    "lockstep": partial(over_stream, make=lockstep_stream_pair),
}
ALL = PLAIN | TLS | MEMORY
IN_STEPS = (*PLAIN, "TLS-TCP", "TLS-Unix")
"""Where a send can be cancelled without harm."""


def kinds(*names: str) -> pytest.MarkDecorator:
    """Run a test with a `pair` of each of these kinds."""
    return pytest.mark.parametrize("pair", names, indirect=True)


class Narrow(Transport):
    """A transport whose steps the test decides: what arrives, how much goes at once, and when."""

    def __init__(self, *arrivals: bytes, goes_now: int) -> None:
        self.sent = b""
        self.at_once: int | None = None
        """How many bytes one blocked send takes; None is all."""
        self.steps = trio.Event()
        """Set when blocked sends may go on."""
        self.eof_timeout: float | None = None
        self.resets = False
        """Whether closing it would reset the connection."""
        self._goes_now = goes_now
        self._send, self._receive = trio.open_memory_channel[bytes](math.inf)
        for data in arrivals:
            self.arrive(data)

    def arrive(self, data: bytes) -> None:
        self._send.send_nowait(data)

    async def receive(self) -> bytes:
        return await self._receive.receive()

    async def receive_arrived(self) -> bytes | None:
        try:
            return self._receive.receive_nowait()
        except trio.WouldBlock:
            return None

    def arrived(self) -> int:
        return 0

    def send_now(self, data: bytes | memoryview) -> int:
        self.sent += data[: self._goes_now]
        return min(self._goes_now, len(data))

    async def send_some(self, data: bytes | memoryview) -> int:
        await self.steps.wait()
        taken = bytes(data[: self.at_once])
        self.sent += taken
        return len(taken)

    async def send_eof(self, timeout: float) -> None:  # noqa: ASYNC109 - as the interface has it
        self.eof_timeout = timeout

    def is_in_flight(self) -> bool:
        return False

    def reset_at_close(self, *, on: bool) -> None:
        self.resets = on

    def close(self) -> None:
        pass
