"""What the tests of the Trio side share: the words, scripted peers, fake streams, and a log that can be waited for.

Nothing here sleeps. Where time matters it is virtual: a test that asks for `autojump_clock` lives
at second 0 and jumps from deadline to deadline. Where sockets are the subject they are real ones,
over loopback. Every run comes to an end: `conftest.py` sees to that.
"""

import contextlib
import gc
import logging
import os
import socket
import ssl
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeAlias

import attrs
import trio
import trio.testing

from greeter_core import (
    ClientConfig,
    ClientConnection,
    ClientEvent,
    ConversationEnded,
    Framing,
    ServerConfig,
    ServerConnection,
    ServerEvent,
)
from greeter_trio import _server, serve_greeter
from greeter_trio._net.listeners import Listener, Tcp, open_listeners
from greeter_trio._net.tls import TLSStream, client_context, server_context
from greeter_trio._service.limits import Limits, Terms
from greeter_trio._service.log import logger

from .certificates import Authority

# The words are written out here, not imported: the tests have their own opinion of what is on the
# wire.
WELCOME = b"Welcome!\n"
PROMPT = b"What's your name?"
GOODBYE = b"Goodbye!\n"
TOO_SLOW = b"Sorry, no name came in time.\n"
EOF = b""
"""In what was heard: the end of the stream."""

LINES = ServerConfig(framing=Framing.LINES)
"""A server that waits for no time: what it says follows at once from what it hears."""

PATIENCE = 20
"""Real seconds after which a test is given up; it takes milliseconds, but the machine may be busy."""

SETTLED = 0.05
"""Real seconds without any I/O after which sockets are taken to be quiet, and virtual time may go on."""


class Server(ServerConnection):
    """A server whose events are kept when they are taken."""

    def __init__(self, config: ServerConfig = LINES, *, now: float) -> None:
        super().__init__(config, now=now)
        self.kept: list[ServerEvent] = []

    def events(self) -> list[ServerEvent]:
        """Take the events."""
        events = super().events()
        self.kept += events
        return events


class Client(ClientConnection):
    """A client whose events are kept when they are taken."""

    def __init__(self, config: ClientConfig, *, now: float) -> None:
        super().__init__(config, now=now)
        self.kept: list[ClientEvent] = []

    def events(self) -> list[ClientEvent]:
        """Take the events."""
        events = super().events()
        self.kept += events
        return events


Connection: TypeAlias = Server | Client
StreamPair: TypeAlias = tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]


def hello(name: bytes) -> bytes:
    """Return the greeting of one name."""
    return b"Hello " + name + b"!\n"


def dialogue(*names: bytes) -> bytes:
    """Return all that a server says to a client that tells it these names and then exit."""
    return WELCOME + PROMPT + b"".join(hello(name) + PROMPT for name in names) + GOODBYE


def ending(connection: Connection) -> ConversationEnded:
    """Return the last event that was taken, which says how the conversation ended."""
    last = connection.kept[-1]
    assert isinstance(last, ConversationEnded)
    return last


# Peers


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
        """Send bytes."""
        await self.stream.send_all(data)

    async def hear(self) -> bytes:
        """Receive what one read returns."""
        data = bytes(await self.stream.receive_some())
        self.chunks.append((round(trio.current_time(), 6), data))
        return data

    async def hear_all(self) -> list[tuple[float, bytes]]:
        """Receive until the end of the stream; return everything that was ever heard, with its time."""
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
        """Send the end of the stream."""
        await self.stream.send_eof()

    async def close(self) -> None:
        """Close the stream."""
        await self.stream.aclose()

    def reset(self) -> None:
        """Break a TCP connection at once: the other side gets RST."""
        assert isinstance(self.stream, trio.SocketStream)
        self.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        self.stream.socket.close()


NO_LINGER = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
"""The value of SO_LINGER with which close sends RST."""


async def connect(port: int, host: str = "127.0.0.1") -> Peer:
    """Connect to a server as somebody who can do anything with the connection."""
    return Peer(await trio.open_tcp_stream(host, port))


@contextlib.asynccontextmanager
async def background(
    run: Callable[[trio.abc.HalfCloseableStream], Awaitable[object]],
    make: Callable[[], StreamPair] = trio.testing.memory_stream_pair,
) -> AsyncIterator[Peer]:
    """Run something over one end of a new pair of streams, until it returns; the test has the other end until then."""
    ours, theirs = make()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, ours)
        yield Peer(theirs)
    await theirs.aclose()


