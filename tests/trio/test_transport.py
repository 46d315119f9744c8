# ruff: noqa: ARG001 - a test gets the clock that it names as an argument, and need not touch it
"""Byte streams as the driver sees them (`_transport.py`): one contract for all kinds."""

import contextlib
import itertools
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from types import SimpleNamespace

import attrs
import pytest
import trio
from trio.testing import (
    MockClock,
    assert_checkpoints,
    lockstep_stream_pair,
    memory_stream_pair,
    wait_all_tasks_blocked,
)

from greeter_trio._net import transport as _transport
from greeter_trio._net.readiness import Watch, open_readiness
from greeter_trio._net.tls import TLSStream, client_context, server_context
from greeter_trio._net.transport import (
    SIZE,
    SocketTransport,
    StreamTransport,
    Transport,
    set_options,
    transport_over,
)

from .certificates import Authority
from .helpers import (
    SETTLED,
    CancelAtStep,
    Fault,
    Peer,
    Plain,
    Tap,
    no_waiting,
    nothing_left_open,
    sockets,
    tcp_pair,
    tls_over,
    unix_pair,
)

PATTERN = b"".join(b"%07d\n" % number for number in range(200_000))
"""Bytes no eighth of which is like another, so that what is lost or doubled is seen."""

BLOCK = 100_000
"""So many of them are sent at once: more than is received at once, less than any kernel buffers."""


@attrs.define
class Ends:
    """A transport to be tested, and the peer at the other end."""

    transport: Transport
    peer: Peer
    close: Callable[[], Awaitable[object]]
    """Close what the transport goes over."""
    sock: socket.socket | trio.socket.SocketType | None = None
    """The socket below, if there is one."""

    async def send(self, data: bytes) -> None:
        """Send all of it, as the driver does."""
        sent = self.transport.send_now(data)
        while sent < len(data):
            sent += await self.transport.send_some(memoryview(data)[sent:])

    def fill(self, start: int = 0) -> int:
        """Send what goes without waiting, from there on, until nothing goes any more; return how much that was."""
        sent = 0
        while more := self.transport.send_now(memoryview(PATTERN)[start + sent :]):
            sent += more
        return sent


Kind = Callable[[Authority], contextlib.AbstractAsyncContextManager[Ends]]


@contextlib.asynccontextmanager
async def over_socket(_: Authority, *, family: str, edges: bool) -> AsyncIterator[Ends]:
    """Yield a transport over a socket of the standard library."""
    sock, peer = sockets(family)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * BLOCK)

    async def close() -> None:
        sock.close()

    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(peer)
        watch = Watch(sock)
        if edges:
            readiness = await stack.enter_async_context(open_readiness())
            watch = readiness.watch(sock)
        stack.callback(sock.close)
        transport = SocketTransport(sock, watch)
        stack.callback(transport.close)
        yield Ends(transport, Peer(peer), close, sock)


@contextlib.asynccontextmanager
async def over_stream(
    _: Authority,
    *,
    make: Callable[[], tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]],
) -> AsyncIterator[Ends]:
    """Yield the transport that is chosen for a stream."""
    ours, theirs = make()
    async with ours, theirs:
        transport = transport_over(ours)
        yield Ends(transport, Peer(theirs), ours.aclose, getattr(ours, "socket", None))
        transport.close()


@contextlib.asynccontextmanager
async def over_tls(
    authority: Authority,
    *,
    make: Callable[[], tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]],
) -> AsyncIterator[Ends]:
    """Yield a transport over this package's own TLS."""
    pair = make()
    ours, theirs = await tls_over(authority, pair)
    async with ours, theirs:
        yield Ends(
            transport_over(ours), Peer(theirs), ours.aclose, getattr(pair[0], "socket", None)
        )


@attrs.define
class Whole(trio.abc.HalfCloseableStream):
    """A stream without half-close, whose end is to close it."""

    stream: trio.abc.Stream

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Receive."""
        return await self.stream.receive_some(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send."""
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait; nobody asks for it."""
        raise NotImplementedError

    async def send_eof(self) -> None:
        """Close."""
        await self.stream.aclose()

    async def aclose(self) -> None:
        """Close, without the other side's consent."""
        await trio.aclose_forcefully(self.stream)


