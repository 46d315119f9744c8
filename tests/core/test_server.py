"""The server, clause by clause (PROTOCOL.md, S): one example for each rule and for each of its edges."""

import math

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greeter_core import (
    ConversationEnded,
    EndReason,
    EOFReceived,
    ExitReceived,
    Framing,
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
    FULL,
    GOODBYE,
    LINES,
    PROMPT,
    RAW,
    TOO_SLOW,
    WELCOME,
    Script,
    Server,
    hello,
    law,
    play,
    seconds,
    server_configs,
    server_scripts,
    too_long,
)

ADA, BOB = hello(b"Ada"), hello(b"Bob")
BOTH = [LINES, RAW]


def line_end(framing: Framing) -> bytes:
    """Return what ends a name in this framing; in RAW that is the arrival itself."""
    return b"" if framing is RAW else b"\n"


def guessed_raw() -> Server:
    """Return a server configured AUTO that has guessed RAW from `Ada`, and owes no PROMPT; it is 3 o'clock."""
    server = Server(AUTO)
    server.hears(b"Ada", at=0)
    server.waits(3)
    assert (server.connection.framing, server.stream) == (RAW, WELCOME + PROMPT + ADA + PROMPT)
    return server


def asked(
    framing: Framing,
    *,
    max_name_size: int = 1024,
    idle_timeout: float = 100,
    max_lifetime: float = math.inf,
    linger: float = 10,
) -> Server:
    """Return a server that has said WELCOME and PROMPT, which its record leaves out; it is 1 o'clock."""
    server = Server(
        framing, max_name_size=max_name_size, idle_timeout=idle_timeout, max_lifetime=max_lifetime, linger=linger
    )
    server.waits(1)
    assert server.stream == WELCOME + PROMPT
    server.said.clear()
    return server


# S1, S2 Opening, and owing a PROMPT


@pytest.mark.parametrize("framing", [AUTO, RAW])
def test_opening(framing: Framing) -> None:
    """On open the server says WELCOME at once, alone, and PROMPT when `pace` has passed [S1.1, S2.2]."""
    server = Server(framing)
    assert server.said == [(0, WELCOME)]
    assert server.connection.deadline == 1
    server.waits(99)
    assert server.said == [(0, WELCOME), (1, PROMPT)]


def test_opening_in_lines() -> None:
    """In LINES the first PROMPT comes in one piece with WELCOME [S1.1, S2.1]."""
    assert Server(LINES).said == [(0, WELCOME + PROMPT)]


def test_prompt_in_lines() -> None:
    """In LINES a PROMPT follows every HELLO at once, in the same piece [S2.1]."""
    assert asked(LINES).hears(b"Ada\nBob\n") == ADA + PROMPT + BOB + PROMPT


def test_prompt_is_paced() -> None:
    """Outside LINES a PROMPT is said `pace` seconds after the HELLO that made it owed, not earlier [S2.2]."""
    server = asked(RAW)
    assert server.hears(b"Ada", at=5) == ADA
    server.waits(math.nextafter(6, 0))
    assert server.said == [(5, ADA)]
    server.waits(6)
    assert server.said == [(5, ADA), (6, PROMPT)]


def test_prompt_without_pace() -> None:
    """With `pace` 0 a PROMPT is due at once, but still a piece of its own [S2.2]."""
    server = Server(RAW, pace=0)
    assert server.connection.deadline == 0
    server.waits(0)
    assert server.said == [(0, WELCOME), (0, PROMPT)]


def test_prompt_when_framing_becomes_lines() -> None:
    """The first LF brings an owed PROMPT out before its time, in front of the HELLO [S2.3]."""
    server = Server(AUTO)
    assert server.hears(b"Ada\n", at=0.5) == PROMPT + ADA + PROMPT
    assert server.connection.deadline == 100.5, "nothing but the idle timer runs"


def test_prompt_when_a_blank_line_decides() -> None:
    """A blank first line brings out the owed PROMPT, as proof of LINES, and then asks for another [S2.3, S5.1]."""
    server = Server(AUTO)
    assert server.hears(b"\n", at=0.5) == PROMPT + PROMPT
    server.waits(50)
    assert server.stream == WELCOME + PROMPT + PROMPT


def test_prompt_when_a_guess_heals() -> None:
    """A PROMPT owed after a RAW guess is said as soon as an LF corrects that guess [S2.3, S3.2]."""
    server = guessed_raw()
    assert server.hears(b"Bob") == BOB
    assert server.hears(b"\n", at=3.5) == PROMPT + PROMPT
    server.waits(50)
    assert server.said[-1][0] == 3.5


def test_prompt_before_a_hello() -> None:
    """An owed PROMPT is said before the HELLO to a name that came early, and another is owed then [S2.4, S2.2]."""
    server = Server(RAW)
    assert server.hears(b"Ada", at=0.5) == PROMPT + ADA
    server.waits(50)
    assert server.said == [(0, WELCOME), (0.5, PROMPT + ADA), (1.5, PROMPT)]


def test_prompt_before_last_words() -> None:
    """An owed PROMPT is said before GOODBYE and before SORRY, whatever they are said for [S2.4]."""
    assert Server(RAW).hears(b"exit") == PROMPT + GOODBYE
    assert Server(RAW, max_name_size=4).hears(b"12345") == PROMPT + too_long(4)
    assert Server(RAW).shuts_down() == PROMPT + GOODBYE
    server = Server(RAW, pace=60, idle_timeout=50)
    server.waits(50)
    assert server.said == [(0, WELCOME), (50, PROMPT + TOO_SLOW), (50, EOF)]


