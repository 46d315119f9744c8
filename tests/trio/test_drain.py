"""Shutting down in good order: nobody is reset, and what was said in time is answered."""

import contextlib
import errno
import os
import select
import socket
import sys
from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from greeter_core import ServerConfig
from greeter_trio._net.listeners import Tcp, adopt, open_listeners
from greeter_trio._net.proxy import encode_v1
from greeter_trio._net.tls import TLSStream, client_context, server_context
from greeter_trio._server import Service
from greeter_trio._service.limits import Limits, Terms, WhenFull

from .certificates import Authority
from .helpers import (
    GOODBYE,
    LINES,
    PROMPT,
    SETTLED,
    WELCOME,
    Log,
    Peer,
    dialogue,
    hello,
    hosting,
    lines_service,
    nothing_left_open,
    serving,
)
from .helpers import Service as RunningService

AUTO = ServerConfig()
secured = pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
HEADER = encode_v1(("192.0.2.1", 4711), ("192.0.2.2", 6000))
FULL = b"Sorry, the server is full.\n"


# The backlog

# What clients say before anybody has accepted them, whether they end their stream then, and what
# they are to hear.
EARLY = [
    (b"Ada\n", False, dialogue(b"Ada")),
    (b"Ada\nGrace\n", False, dialogue(b"Ada", b"Grace")),
    (b"Ada\nGrace\nexit\n", False, dialogue(b"Ada", b"Grace")),
    (b"Ada\nGrace\nEds", False, dialogue(b"Ada", b"Grace")),
    (b"", False, WELCOME + PROMPT + GOODBYE),
    (b"Ada\r\n", True, WELCOME + PROMPT + hello(b"Ada") + PROMPT),
    (b"Ada\nEds", True, WELCOME + PROMPT + hello(b"Ada") + PROMPT + hello(b"Eds")),
    (b"Ada", True, WELCOME + PROMPT + hello(b"Ada")),
]
EARLY_LINES = [*EARLY, (b"Ada", False, WELCOME + PROMPT + GOODBYE), (b"", True, WELCOME + PROMPT)]
EARLY_AUTO = [*EARLY, (b"Ada", False, dialogue(b"Ada")), (b"", True, WELCOME)]


async def hear_out(peer: Peer, words: bytes) -> None:
    """Hear these words and the end, and leave."""
    await peer.expect(words)
    await peer.expect_end()
    await peer.close()


@pytest.mark.parametrize(
    ("config", "early"), [(LINES, EARLY_LINES), (AUTO, EARLY_AUTO)], ids=["lines", "auto"]
)
async def test_the_backlog_is_drained(
    autojump_clock: MockClock,
    log: Log,
    config: ServerConfig,
    early: list[tuple[bytes, bool, bytes]],
) -> None:
    """Clients who connected before the server ran, and was to shut down at once, are welcomed, answered and let go."""
    autojump_clock.autojump_threshold = (
        SETTLED  # a busy machine is not to be taken for a client who pauses
    )
    for _ in range(20):
        shutdown = trio.Event()
        shutdown.set()
        async with nothing_left_open(), trio.open_nursery() as nursery:
            listeners = await open_listeners([Tcp("127.0.0.1", 0)])
            for said, ends, words in early * 5:
                client = socket.create_connection(listeners[0].socket.getsockname())
                client.sendall(said)
                if ends:
                    client.shutdown(socket.SHUT_WR)
                stream = trio.SocketStream(trio.socket.from_stdlib_socket(client))
                nursery.start_soon(hear_out, Peer(stream), words)
            nursery.start_soon(Service(Terms(config=config)).serve, listeners, shutdown)
    closed = [line for line in log.lines if "is closed" in line]
    assert len(closed) == 20 * 5 * len(early)
    assert not [line for line in closed if "lost" in line or "cut" in line]


async def test_who_waits_for_a_place_is_not_forgotten() -> None:
    """Clients for whom there was no place yet are answered too when the server shuts down."""
    async with nothing_left_open(), serving(limits=Limits(max_connections=1)) as service:
        first = await service.connect()
        await first.meet()
        waiting = [await service.connect() for _ in range(5)]
        for peer in waiting:
            await peer.say(b"Ada\n")
        service.shutdown.set()
        await hear_out(first, GOODBYE)
        for peer in waiting:
            await hear_out(peer, dialogue(b"Ada"))
        await service.over.wait()
        assert service.cut == 0


