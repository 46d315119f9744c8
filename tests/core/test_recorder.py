"""The recorder is a connection like the one it wraps, and its steps are true (TRANSCRIPT.md)."""

import math
import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from greeter_core import (
    ClientConfig,
    ClientConnection,
    ConversationEnded,
    EndReason,
    EOFReceived,
    ExitReceived,
    Framing,
    LocalProtocolError,
    NamesReceived,
    Observed,
    Opening,
    Recorder,
    Recording,
    ServerConfig,
    ServerConnection,
    ServerState,
    Step,
    StepInput,
    TranscriptItem,
)
from tests.support.laws import Case, cases, law, play
from tests.support.words import GOODBYE, PROMPT, WELCOME, hello

from .transcripts import recorded


def steps_of(connection: Any, opened: float = 0.0) -> tuple[Recorder[Any], list[TranscriptItem]]:
    items: list[TranscriptItem] = []
    return Recorder(connection, items.append, now=opened), items


def take(connection: Recorder[Any]) -> tuple[bytes, bool, list[Any]]:
    return connection.data_to_send(), connection.eof_to_send(), connection.events()


# The same interface


@given(cases)
@law(150)
def test_recorded_connection_does_what_the_plain_one_does(case: Case) -> None:
    plain, watched = case.open(), recorded(case, [])
    assert play(watched, case.script) == play(plain, case.script)
    assert watched.time == plain.time
    assert watched.prompt_owed == plain.prompt_owed
    assert watched.timeout(0) == plain.timeout(0)
    assert watched.reads_while_sending == plain.reads_while_sending
    if isinstance(plain, ClientConnection):
        assert watched.unanswered == plain.unanswered
        assert watched.unsent == plain.unsent


openings = st.one_of(
    st.floats(0, 1e12), st.floats(-1e6, 1e6), st.sampled_from([0.0, 5e-324, 1e300, 0.1, -0.1, -300])
)
delays = st.one_of(st.floats(5e-324, 1e9), st.sampled_from([0.02, 0.1, 300.0, 1e-9, 1e-320]))


@given(openings, delays)
@law(400)
def test_deadline_has_come_when_the_caller_is_told_so(opened: float, pace: float) -> None:
    """A driver that is woken exactly at the deadline does not call in vain [T1]."""
    config = ServerConfig(pace=pace, idle_timeout=math.inf)
    connection, items = steps_of(ServerConnection(config, now=0.0), opened)
    take(connection)
    connection.handle_timeout(connection.deadline)
    assert take(connection)[0] == PROMPT
    assert connection.deadline == math.inf
    assert isinstance(items[-1], Step)
    assert items[-1].at >= pace


@given(st.floats(0, 1e9), st.floats(1e-3, 1e6))
@example(3 * 2**-45, 300.0)  # the sum and the difference are both rounded up
@law(400)
def test_deadline_has_not_come_the_moment_before(opened: float, pace: float) -> None:
    config = ServerConfig(pace=pace, idle_timeout=math.inf)
    connection, _ = steps_of(ServerConnection(config, now=0.0), opened)
    before = math.nextafter(connection.deadline, -math.inf)
    connection.handle_timeout(before)
    assert connection.data_to_send() == WELCOME


def test_wrong_calls_are_refused_before_anything_is_recorded() -> None:
    connection, items = steps_of(ServerConnection(now=0.0), 5)
    del items[:]
    for wrong in (math.nan, "1", None):
        with pytest.raises(LocalProtocolError, match="now must be"):
            connection.handle_timeout(wrong)  # type: ignore[arg-type]
    with pytest.raises(LocalProtocolError, match="empty"):
        connection.receive_data(b"", 6)
    with pytest.raises(LocalProtocolError, match="must be bytes"):
        connection.receive_data("Ada", 6)  # type: ignore[arg-type]
    assert items == []
    assert connection.time == 5


@pytest.mark.parametrize("names", [None, b"Ada", "Ada", [b"Ada", b""]], ids=repr)
def test_wrong_names_are_refused_as_by_the_plain_connection(names: Any) -> None:
    recorded, items = steps_of(ClientConnection(now=0.0))
    with pytest.raises(LocalProtocolError) as plain:
        ClientConnection(now=0.0).send_names(names, 1)
    with pytest.raises(LocalProtocolError, match=re.escape(str(plain.value))):
        recorded.send_names(names, 1)
    assert len(items) == 1


@pytest.mark.parametrize("now", [0.5, 1e9])
def test_connection_to_be_recorded_must_live_on_its_own_clock(now: float) -> None:
    with pytest.raises(LocalProtocolError, match=r"made with now=0\.0, not now="):
        steps_of(ServerConnection(now=now))


def test_output_that_was_not_taken_is_kept_and_handed_out_in_order() -> None:
    connection, _ = steps_of(ServerConnection(now=0.0))
    connection.handle_timeout(0.02)
    connection.receive_data(b"exit\n", 1)
    assert not connection.eof_to_send()
    assert not connection.finished
    assert connection.data_to_send() == WELCOME + PROMPT + GOODBYE
    assert connection.eof_to_send()
    assert not connection.eof_to_send()
    connection.receive_eof(1)
    assert connection.finished


def test_events_that_were_not_taken_are_kept() -> None:
    server, _ = steps_of(ServerConnection(ServerConfig(framing=Framing.LINES), now=0.0))
    server.receive_data(b"Ada\n", 1.0)
    server.receive_data(b"exit\n", 2.0)
    assert server.events() == [NamesReceived((b"Ada",)), ExitReceived()]
    assert server.events() == []


