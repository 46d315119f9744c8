"""Time (PROTOCOL.md, T): what timers count from, what comes first, and what a look changes."""

import math
from bisect import bisect
from itertools import accumulate

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

import greeter_core as core
from tests.support import laws
from tests.support.laws import WAIT, Case, Outcome, Script, Step, law, play, together
from tests.support.virtual import LINES, RAW, Client, Server, perform, plays
from tests.support.words import ADA, PROMPT, WELCOME


@plays(r"""
pace counts from when a HELLO was really said [T1, S2.2]
    AUTO asked | 1 C Ada | 5.5 late | 5.5 S HELLO:Ada | 5.5 next 6.5 | 6.5 S PROMPT
pace counts from when a late name was read [T1, T3, S2.2]
    RAW | 0 S WELCOME | 5 late C Ada | 5 S PROMPT HELLO:Ada | 5 next 6
idle counts from the end of the silence that made a name [T1, S9.1]
    AUTO asked | 1 C Ada | 50 late | 50 S HELLO:Ada | 51 S PROMPT | 60 next 103
linger counts from a late refusal for idleness [T1, S8.3]
    LINES asked | 105 late | 105 S TOO_SLOW EOF | 105 next 115
linger counts from when (a lifetime/an undecided exit at its end) is found over [T1, S11.1]
    AUTO quiet=20 max_lifetime=50 asked | 45 C (\n/exit) (| 45 S PROMPT/) | 55 late
    | 55 S GOODBYE EOF | 55 next 65 | 60 late C Ada\n | 65- is CLOSING | 65 is (LIFETIME/EXIT)
linger counts from when an exit that silence ended is answered [T1, S5.2]
    AUTO asked | 1 C exit | 90 late | 90 S GOODBYE EOF | 90 next 100
what was due in a long time comes in one call, except the last PROMPT and the end [T1, T2]
    AUTO | 0 S WELCOME | 0 C Ada | 1000 late | 1000 S PROMPT HELLO:Ada PROMPT TOO_SLOW EOF
    | 1000 is CLOSING | 1000 next 1010 | 2000 late
    | 2000 events NamesReceived Refused ConversationEnded | 2000 is REFUSED

idle before quiet: refused [T2]
    AUTO idle_timeout=3 asked | 1.5 C Ada | 20 late | 20 S TOO_SLOW EOF
idle after quiet: greeted, and idle starts anew [T2]
    AUTO idle_timeout=3 | 0 S WELCOME | 0.5 C Ada | 5 late | 5 S PROMPT HELLO:Ada | 5 next 5.5
idle and quiet on a tie: greeted [T2, S9.1]
    AUTO idle_timeout=3 asked | 1 C Ada | 3 S HELLO:Ada | 3 is OPEN
pace, quiet and idle on a tie come in this order [T2]
    AUTO pace=2 quiet=2 idle_timeout=2 | 0 S WELCOME | 0 C Ada | 2 late | 2 S PROMPT HELLO:Ada
    | 2 next 4
lifetime comes last on a tie, when silence has made a name of the tail [T2]
    AUTO pace=2 quiet=2 idle_timeout=2 max_lifetime=2 | 0 S WELCOME | 0 C Ada | 50 late
    | 50 S PROMPT HELLO:Ada PROMPT GOODBYE EOF | 50 is RAW
lifetime comes last on a tie, and so never when idleness is due [T2]
    LINES idle_timeout=2 max_lifetime=2 | 0 S WELCOME PROMPT | 50 late | 50 S TOO_SLOW EOF
    | 50 C EOF | 50 is REFUSED

data before quiet: the name goes on [T3, S4.2]
    AUTO asked | 1 C Ada | 50 late C \x20Lovelace | 50 next 52 | 52 late C \n
    | 52 S HELLO:Ada\x20Lovelace PROMPT
data before idle: the name is greeted, and counts [T3, S9.1]
    LINES asked | 99 C Ada | 150 late C \n | 150 S HELLO:Ada PROMPT | 150 next 250
data before lifetime: the name is greeted [T3, S11.1]
    LINES max_lifetime=50 asked | 55 late C Ada\nBo | 55 S HELLO:Ada PROMPT GOODBYE EOF | 55 next 65
data before lifetime: exit is the reason [T3, S11.1]
    LINES max_lifetime=50 asked | 55 late C exit\n | 55 S GOODBYE EOF | 55 C EOF | 55 is EXIT
data before linger keeps nothing alive [T3, S8.2, S8.3]
    LINES asked | 1 C exit\n | 1 S GOODBYE EOF | 11 late C Ada\n | 11 is EXIT
bytes that are no name before idle: refused in the same call [T3, S9.2]
    LINES asked | 100 late C x | 100 S TOO_SLOW EOF | 100 next 110
blank line (with LF/with CR LF) before idle: asked and refused in the same call [T3, S9.2]
    LINES asked | 100 late C (\n/\r\n) | 100 S PROMPT TOO_SLOW EOF | 100 next 110
EOF before quiet ends the tail [T3, S7.1]
    AUTO asked | 1 C Ada | 50 late C EOF | 50 S HELLO:Ada EOF | 50 is AUTO EOF
    | 50 events NamesReceived EOFReceived ConversationEnded
EOF before (idle/lifetime) [T3, S7.2]
    LINES max_lifetime=(inf/50) asked | 500 late C EOF | 500 S EOF
    | 500 events EOFReceived ConversationEnded | 500 is EOF
EOF before linger is reported [T3, S8.2]
    LINES asked | 1 C exit\n | 1 S GOODBYE EOF | 50 late C EOF
    | 50 events ExitReceived EOFReceived ConversationEnded | 50 is EXIT
shutdown after idle [T3, S10.2]
    LINES asked | 100 late shutdown | 100 S TOO_SLOW EOF
shutdown after quiet, which makes the framing RAW [T3, S10.2]
    AUTO asked | 1 C Ada | 3 late shutdown | 3 S HELLO:Ada PROMPT GOODBYE EOF | 3 is RAW
lost connection fires no timer [E5]
    AUTO asked | 1 C Ada | 500 late lost | 500 is CONNECTION_LOST | 500 events ConversationEnded

timers do not fire early, and fire once [T5]
    RAW | 0 S WELCOME | 0 late | 0.5 late | 1- late | 1 late | 1 S PROMPT | 1 late | 2 late
""")
def test_server_time_plays(play: str) -> None:
    perform(Server, play)


