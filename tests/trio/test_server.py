"""The greeting service over real sockets (`_server.py`).

Two clocks are used. Most tests run in real time, and wait for nothing but the kernel. Those in
which time is the subject run in virtual time, which goes on when no socket has moved for a moment.
"""

import contextlib
import errno
import gc
import itertools
import logging
import re
import socket
import sys
import tracemalloc
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from greeter_core import Framing, ServerConfig, ServerConnection
from greeter_trio import _server, serve_greeter
from greeter_trio._drive import BROKEN
from greeter_trio._net.listeners import adopt
from greeter_trio._net.proxy import encode_v1
from greeter_trio._net.tls import HandshakeFailed, TLSStream, server_context
from greeter_trio._service.limits import Limits, Terms, WhenFull

from .certificates import Authority
from .helpers import (
    GOODBYE,
    LINES,
    PATIENCE,
    PROMPT,
    SETTLED,
    TOO_SLOW,
    WELCOME,
    CancelAtStep,
    Log,
    Peer,
    Service,
    connect,
    dialogue,
    hello,
    hosting,
    lines_service,
    nothing_left_open,
    open_descriptors,
    port_of,
    serving,
)

AUTO = ServerConfig()
RAW = ServerConfig(framing=Framing.RAW)
HEADER = encode_v1(("192.0.2.1", 4711), ("192.0.2.2", 6000))
FULL = b"Sorry, the server is full.\n"


# Greeting


async def test_a_client_is_greeted() -> None:
    """The server speaks first, greets every name, and says goodbye to exit."""
    async with nothing_left_open(), serving() as service:
        peer = await service.connect()
        await peer.meet()
        await peer.be_greeted(b"Ada", b"Grace")
        await peer.leave()


async def test_a_client_without_terminators_is_greeted(autojump_clock: MockClock) -> None:
    """A client that sends bare names, and takes each read for one word, is served with the default configuration."""
    autojump_clock.autojump_threshold = SETTLED
    async with serving(AUTO) as service:
        peer = await service.connect()
        for say, words in [
            (b"", [WELCOME, PROMPT]),
            (b"Ada", [hello(b"Ada"), PROMPT]),
            (b"exit", [GOODBYE]),
        ]:
            if say:
                await peer.say(say)
            for word in words:
                assert await peer.hear() == word
        await peer.close()


