# ruff: noqa: ASYNC240 - a look at a folder of its own keeps no test waiting

"""Where the server listens (`_listen.py`), over real sockets; names of hosts are resolved by a fake."""

import contextlib
import errno
import os
import re
import select
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from greeter_trio._net.listeners import (
    Endpoint,
    Fd,
    Listener,
    ListenError,
    Tcp,
    Unix,
    adopt,
    open_listeners,
    parse_endpoint,
    write_port_file,
)

from .helpers import PATIENCE, nothing_left_open, open_descriptors

UNKNOWN_FAMILY = 250  # more than any system has
NOT_HERE = "192.0.2.1"  # for documentation only (RFC 5737), so no machine has it


def has_ipv6() -> bool:
    """Return whether ::1 can be listened on."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")


@attrs.frozen
class Resolver(trio.abc.HostnameResolver):
    """Knows one answer for all names: some addresses, or an error."""

    answer: Sequence[tuple[int, str]] | Exception

    async def getaddrinfo(self, _: object, port: object, *__: object) -> Any:  # noqa: ANN401 - as its base class has it
        """Return the addresses as the system's resolver does."""
        await trio.lowlevel.checkpoint()
        if isinstance(self.answer, Exception):
            raise self.answer
        return [
            (family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (where, port))
            for family, where in self.answer
        ]

    async def getnameinfo(self, sockaddr: object, flags: int) -> tuple[str, str]:
        """Return nothing; nobody asks."""
        raise NotImplementedError


def resolve(*hosts: str | tuple[int, str]) -> None:
    """Have all names mean these addresses, IPv4 unless said otherwise, until the end of the test."""
    answer = [(socket.AF_INET, host) if isinstance(host, str) else host for host in hosts]
    trio.socket.set_custom_hostname_resolver(Resolver(answer))


@contextlib.asynccontextmanager
async def listening(
    *endpoints: Endpoint, reuse_port: bool = False
) -> AsyncIterator[list[Listener]]:
    """Listen until the end of the block."""
    listeners = await open_listeners(endpoints, reuse_port=reuse_port)
    try:
        yield listeners
    finally:
        for listener in listeners:
            listener.close()


async def refusal(*endpoints: Endpoint, reuse_port: bool = False) -> str:
    """Fail to listen, and leave nothing open; return the message."""
    async with nothing_left_open():
        with pytest.raises(ListenError) as caught:
            await open_listeners(endpoints, reuse_port=reuse_port)
    return str(caught.value)


def port_of(listener: Listener) -> int:
    """Return the TCP port that it listens on."""
    port: int = listener.socket.getsockname()[1]
    return port


def connect(listener: Listener) -> socket.socket:
    """Connect to it; the kernel accepts on its behalf."""
    client = socket.socket(listener.socket.family)
    client.connect(listener.socket.getsockname())
    return client


