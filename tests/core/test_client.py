"""The client, clause by clause (PROTOCOL.md, C): one example for each rule and for each of its edges."""

import math

import pytest

from greeter_core import (
    ClientState,
    ConversationEnded,
    EndReason,
    Framing,
    GoodbyeReceived,
    Greeted,
    LocalProtocolError,
    NameRequested,
    ProtocolViolated,
    SorryReceived,
    Welcomed,
)

from .helpers import AUTO, EOF, FULL, GOODBYE, LINES, PROMPT, RAW, TOO_SLOW, WELCOME, Client, cut, hello

ADA, BOB = hello(b"Ada"), hello(b"Bob")
FRAMINGS = [AUTO, LINES, RAW]
LAST_WORDS = pytest.mark.parametrize("last_word", [GOODBYE, TOO_SLOW])


def prompted(framing: Framing = AUTO, *names: bytes, reply_timeout: float = 10) -> Client:
    """Return a client that has heard WELCOME and PROMPT, and then is asked for names, at 0 o'clock."""
    client = Client(framing, reply_timeout=reply_timeout)
    client.hears(WELCOME + PROMPT)
    if names:
        client.asks(*names)
    return client


# C1 What the client expects


def test_a_conversation() -> None:
    """The client hears WELCOME and PROMPT, then HELLO and PROMPT for each name, and GOODBYE to `exit` [C1.1]."""
    client = Client()
    client.hears(WELCOME)
    client.hears(PROMPT)
    for name in (b"Ada", b"Bob", b"Ada"):
        assert client.asks(name) == name + b"\n"
        client.hears(hello(name))
        client.hears(PROMPT)
    assert client.asks_exit() == b"exit\n"
    client.hears(GOODBYE)
    client.hears_eof()
    asked_and_greeted = [NameRequested(), Greeted(b"Ada"), NameRequested(), Greeted(b"Bob"), NameRequested()]
    assert client.events == [
        Welcomed(),
        *asked_and_greeted,
        Greeted(b"Ada"),
        NameRequested(),
        GoodbyeReceived(),
        ConversationEnded(EndReason.EXIT),
    ]
    assert client.connection.finished


def test_states_follow_the_words() -> None:
    """The client's state tells which word it heard last [C1.1]."""
    client = Client()
    states = [client.connection.state]
    client.asks(b"Ada")
    for word in (WELCOME, PROMPT, ADA, PROMPT, GOODBYE):
        client.hears(word)
        states.append(client.connection.state)
    assert [state.name for state in states] == ["CONNECTED", "WELCOMED", "PROMPTED", "GREETED", "PROMPTED", "CLOSING"]


BOUNDARIES = {
    "nothing": (b"", ClientState.CONNECTED),
    "WELCOME": (WELCOME, ClientState.WELCOMED),
    "PROMPT": (WELCOME + PROMPT, ClientState.PROMPTED),
    "HELLO": (WELCOME + PROMPT + ADA, ClientState.GREETED),
    "HELLO and PROMPT": (WELCOME + PROMPT + ADA + PROMPT, ClientState.PROMPTED),
}


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("boundary", BOUNDARIES)
@LAST_WORDS
def test_last_words(framing: Framing, boundary: str, last_word: bytes) -> None:
    """GOODBYE or SORRY may come after any word, and is the last: what follows is discarded [C1.2, C6.1]."""
    heard, state = BOUNDARIES[boundary]
    for rest in (b"", PROMPT, b"nonsense"):
        client = Client(framing)
        client.asks(b"Ada", b"Bob", b"Eve")
        if heard:
            client.hears(heard)
        assert client.connection.state is state
        told = len(client.events)
        assert client.hears(last_word + rest, at=1) == b""
        client.hears(b"more nonsense", at=2)
        event = GoodbyeReceived() if last_word == GOODBYE else SorryReceived(TOO_SLOW[:-1])
        assert client.events[told:] == [event]
        assert client.eofs == [1]
        assert client.connection.state.name == "CLOSING"


