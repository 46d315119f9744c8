"""From an address to a server's welcome (`_connect.py`), and calling again until there is one (`_call.py`)."""

import contextlib
import errno
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import attrs
import pytest
import trio
from trio.testing import MockClock

from greeter_core import ClientConfig, Welcomed
from greeter_trio._cli.client import keep_calling
from greeter_trio._failures import ExitStatus
from greeter_trio._net.connecting import Call, Facts, NoConversation, Target, connect, welcomed
from greeter_trio._net.proxy import encode_v1, encode_v2
from greeter_trio._net.tls import TLSStream, client_context, server_context

from .certificates import Authority
from .helpers import GOODBYE, PROMPT, SETTLED, WELCOME, Peer, nothing_left_open, scripted

Script = Callable[[Peer], Awaitable[object]]

HOST = "127.0.0.1"
CONFIG = ClientConfig(reply_timeout=5)
TRY_TLS = " (does it want TLS or a PROXY header? try --tls or --send-proxy)"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Return a CA."""
    return Authority(tmp_path)


async def hang_up(peer: Peer) -> None:
    """Close the connection at once, as a load balancer without servers does."""
    await peer.close()


async def reset(peer: Peer) -> None:
    """Break the connection at once."""
    peer.reset()


async def keep_silent(peer: Peer) -> None:
    """Wait for the client to go."""
    with contextlib.suppress(trio.BrokenResourceError):
        await peer.hear_all()


async def welcome(peer: Peer) -> None:
    """Welcome the client, and ask for its name."""
    await peer.say(WELCOME + PROMPT)
    await keep_silent(peer)


def saying(words: bytes) -> Script:
    """Return the script of a server that says this and then hangs up."""

    async def play(peer: Peer) -> None:
        await peer.say(words)
        await peer.close()

    return play


def in_turn(*scripts: Script) -> tuple[Script, list[float]]:
    """Return a script that plays these for one connection each, and the times at which connections came."""
    rest, times = list(scripts), []

    async def play(peer: Peer) -> None:
        times.append(round(trio.current_time(), 3))
        await rest.pop(0)(peer)

    return play, times


def over_tls(script: Script, context: ssl.SSLContext, delay: float = 0) -> Script:
    """Return a script that is played over TLS, which begins after so many seconds."""

    async def play(peer: Peer) -> None:
        await trio.sleep(delay)
        stream = TLSStream(peer.stream, context, server_side=True)
        with contextlib.suppress(Exception):  # the client says what went wrong
            await stream.do_handshake()
            await script(Peer(stream))

    return play


async def done(call: Call) -> ExitStatus:
    """Have nothing to talk about."""
    assert call.facts.connect_ms is not None
    return ExitStatus.DONE


async def failure(
    port: int, retry_for: float = 0, *, config: ClientConfig = CONFIG, **how: object
) -> NoConversation:
    """Return why no server at this port has welcomed the client."""
    target = Target(**{"host": HOST, "port": port, **how})  # type: ignore[arg-type]
    with pytest.raises(NoConversation) as caught:
        await keep_calling(target, config, retry_for, done)
    return caught.value


# Connecting


class Resolver(trio.abc.HostnameResolver):
    """Knows one host, with these addresses."""

    def __init__(self, *addresses: tuple[str, int]) -> None:
        self._addresses = addresses

    async def getaddrinfo(self, *_: object, **__: object) -> list[tuple[object, ...]]:  # type: ignore[override]
        """Resolve any name."""
        await trio.lowlevel.checkpoint()
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", where) for where in self._addresses]

    async def getnameinfo(self, *_: object) -> tuple[str, str]:
        """Nobody asks for it."""
        raise NotImplementedError


@contextlib.contextmanager
def dead_end() -> Iterator[tuple[str, int]]:
    """Yield an address that does not answer to connecting: its backlog is full."""
    with socket.create_server((HOST, 0), backlog=0) as listener, contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(socket.socket()) for _ in range(8)]  # more than have a place
        for each in waiting:
            each.settimeout(0)
            each.connect_ex(listener.getsockname())
        if waiting[-1].connect_ex(listener.getsockname()) != errno.EALREADY:
            pytest.skip("this machine connects more than it has places for")
        yield listener.getsockname()


async def test_a_dead_address_holds_nobody_up(autojump_clock: MockClock) -> None:
    """If the first address of a host does not answer within 250 ms, the second one is tried, too."""
    autojump_clock.autojump_threshold = SETTLED
    with dead_end() as dead:
        async with scripted(welcome) as port:
            trio.socket.set_custom_hostname_resolver(Resolver(dead, (HOST, port)))
            async with welcomed(Target("greet.example", 6000), CONFIG) as call:
                assert call.facts.peer == f"{HOST}:{port}"
                assert call.facts.connect_ms == pytest.approx(250)


async def test_all_addresses_are_named_that_failed() -> None:
    """Where no address answers, each different reason is told once."""
    with socket.socket() as closed, socket.socket() as other:
        for each in (closed, other):
            each.bind((HOST, 0))
        trio.socket.set_custom_hostname_resolver(
            Resolver(closed.getsockname(), other.getsockname())
        )
        problem = await failure(6000, host="greet.example")
    advice = "is the server running, and on this port?"
    assert (
        str(problem) == f"cannot connect to greet.example port 6000: Connection refused ({advice})"
    )


async def test_connecting_takes_no_longer_than_the_timeout(autojump_clock: MockClock) -> None:
    """An address that does not answer to connecting fails after --timeout; the status tells."""
    autojump_clock.autojump_threshold = SETTLED
    with dead_end() as (_, port):
        problem = await failure(port)
    assert str(problem) == f"cannot connect to {HOST} port {port}: no answer within 5 s"
    assert problem.status is ExitStatus.TIMED_OUT
    assert problem.facts == Facts()
    assert trio.current_time() == pytest.approx(5)


async def test_the_timeout_bounds_the_handshake_too(
    autojump_clock: MockClock, authority: Authority
) -> None:
    """A server that says nothing to a TLS handshake fails after --timeout, and nothing is left open."""
    autojump_clock.autojump_threshold = SETTLED
    context = client_context(authority.path)
    async with scripted(keep_silent) as port, nothing_left_open():
        problem = await failure(port, ssl_context=context)
        await trio.sleep(1)  # so that the server closes its end
    assert str(problem).endswith("no answer within 5 s")
    assert trio.current_time() == pytest.approx(6)


@pytest.mark.parametrize("host", ["a..b", "x" * 64])
async def test_what_cannot_be_a_host(host: str) -> None:
    """A host with a label that IDNA does not allow is an OSError as others are, and it is in vain to try again."""
    with pytest.raises(OSError, match="cannot be the name of a host"):
        await connect(Target(host, 6000))
    problem = await failure(6000, 60, host=host)
    advice = "check --host or GREETER_HOST"
    assert (
        str(problem)
        == f"cannot connect to {host} port 6000: this cannot be the name of a host ({advice})"
    )
    assert problem.hopeless


# Unix sockets


async def test_unix_socket(tmp_path: Path) -> None:
    """A Unix socket is connected to by its path, and is its own peer."""
    if not hasattr(socket, "AF_UNIX"):
        pytest.skip("there are no Unix sockets")
    path = str(tmp_path / "greeter.sock")
    with trio.socket.socket(socket.AF_UNIX) as listener:
        await listener.bind(path)
        listener.listen()
        async with trio.open_nursery() as nursery:

            async def serve() -> None:
                near, _ = await listener.accept()
                async with trio.SocketStream(near) as stream:
                    await welcome(Peer(stream))

            nursery.start_soon(serve)
            async with welcomed(Target(f"unix:{path}"), CONFIG) as call:
                assert call.facts.peer == f"unix:{path}"
                assert call.facts.tls is None


async def test_unix_socket_without_a_server(tmp_path: Path) -> None:
    """A path without a server is told with an advice that fits, and never speaks of ports."""
    if not hasattr(socket, "AF_UNIX"):
        pytest.skip("there are no Unix sockets")
    path = tmp_path / "greeter.sock"
    problem = await failure(6000, host=f"unix:{path}")
    advice = "is the server running, and at this path?"
    assert str(problem) == f"cannot connect to unix:{path}: No such file or directory ({advice})"
    with socket.socket(socket.AF_UNIX) as closed:
        closed.bind(str(path))
        problem = await failure(6000, host=f"unix:{path}")
    assert (
        str(problem)
        == f"cannot connect to unix:{path}: Connection refused (is the server running?)"
    )


# PROXY header and TLS


@pytest.mark.parametrize("encode", [encode_v1, encode_v2])
@pytest.mark.parametrize("tls", [False, True])
async def test_the_proxy_header_goes_first(
    authority: Authority,
    encode: Callable[[object, object], bytes],
    tls: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """The header with the socket's own addresses is the first that is sent, before the TLS handshake."""
    heard: list[bytes] = []

    async def play(peer: Peer) -> None:
        assert isinstance(peer.stream, trio.SocketStream)
        ends = peer.stream.socket.getpeername(), peer.stream.socket.getsockname()
        header = encode(*ends)
        await peer.expect(header)
        heard.append(header)
        script = over_tls(welcome, server_context(authority.issue(HOST), None)) if tls else welcome
        await script(peer)

    context = client_context(authority.path) if tls else None
    async with (
        scripted(lambda peer: play(Sip(peer.stream))) as port,
        welcomed(Target(HOST, port, context, encode), CONFIG) as call,
    ):
        assert call.facts.tls == ("TLSv1.3" if tls else None)
    assert len(heard) == 1


