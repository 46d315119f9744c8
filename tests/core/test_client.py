"""The client, clause by clause (PROTOCOL.md, C): an example for each rule and for each edge."""

import math

import pytest

import greeter_core as core
from tests.support.laws import cut
from tests.support.virtual import AUTO, EOF, LINES, RAW, Client, perform, plays
from tests.support.words import ADA, BOB, GOODBYE, PROMPT, TOO_SLOW, WELCOME, hello


@plays(r"""
state is named after the last word [C1.1]
    LINES | 0 is CONNECTED not-owing | 0 asks Ada | 1 S WELCOME | 1 is WELCOMED | 2 S PROMPT
    | 2 C Ada\n | 2 is PROMPTED | 3 S HELLO:Ada | 3 is GREETED | 4 S PROMPT | 4 is PROMPTED
    | 5 S GOODBYE | 5 C EOF | 5 is CLOSING | 6 S EOF | 6 is ENDED
names that wait for PROMPT stay unsent when (GOODBYE/SORRY) comes with it [C1.2, C6.1]
    AUTO/LINES/RAW | 0 asks Ada Bob | 1 S WELCOME PROMPT (GOODBYE/TOO_SLOW) | 1 C EOF
    | 1 unanswered Ada Bob
events of a conversation [C1.1, C4.1]
    AUTO | 1 S WELCOME | 2 S PROMPT | 3 asks Ada | 3 C Ada\n | 4 S HELLO:Ada | 5 S PROMPT
    | 6 asks Bob | 6 C Bob\n | 7 S HELLO:Bob PROMPT | 8 asks Ada | 8 C Ada\n
    | 9 S HELLO:Ada PROMPT | 10 exit | 10 C exit\n | 11 S GOODBYE | 11 C EOF | 12 S EOF
    | 12 names Ada Bob Ada | 12 is EXIT finished
    | 12 events Welcomed NameRequested Greeted NameRequested Greeted NameRequested Greeted
      NameRequested GoodbyeReceived ConversationEnded

exit again adds nothing [C2.2]
    LINES prompted | 0 exit | 0 C exit\n | 1 exit | 2 wait
exit has no effect after (GOODBYE/SORRY/a violation/the end of the stream/a shutdown) [C2.2]
    LINES prompted | 1 (S GOODBYE/S TOO_SLOW/S nonsense/S EOF/shutdown) | 1 C EOF | 2 exit | 3 wait
exit has no effect after a lost connection [C2.2]
    LINES prompted | 1 lost | 2 exit | 3 wait

nothing is sent before the first PROMPT is complete [C3.1, C3.2, C3.3, C3.4]
    (AUTO/LINES/RAW) | 0 asks Ada | 0 exit | 1 S WELCOME | 2 S What's\x20your\x20name | 3 S ?
    | 3 C (Ada\n/Ada\nexit\n/Ada)
exit alone waits for the first PROMPT [C3.1, C3.7]
    (AUTO/LINES/RAW) | 0 exit | 1 S WELCOME | 2 S PROMPT | 2 C (exit\n/exit\n/exit)
LINES: all that waits is sent with the first PROMPT, and later names at once [C3.2]
    LINES | 0 asks Ada Bob | 1 S WELCOME PROMPT | 1 C Ada\nBob\n | 2 asks Eve | 2 C Eve\n
    | 3 S HELLO:Ada | 3 is GREETED | 3 asks Joe | 3 C Joe\n | 4 exit | 4 C exit\n
    | 5 S PROMPT HELLO:Bob PROMPT HELLO:Eve PROMPT HELLO:Joe PROMPT GOODBYE | 5 C EOF
    | 5 names Ada Bob Eve Joe | 6 S EOF | 6 is EXIT
RAW: one name for each PROMPT, without terminator [C3.3]
    RAW | 0 asks Ada Bob | 1 S WELCOME PROMPT | 1 C Ada | 2 asks Eve | 3 S HELLO:Ada | 4 S PROMPT
    | 4 C Bob | 5 S HELLO:Bob PROMPT | 5 C Eve | 6 S HELLO:Eve PROMPT | 7 asks Joe Sue | 7 C Joe
    | 7 exit | 8 S HELLO:Joe PROMPT | 8 C Sue | 9 S HELLO:Sue PROMPT | 9 C exit
AUTO: the first name is sent as a line, alone [C3.4]
    AUTO | 0 asks Ada Bob | 1 S WELCOME PROMPT | 1 C Ada\n | 2 asks Eve | 2 exit | 2 is AUTO
AUTO: a reply without the LF proves LINES, and all that waits is sent [C3.5, C3.7]
    AUTO prompted | 0 asks Ada Bob Eve | 0 C Ada\n | 0 exit | 1 S HELLO:Ada | 1 C Bob\nEve\nexit\n
    | 1 is LINES | 1 names Ada | 2 S PROMPT HELLO:Bob PROMPT HELLO:Eve PROMPT GOODBYE | 2 C EOF
    | 3 S EOF | 3 names Ada Bob Eve | 3 is EXIT
AUTO: a reply with the LF proves the original server, and the name counts as greeted [C3.6, C3.3]
    AUTO prompted | 0 asks Ada Bob Eve | 0 C Ada\n | 1 S HELLO:Ada\n | 1 is RAW | 1 names Ada
    | 2 S PROMPT | 2 C Bob | 3 S HELLO:Bob PROMPT | 3 C Eve | 4 exit | 5 S HELLO:Eve PROMPT
    | 5 C exit
AUTO: exit that the original server greeted is sent again, raw, and is no name [C3.7]
    AUTO prompted | 0 exit | 0 C exit\n | 1 S HELLO:exit\n | 1 is RAW | 1 unanswered | 2 S PROMPT
    | 2 C exit | 3 S GOODBYE | 3 C EOF | 4 S EOF | 4 is EXIT | 4 names
AUTO: a reply (without LF proves LINES/with LF proves RAW) for good [C3.5, C3.6, C1.3]
    AUTO prompted | 0 asks Ada Bob | 0 C Ada\n
    | 1 S (HELLO:Ada PROMPT Hello\x20Bob\n/HELLO:Ada\n PROMPT HELLO:Bob\n) | 1 C EOF
    | 1 is VIOLATION
AUTO: a greeting of exit without the LF is a violation [C3.7, C1.3]
    AUTO prompted | 0 exit | 0 C exit\n | 1 S Hello\x20exit! | 1 C EOF | 1 is VIOLATION
as configured: a reply with the LF is a violation [C3.6, C1.3]
    (LINES/RAW) prompted | 0 asks Ada | 0 C (Ada\n/Ada) | 1 S Hello\x20Ada\n | 1 C EOF
    | 1 is VIOLATION (LINES/RAW)
as configured: a greeting of exit is a violation [C3.7, C1.3]
    (LINES/RAW) prompted | 0 exit | 0 C (exit\n/exit) | 1 S HELLO:exit | 1 C EOF | 1 is VIOLATION

patience: WELCOME [C5.1, C5.2]
    AUTO/LINES/RAW | 0 asks Ada | 10- is CONNECTED | 10 C EOF | 10 is TIMED_OUT finished
    | 10 next inf
patience: the first PROMPT, even if nothing is asked [C5.1, C5.2]
    AUTO/LINES/RAW | 5 S WELCOME | 15- is WELCOMED | 15 C EOF | 15 is TIMED_OUT finished
    | 15 next inf
patience: HELLO [C5.1]
    (AUTO/LINES/RAW) | 0 asks Ada | 5 S WELCOME PROMPT | 5 C (Ada\n/Ada\n/Ada) | 15- is PROMPTED
    | 15 C EOF | 15 is TIMED_OUT finished | 15 next inf
patience: PROMPT after HELLO [C5.1]
    (AUTO/LINES/RAW) | 0 asks Ada | 5 S WELCOME PROMPT | 5 C (Ada\n/Ada\n/Ada) | 6 S HELLO:Ada
    | 16- is GREETED | 16 C EOF | 16 is TIMED_OUT
patience: GOODBYE, from when exit was sent [C5.1, C5.2]
    LINES prompted | 50 exit | 50 C exit\n | 50 next 60 | 60 C EOF | 60 is TIMED_OUT
patience: each word gives the next one its full time [C5.1]
    LINES | 0 asks Ada Bob | 9 S WELCOME | 18 S PROMPT | 18 C Ada\nBob\n | 27 S HELLO:Ada
    | 36 S PROMPT | 45 S HELLO:Bob | 54 S PROMPT | 54 names Ada Bob | 54 next inf
patience: bytes are no progress, and an incomplete word is none [C5.1]
    LINES prompted | 0 asks Ada | 0 C Ada\n | 1 S Hello | 2 S \x20Ada | 9 S ! | 9 next 10 | 10 C EOF
    | 10 S \n | 10 is TIMED_OUT
patience: asking more is no progress [C5.1]
    LINES prompted | 0 asks Ada | 0 C Ada\n | 9 asks Bob | 9 C Bob\n | 9 next 10 | 9.5 exit
    | 9.5 C exit\n | 9.5 next 10
patience: none is needed while nothing is asked; the first name starts it [C5.2, C5.1]
    AUTO prompted | 0 next inf | 1000 asks Ada | 1000 C Ada\n | 1000 next 1010 | 1001 S HELLO:Ada
    | 1001 next 1011 | 1002 S PROMPT | 1002 next inf
patience: an incomplete GOODBYE that nothing asked for starts none [C5.2]
    AUTO prompted | 10 S Good | 10 next inf
patience: infinite [C5.1]
    AUTO reply_timeout=inf | 0 next inf | 0 asks Ada | 1e9 S WELCOME PROMPT | 1e9 C Ada\n
    | 1e9 next inf

linger after (GOODBYE/SORRY) [C6.1, S8.3]
    LINES prompted | 3 S (GOODBYE/TOO_SLOW) | 3 C EOF | 3 next 8 | 8- S whatever | 8- is CLOSING
    | 8 is (SHUTDOWN/REFUSED) finished
linger after a shutdown [C6.1]
    AUTO prompted | 1 shutdown | 1 C EOF | 6- is CLOSING | 6 is SHUTDOWN finished
shutdown after a last word changes nothing, nor does a lost connection [C6.1, S8.4]
    AUTO prompted | 1 S TOO_SLOW | 1 C EOF | 2 shutdown | 2 next 6 | 2 lost | 2 is REFUSED

GOODBYE answers exit after all names, in lines [C6.3]
    AUTO/LINES prompted | 0 asks Ada | 0 C Ada\n | 1 S HELLO:Ada | 1 exit | 1 C exit\n | 2 S PROMPT
    | 2 S GOODBYE | 2 C EOF | 3 S EOF | 3 is EXIT | 3 unanswered
GOODBYE answers exit after all names, in RAW [C6.3]
    RAW prompted | 0 asks Ada | 0 C Ada | 0 exit | 1 S HELLO:Ada | 2 S PROMPT | 2 C exit
    | 3 S GOODBYE | 3 C EOF | 4 S EOF | 4 is EXIT | 4 unanswered
GOODBYE while a name is unanswered, and exit is sent or waits, is a shutdown [C6.3]
    (LINES/AUTO) prompted | 0 asks Ada | 0 C Ada\n | 0 exit (| 0 C exit\n/) | 1 S GOODBYE
    | 1 C EOF | 2 S EOF | 2 is SHUTDOWN
GOODBYE where exit was not asked is a shutdown [C6.3]
    AUTO/LINES prompted | 0 asks Ada | 0 C Ada\n | 1 S HELLO:Ada PROMPT GOODBYE | 1 C EOF | 2 S EOF
    | 2 is SHUTDOWN
GOODBYE before exit could be sent is a shutdown [C6.3]
    AUTO/LINES/RAW | 0 exit | 1 S WELCOME | 1 S GOODBYE | 1 C EOF | 2 S EOF | 2 is SHUTDOWN
GOODBYE before exit could be sent again is a shutdown [C6.3, C3.7]
    AUTO prompted | 0 exit | 0 C exit\n | 1 S HELLO:exit\n | 1 S GOODBYE | 1 C EOF | 2 S EOF
    | 2 is SHUTDOWN
""")
def test_client_plays(play: str) -> None:
    perform(Client, play)