@given(server_configs, server_scripts)
@law(60)
def test_outside_lines_nobody_is_asked_twice(config: ServerConfig, script: Script) -> None:
    """Until the framing is LINES, every PROMPT comes after a WELCOME or a HELLO [S2.5]."""
    connection, stream = ServerConnection(config, now=0), b""
    for step in [(0.0, ("wait", None)), *script]:
        stream += play(connection, [step]).stream
        if connection.framing is LINES:
            return
        assert PROMPT + PROMPT not in stream


def test_owed_prompt_is_dropped_at_the_end() -> None:
    """A PROMPT that is owed when the client ends its stream is not said [S2.6, S7.2]."""
    server = Server(AUTO)
    server.hears_eof(at=0.5)
    server.waits(50)
    assert server.said == [(0, WELCOME), (0.5, EOF)]


# S2.7 Words in flight


def test_data_in_flight_puts_a_prompt_off() -> None:
    """An owed PROMPT, due or not, is put off until `pace` seconds after the call [S2.7, S2.2]."""
    for at in (0.5, 1, 1.5):
        server = Server(RAW)
        assert server.connection.prompt_owed
        server.now = at
        assert server.is_unacknowledged() == b""
        assert server.connection.prompt_owed
        assert server.connection.deadline == at + 1
        server.waits(9)
        assert server.said == [(0, WELCOME), (at + 1, PROMPT)]
        assert not server.connection.prompt_owed


def test_data_in_flight_after_a_while() -> None:
    """A PROMPT that has been owed for long is put off for a quarter of that time [S2.7]."""
    server = Server(RAW)
    for at, deadline in ((3.5, 4.5), (4, 5), (8, 10), (20, 25)):
        server.now = at
        assert server.is_unacknowledged() == b""
        assert server.connection.deadline == deadline
    assert server.hears(b"Ada", at=21) == PROMPT + ADA
    server.is_unacknowledged(at=22)
    assert server.connection.deadline == 23, "what counts is how long this PROMPT has been owed"
    server = Server(AUTO)
    server.hears(b"Ada", at=1)
    assert server.late(50) == ADA
    server.is_unacknowledged(at=51)
    assert server.connection.deadline == 52, "it is owed since 50, when HELLO was said"


@given(server_configs, st.lists(seconds, min_size=1, max_size=6))
@law(40)
def test_data_in_flight_never_hastens(config: ServerConfig, waits: list[float]) -> None:
    """However early or often it is told, the PROMPT does not come before its time [S2.7]."""
    server = ServerConnection(attrs.evolve(config, idle_timeout=math.inf), now=0)
    now = 0.0
    for wait in waits:
        now += wait
        deadline, owed = server.deadline, server.prompt_owed
        server.data_in_flight(now)
        if owed and server.prompt_owed:
            assert server.deadline >= min(deadline, config.max_lifetime)
            assert server.deadline in (now + max(config.pace, now / 4), config.max_lifetime)


def test_data_in_flight_again() -> None:
    """Told again at the same time it changes nothing; later it puts the PROMPT off [S2.7, T5]."""
    server = Server(RAW)
    server.is_unacknowledged(at=0.5)
    server.is_unacknowledged()
    assert server.connection.deadline == 1.5
    server.is_unacknowledged(at=1)
    assert server.connection.deadline == 2


def test_words_bring_out_a_prompt_that_was_put_off() -> None:
    """An LF that proves LINES, or another word, brings the PROMPT out [S2.7, S2.3, S2.4]."""
    for framing, data, said in (
        (AUTO, b"\n", PROMPT + PROMPT),
        (AUTO, b"Ada\n", PROMPT + ADA + PROMPT),
        (RAW, b"Ada", PROMPT + ADA),
        (RAW, b"exit", PROMPT + GOODBYE),
    ):
        server = Server(framing)
        server.is_unacknowledged(at=1)
        assert server.hears(data, at=1.5) == said
    server = Server(RAW)
    server.is_unacknowledged(at=1)
    assert server.shuts_down(at=1.5) == PROMPT + GOODBYE


def test_data_in_flight_fires_other_timers() -> None:
    """What else is due happens in the same call, after the owed PROMPT [S2.7, S2.4]."""
    server = Server(AUTO, pace=9)
    server.hears(b"Ada", at=1)
    assert server.is_unacknowledged(at=3) == PROMPT + ADA
    assert server.connection.deadline == 12, "the PROMPT that this HELLO made owed is not put off"
    server = Server(RAW, pace=200)
    assert server.is_unacknowledged(at=100) == PROMPT + TOO_SLOW
    server = Server(RAW, pace=200, max_lifetime=50)
    assert server.is_unacknowledged(at=50) == PROMPT + GOODBYE
    server.is_unacknowledged(at=60)
    assert server.end is EndReason.LIFETIME


@given(server_configs, server_scripts, seconds, st.booleans())
@law(60)
def test_data_in_flight_without_a_prompt(
    config: ServerConfig,
    script: Script,
    wait: float,
    full: bool,  # noqa: FBT001 - drawn
) -> None:
    """Where no PROMPT is owed (LINES, closing, ended) it is `handle_timeout` [S2.7]."""
    told, looked = (ServerConnection(config, now=0, full=full) for _ in range(2))
    now = script[-1][0] + wait if script else wait
    assert play(told, script) == play(looked, script)
    if told.prompt_owed:
        assert told.framing is not LINES
        assert told.state is ServerState.OPEN
        return
    assert play(told, [(now, ("in flight", None))]) == play(looked, [(now, ("wait", None))])