async def test_who_would_be_turned_away_is_turned_away() -> None:
    """Where clients are turned away while the server is full, they are while it shuts down, and not reset."""
    limits = Limits(max_connections=1, when_full=WhenFull.REJECT)
    async with nothing_left_open(), serving(limits=limits) as service:
        guest = await service.connect()
        await guest.meet()
        late = [
            socket.create_connection(("127.0.0.1", service.port)) for _ in range(90)
        ]  # nothing runs meanwhile
        service.shutdown.set()
        await hear_out(guest, GOODBYE)
        for each in late:
            await hear_out(Peer(trio.SocketStream(trio.socket.from_stdlib_socket(each))), FULL)
        await service.over.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has filters for sockets")
async def test_nobody_gets_into_the_backlog_any_more() -> None:
    """While those who have connected wait for a place, nobody else is connected: he would be reset in the end."""
    async with nothing_left_open(), serving(limits=Limits(max_connections=1)) as service:
        guest = await service.connect()
        await guest.meet()
        waiting = await service.connect()
        service.shutdown.set()
        await guest.expect(GOODBYE)
        with socket.socket() as late:
            late.settimeout(0)
            assert late.connect_ex(("127.0.0.1", service.port)) == errno.EINPROGRESS
            assert select.select([], [late], [], 0) == ([], [], [])
        await guest.expect_end()
        await guest.close()
        await hear_out(waiting, WELCOME + PROMPT + GOODBYE)
        await service.over.wait()


# What has arrived


def say_now(stream: trio.abc.Stream, data: bytes) -> None:
    """Send without letting any other task run; loopback delivers at once."""
    transport = stream
    if isinstance(stream, TLSStream):
        while data:  # a record at a time
            data = data[stream._tls.write(data) :]
        transport, data = stream.transport_stream, stream._outgoing.read()
    assert isinstance(transport, trio.SocketStream)
    assert os.write(transport.socket.fileno(), data) == len(data)


@contextlib.asynccontextmanager
async def conversation(
    config: ServerConfig = LINES, ca: Authority | None = None
) -> AsyncIterator[tuple[RunningService, Peer]]:
    """Run a server, with a client who has been asked for a name, through TLS if there is a CA."""
    context = server_context(ca.issue("localhost"), None) if ca else None
    async with nothing_left_open(), serving(config, ssl_context=context) as service:
        peer = await (service.connect_through_tls(ca.path) if ca else service.connect())
        await peer.meet()
        yield service, peer
        await peer.close()
        await service.over.wait()


@secured
async def test_names_that_lie_in_the_socket_are_greeted(
    authority: Authority, *, secure: bool
) -> None:
    """Complete names that have come, though nobody has read them yet, are greeted; half a line is dropped."""
    async with conversation(LINES, authority if secure else None) as (service, peer):
        say_now(peer.stream, b"Ada\nGrace\nEds")
        service.shutdown.set()
        await peer.expect(hello(b"Ada") + PROMPT + hello(b"Grace") + PROMPT + GOODBYE)
        await peer.expect_end()


@secured
async def test_an_undecided_name_that_lies_in_the_socket_is_greeted(
    authority: Authority, *, secure: bool
) -> None:
    """Where nobody knows yet how names end, what has come is a name."""
    async with conversation(AUTO, authority if secure else None) as (service, peer):
        say_now(peer.stream, b"Ada")
        service.shutdown.set()
        await peer.expect(hello(b"Ada") + PROMPT + GOODBYE)
        await peer.expect_end()


async def test_the_end_that_lies_in_the_socket_completes_a_name() -> None:
    """Half a line is a name if the client's end of the stream has come, too; then nobody is left to say goodbye to."""
    async with conversation() as (service, peer):
        say_now(peer.stream, b"Ada\nGra")
        assert isinstance(peer.stream, trio.SocketStream)
        peer.stream.socket.shutdown(socket.SHUT_WR)
        service.shutdown.set()
        await peer.expect(hello(b"Ada") + PROMPT + hello(b"Gra"))
        await peer.expect_end()


@secured
async def test_all_that_lies_in_the_socket_is_answered(
    authority: Authority, *, secure: bool
) -> None:
    """Names are greeted even if there are more of them than one read returns, by far."""
    context = server_context(authority.issue("localhost"), None) if secure else None
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.setsockopt(
            socket.SOL_SOCKET, socket.SO_RCVBUF, 1_000_000
        )  # for those who are accepted
        names = [b"Ada"] * 75_000
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) < 1_000_000:
            names = names[:10_000]  # this system has no room for more
        service = lines_service(ssl_context=context)
        async with nothing_left_open(), hosting(service, [adopt(sock.dup())]) as running:
            peer = await (
                running.connect_through_tls(authority.path) if secure else running.connect()
            )
            await peer.meet()
            say_now(peer.stream, b"".join(name + b"\n" for name in names))
            running.shutdown.set()
            await peer.hear_all()
            assert peer.heard == dialogue(*names)
            await peer.close()
            await running.over.wait()


