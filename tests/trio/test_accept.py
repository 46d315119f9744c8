# ruff: noqa: ARG001 - a test gets the clock that it names as an argument, and need not touch it
"""Accepting connections (`_accept.py`): each error that accept(2) can give, from a script, and the real ones."""

import contextlib
import errno
import itertools
import os
import socket
from collections.abc import Iterable, Iterator
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from greeter_trio import serve_greeter
from greeter_trio._net.accepting import Acceptor, Troubles
from greeter_trio._net.listeners import Listener, adopt

from .helpers import LINES, NO_LINGER, Log, hosting, lines_service, nothing_left_open, serving

# What accept(2) can give, as the manual page of Linux has it, and where it says that pending errors
# are passed on.
_THEIRS = [
    "ECONNABORTED",
    "EPROTO",
    "ENOPROTOOPT",
    "EHOSTDOWN",
    "ENONET",
    "EHOSTUNREACH",
    "EOPNOTSUPP",
    "ENETUNREACH",
    "ENETDOWN",
    "EPERM",
    "ETIMEDOUT",
    "ECONNRESET",
    "ESOCKTNOSUPPORT",
    "EPROTONOSUPPORT",
    "ENOSR",
]
THEIRS = [name for name in _THEIRS if hasattr(errno, name)]
MACHINE = ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "EIO"]  # and EIO is one that no manual mentions
OURS = ["EBADF", "EINVAL", "ENOTSOCK", "EFAULT"]


class Scripted(socket.socket):
    """A listening socket that gives these errors first, one for each accept; 0 is no error."""

    def __init__(self, sock: socket.socket, errors: Iterable[int]) -> None:
        super().__init__(fileno=os.dup(sock.fileno()))
        self.settimeout(0)
        self._errors = iter(errors)
        self.accepts: list[float] = []
        """When somebody tried."""

    def accept(self) -> tuple[socket.socket, Any]:
        """Fail, or accept."""
        self.accepts.append(round(trio.current_time(), 6))
        number = next(self._errors, 0)
        if number:
            raise OSError(number, os.strerror(number))
        return super().accept()