@contextlib.asynccontextmanager
async def scripted(script: Callable[[Peer], Awaitable[object]]) -> AsyncIterator[int]:
    """Run a script for each TCP connection that is accepted, in place of a server; yields the port."""

    async def play(stream: trio.SocketStream) -> None:
        await script(Peer(stream))

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, play, 0, host="127.0.0.1"))
        yield port_of(listeners)
        nursery.cancel_scope.cancel()


# The server


def port_of(listeners: Sequence[trio.SocketListener]) -> int:
    """Return the port of the first listener."""
    port: int = listeners[0].socket.getsockname()[1]
    return port


@attrs.define
class Service:
    """A server that is running."""

    listeners: list[trio.SocketListener]
    port: int
    """Where the first of them listens."""
    shutdown: trio.Event
    scope: trio.CancelScope
    over: trio.Event
    """Set when the server has returned, cancelled or not."""
    cut: int | None = None
    """How many conversations were cut off, as the server has told."""

    async def connect(self) -> Peer:
        """Connect to it."""
        with trio.CancelScope(
            shield=True
        ):  # `open_tcp_stream` leaks a socket if it is cancelled when it has connected
            peer = await connect(self.port)
        return peer  # noqa: RET504 - mypy takes the scope for one that may be cancelled

    async def connect_through_tls(self, ca: str, header: bytes = b"") -> Peer:
        """Connect to it through TLS, trusting this CA, with a PROXY header before it."""
        peer = await self.connect()
        try:
            await peer.say(header)
            tls = TLSStream(
                peer.stream, client_context(ca), server_side=False, server_hostname="localhost"
            )
            await tls.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(peer.stream)
            raise
        return Peer(tls)


@contextlib.asynccontextmanager
async def serving(
    config: ServerConfig = LINES,
    host: str | None = "127.0.0.1",
    *,
    limits: Limits = Limits(),  # noqa: B008 - it is frozen
    ssl_context: ssl.SSLContext | None = None,
    proxy_protocol: bool = False,
) -> AsyncIterator[Service]:
    """Run a server on a free port until the end of the block, where it is cancelled if it is still running."""
    serve = partial(
        serve_greeter,
        host,
        0,
        config=config,
        limits=limits,
        ssl_context=ssl_context,
        proxy_protocol=proxy_protocol,
    )
    async with _running(serve, trio.Event()) as service:
        yield service


@contextlib.asynccontextmanager
async def hosting(
    service: _server.Service,
    listeners: Sequence[Listener] | None = None,
    shutdown: trio.Event | None = None,
) -> AsyncIterator[Service]:
    """Run this service, of which the test wants to see more, in the same way; by default on a free port."""
    if listeners is None:
        listeners = await open_listeners([Tcp("127.0.0.1", 0)])
    async with _running(partial(service.serve, listeners), shutdown or trio.Event()) as running:
        yield running


@contextlib.asynccontextmanager
async def _running(
    serve: Callable[..., Awaitable[int]], shutdown: trio.Event
) -> AsyncIterator[Service]:
    async def run(*, task_status: trio.TaskStatus[list[trio.SocketListener]]) -> None:
        cut = None
        with scope:
            cut = await serve(shutdown=shutdown, task_status=task_status)
        service.cut = cut
        over.set()

    scope, over = trio.CancelScope(), trio.Event()
    service = Service([], 0, shutdown, scope, over)
    async with trio.open_nursery() as nursery:
        service.listeners = await nursery.start(run)
        service.port = port_of(service.listeners)
        yield service
        scope.cancel()


def lines_service(*, limits: Limits = Limits(), **terms: Any) -> _server.Service:  # noqa: ANN401, B008 - it is frozen
    """Return a service that takes lines, on these terms."""
    return _server.Service(Terms(config=LINES, limits=limits, **terms))