# What was heard when the conversation ends: the state, the names greeted, and what is expected.
BOUNDARIES = {
    "nothing": (b"", core.ClientState.CONNECTED, 0, WELCOME),
    "WELCOME": (WELCOME, core.ClientState.WELCOMED, 0, PROMPT),
    "PROMPT": (WELCOME + PROMPT, core.ClientState.PROMPTED, 0, ADA),
    "HELLO": (WELCOME + PROMPT + ADA, core.ClientState.GREETED, 1, PROMPT),
    "HELLO PROMPT": (WELCOME + PROMPT + ADA + PROMPT, core.ClientState.PROMPTED, 1, BOB),
    "two HELLOs": (WELCOME + PROMPT + ADA + PROMPT + BOB, core.ClientState.GREETED, 2, PROMPT),
}


# How it ends, at 1; the reason, and whether the client lingers.
ENDINGS: dict[str, tuple[str, list[bytes], core.EndReason, bool]] = {
    "GOODBYE": ("receive_data", [GOODBYE], core.EndReason.SHUTDOWN, True),
    "SORRY": ("receive_data", [TOO_SLOW], core.EndReason.REFUSED, True),
    "GOODBYE and more": ("receive_data", [GOODBYE + PROMPT], core.EndReason.SHUTDOWN, True),
    "SORRY and more": ("receive_data", [TOO_SLOW + b"nonsense"], core.EndReason.REFUSED, True),
    "shutdown": ("shutdown", [], core.EndReason.SHUTDOWN, True),
    "EOF": ("receive_eof", [], core.EndReason.EOF, False),
    "EOF amid a word": ("receive_eof", [], core.EndReason.EOF, False),
    "lost": ("connection_lost", [], core.EndReason.CONNECTION_LOST, False),
    "nonsense": ("receive_data", [b"nonsense" + PROMPT], core.EndReason.VIOLATION, False),
}


