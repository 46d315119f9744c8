"""Reaching a server: attempts, their pauses, what is measured, and advice where it fails."""

import socket
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import attrs
import pytest
import trio
from trio.testing import MockClock

from greeter_core import ClientConfig, ClientEvent, NameRequested, Welcomed
from greeter_trio._cli.client_options import ClientOptions, ClientTls
from greeter_trio._cli.opening import (
    Conversation,
    Measurements,
    NoConversation,
    open_conversation,
)
from greeter_trio._cli.status import ExitStatus, Failure, Stage
from greeter_trio._net.endpoints import Tcp, Unix
from greeter_trio._net.tls_contexts import server_context
from tests.support.certificates import Authority
from tests.support.clocks import SETTLED
from tests.support.descriptors import nothing_left_open
from tests.support.listening import resolve
from tests.support.peers import Peer, scripted
from tests.support.plays import Step, after, hears, hears_rest, over_tls, play, resets, says
from tests.support.words import GOODBYE, PROMPT, WELCOME

HOST = "127.0.0.1"
EventHandler: TypeAlias = Callable[[Sequence[ClientEvent]], object]

WELCOMES = play(says(WELCOME + PROMPT), hears_rest())
LOST = "the connection to the server was lost"
HUNG_UP = "the server closed the connection without saying goodbye"
TRY = "? try --tls or --send-proxy)"
WANTS = " (does it want TLS or a PROXY header"
CLOSED_AT_ONCE = f"{WANTS} or does a load balancer on the way have no server{TRY}"
SILENT = f"{WANTS} or does a proxy on the way wait for the client to speak first{TRY}"


@pytest.fixture
def clock(autojump_clock: MockClock) -> MockClock:
    autojump_clock.autojump_threshold = SETTLED
    return autojump_clock


@pytest.fixture
def trust(authority: Authority) -> ClientTls:
    return ClientTls(ca=authority.path, cert=None, key=None)


def reaching(
    where: int | Tcp | Unix, handle_events: EventHandler = lambda _: None, **changes: Any
) -> AbstractAsyncContextManager[Conversation]:
    return open_conversation(options_for(where, **changes), handle_events)


def options_for(where: int | Tcp | Unix, **changes: Any) -> ClientOptions:
    endpoint = Tcp(HOST, where) if isinstance(where, int) else where
    config = ClientConfig(reply_timeout=5)
    defaults: Any = {"retry_for": 0, "tls": None, "send_proxy": None, "json": False, "names": ()}
    defaults |= {"record": None, "trace": False, "every": None, "count": None}
    defaults |= {"family": socket.AF_UNSPEC}
    return ClientOptions(endpoint=endpoint, config=config, **defaults | changes)


async def measurements(where: int | Tcp | Unix, **how: Any) -> Measurements:
    async with reaching(where, **how) as conversation:
        return conversation.measurements


async def failure(where: int | Tcp | Unix, **how: Any) -> NoConversation:
    with pytest.raises(NoConversation) as caught:
        await measurements(where, **how)
    return caught.value


@asynccontextmanager
async def answering(*calls: Step) -> AsyncIterator[tuple[int, list[float]]]:
    """Play each of these for one connection; yield the port, and the times of connections."""
    times: list[float] = []

    async def answer(peer: Peer) -> None:
        times.append(trio.current_time())
        await calls[len(times) - 1](peer)

    async with scripted(answer) as port:
        yield port, times


@pytest.mark.parametrize(
    ("call", "message", "status", "final"),
    [
        (play(), HUNG_UP + CLOSED_AT_ONCE, ExitStatus.CONNECTION_LOST, False),
        (
            resets(),
            f"{LOST} (Connection reset by peer){CLOSED_AT_ONCE}",
            ExitStatus.CONNECTION_LOST,
            False,
        ),
        (
            hears_rest(),
            f"the server did not answer in time{SILENT}",
            ExitStatus.TIMED_OUT,
            False,
        ),
        (says(WELCOME[:-1]), HUNG_UP, ExitStatus.CONNECTION_LOST, False),
        (says(b"Sorry, full.\n"), "the server refused: Sorry, full.", ExitStatus.REFUSED, False),
        (
            says(GOODBYE),
            "the server said goodbye before it was asked to",
            ExitStatus.REFUSED,
            False,
        ),
        (
            says(b"SSH"),
            'the server is no greeter: it said "SSH" and not "Welcome!"',
            ExitStatus.NO_GREETER,
            True,
        ),
    ],
    ids=["hang up", "reset", "silence", "half", "full", "goodbye", "no greeter"],
)
async def test_without_a_welcome_it_is_tried_again(
    clock: MockClock, call: Step, message: str, status: ExitStatus, *, final: bool
) -> None:
    """Nothing was asked, so another attempt does no harm. By default there is none."""
    async with answering(call, call, call, WELCOMES) as (port, times):
        failed = await failure(port)
        assert failed.failure == Failure(message, status, Stage.WELCOME)
        is_late = clock.current_time() == pytest.approx(5)
        assert is_late == (status is ExitStatus.TIMED_OUT)
        assert failed.measurements.connect_ms is not None
        assert (failed.measurements.first_byte_ms is None) is ("does it want" in message)
        assert len(times) == 1
        again = failure if final else measurements
        await again(port, retry_for=60)
        assert len(times) == (2 if final else 4)


