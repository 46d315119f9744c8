"""What clients are allowed (`_terms.py`), and what becomes of those who want more."""

import contextlib
import math
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from greeter_core import Framing, ServerConfig
from greeter_trio._net.listeners import Listener, Tcp, Unix, open_listeners
from greeter_trio._net.proxy import encode_v1
from greeter_trio._net.tls import TLSStream, client_context, server_context
from greeter_trio._service.limits import Limits, Terms, WhenFull

from .certificates import Authority
from .helpers import (
    GOODBYE,
    PROMPT,
    SETTLED,
    WELCOME,
    Log,
    Peer,
    Service,
    connect,
    hosting,
    lines_service,
    nothing_left_open,
    serving,
)

FULL = b"Sorry, the server is full.\n"
HEADER = encode_v1(("192.0.2.1", 4711), ("192.0.2.2", 6000))


# Values

SECONDS = ["handshake_timeout", "send_timeout", "grace"]


@pytest.mark.parametrize("name", SECONDS)
@pytest.mark.parametrize("value", [0, -1, math.nan, "1", None])
def test_times_that_are_none(name: str, value: Any) -> None:  # noqa: ANN401 - wrong ones
    """A time must be a number more than 0, and the error says so, with its name and the value."""
    with pytest.raises(
        ValueError, match=rf"^{name} must be a number of seconds, more than 0 .*, not {value!r}$"
    ):
        Limits(**{name: value})


@pytest.mark.parametrize("value", [-1, math.nan, math.inf, "1", None])
def test_delays_that_are_none(value: Any) -> None:  # noqa: ANN401 - wrong ones
    """A delay must be finite, but can be 0."""
    with pytest.raises(
        ValueError, match=rf"^drain_delay must be a finite number .* 0 or more, not {value!r}$"
    ):
        Limits(drain_delay=value)


@pytest.mark.parametrize("value", [0, -1, 1.0, math.inf, True, "1", None])
def test_counts_that_are_none(value: Any) -> None:  # noqa: ANN401 - wrong ones
    """A number of connections must be a whole number, 1 or more."""
    with pytest.raises(
        ValueError, match=rf"^max_connections must be a whole number, 1 or more, not {value!r}$"
    ):
        Limits(max_connections=value)


def test_when_full_is_an_enum() -> None:
    """What is done with clients for whom there is no place is one of `WhenFull`, and not its value."""
    with pytest.raises(ValueError, match="when_full"):
        Limits(when_full="wait")  # type: ignore[arg-type]


def test_the_lowest_values() -> None:
    """The bounds themselves are allowed, and so is for ever."""
    limits = Limits(
        max_connections=1,
        handshake_timeout=math.inf,
        send_timeout=math.inf,
        drain_delay=0,
        grace=math.inf,
    )
    assert limits.grace == math.inf


def test_the_defaults() -> None:
    """By default ten thousand clients are served, others wait, and nobody has to do without a limit of time."""
    assert Limits() == Limits(
        max_connections=10_000,
        when_full=WhenFull.WAIT,
        handshake_timeout=10,
        send_timeout=30,
        drain_delay=0,
        grace=15,
    )
    assert Terms() == Terms(
        config=ServerConfig(), limits=Limits(), ssl_context=None, proxy_protocol=False
    )


# Waiting for a place


async def test_the_next_client_waits_for_a_place(log: Log) -> None:
    """A client that is one too many stays in the backlog, and is welcomed as soon as another one has gone."""
    async with nothing_left_open(), serving(limits=Limits(max_connections=2)) as service:
        one, two = await service.connect(), await service.connect()
        await one.meet()
        await two.meet()
        three = await service.connect()
        await three.say(b"Grace\n")
        await wait_all_tasks_blocked(SETTLED)
        assert sum("Accept new" in line for line in log.lines) == 2
        await two.be_greeted(b"Ada")
        await one.leave()
        await three.expect(WELCOME + PROMPT + b"Hello Grace!\n" + PROMPT)
        await two.leave()
        await three.leave()


async def test_listeners_share_the_places(tmp_path: Path, log: Log) -> None:
    """With several listeners the limit is one for all of them, and a free place goes to whoever waits."""
    path = str(tmp_path / "socket")
    listeners = [
        *await open_listeners([Tcp("127.0.0.1", 0)]),
        *await open_listeners([Tcp("127.0.0.1", 0), Unix(path)]),
    ]
    async with hosting(lines_service(limits=Limits(max_connections=1)), listeners):
        ports = [each.socket.getsockname()[1] for each in listeners[:2]]
        peers = [Peer(await trio.open_tcp_stream("127.0.0.1", port)) for port in ports]
        peers.append(Peer(await trio.open_unix_socket(path)))
        for number in range(1, 4):
            await log.line("Accept new", number)
            await wait_all_tasks_blocked(SETTLED)
            assert sum("Accept new" in line for line in log.lines) == number
            peer = await _first_to_hear(peers)
            peers.remove(peer)
            await peer.expect(PROMPT)
            await peer.leave()