def test_client_that_closes_drops_the_names_that_were_not_taken() -> None:
    """They are reported as unanswered [C4.1]."""
    plain = ClientConnection(now=0)
    watched, _ = steps_of(ClientConnection(now=0.0))
    for connection in (plain, watched):
        connection.receive_data(WELCOME + PROMPT, 1)
        connection.send_name(b"Ada", 1)
        connection.receive_data(GOODBYE, 2)
        assert connection.data_to_send() == b""
        assert connection.eof_to_send()


def test_lost_connection_has_nothing_to_send() -> None:
    """Neither words nor an end of stream that were not taken [E5]."""
    connection, _ = steps_of(ServerConnection(now=0.0))
    connection.shutdown(1)
    connection.connection_lost()
    assert take(connection)[:2] == (b"", False)
    assert connection.finished


# The steps


def test_steps_of_a_server() -> None:
    items: list[TranscriptItem] = []
    recording = Recording(items.append, now=1000)
    server = recording.server(now=1000.5, peer="192.0.2.1:4711")
    server.receive_data(bytearray(b"Ada\n"), 1001.5)
    server.receive_data(memoryview(b"exit\n"), 1001)  # a clock that runs backwards
    server.receive_eof(1003)
    opening = Opening(config=ServerConfig(), peer="192.0.2.1:4711", began=0.5)
    assert items[0] == Step(
        id=1,
        at=0.0,
        input=StepInput.OPEN,
        opening=opening,
        output=WELCOME,
        deadline=0.02,
        state=ServerState.OPEN,
        framing=Framing.AUTO,
    )
    lines: dict[str, Any] = {"id": 1, "framing": Framing.LINES}
    assert items[1] == Step(
        at=1.0,
        input=StepInput.DATA,
        data=b"Ada\n",
        output=PROMPT + hello(b"Ada") + PROMPT,
        events=[NamesReceived([b"Ada"])],
        deadline=301.0,
        state=ServerState.OPEN,
        **lines,
    )
    assert items[2] == Step(
        at=1.0,  # the time that counts [T4]
        input=StepInput.DATA,
        data=b"exit\n",
        output=GOODBYE,
        eof=True,
        events=[ExitReceived()],
        deadline=3.0,
        state=ServerState.CLOSING,
        **lines,
    )
    assert items[3:] == [
        Step(
            at=2.5,
            input=StepInput.EOF,
            events=[EOFReceived(), ConversationEnded(EndReason.EXIT)],
            state=ServerState.ENDED,
            **lines,
        )
    ]
    assert opening.role == "server"


def test_steps_of_a_client() -> None:
    items: list[TranscriptItem] = []
    client = Recording(items.append, now=0).client(now=7, peer="h:1")
    client.send_names((name for name in (b"Ada", b"Bob")), 7)
    client.receive_data(WELCOME + PROMPT, 8)
    client.send_exit(9)
    client.data_in_flight(9.5)
    client.connection_lost()
    inputs = [item.input.value for item in items if isinstance(item, Step)]
    assert inputs == ["open", "names", "data", "exit", "in_flight", "lost"]
    asked, lost = items[1], items[-1]
    assert isinstance(asked, Step)
    assert asked.names == (b"Ada", b"Bob")
    assert isinstance(lost, Step)
    assert lost.at == 2.5  # it carries no time, and so has the last one [E5]
    first = items[0]
    assert isinstance(first, Step)
    assert first.opening == Opening(config=ClientConfig(), peer="h:1", began=7)


def test_conversations_are_numbered_from_one() -> None:
    items: list[TranscriptItem] = []
    recording = Recording(items.append, now=0)
    recording.server(now=0)
    recording.client(now=0)
    recording.server(now=0, full=True)
    assert [item.id for item in items] == [1, 2, 3]
    full = items[2]
    assert isinstance(full, Step)
    assert full.opening
    assert full.opening.full


def test_name_that_comes_too_late_is_a_timeout() -> None:
    """The call is refused, and the time has passed [E2]."""
    connection, items = steps_of(ClientConnection(now=0.0), 100)
    with pytest.raises(LocalProtocolError, match="after the end"):
        connection.send_name(b"Ada", 200)
    late = items[-1]
    assert isinstance(late, Step)
    assert (late.input, late.at, late.state.is_ended) == (StepInput.TIMEOUT, 100.0, True)
    with pytest.raises(LocalProtocolError, match="after the end"):
        connection.send_name(b"Ada", 201)
    assert items[-1] is late


def test_nothing_is_recorded_after_the_end() -> None:
    """It has no effect [E4]."""
    connection, items = steps_of(ServerConnection(now=0.0))
    connection.receive_eof(1)
    count = len(items)
    connection.handle_timeout(2)
    connection.receive_eof(3)
    connection.connection_lost()
    assert len(items) == count
    connection.observe("close", 4.0)
    assert items[-1] == Observed(id=1, at=4.0, what="close")


def test_what_is_observed_has_the_time_of_the_conversation() -> None:
    items: list[TranscriptItem] = []
    recording = Recording(items.append, now=0)
    server = recording.server(now=10)
    server.observe("accept", 9.75, end="server")
    assert items[1:] == [Observed(id=1, at=-0.25, what="accept", fields={"end": "server"})]