@pytest.mark.parametrize("framing", FRAMINGS)
@LAST_WORDS
def test_nothing_is_sent_to_a_last_word(framing: Framing, last_word: bytes) -> None:
    """Names that wait for a PROMPT stay unsent when the last word comes in one arrival with it [C1.2, C6.1]."""
    client = Client(framing)
    client.asks(b"Ada", b"Bob")
    assert client.hears(WELCOME + PROMPT + last_word) == b""
    assert client.said == [(0, EOF)]
    assert client.connection.unanswered == (b"Ada", b"Bob")


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("size", [1, 5, 100])
def test_sorry_instead_of_welcome(framing: Framing, size: int) -> None:
    """SORRY may come instead of WELCOME, in one piece or byte by byte, and is the only word then [C1.2, C4.1, C6.1]."""
    client = Client(framing)
    client.asks(b"Ada", b"Bob")
    client.asks_exit()
    for piece in cut(FULL, [size]):
        assert client.connection.state is ClientState.CONNECTED
        assert client.events == []
        client.hears(piece, at=1)
    assert client.connection.state is ClientState.CLOSING
    assert client.said == [(1, EOF)]
    client.hears_eof(at=2)
    ended = ConversationEnded(EndReason.REFUSED, (b"Ada", b"Bob"))
    assert client.events == [SorryReceived(b"Sorry, the server is full."), ended]


SORRY = b"Sorry, "  # what follows it is free

