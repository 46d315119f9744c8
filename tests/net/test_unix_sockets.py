"""Listening at the path of a Unix socket, whatever is there already."""

import contextlib
import errno
import os
import socket
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from greeter_trio._net.endpoints import AF_UNIX, Endpoint, Fd, Tcp, Unix
from greeter_trio._net.listeners import ListenError, adopt, open_listeners
from tests.support.clocks import PATIENCE, cancel_when_blocked
from tests.support.descriptors import nothing_left_open
from tests.support.listening import check_reachable, dial, listen_error, listening

pytestmark = pytest.mark.skipif(not AF_UNIX, reason="there are no Unix sockets")

PATH = Path("socket")
HERE = Unix("socket")
LINKS = [partial(os.symlink, target) for target in ("nowhere", "stale")]
LISTENS = "a program is listening there: choose another path, or end that program"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Be in an empty folder: its own path may be too long for a Unix socket."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def bound(kind: socket.SocketKind = socket.SOCK_STREAM, path: str = "socket") -> socket.socket:
    """Return a socket that another program has bound to a path, and listens on, if that can be."""
    sock = socket.socket(AF_UNIX, kind)
    sock.bind(path)
    if kind != socket.SOCK_DGRAM:
        sock.listen()
    return sock


def leave_stale(path: str = "socket") -> None:
    """Leave the file of a server that was killed."""
    bound(path=path).close()


async def test_one_failure_closes_all(folder: Path) -> None:
    message = await listen_error(Tcp("127.0.0.1", 0), HERE, Unix("no/socket"))
    why = "No such file or directory (the folder must exist)"
    assert message == f"cannot listen on unix:no/socket: {why}"
    assert not list(folder.iterdir())


