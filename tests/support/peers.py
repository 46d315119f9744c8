"""Scripted peers: the other end of a stream, moved by a test."""

import contextlib
import socket
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import trio
import trio.testing

from greeter_trio._net.listeners import Listener

from .streams import StreamPair, stream_of
from .words import GOODBYE, PROMPT, WELCOME, hello

EOF = b""
"""In what was heard: the end of the stream."""


class Peer:
    """The other end of a stream, moved by the test, with a record of what it heard and when."""

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        self.stream = stream
        self.chunks: list[tuple[float, bytes]] = []
        self._expected = 0

    @property
    def heard(self) -> bytes:
        """All that was heard."""
        return b"".join(chunk for _, chunk in self.chunks)

    async def say(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def hear(self) -> bytes:
        """Receive what one read returns."""
        data = bytes(await self.stream.receive_some())
        self.chunks.append((round(trio.current_time(), 6), data))
        return data

    async def hear_all(self) -> list[tuple[float, bytes]]:
        """Receive until the end of the stream; return all that was ever heard, with its times."""
        while await self.hear():
            pass
        return self.chunks

    async def expect(self, words: bytes) -> None:
        """Receive exactly these bytes, after those that were expected before."""
        until = self._expected + len(words)
        while len(self.heard) < until and await self.hear():
            pass
        assert self.heard[self._expected : until] == words
        self._expected = until

    async def expect_end(self) -> None:
        """Receive the end of the stream, and nothing before it."""
        assert len(self.heard) == self._expected
        assert await self.hear() == EOF

    async def meet(self) -> None:
        """Be welcomed, and asked for the first name."""
        await self.expect(WELCOME + PROMPT)

    async def be_greeted(self, *names: bytes) -> None:
        """Have names greeted, one after the other."""
        for name in names:
            await self.say(name + b"\n")
            await self.expect(hello(name) + PROMPT)

    async def leave(self) -> None:
        """Say exit, hear goodbye and the end, and close."""
        await self.say(b"exit\n")
        await self.expect(GOODBYE)
        await self.expect_end()
        await self.close()

    async def end(self) -> None:
        await self.stream.send_eof()

    async def close(self) -> None:
        await self.stream.aclose()

    def reset(self) -> None:
        """Break a TCP connection at once, also below TLS: the other side gets RST."""
        stream: Any = getattr(self.stream, "transport_stream", self.stream)
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        stream.socket.close()


NO_LINGER = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
"""The value of SO_LINGER with which close sends RST."""


async def connect(port: int, host: str = "127.0.0.1") -> Peer:
    return Peer(await trio.open_tcp_stream(host, port))


@contextlib.asynccontextmanager
async def background(
    run: Callable[[trio.abc.HalfCloseableStream], Awaitable[object]],
    make: Callable[[], StreamPair] = trio.testing.memory_stream_pair,
) -> AsyncIterator[Peer]:
    """Run something over one end of new streams; the test has the other end until it returns."""
    ours, theirs = make()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, ours)
        yield Peer(theirs)
    await theirs.aclose()


@contextlib.asynccontextmanager
async def scripted(script: Callable[[Peer], Awaitable[object]]) -> AsyncIterator[int]:
    """Run a script for each TCP connection, in place of a server; yields the port."""

    async def play(stream: trio.SocketStream) -> None:
        await script(Peer(stream))

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, play, 0, host="127.0.0.1"))
        yield tcp_port(listeners[0])
        nursery.cancel_scope.cancel()


def tcp_port(listener: Listener | trio.SocketListener) -> int:
    port: int = listener.socket.getsockname()[1]
    return port


async def connect_to(listener: trio.SocketListener) -> Peer:
    """Connect to a listener of any family."""
    sock = trio.socket.socket(listener.socket.family)
    await sock.connect(listener.socket.getsockname())
    return Peer(trio.SocketStream(sock))


def connect_now(port: int) -> Peer:
    """Connect over loopback while no other task runs."""
    return Peer(stream_of(socket.create_connection(("127.0.0.1", port))))