def test_a_peer_that_never_acknowledges() -> None:
    """Until it is refused for being idle, such a peer costs some forty calls [S2.7, S9.1]."""
    server = ServerConnection(now=0)
    calls = 0
    while server.state is ServerState.OPEN:
        server.data_in_flight(server.deadline)
        calls += 1
    assert 35 < calls < 45
    assert server.data_to_send() == WELCOME + PROMPT + TOO_SLOW


# S3 Lines


@pytest.mark.parametrize("framing", [AUTO, LINES])
@pytest.mark.parametrize(
    ("line", "name"),
    [
        (b"Ada\n", b"Ada"),
        (b"Ada\r\n", b"Ada"),
        (b"Ada\r\r\n", b"Ada\r"),
        (b"\rAda\n", b"\rAda"),
        (b"A\rda\n", b"A\rda"),
        (b"\r\r\n", b"\r"),
        (b" Ada\t\n", b" Ada\t"),
        (b"\x00\n", b"\x00"),
    ],
)
def test_a_line_is_a_name(framing: Framing, line: bytes, name: bytes) -> None:
    """A line ends with LF; one CR right before it is no part of the name, and any other CR is [S3.1, W2]."""
    server = asked(framing)
    assert server.hears(line).startswith(hello(name))
    assert server.names == [name]


@pytest.mark.parametrize("framing", [AUTO, LINES])
def test_cr_and_lf_in_two_arrivals(framing: Framing) -> None:
    """A CR that arrives apart from its LF is still no part of the name [S3.1]."""
    server = asked(framing)
    assert server.hears(b"Ada\r") == b""
    assert server.hears(b"\n") == ADA + PROMPT


def test_cr_is_only_removed_before_lf() -> None:
    """A name that no LF ends keeps its last CR, whatever ends it [S3.1]."""
    for end in (Server.hears_eof, Server.shuts_down, lambda server: server.waits(2)):
        server = Server(AUTO)
        server.hears(b"exit\r")
        end(server)
        assert server.names == [b"exit\r"]


def test_first_lf_decides() -> None:
    """A server configured AUTO is undecided until the first LF, and then in LINES [S3.2]."""
    server = Server(AUTO)
    assert server.connection.framing is AUTO
    server.hears(b"Ada")
    assert server.connection.framing is AUTO
    server.hears(b"\n")
    assert server.connection.framing is LINES


def test_lines_is_for_good() -> None:
    """After the first LF no silence makes a name of the tail [S3.2, S4.1]."""
    server = Server(AUTO)
    server.hears(b"Ada\nBo")
    server.waits(99)
    assert (server.connection.framing, server.names) == (LINES, [b"Ada"])
    assert server.hears(b"b\n") == BOB + PROMPT


def test_a_wrong_guess_heals() -> None:
    """An LF that comes after a RAW guess makes the framing LINES, and the tail behind it waits [S3.2]."""
    server = guessed_raw()
    assert server.hears(b" Lovelace\nBo", at=4) == hello(b" Lovelace") + PROMPT
    assert server.connection.framing is LINES
    assert server.hears(b"b", at=50) == b""
    assert server.hears(b"\n", at=60) == BOB + PROMPT


def test_configured_lines_never_changes() -> None:
    """A server configured LINES does not become RAW, however long a tail waits [S3.3, S4.1]."""
    server = Server(LINES)
    server.hears(b"Ada")
    server.waits(99)
    assert (server.connection.framing, server.names) == (LINES, [])


@pytest.mark.parametrize(
    "name", [b"Ada\n", b"Ada\r\n", b"\n", b"\r\n\n", b"Ada\nBob", b"exit\n", b"exit\r\n", b"Ada\nexit"]
)
def test_lf_means_nothing_to_configured_raw(name: bytes) -> None:
    """To a server configured RAW an arrival is one name, with its CRs and LFs [S3.3, S4.3]."""
    server = asked(RAW)
    assert server.hears(name, at=2) == hello(name)
    assert server.events == [NamesReceived((name,))]
    assert server.connection.framing is RAW


def test_configured_raw_never_changes() -> None:
    """A server configured RAW goes on pacing after an LF, and takes arrivals for names [S3.3]."""
    server = Server(RAW)
    server.hears(b"Ada\n", at=2)
    server.hears(b"Bob", at=4)
    server.waits(9)
    assert server.said[1:] == [
        (1, PROMPT),
        (2, hello(b"Ada\n")),
        (3, PROMPT),
        (4, BOB),
        (5, PROMPT),
    ]


# S4 The tail


def test_tail_waits_in_lines() -> None:
    """In LINES a tail grows over any number of arrivals until an LF ends it [S4.1]."""
    server = asked(LINES)
    for at, data in enumerate([b"A", b"d", b"a"], start=10):
        assert server.hears(data, at=at) == b""
    assert server.hears(b"\n", at=90) == ADA + PROMPT


def test_quiet_makes_a_name() -> None:
    """A tail becomes a name, and the framing RAW, when `quiet` seconds pass without a byte [S4.2]."""
    server = asked(AUTO)
    server.hears(b"Ada", at=10)
    server.waits(math.nextafter(12, 0))
    assert (server.connection.framing, server.names) == (AUTO, [])
    server.waits(12)
    assert (server.connection.framing, server.names) == (RAW, [b"Ada"])
    assert server.said[-1] == (12, ADA)