@plays(r"""
reply is found to be over late [T1, C5.1]
    LINES | 0 asks Ada | 25 late | 25 C EOF | 25 is TIMED_OUT finished | 25 unanswered Ada
linger counts from when the last word was read [T1, C6.1]
    LINES | 25 late S GOODBYE | 25 C EOF | 25 next 30
data before reply: a whole word has come in time, a part of one has not [T3, C5.1]
    LINES | 15 late S WELCOME | 15 next 25 | 20 asks Ada | 50 late S PROMPT | 50 C Ada\n
    | 50 next 60 | 60 late S Hello\x20Ada! | 60 C EOF | 60 is TIMED_OUT
EOF before reply [T3, C6.2]
    AUTO | 50 late S EOF | 50 C EOF | 50 is EOF | 50 events ConversationEnded
shutdown after reply [T3, C6.1]
    AUTO | 10 late shutdown | 10 C EOF | 10 is TIMED_OUT
exit after reply is too late [T3, C2.2]
    AUTO | 10 late exit | 10 C EOF | 10 is TIMED_OUT
""")
def test_client_time_plays(play: str) -> None:
    perform(Client, play)


def test_name_after_reply_was_due_is_refused() -> None:
    """And that end is reported as always [T3, C2.2, E2]."""
    client = Client()
    with pytest.raises(core.LocalProtocolError, match="after the end"):
        client.connection.send_name(b"Ada", 10)
    client.take()
    assert client.events == [core.ConversationEnded(core.EndReason.TIMED_OUT)]


# T3 What is due comes before a call, and after an arrival

CALLS = ("shutdown", "send_name", "send_exit")


@given(laws.cases)
@law(240)
def test_calls_fire_what_is_due_first_and_arrivals_afterwards(case: Case) -> None:
    """A call is `handle_timeout` and then that; after an arrival a look adds nothing [T3, T5].

    A name that is refused need not let the time pass (E2), so after each both look once more.
    """
    script = [
        (now, what)
        for now, step in case.script
        for what in [step] + [WAIT] * (step[0] == "send_name")
    ]
    looked = [
        (now, what)
        for now, step in script
        for what in ([WAIT, step] if step[0] in CALLS else [step, WAIT])
    ]
    assert play(case.open(), looked) == play(case.open(), script)


