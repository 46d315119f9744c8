"""Running servers, for tests that connect to them."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import attrs
import pytest
import trio

from greeter_core import ServerConfig, ServerConnection
from greeter_trio import serve_greeter
from greeter_trio._net.endpoints import Tcp
from greeter_trio._net.listeners import Listener, open_listeners
from greeter_trio._net.proxy import encode_v1
from greeter_trio._server import serve
from greeter_trio._service.sessions import Sessions
from greeter_trio._service.settings import Settings

from .connections import LINES
from .peers import Peer, connect, tcp_port

SOURCE = ("192.0.2.1", 4711)
HEADER = encode_v1(SOURCE, ("192.0.2.2", 6000))
"""A PROXY header with this source."""


@attrs.define
class RunningServer:
    listeners: list[trio.SocketListener] = attrs.field(factory=list)
    port: int = 0
    """Where the first of them listens."""
    shutdown: trio.Event = attrs.field(factory=trio.Event)
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    over: trio.Event = attrs.field(factory=trio.Event)
    """Set when the server has returned, cancelled or not."""
    cut: int | None = None
    """How many conversations were cut off, as the server has told."""

    async def connect(self) -> Peer:
        # `open_tcp_stream` leaks a socket if it is cancelled when it has connected.
        with trio.CancelScope(shield=True):
            peer = await connect(self.port)
        return peer  # noqa: RET504 - mypy takes the scope for one that may be cancelled


@contextlib.asynccontextmanager
async def serving(
    config: ServerConfig = LINES, host: str | None = "127.0.0.1", **options: Any
) -> AsyncIterator[RunningServer]:
    """Run a server on a free port; at the end of the block it is cancelled if it still runs."""
    async with _running(partial(serve_greeter, host, 0, config=config, **options)) as server:
        yield server


@contextlib.asynccontextmanager
async def hosting(
    sessions: Sessions, listeners: Sequence[Listener] = ()
) -> AsyncIterator[RunningServer]:
    """Run a server with these sessions, at which the test looks, by default on a free port."""
    listeners = listeners or await open_listeners([Tcp("127.0.0.1", 0)])
    async with _running(partial(serve, listeners, sessions)) as server:
        yield server


@contextlib.asynccontextmanager
async def _running(serve: Callable[..., Awaitable[int]]) -> AsyncIterator[RunningServer]:
    server = RunningServer()

    async def run(*, task_status: trio.TaskStatus[list[trio.SocketListener]]) -> None:
        with server.scope:
            server.cut = await serve(shutdown=server.shutdown, task_status=task_status)
        server.over.set()

    async with trio.open_nursery() as nursery:
        server.listeners = await nursery.start(run)
        server.port = tcp_port(server.listeners[0])
        yield server
        server.scope.cancel()


def lines_sessions(**settings: Any) -> Sessions:
    """Return sessions that take lines, for `hosting`."""
    return Sessions(Settings(config=LINES, **settings))


def break_core(monkeypatch: pytest.MonkeyPatch, word: bytes = b"bug") -> None:
    """Give the core a bug that this word triggers."""
    receive_data = ServerConnection.receive_data

    def fail(self: ServerConnection, data: bytes, now: float) -> None:
        if word in data:
            raise RuntimeError(f"a bug in the core: {data!r}")
        receive_data(self, data, now)

    monkeypatch.setattr(ServerConnection, "receive_data", fail)