@contextlib.asynccontextmanager
async def over_trios_tls(authority: Authority) -> AsyncIterator[Ends]:
    """Yield a transport over Trio's TLS, of which one side has to close for the other's sake."""
    left, right = memory_stream_pair()
    context = server_context(authority.issue("localhost"), None)
    ours = trio.SSLStream(left, context, server_side=True)
    trust = client_context(authority.path)
    theirs = trio.SSLStream(right, trust, server_hostname="localhost")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.do_handshake)
        nursery.start_soon(theirs.do_handshake)
    yield Ends(transport_over(ours), Peer(Whole(theirs)), ours.aclose)
    await trio.aclose_forcefully(ours)
    await trio.aclose_forcefully(theirs)


PLAIN: dict[str, Kind] = {
    "TCP": partial(over_socket, family="TCP", edges=False),
    "Unix": partial(over_socket, family="Unix", edges=False),
    "TCP-edges": partial(over_socket, family="TCP", edges=True),
    "Unix-edges": partial(over_socket, family="Unix", edges=True),
    "TCP-borrowed": partial(over_stream, make=tcp_pair),
    "Unix-borrowed": partial(over_stream, make=unix_pair),
}
TLS: dict[str, Kind] = {
    "TLS-TCP": partial(over_tls, make=tcp_pair),
    "TLS-Unix": partial(over_tls, make=unix_pair),
    "TLS-memory": partial(over_tls, make=memory_stream_pair),
    "SSLStream": over_trios_tls,
}
MEMORY: dict[str, Kind] = {
    "memory": partial(over_stream, make=memory_stream_pair),
    "lockstep": partial(over_stream, make=lockstep_stream_pair),
}
ALL = PLAIN | TLS | MEMORY
IN_STEPS = PLAIN | {name: TLS[name] for name in ("TLS-TCP", "TLS-Unix")}
"""Where a send can be cancelled without harm."""


def kinds(chosen: dict[str, Kind]) -> pytest.MarkDecorator:
    """Run a test with each of these kinds of transports."""
    return pytest.mark.parametrize("kind", chosen.values(), ids=chosen)


# Receiving


@kinds(ALL)
async def test_bytes_go_both_ways_until_both_have_ended(kind: Kind, authority: Authority) -> None:
    """What either side sends reaches the other, and then its end, which stays."""
    async with kind(authority) as ends, trio.open_nursery() as nursery:
        nursery.start_soon(ends.peer.say, b"Ada")
        assert await ends.transport.receive() == b"Ada"
        nursery.start_soon(ends.send, b"Grace")
        await ends.peer.expect(b"Grace")
        nursery.start_soon(ends.peer.end)
        assert await ends.transport.receive() == b""
        assert await ends.transport.receive() == b""
        assert await ends.transport.receive_arrived() == b""


@kinds(ALL)
async def test_receiving_waits(kind: Kind, authority: Authority) -> None:
    """Where nothing has come yet, to receive waits until something has: bytes, or the end."""
    async with kind(authority) as ends:
        words: list[tuple[Callable[[], Awaitable[None]], bytes]] = [
            (partial(ends.peer.say, b"Ada"), b"Ada"),
            (ends.peer.end, b""),
        ]
        for come, heard in words:
            received: list[bytes | bytearray] = []

            async def receive(into: list[bytes | bytearray]) -> None:
                into.append(await ends.transport.receive())

            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive, received)
                await wait_all_tasks_blocked()
                assert received == []
                await come()
            assert received == [heard]


@kinds(ALL)
async def test_receiving_is_a_checkpoint(kind: Kind, authority: Authority) -> None:
    """Others go first even if bytes are there, and whoever is cancelled has taken nothing."""
    async with kind(authority) as ends, trio.open_nursery() as nursery:
        nursery.start_soon(ends.peer.say, b"Ada")
        await wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            scope.cancel()
            await ends.transport.receive()
        assert scope.cancelled_caught
        with assert_checkpoints():
            assert await ends.transport.receive() == b"Ada"
        await wait_all_tasks_blocked()
        nursery.start_soon(ends.peer.say, b"Grace")
        await wait_all_tasks_blocked()
        with assert_checkpoints():  # likewise where something has been received before
            assert await ends.transport.receive() == b"Grace"


