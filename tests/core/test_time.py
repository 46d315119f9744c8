"""Time (PROTOCOL.md, T): what timers count from, what comes first, and what a look changes."""

import math
from bisect import bisect

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greeter_core import (
    ClientConfig,
    ClientConnection,
    ConversationEnded,
    EndReason,
    EOFReceived,
    Framing,
    LocalProtocolError,
    NamesReceived,
    Refusal,
    Refused,
    ServerConfig,
    ServerConnection,
    ServerState,
)

from .helpers import (
    AUTO,
    EOF,
    GOODBYE,
    LINES,
    PROMPT,
    RAW,
    TOO_SLOW,
    WELCOME,
    Client,
    Driven,
    Outcome,
    Script,
    Server,
    Step,
    client_configs,
    client_scripts,
    hello,
    law,
    lifetimes,
    play,
    seconds,
    server_configs,
    server_scripts,
)

ADA, BOB = hello(b"Ada"), hello(b"Bob")
WAIT: Step = ("wait", None)


# T1 What timers count from


def test_pace_after_a_late_quiet() -> None:
    """The PROMPT after a name that silence ended counts from when its HELLO was said [T1, S2.2]."""
    server = Server(AUTO)
    server.hears(b"Ada", at=1)
    assert server.late(5.5) == ADA
    assert server.connection.deadline == 6.5
    assert server.late(6.5) == PROMPT


def test_pace_after_a_late_arrival() -> None:
    """The PROMPT after a name that was read late counts from when that was read [T1, T3, S2.2]."""
    server = Server(RAW)
    assert server.hears_late(b"Ada", 5) == PROMPT + ADA
    assert server.connection.deadline == 6


def test_idle_after_a_late_quiet() -> None:
    """The idle time of a name that silence ended counts from the end of that silence [T1, S9.1]."""
    server = Server(AUTO)
    server.hears(b"Ada", at=1)
    server.late(50)
    server.waits(60)
    assert server.connection.deadline == 103


def test_linger_after_a_late_idle() -> None:
    """A refusal that comes late leaves the client as much time as any other [T1, S8.3]."""
    server = Server(LINES)
    assert server.late(105) == TOO_SLOW
    assert server.connection.deadline == 115


@pytest.mark.parametrize(("tail", "reason"), [(b"\n", EndReason.LIFETIME), (b"exit", EndReason.EXIT)])
def test_linger_after_a_late_lifetime(tail: bytes, reason: EndReason) -> None:
    """A lifetime that is found to be over late leaves the client the full `linger` [T1, S11.1]."""
    server = Server(AUTO, quiet=20, max_lifetime=50)
    server.hears(tail, at=45)
    assert server.late(55) == GOODBYE
    assert server.connection.deadline == 65
    assert server.hears_late(b"Ada\n", 60) == b""
    server.waits(65)
    assert server.end is reason


def test_linger_after_a_late_exit() -> None:
    """`linger` counts from when an `exit` that silence ended is answered [T1, S5.2]."""
    server = Server(AUTO)
    server.hears(b"exit", at=1)
    assert server.late(90) == GOODBYE
    assert server.connection.deadline == 100


def test_everything_late() -> None:
    """What was due in all that time comes in one call, except PROMPT and end [T1, T2]."""
    server = Server(AUTO)
    server.connection.receive_data(b"Ada", 0)
    assert server.late(1000) == PROMPT + ADA + PROMPT + TOO_SLOW
    assert server.connection.state is ServerState.CLOSING
    assert server.connection.deadline == 1010
    server.late(2000)
    assert server.events == [
        NamesReceived((b"Ada",)),
        Refused(Refusal.IDLE, TOO_SLOW[:-1]),
        ConversationEnded(EndReason.REFUSED),
    ]


def test_late_patience_of_the_client() -> None:
    """A word that did not come in time ends the conversation when that is noticed [T1, C5.1]."""
    client = Client(LINES)
    client.asks(b"Ada")
    client.late(25)
    assert client.events == [ConversationEnded(EndReason.TIMED_OUT, (b"Ada",))]
    assert client.said == [(25, EOF)]
    assert client.connection.finished


def test_late_last_word_of_the_client() -> None:
    """A client that reads the last word late waits `linger` from then on [T1, C6.1]."""
    client = Client(LINES)
    client.hears_late(GOODBYE, 25)
    assert client.connection.deadline == 30


# T2 The order of deadlines