def test_every_arrival_starts_quiet_anew() -> None:
    """While bytes keep coming within `quiet`, the tail is no name yet [S4.2]."""
    server = asked(AUTO)
    server.hears(b"A", at=10)
    server.hears(b"d", at=11.5)
    server.hears(b"a", at=13)
    server.waits(14.75)
    assert server.names == []
    server.waits(15)
    assert server.names == [b"Ada"]


def test_a_byte_after_the_silence_was_noticed() -> None:
    """A byte that is read after `quiet` was found to be over begins another name [S4.2, T3]."""
    server = asked(AUTO)
    server.hears(b"Ada", at=10)
    server.hears(b"Bob", at=12)
    assert server.said == [(12, ADA), (12, PROMPT + BOB)]


def test_arrivals_are_names_in_raw() -> None:
    """In RAW, configured or guessed, every arrival is a name at once, even two at the same time [S4.3]."""
    for server in (asked(RAW), guessed_raw()):
        assert server.hears(b"Bob") == BOB
        assert server.hears(b"Eve") == PROMPT + hello(b"Eve")


# S5 Answers


@pytest.mark.parametrize("framing", [AUTO, LINES])
@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\n", PROMPT),
        (b"\r\n\n", PROMPT + PROMPT),
        (b"\nAda\n", PROMPT + ADA + PROMPT),
        (b"\n\nAda\n", PROMPT + PROMPT + ADA + PROMPT),
        (b"Ada\n\nBob\n", ADA + PROMPT + PROMPT + BOB + PROMPT),
        (b"Ada\n\n", ADA + PROMPT + PROMPT),
        (b"\nAda\n\nBob\n\n", PROMPT + ADA + PROMPT * 2 + BOB + PROMPT * 2),
        (b"\nexit\n", PROMPT + GOODBYE),
        (b"Ada\n\nexit\n", ADA + PROMPT + PROMPT + GOODBYE),
    ],
)
def test_blank_lines(framing: Framing, data: bytes, said: bytes) -> None:
    """A blank line, wherever it stands, asks again [S5.1, S2.1]."""
    assert asked(framing).hears(data) == said


def test_blank_lines_are_no_names() -> None:
    """Blank lines are not reported, and names among them are, in one event [S5.1]."""
    server = asked(LINES)
    server.hears(b"\n\r\n")
    assert server.events == []
    server.hears(b"\nAda\n\nBob\n\n")
    assert server.events == [NamesReceived((b"Ada", b"Bob"))]


@pytest.mark.parametrize(
    ("framing", "data"),
    [(LINES, b"exit\n"), (LINES, b"exit\r\n"), (AUTO, b"exit\n"), (RAW, b"exit")],
)
def test_exit(framing: Framing, data: bytes) -> None:
    """`exit` gets GOODBYE and the end of the server's stream, and the server is closing [S5.2, S8.1]."""
    server = asked(framing)
    assert server.hears(data, at=5) == GOODBYE
    assert server.said[-2:] == [(5, GOODBYE), (5, EOF)]
    assert server.connection.state is ServerState.CLOSING
    assert server.events == [ExitReceived()]


def test_exit_at_quiet() -> None:
    """A tail `exit` is said goodbye to when `quiet` has passed [S5.2, S4.2]."""
    server = asked(AUTO)
    server.hears(b"exit", at=5)
    server.waits(9)
    assert server.said == [(7, GOODBYE), (7, EOF)]


@pytest.mark.parametrize("framing", BOTH)
@pytest.mark.parametrize("name", [b"Exit", b"exit ", b" exit", b"exitexit", b"exi", b"quit", b"\rexit"])
def test_only_exit_is_exit(framing: Framing, name: bytes) -> None:
    """What is not `exit` exactly is a name [S5.2, S5.3]."""
    server = asked(framing)
    assert server.hears(name + line_end(framing)).startswith(hello(name))
    assert server.connection.state is ServerState.OPEN


def test_exit_among_lines() -> None:
    """In a block of lines, too, only a whole line `exit` is `exit` [S5.2, S5.3]."""
    names = [b"exitexit", b"xexit", b"exit ", b"exi", b"Exit"]
    server = asked(LINES)
    server.hears(b"\n".join(names) + b"\nexit\nexit\n")
    assert server.events == [NamesReceived(names), ExitReceived()]


@pytest.mark.parametrize("framing", BOTH)
def test_hello(framing: Framing) -> None:
    """Every other name gets HELLO, after which the server goes on asking [S5.3]."""
    server = asked(framing)
    for at in range(2, 6):
        assert server.hears(b"Ada" + line_end(framing), at=at).startswith(ADA)
    server.waits(9)
    assert server.stream == 4 * (ADA + PROMPT)


@pytest.mark.parametrize("framing", [AUTO, LINES])
@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"Ada\nBob\nexit\n", GOODBYE),
        (b"Ada\nBob\nexit\nEve\n", GOODBYE),
        (b"Ada\nBob\nexit\nEve", GOODBYE),
        (b"Ada\nBob\nexit\nmuch too long\n", GOODBYE),
        (b"Ada\nBob\nexit\nexit\n", GOODBYE),
        (b"Ada\nBob\nexit\n\n\n", GOODBYE),
        (b"Ada\nBob\nmuch too long\n", too_long(5)),
        (b"Ada\nBob\nmuch too long", too_long(5)),
        (b"Ada\nBob\nmuch too long\nEve\n", too_long(5)),
        (b"Ada\nBob\nmuch too long\nexit\n", too_long(5)),
        (b"Ada\nBob\nmuch too long\n\nEve", too_long(5)),
    ],
)
def test_names_before_the_end(framing: Framing, data: bytes, word: bytes) -> None:
    """Names before an `exit` or a refusal are answered first; what came after it is discarded [S5.4]."""
    server = asked(framing, max_name_size=5)
    assert server.hears(data) == ADA + PROMPT + BOB + PROMPT + word
    assert server.names == [b"Ada", b"Bob"]
    assert server.events[0] == NamesReceived((b"Ada", b"Bob"))
    assert len(server.events) == 2
    assert server.hears(b"Eve\nexit\n") == b""