class Sip(Peer):
    """A peer that takes one byte at a time, and so none of what comes after the header."""

    async def hear(self) -> bytes:
        """Receive one byte."""
        data = bytes(await self.stream.receive_some(1))
        self.chunks.append((0.0, data))
        return data


@pytest.mark.parametrize("host", ["greet.example", "greet.example."])
async def test_the_certificate_is_for_the_host(authority: Authority, host: str) -> None:
    """The certificate must be for the host, whose final dot belongs to the resolver alone."""
    async with scripted(
        over_tls(welcome, server_context(authority.issue("greet.example"), None))
    ) as port:
        trio.socket.set_custom_hostname_resolver(Resolver((HOST, port)))
        async with welcomed(Target(host, 6000, client_context(authority.path)), CONFIG) as call:
            assert call.facts.tls == "TLSv1.3"


# The welcome


async def test_what_is_measured(autojump_clock: MockClock, authority: Authority) -> None:
    """The times are those of the connection, TLS included, and from then to the first byte, though others follow."""
    autojump_clock.autojump_threshold = SETTLED

    async def play(peer: Peer) -> None:
        for byte in (WELCOME[:1], WELCOME[1:]):
            await trio.sleep(0.5)
            await peer.say(byte)
        await keep_silent(peer)

    script = over_tls(play, server_context(authority.issue(HOST), None), delay=0.25)
    context = client_context(authority.path)
    async with scripted(script) as port, welcomed(Target(HOST, port, context), CONFIG) as call:
        assert trio.current_time() == pytest.approx(1.25)
        assert attrs.astuple(call.facts) == (
            f"{HOST}:{port}",
            "TLSv1.3",
            pytest.approx(250),
            pytest.approx(500),
        )