def test_earlier_deadlines_first() -> None:
    """Idleness due before the silence refuses the client, one due after it starts anew [T2]."""
    server = Server(AUTO, quiet=2, idle_timeout=3)
    server.hears(b"Ada", at=1.5)
    assert server.late(20) == TOO_SLOW
    server = Server(AUTO, quiet=2, idle_timeout=3)
    server.hears(b"Ada", at=0.5)
    assert server.late(5) == PROMPT + ADA
    assert server.connection.deadline == 5.5


def test_ties() -> None:
    """On a tie silence comes before idleness: a name at the last moment is greeted [T2, S9.1]."""
    server = Server(AUTO, quiet=2, idle_timeout=3)
    server.hears(b"Ada", at=1)
    server.waits(3)
    assert server.said == [(0, WELCOME), (1, PROMPT), (3, ADA)]
    assert server.connection.state is ServerState.OPEN


def test_all_at_once() -> None:
    """A PROMPT, a name and idleness that are due together come in this order [T2]."""
    server = Server(AUTO, pace=2, quiet=2, idle_timeout=2)
    server.connection.receive_data(b"Ada", 0)
    assert server.late(2) == PROMPT + ADA
    assert server.connection.deadline == 4


def test_lifetime_comes_after_other_deadlines() -> None:
    """On a tie the lifetime comes last: where idleness is due, it is never over [T2]."""
    server = Server(AUTO, pace=2, quiet=2, idle_timeout=2, max_lifetime=2)
    server.connection.receive_data(b"Ada", 0)
    assert server.late(50) == PROMPT + ADA + PROMPT + GOODBYE
    assert server.connection.framing is RAW, "silence has made a name of it, not the lifetime"
    server = Server(LINES, idle_timeout=2, max_lifetime=2)
    assert server.late(50) == TOO_SLOW
    server.hears_eof()
    assert server.end is EndReason.REFUSED


# T3 An arrival comes before a judgement


def test_data_before_quiet() -> None:
    """Bytes that are read before the silence was noticed go on with the name [T3, S4.2]."""
    server = Server(AUTO)
    server.hears(b"Ada", at=1)
    assert server.hears_late(b" Lovelace", 50) == b""
    assert server.connection.deadline == 52
    assert server.hears_late(b"\n", 52) == hello(b"Ada Lovelace") + PROMPT


def test_data_before_idle() -> None:
    """A name that is read before idleness was noticed is greeted, and counts [T3, S9.1]."""
    server = Server(LINES)
    server.hears(b"Ada", at=99)
    assert server.hears_late(b"\n", 150) == ADA + PROMPT
    assert server.connection.deadline == 250


def test_data_before_lifetime() -> None:
    """A name that is read before the lifetime was found to be over is greeted [T3, S11.1]."""
    server = Server(LINES, max_lifetime=50)
    assert server.hears_late(b"Ada\nBo", 55) == ADA + PROMPT + GOODBYE
    assert server.connection.deadline == 65
    server = Server(LINES, max_lifetime=50)
    server.hears_late(b"exit\n", 55)
    server.hears_eof()
    assert server.end is EndReason.EXIT


def test_data_before_reply() -> None:
    """A word that is read before the patience was found to be over has come in time [T3, C5.1]."""
    client = Client(LINES)
    client.hears_late(WELCOME, 15)
    assert client.connection.deadline == 25
    client.asks(b"Ada", at=20)
    assert client.hears_late(PROMPT, 50) == b"Ada\n"
    assert client.connection.deadline == 60
    client.hears_late(ADA[:-1], 60)
    assert client.end is EndReason.TIMED_OUT, "part of a word is no word"


def test_data_before_linger() -> None:
    """Bytes keep no closing conversation alive, even if they are read first [T3, S8.2, S8.3]."""
    server = Server(LINES)
    server.hears(b"exit\n", at=1)
    assert server.hears_late(b"Ada\n", 11) == b""
    assert server.end is EndReason.EXIT


@pytest.mark.parametrize("drip", [b"x", b"\n", b"\r\n"])
def test_a_dripper_is_still_idle(drip: bytes) -> None:
    """Bytes and blank lines are handled first, and right after them idleness is due [T3, S9.2]."""
    server = Server(LINES)
    answer = server.hears_late(drip, 100)
    assert answer == (PROMPT if b"\n" in drip else b"") + TOO_SLOW
    assert server.connection.deadline == 110


def test_eof_before_quiet() -> None:
    """The end of the stream ends a tail, if it is read before quiet is noticed [T3, S7.1]."""
    server = Server(AUTO)
    server.hears(b"Ada", at=1)
    server.now = 50
    assert server.hears_eof() == ADA
    assert server.connection.framing is AUTO
    assert server.events[-2:] == [EOFReceived(), ConversationEnded(EndReason.EOF)]


