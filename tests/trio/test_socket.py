"""The shortcuts past Trio's socket streams."""

import itertools
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from trio.testing import memory_stream_pair

from greeter_trio._socket import arrived, receive_some, send_at_once, send_eof
from greeter_trio._tls import TLSStream, client_context, server_context

from .certificates import Authority
from .helpers import PATIENCE, tcp_pair, unix_pair

NO_LINGER = b"\1\0\0\0\0\0\0\0"  # struct linger: close resets the connection

Pair = tuple[trio.SocketStream, trio.SocketStream]
pairs = pytest.mark.parametrize("make", [unix_pair, tcp_pair])


def clog(stream: trio.SocketStream) -> int:
    """Send until the kernel takes no more; return how many bytes it took."""
    block = bytes(100_000)
    for sent in itertools.count():
        rest = send_at_once(stream, block)
        if rest:
            return (sent + 1) * len(block) - len(rest)
    raise AssertionError


@pairs
async def test_bytes_go_both_ways(make: Callable[[], Pair]) -> None:
    """What is sent at once by either side is received by the other, and the end of the stream is empty."""
    left, right = make()
    with trio.fail_after(PATIENCE):
        async with left, right:
            assert send_at_once(left, b"Ada") == b""
            assert send_at_once(right, b"Bob") == b""
            assert await receive_some(right) == b"Ada"
            assert await receive_some(left) == b"Bob"
            await left.send_eof()
            assert await receive_some(right) == b""


@pairs
async def test_what_the_kernel_does_not_take_is_returned(make: Callable[[], Pair]) -> None:
    """When the peer does not read, sending at once returns the rest, and what was taken arrives."""
    left, right = make()
    async with left, right:
        taken = clog(left)
        received = 0
        with trio.fail_after(PATIENCE):
            while received < taken:
                received += len(await receive_some(right))
        assert received == taken


@pairs
async def test_receiving_waits(make: Callable[[], Pair]) -> None:
    """Where nothing has come yet, receiving waits until something has."""
    left, right = make()
    async with left, right, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _() -> None:
            await trio.testing.wait_all_tasks_blocked()
            send_at_once(left, b"Ada")

        with trio.fail_after(PATIENCE):
            assert await receive_some(right) == b"Ada"


@pairs
async def test_receiving_lets_others_go_first(make: Callable[[], Pair]) -> None:
    """To receive is a checkpoint, even if bytes are there, and one that is cancelled has taken nothing."""
    left, right = make()
    async with left, right:
        send_at_once(left, b"Ada")
        with trio.CancelScope() as scope:
            scope.cancel()
            await receive_some(right)
        assert scope.cancelled_caught
        with trio.testing.assert_checkpoints():
            assert await receive_some(right) == b"Ada"


async def test_a_reset_breaks_both() -> None:
    """On a connection that was reset both raise what Trio's own streams raise."""
    with trio.fail_after(PATIENCE), socket.create_server(("127.0.0.1", 0)) as listener:
        stream = await trio.open_tcp_stream(*listener.getsockname())
        async with stream:
            accepted, _ = listener.accept()
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
            accepted.close()
            with pytest.raises(trio.BrokenResourceError):
                await receive_some(stream)
            with pytest.raises(trio.BrokenResourceError):
                send_at_once(stream, b"Ada")


@pairs
async def test_a_closed_stream_breaks_both(make: Callable[[], Pair]) -> None:
    """A stream that was closed here is as good as broken, and its descriptor's next owner is left alone."""
    left, right = make()
    await left.aclose()
    async with right:
        other, end = make()  # they have the descriptor now
        async with other, end:
            with pytest.raises(trio.BrokenResourceError):
                await receive_some(left)
            with pytest.raises(trio.BrokenResourceError):
                send_at_once(left, b"Ada")
            send_at_once(end, b"Bob")
            assert await receive_some(other) == b"Bob"