def test_exit_that_nothing_has_ended() -> None:
    """In LINES an `exit` without its LF is no more than a tail [S5.4, S4.1]."""
    server = asked(LINES)
    assert server.hears(b"Ada\nexit") == ADA + PROMPT
    assert server.hears(b"s\n") == hello(b"exits") + PROMPT


# S6 Long names


@pytest.mark.parametrize("framing", [AUTO, LINES])
@pytest.mark.parametrize("limit", [1, 5, 1024])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_the_limit(framing: Framing, limit: int, end: bytes) -> None:
    """A name of `max_name_size` bytes is greeted, its terminator not counted, and one of a byte more refused [S6.1]."""
    server = asked(framing, max_name_size=limit)
    assert server.hears(b"x" * limit + end, at=5).startswith(hello(b"x" * limit))
    assert server.hears(b"x" * (limit + 1) + end, at=9) == too_long(limit)
    assert server.said[-1] == (9, EOF)
    assert server.connection.state is ServerState.CLOSING


@pytest.mark.parametrize("limit", [1, 5, 1024])
def test_the_limit_without_terminator(limit: int) -> None:
    """In RAW `max_name_size` bytes are greeted, and one byte more is refused [S6.1, W3]."""
    server = asked(RAW, max_name_size=limit)
    assert server.hears(b"x" * limit) == hello(b"x" * limit)
    server.waits(9)
    assert server.hears(b"x" * limit + b"\n") == too_long(limit), "its LF is part of the name"
    message = b"Sorry, names are limited to %d bytes." % limit
    assert server.events[1:] == [Refused(Refusal.NAME_TOO_LONG, message)]


@pytest.mark.parametrize("place", range(4))
def test_the_limit_in_a_block(place: int) -> None:
    """A name that is too long is found wherever it stands, and names before it are answered [S6.1, S5.4]."""
    lines = [b"12345", b"1", b"1234", b"12345"]
    names = lines[:place]
    lines.insert(place, b"123456")
    for end in (b"\n", b"\r\n"):
        server = asked(LINES, max_name_size=5)
        said = server.hears(end.join(lines) + end)
        assert said == b"".join(hello(name) + PROMPT for name in names) + too_long(5)
        assert server.names == names


@pytest.mark.parametrize("framing", [AUTO, LINES])
def test_refusal_as_soon_as_certain(framing: Framing) -> None:
    """A name that is dripped in is refused at its first byte beyond the limit, not at its end [S6.2]."""
    server = asked(framing, max_name_size=5)
    for _ in range(5):
        assert server.hears(b"x") == b""
    assert server.hears(b"x") == too_long(5)


@pytest.mark.parametrize("framing", [AUTO, LINES])
def test_cr_beyond_the_limit_is_not_certain(framing: Framing) -> None:
    """A CR one byte beyond the limit is no reason to refuse while an LF may follow it [S6.2]."""
    server = asked(framing, max_name_size=5)
    assert server.hears(b"12345\r") == b""
    assert server.connection.state is ServerState.OPEN
    assert server.hears(b"\n") == hello(b"12345") + PROMPT


@pytest.mark.parametrize("framing", [AUTO, LINES])
@pytest.mark.parametrize("after", [b"\r", b"6", b"\r\n", b"6\n"])
def test_cr_beyond_the_limit_becomes_certain(framing: Framing, after: bytes) -> None:
    """A CR one byte beyond the limit is part of the name if anything but LF follows, and that is refused [S6.2]."""
    server = asked(framing, max_name_size=5)
    server.hears(b"12345\r")
    assert server.hears(after) == too_long(5)
    assert asked(framing, max_name_size=5).hears(b"12345\r" + after) == too_long(5)


def test_cr_beyond_the_limit_at_an_end() -> None:
    """A CR one byte beyond the limit is part of the name if that ends without an LF [S6.2, S7.1, S10.1, S4.2, S4.3]."""
    for framing, end in ((AUTO, Server.hears_eof), (LINES, Server.hears_eof), (AUTO, Server.shuts_down)):
        server = asked(framing, max_name_size=5)
        server.hears(b"12345\r")
        assert end(server) == too_long(5)
    server = asked(AUTO, max_name_size=5)
    server.hears(b"12345\r", at=3)
    server.waits(5)
    assert server.said == [(5, too_long(5)), (5, EOF)]
    assert asked(RAW, max_name_size=5).hears(b"12345\r") == too_long(5)


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_exit_without_lf_can_be_too_long(limit: int) -> None:
    """Where the limit is less than 4, an `exit` with no LF is refused [S6.3, S6.2]."""
    assert asked(LINES, max_name_size=limit).hears(b"exit") == too_long(limit)
    assert asked(AUTO, max_name_size=limit).hears(b"exit") == too_long(limit)
    assert asked(RAW, max_name_size=limit).hears(b"exit") == too_long(limit)


