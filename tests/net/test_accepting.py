"""Accepting connections: each error that accept(2) can give, from a script, and the real ones."""

import errno
import itertools
import os
import socket
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from greeter_trio._net.accepting import Acceptor
from greeter_trio._net.notices import Notice
from tests.support.descriptors import nothing_left_open
from tests.support.logs import Log
from tests.support.peers import connect_now
from tests.support.servers import hosting, lines_sessions, serving

OK = "OK"


class Scene:
    """All that an acceptor meets: a listener, its socket with a scripted backlog, and the places.

    The script has an error for each accept that fails, by name or number, and OK for a connection.
    `under_way` has the handshakes that are found at each look; at the end no more are.
    """

    name = "127.0.0.1:6000"
    is_closed = False

    def __init__(self, *script: str | int, places: int = 1000, kept: bool = False) -> None:
        self.script, self.places, self.kept = list(script), places, kept
        self.under_way: list[set[str]] = []
        self.looks = 0
        self.accepted: list[float] = []
        """When connections were accepted."""
        self.scope = trio.CancelScope()  # cancelled when the script is over
        self.failures = Notice("accept", "failure")
        self.socket = here = cast("Any", self)
        self.acceptor = Acceptor(here, self._on_accepted, self, self.failures)
        self._waiting = trio.lowlevel.ParkingLot()

    def handshakes(self) -> set[str]:
        self.looks += 1
        return self.under_way.pop(0) if self.under_way else set()

    def accept(self) -> tuple[str, str]:
        if not self.script:
            if not self.under_way:
                self.scope.cancel()
            raise BlockingIOError
        each = self.script.pop(0)
        if each == OK:
            return "a socket", "an address"
        number = getattr(errno, each) if isinstance(each, str) else each
        raise OSError(number, os.strerror(number))

    def close(self) -> None:
        self.is_closed = True

    def _on_accepted(self, *args: object) -> None:
        assert args == ("a socket", "an address", self)
        self.accepted.append(round(trio.current_time(), 6))

    def may_accept(self) -> bool:
        return len(self.accepted) < self.places

    def note_client(self) -> None:
        pass

    async def wait_for_place(self) -> None:
        while not self.may_accept():
            await self._waiting.park()

    async def have_places(self, number: int) -> None:
        self.places = number
        self._waiting.unpark_all()
        await wait_all_tasks_blocked()

    async def run(self) -> None:
        """Accept until the script is over, from a socket that is always readable."""
        readable, other = socket.socketpair()
        with self.scope, readable, other:
            other.send(b".")
            self.fileno = readable.fileno
            await self.acceptor.run()


# accept(2) of Linux: what concerns one connection, as pending network errors do
BROKEN = """
ECONNABORTED EPROTO ENOPROTOOPT EHOSTDOWN ENONET EHOSTUNREACH EOPNOTSUPP ENETUNREACH ENETDOWN
EPERM ETIMEDOUT ECONNRESET ESOCKTNOSUPPORT EPROTONOSUPPORT ENOSR
"""


@pytest.mark.parametrize("name", [each for each in BROKEN.split() if hasattr(errno, each)])
async def test_broken_connections_are_skipped_silently(
    autojump_clock: MockClock, log: Log, name: str
) -> None:
    at = Scene(name, OK)
    await at.run()
    assert at.accepted == [0]
    assert at.failures.count == 0
    assert log.lines == []


@pytest.mark.parametrize("error", ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "EIO", 9999])
async def test_a_lack_of_the_machine_is_waited_out_with_a_warning(
    autojump_clock: MockClock, log: Log, error: str | int
) -> None:
    """Errors that no manual mentions are taken for one; successes do not reset the count."""
    at = Scene(error, OK, OK, error, OK)
    await at.run()
    assert at.accepted == [0.1, 0.1, 0.2]
    assert at.failures.count == 2
    what = os.strerror(error if isinstance(error, int) else getattr(errno, error))
    where = f"Cannot accept connections on {at.name}"
    assert log.lines == [f"{where}: {what} (1 failure so far)"]
    assert log.records[0].levelname == "WARNING"


@pytest.mark.parametrize("name", ["EBADF", "EINVAL", "ENOTSOCK", "EFAULT"])
@pytest.mark.parametrize("method", ["run", "finish"])
async def test_bugs_are_raised(log: Log, name: str, method: str) -> None:
    at = Scene(name, OK)
    with pytest.raises(OSError, match=r"\[Errno") as raised:
        await (at.run() if method == "run" else at.acceptor.finish())
    assert raised.value.errno == getattr(errno, name)
    assert at.is_closed is (method == "finish")
    assert log.lines == []


