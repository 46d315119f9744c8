"""The service over real sockets: `serve_greeter`, and `serve` where its sessions are looked at."""

import contextlib
import errno
import inspect
import logging
import socket
import sys
from functools import partial
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from greeter_core import Framing, ServerConfig
from greeter_trio import Limits, WhenFull, serve_greeter
from greeter_trio._net.endpoints import Endpoint, Tcp, Unix
from greeter_trio._net.listeners import open_listeners
from greeter_trio._net.tls_stream import HandshakeFailed
from greeter_trio._net.transport import BROKEN
from greeter_trio._service.counters import CloseReason
from tests.support.certificates import Authority
from tests.support.clocks import SETTLED, cancelled_at_step
from tests.support.connections import LINES, dialogue
from tests.support.descriptors import nothing_left_open, open_descriptors
from tests.support.logs import Log
from tests.support.peers import Peer, connect, connect_now, connect_to, tcp_port
from tests.support.plays import (
    ends,
    hears,
    hears_end,
    hears_last,
    hears_reset,
    play,
    resets,
    says,
    secures,
)
from tests.support.servers import HEADER, break_core, hosting, lines_sessions, serving
from tests.support.words import ADA, FULL, GOODBYE, PROMPT, WELCOME, too_long

ONE_PLACE = Limits(max_connections=1, when_full=WhenFull.REJECT)
GREETED = hears(WELCOME + PROMPT + ADA + PROMPT)


# Greeting


async def test_bare_names_are_greeted_with_the_defaults(
    settling_clock: MockClock, log: Log
) -> None:
    """`nursery.start` returns the listeners when the port is open."""
    defaults = inspect.signature(serve_greeter).parameters
    assert (defaults["host"].default, defaults["port"].default) == ("127.0.0.1", 6000)
    async with nothing_left_open(), trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(serve_greeter, port=0))
        assert [type(listener) for listener in listeners] == [trio.SocketListener]
        port = tcp_port(listeners[0])
        peer = await connect(port)
        assert isinstance(peer.stream, trio.SocketStream)
        client = peer.stream.socket.getsockname()[1]
        for said, words in (b"", [WELCOME, PROMPT]), (b"Ada", [ADA, PROMPT]), (b"exit", [GOODBYE]):
            await peer.say(said)
            assert [await peer.hear() for _ in words] == words
        await peer.close()
        closed = await log.line("is closed")
        nursery.cancel_scope.cancel()
    assert log.lines[:2] == [
        f"Waiting for connection on 127.0.0.1:{port}",
        f"Accept new connection from 127.0.0.1:{client} (#1)",
    ]
    assert closed.startswith(f"Connection from 127.0.0.1:{client} is closed: the client said exit;")


async def test_without_a_host_it_listens_on_all_interfaces(log: Log) -> None:
    async with serving(host=None) as server:
        assert len(log.lines) == len(server.listeners) >= 1
        assert any("0.0.0.0:" in line for line in log.lines)
        for listener in server.listeners:
            host = "127.0.0.1" if listener.socket.family == socket.AF_INET else "::1"
            peer = await connect(tcp_port(listener), host)
            await peer.meet()
            await peer.close()


async def test_all_settings_reach_the_sessions(authority: Authority, log: Log) -> None:
    config = ServerConfig(framing=Framing.LINES, max_name_size=3)
    context = authority.server()
    async with (
        nothing_left_open(),
        serving(config, limits=ONE_PLACE, ssl_context=context, proxy_protocol=True) as server,
    ):
        begins = play(says(HEADER), secures(authority.path))
        guest, other = await server.connect(), await server.connect()
        await play(begins, says(b"Ada\n"), GREETED)(guest)
        await play(begins, hears_last(FULL))(other)
        await play(says(b"Grace\n"), hears_last(too_long(3)))(guest)
    opened = "Accept new connection from 192.0.2.1:4711 through 127.0.0.1:"
    assert sum(line.startswith(opened) for line in log.lines) == 2