async def test_listeners_are_handed_back() -> None:
    """`nursery.start` returns the listeners, on the port that the system chose, and it is open by then."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(serve_greeter, "127.0.0.1", 0)
        assert [type(listener) for listener in listeners] == [trio.SocketListener]
        assert listeners[0].socket.getsockname()[0] == "127.0.0.1"
        peer = await connect(port_of(listeners))
        assert await peer.hear() == WELCOME
        await peer.close()
        nursery.cancel_scope.cancel()


async def test_no_host_means_all_interfaces(log: Log) -> None:
    """With host None the server listens on every address there is, and says so for each."""
    async with serving(host=None) as service:
        assert len(log.lines) == len(service.listeners) >= 1
        assert any("0.0.0.0:" in line for line in log.lines)
        for listener in service.listeners:
            family = listener.socket.family
            host = "127.0.0.1" if family == socket.AF_INET else "::1"
            peer = await connect(listener.socket.getsockname()[1], host)
            await peer.meet()
            await peer.close()


async def test_clients_do_not_wait_for_each_other() -> None:
    """Three clients that are connected at once are answered in any order."""
    async with serving() as service:
        one, two, three = peers = [await service.connect() for _ in range(3)]
        for peer in reversed(peers):
            await peer.meet()
        await two.say(b"half a na")
        await three.be_greeted(b"Grace")
        await one.be_greeted(b"Ada")
        await two.say(b"me\n")
        await two.expect(hello(b"half a name") + PROMPT)
        for peer in (two, one, three):
            await peer.leave()


async def test_a_hundred_clients_at_once(log: Log) -> None:
    """A hundred clients, all of them connected before the first is answered, get their own greetings."""

    async def use(peer: Peer, number: int) -> None:
        await peer.meet()
        await peer.be_greeted(*(b"%d of %d" % (index, number) for index in range(10)))
        await peer.leave()

    async with nothing_left_open(), serving() as service:
        peers = [await service.connect() for _ in range(100)]
        async with trio.open_nursery() as nursery:
            for number, peer in enumerate(peers):
                nursery.start_soon(use, peer, number)
        await log.line("is closed: the client said exit; 10 names", 100)


async def test_the_configuration_is_used() -> None:
    """What the caller configures holds for every connection."""
    async with serving(ServerConfig(framing=Framing.LINES, max_name_size=3)) as service:
        peer = await service.connect()
        await peer.meet()
        await peer.be_greeted(b"Ada")
        await peer.say(b"Grace\n")
        await peer.expect(b"Sorry, names are limited to 3 bytes.\n")
        await peer.expect_end()
        await peer.close()


# The log


async def test_the_log_tells_of_every_connection(log: Log) -> None:
    """A conversation makes two lines, in the words of the original: whose it was, its number, and what came of it."""
    async with serving() as service:
        peer = await service.connect()
        assert isinstance(peer.stream, trio.SocketStream)
        port = peer.stream.socket.getsockname()[1]
        await peer.meet()
        await peer.be_greeted(b"Ada", b"Grace")
        await peer.leave()
        await log.line("is closed")
    assert log.lines[:2] == [
        f"Waiting for connection on 127.0.0.1:{service.port}",
        f"Accept new connection from 127.0.0.1:{port} (#1)",
    ]
    sent = len(dialogue(b"Ada", b"Grace"))
    closed = re.fullmatch(
        rf"Connection from 127\.0\.0\.1:{port} is closed: the client said exit; "
        rf"2 names in (\d+\.\d) s, 15 bytes in, {sent} out \(#1\)",
        log.lines[2],
    )
    assert closed
    assert float(closed[1]) < PATIENCE
    assert len(log.lines) == 3
    assert {record.name for record in log.records} == {"greeter_trio"}
    assert {record.levelno for record in log.records} == {logging.INFO}


async def test_the_log_tells_how_long_it_took(autojump_clock: MockClock, log: Log) -> None:
    """The seconds and the names in the log are those of the conversation, and one name is not `1 names`."""
    autojump_clock.autojump_threshold = SETTLED
    async with serving() as service:
        peer = await service.connect()
        await peer.meet()
        await trio.sleep(12.3)
        await peer.be_greeted(b"Ada")
        await peer.leave()
        line = await log.line("is closed")
    assert " is closed: the client said exit; 1 name in 12.3 s, " in line


async def _end(peer: Peer) -> None:
    await peer.end()
    await peer.expect_end()


async def _say_too_much(peer: Peer) -> None:
    await peer.say(b"x" * 1025 + b"\n")
    await peer.expect(b"Sorry, names are limited to 1024 bytes.\n")
    await peer.end()


async def _be_silent(peer: Peer) -> None:
    await peer.expect(TOO_SLOW)
    await peer.end()


async def _reset(peer: Peer) -> None:
    peer.reset()


@pytest.mark.parametrize(
    ("end", "why"),
    [
        (Peer.leave, "the client said exit"),
        (_end, "the client ended it"),
        (_reset, "the connection was lost (Connection reset by peer)"),
        (_say_too_much, 'the server said "Sorry, names are limited to 1024 bytes."'),
        (_be_silent, 'the server said "Sorry, no name came in time."'),
    ],
    ids=["exit", "end", "reset", "too long", "idle"],
)
async def test_the_log_tells_why(
    autojump_clock: MockClock, log: Log, end: Callable[[Peer], Awaitable[None]], why: str
) -> None:
    """The last line of a connection has the reason for its end."""
    autojump_clock.autojump_threshold = SETTLED
    async with serving() as service:
        peer = await service.connect()
        await peer.meet()
        await peer.be_greeted(b"Ada")
        await end(peer)
        line = await log.line("is closed")
        await peer.close()
    assert f" is closed: {why}; 1 name in " in line


async def test_the_log_has_ipv6_addresses_in_brackets(log: Log) -> None:
    """An IPv6 address and its port cannot be confused."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    async with serving(host="::1") as service:
        peer = await connect(service.port, "::1")
        assert isinstance(peer.stream, trio.SocketStream)
        port = peer.stream.socket.getsockname()[1]
        await peer.meet()
        await peer.leave()
        closed = await log.line("is closed")
    assert log.lines[:2] == [
        f"Waiting for connection on [::1]:{service.port}",
        f"Accept new connection from [::1]:{port} (#1)",
    ]
    assert closed.startswith(f"Connection from [::1]:{port} is closed: ")


