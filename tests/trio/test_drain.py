"""Shutting down in good order: no client is reset, and what was said in time is answered."""

import errno
import select
import socket
import sys

import pytest
import trio
from trio.testing import MockClock

from greeter_core import ServerConfig
from greeter_trio import Limits, WhenFull, serve_greeter
from greeter_trio._net.endpoints import Tcp
from greeter_trio._net.listeners import open_listeners
from greeter_trio._net.stream_transport import transport_over
from greeter_trio._server import serve
from greeter_trio._service.sessions import Sessions
from greeter_trio._service.settings import Settings
from tests.support.connections import LINES, dialogue
from tests.support.descriptors import nothing_left_open
from tests.support.listening import hold_handshakes
from tests.support.logs import Log
from tests.support.peers import connect_now
from tests.support.plays import (
    closes,
    ends,
    hears,
    hears_end,
    hears_last,
    play,
    says,
    says_for_long,
)
from tests.support.servers import lines_sessions, serving
from tests.support.words import ADA, FULL, GOODBYE, PROMPT, WELCOME, hello

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has filters for sockets")

# The backlog

# What clients say before they are accepted, whether they end their stream then, and what they hear
EARLY = [
    (b"Ada\n", False, dialogue(b"Ada")),
    (b"Ada\nGrace\n", False, dialogue(b"Ada", b"Grace")),
    (b"Ada\nGrace\nexit\n", False, dialogue(b"Ada", b"Grace")),
    (b"Ada\nGrace\nEds", False, dialogue(b"Ada", b"Grace")),
    (b"", False, dialogue()),
    (b"Ada\r\n", True, WELCOME + PROMPT + ADA + PROMPT),
    (b"Ada\nEds", True, WELCOME + PROMPT + ADA + PROMPT + hello("Eds")),
    (b"Ada", True, WELCOME + PROMPT + ADA),
]
EARLY_LINES = [*EARLY, (b"Ada", False, dialogue()), (b"", True, WELCOME + PROMPT)]
EARLY_AUTO = [*EARLY, (b"Ada", False, dialogue(b"Ada")), (b"", True, WELCOME)]


@pytest.mark.parametrize(
    ("config", "early"), [(LINES, EARLY_LINES), (ServerConfig(), EARLY_AUTO)], ids=["lines", "auto"]
)
async def test_connections_in_the_backlog_are_answered(
    settling_clock: MockClock, config: ServerConfig, early: list[tuple[bytes, bool, bytes]]
) -> None:
    """They were made before the server ran, and it is to shut down at once."""
    sessions, shutdown = Sessions(Settings(config=config)), trio.Event()
    shutdown.set()
    async with nothing_left_open(), trio.open_nursery() as nursery:
        listeners = await open_listeners([Tcp("127.0.0.1", 0)])
        for said, ended, words in early * 20:
            peer = connect_now(listeners[0].socket.getsockname()[1])
            await play(says(said), ends() if ended else play())(peer)
            nursery.start_soon(hears_last(words), peer)
        nursery.start_soon(serve, listeners, sessions, shutdown)
    assert {reason.name for reason in sessions.counters.closed} == {"EXIT", "EOF", "SHUTDOWN"}
    assert sessions.counters.closed.total() == 20 * len(early)


@pytest.mark.parametrize(
    ("when_full", "number", "words"),
    [(WhenFull.WAIT, 5, dialogue(b"Ada")), (WhenFull.REJECT, 90, FULL)],
    ids=["waiting", "refused"],
)
async def test_clients_without_a_place_are_answered_too(
    when_full: WhenFull, number: int, words: bytes
) -> None:
    limits = Limits(max_connections=1, when_full=when_full)
    async with nothing_left_open(), serving(limits=limits) as server:
        guest = await server.connect()
        await guest.meet()
        waiting = [connect_now(server.port) for _ in range(number)]
        for peer in waiting:
            assert transport_over(peer.stream).send_now(b"Ada\n") == 4
        server.shutdown.set()
        await hears_last(GOODBYE)(guest)
        for peer in waiting:
            await hears_last(words)(peer)
        await server.over.wait()
        assert server.cut == 0