async def test_clients_that_misbehave_disturb_no_others(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All are connected before the first is answered, and half of them misbehave."""
    break_core(monkeypatch)
    misbehave = [
        resets(),
        play(hears(WELCOME + PROMPT), says(b"bug\n"), hears_reset()),
        play(says(b"x" * 5000), hears(WELCOME + PROMPT + too_long(1024))),
        play(says(b"Ada\n" * 1000), resets()),
        play(says(b"exit\nexit\nAda"), hears(dialogue())),
    ]
    sessions = lines_sessions()

    async def use(number: int, peer: Peer) -> None:
        names = [b"%d of %d" % (index, number) for index in range(50)]
        if number % 2:
            await peer.say(b"".join(name + b"\n" for name in names) + b"exit\n")
            await peer.expect(dialogue(*names))
            await peer.expect_end()
        else:
            await misbehave[number // 2 % len(misbehave)](peer)
        await peer.close()

    async with nothing_left_open(), hosting(sessions) as server:
        tasks = trio.lowlevel.current_statistics().tasks_living
        peers = [connect_now(server.port) for _ in range(100)]
        async with trio.open_nursery() as nursery:
            for number, peer in enumerate(peers):
                nursery.start_soon(use, number, peer)
        await log.line("is closed", 100)
        await wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().tasks_living == tasks
    closed = {CloseReason.EXIT: 60, CloseReason.BUG: 10, CloseReason.REFUSED: 10}
    ended = sessions.counters.closed
    # Where no byte has come before the reset, it counts as an end.
    lost = ended.pop(CloseReason.EOF) + ended.pop(CloseReason.CONNECTION_LOST, 0)
    assert (ended, lost) == (closed, 20)
    assert sum("the client said exit; 50 names" in line for line in log.lines) == 50
    assert sum(record.levelno == logging.ERROR for record in log.records) == 10
    assert len(log.lines) == 1 + 2 * 100 + 10
    numbers = {line.rpartition(" ")[2] for line in log.lines if "Accept new" in line}
    assert numbers == {f"(#{number})" for number in range(1, 101)}


# Places


async def test_clients_wait_for_a_place_whichever_listener_they_use(
    tmp_path: Path, log: Log
) -> None:
    unix = tmp_path / "socket"
    endpoints: list[Endpoint] = [Tcp("127.0.0.1", 0), Unix(str(unix))]
    listeners = [*await open_listeners(endpoints), *await open_listeners(endpoints[:1])]
    sessions = lines_sessions(limits=Limits(max_connections=2))
    async with hosting(sessions, listeners) as server:
        guest = await server.connect()
        await guest.meet()
        waiting = [Peer(await trio.open_unix_socket(unix))]
        waiting += [await connect(tcp_port(listeners[index])) for index in (0, 2, 2)]
        async with trio.open_nursery() as nursery:
            for peer in waiting:
                nursery.start_soon(play(says(b"Ada\n"), GREETED), peer)
            for accepted in range(2, 6):
                await log.line("Accept new", accepted)
                await wait_all_tasks_blocked(SETTLED)
                assert sum("Accept new" in line for line in log.lines) == accepted
                (here,) = [peer for peer in waiting if peer.heard]
                waiting.remove(here)
                await here.leave()
        await guest.be_greeted(b"Ada")
        await guest.leave()
    assert f"Accept new connection from unix:{unix} " in "".join(log.lines)


# Listening


async def test_where_it_cannot_listen_it_raises() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        message = f"^cannot listen on 127.0.0.1:{port}: Address already in use"
        with pytest.raises(OSError, match=message) as caught:
            await serve_greeter("127.0.0.1", port)
    assert caught.value.errno == errno.EADDRINUSE
    with pytest.raises(ValueError, match="listeners must be one or more"):
        await serve_greeter(listeners=[])
    with pytest.raises(ValueError, match=r"^port must be .* from 0 to 65535, not 70000$"):
        await serve_greeter("127.0.0.1", 70_000)


async def open_own_listeners() -> list[trio.SocketListener]:
    """Return two for TCP and, where sockets can have abstract names (unix(7)), one for Unix."""
    listeners = [(await trio.open_tcp_listeners(0, host="127.0.0.1"))[0] for _ in range(2)]
    if sys.platform == "linux":
        sock = socket.socket(socket.AF_UNIX)
        sock.bind("")
        sock.listen()
        listeners.append(trio.SocketListener(trio.socket.from_stdlib_socket(sock)))
    return listeners


@pytest.mark.parametrize("shut_down", [False, True], ids=["cancelled", "shut down"])
async def test_listeners_of_the_callers_own_are_served_and_closed(*, shut_down: bool) -> None:
    async with nothing_left_open():
        theirs, shutdown = await open_own_listeners(), trio.Event()
        async with trio.open_nursery() as nursery:
            serve = partial(serve_greeter, listeners=theirs, config=LINES, shutdown=shutdown)
            returned = await nursery.start(serve)
            assert list(map(id, returned)) == list(map(id, theirs))
            peers = [await connect_to(listener) for listener in theirs * 2]
            for peer in peers:
                await peer.meet()
                await peer.be_greeted(b"Ada")
            if shut_down:
                shutdown.set()
                for peer in peers:
                    await hears_last(GOODBYE)(peer)
            else:
                nursery.cancel_scope.cancel()
        for peer in peers:
            await peer.close()
        for listener in theirs:
            assert listener.socket.fileno() == -1
            with pytest.raises(trio.ClosedResourceError):
                await listener.accept()


async def test_the_backlog_of_the_callers_own_listeners_is_answered_at_shutdown(log: Log) -> None:
    theirs, shutdown = await open_own_listeners(), trio.Event()
    peers = [await connect_to(listener) for listener in theirs for _ in range(20)]
    shutdown.set()
    async with trio.open_nursery() as nursery:
        serve = partial(serve_greeter, listeners=theirs, config=LINES, shutdown=shutdown)
        nursery.start_soon(serve)
        for peer in peers:
            await hears_last(dialogue())(peer)
    waiting = {line for line in log.lines if line.startswith("Waiting for connection on ")}
    assert len(waiting) == len(theirs)


# Cancellation


@pytest.mark.parametrize(
    "kind", ["start", "plain", "TLS", "proxied", "proxied TLS", "refusal and shutdown"]
)
async def test_cancellation_at_every_step_closes_everything(
    authority: Authority, kind: str
) -> None:
    """It is cancelled at each checkpoint of the server and of its sessions."""
    secure, header = "TLS" in kind, HEADER if "proxied" in kind else b""
    context = authority.server() if secure else None
    begins = play(says(header), secures(authority.path) if secure else play())

    async def visit(listener: trio.SocketListener, shutdown: trio.Event) -> None:
        peer = await connect_to(listener)
        async with peer.stream:
            await play(begins, says(b"Ada\n"), GREETED)(peer)
            if kind == "refusal and shutdown":
                other = await connect_to(listener)
                async with other.stream:
                    await hears(FULL)(other)
                    shutdown.set()
                    await other.hear_all()
                await peer.hear_all()
            else:
                await play(says(b"exit\n"), hears(GOODBYE), hears_end(), ends())(peer)
                shutdown.set()

    async def run(steps: int) -> bool:
        """Return whether the server was cancelled."""
        shutdown, listeners, cancelled = trio.Event(), None, False
        if kind == "start":
            shutdown.set()
        else:
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")

        async def serve() -> None:
            nonlocal cancelled
            with cancelled_at_step(steps) as scope:
                await serve_greeter(
                    port=0,
                    listeners=listeners,
                    config=LINES,
                    limits=ONE_PLACE,
                    ssl_context=context,
                    proxy_protocol=bool(header),
                    shutdown=shutdown,
                )
            cancelled = scope.cancelled_caught
            await wait_all_tasks_blocked()  # the client hears what was said
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            if listeners:
                with contextlib.suppress(OSError, HandshakeFailed, AssertionError, *BROKEN):
                    await visit(listeners[0], shutdown)
        return cancelled

    async with nothing_left_open():
        steps, before = 1, open_descriptors()
        while await run(steps):
            assert open_descriptors() == before, f"cancelled at step {steps}"
            steps += 1
    assert steps > 10