async def test_nothing_that_a_client_says_reaches_the_log_unescaped(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Terminal escapes in names are not in the log, not even in the traceback of a bug that has them in its message."""
    evil = "\x1b]0;gotcha\x07\x9b2J\u202e".encode() + b"\xff\x80"
    _break_core(monkeypatch, evil)
    async with serving() as service:
        peer = await service.connect()
        await peer.meet()
        await peer.be_greeted(b"\x1b[31mAda\x07", b"\xc2\x9b2J")
        await peer.say(b"\x1b[31m" * 300)
        await peer.expect(b"Sorry, names are limited to 1024 bytes.\n")
        await peer.close()
        await log.line("is closed")
        peer = await service.connect()
        await peer.say(evil)
        await log.line("is closed", 2)
        await peer.close()
    formatter = logging.Formatter()
    text = "".join(formatter.format(record) for record in log.records)
    assert "Traceback" in text
    assert text.replace("\n", "").isprintable()


# Faults


def _break_core(monkeypatch: pytest.MonkeyPatch, word: bytes) -> None:
    """Give the core a bug that this word brings to light."""
    receive_data = ServerConnection.receive_data

    def fail(self: ServerConnection, data: bytes, now: float) -> None:
        if word in data:
            msg = f"a bug in the core: {data!r}"
            raise RuntimeError(msg)
        receive_data(self, data, now)

    monkeypatch.setattr(ServerConnection, "receive_data", fail)


async def test_a_bug_costs_one_connection(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception in one conversation closes that one, is logged once, and disturbs nobody else."""
    _break_core(monkeypatch, b"bug")
    async with nothing_left_open(), serving() as service:
        before = await service.connect()
        await before.meet()
        unlucky = await service.connect()
        await unlucky.meet()
        await unlucky.be_greeted(b"Ada")
        await unlucky.say(b"bug\n")
        await unlucky.expect_end()
        await unlucky.close()
        await before.be_greeted(b"Grace")
        await before.leave()
        after = await service.connect()
        await after.meet()
        await after.leave()
        await log.line("is closed: the client said exit", 2)
    (error,) = [record for record in log.records if record.levelno > logging.INFO]
    assert error.levelno == logging.ERROR
    assert error.getMessage().startswith("The conversation with 127.0.0.1:")
    assert error.getMessage().endswith(" failed")
    assert error.exc_info
    assert isinstance(error.exc_info[1], RuntimeError)
    assert " is closed: the server has a bug; 1 name in " in await log.line("a bug;")


async def _before_reading(peer: Peer) -> None:
    pass


async def _after_a_name(peer: Peer) -> None:
    await peer.meet()
    await peer.be_greeted(b"Ada")


async def _in_a_line(peer: Peer) -> None:
    await peer.meet()
    await peer.be_greeted(b"Ada")
    await peer.say(b"Gra")


async def _with_answers_unread(peer: Peer) -> None:
    await peer.meet()
    await peer.say(b"Ada\n" * 20_000)


async def _while_closing(peer: Peer) -> None:
    await peer.meet()
    await peer.say(b"exit\n")
    await peer.expect(GOODBYE)


@pytest.mark.parametrize(
    ("point", "why"),
    [
        (_before_reading, "the connection was lost (Connection reset by peer)"),
        (_after_a_name, "the connection was lost (Connection reset by peer)"),
        (_in_a_line, "the connection was lost (Connection reset by peer)"),
        (_with_answers_unread, "the connection was lost (Connection reset by peer)"),
        (_while_closing, "the client said exit"),
    ],
)
async def test_a_reset_costs_one_connection(
    log: Log, point: Callable[[Peer], Awaitable[None]], why: str
) -> None:
    """A client that breaks its connection, at any point, leaves no trace but a line in the log."""
    async with nothing_left_open(), serving() as service:
        witness = await service.connect()
        await witness.meet()
        peer = await service.connect()
        await point(peer)
        peer.reset()
        assert f" is closed: {why}; " in await log.line("is closed")
        await witness.be_greeted(b"Grace")
        await witness.leave()
    assert all(record.levelno == logging.INFO for record in log.records)


async def _before_a_header(service: Service, _: str) -> Peer:
    peer = await service.connect()
    await wait_all_tasks_blocked(SETTLED)
    return peer


async def _in_a_header(service: Service, _: str) -> Peer:
    peer = await service.connect()
    await peer.say(HEADER[:20])
    await wait_all_tasks_blocked(SETTLED)
    return peer


async def _in_a_handshake(service: Service, _: str) -> Peer:
    peer = await service.connect()
    await peer.say(HEADER + b"\x16\x03\x01\x02\x00\x01\x00")
    await wait_all_tasks_blocked(SETTLED)
    return peer


async def _in_tls(service: Service, ca: str) -> Peer:
    peer = await service.connect_through_tls(ca, HEADER)
    await peer.meet()
    await peer.be_greeted(b"Ada")
    return peer


async def _while_tls_is_closing(service: Service, ca: str) -> Peer:
    peer = await service.connect_through_tls(ca, HEADER)
    await peer.meet()
    await peer.say(b"exit\n")
    await peer.expect(GOODBYE)
    return peer


async def _with_answers_unread_in_tls(service: Service, ca: str) -> Peer:
    peer = await service.connect_through_tls(ca, HEADER)
    await peer.meet()
    with trio.move_on_after(0.2):  # it is blocked by then, or nearly so
        await peer.say(b"Ada\n" * 1_000_000)
    return peer


async def _while_turned_away(service: Service, ca: str) -> Peer:
    peers = [await service.connect_through_tls(ca, HEADER) for _ in range(2)]
    for each in peers:
        await each.expect(WELCOME + PROMPT if each is peers[0] else FULL)
    await peers[0].close()
    return peers[1]


LOST = "the connection was lost (Connection reset by peer)"


@pytest.mark.parametrize(
    ("point", "why", "reason"),
    [
        (_before_a_header, "Connection reset by peer", "handshake"),
        (_in_a_header, "Connection reset by peer", "handshake"),
        (_in_a_handshake, "the client hung up during the handshake", "handshake"),
        (_in_tls, LOST, "connection_lost"),
        (_with_answers_unread_in_tls, LOST, "connection_lost"),
        (_while_tls_is_closing, "the client said exit", "exit"),
        (_while_turned_away, 'the server said "Sorry, the server is full."', "refused"),
    ],
)
async def test_a_reset_behind_a_proxy_or_in_tls_costs_one_connection(
    log: Log,
    authority: Authority,
    point: Callable[[Service, str], Awaitable[Peer]],
    why: str,
    reason: str,
) -> None:
    """The same holds for a client of a server that wants a PROXY header and TLS."""
    limits = Limits(max_connections=1, when_full=WhenFull.REJECT)
    service = lines_service(
        limits=limits,
        ssl_context=server_context(authority.issue("localhost"), None),
        proxy_protocol=True,
    )
    async with nothing_left_open(), hosting(service) as running:
        peer = await point(running, authority.path)
        transport = (
            peer.stream.transport_stream if isinstance(peer.stream, TLSStream) else peer.stream
        )
        assert isinstance(transport, trio.SocketStream)
        Peer(transport).reset()
        while service.counters.facts()["greeter_connections_open"]:
            await log.line("is closed", service.counters.closed.total() + 1)
        assert service.counters.closed[reason] == 1
        (line,) = [
            line
            for line in log.lines
            if f" is closed: {why}" in line or f": {why})" in line or why in line
        ]
        assert "is closed" in line
        witness = await running.connect_through_tls(authority.path, HEADER)
        await witness.meet()
        await witness.leave()
    assert all(record.levelno == logging.INFO for record in log.records)


async def test_a_half_closed_client_is_answered() -> None:
    """A client that has ended its stream gets all its answers, the one to an unfinished line included, and the end."""
    async with nothing_left_open(), serving() as service:
        peer = await service.connect()
        await peer.say(b"Ada\nGrace")
        await peer.end()
        await peer.expect(WELCOME + PROMPT + hello(b"Ada") + PROMPT + hello(b"Grace"))
        await peer.expect_end()
        await peer.close()


async def test_a_client_that_vanished_is_forgotten(autojump_clock: MockClock, log: Log) -> None:
    """A peer of which nothing is heard any more, not even the end, costs a place for 302 seconds and not longer."""
    autojump_clock.autojump_threshold = SETTLED
    async with nothing_left_open(), serving() as service:
        peer = await service.connect()
        await peer.meet()
        line = await log.line("is closed")
        assert (
            ' is closed: the server said "Sorry, no name came in time."; 0 names in 302.0 s, '
            in line
        )
        await peer.expect(TOO_SLOW)
        await peer.expect_end()
        await peer.close()


async def _flood(peer: Peer) -> None:
    """Say more than the server can answer to somebody who reads nothing, until the connection is closed."""
    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        await peer.say(b"a\n" * 5_000_000)


async def test_a_client_that_never_reads_is_cut_off(autojump_clock: MockClock, log: Log) -> None:
    """A client that takes no answer is lost after 30 seconds, and meanwhile others are served."""
    autojump_clock.autojump_threshold = SETTLED
    async with nothing_left_open(), serving() as service:
        deaf, peer = await service.connect(), await service.connect()
        await peer.meet()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_flood, deaf)
            await wait_all_tasks_blocked(SETTLED / 2)
            await peer.be_greeted(b"Ada")
            line = await log.line("is closed")
        assert (
            " is closed: the connection was lost (the peer took less than 64 KiB in 30 s); " in line
        )
        assert " in 30.0 s, " in line
        await peer.leave()
        await deaf.close()


