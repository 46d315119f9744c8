"""Byte streams as the driver sees them: one contract for all kinds."""

import contextlib
import itertools
import math
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import (
    MockClock,
    assert_checkpoints,
    lockstep_stream_pair,
    memory_stream_pair,
    wait_all_tasks_blocked,
)

from greeter_trio._net.readiness import Watch
from greeter_trio._net.socket_transport import KEEPALIVE, SocketTransport, set_options
from greeter_trio._net.stream_transport import StreamTransport, socket_under, transport_over
from greeter_trio._net.transport import SIZE
from tests.support.certificates import Authority
from tests.support.clocks import SETTLED, cancelled_at_step
from tests.support.descriptors import nothing_left_open
from tests.support.plays import resets
from tests.support.streams import Fault, Tap, sockets, tcp_pair, unix_pair
from tests.support.transports import (
    ALL,
    BLOCK,
    IN_STEPS,
    MEMORY,
    PATTERN,
    PLAIN,
    TLS,
    Pair,
    kinds,
    over_stream,
)

TCP = ("TCP", "TCP-edges", "TCP-borrowed")


def breaks(message: str = r"\w") -> pytest.RaisesExc[trio.BrokenResourceError]:
    """Expect the exception of a broken transport, which has a message."""
    return pytest.raises(trio.BrokenResourceError, match=message)


async def when_blocked(step: Callable[[], Awaitable[object]]) -> None:
    """Make a step when all other tasks wait for it."""
    await wait_all_tasks_blocked()
    await step()


@contextlib.contextmanager
def no_waiting() -> Iterator[None]:
    """Check that all in the block happens at once: no task waits for time or for I/O."""
    waits = 0

    class Count(trio.abc.Instrument):
        def before_io_wait(self, timeout: float) -> None:
            nonlocal waits
            waits += timeout > 0

    trio.lowlevel.add_instrument(count := Count())
    try:
        yield
    finally:
        trio.lowlevel.remove_instrument(count)
    assert waits == 0


# Receiving


@kinds(*ALL)
async def test_bytes_go_both_ways_until_both_have_ended(pair: Pair, nursery: trio.Nursery) -> None:
    """To receive waits until something has come."""
    nursery.start_soon(when_blocked, partial(pair.peer.say, b"Ada"))
    assert await pair.transport.receive() == b"Ada"
    nursery.start_soon(pair.send, b"Grace")
    await pair.peer.expect(b"Grace")
    nursery.start_soon(when_blocked, pair.peer.end)
    assert await pair.transport.receive() == b""
    assert await pair.transport.receive() == b""  # it stays
    assert await pair.transport.receive_arrived() == b""


@kinds(*ALL)
async def test_receiving_is_a_checkpoint(pair: Pair, nursery: trio.Nursery) -> None:
    """Other tasks go first even if bytes are there; a call that is cancelled has taken nothing."""
    nursery.start_soon(pair.peer.say, b"Ada")
    await wait_all_tasks_blocked()
    with trio.CancelScope() as scope:
        scope.cancel()
        await pair.transport.receive()
    assert scope.cancelled_caught
    for _ in range(2):  # likewise where something was received before
        with assert_checkpoints():
            assert await pair.transport.receive() == b"Ada"
        await wait_all_tasks_blocked()
        nursery.start_soon(pair.peer.say, b"Ada")
        await wait_all_tasks_blocked()
    await pair.transport.receive()


@pytest.mark.parametrize("call", ["receive", "receive_arrived"])
@kinds(*ALL)
async def test_a_receive_that_is_cancelled_at_any_step_loses_nothing(pair: Pair, call: str) -> None:
    for steps in itertools.count(1):
        word = b"name %d" % steps
        heard: bytes | bytearray | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pair.peer.say, word)
            with cancelled_at_step(steps) as scope:
                heard = await getattr(pair.transport, call)()
            assert (heard or await pair.transport.receive()) == word
        if not scope.cancel_called:
            break
    assert steps > 1 or call == "receive_arrived"  # which does not always have a step


