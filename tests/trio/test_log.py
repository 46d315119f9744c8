"""What the server tells about itself (`_log.py`, and the log's side of `_conversation.py`)."""

import contextlib
import datetime as dt
import io
import json
import logging
import os
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from greeter_core import Framing, ServerConfig, ServerConnection
from greeter_trio._net.proxy import encode_v1, encode_v2
from greeter_trio._net.tls import HandshakeFailed, server_context
from greeter_trio._server import Service
from greeter_trio._service.limits import Limits, Terms
from greeter_trio._service.log import Counters, JsonFormatter, PatientHandler, logger
from greeter_trio._service.session import Conversation

from .certificates import Authority
from .helpers import (
    PROMPT,
    SETTLED,
    WELCOME,
    Log,
    Peer,
    dialogue,
    gathered,
    hosting,
    lines_service,
    nothing_left_open,
    serving,
)
from .helpers import Service as RunningService

SOURCE = ("192.0.2.1", 4711)
HEADER = encode_v1(SOURCE, ("192.0.2.2", 6000))
EVIL = "\x1b]0;gotcha\x07\x9b2J\u202e\u2028\n\r".encode() + b"\xff\x80"


def own_address(peer: Peer) -> str:
    """Return the address from which this peer has connected."""
    assert isinstance(peer.stream, trio.SocketStream)
    return "{}:{}".format(*peer.stream.socket.getsockname())


def facts(log: Log, event: str) -> list[dict[str, Any]]:
    """Return the facts of all lines about such an event."""
    found = [getattr(record, "facts", {}) for record in log.records]
    return [each for each in found if each.get("event") == event]


# JSON


def line_of(
    level: int, message: str, *args: object, exc_info: Any = None, **facts: object
) -> dict[str, Any]:
    """Return what becomes of such a line."""
    record = logger.makeRecord(
        logger.name,
        level,
        "",
        0,
        message,
        args,
        exc_info,
        extra={"facts": facts} if facts else None,
    )
    text = JsonFormatter().format(record)
    assert text.isascii()
    assert text.isprintable()
    line = json.loads(text)
    assert isinstance(line, dict)
    return line


def test_a_line_is_an_object() -> None:
    """A line has the time, the level in lower case, the message, and the facts beside them."""
    line = line_of(
        logging.INFO, "%s and %d", "Ada", 7, event="open", connection=3, seconds=1.5, nothing=None
    )
    del line["time"]
    assert line == {
        "level": "info",
        "message": "Ada and 7",
        "event": "open",
        "connection": 3,
        "seconds": 1.5,
        "nothing": None,
    }


def test_a_line_without_facts() -> None:
    """Lines that have no facts are objects as well."""
    assert set(line_of(logging.WARNING, "careful")) == {"time", "level", "message"}