def test_eof_before_idle_and_lifetime() -> None:
    """A client whose end of the stream is read is not refused, nor told goodbye [T3, S7.2]."""
    for server in (Server(LINES), Server(LINES, max_lifetime=50)):
        server.now = 500
        assert server.hears_eof() == b""
        assert server.events == [EOFReceived(), ConversationEnded(EndReason.EOF)]


def test_eof_before_linger() -> None:
    """The end of the stream is reported where it is read before linger was noticed [T3, S8.2]."""
    server = Server(LINES)
    server.hears(b"exit\n", at=1)
    server.now = 50
    server.hears_eof()
    assert server.events[-2:] == [EOFReceived(), ConversationEnded(EndReason.EXIT)]


def test_eof_before_reply() -> None:
    """The end of the server's stream ends the conversation, however late it is read [T3, C6.2]."""
    client = Client()
    client.now = 50
    client.hears_eof()
    assert client.events == [ConversationEnded(EndReason.EOF)]


def test_shutdown_after_a_deadline() -> None:
    """A shutdown comes after what is due by then [T3, S10.2]."""
    server = Server(LINES)
    server.now = 100
    assert server.shuts_down() == TOO_SLOW
    server = Server(AUTO)
    server.hears(b"Ada", at=1)
    server.now = 3
    assert server.shuts_down() == ADA + PROMPT + GOODBYE
    assert server.connection.framing is RAW, "silence has made a name of it, not the shutdown"
    client = Client()
    client.now = 10
    client.shuts_down()
    assert client.end is EndReason.TIMED_OUT


def test_asking_after_a_deadline() -> None:
    """After what is due by then, `exit` is too late, and a name is refused [T3, C2.2]."""
    client = Client()
    client.now = 10
    client.asks_exit()
    assert client.end is EndReason.TIMED_OUT
    client = Client()
    with pytest.raises(LocalProtocolError, match="after the end"):
        client.connection.send_name(b"Ada", 10)


def test_a_lost_connection_fires_nothing() -> None:
    """A lost connection carries no time: what was due and not noticed does not happen [E5]."""
    server = Server(AUTO)
    server.connection.receive_data(b"Ada", 0)
    server.now = 500
    server.loses_connection()
    assert server.events == [ConversationEnded(EndReason.CONNECTION_LOST)]


def with_looks_before(script: Script, steps: set[str]) -> Script:
    """Return the script with a `handle_timeout` before each of these steps, at its time."""
    return [(now, what) for now, step in script for what in ([WAIT] * (step[0] in steps) + [step])]


def with_looks_after(script: Script, steps: set[str]) -> Script:
    """Return the script with a `handle_timeout` after each of these steps, at its time."""
    return [(now, what) for now, step in script for what in ([step] + [WAIT] * (step[0] in steps))]


@given(server_configs, server_scripts)
@law(80)
def test_calls_look_first(config: ServerConfig, script: Script) -> None:
    """Told to shut down, a server does exactly `handle_timeout` and then that [T3]."""
    looked = play(ServerConnection(config, now=0), with_looks_before(script, {"shutdown"}))
    assert looked == play(ServerConnection(config, now=0), script)


@given(client_configs, client_scripts)
@law(80)
def test_calls_of_the_client_look_first(config: ClientConfig, script: Script) -> None:
    """What a client is asked is exactly `handle_timeout` and then that [T3]."""
    # A name that is refused need not let the time pass (E2), so after each both look once more.
    steps = {"shutdown", "name", "exit"}
    script = [(now, what) for now, step in script for what in [step] + [WAIT] * (step[0] == "name")]
    looked = play(ClientConnection(config, now=0), with_looks_before(script, steps))
    assert looked == play(ClientConnection(config, now=0), script)


@given(server_configs, server_scripts)
@law(80)
def test_every_input_fires_what_is_due(config: ServerConfig, script: Script) -> None:
    """After what came from the peer, a look at the same time does nothing [T3, T5]."""
    steps = {"data", "eof", "in flight"}
    looked = play(ServerConnection(config, now=0), with_looks_after(script, steps))
    assert looked == play(ServerConnection(config, now=0), script)


@given(client_configs, client_scripts)
@law(80)
def test_every_input_of_the_client_fires_what_is_due(config: ClientConfig, script: Script) -> None:
    """After what came from the server, to look at the same time changes nothing [T3, T5]."""
    steps = {"data", "eof", "exit"}
    looked = play(ClientConnection(config, now=0), with_looks_after(script, steps))
    assert looked == play(ClientConnection(config, now=0), script)