async def test_more_places_are_for_all_listeners(log: Log) -> None:
    """When a client leaves, and there are more places than before, every listener finds out, and not only one."""
    listeners = [
        *await open_listeners([Tcp("127.0.0.1", 0)]),
        *await open_listeners([Tcp("127.0.0.1", 0)]),
    ]
    service = lines_service(limits=Limits(max_connections=1))
    async with hosting(service, listeners) as running:
        first = await running.connect()
        await first.meet()
        others = [await connect(each.socket.getsockname()[1]) for each in listeners]
        await wait_all_tasks_blocked(SETTLED)
        assert sum("Accept new" in line for line in log.lines) == 1
        service.terms.limits = Limits(max_connections=2)
        await first.leave()
        for peer in others:
            await peer.meet()
            await peer.close()


async def _first_to_hear(peers: list[Peer]) -> Peer:
    """Return the peer to whom something was said first, which must be WELCOME."""
    heard: list[Peer] = []

    async def listen(peer: Peer) -> None:
        assert isinstance(peer.stream, trio.SocketStream)
        await trio.lowlevel.wait_readable(peer.stream.socket)
        heard.append(peer)
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for peer in peers:
            nursery.start_soon(listen, peer)
    (first,) = heard
    first.chunks.append((0, bytes(await first.stream.receive_some(len(WELCOME)))))
    await first.expect(WELCOME)
    return first


@pytest.mark.parametrize("when_full", WhenFull)
async def test_the_limit_holds_in_a_rush(log: Log, when_full: WhenFull) -> None:
    """However many come at once, there are never more conversations than the limit, and nobody gets no answer."""
    service = lines_service(limits=Limits(max_connections=10, when_full=when_full))
    most = 0

    class Watch(trio.abc.Instrument):
        def after_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002 - any task
            nonlocal most
            most = max(most, sum(not each.full for each in service._live))

    welcome, rejected = 0, 0

    async def visit() -> None:
        nonlocal welcome, rejected
        peer = await running.connect()
        word = bytes(await peer.stream.receive_some(len(FULL)))
        if word == FULL:
            rejected += 1
            assert await peer.hear() == b""
            await peer.close()
            return
        peer.chunks.append((0, word))
        await peer.meet()
        await peer.be_greeted(b"Ada")
        welcome += 1
        await peer.leave()

    async with nothing_left_open(), hosting(service) as running:
        trio.lowlevel.add_instrument(Watch())
        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(visit)
        await log.line("is closed", 200)
    assert most == 10
    assert welcome + rejected == 200
    assert (rejected == 0) == (when_full is WhenFull.WAIT)
    assert service.counters.names == welcome


# Being turned away


@contextlib.asynccontextmanager
async def full_house(limits: Limits | None = None) -> AsyncIterator[tuple[Service, Peer]]:
    """Run a server with one place, which is taken, and which turns others away."""
    limits = limits or Limits(max_connections=1, when_full=WhenFull.REJECT)
    async with serving(limits=limits) as service:
        guest = await service.connect()
        await guest.meet()
        yield service, guest


async def test_a_client_is_turned_away(log: Log) -> None:
    """A client that is one too many is told so instead of being welcomed, and the guests notice nothing."""
    async with nothing_left_open(), full_house() as (service, guest):
        peer = await service.connect()
        await peer.expect(FULL)
        await peer.expect_end()
        await peer.close()
        line = await log.line("is closed")
        assert ' is closed: the server said "Sorry, the server is full."; 0 names in ' in line
        assert line.endswith(f" 0 bytes in, {len(FULL)} out (#2)")
        await guest.be_greeted(b"Ada")
        await guest.leave()


async def test_a_client_that_is_turned_away_hears_it_whatever_it_has_said(log: Log) -> None:
    """Being turned away is a clean end, even for a client that has said 200 kB already, and reads only then."""
    async with nothing_left_open(), full_house() as (service, guest):
        peer = await service.connect()
        await peer.say(b"Ada\n" * 50_000)
        await peer.end()
        await peer.expect(FULL)
        await peer.expect_end()
        await peer.close()
        assert "0 names" in await log.line("is closed")
        await guest.leave()