def check_reachable(listener: Listener) -> None:
    """Check that whoever connects to where it listens can be accepted from it."""
    with connect(listener) as client:
        accepted, _ = listener.socket.accept()
        with accepted:
            client.sendall(b"Ada")
            assert accepted.recv(10) == b"Ada"


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return an empty folder with a short path: the one that pytest has may be too long for a Unix socket."""
    with tempfile.TemporaryDirectory(prefix="greeter-") as path:
        yield Path(path)


@pytest.fixture
def path(folder: Path) -> str:
    """Return a path for a Unix socket."""
    if not hasattr(socket, "AF_UNIX"):
        pytest.skip("there are no Unix sockets")
    return str(folder / "socket")


def unix_socket(path: str, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
    """Return a socket that somebody else has bound to a path, and listens on, if that can be."""
    assert hasattr(socket, "AF_UNIX")
    sock = socket.socket(socket.AF_UNIX, kind)
    sock.bind(path)
    if kind != socket.SOCK_DGRAM:
        sock.listen()
    return sock


# What is written


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("127.0.0.1:6000", Tcp("127.0.0.1", 6000)),
        ("0.0.0.0:0", Tcp("0.0.0.0", 0)),
        ("localhost:65535", Tcp("localhost", 65535)),
        ("[::1]:6000", Tcp("::1", 6000)),
        ("[::]:0", Tcp("::", 0)),
        ("[fe80::1%eth0]:6000", Tcp("fe80::1%eth0", 6000)),
        ("unix:/run/greeter.sock", Unix("/run/greeter.sock")),
        ("unix:greeter:1", Unix("greeter:1")),
        ("unix:" + 107 * "x", Unix(107 * "x")),
        ("fd:3", Fd(3)),
        ("fd:0", Fd(0)),
    ],
)
def test_endpoints(text: str, endpoint: Endpoint) -> None:
    """An endpoint is understood, and is shown as it was written."""
    assert parse_endpoint(text) == endpoint
    assert str(endpoint) == text


@pytest.mark.parametrize(
    "text", ["", "6000", "localhost", "::1:6000", "[::1]", "[::1:6000", "::1]:6000", "a[::1]:6000"]
)
def test_neither_this_nor_that(text: str) -> None:
    """What has the form of no endpoint is refused with a list of the forms."""
    with pytest.raises(
        ValueError,
        match=re.escape(f"must be HOST:PORT, [IPV6]:PORT, unix:PATH or fd:N, not {text!r}"),
    ):
        parse_endpoint(text)


@pytest.mark.parametrize(
    "port", ["", "http", "65536", "-1", "+1", " 1", "1 ", "1_0", "\u0661", "000001", "99999999999"]
)
def test_ports_that_are_none(port: str) -> None:
    """A port is refused that is no number in decimal digits from 0 to 65535."""
    for host in ("localhost", "[::1]"):
        with pytest.raises(
            ValueError, match=re.escape(f"from 0 (any that is free) to 65535, not {port!r}")
        ):
            parse_endpoint(f"{host}:{port}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            ":6000",
            "the host must not be '': for all addresses of this machine, write 0.0.0.0 (IPv4) or [::] (IPv6)",
        ),
        (
            "*:6000",
            "the host must not be '*': for all addresses of this machine, write 0.0.0.0 (IPv4) or [::] (IPv6)",
        ),
        ("[127.0.0.1]:6000", "what stands in brackets must be an IPv6 address, not '127.0.0.1'"),
        ("[localhost]:6000", "what stands in brackets must be an IPv6 address, not 'localhost'"),
        ("[]:6000", "what stands in brackets must be an IPv6 address, not ''"),
        ("unix:", "the path of a Unix socket must have 1 to 107 bytes, not 0: ''"),
        ("unix:" + 108 * "x", "must have 1 to 107 bytes, not 108: 'xxx"),
        ("unix:" + 54 * "é", "must have 1 to 107 bytes, not 108: 'ééé"),
        ("fd:", "fd: must be followed by the number of a descriptor, not by ''"),
        ("fd:-1", "fd: must be followed by the number of a descriptor, not by '-1'"),
        ("fd:stdin", "fd: must be followed by the number of a descriptor, not by 'stdin'"),
        (
            "fd:9999999999",
            "fd: must be followed by the number of a descriptor, not by '9999999999'",
        ),
    ],
)
def test_endpoints_that_are_none(text: str, message: str) -> None:
    """Whoever wrote what cannot be meant is told what was wrong, and what is right."""
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_endpoint(text)


# TCP


async def test_a_tcp_listener() -> None:
    """A TCP listener can be connected to, has its address for a name, never blocks, and is not for child processes."""
    async with nothing_left_open(), listening(Tcp("127.0.0.1", 0)) as (listener,):
        assert listener.name == f"127.0.0.1:{port_of(listener)}"
        assert port_of(listener) != 0
        assert not listener.foreign
        assert not listener.socket.get_inheritable()
        with pytest.raises(BlockingIOError):
            listener.socket.accept()
        check_reachable(listener)
        with connect(listener):
            await (await listener.trio.accept()).aclose()


@needs_ipv6
async def test_an_ipv6_listener() -> None:
    """An IPv6 listener has brackets in its name."""
    async with nothing_left_open(), listening(Tcp("::1", 0)) as (listener,):
        assert listener.name == f"[::1]:{port_of(listener)}"
        check_reachable(listener)


@needs_ipv6
async def test_all_addresses_of_the_machine() -> None:
    """Without a host there is a listener for IPv4 and another for IPv6, on one port."""
    async with nothing_left_open(), listening(Tcp(None, 0)) as listeners:
        port = port_of(listeners[0])
        assert {listener.name for listener in listeners} == {f"0.0.0.0:{port}", f"[::]:{port}"}
    assert str(Tcp(None, 6000)) == "*:6000"


async def test_all_addresses_of_a_name() -> None:
    """A name is listened on at each of its addresses, once, and all have one port, which the system chose."""
    resolve("127.0.0.1", "127.0.0.2", "127.0.0.1")
    async with nothing_left_open(), listening(Tcp("both", 0)) as listeners:
        port = port_of(listeners[0])
        assert [listener.name for listener in listeners] == [
            f"127.0.0.1:{port}",
            f"127.0.0.2:{port}",
        ]
        for listener in listeners:
            check_reachable(listener)


async def test_several_endpoints() -> None:
    """Listeners come in the order of their endpoints, and an endpoint that is given twice counts once."""
    endpoints = [Tcp("127.0.0.2", 0), Tcp("127.0.0.1", 0), Tcp("127.0.0.2", 0)]
    async with nothing_left_open(), listening(*endpoints) as listeners:
        assert [listener.name.partition(":")[0] for listener in listeners] == [
            "127.0.0.2",
            "127.0.0.1",
        ]


async def test_the_backlog_is_as_large_as_can_be() -> None:
    """As many connections can wait as the system allows."""
    if sys.platform != "linux":
        pytest.skip("only Linux tells")
    somaxconn = Path("/proc/sys/net/core/somaxconn")
    async with listening(Tcp("127.0.0.1", 0)) as (listener,):
        info = listener.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
    assert struct.unpack_from("I", info, 28) == (
        min(int(somaxconn.read_text()), 65535),
    )  # tcpi_sacked, if it listens


async def test_a_server_that_starts_again_finds_its_port_free() -> None:
    """Connections that the server has closed, and that linger in the kernel (TIME_WAIT), do not keep it out."""
    async with listening(Tcp("127.0.0.1", 0)) as (listener,):
        endpoint = Tcp("127.0.0.1", port_of(listener))
        with connect(listener) as client:
            listener.socket.accept()[0].close()
            assert client.recv(1) == b""
    async with listening(endpoint) as (listener,):
        check_reachable(listener)


async def test_a_port_of_our_own_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """SO_REUSEADDR would let any process take it; SO_KEEPALIVE stands in for the right option."""
    monkeypatch.setattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_KEEPALIVE, raising=False)
    async with listening(Tcp("127.0.0.1", 0)) as (listener,):
        assert listener.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert not listener.socket.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)


async def test_a_port_that_is_taken() -> None:
    """A port that somebody listens on is an error, which says where it is, and what to do."""
    async with listening(Tcp("127.0.0.1", 0)) as (listener,):
        message = await refusal(Tcp("127.0.0.1", port_of(listener)))
    assert message.startswith(
        f"cannot listen on {listener.name}: Address already in use (choose another port;"
    )


async def test_a_port_that_is_taken_at_one_address_of_several() -> None:
    """A port that is not free at all addresses of a name is an error."""
    resolve("127.0.0.1", "127.0.0.2")
    async with listening(Tcp("127.0.0.2", 0)) as (listener,):
        assert "Address already in use" in await refusal(Tcp("both", port_of(listener)))


async def test_a_free_port_that_is_taken_at_the_next_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If the port that was chosen for the first address is taken at the second one, another one is chosen for both."""
    bind = socket.socket.bind
    thieves: list[socket.socket] = []

    def bind_slowly(sock: socket.socket, where: tuple[str, int]) -> None:
        bind(sock, where)
        if where[1] == 0 and len(thieves) < 3:
            thieves.append(thief := socket.socket())
            bind(thief, ("127.0.0.2", sock.getsockname()[1]))
            thief.listen()

    resolve("127.0.0.1", "127.0.0.2")
    monkeypatch.setattr(socket.socket, "bind", bind_slowly)
    async with listening(Tcp("both", 0)) as listeners:
        ports = {port_of(listener) for listener in listeners}
        assert len(ports) == 1
        assert not ports & {thief.getsockname()[1] for thief in thieves}
        assert len(thieves) == 3
    for thief in thieves:
        thief.close()