@pytest.mark.parametrize("call", ["receive", "receive_arrived"])
@kinds(ALL)
async def test_cancelled_at_any_step_a_receive_loses_nothing(
    kind: Kind, authority: Authority, call: str
) -> None:
    """Wherever it is cancelled, what has come is received by the next call."""
    async with kind(authority) as ends:
        receive = ends.transport.receive if call == "receive" else ends.transport.receive_arrived
        for steps in itertools.count(1):
            word = b"name %d" % steps
            heard: bytes | bytearray | None = None
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ends.peer.say, word)
                scope = trio.CancelScope()
                instrument = CancelAtStep(trio.lowlevel.current_task(), steps, scope)
                trio.lowlevel.add_instrument(instrument)
                with scope:
                    heard = await receive()
                trio.lowlevel.remove_instrument(instrument)
                assert (heard or await ends.transport.receive()) == word
            if not scope.cancel_called:
                break
        assert steps > 1 or call == "receive_arrived"  # which does not always have a step


@pytest.mark.parametrize(
    ("kind", "most"),
    [
        *((kind, SIZE) for kind in PLAIN.values()),
        *((kind, 2 * SIZE) for kind in (TLS | MEMORY).values()),
    ],
    ids=ALL,
)
@pytest.mark.parametrize("call", ["receive", "receive_arrived"])
async def test_of_much_about_16_kib_are_received_at_once(
    kind: Kind, authority: Authority, most: int, call: str
) -> None:
    """However much has come, one arrival is bounded, and nothing is lost between two."""
    heard = bytearray()
    async with kind(authority) as ends, trio.open_nursery() as nursery:
        nursery.start_soon(ends.peer.say, PATTERN[:BLOCK])
        await wait_all_tasks_blocked()
        while len(heard) < BLOCK:
            if call == "receive":
                data = await ends.transport.receive()
            else:
                arrived = await ends.transport.receive_arrived()
                assert arrived is not None
                data = arrived
                assert len(data) >= min(SIZE, BLOCK - len(heard))
            assert 0 < len(data) <= most
            heard += data
    assert heard == PATTERN[:BLOCK]


# What has arrived


@kinds(ALL)
async def test_what_is_there_is_received_without_waiting(kind: Kind, authority: Authority) -> None:
    """None for nothing, then what has come, then the end, as often as it is asked: nothing of it takes any time."""
    async with kind(authority) as ends, trio.open_nursery() as nursery:
        with no_waiting():
            assert await ends.transport.receive_arrived() is None
            assert await ends.transport.receive_arrived() is None
        nursery.start_soon(ends.peer.say, b"Ada")
        await wait_all_tasks_blocked()
        with no_waiting():
            assert await ends.transport.receive_arrived() == b"Ada"
            assert await ends.transport.receive_arrived() is None
        nursery.start_soon(ends.peer.end)
        await wait_all_tasks_blocked()
        with no_waiting():
            assert await ends.transport.receive_arrived() == b""
            assert await ends.transport.receive_arrived() == b""


@kinds(ALL)
async def test_to_ask_for_what_is_there_costs_the_next_receive_nothing(
    kind: Kind, authority: Authority
) -> None:
    """After `receive_arrived` found something or nothing, `receive` waits for what comes later, and gets it."""
    async with kind(authority) as ends, trio.open_nursery() as nursery:
        for round_ in range(3):
            assert await ends.transport.receive_arrived() is None
            if round_:
                nursery.start_soon(ends.peer.say, b"early")
                await wait_all_tasks_blocked()
                assert await ends.transport.receive_arrived() == b"early"
            nursery.start_soon(ends.peer.say, b"late")
            assert await ends.transport.receive() == b"late"
            await wait_all_tasks_blocked()


@kinds(PLAIN | TLS | {"memory": MEMORY["memory"]})
async def test_all_that_is_there_is_one_arrival(kind: Kind, authority: Authority) -> None:
    """Several sends, and so several records of TLS, are one arrival once they are there (T3)."""
    async with kind(authority) as ends:
        for word in (b"A", b"d", b"a"):
            await ends.peer.say(word)
        with no_waiting():
            assert await ends.transport.receive_arrived() == b"Ada"