@pytest.mark.parametrize("endpoint", [HERE, Tcp("127.0.0.1", 0)])
async def test_a_system_that_cannot_listen(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file that bind made does not stay behind."""

    def listen(*_: object) -> None:
        raise OSError(errno.ENOBUFS, "")

    monkeypatch.setattr(socket.socket, "listen", listen)
    assert os.strerror(errno.ENOBUFS) in await listen_error(endpoint)
    assert not os.path.lexists(PATH)


async def test_refusing_new_connections_removes_the_file() -> None:
    """Clients that have connected before can still be accepted."""
    async with nothing_left_open(), listening(HERE) as (listener,):
        with dial(listener):
            listener.refuse_new_connections()
            assert not os.path.lexists(PATH)
            listener.socket.accept()[0].close()


async def test_only_its_own_file_is_removed() -> None:
    """Closing a second time does not remove another one, either."""
    Path("below").mkdir()
    async with nothing_left_open(), listening(HERE, Unix("below/socket")) as (listener, _):
        PATH.unlink()
        with bound():
            listener.close()
            assert os.path.lexists(PATH)
        Path("below/socket").unlink()
        Path("below").rmdir()
    assert os.path.lexists(PATH)
    async with listening(HERE) as (listener,):
        listener.close()
        leave_stale()
    assert os.path.lexists(PATH)


async def test_a_stale_socket_is_replaced_and_a_live_one_is_not() -> None:
    leave_stale()
    async with nothing_left_open(), listening(HERE) as (listener,):
        assert await listen_error(HERE) == f"cannot listen on unix:socket: {LISTENS}"
        check_reachable(listener)
    with bound(socket.SOCK_DGRAM):
        assert LISTENS in await listen_error(HERE)
    assert os.path.lexists(PATH)


async def test_a_program_whose_backlog_is_full_listens_there() -> None:
    with bound() as busy, contextlib.ExitStack() as clients:
        busy.listen(0)
        code = 0
        while code != errno.EAGAIN:
            client = clients.enter_context(socket.socket(AF_UNIX))
            client.settimeout(0)
            code = client.connect_ex("socket")
        assert LISTENS in await listen_error(HERE)


async def test_a_socket_that_cannot_be_asked_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    leave_stale()
    monkeypatch.setattr(socket.socket, "connect_ex", lambda *_: errno.EACCES)
    assert os.strerror(errno.EACCES) in await listen_error(HERE)
    assert os.path.lexists(PATH)


@pytest.mark.parametrize(
    "make",
    [Path.touch, Path.mkdir, getattr(os, "mkfifo", None), *LINKS],
    ids=["file", "folder", "pipe", "link to nothing", "link to a stale socket"],
)
async def test_what_is_no_socket_is_left_alone(make: Callable[[Path], object]) -> None:
    """Links are not followed."""
    leave_stale("stale")
    make(PATH)
    before = PATH.lstat()
    why = "what is there is no socket: remove it, or choose another path"
    assert await listen_error(HERE) == f"cannot listen on unix:socket: {why}"
    assert os.path.samestat(before, PATH.lstat())
    assert Path("stale").is_socket()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[Callable[[], None]]:
    """Hold the lock that a server holds while it starts; yields what releases it."""
    fcntl = pytest.importorskip("fcntl")
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        yield lambda: fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


async def test_servers_start_one_after_the_other(folder: Path, autojump_clock: MockClock) -> None:
    """While another server is starting in the same folder nothing is touched."""
    leave_stale()
    before = PATH.lstat()

    async def start() -> None:
        async with listening(HERE) as (listener,):
            assert autojump_clock.current_time() == pytest.approx(1, abs=0.1)
            check_reachable(listener)

    async with nothing_left_open():
        with locked(folder) as unlock:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(start)
                await trio.sleep(1)
                assert os.path.samestat(before, PATH.lstat())
                unlock()


async def test_a_lock_is_waited_for_no_longer_than_5_seconds(
    folder: Path, autojump_clock: MockClock
) -> None:
    with locked(folder):
        async with nothing_left_open():
            await cancel_when_blocked(open_listeners, [HERE])
        assert not os.path.lexists(PATH)
        async with listening(HERE) as (listener,):
            check_reachable(listener)
    assert autojump_clock.current_time() == pytest.approx(5)


async def test_the_lock_is_held_until_the_socket_listens(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket that is bound and does not listen yet looks stale to other servers."""
    listen, checked = socket.socket.listen, []

    def check_and_listen(sock: socket.socket, backlog: int) -> None:
        with pytest.raises(BlockingIOError), locked(folder):
            pass
        checked.append(backlog)
        listen(sock, backlog)

    monkeypatch.setattr(socket.socket, "listen", check_and_listen)
    async with listening(HERE):
        assert checked
        with locked(folder):  # it is not held any longer
            pass


def test_of_two_servers_that_start_at_once_one_listens(folder: Path) -> None:
    """Each time they find the file of a third one, which was killed; the other gets an error."""
    barrier = threading.Barrier(2, timeout=PATIENCE)

    async def start(path: str) -> str:
        barrier.wait()
        try:
            (listener,) = await open_listeners([Unix(path)])
        except ListenError as exc:
            barrier.wait()
            return str(exc)
        barrier.wait()
        check_reachable(listener)
        listener.close()
        return ""

    with ThreadPoolExecutor(2) as pool:
        for path in map(str, range(50)):
            leave_stale(path)
            won, lost = sorted(pool.map(lambda path: trio.run(start, path), [path] * 2))
            assert not won
            assert LISTENS in lost
    assert not list(folder.iterdir())


async def test_the_file_of_a_passed_socket_stays() -> None:
    """One for packets is refused, and left alone."""
    async with nothing_left_open(), listening(Fd(bound().detach())) as (listener,):
        assert listener.name == "unix:socket"
        check_reachable(listener)
    PATH.unlink()
    with bound(socket.SOCK_SEQPACKET) as sock:
        assert "must be a stream socket that listens" in await listen_error(Fd(sock.fileno()))
        assert sock.getsockname() == "socket"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has abstract sockets")
async def test_the_name_of_a_passed_abstract_socket_is_printable() -> None:
    """It has an @ where the address has NUL (unix(7))."""
    name = f"greeter-test-{os.getpid()}"
    with bound(path=f"\0{name}") as sock:
        listener = adopt(sock, shared=True)
        assert listener.name == f"unix:@{name}"
        listener.close()


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o777])
async def test_the_mode_of_the_file(mode: int) -> None:
    """It has it from the beginning; umask is as before."""
    umask = os.umask(0o077)
    try:
        (listener,) = await open_listeners([HERE], unix_mode=mode)
        assert stat.S_IMODE(PATH.stat().st_mode) == mode
        listener.close()
    finally:
        assert os.umask(umask) == 0o077


async def test_a_folder_that_cannot_be_read_has_no_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket can be made there, all the same."""

    def refuse(path: object, *_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(os, "open", refuse)
    async with listening(HERE) as (listener,):
        check_reachable(listener)


async def test_advice_is_about_files(monkeypatch: pytest.MonkeyPatch) -> None:
    why = "No such file or directory (the folder must exist)"
    assert await listen_error(Unix("no/socket")) == f"cannot listen on unix:no/socket: {why}"

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    why = "Permission denied (this user must be allowed to make files in the folder)"
    assert await listen_error(HERE) == f"cannot listen on unix:socket: {why}"
    if sys.platform == "linux":
        assert await listen_error(Unix("@a")) == f"cannot listen on unix:@a: {why}"