async def test_no_port_is_free_at_all_addresses() -> None:
    """Where no port can be free at all addresses, the search comes to an end, with an error."""
    resolve("127.0.0.1", "0.0.0.0")  # the one includes the other
    assert "cannot listen on both:0: Address already in use" in await refusal(Tcp("both", 0))


absent = pytest.mark.parametrize("address", [(UNKNOWN_FAMILY, "there"), (socket.AF_INET, NOT_HERE)])


@absent
@pytest.mark.parametrize("first", [True, False])
async def test_addresses_that_the_machine_does_not_have(
    address: tuple[int, str], *, first: bool
) -> None:
    """Of the addresses of a name those are left out that this machine does not have; IPv6 may be off."""
    here = (socket.AF_INET, "127.0.0.1")
    resolve(*((address, here) if first else (here, address)))
    async with nothing_left_open(), listening(Tcp("here-and-there", 0)) as (listener,):
        assert listener.name == f"127.0.0.1:{port_of(listener)}"


@absent
async def test_no_address_of_this_machine(address: tuple[int, str]) -> None:
    """A name without any address that this machine has is an error."""
    resolve(address, address)
    assert (await refusal(Tcp("there", 0))).startswith("cannot listen on there:0: ")


async def test_an_address_of_another_machine() -> None:
    """An address that this machine does not have is an error."""
    message = await refusal(Tcp(NOT_HERE, 6000))
    assert message == (
        "cannot listen on 192.0.2.1:6000: Cannot assign requested address (this machine has no such address)"
    )


