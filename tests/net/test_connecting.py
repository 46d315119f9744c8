"""Connecting: several addresses, timeouts, Unix sockets, a PROXY header, TLS."""

import contextlib
import errno
import os
import socket
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from greeter_trio._net import connecting, hosts
from greeter_trio._net.connecting import Connected, ConnectError, Progress, Stage, connect
from greeter_trio._net.endpoints import AF_UNIX, Tcp, Unix
from greeter_trio._net.hosts import ascii_host, certified_host
from greeter_trio._net.stream_transport import socket_under
from greeter_trio._net.tls_contexts import client_context, server_context
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


async def test_a_path_that_dies_breaks_the_connection() -> None:
    """But not before the time in which the server is to answer is over."""
    async with scripted(hears_end()) as port:
        connected = await connect(Tcp(HOST, port), timeout=300)
        sock = socket_under(connected.stream)
        assert sock
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 330_000
        await connected.stream.aclose()


async def test_each_different_failure_is_named_once() -> None:
    """A host with several addresses fails once for each of them."""
    refused = "Connection refused (is the server running, and on this port?)"
    with socket.socket() as closed, socket.socket() as other:
        for each in (closed, other):
            each.bind((HOST, 0))
        resolve(Address(*closed.getsockname()), Address(*other.getsockname()))
        await check_fails(NAME, refused)
        error = await check_fails(Tcp(*closed.getsockname()), refused)
    assert error.errno == errno.ECONNREFUSED
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

    async def be_suspended(*_: object) -> None:
        times.append(trio.current_time())
        mock_clock.jump(jumps.pop(0))
        await trio.sleep_forever()

    monkeypatch.setattr(connecting, "_open", be_suspended)
    with pytest.raises(TimeoutError):
        await connect(NAME, timeout=5)
    assert times == [0, 6.5]


async def test_a_connection_that_breaks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the peer is not known, and a header cannot be sent."""
    dial = connecting._dial

    async def dial_and_wait(address: hosts.Address) -> trio.socket.SocketType:
        sock = await dial(address)
        await trio.lowlevel.wait_readable(sock)
        return sock

    monkeypatch.setattr(connecting, "_dial", dial_and_wait)
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


async def test_a_socket_that_meets_itself_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody listens, the kernel may choose the port of the server for the client."""
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        port = taken.getsockname()[1]

    def bound(*arguments: Any) -> trio.socket.SocketType:
        sock = socket.socket(*arguments)
        sock.bind((HOST, port))
        return trio.socket.from_stdlib_socket(sock)

    monkeypatch.setattr(trio.socket, "socket", bound)
    error = await check_fails(
        Tcp(HOST, port), "Connection refused (is the server running, and on this port?)"
    )
    assert error.errno == errno.ECONNREFUSED


async def test_a_socket_that_has_no_peer_any_more_has_not_met_itself() -> None:
    with trio.socket.socket() as sock:
        assert not connecting._is_connected_to_itself(sock)