@secured
async def test_what_comes_later_is_discarded(authority: Authority, *, secure: bool) -> None:
    """After GOODBYE nobody is greeted, and whoever goes on talking is not reset."""
    async with conversation(LINES, authority if secure else None) as (service, peer):
        service.shutdown.set()
        await peer.expect(GOODBYE)
        await peer.say(b"Ada\n" * 10_000)
        await peer.expect_end()


async def test_a_client_who_never_pauses_is_stopped() -> None:
    """A client who says more as fast as it is read cannot put off GOODBYE."""
    async with conversation() as (service, peer), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _() -> None:
            with contextlib.suppress(trio.BrokenResourceError):
                while True:
                    await peer.say(b"Ada\n" * 1000)

        await peer.hear()
        service.shutdown.set()
        await peer.hear_all()
        assert peer.heard.endswith(hello(b"Ada") + PROMPT + GOODBYE)
        nursery.cancel_scope.cancel()


async def test_shutdown_while_a_send_is_blocked(log: Log) -> None:
    """A client that has not read for a while, and reads now, finds all its answers, and GOODBYE."""
    names = 200_000
    async with conversation() as (service, peer), trio.open_nursery() as nursery:
        nursery.start_soon(peer.say, b"Ada\n" * names)
        await wait_all_tasks_blocked(SETTLED)
        service.shutdown.set()
        await wait_all_tasks_blocked(SETTLED)
        assert not service.over.is_set()
        await peer.hear_all()
        answered = peer.heard.count(hello(b"Ada"))
        assert peer.heard == dialogue(*[b"Ada"] * answered)
    assert f" is closed: the server is shutting down; {answered} names in " in await log.line(
        "is closed"
    )


# Handshakes


async def test_shutdown_in_the_middle_of_a_header() -> None:
    """A client whose PROXY header is not complete at shutdown may complete it, and is answered what came with it."""
    async with nothing_left_open(), serving(proxy_protocol=True) as service:
        peer = await service.connect()
        await peer.say(HEADER[:11])
        await wait_all_tasks_blocked(SETTLED)
        service.shutdown.set()
        await wait_all_tasks_blocked(SETTLED)
        await peer.say(HEADER[11:] + b"Ada\n")
        await hear_out(peer, dialogue(b"Ada"))
        await service.over.wait()


async def test_shutdown_in_the_middle_of_a_handshake(authority: Authority) -> None:
    """A client whose TLS handshake is not complete at shutdown may complete it, and is told goodbye."""
    context = server_context(authority.issue("localhost"), None)
    async with nothing_left_open(), serving(ssl_context=context) as service:
        peer = await service.connect()
        tls = TLSStream(
            peer.stream,
            client_context(authority.path),
            server_side=False,
            server_hostname="localhost",
        )
        await wait_all_tasks_blocked(SETTLED)
        service.shutdown.set()
        await wait_all_tasks_blocked(SETTLED)
        await tls.do_handshake()
        await hear_out(Peer(tls), WELCOME + PROMPT + GOODBYE)
        await service.over.wait()


@pytest.mark.parametrize(
    ("limits", "why", "cut"),
    [
        (Limits(grace=1), "it was cut off", 1),
        (Limits(), "no PROXY header before the end", 0),
        (Limits(handshake_timeout=0.5), "no PROXY header before the end", 0),
    ],
)
async def test_a_header_that_never_comes_holds_nobody_up(
    autojump_clock: MockClock, log: Log, limits: Limits, why: str, cut: int
) -> None:
    """A client that does not complete its header has 2 more seconds when the server shuts down, at most."""
    autojump_clock.autojump_threshold = SETTLED
    async with nothing_left_open(), serving(proxy_protocol=True, limits=limits) as service:
        peer = await service.connect()
        await peer.say(HEADER[:11])
        await wait_all_tasks_blocked(SETTLED / 2)
        since = trio.current_time()
        service.shutdown.set()
        await service.over.wait()
        assert trio.current_time() <= since + 2
        assert f" is closed: {why}; 0 names in " in await log.line("is closed")
        assert service.cut == cut
        await peer.close()


