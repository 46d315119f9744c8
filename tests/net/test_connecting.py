"""Connecting: several addresses, timeouts, Unix sockets, a PROXY header, TLS."""

import contextlib
import errno
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from greeter_trio._net import connecting
from greeter_trio._net.connecting import Connected, ConnectError, connect
from greeter_trio._net.endpoints import AF_UNIX, Tcp, Unix
from greeter_trio._net.tls_stream import HandshakeFailed
from tests.support.certificates import Authority
from tests.support.descriptors import nothing_left_open
from tests.support.listening import Address, listening, resolve
from tests.support.peers import Peer, scripted
from tests.support.plays import after, closes, hears_end, over_tls, play, resets
from tests.support.streams import Tap

HOST = "127.0.0.1"
NAME = Tcp("greet.example", 6000)


@contextlib.contextmanager
def dead_end() -> Iterator[Address]:
    """Yield an address that does not answer to connecting: its backlog is full."""
    with socket.create_server((HOST, 0), backlog=0) as listener, contextlib.ExitStack() as stack:
        where = listener.getsockname()
        clients = [stack.enter_context(socket.socket()) for _ in range(8)]  # more than have a place
        for client in clients:
            client.settimeout(0)
            client.connect_ex(where)
        if clients[-1].connect_ex(where) != errno.EALREADY:
            pytest.skip("this machine connects more than it has places for")
        yield Address(*where)


async def check_fails(endpoint: Tcp | Unix, why: str, **options: Any) -> ConnectError:
    """Check that there is no connection for this reason, and nothing is left open."""
    async with nothing_left_open():
        with pytest.raises(ConnectError) as caught:
            await connect(endpoint, timeout=5, **options)
    assert str(caught.value) == f"cannot connect to {endpoint}: {why}"
    return caught.value


async def test_a_second_address_is_tried_after_250_ms(settling_clock: MockClock) -> None:
    with dead_end() as dead:
        async with scripted(hears_end()) as port:
            resolve(dead, Address(HOST, port))
            connected = await connect(NAME, timeout=5)
            await connected.stream.aclose()
    assert connected == Connected(connected.stream, f"{HOST}:{port}", None)
    assert trio.current_time() == pytest.approx(0.25)


async def test_each_different_failure_is_named_once() -> None:
    """A host with several addresses fails once for each of them."""
    refused = "Connection refused (is the server running, and on this port?)"
    with socket.socket() as closed, socket.socket() as other:
        for each in (closed, other):
            each.bind((HOST, 0))
        resolve(Address(*closed.getsockname()), Address(*other.getsockname()))
        await check_fails(NAME, refused)
        error = await check_fails(Tcp(*closed.getsockname()), refused)
    assert isinstance(error.__cause__, ExceptionGroup)
    assert not error.no_such_name


async def test_names_that_have_no_address() -> None:
    """To try again is useless where IDNA does not allow the name."""
    resolve(socket.gaierror(socket.EAI_NONAME, "Name unknown"))
    error = await check_fails(NAME, "Name unknown (check the name of the host)")
    assert isinstance(error.__cause__, socket.gaierror)
    assert not error.no_such_name
    for host in ("a..b", "x" * 64):
        why = "this cannot be the name of a host (check the name of the host)"
        assert (await check_fails(Tcp(host, 6000), why)).no_such_name


async def test_the_timeout_includes_the_handshake(
    settling_clock: MockClock, authority: Authority
) -> None:
    async with scripted(play(after(7), closes())) as port:
        with dead_end() as dead:
            async with nothing_left_open():
                with pytest.raises(TimeoutError) as caught:
                    await connect(Tcp(HOST, dead.port or 0), timeout=5)
        where = f"{HOST}:{dead.port}"
        assert str(caught.value) == f"cannot connect to {where}: no answer within 5 s"
        assert trio.current_time() == pytest.approx(5)
        context = authority.client()
        async with nothing_left_open():
            with pytest.raises(TimeoutError, match="no answer within 5 s"):
                await connect(Tcp(HOST, port), ssl_context=context, timeout=5)
            assert trio.current_time() == pytest.approx(10)
            await trio.sleep(3)  # the server closes its end