@pytest.mark.skipif(not AF_UNIX, reason="there are no Unix sockets")
async def test_a_unix_socket_with_a_full_backlog_is_waited_for(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(AF_UNIX) as listener, contextlib.ExitStack() as guests:
        listener.bind("socket")
        listener.listen(0)
        listener.settimeout(0)
        while True:
            guest = guests.enter_context(socket.socket(AF_UNIX))
            guest.settimeout(0)
            if guest.connect_ex("socket"):
                break
        progress = Progress()
        with pytest.raises(TimeoutError, match="cannot connect to unix:socket: no answer within 5"):
            await connect(Unix("socket"), timeout=5, progress=progress)
        assert trio.current_time() == pytest.approx(5)
        assert progress.stage is Stage.CONNECT

        async def make_room() -> None:
            await trio.sleep(1)
            guests.enter_context(listener.accept()[0])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(make_room)
            connected = await connect(Unix("socket"), timeout=5)
            await connected.stream.aclose()
    assert trio.current_time() == pytest.approx(6, abs=0.1)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has abstract sockets")
async def test_an_abstract_unix_socket() -> None:
    where = Unix(f"@greeter {os.getpid()}")
    async with listening(where) as (listener,):
        assert listener.name == str(where)
        connected = await connect(where, timeout=5)
        assert connected.peer == str(where)
        await connected.stream.aclose()


async def test_progress_tells_how_far_it_came(
    settling_clock: MockClock, authority: Authority
) -> None:
    """A handshake that stalls hides neither the peer nor when there was a connection."""
    progress = Progress()
    resolve()
    with pytest.raises(TimeoutError):
        await connect(NAME, timeout=5, progress=progress)
    assert progress == Progress(Stage.RESOLVE)
    with dead_end() as dead, pytest.raises(TimeoutError):
        await connect(Tcp(HOST, dead.port or 0), timeout=5, progress=progress)
    assert progress == Progress(Stage.CONNECT)
    async with scripted(play(after(7), closes())) as port:
        with pytest.raises(TimeoutError):
            await connect(
                Tcp(HOST, port), ssl_context=authority.client(), timeout=5, progress=progress
            )
        assert (progress.stage, progress.peer) == (Stage.TLS, f"{HOST}:{port}")
        assert progress.connected_at == pytest.approx(10)
        await trio.sleep(3)  # the server closes its end


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
async def test_a_family_is_asked_for(family: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    async def getaddrinfo(*_: Any, family: int, **__: Any) -> list[Any]:
        await trio.lowlevel.checkpoint()
        asked.append(family)
        raise socket.gaierror(socket.EAI_NONAME, "none")

    monkeypatch.setattr(trio.socket, "getaddrinfo", getaddrinfo)
    await check_fails(NAME, "none (check the name of the host)", family=family)
    assert asked == [family]


async def test_addresses_of_both_families_take_turns() -> None:
    """RFC 8305, 4."""
    four, six = socket.AF_INET, socket.AF_INET6
    answers = [Address(f"::{n}", family=six) for n in (1, 2, 3)] + [
        Address("192.0.2.1", family=four)
    ]
    resolve(*answers)
    found = await hosts.resolve("greet.example", 6000)
    assert [address[0] for _, address in found] == ["::1", "192.0.2.1", "::2", "::3"]


async def test_two_addresses_that_answer_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one is taken, and the other one is closed."""
    dial, begun = connecting._dial, trio.Event()

    async def dial_together(address: hosts.Address) -> trio.socket.SocketType:
        sock = await dial(address)
        if address[1][1] == port:
            begun.set()
        await begun.wait()
        with trio.CancelScope(shield=True):
            await trio.lowlevel.checkpoint()
        return sock

    monkeypatch.setattr(connecting, "_dial", dial_together)
    monkeypatch.setattr(connecting, "_HEAD_START", 0)
    async with scripted(hears_end()) as other, scripted(hears_end()) as port, nothing_left_open():
        resolve(Address(HOST, other), Address(HOST, port))
        connected = await connect(NAME, timeout=5)
        await connected.stream.aclose()
        await wait_all_tasks_blocked()


async def test_no_thread_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address needs none; a name does, and then one line says so."""

    async def run_sync(*_: object, **__: object) -> None:
        await trio.lowlevel.checkpoint()
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)
    why = "a thread is needed to resolve its name, and cannot be started (can't start new thread)"
    await check_fails(Tcp("localhost", 6000), why)
    async with scripted(closes()) as port:
        connected = await connect(Tcp(HOST, port), timeout=5)
        await connected.stream.aclose()


@pytest.mark.parametrize(
    ("host", "resolved", "certified"),
    [
        ("faß.example", "xn--fa-hia.example", "xn--fa-hia.example"),
        ("BÜCHER.example.", "xn--bcher-kva.example.", "xn--bcher-kva.example"),
        ("Greet.Example.", "greet.example.", "greet.example"),
        ("XN--FA-HIA.example", "xn--fa-hia.example", "xn--fa-hia.example"),
        ("例え。テスト", "xn--r8jz45g.xn--zckzah", "xn--r8jz45g.xn--zckzah"),
        ("under_score.example", "under_score.example", "under_score.example"),
        ("fe80::1%Eth0", "fe80::1%Eth0", "fe80::1"),
        ("2001:DB8::1", "2001:db8::1", "2001:db8::1"),
        ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("\uff11\uff12\uff17.0.0.1", "127.0.0.1", "127.0.0.1"),  # fullwidth digits
    ],
)
def test_one_form_of_a_host(host: str, resolved: str, certified: str) -> None:
    """IDNA 2008 with UTS 46; in lower case; a dot or a zone is not in a certificate."""
    assert ascii_host(host) == resolved
    assert certified_host(host) == certified


@pytest.mark.parametrize("host", ["faß..example", "\u0378.example", "x" * 64 + "é", "é\ud800"])
def test_what_is_no_host(host: str) -> None:
    with pytest.raises(UnicodeError):
        ascii_host(host)


@pytest.mark.parametrize(("certificate", "accepted"), [("xn--fa-hia", True), ("fass", False)])
async def test_the_certificate_is_for_the_host_that_was_resolved(
    authority: Authority, certificate: str, *, accepted: bool
) -> None:
    """Of `faß.example`, which IDNA 2003 takes for `fass.example`."""
    context = server_context(authority.issue(f"{certificate}.example"), None)
    trusting = client_context(authority.path)
    async with scripted(over_tls(context, closes())) as port:
        resolve(Address(HOST, port))
        names: list[str] = []

        def note_name(_: object, name: str, __: object) -> None:
            names.append(name)

        context.sni_callback = note_name
        connecting_ = connect(Tcp("faß.example", 6000), ssl_context=trusting, timeout=5)
        if accepted:
            await (await connecting_).stream.aclose()
        else:
            with pytest.raises(HandshakeFailed, match=r"not valid for 'xn--fa-hia\.example'"):
                await connecting_
        await wait_all_tasks_blocked()
    assert names == ["xn--fa-hia.example"]


async def test_a_timeout_at_the_moment_of_success_leaves_nothing_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A connection that is there already is closed when what waits for it is cancelled."""
    dial = connecting._dial

    async def dial_and_cancel(address: hosts.Address) -> trio.socket.SocketType:
        with trio.CancelScope(shield=True):
            sock = await dial(address)
        scope.cancel()
        return sock

    async with scripted(hears_end()) as port, nothing_left_open():
        monkeypatch.setattr(connecting, "_dial", dial_and_cancel)
        resolve(Address(HOST, port), Address("127.0.0.2", port))
        with trio.CancelScope() as scope:
            await connect(NAME, timeout=5)
        assert scope.cancelled_caught
        await wait_all_tasks_blocked()