async def test_a_client_that_never_reads_costs_little_memory(autojump_clock: MockClock) -> None:
    """What the server keeps for a client that takes no answers is a multiple of one read, however much it says."""
    autojump_clock.autojump_threshold = SETTLED
    async with serving() as service:
        deaf = await service.connect()
        data = b"a\n" * 4_000_000  # 8 MB, with 104 MB of answers
        tracemalloc.start()
        try:
            with trio.move_on_after(20):
                await deaf.say(data)
                await trio.sleep(20)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        await deaf.close()
    assert peak < 2_000_000


async def test_many_clients_that_never_read_cost_so_much_each(log: Log) -> None:
    """A thousand clients who say more and more, and read nothing, cost the server the answers to one read each.

    One read is 16 KiB, and its answers have at most 17 times as many bytes, and `max_name_size` +
    128 more (PROTOCOL.md, M2). What else belongs to a conversation (its task, its buffers) is much
    less than 16 KiB.
    """
    crowd = min(1000, _most_connections())
    answers = 17 * 16384 + 1024 + 128
    with contextlib.ExitStack() as opened:
        sock = opened.enter_context(socket.create_server(("127.0.0.1", 0), backlog=crowd))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 100_000)  # for more than one read
        sock.setsockopt(
            socket.SOL_SOCKET, socket.SO_SNDBUF, 4096
        )  # so that little is in the kernel
        async with nothing_left_open(), hosting(lines_service(), [adopt(sock.dup())]) as service:
            clients = [opened.enter_context(socket.socket()) for _ in range(crowd)]
            tracemalloc.start()
            try:
                for client in clients:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                    client.connect(("127.0.0.1", service.port))
                    client.settimeout(0)
                for _ in range(3):
                    for client in clients:
                        with contextlib.suppress(BlockingIOError):
                            client.send(b"\n" * 100_000)
                    await wait_all_tasks_blocked(SETTLED)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            service.scope.cancel()
            await service.over.wait()
            for client in clients:
                client.close()
    assert sum("Accept new" in line for line in log.lines) == crowd
    assert peak < crowd * (answers + 16384)


