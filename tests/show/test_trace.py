"""The trace in text, as whole pictures."""

import math
import re
import unicodedata
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from greeter_core import ClientConfig, Observed, Recording, ServerConfig, Step, TranscriptItem
from greeter_core._timers import Timer, Timers
from greeter_trio._show import diagram as _diagram
from greeter_trio._show.diagram import Diagram
from greeter_trio._show.timers import RunningTimers
from greeter_trio._show.trace import Trace
from tests.support.laws import Case, cases, law, play
from tests.support.recordings import golden
from tests.support.words import GOODBYE, PROMPT, WELCOME, hello

PEER = "192.0.2.1:42101"
REPLACED = "\ufffd"  # what stands for bytes that are not UTF-8


def picture(items: list[TranscriptItem], **options: Any) -> str:
    trace = Trace(**options)
    for item in items:
        trace.put(item)
    return "\n".join(["", *trace.lines()])


def recording() -> tuple[Recording, list[TranscriptItem]]:
    items: list[TranscriptItem] = []
    return Recording(items.append, now=0.0), items


def columns(line: str) -> int:
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in line)
    none = sum(unicodedata.category(char) in ("Mn", "Me", "Cf") for char in line)
    return len(line) + wide - none


def test_line_client() -> None:
    making, items = recording()
    server = making.server(now=0.0, peer=PEER)
    server.handle_timeout(0.02)
    server.receive_data("小明\n".encode(), 3.0)
    server.receive_data(b"exit\n", 5.5)
    server.receive_eof(5.501)
    assert (
        picture(items)
        == """

      ms     client 192.0.2.1:42101              server  the server's core
     0.0     │◀─ Welcome!⏎ ────────────────────── 9 ──│ PROMPT owed; pace 20 ms
    20.0     │◀─ What's your name? ───────────── 17 ──│ pace is over; idle 300 s
  3000.0     │── 小明⏎ ────────────────────────── 7 ─▶│ framing lines; name 小明
  3000.0     │◀─ Hello 小明!⏎What's your name? ─ 31 ──│ idle 300 s
  5500.0     │── exit⏎ ────────────────────────── 5 ─▶│ exit
  5500.0     │◀─ Goodbye!⏎ ────────────────────── 9 ──│ CLOSING; linger 2 s
  5500.0     │◀─ end of stream ───────────────────────│
  5501.0     │── end of stream ──────────────────────▶│ ENDED: exit"""
    )


def test_original_client_and_words_in_flight() -> None:
    making, items = recording()
    server = making.server(now=0.0, peer=PEER)
    server.data_in_flight(0.02)
    server.handle_timeout(0.04)
    server.receive_data(b"Ada", 1.0)
    server.handle_timeout(1.02)
    server.handle_timeout(1.04)
    server.handle_timeout(301.02)
    server.handle_timeout(303.02)
    assert (
        picture(items)
        == """

      ms     client 192.0.2.1:42101              server  the server's core
     0.0     │◀─ Welcome!⏎ ────────────────────── 9 ──│ PROMPT owed; pace 20 ms
    20.0     │                                        │ not acknowledged yet
             │                                        │ pace 20 ms
    40.0     │◀─ What's your name? ───────────── 17 ──│ pace is over; idle 300 s
  1000.0     │── Ada ──────────────────────────── 3 ─▶│ quiet 20 ms
  1020.0     │◀─ Hello Ada!⏎ ─────────────────── 11 ──│ quiet is over
             │                                        │ framing raw; name Ada
             │                                        │ PROMPT owed; pace 20 ms
  1040.0     │◀─ What's your name? ───────────── 17 ──│ pace is over; idle 300 s
301020.0     │◀─ Sorry, no name came in time.⏎ ─ 29 ──│ idle is over
             │                                        │ refused: no name in time
             │                                        │ CLOSING; linger 2 s
301020.0     │◀─ end of stream ───────────────────────│
303020.0     │                                        │ linger is over
             │                                        │ ENDED: refused"""
    )