async def test_other_tasks_run_while_many_connections_wait() -> None:
    at, seen = Scene(*[OK] * 100), []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(at.run)
        while at.script:
            seen.append(len(at.accepted))
            await trio.lowlevel.checkpoint()
    assert 0 < max(later - earlier for earlier, later in itertools.pairwise(seen)) <= 32


@pytest.mark.parametrize("method", ["run", "finish"])
async def test_nothing_is_accepted_without_a_place(method: str) -> None:
    """The attempt that finds no other connection needs one, too, before the listener is closed."""
    at = Scene(*[OK] * 40, places=3)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(at.run if method == "run" else at.acceptor.finish)
        await wait_all_tasks_blocked()
        assert len(at.accepted) == 3
        await at.have_places(40)
        assert len(at.accepted) == 40
        assert not at.is_closed
        await at.have_places(41)
    assert at.is_closed is (method == "finish")


async def test_finish_accepts_the_whole_backlog(autojump_clock: MockClock, log: Log) -> None:
    """Conversations are ending, and so a lack of the machine passes."""
    at = Scene("ECONNABORTED", OK, "EPROTO", "EMFILE", *[OK] * 29)
    await at.acceptor.finish()
    assert at.accepted == [0, *[0.1] * 29]
    assert at.is_closed
    assert at.failures.count == len(log.lines) == 1
    at = Scene(OK, kept=True)  # whose backlog is for the next server
    await at.acceptor.finish()
    assert (at.script, at.is_closed) == ([OK], True)


async def test_finish_waits_for_handshakes_that_are_under_way(autojump_clock: MockClock) -> None:
    """But not for those that begin meanwhile. There is no `await` between the end and the close."""
    at = Scene(OK)
    at.under_way = [{"Ada", "Eve"}, {"Ada", "Eve", "Bob"}, {"Eve", "Bob"}, {"Bob"}, {"Bob"}]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(at.acceptor.finish)
        await trio.sleep(0.12)
        at.script.append(OK)  # Eve
        await trio.lowlevel.checkpoint()
        assert at.accepted == [0]
        assert not at.is_closed
    assert at.is_closed
    assert at.accepted == [0, 0.15]
    assert (at.looks, at.under_way) == (4, [{"Bob"}])
    at.script, at.under_way = [OK, OK], []
    with at.scope:  # it is cancelled when nothing is left to accept
        await at.acceptor.finish()
    assert not at.scope.cancelled_caught


async def test_finish_waits_for_handshakes_for_three_seconds(autojump_clock: MockClock) -> None:
    """A client that has gone away in the middle of its own, or never was there."""
    at = Scene()
    at.under_way = [{"Mallory"}] * 1000
    async with trio.open_nursery() as nursery:
        nursery.start_soon(at.acceptor.finish)
        await trio.sleep(2.99)
        at.script = [OK]
    assert at.is_closed
    assert len(at.accepted) == 1
    assert 3 <= trio.current_time() < 3.1


async def test_connections_that_were_reset_in_the_backlog(log: Log) -> None:
    async with nothing_left_open(), serving() as server:
        for _ in range(50):  # nothing else runs until the next `await`
            connect_now(server.port).reset()
        peer = await server.connect()
        await peer.meet()
        await log.line("is closed: the client ended it; 0 names in ", 50)
        await peer.leave()
    assert {record.levelname for record in log.records} == {"INFO"}


async def test_a_process_without_descriptors(settling_clock: MockClock, log: Log) -> None:
    """Open conversations go on; new ones wait, and begin when descriptors are available again."""
    resource = pytest.importorskip("resource")
    sessions = lines_sessions()
    async with hosting(sessions) as server:
        peer = await server.connect()
        await peer.meet()
        others = [socket.socket() for _ in range(3)]
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest = os.dup(0)
        os.close(lowest)  # the next descriptor would be this one
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
            for other in others:
                other.connect(("127.0.0.1", server.port))
            await log.line("Too many open files")
            await peer.be_greeted(b"Ada", b"Grace")
            assert sum("Accept new" in line for line in log.lines) == 1
            while sessions.accept_failures.count < 2:  # noqa: ASYNC110 - it tells nobody
                await trio.sleep(0.01)
            since = trio.current_time()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await log.line("Accept new", 4)
        assert trio.current_time() <= since + 0.5
        for other in others:
            other.close()
        await peer.leave()
    assert sessions.counters.accept_failures > 1


async def test_a_bug_in_accepting_ends_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    def accept(_: Acceptor) -> bool:
        raise OSError(errno.EINVAL, "a bug")

    monkeypatch.setattr(Acceptor, "_accept", accept)
    async with nothing_left_open():
        with pytest.RaisesGroup(OSError, flatten_subgroups=True):
            async with serving() as server:
                with socket.create_connection(("127.0.0.1", server.port)):
                    await trio.sleep_forever()