@pytest.mark.parametrize("call", ["receive", "receive_arrived"])
@kinds(*ALL)
async def test_about_16_kib_are_received_at_once_at_most(
    pair: Pair, call: str, nursery: trio.Nursery
) -> None:
    most = SIZE if isinstance(pair.transport, SocketTransport) else 2 * SIZE
    nursery.start_soon(pair.peer.say, PATTERN[:BLOCK])
    await wait_all_tasks_blocked()
    heard = bytearray()
    while len(heard) < BLOCK:
        data = await getattr(pair.transport, call)()
        assert 0 < len(data) <= most
        assert call == "receive" or len(data) >= min(SIZE, BLOCK - len(heard))
        heard += data
    assert heard == PATTERN[:BLOCK]
    await wait_all_tasks_blocked()
    nursery.start_soon(pair.peer.say, b"more")
    assert await pair.transport.receive() == b"more"


# What has arrived


@kinds(*ALL)
async def test_what_is_there_is_received_without_waiting(pair: Pair, nursery: trio.Nursery) -> None:
    """None for nothing, then what has come, then the end, as often as it is asked for."""
    for come, expected in (
        (trio.lowlevel.checkpoint, [None, None]),
        (partial(pair.peer.say, b"Ada"), [b"Ada", None]),
        (pair.peer.end, [b"", b""]),
    ):
        nursery.start_soon(come)
        await wait_all_tasks_blocked()
        with no_waiting():
            assert [await pair.transport.receive_arrived() for _ in range(2)] == expected


@kinds(*PLAIN, *TLS, "memory")
async def test_all_that_is_there_is_one_arrival(pair: Pair) -> None:
    """Also several records of TLS (T3)."""
    for word in (b"A", b"d", b"a"):
        await pair.peer.say(word)
    with no_waiting():
        assert await pair.transport.receive_arrived() == b"Ada"


@kinds(*ALL)
async def test_the_end_does_not_hide_what_came_before_it(pair: Pair, nursery: trio.Nursery) -> None:

    async def say_and_end() -> None:
        await pair.peer.say(b"Ada")
        await pair.peer.end()

    nursery.start_soon(say_and_end)
    for expected in (b"Ada", b""):
        await wait_all_tasks_blocked()
        assert await pair.transport.receive_arrived() == expected


@pytest.mark.parametrize("later", ["receive", "receive_arrived"])
async def test_a_break_does_not_hide_what_came_before_it(later: str) -> None:
    ours, theirs = memory_stream_pair()
    stream = Tap(ours, Fault("receive", 2, trio.BrokenResourceError("gone")))
    transport = StreamTransport(stream)
    await theirs.send_all(b"Ada")
    assert await transport.receive_arrived() == b"Ada"
    stream.fault = None
    with breaks("^gone$"):
        await getattr(transport, later)()


async def test_a_tls_stream_that_was_cut_gives_what_came_before(authority: Authority) -> None:
    """A last record, and the end of TCP without close_notify, that are there together."""
    async with TLS["TLS-TCP"](authority) as pair:
        await pair.peer.say(b"Ada")
        await pair.peer.close()
        assert await pair.transport.receive_arrived() == b"Ada"
        with breaks("hung up without notice"):
            await pair.transport.receive_arrived()


async def test_a_bug_of_a_stream_comes_out_as_itself() -> None:
    ours, _ = memory_stream_pair()
    with pytest.raises(ZeroDivisionError):
        await StreamTransport(Tap(ours, Fault("receive", 1, ZeroDivisionError()))).receive_arrived()


@pytest.mark.skipif(os.name == "nt", reason="the kernel cannot be asked")
@kinds(*ALL)
async def test_what_has_arrived_is_never_underestimated(pair: Pair, nursery: trio.Nursery) -> None:
    """Other streams than sockets may hold something back, besides what the socket below has."""
    held_back = pair.transport.arrived()
    assert held_back == 0 or not isinstance(pair.transport, SocketTransport)
    assert held_back >= 2 * SIZE or isinstance(pair.transport, SocketTransport)
    nursery.start_soon(pair.peer.say, PATTERN[:BLOCK])
    await wait_all_tasks_blocked()
    assert pair.transport.arrived() >= held_back + (BLOCK if pair.sock else 0)