# T4 Time never runs backwards


def test_backwards() -> None:
    """A time that is earlier than one already seen counts as the latest one seen [T4]."""
    server = Server(RAW, idle_timeout=100)
    server.waits(2)
    server.connection.handle_timeout(50)
    server.connection.receive_data(b"Ada", 20)
    assert server.connection.deadline == 51, "the PROMPT is owed since 50"
    server.connection.data_in_flight(-1000)
    assert server.connection.deadline == 51
    server.connection.handle_timeout(-1000)
    server.connection.handle_timeout(50.5)
    assert server.connection.data_to_send() == ADA
    server.connection.handle_timeout(51)
    assert server.connection.data_to_send() == PROMPT
    assert server.connection.deadline == 150


def test_backwards_at_the_client() -> None:
    """The client's time does not run backwards either [T4]."""
    client = Client(LINES)
    client.hears(WELCOME + PROMPT, at=5)
    client.connection.send_name(b"Ada", -5)
    assert client.connection.deadline == 15


steps_in_disorder = st.sampled_from(
    [
        *(("data", data) for data in (b"a", b"a\n", b"exit")),
        *((what, None) for what in ("wait", "in flight", "shutdown")),
    ]
)


@given(server_configs, st.lists(st.tuples(st.floats(-10, 10), steps_in_disorder), max_size=8))
@law(40)
def test_backwards_is_the_latest(config: ServerConfig, script: Script) -> None:
    """Times in disorder give what they give when each is replaced by the latest before it [T4]."""
    latest, ordered = 0.0, []
    for now, step in script:
        latest = max(latest, now)
        ordered.append((latest, step))
    disordered = play(ServerConnection(config, now=0), script)
    assert disordered == play(ServerConnection(config, now=0), ordered)


# T5 A function of the timestamped inputs


def test_early_and_repeated() -> None:
    """Before its deadline no timer fires, and at its deadline it fires once [T5]."""
    server = Server(RAW)
    for now in (0, 0.5, math.nextafter(1, 0)):
        assert server.late(now) == b""
    assert [server.late(now) for now in (1, 1, 2)] == [PROMPT, b"", b""]


def play_with_early_looks(
    connection: ServerConnection | ClientConnection, script: Script, looks: list[float]
) -> Outcome:
    """Play a script, with additional calls of `handle_timeout` wherever nothing is due yet."""
    steps = list(script)
    for now in sorted(looks):
        steps.insert(bisect([when for when, _ in steps], now), (now, ("early look", None)))
    outcome = play(connection, [])
    stream, eofs, errors = outcome.stream, outcome.eofs, outcome.errors
    events = list(outcome.events)
    for now, step in steps:
        if step[0] == "early look":
            for _ in range(2):
                if connection.deadline > now:
                    connection.handle_timeout(now)
        else:
            outcome = play(connection, [(now, step)])
            stream += outcome.stream
            eofs, errors = eofs + outcome.eofs, errors + outcome.errors
            events += outcome.events
    return attrs.evolve(play(connection, []), stream=stream, eofs=eofs, events=events, errors=errors)


looks = st.lists(st.one_of(seconds, st.floats(0, 50)), max_size=6)


@given(server_configs, server_scripts, looks)
@law(100)
def test_early_looks_change_nothing(config: ServerConfig, script: Script, looks: list[float]) -> None:
    """However often a server is asked before anything is due, all stays the same [T5]."""
    looked = play_with_early_looks(ServerConnection(config, now=0), script, looks)
    assert looked == play(ServerConnection(config, now=0), script)


@given(client_configs, client_scripts, looks)
@law(100)
def test_early_looks_of_the_client_change_nothing(config: ClientConfig, script: Script, looks: list[float]) -> None:
    """However often a client is asked before anything is due, all stays the same [T5]."""
    looked = play_with_early_looks(ClientConnection(config, now=0), script, looks)
    assert looked == play(ClientConnection(config, now=0), script)


@given(client_configs, client_scripts)
@law(60)
def test_data_in_flight_at_the_client(config: ClientConfig, script: Script) -> None:
    """To a client, which owes no PROMPT, it is `handle_timeout` [S2.7]."""
    told, looked = (
        play(ClientConnection(config, now=0), [(now, what) for now, step in script for what in (first, step)])
        for first in (("in flight", None), WAIT)
    )
    assert told == looked