@pytest.mark.parametrize("framing", [AUTO, LINES])
@pytest.mark.parametrize("limit", [1, 2, 3])
def test_exit_that_arrives_whole_can_be_too_long(framing: Framing, limit: int) -> None:
    """Where the limit is less than 4, an `exit` that arrives whole is refused like any long name [S6.3, S5.4]."""
    assert asked(framing, max_name_size=limit).hears(b"exit\n") == too_long(limit)
    said = hello(b"a") + PROMPT + too_long(limit)
    assert asked(framing, max_name_size=limit).hears(b"a\nexit\r\n") == said


def test_exit_fits_a_limit_of_4() -> None:
    """Where the limit is 4, `exit` is said goodbye to [S6.3]."""
    assert asked(LINES, max_name_size=4).hears(b"exit\r\n") == GOODBYE
    assert asked(RAW, max_name_size=4).hears(b"exit") == GOODBYE


# S7 The end of the client's stream


@pytest.mark.parametrize("framing", [AUTO, LINES])
@pytest.mark.parametrize(
    ("tail", "word", "reason"),
    [
        (b"Ada", ADA, EndReason.EOF),
        (b"12345", hello(b"12345"), EndReason.EOF),
        (b"Ada\r", hello(b"Ada\r"), EndReason.EOF),
        (b"exit", GOODBYE, EndReason.EXIT),
    ],
)
def test_eof_ends_the_tail(framing: Framing, tail: bytes, word: bytes, reason: EndReason) -> None:
    """The end of the stream makes a name of the tail, which is answered, and nobody is asked again [S7.1, S4.1]."""
    server = asked(framing, max_name_size=5)
    server.hears(tail, at=5)
    assert server.hears_eof(at=6) == word
    assert server.said[-2:] == [(6, word), (6, EOF)]
    server.waits(500)
    assert server.said[-1] == (6, EOF)
    assert server.end is reason
    assert server.connection.finished


def test_eof_in_lines_after_a_line() -> None:
    """A last name without LF is answered after the lines before it, and only its PROMPT is missing [S7.1]."""
    server = Server(AUTO)
    server.hears(b"Ada\nBob", at=0.5)
    server.hears_eof(at=0.75)
    assert server.stream == WELCOME + PROMPT + ADA + PROMPT + BOB


def test_eof_events() -> None:
    """A tail that the end of the stream ends is reported before that end [S7.1]."""
    server = Server(LINES)
    server.hears(b"Ada")
    server.hears_eof()
    assert server.events[:2] == [NamesReceived((b"Ada",)), EOFReceived()]


@pytest.mark.parametrize("framing", [AUTO, LINES, RAW])
def test_eof_without_tail(framing: Framing) -> None:
    """Without a tail the server answers the end of the stream with the end of its own, and no word [S7.2]."""
    server = asked(framing)
    assert server.hears_eof(at=5) == b""
    assert server.said == [(5, EOF)]
    assert server.end is EndReason.EOF
    assert server.connection.state is ServerState.ENDED


# S8 Closing

CLOSERS = {
    "exit": EndReason.EXIT,
    "a long name": EndReason.REFUSED,
    "shutdown": EndReason.SHUTDOWN,
    "idleness": EndReason.REFUSED,
    "lifetime": EndReason.LIFETIME,
}
closers = pytest.mark.parametrize(("cause", "reason"), CLOSERS.items())


def closed(cause: str) -> Server:
    """Return a server that began to close at 5 o'clock."""
    server = asked(
        LINES,
        max_name_size=5,
        idle_timeout=5 if cause == "idleness" else 100,
        max_lifetime=5 if cause == "lifetime" else 100,
    )
    match cause:
        case "exit":
            server.hears(b"exit\n", at=5)
        case "a long name":
            server.hears(b"123456\n", at=5)
        case "shutdown":
            server.shuts_down(at=5)
        case "idleness" | "lifetime":
            server.waits(5)
    assert server.connection.state is ServerState.CLOSING
    return server


@closers
def test_closing_stops_timers(cause: str, reason: EndReason) -> None:
    """When closing begins only the linger timer still runs, and EOF follows the last word [S8.1]."""
    server = closed(cause)
    assert server.said[-1] == (5, EOF)
    assert len(server.eofs) == 1
    assert server.connection.deadline == 15
    said = len(server.said)
    server.waits(1000)
    assert len(server.said) == said
    assert server.end is reason


def test_closing_stops_pace_and_quiet() -> None:
    """A PROMPT and a RAW guess that were still to come do not come after the last word [S8.1, S2.6]."""
    server = Server(AUTO, pace=3, quiet=3)
    server.hears(b"Ada", at=1)
    server.shuts_down(at=2)
    server.waits(10)
    assert server.said == [(0, WELCOME), (2, PROMPT + ADA + PROMPT + GOODBYE), (2, EOF)]


@closers
def test_closing_discards(cause: str, reason: EndReason) -> None:
    """A closing server answers nothing, and ends with the client's stream [S8.2]."""
    server = closed(cause)
    told = len(server.events)
    for data in (b"Ada\n", b"exit\n", b"123456", b"\n"):
        assert server.hears(data, at=6) == b""
    server.shuts_down(at=6)
    assert server.events[told:] == []
    assert server.connection.state is ServerState.CLOSING
    assert server.hears_eof(at=7) == b""
    assert isinstance(server.events[-2], EOFReceived)
    assert server.end is reason
    assert server.connection.finished
    assert server.said[-1] == (5, EOF)


