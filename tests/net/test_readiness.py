"""Waiting until sockets can be read: each by itself, or all with one epoll."""

import contextlib
import errno
import os
import socket
import struct
import sys
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from greeter_trio._net import readiness as readiness_module
from greeter_trio._net.readiness import EdgeReadiness, Readiness, Watch, open_readiness
from greeter_trio._net.socket_transport import SocketTransport
from greeter_trio._net.transport import SIZE
from tests.support.descriptors import nothing_left_open
from tests.support.logs import Log
from tests.support.peers import Peer
from tests.support.servers import hosting, lines_sessions
from tests.support.streams import sockets

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has epoll")
families = pytest.mark.parametrize("family", ["TCP", "Unix"])


@pytest.fixture(params=["plain", pytest.param("edges", marks=linux)])
async def readiness(request: pytest.FixtureRequest) -> AsyncIterator[Readiness]:
    if request.param == "plain":
        yield Readiness()
    else:
        async with open_readiness() as edges:
            yield edges


@attrs.define
class Line:
    """A watched socket, and the peer at its other end."""

    sock: socket.socket
    peer: Peer
    other: trio.socket.SocketType  # of the peer
    watch: Watch
    transport: SocketTransport
    wakes: int = 0

    @contextlib.asynccontextmanager
    async def counting(self) -> AsyncIterator[None]:
        """Count how often the watch says that it is worth reading; what there is is taken."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._count)
            await wait_all_tasks_blocked()
            yield
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    async def _count(self) -> None:
        while True:
            await self.watch.wait()
            self.wakes += 1
            try:
                if len(self.sock.recv(SIZE)) < SIZE:
                    self.watch.read_short()
            except BlockingIOError:
                self.watch.ready = False

    async def receive(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            data += await self.transport.receive()
        return data

    def close(self) -> None:
        """Close our end, in the order in which a session does."""
        self.transport.close()
        self.sock.close()


@contextlib.contextmanager
def open_line(readiness: Readiness, family: str = "TCP", said: bytes = b"") -> Iterator[Line]:
    """Yield a line on which the peer had said something before it was watched."""
    sock, stream = sockets(family)
    os.write(stream.socket.fileno(), said)
    watch = readiness.watch(sock)
    it = Line(sock, Peer(stream), stream.socket, watch, SocketTransport(sock, watch))
    try:
        yield it
    finally:
        if sock.fileno() >= 0:
            it.close()
        stream.socket.close()


@pytest.fixture
def family() -> str:
    return "TCP"


@pytest.fixture
async def line(readiness: Readiness, family: str) -> AsyncIterator[Line]:
    with open_line(readiness, family) as line:
        yield line


# Any kind


@families
async def test_only_tasks_whose_socket_has_something_are_woken(
    readiness: Readiness, family: str
) -> None:
    with open_line(readiness, family) as one, open_line(readiness, family) as other:
        async with one.counting(), other.counting():
            for busy, idle in ((one, other), (one, other), (other, one)):
                before = busy.wakes, idle.wakes
                await busy.peer.say(b"Ada")
                await wait_all_tasks_blocked()
                assert busy.wakes > before[0]
                assert idle.wakes == before[1]


@families
async def test_what_came_before_the_socket_was_watched_is_seen(
    readiness: Readiness, family: str
) -> None:
    with open_line(readiness, family, said=b"Ada") as it:
        assert await it.transport.receive() == b"Ada"


@pytest.mark.parametrize("closes", [False, True], ids=["end", "close"])
@families
async def test_data_and_the_end_that_come_together_are_both_seen(
    line: Line, *, closes: bool
) -> None:
    """They make one event."""
    await line.peer.say(b"Ada")
    await (line.peer.close() if closes else line.peer.end())
    assert await line.transport.receive() == b"Ada"
    for _ in range(3):
        assert await line.transport.receive() == b""


async def test_data_and_a_reset_that_come_together_are_told(line: Line) -> None:
    """They make one event."""
    await line.peer.say(b"Ada")
    line.peer.reset()
    with pytest.raises(trio.BrokenResourceError, match="reset by peer"):
        await line.receive(4)


@pytest.mark.parametrize("inline", [False, True], ids=["aside", "inline"])
async def test_urgent_data_does_not_stall_the_stream(line: Line, *, inline: bool) -> None:
    """A read ends before an urgent byte; what is behind it is received all the same."""
    line.sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, inline)
    for first in (b"Ada", b"Grace"):  # and again, when the socket has been idle
        await line.peer.say(first)
        await line.other.send(b"!", socket.MSG_OOB)
        await line.peer.say(b"Bob")
        expected = first + (b"!" if inline else b"") + b"Bob"
        assert await line.receive(len(expected)) == expected
    assert await line.transport.receive_arrived() is None


async def test_a_message_with_descriptors_does_not_stall_the_stream(readiness: Readiness) -> None:
    """A read from a Unix socket ends at it; what is behind it is received all the same."""
    if sys.platform == "win32":
        pytest.skip("descriptors cannot be passed")
    with open_line(readiness, "Unix") as it:
        descriptor = struct.pack("i", it.sock.fileno())
        await it.other.sendmsg([b"Ada\n"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptor)])
        await it.peer.say(b"Bob\n")
        assert await it.receive(8) == b"Ada\nBob\n"


async def test_an_urgent_byte_during_a_wait_does_not_spin(line: Line) -> None:
    """If it is left out of the data, it wakes the task for nothing."""
    async with line.counting():
        await line.other.send(b"!", socket.MSG_OOB)
        await wait_all_tasks_blocked(0.001)
        assert line.wakes < 10


@families
async def test_the_next_owner_of_a_descriptor_gets_its_own_events(
    readiness: Readiness, family: str
) -> None:
    """A socket is closed with unread bytes, and another one gets its number."""
    reused = 0
    for _ in range(5):
        with open_line(readiness, family) as first:
            number = first.sock.fileno()
            await first.peer.say(b"not yours")
            first.close()
        with open_line(readiness, family) as second:
            reused += second.sock.fileno() == number
            async with second.counting():
                await wait_all_tasks_blocked(0.001)
                spurious = second.wakes
                await second.peer.say(b"Ada")
            assert second.wakes > spurious
            assert spurious <= 1
    assert reused


@families
async def test_a_copy_of_a_closed_descriptor_does_no_harm(
    readiness: Readiness, family: str
) -> None:
    """A child's copy keeps the socket in the epoll (epoll(7)): its events do not spin."""
    with open_line(readiness, family) as first, first.sock.dup():
        first.close()
        with open_line(readiness, family) as second:
            async with second.counting():
                for _ in range(3):
                    await first.peer.say(b"not yours")
                    await wait_all_tasks_blocked(0.001)
                before = second.wakes
                await second.peer.say(b"Ada")
            assert second.wakes > before
            assert before < 10