# Sending


@kinds(*PLAIN)
async def test_what_goes_without_waiting_is_sent(pair: Pair) -> None:
    with no_waiting():
        sent = pair.fill()
    await wait_all_tasks_blocked(SETTLED)  # TCP may have found room meanwhile
    with no_waiting():
        sent += pair.fill(sent)
        assert pair.transport.send_now(b"more") == 0
    assert 0 < sent < len(PATTERN)
    heard = bytearray()
    while len(heard) < sent:
        heard += await pair.peer.stream.receive_some()
    assert heard == PATTERN[:sent]


@kinds(*TLS, *MEMORY)
async def test_other_streams_may_always_wait(pair: Pair) -> None:
    assert pair.transport.send_now(b"Ada") == 0
    assert await transport_over(pair.peer.stream).receive_arrived() is None


@kinds(*ALL)
async def test_a_send_waits_for_room_and_tells_how_much_went(pair: Pair) -> None:
    sent = pair.fill()

    async def send_more() -> None:
        nonlocal sent
        while sent < len(PATTERN):
            step = await pair.transport.send_some(memoryview(PATTERN)[sent:])
            assert 1 <= step <= len(PATTERN) - sent
            sent += step
        await pair.transport.send_eof(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_more)
        await wait_all_tasks_blocked()
        assert sent < len(PATTERN) or not pair.sock
        heard = bytearray()
        while data := await pair.peer.stream.receive_some(SIZE):
            heard += data
    assert heard == PATTERN


async def test_room_that_is_gone_again_is_waited_for() -> None:
    """A wait that says that there is room is no promise."""

    class Fickle(socket.socket):
        attempts = 0

        def send(self, data: Any, flags: int = 0) -> int:
            self.attempts += 1
            if self.attempts < 3:
                raise BlockingIOError
            return super().send(data, flags)

    sock, peer = sockets()
    with Fickle(fileno=sock.detach()) as fickle:
        async with peer:
            assert await SocketTransport(fickle, Watch(fickle)).send_some(b"Ada") == 3
            assert fickle.attempts == 3
            assert await peer.receive_some() == b"Ada"