@kinds(ALL)
async def test_the_end_does_not_hide_what_came_before_it(kind: Kind, authority: Authority) -> None:
    """Bytes and the end that are there together are two arrivals."""
    async with kind(authority) as ends, trio.open_nursery() as nursery:

        async def say_and_end() -> None:
            await ends.peer.say(b"Ada")
            await ends.peer.end()

        nursery.start_soon(say_and_end)
        await wait_all_tasks_blocked()
        assert await ends.transport.receive_arrived() == b"Ada"
        await wait_all_tasks_blocked()
        assert await ends.transport.receive_arrived() == b""


@pytest.mark.parametrize("later", ["receive", "receive_arrived"])
async def test_a_break_does_not_hide_what_came_before_it(later: str) -> None:
    """Bytes that are there before a stream breaks are an arrival; whoever receives next is told of the break."""
    ours, theirs = memory_stream_pair()
    stream = Tap(ours, Fault("receive", 2, trio.BrokenResourceError("gone")))
    transport = StreamTransport(stream)
    await theirs.send_all(b"Ada")
    assert await transport.receive_arrived() == b"Ada"
    stream.fault = Fault("receive", 3, trio.BrokenResourceError("gone"))  # as broken streams do
    with pytest.raises(trio.BrokenResourceError, match=r"^gone$"):
        await getattr(transport, later)()


async def test_a_tls_stream_that_was_cut_gives_what_came_before(authority: Authority) -> None:
    """A last record, and the end of TCP without close_notify, that are there together are both told."""
    async with over_tls(authority, make=tcp_pair) as ends:
        await ends.peer.say(b"Ada")
        await ends.peer.close()
        assert await ends.transport.receive_arrived() == b"Ada"
        with pytest.raises(trio.BrokenResourceError, match="hung up without notice"):
            await ends.transport.receive_arrived()


async def test_a_bug_of_a_stream_comes_out(autojump_clock: MockClock) -> None:
    """An exception that no stream of Trio's raises is not hidden, whichever call meets it."""
    ours, _ = memory_stream_pair()
    transport = StreamTransport(Tap(ours, Fault("receive", 1, ZeroDivisionError())))
    with pytest.RaisesGroup(ZeroDivisionError, allow_unwrapped=True):
        await transport.receive_arrived()


@kinds(PLAIN)
async def test_what_has_arrived_is_counted(kind: Kind, authority: Authority) -> None:
    """A socket knows exactly how many bytes have come and were not received (FIONREAD), however many."""
    pytest.importorskip("fcntl", reason="the kernel cannot be asked")
    async with kind(authority) as ends:
        assert ends.transport.arrived() == 0
        await ends.peer.say(b"Ada")
        await ends.peer.say(b"Grace")
        assert ends.transport.arrived() == 8
        assert await ends.transport.receive() == b"AdaGrace"
        assert ends.transport.arrived() == 0
        await ends.peer.say(PATTERN[:BLOCK])
        assert ends.transport.arrived() == BLOCK


@kinds(TLS | MEMORY)
async def test_other_streams_may_hold_more_than_can_be_asked(
    kind: Kind, authority: Authority
) -> None:
    """What has arrived is at least what the stream may hold back, and what the socket below it has besides."""
    async with kind(authority) as ends, trio.open_nursery() as nursery:
        held_back = ends.transport.arrived()
        assert held_back >= 2 * SIZE
        nursery.start_soon(ends.peer.say, PATTERN[:BLOCK])
        await wait_all_tasks_blocked()
        assert ends.transport.arrived() >= held_back + (BLOCK if ends.sock else 0)
        nursery.cancel_scope.cancel()


