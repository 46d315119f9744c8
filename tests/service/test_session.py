"""One client from accept to close: what it hears, what is logged and counted, what is left."""

import contextlib
import gc
import logging
import socket
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from greeter_core import Framing, Recording, ServerConfig, ServerConnection
from greeter_trio import Limits, WhenFull
from greeter_trio._net.readiness import Readiness, open_readiness
from greeter_trio._net.tls_stream import HandshakeFailed
from greeter_trio._net.transport import BROKEN
from greeter_trio._service.places import MOST_REFUSED
from greeter_trio._service.sessions import Sessions
from greeter_trio._service.settings import Settings
from tests.support.certificates import Authority
from tests.support.connections import dialogue
from tests.support.descriptors import nothing_left_open
from tests.support.logs import Log, gathered
from tests.support.peers import Peer
from tests.support.plays import (
    Step,
    after,
    ends,
    hears,
    hears_end,
    hears_reset,
    hears_rest,
    play,
    resets,
    says,
    says_for_long,
    secures,
    settles,
)
from tests.support.servers import HEADER, break_core, lines_sessions
from tests.support.streams import sockets
from tests.support.words import ADA, EVE, FULL, GOODBYE, PROMPT, TOO_SLOW, WELCOME, hello, too_long

ONE_PLACE = Limits(max_connections=1, when_full=WhenFull.REJECT)
MEETS = hears(WELCOME + PROMPT)
GREETED = play(says(b"Ada\n"), hears(ADA + PROMPT))
LEAVES = play(says(b"exit\n"), hears(GOODBYE), hears_end())
EVIL = "\x1b]0;gotcha\x07\x9b2J\u202e\u2028".encode() + b"\xff\x80"
TOO_LONG = '"Sorry, names are limited to 1024 bytes."'
TOO_LATE = '"Sorry, no name came in time."'
RESET = "the connection was lost (Connection reset by peer)"


async def converse(sessions: Sessions, script: Step, family: str = "Unix") -> Peer:
    """Run a session whose client plays this script and hangs up, until both have ended.

    The log calls the client `client`. Over Unix sockets what is sent has arrived at once, so
    virtual time may jump as soon as all tasks wait.
    """
    sock, stream = sockets(family)
    session, peer = sessions.open(sock, "client", Readiness()), Peer(stream)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.run)
        async with stream:
            await script(peer)
    return peer


async def cancel(sessions: Sessions, script: Step, end: Step) -> Peer:
    """Run a session over TCP, cancel it when the client has played its script, and then the end."""
    sock, stream = sockets()
    session, peer = sessions.open(sock, "client", Readiness()), Peer(stream)
    async with stream:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.run)
            await script(peer)
            nursery.cancel_scope.cancel()
        await end(peer)
    return peer


def secure_sessions(authority: Authority, **settings: Any) -> Sessions:
    return lines_sessions(ssl_context=authority.server(), **settings)


async def hears_out(peer: Peer) -> None:
    """Receive until the end of the stream, or until it breaks."""
    with contextlib.suppress(*BROKEN):
        await peer.hear_all()


def tells_to_shut_down(sessions: Sessions) -> Step:
    async def step(_: Peer) -> None:
        sessions.shut_down()

    return play(settles(), step)


def closed(log: Log) -> list[str]:
    """Return what the log says of closed connections, without the peers' addresses."""
    return [line.partition(" is closed: ")[2] for line in log.lines if " is closed: " in line]


def warnings(log: Log) -> list[str]:
    """Return of which kinds the warnings in the log are."""
    return [
        vars(record)["facts"]["kind"] for record in log.records if record.levelno == logging.WARNING
    ]


def reasons(sessions: Sessions) -> dict[str, int]:
    """Return how many sessions were closed for which reason."""
    return {reason.value: number for reason, number in sessions.counters.closed.items()}


# Ends