@pytest.mark.parametrize("framing", [AUTO, LINES, RAW])
@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("ending", ENDINGS)
def test_end_at_any_boundary(framing: core.Framing, boundary: str, ending: str) -> None:
    """No word follows, and the names not greeted are reported [C1.2, C1.3, C4.1, C6.1, C6.2]."""
    heard, state, greeted, expected = BOUNDARIES[boundary]
    end, data, reason, lingers = ENDINGS[ending]
    names = [b"Ada", b"Bob", b"Ada", b"Eve"]
    client = Client(framing)
    client.asks(*names)
    client.asks_exit()
    if heard:
        client.hears(heard)
    assert client.connection.state is state
    assert list(client.connection.unanswered) == names[greeted:]
    said, events = [*client.said], [*client.events]
    if ending == "EOF amid a word":
        client.hears(GOODBYE[:-1], at=1)
    client.does(end, *data, at=1)
    assert client.said == [*said, (1, EOF)][: len(said) + (ending != "lost")]
    assert client.connection.deadline == (6 if lingers else math.inf)
    if not ending.startswith("EOF"):
        client.hears(WELCOME + PROMPT + ADA + b"nonsense", at=2)
        client.hears_eof()
    match ending.split(maxsplit=1)[0]:
        case "GOODBYE":
            events.append(core.GoodbyeReceived())
        case "SORRY":
            events.append(core.SorryReceived(TOO_SLOW[:-1]))
        case "nonsense":
            events.append(core.ProtocolViolated(expected, b"nonsense" + PROMPT))
    assert client.events == [*events, core.ConversationEnded(reason, tuple(names[greeted:]))]
    assert client.connection.finished