@pytest.mark.parametrize(
    ("host", "error"),
    [("nowhere", socket.gaierror(socket.EAI_NONAME, "Name unknown")), ("x" * 64, None)],
)
async def test_a_name_that_means_nothing(host: str, error: Exception | None) -> None:
    """A host whose name is unknown, or that could be no name at all, is an error."""
    trio.socket.set_custom_hostname_resolver(Resolver(error or AssertionError()))
    message = await refusal(Tcp(host, 6000))
    assert message.startswith(f"cannot listen on {host}:6000: ")
    assert "Name unknown" in message or not error
    assert message.endswith("(check the name of the host)")


async def test_a_port_is_shared_if_all_want_it() -> None:
    """With `reuse_port` two servers listen on one port, and without it, in either of them, the second one fails."""
    async with listening(Tcp("127.0.0.1", 0), reuse_port=True) as (listener,):
        endpoint = Tcp("127.0.0.1", port_of(listener))
        async with nothing_left_open(), listening(endpoint, reuse_port=True) as (second,):
            assert second.name == listener.name
        assert "--reuse-port" in await refusal(endpoint)
    async with listening(endpoint):
        assert "--reuse-port" in await refusal(endpoint, reuse_port=True)


async def test_one_failure_closes_all(path: str) -> None:
    """If one endpoint fails, those before it are closed, and the file of a Unix socket is gone."""
    message = await refusal(Tcp("127.0.0.1", 0), Unix(path), Tcp(NOT_HERE, 0))
    assert f"cannot listen on {NOT_HERE}:0" in message
    assert not os.path.lexists(path)


async def test_cancelled_while_a_name_is_resolved(path: str) -> None:
    """Who is cancelled while a name is looked up leaves nothing open, and no file."""

    class Slow(Resolver):
        async def getaddrinfo(self, *_: object) -> Any:  # noqa: ANN401 - as its base class has it
            await trio.sleep_forever()

    trio.socket.set_custom_hostname_resolver(Slow([]))
    async with nothing_left_open():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(open_listeners, (Tcp("127.0.0.1", 0), Unix(path), Tcp("slow", 0)))
            await wait_all_tasks_blocked()
            assert os.path.lexists(path)
            nursery.cancel_scope.cancel()
        assert not os.path.lexists(path)


# Closing


@pytest.mark.parametrize("accepting", [True, False])
async def test_closing_wakes_who_waits(*, accepting: bool) -> None:
    """Whoever waits for a connection is told that the listener was closed, and closing again does nothing."""
    (listener,) = await open_listeners([Tcp("127.0.0.1", 0)])
    wait: Callable[[], Awaitable[object]] = partial(trio.lowlevel.wait_readable, listener.socket)
    if accepting:
        wait = listener.trio.accept
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await wait()

        await wait_all_tasks_blocked()
        listener.close()
        listener.close()
    assert listener.socket.fileno() == -1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has filters for sockets")