@pytest.mark.parametrize(
    ("reason", "script", "line"),
    [
        (
            "exit",
            play(MEETS, GREETED, after(1.23), LEAVES),
            "the client said exit; 1 name in 1.2 s, 9 bytes in, 63 out",
        ),
        (
            "eof",
            play(says(b"Ada\nEve"), ends(), MEETS, hears(ADA + PROMPT + EVE), hears_end()),
            "the client ended it; 2 names in 0.0 s, 7 bytes in, 65 out",
        ),
        (
            "refused",
            play(MEETS, says(b"x" * 1025), hears(too_long(1024)), hears_end()),
            f"the server said {TOO_LONG}; 0 names in 0.0 s, 1025 bytes in, 66 out",
        ),
        (
            "refused",
            play(MEETS, hears(TOO_SLOW), hears_end(), after(10)),
            f"the server said {TOO_LATE}; 0 names in 302.0 s, 0 bytes in, 55 out",
        ),
        (
            "lifetime",
            play(MEETS, GREETED, *[after(299), GREETED] * 2, hears(GOODBYE), hears_end()),
            "it reached its maximum lifetime; 3 names in 600.0 s, 12 bytes in, 119 out",
        ),
    ],
    ids=["exit", "end of stream", "name too long", "idle", "lifetime"],
)
async def test_the_end_of_a_session_is_logged_and_counted(
    autojump_clock: MockClock, log: Log, reason: str, script: Step, line: str
) -> None:
    config = ServerConfig(framing=Framing.LINES, max_lifetime=600)
    sessions = Sessions(Settings(config=config))
    async with nothing_left_open():
        await converse(sessions, script)
    assert log.lines == [
        "Accept new connection from client (#1)",
        f"Connection from client is closed: {line} (#1)",
    ]
    assert {record.levelno for record in log.records} == {logging.INFO}
    assert reasons(sessions) == {reason: 1}
    assert len(sessions) == 0