def test_a_client_of_greeters_own() -> None:
    making, items = recording()
    client = making.client(ClientConfig(), now=0.0, peer="127.0.0.1:6000")
    client.observe("connect", -0.001)
    client.send_names([b"Ada", b"Bob"], 0.0)
    client.receive_data(WELCOME + PROMPT, 0.5)
    client.receive_data(hello(b"Ada") + PROMPT, 1.0)
    client.receive_data(hello(b"Bob") + PROMPT, 1.5)
    client.send_exit(2.0)
    client.receive_data(GOODBYE, 2.5)
    client.receive_eof(2.75)
    assert (
        picture(items)
        == """

      ms     client               server 127.0.0.1:6000  the client's core
    -1.0     │ connect                                │
     0.0     │                                        │ reply 10 s
     0.0     │                                        │ asked for 2 names
   500.0     │◀─ Welcome!⏎What's your name? ──── 26 ──│ welcomed
             │                                        │ asked for a name
   500.0     │── Ada⏎ ─────────────────────────── 4 ─▶│ reply 10 s
  1000.0     │◀─ Hello Ada!⏎What's your name? ── 28 ──│ framing lines
             │                                        │ greeted: name Ada
             │                                        │ asked for a name
  1000.0     │── Bob⏎ ─────────────────────────── 4 ─▶│ reply 10 s
  1500.0     │◀─ Hello Bob!⏎What's your name? ── 28 ──│ greeted: name Bob
             │                                        │ asked for a name
  2000.0     │── exit⏎ ────────────────────────── 5 ─▶│ asked for exit
             │                                        │ reply 10 s
  2500.0     │◀─ Goodbye!⏎ ────────────────────── 9 ──│ goodbye heard; CLOSING
             │                                        │ linger 2 s
  2500.0     │── end of stream ──────────────────────▶│
  2750.0     │◀─ end of stream ───────────────────────│ ENDED: exit"""
    )


def test_several_at_once() -> None:
    making, items = recording()
    first = making.server(now=0.0, peer="192.0.2.1:1")
    second = making.server(now=0.001, peer="192.0.2.1:2", full=True)
    second.connection_lost()
    first.shutdown(0.5)
    assert (
        picture(items)
        == """

      ms     client 192.0.2.1:1                  server  the server's core
     0.0     │◀─ Welcome!⏎ ────────────────────── 9 ──│ PROMPT owed; pace 20 ms

      ms #2  client 192.0.2.1:2                  server  the server's core
     0.0 #2  │◀─ Sorry, the server is full.⏎ ─── 27 ──│ refused: server full
         #2  │                                        │ CLOSING; linger 2 s
     0.0 #2  │◀─ end of stream ───────────────────────│
     0.0 #2  │                                        │ connection lost
         #2  │                                        │ ENDED: refused
   500.0 #1  │◀─ What's your name?Goodbye!⏎ ──── 26 ──│ pace is over
         #1  │                                        │ told to shut down
         #1  │                                        │ CLOSING; linger 2 s
   500.0 #1  │◀─ end of stream ───────────────────────│"""
    )


def test_hostile_names() -> None:
    making, items = recording()
    server = making.server(now=0.0, peer=f"\x1b[2J{'x' * 50}")
    server.receive_data(b"\x1b[31m\x00\xff\n", 1.0)
    server.receive_data("\u202e\u200fe\u0301\U0001f600\n".encode(), 2.0)
    server.receive_data(b"x" * 1024 + b"\r\n", 3.0)
    emoji = "e\u0301\U0001f600"  # a combining mark, and a wide character
    assert (
        picture(items)
        == rf"""

      ms     client \x1b[2Jxxxxxxxxxxxxxxx…      server  the server's core
     0.0     │◀─ Welcome!⏎ ────────────────────── 9 ──│ PROMPT owed; pace 20 ms
  1000.0     │── \x1b[31m\x00{REPLACED}⏎ ───────────────── 8 ─▶│ framing lines
             │                                        │ name \x1b[31m\x00{REPLACED}
  1000.0     │◀─ What's your name?Hello \x1b[3…  49 ──│ idle 300 s
  2000.0     │── \u202e\u200f{emoji}⏎ ────────────── 14 ─▶│ name \u202e\u200f{emoji}
  2000.0     │◀─ Hello \u202e\u200f{emoji}!⏎What's…  38 ──│ idle 300 s
  3000.0     │── xxxxxxxxxxxxxxxxxxxxxxxxxxx…  1026 ─▶│ name
             │                                        │ xxxxxxxxxxxxxxxxxxxxxxxx
             │                                        │ xxxxxxxxxxxxxxx…
  3000.0     │◀─ Hello xxxxxxxxxxxxxxxxxxxxx…  1049 ──│ idle 300 s"""
    )