def test_the_time_is_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is that of the event, in UTC with a Z, and in milliseconds even where they are zero."""
    record = logger.makeRecord(logger.name, logging.INFO, "", 0, "late", (), None)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    for created, text in [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_700_000_000.9876, "2023-11-14T22:13:20.987Z"),
    ]:
        record.created = created
        line = json.loads(JsonFormatter().format(record))
        assert line["time"] == text
        assert dt.datetime.fromisoformat(line["time"]).tzinfo == dt.UTC


def test_a_traceback_is_in_its_object() -> None:
    """The traceback of a bug is a part of the object, and does not make lines of its own."""

    def fail() -> None:
        raise RuntimeError(EVIL.decode(errors="replace"))

    try:
        fail()
    except RuntimeError:
        line = line_of(logging.ERROR, "failed", exc_info=sys.exc_info(), event="failed")
    assert line["traceback"].startswith("Traceback (most recent call last):\n")
    assert "RuntimeError" in line["traceback"]


async def test_everything_that_is_logged_is_json(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """All lines of a conversation, of a bug and of a refusal are objects, and hostile bytes are escaped."""
    _break_core(monkeypatch, b"bug")
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        async with nothing_left_open(), serving(proxy_protocol=True) as service:
            for number, said in enumerate(
                [HEADER + EVIL + b"\nexit\n", EVIL, HEADER + b"bug" + EVIL], start=1
            ):
                peer = await service.connect()
                await peer.say(said)
                with contextlib.suppress(trio.BrokenResourceError):  # who is no client is reset
                    await peer.hear_all()
                await peer.close()
                await log.line("is closed", number)
    finally:
        logger.removeHandler(handler)
    text = stream.getvalue()
    assert text.isascii()
    assert text.replace("\n", "").isprintable()
    lines = [json.loads(line) for line in text.splitlines()]
    assert len(lines) == len(log.records)
    closed = [line for line in lines if line.get("event") == "closed"]
    assert [line["reason"] for line in closed] == ["exit", "handshake", "bug"]
    assert [line["connection"] for line in closed] == [1, 2, 3]
    (failed,) = [line for line in lines if "traceback" in line]
    assert (failed["level"], failed["event"], failed["connection"]) == ("error", "failed", 3)


def _break_core(monkeypatch: pytest.MonkeyPatch, word: bytes) -> None:
    """Give the core a bug that this word brings to light."""
    receive_data = ServerConnection.receive_data

    def fail(self: ServerConnection, data: bytes, now: float) -> None:
        if word in data:
            msg = f"a bug in the core: {data!r}"
            raise RuntimeError(msg)
        receive_data(self, data, now)

    monkeypatch.setattr(ServerConnection, "receive_data", fail)


# Facts


async def test_facts_of_a_conversation(autojump_clock: MockClock, log: Log) -> None:
    """What a person reads in the two lines of a conversation is there for programs, too."""
    autojump_clock.autojump_threshold = SETTLED
    async with serving() as service:
        peer = await service.connect()
        who = own_address(peer)
        await peer.meet()
        await trio.sleep(1.2346)
        await peer.be_greeted(b"Ada")
        await peer.leave()
        await log.line("is closed")
    assert facts(log, "open") == [{"event": "open", "connection": 1, "peer": who}]
    assert facts(log, "closed") == [
        {
            "event": "closed",
            "connection": 1,
            "peer": who,
            "reason": "exit",
            "names": 1,
            "received_bytes": 9,
            "sent_bytes": len(dialogue(b"Ada")),
            "seconds": 1.235,
        }
    ]


async def test_connections_have_numbers(log: Log) -> None:
    """Connections are numbered as they are accepted, from 1, and both lines of each have its number."""
    async with serving() as service:
        peers = [await service.connect() for _ in range(30)]
        for peer in peers:
            await peer.meet()
        for peer in reversed(peers):
            await peer.leave()
        await log.line("is closed", 30)
    assert [each["connection"] for each in facts(log, "open")] == list(range(1, 31))
    assert sorted(each["connection"] for each in facts(log, "closed")) == list(range(1, 31))
    for record in log.records[1:]:
        assert record.getMessage().endswith(f" (#{record.facts['connection']})")  # type: ignore[attr-defined]


# Levels


@pytest.mark.parametrize("level", [logging.WARNING, logging.ERROR])
async def test_lines_that_nobody_wants_cost_nothing(
    monkeypatch: pytest.MonkeyPatch, level: int
) -> None:
    """Where only problems are logged, nothing is put together for what is none, and it is counted all the same."""
    made: list[object] = []
    monkeypatch.setattr(Conversation, "_extra", lambda self, *_, **__: made.append(self))
    service = lines_service()
    with gathered(level) as log:
        async with hosting(service) as running:
            peer = await running.connect()
            await peer.meet()
            await peer.be_greeted(b"Ada")
            await peer.leave()
            (await running.connect()).reset()
            running.shutdown.set()
            await running.over.wait()
    assert log.records == []
    assert made == []
    assert service.counters.closed == {"exit": 1, "connection_lost": 1}


async def test_problems_are_logged_at_every_level(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug is an error, and has its traceback, where nothing else is logged."""
    _break_core(monkeypatch, b"bug")
    with gathered(logging.ERROR) as log:
        async with serving() as service:
            peer = await service.connect()
            who = own_address(peer)
            await peer.meet()
            await peer.say(b"bug\n")
            await peer.expect_end()
            await peer.close()
    (record,) = log.records
    assert record.getMessage() == f"The conversation with {who} failed"
    assert record.exc_info