@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=needs_ipv6)])
async def test_nobody_gets_in_when_the_entrance_is_closed(host: str) -> None:
    """Who has connected before can still be accepted; who comes later is neither connected nor refused yet."""
    async with nothing_left_open(), listening(Tcp(host, 0)) as (listener,):
        with connect(listener) as early, socket.socket(listener.socket.family) as late:
            early.send(b"Ada\n")
            listener.close_entrance()
            late.settimeout(0)
            assert late.connect_ex(listener.socket.getsockname()) == errno.EINPROGRESS
            accepted, peer = listener.socket.accept()
            with accepted:
                assert peer == early.getsockname()
                assert accepted.recv(10) == b"Ada\n"
                early.send(b"Grace\n")  # the filter is for the listener alone
                assert accepted.recv(10) == b"Grace\n"
            with pytest.raises(BlockingIOError):
                listener.socket.accept()
            assert select.select([], [late], [late], 0) == ([], [], [])


async def test_a_unix_socket_is_not_found_when_the_entrance_is_closed(path: str) -> None:
    """The file goes first; who has connected before can still be accepted."""
    async with nothing_left_open(), listening(Unix(path)) as (listener,):
        with connect(listener):
            listener.close_entrance()
            assert not os.path.lexists(path)
            listener.socket.accept()[0].close()


async def test_the_entrance_of_a_socket_that_was_passed_stays_open() -> None:
    """What others hold open, too, is open to everybody after us."""
    with socket.create_server(("127.0.0.1", 0)) as theirs:
        async with listening(Fd(os.dup(theirs.fileno()))) as (listener,):
            listener.close_entrance()
        socket.create_connection(theirs.getsockname()).close()


# Unix sockets


async def test_a_unix_listener(path: str) -> None:
    """A Unix listener can be connected to, has its path for a name, never blocks, and takes its file away with it."""
    async with nothing_left_open(), listening(Unix(path)) as (listener,):
        assert listener.name == f"unix:{path}"
        assert not listener.foreign
        assert not listener.socket.get_inheritable()
        with pytest.raises(BlockingIOError):
            listener.socket.accept()
        check_reachable(listener)
    assert not os.path.lexists(path)


async def test_a_relative_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path without a folder is one in the current folder."""
    monkeypatch.chdir(folder)
    async with listening(Unix("greeter")) as (listener,):
        assert stat.S_ISSOCK((folder / "greeter").lstat().st_mode)
        assert listener.name == "unix:greeter"
    assert not list(folder.iterdir())


async def test_a_stale_socket_is_replaced(path: str) -> None:
    """The file of a server that was killed is in nobody's way."""
    unix_socket(path).close()
    async with nothing_left_open(), listening(Unix(path)) as (listener,):
        check_reachable(listener)


async def test_the_file_of_another_server_is_not_removed(path: str) -> None:
    """If somebody else has put a socket, or anything, where ours was, it is left alone."""
    assert hasattr(socket, "AF_UNIX")
    async with listening(Unix(path)):
        Path(path).unlink()
        other = unix_socket(path)
    with other, socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
    async with listening(Unix(path)) as (listener,):
        Path(path).unlink()
        Path(path).write_text("mine")
        listener.close()
        assert Path(path).read_text() == "mine"
        Path(path).unlink()
        unix_socket(path).close()
    assert os.path.lexists(path)  # closing a second time does not remove it, either


async def test_a_folder_that_is_gone(folder: Path) -> None:
    """Closing closes the socket even when its file and folder are gone."""
    below = folder / "below"
    below.mkdir()
    async with nothing_left_open(), listening(Unix(str(below / "socket"))):
        (below / "socket").unlink()
        below.rmdir()


async def test_somebody_is_listening_there(path: str) -> None:
    """A path where a server listens is an error, and that server goes on."""
    async with listening(Unix(path)) as (listener,):
        message = await refusal(Unix(path))
        assert message == (
            f"cannot listen on unix:{path}: someone is listening there: choose another path, or end that program"
        )
        listener.socket.accept()[0].close()  # it has been asked
        check_reachable(listener)