# Violations

SORRY = b"Sorry, "  # what follows it is free
ASKED, GREETED = WELCOME + PROMPT, WELCOME + PROMPT + ADA
DECIDED = ASKED + hello(b"Ada\n") + PROMPT

# What was heard, what was asked, the framing, and the words that may come, the expected one first.
EXPECTED: dict[str, tuple[bytes, list[bytes], core.Framing, list[bytes]]] = {
    "CONNECTED": (b"", [], LINES, [WELCOME, GOODBYE]),
    "WELCOMED": (WELCOME, [], LINES, [PROMPT, GOODBYE]),
    "PROMPTED, nothing asked": (ASKED, [], LINES, [GOODBYE]),
    "PROMPTED, a name sent": (ASKED, [b"Ada"], LINES, [ADA, GOODBYE]),
    "PROMPTED, a raw name sent": (ASKED, [b"Ada"], RAW, [ADA, GOODBYE]),
    "PROMPTED, undecided": (ASKED, [b"Ada", b"Bob"], AUTO, [ADA, hello(b"Ada\n"), GOODBYE]),
    "PROMPTED, exit sent": (ASKED, [b"exit"], LINES, [GOODBYE]),
    "PROMPTED, exit sent raw": (ASKED, [b"exit"], RAW, [GOODBYE]),
    "PROMPTED, exit undecided": (ASKED, [b"exit"], AUTO, [GOODBYE, hello(b"exit\n")]),
    "GREETED": (GREETED, [b"Ada"], LINES, [PROMPT, GOODBYE]),
    "GREETED, a name sent": (GREETED, [b"Ada", b"Bob"], LINES, [PROMPT, GOODBYE]),
    "PROMPTED again": (GREETED + PROMPT, [b"Ada", b"Bob"], LINES, [BOB, GOODBYE]),
    "PROMPTED, decided": (DECIDED, [b"Ada", b"Bob"], AUTO, [BOB, GOODBYE]),
}