@attrs.define
class Desk:
    """An acceptor of a scripted socket, with clients who wait there, and what became of them."""

    listener: Listener
    scripted: Scripted
    clients: list[socket.socket]
    places: int = 1_000_000
    taken: list[float] = attrs.field(factory=list)
    """When connections were accepted. They are closed at once."""
    all_taken: trio.Event = attrs.field(factory=trio.Event)
    freed: trio.Event = attrs.field(factory=trio.Event)
    troubles: Troubles = attrs.field(factory=Troubles)
    acceptor: Acceptor = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.acceptor = Acceptor(
            self.listener,
            self._take,
            lambda: len(self.taken) < self.places,
            self._wait,
            self.troubles,
        )

    def _take(self, sock: socket.socket, _: object, listener: Listener) -> None:
        assert listener is self.listener
        sock.close()
        self.taken.append(round(trio.current_time(), 6))
        if len(self.taken) == len(self.clients):
            self.all_taken.set()

    async def _wait(self) -> None:
        while len(self.taken) >= self.places:
            await self.freed.wait()
            self.freed = trio.Event()

    async def run(self) -> None:
        """Accept until all clients have been."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.acceptor.run)
            await self.all_taken.wait()
            nursery.cancel_scope.cancel()


@contextlib.contextmanager
def desk(*errors: int, clients: int = 1, kept: bool = False) -> Iterator[Desk]:
    """Have a desk with clients who are connected already."""
    with contextlib.ExitStack() as opened:
        real = opened.enter_context(socket.create_server(("127.0.0.1", 0), backlog=clients))
        waiting = [
            opened.enter_context(socket.create_connection(real.getsockname()))
            for _ in range(clients)
        ]
        scripted = Scripted(real, errors)
        listener = adopt(real, kept=kept)
        opened.callback(listener.close)
        opened.callback(scripted.close)
        listener.socket = scripted
        yield Desk(listener, scripted, waiting)


# Errors


@pytest.mark.parametrize("name", THEIRS)
async def test_errors_of_a_connection_are_skipped(
    autojump_clock: MockClock, log: Log, name: str
) -> None:
    """After an error that concerns one connection the next one is accepted at once, and nothing is said."""
    with desk(getattr(errno, name)) as at:
        await at.run()
    assert at.taken == [0]
    assert at.troubles.count == 0
    assert log.lines == []


@pytest.mark.parametrize("name", MACHINE)
async def test_errors_of_the_machine_are_waited_out(
    autojump_clock: MockClock, log: Log, name: str
) -> None:
    """After an error of the machine there is another attempt 0.1 seconds later, and one warning; it is counted."""
    number = getattr(errno, name)
    with desk(number) as at:
        await at.run()
        assert at.taken == [0.1]
        assert at.troubles.count == 1
        assert log.lines == [
            f"Cannot accept connections on {at.listener.name}: {os.strerror(number)}; trying again (1 failure so far)"
        ]
    assert [record.levelname for record in log.records] == ["WARNING"]


async def test_an_error_that_nobody_has_thought_of_is_one_of_the_machine(
    autojump_clock: MockClock,
) -> None:
    """An unknown error ends no server."""
    with desk(9999, 9999) as at:
        await at.run()
    assert at.taken == [0.2]


@pytest.mark.parametrize("name", OURS)
async def test_bugs_come_out(autojump_clock: MockClock, log: Log, name: str) -> None:
    """An error that only a bug can cause is raised."""
    with desk(getattr(errno, name)) as at, pytest.raises(OSError, match=r"\[Errno") as raised:
        await at.acceptor.run()
    assert raised.value.errno == getattr(errno, name)
    assert log.lines == []


async def test_a_machine_in_trouble_is_mentioned_once_a_second(
    autojump_clock: MockClock, log: Log
) -> None:
    """While all attempts fail there are ten a second, but one warning a second, which has the number of failures."""
    with desk(*[errno.EMFILE] * 45) as at:
        await at.run()
    assert at.taken == [4.5]
    assert at.troubles.count == 45
    told = [int(line.partition("(")[2].partition(" ")[0]) for line in log.lines]
    assert told[0] == 1
    assert len(told) == 5
    assert all(10 <= later - earlier <= 11 for earlier, later in itertools.pairwise(told))


async def test_trouble_comes_back(autojump_clock: MockClock, log: Log) -> None:
    """Failures with successes between them are counted together, and none of the others waits."""
    with desk(errno.EMFILE, 0, 0, errno.ENFILE, 0, clients=3) as at:
        await at.run()
    assert at.taken == [0.1, 0.1, 0.2]
    assert at.troubles.count == 2
    assert len(log.lines) == 1


# Turns and places


async def test_others_have_their_turn_in_a_rush(autojump_clock: MockClock) -> None:
    """Of many connections that wait some are accepted at a time, and other tasks run in between."""
    turns: list[int] = []

    async def count() -> None:
        while True:
            turns.append(len(at.taken))
            await trio.lowlevel.checkpoint()

    with desk(clients=100) as at:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(count)
            await at.run()
            nursery.cancel_scope.cancel()
    assert (
        0 < max(later - earlier for earlier, later in itertools.pairwise(turns)) <= 32
    )  # in two turns of its own


async def test_nobody_is_accepted_without_a_place(autojump_clock: MockClock) -> None:
    """Where places run out in a rush, accepting stops at once, and goes on when there are more."""
    with desk(clients=10) as at:
        at.places = 3
        async with trio.open_nursery() as nursery:
            nursery.start_soon(at.run)
            await wait_all_tasks_blocked()
            assert len(at.taken) == 3
            at.places = 5
            at.freed.set()
            await wait_all_tasks_blocked()
            assert len(at.taken) == 5
            at.places = 10
            at.freed.set()


# The end


async def test_finishing_takes_everybody(log: Log) -> None:
    """At the end all who wait are accepted, whatever went wrong with some of them, and the listener is closed."""
    with desk(errno.ECONNABORTED, 0, errno.EPROTO, clients=30) as at:
        await at.acceptor.finish()
        assert len(at.taken) == 30
        assert at.listener.trio.socket.fileno() == -1
    assert at.troubles.count == 0
    assert log.lines == []


async def test_finishing_waits_for_places(autojump_clock: MockClock) -> None:
    """The limit holds at the end, too: who waits is accepted when there is a place, and only then is it closed."""
    with desk(clients=30) as at:
        at.places = 10
        async with trio.open_nursery() as nursery:
            nursery.start_soon(at.acceptor.finish)
            await wait_all_tasks_blocked()
            assert len(at.taken) == 10
            assert at.listener.trio.socket.fileno() != -1
            at.places = 30
            at.freed.set()
            await wait_all_tasks_blocked()
            at.places = 31  # for nobody: it has to be asked whether there is one more
            at.freed.set()
        assert len(at.taken) == 30
        assert at.listener.trio.socket.fileno() == -1


@pytest.mark.parametrize("name", MACHINE)
async def test_finishing_waits_out_the_errors_of_the_machine(
    autojump_clock: MockClock, log: Log, name: str
) -> None:
    """Without descriptors nobody is given up who waits: conversations are ending, and their descriptors come back."""
    with desk(0, getattr(errno, name), clients=3) as at:
        await at.acceptor.finish()
        assert at.taken == [0, 0.1, 0.1]
        assert at.listener.trio.socket.fileno() == -1
    assert at.troubles.count == 1
    assert len(log.lines) == 1


@pytest.mark.parametrize("name", OURS)
async def test_bugs_come_out_at_the_end(log: Log, name: str) -> None:
    """An error that only a bug can cause is raised, and the listener is closed."""
    with desk(getattr(errno, name)) as at:
        with pytest.raises(OSError, match=r"\[Errno"):
            await at.acceptor.finish()
        assert at.listener.trio.socket.fileno() == -1
    assert log.lines == []


async def test_listeners_share_their_troubles(autojump_clock: MockClock, log: Log) -> None:
    """With two listeners in the same trouble there is still one warning a second."""
    troubles = Troubles()
    for _ in range(20):
        for where in ("127.0.0.1:6000", "[::1]:6000"):
            troubles.note(where, OSError(errno.EMFILE, "Too many open files"))
        await trio.sleep(0.1)
    assert troubles.count == 40
    assert len(log.lines) == 2


async def test_the_backlog_of_a_socket_that_is_kept_is_left_to_the_next_server() -> None:
    """Who waits at a socket that was passed to us is not accepted any more, and can be accepted by others."""
    with (
        desk(clients=1, kept=True) as at,
        socket.socket(fileno=os.dup(at.scripted.fileno())) as others,
    ):
        await at.acceptor.finish()
        assert at.taken == []
        assert at.listener.trio.socket.fileno() == -1
        sock, peer = others.accept()
        sock.close()
        assert peer == at.clients[0].getsockname()


# Real ones


async def test_connections_that_were_reset_before_they_were_accepted(log: Log) -> None:
    """Connections that were broken while they waited cost a line each, and the next client is welcomed."""
    async with nothing_left_open(), serving() as service:
        for _ in range(50):
            gone = socket.create_connection(
                ("127.0.0.1", service.port)
            )  # nothing else runs until the next `await`
            gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
            gone.close()
        peer = await service.connect()
        await peer.meet()
        await log.line(
            " is closed: the connection was lost (Connection reset by peer); 0 names in ", 50
        )
        await peer.leave()
    assert {record.levelname for record in log.records} == {"INFO"}


async def test_a_process_without_descriptors(autojump_clock: MockClock, log: Log) -> None:
    """Where descriptors run out, those who are there are served; others wait, and are welcomed when there are some."""
    resource = pytest.importorskip("resource")
    autojump_clock.autojump_threshold = 0.05
    service = lines_service()
    async with hosting(service) as running:
        peer = await running.connect()
        await peer.meet()
        others = [socket.socket() for _ in range(3)]
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest = os.dup(0)
        os.close(lowest)  # the next descriptor would be this one
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
            for other in others:
                other.connect(("127.0.0.1", running.port))
            await log.line("Too many open files")
            await peer.be_greeted(b"Ada", b"Grace")
            assert sum("Accept new" in line for line in log.lines) == 1
            await log.line("Too many open files", 2)
            since = trio.current_time()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await log.line("Accept new", 4)
        assert trio.current_time() <= since + 0.5
        for other in others:
            other.close()
        await peer.leave()
    assert service.counters.accept_failures > 1


async def test_an_acceptor_with_a_bug_ends_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug in accepting is no reason to go on and serve nobody: the exception comes out, and nothing is left open."""

    def fail(_: Acceptor) -> bool:
        raise OSError(errno.EINVAL, "a bug")

    async with nothing_left_open():
        monkeypatch.setattr(Acceptor, "_accept", fail)
        shutdown = trio.Event()
        with pytest.RaisesGroup(OSError, flatten_subgroups=True):
            async with trio.open_nursery() as nursery:
                listeners = await nursery.start(_serve, shutdown)
                with socket.create_connection(listeners[0].socket.getsockname()):
                    await trio.sleep_forever()


async def _serve(
    shutdown: trio.Event, *, task_status: trio.TaskStatus[list[trio.SocketListener]]
) -> None:
    await serve_greeter("127.0.0.1", 0, config=LINES, shutdown=shutdown, task_status=task_status)