async def test_more_sockets_than_one_look_returns_are_all_woken(readiness: Readiness) -> None:
    resource = pytest.importorskip("resource", reason="nothing tells how many sockets may be open")
    many = min(1100, (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 200) // 2)
    heard: set[tuple[int, bytes]] = set()

    async def receive(number: int, it: Line) -> None:
        heard.add((number, await it.transport.receive()))

    with contextlib.ExitStack() as stack:
        async with trio.open_nursery() as nursery:
            lines = [stack.enter_context(open_line(readiness, "Unix")) for _ in range(many)]
            for number, it in enumerate(lines):
                nursery.start_soon(receive, number, it)
            await wait_all_tasks_blocked()
            for number, it in enumerate(lines):
                os.write(it.other.fileno(), b"%d" % number)
    assert heard == {(number, b"%d" % number) for number in range(many)}


async def test_after_a_short_read_only_edges_wait(line: Line, nursery: trio.Nursery) -> None:
    """To try once in vain costs less than to ask Trio; with edges nothing need be asked."""
    assert line.watch.ready is (type(line.watch) is Watch)  # likewise at the beginning
    nursery.start_soon(line.transport.receive)
    await wait_all_tasks_blocked()
    await line.peer.say(b"Ada")
    await wait_all_tasks_blocked()
    assert line.watch.ready is (type(line.watch) is Watch)


# Edges


@linux
async def test_endless_edges_do_not_keep_other_tasks_from_running() -> None:
    looks = 0

    class Busy:
        def poll(self, _: float) -> list[tuple[int, int]]:
            nonlocal looks
            looks += 1
            return [(-1, 1)] if looks < 1000 else []

    edges = EdgeReadiness()
    edges.close()
    edges._epoll = Busy()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(edges.run)
        for _ in range(10):
            await trio.lowlevel.checkpoint()
        assert 0 < looks < 100
        nursery.cancel_scope.cancel()


@linux
async def test_the_epoll_is_closed_at_the_end() -> None:
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


@linux
async def test_sockets_can_be_watched_until_the_block_ends() -> None:
    """Tasks that begin after all was cancelled still register, and end like the others."""
    with trio.CancelScope() as scope:
        async with open_readiness() as edges:
            scope.cancel()
            with trio.CancelScope(shield=True):
                await wait_all_tasks_blocked()
            with open_line(edges) as it:
                await it.transport.receive()
    assert scope.cancelled_caught


@pytest.mark.parametrize("lacks", ["epoll", "room"])
async def test_what_cannot_be_registered_is_watched_by_itself(
    monkeypatch: pytest.MonkeyPatch, lacks: str
) -> None:
    """Other platforms have no epoll, and a user may register so many (max_user_watches)."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if lacks == "epoll":
        monkeypatch.setattr(readiness_module, "_select", SimpleNamespace())
    async with nothing_left_open(), open_readiness() as readiness:
        assert type(readiness) is Readiness or lacks == "room"
        monkeypatch.setattr(EdgeReadiness, "add", refuse)
        with open_line(readiness, said=b"Ada") as it:
            assert type(it.watch) is Watch
            assert await it.transport.receive() == b"Ada"


@linux
async def test_a_session_that_begins_while_the_server_is_cancelled_is_cut_off(log: Log) -> None:
    """It registers its socket even then, and no traceback is logged."""

    class AtBirth(trio.abc.Instrument):
        def __init__(self, scope: trio.CancelScope) -> None:
            self._scope = scope

        def task_spawned(self, task: trio.lowlevel.Task) -> None:
            if "Session" in task.name:
                self._scope.cancel()

    for _ in range(10):  # which of two tasks of a pass goes first is a matter of chance
        async with hosting(lines_sessions()) as running:
            instrument = AtBirth(running.scope)
            trio.lowlevel.add_instrument(instrument)
            with socket.create_connection(("127.0.0.1", running.port)):
                await running.over.wait()
            trio.lowlevel.remove_instrument(instrument)
    assert [record.exc_info for record in log.records if record.exc_info] == []
    assert sum("it was cut off" in text for text in log.lines) == 10


@linux
async def test_a_server_has_one_epoll_for_all() -> None:
    sessions = lines_sessions()
    async with hosting(sessions) as running:
        peers = [await running.connect() for _ in range(3)]
        for peer in peers:
            await peer.meet()
        (edges,) = {session._readiness for session in sessions._live}
        assert isinstance(edges, EdgeReadiness)
        assert len(edges._watches) == 3
        for peer in peers:
            await peer.leave()
        await wait_all_tasks_blocked()
        assert edges._watches == {}