def test_segments_calls_and_states_of_tcp_of_a_real_conversation() -> None:
    """The README shows this picture, and LEARNING.md explains it."""
    lines = picture(golden("demo")).splitlines()
    assert lines[3:9] == [
        "    -0.7     │ connect                                │",
        "    -0.6     │╌╌ SYN  seq 0 ╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌▶│",
        "    -0.6     │◀╌ SYN ACK  seq 0  ack 1 ╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌│",
        "    -0.6     │╌╌ ACK  ack 1 ╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌▶│",
        "    -0.2     │ ESTABLISHED  rtt 0.034 ms              │",
        "    -0.1     │                                 accept │",
    ]
    assert lines[-1] == "   744.2     │                              TIME_WAIT │"


def test_tcp_can_be_left_out() -> None:
    trace = Trace()
    trace.shows_tcp = False
    for item in golden("demo"):
        trace.put(item)
    text = "\n".join(trace.lines())
    assert not re.search("SYN|connect|ESTABLISHED|receive", text)
    assert "Hello Alice" in text


def test_segments_that_are_assumed_are_drawn_as_such() -> None:
    making, items = recording()
    server = making.server(now=0.0)
    fields = {"from": "client", "flags": ["SYN"], "seq": 0, "length": 0, "assumed": True}
    server.observe("segment", 0.0, **fields)
    assert "│┄┄ SYN  seq 0 ┄┄┄┄" in picture(items)


@pytest.mark.parametrize(
    ("what", "fields"),
    [
        ("unknown", {"from": "client"}),
        ("segment", {"from": "client", "seq": 1}),
        ("segment", {"from": "elsewhere", "flags": ["SYN"], "seq": 1}),
        ("send", {"bytes": "many"}),
        ("tcp", {"state": None}),
        ("note", {}),
    ],
)
def test_what_is_not_understood_is_passed_over(what: str, fields: dict[str, Any]) -> None:
    assert picture([Observed(id=1, at=0.0, what=what, fields=fields)]) == ""


def test_client_of_what_is_no_greeter() -> None:
    making, items = recording()
    making.client(now=0.0).receive_data(b"HTTP/1.1 400", 0.5)
    refused = making.client(now=1.0)
    refused.receive_data(b"Sorry, the server is full.\n", 1.5)
    shown = picture(items)
    assert "no greeter" in shown
    assert "ENDED: protocol" in shown  # and below it, violation
    assert "refused; CLOSING" in shown


def test_remark() -> None:
    making, items = recording()
    making.server(now=0.0).observe("note", 1.0, text="a sentence that is longer than one line is")
    assert picture(items).endswith("""
             │ a sentence that is longer than one     │
             │ line is                                │""")


def test_conversations_that_are_over_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_diagram, "_REMEMBERED", 2)
    diagram, (making, items) = Diagram(), recording()
    for number in range(5):
        server = making.server(now=float(number))
        server.receive_eof(number + 0.5)
    for item in [*items, Observed(id=7, at=0.0, what="close"), *items[:1]]:
        diagram.rows(item)
    late = [Observed(id=number, at=1.0, what="close") for number in (5, 2)]
    assert [row.time for item in late for row in diagram.rows(item)] == [5.0, 1.0]
    assert len(diagram._conversations) <= 4