@on_linux
async def test_no_connection_gets_into_the_backlog_any_more() -> None:
    """While others wait there for a place: it would be reset in the end."""
    async with nothing_left_open(), serving(limits=Limits(max_connections=1)) as server:
        guest = await server.connect()
        await guest.meet()
        waiting = await server.connect()
        server.shutdown.set()
        await guest.expect(GOODBYE)
        with socket.socket() as late:
            late.settimeout(0)
            assert late.connect_ex(("127.0.0.1", server.port)) == errno.EINPROGRESS
            assert select.select([], [late], [], 0) == ([], [], [])
        await play(hears_end(), closes())(guest)
        await hears_last(dialogue())(waiting)
        await server.over.wait()


@on_linux
async def test_a_client_that_is_connecting_is_answered(settling_clock: MockClock) -> None:
    """Over loopback a handshake takes no time, so the end of this one is held back."""
    sessions, shutdown = lines_sessions(), trio.Event()
    shutdown.set()
    async with nothing_left_open(), trio.open_nursery() as nursery:
        listeners = await open_listeners([Tcp("127.0.0.1", 0)])
        hold_handshakes(listeners[0].socket)
        peer = connect_now(listeners[0].socket.getsockname()[1])
        nursery.start_soon(serve, listeners, sessions, shutdown)
        await trio.sleep(0.2)
        assert sessions.counters.accepted == 0
        await play(says(b"Ada\n"), hears_last(dialogue(b"Ada")))(peer)
    assert sessions.counters.accepted == 1


async def test_without_clients_it_returns_at_once(autojump_clock: MockClock) -> None:
    """Also if it was told to before it began."""
    async with serving() as server:
        server.shutdown.set()
        await server.over.wait()
    assert await serve_greeter("127.0.0.1", 0, shutdown=server.shutdown) == 0
    assert autojump_clock.current_time() == 0


async def test_all_goes_on_until_the_delay_is_over(settling_clock: MockClock, log: Log) -> None:
    """No more can connect then; it returns when the last client has ended its stream."""
    async with nothing_left_open(), serving(limits=Limits(drain_delay=5)) as server:
        old = await server.connect()
        await old.meet()
        server.shutdown.set()
        assert await log.line("Shutting") == "Shutting down: 1 conversation"
        await trio.sleep(3)
        new = await server.connect()
        await new.meet()
        for peer in (old, new):
            await peer.be_greeted(b"Ada")
        await trio.sleep(1.9)
        last = await server.connect()
        await last.meet()
        for peer in (old, new, last):
            await play(hears(GOODBYE), hears_end())(peer)
            assert trio.current_time() == pytest.approx(5)
        with pytest.raises(OSError, match="connect"):
            await server.connect()
        for peer in (old, new, last):
            assert not server.over.is_set()
            await peer.close()
        await server.over.wait()
        assert server.cut == 0
    assert "Grace of" not in "".join(log.lines)


async def test_clients_that_are_left_after_grace_are_cut_off(
    settling_clock: MockClock, log: Log
) -> None:
    """They are counted, in a warning and for the caller; others are answered meanwhile."""
    async with nothing_left_open(), serving(limits=Limits(drain_delay=1, grace=4)) as server:
        deaf = [await server.connect() for _ in range(2)]
        peer = await server.connect()
        await peer.meet()
        for each in deaf:
            await says_for_long()(each)
        since = trio.current_time()
        server.shutdown.set()
        await hears_last(GOODBYE)(peer)
        await server.over.wait()
        assert trio.current_time() == pytest.approx(since + 5)
        for each in deaf:
            await each.close()
    assert server.cut == 2
    assert sum("is closed: it was cut off; " in line for line in log.lines) == 2
    (warning,) = [record for record in log.records if record.levelname == "WARNING"]
    assert warning.getMessage() == "Grace of 4 s ran out: 2 conversations cut off"