async def test_being_turned_away_takes_no_place(log: Log) -> None:
    """Who is being turned away, and does not leave, keeps nobody from the place of a guest who does."""
    async with nothing_left_open(), full_house() as (service, guest):
        stubborn = [await service.connect() for _ in range(5)]
        for peer in stubborn:
            await peer.expect(FULL)
            await peer.expect_end()
        await guest.leave()
        await log.line("is closed: the client said exit")
        peer = await service.connect()
        await peer.meet()
        late = await service.connect()
        await late.expect(FULL)
        for each in (*stubborn, late):
            await each.close()
        await peer.leave()


async def test_a_hundred_are_turned_away_at_a_time(autojump_clock: MockClock, log: Log) -> None:
    """While a hundred who were turned away have not left, others wait, until those who stay are hung up on."""
    autojump_clock.autojump_threshold = SETTLED
    async with nothing_left_open(), full_house() as (service, guest):
        stubborn = [await service.connect() for _ in range(100)]
        await log.line("Accept new", 101)
        late = [await service.connect() for _ in range(20)]
        with trio.move_on_after(1):
            await log.line("Accept new", 102)
        assert sum("Accept new" in line for line in log.lines) == 101
        await guest.be_greeted(b"Ada")
        await stubborn[7].close()
        await log.line("Accept new", 102)
        await log.line("Accept new", 121)
        assert trio.current_time() == pytest.approx(
            2, abs=0.5
        )  # when those who stayed have lingered
        for peer in late:
            await peer.expect(FULL)
        for peer in (*stubborn, *late):
            await peer.close()
        await guest.leave()


async def test_nobody_is_turned_away_without_a_handshake(authority: Authority) -> None:
    """A server that speaks TLS behind a proxy says also that it is full through TLS, after the PROXY header."""
    limits = Limits(max_connections=1, when_full=WhenFull.REJECT)
    context = server_context(authority.issue("localhost"), None)
    async with (
        nothing_left_open(),
        serving(limits=limits, ssl_context=context, proxy_protocol=True) as service,
    ):
        guest = await service.connect_through_tls(authority.path, HEADER)
        await guest.meet()
        peer = await service.connect_through_tls(authority.path, HEADER)
        await peer.expect(FULL)
        await peer.expect_end()
        await peer.close()
        await guest.leave()


# Time


async def _nothing(peer: Peer) -> None:
    pass


async def _half_a_header(peer: Peer) -> None:
    await peer.say(HEADER[:20])


async def _drip(peer: Peer) -> None:
    with contextlib.suppress(trio.BrokenResourceError):
        for number in range(1000):
            await peer.say(HEADER[number : number + 1] or b"\x16")
            await trio.sleep(0.5)


async def _header_alone(peer: Peer) -> None:
    await trio.sleep(1)
    await peer.say(HEADER)


async def _half_a_hello(peer: Peer) -> None:
    await trio.sleep(2)
    await peer.say(b"\x16\x03\x01\x02\x00\x01\x00")


@pytest.mark.parametrize(
    ("proxied", "secure", "behave", "awaited"),
    [
        (True, False, _nothing, "PROXY header"),
        (True, False, _half_a_header, "PROXY header"),
        (True, True, _drip, "PROXY header"),
        (True, True, _header_alone, "TLS handshake"),
        (False, True, _nothing, "TLS handshake"),
        (False, True, _half_a_hello, "TLS handshake"),
    ],
)
async def test_handshakes_have_a_limit(
    autojump_clock: MockClock,
    log: Log,
    authority: Authority,
    *,
    proxied: bool,
    secure: bool,
    behave: Callable[[Peer], Any],
    awaited: str,
) -> None:
    """Header and handshake together may take so long, whatever the client does meanwhile; the log says what was due."""
    autojump_clock.autojump_threshold = SETTLED
    context = server_context(authority.issue("localhost"), None) if secure else None
    limits = Limits(handshake_timeout=4)
    async with (
        nothing_left_open(),
        serving(limits=limits, ssl_context=context, proxy_protocol=proxied) as service,
        trio.open_nursery() as nursery,
    ):
        peer = await service.connect()
        nursery.start_soon(behave, peer)
        line = await log.line("is closed")
        assert trio.current_time() == pytest.approx(4)
        assert (
            f" is closed: no {awaited} within 4 s; 0 names in 4.0 s, 0 bytes in, 0 out (#1)" in line
        )
        nursery.cancel_scope.cancel()
        await peer.close()


async def test_a_handshake_in_time_is_followed_by_all_the_time_there_is(
    autojump_clock: MockClock, log: Log
) -> None:
    """The limit of the handshake ends with the handshake."""
    autojump_clock.autojump_threshold = SETTLED
    async with (
        nothing_left_open(),
        serving(limits=Limits(handshake_timeout=4), proxy_protocol=True) as service,
    ):
        peer = await service.connect()
        await trio.sleep(3)
        await peer.say(HEADER)
        await peer.meet()
        await trio.sleep(100)
        await peer.be_greeted(b"Ada")
        await peer.leave()
        assert "the client said exit" in await log.line("is closed")


