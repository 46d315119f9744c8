"""Time (PROTOCOL.md, T): timers count from their own deadlines, and additional looks at the clock change nothing."""

import math
from bisect import bisect

import attrs
from hypothesis import given
from hypothesis import strategies as st

from greeter_core import (
    ClientConfig,
    ClientConnection,
    ConversationEnded,
    EndReason,
    Framing,
    NamesReceived,
    ServerConfig,
    ServerConnection,
    ServerState,
)

from .helpers import (
    AUTO,
    GOODBYE,
    LINES,
    PROMPT,
    RAW,
    TOO_SLOW,
    WELCOME,
    Client,
    Script,
    Server,
    Step,
    client_configs,
    client_scripts,
    hello,
    law,
    play,
    seconds,
    server_configs,
    server_scripts,
)

ADA, BOB = hello(b"Ada"), hello(b"Bob")
WAIT: Step = ("wait", None)


# T1 As of its own deadline


def test_late_pace_and_quiet() -> None:
    """A RAW guess that is noticed late is followed by the PROMPT that has come due meanwhile [T1]."""
    server = Server(AUTO)
    server.hears(b"Ada", at=1)
    server.connection.handle_timeout(4)  # quiet was due at 3, and with it the next PROMPT at 4
    assert server.connection.data_to_send() == ADA + PROMPT
    server = Server(AUTO)
    server.hears(b"Ada", at=1)
    server.connection.handle_timeout(3.5)
    assert server.connection.data_to_send() == ADA
    assert server.connection.deadline == 4, "not 4.5: the PROMPT came to be owed at 3"


def test_late_quiet_and_idle() -> None:
    """The idle time of a name that silence ended counts from that silence, not from when it was noticed [T1, S9.1]."""
    server = Server(AUTO)
    server.hears(b"Ada", at=1)
    server.connection.handle_timeout(50)
    assert server.connection.deadline == 103


def test_late_idle_and_linger() -> None:
    """The linger time after a refusal counts from when that was due [T1, S8.3]."""
    server = Server(LINES)
    server.connection.handle_timeout(105)
    assert server.connection.deadline == 110


def test_late_lifetime() -> None:
    """A lifetime that is noticed late is over as of its own deadline, and `linger` counts from there [T1, S11.1]."""
    server = Server(LINES, max_lifetime=50)
    server.connection.handle_timeout(55)
    assert server.connection.data_to_send() == GOODBYE
    assert server.connection.deadline == 60
    server.connection.receive_data(b"Ada\n", 56)
    assert server.connection.data_to_send() == b""
    server.connection.handle_timeout(60)
    assert server.connection.events() == [ConversationEnded(EndReason.LIFETIME)]
    server = Server(AUTO, quiet=20, max_lifetime=50)
    server.hears(b"exit", at=45)
    server.connection.handle_timeout(55)
    assert server.connection.deadline == 60, "the tail is answered as of then, too"


def test_everything_late() -> None:
    """A whole chain of timers that is noticed at its end gives the words and the end that it would have given [T1]."""
    server = Server(AUTO)
    server.hears(b"Ada")
    server.connection.handle_timeout(1000)
    assert server.connection.data_to_send() == PROMPT + ADA + PROMPT + TOO_SLOW
    assert server.connection.eof_to_send()
    assert server.connection.state is ServerState.ENDED
    assert server.connection.events()[-1] == ConversationEnded(EndReason.REFUSED)


def test_late_patience_of_the_client() -> None:
    """A word that arrives after the client's patience has ended is not heard any more [T3, C5.1]."""
    client = Client(LINES)
    client.connection.receive_data(WELCOME + PROMPT, 10)
    assert client.connection.events() == [ConversationEnded(EndReason.TIMED_OUT)]


# T2 The order of deadlines