async def test_somebody_busy_is_listening_there(path: str) -> None:
    """A server that has no place for another connection in its backlog is one, all the same."""
    assert hasattr(socket, "AF_UNIX")
    with unix_socket(path) as busy, contextlib.ExitStack() as clients:
        busy.listen(0)
        code = 0
        while code != errno.EAGAIN:
            client = clients.enter_context(socket.socket(socket.AF_UNIX))
            client.settimeout(0)
            code = client.connect_ex(path)
        assert "someone is listening there" in await refusal(Unix(path))


async def test_somebody_receives_datagrams_there(path: str) -> None:
    """A socket of another kind that is in use is not replaced, either."""
    with unix_socket(path, socket.SOCK_DGRAM):
        assert "someone is listening there" in await refusal(Unix(path))
        assert os.path.lexists(path)


@pytest.mark.parametrize(
    "make",
    [Path.touch, Path.mkdir, getattr(os, "mkfifo", None), partial(os.symlink, "nowhere")],
)
async def test_what_is_no_socket_is_left_alone(path: str, make: Callable[[Path], object]) -> None:
    """A file, a folder, a link or a pipe is an error, and stays."""
    make(Path(path))
    before = os.lstat(path)
    message = await refusal(Unix(path))
    assert message == (
        f"cannot listen on unix:{path}: there is something that is no socket: remove it, or choose another path"
    )
    assert os.path.samestat(before, os.lstat(path))


async def test_a_link_to_a_stale_socket_is_left_alone(folder: Path, path: str) -> None:
    """A link is not followed."""
    unix_socket(str(folder / "stale")).close()
    Path(path).symlink_to("stale")
    assert "is no socket" in await refusal(Unix(path))
    assert (folder / "stale").exists()


async def test_a_folder_that_does_not_exist(path: str) -> None:
    """A path in no folder is an error that says so."""
    assert "No such file or directory (the folder must exist)" in await refusal(
        Unix(path + "/below/socket")
    )


async def test_a_path_that_is_too_long(folder: Path) -> None:
    """A path that no socket can have is an error, also for who did not ask `parse_endpoint`."""
    assert "path too long" in await refusal(Unix(str(folder / ("x" * 108))))
    assert not list(folder.iterdir())


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may do anything")
async def test_a_folder_of_somebody_else(path: str, folder: Path) -> None:
    """A folder that cannot be written to is an error that says so."""
    folder.chmod(0o500)
    assert (
        "Permission denied (ports below 1024, and folders of others, need privileges)"
        in await refusal(Unix(path))
    )
    folder.chmod(0o700)