@closers
def test_linger(cause: str, reason: EndReason) -> None:
    """A closing server waits `linger` seconds for the client's end of the stream, whatever else arrives [S8.3]."""
    server = closed(cause)
    server.hears(b"more", at=14)
    server.waits(math.nextafter(15, 0))
    states = [server.connection.state]
    server.waits(15)
    assert [*states, server.connection.state] == [ServerState.CLOSING, ServerState.ENDED]
    assert server.end is reason
    assert server.connection.finished


def test_no_linger() -> None:
    """With `linger` 0 the conversation is over in the same `receive_data` [S8.3, T3]."""
    server = asked(LINES, linger=0)
    assert server.hears(b"exit\n", at=5) == GOODBYE
    assert server.end is EndReason.EXIT
    assert server.said == [(5, GOODBYE), (5, EOF)]
    assert server.connection.finished


@closers
def test_reason_is_kept(cause: str, reason: EndReason) -> None:
    """A connection that is lost while the server is closing does not change the reason [S8.4]."""
    server = closed(cause)
    server.loses_connection(at=6)
    assert server.end is reason


def test_reason_is_kept_with_a_last_word_at_eof() -> None:
    """A tail that ends the conversation at the end of the stream gives its own reason, not EOF [S8.4, S7.1]."""
    server = asked(LINES, max_name_size=5)
    server.hears(b"12345\r")
    assert server.hears_eof() == too_long(5)
    assert server.end is EndReason.REFUSED


# S9 Idle clients


@pytest.mark.parametrize("framing", [AUTO, LINES, RAW])
def test_idle_after_open(framing: Framing) -> None:
    """A client that names nobody within `idle_timeout` is refused, exactly then [S9.1, W3]."""
    server = asked(framing)
    server.waits(math.nextafter(100, 0))
    assert server.connection.state is ServerState.OPEN
    server.waits(100)
    assert server.said == [(100, TOO_SLOW), (100, EOF)]
    assert server.events == [Refused(Refusal.IDLE, TOO_SLOW[:-1])]


@pytest.mark.parametrize("framing", BOTH)
def test_idle_after_a_name(framing: Framing) -> None:
    """The idle time counts from the last greeted name [S9.1]."""
    server = asked(framing)
    server.hears(b"Ada" + line_end(framing), at=99)
    server.hears(b"Ada" + line_end(framing), at=150)
    server.waits(260)
    assert [when for when, data in server.said if data == TOO_SLOW] == [250]


def test_idle_after_a_guess() -> None:
    """A name that silence ended counts from when it was greeted [S9.1, S4.2]."""
    server = asked(AUTO)
    server.hears(b"Ada", at=50)
    server.waits(300)
    assert server.said[-2:] == [(152, TOO_SLOW), (152, EOF)]


def test_idle_tail_is_dropped() -> None:
    """A refusal for idleness leaves an unfinished name unanswered [S9.1, S8.2]."""
    server = asked(LINES)
    server.hears(b"Ad", at=99.5)
    server.waits(100)
    assert server.hears(b"a\n") == b""
    assert server.hears_eof() == b""
    assert server.names == []


@pytest.mark.parametrize("drip", [b"x", b"\n", b"\r\n", b"\r"])
def test_bytes_are_no_progress(drip: bytes) -> None:
    """Neither bytes nor blank lines keep an idle client alive [S9.2]."""
    server = asked(LINES)
    for at in range(2, 100):
        server.hears(drip, at=at)
    server.waits(100)
    assert server.stream.endswith(TOO_SLOW)
    assert server.eofs == [100]


def test_names_are_progress() -> None:
    """A name among blank lines is progress [S9.2, S5.1]."""
    server = asked(LINES)
    server.hears(b"\n\nAda\n\n", at=99)
    server.waits(199)
    assert server.eofs == [199]


def test_idle_for_ever() -> None:
    """With an infinite `idle_timeout` the server waits for ever [S9.1]."""
    server = asked(LINES, idle_timeout=math.inf)
    assert server.connection.deadline == math.inf
    assert server.hears(b"Ada\n", at=1e9) == ADA + PROMPT
    assert server.connection.deadline == math.inf


# S10 Shutdown


@pytest.mark.parametrize(
    ("tail", "said", "reason"),
    [
        (b"Ada", ADA + PROMPT + GOODBYE, EndReason.SHUTDOWN),
        (b"exit", GOODBYE, EndReason.EXIT),
        (b"12345\r", too_long(5), EndReason.REFUSED),
    ],
)
def test_shutdown_answers_an_undecided_tail(tail: bytes, said: bytes, reason: EndReason) -> None:
    """An undecided tail is a name when the server shuts down; GOODBYE is said unless it was the end [S10.1, S10.2]."""
    server = asked(AUTO, max_name_size=5)
    server.hears(tail, at=5)
    assert server.shuts_down(at=6) == said
    assert server.said == [(6, said), (6, EOF)]
    server.hears_eof()
    assert server.end is reason


def test_shutdown_drops_an_unfinished_line() -> None:
    """In LINES an unfinished line is dropped when the server shuts down, even if it is `exit` [S10.1]."""
    for framing, data in ((LINES, b"Ada"), (LINES, b"exit"), (AUTO, b"\nexit")):
        server = asked(framing)
        server.hears(data)
        assert server.shuts_down() == GOODBYE
        server.hears_eof()
        assert (server.names, server.end) == ([], EndReason.SHUTDOWN)