def test_earlier_deadlines_first() -> None:
    """Idleness that is due before the silence refuses the client, one that is due after it restarts [T2]."""
    server = Server(AUTO, quiet=2, idle_timeout=3)
    server.hears(b"Ada", at=1.5)
    server.connection.handle_timeout(20)
    assert server.connection.data_to_send() == TOO_SLOW
    server = Server(AUTO, quiet=2, idle_timeout=3)
    server.hears(b"Ada", at=0.5)
    server.connection.handle_timeout(5)
    assert server.connection.data_to_send() == PROMPT + ADA + PROMPT


def test_ties() -> None:
    """On a tie silence comes before idleness: the name that is due at the last moment is greeted [T2, S9.1]."""
    server = Server(AUTO, quiet=2, idle_timeout=3)
    server.hears(b"Ada", at=1)
    server.waits(3)
    assert server.said == [(0, WELCOME), (1, PROMPT), (3, ADA)]
    assert server.connection.state is ServerState.OPEN


def test_all_at_once() -> None:
    """A PROMPT, a name and idleness that are due together come in this order [T2]."""
    server = Server(AUTO, pace=2, quiet=2, idle_timeout=2)
    server.connection.receive_data(b"Ada", 0)
    server.connection.handle_timeout(2)
    assert server.connection.data_to_send() == PROMPT + ADA
    assert server.connection.deadline == 4


def test_lifetime_comes_after_other_deadlines() -> None:
    """On a tie the lifetime comes last: after a PROMPT and a name, and where idleness is due it is never over [T2]."""
    server = Server(AUTO, pace=2, quiet=2, idle_timeout=2, max_lifetime=2)
    server.connection.receive_data(b"Ada", 0)
    server.connection.handle_timeout(50)
    assert server.connection.data_to_send() == PROMPT + ADA + PROMPT + GOODBYE
    assert server.connection.framing is RAW, "silence has made a name of it, not the lifetime"
    server = Server(LINES, idle_timeout=2, max_lifetime=2)
    server.connection.handle_timeout(50)
    assert server.connection.data_to_send() == TOO_SLOW
    assert server.connection.events()[-1] == ConversationEnded(EndReason.REFUSED)


# T3 What is due comes first


def test_data_after_a_deadline() -> None:
    """Bytes that come after a deadline which nobody noticed are handled after it [T3]."""
    server = Server(AUTO)
    server.connection.receive_data(b"Ada", 0)
    server.connection.receive_data(b"Bob\n", 2.5)
    assert server.connection.data_to_send() == PROMPT + ADA + PROMPT + BOB + PROMPT
    assert server.connection.events() == [NamesReceived((b"Ada",)), NamesReceived((b"Bob",))]


def test_data_after_the_end() -> None:
    """Bytes that come after idleness has ended the conversation are discarded, however late it is noticed [T3]."""
    server = Server(LINES)
    server.hears(b"Ada", at=99)
    server.connection.receive_data(b"\n", 100)
    assert server.connection.data_to_send() == TOO_SLOW


def test_shutdown_after_a_deadline() -> None:
    """A shutdown comes after what is due by then [T3, S10.2]."""
    server = Server(LINES)
    server.connection.shutdown(100)
    assert server.connection.data_to_send() == TOO_SLOW
    server = Server(RAW)
    server.connection.shutdown(1)
    assert server.connection.data_to_send() == PROMPT + GOODBYE


# T4 Time never runs backwards


def test_backwards() -> None:
    """A time that is earlier than one already seen counts as the latest one seen [T4]."""
    server = Server(RAW, idle_timeout=100)
    server.waits(2)
    server.connection.handle_timeout(50)
    server.connection.receive_data(b"Ada", 20)
    assert server.connection.deadline == 51, "the PROMPT is owed since 50"
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


@given(server_configs, st.lists(st.tuples(st.floats(-10, 10), st.sampled_from([b"a", b"a\n", b"exit"])), max_size=8))
@law(40)
def test_backwards_is_the_latest(config: ServerConfig, arrivals: list[tuple[float, bytes]]) -> None:
    """Times in disorder give what they give when each is replaced by the latest before it [T4]."""
    script: Script = [(now, ("data", data)) for now, data in arrivals]
    latest, ordered = 0.0, []
    for now, step in script:
        latest = max(latest, now)
        ordered.append((latest, step))
    assert play(ServerConnection(config, now=0), script) == play(ServerConnection(config, now=0), ordered)