async def test_where_the_kernel_cannot_be_asked_it_is_a_guess(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without ioctl, or with a socket that does not know it, much may have arrived, and nothing is in flight."""
    ours, theirs = tcp_pair()
    async with ours, theirs:
        transport = transport_over(ours)
        for module in ("_fcntl", "_termios"):
            with monkeypatch.context() as patched:
                patched.setattr(_transport, module, None)
                assert transport.arrived() > 6 * 2**17
                assert transport.is_in_flight() is False
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123, ASYNC230 - it is not read
        strange = SocketTransport(Strange(nothing.fileno()), Watch(ours.socket))
        assert strange.arrived() > 6 * 2**17
        assert strange.is_in_flight() is False


@attrs.frozen
class Strange:
    """A socket of a kind that cannot be asked what it holds."""

    number: int
    family: int = socket.AF_INET

    def fileno(self) -> int:
        """Return its descriptor."""
        return self.number

    def recv(self, size: int, /) -> bytes:
        """Receive; nobody does."""
        raise NotImplementedError

    def send(self, data: bytes | memoryview, /) -> int:
        """Send; nobody does."""
        raise NotImplementedError

    def shutdown(self, how: int, /) -> None:
        """Shut down; nobody does."""
        raise NotImplementedError


# Sending


@kinds(PLAIN)
async def test_what_goes_without_waiting_is_sent(kind: Kind, authority: Authority) -> None:
    """A socket takes what its buffers hold and no more, says how much, and that arrives as it was."""
    async with kind(authority) as ends:
        with no_waiting():
            sent = ends.fill()
        await wait_all_tasks_blocked(SETTLED)  # TCP may have found room meanwhile
        with no_waiting():
            sent += ends.fill(sent)
            assert ends.transport.send_now(b"more") == 0
        assert 0 < sent < len(PATTERN)
        heard = bytearray()
        while len(heard) < sent:
            heard += await ends.peer.stream.receive_some()
        assert heard == PATTERN[:sent]


@kinds(TLS | MEMORY)
async def test_other_streams_may_always_wait(kind: Kind, authority: Authority) -> None:
    """Of a Trio stream nobody knows what goes without waiting, so nothing does."""
    async with kind(authority) as ends:
        assert ends.transport.send_now(b"Ada") == 0
        assert await transport_over(ends.peer.stream).receive_arrived() is None


@kinds(IN_STEPS)
async def test_a_send_waits_for_room(kind: Kind, authority: Authority) -> None:
    """A send that finds no room goes on as soon as the peer has read."""
    async with kind(authority) as ends:
        sent = ends.fill()

        async def send_more() -> None:
            nonlocal sent
            while sent < len(PATTERN):
                sent += await ends.transport.send_some(PATTERN[sent:])
            await ends.transport.send_eof(1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_more)
            await wait_all_tasks_blocked()
            assert sent < len(PATTERN)
            heard = bytearray()
            while data := await ends.peer.stream.receive_some(SIZE):
                heard += data
    assert heard == PATTERN


async def test_room_that_is_gone_again_is_waited_for() -> None:
    """Whoever was told that there is room, and finds none, has sent nothing, and waits on."""
    sock, peer = sockets()

    class Fickle(Strange):
        attempts = 0

        def send(self, data: bytes | memoryview, /) -> int:
            """Send, at the third attempt."""
            Fickle.attempts += 1
            if Fickle.attempts < 3:
                raise BlockingIOError
            return sock.send(data)

    async with peer:
        with contextlib.closing(sock):
            assert await SocketTransport(Fickle(sock.fileno()), Watch(sock)).send_some(b"Ada") == 3
            assert Fickle.attempts == 3
            assert await peer.receive_some() == b"Ada"


@kinds(IN_STEPS)
async def test_a_send_that_is_cancelled_again_and_again_loses_and_doubles_nothing(
    kind: Kind, authority: Authority
) -> None:
    """Killed in each of its waits, and called again with the rest and more behind it, it sends what it should."""
    async with kind(authority) as ends:
        if ends.sock:
            ends.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        reader = transport_over(ends.peer.stream)
        sent, heard, killed, much = 0, bytearray(), 0, PATTERN[: len(PATTERN) // 2]

        async def send(size: int, scope: trio.CancelScope) -> None:
            nonlocal sent, killed
            with scope:
                while sent < min(size, len(much)):
                    sent += await ends.transport.send_some(memoryview(much)[sent:size])
            killed += scope.cancelled_caught

        for size in range(50_000, len(much) + 50_000, 10_000):
            scope = trio.CancelScope()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send, size, scope)
                await wait_all_tasks_blocked()
                scope.cancel()
            if size % 30_000 == 0:
                heard += await reader.receive_arrived() or b""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, len(much), trio.CancelScope())
            while len(heard) < len(much):
                heard += await ends.peer.stream.receive_some()
        assert heard == much
        assert sent == len(much)
        assert killed > 5
        assert await ends.transport.receive_arrived() is None  # and the other direction is whole


@kinds({name: ALL[name] for name in ("TLS-memory", "SSLStream", "memory", "lockstep")})
async def test_other_streams_are_broken_by_a_send_that_is_cancelled(
    kind: Kind, authority: Authority
) -> None:
    """Nobody knows how much of it was sent: whoever sends next is told so, and nothing more goes out."""
    async with kind(authority) as ends:
        with trio.CancelScope() as scope:
            scope.cancel()
            await ends.transport.send_some(PATTERN)
        assert scope.cancelled_caught
        for _ in range(2):
            with pytest.raises(
                trio.BrokenResourceError, match=r"^a send was cancelled, and it is not known"
            ):
                await ends.transport.send_some(b"more")


@kinds(ALL)
async def test_a_send_says_how_much_went(kind: Kind, authority: Authority) -> None:
    """One call sends 1 byte or more; the caller goes on from there."""
    async with kind(authority) as ends, trio.open_nursery() as nursery:
        nursery.start_soon(ends.peer.expect, PATTERN[:50_000])
        sent = 0
        while sent < 50_000:
            step = await ends.transport.send_some(memoryview(PATTERN)[sent:50_000])
            assert 1 <= step <= 50_000 - sent
            sent += step


# The end


@kinds(PLAIN | MEMORY | {name: TLS[name] for name in ("TLS-TCP", "TLS-memory")})
async def test_after_ones_own_end_one_can_still_receive(kind: Kind, authority: Authority) -> None:
    """To end the stream closes one direction alone, where that is possible; the last words go before it."""
    async with kind(authority) as ends, trio.open_nursery() as nursery:

        async def send_and_end() -> None:
            await ends.send(b"Goodbye!\n")
            await ends.transport.send_eof(1)

        nursery.start_soon(send_and_end)
        await ends.peer.expect(b"Goodbye!\n")
        await ends.peer.expect_end()
        nursery.start_soon(ends.peer.say, b"Ada")
        assert await ends.transport.receive() == b"Ada"


@contextlib.asynccontextmanager
async def over_plain_memory(_: Authority) -> AsyncIterator[Ends]:
    """Yield a transport over a stream that cannot be half-closed."""
    ours, theirs = memory_stream_pair()
    yield Ends(transport_over(Plain(ours)), Peer(theirs), ours.aclose)


@kinds({"memory": over_plain_memory, "SSLStream": over_trios_tls})
async def test_where_there_is_no_half_close_the_end_closes(
    kind: Kind, authority: Authority
) -> None:
    """The peer hears the last words and the end, and nothing can be received any more, which has a message."""
    async with kind(authority) as ends:
        await ends.transport.send_some(b"Goodbye!\n")
        await ends.transport.send_eof(1)
        await ends.peer.expect(b"Goodbye!\n")
        await ends.peer.expect_end()
        with pytest.raises(trio.BrokenResourceError, match=r"\w"):
            await ends.transport.receive()


@pytest.mark.parametrize("patience", [0.5, 7])
async def test_the_last_word_of_tls_has_a_limit(
    autojump_clock: MockClock, authority: Authority, patience: float
) -> None:
    """A peer that does not take close_notify in so many seconds goes without."""
    async with over_tls(authority, make=lockstep_stream_pair) as ends:
        await ends.transport.send_eof(patience)
        assert trio.current_time() == patience


# What the peer's kernel has not acknowledged

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what is acknowledged")
TCP = {name: ALL[name] for name in ("TCP", "TCP-edges", "TCP-borrowed", "TLS-TCP")}


async def settle(transport: Transport) -> None:
    """Wait, a moment at a time and not for long, until all is acknowledged; the kernel takes up to 40 ms for it."""
    while transport.is_in_flight():
        await wait_all_tasks_blocked(0.001)


@linux
@kinds(TCP)
async def test_what_the_peer_has_no_room_for_is_in_flight(kind: Kind, authority: Authority) -> None:
    """Over TCP the kernel knows whether the peer's has acknowledged everything (SIOCOUTQ), through TLS, too."""
    async with kind(authority) as ends:
        await settle(ends.transport)  # of TLS its handshake
        assert ends.transport.is_in_flight() is False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ends.send, PATTERN * 8)  # more than the buffers of both sides hold
            await wait_all_tasks_blocked()
            assert ends.transport.is_in_flight() is True
            heard = 0
            while heard < 8 * len(PATTERN):
                heard += len(await ends.peer.stream.receive_some(2**20))
        await settle(ends.transport)


