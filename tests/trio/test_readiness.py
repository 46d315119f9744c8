"""Waiting until sockets can be read (`_readiness.py`), at the level of one task for each socket."""

import contextlib
import errno
import gc
import os
import socket
import struct
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from types import SimpleNamespace

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from greeter_trio._net import readiness as _readiness
from greeter_trio._net.readiness import EdgeReadiness, Readiness, Watch, open_readiness
from greeter_trio._net.transport import SIZE, SocketTransport

from .helpers import (
    NO_LINGER,
    PATIENCE,
    gathered,
    hosting,
    lines_service,
    nothing_left_open,
    sockets,
)

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has epoll")
FAMILIES = ["TCP", "Unix"]
Open = Callable[[], contextlib.AbstractAsyncContextManager[Readiness]]


@contextlib.asynccontextmanager
async def plain() -> AsyncIterator[Readiness]:
    """Yield what watches each socket by itself, as everywhere."""
    yield Readiness()


readinesses = pytest.mark.parametrize(
    "opened", [plain, pytest.param(open_readiness, marks=linux, id="edges")]
)
families = pytest.mark.parametrize("family", FAMILIES)


class Line:
    """A watched socket, and the other end of it, which the test moves with blocking calls that never block."""

    def __init__(self, readiness: Readiness, family: str) -> None:
        self.sock, stream = sockets(family)
        self._stream = stream
        self.other = stream.socket
        self.watch = readiness.watch(self.sock)
        self.transport = SocketTransport(self.sock, self.watch)
        self.wakes = 0

    async def say(self, data: bytes) -> None:
        """Send bytes from the other end."""
        await self._stream.send_all(data)

    def reset(self) -> None:
        """Break the connection: after what was said, there is RST."""
        self.other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        self.other.close()

    async def wake(self) -> None:
        """Count how often the watch says that it is worth reading; what there is is taken."""
        while True:
            await self.watch.wait()
            self.wakes += 1
            try:
                if len(self.sock.recv(SIZE)) < SIZE:
                    self.watch.read_short()
            except BlockingIOError:
                self.watch.ready = False

    def close(self) -> None:
        """Close both ends, in the order in which a conversation does."""
        self.transport.close()
        self.sock.close()
        self.other.close()


@contextlib.contextmanager
def line(readiness: Readiness, family: str = "TCP") -> Iterator[Line]:
    """Yield a line, and close it."""
    it = Line(readiness, family)
    try:
        yield it
    finally:
        it.close()


# Any kind


@readinesses
@families
async def test_only_those_are_woken_who_have_something(opened: Open, family: str) -> None:
    """Of three sockets that are waited for, the one that gets bytes wakes its task, and the others sleep on."""
    async with opened() as readiness:
        with contextlib.ExitStack() as stack:
            lines = [stack.enter_context(line(readiness, family)) for _ in range(3)]
            async with trio.open_nursery() as nursery:
                for each in lines:
                    nursery.start_soon(each.wake)
                await wait_all_tasks_blocked()
                idle = [each.wakes for each in lines]
                for number in (1, 1, 2):
                    await lines[number].say(b"Ada")
                    await wait_all_tasks_blocked()
                    woken = [each.wakes - before for each, before in zip(lines, idle, strict=True)]
                    assert [bool(times) for times in woken] == [
                        each is lines[number] for each in lines
                    ]
                    idle = [each.wakes for each in lines]
                nursery.cancel_scope.cancel()


@readinesses
@families
async def test_what_came_before_it_was_watched_is_seen(opened: Open, family: str) -> None:
    """A socket that has something by the time it is registered is worth reading at once."""
    async with opened() as readiness:
        sock, peer = sockets(family)
        async with peer:
            await peer.send_all(b"Ada")
            with contextlib.closing(sock):
                transport = SocketTransport(sock, readiness.watch(sock))
                assert await transport.receive() == b"Ada"
                transport.close()


@readinesses
async def test_waiting_lets_others_go_first(opened: Open) -> None:
    """Somebody who always has something to read does not keep the others from running."""
    async with opened() as readiness:
        with line(readiness) as busy, line(readiness) as other:
            heard = 0

            async def chatter() -> None:
                nonlocal heard
                while True:
                    await busy.say(b"a")
                    await busy.transport.receive()
                    heard += 1

            async with trio.open_nursery() as nursery:
                nursery.start_soon(chatter)
                for number in range(1, 20):
                    await other.say(b"Ada")
                    assert await other.transport.receive() == b"Ada"
                    while heard < number:
                        await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()