def test_shutdown() -> None:
    """Told to shut down, the server says GOODBYE in any framing, and is closing [S10.2, S8.1]."""
    for server in (asked(AUTO), asked(LINES), asked(RAW), guessed_raw()):
        assert server.shuts_down(at=5) == GOODBYE
        assert server.said[-2:] == [(5, GOODBYE), (5, EOF)]
        assert server.connection.state is ServerState.CLOSING
        assert server.connection.deadline == 15
        server.hears_eof()
        assert server.end is EndReason.SHUTDOWN


# S11 Lifetime


@pytest.mark.parametrize("framing", [AUTO, LINES, RAW])
def test_lifetime(framing: Framing) -> None:
    """However busy a client is, GOODBYE comes `max_lifetime` seconds after open, exactly then [S11.1, S11.2]."""
    server = asked(framing, max_lifetime=50)
    for at in range(5, 50, 5):
        server.hears(b"Ada\n", at=at)
    server.waits(math.nextafter(50, 0))
    assert server.connection.state is ServerState.OPEN
    server.waits(50)
    assert server.said[-2:] == [(50, GOODBYE), (50, EOF)]
    assert server.connection.deadline == 60
    assert [event for event in server.events if not isinstance(event, NamesReceived)] == []
    server.waits(60)
    assert server.end is EndReason.LIFETIME


@pytest.mark.parametrize(
    ("tail", "said", "reason"),
    [
        (b"Ada", ADA + PROMPT + GOODBYE, EndReason.LIFETIME),
        (b"exit", GOODBYE, EndReason.EXIT),
        (b"12345\r", too_long(5), EndReason.REFUSED),
    ],
)
def test_lifetime_answers_an_undecided_tail(tail: bytes, said: bytes, reason: EndReason) -> None:
    """An undecided tail is a name when the lifetime is over; if it was the end, its reason counts [S11.1, S11.2]."""
    server = asked(AUTO, max_name_size=5, max_lifetime=6)
    server.hears(tail, at=5)
    server.waits(6)
    assert server.said == [(6, said), (6, EOF)]
    assert server.connection.deadline == 16
    server.hears_eof()
    assert server.end is reason


def test_lifetime_drops_an_unfinished_line() -> None:
    """In LINES an unfinished line is dropped when the lifetime is over, even if it is `exit` [S11.1, S10.1]."""
    for framing, data in ((LINES, b"Ada"), (LINES, b"exit"), (AUTO, b"\nexit")):
        server = asked(framing, max_lifetime=6)
        server.hears(data, at=5)
        server.waits(6)
        assert server.said[-2:] == [(6, GOODBYE), (6, EOF)]
        server.hears_eof()
        assert (server.names, server.end) == ([], EndReason.LIFETIME)


def test_lifetime_begins_on_open() -> None:
    """The lifetime counts from open, and what is owed then is said before GOODBYE [S11.1, S2.4]."""
    server = Server(RAW, pace=60, max_lifetime=50)
    server.waits(50)
    assert server.said == [(0, WELCOME), (50, PROMPT + GOODBYE), (50, EOF)]


# S12 A full server


@pytest.mark.parametrize("framing", [AUTO, LINES, RAW])
def test_full(framing: Framing) -> None:
    """A full server says SORRY instead of WELCOME, owes no PROMPT, and is closing from the start [S12.1, W3]."""
    server = Server(framing, full=True)
    assert server.said == [(0, FULL), (0, EOF)]
    assert server.events == [Refused(Refusal.FULL, b"Sorry, the server is full.")]
    assert server.connection.state is ServerState.CLOSING
    assert not server.connection.finished


@pytest.mark.parametrize("framing", [AUTO, LINES, RAW])
def test_full_discards(framing: Framing) -> None:
    """Whom there is no place for is not answered, whatever it says, and ends with its stream [S12.2, S8.2]."""
    server = Server(framing, max_name_size=5, full=True)
    for data in (b"Ada", b"\n", b"exit\n", b"123456"):
        assert server.hears(data, at=1) == b""
    assert server.shuts_down(at=2) == b""
    assert server.hears_eof(at=3) == b""
    assert server.events[1:] == [EOFReceived(), ConversationEnded(EndReason.REFUSED)]
    assert server.said == [(0, FULL), (0, EOF)]
    assert server.connection.finished


def test_full_lingers() -> None:
    """A full server waits `linger` seconds for the end of the client's stream, and for nothing else [S12.2, S8.3]."""
    server = Server(idle_timeout=5, max_lifetime=5, full=True)
    assert server.connection.deadline == 10
    server.waits(math.nextafter(10, 0))
    assert server.end is None
    server.waits(10)
    assert server.end is EndReason.REFUSED
    assert server.said == [(0, FULL), (0, EOF)]
    assert server.connection.finished


# Events


def test_one_event_for_one_arrival() -> None:
    """All names of one arrival make one event, and each arrival its own."""
    server = asked(LINES)
    server.hears(b"Ada\nBob\nE")
    server.hears(b"ve\n")
    assert server.events == [NamesReceived((b"Ada", b"Bob")), NamesReceived((b"Eve",))]


def test_every_byte_may_be_in_a_name() -> None:
    """A name is echoed exactly, whatever its bytes; an LF is among them only in RAW [W2, S3.3]."""
    name = bytes(set(range(256)) - {0x0A})
    assert asked(LINES).hears(name + b"\n") == hello(name) + PROMPT
    assert asked(RAW).hears(name + b"\n") == hello(name + b"\n")