def test_number_that_is_used_again_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_diagram, "_REMEMBERED", 1)
    diagram, (making, items) = Diagram(), recording()
    making.server(now=0.0).receive_eof(1.0)
    making.server(now=0.0).receive_eof(1.0)
    ended, other = items[:2], items[2:]
    for item in [*ended, ended[0], *other]:
        diagram.rows(item)
    assert diagram.rows(ended[1])


def test_what_is_known_late_finds_its_place() -> None:
    making, items = recording()
    server = making.server(now=1.0)
    server.observe("accept", 0.5)
    trace = Trace()
    for item in items:
        trace.put(item)
    assert len(list(trace.lines(0.75))) == 3  # the heading, and what came before the opening
    assert trace.newest == 1.0
    assert len(list(trace.lines())) == 1


def test_colour_adds_nothing_but_colour() -> None:
    items = [*golden("demo"), *golden("refused")]
    coloured = picture(items, colour=True)
    assert coloured.count("\x1b[") > 100
    assert re.sub(r"\x1b\[\d+m", "", coloured) == picture(items)


some_values = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats()),
    *(st.text(max_size=5), st.sampled_from(["\ud800", "\x1b[2J"]), st.lists(st.integers())),
)
FIELDS = "end from flags seq ack length window bytes state text assumed"
KINDS = "connect accept receive send half_close close tcp segment note other"
some_fields = st.dictionaries(
    st.sampled_from(FIELDS.split()),
    st.one_of(some_values, st.sampled_from(["client", "server", ["SYN", "ACK"]])),
)
some_text = st.one_of(st.text(max_size=40), st.sampled_from(["\ud800", "\x1b[2J", "x" * 5000]))
observations = st.builds(
    Observed,
    id=st.integers(1, 3),
    at=st.floats(-1e6, 1e6),
    what=st.sampled_from(KINDS.split()),
    fields=some_fields,
)


def odd(what: str, **fields: object) -> Observed:
    return Observed(
        id=1, at=0.0, what=what, fields={"from": "client", "flags": [], "seq": 0} | fields
    )


@given(cases, st.lists(observations, max_size=5), some_text)
@example(Case(ServerConfig(), []), [odd("segment", length="\x1b[2J")], "")
@example(Case(ServerConfig(), []), [odd("segment", flags=["\x1b"], length=True)], "\x9b")
@example(Case(ServerConfig(), []), [odd("tcp", state="\ud800\x1b")], "\ud800")
@law(200)
def test_every_line_fits_and_is_harmless(case: Case, observed: list[Observed], peer: str) -> None:
    making, items = recording()
    if isinstance(case.config, ServerConfig):
        play(making.server(case.config, now=0.0, full=case.full, peer=peer), case.script)
    else:
        play(making.client(case.config, now=0.0, peer=peer), case.script)
    for line in picture([*items, *observed]).splitlines():
        assert columns(line) <= 80
        assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e]", line)


@pytest.mark.parametrize("name", ["nc", "slow", "reset", "client", "shutdown"])
def test_golden_pictures_fit(name: str) -> None:
    assert max(map(columns, picture(golden(name)).splitlines())) <= 80


@given(cases)
@law(300)
def test_timer_is_named_as_the_core_has_it(case: Case) -> None:
    making, items = recording()
    if isinstance(case.config, ServerConfig):
        connection: Any = making.server(case.config, now=0.0, full=case.full)
    else:
        connection = making.client(case.config, now=0.0)
    first = items[0]
    assert isinstance(first, Step)
    assert first.opening
    derived = RunningTimers(first.opening.config)
    for number in range(len(case.script) + 1):
        play(connection, case.script[number - 1 : number])
        for item in items:
            assert isinstance(item, Step)
            derived.follow(item)
        items.clear()
        running: Timers = connection._connection._timers
        due = running.deadline
        expected = "" if due == math.inf else Timer(running._deadlines.index(due)).name.lower()
        assert derived.name == expected
        assert derived.prompt_is_owed == connection.prompt_owed