# T4 Time never runs backwards


def test_earlier_time_counts_as_the_latest_one_seen() -> None:
    """[T4]."""
    server = Server(RAW)
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
    client = Client(LINES)
    client.hears(WELCOME + PROMPT, at=5)
    client.connection.send_name(b"Ada", -5)
    assert client.connection.deadline == 15


in_disorder = st.tuples(
    st.floats(-10, 10),
    st.one_of(
        st.tuples(st.just("receive_data"), st.sampled_from([b"a", b"a\n", b"exit"])),
        st.sampled_from([WAIT, ("data_in_flight", None), ("shutdown", None)]),
    ),
)


@given(laws.server_configs, st.lists(in_disorder, max_size=8))
@law(40)
def test_times_in_disorder(config: core.ServerConfig, script: Script) -> None:
    """They give what they give when each is replaced by the latest before it [T4]."""
    latest = accumulate((now for now, _ in script), max, initial=0.0)
    ordered = [*zip([*latest][1:], (step for _, step in script), strict=True)]
    assert play(Case(config, script).open(), script) == play(Case(config, script).open(), ordered)


# T5 A function of the timestamped inputs

looks = st.lists(st.one_of(laws.seconds, st.floats(0, 50)), max_size=6)


@given(laws.cases, looks)
@law(200)
def test_early_looks_change_nothing(case: Case, looks: list[float]) -> None:
    """However often `handle_timeout` is called before anything is due [T5]."""
    early: Step = ("early look", None)
    steps = list(case.script)
    for now in sorted(looks):
        steps.insert(bisect([when for when, _ in steps], now), (now, early))
    connection = case.open()
    outcomes = []
    for now, step in steps:
        if step is not early:
            outcomes.append(play(connection, [(now, step)]))
        elif connection.deadline > now:
            connection.handle_timeout(now)
            connection.handle_timeout(now)
    assert together([*outcomes, play(connection, [])]) == play(case.open(), case.script)


def rests(case: Case, until: float, *, late: bool) -> Outcome:
    """Play a script, then let time pass, with deadlines noticed late or not; then let all end."""
    connection = case.open()
    outcomes = [play(connection, [*case.script, *[(until, WAIT)] * late])]
    while connection.deadline < math.inf:
        outcomes.append(play(connection, [(connection.deadline, WAIT)]))
    return together(outcomes)


@given(laws.cases, st.one_of(laws.seconds, st.floats(0, 500)))
@law(160)
def test_late_looks_change_no_word(case: Case, wait: float) -> None:
    """If nothing arrives meanwhile, a late look changes when words are said, not which [T5, T1]."""
    until = case.after(wait)
    assert rests(case, until, late=True) == rests(case, until, late=False)


@given(laws.client_cases)
@law(60)
def test_data_in_flight_is_a_look_to_a_client(case: Case) -> None:
    """It owes no PROMPT [S2.7]."""
    told, looked = (
        play(case.open(), [(now, what) for now, step in case.script for what in (first, step)])
        for first in (("data_in_flight", None), WAIT)
    )
    assert told == looked


@given(laws.server_cases, st.floats(-1e6, 1e6))
@law(40)
def test_only_differences_of_time_count(case: Case, start: float) -> None:
    """A clock that starts elsewhere, even below zero, moves only the deadlines [T5]."""
    start = float(round(start))  # so that the sums stay exact
    moved = play(case.open(start), [(start + now, step) for now, step in case.script])
    plain = play(case.open(), case.script)
    assert moved == attrs.evolve(plain, deadline=plain.deadline + start)


def test_default_times() -> None:
    """[S2.2, S4.2, S8.3, S9.1, C5.1, C6.1]."""
    server = core.ServerConnection(now=0)
    assert server.deadline == 0.02
    server.receive_data(b"Ada", 0)
    server.handle_timeout(0.02)
    assert (server.framing, server.deadline) == (core.Framing.RAW, 0.04)
    server.handle_timeout(0.04)
    assert server.deadline == 300.02
    server.handle_timeout(300.02)
    assert server.deadline == 302.02
    client = core.ClientConnection(now=0)
    assert client.deadline == 10
    client.shutdown(0)
    assert client.deadline == 2