async def test_a_timeout_that_is_noticed_late_is_given_once_more(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process was suspended, and what the server has sent meanwhile may wait in a socket."""
    times, jumps = [], [6.5, 5.5]

    async def be_suspended(_: object) -> None:
        times.append(trio.current_time())
        mock_clock.jump(jumps.pop(0))
        await trio.sleep_forever()

    monkeypatch.setattr(connecting, "_open", be_suspended)
    with pytest.raises(TimeoutError):
        await connect(NAME, timeout=5)
    assert times == [0, 6.5]


async def test_a_connection_that_breaks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the peer is not known, and a header cannot be sent."""
    open_tcp_stream = trio.open_tcp_stream

    async def open_and_wait(host: str, port: int) -> trio.SocketStream:
        stream = await open_tcp_stream(host, port)
        await trio.lowlevel.wait_readable(stream.socket)
        return stream

    monkeypatch.setattr(trio, "open_tcp_stream", open_and_wait)
    async with scripted(resets()) as port:
        endpoint = Tcp(HOST, port)
        connected = await connect(endpoint, timeout=5)
        await connected.stream.aclose()
        assert connected.peer is None
        why = "Transport endpoint is not connected"
        await check_fails(endpoint, why, encode_header=lambda *_: b"")


@pytest.mark.skipif(not AF_UNIX, reason="there are no Unix sockets")
async def test_a_unix_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, authority: Authority
) -> None:
    """Over TLS there is no name that a certificate must be for."""
    monkeypatch.chdir(tmp_path)  # the whole path may be too long for a socket
    where = Unix("socket")
    why = "No such file or directory (is the server running, and at this path?)"
    assert (await check_fails(where, why)).errno == errno.ENOENT
    with socket.socket(AF_UNIX) as closed:
        closed.bind(where.path)
        await check_fails(where, "Connection refused (is the server running?)")
    async with listening(where) as (listener,), trio.open_nursery() as nursery:
        connected = await connect(where, timeout=5)
        assert connected == Connected(connected.stream, "unix:socket", None)
        await connected.stream.aclose()
        serve = over_tls(authority.server(HOST), closes())
        nursery.start_soon(trio.serve_listeners, lambda near: serve(Peer(near)), [listener.trio])
        context = authority.client()
        context.check_hostname = False
        connected = await connect(where, ssl_context=context, timeout=5)
        assert connected == Connected(connected.stream, "unix:socket", "TLSv1.3")
        await connected.stream.aclose()
        nursery.cancel_scope.cancel()
    monkeypatch.setattr(connecting, "AF_UNIX", None)
    await check_fails(where, "Unix sockets are not available on this platform")


@pytest.mark.parametrize("tls", [False, True])
async def test_the_proxy_header_is_sent_first(authority: Authority, *, tls: bool) -> None:
    """It is made of the connection's own addresses, and sent before the TLS handshake."""

    def encode(source: object, destination: object) -> bytes:
        return f"{source} {destination}\n".encode()

    async def hears_header(peer: Peer) -> None:
        assert isinstance(peer.stream, trio.SocketStream)
        ends = peer.stream.socket.getpeername(), peer.stream.socket.getsockname()
        await Peer(Tap(peer.stream, sip=1)).expect(encode(*ends))

    shakes_hands = over_tls(authority.server(HOST), closes())
    context = authority.client() if tls else None
    async with scripted(play(hears_header, shakes_hands if tls else closes())) as port:
        endpoint = Tcp(HOST, port)
        connected = await connect(endpoint, ssl_context=context, encode_header=encode, timeout=5)
        assert connected.tls == ("TLSv1.3" if tls else None)
        await connected.stream.aclose()


async def test_the_certificate_must_be_for_the_host(authority: Authority) -> None:
    """A final dot is for resolvers alone (RFC 6066, 3)."""
    connect_with_tls = partial(connect, ssl_context=authority.client(), timeout=5)
    context = authority.server("greet.example")
    async with scripted(over_tls(context, closes())) as port:
        resolve(Address(HOST, port))
        for host in ("greet.example", "greet.example."):
            connected = await connect_with_tls(Tcp(host, 6000))
            await connected.stream.aclose()
        await wait_all_tasks_blocked()
        async with nothing_left_open():
            with pytest.raises(HandshakeFailed, match=r"not valid for 'other\.example'"):
                await connect_with_tls(Tcp("other.example", 6000))
            await wait_all_tasks_blocked()