@pairs
async def test_closing_wakes_who_receives(make: Callable[[], Pair]) -> None:
    """A receive that waits is told when another task closes the stream."""
    left, right = make()
    async with left, right, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _() -> None:
            await trio.testing.wait_all_tasks_blocked()
            await right.aclose()

        with trio.fail_after(PATIENCE), pytest.raises(trio.ClosedResourceError):
            await receive_some(right)


async def test_other_streams_are_left_alone() -> None:
    """Of a stream that is no socket nothing is known, so nothing is sent at once, and receiving is its own."""
    left, right = memory_stream_pair()
    assert send_at_once(left, b"Ada") == b"Ada"
    await left.send_all(b"Bob")
    assert await receive_some(right) == b"Bob"


# What has arrived


@pairs
async def test_bytes_that_have_arrived_are_counted(make: Callable[[], Pair]) -> None:
    """It is known exactly how many bytes have come and were not received, and one is added for the end."""
    left, right = make()
    async with left, right:
        assert arrived(right) == 0
        send_at_once(left, b"Ada")
        assert arrived(right) == 3
        send_at_once(left, b"Grace")
        assert arrived(right) == 8
        assert await right.receive_some(2) == b"Ad"
        assert arrived(right) == 6
        await send_eof(left)
        assert arrived(right) == 7
        assert await receive_some(right) == b"aGrace"
        assert arrived(right) == 1
        assert await receive_some(right) == b""
        assert arrived(right) == 1
        assert arrived(left) == 0


@pairs
async def test_more_than_one_read_has_arrived(make: Callable[[], Pair]) -> None:
    """All that the kernel holds is counted."""
    left, right = make()
    async with left, right:
        taken = clog(left)
        assert 16384 < arrived(right) <= taken


async def test_a_reset_has_arrived() -> None:
    """A reset counts like an end: there is something to be told."""
    left, right = tcp_pair()
    async with left, right:
        left.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        left.socket.close()
        assert arrived(right) >= 1
        with pytest.raises(trio.BrokenResourceError):
            await receive_some(right)


async def test_of_other_streams_it_is_a_guess() -> None:
    """A stream that is no socket may hold as much as a TLS record carries."""
    assert arrived(memory_stream_pair()[0]) == 16384


async def test_tls_adds_what_it_holds_back(tmp_path: Path) -> None:
    """Of TLS over a socket it is what either of them holds, and nothing when all was received."""
    authority = Authority(tmp_path)
    left, right = tcp_pair()
    ours = TLSStream(left, server_context(authority.issue("localhost"), None), server_side=True)
    theirs = TLSStream(right, client_context(authority.path), server_side=False, server_hostname="localhost")
    async with ours, theirs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.do_handshake)
            nursery.start_soon(theirs.do_handshake)
        assert arrived(ours) == 0
        await theirs.send_all(b"Ada\nGrace\n")
        assert arrived(ours) >= 10  # in the socket
        assert await ours.receive_some(4) == b"Ada\n"
        assert arrived(ours) >= 6  # in OpenSSL
        assert await ours.receive_some() == b"Grace\n"
        assert arrived(ours) == 0


# The end


@pairs
async def test_the_end_is_sent(make: Callable[[], Pair]) -> None:
    """After the end one can still receive."""
    left, right = make()
    async with left, right:
        await send_eof(left)
        assert await receive_some(right) == b""
        send_at_once(right, b"Ada")
        assert await receive_some(left) == b"Ada"


async def test_the_end_of_a_broken_connection() -> None:
    """To end what is gone raises what Trio's own streams raise."""
    left, right = tcp_pair()
    async with left, right:
        left.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        left.socket.close()
        for stream in (left, right):
            with pytest.raises(trio.BrokenResourceError):
                await send_eof(stream)


async def test_the_end_of_other_streams_is_their_own() -> None:
    """A stream that is no socket ends in its own way."""
    left, right = memory_stream_pair()
    await send_eof(left)
    assert await right.receive_some() == b""