def expecting(case: str) -> Client:
    """Return the client of this case, brought to its boundary."""
    heard, asked, framing, _ = EXPECTED[case]
    client = Client(framing)
    for name in asked:
        if name == b"exit":
            client.asks_exit()
        else:
            client.asks(name)
    if heard:
        client.hears(heard)
    return client


@pytest.mark.parametrize("case", EXPECTED)
def test_violation_is_noticed_at_the_first_impossible_byte(case: str) -> None:
    """Not earlier, whether what came before came at once or not; 64 bytes are reported [C1.3]."""
    client, received = expecting(case), b"220 mail.example.org ESMTP" * 10
    client.hears(received)
    assert client.events[-2] == core.ProtocolViolated(EXPECTED[case][-1][0], received[:64])
    words = [*EXPECTED[case][-1], SORRY]
    for word in words:
        for size in range(len(word)):
            begun = word[:size]
            possible = {
                other[size] for other in words if other.startswith(begun) and len(other) > size
            }
            wrong = next(byte for byte in (word[size] ^ 0x20, 0x00, 0x01) if byte not in possible)
            for chunks in (cut(begun, [1]), cut(begun, [100])):
                client = expecting(case)
                state, told = client.connection.state, len(client.events)
                for chunk in chunks:
                    client.hears(chunk)
                assert (client.connection.state, client.events[told:]) == (state, [])
                client.hears(bytes([wrong]))
                violation = core.ProtocolViolated(words[0], begun + bytes([wrong]))
                assert client.events[told:-1] == [violation]
                assert client.end is core.EndReason.VIOLATION


@pytest.mark.parametrize("name", [b"ada", b"Ada ", b"Bob", b"", b"Ada!"])
def test_hello_to_another_name_is_a_violation(name: bytes) -> None:
    """HELLO must bring back the very name, in the order of sending [C1.1, C1.3]."""
    client = Client.prompted(LINES, b"Ada", b"Bob")
    client.hears(hello(name))
    assert client.end is core.EndReason.VIOLATION


@pytest.mark.parametrize("case", ["CONNECTED", "WELCOMED", "PROMPTED, a name sent", "GREETED"])
def test_size_of_sorry(case: str) -> None:
    """1024 bytes, LF included [C1.4]."""
    line = b"Sorry, " + b"x" * 1015 + b".\n"
    assert len(line) == 1024
    for sizes in ([1024], [5, 1018, 1]):
        client = expecting(case)
        for piece in cut(line, sizes):
            assert client.end is None
            client.hears(piece)
        assert client.events[-1] == core.SorryReceived(line[:-1])
    for pieces in ([line[:-1], b"."], [line[:-1] + b".\n"]):
        client = expecting(case)
        for piece in pieces:
            assert client.connection.state.is_open
            client.hears(piece)
        assert client.end is core.EndReason.VIOLATION


ANY_BYTES = bytes(set(range(256)) - {0x0A, 0x0D})


@pytest.mark.parametrize("name", [b"a", b"x" * 1024, b" ", b"\x00", b"Exit", b"exit ", ANY_BYTES])
def test_name_is_sent_as_it_is(name: bytes) -> None:
    """[C2.1, W2]."""
    client = Client.prompted(LINES)
    assert client.asks(name) == name + b"\n"
    client.hears(hello(name))
    assert client.names == [name]


@pytest.mark.parametrize("size", [1, 7, 25, 26, 10_000])
def test_greetings_that_come_together_are_as_those_that_come_alone(size: int) -> None:
    """The same events, which are events like any other, however the greetings are cut [F3]."""
    names = [b"Ada", b"!", b"What's your name?", b"Hello Ada!", b"x" * 1024, b"Zo\xc3\xab"] * 3
    client = Client.prompted(LINES, *names)
    client.events.clear()
    for piece in cut(b"".join(hello(name) + PROMPT for name in names), [size]):
        client.hears(piece)
    expected = [event for name in names for event in (core.Greeted(name), core.NameRequested())]
    assert client.events == expected
    assert list(map(repr, client.events)) == list(map(repr, expected))
    assert list(map(hash, client.events)) == list(map(hash, expected))
    assert client.connection.unanswered == ()
    assert client.connection.deadline == math.inf