def _most_connections() -> int:
    """Return how many connections there can be, with both ends in this process."""
    resource = pytest.importorskip("resource")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    most: int = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return (most - open_descriptors() - 50) // 2


async def test_a_conversation_that_is_over_is_forgotten(log: Log) -> None:
    """A server that runs for long keeps nothing of the clients that it had."""

    def count() -> int:
        gc.collect()
        return sum(isinstance(each, ServerConnection) for each in gc.get_objects())

    before = count()
    async with serving() as service:
        for number in range(1, 21):
            peer = await service.connect()
            await peer.meet()
            await peer.leave()
            await log.line("is closed", number)
        assert count() == before


async def test_one_bug_in_ten_conversations_disturbs_nobody(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a tenth of all conversations fail the others lose no byte, and nothing is left of any of them."""
    _break_core(monkeypatch, b"bug")

    async def use(number: int) -> None:
        peer = await service.connect()
        names = [b"%d of %d" % (index, number) for index in range(200)]
        unlucky = number % 10 == 3
        async with trio.open_nursery() as nursery:
            nursery.start_soon(speak, peer, names, unlucky)
            with contextlib.suppress(trio.BrokenResourceError):
                await peer.hear_all()
        if unlucky:
            assert dialogue(*names).startswith(peer.heard)
        else:
            assert peer.heard == dialogue(*names)
        await peer.close()

    async def speak(peer: Peer, names: list[bytes], unlucky: bool) -> None:  # noqa: FBT001 - it is `start_soon` who calls
        for index, name in enumerate(names):
            with contextlib.suppress(trio.BrokenResourceError):
                await peer.say(b"bug\n" if unlucky and index == 100 else name + b"\n")
        with contextlib.suppress(trio.BrokenResourceError):
            await peer.say(b"exit\n")

    def living() -> int:
        return trio.lowlevel.current_statistics().tasks_living

    async with nothing_left_open(), serving() as service:
        tasks = living()
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(use, number)
        await log.line("is closed", 100)
        await wait_all_tasks_blocked()
        assert living() == tasks
    assert sum("is closed: the client said exit; 200 names" in line for line in log.lines) == 90
    assert sum("is closed: the server has a bug; " in line for line in log.lines) == 10
    assert sum(record.levelno == logging.ERROR for record in log.records) == 10
    assert len(log.lines) == 1 + 2 * 100 + 10


async def test_a_storm_of_faults_disturbs_nobody(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """While many clients misbehave in every way there is, the others get every answer, and nothing is left open."""
    _break_core(monkeypatch, b"bug")

    async def misbehave(number: int) -> None:
        peer = await service.connect()
        match number % 6:
            case 0:
                peer.reset()
            case 1:
                await peer.say(b"bug\n")
            case 2:
                await peer.say(b"x" * 5000)
            case 3:
                await peer.say(b"Ada\n" * 1000)
                peer.reset()
            case 4:
                await peer.end()
            case _:
                await peer.say(b"exit\nexit\nAda")
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await peer.hear_all()
        await peer.close()

    async def behave() -> None:
        peer = await service.connect()
        await peer.meet()
        await peer.be_greeted(*(b"%d" % number for number in range(50)))
        await peer.leave()

    async with nothing_left_open(), serving() as service:
        async with trio.open_nursery() as nursery:
            for number in range(60):
                nursery.start_soon(misbehave, number)
                if number % 6 == 0:
                    nursery.start_soon(behave)
        await log.line("is closed", 70)
    assert sum("the client said exit; 50 names" in line for line in log.lines) == 10


# Listening


async def test_a_port_in_use_raises() -> None:
    """Where it cannot listen the server raises OSError itself, and leaves nothing open."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        async with nothing_left_open():
            with pytest.raises(OSError, match="ddress already in use") as caught:
                await serve_greeter("127.0.0.1", taken.getsockname()[1])
    assert caught.value.errno == errno.EADDRINUSE


async def test_an_unknown_address_raises() -> None:
    """An address that this machine does not have raises OSError."""
    with pytest.raises(OSError, match=r"192\.0\.2\.1:0: Cannot assign requested address") as caught:
        await serve_greeter("192.0.2.1", 0)
    assert caught.value.errno == errno.EADDRNOTAVAIL


# Shutdown


async def _idle(peer: Peer) -> None:
    await peer.meet()


async def _tail(peer: Peer) -> None:
    await peer.expect(WELCOME)
    await peer.say(b"Ada")


async def _pipelining(peer: Peer) -> None:
    await peer.say(b"Ada\nGrace\nEds")


@pytest.mark.parametrize(
    ("config", "prepare", "said"),
    [
        (LINES, _idle, WELCOME + PROMPT + GOODBYE),
        (LINES, _in_a_line, WELCOME + PROMPT + hello(b"Ada") + PROMPT + GOODBYE),
        (LINES, _pipelining, dialogue(b"Ada", b"Grace")),
        (AUTO, _tail, dialogue(b"Ada")),
        (AUTO, _pipelining, dialogue(b"Ada", b"Grace")),
        (RAW, _tail, dialogue(b"Ada")),
    ],
    ids=["idle", "in a line", "pipelining lines", "undecided", "pipelining", "raw"],
)
async def test_shutdown_says_goodbye(
    autojump_clock: MockClock,
    log: Log,
    config: ServerConfig,
    prepare: Callable[[Peer], Awaitable[None]],
    said: bytes,
) -> None:
    """At shutdown a client hears the answers to what it has said, then GOODBYE and the end."""
    autojump_clock.autojump_threshold = SETTLED
    async with nothing_left_open(), serving(config) as service:
        peer = await service.connect()
        await prepare(peer)
        await wait_all_tasks_blocked(SETTLED / 2)
        service.shutdown.set()
        await peer.hear_all()
        assert peer.heard == said
        await peer.close()
        await service.over.wait()
    assert "is closed: the server is shutting down; " in await log.line("is closed")


async def test_shutdown_tells_everybody() -> None:
    """All clients hear goodbye at once, and the server returns when the last of them has ended its stream."""
    async with nothing_left_open(), serving() as service:
        peers = [await service.connect() for _ in range(30)]
        for peer in peers:
            await peer.meet()
        service.shutdown.set()
        for peer in peers:
            await peer.expect(GOODBYE)
            await peer.expect_end()
            assert not service.over.is_set()
            await peer.close()
        await service.over.wait()


async def test_shutdown_refuses_new_clients_at_once() -> None:
    """Nobody can connect any more while the clients that are there say goodbye."""
    async with serving() as service:
        peer = await service.connect()
        await peer.meet()
        service.shutdown.set()
        await peer.expect(GOODBYE)
        with pytest.raises(OSError, match="connect"):
            await service.connect()
        assert not service.over.is_set()
        await peer.close()
        await service.over.wait()


async def test_shutdown_without_clients_returns_at_once() -> None:
    """A server that nobody uses stops when it is told to, even if that was before it began."""
    async with serving() as service:
        service.shutdown.set()
        await service.over.wait()
    await serve_greeter("127.0.0.1", 0, shutdown=service.shutdown)


async def test_shutdown_waits_for_the_end_no_longer_than_linger(autojump_clock: MockClock) -> None:
    """Clients that hear goodbye and stay connected hold the server for 2 seconds."""
    autojump_clock.autojump_threshold = SETTLED
    async with serving() as service:
        peer = await service.connect()
        await peer.meet()
        since = trio.current_time()
        service.shutdown.set()
        await service.over.wait()
        assert trio.current_time() == pytest.approx(since + 2)
        assert service.cut == 0
        await peer.expect(GOODBYE)
        await peer.close()


async def test_shutdown_has_a_limit(autojump_clock: MockClock, log: Log) -> None:
    """A client that takes nothing holds the server for its grace, and is cut off then, which is counted."""
    autojump_clock.autojump_threshold = SETTLED
    async with nothing_left_open(), serving() as service:
        deaf = await service.connect()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_flood, deaf)
            await wait_all_tasks_blocked(SETTLED / 2)
            since = trio.current_time()
            service.shutdown.set()
            await service.over.wait()
            assert trio.current_time() == pytest.approx(since + 15)
        assert "is closed: it was cut off; " in await log.line("is closed")
        assert log.lines[-1] == "Grace of 15 s ran out: 1 conversation cut off"
        await deaf.close()