async def test_nothing_is_sent_before_the_welcome() -> None:
    """A client that was not welcomed has said nothing."""
    heard: list[bytes] = []

    async def play(peer: Peer) -> None:
        await peer.say(WELCOME[:-1])
        with trio.move_on_after(0.1):
            await peer.hear_all()
        heard.append(peer.heard)
        await peer.say(WELCOME[-1:])
        await keep_silent(peer)

    async with scripted(play) as port, welcomed(Target(HOST, port), CONFIG):
        pass
    assert heard == [b""]


async def test_events_that_came_with_the_welcome_are_handed_out() -> None:
    """Who listens after the welcome hears of it, and of what came with it."""
    async with (
        scripted(saying(WELCOME + GOODBYE)) as port,
        welcomed(Target(HOST, port), CONFIG) as call,
    ):
        events: list[object] = []
        call.listen(events.append)
        await call.driver.run()
    assert [type(event).__name__ for event in events] == [
        "Welcomed",
        "GoodbyeReceived",
        "ConversationEnded",
    ]
    assert events[0] == Welcomed()


FAILURES: dict[str, tuple[Script, str, ExitStatus]] = {
    "hang up": (
        hang_up,
        f"the server closed the connection without saying goodbye{TRY_TLS}",
        ExitStatus.FAILED,
    ),
    "reset": (
        reset,
        f"the connection to the server was lost (Connection reset by peer){TRY_TLS}",
        ExitStatus.FAILED,
    ),
    "silence": (keep_silent, f"the server did not answer in time{TRY_TLS}", ExitStatus.TIMED_OUT),
    "half a welcome": (
        saying(WELCOME[:-1]),
        "the server closed the connection without saying goodbye",
        ExitStatus.FAILED,
    ),
    "full": (
        saying(b"Sorry, the server is full.\n"),
        "the server refused: Sorry, the server is full.",
        ExitStatus.FAILED,
    ),
    "shutting down": (
        saying(GOODBYE),
        "the server said goodbye before it was asked to",
        ExitStatus.FAILED,
    ),
}