@kinds(*IN_STEPS)
async def test_a_send_that_is_cancelled_again_and_again_loses_and_doubles_nothing(
    pair: Pair,
) -> None:
    """Cancelled in each of its waits, and called again with the rest and more behind it."""
    assert pair.sock
    pair.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    reader = transport_over(pair.peer.stream)
    sent, heard, cancelled, much = 0, bytearray(), 0, PATTERN[: len(PATTERN) // 2]

    async def send(size: int, scope: trio.CancelScope) -> None:
        nonlocal sent, cancelled
        with scope:
            while sent < min(size, len(much)):
                sent += await pair.transport.send_some(memoryview(much)[sent:size])
        cancelled += scope.cancelled_caught

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
            heard += await pair.peer.stream.receive_some()
    assert heard == much
    assert sent == len(much)
    assert cancelled > 5
    assert await pair.transport.receive_arrived() is None  # the other direction is whole


@kinds("TLS-memory", "SSLStream", "memory", "lockstep")
async def test_other_streams_are_broken_by_a_send_that_is_cancelled(pair: Pair) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await pair.transport.send_some(PATTERN)
    assert scope.cancelled_caught
    for _ in range(2):
        with breaks("^a send was cancelled, and it is not known how much of it was sent$"):
            await pair.transport.send_some(b"more")


# The end


@kinds(*PLAIN, *MEMORY, "TLS-TCP", "TLS-memory")
async def test_the_end_leaves_the_other_direction_open(pair: Pair, nursery: trio.Nursery) -> None:
    async def send_and_end() -> None:
        await pair.send(b"Goodbye!\n")
        await pair.transport.send_eof(1)

    nursery.start_soon(send_and_end)
    await pair.peer.expect(b"Goodbye!\n")
    await pair.peer.expect_end()
    nursery.start_soon(pair.peer.say, b"Ada")
    assert await pair.transport.receive() == b"Ada"


@kinds("SSLStream")
async def test_where_there_is_no_half_close_the_end_closes(pair: Pair) -> None:
    await pair.transport.send_some(b"Goodbye!\n")
    await pair.transport.send_eof(1)
    await pair.peer.expect(b"Goodbye!\n")
    await pair.peer.expect_end()
    with breaks():
        await pair.transport.receive()


@pytest.mark.parametrize("seconds", [0.5, 7])
async def test_close_notify_has_a_timeout(
    autojump_clock: MockClock, authority: Authority, seconds: float
) -> None:
    async with over_stream(authority, make=lockstep_stream_pair, secure=True) as pair:
        await pair.transport.send_eof(seconds)
        assert trio.current_time() == seconds


# What is broken


@kinds(*PLAIN)
async def test_a_closed_socket_is_broken(pair: Pair) -> None:
    """Each call tells it, and the descriptor's next owner is left alone."""
    await pair.close()
    other, end = unix_pair()  # they may have the descriptor now
    async with other, end:
        assert pair.transport.arrived() == 0
        assert pair.transport.is_in_flight() is False
        for _ in range(2):
            with breaks():
                await pair.transport.receive_arrived()
            with breaks():
                pair.transport.send_now(b"Ada")
            with breaks():
                await pair.transport.send_some(b"Ada")
            with breaks():
                await pair.transport.send_eof(1)
        await end.send_all(b"Bob")
        assert await other.receive_some() == b"Bob"


@kinds("TCP", "TCP-borrowed", "Unix-borrowed", "TLS-TCP", "memory")
async def test_a_stream_that_was_closed_cannot_be_read(pair: Pair) -> None:
    await pair.close()
    with breaks():
        await pair.transport.receive()


@pytest.mark.parametrize("call", ["receive", "send"])
@kinds("TCP-borrowed", "Unix-borrowed")
async def test_a_waiting_call_is_told_when_another_task_closes(
    pair: Pair, call: str, nursery: trio.Nursery
) -> None:
    pair.fill()
    nursery.start_soon(when_blocked, pair.close)
    with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError), match=r"\w"):
        await (pair.transport.receive() if call == "receive" else pair.transport.send_some(b"more"))


@pytest.mark.parametrize("call", ["receive", "receive_arrived"])
@kinds(*TCP)
async def test_a_reset_is_told_in_the_words_of_the_kernel(pair: Pair, call: str) -> None:
    pair.peer.reset()
    with breaks("^Connection reset by peer$"):
        await getattr(pair.transport, call)()
    with breaks("^Broken pipe$"):
        pair.transport.send_now(b"Ada")
    with breaks("^Broken pipe$"):
        await pair.transport.send_some(b"Ada")
    with breaks("not connected"):
        await pair.transport.send_eof(1)
    assert pair.transport.arrived() == 0
    assert pair.transport.is_in_flight() is False


@kinds(*TCP, "TLS-TCP")
async def test_a_reset_ends_a_receive_that_waits(pair: Pair, nursery: trio.Nursery) -> None:
    nursery.start_soon(when_blocked, partial(resets(), pair.peer))
    with breaks("reset by peer"):
        await pair.transport.receive()


@kinds(*ALL)
async def test_sends_to_a_peer_that_has_closed_fail(pair: Pair) -> None:
    await pair.peer.close()
    with breaks():
        await pair.send(PATTERN * 8)


@pytest.mark.parametrize("exception", [trio.BrokenResourceError(), trio.ClosedResourceError()])
@pytest.mark.parametrize(
    ("fault", "call", "arguments"),
    [
        ("receive", "receive", []),
        ("receive", "receive_arrived", []),
        ("send", "send_some", [b"Ada"]),
        ("eof", "send_eof", [1]),
    ],
)
async def test_a_break_without_words_is_told_by_its_kind(
    fault: str, call: str, arguments: list[Any], exception: Exception
) -> None:
    transport = StreamTransport(Tap(memory_stream_pair()[0], Fault(fault, 1, exception)))
    with breaks(f"^{type(exception).__name__}$"):
        await getattr(transport, call)(*arguments)