async def test_who_is_accepted_at_the_end_and_says_nothing_holds_nobody_up(
    autojump_clock: MockClock,
) -> None:
    """Who gets a place only while the server shuts down has 2 seconds for a header, too."""
    autojump_clock.autojump_threshold = SETTLED
    limits = Limits(max_connections=1)
    async with nothing_left_open(), serving(proxy_protocol=True, limits=limits) as service:
        guest = await service.connect()
        await guest.say(HEADER)
        await guest.meet()
        silent = await service.connect()
        service.shutdown.set()
        await hear_out(guest, GOODBYE)
        since = trio.current_time()
        await service.over.wait()
        assert trio.current_time() == pytest.approx(since + 2, abs=0.1)
        assert service.cut == 0
        await silent.close()


# Time


async def test_who_was_told_goodbye_is_not_cut_off(autojump_clock: MockClock, log: Log) -> None:
    """A conversation that has ended, but whose client does not close its side, keeps its reason when grace runs out."""
    autojump_clock.autojump_threshold = SETTLED
    async with nothing_left_open(), serving(limits=Limits(grace=1)) as service:
        peer = await service.connect()
        await peer.meet()
        await peer.say(b"exit\n")
        await peer.expect(GOODBYE)
        service.shutdown.set()
        await service.over.wait()
        assert trio.current_time() == pytest.approx(1, abs=0.5)
        assert " is closed: the client said exit; " in await log.line("is closed")
        assert service.cut == 0
        await peer.close()


async def test_clients_are_accepted_until_the_delay_is_over(
    autojump_clock: MockClock, log: Log
) -> None:
    """For `drain_delay` seconds after shutdown everything goes on as before, for old clients and for new ones."""
    autojump_clock.autojump_threshold = SETTLED
    async with nothing_left_open(), serving(limits=Limits(drain_delay=5)) as service:
        old = await service.connect()
        await old.meet()
        service.shutdown.set()
        assert await log.line("Shutting") == "Shutting down: 1 conversation"
        await trio.sleep(3)
        new = await service.connect()
        await new.meet()
        await new.be_greeted(b"Ada")
        await old.be_greeted(b"Grace")
        await trio.sleep(1.9)
        last = await service.connect()
        await last.meet()
        for peer in (old, new, last):
            await peer.expect(GOODBYE)
            assert trio.current_time() == pytest.approx(5)
            await peer.expect_end()
        with pytest.raises(OSError, match="connect"):
            await service.connect()
        for peer in (old, new, last):
            await peer.close()
        await service.over.wait()
        assert service.cut == 0
    assert "Grace of" not in "".join(log.lines)


async def test_who_is_left_after_grace_is_cut_off(autojump_clock: MockClock, log: Log) -> None:
    """Whoever has not ended `grace` seconds after the delay is cut off and counted, in a warning and by the caller."""
    autojump_clock.autojump_threshold = SETTLED
    async with nothing_left_open(), serving(limits=Limits(drain_delay=1, grace=4)) as service:
        deaf = [await service.connect() for _ in range(2)]
        peer = await service.connect()
        await peer.meet()
        async with trio.open_nursery() as nursery:
            for each in deaf:
                nursery.start_soon(_flood, each)
            await wait_all_tasks_blocked(SETTLED / 2)
            since = trio.current_time()
            service.shutdown.set()
            await peer.expect(GOODBYE)
            await peer.expect_end()
            await peer.close()
            await service.over.wait()
            assert trio.current_time() == pytest.approx(since + 5)
        for each in deaf:
            await each.close()
    assert service.cut == 2
    assert sum("is closed: it was cut off; " in line for line in log.lines) == 2
    (warning,) = [record for record in log.records if record.levelname == "WARNING"]
    assert warning.getMessage() == "Grace of 4 s ran out: 2 conversations cut off"


async def _flood(peer: Peer) -> None:
    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        await peer.say(b"a\n" * 5_000_000)


async def test_who_was_cut_off_earlier_does_not_count(autojump_clock: MockClock, log: Log) -> None:
    """Clients that the server lost before it was told to shut down were not cut off by it."""
    autojump_clock.autojump_threshold = SETTLED
    async with nothing_left_open(), serving(limits=Limits(send_timeout=1)) as service:
        deaf = await service.connect()
        await _flood(deaf)
        await log.line("is closed")
        (await service.connect()).reset()
        await log.line("is closed", 2)
        service.shutdown.set()
        await service.over.wait()
        assert service.cut == 0
        await deaf.close()