async def test_details(authority: Authority) -> None:
    """At the level debug every event of a conversation is a line, with its number, and the version of TLS is, too."""
    context = server_context(authority.issue("localhost"), None)
    with gathered(logging.DEBUG) as log:
        async with serving(ssl_context=context) as service:
            peer = await service.connect_through_tls(authority.path)
            await peer.meet()
            await peer.say(b"Ada\nGrace\n\x1b[31m\nexit\n")
            await peer.hear_all()
            await peer.end()
            await log.line("is closed")
            await peer.close()
    details = [record.getMessage() for record in log.records if record.levelno == logging.DEBUG]
    assert details == [
        "#1 speaks TLSv1.3",
        r"#1 NamesReceived(names=(b'Ada', b'Grace', b'\x1b[31m'))",
        "#1 ExitReceived()",
        "#1 EOFReceived()",
        "#1 ConversationEnded(reason=<EndReason.EXIT: 'exit'>, unanswered=())",
    ]


# The proxy's client, and TLS


@pytest.mark.parametrize("encode", [encode_v1, encode_v2])
async def test_the_log_has_the_source(log: Log, encode: Any) -> None:  # noqa: ANN401 - either of the two
    """Behind a proxy the log has the client's address, and through whom it came."""
    async with nothing_left_open(), serving(proxy_protocol=True) as service:
        peer = await service.connect()
        proxy = own_address(peer)
        await peer.say(encode(SOURCE, ("192.0.2.2", 6000)) + b"Ada\n")
        await peer.expect(WELCOME + PROMPT + b"Hello Ada!\n" + PROMPT)
        await peer.leave()
        closed = await log.line("is closed")
    who = f"192.0.2.1:4711 through {proxy}"
    assert log.lines[1] == f"Accept new connection from {who} (#1)"
    assert closed.startswith(f"Connection from {who} is closed: the client said exit; 1 name in ")
    assert closed.endswith(f", 9 bytes in, {len(dialogue(b'Ada'))} out (#1)")  # without the header
    assert {each["peer"] for each in [*facts(log, "open"), *facts(log, "closed")]} == {who}


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", encode_v2("", "")])
async def test_a_proxy_that_speaks_for_itself(log: Log, header: bytes) -> None:
    """Without a source the log has the peer's own address."""
    async with nothing_left_open(), serving(proxy_protocol=True) as service:
        peer = await service.connect()
        await peer.say(header)
        await peer.meet()
        await peer.leave()
        await log.line("is closed")
        assert log.lines[1].startswith("Accept new connection from 127.0.0.1:")
        assert "through" not in log.lines[1]