# T5 A function of the timestamped input alone


def test_early_and_repeated() -> None:
    """Before its deadline no timer fires, and at its deadline it fires once [T5]."""
    server = Server(RAW)
    for now in (0, 0.5, math.nextafter(1, 0)):
        server.connection.handle_timeout(now)
        assert server.connection.data_to_send() == b""
    server.connection.handle_timeout(1)
    server.connection.handle_timeout(1)
    server.connection.handle_timeout(2)
    assert server.connection.data_to_send() == PROMPT


def with_extra_looks(script: Script, looks: list[float]) -> Script:
    """Return the script with additional calls of `handle_timeout`, none of them before its time."""
    steps = list(script)
    for now in looks:
        at = bisect([when for when, _ in steps], now)
        steps.insert(at, (now, WAIT))
        steps.insert(at, (now, WAIT))
    return steps


def doubled(script: Script) -> Script:
    """Return the script with a call of `handle_timeout` at the time of each step, before it."""
    return [(now, what) for now, step in script for what in (WAIT, step)]


ends = st.sampled_from([0.0, 1.0, 5.0, 400.0])
looks = st.lists(st.one_of(seconds, st.floats(0, 50)), max_size=6)


@given(server_configs, server_scripts, looks, ends)
@law(120)
def test_extra_looks_change_nothing(config: ServerConfig, script: Script, looks: list[float], rest: float) -> None:
    """However often the clock is looked at, a server says and reports the same, and ends the same [T5]."""
    last = max([*looks, *(now for now, _ in script), 0]) + rest
    once = play(ServerConnection(config, now=0), [*script, (last, WAIT)])
    often = play(ServerConnection(config, now=0), with_extra_looks([*script, (last, WAIT)], looks))
    assert often == once


@given(client_configs, client_scripts, looks, ends)
@law(120)
def test_extra_looks_of_the_client(config: ClientConfig, script: Script, looks: list[float], rest: float) -> None:
    """However often the clock is looked at, a client says and reports the same, and ends the same [T5]."""
    last = max([*looks, *(now for now, _ in script), 0]) + rest
    once = play(ClientConnection(config, now=0), [*script, (last, WAIT)])
    often = play(ClientConnection(config, now=0), with_extra_looks([*script, (last, WAIT)], looks))
    assert often == once


@given(server_configs, server_scripts)
@law(80)
def test_every_input_looks_first(config: ServerConfig, script: Script) -> None:
    """Every input of a server is exactly `handle_timeout` at its time and then that input [T3]."""
    assert play(ServerConnection(config, now=0), doubled(script)) == play(ServerConnection(config, now=0), script)


@given(client_configs, client_scripts)
@law(80)
def test_every_input_of_the_client_looks_first(config: ClientConfig, script: Script) -> None:
    """Every input of a client is exactly `handle_timeout` at its time and then that input [T3]."""
    # A name that is refused need not let the time pass (E2), so at the end both look once more.
    script = [*script, *((now, WAIT) for now, _ in script[-1:])]
    assert play(ClientConnection(config, now=0), doubled(script)) == play(ClientConnection(config, now=0), script)


@given(server_configs, server_scripts, st.floats(-1e6, 1e6))
@law(40)
def test_only_differences_of_time_count(config: ServerConfig, script: Script, start: float) -> None:
    """A clock that starts elsewhere, even below zero, moves the deadlines along and changes nothing else [T5]."""
    start = float(round(start))  # so that the sums stay exact
    moved = play(ServerConnection(config, now=start), [(start + now, step) for now, step in script])
    plain = play(ServerConnection(config, now=0), script)
    assert moved == attrs.evolve(plain, deadline=plain.deadline + start)


def test_default_times() -> None:
    """By default the timers take the seconds that PROTOCOL.md says [S2.2, S4.2, S8.3, S9.1, S11.1, C5.1, C6.1]."""
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