@readinesses
@families
async def test_data_and_the_end_that_come_together_are_both_seen(opened: Open, family: str) -> None:
    """The end of the stream, whose event was that of the data before it, is received, again and again."""
    async with opened() as readiness:
        with line(readiness, family) as it:
            await it.say(b"Ada")
            it.other.shutdown(socket.SHUT_WR)
            assert await it.transport.receive() == b"Ada"
            for _ in range(3):
                assert await it.transport.receive() == b""


@readinesses
@families
async def test_data_and_a_close_that_come_together_are_both_seen(opened: Open, family: str) -> None:
    """Likewise if the peer is gone altogether."""
    async with opened() as readiness:
        with line(readiness, family) as it:
            await it.say(b"Ada")
            it.other.close()
            assert await it.transport.receive() == b"Ada"
            assert await it.transport.receive() == b""


@readinesses
@families
async def test_the_end_that_comes_later_is_seen(opened: Open, family: str) -> None:
    """A task that waits already is woken by the end alone."""
    async with opened() as readiness, trio.open_nursery() as nursery:
        with line(readiness, family) as it:

            async def end() -> None:
                await wait_all_tasks_blocked()
                it.other.shutdown(socket.SHUT_WR)

            nursery.start_soon(end)
            assert await it.transport.receive() == b""


@readinesses
async def test_data_and_a_reset_that_come_together_are_told(opened: Open) -> None:
    """A reset whose event was that of the data before it is told, and nobody waits for ever."""
    async with opened() as readiness:
        with line(readiness) as it:

            async def receive_all() -> None:
                while await it.transport.receive():
                    pass

            await it.say(b"Ada")
            it.reset()
            with pytest.raises(trio.BrokenResourceError, match="reset by peer"):
                await receive_all()


@readinesses
@pytest.mark.parametrize("inline", [False, True], ids=["aside", "inline"])
async def test_urgent_data_does_not_stall_the_stream(opened: Open, *, inline: bool) -> None:
    """A read ends before an urgent byte, which is left out or not; what is behind it is received all the same."""
    async with opened() as readiness:
        with line(readiness) as it:
            it.sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, inline)
            for first in (b"Ada", b"Grace"):  # and again, when the socket has been idle
                await it.say(first)
                await it.other.send(b"!", socket.MSG_OOB)
                await it.say(b"Bob")
                expected = first + (b"!" if inline else b"") + b"Bob"
                heard = b""
                while len(heard) < len(expected):
                    heard += await it.transport.receive()
                assert heard == expected
            assert await it.transport.receive_arrived() is None


@readinesses
async def test_a_message_with_descriptors_does_not_stall_the_stream(opened: Open) -> None:
    """A read from a Unix socket ends at it, and what is behind it is received all the same."""
    if sys.platform == "win32":
        pytest.skip("descriptors cannot be passed")
    async with opened() as readiness:
        with line(readiness, "Unix") as it:
            descriptor = struct.pack("i", it.sock.fileno())
            await it.other.sendmsg([b"Ada\n"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptor)])
            await it.say(b"Bob\n")
            received = b""
            with trio.fail_after(PATIENCE):
                while len(received) < 8:
                    received += await it.transport.receive()
            assert received == b"Ada\nBob\n"


@readinesses
async def test_an_urgent_byte_while_it_waits_does_not_spin(opened: Open) -> None:
    """One that is left out wakes the task for nothing, and not again and again."""
    async with opened() as readiness:
        with line(readiness) as it:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(it.wake)
                await wait_all_tasks_blocked()
                await it.other.send(b"!", socket.MSG_OOB)
                await wait_all_tasks_blocked()
                await wait_all_tasks_blocked(0.001)
                assert it.wakes < 10
                nursery.cancel_scope.cancel()