def rests(connection: ServerConnection | ClientConnection, script: Script, until: float, *, late: bool) -> Outcome:
    """Play a script, then let time pass, with deadlines noticed late or not; then let all end."""
    played = play(connection, script)
    waits: Script = [(until, WAIT)] if late else []
    rest = play(connection, waits)
    stream, eofs, events = rest.stream, rest.eofs, list(rest.events)
    while connection.deadline < math.inf:
        rest = play(connection, [(connection.deadline, WAIT)])
        stream += rest.stream
        eofs += rest.eofs
        events += rest.events
    return attrs.evolve(
        rest,
        stream=played.stream + stream,
        eofs=played.eofs + eofs,
        events=[*played.events, *events],
        errors=played.errors,
    )


@given(server_configs, server_scripts, st.one_of(seconds, st.floats(0, 500)))
@law(100)
def test_late_looks_change_no_word(config: ServerConfig, script: Script, wait: float) -> None:
    """If nothing arrives meanwhile, a late look changes when words are said, not which [T5, T1]."""
    until = (script[-1][0] if script else 0.0) + wait
    in_time, late = (rests(ServerConnection(config, now=0), script, until, late=late) for late in (False, True))
    assert late == in_time


@given(client_configs, client_scripts, st.one_of(seconds, st.floats(0, 500)))
@law(60)
def test_late_looks_of_the_client_change_no_word(config: ClientConfig, script: Script, wait: float) -> None:
    """Where nothing arrives meanwhile, a client that looks late comes to the same end [T5, T1]."""
    until = (script[-1][0] if script else 0.0) + wait
    in_time, late = (rests(ClientConnection(config, now=0), script, until, late=late) for late in (False, True))
    assert late == in_time


@given(server_configs, server_scripts, st.floats(-1e6, 1e6))
@law(40)
def test_only_differences_of_time_count(config: ServerConfig, script: Script, start: float) -> None:
    """A clock that starts elsewhere, even below zero, moves only the deadlines [T5]."""
    start = float(round(start))  # so that the sums stay exact
    moved = play(ServerConnection(config, now=start), [(start + now, step) for now, step in script])
    plain = play(ServerConnection(config, now=0), script)
    assert moved == attrs.evolve(plain, deadline=plain.deadline + start)


def test_default_times() -> None:
    """By default the timers take the seconds of the table [S2.2, S4.2, S8.3, S9.1, C5.1, C6.1]."""
    server = ServerConnection(now=0)
    assert server.deadline == 0.02
    server.receive_data(b"Ada", 0)
    server.handle_timeout(0.02)
    assert (server.framing, server.deadline) == (Framing.RAW, 0.04)
    server.handle_timeout(0.04)
    assert server.deadline == 300.02
    server.handle_timeout(300.02)
    assert server.deadline == 302.02
    client = ClientConnection(now=0)
    assert client.deadline == 10
    client.shutdown(0)
    assert client.deadline == 2


# Two words


late_scripts = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.0, 0.5, 1.0, 2.5, 7.0, 40.0]),
        st.one_of(
            st.sampled_from([WAIT, WAIT, ("in flight", None)]),
            st.tuples(st.just("data"), st.sampled_from([b"Ada", b"a", b"\r", b"exit", b"Bob\n", b"x" * 9])),
            st.sampled_from([("shutdown", None), ("eof", None)]),
        ),
    ),
    max_size=12,
)
"""Waits and steps: an adapter that comes as late as it likes to deadlines and to what arrives."""


paced_configs = st.builds(
    ServerConfig,
    framing=st.sampled_from([AUTO, AUTO, RAW]),
    max_name_size=st.just(8),
    pace=st.sampled_from([0.5, 1.0, 2.0]),
    quiet=st.sampled_from([0.0, 0.5, 1.0]),
    idle_timeout=st.sampled_from([20.0, math.inf]),
    max_lifetime=lifetimes,
)


@given(paced_configs, late_scripts)
@law(150)
def test_no_two_words_at_once(config: ServerConfig, waits: list[tuple[float, Step]]) -> None:
    """Outside LINES a PROMPT that no word follows is said alone, late enough [S2.2, S2.4, T1]."""
    server, ended = Driven(ServerConnection(config, now=0)), False
    for wait, (what, argument) in waits:
        server.now += wait
        before = server.said[-1][0]
        match what:
            case "data" if not ended:
                said = server.hears(argument)
            case "eof":
                said, ended = server.hears_eof(), True
            case "shutdown":
                said = server.shuts_down()
            case "in flight":
                said = server.is_unacknowledged()
            case _:
                said = server.late(server.now)
        if server.connection.framing is not LINES and said.endswith(PROMPT):
            assert said == PROMPT
            assert server.now >= before + config.pace
            assert what in ("wait", "data")