# Listeners of the caller's own

AF_UNIX: Any = getattr(socket, "AF_UNIX", None)


async def tcp_listeners() -> list[trio.SocketListener]:
    """Return what Trio opens for a host, and one more."""
    return [
        *await trio.open_tcp_listeners(0, host="127.0.0.1"),
        *await trio.open_tcp_listeners(0, host="127.0.0.1"),
    ]


async def unix_listeners() -> list[trio.SocketListener]:
    """Return two listening Unix sockets, whose files are not the server's business."""
    return [_unix_listener(), _unix_listener()]


def _unix_listener() -> trio.SocketListener:
    sock = socket.socket(AF_UNIX)
    sock.bind("")  # Linux finds an abstract name by itself (unix(7), autobind)
    sock.listen()
    return trio.SocketListener(trio.socket.from_stdlib_socket(sock))


async def both_listeners() -> list[trio.SocketListener]:
    """Return one of each kind."""
    return [_unix_listener(), *await trio.open_tcp_listeners(0, host="127.0.0.1")]


linux = pytest.mark.skipif(sys.platform != "linux", reason="it needs abstract Unix sockets")
opened = pytest.mark.parametrize(
    "open_listeners",
    [
        pytest.param(tcp_listeners, id="TCP"),
        pytest.param(unix_listeners, id="Unix", marks=linux),
        pytest.param(both_listeners, id="both", marks=linux),
    ],
)
Opener = Callable[[], Awaitable[list[trio.SocketListener]]]