@readinesses
@families
async def test_a_full_read_goes_on(opened: Open, family: str) -> None:
    """What is more than one read takes is received without another event."""
    said = bytes(range(256)) * 4 * (SIZE // 1024) * 3
    assert len(said) == 3 * SIZE  # the last read is a full one, too, and finds nothing behind it
    async with opened() as readiness:
        with line(readiness, family) as it:
            for _ in range(2):
                await it.say(said)
                heard = b""
                while len(heard) < len(said):
                    heard += await it.transport.receive()
                assert heard == said
                assert await it.transport.receive_arrived() is None


@readinesses
@families
async def test_a_cancelled_wait_leaves_no_trace(opened: Open, family: str) -> None:
    """What comes after it, or at the same time, is seen by the next wait."""
    async with opened() as readiness:
        with line(readiness, family) as it:
            for number in range(30):
                with trio.CancelScope() as scope:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(it.transport.receive)
                        if number % 2:
                            await wait_all_tasks_blocked()
                        if number % 3 == 0:
                            scope.cancel()
                            await wait_all_tasks_blocked()
                        nursery.cancel_scope.cancel()
                await it.say(b"Ada")
                assert await it.transport.receive() == b"Ada"


@readinesses
async def test_bytes_and_a_cancellation_at_once_lose_nothing(opened: Open) -> None:
    """Whoever is woken and cancelled in the same pass has either received the bytes or left them."""
    async with opened() as readiness:
        with line(readiness) as it:
            for _ in range(30):
                received: list[bytes] = []

                async def receive(into: list[bytes]) -> None:
                    into.append(await it.transport.receive())

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(receive, received)
                    await wait_all_tasks_blocked()
                    await it.say(b"Ada")
                    nursery.cancel_scope.cancel()
                assert (received or [await it.transport.receive()]) == [b"Ada"]


@readinesses
@families
async def test_the_next_owner_of_a_descriptor_gets_its_own_events(
    opened: Open, family: str
) -> None:
    """A socket that is closed with unread bytes, and whose number another one gets at once, is forgotten."""
    async with opened() as readiness:
        reused = 0
        for _ in range(5):
            with contextlib.ExitStack() as stack:
                first = Line(readiness, family)
                number = first.sock.fileno()
                await first.say(b"not yours")
                first.close()
                second = stack.enter_context(line(readiness, family))
                reused += second.sock.fileno() == number
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(second.wake)
                    await wait_all_tasks_blocked()
                    await wait_all_tasks_blocked(0.001)
                    spurious = second.wakes
                    await second.say(b"Ada")
                    await wait_all_tasks_blocked()
                    assert second.wakes > spurious
                    nursery.cancel_scope.cancel()
                assert spurious <= 1
        assert reused


@readinesses
@families
async def test_a_copy_of_a_closed_descriptor_does_no_harm(opened: Open, family: str) -> None:
    """A child's copy keeps the socket in the epoll: its events go to nobody, and do not spin."""
    async with opened() as readiness:
        first = Line(readiness, family)
        copy = first.sock.dup()
        with copy, contextlib.closing(first.other):
            first.transport.close()
            first.sock.close()
            with line(readiness, family) as second:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(second.wake)
                    for _ in range(3):
                        await first.say(b"not yours")
                        await wait_all_tasks_blocked()
                    await wait_all_tasks_blocked(0.001)
                    before = second.wakes
                    assert before < 10
                    await second.say(b"Ada")
                    await wait_all_tasks_blocked()
                    assert second.wakes > before
                    nursery.cancel_scope.cancel()


@readinesses
async def test_thousands_of_sockets_at_once(opened: Open) -> None:
    """Far more have something than one look at the epoll returns: all are woken, each with its own bytes."""
    resource = pytest.importorskip("resource", reason="nobody tells how many sockets there may be")
    many = min(1500, (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 200) // 2)
    if many < 1100:
        pytest.skip("this machine does not allow so many descriptors")
    heard: set[tuple[int, bytes]] = set()

    async def receive(number: int, transport: SocketTransport) -> None:
        heard.add((number, await transport.receive()))

    async with opened() as readiness:
        pairs = [socket.socketpair() for _ in range(many)]
        try:
            async with trio.open_nursery() as nursery:
                for number, (ours, _) in enumerate(pairs):
                    ours.setblocking(False)  # noqa: FBT003 - it is positional only
                    nursery.start_soon(
                        receive, number, SocketTransport(ours, readiness.watch(ours))
                    )
                await wait_all_tasks_blocked()
                for number, (_, theirs) in enumerate(pairs):
                    theirs.send(b"%d" % number)
        finally:
            for pair in pairs:
                for sock in pair:
                    sock.close()
    assert heard == {(number, b"%d" % number) for number in range(many)}


async def test_a_plain_watch_does_not_know_that_a_read_was_short() -> None:
    """More may have come since: it tries again, once, before it asks the system."""
    sock, peer = sockets()
    async with peer:
        with contextlib.closing(sock):
            watch = Watch(sock)
            watch.read_short()
            assert watch.ready
            watch.close()


# Edges


@linux
async def test_a_short_read_means_that_nothing_is_left() -> None:
    """The next wait really waits, with no read in vain, and nothing is asked of the kernel for it."""
    async with open_readiness() as readiness:
        with line(readiness) as it:
            reads = 0

            class Counted:
                family, fileno = socket.AF_INET, it.sock.fileno
                send, shutdown = it.sock.send, it.sock.shutdown

                def recv(self, size: int, /) -> bytes:
                    nonlocal reads
                    reads += 1
                    return it.sock.recv(size)

            transport = SocketTransport(Counted(), it.watch)
            for number in range(1, 6):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(transport.receive)
                    await wait_all_tasks_blocked()
                    assert reads == number - 1
                    await it.say(b"Ada")
                assert reads == number


@linux
async def test_edges_without_end_do_not_keep_others_from_running() -> None:
    """Where each look at the epoll finds something, other tasks have their turn all the same."""

    class Busy:
        looks = 0

        def poll(self, _: float) -> list[tuple[int, int]]:
            self.looks += 1
            return [(-1, 1)] if self.looks < 1000 else []

    edges, busy = EdgeReadiness(), Busy()
    with contextlib.closing(edges._epoll):
        edges._epoll = busy
        async with trio.open_nursery() as nursery:
            nursery.start_soon(edges.run)
            for _ in range(10):
                await trio.lowlevel.checkpoint()
            assert 0 < busy.looks < 100
            nursery.cancel_scope.cancel()


@linux
async def test_the_epoll_is_closed_at_the_end() -> None:
    """Whether the block ends, raises, or is cancelled, no descriptor is left."""
    async with nothing_left_open():
        async with open_readiness():
            pass
        with pytest.RaisesGroup(ZeroDivisionError):
            async with open_readiness():
                raise ZeroDivisionError
        with trio.CancelScope() as scope:
            async with open_readiness():
                scope.cancel()
                await trio.lowlevel.checkpoint()
        gc.collect()


@linux
async def test_sockets_can_be_watched_until_the_block_ends() -> None:
    """Where all is cancelled, tasks that only begin after that still register, and end like the others."""
    with trio.CancelScope() as scope:
        async with open_readiness() as readiness:
            scope.cancel()
            with trio.CancelScope(shield=True):
                await wait_all_tasks_blocked()
            with line(readiness) as it:
                await it.transport.receive()
    assert scope.cancelled_caught


@linux
async def test_a_conversation_that_begins_while_all_is_cancelled_is_no_bug() -> None:
    """A server that is cancelled right after it has accepted somebody logs that he was cut off, and no traceback."""

    class AtBirth(trio.abc.Instrument):
        def __init__(self, scope: trio.CancelScope) -> None:
            self._scope = scope

        def task_spawned(self, task: trio.lowlevel.Task) -> None:
            if "Conversation" in task.name:
                self._scope.cancel()

    with gathered() as log:
        for _ in range(10):  # which of two tasks of a pass goes first is left to chance
            async with hosting(lines_service()) as running:
                instrument = AtBirth(running.scope)
                trio.lowlevel.add_instrument(instrument)
                with socket.create_connection(("127.0.0.1", running.port)):
                    await running.over.wait()
                trio.lowlevel.remove_instrument(instrument)
    assert [record.exc_info for record in log.records if record.exc_info] == []
    assert sum("it was cut off" in text for text in log.lines) == 10


async def test_a_system_without_epoll_watches_each_socket_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Then there is no task, and nothing to close; servers use it as it comes."""
    monkeypatch.setattr(_readiness, "_select", SimpleNamespace())
    async with nothing_left_open(), open_readiness() as readiness:
        assert type(readiness) is Readiness
        with line(readiness) as it:
            assert type(it.watch) is Watch
            await it.say(b"Ada")
            assert await it.transport.receive() == b"Ada"
    async with hosting(lines_service()) as running:
        peer = await running.connect()
        await peer.meet()
        await peer.be_greeted(b"Ada")
        await peer.leave()


@linux
async def test_a_server_has_one_epoll_for_all() -> None:
    """Each conversation's socket is registered with it while it lasts, and forgotten then."""
    service = lines_service()
    async with hosting(service) as running:
        assert isinstance(service._readiness, EdgeReadiness)
        peers = [await running.connect() for _ in range(3)]
        for peer in peers:
            await peer.meet()
        assert len(service._readiness._watches) == 3
        for peer in peers:
            await peer.leave()
        await wait_all_tasks_blocked()
        assert service._readiness._watches == {}


async def test_a_socket_that_cannot_be_registered_is_watched_plainly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the system's limit is reached (max_user_watches in epoll(7)) a socket is served nevertheless."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async with open_readiness() as readiness:
        monkeypatch.setattr(EdgeReadiness, "add", refuse)
        with line(readiness) as it:
            await it.say(b"Ada")
            assert await it.transport.receive() == b"Ada"