async def test_a_block_that_fails_is_not_tried_again() -> None:
    async with answering(WELCOMES) as (port, times):
        with pytest.raises(NoConversation, match="mine"):
            async with reaching(port, retry_for=60):
                raise NoConversation(Failure("mine"))
    assert len(times) == 1


async def test_pauses_between_attempts(clock: MockClock) -> None:
    """They grow from 0.1 s to 1 s; the last attempt begins when the time is over."""
    async with answering(*[play()] * 7, says(b"Sorry, no.\n")) as (port, times):
        failed = await failure(port, retry_for=4)
    assert times == pytest.approx([0, 0.1, 0.3, 0.7, 1.5, 2.5, 3.5, 4])
    assert str(failed) == "the server refused: Sorry, no. (after 8 attempts)"
    assert clock.current_time() == pytest.approx(4)


@pytest.mark.parametrize("seconds", [0.2, 4, 7])
async def test_it_is_over_when_it_says(clock: MockClock, seconds: float) -> None:
    """An attempt that goes on then is cut short; to within a tenth, if it has only begun."""
    async with answering(*[hears_rest()] * 3) as (port, _):
        failed = await failure(port, retry_for=seconds)
    assert clock.current_time() == pytest.approx(seconds, rel=0.1)
    after = " (after 2 attempts)" if seconds == 7 else ""
    assert str(failed) == f"the server did not answer in time{SILENT}{after}"
    assert failed.failure.status is ExitStatus.TIMED_OUT


async def test_connecting_is_cut_short(clock: MockClock) -> None:
    resolve()  # which never answers
    failed = await failure(Tcp("greet.example", 6000), retry_for=4)
    assert (
        str(failed) == "cannot connect to greet.example:6000: its name was not resolved within 4 s"
    )
    assert failed.failure.stage is Stage.RESOLVE
    assert clock.current_time() == pytest.approx(4)


async def test_the_last_failure_that_tells_something_is_told(clock: MockClock) -> None:
    """Not that of an attempt that was cut short."""
    async with answering(says(b"Sorry, no.\n"), hears_rest()) as (port, _):
        failed = await failure(port, retry_for=3)
    assert str(failed) == "the server refused: Sorry, no. (after 2 attempts)"
    assert failed.failure.status is ExitStatus.REFUSED
    assert clock.current_time() == pytest.approx(3)


async def test_attempts_are_told(clock: MockClock) -> None:
    told: list[tuple[int, str]] = []

    def note(attempt: int, failed: Failure) -> None:
        told.append((attempt, failed.message))

    async with answering(says(b"Sorry, no.\n"), says(b"Sorry, no.\n"), WELCOMES) as (port, _):
        options = options_for(port, retry_for=60)
        async with open_conversation(options, lambda _: None, on_failure=note):
            pass
    assert told == [(1, "the server refused: Sorry, no."), (2, "the server refused: Sorry, no.")]


async def test_a_tls_handshake_that_is_cut_is_tried_again(
    clock: MockClock, authority: Authority, trust: ClientTls
) -> None:
    """A load balancer without servers hangs up there, too."""
    tls = server_context(authority.issue(HOST), None)
    calls = play(), resets(), hears_rest(), over_tls(tls, WELCOMES)
    async with answering(*calls) as (port, times), nothing_left_open():
        await measurements(port, retry_for=60, tls=trust)
        assert len(times) == 4
        await trio.sleep(clock.autojump_threshold)  # the server closes its end


async def test_a_host_that_cannot_be_one(clock: MockClock) -> None:
    failed = await failure(Tcp("a..b", 6000), retry_for=60)
    why = "this cannot be the name of a host (check --host or GREETER_HOST)"
    message = f"cannot connect to a..b:6000: {why}"
    assert failed.failure == Failure(message, ExitStatus.CANNOT_CONNECT, Stage.RESOLVE)
    assert clock.current_time() == 0  # it is not tried again