@kinds({name: kind for name, kind in ALL.items() if name not in TCP})
async def test_elsewhere_nothing_is_in_flight(kind: Kind, authority: Authority) -> None:
    """What was sent to a Unix socket has arrived, though nobody has read it; of other streams nobody can tell."""
    async with kind(authority) as ends, trio.open_nursery() as nursery:
        nursery.start_soon(ends.send, PATTERN)
        await wait_all_tasks_blocked()
        assert ends.transport.is_in_flight() is False
        nursery.cancel_scope.cancel()


async def test_where_it_is_not_linux_nothing_is_in_flight(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Elsewhere the request means something else, and is not made."""
    async with over_stream(authority, make=tcp_pair) as ends:
        ends.fill()
        with monkeypatch.context() as patched:
            patched.setattr(_transport, "sys", SimpleNamespace(platform="darwin"))
            assert ends.transport.is_in_flight() is False


# What is broken


@kinds(PLAIN)
async def test_a_closed_socket_is_broken(kind: Kind, authority: Authority) -> None:
    """Whoever uses it is told so, each time, and the descriptor's next owner is left alone."""
    async with kind(authority) as ends:
        await ends.close()
        other, end = unix_pair()  # they may have the descriptor now
        async with other, end:
            assert ends.transport.arrived() == 0
            assert ends.transport.is_in_flight() is False
            for _ in range(2):
                with pytest.raises(trio.BrokenResourceError, match=r"\w"):
                    await ends.transport.receive_arrived()
                with pytest.raises(trio.BrokenResourceError, match=r"\w"):
                    ends.transport.send_now(b"Ada")
                with pytest.raises(trio.BrokenResourceError, match=r"\w"):
                    await ends.transport.send_some(b"Ada")
                with pytest.raises(trio.BrokenResourceError, match=r"\w"):
                    await ends.transport.send_eof(1)
            await end.send_all(b"Bob")
            assert await other.receive_some() == b"Bob"


@kinds({name: ALL[name] for name in ("TCP", "TCP-borrowed", "Unix-borrowed", "TLS-TCP", "memory")})
async def test_a_stream_that_was_closed_cannot_be_read(kind: Kind, authority: Authority) -> None:
    """To receive from what one has closed raises, with a message, and does not wait."""
    async with kind(authority) as ends:
        await ends.close()
        with pytest.raises(trio.BrokenResourceError, match=r"\w"):
            await ends.transport.receive()


@pytest.mark.parametrize("call", ["receive", "send"])
@kinds({name: ALL[name] for name in ("TCP-borrowed", "Unix-borrowed")})
async def test_who_waits_is_told_when_another_task_closes(
    kind: Kind, authority: Authority, call: str
) -> None:
    """A wait for a stream that is closed meanwhile ends with an exception that has a message."""
    async with kind(authority) as ends, trio.open_nursery() as nursery:
        ends.fill()

        async def wait() -> None:
            with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError), match=r"\w"):
                await (
                    ends.transport.receive()
                    if call == "receive"
                    else ends.transport.send_some(b"more")
                )

        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        await ends.close()