async def _call(listener: trio.SocketListener) -> Peer:
    """Connect to a listener of either kind."""
    where = listener.socket.getsockname()
    if isinstance(where, tuple):
        return await connect(where[1])
    sock = socket.socket(AF_UNIX)
    sock.connect(where)
    return Peer(trio.SocketStream(trio.socket.from_stdlib_socket(sock)))


async def test_no_listener_at_all() -> None:
    """To serve nobody, for ever and without a word, can only be a mistake."""
    with pytest.raises(ValueError, match="listeners must be one or more"):
        await serve_greeter(listeners=[])


async def test_a_port_that_cannot_be() -> None:
    """A number that is no port is told as any other place where the server cannot listen."""
    with pytest.raises(
        OSError, match=r"cannot listen on 127\.0\.0\.1:70000: .*port must be 0-65535"
    ):
        await serve_greeter("127.0.0.1", 70_000)


async def test_a_listener_of_the_callers_own_that_is_closed() -> None:
    """If one of the listeners is closed nothing is served, and the others are left as they were."""
    (good,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    (closed,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with good:
        await closed.aclose()
        async with nothing_left_open():
            with pytest.raises(OSError, match="Bad file descriptor"):
                await serve_greeter(listeners=[good, closed])


@opened
@pytest.mark.parametrize("end", ["shutdown", "cancellation"])
async def test_listeners_of_the_callers_own(open_listeners: Opener, end: str) -> None:
    """They are served, handed back as the very objects, and closed at the end, however it comes."""
    async with nothing_left_open():
        theirs, shutdown, peers = await open_listeners(), trio.Event(), list[Peer]()
        async with trio.open_nursery() as nursery:
            serve = partial(serve_greeter, listeners=theirs, config=LINES, shutdown=shutdown)
            handed_back = await nursery.start(serve)
            assert [id(listener) for listener in handed_back] == [
                id(listener) for listener in theirs
            ]
            for listener in theirs:
                for _ in range(2):
                    peer = await _call(listener)
                    await peer.meet()
                    await peer.be_greeted(b"Ada")
                    peers.append(peer)
            if end == "shutdown":
                shutdown.set()
                for peer in peers:
                    await peer.expect(GOODBYE)
                    await peer.expect_end()
                    await peer.close()
            else:
                nursery.cancel_scope.cancel()
        for peer in peers:
            await peer.close()
        for listener in theirs:
            assert listener.socket.fileno() == -1
            with pytest.raises(trio.ClosedResourceError):
                await listener.accept()


@opened
async def test_who_waits_at_a_listener_of_the_callers_own_is_answered(
    open_listeners: Opener, log: Log
) -> None:
    """At shutdown its backlog is accepted to the last connection, and the log names where each came from."""
    theirs, shutdown = await open_listeners(), trio.Event()
    peers = [await _call(listener) for listener in theirs for _ in range(20)]
    shutdown.set()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            partial(serve_greeter, listeners=theirs, config=LINES, shutdown=shutdown)
        )
        for peer in peers:
            await peer.expect(WELCOME + PROMPT + GOODBYE)
            await peer.expect_end()
            await peer.close()
    waiting = [text for text in log.lines if text.startswith("Waiting for connection on ")]
    assert len(waiting) == len(set(waiting)) == len(theirs)


# Cancellation


async def test_cancellation_closes_everything(log: Log) -> None:
    """A server that is cancelled ends at once and leaves nothing open, whatever its clients were doing."""
    async with nothing_left_open():
        async with trio.open_nursery() as nursery:
            async with serving() as service:
                peers = [await service.connect() for _ in range(5)]
                for peer, prepare in zip(
                    peers, [_idle, _in_a_line, _pipelining, _while_closing], strict=False
                ):
                    await prepare(peer)
                nursery.start_soon(_flood, peers[4])
                await log.line("Accept", 5)
                await wait_all_tasks_blocked(SETTLED)
                service.scope.cancel()
                await service.over.wait()
            with pytest.raises(OSError, match="connect"):
                await service.connect()
        for peer in peers:
            await peer.close()
    closed = [line for line in log.lines if "is closed" in line]
    assert len(closed) == 5
    assert sum("is closed: it was cut off; " in line for line in closed) >= 3


async def test_a_client_that_was_cut_off_is_not_blamed(autojump_clock: MockClock, log: Log) -> None:
    """A conversation that is cancelled while it sends is logged as cut off, and not as one that the client lost."""
    autojump_clock.autojump_threshold = SETTLED
    async with trio.open_nursery() as nursery, serving() as service:
        deaf = await service.connect()
        nursery.start_soon(_flood, deaf)
        await trio.sleep(1)
        service.scope.cancel()
        line = await log.line("is closed")
        await deaf.close()
    assert " is closed: it was cut off; " in line


async def test_cancellation_while_it_starts_closes_everything() -> None:
    """A server that is cancelled while it begins to listen leaves nothing open."""
    async with nothing_left_open():
        for steps in itertools.count(1):
            scope = trio.CancelScope()
            instrument = CancelAtStep(trio.lowlevel.current_task(), steps, scope)
            trio.lowlevel.add_instrument(instrument)
            done = trio.Event()
            done.set()
            with scope:
                await serve_greeter("127.0.0.1", 0, shutdown=done)
            trio.lowlevel.remove_instrument(instrument)
            if not scope.cancelled_caught:
                break
    assert steps > 5


async def test_cancellation_at_every_step_closes_everything(authority: Authority) -> None:
    """A server that is cancelled at any checkpoint of itself and its conversations leaves nothing open.

    It has a plain client, one behind a proxy, one who speaks TLS, one who does both, one who is
    shut down, and one who is turned away meanwhile.
    """
    limits = Limits(max_connections=1, when_full=WhenFull.REJECT)
    context = server_context(authority.issue("localhost"), None)
    kinds = [(header, secure) for header in (b"", HEADER) for secure in (None, context)]

    async def meet_all(service: _server.Service, running: Service) -> None:
        for header, secure in kinds:
            service.terms = Terms(
                config=LINES, limits=limits, ssl_context=secure, proxy_protocol=bool(header)
            )
            if secure:
                peer = await running.connect_through_tls(authority.path, header)
            else:
                peer = await running.connect()
            async with peer.stream:
                if not secure:
                    await peer.say(header)
                await peer.meet()
                await peer.be_greeted(b"Ada")
                await peer.say(b"exit\n")
                await peer.expect(GOODBYE)
                await peer.expect_end()
                await peer.end()
        service.terms = Terms(config=LINES, limits=limits)
        last = await running.connect()
        async with last.stream:
            await last.meet()
            other = await running.connect()
            async with other.stream:
                await other.expect(FULL)
                await last.say(b"Grace\n")
                running.shutdown.set()
                await other.hear_all()
                await last.hear_all()

    async def run(steps: int) -> bool:
        service = lines_service(limits=limits)
        async with nothing_left_open(), hosting(service) as running:
            task = service._conversations.parent_task
            instrument = CancelAtStep(task, steps, running.scope)
            trio.lowlevel.add_instrument(instrument)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_hang_up, running.over, nursery.cancel_scope)
                with contextlib.suppress(OSError, HandshakeFailed, AssertionError, *BROKEN):
                    await meet_all(service, running)
                await running.over.wait()
            trio.lowlevel.remove_instrument(instrument)
        return running.scope.cancelled_caught

    steps = 1
    while await run(steps):
        steps += 1
    assert steps > 50


async def _hang_up(over: trio.Event, scope: trio.CancelScope) -> None:
    """Give up what is going on with the server when it is over."""
    await over.wait()
    await wait_all_tasks_blocked()
    scope.cancel()


async def test_nothing_is_left_for_the_garbage_collector(recwarn: pytest.WarningsRecorder) -> None:
    """Neither an orderly end nor a cancellation leaves a socket to be closed by chance."""
    for prepare in (_idle, _in_a_line, _while_closing):
        async with serving() as service:
            peer = await service.connect()
            await prepare(peer)
        await peer.close()
    gc.collect()
    assert [warning.message for warning in recwarn] == []