async def test_a_port_without_a_server() -> None:
    with socket.create_server((HOST, 0)) as listener:
        port: int = listener.getsockname()[1]
    failed = await failure(port)
    why = "Connection refused (is the server running, and on this port?)"
    message = f"cannot connect to {HOST}:{port}: {why}"
    assert failed.failure == Failure(message, ExitStatus.CANNOT_CONNECT, Stage.CONNECT)
    assert failed.measurements == Measurements()
    assert not failed.final


async def test_a_unix_socket_without_a_server(tmp_path: Path) -> None:
    if not hasattr(socket, "AF_UNIX"):
        pytest.skip("there are no Unix sockets")
    path = str(tmp_path / "greeter.sock")
    why = "No such file or directory (is the server running, and at this path?)"
    assert str(await failure(Unix(path))) == f"cannot connect to unix:{path}: {why}"


async def test_silence_in_the_tls_handshake(clock: MockClock, trust: ClientTls) -> None:
    async with scripted(hears_rest()) as port:
        failed = await failure(port, tls=trust)
    message = f"cannot connect to {HOST}:{port} with TLS: no answer within 5 s"
    assert failed.failure == Failure(message, ExitStatus.TIMED_OUT, Stage.TLS)
    assert failed.measurements.peer == f"{HOST}:{port}"
    assert failed.measurements.connect_ms is not None
    assert not failed.final
    assert clock.current_time() == pytest.approx(5)


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (
            "name",
            f"the server's certificate is not valid for '{HOST}'; it is for other.example",
        ),
        ("CA", "with TLS: the server's certificate is signed by no CA that is trusted here (--ca)"),
        ("no TLS", "with TLS: the server does not speak TLS on this port"),
        ("TLS 1.2", "no cipher in common with us, or demands a certificate (--cert, --key)"),
        # Here the client's handshake is over before the server's (RFC 8446, 4.4).
        ("TLS 1.3", f"{LOST} (the server demands a certificate) (--cert, --key)"),
        (
            "hang up",
            f"{LOST} (the server hung up without notice) (does it want a PROXY header"
            + CLOSED_AT_ONCE.removeprefix(WANTS).replace("--tls or ", ""),
        ),
    ],
)
async def test_advice_about_tls(
    authority: Authority, trust: ClientTls, tmp_path: Path, problem: str, message: str
) -> None:
    issuer = Authority(tmp_path) if problem == "CA" else authority
    certificate = issuer.issue("other.example" if problem == "name" else HOST)
    demanded = authority.path if problem.startswith("TLS") else None
    context = server_context(certificate, None, demanded)
    if problem == "TLS 1.2":
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with scripted(WELCOMES if problem == "no TLS" else over_tls(context)) as port:
        failed = await failure(port, tls=trust)
    assert str(failed).endswith(message)
    assert str(failed).startswith((LOST, f"cannot connect to {HOST}:{port} with TLS: "))
    if problem == "hang up":  # which a load balancer does after the handshake
        assert failed.failure.status is ExitStatus.CONNECTION_LOST
        assert failed.failure.stage is Stage.WELCOME
    else:
        assert (failed.failure.status, failed.failure.stage) == (ExitStatus.TLS, Stage.TLS)


async def test_files_of_tls_that_cannot_be_used(clock: MockClock, tmp_path: Path) -> None:
    path = str(tmp_path / "missing.pem")
    failed = await failure(6000, retry_for=60, tls=ClientTls(ca=path, cert=None, key=None))
    assert failed.failure == Failure(f"{path}: No such file or directory")
    assert clock.current_time() == 0


async def test_what_is_measured(clock: MockClock, authority: Authority, trust: ClientTls) -> None:
    """From connecting to the end of the TLS handshake, and from then to the first byte."""
    tls = server_context(authority.issue(HOST), None, authority.path)
    shown = attrs.evolve(trust, cert=authority.issue("client"))
    welcome = after(0.5), says(WELCOME[:1]), after(0.5), says(WELCOME[1:] + PROMPT), hears_rest()
    async with scripted(play(after(0.25), over_tls(tls, *welcome))) as port:
        found = await measurements(port, tls=shown)
    assert clock.current_time() == pytest.approx(1.25)
    times = pytest.approx(250), pytest.approx(500)
    assert attrs.astuple(found) == (f"{HOST}:{port}", "TLSv1.3", *times)


async def test_events_and_the_proxy_header() -> None:
    events: list[ClientEvent] = []
    async with (
        scripted(play(hears(b"PROXY TCP4 127.0.0.1 127.0.0.1 "), WELCOMES)) as port,
        reaching(port, events.extend, send_proxy="v1"),
    ):
        assert events == [Welcomed(), NameRequested()]