# Which transport, and what belongs to it


async def test_open_sockets_are_read_past_trio() -> None:
    assert type(transport_over(memory_stream_pair()[0])) is StreamTransport
    for make in (tcp_pair, unix_pair):
        ours, theirs = make()
        async with ours, theirs:
            assert type(transport_over(ours)) is SocketTransport
        closed = transport_over(ours)
        with breaks("closed"):
            await closed.receive()
        with breaks("closed"):
            await closed.receive_arrived()
        with breaks("closed"):
            await closed.send_some(b"Ada")


@pytest.mark.parametrize("kind", ["TCP-borrowed", "Unix-borrowed", *TLS, *MEMORY])
async def test_a_transport_leaves_the_stream_to_its_owner(authority: Authority, kind: str) -> None:
    async with nothing_left_open(), ALL[kind](authority) as pair, trio.open_nursery() as nursery:
        pair.transport.close()
        nursery.start_soon(pair.peer.say, b"Ada")
        assert await pair.transport.receive() == b"Ada"


@pytest.mark.parametrize("has_low_water_mark", [False, True])
def test_tcp_gets_the_options_that_trio_gives_it(
    monkeypatch: pytest.MonkeyPatch, *, has_low_water_mark: bool
) -> None:
    option = getattr(socket, "TCP_NOTSENT_LOWAT", None)
    if not has_low_water_mark:
        monkeypatch.delattr(socket, "TCP_NOTSENT_LOWAT", raising=False)
    with contextlib.closing(socket.socket()) as sock:
        set_options(sock, 30)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        if option:
            mark = sock.getsockopt(socket.IPPROTO_TCP, option)
            assert (mark == SIZE) is has_low_water_mark
    set_options(sock, 30)  # it is closed: nothing happens


@pytest.mark.parametrize(
    ("patience", "seconds"), [(30, 120), (90.5, 120.5), (2_000_000, 2_000_030)]
)
def test_a_path_that_has_died_breaks_the_connection(patience: float, seconds: float) -> None:
    """Whether something is on its way or not, and not before the program's patience is over."""
    with contextlib.closing(socket.socket()) as sock:
        set_options(sock, patience)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        for name, value in {**KEEPALIVE, "TCP_USER_TIMEOUT": seconds * 1000}.items():
            option = getattr(socket, name, None)
            if option is not None:
                assert sock.getsockopt(socket.IPPROTO_TCP, option) == value


@pytest.mark.parametrize("patience", [2_200_000, math.inf], ids=["no int", "for ever"])
def test_patience_without_end_has_no_user_timeout(patience: float) -> None:
    with contextlib.closing(socket.socket()) as sock:
        set_options(sock, patience)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


@kinds(*ALL)
@pytest.mark.parametrize("on", [False, True], ids=["ends", "resets"])
async def test_closing_with_a_reset(pair: Pair, *, on: bool) -> None:
    """What the peer finds behind the last word, over TCP alone."""
    under = socket_under(pair.peer.stream)
    pair.transport.reset_at_close(on=True)
    pair.transport.reset_at_close(on=on)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pair.send, b"Ada")
        await pair.peer.expect(b"Ada")
    if under is None or under.family not in (socket.AF_INET, socket.AF_INET6):
        return  # nothing has happened
    await pair.close()
    if on:
        with pytest.raises(ConnectionResetError):
            await under.recv(1)
    else:
        assert await under.recv(1) == b""
    pair.transport.reset_at_close(on=True)  # it is closed: nothing happens


def test_unix_sockets_get_no_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's refusal would be suppressed, so the call itself is looked for."""
    calls: list[object] = []
    (unix, unix_end), (tcp, tcp_end) = sockets("Unix"), sockets("TCP")
    with unix, unix_end.socket, tcp, tcp_end.socket:
        monkeypatch.setattr(socket.socket, "setsockopt", lambda *call: calls.append(call))
        set_options(unix, 30)
        assert calls == []
        set_options(tcp, 30)
    assert calls