async def test_a_conversation_has_a_limit(autojump_clock: MockClock, log: Log) -> None:
    """A client that goes on and on is told goodbye when its time is over, in good order."""
    autojump_clock.autojump_threshold = SETTLED
    config = ServerConfig(framing=Framing.LINES, max_lifetime=60)
    async with nothing_left_open(), serving(config) as service:
        peer = await service.connect()
        await peer.meet()
        for _ in range(5):
            await trio.sleep(10)
            await peer.be_greeted(b"Ada")
        await peer.expect(GOODBYE)
        await peer.expect_end()
        assert trio.current_time() == pytest.approx(60)
        await peer.close()
        assert " is closed: its time was over; 5 names in 60.0 s, " in await log.line("is closed")


@pytest.mark.parametrize("secure", [False, True])
async def test_a_client_that_takes_nothing_has_a_limit(
    autojump_clock: MockClock, log: Log, authority: Authority, *, secure: bool
) -> None:
    """A client that does not take its answers is lost after `send_timeout`, with TLS and without."""
    autojump_clock.autojump_threshold = SETTLED
    context = server_context(authority.issue("localhost"), None) if secure else None
    async with (
        nothing_left_open(),
        serving(limits=Limits(send_timeout=7), ssl_context=context) as service,
    ):
        peer = (
            await service.connect_through_tls(authority.path) if secure else await service.connect()
        )
        with contextlib.suppress(trio.BrokenResourceError):
            await peer.say(b"a\n" * 2_000_000)
        line = await log.line("is closed")
        assert trio.current_time() == pytest.approx(7)
        assert (
            " is closed: the connection was lost (the peer took less than 64 KiB in 7 s); " in line
        )
        await peer.close()


# Other terms for those who come later


async def test_terms_can_be_changed_for_those_who_come_later(log: Log) -> None:
    """Replaced limits and configuration hold for the next client, and not for those who are there."""
    listeners: list[Listener] = await open_listeners([Tcp("127.0.0.1", 0)])
    service = lines_service(limits=Limits(max_connections=1, when_full=WhenFull.REJECT))
    async with hosting(service, listeners) as running:
        first = await running.connect()
        await first.meet()
        service.terms.limits = Limits(max_connections=2)
        service.terms.config = ServerConfig(framing=Framing.LINES, max_name_size=3)
        second = await running.connect()
        await second.meet()
        await first.be_greeted(b"Grace")
        await second.say(b"Grace\n")
        await second.expect(b"Sorry, names are limited to 3 bytes.\n")
        await second.close()
        await first.leave()
        await log.line("is closed", 2)


# A server that was stopped


@pytest.mark.parametrize("kind", ["TLS", "PROXY header", "both"])
async def test_a_stopped_server_blames_no_handshake(
    mock_clock: MockClock, authority: Authority, kind: str
) -> None:
    """Who began its handshake in time goes on with it, though the server notices long afterwards that time is over."""
    context = None if kind == "PROXY header" else server_context(authority.issue("localhost"), None)
    header = b"" if kind == "TLS" else b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"
    async with serving(ssl_context=context, proxy_protocol=bool(header)) as service:
        raw = await service.connect()
        await raw.say(header[:10])
        await wait_all_tasks_blocked(SETTLED)
        mock_clock.jump(15)
        await wait_all_tasks_blocked(SETTLED)
        await raw.say(header[10:])
        peer = raw
        if context:
            tls = TLSStream(
                raw.stream,
                client_context(authority.path),
                server_side=False,
                server_hostname="localhost",
            )
            await tls.do_handshake()
            peer = Peer(tls)
        await peer.meet()
        await peer.leave()


async def test_a_handshake_in_pieces_over_a_stopped_server(
    mock_clock: MockClock, authority: Authority
) -> None:
    """A TLS handshake of which a part was done when the server was stopped is gone on with, and not begun again."""
    context = server_context(authority.issue("localhost"), None)
    async with serving(ssl_context=context) as service:
        raw = await service.connect()
        tls = TLSStream(
            raw.stream,
            client_context(authority.path),
            server_side=False,
            server_hostname="localhost",
        )
        with contextlib.suppress(ssl.SSLWantReadError):
            tls._tls.do_handshake()
        hello = tls._outgoing.read()
        await raw.say(hello[:100])
        await wait_all_tasks_blocked(SETTLED)
        mock_clock.jump(15)
        await wait_all_tasks_blocked(SETTLED)
        await raw.say(hello[100:])
        await tls.do_handshake()
        peer = Peer(tls)
        await peer.meet()
        await peer.leave()