class Log(logging.Handler):
    """What is logged, with a way to wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self._grown = trio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        self.records.append(record)
        self._grown.set()
        self._grown = trio.Event()

    @property
    def lines(self) -> list[str]:
        """The messages, without tracebacks."""
        return [record.getMessage() for record in self.records]

    async def line(self, part: str, number: int = 1) -> str:
        """Wait until so many lines contain this text, and return the last of them."""
        while True:
            lines = [line for line in self.lines if part in line]
            if len(lines) >= number:
                return lines[number - 1]
            await self._grown.wait()


@contextlib.contextmanager
def gathered(level: int = logging.INFO) -> Iterator[Log]:
    """Gather what the server logs, from this level on."""
    log, before = Log(), logger.level
    logger.addHandler(log)
    logger.setLevel(level)
    try:
        yield log
    finally:
        logger.setLevel(before)
        logger.removeHandler(log)


# Streams


@attrs.frozen
class Fault:
    """What a `Tap` does at one of its calls: raise, instead of passing it on."""

    call: str
    number: int
    exception: Exception


class Tap(trio.abc.HalfCloseableStream):
    """Passes everything on to another stream, notes each call, and fails where it is told to.

    With `sip` set it returns so many bytes at most from one receive, as a stream with a small
    buffer does.
    """

    def __init__(
        self,
        stream: trio.abc.HalfCloseableStream,
        fault: Fault | None = None,
        *,
        sip: int | None = None,
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
        """Receive."""
        await trio.lowlevel.checkpoint()
        self._note("receive")
        if self._sip is not None:
            max_bytes = min(self._sip, max_bytes or self._sip)
        return await self._stream.receive_some(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send."""
        await trio.lowlevel.checkpoint()
        self._note("send")
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait; nobody asks for it."""
        raise NotImplementedError

    async def send_eof(self) -> None:
        """Send the end of the stream."""
        await trio.lowlevel.checkpoint()
        self._note("eof")
        await self._stream.send_eof()

    async def aclose(self) -> None:
        """Close."""
        self._note("close")
        await self._stream.aclose()


class Plain(trio.abc.Stream):
    """A stream that cannot be half-closed, made of one that can."""

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        self._stream = stream

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Receive."""
        return await self._stream.receive_some(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send."""
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait; nobody asks for it."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Close."""
        await self._stream.aclose()


def unix_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    """Return two connected Unix sockets as Trio's own streams."""
    left, right = trio.socket.socketpair()
    return trio.SocketStream(left), trio.SocketStream(right)


def tcp_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    """Return the two ends of a TCP connection over loopback as Trio's own streams."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        left = socket.create_connection(listener.getsockname())
        right, _ = listener.accept()
    return trio.SocketStream(trio.socket.from_stdlib_socket(left)), trio.SocketStream(
        trio.socket.from_stdlib_socket(right)
    )


def sockets(family: str = "TCP") -> tuple[socket.socket, trio.SocketStream]:
    """Return a non-blocking socket of the standard library, and the other end as a stream."""
    if family == "TCP":
        with socket.create_server(("127.0.0.1", 0)) as listener:
            right = socket.create_connection(listener.getsockname())
            left, _ = listener.accept()
    else:
        left, right = socket.socketpair()
    left.setblocking(False)  # noqa: FBT003 - it is positional only
    return left, trio.SocketStream(trio.socket.from_stdlib_socket(right))


async def tls_over(authority: Authority, pair: StreamPair) -> tuple[TLSStream, TLSStream]:
    """Return a server's and a client's end of TLS over these streams, after the handshake."""
    context = server_context(authority.issue("localhost"), None)
    ours = TLSStream(pair[0], context, server_side=True)
    trust = client_context(authority.path)
    theirs = TLSStream(pair[1], trust, server_side=False, server_hostname="localhost")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.do_handshake)
        nursery.start_soon(theirs.do_handshake)
    return ours, theirs


# Steps, waits and descriptors


class CancelAtStep(trio.abc.Instrument):
    """Cancels a scope right after the n-th step of a task or of one of its children: each step ends at a checkpoint."""

    def __init__(self, task: trio.lowlevel.Task, steps: int, scope: trio.CancelScope) -> None:
        self._task = task
        self._steps = steps
        self._scope = scope

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count."""
        nursery = task.parent_nursery
        if task is self._task or (nursery and nursery.parent_task is self._task):
            self._steps -= 1
            if not self._steps:
                self._scope.cancel()


class _Waits(trio.abc.Instrument):
    """Counts how often the event loop had nothing to do and waited."""

    def __init__(self) -> None:
        self.count = 0

    def before_io_wait(self, timeout: float) -> None:
        """Count."""
        self.count += timeout > 0


@contextlib.contextmanager
def no_waiting() -> Iterator[None]:
    """Check that all that happens in the block happens at once: no task waits for time or for I/O."""
    waits = _Waits()
    trio.lowlevel.add_instrument(waits)
    try:
        yield
    finally:
        trio.lowlevel.remove_instrument(waits)
    assert waits.count == 0


def open_descriptors() -> int:
    """Return how many descriptors this process has open."""
    return len(os.listdir("/dev/fd"))  # noqa: PTH208 - pathlib would look at each of them, and one is the listing itself


@contextlib.asynccontextmanager
async def nothing_left_open() -> AsyncIterator[None]:
    """Check that as many descriptors are open after the block as were before; what leaked is not collected first."""
    if sys.platform == "win32":  # nothing tells
        yield
        return
    gc.collect()  # nothing from an earlier test is to go away meanwhile
    before = open_descriptors()
    yield
    assert open_descriptors() == before
