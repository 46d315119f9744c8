"""Listening on TCP addresses and passed descriptors; host names are resolved by a fake."""

import errno
import os
import re
import select
import socket
import struct
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from greeter_trio._net import unix_sockets
from greeter_trio._net.endpoints import UNAVAILABLE, Endpoint, Fd, Tcp, Unix
from greeter_trio._net.listeners import ListenError, adopt, adopt_listeners, open_listeners
from tests.support.clocks import PATIENCE, cancel_when_blocked
from tests.support.descriptors import nothing_left_open
from tests.support.listening import (
    Address,
    check_reachable,
    dial,
    hold_handshakes,
    listen_error,
    listening,
    needs_ipv6,
    resolve,
)
from tests.support.peers import tcp_port

NOT_HERE = "192.0.2.1"  # for documentation only (RFC 5737), so no machine has it
ANY = Tcp("127.0.0.1", 0)
IN_USE = "Address already in use (choose another port; one is shared only if every server sets "

hosts = pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=needs_ipv6)])
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has this")


@pytest.mark.parametrize(
    "endpoint", [ANY, pytest.param(Tcp("::1", 0), marks=needs_ipv6), Unix("socket")]
)
async def test_a_listener(
    endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It never blocks, and is not inherited by child processes."""
    monkeypatch.chdir(tmp_path)
    async with nothing_left_open(), listening(endpoint) as (listener,):
        assert re.sub(":[1-9][0-9]*$", ":0", listener.name) == str(endpoint)
        assert (listener.shared, listener.kept, listener.socket.get_inheritable()) == (False,) * 3
        assert listener.socket.gettimeout() == 0
        check_reachable(listener)
        with dial(listener):
            await (await listener.trio.accept()).aclose()


async def test_endpoints_that_the_platform_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unix_sockets, "_fcntl", None)
    for kind, endpoint in (("unix", Unix("a")), ("fd", Fd(0))):
        monkeypatch.setitem(UNAVAILABLE, kind, "not here")
        assert await listen_error(endpoint) == f"cannot listen on {endpoint}: not here"


@needs_ipv6
async def test_without_a_host_all_interfaces_listen_on_one_port() -> None:
    async with nothing_left_open(), listening(Tcp(None, 0)) as listeners:
        port = tcp_port(listeners[0])
        assert {listener.name for listener in listeners} == {f"0.0.0.0:{port}", f"[::]:{port}"}


async def test_several_endpoints_and_addresses() -> None:
    """All addresses of a name have one port, which is free at each; endpoints count once."""
    resolve("127.0.0.1", "127.0.0.2", "127.0.0.1")
    name = Tcp("name", 0)
    async with nothing_left_open(), listening(name, ANY, name) as listeners:
        port, _, other = map(tcp_port, listeners)
        hosts = [listener.name for listener in listeners]
        assert hosts == [f"127.0.0.1:{port}", f"127.0.0.2:{port}", f"127.0.0.1:{other}"]
        for listener in listeners:
            check_reachable(listener)


@on_linux
async def test_the_backlog_is_as_large_as_the_system_allows() -> None:
    most = min(int(Path("/proc/sys/net/core/somaxconn").read_text()), 65535)
    tcp_info: int = getattr(socket, "TCP_INFO")  # noqa: B009 - for type checkers elsewhere
    async with listening(ANY) as (listener,):
        info = listener.socket.getsockopt(socket.IPPROTO_TCP, tcp_info, 32)
    assert struct.unpack_from("I", info, 28) == (most,)  # tcpi_sacked, of a socket that listens


async def test_connections_in_time_wait_do_not_keep_a_server_from_its_port() -> None:
    async with listening(ANY) as (listener,):
        endpoint = Tcp("127.0.0.1", tcp_port(listener))
        with dial(listener) as client:
            listener.socket.accept()[0].close()
            assert client.recv(1) == b""
    async with listening(endpoint) as (listener,):
        check_reachable(listener)


async def test_windows_gets_a_port_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """SO_REUSEADDR would let any process take it; SO_KEEPALIVE stands in for the right option."""
    monkeypatch.setattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_KEEPALIVE, raising=False)
    monkeypatch.delattr(socket, "SO_REUSEPORT", raising=False)
    async with listening(ANY) as (listener,):
        assert listener.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert not listener.socket.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
    message = await listen_error(ANY, reuse_port=True)
    assert message == f"cannot listen on {ANY}: servers cannot share a port on this platform"


async def test_a_port_is_shared_if_all_servers_say_so() -> None:
    async with listening(ANY, reuse_port=True) as (listener,):
        endpoint = Tcp("127.0.0.1", tcp_port(listener))
        async with nothing_left_open(), listening(endpoint, reuse_port=True) as (second,):
            assert second.name == listener.name
        assert IN_USE in await listen_error(endpoint)
    async with listening(endpoint):
        message = await listen_error(endpoint, reuse_port=True)
        assert message.startswith(f"cannot listen on {endpoint}: {IN_USE}")


async def test_a_free_port_is_free_at_all_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the port of the first address is taken at the second, both try another one."""
    bind = socket.socket.bind
    rivals: list[socket.socket] = []

    def bind_slowly(sock: socket.socket, where: tuple[str, int]) -> None:
        bind(sock, where)
        if where[1] == 0 and len(rivals) < 3:
            rivals.append(rival := socket.socket())
            bind(rival, ("127.0.0.2", sock.getsockname()[1]))
            rival.listen()

    resolve("127.0.0.1", "127.0.0.2")
    monkeypatch.setattr(socket.socket, "bind", bind_slowly)
    async with listening(Tcp("both", 0)) as listeners:
        ports = {tcp_port(listener) for listener in listeners}
        assert len(ports) == 1
        assert not ports & {rival.getsockname()[1] for rival in rivals}
        assert len(rivals) == 3
    for rival in rivals:
        rival.close()


async def test_a_port_that_is_taken_at_one_address_of_several() -> None:
    resolve("127.0.0.1", "127.0.0.2")
    async with listening(Tcp("127.0.0.2", 0)) as (listener,):
        assert IN_USE in await listen_error(Tcp("both", tcp_port(listener)))
    resolve("127.0.0.1", "0.0.0.0")  # no port is free at both: the search ends
    assert IN_USE in await listen_error(Tcp("both", 0))


@pytest.mark.parametrize("absent", [Address("there", family=250), Address(NOT_HERE)])
async def test_addresses_that_the_machine_does_not_have_are_left_out(absent: Address) -> None:
    """Such as IPv6 where it is off, whose stand-in is a family that no system has."""
    here = Address("127.0.0.1")
    for addresses in ([absent, here], [here, absent]):
        resolve(*addresses)
        async with nothing_left_open(), listening(Tcp("both", 0)) as (listener,):
            assert listener.name == f"127.0.0.1:{tcp_port(listener)}"
    resolve(absent, absent)
    assert (await listen_error(Tcp("there", 0))).startswith("cannot listen on there:0: ")


@pytest.mark.parametrize(
    ("endpoint", "why"),
    [
        (Tcp(NOT_HERE, 1), r"Cannot assign requested address \(this machine has no such address\)"),
        (Tcp("nowhere", 1), r"Name unknown \(check the name of the host\)"),
        (Tcp("x" * 64, 1), r".*\(check the name of the host\)"),  # IDNA has no such long labels
    ],
)
async def test_addresses_that_cannot_be_used(endpoint: Tcp, why: str) -> None:
    resolve(socket.gaierror(socket.EAI_NONAME, "Name unknown"))
    assert re.fullmatch(f"cannot listen on {endpoint}: {why}", await listen_error(endpoint))


async def test_errors_tell_programs_why_and_take_other_advice() -> None:
    with pytest.raises(ListenError) as caught:
        await open_listeners([ANY, Tcp(NOT_HERE, 0)])
    assert caught.value.errno == errno.EADDRNOTAVAIL
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.with_advice({errno.EADDRINUSE: "no"}) == str(caught.value)
    other = caught.value.with_advice({errno.EADDRNOTAVAIL: "use another one"})
    why = "Cannot assign requested address (use another one)"
    assert other == f"cannot listen on {NOT_HERE}:0: {why}"


async def test_cancelled_while_a_name_is_resolved() -> None:
    resolve()
    async with nothing_left_open():
        await cancel_when_blocked(open_listeners, (ANY, Tcp("slow", 0)))


async def test_closing_wakes_the_tasks_that_wait() -> None:
    """Closing again does nothing."""
    (listener,) = await open_listeners([ANY])

    async def check_closed(wait: Callable[[], Awaitable[object]]) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(check_closed, listener.trio.accept)
        nursery.start_soon(check_closed, partial(trio.lowlevel.wait_writable, listener.socket))
        await wait_all_tasks_blocked()
        listener.close()
        listener.close()
    assert listener.socket.fileno() == -1


@on_linux
@hosts
async def test_refusing_new_connections_keeps_the_backlog(host: str) -> None:
    """A client that comes later is neither connected nor refused yet."""
    async with nothing_left_open(), listening(Tcp(host, 0)) as (listener,):
        with dial(listener) as early, socket.socket(listener.socket.family) as late:
            early.send(b"Ada\n")
            listener.refuse_new_connections()
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


@on_linux
@hosts
async def test_handshakes_that_are_under_way(host: str) -> None:
    """They end though new connections are refused; a shared socket is not asked for its own."""
    async with nothing_left_open(), listening(Tcp(host, 0)) as (listener,):
        assert listener.handshakes() == set()
        hold_handshakes(listener.socket)
        with dial(listener) as client:
            assert listener.handshakes() == {client.getsockname()[:2]}
            assert attrs.evolve(listener, shared=True).handshakes() == set()
            listener.refuse_new_connections()
            client.send(b"Ada\n")
            assert listener.handshakes() == set()
            listener.socket.accept()[0].close()


async def test_a_unix_socket_has_no_handshakes(tmp_path: Path) -> None:
    async with listening(Unix(str(tmp_path / "socket"))) as (listener,):
        assert listener.handshakes() == set()


async def test_shared_sockets_go_on_accepting_new_connections() -> None:
    with socket.create_server(("127.0.0.1", 0)) as theirs:
        async with listening(Fd(os.dup(theirs.fileno()))) as (listener,):
            listener.refuse_new_connections()
        socket.create_connection(theirs.getsockname(), timeout=PATIENCE).close()


@pytest.mark.skipif(sys.platform == "win32", reason="there are no descriptors of sockets")
async def test_a_passed_descriptor() -> None:
    """It becomes non-blocking and close-on-exec."""
    async with nothing_left_open():
        number = socket.create_server(("127.0.0.1", 0)).detach()  # which blocks
        os.set_inheritable(number, True)  # noqa: FBT003 - it is positional only
        async with listening(Fd(number), Fd(number)) as (listener,):
            assert listener.socket.fileno() == number
            assert listener.name == f"127.0.0.1:{tcp_port(listener)}"
            assert (listener.shared, listener.kept) == (True, False)
            assert not os.get_inheritable(number)
            with pytest.raises(BlockingIOError):
                listener.socket.accept()
            check_reachable(listener)


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS does not tell whether a socket listens")
async def test_wrong_descriptors_are_left_alone() -> None:
    listen = (
        "descriptor {} must be a stream socket that listens (systemd: ListenStream= and Accept=no)"
    )
    no_socket = "Socket operation on non-socket (the descriptor must be a socket)"
    closed = "Bad file descriptor (the process that starts the server must pass the descriptor)"
    stream, datagrams = socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
    stream.bind(("127.0.0.1", 0))
    with stream, datagrams, open(os.devnull) as file:  # noqa: PTH123 - for a descriptor
        for each, why in ((stream, listen), (datagrams, listen), (file, no_socket)):
            number = each.fileno()
            message = f"cannot listen on fd:{number}: {why.format(number)}"
            assert await listen_error(ANY, Fd(number)) == message
            os.fstat(number)  # it is still open
    assert await listen_error(Fd(number)) == f"cannot listen on fd:{number}: {closed}"


def test_adopted_where_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without SO_ACCEPTCONN (macOS) a socket is taken to listen. Any other error is raised."""
    number = errno.ENOPROTOOPT

    def getsockopt(*_: object) -> int:
        raise OSError(number, "no option")

    with socket.create_server(("127.0.0.1", 0)) as sock:
        monkeypatch.setattr(socket.socket, "getsockopt", getsockopt)
        assert adopt(sock).name == f"127.0.0.1:{sock.getsockname()[1]}"
        number = errno.EBADF
        with pytest.raises(OSError, match="no option"):
            adopt(sock)


async def test_listeners_of_trio_are_adopted() -> None:
    """If one is closed already, nothing of the others stays open that was not."""
    with pytest.raises(ValueError, match=r"^listeners must be one or more"):
        adopt_listeners([])
    async with nothing_left_open():
        theirs = [(await trio.open_tcp_listeners(0, host="127.0.0.1"))[0] for _ in range(3)]
        await theirs[2].aclose()
        async with nothing_left_open():
            with pytest.raises(OSError, match="Bad file descriptor"):
                adopt_listeners(theirs)
        for listener, their in zip(adopt_listeners(theirs[:2]), theirs[:2], strict=True):
            assert (listener.trio, listener.shared, listener.kept) == (their, True, False)
            assert listener.socket.gettimeout() == 0
            check_reachable(listener)
            listener.close()
            assert their.socket.fileno() == -1