@kinds({name: ALL[name] for name in ("TCP", "TCP-edges", "TCP-borrowed")})
async def test_a_reset_is_told_in_the_kernels_words(kind: Kind, authority: Authority) -> None:
    """Whoever receives is told what happened, and whoever sends then; nobody waits for a peer that is gone."""
    for call in ("receive", "receive_arrived"):
        async with kind(authority) as ends:
            ends.peer.reset()
            with pytest.raises(trio.BrokenResourceError, match=r"^Connection reset by peer$"):
                await getattr(ends.transport, call)()
            with pytest.raises(trio.BrokenResourceError, match=r"^Broken pipe$"):
                ends.transport.send_now(b"Ada")
            with pytest.raises(trio.BrokenResourceError, match=r"^Broken pipe$"):
                await ends.transport.send_some(b"Ada")
            with pytest.raises(trio.BrokenResourceError, match="not connected"):
                await ends.transport.send_eof(1)
            assert ends.transport.arrived() == 0
            assert ends.transport.is_in_flight() is False


@kinds({name: ALL[name] for name in ("TCP", "TCP-edges", "TCP-borrowed", "TLS-TCP")})
async def test_a_reset_wakes_who_waits(kind: Kind, authority: Authority) -> None:
    """A receive that waits already, and a send, end with it."""
    async with kind(authority) as ends, trio.open_nursery() as nursery:

        async def receive() -> None:
            with pytest.raises(trio.BrokenResourceError, match="reset by peer"):
                await ends.transport.receive()

        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        stream = ends.peer.stream
        Peer(stream.transport_stream if isinstance(stream, TLSStream) else stream).reset()