async def test_a_client_without_header(log: Log) -> None:
    """A client that does not begin with a header is hung up on, without a word, and its last line says why."""
    async with nothing_left_open(), serving(proxy_protocol=True) as service:
        peer = await service.connect()
        who = own_address(peer)
        await peer.say(b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises(trio.BrokenResourceError):  # it has said something that nobody has read
            assert await peer.hear_all() == []
        await peer.close()
        line = await log.line("is closed")
        why = r'it sent no PROXY header but "GET / HTTP/1.1\x0d\x0a\x0d\x0a"'
        assert line.startswith(f"Connection from {who} is closed: {why}; 0 names in ")
        assert line.endswith(", 0 bytes in, 0 out (#1)")
    assert len(log.lines) == 3
    assert [each["reason"] for each in facts(log, "closed")] == ["handshake"]


async def test_a_header_that_is_reset(log: Log) -> None:
    """A client that breaks the connection in its header has a line, too."""
    async with nothing_left_open(), serving(proxy_protocol=True) as service:
        peer = await service.connect()
        await peer.say(HEADER[:7])
        await trio.testing.wait_all_tasks_blocked(SETTLED)
        peer.reset()
        line = await log.line("is closed")
        assert "Connection reset by peer" in line
    assert [each["reason"] for each in facts(log, "closed")] == ["handshake"]


async def test_a_client_that_speaks_no_tls(log: Log, authority: Authority) -> None:
    """A client that talks plainly to a server that wants TLS is hung up on, and its line says why."""
    context = server_context(authority.issue("localhost"), None)
    async with nothing_left_open(), serving(ssl_context=context) as service:
        peer = await service.connect()
        await peer.say(b"Ada\n")
        await peer.expect_end()
        await peer.close()
        line = await log.line("is closed")
    assert " is closed: the client does not speak TLS; 0 names in " in line
    assert [each["reason"] for each in facts(log, "closed")] == ["handshake"]
    assert len(log.lines) == 3


async def test_a_client_that_speaks_another_tls(
    log: Log, authority: Authority, tmp_path: Path
) -> None:
    """A client that does not trust the server's certificate has its reason in the log, through a proxy as well."""
    foreign = Authority(tmp_path)
    context = server_context(foreign.issue("localhost"), None)
    async with nothing_left_open(), serving(ssl_context=context, proxy_protocol=True) as service:
        with pytest.raises(HandshakeFailed):
            await service.connect_through_tls(authority.path, HEADER)
        line = await log.line("is closed")
    assert line.startswith("Connection from 192.0.2.1:4711 through 127.0.0.1:")
    assert "the client does not trust the CA that signed our certificate" in line


async def test_a_new_certificate_holds_for_new_clients(
    log: Log, authority: Authority, tmp_path: Path
) -> None:
    """When the context is replaced the next client sees the new certificate, and those who are there notice nothing."""
    other = Authority(tmp_path)
    service = lines_service(ssl_context=server_context(authority.issue("localhost"), None))
    async with nothing_left_open(), hosting(service) as running:
        old = await running.connect_through_tls(authority.path)
        await old.meet()
        service.terms.ssl_context = server_context(other.issue("localhost"), None)
        with pytest.raises(HandshakeFailed):
            await running.connect_through_tls(authority.path)
        new = await running.connect_through_tls(other.path)
        await new.meet()
        await old.be_greeted(b"Ada")
        await new.leave()
        await old.leave()
        await log.line("is closed", 3)
    assert service.counters.closed == {"exit": 2, "handshake": 1}


# Counters


async def test_counters_add_up(
    autojump_clock: MockClock, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every connection is counted once, with the reason for its end; so is every name, and every byte."""
    autojump_clock.autojump_threshold = SETTLED
    _break_core(monkeypatch, b"bug")
    terms = Terms(
        config=ServerConfig(framing=Framing.LINES, idle_timeout=50, max_lifetime=60),
        limits=Limits(handshake_timeout=5, grace=1),
        proxy_protocol=True,
    )
    service = Service(terms)
    async with nothing_left_open(), hosting(service) as running:
        heard = await _end_in_many_ways(running, service, log)
        heard += await _let_time_pass(running, log)
    counters = service.counters
    assert counters.accepted == 10
    assert counters.closed == {
        "exit": 1,
        "eof": 1,
        "refused": 3,  # a long name, and two who were idle
        "bug": 1,
        "handshake": 2,
        "lifetime": 1,
        "shutdown": 1,
    }
    assert counters.names == 9
    assert counters.sent == heard
    assert counters.received == 4 * len(b"Ada\nGrace\n") + len(b"exit\n") + 1025 + len(
        b"bug\n"
    ) + len(b"Ada\n")
    closed = facts(log, "closed")
    assert Counter(each["reason"] for each in closed) == counters.closed
    for name, key in [("names", "names"), ("received", "received_bytes"), ("sent", "sent_bytes")]:
        assert getattr(counters, name) == sum(each[key] for each in closed)
    assert counters.facts()["greeter_connections_open"] == 0


async def _end_in_many_ways(running: RunningService, service: Service, log: Log) -> int:
    """Have six conversations, one after the other, or what does not become one; return how many bytes were heard."""
    heard = 0
    assert service.counters.facts()["greeter_connections_open"] == 0
    for number, said in enumerate([b"exit\n", b"", b"x" * 1025, b"bug\n"], start=1):
        peer = await running.connect()
        await peer.say(HEADER)
        await peer.meet()
        await peer.be_greeted(b"Ada", b"Grace")
        assert service.counters.names == 2 * number  # of those who are there, too
        assert service.counters.facts()["greeter_connections_open"] == 1
        await (peer.say(said) if said else peer.end())
        await peer.hear_all()
        heard += len(peer.heard)
        await peer.close()
        await log.line("is closed", number)
    (await running.connect()).reset()
    await log.line("is closed", 5)
    silent = await running.connect()
    await log.line("is closed", 6)
    await silent.close()
    return heard


async def _let_time_pass(running: RunningService, log: Log) -> int:
    """Have four conversations that are too long, one of them because of a shutdown."""
    idle, busy, other = peers = [await running.connect() for _ in range(3)]
    for peer in peers:
        await peer.say(HEADER)
        await peer.meet()
    await trio.sleep(30)
    await busy.be_greeted(b"Ada")
    for peer in (idle, busy, other):
        await peer.hear_all()
        await peer.close()
    await log.line("is closed", 9)
    late = await running.connect()
    await late.say(HEADER)
    await late.meet()
    running.shutdown.set()
    await late.hear_all()
    await late.close()
    await running.over.wait()
    return sum(len(peer.heard) for peer in (*peers, late))


def test_counters_have_names_that_prometheus_knows() -> None:
    """All names are those of metrics with at most one label; what only grows ends in `_total`."""
    counters = Counters(7, Counter(exit=2, connection_lost=1), 3, 40, 500, 6)
    assert counters.facts() == {
        "greeter_connections_accepted_total": 7,
        "greeter_connections_open": 4,
        'greeter_connections_closed_total{reason="connection_lost"}': 1,
        'greeter_connections_closed_total{reason="exit"}': 2,
        "greeter_names_greeted_total": 3,
        "greeter_received_bytes_total": 40,
        "greeter_sent_bytes_total": 500,
        "greeter_accept_failures_total": 6,
    }
    for name in counters.facts():
        assert re.fullmatch(
            r'[a-zA-Z_:][a-zA-Z0-9_:]*(\{[a-zA-Z_][a-zA-Z0-9_]*="[^"\\\n]*"\})?', name
        )


def test_counters_can_be_added() -> None:
    """The sum has all numbers and all reasons of both, and leaves them alone."""
    one, two = (
        Counters(1, Counter(exit=1, eof=2), 3, 4, 5, 6),
        Counters(10, Counter(eof=20), 30, 40, 50, 60),
    )
    assert one + two == Counters(11, Counter(exit=1, eof=22), 33, 44, 55, 66)
    assert one == Counters(1, Counter(exit=1, eof=2), 3, 4, 5, 6)
    assert Counters().closed == {}


def test_counters_are_one_line(log: Log) -> None:
    """A person gets all counters in one line, and a program the same ones as facts."""
    Counters(2, Counter(exit=1), 3, 40, 500).log()
    (record,) = log.records
    assert record.levelno == logging.INFO
    assert record.getMessage() == (
        "Counters: greeter_connections_accepted_total 2, greeter_connections_open 1, "
        'greeter_connections_closed_total{reason="exit"} 1, greeter_names_greeted_total 3, '
        "greeter_received_bytes_total 40, greeter_sent_bytes_total 500, greeter_accept_failures_total 0"
    )
    assert record.facts == Counters(2, Counter(exit=1), 3, 40, 500).facts()  # type: ignore[attr-defined]


def test_counters_are_written_at_any_level() -> None:
    """Whoever asks for the counters gets them, also where only errors are logged."""
    with gathered(logging.ERROR) as log:
        Counters(accepted=3).log()
    (line,) = log.lines
    assert line.startswith(
        "Counters: greeter_connections_accepted_total 3, greeter_connections_open 3, "
    )


# A log that nobody reads


def test_a_log_that_nobody_reads_waits_for_nobody() -> None:
    """Lines that would block are dropped, and their number is told when the log is read again."""
    if sys.platform == "win32":
        pytest.skip("nothing tells whether a line would block")
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with os.fdopen(reader, "rb", buffering=0) as log, os.fdopen(writer, "w") as stream:
        filled = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                filled += os.write(writer, b"x" * 1024)
        os.set_blocking(writer, True)
        handler = PatientHandler(stream)
        for number in range(4):
            handler.emit(logging.makeLogRecord({"msg": f"line {number}"}))
        while filled:
            filled -= len(log.read(filled))
        handler.emit(logging.makeLogRecord({"msg": "line 4"}))
        handler.emit(logging.makeLogRecord({"msg": "line 5"}))
        assert log.read(1000) == b"Nobody read the log: 4 lines dropped\nline 4\nline 5\n"