async def test_counters_are_the_sums_of_what_is_logged(
    autojump_clock: MockClock, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sessions that are going on are counted with their names and bytes, too."""
    break_core(monkeypatch)
    config = ServerConfig(framing=Framing.LINES, idle_timeout=50)
    limits = Limits(handshake_timeout=5)
    sessions = Sessions(Settings(config=config, limits=limits, proxy_protocol=True))

    async def check_live(_: Peer) -> None:
        counters = sessions.counters
        assert counters.names == 2 * counters.accepted
        assert counters.accepted - counters.closed.total() == len(sessions) == 1

    words = dialogue(b"Ada", b"Grace").removesuffix(GOODBYE)
    greeted = play(says(HEADER + b"Ada\nGrace\n"), hears(words), check_live)
    heard = 0
    for end in (LEAVES, ends(), says(b"x" * 1025), says(b"bug\n"), after(60)):
        heard += len((await converse(sessions, play(greeted, end, hears_rest()))).heard)
    for silence in (after(10), says(HEADER[:9])):
        await converse(sessions, silence)
    sessions.accept_failures.count = 3
    counters = sessions.counters
    assert (counters.accepted, counters.accept_failures) == (7, 3)
    assert reasons(sessions) == {"exit": 1, "eof": 1, "refused": 2, "bug": 1, "handshake": 2}
    facts = [vars(record)["facts"] for record in log.records]
    facts = [each for each in facts if each["event"] == "closed"]
    assert Counter(each["reason"] for each in facts) == reasons(sessions)
    for name, key in [("names", "names"), ("received", "received_bytes"), ("sent", "sent_bytes")]:
        assert getattr(counters, name) == sum(each[key] for each in facts)
    assert counters.sent == heard
    counters.closed.clear()  # it is a copy
    assert sessions.counters.closed.total() == 7


async def test_a_bug_costs_its_own_connection(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    break_core(monkeypatch)
    sessions = lines_sessions()
    async with nothing_left_open():
        await converse(sessions, play(MEETS, GREETED, says(b"bug\n"), hears_reset()), "TCP")
    assert [record.levelname for record in log.records] == ["INFO", "ERROR", "INFO"]
    assert log.lines[1] == "The conversation with client failed"
    assert closed(log)[0].startswith("the server has a bug; 1 name in 0.0 s, ")
    assert reasons(sessions) == {"bug": 1}


async def test_a_client_without_a_place_is_refused_whatever_it_has_said(log: Log) -> None:
    """It may have sent 200 kB, and read only then: that is no reason for RST."""
    sessions = lines_sessions(limits=ONE_PLACE)
    assert sessions.places.admit()
    for said, received in (b"", 0), (b"Ada\n" * 50_000, 200_000):
        async with nothing_left_open():
            await converse(sessions, play(says(said), ends(), hears(FULL), hears_end()), "TCP")
        line = closed(log)[-1]
        assert line.startswith('the server said "Sorry, the server is full."; 0 names in ')
        assert f" {received} bytes in, {len(FULL)} out (" in line
    assert reasons(sessions) == {"refused": 2}
    for _ in range(MOST_REFUSED):  # the two are gone
        assert sessions.places.may_accept()
        assert not sessions.places.admit()
    assert not sessions.places.may_accept()


async def test_a_session_gives_back_what_it_took() -> None:
    sessions = lines_sessions(limits=Limits(max_connections=1))
    sock, stream = sockets()
    async with stream, open_readiness() as readiness, trio.open_nursery() as nursery:
        session = sessions.open(sock, "client", readiness)
        assert not sessions.places.may_accept()
        sessions.shut_down()  # it does not run yet
        nursery.start_soon(session.run)
        await hears(dialogue())(Peer(stream))
        await stream.send_eof()
    assert sessions.places.may_accept()
    assert not getattr(readiness, "_watches", None)


@pytest.mark.parametrize("before", ["nothing", "header", "TLS"])
async def test_accepted_sockets_have_their_options(authority: Authority, before: str) -> None:
    sessions = lines_sessions(limits=Limits(send_timeout=300), proxy_protocol=before == "header")
    if before == "TLS":
        sessions = secure_sessions(authority, limits=Limits(send_timeout=300))
    sock, stream = sockets()
    begins = {"header": says(HEADER), "TLS": secures(authority.path)}.get(before, play())
    async with stream, trio.open_nursery() as nursery:
        nursery.start_soon(sessions.open(sock, "client", Readiness()).run)
        await play(begins, MEETS)(Peer(stream))
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 330_000
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("seconds", "secure"), [(30, False), (7, False), (7, True)], ids=["default", "other", "TLS"]
)
async def test_a_client_that_takes_no_answers_is_lost(
    autojump_clock: MockClock, authority: Authority, log: Log, seconds: float, *, secure: bool
) -> None:
    limits = Limits() if seconds == 30 else Limits(send_timeout=seconds)
    sessions = (
        secure_sessions(authority, limits=limits) if secure else lines_sessions(limits=limits)
    )
    tls = secures(authority.path) if secure else play()
    async with nothing_left_open():
        await converse(sessions, play(tls, MEETS, says_for_long(), after(100)))
    (line,) = closed(log)
    why = f"the connection was lost (the peer took less than 64 KiB in {seconds} s)"
    assert line.startswith(f"{why}; ")
    assert f" in {seconds}.0 s, " in line
    assert reasons(sessions) == {"connection_lost": 1}
    assert sessions.cut == 0


async def test_a_client_that_takes_no_answers_costs_little_memory() -> None:
    """What is kept for it is the answers to one read, however much it says."""
    script = play(MEETS, says_for_long(b"a\n" * 4_000_000))  # whose answers are 104 MB
    tracemalloc.start()
    try:
        await converse(lines_sessions(), script)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000


async def test_nothing_is_kept_of_a_session_that_is_over() -> None:
    def count() -> int:
        gc.collect()
        return sum(isinstance(each, ServerConnection) for each in gc.get_objects())

    sessions, before = lines_sessions(), count()
    for _ in range(5):
        await converse(sessions, play(MEETS, LEAVES))
    assert count() == before


# Cancellation and shutdown


@pytest.mark.parametrize(
    ("script", "line", "reason"),
    [
        (play(says(HEADER), MEETS), "it was cut off; 0 names in 1.0 s, 0", "cut"),
        (play(says(HEADER), says_for_long()), "it was cut off; ", "cut"),
        (says(HEADER[:9]), "it was cut off; 0 names in 1.0 s, 0 bytes in, 0", "cut"),
        (play(says(HEADER), MEETS, LEAVES), "the client said exit; ", "exit"),
    ],
    ids=["waiting", "sending", "handshake", "closing"],
)
async def test_a_cancelled_session_is_cut_off_unless_it_had_ended(
    autojump_clock: MockClock, log: Log, script: Step, line: str, reason: str
) -> None:
    """S8.4. The client is not blamed for what it did not do."""
    sessions = lines_sessions(proxy_protocol=True)
    async with nothing_left_open():
        with trio.move_on_after(1):
            await converse(sessions, play(script, after(1000)))
    assert closed(log)[0].startswith(line)
    assert reasons(sessions) == {reason: 1}
    assert sessions.cut == (reason == "cut")


# The answers to it are more than kernels keep, and it is one read: input that is left unread would
# make the kernel send RST by itself.
FLOOD = says(b"a\n" * 8000)


@pytest.mark.parametrize("how", ["send timeout", "cancelled"])
@pytest.mark.parametrize("over", ["TCP", "TLS", "recorded"])
async def test_a_client_that_is_cut_off_in_the_middle_is_reset(
    settling_clock: MockClock, authority: Authority, log: Log, how: str, over: str
) -> None:
    """With a plain close it would take a part of a word for the last one."""
    sessions, begins = lines_sessions(), play()
    if over == "TLS":
        sessions, begins = secure_sessions(authority), secures(authority.path)
    elif over == "recorded":
        sessions = lines_sessions(recording=Recording(lambda _: None, now=0))
    flooded = play(begins, MEETS, FLOOD, after(100 if how == "send timeout" else 1))
    async with nothing_left_open():
        peer = await cancel(sessions, flooded, hears_reset())
    assert len(peer.heard) < 8000 * len(hello("a") + PROMPT)
    assert reasons(sessions) == {"connection_lost" if how == "send timeout" else "cut": 1}


@pytest.mark.parametrize(
    ("proxied", "script", "end"),
    [
        (False, MEETS, hears_reset()),
        (False, play(MEETS, says(b"exit\n"), after(1)), play(hears(GOODBYE), hears_end())),
        (True, play(says(HEADER[:9]), after(1)), hears_end()),
    ],
    ids=["waiting", "closing", "handshake"],
)
async def test_a_cancelled_session_is_reset_unless_it_has_said_its_last_word(
    settling_clock: MockClock, script: Step, end: Step, *, proxied: bool
) -> None:
    sessions = lines_sessions(proxy_protocol=proxied)
    async with nothing_left_open():
        await cancel(sessions, script, end)


@pytest.mark.parametrize(
    ("framing", "said", "before", "after_it"),
    [
        (Framing.LINES, b"", WELCOME + PROMPT, GOODBYE),
        (Framing.LINES, b"Ada\nGra", WELCOME + PROMPT + ADA + PROMPT, GOODBYE),
        (Framing.AUTO, b"Ada\nEve\nGra", b"", dialogue(b"Ada", b"Eve")),
        (Framing.AUTO, b"Ada", WELCOME, dialogue(b"Ada").removeprefix(WELCOME)),
        (Framing.RAW, b"Ada", WELCOME, dialogue(b"Ada").removeprefix(WELCOME)),
    ],
    ids=["idle", "half a line", "pipelined", "undecided", "raw"],
)
async def test_at_shutdown_what_was_said_is_answered_before_goodbye(
    autojump_clock: MockClock, framing: Framing, said: bytes, before: bytes, after_it: bytes
) -> None:
    """S7.1. It is the same for a session that begins only then."""
    sessions = Sessions(Settings(config=ServerConfig(framing=framing)))
    parts = says(said), hears(before), tells_to_shut_down(sessions), hears(after_it), hears_end()
    async with nothing_left_open():
        for _ in range(2):
            await converse(sessions, play(*parts))
    assert reasons(sessions) == {"shutdown": 2}


async def test_at_shutdown_a_handshake_has_two_seconds_left(
    autojump_clock: MockClock, authority: Authority, log: Log
) -> None:
    sessions = secure_sessions(authority, proxy_protocol=True)
    begins = play(says(HEADER[:9]), tells_to_shut_down(sessions))
    goes_on = play(says(HEADER[9:]), secures(authority.path), hears(dialogue()), hears_end())
    for _ in range(2):  # all but the first begin after the shutdown
        await converse(sessions, play(begins, after(10)))
        await converse(sessions, play(begins, goes_on))
    late, answered = closed(log)[::2], closed(log)[1::2]
    assert all(line.startswith("no PROXY header before the end; 0 names in 2.0 s") for line in late)
    assert all(line.startswith("the server is shutting down; ") for line in answered)


# Handshakes


async def test_behind_a_proxy_the_log_has_source_and_proxy(log: Log) -> None:
    """Bytes of the header are not counted."""
    sessions = lines_sessions(proxy_protocol=True)
    await converse(sessions, play(says(HEADER + b"Ada\n"), MEETS, hears(ADA + PROMPT), LEAVES))
    who = "192.0.2.1:4711 through client"
    assert log.lines[0] == f"Accept new connection from {who} (#1)"
    assert log.lines[1].startswith(f"Connection from {who} is closed: the client said exit; 1 name")
    assert log.lines[1].endswith(f", 9 bytes in, {len(dialogue(b'Ada'))} out (#1)")
    assert {vars(record)["facts"]["peer"] for record in log.records} == {who}
    await converse(sessions, play(says(b"PROXY UNKNOWN\r\n"), MEETS, LEAVES))
    assert log.lines[2] == "Accept new connection from client (#2)"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"GET / HTTP/1.1\r\n", r'it sent no PROXY header but "GET / HTTP/1.1\x0d\x0a"'),
        (HEADER + b"Ada\n", "the client does not speak TLS"),
        (b"", "no PROXY header within 4 s"),
    ],
    ids=["no header", "no TLS", "timeout"],
)
async def test_a_failed_handshake_is_logged_with_its_reason(
    autojump_clock: MockClock, authority: Authority, log: Log, said: bytes, why: str
) -> None:
    limits = Limits(handshake_timeout=4)
    sessions = secure_sessions(authority, limits=limits, proxy_protocol=True)
    async with nothing_left_open():
        client = await converse(sessions, play(says(said), hears_out))
    assert client.heard == b""
    peer = "192.0.2.1:4711 through client" if said.startswith(HEADER) else "client"
    seconds = "0.0" if said else "4.0"
    assert [record.getMessage() for record in log.records if record.levelno == logging.INFO] == [
        f"Accept new connection from {peer} (#1)",
        f"Connection from {peer} is closed: {why}; 0 names in {seconds} s, 0 bytes in, 0 out (#1)",
    ]
    assert warnings(log) == ["http"] * said.startswith(b"GET")
    assert reasons(sessions) == {"handshake": 1}


LOST, LEFT = ("connection_lost", RESET), ("exit", "the client said exit")
PROBED = ("eof", "the client ended it")
UNWELCOME = ("refused", 'the server said "Sorry, the server is full."')
HUNG_UP = ("handshake", "the client hung up during the handshake")
RESETS: dict[str, tuple[bytes | None, Step, tuple[str, str]]] = {
    "at once": (None, play(), PROBED),  # whether a reset or an end is seen is chance
    "after a name": (None, play(MEETS, GREETED), LOST),
    "half a line": (None, play(MEETS, GREETED, says(b"Gra")), LOST),
    "answers unread": (None, play(MEETS, says(b"Ada\n" * 20_000)), LOST),
    "closing": (None, play(MEETS, LEAVES), LEFT),
    "proxied, at once": (b"", settles(), ("handshake", RESET)),
    "header": (HEADER[:20], settles(), ("handshake", RESET)),
    "handshake": (HEADER + b"\x16\x03\x01", settles(), HUNG_UP),
    "TLS": (HEADER, MEETS, LOST),
    "answers in TLS unread": (HEADER, says_for_long(), LOST),
    "TLS closing": (HEADER, play(MEETS, LEAVES), LEFT),
    "refused": (HEADER, hears(FULL), UNWELCOME),
}


@pytest.mark.parametrize(("header", "script", "end"), RESETS.values(), ids=RESETS)
async def test_a_reset_ends_a_session_in_good_order(
    authority: Authority, log: Log, header: bytes | None, script: Step, end: tuple[str, str]
) -> None:
    """Plain, or, where there is a header, behind a proxy and in TLS."""
    sessions, (reason, why) = lines_sessions(), end
    if header is not None:
        sessions = secure_sessions(authority, limits=ONE_PLACE, proxy_protocol=True)
        begins = secures(authority.path) if header == HEADER else play()
        script = play(says(header), begins, script)
    if reason == "refused":
        sessions.places.admit()
    async with nothing_left_open():
        await converse(sessions, play(script, resets()), "TCP")
    assert closed(log)[0].startswith(f"{why}; ")
    warned = ["full"] * (reason == "refused")
    assert warnings(log) == warned
    assert {record.levelno for record in log.records} <= {logging.INFO, logging.WARNING}
    assert reasons(sessions) == {reason: 1}


# What is logged


async def test_events_are_logged_for_debugging(authority: Authority) -> None:
    sessions = secure_sessions(authority)
    with gathered(logging.DEBUG) as log:
        said = says(b"Ada\nGrace\n\x1b[31m\nexit\n")
        await converse(sessions, play(secures(authority.path), said, hears_rest(), ends()))
    assert [record.getMessage() for record in log.records if record.levelno == logging.DEBUG] == [
        "#1 speaks TLSv1.3",
        r"#1 NamesReceived(names=(b'Ada', b'Grace', b'\x1b[31m'))",
        "#1 ExitReceived()",
        "#1 EOFReceived()",
        "#1 ConversationEnded(reason=<EndReason.EXIT: 'exit'>, unanswered=())",
    ]


async def test_what_a_client_says_is_escaped_in_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in the traceback of a bug that has it in its message, and in a refused PROXY header."""
    break_core(monkeypatch, EVIL)
    text = ""
    for proxied, said in (False, b"\x1b[31mAda\x07\n"), (False, EVIL), (True, EVIL):
        with gathered(logging.DEBUG) as log:
            sessions = lines_sessions(proxy_protocol=proxied)
            await converse(sessions, play(says(said), ends(), hears_out))
        text += "\n".join(logging.Formatter().format(record) for record in log.records)
    assert "Traceback" in text
    assert text.replace("\n", "").isprintable()


# Another certificate


async def test_a_new_certificate_holds_for_new_sessions(
    authority: Authority, tmp_path: Path
) -> None:
    other = Authority(tmp_path)
    sessions = secure_sessions(authority, limits=ONE_PLACE)

    async def change(_: Peer) -> None:
        sessions.use_ssl_context(other.server())
        with pytest.RaisesGroup(HandshakeFailed, flatten_subgroups=True):
            await converse(sessions, secures(authority.path))
        await converse(sessions, play(secures(other.path), hears(FULL)))

    greeted = play(says(b"Grace\n"), hears(hello("Grace") + PROMPT))
    await converse(sessions, play(secures(authority.path), MEETS, change, greeted, LEAVES))
    await converse(sessions, play(secures(other.path), MEETS, greeted, LEAVES))
    assert reasons(sessions) == {"exit": 2, "handshake": 1, "refused": 1}