async def test_a_system_that_cannot_listen(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a socket is bound and cannot listen, its file does not stay behind, nor anything open."""

    def listen(sock: socket.socket, backlog: int) -> None:
        raise OSError(errno.ENOBUFS, f"No space for {backlog} in {sock.fileno()}")

    monkeypatch.setattr(socket.socket, "listen", listen)
    assert "No space for" in await refusal(Unix(path))
    assert not os.path.lexists(path)
    assert "No space for" in await refusal(Tcp("127.0.0.1", 0))


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[Callable[[], None]]:
    """Hold the lock that a server holds while it starts; yields what lets go of it."""
    fcntl = pytest.importorskip("fcntl")
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        yield lambda: fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


async def test_servers_start_one_after_the_other(
    folder: Path, path: str, autojump_clock: MockClock
) -> None:
    """While another server is starting in the same folder nothing is touched, and then it is this one's turn."""
    stale = unix_socket(path)
    stale.close()
    before = os.lstat(path)
    listeners: list[Listener] = []
    async with nothing_left_open():
        with locked(folder) as unlock:
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def _() -> None:
                    listeners.extend(await open_listeners([Unix(path)]))

                await trio.sleep(1)
                assert not listeners
                assert os.path.samestat(before, os.lstat(path))
                unlock()
        check_reachable(listeners[0])
        listeners[0].close()
    assert autojump_clock.current_time() < 2


async def test_a_folder_that_is_locked_for_ever(
    folder: Path, path: str, autojump_clock: MockClock
) -> None:
    """A program that never lets go of the lock on a folder keeps no server from it for longer than 5 seconds."""
    with locked(folder):
        async with listening(Unix(path)) as (listener,):
            check_reachable(listener)
    assert autojump_clock.current_time() == pytest.approx(5)


async def test_cancelled_while_it_waits_for_the_lock(folder: Path, path: str) -> None:
    """Who is cancelled while it waits for another server leaves nothing open, and no file."""
    async with nothing_left_open():
        with locked(folder):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(open_listeners, [Unix(path)])
                await wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
    assert not os.path.lexists(path)


async def test_the_lock_is_held_until_the_socket_listens(
    folder: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket that is bound and does not listen yet looks stale, and so nobody else may start just then."""
    listen, checked = socket.socket.listen, []

    def check_and_listen(sock: socket.socket, backlog: int) -> None:
        with pytest.raises(BlockingIOError), locked(folder):
            pass
        checked.append(path)
        listen(sock, backlog)

    monkeypatch.setattr(socket.socket, "listen", check_and_listen)
    async with listening(Unix(path)):
        assert checked
        with locked(folder):  # it is not held any longer
            pass


def test_two_servers_at_once(folder: Path) -> None:
    """Of two servers that start at the same moment, where a third was killed, one listens, and the other is told so."""
    rounds = 100
    barrier = threading.Barrier(2)
    won: list[list[int]] = [[] for _ in range(rounds)]
    told: list[list[str]] = [[] for _ in range(rounds)]
    for number in range(rounds):
        unix_socket(str(folder / str(number))).close()

    async def start(me: int) -> None:
        for number in range(rounds):
            barrier.wait(PATIENCE)
            try:
                (listener,) = await open_listeners([Unix(str(folder / str(number)))])
            except ListenError as exc:
                told[number].append(str(exc))
                listener = None
            else:
                won[number].append(me)
            barrier.wait(PATIENCE)
            if listener:
                check_reachable_past_probes(listener)
                listener.close()

    threads = [threading.Thread(target=trio.run, args=(start, me), daemon=True) for me in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert [len(each) for each in won] == [1] * rounds
    assert all(len(each) == 1 and "someone is listening there" in each[0] for each in told)
    assert not list(folder.iterdir())


def check_reachable_past_probes(listener: Listener) -> None:
    """Check that a listener can be connected to at its path, whoever has asked before whether it is there."""
    with connect(listener) as client:
        client.sendall(b"Ada")
        while True:
            accepted, _ = listener.socket.accept()
            with accepted:
                if accepted.recv(10) == b"Ada":
                    return


async def test_a_server_that_was_killed(path: str) -> None:
    """After SIGKILL the file of the socket is still there, and the next server listens at once."""
    script = f"""
import signal, trio
from greeter_trio._net.listeners import Unix, open_listeners
async def main():
    listeners = await open_listeners([Unix({path!r})])
    print("listening", flush=True)
    signal.pause()
trio.run(main)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)  # noqa: ASYNC220 - it is short
    with process:
        assert process.stdout
        assert process.stdout.readline() == b"listening\n"
        assert "someone is listening there" in await refusal(Unix(path))
        process.kill()
    assert os.path.lexists(path)
    async with listening(Unix(path)) as (listener,):
        check_reachable(listener)


# Descriptors


async def test_a_descriptor() -> None:
    """A socket that somebody else has opened is listened on, without blocking, and is not for child processes."""
    if sys.platform == "win32":
        pytest.skip("there are no descriptors of sockets")
    async with nothing_left_open():
        number = socket.create_server(("127.0.0.1", 0)).detach()
        os.set_inheritable(number, True)  # noqa: FBT003 - it has no name
        os.set_blocking(number, True)
        async with listening(Fd(number), Fd(number)) as (listener,):
            assert listener.socket.fileno() == number
            assert listener.name == f"127.0.0.1:{port_of(listener)}"
            assert listener.foreign
            assert not listener.kept
            assert not os.get_inheritable(number)
            assert not os.get_blocking(number)
            check_reachable(listener)


async def test_the_file_of_a_socket_that_was_passed_stays(path: str) -> None:
    """The file of a Unix socket that somebody else has opened is not ours to remove."""
    async with nothing_left_open(), listening(Fd(unix_socket(path).detach())) as (listener,):
        assert listener.name == f"unix:{path}"
        check_reachable(listener)
    assert os.path.lexists(path)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has abstract sockets")
async def test_an_abstract_socket_that_was_passed_has_a_printable_name() -> None:
    """An abstract socket has an @ in its name where its address has NUL."""
    name = f"greeter-test-{os.getpid()}"
    with unix_socket(f"\0{name}") as sock:
        listener = adopt(sock, foreign=True)
        assert listener.name == f"unix:@{name}"
        listener.close()


def test_adopted_on_our_own_behalf() -> None:
    """Who adopts a socket may say that nobody else has it."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        assert not adopt(sock).foreign


def test_adopted_on_macos(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where SO_ACCEPTCONN is unknown a socket is taken to listen. Any other error is raised."""

    def getsockopt(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    with socket.create_server(("127.0.0.1", 0)) as sock:
        monkeypatch.setattr(socket.socket, "getsockopt", getsockopt)
        number = errno.ENOPROTOOPT
        assert adopt(sock).name == f"127.0.0.1:{sock.getsockname()[1]}"
        number = errno.EBADF
        with pytest.raises(OSError, match=os.strerror(number)):
            adopt(sock)


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS does not tell whether a socket listens")
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
async def test_sockets_that_do_not_listen(kind: socket.SocketKind) -> None:
    """A descriptor of a socket that does not listen is an error, and it is left alone."""
    with socket.socket(type=kind) as sock:
        sock.bind(("127.0.0.1", 0))
        message = await refusal(Tcp("127.0.0.1", 0), Fd(sock.fileno()))
        assert message.startswith(
            f"cannot listen on fd:{sock.fileno()}: descriptor {sock.fileno()} must be a stream"
        )
        assert sock.getsockname()[0] == "127.0.0.1"  # it is still there


async def test_sequences_of_packets_are_no_stream(path: str) -> None:
    """A socket that listens, but for packets, is an error, and it is left alone."""
    with unix_socket(path, socket.SOCK_SEQPACKET) as sock:
        assert "must be a stream socket that listens" in await refusal(Fd(sock.fileno()))
        assert sock.getsockname() == path


async def test_descriptors_that_are_something_else() -> None:
    """A descriptor that is no socket, or is not open, is an error that says so, and it is left alone."""
    number = os.open("/dev/null", os.O_RDONLY)
    assert await refusal(Fd(number)) == (
        f"cannot listen on fd:{number}: Socket operation on non-socket (the descriptor must be a socket)"
    )
    os.close(number)  # it was still open; now it is not
    assert await refusal(Fd(number)) == (
        f"cannot listen on fd:{number}: Bad file descriptor (whoever starts the server must pass the descriptor)"
    )


# The port file


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0, 0o666)])
async def test_the_port_file(path: str, folder: Path, umask: int, mode: int) -> None:
    """The file has each TCP port once, one a line, and the mode that umask wants; Unix sockets have none."""
    resolve("127.0.0.1", "127.0.0.2")
    target = folder / "port"
    old = os.umask(umask)
    async with listening(Tcp("both", 0), Unix(path), Tcp("127.0.0.1", 0)) as listeners:
        write_port_file(target, listeners)
        assert target.read_bytes().decode() == f"{port_of(listeners[0])}\n{port_of(listeners[3])}\n"
        os.umask(old)
    assert stat.S_IMODE(target.stat().st_mode) == mode
    assert list(folder.iterdir()) == [target]


async def test_the_port_file_is_replaced_at_once(folder: Path) -> None:
    """Whoever has opened the file of the server before reads what that one wrote, and nothing by halves."""
    target = folder / "port"
    target.write_text("the old one\n")
    async with listening(Tcp("127.0.0.1", 0)) as listeners:
        with target.open() as opened_before:
            write_port_file(str(target), listeners)
            assert opened_before.read() == "the old one\n"
        assert target.read_text() == f"{port_of(listeners[0])}\n"


@pytest.mark.parametrize("name", ["", "folder", "folder/below/port"])
async def test_a_port_file_that_cannot_be_written(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no file can be written, that is an error, and nothing is left behind."""
    monkeypatch.chdir(folder)
    (folder / "folder").mkdir()
    before = open_descriptors()
    with pytest.raises(ListenError, match=f"cannot write the port file {name or '.'}: "):
        write_port_file(name, [])
    assert open_descriptors() == before
    assert list(folder.rglob("*")) == [folder / "folder"]