# For each case: what was heard, what was asked, the framing, and the words that may come, the expected one first.
EXPECTED = {
    "CONNECTED": (b"", [], LINES, [WELCOME, GOODBYE, SORRY]),
    "WELCOMED": (WELCOME, [], LINES, [PROMPT, GOODBYE, SORRY]),
    "PROMPTED, nothing asked": (WELCOME + PROMPT, [], LINES, [GOODBYE, SORRY]),
    "PROMPTED, a name sent": (WELCOME + PROMPT, [b"Ada"], LINES, [ADA, GOODBYE, SORRY]),
    "PROMPTED, a raw name sent": (WELCOME + PROMPT, [b"Ada"], RAW, [ADA, GOODBYE, SORRY]),
    "PROMPTED, undecided": (WELCOME + PROMPT, [b"Ada", b"Bob"], AUTO, [ADA, hello(b"Ada\n"), GOODBYE, SORRY]),
    "PROMPTED, exit sent": (WELCOME + PROMPT, [b"exit"], LINES, [GOODBYE, SORRY]),
    "PROMPTED, exit sent raw": (WELCOME + PROMPT, [b"exit"], RAW, [GOODBYE, SORRY]),
    "PROMPTED, exit undecided": (WELCOME + PROMPT, [b"exit"], AUTO, [hello(b"exit\n"), GOODBYE, SORRY]),
    "GREETED": (WELCOME + PROMPT + ADA, [b"Ada"], LINES, [PROMPT, GOODBYE, SORRY]),
    "GREETED, a name sent": (WELCOME + PROMPT + ADA, [b"Ada", b"Bob"], LINES, [PROMPT, GOODBYE, SORRY]),
    "PROMPTED, the second name": (WELCOME + PROMPT + ADA + PROMPT, [b"Ada", b"Bob"], LINES, [BOB, GOODBYE, SORRY]),
    "PROMPTED, decided": (WELCOME + PROMPT + hello(b"Ada\n") + PROMPT, [b"Ada", b"Bob"], AUTO, [BOB, GOODBYE, SORRY]),
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
def test_violation_at_the_first_impossible_byte(case: str) -> None:
    """A violation is noticed at the first byte that no word which may come has there, and not earlier [C1.3]."""
    *_, words = EXPECTED[case]
    for word in words:
        for size in range(len(word)):
            begun = word[:size]
            possible = {other[size] for other in words if other.startswith(begun) and len(other) > size}
            wrong = next(byte for byte in (word[size] ^ 0x20, 0x00, 0x01) if byte not in possible)
            for chunks in ([bytes([byte]) for byte in begun], [begun] if begun else []):
                client = expecting(case)
                state, told = client.connection.state, len(client.events)
                for chunk in chunks:
                    client.hears(chunk)
                assert (client.connection.state, client.events[told:]) == (state, [])
                client.hears(bytes([wrong]))
                assert client.connection.state is ClientState.ENDED
                violation, end = client.events[told:]
                assert isinstance(violation, ProtocolViolated)
                assert violation.received == begun + bytes([wrong])
                assert violation.expected in words
                assert isinstance(end, ConversationEnded)
                assert end.reason is EndReason.VIOLATION


@pytest.mark.parametrize("case", [case for case in EXPECTED if "exit undecided" not in case])
def test_violation_says_what_was_expected(case: str) -> None:
    """A violation is reported with the word that was expected and the first 64 bytes of what came [C1.3]."""
    client = expecting(case)
    client.hears(b"220 mail.example.org ESMTP" * 10)
    expected = EXPECTED[case][-1][0]
    received = (b"220 mail.example.org ESMTP" * 10)[:64]
    assert client.events[-2] == ProtocolViolated(expected=expected, received=received)


def test_violation_ends_at_once() -> None:
    """After a violation the client ends its stream, waits for nothing and hears nothing more [C1.3]."""
    client = prompted(LINES, b"Ada")
    client.hears(b"Hello Bob!\n" + PROMPT, at=1)
    assert client.said[-1] == (1, EOF)
    assert client.connection.deadline == math.inf
    assert client.connection.finished
    told = len(client.events)
    client.hears(GOODBYE)
    assert client.events[told:] == []


def test_hello_with_another_name() -> None:
    """HELLO must bring back the very name that was sent, and in the order of sending [C1.1, C1.3]."""
    for reply in (hello(b"ada"), hello(b"Ada "), hello(b"Bob"), hello(b""), hello(b"Ada!")):
        client = prompted(LINES, b"Ada", b"Bob")
        client.hears(reply)
        assert client.end is EndReason.VIOLATION


@pytest.mark.parametrize("case", ["CONNECTED", "WELCOMED", "PROMPTED, a name sent", "GREETED"])
def test_size_of_sorry(case: str) -> None:
    """A SORRY line of 1024 bytes, LF included, is understood, and a longer one is a violation by then [C1.4]."""
    line = b"Sorry, " + b"x" * 1015 + b".\n"
    assert len(line) == 1024
    for pieces in ([line], [line[:5], line[5:1023], line[1023:]]):
        client = expecting(case)
        for piece in pieces:
            assert client.end is None
            client.hears(piece)
        assert client.events[-1] == SorryReceived(line[:-1])
    client = expecting(case)
    client.hears(line[:-1])
    assert client.connection.state.is_open
    client.hears(b".")
    assert client.end is EndReason.VIOLATION
    client = expecting(case)
    client.hears(line[:-1] + b".\n")
    assert client.end is EndReason.VIOLATION


# C2 What may be asked


@pytest.mark.parametrize(
    "name", [b"a", b"x" * 1024, b" ", b"\x00", b"Exit", b"exit ", bytes(set(range(256)) - {0x0A, 0x0D})]
)
def test_right_names(name: bytes) -> None:
    """A name has 1 to 1024 bytes, any but CR and LF, and goes out as it is [C2.1, W2]."""
    client = prompted(LINES)
    assert client.asks(name) == name + b"\n"
    client.hears(hello(name))
    assert client.greeted == [name]


@pytest.mark.parametrize(
    "name", [b"", b"x" * 1025, b"\n", b"a\nb", b"Ada\n", b"\r", b"a\rb", b"exit", "Ada", bytearray(b"Ada"), 65, None]
)
def test_wrong_names(name: bytes) -> None:
    """Names that no greeter could take for one name are an error of the caller's, and nothing is sent [C2.1, E2]."""
    client = prompted(LINES)
    with pytest.raises(LocalProtocolError, match="name"):
        client.connection.send_name(name, 0)
    with pytest.raises(LocalProtocolError, match="name"):
        client.connection.send_names([b"Ada", name], 0)
    assert client.connection.unanswered == ()
    assert client.asks_exit() == b"exit\n", "the connection can still be used"


def test_nothing_after_exit() -> None:
    """No name can be asked for after `exit`, whether that was sent or still waits [C2.2]."""
    for client in (Client(), prompted()):
        client.asks_exit()
        with pytest.raises(LocalProtocolError, match="after exit"):
            client.connection.send_name(b"Ada", 0)
        assert client.connection.unanswered == ()


def test_exit_once() -> None:
    """Another `exit` after the first adds nothing [C2.2]."""
    client = prompted(LINES)
    assert client.asks_exit() == b"exit\n"
    assert client.asks_exit() == b""


def test_nothing_after_the_end() -> None:
    """Nothing can be asked for once the conversation is ending or over [C2.2]."""
    for happening in (
        lambda client: client.hears(GOODBYE),
        lambda client: client.hears(TOO_SLOW),
        lambda client: client.hears(b"nonsense"),
        Client.hears_eof,
        Client.shuts_down,
        Client.loses_connection,
    ):
        client = prompted(LINES)
        happening(client)
        with pytest.raises(LocalProtocolError, match="after the end"):
            client.connection.send_names([b"Ada"], 0)
        assert client.asks_exit() == b""
        assert client.connection.unanswered == ()


# C3 How it is sent


@pytest.mark.parametrize("framing", FRAMINGS)
def test_nothing_before_the_first_prompt(framing: Framing) -> None:
    """Whatever is asked, the client says nothing until the first PROMPT is complete [C3.1]."""
    client = Client(framing)
    assert client.asks(b"Ada") == b""
    client.asks_exit()
    for byte in (WELCOME + PROMPT)[:-1]:
        assert client.hears(bytes([byte])) == b""
    assert client.said == []
    assert client.hears(PROMPT[-1:]).startswith(b"Ada")


@pytest.mark.parametrize("framing", FRAMINGS)
def test_exit_waits_for_the_first_prompt(framing: Framing) -> None:
    """Even `exit` alone waits for the first PROMPT [C3.1, C3.7]."""
    client = Client(framing)
    assert client.asks_exit() == b""
    assert client.hears(WELCOME) == b""
    assert client.hears(PROMPT) == (b"exit" if framing is RAW else b"exit\n")


def test_lines_are_sent_at_once() -> None:
    """In LINES what waits goes out with the first PROMPT, and what is asked later at once, PROMPT or not [C3.2]."""
    client = Client(LINES)
    client.asks(b"Ada", b"Bob")
    assert client.hears(WELCOME + PROMPT) == b"Ada\nBob\n"
    assert client.asks(b"Eve") == b"Eve\n"
    assert client.hears(ADA) == b""
    assert client.connection.state is ClientState.GREETED
    assert client.asks(b"Joe") == b"Joe\n"
    assert client.asks_exit() == b"exit\n"
    client.hears(PROMPT + BOB + PROMPT + hello(b"Eve") + PROMPT + hello(b"Joe") + PROMPT + GOODBYE)
    assert client.greeted == [b"Ada", b"Bob", b"Eve", b"Joe"]
    client.hears_eof()
    assert client.end is EndReason.EXIT


def test_raw_is_sent_one_by_one() -> None:
    """In RAW each PROMPT is answered with one name, without terminator [C3.3]."""
    client = Client(RAW)
    client.asks(b"Ada", b"Bob")
    assert client.hears(WELCOME + PROMPT) == b"Ada"
    assert client.asks(b"Eve") == b""
    assert client.hears(ADA) == b""
    assert client.hears(PROMPT) == b"Bob"
    assert client.hears(BOB + PROMPT) == b"Eve"
    assert client.hears(hello(b"Eve") + PROMPT) == b""
    assert client.asks(b"Joe", b"Sue") == b"Joe"
    client.asks_exit()
    assert client.hears(hello(b"Joe") + PROMPT) == b"Sue"
    assert client.hears(hello(b"Sue") + PROMPT) == b"exit"


def test_undecided_sends_one_line() -> None:
    """Undecided, the client sends the first name as a line and holds the others back [C3.4]."""
    client = Client(AUTO)
    client.asks(b"Ada", b"Bob")
    assert client.hears(WELCOME + PROMPT) == b"Ada\n"
    assert client.asks(b"Eve") == b""
    assert client.asks_exit() == b""
    assert client.connection.framing is AUTO


def test_lines_are_discovered() -> None:
    """A reply without the LF proves LINES, and at once everything that waits goes out [C3.5, C3.7]."""
    client = prompted(AUTO, b"Ada", b"Bob", b"Eve")
    client.asks_exit()
    assert client.hears(ADA) == b"Bob\nEve\nexit\n"
    assert client.connection.framing is LINES
    assert client.greeted == [b"Ada"]
    client.hears(PROMPT + BOB + PROMPT + hello(b"Eve") + PROMPT + GOODBYE)
    client.hears_eof()
    assert (client.greeted, client.end) == ([b"Ada", b"Bob", b"Eve"], EndReason.EXIT)


def test_the_original_server_is_discovered() -> None:
    """A reply with the LF inside proves the original server: the name counts, the next ones go raw [C3.6, C3.3]."""
    client = prompted(AUTO, b"Ada", b"Bob", b"Eve")
    assert client.hears(b"Hello Ada\n!\n") == b""
    assert client.connection.framing is RAW
    assert client.greeted == [b"Ada"]
    assert client.hears(PROMPT) == b"Bob"
    assert client.hears(BOB + PROMPT) == b"Eve"
    client.asks_exit()
    assert client.hears(hello(b"Eve") + PROMPT) == b"exit"


@pytest.mark.parametrize("framing", [LINES, RAW])
def test_only_the_undecided_look_for_the_original(framing: Framing) -> None:
    """Where the framing is configured, a reply with the LF inside is a violation [C3.6, C1.3]."""
    client = prompted(framing, b"Ada")
    client.hears(b"Hello Ada\n")
    assert client.end is EndReason.VIOLATION
    assert client.connection.framing is framing


def test_discovery_is_for_good() -> None:
    """Once the framing is known, a reply by the other one's rules is a violation [C3.5, C3.6, C1.3]."""
    client = prompted(AUTO, b"Ada", b"Bob")
    client.hears(ADA + PROMPT + b"Hello Bob\n")
    assert client.end is EndReason.VIOLATION
    client = prompted(AUTO, b"Ada", b"Bob")
    client.hears(hello(b"Ada\n") + PROMPT + hello(b"Bob\n"))
    assert client.end is EndReason.VIOLATION


def test_exit_that_was_greeted() -> None:
    """An `exit` that the original server greeted is sent again, raw, for the next PROMPT, and is no name [C3.7]."""
    client = prompted(AUTO)
    assert client.asks_exit() == b"exit\n"
    assert client.hears(b"Hello exit\n!\n") == b""
    assert client.connection.framing is RAW
    assert client.connection.unanswered == ()
    assert client.hears(PROMPT) == b"exit"
    client.hears(GOODBYE)
    client.hears_eof()
    assert client.greeted == []
    assert client.end is EndReason.EXIT


@pytest.mark.parametrize("framing", [LINES, RAW])
def test_exit_is_not_greeted_otherwise(framing: Framing) -> None:
    """Elsewhere an `exit` that is greeted is a violation [C3.7, C1.3]."""
    client = prompted(framing)
    client.asks_exit()
    client.hears(hello(b"exit"))
    assert client.end is EndReason.VIOLATION


def test_exit_is_not_greeted_as_a_line() -> None:
    """A greeting of `exit` without the LF comes from no greeter, even while undecided [C3.7, C1.3]."""
    client = prompted(AUTO)
    client.asks_exit()
    client.hears(b"Hello exit!")
    assert client.end is EndReason.VIOLATION


# C4 Nothing is lost silently


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("greetings", range(3))
def test_unanswered_names(framing: Framing, greetings: int) -> None:
    """What was asked and not greeted is reported with the end, in order, and `exit` is not among it [C4.1]."""
    names = [b"Ada", b"Bob", b"Ada", b"Eve"]
    for end in (Client.hears_eof, Client.loses_connection, lambda client: client.hears(b"nonsense")):
        client = Client(framing)
        client.asks(*names)
        client.asks_exit()
        client.hears(WELCOME + PROMPT + b"".join(hello(name) + PROMPT for name in names[:greetings]))
        assert list(client.connection.unanswered) == names[greetings:]
        end(client)
        ended = client.events[-1]
        assert isinstance(ended, ConversationEnded)
        assert ended.unanswered == tuple(names[greetings:])
        assert ended.unanswered == client.connection.unanswered


@LAST_WORDS
def test_unanswered_at_a_last_word(last_word: bytes) -> None:
    """A server that ends the conversation leaves names unanswered, sent or not, and all are reported [C4.1]."""
    client = Client(AUTO)
    client.asks(b"Ada", b"Bob")
    client.hears(WELCOME + PROMPT)
    client.hears(last_word)
    client.hears_eof()
    assert isinstance(client.events[-1], ConversationEnded)
    assert client.events[-1].unanswered == (b"Ada", b"Bob")


def test_nothing_is_unanswered() -> None:
    """Where every name was greeted, none is reported [C4.1]."""
    client = prompted(LINES, b"Ada")
    client.hears(ADA + PROMPT)
    client.asks_exit()
    client.hears(GOODBYE)
    client.hears_eof()
    assert client.events[-1] == ConversationEnded(EndReason.EXIT, ())


# C5 Patience


@pytest.mark.parametrize("heard", [b"", WELCOME, WELCOME + PROMPT, WELCOME + PROMPT + ADA])
@pytest.mark.parametrize("framing", FRAMINGS)
def test_every_awaited_word_has_its_time(framing: Framing, heard: bytes) -> None:
    """`reply_timeout` seconds after the last word, not earlier, the conversation ends for want of the next [C5.1]."""
    client = Client(framing)
    client.asks(b"Ada", b"Bob")
    if heard:
        client.hears(heard, at=5)
    start = 5 if heard else 0
    client.waits(math.nextafter(start + 10, 0))
    assert client.connection.state.is_open
    client.waits(start + 10)
    assert client.end is EndReason.TIMED_OUT
    assert client.said[-1] == (start + 10, EOF)
    assert client.connection.finished
    assert client.connection.deadline == math.inf


def test_goodbye_has_its_time() -> None:
    """GOODBYE is awaited from when `exit` was sent [C5.1, C5.2]."""
    client = prompted(LINES)
    client.asks_exit(at=50)
    assert client.connection.deadline == 60
    client.waits(60)
    assert client.end is EndReason.TIMED_OUT


def test_every_word_is_progress() -> None:
    """Each word gives the next one its full time, so a slow server may take long for many names [C5.1]."""
    client = Client(LINES)
    client.asks(b"Ada", b"Bob")
    for at, word in enumerate([WELCOME, PROMPT, ADA, PROMPT, BOB, PROMPT], start=1):
        client.hears(word, at=9 * at)
    assert client.greeted == [b"Ada", b"Bob"]
    assert client.connection.deadline == math.inf


def test_bytes_are_no_progress() -> None:
    """A word that is not complete when its time is over is not there [C5.1]."""
    client = prompted(LINES, b"Ada")
    for at, byte in enumerate(ADA[:-1]):
        client.hears(bytes([byte]), at=at)
    assert client.connection.deadline == 10
    assert client.hears(ADA[-1:], at=10) == b""
    assert client.end is EndReason.TIMED_OUT


def test_asking_more_is_no_progress() -> None:
    """Names that are asked while a word is awaited give it no more time [C5.1]."""
    client = prompted(LINES, b"Ada")
    client.asks(b"Bob", at=9)
    assert client.connection.deadline == 10
    client.asks_exit(at=9.5)
    assert client.connection.deadline == 10


def test_an_idle_client_waits_for_ever() -> None:
    """A client that was prompted and has nothing to ask has no deadline; the first name starts one [C5.2, C5.1]."""
    client = prompted(AUTO)
    assert client.connection.deadline == math.inf
    client.hears(GOODBYE[:4], at=10)
    assert client.connection.deadline == math.inf
    client = prompted(AUTO)
    client.asks(b"Ada", at=1000)
    assert client.connection.deadline == 1010
    client.hears(ADA, at=1001)
    assert client.connection.deadline == 1011, "a PROMPT is always awaited"
    client.hears(PROMPT, at=1002)
    assert client.connection.deadline == math.inf


def test_prompt_is_awaited_by_the_idle() -> None:
    """WELCOME and the first PROMPT are awaited even by a client that asks nothing [C5.2]."""
    client = Client()
    client.hears(WELCOME, at=9)
    client.waits(19)
    assert client.end is EndReason.TIMED_OUT


def test_infinite_patience() -> None:
    """With an infinite `reply_timeout` the client waits for ever [C5.1]."""
    client = Client(reply_timeout=math.inf)
    assert client.connection.deadline == math.inf
    client.asks(b"Ada")
    client.hears(WELCOME + PROMPT, at=1e9)
    assert client.connection.deadline == math.inf


# C6 The end


@LAST_WORDS
def test_linger_after_a_last_word(last_word: bytes) -> None:
    """After the last word the client ends its stream and waits for the server's, or `linger` seconds [C6.1, S8.3]."""
    for ending in (Client.hears_eof, lambda client: client.waits(8)):
        client = prompted(LINES)
        client.hears(last_word, at=3)
        assert client.said == [(3, EOF)]
        assert client.connection.deadline == 8
        client.hears(b"whatever", at=math.nextafter(8, 0))
        assert client.end is None
        ending(client)
        assert client.connection.state is ClientState.ENDED
        assert client.connection.finished
        assert client.said == [(3, EOF)]


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_shutdown(boundary: str) -> None:
    """Told to shut down, the client ends its stream, hears no more, and reports what was not answered [C6.1, C4.1]."""
    heard, _ = BOUNDARIES[boundary]
    client = Client(LINES)
    client.asks(b"Ada", b"Bob")
    if heard:
        client.hears(heard)
    assert client.shuts_down(at=1) == b""
    assert client.said[-1] == (1, EOF)
    assert client.connection.deadline == 6
    told = len(client.events)
    client.hears(WELCOME + PROMPT + ADA + b"nonsense", at=2)
    assert client.events[told:] == []
    client.hears_eof()
    unanswered = (b"Bob",) if ADA in heard else (b"Ada", b"Bob")
    assert client.events[told:] == [ConversationEnded(EndReason.SHUTDOWN, unanswered)]


def test_shutdown_lingers() -> None:
    """After a shutdown the client waits `linger` seconds for the end of the server's stream [C6.1]."""
    client = prompted()
    client.shuts_down(at=1)
    client.waits(6)
    assert client.end is EndReason.SHUTDOWN


def test_shutdown_after_a_last_word() -> None:
    """A shutdown after the last word changes nothing, nor does a connection that is lost then [C6.1, S8.4]."""
    client = prompted()
    client.hears(TOO_SLOW, at=1)
    client.shuts_down(at=2)
    assert client.connection.deadline == 6
    client.loses_connection()
    assert client.end is EndReason.REFUSED


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("begun", [b"", GOODBYE[:-1]])
def test_eof_without_a_last_word(boundary: str, begun: bytes) -> None:
    """A server whose stream ends, even amid a word, has ended the conversation [C6.2, C4.1]."""
    heard, _ = BOUNDARIES[boundary]
    client = Client(LINES)
    client.asks(b"Ada", b"Bob")
    if heard + begun:
        client.hears(heard + begun)
    client.hears_eof(at=1)
    assert client.said[-1] == (1, EOF)
    assert client.end is EndReason.EOF
    assert client.connection.finished


@pytest.mark.parametrize("framing", FRAMINGS)
def test_goodbye_answers_exit(framing: Framing) -> None:
    """GOODBYE after `exit` was sent and every name greeted ends the conversation as was asked [C6.3]."""
    client = prompted(framing, b"Ada")
    client.asks_exit()
    client.hears(ADA)
    client.hears(PROMPT)
    client.hears(GOODBYE)
    client.hears_eof()
    assert client.end is EndReason.EXIT


@pytest.mark.parametrize("framing", FRAMINGS)
def test_goodbye_before_exit(framing: Framing) -> None:
    """GOODBYE while a name is unanswered, or `exit` not sent, says that the server shut down [C6.3]."""
    client = prompted(framing, b"Ada")
    client.asks_exit()
    client.hears(GOODBYE)
    client.hears_eof()
    assert client.end is EndReason.SHUTDOWN
    client = prompted(framing, b"Ada")
    client.hears(ADA + PROMPT + GOODBYE)
    client.hears_eof()
    assert client.end is EndReason.SHUTDOWN
    client = Client(framing)
    client.asks_exit()
    client.hears(WELCOME)
    client.hears(GOODBYE)
    client.hears_eof()
    assert client.end is EndReason.SHUTDOWN


def test_goodbye_to_an_exit_that_still_waits() -> None:
    """GOODBYE between a greeted `exit` and the PROMPT for which it would be sent again is a shutdown [C6.3, C3.7]."""
    client = prompted(AUTO)
    client.asks_exit()
    client.hears(hello(b"exit\n"))
    client.hears(GOODBYE)
    client.hears_eof()
    assert client.end is EndReason.SHUTDOWN