@pytest.mark.parametrize(("script", "message", "status"), FAILURES.values(), ids=FAILURES)
async def test_no_welcome(
    autojump_clock: MockClock, script: Script, message: str, status: ExitStatus
) -> None:
    """A server that does not welcome the client is told in words, with advice where it says nothing, and a status."""
    autojump_clock.autojump_threshold = SETTLED
    async with scripted(script) as port:
        problem = await failure(port)
    assert str(problem) == message
    assert problem.status is status
    assert not problem.hopeless
    assert problem.facts.connect_ms is not None


async def test_no_advice_to_try_tls_with_tls(authority: Authority) -> None:
    """A server that says nothing over TLS does not want TLS."""
    async with scripted(over_tls(hang_up, server_context(authority.issue(HOST), None))) as port:
        problem = await failure(port, ssl_context=client_context(authority.path))
    assert "--tls" not in str(problem)
    assert problem.facts.tls == "TLSv1.3"
    assert not problem.hopeless


# Calling again


@pytest.mark.parametrize(("script", "message", "_"), FAILURES.values(), ids=FAILURES)
async def test_calling_until_there_is_a_welcome(
    autojump_clock: MockClock, script: Script, message: str, _: ExitStatus
) -> None:
    """Whatever a server does before its welcome, the client calls again, until one welcomes it."""
    autojump_clock.autojump_threshold = SETTLED
    assert message
    play, times = in_turn(script, script, welcome)
    async with scripted(play) as port:
        assert await keep_calling(Target(HOST, port), CONFIG, 60, done) is ExitStatus.DONE
    assert len(times) == 3


async def test_calling_until_somebody_listens(autojump_clock: MockClock) -> None:
    """Where nobody listens the client calls again, until somebody does."""
    autojump_clock.autojump_threshold = SETTLED
    with trio.socket.socket() as listener:
        await listener.bind((HOST, 0))
        async with trio.open_nursery() as nursery:

            async def serve() -> None:
                await trio.sleep(3)
                listener.listen()
                near, _ = await listener.accept()
                async with trio.SocketStream(near) as stream:
                    await welcome(Peer(stream))

            nursery.start_soon(serve)
            port: int = listener.getsockname()[1]
            assert await keep_calling(Target(HOST, port), CONFIG, 60, done) is ExitStatus.DONE
    assert 3 <= trio.current_time() <= 4


async def test_a_handshake_that_is_cut_is_tried_again(
    autojump_clock: MockClock, authority: Authority
) -> None:
    """A load balancer without servers hangs up on TLS, too; that can get better."""
    autojump_clock.autojump_threshold = SETTLED
    play, times = in_turn(
        hang_up, reset, over_tls(welcome, server_context(authority.issue(HOST), None))
    )
    async with scripted(play) as port:
        target = Target(HOST, port, client_context(authority.path))
        assert await keep_calling(target, CONFIG, 60, done) is ExitStatus.DONE
    assert len(times) == 3