@kinds(ALL)
async def test_sending_to_who_is_gone_raises(kind: Kind, authority: Authority) -> None:
    """A peer that has closed is noticed by sends, soon if not at once, and the exception has a message."""
    async with kind(authority) as ends:
        await ends.peer.close()
        with pytest.raises(trio.BrokenResourceError, match=r"\w"):
            await ends.send(PATTERN * 8)


async def test_a_break_without_words_has_a_message() -> None:
    """Where a stream says nothing, the kind of its exception is said."""
    for exception in (trio.BrokenResourceError(), trio.ClosedResourceError()):
        for call in ("receive", "receive_arrived"):
            ours, _ = memory_stream_pair()
            transport = StreamTransport(Tap(ours, Fault("receive", 1, exception)))
            with pytest.raises(trio.BrokenResourceError, match=rf"^{type(exception).__name__}$"):
                await getattr(transport, call)()
        ours, _ = memory_stream_pair()
        transport = StreamTransport(Tap(ours, Fault("eof", 1, exception)))
        with pytest.raises(trio.BrokenResourceError, match=rf"^{type(exception).__name__}$"):
            await transport.send_eof(1)


# Which transport, and what belongs to it


async def test_sockets_are_read_past_trio() -> None:
    """An open stream over a socket gets the fast transport, and all others the other."""
    assert type(transport_over(memory_stream_pair()[0])) is StreamTransport
    for make in (tcp_pair, unix_pair):
        ours, theirs = make()
        async with ours, theirs:
            assert type(transport_over(ours)) is SocketTransport
        transport = transport_over(ours)
        for call in (
            transport.receive,
            transport.receive_arrived,
            partial(transport.send_some, b"Ada"),
        ):
            with pytest.raises(trio.BrokenResourceError, match="closed"):
                await call()


@kinds(ALL)
async def test_closing_a_transport_leaves_the_stream_to_its_owner(
    kind: Kind, authority: Authority
) -> None:
    """What the transport goes over is as it was, and nothing stays open in the end."""
    async with nothing_left_open(), kind(authority) as ends:
        if not isinstance(ends.transport, SocketTransport) or kind in (
            PLAIN["TCP-borrowed"],
            PLAIN["Unix-borrowed"],
        ):
            ends.transport.close()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ends.peer.say, b"Ada")
            assert await ends.transport.receive() == b"Ada"


def test_tcp_gets_the_options_that_trio_gives_it() -> None:
    """Words are sent at once, and the kernel does not hoard what the peer is slow to take."""
    with contextlib.closing(socket.socket()) as sock:
        set_options(sock)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == SIZE
    left, right = socket.socketpair()
    with left, right:
        set_options(left)
    set_options(sock)  # it is closed: nothing happens


def test_a_system_without_a_low_water_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the option does not exist it is left out."""
    monkeypatch.delattr(socket, "TCP_NOTSENT_LOWAT", raising=False)
    with contextlib.closing(socket.socket()) as sock:
        set_options(sock)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