async def test_pauses_between_calls(autojump_clock: MockClock) -> None:
    """The pauses grow from 0.1 s to 1 s; the last call is when the time is over, and is told with their number."""
    autojump_clock.autojump_threshold = SETTLED
    play, times = in_turn(*[hang_up] * 7, saying(b"Sorry, no.\n"))
    async with scripted(play) as port:
        problem = await failure(port, 4)
    assert times == pytest.approx([0, 0.1, 0.3, 0.7, 1.5, 2.5, 3.5, 4])
    assert str(problem) == "the server refused: Sorry, no., after 8 attempts"
    assert trio.current_time() == pytest.approx(4)


async def test_a_call_that_has_begun_in_time_is_not_cut_short(autojump_clock: MockClock) -> None:
    """Only the beginning of an attempt must be in time; it then has all of --timeout."""
    autojump_clock.autojump_threshold = SETTLED

    async def be_slow(peer: Peer) -> None:
        await trio.sleep(4)
        await welcome(peer)

    play, _ = in_turn(hang_up, be_slow)
    async with scripted(play) as port:
        assert await keep_calling(Target(HOST, port), CONFIG, 0.2, done) is ExitStatus.DONE
    assert trio.current_time() == pytest.approx(4.1)


async def test_without_patience_there_is_one_call() -> None:
    """By default nothing is tried again."""
    play, times = in_turn(hang_up)
    async with scripted(play) as port:
        problem = await failure(port)
    assert len(times) == 1
    assert "attempts" not in str(problem)


async def test_a_conversation_that_has_begun_is_not_begun_again() -> None:
    """After the welcome nothing is tried again: names may have been asked."""

    async def fail(call: Call) -> ExitStatus:
        await call.driver.run()
        return call.ending.status

    play, times = in_turn(saying(WELCOME))
    async with scripted(play) as port:
        assert await keep_calling(Target(HOST, port), CONFIG, 60, fail) is ExitStatus.FAILED
    assert len(times) == 1


async def test_what_is_no_greeter_does_not_become_one() -> None:
    """A server that says something else is not called again."""
    play, times = in_turn(saying(b"SSH-2.0-x\r\n"))
    async with scripted(play) as port:
        problem = await failure(port, 60)
    assert (
        str(problem) == 'the server is no greeter: it said "SSH-2.0-x\\x0d\\x0a" and not "Welcome!"'
    )
    assert len(times) == 1
    assert problem.facts.first_byte_ms is not None


@pytest.mark.parametrize("problem", ["name", "authority", "plain"])
async def test_tls_that_will_not_do_is_not_tried_again(
    authority: Authority, tmp_path: Path, problem: str
) -> None:
    """A certificate that is not accepted, and a server without TLS, will be the same next time."""
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other")
    scripts = {
        "name": (over_tls(welcome, server_context(authority.issue("other.example"), None)), HOST),
        "authority": (
            over_tls(welcome, server_context(other.issue(HOST), None)),
            "signed by no CA",
        ),
        "plain": (welcome, "the server does not speak TLS on this port"),
    }
    script, words = scripts[problem]
    play, times = in_turn(script)
    async with scripted(play) as port:
        told = await failure(port, 60, ssl_context=client_context(authority.path))
    assert str(told).startswith(f"cannot connect to {HOST} port {port} with TLS: the server")
    assert words in str(told)
    assert told.status is ExitStatus.FAILED
    assert len(times) == 1


async def test_calls_leave_nothing_open(autojump_clock: MockClock, authority: Authority) -> None:
    """However many calls fail, and however, no descriptor is left open."""
    autojump_clock.autojump_threshold = SETTLED
    refused = over_tls(welcome, server_context(authority.issue("other.example"), None))
    play, _ = in_turn(hang_up, reset, keep_silent, refused)
    context = client_context(authority.path)
    async with scripted(play) as port, nothing_left_open():
        problem = await failure(port, 60, ssl_context=context)
        assert problem.attempts == 4
        await trio.sleep(1)
